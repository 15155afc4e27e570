use schedule::GrowthRefusal;
use state::StateError;

/// A growth that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GrowthError {
    /// The shapes or settings do not allow it.
    #[error(transparent)]
    Refused(#[from] GrowthRefusal),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Whoever watches it broke it off.
    #[error("stopped")]
    Stopped,
    /// The state is not one that the operator grows.
    #[error("the state {0}")]
    Unfit(String),
}
