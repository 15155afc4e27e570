use crate::checkpoint::OpenedCheckpoint;
use crate::output;
use crate::progress::Counter;
use anyhow::{Result, bail};
use clap::Args;
use model::SampleSettings;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `staged sample`.
#[derive(Args)]
#[command(
    after_help = "Example: staged sample runs/dickens-scratch --prompt \"It was the best of\""
)]
pub struct Sample {
    /// A checkpoint, or a run for its newest one
    checkpoint: PathBuf,
    /// Text to go on from
    #[arg(long, allow_hyphen_values = true)]
    prompt: String,
    /// Tokens to draw
    #[arg(long, default_value_t = 300)]
    tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Draw from this many of the likeliest tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
}

impl Sample {
    pub fn run(self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            bail!("--temperature {}: must be 0 or more, and finite", self.temperature);
        }
        let opened = OpenedCheckpoint::open(&self.checkpoint, &self.device)?;
        let tokenizer = opened.tokenizer()?;
        let prompt = tokenizer.encode(self.prompt.as_bytes())?;
        if prompt.is_empty() {
            bail!("--prompt {:?}: must hold at least one token", self.prompt);
        }
        let settings = SampleSettings {
            n_tokens: self.tokens,
            temperature: self.temperature,
            top_k: self.top_k,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut counter = Counter::new("drawing", "tokens");
        let mut drawn = 0;
        let uniform = || {
            counter.reach(drawn, self.tokens as u64);
            drawn += 1;
            rng.random()
        };
        let tokens = opened.gpt.sample(&prompt, settings, uniform)?;
        counter.end();
        let text = tokenizer.decode(&[prompt, tokens.clone()].concat())?;
        if self.json {
            return output::json(&Report { prompt: &self.prompt, text: &text, tokens: &tokens });
        }
        output::line(&text)
    }
}
