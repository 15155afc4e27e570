use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// How a batch rises, in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Tokens in the first step.
    pub from_tokens: u64,
    /// Steps until the full batch.
    pub steps: u64,
    /// The rate of a step is (its tokens / those of the full batch)^exponent of what the learning rate's course has there. At 1/2 it goes
    /// with the root of the batch, as the updates of Adam want it (Malladi et al. 2022, arXiv 2205.10287, who scale its betas and eps too).
    #[serde(default)]
    pub rate_exponent: f64,
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_tokens, steps, rate_exponent } = self;
        write!(f, "from {from_tokens} tokens over {steps} steps, rate_exponent = {rate_exponent}")
    }
}

/// Tokens in each step, as a pure function of the step: constant, or a linear ramp to a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    context_len: u64,
    final_sequences: u64,
    /// `before_step[s]` sequences come before step `s + 1`, for the steps of the ramp.
    before_step: Arc<[u64]>,
}

impl Batch {
    /// A batch of `final_tokens`, reached in a straight line from `from_tokens` over `ramp_steps`
    /// steps; each step's tokens are rounded down to whole sequences, at least one.
    pub fn new(context_len: usize, final_tokens: u64, from_tokens: u64, ramp_steps: u64) -> Self {
        let context_len = context_len as u64;
        let mut before_step = vec![0];
        let mut total = 0;
        for step in 0..ramp_steps {
            let done = step as f64 / ramp_steps as f64;
            let tokens = from_tokens as f64 + done * (final_tokens as f64 - from_tokens as f64);
            total += (tokens as u64 / context_len).max(1);
            before_step.push(total);
        }
        Self {
            context_len,
            final_sequences: (final_tokens / context_len).max(1),
            before_step: before_step.into(),
        }
    }

    /// Sequences in the update that makes `step` (the first is 1).
    pub fn sequences_at(&self, step: u64) -> u64 {
        self.sequences_before(step.saturating_add(1)) - self.sequences_before(step)
    }

    /// Sequences in all steps before `step`: where its data begins.
    pub fn sequences_before(&self, step: u64) -> u64 {
        let steps_made = step.saturating_sub(1);
        let ramp_steps = self.before_step.len() as u64 - 1;
        let in_ramp = self.before_step[steps_made.min(ramp_steps) as usize];
        let after = steps_made.saturating_sub(ramp_steps);
        in_ramp.saturating_add(after.saturating_mul(self.final_sequences))
    }

    /// Tokens in the update that makes `step`, targets counted.
    pub fn tokens_at(&self, step: u64) -> u64 {
        self.sequences_at(step) * self.context_len
    }

    /// Tokens in a step of the full batch, which comes after the ramp.
    pub fn final_tokens(&self) -> u64 {
        self.final_sequences * self.context_len
    }

    /// Tokens in all steps up to and including `step`.
    pub fn tokens_through(&self, step: u64) -> u64 {
        self.sequences_before(step.saturating_add(1)).saturating_mul(self.context_len)
    }

    /// The steps whose tokens come nearest to `n_tokens`.
    pub fn nearest_step(&self, n_tokens: f64) -> u64 {
        let after = self.steps_for_tokens(n_tokens.max(0.0).ceil() as u64);
        let before = after.saturating_sub(1);
        let off = |step: u64| (self.tokens_through(step) as f64 - n_tokens).abs();
        if off(before) < off(after) { before } else { after }
    }

    /// Steps until at least `n_tokens` are seen.
    pub fn steps_for_tokens(&self, n_tokens: u64) -> u64 {
        let sequences = n_tokens.div_ceil(self.context_len);
        let ramp_steps = self.before_step.len() as u64 - 1;
        let ramp_total = self.before_step[ramp_steps as usize];
        if sequences > ramp_total {
            ramp_steps + (sequences - ramp_total).div_ceil(self.final_sequences)
        } else {
            self.before_step.partition_point(|before| *before < sequences) as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_constant_batch_is_constant() {
        let batch = Batch::new(128, 4096, 4096, 0);
        assert_eq!((batch.tokens_at(1), batch.tokens_at(999)), (4096, 4096));
        assert_eq!(batch.sequences_before(11), 320);
        assert_eq!(batch.tokens_through(10), 40_960);
    }

    #[test]
    fn a_ramp_starts_low_and_ends_at_the_full_batch() {
        let batch = Batch::new(128, 4096, 1024, 3);
        let tokens: Vec<u64> = (1..=5).map(|step| batch.tokens_at(step)).collect();
        assert_eq!(tokens, [1024, 2048, 3072, 4096, 4096]);
    }

    /// Contexts of 8 from 3 to 10 sequences over 5 steps: 3, 4.4, 5.8, 7.2, 8.6 and 10 of them, rounded down.
    #[test]
    fn a_ramp_is_a_straight_line_of_whole_sequences() {
        let batch = Batch::new(8, 80, 24, 5);
        let sequences: Vec<u64> = (1..=7).map(|step| batch.sequences_at(step)).collect();
        assert_eq!(sequences, [3, 4, 5, 7, 8, 10, 10]);
        assert_eq!(batch.tokens_through(7), 8 * (3 + 4 + 5 + 7 + 8 + 10 + 10));
        assert_eq!(batch.sequences_before(4), 3 + 4 + 5);
    }

    proptest! {
        #[test]
        fn sums_and_inverse_agree(
            context in 1usize..64, from in 1u64..5000, to in 1u64..5000, ramp in 0u64..50, step in 1u64..120,
        ) {
            let batch = Batch::new(context, to, from, ramp);
            let summed: u64 = (1..=step).map(|s| batch.tokens_at(s)).sum();
            prop_assert_eq!(summed, batch.tokens_through(step));
            prop_assert_eq!(batch.steps_for_tokens(summed), step);
            prop_assert_eq!(batch.steps_for_tokens(summed + 1), step + 1);
            let next = batch.tokens_at(step + 1) as f64;
            prop_assert_eq!(batch.nearest_step(summed as f64 + 0.4 * next), step);
            prop_assert_eq!(batch.nearest_step(summed as f64 + 0.6 * next), step + 1);
        }
    }
}
