//! Token files: llm.c's `.bin` is written; that and nanoGPT's headerless uint16 are read.

use crate::CorpusError;
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3Default;

/// llm.c's header: 256 32-bit integers, of which the first three are magic, version and count.
const HEADER_BYTES: usize = 256 * 4;
/// llm.c's magic and version for 16-bit tokens (`dev/data/data_common.py`, "gpt-2").
const MAGIC_16: (u32, u32) = (20_240_520, 1);
/// llm.c's magic and version for 32-bit tokens (`dev/data/data_common.py`, "llama-3").
const MAGIC_32: (u32, u32) = (20_240_801, 7);
/// Most tokens that llm.c's header counts, in a signed 32-bit integer.
const MOST_TOKENS: u64 = i32::MAX as u64;
/// What stands before the size of a vocabulary of which no more is known.
const UNKNOWN: &str = "unknown:";
/// Largest vocabulary that a model can have.
const MOST_VOCABULARY: u32 = 10_000_000;
/// Largest vocabulary whose tokens fit into 16 bits.
const LARGEST_16: usize = 1 << 16;

/// Whether no more is known of a vocabulary than its size: that of a token file that another program wrote.
pub fn is_unknown(vocabulary: &str) -> bool {
    vocabulary.starts_with(UNKNOWN)
}

/// What the JSON beside a token file says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFileInfo {
    /// The tokenizer as it was asked for.
    pub tokenizer: String,
    /// What identifies the vocabulary.
    pub vocabulary: String,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Tokens in the file.
    pub n_tokens: u64,
    /// Bytes of text that the tokens stand for.
    pub n_text_bytes: u64,
    /// XXH3 of 64 bits over the tokens as stored, in hexadecimal.
    pub xxh3: String,
}

impl TokenFileInfo {
    /// What the JSON beside a token file says, where there is one; the file itself is not looked at.
    ///
    /// # Errors
    /// A JSON that cannot be read.
    pub fn of(tokens: &Path) -> Result<Option<Self>, CorpusError> {
        let path = Self::path_for(tokens);
        path.exists().then(|| read_info(&path)).transpose()
    }

    /// Where the JSON of a token file lies.
    pub fn path_for(tokens: &Path) -> PathBuf {
        with_suffix(tokens, ".json")
    }

    /// Where the tokenizer.json of a token file lies, for tokenizers that have one.
    pub fn tokenizer_path_for(tokens: &Path) -> PathBuf {
        with_suffix(tokens, ".tokenizer.json")
    }
}

/// A token file, mapped into memory and checked.
pub struct TokenFile {
    map: Mmap,
    layout: Layout,
    info: TokenFileInfo,
    described: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    header_bytes: usize,
    token_bytes: usize,
}

