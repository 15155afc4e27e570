//! Staged runs against runs from scratch, in numbers: for `compare`, figures, reports and the demo.

mod comparable;
mod savings;
mod stages;

use crate::output::percent;
use crate::run_record::RunRecord;
use anyhow::{Result, bail};
use measure::{Flops, Saving};
use serde::Serialize;
use std::collections::BTreeSet;

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

/// What is said of a loss that the staged runs come to earlier than that.
pub const BEFORE_LAST_GROWTH: &str = ", before the last growth";

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
    /// Why there is no saving.
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

    /// What is to be known beside the numbers, for people.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|note| format!("note: {note}"))
    }

    /// Why there is no saving, and what is known instead, for people.
    pub fn without_saving(&self) -> impl Iterator<Item = String> {
        let none = self.no_saving.iter().map(|why| format!("no saving can be computed: {why}"));
        none.chain(self.at_least.map(|least| least.text()))
    }

    /// The interval of a saving over the seeds, or why it has none.
    pub fn interval_of(&self, saving: &SavingAt) -> String {
        let found = between(saving.found.low, saving.found.high);
        found.unwrap_or_else(|| self.without_interval().to_string())
    }

    /// A saving with the pilot runs counted, and its interval over the seeds where it has one.
    pub fn with_pilots(&self, saving: &SavingAt) -> String {
        if self.pilot_compute <= 0.0 {
            return "-".to_string();
        }
        let counted = percent(saving.found.saving_with_pilots);
        let interval = between(saving.found.low_with_pilots, saving.found.high_with_pilots);
        match interval {
            Some(interval) => format!("{counted} ({interval})"),
            None => counted,
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

fn between(low: Option<f64>, high: Option<f64>) -> Option<String> {
    Some(format!("{} to {}", percent(low?), percent(high?)))
}

/// A saving and where it was taken.
#[derive(Clone, Debug, Serialize)]
pub struct SavingAt {
    /// Why this loss.
    pub at: String,
    #[serde(flatten)]
    pub found: Saving,
    /// Whether the staged runs come to this loss before their last growth: the saving is that of a smaller model.
    pub before_last_growth: bool,
    /// With attention's products and the output head counted on both sides, which 6 N D leaves out; absent where a run has no checkpoint.
    pub saving_exact: Option<f64>,
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
    /// Whether all runs are at its end.
    pub is_over: bool,
    /// Steps and compute at its end, or so far, means.
    pub step: f64,
    pub compute: f64,
    /// At its end.
    pub predicted_loss: Option<f64>,
    /// Mean; smoothed where the rate does not decay.
    pub actual_loss: f64,
    /// Largest |predicted / actual - 1| over the last half of the stage's compute; at its end where the rate decays.
    pub largest_error: Option<f64>,
}

impl Sides {
    /// Compares the sides, at the given losses beside the usual ones; no savings without a baseline.
    pub fn compare(&self, losses: &[f64]) -> Result<Comparison> {
        self.check()?;
        let n_stages = self.staged[0].schedule.stages().len();
        let (mut savings, none) = if self.scratch.is_empty() {
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
            let found = self.savings(losses)?;
            let none = found.is_empty().then(|| self.no_common_loss());
            (found, none)
        };
        let mut notes = self.notes();
        notes.extend(self.mark_smaller_models(&mut savings));
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
            notes,
            growths: (1..n_stages).filter_map(|stage| self.growth(stage)).collect(),
            stages: (0..n_stages).filter_map(|stage| self.stage(stage)).collect(),
        })
    }

    /// Says of each saving whether it is a smaller model's; a note where all are.
    fn mark_smaller_models(&self, savings: &mut [SavingAt]) -> Option<String> {
        let before = self.staged[0].schedule.stages().len().checked_sub(2)?;
        let grown = |run: &RunRecord| Some(run.end_of(before)?.compute_flops);
        let grew: Option<Vec<f64>> = self.staged.iter().map(grown).collect();
        let grew = grew.map_or(f64::INFINITY, |grew| mean(&grew));
        for saving in savings.iter_mut().filter(|saving| saving.found.compute <= grew) {
            saving.before_last_growth = true;
            saving.at.push_str(BEFORE_LAST_GROWTH);
        }
        let last = savings.last().filter(|saving| saving.found.compute <= grew)?;
        Some(format!(
            "at a loss of {:.4}, the highest of the last losses, the staged runs have not yet made their last growth: the saving there is \
             that of a smaller model; train the runs that end at a higher loss for longer",
            last.found.loss
        ))
    }

    /// Whether only the ends of runs count.
    pub fn decays(&self) -> bool {
        self.staged[0].decays()
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

/// The mean of at least one number.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
