//! Staged runs against runs from scratch, in numbers: for `compare`, figures, reports and the demo.

use crate::output::percent;
use crate::run_record::{RunRecord, by_seed};
use anyhow::{Error, Result, bail};
use measure::{
    Flops, RunEnd, Saving, SmoothCurve, dynamics_ratio, least_saving_of_ends, saving_at,
    saving_of_ends,
};
use schedule::PredictedCurve;
use serde::Serialize;
use std::collections::BTreeSet;

/// Tokens per parameter of the run from scratch at which savings are told.
const TOKENS_PER_PARAM: [f64; 5] = [2.5, 5.0, 10.0, 20.0, 40.0];

/// The slope of the authors' compute-optimal stop (Shen et al. 2022): -0.052.
const OPTIMAL_SLOPE: f64 = -0.052;

/// Window after a growth over which the loss is watched, as a share of the compute that the grown size
/// takes from scratch to the same loss.
const WINDOW: f64 = 0.25;

/// What is left of it at least where a curve ends earlier.
const LEAST_WINDOW: f64 = 0.05;

/// What to compare.
pub struct Sides {
    /// The staged runs, one a seed.
    pub staged: Vec<RunRecord>,
    /// Their last shape from scratch, one run a seed; of several lengths where the learning rate decays.
    pub scratch: Vec<RunRecord>,
    /// Earlier shapes from scratch, for the growths into them.
    pub others: Vec<RunRecord>,
    /// Compute of the pilot runs, FLOPs.
    pub pilot_compute: f64,
}

/// Everything that is found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Staged runs.
    pub runs: usize,
    /// Runs from scratch.
    pub baselines: usize,
    /// Seeds of the staged runs.
    pub seeds: Vec<u64>,
    /// Seeds of the runs from scratch.
    pub baseline_seeds: Vec<u64>,
    /// Compute of the pilot runs, FLOPs.
    pub pilot_compute: f64,
    /// The saving that the plan predicted, at its final loss.
    pub predicted_saving: Option<f64>,
    /// By falling loss; the last is at the final loss of the side that ends higher. Where learning rates decay, the one at
    /// the staged runs' ends.
    pub savings: Vec<SavingAt>,
    /// Why there is no saving at the ends of runs whose learning rate decays.
    pub no_saving: Option<String>,
    /// What is saved at least where the staged runs end lower than every run from scratch.
    pub at_least: Option<LeastSaving>,
    /// Whether the learning rate decays, so that only ends are compared.
    pub decays: bool,
    /// In what the baseline is another recipe than the staged runs, and what else is to be known beside the numbers.
    pub notes: Vec<String>,
    pub growths: Vec<GrowthFound>,
    pub stages: Vec<StageFound>,
}

impl Comparison {
    /// Why a saving has no interval.
    pub fn without_interval(&self) -> &'static str {
        match (self.seeds.len(), self.baseline_seeds.len()) {
            (1, 1) => "a single seed",
            (1, _) => "one staged seed",
            _ => "one baseline seed",
        }
    }

    /// The interval of a saving over the seeds, or why it has none.
    pub fn interval_of(&self, saving: &SavingAt) -> String {
        match (saving.low, saving.high) {
            (Some(low), Some(high)) => format!("{} to {}", percent(low), percent(high)),
            _ => self.without_interval().to_string(),
        }
    }

    /// What the pilot runs took.
    pub fn pilots(&self) -> String {
        if self.pilot_compute > 0.0 {
            Flops(self.pilot_compute).to_string()
        } else {
            "none".to_string()
        }
    }
}

/// A saving and where it was taken.
#[derive(Clone, Debug, Serialize)]
pub struct SavingAt {
    /// Why this loss.
    pub at: String,
    /// Nats per token.
    pub loss: f64,
    pub saving: f64,
    /// 95 % interval over the seeds.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub saving_with_pilots: f64,
    /// With attention's products and the output head counted on both sides, which 6 N D leaves out; absent where a run has no checkpoint.
    pub saving_exact: Option<f64>,
    /// Geometric means, FLOPs.
    pub compute: f64,
    pub compute_from_scratch: f64,
}

