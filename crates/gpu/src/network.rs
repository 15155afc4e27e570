// Axes: R rows (sequences times positions), C width, A width of all heads together, F feed-forward width, V vocabulary.

use crate::attention::{Attended, Heads};
use crate::head::Rows;
use crate::matrix::{
    cube, empty, integers, narrowed, product, product_into, reshaped, rows, tensor, to_host,
    transposed, zeros,
};
use crate::norm::{self, Branch, Normed, OfNorm};
use crate::sums::{add_parts, add_sum_of_rows};
use crate::{embedding, feed_forward};
use burn::tensor::Tensor;
use burn_backend::{DType, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use kernels::{Batch, Block, Weights};
use measure::{GptShape, Precision};
use state::{ModelConstants, ParamId};
use std::collections::BTreeMap;

const LOGITS: usize = 1 << 26;
/// Rows of logits, and words with those of no meaning after them, come in multiples of these: products of such
/// matrices are faster.
const ROWS: usize = 256;
const WORDS: usize = 64;
/// Tiles that keep a GPU busy, of so many rows and columns: a gradient with fewer is summed up in parts.
const TILES: usize = 256;
const TILE: usize = 128;
/// Fewest rows that a part of a weight's gradient sums over.
const PART: usize = 512;

/// A model's parameters on a GPU, and its passes.
pub struct Network {
    shape: GptShape,
    constants: ModelConstants,
    dtype: DType,
    recompute: bool,
    /// Logits in memory at a time.
    logits_at_once: usize,
    weights: Weights<CubeTensor>,
    /// The matrices of `weights` in the compute precision, the head with rows of zeros up to a multiple of [`WORDS`].
    matrices: Vec<Matrices>,
    head: CubeTensor,
}

struct Matrices {
    qkv: CubeTensor,
    out: CubeTensor,
    wide: CubeTensor,
    narrow: CubeTensor,
}

/// Sums of gradients on a GPU.
pub struct Gradients(Box<Weights<CubeTensor>>);

/// The loss of each row of a batch, still on the GPU.
pub struct Losses(CubeTensor);

impl Losses {
    /// Their sum, in nats.
    ///
    /// # Panics
    /// When the device fails.
    pub fn sum(self) -> f64 {
        to_host(self.0).into_iter().map(f64::from).sum()
    }
}

impl Gradients {
    /// Each one with its parameter.
    pub fn into_tensors(self) -> BTreeMap<ParamId, Tensor<2>> {
        self.0.into_pairs().into_iter().map(|(id, x)| (id, tensor(x))).collect()
    }
}

/// What a block's backward pass needs of its forward pass.
struct Passed {
    norm1: Normed,
    attended: Attended,
    norm2: Normed,
    /// The feed-forward layer's input without its bias, and its output, `[R, F]`.
    wide: CubeTensor,
    active: CubeTensor,
}

/// The stream before a block, and where it is not to be passed again, what its forward pass made.
type Kept = (CubeTensor, Option<Passed>);

impl Network {
    /// The network of parameters, whose matrices are contiguous. With `recompute`, activations are made again in the
    /// backward pass instead of kept.
    ///
    /// # Panics
    /// Where the parameters are not on a device of CubeCL.
    pub fn new(
        shape: GptShape,
        constants: ModelConstants,
        precision: Precision,
        recompute: bool,
        params: &BTreeMap<ParamId, Tensor<2>>,
    ) -> Self {
        let dtype = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let weights = Weights::build(&shape, |id| cube(params[&id].clone()));
        let same = |x: &CubeTensor| narrowed(x, x.shape()[0], dtype);
        let matrices = weights.blocks.iter().map(|block| Matrices {
            qkv: same(&block.qkv),
            out: same(&block.out),
            wide: same(&block.wide),
            narrow: same(&block.narrow),
        });
        let matrices = matrices.collect();
        let head = weights.head.as_ref().unwrap_or(&weights.token_embedding);
        let head = narrowed(head, shape.n_vocab.next_multiple_of(WORDS), dtype);
        let logits_at_once = LOGITS;
        Self { shape, constants, dtype, recompute, logits_at_once, weights, matrices, head }
    }

    /// The same with fewest rows of logits at a time.
    #[cfg(test)]
    pub(crate) fn in_small_chunks(mut self) -> Self {
        self.logits_at_once = 1;
        self
    }

    /// Gradients to which nothing has been added.
    pub fn zeros(&self) -> Gradients {
        let like = &self.weights.token_embedding;
        Gradients(Box::new(Weights::build(&self.shape, |id| {
            let dims = id.role.dims(&self.shape);
            let columns = *dims.last().unwrap_or(&1);
            zeros(like, [dims.iter().product::<usize>() / columns, columns])
        })))
    }

    /// Cross-entropy of each row.
    pub fn loss(&self, batch: &Batch<'_>) -> Losses {
        let (_, last) = self.forward(batch, false);
        let losses = empty(&last.stream, &[batch.inputs.len()], DType::F32);
        let targets = integers(&last.stream, batch.targets);
        self.head_chunks(&last.out, |first, hidden| {
            let products = &product(hidden, transposed(self.head.clone()));
            let rows = Rows { products, n_vocab: self.shape.n_vocab, targets: &targets, first };
            rows.cross_entropy(self.multiplier(), None, &losses);
        });
        Losses(losses)
    }

    /// The same, with the gradient of their sum times `weight` added to `gradients`.
    pub fn add_gradients(
        &self,
        batch: &Batch<'_>,
        weight: f64,
        gradients: &mut Gradients,
    ) -> Losses {
        let sums = &gradients.0;
        let (blocks, last) = self.forward(batch, true);
        let losses = empty(&last.stream, &[batch.inputs.len()], DType::F32);
        let targets = integers(&last.stream, batch.targets);
        let of_hidden = empty(&last.stream, &last.stream.shape().dims::<2>(), self.dtype);
        let of_head = sums.head.as_ref().unwrap_or(&sums.token_embedding);
        self.head_chunks(&last.out, |first, hidden| {
            let products = product(hidden.clone(), transposed(self.head.clone()));
            let n_vocab = self.shape.n_vocab;
            let rows_of = Rows { products: &products, n_vocab, targets: &targets, first };
            rows_of.cross_entropy(self.multiplier(), Some(weight as f32), &losses);
            let n = products.shape()[0];
            product_into(rows(&of_hidden, first, n), products.clone(), self.head.clone());
            add_parts(of_head, product(transposed(products), hidden), 1);
        });
        self.backward(batch, blocks, &last, of_hidden, sums);
        Losses(losses)
    }

    /// Logits of one sequence's positions from `first` on, row by row.
    ///
    /// # Panics
    /// When the device fails.
    pub fn logits(&self, inputs: &[u32], first: usize) -> Vec<f32> {
        let batch = Batch { inputs, targets: &[], context_len: inputs.len() };
        let (_, last) = self.forward(&batch, false);
        // Where the rows begin, a product would read from an odd place in the buffer.
        let products = product(last.out, transposed(self.head.clone()));
        let width = products.shape()[1];
        let all = to_host(products);
        let multiplier = self.multiplier();
        let rows = all.chunks_exact(width).skip(first);
        rows.flat_map(|row| row[..self.shape.n_vocab].iter().map(|x| x * multiplier)).collect()
    }

    fn multiplier(&self) -> f32 {
        self.constants.output_multiplier as f32
    }

    /// Calls `each` for rows of the last norm's output, with the number of the first.
    fn head_chunks(&self, hidden: &CubeTensor, mut each: impl FnMut(usize, CubeTensor)) {
        let n_rows = hidden.shape()[0];
        let step = (self.logits_at_once / self.head.shape()[0] / ROWS).max(1) * ROWS;
        for first in (0..n_rows).step_by(step) {
            each(first, rows(hidden, first, step.min(n_rows - first)));
        }
    }

    fn heads(&self, context_len: usize) -> Heads {
        Heads { n: self.shape.n_heads, size: self.shape.d_head, context_len }
    }

    /// What the backward pass needs of each block, if it is to be kept, and the last norm.
    fn forward(&self, batch: &Batch<'_>, keep: bool) -> (Vec<Kept>, Normed) {
        let weights = &self.weights;
        let tokens = integers(&weights.token_embedding, batch.inputs);
        let (of_token, of_position) = (&weights.token_embedding, &weights.position_embedding);
        let mut x = embedding::forward(&tokens, of_token, of_position, batch.context_len);
        let mut branch = None;
        let mut kept = Vec::new();
        for layer in 0..self.shape.n_layers {
            let (passed, after) = self.block(layer, batch.context_len, x, branch);
            x = passed.norm2.stream.clone();
            branch = Some(after);
            if keep {
                let before = passed.norm1.stream.clone();
                kept.push((before, (!self.recompute).then_some(passed)));
            }
        }
        let (gain, bias) = (&weights.norm_gain, &weights.norm_bias);
        (kept, norm::forward(x, branch, gain, bias, self.eps(), self.dtype))
    }

    fn eps(&self) -> f32 {
        self.constants.norm_eps as f32
    }

    /// A block's pass, and what it adds to the stream at its end.
    fn block(
        &self,
        layer: usize,
        context_len: usize,
        x: CubeTensor,
        branch: Option<Branch>,
    ) -> (Passed, Branch) {
        let (w, m) = (&self.weights.blocks[layer], &self.matrices[layer]);
        let norm =
            |x, branch, gain, bias| norm::forward(x, branch, gain, bias, self.eps(), self.dtype);
        let norm1 = norm(x, branch, &w.norm1_gain, &w.norm1_bias);
        let qkv = product(norm1.out.clone(), m.qkv.clone());
        let attended = self.heads(context_len).forward(qkv, &w.qkv_bias);
        let out = product(attended.out.clone(), m.out.clone());
        let branch = Branch { out, bias: w.out_bias.clone() };
        let stream = norm1.stream.clone();
        let norm2 = norm(stream, Some(branch), &w.norm2_gain, &w.norm2_bias);
        let wide = product(norm2.out.clone(), m.wide.clone());
        let active = feed_forward::forward(&wide, &w.wide_bias);
        let out = product(active.clone(), m.narrow.clone());
        let branch = Branch { out, bias: w.narrow_bias.clone() };
        (Passed { norm1, attended, norm2, wide, active }, branch)
    }

    fn backward(
        &self,
        batch: &Batch<'_>,
        blocks: Vec<Kept>,
        last: &Normed,
        of_hidden: CubeTensor,
        sums: &Weights<CubeTensor>,
    ) {
        let of_norm = OfNorm { gain: &sums.norm_gain, bias: &sums.norm_bias };
        let mut of_stream = norm::backward(last, &self.weights.norm_gain, of_hidden, None, of_norm);
        for (layer, (before, passed)) in blocks.into_iter().enumerate().rev() {
            let again = || self.block(layer, batch.context_len, before, None).0;
            let passed = passed.unwrap_or_else(again);
            let heads = self.heads(batch.context_len);
            of_stream = self.block_backward(layer, heads, passed, of_stream, &sums.blocks[layer]);
        }
        let [of_stream, _] = of_stream;
        let (of_token, of_position) = (&sums.token_embedding, &sums.position_embedding);
        embedding::backward(batch.inputs, &of_stream, of_token, of_position, batch.context_len);
    }

    /// From the gradient of the stream after a block to that before it, each in f32 and in the compute precision.
    fn block_backward(
        &self,
        layer: usize,
        heads: Heads,
        passed: Passed,
        of_stream: [CubeTensor; 2],
        sums: &Block<CubeTensor>,
    ) -> [CubeTensor; 2] {
        let (w, m) = (&self.weights.blocks[layer], &self.matrices[layer]);
        let Passed { norm1, attended, norm2, wide, active } = passed;

        let [of_stream, of_out] = of_stream;
        add_sum_of_rows(&sums.narrow_bias, &of_stream);
        add_weight_gradient(&sums.narrow, active, of_out.clone());
        let of_wide = product(of_out, transposed(m.narrow.clone()));
        feed_forward::backward(&wide, &w.wide_bias, &of_wide);
        add_sum_of_rows(&sums.wide_bias, &of_wide);
        add_weight_gradient(&sums.wide, norm2.out.clone(), of_wide.clone());
        let of_normed = product(of_wide, transposed(m.wide.clone()));
        let of_norm = OfNorm { gain: &sums.norm2_gain, bias: &sums.norm2_bias };
        let [of_stream, of_out] =
            norm::backward(&norm2, &w.norm2_gain, of_normed, Some(of_stream), of_norm);

        add_sum_of_rows(&sums.out_bias, &of_stream);
        add_weight_gradient(&sums.out, attended.out.clone(), of_out.clone());
        let of_heads = product(of_out, transposed(m.out.clone()));
        let of_qkv = heads.backward(&attended, of_heads);
        add_sum_of_rows(&sums.qkv_bias, &of_qkv);
        add_weight_gradient(&sums.qkv, norm1.out.clone(), of_qkv.clone());
        let of_normed = product(of_qkv, transposed(m.qkv.clone()));
        let of_norm = OfNorm { gain: &sums.norm1_gain, bias: &sums.norm1_bias };
        norm::backward(&norm1, &w.norm1_gain, of_normed, Some(of_stream), of_norm)
    }
}

/// Adds `xᵀ y` to a weight's gradient, `x` `[R, in]`, `y` `[R, out]`. A product with few tiles leaves most of a GPU idle,
/// so its rows are shared out among several.
fn add_weight_gradient(sum: &CubeTensor, x: CubeTensor, y: CubeTensor) {
    let ([n_rows, a], [_, b]) = (x.shape().dims::<2>(), y.shape().dims::<2>());
    let tiles = a.div_ceil(TILE) * b.div_ceil(TILE);
    let mut parts = 1;
    while parts * tiles < TILES && n_rows.is_multiple_of(2 * parts * PART) {
        parts *= 2;
    }
    let split = |x: CubeTensor, width| reshaped(&x, &[parts, n_rows / parts, width]);
    let products = product(transposed(split(x, a)), split(y, b));
    add_parts(sum, products, parts);
}
