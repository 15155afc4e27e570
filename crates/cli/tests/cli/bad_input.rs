//! Bad input gives one clear error and exit code 2, and nothing is lost or left behind.

use super::world::{STAGED, World, leave_no_trace, listing, lossy};
use std::fs;
use std::process::Command;

const SCHEDULE: &str = r#"
version = 1
name = "tiny"
seed = 1
data = { source = "text", files = ["good.txt"], validation_fraction = 0.2 }
model = { context_len = 16 }
parametrization = { kind = "mup", base_width = 16 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "constant", peak = 0.01 }
batch = { tokens = 64, micro_batch = 4 }
evaluation = { every_steps = 2, tokens = 64 }
checkpoint = { every_steps = 2, keep = 2 }
machine = { threads = 1 }

[[stages]]
n_layers = 1
d_model = 16
n_heads = 2
until = { steps = 4 }
"#;

/// A folder with a schedule, texts and a finished run of a few steps.
fn world() -> World {
    let world = World::empty();
    world.write("good.txt", "It was the best of times, it was the worst of times. ".repeat(20));
    world.write("empty.txt", "");
    world.write("short.txt", "Too short.");
    world.write("latin1.txt", b"caf\xe9 ".repeat(200));
    world.write("tiny.toml", SCHEDULE);
    let schedule = |name: &str, from: &str, to: &str| {
        assert!(SCHEDULE.contains(from));
        world.write(name, SCHEDULE.replacen(from, to, 1));
    };
    schedule("unknown_key.toml", "seed = 1", "seed = 1\nsede = 1");
    schedule("heads.toml", "n_heads = 2", "n_heads = 3");
    schedule("bpe.toml", "source = \"text\"", "source = \"text\", tokenizer = \"bpe:300\"");
    schedule("other.toml", "seed = 1", "seed = 2");
    schedule("no_files.toml", "\"good.txt\"", "");
    schedule("word.toml", "source = \"text\"", "source = \"text\", tokenizer = \"words\"");
    let second = "\n[[stages]]\nn_layers = 1\nd_model = 24\nn_heads = 3\nuntil = { steps = 2 }\ngrowth = { depth = \"copy\" }\n";
    world.write("idle.toml", SCHEDULE.to_string() + second);
    schedule("bf16.toml", "threads = 1", "precision = \"bf16\"");
    schedule(
        "tokens.toml",
        "source = \"text\", files = [\"good.txt\"]",
        "source = \"tokens\", file = \"cut.bin\"",
    );
    schedule(
        "gone.toml",
        "source = \"text\", files = [\"good.txt\"]",
        "source = \"tokens\", file = \"gone.bin\"",
    );
    schedule(
        "language.toml",
        "source = \"text\", files = [\"good.txt\"], validation_fraction = 0.2",
        "source = \"synthetic\", n_words = 16, language_seed = 1",
    );
    world.write("schedules/schedule.toml", "my own");
    schedule("batch.toml", "tokens = 64", "tokens = 16000000000000000000");
    schedule("vast.toml", "d_model = 16\nn_heads = 2", "d_model = 100000\nn_heads = 2");
    schedule(
        "text_as_tokens.toml",
        "source = \"text\", files = [\"good.txt\"]",
        "source = \"tokens\", file = \"good.txt\"",
    );
    assert!(world.staged("train tiny.toml --out run").status.success());
    assert!(world.staged("data prepare good.txt --tokenizer bpe:300 -o bpe.bin").status.success());
    assert!(world.staged("data prepare good.txt -o cut.bin").status.success());
    world.write("wide.bin", [1u8, 0, 231, 3].repeat(40));
    let cut = fs::read(world.path("cut.bin")).unwrap();
    world.write("cut.bin", &cut[..cut.len() - 4]);
    fs::create_dir(world.path("occupied")).unwrap();
    world.write("occupied/thesis.tex", "precious");
    fs::create_dir_all(world.path("mine/data")).unwrap();
    world.write("mine/data/tokens.bin", "my own");
    world.write("notes.bin.json", "my own");
    world.write("own.bin", "my own");
    copy_run(&world, "run", "flipped");
    damage(&world, "flipped/checkpoints/step-00000004/model.safetensors", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    copy_run(&world, "run", "momentless");
    let moments = "momentless/checkpoints/step-00000004/optimizer.safetensors";
    fs::remove_file(world.path(moments)).unwrap();
    fs::create_dir(world.path("foreign")).unwrap();
    world.write("foreign/config.json", "{\"architectures\": [\"LlamaForCausalLM\"]}");
    world
}

fn damage(world: &World, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(world.path(name)).unwrap();
    change(&mut bytes);
    world.write(name, bytes);
}

fn copy_run(world: &World, from: &str, to: &str) {
    let copied =
        Command::new("cp").arg("-r").args([world.path(from), world.path(to)]).status().unwrap();
    assert!(copied.success());
}

/// Growths that cannot be, and what is said of them.
const GROWTHS: [(&str, &str); 24] = [
    ("grow nowhere --width 2 -o new", "nowhere cannot be read"),
    ("grow foreign --width 2 -o new", "foreign: neither a checkpoint (no state.json)"),
    (
        "grow run -o new",
        "nothing grows: add --width, --d-model, --heads, --d-head, --d-ff or --depth",
    ),
    ("grow run --width 1 -o new", "--width 1: must be at least 2"),
    ("grow run --width 2 --mode copy -o new", "--mode for the depth needs --depth"),
    ("grow run --width 2 --mode split,fresh -o new", "takes one of duplicate, split and fresh"),
    ("grow run --d-model 8 -o new", "--d-model 8: must be at least 16"),
    ("grow run --d-model 20 -o new", "2 heads of 8 do not grow in proportion to it; say --heads"),
    ("grow run --d-model 24 --mode split -o new", "--mode split: needs d_model, n_heads and d_ff"),
    ("grow run --heads 4 --d-head 4 -o new", "--d-head 4: must be at least 8"),
    ("grow run --d-model 16 --heads 4 -o new", "--d-head 4: must be at least 8"),
    ("grow run --d-model 0 --heads 0 -o new", "--d-model 0: must be from 1 to 100000"),
    ("grow run --heads 200000 -o new", "--heads 200000: must be from 1 to"),
    ("grow run --depth 1 -o new", "must be larger than the model before the growth"),
    ("grow run --depth 3 --placement 0,1,0 -o new", "must name blocks from 0 to 0"),
    ("grow run --depth 3 --placement top -o new", "--placement top: must be interleave"),
    (
        "grow run --width 2 --mode split --split-strength 0 -o new",
        "--split-strength 0: must be above 0",
    ),
    ("grow run --width 2 --split-strength 1 -o new", "--split-strength needs --mode split"),
    ("grow run --width 2 --placement stack -o new", "--placement needs --depth"),
    ("grow run --width 2 -o occupied", "occupied: is there already"),
    ("grow flipped/checkpoints/step-00000004 --width 2 -o new", "model.safetensors: checksum"),
    (
        "grow momentless/checkpoints/step-00000004 --width 2 -o new",
        "there are no moments to map; --moments zero",
    ),
    ("grow run --width 2 --d-ff 100000000 -o new", "cannot be used with"),
    ("grow run --d-ff 100000000 -o new", "--d-ff 100000000: must be from 1 to 1000000"),
];

#[test]
fn bad_input_is_explained_and_leaves_no_trace() {
    let world = world();
    let cases = [
        ("train missing.toml", "missing.toml: No such file"),
        ("train unknown_key.toml", "unknown field `sede`"),
        ("train no_files.toml --out deep/new", "no_files.toml: data.files = []: name text files"),
        ("train word.toml --out new", "word.toml: [data]: tokenizer = \"words\": unknown"),
        ("train tiny.toml --out deep/new --text nowhere.txt", "nowhere.txt: No such file"),
        ("train idle.toml", "idle.toml: stages[1].growth.depth = \"copy\": the depth stays here"),
        ("data inspect occupied", "occupied: is a folder; name a token file"),
        ("bench fit --noise -1", "--noise"),
        ("train heads.toml", "heads.toml: stages[0].n_heads = 3: must divide d_model = 16"),
        (
            "train batch.toml --out new",
            "batch.tokens = 16000000000000000000: must be a positive multiple",
        ),
        ("train vast.toml --out new", "of them for activations ("),
        ("train text_as_tokens.toml --out new", "good.txt: no token file"),
        ("eval run --tokens good.txt", "good.txt: no token file"),
        ("eval run --tokens wide.bin", "wide.bin: has token 999 in a vocabulary of 256"),
        ("train --seed -1 tiny.toml --out new", "invalid value '-1' for '--seed"),
        ("demo --text good.txt --out occupied", "occupied: is not empty"),
        (
            "demo --text short.txt --out new",
            "short.txt: 9 training tokens of 10 (validation_fraction = 0.05): at least 65",
        ),
        ("demo --text nowhere.txt --out new", "nowhere.txt"),
        ("bench step --threads 0", "must be from 1 to 1024"),
        ("bench fit --bootstraps 0", "must be from 2 to 1000000"),
        (
            "train tiny.toml --seed x",
            "invalid value 'x' for '--seed <SEED>': must be a whole number",
        ),
        ("train tiny.toml --seed 99999999999999999999", "'--seed <SEED>': is too large"),
        ("plan --shape gpt2 --aspect x", "'--aspect <ASPECT>': must be a number"),
        ("train tiny.toml --out run", "run: already holds a run; add --resume"),
        (
            "train other.toml --out run --resume",
            "holds another run: `seed = 1` there, `seed = 2` here",
        ),
        ("train other.toml --out new --branch-of run", "run: no checkpoint can be taken over ("),
        ("train other.toml --out new --branch-of run", "`seed = 1` there, `seed = 2` here"),
        ("train tiny.toml --out new --branch-of nowhere", "nowhere: holds no run"),
        ("train tiny.toml --out occupied", "occupied: holds thesis.tex and no run"),
        ("train gone.toml --out new", "gone.bin: data.file of the schedule is not there"),
        (
            "train language.toml --seed 18446744073709551614 --out new",
            "is that of the language's held-out sequences",
        ),
        ("train tiny.toml --out new --text empty.txt", "empty.txt: is empty"),
        (
            "train tiny.toml --out new --text short.txt",
            "short.txt: 8 training tokens of 10 (validation_fraction = 0.2): at least 17",
        ),
        ("train tiny.toml --out new --text nowhere.txt", "nowhere.txt: No such file"),
        ("train tiny.toml --out new --text occupied", "occupied: is a folder"),
        ("train bpe.toml --out new --text latin1.txt", "latin1.txt: not UTF-8 at byte 3"),
        ("train bf16.toml --out new", "precision bf16 needs --device cuda"),
        (
            "train tokens.toml --out new",
            "cut.bin: 2116 bytes of tokens where the header promises 1060",
        ),
        ("train tiny.toml --out new --device gpu", "device gpu: unknown; use cpu, cuda"),
        ("train tiny.toml --out good.txt/new", "good.txt/new"),
        ("eval nowhere", "nowhere cannot be read"),
        ("eval run --tokens bpe.bin", "its vocabulary is tokenizer:"),
        ("eval run --text short.txt", "10 tokens: at least 17 are needed"),
        ("eval flipped/checkpoints/step-00000004", "model.safetensors: checksum"),
        ("sample run --prompt= ", "must hold at least one token"),
        ("sample run --prompt It --temperature=-1", "--temperature -1: must be 0 or more"),
        ("data prepare good.txt -o tokens.txt", "must end in .bin"),
        ("data prepare good.txt -o bpe.bin", "bpe.bin: exists; add --force"),
        ("data prepare good.txt -o new.bin --tokenizer bpe:3", "SIZE is from 257 to 1000000"),
        (
            "data prepare good.txt -o new.bin --tokenizer gpt2:occupied",
            "encoder.json: No such file",
        ),
        ("data prepare latin1.txt -o new.bin --tokenizer bpe:300", "not UTF-8 at byte 3"),
        ("data prepare good.txt -o notes.bin", "notes.bin.json: exists; add --force"),
        ("train tiny.toml --out mine", "mine: holds data and no run"),
        ("eval run --n-tokens 0", "must be from 1 to 134217728"),
        ("data inspect cut.bin", "the header promises 1060 tokens"),
        ("bench step --shape 4x128", "must be LAYERSxWIDTHxHEADS"),
        ("bench step --shape 1x10x3", "n_heads = 3: must divide d_model = 10"),
        (
            "bench step --shape 1x8x100000-h100000",
            "n_heads * d_head = 10000000000: must be from 1 to 1000000",
        ),
        ("demo --minutes 0 --out new", "must be from 0.5 to 10000"),
    ];
    leave_no_trace(&world, &cases);
    leave_no_trace(&world, &GROWTHS);
}

#[test]
fn nothing_takes_the_place_of_what_is_not_its_own() {
    let cases = [
        ("bench growth tiny.toml --seeds 1 2 1 -o new", "--seeds: 1 is given twice"),
        (
            "bench growth tiny.toml --narrow 1x12x2 --shallow 1x16x2 -o new",
            "--narrow 1x12x2: does not grow into 1x16x2 by duplicate: growth.width = duplicate",
        ),
        ("plan --shape gpt2 -o /dev/null", "/dev/null: is no file that can be replaced"),
        ("data prepare own.bin -o own.bin --force", "own.bin is a text to prepare"),
        ("train tiny.toml --out schedules", "schedules: holds schedule.toml and no run"),
    ];
    leave_no_trace(&world(), &cases);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_in_a_cpu_build_is_explained() {
    let world = world();
    let output = world.staged("train tiny.toml --out new --device cuda");
    let text = lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("this build has no CUDA"), "{text}");
    assert!(!world.path("new").exists());
}

#[test]
fn a_checkpoint_grows_into_one_that_can_be_used() {
    let world = world();
    let grown =
        world.staged("grow run --width 2 --depth 3 --mode split -o run/checkpoints/grown --json");
    assert!(grown.status.success(), "{}", lossy(&grown.stderr));
    let report: serde_json::Value = serde_json::from_slice(&grown.stdout).unwrap();
    assert_eq!(report["operator"], "width x2 split 0.5, then depth 1 -> 3 copy_identity 0 0' 0'");
    let loss = |key: &str| report[key].as_f64().unwrap();
    assert!((loss("loss_after") / loss("loss_before") - 1.0).abs() < 1e-6);
    assert!(loss("max_abs_delta_logit") < 1e-5);
    let written = fs::read(world.path("run/checkpoints/grown/growth.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), report);
    let loss = |checkpoint: &str| {
        let output = world.staged(&format!("eval {checkpoint} --json"));
        assert!(output.status.success(), "{}", lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let [loss, bits, perplexity] = ["loss", "bits_per_byte", "perplexity"]
            .map(|key| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}")));
        // Of bytes, a token is one.
        assert!((bits - loss / std::f64::consts::LN_2).abs() < 1e-9, "{report}");
        assert!((perplexity / loss.exp() - 1.0).abs() < 1e-9, "{report}");
        loss
    };
    assert!((loss("run/checkpoints/grown") / loss("run") - 1.0).abs() < 1e-6);
    let zero = "grow momentless/checkpoints/step-00000004 --d-model 24 --moments zero -o other/";
    assert!(world.staged(zero).status.success());
    assert!(world.path("other/optimizer.safetensors").exists());
}

#[test]
fn a_schedule_of_stages_is_run_and_says_where_it_grew() {
    let world = world();
    let second = "\n[[stages]]\nn_layers = 2\nd_model = 24\nn_heads = 3\nuntil = { steps = 2 }\n";
    world.write("staged.toml", SCHEDULE.to_string() + second);
    let output = world.staged("train staged.toml --out staged");
    let text = lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2 stages, 6 steps"), "{text}");
    assert!(text.contains("step 4: grown to 2x24x3"), "{text}");
    assert!(world.path("staged/growth-1.json").exists());
    let metrics = fs::read_to_string(world.path("staged/metrics.csv")).unwrap();
    let stages: Vec<&str> = metrics.lines().skip(1).map(|row| &row[..1]).collect();
    assert_eq!(stages, ["0", "0", "0", "0", "1", "1"]);
}

#[test]
fn a_broken_newest_checkpoint_costs_only_its_steps() {
    let world = world();
    let output = world.staged("train tiny.toml --out flipped --resume");
    let text = lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("warning:") && text.contains("is passed over"), "{text}");
    assert!(text.contains("from step 2"), "{text}");
    let model = "checkpoints/step-00000004/model.safetensors";
    let read = |run: &str| fs::read(world.path(run).join(model)).unwrap();
    assert_eq!(read("flipped"), read("run"));
    // Beside what is kept it takes no place, and goes once a whole one is there.
    copy_run(&world, "run", "broken");
    let checkpoints = world.path("broken/checkpoints");
    fs::rename(checkpoints.join("step-00000004"), checkpoints.join("step-00000003")).unwrap();
    world.write("broken/checkpoints/step-00000003/model.safetensors", "torn");
    let output = world.staged("train tiny.toml --out broken --resume");
    let text = lossy(&output.stderr);
    assert!(output.status.success() && text.contains("is passed over"), "{text}");
    let entries = fs::read_dir(checkpoints).unwrap().map(|entry| entry.unwrap().file_name());
    let mut kept: Vec<_> = entries.collect();
    kept.sort();
    assert_eq!(kept, ["step-00000002", "step-00000004"]);
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    let world = world();
    let tokens = "source = \"tokens\", file = \"book.bin\"";
    world.write("book.toml", SCHEDULE.replace("source = \"text\", files = [\"good.txt\"]", tokens));
    assert!(world.staged("data prepare good.txt -o book.bin").status.success());
    assert!(world.staged("train book.toml --out book").status.success());
    world.write("good.txt", "It is a far, far better thing that I do. ".repeat(30));
    assert!(world.staged("data prepare good.txt -o book.bin --force").status.success());
    let output = world.staged("train book.toml --out book --resume");
    let text = lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("the data is tokens"), "{text}");
    assert!(world.bad("eval book").contains("its held-out tokens are others"));
    let elsewhere = SCHEDULE.replace(
        "source = \"text\", files = [\"good.txt\"]",
        "source = \"tokens\", file = \"elsewhere.bin\"",
    );
    world.write("elsewhere.toml", elsewhere);
    world.good("data prepare good.txt -o elsewhere.bin");
    let held = fs::read(world.path("book/schedule.toml")).unwrap();
    world.bad("train elsewhere.toml --out book --resume");
    assert_eq!(fs::read(world.path("book/schedule.toml")).unwrap(), held);
    // Nor are tokens of a text that is another now left in a run that lost its own.
    fs::remove_dir_all(world.path("run/data")).unwrap();
    assert!(world.bad("train tiny.toml --out run --resume").contains("the data is tokens"));
    assert!(!world.path("run/data/tokens.bin").exists());
}

#[test]
fn a_run_without_its_schedule_is_no_new_one() {
    let world = world();
    fs::remove_file(world.path("run/schedule.toml")).unwrap();
    let before = listing(&world.path("run"));
    for arguments in ["train tiny.toml --out run", "train other.toml --out run --text gone.txt"] {
        let text = world.bad(arguments);
        assert!(text.contains("run: its schedule.toml is gone"), "{text}");
        assert_eq!(listing(&world.path("run")), before, "{arguments}");
    }
}

#[test]
fn a_schedule_above_a_checkpoint_may_be_anybodys() {
    let world = world();
    fs::create_dir_all(world.path("project/models")).unwrap();
    fs::copy(world.path("tiny.toml"), world.path("project/schedule.toml")).unwrap();
    world.good("grow run --width 2 -o project/models/wide");
    let text = world.bad("eval project/models/wide");
    assert!(text.contains("lies in no run"), "{text}");
    world.good("grow project/models/wide --depth 2 -o project/models/deep");
}

#[test]
fn reading_a_run_changes_nothing_in_it() {
    let world = world();
    fs::create_dir(world.path("run/checkpoints/step-00000006.partial")).unwrap();
    let before = listing(&world.path("run"));
    for arguments in ["eval run", "sample run --prompt It --tokens 3"] {
        assert!(world.staged(arguments).status.success());
        assert_eq!(listing(&world.path("run")), before, "{arguments}");
    }
}

#[test]
fn results_come_as_json_too() {
    let world = world();
    for arguments in [
        "eval run",
        "eval run --text good.txt",
        "sample run --prompt It --tokens 5",
        "data inspect bpe.bin",
        "data prepare good.txt -o json.bin",
        "train tiny.toml --out json-run",
        "bench step --shape 1x8x2 --context 8 --vocab 16 --batch 2 --steps 1",
    ] {
        world.json(arguments);
    }
}

#[cfg(unix)]
#[test]
fn a_terminated_run_saves_and_resumes() {
    let world = world();
    world.write("long.toml", SCHEDULE.replace("steps = 4 }", "steps = 100000 }"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_staged"))
        .current_dir(world.root())
        .args(["train", "long.toml", "--out", "long", "--json"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Any checkpoint, for the first ones are soon removed again.
    let saved = || {
        let found = fs::read_dir(world.path("long/checkpoints")).into_iter().flatten().flatten();
        found.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(2);
    while !saved() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it saved");
        assert!(std::time::Instant::now() < deadline, "nothing was saved in two minutes");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = world.staged("train long.toml --out long --resume");
    assert_eq!(second.status.code(), Some(2));
    assert!(lossy(&second.stderr).contains("another process is working on this run"));
    let signalled = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["outcome"], "interrupted");
    let checkpoint = summary["checkpoint"].as_str().unwrap();
    assert!(world.path(checkpoint).join("state.json").exists());
    // The same command goes on from there, to a nearer end.
    let step = summary["step"].as_u64().unwrap();
    world.write("long.toml", SCHEDULE.replace("steps = 4 }", &format!("steps = {} }}", step + 2)));
    let held = fs::read_to_string(world.path("long/schedule.toml")).unwrap();
    world.write(
        "long/schedule.toml",
        held.replace("steps = 100000", &format!("steps = {}", step + 2)),
    );
    let resumed = world.json("train long.toml --out long --resume");
    assert_eq!((&resumed["outcome"], &resumed["step"]), (&"finished".into(), &(step + 2).into()));
    let rows = fs::read_to_string(world.path("long/metrics.csv")).unwrap();
    assert_eq!(rows.lines().count() as u64, step + 3);
}

#[test]
fn a_run_says_what_it_measures_on_and_where_it_goes_on() {
    let world = world();
    let text = SCHEDULE.replace("machine = { threads = 1 }\n", "");
    world.write(
        "free.toml",
        text.replace("tokens = 64 }\ncheckpoint", "tokens = 640 }\ncheckpoint"),
    );
    let train = |threads: &str, to: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_staged"))
            .current_dir(world.root())
            .env("RAYON_NUM_THREADS", threads)
            .args(["train", "free.toml", "--out", "free", "--resume"])
            .output()
            .unwrap();
        let told = lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let events = fs::read_to_string(world.path("free/events.jsonl")).unwrap();
        assert!(events.contains(to), "{events}");
        told
    };
    let told = train("1", "\"event\":\"few_held_out\"");
    assert!(
        told.contains("evaluation.tokens asks for 640 tokens, the data holds out 208"),
        "{told}"
    );
    // What is told before the run has a record is in it too, once.
    let bpe = "source = \"text\", tokenizer = \"bpe:5000\"";
    let text =
        SCHEDULE.replace("source = \"text\"", bpe).replace("fraction = 0.2", "fraction = 0.5");
    world.write("vocabulary.toml", text);
    world.good("train vocabulary.toml --out vocabulary");
    let events = fs::read_to_string(world.path("vocabulary/events.jsonl")).unwrap();
    assert_eq!(events.matches("\"event\":\"small_vocabulary\"").count(), 1, "{events}");
    // As if it had been stopped before its last steps.
    fs::remove_dir_all(world.path("free/checkpoints/step-00000004")).unwrap();
    let told = train("2", "\"event\":\"machine_changed\"");
    assert!(told.contains("the state comes from cpu, 1 threads"), "{told}");
    assert!(told.contains("the curve may differ in the last bits"), "{told}");
}

#[test]
fn what_a_run_would_take_for_its_own_or_pass_over_is_refused() {
    let world = world();
    let found = world.bad("grow run --depth 2 -o run/checkpoints/step-00000009");
    assert!(found.contains("would take it for a checkpoint of its own"), "{found}");
    assert!(
        world
            .bad("grow run --depth 2 -o run/checkpoints/step-00000009.partial")
            .contains("of its own")
    );
    assert!(!world.path("run/checkpoints/step-00000009").exists());
    world.good("grow run --depth 2 -o step-00000009");
    let beside = world.staged_in("run/checkpoints", "grow .. --depth 2 -o step-00000009");
    assert!(lossy(&beside.stderr).contains("of its own"), "{}", lossy(&beside.stderr));
    let told = world.staged("train tiny.toml --out run --resume --branch-of elsewhere");
    let told = lossy(&told.stderr);
    assert!(
        told.contains("--branch-of elsewhere is passed over: run has steps of its own"),
        "{told}"
    );
    world.write("run/schedule.toml", "");
    assert!(world.bad("plot run -o x.svg").contains("run/schedule.toml"));
    // A shape that is another is told as one.
    world.write("run/schedule.toml", SCHEDULE.replace("n_layers = 1", "n_layers = 3"));
    world.write("deep.toml", SCHEDULE.replace("n_layers = 1", "n_layers = 3"));
    let found = world.bad("train deep.toml --out run --resume");
    assert!(found.contains("the shape is 1x16x2 (vocabulary 256, context 16)"), "{found}");
}

/// At the edge, and one step beyond it.
#[test]
fn settings_that_cannot_act_as_meant_are_warned_of() {
    let world = World::empty();
    let wsd = "shape = \"wsd\", decay_fraction = 0.2, peak = 0.01, warmup_steps = ";
    let constant = "shape = \"constant\", peak = 0.01, warmup_steps = ";
    let rate = format!("{constant}5");
    let growth = "growth = { width = \"fresh\"";
    let of_rate = |to: String| STAGED.replacen(&rate, &to, 1);
    let of_growth = |of: &str, to: &str| of.replacen(growth, &format!("{growth}, {to}"), 1);
    let decays = of_rate(format!("{wsd}5"));
    // 90 and 10 steps, of which the last 20 % cannot all decay.
    let late = of_rate(format!("{wsd}85")).replace("= 60", "= 90").replace("= 40", "= 10");
    let no_peak = Some("so the rate never comes to its peak");
    let cases = [
        (of_rate(format!("{constant}100")), None),
        (of_rate(format!("{constant}101")), no_peak),
        (of_rate(format!("{wsd}80")), None),
        (of_rate(format!("{wsd}81")), no_peak),
        (late, None),
        (of_growth(STAGED, "resumed_step = 61"), None),
        (of_growth(&decays, "resumed_step = 60"), None),
        (of_growth(&decays, "resumed_step = 61"), Some("60 steps come before it")),
        (of_growth(STAGED, "rewarmup_steps = 40"), None),
        (of_growth(STAGED, "rewarmup_steps = 41"), Some("never comes back to its peak")),
        (STAGED.replace("steps = 60", "steps = 61, slope = -9.0"), None),
        (
            STAGED.replace("steps = 60", "steps = 60, slope = -9.0"),
            Some("warning: stages[0].until.slope = -9: a slope is judged from 10 evaluations"),
        ),
        // Four sequences a step.
        (
            STAGED
                .replace("threads = 1", "threads = 2")
                .replace("micro_batch = 4", "micro_batch = 2"),
            None,
        ),
        (
            STAGED.replace("threads = 1", "threads = 3"),
            Some(
                "note: batch.micro_batch = 4: a step of 4 sequences keeps 1 of 3 threads busy; 1 would keep 3",
            ),
        ),
    ];
    for (i, (schedule, warning)) in cases.into_iter().enumerate() {
        assert_ne!(schedule, STAGED);
        world.write("case.toml", schedule);
        let output = world.staged(&format!("train case.toml --out case-{i}"));
        let text = lossy(&output.stderr);
        assert!(output.status.success(), "{i}: {text}");
        match warning {
            Some(warning) => assert!(text.contains(warning), "{i}: {text}"),
            None => assert!(!text.contains("warning"), "{i}: {text}"),
        }
    }
}
