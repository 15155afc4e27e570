// Axes: R rows (sequences times positions), C width, A width of all heads together, F feed-forward width, V vocabulary.

use crate::attention::{self, Heads, Tiles};
use crate::head::{self, HeadGradients};
use crate::matmul::{Matrix, Product};
use crate::norm::Moments;
use crate::vector::vectorized;
use crate::weights::{Block, Weights};
use crate::{gelu, linear, norm};
use measure::GptShape;
use state::ModelConstants;
use std::time::Instant;

/// Sequences of the same length, one after the other.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Tokens that the model reads.
    pub inputs: &'a [u32],
    /// The token that follows each.
    pub targets: &'a [u32],
    /// Length of a sequence.
    pub context_len: usize,
}

/// A model on the CPU: its shape, its constants and a view of its parameters.
pub struct Network<'a> {
    /// Shape.
    pub shape: GptShape,
    /// Numbers beside the parameters.
    pub constants: ModelConstants,
    /// Parameters, row by row; matrices are `[in, out]`.
    pub weights: Weights<&'a [f32]>,
    /// Whether the backward pass makes each block's activations again instead of keeping them: a third more products of blocks, and
    /// memory for one block instead of all.
    pub recompute: bool,
}

/// Seconds that passes have spent on each part, forward and backward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartSeconds {
    /// Looking up and adding embeddings.
    pub embedding: f64,
    /// Layer norms.
    pub norms: f64,
    /// Attention with its projections.
    pub attention: f64,
    /// The feed-forward layers.
    pub feed_forward: f64,
    /// Head, softmax and cross-entropy.
    pub head: f64,
}

fn timed<T>(seconds: &mut f64, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = run();
    *seconds += began.elapsed().as_secs_f64();
    result
}

/// Buffers of a pass, to be used again by the next one.
#[derive(Default)]
pub struct Workspace {
    scratch: Scratch,
    /// The residual stream before each block and after the last.
    streams: Vec<Vec<f32>>,
    blocks: Vec<BlockBuffers>,
    last_moments: Moments,
    hidden: Vec<f32>,
    chunk: Vec<f32>,
    /// Gradients of the residual stream, and of four places in a block.
    of_stream: Vec<f32>,
    of_narrow: Vec<f32>,
    of_heads: Vec<f32>,
    of_qkv: Vec<f32>,
    of_wide: Vec<f32>,
}

/// Numbers of 32 bits that the buffers of a training pass hold over so many rows (sequences times positions).
pub fn numbers_of_a_pass(shape: &GptShape, rows: u64, recompute: bool) -> u64 {
    let [n, c, a, f] =
        [shape.n_layers, shape.d_model, shape.d_attention(), shape.d_ff].map(|n| n as u64);
    // Two moments for each norm, and a sum for each head.
    let of_block = 3 * c + 4 * a + 2 * f + shape.n_heads as u64 + 4;
    let blocks = if recompute { 1 } else { n };
    let streams_and_gradients = (n + 1) * c + c + 2 + 2 * c + 4 * a + f;
    let chunk = rows.min(head::rows_at_once(shape.n_vocab) as u64) * shape.n_vocab as u64;
    rows * (blocks * of_block + streams_and_gradients) + chunk
}

/// What every block's pass uses.
#[derive(Default)]
struct Scratch {
    tiles: Tiles,
    seconds: PartSeconds,
}

impl Workspace {
    /// Time of all passes made with it.
    pub fn seconds(&self) -> PartSeconds {
        self.scratch.seconds
    }
}

/// What a block's backward pass needs of its forward pass.
#[derive(Default)]
struct BlockBuffers {
    moments1: Moments,
    normed1: Vec<f32>,
    qkv: Vec<f32>,
    log_sums: Vec<f32>,
    heads: Vec<f32>,
    middle: Vec<f32>,
    moments2: Moments,
    normed2: Vec<f32>,
    wide: Vec<f32>,
    active: Vec<f32>,
}

