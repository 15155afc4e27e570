//! Runs at a constant rate: comparison, figure, report, pilot runs and predictions.

use super::write_run;
use crate::world::{STAGED, World, lossy, world};
use serde_json::{Value, json};
use std::fs;

/// What pilot runs took: of those that are named, what one has from another once; else what the schedule says.
#[test]
fn the_compute_of_pilot_runs_is_counted_once() {
    let world = world();
    let with_pilots = |found: &Value, pilots: f64| {
        let last = found["savings"].as_array().unwrap().last().unwrap().clone();
        let of = |key: &str| last[key].as_f64().unwrap();
        let due = 1.0 - (of("compute") + pilots) / of("compute_from_scratch");
        // Over two seeds it is the mean of logarithms of the whole.
        assert!((of("saving_with_pilots") / due - 1.0).abs() < 0.01, "{last} {due}");
        assert!((found["pilot_compute"].as_f64().unwrap() / pilots - 1.0).abs() < 1e-9, "{found}");
    };
    let rows = fs::read_to_string(world.path("scratch/1/metrics.csv")).unwrap();
    let spent = |row: &str| row.split(',').nth(3).unwrap().parse::<f64>().unwrap();
    let after = |step: usize| spent(rows.lines().nth(step).unwrap());
    let (tenth, twentieth, all) = (after(10), after(20), spent(rows.lines().last().unwrap()));
    with_pilots(&world.json("compare staged scratch --pilots scratch/1"), all);
    let recipe = fs::read_to_string(world.path("scratch/1/schedule.toml")).unwrap();
    for name in ["trunk", "limb"] {
        world.write(&format!("pilots/{name}/schedule.toml"), &recipe);
        world.write(&format!("pilots/{name}/metrics.csv"), &rows);
    }
    let branch = |compute: f64| {
        let of = world.path("pilots/trunk");
        let branch = json!({ "of": of, "step": 10, "compute_flops": compute });
        world.write("pilots/limb/branch.json", branch.to_string());
    };
    branch(tenth);
    with_pilots(&world.json("compare staged scratch --pilots pilots"), 2.0 * all - tenth);
    // By way of a run that is not named.
    world.write("pilots/twig/schedule.toml", &recipe);
    world.write("pilots/twig/metrics.csv", &rows);
    let of_limb =
        json!({ "of": world.path("pilots/limb"), "step": 20, "compute_flops": twentieth });
    world.write("pilots/twig/branch.json", of_limb.to_string());
    let named = "compare staged scratch --pilots pilots/trunk pilots/twig";
    with_pilots(&world.json(named), 2.0 * all - tenth);
    fs::remove_dir_all(world.path("pilots/twig")).unwrap();
    // One of the same name that lies beside is another run where it has not made the same steps.
    let other = fs::read_to_string(world.path("scratch/2/metrics.csv")).unwrap();
    world.write("others/trunk/schedule.toml", &recipe);
    world.write("others/trunk/metrics.csv", &other);
    for file in ["schedule.toml", "metrics.csv", "branch.json"] {
        let of_limb = fs::read(world.path(&format!("pilots/limb/{file}"))).unwrap();
        world.write(&format!("others/limb/{file}"), of_limb);
    }
    with_pilots(&world.json("compare staged scratch --pilots others"), 2.0 * all);
    // Nor is a run its own source where that has the same name in another folder.
    for file in ["schedule.toml", "metrics.csv", "branch.json"] {
        let of_limb = fs::read(world.path(&format!("pilots/limb/{file}"))).unwrap();
        world.write(&format!("elsewhere/trunk/{file}"), of_limb);
    }
    with_pilots(&world.json("compare staged scratch --pilots elsewhere/trunk"), all);
    // One without a curve is none either, and one that is damaged says so.
    fs::remove_file(world.path("others/trunk/metrics.csv")).unwrap();
    with_pilots(&world.json("compare staged scratch --pilots others/limb"), all);
    branch(2.0 * twentieth);
    world.write("pilots/twig/branch.json", of_limb.to_string());
    world.write("pilots/twig/schedule.toml", &recipe);
    world.write("pilots/twig/metrics.csv", &rows);
    let damaged = world.bad(named);
    assert!(damaged.contains("limb: branch.json: compute_flops ="), "{damaged}");
    fs::remove_dir_all(world.path("pilots/twig")).unwrap();
    branch(1e30);
    let refused = world.bad("compare staged scratch --pilots pilots");
    assert!(refused.contains("branch.json: compute_flops = 1e30: must be from 0"), "{refused}");
    for seed in [1, 2] {
        let text = fs::read_to_string(world.path(&format!("staged/{seed}/schedule.toml"))).unwrap();
        world.write(
            &format!("paid/{seed}/schedule.toml"),
            text.replacen("\nseed =", "\npilot_compute = 2.5e6\nseed =", 1),
        );
        let rows = fs::read_to_string(world.path(&format!("staged/{seed}/metrics.csv"))).unwrap();
        world.write(&format!("paid/{seed}/metrics.csv"), rows);
    }
    with_pilots(&world.json("compare paid scratch"), 2.5e6);
}

