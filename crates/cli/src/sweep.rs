use crate::pilot::{check_folder, with_prepared_tokens};
use crate::recipe::Recipe;
use crate::side_by_side::{Ended, run_each};
use crate::train::length;
use crate::{output, shapes};
use anyhow::{Result, anyhow};
use clap::Args;
use measure::{Flops, Parametrization};
use model::DeviceChoice;
use schedule::{Schedule, StageSpec};
use serde::Serialize;
use std::path::{Path, PathBuf};
use trainer::RunOptions;

/// Further peaks at most, one after the other, while the best one is the highest or the lowest.
const MOST_FURTHER: usize = 3;

/// From one peak to the next where nothing is said, and at most to a further one.
const FACTOR: f64 = 2.0;
const MOST_FACTOR: f64 = 4.0;

/// What the names of a sweep's runs begin with, before the peak.
const PREFIX: &str = "peak-";

/// Arguments of `staged sweep`.
#[derive(Args)]
#[command(
    override_usage = "staged sweep <SCHEDULE> [OPTIONS]",
    after_help = "The runs are of the shape of the schedule's last stage.\n\nExample: staged sweep schedules/demo_text.toml --text book.txt --length 0.5\n\n\
    A saving is worth what its baseline is worth: at a peak that is not the best one staging seems to save more. Under mu-P the \
    best peak of a narrower model is nearly that of the whole one, so --shape finds it for less. The best peak depends on the batch and, \
    less, on the length."
)]
pub struct Sweep {
    #[command(flatten)]
    recipe: Recipe,
    /// Peak learning rates, separated by commas. While the best is the highest or the lowest, up to three further ones follow [default: half, once and
    /// twice that of the baseline]
    #[arg(long, value_delimiter = ',', value_name = "RATES")]
    peaks: Vec<f64>,
    /// Another shape, for as many steps, as 4x64x2: a narrower one under mu-P [default: the last stage's]
    #[arg(long, value_name = "SHAPE")]
    shape: Option<String>,
    /// Make the runs this many times as long (0.001 to 1000)
    #[arg(long, value_name = "FACTOR", value_parser = length, default_value_t = 1.0)]
    length: f64,
    /// Train under another seed than the schedule's
    #[arg(long)]
    seed: Option<u64>,
    /// Folder of the runs [default: runs/NAME-sweep]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Continue a sweep that was stopped, or add other --peaks to those in its folder
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a sweep found.
#[derive(Serialize)]
struct Found {
    /// From the lowest peak to the highest.
    runs: Vec<Tried>,
    /// The peak with the lowest loss.
    best: f64,
    /// Whether a lower and a higher peak end at a higher loss.
    is_enclosed: bool,
}

/// A run at one peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Tried {
    peak: f64,
    folder: PathBuf,
    /// Held-out loss at the end, nats per token; none where it diverged.
    loss: Option<f64>,
    diverged_at: Option<u64>,
}

impl Sweep {
    pub fn run(mut self) -> Result<()> {
        let baseline = self.baseline()?;
        let own = baseline.learning_rate().peak;
        if self.peaks.is_empty() {
            self.peaks = vec![rounded(own / FACTOR), own, rounded(own * FACTOR)];
        }
        for peak in &self.peaks {
            // Before tokens are made, which may take long.
            baseline.clone().with_peak(*peak)?;
        }
        let name = format!("{}-sweep", baseline.name());
        let folder = self.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
        output::check_name("-o", &folder)?;
        let device: DeviceChoice = self.device.parse()?;
        device.open(baseline.machine().precision)?;
        check_folder(&folder, self.resume, PREFIX, "runs of a sweep")?;
        self.peaks.extend(peaks_in(&folder));
        self.peaks.sort_by(f64::total_cmp);
        self.peaks.dedup();
        tell(&baseline, self.peaks.len());
        let prepared = with_prepared_tokens(baseline, &folder, self.resume)?.on_one_thread();
        let sweeping =
            Sweeping { baseline: &prepared, folder: &folder, device, resume: self.resume };
        let Some(found) = sweeping.made(&self.peaks)? else {
            output::note("interrupted; add --resume to the same command to go on");
            return output::outcome(self.json, "interrupted");
        };
        if self.json { output::json(&found) } else { found.print() }
    }

