use measure::GptShape;
use state::{ParamId, ParamRole as R};

/// One of something for every parameter of a model: its weights, or their gradients.
pub struct Weights<T> {
    /// Token embedding, and head when it is tied.
    pub token_embedding: T,
    /// Position embedding.
    pub position_embedding: T,
    /// The blocks.
    pub blocks: Vec<Block<T>>,
    /// Gain of the last norm.
    pub norm_gain: T,
    /// Bias of the last norm.
    pub norm_bias: T,
    /// Untied head.
    pub head: Option<T>,
}

/// One of something for every parameter of a block.
pub struct Block<T> {
    /// Gain of the norm before attention.
    pub norm1_gain: T,
    /// Its bias.
    pub norm1_bias: T,
    /// Query, key and value projections.
    pub qkv: T,
    /// Their biases.
    pub qkv_bias: T,
    /// Output projection of attention.
    pub out: T,
    /// Its bias.
    pub out_bias: T,
    /// Gain of the norm before the feed-forward layer.
    pub norm2_gain: T,
    /// Its bias.
    pub norm2_bias: T,
    /// Input projection of the feed-forward layer.
    pub wide: T,
    /// Its bias.
    pub wide_bias: T,
    /// Output projection of the feed-forward layer.
    pub narrow: T,
    /// Its bias.
    pub narrow_bias: T,
}

impl<T> Weights<T> {
    /// What `of` gives for each parameter of a model of this shape.
    pub fn build(shape: &GptShape, mut of: impl FnMut(ParamId) -> T) -> Self {
        let mut outside = |role| of(ParamId::outside(role));
        let (token_embedding, position_embedding) =
            (outside(R::TokenEmbedding), outside(R::PositionEmbedding));
        let (norm_gain, norm_bias) = (outside(R::FinalNormGain), outside(R::FinalNormBias));
        let head = (!shape.tied_head).then(|| outside(R::HeadWeight));
        let block = |layer| {
            let mut of = |role| of(ParamId::in_block(role, layer));
            Block {
                norm1_gain: of(R::AttentionNormGain),
                norm1_bias: of(R::AttentionNormBias),
                qkv: of(R::QkvWeight),
                qkv_bias: of(R::QkvBias),
                out: of(R::AttentionOutWeight),
                out_bias: of(R::AttentionOutBias),
                norm2_gain: of(R::FeedForwardNormGain),
                norm2_bias: of(R::FeedForwardNormBias),
                wide: of(R::FeedForwardInWeight),
                wide_bias: of(R::FeedForwardInBias),
                narrow: of(R::FeedForwardOutWeight),
                narrow_bias: of(R::FeedForwardOutBias),
            }
        };
        let blocks = (0..shape.n_layers).map(block).collect();
        Self { token_embedding, position_embedding, blocks, norm_gain, norm_bias, head }
    }

    /// Each one with its parameter.
    pub fn into_pairs(self) -> Vec<(ParamId, T)> {
        let outside = |role, one| (ParamId::outside(role), one);
        let mut pairs = vec![
            outside(R::TokenEmbedding, self.token_embedding),
            outside(R::PositionEmbedding, self.position_embedding),
            outside(R::FinalNormGain, self.norm_gain),
            outside(R::FinalNormBias, self.norm_bias),
        ];
        pairs.extend(self.head.map(|head| outside(R::HeadWeight, head)));
        for (layer, block) in self.blocks.into_iter().enumerate() {
            let of = |role, one| (ParamId::in_block(role, layer), one);
            pairs.extend([
                of(R::AttentionNormGain, block.norm1_gain),
                of(R::AttentionNormBias, block.norm1_bias),
                of(R::QkvWeight, block.qkv),
                of(R::QkvBias, block.qkv_bias),
                of(R::AttentionOutWeight, block.out),
                of(R::AttentionOutBias, block.out_bias),
                of(R::FeedForwardNormGain, block.norm2_gain),
                of(R::FeedForwardNormBias, block.norm2_bias),
                of(R::FeedForwardInWeight, block.wide),
                of(R::FeedForwardInBias, block.wide_bias),
                of(R::FeedForwardOutWeight, block.narrow),
                of(R::FeedForwardOutBias, block.narrow_bias),
            ]);
        }
        pairs
    }
}
