use crate::check::Checker;
use crate::file::{ScheduleFile, StageFile};
use crate::{
    AdamWSettings, Batch, CheckpointSettings, DataSource, EvaluationSettings, Growth, LearningRate,
    Machine, Prediction, Ramp, ScheduleError, Until,
};
use measure::{GptShape, MOST_STEPS, Parametrization};
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// A checked schedule: a complete run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(crate) file: ScheduleFile,
    batch: Batch,
    stages: Vec<Stage>,
}

/// One stage: a shape, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    shape: GptShape,
    until: Until,
    growth: Growth,
}

impl Stage {
    /// The stage's shape for a vocabulary, which the data fixes.
    pub fn shape(&self, n_vocab: usize) -> GptShape {
        GptShape { n_vocab, ..self.shape }
    }

    /// The stage's limits: steps, tokens and compute of its own, not of those before it.
    pub fn until(&self) -> Until {
        self.until
    }

    /// How its model comes from the one before it; without meaning in the first stage.
    pub fn growth(&self) -> &Growth {
        &self.growth
    }
}

impl Schedule {
    /// Reads and checks a schedule file.
    ///
    /// # Errors
    /// An unreadable file, an unknown or missing key, or a value out of range; the message names
    /// the file, the key or line, and what would be right.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let refused = |cause| ScheduleError::Read { path: path.to_path_buf(), cause };
        if path.is_dir() {
            let cause = ErrorKind::IsADirectory;
            return Err(refused(Error::new(cause, "is a folder; name a schedule, a .toml file")));
        }
        let text = std::fs::read_to_string(path).map_err(refused)?;
        Self::parse(&text, path)
    }

    /// Parses and checks a schedule; `path` is for messages.
    ///
    /// # Errors
    /// As [`Schedule::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScheduleError> {
        let file: ScheduleFile = toml::from_str(text).map_err(|error| {
            let mut message = error.to_string().trim_end().to_string();
            // Of a table whose kind is one of its keys the parser tells the table's line alone.
            let key = key_at_fault::<DataSource>(text, "data", "source")
                .or_else(|| key_at_fault::<Parametrization>(text, "parametrization", "kind"));
            if let Some(key) = key.filter(|key| !message.contains(&format!("`{key}`"))) {
                message = format!("{message} ({key})");
            }
            ScheduleError::Syntax { path: path.to_path_buf(), message }
        })?;
        Self::check(file, path)
    }

    /// The schedule as TOML; parsing it gives this schedule again.
    ///
    /// # Panics
    /// Never: every checked schedule has a TOML form.
    #[allow(clippy::missing_panics_doc)]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file).expect("every checked schedule has a TOML form")
    }

    pub(crate) fn check(mut file: ScheduleFile, path: &Path) -> Result<Self, ScheduleError> {
        Checker { path }.check(&file)?;
        let shapes: Vec<GptShape> =
            file.stages.iter().map(|stage| stage_shape(&file, stage)).collect();
        // One stage is written in one way, so that files can be compared.
        for (i, (stage, shape)) in file.stages.iter_mut().zip(&shapes).enumerate() {
            (stage.d_head, stage.d_ff) = shape.inside();
            if i > 0 {
                stage.growth.get_or_insert_default();
            }
        }
        let batch = file.batch.course(file.model.context_len);
        let stages: Vec<Stage> = file
            .stages
            .iter()
            .zip(shapes)
            .map(|(stage, shape)| Stage {
                shape,
                until: stage.until,
                growth: stage.growth.clone().unwrap_or_default(),
            })
            .collect();
        let schedule = Self { file, batch, stages };
        for (k, stage) in schedule.stages.iter().enumerate() {
            schedule.check_length(stage, &format!("stages[{k}].until"), path)?;
        }
        let alone = schedule.file.from_scratch.and_then(|alone| alone.until);
        if let (Some(until), Some(last)) = (alone, schedule.stages.last()) {
            let alone = Stage { until, ..last.clone() };
            schedule.check_length(&alone, "from_scratch.until", path)?;
        }
        Ok(schedule)
    }

    /// Errs where a stage is longer than any run.
    fn check_length(&self, stage: &Stage, key: &str, path: &Path) -> Result<(), ScheduleError> {
        // So few that tokens of some stages can be summed.
        const MOST_TOKENS: u64 = 1_000_000_000_000_000_000;
        let steps = self.stage_steps(stage, 0);
        let tokens = self.batch.tokens_through(steps);
        for (found, most, unit) in [(steps, MOST_STEPS, "steps"), (tokens, MOST_TOKENS, "tokens")] {
            if found > most {
                return Err(ScheduleError::Value {
                    path: path.to_path_buf(),
                    key: key.to_string(),
                    value: format!("{found:e} {unit}"),
                    expected: format!("must be at most {most:e} {unit}"),
                });
            }
        }
        Ok(())
    }

    /// Name of the run.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Seed of initialisation and data order.
    pub fn seed(&self) -> u64 {
        self.file.seed
    }

    /// Where the tokens come from.
    pub fn data(&self) -> &DataSource {
        &self.file.data
    }

    /// Longest sequence, in tokens.
    pub fn context_len(&self) -> usize {
        self.file.model.context_len
    }

    /// The checkpoint whose parameters and moments the first stage begins with; random weights where there is none.
    pub fn start(&self) -> Option<&Path> {
        self.file.model.start.as_deref()
    }

    /// How initialisation and learning rates depend on the width.
    pub fn parametrization(&self) -> Parametrization {
        self.file.parametrization
    }

    /// The optimizer's constants.
    pub fn optimizer(&self) -> AdamWSettings {
        self.file.optimizer
    }

    /// The learning rate's course.
    pub fn learning_rate(&self) -> LearningRate {
        self.file.learning_rate
    }

    /// Tokens in each step.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// How the batch rises to the full one, where it does.
    pub fn ramp(&self) -> Option<Ramp> {
        self.file.batch.ramp
    }

    /// Sequences in one forward pass: no more than there are in a full batch.
    pub fn micro_batch(&self) -> usize {
        let of_batch = self.file.batch.tokens / self.file.model.context_len as u64;
        self.file.batch.micro_batch.min(of_batch as usize)
    }

    /// When and on how much the held-out loss is measured.
    pub fn evaluation(&self) -> EvaluationSettings {
        self.file.evaluation
    }

    /// When the state is saved.
    pub fn checkpoint(&self) -> CheckpointSettings {
        self.file.checkpoint
    }

    /// How the machine is used.
    pub fn machine(&self) -> Machine {
        self.file.machine
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// What the plan expects, where the schedule was planned.
    pub fn prediction(&self) -> Option<&Prediction> {
        self.file.prediction.as_ref()
    }

    /// 6 N D of the pilot runs that it was planned with, FLOPs.
    pub fn pilot_compute(&self) -> Option<f64> {
        self.prediction().and_then(|plan| plan.pilot_compute).or(self.file.pilot_compute)
    }
}

