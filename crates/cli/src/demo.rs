use crate::compare::grown_shapes_in;
use crate::comparison::{Comparison, Sides};
use crate::law::PlanningLaw;
use crate::pilot::{PilotMade, PilotRuns, branch_point, law_path, with_prepared_tokens};
use crate::plan::{self, Planned, vocabulary};
use crate::run_figure::predicted_against_actual;
use crate::run_record::RunRecord;
use crate::side_by_side::run_all;
use crate::{compare, figures, output, plan_report, plan_warnings, report, shapes};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use measure::{Flops, GptShape};
use model::DeviceChoice;
use scaling::BatchPolicy;
use scaling::plan::{
    FinalShape, Goal, Operators, PlanError, Request, Stop, WidthRule, pilot_shapes,
};
use schedule::{Schedule, StageSpec};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trainer::RunOptions;

/// What the demo does by itself, and what on a text.
struct Kind {
    /// The embedded recipe, so that the program needs no file, and where it lies.
    recipe: (&'static str, &'static str),
    /// Compute of the run from scratch for each minute of the whole demo, on two cores of 2020 or later: 6 N D FLOPs.
    /// With the tokens per parameter it fixes the size.
    flops_per_minute: f64,
    /// Tokens of the run from scratch over its parameters.
    tokens_per_param: f64,
    /// Share of the compute from scratch that goes into pilot runs.
    pilot_share: f64,
    /// Pilot sizes at most.
    pilot_sizes: usize,
    /// Growths of the staged run.
    operators: Operators,
    /// Share of the tokens from scratch by which the last growth comes, in the staged run and in the pilot run that grows.
    grow_by: Option<f64>,
    /// Most stages of the staged run.
    most_stages: usize,
    /// For people.
    learns: &'static str,
}

/// Few tokens, since staging saves nothing beyond the step in the language's curve (docs/savings/synthetic.md).
const SYNTHETIC: Kind = Kind {
    recipe: (include_str!("../../../schedules/demo.toml"), "schedules/demo.toml"),
    flops_per_minute: 1.9e12,
    tokens_per_param: 3.0,
    pilot_share: 0.15,
    pilot_sizes: 3,
    operators: WIDTH,
    grow_by: None,
    most_stages: 4,
    learns: "a synthetic language",
};

/// Less compute, since further runs from scratch follow; more tokens and a larger share for pilot runs, since shorter ones
/// say too little; and one growth, inside the blocks and early: others save less or cost more (docs/savings/demo_on_text.md).
const TEXT: Kind = Kind {
    recipe: (include_str!("../../../schedules/demo_text.toml"), "schedules/demo_text.toml"),
    flops_per_minute: 0.7e12,
    tokens_per_param: 10.0,
    pilot_share: 0.22,
    pilot_sizes: 2,
    operators: Operators { head_size: true, feed_forward: true, ..Operators::NONE },
    grow_by: Some(0.35),
    most_stages: 2,
    learns: "your text",
};

/// Further runs from scratch where the learning rate decays, each so many times as long as the one before, until their ends
/// enclose the staged run's; and how many at most.
const LONGER: f64 = 1.5;
const SHORTER: f64 = 0.6;
const MOST_FURTHER: i32 = 3;

/// Between pilot shapes, whose law is one of a single depth, and in the staged run on the synthetic language. By whole factors, since small growths
/// late are not worth it (docs/LOG.md).
const WIDTH: Operators = Operators { width: Some(WidthRule::Integer), ..Operators::NONE };

/// Width of a head.
const HEAD_SIZE: usize = 16;

/// Evaluations of each run.
const EVALUATIONS: u64 = 60;

