//! What a run left in its folder, for comparisons, figures and reports.

use crate::output;
use anyhow::{Context, Result, bail};
use measure::{CurveError, CurvePoint, Flops, LearningCurve, RunEnd, SmoothCurve};
use schedule::Schedule;
use serde_json::Value;
use state::{CheckpointInfo, CheckpointStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainer::{Branch, GrowthReport, RunFolder};

/// A run that has made some evaluations.
pub struct RunRecord {
    pub folder: PathBuf,
    pub schedule: Schedule,
    pub curve: LearningCurve,
    /// Held-out loss over compute; `None` where only the end counts and there are too few evaluations for a curve.
    pub smooth: Option<SmoothCurve>,
    pub growths: Vec<GrowthReport>,
    /// The record of its newest checkpoint, where there is one.
    state: Option<CheckpointInfo>,
}

impl RunRecord {
    /// Reads a run's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let schedule = RunFolder::schedule_of(folder)?;
        let path = RunFolder::metrics_of(folder);
        let curve = LearningCurve::read(&path)?;
        let n_stages = schedule.stages().len();
        if let Some(point) = curve.points.iter().find(|point| point.stage >= n_stages) {
            bail!(
                "{}: step {}: stage = {}: must be below {n_stages}, the number of stages of its schedule.toml",
                path.display(),
                point.step,
                point.stage
            );
        }
        let smooth = match SmoothCurve::of_run(&curve) {
            Ok(smooth) => Some(smooth),
            Err(CurveError::TooShort { .. }) if schedule.learning_rate().decays() => None,
            Err(error @ CurveError::TooShort { .. }) => {
                let every = schedule.evaluation().every_steps;
                return Err(error).with_context(|| {
                    format!("{} (evaluation.every_steps = {every})", path.display())
                });
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let growths = RunFolder::growths_of(folder)?;
        let state = newest_state(folder);
        Ok(Self { folder: folder.to_path_buf(), schedule, curve, smooth, growths, state })
    }

    /// A run, or all runs in a folder of runs, which differ in the seed alone.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        Self::read_together(runs_at(path)?, false)
    }

    /// The runs from scratch in these places, together as in one folder, which may differ in their length too where the learning
    /// rate decays.
    pub fn read_baselines(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let mut folders =
            paths.iter().map(|path| runs_at(path)).collect::<Result<Vec<_>>>()?.concat();
        folders.sort();
        if let Some(folder) = output::given_twice(&folders) {
            bail!("{}: is given twice", folder.display());
        }
        Self::read_together(folders, true)
    }

    fn read_together(folders: Vec<PathBuf>, any_length: bool) -> Result<Vec<Self>> {
        let runs: Vec<Self> =
            folders.iter().map(|folder| Self::read(folder)).collect::<Result<_>>()?;
        let Some(first) = runs.first() else { return Ok(runs) };
        let of_any_length = any_length && first.decays() && first.is_from_scratch();
        let kind = if of_any_length { "several seeds and lengths" } else { "several seeds" };
        for (i, run) in runs.iter().enumerate() {
            if let Some(difference) =
                first.schedule.difference_in_kind(&run.schedule, of_any_length)
            {
                let of_lengths = first.decays() && first.is_from_scratch() && !any_length;
                let swapped =
                    of_lengths && first.schedule.difference_in_kind(&run.schedule, true).is_none();
                let hint = if swapped {
                    "; runs from scratch of several lengths are baselines, which follow the staged run"
                } else {
                    ""
                };
                let [own, other] = [&run.folder, &first.folder].map(|folder| folder.display());
                bail!(
                    "{own}: is no run of the schedule of {other} ({} in {own}, {} in {other}); a folder of runs holds one schedule under \
                     {kind}{hint}",
                    difference.there,
                    difference.here
                );
            }
            let key = |run: &Self| (run.schedule.seed(), run.schedule.n_steps());
            if let Some(twin) = runs[..i].iter().find(|other| key(other) == key(run)) {
                bail!(
                    "{}: has seed {} like {}; a folder of runs holds one schedule under {kind}",
                    run.folder.display(),
                    run.schedule.seed(),
                    twin.folder.display()
                );
            }
        }
        Ok(runs)
    }

    /// N of the last stage.
    pub fn last_n_params(&self) -> u64 {
        let stages = self.schedule.stages();
        stages[stages.len() - 1].shape(1).n_params()
    }

    /// Whether all of it is one shape from random weights.
    pub fn is_from_scratch(&self) -> bool {
        is_from_scratch(&self.schedule)
    }

    /// Whether this is a run from scratch of a shape that it grows into.
    pub fn grows_into(&self, other: &Schedule) -> bool {
        let shape = other.stages()[0].shape(1);
        let grown = &self.schedule.stages()[1..];
        is_from_scratch(other) && grown.iter().any(|stage| stage.shape(1) == shape)
    }

    /// Whether only the end of it counts.
    pub fn decays(&self) -> bool {
        self.schedule.learning_rate().decays()
    }

    /// Compute and held-out loss at the end of a run; an error with the step where it is instead, if it has not come there.
    pub fn end(&self) -> Result<RunEnd> {
        end_of_run(&self.folder, &self.schedule, &self.curve)
    }

    /// Where it is, if it has neither made its steps nor ended at the loss or slope of its last stage.
    pub fn unfinished(&self) -> Option<String> {
        let (stage, step) = self.curve.points.last().map(|point| (point.stage, point.step))?;
        let text = std::fs::read_to_string(RunFolder::events_of(&self.folder)).unwrap_or_default();
        let mut events =
            text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = |event: &Value| event["event"] == "started" || event["event"] == "ended";
        let newest = events.find(told);
        let has_ended = newest
            .is_some_and(|event| event["event"] == "ended" && event["outcome"] != "interrupted");
        let is_there = (stage, step) == end_due(&self.schedule, &self.curve);
        (!is_there && !has_ended)
            .then(|| format!("{} is at step {step} and not at its end", self.folder.display()))
    }

    /// The first growth that it has come through and has no record of.
    pub fn untold_growth(&self) -> Option<String> {
        let stage = self.curve.points.last()?.stage;
        (self.growths.len() < stage).then(|| {
            format!(
                "{} has no growth-{}.json, which would tell what that growth did",
                self.folder.display(),
                self.growths.len() + 1
            )
        })
    }

    /// The last point of a stage, if the run has come there.
    pub fn end_of(&self, stage: usize) -> Option<&CurvePoint> {
        last_of_stage(&self.curve, stage)
    }

    /// What its newest checkpoint says of its data: vocabulary and checksum.
    pub fn data(&self) -> Option<String> {
        self.state.as_ref().map(data)
    }

    /// FLOPs with attention's products and the output head counted, over the 6 N D of its first `compute` FLOPs; `None` where no
    /// checkpoint says how large the vocabulary is.
    pub fn exact_over_6nd(&self, compute: f64) -> Option<f64> {
        let n_vocab = self.state.as_ref()?.shape.n_vocab;
        let (mut exact, mut before) = (0.0, 0.0);
        for (k, stage) in self.schedule.stages().iter().enumerate() {
            let is_last = k + 1 == self.schedule.stages().len();
            let end = if is_last { None } else { self.end_of(k) };
            let end = end.map_or(compute, |point| point.compute_flops.min(compute));
            exact += (end - before) * stage.shape(n_vocab).exact_over_6n();
            before = end;
        }
        Some(exact / compute)
    }

    /// Compute spent at the end, FLOPs.
    pub fn compute(&self) -> f64 {
        self.curve.compute()
    }
}

fn is_from_scratch(schedule: &Schedule) -> bool {
    schedule.stages().len() == 1 && schedule.start().is_none()
}

/// Tokens in a run's vocabulary, where a checkpoint tells it.
pub fn n_vocab_of(run: &Path) -> Option<usize> {
    Some(newest_state(run)?.shape.n_vocab)
}

/// What a run's newest checkpoint says of its data: vocabulary and checksum.
pub fn data_of(run: &Path) -> Option<String> {
    newest_state(run).map(|state| data(&state))
}

/// Errs where two runs are known to learn from other data.
pub fn check_same_data<'a>(
    runs: impl IntoIterator<Item = (&'a Path, Option<String>)>,
) -> Result<()> {
    let mut known = runs.into_iter().filter_map(|(folder, data)| Some((folder, data?)));
    let Some((first, there)) = known.next() else { return Ok(()) };
    match known.find(|(_, here)| *here != there) {
        None => Ok(()),
        Some((folder, here)) => bail!(
            "{}: learns from {here}, and {} from {there}: their losses are not comparable",
            folder.display(),
            first.display()
        ),
    }
}

/// The same for runs that are named by their folders.
pub fn check_same_data_in(folders: &[PathBuf]) -> Result<()> {
    check_same_data(folders.iter().map(|folder| (folder.as_path(), data_of(folder))))
}

/// In what a run's losses are other than those of the first of these, by a key of their schedules.
pub fn other_measures<'a>(
    runs: impl IntoIterator<Item = (&'a Path, &'a Schedule)>,
) -> impl Iterator<Item = String> {
    let of = |schedule: &Schedule| {
        let held_out = schedule.data().validation_fraction();
        [
            ("model.context_len", schedule.context_len().to_string()),
            ("model.tied_head", schedule.stages()[0].shape(1).tied_head.to_string()),
            ("evaluation.tokens", schedule.evaluation().tokens.to_string()),
            ("data.validation_fraction", held_out.map_or("none".into(), |share| share.to_string())),
        ]
    };
    let mut runs = runs.into_iter();
    let first = runs.next();
    runs.filter_map(move |(folder, schedule)| {
        let (first_folder, first) = first?;
        let pairs = of(schedule).into_iter().zip(of(first));
        let differing = pairs.filter(|((_, here), (_, there))| here != there);
        let told: Vec<String> = differing
            .map(|((key, here), (_, there))| {
                format!("{key} = {here}, and {there} in {}", first_folder.display())
            })
            .collect();
        (!told.is_empty()).then(|| format!("{}: {}", folder.display(), told.join("; ")))
    })
}

