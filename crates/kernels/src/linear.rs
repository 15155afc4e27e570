//! What goes with matrix products: biases and residual sums.

use crate::vector::vectorized;

/// Every row of `out` becomes the bias.
pub fn fill_rows(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.copy_from_slice(bias);
    }
}

/// Every row of `out` becomes that of `x` with the bias.
pub fn add_rows(out: &mut [f32], x: &[f32], bias: &[f32]) {
    let width = bias.len();
    vectorized(|| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for i in 0..width {
                out[i] = x[i] + bias[i];
            }
        }
    });
}

/// Adds the sum of the rows.
pub fn add_sum_of_rows(sum: &mut [f32], rows: &[f32]) {
    let width = sum.len();
    vectorized(|| {
        for row in rows.chunks_exact(width) {
            for i in 0..width {
                sum[i] += row[i];
            }
        }
    });
}
