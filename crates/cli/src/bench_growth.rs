//! `staged bench growth`: how fast the loss falls after each way of growing, against the target size
//! from scratch at the same loss.

use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::{figures, output, shapes, train};
use anyhow::{Context, Result, bail};
use clap::Args;
use corpus::Corpus;
use measure::{GptShape, Precision, SmoothCurve};
use plot::{Axis, Color, Figure, Layer, Panel, Stroke};
use schedule::{
    DecayShape, DepthMode, Growth, MomentRule, NamedPlacement, Placement, Schedule, StageSpec,
    WidthMode,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trainer::{Event, Learner, Trial, TrialPoint, open_corpus, prepare_text};

/// Updates from one evaluation to the next.
const EVERY: u64 = 40;

/// Arguments of `staged bench growth`.
#[derive(Args)]
#[command(
    override_usage = "staged bench growth <SCHEDULE> --out <DIR> [OPTIONS]",
    after_help = "The target size is the shape of the schedule's last stage.\n\nExample: staged bench growth schedules/dickens_scratch.toml --text dickens.txt -o runs/growth\n\n\
    What is measured is kept in OUT/curves.csv; the same command goes on where it was stopped."
)]
pub struct GrowthBench {
    #[command(flatten)]
    recipe: Recipe,
    /// Size that grows wider, as 4x64x2 or 4x64x1-h32-f128
    #[arg(long, default_value = "4x64x2")]
    narrow: String,
    /// Size that grows deeper, as 2x128x4
    #[arg(long, default_value = "2x128x4")]
    shallow: String,
    /// Steps before the growth
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Updates after the growth, a multiple of 40 from 80 on
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(80..))]
    updates: u64,
    /// Seeds of the runs
    #[arg(long, num_args = 1.., default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Folder of the curves
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Draw the curves, means over the seeds: FILE.svg or FILE.png
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A point of a curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    seed: u64,
    case: String,
    /// After the growth; from the start for runs from scratch.
    updates: u64,
    /// Held out, nats per token.
    loss: f64,
    /// Of the hidden matrices with themselves when two copies change places.
    cosine: Option<f64>,
}

/// A way of growing.
struct Case {
    name: String,
    deeper: bool,
    growth: Growth,
}

#[derive(Serialize)]
struct CaseReport {
    case: String,
    seeds: usize,
    /// Fall of the loss over the updates after the growth, nats per token.
    fall: f64,
    /// The same over that of the target size from scratch at the same loss.
    dynamics_ratio: f64,
    lowest_ratio: f64,
    highest_ratio: f64,
    /// Loss right after the growth, less the one before.
    jump: f64,
    /// Loss at the end less that of the smaller model, had it gone on.
    against_small: f64,
    /// Cosine of the copies at the end.
    cosine: Option<f64>,
}

/// What is found for a seed.
struct OfSeed {
    fall: f64,
    ratio: f64,
    jump: f64,
    against_small: f64,
    cosine: Option<f64>,
}

const SCRATCH: &str = "from scratch";
const NARROW: &str = "narrow goes on";
const SHALLOW: &str = "shallow goes on";

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, deeper: bool, growth: Growth| {
        cases.push(Case { name: name.to_string(), deeper, growth });
    };
    let width = |width| Growth { width, ..Growth::default() };
    let split = |split_strength| Growth { split_strength, ..width(WidthMode::Split) };
    let depth = |depth| Growth { depth, ..Growth::default() };
    let copy =
        |placement| Growth { placement: Placement::Named(placement), ..depth(DepthMode::Copy) };
    add("duplicate", false, width(WidthMode::Duplicate));
    for strength in [0.1, 0.25, 0.5, 1.0] {
        add(&format!("split {strength}"), false, split(strength));
    }
    add("fresh", false, width(WidthMode::Fresh));
    add("identity", true, depth(DepthMode::Identity));
    add("copy_identity", true, depth(DepthMode::CopyIdentity));
    add("copy, interleaved", true, copy(NamedPlacement::Interleave));
    add("copy, stacked", true, copy(NamedPlacement::Stack));
    for (name, deeper, growth) in [
        ("split 0.5", false, split(0.5)),
        ("fresh", false, width(WidthMode::Fresh)),
        ("copy_identity", true, depth(DepthMode::CopyIdentity)),
    ] {
        for (rule, text) in
            [(MomentRule::Zero, "zero"), (MomentRule::Reestimated(10), "re-estimated from 10")]
        {
            let growth = Growth { moments: rule, ..growth.clone() };
            add(&format!("{name}, moments {text}"), deeper, growth);
        }
        for rewarmup_steps in [50, 150] {
            let growth = Growth { rewarmup_steps, ..growth.clone() };
            add(&format!("{name}, re-warm-up {rewarmup_steps}"), deeper, growth);
        }
    }
    cases
}

