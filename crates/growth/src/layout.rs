use measure::GptShape;
use state::ParamRole as R;

/// What the rows or columns of a tensor stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The one row of a vector.
    One,
    /// Tokens or positions: no growth changes them.
    Table,
    /// Coordinates of the residual stream.
    Residual,
    /// Queries, keys and values side by side, each head by head.
    Qkv,
    /// What the heads give, head by head.
    Heads,
    /// Units of the feed-forward layer.
    FeedForward,
}

/// Rows and columns of a role's tensor; matrices are `[in, out]`.
pub fn axes(role: R) -> (Axis, Axis) {
    match role {
        R::TokenEmbedding | R::PositionEmbedding | R::HeadWeight => (Axis::Table, Axis::Residual),
        R::AttentionNormGain
        | R::AttentionNormBias
        | R::AttentionOutBias
        | R::FeedForwardNormGain
        | R::FeedForwardNormBias
        | R::FeedForwardOutBias
        | R::FinalNormGain
        | R::FinalNormBias => (Axis::One, Axis::Residual),
        R::QkvWeight => (Axis::Residual, Axis::Qkv),
        R::QkvBias => (Axis::One, Axis::Qkv),
        R::AttentionOutWeight => (Axis::Heads, Axis::Residual),
        R::FeedForwardInWeight => (Axis::Residual, Axis::FeedForward),
        R::FeedForwardInBias => (Axis::One, Axis::FeedForward),
        R::FeedForwardOutWeight => (Axis::FeedForward, Axis::Residual),
    }
}

impl Axis {
    /// Equal parts that grow each by itself.
    pub fn parts(self) -> usize {
        if self == Self::Qkv { 3 } else { 1 }
    }

    /// Whether a wider model has more of it.
    pub fn widens(self) -> bool {
        !matches!(self, Self::One | Self::Table)
    }

    /// Where an index of the larger model lies in the smaller one, if it has it, where new indices
    /// are beside the old ones.
    pub fn old_index(self, index: usize, from: &GptShape, to: &GptShape) -> Option<usize> {
        match self {
            Self::One | Self::Table => Some(index),
            Self::Residual => (index < from.d_model).then_some(index),
            Self::FeedForward => (index < from.d_ff).then_some(index),
            Self::Heads => {
                let (small, large) = (from.d_head, to.d_head);
                let (head, place) = (index / large, index % large);
                (head < from.n_heads && place < small).then_some(head * small + place)
            }
            Self::Qkv => {
                let (part, within) = (index / to.d_attention(), index % to.d_attention());
                Some(part * from.d_attention() + Self::Heads.old_index(within, from, to)?)
            }
        }
    }
}
