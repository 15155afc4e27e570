use crate::adamw::gradient_norm;
use crate::data::{open_corpus, prepare_text};
use crate::gradients::batch_gradients;
use crate::{AdamW, EvaluationSet, Event, Outcome, RunFolder, RunSummary, TrainError, mean_loss};
use burn::tensor::Device;
use corpus::Corpus;
use measure::{CurvePoint, CurveWriter, GptShape};
use model::{DeviceChoice, Gpt, Tensors, to_device, to_host};
use schedule::Schedule;
use state::{Checkpoint, CheckpointStore, Moments, Origin, Position, TrainingState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

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
}

/// Trains as the schedule says, until its end or until `stop` is set; then saves and returns.
///
/// # Errors
/// Data, folder, device or checkpoints that cannot be used; a loss that is no longer finite.
pub fn train(
    options: &RunOptions,
    observe: &mut dyn FnMut(&Event),
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    let n_stages = options.schedule.stages().len();
    if n_stages > 1 {
        return Err(TrainError::Stages(n_stages));
    }
    let device = options.device.open(options.schedule.machine().precision)?;
    let mut folder = RunFolder::take(&options.folder, &options.schedule, options.resume)?;
    let prepared = prepare_text(&options.schedule, &options.folder, folder.begun(), observe, stop);
    let opened = prepared.and_then(|()| {
        let corpus = open_corpus(&options.schedule, &options.folder)?;
        options.schedule.stages()[0].shape(corpus.n_vocab()).check()?;
        Ok(corpus)
    });
    let corpus = match opened {
        Ok(corpus) => corpus,
        Err(error) => {
            folder.abandon();
            return Err(error);
        }
    };
    folder.begin(&options.schedule)?;
    Run::open(options, folder, corpus, device, observe)?.finish(observe, stop)
}

