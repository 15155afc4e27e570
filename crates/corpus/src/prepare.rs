use crate::text::{Cleaning, Piece, TextOptions, TextPieces};
use crate::token_file::TokenFileWriter;
use crate::{CorpusError, TokenFileInfo, Tokenizer};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Size of a piece of text that one thread takes at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces in memory at a time, for each thread.
const PIECES_PER_THREAD: usize = 2;

/// A prepared token file.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The token file.
    pub path: PathBuf,
    /// What the JSON beside it says.
    pub info: TokenFileInfo,
}

/// Turns text files into one token file: streamed, in parallel, in order.
///
/// Between two files comes the end-of-text token, where the tokenizer has one. `progress` is told
/// the bytes of text done so far, and may break it off. The tokens do not depend on the number of
/// threads.
///
/// # Errors
/// A text that is missing, empty, not UTF-8 where the tokenizer needs it, or of which the tokenizer makes nothing; a full disk;
/// `progress` broke it off.
pub fn prepare(
    texts: &[PathBuf],
    tokenizer: &Tokenizer,
    tokenizer_name: &str,
    cleaning: Cleaning,
    output: &Path,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Prepared, CorpusError> {
    let n_vocab = tokenizer.n_vocab();
    let options = text_options(tokenizer, cleaning);
    let mut writer = TokenFileWriter::create(output, n_vocab)?;
    let (mut n_text_bytes, mut done) = (0, 0);
    for (i, path) in texts.iter().enumerate() {
        if let Some(separator) = tokenizer.end_of_text().filter(|_| i > 0) {
            writer.append(&TokenFileWriter::encode(n_vocab, &[separator]))?;
        }
        let (before, mut has_tokens) = (n_text_bytes, false);
        let mut pieces = TextPieces::open(path, options)?;
        loop {
            let at_once = PIECES_PER_THREAD * rayon::current_num_threads();
            let round: Vec<Piece> = pieces.by_ref().take(at_once).collect::<Result<_, _>>()?;
            if round.is_empty() {
                break;
            }
            let encoded: Vec<Vec<u8>> = round
                .par_iter()
                .map(|piece| Ok(TokenFileWriter::encode(n_vocab, &tokenizer.encode(&piece.bytes)?)))
                .collect::<Result<_, _>>()
                .map_err(of_text(path))?;
            for (piece, tokens) in round.iter().zip(&encoded) {
                writer.append(tokens)?;
                has_tokens |= !tokens.is_empty();
                n_text_bytes += piece.bytes.len() as u64;
                done += piece.source_bytes;
            }
            if progress(done).is_break() {
                return Err(CorpusError::Stopped);
            }
        }
        if n_text_bytes == before {
            return Err(CorpusError::file(path, "is empty: no text"));
        }
        if !has_tokens {
            let reason = format!(
                "the tokenizer {tokenizer_name} has no token for any of its text; choose another"
            );
            return Err(CorpusError::file(path, reason));
        }
    }
    let json = tokenizer.to_json()?;
    let info = TokenFileInfo {
        tokenizer: tokenizer_name.to_string(),
        vocabulary: tokenizer.vocabulary()?,
        n_vocab,
        n_tokens: 0,
        n_text_bytes,
        xxh3: String::new(),
    };
    let info = writer.finish(info, json.as_deref())?;
    Ok(Prepared { path: output.to_path_buf(), info })
}

/// The first tokens of one text: all, or `most` and what comes with them.
///
/// # Errors
/// As [`prepare`].
pub fn encode_text(
    path: &Path,
    tokenizer: &Tokenizer,
    cleaning: Cleaning,
    most: u64,
) -> Result<Vec<u32>, CorpusError> {
    let mut tokens = Vec::new();
    for piece in TextPieces::open(path, text_options(tokenizer, cleaning))? {
        let piece = piece?;
        tokens.extend(tokenizer.encode(&piece.bytes).map_err(of_text(path))?);
        if tokens.len() as u64 >= most {
            break;
        }
    }
    Ok(tokens)
}

/// Names the text that an error of its tokens is about.
fn of_text(path: &Path) -> impl Fn(CorpusError) -> CorpusError {
    move |error| match error {
        CorpusError::Choice(reason) => CorpusError::file(path, reason),
        CorpusError::Tokenizer(_) => {
            CorpusError::file(path, format!("its text has no tokens by this {error}"))
        }
        other => other,
    }
}

fn text_options(tokenizer: &Tokenizer, cleaning: Cleaning) -> TextOptions {
    TextOptions { cleaning, whole_words: tokenizer.reads_words(), piece_bytes: PIECE_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokenFile, TokenizerChoice};

    #[test]
    fn bytes_are_the_text_without_carriage_returns() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.txt"), folder.path().join("b.txt"));
        std::fs::write(&a, "one\r\ntwo").unwrap();
        std::fs::write(&b, "three").unwrap();
        let out = folder.path().join("sub/tokens.bin");
        let strip = Cleaning { strip_cr: true, lossy: false };
        let mut seen = Vec::new();
        let prepared = prepare(&[a, b], &Tokenizer::bytes(), "bytes", strip, &out, |done| {
            seen.push(done);
            ControlFlow::Continue(())
        })
        .unwrap();
        let file = TokenFile::open(&prepared.path).unwrap();
        let text: Vec<u8> = file.tokens(0..file.len()).iter().map(|token| *token as u8).collect();
        assert_eq!(text, b"one\ntwothree");
        assert_eq!((prepared.info.n_text_bytes, seen), (12, vec![8, 13]));
    }

    #[test]
    fn pieces_give_the_tokens_of_the_whole_and_files_are_separated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let line = "Call me Ishmael. Some years ago--never mind how long precisely\n\n";
        std::fs::write(&path, line.repeat(40_000)).unwrap();
        let texts = [path.clone(), path];
        let tokenizer =
            Tokenizer::choose(&TokenizerChoice::Bpe(400), &texts, Cleaning::default(), &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let out = folder.path().join("tokens.bin");
        prepare(&texts, &tokenizer, "bpe:400", Cleaning::default(), &out, |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let file = TokenFile::open(&out).unwrap();
        let found = file.tokens(0..file.len());
        let one = tokenizer.encode(line.repeat(40_000).as_bytes()).unwrap();
        let separator = vec![tokenizer.end_of_text().unwrap()];
        assert_eq!(found, [one.clone(), separator, one].concat());
        let again = Tokenizer::from_file(&TokenFileInfo::tokenizer_path_for(&out)).unwrap();
        assert_eq!(again.vocabulary().unwrap(), file.info().vocabulary);
    }

    #[test]
    fn a_text_without_tokens_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (json, text) = (folder.path().join("tokenizer.json"), folder.path().join("text.txt"));
        std::fs::write(&text, "some text").unwrap();
        let fails = |model: &str, named: &str| {
            std::fs::write(&json, format!("{{\"added_tokens\": [], \"model\": {model}}}")).unwrap();
            let tokenizer = Tokenizer::from_file(&json).unwrap();
            let out = folder.path().join("tokens.bin");
            let texts = [text.clone()];
            let found =
                prepare(&texts, &tokenizer, "tokenizer.json", Cleaning::default(), &out, |_| {
                    ControlFlow::Continue(())
                });
            let message = found.unwrap_err().to_string();
            assert!(message.contains("text.txt: ") && message.contains(named), "{message}");
            assert!(!out.exists());
        };
        fails(
            r#"{"type": "BPE", "vocab": {"z": 0}, "merges": []}"#,
            "tokenizer.json has no token for any",
        );
        fails(r#"{"type": "WordLevel", "vocab": {"z": 0}, "unk_token": "[UNK]"}"#, "Missing [UNK]");
    }

    #[test]
    fn an_empty_text_is_named_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.txt");
        std::fs::write(&path, "").unwrap();
        let out = folder.path().join("out/tokens.bin");
        let error =
            prepare(&[path], &Tokenizer::bytes(), "bytes", Cleaning::default(), &out, |_| {
                ControlFlow::Continue(())
            });
        assert!(error.unwrap_err().to_string().contains("empty.txt: is empty"));
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
    }
}
