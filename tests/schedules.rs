//! The schedules that come with the project.

use schedule::Schedule;
use std::path::Path;

#[test]
fn every_schedule_is_checked_and_survives_writing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schedules");
    let mut n = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let schedule = Schedule::read(&path).unwrap();
        let again = Schedule::parse(&schedule.to_toml(), &path).unwrap();
        assert_eq!(again, schedule, "{}", path.display());
        n += 1;
    }
    assert!(n > 0);
}

/// The example of the documentation, and the defaults that it names.
#[test]
fn the_documented_schedule_has_every_key_and_the_defaults_that_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SCHEDULE.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let example = text.split("```").nth(1).unwrap().strip_prefix("toml").unwrap();
    let full = Schedule::parse(example, &path).unwrap();
    let written = full.to_toml();
    for key in written.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key) {
        let is_named = |line: &str| line.trim_start().starts_with(&format!("{key} = "));
        let in_braces = format!("{{ {key} = ");
        let found = example.lines().any(is_named) || example.contains(&in_braces);
        assert!(found || example.contains(&format!(", {key} = ")), "{key} is not in the example");
    }
    // Without what is marked as having its default.
    let other = [
        "# * none",
        "# * random",
        "# * all",
        "# * 0",
        "# * d_model",
        "# * 4 d_model",
        "# * the",
        "# * learning",
    ];
    let has_default = |line: &str| {
        line.contains(" = ") && line.contains("# * ") && !other.iter().any(|one| line.contains(one))
    };
    let short: Vec<&str> = example.lines().filter(|line| !has_default(line)).collect();
    assert!(short.len() + 12 < example.lines().count());
    assert_eq!(Schedule::parse(&short.join("\n"), &path).unwrap(), full);
}
