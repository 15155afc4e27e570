use crate::{Gpt, ModelError};

/// How text is drawn from a model.
#[derive(Clone, Copy, Debug)]
pub struct SampleSettings {
    /// Tokens to draw.
    pub n_tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f64,
    /// How many of the likeliest tokens are drawn from; 0 for all.
    pub top_k: usize,
}

impl Gpt {
    /// Draws tokens after a prompt, each given the last `context_len` tokens. `uniform` gives
    /// numbers in [0, 1), one a token.
    ///
    /// # Errors
    /// An empty prompt, or one with tokens outside the vocabulary.
    pub fn sample(
        &self,
        prompt: &[u32],
        settings: SampleSettings,
        mut uniform: impl FnMut() -> f64,
    ) -> Result<Vec<u32>, ModelError> {
        let mut tokens = prompt.to_vec();
        for _ in 0..settings.n_tokens {
            let start = tokens.len().saturating_sub(self.shape().context_len);
            let logits =
                self.logits_from(&tokens[start..], (tokens.len() - start).saturating_sub(1))?;
            let token = pick(&logits, settings, uniform());
            tokens.push(token);
        }
        Ok(tokens.split_off(prompt.len()))
    }
}

fn pick(logits: &[f32], settings: SampleSettings, uniform: f64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    if settings.temperature == 0.0 {
        return order[0] as u32;
    }
    if settings.top_k > 0 {
        order.truncate(settings.top_k);
    }
    let largest = f64::from(logits[order[0]]);
    let weight = |i: &usize| ((f64::from(logits[*i]) - largest) / settings.temperature).exp();
    let mut left = uniform * order.iter().map(weight).sum::<f64>();
    let chosen = order.iter().find(|i| {
        left -= weight(i);
        left < 0.0
    });
    *chosen.unwrap_or(&order[0]) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(temperature: f64, top_k: usize) -> SampleSettings {
        SampleSettings { n_tokens: 1, temperature, top_k }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest() {
        assert_eq!(pick(&[0.0, 3.0, 1.0], settings(0.0, 0), 0.99), 1);
    }

    #[test]
    fn tokens_are_drawn_in_proportion_to_their_probability() {
        let logits = [0f32, 2f32.ln(), 5f32.ln()];
        let n = 8000;
        let mut counts = [0i32; 3];
        for i in 0..n {
            counts[pick(&logits, settings(1.0, 0), f64::from(i) / f64::from(n)) as usize] += 1;
        }
        let apart = counts.iter().zip([1000, 2000, 5000]).map(|(found, due)| (found - due).abs());
        assert!(apart.max() <= Some(1), "{counts:?}");
        assert!((0..n).all(|i| pick(&logits, settings(1.0, 2), f64::from(i) / f64::from(n)) > 0));
    }
}
