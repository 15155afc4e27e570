//! The growth point from measured curves, without a law.

use measure::SmoothCurve;
use serde::Serialize;

/// Losses that are compared between two curves.
const GRID: usize = 2000;

/// The best growth between two measured curves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasuredGrowth {
    /// Which curve is grown from, and which into, from 0.
    pub curves: [usize; 2],
    /// Loss at which to grow.
    pub loss: f64,
    /// Compute of the smaller model there, FLOPs.
    pub compute_small: f64,
    /// Compute of the larger model from scratch there, FLOPs.
    pub compute_large: f64,
    /// d ln L / d ln C of the smaller model there.
    pub growth_slope: f64,
    /// Loss at the end of the larger curve.
    pub final_loss: f64,
    /// Share of the larger curve's compute that growing would save.
    pub saving: f64,
    /// Whether the best loss is the last that the smaller curve reaches: a longer one may save more.
    pub at_end_of_small: bool,
}

/// The best growth from each curve into the next, larger one: the loss at which the difference of
/// their compute is greatest. `None` where the smaller curve is nowhere cheaper.
pub fn measured_growths(curves: &[SmoothCurve]) -> Vec<Option<MeasuredGrowth>> {
    let pairs = curves.windows(2).enumerate();
    pairs.map(|(i, pair)| best_growth([i, i + 1], &pair[0], &pair[1])).collect()
}

fn best_growth(
    curves: [usize; 2],
    small: &SmoothCurve,
    large: &SmoothCurve,
) -> Option<MeasuredGrowth> {
    let from = small.first_loss().min(large.first_loss());
    let lowest = small.lowest_loss().max(large.lowest_loss());
    let losses = (0..=GRID).map(|i| from * (lowest / from).powf(i as f64 / GRID as f64));
    let spared = |loss: f64| Some((large.compute_at(loss)? - small.compute_at(loss)?, loss));
    let (spared, loss) = losses.filter_map(spared).max_by(|a, b| a.0.total_cmp(&b.0))?;
    if spared <= 0.0 {
        return None;
    }
    let compute_small = small.compute_at(loss)?;
    Some(MeasuredGrowth {
        curves,
        loss,
        compute_small,
        compute_large: large.compute_at(loss)?,
        growth_slope: small.slope_at(compute_small),
        final_loss: large.lowest_loss(),
        saving: spared / large.compute_at(large.lowest_loss())?,
        at_end_of_small: loss <= lowest * (1.0 + 1e-9)
            && small.lowest_loss() >= large.lowest_loss(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::CHINCHILLA_CORRECTED as LAW;
    use crate::{StageStart, TrainingCost};

    #[test]
    fn curves_of_a_law_give_the_law_s_growth_point() {
        let cost = TrainingCost::tokens(LAW);
        let curve = |n: f64, per_param: f64| {
            let points: Vec<(f64, f64)> = (1..=400)
                .map(|i| {
                    let tokens = per_param * n * f64::from(i) / 400.0;
                    (6.0 * n * tokens, LAW.loss_at(n, tokens))
                })
                .collect();
            SmoothCurve::new(&points).unwrap()
        };
        let (small, large) = (2.5e7, 1e8);
        let found = measured_growths(&[curve(small, 60.0), curve(large, 20.0)]);
        let found = found[0].clone().unwrap();
        let due = cost.growth_point(StageStart::Scratch, small, large).unwrap();
        // What is spared hardly depends on the moment, which smoothing may move.
        assert!((found.loss / due.loss - 1.0).abs() < 0.02, "{found:?} {due:?}");
        let final_loss = LAW.loss_at(large, 20.0 * large);
        let saving = cost.chain(&[small, large], final_loss).unwrap().saving;
        assert!((found.saving - saving).abs() < 1e-3, "{found:?} {saving}");
        assert!(!found.at_end_of_small);
        // Rounding of the last loss, here below e, loses no growth.
        for longer in 0..20 {
            let large = curve(1e12, 20.0 + 0.5 * f64::from(longer));
            let growths = measured_growths(&[curve(2.5e11, 60.0), large]);
            assert!(growths[0].as_ref().is_some_and(|one| one.saving > 0.0), "{growths:?}");
        }
    }
}
