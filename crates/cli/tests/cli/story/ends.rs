//! Runs whose learning rate decays, of which the ends are compared.

use super::write_run;
use crate::world::{STAGED, World};
use serde_json::{Value, json};
use std::fs;

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
    assert_eq!((savings.len(), savings[0]["at"].as_str()), (1, Some("final losses")));
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
            "none ends as low: make a longer one (train --from-scratch --seed 1 --length FACTOR)"
        ),
        "{why}"
    );
    let longest = world.json("compare staged scratch/240");
    let why = longest["no_saving"].as_str().unwrap();
    assert!(
        why.contains(
            "none ends as high: make a shorter one (train --from-scratch --seed 1 --length FACTOR)"
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