/// A bound of a saving.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LeastSaving {
    /// It is more than this.
    pub saving: f64,
    /// With attention's products and the output head counted; absent where a run has no checkpoint.
    pub saving_exact: Option<f64>,
    /// The most of the staged runs' compute, FLOPs.
    pub compute: f64,
    /// Of the longest runs from scratch, the shortest of the seeds', FLOPs.
    pub compute_from_scratch: f64,
}

impl LeastSaving {
    /// For people.
    pub fn text(&self) -> String {
        let exact =
            self.saving_exact.map_or(String::new(), |exact| format!(" ({} exact)", percent(exact)));
        format!(
            "the staged runs end lower than every run from scratch: they save more than {}{exact}",
            percent(self.saving)
        )
    }
}

/// A growth, over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct GrowthFound {
    /// The stage that begins with it, from 0.
    pub stage: usize,
    pub operator: String,
    /// Steps before it, mean.
    pub step: f64,
    /// Fall of the loss afterwards over that of the grown size from scratch at the same loss, mean;
    /// absent where no run from scratch of that size is given, and where the rate decays.
    pub dynamics_ratio: Option<f64>,
    pub lowest_ratio: Option<f64>,
    pub highest_ratio: Option<f64>,
    /// On the sequences of its check, means.
    pub loss_before: f64,
    pub loss_after: f64,
    /// Held-out tokens of these.
    pub check_tokens: u64,
}

impl GrowthFound {
    /// The dynamics ratio for people: the mean, and from where to where it goes where seeds differ.
    pub fn ratio_over_seeds(&self) -> Option<String> {
        let (mean, low, high) = (self.dynamics_ratio?, self.lowest_ratio?, self.highest_ratio?);
        let range = if low < high { format!(" ({low:.2} to {high:.2})") } else { String::new() };
        Some(format!("{mean:.2}{range}"))
    }
}

/// A stage, over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct StageFound {
    /// From 0.
    pub stage: usize,
    pub shape: String,
    pub n_params: u64,
    /// Steps and compute at its end, means.
    pub step: f64,
    pub compute: f64,
    /// At its end.
    pub predicted_loss: Option<f64>,
    /// Mean; smoothed where the rate does not decay.
    pub actual_loss: f64,
    /// Largest |predicted / actual - 1| over the last half of the stage's compute; at its end where the rate decays.
    pub largest_error: Option<f64>,
}

