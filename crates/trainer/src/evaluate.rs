use crate::TrainError;
use corpus::Corpus;
use model::Gpt;
use rayon::prelude::*;

/// A fixed set of held-out sequences.
pub struct EvaluationSet {
    sequences: Vec<Vec<u32>>,
    context_len: usize,
}

/// Sequences that so many tokens fill, one at least.
pub(crate) fn whole_sequences(n_tokens: u64, context_len: usize) -> u64 {
    (n_tokens / context_len as u64).max(1)
}

impl EvaluationSet {
    /// `n_tokens` held-out tokens of a corpus, rounded down to whole sequences, or all that there
    /// are.
    pub fn new(corpus: &Corpus, n_tokens: u64, context_len: usize) -> Self {
        Self { sequences: corpus.held_out(whole_sequences(n_tokens, context_len)), context_len }
    }

    /// The sequences of a text, one after the other, `n_tokens` at most.
    ///
    /// # Errors
    /// The text is shorter than a sequence.
    pub fn of_tokens(
        tokens: &[u32],
        n_tokens: u64,
        context_len: usize,
    ) -> Result<Self, TrainError> {
        let n = usize::try_from(whole_sequences(n_tokens, context_len)).unwrap_or(usize::MAX);
        let starts = (0..tokens.len().saturating_sub(context_len)).step_by(context_len);
        let sequences: Vec<Vec<u32>> =
            starts.take(n).map(|start| tokens[start..=start + context_len].to_vec()).collect();
        if sequences.is_empty() {
            let reason = format!(
                "{} tokens: at least {} are needed for a context of {context_len}",
                tokens.len(),
                context_len + 1
            );
            return Err(corpus::CorpusError::Choice(reason).into());
        }
        Ok(Self { sequences, context_len })
    }

    /// The first sequence.
    pub(crate) fn first(&self) -> &[u32] {
        &self.sequences[0]
    }

    /// The first sequences alone.
    pub(crate) fn first_sequences(&self, n: usize) -> Self {
        let n = n.min(self.sequences.len());
        Self { sequences: self.sequences[..n].to_vec(), context_len: self.context_len }
    }

    /// The inputs of each sequence.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &[u32]> {
        self.sequences.iter().map(|sequence| &sequence[..self.context_len])
    }

    /// The tokens of each sequence whose loss is measured.
    pub fn targets(&self) -> impl Iterator<Item = &[u32]> {
        self.sequences.iter().map(|sequence| &sequence[1..])
    }

    /// Tokens whose loss is measured.
    pub fn n_tokens(&self) -> u64 {
        (self.sequences.len() * self.context_len) as u64
    }
}

/// Mean cross-entropy over the set, nats per token. `measured` is told the tokens that are done.
///
/// # Errors
/// The set does not fit the model.
pub fn mean_loss(
    gpt: &Gpt,
    set: &EvaluationSet,
    micro_batch: usize,
    mut measured: impl FnMut(u64),
) -> Result<f64, TrainError> {
    let micro_batches: Vec<&[Vec<u32>]> = set.sequences.chunks(micro_batch).collect();
    let (mut sum, mut n_sequences) = (0.0, 0);
    for round in micro_batches.chunks(gpt.passes_at_once(rayon::current_num_threads())) {
        let losses: Vec<f64> = round
            .par_iter()
            .map(|sequences| gpt.loss(&sequences.concat(), set.context_len))
            .collect::<Result<_, _>>()?;
        sum += losses.iter().sum::<f64>();
        n_sequences += round.iter().map(|sequences| sequences.len()).sum::<usize>();
        measured((n_sequences * set.context_len) as u64);
    }
    Ok(sum / set.n_tokens() as f64)
}
