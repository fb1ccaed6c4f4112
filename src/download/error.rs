//! Why an object did not arrive.

use std::io;
use std::path::{Path, PathBuf};

use super::names::InvalidNames;
use crate::cloud::cos::{CosError, CosErrorKind};
use crate::crc64::Crc64;
use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, ObjectKey};

/// The situations in which a download ends without its file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nothing stands under the key.
    #[error("there is no object `{key}` in bucket `{bucket}`")]
    Missing {
        /// The bucket.
        bucket: BucketName,
        /// The key.
        key: ObjectKey,
    },
    /// Another object stands under the key than the one that is wanted.
    #[error("`{key}` has been replaced by another object since the export was complete")]
    Replaced {
        /// The key.
        key: ObjectKey,
    },
    /// COS did not bring the bytes.
    #[error("the object `{key}` was not fetched")]
    Cos {
        /// The key.
        key: ObjectKey,
        /// Why.
        #[source]
        source: Box<CosError>,
    },
    /// A file that is not this object stands in the way.
    #[error("`{}` is there already and is not this object ({difference})", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// What tells them apart.
        difference: String,
    },
    /// What stands there can hold no object.
    #[error("`{}` is neither a file nor a block device", path.display())]
    NoFile {
        /// The folder, pipe, socket or character device.
        path: PathBuf,
    },
    /// A block device would lose what it holds.
    #[error("`{}` is a block device; what it holds would be overwritten", path.display())]
    OverDevice {
        /// The device.
        path: PathBuf,
    },
    /// A block device is mounted, or another program has it for itself.
    #[error("the block device `{}` is in use", path.display())]
    DeviceInUse {
        /// The device.
        path: PathBuf,
    },
    /// The key can name no file here.
    #[error(transparent)]
    Name(#[from] InvalidNames),
    /// Another process fetches the same file.
    #[error("another process is fetching `{}`", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A later version left what it had fetched in a form that this one does not know.
    #[error("`{}` was written by a later version of cvm-export", path.display())]
    LaterLedger {
        /// The ledger.
        path: PathBuf,
    },
    /// The disk has too little room.
    #[error("{needed} bytes are needed in `{}`, {free} are free", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// What is needed.
        needed: u64,
        /// What is there.
        free: u64,
    },
    /// The disk refuses.
    #[error("cannot {action} `{}`", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What arrived is not what the bucket holds, twice.
    #[error("`{key}` arrived with the CRC-64 {received}, the bucket holds {expected}")]
    Mismatch {
        /// The key.
        key: ObjectKey,
        /// Of what arrived.
        received: Crc64,
        /// Of what the bucket holds.
        expected: Crc64,
    },
    /// COS names no checksum, and one is required.
    #[error("COS names no CRC-64 of `{key}`, so what arrives cannot be verified")]
    NoChecksum {
        /// The key.
        key: ObjectKey,
    },
    /// The object was replaced again and again while it was fetched.
    #[error("`{key}` was replaced by another object while it was fetched, twice")]
    KeepsChanging {
        /// The key.
        key: ObjectKey,
    },
    /// The pipe takes no more.
    #[error("{}", match source.kind() {
        io::ErrorKind::BrokenPipe => "the pipe is closed; whoever read it has gone",
        _ => "the pipe takes nothing",
    })]
    Pipe {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal came while a pipe was written to.
    #[error("interrupted; the pipe got only a part of the object")]
    PipeInterrupted,
    /// A signal came.
    #[error("interrupted; what has arrived is kept")]
    Interrupted,
}

impl DownloadError {
    pub(super) fn cos(key: &ObjectKey) -> impl FnOnce(CosError) -> Self {
        let key = key.clone();
        move |source| Self::Cos {
            key,
            source: Box::new(source),
        }
    }

    pub(crate) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            action,
            path,
            source,
        }
    }

    /// Whether the object was replaced while it was fetched.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Cos { source, .. } if source.kind() == CosErrorKind::Changed)
    }
}

