mod grown;
mod text;

use text::TEXT_FILE;
pub use text::with_prepared_tokens;

use crate::plan::{grow_by, operators};
use crate::recipe::Recipe;
use crate::run_record::run_folders;
use crate::side_by_side::run_all;
use crate::{demo, fit, output, shapes};
use anyhow::{Context, Result, bail};
use clap::Args;
use grown::without_grown_run;
use measure::{Flops, GptShape, LearningCurve};
use model::DeviceChoice;
use scaling::plan::{
    Operators, Pilot as PlannedPilot, grown_from, in_proportion, pilot_shapes, pilots,
};
use scaling::{Fit, GrownRun};
use schedule::{Schedule, StageSpec};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use trainer::{RunFolder, RunOptions, RunSummary};

/// Evaluations of a pilot run: they are not counted as compute, but take time.
const EVALUATIONS: u64 = 24;

/// Lengths of each shape's runs over that of the longest where the learning rate decays.
pub const LENGTHS: [f64; 3] = [1.0, 0.6, 0.36];

/// Share of the shortest run's steps that the warm-up takes at most where only the ends count: with more, short runs end too
/// high and bend the law.
const MOST_WARMUP: f64 = 0.15;

/// Steps of a pilot run, at least.
const LEAST_STEPS: u64 = 10;

/// Resamples of the law, for the interval of what is planned with it.
const BOOTSTRAPS: usize = 200;

/// Arguments of `staged pilot`.
#[derive(Args)]
#[command(
    override_usage = "staged pilot <SCHEDULE> [OPTIONS]",
    after_help = "The law is for the shape of the schedule's last stage.\n\nExample: staged pilot schedules/dickens_batch1024_baseline.toml --text dickens.txt --share 0.3 --grow feed-forward,head-size \
    --grow-by 0.35 -o runs/pilots\n\n\
    Then: staged plan --law runs/pilots/law.json --template schedules/dickens_batch1024_baseline.toml --shape 4x128x4 --stop 10tpp \
    --operators feed-forward,head-size --grow-by 0.35 -o mine.toml"
)]
pub struct Pilot {
    #[command(flatten)]
    recipe: Recipe,
    /// Compute of the run that is to be planned, FLOPs [default: that of the schedule]
    #[arg(long, value_name = "FLOPS")]
    budget: Option<f64>,
    /// Share of --budget to spend on the pilot runs, above 0 and at most 1
    #[arg(long, default_value_t = 0.15)]
    share: f64,
    /// Number of pilot sizes (2 to 6): about 1/4 of the last shape's parameters, 1/16, ...
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=6))]
    sizes: u64,
    /// Growths by which pilot shapes grow into the last one. Within one depth the loss depends on N alone more
    /// nearly, and mu-P carries the learning rate over
    #[arg(long, value_delimiter = ',', default_value = "width")]
    operators: Vec<String>,
    /// The pilot shapes themselves, as 2x128x4,1x128x4: for a law at one width, or of shapes nearer to the last one
    #[arg(long, value_delimiter = ',', value_name = "SHAPES", conflicts_with_all = ["sizes", "operators"])]
    shapes: Vec<String>,
    /// What grows into the largest pilot shape to measure the pace, if the learning rate decays: width, width-integer, depth, heads, head-size
    /// and feed-forward [default: the growth from the next smaller pilot shape]
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    grow: Vec<String>,
    /// Latest such growth: at the loss that the largest pilot shape has after this share (above 0, at most 1) of its tokens from scratch, or above. Use
    /// that of plan --grow-by, since later growths have a lower pace [default: the law's best point]
    #[arg(long, value_name = "SHARE", value_parser = grow_by)]
    grow_by: Option<f64>,
    /// Folder of the runs and of law.json [default: runs/NAME-pilots]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Continue pilot runs that were stopped, or add another grown run (--grow, --grow-by) to those that exist; without
    /// --grow and --grow-by the pace stays that of the last grown run
    #[arg(long)]
    resume: bool,
    /// Print the law as JSON
    #[arg(long)]
    json: bool,
}

