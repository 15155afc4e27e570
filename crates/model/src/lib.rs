//! A GPT-2 decoder on Burn: forward pass, loss, gradients, sampling, device.
//!
//! The model is a map from [`state::ParamId`] to tensors and a few pure functions over it, so that
//! its state is open: nothing is hidden in modules, and a checkpoint is a copy.

mod attention;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod forward;
mod gpt;
mod head;
mod host;
mod sample;

pub use kernels::PartSeconds;

pub use device::DeviceChoice;
pub use error::ModelError;
pub use forward::compute_type;
pub use gpt::{Gpt, GradientSum, LossAndGradients, Tensors};
pub use host::{elements, matrix, product, to_device, to_host};
pub use sample::SampleSettings;
