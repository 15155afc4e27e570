//! The shape to end with, where it is free.

use super::goal::Goal;
use super::make::best_path;
use super::search::{Chains, Graph, Path};
use super::shapes::spread;
use super::{Family, Operators, PlanError, Request, Unstaged};
use measure::GptShape;
use rayon::prelude::*;

/// The best staged size over the best unstaged one, at most.
const AROUND: f64 = 8.0;

/// N of the last shapes that are tried around the best of those looked at first, over its own, at most.
const NEXT: f64 = 1.15;

/// The last shape of the best plan of a family, and the best plan without growth.
pub(super) fn best_final_shape(
    request: &Request,
    family: &Family,
) -> Result<(GptShape, Unstaged), PlanError> {
    let (cost, goal) = (&request.cost, request.goal);
    if matches!(goal, Goal::Stop(_)) {
        return Err(PlanError::StopWithoutShape);
    }
    family.shape(1).check()?;
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
        let (smallest, largest) = (shapes[0], shapes[shapes.len() - 1]);
        let asymptote = cost.asymptote(largest.n_params() as f64);
        return Err(match goal {
            Goal::Budget(budget) => PlanError::BudgetWithoutLoss { budget, shape: smallest },
            Goal::Loss(loss) => PlanError::LossTooLow { loss, shape: largest, asymptote },
            Goal::Stop(_) => PlanError::StopWithoutShape,
        });
    };
    let shape = shapes[best];
    if best + 1 == shapes.len() {
        return Err(PlanError::FamilyEnds { shape });
    }
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
    let best = |rated: Vec<(f64, GptShape)>| rated.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let with_its_own_chains =
        |node: &GptShape| rated(node, &best_path(request, node, Chains::Spread, end(node)).ok()?);
    let last = if request.through.is_empty() && request.operators == Operators::IN_PROPORTION {
        // Shapes of a family grow into one another, so that one graph has the paths to all of them.
        let nodes = spread(&near, &shape);
        let graph = Graph::new(cost, nodes.clone(), request.operators, most_growths);
        let candidates = nodes.iter().enumerate().filter(|(_, node)| is_candidate(node));
        let with_chains = |(i, node): (usize, &GptShape)| {
            let paths = (least_growths..=most_growths)
                .filter_map(|growths| graph.path(i, growths, end(node)));
            rated(node, &paths.max_by(|a, b| a.spared.total_cmp(&b.spared))?)
        };
        best(candidates.filter_map(with_chains).collect()).map(|coarse| {
            // And those between the nodes.
            let n_coarse = coarse.1.n_params() as f64;
            let around = near
                .par_iter()
                .filter(|node| (1.0 / NEXT..NEXT).contains(&(node.n_params() as f64 / n_coarse)));
            best(around.filter_map(with_its_own_chains).collect()).unwrap_or(coarse)
        })
    } else {
        let candidates = near.par_iter().filter(|node| is_candidate(node));
        best(candidates.filter_map(with_its_own_chains).collect())
    };
    Ok((last.map_or(shape, |(_, last)| last), unstaged))
}
