//! What is asked of a plan.

use super::goal::Goal;
use super::shapes::{Family, Operators};
use crate::TrainingCost;
use measure::GptShape;
use std::ops::RangeInclusive;

/// Which shape a plan ends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FinalShape {
    /// A given one.
    Given(GptShape),
    /// The best of a family.
    Best(Family),
}

/// What is asked of a plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// What training costs.
    pub cost: TrainingCost,
    /// The same under resampled laws, for the interval.
    pub resampled: Vec<TrainingCost>,
    /// What to reach.
    pub goal: Goal,
    /// With which shape.
    pub last: FinalShape,
    /// How many stages there may be.
    pub stages: RangeInclusive<usize>,
    /// The growths that may be used.
    pub operators: Operators,
    /// The shapes before the last one, where they are given; empty where the best are looked for.
    pub through: Vec<GptShape>,
    /// The last growth comes by this share of the tokens that the last shape takes from scratch to the end: what comes in needs
    /// time to learn (docs/SAVINGS.md). Not for a budget, whose end depends on the growths.
    pub grow_by: Option<f64>,
}
