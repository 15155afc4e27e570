use super::FitError;
use super::bootstrap::{ENOUGH_RUNS, bootstrap, interval, quantile};
use super::form::{LawForm, Quantity, joined};
use super::observations::{Observation, Points, same};
use super::problem::{Problem, Solution, objective};
use super::search::{Search, plain_search, search, untold_exponents};
use crate::{FittedLaw, GrownRun, TrainingCost};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Resamples whose parameters are kept in the law, for the intervals of what is planned with it.
const KEPT_DRAWS: usize = 400;

/// Root of the mean square of the residuals from which on the form is not the points'.
const POOR_FIT: f64 = 0.03;

/// What is asked of a fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// The form of the law.
    pub form: LawForm,
    /// Resamples for the intervals; none without.
    pub n_bootstraps: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

/// A parameter with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The best value.
    pub value: f64,
    /// 2.5 % of the resamples are below it.
    pub low: Option<f64>,
    /// 97.5 % of the resamples are below it.
    pub high: Option<f64>,
    /// Standard deviation over the resamples.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// A value with what resamples make of it; of fewer than two it has no interval.
    pub(super) fn of(value: f64, sample: Vec<f64>) -> Self {
        let n = sample.len() as f64;
        if n < 2.0 {
            return Self { value, low: None, high: None, standard_error: None };
        }
        let mean = sample.iter().sum::<f64>() / n;
        let deviation = (sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let (low, high) = interval(sample);
        let standard_error = deviation.is_finite().then_some(deviation);
        Self { value, low: Some(low), high: Some(high), standard_error }
    }
}

/// The least and the greatest value of a quantity in the data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// What it is.
    pub quantity: Quantity,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
}

/// The plain search over all parameters, as a check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossCheck {
    /// The lowest objective that it found; `None` where it ran to parameters that no numbers hold.
    pub objective: Option<f64>,
    /// Its starts.
    pub starts: usize,
    /// Those that ended there.
    pub starts_agreeing: usize,
}

/// Residuals ln L_pred - ln L.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Residuals {
    /// Quantiles at 2.5, 25, 50, 75 and 97.5 %.
    pub quantiles: [f64; 5],
    /// Root of the mean square.
    pub root_mean_square: f64,
}

/// The largest size predicted from all smaller ones, at the last point of each of its runs. Where the smaller ones are two, which do
/// not tell the exponent of N in [`LawForm::Tokens`], that of [`LawForm::FixedTokens`] stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The form that predicted it, where that is another than the law's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<LawForm>,
    /// N of the largest size.
    pub n_params: f64,
    /// Its runs.
    pub runs: usize,
    /// L_pred / L - 1, averaged over the runs.
    pub mean_error: f64,
    /// |L_pred / L - 1|, averaged over the runs.
    pub mean_absolute_error: f64,
    /// The largest |L_pred / L - 1|.
    pub largest_error: f64,
}

/// What the losses of a law depend on beside N and tokens: a plan for other runs is not one by this law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FittedRecipe {
    /// Tokens in the vocabulary, where a checkpoint tells it.
    pub n_vocab: Option<usize>,
    /// Positions in a sequence.
    pub context_len: usize,
    /// Whether the losses are those of ends of runs whose learning rate decays, or of runs and parts of runs at a constant one; `None`
    /// where they are neither.
    pub of_ends: Option<bool>,
}

/// A fitted law and how far it can be trusted: the content of `law.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The form.
    pub law: LawForm,
    /// The equation.
    pub equation: String,
    /// By the names of [`LawForm::parameter_names`].
    pub parameters: BTreeMap<String, Estimate>,
    /// Sum of Huber's loss (delta 1e-3) of ln L_pred - ln L.
    pub objective: f64,
    /// Starts of the search.
    pub starts: usize,
    /// Starts that ended at the objective.
    pub starts_agreeing: usize,
    /// The highest finite objective that a start ended at; of the worse part, where a form is the mean of two.
    pub worst_objective: f64,
    /// The plain search beside it.
    pub cross_check: CrossCheck,
    /// Points of the fit.
    pub points: usize,
    /// Runs that they belong to.
    pub runs: usize,
    /// Ranges of the data.
    pub ranges: Vec<Range>,
    /// Residuals.
    pub residuals: Residuals,
    /// Where there are enough sizes.
    pub left_out: Option<LeftOut>,
    /// Batch of the runs in tokens, where they share one: that of what is planned, and of a law in steps.
    #[serde(default)]
    pub batch_tokens: Option<f64>,
    /// 6 N D of all the runs, FLOPs, where they are runs of our own: what the law cost.
    #[serde(default)]
    pub compute: Option<f64>,
    /// What those runs were, where they are runs of our own and agree in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<FittedRecipe>,
    /// A run that grew once, beside those from scratch: it tells the pace after a growth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown: Option<GrownRun>,
    /// Resamples that were fitted.
    pub bootstraps: usize,
    /// Their seed.
    pub seed: u64,
    /// Parameters of the first resamples, in the order of their names.
    pub draws: Vec<Vec<f64>>,
    /// What to be careful about.
    pub warnings: Vec<String>,
}

