//! A run that begins with the model of a checkpoint.

use super::resume::{end_of_run, run_schedule};
use model::DeviceChoice;
use schedule::Schedule;
use state::{Checkpoint, CheckpointStore, ParamId, ParamRole, TrainingState};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use trainer::{Event, Learner, RunOptions, TrainError, open_corpus, train};

const SCHEDULE: &str = r#"
version = 1
name = "start"
seed = 5
data = { source = "synthetic", n_words = 16, language_seed = 1 }
model = { context_len = 8 }
parametrization = { kind = "mup", base_width = 8 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "constant", peak = 0.01 }
batch = { tokens = 64, micro_batch = 4 }
evaluation = { every_steps = 3, tokens = 64 }
checkpoint = { every_steps = 4, keep = 1 }
machine = { threads = 1 }

[[stages]]
n_layers = 2
d_model = 16
n_heads = 2
until = { steps = 6 }

[[stages]]
n_layers = 2
d_model = 32
n_heads = 4
until = { steps = 3 }
growth = { width = "fresh" }
"#;

fn parsed(text: &str) -> Schedule {
    Schedule::parse(text, Path::new("start.toml")).unwrap()
}

fn starting_with(checkpoint: &Path) -> String {
    let start = format!("context_len = 8, start = {:?}", checkpoint.display().to_string());
    SCHEDULE.replace("context_len = 8", &start)
}

fn saved(state: &TrainingState, folder: &Path) -> PathBuf {
    CheckpointStore::open(folder).unwrap().save(state, 1, None).unwrap()
}

#[test]
fn a_run_that_begins_with_its_own_first_state_is_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = parsed(SCHEDULE);
    let straight = folder.path().join("straight");
    let summary = run_schedule(&straight, schedule.clone(), &mut |_, _| ()).unwrap();
    let origin = Checkpoint::open(&summary.checkpoint).unwrap().info().origin.clone();
    let corpus = open_corpus(&schedule, &straight).unwrap();
    let first = Learner::initial_state(&schedule, &corpus, origin);
    let start = saved(&first, &folder.path().join("first"));
    let started = folder.path().join("started");
    let mut told = None;
    let with_start = parsed(&starting_with(&start));
    run_schedule(&started, with_start, &mut |event, _| {
        if let Event::StartedWith(start) = event {
            told = Some(start.clone());
        }
    })
    .unwrap();
    assert_eq!(end_of_run(&started, 9), end_of_run(&straight, 9));
    let told = told.unwrap();
    assert_eq!((told.tokens, told.compute_flops), (0, 0.0));
    assert!(fs::read_to_string(started.join("events.jsonl")).unwrap().contains("started_with"));
    // Where it is stopped before its first checkpoint, it begins with that state again, here one that no seed of the run draws.
    let mut other = first;
    other.origin.seed += 1;
    let other = TrainingState::init(other.shape, other.parametrization, other.origin);
    let with_other = parsed(&starting_with(&saved(&other, &folder.path().join("other"))));
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    run_schedule(&whole, with_other.clone(), &mut |_, _| ()).unwrap();
    assert_ne!(end_of_run(&whole, 9), end_of_run(&straight, 9));
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run_schedule(&stopped, with_other.clone(), &mut |event, _| {
            let Event::Step { point, .. } = event else { return };
            assert!(point.step != 2, "crash on purpose");
        })
    }));
    assert!(crash.is_err());
    run_schedule(&stopped, with_other, &mut |_, _| ()).unwrap();
    assert_eq!(end_of_run(&stopped, 9), end_of_run(&whole, 9));
}

#[test]
fn parameters_and_moments_go_on_and_the_count_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let before = parsed(SCHEDULE).from_scratch().unwrap();
    let before = run_schedule(&folder.path().join("before"), before, &mut |_, _| ()).unwrap();
    let checkpoint = Checkpoint::open(&before.checkpoint).unwrap();
    let of_last = starting_with(&before.checkpoint);
    let (head, last) = of_last.split_once("[[stages]]").unwrap();
    let (_, last) = last.split_once("[[stages]]").unwrap();
    let last = last.replace("growth = { width = \"fresh\" }", "");
    let schedule = parsed(&format!("{head}[[stages]]{last}"));
    let mut first_loss = None;
    let after = run_schedule(&folder.path().join("after"), schedule.clone(), &mut |event, _| {
        if let (Event::Step { point, .. }, None) = (event, first_loss) {
            first_loss = Some(point.train_loss);
        }
    })
    .unwrap();
    assert_eq!(after.step, 3);
    let info = Checkpoint::open(&after.checkpoint).unwrap().info().clone();
    let updates = |checkpoint: &Checkpoint| checkpoint.info().position.moment_updates;
    assert_eq!(info.position.moment_updates, updates(&checkpoint) + 3);
    assert_eq!(info.position.tokens, 3 * 64);
    // Its first batch is that of the run before, which had another loss there.
    let curve = fs::read_to_string(folder.path().join("before/metrics.csv")).unwrap();
    let loss: f64 = curve.lines().nth(1).unwrap().split(',').nth(4).unwrap().parse().unwrap();
    assert!(first_loss.unwrap() < loss - 0.05, "{first_loss:?} {loss}");
    assert!(schedule.start().is_some());
    assert!(schedule.clone().from_scratch().unwrap().start().is_none());
    // The moments are taken where they are there, and are said to be absent where not.
    fs::remove_file(before.checkpoint.join("optimizer.safetensors")).unwrap();
    let mut has_moments = None;
    run_schedule(&folder.path().join("without"), schedule, &mut |event, _| {
        if let Event::StartedWith(start) = event {
            has_moments = Some(start.has_moments);
        }
    })
    .unwrap();
    assert_eq!(has_moments, Some(false));
    let params = |run: &str| end_of_run(&folder.path().join(run), 3).1[0].clone();
    assert_ne!(params("without"), params("after"));
}

