//! From a budget, a loss or a shape to a staged run.

mod as_run;
mod baseline;
mod error;
mod goal;
mod last_shape;
mod make;
mod measured;
mod pilots;
mod request;
mod search;
mod shapes;
mod staged_plan;

pub use baseline::{Baseline, LEAST_SENSE};
pub use error::PlanError;
pub use goal::{Goal, Stop};
pub use make::LEAST_SAVING;
pub use measured::{MeasuredGrowth, measured_growths};
pub use pilots::{Pilot, grown_from, pilot_shapes, pilots};
pub use request::{FinalShape, Request};
pub use shapes::{Family, Operators, WidthRule, in_proportion, least_size};
pub use staged_plan::{Advice, CheaperAlone, CurveSample, Plan, Stage, Unstaged};

#[cfg(test)]
mod tests;
