//! One object to one verified file: parallel ranges, holes for zeros, resumable, checked as it arrives.
//!
//! ```text
//! HEAD ─► ledger: what is missing? ─► ranges ─► checksum, write, ledger ─► whole checksum ─► rename
//!              │                                                               │
//!              └── another object: start anew          differs: fetch all once more, replace ──┘
//! ```
//!
//! Nothing stands under the final name before it is verified. What an interrupted run leaves (the
//! partial file and its ledger) is taken up by the next one, with whatever settings.

mod error;
mod file;
mod landing;
mod ledger;
mod names;
mod pace;
mod pipe;
mod reading;
mod target;
mod transfer;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use tokio_util::sync::CancellationToken;

pub use error::DownloadError;
pub use landing::{FolderLook, advice, look_at_folder, make_folder, read_small};
pub use names::{InvalidNames, local_names};
pub use verify::{Expected, Seen, verify_file};

use crate::cloud::cos::{CosClient, ObjectMeta};
use crate::crc64::Crc64;
use crate::event::{EventKind, Events};
use crate::model::{BucketName, ObjectKey, Region};
use transfer::{Limits, Source};

/// The size of a part, unless another one is asked for: large enough that requests cost nothing, small
/// enough that little is lost with one.
pub const DEFAULT_PART_SIZE_BYTES: u64 = 8 * 1024 * 1024;
/// The most connections at once, unless another number is asked for.
pub const DEFAULT_CONNECTIONS: usize = 8;

/// How a download is made.
#[derive(Clone, Debug)]
pub struct DownloadOptions {
    /// The size of a part.
    pub part_size_bytes: u64,
    /// The most connections at once; fewer are used where more bring nothing.
    pub connections: usize,
    /// The most bytes a second, over all connections.
    pub bytes_per_second: Option<u64>,
    /// Whether to compute the SHA-256 of the file.
    pub sha256: bool,
    /// Whether an object without a checksum is refused.
    pub require_checksum: bool,
    /// Whether a file that stands in the way is replaced, and an unreadable ledger thrown away.
    pub force: bool,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            part_size_bytes: DEFAULT_PART_SIZE_BYTES,
            connections: DEFAULT_CONNECTIONS,
            bytes_per_second: None,
            sha256: false,
            require_checksum: false,
            force: false,
        }
    }
}

impl DownloadOptions {
    fn limits(&self) -> Limits {
        Limits {
            part_size_bytes: self.part_size_bytes,
            connections: self.connections,
            bytes_per_second: self.bytes_per_second,
        }
    }
}

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectAddress {
    /// The bucket, with its AppId.
    pub bucket: BucketName,
    /// The region of the bucket.
    pub region: Region,
    /// The key.
    pub key: ObjectKey,
    /// The ETag that it must have, where only that one object will do.
    pub etag: Option<String>,
}

/// An object that has arrived.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// What COS says of it.
    pub object: ObjectMeta,
    /// Where it is; `None` when it went to a pipe.
    pub path: Option<PathBuf>,
    /// The checksum of what arrived; `None` when nothing had to be fetched and COS names none.
    pub crc64: Option<Crc64>,
    /// Whether the checksum was compared with the one that COS names.
    pub is_verified: bool,
    /// The SHA-256 in hexadecimal, where it was asked for.
    pub sha256: Option<String>,
    /// The bytes that came over the network in this run.
    pub fetched_bytes: u64,
}

impl Downloaded {
    /// The bytes that did not have to come over the network, as an earlier run had brought them.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.object.size_bytes.saturating_sub(self.fetched_bytes)
    }
}

/// An object that was looked up.
#[derive(Clone, Debug)]
pub struct Found(Source);

impl Found {
    /// What COS says of it.
    #[must_use]
    pub fn object(&self) -> &ObjectMeta {
        &self.0.object
    }
}

/// Fetches objects.
#[derive(Clone, Debug)]
pub struct Downloader {
    cos: CosClient,
    events: Events,
    cancel: CancellationToken,
    advised: Arc<Once>,
}

impl Downloader {
    /// A downloader that speaks on `events` and stops, resumably, when `cancel` says so.
    #[must_use]
    pub fn new(cos: CosClient, events: Events, cancel: CancellationToken) -> Self {
        Self {
            cos,
            events,
            cancel,
            advised: Arc::new(Once::new()),
        }
    }

    /// Says what is worth knowing before `bytes` of raw disks are fetched; once.
    pub fn announce(&self, bytes: u64) {
        if let Some(advice) = advice(bytes, self.cos.network()) {
            self.advised
                .call_once(|| self.events.emit(EventKind::Settled { message: advice }));
        }
    }