    /// The run whose peak is sought.
    fn baseline(&self) -> Result<Schedule> {
        let recipe = self.recipe.read()?;
        let name = recipe.name().to_string();
        let alone = recipe.from_scratch()?;
        let last = shapes::last(&alone, 1)?;
        let shape = match &self.shape {
            Some(text) => shapes::shape("--shape", text, last.n_vocab, last.context_len)?,
            None => last,
        };
        // All for as many steps, whatever loss ends the stage.
        let stage = StageSpec::new(&shape, alone.n_steps(), None);
        let mut alone = alone.with_stages(vec![stage])?;
        if self.length != 1.0 {
            alone = alone.with_length(self.length)?;
        }
        let alone = alone.named(&name)?;
        Ok(match self.seed {
            Some(seed) => alone.with_seed(seed),
            None => alone,
        })
    }
}

/// The peaks of the runs that a folder holds.
fn peaks_in(folder: &Path) -> Vec<f64> {
    let Ok(held) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = held.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect()
}

/// Says what is to come, and what the result will not tell.
fn tell(baseline: &Schedule, n_peaks: usize) {
    output::note(&format!(
        "{} of {} and {} each",
        output::counted(n_peaks as u64, "run"),
        output::counted(baseline.n_steps(), "step"),
        Flops(baseline.most_compute()),
    ));
    if !baseline.learning_rate().decays() {
        output::note(
            "warning: learning_rate.shape = \"constant\": the noise of the updates is in each end, and more of it at a higher rate; the best \
             peak of a rate that decays may be several times as high",
        );
    }
    if matches!(baseline.parametrization(), Parametrization::Standard { .. }) {
        output::note(
            "warning: parametrization.kind = \"standard\": the best peak falls with the width, so that each shape has its own",
        );
    }
}

/// Runs that differ in the peak alone.
struct Sweeping<'a> {
    baseline: &'a Schedule,
    folder: &'a Path,
    device: DeviceChoice,
    resume: bool,
}

impl Sweeping<'_> {
    /// The runs at these peaks, and at further ones while the best is at an edge; `None` when a signal stopped them.
    fn made(&self, peaks: &[f64]) -> Result<Option<Found>> {
        let Some(mut runs) = self.runs(peaks)? else { return Ok(None) };
        for _ in 0..MOST_FURTHER {
            let Some(peak) = further(&runs) else { break };
            // One that no schedule can have is none to try, nor one that differs in less than what is rounded.
            let is_known = runs.iter().any(|run| run.peak == peak);
            if is_known || self.baseline.clone().with_peak(peak).is_err() {
                break;
            }
            output::note(&format!("the best peak is at the edge of the sweep; on to {peak}"));
            let Some(more) = self.runs(&[peak])? else { return Ok(None) };
            runs.extend(more);
            runs.sort_by(|a, b| a.peak.total_cmp(&b.peak));
        }
        let best = best(&runs).ok_or_else(|| {
            anyhow!("every run diverged; give lower --peaks, or more learning_rate.warmup_steps")
        })?;
        let is_enclosed = best > 0 && best + 1 < runs.len();
        Ok(Some(Found { best: runs[best].peak, is_enclosed, runs }))
    }

    fn runs(&self, peaks: &[f64]) -> Result<Option<Vec<Tried>>> {
        let mut runs = Vec::new();
        for peak in peaks {
            runs.push(RunOptions {
                schedule: self.baseline.clone().with_peak(*peak)?,
                folder: self.folder.join(format!("{PREFIX}{peak}")),
                device: self.device,
                resume: self.resume,
                branch_of: None,
                command: output::command(),
            });
        }
        let Some(ended) = run_each("sweep", &runs)? else { return Ok(None) };
        let tried = peaks.iter().zip(runs).zip(ended).map(|((peak, run), ended)| {
            let (loss, diverged_at) = match ended {
                Ended::Made(summary) => (summary.val_loss, None),
                Ended::Diverged { step } => (None, Some(step)),
            };
            Tried { peak: *peak, folder: run.folder, loss, diverged_at }
        });
        Ok(Some(tried.collect()))
    }
}

