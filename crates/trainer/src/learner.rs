use crate::adamw::gradient_norm;
use crate::gradients::{BatchGradients, batch_gradients};
use crate::growth::{GrowthReport, check_growth, growth_seed, reestimated_moments};
use crate::{AdamW, EvaluationSet, TrainError, mean_loss};
use burn::tensor::Device;
use corpus::Corpus;
use growth::GrowthOperator;
use measure::{Flops, GptShape};
use model::{Gpt, to_device, to_host};
use schedule::{MomentRule, Schedule, Stage};
use state::{Moments, Origin, Position, TrainingState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A training state on a device, and the steps and growths that a schedule makes with it: the whole of
/// training but for files.
pub struct Learner {
    schedule: Schedule,
    corpus: Arc<Corpus>,
    device: Device,
    gpt: Gpt,
    adamw: AdamW,
    /// All but the tensors of the state, which are in `gpt` and `adamw`.
    frame: TrainingState,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Mean loss of its batch before the update, nats per token.
    pub train_loss: f64,
    /// Euclidean norm of the gradient before it is clipped.
    pub grad_norm: f64,
    /// Learning rate at the base width.
    pub learning_rate: f64,
    /// Tokens of its batch.
    pub tokens: u64,
    /// Time of the step.
    pub seconds: f64,
    /// Time of it that went into fetching data.
    pub data_seconds: f64,
}

impl Learner {
    /// A learner that goes on from a state of this schedule.
    pub fn new(
        schedule: Schedule,
        corpus: Arc<Corpus>,
        device: Device,
        state: TrainingState,
    ) -> Self {
        let gpt = model_of(&schedule, &state, &device);
        let adamw = optimizer(&schedule, &state, &device);
        Self { schedule, corpus, device, gpt, adamw, frame: without_tensors(state) }
    }

    /// The state before the first step of a schedule.
    pub fn initial_state(schedule: &Schedule, corpus: &Corpus, origin: Origin) -> TrainingState {
        let shape = schedule.stages()[0].shape(corpus.n_vocab());
        TrainingState::init(shape, schedule.parametrization(), origin)
    }

    /// The model.
    pub fn gpt(&self) -> &Gpt {
        &self.gpt
    }

    /// Shape of the model.
    pub fn shape(&self) -> GptShape {
        self.frame.shape
    }

    /// Where the run stands.
    pub fn position(&self) -> Position {
        self.frame.position
    }

    /// The tokens.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The stage that the run stands in.
    pub fn stage(&self) -> &Stage {
        &self.schedule.stages()[self.position().stage]
    }

    /// Steps made before this stage.
    fn before_stage(&self) -> u64 {
        self.position().step - self.position().stage_step
    }

    /// Whether this stage has made all its steps.
    pub fn stage_is_over(&self) -> bool {
        let steps = self.schedule.steps_of(self.position().stage, self.before_stage());
        self.position().stage_step >= steps
    }

    /// Whether this stage is the last.
    pub fn is_last_stage(&self) -> bool {
        self.position().stage + 1 == self.schedule.stages().len()
    }

    /// Steps that the whole run makes at most.
    pub fn n_steps(&self) -> u64 {
        self.schedule.n_steps_from(self.position().stage, self.before_stage())
    }

    /// Compute that the steps of the whole run take at most; moments re-estimated later are not in it.
    pub fn compute_flops(&self) -> Flops {
        let batch = self.schedule.batch();
        let mut total = self.position().compute_flops;
        let mut made = self.position().step;
        let mut before = self.before_stage();
        for (k, stage) in self.schedule.stages().iter().enumerate().skip(self.position().stage) {
            let end = before.saturating_add(self.schedule.steps_of(k, before));
            let tokens = batch.tokens_through(end).saturating_sub(batch.tokens_through(made));
            total += stage.shape(1).flops_per_token().0 * tokens as f64;
            made = end.max(made);
            before = end;
        }
        Flops(total)
    }

    /// The whole state, in host memory.
    pub fn state(&self) -> TrainingState {
        let (first, second) = self.adamw.moments();
        let shape = &self.frame.shape;
        TrainingState {
            params: to_host(self.gpt.params(), shape),
            moments: Moments { first: to_host(first, shape), second: to_host(second, shape) },
            ..self.frame.clone()
        }
    }

    /// Makes one step, unless `stop` is set meanwhile: the step is given up then, and nothing has changed.
    ///
    /// # Errors
    /// A loss or a gradient that is no longer finite; the update is not made then.
    pub fn advance(&mut self, stop: &AtomicBool) -> Result<Option<Step>, TrainError> {
        let Position { stage, step, stage_step, moment_updates, compute_flops, earlier, .. } =
            self.position();
        let step = step + 1;
        let learning_rate = self.schedule.learning_rate_at(stage, self.before_stage(), step);
        let began = Instant::now();
        let Some(found) = self.gradients(step, stop)? else { return Ok(None) };
        let BatchGradients { loss: train_loss, gradients, data_seconds } = found;
        let grad_norm = gradient_norm(&gradients);
        for (quantity, value) in [("the loss", train_loss), ("the gradient's norm", grad_norm)] {
            check_finite(step, step - 1, quantity, value)?;
        }
        let update = moment_updates + 1;
        self.adamw.update(self.gpt.params_mut(), gradients, grad_norm, update, learning_rate);
        let tokens = self.schedule.batch().tokens_at(step);
        self.frame.position = Position {
            stage,
            stage_step: stage_step + 1,
            moment_updates: update,
            step,
            tokens: self.schedule.batch().tokens_through(step),
            compute_flops: compute_flops + self.shape().flops_per_token().0 * tokens as f64,
            earlier,
        };
        let seconds = began.elapsed().as_secs_f64();
        Ok(Some(Step { train_loss, grad_norm, learning_rate, tokens, seconds, data_seconds }))
    }

    /// What a step's batch gives; `None` where `stop` was set before all of it was done.
    fn gradients(
        &self,
        step: u64,
        stop: &AtomicBool,
    ) -> Result<Option<BatchGradients>, TrainError> {
        let batch = self.schedule.batch();
        let (first, n) = (batch.sequences_before(step), batch.sequences_at(step));
        let (seed, corpus) = (self.schedule.seed(), &self.corpus);
        let goes_on = || !stop.load(Ordering::Relaxed);
        batch_gradients(
            &self.gpt,
            n,
            self.schedule.micro_batch() as u64,
            self.schedule.context_len(),
            |start, n| goes_on().then(|| corpus.training_batch(seed, first + start, n)),
        )
    }

    /// Mean loss over a set of held-out sequences, nats per token.
    ///
    /// # Errors
    /// A loss that is no longer finite.
    pub fn evaluate(&self, set: &EvaluationSet) -> Result<f64, TrainError> {
        let loss = mean_loss(&self.gpt, set, self.schedule.micro_batch(), |_| ())?;
        let step = self.position().step;
        check_finite(step, step, "the held-out loss", loss)?;
        Ok(loss)
    }

    /// Grows into the next stage, and measures on held-out sequences what that did to the model; `None` where `stop` was set
    /// before the moments were estimated anew, and the smaller model stays.
    ///
    /// # Errors
    /// A growth that cannot be made, or one that should have kept the loss and did not.
    pub fn grow(
        &mut self,
        set: &EvaluationSet,
        stop: &AtomicBool,
    ) -> Result<Option<GrowthReport>, TrainError> {
        let began = Instant::now();
        let before = self.state();
        let next = self.position().stage + 1;
        let stage = &self.schedule.stages()[next];
        let operator = GrowthOperator::new(
            before.shape,
            stage.shape(self.corpus.n_vocab()),
            before.parametrization,
            stage.growth(),
            growth_seed(self.schedule.seed(), before.position.growths()),
        )?;
        let mut after = operator.grow(&before)?;
        let seconds = began.elapsed().as_secs_f64();
        let check = check_growth(&operator, &before, &after, set)?;
        self.gpt = model_of(&self.schedule, &after, &self.device);
        if let MomentRule::Reestimated(batches) = operator.moments() {
            let step = after.position.step;
            // A batch that was given up ends the batches; whether one was is seen below.
            let batches_ahead =
                (1..=u64::from(batches)).map_while(|i| self.gradients(step + i, stop).transpose());
            let gradients = batches_ahead.map(|found| {
                let found = found?;
                check_finite(step, step, "the loss", found.loss)?;
                Ok(found.gradients)
            });
            let updates = after.position.moment_updates;
            let moments = reestimated_moments(
                self.schedule.optimizer(),
                step,
                updates,
                &after.shape,
                gradients,
            )?;
            if stop.load(Ordering::Relaxed) {
                self.gpt = model_of(&self.schedule, &before, &self.device);
                return Ok(None);
            }
            after.moments = moments;
            let batch = self.schedule.batch();
            let n = batch.tokens_through(step + u64::from(batches)) - batch.tokens_through(step);
            after.position.compute_flops += after.shape.flops_per_token().0 * n as f64;
        }
        let report = GrowthReport {
            stage: next,
            step: after.position.step,
            operator: operator.describe(),
            moments: operator.moments(),
            loss_preserving: operator.is_loss_preserving(),
            from: before.shape,
            to: after.shape,
            n_params: after.shape.n_params(),
            check,
            reestimation_flops: after.position.compute_flops - before.position.compute_flops,
            seconds,
        };
        self.adamw = optimizer(&self.schedule, &after, &self.device);
        self.frame = without_tensors(after);
        Ok(Some(report))
    }
}

fn model_of(schedule: &Schedule, state: &TrainingState, device: &Device) -> Gpt {
    let machine = schedule.machine();
    Gpt::new(state, device, machine.precision).recomputing(machine.recompute)
}

fn optimizer(schedule: &Schedule, state: &TrainingState, device: &Device) -> AdamW {
    AdamW::new(
        schedule.optimizer(),
        state.shape,
        state.parametrization,
        to_device(&state.moments.first, device),
        to_device(&state.moments.second, device),
    )
}

pub(crate) fn check_finite(
    step: u64,
    updates: u64,
    quantity: &'static str,
    value: f64,
) -> Result<(), TrainError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(TrainError::NotFinite { step, updates, quantity, value, last_good: None })
}

fn without_tensors(mut state: TrainingState) -> TrainingState {
    state.params.clear();
    state.moments.first.clear();
    state.moments.second.clear();
    state
}