#[test]
fn a_staged_run_is_compared_drawn_and_reported() {
    let world = world();
    let scratch = fs::read_to_string(world.path("scratch/2/schedule.toml")).unwrap();
    assert!(scratch.contains("peak = 0.02") && scratch.contains("tiny-from-scratch"));
    assert!(!scratch.contains("growth") && scratch.contains("seed = 2"));

    let found = world.json("compare staged scratch --pilots scratch/1");
    assert_eq!((found["runs"].as_u64(), found["baselines"].as_u64()), (Some(2), Some(2)));
    let savings = found["savings"].as_array().unwrap();
    let last = savings.last().unwrap();
    for key in [
        "loss",
        "saving",
        "low",
        "high",
        "saving_with_pilots",
        "low_with_pilots",
        "high_with_pilots",
        "saving_exact",
    ] {
        assert!(last[key].is_f64(), "{key}: {last}");
    }
    assert!(last["saving_with_pilots"].as_f64() < last["saving"].as_f64());
    // Attention and head cost a part of each token that the smaller model does not spare: 60 steps of 1x16 and the rest of 2x32,
    // in 6 N D and exactly, for 16 words and a context of 16.
    let flops = |layers: f64, width: f64| {
        let plain = 72.0 * layers * width * width;
        (plain, plain + 6.0 * 16.0 * width + 12.0 * 16.0 * width * layers)
    };
    let ((small, small_exact), (large, large_exact)) = (flops(1.0, 16.0), flops(2.0, 32.0));
    let of = |key: &str| last[key].as_f64().unwrap();
    let in_large = of("compute") / 64.0 - 60.0 * small;
    let exact = 60.0 * small_exact + in_large * large_exact / large;
    let scratch = of("compute_from_scratch") / 64.0 * large_exact / large;
    assert!((of("saving_exact") - (1.0 - exact / scratch)).abs() < 1e-3, "{last}");
    assert!(of("saving_exact") < of("saving"));
    assert_eq!((&found["seeds"], &found["baseline_seeds"]), (&json!([1, 2]), &json!([1, 2])));
    assert_eq!(
        found["notes"],
        json!(["learning_rate.peak is 0.02 from scratch and 0.01 in the staged runs"])
    );
    // What a run saves that has not grown yet is the smaller model's.
    let rows = fs::read_to_string(world.path("staged/1/metrics.csv")).unwrap();
    let schedule = fs::read_to_string(world.path("staged/1/schedule.toml")).unwrap();
    let early: Vec<&str> = rows.lines().take(51).collect();
    world.write("early/schedule.toml", schedule);
    world.write("early/metrics.csv", early.join("\n") + "\n");
    let early = world.json("compare early scratch");
    let notes = early["notes"].to_string();
    assert!(notes.contains("have not yet made their last growth"), "{notes}");
    assert!(notes.contains("early is at step 50 and not at its end"), "{notes}");
    // One that has ended before, and has begun again since.
    let ended = "{\"event\":\"ended\",\"outcome\":\"target_reached\"}\n";
    for (events, is_at_end) in
        [(ended.to_string(), true), (format!("{ended}{{\"event\":\"started\"}}\n"), false)]
    {
        world.write("early/events.jsonl", events);
        let notes = world.json("compare early scratch")["notes"].to_string();
        assert_eq!(!notes.contains("early is at step 50"), is_at_end, "{notes}");
    }
    fs::remove_file(world.path("early/events.jsonl")).unwrap();
    assert!(
        world.bad("plan --curves staged/1 scratch/1").contains("staged/1/metrics.csv: has grown")
    );
    let is_marked = |saving: &Value| saving["at"].as_str().unwrap().ends_with("the last growth");
    assert!(early["savings"].as_array().unwrap().iter().all(is_marked) && !is_marked(last));
    let growth = &found["growths"][0];
    let (before, after) = (growth["loss_before"].as_f64(), growth["loss_after"].as_f64());
    assert!((before.unwrap() - after.unwrap()).abs() < 1e-5);
    assert!(growth["dynamics_ratio"].is_f64() && growth["operator"].is_string());
    assert_eq!(found["stages"].as_array().unwrap().len(), 2);
    assert!(found["stages"][1]["predicted_loss"].is_null());

    let text = world.good("compare staged scratch --loss 2.25");
    assert!(text.contains("asked for") && text.contains("growth into stage 2 at step 60"));
    assert!(text.contains("no prediction"));

    world.good("plot staged scratch -o story.svg");
    let figure = fs::read_to_string(world.path("story.svg")).unwrap();
    for words in ["staged run", "growth", "last shape from scratch", "% saved at", "Over steps"] {
        assert!(figure.contains(words), "{words}");
    }
    world.good("report staged scratch -o report.html");
    let page = fs::read_to_string(world.path("report.html")).unwrap();
    for words in
        ["<svg", "Saving at equal loss", "train tiny.toml --seed 1 --out staged/1", ", 1 thread<"]
    {
        assert!(page.contains(words), "{words}");
    }
    // Nothing is fetched: the only addresses are names of SVG itself.
    let fetched = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!fetched.contains("http") && !fetched.contains("src="));
    world.good("report staged scratch -o report.html");
    world.good("report staged/1");
    // Other seeds on the two sides are said.
    let text = world.staged("compare staged scratch/1");
    let (found, notes) = (lossy(&text.stdout), lossy(&text.stderr));
    assert!(
        found.contains("2 runs (seeds 1, 2) staged against 1 run (seed 1) from scratch"),
        "{found}"
    );
    assert!(
        found.contains("one baseline seed") && found.contains(" over 128 held-out tokens"),
        "{found}"
    );
    assert!(notes.contains("the staged runs have seeds 1, 2 and those from scratch 1"), "{notes}");
    assert!(world.path("staged/1/report.html").exists());
}

