use measure::GptShape;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

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
    /// More heads than go with the width.
    pub heads: bool,
    /// Larger heads.
    #[serde(default)]
    pub head_size: bool,
    /// More feed-forward units than go with the width.
    pub feed_forward: bool,
}

/// Shapes for each doubling of N that the search for a chain begins with; those near the chain that is found are all looked at.
const BINS_PER_OCTAVE: f64 = 5.0;

/// Parts of the feed-forward layer that may be there or not. Thinner layers lose more than a law in N says: at a quarter the loss was
/// 1.6 % higher, at a sixteenth 4.1 % (docs/savings/dickens.md).
const FF_SLICES: usize = 4;

/// Parts of a head that may be there or not: smaller ones than half lose more than they spare (docs/savings/dickens.md).
const HEAD_SLICES: usize = 2;

/// N of the smallest shape of a chain over that of its last.
const LEAST_SHARE: f64 = 1.0 / 4096.0;

impl Operators {
    /// Every growth.
    pub const ALL: Self = Self {
        width: Some(WidthRule::Any),
        depth: true,
        heads: true,
        head_size: true,
        feed_forward: true,
    };
    /// No growth.
    pub const NONE: Self =
        Self { width: None, depth: false, heads: false, head_size: false, feed_forward: false };
    /// Growths in width and depth, between shapes whose blocks have the same proportions.
    pub const IN_PROPORTION: Self = Self { width: Some(WidthRule::Any), depth: true, ..Self::NONE };

    /// Growths in width alone.
    pub const WIDTH: Self = Self { width: Some(WidthRule::Any), ..Self::NONE };

    /// What grows between two shapes.
    pub fn between(small: &GptShape, large: &GptShape) -> Self {
        Self {
            width: (small.d_model < large.d_model).then_some(WidthRule::Any),
            depth: small.n_layers < large.n_layers,
            heads: heads_for_width(small, large).is_lt(),
            head_size: small.d_head < large.d_head,
            feed_forward: !feed_forward_in_proportion(small, large),
        }
    }

