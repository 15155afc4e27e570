use crate::output;
use anyhow::{Context, Result, bail};
use corpus::{Corpus, Tokenizer};
use measure::Precision;
use model::{DeviceChoice, Gpt};
use schedule::Schedule;
use state::{
    Checkpoint, CheckpointInfo, CheckpointStore, STATE_FILE, Skipped, StateError, TOKENIZER_FILE,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use trainer::{RunFolder, run_tokenizer};

/// A checkpoint, with the run that it belongs to if it lies in one.
pub struct OpenedCheckpoint {
    pub path: PathBuf,
    pub info: CheckpointInfo,
    pub gpt: Gpt,
    run: Option<RunOfCheckpoint>,
}

/// The run that a checkpoint lies in.
pub struct RunOfCheckpoint {
    pub schedule: Schedule,
    pub root: PathBuf,
}

impl OpenedCheckpoint {
    /// Opens a checkpoint folder, or the newest whole checkpoint of a run's folder.
    pub fn open(path: &Path, device: &str) -> Result<Self> {
        let choice: DeviceChoice = device.parse()?;
        let (path, root) = locate(path, CheckpointStore::newest_model)?;
        let run = match root {
            Some(root) => Some(RunOfCheckpoint { schedule: RunFolder::schedule_of(&root)?, root }),
            None => None,
        };
        let checkpoint = Checkpoint::open_params(&path)?;
        let state = checkpoint.load_params()?;
        // A run in bfloat16 can be looked at on any machine.
        let precision = match (choice, &run) {
            (DeviceChoice::Cuda(_), Some(run)) => run.schedule.machine().precision,
            (DeviceChoice::Cpu, _) | (_, None) => Precision::F32,
        };
        let gpt = Gpt::new(&state, &choice.open(precision)?, precision);
        let info = checkpoint.info().clone();
        Ok(Self { path, info, gpt, run })
    }

    /// Its run, if it lies in one.
    pub fn run(&self) -> Option<&RunOfCheckpoint> {
        self.run.as_ref()
    }

    /// Errs where tokens of a vocabulary mean something else to this checkpoint.
    pub fn check_vocabulary(&self, whose: &str, vocabulary: &str) -> Result<()> {
        let here = &self.info.origin.vocabulary;
        if !corpus::may_be_one(vocabulary, here) {
            bail!(
                "{whose}: its vocabulary is {vocabulary}, the checkpoint's {here}; use tokens made \
                 with the checkpoint's tokenizer"
            );
        }
        Ok(())
    }

    /// The tokenizer of its tokens: the run's, or the one that was imported with it.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let due = &self.info.origin.vocabulary;
        if let Some(plain) = Tokenizer::plain(due) {
            return Ok(plain);
        }
        let Some(RunOfCheckpoint { schedule, root }) = &self.run else {
            return own_tokenizer(&self.path, &self.info)?.with_context(|| {
                format!(
                    "{}: lies in no run and has no tokenizer.json, so nothing says how its tokens are written; put that of the \
                     vocabulary {due} there",
                    self.path.display(),
                )
            });
        };
        let name = root.display().to_string();
        let tokenizer = run_tokenizer(schedule, root)?.with_context(|| {
            format!(
                "{name}: the tokenizer of its token file is not known (no tokenizer.json beside it)"
            )
        })?;
        if !fits(&tokenizer, &self.info) {
            let found = tokenizer.vocabulary()?;
            bail!("{name}: its vocabulary is {found} now, and the checkpoint's {due}");
        }
        Ok(tokenizer)
    }
}

/// Errs for a name that a run would take for one of its own checkpoints.
pub fn check_no_runs_own(out: &Path) -> Result<()> {
    let Some(name) = out.file_name().and_then(OsStr::to_str) else { return Ok(()) };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok();
    let run = folder.as_deref().and_then(Path::parent).filter(|run| RunFolder::is_run(run));
    let is_among = run.is_some_and(|run| folder == Some(RunFolder::checkpoints_of(run)));
    if is_among && CheckpointStore::is_own_name(name) {
        bail!(
            "-o {}: the run would take it for a checkpoint of its own; choose another name, as grown",
            out.display()
        );
    }
    Ok(())
}

