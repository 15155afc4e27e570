use crate::TrainError;
use model::{Gpt, LossAndGradients, Tensors};
use rayon::prelude::*;
use std::time::Instant;

/// The gradient of one step's batch.
pub(crate) struct BatchGradients {
    /// Mean cross-entropy of the batch, nats per token.
    pub loss: f64,
    pub gradients: Tensors,
    /// Time spent on fetching data, as far as it held the step up.
    pub data_seconds: f64,
}

/// Micro-batches that each of at most so many passes side by side takes, but the last, which may have fewer.
pub(crate) fn of_a_pass(micro_batches: usize, passes_at_once: usize) -> usize {
    micro_batches.div_ceil(passes_at_once.min(micro_batches))
}

/// Accumulates the gradient of the mean loss over the micro-batches of a step, shared out among as many
/// passes side by side as the device takes well. `fetch` gives the sequences from a number on, of which
/// there are some; where it gives none the batch is given up, and there is no gradient.
pub(crate) fn batch_gradients(
    gpt: &Gpt,
    n_sequences: u64,
    micro_batch: u64,
    context_len: usize,
    fetch: impl Fn(u64, u64) -> Option<Vec<u32>> + Sync,
) -> Result<Option<BatchGradients>, TrainError> {
    let weight = 1.0 / (n_sequences * context_len as u64) as f64;
    let starts: Vec<u64> = (0..n_sequences).step_by(micro_batch as usize).collect();
    let share = |starts: &[u64]| {
        let mut sum = gpt.gradient_sum();
        let mut data_seconds = 0.0;
        for start in starts {
            let fetching = Instant::now();
            let Some(sequences) = fetch(*start, micro_batch.min(n_sequences - start)) else {
                return Ok(None);
            };
            data_seconds += fetching.elapsed().as_secs_f64();
            gpt.add_gradients(&mut sum, &sequences, context_len, weight)?;
        }
        Ok(Some((data_seconds, gpt.summed(sum))))
    };
    let at_once = gpt.passes_at_once(rayon::current_num_threads());
    let shares: Vec<&[u64]> = starts.chunks(of_a_pass(starts.len(), at_once)).collect();
    let found: Vec<Option<(f64, LossAndGradients)>> =
        shares.par_iter().map(|starts| share(starts)).collect::<Result<_, TrainError>>()?;
    let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let mut batch = BatchGradients { loss: 0.0, gradients: Tensors::new(), data_seconds: 0.0 };
    // In the order of the batch, whichever was finished first.
    for (data_seconds, found) in found {
        batch.data_seconds += data_seconds / shares.len() as f64;
        batch.loss += found.loss_sum * weight;
        for (id, gradient) in found.gradients {
            let sum = match batch.gradients.remove(&id) {
                None => gradient,
                Some(sum) => sum + gradient,
            };
            batch.gradients.insert(id, sum);
        }
    }
    Ok(Some(batch))
}
