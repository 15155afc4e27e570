use super::baseline::{Baseline, baselines};
use super::goal::{Goal, Stop};
use super::search::{End, Graph, Path, best_paths, evaluate};
use super::shapes::{Family, Operators, spread};
use crate::cost::positive;
use crate::fit::interval;
use crate::{ScalingError, StageStart, TrainingCost};
use measure::GptShape;
use rayon::prelude::*;
use serde::Serialize;
use std::ops::RangeInclusive;

/// A saving below this is not worth a growth.
pub const LEAST_SAVING: f64 = 0.01;

/// Most steps of a run.
const MOST_STEPS: f64 = 1e12;

/// The best staged size over the best unstaged one, at most.
const AROUND: f64 = 8.0;

/// Points of the predicted curve in each stage.
const CURVE_POINTS: usize = 40;

/// Which shape a plan ends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FinalShape {
    /// A given one.
    Given(GptShape),
    /// The best of a family.
    Best(Family),
}

/// What is asked of a plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// What training costs.
    pub cost: TrainingCost,
    /// The same under resampled laws, for the interval.
    pub resampled: Vec<TrainingCost>,
    /// What to reach.
    pub goal: Goal,
    /// With which shape.
    pub last: FinalShape,
    /// How many stages there may be.
    pub stages: RangeInclusive<usize>,
    /// The growths that may be used.
    pub operators: Operators,
    /// The shapes before the last one, where they are given; empty where the best are looked for.
    pub through: Vec<GptShape>,
    /// The last growth comes by this share of the tokens that the last shape takes from scratch to the end: what comes in needs
    /// time to learn (docs/SAVINGS.md). Not for a budget, whose end depends on the growths.
    pub grow_by: Option<f64>,
}

/// A plan that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The law has no answer.
    #[error(transparent)]
    Law(#[from] ScalingError),
    /// A goal that no shape of the family meets.
    #[error(
        "{goal}: too small for the smallest shape, {shape} with N = {n_params:.3e}, which is predicted to \
             end at {loss:.3} nats per token, above the {untrained:.3} of a model that knows nothing"
    )]
    BudgetTooSmall {
        /// The budget, with its unit.
        goal: String,
        /// The smallest shape.
        shape: GptShape,
        /// Its N.
        n_params: f64,
        /// Its loss.
        loss: f64,
        /// ln of the vocabulary.
        untrained: f64,
    },
    /// A goal at which a model has learnt nothing.
    #[error(
        "{shape} would end at {loss:.3} nats per token, above the {untrained:.3} of a model that knows nothing: there is nothing to plan"
    )]
    KnowsNothing {
        /// The last shape.
        shape: GptShape,
        /// Its loss at the end.
        loss: f64,
        /// ln of the vocabulary.
        untrained: f64,
    },
    /// A latest growth where the end is not known beforehand.
    #[error(
        "how late a growth may come can be said where the end is given: a shape with its stop, or a loss to reach"
    )]
    GrowByWithoutEnd,
    /// A run that nobody can make.
    #[error("a run of {steps:.1e} steps: at most {MOST_STEPS:e} can be planned")]
    TooLong {
        /// Its steps.
        steps: f64,
    },
    /// No shape of the family reaches the loss.
    #[error("a loss of {loss}: the largest shape, {shape}, stays above {asymptote:.4}")]
    LossTooLow {
        /// The loss asked for.
        loss: f64,
        /// The largest shape.
        shape: GptShape,
        /// Its asymptote.
        asymptote: f64,
    },
    /// More stages than the operators allow.
    #[error(
        "{wanted} stages to {shape}: no chain of {operators} growths has so many, each with something to do"
    )]
    NoChain {
        /// Stages asked for, at least.
        wanted: usize,
        /// The last shape.
        shape: GptShape,
        /// The growths allowed.
        operators: Operators,
    },
    /// Given shapes that make no chain.
    #[error(
        "{chain}: each must grow into the next, at a lower loss than the one before it and above the final one"
    )]
    NoSuchChain {
        /// The shapes.
        chain: String,
    },
    /// A goal that needs a shape.
    #[error(
        "a stop says when a given shape has trained enough: name the shape, or give a budget or a loss"
    )]
    StopWithoutShape,
    /// No stages at all.
    #[error("stages {0}..{1}: from 1, and not more at first than at last")]
    Stages(usize, usize),
}

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its shape.
    #[serde(flatten)]
    pub shape: GptShape,
    /// N.
    pub n_params: f64,
    /// Optimizer steps, at the plan's batch.
    pub steps: f64,
    /// Tokens.
    pub tokens: f64,
    /// 6 N D, FLOPs.
    pub compute: f64,
    /// With attention and output head, FLOPs.
    pub compute_exact: f64,
    /// Measured time, where the plan is in seconds.
    pub seconds: Option<f64>,
    /// Loss at its start; `None` for an untrained model.
    pub loss_start: Option<f64>,
    /// Loss at its end.
    pub loss_end: f64,
    /// d ln L / d ln C at its end.
    pub growth_slope: f64,
    /// Its steps from scratch over the next stage's, to the loss at its end.
    pub step_ratio: Option<f64>,
    /// Its own steps from scratch to the loss at its start.
    pub resumed_step: f64,
}