/// A run between two steps.
struct Run<'a> {
    schedule: &'a Schedule,
    folder: RunFolder,
    corpus: Corpus,
    evaluation: EvaluationSet,
    store: CheckpointStore,
    metrics: CurveWriter,
    origin: Origin,
    shape: GptShape,
    gpt: Gpt,
    adamw: AdamW,
    /// All but the tensors of the state, which are in `gpt` and `adamw`.
    frame: TrainingState,
    n_steps: u64,
    last_point: Option<CurvePoint>,
    last_val_loss: Option<f64>,
    newest_checkpoint: Option<PathBuf>,
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
        device: Device,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Self, TrainError> {
        let schedule = &options.schedule;
        let shape = schedule.stages()[0].shape(corpus.n_vocab());
        let origin = Origin {
            seed: schedule.seed(),
            vocabulary: corpus.vocabulary(),
            data: corpus.identity(),
            device: options.device.to_string(),
            threads: rayon::current_num_threads(),
            versions: format!("staged {}, burn 0.22.1", env!("CARGO_PKG_VERSION")),
        };
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
        for skipped in skipped {
            let event = Event::Skipped { path: skipped.path, reason: skipped.reason };
            tell(&mut folder, observe, &event)?;
        }
        let newest_checkpoint = checkpoint.as_ref().map(|found| found.path().to_path_buf());
        let state = match checkpoint {
            Some(checkpoint) => {
                let state = loaded(&checkpoint, shape, &origin)?;
                if let Some(event) = machine_change(&state.origin, &origin) {
                    tell(&mut folder, observe, &event)?;
                }
                state
            }
            None => TrainingState::init(shape, schedule.parametrization(), origin.clone()),
        };
        let (metrics, curve) = CurveWriter::resume(&folder.metrics(), state.position.step)?;
        let last_point = curve.points.last().cloned();
        if last_point.as_ref().map_or(0, |point| point.step) != state.position.step {
            let reason = format!(
                "metrics.csv ends before step {}, where the checkpoint stands: it was cut or edited",
                state.position.step
            );
            return Err(TrainError::folder(folder.root(), reason));
        }
        let gpt = Gpt::new(&state, &device, schedule.machine().precision);
        let adamw = AdamW::new(
            schedule.optimizer(),
            shape,
            state.parametrization,
            to_device(&state.moments.first, &device),
            to_device(&state.moments.second, &device),
        );
        let clock = Clock {
            start: Instant::now(),
            before: last_point.as_ref().map_or(0.0, |point| point.wall_seconds),
            data: 0.0,
            steps: 0.0,
            tokens: 0,
        };
        Ok(Self {
            schedule,
            evaluation: EvaluationSet::new(
                &corpus,
                schedule.evaluation().tokens,
                schedule.context_len(),
            ),
            folder,
            corpus,
            store,
            metrics,
            origin,
            shape,
            gpt,
            adamw,
            frame: without_tensors(state),
            n_steps: schedule.n_steps(),
            last_val_loss: curve.evaluated().last().map(|(_, loss)| loss),
            last_point,
            newest_checkpoint,
            clock,
        })
    }

    fn finish(
        mut self,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<RunSummary, TrainError> {
        let started = self.started();
        self.tell(observe, &started)?;
        let outcome = loop {
            if self.target_reached() {
                break Outcome::TargetReached;
            }
            if self.step() >= self.n_steps {
                break Outcome::Finished;
            }
            if stop.load(Ordering::Relaxed) {
                break Outcome::Interrupted;
            }
            self.advance(observe)?;
            if self.step().is_multiple_of(self.schedule.checkpoint().every_steps) {
                self.save(observe)?;
            }
        };
        let checkpoint = self.save_if_needed(observe)?;
        let summary = self.summary(outcome, checkpoint);
        self.tell(observe, &Event::Ended(summary.clone()))?;
        Ok(summary)
    }

    /// Makes one step: data, gradients, update, and the evaluation if one is due.
    fn advance(&mut self, observe: &mut dyn FnMut(&Event)) -> Result<(), TrainError> {
        let step = self.step() + 1;
        let learning_rate = self.schedule.learning_rate().at(step, self.n_steps);
        let began = Instant::now();
        let (train_loss, gradients) = self.gradients(step)?;
        let grad_norm = gradient_norm(&gradients);
        self.check_finite(step, "the loss", train_loss)?;
        self.check_finite(step, "the gradient's norm", grad_norm)?;
        self.adamw.update(self.gpt.params_mut(), gradients, grad_norm, step, learning_rate);
        let tokens = self.schedule.batch().tokens_at(step);
        let seconds = began.elapsed().as_secs_f64();
        self.clock.steps += seconds;
        self.clock.tokens += tokens;
        let tokens_through = self.schedule.batch().tokens_through(step);
        self.frame.position = Position {
            stage: 0,
            step,
            tokens: tokens_through,
            compute_flops: self.shape.flops_per_token().0 * tokens_through as f64,
        };
        let val_loss = self.evaluated(step)?;
        let point = CurvePoint {
            stage: 0,
            step,
            tokens: self.frame.position.tokens,
            compute_flops: self.frame.position.compute_flops,
            train_loss,
            val_loss,
            learning_rate,
            grad_norm,
            tokens_per_second: tokens as f64 / seconds,
            wall_seconds: self.clock.wall_seconds(),
        };
        self.metrics.append(&point)?;
        self.last_point = Some(point.clone());
        let event = Event::Step { point, n_steps: self.n_steps };
        self.tell(observe, &event)
    }

    /// Mean loss of the step's batch and its gradient.
    fn gradients(&mut self, step: u64) -> Result<(f64, Tensors), TrainError> {
        let batch = self.schedule.batch();
        let (first, n) = (batch.sequences_before(step), batch.sequences_at(step));
        let (seed, corpus) = (self.schedule.seed(), &self.corpus);
        let found = batch_gradients(
            &self.gpt,
            n,
            self.schedule.micro_batch() as u64,
            self.schedule.context_len(),
            |start, n| corpus.training_batch(seed, first + start, n),
        )?;
        self.clock.data += found.data_seconds;
        Ok((found.loss, found.gradients))
    }

    fn evaluated(&mut self, step: u64) -> Result<Option<f64>, TrainError> {
        let due = step.is_multiple_of(self.schedule.evaluation().every_steps);
        if !due && step < self.n_steps {
            return Ok(None);
        }
        let loss = mean_loss(&self.gpt, &self.evaluation, self.schedule.micro_batch())?;
        self.check_finite(step, "the held-out loss", loss)?;
        self.last_val_loss = Some(loss);
        Ok(Some(loss))
    }

    fn check_finite(
        &self,
        step: u64,
        quantity: &'static str,
        value: f64,
    ) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let last_good = self.newest_checkpoint.clone();
        Err(TrainError::NotFinite { step, quantity, value, last_good })
    }

    fn target_reached(&self) -> bool {
        let target = self.schedule.stages()[0].until().loss;
        target.is_some_and(|target| self.last_val_loss.is_some_and(|loss| loss <= target))
    }

    fn step(&self) -> u64 {
        self.frame.position.step
    }

    fn state(&self) -> TrainingState {
        let (first, second) = self.adamw.moments();
        TrainingState {
            origin: self.origin.clone(),
            params: to_host(self.gpt.params(), &self.shape),
            moments: Moments {
                first: to_host(first, &self.shape),
                second: to_host(second, &self.shape),
            },
            ..self.frame.clone()
        }
    }

    fn save(&mut self, observe: &mut dyn FnMut(&Event)) -> Result<PathBuf, TrainError> {
        let began = Instant::now();
        // What an update has ruined must not replace the last good state.
        let probe = self.evaluation.first();
        let loss = self.gpt.loss(probe, self.schedule.context_len())?;
        self.check_finite(self.step(), "the loss after the update", loss)?;
        self.metrics.sync()?;
        let path = self.store.save(&self.state(), self.schedule.checkpoint().keep)?;
        self.newest_checkpoint = Some(path.clone());
        let seconds = began.elapsed().as_secs_f64();
        self.tell(observe, &Event::Saved { step: self.step(), path: path.clone(), seconds })?;
        Ok(path)
    }

    /// Saves unless the newest checkpoint is of this very step.
    fn save_if_needed(&mut self, observe: &mut dyn FnMut(&Event)) -> Result<PathBuf, TrainError> {
        let name = format!("step-{:08}", self.step());
        match &self.newest_checkpoint {
            Some(path) if path.ends_with(&name) => Ok(path.clone()),
            _ => self.save(observe),
        }
    }

    fn started(&self) -> Event {
        Event::Started {
            versions: self.origin.versions.clone(),
            device: self.origin.device.clone(),
            threads: self.origin.threads,
            shape: self.shape,
            n_params: self.shape.n_params(),
            n_params_total: self.shape.n_params_total(),
            flops_per_token: self.shape.flops_per_token(),
            flops_per_token_exact: self.shape.flops_per_token_exact(),
            first_step: self.step(),
            n_steps: self.n_steps,
            n_tokens: self.schedule.batch().tokens_through(self.n_steps),
            vocabulary: self.origin.vocabulary.clone(),
            loss_floor: self.corpus.loss_floor(),
        }
    }

    fn summary(&self, outcome: Outcome, checkpoint: PathBuf) -> RunSummary {
        RunSummary {
            outcome,
            step: self.step(),
            tokens: self.frame.position.tokens,
            compute_flops: self.frame.position.compute_flops,
            train_loss: self.last_point.as_ref().map(|point| point.train_loss),
            val_loss: self.last_val_loss,
            loss_floor: self.corpus.loss_floor(),
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

fn tell(
    folder: &mut RunFolder,
    observe: &mut dyn FnMut(&Event),
    event: &Event,
) -> Result<(), TrainError> {
    observe(event);
    folder.record(event)
}

/// A checkpoint's state, if it is one of this run.
fn loaded(
    checkpoint: &Checkpoint,
    shape: GptShape,
    origin: &Origin,
) -> Result<TrainingState, TrainError> {
    let info = checkpoint.info();
    let refuse = |what: &str, there: String, here: String| {
        let reason = format!("{what} is {there} in the checkpoint and {here} in the run");
        Err(TrainError::folder(checkpoint.path(), reason))
    };
    if info.origin.vocabulary != origin.vocabulary {
        let (there, here) = (info.origin.vocabulary.clone(), origin.vocabulary.clone());
        return refuse("the vocabulary", there, here);
    }
    if info.origin.data != origin.data {
        let (there, here) = (info.origin.data.clone(), origin.data.clone());
        return refuse("the data", there, here);
    }
    if info.shape != shape {
        return refuse("the shape", format!("{:?}", info.shape), format!("{shape:?}"));
    }
    if info.origin.seed != origin.seed {
        return refuse("the seed", info.origin.seed.to_string(), origin.seed.to_string());
    }
    Ok(checkpoint.load()?)
}

fn machine_change(before: &Origin, now: &Origin) -> Option<Event> {
    let text = |origin: &Origin| format!("{}, {} threads", origin.device, origin.threads);
    (text(before) != text(now))
        .then(|| Event::MachineChanged { before: text(before), now: text(now) })
}

fn without_tensors(mut state: TrainingState) -> TrainingState {
    state.params.clear();
    state.moments.first.clear();
    state.moments.second.clear();
    state
}
