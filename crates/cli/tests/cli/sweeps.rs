//! The baseline's best peak learning rate, as a user finds it.

use super::world::{World, listing, lossy, write_recipes};
use serde_json::Value;
use std::fs;

fn peaks(found: &Value) -> Vec<f64> {
    let runs = found["runs"].as_array().unwrap();
    runs.iter().map(|run| run["peak"].as_f64().unwrap()).collect()
}

#[test]
fn a_sweep_encloses_the_best_peak_and_goes_on() {
    let world = World::empty();
    write_recipes(&world);
    let found = world.json("sweep stable.toml --length 0.3 --peaks 0.025,0.0125 -o sweep");
    let (tried, best) = (peaks(&found), found["best"].as_f64().unwrap());
    assert!(tried.len() > 2 && tried.is_sorted(), "{found}");
    assert_eq!(tried[tried.len() - 2..], [0.0125, 0.025], "each further one is lower: {found}");
    let loss = |run: &Value| run["loss"].as_f64().unwrap();
    let runs = found["runs"].as_array().unwrap();
    let least = runs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!(least["peak"], best);
    assert_eq!(found["is_enclosed"], true, "{found}");
    // Each is the baseline at that peak, to the last bit, and another process makes none of them again.
    let recipe = fs::read_to_string(world.path("stable.toml")).unwrap();
    let own = "peak = 0.01,";
    assert!(recipe.contains(own), "{recipe}");
    world.write("best.toml", recipe.replace(own, &format!("peak = {best},")));
    let summary = world.json("train best.toml --from-scratch --length 0.3 --out alone");
    assert_eq!(summary["val_loss"], least["loss"]);
    let metrics = format!("sweep/peak-{best}/metrics.csv");
    let before = fs::read(world.path(&metrics)).unwrap();
    let again = world.json("sweep stable.toml --length 0.3 --peaks 0.025,0.0125 -o sweep --resume");
    assert_eq!(again, found);
    // Another peak joins those that are there.
    let more = world.json("sweep stable.toml --length 0.3 --peaks 0.2 -o sweep --resume");
    assert_eq!(peaks(&more), [tried.as_slice(), &[0.2]].concat());
    assert_eq!(more["best"], best);
    assert_eq!(fs::read(world.path(&metrics)).unwrap(), before);
}

#[test]
fn a_run_that_diverges_ends_alone() {
    let world = World::empty();
    write_recipes(&world);
    let recipe = fs::read_to_string(world.path("stable.toml")).unwrap();
    world.write("wild.toml", recipe.replace("weight_decay = 0.1", "weight_decay = 0"));
    let sweep = "sweep wild.toml --shape 1x16x2 --length 0.2";
    let found = world.json(&format!("{sweep} --peaks 0.01,1e20 -o one"));
    let last = found["runs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["peak"], &last["loss"]), (&1e20.into(), &Value::Null));
    assert!(last["diverged_at"].as_u64().unwrap() > 0, "{found}");
    assert!(found["best"].as_f64().unwrap() < 1.0, "{found}");
    let told = world.good(&format!("{sweep} --peaks 0.01,1e20 -o one --resume"));
    assert!(told.contains("diverged at "), "{told}");
    let message = world.bad(&format!("{sweep} --peaks 1e20,1e22 -o all"));
    assert!(message.contains("every run diverged; give lower --peaks"), "{message}");
}

#[test]
fn a_sweep_that_cannot_be_made_leaves_nothing() {
    let world = World::empty();
    write_recipes(&world);
    world.write("taken/file", "");
    let before = listing(world.root());
    for (arguments, message) in [
        ("--peaks 0.01,50", "--peaks: learning_rate.peak = 50: must be below 1 / optimizer"),
        ("--peaks 0.01,-1", "--peaks: learning_rate.peak = -1: must be positive"),
        ("--shape 2x", "--shape 2x: must be LAYERSxWIDTHxHEADS"),
        ("--length 0.0001", "must be from 0.001 to 1000"),
        ("-o taken", "taken: is not empty and holds no runs of a sweep; choose another folder"),
        ("-o taken --resume", "taken: is not empty and holds no runs of a sweep"),
        ("--text book.txt", "book.txt"),
    ] {
        let found = world.bad(&format!("sweep stable.toml {arguments}"));
        assert!(found.contains(message), "{arguments}: {found}");
    }
    assert_eq!(listing(world.root()), before);
    let told = world.staged("sweep recipe.toml --shape 1x16x2 --length 0.1 --peaks 0.01 -o flat");
    let text = lossy(&told.stderr);
    assert!(text.contains("warning: learning_rate.shape = \"constant\""), "{text}");
}