impl Network<'_> {
    /// Cross-entropy summed over the targets, in nats.
    pub fn loss(&self, batch: &Batch<'_>, workspace: &mut Workspace) -> f64 {
        self.forward(batch, workspace, false);
        let (width, multiplier) = (self.shape.d_model, self.constants.output_multiplier);
        let Workspace { hidden, chunk, scratch, .. } = workspace;
        timed(&mut scratch.seconds.head, || {
            head::loss(hidden, self.head(), width, multiplier, batch.targets, chunk, None)
        })
    }

    /// The same, with the gradient of that sum times `weight` added to `gradients`.
    pub fn add_gradients(
        &self,
        batch: &Batch<'_>,
        weight: f64,
        workspace: &mut Workspace,
        gradients: &mut Weights<Vec<f32>>,
    ) -> f64 {
        self.forward(batch, workspace, true);
        let rows = batch.inputs.len();
        let c = self.shape.d_model;
        workspace.of_narrow.resize(rows * c, 0.0);
        let of_head = gradients.head.as_mut().unwrap_or(&mut gradients.token_embedding);
        let wanted = HeadGradients {
            weight_of_row: weight,
            of_hidden: &mut workspace.of_narrow,
            of_weight: of_head,
        };
        let (hidden, chunk) = (&workspace.hidden, &mut workspace.chunk);
        let multiplier = self.constants.output_multiplier;
        let loss = timed(&mut workspace.scratch.seconds.head, || {
            head::loss(hidden, self.head(), c, multiplier, batch.targets, chunk, Some(wanted))
        });
        self.backward(batch, workspace, gradients);
        loss
    }

    /// Logits of one sequence's positions from `first` on, `[R - first, V]`.
    pub fn logits(&self, inputs: &[u32], first: usize, workspace: &mut Workspace) -> Vec<f32> {
        let batch = Batch { inputs, targets: &[], context_len: inputs.len() };
        self.forward(&batch, workspace, false);
        let mut out = vec![0.0; (inputs.len() - first) * self.shape.n_vocab];
        let (width, multiplier) = (self.shape.d_model, self.constants.output_multiplier as f32);
        let hidden = &workspace.hidden[first * width..];
        head::logits(hidden, self.head(), width, multiplier, &mut out);
        out
    }

    fn head(&self) -> &[f32] {
        self.weights.head.unwrap_or(self.weights.token_embedding)
    }

    fn heads(&self, context_len: usize) -> Heads {
        Heads { n: self.shape.n_heads, size: self.shape.d_head, context_len }
    }

    /// Fills `workspace.hidden` with the last norm's output; keeps what the backward pass needs.
    fn forward(&self, batch: &Batch<'_>, workspace: &mut Workspace, keep: bool) {
        let rows = batch.inputs.len();
        let c = self.shape.d_model;
        let n = self.shape.n_layers;
        workspace.streams.resize_with(if keep { n + 1 } else { 2 }, Vec::new);
        let keep_blocks = keep && !self.recompute;
        workspace.blocks.resize_with(if keep_blocks { n } else { 1 }, BlockBuffers::default);
        for stream in &mut workspace.streams {
            stream.resize(rows * c, 0.0);
        }
        timed(&mut workspace.scratch.seconds.embedding, || {
            self.embed(batch, &mut workspace.streams[0]);
        });
        for (layer, weights) in self.weights.blocks.iter().enumerate() {
            let before = if keep { layer } else { 0 };
            let buffers = if keep_blocks { layer } else { 0 };
            let (left, right) = workspace.streams.split_at_mut(before + 1);
            let buffers = &mut workspace.blocks[buffers];
            let scratch = &mut workspace.scratch;
            self.block(weights, batch, &left[before], buffers, scratch, &mut right[0]);
            if !keep {
                workspace.streams.swap(0, 1);
            }
        }
        workspace.hidden.resize(rows * c, 0.0);
        let Workspace { streams, last_moments, hidden, scratch, .. } = workspace;
        let last = &streams[if keep { n } else { 0 }];
        let (gain, bias) = (self.weights.norm_gain, self.weights.norm_bias);
        let eps = self.constants.norm_eps as f32;
        timed(&mut scratch.seconds.norms, || {
            norm::forward(last, gain, bias, eps, last_moments, hidden);
        });
    }

    fn embed(&self, batch: &Batch<'_>, out: &mut [f32]) {
        let c = self.shape.d_model;
        let rows = out.chunks_exact_mut(c).zip(batch.inputs).enumerate();
        vectorized(|| {
            for (row, (out, token)) in rows {
                let position = row % batch.context_len;
                let of_token = &self.weights.token_embedding[*token as usize * c..][..c];
                let of_position = &self.weights.position_embedding[position * c..][..c];
                for i in 0..c {
                    out[i] = of_token[i] + of_position[i];
                }
            }
        });
    }

    fn block(
        &self,
        weights: &Block<&[f32]>,
        batch: &Batch<'_>,
        x: &[f32],
        buffers: &mut BlockBuffers,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let rows = batch.inputs.len();
        let GptShape { d_model: c, d_ff: f, n_heads, .. } = self.shape;
        let a = self.shape.d_attention();
        let eps = self.constants.norm_eps as f32;
        let Scratch { tiles, seconds } = scratch;
        let b = buffers;
        for (buffer, len) in [
            (&mut b.normed1, rows * c),
            (&mut b.qkv, rows * 3 * a),
            (&mut b.log_sums, rows * n_heads),
            (&mut b.heads, rows * a),
            (&mut b.middle, rows * c),
            (&mut b.normed2, rows * c),
            (&mut b.wide, rows * f),
            (&mut b.active, rows * f),
        ] {
            buffer.resize(len, 0.0);
        }
        let (gain, bias) = (weights.norm1_gain, weights.norm1_bias);
        timed(&mut seconds.norms, || {
            norm::forward(x, gain, bias, eps, &mut b.moments1, &mut b.normed1);
        });
        timed(&mut seconds.attention, || {
            linear::fill_rows(&mut b.qkv, weights.qkv_bias);
            let normed = Matrix::new(&b.normed1, rows, c);
            Product::new(&mut b.qkv, rows, 3 * a).add(normed, Matrix::new(weights.qkv, c, 3 * a));
            let t = batch.context_len;
            let heads = self.heads(t);
            let log_sums = b.log_sums.chunks_exact_mut(t * n_heads);
            let sequences = b.qkv.chunks_exact(t * 3 * a).zip(log_sums);
            for ((qkv, log_sums), out) in sequences.zip(b.heads.chunks_exact_mut(t * a)) {
                attention::forward(heads, qkv, &mut tiles.scores, log_sums, out);
            }
            linear::add_rows(&mut b.middle, x, weights.out_bias);
            let given = Matrix::new(&b.heads, rows, a);
            Product::new(&mut b.middle, rows, c).add(given, Matrix::new(weights.out, a, c));
        });
        let (gain, bias) = (weights.norm2_gain, weights.norm2_bias);
        timed(&mut seconds.norms, || {
            norm::forward(&b.middle, gain, bias, eps, &mut b.moments2, &mut b.normed2);
        });
        timed(&mut seconds.feed_forward, || {
            let normed = Matrix::new(&b.normed2, rows, c);
            Product::new(&mut b.wide, rows, f).set(1.0, normed, Matrix::new(weights.wide, c, f));
            gelu::forward(&mut b.wide, weights.wide_bias, &mut b.active);
            linear::add_rows(out, &b.middle, weights.narrow_bias);
            let active = Matrix::new(&b.active, rows, f);
            Product::new(out, rows, c).add(active, Matrix::new(weights.narrow, f, c));
        });
    }

    /// Goes back from the gradient of `workspace.hidden`, which is in `workspace.of_narrow`.
    fn backward(
        &self,
        batch: &Batch<'_>,
        workspace: &mut Workspace,
        gradients: &mut Weights<Vec<f32>>,
    ) {
        let rows = batch.inputs.len();
        let GptShape { d_model: c, d_ff: f, n_layers, .. } = self.shape;
        let w = workspace;
        w.of_stream.clear();
        w.of_stream.resize(rows * c, 0.0);
        let a = self.shape.d_attention();
        w.of_heads.resize(rows * a, 0.0);
        w.of_qkv.resize(rows * 3 * a, 0.0);
        w.of_wide.resize(rows * f, 0.0);
        let last = &w.streams[n_layers];
        let (of_gain, of_bias) = (&mut gradients.norm_gain, &mut gradients.norm_bias);
        let (gain, moments) = (self.weights.norm_gain, &w.last_moments);
        let (of_narrow, of_stream) = (&w.of_narrow, &mut w.of_stream);
        timed(&mut w.scratch.seconds.norms, || {
            norm::backward(last, gain, moments, of_narrow, of_stream, of_gain, of_bias);
        });
        for layer in (0..n_layers).rev() {
            if self.recompute {
                let (before, after) = w.streams.split_at_mut(layer + 1);
                let (weights, buffers) = (&self.weights.blocks[layer], &mut w.blocks[0]);
                self.block(weights, batch, &before[layer], buffers, &mut w.scratch, &mut after[0]);
            }
            self.block_backward(layer, batch, w, &mut gradients.blocks[layer]);
        }
        let Weights { token_embedding, position_embedding, .. } = gradients;
        timed(&mut w.scratch.seconds.embedding, || {
            for (row, (of_row, token)) in w.of_stream.chunks_exact(c).zip(batch.inputs).enumerate()
            {
                let position = row % batch.context_len;
                add(&mut token_embedding[*token as usize * c..][..c], of_row);
                add(&mut position_embedding[position * c..][..c], of_row);
            }
        });
    }

    fn block_backward(
        &self,
        layer: usize,
        batch: &Batch<'_>,
        workspace: &mut Workspace,
        gradients: &mut Block<Vec<f32>>,
    ) {
        let rows = batch.inputs.len();
        let GptShape { d_model: c, d_ff: f, n_heads, .. } = self.shape;
        let a = self.shape.d_attention();
        let (weights, g) = (&self.weights.blocks[layer], gradients);
        let buffers = if self.recompute { 0 } else { layer };
        let (b, x) = (&workspace.blocks[buffers], &workspace.streams[layer]);
        let Workspace { of_stream, of_narrow, of_heads, of_qkv, of_wide, scratch, .. } = workspace;
        let Scratch { tiles, seconds } = scratch;

        timed(&mut seconds.feed_forward, || {
            linear::add_sum_of_rows(&mut g.narrow_bias, of_stream);
            let of_out = Matrix::new(of_stream, rows, c);
            Product::new(&mut g.narrow, f, c).add(Matrix::new(&b.active, rows, f).t(), of_out);
            Product::new(of_wide, rows, f).set(1.0, of_out, Matrix::new(weights.narrow, f, c).t());
            gelu::backward(&b.wide, of_wide, &mut g.wide_bias);
            let of_units = Matrix::new(of_wide, rows, f);
            Product::new(&mut g.wide, c, f).add(Matrix::new(&b.normed2, rows, c).t(), of_units);
            Product::new(of_narrow, rows, c).set(
                1.0,
                of_units,
                Matrix::new(weights.wide, c, f).t(),
            );
        });
        timed(&mut seconds.norms, || {
            let (of_gain, of_bias) = (&mut g.norm2_gain, &mut g.norm2_bias);
            let gain = weights.norm2_gain;
            norm::backward(&b.middle, gain, &b.moments2, of_narrow, of_stream, of_gain, of_bias);
        });
        timed(&mut seconds.attention, || {
            linear::add_sum_of_rows(&mut g.out_bias, of_stream);
            let of_out = Matrix::new(of_stream, rows, c);
            Product::new(&mut g.out, a, c).add(Matrix::new(&b.heads, rows, a).t(), of_out);
            Product::new(of_heads, rows, a).set(1.0, of_out, Matrix::new(weights.out, a, c).t());
            let t = batch.context_len;
            let heads = self.heads(t);
            let sequences = b.qkv.chunks_exact(t * 3 * a).zip(b.log_sums.chunks_exact(t * n_heads));
            let given = b.heads.chunks_exact(t * a).zip(of_heads.chunks_exact(t * a));
            let into = of_qkv.chunks_exact_mut(t * 3 * a);
            for (((qkv, log_sums), (out, of_out)), of_qkv) in sequences.zip(given).zip(into) {
                attention::backward(heads, qkv, log_sums, out, of_out, tiles, of_qkv);
            }
            linear::add_sum_of_rows(&mut g.qkv_bias, of_qkv);
            let of_qkv = Matrix::new(of_qkv, rows, 3 * a);
            Product::new(&mut g.qkv, c, 3 * a).add(Matrix::new(&b.normed1, rows, c).t(), of_qkv);
            let weight = Matrix::new(weights.qkv, c, 3 * a);
            Product::new(of_narrow, rows, c).set(1.0, of_qkv, weight.t());
        });
        timed(&mut seconds.norms, || {
            let (of_gain, of_bias) = (&mut g.norm1_gain, &mut g.norm1_bias);
            let gain = weights.norm1_gain;
            norm::backward(x, gain, &b.moments1, of_narrow, of_stream, of_gain, of_bias);
        });
    }
}

fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_pass_are_those_of_its_buffers() {
        let shape = GptShape { n_vocab: 16, context_len: 5, d_ff: 24, ..GptShape::gpt2(3, 8, 2) };
        for (sequences, recompute) in [(1, false), (7, false), (7, true)] {
            let tokens = vec![0; sequences * shape.context_len];
            let batch = Batch { inputs: &tokens, targets: &tokens, context_len: shape.context_len };
            let values = vec![0.1; 1000];
            let of = |id: state::ParamId| id.role.dims(&shape).iter().product::<usize>();
            let weights = Weights::build(&shape, |id| &values[..of(id)]);
            let constants = ModelConstants { output_multiplier: 1.0, norm_eps: 1e-5 };
            let network = Network { shape, constants, weights, recompute };
            let (mut workspace, mut sums) =
                (Workspace::default(), Weights::build(&shape, |id| vec![0.0; of(id)]));
            network.add_gradients(&batch, 1.0, &mut workspace, &mut sums);
            let w = &workspace;
            let of_blocks = w.blocks.iter().flat_map(|b| {
                let BlockBuffers {
                    normed1,
                    qkv,
                    log_sums,
                    heads,
                    middle,
                    normed2,
                    wide,
                    active,
                    ..
                } = b;
                [normed1, qkv, log_sums, heads, middle, normed2, wide, active]
            });
            let others = [
                &w.hidden,
                &w.chunk,
                &w.of_stream,
                &w.of_narrow,
                &w.of_heads,
                &w.of_qkv,
                &w.of_wide,
            ];
            let held: usize = of_blocks.chain(&w.streams).chain(others).map(Vec::len).sum();
            let moments = 2 * tokens.len() * (2 * w.blocks.len() + 1);
            let counted = numbers_of_a_pass(&shape, tokens.len() as u64, recompute);
            assert_eq!(counted, (held + moments) as u64);
        }
    }
}
