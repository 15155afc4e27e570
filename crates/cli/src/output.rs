//! The one place that writes to the terminal.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A line of results.
pub fn line(text: &str) -> Result<()> {
    written(writeln!(io::stdout(), "{text}"))
}

/// Results for programs.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes a whole file under another name and renames it, so that no half of it is ever seen.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    measure::write_whole(path, text.as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Errs unless the name of a run's folder, which its schedule and record hold, is UTF-8.
pub fn check_name(option: &str, folder: &Path) -> Result<()> {
    if folder.to_str().is_none() {
        bail!("{option} {}: the name must be UTF-8", folder.display());
    }
    Ok(())
}

/// Tells, of a command that ends without what it was to make, how it ended, where JSON is wanted.
pub fn outcome(is_json: bool, outcome: &str) -> Result<()> {
    if is_json { json(&serde_json::json!({ "outcome": outcome })) } else { Ok(()) }
}

/// Errs unless a file can be written there: for commands that write several, or work long before they write.
pub fn check_target(path: &Path) -> Result<()> {
    let ends_in_slash = path.as_os_str().to_string_lossy().ends_with('/');
    if path.is_dir() || ends_in_slash || path.file_name().is_none() {
        bail!("{}: is a folder; name a file", path.display());
    }
    if path.exists() && !path.is_file() {
        bail!("{}: is no file that can be replaced; name another", path.display());
    }
    let target = measure::led_to(path);
    let folder = target.ancestors().skip(1).find(|folder| folder.exists());
    if let Some(blocked) =
        folder.filter(|folder| !folder.is_dir() && !folder.as_os_str().is_empty())
    {
        bail!("{}: {} is no folder", path.display(), blocked.display());
    }
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let trial = folder.join(format!(".staged-{}", std::process::id()));
    std::fs::File::create(&trial)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    // An empty file of this name is in nobody's way.
    let _ = std::fs::remove_file(&trial);
    Ok(())
}

/// Errs unless a file's name has the ending by which it is known when it is read again.
pub fn check_ending(path: &Path, ending: &str, what: &str) -> Result<()> {
    if path.extension().is_none_or(|found| found != ending) {
        bail!("{}: {what} is written as .{ending}", path.display());
    }
    Ok(())
}

/// Errs where a file is there already that is neither empty nor of the kind that is to take its place.
pub fn check_replaced(path: &Path, is_own: impl Fn(&str) -> bool, other: &str) -> Result<()> {
    let may_go = |text: String| text.is_empty() || is_own(&text);
    if path.exists() && !std::fs::read_to_string(path).is_ok_and(may_go) {
        bail!("{}: is there already, and {other}; choose another name", path.display());
    }
    Ok(())
}

/// Whether two paths lead to one file or folder that is there.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The first path that leads to a file or folder that one before it leads to.
pub fn given_twice(paths: &[PathBuf]) -> Option<&Path> {
    let mut seen = HashSet::new();
    let mut is_seen = |path: &Path| path.canonicalize().is_ok_and(|found| !seen.insert(found));
    paths.iter().map(PathBuf::as_path).find(|path| is_seen(path))
}

/// Whether a folder is there and holds anything.
pub fn is_taken(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut held| held.next().is_some())
}

/// The command line of this process, the program by its name alone.
pub fn command() -> String {
    let quoted = |word: std::ffi::OsString| {
        let word = word.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+".contains(c);
        let is_plain = !word.is_empty() && word.chars().all(plain);
        if is_plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words = std::env::args_os().skip(1).map(quoted);
    std::iter::once("staged".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A remark beside the results.
pub fn note(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Why a command failed.
pub fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// A reader that has seen enough, as in `staged ... | head`, is not an error.
fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("results cannot be written to standard output"),
    }
}

/// `1h02m`, `3m20s`, `12s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// A share in percent: `12.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A count with thousands set apart: `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut parts: Vec<&str> = Vec::new();
    let mut end = digits.len();
    while end > 3 {
        parts.push(&digits[end - 3..end]);
        end -= 3;
    }
    parts.push(&digits[..end]);
    parts.reverse();
    parts.join(",")
}

/// A count with its noun: `1 step`, `12,345 steps`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(12), "12");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(
            (counted(1, "step"), counted(1200, "step")),
            ("1 step".into(), "1,200 steps".into())
        );
        assert_eq!(duration(12.9), "12s");
        assert_eq!(duration(200.0), "3m20s");
        assert_eq!(duration(3720.0), "1h02m");
    }
}