/// A run on its prediction, whatever the rounding of its compute.
#[test]
fn a_stage_is_compared_with_its_prediction_to_its_end() {
    let world = World::empty();
    for (i, per_step) in [1e9, 1.1e9, 2.748e6, 3.7e10, 5.3e8, 9.1e7].into_iter().enumerate() {
        let loss = |compute: f64| 3.0 * (compute / per_step).powf(-0.1);
        let rows: Vec<(usize, f64, f64)> = (1..=100)
            .map(|step| {
                let compute = per_step * f64::from(step);
                let due = if step % 5 == 0 { loss(compute) } else { f64::NAN };
                (usize::from(step > 60), compute, due)
            })
            .collect();
        let curve: Vec<(usize, f64, f64)> =
            rows.iter().copied().filter(|row| row.2.is_finite()).collect();
        let column = |of: &dyn Fn(&(usize, f64, f64)) -> f64| -> String {
            let values: Vec<String> = curve.iter().map(|row| format!("{:e}", of(row))).collect();
            format!("[{}]", values.join(", "))
        };
        let stages: Vec<usize> = curve.iter().map(|row| row.0).collect();
        let end = rows[99];
        let schedule = format!(
            "{STAGED}\n[prediction]\nlaw = \"law.json\"\nbatch = \"64\"\nfinal_loss = {}\ncompute = {:e}\n\
             compute_from_scratch = {:e}\nsaving = 0.2\nadvice = \"grow, but < 1\"\n[prediction.curve]\nstage = {stages:?}\ntokens = {}\ncompute = {}\n\
             loss = {}\nlow = []\nhigh = []\n",
            end.2,
            end.1,
            1.25 * end.1,
            column(&|row| 64.0 * row.1 / per_step),
            column(&|row| row.1),
            column(&|row| row.2),
        );
        let name = format!("run{i}");
        write_run(&world.path(&name), &schedule, &rows);
        let alone = STAGED.split("[[stages]]").next().unwrap().to_string()
            + "[[stages]]\nn_layers = 2\nd_model = 32\nn_heads = 4\nuntil = { steps = 100 }\n";
        let scratch: Vec<(usize, f64, f64)> =
            rows.iter().map(|row| (0, 1.25 * row.1, row.2)).collect();
        write_run(&world.path(&format!("scratch{i}")), &alone, &scratch);
        let found = world.json(&format!("compare {name} scratch{i}"));
        let last = found["savings"].as_array().unwrap().last().unwrap();
        assert!((last["saving"].as_f64().unwrap() - 0.2).abs() < 1e-3, "{found}");
        assert_eq!(found["predicted_saving"], 0.2);
        world.good(&format!("report {name} scratch{i} -o report.html"));
        let page = fs::read_to_string(world.path("report.html")).unwrap();
        assert!(
            page.contains("The plan predicted a saving of 20.0 %. It advised: grow, but &lt; 1."),
            "{page}"
        );
        for (stage, end) in found["stages"].as_array().unwrap().iter().zip([59, 99]) {
            let of = |key: &str| stage[key].as_f64().unwrap();
            assert!((of("actual_loss") / rows[end].2 - 1.0).abs() < 2e-3, "{per_step}: {stage}");
            assert!((of("predicted_loss") / rows[end].2 - 1.0).abs() < 1e-9, "{stage}");
            assert!(of("largest_error") < 2e-3, "{stage}");
        }
    }
}