/// Arguments of `staged demo`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  staged demo\n  staged demo --text book.txt --minutes 20 --out runs/mine"
)]
pub struct Demo {
    /// Text files to learn, byte by byte, instead of the synthetic language
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Target duration on two cores, 0.5 to 10000 minutes, which sets the model's size [default: 2, or with --resume that of the demo]
    #[arg(long, value_parser = minutes)]
    minutes: Option<f64>,
    /// The folder of everything [default: runs/demo, or the first free of runs/demo-2, ...]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a demo that was stopped; needs --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    in_range(text.parse().unwrap_or(f64::NAN))
}

/// Minutes that a demo can be meant to take.
fn in_range(minutes: f64) -> Result<f64, String> {
    let is_in_range = (0.5..=10_000.0).contains(&minutes);
    is_in_range.then_some(minutes).ok_or_else(|| "must be from 0.5 to 10000".to_string())
}

/// What a demo takes where nothing is said.
const MINUTES: f64 = 2.0;

/// Where a demo's folder has its settings.
pub const SETTINGS_FILE: &str = "demo.json";

/// Changes with what a demo makes of its settings.
const DEMO_VERSION: u32 = 4;

/// What a demo's runs follow from, beside the text, which its tokens tell.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// None in the first version.
    #[serde(default)]
    version: u32,
    minutes: f64,
    on_text: bool,
}

impl Settings {
    /// Those of the demo in a folder.
    fn of(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SETTINGS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let held = serde_json::from_slice(&std::fs::read(&path)?);
        let held: Self = held.with_context(|| path.display().to_string())?;
        in_range(held.minutes)
            .map_err(|due| anyhow!("{}: minutes = {}: {due}", path.display(), held.minutes))?;
        Ok(Some(held))
    }

