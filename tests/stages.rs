//! Runs of several stages: where each ends, what growing does, and going on after a crash.

use crate::resume::{end_of_run, learner, run_schedule};
use schedule::Schedule;
use state::ParamRole;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use trainer::{Event, Learner, Outcome};

const STAGES: &str = r#"
version = 1
name = "growing"
seed = 3
data = { source = "synthetic", n_words = 64, language_seed = 1 }
model = { context_len = 16 }
parametrization = { kind = "mup", base_width = 16 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "wsd", peak = 0.01, warmup_steps = 3 }
batch = { tokens = 64, micro_batch = 3 }
evaluation = { every_steps = 3, tokens = 64 }
checkpoint = { every_steps = 4, keep = 2 }

[[stages]]
n_layers = 1
d_model = 16
n_heads = 2
until = { steps = 5 }

[[stages]]
n_layers = 1
d_model = 32
n_heads = 4
until = { tokens = 384 }
growth = { width = "split", moments = { reestimated = 2 }, rewarmup_steps = 2 }

[[stages]]
n_layers = 3
d_model = 40
n_heads = 5
until = { steps = 4 }
growth = { depth = "copy_identity", resumed_step = 6 }
"#;

fn stages() -> Schedule {
    Schedule::parse(STAGES, Path::new("growing.toml")).unwrap()
}

