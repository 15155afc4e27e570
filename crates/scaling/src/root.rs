use crate::ScalingError;
use argmin::core::{CostFunction, Error, Executor};
use argmin::solver::brent::{BrentOpt, BrentRoot};

/// Iterations that Brent's methods may take; they need about 50.
const MAX_ITERATIONS: u64 = 500;

struct Function<F>(F);

impl<F: Fn(f64) -> f64> CostFunction for Function<F> {
    type Param = f64;
    type Output = f64;

    fn cost(&self, x: &f64) -> Result<f64, Error> {
        Ok((self.0)(*x))
    }
}

/// Steps of a hundredth of the range that an end moves inwards where a function has no value there.
const MOST_MOVES: usize = 30;

/// Where a function that has different signs at both ends is zero, by Brent's method. An end without a value, as at an asymptote,
/// moves inwards to where there is one.
pub(crate) fn root(
    name: &'static str,
    from: f64,
    to: f64,
    f: impl Fn(f64) -> f64,
) -> Result<f64, ScalingError> {
    let step = (to - from) / 100.0;
    let with_value = |end: f64, step: f64| {
        let places = (0..=MOST_MOVES).map(|k| end + k as f64 * step);
        places
            .map(|x| (x, f(x)))
            .find(|(_, value)| !value.is_nan())
            .ok_or(ScalingError::NoSolution(name))
    };
    let ((from, at_from), (to, at_to)) = (with_value(from, step)?, with_value(to, -step)?);
    if at_from * at_to > 0.0 {
        return Err(ScalingError::NoSolution(name));
    }
    let solver = BrentRoot::new(from, to, 1e-14);
    Executor::new(Function(f), solver)
        .configure(|state| state.param(from).max_iters(MAX_ITERATIONS))
        .run()
        .ok()
        .and_then(|result| result.state.best_param)
        .ok_or(ScalingError::NoSolution(name))
}

/// Where a function with one minimum in a range has it, by Brent's method.
pub(crate) fn minimum(
    name: &'static str,
    from: f64,
    to: f64,
    f: impl Fn(f64) -> f64,
) -> Result<f64, ScalingError> {
    let solver = BrentOpt::new(from, to).set_tolerance(f64::EPSILON.sqrt(), 1e-10);
    Executor::new(Function(f), solver)
        .configure(|state| state.max_iters(MAX_ITERATIONS))
        .run()
        .ok()
        .and_then(|result| result.state.best_param)
        .ok_or(ScalingError::NoSolution(name))
}

/// Where a function that may have several minima in a range has the least of them, by Brent's method around the least of evenly spread points.
pub(crate) fn least_minimum(
    name: &'static str,
    from: f64,
    to: f64,
    f: impl Fn(f64) -> f64,
) -> Result<f64, ScalingError> {
    const POINTS: usize = 256;
    let at = |k: usize| from + (to - from) * k as f64 / POINTS as f64;
    let values: Vec<f64> = (0..=POINTS).map(|k| f(at(k))).collect();
    let least = (0..=POINTS).min_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0);
    let found = minimum(name, at(least.saturating_sub(1)), at((least + 1).min(POINTS)), &f)?;
    // At a kink or an edge a point may be better than what lies beside it.
    Ok(if f(found) <= values[least] { found } else { at(least) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_several_minima_is_found() {
        let f = |x: f64| (3.0 * x).sin() + (x - 4.0).powi(2) / 50.0;
        let found = least_minimum("it", -10.0, 20.0, f).unwrap();
        let scan = (0..=3_000_000).map(|k| -10.0 + f64::from(k) * 1e-5);
        let due = scan.min_by(|a, b| f(*a).total_cmp(&f(*b))).unwrap();
        assert!((found - due).abs() < 2e-5, "{found} {due}");
        assert!((least_minimum("it", 1.0, 2.0, |x| x).unwrap() - 1.0).abs() < 1e-9, "at an edge");
    }

    #[test]
    fn an_end_without_a_value_is_no_bracket() {
        // Without a value below 1.5.
        let f = |x: f64| if x < 1.5 { f64::NAN } else { x - 7.0 };
        assert!((root("it", 0.0, 50.0, f).unwrap() - 7.0).abs() < 1e-12);
        assert!(root("it", 0.0, 50.0, |x| f(x).abs() + 1.0).is_err(), "one sign");
        assert!(root("it", 0.0, 50.0, |_| f64::NAN).is_err(), "no value");
        assert_eq!(root("it", -1.0, 0.0, |x| x).unwrap(), 0.0, "at an end");
    }
}
