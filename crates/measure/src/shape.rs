use crate::Flops;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The shape of a GPT-2 decoder: everything that fixes its parameter and FLOP counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptShape {
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads in a block; divides `d_model`.
    pub n_heads: usize,
    /// Width of the feed-forward layer, 4 `d_model` in GPT-2.
    pub d_ff: usize,
    /// Size of the vocabulary, in tokens.
    pub n_vocab: usize,
    /// Longest sequence, in tokens.
    pub context_len: usize,
    /// Whether the output head is the token embedding.
    pub tied_head: bool,
}

/// A shape that no model can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A dimension is zero, or beyond any model that this program could hold.
    #[error("{dimension} = {size}: must be from 1 to {most}")]
    Size {
        /// Name of the dimension.
        dimension: &'static str,
        /// Its size.
        size: usize,
        /// Largest size.
        most: usize,
    },
    /// The heads do not share the width evenly.
    #[error("n_heads = {n_heads}: must divide d_model = {d_model}")]
    Heads {
        /// Number of heads asked for.
        n_heads: usize,
        /// Width asked for.
        d_model: usize,
    },
}

impl GptShape {
    /// Checks that a model of this shape can be built.
    ///
    /// # Errors
    /// A dimension out of its range, or heads that do not divide the width.
    pub fn check(&self) -> Result<(), ShapeError> {
        let dimensions = [
            ("n_layers", self.n_layers, 10_000),
            ("d_model", self.d_model, 100_000),
            ("n_heads", self.n_heads, 100_000),
            ("d_ff", self.d_ff, 1_000_000),
            ("n_vocab", self.n_vocab, 10_000_000),
            ("context_len", self.context_len, 100_000),
        ];
        for (dimension, size, most) in dimensions {
            if size == 0 || size > most {
                return Err(ShapeError::Size { dimension, size, most });
            }
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(ShapeError::Heads { n_heads: self.n_heads, d_model: self.d_model });
        }
        Ok(())
    }

    /// N: non-embedding weights, biases and layer norms left out; 12 `n_layers` `d_model`^2 when
    /// `d_ff` is 4 `d_model` (Kaplan et al. 2020, eq. 2.1).
    pub fn n_params(&self) -> u64 {
        let (d, f) = (self.d_model as u64, self.d_ff as u64);
        self.n_layers as u64 * (4 * d * d + 2 * d * f)
    }

    /// Non-embedding parameters with biases and layer norms, as built.
    pub fn n_params_exact(&self) -> u64 {
        let (d, f) = (self.d_model as u64, self.d_ff as u64);
        let norms = 4 * d;
        let biases = 3 * d + d + f + d;
        self.n_params() + self.n_layers as u64 * (norms + biases) + 2 * d
    }

    /// All parameters as built, embeddings and an untied head included.
    pub fn n_params_total(&self) -> u64 {
        let d = self.d_model as u64;
        let tables = if self.tied_head { 1 } else { 2 };
        self.n_params_exact() + d * (tables * self.n_vocab as u64 + self.context_len as u64)
    }

    /// Training FLOPs for one token, forward and backward: 6 N (Kaplan et al. 2020, section 2.1).
    pub fn flops_per_token(&self) -> Flops {
        Flops(6.0 * self.n_params() as f64)
    }

    /// Training FLOPs for one token with attention scores over the full context (12 `n_layers`
    /// `d_model` `context_len`, nothing skipped for causality) and the output head
    /// (6 `d_model` `n_vocab`).
    pub fn flops_per_token_exact(&self) -> Flops {
        let attention = 12 * self.n_layers * self.d_model * self.context_len;
        let head = 6 * self.d_model * self.n_vocab;
        Flops(self.flops_per_token().0 + (attention + head) as f64)
    }
}

impl fmt::Display for GptShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.n_layers, self.d_model, self.n_heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt2_small() -> GptShape {
        GptShape {
            n_layers: 12,
            d_model: 768,
            n_heads: 12,
            d_ff: 3072,
            n_vocab: 50257,
            context_len: 1024,
            tied_head: true,
        }
    }

    /// Radford et al. 2019 and the published checkpoints: 124,439,808 parameters in all;
    /// 84,934,656 is N of the same shape.
    #[test]
    fn counts_of_gpt2_small_are_the_published_ones() {
        assert_eq!(gpt2_small().n_params(), 84_934_656);
        assert_eq!(gpt2_small().n_params_total(), 124_439_808);
    }

    #[test]
    fn an_untied_head_adds_one_table() {
        let untied = GptShape { tied_head: false, ..gpt2_small() };
        assert_eq!(untied.n_params_total() - gpt2_small().n_params_total(), 50257 * 768);
        assert_eq!(untied.n_params(), gpt2_small().n_params());
    }

    #[test]
    fn exact_flops_add_attention_and_head() {
        let shape = gpt2_small();
        let extra = shape.flops_per_token_exact().0 - shape.flops_per_token().0;
        assert_eq!(extra, f64::from(12 * 12 * 768 * 1024 + 6 * 768 * 50257));
    }

    #[test]
    fn impossible_shapes_are_named() {
        let wide = GptShape { d_model: usize::MAX, ..gpt2_small() };
        assert!(wide.check().unwrap_err().to_string().contains("must be from 1 to 100000"));
        let odd = GptShape { n_heads: 5, ..gpt2_small() };
        assert_eq!(odd.check(), Err(ShapeError::Heads { n_heads: 5, d_model: 768 }));
        let empty = GptShape { n_layers: 0, ..gpt2_small() };
        assert_eq!(
            empty.check(),
            Err(ShapeError::Size { dimension: "n_layers", size: 0, most: 10_000 })
        );
        assert_eq!(gpt2_small().check(), Ok(()));
    }
}
