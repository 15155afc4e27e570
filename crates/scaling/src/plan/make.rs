//! The best plan for a request.

use super::as_run::{break_even_pace, predicted_curve, saving_as_run, saving_at_pace};
use super::baseline::baselines;
use super::goal::{Goal, Stop};
use super::last_shape::best_final_shape;
use super::search::{Chains, End, Path, best_paths, evaluate, untrained_loss};
use super::shapes::least_size;
use super::{
    Advice, CheaperAlone, FinalShape, Operators, Plan, PlanError, Request, Stage, Unstaged,
};
use crate::cost::{GrownAt, positive};
use crate::fit::interval;
use crate::growth::least;
use crate::{GrowthPoint, ScalingError, StageStart, TrainingCost};
use measure::{GptShape, MOST_STEPS};
use std::collections::BTreeMap;

/// A saving below this is not worth a growth.
pub const LEAST_SAVING: f64 = 0.01;

impl Plan {
    /// The best plan for a request. `batch_tokens` gives the batch for the last N and its final loss.
    ///
    /// # Errors
    /// A goal that no shape meets, or no chain with as many stages as are asked for.
    pub fn new(
        request: &Request,
        batch_tokens: impl Fn(f64, f64) -> f64,
    ) -> Result<Self, PlanError> {
        let (fewest, most) = (*request.stages.start(), *request.stages.end());
        if fewest == 0 || fewest > most {
            return Err(PlanError::Stages(fewest, most));
        }
        match request.goal {
            Goal::Budget(budget) => positive("budget", budget)?,
            Goal::Loss(loss) | Goal::Stop(Stop::Loss(loss)) => positive("loss", loss)?,
            Goal::Stop(Stop::AsymptoteMultiple(stop) | Stop::TokensPerParam(stop)) => {
                positive("stop", stop)?;
            }
            Goal::Stop(Stop::ComputeOptimal) => {}
        }
        let paces = request.cost.at_constant_paces();
        // At a constant pace above 1 one more growth nearly always spares something; a lead that passes is soon used up, by small models even. So each
        // number of stages is judged under the costs as they are.
        let one_by_one = paces.len() > 1 && request.through.is_empty();
        let numbers = if one_by_one {
            request.stages.clone().map(|n| n..=n).collect()
        } else {
            vec![request.stages.clone()]
        };
        let found = paces.iter().flat_map(|cost| numbers.iter().map(move |stages| (cost, stages)));
        let found = found.map(|(cost, stages)| {
            let (cost, stages) = (cost.clone(), stages.clone());
            Chosen::new(&Request { cost, stages, ..request.clone() }, &request.cost)
        });
        let best = least(found, |chosen: &Chosen| chosen.merit(request.goal))?;
        build(request, best, batch_tokens)
    }
}

/// Shapes and growth points of a plan, and what they come to.
struct Chosen {
    shapes: Vec<GptShape>,
    growths: Vec<GrowthPoint>,
    without_growth: Option<Unstaged>,
    final_loss: f64,
    /// N and tokens of each stage.
    staged: Vec<(f64, f64)>,
    /// FLOPs, or seconds where costs are in seconds.
    paid: f64,
}

