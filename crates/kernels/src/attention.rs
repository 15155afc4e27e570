//! Causal attention (Vaswani et al. 2017, eq. 1) in tiles of rows: scores are in memory for one tile of
//! one head at a time, and the backward pass makes them again.

use crate::matmul::{Matrix, Product};
use crate::vector::{exp, largest, sum, sum2, vectorized};

/// Positions in a tile.
const TILE: usize = 64;

/// Where the heads of one sequence lie.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Heads.
    pub n: usize,
    /// Coordinates of a head.
    pub size: usize,
    /// Positions of the sequence.
    pub context_len: usize,
}

impl Heads {
    fn width(self) -> usize {
        self.n * self.size
    }

    fn scale(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// Queries (0), keys (1) or values (2) of a head, of positions `from..to`.
    fn part(self, qkv: &[f32], part: usize, head: usize, from: usize, to: usize) -> Matrix<'_> {
        let step = 3 * self.width();
        let first = from * step + self.offset(part, head);
        Matrix::part(&qkv[first..], to - from, self.size, step)
    }

    fn offset(self, part: usize, head: usize) -> usize {
        part * self.width() + head * self.size
    }

    /// The same head's coordinates of what the heads give.
    fn given(self, out: &[f32], head: usize, from: usize, to: usize) -> Matrix<'_> {
        let first = from * self.width() + head * self.size;
        Matrix::part(&out[first..], to - from, self.size, self.width())
    }

    fn tiles(self) -> impl Iterator<Item = (usize, usize)> {
        let end = self.context_len;
        (0..end).step_by(TILE).map(move |from| (from, end.min(from + TILE)))
    }
}

/// What the heads give for one sequence, `out` `[T, width]`, from `qkv` `[T, 3 width]`; `log_sums`
/// `[heads, T]` is kept for the backward pass.
pub fn forward(
    heads: Heads,
    qkv: &[f32],
    scores: &mut Vec<f32>,
    log_sums: &mut [f32],
    out: &mut [f32],
) {
    for head in 0..heads.n {
        for (from, to) in heads.tiles() {
            let rows = to - from;
            scores.resize(rows * to, 0.0);
            Product::new(scores, rows, to).set(
                heads.scale(),
                heads.part(qkv, 0, head, from, to),
                heads.part(qkv, 1, head, 0, to).t(),
            );
            let log_sums = &mut log_sums[head * heads.context_len + from..][..rows];
            vectorized(|| {
                for (i, row) in scores.chunks_exact_mut(to).enumerate() {
                    let (seen, hidden) = row.split_at_mut(from + i + 1);
                    let most = largest(seen);
                    for x in seen.iter_mut() {
                        *x = exp(*x - most);
                    }
                    let total = sum(seen, |x| x);
                    for x in seen {
                        *x *= 1.0 / total;
                    }
                    hidden.fill(0.0);
                    log_sums[i] = most + total.ln();
                }
            });
            let first = from * heads.width() + head * heads.size;
            Product::part(&mut out[first..], rows, heads.size, heads.width()).set(
                1.0,
                Matrix::new(scores, rows, to),
                heads.part(qkv, 2, head, 0, to),
            );
        }
    }
}

/// Room for a tile's scores and their gradients.
#[derive(Clone, Default)]
pub struct Tiles {
    pub scores: Vec<f32>,
    gradients: Vec<f32>,
}

/// The gradient of one sequence's `qkv`, from that of what the heads gave.
pub fn backward(
    heads: Heads,
    qkv: &[f32],
    log_sums: &[f32],
    out: &[f32],
    of_out: &[f32],
    tiles: &mut Tiles,
    of_qkv: &mut [f32],
) {
    let step = 3 * heads.width();
    of_qkv.fill(0.0);
    for head in 0..heads.n {
        for (from, to) in heads.tiles() {
            let rows = to - from;
            let Tiles { scores, gradients } = tiles;
            scores.resize(rows * to, 0.0);
            gradients.resize(rows * to, 0.0);
            let (queries, keys) =
                (heads.part(qkv, 0, head, from, to), heads.part(qkv, 1, head, 0, to));
            let of_given = heads.given(of_out, head, from, to);
            Product::new(scores, rows, to).set(heads.scale(), queries, keys.t());
            Product::new(gradients, rows, to).set(
                1.0,
                of_given,
                heads.part(qkv, 2, head, 0, to).t(),
            );
            let log_sums = &log_sums[head * heads.context_len + from..][..rows];
            vectorized(|| {
                let both = scores.chunks_exact_mut(to).zip(gradients.chunks_exact_mut(to));
                for (i, (row, of_row)) in both.enumerate() {
                    let place = (from + i) * heads.width() + head * heads.size;
                    let given = &out[place..][..heads.size];
                    let along = sum2(given, &of_out[place..][..heads.size], |a, b| a * b);
                    let n_seen = from + i + 1;
                    let (seen, of_seen) = (&mut row[..n_seen], &mut of_row[..n_seen]);
                    for j in 0..n_seen {
                        let weight = exp(seen[j] - log_sums[i]);
                        seen[j] = weight;
                        of_seen[j] = weight * (of_seen[j] - along) * heads.scale();
                    }
                    row[n_seen..].fill(0.0);
                    of_row[n_seen..].fill(0.0);
                }
            });
            let (weights, of_scores) =
                (Matrix::new(scores, rows, to), Matrix::new(gradients, rows, to));
            let mut into = |part: usize, from: usize, to: usize, a: Matrix<'_>, b: Matrix<'_>| {
                let first = from * step + heads.offset(part, head);
                Product::part(&mut of_qkv[first..], to - from, heads.size, step).add(a, b);
            };
            into(0, from, to, of_scores, keys);
            into(1, 0, to, of_scores.t(), queries);
            into(2, 0, to, weights.t(), of_given);
        }
    }
}