    /// The kinds of growth by their names.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            (self.width.is_some(), "width"),
            (self.depth, "depth"),
            (self.heads, "heads"),
            (self.head_size, "head-size"),
            (self.feed_forward, "feed-forward"),
        ];
        kinds.into_iter().filter(|kind| kind.0).map(|kind| kind.1).collect()
    }

    /// Whether one shape grows into another.
    pub fn reach(&self, small: &GptShape, large: &GptShape) -> bool {
        let width = match self.width {
            Some(WidthRule::Any) => small.d_model <= large.d_model,
            Some(WidthRule::Integer) => large.d_model.is_multiple_of(small.d_model),
            None => small.d_model == large.d_model,
        };
        let depth =
            small.n_layers == large.n_layers || (self.depth && small.n_layers < large.n_layers);
        let heads = small.n_heads <= large.n_heads
            && match heads_for_width(small, large) {
                Ordering::Less => self.heads,
                Ordering::Equal => true,
                Ordering::Greater => self.heads || self.head_size,
            };
        let head_size =
            small.d_head == large.d_head || (self.head_size && small.d_head < large.d_head);
        let feed_forward = if self.feed_forward {
            small.d_ff <= large.d_ff
        } else {
            feed_forward_in_proportion(small, large)
        };
        width && depth && heads && head_size && feed_forward && small != large
    }

    /// Every shape that grows into `last`, down to a 4096th of its parameters. Where heads grow by themselves, from one head; where
    /// feed-forward units do, from a quarter of those that go with the width. Where the size of heads grows, a narrower shape has as
    /// many heads as it can, of half the size at least, and one of the same width may have heads of half the size.
    pub fn sources(&self, last: &GptShape) -> Vec<GptShape> {
        let mut found = Vec::new();
        self.each_source(last, |shape| found.push(shape));
        found.sort_by_key(GptShape::n_params);
        found
    }

    /// Of the shapes that grow into `last` those that are nearest to it in proportion, a few for each doubling of N, by increasing N.
    pub fn spread_sources(self, last: &GptShape) -> Vec<GptShape> {
        let mut spread = Spread::to(last);
        self.each_source(last, |shape| spread.take(shape));
        spread.found()
    }

    pub(super) fn each_source(self, last: &GptShape, mut take: impl FnMut(GptShape)) {
        let slices = if self.feed_forward { 1 } else { FF_SLICES };
        for n_layers in 1..=last.n_layers {
            for parts in 1..=last.n_heads {
                if !(last.d_model * parts).is_multiple_of(last.n_heads) {
                    continue;
                }
                let d_model = last.d_model * parts / last.n_heads;
                let most_units = (last.d_ff * parts) as f64 / last.n_heads as f64;
                for (n_heads, d_head) in self.heads(last, parts) {
                    for slice in slices..=FF_SLICES {
                        let units = most_units * slice as f64 / FF_SLICES as f64;
                        let d_ff = (units.round() as usize).max(1);
                        let shape = GptShape { n_layers, d_model, n_heads, d_head, d_ff, ..*last };
                        let share = shape.n_params() as f64 / last.n_params() as f64;
                        if share >= LEAST_SHARE && self.reach(&shape, last) {
                            take(shape);
                        }
                    }
                }
            }
        }
    }

    /// Numbers of heads and their sizes at a width of so many parts, of which the last shape has as many as heads.
    fn heads(self, last: &GptShape, parts: usize) -> Vec<(usize, usize)> {
        let fewest = if self.heads { 1 } else { parts };
        let of_full_size = (fewest..=parts).map(|n| (n, last.d_head));
        if !self.head_size {
            return of_full_size.collect();
        }
        let of_this_width = parts * last.d_head;
        let smaller = if parts == last.n_heads {
            last.d_head.is_multiple_of(HEAD_SLICES).then_some((parts, last.d_head / HEAD_SLICES))
        } else {
            let more = parts + 1..=last.n_heads.min(HEAD_SLICES * parts);
            let most = more.rev().find(|n| of_this_width.is_multiple_of(*n));
            most.map(|n| (n, of_this_width / n))
        };
        match smaller {
            // As large, and with as many heads as there will be: those that come in later are late for good.
            Some(smaller) if parts < last.n_heads => {
                of_full_size.filter(|(n, _)| *n < parts).chain([smaller]).collect()
            }
            smaller => of_full_size.chain(smaller).collect(),
        }
    }
}

/// N of the smallest shape that grows into the last of a chain, or of one in the chain that is smaller.
pub fn least_size(chain: &[GptShape]) -> f64 {
    let mut least = chain.iter().map(GptShape::n_params).min().unwrap_or(1);
    if let Some(last) = chain.last() {
        Operators::ALL.each_source(last, |shape| least = least.min(shape.n_params()));
    }
    least as f64
}

/// Whether the smaller shape has fewer heads for its width than the larger one, as many, or more.
fn heads_for_width(small: &GptShape, large: &GptShape) -> Ordering {
    (small.n_heads * large.d_model).cmp(&(large.n_heads * small.d_model))
}

/// Whether two shapes have attention and feed-forward layers in the same proportion to their width, with any number of heads: as many
/// parameters as a law in N takes them to have.
pub fn in_proportion(small: &GptShape, large: &GptShape) -> bool {
    small.d_attention() * large.d_model == large.d_attention() * small.d_model
        && feed_forward_in_proportion(small, large)
}

/// To whole units, to which both may be rounded.
fn feed_forward_in_proportion(small: &GptShape, large: &GptShape) -> bool {
    (small.d_ff * large.d_model).abs_diff(large.d_ff * small.d_model) <= large.d_model
}

/// The kinds joined, as "width and depth"; "no" without any.
impl fmt::Display for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        f.write_str(&if kinds.is_empty() { "no".to_string() } else { kinds.join(" and ") })
    }
}

/// Of some shapes the one whose N is nearest to a number, by their ratio.
pub(crate) fn nearest(shapes: impl Iterator<Item = GptShape>, n_params: f64) -> Option<GptShape> {
    let away = |shape: &GptShape| (shape.n_params() as f64 / n_params).ln().abs();
    shapes.min_by(|a, b| away(a).total_cmp(&away(b)))
}