/// Whether the place itself is what is wrong, so that the same command would fail again.
fn is_no_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidFilename
    )
}

/// Whether the disk, a quota or a limit lets no file grow further.
fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl From<DownloadError> for Error {
    fn from(error: DownloadError) -> Self {
        let again = "run the command again; it goes on where it stopped";
        let (kind, hint) = match &error {
            DownloadError::Missing { bucket, .. } => {
                let hint = format!(
                    "`cvm-export files --bucket {bucket}` lists what is there, `cvm-export wait` waits for an export"
                );
                return Self::new(ErrorKind::Precondition, error.to_string()).with_hint(hint);
            }
            DownloadError::Replaced { .. } => (
                ErrorKind::Precondition,
                "fetch what stands there now with `cvm-export download cos://BUCKET/KEY`, or export anew",
            ),
            DownloadError::Cos { .. } => {
                let DownloadError::Cos { key, source } = error else {
                    unreachable!("matched above")
                };
                let hint = again.to_owned();
                let request_id = source.request_id().map(str::to_owned);
                let known = Self::from(*source);
                let hint = known.hint().map_or(hint, str::to_owned);
                return Self::new(known.kind(), format!("the object `{key}` was not fetched"))
                    .with_hint(hint)
                    .with_request_id(request_id)
                    .with_source(known);
            }
            DownloadError::InTheWay { .. } => (
                ErrorKind::LocalDisk,
                "move it away, name another place with `--to`, or replace it with `--force`",
            ),
            DownloadError::NoFile { .. } => (
                ErrorKind::Usage,
                "name a file, a folder or a block device; `--to -` writes to a pipe",
            ),
            DownloadError::Name(invalid) => return Self::from(invalid.clone()),
            DownloadError::OverDevice { .. } => (
                ErrorKind::LocalDisk,
                "look at what it holds (`lsblk -f`), then overwrite it with `--force`",
            ),
            DownloadError::DeviceInUse { .. } => (
                ErrorKind::LocalDisk,
                "unmount it, or take it out of what uses it (`lsblk` shows it)",
            ),
            DownloadError::Busy { .. } => (
                ErrorKind::LocalDisk,
                "wait for it; the file appears when it is verified",
            ),
            DownloadError::LaterLedger { .. } => (
                ErrorKind::LocalDisk,
                "use that version, or start anew with `--force`",
            ),
            DownloadError::NoRoom { .. } => (
                ErrorKind::LocalDisk,
                "make room, or name a folder on another disk; what has arrived is kept",
            ),
            DownloadError::Disk { source, .. } if is_no_room(source) => (
                ErrorKind::LocalDisk,
                "make room, or name a folder on another disk; what has arrived is kept",
            ),
            DownloadError::Disk { source, .. } if is_no_place(source) => (
                ErrorKind::LocalDisk,
                "name a place that is there and can be written to; with `--to`, a folder ends with a slash or is there already",
            ),
            DownloadError::Disk { .. } => (ErrorKind::LocalDisk, again),
            DownloadError::Mismatch { .. } => (
                ErrorKind::Verification,
                "something between here and the bucket changes the bytes; fetch it again over another network",
            ),
            DownloadError::NoChecksum { .. } => (
                ErrorKind::Verification,
                "leave `--require-checksum` out to take it unverified",
            ),
            DownloadError::KeepsChanging { .. } => (
                ErrorKind::Verification,
                "wait until nobody writes to it, then run the command again",
            ),
            DownloadError::Pipe { .. } => (
                ErrorKind::LocalDisk,
                "what went through is only a part of the object; a pipe begins anew",
            ),
            DownloadError::PipeInterrupted => (
                ErrorKind::Interrupted,
                "throw away what went through; a pipe begins anew",
            ),
            DownloadError::Interrupted => (ErrorKind::Interrupted, again),
        };
        let message = match &error {
            DownloadError::Interrupted | DownloadError::PipeInterrupted => error.to_string(),
            _ => "the download failed".to_owned(),
        };
        Self::new(kind, message).with_hint(hint).with_source(error)
    }
}
