//! Tensor files: written whole, mapped lazily.

use crate::{HostTensor, ParamId, StateError};
use memmap2::Mmap;
use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Size and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    pub bytes: u64,
    pub xxh3: String,
}

/// A file mapped into memory.
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let file = File::open(path).map_err(StateError::io(path))?;
        // SAFETY: checkpoints are never changed in place: they are written under another name and
        // renamed, and removed by unlinking, which leaves a map intact.
        let map = unsafe { Mmap::map(&file) }.map_err(StateError::io(path))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    pub fn record(&self) -> FileRecord {
        FileRecord { bytes: self.map.len() as u64, xxh3: checksum(&self.map) }
    }

    /// Errs unless the file is the recorded one.
    pub fn verify(&self, record: &FileRecord) -> Result<(), StateError> {
        let found = self.map.len() as u64;
        if found != record.bytes {
            let reason = format!("{found} bytes where {} were written", record.bytes);
            return Err(StateError::broken(&self.path, reason));
        }
        let found = checksum(&self.map);
        if found != record.xxh3 {
            let reason = format!("checksum {found} where {} was written", record.xxh3);
            return Err(StateError::broken(&self.path, reason));
        }
        Ok(())
    }

    /// The tensors by name.
    pub fn tensors(&self) -> Result<SafeTensors<'_>, StateError> {
        SafeTensors::deserialize(&self.map)
            .map_err(|error| StateError::broken(&self.path, format!("not safetensors: {error}")))
    }

    /// One tensor as f32s, checked against the dimensions it must have.
    pub fn tensor(&self, name: &str, dims: &[usize]) -> Result<HostTensor, StateError> {
        let broken = |reason: String| StateError::broken(&self.path, reason);
        let view = self
            .tensors()?
            .tensor(name)
            .map_err(|_| broken(format!("tensor {name} is missing")))?;
        if view.dtype() != Dtype::F32 || view.shape() != dims {
            let (dtype, shape) = (view.dtype(), view.shape());
            return Err(broken(format!("{name} is {dtype} {shape:?} where F32 {dims:?} is due")));
        }
        Ok(HostTensor { dims: dims.to_vec(), data: floats(&view) })
    }
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(view.data())
}

/// XXH3 of 64 bits, in hexadecimal.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

struct Borrowed<'a>(&'a HostTensor);

impl View for Borrowed<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.0.dims
    }
    fn data(&self) -> Cow<'_, [u8]> {
        bytemuck::cast_slice(&self.0.data).into()
    }
    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

/// Writes tensors under their names with a prefix, forces them to disk, and returns the record.
pub(crate) fn write_tensors(
    path: &Path,
    groups: &[(&str, &BTreeMap<ParamId, HostTensor>)],
) -> Result<FileRecord, StateError> {
    let views = groups.iter().flat_map(|(prefix, tensors)| {
        tensors.iter().map(move |(id, tensor)| (format!("{prefix}{id}"), Borrowed(tensor)))
    });
    // Readers in Python ask for this entry; one entry alone also keeps the header's order fixed.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(cause) => {
            StateError::Io { path: path.to_path_buf(), cause }
        }
        other => StateError::broken(path, other.to_string()),
    })?;
    let file = File::open(path).map_err(StateError::io(path))?;
    file.sync_all().map_err(StateError::io(path))?;
    Ok(MappedFile::open(path)?.record())
}

/// Forces a folder's entries to disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StateError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StateError::io(path))
}
