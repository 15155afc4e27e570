//! What the figures show: data from laws, fits, schedules and runs, laid out for `plot`.

use crate::law::PlanningLaw;
use crate::observations::run_of;
use crate::output;
use crate::run_record::check_comparable_in;
use crate::table::{Row, Table};
use anyhow::{Context, Result, bail};
use measure::{GptShape, LearningCurve};
use plot::{Axis, Color, Figure, Layer, Panel, Stroke};
use scaling::plan::{Goal, Stop, least_size};
use scaling::{Fit, LawForm, Pace, StageStart, TrainingCost, is_one_value};
use schedule::Schedule;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

pub const COMPUTE: &str = "compute, 6 N D (FLOPs)";
pub const LOSS: &str = "loss (nats per token)";
const SAMPLES: usize = 200;

/// Losses that are drawn of a plan, over its final one, at most: a law says nothing of the very first steps.
const MOST_SHOWN: f64 = 2.0;

/// Values evenly spread in their ln.
fn spread(from: f64, to: f64) -> impl Iterator<Item = f64> {
    (0..=SAMPLES).map(move |i| from * (to / from).powf(i as f64 / SAMPLES as f64))
}

/// N in words.
fn size(n: f64) -> String {
    let (value, unit) = match n {
        n if n >= 1e9 => (n / 1e9, "B"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    let decimals = match value {
        _ if unit.is_empty() => 0,
        value if value < 10.0 => 2,
        _ => 1,
    };
    format!("N = {value:.decimals$} {unit}").trim_end().to_string()
}

/// The sizes of a schedule's stages.
fn sizes(schedule: &Schedule) -> Vec<f64> {
    schedule.stages().iter().map(|stage| stage.shape(1).n_params() as f64).collect()
}

/// N of the smallest shape that a schedule's last one could have grown from.
fn least_source(schedule: &Schedule) -> f64 {
    let chain: Vec<GptShape> = schedule.stages().iter().map(|stage| stage.shape(1)).collect();
    least_size(&chain)
}

/// The law that a schedule was planned under, with its batch.
pub fn law_of(schedule: &Schedule) -> Result<(PlanningLaw, TrainingCost)> {
    let prediction =
        schedule.prediction().context("the schedule has no prediction: staged plan makes one")?;
    let law = PlanningLaw::open(&prediction.law).context("prediction.law of the schedule")?;
    let batch = crate::law::batch(&prediction.batch).map_err(anyhow::Error::msg);
    let pace = Pace {
        value: prediction.pace.unwrap_or(1.0),
        over: prediction.pace_over.unwrap_or(f64::INFINITY),
    };
    let cost = law.cost(Some(batch.context("prediction.batch")?), Some(pace))?.cost;
    Ok((law, cost))
}

/// Learning curves of each size from scratch, the staged run through them, its growth points and the
/// compute-optimal frontier: figure 1 of Shen et al. 2022.
pub fn learning_curves(schedule: &Schedule) -> Result<Figure> {
    let (law, cost) = law_of(schedule)?;
    let prediction = schedule.prediction().context("no prediction")?;
    let sizes = sizes(schedule);
    let last = sizes[sizes.len() - 1];
    let final_loss = prediction.final_loss;
    let most = 2.0 * cost.compute_at(last, final_loss)?;
    let curve = &prediction.curve;
    let growths: Vec<(f64, f64)> = (1..curve.stage.len())
        .filter(|i| curve.stage[*i] != curve.stage[*i - 1])
        .map(|i| (curve.compute[i - 1], curve.loss[i - 1]))
        .collect();
    let least = growths.first().map_or(most / 1e4, |first| first.0 / 30.0);
    let mut layers = Vec::new();
    let lowest = cost.loss_at_compute(last, most)?;
    let highest = cost.loss_at_compute(sizes[0], least)?.min(MOST_SHOWN * final_loss);
    let smallest = least_source(schedule);
    let frontier: Vec<(f64, f64)> = spread(highest, lowest)
        .filter_map(|loss| Some((cost.cheapest_at(smallest, last, loss).ok()?.1, loss)))
        .filter(|point| point.0 >= least && point.0 <= most)
        .collect();
    layers.push(Layer::Line {
        points: frontier,
        color: Color::Grey,
        stroke: Stroke::Dashed,
        label: Some("compute-optimal frontier".into()),
    });
    for (i, n) in sizes.iter().enumerate() {
        let points = spread(least, most)
            .filter_map(|compute| Some((compute, cost.loss_at_compute(*n, compute).ok()?)))
            .filter(|point| point.1 <= highest)
            .collect();
        layers.push(Layer::Line {
            points,
            color: Color::Series(i),
            stroke: told_apart(i, Stroke::Thin),
            label: Some(format!("{} from scratch", size(*n))),
        });
    }
    let first = spread(least, most)
        .take_while(|compute| *compute < curve.compute[0])
        .filter_map(|compute| Some((compute, cost.loss_at_compute(sizes[0], compute).ok()?)));
    let planned = curve.compute.iter().copied().zip(curve.loss.iter().copied());
    let staged: Vec<(f64, f64)> =
        first.chain(planned).filter(|point| point.0 >= least && point.1 <= highest).collect();
    layers.push(Layer::line(staged, Color::Black, "staged run"));
    if !growths.is_empty() {
        let (points, label) = (growths, Some("growth".into()));
        layers.push(Layer::Points { points, color: Color::Black, radius: 4.5, label });
    }
    let from_scratch = prediction.compute_from_scratch;
    // Both panels show the same lines; their names are where there is room.
    let whole = layers.iter().cloned().map(Layer::without_label).collect();
    layers.push(Layer::Line {
        points: vec![(prediction.compute, final_loss), (from_scratch, final_loss)],
        color: Color::Series(sizes.len()),
        stroke: Stroke::Solid,
        label: Some(format!("saving {:.1} %", 100.0 * prediction.saving)),
    });
    // The ends of all curves, where a saving of some percent can be seen.
    let start = 0.2 * from_scratch;
    let top = cost.loss_at_compute(last, start)?;
    let close = Panel {
        title: "Its end, on linear axes".into(),
        x: Axis {
            range: Some((start, 1.05 * from_scratch.max(prediction.compute))),
            ..Axis::linear(COMPUTE)
        },
        y: Axis { range: Some((final_loss - 0.1 * (top - final_loss), top)), ..Axis::linear(LOSS) },
        layers,
    };
    let whole = Panel {
        title: format!("A staged run under {}", law.short_name()),
        x: Axis::log(COMPUTE),
        y: Axis::log(LOSS),
        layers: whole,
    };
    Ok(Figure { panels: vec![whole, close], columns: 2 })
}

/// The saving of the schedule's sizes by where the run stops, and of endlessly many growths.
pub fn saving_by_stop(schedule: &Schedule) -> Result<Figure> {
    let (law, cost) = law_of(schedule)?;
    let sizes = sizes(schedule);
    let last = sizes[sizes.len() - 1];
    if sizes.len() < 2 {
        bail!("one stage saves nothing, wherever it stops");
    }
    let elsewhere = schedule.prediction().and_then(|plan| {
        let by_share = plan.grow_by.map(|_| "by a given share");
        by_share.or(plan.in_seconds.then_some("where seconds say"))
    });
    if let Some(elsewhere) = elsewhere {
        bail!(
            "the saving by the stop is that of growths where the law has them in compute, and this plan grows {elsewhere}"
        );
    }
    let asymptote = cost.asymptote(last);
    let own = schedule.prediction().map_or(0.0, |plan| plan.final_loss / asymptote);
    let limit = (0..sizes.len() - 1)
        .filter_map(|k| {
            Some(
                cost.growth_point(StageStart::of(k), sizes[k], sizes[k + 1]).ok()?.loss / asymptote,
            )
        })
        .fold(1.6f64.max(1.05 * own), f64::min);
    let stops: Vec<f64> = spread(1.005, limit).collect();
    let mut layers = Vec::new();
    let saving = |chain: &[f64]| -> Vec<(f64, f64)> {
        stops
            .iter()
            .filter_map(|stop| {
                let chain = cost.chain(chain, stop * asymptote).ok()?;
                Some((*stop, 100.0 * chain.saving))
            })
            .collect()
    };
    for k in (0..sizes.len() - 1).rev() {
        let chain = &sizes[k..];
        let name = format!("{} stages, from {}", chain.len(), size(chain[0]));
        layers.push(Layer::line(saving(chain), Color::Series(sizes.len() - 2 - k), &name));
    }
    let smallest = least_source(schedule);
    let few: Vec<f64> = stops.iter().step_by(8).copied().collect();
    let continuous: Vec<(f64, f64)> = few
        .iter()
        .filter_map(|stop| {
            Some((*stop, 100.0 * cost.continuous_saving(smallest, last, stop * asymptote).ok()?))
        })
        .collect();
    let highest = continuous.iter().map(|point| point.1).fold(0.0, f64::max);
    layers.push(Layer::Line {
        points: continuous,
        color: Color::Grey,
        stroke: Stroke::Dashed,
        label: Some("continuous limit at a pace of 1".into()),
    });
    if let Ok(optimal) = (Goal::Stop(Stop::ComputeOptimal)).final_loss(&cost, last, 0.0) {
        let at = optimal / asymptote;
        let line = vec![(at, 0.0), (at, highest)];
        layers.push(Layer::Line {
            points: line,
            color: Color::Black,
            stroke: Stroke::Thin,
            label: Some("compute-optimal stop".into()),
        });
    }
    Ok(Figure::of(Panel {
        title: format!("{} under {}", size(last), law.short_name()),
        x: Axis::linear("final loss over its asymptote"),
        y: Axis::linear("saving of compute (%)"),
        layers,
    }))
}

/// N, learning rate, batch and predicted loss over the compute of a schedule.
pub fn course(schedule: &Schedule) -> Result<Figure> {
    let n_steps = schedule.n_steps();
    if n_steps == 0 {
        bail!("the schedule has no steps");
    }
    let (mut params, mut rate, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    let mut compute = 0.0;
    let mut before = 0;
    for (k, stage) in schedule.stages().iter().enumerate() {
        let n = stage.shape(1).n_params() as f64;
        let price = stage.shape(1).flops_per_token().0;
        let end = before + schedule.steps_of(k, before);
        let start_tokens = schedule.batch().tokens_through(before) as f64;
        let n_samples = SAMPLES as u64;
        for i in 0..=n_samples {
            let step = (before + 1 + (end - before - 1) * i / n_samples).min(end);
            let tokens = schedule.batch().tokens_through(step) as f64 - start_tokens;
            let at = compute + price * tokens;
            params.push((at, n));
            rate.push((at, schedule.learning_rate_at(k, before, step)));
            batch.push((at, schedule.batch().tokens_at(step) as f64));
        }
        compute += price * (schedule.batch().tokens_through(end) as f64 - start_tokens);
        before = end;
    }
    let panel = |title: &str, y: Axis, points: Vec<(f64, f64)>| Panel {
        title: title.to_string(),
        x: Axis::linear(COMPUTE),
        y,
        layers: vec![Layer::Line {
            points,
            color: Color::Series(0),
            stroke: Stroke::Solid,
            label: None,
        }],
    };
    let most_batch = batch.iter().map(|point: &(f64, f64)| point.1).fold(0.0, f64::max);
    let mut panels = vec![
        panel("Size", Axis::log("N (non-embedding parameters)"), params),
        panel("Learning rate", Axis::linear("learning rate at the base width"), rate),
        panel(
            "Batch",
            Axis {
                range: Some((0.0, 1.2 * most_batch)),
                ..Axis::linear("batch (tokens per step)")
            },
            batch,
        ),
    ];
    if let Some(prediction) = schedule.prediction() {
        let curve = &prediction.curve;
        let points = curve.compute.iter().copied().zip(curve.loss.iter().copied());
        let points = points.filter(|point| point.1 < MOST_SHOWN * prediction.final_loss).collect();
        panels.push(panel("Predicted loss", Axis::log(LOSS), points));
    }
    Ok(Figure { panels, columns: 2 })
}

/// Measured losses on a fitted law, and the residuals.
pub fn fit_quality(fit: &Fit, points: &Path) -> Result<Figure> {
    let rows = points_of(fit, points)?;
    let two = fit.law.quantities().len() == 2;
    let names: Vec<String> = fit.law.quantities().iter().map(ToString::to_string).collect();
    let amount = if two { &names[1] } else { &names[0] };
    let axis = Axis::log(match amount.as_str() {
        "tokens" => "D (tokens)",
        "steps" => "S (steps)",
        "compute" => "C (FLOPs)",
        _ => "N (non-embedding parameters)",
    });
    let x = |row: &[f64; 4]| if two { row[1] } else { row[0] };
    let mut sizes: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup_by(|b, a| is_one_value(*a, *b));
    // With many sizes a few lines of the law stand for all.
    let shown: Vec<f64> = if two && sizes.len() > 6 {
        (0..6).map(|i| sizes[i * (sizes.len() - 1) / 5]).collect()
    } else if two {
        sizes.clone()
    } else {
        Vec::new()
    };
    let law = fit.fitted();
    let (least, most) =
        rows.iter().map(x).fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), x| (a.min(x), b.max(x)));
    let few = sizes.len() <= 6 && two;
    let mut layers = Vec::new();
    let radius = if rows.len() > 500 { 1.2 } else { 2.5 };
    for (i, n) in sizes.iter().enumerate().filter(|_| few) {
        let of_size =
            rows.iter().filter(|row| is_one_value(row[0], *n)).map(|row| (x(row), row[2]));
        let points = of_size.collect();
        layers.push(Layer::Points { points, color: Color::Series(i), radius, label: None });
    }
    if !few {
        let points = rows.iter().map(|row| (x(row), row[2])).collect();
        let label = Some("measured".into());
        layers.push(Layer::Points { points, color: Color::Grey, radius, label });
    }
    for (i, n) in shown.iter().enumerate() {
        let points = spread(least, most).map(|d| (d, law.loss_at(&[*n, d]))).collect();
        layers.push(Layer::line(points, Color::Series(i), &size(*n)));
    }
    if !two {
        let points = spread(least, most).map(|value| (value, law.loss_at(&[value]))).collect();
        layers.push(Layer::line(points, Color::Series(0), "law"));
    }
    let losses = rows.iter().map(|row| row[2]);
    let top = losses.fold(0.0, f64::max);
    let bottom = rows.iter().map(|row| row[2].min(row[3])).fold(f64::INFINITY, f64::min);
    let range = Some((bottom / 1.02, top * 1.02));
    let off = |row: &[f64; 4]| 100.0 * (row[3] / row[2] - 1.0);
    let residuals = if few {
        let colored = |(i, n): (usize, &f64)| Layer::Points {
            points: rows
                .iter()
                .filter(|row| is_one_value(row[0], *n))
                .map(|row| (x(row), off(row)))
                .collect(),
            color: Color::Series(i),
            radius,
            label: None,
        };
        sizes.iter().enumerate().map(colored).collect()
    } else {
        let points = rows.iter().map(|row| (x(row), off(row))).collect();
        vec![Layer::Points { points, color: Color::Series(0), radius, label: None }]
    };
    let zero = Layer::Line {
        points: vec![(least, 0.0), (most, 0.0)],
        color: Color::Black,
        stroke: Stroke::Thin,
        label: None,
    };
    Ok(Figure {
        panels: vec![
            Panel {
                title: match fit.law {
                    // Too long for a title.
                    LawForm::MixedTokens => "Mean of Kaplan's form and a sum".to_string(),
                    _ => fit.equation.clone(),
                },
                x: axis.clone(),
                y: Axis { range, ..Axis::log(LOSS) },
                layers,
            },
            Panel {
                title: format!(
                    "Residuals of {} points, {:.2} % r.m.s.",
                    rows.len(),
                    100.0 * fit.residuals.root_mean_square
                ),
                x: axis,
                y: Axis::linear("predicted over measured, less 1 (%)"),
                layers: [vec![zero], residuals].concat(),
            },
        ],
        columns: 2,
    })
}

/// Rows of a law's points: first quantity, second, loss and prediction.
fn points_of(fit: &Fit, path: &Path) -> Result<Vec<[f64; 4]>> {
    let table = Table::read(path).context("staged fit writes the points of a law beside it")?;
    let quantities =
        fit.law.quantities().iter().map(|quantity| table.column(&quantity.to_string()));
    let quantities = quantities.collect::<Result<Vec<_>>>()?;
    let (loss, predicted) = (table.column("loss")?, table.column("predicted")?);
    let point = |row: Row<'_>| {
        let second = quantities.get(1).map_or(Ok(f64::NAN), |column| row.number(*column))?;
        Ok([row.number(quantities[0])?, second, row.number(loss)?, row.number(predicted)?])
    };
    table.rows().map(point).collect()
}