impl GrowthBench {
    pub fn run(self) -> Result<()> {
        let schedule = self.recipe.read()?;
        if schedule.machine().precision == Precision::Bf16 {
            bail!(
                "{}: machine.precision = \"bf16\": must be f32, for growths are measured on the CPU",
                self.recipe.path().display()
            );
        }
        let mut seeds = HashSet::new();
        if let Some(seed) = self.seeds.iter().find(|seed| !seeds.insert(**seed)) {
            bail!("--seeds: {seed} is given twice");
        }
        if !self.updates.is_multiple_of(EVERY) {
            bail!("--updates {}: must be a multiple of {EVERY}", self.updates);
        }
        if schedule.learning_rate().shape != DecayShape::Constant {
            bail!(
                "{}: learning_rate.shape must be constant, for the runs differ in length",
                self.recipe.path().display()
            );
        }
        if schedule.ramp().is_some() {
            bail!(
                "{}: leave out [batch.ramp], for runs are compared by updates",
                self.recipe.path().display()
            );
        }
        let target = shapes::last(&schedule, 1)?;
        for (option, text, deeper) in
            [("--narrow", &self.narrow, false), ("--shallow", &self.shallow, true)]
        {
            let small = shapes::shape(option, text, 1, schedule.context_len())?;
            let small = GptShape { tied_head: target.tied_head, ..small };
            for case in cases().into_iter().filter(|case| case.deeper == deeper) {
                if let Err(refusal) = case.growth.plan(&small, &target) {
                    bail!(
                        "{option} {text}: does not grow into {target} by {}: {} = {}: {}",
                        case.name,
                        refusal.key,
                        refusal.value,
                        refusal.expected
                    );
                }
            }
        }
        if let Some(figure) = &self.figure {
            figures::check_target(figure)?;
        }
        train::use_threads(schedule.machine().threads)?;
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("{} cannot be made", self.out.display()))?;
        let begun = self.out.join("curves.csv").exists();
        self.settings(&schedule, begun)?;
        let mut progress = Progress::new();
        let shown = &mut |event: &Event| progress.show(event);
        let prepared = prepare_text(&schedule, &self.out, begun, shown, train::stop_on_signals()?);
        progress.end();
        prepared?;
        let corpus = Arc::new(open_corpus(&schedule, &self.out)?);
        let mut measured = Measured::open(&self.out.join("curves.csv"))?;
        for seed in &self.seeds {
            self.measure(&schedule, &corpus, *seed, &mut measured)?;
        }
        let reports = self.reports(&measured)?;
        if let Some(path) = &self.figure {
            figures::write(&self.figure(&measured), path)?;
        }
        if self.json { output::json(&reports) } else { print(&reports) }
    }

    /// Writes down what is measured, or errs if the folder holds something else. Settings of which nothing is measured count for nothing.
    fn settings(&self, schedule: &Schedule, begun: bool) -> Result<()> {
        let path = self.out.join("settings.toml");
        let Self { narrow, shallow, steps, updates, .. } = self;
        let settings = format!(
            "# --narrow {narrow} --shallow {shallow} --steps {steps} --updates {updates}\n{}",
            schedule.to_toml()
        );
        if !output::is_taken(&self.out) {
            return output::write_file(&path, &settings);
        }
        match std::fs::read_to_string(&path) {
            Ok(held) if held == settings => Ok(()),
            Ok(held) if held.starts_with("# --narrow ") && !begun => {
                output::write_file(&path, &settings)
            }
            Ok(held) if held.starts_with("# --narrow ") => {
                let pairs = held.lines().zip(settings.lines());
                let apart = pairs.into_iter().find(|(there, here)| there != here);
                let (there, here) = apart.unwrap_or(("more", "less"));
                bail!(
                    "{}: was measured with other settings (`{there}` there, `{here}` here); choose another --out",
                    path.display()
                )
            }
            _ => bail!(
                "{}: is not empty and holds no bench growth; choose another --out",
                self.out.display()
            ),
        }
    }

    /// Runs what is not measured yet for a seed.
    fn measure(
        &self,
        schedule: &Schedule,
        corpus: &Arc<Corpus>,
        seed: u64,
        measured: &mut Measured,
    ) -> Result<()> {
        let schedule = schedule.clone().with_seed(seed);
        let n_vocab = corpus.n_vocab();
        let last = schedule.stages().last().context("no stages")?;
        let target = last.shape(n_vocab);
        let trial = Trial::new(schedule, Arc::clone(corpus));
        let follow = |learner: &mut Learner, case: &str, most: u64, goal: Option<f64>| {
            followed(&trial, learner, seed, case, most, goal.map(|loss| (loss, self.updates)))
        };
        let stage = |shape: &GptShape, steps| StageSpec::new(shape, steps, None);
        let beginnings = [
            (&self.narrow, "--narrow", false, NARROW),
            (&self.shallow, "--shallow", true, SHALLOW),
        ];
        for (from, option, deeper, name) in beginnings {
            let cases: Vec<Case> = cases()
                .into_iter()
                .filter(|case| case.deeper == deeper && !measured.has(seed, &case.name))
                .collect();
            if cases.is_empty() && measured.has(seed, name) {
                continue;
            }
            let small = shapes::shape(option, from, n_vocab, target.context_len)?;
            let mut learner = trial.begin(vec![stage(&small, self.steps + self.updates)], None)?;
            Trial::train(&mut learner, self.steps)?;
            let state = learner.state();
            if !measured.has(seed, name) {
                measured.add(follow(&mut learner, name, self.updates, None)?)?;
            }
            for case in cases {
                let grown = StageSpec::new(&target, self.updates, Some(case.growth));
                let stages = vec![stage(&small, self.steps), grown];
                let mut learner = trial.begin(stages, Some(state.clone()))?;
                trial.grow(&mut learner)?;
                measured.add(follow(&mut learner, &case.name, self.updates, None)?)?;
            }
        }
        if !measured.has(seed, SCRATCH) {
            let goal = [NARROW, SHALLOW]
                .iter()
                .filter_map(|name| measured.loss(seed, name, 0))
                .fold(f64::INFINITY, f64::min);
            let most = 10 * (self.steps + self.updates);
            let mut learner = trial.begin(vec![stage(&target, most)], None)?;
            measured.add(follow(&mut learner, SCRATCH, most, Some(goal))?)?;
        }
        Ok(())
    }

    fn reports(&self, measured: &Measured) -> Result<Vec<CaseReport>> {
        let names = [NARROW, SHALLOW].map(|name| (name.to_string(), name == SHALLOW));
        let cases = cases().into_iter().map(|case| (case.name, case.deeper));
        names
            .into_iter()
            .chain(cases)
            .map(|(case, deeper)| self.report(measured, case, deeper))
            .collect()
    }

    /// Curves after the growth: by width, by depth, and the two defaults with other moments and
    /// re-warm-ups; and how alike the copies are.
    fn figure(&self, measured: &Measured) -> Figure {
        let mean = |case: &str, pick: &dyn Fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
            let at = |updates: u64| {
                let values: Option<Vec<f64>> = self
                    .seeds
                    .iter()
                    .map(|seed| pick(measured.row(*seed, case, updates)?))
                    .collect();
                let values = values?;
                Some((updates as f64, values.iter().sum::<f64>() / values.len() as f64))
            };
            (0..=self.updates).step_by(EVERY as usize).filter_map(at).collect()
        };
        let panel = |title: &str, y: Axis, cases: &[&str], pick: &dyn Fn(&Row) -> Option<f64>| {
            let with_small = [NARROW, SHALLOW].contains(&cases[0]);
            let line = |(i, case): (usize, &&str)| {
                let (color, stroke) = if [NARROW, SHALLOW].contains(case) {
                    (Color::Grey, Stroke::Dashed)
                } else {
                    (Color::Series(if with_small { i - 1 } else { i }), Stroke::Solid)
                };
                let label = Some(case.trim_start_matches("split 0.5, ").to_string());
                let mut points = mean(case, pick);
                if case.starts_with("copy,") && !points.is_empty() {
                    // Right after the growth they are far above; the table has the jump.
                    points.remove(0);
                }
                Layer::Line { points, color, stroke, label }
            };
            Panel {
                title: title.to_string(),
                x: Axis::linear("updates after the growth"),
                y,
                layers: cases.iter().enumerate().map(line).collect(),
            }
        };
        let loss = |row: &Row| Some(row.loss);
        let y = || Axis::linear("held-out loss (nats per token)");
        let width =
            [NARROW, "duplicate", "split 0.1", "split 0.25", "split 0.5", "split 1", "fresh"];
        let depth = [SHALLOW, "identity", "copy_identity", "copy, interleaved", "copy, stacked"];
        let split = [
            NARROW,
            "split 0.5",
            "split 0.5, moments zero",
            "split 0.5, moments re-estimated from 10",
            "split 0.5, re-warm-up 50",
            "split 0.5, re-warm-up 150",
        ];
        Figure {
            panels: vec![
                panel("Wider", y(), &width, &loss),
                panel("Deeper", y(), &depth, &loss),
                panel("Moments and re-warm-up", y(), &split, &loss),
                panel("Likeness of the copies", Axis::linear("cosine"), &width[1..6], &|row| {
                    row.cosine
                }),
            ],
            columns: 2,
        }
    }

    fn report(&self, measured: &Measured, case: String, deeper: bool) -> Result<CaseReport> {
        let small = if deeper { SHALLOW } else { NARROW };
        let last = self.updates;
        let end = |seed: u64, name: &str, last: u64| {
            let at = |updates| measured.loss(seed, name, updates);
            Some(f64::midpoint(at(last - EVERY)?, at(last)?))
        };
        let mut rows = Vec::new();
        for seed in &self.seeds {
            let missing = || {
                format!(
                    "{case}, seed {seed}: not measured, or at a loss that the run from scratch is not seen at; more --steps lead to a lower loss"
                )
            };
            let before = measured.loss(*seed, small, 0).with_context(missing)?;
            let after = end(*seed, &case, last).with_context(missing)?;
            let scratch: Vec<(f64, f64)> = measured.curve(*seed, SCRATCH);
            let smooth = SmoothCurve::new(&scratch)?;
            let from = smooth.compute_at(before).with_context(missing)?;
            let at = |updates: u64| smooth.loss_at(from + updates as f64);
            let scratch_end = at(last - EVERY).zip(at(last)).with_context(missing)?;
            let scratch_fall = before - f64::midpoint(scratch_end.0, scratch_end.1);
            let small_end = end(*seed, small, last).with_context(missing)?;
            let jump = measured.loss(*seed, &case, 0).with_context(missing)? - before;
            let cosine = measured.cosine(*seed, &case, last);
            let fall = before - after;
            let (ratio, against_small) = (fall / scratch_fall, after - small_end);
            rows.push(OfSeed { fall, ratio, jump, against_small, cosine });
        }
        let n = rows.len() as f64;
        let mean = |pick: fn(&OfSeed) -> f64| rows.iter().map(pick).sum::<f64>() / n;
        let ratios = || rows.iter().map(|row| row.ratio);
        let cosines: Vec<f64> = rows.iter().filter_map(|row| row.cosine).collect();
        Ok(CaseReport {
            case,
            seeds: rows.len(),
            fall: mean(|row| row.fall),
            dynamics_ratio: mean(|row| row.ratio),
            lowest_ratio: ratios().fold(f64::INFINITY, f64::min),
            highest_ratio: ratios().fold(f64::NEG_INFINITY, f64::max),
            jump: mean(|row| row.jump),
            against_small: mean(|row| row.against_small),
            cosine: (!cosines.is_empty())
                .then(|| cosines.iter().sum::<f64>() / cosines.len() as f64),
        })
    }
}