/// Errs unless all runs are models of one kind, evaluated on the same held-out tokens.
pub fn check_same_measure<'a>(
    runs: impl IntoIterator<Item = (&'a Path, &'a Schedule)>,
) -> Result<()> {
    match other_measures(runs).next() {
        None => Ok(()),
        Some(difference) => bail!("{difference}: their losses are not comparable"),
    }
}

/// The runs among folders, with their schedules.
pub fn schedules_of(folders: &[PathBuf]) -> impl Iterator<Item = (&Path, Result<Schedule>)> {
    let runs = folders.iter().map(PathBuf::as_path).filter(|folder| RunFolder::is_run(folder));
    runs.map(|folder| (folder, RunFolder::schedule_of(folder).map_err(Into::into)))
}

/// Errs where the losses of runs are known not to be comparable, whose folders these are or whose files lie in them.
pub fn check_comparable_in(folders: &[PathBuf]) -> Result<()> {
    check_same_data_in(folders)?;
    let schedules = schedules_of(folders)
        .map(|(folder, schedule)| Ok((folder, schedule?)))
        .collect::<Result<Vec<_>>>()?;
    check_same_measure(schedules.iter().map(|(folder, schedule)| (*folder, schedule)))
}

fn data(state: &CheckpointInfo) -> String {
    let (vocabulary, data) = (&state.origin.vocabulary, &state.origin.data);
    // A synthetic language is both.
    if vocabulary == data { data.clone() } else { format!("{vocabulary}, {data}") }
}

