//! Staged runs against runs from scratch: the saving at equal loss, and how fast the loss falls after
//! a growth.

use crate::SmoothCurve;
use serde::Serialize;
use std::f64::consts::FRAC_PI_2;

/// Coverage of the intervals.
const COVERAGE: f64 = 0.95;

/// What staged runs save at a loss, against runs of the last size from scratch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// Nats per token.
    pub loss: f64,
    /// Compute of the staged runs at that loss, geometric mean, FLOPs.
    pub compute: f64,
    /// Compute of the runs from scratch at that loss, geometric mean, FLOPs.
    pub compute_from_scratch: f64,
    /// 1 - C_staged / C_scratch.
    pub saving: f64,
    /// Lower end of its 95 % interval over the seeds; `None` with a single run on a side.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The same with the compute of the pilot runs added to every staged run.
    pub saving_with_pilots: f64,
    /// Lower end of its 95 % interval over the seeds, all of which have the same pilot runs.
    pub low_with_pilots: Option<f64>,
    /// Upper end.
    pub high_with_pilots: Option<f64>,
}

/// The saving at a loss: 1 - C_staged(L) / C_scratch(L), from the means of ln C over the runs of each
/// side, with Welch's interval for their difference (Welch 1947). `None` where a run does not reach the
/// loss. The sides need not have the same seeds, nor as many.
pub fn saving_at(
    staged: &[SmoothCurve],
    scratch: &[SmoothCurve],
    loss: f64,
    pilot_compute: f64,
) -> Option<Saving> {
    let of = |curves: &[SmoothCurve]| -> Option<Vec<f64>> {
        curves.iter().map(|curve| curve.compute_at(loss)).collect()
    };
    let (staged, scratch) = (of(staged)?, of(scratch)?);
    let ln = |values: &[f64], added: f64| {
        Sample::of(&values.iter().map(|value| (value + added).ln()).collect::<Vec<f64>>())
    };
    let (without, with) = (ln(&staged, 0.0)?, ln(&staged, pilot_compute)?);
    Some(Saving::between(loss, &without, &with, &ln(&scratch, 0.0)?))
}

impl Saving {
    /// From samples of ln C at a loss: staged runs without and with pilot runs, and runs from scratch.
    fn between(loss: f64, without: &Sample, with: &Sample, scratch: &Sample) -> Self {
        let saving_of = |staged: &Sample| {
            let difference = staged.mean - scratch.mean;
            let half = staged.half_width_of_difference(scratch);
            let end = |sign: f64| half.map(|half| -(difference + sign * half).exp_m1());
            (-difference.exp_m1(), end(1.0), end(-1.0))
        };
        let (saving, low, high) = saving_of(without);
        let (saving_with_pilots, low_with_pilots, high_with_pilots) = saving_of(with);
        Self {
            loss,
            compute: without.mean.exp(),
            compute_from_scratch: scratch.mean.exp(),
            saving,
            low,
            high,
            saving_with_pilots,
            low_with_pilots,
            high_with_pilots,
        }
    }
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunEnd {
    /// FLOPs.
    pub compute: f64,
    /// Nats per token.
    pub loss: f64,
}

/// The saving of runs whose learning rate decays, of which only the ends count: before its end such a run has a
/// loss that no run of that compute need have.
///
/// `scratch` holds for each seed the ends of runs of several lengths; between them ln C is a straight line in ln L.
/// The loss is the geometric mean of the staged runs' last ones, to which each is moved along the mean of these
/// lines. `None` where a seed's ends do not enclose all losses of the staged runs, or do not fall with compute.
pub fn saving_of_ends(
    staged: &[RunEnd],
    scratch: &[Vec<RunEnd>],
    pilot_compute: f64,
) -> Option<Saving> {
    let scratch: Vec<Vec<(f64, f64)>> =
        scratch.iter().map(|ends| falling(ends)).collect::<Option<_>>()?;
    let at = |ln_loss: f64| -> Option<Vec<f64>> {
        scratch.iter().map(|ends| ln_compute_at(ends, ln_loss)).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let ln_losses: Vec<f64> = staged.iter().map(|end| end.loss.ln()).collect();
    let ln_loss = mean(&ln_losses);
    let ln_scratch = at(ln_loss)?;
    let moved = |added: f64| -> Option<Vec<f64>> {
        let ends = staged.iter().zip(&ln_losses);
        ends.map(|(end, own)| {
            Some((end.compute + added).ln() + mean(&ln_scratch) - mean(&at(*own)?))
        })
        .collect()
    };
    let (without, with) = (Sample::of(&moved(0.0)?)?, Sample::of(&moved(pilot_compute)?)?);
    Some(Saving::between(ln_loss.exp(), &without, &with, &Sample::of(&ln_scratch)?))
}

/// The compute of the longest runs from scratch, the shortest of the seeds', and what the staged runs save against it
/// at least, where all of them end below every run from scratch with less compute: a bound where [`saving_of_ends`]
/// gives nothing.
pub fn least_saving_of_ends(staged: &[RunEnd], scratch: &[Vec<RunEnd>]) -> Option<(f64, f64)> {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::max);
    let loss = largest(&mut staged.iter().map(|end| end.loss))?;
    if scratch.iter().flatten().any(|end| end.loss <= loss) {
        return None;
    }
    let longest = scratch.iter().map(|ends| largest(&mut ends.iter().map(|end| end.compute)));
    let of_scratch = longest.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::min)?;
    let least = 1.0 - largest(&mut staged.iter().map(|end| end.compute))? / of_scratch;
    (least > 0.0).then_some((of_scratch, least))
}

