//! Tensor files: written tensor by tensor, read tensor by tensor.

use crate::{HostTensor, StateError};
use bytemuck::cast_slice_mut;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that are read or written at a time.
const BUFFER: usize = 1 << 20;

/// Size and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    pub bytes: u64,
    pub xxh3: String,
}

/// A file of tensors, of which only the header is in memory.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Type, dimensions and first byte of each tensor.
    tensors: BTreeMap<String, (Dtype, Vec<usize>, u64)>,
}

impl TensorFile {
    /// Opens the recorded file, once it is found to be that.
    pub fn open(path: &Path, record: &FileRecord) -> Result<Self, StateError> {
        let io = || StateError::io(path);
        let file = File::open(path).map_err(io())?;
        verify(path, &file, record)?;
        let mut from = &file;
        from.rewind().map_err(io())?;
        let mut length = [0; size_of::<u64>()];
        from.read_exact(&mut length).map_err(io())?;
        let length = u64::from_le_bytes(length);
        let broken =
            |reason: String| StateError::broken(path, format!("not safetensors: {reason}"));
        let mut header = Vec::new();
        from.take(length).read_to_end(&mut header).map_err(io())?;
        if header.len() as u64 != length {
            return Err(broken(format!("a header of {length} bytes in {}", record.bytes)));
        }
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| broken(error.to_string()))?;
        let data = size_of::<u64>() as u64 + length;
        let end = data + metadata.data_len() as u64;
        if end != record.bytes {
            return Err(broken(format!("tensors up to byte {end} of {}", record.bytes)));
        }
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let first = data + info.data_offsets.0 as u64;
                (name, (info.dtype, info.shape.clone(), first))
            })
            .collect();
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(file), tensors })
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// One tensor as f32s, checked against the dimensions it must have.
    pub fn tensor(&self, name: &str, dims: &[usize]) -> Result<HostTensor, StateError> {
        let broken = |reason: String| StateError::broken(&self.path, reason);
        let Some((dtype, shape, first)) = self.tensors.get(name) else {
            return Err(broken(format!("tensor {name} is missing")));
        };
        if *dtype != Dtype::F32 || shape != dims {
            return Err(broken(format!("{name} is {dtype} {shape:?} where F32 {dims:?} is due")));
        }
        let mut tensor = HostTensor::zeros(dims.to_vec());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(*first))
            .and_then(|_| file.read_exact(cast_slice_mut(&mut tensor.data)))
            .map_err(StateError::io(&self.path))?;
        Ok(tensor)
    }
}

fn verify(path: &Path, mut file: &File, record: &FileRecord) -> Result<(), StateError> {
    let bytes = file.metadata().map_err(StateError::io(path))?.len();
    if bytes != record.bytes {
        let reason = format!("{bytes} bytes where {} were written", record.bytes);
        return Err(StateError::broken(path, reason));
    }
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = file.read(&mut buffer).map_err(StateError::io(path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let found = format!("{:016x}", hasher.digest());
    if found != record.xxh3 {
        let reason = format!("checksum {found} where {} was written", record.xxh3);
        return Err(StateError::broken(path, reason));
    }
    Ok(())
}

/// XXH3 of 64 bits, in hexadecimal.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

/// Writes a file of f32 tensors piece by piece, in the order of their names.
pub(crate) struct TensorWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Xxh3,
    bytes: u64,
    /// Bytes of the whole file.
    total: u64,
}

impl TensorWriter {
    /// Begins a file that will hold these tensors.
    pub fn create(path: &Path, tensors: &BTreeMap<String, Vec<usize>>) -> Result<Self, StateError> {
        let mut end = 0;
        let info = |(name, dims): (&String, &Vec<usize>)| {
            let begin = end;
            end += dims.iter().product::<usize>() * size_of::<f32>();
            let info =
                TensorInfo { dtype: Dtype::F32, shape: dims.clone(), data_offsets: (begin, end) };
            (name.clone(), info)
        };
        let infos = tensors.iter().map(info).collect();
        // Readers in Python ask for this entry; one entry alone also keeps the header's order fixed.
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let broken = |error: String| StateError::broken(path, error);
        let metadata = Metadata::new(Some(format), infos).map_err(|e| broken(e.to_string()))?;
        let mut header = serde_json::to_vec(&metadata).map_err(|e| broken(e.to_string()))?;
        header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
        let file = File::create(path).map_err(StateError::io(path))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(BUFFER, file),
            hasher: Xxh3::new(),
            bytes: 0,
            total: (size_of::<u64>() + header.len() + end) as u64,
        };
        writer.write_bytes(&(header.len() as u64).to_le_bytes())?;
        writer.write_bytes(&header)?;
        Ok(writer)
    }

    /// Writes the next elements.
    pub fn write(&mut self, elements: &[f32]) -> Result<(), StateError> {
        self.write_bytes(bytemuck::cast_slice(elements))
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(StateError::io(&self.path))
    }

    /// Forces the file to disk.
    pub fn finish(mut self) -> Result<FileRecord, StateError> {
        if self.bytes != self.total {
            let reason = format!("{} bytes where {} were announced", self.bytes, self.total);
            return Err(StateError::broken(&self.path, reason));
        }
        self.file.flush().map_err(StateError::io(&self.path))?;
        self.file.get_ref().sync_all().map_err(StateError::io(&self.path))?;
        let xxh3 = format!("{:016x}", self.hasher.digest());
        Ok(FileRecord { bytes: self.bytes, xxh3 })
    }
}

/// Forces a folder's entries to disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StateError> {
    measure::sync_folder(path).map_err(StateError::io(path))
}

/// Writes a small file and forces it to disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(StateError::io(path))
}
