use std::path::{Path, PathBuf};

/// Text or tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The file system refuses.
    #[error("{path}: {cause}")]
    Io {
        /// File.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    File {
        /// File.
        path: PathBuf,
        /// What is wrong, with what would be right.
        reason: String,
    },
    /// Another process writes the file.
    #[error("{path}: another process is writing it")]
    Busy {
        /// File.
        path: PathBuf,
    },
    /// Tokens that are fewer than a sequence.
    #[error("{path}: {reason}")]
    TooShort {
        /// File.
        path: PathBuf,
        /// What there is, and what is needed.
        reason: String,
    },
    /// A choice that cannot be met.
    #[error("{0}")]
    Choice(String),
    /// The caller broke off.
    #[error("stopped while text was being turned into tokens; nothing is left of it")]
    Stopped,
    /// The tokenizer library failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

impl CorpusError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }

    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.into() }
    }
}
