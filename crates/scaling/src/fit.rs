//! Fitting laws to measured losses.

mod bootstrap;
mod error;
mod form;
mod isoflop;
mod levenberg;
mod observations;
mod problem;
mod report;
mod search;

pub use bootstrap::ENOUGH_RUNS;
pub(crate) use bootstrap::interval;
pub use error::FitError;
pub use form::{LawForm, Quantity};
pub use isoflop::{IsoFlop, NoOptimum, Optimum};
pub use observations::{Observation, is_one_value};
pub use problem::HUBER_DELTA;
pub use report::{CrossCheck, Estimate, Fit, FitOptions, FittedRecipe, LeftOut, Range, Residuals};

use crate::{PowerLaw, StepLaw, TokenLaw};

/// A law of any form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FittedLaw {
    /// L(N, D).
    Tokens(TokenLaw),
    /// L(N, S).
    Steps(StepLaw),
    /// A law in one quantity.
    Power(PowerLaw),
}

impl FittedLaw {
    /// Loss at the quantities of the law's form, in their order.
    ///
    /// # Panics
    /// With fewer quantities than the form has.
    pub fn loss_at(&self, quantities: &[f64]) -> f64 {
        match self {
            Self::Tokens(law) => law.loss_at(quantities[0], quantities[1]),
            Self::Steps(law) => law.loss_at(quantities[0], quantities[1]),
            Self::Power(law) => law.loss_at(quantities[0]),
        }
    }
}

#[cfg(test)]
mod tests;
