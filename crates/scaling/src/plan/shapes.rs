use measure::GptShape;
use serde::{Deserialize, Serialize};

/// Which widths a growth may start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WidthRule {
    /// Any number of heads of the same size.
    Any,
    /// Widths that divide the larger one.
    Integer,
}

/// The growths that a plan may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operators {
    /// Wider models; not at all without it.
    pub width: Option<WidthRule>,
    /// Deeper models, by any number of blocks.
    pub depth: bool,
}

/// Most shapes that a search looks at; they are spread evenly over ln N.
const BINS_PER_OCTAVE: f64 = 5.0;

/// N of the smallest shape of a chain over that of its last.
const LEAST_SHARE: f64 = 1.0 / 4096.0;

impl Operators {
    /// Every growth.
    pub const ALL: Self = Self { width: Some(WidthRule::Any), depth: true };

    /// Whether one shape grows into another.
    pub fn reach(&self, small: &GptShape, large: &GptShape) -> bool {
        let width = match self.width {
            Some(WidthRule::Any) => small.d_model <= large.d_model,
            Some(WidthRule::Integer) => large.d_model.is_multiple_of(small.d_model),
            None => small.d_model == large.d_model,
        };
        let same_heads = small.d_model / small.n_heads == large.d_model / large.n_heads;
        let depth =
            small.n_layers == large.n_layers || (self.depth && small.n_layers < large.n_layers);
        width && same_heads && depth && small != large
    }

    /// Every shape that grows into `last`, down to a 4096th of its parameters, with its head size.
    pub fn sources(&self, last: &GptShape) -> Vec<GptShape> {
        let d_head = last.d_model / last.n_heads;
        let ff_ratio = last.d_ff as f64 / last.d_model as f64;
        let mut found = Vec::new();
        for n_layers in 1..=last.n_layers {
            for n_heads in 1..=last.n_heads {
                let d_model = n_heads * d_head;
                let d_ff = (ff_ratio * d_model as f64).round() as usize;
                let shape = GptShape { n_layers, d_model, n_heads, d_ff, ..*last };
                let share = shape.n_params() as f64 / last.n_params() as f64;
                if share >= LEAST_SHARE && self.reach(&shape, last) {
                    found.push(shape);
                }
            }
        }
        found.sort_by_key(GptShape::n_params);
        found
    }
}

/// Of many shapes those that are nearest in proportion to `last`, a few for each doubling of N.
pub(crate) fn spread(shapes: &[GptShape], last: &GptShape) -> Vec<GptShape> {
    let aspect = |shape: &GptShape| (shape.d_model as f64 / shape.n_layers as f64).ln();
    let away = |shape: &GptShape| (aspect(shape) - aspect(last)).abs();
    let bin = |shape: &GptShape| {
        let octaves = (last.n_params() as f64 / shape.n_params() as f64).log2();
        (octaves * BINS_PER_OCTAVE).round() as i64
    };
    let nearest =
        |group: &[GptShape]| group.iter().min_by(|a, b| away(a).total_cmp(&away(b))).copied();
    shapes.chunk_by(|a, b| bin(a) == bin(b)).filter_map(nearest).collect()
}

/// Shapes of one proportion: a width of so many heads, and as many blocks as the aspect asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Width of a head.
    pub d_head: usize,
    /// d_model over n_layers.
    pub aspect: f64,
    /// Vocabulary, for exact counts.
    pub n_vocab: usize,
    /// Positions, for exact counts.
    pub context_len: usize,
}

/// Most heads of a family's shapes.
const MOST_HEADS: usize = 512;

impl Family {
    /// Every shape of the family, by increasing N.
    pub fn shapes(&self) -> Vec<GptShape> {
        let shape = |n_heads: usize| {
            let d_model = n_heads * self.d_head;
            let n_layers = ((d_model as f64 / self.aspect).round() as usize).max(1);
            GptShape {
                n_layers,
                d_model,
                n_heads,
                d_ff: 4 * d_model,
                n_vocab: self.n_vocab,
                context_len: self.context_len,
                tied_head: true,
            }
        };
        (1..=MOST_HEADS).map(shape).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(n_layers: usize, n_heads: usize) -> GptShape {
        let family = Family { d_head: 64, aspect: 64.0, n_vocab: 50257, context_len: 1024 };
        let d_model = 64 * n_heads;
        GptShape { n_layers, d_model, n_heads, d_ff: 4 * d_model, ..family.shapes()[0] }
    }

    #[test]
    fn operators_reach_what_they_say() {
        let last = gpt(12, 12);
        let only = |width, depth| Operators { width, depth };
        let cases = [
            (Operators::ALL, gpt(5, 7), true),
            (Operators::ALL, last, false),
            (Operators::ALL, gpt(13, 7), false),
            (only(Some(WidthRule::Integer), true), gpt(5, 6), true),
            (only(Some(WidthRule::Integer), true), gpt(5, 7), false),
            (only(None, true), gpt(5, 12), true),
            (only(None, true), gpt(5, 6), false),
            (only(Some(WidthRule::Any), false), gpt(12, 5), true),
            (only(Some(WidthRule::Any), false), gpt(11, 5), false),
        ];
        for (operators, small, reaches) in cases {
            assert_eq!(operators.reach(&small, &last), reaches, "{small} {operators:?}");
        }
        let depth: Vec<usize> =
            only(None, true).sources(&last).iter().map(|shape| shape.n_layers).collect();
        assert_eq!(depth, (1..12).collect::<Vec<_>>());
        assert_eq!(only(Some(WidthRule::Integer), false).sources(&last).len(), 5);
    }

    #[test]
    fn a_spread_is_even_and_in_proportion() {
        let last = gpt(36, 20);
        let all = Operators::ALL.sources(&last);
        let few = spread(&all, &last);
        assert!(few.len() > 40 && few.len() < 64, "{} of {}", few.len(), all.len());
        assert!(few.is_sorted_by_key(GptShape::n_params));
    }
}
