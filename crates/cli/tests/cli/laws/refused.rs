//! Points, laws and plans that are refused, each with one error that says why.

use super::{COLUMNS, world};
use crate::world::{leave_no_trace, lossy};
use std::fs;

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
        (
            fit("points.csv --form steps"),
            "points.csv: no steps, which the form steps is a function of; it has N, D, L, kind",
        ),
        (
            "fit points.csv --columns tokens=D,loss=L --isoflop".into(),
            "points.csv: no compute, which optima of equal compute need",
        ),
        (fit("points.csv --where kind=c"), "points.csv: no row meets --where kind=c"),
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
            "partial.points.csv: a law is written as .json",
        ),
        (fit("points.csv --figure new.pdf"), "new.pdf: figures are written as .svg or .png"),
        (fit("points.csv --last-only"), "no column says which rows are of one run"),
        (
            format!("fit table.points.csv {COLUMNS} -o table.json"),
            "table.points.csv is one of the files that are fitted",
        ),
        (format!("fit points.csv {COLUMNS} -o new.svg"), "new.svg: a law is written as .json"),
        (fit("points.csv").replace("loss=L", "loss=L,loss=D"), "loss=L and loss=D: must be one"),
        (fit("points.csv").replace("loss=L", "loss=D"), "tokens and loss are the same column"),
        (fit("twins.csv"), "twins.csv: two columns are named \"L\", numbers 3 and 4"),
        (fit("blank.csv"), "blank.csv: line 3: no tokens, which the form tokens is"),
        ("fit empty.csv -o new.json".into(), "empty.csv: is empty"),
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
        ("plan --shape gpt2 -o points.csv", "points.csv: a schedule is written as .toml"),
        ("plan --shape gpt2 --law partial.json", "partial.json: parameters.N_c is missing"),
        (
            "plan --shape gpt2 --law batch.json",
            "batch.json: batch_tokens = -1: must be from 1 to 1073741824",
        ),
        ("plan --budget 1e19 --law law.txt", "law.txt: no law of staged fit"),
        ("plan --budget 1e19 --law none", "--law: none: neither kaplan, kaplan-authors"),
        (
            "plan --budget 1e23 --head-size 8",
            "64x4096x512, the largest shape of this aspect and head size, is the best single size",
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
    for (name, key) in [("vocabless.json", "n_vocab"), ("pointless.json", "context_len")] {
        let mut law = good.clone();
        law["recipe"] = serde_json::json!({ "n_vocab": 256, "context_len": 128, "of_ends": null });
        law["recipe"][key] = 0.into();
        world.write(name, law.to_string());
    }
    let mut rising = good;
    rising["parameters"]["a_N"]["value"] = (-0.1).into();
    world.write("rising.json", rising.to_string());
    rising["parameters"]["a_N"]["value"] = 1e308.into();
    world.write("endless.json", rising.to_string());
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
    let points = fs::read(world.path("good.points.csv")).unwrap();
    let on_points = |rest: &str| format!("fit points.csv {COLUMNS} {rest}");
    let cases = [
        (on_points("--skip 0.5"), "--skip 0.5: points.csv: no column says which rows are of one"),
        (on_points("--stable-only"), "--stable-only: points.csv is no metrics.csv"),
        ("fit good.points.csv -o good.json".into(), "is one of the files that are fitted"),
        ("plan --shape gpt2 --law drawn.json".into(), "drawn.json: draws: each must have 4 finite"),
        (
            "plan --budget 1e18 --law vocabless.json".into(),
            "vocabless.json: recipe.n_vocab = 0: must be from 1 to 10000000",
        ),
        (
            "plan --shape gpt2 --law pointless.json".into(),
            "pointless.json: recipe.context_len = 0: must be from 1 to 100000",
        ),
        ("plan --shape gpt2 --law rising.json".into(), "parameters.a_N = -0.1: must be positive"),
        (
            "plan --shape gpt2 --law endless.json".into(),
            "parameters.a_N = 1e308: must be positive, and at most 1000",
        ),
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
    assert_eq!(fs::read(world.path("good.points.csv")).unwrap(), points);
}
