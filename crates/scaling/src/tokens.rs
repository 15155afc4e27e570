use crate::root::root;
use crate::steps::excess;
use crate::{PowerLaw, ScalingError};

/// L(N, D): loss by size and by tokens seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenLaw {
    /// Kaplan's form.
    Kaplan(KaplanLaw),
    /// A sum of powers.
    Sum(SumLaw),
    /// The mean of both, losses weighted.
    Mixed {
        /// w, the weight of Kaplan's form, from 0 to 1; that of the sum is 1 - w.
        weight: f64,
        /// Kaplan's form.
        kaplan: KaplanLaw,
        /// The sum.
        sum: SumLaw,
    },
}

/// [(N_c / N)^(a_N / a_D) + D_c / D]^a_D (Kaplan et al. 2020, eq. 1.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KaplanLaw {
    /// N_c and a_N.
    pub params: PowerLaw,
    /// D_c and a_D.
    pub data: PowerLaw,
}

impl KaplanLaw {
    fn by_params(&self, n_params: f64) -> f64 {
        (self.params.scale / n_params).powf(self.params.exponent / self.data.exponent)
    }

    fn asymptote(&self, n_params: f64) -> f64 {
        self.params.loss_at(n_params)
    }

    fn loss_at(&self, n_params: f64, n_tokens: f64) -> f64 {
        (self.by_params(n_params) + self.data.scale / n_tokens).powf(self.data.exponent)
    }

    /// d L / d D, nats per token squared.
    fn slope_at(&self, n_params: f64, n_tokens: f64) -> f64 {
        let by_data = self.data.scale / n_tokens;
        let inner = self.by_params(n_params) + by_data;
        -self.data.exponent * inner.powf(self.data.exponent - 1.0) * by_data / n_tokens
    }
}

/// E + A / N^a + B / D^b (Hoffmann et al. 2022, eq. 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SumLaw {
    /// E, nats per token.
    pub floor: f64,
    /// A.
    pub params_factor: f64,
    /// a.
    pub params_exponent: f64,
    /// B.
    pub data_factor: f64,
    /// b.
    pub data_exponent: f64,
}

impl SumLaw {
    fn asymptote(&self, n_params: f64) -> f64 {
        self.floor + self.params_factor * n_params.powf(-self.params_exponent)
    }

    fn loss_at(&self, n_params: f64, n_tokens: f64) -> f64 {
        self.asymptote(n_params) + self.data_factor * n_tokens.powf(-self.data_exponent)
    }

    /// d L / d D, nats per token squared.
    fn slope_at(&self, n_tokens: f64) -> f64 {
        -self.data_exponent * self.data_factor * n_tokens.powf(-self.data_exponent - 1.0)
    }
}

impl TokenLaw {
    /// Loss after endless data.
    pub fn asymptote(&self, n_params: f64) -> f64 {
        match self {
            Self::Kaplan(law) => law.asymptote(n_params),
            Self::Sum(law) => law.asymptote(n_params),
            Self::Mixed { weight, kaplan, sum } => {
                mean(*weight, kaplan.asymptote(n_params), sum.asymptote(n_params))
            }
        }
    }

    /// Loss after `n_tokens` tokens.
    pub fn loss_at(&self, n_params: f64, n_tokens: f64) -> f64 {
        match self {
            Self::Kaplan(law) => law.loss_at(n_params, n_tokens),
            Self::Sum(law) => law.loss_at(n_params, n_tokens),
            Self::Mixed { weight, kaplan, sum } => {
                mean(*weight, kaplan.loss_at(n_params, n_tokens), sum.loss_at(n_params, n_tokens))
            }
        }
    }

    /// Tokens until a loss.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn tokens_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let above = excess(loss, n_params, self.asymptote(n_params))?;
        match self {
            Self::Kaplan(law) => {
                let power = 1.0 / law.data.exponent;
                Ok(law.data.scale / (loss.powf(power) - law.by_params(n_params)))
            }
            Self::Sum(law) => Ok((law.data_factor / above).powf(1.0 / law.data_exponent)),
            Self::Mixed { kaplan, sum, .. } => {
                // Where each of the two alone has this loss, the other is on either side of it. One may never have it, or always.
                let of = |law: Self| {
                    let tokens = law.tokens_at(n_params, loss).ok().filter(|tokens| *tokens >= 0.0);
                    tokens.unwrap_or(MOST_TOKENS).clamp(1.0 / MOST_TOKENS, MOST_TOKENS).ln()
                };
                let ends = [of(Self::Kaplan(*kaplan)), of(Self::Sum(*sum))];
                let [least, most] = [ends[0].min(ends[1]) - MARGIN, ends[0].max(ends[1]) + MARGIN];
                root("the tokens until this loss", least, most, |ln_tokens| {
                    self.loss_at(n_params, ln_tokens.exp()) - loss
                })
                .map(f64::exp)
            }
        }
    }

    /// d D / d L, in tokens per nat; negative.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn tokens_derivative(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let tokens = self.tokens_at(n_params, loss)?;
        Ok(match self {
            Self::Kaplan(law) => {
                let power = 1.0 / law.data.exponent;
                -tokens * tokens / law.data.scale * power * loss.powf(power - 1.0)
            }
            Self::Sum(law) => -tokens / (law.data_exponent * (loss - law.asymptote(n_params))),
            Self::Mixed { weight, kaplan, sum } => {
                1.0 / mean(*weight, kaplan.slope_at(n_params, tokens), sum.slope_at(tokens))
            }
        })
    }

    /// The tokens at which a size is compute-optimal under C = 6 N D: where d L / d ln N equals
    /// d L / d ln D, that is a A N^-a = b B D^-b (Hoffmann et al. 2022, eq. 4). `None` but for a sum: Kaplan et al. state the optimum
    /// of their form in terms of C_min.
    pub fn optimal_tokens(&self, n_params: f64) -> Option<f64> {
        let Self::Sum(law) = self else { return None };
        let by_params =
            law.params_exponent * law.params_factor * n_params.powf(-law.params_exponent);
        Some((law.data_exponent * law.data_factor / by_params).powf(1.0 / law.data_exponent))
    }
}

/// Tokens that no loss takes longer for, where a form never has it; and one over them where it always has.
const MOST_TOKENS: f64 = 1e200;

/// What keeps both ends of a search on their sides of a loss despite rounding, in ln of tokens.
const MARGIN: f64 = 1e-6;

fn mean(weight: f64, kaplan: f64, sum: f64) -> f64 {
    weight * kaplan + (1.0 - weight) * sum
}
