//! From measured losses to a law, a plan, a schedule and its figures, as a user does it.

use super::world::{World, leave_no_trace, lossy};
use schedule::Schedule;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;

/// Besiroglu et al. 2024, as the truth behind the tables here.
fn loss_at(n: f64, tokens: f64) -> f64 {
    1.8172 + 482.01 * n.powf(-0.3478) + 2085.43 * tokens.powf(-0.3658)
}

const METRICS: &str = "stage,step,tokens,compute_flops,train_loss,val_loss,learning_rate,grad_norm,\
                       tokens_per_second,wall_seconds\n";

fn world() -> World {
    let world = World::empty();
    let mut table = "N,D,L,kind\n".to_string();
    for i in 0..8 {
        for j in 0..8 {
            let (n, tokens) = (1e7 * 2f64.powi(i), 1e9 * 2f64.powi(j));
            let noise = 0.002 * f64::from((13 * i + 7 * j) % 11 - 5) / 5.0;
            let loss = loss_at(n, tokens) * noise.exp();
            writeln!(table, "{n:e},{tokens:e},{loss},{}", if j < 7 { "a" } else { "b" }).unwrap();
        }
    }
    world.write("points.csv", &table);
    world.write("negative.csv", table.replacen("1e7,1e9", "-1e7,1e9", 1));
    world.write("nan.csv", table.replacen("1e7,1e9", "nan,1e9", 1));
    world.write("words.csv", table.replacen("1e7,1e9", "1e7,many", 1));
    let few: Vec<&str> = table.lines().take(4).collect();
    world.write("few.csv", few.join("\n"));
    let one_size: Vec<&str> = table.lines().take(9).collect();
    world.write("one_size.csv", one_size.join("\n"));
    for (name, n, steps, stable) in
        [("small", 1e6, 3000, 100), ("big", 4e6, 1500, 100), ("decayed", 4e6, 1500, 80)]
    {
        let mut text = METRICS.to_string();
        for i in 1..=100u32 {
            let step = steps / 100 * i;
            let tokens = 1e5 * f64::from(step);
            let (compute, loss) = (6.0 * n * tokens, loss_at(n, tokens));
            let rate = if i < 3 || i > stable { 0.001 } else { 0.01 };
            writeln!(text, "0,{step},{tokens},{compute:e},{loss},{loss},{rate},1,1,1").unwrap();
        }
        world.write(&format!("{name}/metrics.csv"), &text);
    }
    world.write("speed.csv", "n_layers,d_model,tokens_per_second\n2,64,1e5\n12,768,8e3\n");
    world.write("slow.csv", "n_params,tokens_per_second\n1e6,0\n");
    world.write("law.txt", "L = 2");
    let curve = fs::read_to_string(world.path("big/metrics.csv")).unwrap();
    world.write("wrong.csv", curve.replacen("\n0,30,", "\n0,NaN,", 1));
    let row = curve.lines().nth(2).unwrap();
    let loss = row.split(',').nth(5).unwrap();
    world.write(
        "no_loss.csv",
        curve.replacen(row, &row.replace(loss, "NaN").replacen("NaN", loss, 1), 1),
    );
    world.write("again.csv", curve.replacen(row, &format!("{row}\n{row}"), 1));
    world.write("table.points.csv", &table);
    world
}