impl TokenFile {
    /// Maps a token file and checks it: header against size, tokens against the vocabulary, and
    /// checksum and count where a JSON lies beside it. Without one, the vocabulary is what the
    /// largest token asks for.
    ///
    /// # Errors
    /// A file that is unreadable, in no known format, or not the one that its JSON describes.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        if path.is_dir() {
            return Err(CorpusError::file(path, "is a folder; name a token file"));
        }
        let file = File::open(path).map_err(CorpusError::io(path))?;
        if file.metadata().map_err(CorpusError::io(path))?.len() == 0 {
            return Err(CorpusError::file(path, "is empty: no tokens"));
        }
        let map = map_file(&file).map_err(CorpusError::io(path))?;
        let layout = Layout::of(&map, path)?;
        let tokens = &map[layout.header_bytes..];
        let largest = layout.largest_token(tokens);
        let n_tokens = (tokens.len() / layout.token_bytes) as u64;
        let known = TokenFileInfo::of(path)?;
        let described = known.is_some();
        let info = if let Some(info) = known {
            if info.n_tokens != n_tokens {
                let reason = format!("{n_tokens} tokens where {} were written", info.n_tokens);
                return Err(CorpusError::file(path, reason));
            }
            let found = checksum(tokens);
            if found != info.xxh3 {
                let reason = format!("checksum {found} where {} was written", info.xxh3);
                return Err(CorpusError::file(path, reason));
            }
            if largest as usize >= info.n_vocab {
                let reason = format!("token {largest} in a vocabulary of {}", info.n_vocab);
                return Err(CorpusError::file(path, reason));
            }
            info
        } else {
            if largest >= MOST_VOCABULARY {
                let reason = format!(
                    "token {largest}: must be below {MOST_VOCABULARY}, the largest vocabulary there can be"
                );
                return Err(CorpusError::file(path, reason));
            }
            let n_vocab = largest as usize + 1;
            TokenFileInfo {
                tokenizer: "unknown".into(),
                vocabulary: format!("{UNKNOWN}{n_vocab}"),
                n_vocab,
                n_tokens,
                n_text_bytes: 0,
                xxh3: checksum(tokens),
            }
        };
        Ok(Self { map, layout, info, described })
    }

    /// What is known of the file.
    pub fn info(&self) -> &TokenFileInfo {
        &self.info
    }

    /// Whether a JSON lies beside the file, whose checksum the file matches.
    pub fn is_described(&self) -> bool {
        self.described
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.info.n_tokens as usize
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A range of tokens.
    ///
    /// # Panics
    /// When the range goes beyond the file.
    pub fn tokens(&self, range: std::ops::Range<usize>) -> Vec<u32> {
        let Layout { header_bytes, token_bytes } = self.layout;
        let bytes = &self.map
            [header_bytes + range.start * token_bytes..header_bytes + range.end * token_bytes];
        bytes.chunks_exact(token_bytes).map(token_of).collect()
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: token files are never changed in place: they are written under another name and
    // renamed. Every value is a plain integer, so even a change from outside yields only other
    // tokens; a file cut short meanwhile is the one case that no reader of maps survives.
    unsafe { Mmap::map(file) }
}

fn token_of(bytes: &[u8]) -> u32 {
    match bytes {
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => unreachable!("tokens are 2 or 4 bytes wide"),
    }
}

impl Layout {
    fn for_vocabulary(n_vocab: usize) -> Self {
        let token_bytes = if n_vocab <= LARGEST_16 { 2 } else { 4 };
        Self { header_bytes: HEADER_BYTES, token_bytes }
    }

    fn magic(self) -> (u32, u32) {
        if self.token_bytes == 2 { MAGIC_16 } else { MAGIC_32 }
    }

    /// The layout that a file's first bytes and its size tell.
    fn of(bytes: &[u8], path: &Path) -> Result<Self, CorpusError> {
        let word = |i: usize| bytes.get(4 * i..4 * i + 4).map(token_of);
        let layout = [2, 4]
            .map(|token_bytes| Self { header_bytes: HEADER_BYTES, token_bytes })
            .into_iter()
            .find(|layout| word(0) == Some(layout.magic().0));
        let Some(layout) = layout else {
            if path.extension().is_none_or(|end| end != "bin") {
                let reason = "no token file: llm.c's begin with a magic number, and nanoGPT's are named .bin; staged data prepare \
                              makes one of a text";
                return Err(CorpusError::file(path, reason));
            }
            if let Some(magic) = other_magic(bytes) {
                let reason = format!(
                    "begins with {magic}, a magic number of llm.c's that is not read; those that are: {} (16-bit tokens) and {} (32-bit)",
                    MAGIC_16.0, MAGIC_32.0
                );
                return Err(CorpusError::file(path, reason));
            }
            if has_wide_tokens(bytes) {
                let reason = "every second token is 0, as in 32-bit tokens; nanoGPT's have 16 bits: write them so, or with llm.c's header";
                return Err(CorpusError::file(path, reason));
            }
            if !bytes.len().is_multiple_of(2) {
                let reason = "neither llm.c's format (no magic number) nor nanoGPT's (odd size)";
                return Err(CorpusError::file(path, reason));
            }
            return Ok(Self { header_bytes: 0, token_bytes: 2 });
        };
        if bytes.len() < HEADER_BYTES {
            let reason = format!("{} bytes: llm.c's header alone has {HEADER_BYTES}", bytes.len());
            return Err(CorpusError::file(path, reason));
        }
        let (version, count) = (word(1).unwrap_or(0), word(2).unwrap_or(0) as usize);
        if version != layout.magic().1 {
            let reason = format!("version {version} where llm.c has {}", layout.magic().1);
            return Err(CorpusError::file(path, reason));
        }
        let found = bytes.len() - HEADER_BYTES;
        if found != count * layout.token_bytes {
            let reason = format!(
                "{found} bytes of tokens where the header promises {count} tokens of {} bytes",
                layout.token_bytes
            );
            return Err(CorpusError::file(path, reason));
        }
        if count == 0 {
            return Err(CorpusError::file(path, "is empty: no tokens"));
        }
        Ok(layout)
    }

    fn largest_token(self, tokens: &[u8]) -> u32 {
        tokens
            .par_chunks(self.token_bytes << 20)
            .map(|part| part.chunks_exact(self.token_bytes).map(token_of).max().unwrap_or(0))
            .max()
            .unwrap_or(0)
    }
}

/// The first word of a header like llm.c's, a date, where it is none of those that are read: a version, a count and zeros follow it.
fn other_magic(bytes: &[u8]) -> Option<u32> {
    let magic = token_of(bytes.get(..4)?);
    let zeros = bytes.get(12..HEADER_BYTES)?;
    ((20_200_101..20_400_000).contains(&magic) && zeros.iter().all(|byte| *byte == 0))
        .then_some(magic)
}

/// Whether each of the first tokens, were they of 32 bits, is below 2^16.
fn has_wide_tokens(bytes: &[u8]) -> bool {
    const LEAST: usize = 64;
    const LOOKED_AT: usize = 1 << 16;
    let words = bytes.chunks_exact(4).take(LOOKED_AT);
    words.len() >= LEAST
        && words.clone().all(|word| word[2..] == [0, 0])
        && words.clone().any(|word| word[..2] != [0, 0])
}

/// Writes a token file piece by piece; it appears under its name only when it is finished.
pub(crate) struct TokenFileWriter {
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

/// A file that is empty and that no other process writes, for what is to be `path`.
fn own_file(partial: &Path, path: &Path) -> Result<File, CorpusError> {
    let io = || CorpusError::io(partial);
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(partial);
        let file = file.map_err(io())?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(CorpusError::Busy { path: path.to_path_buf() });
        }
        // Who held it may have given it its name, or removed it, since it was opened.
        if is_at(&file, partial).map_err(io())? {
            file.set_len(0).map_err(io())?;
            return Ok(file);
        }
    }
}

