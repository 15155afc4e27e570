use crate::GrowthError;
use crate::tensor::GrownTensor;
use measure::{GptShape, Parametrization};
use rayon::prelude::*;
use schedule::{BlockSource, DepthMode, Growth, GrowthPlan, MomentRule, WidthPlan};
use state::{
    HostTensor, ModelConstants, Moments, ParamId, Position, TensorGroup, TrainingState, inventory,
};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Turns a training state into that of a larger model: a pure function, with a seed for what is random.
///
/// Widths grow first, then the depth: new blocks come from blocks that are wide already.
#[derive(Clone, Debug)]
pub struct GrowthOperator {
    from: GptShape,
    to: GptShape,
    parametrization: Parametrization,
    plan: GrowthPlan,
    moments: MomentRule,
    seed: u64,
}

impl GrowthOperator {
    /// The operator from one shape to another.
    ///
    /// # Errors
    /// A shape that this growth cannot reach.
    pub fn new(
        from: GptShape,
        to: GptShape,
        parametrization: Parametrization,
        growth: &Growth,
        seed: u64,
    ) -> Result<Self, GrowthError> {
        let plan = growth.plan(&from, &to)?;
        Ok(Self { from, to, parametrization, plan, moments: growth.moments, seed })
    }

    /// Shape before.
    pub fn from(&self) -> &GptShape {
        &self.from
    }

    /// Shape after.
    pub fn to(&self) -> &GptShape {
        &self.to
    }

    /// What happens to the moments.
    pub fn moments(&self) -> MomentRule {
        self.moments
    }

    /// Whether the loss after is the loss before, to rounding, by construction.
    pub fn is_loss_preserving(&self) -> bool {
        let copied = |block: &BlockSource| matches!(block, BlockSource::New(DepthMode::Copy, _));
        !self.plan.blocks.iter().flatten().any(copied)
    }

    pub(crate) fn width(&self) -> Option<WidthPlan> {
        self.plan.width
    }

    pub(crate) fn parametrization(&self) -> &Parametrization {
        &self.parametrization
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Where a block of the grown model comes from.
    pub(crate) fn block(&self, layer: usize) -> BlockSource {
        self.plan.blocks.as_ref().map_or(BlockSource::Is(layer), |blocks| blocks[layer])
    }

    /// What the operator does, in a line.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        let (from, to) = (&self.from, &self.to);
        match self.plan.width {
            None => {}
            Some(WidthPlan::Repeat { factor, split_strength }) if split_strength > 0.0 => {
                parts.push(format!("width x{factor} split {split_strength}"));
            }
            Some(WidthPlan::Repeat { factor, .. }) => {
                parts.push(format!("width x{factor} duplicate"));
            }
            Some(WidthPlan::Fresh) => {
                let sizes = [
                    ("width", from.d_model, to.d_model),
                    ("heads", from.n_heads, to.n_heads),
                    ("size of a head", from.d_head, to.d_head),
                    ("feed-forward", from.d_ff, to.d_ff),
                ];
                let grown = sizes.iter().filter(|(_, from, to)| from != to);
                let grown: Vec<String> =
                    grown.map(|(what, from, to)| format!("{what} {from} -> {to}")).collect();
                parts.push(grown.join(", ") + " fresh");
            }
        }
        if let Some(blocks) = &self.plan.blocks {
            let mut text = format!("depth {} -> {}", from.n_layers, to.n_layers);
            let new = blocks.iter().find_map(|block| match block {
                BlockSource::New(mode, _) => Some(*mode),
                BlockSource::Is(_) => None,
            });
            text += match new {
                Some(DepthMode::Identity) => " identity",
                Some(DepthMode::CopyIdentity) => " copy_identity",
                Some(DepthMode::Copy) => " copy",
                None => "",
            };
            for block in blocks {
                // Writing to a string does not fail.
                let _ = match block {
                    BlockSource::Is(layer) => write!(text, " {layer}"),
                    BlockSource::New(_, layer) => write!(text, " {layer}'"),
                };
            }
            parts.push(text);
        }
        parts.join(", then ")
    }

    /// The model's constants after the growth.
    pub fn constants_after(&self, before: ModelConstants) -> ModelConstants {
        match self.plan.width {
            None => before,
            Some(WidthPlan::Repeat { factor, .. }) => ModelConstants {
                output_multiplier: before.output_multiplier / factor as f64,
                ..before
            },
            Some(WidthPlan::Fresh) => ModelConstants {
                norm_eps: before.norm_eps * self.from.d_model as f64 / self.to.d_model as f64,
                ..before
            },
        }
    }

    /// The position after the growth: the next stage's start, with what the moments then hold.
    pub fn position_after(&self, before: Position) -> Position {
        let moment_updates = match self.moments {
            MomentRule::Mapped | MomentRule::Reestimated(_) => before.moment_updates,
            MomentRule::Zero => 0,
        };
        Position { stage: before.stage + 1, stage_step: 0, moment_updates, ..before }
    }

    /// The state after the growth, without its tensors.
    pub(crate) fn frame_after(&self, before: &TrainingState) -> TrainingState {
        TrainingState {
            shape: self.to,
            parametrization: self.parametrization,
            constants: self.constants_after(before.constants),
            position: self.position_after(before.position),
            origin: before.origin.clone(),
            params: BTreeMap::new(),
            moments: Moments { first: BTreeMap::new(), second: BTreeMap::new() },
        }
    }

    pub(crate) fn check(&self, before: &TrainingState) -> Result<(), GrowthError> {
        if before.shape != self.from {
            let (found, due) = (before.shape, self.from);
            return Err(GrowthError::Unfit(format!("is of shape {found:?}, not {due:?}")));
        }
        if before.parametrization != self.parametrization {
            let (found, due) = (before.parametrization, self.parametrization);
            return Err(GrowthError::Unfit(format!("is parametrized by {found:?}, not {due:?}")));
        }
        Ok(())
    }

    /// Grows a state in memory, its tensors in parallel. Moments that are to be re-estimated come out
    /// as zeros, for whoever has the data.
    ///
    /// # Errors
    /// A state of another shape, or without a tensor that its shape has.
    pub fn grow(&self, before: &TrainingState) -> Result<TrainingState, GrowthError> {
        self.check(before)?;
        let group = |group: TensorGroup, sources: &BTreeMap<ParamId, HostTensor>| {
            inventory(&self.to)
                .into_par_iter()
                .map(|id| Ok((id, self.grown(group, id, sources)?)))
                .collect::<Result<BTreeMap<_, _>, GrowthError>>()
        };
        Ok(TrainingState {
            params: group(TensorGroup::Params, &before.params)?,
            moments: Moments {
                first: group(TensorGroup::FirstMoment, &before.moments.first)?,
                second: group(TensorGroup::SecondMoment, &before.moments.second)?,
            },
            ..self.frame_after(before)
        })
    }

    fn grown(
        &self,
        group: TensorGroup,
        id: ParamId,
        sources: &BTreeMap<ParamId, HostTensor>,
    ) -> Result<HostTensor, GrowthError> {
        let grown = GrownTensor::new(self, group, id);
        let source = grown.source_id().map(|source| {
            let tensor =
                sources.get(&source).filter(|tensor| tensor.dims == source.role.dims(&self.from));
            let tensor = tensor.ok_or_else(|| GrowthError::Unfit(format!("has no {source}")))?;
            Ok::<_, GrowthError>(grown.source(tensor))
        });
        let mut tensor = HostTensor::zeros(id.role.dims(&self.to));
        grown.fill(source.transpose()?.as_ref(), 0, &mut tensor.data);
        Ok(tensor)
    }
}
