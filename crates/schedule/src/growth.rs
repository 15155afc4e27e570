//! What can be asked of a growth, and what it comes to between two shapes.

use measure::GptShape;
use serde::{Deserialize, Serialize};

/// How a wider model gets its new coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WidthMode {
    /// Every coordinate repeated; the copies stay equal for ever. Widths must be multiples.
    Duplicate,
    /// Repeated, with random differences that cancel in the loss. Widths must be multiples.
    Split,
    /// New coordinates beside the old ones, at any width.
    #[default]
    Fresh,
}

/// How a deeper model gets its new blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthMode {
    /// Random blocks with output projections of zero.
    Identity,
    /// Copies of other blocks with output projections of zero.
    #[default]
    CopyIdentity,
    /// Copies of other blocks as they are; not loss-preserving.
    Copy,
}

/// Where the blocks of a deeper model come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "must be interleave, stack, middle or a list of blocks"
)]
pub enum Placement {
    /// By a rule.
    Named(NamedPlacement),
    /// For each block of the deeper model the block, from 0, that it is or comes from. The first time
    /// that a block is named is the block itself.
    List(Vec<usize>),
}

/// Rules for the places of new blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedPlacement {
    /// Each new block after the one that it comes from, spread evenly: 0 0 1 1 2 2.
    Interleave,
    /// All new blocks on top, from the first on: 0 1 2 0 1 2.
    Stack,
    /// The middle blocks twice (Kim et al. 2023, section 3.1): 0 1 2 1 2 3.
    Middle,
}

impl Default for Placement {
    fn default() -> Self {
        Self::Named(NamedPlacement::Interleave)
    }
}

/// What happens to Adam's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "ToldMoments")]
pub enum MomentRule {
    /// They become what the grown model's own would be.
    #[default]
    Mapped,
    /// They start from zero, and the bias correction with them.
    Zero,
    /// Means of the gradient and of its square over so many batches, which count as compute.
    Reestimated(u32),
}

/// A moment rule as a file has it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "moments must be \"mapped\", \"zero\" or { reestimated = BATCHES }")]
enum ToldMoments {
    Named(NamedMoments),
    Estimated(EstimatedMoments),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NamedMoments {
    Mapped,
    Zero,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EstimatedMoments {
    reestimated: u32,
}

impl From<ToldMoments> for MomentRule {
    fn from(told: ToldMoments) -> Self {
        match told {
            ToldMoments::Named(NamedMoments::Mapped) => Self::Mapped,
            ToldMoments::Named(NamedMoments::Zero) => Self::Zero,
            ToldMoments::Estimated(told) => Self::Reestimated(told.reestimated),
        }
    }
}

/// How a stage's model comes from the one before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Way of growing wider.
    #[serde(default)]
    pub width: WidthMode,
    /// Standard deviation of the differences that `split` makes, over that of the matrix itself.
    #[serde(default = "split_strength")]
    pub split_strength: f64,
    /// Way of growing deeper.
    #[serde(default)]
    pub depth: DepthMode,
    /// Where new blocks go.
    #[serde(default)]
    pub placement: Placement,
    /// What happens to the moments.
    #[serde(default)]
    pub moments: MomentRule,
    /// Where on the learning rate's course the larger model goes on: the step at which it would have
    /// had this loss from scratch. The number of steps made so far when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_step: Option<u64>,
    /// Steps over which the learning rate rises again from 0.
    #[serde(default)]
    pub rewarmup_steps: u64,
}

/// Strength of a split times the root of the factor in width, at most: beyond 5 f32's rounding moves losses by more than a growth may.
const MOST_SPREAD: f64 = 4.0;

fn split_strength() -> f64 {
    0.5
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            width: WidthMode::default(),
            split_strength: split_strength(),
            depth: DepthMode::default(),
            placement: Placement::default(),
            moments: MomentRule::default(),
            resumed_step: None,
            rewarmup_steps: 0,
        }
    }
}

/// What a growth is between two shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct GrowthPlan {
    /// How the widths grow; `None` when they stay.
    pub width: Option<WidthPlan>,
    /// For each block of the grown model where it comes from; `None` when the depth stays.
    pub blocks: Option<Vec<BlockSource>>,
}

/// How widths grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WidthPlan {
    /// Each coordinate becomes `factor` copies, different by `split_strength`, 0 for equal ones.
    Repeat {
        /// New width over old.
        factor: usize,
        /// Standard deviation of the differences over that of the matrix.
        split_strength: f64,
    },
    /// New coordinates beside the old ones.
    Fresh,
}

/// Where a block of a deeper model comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// It is this block.
    Is(usize),
    /// It is new, made by this rule after this block.
    New(DepthMode, usize),
}

