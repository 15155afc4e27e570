//! Residuals of a law on data, as the searches see them.
//!
//! ln L_pred = power * ln(sum_j c_j x_j^-e_j): with the exponents fixed, the sum is linear in its
//! non-negative coefficients. Quantities are divided by their geometric means, without which the
//! coefficients of exponents that differ a little differ by orders of magnitude.

use super::form::{LawForm, Term};
use super::levenberg::{MOST, Normal};

/// Residuals in ln L beyond which Huber's loss is linear (Hoffmann et al. 2022, section 3.3).
pub const HUBER_DELTA: f64 = 1e-3;

/// Most coefficients of a form.
pub(crate) const MOST_TERMS: usize = 3;

/// Data with weights, ready to be fitted by one form.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// A form that is fitted as one.
    pub form: LawForm,
    /// ln of each quantity over its geometric mean, for each point.
    ln_quantities: Vec<[f64; 2]>,
    ln_losses: Vec<f64>,
    weights: Vec<f64>,
    /// ln of the geometric means.
    ln_centers: [f64; 2],
}

/// Coefficients and exponents, in the problem's own units.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Solution {
    pub coefficients: Vec<f64>,
    pub exponents: Vec<f64>,
    /// Sum of Huber's loss of the residuals over delta^2.
    pub scaled_objective: f64,
}

impl Solution {
    /// Sum of Huber's loss of the residuals in ln L.
    pub fn objective(&self) -> f64 {
        self.scaled_objective * HUBER_DELTA * HUBER_DELTA
    }
}

impl Problem {
    pub fn new(form: LawForm, ln_quantities: &[[f64; 2]], ln_losses: &[f64]) -> Self {
        let n = ln_losses.len() as f64;
        let ln_centers = [0, 1].map(|k| ln_quantities.iter().map(|x| x[k]).sum::<f64>() / n);
        let centered =
            ln_quantities.iter().map(|x| [x[0] - ln_centers[0], x[1] - ln_centers[1]]).collect();
        Self {
            form,
            ln_quantities: centered,
            ln_losses: ln_losses.to_vec(),
            weights: vec![1.0; ln_losses.len()],
            ln_centers,
        }
    }

