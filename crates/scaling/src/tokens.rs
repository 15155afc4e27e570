use crate::steps::excess;
use crate::{PowerLaw, ScalingError};

/// L(N, D): loss by size and by tokens seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenLaw {
    /// [(N_c / N)^(a_N / a_D) + D_c / D]^a_D (Kaplan et al. 2020, eq. 1.5).
    Kaplan {
        /// N_c and a_N.
        params: PowerLaw,
        /// D_c and a_D.
        data: PowerLaw,
    },
    /// E + A / N^a + B / D^b (Hoffmann et al. 2022, eq. 2).
    Sum {
        /// E, nats per token.
        floor: f64,
        /// A.
        params_factor: f64,
        /// a.
        params_exponent: f64,
        /// B.
        data_factor: f64,
        /// b.
        data_exponent: f64,
    },
}

impl TokenLaw {
    /// Loss after endless data.
    pub fn asymptote(&self, n_params: f64) -> f64 {
        match self {
            Self::Kaplan { params, .. } => params.loss_at(n_params),
            Self::Sum { floor, params_factor, params_exponent, .. } => {
                floor + params_factor * n_params.powf(-params_exponent)
            }
        }
    }

    /// Loss after `n_tokens` tokens.
    pub fn loss_at(&self, n_params: f64, n_tokens: f64) -> f64 {
        match self {
            Self::Kaplan { params, data } => {
                let by_params = (params.scale / n_params).powf(params.exponent / data.exponent);
                (by_params + data.scale / n_tokens).powf(data.exponent)
            }
            Self::Sum { data_factor, data_exponent, .. } => {
                self.asymptote(n_params) + data_factor * n_tokens.powf(-data_exponent)
            }
        }
    }

    /// Tokens until a loss.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn tokens_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let excess = excess(loss, n_params, self.asymptote(n_params))?;
        Ok(match self {
            Self::Kaplan { params, data } => {
                let by_params = (params.scale / n_params).powf(params.exponent / data.exponent);
                data.scale / (loss.powf(1.0 / data.exponent) - by_params)
            }
            Self::Sum { data_factor, data_exponent, .. } => {
                (data_factor / excess).powf(1.0 / data_exponent)
            }
        })
    }

    /// d D / d L, in tokens per nat; negative.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn tokens_derivative(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let tokens = self.tokens_at(n_params, loss)?;
        Ok(match self {
            Self::Kaplan { data, .. } => {
                let power = 1.0 / data.exponent;
                -tokens * tokens / data.scale * power * loss.powf(power - 1.0)
            }
            Self::Sum { data_exponent, .. } => {
                -tokens / (data_exponent * (loss - self.asymptote(n_params)))
            }
        })
    }

    /// The tokens at which a size is compute-optimal under C = 6 N D: where d L / d ln N equals
    /// d L / d ln D, that is a A N^-a = b B D^-b (Hoffmann et al. 2022, eq. 4). `None` for Kaplan's
    /// form, whose optimum they state in terms of C_min.
    pub fn optimal_tokens(&self, n_params: f64) -> Option<f64> {
        let Self::Sum { params_factor, params_exponent, data_factor, data_exponent, .. } = self
        else {
            return None;
        };
        let by_params = params_exponent * params_factor * n_params.powf(-params_exponent);
        Some((data_exponent * data_factor / by_params).powf(1.0 / data_exponent))
    }
}
