//! Predicted against actual loss of a staged run.

use crate::comparison::{Comparison, SavingAt};
use crate::figures::{COMPUTE, LOSS};
use crate::run_record::{RunRecord, by_seed};
use measure::CurvePoint;
use plot::{Axis, Color, Figure, Layer, Panel, Stroke};

/// Share of the first stage's compute at which the overview begins.
const FIRST_SHARE: f64 = 0.1;

/// Share of the compute from scratch at which the view of the end begins.
const CLOSE: f64 = 0.25;

/// What the view of the end shows beyond both runs' compute to the same loss, over that, if a run goes on so long.
const PAST: f64 = 1.05;

/// What the horizontal axis counts.
#[derive(Clone, Copy)]
enum Over {
    Compute,
    Tokens,
    Steps,
}

impl Over {
    fn axis(self) -> Axis {
        Axis::log(match self {
            Self::Compute => COMPUTE,
            Self::Tokens => "tokens",
            Self::Steps => "optimizer steps",
        })
    }

    fn of(self, point: &CurvePoint) -> f64 {
        match self {
            Self::Compute => point.compute_flops,
            Self::Tokens => point.tokens as f64,
            Self::Steps => point.step as f64,
        }
    }
}

/// Loss of staged runs, of their prediction and of the last shape from scratch over compute, steps and tokens, with the first one's
/// growths; and the saving where a comparison is given.
pub fn predicted_against_actual(
    staged: &[RunRecord],
    scratch: &[RunRecord],
    comparison: Option<&Comparison>,
) -> Figure {
    let overview = |over| panel(over, staged, scratch);
    let mut panels = vec![overview(Over::Compute)];
    panels.extend(comparison.and_then(|found| close_up(staged, scratch, found)));
    panels.push(overview(Over::Tokens));
    panels.push(overview(Over::Steps));
    Figure { panels, columns: 2 }
}

/// Where the overview begins: compute, FLOPs.
fn first_compute(staged: &RunRecord) -> f64 {
    FIRST_SHARE * staged.end_of(0).map_or(0.0, |point| point.compute_flops)
}

/// The loss that is drawn of an evaluation: smoothed, or as it was measured where the learning rate decays, for there it falls faster
/// than a smooth curve follows, and its end counts.
fn drawn(run: &RunRecord, point: &CurvePoint) -> Option<f64> {
    if run.decays() { point.val_loss } else { run.smooth.as_ref()?.loss_at(point.compute_flops) }
}

/// What the losses of [`drawn`] are.
fn losses(run: &RunRecord) -> &'static str {
    if run.decays() { LOSS } else { "smoothed loss (nats per token)" }
}

/// The highest loss to show of all that goes on from an amount of compute: that of a run there, along its smooth curve; without one
/// the highest that is drawn.
fn top(run: &RunRecord, others: &[RunRecord], compute: f64) -> Option<f64> {
    if let Some(smooth) = &run.smooth {
        return smooth.loss_at(compute).or(Some(smooth.first_loss()));
    }
    let drawn = others.iter().chain([run]).flat_map(|run| run.curve.evaluated());
    let from = drawn.filter(|(point, _)| point.compute_flops >= compute);
    from.map(|(_, loss)| loss).reduce(f64::max)
}

fn curve(run: &RunRecord, over: Over) -> Vec<(f64, f64)> {
    let points = run.curve.evaluated();
    points.filter_map(|(point, _)| Some((over.of(point), drawn(run, point)?))).collect()
}

/// The lowest loss that is drawn of a run up to an amount of compute.
fn lowest(run: &RunRecord, compute: f64) -> f64 {
    let until = run.curve.evaluated().filter(|(point, _)| point.compute_flops <= compute);
    until.filter_map(|(point, _)| drawn(run, point)).fold(f64::INFINITY, f64::min)
}