/// The curve of a run for so many updates; with a loss and a number, until so many updates and two evaluations more are made from that
/// loss on.
fn followed(
    trial: &Trial,
    learner: &mut Learner,
    seed: u64,
    case: &str,
    most: u64,
    enough: Option<(f64, u64)>,
) -> Result<Vec<Row>> {
    let (mut rows, mut reached) = (Vec::new(), None);
    trial.follow(learner, most, EVERY, &mut |point| {
        let TrialPoint { updates, loss, cosine_of_copies } = point;
        output::note(&format!("seed {seed}, {case}: {updates} updates, loss {loss:.4}"));
        rows.push(Row { seed, case: case.to_string(), updates, loss, cosine: cosine_of_copies });
        let Some((goal, after)) = enough else { return ControlFlow::Continue(()) };
        if loss <= goal {
            reached.get_or_insert(updates);
        }
        match reached {
            Some(reached) if updates >= reached + after + 2 * EVERY => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })?;
    Ok(rows)
}

/// The curves on disk.
struct Measured {
    path: PathBuf,
    curves: BTreeMap<(u64, String), Vec<Row>>,
}

impl Measured {
    fn open(path: &Path) -> Result<Self> {
        let mut measured = Self { path: path.to_path_buf(), curves: BTreeMap::new() };
        if path.exists() {
            let name = path.display().to_string();
            let mut reader = csv::Reader::from_path(path).with_context(|| name.clone())?;
            for row in reader.deserialize() {
                let row: Row = row.with_context(|| name.clone())?;
                measured.curves.entry((row.seed, row.case.clone())).or_default().push(row);
            }
        }
        Ok(measured)
    }

    fn has(&self, seed: u64, case: &str) -> bool {
        self.curves.contains_key(&(seed, case.to_string()))
    }

    /// Keeps a case whole, or not at all.
    fn add(&mut self, rows: Vec<Row>) -> Result<()> {
        for row in rows {
            self.curves.entry((row.seed, row.case.clone())).or_default().push(row);
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in self.curves.values().flatten() {
            writer.serialize(row)?;
        }
        output::write_file(&self.path, &String::from_utf8(writer.into_inner()?)?)
    }

    fn row(&self, seed: u64, case: &str, updates: u64) -> Option<&Row> {
        let rows = self.curves.get(&(seed, case.to_string()))?;
        rows.iter().find(|row| row.updates == updates)
    }

    fn loss(&self, seed: u64, case: &str, updates: u64) -> Option<f64> {
        Some(self.row(seed, case, updates)?.loss)
    }

    fn cosine(&self, seed: u64, case: &str, updates: u64) -> Option<f64> {
        self.row(seed, case, updates)?.cosine
    }

    /// Updates and losses, without the start.
    fn curve(&self, seed: u64, case: &str) -> Vec<(f64, f64)> {
        let rows = self.curves.get(&(seed, case.to_string()));
        let points = rows.into_iter().flatten().filter(|row| row.updates > 0);
        points.map(|row| (row.updates as f64, row.loss)).collect()
    }
}

fn print(reports: &[CaseReport]) -> Result<()> {
    output::line(
        "case                                     ratio  (lowest, highest)    fall    jump  against small  cosine",
    )?;
    for report in reports {
        let cosine = report.cosine.map_or("-".to_string(), |cosine| format!("{cosine:.4}"));
        output::line(&format!(
            "{:<40} {:>5.2}  ({:>5.2}, {:>5.2})    {:>7.4} {:>7.4} {:>9.4} {:>12}",
            report.case,
            report.dynamics_ratio,
            report.lowest_ratio,
            report.highest_ratio,
            report.fall,
            report.jump,
            report.against_small,
            cosine,
        ))?;
    }
    output::line(
        "ratio: fall of the loss after the growth over that of the target size from scratch at the same loss",
    )
}