/// Of many shapes those that are nearest in proportion to `last`, itself if it is among them, a few for each doubling of N, by
/// increasing N.
pub(crate) fn spread(shapes: &[GptShape], last: &GptShape) -> Vec<GptShape> {
    let mut spread = Spread::to(last);
    for shape in shapes {
        spread.take(*shape);
    }
    spread.found()
}

/// A spread of shapes that come one after the other, of which there may be very many.
struct Spread {
    last: GptShape,
    proportions: [f64; 3],
    /// The nearest in proportion of each part of an octave, from the largest N on, with how far it is away.
    nearest: BTreeMap<i64, (f64, GptShape)>,
}

impl Spread {
    fn to(last: &GptShape) -> Self {
        Self { last: *last, proportions: proportions(last), nearest: BTreeMap::new() }
    }

    fn take(&mut self, shape: GptShape) {
        let octaves = (self.last.n_params() as f64 / shape.n_params() as f64).log2();
        let bin = (octaves * BINS_PER_OCTAVE).round() as i64;
        let apart = proportions(&shape).into_iter().zip(self.proportions);
        let away = if shape == self.last {
            -1.0
        } else {
            apart.map(|(found, due)| (found - due).abs()).sum()
        };
        let rank = |away: f64, shape: &GptShape| (away, shape.n_params());
        let is_nearer = self
            .nearest
            .get(&bin)
            .is_none_or(|(least, nearest)| rank(away, &shape) < rank(*least, nearest));
        if is_nearer {
            self.nearest.insert(bin, (away, shape));
        }
    }

    fn found(self) -> Vec<GptShape> {
        self.nearest.into_values().rev().map(|(_, shape)| shape).collect()
    }
}

