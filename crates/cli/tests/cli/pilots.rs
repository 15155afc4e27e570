//! Pilot runs, the pace after a growth, and plans under their law, as a user makes them.

use super::world::{World, lossy, write_recipes};
use serde_json::Value;
use std::fs;

/// Here within one width, whose largest is half of the last shape.
#[test]
fn pilot_shapes_can_be_chosen() {
    let world = World::empty();
    write_recipes(&world);
    let law = world.json("pilot stable.toml --share 0.9 --shapes 1x16x2,1x32x4 -o chosen");
    assert_eq!(law["points"], 6, "{law}");
    assert!(world.path("chosen/pilot-1x32x4-x0.6/metrics.csv").exists());
    assert!(world.path("chosen/pilot-1x16x2/metrics.csv").exists());
    assert!(!world.path("chosen/pilot-2x16x2").exists());
}

/// A plan that grows otherwise says so.
#[test]
fn the_growth_whose_pace_is_measured_can_be_chosen() {
    let world = World::empty();
    write_recipes(&world);
    let grow = "--share 0.5 --sizes 2 --grow feed-forward";
    let flat = world.json(&format!("pilot stable.toml {grow} -o flat"));
    assert!(world.path("flat/pilot-2x16x2-f16-to-2x16x2/growth-1.json").exists(), "{flat}");
    let grew = &flat["grown"]["grew"];
    let of = |kind: &str| grew[kind].as_bool() == Some(true);
    assert!(of("feed_forward") && !of("heads") && !of("depth"), "{grew}");
    assert!(flat["pace"].as_f64().unwrap() > 0.0, "{flat}");
    assert_eq!(flat["runs"].as_array().unwrap().len(), 7, "{flat}");
    assert_eq!(flat["law_file"], "flat/law.json");
    // Earlier, if that is asked for.
    let before = |law: &Value| law["grown"]["tokens_small"].as_f64().unwrap();
    let late = world.json(&format!("pilot stable.toml {grow} --grow-by 1 -o early"));
    assert_eq!(before(&late), before(&flat));
    let early = world.json(&format!("pilot stable.toml {grow} --grow-by 0.2 -o early --resume"));
    assert!(before(&early) < 0.8 * before(&flat), "{early}");
    // The late one that was made there before it has been paid for too.
    let compute = |law: &Value| law["compute"].as_f64().unwrap();
    assert!(compute(&early) > 1.1 * compute(&late), "{early}");
    assert_eq!(compute(&late), compute(&flat));
    // Without the question the pace that is known stays.
    let again = world.json("pilot stable.toml --share 0.5 --sizes 2 -o early --resume");
    assert_eq!((&again["grown"], compute(&again)), (&early["grown"], compute(&early)));
    let both = world.json("pilot stable.toml --share 0.5 --sizes 2 --grow head-size,feed-forward --grow-by 0.2 -o early --resume");
    assert!(world.path("early/pilot-2x16x2-h4-f16-to-2x16x2-by-0.2/growth-1.json").exists());
    assert_eq!(both["grown"]["grew"]["head_size"], true, "{both}");
    let found = world.bad("pilot recipe.toml --share 0.5 --grow-by 0.2 -o constant");
    assert!(
        found.contains("--grow-by 0.2: the pace after a growth can only be measured if"),
        "{found}"
    );
    let found = world.bad(&format!("pilot recipe.toml {grow} -o constant"));
    assert!(
        found.contains("--grow feed-forward: the pace after a growth can only be measured if"),
        "{found}"
    );
    let ramp = "tokens = 64, ramp = { from_tokens = 32, steps = 50, rate_exponent = 0.5 }, micro";
    let recipe = fs::read_to_string(world.path("recipe.toml")).unwrap();
    world.write("ramped.toml", recipe.replace("tokens = 64, micro", ramp));
    let found = world.bad("pilot ramped.toml --share 0.5 -o constant");
    let message =
        "ramped.toml: batch.ramp.rate_exponent: the rate rises with the batch and decays nowhere";
    assert!(found.contains(message), "{found}");
    world.good("train ramped.toml --out ramped");
    let found = world.bad("fit ramped --form compute --stable-only");
    assert!(
        found.contains("--stable-only: ramped/metrics.csv: the rate rises with the batch"),
        "{found}"
    );
    let plan =
        "plan --law flat/law.json --shape 2x32x4 --stop 2tpp --stages 2 --template stable.toml";
    for (operators, warned) in [("width-integer", true), ("feed-forward", false)] {
        let found = world.staged(&format!("{plan} --operators {operators} -o by_{operators}.toml"));
        let text = lossy(&found.stderr);
        assert!(found.status.success(), "{text}");
        assert!(
            lossy(&found.stdout).contains("\nThe grown pilot run itself saved "),
            "{}",
            lossy(&found.stdout)
        );
        let warning = "measured on a growth in feed-forward between pilot shapes and is assumed for width too";
        assert_eq!(text.contains(warning), warned, "{text}");
    }
    // The pace of an early growth says little of a late one, nor of one after as large a share of a longer run.
    let plan = plan.replace("flat/", "early/") + " --operators feed-forward";
    for (end, late, settled) in [
        ("--stop 2tpp", true, true),
        ("--stop 1tpp --grow-by 0.2", false, false),
        ("--stop 40tpp --grow-by 0.2", false, true),
        ("--stop 40tpp --grow-by 0.002", false, false),
    ] {
        let found = world.staged(&plan.replace("--stop 2tpp", end));
        let text = lossy(&found.stderr);
        assert!(found.status.success(), "{end}: {text}");
        assert_eq!(text.contains("the pace was measured after a growth at"), late, "{end}: {text}");
        assert_eq!(
            text.contains("tokens per parameter, but the growth into stage 2"),
            settled,
            "{end}: {text}"
        );
    }
    assert!(
        fs::read_to_string(world.path("by_feed-forward.toml")).unwrap().contains("d_ff = "),
        "a thin stage"
    );
}

