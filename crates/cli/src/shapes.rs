//! Shapes on the command line.

use anyhow::{Context, Result, bail};
use measure::GptShape;

/// GPT-2's sizes (Radford et al. 2019, table 2, and the published checkpoints).
const NAMED: [(&str, usize, usize, usize); 4] = [
    ("gpt2", 12, 768, 12),
    ("gpt2-medium", 24, 1024, 16),
    ("gpt2-large", 36, 1280, 20),
    ("gpt2-xl", 48, 1600, 25),
];

/// LAYERSxWIDTHxHEADS or a name.
pub fn shape(text: &str, n_vocab: usize, context_len: usize) -> Result<GptShape> {
    let of = |n_layers, d_model: usize, n_heads| GptShape {
        n_layers,
        d_model,
        n_heads,
        d_ff: d_model.saturating_mul(4),
        n_vocab,
        context_len,
        tied_head: true,
    };
    if let Some((_, n_layers, d_model, n_heads)) = NAMED.iter().find(|named| named.0 == text) {
        return Ok(of(*n_layers, *d_model, *n_heads));
    }
    let wanted = || {
        let names: Vec<&str> = NAMED.iter().map(|named| named.0).collect();
        format!("--shape {text}: must be LAYERSxWIDTHxHEADS, as 4x128x4, or {}", names.join(", "))
    };
    let numbers = text.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
    let [n_layers, d_model, n_heads] = numbers.ok().with_context(wanted)?[..] else {
        bail!(wanted());
    };
    let shape = of(n_layers, d_model, n_heads);
    shape.check().with_context(|| format!("--shape {text}"))?;
    Ok(shape)
}
