//! The output head with softmax and cross-entropy, over rows in chunks.

use crate::matmul::{Matrix, Product};
use crate::vector::{exp, largest, sum, vectorized};

/// Logits in memory at a time, for rows of any number of words.
const CHUNK_ELEMENTS: usize = 1 << 20;

/// Rows in a chunk.
pub fn rows_at_once(n_vocab: usize) -> usize {
    (CHUNK_ELEMENTS / n_vocab).clamp(32, 1 << 10)
}

/// Logits of rows of the last norm's output.
pub fn logits(hidden: &[f32], weight: &[f32], width: usize, multiplier: f32, out: &mut [f32]) {
    let (rows, n_vocab) = (hidden.len() / width, weight.len() / width);
    Product::new(out, rows, n_vocab).set(
        multiplier,
        Matrix::new(hidden, rows, width),
        Matrix::new(weight, n_vocab, width).t(),
    );
}

/// Gradients that the head gives.
pub struct HeadGradients<'a> {
    /// Factor on the summed loss.
    pub weight_of_row: f64,
    /// Becomes that of the hidden states.
    pub of_hidden: &'a mut [f32],
    /// Gets that of the head's matrix added.
    pub of_weight: &'a mut [f32],
}

/// Sum over rows of the cross-entropy in nats; with its gradients where they are asked for.
pub fn loss(
    hidden: &[f32],
    weight: &[f32],
    width: usize,
    multiplier: f64,
    targets: &[u32],
    chunk: &mut Vec<f32>,
    mut gradients: Option<HeadGradients<'_>>,
) -> f64 {
    let n_vocab = weight.len() / width;
    let step = rows_at_once(n_vocab);
    let mut total = 0.0;
    for (i, (rows, targets)) in hidden.chunks(step * width).zip(targets.chunks(step)).enumerate() {
        let n = targets.len();
        chunk.resize(n * n_vocab, 0.0);
        logits(rows, weight, width, multiplier as f32, chunk);
        let scale = gradients.as_ref().map(|wanted| (multiplier * wanted.weight_of_row) as f32);
        total += vectorized(|| {
            let mut total = 0.0;
            for (row, target) in chunk.chunks_exact_mut(n_vocab).zip(targets) {
                total += f64::from(cross_entropy(row, *target as usize, scale));
            }
            total
        });
        if let Some(wanted) = &mut gradients {
            let of_logits = Matrix::new(chunk, n, n_vocab);
            let of_hidden = &mut wanted.of_hidden[i * step * width..][..n * width];
            Product::new(of_hidden, n, width).set(
                1.0,
                of_logits,
                Matrix::new(weight, n_vocab, width),
            );
            Product::new(wanted.of_weight, n_vocab, width)
                .add(of_logits.t(), Matrix::new(rows, n, width));
        }
    }
    total
}

/// A row's loss; the row becomes its gradient times `scale`, where one is given.
#[inline(always)]
fn cross_entropy(row: &mut [f32], target: usize, scale: Option<f32>) -> f32 {
    let most = largest(row);
    let of_target = row[target] - most;
    let Some(scale) = scale else {
        return sum(row, |x| exp(x - most)).ln() - of_target;
    };
    for x in row.iter_mut() {
        *x = exp(*x - most);
    }
    let total = sum(row, |x| x);
    for x in row.iter_mut() {
        *x *= scale / total;
    }
    row[target] -= scale;
    total.ln() - of_target
}
