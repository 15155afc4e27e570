use crate::tensor::{GrownTensor, Source};
use crate::{GrowthError, GrowthOperator};
use schedule::MomentRule;
use state::{Checkpoint, TensorSink, write_checkpoint};
use std::ops::ControlFlow;
use std::path::Path;

/// Elements that are computed while as many are written.
const PIECE: usize = 1 << 20;

impl GrowthOperator {
    /// Grows a checkpoint to another one in an existing empty folder, tensor by tensor, so that neither is ever in memory as a
    /// whole; `observe` is told the bytes written and those to write, and may break it off. Returns the bytes of the new
    /// tensors' files.
    ///
    /// # Errors
    /// A checkpoint of another shape, with a tensor too many or too few, or without moments where they
    /// are mapped; a folder that cannot be written to; `observe` broke it off. What was written until then is left there.
    pub fn grow_checkpoint(
        &self,
        from: &Checkpoint,
        folder: &Path,
        observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<u64, GrowthError> {
        let before = from.frame();
        self.check(&before)?;
        from.reject_extra_tensors()?;
        if matches!(self.moments(), MomentRule::Reestimated(_)) {
            let reason =
                "cannot be given re-estimated moments without its data: use mapped or zero";
            return Err(GrowthError::Unfit(reason.to_string()));
        }
        let total = 3 * size_of::<f32>() as u64 * self.to().n_params_total();
        let mut done = 0;
        write_checkpoint(folder, &self.frame_after(&before), &mut |group, id, sink| {
            let grown = GrownTensor::new(self, group, id);
            let tensor = grown.source_id().map(|id| from.tensor(group, id)).transpose()?;
            let source = tensor.as_ref().map(|tensor| grown.source(tensor));
            write_tensor(&grown, source.as_ref(), sink, &mut |bytes| {
                done += bytes;
                observe(done, total)
            })
        })
    }
}

/// Computes a piece while the one before it is written.
fn write_tensor(
    grown: &GrownTensor<'_>,
    source: Option<&Source>,
    sink: &mut TensorSink<'_>,
    wrote: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), GrowthError> {
    let (rows, columns) = grown.dims();
    let at_once = (PIECE / columns).max(1);
    let compute = |first: usize, piece: &mut Vec<f32>| {
        let n = at_once.min(rows.saturating_sub(first));
        piece.resize(n * columns, 0.0);
        grown.fill(source, first, piece);
    };
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    compute(0, &mut ready);
    for first in (0..rows).step_by(at_once) {
        let (written, ()) =
            rayon::join(|| sink.write(&ready), || compute(first + at_once, &mut next));
        written?;
        if wrote((ready.len() * size_of::<f32>()) as u64).is_break() {
            return Err(GrowthError::Stopped);
        }
        std::mem::swap(&mut ready, &mut next);
    }
    Ok(())
}
