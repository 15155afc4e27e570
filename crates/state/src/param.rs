use measure::GptShape;
use std::fmt;

/// What a parameter does in the model: one variant for each kind of tensor that GPT-2 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParamRole {
    /// Token embedding, `[n_vocab, d_model]`; the output head too when it is tied.
    TokenEmbedding,
    /// Position embedding, `[context_len, d_model]`.
    PositionEmbedding,
    /// Gain of the norm before attention, `[d_model]`.
    AttentionNormGain,
    /// Bias of the norm before attention, `[d_model]`.
    AttentionNormBias,
    /// Query, key and value projections side by side, `[d_model, 3 n_heads d_head]`.
    QkvWeight,
    /// Their biases, `[3 n_heads d_head]`.
    QkvBias,
    /// Output projection of attention, `[n_heads d_head, d_model]`.
    AttentionOutWeight,
    /// Its bias, `[d_model]`.
    AttentionOutBias,
    /// Gain of the norm before the feed-forward layer, `[d_model]`.
    FeedForwardNormGain,
    /// Bias of the norm before the feed-forward layer, `[d_model]`.
    FeedForwardNormBias,
    /// Input projection of the feed-forward layer, `[d_model, d_ff]`.
    FeedForwardInWeight,
    /// Its bias, `[d_ff]`.
    FeedForwardInBias,
    /// Output projection of the feed-forward layer, `[d_ff, d_model]`.
    FeedForwardOutWeight,
    /// Its bias, `[d_model]`.
    FeedForwardOutBias,
    /// Gain of the last norm, `[d_model]`.
    FinalNormGain,
    /// Bias of the last norm, `[d_model]`.
    FinalNormBias,
    /// Untied output head, `[n_vocab, d_model]`.
    HeadWeight,
}

use ParamRole as R;

/// Roles of one block, in the order of the forward pass.
const BLOCK_ROLES: [ParamRole; 12] = [
    R::AttentionNormGain,
    R::AttentionNormBias,
    R::QkvWeight,
    R::QkvBias,
    R::AttentionOutWeight,
    R::AttentionOutBias,
    R::FeedForwardNormGain,
    R::FeedForwardNormBias,
    R::FeedForwardInWeight,
    R::FeedForwardInBias,
    R::FeedForwardOutWeight,
    R::FeedForwardOutBias,
];

impl ParamRole {
    /// Dimensions of the tensor in a model of this shape; matrices are `[in, out]`.
    pub fn dims(self, shape: &GptShape) -> Vec<usize> {
        let (d, a, f) = (shape.d_model, shape.d_attention(), shape.d_ff);
        match self {
            R::TokenEmbedding | R::HeadWeight => vec![shape.n_vocab, d],
            R::PositionEmbedding => vec![shape.context_len, d],
            R::QkvWeight => vec![d, 3 * a],
            R::QkvBias => vec![3 * a],
            R::AttentionOutWeight => vec![a, d],
            R::FeedForwardInWeight => vec![d, f],
            R::FeedForwardInBias => vec![f],
            R::FeedForwardOutWeight => vec![f, d],
            R::AttentionNormGain
            | R::AttentionNormBias
            | R::AttentionOutBias
            | R::FeedForwardNormGain
            | R::FeedForwardNormBias
            | R::FeedForwardOutBias
            | R::FinalNormGain
            | R::FinalNormBias => vec![d],
        }
    }

    /// Hugging Face's name of the tensor, without the block's prefix.
    fn local_name(self) -> &'static str {
        match self {
            R::TokenEmbedding => "wte.weight",
            R::PositionEmbedding => "wpe.weight",
            R::AttentionNormGain => "ln_1.weight",
            R::AttentionNormBias => "ln_1.bias",
            R::QkvWeight => "attn.c_attn.weight",
            R::QkvBias => "attn.c_attn.bias",
            R::AttentionOutWeight => "attn.c_proj.weight",
            R::AttentionOutBias => "attn.c_proj.bias",
            R::FeedForwardNormGain => "ln_2.weight",
            R::FeedForwardNormBias => "ln_2.bias",
            R::FeedForwardInWeight => "mlp.c_fc.weight",
            R::FeedForwardInBias => "mlp.c_fc.bias",
            R::FeedForwardOutWeight => "mlp.c_proj.weight",
            R::FeedForwardOutBias => "mlp.c_proj.bias",
            R::FinalNormGain => "ln_f.weight",
            R::FinalNormBias => "ln_f.bias",
            R::HeadWeight => "lm_head.weight",
        }
    }
}