/// ln C and ln L of ends by compute; `None` where the loss does not fall.
fn falling(ends: &[RunEnd]) -> Option<Vec<(f64, f64)>> {
    let mut ln: Vec<(f64, f64)> =
        ends.iter().map(|end| (end.compute.ln(), end.loss.ln())).collect();
    ln.sort_by(|a, b| a.0.total_cmp(&b.0));
    ln.windows(2).all(|pair| pair[1].1 < pair[0].1).then_some(ln)
}

fn ln_compute_at(ends: &[(f64, f64)], ln_loss: f64) -> Option<f64> {
    let pair = ends.windows(2).find(|pair| (pair[1].1..=pair[0].1).contains(&ln_loss))?;
    let share = (ln_loss - pair[0].1) / (pair[1].1 - pair[0].1);
    Some(pair[0].0 + share * (pair[1].0 - pair[0].0))
}

/// Fall of the loss of a grown run over a window of compute after its growth, over the fall of the grown
/// size from scratch over the same window from the same loss: 1 where the dynamics are preserved, above
/// 1 where they are better. `None` where a curve does not cover the window.
pub fn dynamics_ratio(
    grown: &SmoothCurve,
    growth_compute: f64,
    scratch: &SmoothCurve,
    window: f64,
) -> Option<f64> {
    let loss = grown.loss_at(growth_compute)?;
    let same_loss = scratch.compute_at(loss)?;
    let fall = loss - grown.loss_at(growth_compute + window)?;
    let scratch_fall = loss - scratch.loss_at(same_loss + window)?;
    (scratch_fall > 0.0).then_some(fall / scratch_fall)
}

/// Mean of a sample and the variance of that mean.
struct Sample {
    n: f64,
    mean: f64,
    variance_of_mean: f64,
}

impl Sample {
    /// `None` without values.
    fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        (n > 0.0).then(|| Self { n, mean, variance_of_mean: squares / (n - 1.0).max(1.0) / n })
    }

    fn half_width_of_difference(&self, other: &Self) -> Option<f64> {
        if self.n < 2.0 || other.n < 2.0 {
            return None;
        }
        let (a, b) = (self.variance_of_mean, other.variance_of_mean);
        if a + b == 0.0 {
            return Some(0.0);
        }
        // Satterthwaite's degrees of freedom.
        let freedom = (a + b).powi(2) / (a * a / (self.n - 1.0) + b * b / (other.n - 1.0));
        Some(student_quantile(freedom) * (a + b).sqrt())
    }
}

