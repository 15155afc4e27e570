//! A GPT-2's training step on a GPU: layer norms, softmax, GELU, cross-entropy and AdamW each in one kernel, written
//! with CubeCL, and between them matrix products by fixed kernels of CubeCL. The counterpart of the kernels crate on the CPU.
//!
//! Empty without one of the features `cuda` and `wgpu`.
//!
//! Sums are taken in fixed orders, so that the same step gives the same bits; matrices are in the compute precision
//! (f32 or bfloat16), the residual stream, all sums and the parameters in f32.

#![cfg(feature = "cube")]
// Kernels are functions of many buffers and sizes; CubeCL's macros use the number format that the kernels do not.
#![allow(clippy::too_many_arguments, clippy::used_underscore_binding)]

mod adamw;
mod attention;
mod embedding;
mod feed_forward;
mod head;
mod matrix;
mod network;
mod norm;
mod sums;

#[cfg(test)]
mod tests;

use burn::tensor::Tensor;

pub use adamw::{norm, update};
pub use network::{Gradients, Losses, Network};

/// A matrix on a device of CubeCL without gaps between its rows, which this crate's parameters and moments must not
/// have.
///
/// # Panics
/// Where the matrix is not on a device of CubeCL.
pub fn contiguous(x: Tensor<2>) -> Tensor<2> {
    matrix::tensor(matrix::contiguous(matrix::cube(x)))
}

/// The product of two matrices, as the network makes it.
///
/// # Panics
/// Where they are not on a device of CubeCL.
pub fn product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    matrix::tensor(matrix::product(matrix::cube(a), matrix::cube(b)))
}
