use crate::permutation::{Permutation, mix};
use crate::{CorpusError, SyntheticLanguage, TokenFile};
use std::ops::Range;
use std::path::Path;

/// Tokens of a run: where training and held-out sequences come from.
///
/// A sequence has one token more than the context, so that every position has a target.
pub struct Corpus {
    tokens: Tokens,
    context_len: usize,
}

enum Tokens {
    File { file: TokenFile, training: Range<usize>, held_out: Range<usize> },
    Synthetic(SyntheticLanguage),
}

impl Corpus {
    /// A token file whose last `validation_fraction` is held out.
    ///
    /// # Errors
    /// The file is broken, or one of the parts is shorter than a sequence.
    pub fn from_file(
        path: &Path,
        validation_fraction: f64,
        context_len: usize,
    ) -> Result<Self, CorpusError> {
        let file = TokenFile::open(path)?;
        let cut = (file.len() as f64 * (1.0 - validation_fraction)) as usize;
        let (training, held_out) = (0..cut, cut..file.len());
        for (name, part) in [("training", &training), ("held-out", &held_out)] {
            if part.len() <= context_len {
                let reason = format!(
                    "{} {name} tokens of {} (validation_fraction = {validation_fraction}): at least {} are needed for a context \
                     of {context_len}",
                    part.len(),
                    file.len(),
                    context_len + 1,
                );
                return Err(CorpusError::TooShort { path: path.to_path_buf(), reason });
            }
        }
        Ok(Self { tokens: Tokens::File { file, training, held_out }, context_len })
    }

    /// The synthetic language.
    pub fn from_language(language: SyntheticLanguage, context_len: usize) -> Self {
        Self { tokens: Tokens::Synthetic(language), context_len }
    }

    /// Tokens to train on; `None` for a language, which has no end.
    pub fn n_training_tokens(&self) -> Option<u64> {
        match &self.tokens {
            Tokens::File { training, .. } => Some(training.len() as u64),
            Tokens::Synthetic(_) => None,
        }
    }

