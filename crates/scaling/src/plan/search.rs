//! The best chain of stages: a shortest path over shapes.

use super::shapes::Operators;
use crate::{GrowthPoint, StageStart, TrainingCost};
use measure::GptShape;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A growth between two shapes of a list.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
    /// As the first growth of a path, and as a later one.
    growths: [Option<GrowthPoint>; 2],
}

impl Edge {
    /// As one of so many growths, counted from 1.
    fn growth(&self, n_growths: usize) -> Option<GrowthPoint> {
        self.growths[usize::from(n_growths > 1)]
    }
}

/// Which chains are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chains {
    /// Those of the shapes that are spread over N.
    Spread,
    /// Those of all shapes near the best of them, too.
    All,
}

/// What growths spare together against the last size from scratch, and the loss at which the run then ends.
pub(crate) type End = (f64, f64);

/// What the growths of the best path that ends with an edge spare, and the edge before it.
type Ending = (f64, Option<usize>);

/// A path over shapes, and what it spares against the last one from scratch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub shapes: Vec<GptShape>,
    pub spared: f64,
}

/// Growths between shapes that are sorted by N, and the best paths over them.
pub(crate) struct Graph {
    shapes: Vec<GptShape>,
    edges: Vec<Edge>,
    /// Edges into each shape.
    into: Vec<Vec<usize>>,
    /// For each number of growths and each edge: the most that the growths of a path ending with it spare, and the
    /// edge before it.
    best: Vec<Vec<Option<Ending>>>,
}

impl Graph {
    /// All growths between shapes, and the best paths with up to `most_growths` of them.
    pub fn new(
        cost: &TrainingCost,
        shapes: Vec<GptShape>,
        operators: Operators,
        most_growths: usize,
    ) -> Self {
        let edges: Vec<Edge> = (0..shapes.len())
            .into_par_iter()
            .flat_map_iter(|to| {
                let shapes = &shapes;
                (0..to).filter_map(move |from| {
                    if !operators.reach(&shapes[from], &shapes[to]) {
                        return None;
                    }
                    let growth = |start| growth(cost, start, &shapes[from], &shapes[to]);
                    let first = growth(StageStart::Scratch);
                    let same = cost.pace(StageStart::Growth) == 1.0;
                    let growths = [first, if same { first } else { growth(StageStart::Growth) }];
                    growths.iter().any(Option::is_some).then_some(Edge { from, to, growths })
                })
            })
            .collect();
        let mut into = vec![Vec::new(); shapes.len()];
        for (i, edge) in edges.iter().enumerate() {
            into[edge.to].push(i);
        }
        let mut graph = Self { shapes, edges, into, best: Vec::new() };
        for n_growths in 1..=most_growths {
            let found = graph.extend(n_growths);
            graph.best.push(found);
        }
        graph
    }

    fn extend(&self, n_growths: usize) -> Vec<Option<Ending>> {
        let value = |edge: &Edge| {
            let growth = edge.growth(n_growths)?;
            if n_growths == 1 {
                return Some((growth.spared, None));
            }
            // Stages must have something to do: each growth comes at a lower loss than the one before.
            let before = self.into[edge.from].iter().filter_map(|i| {
                let earlier = self.edges[*i].growth(n_growths - 1)?.loss > growth.loss;
                let (spared, _) = self.best[n_growths - 2][*i]?;
                earlier.then_some((spared, *i))
            });
            let (spared, i) = before.max_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((spared + growth.spared, Some(i)))
        };
        self.edges.iter().map(value).collect()
    }

    /// The best path with so many growths to a shape, among those that grow above the loss at which they end.
    pub fn path(
        &self,
        to: usize,
        n_growths: usize,
        end: impl Fn(f64) -> Option<End>,
    ) -> Option<Path> {
        if n_growths == 0 {
            return Some(Path { shapes: vec![self.shapes[to]], spared: 0.0 });
        }
        let best = &self.best[n_growths - 1];
        let ends = self.into[to].iter().filter_map(|i| {
            let (spared, final_loss) = end(best[*i]?.0)?;
            (self.edges[*i].growth(n_growths)?.loss > final_loss).then_some((spared, *i))
        });
        let (spared, last) = ends.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let mut shapes = vec![self.shapes[to]];
        let mut at = Some(last);
        for k in (0..n_growths).rev() {
            let i = at?;
            shapes.insert(0, self.shapes[self.edges[i].from]);
            at = self.best[k][i]?.1;
        }
        Some(Path { shapes, spared })
    }
}