/// A growth that cannot be made: the key, its value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {expected}")]
pub struct GrowthRefusal {
    /// Key in a stage.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

fn require(
    holds: bool,
    key: &str,
    value: impl ToString,
    expected: impl ToString,
) -> Result<(), GrowthRefusal> {
    if holds {
        return Ok(());
    }
    let (key, value, expected) = (key.to_string(), value.to_string(), expected.to_string());
    Err(GrowthRefusal { key, value, expected })
}

impl Growth {
    /// What this growth is from one shape to another.
    ///
    /// # Errors
    /// A shape that is smaller somewhere or the same, or that this growth cannot reach.
    pub fn plan(&self, from: &GptShape, to: &GptShape) -> Result<GrowthPlan, GrowthRefusal> {
        for (name, small, large) in [
            ("n_layers", from.n_layers, to.n_layers),
            ("d_model", from.d_model, to.d_model),
            ("n_heads", from.n_heads, to.n_heads),
            ("d_head", from.d_head, to.d_head),
            ("d_ff", from.d_ff, to.d_ff),
        ] {
            let mut expected =
                format!("must be at least {small}, that of the model before the growth");
            if name == "d_head" {
                expected += "; where it is not given it is d_model / n_heads";
            }
            require(large >= small, name, large, expected)?;
        }
        for (name, before, after) in [
            ("context_len", from.context_len, to.context_len),
            ("n_vocab", from.n_vocab, to.n_vocab),
        ] {
            require(before == after, name, after, format!("growth keeps it at {before}"))?;
        }
        require(
            from.tied_head == to.tied_head,
            "tied_head",
            to.tied_head,
            "growth keeps the head",
        )?;
        require(from != to, "shape", to, "must be larger than the model before the growth")?;
        let widths = |shape: &GptShape| (shape.d_model, shape.n_heads, shape.d_head, shape.d_ff);
        let width =
            if widths(from) == widths(to) { None } else { Some(self.width_plan(from, to)?) };
        let blocks = if from.n_layers == to.n_layers {
            None
        } else {
            Some(self.blocks(from.n_layers, to.n_layers)?)
        };
        Ok(GrowthPlan { width, blocks })
    }

    /// The first setting, other than by default, that has nothing to act on between two shapes.
    pub(crate) fn idle(&self, from: &GptShape, to: &GptShape) -> Option<GrowthRefusal> {
        let default = Self::default();
        let widens = self.plan(from, to).is_ok_and(|plan| plan.width.is_some());
        let deepens = to.n_layers > from.n_layers;
        let is_split = self.width == WidthMode::Split;
        let (stays, no_depth) =
            ("the widths stay here; leave it out", "the depth stays here; leave it out");
        let strength = if widens { "is for width = \"split\"; leave it out" } else { stays };
        let value = |value: Result<toml::Value, _>| {
            value.map_or(String::new(), |value: toml::Value| value.to_string())
        };
        let settings = [
            (
                widens || self.width == default.width,
                "width",
                value(toml::Value::try_from(self.width)),
                stays,
            ),
            (
                widens && is_split || self.split_strength == default.split_strength,
                "split_strength",
                self.split_strength.to_string(),
                strength,
            ),
            (
                deepens || self.depth == default.depth,
                "depth",
                value(toml::Value::try_from(self.depth)),
                no_depth,
            ),
            (
                deepens || self.placement == default.placement,
                "placement",
                value(toml::Value::try_from(&self.placement)),
                no_depth,
            ),
        ];
        settings.into_iter().find_map(|(acts, key, value, expected)| {
            require(acts, &format!("growth.{key}"), value, expected).err()
        })
    }

    fn width_plan(&self, from: &GptShape, to: &GptShape) -> Result<WidthPlan, GrowthRefusal> {
        let strength = self.split_strength;
        let factor = to.d_model / from.d_model;
        let most = MOST_SPREAD / (factor as f64).sqrt();
        let in_range = strength > 0.0 && (strength <= most || self.width != WidthMode::Split);
        let expected = format!(
            "must be above 0 and, where the width becomes {factor} times as large, at most {most:.3}: more makes of f32's rounding a \
             change of the loss"
        );
        require(in_range, "growth.split_strength", strength, expected)?;
        let multiples = to.d_model == factor * from.d_model
            && to.n_heads == factor * from.n_heads
            && to.d_head == from.d_head
            && to.d_ff == factor * from.d_ff;
        let name = match self.width {
            WidthMode::Duplicate => "duplicate",
            WidthMode::Split => "split",
            WidthMode::Fresh => return Ok(WidthPlan::Fresh),
        };
        let expected = format!(
            "needs d_model, n_heads and d_ff to grow by one whole factor and d_head to stay, not {from} to become {to}; fresh takes any"
        );
        require(multiples, "growth.width", name, expected)?;
        let split_strength =
            if self.width == WidthMode::Duplicate { 0.0 } else { self.split_strength };
        Ok(WidthPlan::Repeat { factor, split_strength })
    }

