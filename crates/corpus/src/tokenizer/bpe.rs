//! Byte-level BPEs: trained on text, and GPT-2's.

use super::{END_OF_TEXT, Tokenizer, library};
use crate::CorpusError;
use crate::text::{Cleaning, TextOptions, TextPieces};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Trained};

/// Time between two looks at a BPE that is being trained.
const WATCH_EVERY: Duration = Duration::from_millis(100);

fn byte_level(trained: &mut Trained) {
    let plain = ByteLevel::new(false, true, true);
    trained.with_pre_tokenizer(Some(plain)).with_decoder(Some(plain));
}

pub(super) fn gpt2(folder: &Path) -> Result<Tokenizer, CorpusError> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::metadata(&path).map_err(CorpusError::io(&path))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let bpe = BPE::from_file(&file("encoder.json")?, &file("vocab.bpe")?)
        .build()
        .map_err(|error| CorpusError::file(folder, format!("not GPT-2's vocabulary: {error}")))?;
    let mut trained = Trained::new(bpe);
    byte_level(&mut trained);
    trained.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).map_err(library)?;
    Ok(Tokenizer::trained(trained))
}

/// Trains a BPE on a thread of its own, for the library tells nobody how far it is and cannot be broken off.
pub(super) fn watch_training(
    n_vocab: usize,
    texts: &[PathBuf],
    cleaning: Cleaning,
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Tokenizer, CorpusError> {
    let texts = texts.to_vec();
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let (sender, trained) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits for it any more where it was broken off.
        let _ = sender.send(train_bpe(n_vocab, &texts, cleaning, &counter));
    });
    loop {
        match trained.recv_timeout(WATCH_EVERY) {
            Ok(tokenizer) => return tokenizer,
            Err(RecvTimeoutError::Timeout) => {
                if watch(read.load(Ordering::Relaxed)).is_break() {
                    return Err(CorpusError::Stopped);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(CorpusError::Tokenizer("the training of the BPE failed".to_string()));
            }
        }
    }
}

fn train_bpe(
    n_vocab: usize,
    texts: &[PathBuf],
    cleaning: Cleaning,
    read: &AtomicU64,
) -> Result<Tokenizer, CorpusError> {
    let mut trained = Trained::new(BPE::default());
    byte_level(&mut trained);
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(n_vocab)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build()
        .into();
    let options = TextOptions { cleaning, whole_words: true, piece_bytes: 1 << 20 };
    // One file is open at a time, of however many.
    let pieces = texts.iter().flat_map(|path| {
        let (pieces, refused) = match TextPieces::open(path, options) {
            Ok(pieces) => (Some(pieces), None),
            Err(error) => (None, Some(Err(error))),
        };
        pieces.into_iter().flatten().chain(refused)
    });
    // The trainer takes text that cannot fail, so the first failure ends it and is kept aside.
    let failure = std::sync::Mutex::new(None);
    let lines = pieces.map_while(|piece| match piece {
        Ok(piece) => {
            read.fetch_add(piece.source_bytes, Ordering::Relaxed);
            String::from_utf8(piece.bytes).ok()
        }
        Err(error) => {
            if let Ok(mut failure) = failure.lock() {
                failure.get_or_insert(error);
            }
            None
        }
    });
    trained.train(&mut trainer, lines).map_err(library)?;
    if let Some(error) = failure.into_inner().ok().flatten() {
        return Err(error);
    }
    Ok(Tokenizer::trained(trained))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerChoice;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_bpe_whose_training_is_broken_off_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let text: String = (0..1_000_000)
            .map(|i| if i % 9 == 8 { ' ' } else { rng.random_range('a'..='z') })
            .collect();
        std::fs::write(&path, text).unwrap();
        let mut seen = Vec::new();
        let choice = TokenizerChoice::Bpe(50_000);
        let stopped = Tokenizer::choose(&choice, &[path], Cleaning::default(), &mut |read| {
            seen.push(read);
            ControlFlow::Break(())
        });
        assert!(matches!(stopped, Err(CorpusError::Stopped)));
        assert!(seen.len() == 1 && seen[0] <= 1_000_000, "{seen:?}");
    }
}
