//! The compute-optimal size from runs of equal compute.

use super::FitError;
use super::observations::{Observation, same};
use super::{Estimate, Quantity};
use measure::student_quantile;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Sizes that a budget needs for an interpolation with slopes.
const LEAST_SIZES: usize = 4;

/// Computes of one budget, which whole steps round, differ by no more than this share.
const SAME_BUDGET: f64 = 0.03;

/// Steps of the search for the minimum between two sizes.
const STEPS_BETWEEN: usize = 200;

/// One budget's optimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimum {
    /// C, FLOPs: the geometric mean of its runs'.
    pub compute: f64,
    /// N at which the loss is least.
    pub n_params: f64,
    /// The least loss.
    pub loss: f64,
}

/// N_opt(C) = factor * C^exponent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsoFlop {
    /// The exponent, with Student's interval of a slope by least squares.
    pub exponent: Estimate,
    /// The factor.
    pub factor: f64,
    /// Each budget's optimum.
    pub optima: Vec<Optimum>,
    /// Budgets without an optimum.
    pub left_out: Vec<NoOptimum>,
}

/// A budget without an optimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoOptimum {
    /// C, FLOPs: the geometric mean of its runs'.
    pub compute: f64,
    /// Its different sizes.
    pub n_sizes: usize,
    /// The smallest or largest of them, where it has the least loss; else there are too few.
    pub least_at: Option<f64>,
}

impl fmt::Display for NoOptimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compute, n_sizes, least_at } = self;
        match least_at {
            None => write!(f, "C {compute:.3e} has {n_sizes} sizes and needs {LEAST_SIZES}"),
            Some(n) => write!(
                f,
                "C {compute:.3e} has its least loss at the end of its {n_sizes} sizes, N = {n:.3e}: no minimum between them"
            ),
        }
    }
}

impl IsoFlop {
    /// Interpolates ln L over ln N at each budget (Akima 1970), takes the minimum, and fits a straight
    /// line to ln N_opt over ln C by least squares: the method of Porian et al. 2024, appendix B,
    /// without its weights. Computes within 3 % of each other are of one budget; where
    /// budgets lie closer than that, those that are the same up to a table's rounding.
    ///
    /// # Errors
    /// Fewer than three budgets with a minimum between their sizes.
    pub fn new(observations: &[Observation]) -> Result<Self, FitError> {
        let (optima, left_out) = optima(observations)?;
        if optima.len() < 3 {
            return Err(FitError::TooFewBudgets { found: optima.len(), needed: 3 });
        }
        let (exponent, factor) = line(&optima);
        Ok(Self { exponent, factor, optima, left_out })
    }
}

/// Rows that are sorted by ln C, by their budgets.
fn budgets(rows: &mut [[f64; 3]]) -> Vec<&mut [[f64; 3]]> {
    let spread = |budget: &[[f64; 3]]| budget[budget.len() - 1][0] - budget[0][0];
    rows.chunk_by_mut(|a, b| b[0] - a[0] < SAME_BUDGET)
        .flat_map(|budget| {
            // Budgets on a close grid are no single one.
            if spread(budget) < SAME_BUDGET {
                vec![budget]
            } else {
                budget.chunk_by_mut(|a, b| same(a[0], b[0])).collect()
            }
        })
        .collect()
}

/// The optimum of each budget, and the budgets without one.
fn optima(observations: &[Observation]) -> Result<(Vec<Optimum>, Vec<NoOptimum>), FitError> {
    let mut rows = Vec::new();
    for (i, one) in observations.iter().enumerate() {
        let mut ln = [0.0; 3];
        let told =
            |quantity| one.quantity(quantity).ok_or(FitError::Untold { quantity, point: i + 1 });
        let values = [
            ("compute", told(Quantity::Compute)?),
            ("n_params", told(Quantity::Params)?),
            ("loss", one.loss),
        ];
        for (ln, (name, value)) in ln.iter_mut().zip(values) {
            if !(value > 0.0 && value.is_finite()) {
                return Err(FitError::NotPositive { name: name.into(), value, point: i + 1 });
            }
            *ln = value.ln();
        }
        rows.push(ln);
    }
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for budget in budgets(&mut rows) {
        let compute = (budget.iter().map(|row| row[0]).sum::<f64>() / budget.len() as f64).exp();
        budget.sort_by(|a, b| a[1].total_cmp(&b[1]));
        let mut sizes: Vec<[f64; 2]> = Vec::new();
        for row in budget.iter() {
            match sizes.last_mut() {
                // Of runs of one size at other settings the best counts.
                Some(last) if same(row[1], last[0]) => last[1] = last[1].min(row[2]),
                _ => sizes.push([row[1], row[2]]),
            }
        }
        let n_sizes = sizes.len();
        if n_sizes < LEAST_SIZES {
            left_out.push(NoOptimum { compute, n_sizes, least_at: None });
            continue;
        }
        let (ln_n, ln_loss) = least(&sizes);
        let n_params = ln_n.exp();
        if ln_n > sizes[0][0] && ln_n < sizes[n_sizes - 1][0] {
            found.push(Optimum { compute, n_params, loss: ln_loss.exp() });
        } else {
            left_out.push(NoOptimum { compute, n_sizes, least_at: Some(n_params) });
        }
    }
    Ok((found, left_out))
}

