//! A GPT-2 decoder: forward pass, loss, gradients, sampling, device.
//!
//! The model is a map from [`state::ParamId`] to tensors and a few pure functions over it, so that
//! its state is open: nothing is hidden in modules, and a checkpoint is a copy.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod gpt;
mod host;
#[cfg(test)]
mod reference;
mod sample;

pub use kernels::{PartSeconds, numbers_of_a_pass};

pub use device::DeviceChoice;
pub use error::ModelError;
pub use gpt::{Gpt, GradientSum, LossAndGradients, Tensors};
pub use host::{compute_type, elements, matrix, product, to_device, to_host};
pub use sample::SampleSettings;
