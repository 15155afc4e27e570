use std::path::PathBuf;

/// A figure that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// A file name that is neither SVG nor PNG.
    #[error("{0}: figures are written as .svg or .png")]
    Format(PathBuf),
    /// A panel without a number that its axes can show.
    #[error("{0}: nothing to draw: no point is finite, and positive where its axis is logarithmic")]
    Empty(String),
    /// The drawing failed, or the file cannot be written.
    #[error("{path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
