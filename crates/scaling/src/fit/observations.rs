use super::FitError;
use super::FittedLaw;
use super::form::{LawForm, Quantity};
use std::collections::BTreeMap;

/// A loss that was measured, and what was spent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// N, non-embedding parameters.
    pub n_params: Option<f64>,
    /// D.
    pub tokens: Option<f64>,
    /// S.
    pub steps: Option<f64>,
    /// C, FLOPs.
    pub compute: Option<f64>,
    /// L, nats per token.
    pub loss: f64,
    /// The run that it belongs to, by any number.
    pub run: usize,
}

impl Observation {
    /// One of its quantities; compute, tokens and parameters stand in for one another by C = 6 N D.
    pub fn quantity(&self, quantity: Quantity) -> Option<f64> {
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / (6.0 * b?));
        match quantity {
            Quantity::Params => self.n_params.or_else(|| ratio(self.compute, self.tokens)),
            Quantity::Tokens => self.tokens.or_else(|| ratio(self.compute, self.n_params)),
            Quantity::Steps => self.steps,
            Quantity::Compute => self.compute.or_else(|| Some(6.0 * self.n_params? * self.tokens?)),
        }
    }
}

/// Points of one form: quantities in ln, losses in ln, and the run of each.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    pub ln_quantities: Vec<[f64; 2]>,
    pub ln_losses: Vec<f64>,
    /// Runs, numbered from 0.
    pub runs: Vec<usize>,
    pub n_runs: usize,
}

impl Points {
    /// Checks that a form can be fitted to observations.
    pub fn new(form: LawForm, observations: &[Observation]) -> Result<Self, FitError> {
        let mut points =
            Self { ln_quantities: Vec::new(), ln_losses: Vec::new(), runs: Vec::new(), n_runs: 0 };
        let mut places: BTreeMap<usize, usize> =
            observations.iter().map(|one| (one.run, 0)).collect();
        points.n_runs = places.len();
        for (place, number) in places.values_mut().enumerate() {
            *number = place;
        }
        for (i, observation) in observations.iter().enumerate() {
            let mut ln = [0.0; 2];
            for (ln, quantity) in ln.iter_mut().zip(form.quantities()) {
                let value = observation.quantity(*quantity).ok_or(FitError::Missing {
                    quantity: *quantity,
                    form,
                    point: i + 1,
                })?;
                *ln = positive_ln(&quantity.to_string(), value, i + 1)?;
            }
            points.ln_quantities.push(ln);
            points.ln_losses.push(positive_ln("loss", observation.loss, i + 1)?);
            points.runs.push(places[&observation.run]);
        }
        let n_parameters = form.least_points();
        if points.ln_losses.len() < n_parameters {
            let n_points = points.ln_losses.len();
            return Err(FitError::TooFewPoints { n_points, form, n_parameters });
        }
        for (k, quantity) in form.quantities().iter().enumerate() {
            let (n_values, needed) = (points.distinct(k), form.least_values(k));
            if n_values < needed {
                return Err(FitError::TooFewValues { quantity: *quantity, n_values, needed, form });
            }
        }
        Ok(points)
    }

    /// Residuals ln L_pred - ln L of a law, one for each point.
    pub fn residuals(&self, law: &FittedLaw) -> Vec<f64> {
        let points = self.ln_quantities.iter().zip(&self.ln_losses);
        points.map(|(x, y)| law.loss_at(&x.map(f64::exp)).ln() - y).collect()
    }

    /// How many values of a quantity there are.
    pub fn distinct(&self, k: usize) -> usize {
        let mut values: Vec<f64> = self.ln_quantities.iter().map(|x| x[k]).collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|value, first| same(*first, *value));
        values.len()
    }
}

/// Whether two values of ln x are of one x, up to the rounding of a table.
pub(crate) fn same(a: f64, b: f64) -> bool {
    const ROUNDING: f64 = 1e-4;
    (a - b).abs() <= ROUNDING
}

/// Whether two values, as of N, are one in a fit: equal up to the rounding of a table.
pub fn is_one_value(a: f64, b: f64) -> bool {
    same(a.ln(), b.ln())
}

fn positive_ln(name: &str, value: f64, point: usize) -> Result<f64, FitError> {
    if value > 0.0 && value.is_finite() {
        Ok(value.ln())
    } else {
        Err(FitError::NotPositive { name: name.to_string(), value, point })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_up_to_the_rounding_of_a_table() {
        let point = |n_params: f64, tokens: f64| Observation {
            n_params: Some(n_params),
            tokens: Some(tokens),
            loss: 2.0,
            ..Observation::default()
        };
        let distinct = |observations: &[Observation]| {
            let points = Points::new(LawForm::KaplanTokens, observations).unwrap();
            [points.distinct(0), points.distinct(1)]
        };
        let rounded = [1.0, 1.000_000_4, 2.0, 1.999_999_7].map(|n| point(n * 1e6, n * 3e9));
        let repeated = [rounded, rounded].concat();
        assert_eq!(distinct(&repeated), [2, 2]);
        // A loss at every step: neighbours are near, the ends are not.
        let dense: Vec<Observation> = (20_000..40_000)
            .map(|step| point(1e6 * f64::from(1 + step % 2), 1024.0 * f64::from(step)))
            .collect();
        let [sizes, amounts] = distinct(&dense);
        assert!(sizes == 2 && amounts > 1000, "{sizes} {amounts}");
    }
}
