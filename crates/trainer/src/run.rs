mod beginning;

pub use beginning::TENSOR_LIBRARY;
pub(crate) use beginning::{loaded, origin};

use crate::evaluate::whole_sequences;
use crate::learner::check_finite;
use crate::memory::{Passes, check_memory};
use crate::{EvaluationSet, Event, Learner, Outcome, RunFolder, RunSummary, TrainError};
use beginning::{Beginning, machine_change};
use burn::tensor::Device;
use corpus::Corpus;
use measure::{CurvePoint, CurveWriter, slope_at_end};
use model::DeviceChoice;
use schedule::{SLOPE_EVALUATIONS, Schedule};
use state::{CheckpointStore, Origin, Skipped, TrainingState};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Standard errors by which a slope must lie above the one that ends a stage: at each evaluation noise has a chance to end it too
/// early.
const SURE: f64 = 2.0;

/// A run to make.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What to run.
    pub schedule: Schedule,
    /// The run's folder.
    pub folder: PathBuf,
    /// Where to run it.
    pub device: DeviceChoice,
    /// Whether to go on from the newest whole checkpoint in the folder.
    pub resume: bool,
    /// A run's folder: this one begins with the steps that the two have in common, if it has none of its own yet.
    pub branch_of: Option<PathBuf>,
    /// The command that asks for it, for the record.
    pub command: String,
}

/// Trains as the schedule says, until its end or until `stop` is set; then saves and returns. Threads are those of the
/// rayon pool that it is called in: `machine.threads` is for the caller to see to. (A BPE is trained by the global pool.)
///
/// # Errors
/// Data, folder, device or checkpoints that cannot be used; a loss that is no longer finite.
pub fn train(
    options: &RunOptions,
    observe: &mut dyn FnMut(&Event),
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    let device = options.device.open(options.schedule.machine().precision)?;
    // Before text is made into tokens, which may take long; with the vocabulary, again below.
    for stage in options.schedule.stages() {
        check_memory(&stage.shape(1), options.device, Passes::of(&options.schedule))?;
    }
    let mut folder = RunFolder::take(&options.folder, &options.schedule, options.resume)?;
    if folder.has_saved() && CheckpointStore::reader(&folder.checkpoints()).is_empty()? {
        let reason = "its checkpoints are gone, and starting again would overwrite its measurements; choose \
                      another --out";
        return Err(TrainError::folder(folder.root(), reason));
    }
    let begun = match Beginning::prepare(options, &mut folder, observe, stop) {
        Ok(begun) => begun,
        Err(error) => {
            folder.abandon();
            return Err(error);
        }
    };
    let Beginning { corpus, made_tokens, origin, start, common, first } = begun;
    if let Err(error) = folder.begin(&options.schedule) {
        folder.abandon();
        return Err(error);
    }
    if common.is_none() && CheckpointStore::reader(&folder.checkpoints()).is_empty()? {
        folder.forget_branch()?;
    }
    if let Some(start) = start {
        folder.write_start(&start)?;
        tell(&mut folder, observe, &Event::StartedWith(start))?;
    }
    if let Some(common) = common {
        let (branch, skipped) = common.write(&folder)?;
        tell_skipped(&mut folder, observe, skipped)?;
        tell(&mut folder, observe, &Event::Branched(branch))?;
    }
    let goes_on = folder.begun();
    let opened = Run::open(options, folder, corpus, origin, device, first, observe);
    if opened.is_err() && goes_on && made_tokens {
        // Of a text that is another now: they would pass for the run's own.
        RunFolder::remove_tokens(&options.folder);
    }
    opened?.finish(observe, stop)
}

/// A run between two steps.
struct Run<'a> {
    schedule: &'a Schedule,
    folder: RunFolder,
    evaluation: EvaluationSet,
    store: CheckpointStore,
    metrics: CurveWriter,
    origin: Origin,
    command: String,
    learner: Learner,
    last_point: Option<CurvePoint>,
    /// Compute and held-out loss at the evaluations of this stage.
    evaluated: Vec<(f64, f64)>,
    /// Newest held-out loss of the run.
    val_loss: Option<f64>,
    newest_checkpoint: Option<PathBuf>,
    /// Broken checkpoints that were passed over: they go once a whole one is there instead.
    broken: Vec<PathBuf>,
    clock: Clock,
}