/// Pilot runs to make.
pub struct PilotRuns<'a> {
    /// The recipe, with its last shape.
    pub recipe: &'a Schedule,
    /// Compute of all of them, FLOPs.
    pub compute: f64,
    /// Shapes that grow into the recipe's last one, the largest first.
    pub shapes: Vec<GptShape>,
    /// What grows in the grown run; the next smaller shape's growth into the largest where nothing is said.
    pub grow: Option<Operators>,
    /// By which share of the tokens from scratch it does.
    pub grow_by: Option<f64>,
    pub folder: &'a Path,
    pub device: DeviceChoice,
    pub resume: bool,
}

/// A pilot run, for people.
#[derive(Clone, Debug, Serialize)]
pub struct PilotMade {
    pub folder: PathBuf,
    pub n_params: u64,
    pub tokens: u64,
    /// 6 N D of its own, FLOPs: without what it has from the run that it branched off from.
    pub compute: f64,
    pub loss: Option<f64>,
}

impl Pilot {
    pub fn run(self) -> Result<()> {
        let recipe = self.recipe.read()?;
        recipe.check_random_start(self.recipe.path())?;
        let shapes = self.shapes(&recipe)?;
        if !(self.share > 0.0 && self.share <= 1.0) {
            bail!("--share {}: must be above 0 and at most 1", self.share);
        }
        let budget = self.budget.unwrap_or_else(|| recipe.most_compute());
        if !(budget > 0.0 && budget.is_finite()) {
            bail!("--budget {budget}: must be positive");
        }
        let price: f64 = shapes.iter().map(|shape| shape.flops_per_token().0).sum();
        let steps = self.share * budget / price / recipe.batch().final_tokens() as f64;
        if steps > MOST_STEPS {
            bail!(
                "--budget {budget:e}: pilot runs of {steps:.1e} steps; at most {:e}, for {MOST_STEPS:e} steps",
                budget * MOST_STEPS / steps
            );
        }
        let name = format!("{}-pilots", recipe.name());
        let folder = self.out.unwrap_or_else(|| Path::new("runs").join(name));
        output::check_name("-o", &folder)?;
        let grow = (!self.grow.is_empty()).then(|| operators("--grow", &self.grow)).transpose()?;
        let asked = grow.map(|grow| format!("--grow {grow}"));
        let asked = asked.or(self.grow_by.map(|share| format!("--grow-by {share}")));
        if let Some(asked) = asked.filter(|_| !recipe.learning_rate().decays()) {
            bail!(
                "{asked}: the pace after a growth can only be measured if the recipe's learning rate decays, which it does not"
            );
        }
        if !recipe.learning_rate().decays() && recipe.rate_rises() {
            bail!(
                "{}: batch.ramp.rate_exponent: the rate rises with the batch and decays nowhere, so that no two points of a run are at one \
                 rate; a law needs a rate that decays (learning_rate.shape = \"wsd\") or an exponent of 0",
                self.recipe.path().display()
            );
        }
        let device: DeviceChoice = self.device.parse()?;
        // Before tokens are made, which may take long.
        device.open(recipe.machine().precision)?;
        let runs = PilotRuns {
            recipe: &recipe,
            compute: self.share * budget,
            shapes,
            grow,
            grow_by: self.grow_by,
            folder: &folder,
            device,
            resume: self.resume,
        };
        runs.planned()?;
        check_folder(&folder, self.resume, "pilot-", "pilot runs")?;
        let prepared = with_prepared_tokens(recipe.clone(), &folder, self.resume)?;
        let runs = PilotRuns { recipe: &prepared, ..runs };
        let Some((law, made)) = runs.law()? else {
            output::note("interrupted; add --resume to the same command to go on");
            return output::outcome(self.json, "interrupted");
        };
        if self.json {
            let mut value = serde_json::to_value(&law)?;
            let told = fit::pace_and_saving(&law);
            value["pace"] = json!(told.map(|(pace, _)| pace));
            value["grown_run_saving"] = json!(told.map(|(_, saving)| saving));
            value["runs"] = json!(made);
            value["law_file"] = json!(law_path(&folder));
            return output::json(&value);
        }
        for run in &made {
            output::line(&format!(
                "{}: N = {}, {} tokens, {} not shared with others, held-out loss {:.4}",
                run.folder.display(),
                output::count(run.n_params),
                output::count(run.tokens),
                Flops(run.compute),
                run.loss.unwrap_or(f64::NAN),
            ))?;
        }
        fit::report(&law)?;
        output::line(&format!("law: {}", law_path(&folder).display()))
    }

