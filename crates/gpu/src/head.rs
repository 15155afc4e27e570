// Axes: R rows (sequences times positions), C width, V vocabulary.

//! Softmax and cross-entropy of rows of logits.

use crate::matrix::{elem, planes, row_of_plane};
use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

#[cube(launch)]
fn cross_entropy_kernel<E: Float>(
    logits: &mut [E],
    targets: &[u32],
    losses: &mut [f32],
    first_row: usize,
    rows: usize,
    n_vocab: usize,
    stride: usize,
    multiplier: f32,
    scale: f32,
    #[comptime] gradients: bool,
    #[define(E)] _format: ElemType,
) {
    let row = row_of_plane();
    if row >= rows {
        terminate!();
    }
    let first = UNIT_POS_X as usize;
    let step = CUBE_DIM_X as usize;
    let start = row * stride;
    let mut most = f32::cast_from(logits[start]) * multiplier;
    let mut i = first;
    while i < n_vocab {
        most = max(most, f32::cast_from(logits[start + i]) * multiplier);
        i += step;
    }
    let most = plane_max(most);
    let mut sum = 0.0f32;
    i = first;
    while i < n_vocab {
        sum += (f32::cast_from(logits[start + i]) * multiplier - most).exp();
        i += step;
    }
    let sum = plane_sum(sum);
    let target = targets[first_row + row] as usize;
    // The unit that goes on to overwrite the target's logit.
    if target % step == first {
        let of_target = f32::cast_from(logits[start + target]) * multiplier;
        losses[first_row + row] = sum.ln() + most - of_target;
    }
    if comptime!(gradients) {
        i = first;
        while i < n_vocab {
            let logit = f32::cast_from(logits[start + i]) * multiplier;
            let mut slope = (logit - most).exp() / sum;
            if i == target {
                slope -= 1.0f32;
            }
            logits[start + i] = E::cast_from(slope * scale);
            i += step;
        }
        while i < stride {
            logits[start + i] = E::cast_from(0.0f32);
            i += step;
        }
    }
}

/// Rows of a batch whose logits are in memory.
pub struct Rows<'a> {
    /// Products of hidden states and the head's weight, `[rows, V]` or with columns of no word after the words';
    /// logits are these times a multiplier.
    pub products: &'a CubeTensor,
    /// V.
    pub n_vocab: usize,
    /// Targets of the whole batch, `[R]`.
    pub targets: &'a CubeTensor,
    /// Which row of the batch the first one is.
    pub first: usize,
}

impl Rows<'_> {
    /// Puts each row's cross-entropy into its place in `losses`, `[R]`. With the weight of a row's loss, `products`
    /// become the gradient of themselves.
    pub fn cross_entropy(&self, multiplier: f32, weight: Option<f32>, losses: &CubeTensor) {
        let [rows, stride] = self.products.shape().dims::<2>();
        let client = &self.products.client;
        let (count, dim) = planes(client, rows);
        cross_entropy_kernel::launch(
            client,
            count,
            dim,
            self.products.clone().into_buffer_arg(),
            self.targets.clone().into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            self.first,
            rows,
            self.n_vocab,
            stride,
            multiplier,
            multiplier * weight.unwrap_or(0.0),
            weight.is_some(),
            elem(self.products.dtype),
        );
    }
}
