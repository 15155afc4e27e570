use crate::checkpoint::{STATE_FILE, new_folder, read_info};
use crate::file::sync_folder;
use crate::{Checkpoint, CheckpointInfo, StateError, TrainingState};
use std::fs;
use std::path::{Path, PathBuf};

/// Ends the names of folders that are being written.
const PARTIAL: &str = ".partial";

/// The checkpoints of one run: `step-XXXXXXXX` folders, each whole or absent.
pub struct CheckpointStore {
    root: PathBuf,
}

/// A checkpoint that was passed over because it is not whole.
#[derive(Debug)]
pub struct Skipped {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl CheckpointStore {
    /// The store in a folder, for its only writer: the folder is made if it is absent, and what
    /// interrupted writes left is removed.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(root).map_err(StateError::io(root))?;
        for name in names(root)?.iter().filter(|name| is_partial(name)) {
            let path = root.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(StateError::io(&path))?;
            }
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// The store in a folder, for a reader beside the writer: nothing is changed.
    pub fn reader(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Whether a folder of this name beside the checkpoints passes for one of them, or for one that is being written.
    pub fn is_own_name(name: &str) -> bool {
        step_of(name).is_some() || is_partial(name)
    }

    /// Where the checkpoint of a step lies, if there is one.
    pub fn path_of(&self, step: u64) -> PathBuf {
        self.root.join(format!("step-{step:08}"))
    }

    /// Saves a state and keeps the newest `keep` checkpoints up to it, and that of the step `kept`. The folder appears under its name
    /// only once every file is on disk; a failure leaves the older checkpoints as they were. One of the same step, which a run passes
    /// over only if it is not whole, makes way.
    ///
    /// # Errors
    /// The file system refuses, the disk being full for one.
    pub fn save(
        &self,
        state: &TrainingState,
        keep: usize,
        kept: Option<u64>,
    ) -> Result<PathBuf, StateError> {
        let target = self.path_of(state.position.step);
        let mut partial = target.clone().into_os_string();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let written = self.write(state, &partial, &target);
        if written.is_err() {
            // The first error is the one to report; the next open removes what this cannot.
            let _ = fs::remove_dir_all(&partial);
        }
        written?;
        let not_later = self.steps()?.into_iter().filter(|(step, _)| *step <= state.position.step);
        for (step, old) in not_later.rev().skip(keep.max(1)) {
            if kept != Some(step) {
                fs::remove_dir_all(&old).map_err(StateError::io(&old))?;
            }
        }
        Ok(target)
    }

    fn write(
        &self,
        state: &TrainingState,
        partial: &Path,
        target: &Path,
    ) -> Result<(), StateError> {
        new_folder(partial, target)?;
        state.write_into(partial)?;
        if target.exists() {
            fs::remove_dir_all(target).map_err(StateError::io(target))?;
        }
        fs::rename(partial, target).map_err(StateError::io(target))?;
        sync_folder(&self.root)
    }

    /// Whether there is no checkpoint, whole or not; one that is being written does not count.
    ///
    /// # Errors
    /// The folder is there and cannot be listed.
    pub fn is_empty(&self) -> Result<bool, StateError> {
        Ok(!self.root.exists() || self.steps()?.is_empty())
    }

    /// The newest whole checkpoint, and the newer ones that were passed over because they are not whole.
    ///
    /// # Errors
    /// The folder cannot be listed; a file is there and cannot be read, or is of another version's format.
    pub fn newest_whole(&self) -> Result<(Option<Checkpoint>, Vec<Skipped>), StateError> {
        self.newest_whole_that(&mut |_| true)
    }

    /// The same, by its model alone: its moments may be absent or damaged, and none can be read.
    ///
    /// # Errors
    /// As [`CheckpointStore::newest_whole`].
    pub fn newest_model(&self) -> Result<(Option<Checkpoint>, Vec<Skipped>), StateError> {
        self.newest(&mut |_| true, Checkpoint::open_params)
    }

    /// The same among those whose record is what is looked for.
    ///
    /// # Errors
    /// As [`CheckpointStore::newest_whole`].
    pub fn newest_whole_that(
        &self,
        fits: &mut dyn FnMut(&CheckpointInfo) -> bool,
    ) -> Result<(Option<Checkpoint>, Vec<Skipped>), StateError> {
        self.newest(fits, Checkpoint::open)
    }

    fn newest(
        &self,
        fits: &mut dyn FnMut(&CheckpointInfo) -> bool,
        open: fn(&Path) -> Result<Checkpoint, StateError>,
    ) -> Result<(Option<Checkpoint>, Vec<Skipped>), StateError> {
        let mut skipped = Vec::new();
        for (_, path) in self.steps()?.into_iter().rev() {
            // Its record tells what it is, and only of one that is looked for are the tensors held against it.
            let is_it = read_info(&path.join(STATE_FILE)).map(|info| fits(&info));
            if matches!(is_it, Ok(false)) {
                continue;
            }
            match is_it.and_then(|_| open(&path)) {
                Ok(checkpoint) => return Ok((Some(checkpoint), skipped)),
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => skipped.push(Skipped { path, reason: error.to_string() }),
            }
        }
        Ok((None, skipped))
    }

    /// The record of the newest checkpoint that has a sound one, whatever became of its tensors; `None` also where the folder cannot
    /// be listed.
    pub fn newest_info(&self) -> Option<CheckpointInfo> {
        let steps = self.steps().ok()?;
        steps.iter().rev().find_map(|(_, path)| read_info(&path.join(STATE_FILE)).ok())
    }

    /// Checkpoint folders with their steps, the oldest first.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>, StateError> {
        let mut steps: Vec<(u64, PathBuf)> = names(&self.root)?
            .into_iter()
            .filter_map(|name| Some((step_of(&name)?, self.root.join(name))))
            .collect();
        steps.sort();
        Ok(steps)
    }
}

/// The step of a checkpoint by its folder's name; `None` for another name.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?;
    step.bytes().all(|b| b.is_ascii_digit()).then(|| step.parse().ok()).flatten()
}