/// Layers, attention and feed-forward units over the width, as logarithms.
fn proportions(shape: &GptShape) -> [f64; 3] {
    let per_width = |n: usize| (n as f64 / shape.d_model as f64).ln();
    [shape.n_layers, shape.d_attention(), shape.d_ff].map(per_width)
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
    /// Every shape of the family that can be built, by increasing N.
    pub fn shapes(&self) -> Vec<GptShape> {
        let shapes = (1..=MOST_HEADS).map(|n_heads| self.shape(n_heads));
        shapes.take_while(|shape| shape.check().is_ok()).collect()
    }

    /// The shape with so many heads.
    pub(super) fn shape(&self, n_heads: usize) -> GptShape {
        let d_model = n_heads * self.d_head;
        let n_layers = ((d_model as f64 / self.aspect).round() as usize).max(1);
        GptShape {
            n_vocab: self.n_vocab,
            context_len: self.context_len,
            ..GptShape::gpt2(n_layers, d_model, n_heads)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(n_layers: usize, n_heads: usize) -> GptShape {
        let d_model = 64 * n_heads;
        GptShape { n_vocab: 50257, context_len: 1024, ..GptShape::gpt2(n_layers, d_model, n_heads) }
    }

    #[test]
    fn operators_reach_what_they_say() {
        let last = gpt(12, 12);
        let only = |width, depth| Operators { width, depth, ..Operators::NONE };
        let feed_forward = Operators { feed_forward: true, ..Operators::NONE };
        let inner = Operators { heads: true, ..feed_forward };
        let flat = GptShape { d_ff: 768, ..last };
        let thin = GptShape { n_heads: 3, d_ff: 768, ..last };
        let sizes = Operators { head_size: true, ..Operators::NONE };
        let small_heads = GptShape { d_head: 32, ..last };
        let narrow = GptShape { d_model: 384, d_ff: 1536, ..small_heads };
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
            (feed_forward, flat, true),
            (feed_forward, thin, false),
            (feed_forward, gpt(12, 3), false),
            (Operators { heads: true, ..Operators::NONE }, thin, false),
            (inner, thin, true),
            (inner, gpt(12, 3), false),
            (inner, GptShape { n_layers: 11, ..thin }, false),
            (inner, GptShape { d_head: 32, ..thin }, false),
            (inner, GptShape { d_ff: 3073, ..thin }, false),
            (Operators::ALL, thin, true),
            (sizes, small_heads, true),
            (sizes, GptShape { d_head: 65, ..last }, false),
            (sizes, GptShape { n_heads: 11, ..small_heads }, false),
            (
                Operators { feed_forward: true, ..sizes },
                GptShape { d_ff: 768, ..small_heads },
                true,
            ),
            (Operators { width: Some(WidthRule::Any), ..sizes }, narrow, true),
            (Operators::WIDTH, narrow, false),
            (Operators::IN_PROPORTION, thin, false),
        ];
        for (operators, small, reaches) in cases {
            assert_eq!(operators.reach(&small, &last), reaches, "{small} {operators:?}");
        }
        let depth: Vec<usize> =
            only(None, true).sources(&last).iter().map(|shape| shape.n_layers).collect();
        assert_eq!(depth, (1..12).collect::<Vec<_>>());
        assert_eq!(only(Some(WidthRule::Integer), false).sources(&last).len(), 5);
        let units: Vec<usize> =
            feed_forward.sources(&last).iter().map(|shape| shape.d_ff).collect();
        assert_eq!(units, [768, 1536, 2304]);
        assert_eq!(inner.sources(&last).len(), 12 * 4 - 1);
        assert_eq!(Operators::IN_PROPORTION.sources(&last).len(), 12 * 12 - 1);
        assert_eq!(Operators::between(&thin, &last), inner);
        assert_eq!(Operators::between(&gpt(12, 3), &last), Operators::WIDTH);
        let all = Operators::between(&GptShape { n_heads: 1, ..gpt(11, 3) }, &last);
        assert_eq!(all.kinds(), ["width", "depth", "heads"]);
        assert_eq!(Operators::between(&flat, &last), feed_forward);
        assert_eq!(sizes.sources(&last), [small_heads]);
        assert_eq!(Operators { feed_forward: true, ..sizes }.sources(&last).len(), 2 * 4 - 1);
        let kept = Operators { width: Some(WidthRule::Any), ..sizes }.sources(&last);
        let inner: Vec<_> = kept.iter().map(|s| (s.d_model, s.n_heads, s.d_head)).collect();
        for due in
            [(64, 2, 32), (384, 12, 32), (448, 8, 56), (512, 8, 64), (576, 12, 48), (768, 12, 32)]
        {
            assert!(inner.contains(&due), "{due:?} of {inner:?}");
        }
        assert!(!inner.contains(&(384, 6, 64)), "{inner:?}");
        assert_eq!(Operators::between(&small_heads, &last), sizes);
        assert_eq!(Operators::between(&narrow, &last).kinds(), ["width", "head-size"]);
    }

    #[test]
    fn proportions_leave_the_number_of_heads_open() {
        let last = gpt(12, 12);
        let as_many_heads = GptShape { n_heads: 12, d_head: 16, ..gpt(12, 3) };
        assert!(in_proportion(&as_many_heads, &last));
        assert!(Operators::ALL.reach(&as_many_heads, &last));
        assert!(!Operators::IN_PROPORTION.reach(&as_many_heads, &last));
        assert!(!in_proportion(&GptShape { d_head: 32, ..last }, &last));
        assert!(!in_proportion(&GptShape { d_ff: 768, ..last }, &last));
    }

    #[test]
    fn a_spread_is_even_and_in_proportion() {
        let last = gpt(36, 20);
        let all = Operators::IN_PROPORTION.sources(&last);
        let few = spread(&all, &last);
        assert_eq!(Operators::IN_PROPORTION.spread_sources(&last), few);
        assert!(few.len() > 40 && few.len() < 64, "{} of {}", few.len(), all.len());
        assert!(few.is_sorted_by_key(GptShape::n_params));
        let blocks_per_width = |shape: &GptShape| shape.n_layers as f64 / shape.d_model as f64;
        let wide = few.iter().filter(|shape| shape.d_model >= last.d_model / 4);
        for shape in wide {
            let ratio = blocks_per_width(shape) / blocks_per_width(&last);
            assert!((0.7..1.5).contains(&ratio), "{shape}: {ratio}");
        }
    }
}