fn predicted(run: &RunRecord, over: Over, layers: &mut Vec<Layer>) {
    let Some(prediction) = run.schedule.prediction() else { return };
    let due = &prediction.curve;
    let x = |i: usize| match over {
        Over::Compute => due.compute[i],
        Over::Tokens => due.tokens[i],
        Over::Steps => run.schedule.batch().steps_for_tokens(due.tokens[i] as u64) as f64,
    };
    let least = first_compute(run);
    let shown: Vec<usize> = (0..due.loss.len()).filter(|i| due.compute[*i] >= least).collect();
    if !due.low.is_empty() {
        layers.push(Layer::Band {
            points: shown.iter().map(|i| (x(*i), due.low[*i], due.high[*i])).collect(),
            color: Color::Series(5),
            label: Some("predicted, 95 %".into()),
        });
    }
    layers.push(Layer::Line {
        points: shown.iter().map(|i| (x(*i), due.loss[*i])).collect(),
        color: Color::Series(0),
        stroke: Stroke::Dashed,
        label: Some(if run.decays() { "predicted ends" } else { "predicted" }.into()),
    });
}

fn growth_points(run: &RunRecord, over: Over) -> Vec<(f64, f64)> {
    let last = run.curve.points.last().map_or(0, |point| point.stage);
    let ends = (0..last).filter_map(|stage| run.end_of(stage));
    ends.filter_map(|end| Some((over.of(end), drawn(run, end)?))).collect()
}

/// The line along which savings are taken between ends: straight in ln C over ln L, so bent on linear axes.
fn between_ends(ends: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const PARTS: u32 = 20;
    let part = |pair: &[(f64, f64)]| {
        let [from, to] = [pair[0], pair[1]];
        let at = |k: u32| {
            let share = f64::from(k) / f64::from(PARTS);
            (from.0 * (to.0 / from.0).powf(share), from.1 * (to.1 / from.1).powf(share))
        };
        (0..PARTS).map(at).collect::<Vec<_>>()
    };
    ends.windows(2).flat_map(part).chain(ends.last().copied()).collect()
}

fn lines(over: Over, runs: &[RunRecord], scratch: &[RunRecord]) -> Vec<Layer> {
    let mut layers = Vec::new();
    let staged = &runs[0];
    predicted(staged, over, &mut layers);
    let decays = staged.decays();
    for (i, run) in scratch.iter().enumerate() {
        let first = i == 0 && !decays;
        layers.push(Layer::Line {
            points: curve(run, over),
            color: Color::Series(1),
            stroke: if first { Stroke::Solid } else { Stroke::Thin },
            label: first.then(|| "last shape from scratch".to_string()),
        });
    }
    if decays {
        let mut label = Some("ends of runs from scratch".to_string());
        for runs in by_seed(scratch) {
            let end =
                |run: &RunRecord| Some((over.of(run.curve.points.last()?), run.end().ok()?.loss));
            let points: Vec<(f64, f64)> = runs.into_iter().filter_map(end).collect();
            let (color, radius) = (Color::Series(1), 3.5);
            layers.push(Layer::Points { points: points.clone(), color, radius, label: None });
            let points = between_ends(&points);
            layers.push(Layer::Line { points, color, stroke: Stroke::Solid, label: label.take() });
        }
    }
    for (i, run) in runs.iter().enumerate() {
        let (points, color) = (curve(run, over), Color::Black);
        if let (Some(end), true) = (points.last(), decays) {
            layers.push(Layer::Points { points: vec![*end], color, radius: 3.5, label: None });
        }
        let stroke = if i == 0 { Stroke::Solid } else { Stroke::Thin };
        let label = if runs.len() > 1 { "staged runs" } else { "staged run" };
        let label = (i == 0).then(|| label.to_string());
        layers.push(Layer::Line { points, color, stroke, label });
    }
    let growths = growth_points(staged, over);
    if let Some(baseline) = scratch.first().filter(|_| !decays) {
        // Each growth stands for the larger size's own way to the same loss.
        let mut label = Some("same loss from scratch".to_string());
        for (at, loss) in &growths {
            let smooth = baseline.smooth.as_ref();
            let Some(compute) = smooth.and_then(|curve| curve.compute_at(*loss)) else { continue };
            let point = baseline.curve.points.iter().find(|point| point.compute_flops >= compute);
            let Some(point) = point else { continue };
            layers.push(Layer::Line {
                points: vec![(*at, *loss), (over.of(point), *loss)],
                color: Color::Grey,
                stroke: Stroke::Dotted,
                label: label.take(),
            });
        }
    }
    if !growths.is_empty() {
        let (points, label) = (growths, Some("growth".into()));
        layers.push(Layer::Points { points, color: Color::Black, radius: 4.5, label });
    }
    layers
}

