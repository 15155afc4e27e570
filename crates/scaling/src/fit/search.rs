//! The search for the best parameters: variable projection (Golub and Pereyra 1973), and the plain
//! search over all parameters at once as a check on it.

use super::levenberg::{MOST, Normal, descend};
use super::problem::{MOST_TERMS, Problem, Solution};
use argmin::core::{CostFunction, Error, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use rayon::prelude::*;
use std::cell::{Cell, RefCell};

/// Pairs of steps and gradients that L-BFGS keeps.
const MEMORY: usize = 7;

/// Steps of the search over exponents; it needs about 10.
const PROJECTED_STEPS: u64 = 60;

/// Steps of the plain search, which is badly conditioned, and how often it may begin anew.
const PLAIN_STEPS: u64 = 500;
const PLAIN_RESTARTS: usize = 20;

/// Relative distance of two objectives that are one minimum.
const SAME_MINIMUM: f64 = 1e-6;

/// ln of the exponents that are searched, at least and at most.
const LN_EXPONENTS: (f64, f64) = (-9.0, 2.5);

fn are_within(ln_exponents: &[f64]) -> bool {
    ln_exponents.iter().all(|ln| (LN_EXPONENTS.0..LN_EXPONENTS.1).contains(ln))
}

/// What many starts found.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub best: Solution,
    pub n_starts: usize,
    /// Starts that ended at the best objective.
    pub n_agreeing: usize,
    /// The highest finite objective that a start ended at.
    pub worst: f64,
}

impl Search {
    fn of(solutions: Vec<Solution>) -> Option<Self> {
        let n_starts = solutions.len();
        let by_objective =
            |a: &Solution, b: &Solution| a.scaled_objective.total_cmp(&b.scaled_objective);
        let best = solutions.iter().min_by(|a, b| by_objective(a, b))?.clone();
        let ends = solutions.iter().map(Solution::objective).filter(|end| end.is_finite());
        let worst = ends.fold(f64::NEG_INFINITY, f64::max);
        // Data without noise are fitted to rounding, where relative distances mean nothing.
        let limit = best.scaled_objective * (1.0 + SAME_MINIMUM) + 1e-9;
        let n_agreeing = solutions.iter().filter(|one| one.scaled_objective <= limit).count();
        best.scaled_objective.is_finite().then_some(Self { best, n_starts, n_agreeing, worst })
    }
}

/// Coefficients with which every term has the same share of the mean loss.
fn even_coefficients(problem: &Problem, exponents: &[f64]) -> Vec<f64> {
    let n = problem.form.terms().len();
    let power = problem.outer_power(exponents);
    vec![problem.mean_loss().powf(1.0 / power) / n as f64; n]
}

/// The objective over ln of the exponents, the coefficients being the best for them.
struct Projected<'a> {
    problem: &'a Problem,
    last: RefCell<Last>,
}

struct Last {
    ln_exponents: Vec<f64>,
    basis: Vec<[f64; MOST_TERMS]>,
    solution: Solution,
    gradient: Vec<f64>,
    best: Solution,
}

impl<'a> Projected<'a> {
    fn new(problem: &'a Problem, start: Solution) -> Self {
        let last = Last {
            ln_exponents: vec![f64::NAN; start.exponents.len()],
            basis: Vec::new(),
            best: Solution { scaled_objective: f64::INFINITY, ..start.clone() },
            solution: start,
            gradient: Vec::new(),
        };
        Self { problem, last: RefCell::new(last) }
    }