    /// The pilot shapes, the largest first.
    fn shapes(&self, recipe: &Schedule) -> Result<Vec<GptShape>> {
        let last = shapes::last(recipe, 1)?;
        let chosen = operators("--operators", &self.operators)?;
        let wanted = "a law in N is one of shapes with GPT-2's proportions; --grow measures the pace after such a growth";
        if chosen.heads || chosen.head_size || chosen.feed_forward {
            bail!("--operators {}: {wanted}", self.operators.join(","));
        }
        if self.shapes.is_empty() {
            let found = pilot_shapes(&last, chosen, self.sizes as usize);
            if (2..self.sizes as usize).contains(&found.len()) {
                output::note(&format!(
                    "warning: {} sizes instead of {}: no more shapes grow into {last} and are large enough for a law",
                    found.len(),
                    self.sizes,
                ));
            }
            return Ok(found);
        }
        let parsed = self
            .shapes
            .iter()
            .map(|text| shapes::shape("--shapes", text, last.n_vocab, last.context_len));
        let mut found: Vec<GptShape> = parsed.collect::<Result<_>>()?;
        found.sort_by_key(|shape| std::cmp::Reverse(shape.n_params()));
        for pair in found.windows(2) {
            if pair[0].n_params() == pair[1].n_params() {
                bail!("--shapes {},{}: a law in N needs shapes of different N", pair[0], pair[1]);
            }
        }
        for (k, shape) in found.iter().enumerate() {
            let larger = k.checked_sub(1).map_or(last, |k| found[k]);
            if !Operators::ALL.reach(shape, &larger) {
                bail!("--shapes {shape}: does not grow into {larger}, the next larger shape");
            }
            if !in_proportion(shape, &larger) {
                bail!("--shapes {shape}: {wanted}");
            }
        }
        if found.len() < 2 {
            bail!("--shapes {}: a law needs two sizes at least", self.shapes.join(","));
        }
        Ok(found)
    }
}

/// Steps of a pilot run, at most.
const MOST_STEPS: f64 = 1e7;

/// Errs where several runs, whose names begin so, cannot be made in a folder or gone on with there.
pub fn check_folder(folder: &Path, resume: bool, prefix: &str, what: &str) -> Result<()> {
    let taken = output::is_taken(folder);
    if taken && !holds_runs(folder, prefix)? {
        bail!("{}: is not empty and holds no {what}; choose another folder", folder.display());
    }
    if taken && !resume {
        bail!(
            "{}: is not empty; add --resume to go on with {what} there, or choose another folder",
            folder.display()
        );
    }
    Ok(())
}

/// Whether a folder holds runs whose names begin so, or the tokens for some.
fn holds_runs(folder: &Path, prefix: &str) -> Result<bool> {
    // Those of a demo lie in a folder of their own in it.
    if RunFolder::is_run(folder) || folder.join(demo::SETTINGS_FILE).exists() {
        return Ok(false);
    }
    let is_one = |run: &PathBuf| {
        run.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    };
    Ok(RunFolder::tokens_of(folder).with_file_name(TEXT_FILE).exists()
        || run_folders(folder)?.iter().any(is_one))
}

/// Where the law of pilot runs is written.
pub fn law_path(folder: &Path) -> PathBuf {
    folder.join("law.json")
}