/// What is no pilot runs' is neither taken nor written over.
#[test]
fn pilot_runs_go_on_only_where_there_are_some() {
    let world = World::empty();
    write_recipes(&world);
    world.write("foreign/law.json", "{}");
    world.good("train recipe.toml --out finished");
    for folder in ["foreign", "finished"] {
        let found = world.bad(&format!("pilot recipe.toml --share 0.5 -o {folder} --resume"));
        let message = format!("{folder}: is not empty and holds no pilot runs");
        assert!(found.contains(&message), "{found}");
    }
    assert_eq!(fs::read_to_string(world.path("foreign/law.json")).unwrap(), "{}");
}

/// 6 N D of the recipe, of which the pilot runs have a half.
fn budget() -> f64 {
    6.0 * f64::from(12 * 2 * 32 * 32) * 64.0 * 400.0
}

/// The compute that the last row of a run tells.
fn compute_of(metrics: &str) -> f64 {
    metrics.lines().last().unwrap().split(',').nth(3).unwrap().parse().unwrap()
}

#[test]
fn a_law_comes_from_pilot_runs_and_its_plan_runs() {
    let world = World::empty();
    write_recipes(&world);
    world.good("pilot recipe.toml --share 0.5 --sizes 2 -o pilots");
    let again = world.bad("pilot recipe.toml --share 0.5 --sizes 2 -o pilots");
    assert!(
        again.contains("pilots: is not empty; add --resume to go on with pilot runs"),
        "{again}"
    );
    let law = world.json("pilot recipe.toml --share 0.5 --sizes 2 -o pilots --resume");
    let other = world.bad("pilot recipe.toml --share 0.4 --sizes 2 -o pilots --resume");
    assert!(other.contains("pilots: holds pilot runs of another recipe, --share"), "{other}");
    let spent = law["compute"].as_f64().unwrap();
    assert!((spent / (0.5 * budget()) - 1.0).abs() < 0.02, "{spent} of {}", budget());
    world.good("plan --law pilots/law.json --template recipe.toml --shape 2x32x4 --operators width --stages 2 --stop 10tpp --context 16 -o mine.toml");
    let plan = fs::read_to_string(world.path("mine.toml")).unwrap();
    assert!(plan.contains("name = \"mine\"") && plan.contains("pilot_compute = "), "{plan}");
    assert!(plan.contains("low = [") && plan.contains("high = ["));
    let run = world.json("train mine.toml --out mine");
    assert_eq!(run["outcome"], "finished", "{run}");
    assert!(world.path("mine/growth-1.json").exists(), "{plan}");
}

