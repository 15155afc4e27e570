//! What stages of given sizes and tokens come to under a law.

use super::CurveSample;
use crate::cost::GrownAt;
use crate::fit::interval;
use crate::root::root;
use crate::{Pace, ScalingError, TrainingCost};

/// Points of the predicted curve in each stage.
const CURVE_POINTS: usize = 40;

/// What stages of given sizes and tokens save under a law, at the loss that they then end at.
pub(super) fn saving_as_run(
    cost: &TrainingCost,
    stages: &[(f64, f64)],
) -> Result<f64, ScalingError> {
    let mut grown: Option<GrownAt> = None;
    let mut last = 0.0;
    for (n, tokens) in stages {
        let loss = cost.loss_after(*n, grown, *tokens)?;
        last = cost.compute_at(*n, loss)?;
        grown = Some(GrownAt::after(grown, *tokens, loss));
    }
    Ok(1.0 - cost.paid(stages) / last)
}

/// What stages of given sizes and tokens save at a pace that is the same from the first growth to the end.
pub(super) fn saving_at_pace(
    cost: &TrainingCost,
    stages: &[(f64, f64)],
    pace: f64,
) -> Result<f64, ScalingError> {
    saving_as_run(&cost.clone().with_pace(Pace::lasting(pace)), stages)
}

/// The pace at which they save nothing, up to ten: 0 where they save something even at a thousandth, none where ten is not enough.
pub(super) fn break_even_pace(cost: &TrainingCost, stages: &[(f64, f64)]) -> Option<f64> {
    let saving = |pace| saving_at_pace(cost, stages, pace).unwrap_or(f64::NAN);
    let least = 1e-3;
    if saving(least) > 0.0 {
        return Some(0.0);
    }
    root("a pace at which nothing is saved", least, 10.0, saving).ok()
}

/// The losses of stages of given sizes and tokens under a law, stage by stage, each after the same shares of
/// its tokens.
fn losses_as_run(cost: &TrainingCost, stages: &[(f64, f64)]) -> Result<Vec<f64>, ScalingError> {
    let mut losses: Vec<f64> = Vec::new();
    let mut grown: Option<GrownAt> = None;
    for (n, tokens) in stages {
        for share in curve_shares() {
            losses.push(cost.loss_after(*n, grown, share * tokens)?);
        }
        grown = losses.last().map(|loss| GrownAt::after(grown, *tokens, *loss));
    }
    Ok(losses)
}

/// From a hundredth of a stage's tokens to all, evenly in their ln.
fn curve_shares() -> impl Iterator<Item = f64> {
    (0..=CURVE_POINTS).map(|i| 100f64.powf(i as f64 / CURVE_POINTS as f64 - 1.0))
}

/// The losses under a law over tokens and compute, with their intervals under resampled ones.
pub(super) fn predicted_curve(
    cost: &TrainingCost,
    resampled: &[&TrainingCost],
    stages: &[(f64, f64)],
) -> Result<Vec<CurveSample>, ScalingError> {
    let losses = losses_as_run(cost, stages)?;
    let samples: Vec<Vec<f64>> =
        resampled.iter().filter_map(|law| losses_as_run(law, stages).ok()).collect();
    let mut curve = Vec::new();
    let (mut tokens_before, mut compute_before) = (0.0, 0.0);
    for (k, (n, tokens)) in stages.iter().enumerate() {
        for share in curve_shares() {
            let i = curve.len();
            let interval = (samples.len() > 1).then(|| {
                let (low, high) = interval(samples.iter().map(|losses| losses[i]).collect());
                [low, high]
            });
            curve.push(CurveSample {
                stage: k,
                tokens: tokens_before + share * tokens,
                compute: compute_before + 6.0 * n * share * tokens,
                loss: losses[i],
                interval,
            });
        }
        tokens_before += tokens;
        compute_before += 6.0 * n * tokens;
    }
    Ok(curve)
}
