use crate::{output, train};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use corpus::{Cleaning, TokenFile, TokenFileInfo, Tokenizer};
use serde::Serialize;
use std::path::PathBuf;
use trainer::{Event, text_to_tokens};

/// Arguments of `staged data`.
#[derive(Args)]
#[command(
    after_help = "Example: staged data prepare book.txt -o book.bin && staged data inspect book.bin"
)]
pub struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Turn text files into one token file (llm.c's .bin, with a JSON beside it)
    Prepare(Prepare),
    /// Check a token file and print what it holds
    Inspect(Inspect),
}

#[derive(Args)]
#[command(
    after_help = "Example: staged data prepare a.txt b.txt --tokenizer bpe:4096 -o tokens.bin"
)]
struct Prepare {
    /// Text files, in order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The token file to write
    #[arg(short, long, alias = "output", value_name = "FILE")]
    out: PathBuf,
    /// bytes, bpe:SIZE (trained on the text), gpt2:FOLDER (encoder.json and vocab.bpe), or the path
    /// of a tokenizer.json
    #[arg(long, default_value = "bytes")]
    tokenizer: String,
    /// Drop carriage returns
    #[arg(long)]
    strip_cr: bool,
    /// Replace what is not UTF-8 by U+FFFD, instead of ending with an error
    #[arg(long)]
    lossy: bool,
    /// Write over an older token file
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example: staged data inspect tokens.bin")]
struct Inspect {
    /// A token file: llm.c's .bin, or nanoGPT's headerless uint16
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct PrepareReport {
    path: PathBuf,
    #[serde(flatten)]
    info: TokenFileInfo,
    seconds: f64,
    /// Of text, 10^6 bytes a second; training of a BPE not counted.
    megabytes_per_second: f64,
    tokenizer_seconds: f64,
}

#[derive(Serialize)]
struct InspectReport {
    path: PathBuf,
    #[serde(flatten)]
    info: TokenFileInfo,
    first_tokens: Vec<u32>,
    first_text: Option<String>,
}

impl Data {
    pub fn run(self) -> Result<()> {
        match self.command {
            DataCommand::Prepare(prepare) => prepare.run(),
            DataCommand::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Prepare {
    fn run(self) -> Result<()> {
        if self.out.extension().is_none_or(|extension| extension != "bin") {
            bail!("--out {}: must end in .bin", self.out.display());
        }
        let written = [
            self.out.clone(),
            TokenFileInfo::path_for(&self.out),
            TokenFileInfo::tokenizer_path_for(&self.out),
        ];
        if let Some(taken) = written.iter().find(|path| path.exists() && !self.force) {
            bail!("{}: exists; add --force to write over it", taken.display());
        }
        for file in &self.files {
            if let Some(target) = written.iter().find(|path| output::is_same_file(path, file)) {
                bail!("--out: {} is a text to prepare; choose another name", target.display());
            }
        }
        let stop = train::stop_on_signals()?;
        let cleaning = Cleaning { strip_cr: self.strip_cr, lossy: self.lossy };
        let mut progress = crate::progress::Progress::new();
        let mut show = |event: &Event| progress.show(event);
        let made =
            text_to_tokens(&self.files, &self.tokenizer, cleaning, &self.out, &mut show, stop)?;
        let report = PrepareReport {
            path: made.prepared.path,
            info: made.prepared.info,
            seconds: made.seconds,
            megabytes_per_second: made.source_bytes as f64 / 1e6 / made.seconds,
            tokenizer_seconds: made.tokenizer_seconds,
        };
        if self.json {
            return output::json(&report);
        }
        output::line(&format!(
            "{}: {} tokens of {} bytes, vocabulary of {} ({}), {:.2} s, {:.0} MB/s",
            report.path.display(),
            output::count(report.info.n_tokens),
            output::count(report.info.n_text_bytes),
            report.info.n_vocab,
            report.info.tokenizer,
            report.seconds,
            report.megabytes_per_second,
        ))
    }
}

impl Inspect {
    fn run(self) -> Result<()> {
        const SHOWN: usize = 32;
        let file = TokenFile::open(&self.file)?;
        let first_tokens = file.tokens(0..file.len().min(SHOWN));
        let tokenizer = Tokenizer::of_token_file(&self.file, file.info())?;
        let first_text = tokenizer.map(|tokenizer| tokenizer.decode(&first_tokens)).transpose()?;
        let report =
            InspectReport { path: self.file, info: file.info().clone(), first_tokens, first_text };
        if self.json {
            return output::json(&report);
        }
        let info = &report.info;
        let checked = if file.is_described() {
            "whole: it matches the checksum beside it"
        } else {
            "well-formed; no JSON beside it to compare with"
        };
        output::line(&format!("{}: {checked}", report.path.display()))?;
        output::line(&format!("tokens      {}", output::count(info.n_tokens)))?;
        if file.is_described() {
            output::line(&format!("text        {} bytes", output::count(info.n_text_bytes)))?;
        }
        output::line(&format!("vocabulary  {} ({})", info.n_vocab, info.vocabulary))?;
        output::line(&format!("tokenizer   {}", info.tokenizer))?;
        output::line(&format!("checksum    {}", info.xxh3))?;
        output::line(&format!("begins      {:?}", report.first_tokens))?;
        report.first_text.map_or(Ok(()), |text| output::line(&format!("            {text:?}")))
    }
}
