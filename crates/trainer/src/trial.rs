use crate::run::origin;
use crate::{EvaluationSet, GrowthReport, Learner, TrainError};
use corpus::Corpus;
use model::DeviceChoice;
use schedule::{Schedule, StageSpec};
use state::{ParamId, ParamRole, TrainingState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Steps of a trial are not given up.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Runs of one recipe and one seed through stages of their own, on the CPU and without folders, for a comparison of ways to grow.
pub struct Trial {
    recipe: Schedule,
    corpus: Arc<Corpus>,
    evaluation: EvaluationSet,
}

/// A point of a trial's curve.
#[derive(Clone, Copy, Debug)]
pub struct TrialPoint {
    /// Updates since it has been followed.
    pub updates: u64,
    /// Held out, nats per token.
    pub loss: f64,
    /// Of the feed-forward input matrices with themselves when the two halves of the residual stream and of the units change places,
    /// 1 for equal copies; `None` where these have no halves.
    pub cosine_of_copies: Option<f64>,
}

impl Trial {
    /// Runs of a recipe, whose evaluation set is used and whose stages are not.
    pub fn new(recipe: Schedule, corpus: Arc<Corpus>) -> Self {
        let n_tokens = recipe.evaluation().tokens;
        let evaluation = EvaluationSet::new(&corpus, n_tokens, recipe.context_len());
        Self { recipe, corpus, evaluation }
    }

    /// A run through these stages, from a state or from random weights.
    ///
    /// # Errors
    /// Stages that no schedule can have.
    pub fn begin(
        &self,
        stages: Vec<StageSpec>,
        state: Option<TrainingState>,
    ) -> Result<Learner, TrainError> {
        let schedule = self.recipe.clone().with_stages(stages)?;
        let device = DeviceChoice::Cpu.open(schedule.machine().precision)?;
        let state = state.unwrap_or_else(|| {
            let origin = origin(&schedule, DeviceChoice::Cpu, &self.corpus);
            Learner::initial_state(&schedule, &self.corpus, origin)
        });
        Ok(Learner::new(schedule, Arc::clone(&self.corpus), device, state))
    }

    /// Makes steps without a look at the loss.
    ///
    /// # Errors
    /// A loss or a gradient that is not finite.
    pub fn train(learner: &mut Learner, steps: u64) -> Result<(), TrainError> {
        (0..steps).try_for_each(|_| learner.advance(&NEVER).map(|_| ()))
    }

    /// Grows into the next stage.
    ///
    /// # Errors
    /// A growth that cannot be made, or that moves a loss which it keeps by construction.
    pub fn grow(&self, learner: &mut Learner) -> Result<Option<GrowthReport>, TrainError> {
        learner.grow(&self.evaluation, &NEVER)
    }

    /// Evaluates, and trains for `every` updates, in turns: until `updates` are made or `observe` has seen enough.
    ///
    /// # Errors
    /// A loss or a gradient that is not finite.
    pub fn follow(
        &self,
        learner: &mut Learner,
        updates: u64,
        every: u64,
        observe: &mut dyn FnMut(TrialPoint) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let mut made = 0;
        loop {
            let loss = learner.evaluate(&self.evaluation)?;
            let cosine_of_copies = cosine_of_copies(&learner.state());
            let seen = observe(TrialPoint { updates: made, loss, cosine_of_copies });
            if seen.is_break() || made + every > updates {
                return Ok(());
            }
            Self::train(learner, every)?;
            made += every;
        }
    }
}

fn cosine_of_copies(state: &TrainingState) -> Option<f64> {
    let (d, f) = (state.shape.d_model, state.shape.d_ff);
    if !d.is_multiple_of(2) || !f.is_multiple_of(2) {
        return None;
    }
    let (mut dot, mut square) = (0.0, 0.0);
    for layer in 0..state.shape.n_layers {
        let weight = &state.params[&ParamId::in_block(ParamRole::FeedForwardInWeight, layer)].data;
        for row in 0..d {
            for column in 0..f {
                let other = (row + d / 2) % d * f + (column + f / 2) % f;
                let x = f64::from(weight[row * f + column]);
                dot += x * f64::from(weight[other]);
                square += x * x;
            }
        }
    }
    Some(dot / square)
}
