use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a whole file under another name, `PATH.partial`, forces it to the disk and renames it, so that neither a failure nor a
/// loss of power leaves half of it. What a link leads to is written, not put in the link's place.
///
/// # Errors
/// The file cannot be written; what was there before is as it was then. Or its name cannot be forced to the disk.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = &led_to(path);
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // The first error says more than one about tidying up.
        let _ = fs::remove_file(&partial);
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

/// Where a link leads to at last, whether there is a file or not; the path itself where it is none.
pub fn led_to(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // More links than any system follows lead in a circle.
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    path
}

/// Forces a folder's names to the disk, unless it may be written to and not read.
///
/// # Errors
/// There is no such folder, or the disk refuses.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        folder => folder?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // A folder of that name cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("within")).unwrap();
        write_whole(&taken, b"third").unwrap_err();
        assert!(taken.join("within").is_dir());
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        write_whole(&folder.path().join("nowhere/one"), b"").unwrap_err();
    }

    #[cfg(unix)]
    #[test]
    fn what_a_link_leads_to_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        // Whether it is there or not.
        for content in [b"begun", b"again"] {
            write_whole(&link, content).unwrap();
            assert_eq!(fs::read(&file).unwrap(), content);
            assert!(link.is_symlink());
        }
    }
}
