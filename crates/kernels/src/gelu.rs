//! GELU in the tanh approximation (Hendrycks and Gimpel 2016, section 2), with the bias before it.

use crate::vector::{exp, vectorized};

const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715 * SLOPE;

/// `x` gets the bias added, and `out` becomes its GELU: x times the logistic function of 2 z.
pub fn forward(x: &mut [f32], bias: &[f32], out: &mut [f32]) {
    let width = bias.len();
    vectorized(|| {
        for (x, out) in x.chunks_exact_mut(width).zip(out.chunks_exact_mut(width)) {
            for i in 0..width {
                let value = x[i] + bias[i];
                x[i] = value;
                out[i] = value / (1.0 + exp(-value * (SLOPE + CUBIC * value * value)));
            }
        }
    });
}

/// `gradient` of the output becomes that of the input, and is added to the bias's.
pub fn backward(x: &[f32], gradient: &mut [f32], of_bias: &mut [f32]) {
    let width = of_bias.len();
    vectorized(|| {
        for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
            for i in 0..width {
                let value = x[i];
                let square = value * value;
                let gate = 1.0 / (1.0 + exp(-value * (SLOPE + CUBIC * square)));
                let slope = gate + value * gate * (1.0 - gate) * (SLOPE + 3.0 * CUBIC * square);
                let found = gradient[i] * slope;
                gradient[i] = found;
                of_bias[i] += found;
            }
        }
    });
}
