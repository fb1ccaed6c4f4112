//! What happens while work goes on, as data on one channel.
//!
//! The library emits events and never prints; whoever holds the receiving end draws bars, writes
//! lines or JSON, or collects them in a test. Events carry leaf types only, so that every layer can
//! speak on the same channel without knowing the others. They are what we tell; what we promise is
//! in the journal.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::model::{BucketName, ExportId, Finding, ImageId, ObjectKey, Region, TaskId};

/// Something that happened, with its time and the image that it concerns.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When it happened, by this machine's clock.
    pub time: DateTime<Utc>,
    /// The image whose export it concerns; `None` for what concerns the whole run.
    pub image_id: Option<ImageId>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen. Durations are in milliseconds, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A value was settled that the person may want to know about, such as the region.
    Settled {
        /// What was settled and where the value came from.
        message: String,
    },
    /// The look-ups for the checks begin.
    CheckStarted {
        /// The bucket that the export will go to.
        bucket: BucketName,
        /// The image's region.
        region: Region,
    },
    /// The checks are done.
    Checked {
        /// All findings, in table order.
        findings: Vec<Finding>,
    },
    /// A call failed in a way that is worth another attempt.
    Retrying {
        /// The call, such as `DescribeImages`.
        call: String,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// How long until the next one.
        #[serde(rename = "delay_ms", serialize_with = "as_milliseconds")]
        delay: Duration,
        /// Why it failed.
        reason: String,
        /// The cloud's name for the failed request, where it answered.
        request_id: Option<String>,
    },
    /// Another process holds the lock of the same export; this one waits to attach to its result.
    LockWaiting,
    /// The cloud says "later": the account's task limit is reached or the image is busy.
    Queued {
        /// The cloud's code.
        code: String,
        /// How long until the next try.
        #[serde(rename = "delay_ms", serialize_with = "as_milliseconds")]
        delay: Duration,
    },
    /// A signal came while a call that starts something waits for its answer.
    AwaitingAnswer {
        /// How long it is waited for.
        #[serde(rename = "limit_ms", serialize_with = "as_milliseconds")]
        limit: Duration,
    },
    /// A copy of the image is being made.
    CopyStarted {
        /// The copy.
        copy: ImageId,
        /// Where it is copied from.
        from: Region,
        /// Where it will be.
        region: Region,
    },
    /// A look at a copy that is being made; told when something has changed.
    CopyProgress {
        /// The copy.
        copy: ImageId,
        /// Where it will be.
        region: Region,
        /// Its state, as the cloud names it.
        state: String,
        /// How much of it is there, in percent, where the cloud tells.
        percent: Option<u64>,
    },
    /// A copy can be exported.
    CopyReady {
        /// The copy.
        copy: ImageId,
        /// Where it is.
        region: Region,
    },
    /// A copy was deleted.
    CopyRemoved {
        /// The copy.
        copy: ImageId,
        /// Where it was.
        region: Region,
    },
    /// The export was accepted by the cloud.
    Submitted {
        /// Our name for the export.
        export_id: ExportId,
        /// The cloud's number, for people only.
        task_id: Option<TaskId>,
        /// The object keys that the cloud announced.
        keys: Vec<ObjectKey>,
        /// The command that takes the watch up again, on any machine.
        reattach: Vec<String>,
    },
    /// An export that was submitted before is watched again.
    Attached {
        /// Our name for the export.
        export_id: ExportId,
        /// Where the record was found: `journal`, `claim`, `bucket` or `command line`.
        source: &'static str,
        /// The command that takes the watch up again, on any machine.
        reattach: Vec<String>,
    },
    /// Files that exist already are the result; nothing was submitted.
    Reused {
        /// Our name for the export.
        export_id: ExportId,
        /// How long ago it was complete, if that is known.
        #[serde(rename = "age_ms", serialize_with = "as_optional_milliseconds")]
        age: Option<Duration>,
    },
    /// The watch begins.
    Watching {
        /// The files that are still to come.
        files: usize,
        /// When this run stops waiting; the export itself goes on.
        deadline: DateTime<Utc>,
    },
    /// One look at the bucket, with running totals.
    Progress {
        /// Since the submit.
        #[serde(rename = "elapsed_ms", serialize_with = "as_milliseconds")]
        elapsed: Duration,
        /// Files that are complete.
        files_done: usize,
        /// Files in all.
        files_total: usize,
        /// Bytes that the bucket holds so far, where it shows them.
        bytes_done: Option<u64>,
        /// Bytes expected in all, where the disks' sizes tell.
        bytes_total: Option<u64>,
        /// The speed since the last looks, in bytes per second, where it is known.
        bytes_per_second: Option<u64>,
        /// The time left, where it can be told.
        #[serde(rename = "remaining_ms", serialize_with = "as_optional_milliseconds")]
        remaining: Option<Duration>,
        /// What the numbers come from: `upload` (parts in the bucket) or `elapsed` (time alone).
        source: ProgressSource,
    },
    /// A file is complete in the bucket.
    FileComplete {
        /// Its key.
        key: ObjectKey,
        /// Its size.
        size_bytes: u64,
        /// Its CRC-64/XZ, where COS names one.
        crc64: Option<String>,
    },
    /// An object arrives on this machine, with running totals.
    DownloadProgress {
        /// Its key.
        key: ObjectKey,
        /// Since the start.
        #[serde(rename = "elapsed_ms", serialize_with = "as_milliseconds")]
        elapsed: Duration,
        /// Bytes that are here, those of earlier runs included.
        bytes_done: u64,
        /// Bytes of the object.
        bytes_total: u64,
        /// The speed of the last seconds, in bytes per second.
        bytes_per_second: u64,
        /// The time left, where it can be told.
        #[serde(rename = "remaining_ms", serialize_with = "as_optional_milliseconds")]
        remaining: Option<Duration>,
    },
    /// An object is on this machine.
    Downloaded {
        /// Its key.
        key: ObjectKey,
        /// Where it is, as text that can be shown; `None` when it went to a pipe.
        path: Option<String>,
        /// Its size.
        size_bytes: u64,
        /// Whether its checksum was compared with the one that COS names.
        is_verified: bool,
        /// The bytes that came over the network for it; none where it was there already.
        fetched_bytes: u64,
        /// Its SHA-256 in hexadecimal, where that was asked for.
        sha256: Option<String>,
    },
    /// How large the files of one of several images will be, as far as its disks tell.
    Expected {
        /// All files together.
        size_bytes: u64,
    },
    /// This run has done with the export of one of several images.
    Ended {
        /// How the export stands.
        state: Ending,
        /// Whether files that existed already are the result.
        reused: bool,
        /// Its files.
        files: usize,
        /// The size of those that are complete.
        size_bytes: u64,
        /// Why it is not complete, in one line.
        reason: Option<String>,
        /// What to do next, where the findings of the checks do not say it.
        hint: Option<String>,
    },
    /// The download of one of several images has come to its end.
    Landed {
        /// Why not all files are on this machine, in one line.
        reason: Option<String>,
        /// What to do next.
        hint: Option<String>,
    },
    /// Something that the person should know; the work goes on.
    Warning {
        /// What, as a lower-case fragment.
        message: String,
    },
}

