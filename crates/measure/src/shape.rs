use crate::Flops;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The shape of a GPT-2 decoder: everything that fixes its parameter and FLOP counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "ShapeFile", into = "ShapeFile")]
pub struct GptShape {
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads in a block.
    pub n_heads: usize,
    /// Width of a head, `d_model` / `n_heads` in GPT-2.
    pub d_head: usize,
    /// Width of the feed-forward layer, 4 `d_model` in GPT-2.
    pub d_ff: usize,
    /// Size of the vocabulary, in tokens.
    pub n_vocab: usize,
    /// Longest sequence, in tokens.
    pub context_len: usize,
    /// Whether the output head is the token embedding.
    pub tied_head: bool,
}

/// A shape as it is written: `d_head` is left out where it is GPT-2's, as in the checkpoints of before, over whose records
/// there are checksums.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapeFile {
    n_layers: usize,
    d_model: usize,
    n_heads: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_head: Option<usize>,
    d_ff: usize,
    n_vocab: usize,
    context_len: usize,
    tied_head: bool,
}

impl From<ShapeFile> for GptShape {
    fn from(file: ShapeFile) -> Self {
        let ShapeFile { n_layers, d_model, n_heads, d_head, d_ff, .. } = file;
        let plain = Self {
            n_vocab: file.n_vocab,
            context_len: file.context_len,
            tied_head: file.tied_head,
            ..Self::gpt2(n_layers, d_model, n_heads)
        };
        plain.with_inside(d_head, Some(d_ff))
    }
}

impl From<GptShape> for ShapeFile {
    fn from(shape: GptShape) -> Self {
        Self {
            n_layers: shape.n_layers,
            d_model: shape.d_model,
            n_heads: shape.n_heads,
            d_head: shape.inside().0,
            d_ff: shape.d_ff,
            n_vocab: shape.n_vocab,
            context_len: shape.context_len,
            tied_head: shape.tied_head,
        }
    }
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
    /// The heads do not share the width evenly, and no width of theirs is given.
    #[error("n_heads = {n_heads}: must divide d_model = {d_model} where no d_head is given")]
    Heads {
        /// Number of heads asked for.
        n_heads: usize,
        /// Width asked for.
        d_model: usize,
    },
    /// No shape as it is written.
    #[error(
        "must be LAYERSxWIDTHxHEADS, as 4x128x4, and where they are not GPT-2's the width of a head and of the \
         feed-forward layer, as 4x128x1-h32-f128"
    )]
    Text,
}

impl GptShape {
    /// GPT-2's proportions: heads that share the width, a feed-forward layer 4 times as wide. One token, one position and a
    /// tied head. Heads that do not divide the width have a width of zero, which [`GptShape::check`] tells.
    pub fn gpt2(n_layers: usize, d_model: usize, n_heads: usize) -> Self {
        Self {
            n_layers,
            d_model,
            n_heads,
            d_head: if d_model.is_multiple_of(n_heads) {
                d_model.checked_div(n_heads).unwrap_or(0)
            } else {
                0
            },
            d_ff: d_model.saturating_mul(4),
            n_vocab: 1,
            context_len: 1,
            tied_head: true,
        }
    }

    /// The same with other widths inside the blocks, where they are given.
    #[must_use]
    pub fn with_inside(self, d_head: Option<usize>, d_ff: Option<usize>) -> Self {
        let (d_head, d_ff) = (d_head.unwrap_or(self.d_head), d_ff.unwrap_or(self.d_ff));
        Self { d_head, d_ff, ..self }
    }

    /// What [`GptShape::with_inside`] takes to these widths from GPT-2's: of a head and of the feed-forward layer, where they differ.
    pub fn inside(&self) -> (Option<usize>, Option<usize>) {
        let plain = Self::gpt2(self.n_layers, self.d_model, self.n_heads);
        let other = |found: usize, plain: usize| (found != plain).then_some(found);
        (other(self.d_head, plain.d_head), other(self.d_ff, plain.d_ff))
    }

    /// Width of all heads of a block together, `d_model` in GPT-2.
    pub fn d_attention(&self) -> usize {
        self.n_heads.saturating_mul(self.d_head)
    }

    /// Checks that a model of this shape can be built.
    ///
    /// # Errors
    /// A dimension out of its range, or heads without a width that do not divide that of the stream.
    pub fn check(&self) -> Result<(), ShapeError> {
        let Self { n_heads, d_model, .. } = *self;
        if self.d_head == 0 && n_heads > 0 && !d_model.is_multiple_of(n_heads) {
            return Err(ShapeError::Heads { n_heads, d_model });
        }
        let dimensions = [
            ("n_layers", self.n_layers, 10_000),
            ("d_model", self.d_model, 100_000),
            ("n_heads", self.n_heads, 100_000),
            ("d_head", self.d_head, 100_000),
            ("n_heads * d_head", self.d_attention(), 1_000_000),
            ("d_ff", self.d_ff, 1_000_000),
            ("n_vocab", self.n_vocab, 10_000_000),
            ("context_len", self.context_len, 100_000),
        ];
        for (dimension, size, most) in dimensions {
            if size == 0 || size > most {
                return Err(ShapeError::Size { dimension, size, most });
            }
        }
        Ok(())
    }

    /// N: non-embedding weights, biases and layer norms left out; 12 `n_layers` `d_model`^2 in GPT-2's
    /// proportions (Kaplan et al. 2020, eq. 2.1).
    pub fn n_params(&self) -> u64 {
        let (d, a, f) = (self.d_model as u64, self.d_attention() as u64, self.d_ff as u64);
        self.n_layers as u64 * (4 * d * a + 2 * d * f)
    }

