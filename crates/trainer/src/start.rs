//! Runs that begin with a model that is there.

use crate::{RunFolder, TrainError};
use measure::{GptShape, Parametrization};
use schedule::Schedule;
use serde::{Deserialize, Serialize};
use state::{Checkpoint, Moments, Origin, STATE_FILE, TrainingState};
use std::path::{Path, PathBuf};

/// What a run begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The checkpoint, from the root of the file system.
    pub checkpoint: PathBuf,
    /// Checksum of its record, which has those of its files.
    pub checksum: String,
    /// Whether it has Adam's moments; otherwise they begin at zero.
    pub has_moments: bool,
    /// Tokens that its model was trained on by this program.
    pub tokens: u64,
    /// 6 N D of these, FLOPs; no part of the run's own compute.
    pub compute_flops: f64,
}

/// The checkpoint that a schedule begins with, found to fit it.
pub(crate) struct StartingModel {
    path: PathBuf,
    checkpoint: Checkpoint,
    /// What is told of it.
    pub start: Start,
}

impl StartingModel {
    /// Opens it, before there are tokens. `None` where the schedule names none.
    ///
    /// # Errors
    /// The checkpoint cannot be read, or differs from the first stage in its shape or parametrization; the key is named.
    pub fn open(schedule: &Schedule) -> Result<Option<Self>, TrainError> {
        let Some(path) = schedule.start() else { return Ok(None) };
        if !path.join(STATE_FILE).exists() {
            let reason = if RunFolder::is_run(path) {
                "model.start: is a run; name one of the checkpoints in its folder checkpoints/"
            } else {
                "model.start: holds no checkpoint (no state.json)"
            };
            return Err(TrainError::folder(path, reason));
        }
        let has_moments = Checkpoint::has_moments(path);
        let checkpoint =
            if has_moments { Checkpoint::open(path)? } else { Checkpoint::open_params(path)? };
        let info = checkpoint.info();
        let shape = schedule.stages()[0].shape(info.shape.n_vocab);
        same_shape(path, &info.shape, &shape)?;
        let (there, here) = (kind(info.parametrization), kind(schedule.parametrization()));
        same(path, "parametrization", &there, &here)?;
        let before = info.position.as_start().earlier;
        let start = Start {
            checkpoint: std::path::absolute(path).map_err(TrainError::io(path))?,
            checksum: info.checksum(),
            has_moments,
            tokens: before.tokens,
            compute_flops: before.compute_flops,
        };
        Ok(Some(Self { path: path.to_path_buf(), checkpoint, start }))
    }

    /// The state before the run's first step: parameters, constants and moments of the checkpoint, at step 0, under the run's
    /// parametrization, by which growths draw what is new.
    ///
    /// # Errors
    /// Its vocabulary is another than the data's, where that is known; a tensor cannot be read.
    pub fn state(
        &self,
        parametrization: Parametrization,
        n_vocab: usize,
        origin: &Origin,
    ) -> Result<TrainingState, TrainError> {
        let info = self.checkpoint.info();
        // Token files of other programs do not say which vocabulary they are of, only how large it is.
        let (there, here) = (&info.origin.vocabulary, &origin.vocabulary);
        if !corpus::may_be_one(there, here) {
            same(&self.path, "vocabulary", there, here)?;
        }
        same(&self.path, "size of the vocabulary", &info.shape.n_vocab, &n_vocab)?;
        let mut state = if self.start.has_moments {
            self.checkpoint.load()?
        } else {
            let mut state = self.checkpoint.load_params()?;
            state.moments = Moments::zeros(&state.params);
            state.position.moment_updates = 0;
            state
        };
        state.position = state.position.as_start();
        state.parametrization = parametrization;
        state.origin = origin.clone();
        Ok(state)
    }
}

/// Errs if a run that began with one model is to go on as if it had begun with another.
pub(crate) fn check_same_start(
    root: &Path,
    there: Option<&Start>,
    here: Option<&Start>,
) -> Result<(), TrainError> {
    let (Some(there), Some(here)) = (there, here) else { return Ok(()) };
    if (&there.checksum, there.has_moments) == (&here.checksum, here.has_moments) {
        return Ok(());
    }
    let reason = format!(
        "model.start: {} is another state now than the run began with (checksum {} then, {} now)",
        here.checkpoint.display(),
        there.checksum,
        here.checksum
    );
    Err(TrainError::folder(root, reason))
}

fn same_shape(path: &Path, there: &GptShape, here: &GptShape) -> Result<(), TrainError> {
    let sizes = |shape: &GptShape| {
        [
            ("n_layers", shape.n_layers),
            ("d_model", shape.d_model),
            ("n_heads", shape.n_heads),
            ("d_head", shape.d_head),
            ("d_ff", shape.d_ff),
            ("context_len", shape.context_len),
        ]
    };
    for ((key, there), (_, here)) in sizes(there).iter().zip(sizes(here)) {
        same(path, key, there, &here)?;
    }
    same(path, "tied_head", &there.tied_head, &here.tied_head)
}

fn same<T: PartialEq + std::fmt::Display>(
    path: &Path,
    what: &str,
    there: &T,
    here: &T,
) -> Result<(), TrainError> {
    if there == here {
        return Ok(());
    }
    let reason = format!(
        "model.start: its {what} is {there}, and {here} in the run, whose first stage begins with it"
    );
    Err(TrainError::folder(path, reason))
}

/// What learning rates and logits depend on. How weights are drawn matters only for what grows later, and is the schedule's business.
fn kind(parametrization: Parametrization) -> String {
    match parametrization {
        Parametrization::Mup { base_width, output_multiplier, .. } => {
            format!(
                "mup with base_width = {base_width} and output_multiplier = {output_multiplier}"
            )
        }
        Parametrization::Standard { output_multiplier, .. } => {
            format!("standard with output_multiplier = {output_multiplier}")
        }
    }
}