/// Which run has the lowest loss; none where all diverged.
fn best(runs: &[Tried]) -> Option<usize> {
    let ends = runs.iter().enumerate().filter_map(|(i, run)| Some((i, run.loss?)));
    ends.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

/// The peak to try next where the best of these, from the lowest peak to the highest, is at an edge: as far beyond it as its neighbour is before it.
fn further(runs: &[Tried]) -> Option<f64> {
    let peak = |i: usize| runs.get(i).map(|run| run.peak);
    // Where all diverged, lower.
    let best = best(runs).unwrap_or(0);
    let beyond = |next: Option<f64>| {
        let edge = peak(best)?;
        let factor = next.map_or(FACTOR, |next| edge / next);
        Some(rounded(edge * factor.clamp(1.0 / MOST_FACTOR, MOST_FACTOR)))
    };
    if best == 0 {
        // A single peak is at both edges: first lower.
        let lower = peak(1).or(peak(0).map(|peak| peak * FACTOR));
        return beyond(lower);
    }
    (best + 1 == runs.len()).then(|| beyond(peak(best - 1))).flatten()
}

/// To five digits, so that 0.006 x 3 is 0.018.
fn rounded(peak: f64) -> f64 {
    format!("{peak:.4e}").parse().unwrap_or(peak)
}

impl Found {
    fn print(&self) -> Result<()> {
        let least = self.runs.iter().filter_map(|run| run.loss).fold(f64::INFINITY, f64::min);
        output::line(&format!(
            "{:>10}  {:>18}  {:>14}",
            "peak", "held-out loss", "above the best"
        ))?;
        for run in &self.runs {
            let (loss, above) = match (run.loss, run.diverged_at) {
                (Some(loss), _) => (format!("{loss:.4}"), output::percent(loss / least - 1.0)),
                (None, Some(step)) => (format!("diverged at {step}"), String::new()),
                (None, None) => ("none".to_string(), String::new()),
            };
            output::line(&format!("{:>10}  {loss:>18}  {above:>14}", run.peak))?;
        }
        if !self.is_enclosed {
            output::note(
                "warning: the best peak is at the edge of the sweep; give more --peaks beyond it with --resume",
            );
        }
        output::line(&format!(
            "best: peak = {} (under [learning_rate]; for the baseline alone, under [from_scratch])",
            self.best
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peak and its loss; none where it diverged.
    type Run = (f64, Option<f64>);

    fn tried(ends: &[Run]) -> Vec<Tried> {
        let run = |&(peak, loss): &Run| Tried {
            peak,
            folder: PathBuf::new(),
            loss,
            diverged_at: loss.is_none().then_some(3),
        };
        ends.iter().map(run).collect()
    }

    #[test]
    fn a_sweep_goes_on_beyond_the_edge_that_is_best() {
        let cases: [(&[Run], Option<f64>); 8] = [
            (&[(1.0, Some(3.0)), (2.0, Some(2.0)), (4.0, Some(2.5))], None),
            (&[(1.0, Some(3.0)), (2.0, Some(2.0)), (6.0, Some(1.5))], Some(18.0)),
            (&[(1.0, Some(1.0)), (3.0, Some(2.0)), (6.0, Some(3.0))], Some(0.33333)),
            (&[(1.0, Some(1.5)), (2.0, Some(1.0)), (4.0, None)], None),
            (&[(1.0, None), (2.0, None)], Some(0.5)),
            (&[(0.005, Some(1.0)), (1e20, None)], Some(0.00125)),
            (&[(1.0, Some(1.0))], Some(0.5)),
            (&[(0.002, Some(1.2)), (0.006, Some(1.0))], Some(0.018)),
        ];
        for (ends, next) in cases {
            assert_eq!(further(&tried(ends)), next, "{ends:?}");
        }
        assert_eq!(best(&tried(&[(1.0, None)])), None);
    }
}
