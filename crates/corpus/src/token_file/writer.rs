//! Token files are written whole, with what lies beside them, or not at all.

use super::layout::{HEADER_BYTES, Layout};
use super::{TokenFileInfo, with_suffix};
use crate::{CorpusError, open_locked};
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3Default;

/// Most tokens that llm.c's header counts, in a signed 32-bit integer.
const MOST_TOKENS: u64 = i32::MAX as u64;

/// Writes a token file piece by piece; it appears under its name only when it is finished.
pub struct TokenFileWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    layout: Layout,
    n_tokens: u64,
    hash: Xxh3Default,
    /// Whether the file has its name, and the other one may be another process's.
    placed: bool,
}

impl TokenFileWriter {
    pub fn create(path: &Path, n_vocab: usize) -> Result<Self, CorpusError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(CorpusError::io(folder))?;
        }
        let partial = with_suffix(path, ".partial");
        let file = own_file(&partial, path)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER_BYTES]).map_err(CorpusError::io(&partial))?;
        Ok(Self {
            path: path.to_path_buf(),
            partial,
            file,
            layout: Layout::for_vocabulary(n_vocab),
            n_tokens: 0,
            hash: Xxh3Default::new(),
            placed: false,
        })
    }

    /// The bytes of tokens, as [`TokenFileWriter::append`] takes them.
    pub fn encode(n_vocab: usize, tokens: &[u32]) -> Vec<u8> {
        if Layout::for_vocabulary(n_vocab).token_bytes == 2 {
            tokens.iter().flat_map(|token| (*token as u16).to_le_bytes()).collect()
        } else {
            tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
        }
    }

    pub fn append(&mut self, encoded: &[u8]) -> Result<(), CorpusError> {
        self.hash.update(encoded);
        self.n_tokens += (encoded.len() / self.layout.token_bytes) as u64;
        if self.n_tokens > MOST_TOKENS {
            let reason =
                format!("more than {MOST_TOKENS} tokens, which llm.c's header cannot count");
            return Err(CorpusError::file(&self.path, reason));
        }
        self.file.write_all(encoded).map_err(CorpusError::io(&self.partial))
    }

    /// Finishes the header, writes the JSON and the tokenizer beside it, and gives all of them their names once all are on the disk.
    pub fn finish(
        mut self,
        info: TokenFileInfo,
        tokenizer_json: Option<&str>,
    ) -> Result<TokenFileInfo, CorpusError> {
        let count = self.n_tokens as u32;
        let (magic, version) = self.layout.magic();
        let header: Vec<u8> =
            [magic, version, count].into_iter().flat_map(u32::to_le_bytes).collect();
        let io = || CorpusError::io(&self.partial);
        self.file.seek(SeekFrom::Start(0)).map_err(io())?;
        self.file.write_all(&header).map_err(io())?;
        self.file.flush().map_err(io())?;
        let xxh3 = format!("{:016x}", self.hash.digest());
        let info = TokenFileInfo { n_tokens: self.n_tokens, xxh3, ..info };
        self.file.get_ref().sync_data().map_err(io())?;
        let info_path = TokenFileInfo::path_for(&self.path);
        let text = serde_json::to_vec_pretty(&info)
            .map_err(|error| CorpusError::file(&info_path, error.to_string()))?;
        let tokenizer_path = TokenFileInfo::tokenizer_path_for(&self.path);
        let tokenizer = tokenizer_json
            .map(|json| Partial::write(&tokenizer_path, json.as_bytes()))
            .transpose()?;
        let json = Partial::write(&info_path, &text)?;
        match tokenizer {
            Some(tokenizer) => tokenizer.place()?,
            // That of tokens whose place these take.
            None if tokenizer_path.exists() => {
                std::fs::remove_file(&tokenizer_path).map_err(CorpusError::io(&tokenizer_path))?;
            }
            None => {}
        }
        json.place()?;
        std::fs::rename(&self.partial, &self.path).map_err(io())?;
        self.placed = true;
        // Its name, and those of the files beside it.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(CorpusError::io(folder))?;
        Ok(info)
    }
}

impl Drop for TokenFileWriter {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing is left behind by a failure.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// A file that is empty and that no other process writes, for what is to be `path`.
fn own_file(partial: &Path, path: &Path) -> Result<File, CorpusError> {
    let io = || CorpusError::io(partial);
    let (file, locked) = open_locked(partial).map_err(io())?;
    if let Err(TryLockError::WouldBlock) = locked {
        return Err(CorpusError::Busy { path: path.to_path_buf() });
    }
    file.set_len(0).map_err(io())?;
    Ok(file)
}

/// A small file under another name, on the disk; it goes again unless it is given its name.
struct Partial {
    partial: PathBuf,
    path: PathBuf,
}

impl Partial {
    fn write(path: &Path, content: &[u8]) -> Result<Self, CorpusError> {
        let file = Self { partial: with_suffix(path, ".partial"), path: path.to_path_buf() };
        let write = || {
            let mut to = File::create(&file.partial)?;
            to.write_all(content)?;
            to.sync_all()
        };
        write().map_err(CorpusError::io(&file.partial))?;
        Ok(file)
    }

    fn place(self) -> Result<(), CorpusError> {
        std::fs::rename(&self.partial, &self.path).map_err(CorpusError::io(&self.path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already where it has its name.
        let _ = std::fs::remove_file(&self.partial);
    }
}
