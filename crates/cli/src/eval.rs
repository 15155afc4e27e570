use crate::checkpoint::{OpenedCheckpoint, RunOfCheckpoint, check_data};
use crate::output;
use crate::progress::Counter;
use anyhow::{Context, Result, bail};
use clap::Args;
use corpus::{Cleaning, TokenFile, encode_text};
use schedule::{DataSource, Schedule};
use serde::Serialize;
use std::f64::consts::LN_2;
use std::path::PathBuf;
use trainer::{EvaluationSet, mean_loss, open_corpus, text_cleaning};

/// Most tokens that are measured, since they are held in memory.
const MOST_TOKENS: u64 = schedule::MOST_EVALUATION_TOKENS;

/// Arguments of `staged eval`.
#[derive(Args)]
#[command(after_help = "Example: staged eval runs/dickens-scratch --text oliver_twist.txt")]
pub struct Eval {
    /// A checkpoint, or a run for its newest one
    checkpoint: PathBuf,
    /// Text to measure, instead of the run's held-out tokens
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    text: Option<PathBuf>,
    /// Token file to measure, instead of the run's held-out tokens
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Tokens to measure at most, one sequence at least [default: the run's own for its held-out tokens, else 134217728]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_TOKENS))]
    n_tokens: Option<u64>,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    checkpoint: PathBuf,
    step: u64,
    /// Nats per token.
    loss: f64,
    perplexity: f64,
    bits_per_byte: Option<f64>,
    n_tokens: u64,
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let opened = OpenedCheckpoint::open(&self.checkpoint, &self.device)?;
        let schedule = opened.run().map(|run| &run.schedule);
        crate::train::use_threads(schedule.and_then(|schedule| schedule.machine().threads))?;
        let set = self.evaluation_set(&opened)?;
        let micro_batch = schedule.map_or(1, Schedule::micro_batch);
        let tokenizer = opened.tokenizer().ok();
        let n_bytes = tokenizer.and_then(|tokenizer| tokenizer.n_bytes(set.targets()));
        let mut counter = Counter::new("measuring", "tokens");
        let reach = |measured| counter.reach(measured, set.n_tokens());
        let loss = mean_loss(&opened.gpt, &set, micro_batch, reach)?;
        counter.end();
        let report = Report {
            step: opened.info.position.step,
            checkpoint: opened.path,
            loss,
            perplexity: loss.exp(),
            bits_per_byte: n_bytes.map(|bytes| loss / LN_2 * set.n_tokens() as f64 / bytes as f64),
            n_tokens: set.n_tokens(),
        };
        if self.json {
            return output::json(&report);
        }
        let bits =
            report.bits_per_byte.map_or(String::new(), |bits| format!(", {bits:.4} bits per byte"));
        output::line(&format!(
            "step {}: loss {:.4} nats per token, perplexity {:.3}{bits}, over {} tokens",
            report.step,
            report.loss,
            report.perplexity,
            output::count(report.n_tokens),
        ))
    }

    /// What to measure.
    fn evaluation_set(&self, opened: &OpenedCheckpoint) -> Result<EvaluationSet> {
        let context_len = opened.info.shape.context_len;
        let limit = self.n_tokens.unwrap_or(MOST_TOKENS).max(context_len as u64);
        if let Some(path) = &self.text {
            let cleaning = match opened.run().map(|run| run.schedule.data()) {
                Some(DataSource::Text(text)) => text_cleaning(text),
                Some(DataSource::Synthetic(_) | DataSource::Tokens(_)) | None => {
                    Cleaning::default()
                }
            };
            let tokens =
                encode_text(path, &opened.tokenizer()?, cleaning, limit.saturating_add(1))?;
            let set = EvaluationSet::of_tokens(&tokens, limit, context_len)
                .with_context(|| path.display().to_string())?;
            return Ok(set);
        }
        if let Some(path) = &self.tokens {
            let file = TokenFile::open(path)?;
            if file.is_described() {
                opened.check_vocabulary(&path.display().to_string(), &file.info().vocabulary)?;
            }
            let (found, known) = (file.info().n_vocab, opened.info.shape.n_vocab);
            if found > known {
                bail!("{}: has token {} in a vocabulary of {known}", path.display(), found - 1);
            }
            let n = file.len().min(limit as usize + 1);
            let set = EvaluationSet::of_tokens(&file.tokens(0..n), limit, context_len)
                .with_context(|| path.display().to_string())?;
            return Ok(set);
        }
        let Some(RunOfCheckpoint { schedule, root }) = opened.run() else {
            bail!(
                "{}: lies in no run, whose held-out tokens would be measured; say --text or --tokens",
                opened.path.display()
            );
        };
        let corpus = open_corpus(schedule, root)?;
        opened.check_vocabulary("the run's data", &corpus.vocabulary())?;
        check_data(&opened.info, &corpus, root)?;
        let n_tokens = self.n_tokens.unwrap_or(schedule.evaluation().tokens);
        let set = EvaluationSet::new(&corpus, n_tokens, context_len);
        Ok(set)
    }
}
