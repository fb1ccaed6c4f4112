//! The durable, versioned record of one export: what the journal keeps on this machine and the claim
//! keeps in the bucket.
//!
//! It is written before the step that it promises. It holds no secret. Fields that this version does
//! not know are carried along when it rewrites a record, so that an older program never drops what a
//! newer one wrote.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::cloud::cos::ObjectMeta;
pub use crate::export::progress::RecordState;
use crate::export::request::{
    DeviceNames, DiskRole, DiskScope, ExpectedFile, ExportRequest, Identity,
};
use crate::model::{
    BucketName, CheckName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, Region,
    RoleName, SnapshotId, TaskId,
};

const SCHEMA: &str = "cvm-export.record.v1";

/// What stood under a watched name before the submit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Nothing.
    Absent,
    /// An object, which is not this export's unless it changes.
    Present {
        /// Its ETag.
        etag: String,
        /// When it was last written.
        last_modified: Option<DateTime<Utc>>,
        /// Its version, in a versioned bucket.
        version_id: Option<String>,
    },
    /// It could not be seen; only an object written after the submit counts.
    Unseen,
}

impl Baseline {
    /// Notes what a look before the submit showed.
    #[must_use]
    pub fn of(object: Option<&ObjectMeta>) -> Self {
        match object {
            None => Self::Absent,
            Some(object) => Self::Present {
                etag: object.etag.clone(),
                last_modified: object.last_modified,
                version_id: object.version_id.clone(),
            },
        }
    }
}

/// A name under which a file may appear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedName {
    /// The object key.
    pub key: ObjectKey,
    /// What stood there before the submit.
    pub baseline: Baseline,
}

/// A finished file, as COS describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedObject {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its ETag, which for files uploaded in parts is not an MD5.
    pub etag: String,
    /// Its CRC-64/XZ in decimal, where COS names one.
    pub crc64: Option<String>,
    /// Its storage class.
    pub storage_class: String,
    /// When it was completed.
    pub last_modified: Option<DateTime<Utc>>,
    /// Its version, in a versioned bucket.
    pub version_id: Option<String>,
    /// The SHA-256 in hexadecimal, of what was downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl From<ObjectMeta> for FinishedObject {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            key: meta.key,
            size_bytes: meta.size_bytes,
            etag: meta.etag,
            crc64: meta.crc64,
            storage_class: meta.storage_class,
            last_modified: meta.last_modified,
            version_id: meta.version_id,
            sha256: None,
        }
    }
}

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFile {
    /// System or data.
    pub disk: DiskRole,
    /// The disk's name by the console's rule.
    pub device: String,
    /// The snapshot, where it is known.
    pub snapshot_id: Option<SnapshotId>,
    /// The size of the disk in GiB, where it is known.
    pub size_gib: Option<u64>,
    /// The names under which it may appear, the most trusted first.
    pub names: Vec<WatchedName>,
    /// The finished object.
    pub object: Option<FinishedObject>,
}

impl RecordFile {
    /// Every key under which it may appear.
    pub(crate) fn watched_keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.names.iter().map(|name| &name.key)
    }

    /// The key that the file has, or the most trusted of those that it may get.
    #[must_use]
    pub fn key(&self) -> Option<&ObjectKey> {
        match &self.object {
            Some(object) => Some(&object.key),
            None => self.names.first().map(|name| &name.key),
        }
    }
}

/// Where a copy came from that was made for an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFrom {
    /// The image that was asked for.
    pub image_id: ImageId,
    /// Its name.
    pub image_name: CloudText,
    /// Its region.
    pub region: Region,
}

