use crate::{Event, RunFolder, TrainError};
use corpus::{
    Cleaning, Corpus, CorpusError, Prepared, SyntheticLanguage, TokenFile, TokenFileInfo,
    Tokenizer, TokenizerChoice, prepare,
};
use schedule::{DataSource, Schedule, TextData};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The tokens of a run whose text is prepared.
///
/// # Errors
/// Data that is missing, broken or too short.
pub fn open_corpus(schedule: &Schedule, root: &Path) -> Result<Corpus, TrainError> {
    let context_len = schedule.context_len();
    match schedule.data() {
        DataSource::Synthetic(synthetic) => {
            let language = SyntheticLanguage::new(synthetic.n_words, synthetic.language_seed);
            if schedule.seed() == language.held_out_seed() {
                let reason = format!(
                    "seed = {}: is that of the language's held-out sequences, which training would see; choose another",
                    schedule.seed()
                );
                return Err(TrainError::folder(root, reason));
            }
            Ok(Corpus::from_language(language, context_len))
        }
        DataSource::Tokens(tokens) => {
            if !tokens.file.exists() {
                let reason = "data.file of the schedule is not there; staged data prepare makes token files, and --text takes text \
                              where the schedule's source is text";
                return Err(TrainError::folder(&tokens.file, reason));
            }
            Ok(Corpus::from_file(&tokens.file, tokens.validation_fraction, context_len)?)
        }
        DataSource::Text(text) => {
            let path = RunFolder::tokens_of(root);
            let corpus = Corpus::from_file(&path, text.validation_fraction, context_len);
            // The text is too short; its tokens may be gone again when that is read.
            corpus.map_err(|error| match (error, text.files.first()) {
                (CorpusError::TooShort { reason, .. }, Some(file)) => {
                    let more = text.files.len() - 1;
                    let others = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let path = PathBuf::from(format!("{}{others}", file.display()));
                    CorpusError::TooShort { path, reason }.into()
                }
                (error, _) => error.into(),
            })
        }
    }
}

/// The tokenizer of a run, if its data came with one.
///
/// # Errors
/// A tokenizer.json that cannot be read.
pub fn run_tokenizer(schedule: &Schedule, root: &Path) -> Result<Option<Tokenizer>, TrainError> {
    let own = RunFolder::tokens_of(root);
    let path = match schedule.data() {
        DataSource::Synthetic(synthetic) => return Ok(Some(Tokenizer::words(synthetic.n_words))),
        DataSource::Text(_) => &own,
        DataSource::Tokens(tokens) => &tokens.file,
    };
    // The tokens themselves, which may be many, say nothing more of it.
    let info = match TokenFileInfo::of(path)? {
        Some(info) => info,
        None => TokenFile::open(path)?.info().clone(),
    };
    Ok(Tokenizer::of_token_file(path, &info)?)
}

/// Makes the token file of a run on text, unless `begun` says that the file there is the run's own. Whether it was made.
///
/// # Errors
/// Text that cannot be used; `stop` was set.
pub fn prepare_text(
    schedule: &Schedule,
    root: &Path,
    begun: bool,
    observe: &mut dyn FnMut(&Event),
    stop: &AtomicBool,
) -> Result<bool, TrainError> {
    let DataSource::Text(text) = schedule.data() else { return Ok(false) };
    let output = RunFolder::tokens_of(root);
    if begun && output.exists() {
        return Ok(false);
    }
    if text.files.is_empty() {
        let reason = "data.files = []: name text files there or with --text FILE...".to_string();
        return Err(corpus::CorpusError::Choice(reason).into());
    }
    text_to_tokens(&text.files, &text.tokenizer, text_cleaning(text), &output, observe, stop)?;
    Ok(true)
}

/// Breaks off what is watched once `stop` is set.
pub fn until_stopped(stop: &AtomicBool) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// A token file, and what it took.
pub struct TextTokens {
    /// The file.
    pub prepared: Prepared,
    /// Bytes of text.
    pub source_bytes: u64,
    /// Of reading or training the tokenizer.
    pub tokenizer_seconds: f64,
    /// Of turning text into tokens.
    pub seconds: f64,
}

/// Makes a token file of texts: with the tokenizer of that name, after training it where it is a BPE of theirs.
///
/// # Errors
/// A name of no tokenizer, text that cannot be used, a file that cannot be written; `stop` was set.
pub fn text_to_tokens(
    files: &[PathBuf],
    tokenizer_name: &str,
    cleaning: Cleaning,
    output: &Path,
    observe: &mut dyn FnMut(&Event),
    stop: &AtomicBool,
) -> Result<TextTokens, TrainError> {
    let choice: TokenizerChoice = tokenizer_name.parse()?;
    let mut total = 0;
    for file in files {
        let found = std::fs::metadata(file).map_err(TrainError::io(file))?;
        if matches!(choice, TokenizerChoice::Bpe(_)) && !found.is_file() && !found.is_dir() {
            let reason = format!(
                "is no regular file, and {tokenizer_name} reads its text twice; write it to a file first"
            );
            return Err(TrainError::folder(file, reason));
        }
        total += found.len();
    }
    let began = Instant::now();
    let tokenizer = Tokenizer::choose(&choice, files, cleaning, &mut |read| {
        observe(&Event::LearningVocabulary { read, total });
        until_stopped(stop)
    })?;
    let tokenizer_seconds = began.elapsed().as_secs_f64();
    let found = tokenizer.n_vocab();
    if let TokenizerChoice::Bpe(wanted) = choice
        && found < wanted
    {
        observe(&Event::SmallVocabulary { wanted, found });
    }
    if tokenizer.leaves_text_out() {
        observe(&Event::TextLeftOut { tokenizer: tokenizer_name.to_string() });
    }
    let began = Instant::now();
    observe(&Event::Preparing { done: 0, total });
    let prepared = prepare(files, &tokenizer, tokenizer_name, cleaning, output, |done| {
        observe(&Event::Preparing { done, total });
        until_stopped(stop)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(TextTokens { prepared, source_bytes: total, tokenizer_seconds, seconds })
}

/// What a run changes in its text.
pub fn text_cleaning(text: &TextData) -> Cleaning {
    Cleaning { strip_cr: text.strip_cr, lossy: text.lossy }
}
