//! GELU in the tanh approximation (Hendrycks and Gimpel 2016, section 2), with the bias before it.

use crate::matrix::{elem, empty, units};
use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715 * SLOPE;

#[cube]
fn gate(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (x * (-SLOPE - CUBIC * x * x)).exp())
}

#[cube(launch)]
fn forward_kernel<E: Float>(
    x: &[E],
    bias: &[f32],
    out: &mut [E],
    #[comptime] width: usize,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let value = f32::cast_from(x[ABSOLUTE_POS]) + bias[ABSOLUTE_POS % width];
        out[ABSOLUTE_POS] = E::cast_from(value * gate(value));
    }
}

#[cube(launch)]
fn backward_kernel<E: Float>(
    x: &[E],
    bias: &[f32],
    gradient: &mut [E],
    #[comptime] width: usize,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < gradient.len() {
        let value = f32::cast_from(x[ABSOLUTE_POS]) + bias[ABSOLUTE_POS % width];
        let square = value * value;
        let gate = gate(value);
        let slope = gate + value * gate * (1.0f32 - gate) * (SLOPE + 3.0f32 * CUBIC * square);
        gradient[ABSOLUTE_POS] = E::cast_from(f32::cast_from(gradient[ABSOLUTE_POS]) * slope);
    }
}

/// GELU of `x` plus the bias, `x` `[R, F]`.
pub fn forward(x: &CubeTensor, bias: &CubeTensor) -> CubeTensor {
    let dims = x.shape().dims::<2>();
    let out = empty(x, &dims, x.dtype);
    let (count, dim) = units(dims[0] * dims[1]);
    let (from, bias) = (x.clone().into_buffer_arg(), bias.clone().into_buffer_arg());
    let into = out.clone().into_buffer_arg();
    forward_kernel::launch(&x.client, count, dim, from, bias, into, dims[1], elem(x.dtype));
    out
}

/// `gradient` of the output becomes that of the input.
pub fn backward(x: &CubeTensor, bias: &CubeTensor, gradient: &CubeTensor) {
    let dims = x.shape().dims::<2>();
    let (count, dim) = units(dims[0] * dims[1]);
    let (from, bias) = (x.clone().into_buffer_arg(), bias.clone().into_buffer_arg());
    let into = gradient.clone().into_buffer_arg();
    backward_kernel::launch(&x.client, count, dim, from, bias, into, dims[1], elem(x.dtype));
}
