use crate::ParamId;
use measure::{GptShape, Parametrization};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tensor in host memory, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Dimensions.
    pub dims: Vec<usize>,
    /// Elements, the last dimension fastest.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of zeros.
    pub fn zeros(dims: Vec<usize>) -> Self {
        let data = vec![0.0; dims.iter().product()];
        Self { dims, data }
    }
}

/// Numbers of the model that are neither parameters nor dimensions, and that growth may change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConstants {
    /// Factor on the logits.
    pub output_multiplier: f64,
    /// Added to the variance in every layer norm.
    pub norm_eps: f64,
}

/// Where a run stands in its schedule. Learning rate, batch and data order follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Stage, from 0.
    pub stage: usize,
    /// Optimizer steps made in this stage.
    pub stage_step: u64,
    /// Updates that Adam's moments hold: the t of its bias correction.
    pub moment_updates: u64,
    /// Optimizer steps made, over all stages.
    pub step: u64,
    /// Tokens trained on, over all stages.
    pub tokens: u64,
    /// 6 N for each token trained on or used to estimate moments anew, summed over all stages, in FLOPs.
    pub compute_flops: f64,
    /// What the state went through before the run began with it.
    #[serde(default, skip_serializing_if = "Earlier::is_nothing")]
    pub earlier: Earlier,
}

impl Position {
    /// Growths that the state went through, in this run and earlier.
    pub fn growths(&self) -> usize {
        self.earlier.growths + self.stage
    }

    /// The position before the first step of a run that begins with this state.
    #[must_use]
    pub fn as_start(&self) -> Self {
        let earlier = Earlier {
            growths: self.growths(),
            tokens: self.earlier.tokens + self.tokens,
            compute_flops: self.earlier.compute_flops + self.compute_flops,
        };
        Self { moment_updates: self.moment_updates, earlier, ..Self::default() }
    }
}

/// What a state went through in runs before the one that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Growths.
    pub growths: usize,
    /// Tokens trained on.
    pub tokens: u64,
    /// 6 N D of these, FLOPs.
    pub compute_flops: f64,
}

impl Earlier {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a state comes from: what must agree for a run to go on from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// The vocabulary that token numbers refer to.
    pub vocabulary: String,
    /// The tokens themselves: a checksum, or the language they are drawn from.
    pub data: String,
    /// Device that computed the state.
    pub device: String,
    /// Threads that computed the state.
    pub threads: usize,
    /// Name and version of the program and of the tensor library.
    pub versions: String,
}

impl Origin {
    /// Of a state that belongs to no run.
    pub fn of_no_run(seed: u64) -> Self {
        let none = String::new;
        Self {
            seed,
            vocabulary: none(),
            data: none(),
            device: none(),
            threads: 0,
            versions: none(),
        }
    }
}

/// Adam's moments, for every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient, m.
    pub first: BTreeMap<ParamId, HostTensor>,
    /// Running mean of the squared gradient, v.
    pub second: BTreeMap<ParamId, HostTensor>,
}

impl Moments {
    /// Those before the first update.
    pub fn zeros(params: &BTreeMap<ParamId, HostTensor>) -> Self {
        let zero =
            |(id, tensor): (&ParamId, &HostTensor)| (*id, HostTensor::zeros(tensor.dims.clone()));
        let zeros: BTreeMap<_, _> = params.iter().map(zero).collect();
        Self { first: zeros.clone(), second: zeros }
    }
}

/// Everything that the next step depends on, apart from the schedule and the data.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// Shape of the model.
    pub shape: GptShape,
    /// How initialisation and learning rates depend on the width.
    pub parametrization: Parametrization,
    /// Numbers that growth may change.
    pub constants: ModelConstants,
    /// Where the run stands.
    pub position: Position,
    /// Where the state comes from.
    pub origin: Origin,
    /// Parameters.
    pub params: BTreeMap<ParamId, HostTensor>,
    /// Adam's moments.
    pub moments: Moments,
}
