// Axes: B sequences, T positions, C width, F feed-forward width, V vocabulary.

use crate::attention::{causal_attention, causal_mask};
use crate::gpt::Tensors;
use burn::tensor::activation::sigmoid;
use burn::tensor::{FloatDType, Int, Tensor};
use measure::{GptShape, Precision};
use state::{ModelConstants, ParamId, ParamRole as R};
use std::f64::consts::PI;

/// The forward pass over a set of parameters, tracked for gradients or not.
pub struct Forward<'a> {
    pub shape: &'a GptShape,
    pub constants: &'a ModelConstants,
    pub precision: Precision,
    pub params: &'a Tensors,
}

impl Forward<'_> {
    /// The last norm's output for every position.
    ///
    /// # Shapes
    /// `tokens` `[B, T]` with T at most the context; the result `[B T, C]`.
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [b, t] = tokens.dims();
        let c = self.shape.d_model;
        let mask = causal_mask(t, &tokens.device());
        let positions = self.outside(R::PositionEmbedding).slice([0..t, 0..c]).unsqueeze::<3>();
        let embedded =
            burn::tensor::module::embedding(self.outside(R::TokenEmbedding), tokens) + positions;
        let mut x = embedded.reshape([b * t, c]);
        for layer in 0..self.shape.n_layers {
            x = self.block(x, mask.clone(), layer);
        }
        self.norm(x, self.outside(R::FinalNormGain), self.outside(R::FinalNormBias))
    }

    fn block(&self, x: Tensor<2>, mask: Tensor<4>, layer: usize) -> Tensor<2> {
        let p = |role| self.params[&ParamId::in_block(role, layer)].clone();
        let normed = self.norm(x.clone(), p(R::AttentionNormGain), p(R::AttentionNormBias));
        let qkv = self.linear(normed, p(R::QkvWeight), p(R::QkvBias));
        let heads = causal_attention(qkv, mask, self.shape.n_heads);
        let attended = self.linear(heads, p(R::AttentionOutWeight), p(R::AttentionOutBias));
        let x = x + attended.cast(FloatDType::F32);
        let normed = self.norm(x.clone(), p(R::FeedForwardNormGain), p(R::FeedForwardNormBias));
        let wide = self.linear(normed, p(R::FeedForwardInWeight), p(R::FeedForwardInBias));
        let out = self.linear(gelu(wide), p(R::FeedForwardOutWeight), p(R::FeedForwardOutBias));
        x + out.cast(FloatDType::F32)
    }

    fn outside(&self, role: R) -> Tensor<2> {
        self.params[&ParamId::outside(role)].clone()
    }

    /// `x W + b` in the compute precision.
    fn linear(&self, x: Tensor<2>, weight: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
        self.compute(x).matmul(self.compute(weight)) + self.compute(bias)
    }

    fn compute(&self, x: Tensor<2>) -> Tensor<2> {
        x.cast(compute_type(self.precision))
    }

    /// Layer norm over the width, in f32 (Ba et al. 2016, eq. 4).
    fn norm(&self, x: Tensor<2>, gain: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let scale = (variance + self.constants.norm_eps).sqrt().recip();
        centred * scale * gain + bias
    }
}

/// The number format of matrix products.
pub fn compute_type(precision: Precision) -> FloatDType {
    match precision {
        Precision::F32 => FloatDType::F32,
        Precision::Bf16 => FloatDType::BF16,
    }
}

/// GELU in the tanh approximation (Hendrycks and Gimpel 2016, section 2), written with the logistic
/// function: (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)), and exp is far cheaper than tanh on the CPU.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    let slope = 2.0 * (2.0 / PI).sqrt();
    let inner = x.clone() * (x.clone().square() * (0.044_715 * slope) + slope);
    x * sigmoid(inner)
}
