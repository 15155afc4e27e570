/// A question that a law has no answer to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScalingError {
    /// A loss at or below what a model of this size can ever reach.
    #[error("loss {loss}: a model of {n_params:e} parameters stays above {asymptote}")]
    BelowAsymptote {
        /// Loss asked for, nats per token.
        loss: f64,
        /// Size of the model.
        n_params: f64,
        /// Its loss after endless training.
        asymptote: f64,
    },
    /// A chain that does not grow.
    #[error("sizes {0:?}: each must be larger than the one before it")]
    NotGrowing(Vec<f64>),
    /// A number that must be positive and finite.
    #[error("{name} = {value}: must be positive and finite")]
    NotPositive {
        /// What it is.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// An equation without a solution in its range.
    #[error("no solution for {0}")]
    NoSolution(&'static str),
}