/// Pilot runs go on with the text that they began with, and what cannot be planned leaves nothing behind.
#[test]
fn pilot_runs_keep_to_their_text() {
    let world = World::empty();
    write_recipes(&world);
    let text = fs::read_to_string(world.path("recipe.toml")).unwrap();
    let source = "{ source = \"synthetic\", n_words = 16, language_seed = 1 }";
    let text = text.replace(source, "{ source = \"text\", tokenizer = \"bytes\" }");
    world.write("text.toml", &text);
    let small = text.replace(
        "n_layers = 2\nd_model = 32\nn_heads = 4",
        "n_layers = 1\nd_model = 16\nn_heads = 1",
    );
    world.write("small.toml", small);
    world.write("a.txt", "All that is gold does not glitter. ".repeat(100));
    world.write("b.txt", "Not all those who wander are lost. ".repeat(100));
    let found = world.bad("pilot small.toml --text a.txt -o texts");
    assert!(found.contains("too small for pilot runs"), "{found}");
    assert!(!world.path("texts").exists());
    world.good("pilot text.toml --text a.txt --share 0.2 --sizes 2 -o texts");
    fs::create_dir(world.path("elsewhere")).unwrap();
    let again = world.staged_in(
        "elsewhere",
        "pilot ../text.toml --text ../a.txt --share 0.2 --sizes 2 -o ../texts --resume",
    );
    assert!(again.status.success(), "{}", lossy(&again.stderr));
    fs::rename(world.path("texts"), world.path("moved")).unwrap();
    world.good("pilot text.toml --text a.txt --share 0.2 --sizes 2 -o moved --resume");
    fs::rename(world.path("moved"), world.path("texts")).unwrap();
    let found = world.bad("pilot text.toml --text b.txt --share 0.2 --sizes 2 -o texts --resume");
    assert!(
        found.contains("texts: holds runs on a.txt (3500 bytes), tokenizer = bytes"),
        "{found}"
    );
}

/// The law of pilot runs in `ends`, whose rate decays from the start, so that they share no step.
fn pilots_of_ends(world: &World) -> Value {
    let decaying =
        fs::read_to_string(world.path("recipe.toml")).unwrap().replace("constant", "linear");
    world.write("decaying.toml", decaying);
    world.json("pilot decaying.toml --share 0.5 --sizes 2 -o ends")
}

/// Where the rate decays, runs of three lengths, of which the ends count, and one that grows, for the pace afterwards.
#[test]
fn ends_of_pilot_runs_make_a_law_and_a_grown_one_its_pace() {
    let world = World::empty();
    write_recipes(&world);
    let of_ends = pilots_of_ends(&world);
    assert_eq!(of_ends["points"].as_u64(), Some(6), "{of_ends}");
    assert!(world.path("ends/pilot-2x16x2-x0.6/metrics.csv").exists());
    assert!(world.path("ends/pilot-2x8x1-to-2x16x2/growth-1.json").exists(), "{of_ends}");
    let grown = &of_ends["grown"];
    assert_eq!(grown["small"].as_f64(), Some(f64::from(12 * 2 * 8 * 8)));
    let told = |key: &str| grown[key].as_f64().unwrap();
    let of_stages = |tokens: &str, n: &str| 6.0 * told(tokens) * told(n);
    let curve = fs::read_to_string(world.path("ends/pilot-2x8x1-to-2x16x2/metrics.csv")).unwrap();
    let due = of_stages("tokens_small", "small") + of_stages("tokens_large", "large");
    assert!((compute_of(&curve) / due - 1.0).abs() < 1e-9, "{grown}");
    let spent = of_ends["compute"].as_f64().unwrap();
    assert!(spent < 0.51 * budget(), "{spent} of {}", budget());
    let runs = fs::read_dir(world.path("ends")).unwrap().map(|entry| entry.unwrap().path());
    let paid: Vec<f64> = runs
        .filter_map(|run| fs::read_to_string(run.join("metrics.csv")).ok())
        .map(|text| compute_of(&text))
        .collect();
    assert_eq!(paid.len(), 7);
    assert!((paid.iter().sum::<f64>() / spent - 1.0).abs() < 1e-9, "{paid:?} {spent}");
}

