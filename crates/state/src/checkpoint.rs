use crate::file::{FileRecord, TensorFile, TensorWriter, checksum, sync_folder, write_synced};
use crate::{
    HostTensor, ModelConstants, Moments, Origin, ParamId, Position, StateError, TrainingState,
    inventory,
};
use measure::{GptShape, Parametrization};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const FORMAT_VERSION: u32 = 2;
pub(crate) const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The record of a checkpoint, in its folder.
pub const STATE_FILE: &str = "state.json";
const FIRST_MOMENT: &str = "first_moment.";
const SECOND_MOMENT: &str = "second_moment.";

/// What `state.json` says of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointInfo {
    /// Version of the file format.
    pub format: u32,
    /// Shape of the model.
    pub shape: GptShape,
    /// How initialisation and learning rates depend on the width.
    pub parametrization: Parametrization,
    /// Numbers that growth may change.
    pub constants: ModelConstants,
    /// Where the run stood.
    pub position: Position,
    /// Where the state comes from.
    pub origin: Origin,
    files: BTreeMap<String, FileRecord>,
}

impl CheckpointInfo {
    /// Checksum of this record, which has those of the tensors' files: XXH3 in hexadecimal.
    pub fn checksum(&self) -> String {
        checksum(&serde_json::to_vec(self).unwrap_or_default())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    state: CheckpointInfo,
    /// Of `state` in its compact form.
    xxh3: String,
}

/// The tensors of a checkpoint: each parameter has one in every group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorGroup {
    /// The parameters themselves.
    Params,
    /// Running means of their gradients.
    FirstMoment,
    /// Running means of their squared gradients.
    SecondMoment,
}

impl TensorGroup {
    fn prefix(self) -> &'static str {
        match self {
            Self::Params => "",
            Self::FirstMoment => FIRST_MOMENT,
            Self::SecondMoment => SECOND_MOMENT,
        }
    }
}

/// As much of the record as every version has.
#[derive(Deserialize)]
struct Versioned {
    state: VersionedState,
}

#[derive(Deserialize)]
struct VersionedState {
    format: u32,
}

/// A whole checkpoint: its record is read, and its files match their checksums.
pub struct Checkpoint {
    path: PathBuf,
    info: CheckpointInfo,
    model: TensorFile,
    optimizer: Option<TensorFile>,
}