/// The plan without growth that reaches the same goal at its own best size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unstaged {
    /// Its shape.
    #[serde(flatten)]
    pub shape: GptShape,
    /// N.
    pub n_params: f64,
    /// Its cost, in FLOPs or seconds.
    pub cost: f64,
    /// Its final loss.
    pub loss: f64,
}

/// A point of the predicted curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurveSample {
    /// Stage, from 0.
    pub stage: usize,
    /// Tokens so far, over all stages.
    pub tokens: f64,
    /// 6 N D so far, FLOPs.
    pub compute: f64,
    /// Loss, nats per token.
    pub loss: f64,
    /// Its 95 % interval over resampled laws.
    pub interval: Option<[f64; 2]>,
}

/// Whether to grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Whether growing is advised.
    pub grow: bool,
    /// Why not; nothing where one stage was asked for.
    pub reason: Option<String>,
}

/// A staged run: its stages, what it reaches and what it saves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Compute of all stages, FLOPs.
    pub compute: f64,
    /// Time of all stages, where the plan is in seconds.
    pub seconds: Option<f64>,
    /// Compute of the last shape from scratch to the same loss, FLOPs.
    pub compute_from_scratch: f64,
    /// Pace that was counted on after a growth, over that of a model from scratch at the same loss.
    pub pace: f64,
    /// Loss at the end.
    pub final_loss: f64,
    /// Its ratio to the last shape's loss after endless training.
    pub asymptote_multiple: f64,
    /// Share of the cost of the last shape from scratch that is saved.
    pub saving: f64,
    /// 95 % interval of the saving of these stages as they are, over resampled laws.
    pub saving_interval: Option<[f64; 2]>,
    /// Share of the cost of the cheapest single size to the same loss that is saved; less than
    /// `saving` where the last shape is not that size.
    pub saving_at_best_size: f64,
    /// N of the cheapest single size for the final loss.
    pub best_size: f64,
    /// Batch in tokens.
    pub batch_tokens: f64,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The best plan without growth for the same goal, where the shape was free.
    pub without_growth: Option<Unstaged>,
    /// Whether to grow.
    pub advice: Advice,
    /// Other rules.
    pub baselines: Vec<Baseline>,
    /// The predicted curve.
    pub curve: Vec<CurveSample>,
}

impl Plan {
    /// The saving of compute with attention's products and the output head counted on both sides, which 6 N D leaves out.
    pub fn saving_exact(&self) -> f64 {
        let staged: f64 = self.stages.iter().map(|stage| stage.compute_exact).sum();
        // One shape, so one ratio at every amount of compute.
        let exact_over_6nd = self.stages.last().map_or(1.0, |last| {
            last.shape.flops_per_token_exact().0 / last.shape.flops_per_token().0
        });
        1.0 - staged / (self.compute_from_scratch * exact_over_6nd)
    }

