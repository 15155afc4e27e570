//! Shapes on the command line and at the end of a schedule.

use anyhow::{Context, Result, anyhow};
use measure::{GptShape, ShapeError};
use schedule::Schedule;

/// GPT-2's sizes (Radford et al. 2019, table 2, and the published checkpoints).
const NAMED: [(&str, usize, usize, usize); 4] = [
    ("gpt2", 12, 768, 12),
    ("gpt2-medium", 24, 1024, 16),
    ("gpt2-large", 36, 1280, 20),
    ("gpt2-xl", 48, 1600, 25),
];

/// The shape that a schedule ends with, for a vocabulary.
pub fn last(schedule: &Schedule, n_vocab: usize) -> Result<GptShape> {
    Ok(schedule.stages().last().context("no stages")?.shape(n_vocab))
}

/// A shape as it is displayed, or a name; `option` is where it was given.
pub fn shape(option: &str, text: &str, n_vocab: usize, context_len: usize) -> Result<GptShape> {
    let named = NAMED.iter().find(|named| named.0 == text);
    let shape = match named {
        Some((_, n_layers, d_model, n_heads)) => GptShape::gpt2(*n_layers, *d_model, *n_heads),
        None => text.parse().map_err(|error: ShapeError| {
            let names: Vec<&str> = NAMED.iter().map(|named| named.0).collect();
            anyhow!("{option} {text}: {error}, or {}", names.join(", "))
        })?,
    };
    let shape = GptShape { n_vocab, context_len, ..shape };
    shape.check().with_context(|| format!("{option} {text}"))?;
    Ok(shape)
}
