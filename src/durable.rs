//! A whole file on disk: after any crash there is the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::crash;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone (0600).
    Owner,
    /// Whoever may enter the folder (0644).
    All,
}

/// Writes `content` to `path` in place of what is there: to a temporary file beside it, synced, renamed, and the
/// folder synced. The temporary name is fixed, so a killed process leaves at most one, which the next write
/// replaces. Two processes must not write the same path at once: callers hold a lock.
///
/// # Errors
/// The earlier file is then unchanged, unless only the folder could not be synced.
pub(crate) fn write(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    crash::point(crash::Before(what(path)));
    let temporary = temporary_name(path);
    let written =
        write_new(&temporary, content, readers).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // What failed once is not worth a second error.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    crash::point(crash::After(what(path)));
    Ok(())
}

fn write_new(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match readers {
            Readers::Owner => 0o600,
            Readers::All => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = readers;
    // A killed process may have left one; a new file never follows a link that somebody has put there.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // No reader takes a name that starts with a dot for one of its own, and a long name keeps room for it.
    let stem: String = name.chars().take(50).collect();
    path.with_file_name(format!(".{stem}.{:08x}.new", short_hash(name.as_bytes())))
}

/// Tells names apart that start alike (FNV-1a).
fn short_hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What is written, for the list of crash points.
fn what(path: &Path) -> &'static str {
    let folder = path.parent().and_then(Path::file_name);
    match folder.and_then(|name| name.to_str()) {
        Some("exports") => "journal",
        Some("copies") => "journal of copies",
        _ => "file beside a download",
    }
}

/// Makes a rename durable. Systems other than Unix have no such call and need none that we know of.
#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // An empty parent is the current folder.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("exp-1.json");
        for text in ["one", "two"] {
            // What a killed process left is replaced.
            std::fs::write(temporary_name(&path), "half").expect("written");
            write(&path, text.as_bytes(), Readers::Owner).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), text);
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1
        );
    }

    #[test]
    fn long_names_have_temporary_names_that_fit_and_differ() {
        let names = ["a", "b"].map(|end| format!("{}{end}", "ä".repeat(120)));
        let temporary = names.map(|name| temporary_name(Path::new(&name)));
        assert_ne!(temporary[0], temporary[1]);
        assert!(temporary[0].as_os_str().len() < 200);
    }
}
