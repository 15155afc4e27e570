//! Sums over rows, in two passes whose order is fixed.

use crate::matrix::{UNITS, elem, empty, units};
use crate::norm::Normed;
use burn_backend::{DType, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Rows that a cube adds up in the first pass, its columns, and the units that share a column's rows.
const CHUNK: usize = 512;
const COLUMNS: u32 = 32;
const SHARES: u32 = UNITS / COLUMNS;

/// The sum over the units of a column, for the first of them.
#[cube]
fn sum_of_shares(share: f32) -> f32 {
    let mut shares = Shared::<[f32]>::new_slice(UNITS as usize);
    let at = (UNIT_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    shares[at] = share;
    sync_cube();
    let mut sum = 0.0f32;
    if UNIT_POS_Y == 0 {
        let mut other = UNIT_POS_X;
        while other < CUBE_DIM {
            sum += shares[other as usize];
            other += CUBE_DIM_X;
        }
    }
    sync_cube();
    sum
}

#[cube(launch)]
fn partial_kernel<E: Float>(
    x: &[E],
    partial: &mut [f32],
    rows: usize,
    width: usize,
    #[define(E)] _format: ElemType,
) {
    let column = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut sum = 0.0f32;
    if column < width {
        let mut row = part * CHUNK + UNIT_POS_Y as usize;
        let end = min((part + 1) * CHUNK, rows);
        while row < end {
            sum += f32::cast_from(x[row * width + column]);
            row += CUBE_DIM_Y as usize;
        }
    }
    let total = sum_of_shares(sum);
    if column < width && UNIT_POS_Y == 0 {
        partial[part * width + column] = total;
    }
}

#[cube(launch)]
fn partial_norm_kernel<E: Float>(
    x: &[f32],
    moments: &[f32],
    of_out: &[E],
    partial_gain: &mut [f32],
    partial_bias: &mut [f32],
    rows: usize,
    width: usize,
    #[define(E)] _format: ElemType,
) {
    let column = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut of_gain = 0.0f32;
    let mut of_bias = 0.0f32;
    if column < width {
        let mut row = part * CHUNK + UNIT_POS_Y as usize;
        let end = min((part + 1) * CHUNK, rows);
        while row < end {
            let slope = f32::cast_from(of_out[row * width + column]);
            of_gain += slope * (x[row * width + column] - moments[2 * row]) * moments[2 * row + 1];
            of_bias += slope;
            row += CUBE_DIM_Y as usize;
        }
    }
    let of_gain = sum_of_shares(of_gain);
    let of_bias = sum_of_shares(of_bias);
    if column < width && UNIT_POS_Y == 0 {
        partial_gain[part * width + column] = of_gain;
        partial_bias[part * width + column] = of_bias;
    }
}

#[cube(launch)]
fn add_parts_kernel<E: Float>(
    parts: &[E],
    sum: &mut [f32],
    n_parts: usize,
    #[define(E)] _format: ElemType,
) {
    let n = sum.len();
    if ABSOLUTE_POS < n {
        let mut value = sum[ABSOLUTE_POS];
        let mut part = 0usize;
        while part < n_parts {
            value += f32::cast_from(parts[part * n + ABSOLUTE_POS]);
            part += 1;
        }
        sum[ABSOLUTE_POS] = value;
    }
}

/// Adds tensors of `sum`'s size, the first of which lie one after the other in `parts`, to `sum` in f32.
pub fn add_parts(sum: &CubeTensor, parts: CubeTensor, n_parts: usize) {
    let n = sum.shape().num_elements();
    let (count, dim) = units(n);
    let (client, dtype) = (parts.client.clone(), elem(parts.dtype));
    let (from, into) = (parts.into_buffer_arg(), sum.clone().into_buffer_arg());
    add_parts_kernel::launch(&client, count, dim, from, into, n_parts, dtype);
}

fn grid(rows: usize, width: usize) -> (usize, CubeCount, CubeDim) {
    let parts = rows.div_ceil(CHUNK);
    let columns = width.div_ceil(COLUMNS as usize) as u32;
    (parts, CubeCount::Static(columns, parts as u32, 1), CubeDim::new_2d(COLUMNS, SHARES))
}

/// Adds the sum over the rows of `x`, `[R, C]`, to `sum`.
pub fn add_sum_of_rows(sum: &CubeTensor, x: &CubeTensor) {
    let [rows, width] = x.shape().dims::<2>();
    let (parts, count, dim) = grid(rows, width);
    let partial = empty(x, &[parts, width], DType::F32);
    let (from, into) = (x.clone().into_buffer_arg(), partial.clone().into_buffer_arg());
    partial_kernel::launch(&x.client, count, dim, from, into, rows, width, elem(x.dtype));
    add_parts(sum, partial, parts);
}

/// Adds the gradients of a norm's gain and bias to theirs.
pub fn add_sums_of_rows_of_norm(
    normed: &Normed,
    of_out: &CubeTensor,
    of_gain: &CubeTensor,
    of_bias: &CubeTensor,
) {
    let [rows, width] = of_out.shape().dims::<2>();
    let (parts, count, dim) = grid(rows, width);
    let partial_gain = empty(of_out, &[parts, width], DType::F32);
    let partial_bias = empty(of_out, &[parts, width], DType::F32);
    partial_norm_kernel::launch(
        &of_out.client,
        count,
        dim,
        normed.stream.clone().into_buffer_arg(),
        normed.moments.clone().into_buffer_arg(),
        of_out.clone().into_buffer_arg(),
        partial_gain.clone().into_buffer_arg(),
        partial_bias.clone().into_buffer_arg(),
        rows,
        width,
        elem(of_out.dtype),
    );
    add_parts(of_gain, partial_gain, parts);
    add_parts(of_bias, partial_bias, parts);
}

#[cube(launch)]
fn squares_kernel(x: &[f32], partial: &mut [f32], at: usize, #[comptime] each: usize) {
    let plane = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let step = CUBE_DIM_X as usize;
    let end = min((plane + 1) * each, x.len());
    let mut sum = 0.0f32;
    let mut i = plane * each + UNIT_POS_X as usize;
    while i < end {
        sum += x[i] * x[i];
        i += step;
    }
    let sum = plane_sum(sum);
    if UNIT_POS_X == 0 && at + plane < partial.len() && plane * each < x.len() {
        partial[at + plane] = sum;
    }
}

/// Elements whose squares a plane adds up.
const SQUARES: usize = 4096;

/// Sums of squares that add up to that of all tensors.
pub fn sums_of_squares(tensors: &[CubeTensor]) -> Option<CubeTensor> {
    let n = |x: &CubeTensor| x.shape().num_elements().div_ceil(SQUARES);
    let partial = empty(tensors.first()?, &[tensors.iter().map(n).sum()], DType::F32);
    let mut at = 0;
    for x in tensors {
        let (count, dim) = crate::matrix::planes(&x.client, n(x));
        let (from, into) = (x.clone().into_buffer_arg(), partial.clone().into_buffer_arg());
        squares_kernel::launch(&x.client, count, dim, from, into, at, SQUARES);
        at += n(x);
    }
    Some(partial)
}
