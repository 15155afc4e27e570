//! How tokens lie in a file: as llm.c or nanoGPT has them.

use crate::CorpusError;
use rayon::prelude::*;
use std::path::Path;

/// llm.c's header: 256 32-bit integers, of which the first three are magic, version and count.
pub const HEADER_BYTES: usize = 256 * 4;
/// llm.c's magic and version for 16-bit tokens (`dev/data/data_common.py`, "gpt-2").
const MAGIC_16: (u32, u32) = (20_240_520, 1);
/// llm.c's magic and version for 32-bit tokens (`dev/data/data_common.py`, "llama-3").
const MAGIC_32: (u32, u32) = (20_240_801, 7);
/// Largest vocabulary whose tokens fit into 16 bits.
const LARGEST_16: usize = 1 << 16;

/// Where the tokens of a file begin, and how wide they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub header_bytes: usize,
    pub token_bytes: usize,
}

impl Layout {
    pub fn for_vocabulary(n_vocab: usize) -> Self {
        let token_bytes = if n_vocab <= LARGEST_16 { 2 } else { 4 };
        Self { header_bytes: HEADER_BYTES, token_bytes }
    }

    pub fn magic(self) -> (u32, u32) {
        if self.token_bytes == 2 { MAGIC_16 } else { MAGIC_32 }
    }

    /// The layout that a file's first bytes and its size tell.
    pub fn of(bytes: &[u8], path: &Path) -> Result<Self, CorpusError> {
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

    pub fn largest_token(self, tokens: &[u8]) -> u32 {
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

/// A token of 2 or 4 bytes.
pub fn token_of(bytes: &[u8]) -> u32 {
    match bytes {
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => unreachable!("tokens are 2 or 4 bytes wide"),
    }
}
