//! Runs that begin as another one did.

use crate::run::loaded;
use crate::{GrowthReport, RunFolder, TrainError};
use measure::{CurvePoint, CurveWriter, LearningCurve};
use schedule::Schedule;
use serde::{Deserialize, Serialize};
use state::{CheckpointInfo, CheckpointStore, Origin, Position, Skipped, TrainingState};
use std::path::{Path, PathBuf};

/// Where a run has its first steps from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// The run's folder that it branched off from, from the root of the file system.
    pub of: PathBuf,
    /// Steps that it has from there.
    pub step: u64,
    /// 6 N D of these, FLOPs.
    pub compute_flops: f64,
}

/// What a run has in common with another one, up to the newest checkpoint until which the two are the same. It goes on from there
/// bit for bit as it would have come there by itself.
pub(crate) struct CommonPart {
    branch: Branch,
    state: TrainingState,
    rows: Vec<CurvePoint>,
    growths: Vec<GrowthReport>,
    /// Newer checkpoints that are not whole.
    skipped: Vec<Skipped>,
}

impl CommonPart {
    /// Reads the common part from the folder of the run in `source`.
    ///
    /// # Errors
    /// `source` holds no run, or no such checkpoint; the message says what parts the two.
    pub fn read(
        source: &Path,
        schedule: &Schedule,
        n_vocab: usize,
        origin: &Origin,
    ) -> Result<Self, TrainError> {
        let theirs = RunFolder::schedule_of(source)?;
        let curve = LearningCurve::read(&RunFolder::metrics_of(source))?;
        let evaluated = |step: u64| curve.evaluated().any(|(row, _)| row.step == step);
        let due = |position: &Position| {
            let steps = schedule.steps_of(position.stage, position.step - position.stage_step);
            position.step.is_multiple_of(schedule.evaluation().every_steps)
                || position.stage_step >= steps
        };
        let mut parted = None;
        let mut shared = |info: &CheckpointInfo| {
            let position = &info.position;
            let before = position.step - position.stage_step;
            match schedule.same_until(&theirs, position.stage, before, position.step) {
                Ok(()) if due(position) && !evaluated(position.step) => {
                    let reason = "this run is evaluated there, the other was not";
                    parted = Some(format!("at step {}: {reason}", position.step));
                    false
                }
                Ok(()) => position.step > 0,
                Err(reason) => {
                    parted = Some(format!("at step {}: {reason}", position.step));
                    false
                }
            }
        };
        let store = CheckpointStore::reader(&RunFolder::checkpoints_of(source));
        let (checkpoint, skipped) = store.newest_whole_that(&mut shared)?;
        let Some(checkpoint) = checkpoint else {
            let reason = match (parted, skipped.first()) {
                (Some(parted), _) => format!(
                    "no checkpoint can be taken over ({parted}); a run with a wsd decay \
                     keeps the one before the decay, so let the longer run branch off the shorter"
                ),
                (None, Some(broken)) => format!("no checkpoint is whole ({})", broken.reason),
                (None, None) => "has no checkpoint to branch off from".to_string(),
            };
            return Err(TrainError::folder(source, reason));
        };
        let state = loaded(&checkpoint, schedule, n_vocab, origin)?;
        let position = &state.position;
        let due = due(position);
        // Read again: a run that is still going may have come there since.
        let metrics = RunFolder::metrics_of(source);
        let mut rows = LearningCurve::read_steps(&metrics, position.step)?.points;
        if let (Some(last), false) = (rows.last_mut(), due) {
            // The other run may end here, and be evaluated for that.
            last.val_loss = None;
        }
        let mut growths = RunFolder::growths_of(source)?;
        growths.retain(|report| report.stage <= position.stage);
        let absolute = std::path::absolute(source).map_err(TrainError::io(source))?;
        let branch =
            Branch { of: absolute, step: position.step, compute_flops: position.compute_flops };
        Ok(Self { branch, state, rows, growths, skipped })
    }

    /// Writes it to the folder of the run that begins with it; gives the record of the branch, and what was passed over. The checkpoint
    /// comes last, after what it stands on and the record of the branch, so that what is cut short is no more than a run from its start.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(self, folder: &RunFolder) -> Result<(Branch, Vec<Skipped>), TrainError> {
        CurveWriter::write(&folder.metrics(), &self.rows)?;
        for report in &self.growths {
            folder.write_growth(report)?;
        }
        folder.write_branch(&self.branch)?;
        CheckpointStore::open(&folder.checkpoints())?.save(&self.state, 1, None)?;
        Ok((self.branch, self.skipped))
    }
}
