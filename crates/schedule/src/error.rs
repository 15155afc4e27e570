use std::path::PathBuf;

/// A schedule that cannot be read or cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// File.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// The file is not TOML, or has a key or a type that no schedule has.
    #[error("{path}: {message}")]
    Syntax {
        /// File.
        path: PathBuf,
        /// The parser's message, with line, key and what was expected.
        message: String,
    },
    /// A value is out of its range.
    #[error("{path}: {key} = {value}: {expected}")]
    Value {
        /// File.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// The value found.
        value: String,
        /// What would be right.
        expected: String,
    },
}
