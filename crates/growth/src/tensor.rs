//! One tensor of the grown state, row by row.

use crate::layout::{Axis, axes};
use crate::operator::GrowthOperator;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use schedule::{BlockSource, DepthMode, MomentRule, WidthPlan};
use state::{HostTensor, ParamId, ParamRole as R, TensorGroup};

/// Random words kept for one row of a tensor: the logarithm to base 2.
const LOG2_WORDS_OF_A_ROW: u32 = 40;
/// Sets the streams of growth apart from those of initialisation.
const GROWTH_STREAM: u64 = 1 << 63;
/// Sets blocks that come from nothing apart from what is drawn for old ones: the former count as in the grown model, the
/// latter as in the smaller one.
const NEW_BLOCK_STREAM: u64 = 1 << 62;

/// How one tensor of the grown state comes about.
pub struct GrownTensor<'a> {
    operator: &'a GrowthOperator,
    id: ParamId,
    group: TensorGroup,
    /// The block that it comes from, and how.
    block: Option<BlockSource>,
    /// Where each column lies in the smaller tensor, when new coordinates are beside the old ones.
    old_columns: Vec<Option<usize>>,
}

/// What a tensor is made from.
pub struct Source<'a> {
    tensor: &'a HostTensor,
    /// Root mean square of its elements, where differences are made in proportion to it.
    spread: f64,
}

impl<'a> GrownTensor<'a> {
    pub fn new(operator: &'a GrowthOperator, group: TensorGroup, id: ParamId) -> Self {
        let block = id.layer.map(|layer| operator.block(layer));
        let mut grown = Self { operator, id, group, block, old_columns: Vec::new() };
        if operator.width() == Some(WidthPlan::Fresh) {
            let old = |column| axes(id.role).1.old_index(column, operator.from(), operator.to());
            grown.old_columns = (0..grown.dims().1).map(old).collect();
        }
        grown
    }

