use super::shapes::Operators;
use crate::ScalingError;
use measure::{GptShape, MOST_STEPS, ShapeError};

/// A plan that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The law has no answer.
    #[error(transparent)]
    Law(#[from] ScalingError),
    /// A goal that no shape of the family meets.
    #[error(
        "{goal}: too small: the best shape for it, {shape} with N = {n_params:.3e}, is predicted to \
             end at {loss:.3} nats per token, above the {untrained:.3} of a model that knows nothing"
    )]
    BudgetTooSmall {
        /// The budget, with its unit.
        goal: String,
        /// The shape that ends lowest.
        shape: GptShape,
        /// Its N.
        n_params: f64,
        /// Its loss.
        loss: f64,
        /// ln of the vocabulary.
        untrained: f64,
    },
    /// A budget for which the law has no loss at all.
    #[error(
        "a budget of {budget:e} is too small for the smallest shape, {shape}: the law has no loss for so little"
    )]
    BudgetWithoutLoss {
        /// The budget, FLOPs or seconds.
        budget: f64,
        /// The smallest shape.
        shape: GptShape,
    },
    /// A goal at which a model has learnt nothing.
    #[error(
        "{shape} would end at {loss:.3} nats per token, above the {untrained:.3} of a model that knows nothing: there is nothing to plan"
    )]
    KnowsNothing {
        /// The last shape.
        shape: GptShape,
        /// Its loss at the end.
        loss: f64,
        /// ln of the vocabulary.
        untrained: f64,
    },
    /// A latest growth where the end is not known beforehand.
    #[error(
        "a latest growth (--grow-by) needs a known end: a shape with its stop, or a loss to reach"
    )]
    GrowByWithoutEnd,
    /// A share of the tokens from scratch that leaves a stage nothing.
    #[error("a latest growth after {0} of the tokens from scratch: must be above 0 and below 1")]
    GrowBy(f64),
    /// A run that nobody can make.
    #[error("a run of {steps:.1e} steps: at most {MOST_STEPS:e} can be planned")]
    TooLong {
        /// Its steps.
        steps: f64,
    },
    /// No shape of the family reaches the loss.
    #[error(
        "a loss of {loss}: the largest shape of this aspect and size of heads, {shape}, stays above {asymptote:.4}"
    )]
    LossTooLow {
        /// The loss asked for.
        loss: f64,
        /// The largest shape.
        shape: GptShape,
        /// Its asymptote.
        asymptote: f64,
    },
    /// A family whose largest shape is the best of it.
    #[error(
        "{shape}, the largest shape of this aspect and head size, is the best single size, so a larger one may be better still: choose \
         another aspect or larger heads, or name the shape"
    )]
    FamilyEnds {
        /// The largest shape.
        shape: GptShape,
    },
    /// More stages than the operators allow.
    #[error(
        "{wanted} stages to {shape}: no chain of {operators} growths has that many useful stages{}",
        .reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"))
    )]
    NoChain {
        /// Stages asked for, at least.
        wanted: usize,
        /// The last shape.
        shape: GptShape,
        /// The growths allowed.
        operators: Operators,
        /// Why, where a smaller shape alone is the cheaper one to the end.
        reason: Option<String>,
    },
    /// Given shapes that make no chain.
    #[error(
        "{chain}: each must grow into the next, at a lower loss than the one before it and above the final one; {reason}"
    )]
    NoSuchChain {
        /// The shapes.
        chain: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A goal that needs a shape.
    #[error(
        "a stop says when a given shape has trained enough: name the shape, or give a budget or a loss"
    )]
    StopWithoutShape,
    /// A family without a shape that can be built.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// No stages at all.
    #[error("stages {0}..{1}: from 1, and not more at first than at last")]
    Stages(usize, usize),
}
