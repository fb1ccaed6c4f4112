//! What a script reads when a run ends: `cvm-export.export.v1`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::download::{Downloaded, ObjectAddress};
use crate::export::record::{Record, RecordFile, RecordState};
use crate::export::request::{DiskRole, ExpectedFile, ExportRequest};
use crate::export::watch::WatchEnd;
use crate::model::{
    BucketName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, Region, SnapshotId,
    TaskId,
};

/// How far the export was when the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeState {
    /// Checked, and not submitted.
    Checked,
    /// Submitted, and not waited for.
    Submitted,
    /// Still running when the run ended.
    Running,
    /// Every file is in the bucket.
    Complete,
    /// The export vanished, or was refused.
    Failed,
    /// Nobody knows whether it was started.
    Unknown,
}

/// The result of one export, in the form that scripts rely on.
#[derive(Clone, Debug, Serialize)]
pub struct ExportOutcome {
    schema: &'static str,
    /// This tool's name for the export; `None` when nothing was submitted.
    pub export_id: Option<ExportId>,
    /// How far the export was.
    pub state: OutcomeState,
    /// Whether files that exist already are the result, so that nothing was submitted.
    pub reused: bool,
    /// The image that was asked for; `None` when a wait knows only keys.
    pub image_id: Option<ImageId>,
    /// The image's name, where it is known.
    pub image_name: Option<CloudText>,
    /// The copy that was exported in place of the image, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<ExportedCopy>,
    /// The region of bucket and exported image.
    pub region: Region,
    /// The bucket.
    pub bucket: BucketName,
    /// The files' format.
    pub format: ImageFormat,
    /// The start of the files' names.
    pub prefix: Option<Prefix>,
    /// The cloud's number for the export.
    pub task_id: Option<TaskId>,
    /// The cloud's name for the submit.
    pub request_id: Option<String>,
    /// When the cloud accepted the export.
    pub submitted_at: Option<DateTime<Utc>>,
    /// When the last file was completed.
    pub completed_at: Option<DateTime<Utc>>,
    /// When `files rm` deleted the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<DateTime<Utc>>,
    /// The command that takes the watch up again, on any machine; empty when there is nothing to watch.
    pub reattach: Vec<String>,
    /// The files, in the order in which the cloud announced them.
    pub files: Vec<OutcomeFile>,
    /// What the person should know.
    pub warnings: Vec<String>,
    /// Why the export failed or is unknown, where there is more to say than the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether a signal ended the run.
    #[serde(skip)]
    pub interrupted: bool,
    /// The record that it was made from, where there is one.
    #[serde(skip)]
    pub(crate) record: Option<Record>,
}

/// A copy that was exported in place of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedCopy {
    /// The copy, after which the files are named.
    pub image_id: ImageId,
    /// The region of the image that was asked for.
    pub copied_from_region: Region,
}

impl ExportedCopy {
    /// The copy that `record` is of, where it is of one.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let source = record.copied_from.as_ref()?;
        Some(Self {
            image_id: record.image_id.clone(),
            copied_from_region: source.region.clone(),
        })
    }
}

/// One file of an export.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeFile {
    /// Its object key, or the one that it is expected to get.
    pub key: ObjectKey,
    /// System or data.
    pub disk: DiskRole,
    /// The disk's name by the console's rule.
    pub device: String,
    /// The snapshot, where it is known.
    pub snapshot_id: Option<SnapshotId>,
    /// Its size; `None` until it is complete.
    pub size_bytes: Option<u64>,
    /// Its CRC-64/XZ in decimal, where COS names one.
    pub crc64: Option<String>,
    /// Its ETag; `None` until it is complete.
    pub etag: Option<String>,
    /// Its storage class; `None` until it is complete.
    pub storage_class: Option<String>,
    /// Where it was downloaded to, as text that can be shown.
    pub local_path: Option<String>,
    /// The SHA-256 of the downloaded file.
    pub sha256: Option<String>,
    /// What its download in this run brought.
    #[serde(skip)]
    pub downloaded: Option<Downloaded>,
}

