//! Intervals by resampling (Efron 1979): whole runs, since points of one curve share their noise.

use super::observations::Points;
use super::problem::{Problem, Solution};
use super::search::from_start;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Draws that one resample may take to hold enough sizes.
const MOST_DRAWS: usize = 1000;

/// Published parameters fitted to `n` resamples of the runs, in an order fixed by the seed.
pub(crate) fn bootstrap(
    problem: &Problem,
    points: &Points,
    best: &Solution,
    n: usize,
    seed: u64,
) -> Vec<Vec<f64>> {
    let n_quantities = problem.form.quantities().len();
    // As many values of each quantity as its summand and the floor have parameters.
    let needed: Vec<usize> = (0..n_quantities).map(|k| points.distinct(k).min(3)).collect();
    (0..n as u64)
        .into_par_iter()
        .filter_map(|draw| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let weights = resample(points, &needed, &mut rng)?;
            let found = from_start(&problem.weighted(&weights), best);
            found.scaled_objective.is_finite().then(|| problem.published(&found))
        })
        .collect()
}

/// How often each point is drawn.
fn resample(points: &Points, needed: &[usize], rng: &mut ChaCha8Rng) -> Option<Vec<f64>> {
    for _ in 0..MOST_DRAWS {
        let mut counts = vec![0.0; points.n_runs];
        for _ in 0..points.n_runs {
            counts[rng.random_range(0..points.n_runs)] += 1.0;
        }
        let weights: Vec<f64> = points.runs.iter().map(|run| counts[*run]).collect();
        if needed.iter().enumerate().all(|(k, n)| has_values(points, &weights, k, *n)) {
            return Some(weights);
        }
    }
    None
}

fn has_values(points: &Points, weights: &[f64], k: usize, n: usize) -> bool {
    let mut seen = Vec::with_capacity(n);
    for (x, weight) in points.ln_quantities.iter().zip(weights) {
        if *weight > 0.0 && !seen.contains(&x[k]) {
            seen.push(x[k]);
            if seen.len() >= n {
                return true;
            }
        }
    }
    false
}

/// The value below which a share of a sample lies, by linear interpolation.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

/// Quantiles at 2.5 and 97.5 %.
pub(crate) fn interval(mut sample: Vec<f64>) -> (f64, f64) {
    sample.sort_by(f64::total_cmp);
    (quantile(&sample, 0.025), quantile(&sample, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_ramp_are_known() {
        let ramp: Vec<f64> = (0..=1000).map(f64::from).collect();
        assert_eq!(quantile(&ramp, 0.5), 500.0);
        assert_eq!(interval(ramp), (25.0, 975.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
