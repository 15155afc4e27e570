//! A GPT-2 decoder's forward and backward pass on one core, over plain slices: layer norms, attention
//! in tiles, GELU and cross-entropy each in one pass over memory, with matrix products in between.
//!
//! Element-wise loops are compiled for each level of vector instructions and chosen when they run.

// What runs inside `vectorized` must be inlined to be compiled for its vectors, and indices into slices
// of one length are the form that compilers vectorize.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod adamw;
mod attention;
mod gelu;
mod head;
mod linear;
mod matmul;
mod network;
mod norm;
mod vector;
mod weights;

#[cfg(test)]
mod tests;

pub use adamw::{AdamWStep, sum_of_squares};
pub use network::{Batch, Network, PartSeconds, Workspace, numbers_of_a_pass};
pub use weights::{Block, Weights};
