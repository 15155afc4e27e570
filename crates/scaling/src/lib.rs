//! Scaling laws of language models, what training to a loss costs under them, and the losses at
//! which a smaller model is best grown into a larger one.
//!
//! Everything is f64 and pure: no tensor, no file, no clock. Losses are in nats per token, compute
//! in FLOPs, data in tokens.

mod batch;
mod cost;
mod error;
mod fit;
mod growth;
pub mod plan;
mod power_law;
pub mod published;
mod quadrature;
mod root;
mod steps;
mod throughput;
mod tokens;

pub use batch::{BatchPolicy, CriticalBatch};
pub use cost::{GrownAt, Pace, StageStart, TrainingCost};
pub use error::ScalingError;
pub use fit::{
    CrossCheck, ENOUGH_RUNS, Estimate, Fit, FitError, FitOptions, FittedLaw, FittedRecipe,
    HUBER_DELTA, IsoFlop, LawForm, LeftOut, NoOptimum, Observation, Optimum, Quantity, Range,
    Residuals, is_one_value,
};
pub use growth::{Chain, GrownRun, GrowthPoint};
pub use power_law::PowerLaw;
pub use steps::StepLaw;
pub use throughput::Throughput;
pub use tokens::{KaplanLaw, SumLaw, TokenLaw};