impl ExportOutcome {
    /// The outcome of a run that ended with `record` as it is.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let state = match record.state() {
            RecordState::Queued => OutcomeState::Checked,
            RecordState::Intended => OutcomeState::Unknown,
            RecordState::Submitted => OutcomeState::Running,
            RecordState::Complete => OutcomeState::Complete,
            RecordState::Failed | RecordState::Refused | RecordState::Abandoned => {
                OutcomeState::Failed
            }
        };
        let is_watchable = record.state().is_live() || record.state() == RecordState::Complete;
        Self {
            schema: SCHEMA,
            export_id: Some(record.export_id.clone()),
            state,
            reused: false,
            image_id: Some(record.asked_image().clone()),
            image_name: record.image_name.clone(),
            copy: ExportedCopy::of(record),
            region: record.region.clone(),
            bucket: record.bucket.clone(),
            format: record.format,
            prefix: record.prefix.clone(),
            task_id: record.task_id,
            request_id: record.request_id.clone(),
            submitted_at: record.submitted_at,
            completed_at: record.completed_at,
            removed_at: record.removed_at,
            reattach: if is_watchable {
                record.reattach()
            } else {
                Vec::new()
            },
            files: record.files.iter().filter_map(OutcomeFile::of).collect(),
            warnings: record.warnings.clone(),
            reason: None,
            interrupted: false,
            record: Some(record.clone()),
        }
    }

    /// Where its files are in the cloud; those that are complete must still be the same objects.
    #[must_use]
    pub fn addresses(&self) -> Vec<ObjectAddress> {
        let files = self.files.iter();
        files
            .map(|file| ObjectAddress {
                bucket: self.bucket.clone(),
                region: self.region.clone(),
                key: file.key.clone(),
                etag: file.etag.clone(),
            })
            .collect()
    }

    /// Notes that it is unknown whether the export was started.
    pub(crate) fn set_unknown(&mut self, reason: impl Into<String>) {
        self.state = OutcomeState::Unknown;
        self.reason = Some(reason.into());
    }

    /// Notes that a file of a complete export is not there any more.
    pub(crate) fn set_gone(&mut self, reason: String) {
        self.state = OutcomeState::Failed;
        self.reattach.clear();
        self.reason.get_or_insert(reason);
    }

    /// The same outcome, of files that existed already if they are complete.
    #[must_use]
    pub(crate) fn reused(self) -> Self {
        Self {
            reused: self.state == OutcomeState::Complete,
            ..self
        }
    }

    /// The outcome of a run that left at once instead of watching.
    #[must_use]
    pub(crate) fn left_running(self) -> Self {
        Self {
            state: OutcomeState::Submitted,
            ..self
        }
    }

    /// The outcome of a run that watched `record` and ended as `end` says.
    #[must_use]
    pub fn after_watch(record: &Record, end: WatchEnd) -> Self {
        let outcome = Self::of(record);
        match end {
            WatchEnd::Complete => Self {
                state: OutcomeState::Complete,
                ..outcome
            },
            WatchEnd::Failed(reason) => Self {
                state: OutcomeState::Failed,
                reason: Some(reason),
                ..outcome
            },
            // A disk whose name was never known can't be seen complete.
            WatchEnd::TimedOut if record.files.iter().any(|file| file.names.is_empty()) => Self {
                state: OutcomeState::Unknown,
                reason: Some(
                    "the cloud announced a file whose path is not an object key".to_owned(),
                ),
                ..outcome
            },
            WatchEnd::TimedOut => Self {
                state: OutcomeState::Running,
                ..outcome
            },
            WatchEnd::Overtaken => outcome,
            WatchEnd::Started => outcome.left_running(),
            WatchEnd::Interrupted => Self {
                interrupted: true,
                ..outcome
            },
            WatchEnd::Unknown => Self {
                state: OutcomeState::Unknown,
                reason: Some("nothing of the export showed in the bucket".to_owned()),
                ..outcome
            },
        }
    }

    /// The outcome of a run that checked `request` and submitted nothing; the files are those that the
    /// export would write.
    #[must_use]
    pub fn checked(request: &ExportRequest, files: Vec<OutcomeFile>) -> Self {
        Self {
            schema: SCHEMA,
            export_id: None,
            state: OutcomeState::Checked,
            reused: false,
            image_id: Some(request.asked_image().clone()),
            image_name: None,
            copy: None,
            region: request.region.clone(),
            bucket: request.bucket.clone(),
            format: request.format,
            prefix: request.prefix.clone(),
            task_id: None,
            request_id: None,
            submitted_at: None,
            completed_at: None,
            removed_at: None,
            reattach: Vec::new(),
            files,
            warnings: Vec::new(),
            reason: None,
            interrupted: false,
            record: None,
        }
    }
}

impl ExportOutcome {
    /// The outcome of a run that a signal ended before anything was submitted.
    #[must_use]
    pub(crate) fn never_started(request: &ExportRequest) -> Self {
        let reason = "interrupted before the submit; nothing was started".to_owned();
        Self::before_export(request, OutcomeState::Checked, reason, true)
    }

    /// The outcome of a run that ended before its export was submitted, such as at a copy of the image.
    #[must_use]
    pub(crate) fn before_export(
        request: &ExportRequest,
        state: OutcomeState,
        reason: String,
        interrupted: bool,
    ) -> Self {
        Self {
            state,
            reason: Some(reason),
            interrupted,
            ..Self::checked(request, Vec::new())
        }
    }
}

const SCHEMA: &str = "cvm-export.export.v1";

impl OutcomeFile {
    /// A file that an export would write, under the name that the cloud is expected to give it.
    #[must_use]
    pub fn expected(file: &ExpectedFile) -> Option<Self> {
        Some(Self {
            key: file.names.first()?.clone(),
            disk: file.disk,
            device: file.device.clone(),
            snapshot_id: file.snapshot_id.clone(),
            size_bytes: None,
            crc64: None,
            etag: None,
            storage_class: None,
            local_path: None,
            sha256: None,
            downloaded: None,
        })
    }

    /// The file as its record knows it.
    #[must_use]
    pub fn of(file: &RecordFile) -> Option<Self> {
        let object = file.object.as_ref();
        Some(Self {
            key: file.key()?.clone(),
            disk: file.disk,
            device: file.device.clone(),
            snapshot_id: file.snapshot_id.clone(),
            size_bytes: object.map(|object| object.size_bytes),
            crc64: object.and_then(|object| object.crc64.clone()),
            etag: object.map(|object| object.etag.clone()),
            storage_class: object.map(|object| object.storage_class.clone()),
            local_path: None,
            sha256: object.and_then(|object| object.sha256.clone()),
            downloaded: None,
        })
    }
}
