use crate::output;
use crate::progress::Progress;
use crate::recipe::Recipe;
use anyhow::{Context, Result, bail};
use clap::Args;
use corpus::TokenizerChoice;
use measure::{Flops, PfDays};
use model::DeviceChoice;
use schedule::{DataSource, DecayShape, SLOPE_EVALUATIONS, Schedule};
use state::CheckpointStore;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use trainer::{Outcome, RunFolder, RunOptions, RunSummary, train};

/// Arguments of `staged train`.
#[derive(Args)]
#[command(
    override_usage = "staged train <SCHEDULE> [OPTIONS]",
    after_help = "Example: staged train schedules/dickens_scratch.toml --text dickens.txt\n\n\
    Ctrl-C or SIGTERM saves the state and ends with exit code 0; --resume goes on from there. While text is being turned into \
    tokens there is no state yet: nothing is left, and the exit code is 2."
)]
pub struct Train {
    #[command(flatten)]
    recipe: Recipe,
    /// The run's folder [default: runs/NAME of the schedule]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Continue from the newest intact checkpoint, or from the start if the run has none yet
    #[arg(long)]
    resume: bool,
    /// Take over the steps that this run shares with another, from that run's newest suitable checkpoint; ignored once this run has steps
    #[arg(long, value_name = "RUN")]
    branch_of: Option<PathBuf>,
    /// Train the schedule's last shape alone, for comparison
    #[arg(long)]
    from_scratch: bool,
    /// Make the last stage this many times as long (0.001 to 1000), to compare ends of runs of several lengths [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = length)]
    length: Option<f64>,
    /// Train under another seed than the schedule's
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A factor of a run's length.
pub fn length(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (1e-3..=1e3).contains(&factor) => Ok(factor),
        _ => Err("must be from 0.001 to 1000".into()),
    }
}

impl Train {
    pub fn run(self) -> Result<()> {
        let mut schedule = self.recipe.read()?;
        if self.from_scratch {
            schedule = schedule.from_scratch()?;
        }
        if let Some(factor) = self.length {
            schedule = schedule.with_length(factor)?;
        }
        if let Some(seed) = self.seed {
            schedule = schedule.with_seed(seed);
        }
        if let DataSource::Text(text) = schedule.data() {
            let of_file = || self.recipe.path().display().to_string();
            if text.files.is_empty() {
                bail!(
                    "{}: data.files = []: name text files there or with --text FILE...",
                    of_file()
                );
            }
            let parsed = text.tokenizer.parse::<TokenizerChoice>();
            parsed.with_context(|| format!("{}: [data]", of_file()))?;
        }
        warn_of_course(&schedule);
        let folder = self.out.unwrap_or_else(|| Path::new("runs").join(schedule.name()));
        let device = self.device.parse()?;
        if let Some(source) = self.branch_of.as_ref().filter(|_| self.resume) {
            tell_other_branch(&folder, source)?;
        }
        let (resume, branch_of, command) = (self.resume, self.branch_of, output::command());
        let summary = run(RunOptions { schedule, folder, device, resume, branch_of, command })?;
        if summary.outcome == Outcome::Interrupted {
            output::note("interrupted; add --resume to the same command to go on");
        }
        if self.json { output::json(&summary) } else { report(&summary) }
    }
}

/// Says where a run that goes on did not branch off the one that is named: its steps are the same all the same.
fn tell_other_branch(folder: &Path, source: &Path) -> Result<()> {
    if CheckpointStore::reader(&RunFolder::checkpoints_of(folder)).is_empty()? {
        return Ok(());
    }
    let began = match RunFolder::branch_of(folder)? {
        Some(branch) if output::is_same_file(&branch.of, source) => return Ok(()),
        Some(branch) => format!("as {}", branch.of.display()),
        None => "by itself".to_string(),
    };
    output::note(&format!(
        "--branch-of {} is passed over: {} has steps of its own and began {began}",
        source.display(),
        folder.display()
    ));
    Ok(())
}