#[test]
fn a_staged_run_goes_through_its_stages_and_says_what_growing_did() {
    let folder = tempfile::tempdir().unwrap();
    let mut grown = Vec::new();
    let summary = run_schedule(folder.path(), stages(), &mut |event, _| {
        if let Event::Grown(report) = event {
            grown.push(report.clone());
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.outcome, summary.step), (Outcome::Finished, 15));
    assert_eq!(
        grown.iter().map(|report| (report.stage, report.step)).collect::<Vec<_>>(),
        [(1, 5), (2, 11)]
    );
    for report in &grown {
        assert!(report.loss_preserving && report.check.relative_change() < 1e-6, "{report:?}");
        assert!(report.check.max_abs_delta_logit < 1e-5);
        let path = folder.path().join(format!("growth-{}.json", report.stage));
        let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(json["loss_before"], report.check.loss_before);
        assert_eq!(json["operator"], report.operator);
    }
    assert!(grown[1].operator.contains("fresh, then depth 1 -> 3 copy_identity 0 0' 0'"));
    // Each stage at its own price, and two batches of the second for its moments.
    let [a, b, c] = [0, 1, 2].map(|k| stages().stages()[k].shape(1).flops_per_token().0);
    let due = 64.0 * (5.0 * a + 8.0 * b + 4.0 * c);
    assert!((summary.compute_flops / due - 1.0).abs() < 1e-12);
}

/// Holds runs that crash at one of these events, steps and growths counted from 1, against one that does not.
fn crash(schedule: &Schedule, last_step: u64, crashes: impl Iterator<Item = u64>) {
    let folder = tempfile::tempdir().unwrap();
    let straight = folder.path().join("straight");
    let summary = run_schedule(&straight, schedule.clone(), &mut |_, _| ()).unwrap();
    assert_eq!(summary.step, last_step);
    for crash_at in crashes {
        let crashed = folder.path().join(format!("crashed-{crash_at}"));
        let mut events = 0;
        let crash = catch_unwind(AssertUnwindSafe(|| {
            run_schedule(&crashed, schedule.clone(), &mut |event, _| {
                events += u64::from(matches!(event, Event::Step { .. } | Event::Grown(_)));
                assert!(events != crash_at, "crash on purpose");
            })
        }));
        assert!(crash.is_err());
        run_schedule(&crashed, schedule.clone(), &mut |_, _| ()).unwrap();
        let [found, due] = [&crashed, &straight].map(|run| end_of_run(run, last_step));
        assert_eq!(found, due, "crash at {crash_at}");
    }
}

#[test]
fn a_staged_run_that_crashes_anywhere_ends_as_if_it_had_not() {
    crash(&stages(), 15, 1..=16);
}

/// What its first stage ends by is the curve from before the crash, too.
#[test]
fn a_stage_that_ends_at_a_slope_ends_there_after_a_crash() {
    let until = "until = { steps = 60, slope = -1000.0 }";
    let text = STAGES.replace("until = { steps = 5 }", until);
    let schedule = Schedule::parse(&text, Path::new("growing.toml")).unwrap();
    crash(&schedule, 46, [5, 22, 35, 36, 37, 38].into_iter());
}

/// New moments may take long: a signal ends them, and the run goes on from before the growth.
#[test]
fn moments_that_are_estimated_anew_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    run_schedule(&straight, stages(), &mut |_, _| ()).unwrap();
    let summary = run_schedule(&stopped, stages(), &mut |event, stop| {
        let at_growth = matches!(event, Event::Step { point, .. } if point.step == 5);
        if at_growth {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.outcome, summary.step), (Outcome::Interrupted, 5));
    assert!(!stopped.join("growth-1.json").exists());
    run_schedule(&stopped, stages(), &mut |_, _| ()).unwrap();
    assert_eq!(end_of_run(&stopped, 15), end_of_run(&straight, 15));
}

#[test]
fn a_stage_ends_early_at_its_loss_and_stopping_at_a_growth_changes_nothing() {
    let text = STAGES.replace("until = { steps = 5 }", "until = { steps = 50, loss = 10.0 }");
    let schedule = Schedule::parse(&text, Path::new("growing.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let summary = run_schedule(&straight, schedule.clone(), &mut |_, _| ()).unwrap();
    assert_eq!((summary.outcome, summary.step), (Outcome::Finished, 13));
    let stopped_at = run_schedule(&stopped, schedule.clone(), &mut |event, stop| {
        if matches!(event, Event::Grown(report) if report.stage == 1) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let stopped_at = stopped_at.unwrap();
    assert_eq!((stopped_at.outcome, stopped_at.step), (Outcome::Interrupted, 3));
    assert!(stopped_at.val_loss.is_some_and(|loss| loss <= 10.0), "measured before the growth");
    run_schedule(&stopped, schedule, &mut |_, _| ()).unwrap();
    assert_eq!(end_of_run(&stopped, 13), end_of_run(&straight, 13));
}

#[test]
fn a_stage_ends_when_its_curve_is_as_flat_as_asked_for() {
    let with = |slope: &str| {
        let until = format!("until = {{ steps = 60, slope = {slope} }}");
        let text = STAGES.replace("until = { steps = 5 }", &until);
        let schedule = Schedule::parse(&text, Path::new("growing.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut grown_at = 0;
        run_schedule(folder.path(), schedule, &mut |event, _| {
            if let Event::Grown(report) = event {
                grown_at = if report.stage == 1 { report.step } else { grown_at };
            }
        })
        .unwrap();
        grown_at
    };
    // Evaluations are three steps apart, and ten are needed from a quarter of the compute on: those at 9 to 36 steps.
    assert_eq!(with("-1000.0"), 36);
    assert!(with("-1e-9") > 36);
}

/// A later stage is judged by its own evaluations: ten of them, whatever was measured before the growth.
#[test]
fn a_later_stage_ends_at_its_own_slope() {
    let text = STAGES.replace("until = { steps = 5 }", "until = { steps = 60 }");
    let text = text.replace("until = { tokens = 384 }", "until = { steps = 60, slope = -1000.0 }");
    let schedule = Schedule::parse(&text, Path::new("growing.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut grown_at = Vec::new();
    run_schedule(folder.path(), schedule, &mut |event, _| {
        if let Event::Grown(report) = event {
            grown_at.push(report.step);
        }
    })
    .unwrap();
    assert_eq!(grown_at, [60, 90]);
}

/// Adam's first update moves a bias by the rate, whichever way; after a growth with new moments it is the first again.
#[test]
fn moments_from_zero_begin_with_a_first_update() {
    let text = STAGES.replace("moments = { reestimated = 2 }", "moments = \"zero\"");
    let schedule = Schedule::parse(&text, Path::new("growing.toml")).unwrap();
    let (mut learner, held_out) = learner(&schedule);
    let never = AtomicBool::new(false);
    for _ in 0..5 {
        learner.advance(&never).unwrap().unwrap();
    }
    learner.grow(&held_out, &never).unwrap().unwrap();
    let bias = |learner: &Learner| {
        let state = learner.state();
        let (_, bias) =
            state.params.iter().find(|(id, _)| id.role == ParamRole::FinalNormBias).unwrap();
        bias.data.clone()
    };
    let before = bias(&learner);
    let step = learner.advance(&never).unwrap().unwrap();
    for (before, after) in before.iter().zip(bias(&learner)) {
        let moved = f64::from((after - before).abs()) / step.learning_rate;
        assert!((moved - 1.0).abs() < 0.01, "{moved}");
    }
}