    /// Tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        match &self.tokens {
            Tokens::File { file, .. } => file.info().n_vocab,
            Tokens::Synthetic(language) => language.n_words(),
        }
    }

    /// What identifies the vocabulary.
    pub fn vocabulary(&self) -> String {
        match &self.tokens {
            Tokens::File { file, .. } => file.info().vocabulary.clone(),
            Tokens::Synthetic(language) => {
                format!("words:{} of language {}", language.n_words(), language.seed())
            }
        }
    }

    /// What identifies the tokens: a checksum, or the language they are drawn from.
    pub fn identity(&self) -> String {
        match &self.tokens {
            Tokens::File { file, .. } => format!("tokens {}", file.info().xxh3),
            Tokens::Synthetic(_) => self.vocabulary(),
        }
    }

    /// The least loss that any model can reach on these sequences, where it is known.
    pub fn loss_floor(&self) -> Option<f64> {
        match &self.tokens {
            Tokens::File { .. } => None,
            Tokens::Synthetic(language) => Some(language.loss_floor(self.context_len)),
        }
    }

    /// Training sequences `first..first + n` of a run, one after the other; a pure function of
    /// (seed, first). Each epoch visits every sequence once, in an order of its own.
    pub fn training_batch(&self, seed: u64, first: u64, n: u64) -> Vec<u32> {
        (first..first + n).flat_map(|j| self.training_sequence(seed, j)).collect()
    }

    fn training_sequence(&self, seed: u64, j: u64) -> Vec<u32> {
        match &self.tokens {
            Tokens::File { file, training, .. } => {
                let n = self.n_windows(training);
                let (epoch, i) = (j / n, j % n);
                let window = Permutation::new(n, mix(seed) ^ mix(!epoch)).at(i) as usize;
                self.window(file, training, window)
            }
            Tokens::Synthetic(language) => language.sample(seed, j, self.context_len + 1),
        }
    }

    /// `n` held-out sequences spread evenly over the held-out part, or all of them if there are
    /// fewer; the same for every seed.
    pub fn held_out(&self, n: u64) -> Vec<Vec<u32>> {
        match &self.tokens {
            Tokens::File { file, held_out, .. } => {
                let all = self.n_windows(held_out);
                let n = n.min(all);
                (0..n).map(|i| self.window(file, held_out, (i * all / n) as usize)).collect()
            }
            Tokens::Synthetic(language) => {
                let sample = |i| language.sample(language.held_out_seed(), i, self.context_len + 1);
                (0..n).map(sample).collect()
            }
        }
    }

    /// Sequences in a part of the tokens.
    fn n_windows(&self, part: &Range<usize>) -> u64 {
        ((part.len() - 1) / self.context_len) as u64
    }

    fn window(&self, file: &TokenFile, part: &Range<usize>, i: usize) -> Vec<u32> {
        let start = part.start + i * self.context_len;
        file.tokens(start..start + self.context_len + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cleaning, Tokenizer, prepare};
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    fn corpus(n_bytes: usize, context_len: usize) -> Result<Corpus, CorpusError> {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..n_bytes).map(|i| (i % 251) as u8).collect();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, text).unwrap();
        let out = folder.path().join("a.bin");
        prepare(&[path], &Tokenizer::bytes(), "bytes", Cleaning::default(), &out, |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        Corpus::from_file(&out, 0.1, context_len)
    }

    #[test]
    fn an_epoch_visits_every_training_sequence_once_and_the_next_in_another_order() {
        let corpus = corpus(5000, 16).unwrap();
        let Tokens::File { training, .. } = &corpus.tokens else { unreachable!() };
        let n = corpus.n_windows(training);
        let epoch = |e: u64| -> Vec<Vec<u32>> {
            (0..n).map(|i| corpus.training_batch(3, e * n + i, 1)).collect()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len() as u64, n.min(251));
        assert_ne!(first, second);
        let sorted = |mut sequences: Vec<Vec<u32>>| {
            sequences.sort();
            sequences
        };
        assert_eq!(sorted(first), sorted(second));
    }

    #[test]
    fn a_batch_is_its_sequences_and_depends_on_seed_and_place_alone() {
        let corpus = corpus(5000, 16).unwrap();
        let parts = [corpus.training_batch(1, 7, 2), corpus.training_batch(1, 9, 3)].concat();
        assert_eq!(corpus.training_batch(1, 7, 5), parts);
        assert_ne!(corpus.training_batch(2, 7, 5), parts);
    }

    #[test]
    fn training_and_held_out_tokens_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, [vec![b'a'; 900], vec![b'b'; 100]].concat()).unwrap();
        let out = folder.path().join("a.bin");
        prepare(&[path], &Tokenizer::bytes(), "bytes", Cleaning::default(), &out, |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        // A context that divides both parts, too: a sequence has one token more.
        for (context_len, n_held_out) in [(8, 12), (10, 9)] {
            let corpus = Corpus::from_file(&out, 0.1, context_len).unwrap();
            let training = corpus.training_batch(1, 0, 1000);
            assert!(training.iter().all(|token| *token == u32::from(b'a')), "{context_len}");
            let held_out = corpus.held_out(1000);
            assert_eq!(held_out.len(), n_held_out);
            assert!(held_out.concat().iter().all(|token| *token == u32::from(b'b')));
            assert_eq!(corpus.held_out(3).len(), 3);
        }
    }

    #[test]
    fn held_out_sequences_are_spread_over_their_part() {
        let corpus = corpus(5000, 16).unwrap();
        let all = corpus.held_out(1000);
        assert_eq!(all.len(), 31);
        assert_eq!(corpus.held_out(2), [all[0].clone(), all[15].clone()]);
    }

    #[test]
    fn a_text_shorter_than_a_context_is_explained() {
        let message = corpus(100, 64).err().unwrap().to_string();
        assert!(
            message.contains("10 held-out tokens of 100 (validation_fraction = 0.1): at least 65"),
            "{message}"
        );
    }

    #[test]
    fn the_held_out_text_of_a_language_is_its_own_and_no_run_s() {
        let of = |seed| Corpus::from_language(SyntheticLanguage::new(32, seed), 16);
        let corpus = of(5);
        let held_out = corpus.held_out(4);
        assert_eq!(held_out, of(5).held_out(4));
        assert_ne!(held_out, of(6).held_out(4));
        for seed in [0, 5, 6] {
            let batch = corpus.training_batch(seed, 0, 4);
            let mut sequences = batch.chunks(held_out[0].len());
            assert!(sequences.all(|sequence| held_out.iter().all(|own| own != sequence)));
        }
        assert_eq!(corpus.training_batch(1, 3, 2).len(), 34);
        assert!(corpus.loss_floor().unwrap() > 0.0);
    }
}
