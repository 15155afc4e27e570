//! What a plan under a law counts on, and what it says.

use super::{COLUMNS, world};
use crate::world::{World, lossy};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn of_the_project(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name).display().to_string()
}

#[test]
fn what_speaks_against_a_growth_stands_beside_the_advice() {
    let world = world();
    world.json(&format!("fit points.csv {COLUMNS} --bootstraps 60 -o law.json"));
    let ask = "plan --shape gpt2 --stop 10tpp --stages 2 --law";
    let whole = world.json(&format!("{ask} law.json"));
    let by_hand = world.json(&format!("{ask} law.json --pace 0.8 -o slow.toml"));
    let text = fs::read_to_string(world.path("slow.toml")).unwrap();
    let exact = "with attention and output head counted less than 1 % is saved";
    let advice = format!("\n# Advice: grow, but in doubt: {exact}\n# To be trained: data");
    assert!(text.contains(&advice), "{text}");
    assert!(text.contains(&format!("\nadvice = \"grow, but in doubt: {exact}\"\n")), "{text}");
    assert_eq!(by_hand["doubts"], serde_json::json!([exact]));
    assert_eq!(whole["doubts"][0], "the pace is not measured");
    let untroubled = world.good(&format!("{ask} law.json --pace 0.9 --vocab 500 --context 64"));
    assert!(untroubled.contains("\nadvice: grow\n"), "{untroubled}");
    let told = world.good(&format!("{ask} law.json"));
    let doubt = "advice: grow, but in doubt: the pace is not measured";
    assert!(told.contains(doubt), "{told}");
}