/// Where the time of this process goes.
struct Clock {
    start: Instant,
    /// Wall-clock time of the run before this process.
    before: f64,
    data: f64,
    steps: f64,
    tokens: u64,
}

impl Clock {
    fn wall_seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}

impl<'a> Run<'a> {
    fn open(
        options: &'a RunOptions,
        mut folder: RunFolder,
        corpus: Corpus,
        origin: Origin,
        device: Device,
        first: Option<TrainingState>,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Self, TrainError> {
        let schedule = &options.schedule;
        let store = CheckpointStore::open(&folder.checkpoints())?;
        let (checkpoint, skipped) = store.newest_whole()?;
        if checkpoint.is_none() && !skipped.is_empty() {
            let reasons: Vec<String> = skipped.into_iter().map(|one| one.reason).collect();
            let reason = format!(
                "no checkpoint is whole ({}); to start again, choose another --out",
                reasons.join("; ")
            );
            return Err(TrainError::folder(&folder.checkpoints(), reason));
        }
        let broken = skipped.iter().map(|one| one.path.clone()).collect();
        tell_skipped(&mut folder, observe, skipped)?;
        let newest_checkpoint = checkpoint.as_ref().map(|found| found.path().to_path_buf());
        let state = match checkpoint {
            Some(checkpoint) => {
                let mut state = loaded(&checkpoint, schedule, corpus.n_vocab(), &origin)?;
                if let Some(event) = machine_change(&state.origin, &origin) {
                    tell(&mut folder, observe, &event)?;
                }
                state.origin = origin.clone();
                state
            }
            None => {
                first.unwrap_or_else(|| Learner::initial_state(schedule, &corpus, origin.clone()))
            }
        };
        if folder.begun() {
            folder.write_schedule(schedule)?;
        }
        let (metrics, curve) = CurveWriter::resume(&folder.metrics(), state.position.step)?;
        let last_point = curve.points.last().cloned();
        let clock = Clock {
            start: Instant::now(),
            before: last_point.as_ref().map_or(0.0, |point| point.wall_seconds),
            data: 0.0,
            steps: 0.0,
            tokens: 0,
        };
        let evaluation =
            EvaluationSet::new(&corpus, schedule.evaluation().tokens, schedule.context_len());
        let in_stage = |point: &CurvePoint| point.stage == state.position.stage;
        let of_stage = curve.evaluated().filter(|(point, _)| in_stage(point));
        let newest = curve.evaluated().last().map(|(_, loss)| loss);
        let before = state.position.earlier.compute_flops;
        Ok(Self {
            schedule,
            evaluation,
            folder,
            store,
            metrics,
            origin,
            command: options.command.clone(),
            evaluated: of_stage.map(|(point, loss)| (before + point.compute_flops, loss)).collect(),
            val_loss: newest,
            learner: Learner::new(schedule.clone(), Arc::new(corpus), device, state),
            last_point,
            newest_checkpoint,
            broken,
            clock,
        })
    }

    fn finish(
        mut self,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<RunSummary, TrainError> {
        self.course(observe, stop).map_err(|error| self.naming_last_good(error))
    }

    /// All of it, from where it is.
    fn course(
        &mut self,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<RunSummary, TrainError> {
        let started = self.started();
        self.tell(observe, &started)?;
        let context_len = self.schedule.context_len();
        let wanted = whole_sequences(self.schedule.evaluation().tokens, context_len);
        let wanted = wanted * context_len as u64;
        let held_out = self.evaluation.n_tokens();
        if held_out < wanted {
            self.tell(observe, &Event::FewHeldOut { wanted, held_out })?;
        }
        let outcome = loop {
            let reached = self.target_reached()?;
            if reached || self.learner.stage_is_over() {
                if !self.learner.is_last_stage() {
                    if self.grow(observe, stop)? {
                        continue;
                    }
                    break Outcome::Interrupted;
                }
                break if reached { Outcome::TargetReached } else { Outcome::Finished };
            }
            if !self.advance(observe, stop)? {
                break Outcome::Interrupted;
            }
            let due = self.step().is_multiple_of(self.schedule.checkpoint().every_steps);
            if due || self.stable_until() == Some(self.step()) {
                self.save(observe)?;
            }
        };
        let checkpoint = self.save_if_needed(observe)?;
        let summary = self.summary(outcome, checkpoint);
        self.tell(observe, &Event::Ended(summary.clone()))?;
        Ok(summary)
    }

    /// Makes one step, and the evaluation if one is due. Whether it did: it gives the step up when `stop` is set.
    fn advance(
        &mut self,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<bool, TrainError> {
        let Some(made) = self.learner.advance(stop)? else { return Ok(false) };
        self.clock.steps += made.seconds;
        self.clock.data += made.data_seconds;
        self.clock.tokens += made.tokens;
        let val_loss = self.evaluated()?;
        let position = self.learner.position();
        let point = CurvePoint {
            stage: position.stage,
            step: position.step,
            tokens: position.tokens,
            compute_flops: position.compute_flops,
            train_loss: made.train_loss,
            val_loss,
            learning_rate: made.learning_rate,
            grad_norm: made.grad_norm,
            tokens_per_second: made.tokens as f64 / made.seconds,
            wall_seconds: self.clock.wall_seconds(),
        };
        self.metrics.append(&point)?;
        self.last_point = Some(point.clone());
        let (n_steps, total_flops) = (self.learner.n_steps(), self.learner.compute_flops());
        self.tell(observe, &Event::Step { point, n_steps, total_flops })?;
        Ok(true)
    }

    fn evaluated(&mut self) -> Result<Option<f64>, TrainError> {
        let due = self.step().is_multiple_of(self.schedule.evaluation().every_steps);
        if !due && !self.learner.stage_is_over() {
            return Ok(None);
        }
        let loss = self.learner.evaluate(&self.evaluation)?;
        self.evaluated.push((self.compute_in_all(), loss));
        self.val_loss = Some(loss);
        Ok(Some(loss))
    }

    /// Grows into the next stage. The state before it is on disk, so that a run that is killed in the
    /// middle grows again. Whether it did: it gives the growth up when `stop` is set.
    fn grow(
        &mut self,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<bool, TrainError> {
        self.save_if_needed(observe)?;
        let Some(report) = self.learner.grow(&self.evaluation, stop)? else { return Ok(false) };
        self.folder.write_growth(&report)?;
        self.evaluated.clear();
        self.tell(observe, &Event::Grown(Box::new(report)))?;
        Ok(true)
    }

    fn naming_last_good(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::NotFinite { step, updates, quantity, value, .. } => {
                let last_good = self.newest_checkpoint.clone();
                TrainError::NotFinite { step, updates, quantity, value, last_good }
            }
            other => other,
        }
    }

    /// Whether the loss or the slope is reached at which the stage ends.
    fn target_reached(&self) -> Result<bool, TrainError> {
        let until = self.learner.stage().until();
        let by_loss =
            until.loss.zip(self.evaluated.last()).is_some_and(|(goal, (_, loss))| *loss <= goal);
        // The slope changes with an evaluation alone, and costs a fit to all of the stage's.
        let here = self.compute_in_all();
        let is_new = self.evaluated.last().is_some_and(|(compute, _)| *compute == here);
        let by_slope = match until.slope.filter(|_| is_new) {
            // The logarithm of a loss of 0, which a text of one letter comes to, has no slope.
            Some(_) if self.evaluated.iter().any(|(_, loss)| *loss <= 0.0) => false,
            Some(goal) => slope_at_end(&self.evaluated, SLOPE_EVALUATIONS)?
                .is_some_and(|slope| slope.value - SURE * slope.standard_error >= goal),
            None => false,
        };
        Ok(by_loss || by_slope)
    }

    /// That of this run and of the model that it began with, FLOPs: the slope of a loss is over all that was spent on it.
    fn compute_in_all(&self) -> f64 {
        let position = self.learner.position();
        position.earlier.compute_flops + position.compute_flops
    }

    fn step(&self) -> u64 {
        self.learner.position().step
    }

    /// The step whose checkpoint is kept for good.
    fn stable_until(&self) -> Option<u64> {
        let position = self.learner.position();
        self.schedule.stable_until(position.stage, position.step - position.stage_step)
    }

    fn save(&mut self, observe: &mut dyn FnMut(&Event)) -> Result<PathBuf, TrainError> {
        let began = Instant::now();
        // What an update has ruined must not replace the last good state.
        let probe = self.evaluation.first();
        let loss = self.learner.gpt().loss(probe, self.schedule.context_len())?;
        check_finite(self.step(), self.step(), "the loss after the update", loss)?;
        self.metrics.sync()?;
        let (keep, kept) = (self.schedule.checkpoint().keep, self.stable_until());
        // What is broken takes no place of what is kept.
        let path = self.store.save(&self.learner.state(), keep + self.broken.len(), kept)?;
        for broken in self.broken.drain(..).filter(|broken| *broken != path) {
            match std::fs::remove_dir_all(&broken) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(TrainError::io(&broken)(error));
                }
                _ => {}
            }
        }
        self.newest_checkpoint = Some(path.clone());
        let seconds = began.elapsed().as_secs_f64();
        self.tell(observe, &Event::Saved { step: self.step(), path: path.clone(), seconds })?;
        Ok(path)
    }

    /// Saves unless the newest checkpoint is of this very step.
    fn save_if_needed(&mut self, observe: &mut dyn FnMut(&Event)) -> Result<PathBuf, TrainError> {
        match &self.newest_checkpoint {
            Some(path) if *path == self.store.path_of(self.step()) => Ok(path.clone()),
            _ => self.save(observe),
        }
    }

    fn started(&self) -> Event {
        let shape = self.learner.shape();
        let n_steps = self.learner.n_steps();
        let n_tokens = self.schedule.batch().tokens_through(n_steps);
        Event::Started {
            versions: self.origin.versions.clone(),
            command: self.command.clone(),
            machine: processor(),
            device: self.origin.device.clone(),
            threads: self.origin.threads,
            shape,
            n_params: shape.n_params(),
            n_params_total: shape.n_params_total(),
            flops_per_token: shape.flops_per_token(),
            flops_per_token_exact: shape.flops_per_token_exact(),
            first_step: self.step(),
            n_steps,
            n_tokens,
            epochs: self.learner.corpus().n_training_tokens().map(|n| n_tokens as f64 / n as f64),
            n_stages: self.schedule.stages().len(),
            vocabulary: self.origin.vocabulary.clone(),
            loss_floor: self.learner.corpus().loss_floor(),
        }
    }

    fn summary(&self, outcome: Outcome, checkpoint: PathBuf) -> RunSummary {
        let position = self.learner.position();
        RunSummary {
            outcome,
            step: position.step,
            tokens: position.tokens,
            compute_flops: position.compute_flops,
            train_loss: self.last_point.as_ref().map(|point| point.train_loss),
            val_loss: self.val_loss,
            loss_floor: self.learner.corpus().loss_floor(),
            checkpoint,
            tokens_per_second: self.clock.tokens as f64 / self.clock.steps.max(f64::MIN_POSITIVE),
            data_share: self.clock.data / self.clock.steps.max(f64::MIN_POSITIVE),
            wall_seconds: self.clock.wall_seconds(),
        }
    }

    fn tell(&mut self, observe: &mut dyn FnMut(&Event), event: &Event) -> Result<(), TrainError> {
        tell(&mut self.folder, observe, event)
    }
}

/// Name of the processor, of Linux's /proc.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).to_string())
}

fn tell(
    folder: &mut RunFolder,
    observe: &mut dyn FnMut(&Event),
    event: &Event,
) -> Result<(), TrainError> {
    observe(event);
    folder.record(event)
}

fn tell_skipped(
    folder: &mut RunFolder,
    observe: &mut dyn FnMut(&Event),
    skipped: Vec<Skipped>,
) -> Result<(), TrainError> {
    for Skipped { path, reason } in skipped {
        tell(folder, observe, &Event::Skipped { path, reason })?;
    }
    Ok(())
}
