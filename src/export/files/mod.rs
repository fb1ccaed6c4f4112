//! What exports lie in a bucket, and getting rid of them.
//!
//! ```text
//! listing, records, uploads, images ─► grouping (pure) ─► inventory ─► selection (pure) ─► removal ─► deletion
//! ```
//!
//! A bucket may hold a hundred thousand exports. Everything is looked up by its key, and an export takes a
//! kilobyte: records are dropped once they are compared with the listing, and texts are shared.
//!
//! [`Files`] is the door. Nothing is deleted that is not proven to be of an export, and nothing of an
//! export that runs or may run.

mod attempts;
mod deletion;
mod draft;
mod entries;
mod etag;
mod gather;
mod grouping;
mod index;
mod names;
mod removal;
mod retention;
mod series;
mod uploads;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use crate::cloud::cos::{DeleteMarker, Versioning};
use crate::error::Error;
use crate::export::Exporter;
use crate::export::outcome::ExportedCopy;
use crate::export::preflight::Fact;
use crate::export::request::DiskRole;
use crate::model::{
    BucketName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, Region, SnapshotId,
};

pub use etag::Etag;
pub use names::PrefixFilter;
pub use removal::{DoomedExport, DoomedObject, GroupPlan, Part, Removal, RemovalState, Stay};
pub use retention::{Group, GroupBy, Groups, Retention, Selection};
pub use uploads::{AbortPlan, DoomedUpload};

/// Which exports are looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The bucket, with its AppId.
    pub bucket: BucketName,
    /// Its region.
    pub region: Region,
    /// Those with such a prefix.
    pub prefix: PrefixFilter,
    /// Those of these images or copies; of all where none is named.
    pub images: Vec<ImageId>,
    /// Whether versions that are not current are looked at, too.
    pub all_versions: bool,
}

impl Scope {
    /// Whether an export of this image is looked at; one by a copy is found by the image and by the copy.
    fn wants(&self, image_id: Option<&ImageId>, copy: Option<&ExportedCopy>) -> bool {
        let copy = copy.map(|copy| &copy.image_id);
        let mut ids = image_id.into_iter().chain(copy);
        self.images.is_empty() || ids.any(|id| self.images.contains(id))
    }
}

/// What proves that an object is a file of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// A record in the bucket or in this machine's journal names it.
    Record,
    /// Its name is the API's, and the account has the image and its disk.
    Image,
    /// Nothing: it looks like one.
    None,
}

/// How whole an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedState {
    /// Every file is there.
    Complete,
    /// It runs, or may run.
    Running,
    /// Some of its files are there.
    Partial,
    /// Only its record is there, or what a bucket with versions keeps of its files.
    Gone,
    /// It was submitted so long ago that it can not be running, and is not complete.
    Lost,
    /// Nothing says how many files belong to it.
    Unknown,
}

impl ListedState {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Running => "running",
            Self::Partial => "partial",
            Self::Gone => "gone",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// Why nothing of an export may be deleted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Blocked {
    /// It runs, or another one under its names does.
    Running {
        /// What says so.
        reason: String,
    },
    /// A record in its place cannot be read.
    UnreadableRecord {
        /// Which one.
        reason: String,
    },
    /// Its files are being fetched, or were to be.
    DownloadOwed {
        /// What says so.
        reason: String,
    },
}

impl Blocked {
    /// What is in the way.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Running { reason }
            | Self::UnreadableRecord { reason }
            | Self::DownloadOwed { reason } => reason,
        }
    }
}

/// One export in a bucket.
#[derive(Clone, Debug, Serialize)]
pub struct ListedExport {
    /// This tool's name for it, where a record tells it.
    pub export_id: Option<ExportId>,
    /// The bucket.
    pub bucket: BucketName,
    /// The bucket's region.
    pub region: Region,
    /// The image that was asked for, where a record or a name tells it.
    pub image_id: Option<ImageId>,
    /// The copy that was exported in place of the image, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<Box<ExportedCopy>>,
    /// The image's name, where it is known.
    pub image_name: Option<CloudText>,
    /// The start of its files' names.
    pub prefix: Option<Prefix>,
    /// The prefix as it was written, with its placeholders, where a record tells it.
    #[serde(rename = "prefix_template")]
    pub template: Option<CloudText>,
    /// The files' format.
    pub format: ImageFormat,
    /// How whole it is.
    pub state: ListedState,
    /// When its last file was completed, or else when it was submitted.
    pub exported_at: Option<DateTime<Utc>>,
    /// How long ago that was, by the server's clock.
    pub age_seconds: Option<u64>,
    /// What its files hold together.
    pub size_bytes: u64,
    /// Its files that are there.
    pub files: Vec<ListedFile>,
    /// Its records in the bucket.
    pub records: Vec<StoredRecord>,
    /// Why nothing of it may be deleted now.
    pub blocked: Option<Box<Blocked>>,
    /// Whether its record says that its files were to be fetched, and have not all arrived.
    #[serde(skip)]
    pub(crate) owes_download: bool,
    /// Whether nothing is left of it but the record that it was complete.
    #[serde(skip)]
    pub(crate) is_record_alone: bool,
    /// The keys by the API's rule under which its record expects files.
    #[serde(skip)]
    pub(crate) watched: Box<[ObjectKey]>,
}

