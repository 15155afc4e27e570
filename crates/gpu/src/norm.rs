//! Layer norm (Ba et al. 2016, eq. 4) of the rows of the residual stream, with the addition to the stream before it.

use crate::matrix::{elem, empty, planes, row_of_plane};
use crate::sums::add_sums_of_rows_of_norm;
use burn_backend::{DType, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// What the backward pass of a norm needs.
pub struct Normed {
    /// The norm's input, `[R, C]`.
    pub stream: CubeTensor,
    /// Mean and reciprocal standard deviation of each row, `[R, 2]`.
    pub moments: CubeTensor,
    /// The norm's output, `[R, C]`, in the compute precision.
    pub out: CubeTensor,
}

#[cube(launch)]
fn forward_kernel<E: Float>(
    x: &[f32],
    branch: &[E],
    branch_bias: &[f32],
    gain: &[f32],
    bias: &[f32],
    stream: &mut [f32],
    out: &mut [E],
    moments: &mut [f32],
    rows: usize,
    width: usize,
    eps: f32,
    #[comptime] adds: bool,
    #[define(E)] _format: ElemType,
) {
    let row = row_of_plane();
    if row >= rows {
        terminate!();
    }
    let first = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let start = row * width;
    let mut sum = 0.0f32;
    let mut i = first;
    while i < width {
        let mut value = x[start + i];
        if comptime!(adds) {
            value += f32::cast_from(branch[start + i]) + branch_bias[i];
            stream[start + i] = value;
        }
        sum += value;
        i += step;
    }
    let mean = plane_sum(sum) / f32::cast_from(width as u32);
    let mut squares = 0.0f32;
    i = first;
    while i < width {
        let value = if comptime!(adds) { stream[start + i] } else { x[start + i] };
        squares += (value - mean) * (value - mean);
        i += step;
    }
    let variance = plane_sum(squares) / f32::cast_from(width as u32);
    let scale = 1.0f32 / (variance + eps).sqrt();
    i = first;
    while i < width {
        let value = if comptime!(adds) { stream[start + i] } else { x[start + i] };
        out[start + i] = E::cast_from((value - mean) * scale * gain[i] + bias[i]);
        i += step;
    }
    if first == 0 {
        moments[2 * row] = mean;
        moments[2 * row + 1] = scale;
    }
}

/// A branch that is added to the stream: its output without the bias, `[R, C]` in the compute precision, and the
/// bias.
pub struct Branch {
    pub out: CubeTensor,
    pub bias: CubeTensor,
}

/// The norm of the stream `x`, or of `x` with a branch added.
pub fn forward(
    x: CubeTensor,
    branch: Option<Branch>,
    gain: &CubeTensor,
    bias: &CubeTensor,
    eps: f32,
    dtype: DType,
) -> Normed {
    let dims = x.shape().dims::<2>();
    let [rows, width] = dims;
    let moments = empty(&x, &[rows, 2], DType::F32);
    let out = empty(&x, &dims, dtype);
    let adds = branch.is_some();
    // Where nothing is added, the kernel reads and writes none of these.
    let none = |dtype| empty(&x, &[1], dtype);
    let stream = if adds { empty(&x, &dims, DType::F32) } else { none(DType::F32) };
    let branch = branch.unwrap_or_else(|| Branch { out: none(dtype), bias: none(DType::F32) });
    let client = x.client.clone();
    let (count, dim) = planes(&client, rows);
    forward_kernel::launch(
        &client,
        count,
        dim,
        x.clone().into_buffer_arg(),
        branch.out.into_buffer_arg(),
        branch.bias.into_buffer_arg(),
        gain.clone().into_buffer_arg(),
        bias.clone().into_buffer_arg(),
        stream.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        moments.clone().into_buffer_arg(),
        rows,
        width,
        eps,
        adds,
        elem(dtype),
    );
    Normed { stream: if adds { stream } else { x }, moments, out }
}

#[cube(launch)]
fn backward_kernel<E: Float>(
    x: &[f32],
    moments: &[f32],
    gain: &[f32],
    of_out: &[E],
    of_stream: &mut [f32],
    narrowed: &mut [E],
    rows: usize,
    width: usize,
    #[comptime] adds: bool,
    #[define(E)] _format: ElemType,
) {
    let row = row_of_plane();
    if row >= rows {
        terminate!();
    }
    let first = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let start = row * width;
    let mean = moments[2 * row];
    let scale = moments[2 * row + 1];
    let mut plain = 0.0f32;
    let mut along = 0.0f32;
    let mut i = first;
    while i < width {
        let slope = f32::cast_from(of_out[start + i]) * gain[i];
        plain += slope;
        along += slope * (x[start + i] - mean) * scale;
        i += step;
    }
    plain = plane_sum(plain) / f32::cast_from(width as u32);
    along = plane_sum(along) / f32::cast_from(width as u32);
    i = first;
    while i < width {
        let slope = f32::cast_from(of_out[start + i]) * gain[i];
        let normed = (x[start + i] - mean) * scale;
        let mut value = scale * (slope - plain - normed * along);
        if comptime!(adds) {
            value += of_stream[start + i];
        }
        of_stream[start + i] = value;
        narrowed[start + i] = E::cast_from(value);
        i += step;
    }
}

/// Gradients of gain and bias, to which the norm's are added.
pub struct OfNorm<'a> {
    pub gain: &'a CubeTensor,
    pub bias: &'a CubeTensor,
}

/// Adds the gradient of the norm's input to that of the stream after it, which is zero where `None`; the result in f32
/// and in the compute precision.
pub fn backward(
    normed: &Normed,
    gain: &CubeTensor,
    of_out: CubeTensor,
    of_stream: Option<CubeTensor>,
    of_norm: OfNorm<'_>,
) -> [CubeTensor; 2] {
    let [rows, width] = normed.stream.shape().dims::<2>();
    add_sums_of_rows_of_norm(normed, &of_out, of_norm.gain, of_norm.bias);
    let dtype = of_out.dtype;
    let narrowed = empty(&of_out, &[rows, width], dtype);
    let adds = of_stream.is_some();
    let of_stream = of_stream.unwrap_or_else(|| empty(&of_out, &[rows, width], DType::F32));
    let client = of_out.client.clone();
    let (count, dim) = planes(&client, rows);
    backward_kernel::launch(
        &client,
        count,
        dim,
        normed.stream.clone().into_buffer_arg(),
        normed.moments.clone().into_buffer_arg(),
        gain.clone().into_buffer_arg(),
        of_out.into_buffer_arg(),
        of_stream.clone().into_buffer_arg(),
        narrowed.clone().into_buffer_arg(),
        rows,
        width,
        adds,
        elem(dtype),
    );
    [of_stream, narrowed]
}