    /// Solves for the coefficients, unless the last question was the same.
    fn at(&self, ln_exponents: &[f64]) -> (f64, Vec<f64>) {
        let last = &mut *self.last.borrow_mut();
        if last.ln_exponents != ln_exponents {
            last.ln_exponents = ln_exponents.to_vec();
            // Beyond these bounds a step is far too long and powers overflow.
            if !are_within(ln_exponents) {
                last.solution.scaled_objective = f64::INFINITY;
                last.gradient = vec![0.0; ln_exponents.len()];
                return (f64::INFINITY, last.gradient.clone());
            }
            let exponents: Vec<f64> = ln_exponents.iter().map(|ln| ln.exp()).collect();
            self.problem.basis(&exponents, &mut last.basis);
            let basis = &last.basis;
            let mut coefficients = last.solution.coefficients.clone();
            let n = coefficients.len();
            let objective = descend(&mut coefficients, n, 1e-8, |at, normal| {
                self.problem.linear_part(basis, &exponents, at, normal)
            });
            let mut all = coefficients.clone();
            all.extend_from_slice(ln_exponents);
            let mut normal = Normal::new();
            self.problem.whole(&all, Some(&mut normal));
            last.gradient = normal.gradient[n..all.len()].to_vec();
            last.solution = Solution { coefficients, exponents, scaled_objective: objective };
            if objective < last.best.scaled_objective {
                last.best = last.solution.clone();
            }
        }
        (last.solution.scaled_objective, last.gradient.clone())
    }
}

/// L-BFGS from a point, until it converges or no step helps any more, which argmin reports as an
/// error; the function itself keeps the best point.
fn lbfgs(
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    start: Vec<f64>,
    max_steps: u64,
    tolerance: f64,
) {
    let (value, gradient) = function(&start);
    let slope = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = (1.0 / value).min(FIRST_STEP / slope);
    let scale = if scale.is_normal() { scale } else { 1.0 };
    let left = Cell::new(EVALUATIONS_PER_STEP * max_steps);
    let scaled = Scaled { function, scale, left };
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY)
        .with_tolerance_grad(tolerance)
        .and_then(|solver| solver.with_tolerance_cost(tolerance));
    if let Ok(solver) = solver {
        let executor = Executor::new(scaled, solver);
        let _ =
            executor.configure(|state| state.param(start).max_iters(max_steps)).timer(false).run();
    }
}

/// A function for argmin, scaled to 1 at the start, or so that the first step, which is the gradient
/// itself, is not too long.
struct Scaled<F> {
    function: F,
    scale: f64,
    /// Evaluations that are left: the line search has no end of its own where losses are absurd.
    left: Cell<u64>,
}

/// Evaluations that a step may take on average; most take one or two.
const EVALUATIONS_PER_STEP: u64 = 50;

/// Greatest length of the first step, in ln of the unknowns.
const FIRST_STEP: f64 = 0.1;

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> CostFunction for Scaled<F> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, at: &Vec<f64>) -> Result<f64, Error> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| Error::msg("no step helps"))?);
        Ok(self.scale * (self.function)(at).0)
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Gradient for Scaled<F> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, at: &Vec<f64>) -> Result<Vec<f64>, Error> {
        Ok((self.function)(at).1.iter().map(|slope| self.scale * slope).collect())
    }
}

/// The minimum that a start leads to.
pub(crate) fn from_start(problem: &Problem, start: &Solution) -> Solution {
    let projected = Projected::new(problem, start.clone());
    let ln_exponents = start.exponents.iter().map(|exponent| exponent.ln()).collect();
    lbfgs(|at| projected.at(at), ln_exponents, PROJECTED_STEPS, 1e-5);
    let found = projected.last.into_inner().best;
    let polished = polish(problem, &found);
    // Where nothing tells an exponent, Newton's method goes on without an end.
    let ln_exponents: Vec<f64> = polished.exponents.iter().map(|exponent| exponent.ln()).collect();
    if are_within(&ln_exponents) { polished } else { found }
}

/// The exponents of a solution, by their places, that nothing tells: with others, and the coefficients that are best for them, the law
/// goes through the points as well, or it is at the end of what is searched.
pub(crate) fn untold_exponents(problem: &Problem, found: &Solution) -> Vec<usize> {
    const ASIDE: f64 = 0.5;
    const AS_WELL: f64 = 1.01;
    let ln_exponents: Vec<f64> = found.exponents.iter().map(|exponent| exponent.ln()).collect();
    let is_as_well = |place: usize, aside: f64| {
        let mut moved = ln_exponents.clone();
        moved[place] += aside;
        let (objective, _) = Projected::new(problem, found.clone()).at(&moved);
        !are_within(&moved) || objective <= AS_WELL * found.scaled_objective
    };
    let places = 0..found.exponents.len();
    places.filter(|place| is_as_well(*place, ASIDE) || is_as_well(*place, -ASIDE)).collect()
}