    /// The best plan for a request. `batch_tokens` gives the batch for the last N and its final loss.
    ///
    /// # Errors
    /// A goal that no shape meets, or no chain with as many stages as are asked for.
    pub fn new(
        request: &Request,
        batch_tokens: impl Fn(f64, f64) -> f64,
    ) -> Result<Self, PlanError> {
        let (least, most) = (*request.stages.start(), *request.stages.end());
        if least == 0 || least > most {
            return Err(PlanError::Stages(least, most));
        }
        match request.goal {
            Goal::Budget(budget) => positive("budget", budget)?,
            Goal::Loss(loss) | Goal::Stop(Stop::Loss(loss)) => positive("loss", loss)?,
            Goal::Stop(Stop::AsymptoteMultiple(stop) | Stop::TokensPerParam(stop)) => {
                positive("stop", stop)?;
            }
            Goal::Stop(Stop::ComputeOptimal) => {}
        }
        let (last, without_growth) = match request.last {
            FinalShape::Given(shape) => (shape, None),
            FinalShape::Best(family) => {
                let (last, unstaged) = best_final_shape(request, &family)?;
                (last, Some(unstaged))
            }
        };
        let n = last.n_params() as f64;
        let loss = request.goal.final_loss(&request.cost, n, 0.0)?;
        let untrained = (last.n_vocab as f64).ln();
        if loss >= untrained {
            return Err(PlanError::KnowsNothing { shape: last, loss, untrained });
        }
        let bounded;
        let request = match request.grow_by {
            // By the end at the latest is no bound.
            None | Some(1.0..) => request,
            Some(share) => {
                let is_given = matches!(request.last, FinalShape::Given(_));
                if !is_given || matches!(request.goal, Goal::Budget(_)) {
                    return Err(PlanError::GrowByWithoutEnd);
                }
                let tokens = share * request.cost.tokens_at(n, loss)?;
                let least = request.cost.loss_after(n, None, tokens)?;
                bounded = Request {
                    cost: request.cost.clone().with_least_growth_loss(least),
                    ..request.clone()
                };
                &bounded
            }
        };
        let end = |by_growths| request.goal.staged_end(&request.cost, n, by_growths).ok();
        let path = best_path(request, &last, end)?;
        build(request, &path, without_growth, batch_tokens)
    }
}

/// The best path to a shape among those that are asked for.
fn best_path(
    request: &Request,
    last: &GptShape,
    end: impl Fn(f64) -> Option<End>,
) -> Result<Path, PlanError> {
    if !request.through.is_empty() {
        let shapes = [request.through.as_slice(), &[*last]].concat();
        return evaluate(&request.cost, shapes.clone(), Operators::ALL, &end).ok_or_else(|| {
            let names: Vec<String> = shapes.iter().map(ToString::to_string).collect();
            PlanError::NoSuchChain { chain: names.join(", ") }
        });
    }
    let (least, most) = (*request.stages.start(), *request.stages.end());
    let paths = best_paths(&request.cost, last, request.operators, most - 1, end);
    let in_range = paths.into_iter().skip(least - 1).flatten();
    in_range.max_by(|a, b| a.spared.total_cmp(&b.spared)).ok_or(PlanError::NoChain {
        wanted: least,
        shape: *last,
        operators: request.operators,
    })
}

/// The last shape of the best plan of a family, and the best plan without growth.
fn best_final_shape(request: &Request, family: &Family) -> Result<(GptShape, Unstaged), PlanError> {
    let (cost, goal) = (&request.cost, request.goal);
    if matches!(goal, Goal::Stop(_)) {
        return Err(PlanError::StopWithoutShape);
    }
    let shapes = family.shapes();
    // Lower is better: the loss for a budget, the cost for a loss.
    let merit = |shape: &GptShape, spared: f64| {
        let n = shape.n_params() as f64;
        let loss = goal.final_loss(cost, n, spared).ok()?;
        let paid = cost.compute_at(n, loss).ok()? - spared;
        Some((if matches!(goal, Goal::Budget(_)) { loss } else { paid }, paid, loss))
    };
    let unstaged = shapes
        .iter()
        .enumerate()
        .filter_map(|(i, shape)| merit(shape, 0.0).map(|found| (i, found)))
        .min_by(|a, b| a.1.0.total_cmp(&b.1.0));
    let Some((best, (_, paid, loss))) = unstaged else {
        let shape = shapes[shapes.len() - 1];
        let loss = if let Goal::Loss(loss) = goal { loss } else { f64::NAN };
        let asymptote = cost.asymptote(shape.n_params() as f64);
        return Err(PlanError::LossTooLow { loss, shape, asymptote });
    };
    let shape = shapes[best];
    let untrained = (family.n_vocab as f64).ln();
    if let Goal::Budget(budget) = goal
        && loss >= untrained
    {
        let unit = if cost.is_in_seconds() { "seconds" } else { "FLOPs" };
        return Err(PlanError::BudgetTooSmall {
            goal: format!("a budget of {budget:e} {unit}"),
            shape,
            n_params: shape.n_params() as f64,
            loss,
            untrained,
        });
    }
    let unstaged = Unstaged { shape, n_params: shape.n_params() as f64, cost: paid, loss };
    let (least_growths, most_growths) = (request.stages.start() - 1, request.stages.end() - 1);
    if most_growths == 0 {
        return Ok((shape, unstaged));
    }
    let n_best = shape.n_params() as f64;
    let near: Vec<GptShape> = shapes
        .into_iter()
        .filter(|shape| {
            let ratio = shape.n_params() as f64 / n_best;
            ratio < AROUND && ratio > 1.0 / 4096.0
        })
        .collect();
    let is_candidate = |node: &GptShape| node.n_params() as f64 > n_best / AROUND;
    let end = |node: &GptShape| {
        let n = node.n_params() as f64;
        move |by_growths| goal.staged_end(cost, n, by_growths).ok()
    };
    let rated = |node: &GptShape, path: &Path| Some((merit(node, path.spared)?.0, *node));
    let staged: Vec<(f64, GptShape)> =
        if request.through.is_empty() && request.operators == Operators::IN_PROPORTION {
            // Shapes of a family grow into one another, so that one graph has the paths to all of them.
            let nodes = spread(&near, &shape);
            let graph = Graph::new(cost, nodes.clone(), request.operators, most_growths);
            let candidates = nodes.iter().enumerate().filter(|(_, node)| is_candidate(node));
            let best = |(i, node): (usize, &GptShape)| {
                let paths = (least_growths..=most_growths)
                    .filter_map(|growths| graph.path(i, growths, end(node)));
                rated(node, &paths.max_by(|a, b| a.spared.total_cmp(&b.spared))?)
            };
            candidates.filter_map(best).collect()
        } else {
            let candidates = near.par_iter().filter(|node| is_candidate(node));
            let best = |node: &GptShape| rated(node, &best_path(request, node, end(node)).ok()?);
            candidates.filter_map(best).collect()
        };
    let last = staged.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(shape, |one| one.1);
    Ok((last, unstaged))
}

