use crate::file::StageFile;
use crate::{DataSource, Growth, Prediction, Schedule, ScheduleError, TextData, TokenData};
use measure::GptShape;
use std::path::{Path, PathBuf};

/// The stages of a plan, to be run as the rest of a schedule says.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRun {
    /// Name of the run.
    pub name: String,
    /// Tokens in each step: whole sequences.
    pub batch_tokens: f64,
    /// The stages.
    pub stages: Vec<PlannedStage>,
    /// What is expected of them.
    pub prediction: Prediction,
}

/// A stage of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedStage {
    /// Shape.
    pub shape: GptShape,
    /// Tokens; rounded to whole steps.
    pub tokens: f64,
    /// Tokens after which it would have its first loss from scratch.
    pub tokens_before: f64,
}

/// A stage by its shape and its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSpec {
    /// Shape; the data fixes its vocabulary, and the schedule the rest.
    pub shape: GptShape,
    /// Steps.
    pub steps: u64,
    /// How it comes from the one before it; by default settings when it is absent.
    pub growth: Option<Growth>,
}

impl StageSpec {
    /// A stage of a shape.
    pub fn new(shape: &GptShape, steps: u64, growth: Option<Growth>) -> Self {
        Self { shape: *shape, steps, growth }
    }
}

/// Share of all steps that the warm-up takes at most.
const MOST_WARMUP: f64 = 0.05;

/// Evaluations and checkpoints in a planned run.
const EVALUATIONS: u64 = 80;
const CHECKPOINTS: u64 = 20;

impl Schedule {
    /// Errs if the schedule begins with a model that is there, and is to be planned or a law to be measured with.
    ///
    /// # Errors
    /// `model.start`, by its value; `path` is for the message.
    pub fn check_random_start(&self, path: &Path) -> Result<(), ScheduleError> {
        let Some(start) = self.start() else { return Ok(()) };
        let expected = "laws, plans and pilot runs are of models from random weights; leave it out";
        Err(ScheduleError::Value {
            path: path.to_path_buf(),
            key: "model.start".to_string(),
            value: start.display().to_string(),
            expected: expected.to_string(),
        })
    }

    /// The same run through other stages, from random weights.
    ///
    /// # Errors
    /// Stages that no schedule can have, or a schedule that begins with a model that is there.
    pub fn with_stages(mut self, stages: Vec<StageSpec>) -> Result<Self, ScheduleError> {
        self.check_random_start(Path::new("the schedule"))?;
        let file = |stage: StageSpec| StageFile::new(&stage.shape, stage.steps, stage.growth);
        self.file.stages = stages.into_iter().map(file).collect();
        self.file.prediction = None;
        self.file.forget_other_stages();
        Self::check(self.file, Path::new("the stages"))
    }

    /// The same run with a warm-up of at most a share of its steps.
    #[must_use]
    pub fn with_warmup_at_most(mut self, share: f64) -> Self {
        let most = (share * self.n_steps() as f64).ceil() as u64;
        self.file.learning_rate.warmup_steps = self.file.learning_rate.warmup_steps.min(most);
        self
    }

    /// The same run on one core, as one of several side by side.
    #[must_use]
    pub fn on_one_thread(mut self) -> Self {
        self.file.machine.threads = Some(1);
        self
    }

    /// The same run under another name.
    ///
    /// # Errors
    /// A name that no folder can have.
    pub fn named(mut self, name: &str) -> Result<Self, ScheduleError> {
        self.file.name = name.to_string();
        Self::check(self.file, Path::new("the name"))
    }

    /// The same planned run with what its plan advised.
    #[must_use]
    pub fn with_advice(mut self, advice: String) -> Self {
        if let Some(prediction) = &mut self.file.prediction {
            prediction.advice = Some(advice);
        }
        self
    }

    /// The same run evaluated at least so many times, evenly over its steps, and saved at every tenth of them.
    ///
    /// # Errors
    /// None that a checked schedule has.
    pub fn with_evaluations(mut self, n: u64) -> Result<Self, ScheduleError> {
        let every = (self.n_steps() / n.max(1)).max(1);
        self.file.evaluation.every_steps = every;
        self.file.checkpoint.every_steps = 10 * every;
        Self::check(self.file, Path::new("the evaluations"))
    }

    /// The same run with its text already made into tokens.
    ///
    /// # Errors
    /// A path that is not UTF-8, which TOML cannot hold.
    pub fn with_tokens(mut self, file: PathBuf) -> Result<Self, ScheduleError> {
        let held_out = self.file.data.validation_fraction();
        let validation_fraction =
            held_out.unwrap_or_else(|| TextData::default().validation_fraction);
        self.file.data = DataSource::Tokens(TokenData { file, validation_fraction });
        Self::check(self.file, Path::new("the token file"))
    }

    /// The same run with another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.file.seed = seed;
        self
    }

    /// This schedule with the stages of a plan instead of its own, its batch rising as here, and with warm-up, evaluations and
    /// checkpoints in proportion to their length. The learning rate is not re-warmed: that was measured to cost
    /// (docs/GROWTH.md; the authors re-warm over 150 to 200 of 3,000 steps).
    ///
    /// # Errors
    /// Stages that no schedule can have, a batch that is not of whole sequences or not the one that this schedule's ramp rises to, or a
    /// schedule that begins with a model that is there.
    pub fn with_plan(mut self, plan: PlannedRun) -> Result<Self, ScheduleError> {
        self.check_random_start(Path::new("the template"))?;
        let context_len = self.context_len();
        let batch_tokens = plan.batch_tokens as u64;
        if self.file.batch.ramp.is_some() && batch_tokens != self.batch().final_tokens() {
            return Err(ScheduleError::Value {
                path: PathBuf::from("the template"),
                key: "batch.tokens".to_string(),
                value: self.batch().final_tokens().to_string(),
                expected: format!(
                    "a ramp rises to it, and the plan's batches are of {batch_tokens} tokens; add --batch {}, or leave out [batch.ramp]",
                    self.batch().final_tokens()
                ),
            });
        }
        let file = &mut self.file;
        file.batch.tokens = batch_tokens;
        let batch = file.batch.course(context_len);
        // A ramp goes on over the stages, so that a stage's steps depend on where it begins.
        let mut ends = vec![0];
        for stage in &plan.stages {
            let start = ends[ends.len() - 1];
            let end = batch.nearest_step(batch.tokens_through(start) as f64 + stage.tokens);
            ends.push(end.max(start + 1));
        }
        let n_steps = ends[ends.len() - 1];
        file.name = plan.name;
        file.batch.micro_batch =
            file.batch.micro_batch.min(batch_tokens as usize / context_len).max(1);
        file.evaluation.every_steps = (n_steps / EVALUATIONS).max(1);
        file.checkpoint.every_steps = (n_steps / CHECKPOINTS).max(1);
        file.stages = plan
            .stages
            .iter()
            .zip(ends.windows(2))
            .enumerate()
            .map(|(i, (stage, ends))| {
                let growth = (i > 0).then(|| Growth {
                    resumed_step: Some(batch.nearest_step(stage.tokens_before).max(1)),
                    ..Growth::default()
                });
                StageFile::new(&stage.shape, ends[1] - ends[0], growth)
            })
            .collect();
        file.prediction = Some(plan.prediction);
        file.forget_other_stages();
        Ok(Self::check(self.file, Path::new("the plan"))?.with_warmup_at_most(MOST_WARMUP))
    }
}