    /// Fetches an object to the file or block device `path`.
    ///
    /// # Errors
    /// [`DownloadError`]; what has arrived is kept for the next run, except where it is wrong.
    pub async fn fetch_to(
        &self,
        address: &ObjectAddress,
        path: &Path,
        options: &DownloadOptions,
    ) -> Result<Downloaded, DownloadError> {
        let found = self.look(address, options).await?;
        self.fetch_found(address, found, path, options).await
    }

    /// As [`Downloader::fetch_to`], for an object that was looked up before.
    ///
    /// # Errors
    /// [`DownloadError`]; what has arrived is kept for the next run, except where it is wrong.
    pub async fn fetch_found(
        &self,
        address: &ObjectAddress,
        found: Found,
        path: &Path,
        options: &DownloadOptions,
    ) -> Result<Downloaded, DownloadError> {
        let mut replaced = 0;
        let mut source = found.0;
        loop {
            match file::fetch(self, source, path, options).await {
                Ok(done) => return Ok(self.arrived(done)),
                // The object was replaced midway: what had arrived is of no use any more.
                Err(error) if error.is_change() && replaced == 0 => {
                    replaced += 1;
                    self.events.warn(format!(
                        "`{}` was replaced by another object while it was fetched; starting anew",
                        address.key
                    ));
                    source = self.look(address, options).await?.0;
                }
                Err(error) if error.is_change() => {
                    return Err(DownloadError::KeepsChanging {
                        key: address.key.clone(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes an object that was looked up before to `output` in order, with at most one part for each
    /// connection in memory.
    ///
    /// # Errors
    /// [`DownloadError`]; what was written cannot be taken back, so whoever reads must look at the end.
    pub async fn fetch_through(
        &self,
        found: Found,
        output: impl std::io::Write + Send + 'static,
        options: &DownloadOptions,
    ) -> Result<Downloaded, DownloadError> {
        let done = pipe::fetch(self, found.0, output, options).await?;
        Ok(self.arrived(done))
    }

    /// Tells that an object has arrived.
    fn arrived(&self, done: Downloaded) -> Downloaded {
        self.events.emit(EventKind::Downloaded {
            key: done.object.key.clone(),
            path: done.path.as_deref().map(|path| path.display().to_string()),
            size_bytes: done.object.size_bytes,
            is_verified: done.is_verified,
            fetched_bytes: done.fetched_bytes,
            sha256: done.sha256.clone(),
        });
        done
    }

    /// Looks an object up, and refuses one that could not be verified where that is wanted.
    ///
    /// # Errors
    /// [`DownloadError`], such as for an object that is not there.
    pub async fn look(
        &self,
        address: &ObjectAddress,
        options: &DownloadOptions,
    ) -> Result<Found, DownloadError> {
        let ObjectAddress {
            bucket,
            region,
            key,
            etag,
        } = address;
        let looking = self.cos.head_object(bucket, region, key, None);
        let found = tokio::select! {
            () = self.cancel.cancelled() => return Err(DownloadError::Interrupted),
            found = looking => found.map_err(DownloadError::cos(key))?,
        };
        let Some(object) = found else {
            return Err(DownloadError::Missing {
                bucket: bucket.clone(),
                key: key.clone(),
            });
        };
        if etag.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(DownloadError::Replaced { key: key.clone() });
        }
        if key.as_str().ends_with(".raw") {
            self.announce(object.size_bytes);
        }
        if object.crc64.is_none() {
            if options.require_checksum {
                return Err(DownloadError::NoChecksum { key: key.clone() });
            }
            self.events.warn(format!(
                "COS names no checksum of `{key}`; its length is compared, its bytes cannot be"
            ));
        }
        Ok(Found(Source {
            cos: self.cos.clone(),
            bucket: bucket.clone(),
            region: region.clone(),
            object,
        }))
    }
}

/// How many bytes of `object` a download to `path` has still to fetch at most, by what stands there: none
/// where a file of its size does, as that is either the object or in the way, and what the ledger of an
/// earlier run misses. All of them where nobody can tell, and where `force` may replace the file.
#[must_use]
pub fn bytes_to_come(object: &ObjectMeta, path: &Path, options: &DownloadOptions) -> u64 {
    file::bytes_to_come(object, path, options)
}

/// The checksum that COS names.
fn expected_checksum(object: &ObjectMeta) -> Option<Crc64> {
    object
        .crc64
        .as_ref()
        .and_then(|crc64| crc64.parse().ok())
        .map(Crc64)
}
