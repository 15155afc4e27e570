use crate::checkpoint::{check_no_runs_own, locate, tokenizer_along};
use crate::{output, train};
use anyhow::Result;
use clap::Args;
use corpus::Tokenizer;
use serde::Serialize;
use state::{Checkpoint, CheckpointStore, ExportedTokenizer};
use std::path::PathBuf;

/// Arguments of `staged export`.
#[derive(Args)]
#[command(after_help = "Example: staged export runs/mine -o mine-hf\n\n\
    Then, in Python: transformers.GPT2LMHeadModel.from_pretrained(\"mine-hf\"). Its logits are those of the run's model. \
    A vocabulary of bytes needs no tokenizer: tokens are the bytes' values.")]
pub struct Export {
    /// A checkpoint, or a run for its newest one
    checkpoint: PathBuf,
    /// Folder of the model, a new one
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    checkpoint: PathBuf,
    step: u64,
    n_params_total: u64,
    bytes_written: u64,
    vocabulary: String,
    has_tokenizer: bool,
}

impl Export {
    pub fn run(self) -> Result<()> {
        check_no_runs_own(&self.out)?;
        let (path, run) = locate(&self.checkpoint, CheckpointStore::newest_model)?;
        let checkpoint = Checkpoint::open_params(&path)?;
        let tokenizer = tokenizer_along(run.as_deref(), &checkpoint);
        let json = tokenizer.as_ref().map(Tokenizer::to_json).transpose()?.flatten();
        let exported = ExportedTokenizer {
            json: json.as_deref(),
            end_of_text: tokenizer.as_ref().and_then(Tokenizer::end_of_text),
        };
        let bytes_written =
            state::export(&checkpoint, exported, &self.out, train::stop_on_signals()?)?;
        let info = checkpoint.info();
        let report = Report {
            folder: self.out,
            step: info.position.step,
            n_params_total: info.shape.n_params_total(),
            bytes_written,
            vocabulary: info.origin.vocabulary.clone(),
            has_tokenizer: json.is_some(),
            checkpoint: path,
        };
        if self.json {
            return output::json(&report);
        }
        output::line(&format!(
            "{}: {} of {} after {}, {} parameters, {}; vocabulary {}{}",
            report.folder.display(),
            info.shape,
            report.checkpoint.display(),
            output::counted(report.step, "step"),
            output::count(report.n_params_total),
            output::counted(bytes_written, "byte"),
            report.vocabulary,
            if report.has_tokenizer { ", with its tokenizer.json" } else { "" },
        ))
    }
}