impl Fit {
    /// Fits a law to observations.
    ///
    /// # Errors
    /// Observations that the form cannot be fitted to.
    pub fn new(observations: &[Observation], options: FitOptions) -> Result<Self, FitError> {
        let form = options.form;
        let points = Points::new(form, observations)?;
        let parts = form.parts().into_iter().map(|part| Part::new(part, &points, options));
        let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
        let values_of = |of: fn(&Part) -> &Solution| {
            let values: Vec<_> =
                parts.iter().map(|part| part.problem.published(of(part))).collect();
            joined(&values, EVEN_WEIGHT)
        };
        let values = values_of(Part::best);
        let draws = joined_draws(&parts, options.seed);
        let n_draws = draws.len();
        let draws: Vec<Vec<f64>> =
            draws.into_iter().flatten().filter(|values| form.fault(values).is_none()).collect();
        let residuals = points.residuals(&form.law(&values));
        let sum = |of: fn(&Part) -> usize| parts.iter().map(of).sum();
        let mut fit = Self {
            law: form,
            equation: form.equation().to_string(),
            parameters: estimates(form, &values, &draws),
            objective: objective(&residuals),
            starts: sum(|part| part.found.n_starts),
            starts_agreeing: sum(|part| part.found.n_agreeing),
            worst_objective: parts.iter().map(|part| part.found.worst).fold(0.0, f64::max),
            cross_check: CrossCheck {
                objective: Some(objective(
                    &points.residuals(&form.law(&values_of(|part| &part.plain.best))),
                ))
                .filter(|found| found.is_finite()),
                starts: sum(|part| part.plain.n_starts),
                starts_agreeing: sum(|part| part.plain.n_agreeing),
            },
            points: points.ln_losses.len(),
            runs: points.n_runs,
            ranges: ranges(form, &points),
            residuals: residual_quantiles(&residuals),
            left_out: leave_largest_out(form, &points),
            batch_tokens: None,
            compute: None,
            recipe: None,
            grown: None,
            bootstraps: draws.len(),
            seed: options.seed,
            draws: Vec::new(),
            warnings: parts.iter().flat_map(Part::warnings).collect(),
        };
        for part in &parts {
            let untold = untold_exponents(&part.problem, part.best()).into_iter();
            let names = untold.flat_map(|place| part.problem.form.of_exponent(place));
            fit.leave_undetermined(names.copied().collect());
        }
        fit.warnings.extend(fit.warn(&points, &residuals));
        if draws.len() < n_draws {
            fit.warnings.push(format!(
                "{} of {n_draws} resamples have no law and are left out: the data hardly fix one",
                n_draws - draws.len()
            ));
        }
        fit.draws = draws.into_iter().take(KEPT_DRAWS).collect();
        Ok(fit)
    }

    /// Takes the intervals from parameters that nothing tells: resamples stay where the search began.
    fn leave_undetermined(&mut self, names: BTreeSet<&'static str>) {
        // A summand that is 0 is warned of by itself.
        if names.iter().any(|name| self.parameters[*name].value == 0.0) {
            return;
        }
        for name in names {
            let Some(one) = self.parameters.get_mut(name) else { continue };
            *one = Estimate::of(one.value, Vec::new());
            let value = if name.starts_with(['a', 'b']) {
                format!("{:.4}", one.value)
            } else {
                format!("{:.3e}", one.value)
            };
            self.warnings.push(format!(
                "poorly determined: {name} is {value}, and the law goes through the points as well with others"
            ));
        }
    }

