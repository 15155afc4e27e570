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
    /// A checkpoint of another format than this version reads.
    #[error("{path}: format {format}: this version reads {due}")]
    Format {
        /// Its record.
        path: PathBuf,
        /// That of the checkpoint.
        format: u32,
        /// That of this version.
        due: u32,
    },
    /// Whoever asked for it broke it off.
    #[error("stopped")]
    Stopped,
}

impl StateError {
    /// Whether a file is missing or damaged, so that an earlier checkpoint may take its place; not where it cannot be read now, or by
    /// this version.
    pub(crate) fn is_damage(&self) -> bool {
        use std::io::ErrorKind as K;
        match self {
            Self::Io { cause, .. } => matches!(
                cause.kind(),
                K::NotFound
                    | K::UnexpectedEof
                    | K::InvalidData
                    | K::NotADirectory
                    | K::IsADirectory
            ),
            Self::Broken { .. } => true,
            Self::Format { .. } | Self::Stopped => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }

    pub(crate) fn broken(path: &Path, reason: impl Into<String>) -> Self {
        Self::Broken { path: path.to_path_buf(), reason: reason.into() }
    }
}