/// One export, from the intent to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    schema: String,
    /// This tool's name for the export.
    pub export_id: ExportId,
    state: RecordState,
    /// The version of the program that wrote the record last.
    pub tool_version: String,
    /// The image.
    pub image_id: ImageId,
    /// The image's name, where it is known.
    pub image_name: Option<CloudText>,
    /// The system in the image, as the cloud names it.
    #[serde(default)]
    pub os_name: Option<CloudText>,
    /// The region of image and bucket.
    pub region: Region,
    /// The bucket.
    pub bucket: BucketName,
    /// The start of the files' names.
    pub prefix: Option<Prefix>,
    /// The files' format.
    pub format: ImageFormat,
    /// Which disks.
    pub scope: DiskScope,
    /// The role that writes.
    #[serde(default)]
    pub role: Option<RoleName>,
    /// When the record was begun, by the server's clock.
    pub created_at: DateTime<Utc>,
    /// When the cloud accepted the export, or when the submit without an answer was sent.
    pub submitted_at: Option<DateTime<Utc>>,
    /// When the last file was completed.
    pub completed_at: Option<DateTime<Utc>>,
    /// The cloud's number for the export.
    pub task_id: Option<TaskId>,
    /// The cloud's name for the submit.
    pub request_id: Option<String>,
    /// The files, in the order in which the cloud announced them.
    pub files: Vec<RecordFile>,
    /// Uploads that were unfinished before the submit, and so are not this export's.
    #[serde(default)]
    pub earlier_uploads: Vec<String>,
    /// Checks that were skipped on request.
    #[serde(default)]
    pub skipped_checks: Vec<CheckName>,
    /// What the person should know about the result.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether the files were to be fetched as well, and have not all arrived: the same command run again
    /// then goes on with that, instead of finding its own files in the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_download: bool,
    /// The image that was asked for, where a copy of it was exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<CopiedFrom>,
    /// Whether another machine began it, and this one has only taken notice. Never written to a bucket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) adopted: bool,
    /// The number of its lease in the bucket, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The prefix as it was written, with its placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_template: Option<CloudText>,
    /// When `files rm` deleted the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<DateTime<Utc>>,
    /// What a later version wrote.
    #[serde(flatten)]
    unknown_fields: serde_json::Map<String, serde_json::Value>,
}

/// Why a text is no record that this version can use.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON of the right shape.
    #[error("it is not a record of cvm-export")]
    Malformed(#[source] serde_json::Error),
    /// A later version wrote it in a form that this one does not know.
    #[error("it has the schema `{0}`, which this version does not know; use a newer cvm-export")]
    UnknownSchema(CloudText),
    /// It names a key where its export writes nothing.
    #[error("it names files of another place")]
    OfAnotherPlace,
}

