//! The pilot run that grows: where, and what it tells.

use super::{PilotRuns, branch_point, shared_with};
use crate::run_record::run_folders;
use anyhow::{Context, Result, bail};
use measure::{GptShape, LearningCurve};
use scaling::plan::{Operators, Pilot as PlannedPilot};
use scaling::{Fit, StageStart, TrainingCost};
use schedule::{Growth, Schedule, Stage, StageSpec, Until};
use std::path::Path;
use trainer::{RunFolder, RunOptions};

/// The run that tells the pace after a growth.
pub enum GrownPilot {
    /// It grows where the law has it, and goes on to where the largest shape's longest run ends.
    OfTheLaw {
        /// What grows; the next smaller shape's growth into the largest where nothing is said.
        grow: Option<Operators>,
        /// By which share of the tokens from scratch it does.
        by: Option<f64>,
    },
    /// It makes the steps of a plan.
    Rehearsal(Rehearsal),
}

/// The growth of a plan of two stages.
pub struct Rehearsal {
    pub(super) grew: Operators,
    /// N after it over N before it.
    pub(super) factor: f64,
    /// Steps before it.
    pub(super) before: u64,
    /// Steps after it.
    pub(super) after: u64,
    growth: Growth,
}

impl Rehearsal {
    /// That of the plan in a file, which must be one by the recipe.
    pub(super) fn of(path: &Path, recipe: &Schedule) -> Result<Self> {
        let name = path.display();
        let plan = Schedule::read(path)?;
        let [first, last] = plan.stages() else {
            bail!(
                "--rehearse {name}: a rehearsal is of a plan of two stages, and this has {} (staged plan --stages 2)",
                plan.stages().len()
            );
        };
        let steps = |stage: &Stage| match stage.until() {
            Until { steps: Some(steps), tokens: None, compute: None, loss: None, slope: None } => {
                Ok(steps)
            }
            _ => bail!(
                "--rehearse {name}: a stage ends at something else than steps (until), so they are not known before"
            ),
        };
        let (before, after) = (steps(first)?, steps(last)?);
        let [small, large] = [first, last].map(|stage| stage.shape(1));
        let alike = |schedule: &Schedule| {
            schedule.clone().with_stages(vec![StageSpec::new(&large, after, None)])
        };
        if let Some(difference) = alike(&plan)?.difference_in_kind(&alike(recipe)?, false) {
            bail!(
                "--rehearse {name}: is no plan by this recipe, {} ({difference}); plan with it as the --template",
                recipe.name()
            );
        }
        let grew = Operators::between(&small, &large);
        if grew.kinds().is_empty() {
            bail!("--rehearse {name}: pilot shapes do not grow as {small} does into {large}");
        }
        let factor = large.n_params() as f64 / small.n_params() as f64;
        Ok(Self { grew, factor, before, after, growth: last.growth().clone() })
    }

    /// What is to be said where pilot shapes grow by another factor.
    pub(super) fn of_another_factor(&self, small: &GptShape, large: &GptShape) -> Option<String> {
        let factor = large.n_params() as f64 / small.n_params() as f64;
        let is_other = (factor / self.factor).ln().abs() > MOST_OTHER_FACTOR.ln();
        is_other.then(|| {
            format!(
                "the pace is that of a growth by {factor:.2} in N, and the plan grows by {:.2}: by more, growths were measured to be slower \
                 (docs/savings/synthetic.md)",
                self.factor
            )
        })
    }
}

/// How much another factor in N a rehearsal may have than its plan before it is said.
const MOST_OTHER_FACTOR: f64 = 1.2;

/// Steps of a grown pilot run, and the one at which its learning rate goes on.
struct GrownSteps {
    before: u64,
    after: u64,
    resumed: u64,
}

