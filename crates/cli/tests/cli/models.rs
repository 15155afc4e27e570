//! Models that go to other programs, come from them, and are trained on.

use super::world::{STAGED, World, lossy, write_recipes};
use serde_json::Value;
use std::fs;

#[test]
fn a_run_is_exported_once_and_whole() {
    let world = World::empty();
    world.write("tiny.toml", STAGED);
    world.good("train tiny.toml --out run");
    let report = world.json("export run -o out/model");
    assert_eq!(
        (&report["step"], &report["vocabulary"]),
        (&100.into(), &"words:16 of language 1".into())
    );
    let config: Value =
        serde_json::from_slice(&fs::read(world.path("out/model/config.json")).unwrap()).unwrap();
    assert_eq!((&config["n_layer"], &config["n_embd"]), (&2.into(), &32.into()));
    let files = fs::read_dir(world.path("out")).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside it");
    assert!(world.bad("export run -o out/model").contains("is there already"));
    let own = world.bad("export run -o run/checkpoints/step-00000099");
    assert!(own.contains("the run would take it for a checkpoint of its own"), "{own}");
    let own = world.bad("import out/model --tokenizer bytes -o run/checkpoints/step-00000099");
    assert!(own.contains("the run would take it for a checkpoint of its own"), "{own}");
    assert!(world.bad("export absent -o other").contains("absent cannot be read"));
    assert!(!world.path("other").exists());
}

#[test]
fn ways_of_growing_are_compared_once() {
    let world = World::empty();
    write_recipes(&world);
    let bench = "bench growth recipe.toml --narrow 2x16x2 --shallow 1x32x4 --steps 60 --updates 80 --seeds 1 -o grown";
    let report = world.json(bench);
    let cases = report.as_array().unwrap();
    let case = |name: &str| cases.iter().find(|case| case["case"] == name).unwrap();
    let number = |name: &str, key: &str| case(name)[key].as_f64().unwrap();
    for name in ["duplicate", "split 0.5", "fresh", "identity", "copy_identity"] {
        assert!(number(name, "jump").abs() < 1e-5, "{name}: {report}");
        assert!(number(name, "dynamics_ratio").is_finite(), "{name}: {report}");
    }
    assert!(number("copy, stacked", "jump").abs() > 1e-4, "{report}");
    // Copies of units that are the same stay so.
    assert!(number("duplicate", "cosine") > 0.999, "{report}");
    assert!(number("split 1", "cosine") < 0.999, "{report}");
    let curves = fs::read(world.path("grown/curves.csv")).unwrap();
    assert_eq!(world.json(bench), report);
    assert!(world.bad(&bench.replace("60", "61")).contains("was measured with other settings"));
    // What failed before anything was measured stands in nobody's way.
    let text = STAGED.replace(
        "source = \"synthetic\", n_words = 16, language_seed = 1",
        "source = \"text\", files = [\"missing.txt\"]",
    );
    let text = text.split("from_scratch").next().unwrap().to_string()
        + "[[stages]]\nn_layers = 2\nd_model = 32\nn_heads = 4\nuntil = { steps = 400 }\n";
    world.write("text.toml", text);
    let other = bench.replace("recipe.toml", "text.toml").replace("grown", "other");
    assert!(world.bad(&other).contains("missing.txt"));
    let few = "--text short.txt -o other";
    world.write("short.txt", "too short");
    let again = world.bad(&other.replace("-o other", few));
    assert!(again.contains("training tokens") && !again.contains("other settings"), "{again}");
    assert_eq!(fs::read(world.path("grown/curves.csv")).unwrap(), curves);
}

const BYTES: &str = r#"
version = 1
name = "bytes"
seed = 1
data = { source = "text", files = ["book.txt"] }
model = { context_len = 16 }
parametrization = { kind = "standard" }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "constant", peak = 0.003 }
batch = { tokens = 64, micro_batch = 4 }
evaluation = { every_steps = 5, tokens = 64 }
checkpoint = { every_steps = 20, keep = 2 }
machine = { threads = 1 }

[[stages]]
n_layers = 1
d_model = 16
n_heads = 2
until = { steps = 20 }
"#;

