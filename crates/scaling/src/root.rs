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

/// Where a function that has different signs at both ends is zero, by Brent's method.
pub(crate) fn root(
    name: &'static str,
    from: f64,
    to: f64,
    f: impl Fn(f64) -> f64,
) -> Result<f64, ScalingError> {
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