/// The least point of the interpolated curve, its ends included.
fn least(points: &[[f64; 2]]) -> (f64, f64) {
    let slopes = akima_slopes(points);
    let (mut at, mut least) = (0.0, f64::INFINITY);
    for (pair, slope) in points.windows(2).zip(slopes.windows(2)) {
        for step in 0..=STEPS_BETWEEN {
            let t = step as f64 / STEPS_BETWEEN as f64;
            let value = hermite(pair, slope, t);
            if value < least {
                (at, least) = (pair[0][0] + t * (pair[1][0] - pair[0][0]), value);
            }
        }
    }
    (at, least)
}

/// The cubic between two points with given slopes.
fn hermite(pair: &[[f64; 2]], slope: &[f64], t: f64) -> f64 {
    let width = pair[1][0] - pair[0][0];
    let (t2, t3) = (t * t, t * t * t);
    (2.0 * t3 - 3.0 * t2 + 1.0) * pair[0][1]
        + (t3 - 2.0 * t2 + t) * width * slope[0]
        + (3.0 * t2 - 2.0 * t3) * pair[1][1]
        + (t3 - t2) * width * slope[1]
}

/// Slopes at the points of a curve (Akima 1970, eq. 1), its ends continued by parabolas.
fn akima_slopes(points: &[[f64; 2]]) -> Vec<f64> {
    let between: Vec<f64> =
        points.windows(2).map(|p| (p[1][1] - p[0][1]) / (p[1][0] - p[0][0])).collect();
    let n = between.len();
    let mut m = vec![0.0; n + 4];
    m[2..n + 2].copy_from_slice(&between);
    m[1] = 2.0 * m[2] - m[3];
    m[0] = 2.0 * m[1] - m[2];
    m[n + 2] = 2.0 * m[n + 1] - m[n];
    m[n + 3] = 2.0 * m[n + 2] - m[n + 1];
    (0..=n)
        .map(|i| {
            let (right, left) = ((m[i + 3] - m[i + 2]).abs(), (m[i + 1] - m[i]).abs());
            if right + left > 1e-12 {
                (right * m[i + 1] + left * m[i + 2]) / (right + left)
            } else {
                f64::midpoint(m[i + 1], m[i + 2])
            }
        })
        .collect()
}

