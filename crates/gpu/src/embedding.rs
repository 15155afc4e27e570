// Axes: B sequences, T positions, R = B T, C width, V vocabulary.

//! Looking up tokens and positions. Rows of one token are added up in an order that the host has sorted, so that
//! gradients are the same every time.

use crate::matrix::{empty, integers, units};
use burn_backend::{DType, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Rows that a unit adds up in the first pass.
const SEGMENT: usize = 32;

#[cube(launch)]
fn forward_kernel(
    tokens: &[u32],
    of_token: &[f32],
    of_position: &[f32],
    out: &mut [f32],
    #[comptime] width: usize,
    context_len: usize,
) {
    if ABSOLUTE_POS < out.len() {
        let row = ABSOLUTE_POS / width;
        let column = ABSOLUTE_POS % width;
        let token = tokens[row] as usize;
        let position = row % context_len;
        out[ABSOLUTE_POS] =
            of_token[token * width + column] + of_position[position * width + column];
    }
}

/// The residual stream before the first block, `[R, C]`.
pub fn forward(
    tokens: &CubeTensor,
    of_token: &CubeTensor,
    of_position: &CubeTensor,
    context_len: usize,
) -> CubeTensor {
    let rows = tokens.shape().num_elements();
    let width = of_token.shape().dims::<2>()[1];
    let out = empty(of_token, &[rows, width], DType::F32);
    let (count, dim) = units(rows * width);
    forward_kernel::launch(
        &tokens.client,
        count,
        dim,
        tokens.clone().into_buffer_arg(),
        of_token.clone().into_buffer_arg(),
        of_position.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        width,
        context_len,
    );
    out
}

#[cube(launch)]
fn of_positions_kernel(
    gradient: &[f32],
    sum: &mut [f32],
    n_sequences: usize,
    context_len: usize,
    width: usize,
) {
    if ABSOLUTE_POS < context_len * width {
        let mut value = sum[ABSOLUTE_POS];
        let mut sequence = 0usize;
        while sequence < n_sequences {
            value += gradient[sequence * context_len * width + ABSOLUTE_POS];
            sequence += 1;
        }
        sum[ABSOLUTE_POS] = value;
    }
}

/// Sums the rows `order[bounds[s]..bounds[s + 1]]` of `x` into row s of `out`, or adds them to row `names[s]`.
#[cube(launch)]
fn segments_kernel(
    x: &[f32],
    order: &[u32],
    bounds: &[u32],
    names: &[u32],
    out: &mut [f32],
    n_segments: usize,
    #[comptime] width: usize,
    #[comptime] adds: bool,
) {
    if ABSOLUTE_POS < n_segments * width {
        let segment = ABSOLUTE_POS / width;
        let column = ABSOLUTE_POS % width;
        let mut i = bounds[segment] as usize;
        let end = bounds[segment + 1] as usize;
        let mut value = 0.0f32;
        while i < end {
            let row = if comptime!(adds) { i } else { order[i] as usize };
            value += x[row * width + column];
            i += 1;
        }
        if comptime!(adds) {
            out[names[segment] as usize * width + column] += value;
        } else {
            out[ABSOLUTE_POS] = value;
        }
    }
}

/// The rows of each token in segments of some, and the segments of each token.
struct Segments {
    /// Rows by token, and where each segment of them begins.
    order: Vec<u32>,
    rows: Vec<u32>,
    /// Tokens, and where the segments of each begin.
    tokens: Vec<u32>,
    starts: Vec<u32>,
}

impl Segments {
    fn of(tokens: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
        order.sort_by_key(|row| tokens[*row as usize]);
        let mut found =
            Self { order: Vec::new(), rows: vec![0], tokens: Vec::new(), starts: vec![0] };
        for rows in order.chunk_by(|a, b| tokens[*a as usize] == tokens[*b as usize]) {
            for segment in rows.chunks(SEGMENT) {
                let end = found.rows.last().unwrap_or(&0) + segment.len() as u32;
                found.rows.push(end);
            }
            found.tokens.push(tokens[rows[0] as usize]);
            found.starts.push(found.rows.len() as u32 - 1);
        }
        found.order = order;
        found
    }
}

/// Adds the gradient of the stream, `[R, C]`, to the embeddings' gradients.
pub fn backward(
    tokens: &[u32],
    gradient: &CubeTensor,
    of_token: &CubeTensor,
    of_position: &CubeTensor,
    context_len: usize,
) {
    let width = of_token.shape().dims::<2>()[1];
    let client = gradient.client.clone();
    let (count, dim) = units(context_len * width);
    of_positions_kernel::launch(
        &client,
        count,
        dim,
        gradient.clone().into_buffer_arg(),
        of_position.clone().into_buffer_arg(),
        tokens.len() / context_len,
        context_len,
        width,
    );
    let Segments { order, rows, tokens, starts } = Segments::of(tokens);
    let n = rows.len() - 1;
    let partial = empty(gradient, &[n, width], DType::F32);
    let [order, rows] = [order, rows].map(|values| integers(gradient, &values));
    let n_tokens = tokens.len();
    let [names, starts] = [tokens, starts].map(|values| integers(gradient, &values));
    let (count, dim) = units(n * width);
    segments_kernel::launch(
        &client,
        count,
        dim,
        gradient.clone().into_buffer_arg(),
        order.clone().into_buffer_arg(),
        rows.into_buffer_arg(),
        names.clone().into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        n,
        width,
        false,
    );
    let (count, dim) = units(n_tokens * width);
    segments_kernel::launch(
        &client,
        count,
        dim,
        partial.into_buffer_arg(),
        order.into_buffer_arg(),
        starts.into_buffer_arg(),
        names.into_buffer_arg(),
        of_token.clone().into_buffer_arg(),
        n_tokens,
        width,
        true,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_token_are_in_segments_of_it() {
        let tokens: Vec<u32> = (0..100).map(|i| if i < 70 { 7 } else { i % 3 }).collect();
        let Segments { order, rows, tokens: names, starts } = Segments::of(&tokens);
        assert_eq!(names, [0, 1, 2, 7]);
        assert_eq!(starts, [0, 1, 2, 3, 6]);
        assert_eq!(rows, [0, 10, 20, 30, 62, 94, 100]);
        let of = |k: usize| order[rows[k] as usize..rows[k + 1] as usize].iter();
        assert!(of(0).all(|row| tokens[*row as usize] == 0));
        assert!((3..6).flat_map(of).copied().eq(0..70));
    }
}