/// Whether an open file is the one of a name: who held it before may have removed it, or given it another name.
///
/// # Errors
/// The system does not tell of the open file.
#[cfg(unix)]
pub fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    let is_own = |there: std::fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
    Ok(std::fs::metadata(path).is_ok_and(is_own))
}

/// Elsewhere a file that is open keeps its name.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn is_at(_: &File, _: &Path) -> std::io::Result<bool> {
    Ok(true)
}

impl Drop for TokenFileWriter {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing is left behind by a failure.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}

fn read_info(path: &Path) -> Result<TokenFileInfo, CorpusError> {
    let text = std::fs::read(path).map_err(CorpusError::io(path))?;
    let info: TokenFileInfo = serde_json::from_slice(&text)
        .map_err(|error| CorpusError::file(path, format!("not a token file's record: {error}")))?;
    if info.n_vocab == 0 {
        return Err(CorpusError::file(path, "n_vocab = 0: must be at least 1"));
    }
    Ok(info)
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(n_vocab: usize) -> TokenFileInfo {
        TokenFileInfo {
            tokenizer: "test".into(),
            vocabulary: "test".into(),
            n_vocab,
            n_tokens: 0,
            n_text_bytes: 1,
            xxh3: String::new(),
        }
    }

    #[test]
    fn one_file_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.bin");
        let mut first = TokenFileWriter::create(&path, 256).unwrap();
        let second = TokenFileWriter::create(&path, 256).err().unwrap().to_string();
        assert!(second.contains("another process is writing it"), "{second}");
        first.append(&TokenFileWriter::encode(256, &[1, 2, 3])).unwrap();
        let with_tokenizer = TokenFileInfo::tokenizer_path_for(&path);
        first.finish(info(256), Some("{}")).unwrap();
        assert!(with_tokenizer.exists());
        // What takes its place has no tokenizer.json.
        write(&path, 256, &[4, 5]);
        assert!(!with_tokenizer.exists());
        assert_eq!(TokenFile::open(&path).unwrap().len(), 2);
    }

    fn write(path: &Path, n_vocab: usize, tokens: &[u32]) {
        let mut writer = TokenFileWriter::create(path, n_vocab).unwrap();
        for part in tokens.chunks(7) {
            writer.append(&TokenFileWriter::encode(n_vocab, part)).unwrap();
        }
        writer.finish(info(n_vocab), None).unwrap();
    }

    /// The layout of `dev/data/data_common.py` of llm.c, byte for byte.
    #[test]
    fn the_header_is_that_of_llm_c() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, 50257, &[1, 50256]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1024 + 4);
        assert_eq!(bytes[..12], [136, 216, 52, 1, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[1024..], [1, 0, 80, 196]);
        assert!(bytes[12..1024].iter().all(|byte| *byte == 0));
        write(&path, 128_256, &[1, 128_000]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..12], [161, 217, 52, 1, 7, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[1024..], [1, 0, 0, 0, 0, 244, 1, 0]);
    }

    #[test]
    fn nanogpt_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        std::fs::write(&path, TokenFileWriter::encode(50257, &[5, 50256, 7])).unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert_eq!(file.tokens(0..3), [5, 50256, 7]);
        assert_eq!(file.info().n_vocab, 50257);
    }

    #[test]
    fn broken_files_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            TokenFile::open(&path).err().unwrap().to_string()
        };
        write(&path, 300, &(0..300).collect::<Vec<_>>());
        let good = std::fs::read(&path).unwrap();
        assert!(message(&good[..good.len() - 2]).contains("the header promises 300 tokens"));
        assert!(message(&good[..500]).contains("500 bytes: llm.c's header alone has 1024"));
        assert!(message(&[1, 2, 3]).contains("neither llm.c's format"));
        assert!(message(&[]).contains("is empty"));
        let mut flipped = good.clone();
        flipped[1030] ^= 1;
        assert!(message(&flipped).contains("checksum"));
        let mut version = good.clone();
        version[4] = 9;
        assert!(message(&version).contains("version 9 where llm.c has 1"));
        let mut magic = good.clone();
        magic[0] ^= 1;
        std::fs::remove_file(TokenFileInfo::path_for(&path)).unwrap();
        assert!(message(&magic).contains("begins with 20240521, a magic number of llm.c's"));
        let wide: Vec<u8> = (0u32..100).flat_map(u32::to_le_bytes).collect();
        assert!(message(&wide).contains("every second token is 0, as in 32-bit tokens"));
        let narrow: Vec<u8> = (0u16..300).flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, narrow).unwrap();
        assert_eq!(TokenFile::open(&path).unwrap().len(), 300);
        write(&path, 70_000, &[7, 69_999]);
        std::fs::remove_file(TokenFileInfo::path_for(&path)).unwrap();
        let mut largest = std::fs::read(&path).unwrap();
        largest[1024..1028].fill(255);
        assert!(message(&largest).contains("token 4294967295: must be below 10000000"));
        write(&path, 300, &(0..300).collect::<Vec<_>>());
        let record = TokenFileInfo::path_for(&path);
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(record, text.replace("\"n_vocab\": 300", "\"n_vocab\": 0")).unwrap();
        assert!(message(&good).contains("n_vocab = 0: must be at least 1"));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        drop(TokenFileWriter::create(&path, 256).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn tokens_come_back(tokens in prop::collection::vec(0u32..70_000, 1..100), wide: bool) {
            let n_vocab = if wide { 70_000 } else { 65_536 };
            let tokens: Vec<u32> = tokens.into_iter().map(|token| token % n_vocab as u32).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.bin");
            write(&path, n_vocab, &tokens);
            let file = TokenFile::open(&path).unwrap();
            prop_assert_eq!(file.tokens(0..tokens.len()), tokens);
        }
    }
}