/// The plan along a path.
fn build(
    request: &Request,
    path: &Path,
    without_growth: Option<Unstaged>,
    batch_tokens: impl Fn(f64, f64) -> f64,
) -> Result<Plan, PlanError> {
    let cost = &request.cost;
    let last = path.shapes[path.shapes.len() - 1];
    let n_last = last.n_params() as f64;
    let final_loss = request.goal.final_loss(cost, n_last, path.spared)?;
    let batch_tokens = batch_tokens(n_last, final_loss);
    let stages = stages(cost, &path.shapes, final_loss, batch_tokens)?;
    let steps: f64 = stages.iter().map(|stage| stage.steps).sum();
    if steps.is_nan() || steps > MOST_STEPS {
        return Err(PlanError::TooLong { steps });
    }
    let from_scratch = cost.compute_at(n_last, final_loss)?;
    let saving = path.spared / from_scratch;
    let executed: Vec<(f64, f64)> =
        stages.iter().map(|stage| (stage.n_params, stage.tokens)).collect();
    let samples: Vec<f64> =
        request.resampled.iter().filter_map(|law| saving_as_run(law, &executed).ok()).collect();
    let saving_interval = (samples.len() > 1 && stages.len() > 1).then(|| {
        let (low, high) = interval(samples);
        [low, high]
    });
    let curve = predicted_curve(cost, &request.resampled, &executed)?;
    let beaten_by = without_growth.as_ref().and_then(|alone| match request.goal {
        Goal::Budget(_) => (alone.loss <= final_loss).then(|| {
            format!("{} alone ends at a loss of {:.4} for the same budget", alone.shape, alone.loss)
        }),
        Goal::Loss(_) | Goal::Stop(_) => (alone.cost <= from_scratch - path.spared)
            .then(|| format!("{} alone reaches that loss for less", alone.shape)),
    });
    let (best_size, cheapest) = cost.cheapest_at(n_last, final_loss)?;
    Ok(Plan {
        saving_at_best_size: 1.0 - (from_scratch - path.spared) / cheapest,
        best_size,
        compute: stages.iter().map(|stage| stage.compute).sum(),
        seconds: cost.is_in_seconds().then(|| stages.iter().filter_map(|one| one.seconds).sum()),
        compute_from_scratch: 6.0 * n_last * cost.tokens_at(n_last, final_loss)?,
        pace: cost.pace(StageStart::Growth),
        final_loss,
        asymptote_multiple: final_loss / cost.asymptote(n_last),
        saving,
        saving_interval,
        batch_tokens,
        advice: advice(request, saving, saving_interval, stages.len(), beaten_by),
        stages,
        without_growth,
        baselines: baselines(cost, &path.shapes, final_loss),
        curve,
    })
}

