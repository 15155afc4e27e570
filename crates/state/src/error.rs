use std::path::{Path, PathBuf};

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("{path}: {cause}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// A file is not what the checkpoint's record says it is.
    #[error("{path}: {reason}")]
    Broken {
        /// File or folder.
        path: PathBuf,
        /// What is wrong, with what would be right.
        reason: String,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }

    pub(crate) fn broken(path: &Path, reason: impl Into<String>) -> Self {
        Self::Broken { path: path.to_path_buf(), reason: reason.into() }
    }
}
