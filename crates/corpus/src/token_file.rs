//! Token files: llm.c's `.bin` is written; that and nanoGPT's headerless uint16 are read.

mod layout;
mod writer;

pub(crate) use writer::TokenFileWriter;

use crate::CorpusError;
use layout::{Layout, token_of};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What stands before the size of a vocabulary of which no more is known.
const UNKNOWN: &str = "unknown:";
/// Largest vocabulary that a model can have.
const MOST_VOCABULARY: u32 = 10_000_000;
/// Whether no more is known of a vocabulary than its size: that of a token file that another program wrote.
pub fn is_unknown(vocabulary: &str) -> bool {
    vocabulary.starts_with(UNKNOWN)
}

/// Whether two vocabularies may be one: they have one name, or of one of them only the size is known.
pub fn may_be_one(vocabulary: &str, other: &str) -> bool {
    vocabulary == other || is_unknown(vocabulary) || is_unknown(other)
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

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}

fn read_info(path: &Path) -> Result<TokenFileInfo, CorpusError> {
    let text = std::fs::read(path).map_err(CorpusError::io(path))?;
    let info: TokenFileInfo = serde_json::from_slice(&text)
        .map_err(|error| CorpusError::file(path, format!("not a token file's record: {error}")))?;
    if !(1..=MOST_VOCABULARY as usize).contains(&info.n_vocab) {
        let reason = format!("n_vocab = {}: must be from 1 to {MOST_VOCABULARY}", info.n_vocab);
        return Err(CorpusError::file(path, reason));
    }
    Ok(info)
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
        assert!(message(&good).contains("n_vocab = 0: must be from 1 to 10000000"));
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