/// Newton's method over all parameters at once, from close by.
pub(crate) fn polish(problem: &Problem, from: &Solution) -> Solution {
    let n_terms = from.coefficients.len();
    let mut at = from.coefficients.clone();
    at.extend(from.exponents.iter().map(|exponent| exponent.ln()));
    let scaled_objective = descend(&mut at, n_terms, 1e-14, |at, normal| problem.whole(at, normal));
    let (coefficients, ln_exponents) = at.split_at(n_terms);
    Solution {
        coefficients: coefficients.to_vec(),
        exponents: ln_exponents.iter().map(|ln| ln.exp()).collect(),
        scaled_objective,
    }
}

/// Variable projection from every start of the form's grid, in parallel.
pub(crate) fn search(problem: &Problem) -> Option<Search> {
    let solve = |exponents: Vec<f64>| {
        let coefficients = even_coefficients(problem, &exponents);
        let scaled_objective = f64::INFINITY;
        from_start(problem, &Solution { coefficients, exponents, scaled_objective })
    };
    Search::of(problem.form.starts().into_par_iter().map(solve).collect())
}

/// The objective over ln of all parameters, and its gradient.
fn plain_objective(problem: &Problem, at: &[f64]) -> (f64, Vec<f64>) {
    let n_terms = problem.form.terms().len();
    let mut unknowns = at.to_vec();
    unknowns[..n_terms].iter_mut().for_each(|unknown| *unknown = unknown.exp());
    let mut normal = Normal::new();
    let objective = problem.whole(&unknowns, Some(&mut normal));
    let by_ln = |i: usize| if i < n_terms { unknowns[i] } else { 1.0 };
    (objective, (0..at.len()).map(|i| normal.gradient[i] * by_ln(i)).collect())
}

/// L-BFGS over ln of all parameters from every start of the grid: what Hoffmann et al. 2022 do.
/// Where a line search fails, it begins anew from the best point, as long as that helps.
pub(crate) fn plain_search(problem: &Problem) -> Option<Search> {
    let solve = |exponents: Vec<f64>| {
        let mut start: Vec<f64> =
            even_coefficients(problem, &exponents).iter().map(|c| c.ln()).collect();
        start.extend(exponents.iter().map(|exponent| exponent.ln()));
        let best = RefCell::new((f64::INFINITY, start));
        let function = |at: &[f64]| {
            let (objective, gradient) = plain_objective(problem, at);
            if objective < best.borrow().0 && are_within(&at[problem.form.terms().len()..]) {
                *best.borrow_mut() = (objective, at.to_vec());
            }
            (objective, gradient)
        };
        for _ in 0..PLAIN_RESTARTS {
            let (before, from) = best.borrow().clone();
            lbfgs(function, from, PLAIN_STEPS, 1e-14);
            if best.borrow().0 > before * (1.0 - 1e-9) {
                break;
            }
        }
        let (scaled_objective, found) = best.into_inner();
        let n_terms = problem.form.terms().len();
        Solution {
            coefficients: found[..n_terms].iter().map(|ln| ln.exp()).collect(),
            exponents: found[n_terms..].iter().map(|ln| ln.exp()).collect(),
            scaled_objective,
        }
    };
    Search::of(problem.form.starts().into_par_iter().map(solve).collect())
}

