// Axes: B sequences, T positions, H heads, K width of a head, A = H K, R = B T.

//! Causal attention (Vaswani et al. 2017, eq. 1): products over all heads at a time, and between them a softmax that
//! knows the mask.

use crate::matrix::{elem, empty, planes, product, row_of_plane, transposed, units};
use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Heads, and positions of a sequence.
#[derive(Clone, Copy)]
pub struct Heads {
    pub n: usize,
    pub size: usize,
    pub context_len: usize,
}

/// What the backward pass of attention needs.
pub struct Attended {
    /// Queries over the root of K, keys and values, `[B H, T, K]` each.
    parts: [CubeTensor; 3],
    /// The softmax's output, `[B H, T, T]`.
    weights: CubeTensor,
    /// What the heads give, `[R, A]`.
    pub out: CubeTensor,
}

/// Where the element of row `r` and column `j` of `[R, A]` is in `[B H, T, K]`.
#[cube]
fn in_heads(
    r: usize,
    j: usize,
    #[comptime] n_heads: usize,
    #[comptime] size: usize,
    context_len: usize,
) -> usize {
    let sequence = r / context_len;
    let head = j / size;
    ((sequence * n_heads + head) * context_len + r % context_len) * size + j % size
}

#[cube(launch)]
fn split_kernel<E: Float>(
    qkv: &[E],
    bias: &[f32],
    query: &mut [E],
    key: &mut [E],
    value: &mut [E],
    #[comptime] n_heads: usize,
    #[comptime] size: usize,
    context_len: usize,
    scale: f32,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < qkv.len() {
        let a = comptime!(n_heads * size);
        let row = ABSOLUTE_POS / (3 * a);
        let column = ABSOLUTE_POS % (3 * a);
        let part = column / a;
        let x = f32::cast_from(qkv[ABSOLUTE_POS]) + bias[column];
        let to = in_heads(row, column % a, n_heads, size, context_len);
        if part == 0 {
            query[to] = E::cast_from(x * scale);
        } else if part == 1 {
            key[to] = E::cast_from(x);
        } else {
            value[to] = E::cast_from(x);
        }
    }
}

#[cube(launch)]
fn join_kernel<E: Float>(
    query: &[E],
    key: &[E],
    value: &[E],
    qkv: &mut [E],
    #[comptime] n_heads: usize,
    #[comptime] size: usize,
    context_len: usize,
    scale: f32,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < qkv.len() {
        let a = comptime!(n_heads * size);
        let row = ABSOLUTE_POS / (3 * a);
        let column = ABSOLUTE_POS % (3 * a);
        let part = column / a;
        let from = in_heads(row, column % a, n_heads, size, context_len);
        if part == 0 {
            qkv[ABSOLUTE_POS] = E::cast_from(f32::cast_from(query[from]) * scale);
        } else if part == 1 {
            qkv[ABSOLUTE_POS] = key[from];
        } else {
            qkv[ABSOLUTE_POS] = value[from];
        }
    }
}

/// Between `[R, A]` and `[B H, T, K]`, into the heads or out of them.
#[cube(launch)]
fn rearrange_kernel<E: Float>(
    x: &[E],
    out: &mut [E],
    #[comptime] n_heads: usize,
    #[comptime] size: usize,
    context_len: usize,
    #[comptime] into_heads: bool,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let a = comptime!(n_heads * size);
        let row = ABSOLUTE_POS / a;
        let inside = in_heads(row, ABSOLUTE_POS % a, n_heads, size, context_len);
        if comptime!(into_heads) {
            out[inside] = x[ABSOLUTE_POS];
        } else {
            out[ABSOLUTE_POS] = x[inside];
        }
    }
}

#[cube(launch)]
fn softmax_kernel<E: Float>(
    scores: &mut [E],
    rows: usize,
    context_len: usize,
    #[define(E)] _format: ElemType,
) {
    let row = row_of_plane();
    if row >= rows {
        terminate!();
    }
    let first = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let start = row * context_len;
    let visible = row % context_len + 1;
    // Position 0 is visible from everywhere.
    let mut most = f32::cast_from(scores[start]);
    let mut i = first;
    while i < visible {
        most = max(most, f32::cast_from(scores[start + i]));
        i += step;
    }
    let most = plane_max(most);
    let mut sum = 0.0f32;
    i = first;
    while i < visible {
        sum += (f32::cast_from(scores[start + i]) - most).exp();
        i += step;
    }
    let part = 1.0f32 / plane_sum(sum);
    i = first;
    while i < visible {
        let score = f32::cast_from(scores[start + i]);
        scores[start + i] = E::cast_from((score - most).exp() * part);
        i += step;
    }
    while i < context_len {
        scores[start + i] = E::cast_from(0.0f32);
        i += step;
    }
}

