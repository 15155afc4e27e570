use crate::comparison::{Comparison, Sides, listed};
use crate::output;
use crate::output::percent;
use crate::run_record::{RunRecord, runs_at, shared_compute};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

/// Arguments of `staged compare`.
#[derive(Args)]
#[command(
    override_usage = "staged compare <RUN> <BASELINE>... [OPTIONS]",
    after_help = "Example: staged compare runs/chain runs/scratch --json\n\n\
    Each side is a run's folder, or a folder of runs of one schedule under several seeds; several baselines count as one \
    folder of them. Losses are held-out losses, smoothed over compute; the compute of evaluations is counted on neither side.\n\n\
    Where the learning rate decays, only the ends of runs are compared: the runs from scratch are then of several \
    lengths (train --from-scratch --length FACTOR), of which some end above the staged run's loss and some below."
)]
pub struct Compare {
    /// The staged run, or a folder of them
    run: PathBuf,
    /// Runs of its last shape from scratch, or folders of such runs
    #[arg(required = true, value_name = "BASELINE")]
    baselines: Vec<PathBuf>,
    /// Runs of earlier shapes from scratch, for the dynamics ratios of growths into them; from a folder, such as that of pilot
    /// runs, those of such shapes at a constant rate are taken
    #[arg(long, num_args = 1.., value_name = "RUN")]
    others: Vec<PathBuf>,
    /// Pilot runs whose compute is counted, instead of those that the plan names
    #[arg(long, num_args = 1.., value_name = "RUN")]
    pilots: Vec<PathBuf>,
    /// More losses at which to compare, nats per token, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NATS", value_parser = nats)]
    loss: Vec<f64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn nats(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(loss) if loss > 0.0 && loss.is_finite() => Ok(loss),
        _ => Err("must be a loss above 0, nats per token".into()),
    }
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let sides = sides(&self.run, &self.baselines, &self.others, &self.pilots)?;
        let comparison = sides.compare(&self.loss)?;
        if self.json { output::json(&comparison) } else { print(&comparison) }
    }
}

/// Reads both sides of a comparison; the second one may be empty.
pub fn sides(
    run: &Path,
    baselines: &[PathBuf],
    others: &[PathBuf],
    pilots: &[PathBuf],
) -> Result<Sides> {
    if baselines.iter().any(|baseline| output::is_same_file(run, baseline)) {
        bail!("{}: is both sides of the comparison", run.display());
    }
    let staged = RunRecord::read_all(run)?;
    let scratch = RunRecord::read_baselines(baselines)?;
    let planned = staged[0].schedule.pilot_compute();
    let pilot_compute = if pilots.is_empty() {
        planned.unwrap_or(0.0)
    } else {
        compute_of_pilots(pilots, &staged).context("--pilots")?
    };
    let sides: Vec<&RunRecord> = staged.iter().chain(&scratch).collect();
    let others = others.iter().map(|path| others_at(path, &sides)).collect::<Result<Vec<_>>>()?;
    let others: Vec<RunRecord> = others.into_iter().flatten().collect();
    // Into a stage before the last one a growth comes while the rate is stable, in a run whose rate decays too.
    let tells_nothing = staged[0].decays() && staged[0].schedule.stages().len() < 3;
    if let Some(other) = others.iter().find(|other| tells_nothing || other.decays()) {
        bail!(
            "--others {}: it is for the dynamics after growths at a stable rate, into stages before the last one of a run whose rate \
             decays, against runs at a constant rate; leave it out",
            other.folder.display()
        );
    }
    let both: Vec<PathBuf> = sides.iter().map(|run| run.folder.clone()).collect();
    let are_baselines = scratch.iter().all(|run| run.schedule.stages().len() == 1);
    if let Some(folder) = output::given_twice(&both).filter(|_| are_baselines) {
        bail!("{}: is there twice, on one side of the comparison or on both", folder.display());
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

/// The run that is named for the dynamics of growths, or those of a folder that can tell them.
fn others_at(path: &Path, sides: &[&RunRecord]) -> Result<Vec<RunRecord>> {
    if RunFolder::is_run(path) {
        return Ok(vec![RunRecord::read(path)?]);
    }
    let mut found = grown_shapes_in(path, sides[0])?;
    let is_a_side = |other: &RunRecord| {
        sides.iter().any(|run| output::is_same_file(&run.folder, &other.folder))
    };
    found.retain(|other| !is_a_side(other));
    if found.is_empty() {
        bail!(
            "--others {}: holds no run from scratch, at a constant learning rate, of a shape that the staged run grows into; leave it out",
            path.display()
        );
    }
    Ok(found)
}

/// The runs in a folder that tell the dynamics of growths: from scratch, at a constant learning rate, of shapes that the staged
/// run grows into.
pub fn grown_shapes_in(folder: &Path, staged: &RunRecord) -> Result<Vec<RunRecord>> {
    let mut found = Vec::new();
    for run in runs_at(folder)? {
        let schedule = RunFolder::schedule_of(&run)?;
        if staged.grows_into(&schedule) && !schedule.learning_rate().decays() {
            found.push(RunRecord::read(&run)?);
        }
    }
    Ok(found)
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
    found.remarks().for_each(|remark| output::note(&remark));
    output::line(&format!(
        "{} staged against {} from scratch; pilot runs {}",
        runs(found.runs, &found.seeds),
        runs(found.baselines, &found.baseline_seeds),
        found.pilots(),
    ))?;
    let width = found.savings.iter().map(|one| one.at.len()).fold(28, usize::max);
    let counted =
        2 + found.savings.iter().map(|one| found.with_pilots(one).len()).fold(11, usize::max);
    if !found.savings.is_empty() {
        output::line(&format!(
            "{:<width$} {:>8} {:>9} {:>20} {:>counted$} {:>9} {:>12} {:>13}",
            "saving at",
            "loss",
            "saving",
            "95 % over seeds",
            "with pilots",
            "exact",
            "staged FLOPs",
            "scratch FLOPs"
        ))?;
    }
    for one in &found.savings {
        let interval = found.interval_of(one);
        output::line(&format!(
            "{:<width$} {:>8.4} {:>9} {interval:>20} {:>counted$} {:>9} {:>12.3e} {:>13.3e}",
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
    for text in found.without_saving() {
        output::line(&text)?;
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
            _ => "no dynamics ratio: no run from scratch of this size, or it or the stage ends too soon after that loss".to_string(),
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
            "stage {} ({}, N = {}) {} after {:.0} steps and {:.3e} FLOPs at loss {:.4}; {predicted}",
            stage.stage + 1,
            stage.shape,
            output::count(stage.n_params),
            if stage.is_over { "ends" } else { "is under way," },
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