impl Chosen {
    /// The best at a request's constant pace, and what they come to under the costs as they are.
    fn new(request: &Request, cost: &TrainingCost) -> Result<Self, PlanError> {
        let (last, without_growth) = match request.last {
            FinalShape::Given(shape) => (shape, None),
            FinalShape::Best(family) => {
                let (last, unstaged) = best_final_shape(request, &family)?;
                (last, Some(unstaged))
            }
        };
        let n = last.n_params() as f64;
        let loss = request.goal.final_loss(&request.cost, n, 0.0)?;
        let untrained = untrained_loss(&last);
        if loss >= untrained {
            return Err(PlanError::KnowsNothing { shape: last, loss, untrained });
        }
        let bounded;
        let request = match request.grow_by {
            None => request,
            Some(share) if !(share > 0.0 && share < 1.0) => {
                return Err(PlanError::GrowBy(share));
            }
            Some(share) => {
                let is_given = matches!(request.last, FinalShape::Given(_));
                if !is_given || matches!(request.goal, Goal::Budget(_)) {
                    return Err(PlanError::GrowByWithoutEnd);
                }
                let tokens = share * request.cost.tokens_at(n, loss)?;
                let cost = request.cost.clone().with_growths_by(n, tokens)?;
                bounded = Request { cost, ..request.clone() };
                &bounded
            }
        };
        let end = |by_growths| request.goal.staged_end(&request.cost, n, by_growths).ok();
        let path = best_path(request, &last, Chains::All, end).map_err(|error| match error {
            PlanError::NoChain { wanted, shape, operators, .. } => {
                // Where more stages than two are asked for, the reason is another.
                let from_scratch = request.cost.compute_at(n, loss).ok().filter(|_| wanted == 2);
                let alone = from_scratch.and_then(|paid| cheaper_alone(request, &last, loss, paid));
                let reason = alone.map(|alone| alone.unless_bounded(&last));
                let reason = reason.or_else(|| all_know_nothing(request, &last));
                PlanError::NoChain { wanted, shape, operators, reason }
            }
            other => other,
        })?;
        let growths = growths(&request.cost, &path.shapes)?;
        let final_loss = final_loss(request.goal, cost, &path.shapes, &growths)?;
        let staged = staged(cost, &path.shapes, &growths, final_loss)?;
        let paid = cost.paid(&staged);
        Ok(Self { shapes: path.shapes, growths, without_growth, final_loss, staged, paid })
    }

    /// The final loss for a budget, else what is paid for a loss; less is better.
    fn merit(&self, goal: Goal) -> f64 {
        match goal {
            Goal::Budget(_) => self.final_loss,
            Goal::Loss(_) | Goal::Stop(_) => self.paid,
        }
    }
}

/// The best path to a shape among those that are asked for.
pub(super) fn best_path(
    request: &Request,
    last: &GptShape,
    chains: Chains,
    end: impl Fn(f64) -> Option<End>,
) -> Result<Path, PlanError> {
    if !request.through.is_empty() {
        let shapes = [request.through.as_slice(), &[*last]].concat();
        return evaluate(&request.cost, shapes.clone(), Operators::ALL, &end).ok_or_else(|| {
            let names: Vec<String> = shapes.iter().map(ToString::to_string).collect();
            let apart = shapes.windows(2).find(|pair| !Operators::ALL.reach(&pair[0], &pair[1]));
            let apart = apart.map(|pair| format!("{} does not grow into {}", pair[0], pair[1]));
            let known = apart
                .or_else(|| without_best_loss(&request.cost, &shapes))
                .or_else(|| knows_nothing(&request.cost, &shapes));
            let reason = known.unwrap_or_else(|| {
                let text = if request.grow_by.is_some() {
                    "growths that must come by that share of the tokens leave a stage nothing to do"
                } else {
                    "a stage would end at no lower loss than the one before it, or at no higher one than the last"
                };
                text.to_string()
            });
            PlanError::NoSuchChain { chain: names.join(", "), reason }
        });
    }
    let (least, most) = (*request.stages.start(), *request.stages.end());
    let paths = best_paths(&request.cost, last, request.operators, most - 1, chains, end);
    let in_range = paths.into_iter().skip(least - 1).flatten();
    in_range.max_by(|a, b| a.spared.total_cmp(&b.spared)).ok_or(PlanError::NoChain {
        wanted: least,
        shape: *last,
        operators: request.operators,
        reason: None,
    })
}