    /// The best values, in the order of their names.
    pub fn values(&self) -> Vec<f64> {
        let names = self.law.parameter_names().iter();
        names.map(|name| self.parameters.get(*name).map_or(f64::NAN, |one| one.value)).collect()
    }

    /// The law with the best values.
    pub fn fitted(&self) -> FittedLaw {
        self.law.law(&self.values())
    }

    /// What training costs under it, where it is a law in N and D.
    pub fn cost(&self) -> Option<TrainingCost> {
        match self.fitted() {
            FittedLaw::Tokens(law) => Some(TrainingCost::tokens(law)),
            FittedLaw::Steps(_) | FittedLaw::Power(_) => None,
        }
    }

    /// The laws of the kept resamples.
    pub fn resampled(&self) -> impl Iterator<Item = FittedLaw> + '_ {
        self.draws.iter().map(|values| self.law.law(values))
    }

    /// How far beyond the data a value of a quantity is, as a factor; 1 within.
    pub fn extrapolation(&self, quantity: Quantity, value: f64) -> f64 {
        let range = self.ranges.iter().find(|range| range.quantity == quantity);
        range.map_or(1.0, |range| (value / range.greatest).max(range.least / value).max(1.0))
    }

    /// Share of the loss at some quantities by which it falls where one of them, by its place, becomes another.
    pub fn fall(&self, from: &[f64], place: usize, to: f64) -> f64 {
        let law = self.fitted();
        let mut there = from.to_vec();
        there[place] = to;
        1.0 - law.loss_at(&there) / law.loss_at(from)
    }

    /// A quantity that the law says brings nothing more beyond the data, at the greatest values of the others.
    fn flat_beyond(&self) -> Option<String> {
        const BEYOND: f64 = 10.0;
        const LEAST_FALL: f64 = 1e-3;
        let greatest: Vec<f64> = self.ranges.iter().map(|range| range.greatest).collect();
        let is_flat = |i: &usize| self.fall(&greatest, *i, BEYOND * greatest[*i]) < LEAST_FALL;
        let range = &self.ranges[(0..greatest.len()).find(is_flat)?];
        Some(format!(
            "{} beyond {:.3e} hardly lowers the loss under this law: asymptotes and best sizes from it mean little",
            range.quantity, range.greatest
        ))
    }

    fn warn(&self, points: &Points, residuals: &[f64]) -> Vec<String> {
        let mut warnings = Vec::new();
        for range in &self.ranges {
            let factor = range.greatest / range.least;
            if factor < 4.0 {
                warnings.push(format!(
                    "{} spans a factor of {factor:.2} only: what lies beyond is extrapolated",
                    range.quantity
                ));
            }
        }
        warnings.extend(self.flat_beyond());
        for (name, one) in &self.parameters {
            if one.value == 0.0 {
                warnings.push(format!("{name} is at its bound 0: a value below would fit better"));
            }
            let scale = scale_of(self.law, name).map(|place| self.law.parameter_names()[place]);
            if let Some(scale) = scale.filter(|scale| self.parameters[*scale].value == 0.0) {
                warnings.push(format!("nothing tells {name}: {scale} is 0"));
            }
            let (Some(low), Some(high)) = (one.low, one.high) else { continue };
            // Scales and factors stretch over decades where their exponents are known well.
            if name.starts_with(['a', 'b', 'E']) && high - low > one.value.abs() {
                warnings.push(format!(
                    "poorly determined: {name} is {:.4}, 95 % interval {low:.4} to {high:.4}",
                    one.value
                ));
            }
        }
        if self.bootstraps > 0 && points.n_runs < ENOUGH_RUNS {
            warnings.push(format!("intervals from {} runs are rough", points.n_runs));
        }
        let n_parameters = self.law.least_points();
        if self.bootstraps > 0 && residuals.len() < 3 * n_parameters {
            warnings.push(format!(
                "intervals from {} points for {n_parameters} parameters are rough and too narrow",
                residuals.len()
            ));
        }
        if self.residuals.root_mean_square > POOR_FIT {
            warnings.push(format!(
                "the points lie {:.1} % off the law (r.m.s.): the form does not describe them",
                100.0 * self.residuals.root_mean_square
            ));
        }
        warnings.extend(warm_up_warning(points, residuals));
        if let Some(left_out) = self.left_out.filter(|one| one.largest_error > 0.03) {
            warnings.push(format!(
                "the largest size is predicted with an error of {:.1} % from the smaller ones",
                100.0 * left_out.largest_error
            ));
        }
        warnings
    }
}

