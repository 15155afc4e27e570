//! Files that one process holds at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Opens a file, which is made where it is not there, and tries to lock it; who held it before may have removed it, or given it another name, since it was
/// opened, and then it is opened again. What is in it stays.
///
/// # Errors
/// The file cannot be opened. That it cannot be locked is told beside it.
pub fn open_locked(path: &Path) -> io::Result<(File, Result<(), TryLockError>)> {
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let locked = file.try_lock();
        if matches!(locked, Err(TryLockError::WouldBlock)) || is_at(&file, path)? {
            return Ok((file, locked));
        }
    }
}

/// Whether an open file is the one of a name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    let is_own = |there: std::fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
    Ok(std::fs::metadata(path).is_ok_and(is_own))
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}
