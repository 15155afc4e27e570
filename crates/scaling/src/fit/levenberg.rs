//! Descent on a sum of Huber's losses whose first unknowns must not be negative.
//!
//! Huber's loss has curvature only where residuals are below its threshold, so Newton's step needs
//! the reweighted least-squares one beside it, in the share that Levenberg's damping sets.

/// Most unknowns.
pub(crate) const MOST: usize = 5;

const MAX_STEPS: usize = 200;

/// Gradient and curvatures of a sum of Huber's losses with a threshold of 1.
#[derive(Clone, Debug)]
pub(crate) struct Normal {
    pub gradient: [f64; MOST],
    /// Curvature of the points within the threshold.
    within: [[f64; MOST]; MOST],
    /// Curvature of the quadratic functions that lie above every point's loss and touch it.
    above: [[f64; MOST]; MOST],
}

impl Normal {
    pub fn new() -> Self {
        Self { gradient: [0.0; MOST], within: [[0.0; MOST]; MOST], above: [[0.0; MOST]; MOST] }
    }

    /// Adds a point by its residual and the residual's derivatives.
    pub fn add(&mut self, residual: f64, weight: f64, slope: &[f64]) {
        let size = residual.abs();
        let clipped = residual.clamp(-1.0, 1.0);
        let above = weight / size.max(1.0);
        let inside = size <= 1.0;
        for (i, a) in slope.iter().enumerate() {
            self.gradient[i] += weight * clipped * a;
            for (j, b) in slope[..=i].iter().enumerate() {
                self.above[i][j] += above * a * b;
                if inside {
                    self.within[i][j] += weight * a * b;
                }
            }
        }
    }

    /// How far the undamped quadratic model falls along a step.
    fn predicted_gain(&self, step: &[f64]) -> f64 {
        let mut change = 0.0;
        for (i, a) in step.iter().enumerate() {
            change += self.gradient[i] * a;
            for (j, b) in step.iter().enumerate() {
                change += 0.5 * self.within[i.max(j)][i.min(j)] * a * b;
            }
        }
        -change
    }

    /// The step that minimises the damped quadratic model without leaving the bounds.
    fn step(&self, at: &[f64], n_bounded: usize, damping: f64) -> [f64; MOST] {
        let n = at.len();
        let mut fixed = [None; MOST];
        loop {
            let mut matrix = [[0.0; MOST]; MOST];
            let mut right = [0.0; MOST];
            for i in 0..n {
                for j in 0..n {
                    let (a, b) = (i.max(j), i.min(j));
                    let value = self.within[a][b] + damping * self.above[a][b];
                    match (fixed[i], fixed[j]) {
                        (None, None) => {
                            matrix[i][j] += value;
                            if i == j {
                                matrix[i][i] += 1e-12 * self.above[i][i] + f64::MIN_POSITIVE;
                            }
                        }
                        (None, Some(step)) => right[i] -= value * step,
                        (Some(_), _) => {}
                    }
                }
                match fixed[i] {
                    None => right[i] -= self.gradient[i],
                    Some(step) => {
                        matrix[i][i] = 1.0;
                        right[i] = step;
                    }
                }
            }
            let step = solve(matrix, right, n);
            let below = |i: &usize| fixed[*i].is_none() && at[*i] + step[*i] < 0.0;
            let Some(out) = (0..n_bounded).find(below) else { return step };
            fixed[out] = Some(-at[out]);
        }
    }
}

/// Solves a small linear system by Gauss's elimination with pivots.
#[allow(clippy::needless_range_loop)] // two rows of one matrix at a time
pub(crate) fn solve(
    mut matrix: [[f64; MOST]; MOST],
    mut right: [f64; MOST],
    n: usize,
) -> [f64; MOST] {
    for k in 0..n {
        let pivot = (k..n).max_by(|a, b| matrix[*a][k].abs().total_cmp(&matrix[*b][k].abs()));
        let pivot = pivot.unwrap_or(k);
        matrix.swap(k, pivot);
        right.swap(k, pivot);
        for i in k + 1..n {
            let factor = matrix[i][k] / matrix[k][k];
            for j in k..n {
                matrix[i][j] -= factor * matrix[k][j];
            }
            right[i] -= factor * right[k];
        }
    }
    for k in (0..n).rev() {
        for j in k + 1..n {
            right[k] -= matrix[k][j] * right[j];
        }
        right[k] /= matrix[k][k];
    }
    right
}

/// Descends from `at`, in place, to where no step lowers the objective; returns its value. The first
/// `n_bounded` unknowns stay at or above 0. `evaluate` gives the objective and, where asked, its
/// derivatives.
pub(crate) fn descend(
    at: &mut [f64],
    n_bounded: usize,
    tolerance: f64,
    mut evaluate: impl FnMut(&[f64], Option<&mut Normal>) -> f64,
) -> f64 {
    let n = at.len();
    let mut normal = Normal::new();
    let mut objective = evaluate(at, Some(&mut normal));
    let mut damping = 1.0;
    let mut trial = [0.0; MOST];
    for _ in 0..MAX_STEPS {
        let step = normal.step(at, n_bounded, damping);
        for i in 0..n {
            trial[i] = at[i] + step[i];
            if i < n_bounded {
                trial[i] = trial[i].max(0.0);
            }
        }
        let mut there = Normal::new();
        let found = evaluate(&trial[..n], Some(&mut there));
        let gain = objective - found;
        let predicted = normal.predicted_gain(&step[..n]);
        // Where bounds cut a step, its model can rise too: two rises do not agree, both are failures.
        let as_predicted = if predicted > 0.0 { gain / predicted } else { f64::NAN };
        if gain > 0.0 {
            at.copy_from_slice(&trial[..n]);
            objective = found;
            normal = there;
        }
        // Where damping is strong, or the step was a bad one, a small gain says nothing.
        let least = tolerance * objective;
        if gain > 0.0 && predicted > 0.0 && gain.max(predicted) <= least && damping < 1e-2 {
            break;
        }
        if as_predicted > 0.75 {
            damping = (damping * 0.1).max(1e-9);
        } else if as_predicted < 0.25 || as_predicted.is_nan() {
            damping *= 4.0;
            if damping > 1e8 {
                break;
            }
        }
    }
    objective
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_found_and_a_bound_kept() {
        let points = [-3.0, 10.0, 40.0, 41.0, 900.0];
        let median = |bounded: usize, sign: f64| {
            let mut at = [1.0];
            descend(&mut at, bounded, 1e-14, |at, mut normal| {
                let mut sum = 0.0;
                for point in points {
                    let residual = at[0] - sign * point;
                    let size = residual.abs();
                    sum += if size <= 1.0 { 0.5 * size * size } else { size - 0.5 };
                    if let Some(normal) = normal.as_deref_mut() {
                        normal.add(residual, 1.0, &[1.0]);
                    }
                }
                sum
            });
            at[0]
        };
        // Between 40, which is within the threshold, and 41, the two sides balance.
        assert!((median(0, 1.0) - 40.0).abs() < 0.51, "{}", median(0, 1.0));
        assert_eq!(median(1, -1.0), 0.0);
    }

    #[test]
    fn a_system_is_solved() {
        let mut matrix = [[0.0; MOST]; MOST];
        matrix[0][..2].copy_from_slice(&[0.0, 2.0]);
        matrix[1][..2].copy_from_slice(&[3.0, 1.0]);
        let found = solve(matrix, [4.0, 11.0, 0.0, 0.0, 0.0], 2);
        assert_eq!(found[..2], [3.0, 2.0]);
    }
}