/// The record of a run's newest checkpoint.
fn newest_state(run: &Path) -> Option<CheckpointInfo> {
    CheckpointStore::reader(&RunFolder::checkpoints_of(run)).newest_info()
}

/// As [`RunRecord::end`], of a run that is not read as a whole.
pub fn end_of_run(folder: &Path, schedule: &Schedule, curve: &LearningCurve) -> Result<RunEnd> {
    let (last, due) = end_due(schedule, curve);
    if let Some((point, loss)) = curve.evaluated().last()
        && (point.stage, point.step) == (last, due)
    {
        return Ok(RunEnd { compute: point.compute_flops, loss });
    }
    let (stage, step) = curve.points.last().map_or((0, 0), |point| (point.stage, point.step));
    let until = schedule.stages()[last].until();
    let by_target = until.loss.is_some() || until.slope.is_some();
    let where_it_is = if (stage, step) == (last, due) {
        format!("has no held-out loss at its end, step {step}")
    } else if stage == last && by_target {
        format!(
            "is at step {step} of {due}, where it may have ended at the loss or slope of its last stage's until, before the rate decayed"
        )
    } else {
        format!("is at step {step} and not at its end")
    };
    bail!(
        "{}: {where_it_is}; its learning rate decays, so that only its end counts",
        folder.display(),
    )
}

/// Stage and step at which a run ends if no loss or slope ends it, as far as it has come.
fn end_due(schedule: &Schedule, curve: &LearningCurve) -> (usize, u64) {
    let last = schedule.stages().len() - 1;
    let before = last.checked_sub(1).and_then(|stage| last_of_stage(curve, stage));
    (last, schedule.n_steps_from(last, before.map_or(0, |end| end.step)))
}

/// The last point of a stage, if the run has come there.
fn last_of_stage(curve: &LearningCurve, stage: usize) -> Option<&CurvePoint> {
    curve.points.iter().rev().find(|point| point.stage == stage)
}

