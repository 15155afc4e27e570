//! A run that begins with the model of a checkpoint.

use super::resume::{end_of_run, run_schedule};
use schedule::Schedule;
use state::{Checkpoint, CheckpointStore, TrainingState};
use std::fs;
use std::path::{Path, PathBuf};
use trainer::{Event, Learner, TrainError, open_corpus};

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
    run_schedule(&started, with_start.clone(), &mut |event, _| {
        if let Event::StartedWith(start) = event {
            told = Some(start.clone());
        }
    })
    .unwrap();
    assert_eq!(end_of_run(&started, 9), end_of_run(&straight, 9));
    let told = told.unwrap();
    assert_eq!((told.tokens, told.compute_flops), (0, 0.0));
    assert!(fs::read_to_string(started.join("events.jsonl")).unwrap().contains("started_with"));
    // Where it is stopped before its first checkpoint, it begins with the same state again.
    let stopped = folder.path().join("stopped");
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run_schedule(&stopped, with_start.clone(), &mut |event, _| {
            let Event::Step { point, .. } = event else { return };
            assert!(point.step != 2, "crash on purpose");
        })
    }));
    assert!(crash.is_err());
    run_schedule(&stopped, with_start, &mut |_, _| ()).unwrap();
    assert_eq!(end_of_run(&stopped, 9), end_of_run(&straight, 9));
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
    assert!(schedule.start().is_some() && schedule.from_scratch().unwrap().start().is_none());
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
    assert!(shape.contains("model.start: the shape is"), "{shape}");
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
    assert!(other.contains("model.start: the parametrization is"), "{other}");
    let other = refusal(&wide.replace("language_seed = 1", "language_seed = 2"));
    assert!(other.contains("model.start: the vocabulary is"), "{other}");
    run_schedule(&folder.path().join("good"), parsed(&wide), &mut |_, _| ()).unwrap();
}