/// One file of an export.
#[derive(Clone, Debug, Serialize)]
pub struct ListedFile {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, where versions were listed.
    pub version_id: Option<String>,
    /// Whether it is what a GET without a version brings.
    pub is_latest: bool,
    /// System or data, where that is known.
    pub disk: Option<DiskRole>,
    /// The disk's name by the console's rule, where that is known.
    #[serde(serialize_with = "text")]
    pub device: Option<Arc<str>>,
    /// The disk's snapshot, where that is known.
    pub snapshot_id: Option<SnapshotId>,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    pub etag: Etag,
    /// Its storage class.
    pub storage_class: CloudText,
    /// When it was written.
    pub last_modified: Option<DateTime<Utc>>,
    /// What proves that it is of an export.
    pub proof: Proof,
    /// Why nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<&'static str>,
}

/// A shared text as any other.
fn text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

/// A record that stands in the bucket.
#[derive(Clone, Debug, Serialize)]
pub struct StoredRecord {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, where versions were listed.
    pub version_id: Option<String>,
    /// Whether it is what a GET without a version brings.
    pub is_latest: bool,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    #[serde(skip)]
    pub(crate) etag: Etag,
    /// When it was written.
    #[serde(skip)]
    pub(crate) last_modified: Option<DateTime<Utc>>,
}

/// An unfinished upload under the name of a file of an export.
#[derive(Clone, Debug, Serialize)]
pub struct ListedUpload {
    /// The key that the object will have.
    pub key: ObjectKey,
    /// COS's name for the upload.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Option<DateTime<Utc>>,
    /// The storage class of its parts.
    pub storage_class: CloudText,
    /// What its parts hold; `None` until that was looked at, and where it may not be.
    pub size_bytes: Option<u64>,
    /// The export whose record names it.
    pub export_id: Option<ExportId>,
    /// The image that was asked for, where a record or the name tells it.
    pub image_id: Option<ImageId>,
    /// The copy that was exported in place of the image, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<ExportedCopy>,
    /// What proves that it is of an export.
    pub proof: Proof,
    /// Why it may be of an export that runs.
    #[serde(skip)]
    pub(crate) running: Option<String>,
}

/// What lies in one bucket.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// What was looked at.
    pub scope: Scope,
    /// The exports, the oldest first.
    pub exports: Vec<ListedExport>,
    /// Those of images that the scope leaves out: what stands under their names still counts.
    pub(crate) others: Vec<ListedExport>,
    /// The unfinished uploads of exports.
    pub uploads: Fact<Vec<ListedUpload>>,
    /// Whether the bucket keeps what is overwritten and deleted.
    pub versioning: Fact<Versioning>,
    /// How many other objects were seen on the way.
    pub other_objects: u64,
    /// The server's time of the look.
    pub seen_at: DateTime<Utc>,
    /// The delete markers under names of exports and records.
    pub(crate) markers: Vec<DeleteMarker>,
}

/// Looks at the exports in buckets, and deletes them.
#[derive(Clone, Debug)]
pub struct Files {
    exporter: Exporter,
}

impl Files {
    /// Works with the clients, the journal and the events of `exporter`.
    #[must_use]
    pub fn new(exporter: Exporter) -> Self {
        Self { exporter }
    }

    /// What lies in the bucket. The listing is read page by page, and only what may be of an export is kept.
    ///
    /// # Errors
    /// When the bucket cannot be listed or the journal cannot be read.
    pub async fn list(&self, scope: Scope) -> Result<Inventory, Error> {
        gather::inventory(&self.exporter, scope).await
    }

    /// Whether keys of exports stand in the bucket whose prefix starts like the one that `scope` names:
    /// a single page is looked at, and no answer is none.
    pub async fn has_longer_prefixes(&self, scope: &Scope) -> bool {
        let PrefixFilter::Exactly(prefix) = &scope.prefix else {
            return false;
        };
        let start = PrefixFilter::StartingWith(prefix.clone());
        let cos = self.exporter.cloud.cos();
        let listing = cos.list_objects(&scope.bucket, &scope.region, prefix.as_str(), None);
        let Ok(page) = listing.await else {
            return false;
        };
        let mut names = page
            .objects
            .iter()
            .filter_map(|it| names::Name::of(&it.key))
            .filter(|name| !matches!(name, names::Name::Lease { .. }));
        names.any(|name| start.covers(name.prefix()))
    }
}
