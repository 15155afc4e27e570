//! A staged run against its baseline: the comparison, its figure and its report, as a user makes them.

use super::world::{STAGED, World, lossy, world, write_recipes};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The folder of a run with the stage, compute and loss of each row; NaN where nothing was evaluated.
fn write_run(folder: &Path, schedule: &str, rows: &[(usize, f64, f64)]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("schedule.toml"), schedule).unwrap();
    let mut text = "stage,step,tokens,compute_flops,train_loss,val_loss,learning_rate,grad_norm,\
                    tokens_per_second,wall_seconds\n"
        .to_string();
    for (i, (stage, compute, loss)) in rows.iter().enumerate() {
        let step = i + 1;
        let tokens = 64 * step;
        let held_out = if loss.is_nan() { String::new() } else { loss.to_string() };
        writeln!(text, "{stage},{step},{tokens},{compute:e},2,{held_out},0.01,1,1,1").unwrap();
    }
    fs::write(folder.join("metrics.csv"), text).unwrap();
}

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
    let (tenth, all) = (spent(rows.lines().nth(10).unwrap()), spent(rows.lines().last().unwrap()));
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
             compute_from_scratch = {:e}\nsaving = 0.2\n[prediction.curve]\nstage = {stages:?}\ntokens = {}\ncompute = {}\n\
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
        for (stage, end) in found["stages"].as_array().unwrap().iter().zip([59, 99]) {
            let of = |key: &str| stage[key].as_f64().unwrap();
            assert!((of("actual_loss") / rows[end].2 - 1.0).abs() < 2e-3, "{per_step}: {stage}");
            assert!((of("predicted_loss") / rows[end].2 - 1.0).abs() < 1e-9, "{stage}");
            assert!(of("largest_error") < 2e-3, "{stage}");
        }
    }
}

/// Runs from scratch of three lengths, whose ends have a loss by their compute, whatever the losses on the way.
fn write_decayed(world: &World, decaying: &str, per_step: f64, loss: impl Fn(f64) -> f64) {
    let alone = decaying.split("from_scratch").next().unwrap().to_string();
    for steps in [60u32, 120, 240] {
        let schedule = format!(
            "{alone}[[stages]]\nn_layers = 2\nd_model = 32\nn_heads = 4\nuntil = {{ steps = {steps} }}\n"
        );
        let compute = |i: u32| per_step * f64::from(i);
        let on_the_way = (1..steps).map(|i| (0, compute(i), 2.0 * loss(compute(i))));
        let mut rows: Vec<(usize, f64, f64)> = on_the_way.collect();
        rows.push((0, compute(steps), loss(compute(steps))));
        write_run(&world.path(&format!("scratch/{steps}")), &schedule, &rows);
    }
}

#[test]
fn a_law_says_whether_it_is_one_of_ends() {
    let world = World::empty();
    let decaying = STAGED.replace("\"constant\"", "\"linear\"");
    write_decayed(&world, &decaying, 1e7, |compute| 3.0 * (compute / 1e9).powf(-0.1));
    let fit = "fit scratch/60 scratch/120 scratch/240 --form compute --bootstraps 0";
    for (points, of_ends) in
        [("--last-only", json!(true)), ("--stable-only", json!(false)), ("", Value::Null)]
    {
        let law = world.json(&format!("{fit} {points}"));
        let due = json!({ "n_vocab": null, "context_len": 16, "of_ends": of_ends });
        assert_eq!(law["recipe"], due, "{points}");
    }
}

/// Decayed runs from scratch, and in staged/ one that saves a fifth of the compute, whose rows these are.
fn write_decayed_sides(world: &World, decaying: &str) -> Vec<(usize, f64, f64)> {
    let per_step = 6.0 * 64.0 * f64::from(12 * 2 * 32 * 32);
    let loss = |compute: f64| 3.0 * (compute / 1e9).powf(-0.1);
    write_decayed(world, decaying, per_step, loss);
    let end = 0.8 * per_step * 100.0;
    let mut rows: Vec<(usize, f64, f64)> =
        (1..100).map(|i| ((i - 1) / 60, end * i as f64 / 100.0, 5.0)).collect();
    rows.push((1, end, loss(per_step * 100.0)));
    write_run(&world.path("staged"), decaying, &rows);
    rows
}