/// Tells of warm-ups that are too long for the run or the stage, of losses and slopes that are never judged, and of a decay that begins beyond the
/// steps made.
fn warn_of_course(schedule: &Schedule) {
    let (mut before, mut at_peak) = (0, false);
    for (k, stage) in schedule.stages().iter().enumerate() {
        let (own, growth) = (schedule.steps_of(k, before), stage.growth());
        let comes_to_peak = schedule.comes_to_peak(k, before);
        at_peak |= comes_to_peak;
        if let Some(slope) = stage.until().slope.filter(|_| !schedule.judges_slope(k)) {
            output::note(&format!(
                "warning: stages[{k}].until.slope = {slope}: a slope is judged from {SLOPE_EVALUATIONS} evaluations within the last factor of four \
                 of compute, and the stage of {own} steps ends before it has them (evaluation.every_steps = {})",
                schedule.evaluation().every_steps
            ));
        }
        if let Some(loss) = stage.until().loss.filter(|_| !schedule.judges_loss(k)) {
            output::note(&format!(
                "warning: stages[{k}].until.loss = {loss}: a loss is judged at evaluations, and the stage of {own} steps ends before it has one \
                 (evaluation.every_steps = {})",
                schedule.evaluation().every_steps
            ));
        }
        if k > 0 && growth.rewarmup_steps > 0 && !comes_to_peak {
            output::note(&format!(
                "warning: stages[{k}].growth.rewarmup_steps = {}: the stage has {own} steps, so the rate never comes back to its peak",
                growth.rewarmup_steps
            ));
        }
        let is_wsd = schedule.learning_rate().shape == DecayShape::Wsd;
        let decays = is_wsd && k + 1 == schedule.stages().len();
        if let Some(resumed) = growth.resumed_step.filter(|resumed| decays && *resumed > before) {
            output::note(&format!(
                "warning: stages[{k}].growth.resumed_step = {resumed}: {before} steps come before it, so the rate decays over more of the \
                 stage than learning_rate says"
            ));
        }
        before = before.saturating_add(own);
    }
    let rate = schedule.learning_rate();
    if rate.final_fraction > 0.0 && rate.decaying_share() == 0.0 {
        output::note(&format!(
            "warning: learning_rate.final_fraction = {}: the rate never decays (decay_fraction = 0)",
            rate.final_fraction
        ));
    }
    if schedule.ends_undecayed() {
        output::note(
            "warning: the last stage may end at a loss or a slope before its learning rate has decayed, and then it has no loss that counts: only \
             ends of runs whose rate decays are compared",
        );
    }
    if let Some(departed) = schedule.departed_from_plan() {
        output::note(&format!("warning: {departed}"));
    }
    if !at_peak {
        output::note(&format!(
            "warning: learning_rate.warmup_steps = {}: the run has {before} steps, so the rate never comes to its peak",
            schedule.learning_rate().warmup_steps
        ));
    }
}

/// Says where the passes of a step, each of which keeps one thread of the CPU busy, are fewer than the threads and could be more.
fn tell_idle_threads(schedule: &Schedule) {
    let threads = rayon::current_num_threads() as u64;
    let sequences = schedule.batch().final_tokens() / schedule.context_len() as u64;
    let micro_batch = schedule.micro_batch() as u64;
    let passes = sequences.div_ceil(micro_batch);
    let smaller = (sequences / threads).max(1);
    if passes < threads && smaller < micro_batch {
        output::note(&format!(
            "note: batch.micro_batch = {micro_batch}: a step of {} keeps {passes} of {threads} threads busy; {smaller} would keep {}",
            output::counted(sequences, "sequence"),
            sequences.div_ceil(smaller).min(threads)
        ));
    }
}

/// Runs with progress and signals connected.
pub fn run(options: RunOptions) -> Result<RunSummary> {
    use_threads(options.schedule.machine().threads)?;
    if options.device == DeviceChoice::Cpu {
        tell_idle_threads(&options.schedule);
    }
    let stop = stop_on_signals()?;
    let mut progress = Progress::new();
    Ok(train(&options, &mut |event| progress.show(event), stop)?)
}

/// Set when Ctrl-C or SIGTERM comes; a second one ends the program at once.
pub fn stop_on_signals() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    static ONCE: OnceLock<Result<(), ctrlc::Error>> = OnceLock::new();
    let set = ONCE.get_or_init(|| {
        ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            output::note("stopping; interrupt again to quit at once, without saving");
        })
    });
    match set {
        Ok(()) => Ok(&STOP),
        Err(error) => bail!("signals cannot be caught: {error}"),
    }
}

/// Sets the number of threads of everything that runs on the CPU.
pub fn use_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("machine.threads = {threads}: the threads cannot be started"))
}

/// Prints the end of a run.
pub fn report(summary: &RunSummary) -> Result<()> {
    let how = match summary.outcome {
        Outcome::Finished => "finished",
        Outcome::TargetReached => "target reached",
        Outcome::Interrupted => "interrupted",
    };
    let flops = Flops(summary.compute_flops);
    output::line(&format!(
        "{how}: step {}, {} tokens, {flops} ({})",
        summary.step,
        output::count(summary.tokens),
        PfDays::from(flops),
    ))?;
    let loss = |loss: Option<f64>| loss.map_or("none".into(), |loss| format!("{loss:.4}"));
    output::line(&format!(
        "training loss {} nats per token, held-out {}",
        loss(summary.train_loss),
        loss(summary.val_loss),
    ))?;
    if let (Some(floor), Some(val_loss)) = (summary.loss_floor, summary.val_loss) {
        output::line(&format!(
            "floor {floor:.4} nats per token (the source's own entropy): {:.4} left to learn",
            val_loss - floor,
        ))?;
    }
    // A run that was over has no speed.
    if summary.tokens_per_second > 0.0 {
        output::line(&format!(
            "{:.0} tokens/s, {:.2} % of it spent on data, {} in all",
            summary.tokens_per_second,
            100.0 * summary.data_share,
            output::duration(summary.wall_seconds),
        ))?;
    }
    output::line(&format!("checkpoint: {}", summary.checkpoint.display()))
}