/// Errs unless a figure can be written there.
pub fn check_target(path: &Path) -> Result<()> {
    Figure::check_format(path)?;
    output::check_target(path)
}

/// Writes a figure; where a link leads, not in its place.
pub fn write(figure: &Figure, path: &Path) -> Result<()> {
    Ok(figure.write(&measure::led_to(path))?)
}

/// The stroke of a line by its number: where colours come again, it tells lines apart.
fn told_apart(i: usize, first: Stroke) -> Stroke {
    let strokes = [first, Stroke::Dashed, Stroke::Dotted];
    strokes[(i / Color::SERIES) % strokes.len()]
}

/// Runs that a legend has room for.
const MOST_NAMED: usize = 12;

/// Held-out losses of runs over their compute.
pub fn runs(paths: &[PathBuf]) -> Result<Figure> {
    let folders: Vec<PathBuf> = paths.iter().map(|path| run_of(path)).collect();
    check_comparable_in(&folders)?;
    let mut layers = Vec::new();
    let last_of =
        |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    for (i, path) in paths.iter().enumerate() {
        let file = RunFolder::curve_file(path);
        let curve = LearningCurve::read(&file)?;
        let points: Vec<(f64, f64)> =
            curve.evaluated().map(|(point, loss)| (point.compute_flops, loss)).collect();
        if points.is_empty() {
            bail!("{}: no held-out loss", file.display());
        }
        let own = last_of(&folders[i]);
        let is_alone = folders.iter().filter(|other| last_of(other) == own).count() == 1;
        let name = own.filter(|_| is_alone).unwrap_or_else(|| path.display().to_string());
        let stroke = told_apart(i, Stroke::Solid);
        let label = (i < MOST_NAMED).then_some(name);
        layers.push(Layer::Line { points, color: Color::Series(i), stroke, label });
    }
    if paths.len() > MOST_NAMED {
        output::note(&format!("the legend names the first {MOST_NAMED} of {} runs", paths.len()));
    }
    Ok(Figure::of(Panel {
        title: "Held-out loss".into(),
        x: Axis::log(COMPUTE),
        y: Axis::log(LOSS),
        layers,
    }))
}