const COLUMNS: &str = "--columns n_params=N,tokens=D,loss=L";

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
        let output = world.staged(arguments);
        assert!(output.status.success(), "{arguments}: {}", lossy(&output.stderr));
        let figure = world.path(arguments.rsplit(' ').next().unwrap());
        assert!(fs::metadata(figure).unwrap().len() > 3000, "{arguments}");
    }
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
    assert!(world.good(&format!("{ask} grown.json")).contains("Pace 0.80"));

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

    grown["loss"] = (1.1 * grown_at).into();
    law["grown"] = grown;
    world.write("grown.json", law.to_string());
    let refused = world.staged(&format!("{ask} grown.json"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(lossy(&refused.stderr).contains("it tells no pace"), "{}", lossy(&refused.stderr));
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
    let (plan, later) =
        ("plan --shape gpt2 --stop 1tpp", "--grow-by SHARE makes one that grows late");
    assert!(told(plan).contains(later), "{}", told(plan));
    for bounded in ["--shape gpt2 --stop 1tpp --grow-by 0.9", "--shape gpt2 --stop 20tpp"] {
        assert!(!told(&format!("plan {bounded}")).contains(later), "{bounded}");
    }
    let alone = &world.json(plan)["cheaper_alone"];
    assert!(alone["less"].as_f64().is_some_and(|less| less > 0.0), "{alone}");
    let none = told("plan --shape gpt2 --pace 0.1");
    assert!(
        none.contains("growths were looked for at a pace of 0.10; --pace takes another"),
        "{none}"
    );
    assert!(!told("plan --shape gpt2 --pace 0.1 --stages 1").contains("growths were looked for"));
    // Sequences and batches of which GPT-2's are no multiples.
    let odd = world.json("plan --shape gpt2 --context 96 --batch 960");
    assert_eq!(
        (&odd["batch_tokens"], &odd["stages"][0]["context_len"]),
        (&960.0.into(), &96.into())
    );
}

/// A law whose size decides nothing says so, and its plans print no number that means nothing.
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
    let warned = "n_params beyond 1.000e6 brings nothing under this law";
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
    assert!(text.contains("; more than 11 times as much as the cheapest single size"), "{text}");
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
    // A law in steps at one batch is one in tokens.
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
    let backwards = world.staged("plan --curves big small");
    assert!(lossy(&backwards.stderr).contains("the smallest model comes first"));
}