impl Record {
    /// Begins the record of `request`, whose files were predicted as `files`.
    #[must_use]
    pub fn begin(
        request: &ExportRequest,
        files: Vec<RecordFile>,
        created_at: DateTime<Utc>,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            export_id: new_export_id(&request.identity()),
            state: RecordState::Queued,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            image_id: request.image_id.clone(),
            image_name: None,
            os_name: None,
            region: request.region.clone(),
            bucket: request.bucket.clone(),
            prefix: request.prefix.clone(),
            format: request.format,
            scope: request.scope,
            role: Some(request.role.clone()),
            created_at,
            submitted_at: None,
            completed_at: None,
            task_id: None,
            request_id: None,
            files,
            earlier_uploads: Vec::new(),
            skipped_checks: Vec::new(),
            warnings: Vec::new(),
            owes_download: false,
            copied_from: request.copied_from.clone(),
            adopted: false,
            attempt: None,
            prefix_template: request.prefix_template.clone(),
            removed_at: None,
            unknown_fields: serde_json::Map::new(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`] when the text is none, or one of a later schema.
    pub fn from_json(text: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: CloudText,
        }
        let schema: Schema = serde_json::from_slice(text).map_err(RecordError::Malformed)?;
        if schema.schema != SCHEMA {
            return Err(RecordError::UnknownSchema(schema.schema));
        }
        let mut value: serde_json::Value =
            serde_json::from_slice(text).map_err(RecordError::Malformed)?;
        strip(&mut value);
        serde_json::from_value(value).map_err(RecordError::Malformed)
    }

    /// Whether its id is one that this export can have; a record from a bucket may say anything.
    #[must_use]
    pub(crate) fn names_itself(&self) -> bool {
        let start = format!("exp-{}", &self.identity().hash()[..8]);
        self.export_id.as_str().starts_with(&start)
    }

    /// The record as indented JSON with a final line break, for files that people may open.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self)
            .expect("a record holds only strings, numbers and lists, which JSON can show");
        text.push(b'\n');
        text
    }

    /// Whether its last file was written after `time`.
    pub(crate) fn ended_after(&self, time: DateTime<Utc>) -> bool {
        self.completed_at.is_some_and(|end| is_since(end, time))
    }

    /// The image that was asked for: the one that was copied, where a copy was exported.
    #[must_use]
    pub fn asked_image(&self) -> &ImageId {
        match &self.copied_from {
            Some(source) => &source.image_id,
            None => &self.image_id,
        }
    }

    /// What makes this export the same as another one.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            bucket: self.bucket.clone(),
            image_id: self.image_id.clone(),
            prefix: self.prefix.clone(),
            format: self.format,
        }
    }

    /// How far the export is.
    #[must_use]
    pub fn state(&self) -> RecordState {
        self.state
    }

    /// The record as it is shown to other machines.
    pub(crate) fn published(&self) -> Self {
        Self {
            adopted: false,
            ..self.clone()
        }
    }

    /// The same record as one of which signs or files were found without a record: it was submitted at
    /// `since`, if that is known. Synthetic; nothing was sent under it.
    pub(crate) fn found_running(mut self, since: Option<DateTime<Utc>>) -> Self {
        self.state = RecordState::Submitted;
        self.submitted_at = since;
        self
    }

    /// The same record as one of an export that somebody else may have started. Synthetic.
    pub(crate) fn assumed(mut self) -> Self {
        self.state = RecordState::Intended;
        self
    }

    /// The same record in `state`, whatever the table says.
    #[cfg(test)]
    pub(crate) fn in_state(mut self, state: RecordState) -> Self {
        self.state = state;
        self
    }

    /// The keys of all files, announced or predicted.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.files
            .iter()
            .filter_map(RecordFile::key)
            .cloned()
            .collect()
    }

    /// The command that takes the watch up again, on any machine.
    #[must_use]
    pub fn reattach(&self) -> Vec<String> {
        let mut words: Vec<String> = [
            "cvm-export",
            "wait",
            "--region",
            self.region.as_str(),
            "--bucket",
            self.bucket.as_str(),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(submitted_at) = self.submitted_at {
            // A machine without record and claim must not take an older file of that name for this one.
            words.push("--since".to_owned());
            words.push(submitted_at.to_rfc3339_opts(SecondsFormat::Secs, true));
        }
        // A key that looks like a flag is told apart by the usual two hyphens.
        let keys = self.keys();
        if keys.iter().any(|key| key.as_str().starts_with('-')) {
            words.push("--".to_owned());
        }
        words.extend(keys.iter().map(ToString::to_string));
        words
    }
}

impl RecordFile {
    /// A file that is expected under the names of `expected`, each with its baseline.
    #[must_use]
    pub fn expect(expected: &ExpectedFile, baseline: impl Fn(&ObjectKey) -> Baseline) -> Self {
        let names = expected.names.iter();
        Self {
            disk: expected.disk,
            device: expected.device.clone(),
            snapshot_id: expected.snapshot_id.clone(),
            size_gib: expected.size_gib,
            names: names
                .map(|key| WatchedName {
                    key: key.clone(),
                    baseline: baseline(key),
                })
                .collect(),
            object: None,
        }
    }

    fn is_named(&self, key: &ObjectKey) -> bool {
        self.names.iter().any(|name| name.key == *key)
    }

    /// Whether `key` names this file's snapshot, by whatever rule the rest was made.
    fn speaks_of(&self, key: &ObjectKey) -> bool {
        self.snapshot_id
            .as_ref()
            .is_some_and(|id| key.as_str().contains(id.as_str()))
    }

    /// A file that the cloud announced and nobody predicted.
    fn announced_only(key: &ObjectKey, devices: &mut DeviceNames, position: usize) -> Self {
        let is_data = position > 0 || key.as_str().contains("_data_");
        let disk = if is_data {
            DiskRole::Data
        } else {
            DiskRole::System
        };
        Self {
            disk,
            device: devices.next(disk),
            snapshot_id: None,
            size_gib: None,
            names: vec![WatchedName {
                key: key.clone(),
                baseline: Baseline::Unseen,
            }],
            object: None,
        }
    }

    /// A file of which only its existence is known.
    fn unknown(position: usize) -> Self {
        let disk = if position == 0 {
            DiskRole::System
        } else {
            DiskRole::Data
        };
        Self {
            disk,
            device: "unknown".to_owned(),
            snapshot_id: None,
            size_gib: None,
            names: Vec::new(),
            object: None,
        }
    }

    /// Puts `key` first among the names.
    fn prefer(&mut self, key: ObjectKey) {
        match self.names.iter().position(|name| name.key == key) {
            Some(position) => self.names[..=position].rotate_right(1),
            None => self.names.insert(
                0,
                WatchedName {
                    key,
                    baseline: Baseline::Unseen,
                },
            ),
        }
    }
}

/// Whether `time` is not before `start`. Times of the cloud have whole seconds, and ours is the server's clock
/// to within one. Either may come out of a bucket, where it may be the first moment of the calendar.
pub(crate) fn is_since(time: DateTime<Utc>, start: DateTime<Utc>) -> bool {
    time.signed_duration_since(start) >= TimeDelta::seconds(-2)
}

/// Strips every text of a record: one from a bucket may have been written by anybody.
fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = CloudText::new(text).to_string(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(strip),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// Names a new export: eight digits of its identity, so that records of the same export are found by
/// their names, and eight random ones.
fn new_export_id(identity: &Identity) -> ExportId {
    let text = format!("exp-{}{:08x}", &identity.hash()[..8], fastrand::u32(..));
    text.parse()
        .expect("hexadecimal digits after `exp-` make an export id")
}

mod steps;
#[cfg(test)]
mod tests;