#[test]
fn baselines_may_be_named_one_by_one() {
    let world = World::empty();
    write_decayed_sides(&world, &STAGED.replace("\"constant\"", "\"linear\""));
    let apart = "scratch/240 scratch/60 scratch/120";
    let found = world.json(&format!("compare staged {apart}"));
    assert_eq!(found, world.json("compare staged scratch"));
    let twice = world.bad("compare staged scratch scratch/60");
    assert!(twice.contains("scratch/60: is given twice"), "{twice}");
    for (baselines, name) in [("scratch", "together"), (apart, "apart")] {
        world.good(&format!("report staged {baselines} -o {name}.html"));
        world.good(&format!("plot staged {baselines} -o {name}.svg"));
    }
    let read = |name: &str| fs::read_to_string(world.path(name)).unwrap();
    assert!(read("apart.html").contains("20.0 %"));
    assert_eq!(read("apart.svg"), read("together.svg"));
    world.good("plot staged scratch");
    assert_eq!(read("staged/figure.svg"), read("together.svg"));
    assert!(world.bad("plot nowhere").contains("nowhere: there is no such file or folder"));
    let nowhere = world.bad("plot staged/schedule.toml");
    assert!(nowhere.contains("schedule.toml: -o is needed"), "{nowhere}");
}

