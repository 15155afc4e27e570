use std::fmt;
use std::str::FromStr;

/// B_crit(L) = scale / L^(1 / exponent): the batch at which training takes twice the least steps and
/// twice the least compute (Kaplan et al. 2020, eq. 5.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CriticalBatch {
    /// B*, tokens.
    pub scale: f64,
    /// a_B.
    pub exponent: f64,
}

impl CriticalBatch {
    /// Critical batch at a loss, in tokens.
    pub fn tokens_at(&self, loss: f64) -> f64 {
        (self.scale.ln() - loss.ln() / self.exponent).exp()
    }

    /// d B_crit / d L, in tokens per nat.
    pub fn derivative_at(&self, loss: f64) -> f64 {
        -self.tokens_at(loss) / (self.exponent * loss)
    }
}

/// Which batch a run is trained with, as the cost of its steps depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BatchPolicy {
    /// The same number of tokens in every step: C = 6 N S_min (B + B_crit(L)).
    Fixed {
        /// B, tokens.
        batch_tokens: f64,
    },
    /// The critical batch of the final loss in every step, with S = 2 S_min: C = 6 N B_crit(L) S.
    /// The simplification of the staged-training authors' notebook.
    CriticalAtEnd,
    /// The critical batch of the loss at each step, with S = 2 S_min: the integral of
    /// 6 N B_crit(L(S)) over the steps.
    Critical,
}

impl fmt::Display for BatchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { batch_tokens } => write!(f, "{batch_tokens}"),
            Self::CriticalAtEnd => f.write_str("critical-at-end"),
            Self::Critical => f.write_str("critical"),
        }
    }
}

impl FromStr for BatchPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "critical" => Ok(Self::Critical),
            "critical-at-end" => Ok(Self::CriticalAtEnd),
            number => match number.parse::<f64>() {
                Ok(batch_tokens) if batch_tokens >= 1.0 && batch_tokens.is_finite() => {
                    Ok(Self::Fixed { batch_tokens })
                }
                _ => Err("must be a number of tokens, critical or critical-at-end".into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::published::KAPLAN_CRITICAL_BATCH as CRITICAL;

    #[test]
    fn the_derivative_is_that_of_the_batch() {
        let slope = (CRITICAL.tokens_at(2.5 + 1e-6) - CRITICAL.tokens_at(2.5 - 1e-6)) / 2e-6;
        assert!((CRITICAL.derivative_at(2.5) / slope - 1.0).abs() < 1e-8);
    }
}