impl Checkpoint {
    /// Opens a checkpoint folder and verifies every file.
    ///
    /// # Errors
    /// A file is missing, truncated or changed, or the record is from another version.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut checkpoint = Self::open_params(path)?;
        checkpoint.optimizer = Some(open_file(path, &checkpoint.info, OPTIMIZER_FILE)?);
        Ok(checkpoint)
    }

    /// Opens a checkpoint folder for its parameters; the moments may be absent.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], for the record and the parameters.
    pub fn open_params(path: &Path) -> Result<Self, StateError> {
        let info = read_info(&path.join(STATE_FILE))?;
        let model = open_file(path, &info, MODEL_FILE)?;
        Ok(Self { path: path.to_path_buf(), info, model, optimizer: None })
    }

    /// Whether the folder has a file of moments.
    pub fn has_moments(path: &Path) -> bool {
        path.join(OPTIMIZER_FILE).exists()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    /// Reads every tensor.
    ///
    /// # Errors
    /// A tensor is missing, is of another shape, or does not belong to a model of the record's
    /// shape; or the moments were not opened.
    pub fn load(&self) -> Result<TrainingState, StateError> {
        let mut state = self.load_params()?;
        state.moments = Moments {
            first: self.group(TensorGroup::FirstMoment)?,
            second: self.group(TensorGroup::SecondMoment)?,
        };
        Ok(state)
    }

    /// Reads the parameters and leaves the moments empty.
    ///
    /// # Errors
    /// As [`Checkpoint::load`], for the parameters.
    pub fn load_params(&self) -> Result<TrainingState, StateError> {
        self.reject_extra_tensors()?;
        Ok(TrainingState { params: self.group(TensorGroup::Params)?, ..self.frame() })
    }

    /// The state without its tensors.
    pub fn frame(&self) -> TrainingState {
        let info = self.info.clone();
        TrainingState {
            shape: info.shape,
            parametrization: info.parametrization,
            constants: info.constants,
            position: info.position,
            origin: info.origin,
            params: BTreeMap::new(),
            moments: Moments { first: BTreeMap::new(), second: BTreeMap::new() },
        }
    }

    fn group(&self, group: TensorGroup) -> Result<BTreeMap<ParamId, HostTensor>, StateError> {
        let ids = inventory(&self.info.shape).into_iter();
        ids.map(|id| Ok((id, self.tensor(group, id)?))).collect()
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// It is missing or of another shape, or the moments were not opened.
    pub fn tensor(&self, group: TensorGroup, id: ParamId) -> Result<HostTensor, StateError> {
        let file = match (group, &self.optimizer) {
            (TensorGroup::Params, _) => &self.model,
            (_, Some(optimizer)) => optimizer,
            (_, None) => {
                let path = self.path.join(OPTIMIZER_FILE);
                return Err(StateError::broken(&path, "the moments were not opened"));
            }
        };
        let dims = id.role.dims(&self.info.shape);
        file.tensor(&format!("{}{id}", group.prefix()), &dims)
    }

    /// Errs if a tensor is there that a model of the record's shape does not have.
    ///
    /// # Errors
    /// The tensor, named.
    pub fn reject_extra_tensors(&self) -> Result<(), StateError> {
        let shape = &self.info.shape;
        let known = |groups: &[TensorGroup]| -> BTreeSet<String> {
            let of_group = |group: &TensorGroup| {
                let prefix = group.prefix();
                inventory(shape).into_iter().map(move |id| format!("{prefix}{id}"))
            };
            groups.iter().flat_map(of_group).collect()
        };
        let check = |file: &TensorFile, name: &str, groups: &[TensorGroup]| {
            let known = known(groups);
            match file.names().find(|tensor| !known.contains(*tensor)) {
                None => Ok(()),
                Some(tensor) => {
                    let reason = format!("tensor {tensor} does not belong to a {shape} GPT");
                    Err(StateError::broken(&self.path.join(name), reason))
                }
            }
        };
        check(&self.model, MODEL_FILE, &[TensorGroup::Params])?;
        let moments = [TensorGroup::FirstMoment, TensorGroup::SecondMoment];
        let optimizer = self.optimizer.as_ref();
        optimizer.map_or(Ok(()), |optimizer| check(optimizer, OPTIMIZER_FILE, &moments))
    }
}

fn open_file(path: &Path, info: &CheckpointInfo, name: &str) -> Result<TensorFile, StateError> {
    let record = info.files.get(name).ok_or_else(|| {
        StateError::broken(&path.join(STATE_FILE), format!("has no record of {name}"))
    })?;
    TensorFile::open(&path.join(name), record)
}

/// Takes the elements of a tensor in pieces, in their order.
pub struct TensorSink<'a>(&'a mut TensorWriter);

impl TensorSink<'_> {
    /// Takes the next elements.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&mut self, elements: &[f32]) -> Result<(), StateError> {
        self.0.write(elements)
    }
}