impl PilotRuns<'_> {
    /// Lengths of each shape's runs over that of the longest.
    fn lengths(&self) -> &'static [f64] {
        if self.recipe.learning_rate().decays() { &LENGTHS } else { &[1.0] }
    }

    /// The runs from scratch, shape by shape, the largest shape first, and the shape that grows in the grown run.
    fn planned(&self) -> Result<(Vec<PlannedPilot>, GptShape)> {
        let last = shapes::last(self.recipe, 1)?;
        let rate = self.recipe.learning_rate();
        let lengths = self.lengths();
        let planned =
            pilots(&self.shapes, lengths, rate.decaying_share(), rate.decays(), self.compute);
        if planned.len() < 2 * lengths.len() {
            bail!(
                "{last}: too small for pilot runs: fewer than two smaller shapes grow into it; take a larger last stage, or name \
                 shapes with --shapes"
            );
        }
        let shortest = planned.iter().map(|pilot| self.steps(pilot.tokens)).min().unwrap_or(0);
        // At a constant rate a law takes the points after the warm-up.
        let warmup = if rate.decays() { 0 } else { rate.warmup_steps };
        let least = warmup.saturating_add(LEAST_STEPS);
        if shortest < least {
            bail!(
                "{} is too little for pilot runs: the shortest would have {shortest} steps, and a law needs {least} at least; \
                 give them more (--share, --budget; of a demo --minutes)",
                Flops(self.compute)
            );
        }
        let (largest, next) = (&planned[0].shape, planned[lengths.len()].shape);
        let grown_from = match self.grow {
            None => next,
            Some(grow) => grown_from(largest, grow).with_context(|| {
                format!("--grow {grow}: no shape grows so into {largest}, the largest pilot shape")
            })?,
        };
        Ok((planned, grown_from))
    }

    /// Makes the runs and fits L(N, D) to them; `None` when a signal stopped them.
    pub fn law(&self) -> Result<Option<(Fit, Vec<PilotMade>)>> {
        let (planned, grown_from) = self.planned()?;
        let ends_count = self.recipe.learning_rate().decays();
        let lengths = self.lengths();
        let mut runs = Vec::new();
        for of_shape in planned.chunks(lengths.len()) {
            runs.extend(self.runs_of_shape(of_shape)?);
        }
        self.check_held(&runs)?;
        let folders: Vec<PathBuf> = runs.iter().map(|run| run.folder.clone()).collect();
        let of_small = runs[lengths.len()..2 * lengths.len()].to_vec();
        let Some(summaries) = run_all("pilot runs", runs)? else { return Ok(None) };
        let made = planned.iter().zip(&folders).zip(&summaries);
        let mut made: Vec<PilotMade> = made
            .map(|((pilot, folder), summary)| PilotMade::new(folder, &pilot.shape, summary))
            .collect::<Result<_>>()?;
        let (mut law, observations) = fit::fit_runs(&folders, ends_count, BOOTSTRAPS)?;
        if ends_count {
            let (large, small) = (&planned[0], &grown_from);
            if let Some(grown) = self.measured_before() {
                law.grown = Some(grown);
            } else if let Some(run) = self.grown_run(&law, small, large, &of_small)? {
                let folder = run.folder.clone();
                let at_growth = run.schedule.stages()[0].until().steps.unwrap_or(0);
                let Some(summaries) = run_all("a grown pilot run", vec![run])? else {
                    return Ok(None);
                };
                let summary = &summaries[0];
                let tokens_small = self.recipe.batch().tokens_through(at_growth);
                law.grown = Some(GrownRun {
                    small: small.n_params() as f64,
                    tokens_small: tokens_small as f64,
                    large: large.shape.n_params() as f64,
                    tokens_large: (summary.tokens - tokens_small) as f64,
                    loss: summary.val_loss.context("the grown pilot run has no held-out loss")?,
                    grew: Operators::between(small, &large.shape),
                });
                made.push(PilotMade::new(&folder, &large.shape, summary)?);
            } else {
                law.warnings.push(without_grown_run(&law, small, large));
            }
            let of_grown_runs = self.compute_of_grown_runs()?;
            law.compute = law.compute.map(|compute| compute + of_grown_runs);
        }
        fit::write(&law, &observations, &law_path(self.folder))?;
        Ok(Some((law, made)))
    }

    /// Errs before any run goes on if one that is there was made otherwise.
    fn check_held(&self, runs: &[RunOptions]) -> Result<()> {
        for run in runs.iter().filter(|run| RunFolder::is_run(&run.folder)) {
            let held = RunFolder::schedule_of(&run.folder)?;
            if let Some(difference) = run.schedule.difference_from(&held) {
                bail!(
                    "{}: holds pilot runs of another recipe, --share, --budget, --sizes, --shapes or --operators ({}: {difference}); give the same, or choose \
                     another folder",
                    self.folder.display(),
                    run.schedule.name()
                );
            }
        }
        Ok(())
    }

    /// The runs of one shape, the longest first. Each branches off the next shorter one where its rate is stable.
    fn runs_of_shape(&self, planned: &[PlannedPilot]) -> Result<Vec<RunOptions>> {
        let PlannedPilot { shape, tokens, .. } = planned[0];
        let name = format!("pilot-{shape}");
        let steps = self.steps(tokens);
        let shortest = planned.iter().map(|pilot| pilot.length).fold(1.0, f64::min);
        let stages = vec![StageSpec::new(&shape, steps, None)];
        let mut longest = self.recipe.clone().with_stages(stages)?.named(&name)?;
        if planned.len() > 1 {
            longest = longest.with_warmup_at_most(MOST_WARMUP * shortest);
        }
        let longest = longest.with_evaluations(EVALUATIONS)?.on_one_thread();
        let mut shortest_first: Vec<RunOptions> = Vec::new();
        for pilot in planned.iter().rev() {
            let mut schedule = longest.clone();
            if pilot.length < 1.0 {
                let stage = StageSpec::new(&shape, self.steps(pilot.tokens), None);
                let name = format!("{name}-x{}", pilot.length);
                schedule = schedule.with_stages(vec![stage])?.named(&name)?;
            }
            let branch_of = branch_point(&shortest_first, &schedule);
            shortest_first.push(self.run(schedule, branch_of));
        }
        shortest_first.reverse();
        Ok(shortest_first)
    }

    fn steps(&self, tokens: f64) -> u64 {
        self.recipe.batch().steps_for_tokens(tokens as u64).max(1)
    }

    /// A run in a folder of its schedule's name.
    fn run(&self, schedule: Schedule, branch_of: Option<PathBuf>) -> RunOptions {
        RunOptions {
            folder: self.folder.join(schedule.name()),
            schedule,
            device: self.device,
            resume: self.resume,
            branch_of,
            command: output::command(),
        }
    }
}