    /// Non-embedding parameters with biases and layer norms, as built.
    pub fn n_params_exact(&self) -> u64 {
        let (d, a, f) = (self.d_model as u64, self.d_attention() as u64, self.d_ff as u64);
        let norms = 4 * d;
        let biases = 3 * a + d + f + d;
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
    /// `n_heads` `d_head` `context_len`, nothing skipped for causality) and the output head
    /// (6 `d_model` `n_vocab`).
    pub fn flops_per_token_exact(&self) -> Flops {
        let attention = 12 * self.n_layers * self.d_attention() * self.context_len;
        let head = 6 * self.d_model * self.n_vocab;
        Flops(self.flops_per_token().0 + (attention + head) as f64)
    }

    /// The latter over the former, at every amount of compute.
    pub fn exact_over_6n(&self) -> f64 {
        self.flops_per_token_exact().0 / self.flops_per_token().0
    }
}

/// LAYERSxWIDTHxHEADS, and where they are not GPT-2's `-hWIDTH` of a head and `-fWIDTH` of the feed-forward layer:
/// 4x128x4, 4x128x1-h32-f128.
impl fmt::Display for GptShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.n_layers, self.d_model, self.n_heads)?;
        let (d_head, d_ff) = self.inside();
        d_head.map_or(Ok(()), |d_head| write!(f, "-h{d_head}"))?;
        d_ff.map_or(Ok(()), |d_ff| write!(f, "-f{d_ff}"))
    }
}

/// As it is displayed, with one token, one position and a tied head; its sizes are not yet checked.
impl FromStr for GptShape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let mut parts = text.split('-');
        let plain = parts.next().unwrap_or_default();
        let numbers = plain.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let [n_layers, d_model, n_heads] = numbers.unwrap_or_default()[..] else {
            return Err(ShapeError::Text);
        };
        let (mut d_head, mut d_ff) = (None, None);
        for part in parts {
            let (place, number) = match (part.strip_prefix('h'), part.strip_prefix('f')) {
                (Some(number), _) if d_head.is_none() && d_ff.is_none() => (&mut d_head, number),
                (_, Some(number)) if d_ff.is_none() => (&mut d_ff, number),
                _ => return Err(ShapeError::Text),
            };
            *place = Some(number.parse().map_err(|_| ShapeError::Text)?);
        }
        Ok(Self::gpt2(n_layers, d_model, n_heads).with_inside(d_head, d_ff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt2_small() -> GptShape {
        GptShape { n_vocab: 50257, context_len: 1024, ..GptShape::gpt2(12, 768, 12) }
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
        let ratio = 1.0 + extra / shape.flops_per_token().0;
        assert!((shape.exact_over_6n() / ratio - 1.0).abs() < 1e-15);
    }

    #[test]
    fn impossible_shapes_are_named() {
        let wide = GptShape { d_model: usize::MAX, ..gpt2_small() };
        assert!(wide.check().unwrap_err().to_string().contains("must be from 1 to 100000"));
        let odd = GptShape::gpt2(12, 768, 5);
        assert_eq!(odd.check(), Err(ShapeError::Heads { n_heads: 5, d_model: 768 }));
        assert_eq!(odd.with_inside(Some(64), None).check(), Ok(()));
        let empty = GptShape { n_layers: 0, ..gpt2_small() };
        assert_eq!(
            empty.check(),
            Err(ShapeError::Size { dimension: "n_layers", size: 0, most: 10_000 })
        );
        assert_eq!(gpt2_small().check(), Ok(()));
    }

    /// Heads and feed-forward units inside a block cost what they hold, whatever the stream's width.
    #[test]
    fn a_block_may_be_thinner_inside_than_gpt2s() {
        let whole = gpt2_small();
        let half = GptShape { n_heads: 6, d_ff: 1536, ..whole };
        assert_eq!(2 * half.n_params(), whole.n_params());
        assert_eq!(
            2.0 * (half.flops_per_token_exact().0 - f64::from(6 * 768 * 50257)),
            whole.flops_per_token_exact().0 - f64::from(6 * 768 * 50257)
        );
        assert_eq!(half.check(), Ok(()));
    }

    #[test]
    fn shapes_are_read_as_they_are_written() {
        for text in ["4x128x4", "4x128x1-h32", "4x128x4-f128", "4x128x1-h32-f128", "1x10x3-h7"] {
            let shape: GptShape = text.parse().unwrap();
            assert_eq!(shape.to_string(), text);
            let file = serde_json::to_string(&shape).unwrap();
            assert_eq!(serde_json::from_str::<GptShape>(&file).unwrap(), shape);
        }
        for text in ["4x128", "4x128x4-", "4x128x4-f128-h32", "4x128x4-h", "4x128x4-x3", "-h32"] {
            assert_eq!(text.parse::<GptShape>(), Err(ShapeError::Text), "{text}");
        }
        let none = "4x128x0".parse::<GptShape>().unwrap().check();
        assert_eq!(none, Err(ShapeError::Size { dimension: "n_heads", size: 0, most: 100_000 }));
    }

    /// Checkpoints that were written when heads always shared the width.
    #[test]
    fn a_shape_without_a_head_width_is_gpt2s() {
        let old = r#"{"n_layers":4,"d_model":128,"n_heads":4,"d_ff":256,"n_vocab":256,"context_len":64,"tied_head":true}"#;
        let shape: GptShape = serde_json::from_str(old).unwrap();
        assert_eq!((shape.d_head, shape.d_ff), (32, 256));
        assert_eq!(serde_json::to_string(&shape).unwrap(), old);
    }
}