#[cube(launch)]
fn of_softmax_kernel<E: Float>(
    weights: &[E],
    gradient: &mut [E],
    rows: usize,
    context_len: usize,
    #[define(E)] _format: ElemType,
) {
    let row = row_of_plane();
    if row >= rows {
        terminate!();
    }
    let first = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let start = row * context_len;
    let visible = row % context_len + 1;
    let mut along = 0.0f32;
    let mut i = first;
    while i < visible {
        along += f32::cast_from(weights[start + i]) * f32::cast_from(gradient[start + i]);
        i += step;
    }
    let along = plane_sum(along);
    i = first;
    while i < visible {
        let weight = f32::cast_from(weights[start + i]);
        let of_weight = f32::cast_from(gradient[start + i]);
        gradient[start + i] = E::cast_from(weight * (of_weight - along));
        i += step;
    }
    while i < context_len {
        gradient[start + i] = E::cast_from(0.0f32);
        i += step;
    }
}

impl Heads {
    fn scale(self) -> f32 {
        (self.size as f32).sqrt().recip()
    }

    fn dims(self, rows: usize) -> [usize; 3] {
        [rows / self.context_len * self.n, self.context_len, self.size]
    }

    fn rearranged(self, x: CubeTensor, rows: usize, into_heads: bool) -> CubeTensor {
        let out = if into_heads {
            empty(&x, &self.dims(rows), x.dtype)
        } else {
            empty(&x, &[rows, self.n * self.size], x.dtype)
        };
        let (count, dim) = units(rows * self.n * self.size);
        let (client, dtype) = (x.client.clone(), elem(x.dtype));
        let (from, into) = (x.into_buffer_arg(), out.clone().into_buffer_arg());
        let Self { n, size, context_len } = self;
        rearrange_kernel::launch(
            &client,
            count,
            dim,
            from,
            into,
            n,
            size,
            context_len,
            into_heads,
            dtype,
        );
        out
    }

    /// What the heads give for queries, keys and values side by side, `[R, 3 A]`, without their bias.
    pub fn forward(self, qkv: CubeTensor, bias: &CubeTensor) -> Attended {
        let [rows, width] = qkv.shape().dims::<2>();
        let Self { n, size, context_len } = self;
        let parts = [(); 3].map(|()| empty(&qkv, &self.dims(rows), qkv.dtype));
        let (client, dtype) = (qkv.client.clone(), elem(qkv.dtype));
        let (count, dim) = units(rows * width);
        let [query, key, value] = parts.clone();
        split_kernel::launch(
            &client,
            count,
            dim,
            qkv.into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            query.clone().into_buffer_arg(),
            key.clone().into_buffer_arg(),
            value.clone().into_buffer_arg(),
            n,
            size,
            context_len,
            self.scale(),
            dtype,
        );
        let weights = product(query, transposed(key));
        let lines = rows * n;
        let (count, dim) = planes(&client, lines);
        let buffer = weights.clone().into_buffer_arg();
        softmax_kernel::launch(&client, count, dim, buffer, lines, context_len, dtype);
        let out = self.rearranged(product(weights.clone(), value), rows, false);
        Attended { parts, weights, out }
    }

    /// The gradient of queries, keys and values side by side, `[R, 3 A]`, from that of the heads' output.
    pub fn backward(self, attended: &Attended, of_out: CubeTensor) -> CubeTensor {
        let [rows, width] = of_out.shape().dims::<2>();
        let Self { n, size, context_len } = self;
        let Attended { parts: [query, key, value], weights, .. } = attended;
        let (client, dtype) = (of_out.client.clone(), elem(of_out.dtype));
        let of_out = self.rearranged(of_out, rows, true);
        let of_value = product(transposed(weights.clone()), of_out.clone());
        let of_scores = product(of_out, transposed(value.clone()));
        let lines = rows * n;
        let (count, dim) = planes(&client, lines);
        let (from, into) = (weights.clone().into_buffer_arg(), of_scores.clone().into_buffer_arg());
        of_softmax_kernel::launch(&client, count, dim, from, into, lines, context_len, dtype);
        let of_query = product(of_scores.clone(), key.clone());
        let of_key = product(transposed(of_scores), query.clone());
        let out = empty(&of_query, &[rows, 3 * width], of_query.dtype);
        let (count, dim) = units(rows * 3 * width);
        join_kernel::launch(
            &client,
            count,
            dim,
            of_query.into_buffer_arg(),
            of_key.into_buffer_arg(),
            of_value.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            n,
            size,
            context_len,
            self.scale(),
            dtype,
        );
        out
    }
}