/// The folder of the run with the longest stable part that a run of this schedule goes through too.
pub fn branch_point(runs: &[RunOptions], schedule: &Schedule) -> Option<PathBuf> {
    let stable = runs.iter().filter_map(|run| Some((run, run.schedule.stable_until(0, 0)?)));
    let shared =
        stable.filter(|(run, step)| schedule.same_until(&run.schedule, 0, 0, *step).is_ok());
    shared.max_by_key(|(_, step)| *step).map(|(run, _)| run.folder.clone())
}

/// 6 N D of a run's own, FLOPs: without what it has from the run that it branched off from.
fn own_compute(folder: &Path) -> Result<f64> {
    let points = LearningCurve::read(&RunFolder::metrics_of(folder))?.points;
    let spent = points.last().map_or(0.0, |point| point.compute_flops);
    Ok(spent - RunFolder::branch_of(folder)?.map_or(0.0, |branch| branch.compute_flops))
}

impl PilotMade {
    fn new(folder: &Path, shape: &GptShape, summary: &RunSummary) -> Result<Self> {
        Ok(Self {
            folder: folder.to_path_buf(),
            n_params: shape.n_params(),
            tokens: summary.tokens,
            compute: own_compute(folder)?,
            loss: summary.val_loss,
        })
    }
}
