//! The durable, versioned record of one export: what the journal keeps on this machine and the claim
//! keeps in the bucket.
//!
//! It is written before the step that it promises. It holds no secret. Fields that this version does
//! not know are carried along when it rewrites a record, so that an older program never drops what a
//! newer one wrote.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::cloud::cos::ObjectMeta;
use crate::export::request::{
    DeviceNames, DiskRole, DiskScope, ExpectedFile, ExportRequest, Identity,
};
use crate::model::{
    BucketName, CheckName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, Region,
    RoleName, SnapshotId, TaskId,
};

const SCHEMA: &str = "cvm-export.record.v1";

/// How far an export has come, as far as was promised to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// The cloud said "later", or the submit has not begun: nothing was started.
    Queued,
    /// The submit was about to be sent, and may have been: nobody knows what became of it.
    Intended,
    /// The cloud accepted the export, or signs of it were seen.
    Submitted,
    /// Every file is in the bucket.
    Complete,
    /// The export vanished.
    Failed,
    /// The cloud refused the submit: nothing was started.
    Refused,
    /// Given up by `--resubmit` in favour of a new one, or before anything was sent.
    Abandoned,
}

impl RecordState {
    /// Whether an export may be running under this record, so that a second submit would double it.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Intended | Self::Submitted)
    }
}

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
    /// How far it has come.
    pub state: RecordState,
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

    /// Takes the cloud's answer to the submit in. What it announces wins over what was predicted: an
    /// announced name is put first in its file's list of names.
    pub fn accept(
        &mut self,
        task_id: Option<TaskId>,
        request_id: Option<String>,
        announced: Vec<ObjectKey>,
        now: DateTime<Utc>,
    ) {
        self.state = RecordState::Submitted;
        self.submitted_at = Some(now);
        self.task_id = task_id;
        self.request_id = request_id;
        if announced.is_empty() {
            return;
        }
        let mut predicted = std::mem::take(&mut self.files);
        let mut devices = DeviceNames::default();
        for key in announced {
            let position = predicted
                .iter()
                .position(|file| file.is_named(&key))
                .or_else(|| predicted.iter().position(|file| file.speaks_of(&key)));
            let mut file = match position {
                Some(position) => predicted.remove(position),
                None => RecordFile::announced_only(&key, &mut devices, self.files.len()),
            };
            file.prefer(key);
            self.files.push(file);
        }
        // A disk that was predicted and not announced is not expected: the cloud knows better.
        for file in predicted {
            self.warnings.push(format!(
                "the cloud announced no file for the {} disk {}",
                file.disk, file.device
            ));
        }
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

/// Closes a record whose files are all there.
pub(crate) fn finish(record: &mut Record, now: DateTime<Utc>) {
    record.state = RecordState::Complete;
    let objects = record.files.iter().filter_map(|file| file.object.as_ref());
    record.completed_at = objects
        .filter_map(|object| object.last_modified)
        .max()
        .or(Some(now));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        text.parse().expect("key")
    }

    fn record(names: &[(&str, DiskRole, &[&str])]) -> Record {
        let request = ExportRequest {
            image_id: "img-1".parse().expect("image id"),
            region: "ap-guangzhou".parse().expect("region"),
            bucket: "b-1250000000".parse().expect("bucket"),
            prefix: Some("p".parse().expect("prefix")),
            format: ImageFormat::Raw,
            scope: DiskScope::WholeMachine,
            role: "CVM_QcsRole".parse().expect("role"),
            prefix_template: None,
            copied_from: None,
        };
        let files = names.iter().map(|(snapshot, disk, names)| {
            let expected = ExpectedFile {
                disk: *disk,
                device: "xvda".to_owned(),
                snapshot_id: Some(snapshot.parse().expect("snapshot id")),
                size_gib: Some(50),
                names: names.iter().map(|name| key(name)).collect(),
            };
            RecordFile::expect(&expected, |_| Baseline::Absent)
        });
        Record::begin(&request, files.collect(), DateTime::UNIX_EPOCH)
    }

    fn two_disks() -> Record {
        record(&[
            (
                "snap-s",
                DiskRole::System,
                &["p_img-1_system_snap-s.raw", "p_xvda.raw"],
            ),
            (
                "snap-d",
                DiskRole::Data,
                &["p_img-1_data_snap-d.raw", "p_xvdb.raw"],
            ),
        ])
    }

    #[test]
    fn announced_names_win_and_set_the_order() {
        let mut record = two_disks();
        let announced = vec![key("p_xvdb.raw"), key("q_snap-s.raw")];
        record.accept(Some(TaskId(7)), None, announced, DateTime::UNIX_EPOCH);
        let names: Vec<Vec<&str>> = record
            .files
            .iter()
            .map(|file| file.names.iter().map(|name| name.key.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["p_xvdb.raw", "p_img-1_data_snap-d.raw"],
                vec!["q_snap-s.raw", "p_img-1_system_snap-s.raw", "p_xvda.raw"],
            ]
        );
        assert_eq!(
            record.files[0].snapshot_id.as_ref().map(SnapshotId::as_str),
            Some("snap-d")
        );
        assert!(record.warnings.is_empty());
    }

    #[test]
    fn a_disk_that_is_not_announced_is_dropped_with_a_warning() {
        let mut record = two_disks();
        record.accept(
            None,
            None,
            vec![key("p_img-1_system_snap-s.raw")],
            DateTime::UNIX_EPOCH,
        );
        assert_eq!(record.files.len(), 1);
        assert_eq!(record.warnings.len(), 1);
    }

    #[test]
    fn an_answer_without_paths_keeps_the_prediction() {
        let mut record = two_disks();
        record.accept(None, None, Vec::new(), DateTime::UNIX_EPOCH);
        assert_eq!(record.files.len(), 2);
    }

    #[test]
    fn fields_of_a_later_version_survive_a_rewrite() {
        let mut json: serde_json::Value =
            serde_json::from_slice(&two_disks().to_json()).expect("JSON");
        json["from_the_future"] = serde_json::json!({"a": 1});
        let read = Record::from_json(json.to_string().as_bytes()).expect("a record");
        let again: serde_json::Value = serde_json::from_slice(&read.to_json()).expect("JSON");
        assert_eq!(again, json);
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_are_compared() {
        let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        let start = DateTime::UNIX_EPOCH;
        let cases = [
            (start, first, true),
            (first, first, true),
            (first, last, false),
            (last, first, true),
            (start, start + TimeDelta::seconds(2), true),
            (start, start + TimeDelta::seconds(3), false),
        ];
        for (time, start, expected) in cases {
            assert_eq!(is_since(time, start), expected, "{time} since {start}");
        }
    }

    #[test]
    fn other_schemas_and_other_texts_are_refused() {
        let other = br#"{"schema":"cvm-export.record.v2"}"#;
        assert!(matches!(
            Record::from_json(other),
            Err(RecordError::UnknownSchema(_))
        ));
        for text in [
            &b""[..],
            b"{}",
            b"<html>",
            br#"{"schema":"cvm-export.record.v1"}"#,
        ] {
            assert!(matches!(
                Record::from_json(text),
                Err(RecordError::Malformed(_))
            ));
        }
    }

    #[test]
    fn the_reattach_line_names_region_bucket_time_and_keys() {
        let mut record = two_disks();
        record.submitted_at = Some(DateTime::UNIX_EPOCH);
        assert_eq!(
            record.reattach().join(" "),
            "cvm-export wait --region ap-guangzhou --bucket b-1250000000 --since 1970-01-01T00:00:00Z \
             p_img-1_system_snap-s.raw p_img-1_data_snap-d.raw"
        );
    }
}
