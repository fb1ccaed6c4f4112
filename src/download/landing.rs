//! What a folder of this machine is like before anything is fetched into it.

use std::io;
use std::path::{Path, PathBuf};

use super::error::DownloadError;
use super::target;
use crate::cloud::Network;

/// Above this, a download of raw disks over the public network is worth a word: 100 GB.
const LARGE_BYTES: u64 = 100_000_000_000;

/// What a look at a folder showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderLook {
    /// Bytes that are free for the person, where the file system tells.
    pub free_bytes: Option<u64>,
    /// Whether zeros take no room in its files.
    pub keeps_holes: bool,
}

/// Looks whether files can be made in `folder`, or, where it is not there yet, in the folder that it
/// would be made in. Leaves nothing behind.
///
/// # Errors
/// [`DownloadError::Disk`] when they cannot.
pub fn look_at_folder(folder: &Path) -> Result<FolderLook, DownloadError> {
    let failed = || DownloadError::disk("write into", folder);
    let place = standing_folder(folder).map_err(failed())?;
    let probe = tempfile::tempfile_in(&place).map_err(failed())?;
    /// More than any file system keeps inside its tables.
    const PROBE_BYTES: u64 = 1024 * 1024;
    probe.set_len(PROBE_BYTES).map_err(failed())?;
    Ok(FolderLook {
        free_bytes: target::free_bytes(&place),
        keeps_holes: target::allocated_bytes(&probe)
            .is_some_and(|allocated| allocated < PROBE_BYTES),
    })
}

/// The folder itself, or the nearest one above it that is there.
fn standing_folder(folder: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    for place in absolute.ancestors() {
        match std::fs::metadata(place) {
            Ok(metadata) if metadata.is_dir() => return Ok(place.to_owned()),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The largest file that is read whole: a record, a ledger or a table of prices has some KiB.
const SMALL_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a record, a ledger or a table of prices: an ordinary file, which a pipe or a device in its place is not, of no
/// absurd size.
///
/// # Errors
/// Those of reading, and [`io::ErrorKind::InvalidInput`] for anything else than such a file.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    let problem = if !metadata.is_file() {
        "it is no file"
    } else if metadata.len() > SMALL_BYTES {
        "it is larger than 16 MiB, which is more than is read of such a file"
    } else {
        return std::fs::read(path);
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// Makes `folder`, and those above it, where they are missing.
///
/// # Errors
/// [`DownloadError::Disk`] when it cannot be made.
pub fn make_folder(folder: &Path) -> Result<(), DownloadError> {
    std::fs::create_dir_all(folder).map_err(DownloadError::disk("make the folder", folder))
}

/// What is said before `bytes` of raw disks are fetched, where that is much and is paid for: the
/// internal network is free.
#[must_use]
pub fn advice(bytes: u64, network: Network) -> Option<String> {
    (bytes > LARGE_BYTES && network == Network::Public).then(|| {
        format!(
            "{} GB of raw disk to fetch: over the public network every byte is paid for; an \
             export with `--format qcow2` leaves the zeros out, and a CVM in the bucket's region reaches \
             the bucket over the internal network, free of charge (`--internal`)",
            bytes / 1_000_000_000
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it_and_not_made() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("deep/er");
        let look = look_at_folder(&folder).expect("it could be made");
        // The room changes while others write.
        let there = look_at_folder(home.path()).expect("it is there");
        assert_eq!(look.keeps_holes, there.keeps_holes);
        assert_eq!(
            std::fs::read_dir(home.path()).expect("a folder").count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn what_is_no_folder_can_hold_no_file() {
        let home = tempfile::tempdir().expect("a folder");
        let file = home.path().join("file");
        std::fs::write(&file, "").expect("a file");
        for folder in [file.clone(), file.join("below")] {
            assert!(look_at_folder(&folder).is_err(), "{}", folder.display());
        }
    }

    #[test]
    fn only_large_downloads_are_worth_a_word() {
        let public = |bytes| advice(bytes, Network::Public);
        assert_eq!(public(LARGE_BYTES), None);
        assert!(public(LARGE_BYTES + 1).is_some_and(|text| text.starts_with("100 GB")));
        assert_eq!(advice(LARGE_BYTES + 1, Network::Internal), None);
    }
}