/// Which of given shapes has no best loss at which to grow into the next one, since one of the two is the cheaper one at every loss.
fn without_best_loss(cost: &TrainingCost, shapes: &[GptShape]) -> Option<String> {
    let sizes: Vec<f64> = shapes.iter().map(|shape| shape.n_params() as f64).collect();
    let without = |(k, pair): (usize, &[f64])| {
        let found = cost.growth_point(StageStart::of(k), pair[0], pair[1]);
        matches!(found, Err(ScalingError::NoSolution(_))).then_some(k)
    };
    let k = sizes.windows(2).enumerate().find_map(without)?;
    Some(format!(
        "there is no best loss at which {} grows into {}, {:.2} times as large: under the law and at a pace of {} one of the two is the \
         cheaper one at every loss",
        shapes[k],
        shapes[k + 1],
        sizes[k + 1] / sizes[k],
        cost.pace(StageStart::Growth)
    ))
}

/// Which of given shapes would grow where a model knows less than nothing.
fn knows_nothing(cost: &TrainingCost, shapes: &[GptShape]) -> Option<String> {
    let growths = growths(cost, shapes).ok()?;
    let untrained = untrained_loss(&shapes[0]);
    let (pair, growth) =
        shapes.windows(2).zip(growths).find(|(_, growth)| growth.loss >= untrained)?;
    Some(format!(
        "{} would grow into {} at {:.3} nats per token, above the {untrained:.3} of a model that knows nothing of {} tokens",
        pair[0], pair[1], growth.loss, shapes[0].n_vocab
    ))
}

/// That every growth into a shape would come where a model knows less than nothing, if that is so.
fn all_know_nothing(request: &Request, last: &GptShape) -> Option<String> {
    let (n_last, untrained) = (last.n_params() as f64, untrained_loss(last));
    let loss = |shape: GptShape| {
        let n_params = shape.n_params() as f64;
        Some(request.cost.growth_point(StageStart::Scratch, n_params, n_last).ok()?.loss)
    };
    let losses: Vec<f64> =
        request.operators.spread_sources(last).into_iter().filter_map(loss).collect();
    let are_above = !losses.is_empty() && losses.iter().all(|loss| *loss >= untrained);
    are_above.then(|| {
        format!(
            "every growth into {last} would come above the {untrained:.3} nats of a model that knows nothing of {} tokens; end at a lower loss, \
             or grow later",
            last.n_vocab
        )
    })
}

/// The plan of what was chosen.
fn build(
    request: &Request,
    chosen: Chosen,
    batch_tokens: impl Fn(f64, f64) -> f64,
) -> Result<Plan, PlanError> {
    let cost = &request.cost;
    let Chosen { shapes, growths, without_growth, final_loss, staged, paid } = chosen;
    let last = shapes[shapes.len() - 1];
    let n_last = last.n_params() as f64;
    let batch_tokens = batch_tokens(n_last, final_loss);
    let stages = stages(cost, &shapes, &growths, &staged, final_loss)?;
    let grows = stages.len() > 1;
    let steps: f64 = stages.iter().map(|stage| stage.tokens / batch_tokens).sum();
    if steps.is_nan() || steps > MOST_STEPS as f64 {
        return Err(PlanError::TooLong { steps });
    }
    let from_scratch = cost.compute_at(n_last, final_loss)?;
    let saving = 1.0 - paid / from_scratch;
    let savings = request.resampled.iter().map(|law| (law, saving_as_run(law, &staged)));
    let (laws, samples): (Vec<&TrainingCost>, Vec<f64>) = savings
        .filter_map(|(law, saving)| Some((law, saving.ok().filter(|saving| saving.is_finite())?)))
        .unzip();
    let laws_left_out = request.resampled.len() - laws.len();
    let saving_interval = (samples.len() > 1 && grows).then(|| {
        let (low, high) = interval(samples);
        [low, high]
    });
    let curve = predicted_curve(cost, &laws, &staged)?;
    let (best_size, cheapest) = cost.cheapest_at(least_size(&shapes), n_last, final_loss)?;
    let saving_at_best_size = 1.0 - paid / cheapest;
    let cheaper_alone = cheaper_alone(request, &last, final_loss, paid);
    let beaten_by = without_growth.as_ref().and_then(|alone| match request.goal {
        Goal::Budget(_) => (alone.loss <= final_loss).then(|| {
            format!("{} alone ends at a loss of {:.4} for the same budget", alone.shape, alone.loss)
        }),
        Goal::Loss(_) | Goal::Stop(_) => (alone.cost <= paid)
            .then(|| format!("{} alone reaches that loss for less", alone.shape)),
    });
    // Where the shape is free, any size is.
    let is_free = without_growth.is_some();
    let beaten_by = beaten_by.or_else(|| {
        (is_free && saving_at_best_size <= 0.0)
            .then(|| format!("a single size of N = {best_size:.3e} reaches that loss for less"))
    });
    Ok(Plan {
        saving_at_best_size,
        best_size,
        compute: stages.iter().map(|stage| stage.compute).sum(),
        seconds: cost.is_in_seconds().then(|| stages.iter().filter_map(|one| one.seconds).sum()),
        compute_from_scratch: 6.0 * n_last * cost.tokens_at(n_last, final_loss)?,
        pace: cost.pace(StageStart::Growth),
        pace_over: cost.grown_pace().passes_after(),
        break_even_pace: grows.then(|| break_even_pace(cost, &staged)).flatten(),
        saving_at_pace_one: grows.then(|| saving_at_pace(cost, &staged, 1.0).ok()).flatten(),
        final_loss,
        asymptote_multiple: final_loss / cost.asymptote(n_last),
        saving,
        saving_interval,
        laws_left_out,
        batch_tokens,
        advice: match stages.len() {
            1 => without_stages(request, cheaper_alone.as_ref(), &last),
            _ => advice(saving, saving_interval, beaten_by),
        },
        stages,
        without_growth,
        cheaper_alone,
        baselines: baselines(cost, &shapes, final_loss),
        curve,
    })
}

