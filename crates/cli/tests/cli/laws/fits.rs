//! From measured losses to a law, its plan and their figures.

use super::{COLUMNS, loss_at, world};
use crate::world::{World, lossy};
use schedule::Schedule;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;

#[test]
fn a_table_becomes_a_law_a_plan_a_schedule_and_figures() {
    let world = world();
    let fit = world.json(&format!("fit points.csv {COLUMNS} --bootstraps 60 -o law.json"));
    assert_eq!(fit["law"], "tokens");
    let a = &fit["parameters"]["a"];
    assert!((a["value"].as_f64().unwrap() - 0.3478).abs() < 0.02, "{a}");
    assert!(a["low"].as_f64().unwrap() < a["high"].as_f64().unwrap());
    assert!(fit["objective"].as_f64().unwrap() > 0.0);
    assert!(fit["starts_agreeing"].as_u64().unwrap() > 12);

    let plan = world.json("plan --budget 1e19 --law law.json --stages 2..3 -o plan.toml");
    assert!((plan["compute"].as_f64().unwrap() / 1e19 - 1.0).abs() < 1e-6);
    for key in ["final_loss", "saving"] {
        assert!(plan[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(plan["saving_interval"].as_array().unwrap().len(), 2);
    let stages = plan["stages"].as_array().unwrap();
    assert!(stages.len() >= 2);
    for key in [
        "n_layers",
        "d_model",
        "n_heads",
        "n_params",
        "steps",
        "tokens",
        "compute",
        "loss_end",
        "growth_slope",
        "hidden_learning_rate",
    ] {
        assert!(stages[0][key].is_number(), "{key}");
    }
    assert!(stages[0]["loss_start"].is_null() && stages[1]["loss_start"].is_number());
    assert!(stages[0]["step_ratio"].as_f64().unwrap() > 1.0);

    // A table has no batch of its own; a template has.
    let template = fs::read_to_string(world.path("plan.toml")).unwrap();
    assert!(template.contains("\ntokens = 524288\n"));
    world.write("template.toml", template.replace("\ntokens = 524288\n", "\ntokens = 65536\n"));
    let other =
        world.json("plan --budget 1e19 --law law.json --stages 2..3 --template template.toml");
    assert_eq!(other["batch_tokens"], 65536.0);
    // What a template says of its own stages does not pass to the planned ones.
    let text = fs::read_to_string(world.path("template.toml")).unwrap();
    let of_its_own = text.replace("\n[data]", "pilot_compute = 2e13\n\n[data]")
        + "\n[from_scratch]\npeak = 0.003\nuntil = { steps = 7 }\n";
    world.write("own.toml", of_its_own);
    let ask = "plan --budget 1e19 --law law.json --stages 2..3 --template own.toml";
    world.good(&format!("{ask} -o planned.toml"));
    let planned = Schedule::read(&world.path("planned.toml")).unwrap();
    assert_ne!(planned.pilot_compute(), Some(2e13));
    let alone = planned.from_scratch().unwrap();
    assert_eq!(alone.learning_rate().peak, 0.003);
    assert!(alone.n_steps() > 1000, "{}", alone.n_steps());
    // A batch that rises does so over all stages, each of which has the tokens that are planned for it.
    let ramp = "\n[batch.ramp]\nfrom_tokens = 32768\nsteps = 2000\n";
    let text = fs::read_to_string(world.path("template.toml")).unwrap();
    world.write("ramped.toml", text.replace("\n[evaluation]", &format!("{ramp}\n[evaluation]")));
    let ask = "plan --budget 1e19 --law law.json --stages 2..3 --template ramped.toml";
    let ramped = world.json(&format!("{ask} -o rising.toml"));
    assert_eq!(ramped["batch_tokens"], other["batch_tokens"]);
    let schedule = Schedule::read(&world.path("rising.toml")).unwrap();
    let batch = schedule.batch();
    assert_eq!((batch.tokens_at(1), batch.final_tokens()), (32768, 65536));
    let mut end = 0;
    for (i, stage) in other["stages"].as_array().unwrap().iter().enumerate() {
        let (start, tokens) = (end, stage["tokens"].as_f64().unwrap());
        end += schedule.stages()[i].until().steps.unwrap();
        assert_eq!(ramped["stages"][i]["steps"], schedule.stages()[i].until().steps.unwrap());
        let made = batch.tokens_through(end) - batch.tokens_through(start);
        assert!((made as f64 - tokens).abs() <= 32768.0, "{i}: {made} of {tokens}");
        let resumed = stage["tokens_before"].as_f64().unwrap();
        let mine =
            schedule.stages()[i].growth().resumed_step.map_or(0, |s| batch.tokens_through(s));
        assert!((mine as f64 - resumed).abs() <= 32768.0, "{i}: {mine} for {resumed}");
    }
    let text = world.good(ask);
    assert!(text.contains("in batches of 32768 to 65536"), "{text}");
    let found = world.bad(&format!("{ask} --batch 131072"));
    let message =
        "batch.tokens = 65536: a ramp rises to it, and the plan's batches are of 131072 tokens";
    assert!(found.contains(message), "{found}");

    let schedule = Schedule::read(&world.path("plan.toml")).unwrap();
    assert_eq!(schedule.stages().len(), stages.len());
    let again = Schedule::parse(&schedule.to_toml(), &world.path("again.toml")).unwrap();
    assert_eq!(again, schedule);
    assert_eq!(again.to_toml(), schedule.to_toml());
    let steps: f64 = stages.iter().map(|stage| stage["steps"].as_f64().unwrap().round()).sum();
    assert_eq!(schedule.n_steps(), steps as u64);

    for arguments in [
        "plot law.json -o fit.svg",
        "plot plan.toml -o course.png",
        "plot plan.toml --show curves -o curves.svg",
        "plot plan.toml --show saving -o saving.svg",
        "plot small big/metrics.csv -o runs.svg",
    ] {
        world.good(arguments);
        let figure = world.path(arguments.rsplit(' ').next().unwrap());
        assert!(fs::metadata(figure).unwrap().len() > 3000, "{arguments}");
    }
}

/// A law whose size decides nothing says so, and its plans print no number that means nothing.
/// Ends that pilot runs have, under laws of one form and of the mean of two.
#[test]
fn intervals_of_pilot_laws_are_measured() {
    let found = World::empty().json("bench fit --pilots --repeats 2 --bootstraps 20");
    let told = |row: &Value| (row["law"].clone(), row["truth"].clone(), row["points"].clone());
    let rows: Vec<_> = found.as_array().unwrap().iter().map(told).collect();
    let due = [
        ("fixed-tokens", "tokens"),
        ("kaplan-tokens", "kaplan-tokens"),
        ("mixed-tokens", "tokens"),
        ("mixed-tokens", "kaplan-tokens"),
    ];
    assert_eq!(rows, due.map(|(law, truth)| (law.into(), truth.into(), 6.into())));
}

#[test]
fn a_law_that_one_quantity_decides_is_warned_of() {
    let world = World::empty();
    let mut table = "n_params,tokens,loss\n".to_string();
    for n in [1e4, 1e6] {
        for tokens in [1e6, 2e6, 4e6] {
            writeln!(table, "{n},{tokens},{}", (1e5f64 / tokens).powf(0.2) * 5.0).unwrap();
        }
    }
    world.write("points.csv", &table);
    let fit = world.json("fit points.csv --columns n_params=n_params,tokens=tokens,loss=loss --form kaplan-tokens --bootstraps 0 -o law.json");
    let warned = "n_params beyond 1.000e6 hardly lowers the loss under this law";
    assert!(fit["warnings"].to_string().contains(warned), "{fit}");
    let plan = "plan --shape 4x128x4 --stop 10tpp --law law.json --vocab 256 --context 128";
    assert!(world.bad(plan).contains("law.json: the law does not fall with n_params"));
    // One of which the size was told by the smallest models alone, as small pilot runs can make it.
    let mut law = world.json("fit points.csv --form kaplan-tokens --bootstraps 0");
    for (name, value) in [("N_c", 2e4), ("a_N", 10.0), ("a_D", 0.2), ("D_c", 3e8)] {
        law["parameters"][name]["value"] = value.into();
    }
    law["ranges"][0]["least"] = 1.9e4.into();
    world.write("steep.json", law.to_string());
    let plan = plan.replace("law.json", "steep.json");
    let found = world.staged(&plan);
    let (text, warnings) = (lossy(&found.stdout), lossy(&found.stderr));
    assert!(found.status.success(), "{warnings}");
    assert!(warnings.contains(warned) && !text.contains("times the asymptote"), "{text}");
    assert!(
        text.contains("; costs more than 11 times as much as the cheapest single size"),
        "{text}"
    );
    let multiple = world.json(&plan)["asymptote_multiple"].as_f64().unwrap();
    assert!(multiple > 1e3, "{multiple}");
}

#[test]
fn runs_are_fitted_and_compared_without_a_law() {
    let world = world();
    let output = world.staged("fit small big --form fixed-tokens --bootstraps 40");
    let text = lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2 points are from the learning rate's warm-up"), "{text}");
    let steps =
        world.json("fit small big --form kaplan-steps --stable-only --bootstraps 0 -o steps.json");
    assert_eq!(steps["batch_tokens"], 1e5);
    // Those of a table are told by its tokens and steps.
    let mut table = "n_params,tokens,steps,loss\n".to_string();
    for n in [1e6, 4e6, 1.6e7] {
        for steps in [100.0, 400.0, 1600.0] {
            writeln!(table, "{n},{},{steps},{}", 64e3 * steps, loss_at(n, 64e3 * steps)).unwrap();
        }
    }
    world.write("batches.csv", &table);
    world.write("unknown.csv", table.replace("steps", "of"));
    let batch = |files: &str| {
        world.json(&format!("fit {files} --form tokens --bootstraps 0"))["batch_tokens"].clone()
    };
    assert_eq!(batch("batches.csv"), 64e3);
    for mixed in ["small batches.csv", "small unknown.csv", "unknown.csv"] {
        assert!(batch(mixed).is_null(), "{mixed}");
    }
    // A law in steps of runs in one batch is one in tokens.
    let planned = |form: &str| {
        world.json(&format!("fit batches.csv --form {form} --bootstraps 0 -o of_{form}.json"));
        world.json(&format!("plan --shape gpt2 --stop 20tpp --law of_{form}.json --stages 2"))
    };
    let (in_steps, in_tokens) = (planned("steps"), planned("tokens"));
    for stage in 0..2 {
        let of = |plan: &Value| plan["stages"][stage]["tokens"].as_f64().unwrap();
        assert!((of(&in_steps) / of(&in_tokens) - 1.0).abs() < 1e-2, "{in_steps} {in_tokens}");
    }
    for key in ["final_loss", "saving"] {
        let of = |plan: &Value| plan[key].as_f64().unwrap();
        assert!((of(&in_steps) - of(&in_tokens)).abs() < 1e-3, "{key}: {in_steps} {in_tokens}");
    }
    // At the batch of the runs where another is not asked for.
    let plan = world.json("plan --shape gpt2 --stop 1.2x --law steps.json --stages 2");
    // In whole sequences.
    assert_eq!(plan["batch_tokens"], 98.0 * 1024.0);
    let growth = world.json("plan --curves small big");
    assert!(growth["growths"][0]["saving"].as_f64().unwrap() > 0.0, "{growth}");
    for (large, warned) in [("big", false), ("decayed", true)] {
        let said = lossy(&world.staged(&format!("plan --curves small {large}")).stderr);
        assert_eq!(
            said.contains("decayed/metrics.csv: its learning rate decays"),
            warned,
            "{said}"
        );
    }
    assert!(world.bad("plan --curves small small").contains("is given twice"));
    assert!(world.bad("plan --curves big small").contains("the smallest model comes first"));
}

#[test]
fn a_column_of_runs_and_empty_cells_are_known_without_being_named() {
    let world = World::empty();
    let mut table = "run,n_params,tokens,steps,loss\n".to_string();
    for (run, n) in [1e7, 3e7, 9e7].into_iter().enumerate() {
        for j in 0..6 {
            let tokens = 1e9 * 2f64.powi(j);
            writeln!(table, "{run},{n:e},{tokens:e},,{}", loss_at(n, tokens)).unwrap();
        }
    }
    world.write("runs.csv", table);
    let text = world.good("fit runs.csv --form kaplan-tokens --bootstraps 0 -o law.json");
    assert!(text.contains("18 points of 3 runs"), "{text}");
    let late =
        world.good("fit runs.csv --form kaplan-tokens --skip 0.1 --bootstraps 0 -o late.json");
    assert!(late.contains("12 points of 3 runs"), "{late}");
}
