//! Small runs that a law is fitted from.

use super::shapes::{Operators, nearest};
use measure::GptShape;

/// N of each pilot's shape over that of the next smaller one.
const SIZE_RATIO: f64 = 4.0;

/// A run from scratch for a law.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pilot {
    /// Its shape.
    pub shape: GptShape,
    /// Tokens to train on.
    pub tokens: f64,
    /// The same over those of the longest run of this shape.
    pub length: f64,
}

/// Shapes for pilot runs before a staged run that ends with `last`, the largest first: those that grow into it, near a quarter, a
/// sixteenth, ... of its parameters. Fewer than `n_sizes` where no so small ones grow into `last`.
pub fn pilot_shapes(last: &GptShape, operators: Operators, n_sizes: usize) -> Vec<GptShape> {
    let shapes = operators.spread_sources(last);
    let mut chosen: Vec<GptShape> = Vec::new();
    for k in 1..=n_sizes {
        let goal = last.n_params() as f64 / SIZE_RATIO.powi(k as i32);
        let smaller = shapes
            .iter()
            .copied()
            .filter(|shape| chosen.iter().all(|other| other.n_params() > shape.n_params()));
        let next = nearest(smaller, goal);
        chosen.extend(next);
    }
    chosen
}

/// Pilot runs of these shapes, the largest first, each for the same tokens. So most of the compute goes into the largest, whose
/// curve must reach beyond its first, steep part to tell anything of a larger model's.
///
/// `lengths` are of each shape's runs, over that of its longest, which is 1: more than one where the learning rate decays, since of
/// such a run only the end counts. `own_share` is the share of each shorter run that is its own, beside what it has in common with
/// the longest: 1 where they have nothing in common, the decay's share of the steps where a stable rate decays at the end.
/// `and_grown` leaves compute for a run that grows into the largest shape and comes as far as
/// its longest from scratch.
pub fn pilots(
    shapes: &[GptShape],
    lengths: &[f64],
    own_share: f64,
    and_grown: bool,
    compute: f64,
) -> Vec<Pilot> {
    let of_lengths = 1.0 + own_share * (lengths.iter().sum::<f64>() - 1.0);
    let of_grown =
        shapes.first().filter(|_| and_grown).map_or(0.0, |shape| shape.flops_per_token().0);
    let price =
        shapes.iter().map(|shape| shape.flops_per_token().0 * of_lengths).sum::<f64>() + of_grown;
    let runs = |&shape: &GptShape| {
        lengths.iter().map(move |length| Pilot {
            shape,
            tokens: length * compute / price,
            length: *length,
        })
    };
    shapes.iter().flat_map(runs).collect()
}

/// The shape that a grown pilot run begins with, of those that grow so into the largest pilot shape: near a quarter of its
/// parameters, as the next pilot shape is. `None` where none grows so.
pub fn grown_from(large: &GptShape, operators: Operators) -> Option<GptShape> {
    nearest(operators.sources(large).into_iter(), large.n_params() as f64 / SIZE_RATIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pilots_share_their_compute_and_grow_into_the_last_shape() {
        let last = GptShape { n_vocab: 256, context_len: 128, ..GptShape::gpt2(4, 128, 4) };
        let shapes = pilot_shapes(&last, Operators::IN_PROPORTION, 3);
        let found = pilots(&shapes, &[1.0], 1.0, false, 3e12);
        assert_eq!(found.len(), 3);
        let mut spent = 0.0;
        for (k, pilot) in found.iter().enumerate() {
            assert!(Operators::IN_PROPORTION.reach(&pilot.shape, &last), "{}", pilot.shape);
            assert_eq!(pilot.tokens, found[0].tokens);
            spent += pilot.tokens * pilot.shape.flops_per_token().0;
            let share = pilot.shape.n_params() as f64 / last.n_params() as f64;
            assert!((share.ln() / 4f64.ln() + k as f64 + 1.0).abs() < 0.3, "{}", pilot.shape);
        }
        assert!((spent / 3e12 - 1.0).abs() < 1e-9);
        let lengths = pilots(&shapes, &[1.0, 0.5], 1.0, false, 3e12);
        assert_eq!(lengths.len(), 6);
        assert_eq!(lengths[0].tokens, 2.0 * lengths[1].tokens);
        assert!((lengths[0].tokens / found[0].tokens - 1.0 / 1.5).abs() < 1e-12);
        let branched = pilots(&shapes, &[1.0, 0.5], 0.2, false, 3e12);
        assert!((branched[0].tokens / found[0].tokens - 1.0 / 1.1).abs() < 1e-12);
        let beside_grown = pilots(&shapes, &[1.0], 1.0, true, 3e12);
        let spent: f64 =
            beside_grown.iter().map(|pilot| pilot.tokens * pilot.shape.flops_per_token().0).sum();
        let largest = beside_grown[0].tokens * beside_grown[0].shape.flops_per_token().0;
        assert!(((spent + largest) / 3e12 - 1.0).abs() < 1e-9);
        let only_width = Operators { depth: false, ..Operators::IN_PROPORTION };
        let widths: Vec<usize> =
            pilot_shapes(&last, only_width, 3).iter().map(|shape| shape.d_model).collect();
        assert_eq!(widths, [64, 32]);
        let least = GptShape { n_layers: 1, d_model: 32, n_heads: 1, d_ff: 128, ..last };
        assert!(pilot_shapes(&least, Operators::IN_PROPORTION, 3).is_empty());
    }
}
