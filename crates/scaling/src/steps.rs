use crate::{PowerLaw, ScalingError};

/// L(N, S_min) = E + (N_c / N)^a_N + (S_c / S_min)^a_S; Kaplan et al. 2020, eq. 1.6, without E.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLaw {
    /// E, nats per token; 0 in Kaplan's form.
    pub floor: f64,
    /// Loss after endless training, by size.
    pub params: PowerLaw,
    /// What is still above it, by steps at a large batch.
    pub steps: PowerLaw,
}

impl StepLaw {
    /// Loss after endless training.
    pub fn asymptote(&self, n_params: f64) -> f64 {
        self.floor + self.params.loss_at(n_params)
    }

    /// Loss after `steps_min` steps at a large batch.
    pub fn loss_at(&self, n_params: f64, steps_min: f64) -> f64 {
        self.asymptote(n_params) + self.steps.loss_at(steps_min)
    }

    /// Steps at a large batch until a loss.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn steps_min_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let excess = excess(loss, n_params, self.asymptote(n_params))?;
        Ok(self.steps.amount_at(excess))
    }

    /// d S_min / d L, in steps per nat; negative.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn steps_min_derivative(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let excess = excess(loss, n_params, self.asymptote(n_params))?;
        Ok(-self.steps.amount_at(excess) / (self.steps.exponent * excess))
    }
}

/// How far a loss is above the asymptote.
pub(crate) fn excess(loss: f64, n_params: f64, asymptote: f64) -> Result<f64, ScalingError> {
    let excess = loss - asymptote;
    if excess > 0.0 && excess.is_finite() {
        Ok(excess)
    } else {
        Err(ScalingError::BelowAsymptote { loss, n_params, asymptote })
    }
}