/// One parameter of a model: its role, and its block for the roles that blocks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId {
    /// What the parameter does.
    pub role: ParamRole,
    /// Block, from 0; `None` outside the blocks.
    pub layer: Option<usize>,
}

impl ParamId {
    /// A parameter outside the blocks.
    pub fn outside(role: ParamRole) -> Self {
        Self { role, layer: None }
    }

    /// A parameter of a block.
    pub fn in_block(role: ParamRole, layer: usize) -> Self {
        Self { role, layer: Some(layer) }
    }
}

/// The parameter's name in checkpoints: Hugging Face's for `GPT2LMHeadModel`.
impl fmt::Display for ParamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.role.local_name();
        match self.layer {
            Some(layer) => write!(f, "transformer.h.{layer}.{name}"),
            None if self.role == R::HeadWeight => f.write_str(name),
            None => write!(f, "transformer.{name}"),
        }
    }
}

/// Every parameter of a model of this shape, in the order of the forward pass.
pub fn inventory(shape: &GptShape) -> Vec<ParamId> {
    let mut ids = vec![ParamId::outside(R::TokenEmbedding), ParamId::outside(R::PositionEmbedding)];
    for layer in 0..shape.n_layers {
        ids.extend(BLOCK_ROLES.map(|role| ParamId::in_block(role, layer)));
    }
    ids.push(ParamId::outside(R::FinalNormGain));
    ids.push(ParamId::outside(R::FinalNormBias));
    if !shape.tied_head {
        ids.push(ParamId::outside(R::HeadWeight));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_those_of_hugging_face() {
        let block = |role| ParamId::in_block(role, 3).to_string();
        assert_eq!(block(R::QkvWeight), "transformer.h.3.attn.c_attn.weight");
        assert_eq!(ParamId::outside(R::TokenEmbedding).to_string(), "transformer.wte.weight");
        assert_eq!(ParamId::outside(R::HeadWeight).to_string(), "lm_head.weight");
    }

    proptest! {
        #[test]
        fn the_inventory_holds_exactly_the_counted_parameters(
            n_layers in 1usize..6, d_model in 1usize..40, n_heads in 1usize..5, d_head in 1usize..9,
            d_ff in 1usize..40, n_vocab in 1usize..300, context_len in 1usize..130, tied_head: bool,
        ) {
            let shape = GptShape {
                n_layers, d_model, n_heads, d_head, d_ff, n_vocab, context_len, tied_head,
            };
            let ids = inventory(&shape);
            let total: usize =
                ids.iter().map(|id| id.role.dims(&shape).iter().product::<usize>()).sum();
            prop_assert_eq!(total as u64, shape.n_params_total());
            // 6 FLOPs for each weight of a matrix product, attention's products beside them.
            let is_product = |id: &&ParamId| !matches!(
                id.role, R::TokenEmbedding | R::PositionEmbedding | R::HeadWeight
            ) && id.role.dims(&shape).len() == 2;
            let products: usize = ids.iter().filter(is_product)
                .map(|id| id.role.dims(&shape).iter().product::<usize>()).sum();
            prop_assert_eq!(shape.flops_per_token().0, 6.0 * products as f64);
            let head = 6 * R::HeadWeight.dims(&shape).iter().product::<usize>();
            let scores_and_values = 3 * 2 * 2 * context_len * n_heads * d_head * n_layers;
            prop_assert_eq!(
                shape.flops_per_token_exact().0,
                (6 * products + head + scores_and_values) as f64
            );
            let names: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
            prop_assert_eq!(names.len(), ids.len());
        }
    }
}