    /// Errs if the folder holds a demo of other settings.
    fn check(&self, held: &Self, folder: &Path) -> Result<()> {
        if held.version != self.version {
            bail!(
                "{}: holds a demo of another version of staged; choose another --out",
                folder.display()
            );
        }
        if held != self {
            bail!(
                "{}: holds a demo with {held}, and this one is with {self}; give the same, or another --out",
                folder.display()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = if self.on_text { "on a text" } else { "on the synthetic language" };
        write!(f, "--minutes {} {source}", self.minutes)
    }
}

/// The whole story in numbers.
#[derive(Serialize)]
struct Story {
    folder: PathBuf,
    pilots: Vec<PilotMade>,
    predicted_loss: f64,
    #[serde(flatten)]
    comparison: Comparison,
    loss_floor: Option<f64>,
    seconds: f64,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let began = Instant::now();
        let folder = self.folder()?;
        let kind = if self.text.is_empty() { SYNTHETIC } else { TEXT };
        let held = Settings::of(&folder)?;
        let minutes = self.minutes.or(held.as_ref().map(|held| held.minutes));
        let settings = Settings {
            version: DEMO_VERSION,
            minutes: minutes.unwrap_or(MINUTES),
            on_text: !self.text.is_empty(),
        };
        if let Some(held) = &held {
            settings.check(held, &folder)?;
        }
        let path = folder.join(SETTINGS_FILE);
        let is_new = !folder.exists();
        output::write_file(&path, &serde_json::to_string_pretty(&settings)?)?;
        let recipe = self.recipe(&kind, settings.minutes, &folder).inspect_err(|_| {
            if self.resume {
                return;
            }
            // What was made for nothing goes again; only an empty folder can be removed this way.
            let _ = std::fs::remove_file(&path);
            if is_new {
                let _ = std::fs::remove_dir(&folder);
            }
        })?;
        let last =
            shapes::last(&recipe, vocabulary(&recipe)?.context("the recipe tells no vocabulary")?)?;
        let scratch_compute =
            kind.tokens_per_param * last.n_params() as f64 * last.flops_per_token().0;
        output::note(&format!(
            "a GPT of {last} (layers x width x heads), N = {}, learns {}; everything is kept in {}",
            output::count(last.n_params()),
            kind.learns,
            folder.display()
        ));
        output::note(&format!(
            "1 of 4: pilot runs, {:.0} % of the compute from scratch",
            100.0 * kind.pilot_share
        ));
        let pilots = PilotRuns {
            recipe: &recipe,
            compute: kind.pilot_share * scratch_compute,
            shapes: pilot_shapes(&last, WIDTH, kind.pilot_sizes),
            grow: (kind.operators != WIDTH).then_some(kind.operators),
            grow_by: kind.grow_by,
            folder: &folder.join("pilots"),
            device: DeviceChoice::Cpu,
            resume: self.resume,
        };
        let Some((law, made)) = pilots.law()? else {
            interrupted(&folder);
            return output::outcome(self.json, "interrupted");
        };
        output::note(&format!(
            "2 of 4: a law from {} points, {:.2} % r.m.s. off them: {}",
            law.points,
            100.0 * law.residuals.root_mean_square,
            law.equation
        ));
        output::note("3 of 4: a plan under this law");
        let Some((schedule, predicted_loss)) = plan(&kind, &recipe, last, &folder)? else {
            return output::outcome(self.json, "no_plan");
        };
        output::note("4 of 4: the staged run, and the same shape from scratch beside it");
        let pilot_compute = law.compute.unwrap_or(0.0);
        let Some((sides, loss_floor)) = self.trained(schedule, &folder, pilot_compute)? else {
            interrupted(&folder);
            return output::outcome(self.json, "interrupted");
        };
        let story = Story {
            comparison: sides.compare(&[])?,
            predicted_loss,
            pilots: made,
            loss_floor,
            seconds: began.elapsed().as_secs_f64(),
            folder,
        };
        story.draw(&sides)?;
        if self.json { output::json(&story) } else { story.print() }
    }

    /// Where everything goes.
    fn folder(&self) -> Result<PathBuf> {
        let Some(folder) = &self.out else {
            return free_folder().context("runs/demo and its numbered siblings are all taken");
        };
        output::check_name("--out", folder)?;
        if self.resume && !folder.join(SETTINGS_FILE).exists() {
            bail!(
                "{}: holds no demo to go on with (no {SETTINGS_FILE}); leave out --resume to begin one",
                folder.display()
            );
        }
        if !self.resume && output::is_taken(folder) {
            let hint = if folder.join(SETTINGS_FILE).exists() {
                "add --resume to go on with the demo there, or choose another --out"
            } else {
                "choose another --out"
            };
            bail!("{}: is not empty; {hint}", folder.display());
        }
        Ok(folder.clone())
    }

    /// Trains the schedule and its last shape from scratch; both sides, and the loss that no model of the source can go
    /// below, if it is known. `None` when a signal stopped them.
    fn trained(
        &self,
        schedule: Schedule,
        folder: &Path,
        pilot_compute: f64,
    ) -> Result<Option<(Sides, Option<f64>)>> {
        let baseline = schedule.clone().from_scratch()?;
        let baseline = baseline.with_evaluations(EVALUATIONS)?;
        let options = |schedule: Schedule, name: &str, branch_of: Option<PathBuf>| RunOptions {
            schedule,
            folder: folder.join(name),
            device: DeviceChoice::Cpu,
            resume: self.resume,
            branch_of,
            command: output::command(),
        };
        let runs =
            vec![options(schedule, "staged", None), options(baseline.clone(), "scratch", None)];
        let mut from_scratch = vec![runs[1].clone()];
        let Some(summaries) = run_all("training", runs)? else { return Ok(None) };
        let mut sides = Sides {
            staged: vec![RunRecord::read(&folder.join("staged"))?],
            scratch: vec![RunRecord::read(&folder.join("scratch"))?],
            others: Vec::new(),
            pilot_compute,
        };
        sides.others = grown_shapes_in(&folder.join("pilots"), &sides.staged[0])?;
        if sides.decays() {
            let staged_loss = sides.staged[0].end()?.loss;
            let longer = staged_loss < sides.scratch[0].end()?.loss;
            for k in 1..=MOST_FURTHER {
                let length = if longer { LONGER } else { SHORTER }.powi(k);
                let name = format!("scratch-x{length:.3}");
                output::note(&format!(
                    "from scratch, {length:.3} times as long: the learning rate decays, so only ends are compared"
                ));
                let schedule = baseline.clone().with_length(length)?;
                let branch_of = branch_point(&from_scratch, &schedule);
                let run = options(schedule, &name, branch_of);
                from_scratch.push(run.clone());
                if run_all("training", vec![run])?.is_none() {
                    return Ok(None);
                }
                sides.scratch.push(RunRecord::read(&folder.join(name))?);
                let enclosed = sides.scratch[k as usize].end()?.loss < staged_loss;
                if enclosed == longer {
                    break;
                }
            }
        }
        Ok(Some((sides, summaries[0].loss_floor)))
    }

    fn recipe(&self, kind: &Kind, minutes: f64, folder: &Path) -> Result<Schedule> {
        let (text, path) = kind.recipe;
        let mut recipe = Schedule::parse(text, Path::new(path))?;
        if !self.text.is_empty() {
            recipe = recipe.with_text(self.text.clone())?;
        }
        let shape = shape_for(minutes, kind, &recipe);
        let steps =
            kind.tokens_per_param * shape.n_params() as f64 / recipe.batch().tokens_at(1) as f64;
        let recipe = recipe.with_stages(vec![StageSpec::new(&shape, steps.ceil() as u64, None)])?;
        with_prepared_tokens(recipe, folder, self.resume)
    }
}

/// The largest shape whose run from scratch costs no more than these minutes allow. Its width is 64 or a doubling of it, so that
/// it can be reached by doublings; its depth is from a 64th to a 16th of its width.
fn shape_for(minutes: f64, kind: &Kind, recipe: &Schedule) -> GptShape {
    let compute = minutes * kind.flops_per_minute;
    let shape = |d_model: usize, n_layers: usize| GptShape {
        context_len: recipe.context_len(),
        ..GptShape::gpt2(n_layers, d_model, d_model / HEAD_SIZE)
    };
    let widths = (6..12).map(|power| 1 << power);
    let shapes =
        widths.flat_map(|width| (width / 64..=width / 16).map(move |layers| shape(width, layers)));
    let cost = |shape: &GptShape| {
        kind.tokens_per_param * shape.n_params() as f64 * shape.flops_per_token().0
    };
    let fits = shapes.filter(|shape| cost(shape) <= compute);
    fits.max_by_key(GptShape::n_params).unwrap_or(shape(64, 1))
}

/// Plans under the pilot runs' law, and writes and shows the plan: its schedule and final loss. `None`, and why, where nothing grows.
fn plan(
    kind: &Kind,
    recipe: &Schedule,
    last: GptShape,
    folder: &Path,
) -> Result<Option<(Schedule, f64)>> {
    const LONGER_RUNS: &str = "a longer demo (--minutes) has longer pilot runs";
    let opened = PlanningLaw::open(&law_path(&folder.join("pilots")).to_string_lossy());
    let law = match opened.and_then(|law| law.measured_pace().map(|_| law)) {
        Ok(law) => law,
        Err(reason) => {
            output::note(&format!("no plan: {reason:#}; {LONGER_RUNS}"));
            return Ok(None);
        }
    };
    let planned = planned(kind, recipe, last, law)?;
    let schedule = planned.schedule.clone().named("demo")?;
    let schedule = schedule.with_evaluations(EVALUATIONS)?.on_one_thread();
    let text = plan_report::comment(&planned) + &schedule.to_toml();
    output::write_file(&folder.join("staged.toml"), &text)?;
    for line in plan_report::stage_lines(&planned) {
        output::note(&format!("  {line}"));
    }
    for warning in plan_warnings::warnings(&planned) {
        output::note(&format!("  warning: {warning}"));
    }
    if let Some(reason) = &planned.plan.advice.reason {
        if planned.plan.stages.len() < 2 {
            output::note(&format!("do not grow: {reason}; {LONGER_RUNS}"));
            return Ok(None);
        }
        output::note(&format!("advice: do not grow: {reason}; the staged run is made to see it"));
    }
    Ok(Some((schedule, planned.plan.final_loss)))
}

/// The best chain to the loss that the last shape has from scratch after its tokens; where no growth pays, the best with one, if
/// there is any, to show what it costs.
fn planned(kind: &Kind, recipe: &Schedule, last: GptShape, law: PlanningLaw) -> Result<Planned> {
    let batch = BatchPolicy::Fixed { batch_tokens: recipe.batch().tokens_at(1) as f64 };
    let costs = law.cost(Some(batch), None)?;
    let of_stages = |stages| {
        let request = Request {
            cost: costs.cost.clone(),
            resampled: costs.resampled.clone(),
            goal: Goal::Stop(Stop::TokensPerParam(kind.tokens_per_param)),
            last: FinalShape::Given(last),
            stages,
            operators: kind.operators,
            through: Vec::new(),
            grow_by: kind.grow_by,
        };
        plan::plan(&request, recipe.clone(), law.clone(), &costs)
    };
    let best = of_stages(1..=kind.most_stages)?;
    if best.plan.stages.len() > 1 {
        return Ok(best);
    }
    match of_stages(2..=kind.most_stages) {
        Err(error) if matches!(error.downcast_ref(), Some(PlanError::NoChain { .. })) => Ok(best),
        grown => grown,
    }
}

fn interrupted(folder: &Path) {
    output::note(&format!(
        "interrupted; go on with the same command and --out {} --resume",
        folder.display()
    ));
}

impl Story {
    fn draw(&self, sides: &Sides) -> Result<()> {
        let figure =
            predicted_against_actual(&sides.staged, &sides.scratch, Some(&self.comparison));
        for name in ["figure.svg", "figure.png"] {
            figures::write(&figure, &self.folder.join(name))?;
        }
        figures::learning_curves(&sides.staged[0].schedule)?
            .write(&self.folder.join("plan.svg"))?;
        report::write(sides, &self.folder.join("report.html"))
    }