/// A form that is fitted as one.
struct Part {
    problem: Problem,
    found: Search,
    /// The plain search beside it.
    plain: Search,
    draws: Vec<Option<Vec<f64>>>,
}

impl Part {
    fn new(form: LawForm, points: &Points, options: FitOptions) -> Result<Self, FitError> {
        let problem = Problem::new(form, &points.ln_quantities, &points.ln_losses);
        let found = search(&problem).ok_or(FitError::NoFit(form))?;
        let plain = plain_search(&problem).ok_or(FitError::NoFit(form))?;
        let mut part = Self { problem, found, plain, draws: Vec::new() };
        if part.problem.law(part.best()).is_none() {
            return Err(FitError::NotFinite(form));
        }
        part.draws =
            bootstrap(&part.problem, points, part.best(), options.n_bootstraps, options.seed);
        Ok(part)
    }

    fn best(&self) -> &Solution {
        if self.plain_is_lower() { &self.plain.best } else { &self.found.best }
    }

    /// Whether the plain search found a lower minimum, beyond rounding.
    fn plain_is_lower(&self) -> bool {
        self.plain.best.objective() < self.found.best.objective() * (1.0 - 1e-6) - 1e-15
    }

    fn warnings(&self) -> Vec<String> {
        let (found, plain, form) = (&self.found, &self.plain, self.problem.form);
        let mut warnings = Vec::new();
        if 2 * found.n_agreeing < found.n_starts {
            warnings.push(format!(
                "only {} of {} starts of {form} agree: the objective has several minima",
                found.n_agreeing, found.n_starts
            ));
        }
        if self.plain_is_lower() {
            warnings.push(format!(
                "plain L-BFGS on {form} found a lower objective, {:.6e} instead of {:.6e}: its parameters are used",
                plain.best.objective(),
                found.best.objective()
            ));
        }
        warnings
    }
}

/// The weight of a form's first part where nothing tells it.
const EVEN_WEIGHT: f64 = 0.5;

/// The parameters of each resample, those of all parts from the same one.
fn joined_draws(parts: &[Part], seed: u64) -> Vec<Option<Vec<f64>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // The resamples themselves have the streams from 0.
    rng.set_stream(u64::MAX);
    (0..parts[0].draws.len())
        .map(|draw| {
            let weight = rng.random_range(0.0..1.0);
            let of_parts: Option<Vec<_>> =
                parts.iter().map(|part| part.draws[draw].clone()).collect();
            of_parts.map(|values| joined(&values, weight))
        })
        .collect()
}

/// Points at the start of their runs that lie off the law by far more than the others.
fn warm_up_warning(points: &Points, residuals: &[f64]) -> Option<String> {
    const SHARE: usize = 20;
    const NOTICEABLE: f64 = 0.003;
    let mut of_run: Vec<Vec<usize>> = vec![Vec::new(); points.n_runs];
    for (i, run) in points.runs.iter().enumerate() {
        of_run[*run].push(i);
    }
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for run in &mut of_run {
        run.sort_by(|a, b| points.ln_quantities[*a][1].total_cmp(&points.ln_quantities[*b][1]));
        let (first, others) = run.split_at(run.len() / SHARE);
        early.extend(first.iter().map(|i| residuals[*i].abs()));
        late.extend(others.iter().map(|i| residuals[*i].abs()));
    }
    let median = |mut sample: Vec<f64>| {
        sample.sort_by(f64::total_cmp);
        quantile(&sample, 0.5)
    };
    let n = early.len();
    let (early, late) = (median(early), median(late));
    (early > 5.0 * late && early > NOTICEABLE).then(|| {
        format!(
            "warm-up in the fit: the first twentieth of the runs' points ({n}) are off by {:.1} % \
             (median), the others by {:.1} %; leave them out",
            100.0 * early,
            100.0 * late
        )
    })
}