/// Errs if a run's data is not what its checkpoint learnt from any more.
pub fn check_data(info: &CheckpointInfo, corpus: &Corpus, root: &Path) -> Result<()> {
    let (there, here) = (&info.origin.data, corpus.identity());
    if *there != here {
        bail!(
            "{}: the run's data is {here} now, and the checkpoint's {there}, so its held-out tokens are others; put the token file \
             back as it was",
            root.display()
        );
    }
    Ok(())
}

/// The tokenizer.json of a checkpoint that lies in no run, where it has one.
fn own_tokenizer(path: &Path, info: &CheckpointInfo) -> Result<Option<Tokenizer>> {
    let due = &info.origin.vocabulary;
    let json = path.join(TOKENIZER_FILE);
    if !json.exists() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_file(&json)?;
    if !fits(&tokenizer, info) {
        let found = tokenizer.vocabulary()?;
        bail!("{}: its vocabulary is {found}, the checkpoint's {due}", json.display());
    }
    Ok(Some(tokenizer))
}

/// Whether a tokenizer is that of a checkpoint's tokens, as far as it is known whose they are.
fn fits(tokenizer: &Tokenizer, info: &CheckpointInfo) -> bool {
    let due = &info.origin.vocabulary;
    if corpus::is_unknown(due) {
        return tokenizer.n_vocab() == info.shape.n_vocab;
    }
    tokenizer.vocabulary().is_ok_and(|found| found == *due)
}

/// The tokenizer that goes along with a checkpoint's model: where its tokens need one that is still there and still theirs, of its run
/// or its own. A warning says why there is none.
pub fn tokenizer_along(run: Option<&Path>, checkpoint: &Checkpoint) -> Option<Tokenizer> {
    let due = &checkpoint.info().origin.vocabulary;
    if Tokenizer::plain(due).is_some() {
        return None;
    }
    let opened = || -> Result<Option<Tokenizer>> {
        let Some(root) = run else { return own_tokenizer(checkpoint.path(), checkpoint.info()) };
        Ok(run_tokenizer(&RunFolder::schedule_of(root)?, root)?)
    };
    let reason = match opened() {
        Ok(Some(tokenizer)) if fits(&tokenizer, checkpoint.info()) => return Some(tokenizer),
        Ok(Some(_)) => "its tokens are of another vocabulary now".to_string(),
        Ok(None) => "its tokens came without one".to_string(),
        Err(error) => format!("{error:#}"),
    };
    output::note(&format!(
        "warning: no tokenizer.json is written for the vocabulary {due}: {reason}"
    ));
    None
}

/// Which checkpoint of a run is meant: [`CheckpointStore::newest_whole`], or [`CheckpointStore::newest_model`] where moments are not needed.
pub type NewestOf = fn(&CheckpointStore) -> Result<(Option<Checkpoint>, Vec<Skipped>), StateError>;

/// A checkpoint folder by its own path or by that of its run, then the newest one, and the run that it lies in.
pub fn locate(path: &Path, newest_of: NewestOf) -> Result<(PathBuf, Option<PathBuf>)> {
    std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if path.join(STATE_FILE).exists() {
        let whole = path.canonicalize().with_context(|| path.display().to_string())?;
        // A schedule elsewhere above may be anybody's.
        let lies_in = |root: &&Path| {
            RunFolder::is_run(root)
                && whole.parent() == Some(RunFolder::checkpoints_of(root).as_path())
        };
        let root = whole.parent().and_then(Path::parent);
        let run = root.filter(lies_in).map(Path::to_path_buf);
        Ok((path.to_path_buf(), run))
    } else if RunFolder::is_run(path) {
        Ok((newest(path, newest_of)?.path().to_path_buf(), Some(path.to_path_buf())))
    } else {
        bail!(
            "{}: neither a checkpoint (no state.json) nor a run (no schedule.toml)",
            path.display()
        );
    }
}

/// The newest checkpoint of a run, with a warning for each that is passed over.
fn newest(root: &Path, newest_of: NewestOf) -> Result<Checkpoint> {
    let (newest, skipped) = newest_of(&CheckpointStore::reader(&RunFolder::checkpoints_of(root)))?;
    for skipped in skipped {
        let path = skipped.path.display();
        output::note(&format!("warning: {path} is passed over: {}", skipped.reason));
    }
    newest.with_context(|| format!("{}: no whole checkpoint", root.display()))
}