/// The best growth from one shape to another, unless a law puts it where a model knows less than nothing.
fn growth(
    cost: &TrainingCost,
    start: StageStart,
    small: &GptShape,
    large: &GptShape,
) -> Option<GrowthPoint> {
    let found = cost.growth_point(start, small.n_params() as f64, large.n_params() as f64).ok()?;
    (found.loss < untrained_loss(small)).then_some(found)
}

/// Loss of a model that knows nothing: ln V, nats per token.
pub(crate) fn untrained_loss(shape: &GptShape) -> f64 {
    (shape.n_vocab as f64).ln()
}

/// The best paths with 0, 1, ... growths to one shape.
pub(crate) fn best_paths(
    cost: &TrainingCost,
    last: &GptShape,
    operators: Operators,
    most_growths: usize,
    chains: Chains,
    end: impl Fn(f64) -> Option<End>,
) -> Vec<Option<Path>> {
    let mut shapes = operators.spread_sources(last);
    shapes.push(*last);
    let last_place = shapes.len() - 1;
    let graph = Graph::new(cost, shapes, operators, most_growths);
    (0..=most_growths)
        .map(|n| {
            let path = graph.path(last_place, n, &end)?;
            Some(match chains {
                Chains::Spread => path,
                Chains::All => refine(cost, path, operators, &end),
            })
        })
        .collect()
}

/// Tries, for one shape after the other, every shape near it in N that the spread left out.
fn refine(
    cost: &TrainingCost,
    mut path: Path,
    operators: Operators,
    end: &impl Fn(f64) -> Option<End>,
) -> Path {
    const NEAR: f64 = 1.2;
    // What spares next to nothing more is not worth an odd proportion.
    const LEAST_GAIN: f64 = 1e-3;
    const MOST_ROUNDS: usize = 4;
    let last = path.shapes[path.shapes.len() - 1];
    for _ in 0..MOST_ROUNDS {
        let before = path.spared;
        for k in 0..path.shapes.len() - 1 {
            let here = path.shapes[k].n_params() as f64;
            // Under a law of N, shapes of one N are worth the same: the first of them that grows so stands for all.
            let mut near: BTreeMap<u64, GptShape> = BTreeMap::new();
            operators.each_source(&last, |shape| {
                let n_params = shape.n_params();
                let ratio = n_params as f64 / here;
                let grows = || {
                    (k == 0 || operators.reach(&path.shapes[k - 1], &shape))
                        && operators.reach(&shape, &path.shapes[k + 1])
                };
                if ratio < NEAR && ratio > 1.0 / NEAR && !near.contains_key(&n_params) && grows() {
                    near.insert(n_params, shape);
                }
            });
            for shape in near.into_values() {
                let mut shapes = path.shapes.clone();
                shapes[k] = shape;
                if let Some(found) = evaluate(cost, shapes, operators, end)
                    && found.spared > path.spared + LEAST_GAIN * path.spared.abs()
                {
                    path = found;
                }
            }
        }
        if path.spared <= before {
            break;
        }
    }
    path
}

/// The path through given shapes; `None` where one does not grow into the next, or has nothing to do.
pub(crate) fn evaluate(
    cost: &TrainingCost,
    shapes: Vec<GptShape>,
    operators: Operators,
    end: &impl Fn(f64) -> Option<End>,
) -> Option<Path> {
    let mut spared = 0.0;
    let mut last_growth = f64::INFINITY;
    for (i, pair) in shapes.windows(2).enumerate() {
        if !operators.reach(&pair[0], &pair[1]) {
            return None;
        }
        let growth = growth(cost, StageStart::of(i), &pair[0], &pair[1])?;
        if growth.loss >= last_growth {
            return None;
        }
        spared += growth.spared;
        last_growth = growth.loss;
    }
    let (spared, final_loss) = end(spared)?;
    (last_growth > final_loss).then_some(Path { shapes, spared })
}