/// Writes the tensors of these groups, as `fill` gives them in the order of their names.
pub(crate) fn write_tensors<E: From<StateError>>(
    path: &Path,
    shape: &GptShape,
    groups: &[TensorGroup],
    fill: &mut dyn FnMut(TensorGroup, ParamId, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<FileRecord, E> {
    let mut tensors = BTreeMap::new();
    for group in groups {
        for id in inventory(shape) {
            tensors.insert(format!("{}{id}", group.prefix()), (*group, id));
        }
    }
    let dims =
        |(name, (_, id)): (&String, &(TensorGroup, ParamId))| (name.clone(), id.role.dims(shape));
    let mut writer = TensorWriter::create(path, &tensors.iter().map(dims).collect())?;
    for (group, id) in tensors.values() {
        fill(*group, *id, &mut TensorSink(&mut writer))?;
    }
    Ok(writer.finish()?)
}

/// Writes the files of a checkpoint into an existing empty folder, each forced to disk: the record of
/// `frame`, whose own tensors are left aside, and the tensors that `fill` gives one after the other.
/// Returns the bytes of the tensors' files.
///
/// # Errors
/// The file system refuses, or `fill` errs.
pub fn write_checkpoint<E: From<StateError>>(
    folder: &Path,
    frame: &TrainingState,
    fill: &mut dyn FnMut(TensorGroup, ParamId, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let mut write = |name: &str, groups: &[TensorGroup]| {
        write_tensors(&folder.join(name), &frame.shape, groups, fill)
    };
    let model = write(MODEL_FILE, &[TensorGroup::Params])?;
    let moments = [TensorGroup::FirstMoment, TensorGroup::SecondMoment];
    let optimizer = write(OPTIMIZER_FILE, &moments)?;
    let bytes = model.bytes + optimizer.bytes;
    let info = CheckpointInfo {
        format: FORMAT_VERSION,
        shape: frame.shape,
        parametrization: frame.parametrization,
        constants: frame.constants,
        position: frame.position,
        origin: frame.origin.clone(),
        files: BTreeMap::from([
            (MODEL_FILE.to_string(), model),
            (OPTIMIZER_FILE.to_string(), optimizer),
        ]),
    };
    write_info(&folder.join(STATE_FILE), info)?;
    sync_folder(folder)?;
    Ok(bytes)
}

/// Makes a folder that appears only once `write`, which is given one of another name beside it, has filled that and forced it to disk.
///
/// # Errors
/// The folder exists, the file system refuses, or `write` errs; but for parent folders that were made, nothing is left behind.
pub fn write_folder<T, E: From<StateError>>(
    target: &Path,
    write: &mut dyn FnMut(&Path) -> Result<T, E>,
) -> Result<T, E> {
    if target.exists() {
        return Err(StateError::broken(target, "is there already; choose another name").into());
    }
    let name = target.file_name().ok_or_else(|| StateError::broken(target, "names no folder"))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // Not one of the names that a store tidies up, for the parent may be one.
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".growing-");
    remove_leftovers(parent, &hidden.to_string_lossy());
    hidden.push(std::process::id().to_string());
    let partial = parent.join(hidden);
    let written =
        // Who asked knows the folder by its name alone.
        new_folder(&partial, target).map_err(E::from).and_then(|()| write(&partial)).and_then(|done| {
            fs::rename(&partial, target).map_err(StateError::io(target))?;
            sync_folder(parent)?;
            Ok(done)
        });
    if written.is_err() {
        // The first error says more than one about tidying up.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// Removes what writes of the same name left there that were killed, by the processes that their names end with.
fn remove_leftovers(parent: &Path, hidden: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(hidden));
        let Some(process) = process.and_then(|process| process.parse::<u32>().ok()) else {
            continue;
        };
        // One that lives is still at work there, and without /proc nothing tells whether it does.
        let processes = Path::new("/proc");
        if processes.join("self").exists() && !processes.join(process.to_string()).exists() {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes an empty folder, which is to become `target`, in place of what an interrupted write left there.
pub(crate) fn new_folder(path: &Path, target: &Path) -> Result<(), StateError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(StateError::io(target))?;
    }
    fs::create_dir_all(path).map_err(StateError::io(target))
}

impl TrainingState {
    /// Writes the state into an existing empty folder, each file forced to disk.
    pub(crate) fn write_into(&self, folder: &Path) -> Result<(), StateError> {
        write_checkpoint(folder, self, &mut |group, id, sink| {
            let tensors = match group {
                TensorGroup::Params => &self.params,
                TensorGroup::FirstMoment => &self.moments.first,
                TensorGroup::SecondMoment => &self.moments.second,
            };
            let tensor = tensors.get(&id).ok_or_else(|| {
                StateError::broken(folder, format!("the state has no {}{id}", group.prefix()))
            })?;
            sink.write(&tensor.data)
        })?;
        Ok(())
    }
}

fn write_info(path: &Path, state: CheckpointInfo) -> Result<(), StateError> {
    let json = |error: serde_json::Error| StateError::broken(path, error.to_string());
    let xxh3 = checksum(&serde_json::to_vec(&state).map_err(json)?);
    let text = serde_json::to_vec_pretty(&StateFile { state, xxh3 }).map_err(json)?;
    write_synced(path, &text)
}

pub(crate) fn read_info(path: &Path) -> Result<CheckpointInfo, StateError> {
    let json = |error: serde_json::Error| StateError::broken(path, error.to_string());
    let text = fs::read(path).map_err(StateError::io(path))?;
    let version: Versioned = serde_json::from_slice(&text).map_err(json)?;
    let format = version.state.format;
    if format != FORMAT_VERSION {
        return Err(StateError::Format { path: path.to_path_buf(), format, due: FORMAT_VERSION });
    }
    let file: StateFile = serde_json::from_slice(&text).map_err(json)?;
    let found = checksum(&serde_json::to_vec(&file.state).map_err(json)?);
    if found != file.xxh3 {
        let reason = format!("checksum {found} where {} was written", file.xxh3);
        return Err(StateError::broken(path, reason));
    }
    let shape = file.state.shape.check();
    shape.map_err(|error| StateError::broken(path, format!("shape: {error}")))?;
    Ok(file.state)
}