/// The key of a table, other than that of its kind, without which it would have another fault, or none.
fn key_at_fault<T: DeserializeOwned>(text: &str, name: &str, kind: &str) -> Option<String> {
    let file: toml::Table = text.parse().ok()?;
    let table = file.get(name)?.as_table()?;
    let fault = |table: &toml::Table| {
        let found = toml::Value::Table(table.clone()).try_into::<T>();
        found.err().map(|error| error.to_string())
    };
    let whole = fault(table)?;
    let is_at_fault = |key: &&String| {
        let mut without = table.clone();
        without.remove(*key);
        fault(&without).as_ref() != Some(&whole)
    };
    table.keys().filter(|key| *key != kind).find(is_at_fault).cloned()
}

/// The shape with a vocabulary of one, until the data says how large it is; its sizes are not checked.
pub(crate) fn stage_shape(file: &ScheduleFile, stage: &StageFile) -> GptShape {
    let StageFile { n_layers, d_model, n_heads, d_head, d_ff, .. } = *stage;
    let plain = GptShape {
        context_len: file.model.context_len,
        tied_head: file.model.tied_head,
        ..GptShape::gpt2(n_layers, d_model, n_heads)
    };
    plain.with_inside(d_head, d_ff)
}

#[cfg(test)]
pub(crate) mod tests;