/// The line of ln N_opt over ln C by least squares: its slope, and N_opt at one FLOP.
fn line(optima: &[Optimum]) -> (Estimate, f64) {
    let n = optima.len() as f64;
    let points = || optima.iter().map(|one| (one.compute.ln(), one.n_params.ln()));
    let (sum_x, sum_y) = points().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let square: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let product: f64 = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = product / square;
    let off = |(x, y): (f64, f64)| (y - mean_y - slope * (x - mean_x)).powi(2);
    let freedom = n - 2.0;
    let error = (points().map(off).sum::<f64>() / freedom / square).sqrt();
    let half = student_quantile(freedom) * error;
    let estimate = Estimate {
        value: slope,
        low: Some(slope - half),
        high: Some(slope + half),
        standard_error: Some(error),
    };
    (estimate, (mean_y - slope * mean_x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::CHINCHILLA_CORRECTED as LAW;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal};

    /// The optimum of E + A / N^a + B / D^b under C = 6 N D goes as C^(b / (a + b)).
    #[test]
    fn the_exponent_of_a_known_law_is_recovered() {
        let observations: Vec<Observation> = (0..8)
            .flat_map(|i| {
                let compute = 1e18 * 4f64.powi(i);
                let middle = 1e8 * 2f64.powi(i);
                (-6..=6).map(move |k| {
                    let n = middle * 1.5f64.powi(k);
                    Observation {
                        n_params: Some(n),
                        compute: Some(compute),
                        loss: LAW.loss_at(n, compute / (6.0 * n)),
                        ..Observation::default()
                    }
                })
            })
            .collect();
        let found = IsoFlop::new(&observations).unwrap();
        let due = 0.3658 / (0.3478 + 0.3658);
        assert!((found.exponent.value - due).abs() < 2e-3, "{:?}", found.exponent);
        assert!(found.exponent.low.unwrap() <= found.exponent.value);
        // Worse runs of the same sizes change nothing, wherever they stand.
        let worse = observations.iter().map(|one| Observation { loss: 1.2 * one.loss, ..*one });
        let doubled: Vec<Observation> = worse.chain(observations.iter().copied()).collect();
        let again = IsoFlop::new(&doubled).unwrap();
        assert!((again.exponent.value - found.exponent.value).abs() < 1e-9, "{again:?}");
        // Nor, by much, runs of whole steps.
        let whole = observations.iter().map(|one| {
            let tokens = one.compute.unwrap() / (6.0 * one.n_params.unwrap());
            let step = 0.02 * 1e18 / (6.0 * 1e9);
            let compute = 6.0 * one.n_params.unwrap() * (tokens / step).round() * step;
            Observation {
                compute: Some(compute),
                loss: LAW.loss_at(one.n_params.unwrap(), compute / (6.0 * one.n_params.unwrap())),
                ..*one
            }
        });
        let whole = IsoFlop::new(&whole.collect::<Vec<_>>()).unwrap();
        assert_eq!((whole.optima.len(), whole.left_out.len()), (8, 0));
        assert!((whole.exponent.value - due).abs() < 4e-3, "{:?}", whole.exponent);
        // Nor do budgets on a grid of 2 %, which are told apart where they are the same.
        let dense: Vec<Observation> = (0..40)
            .flat_map(|i| {
                let compute = 1e18 * 1.02f64.powi(i);
                (-6..=6).map(move |k| {
                    let n = 1e8 * 1.02f64.powf(0.5 * f64::from(i)) * 1.5f64.powi(k);
                    let loss = LAW.loss_at(n, compute / (6.0 * n));
                    Observation {
                        n_params: Some(n),
                        compute: Some(compute),
                        loss,
                        ..Observation::default()
                    }
                })
            })
            .collect();
        let dense = IsoFlop::new(&dense).unwrap();
        assert_eq!(dense.optima.len(), 40);
        assert!((dense.exponent.value - due).abs() < 4e-3, "{:?}", dense.exponent);
        // One budget of the sizes below its optimum alone, another of three sizes.
        let cut = observations.chunks(13).enumerate().flat_map(|(i, budget)| match i {
            0 => &budget[..6],
            1 => &budget[..3],
            _ => budget,
        });
        let cut = IsoFlop::new(&cut.copied().collect::<Vec<_>>()).unwrap();
        let [one, other] = &cut.left_out[..] else { panic!("{cut:?}") };
        assert_eq!(one.n_sizes, 6);
        assert!(same(one.least_at.unwrap().ln(), observations[5].n_params.unwrap().ln()), "{one}");
        assert!(other.to_string().ends_with("has 3 sizes and needs 4"), "{other}");
        let two = &observations[..26];
        let message = IsoFlop::new(two).unwrap_err().to_string();
        assert!(message.contains("2 budgets have a minimum"), "{message}");
    }

    /// Optima on a line with noise: the interval of the slope holds the truth in 95 % of cases, also from three budgets.
    #[test]
    fn the_interval_of_the_exponent_holds_what_it_promises() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let noise = Normal::new(0.0, 0.1f64).unwrap();
        for n_budgets in [3, 5, 9] {
            let repeats = 1000;
            let holds = |_: &i32| {
                let optimum = |i| Optimum {
                    compute: 1e18 * 4f64.powi(i),
                    n_params: 1e8 * 2f64.powi(i) * noise.sample(&mut rng).exp(),
                    loss: 3.0,
                };
                let optima: Vec<Optimum> = (0..n_budgets).map(optimum).collect();
                let (found, _) = line(&optima);
                (found.low.unwrap()..=found.high.unwrap()).contains(&0.5)
            };
            let held = (0..repeats).filter(holds).count();
            assert!((930..=970).contains(&held), "{n_budgets} budgets: {held} of {repeats}");
        }
    }
}