/// Why a plan has one stage; no reason where nothing else was asked for.
fn without_stages(request: &Request, alone: Option<&CheaperAlone>, last: &GptShape) -> Advice {
    if *request.stages.end() == 1 && request.through.is_empty() {
        return Advice { grow: false, reason: None };
    }
    let reason = alone
        .map(|alone| alone.unless_bounded(last))
        .or_else(|| all_know_nothing(request, last))
        .unwrap_or_else(|| "no growth spares compute here".to_string());
    Advice { grow: false, reason: Some(reason) }
}

/// The smaller shape that alone takes least to the final loss, where that is less than `paid` and each growth from it would come still
/// better later, so that there is no best one before the end (another may have one in a number of stages that was not asked for). None where growths must come early or through given shapes, or another shape may be
/// the last.
fn cheaper_alone(request: &Request, last: &GptShape, loss: f64, paid: f64) -> Option<CheaperAlone> {
    let is_asked = request.grow_by.is_some() || !request.through.is_empty();
    if is_asked || !matches!(request.last, FinalShape::Given(_)) {
        return None;
    }
    // One shape stands for all of its N.
    let mut smaller: BTreeMap<u64, GptShape> = BTreeMap::new();
    request.operators.each_source(last, |shape| {
        smaller.entry(shape.n_params()).or_insert(shape);
    });
    let costs = smaller.into_iter().filter_map(|(n_params, shape)| {
        let cost = request.cost.compute_at(n_params as f64, loss).ok()?;
        (cost < paid).then_some((shape, cost))
    });
    let mut costs: Vec<(GptShape, f64)> = costs.collect();
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let n_last = last.n_params() as f64;
    let has_best = |(shape, _): &&(GptShape, f64)| {
        let n_params = shape.n_params() as f64;
        let point = request.cost.growth_point(StageStart::Scratch, n_params, n_last);
        point.is_ok_and(|point| point.loss > loss)
    };
    let (shape, cost) = costs.iter().find(|one| !has_best(one))?;
    let has_end = !matches!(request.goal, Goal::Budget(_));
    Some(CheaperAlone { shape: *shape, less: 1.0 - cost / paid, has_end })
}

