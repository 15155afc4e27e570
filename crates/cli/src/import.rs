use crate::checkpoint::check_no_runs_own;
use crate::{output, train};
use anyhow::{Result, bail};
use clap::Args;
use corpus::{Cleaning, Tokenizer, TokenizerChoice};
use measure::GptShape;
use serde::Serialize;
use state::{ImportedVocabulary, TOKENIZER_FILE};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Arguments of `staged import`.
#[derive(Args)]
#[command(after_help = "Example: staged import gpt2 -o gpt2-start\n\n\
    Then name it in a schedule, whose first stage has its shape, to train it on: model.start = \"gpt2-start\", with \
    parametrization.kind = \"standard\", model.context_len as in config.json and data.tokenizer as here. Or grow it first with \
    staged grow, and start from what that writes.")]
pub struct Import {
    /// Folder with config.json and model.safetensors
    model: PathBuf,
    /// What its tokens mean: bytes, gpt2:FOLDER or the path of a tokenizer.json [default: the folder's tokenizer.json]
    #[arg(long)]
    tokenizer: Option<String>,
    /// The checkpoint, a new folder
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    checkpoint: PathBuf,
    shape: GptShape,
    n_params: u64,
    n_params_total: u64,
    vocabulary: String,
}

impl Import {
    pub fn run(self) -> Result<()> {
        check_no_runs_own(&self.out)?;
        let tokenizer = self.tokenizer()?;
        let (vocabulary, json) = (tokenizer.vocabulary()?, tokenizer.to_json()?);
        let described = ImportedVocabulary {
            name: &vocabulary,
            n_vocab: tokenizer.n_vocab(),
            json: json.as_deref(),
        };
        let versions = format!("staged {}", env!("CARGO_PKG_VERSION"));
        let shape =
            state::import(&self.model, described, &versions, &self.out, train::stop_on_signals()?)?;
        let report = Report {
            checkpoint: self.out,
            shape,
            n_params: shape.n_params(),
            n_params_total: shape.n_params_total(),
            vocabulary,
        };
        if self.json {
            return output::json(&report);
        }
        output::line(&format!(
            "{}: {shape}, {} parameters, {} without embeddings; context {}, vocabulary {}",
            report.checkpoint.display(),
            output::count(report.n_params_total),
            output::count(report.n_params),
            shape.context_len,
            report.vocabulary,
        ))
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        let beside = self.model.join(TOKENIZER_FILE);
        let choice = match &self.tokenizer {
            Some(text) => match text.parse() {
                Ok(TokenizerChoice::Bpe(_)) => {
                    bail!("--tokenizer {text}: a model that is there has a vocabulary of its own")
                }
                Ok(choice) => choice,
                Err(_) => bail!(
                    "--tokenizer {text}: must be bytes, gpt2:FOLDER or the path of a tokenizer.json"
                ),
            },
            None if beside.exists() => TokenizerChoice::File(beside),
            None if !self.model.join("config.json").exists() => {
                bail!("{}: holds no config.json", self.model.display())
            }
            None => bail!(
                "{}: no tokenizer.json says what its tokens mean; --tokenizer does: bytes, gpt2:FOLDER or the path of a \
                 tokenizer.json",
                self.model.display()
            ),
        };
        Ok(Tokenizer::choose(
            &choice,
            &[],
            Cleaning::default(),
            &mut |_| ControlFlow::Continue(()),
        )?)
    }
}