/// By option, by the template, by the law's runs, or as GPT-2.
#[test]
fn a_plan_takes_the_vocabulary_from_where_it_is_told() {
    let world = world();
    let mut law = world.json(&format!("fit points.csv {COLUMNS} --bootstraps 0 -o law.json"));
    let ask = |options: &str| {
        let plan = world.staged(&format!("plan --budget 1e19 --law law.json {options} --json"));
        assert!(plan.status.success(), "{options}: {}", lossy(&plan.stderr));
        let json: Value = serde_json::from_slice(&plan.stdout).unwrap();
        let assumes = json["warnings"].to_string().contains("GPT-2's where nothing is said");
        (json["stages"][0]["n_vocab"].as_u64().unwrap(), assumes)
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
    let policies = world.json("plan --shape gpt2 --stop 1.1x --law kaplan-authors --stages 2");
    assert_eq!(policies["other_policies"].as_array().unwrap().len(), 3);
    assert!(policies["saving_interval"].is_null());
}

#[test]
fn bad_points_are_explained_and_leave_no_trace() {
    let world = world();
    let fit = |rest: &str| format!("fit {rest} {COLUMNS} -o new.json");
    world.good(&format!("fit points.csv {COLUMNS} --bootstraps 0 -o partial.json"));
    let cases = [
        (fit("missing.csv"), "missing.csv cannot be read"),
        (fit("negative.csv"), "negative.csv: line 2: N = -1e7: must be positive and finite"),
        (fit("nan.csv"), "nan.csv: line 2: N = nan: must be positive and finite"),
        (fit("words.csv"), "words.csv: line 2: D = \"many\": not a number"),
        (fit("few.csv"), "3 points: the form tokens has 5 parameters"),
        (fit("one_size.csv"), "the points have one value of n_params"),
        (fit("points.csv --form steps"), "point 1: no steps"),
        (
            "fit points.csv --columns tokens=D,loss=L --isoflop".into(),
            "point 1: no compute, which optima of equal compute need",
        ),
        (fit("points.csv --where kind=c"), "no row meets --where"),
        (
            fit("points.csv --where colour=c"),
            "--where colour=c: points.csv: no column \"colour\"; it has N, D, L, kind",
        ),
        (fit("points.csv --skip 1.5"), "must be at least 0 and below 1"),
        (fit("one_size.csv --isoflop"), "budgets have a minimum between their sizes"),
        ("fit points.csv -o new.json".into(), "no column named loss; it has N, D, L, kind"),
        ("fit points.csv --columns loss=X -o new.json".into(), "no column \"X\"; it has N, D, L"),
        ("fit points.csv --columns size=N -o new.json".into(), "must be one of n_params, tokens"),
        (
            format!("fit points.csv {COLUMNS} -o partial.points.csv"),
            "partial.points.csv: is there already, and no law of staged fit",
        ),
        (fit("points.csv --figure new.pdf"), "new.pdf: figures are written as .svg or .png"),
        (fit("points.csv --last-only"), "no column says which rows are of one run"),
        (
            format!("fit table.points.csv {COLUMNS} -o table.json"),
            "table.points.csv is one of the files that are fitted",
        ),
        ("fit points.csv --isoflop -o new.json --figure new.svg".into(), "cannot be used with"),
    ];
    leave_no_trace(&world, &cases);
}

#[test]
fn bad_plans_and_figures_are_explained_and_leave_no_trace() {
    let world = world();
    let cases = [
        ("plan -o new.toml", "what is to be reached?"),
        ("plan --budget 1e6 -o new.toml", "too small: the best shape for it, 1x64x1"),
        (
            "plan --budget 1e5 --law kaplan-authors --batch 524288 -o new.toml",
            "the law has no loss for so little",
        ),
        ("plan --budget=-1 -o new.toml", "--budget -1e0: must be positive"),
        ("plan --budget -1 -o new.toml", "--budget -1e0: must be positive"),
        ("plan --budget 1e40 --shape gpt2-xl -o new.toml", "steps: at most 1e12 can be planned"),
        ("plan --budget 1e300", "--budget 1e300: must be positive and at most 1e40"),
        ("plan --budget 1e19 --batch 1e20", "must be a number of tokens up to 1073741824"),
        ("plan --pf-days -1", "--pf-days -1e0: must be positive"),
        ("plan --target-loss -1", "--target-loss -1: must be positive"),
        ("plan --shape gpt2 --stop -5tpp", "--stop -5tpp: must be a multiple as 1.1x"),
        ("plan --shape gpt2 --stop nanx", "--stop nanx: must be a multiple as 1.1x"),
        ("plan --curves big no_loss.csv", "no_loss.csv: row 3: val_loss = NaN: must be"),
        (
            "plan --curves big again.csv",
            "again.csv: row 4: step = 30: must be above 30, that of the row before",
        ),
        (
            "plan --curves big wrong.csv",
            "wrong.csv: row 3: step = NaN: must be a whole number, and not negative",
        ),
        (
            "plan --shape gpt2 --stop 50",
            "50.000 nats per token, above the 10.825 of a model that knows nothing",
        ),
        ("plan --target-loss 100", "above the 10.825 of a model that knows nothing"),
        ("plan --shape gpt2 --through small", "--through small: must be LAYERSxWIDTHxHEADS"),
        (
            "plan --shape gpt2 -o new.toml --figure new.pdf",
            "new.pdf: figures are written as .svg or .png",
        ),
        ("plan --shape gpt2 -o small", "small: is a folder; name a file"),
        (
            "plan --shape gpt2 -o points.csv",
            "points.csv: is there already, and no planned schedule",
        ),
        ("plan --shape gpt2 --law partial.json", "partial.json: parameters.N_c is missing"),
        ("plan --shape gpt2 --law batch.json", "batch.json: batch_tokens = -1: must be positive"),
        ("plan --budget 1e19 --law law.txt", "law.txt: no law of staged fit"),
        ("plan --budget 1e19 --law none", "--law: none: neither kaplan, kaplan-authors"),
        (
            "plan --budget 1e23 --head-size 8",
            "64x4096x512, the largest shape of this aspect and size of heads, would do best",
        ),
        (
            "plan --shape gpt2 --through 12x384x6 --stop 3.2 --vocab 30",
            "12x384x6 would grow into 12x768x12 at 4.341 nats per token, above the 3.401 of a model that knows nothing of 30 tokens",
        ),
        ("plan --budget 1e19 --batch critical", "knows no critical batch"),
        (
            "plan --budget 1e19 --batch 1000",
            "--batch 1000: must be a multiple of the context length, 1024",
        ),
        ("plan --curves small points.csv -o new.toml", "cannot be used with"),
        ("plan --budget 1e19 --stages 4..2", "must be a number of stages"),
        ("plan --budget 1e19 --operators up", "--operators up: must be width"),
        ("plan --target-loss 1.5", "stays above"),
        ("plan --shape 4x100", "must be LAYERSxWIDTHxHEADS, as 4x128x4, and where"),
        ("plan --shape gpt2 --stop 0.9x", "a multiple of the asymptote must be above 1"),
        (
            "plan --shape gpt2 --stop later",
            "must be a multiple as 1.1x, tokens per parameter as 20tpp",
        ),
        (
            "plan --shape 1x64x1 --stages 2 --stop 1.1x --vocab 10000000",
            "2 stages to 1x64x1: no chain",
        ),
        ("plan --seconds 10 --throughput slow.csv", "tokens_per_second = 0"),
        ("plan --curves small points.csv", "points.csv: row 2"),
        ("plot law.txt -o new.svg", "law.txt"),
        ("plot small -o new.gif", "new.gif: figures are written as .svg or .png"),
        ("plot missing.toml -o new.svg", "missing.toml: No such file"),
    ];
    let mut partial = world.json(&format!(
        "fit points.csv {COLUMNS} --form kaplan-tokens --bootstraps 0 -o partial.json"
    ));
    let mut batch = partial.clone();
    batch["batch_tokens"] = (-1).into();
    world.write("batch.json", batch.to_string());
    partial["parameters"].as_object_mut().unwrap().remove("N_c");
    world.write("partial.json", partial.to_string());
    leave_no_trace(&world, &cases);
}

#[test]
fn options_that_would_do_nothing_and_broken_laws_are_refused() {
    let world = world();
    let law = format!("fit points.csv {COLUMNS} --form kaplan-tokens --bootstraps 0 -o good.json");
    let good = world.json(&law);
    let mut drawn = good.clone();
    drawn["draws"] = serde_json::json!([[1.0, 2.0]]);
    world.write("drawn.json", drawn.to_string());
    let mut rising = good;
    rising["parameters"]["a_N"]["value"] = (-0.1).into();
    world.write("rising.json", rising.to_string());
    let mixed = world.json(&law.replace("kaplan", "mixed"));
    let with = |name: &str, changes: &[(&str, f64)]| {
        let mut law = mixed.clone();
        for (parameter, value) in changes {
            law["parameters"][*parameter]["value"] = (*value).into();
        }
        world.write(name, law.to_string());
    };
    with("heavy.json", &[("w", 1.5)]);
    with("flat.json", &[("B", 0.0), ("D_c", 0.0)]);
    // One part may be flat, and one form alone may count.
    with("half_flat.json", &[("B", 0.0)]);
    with("sum_alone.json", &[("w", 0.0)]);
    for name in ["half_flat", "sum_alone"] {
        world.good(&format!("plan --shape gpt2 --stop 1.3x --stages 2 --law {name}.json"));
    }
    let curve = fs::read(world.path("small/metrics.csv")).unwrap();
    let on_points = |rest: &str| format!("fit points.csv {COLUMNS} {rest}");
    let cases = [
        (on_points("--skip 0.5"), "--skip 0.5: points.csv: no column says which rows are of one"),
        (on_points("--stable-only"), "--stable-only: points.csv is no metrics.csv"),
        ("fit small big -o small/metrics.csv".into(), "is one of the files that are fitted"),
        ("plan --shape gpt2 --law drawn.json".into(), "drawn.json: draws: each must have 4 finite"),
        ("plan --shape gpt2 --law rising.json".into(), "parameters.a_N = -0.1: must be positive"),
        ("plan --shape gpt2 --law heavy.json".into(), "parameters.w = 1.5: must be from 0 to 1"),
        (
            "plan --shape gpt2 --law flat.json".into(),
            "flat.json: the law does not fall with tokens",
        ),
    ];
    for (arguments, message) in cases {
        let output = world.staged(&arguments);
        let text = lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(message), "{arguments}: {text}");
    }
    assert_eq!(fs::read(world.path("small/metrics.csv")).unwrap(), curve);
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
