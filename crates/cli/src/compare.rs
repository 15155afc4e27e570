use crate::comparison::{Comparison, Sides, listed};
use crate::output;
use crate::output::percent;
use crate::run_record::{RunRecord, runs_at, shared_compute};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `staged compare`.
#[derive(Args)]
#[command(after_help = "Example: staged compare runs/chain runs/scratch --json\n\n\
    Either side is a run's folder, or a folder of runs of one schedule under several seeds. Losses are held-out ones, \
    smoothed over compute, evaluations excluded on both sides.\n\n\
    Where the learning rate decays, only the ends of runs are compared: the runs from scratch are then of several \
    lengths (train --from-scratch --length FACTOR), of which some end above the staged run's loss and some below.")]
pub struct Compare {
    /// The staged run, or a folder of them
    run: PathBuf,
    /// Its last shape from scratch, or a folder of such runs
    baseline: PathBuf,
    /// Earlier shapes from scratch, for the dynamics of the growths into them
    #[arg(long, num_args = 1.., value_name = "RUN")]
    others: Vec<PathBuf>,
    /// Pilot runs whose compute is counted, instead of those that the plan names
    #[arg(long, num_args = 1.., value_name = "RUN")]
    pilots: Vec<PathBuf>,
    /// Losses at which to compare, beside the usual ones
    #[arg(long, value_delimiter = ',', value_name = "NATS")]
    loss: Vec<f64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let sides = sides(&self.run, &self.baseline, &self.others, &self.pilots)?;
        let comparison = sides.compare(&self.loss)?;
        if self.json { output::json(&comparison) } else { print(&comparison) }
    }
}

