//! Intervals by resampling (Efron 1979): whole runs, since points of one curve share their noise; or pieces of
//! curves, where there are too few runs to draw from (Kuensch 1989).

use super::observations::{Points, same};
use super::problem::{Problem, Solution};
use super::search::from_start;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Draws that one resample may take to hold enough sizes.
const MOST_DRAWS: usize = 1000;

/// Runs from which on whole runs are drawn.
pub const ENOUGH_RUNS: usize = 6;

/// Pieces of each curve, where there are fewer.
const PIECES: usize = 6;

/// Published parameters fitted to `n` resamples of the runs, in an order fixed by the seed; `None` for a resample that fixes no law.
/// Forms of as many parameters see the same resamples.
pub(crate) fn bootstrap(
    problem: &Problem,
    points: &Points,
    best: &Solution,
    n: usize,
    seed: u64,
) -> Vec<Option<Vec<f64>>> {
    let n_quantities = problem.form.quantities().len();
    // As many values of each quantity as its summand and the floor have parameters.
    let needed: Vec<usize> = (0..n_quantities).map(|k| points.distinct(k).min(3)).collect();
    let n_parameters = problem.form.parameter_names().len();
    let units = units(points);
    (0..n as u64)
        .into_par_iter()
        .map(|draw| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let weights = resample(points, &units, &needed, n_parameters, &mut rng)?;
            let resampled = problem.weighted(&weights);
            resampled.law(&from_start(&resampled, best))
        })
        .collect()
}

/// What is drawn as a whole, by number, for each point.
fn units(points: &Points) -> Vec<usize> {
    if points.n_runs >= ENOUGH_RUNS {
        return points.runs.clone();
    }
    let mut of_run = vec![Vec::new(); points.n_runs];
    for (i, run) in points.runs.iter().enumerate() {
        of_run[*run].push(i);
    }
    let mut units = vec![0; points.runs.len()];
    let mut next = 0;
    for run in of_run {
        let pieces = PIECES.min(run.len());
        for (place, i) in run.iter().enumerate() {
            units[*i] = next + place * pieces / run.len();
        }
        next += pieces;
    }
    units
}

/// How often each point is drawn.
fn resample(
    points: &Points,
    units: &[usize],
    needed: &[usize],
    least_points: usize,
    rng: &mut ChaCha8Rng,
) -> Option<Vec<f64>> {
    let n_units = units.iter().max().map_or(0, |last| last + 1);
    for _ in 0..MOST_DRAWS {
        let mut counts = vec![0.0; n_units];
        for _ in 0..n_units {
            counts[rng.random_range(0..n_units)] += 1.0;
        }
        let weights: Vec<f64> = units.iter().map(|unit| counts[*unit]).collect();
        let n_drawn = weights.iter().filter(|weight| **weight > 0.0).count();
        let has_enough = n_drawn >= least_points.min(weights.len());
        if has_enough && needed.iter().enumerate().all(|(k, n)| has_values(points, &weights, k, *n))
        {
            return Some(weights);
        }
    }
    None
}

fn has_values(points: &Points, weights: &[f64], k: usize, n: usize) -> bool {
    let mut seen = Vec::with_capacity(n);
    for (x, weight) in points.ln_quantities.iter().zip(weights) {
        if *weight > 0.0 && !seen.iter().any(|one| same(*one, x[k])) {
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
    fn few_runs_are_drawn_in_pieces_and_many_as_they_are() {
        let points = |n_runs: usize, each: usize| Points {
            ln_quantities: vec![[0.0; 2]; n_runs * each],
            ln_losses: vec![0.0; n_runs * each],
            runs: (0..n_runs * each).map(|i| i / each).collect(),
            n_runs,
        };
        assert_eq!(units(&points(6, 2)), points(6, 2).runs);
        let found = units(&points(2, 12));
        assert_eq!(found[..4], [0, 0, 1, 1]);
        assert_eq!(found[22..], [11, 11]);
        assert_eq!(units(&points(2, 1)), [0, 1]);
    }

    #[test]
    fn quantiles_of_a_ramp_are_known() {
        let ramp: Vec<f64> = (0..=1000).map(f64::from).collect();
        assert_eq!(quantile(&ramp, 0.5), 500.0);
        assert_eq!(interval(ramp), (25.0, 975.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
