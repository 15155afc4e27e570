//! A resumed run is the uninterrupted run, bit for bit, whatever stopped it.

use model::DeviceChoice;
use schedule::Schedule;
use state::Origin;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trainer::{
    EvaluationSet, Event, Learner, Outcome, RunFolder, RunOptions, RunSummary, TrainError,
    open_corpus, train,
};

const SCHEDULE: &str = r#"
version = 1
name = "resume"
seed = 5
data = { source = "synthetic", n_words = 16, language_seed = 1 }
model = { context_len = 8 }
parametrization = { kind = "mup", base_width = 8 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "cosine", peak = 0.01, warmup_steps = 3, final_fraction = 0.1 }
batch = { tokens = 64, micro_batch = 3, ramp = { from_tokens = 16, steps = 5 } }
evaluation = { every_steps = 3, tokens = 64 }
checkpoint = { every_steps = 4, keep = 2 }

[[stages]]
n_layers = 2
d_model = 16
n_heads = 2
until = { steps = 14 }
"#;

fn schedule() -> Schedule {
    Schedule::parse(SCHEDULE, Path::new("resume.toml")).unwrap()
}

/// Runs a schedule in a folder, going on with what is there.
pub fn run_schedule(
    folder: &Path,
    schedule: Schedule,
    observe: &mut dyn FnMut(&Event, &AtomicBool),
) -> Result<RunSummary, TrainError> {
    let options = RunOptions {
        schedule,
        folder: folder.to_path_buf(),
        device: DeviceChoice::Cpu,
        resume: true,
        branch_of: None,
        command: "test".into(),
    };
    let stop = AtomicBool::new(false);
    train(&options, &mut |event| observe(event, &stop), &stop)
}

/// A model on the synthetic language before its first step, and held-out sequences of it.
pub fn learner(schedule: &Schedule) -> (Learner, EvaluationSet) {
    let corpus = Arc::new(open_corpus(schedule, Path::new("")).unwrap());
    let device = DeviceChoice::Cpu.open(schedule.machine().precision).unwrap();
    let state = Learner::initial_state(schedule, &corpus, Origin::of_no_run(schedule.seed()));
    let held_out = EvaluationSet::new(&corpus, 64, schedule.context_len());
    (Learner::new(schedule.clone(), corpus, device, state), held_out)
}

/// Runs it to its end, each step at the rate and the tokens that the schedule says.
fn run_through(folder: &Path) -> RunSummary {
    let schedule = schedule();
    run_schedule(folder, schedule.clone(), &mut |event, _| {
        let Event::Step { point, .. } = event else { return };
        assert_eq!(point.learning_rate, schedule.learning_rate_at(0, 0, point.step));
        assert_eq!(point.tokens, schedule.batch().tokens_through(point.step));
    })
    .unwrap()
}

fn record(folder: &Path) -> (Vec<String>, Vec<Vec<u8>>) {
    end_of_run(folder, 14)
}

/// The curve without its two clock columns, and the files of the last checkpoint.
pub fn end_of_run(folder: &Path, last_step: u64) -> (Vec<String>, Vec<Vec<u8>>) {
    let metrics = fs::read_to_string(folder.join("metrics.csv")).unwrap();
    let curve =
        metrics.lines().map(|row| row.split(',').take(8).collect::<Vec<_>>().join(",")).collect();
    let last = folder.join(format!("checkpoints/step-{last_step:08}"));
    let read = |name| fs::read(last.join(name)).unwrap();
    (curve, ["model.safetensors", "optimizer.safetensors", "state.json"].map(read).to_vec())
}

