//! Layer norm (Ba et al. 2016, eq. 4) over the rows of a matrix.

use crate::vector::{sum, sum2, sum3, vectorized};

/// Mean and reciprocal standard deviation of each row.
#[derive(Clone, Default)]
pub struct Moments {
    rows: Vec<[f32; 2]>,
}

/// `out` becomes the norm of `x`, both `[rows, width]`.
pub fn forward(
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
    eps: f32,
    moments: &mut Moments,
    out: &mut [f32],
) {
    let width = gain.len();
    moments.rows.clear();
    vectorized(|| {
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum(x, |x| x) / width as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for i in 0..width {
                out[i] = (x[i] - mean) * scale * gain[i] + bias[i];
            }
            moments.rows.push([mean, scale]);
        }
    });
}

/// Adds the gradient of the norm's input to `of_x`, and those of gain and bias to theirs.
pub fn backward(
    x: &[f32],
    gain: &[f32],
    moments: &Moments,
    of_out: &[f32],
    of_x: &mut [f32],
    of_gain: &mut [f32],
    of_bias: &mut [f32],
) {
    let width = gain.len();
    let rows = x.chunks_exact(width).zip(of_out.chunks_exact(width)).zip(&moments.rows);
    vectorized(|| {
        for (((x, of_out), [mean, scale]), of_x) in rows.zip(of_x.chunks_exact_mut(width)) {
            let (of_gain, of_bias) = (&mut of_gain[..width], &mut of_bias[..width]);
            for i in 0..width {
                of_gain[i] += of_out[i] * (x[i] - mean) * scale;
                of_bias[i] += of_out[i];
            }
            let plain = sum2(of_out, gain, |g, gain| g * gain) / width as f32;
            let along = sum3(of_out, gain, x, |g, gain, x| g * gain * (x - mean));
            let along = along * scale / width as f32;
            for i in 0..width {
                let normed = (x[i] - mean) * scale;
                of_x[i] += scale * (of_out[i] * gain[i] - plain - normed * along);
            }
        }
    });
}