    fn blocks(&self, n: usize, to: usize) -> Result<Vec<BlockSource>, GrowthRefusal> {
        let key = "growth.placement";
        let sources = match &self.placement {
            Placement::Named(NamedPlacement::Interleave) => (0..to).map(|j| j * n / to).collect(),
            Placement::Named(NamedPlacement::Stack) => (0..to).map(|j| j % n).collect(),
            Placement::Named(NamedPlacement::Middle) => {
                let added = to - n;
                let expected = format!("takes {n} blocks to {} at most; stack takes any", 2 * n);
                require(added <= n, key, "middle", expected)?;
                let end = usize::midpoint(n, added);
                (0..end).chain(end - added..n).collect()
            }
            Placement::List(list) => {
                let text = format!("{list:?}");
                let expected = format!("needs {to} blocks, n_layers of the larger model");
                require(list.len() == to, key, &text, expected)?;
                let expected = format!("must name blocks from 0 to {}", n - 1);
                require(list.iter().all(|source| *source < n), key, &text, expected)?;
                list.clone()
            }
        };
        let mut seen = 0;
        let mut in_order = true;
        let mut blocks = Vec::with_capacity(to);
        for source in &sources {
            if *source == seen {
                seen += 1;
                blocks.push(BlockSource::Is(*source));
            } else {
                in_order &= *source < seen;
                blocks.push(BlockSource::New(self.depth, *source));
            }
        }
        let expected = format!("must name each of the {n} blocks, the first time in their order");
        require(in_order && seen == n, key, format!("{sources:?}"), expected)?;
        Ok(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn settings_without_anything_to_act_on_are_named() {
        let idle = |growth: Growth, to: GptShape| {
            growth.idle(&shape(4, 128, 4), &to).map(|refusal| refusal.to_string())
        };
        let (wider, deeper) = (shape(4, 256, 8), shape(8, 128, 4));
        let split = Growth { width: WidthMode::Split, split_strength: 2.0, ..Growth::default() };
        let copy = Growth {
            depth: DepthMode::Copy,
            placement: Placement::Named(NamedPlacement::Stack),
            ..Growth::default()
        };
        for to in [wider, deeper, shape(8, 256, 8)] {
            assert_eq!(idle(Growth::default(), to), None);
        }
        assert_eq!((idle(split.clone(), wider), idle(copy.clone(), deeper)), (None, None));
        let found = idle(split.clone(), deeper).unwrap();
        assert_eq!(found, "growth.width = \"split\": the widths stay here; leave it out");
        let found = idle(Growth { width: WidthMode::Fresh, ..split }, wider).unwrap();
        assert_eq!(found, "growth.split_strength = 2: is for width = \"split\"; leave it out");
        let found = idle(copy.clone(), wider).unwrap();
        assert_eq!(found, "growth.depth = \"copy\": the depth stays here; leave it out");
        let list = Growth { placement: Placement::List(vec![5, 6]), ..Growth::default() };
        let found = idle(list, wider).unwrap();
        assert_eq!(found, "growth.placement = [5, 6]: the depth stays here; leave it out");
    }

    fn shape(n_layers: usize, d_model: usize, n_heads: usize) -> GptShape {
        let (n_vocab, context_len) = (256, 64);
        GptShape { n_vocab, context_len, ..GptShape::gpt2(n_layers, d_model, n_heads) }
    }

    fn sources(placement: Placement, from: usize, to: usize) -> Result<Vec<usize>, GrowthRefusal> {
        let growth = Growth { placement, ..Growth::default() };
        let plan = growth.plan(&shape(from, 64, 2), &shape(to, 64, 2))?;
        let source = |block: &BlockSource| match block {
            BlockSource::Is(source) | BlockSource::New(_, source) => *source,
        };
        Ok(plan.blocks.unwrap_or_default().iter().map(source).collect())
    }

    #[test]
    fn blocks_go_where_the_placement_says() {
        let named = |placement, from, to| sources(Placement::Named(placement), from, to).unwrap();
        assert_eq!(named(NamedPlacement::Interleave, 3, 6), [0, 0, 1, 1, 2, 2]);
        assert_eq!(named(NamedPlacement::Interleave, 3, 4), [0, 0, 1, 2]);
        assert_eq!(named(NamedPlacement::Stack, 3, 7), [0, 1, 2, 0, 1, 2, 0]);
        // 32 blocks to 48 as in Kim et al. 2023: the first 24, then the last 24.
        let solar = named(NamedPlacement::Middle, 32, 48);
        assert_eq!(solar[..24], (0..24).collect::<Vec<_>>());
        assert_eq!(solar[24..], (8..32).collect::<Vec<_>>());
        let list = sources(Placement::List(vec![0, 1, 1, 0, 2]), 3, 5).unwrap();
        assert_eq!(list, [0, 1, 1, 0, 2]);
    }

    #[test]
    fn what_cannot_be_done_is_explained() {
        let message =
            |growth: Growth, to| growth.plan(&shape(4, 128, 4), &to).unwrap_err().to_string();
        let width = |width| Growth { width, ..Growth::default() };
        let listed = |list: &[usize]| Growth {
            placement: Placement::List(list.to_vec()),
            ..Growth::default()
        };
        let cases = [
            (Growth::default(), shape(4, 64, 4), "d_model = 64: must be at least 128"),
            (Growth::default(), shape(3, 128, 4), "n_layers = 3: must be at least 4"),
            (Growth::default(), shape(4, 128, 4), "must be larger than the model"),
            (Growth::default(), shape(4, 128, 8), "d_head = 16: must be at least 32"),
            (width(WidthMode::Split), shape(4, 192, 6), "growth.width = split: needs d_model"),
            (width(WidthMode::Duplicate), shape(4, 256, 4), "fresh takes any"),
            (
                Growth { split_strength: 0.0, ..Growth::default() },
                shape(4, 256, 8),
                "growth.split_strength = 0: must be above 0",
            ),
            (
                Growth { split_strength: 2.5, ..width(WidthMode::Split) },
                shape(4, 512, 16),
                "becomes 4 times as large, at most 2.000",
            ),
            (listed(&[0, 1, 2, 3]), shape(5, 128, 4), "needs 5 blocks"),
            (listed(&[0, 1, 2, 3, 4]), shape(5, 128, 4), "must name blocks from 0 to 3"),
            (listed(&[0, 1, 3, 2, 3]), shape(5, 128, 4), "must name each of the 4 blocks"),
            (listed(&[0, 1, 2, 2, 2]), shape(5, 128, 4), "must name each of the 4 blocks"),
            (
                Growth { placement: Placement::Named(NamedPlacement::Middle), ..Growth::default() },
                shape(9, 128, 4),
                "takes 4 blocks to 8 at most",
            ),
        ];
        for (growth, to, expected) in cases {
            let found = message(growth, to);
            assert!(found.contains(expected), "{expected}: {found}");
        }
        let vocabulary = GptShape { n_vocab: 7, ..shape(8, 128, 4) };
        assert!(message(Growth::default(), vocabulary).contains("n_vocab = 7: growth keeps it"));
    }

    #[test]
    fn widths_grow_as_the_mode_says() {
        let plan = |width, to| {
            Growth { width, ..Growth::default() }.plan(&shape(4, 64, 2), &to).unwrap().width
        };
        let copies = |split_strength| Some(WidthPlan::Repeat { factor: 2, split_strength });
        assert_eq!(plan(WidthMode::Split, shape(4, 128, 4)), copies(split_strength()));
        assert_eq!(plan(WidthMode::Duplicate, shape(4, 128, 4)), copies(0.0));
        assert_eq!(plan(WidthMode::Fresh, shape(4, 96, 3)), Some(WidthPlan::Fresh));
        let inside = GptShape { n_heads: 4, d_ff: 512, ..shape(4, 64, 2) };
        assert_eq!(plan(WidthMode::Fresh, inside), Some(WidthPlan::Fresh));
        assert_eq!(plan(WidthMode::Split, shape(6, 64, 2)), None);
    }

    proptest! {
        #[test]
        fn every_named_placement_keeps_each_block_once_and_in_order(
            from in 1usize..9, added in 1usize..20, which in 0usize..3,
        ) {
            use NamedPlacement::{Interleave, Middle, Stack};
            let named = [Interleave, Stack, Middle][which];
            prop_assume!(named != Middle || added <= from);
            let growth = Growth { placement: Placement::Named(named), ..Growth::default() };
            let plan = growth.plan(&shape(from, 64, 2), &shape(from + added, 64, 2)).unwrap();
            let blocks = plan.blocks.unwrap();
            prop_assert_eq!(blocks.len(), from + added);
            let kept: Vec<usize> = blocks.iter().filter_map(|block| match block {
                BlockSource::Is(source) => Some(*source),
                BlockSource::New(..) => None,
            }).collect();
            prop_assert_eq!(kept, (0..from).collect::<Vec<_>>());
        }
    }
}
