//! A folder of its own in which `staged` is run as a user runs it.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn staged(&self, arguments: &str) -> Output {
        self.staged_in("", arguments)
    }

    /// The same from a folder in it.
    pub fn staged_in(&self, folder: &str, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_staged"))
            .current_dir(self.path(folder))
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn good(&self, arguments: &str) -> String {
        let output = self.staged(arguments);
        assert!(output.status.success(), "{arguments}: {}", lossy(&output.stderr));
        lossy(&output.stdout)
    }

    /// What a command that must succeed prints as JSON.
    pub fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{arguments} --json"))).unwrap()
    }

    /// The message of a command that must fail.
    pub fn bad(&self, arguments: &str) -> String {
        let output = self.staged(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        lossy(&output.stderr)
    }
}

pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub const STAGED: &str = r#"
version = 1
name = "tiny"
seed = 1
data = { source = "synthetic", n_words = 16, language_seed = 1 }
model = { context_len = 16 }
parametrization = { kind = "mup", base_width = 16 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "constant", peak = 0.01, warmup_steps = 5 }
batch = { tokens = 64, micro_batch = 4 }
evaluation = { every_steps = 5, tokens = 512 }
checkpoint = { every_steps = 20, keep = 2 }
machine = { threads = 1 }
from_scratch = { peak = 0.02, until = { steps = 120 } }

[[stages]]
n_layers = 1
d_model = 16
n_heads = 2
until = { steps = 60 }

[[stages]]
n_layers = 2
d_model = 32
n_heads = 4
until = { steps = 40 }
growth = { width = "fresh" }
"#;

/// Two seeds of a staged run and of its baseline.
pub fn world() -> World {
    let world = World::empty();
    world.write("tiny.toml", STAGED);
    for seed in [1, 2] {
        world.good(&format!("train tiny.toml --seed {seed} --out staged/{seed}"));
        world.good(&format!("train tiny.toml --from-scratch --seed {seed} --out scratch/{seed}"));
    }
    world
}

/// A 2x32x4 recipe at a constant rate, in recipe.toml, and with a late decay, in stable.toml.
pub fn write_recipes(world: &World) {
    let recipe = STAGED.split("from_scratch").next().unwrap().to_string()
        + "[[stages]]\nn_layers = 2\nd_model = 32\nn_heads = 4\nuntil = { steps = 400 }\n";
    world.write("stable.toml", recipe.replace("constant", "wsd"));
    world.write("recipe.toml", recipe);
}

/// Each command errs with a code of 2 and one error in these words, and leaves nothing behind.
pub fn leave_no_trace(world: &World, cases: &[(impl AsRef<str>, &str)]) {
    let before = listing(world.root());
    for (arguments, message) in cases {
        let arguments = arguments.as_ref();
        let output = world.staged(arguments);
        let text = lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(message), "{arguments}: {text}");
        assert_eq!(text.matches("error:").count(), 1, "{arguments}: {text}");
        assert!(!text.contains("panicked"), "{arguments}: {text}");
        assert!(output.stdout.is_empty(), "{arguments}");
        assert_eq!(listing(world.root()), before, "{arguments} left something behind");
    }
}

pub fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
