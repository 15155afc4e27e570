use crate::adamw::{clip_factor, gradient_norm};
use crate::learner::check_finite;
use crate::{EvaluationSet, TrainError, mean_loss};
use burn::tensor::Device;
use growth::GrowthOperator;
use measure::{GptShape, Precision};
use model::{Gpt, Tensors, to_host};
use schedule::{AdamWSettings, MomentRule};
use serde::{Deserialize, Serialize};
use state::{Moments, TrainingState};

/// Largest relative change of the loss that rounding in f32 makes; more is a fault.
const MOST_CHANGE: f64 = 1e-5;

/// What rounding does, in nats, where the loss itself is near zero.
const LEAST_CHANGE: f64 = 1e-6;

/// Held-out sequences on which a growth is checked, and those whose logits are compared.
pub const CHECK_SEQUENCES: usize = 8;
const LOGIT_SEQUENCES: usize = 2;

/// What a growth did to the model, on the same held-out sequences and in f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthCheck {
    /// Mean loss of the smaller model, nats per token.
    pub loss_before: f64,
    /// Mean loss of the grown model, nats per token.
    pub loss_after: f64,
    /// Largest difference of a logit.
    pub max_abs_delta_logit: f64,
    /// Tokens whose loss was measured.
    pub check_tokens: u64,
}

impl GrowthCheck {
    /// |L' - L| / L.
    pub fn relative_change(&self) -> f64 {
        (self.loss_after / self.loss_before - 1.0).abs()
    }
}

/// A growth in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthReport {
    /// The stage that begins with it, from 0.
    pub stage: usize,
    /// Steps made before it.
    pub step: u64,
    /// The operator, in a line.
    pub operator: String,
    /// What happened to the moments.
    pub moments: MomentRule,
    /// Whether the operator keeps the loss by construction.
    pub loss_preserving: bool,
    /// Shape before.
    pub from: GptShape,
    /// Shape after.
    pub to: GptShape,
    /// N after.
    pub n_params: u64,
    /// What it did to the model.
    #[serde(flatten)]
    pub check: GrowthCheck,
    /// Compute spent on re-estimated moments, FLOPs.
    pub reestimation_flops: f64,
    /// Time of the growth itself.
    pub seconds: f64,
}

/// Measures what a growth did to the model; neither state needs moments. On the CPU, whatever device trains: products in f32
/// are exact there, where a GPU may round their factors to TF32.
///
/// # Errors
/// An operator that keeps the loss by construction moved it by more than 1e-5 of itself and 1e-6 nats per token.
pub fn check_growth(
    operator: &GrowthOperator,
    before: &TrainingState,
    after: &TrainingState,
    set: &EvaluationSet,
) -> Result<GrowthCheck, TrainError> {
    let set = set.first_sequences(CHECK_SEQUENCES);
    let measured = |state: &TrainingState| -> Result<(f64, Vec<f32>), TrainError> {
        let gpt = Gpt::new(state, &Device::flex(), Precision::F32);
        let mut logits = Vec::new();
        for inputs in set.inputs().take(LOGIT_SEQUENCES) {
            logits.extend(gpt.logits(inputs)?);
        }
        Ok((mean_loss(&gpt, &set, 1, |_| ())?, logits))
    };
    let ((loss_before, old), (loss_after, new)) = (measured(before)?, measured(after)?);
    let apart = old.iter().zip(&new).map(|(old, new)| f64::from((old - new).abs()));
    let check = GrowthCheck {
        loss_before,
        loss_after,
        max_abs_delta_logit: apart.fold(0.0, f64::max),
        check_tokens: set.n_tokens(),
    };
    for (quantity, value) in [
        ("the loss before the growth", check.loss_before),
        ("the loss after the growth", check.loss_after),
    ] {
        let step = before.position.step;
        check_finite(step, step, quantity, value)?;
    }
    let moved = (check.loss_after - check.loss_before).abs();
    let kept = moved <= (MOST_CHANGE * check.loss_before).max(LEAST_CHANGE);
    if operator.is_loss_preserving() && !kept {
        return Err(TrainError::LossMoved { operator: operator.describe(), check });
    }
    Ok(check)
}

/// The seed of a growth, of a run's and of the growths that the state went through before: each draws other numbers.
pub fn growth_seed(seed: u64, growths_before: usize) -> u64 {
    let n = growths_before as u64 + 1;
    seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Moments whose bias-corrected values are the means of the clipped gradient and of its square over
/// some batches.
///
/// # Errors
/// A gradient that is not finite, before the next step after `step`.
pub(crate) fn reestimated_moments(
    settings: AdamWSettings,
    step: u64,
    updates: u64,
    shape: &GptShape,
    batches: impl Iterator<Item = Result<Tensors, TrainError>>,
) -> Result<Moments, TrainError> {
    let (mut first, mut second) = (Tensors::new(), Tensors::new());
    let mut n = 0.0;
    for gradients in batches {
        let gradients = gradients?;
        n += 1.0;
        let norm = gradient_norm(&gradients);
        check_finite(step, step, "the gradient's norm", norm)?;
        let clip = clip_factor(settings, norm);
        for (id, gradient) in gradients {
            let gradient = gradient * clip;
            for (sums, value) in [(&mut first, gradient.clone()), (&mut second, gradient.square())]
            {
                let sum = match sums.remove(&id) {
                    None => value,
                    Some(sum) => sum + value,
                };
                sums.insert(id, sum);
            }
        }
    }
    let scaled = |sums: Tensors, beta: f64| {
        let scale = (1.0 - beta.powf(updates as f64)) / n;
        let means = sums.into_iter().map(|(id, sum)| (id, sum * scale)).collect();
        to_host(&means, shape)
    };
    Ok(Moments { first: scaled(first, settings.beta1), second: scaled(second, settings.beta2) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::to_device;
    use state::{HostTensor, ParamId, ParamRole};
    use std::collections::BTreeMap;

    /// With t updates, m and v over 1 - beta^t are the means that Adam then goes by.
    #[test]
    fn moments_estimated_anew_are_means_of_clipped_gradients_after_bias_correction() {
        let shape = GptShape::gpt2(1, 2, 1);
        let settings =
            AdamWSettings { beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.0, clip_norm: 5.0 };
        let id = ParamId::outside(ParamRole::FinalNormBias);
        let gradient = |data: [f32; 2]| {
            let tensor = HostTensor { dims: vec![2], data: data.to_vec() };
            Ok(to_device(&BTreeMap::from([(id, tensor)]), &Device::flex()))
        };
        // The norm of the second is 10, twice what is allowed.
        let gradients = [gradient([1.0, 2.0]), gradient([6.0, -8.0])];
        let found = reestimated_moments(settings, 9, 3, &shape, gradients.into_iter()).unwrap();
        let scale = |beta: f64| 1.0 - beta.powi(3);
        let vast = [gradient([f32::MAX, f32::MAX])];
        let refused = reestimated_moments(settings, 9, 3, &shape, vast.into_iter()).unwrap_err();
        assert!(refused.to_string().contains("the gradient's norm is inf"), "{refused}");
        // Means of (1, 2) and (3, -4), and of their squares.
        let first = [2.0, -1.0].map(|x: f64| x * scale(0.9));
        let second = [5.0, 10.0].map(|x: f64| x * scale(0.98));
        for (found, due) in [(&found.first[&id], first), (&found.second[&id], second)] {
            for (found, due) in found.data.iter().zip(due) {
                assert!((f64::from(*found) - due).abs() < 1e-5 * due.abs(), "{found} for {due}");
            }
        }
    }
}
