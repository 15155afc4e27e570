//! Savings at equal loss: along smoothed curves, or at ends.

use super::{LeastSaving, SavingAt, Sides, mean};
use crate::run_record::{RunRecord, by_seed};
use anyhow::{Error, Result, bail};
use measure::{RunEnd, SmoothCurve, least_saving_of_ends, saving_at, saving_of_ends};

/// Tokens per parameter of the run from scratch at which savings are told.
const TOKENS_PER_PARAM: [f64; 5] = [2.5, 5.0, 10.0, 20.0, 40.0];

/// The slope of the authors' compute-optimal stop (Shen et al. 2022): -0.052.
const OPTIMAL_SLOPE: f64 = -0.052;

/// Why ends tell no saving, and what they tell instead.
pub(super) struct NoSaving {
    pub why: String,
    pub at_least: Option<LeastSaving>,
}

impl Sides {
    /// Along smoothed curves, at these losses beside the usual ones.
    pub(super) fn savings(&self, losses: &[f64]) -> Result<Vec<SavingAt>> {
        let curves = |runs: &[RunRecord]| -> Vec<SmoothCurve> {
            runs.iter().filter_map(|run| run.smooth.clone()).collect()
        };
        let (staged, scratch) = (curves(&self.staged), curves(&self.scratch));
        // The lowest points of noisy curves are the luckiest ones, and the longer a curve the luckier.
        let highest =
            |of: fn(&SmoothCurve) -> f64| staged.iter().chain(&scratch).map(of).fold(0.0, f64::max);
        let saving = |loss| saving_at(&staged, &scratch, loss, self.pilot_compute);
        let last = highest(SmoothCurve::last_loss);
        // A run that ends high has no last loss that the others pass.
        let last = saving(last).map(|_| last);
        let end = last.unwrap_or_else(|| highest(SmoothCurve::lowest_loss));
        let mut marks: Vec<(String, f64)> =
            losses.iter().map(|loss| ("asked for".to_string(), *loss)).collect();
        let n = self.staged[0].last_n_params() as f64;
        for ratio in TOKENS_PER_PARAM {
            let at = scratch.iter().map(|curve| curve.loss_at(6.0 * n * ratio * n));
            if let Some(found) = at.collect::<Option<Vec<f64>>>() {
                let loss = mean(&found);
                marks.push((format!("{ratio} tokens per parameter"), loss));
            }
        }
        let at_slope = scratch.iter().map(|curve| {
            curve.compute_at_slope(OPTIMAL_SLOPE).and_then(|compute| curve.loss_at(compute))
        });
        if let Some(found) = at_slope.collect::<Option<Vec<f64>>>() {
            let loss = mean(&found);
            marks.push((format!("slope {OPTIMAL_SLOPE} from scratch"), loss));
        }
        marks.retain(|(at, loss)| *loss > end || at == "asked for");
        marks.sort_by(|a, b| b.1.total_cmp(&a.1));
        marks.extend(last.map(|last| ("the highest of their last losses".to_string(), last)));
        let mut found = Vec::new();
        for (at, loss) in marks {
            match saving(loss) {
                Some(saving) => {
                    let computes = staged.iter().map(|curve| curve.compute_at(loss));
                    let exact =
                        self.saving_exact(saving.saving, saving.compute_from_scratch, computes);
                    let before_last_growth = false;
                    found.push(SavingAt {
                        at,
                        found: saving,
                        before_last_growth,
                        saving_exact: exact,
                    });
                }
                None if at == "asked for" => {
                    let first = |curve: &SmoothCurve| curve.first_loss();
                    let most =
                        staged.iter().chain(&scratch).map(first).fold(f64::INFINITY, f64::min);
                    // To limits that hold as they are printed.
                    let least = (1e4 * highest(SmoothCurve::lowest_loss)).ceil() / 1e4;
                    let most = (1e4 * most).floor() / 1e4;
                    if least >= most {
                        bail!("--loss {loss}: {}", self.no_common_loss().why);
                    }
                    bail!(
                        "--loss {loss}: must be from {least:.4} to {most:.4} nats per token, which all runs reach after their first evaluation"
                    )
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// Why smoothed curves tell no saving.
    pub(super) fn no_common_loss(&self) -> NoSaving {
        let spans = |runs: &[RunRecord]| {
            let curves = || runs.iter().filter_map(|run| run.smooth.as_ref());
            let first = curves().map(SmoothCurve::first_loss).fold(f64::INFINITY, f64::min);
            let lowest = curves().map(SmoothCurve::lowest_loss).fold(0.0, f64::max);
            format!("from {first:.4} at their first evaluation to {lowest:.4}")
        };
        let why = format!(
            "no loss is reached by all runs: the staged ones go {}, those from scratch {}",
            spans(&self.staged),
            spans(&self.scratch)
        );
        NoSaving { why, at_least: None }
    }

    /// At the ends of the staged runs, between those from scratch.
    pub(super) fn saving_of_ends(&self) -> Result<SavingAt, NoSaving> {
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
            let saving_exact = exact(found.saving, found.compute_from_scratch);
            let (at, before_last_growth) = ("final losses".to_string(), false);
            return Ok(SavingAt { at, found, before_last_growth, saving_exact });
        }
        let why = format!(
            "the staged runs end at a loss of {}; {}",
            range(&staged),
            self.missing(&staged, &scratch).join("; ")
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

    /// What each seed's runs from scratch lack to enclose the staged runs.
    fn missing(&self, staged: &[RunEnd], scratch: &[Vec<RunEnd>]) -> Vec<String> {
        let (low, high) = lowest_and_highest(staged);
        let told = |(runs, ends): (Vec<&RunRecord>, &Vec<RunEnd>)| {
            let (seed, (lowest, highest)) = (runs[0].schedule.seed(), lowest_and_highest(ends));
            let falls = ends.windows(2).all(|pair| pair[1].loss < pair[0].loss);
            let lacks = match (lowest <= low, highest >= high) {
                (true, true) if falls && ends.len() > 1 => return None,
                (true, true) if falls => {
                    "there is one length only: make a longer and a shorter one"
                }
                (true, true) => "not every longer one ends lower",
                (false, true) => "none ends as low: make a longer one",
                (true, false) => "none ends as high: make a shorter one",
                (false, false) => "none ends as low or as high: make a longer and a shorter one",
            };
            Some(format!(
                "of the runs from scratch with seed {seed}, which end at {}, {lacks} (train --from-scratch --seed {seed} --length FACTOR)",
                range(ends)
            ))
        };
        by_seed(&self.scratch).into_iter().zip(scratch).filter_map(told).collect()
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
        let staged = mean(&ratios).exp();
        // One shape, so one ratio at every amount of compute.
        let scratch = self.scratch.first()?.exact_over_6nd(compute_from_scratch)?;
        Some(1.0 - (1.0 - saving) * staged / scratch)
    }
}

fn lowest_and_highest(ends: &[RunEnd]) -> (f64, f64) {
    let losses = || ends.iter().map(|end| end.loss);
    (losses().fold(f64::INFINITY, f64::min), losses().fold(0.0, f64::max))
}

fn range(ends: &[RunEnd]) -> String {
    let (low, high) = lowest_and_highest(ends);
    if low < high { format!("{low:.4} to {high:.4}") } else { format!("{low:.4}") }
}