/// Runs of one seed together, by increasing compute.
pub fn by_seed(runs: &[RunRecord]) -> Vec<Vec<&RunRecord>> {
    let mut found: BTreeMap<u64, Vec<&RunRecord>> = BTreeMap::new();
    for run in runs {
        found.entry(run.schedule.seed()).or_default().push(run);
    }
    for runs in found.values_mut() {
        runs.sort_by(|a, b| a.compute().total_cmp(&b.compute()));
    }
    found.into_values().collect()
}

/// Compute that a run has from another one of these, FLOPs: it was spent once.
pub fn shared_compute(run: &Path, runs: &[PathBuf]) -> Result<f64> {
    Ok(branched_off(run, runs)?.map_or(0.0, |(branch, _)| branch.compute_flops))
}

/// What a run has from another one of these, by itself or by way of runs that are not among them, and which of them.
pub fn branched_off(run: &Path, runs: &[PathBuf]) -> Result<Option<(Branch, usize)>> {
    let Some(branch) = RunFolder::branch_of(run)? else { return Ok(None) };
    let all = LearningCurve::read(&RunFolder::metrics_of(run))?.compute();
    if !(0.0..=all).contains(&branch.compute_flops) {
        bail!(
            "{}: branch.json: compute_flops = {:e}: must be from 0 to the {all:e} of the whole run",
            run.display(),
            branch.compute_flops
        );
    }
    let (mut at, mut direct, mut shared) = (run.to_path_buf(), branch.clone(), branch);
    // Runs branch off one another, and one between may not be among these.
    for link in 0..MOST_BRANCHES {
        let places = places_of_source(&at, &direct)?;
        if places.is_empty() && link == 0 {
            output::note(&format!(
                "warning: {} begins with {} of {}, which is not there: they count as its own",
                run.display(),
                Flops(direct.compute_flops),
                direct.of.display()
            ));
        }
        let is_it = |other: &PathBuf| places.iter().any(|place| output::is_same_file(place, other));
        if let Some(other) = runs.iter().position(is_it) {
            return Ok(Some((shared, other)));
        }
        let Some(place) = places.into_iter().next() else { break };
        let Some(next) = RunFolder::branch_of(&place)? else { break };
        if next.step < shared.step {
            if !(0.0..=shared.compute_flops).contains(&next.compute_flops) {
                bail!(
                    "{}: branch.json: compute_flops = {:e}: must be from 0 to the {:e} of the steps beyond it",
                    place.display(),
                    next.compute_flops,
                    shared.compute_flops
                );
            }
            shared = next.clone();
        }
        (at, direct) = (place, next);
    }
    Ok(None)
}

/// Branches one off the other that are followed, at most.
const MOST_BRANCHES: usize = 100;

/// Where the run that another branched off lies: where it lay then, or, when both were moved or copied, beside the other one. One of the same name
/// that has not made the same steps is another run.
fn places_of_source(run: &Path, branch: &Branch) -> Result<Vec<PathBuf>> {
    let beside = run.canonicalize().ok().zip(branch.of.file_name());
    let beside = beside.map(|(run, name)| run.with_file_name(name));
    let newest_shared = |folder: &Path| -> Result<Option<(u64, u64)>, CurveError> {
        let curve = LearningCurve::read(&RunFolder::metrics_of(folder))?;
        let point = curve.points.iter().find(|point| point.step == branch.step);
        Ok(point.map(|point| (point.compute_flops.to_bits(), point.train_loss.to_bits())))
    };
    let own = newest_shared(run)?;
    let made_the_same = |place: &PathBuf| {
        let is_itself = output::is_same_file(place, run);
        !is_itself && newest_shared(place).is_ok_and(|found| found == own)
    };
    Ok(beside.into_iter().chain([branch.of.clone()]).filter(made_the_same).collect())
}

/// The run in a folder, or the runs in a folder of runs: one at least.
pub fn runs_at(path: &Path) -> Result<Vec<PathBuf>> {
    if RunFolder::is_run(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    if path.is_file() {
        bail!("{}: is a file; name the folder of a run, or one of runs", path.display());
    }
    let runs = run_folders(path)?;
    if runs.is_empty() {
        bail!("{}: neither a run (no schedule.toml) nor a folder of runs", path.display());
    }
    Ok(runs)
}

/// The runs in a folder, by name. An error for what is to be one and is not whole: it would be missing from a mean without a word.
pub fn run_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        // An editor's lock, for one.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if RunFolder::is_run(&path) {
            found.push(path);
        } else if !is_hidden && !path.exists() {
            bail!("{}: a link that leads nowhere; take it away, or mend it", path.display());
        } else if !is_hidden && RunFolder::metrics_of(&path).exists() {
            bail!(
                "{}: has a metrics.csv and no schedule.toml: no whole run; take it away",
                path.display()
            );
        }
    }
    found.sort();
    Ok(found)
}