fn panel(over: Over, all: &[RunRecord], scratch: &[RunRecord]) -> Panel {
    let staged = &all[0];
    let start = first_compute(staged);
    let first = staged.curve.points.iter().find(|point| point.compute_flops >= start);
    let runs = || scratch.iter().chain(all);
    let last = runs().filter_map(|run| run.curve.points.last()).map(|point| over.of(point));
    let predicted = staged.schedule.prediction().map(|prediction| prediction.final_loss);
    let ends: Vec<f64> =
        runs().map(|run| lowest(run, f64::INFINITY)).filter(|end| end.is_finite()).collect();
    let lowest = ends.iter().copied().chain(predicted).fold(f64::INFINITY, f64::min);
    // Every run is to be seen, also one that ends above all that the staged one shows.
    let highest = ends.into_iter().chain(top(staged, scratch, start)).fold(lowest, f64::max);
    Panel {
        title: match over {
            Over::Compute if predicted.is_none() => "Held-out loss".to_string(),
            Over::Compute => "Predicted against actual".to_string(),
            Over::Tokens => "Over tokens".to_string(),
            Over::Steps => "Over steps".to_string(),
        },
        x: Axis {
            range: first.map(|point| (over.of(point), 1.05 * last.fold(0.0, f64::max))),
            ..over.axis()
        },
        y: Axis { range: Some((0.99 * lowest, 1.02 * highest)), ..Axis::log(losses(staged)) },
        layers: lines(over, all, scratch),
    }
}

/// The end of the curves on linear axes, with the savings.
fn close_up(all: &[RunRecord], scratch: &[RunRecord], found: &Comparison) -> Option<Panel> {
    let staged = &all[0];
    let baseline = scratch.first()?;
    let last = found.savings.last()?;
    let ends = || scratch.iter().chain(all).map(RunRecord::compute);
    // Runs that go on much longer would leave no room for the savings.
    let longer =
        ends().filter(|end| *end >= PAST * last.found.compute_from_scratch.max(last.found.compute));
    let mut most = longer.reduce(f64::min).unwrap_or(ends().fold(0.0, f64::max));
    if !staged.decays() {
        most = most.min(PAST * last.found.compute_from_scratch.max(last.found.compute));
    }
    let from = (CLOSE * last.found.compute_from_scratch).min(0.9 * last.found.compute);
    let top = top(if staged.decays() { staged } else { baseline }, scratch, from)?;
    let predicted = staged.schedule.prediction().map_or(f64::INFINITY, |plan| plan.final_loss);
    let lowest = scratch.iter().chain(all).map(|run| lowest(run, most));
    let bottom = lowest.fold(predicted, f64::min);
    let mut layers: Vec<Layer> =
        lines(Over::Compute, all, scratch).into_iter().map(Layer::without_label).collect();
    // A few are told in numbers; more would lie on one another.
    let mut told: Vec<&SavingAt> = Vec::new();
    for one in
        found.savings.iter().rev().filter(|one| one.found.loss < top && one.found.compute > from)
    {
        let apart = 0.04 * (top - bottom);
        if told.last().is_none_or(|other| one.found.loss - other.found.loss > apart) {
            told.push(one);
        }
    }
    for (i, one) in told.iter().take(3).enumerate() {
        let what = if one.found.saving < 0.0 { "more spent" } else { "saved" };
        layers.push(Layer::Line {
            points: vec![
                (one.found.compute, one.found.loss),
                (one.found.compute_from_scratch, one.found.loss),
            ],
            color: Color::Series(2 + i),
            stroke: Stroke::Solid,
            label: Some(format!(
                "{:.1} % {what} at {:.3}{}",
                100.0 * one.found.saving.abs(),
                one.found.loss,
                if one.before_last_growth { ", before growing" } else { "" }
            )),
        });
    }
    let margin = 0.06 * (top - bottom);
    Some(Panel {
        title: "What it saves".into(),
        x: Axis { range: Some((from, 1.02 * most)), ..Axis::linear(COMPUTE) },
        y: Axis { range: Some((bottom - margin, top + margin)), ..Axis::linear(losses(staged)) },
        layers,
    })
}