/// The value within which Student's t of so many degrees of freedom lies on both sides of zero with a probability of 95 %.
///
/// With t = sqrt(f) tan(x) its density is proportional to cos(x)^(f - 1), which is integrated by
/// Simpson's rule and searched by bisection.
pub fn student_quantile(freedom: f64) -> f64 {
    const PIECES: usize = 2000;
    let integral = |to: f64| {
        let h = to / PIECES as f64;
        let weight = |i: usize| match i {
            0 | PIECES => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let value = |i: usize| weight(i) * (i as f64 * h).cos().max(0.0).powf(freedom - 1.0);
        (0..=PIECES).map(value).sum::<f64>() * h / 3.0
    };
    let goal = COVERAGE * integral(FRAC_PI_2);
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        *(if integral(middle) < goal { &mut low } else { &mut high }) = middle;
    }
    freedom.sqrt() * low.tan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CurvePoint, LearningCurve};

    /// A power law in compute, shifted to the left by a share of it.
    fn curve(shift: f64) -> SmoothCurve {
        let pairs: Vec<(f64, f64)> = (1..=200)
            .map(|i| {
                let compute = 1e12 * f64::from(i);
                (compute * (1.0 - shift), 4.0 * (compute / 1e12).powf(-0.06))
            })
            .collect();
        SmoothCurve::new(&pairs).unwrap()
    }

    /// Student 1908; two-sided 95 % points as in every table.
    #[test]
    fn quantiles_are_the_tabled_ones() {
        for (freedom, due) in
            [(1.0, 12.7062), (2.0, 4.30265), (4.0, 2.77645), (10.0, 2.22814), (1000.0, 1.96234)]
        {
            let found = student_quantile(freedom);
            assert!((found / due - 1.0).abs() < 1e-4, "{freedom}: {found} for {due}");
        }
    }

    #[test]
    fn a_known_saving_is_found_at_every_loss() {
        let staged = [curve(0.25), curve(0.26), curve(0.24)];
        let scratch = [curve(0.0), curve(0.01), curve(-0.01)];
        for loss in [3.4, 3.2, 3.0] {
            let found = saving_at(&staged, &scratch, loss, 0.0).unwrap();
            assert!((found.saving - 0.25).abs() < 1e-3, "{found:?}");
            let (low, high) = (found.low.unwrap(), found.high.unwrap());
            // By Welch: t of 3.71 degrees of freedom, times the root of both variances over three.
            assert!((low - 0.22903).abs() < 2e-4 && (high - 0.27040).abs() < 2e-4, "{found:?}");
            let with = saving_at(&staged, &scratch, loss, 0.1 * found.compute_from_scratch);
            let with = with.unwrap();
            assert!((with.saving_with_pilots - 0.15).abs() < 1e-3, "{with:?}");
            // The staged side's spread counts less beside what all of its runs have spent, and the whole more of a saving that is less.
            let over_seeds = (with.low_with_pilots.unwrap(), with.high_with_pilots.unwrap());
            let ratio = (over_seeds.1 - over_seeds.0) / (high - low);
            let due = (0.12849, 0.17101);
            assert!(
                (over_seeds.0 - due.0).abs() < 2e-4 && (over_seeds.1 - due.1).abs() < 2e-4,
                "{over_seeds:?}"
            );
            assert!((0.8..1.3).contains(&ratio), "{ratio}");
            assert_eq!((with.low, with.high), (found.low, found.high));
            assert_eq!((found.low_with_pilots, found.high_with_pilots), (found.low, found.high));
        }
        assert_eq!(saving_at(&staged, &scratch, 1.0, 0.0), None);
        assert_eq!(saving_at(&staged[..1], &scratch, 3.0, 0.0).unwrap().low, None);
    }

    /// Ends on a power law, the staged ones at three quarters of its compute.
    #[test]
    fn ends_of_several_lengths_give_the_saving() {
        let loss = |compute: f64| 4.0 * (compute / 1e12).powf(-0.06);
        let ends = |scale: f64, lengths: &[f64]| -> Vec<RunEnd> {
            lengths.iter().map(|c| RunEnd { compute: scale * c, loss: loss(*c) }).collect()
        };
        let scratch = [ends(1.01, &[2e13, 1e13, 4e13]), ends(1.0 / 1.01, &[1e13, 4e13])];
        let staged = ends(0.75, &[1.9e13, 2e13, 2.1e13]);
        let found = saving_of_ends(&staged, &scratch, 0.1 * 2e13).unwrap();
        assert!((found.saving - 0.25).abs() < 1e-3, "{found:?}");
        assert!((found.saving_with_pilots - 0.15).abs() < 1e-3, "{found:?}");
        // All staged runs lie on one line, so the interval is that of the baseline, as of three runs that are the same.
        let still = saving_of_ends(&ends(0.75, &[2e13; 3]), &scratch, 0.0).unwrap();
        for (found, due) in [(found.low, still.low), (found.high, still.high)] {
            assert!((found.unwrap() - due.unwrap()).abs() < 1e-9, "{found:?} for {due:?}");
        }
        assert_eq!(
            saving_of_ends(&ends(0.75, &[5e13]), &scratch, 0.0),
            None,
            "beyond the baselines"
        );
        assert_eq!(saving_of_ends(&staged, &[ends(1.0, &[2e13])], 0.0), None, "a single length");
        // Below 4e13 / 1.01 at 0.5 times 5e13.
        let (of_scratch, least) = least_saving_of_ends(&ends(0.5, &[5e13]), &scratch).unwrap();
        assert!((of_scratch / 4e13 * 1.01 - 1.0).abs() < 1e-12, "{of_scratch}");
        assert!((least - (1.0 - 2.5e13 / of_scratch)).abs() < 1e-12, "{least}");
        // Of two staged runs the one that ends higher counts, at what the dearer one took.
        let two = [ends(0.5, &[5e13]), ends(0.5, &[6e13])].concat();
        let (of_scratch, least) = least_saving_of_ends(&two, &scratch).unwrap();
        assert!((least - (1.0 - 3e13 / of_scratch)).abs() < 1e-12, "{least}");
        assert_eq!(least_saving_of_ends(&staged, &scratch), None, "among the baselines");
        assert_eq!(least_saving_of_ends(&ends(1.0, &[5e13]), &scratch), None, "for more compute");
        let risen = vec![scratch[0][1], RunEnd { compute: 3e13, loss: 4.0 }];
        assert_eq!(saving_of_ends(&staged, &[risen], 0.0), None, "a loss that rises with compute");
    }

    #[test]
    fn the_same_curve_elsewhere_keeps_its_dynamics() {
        let scratch = curve(0.0);
        let moved: Vec<(f64, f64)> = scratch.points().map(|(c, loss)| (c - 5e11, loss)).collect();
        let moved = SmoothCurve::new(&moved).unwrap();
        let ratio = dynamics_ratio(&moved, 5e13, &scratch, 2e13).unwrap();
        assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
        assert_eq!(dynamics_ratio(&moved, 5e13, &scratch, 1e15), None);
    }

    /// The course from scratch, gone through faster or more slowly from one point on.
    #[test]
    fn a_model_that_learns_faster_after_its_growth_has_a_ratio_above_one() {
        let loss = |compute: f64| 4.0 * (compute / 1e12).powf(-0.06);
        let (grown_at, window) = (5e13, 2e13);
        for pace in [0.5, 0.8, 1.25, 2.0] {
            let point = |step: u64| {
                let compute = 5e11 * step as f64;
                let worth = compute.min(grown_at) + pace * (compute - grown_at).max(0.0);
                CurvePoint {
                    stage: usize::from(compute > grown_at),
                    step,
                    tokens: step,
                    compute_flops: compute,
                    train_loss: 0.0,
                    val_loss: Some(loss(worth)),
                    learning_rate: 0.01,
                    grad_norm: 0.0,
                    tokens_per_second: 0.0,
                    wall_seconds: 0.0,
                }
            };
            let run = LearningCurve { points: (1..=400).map(point).collect() };
            let grown = SmoothCurve::of_run(&run).unwrap();
            let ratio = dynamics_ratio(&grown, grown_at, &curve(0.0), window).unwrap();
            let fall = |further: f64| loss(grown_at) - loss(grown_at + further);
            let due = fall(pace * window) / fall(window);
            assert!((ratio / due - 1.0).abs() < 0.02, "{pace}: {ratio} for {due}");
            assert_eq!(ratio > 1.0, pace > 1.0, "{pace}: {ratio}");
        }
    }
}
