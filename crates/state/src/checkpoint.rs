use crate::file::{FileRecord, MappedFile, checksum, sync_folder, write_tensors};
use crate::{
    HostTensor, ModelConstants, Moments, Origin, ParamId, Position, StateError, TrainingState,
    inventory,
};
use measure::{GptShape, Parametrization};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT_VERSION: u32 = 1;
const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    state: CheckpointInfo,
    /// Of `state` in its compact form.
    xxh3: String,
}

/// A whole checkpoint: its record is read, its files are mapped and match their checksums.
pub struct Checkpoint {
    path: PathBuf,
    info: CheckpointInfo,
    model: MappedFile,
    optimizer: MappedFile,
}

impl Checkpoint {
    /// Opens a checkpoint folder and verifies every file.
    ///
    /// # Errors
    /// A file is missing, truncated or changed, or the record is from another version.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let info = read_info(&path.join(STATE_FILE))?;
        let open = |name: &str| {
            let file = MappedFile::open(&path.join(name))?;
            let record = info.files.get(name).ok_or_else(|| {
                StateError::broken(&path.join(STATE_FILE), format!("has no record of {name}"))
            })?;
            file.verify(record)?;
            Ok(file)
        };
        let (model, optimizer) = (open(MODEL_FILE)?, open(OPTIMIZER_FILE)?);
        Ok(Self { path: path.to_path_buf(), info, model, optimizer })
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
    /// shape.
    pub fn load(&self) -> Result<TrainingState, StateError> {
        let group = |file: &MappedFile, prefix: &str| {
            inventory(&self.info.shape)
                .into_iter()
                .map(|id| {
                    let dims = id.role.dims(&self.info.shape);
                    Ok((id, file.tensor(&format!("{prefix}{id}"), &dims)?))
                })
                .collect::<Result<BTreeMap<ParamId, HostTensor>, StateError>>()
        };
        self.reject_extra_tensors()?;
        Ok(TrainingState {
            shape: self.info.shape,
            parametrization: self.info.parametrization,
            constants: self.info.constants,
            position: self.info.position,
            origin: self.info.origin.clone(),
            params: group(&self.model, "")?,
            moments: Moments {
                first: group(&self.optimizer, FIRST_MOMENT)?,
                second: group(&self.optimizer, SECOND_MOMENT)?,
            },
        })
    }

    fn reject_extra_tensors(&self) -> Result<(), StateError> {
        let known: BTreeSet<String> =
            inventory(&self.info.shape).iter().map(ToString::to_string).collect();
        let tensors = self.model.tensors()?;
        match tensors.names().into_iter().find(|name| !known.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let reason = format!("tensor {name} does not belong to a {} GPT", self.info.shape);
                Err(StateError::broken(&self.path.join(MODEL_FILE), reason))
            }
        }
    }
}

impl TrainingState {
    /// Writes the state into an existing empty folder, each file forced to disk.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn write_files(&self, folder: &Path) -> Result<(), StateError> {
        let model = write_tensors(&folder.join(MODEL_FILE), &[("", &self.params)])?;
        let moments = [(FIRST_MOMENT, &self.moments.first), (SECOND_MOMENT, &self.moments.second)];
        let optimizer = write_tensors(&folder.join(OPTIMIZER_FILE), &moments)?;
        let files = BTreeMap::from([
            (MODEL_FILE.to_string(), model),
            (OPTIMIZER_FILE.to_string(), optimizer),
        ]);
        let info = CheckpointInfo {
            format: FORMAT_VERSION,
            shape: self.shape,
            parametrization: self.parametrization,
            constants: self.constants,
            position: self.position,
            origin: self.origin.clone(),
            files,
        };
        write_info(&folder.join(STATE_FILE), info)?;
        sync_folder(folder)
    }
}

fn write_info(path: &Path, state: CheckpointInfo) -> Result<(), StateError> {
    let json = |error: serde_json::Error| StateError::broken(path, error.to_string());
    let xxh3 = checksum(&serde_json::to_vec(&state).map_err(json)?);
    let text = serde_json::to_vec_pretty(&StateFile { state, xxh3 }).map_err(json)?;
    fs::write(path, text).map_err(StateError::io(path))?;
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(StateError::io(path))
}

fn read_info(path: &Path) -> Result<CheckpointInfo, StateError> {
    let json = |error: serde_json::Error| StateError::broken(path, error.to_string());
    let text = fs::read(path).map_err(StateError::io(path))?;
    let file: StateFile = serde_json::from_slice(&text).map_err(json)?;
    let found = checksum(&serde_json::to_vec(&file.state).map_err(json)?);
    if found != file.xxh3 {
        let reason = format!("checksum {found} where {} was written", file.xxh3);
        return Err(StateError::broken(path, reason));
    }
    if file.state.format != FORMAT_VERSION {
        let reason = format!("format {}: this version reads {FORMAT_VERSION}", file.state.format);
        return Err(StateError::broken(path, reason));
    }
    Ok(file.state)
}