/// Settings by their keys in a schedule.
fn settings(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Why ends tell no saving, and what they tell instead.
struct NoSaving {
    why: String,
    at_least: Option<LeastSaving>,
}

impl Sides {
    /// Compares the sides, at the given losses beside the usual ones; no savings without a baseline.
    pub fn compare(&self, losses: &[f64]) -> Result<Comparison> {
        self.check()?;
        let n_stages = self.staged[0].schedule.stages().len();
        let (savings, none) = if self.scratch.is_empty() {
            (Vec::new(), None)
        } else if self.decays() {
            if let Some(loss) = losses.first() {
                bail!(
                    "--loss {loss}: the learning rate decays, so that only the ends of runs are compared"
                );
            }
            match self.saving_of_ends() {
                Ok(found) => (vec![found], None),
                Err(none) => (Vec::new(), Some(none)),
            }
        } else {
            (self.savings(losses)?, None)
        };
        let (no_saving, at_least) =
            none.map_or((None, None), |none| (Some(none.why), none.at_least));
        Ok(Comparison {
            runs: self.staged.len(),
            baselines: self.scratch.len(),
            seeds: seeds(&self.staged),
            baseline_seeds: seeds(&self.scratch),
            pilot_compute: self.pilot_compute,
            predicted_saving: self.staged[0].schedule.prediction().map(|found| found.saving),
            savings,
            no_saving,
            at_least,
            decays: self.decays(),
            notes: self.notes(),
            growths: (1..n_stages).filter_map(|stage| self.growth(stage)).collect(),
            stages: (0..n_stages).filter_map(|stage| self.stage(stage)).collect(),
        })
    }

    /// Whether only the ends of runs count.
    pub fn decays(&self) -> bool {
        self.staged[0].decays()
    }

    /// In what the baseline is another recipe than the staged runs.
    fn notes(&self) -> Vec<String> {
        let first = &self.staged[0];
        let recipe = |run: &RunRecord| {
            let (rate, batch) = (run.schedule.learning_rate(), run.schedule.batch());
            [
                ("learning_rate.peak", rate.peak.to_string()),
                ("learning_rate.shape", format!("{:?}", rate.shape).to_lowercase()),
                (
                    "the decaying share of the steps (learning_rate.shape, decay_fraction)",
                    rate.decaying_share().to_string(),
                ),
                ("learning_rate.final_fraction", rate.final_fraction.to_string()),
                ("learning_rate.warmup_steps", rate.warmup_steps.to_string()),
                ("optimizer", settings(&run.schedule.optimizer())),
                ("parametrization", settings(&run.schedule.parametrization())),
                ("batch.tokens", batch.final_tokens().to_string()),
                (
                    "batch.ramp",
                    run.schedule.ramp().map_or("none".to_string(), |ramp| ramp.to_string()),
                ),
            ]
        };
        let mut notes = BTreeSet::new();
        for run in &self.scratch {
            for ((key, here), (_, there)) in recipe(run).into_iter().zip(recipe(first)) {
                if here != there {
                    notes.insert(format!(
                        "{key} is {here} from scratch and {there} in the staged runs"
                    ));
                }
            }
        }
        let all = self.staged.iter().chain(&self.scratch).chain(&self.others);
        if let Some(run) = all.into_iter().find(|run| run.data().is_none()) {
            notes.insert(format!(
                "{} has no checkpoint, which would tell its data: that all runs learn from the same is taken on trust",
                run.folder.display()
            ));
        }
        let (staged, scratch) = (seeds(&self.staged), seeds(&self.scratch));
        if !scratch.is_empty() && staged != scratch {
            notes.insert(format!(
                "the staged runs are of seeds {} and those from scratch of {}: the missing ones may lie elsewhere, and no interval knows of it",
                listed(&staged),
                listed(&scratch)
            ));
        }
        if let Some(start) = first.schedule.start() {
            notes.insert(format!(
                "the staged runs begin with the model of {}, whose own training is not counted",
                start.display()
            ));
        }
        notes.into_iter().collect()
    }

    fn check(&self) -> Result<()> {
        let first = &self.staged[0];
        let last =
            |run: &RunRecord| run.schedule.stages().last().map(|stage| stage.shape(1).to_string());
        for run in self.staged[1..].iter().chain(&self.scratch).chain(&self.others) {
            check_same_data(run, first)?;
        }
        for run in self.scratch.iter().chain(&self.others) {
            if let Some(start) = run.schedule.start() {
                bail!(
                    "{}: begins with the model of {}; a run from scratch begins with random weights",
                    run.folder.display(),
                    start.display()
                );
            }
        }
        for run in &self.scratch {
            let name = run.folder.display();
            if !run.is_from_scratch() {
                bail!("{name}: has {} stages; a baseline has one", run.schedule.stages().len());
            }
            if last(run) != last(first) {
                bail!(
                    "{name}: trains {}, and {} ends with {}: no saving of one against the other",
                    last(run).unwrap_or_default(),
                    first.folder.display(),
                    last(first).unwrap_or_default(),
                );
            }
            if run.decays() != first.decays() {
                let (decays, stays) = if run.decays() { (run, first) } else { (first, run) };
                bail!(
                    "{}: its learning rate decays, and that of {} does not: their losses are not comparable",
                    decays.folder.display(),
                    stays.folder.display()
                );
            }
        }
        Ok(())
    }

    fn savings(&self, losses: &[f64]) -> Result<Vec<SavingAt>> {
        let curves = |runs: &[RunRecord]| -> Vec<SmoothCurve> {
            runs.iter().filter_map(|run| run.smooth.clone()).collect()
        };
        let (staged, scratch) = (curves(&self.staged), curves(&self.scratch));
        let ends = staged.iter().chain(&scratch).map(SmoothCurve::lowest_loss);
        let end = ends.fold(0.0, f64::max);
        let mut marks: Vec<(String, f64)> =
            losses.iter().map(|loss| ("asked for".to_string(), *loss)).collect();
        let n = self.staged[0].last_n_params() as f64;
        for ratio in TOKENS_PER_PARAM {
            let at = scratch.iter().map(|curve| curve.loss_at(6.0 * n * ratio * n));
            if let Some(found) = at.collect::<Option<Vec<f64>>>() {
                let loss = found.iter().sum::<f64>() / found.len() as f64;
                marks.push((format!("{ratio} tokens per parameter"), loss));
            }
        }
        let at_slope = scratch.iter().map(|curve| {
            curve.compute_at_slope(OPTIMAL_SLOPE).and_then(|compute| curve.loss_at(compute))
        });
        if let Some(found) = at_slope.collect::<Option<Vec<f64>>>() {
            let loss = found.iter().sum::<f64>() / found.len() as f64;
            marks.push((format!("slope {OPTIMAL_SLOPE} from scratch"), loss));
        }
        marks.retain(|(at, loss)| *loss > end || at == "asked for");
        marks.sort_by(|a, b| b.1.total_cmp(&a.1));
        marks.push(("the lowest loss that all reach".to_string(), end));
        let mut found = Vec::new();
        for (at, loss) in marks {
            match saving_at(&staged, &scratch, loss, self.pilot_compute) {
                Some(saving) => {
                    let computes = staged.iter().map(|curve| curve.compute_at(loss));
                    let exact =
                        self.saving_exact(saving.saving, saving.compute_from_scratch, computes);
                    found.push(SavingAt::new(at, saving, exact));
                }
                None if at == "asked for" => bail!(
                    "--loss {loss}: not every run reaches it after its first evaluation; they all reach {end:.4}"
                ),
                None => {}
            }
        }
        Ok(found)
    }

    fn saving_of_ends(&self) -> Result<SavingAt, NoSaving> {
        let staged: Result<Vec<RunEnd>> = self.staged.iter().map(RunRecord::end).collect();
        let scratch: Result<Vec<Vec<RunEnd>>> = by_seed(&self.scratch)
            .into_iter()
            .map(|runs| runs.into_iter().map(RunRecord::end).collect())
            .collect();
        let unended = |error: Error| NoSaving { why: error.to_string(), at_least: None };
        let (staged, scratch) = (staged.map_err(unended)?, scratch.map_err(unended)?);
        let exact = |saving: f64, of_scratch: f64| {
            let computes = staged.iter().map(|end| Some(end.compute));
            self.saving_exact(saving, of_scratch, computes)
        };
        if let Some(found) = saving_of_ends(&staged, &scratch, self.pilot_compute) {
            let exact = exact(found.saving, found.compute_from_scratch);
            return Ok(SavingAt::new("the ends".to_string(), found, exact));
        }
        let range = |ends: &mut dyn Iterator<Item = f64>| {
            let (low, high) = ends
                .fold((f64::INFINITY, 0.0f64), |(low, high), loss| (low.min(loss), high.max(loss)));
            if low < high { format!("{low:.4} to {high:.4}") } else { format!("{low:.4}") }
        };
        let why = format!(
            "the staged runs end at a loss of {}, the runs from scratch at {}: for every seed, runs from scratch of \
             several lengths (--length) must enclose the former, with a loss that falls with the length",
            range(&mut staged.iter().map(|end| end.loss)),
            range(&mut scratch.iter().flatten().map(|end| end.loss)),
        );
        let at_least = least_saving_of_ends(&staged, &scratch);
        let at_least = at_least.map(|(compute_from_scratch, saving)| LeastSaving {
            saving,
            saving_exact: exact(saving, compute_from_scratch),
            compute: (1.0 - saving) * compute_from_scratch,
            compute_from_scratch,
        });
        Err(NoSaving { why, at_least })
    }

    /// A saving in exact FLOPs, from the compute of each staged run at its loss.
    fn saving_exact(
        &self,
        saving: f64,
        compute_from_scratch: f64,
        computes: impl Iterator<Item = Option<f64>>,
    ) -> Option<f64> {
        let ln_ratio =
            |(run, compute): (&RunRecord, Option<f64>)| Some(run.exact_over_6nd(compute?)?.ln());
        let ratios: Vec<f64> =
            self.staged.iter().zip(computes).map(ln_ratio).collect::<Option<_>>()?;
        let staged = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
        // One shape, so one ratio at every amount of compute.
        let scratch = self.scratch.first()?.exact_over_6nd(compute_from_scratch)?;
        Some(1.0 - (1.0 - saving) * staged / scratch)
    }

    fn growth(&self, stage: usize) -> Option<GrowthFound> {
        let reports: Vec<_> =
            self.staged.iter().filter_map(|run| run.growths.get(stage - 1)).collect();
        let first = reports.first()?;
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
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
                (!ratios.is_empty()).then(|| mean(ratios))
            })
            .collect();
        let any = !ratios.is_empty();
        Some(GrowthFound {
            stage,
            operator: first.operator.clone(),
            step: mean(reports.iter().map(|one| one.step as f64).collect()),
            lowest_ratio: any.then(|| ratios.iter().copied().fold(f64::INFINITY, f64::min)),
            highest_ratio: any.then(|| ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            dynamics_ratio: any.then(|| mean(ratios)),
            loss_before: mean(reports.iter().map(|one| one.check.loss_before).collect()),
            loss_after: mean(reports.iter().map(|one| one.check.loss_after).collect()),
            check_tokens: first.check.check_tokens,
        })
    }

    fn stage(&self, stage: usize) -> Option<StageFound> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let shape = self.staged[0].schedule.stages()[stage].shape(1);
        let (mut steps, mut computes, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        let (mut predicted, mut largest): (Vec<f64>, Option<f64>) = (Vec::new(), None);
        for run in &self.staged {
            let Some(end) = run.end_of(stage) else { continue };
            let is_last = stage + 1 == run.schedule.stages().len();
            let run_end = run.end().ok().filter(|_| run.decays() && is_last);
            let points: Vec<(f64, f64)> = if let Some(end) = run_end {
                vec![(end.compute, end.loss)]
            } else {
                let points = run.smooth.iter().flat_map(SmoothCurve::points);
                points.filter(|point| point.0 <= end.compute_flops).collect()
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
            step: mean(&steps),
            compute: mean(&computes),
            predicted_loss: (!predicted.is_empty()).then(|| mean(&predicted)),
            actual_loss: mean(&losses),
            largest_error: largest,
        })
    }
}

