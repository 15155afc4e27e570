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