#[test]
fn another_model_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_schedule(&folder.path().join("run"), parsed(SCHEDULE), &mut |_, _| ()).unwrap();
    let refusal = |text: &str| {
        let target = folder.path().join("refused");
        let refused = run_schedule(&target, parsed(text), &mut |_, _| ());
        let Err(error @ TrainError::Folder { .. }) = refused else { panic!("{refused:?}") };
        assert!(!target.exists());
        error.to_string()
    };
    // Its last shape is not the first stage's.
    let shape = refusal(&starting_with(&run.checkpoint));
    assert!(shape.contains("model.start: its d_model is 32, and 16 in the run"), "{shape}");
    let absent = refusal(&starting_with(&folder.path().join("absent")));
    assert!(absent.contains("model.start: holds no checkpoint"), "{absent}");
    let not_one = refusal(&starting_with(&folder.path().join("run")));
    assert!(not_one.contains("model.start: is a run; name one of the checkpoints"), "{not_one}");
    let of_one = parsed(SCHEDULE).from_scratch().unwrap();
    let one = run_schedule(&folder.path().join("one"), of_one, &mut |_, _| ()).unwrap();
    let wide = starting_with(&one.checkpoint)
        .replace("d_model = 16\nn_heads = 2", "d_model = 32\nn_heads = 4");
    let wide = wide.replace(
        "n_layers = 2\nd_model = 32\nn_heads = 4\nuntil = { steps = 3 }",
        "n_layers = 3\nd_model = 32\nn_heads = 4\nuntil = { steps = 3 }",
    );
    let wide = wide.replace("growth = { width = \"fresh\" }", "");
    let other = refusal(&wide.replace("base_width = 8", "base_width = 16"));
    assert!(
        other.contains("model.start: its parametrization is mup with base_width = 8"),
        "{other}"
    );
    let other = refusal(&wide.replace("language_seed = 1", "language_seed = 2"));
    assert!(other.contains("model.start: its vocabulary is"), "{other}");
    run_schedule(&folder.path().join("good"), parsed(&wide), &mut |_, _| ()).unwrap();
}

fn fed_in(checkpoint: &Path) -> (usize, Vec<f32>) {
    let state = Checkpoint::open(checkpoint).unwrap().load().unwrap();
    let id = ParamId::in_block(ParamRole::FeedForwardInWeight, 0);
    (state.shape.d_ff, state.params[&id].data.clone())
}

/// A growth after `model.start` is one more growth of the same state, and draws other numbers than the one before it.
#[test]
fn growths_before_the_start_count() {
    let folder = tempfile::tempdir().unwrap();
    // No step changes what the growths drew.
    let still = SCHEDULE.replace("peak = 0.01", "peak = 1e-30").replace("= 6 }", "= 1 }");
    let still = still.replace("steps = 3 }", "steps = 1 }");
    let first = run_schedule(&folder.path().join("first"), parsed(&still), &mut |_, _| ()).unwrap();
    let second = still
        .replace("d_model = 32\nn_heads = 4", "d_model = 64\nn_heads = 8")
        .replace("d_model = 16\nn_heads = 2", "d_model = 32\nn_heads = 4")
        .replace(
            "context_len = 8",
            &format!("context_len = 8, start = {:?}", first.checkpoint.display().to_string()),
        );
    let mut told = None;
    let second = run_schedule(&folder.path().join("second"), parsed(&second), &mut |event, _| {
        if let Event::StartedWith(start) = event {
            told = Some(start.clone());
        }
    })
    .unwrap();
    assert_eq!(told.unwrap().tokens, 2 * 64);
    let before = Checkpoint::open(&second.checkpoint).unwrap().info().position.as_start().earlier;
    assert_eq!((before.growths, before.tokens), (2, 4 * 64));
    // New units of the first row: 64 of the first growth, 128 of the second.
    let ((d_ff, of_first), (_, of_second)) =
        (fed_in(&first.checkpoint), fed_in(&second.checkpoint));
    let (old, new) = (&of_first[d_ff / 2..d_ff], &of_second[d_ff..d_ff + d_ff / 2]);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let correlation = dot(old, new) / (dot(old, old) * dot(new, new)).sqrt();
    assert!(correlation.abs() < 0.5, "{correlation}");
}

