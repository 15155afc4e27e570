//! The model on a GPU, by the gpu crate.

use crate::gpt::Tensors;
use gpu::Network;
use measure::{GptShape, Precision};
use state::ModelConstants;
use std::sync::OnceLock;

/// What passes on a GPU keep from one to the next.
pub struct CudaPath {
    precision: Precision,
    /// The network of the parameters, until they change.
    network: OnceLock<Box<Network>>,
    /// Whether activations are made again in the backward pass.
    pub recompute: bool,
}

impl CudaPath {
    pub fn new(precision: Precision) -> Self {
        Self { precision, network: OnceLock::new(), recompute: false }
    }

    /// To be called when the parameters change.
    pub fn forget_params(&mut self) {
        self.network.take();
    }

    pub fn network(
        &self,
        shape: GptShape,
        constants: ModelConstants,
        params: &Tensors,
    ) -> &Network {
        let new =
            || Box::new(Network::new(shape, constants, self.precision, self.recompute, params));
        self.network.get_or_init(new)
    }
}