/// Reads both sides of a comparison.
pub fn sides(run: &Path, baseline: &Path, others: &[PathBuf], pilots: &[PathBuf]) -> Result<Sides> {
    let all = |paths: &[PathBuf]| -> Result<Vec<RunRecord>> {
        let runs = paths.iter().map(|path| RunRecord::read_all(path));
        Ok(runs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    if output::is_same_file(run, baseline) {
        bail!("{}: is both sides of the comparison", run.display());
    }
    let staged = RunRecord::read_all(run)?;
    let scratch = RunRecord::read_baselines(baseline)?;
    let planned = staged[0].schedule.pilot_compute();
    let pilot_compute = if pilots.is_empty() {
        planned.unwrap_or(0.0)
    } else {
        compute_of_pilots(pilots, &staged).context("--pilots")?
    };
    let others = all(others)?;
    // Into a stage before the last one a growth comes while the rate is stable, in a run whose rate decays too.
    let of_ends = staged[0].decays()
        && (staged[0].schedule.stages().len() < 3 || others.iter().all(RunRecord::decays));
    if let Some(other) = others.first().filter(|_| of_ends) {
        bail!(
            "--others {}: it is for the dynamics after growths at a stable rate, into stages before the last one of a run whose rate \
             decays, against runs at a constant rate; leave it out",
            other.folder.display()
        );
    }
    if !others.is_empty() {
        let named = staged.iter().chain(&scratch).chain(&others);
        let named: Vec<PathBuf> = named.map(|run| run.folder.clone()).collect();
        if let Some(folder) = output::given_twice(&named) {
            bail!("--others: {}: is there already", folder.display());
        }
    }
    Ok(Sides { staged, scratch, others, pilot_compute })
}

/// Compute of pilot runs, FLOPs; what one has from another of them is counted once.
fn compute_of_pilots(paths: &[PathBuf], staged: &[RunRecord]) -> Result<f64> {
    let folders = paths.iter().map(|path| runs_at(path)).collect::<Result<Vec<_>>>()?.concat();
    if let Some(folder) = output::given_twice(&folders) {
        bail!("{}: is given twice", folder.display());
    }
    for folder in &folders {
        if staged.iter().any(|run| output::is_same_file(folder, &run.folder)) {
            bail!("{}: is the staged run, and no pilot run", folder.display());
        }
    }
    let own = |folder: &PathBuf| -> Result<f64> {
        Ok(RunRecord::read(folder)?.compute() - shared_compute(folder, &folders)?)
    };
    folders.iter().map(own).sum()
}

/// Prints the tables.
pub fn print(found: &Comparison) -> Result<()> {
    for note in &found.notes {
        output::note(&format!("note: {note}"));
    }
    output::line(&format!(
        "{} staged against {} from scratch; pilot runs {}",
        runs(found.runs, &found.seeds),
        runs(found.baselines, &found.baseline_seeds),
        found.pilots(),
    ))?;
    let width = found.savings.iter().map(|one| one.at.len()).fold(28, usize::max);
    let counted =
        2 + found.savings.iter().map(|one| found.with_pilots(one).len()).fold(11, usize::max);
    output::line(&format!(
        "{:<width$} {:>8} {:>9} {:>20} {:>counted$} {:>9} {:>10} {:>12}",
        "saving at",
        "loss",
        "saving",
        "95 % over seeds",
        "with pilots",
        "exact",
        "6 N D",
        "of scratch"
    ))?;
    for one in &found.savings {
        let interval = found.interval_of(one);
        output::line(&format!(
            "{:<width$} {:>8.4} {:>9} {interval:>20} {:>counted$} {:>9} {:>10.3e} {:>12.3e}",
            one.at,
            one.found.loss,
            percent(one.found.saving),
            found.with_pilots(one),
            one.saving_exact.map_or("-".to_string(), percent),
            one.found.compute,
            one.found.compute_from_scratch,
        ))?;
    }
    if found.savings.iter().any(|one| one.saving_exact.is_some()) {
        output::line(
            "exact: with attention's products and the output head counted, which 6 N D leaves out",
        )?;
    }
    if let Some(why) = &found.no_saving {
        output::line(&format!("the saving cannot be told: {why}"))?;
    }
    if let Some(least) = &found.at_least {
        output::line(&least.text())?;
    }
    if let Some(predicted) = found.predicted_saving {
        output::line(&format!(
            "predicted saving at the plan's final loss: {}",
            percent(predicted)
        ))?;
    }
    for growth in &found.growths {
        let ratio = match growth.ratio_over_seeds() {
            Some(ratio) => format!("dynamics ratio {ratio}"),
            _ if found.decays => "no dynamics ratio where the rate decays".to_string(),
            _ => "no run from scratch of this size to compare with, or the stage or that run ends too soon after that loss".to_string(),
        };
        output::line(&format!(
            "growth into stage {} at step {:.0}: {}; loss {:.4} -> {:.4} over {} held-out tokens; {ratio}",
            growth.stage + 1,
            growth.step,
            growth.operator,
            growth.loss_before,
            growth.loss_after,
            output::count(growth.check_tokens),
        ))?;
    }
    for stage in &found.stages {
        let predicted = match (stage.predicted_loss, stage.largest_error) {
            (Some(loss), Some(_)) if found.decays => {
                format!("predicted {loss:.4} ({:+.2} %)", 100.0 * (loss / stage.actual_loss - 1.0))
            }
            (Some(loss), Some(error)) => format!(
                "predicted {loss:.4} ({:+.2} %), off by at most {:.2} % over its last half",
                100.0 * (loss / stage.actual_loss - 1.0),
                100.0 * error
            ),
            _ if found.decays && found.predicted_saving.is_some() => {
                "no end to compare a prediction with".to_string()
            }
            _ => "no prediction".to_string(),
        };
        output::line(&format!(
            "stage {} ({}, N = {}) ends after {:.0} steps and {:.3e} FLOPs at loss {:.4}; {predicted}",
            stage.stage + 1,
            stage.shape,
            output::count(stage.n_params),
            stage.step,
            stage.compute,
            stage.actual_loss,
        ))?;
    }
    Ok(())
}

/// So many runs and their seeds.
pub fn runs(n: usize, seeds: &[u64]) -> String {
    format!(
        "{} ({} {})",
        output::counted(n as u64, "run"),
        if seeds.len() == 1 { "seed" } else { "seeds" },
        listed(seeds)
    )
}
