//! Whether runs can be compared, and in what they differ.

use super::{Sides, listed, seeds};
use crate::run_record::{RunRecord, check_same_data, check_same_measure};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const WARMUP: &str = "learning_rate.warmup_steps";
const SHAPE: &str = "learning_rate.shape";
const DECAYING_SHARE: &str =
    "the decaying share of the steps (learning_rate.shape, decay_fraction)";
const FINAL_FRACTION: &str = "learning_rate.final_fraction";

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
        let recipe = |run: &RunRecord| -> BTreeMap<String, String> {
            let (rate, batch) = (run.schedule.learning_rate(), run.schedule.batch());
            let ramp = run.schedule.ramp().map_or("none".to_string(), |ramp| ramp.to_string());
            let single = [
                ("learning_rate.peak", rate.peak.to_string()),
                (SHAPE, format!("{:?}", rate.shape).to_lowercase()),
                (DECAYING_SHARE, rate.decaying_share().to_string()),
                (FINAL_FRACTION, rate.final_fraction.to_string()),
                (WARMUP, rate.warmup_steps.to_string()),
                ("batch.tokens", batch.final_tokens().to_string()),
                ("batch.ramp", ramp),
            ];
            let single = single.map(|(key, value)| (key.to_string(), value));
            let (optimizer, parametrization) =
                (run.schedule.optimizer(), run.schedule.parametrization());
            let precision = [("precision", run.schedule.machine().precision)];
            single
                .into_iter()
                .chain(settings("optimizer", &optimizer))
                .chain(settings("parametrization", &parametrization))
                .chain(settings("machine", &BTreeMap::from(precision)))
                .collect()
        };
        let mut notes = BTreeSet::new();
        let of = |run: &RunRecord| format!("in {}", run.folder.display());
        let scratch = self.scratch.iter().map(|run| (run, false, "from scratch".to_string()));
        let others = self.others.iter().map(|run| (run, true, of(run)));
        for (run, is_smaller, which) in scratch.chain(others) {
            let (here, there) = (recipe(run), recipe(first));
            let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
            for key in keys {
                let value = |of: &BTreeMap<String, String>| {
                    of.get(key).map_or("none".to_string(), String::clone)
                };
                let (here, there) = (value(&here), value(&there));
                // A smaller model's warm-up is its own, far before its slope is looked at, and it is at a constant rate where the staged
                // run's decays behind it.
                let is_its_own = is_smaller
                    && [WARMUP, SHAPE, DECAYING_SHARE, FINAL_FRACTION].contains(&key.as_str());
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

/// Settings of a table by their keys in a schedule.
fn settings(table: &str, value: &impl Serialize) -> Vec<(String, String)> {
    let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let Ok(Value::Object(found)) = serde_json::to_value(value) else { return Vec::new() };
    found.into_iter().map(|(key, value)| (format!("{table}.{key}"), plain(value))).collect()
}