/// Seeds for people: `1, 2, 3`.
pub fn listed(seeds: &[u64]) -> String {
    seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The seeds of runs, each once.
fn seeds(runs: &[RunRecord]) -> Vec<u64> {
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.schedule.seed()).collect();
    seeds.into_iter().collect()
}

/// Errs unless both runs learn from the same tokens and are evaluated on the same held-out ones.
fn check_same_data(run: &RunRecord, first: &RunRecord) -> Result<()> {
    let (name, first_name) = (run.folder.display(), first.folder.display());
    if let (Some(here), Some(there)) = (run.data(), first.data())
        && here != there
    {
        bail!(
            "{name}: learns from {here}, and {first_name} from {there}: their losses are not comparable"
        );
    }
    let of = |run: &RunRecord| {
        let schedule = &run.schedule;
        let held_out = schedule.data().validation_fraction();
        [
            ("model.context_len", schedule.context_len().to_string()),
            ("evaluation.tokens", schedule.evaluation().tokens.to_string()),
            ("data.validation_fraction", held_out.map_or("none".into(), |share| share.to_string())),
        ]
    };
    for ((key, here), (_, there)) in of(run).into_iter().zip(of(first)) {
        if here != there {
            bail!(
                "{name}: {key} = {here}, and {there} in {first_name}: their losses are not comparable"
            );
        }
    }
    Ok(())
}

impl SavingAt {
    fn new(at: String, found: Saving, exact: Option<f64>) -> Self {
        Self {
            at,
            loss: found.loss,
            saving: found.saving,
            low: found.interval.map(|interval| interval.low),
            high: found.interval.map(|interval| interval.high),
            saving_with_pilots: found.saving_with_pilots,
            saving_exact: exact,
            compute: found.compute,
            compute_from_scratch: found.compute_from_scratch,
        }
    }
}

/// The predicted loss of a stage at an amount of compute, between its points; up to 5 % of compute beyond
/// the stage's end that of its end, since steps are whole.
pub fn predicted_loss(curve: &PredictedCurve, stage: usize, compute: f64) -> Option<f64> {
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