/// A law with a grown run beside it, which came to the loss that four fifths of its tokens would have brought at the pace from
/// scratch.
#[test]
fn the_pace_after_growth_comes_from_the_law_or_by_hand() {
    let world = world();
    world.json(&format!("fit points.csv {COLUMNS} --bootstraps 60 -o law.json"));
    let ask = "plan --shape gpt2 --stop 10tpp --stages 2 --law";
    let whole = world.json(&format!("{ask} law.json"));
    assert_eq!(whole["pace"], 1.0);
    let by_hand = world.json(&format!("{ask} law.json --pace 0.8 -o slow.toml"));
    assert!(by_hand["saving"].as_f64() < whole["saving"].as_f64());
    let text = fs::read_to_string(world.path("slow.toml")).unwrap();
    assert!(text.contains("# Pace 0.80") && text.contains("\npace = 0.8\n"));
    assert!(
        text.contains("\n# These stages save something at any pace; at a pace of 1 they save "),
        "{text}"
    );
    world.good("plot slow.toml --show saving -o saving.svg");

    let mut law: Value =
        serde_json::from_str(&fs::read_to_string(world.path("law.json")).unwrap()).unwrap();
    let value = |name: &str| law["parameters"][name]["value"].as_f64().unwrap();
    let (floor, a, b) = (value("E"), value("a"), value("b"));
    let (big_a, big_b) = (value("A"), value("B"));
    let loss = |n: f64, tokens: f64| floor + big_a * n.powf(-a) + big_b * tokens.powf(-b);
    let (small, large): (f64, f64) = (2e7, 8e7);
    let grown_at = loss(small, 1e9);
    let resumed = (big_b / (grown_at - floor - big_a * large.powf(-a))).powf(1.0 / b);
    let mut grown = serde_json::json!({
        "small": small, "tokens_small": 1e9, "large": large, "tokens_large": 2e9,
        "loss": loss(large, resumed + 1.6e9),
    });
    law["grown"] = grown.clone();
    world.write("grown.json", law.to_string());
    let measured = world.json(&format!("{ask} grown.json"));
    assert!((measured["pace"].as_f64().unwrap() - 0.8).abs() < 1e-9);
    let saving = |plan: &Value| plan["saving"].as_f64().unwrap();
    assert!((saving(&measured) / saving(&by_hand) - 1.0).abs() < 1e-6);
    let early = format!("{ask} grown.json --grow-by 0.35");
    let (text, plan) = (world.good(&early), world.json(&early));
    assert!(text.contains("Pace 0.80"));
    let number = |name: &str| plan[name].as_f64().unwrap();
    let hinge = format!(
        "These stages break even at a pace of {:.2}: a lower one costs more than from scratch; at a pace of 1 they save {:.2} %\n",
        number("break_even_pace"),
        100.0 * number("saving_at_pace_one")
    );
    assert!(text.contains(&hinge), "{text}");
    // Grown late, as that pace has it, a head start is worth more than all that the stages cost.
    assert_eq!(measured["break_even_pace"], 0.0);
    let text = world.good(&format!("{ask} grown.json"));
    assert!(
        text.contains("These stages save something at any pace; at a pace of 1 they save "),
        "{text}"
    );
    let text = world.good(&format!("{ask} law.json"));
    assert!(text.contains("These stages break even at a pace of "), "{text}");
    assert!(!text.contains("at a pace of 1 they"), "{text}");

    // One above 1 is a lead after as many tokens as it was measured over: between a pace of 1 and one that lasts.
    grown["loss"] = loss(large, resumed + 2.4e9).into();
    law["grown"] = grown.clone();
    world.write("fast.json", law.to_string());
    let far = "plan --shape gpt2 --stop 100tpp --stages 2 --law fast.json";
    let fast = world.json(&format!("{far} -o fast.toml"));
    assert!((fast["pace"].as_f64().unwrap() - 1.2).abs() < 1e-9, "{fast}");
    assert_eq!(fast["pace_over"], 2e9);
    let lasting = world.json(&format!("{far} --pace 1.2"));
    assert!(lasting["pace_over"].is_null());
    let low = saving(&world.json(&format!("{far} --pace 1")));
    assert!(low + 0.01 < saving(&fast) && saving(&fast) + 0.01 < saving(&lasting), "{low} {fast}");
    // The interval is of resampled paces above 1 that pass too.
    let ends = |plan: &Value| plan["saving_interval"][1].as_f64().unwrap();
    assert!(ends(&fast) < saving(&lasting) + 0.1, "{fast}");
    let text = fs::read_to_string(world.path("fast.toml")).unwrap();
    assert!(
        text.contains("for 2.00e9 tokens after the first growth")
            && text.contains("\npace_over = 2000000000.0\n")
    );
    world.good("plot fast.toml --show saving -o saving.svg");
    let odd = text.lines().map(|line| match line.split_once(" = ") {
        Some(("pace", _)) => "pace = 0.9",
        _ => line,
    });
    world.write("odd.toml", odd.collect::<Vec<_>>().join("\n"));
    assert!(world.bad("plot odd.toml -o odd.svg").contains("prediction.pace_over"));

    what_a_grown_run_cannot_be(&world, ask, &law);
    grown["loss"] = (1.1 * grown_at).into();
    law["grown"] = grown;
    world.write("grown.json", law.to_string());
    let refused = world.staged(&format!("{ask} grown.json"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        lossy(&refused.stderr).contains("no pace follows from it"),
        "{}",
        lossy(&refused.stderr)
    );
    assert_eq!(world.json(&format!("{ask} grown.json --pace 0.8"))["saving"], by_hand["saving"]);
    let refused = world.staged(&format!("{ask} law.json --pace 0"));
    assert!(lossy(&refused.stderr).contains("must be above 0 and at most 2"));
}

/// Where a smaller shape would do for less, growths from it have no best moment before the end.
#[test]
fn a_plan_says_what_it_leaves_out_and_at_which_pace_nothing_grows() {
    let world = world();
    let told = |arguments: &str| {
        let found = world.staged(arguments);
        let text = lossy(&found.stderr);
        assert!(found.status.success(), "{arguments}: {text}");
        text
    };
    let (plan, later) = ("plan --shape gpt2 --stop 1tpp", "--grow-by SHARE plans a late growth");
    assert!(told(plan).contains(later), "{}", told(plan));
    for bounded in ["--shape gpt2 --stop 1tpp --grow-by 0.9", "--shape gpt2 --stop 20tpp"] {
        assert!(!told(&format!("plan {bounded}")).contains(later), "{bounded}");
    }
    let alone = &world.json(plan)["cheaper_alone"];
    assert!(alone["less"].as_f64().is_some_and(|less| less > 0.0), "{alone}");
    let none = told("plan --shape gpt2 --pace 0.1");
    assert!(
        none.contains("growths were searched for at a pace of 0.10; --pace sets another"),
        "{none}"
    );
    assert!(!told("plan --shape gpt2 --pace 0.1 --stages 1").contains("growths were searched for"));
    // Sequences and batches of which GPT-2's are no multiples.
    let odd = world.json("plan --shape gpt2 --context 96 --batch 960");
    assert_eq!(
        (&odd["batch_tokens"], &odd["stages"][0]["context_len"]),
        (&960.0.into(), &96.into())
    );
}

/// Two plans of the project's own, which saved nothing where they promised 26.6 and 18.8 %: the first grows too late, and both count on
/// the pace of a model of a quarter of their size.
#[test]
fn growths_with_too_few_steps_and_leads_of_smaller_models_are_warned_of() {
    let world = World::empty();
    let [law, recipe] =
        ["notebooks-data/bytes_3m_thin_law.json", "schedules/bytes_3m_baseline.toml"]
            .map(of_the_project);
    let warnings = |shape: &str, stop: &str| {
        let plan = world.json(&format!(
            "plan --law {law} --template {recipe} --shape {shape} --stop {stop} --operators feed-forward,head-size --stages 2 --grow-by 0.35"
        ));
        plan["warnings"].to_string()
    };
    let lead = "the pace of 1.16 was measured at N = 7.864e5 and is assumed at ";
    assert!(warnings("4x256x4", "10tpp").contains(&format!("{lead}3.146e6")));
    assert!(!warnings("4x256x4", "10tpp --pace 1").contains(lead));
    assert!(!warnings("4x128x2", "10tpp").contains(lead));
    let warned = |stop: &str| {
        let warnings = warnings("4x256x4", stop);
        let found = warnings.split_once(" steps are left between").map(|(before, _)| before);
        found.map(|before| before.rsplit('"').next().unwrap().parse::<f64>().unwrap())
    };
    // 4,221 steps on the course of the rate, of which a fifth decay, and 1,613 that it resumes at.
    assert_eq!(warned("6tpp"), Some((0.8f64 * 4221.0).round() - 1613.0));
    assert_eq!(warned("10tpp"), None);
}

/// A plan of the project's own that saved 28 % where it promised 46: it grows to 25 times the parameters.
#[test]
fn growths_to_many_more_parameters_than_measured_are_warned_of() {
    let world = World::empty();
    let law = of_the_project("notebooks-data/h200_width_law.json");
    let warned = |through: &str, pace: &str| {
        let plan = world.json(&format!(
            "plan --law {law} --shape 12x640x10 --stop 0.19tpp --through {through} --grow-by 0.5{pace}"
        ));
        let warnings = plan["warnings"].to_string();
        let times =
            warnings.split_once("a growth to 2.8 times the parameters and is assumed for one to ");
        times.map(|(_, after)| after.split_once(' ').unwrap().0.to_owned())
    };
    assert_eq!(warned("12x128x2", "").as_deref(), Some("25.0"));
    assert_eq!(warned("12x256x4", "").as_deref(), Some("6.2"));
    assert_eq!(warned("12x320x5", ""), None);
    assert_eq!(warned("12x128x2", " --pace 0.9"), None);
}

/// Refusals of a law whose grown run is none, by key; and what grows nothing counts on no pace.
fn what_a_grown_run_cannot_be(world: &World, ask: &str, law: &Value) {
    for (key, value, reason) in [
        ("small", 0.0, "grown.small = 0: must be positive"),
        ("tokens_large", -1.0, "grown.tokens_large = -1: must be positive"),
        ("large", 1.0, "grown.large = 1: must be above grown.small = "),
    ] {
        let mut spoilt = law.clone();
        spoilt["grown"][key] = value.into();
        world.write("spoilt.json", spoilt.to_string());
        let refused = world.bad(&format!("{ask} spoilt.json"));
        assert!(refused.contains(&format!("spoilt.json: {reason}")), "{refused}");
    }
    // What does not grow counts on no pace.
    let one = ask.replace("--stages 2", "--stages 1");
    let alone = world.json(&format!("{one} grown.json"));
    assert_eq!(alone["doubts"], serde_json::json!([]));
}

/// A published law, or a table of speeds, is not silently asked beyond what it was made from.
#[test]
fn what_a_plan_goes_beyond_is_said() {
    let world = world();
    let told = |arguments: &str, key: &str| world.json(arguments)[key].to_string();
    let gpt2 = "plan --shape gpt2 --stop 20tpp --stages 2";
    assert!(!told(gpt2, "doubts").contains("vocabulary"));
    let alone = "plan --shape gpt2 --stop 20tpp --stages 1";
    assert!(!told(alone, "warnings").contains("extrapolation"));
    assert!(told(&format!("{gpt2} --vocab 256"), "doubts").contains("another vocabulary"));
    let small = told("plan --budget 1e15", "warnings");
    assert!(small.contains("outside the data of chinchilla-corrected"), "{small}");
    world.write("one.csv", "n_params,tokens_per_second\n1e7,1e6\n");
    let far = told(&format!("{gpt2} --throughput one.csv"), "warnings");
    assert!(far.contains("outside the sizes of --throughput"), "{far}");
    let near = told(&format!("{gpt2} --throughput speed.csv"), "warnings");
    assert!(!near.contains("--throughput"), "{near}");
    // Thresholds that were given for twice the width or depth.
    let authors = |through: &str| {
        told(
            &format!("plan --shape gpt2 --stop 1.1x --law kaplan-authors --through {through}"),
            "baselines",
        )
    };
    assert!(!authors("6x768x12").contains("given for growths by two"));
    assert!(authors("3x768x12").contains("given for growths by two"));
    // Of an end that the law does not have, what was asked for is named.
    let low = world.bad("plan --shape gpt2 --stop 2.0");
    assert!(low.contains("--shape gpt2 --stop 2.0: loss 2: a model of"), "{low}");
}

/// By option, by the template, by the law's runs, or as GPT-2.
#[test]
fn a_plan_takes_the_vocabulary_from_where_it_is_told() {
    let world = world();
    let mut law = world.json(&format!("fit points.csv {COLUMNS} --bootstraps 0 -o law.json"));
    let ask = |options: &str| {
        let plan = world.json(&format!("plan --budget 1e19 --law law.json {options}"));
        let assumes = plan["warnings"].to_string().contains("GPT-2's by default");
        (plan["stages"][0]["n_vocab"].as_u64().unwrap(), assumes)
    };
    world.good("plan --budget 1e19 --law law.json -o plan.toml");
    let template = fs::read_to_string(world.path("plan.toml")).unwrap();
    let at = template.find("[data]").unwrap();
    let end = at + template[at..].find("\n\n").unwrap();
    let with = |data: &str| template.replacen(&template[at..end], &format!("[data]\n{data}"), 1);
    let text = "source = \"text\"\nfiles = []\nvalidation_fraction = 0.1\ntokenizer = ";
    world.write("bytes.toml", with(&format!("{text}\"bytes\"")));
    world.write("unknown.toml", with(&format!("{text}\"nowhere.json\"")));
    assert_eq!(ask(""), (50_257, true));
    assert_eq!(ask("--template bytes.toml"), (256, false));
    assert_eq!(ask("--template unknown.toml"), (50_257, true));
    law["recipe"] = serde_json::json!({ "n_vocab": 99, "context_len": 1024, "of_ends": null });
    world.write("law.json", law.to_string());
    assert_eq!(ask(""), (99, false));
    assert_eq!(ask("--template bytes.toml"), (256, false));
    assert_eq!(ask("--template unknown.toml"), (99, false));
    assert_eq!(ask("--template unknown.toml --vocab 77"), (77, false));
}

#[test]
fn units_and_prices_agree() {
    let world = world();
    let flops = world.json("plan --budget 8.64e19");
    let days = world.json("plan --pf-days 1");
    assert_eq!(flops, days);
    let plan = world
        .json("plan --seconds 1e5 --throughput speed.csv --stages 2 --context 128 -o timed.toml");
    assert!((plan["seconds"].as_f64().unwrap() / 1e5 - 1.0).abs() < 1e-6);
    world.good("plot timed.toml -o timed.svg");
    let found = world.bad("plot timed.toml --show saving -o saving.svg");
    assert!(found.contains("this plan grows where seconds say"), "{found}");
    let policies =
        world.json("plan --shape gpt2 --through 12x384x6 --stop 1.1x --law kaplan-authors");
    assert!(policies["saving_interval"].is_null());
    // The same shapes save in each policy what a plan in it has them save.
    let others = policies["other_policies"].as_array().unwrap();
    assert_eq!(others.len(), 3);
    let ask = "plan --shape gpt2 --through 12x384x6 --stop 1.1x --law kaplan-authors --batch";
    let batches = ["critical-at-end", "critical", "524288"];
    for (other, batch) in others.iter().zip(batches) {
        let own = world.json(&format!("{ask} {batch}"))["saving"].as_f64().unwrap();
        let found = other[1].as_f64().unwrap();
        assert!((found - own).abs() < 1e-9, "{batch}: {found} {own}");
    }
    assert_eq!(others[0][1], policies["saving"]);
    // Hidden matrices learn at the peak over their width in mu-P.
    for stage in policies["stages"].as_array().unwrap() {
        let of = |key: &str| stage[key].as_f64().unwrap();
        let rate = of("hidden_learning_rate") * of("d_model");
        let first = &policies["stages"][0];
        let due =
            first["hidden_learning_rate"].as_f64().unwrap() * first["d_model"].as_f64().unwrap();
        assert!((rate / due - 1.0).abs() < 1e-9, "{policies}");
    }
}

/// Each from its published constants, by hand: the loss at a stop is 1.1 times that after endless training.
#[test]
fn published_laws_are_those_of_their_names() {
    let world = world();
    let n = 84_934_656f64;
    let laws = [
        ("kaplan", (6.5e13 / n).powf(0.077)),
        ("kaplan-authors", (8.8e13 / n).powf(0.076)),
        ("chinchilla", 1.69 + 406.4 * n.powf(-0.34)),
        ("chinchilla-corrected", 1.8172 + 482.01 * n.powf(-0.3478)),
    ];
    for (name, asymptote) in laws {
        let plan = world.json(&format!("plan --shape gpt2 --stop 1.1x --law {name}"));
        let found = plan["final_loss"].as_f64().unwrap() / 1.1;
        assert!((found / asymptote - 1.0).abs() < 1e-6, "{name}: {found} for {asymptote}");
    }
    // The authors' law and the growth with which it saves most, at the compute-optimal stop, whatever the size: 7.997 %
    // (scipy, bounded Brent).
    let plan = world.json(
        "plan --shape 24x1536x24 --through 24x768x12 --stop 1.1x --law kaplan-authors --batch critical-at-end",
    );
    assert!((plan["saving"].as_f64().unwrap() - 0.07997).abs() < 1e-5, "{}", plan["saving"]);
}
