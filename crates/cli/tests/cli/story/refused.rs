//! Runs that cannot be compared, read together or written over, each with one error that says why.

use super::write_run;
use crate::world::{STAGED, world, write_recipes};
use std::fs;

#[test]
fn what_would_be_left_out_or_written_over_is_refused() {
    let world = world();
    write_recipes(&world);
    fs::create_dir(world.path("empty")).unwrap();
    world.write("thesis.html", "<html>precious</html>");
    world.write("notes.json", "[]");
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
            "staged: is a folder of runs; name those of them that are meant: staged/1 staged/2",
        ),
        ("fit scratch/1 scratch/1/metrics.csv", "scratch/1/metrics.csv: is given twice"),
        ("fit scratch/1 scratch/2 -o tiny.toml", "tiny.toml: a law is written as .json"),
        (
            "fit scratch/1 scratch/2 -o notes.json",
            "notes.json: is there already, and no law of staged fit",
        ),
        ("plan --budget 1e12 -o tiny.toml", "tiny.toml: is there already, and no planned schedule"),
        ("plan --budget 1e12 -o plan.svg", "plan.svg: a schedule is written as .toml"),
        ("plan --curves scratch staged/1", "--curves: scratch: is a folder of runs; name those"),
        ("eval nowhere", "nowhere cannot be read"),
        ("plot scratch/1 scratch/1 -o x.svg", "scratch/1: is given twice"),
        ("demo --out scratch", "scratch: is not empty; choose another --out"),
        ("demo --resume --out nowhere", "nowhere: holds no demo to go on with"),
        ("demo --resume --out staged/1", "staged/1: holds no demo to go on with"),
        ("demo --resume --out old", "old: holds a demo of another version of staged"),
        (
            "demo --resume --minutes 3 --out new",
            "new: holds a demo with --minutes 2 on the synthetic language",
        ),
        (
            "pilot stable.toml --share 0.9 -o staged/1",
            "staged/1: is not empty and holds no pilot runs",
        ),
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
        (
            "compare scratch/1 scratch",
            "scratch/1: is there twice, on one side of the comparison or",
        ),
        ("compare staged scratch --loss 0.1", "--loss 0.1: must be from "),
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
    assert!(found.contains("`peak = 0.02` in rates/3, `peak = 0.01` in rates/1"), "{found}");
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
