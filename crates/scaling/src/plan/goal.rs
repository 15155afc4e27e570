use crate::{ScalingError, StageStart, TrainingCost};

/// Where a run of one size stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stop {
    /// At this multiple of the loss after endless training.
    AsymptoteMultiple(f64),
    /// Where no other size reaches the same loss for less: the size is compute-optimal.
    ComputeOptimal,
    /// At a loss in nats per token.
    Loss(f64),
    /// After so many tokens for each parameter, from scratch.
    TokensPerParam(f64),
}

/// What a plan is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The lowest loss for an amount of compute (seconds where costs are in seconds).
    Budget(f64),
    /// A loss, for the least compute.
    Loss(f64),
    /// The end of a run of a given shape.
    Stop(Stop),
}

impl Goal {
    /// The final loss of a size under the goal, where growing spares so much.
    ///
    /// # Errors
    /// A loss that the size cannot reach, or a budget that is not positive.
    pub fn final_loss(
        &self,
        cost: &TrainingCost,
        n_params: f64,
        spared: f64,
    ) -> Result<f64, ScalingError> {
        match self {
            Self::Budget(budget) => cost.loss_at_compute(n_params, budget + spared),
            Self::Loss(loss) | Self::Stop(Stop::Loss(loss)) => {
                cost.compute_at(n_params, *loss).map(|_| *loss)
            }
            Self::Stop(Stop::AsymptoteMultiple(multiple)) => {
                let loss = multiple * cost.asymptote(n_params);
                cost.compute_at(n_params, loss).map(|_| loss)
            }
            Self::Stop(Stop::TokensPerParam(ratio)) => {
                cost.loss_at_compute(n_params, ratio * n_params * cost.per_token(n_params))
            }
            Self::Stop(Stop::ComputeOptimal) => cost.optimal_loss(n_params),
        }
    }

    /// What a staged run to a size spares under the goal against the size from scratch, by what its growths spare, and its
    /// final loss.
    pub(crate) fn staged_end(
        &self,
        cost: &TrainingCost,
        n_params: f64,
        by_growths: f64,
    ) -> Result<(f64, f64), ScalingError> {
        if let Self::Budget(budget) = self {
            let from_scratch = cost.pace(StageStart::Growth) * (budget + by_growths);
            let spared = from_scratch - budget;
            return Ok((spared, self.final_loss(cost, n_params, spared)?));
        }
        let loss = self.final_loss(cost, n_params, 0.0)?;
        Ok((cost.net_spared(by_growths, cost.compute_at(n_params, loss)?), loss))
    }
}

impl TrainingCost {
    /// The loss at which a size is compute-optimal: no other size reaches it for less.
    ///
    /// # Errors
    /// A law without such a loss.
    pub fn optimal_loss(&self, n_params: f64) -> Result<f64, ScalingError> {
        const STEP: f64 = 1e-4;
        let ln_cost =
            |ln_n: f64, loss: f64| self.compute_at(ln_n.exp(), loss).map_or(f64::NAN, f64::ln);
        let ln_n = n_params.ln();
        // d ln C / d ln N at a loss: negative near the asymptote, where a larger model is cheaper.
        // A size that cannot reach the loss at all costs endlessly much.
        self.root_in_excess("the compute-optimal loss", n_params, |loss| {
            let (less, more) = (ln_cost(ln_n - STEP, loss), ln_cost(ln_n + STEP, loss));
            if less.is_nan() { -1e3 } else { ((more - less) / (2.0 * STEP)).max(-1e3) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::{AUTHORS_STEPS, CHINCHILLA_CORRECTED, KAPLAN_CRITICAL_BATCH};
    use crate::{BatchPolicy, TokenLaw};

    #[test]
    fn tokens_per_parameter_give_the_law_s_loss() {
        let goal = Goal::Stop(Stop::TokensPerParam(20.0));
        let law: TokenLaw = CHINCHILLA_CORRECTED;
        let found = goal.final_loss(&TrainingCost::tokens(law), 1e8, 0.0).unwrap();
        assert!((found - law.loss_at(1e8, 2e9)).abs() < 1e-9);
    }

    #[test]
    fn the_compute_optimal_loss_is_the_published_one() {
        let law: TokenLaw = CHINCHILLA_CORRECTED;
        let found = TrainingCost::tokens(law).optimal_loss(1e9).unwrap();
        let due = law.loss_at(1e9, law.optimal_tokens(1e9).unwrap());
        assert!((found / due - 1.0).abs() < 1e-6, "{found} {due}");
        let cost =
            TrainingCost::steps(AUTHORS_STEPS, KAPLAN_CRITICAL_BATCH, BatchPolicy::CriticalAtEnd);
        let ratio = cost.optimal_loss(1e8).unwrap() / cost.asymptote(1e8);
        assert!((ratio - 1.1).abs() < 1e-5, "{ratio}");
    }
}