/// Where the rate is stable before it decays, the shorter runs are a part of the longer ones, and paid for once.
#[test]
fn steps_that_pilot_runs_share_are_paid_once() {
    let world = World::empty();
    write_recipes(&world);
    let of_branches = world.json("pilot stable.toml --share 0.5 --sizes 2 -o branches");
    let warnings = of_branches["warnings"].to_string();
    assert!(warnings.contains("ends of 2 runs and of what branched off them"), "{warnings}");
    assert!(of_branches["compute"].as_f64().unwrap() < 0.51 * budget(), "{of_branches}");
    let tokens = |law: &Value| law["ranges"][1]["greatest"].as_f64().unwrap();
    assert!(tokens(&of_branches) > 1.3 * tokens(&pilots_of_ends(&world)), "{of_branches}");
    for branch in ["pilot-2x16x2", "pilot-2x16x2-x0.6", "pilot-2x8x1-to-2x16x2"] {
        assert!(world.path("branches").join(branch).join("branch.json").exists(), "{branch}");
    }
    let fitted = world.json("fit branches/pilot-2x16x2 branches/pilot-2x16x2-x0.6 branches/pilot-2x16x2-x0.36 branches/pilot-2x8x1 --form kaplan-tokens --last-only --bootstraps 0",
    );
    let paid = fitted["compute"].as_f64().unwrap();
    let whole = |run: &str| -> f64 {
        let text =
            fs::read_to_string(world.path("branches").join(run).join("metrics.csv")).unwrap();
        compute_of(&text)
    };
    let runs = ["pilot-2x16x2", "pilot-2x16x2-x0.6", "pilot-2x16x2-x0.36"].map(whole);
    let expected = runs[0] + 0.2 * (runs[1] + runs[2]) + whole("pilot-2x8x1");
    assert!((paid / expected - 1.0).abs() < 0.02, "{paid} {expected}");
    // So it is in a copy, whose record names the original.
    let runs = ["pilot-2x16x2", "pilot-2x16x2-x0.6", "pilot-2x16x2-x0.36", "pilot-2x8x1"];
    for run in runs {
        fs::create_dir_all(world.path("copy").join(run)).unwrap();
        for file in ["schedule.toml", "metrics.csv", "branch.json"] {
            let (from, to) = (world.path("branches").join(run), world.path("copy").join(run));
            if from.join(file).exists() {
                fs::copy(from.join(file), to.join(file)).unwrap();
            }
        }
    }
    let copies = runs.map(|run| format!("copy/{run}")).join(" ");
    let form = "--form kaplan-tokens --last-only --bootstraps 0";
    let copied = world.json(&format!("fit {copies} {form}"));
    assert_eq!(copied["compute"], fitted["compute"]);
    // Their common points count once, and a run and its branches are one where more than ends counts.
    let whole = "--form kaplan-tokens --stable-only --bootstraps 0 -o joined.json";
    assert_eq!(world.json(&format!("fit {copies} {whole}"))["runs"], 2);
    let points = fs::read_to_string(world.path("joined.points.csv")).unwrap();
    let mut places: Vec<&str> =
        points.lines().skip(1).map(|row| row.rsplitn(4, ',').last().unwrap()).collect();
    let all = places.len();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), all, "{points}");
}