const _: () = assert!(MOST_TERMS + 2 <= MOST);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LawForm;
    use proptest::prelude::*;

    /// The forms that are fitted as one.
    fn single() -> Vec<LawForm> {
        LawForm::ALL.into_iter().filter(|form| form.parts().len() == 1).collect()
    }

    fn problem(form: LawForm) -> Problem {
        let x: Vec<[f64; 2]> = (0..30)
            .map(|i| [13.0 + f64::from(i % 6), 18.0 + 0.7 * f64::from(i / 6) + 0.01 * f64::from(i)])
            .collect();
        let y: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(i, x)| 4.0 - 0.05 * x[0] - 0.08 * x[1] + 0.0004 * ((7 * i % 11) as f64 - 5.0))
            .collect();
        Problem::new(form, &x, &y)
    }

    proptest! {
        /// Every derivative against differences of the objective.
        #[test]
        fn gradients_equal_finite_differences(
            form in 0usize..8, c in proptest::array::uniform3(0.2f64..2.0),
            ln_e in proptest::array::uniform2(-2.5f64..0.0),
        ) {
            let problem = problem(single()[form]);
            let n_terms = problem.form.terms().len();
            let mut at = c[..n_terms].to_vec();
            at.extend(&ln_e[..problem.form.n_exponents()]);
            let mut normal = Normal::new();
            let value = problem.whole(&at, Some(&mut normal));
            prop_assert_eq!(value, problem.whole(&at, None));
            for i in 0..at.len() {
                let h = 1e-6;
                let moved = |by: f64| {
                    let mut at = at.clone();
                    at[i] += by;
                    problem.whole(&at, None)
                };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                let size = normal.gradient[i].abs().max(1e-3 * value);
                prop_assert!((normal.gradient[i] - slope).abs() < 1e-4 * size,
                    "{}: {} for {slope}", i, normal.gradient[i]);
            }
        }

        /// No small change of a coefficient lowers the objective, so that the slope in the exponents
        /// is the projected one.
        #[test]
        fn coefficients_are_the_best_for_their_exponents(
            form in 0usize..8, ln_e in proptest::array::uniform2(-2.5f64..-0.3),
        ) {
            let problem = problem(single()[form]);
            let exponents: Vec<f64> =
                ln_e[..problem.form.n_exponents()].iter().map(|ln| ln.exp()).collect();
            let start = Solution {
                coefficients: even_coefficients(&problem, &exponents),
                exponents,
                scaled_objective: f64::INFINITY,
            };
            let projected = Projected::new(&problem, start);
            let (value, _) = projected.at(&ln_e[..problem.form.n_exponents()]);
            let last = projected.last.into_inner();
            let mut normal = Normal::new();
            let found = last.best;
            problem.linear_part(&last.basis, &found.exponents, &found.coefficients, Some(&mut normal));
            for (coefficient, slope) in found.coefficients.iter().zip(normal.gradient) {
                prop_assert!((coefficient * slope).abs() < 1e-2 * value, "{slope} at {coefficient}");
                prop_assert!(*coefficient > 0.0 || slope >= 0.0, "{slope} at the bound");
            }
        }
    }

    /// A step that bounds cut can be predicted to rise, and does; a bad step can gain next to nothing.
    /// Neither may end the descent.
    #[test]
    fn a_bad_step_does_not_end_the_descent() {
        for (form, exponents) in
            [(LawForm::Tokens, [0.622_633, 0.234_739]), (LawForm::Steps, [0.419_332, 0.521_985])]
        {
            let problem = problem(form);
            let exponents = exponents[..problem.form.n_exponents()].to_vec();
            let mut basis = Vec::new();
            problem.basis(&exponents, &mut basis);
            let mut at = even_coefficients(&problem, &exponents);
            let n = at.len();
            let objective = |at: &[f64], normal: Option<&mut Normal>| {
                problem.linear_part(&basis, &exponents, at, normal)
            };
            let found = descend(&mut at, n, 1e-8, objective);
            let again = descend(&mut at, n, 1e-8, objective);
            assert!(again > found * (1.0 - 1e-8), "{found}, then {again}");
        }
    }

    #[test]
    fn both_searches_find_the_same_minimum() {
        for form in single() {
            let problem = problem(form);
            let (projected, plain) = (search(&problem).unwrap(), plain_search(&problem).unwrap());
            let (a, b) = (projected.best.objective(), plain.best.objective());
            assert!(a <= b * (1.0 + 1e-9), "{form}: {a} and {b}");
            // The plain search stops in the long valley of Kaplan's form.
            let within = if form == LawForm::KaplanTokens { 1e-3 } else { 1e-6 };
            assert!(b <= a * (1.0 + within), "{form}: {a} and {b}");
        }
    }
}