    /// The same points, each counted as often as its weight says.
    pub fn weighted(&self, weights: &[f64]) -> Self {
        let kept: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0.0).collect();
        Self {
            form: self.form,
            ln_quantities: kept.iter().map(|i| self.ln_quantities[*i]).collect(),
            ln_losses: kept.iter().map(|i| self.ln_losses[*i]).collect(),
            weights: kept.iter().map(|i| weights[*i]).collect(),
            ln_centers: self.ln_centers,
        }
    }

    pub fn mean_loss(&self) -> f64 {
        let total: f64 = self.weights.iter().sum();
        let sum: f64 = self.ln_losses.iter().zip(&self.weights).map(|(y, w)| y * w).sum();
        (sum / total).exp()
    }

    /// The published parameters of a solution, unless numbers cannot hold them: an exponent that has all but gone leaves a scale at 0 or
    /// beyond all numbers, which is another law.
    pub fn law(&self, solution: &Solution) -> Option<Vec<f64>> {
        let values = self.published(solution);
        if self.form.fault(&values).is_some() {
            return None;
        }
        let law = self.form.law(&values);
        let points = self.ln_quantities.iter().zip(&self.ln_losses).zip(&self.weights);
        let of_point = |((x, y), weight): ((&[f64; 2], &f64), &f64)| {
            let x = [0, 1].map(|k| (x[k] + self.ln_centers[k]).exp());
            weight * objective(&[law.loss_at(&x).ln() - y])
        };
        let (found, due) = (points.map(of_point).sum::<f64>(), solution.objective());
        ((found - due).abs() <= 1e-3 * due + 1e-12).then_some(values)
    }

    /// The published parameters of a solution.
    pub fn published(&self, solution: &Solution) -> Vec<f64> {
        let terms = self.form.terms().iter().zip(&solution.coefficients);
        let ln_coefficients: Vec<f64> = terms
            .map(|(term, coefficient)| {
                coefficient.ln()
                    + match term {
                        Term::Floor => 0.0,
                        Term::Power(quantity, k) => {
                            solution.exponents[*k] * self.ln_centers[*quantity]
                        }
                        Term::Given(quantity, exponent) => exponent * self.ln_centers[*quantity],
                    }
            })
            .collect();
        self.form.published(&ln_coefficients, &solution.exponents)
    }

    /// Each term over its coefficient, for every point.
    pub fn basis(&self, exponents: &[f64], basis: &mut Vec<[f64; MOST_TERMS]>) {
        basis.clear();
        let terms = self.form.terms();
        basis.extend(self.ln_quantities.iter().map(|x| {
            let mut values = [0.0; MOST_TERMS];
            for (value, term) in values.iter_mut().zip(terms) {
                *value = match term {
                    Term::Floor => 1.0,
                    Term::Power(quantity, k) => (-exponents[*k] * x[*quantity]).exp(),
                    Term::Given(quantity, exponent) => (-exponent * x[*quantity]).exp(),
                };
            }
            values
        }));
    }

    pub fn outer_power(&self, exponents: &[f64]) -> f64 {
        if self.form.has_outer_power() { exponents[exponents.len() - 1] } else { 1.0 }
    }

    /// Scaled objective in the coefficients, and what a Newton step needs of it.
    pub fn linear_part(
        &self,
        basis: &[[f64; MOST_TERMS]],
        exponents: &[f64],
        coefficients: &[f64],
        mut normal: Option<&mut Normal>,
    ) -> f64 {
        let n_terms = coefficients.len();
        let power = self.outer_power(exponents);
        let mut objective = 0.0;
        for ((row, y), weight) in basis.iter().zip(&self.ln_losses).zip(&self.weights) {
            let sum = dot(row, coefficients);
            let residual = (power * sum.ln() - y) / HUBER_DELTA;
            objective += weight * huber(residual);
            if let Some(normal) = normal.as_deref_mut() {
                let scale = power / (sum * HUBER_DELTA);
                let mut slope = [0.0; MOST];
                for (slope, value) in slope.iter_mut().zip(&row[..n_terms]) {
                    *slope = scale * value;
                }
                normal.add(residual, *weight, &slope[..n_terms]);
            }
        }
        if objective.is_finite() { objective } else { f64::INFINITY }
    }

    /// Scaled objective in coefficients and ln of the exponents, and its derivatives.
    pub fn whole(&self, at: &[f64], mut normal: Option<&mut Normal>) -> f64 {
        let terms = self.form.terms();
        let n_terms = terms.len();
        let (coefficients, ln_exponents) = at.split_at(n_terms);
        let mut exponents = [0.0; 2];
        for (exponent, ln) in exponents.iter_mut().zip(ln_exponents) {
            *exponent = ln.exp();
        }
        let exponents = &exponents[..ln_exponents.len()];
        let power = self.outer_power(exponents);
        let mut objective = 0.0;
        let points = self.ln_quantities.iter().zip(&self.ln_losses).zip(&self.weights);
        for ((x, y), weight) in points {
            let mut slope = [0.0; MOST];
            let mut sum = 0.0;
            for (j, term) in terms.iter().enumerate() {
                let value = match term {
                    Term::Floor => 1.0,
                    Term::Power(quantity, k) => {
                        let value = (-exponents[*k] * x[*quantity]).exp();
                        slope[n_terms + k] -=
                            coefficients[j] * value * x[*quantity] * exponents[*k];
                        value
                    }
                    Term::Given(quantity, exponent) => (-exponent * x[*quantity]).exp(),
                };
                slope[j] = value;
                sum += coefficients[j] * value;
            }
            let ln_sum = sum.ln();
            let residual = (power * ln_sum - y) / HUBER_DELTA;
            objective += weight * huber(residual);
            if let Some(normal) = normal.as_deref_mut() {
                let scale = power / (sum * HUBER_DELTA);
                slope[..at.len()].iter_mut().for_each(|slope| *slope *= scale);
                if self.form.has_outer_power() {
                    slope[at.len() - 1] += power * ln_sum / HUBER_DELTA;
                }
                normal.add(residual, *weight, &slope[..at.len()]);
            }
        }
        if objective.is_finite() { objective } else { f64::INFINITY }
    }
}

fn dot(row: &[f64; MOST_TERMS], coefficients: &[f64]) -> f64 {
    row.iter().zip(coefficients).map(|(value, coefficient)| value * coefficient).sum()
}

/// Sum of Huber's loss of residuals in ln L.
pub(crate) fn objective(residuals: &[f64]) -> f64 {
    let scaled: f64 = residuals.iter().map(|residual| huber(residual / HUBER_DELTA)).sum();
    scaled * HUBER_DELTA * HUBER_DELTA
}

/// Huber's loss with a threshold of 1.
fn huber(residual: f64) -> f64 {
    let size = residual.abs();
    if size <= 1.0 { 0.5 * size * size } else { size - 0.5 }
}