/// Whether a folder's name is that of a checkpoint that is being written.
fn is_partial(name: &str) -> bool {
    name.strip_suffix(PARTIAL).is_some_and(|name| step_of(name).is_some())
}

fn names(root: &Path) -> Result<Vec<String>, StateError> {
    let entries = fs::read_dir(root).map_err(StateError::io(root))?;
    entries
        .map(|entry| Ok(entry.map_err(StateError::io(root))?.file_name().to_string_lossy().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::FORMAT_VERSION;
    use crate::init::tests::small_state;
    use proptest::prelude::*;

    fn at_step(step: u64) -> TrainingState {
        let mut state = small_state(true);
        state.position.step = step;
        state.position.compute_flops = step as f64 / 3.0;
        state
    }

    fn newest_step(store: &CheckpointStore) -> Option<u64> {
        store.newest_whole().unwrap().0.map(|checkpoint| checkpoint.info().position.step)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        for tied_head in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::open(folder.path()).unwrap();
            let mut state = small_state(tied_head);
            for tensor in state.moments.second.values_mut() {
                tensor.data[0] = 0.1;
            }
            let path = store.save(&state, 2, None).unwrap();
            assert_eq!(Checkpoint::open(&path).unwrap().load().unwrap(), state);
        }
    }

    #[test]
    fn the_newest_are_kept_and_a_step_can_be_saved_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        for step in [10, 20, 30, 30] {
            store.save(&at_step(step), 2, None).unwrap();
        }
        assert_eq!(names(folder.path()).unwrap().len(), 2);
        assert_eq!(newest_step(&store), Some(30));
    }

    #[test]
    fn the_step_to_keep_stays_beside_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        for step in [10, 20, 30, 40, 50] {
            store.save(&at_step(step), 1, Some(20)).unwrap();
        }
        let mut found = names(folder.path()).unwrap();
        found.sort();
        assert_eq!(found, ["step-00000020", "step-00000050"]);
        let mut odd = |info: &CheckpointInfo| info.position.step < 30;
        let found = store.newest_whole_that(&mut odd).unwrap().0.unwrap();
        assert_eq!(found.info().position.step, 20);
        assert!(store.newest_whole_that(&mut |_| false).unwrap().0.is_none());
    }

    #[test]
    fn a_broken_later_checkpoint_does_not_push_out_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let later = store.save(&at_step(1000), 1, None).unwrap();
        fs::remove_file(later.join("state.json")).unwrap();
        store.save(&at_step(100), 1, None).unwrap();
        assert_eq!(newest_step(&store), Some(100));
        store.save(&at_step(1000), 1, None).unwrap();
        assert_eq!(newest_step(&store), Some(1000));
        assert_eq!(names(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn remains_of_an_interrupted_write_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("step-00000040.partial")).unwrap();
        let reader = CheckpointStore::reader(folder.path());
        assert!(reader.is_empty().unwrap());
        let store = CheckpointStore::open(folder.path()).unwrap();
        assert_eq!(newest_step(&store), None);
        assert!(names(folder.path()).unwrap().is_empty());
        store.save(&at_step(1), 1, None).unwrap();
        assert!(!reader.is_empty().unwrap());
    }

    #[test]
    fn identical_states_give_identical_files() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&a, &b] {
            CheckpointStore::open(folder.path()).unwrap().save(&at_step(5), 1, None).unwrap();
        }
        for name in ["model.safetensors", "optimizer.safetensors", "state.json"] {
            let read = |folder: &Path| fs::read(folder.join("step-00000005").join(name)).unwrap();
            assert_eq!(read(a.path()), read(b.path()), "{name}");
        }
    }

    #[test]
    fn a_missing_file_or_a_cut_one_sends_the_reader_to_the_previous_checkpoint() {
        for name in ["model.safetensors", "optimizer.safetensors", "state.json"] {
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::open(folder.path()).unwrap();
            store.save(&at_step(1), 2, None).unwrap();
            let file = store.save(&at_step(2), 2, None).unwrap().join(name);
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            assert_eq!(newest_step(&store), Some(1), "{name} cut");
            fs::remove_file(&file).unwrap();
            let (found, skipped) = store.newest_whole().unwrap();
            assert_eq!(found.unwrap().info().position.step, 1);
            assert!(skipped[0].reason.contains(name), "{}", skipped[0].reason);
        }
    }

    /// What cannot be read now, or by this version, is not passed over: a run that goes on from an earlier checkpoint removes it.
    #[test]
    fn a_checkpoint_that_is_whole_and_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        store.save(&at_step(1), 2, None).unwrap();
        let file = store.save(&at_step(2), 2, None).unwrap().join("state.json");
        let text = fs::read_to_string(&file).unwrap();
        let (ours, theirs) = (FORMAT_VERSION, FORMAT_VERSION + 1);
        let format = |n: u32| format!("\"format\": {n}");
        assert!(text.contains(&format(ours)), "{text}");
        fs::write(&file, text.replace(&format(ours), &format(theirs))).unwrap();
        let message = store.newest_whole().map(|_| ()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("format {theirs}: this version reads {ours}")),
            "{message}"
        );
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let message = store.newest_whole().map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("state.json"), "a loop of links: {message}");
    }

    #[test]
    fn tensors_of_another_model_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let path = store.save(&at_step(1), 1, None).unwrap();
        // The record of a smaller model over the files of a larger one.
        let text = fs::read_to_string(path.join("state.json")).unwrap();
        let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
        file["state"]["shape"]["n_layers"] = 1.into();
        let state: crate::CheckpointInfo = serde_json::from_value(file["state"].clone()).unwrap();
        file["xxh3"] = crate::file::checksum(&serde_json::to_vec(&state).unwrap()).into();
        fs::write(path.join("state.json"), file.to_string()).unwrap();
        let message = Checkpoint::open(&path).unwrap().load().unwrap_err().to_string();
        assert!(message.contains("transformer.h.1."), "{message}");
        assert!(message.contains("does not belong to a 1x64x4 GPT"), "{message}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_flipped_bit_is_noticed(file in 0usize..3, at in 0.0f64..1.0, bit in 0u32..8) {
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::open(folder.path()).unwrap();
            let name = ["model.safetensors", "optimizer.safetensors", "state.json"][file];
            let file = store.save(&at_step(1), 1, None).unwrap().join(name);
            let mut bytes = fs::read(&file).unwrap();
            let at = (at * bytes.len() as f64) as usize;
            let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            let before = json(&bytes);
            bytes[at] ^= 1 << bit;
            fs::write(&file, &bytes).unwrap();
            // White space between the entries of the JSON carries nothing, nor does an E for an e in a number.
            prop_assume!(before.is_none() || json(&bytes) != before);
            prop_assert!(store.newest_whole().map_or(true, |(found, _)| found.is_none()));
        }
    }
}
