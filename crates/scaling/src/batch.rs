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

    /// S_min = S / (1 + B_crit / B): steps that an endless batch would need (eq. 5.4).
    pub fn steps_min(&self, n_steps: f64, batch_tokens: f64, loss: f64) -> f64 {
        n_steps / (1.0 + self.tokens_at(loss) / batch_tokens)
    }

    /// C_min = C / (1 + B / B_crit): compute that a tiny batch would need (eq. 5.5).
    pub fn compute_min(&self, compute: f64, batch_tokens: f64, loss: f64) -> f64 {
        compute / (1.0 + batch_tokens / self.tokens_at(loss))
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

    /// A large batch saves steps and costs compute, a small one the other way round.
    #[test]
    fn large_batches_come_near_the_least_steps_and_small_ones_near_the_least_compute() {
        let b = CRITICAL.tokens_at(2.5);
        for (times, of_steps, of_compute) in [(3.0, 0.75, 0.25), (1.0 / 3.0, 0.25, 0.75)] {
            assert!((CRITICAL.steps_min(1.0, times * b, 2.5) - of_steps).abs() < 1e-12);
            assert!((CRITICAL.compute_min(1.0, times * b, 2.5) - of_compute).abs() < 1e-12);
        }
    }

    #[test]
    fn at_the_critical_batch_steps_and_compute_are_twice_their_least() {
        let b = CRITICAL.tokens_at(2.5);
        assert!((CRITICAL.steps_min(1000.0, b, 2.5) - 500.0).abs() < 1e-9);
        assert!((CRITICAL.compute_min(1e20, b, 2.5) / 5e19 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_derivative_is_that_of_the_batch() {
        let slope = (CRITICAL.tokens_at(2.5 + 1e-6) - CRITICAL.tokens_at(2.5 - 1e-6)) / 2e-6;
        assert!((CRITICAL.derivative_at(2.5) / slope - 1.0).abs() < 1e-8);
    }
}