/// Where the learning rate decays, ends are compared with the ends of runs of several lengths.
#[test]
fn decayed_runs_are_compared_by_their_ends() {
    let world = World::empty();
    let decaying = STAGED.replace("\"constant\"", "\"linear\"");
    world.write("tiny.toml", &decaying);
    let rows = write_decayed_sides(&world, &decaying);
    let found = world.json("compare staged scratch");
    let savings = found["savings"].as_array().unwrap();
    assert_eq!((savings.len(), savings[0]["at"].as_str()), (1, Some("the ends")));
    assert!((savings[0]["saving"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{savings:?}");
    assert!(world.bad("compare staged scratch --loss 2").contains("only the ends of runs"));
    world.good("plot staged scratch -o ends.svg");
    world.good("report staged scratch -o ends.html");
    assert!(fs::read_to_string(world.path("ends.html")).unwrap().contains("Only the ends of runs"));
    let cut = &rows[..50];
    write_run(
        &world.path("cut"),
        &fs::read_to_string(world.path("scratch/60/schedule.toml")).unwrap(),
        cut,
    );
    let found = world.bad("fit scratch/120 scratch/240 cut --form compute --last-only");
    assert!(found.contains("--last-only: cut: is at step 50 and not at its end"), "{found}");

    let one_length = world.json("compare staged scratch/60");
    assert_eq!(one_length["savings"].as_array().unwrap().len(), 0);
    let why = one_length["no_saving"].as_str().unwrap();
    assert!(
        why.contains(
            "none ends as low: make a longer one (train --from-scratch --seed 1 --length)"
        ),
        "{why}"
    );
    let longest = world.json("compare staged scratch/240");
    let why = longest["no_saving"].as_str().unwrap();
    assert!(
        why.contains(
            "none ends as high: make a shorter one (train --from-scratch --seed 1 --length)"
        ),
        "{why}"
    );
    // Lower than any end from scratch, with a third of the longest run's compute.
    let mut low = rows.clone();
    low.last_mut().unwrap().2 *= 3f64.powf(-0.1);
    write_run(&world.path("low"), &decaying, &low);
    let low = world.json("compare low scratch");
    let least = &low["at_least"];
    assert!((least["saving"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9, "{low}");
    assert!(world.good("compare low scratch").contains("they save more than 66.7 %"));
    assert!(one_length["at_least"].is_null(), "{one_length}");
    // Only ends count, so a curve takes no more than that.
    let mut sparse_rows = rows.clone();
    let end = sparse_rows.len() - 1;
    sparse_rows[..end].iter_mut().for_each(|row| row.2 = f64::NAN);
    write_run(&world.path("sparse"), &decaying, &sparse_rows);
    let sparse = world.json("compare sparse scratch");
    assert!((sparse["savings"][0]["saving"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{sparse}");
    world.good("plot sparse scratch -o sparse.svg");
    assert!(fs::read_to_string(world.path("sparse.svg")).unwrap().contains("20.0 % saved"));
    sparse_rows[end].2 = f64::NAN;
    write_run(&world.path("unevaluated"), &decaying, &sparse_rows);
    let none = world.json("compare unevaluated scratch");
    assert!(none["no_saving"].as_str().unwrap().contains("has no held-out loss at its end"));
    world.good("report sparse scratch -o sparse.html");
    let page = fs::read_to_string(world.path("sparse.html")).unwrap();
    assert!(page.contains("events.jsonl tells no start"), "a run without its events");
    // One that has not ended, and one whose first stage ended by its slope.
    write_run(&world.path("short"), &decaying, &rows[..90]);
    let short = world.json("compare short scratch");
    assert!(
        short["no_saving"].as_str().unwrap().contains("short: is at step 90 and not at its end")
    );
    world.good("report short scratch -o short.html");
    let online =
        decaying.replace("until = { steps = 60 }", "until = { steps = 900, slope = -0.01 }");
    write_run(&world.path("online"), &online, &rows);
    let online = world.json("compare online scratch");
    assert!((online["savings"][0]["saving"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{online}");
    let swapped = world.bad("report scratch -o x.html");
    assert!(
        swapped.contains(
            "one schedule under several seeds; runs from scratch of several lengths are baselines"
        ),
        "{swapped}"
    );
    let found = world.bad("compare staged scratch --others scratch/60");
    assert!(
        found
            .contains("--others scratch/60: it is for the dynamics after growths at a stable rate"),
        "{found}"
    );
    let found = world.bad("report unevaluated -o x.html");
    assert!(found.contains("unevaluated: Held-out loss: nothing to draw"), "{found}");
    let steady = fs::read_to_string(world.path("scratch/60/schedule.toml")).unwrap();
    // Another recipe is no baseline of the same, which is said.
    let ramp = "tokens = 128, ramp = { from_tokens = 64, steps = 50 }, micro";
    let other = steady.replace("tokens = 64, micro", ramp);
    let of_one_stage: Vec<(usize, f64, f64)> = rows.iter().map(|row| (0, row.1, row.2)).collect();
    write_run(&world.path("other/60"), &other, &of_one_stage);
    world.good("report staged other -o other.html");
    let page = fs::read_to_string(world.path("other.html")).unwrap();
    let note = "Note: batch.tokens is 128 from scratch and 64 in the staged runs";
    assert!(page.contains(note), "{page}");
    let ramp = "Note: batch.ramp is from 64 tokens over 50 steps, rate_exponent = 0 from scratch and none in the staged runs";
    assert!(page.contains(ramp), "{page}");
    write_run(&world.path("steady"), &steady.replace("linear", "constant"), &of_one_stage);
    assert!(world.bad("compare staged steady").contains("staged: its learning rate decays"));
}

#[test]
fn what_would_be_left_out_or_written_over_is_refused() {
    let world = world();
    write_recipes(&world);
    fs::create_dir(world.path("empty")).unwrap();
    world.write("thesis.html", "<html>precious</html>");
    world.write("torn/2/metrics.csv", "");
    world.write("loose/3", "");
    std::os::unix::fs::symlink("gone", world.path("loose/2")).unwrap();
    std::os::unix::fs::symlink("me@host", world.path("scratch/.#notes")).unwrap();
    for (folder, version, minutes) in
        [("old", "", 2.0), ("new", "\"version\": 4, ", 2.0), ("long", "", 1e9)]
    {
        fs::create_dir_all(world.path(folder)).unwrap();
        let settings = format!("{{{version}\"minutes\": {minutes:.1}, \"on_text\": false}}");
        world.write(&format!("{folder}/demo.json"), settings);
    }
    let cases = [
        (
            "compare staged/1/metrics.csv scratch",
            "metrics.csv: is a file; name the folder of a run",
        ),
        ("compare staged scratch --pilots empty", "--pilots: empty: neither a run"),
        (
            "compare staged scratch --pilots scratch scratch/2",
            "--pilots: scratch/2: is given twice",
        ),
        ("compare staged scratch --pilots staged/1", "--pilots: staged/1: is the staged run"),
        ("report staged scratch --pilots empty", "--pilots: empty: neither a run"),
        ("plot staged scratch --pilots empty", "--pilots: empty: neither a run"),
        ("plot scratch/1 scratch/2 --pilots scratch/2", "-o is needed"),
        ("plot staged --pilots scratch/2", "--pilots: they are counted in the saving"),
        ("plot scratch --pilots scratch/2 -o x.svg", "--pilots: they are counted in the saving"),
        ("demo --resume --out long", "demo.json: minutes = 1000000000: must be from 0.5 to 10000"),
        ("compare torn scratch", "torn/2: has a metrics.csv and no schedule.toml"),
        ("compare staged loose", "loose/2: a link that leads nowhere"),
        (
            "report staged scratch -o thesis.html",
            "thesis.html: is there already, and no report of staged",
        ),
        (
            "fit staged",
            "staged: is a folder of runs; name those of them that are to be fitted: staged/1 staged/2",
        ),
        ("fit scratch/1 scratch/1/metrics.csv", "scratch/1/metrics.csv: is given twice"),
        (
            "fit scratch/1 scratch/2 -o tiny.toml",
            "tiny.toml: is there already, and no law of staged fit",
        ),
        ("demo --resume --out nowhere", "nowhere: holds no demo to go on with"),
        ("demo --resume --out staged/1", "staged/1: holds no demo to go on with"),
        ("demo --resume --out old", "old: holds a demo of another version of staged"),
        (
            "demo --resume --minutes 3 --out new",
            "new: holds a demo with --minutes 2 on the synthetic language",
        ),
        ("pilot stable.toml --share 0.9 -o staged/1", "staged/1: is not empty; add --resume"),
    ];
    for (arguments, message) in cases {
        let found = world.bad(arguments);
        assert!(found.contains(message), "{arguments}: {found}");
    }
}

/// Runs that are read together are of one kind, and are told apart.
#[test]
fn runs_are_read_together_only_where_their_losses_can_be() {
    let world = world();
    let rows: Vec<(usize, f64, f64)> = (1..50).map(|i| (0, 1e9 * f64::from(i), 3.0)).collect();
    let other = STAGED.split("[[stages]]").next().unwrap().to_string()
        + "[[stages]]\nn_layers = 1\nd_model = 16\nn_heads = 2\nuntil = { steps = 60 }\n";
    let wide =
        other.replace("1\nd_model = 16", "2\nd_model = 32").replace("heads = 2", "heads = 4");
    for (name, schedule) in [("1", wide.clone()), ("2", wide.replace("seed = 1\n", "seed = 2\n"))] {
        for folder in ["seeds", "twins"] {
            write_run(&world.path(&format!("{folder}/{name}")), &schedule, &rows);
        }
    }
    // Models and evaluations of another kind, wherever runs are read together.
    let untied = wide.replace("context_len = 16", "context_len = 16, tied_head = false");
    write_run(&world.path("untied"), &untied, &rows);
    for command in [
        "compare staged untied",
        "plot seeds/1 untied -o other.svg",
        "plan --curves seeds/1 untied",
    ] {
        let found = world.bad(command);
        assert!(
            found.contains("untied: model.tied_head = false, and true in "),
            "{command}: {found}"
        );
    }
    // Runs whose losses have nothing in common.
    let high: Vec<(usize, f64, f64)> =
        rows.iter().map(|row| (0, row.1, 9.0 - 1e-11 * row.1)).collect();
    write_run(&world.path("high"), &wide, &high);
    let none = world.json("compare staged high");
    assert!(none["savings"].as_array().unwrap().is_empty());
    let why = none["no_saving"].as_str().unwrap();
    assert!(why.starts_with("no loss is reached by all runs: the staged ones go from "), "{why}");
    assert!(world.good("compare staged high").contains("no saving can be computed: no loss"));
    world.good("report staged high -o high.html");
    let page = fs::read_to_string(world.path("high.html")).unwrap();
    assert!(page.contains("No saving can be computed: no loss is reached by all runs"), "{page}");
    let lost: Vec<(usize, f64, f64)> = rows.iter().map(|row| (3, row.1, row.2)).collect();
    write_run(&world.path("lost"), &wide, &lost);
    let found = world.bad("compare staged lost");
    assert!(found.contains("lost/metrics.csv: step 1: stage = 3: must be below 1"), "{found}");
    // Runs are named apart, and a folder of them stands for its runs.
    for (drawn, names) in
        [("seeds/1 twins/1", ["\nseeds/1\n", "\ntwins/1\n"]), ("seeds", ["\n1\n", "\n2\n"])]
    {
        world.good(&format!("plot {drawn} -o named.svg"));
        let figure = fs::read_to_string(world.path("named.svg")).unwrap();
        assert!(names.iter().all(|name| figure.contains(name)), "{drawn}");
    }
    // A link is followed, to a file that is not there yet.
    std::os::unix::fs::symlink("led.svg", world.path("link.svg")).unwrap();
    world.good("plot seeds -o link.svg");
    assert!(world.path("link.svg").is_symlink() && world.path("led.svg").is_file());
}

#[test]
fn what_cannot_be_compared_is_explained() {
    let world = world();
    write_recipes(&world);
    let cases = [
        ("compare staged staged/1", "staged/1: has 2 stages; a baseline has one"),
        ("compare nowhere scratch", "nowhere cannot be read"),
        ("compare staged scratch --loss 0.1", "--loss 0.1: not every run reaches it"),
        ("plot staged scratch -o x.gif", "figures are written as .svg or .png"),
        ("plot staged scratch --show curves -o x.svg", "--show: staged is no schedule"),
        ("report staged scratch -o x.pdf", "x.pdf: a report is written as .html"),
        ("report staged scratch -o scratch", "scratch: is a folder; name a file"),
        ("pilot tiny.toml --share 2", "--share 2: must be above 0 and at most 1"),
        ("pilot tiny.toml --budget 0", "--budget 0: must be positive"),
        (
            "pilot tiny.toml --grow up -o p",
            "--grow up: must be width, width-integer, depth, heads, head-size or feed-forward",
        ),
        ("pilot nothing.toml", "nothing.toml"),
        ("pilot stable.toml --shapes 1x32x4", "--shapes 1x32x4: a law needs two sizes at least"),
        (
            "pilot stable.toml --shapes 1x32x4,1x32x4",
            "--shapes 1x32x4,1x32x4: a law in N needs shapes of different N",
        ),
        (
            "pilot stable.toml --shapes 1x32x4,2x32x4",
            "--shapes 2x32x4: does not grow into 2x32x4, the next larger shape",
        ),
        (
            "pilot stable.toml --shapes 1x16x2-f16,1x32x4",
            "--shapes 1x16x2-f16: a law in N is one of shapes with GPT-2's proportions",
        ),
    ];
    for (arguments, message) in cases {
        let found = world.bad(arguments);
        assert!(found.contains(message), "{arguments}: {found}");
    }
    let rows: Vec<(usize, f64, f64)> = (1..50).map(|i| (0, 1e9 * f64::from(i), 3.0)).collect();
    let other = STAGED.split("[[stages]]").next().unwrap().to_string()
        + "[[stages]]\nn_layers = 1\nd_model = 16\nn_heads = 2\nuntil = { steps = 60 }\n";
    write_run(&world.path("narrow"), &other, &rows);
    write_run(&world.path("narrow-ones/1"), &other, &rows);
    let found = world.bad("compare staged narrow");
    assert!(found.contains("narrow: trains 1x16x2, and"), "{found}");
    let found = world.bad("compare staged scratch --others narrow");
    let twice = world.bad("compare staged scratch --others scratch/1");
    assert!(twice.contains("--others: scratch/1: is there already"), "{twice}");
    // Of a folder of runs those that tell something are taken.
    let wide =
        other.replace("1\nd_model = 16", "2\nd_model = 32").replace("heads = 2", "heads = 4");
    let falling = |i: i32| (0, 1e6 * f64::from(i), 3.0 - 0.02 * f64::from(i));
    write_run(&world.path("pilots/1"), &other, &rows);
    write_run(&world.path("pilots/2"), &wide, &(1..50).map(falling).collect::<Vec<_>>());
    let ratio = |options: &str| {
        let found = world.json(&format!("compare staged scratch {options}"));
        found["growths"][0]["dynamics_ratio"].as_f64().unwrap()
    };
    assert_ne!(ratio("--others pilots"), ratio(""));
    assert_eq!(ratio("--others pilots"), ratio("--others pilots/2"));
    // What is a baseline already is no other.
    let none = world.bad("compare staged scratch --others scratch");
    assert!(none.contains("scratch: holds no run from scratch"), "{none}");
    let others = world.bad("compare staged scratch --others narrow-ones");
    assert!(others.contains("narrow-ones: holds no run from scratch, at a constant"), "{others}");
    fs::rename(world.path("staged/1/growth-1.json"), world.path("kept.json")).unwrap();
    let notes = world.json("compare staged/1 scratch")["notes"].to_string();
    assert!(notes.contains("staged/1 has no growth-1.json"), "{notes}");
    fs::rename(world.path("kept.json"), world.path("staged/1/growth-1.json")).unwrap();
    let message = "--others narrow: is no run from scratch of a shape that the staged run grows into (2x32x4)";
    assert!(found.contains(message), "{found}");
    write_run(&world.path("far"), &wide.replace("context_len = 16", "context_len = 8"), &rows);
    let found = world.bad("compare staged far");
    assert!(found.contains("far: model.context_len = 8, and 16 in staged"), "{found}");
    // Seeds of one schedule that learn from other languages.
    world.write("other.toml", STAGED.replace("n_words = 16", "n_words = 20"));
    for (seed, schedule) in [(1, "tiny"), (2, "other")] {
        world.good(&format!("train {schedule}.toml --seed {seed} --out languages/{seed}"));
    }
    let found = world.bad("compare languages scratch");
    assert!(found.contains("languages/2: learns from words:20"), "{found}");
    // Folders of runs that are not of one schedule.
    for (name, schedule) in [("1", wide.clone()), ("2", wide.replace("seed = 1\n", "seed = 2\n"))] {
        for folder in ["seeds", "twins", "rates"] {
            write_run(&world.path(&format!("{folder}/{name}")), &schedule, &rows);
        }
    }
    assert!(world.staged("compare staged seeds").status.success());
    write_run(&world.path("twins/3"), &wide, &rows);
    let found = world.bad("compare staged twins");
    assert!(found.contains("twins/3: has seed 1 like twins/1"), "{found}");
    let slow = wide.replace("seed = 1\n", "seed = 3\n").replace("peak = 0.01", "peak = 0.02");
    write_run(&world.path("rates/3"), &slow, &rows);
    let found = world.bad("compare staged rates");
    assert!(found.contains("`peak = 0.02` there, `peak = 0.01` here"), "{found}");
    world.write("elsewhere.toml", STAGED.replace("language_seed = 1", "language_seed = 2"));
    world.good("train elsewhere.toml --from-scratch --seed 9 --out foreign");
    let found = world.bad("compare staged foreign");
    assert!(found.contains("their losses are not comparable"), "{found}");
    // By folder or by file.
    for drawn in ["plot scratch/1 foreign", "plot scratch/1/metrics.csv foreign/metrics.csv"] {
        let found = world.bad(&format!("{drawn} -o both.svg"));
        assert!(found.contains("their losses are not comparable"), "{drawn}: {found}");
    }
}
