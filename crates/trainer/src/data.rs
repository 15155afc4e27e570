use crate::{Event, RunFolder, TrainError};
use corpus::{
    Cleaning, Corpus, SyntheticLanguage, TokenFile, TokenFileInfo, Tokenizer, TokenizerChoice,
    prepare,
};
use schedule::{DataSource, Schedule, TextData};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
            Ok(Corpus::from_file(&path, text.validation_fraction, context_len)?)
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
    let mut total = 0;
    for file in &text.files {
        total += std::fs::metadata(file).map_err(TrainError::io(file))?.len();
    }
    let choice: TokenizerChoice = text.tokenizer.parse()?;
    observe(&Event::Preparing { done: 0, total });
    let cleaning = text_cleaning(text);
    let tokenizer = Tokenizer::choose(&choice, &text.files, cleaning)?;
    if let Some(event) = small_vocabulary(&choice, &tokenizer) {
        observe(&event);
    }
    prepare(&text.files, &tokenizer, &text.tokenizer, cleaning, &output, |done| {
        observe(&Event::Preparing { done, total });
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(true)
}

/// What is to be said of a BPE that has fewer tokens than were asked for.
pub fn small_vocabulary(choice: &TokenizerChoice, tokenizer: &Tokenizer) -> Option<Event> {
    let TokenizerChoice::Bpe(wanted) = *choice else { return None };
    let found = tokenizer.n_vocab();
    (found < wanted).then_some(Event::SmallVocabulary { wanted, found })
}

/// What a run changes in its text.
pub fn text_cleaning(text: &TextData) -> Cleaning {
    Cleaning { strip_cr: text.strip_cr, lossy: text.lossy }
}