/// The file names the start by its path; what counts is the model there.
#[test]
fn a_start_that_was_replaced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let of_one = |seed: u64| parsed(SCHEDULE).with_seed(seed).from_scratch().unwrap();
    let one = run_schedule(&at("one"), of_one(1), &mut |_, _| ()).unwrap();
    let other = run_schedule(&at("other"), of_one(2), &mut |_, _| ()).unwrap();
    let place = |checkpoint: &Path| {
        let _ = fs::remove_dir_all(at("start"));
        fs::create_dir(at("start")).unwrap();
        for file in fs::read_dir(checkpoint).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), at("start").join(file.file_name())).unwrap();
        }
    };
    let (head, _) = SCHEDULE.split_once("[[stages]]").unwrap();
    let start = format!("context_len = 8, start = {:?}", at("start").display().to_string());
    let text = |steps: u64| {
        let head = head.replace("context_len = 8", &start);
        parsed(&format!(
            "{head}[[stages]]\nn_layers = 2\nd_model = 32\nn_heads = 4\nuntil = {{ steps = {steps} }}\n"
        ))
    };
    place(&one.checkpoint);
    run_schedule(&at("short"), text(4), &mut |_, _| ()).unwrap();
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run_schedule(&at("crashed"), text(4), &mut |event, _| {
            assert!(!matches!(event, Event::Step { .. }), "crash on purpose");
        })
    }));
    assert!(crash.is_err());
    let branched = |name: &str| {
        let options = RunOptions {
            schedule: text(8),
            folder: at(name),
            device: DeviceChoice::Cpu,
            resume: false,
            branch_of: Some(at("short")),
            command: "test".into(),
        };
        train(&options, &mut |_| (), &AtomicBool::new(false))
    };
    branched("branch").unwrap();
    run_schedule(&at("straight"), text(8), &mut |_, _| ()).unwrap();
    assert_eq!(end_of_run(&at("branch"), 8), end_of_run(&at("straight"), 8));
    place(&other.checkpoint);
    for refused in [
        branched("other_branch").map(|_| ()),
        run_schedule(&at("crashed"), text(4), &mut |_, _| ()).map(|_| ()),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("is another state now than the run began with"), "{error}");
    }
    // What is saved needs its start no more.
    run_schedule(&at("short"), text(4), &mut |_, _| ()).unwrap();
}

/// What the model had been trained for before counts too, without which the first steps of a run would be the last factor of four of its compute.
#[test]
fn a_slope_is_over_all_the_compute_that_was_spent_on_the_model() {
    const GOAL: f64 = -0.03;
    let folder = tempfile::tempdir().unwrap();
    let long = SCHEDULE
        .replace(
            "evaluation = { every_steps = 3, tokens = 64 }",
            "evaluation = { every_steps = 4, tokens = 2048 }",
        )
        .replace("steps = 6 }", "steps = 300 }");
    let alone = |text: &str| {
        let (head, last) = text.rsplit_once("[[stages]]").unwrap();
        assert!(last.contains("growth"));
        parsed(head)
    };
    let before = run_schedule(&folder.path().join("before"), alone(&long), &mut |_, _| ()).unwrap();
    let start = format!("context_len = 8, start = {:?}", before.checkpoint.display().to_string());
    let after =
        long.replace("context_len = 8", &start).replace("steps = 300", "steps = 120, slope = GOAL");
    let with_goal = |goal: f64| alone(&after.replace("GOAL", &goal.to_string()));
    run_schedule(&folder.path().join("to its end"), with_goal(-1e-9), &mut |_, _| ()).unwrap();
    let curve = measure::LearningCurve::read(&folder.path().join("to its end/metrics.csv"));
    let curve = curve.unwrap();
    // What a slope is at the least, by two standard errors, at each evaluation from the tenth on.
    let slopes = |before: f64| -> Vec<f64> {
        let points: Vec<(f64, f64)> =
            curve.evaluated().map(|(point, loss)| (before + point.compute_flops, loss)).collect();
        let at = |n: usize| measure::slope_at_end(&points[..n], 10).unwrap();
        let found = (10..points.len()).filter_map(at);
        found.map(|slope| slope.value - 2.0 * slope.standard_error).collect()
    };
    let (own, all) = (slopes(0.0), slopes(before.compute_flops));
    let ends = |slopes: &[f64]| slopes.iter().any(|slope| *slope >= GOAL);
    assert!(ends(&own[..5]) && !ends(&all[..all.len() - 1]), "{own:?} {all:?}");
    let ended =
        run_schedule(&folder.path().join("at a slope"), with_goal(GOAL), &mut |_, _| ()).unwrap();
    assert!(ended.step > 100, "{}", ended.step);
}
