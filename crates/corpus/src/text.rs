//! Text files as a stream of pieces of bounded size.

use crate::CorpusError;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What some programs put before UTF-8; no word of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is changed in a text before it becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaning {
    /// Whether carriage returns are dropped.
    pub strip_cr: bool,
    /// Whether what is not UTF-8 becomes U+FFFD, where the tokenizer needs UTF-8; otherwise it is
    /// an error.
    pub lossy: bool,
}

/// How the pieces of a text are cut and cleaned.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    pub cleaning: Cleaning,
    /// Whether the text must be UTF-8 and pieces end between words, as a tokenizer needs.
    pub whole_words: bool,
    /// Size of a piece in bytes, about; at least 8.
    pub piece_bytes: usize,
}

/// Reads one file piece by piece.
pub struct TextPieces {
    path: PathBuf,
    file: File,
    options: TextOptions,
    /// Read but not given out yet.
    rest: Vec<u8>,
    /// Bytes of the file in the pieces given out so far.
    given: u64,
    at_end: bool,
}

impl TextPieces {
    pub fn open(path: &Path, options: TextOptions) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(CorpusError::io(path))?;
        if file.metadata().map_err(CorpusError::io(path))?.is_dir() {
            return Err(CorpusError::file(path, "is a folder where a text file is due"));
        }
        let path = path.to_path_buf();
        Ok(Self { path, file, options, rest: Vec::new(), given: 0, at_end: false })
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, CorpusError> {
        if !self.at_end {
            let want = (self.options.piece_bytes - self.rest.len().min(self.options.piece_bytes))
                .max(1) as u64;
            let file = self.file.by_ref();
            let read =
                file.take(want).read_to_end(&mut self.rest).map_err(CorpusError::io(&self.path))?;
            self.at_end = (read as u64) < want;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let cut = if self.at_end || !self.options.whole_words {
            self.rest.len()
        } else {
            last_cut(&self.rest)
        };
        let after = self.rest.split_off(cut);
        let mut bytes = std::mem::replace(&mut self.rest, after);
        let source_bytes = bytes.len() as u64;
        let is_first = self.options.whole_words && self.given == 0;
        let mark = if is_first && bytes.starts_with(BYTE_ORDER_MARK) { 3 } else { 0 };
        bytes.drain(..mark);
        if self.options.whole_words
            && let Err(error) = std::str::from_utf8(&bytes)
        {
            if self.options.cleaning.lossy {
                bytes = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
            } else {
                return Err(self.not_utf8(mark + error.valid_up_to()));
            }
        }
        self.given += source_bytes;
        if self.options.cleaning.strip_cr {
            bytes.retain(|byte| *byte != b'\r');
        }
        Ok(Some(Piece { bytes, source_bytes }))
    }

    fn not_utf8(&self, valid_up_to: usize) -> CorpusError {
        let at = self.given + valid_up_to as u64;
        let reason = format!(
            "not UTF-8 at byte {at}: re-encode the file (of text to train on lossy = true replaces what is invalid, and the \
             tokenizer bytes reads anything)"
        );
        CorpusError::file(&self.path, reason)
    }
}

/// A piece of text, cleaned.
pub struct Piece {
    pub bytes: Vec<u8>,
    /// Bytes of the file that it stands for.
    pub source_bytes: u64,
}

impl Iterator for TextPieces {
    type Item = Result<Piece, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

/// The last place where a cut changes no token: before a blank that follows what is no white space, since tokenizers let no token run
/// into a blank and put none before a text that begins with one (but for a normalizer that puts a blank of its own before every text: it
/// makes one token more at each cut). In a text without any before a line break that follows a letter or a
/// digit (other signs may be of one token with it), and in one without that between characters.
fn last_cut(text: &[u8]) -> usize {
    let before = |blank: fn(u8) -> bool, after: fn(char) -> bool| {
        let is_cut = |i: &usize| blank(text[*i]) && character_before(text, *i).is_some_and(after);
        (1..text.len()).rev().find(is_cut)
    };
    before(|byte| byte == b' ', |before| !before.is_whitespace())
        .or_else(|| before(|byte| byte == b'\n' || byte == b'\r', char::is_alphanumeric))
        .unwrap_or_else(|| last_character(text))
}

/// The character that ends there; none where that is not UTF-8.
fn character_before(text: &[u8], end: usize) -> Option<char> {
    let start =
        (end.saturating_sub(4)..end).rev().find(|i| text[*i] & 0b1100_0000 != 0b1000_0000)?;
    std::str::from_utf8(&text[start..end]).ok()?.chars().next()
}

/// The start of the last character, so that it is not cut in two; at least 1.
fn last_character(text: &[u8]) -> usize {
    let start = text.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
    start.filter(|start| *start > 0).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(text: &[u8], options: TextOptions) -> Result<Vec<Vec<u8>>, CorpusError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, text).unwrap();
        TextPieces::open(&path, options)?.map(|piece| Ok(piece?.bytes)).collect()
    }

    fn options(strip_cr: bool, lossy: bool, piece_bytes: usize) -> TextOptions {
        TextOptions { cleaning: Cleaning { strip_cr, lossy }, whole_words: true, piece_bytes }
    }

    #[test]
    fn pieces_end_between_words() {
        let options = options(false, false, 10);
        let found = pieces(b"one two\nthree four five", options).unwrap();
        assert_eq!(found, [&b"one"[..], b" two", b"\nthree", b" four", b" five"]);
        let cut = |text: &str| last_cut(text.as_bytes());
        assert_eq!(cut("3.14159, 2.7"), "3.14159,".len());
        assert_eq!(cut("слово слово"), "слово".len());
        assert_eq!(cut("two  blanks"), "two".len());
        // A blank after another kind of white space may be of one token with it.
        assert_eq!(cut("a\u{a0} b"), "a\u{a0} ".len());
        assert_eq!(cut("語\n語語"), "語".len());
        assert_eq!(cut("),\n)"), "),\n".len());
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let found = pieces(b"\xef\xbb\xbfone two three", options(false, false, 10)).unwrap();
        assert_eq!(found.concat(), b"one two three");
        let error = pieces(b"\xef\xbb\xbfbad \xff", options(false, false, 8)).unwrap_err();
        assert!(error.to_string().contains("not UTF-8 at byte 7"), "{error}");
        let bytes = TextOptions { whole_words: false, ..options(false, false, 8) };
        assert_eq!(pieces(b"\xef\xbb\xbfone", bytes).unwrap().concat(), b"\xef\xbb\xbfone");
    }

    #[test]
    fn the_place_of_a_bad_byte_is_named() {
        let text = b"good text\r\nbad \xff byte";
        let error = pieces(text, options(true, false, 8)).unwrap_err().to_string();
        assert!(error.contains("not UTF-8 at byte 15"), "{error}");
        let replaced = pieces(text, options(true, true, 8)).unwrap().concat();
        assert_eq!(replaced, "good text\nbad \u{fffd} byte".as_bytes());
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text(text in "[ a-zé\\r\\n]{0,60}", piece_bytes in 8usize..30, whole_words: bool) {
            let options = TextOptions { whole_words, ..options(true, false, piece_bytes) };
            let joined = pieces(text.as_bytes(), options).unwrap().concat();
            prop_assert_eq!(joined, text.replace('\r', "").into_bytes());
        }
    }
}