/// Where the factor of an exponent's summand stands: where that is 0, nothing tells the exponent.
fn scale_of(form: LawForm, exponent: &str) -> Option<usize> {
    let scale = match exponent {
        "a" => "A",
        "b" => "B",
        _ => return None,
    };
    form.parameter_names().iter().position(|name| *name == scale)
}

fn estimates(form: LawForm, values: &[f64], draws: &[Vec<f64>]) -> BTreeMap<String, Estimate> {
    let names = form.parameter_names().iter().zip(values).enumerate();
    names
        .map(|(k, (name, value))| {
            // A weight is given, and its draws tell of no data.
            let draws = if *name == "w" { &[] } else { draws };
            let scale = scale_of(form, name);
            let is_told = |values: &[f64]| scale.is_none_or(|scale| values[scale] > 0.0);
            let draws = if is_told(values) { draws } else { &[] };
            let told = draws.iter().filter(|draw| is_told(draw));
            ((*name).to_string(), Estimate::of(*value, told.map(|draw| draw[k]).collect()))
        })
        .collect()
}

fn ranges(form: LawForm, points: &Points) -> Vec<Range> {
    let range = |(k, quantity): (usize, &Quantity)| {
        let values = points.ln_quantities.iter().map(|x| x[k]);
        Range {
            quantity: *quantity,
            least: values.clone().fold(f64::INFINITY, f64::min).exp(),
            greatest: values.fold(f64::NEG_INFINITY, f64::max).exp(),
        }
    };
    form.quantities().iter().enumerate().map(range).collect()
}

fn residual_quantiles(residuals: &[f64]) -> Residuals {
    let mut sorted = residuals.to_vec();
    sorted.sort_by(f64::total_cmp);
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    Residuals {
        quantiles: [0.025, 0.25, 0.5, 0.75, 0.975].map(|share| quantile(&sorted, share)),
        root_mean_square: (squares / residuals.len() as f64).sqrt(),
    }
}

fn leave_largest_out(form: LawForm, points: &Points) -> Option<LeftOut> {
    if form.quantities()[0] != Quantity::Params || form.quantities().len() < 2 {
        return None;
    }
    let largest = points.ln_quantities.iter().map(|x| x[0]).fold(f64::NEG_INFINITY, f64::max);
    let is_largest = |ln_params: f64| same(ln_params, largest);
    let smaller: Vec<usize> =
        (0..points.runs.len()).filter(|i| !is_largest(points.ln_quantities[*i][0])).collect();
    let sizes_left = points.distinct(0) - 1;
    let asked = form;
    let form = match form {
        LawForm::Tokens if sizes_left < form.least_values(0) => LawForm::FixedTokens,
        form => form,
    };
    if sizes_left < form.least_values(0) || smaller.len() < form.least_points() {
        return None;
    }
    let of = |i: &usize| (points.ln_quantities[*i], points.ln_losses[*i]);
    let (x, y): (Vec<_>, Vec<_>) = smaller.iter().map(of).unzip();
    let values = form.parts().into_iter().map(|part| {
        let problem = Problem::new(part, &x, &y);
        problem.law(&search(&problem)?.best)
    });
    let law = form.law(&joined(&values.collect::<Option<Vec<_>>>()?, EVEN_WEIGHT));
    let mut last: BTreeMap<usize, ([f64; 2], f64)> = BTreeMap::new();
    for (i, run) in points.runs.iter().enumerate() {
        let (x, y) = of(&i);
        let is_later = last.get(run).is_none_or(|(before, _)| before[1] < x[1]);
        if is_largest(x[0]) && is_later {
            last.insert(*run, (x, y));
        }
    }
    let errors: Vec<f64> = last
        .values()
        .map(|(x, y)| (law.loss_at(&[x[0].exp(), x[1].exp()]).ln() - y).exp_m1())
        .collect();
    errors.iter().all(|error| error.is_finite()).then(|| LeftOut {
        form: (form != asked).then_some(form),
        n_params: largest.exp(),
        runs: errors.len(),
        mean_error: errors.iter().sum::<f64>() / errors.len() as f64,
        mean_absolute_error: errors.iter().map(|error| error.abs()).sum::<f64>()
            / errors.len() as f64,
        largest_error: errors.iter().map(|error| error.abs()).fold(0.0, f64::max),
    })
}