#[test]
fn a_run_that_crashes_anywhere_ends_as_if_it_had_not() {
    let folder = tempfile::tempdir().unwrap();
    let straight = folder.path().join("straight");
    run_through(&straight);
    for crash_at in [1, 4, 6, 9, 14] {
        let crashed = folder.path().join(format!("crashed-{crash_at}"));
        let crash = catch_unwind(AssertUnwindSafe(|| {
            run_schedule(&crashed, schedule(), &mut |event, _| {
                let Event::Step { point, .. } = event else { return };
                assert!(point.step != crash_at, "crash on purpose");
            })
        }));
        assert!(crash.is_err());
        let mut torn = fs::read(crashed.join("metrics.csv")).unwrap();
        torn.extend(b"0,99,12");
        fs::write(crashed.join("metrics.csv"), torn).unwrap();
        let summary = run_through(&crashed);
        assert_eq!(summary.outcome, Outcome::Finished);
        assert_eq!(record(&crashed), record(&straight), "crash at {crash_at}");
    }
}

#[test]
fn a_run_that_is_stopped_saves_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    run_through(&straight);
    let summary = run_schedule(&stopped, schedule(), &mut |event, stop| {
        if matches!(event, Event::Step { point, .. } if point.step == 6) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.outcome, summary.step), (Outcome::Interrupted, 6));
    let mut first_step = None;
    run_schedule(&stopped, schedule(), &mut |event, _| {
        if let Event::Started { first_step: first, .. } = event {
            first_step = Some(*first);
        }
    })
    .unwrap();
    assert_eq!(first_step, Some(6));
    assert_eq!(record(&stopped), record(&straight));
}

#[test]
fn a_broken_checkpoint_is_passed_over_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, broken) = (folder.path().join("straight"), folder.path().join("broken"));
    run_through(&straight);
    run_through(&broken);
    let file = broken.join("checkpoints/step-00000014/optimizer.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).unwrap();
    let mut skipped = Vec::new();
    run_schedule(&broken, schedule(), &mut |event, _| {
        if let Event::Skipped { reason, .. } = event {
            skipped.push(reason.clone());
        }
    })
    .unwrap();
    assert!(skipped[0].contains("optimizer.safetensors: checksum"), "{skipped:?}");
    assert_eq!(record(&broken), record(&straight));
}

#[test]
fn a_finished_run_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    run_through(folder.path());
    let before = record(folder.path());
    let summary = run_through(folder.path());
    assert_eq!((summary.outcome, summary.step), (Outcome::Finished, 14));
    assert_eq!(record(folder.path()), before);
}

/// However a step's sequences are shared out among passes, its loss and gradient are those of all of them.
#[test]
fn micro_batches_make_up_the_batch() {
    let steps = |micro_batch: usize| {
        let text = SCHEDULE.replace("micro_batch = 3", &format!("micro_batch = {micro_batch}"));
        let schedule = Schedule::parse(&text, Path::new("micro.toml")).unwrap();
        let (mut learner, _) = learner(&schedule);
        let mut step = || learner.advance(&AtomicBool::new(false)).unwrap().unwrap();
        [(); 6].map(|()| step()).map(|step| [step.train_loss, step.grad_norm])
    };
    let whole = steps(8);
    for micro_batch in [1, 3] {
        for (step, (found, due)) in steps(micro_batch).iter().zip(whole).enumerate() {
            for (found, due) in found.iter().zip(due) {
                assert!(
                    (found / due - 1.0).abs() < 1e-4,
                    "{micro_batch}, {step}: {found} for {due}"
                );
            }
        }
    }
}

/// A step that is given up half-way is made again, as if nothing had been.
#[test]
fn a_step_that_is_given_up_leaves_no_trace() {
    let schedule = schedule();
    let ((mut straight, _), (mut stopped, _)) = (learner(&schedule), learner(&schedule));
    let (never, now) = (AtomicBool::new(false), AtomicBool::new(true));
    for step in 1..4 {
        assert!(stopped.advance(&now).unwrap().is_none());
        let made = [&mut straight, &mut stopped].map(|one| one.advance(&never).unwrap().unwrap());
        assert_eq!(made[0].train_loss.to_bits(), made[1].train_loss.to_bits(), "{step}");
        assert_eq!(stopped.position().step, step);
    }
}