impl PilotRuns<'_> {
    /// Compute of other grown runs that were made here before, FLOPs: they have been paid for too.
    pub(super) fn earlier_grown_runs(&self, this: Option<&Path>) -> Result<f64> {
        let mut compute = 0.0;
        for run in run_folders(self.folder)?.iter().filter(|run| this != Some(run)) {
            let metrics = RunFolder::metrics_of(run);
            if RunFolder::schedule_of(run)?.stages().len() > 1 && metrics.exists() {
                let points = LearningCurve::read(&metrics)?.points;
                compute += points.last().map_or(0.0, |point| point.compute_flops);
                compute -= shared_with(run)?;
            }
        }
        Ok(compute)
    }

    /// The run that tells the pace after a growth. `None` where the law has no such point for one.
    pub(super) fn grown_run(
        &self,
        law: &Fit,
        small: &GptShape,
        large: &PlannedPilot,
        of_small: &[RunOptions],
    ) -> Result<Option<RunOptions>> {
        let Some(cost) = law.cost() else { return Ok(None) };
        let (steps, how) = match &self.grown {
            GrownPilot::OfTheLaw { by, .. } => {
                let how = by.map_or(String::new(), |share| format!("-by-{share}"));
                (self.grown_by_the_law(cost, small, large, *by)?, how)
            }
            GrownPilot::Rehearsal(plan) => {
                let how = format!("-rehearsed-{}-{}", plan.before, plan.after);
                (Some(self.rehearsed(&cost, small, large, plan)?), how)
            }
        };
        let Some(GrownSteps { before, after, resumed }) = steps else { return Ok(None) };
        let growth = match &self.grown {
            GrownPilot::OfTheLaw { .. } => Growth::default(),
            GrownPilot::Rehearsal(plan) => plan.growth.clone(),
        };
        let growth = Growth { resumed_step: Some(resumed), ..growth };
        let stages = vec![
            StageSpec::new(small, before, None),
            StageSpec::new(&large.shape, after, Some(growth)),
        ];
        let schedule = of_small[0].schedule.clone().with_stages(stages)?;
        let schedule = schedule.named(&format!("pilot-{small}-to-{}{how}", large.shape))?;
        let branch_of = branch_point(of_small, &schedule);
        Ok(Some(self.run(schedule, branch_of)))
    }

    /// Grown at the law's best point, by a share of the tokens at the latest, to where the larger shape's longest run ends. `None` where
    /// the growth has no such point.
    fn grown_by_the_law(
        &self,
        mut cost: TrainingCost,
        small: &GptShape,
        large: &PlannedPilot,
        by: Option<f64>,
    ) -> Result<Option<GrownSteps>> {
        let [n_small, n_large] = [small, &large.shape].map(|shape| shape.n_params() as f64);
        if let Some(share) = by {
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
        let last = self.steps(before + large.tokens - resumed).saturating_sub(first).max(1);
        Ok(Some(GrownSteps { before: first, after: last, resumed: self.steps(resumed) }))
    }

    /// A plan's steps, resumed where the larger pilot shape has the loss of the growth under the law.
    fn rehearsed(
        &self,
        cost: &TrainingCost,
        small: &GptShape,
        large: &PlannedPilot,
        plan: &Rehearsal,
    ) -> Result<GrownSteps> {
        let [n_small, n_large] = [small, &large.shape].map(|shape| shape.n_params() as f64);
        let tokens = self.recipe.batch().tokens_through(plan.before) as f64;
        let resumed = cost
            .loss_after(n_small, None, tokens)
            .and_then(|loss| cost.tokens_at(n_large, loss))
            .context("--rehearse: the pilot runs' law has no such growth")?;
        Ok(GrownSteps { before: plan.before, after: plan.after, resumed: self.steps(resumed) })
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
            "{small} alone takes less compute to where {large} ends under the law, so a growth would come best after that, and \
             none was made: the pace of a grown model is not known; --grow-by measures an earlier one"
        )
    } else {
        format!(
            "no growth from {small} to {large} pays under the law, so none was made: the pace of a grown model is not known"
        )
    }
}