/// Whether to grow. `beaten_by` names a single size that meets the goal as well without growth.
fn advice(saving: f64, interval: Option<[f64; 2]>, beaten_by: Option<String>) -> Advice {
    let reason = if beaten_by.is_some() {
        beaten_by
    } else if saving < 0.0 {
        Some(format!("it costs {:.2} % more than from scratch", -100.0 * saving))
    } else if let Some([low, high]) = interval.filter(|[low, _]| *low <= 0.0) {
        let lies = if high < 0.0 { "lies below" } else { "includes" };
        Some(format!(
            "the saving's 95 % interval, {:.1} to {:.1} %, {lies} zero",
            100.0 * low,
            100.0 * high
        ))
    } else if saving < LEAST_SAVING {
        Some(format!("the saving, {:.2} %, is below {:.0} %", 100.0 * saving, 100.0 * LEAST_SAVING))
    } else {
        None
    };
    Advice { grow: reason.is_none(), reason }
}

/// Growth points along shapes.
fn growths(cost: &TrainingCost, shapes: &[GptShape]) -> Result<Vec<GrowthPoint>, ScalingError> {
    let growth = |(k, pair): (usize, &[GptShape])| {
        cost.growth_point(StageStart::of(k), pair[0].n_params() as f64, pair[1].n_params() as f64)
    };
    shapes.windows(2).enumerate().map(growth).collect()
}

/// N and tokens of stages of these shapes that grow so and end at a loss.
fn staged(
    cost: &TrainingCost,
    shapes: &[GptShape],
    growths: &[GrowthPoint],
    loss: f64,
) -> Result<Vec<(f64, f64)>, ScalingError> {
    let sizes: Vec<f64> = shapes.iter().map(|shape| shape.n_params() as f64).collect();
    let losses: Vec<f64> = growths.iter().map(|growth| growth.loss).collect();
    cost.staged(&sizes, &losses, loss)
}

/// The final loss under a goal: for a budget, after what its earlier stages leave of it.
fn final_loss(
    goal: Goal,
    cost: &TrainingCost,
    shapes: &[GptShape],
    growths: &[GrowthPoint],
) -> Result<f64, ScalingError> {
    let n_last = shapes[shapes.len() - 1].n_params() as f64;
    let (Goal::Budget(budget), Some((last, earlier))) = (goal, growths.split_last()) else {
        return goal.final_loss(cost, n_last, 0.0);
    };
    let before = staged(cost, &shapes[..growths.len()], earlier, last.loss)?;
    let left = budget - cost.paid(&before);
    if left <= 0.0 {
        return Err(ScalingError::NoSolution("a last stage within the budget"));
    }
    let since_growth = before.iter().skip(1).map(|stage| stage.1).sum();
    let grown = GrownAt { loss: last.loss, tokens: since_growth };
    cost.loss_after(n_last, Some(grown), left / cost.per_token(n_last))
}

fn stages(
    cost: &TrainingCost,
    shapes: &[GptShape],
    growths: &[GrowthPoint],
    staged: &[(f64, f64)],
    final_loss: f64,
) -> Result<Vec<Stage>, ScalingError> {
    let mut loss_start = None;
    let mut found = Vec::new();
    for (k, (shape, &(n, tokens))) in shapes.iter().zip(staged).enumerate() {
        let growth = growths.get(k);
        let loss_end = growth.map_or(final_loss, |growth| growth.loss);
        let before = loss_start.map_or(Ok(0.0), |loss| cost.tokens_at(n, loss))?;
        found.push(Stage {
            shape: *shape,
            n_params: n,
            tokens,
            compute: 6.0 * n * tokens,
            compute_exact: shape.flops_per_token_exact().0 * tokens,
            seconds: cost.is_in_seconds().then(|| tokens * cost.per_token(n)),
            loss_start,
            loss_end,
            growth_slope: cost.loss_slope(n, loss_end)?,
            step_ratio: growth.map(|growth| growth.step_ratio),
            tokens_before: before,
        });
        loss_start = Some(loss_end);
    }
    Ok(found)
}
