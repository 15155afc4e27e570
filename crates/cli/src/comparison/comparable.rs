//! Whether runs can be compared, and in what they differ.

use super::{Sides, listed, seeds};
use crate::run_record::{RunRecord, check_same_data, check_same_measure};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeSet;

const WARMUP: &str = "learning_rate.warmup_steps";

impl Sides {
    /// Errs unless the sides can be compared.
    pub(super) fn check(&self) -> Result<()> {
        let first = &self.staged[0];
        let last =
            |run: &RunRecord| run.schedule.stages().last().map(|stage| stage.shape(1).to_string());
        let all = || self.staged.iter().chain(&self.scratch).chain(&self.others);
        check_same_data(all().map(|run| (run.folder.as_path(), run.data())))?;
        check_same_measure(all().map(|run| (run.folder.as_path(), &run.schedule)))?;
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
        let grown = &first.schedule.stages()[1..];
        if let Some(other) = self.others.iter().find(|other| !first.grows_into(&other.schedule)) {
            let shapes: Vec<String> =
                grown.iter().map(|stage| stage.shape(1).to_string()).collect();
            let due = if shapes.is_empty() {
                "none, as it has a single stage".to_string()
            } else {
                shapes.join(", ")
            };
            bail!(
                "--others {}: is no run from scratch of a shape that the staged run grows into ({due}); leave it out",
                other.folder.display(),
            );
        }
        Ok(())
    }

    /// In what the baseline is another recipe than the staged runs, and what else is to be known beside the numbers.
    pub(super) fn notes(&self) -> Vec<String> {
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
                (WARMUP, rate.warmup_steps.to_string()),
                ("optimizer", settings(&run.schedule.optimizer())),
                ("parametrization", settings(&run.schedule.parametrization())),
                ("machine.precision", settings(&run.schedule.machine().precision)),
                ("batch.tokens", batch.final_tokens().to_string()),
                (
                    "batch.ramp",
                    run.schedule.ramp().map_or("none".to_string(), |ramp| ramp.to_string()),
                ),
            ]
        };
        let mut notes = BTreeSet::new();
        let of = |run: &RunRecord| format!("in {}", run.folder.display());
        let scratch = self.scratch.iter().map(|run| (run, false, "from scratch".to_string()));
        let others = self.others.iter().map(|run| (run, true, of(run)));
        for (run, is_smaller, which) in scratch.chain(others) {
            for ((key, here), (_, there)) in recipe(run).into_iter().zip(recipe(first)) {
                // That of a smaller model is its own; its slope is looked at far behind it.
                let is_its_own = is_smaller && key == WARMUP;
                if here != there && !is_its_own {
                    notes.insert(format!("{key} is {here} {which} and {there} in the staged runs"));
                }
            }
        }
        notes.extend(first.schedule.departed_from_plan());
        notes.extend(self.staged.iter().chain(&self.scratch).filter_map(RunRecord::unfinished));
        notes.extend(self.staged.iter().filter_map(RunRecord::untold_growth));
        let all = self.staged.iter().chain(&self.scratch).chain(&self.others);
        if let Some(run) = all.into_iter().find(|run| run.data().is_none()) {
            notes.insert(format!(
                "{} has no checkpoint to identify its data: all runs are assumed to learn from the same data",
                run.folder.display()
            ));
        }
        let (staged, scratch) = (seeds(&self.staged), seeds(&self.scratch));
        if !scratch.is_empty() && staged != scratch {
            notes.insert(format!(
                "the staged runs have seeds {} and those from scratch {}: runs with the missing seeds may differ, which no interval accounts for",
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
}

/// Settings by their keys in a schedule.
fn settings(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
