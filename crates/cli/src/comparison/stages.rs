//! How stages went against their prediction, and what growths did.

use super::{GrowthFound, Sides, StageFound, mean};
use measure::{SmoothCurve, dynamics_ratio};
use schedule::PredictedCurve;
use trainer::GrowthReport;

/// Window after a growth over which the loss is watched, as a share of the compute that the grown size
/// takes from scratch to the same loss.
const WINDOW: f64 = 0.25;

/// What is left of it at least where a curve ends earlier.
const LEAST_WINDOW: f64 = 0.05;

impl Sides {
    /// What a growth did, over all seeds.
    pub(super) fn growth(&self, stage: usize) -> Option<GrowthFound> {
        let reports: Vec<_> =
            self.staged.iter().filter_map(|run| run.growths.get(stage - 1)).collect();
        let first = reports.first()?;
        let mean_of = |value: fn(&GrowthReport) -> f64| {
            mean(&reports.iter().map(|one| value(one)).collect::<Vec<f64>>())
        };
        let shape = self.staged[0].schedule.stages()[stage].shape(1);
        // Where the rate decays, a loss says nothing of how fast it falls.
        let steady = self.scratch.iter().chain(&self.others).filter(|run| !run.decays());
        let scratch: Vec<&SmoothCurve> = steady
            .filter(|run| run.is_from_scratch() && run.schedule.stages()[0].shape(1) == shape)
            .filter_map(|run| run.smooth.as_ref())
            .collect();
        let ratios: Vec<f64> = self
            .staged
            .iter()
            .filter(|run| !run.decays() || stage + 1 < run.schedule.stages().len())
            .filter_map(|run| {
                let growth_compute = run.end_of(stage - 1)?.compute_flops;
                let stage_compute = run.end_of(stage)?.compute_flops - growth_compute;
                let smooth = run.smooth.as_ref()?;
                let loss = smooth.loss_at(growth_compute)?;
                let of_pair = |scratch: &&SmoothCurve| {
                    let same_loss = scratch.compute_at(loss)?;
                    let left = scratch.last_compute() - same_loss;
                    let window = (WINDOW * same_loss).min(stage_compute).min(left);
                    if window < LEAST_WINDOW * same_loss {
                        return None;
                    }
                    dynamics_ratio(smooth, growth_compute, scratch, window)
                };
                let ratios: Vec<f64> = scratch.iter().filter_map(of_pair).collect();
                (!ratios.is_empty()).then(|| mean(&ratios))
            })
            .collect();
        let any = !ratios.is_empty();
        Some(GrowthFound {
            stage,
            operator: first.operator.clone(),
            step: mean_of(|one| one.step as f64),
            lowest_ratio: any.then(|| ratios.iter().copied().fold(f64::INFINITY, f64::min)),
            highest_ratio: any.then(|| ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            dynamics_ratio: any.then(|| mean(&ratios)),
            loss_before: mean_of(|one| one.check.loss_before),
            loss_after: mean_of(|one| one.check.loss_after),
            check_tokens: first.check.check_tokens,
        })
    }

    /// How a stage went, over all seeds.
    pub(super) fn stage(&self, stage: usize) -> Option<StageFound> {
        let shape = self.staged[0].schedule.stages()[stage].shape(1);
        let (mut steps, mut computes, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        let (mut predicted, mut largest): (Vec<f64>, Option<f64>) = (Vec::new(), None);
        let mut is_over = true;
        for run in &self.staged {
            let Some(end) = run.end_of(stage) else {
                is_over = false;
                continue;
            };
            let newest = run.curve.points.last().map_or(0, |point| point.stage);
            is_over &= newest > stage || run.unfinished().is_none();
            let is_last = stage + 1 == run.schedule.stages().len();
            let run_end = run.end().ok().filter(|_| run.decays() && is_last);
            let points: Vec<(f64, f64)> = if let Some(end) = run_end {
                vec![(end.compute, end.loss)]
            } else if run.smooth.is_none() && run.decays() {
                // Too few evaluations to smooth; as measured they count here too.
                let of_stage = run.curve.evaluated().filter(|(point, _)| point.stage == stage);
                of_stage.map(|(point, loss)| (point.compute_flops, loss)).collect()
            } else {
                let points = run.smooth.iter().flat_map(SmoothCurve::points);
                // A curve's compute went through its logarithm and back.
                points.filter(|point| point.0 <= end.compute_flops * (1.0 + 1e-9)).collect()
            };
            let Some((_, loss)) = points.last() else { continue };
            steps.push(end.step as f64);
            computes.push(end.compute_flops);
            losses.push(*loss);
            // A law of ends says what the rate's decay leads to, and nothing of the way there.
            if run.decays() && run_end.is_none() {
                continue;
            }
            let Some(prediction) = run.schedule.prediction() else { continue };
            let start = stage
                .checked_sub(1)
                .and_then(|before| run.end_of(before))
                .map_or(0.0, |point| point.compute_flops);
            let half = f64::midpoint(start, end.compute_flops);
            for (compute, loss) in points {
                if compute < half * (1.0 - 1e-9) {
                    continue;
                }
                if let Some(due) = predicted_loss(&prediction.curve, stage, compute) {
                    let error = (due / loss - 1.0).abs();
                    largest = Some(largest.map_or(error, |so_far: f64| so_far.max(error)));
                }
            }
            predicted.extend(predicted_loss(&prediction.curve, stage, end.compute_flops));
        }
        (!losses.is_empty()).then(|| StageFound {
            stage,
            shape: shape.to_string(),
            n_params: shape.n_params(),
            is_over,
            step: mean(&steps),
            compute: mean(&computes),
            predicted_loss: (!predicted.is_empty()).then(|| mean(&predicted)),
            actual_loss: mean(&losses),
            largest_error: largest,
        })
    }
}

/// The predicted loss of a stage at an amount of compute, between its points; up to 5 % of compute beyond
/// the stage's end that of its end, since steps are whole.
fn predicted_loss(curve: &PredictedCurve, stage: usize, compute: f64) -> Option<f64> {
    let of_stage: Vec<usize> = (0..curve.loss.len()).filter(|i| curve.stage[*i] == stage).collect();
    let (first, last) = (*of_stage.first()?, *of_stage.last()?);
    if compute < curve.compute[first] || compute > 1.05 * curve.compute[last] {
        return None;
    }
    let right = of_stage.iter().copied().find(|i| curve.compute[*i] >= compute).unwrap_or(last);
    let left = right.max(first + 1) - 1;
    let (from, to) = (curve.compute[left].ln(), curve.compute[left + 1].ln());
    let share = ((compute.ln() - from) / (to - from)).clamp(0.0, 1.0);
    Some(curve.loss[left] + share * (curve.loss[left + 1] - curve.loss[left]))
}
