//! The pilot run that grows: where, and what it tells.

use super::{LEAST_STEPS, PilotRuns, branch_point, law_path, own_compute};
use crate::law::fit_of;
use crate::run_record::run_folders;
use anyhow::Result;
use measure::GptShape;
use scaling::plan::Pilot as PlannedPilot;
use scaling::{Fit, GrownRun, StageStart};
use schedule::{Growth, StageSpec};
use trainer::{RunFolder, RunOptions};

impl PilotRuns<'_> {
    /// Compute of all grown runs that were made here, FLOPs: earlier ones have been paid for too.
    pub(super) fn compute_of_grown_runs(&self) -> Result<f64> {
        let mut compute = 0.0;
        for run in run_folders(self.folder)? {
            let grew = RunFolder::schedule_of(&run)?.stages().len() > 1;
            if grew && RunFolder::metrics_of(&run).exists() {
                compute += own_compute(&run)?;
            }
        }
        Ok(compute)
    }

    /// The grown run of a law that is there, where no other one is asked for.
    pub(super) fn measured_before(&self) -> Option<GrownRun> {
        if !self.resume || self.grow.is_some() || self.grow_by.is_some() {
            return None;
        }
        let path = law_path(self.folder);
        let text = std::fs::read_to_string(&path).ok()?;
        fit_of(&text, &path.display().to_string()).ok()?.grown
    }

    /// The run that tells the pace after a growth: at the law's best point from one pilot shape to the next, to where the larger
    /// one's longest run ends. `None` where that growth has no such point.
    pub(super) fn grown_run(
        &self,
        law: &Fit,
        small: &GptShape,
        large: &PlannedPilot,
        of_small: &[RunOptions],
    ) -> Result<Option<RunOptions>> {
        let (n_small, n_large) = (small.n_params() as f64, large.shape.n_params() as f64);
        let Some(mut cost) = law.cost() else { return Ok(None) };
        if let Some(share) = self.grow_by {
            cost = cost.with_growths_by(n_large, share * large.tokens)?;
        }
        let Ok(growth) = cost.growth_point(StageStart::Scratch, n_small, n_large) else {
            return Ok(None);
        };
        let resumed = cost.tokens_at(n_large, growth.loss)?;
        if resumed >= large.tokens {
            return Ok(None);
        }
        // Of a ramped batch the second stage has what lies behind the first.
        let first = self.steps(cost.tokens_at(n_small, growth.loss)?);
        let before = self.recipe.batch().tokens_through(first) as f64;
        let last = self.steps(before + large.tokens - resumed).saturating_sub(first);
        if last < LEAST_STEPS {
            return Ok(None);
        }
        let growth = Growth { resumed_step: Some(self.steps(resumed)), ..Growth::default() };
        let stages = vec![
            StageSpec::new(small, first, None),
            StageSpec::new(&large.shape, last, Some(growth)),
        ];
        let schedule = of_small[0].schedule.clone().with_stages(stages)?;
        let by = self.grow_by.map_or(String::new(), |share| format!("-by-{share}"));
        let schedule = schedule.named(&format!("pilot-{small}-to-{}{by}", large.shape))?;
        let branch_of = branch_point(of_small, &schedule);
        Ok(Some(self.run(schedule, branch_of)))
    }
}

/// Why no growth was made.
pub fn without_grown_run(law: &Fit, small: &GptShape, large: &PlannedPilot) -> String {
    let [n_small, n_large] = [small, &large.shape].map(|shape| shape.n_params() as f64);
    let small_is_cheaper = law.cost().is_some_and(|cost| {
        let compute = |n, loss| cost.compute_at(n, loss).unwrap_or(f64::INFINITY);
        let end = cost.loss_after(n_large, None, large.tokens);
        end.is_ok_and(|loss| compute(n_small, loss) < compute(n_large, loss))
    });
    let large = large.shape;
    if small_is_cheaper {
        format!(
            "{small} alone reaches the final loss of {large} with less compute under the law, so the best growth would come later still, and \
             none was made: the pace after growth is unknown; --grow-by measures an earlier growth"
        )
    } else {
        format!(
            "no growth from {small} to {large} pays under the law with {LEAST_STEPS} steps left after it, so none was made: the pace of a grown \
             model is not known"
        )
    }
}
