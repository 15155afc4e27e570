//! The crate graph is the architecture: docs/ARCHITECTURE.md draws it, and this reads it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every arrow that is allowed.
const ARROWS: [(&str, &[&str]); 12] = [
    ("measure", &[]),
    ("schedule", &["measure"]),
    ("state", &["measure"]),
    ("corpus", &[]),
    ("growth", &["measure", "schedule", "state"]),
    ("scaling", &["measure"]),
    ("plot", &[]),
    ("kernels", &["measure", "state"]),
    ("gpu", &["kernels", "measure", "state"]),
    ("model", &["gpu", "kernels", "measure", "state"]),
    ("trainer", &["corpus", "gpu", "growth", "kernels", "measure", "model", "schedule", "state"]),
    (
        "staged",
        &[
            "corpus", "growth", "measure", "model", "plot", "scaling", "schedule", "state",
            "trainer",
        ],
    ),
];

/// The normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .args(["--manifest-path", manifest])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_string();
    let list = |value: &Value| value.as_array().unwrap().clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let dependencies = list(&package["dependencies"]);
            let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
            (name(package), normal.map(name).collect())
        })
        .collect()
}

#[test]
fn checkpoints_name_the_tensor_library_that_is_pinned() {
    let manifest =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap();
    let pinned = trainer::TENSOR_LIBRARY.replace("burn ", "burn = { version = \"=");
    assert!(manifest.contains(&format!("{pinned}\"")), "{pinned}");
}

#[test]
fn arrows_go_one_way_and_none_is_added_in_passing() {
    let allowed = BTreeMap::from(ARROWS);
    for (package, uses) in dependencies().iter().filter(|(name, _)| *name != "workspace-tests") {
        let arrows: Vec<&str> =
            uses.iter().map(String::as_str).filter(|used| allowed.contains_key(used)).collect();
        let drawn = allowed.get(package.as_str());
        let drawn = drawn.unwrap_or_else(|| panic!("{package} is not in the drawing"));
        assert_eq!(arrows, *drawn, "arrows of {package}");
    }
}

#[test]
fn burn_is_known_to_those_that_compute_and_anyhow_to_the_program() {
    for (package, uses) in dependencies().iter().filter(|(name, _)| *name != "workspace-tests") {
        let any = |prefix: &str| uses.iter().any(|used| used.starts_with(prefix));
        let name = package.as_str();
        assert!(!any("burn") || ["gpu", "model", "trainer"].contains(&name), "{name} uses burn");
        assert!(!any("anyhow") || name == "staged", "{name} uses anyhow");
        assert!(!any("clap") && !any("indicatif") || name == "staged", "{name} talks to the user");
    }
}