#[test]
fn a_run_whose_checkpoints_are_gone_keeps_its_record() {
    let folder = tempfile::tempdir().unwrap();
    run_through(folder.path());
    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    let metrics = || fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
    let before = metrics();
    let refusal =
        || run_schedule(folder.path(), schedule(), &mut |_, _| ()).unwrap_err().to_string();
    assert!(refusal().contains("its checkpoints are gone"), "{}", refusal());
    fs::remove_file(folder.path().join("events.jsonl")).unwrap();
    assert!(refusal().contains("its checkpoints are gone"), "{}", refusal());
    assert_eq!(metrics(), before);
    // Nor does it branch off again.
    let at = |name: &str| folder.path().join(name);
    run_schedule(&at("trunk"), stable(17), &mut |_, _| ()).unwrap();
    branched(&at("longer"), stable(24), &at("trunk")).unwrap();
    fs::remove_dir_all(at("longer/checkpoints")).unwrap();
    let before = fs::read(at("longer/metrics.csv")).unwrap();
    let refused = branched(&at("longer"), stable(24), &at("trunk")).unwrap_err().to_string();
    assert!(refused.contains("its checkpoints are gone"), "{refused}");
    assert_eq!(fs::read(at("longer/metrics.csv")).unwrap(), before);
}

#[test]
fn a_target_loss_ends_the_run_and_stays_reached() {
    let text = SCHEDULE.replace("{ steps = 14 }", "{ steps = 14, loss = 10.0 }");
    let schedule = Schedule::parse(&text, Path::new("target.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let summary = run_schedule(folder.path(), schedule.clone(), &mut |_, _| ()).unwrap();
        assert_eq!((summary.outcome, summary.step), (Outcome::TargetReached, 3));
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_state() {
    let text = SCHEDULE.replace("peak = 0.01", "peak = 1e30");
    let text = text.replace("weight_decay = 0.1", "weight_decay = 0");
    let schedule = Schedule::parse(&text, Path::new("hot.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = run_schedule(folder.path(), schedule, &mut |_, _| ()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("last good state is the start of the run"), "{message}");
    assert!(message.contains("learning_rate.peak"), "{message}");
    // Nor is a state saved that the last update has ruined.
    let text = text.replace("every_steps = 4", "every_steps = 1");
    let schedule = Schedule::parse(&text, Path::new("hot.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    run_schedule(folder.path(), schedule, &mut |_, _| ()).unwrap_err();
    assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 0);
    // One that went well until its growth is named.
    let text = SCHEDULE
        .replace(
            "\"cosine\", peak = 0.01, warmup_steps = 3, final_fraction = 0.1",
            "\"constant\", peak = 1e16, warmup_steps = 1000000000000000000",
        )
        .replace("weight_decay = 0.1", "weight_decay = 0")
        .replace("steps = 14", "steps = 4")
        + "[[stages]]\nn_layers = 3\nd_model = 16\nn_heads = 2\nuntil = { steps = 4 }\ngrowth = { resumed_step = 1000000000000000000 }\n";
    let schedule = Schedule::parse(&text, Path::new("hot.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = run_schedule(folder.path(), schedule, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("checkpoints/step-00000004"), "{error}");
}

/// A run whose rate is stable before it decays over its last half.
fn stable(steps: u64) -> Schedule {
    let text = SCHEDULE
        .replace("shape = \"cosine\"", "shape = \"wsd\", decay_fraction = 0.5")
        .replace("steps = 14", &format!("steps = {steps}"));
    Schedule::parse(&text, Path::new("stable.toml")).unwrap()
}

/// The same through a growth at a step.
fn grown(at: u64, steps: u64) -> Schedule {
    let text = stable(at).to_toml()
        + &format!(
            "[[stages]]\nn_layers = 3\nd_model = 16\nn_heads = 2\nuntil = {{ steps = {steps} }}\n\
             growth = {{ resumed_step = 4 }}\n"
        );
    Schedule::parse(&text, Path::new("grown.toml")).unwrap()
}

fn branched(folder: &Path, schedule: Schedule, of: &Path) -> Result<RunSummary, TrainError> {
    let options = RunOptions {
        schedule,
        folder: folder.to_path_buf(),
        device: DeviceChoice::Cpu,
        resume: true,
        branch_of: Some(of.to_path_buf()),
        command: "test".into(),
    };
    train(&options, &mut |_| (), &AtomicBool::new(false))
}

#[test]
fn a_branch_is_the_run_that_began_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    run_schedule(&at("trunk"), stable(17), &mut |_, _| ()).unwrap();
    let (longer, staged) = (at("longer"), at("staged"));
    // Longer, longer again, through a growth, and from a state after a growth.
    let cases = [
        ("longer", stable(24), at("trunk"), 8),
        ("again", stable(60), longer, 12),
        ("staged", grown(10, 12), at("trunk"), 8),
        ("later", grown(10, 30), staged, 14),
    ];
    for (name, schedule, of, step) in cases {
        branched(&at(name), schedule.clone(), &of).unwrap();
        assert_eq!(RunFolder::branch_of(&at(name)).unwrap().unwrap().step, step, "{name}");
        let alone = at(&format!("{name}-alone"));
        let summary = run_schedule(&alone, schedule, &mut |_, _| ()).unwrap();
        assert_eq!(end_of_run(&at(name), summary.step), end_of_run(&alone, summary.step), "{name}");
        let growths = |folder: &Path| RunFolder::growths_of(folder).unwrap().len();
        assert_eq!(growths(&at(name)), growths(&alone), "{name}");
    }
    let other = stable(24).to_toml().replace("seed = 5", "seed = 6");
    let other = Schedule::parse(&other, Path::new("other.toml")).unwrap();
    let cases = [
        (other, "`seed = 5` there, `seed = 6` here"),
        (stable(12), "the learning rate of step 7 is 0.01 there"),
        // A stage's end is evaluated, and step 8 of the trunk was not.
        (grown(8, 12), "at step 8: this run is evaluated there, the other was not"),
    ];
    for (schedule, reason) in cases {
        let refused = branched(&at("other"), schedule, &at("trunk")).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
        assert!(!at("other").exists());
    }
}

#[test]
fn a_branch_that_is_cut_short_begins_again() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    run_schedule(&at("trunk"), stable(17), &mut |_, _| ()).unwrap();
    branched(&at("whole"), stable(24), &at("trunk")).unwrap();
    for lost in ["a whole checkpoint", "checkpoints", "metrics.csv"] {
        // What a kill leaves before this was written.
        let cut = at(lost);
        fs::create_dir(&cut).unwrap();
        for name in ["schedule.toml", "lock"] {
            fs::copy(at("whole").join(name), cut.join(name)).unwrap();
        }
        fs::write(cut.join("events.jsonl"), "").unwrap();
        if lost != "metrics.csv" {
            fs::copy(at("trunk").join("metrics.csv"), cut.join("metrics.csv")).unwrap();
        }
        if lost == "a whole checkpoint" {
            // It was being written, after the record of the branch.
            fs::create_dir_all(cut.join("checkpoints/step-00000008.partial")).unwrap();
            fs::copy(at("whole").join("branch.json"), cut.join("branch.json")).unwrap();
        }
        branched(&cut, stable(24), &at("trunk")).unwrap();
        assert_eq!(end_of_run(&cut, 24), end_of_run(&at("whole"), 24), "{lost}");
        assert_eq!(RunFolder::branch_of(&cut).unwrap().unwrap().step, 8, "{lost}");
    }
    // The same without --branch-of: a run from its start, that has no branch to tell of.
    let alone = at("alone");
    fs::create_dir(&alone).unwrap();
    for name in ["schedule.toml", "lock", "branch.json"] {
        fs::copy(at("whole").join(name), alone.join(name)).unwrap();
    }
    run_schedule(&alone, stable(24), &mut |_, _| ()).unwrap();
    assert_eq!(RunFolder::branch_of(&alone).unwrap(), None);
}
