//! From a budget, a loss or a shape to a staged run.

mod baseline;
mod goal;
mod measured;
mod pilots;
mod request;
mod search;
mod shapes;

pub use baseline::Baseline;
pub use goal::{Goal, Stop};
pub use measured::{MeasuredGrowth, measured_growths};
pub use pilots::{Pilot, grown_from, pilots};
pub use request::{
    Advice, CurveSample, FinalShape, LEAST_SAVING, Plan, PlanError, Request, Stage, Unstaged,
};
pub use shapes::{Family, Operators, WidthRule};

#[cfg(test)]
mod tests;
