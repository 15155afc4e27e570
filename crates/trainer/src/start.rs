//! Runs that begin with a model that is there.

use crate::TrainError;
use schedule::Schedule;
use serde::Serialize;
use state::{Checkpoint, Moments, Origin, Position, TrainingState};
use std::path::PathBuf;

/// What a run begins with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Start {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Checksum of the file of its parameters.
    pub params_checksum: Option<String>,
    /// Tokens that its model has seen, as far as it was trained here.
    pub tokens: u64,
    /// 6 N D of these, FLOPs; no part of the run's own compute.
    pub compute_flops: f64,
}

/// The state before the first step of a run that begins with a checkpoint: its parameters, its constants and its moments, at step 0.
/// `None` where the schedule names none.
///
/// # Errors
/// The checkpoint cannot be read, or is of another shape, parametrization or vocabulary than the first stage; the value is named.
pub(crate) fn started_with(
    schedule: &Schedule,
    n_vocab: usize,
    origin: &Origin,
) -> Result<Option<(Start, TrainingState)>, TrainError> {
    let Some(path) = schedule.start() else { return Ok(None) };
    let has_moments = Checkpoint::has_moments(path);
    let checkpoint =
        if has_moments { Checkpoint::open(path)? } else { Checkpoint::open_params(path)? };
    let info = checkpoint.info();
    let shape = schedule.stages()[0].shape(n_vocab);
    let parametrization = schedule.parametrization();
    let differing = [
        ("the shape", format!("{:?}", info.shape), format!("{shape:?}")),
        ("the vocabulary", info.origin.vocabulary.clone(), origin.vocabulary.clone()),
        (
            "the parametrization",
            format!("{:?}", info.parametrization),
            format!("{parametrization:?}"),
        ),
    ];
    if let Some((what, there, here)) = differing.iter().find(|(_, there, here)| there != here) {
        let reason = format!(
            "model.start: {what} is {there} in the checkpoint and {here} in the run, whose first stage begins with it"
        );
        return Err(TrainError::folder(path, reason));
    }
    let start = Start {
        checkpoint: std::path::absolute(path).map_err(TrainError::io(path))?,
        params_checksum: info.params_checksum().map(str::to_string),
        tokens: info.position.tokens,
        compute_flops: info.position.compute_flops,
    };
    let mut state = if has_moments { checkpoint.load()? } else { checkpoint.load_params()? };
    if !has_moments {
        state.moments = Moments::zeros(&state.params);
    }
    let moment_updates = if has_moments { state.position.moment_updates } else { 0 };
    state.position = Position { moment_updates, ..Position::default() };
    state.origin = origin.clone();
    Ok(Some((start, state)))
}
