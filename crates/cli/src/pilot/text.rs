//! One token file for runs on one text.

use crate::progress::Progress;
use crate::{output, train};
use anyhow::{Context, Result, bail};
use corpus::CorpusError;
use schedule::{DataSource, Schedule, TextData};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use trainer::{Event, RunFolder, TrainError, open_corpus, prepare_text};

/// What says of which text the tokens of several runs were made, beside them.
pub(super) const TEXT_FILE: &str = "text.json";

/// The same recipe with its text made into one token file for all runs, in `folder`/data.
pub fn with_prepared_tokens(recipe: Schedule, folder: &Path, resume: bool) -> Result<Schedule> {
    let DataSource::Text(text) = recipe.data() else { return Ok(recipe) };
    let tokens = RunFolder::tokens_of(folder);
    if tokens.exists() && !resume {
        bail!(
            "{}: already holds runs; add --resume to go on, or choose another folder",
            folder.display()
        );
    }
    let record = TextRecord::of(text)?;
    let path = tokens.with_file_name(TEXT_FILE);
    if path.exists() {
        let held: TextRecord = serde_json::from_slice(&std::fs::read(&path)?)
            .with_context(|| path.display().to_string())?;
        if held != record {
            bail!(
                "{}: holds runs on {held}, not on {record}; choose another folder",
                folder.display()
            );
        }
    } else if tokens.exists() {
        bail!(
            "{}: nothing says of which text it was made; choose another folder",
            tokens.display()
        );
    } else {
        output::write_file(&path, &serde_json::to_string_pretty(&record)?)?;
    }
    let is_new = !tokens.exists();
    let mut progress = Progress::new();
    let shown = &mut |event: &Event| progress.show(event);
    let prepared =
        prepare_text(&recipe, folder, resume, shown, train::stop_on_signals()?).map(|_| ());
    progress.end();
    if let Err(error) = prepared.and_then(|()| open_corpus(&recipe, folder).map(drop)) {
        let is_anothers = matches!(error, TrainError::Corpus(CorpusError::Busy { .. }));
        if is_new && !is_anothers {
            // What was made for nothing goes again; the first error says more than one about tidying up.
            RunFolder::remove_tokens(folder);
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_dir(path.parent().unwrap_or(folder));
            let _ = std::fs::remove_dir(folder);
        }
        return Err(error.into());
    }
    Ok(recipe.with_tokens(tokens)?)
}

/// The text that a token file for several runs was made of.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRecord {
    /// Names, without folders, and sizes in bytes.
    files: Vec<(String, u64)>,
    tokenizer: String,
    strip_cr: bool,
    lossy: bool,
}

impl TextRecord {
    fn of(text: &TextData) -> Result<Self> {
        let file = |path: &PathBuf| {
            let size = std::fs::metadata(path);
            let size = size.with_context(|| format!("{} cannot be read", path.display()))?.len();
            let name = path.file_name().unwrap_or(path.as_os_str());
            Ok((name.to_string_lossy().into_owned(), size))
        };
        Ok(Self {
            files: text.files.iter().map(file).collect::<Result<_>>()?,
            tokenizer: text.tokenizer.clone(),
            strip_cr: text.strip_cr,
            lossy: text.lossy,
        })
    }
}

impl fmt::Display for TextRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, size) in &self.files {
            write!(f, "{name} ({size} bytes), ")?;
        }
        let Self { tokenizer, strip_cr, lossy, .. } = self;
        write!(f, "tokenizer = {tokenizer}, strip_cr = {strip_cr}, lossy = {lossy}")
    }
}
