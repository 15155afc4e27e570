//! A GPT-2's training step on a GPU: layer norms, softmax, GELU, cross-entropy and AdamW each in one kernel, written
//! with CubeCL, and between them matrix products by fixed kernels of CubeCL. The counterpart of the kernels crate on the CPU.
//!
//! Empty without one of the features `cuda` and `wgpu`.
//!
//! Sums are taken in fixed orders, so that the same step gives the same bits; matrices are in the compute precision
//! (f32 or bfloat16), the residual stream, all sums and the parameters in f32. A weight's gradient is rounded to the compute
//! precision once for each part that is summed.

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
use cubecl::config::streaming::StreamPolicy;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

pub use adamw::{norm, update};
#[doc(hidden)]
pub use matrix::launch_product;
pub use network::{Gradients, Losses, Network};

/// Has all threads use one queue of the device; to be called before the device is first used. Parameters are changed
/// where they lie, and work in another queue, which CubeCL gives each thread, would not wait for that.
pub fn use_one_queue() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.streaming.policy = StreamPolicy::Single;
    // A device that is opened later finds it set.
    let _ = CubeClRuntimeConfig::try_set(config);
}

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
