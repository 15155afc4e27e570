//! The model on the CPU, by the kernels crate.

use crate::gpt::Tensors;
use crate::host::{elements, matrix};
use burn::tensor::Device;
use kernels::{Batch, Network, PartSeconds, Weights, Workspace};
use measure::GptShape;
use state::{ModelConstants, ParamId};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What passes on the CPU keep from one to the next.
#[derive(Default)]
pub struct CpuPath {
    /// The parameters in host memory, until they change.
    params: OnceLock<BTreeMap<ParamId, Vec<f32>>>,
    /// Whether activations are made again in the backward pass.
    pub recompute: bool,
    /// Buffers that no pass is using.
    idle: Mutex<Vec<Workspace>>,
}

impl CpuPath {
    /// To be called when the parameters change.
    pub fn forget_params(&mut self) {
        self.params.take();
    }

    pub fn network(
        &self,
        shape: GptShape,
        constants: ModelConstants,
        params: &Tensors,
    ) -> Network<'_> {
        let host = self.params.get_or_init(|| {
            params.iter().map(|(id, tensor)| (*id, elements(tensor.clone()))).collect()
        });
        let weights = Weights::build(&shape, |id| host[&id].as_slice());
        Network { shape, constants, weights, recompute: self.recompute }
    }

    pub fn loss(&self, network: &Network<'_>, batch: &Batch<'_>) -> f64 {
        self.with_workspace(|workspace| network.loss(batch, workspace))
    }

    pub fn logits(&self, network: &Network<'_>, inputs: &[u32], first: usize) -> Vec<f32> {
        self.with_workspace(|workspace| network.logits(inputs, first, workspace))
    }

    pub fn add_gradients(
        &self,
        network: &Network<'_>,
        batch: &Batch<'_>,
        weight: f64,
        sums: &mut Weights<Vec<f32>>,
    ) -> f64 {
        self.with_workspace(|workspace| network.add_gradients(batch, weight, workspace, sums))
    }

    pub fn zeros(shape: &GptShape) -> Weights<Vec<f32>> {
        Weights::build(shape, |id| vec![0.0; id.role.dims(shape).iter().product::<usize>()])
    }

    pub fn tensors(shape: &GptShape, sums: Weights<Vec<f32>>, device: &Device) -> Tensors {
        let tensor = |(id, data): (ParamId, Vec<f32>)| {
            let columns = *id.role.dims(shape).last().unwrap_or(&1);
            let dims = [data.len() / columns, columns];
            (id, matrix(data, dims, device))
        };
        sums.into_pairs().into_iter().map(tensor).collect()
    }

    /// Time of all passes, over all threads.
    pub fn seconds(&self) -> PartSeconds {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = PartSeconds::default();
        for PartSeconds { embedding, norms, attention, feed_forward, head } in
            idle.iter().map(Workspace::seconds)
        {
            sum.embedding += embedding;
            sum.norms += norms;
            sum.attention += attention;
            sum.feed_forward += feed_forward;
            sum.head += head;
        }
        sum
    }

    fn with_workspace<T>(&self, run: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().pop().unwrap_or_default();
        let result = run(&mut workspace);
        idle().push(workspace);
        result
    }
}