/// Whether to grow; no reason against it where nothing else was asked for. `beaten_by` names a single
/// size that meets the goal as well without growth.
fn advice(
    request: &Request,
    saving: f64,
    interval: Option<[f64; 2]>,
    n_stages: usize,
    beaten_by: Option<String>,
) -> Advice {
    if *request.stages.end() == 1 && request.through.is_empty() {
        return Advice { grow: false, reason: None };
    }
    let reason = if n_stages == 1 {
        Some("no growth spares compute here".to_string())
    } else if beaten_by.is_some() {
        beaten_by
    } else if saving < 0.0 {
        Some(format!("it costs {:.2} % more than from scratch", -100.0 * saving))
    } else if let Some([low, high]) = interval.filter(|[low, _]| *low <= 0.0) {
        Some(format!(
            "the saving's 95 % interval, {:.1} to {:.1} %, includes zero",
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

fn stages(
    cost: &TrainingCost,
    shapes: &[GptShape],
    final_loss: f64,
    batch_tokens: f64,
) -> Result<Vec<Stage>, ScalingError> {
    let mut loss_start = None;
    let mut found = Vec::new();
    for (k, shape) in shapes.iter().enumerate() {
        let n = shape.n_params() as f64;
        let next = shapes.get(k + 1).map(|next| next.n_params() as f64);
        let start = StageStart::of(k);
        let growth = next.map(|next| cost.growth_point(start, n, next)).transpose()?;
        let loss_end = growth.map_or(final_loss, |growth| growth.loss);
        let before = loss_start.map_or(Ok(0.0), |loss| cost.tokens_at(n, loss))?;
        let tokens = (cost.tokens_at(n, loss_end)? - before) / cost.pace(start);
        found.push(Stage {
            shape: *shape,
            n_params: n,
            steps: tokens / batch_tokens,
            tokens,
            compute: 6.0 * n * tokens,
            compute_exact: shape.flops_per_token_exact().0 * tokens,
            seconds: cost.is_in_seconds().then(|| tokens * cost.per_token(n)),
            loss_start,
            loss_end,
            growth_slope: cost.loss_slope(n, loss_end)?,
            step_ratio: growth.map(|growth| growth.step_ratio),
            resumed_step: before / batch_tokens,
        });
        loss_start = Some(loss_end);
    }
    Ok(found)
}

/// What stages of given sizes and tokens save under a law, at the loss that they then end at.
fn saving_as_run(cost: &TrainingCost, stages: &[(f64, f64)]) -> Result<f64, ScalingError> {
    let mut loss: Option<f64> = None;
    let mut paid = 0.0;
    let mut last = 0.0;
    for (n, tokens) in stages {
        paid += tokens * cost.per_token(*n);
        let reached = cost.loss_after(*n, loss, *tokens)?;
        last = cost.compute_at(*n, reached)?;
        loss = Some(reached);
    }
    Ok(1.0 - paid / last)
}

/// The losses of stages of given sizes and tokens under a law, stage by stage, each after the same shares of
/// its tokens.
fn losses_as_run(cost: &TrainingCost, stages: &[(f64, f64)]) -> Result<Vec<f64>, ScalingError> {
    let mut losses: Vec<f64> = Vec::new();
    for (n, tokens) in stages {
        let grown_at = losses.last().copied();
        for share in curve_shares() {
            losses.push(cost.loss_after(*n, grown_at, share * tokens)?);
        }
    }
    Ok(losses)
}

/// From a hundredth of a stage's tokens to all, evenly in their ln.
fn curve_shares() -> impl Iterator<Item = f64> {
    (0..=CURVE_POINTS).map(|i| 100f64.powf(i as f64 / CURVE_POINTS as f64 - 1.0))
}

fn predicted_curve(
    cost: &TrainingCost,
    resampled: &[TrainingCost],
    stages: &[(f64, f64)],
) -> Result<Vec<CurveSample>, ScalingError> {
    let losses = losses_as_run(cost, stages)?;
    let samples: Vec<Vec<f64>> =
        resampled.iter().filter_map(|law| losses_as_run(law, stages).ok()).collect();
    let mut curve = Vec::new();
    let (mut tokens_before, mut compute_before) = (0.0, 0.0);
    for (k, (n, tokens)) in stages.iter().enumerate() {
        for share in curve_shares() {
            let i = curve.len();
            let interval = (samples.len() > 1).then(|| {
                let (low, high) = interval(samples.iter().map(|losses| losses[i]).collect());
                [low, high]
            });
            curve.push(CurveSample {
                stage: k,
                tokens: tokens_before + share * tokens,
                compute: compute_before + 6.0 * n * share * tokens,
                loss: losses[i],
                interval,
            });
        }
        tokens_before += tokens;
        compute_before += 6.0 * n * tokens;
    }
    Ok(curve)
}
