/// A model that cannot be built or run here.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// The device asked for.
        device: String,
        /// Why it cannot be used, and what can.
        reason: String,
    },
    /// Tokens that the model has no embedding for, or a sequence that it has no positions for.
    #[error("{0}")]
    Input(String),
}
