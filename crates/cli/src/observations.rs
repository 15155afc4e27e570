//! Measured losses from `metrics.csv` files and from any other table.

mod columns;

use crate::output::given_twice;
use crate::run_record::{
    branched_off, check_same_data_in, end_of_run, n_vocab_of, other_measures, run_folders,
    schedules_of,
};
use crate::table::Table;
use anyhow::{Context, Result, bail};
use measure::LearningCurve;
use scaling::{ENOUGH_RUNS, FittedRecipe, Observation, Quantity, is_one_value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

/// Which points of which files are read.
pub struct Source {
    /// CSV files; a run's folder stands for its `metrics.csv`.
    pub files: Vec<PathBuf>,
    /// What every point must tell, and of what it is needed.
    pub needs: (&'static [Quantity], String),
    /// `NAME=COLUMN` pairs for tables that are no `metrics.csv` and name these columns otherwise.
    pub columns: Option<String>,
    /// `COLUMN=VALUE` conditions on rows.
    pub conditions: Vec<String>,
    /// Only the last point of each run.
    pub last_only: bool,
    /// Share of each run's steps or tokens that is left out at its start.
    pub skip: f64,
    /// Only points at the highest learning rate of their run.
    pub stable_only: bool,
    /// So many points of the highest losses are left out.
    pub drop_highest: usize,
}

/// The points, and what is to be said about them.
#[derive(Default)]
pub struct Observations {
    pub points: Vec<Observation>,
    /// Tokens in every step, if all runs share them.
    pub batch_tokens: Option<f64>,
    /// 6 N D of all runs, FLOPs, where every file is a metrics.csv; what a run has from another of them is counted once.
    pub compute: Option<f64>,
    /// What the runs were, if all are runs' folders that agree in it.
    pub recipe: Option<FittedRecipe>,
    pub warnings: Vec<String>,
}

/// A run that begins with the first steps of another one, by their numbers.
struct BranchedRun {
    run: usize,
    of: usize,
    step: f64,
}

impl Source {
    pub fn read(&self) -> Result<Observations> {
        let mut found = Observations::default();
        let mut batches: Vec<f64> = Vec::new();
        let mut compute = Some(0.0);
        let folders: Vec<PathBuf> = self.files.iter().map(|file| run_of(file)).collect();
        self.check_files()?;
        let mut recipes = folders.iter().map(|folder| self.recipe_of(folder));
        let first = recipes.next().flatten();
        found.recipe = first.filter(|_| recipes.all(|other| other == first));
        check_same_data_in(&folders)?;
        found.warnings.extend(several_measures(&folders));
        // The number of the first run of each file.
        let mut numbers = Vec::new();
        let mut branches = Vec::new();
        let mut tables = 0;
        for file in &self.files {
            let number = next_run(&found.points);
            numbers.push(number);
            let path = RunFolder::curve_file(file);
            if is_metrics(&path)? {
                if !self.conditions.is_empty() {
                    bail!("--where: {} is a metrics.csv, which has one run", path.display());
                }
                let spent = self.read_metrics(&path, &mut found, &mut batches)?;
                let branch = branched_off(&run_of(file), &folders)?;
                let shared = branch.as_ref().map_or(0.0, |(branch, _)| branch.compute_flops);
                // What is shared may reach beyond the first stage, which alone is counted.
                compute = compute.map(|sum| sum + (spent - shared).max(0.0));
                branches.extend(branch.map(|(branch, of)| (number, of, branch.step as f64)));
            } else {
                compute = None;
                tables += 1;
                self.read_table(&Table::read(&path)?, &mut found, &mut batches)?;
            }
        }
        if self.columns.is_some() && tables == 0 {
            bail!(
                "--columns: {} is a metrics.csv, whose columns are known; leave it out",
                self.files[0].display()
            );
        }
        found.compute = compute;
        let first = batches.first().copied();
        found.batch_tokens =
            first.filter(|first| batches.iter().all(|batch| is_one_value(*batch, *first)));
        // Tokens of a table may be rounded.
        found.batch_tokens = found.batch_tokens.map(f64::round);
        let branches = branches.into_iter();
        let branches = branches.map(|(run, of, step)| BranchedRun { run, of: numbers[of], step });
        let branches: Vec<BranchedRun> = branches.collect();
        count_once(&mut found.points, &branches);
        if self.last_only {
            // Each end counts; but those of one trunk say less than as many runs of their own.
            let mut joined = found.points.clone();
            join_branches(&mut joined, &branches);
            let trunks = joined.chunk_by(|a, b| a.run == b.run).count();
            if !branches.is_empty() && trunks < ENOUGH_RUNS {
                found.warnings.push(format!(
                    "intervals from the ends of {trunks} runs and of what branched off them are rough and too narrow: they share part of their noise"
                ));
            }
        } else {
            join_branches(&mut found.points, &branches);
        }
        self.select(&mut found)?;
        if found.points.is_empty() {
            bail!(
                "no points are left to fit, of --drop-highest {}, --skip {} and what else chooses them",
                self.drop_highest,
                self.skip
            );
        }
        Ok(found)
    }

    /// What a run is beside its size and length; `None` where that is no run's folder.
    fn recipe_of(&self, folder: &Path) -> Option<FittedRecipe> {
        let schedule =
            RunFolder::is_run(folder).then(|| RunFolder::schedule_of(folder).ok()).flatten()?;
        let decays = schedule.learning_rate().decays();
        let of_ends = match (decays, self.stable_only, self.last_only) {
            (false, ..) | (true, true, _) => Some(false),
            (true, false, true) => Some(true),
            (true, false, false) => None,
        };
        let context_len = schedule.context_len();
        Some(FittedRecipe { n_vocab: n_vocab_of(folder), context_len, of_ends })
    }

    /// Errs where a file is given twice, also as the folder that it lies in: it would count as two runs; and for a folder of runs.
    fn check_files(&self) -> Result<()> {
        let curves: Vec<PathBuf> =
            self.files.iter().map(|file| RunFolder::curve_file(file)).collect();
        if let Some(path) = given_twice(&curves) {
            bail!("{}: is given twice", path.display());
        }
        self.files.iter().try_for_each(|file| check_no_folder_of_runs(file))
    }

    /// Reads the first stage of a run; its compute, FLOPs.
    fn read_metrics(
        &self,
        path: &Path,
        found: &mut Observations,
        batches: &mut Vec<f64>,
    ) -> Result<f64> {
        let curve = LearningCurve::read(path)?;
        let folder = run_of(path);
        check_random_start(&folder)?;
        if self.last_only && RunFolder::is_run(&folder) {
            let schedule = RunFolder::schedule_of(&folder)?;
            if schedule.learning_rate().decays() {
                if schedule.stages().len() > 1 {
                    bail!(
                        "--last-only: {}: the learning rate decays after its first stage, whose end is no run's; leave it out",
                        folder.display()
                    );
                }
                end_of_run(&folder, &schedule, &curve).context("--last-only")?;
            }
        }
        let run = next_run(&found.points);
        let name = path.display();
        if self.stable_only
            && RunFolder::is_run(&folder)
            && RunFolder::schedule_of(&folder)?.rate_rises()
        {
            bail!(
                "--stable-only: {name}: the rate rises with the batch (batch.ramp.rate_exponent), so no part of it is stable"
            );
        }
        if curve.points.iter().any(|point| point.stage > 0) {
            found.warnings.push(format!("{name}: only its first stage is a run from scratch"));
        }
        let peak = curve.peak_rate();
        let top = curve.points.iter().position(|point| point.learning_rate >= peak);
        let top_step = top.map_or(0, |i| curve.points[i].step);
        let (mut warm_up, mut decayed) = (0, 0);
        for (point, loss) in curve.evaluated().filter(|(point, _)| point.stage == 0) {
            let at_peak = point.is_at_rate(peak);
            if self.stable_only && !at_peak {
                continue;
            }
            if !at_peak {
                *(if point.step < top_step { &mut warm_up } else { &mut decayed }) += 1;
            }
            let tokens = point.tokens as f64;
            batches.push(tokens / point.step as f64);
            found.points.push(Observation {
                n_params: Some(point.n_params()),
                tokens: Some(tokens),
                steps: Some(point.step as f64),
                compute: Some(point.compute_flops),
                loss,
                run,
            });
        }
        if !found.points.iter().any(|point| point.run == run) {
            bail!("{name}: no held-out loss in its first stage");
        }
        if !self.last_only && warm_up > 0 && self.skip <= 0.0 {
            found.warnings.push(format!(
                "{name}: {warm_up} points are from the learning rate's warm-up; --skip or --stable-only \
                 leaves them out"
            ));
        }
        if !self.last_only && decayed > 0 {
            found.warnings.push(format!(
                "{name}: {decayed} points are from the learning rate's decay, below the curve of a constant \
                 one; --stable-only leaves them out, --last-only takes the run's end alone"
            ));
        }
        let first_stage = curve.points.iter().filter(|point| point.stage == 0);
        Ok(first_stage.map(|point| point.compute_flops).fold(0.0, f64::max))
    }

    /// Leaves out what is not asked for.
    fn select(&self, found: &mut Observations) -> Result<()> {
        // A run's points are told apart by what all of them tell.
        type Told = fn(&Observation) -> Option<f64>;
        const AMOUNTS: [Told; 3] = [|one| one.tokens, |one| one.steps, |one| one.compute];
        let mut amounts: HashMap<usize, [bool; 3]> = HashMap::new();
        for one in &found.points {
            let told = amounts.entry(one.run).or_insert([true; 3]);
            for (told, amount) in told.iter_mut().zip(AMOUNTS) {
                *told &= amount(one).is_some();
            }
        }
        let orders = self.last_only || self.skip > 0.0;
        if orders && amounts.values().any(|told| !told.contains(&true)) {
            bail!(
                "{}: no tokens, steps or compute in all rows of a run say which of them are its first and its last",
                if self.last_only {
                    "--last-only".to_string()
                } else {
                    format!("--skip {}", self.skip)
                }
            );
        }
        let amount = |one: &Observation| {
            let told = amounts[&one.run].iter().position(|told| *told);
            told.and_then(|k| AMOUNTS[k](one)).unwrap_or(0.0)
        };
        found.points.sort_by(|a, b| a.run.cmp(&b.run).then(amount(a).total_cmp(&amount(b))));
        let kept = found.points.chunk_by(|a, b| a.run == b.run).flat_map(|run| {
            let (last, most) = (run.len() - 1, amount(&run[run.len() - 1]));
            let is_kept = move |(i, one): &(usize, &Observation)| {
                amount(one) >= self.skip * most && (!self.last_only || *i == last)
            };
            run.iter().enumerate().filter(is_kept).map(|(_, one)| *one)
        });
        let mut kept: Vec<Observation> = kept.collect();
        kept.sort_by(|a, b| b.loss.total_cmp(&a.loss));
        kept.drain(..self.drop_highest.min(kept.len()));
        kept.sort_by(|a, b| a.run.cmp(&b.run).then(amount(a).total_cmp(&amount(b))));
        found.points = kept;
        Ok(())
    }
}

/// Leaves out of each run what it has from another one.
fn count_once(points: &mut Vec<Observation>, branches: &[BranchedRun]) {
    let of_run = |run: usize| branches.iter().find(|branch| branch.run == run);
    points.retain(|point| {
        of_run(point.run).is_none_or(|branch| point.steps.is_none_or(|step| step > branch.step))
    });
}

/// Makes a run and those that branched off it one, since the noise of their first part is the same.
fn join_branches(points: &mut [Observation], branches: &[BranchedRun]) {
    for point in points.iter_mut() {
        // A run branches off one that was there before it.
        for _ in branches {
            let branch = branches.iter().find(|branch| branch.run == point.run);
            point.run = branch.map_or(point.run, |branch| branch.of);
        }
    }
    points.sort_by_key(|point| point.run);
}

/// In what the losses of runs differ.
fn several_measures(folders: &[PathBuf]) -> Vec<String> {
    let told = schedules_of(folders)
        .filter_map(|(folder, schedule)| Some((folder, schedule.ok()?)))
        .collect::<Vec<_>>();
    let runs = told.iter().map(|(folder, schedule)| (*folder, schedule));
    other_measures(runs).map(|difference| difference + ", which moves a loss").collect()
}

/// Errs for a run that begins with a model that was there.
pub fn check_random_start(folder: &Path) -> Result<()> {
    let Some(start) = RunFolder::start_of(folder)? else { return Ok(()) };
    bail!(
        "{}: begins with the model of {}, and laws and plans are of runs from random weights; leave it out",
        folder.display(),
        start.checkpoint.display()
    );
}

/// Errs for a folder of runs, of which some are meant.
pub fn check_no_folder_of_runs(file: &Path) -> Result<()> {
    let held = if RunFolder::curve_file(file).exists() { None } else { run_folders(file).ok() };
    let Some(runs) = held.filter(|runs| !runs.is_empty()) else { return Ok(()) };
    let names = runs.iter().map(|run| run.display().to_string()).collect::<Vec<_>>();
    bail!(
        "{}: is a folder of runs; name those of them that are meant: {}",
        file.display(),
        names.join(" ")
    );
}

/// The folder of a run that was named, or whose metrics.csv was.
pub fn run_of(file: &Path) -> PathBuf {
    if file.is_dir() { file } else { file.parent().unwrap_or(file) }.to_path_buf()
}

/// Whether a table is the metrics.csv of a run.
fn is_metrics(path: &Path) -> Result<bool> {
    let mut reader = csv::Reader::from_path(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let header = reader.headers().with_context(|| path.display().to_string())?;
    let has = |column: &str| header.iter().any(|name| name == column);
    Ok(has("compute_flops") && has("val_loss"))
}

fn next_run(points: &[Observation]) -> usize {
    points.iter().map(|one| one.run + 1).max().unwrap_or(0)
}