/// How an export stands when a run has done with it, in the words of its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Checked, and not submitted.
    Checked,
    /// Submitted, and not waited for.
    Submitted,
    /// Still running.
    Running,
    /// Every file is in the bucket.
    Complete,
    /// Refused, or vanished.
    Failed,
    /// It is unknown whether it was started.
    Unknown,
}

/// What progress figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgressSource {
    /// The parts of unfinished uploads in the bucket.
    Upload,
    /// Elapsed time alone: the bucket shows no upload.
    Elapsed,
}

fn as_milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn as_optional_milliseconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// The sending end of the channel: cheap to clone, never blocks, and silent when nobody listens.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Option<mpsc::UnboundedSender<Event>>,
    image_id: Option<ImageId>,
}

impl Events {
    /// A channel and its receiving end.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Self {
                sender: Some(sender),
                image_id: None,
            },
            receiver,
        )
    }

    /// For those who do not care.
    #[must_use]
    pub fn discard() -> Self {
        Self {
            sender: None,
            image_id: None,
        }
    }

    /// The same channel, with every event marked as concerning `image_id`.
    #[must_use]
    pub fn about(&self, image_id: &ImageId) -> Self {
        Self {
            sender: self.sender.clone(),
            image_id: Some(image_id.clone()),
        }
    }

    /// Tells that `kind` happened now.
    pub fn emit(&self, kind: EventKind) {
        if let Some(sender) = &self.sender {
            let event = Event {
                time: crate::clock::now(),
                image_id: self.image_id.clone(),
                kind,
            };
            // A receiver that is gone has stopped listening; the work goes on without it.
            let _ = sender.send(event);
        }
    }

    /// Emits a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(EventKind::Warning {
            message: message.into(),
        });
    }
}