    /// Rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        match self.id.role.dims(self.operator.to())[..] {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => unreachable!("GPT-2 has vectors and matrices only"),
        }
    }

    /// The tensor of the smaller state that it is made from; `None` where it is made from nothing.
    pub fn source_id(&self) -> Option<ParamId> {
        let is_moment = self.group != TensorGroup::Params;
        if is_moment && !matches!(self.operator.moments(), MomentRule::Mapped) {
            return None;
        }
        let layer = match self.block {
            None => None,
            Some(BlockSource::Is(layer) | BlockSource::New(DepthMode::Copy, layer)) => Some(layer),
            Some(BlockSource::New(DepthMode::CopyIdentity, layer)) => {
                if writes_to_residual(self.id.role) {
                    return None;
                }
                Some(layer)
            }
            Some(BlockSource::New(DepthMode::Identity, _)) => return None,
        };
        Some(ParamId { role: self.id.role, layer })
    }

    /// Takes the tensor of the smaller state.
    pub fn source<'s>(&self, tensor: &'s HostTensor) -> Source<'s> {
        let spread = match self.operator.width() {
            Some(WidthPlan::Repeat { split_strength, .. })
                if split_strength > 0.0 && self.is_split() =>
            {
                root_mean_square(&tensor.data)
            }
            _ => 0.0,
        };
        Source { tensor, spread }
    }

    /// Whether differences between copies go into it: it is a parameter with copies on both sides.
    fn is_split(&self) -> bool {
        let (rows, columns) = axes(self.id.role);
        self.group == TensorGroup::Params && rows.widens() && columns.widens()
    }

    /// Fills rows from `first` on, in parallel.
    pub fn fill(&self, source: Option<&Source<'_>>, first: usize, rows: &mut [f32]) {
        let columns = self.dims().1;
        rows.par_chunks_mut(columns).enumerate().for_each(|(i, row)| match source {
            Some(source) => self.row_from(source, first + i, row),
            None => self.row_from_nothing(first + i, row),
        });
    }

    /// A row of a tensor that has no source: zeros, or the start of a random block.
    fn row_from_nothing(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let random = matches!(self.block, Some(BlockSource::New(DepthMode::Identity, _)));
        if !random || self.group != TensorGroup::Params {
            return;
        }
        match self.id.role {
            R::AttentionNormGain | R::FeedForwardNormGain | R::FinalNormGain => out.fill(1.0),
            R::QkvWeight | R::FeedForwardInWeight => {
                let mut rng = self.rng(row);
                let std = self.hidden_std();
                out.fill_with(|| (std * rng.sample::<f64, _>(StandardNormal)) as f32);
            }
            R::TokenEmbedding
            | R::PositionEmbedding
            | R::HeadWeight
            | R::AttentionNormBias
            | R::QkvBias
            | R::AttentionOutWeight
            | R::AttentionOutBias
            | R::FeedForwardNormBias
            | R::FeedForwardInBias
            | R::FeedForwardOutWeight
            | R::FeedForwardOutBias
            | R::FinalNormBias => {}
        }
    }

    fn row_from(&self, source: &Source<'_>, row: usize, out: &mut [f32]) {
        match self.operator.width() {
            None => {
                let columns = out.len();
                out.copy_from_slice(&source.tensor.data[row * columns..][..columns]);
            }
            Some(WidthPlan::Repeat { factor, .. }) => self.repeated_row(source, factor, row, out),
            Some(WidthPlan::Fresh) => self.fresh_row(source, row, out),
        }
    }

    /// Copies side by side: parameters in the blocks that join a copy to itself, moments in all
    /// blocks, as the grown model's own gradients are.
    fn repeated_row(&self, source: &Source<'_>, factor: usize, row: usize, out: &mut [f32]) {
        let (rows, columns) = axes(self.id.role);
        let n_columns = out.len() / factor;
        let n_rows = source.tensor.data.len() / n_columns;
        let (copy, row) = if rows.widens() { (row / n_rows, row % n_rows) } else { (0, row) };
        let old = &source.tensor.data[row * n_columns..][..n_columns];
        let of_part = n_columns / columns.parts();
        let k = factor as f32;
        let scale = match self.group {
            TensorGroup::Params => 1.0,
            TensorGroup::FirstMoment => 1.0 / k,
            TensorGroup::SecondMoment => 1.0 / (k * k),
        };
        let parts = old.chunks_exact(of_part).zip(out.chunks_exact_mut(of_part * factor));
        for (old, new) in parts {
            for (other, new) in new.chunks_exact_mut(of_part).enumerate() {
                if self.group == TensorGroup::Params && rows.widens() && copy != other {
                    new.fill(0.0);
                } else {
                    for (new, old) in new.iter_mut().zip(old) {
                        *new = old * scale;
                    }
                }
            }
        }
        if source.spread > 0.0 {
            self.add_differences(source, factor, copy, row, out);
        }
    }

    /// Adds what sets the copies apart: random numbers of which those that meet in one output sum to
    /// zero over the copies of the input.
    fn add_differences(
        &self,
        source: &Source<'_>,
        factor: usize,
        copy: usize,
        row: usize,
        out: &mut [f32],
    ) {
        let Some(WidthPlan::Repeat { split_strength, .. }) = self.operator.width() else { return };
        let std = (split_strength * source.spread) as f32;
        let mut rng = self.rng(row);
        let mut draw = || rng.sample::<f32, _>(StandardNormal);
        if factor == 2 {
            let signed = if copy == 0 { std } else { -std };
            for new in out {
                *new += signed * draw();
            }
            return;
        }
        let k = factor as f32;
        // A draw less the mean of k draws has the variance 1 - 1/k.
        let scale = std / (1.0 - 1.0 / k).sqrt();
        for new in out {
            let (mut own, mut sum) = (0.0, 0.0);
            for other in 0..factor {
                let drawn = draw();
                sum += drawn;
                if other == copy {
                    own = drawn;
                }
            }
            *new += scale * (own - sum / k);
        }
    }

    /// Old coordinates first, new ones beside them. What is written to the residual stream has its
    /// mean in the new coordinates, so that layer norms give zero there.
    fn fresh_row(&self, source: &Source<'_>, row: usize, out: &mut [f32]) {
        let (from, to) = (self.operator.from(), self.operator.to());
        let (rows, columns) = axes(self.id.role);
        let n_columns = match columns {
            Axis::Qkv => 3 * from.d_attention(),
            Axis::FeedForward => from.d_ff,
            Axis::One | Axis::Table | Axis::Residual | Axis::Heads => from.d_model,
        };
        let old = rows
            .old_index(row, from, to)
            .map(|row| &source.tensor.data[row * n_columns..][..n_columns]);
        let power = match self.group {
            TensorGroup::Params => 1,
            TensorGroup::FirstMoment => -1,
            TensorGroup::SecondMoment => -2,
        };
        let beyond = match self.group {
            TensorGroup::Params => self.beyond(old),
            TensorGroup::FirstMoment | TensorGroup::SecondMoment => Beyond::Value(0.0),
        };
        let scaled = |column| self.fresh_scale(column).powi(power) as f32;
        // Queries come first, and nothing else differs by column.
        let (of_queries, of_others) = (scaled(0), scaled(out.len() - 1));
        let mut rng = self.rng(row);
        for (column, (new, place)) in out.iter_mut().zip(&self.old_columns).enumerate() {
            let scale = if column < to.d_attention() { of_queries } else { of_others };
            *new = match (old.zip(*place), beyond) {
                (Some((old, place)), _) => old[place] * scale,
                (None, Beyond::Value(value)) => value,
                (None, Beyond::Random(std)) if !self.is_key_of_larger_head(column) => {
                    std as f32 * rng.sample::<f32, _>(StandardNormal)
                }
                (None, Beyond::Random(_)) => 0.0,
            };
        }
    }

    /// What the new entries of a row hold.
    fn beyond(&self, old: Option<&[f32]>) -> Beyond {
        let mean = || {
            let old = old.unwrap_or(&[]);
            let sum: f64 = old.iter().map(|x| f64::from(*x)).sum();
            sum / old.len().max(1) as f64
        };
        match self.id.role {
            R::TokenEmbedding
            | R::PositionEmbedding
            | R::AttentionOutWeight
            | R::AttentionOutBias
            | R::FeedForwardOutWeight
            | R::FeedForwardOutBias => Beyond::Value(mean() as f32),
            R::AttentionNormGain | R::FeedForwardNormGain | R::FinalNormGain => {
                Beyond::Value((mean() * self.fresh_scale(0)) as f32)
            }
            R::AttentionNormBias
            | R::FeedForwardNormBias
            | R::FinalNormBias
            | R::QkvBias
            | R::FeedForwardInBias => Beyond::Value(0.0),
            R::QkvWeight | R::FeedForwardInWeight => Beyond::Random(self.hidden_std()),
            R::HeadWeight => Beyond::Random(self.operator.parametrization().embedding_std()),
        }
    }

    /// Factor on an old entry: gains undo the larger variance of old coordinates, queries the smaller
    /// scale of scores in larger heads.
    fn fresh_scale(&self, column: usize) -> f64 {
        let (from, to) = (self.operator.from(), self.operator.to());
        match self.id.role {
            R::AttentionNormGain | R::FeedForwardNormGain | R::FinalNormGain => {
                (from.d_model as f64 / to.d_model as f64).sqrt()
            }
            R::QkvWeight | R::QkvBias if column < to.d_attention() => {
                (to.d_head as f64 / from.d_head as f64).sqrt()
            }
            R::QkvWeight
            | R::QkvBias
            | R::TokenEmbedding
            | R::PositionEmbedding
            | R::HeadWeight
            | R::AttentionNormBias
            | R::AttentionOutWeight
            | R::AttentionOutBias
            | R::FeedForwardNormBias
            | R::FeedForwardInWeight
            | R::FeedForwardInBias
            | R::FeedForwardOutWeight
            | R::FeedForwardOutBias
            | R::FinalNormBias => 1.0,
        }
    }

    /// Whether a column of the projections is a new coordinate of an old head's keys: it is zero, so
    /// that the new coordinates of its queries add nothing to the scores.
    fn is_key_of_larger_head(&self, column: usize) -> bool {
        let (from, to) = (self.operator.from(), self.operator.to());
        if self.id.role != R::QkvWeight || from.d_head == to.d_head {
            return false;
        }
        let (part, within) = (column / to.d_attention(), column % to.d_attention());
        let (head, place) = (within / to.d_head, within % to.d_head);
        part == 1 && head < from.n_heads && place >= from.d_head
    }

    /// Standard deviation at the start of training, of a matrix with this one's inputs.
    fn hidden_std(&self) -> f64 {
        self.operator.parametrization().hidden_std(self.dims().0)
    }

    /// Random numbers of one row, the same whatever else is drawn.
    fn rng(&self, row: usize) -> ChaCha8Rng {
        let (stream, id) = self.source_id().map_or((NEW_BLOCK_STREAM, self.id), |id| (0, id));
        let mut rng = ChaCha8Rng::seed_from_u64(self.operator.seed());
        let layer = id.layer.map_or(0, |layer| layer as u64 + 1);
        rng.set_stream(GROWTH_STREAM | stream | layer << 8 | id.role as u64);
        rng.set_word_pos((row as u128) << LOG2_WORDS_OF_A_ROW);
        rng
    }
}

/// New entries of a row.
#[derive(Clone, Copy)]
enum Beyond {
    Value(f32),
    /// Normal, with this standard deviation.
    Random(f64),
}

/// Whether a block's tensor writes to the residual stream.
fn writes_to_residual(role: R) -> bool {
    match role {
        R::AttentionOutWeight
        | R::AttentionOutBias
        | R::FeedForwardOutWeight
        | R::FeedForwardOutBias => true,
        R::TokenEmbedding
        | R::PositionEmbedding
        | R::AttentionNormGain
        | R::AttentionNormBias
        | R::QkvWeight
        | R::QkvBias
        | R::FeedForwardNormGain
        | R::FeedForwardNormBias
        | R::FeedForwardInWeight
        | R::FeedForwardInBias
        | R::FinalNormGain
        | R::FinalNormBias
        | R::HeadWeight => false,
    }
}

/// In an order of summation that does not depend on the threads.
fn root_mean_square(elements: &[f32]) -> f64 {
    let squares = |part: &[f32]| part.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let sums: Vec<f64> = elements.par_chunks(1 << 16).map(squares).collect();
    (sums.iter().sum::<f64>() / elements.len().max(1) as f64).sqrt()
}
