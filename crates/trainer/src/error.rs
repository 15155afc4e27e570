use std::path::{Path, PathBuf};

/// A run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The schedule cannot be read.
    #[error(transparent)]
    Schedule(#[from] schedule::ScheduleError),
    /// A growth cannot be made.
    #[error(transparent)]
    Growth(#[from] growth::GrowthError),
    /// A growth that keeps the loss by construction did not keep it.
    #[error(
        "growth ({operator}) moved the loss from {} to {} nats per token, by {:.1e} of itself, where \
         rounding moves it by less than 1e-5; largest difference of a logit {:.1e}. The state before \
         it is saved; this is a fault of the program",
        check.loss_before, check.loss_after, check.relative_change(), check.max_abs_delta_logit
    )]
    LossMoved {
        /// The operator.
        operator: String,
        /// What was measured.
        check: crate::GrowthCheck,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Corpus(#[from] corpus::CorpusError),
    /// The model has a shape that cannot be built.
    #[error(transparent)]
    Shape(#[from] measure::ShapeError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// The model is larger than the machine's memory.
    #[error(
        "{shape} takes {needed:.1} GiB, {activations:.1} of them for activations ({tokens} tokens at a time, {passes} times side by side), and \
         there are {there:.1} GiB of memory; train a smaller shape, or with smaller micro-batches, activations recomputed or fewer threads \
         (batch.micro_batch, machine.recompute, machine.threads)"
    )]
    Memory {
        /// The largest shape.
        shape: measure::GptShape,
        /// Passes that run side by side.
        passes: u64,
        /// Tokens of each.
        tokens: u64,
        /// What it takes, GiB.
        needed: f64,
        /// Of that for activations.
        activations: f64,
        /// What there is, GiB.
        there: f64,
    },
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// The record cannot be written or read.
    #[error(transparent)]
    Curve(#[from] measure::CurveError),
    /// The file system refuses.
    #[error("{path}: {cause}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// The run's folder cannot be used for this run.
    #[error("{path}: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why, and what would be right.
        reason: String,
    },
    /// The loss or the gradient is no longer a number.
    #[error(
        "step {step}: {quantity} is {value}; the last good state is {}. Start a run in another --out \
         with {}",
        last_good.as_ref().map_or("the start of the run".to_string(), |path| path.display().to_string()),
        if *updates == 0 { "smaller factors in [parametrization], or another model.start" }
        else { "a lower learning_rate.peak or more learning_rate.warmup_steps" }
    )]
    NotFinite {
        /// Step of which it is.
        step: u64,
        /// Updates made before it was found.
        updates: u64,
        /// Loss or gradient norm.
        quantity: &'static str,
        /// Its value.
        value: f64,
        /// Newest whole checkpoint.
        last_good: Option<PathBuf>,
    },
}

impl TrainError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }

    pub(crate) fn folder(path: &Path, reason: impl Into<String>) -> Self {
        Self::Folder { path: path.to_path_buf(), reason: reason.into() }
    }
}