#[test]
fn a_model_of_transformers_is_imported_grown_and_trained_on() {
    let world = World::empty();
    world.write("book.txt", "It was the best of times, it was the worst of times. ".repeat(60));
    world.write("bytes.toml", BYTES);
    world.good("train bytes.toml --out run");
    world.good("export run -o hf");
    let explained = world.bad("import hf -o start");
    assert!(explained.contains("hf: no tokenizer.json says what its tokens mean"), "{explained}");
    assert!(world.bad("import . -o start").contains("holds no config.json"));
    let other = "import hf --tokenizer bpe:300 -o start";
    assert!(world.bad(other).contains("has a vocabulary of its own"));
    assert!(!world.path("start").exists());
    let report = world.json("import hf --tokenizer bytes -o start");
    assert_eq!(
        (&report["vocabulary"], &report["shape"]["n_vocab"]),
        (&"bytes".into(), &256.into())
    );
    let loss = |arguments: &str| world.json(arguments)["loss"].as_f64().unwrap();
    let due = loss("eval run --text book.txt");
    assert!((loss("eval start --text book.txt") / due - 1.0).abs() < 1e-6);
    assert!(world.bad("eval start").contains("lies in no run"));
    assert!(world.good("sample start --prompt It --tokens 5").starts_with("It"));
    world.good("grow start --depth 2 -o grown");
    let deeper = BYTES.replace("n_layers = 1", "n_layers = 2");
    let from = |start: &str| format!("context_len = 16, start = \"{start}\"");
    world.write("deeper.toml", deeper.replace("context_len = 16", &from("grown")));
    let output = world.staged("train deeper.toml --out deeper");
    let told = lossy(&output.stderr);
    assert!(output.status.success() && told.contains("begins with the model of"), "{told}");
    assert!(loss("eval deeper --text book.txt") < due);
    // Bytes are bytes, whatever became of the run's token file.
    fs::remove_dir_all(world.path("deeper/data")).unwrap();
    assert!(world.good("sample deeper --prompt It --tokens 5").starts_with("It"));
    let grow = world.bad("grow deeper --depth 3 -o deepest");
    assert!(grow.contains("--no-check grows without"), "{grow}");
    world.good("grow deeper --depth 3 --no-check -o deepest");
    world.write("wide.toml", BYTES.replace("context_len = 16", &from("grown")));
    let refused = world.bad("train wide.toml --out wide");
    assert!(refused.contains("model.start: its n_layers is 2, and 1 in the run"), "{refused}");
    assert!(!world.path("wide").exists());
    // It is no run from random weights: not for a law, not as a baseline, and no recipe for either.
    let fit = "fit deeper --form kaplan-tokens --bootstraps 0 -o law.json";
    assert!(world.bad(fit).contains("laws and plans are of runs from random weights"));
    assert!(
        world.bad("compare run deeper").contains("a run from scratch begins with random weights")
    );
    let curves = world.bad("plan --curves run deeper");
    assert!(curves.contains("laws and plans are of runs from random weights"), "{curves}");
    let pilots = world.bad("pilot deeper.toml --budget 1e11 -o pilots");
    assert!(pilots.contains("model.start") && !world.path("pilots").exists(), "{pilots}");
    let plan = world.bad("plan --budget 1e18 --template deeper.toml -o mine.toml");
    assert!(plan.contains("model.start") && !world.path("mine.toml").exists(), "{plan}");
}

/// A vocabulary of its own goes along when a checkpoint grows, and tokens of a file that does not say whose they are are taken.
#[test]
fn a_grown_checkpoint_knows_its_tokenizer_and_takes_plain_token_files() {
    let world = World::empty();
    world.write("book.txt", "It was the best of times, it was the worst of times. ".repeat(60));
    let bpe =
        BYTES.replace("files = [\"book.txt\"]", "files = [\"book.txt\"], tokenizer = \"bpe:270\"");
    world.write("bpe.toml", &bpe);
    world.good("train bpe.toml --out run");
    // Fewer tokens than bytes: those of the whole text, of which the last are a sequence or less that is left out.
    let found = world.json("eval run --text book.txt");
    let of = |key: &str| found[key].as_f64().unwrap();
    let per_token = of("bits_per_byte") * std::f64::consts::LN_2 / of("loss");
    let record = fs::read_to_string(world.path("run/data/tokens.bin.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let due = record["n_tokens"].as_f64().unwrap() / record["n_text_bytes"].as_f64().unwrap();
    assert!(due < 0.8 && (per_token / due - 1.0).abs() < 0.05, "{per_token} for {due}");
    world.good("grow run --depth 2 -o grown");
    assert!(world.good("sample grown --prompt It --tokens 5").starts_with("It"));
    world.good("export grown -o hf");
    assert!(world.path("hf/tokenizer.json").exists());
    world.good("import hf -o again");
    let of = |name: &str| world.json(&format!("eval {name} --text book.txt"))["loss"].as_f64();
    assert!((of("again").unwrap() / of("grown").unwrap() - 1.0).abs() < 1e-6);
    // llm.c's and nanoGPT's files say how large the vocabulary is and no more.
    fs::copy(world.path("run/data/tokens.bin"), world.path("tokens.bin")).unwrap();
    let plain = bpe
        .replace("n_layers = 1", "n_layers = 2")
        .replace("context_len = 16", "context_len = 16, start = \"again\"");
    let data = plain.lines().find(|line| line.starts_with("data =")).unwrap();
    let tokens = "data = { source = \"tokens\", file = \"tokens.bin\" }";
    world.write("plain.toml", plain.replace(data, tokens));
    world.good("train plain.toml --out plain");
    assert!(world.bad("sample plain --prompt It").contains("no tokenizer.json beside it"));
    fs::copy(world.path("hf/tokenizer.json"), world.path("tokens.bin.tokenizer.json")).unwrap();
    assert!(world.good("sample plain --prompt It --tokens 5").starts_with("It"));
    assert!(world.good("eval plain --text book.txt").contains("bits per byte"));
    let described = "eval plain --tokens run/data/tokens.bin";
    assert!(world.good(described).contains("nats per token"));
    fs::remove_file(world.path("tokens.bin.tokenizer.json")).unwrap();
    world.good("grow plain --depth 3 -o deeper");
    assert!(world.bad("sample deeper --prompt It").contains("has no tokenizer.json"));
    fs::copy(world.path("hf/tokenizer.json"), world.path("deeper/tokenizer.json")).unwrap();
    assert!(world.good("sample deeper --prompt It --tokens 5").starts_with("It"));
    let back = plain
        .replace("start = \"again\"", "start = \"deeper\"")
        .replace("n_layers = 2", "n_layers = 3");
    world.write("back.toml", back);
    world.good("train back.toml --out back");
}