    fn print(&self) -> Result<()> {
        compare::print(&self.comparison)?;
        if let (Some(floor), Some(last)) = (self.loss_floor, self.comparison.stages.last()) {
            output::line(&format!(
                "floor {floor:.4} nats per token (the source's own entropy): {:.4} left to learn",
                last.actual_loss - floor
            ))?;
        }
        let pilots: f64 = self.pilots.iter().map(|pilot| pilot.compute).sum();
        output::line(&format!(
            "{} pilot runs took {}; this command took {}",
            self.pilots.len(),
            Flops(pilots),
            output::duration(self.seconds)
        ))?;
        let folder = self.folder.display();
        output::line(&format!("figure: {folder}/figure.svg"))?;
        output::line(&format!("report: {folder}/report.html"))?;
        if let (Some(saving), Some(stage)) =
            (self.comparison.savings.last(), self.comparison.stages.last())
        {
            output::line(&format!(
                "predicted loss {:.4}, actual {:.4}; predicted saving {:.1} %, actual {:.1} %, with the pilot runs \
                 {:.1} %",
                stage.predicted_loss.unwrap_or(self.predicted_loss),
                stage.actual_loss,
                100.0 * self.comparison.predicted_saving.unwrap_or(0.0),
                100.0 * saving.found.saving,
                100.0 * saving.found.saving_with_pilots,
            ))?;
        }
        Ok(())
    }
}

fn free_folder() -> Option<PathBuf> {
    let names = (1..1000).map(|n| if n == 1 { "demo".into() } else { format!("demo-{n}") });
    names.map(|name| Path::new("runs").join(name)).find(|folder| !folder.exists())
}
