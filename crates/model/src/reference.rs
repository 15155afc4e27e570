// Axes: B sequences, T positions, H heads, K width of a head, A = H K, C width, F feed-forward width, V vocabulary.

//! The model by Burn's operations and autodiff, which the tests hold the kernels against.

use crate::gpt::Tensors;
use crate::host::to_device;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use measure::GptShape;
use state::{ModelConstants, ParamId, ParamRole as R, TrainingState};
use std::f64::consts::PI;

/// A model on the CPU.
pub struct Reference {
    shape: GptShape,
    constants: ModelConstants,
    params: Tensors,
}

impl Reference {
    /// In f32, or in f64 as what is due.
    pub fn new(state: &TrainingState, precision: FloatDType) -> Self {
        let cast = |(id, tensor): (ParamId, Tensor<2>)| (id, tensor.cast(precision));
        let params = to_device(&state.params, &Device::flex()).into_iter().map(cast).collect();
        Self { shape: state.shape, constants: state.constants, params }
    }

    /// Loss summed over the targets of sequences, and the gradients of that sum times `weight`.
    pub fn loss_and_gradients(
        &self,
        sequences: &[u32],
        context_len: usize,
        weight: f64,
    ) -> (f64, Tensors) {
        let rows = || sequences.chunks_exact(context_len + 1);
        let inputs: Vec<u32> = rows().flat_map(|row| &row[..context_len]).copied().collect();
        let targets: Vec<u32> = rows().flat_map(|row| &row[1..]).copied().collect();
        let leaves: Tensors = (self.params.iter())
            .map(|(id, tensor)| (*id, tensor.clone().autodiff().require_grad()))
            .collect();
        let logits = self.forward(&leaves, integers(&inputs, context_len));
        let found = log_softmax(logits, 1).gather(1, integers(&targets, 1).autodiff());
        let loss = found.sum().neg();
        let mut gradients = (loss.clone() * weight).backward();
        let gradients = leaves.iter().map(|(id, leaf)| {
            let gradient = leaf.grad_remove(&mut gradients);
            let gradient = gradient.unwrap_or_else(|| self.params[id].zeros_like());
            (*id, gradient.cast(FloatDType::F32))
        });
        (loss.cast(FloatDType::F64).into_scalar::<f64>(), gradients.collect())
    }

    /// Logits of every position of one sequence, one after the other.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let logits = self.forward(&self.params, integers(tokens, tokens.len()));
        crate::host::elements(logits.cast(FloatDType::F32))
    }

    /// Logits `[B T, V]` of tokens `[B, T]`.
    fn forward(&self, params: &Tensors, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [b, t] = tokens.dims();
        let (c, n_heads) = (self.shape.d_model, self.shape.n_heads);
        let outside = |role| params[&ParamId::outside(role)].clone();
        let positions = outside(R::PositionEmbedding).slice([0..t, 0..c]).unsqueeze::<3>();
        let embedding = outside(R::TokenEmbedding);
        let embedded = burn::tensor::module::embedding(embedding.clone(), tokens) + positions;
        let mut x = embedded.reshape([b * t, c]);
        for layer in 0..self.shape.n_layers {
            let p = |role| params[&ParamId::in_block(role, layer)].clone();
            let linear = |x: Tensor<2>, weight, bias| x.matmul(p(weight)) + p(bias);
            let normed = self.norm(x.clone(), p(R::AttentionNormGain), p(R::AttentionNormBias));
            let heads = causal_attention(linear(normed, R::QkvWeight, R::QkvBias), t, n_heads);
            x = x + linear(heads, R::AttentionOutWeight, R::AttentionOutBias);
            let normed = self.norm(x.clone(), p(R::FeedForwardNormGain), p(R::FeedForwardNormBias));
            let wide = linear(normed, R::FeedForwardInWeight, R::FeedForwardInBias);
            x = x + linear(gelu(wide), R::FeedForwardOutWeight, R::FeedForwardOutBias);
        }
        let hidden = self.norm(x, outside(R::FinalNormGain), outside(R::FinalNormBias));
        let head = if self.shape.tied_head { embedding } else { outside(R::HeadWeight) };
        hidden.matmul(head.transpose()) * self.constants.output_multiplier
    }

    /// Layer norm over the width (Ba et al. 2016, eq. 4).
    fn norm(&self, x: Tensor<2>, gain: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let scale = (variance + self.constants.norm_eps).sqrt().recip();
        centred * scale * gain + bias
    }
}

fn integers(tokens: &[u32], columns: usize) -> Tensor<2, Int> {
    let values: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let data = TensorData::new(values, [tokens.len() / columns, columns]);
    Tensor::from_data(data, &Device::flex())
}

/// Causal attention of every head (Vaswani et al. 2017, eq. 1): queries, keys and values side by side, `[B T, 3 A]`, to
/// `[B T, A]`.
fn causal_attention(qkv: Tensor<2>, t: usize, n_heads: usize) -> Tensor<2> {
    let [rows, width] = qkv.dims();
    let a = width / 3;
    let k = a / n_heads;
    let part = |i: usize| {
        let part = qkv.clone().slice([0..rows, i * a..(i + 1) * a]);
        part.reshape([rows / t, t, n_heads, k]).swap_dims(1, 2)
    };
    let scores = (part(0) * (1.0 / (k as f64).sqrt())).matmul(part(1).swap_dims(2, 3));
    let mask = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 });
    let mask = TensorData::new(mask.collect::<Vec<f32>>(), [1, 1, t, t]);
    let precision = FloatDType::from(qkv.dtype());
    let mask = Tensor::<4>::from_data(mask, &qkv.device()).cast(precision);
    let weights = softmax(scores + mask, 3);
    weights.matmul(part(2)).swap_dims(1, 2).reshape([rows, a])
}

/// GELU in the tanh approximation (Hendrycks and Gimpel 2016, section 2), written with the logistic
/// function: (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)).
fn gelu(x: Tensor<2>) -> Tensor<2> {
    let slope = 2.0 * (2.0 / PI).sqrt();
    let inner = x.clone() * (x.clone().square() * (0.044_715 * slope) + slope);
    x * sigmoid(inner)
}
