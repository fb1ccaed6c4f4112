//! What a listing keeps of a record: which of the listed objects are its files, and what they prove. Pure.
//!
//! A record is large, and a bucket may have a hundred thousand. Each is compared with the listing as soon as it
//! is read, and then dropped.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::entries::{Entries, Entry, Shared};
use super::names::Name;
use super::{ListedExport, StoredRecord};
use crate::cloud::cos::Upload;
use crate::estimate::file_bytes;
use crate::export::outcome::ExportedCopy;
use crate::export::record::{Record, RecordFile, RecordState, is_since};
use crate::export::request::{DiskRole, Identity};
use crate::export::resume::default_timeout;
use crate::export::watch::is_new;
use crate::model::{BucketName, ImageFormat, ObjectKey, Prefix, Region, SnapshotId};

/// How long after its default timeout an export of which nothing is heard is still taken for one that
/// may run.
const GRACE: TimeDelta = TimeDelta::days(1);
/// How long before the submit, and after the end, that a record names its objects can have been written, by
/// clocks that do not agree.
const EARLY: TimeDelta = SKEW;
const LATE: TimeDelta = TimeDelta::hours(1);
/// How far a time may lie in the future, by clocks that do not agree.
const SKEW: TimeDelta = TimeDelta::minutes(15);

/// A record, compared with the listing.
#[derive(Debug)]
pub(super) struct Draft {
    /// The export without its files.
    pub(super) listed: ListedExport,
    pub(super) state: RecordState,
    pub(super) created_at: DateTime<Utc>,
    /// Until when it may be running if nobody has seen its end.
    pub(super) last_moment: DateTime<Utc>,
    pub(super) is_removed: bool,
    /// How many of its files have their object in the record.
    objects: usize,
    /// Its place among all that were read.
    order: u32,
    pub(super) files: Box<[DraftFile]>,
    /// The uploads that it may have begun, by their places.
    pub(super) begun: Box<[u32]>,
}

/// A file of a record.
#[derive(Debug)]
pub(super) struct DraftFile {
    pub(super) disk: DiskRole,
    pub(super) device: Arc<str>,
    pub(super) snapshot_id: Option<SnapshotId>,
    /// What the record says of the entries under its names, by their places.
    pub(super) said: Box<[(u32, Says)]>,
}

/// What a record says of an object under a name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Its,
    Not(Doubt),
}

/// Why an object is not the file that a record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// The record names another object.
    Another,
    /// Nobody has seen it complete, and its size is not that of the disk.
    Size,
}

impl Doubt {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Another => "another object than the one that its record names",
            Self::Size => "its size is not its disk's, and nobody has seen the end of that export",
        }
    }
}

/// What records are compared with.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) entries: &'a Entries,
    uploads: &'a [Upload],
    /// The places of the uploads of each key.
    uploads_of: HashMap<&'a ObjectKey, Vec<u32>>,
    bucket: &'a BucketName,
    region: &'a Region,
    /// Records come in the order of their keys, so most have the prefix of the one before.
    last_prefix: Option<Prefix>,
    count: u32,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        entries: &'a Entries,
        uploads: &'a [Upload],
        bucket: &'a BucketName,
        region: &'a Region,
    ) -> Self {
        let mut uploads_of: HashMap<&ObjectKey, Vec<u32>> = HashMap::new();
        for (place, upload) in (0..).zip(uploads) {
            uploads_of.entry(&upload.key).or_default().push(place);
        }
        Self {
            entries,
            uploads,
            uploads_of,
            bucket,
            region,
            last_prefix: None,
            count: 0,
        }
    }

    /// Compares `record`, whose names are possible ones, and drops the rest of it.
    pub(super) fn draft(
        &mut self,
        record: Record,
        stored: Option<StoredRecord>,
        shared: &mut Shared,
    ) -> Draft {
        let files = record.files.iter().map(|file| DraftFile {
            disk: file.disk,
            device: shared.word(&file.device),
            snapshot_id: file.snapshot_id.clone(),
            said: said(&record, file, self.entries).into(),
        });
        let files: Box<[DraftFile]> = files.collect();
        let begun = self.begun(&record, &files);
        let prefix = match &self.last_prefix {
            Some(last) if record.prefix.as_ref() == Some(last) => Some(last.clone()),
            _ => record.prefix.clone(),
        };
        self.last_prefix.clone_from(&prefix);
        let listed = ListedExport {
            export_id: Some(record.export_id.clone()),
            image_id: Some(record.asked_image().clone()),
            copy: ExportedCopy::of(&record).map(Box::new),
            image_name: record.image_name.clone(),
            prefix,
            template: record.prefix_template.clone().map(|text| shared.text(text)),
            exported_at: Some(record.submitted_at.unwrap_or(record.created_at)),
            owes_download: record.owes_download,
            records: stored.into_iter().collect(),
            watched: self.watched(&record),
            ..ListedExport::new(record.format, self.bucket, self.region)
        };
        self.count += 1;
        Draft {
            order: self.count,
            listed,
            state: record.state(),
            created_at: record.created_at,
            last_moment: last_moment(&record),
            is_removed: record.removed_at.is_some(),
            objects: count_objects(&record),
            files,
            begun,
        }
    }

    /// The keys by the API's rule under which its files may appear; those of listed files are shared with these.
    fn watched(&self, record: &Record) -> Box<[ObjectKey]> {
        let files = record.files.iter();
        let keys: BTreeSet<&ObjectKey> = files.flat_map(RecordFile::watched_keys).collect();
        let keys = keys.into_iter();
        let of_api = keys.filter(|key| matches!(Name::of(key), Some(Name::Api { .. })));
        let shared = of_api.map(|key| {
            let mut places = self.entries.of_key(key);
            let entry = places.next().map(|place| &self.entries.list[place]);
            entry.map_or(key, |entry| &entry.key).clone()
        });
        shared.collect()
    }

    /// The uploads that the export of `record` may have begun: they began after the submit, and are of a file
    /// that is not complete, under whatever name.
    fn begun(&self, record: &Record, files: &[DraftFile]) -> Box<[u32]> {
        if self.uploads.is_empty() {
            return Box::default();
        }
        let open = record.files.iter().zip(files);
        let open = open.filter(|(file, draft)| file.object.is_none() && !draft.is_there());
        let keys = open.flat_map(|(file, _)| file.watched_keys());
        let places = keys.filter_map(|key| self.uploads_of.get(key)).flatten();
        let places = places.copied().filter(|place| {
            let initiated = self.uploads[*place as usize].initiated;
            let times = record.submitted_at.zip(initiated);
            times.is_some_and(|(start, begun)| is_since(begun, start))
        });
        places.collect()
    }
}

impl Draft {
    /// Whether it may be running.
    pub(super) fn is_running(&self, now: DateTime<Utc>) -> bool {
        self.state.is_live() && self.last_moment >= now
    }

    /// Whether anything was ever started.
    pub(super) fn has_begun(&self) -> bool {
        self.state.is_live() || matches!(self.state, RecordState::Complete | RecordState::Failed)
    }

    /// The places of the entries that are its files by its record.
    pub(super) fn its(&self) -> impl Iterator<Item = usize> {
        let files = self.files.iter().filter(|_| self.has_begun());
        let its = files.flat_map(|file| &file.said);
        its.filter(|(_, says)| *says == Says::Its)
            .map(|(place, _)| *place as usize)
    }

    /// Whether every file of it is in the bucket.
    pub(super) fn is_all_there(&self) -> bool {
        self.files.iter().all(DraftFile::is_there)
    }

    /// How much its record knows: one that has seen the end knows more.
    fn progress(&self) -> (u8, usize) {
        let stage = match self.state {
            RecordState::Queued => 0,
            RecordState::Intended => 1,
            RecordState::Submitted => 2,
            RecordState::Complete
            | RecordState::Failed
            | RecordState::Refused
            | RecordState::Abandoned => 3,
        };
        (stage, self.objects)
    }

    /// Takes another record of the same export in, which was read after this one.
    fn take_in(&mut self, later: &mut Self) {
        let mut records = std::mem::take(&mut later.listed.records);
        records.append(&mut self.listed.records);
        // Whoever has noted the end of a download has seen it.
        let owes_download = self.listed.owes_download && later.listed.owes_download;
        if self.progress() < later.progress() {
            std::mem::swap(self, later);
        }
        self.listed.records = records;
        self.listed.owes_download = owes_download;
    }
}

impl DraftFile {
    /// Whether it is in the bucket, under whichever name.
    pub(super) fn is_there(&self) -> bool {
        self.said.iter().any(|(_, says)| *says == Says::Its)
    }
}

/// Every export once, those with a record in the bucket first, the newest first: what two records claim is
/// the newer one's.
pub(super) fn merge(drafts: &mut Vec<Draft>) {
    drafts.sort_unstable_by(|a, b| {
        (&a.listed.export_id, a.order).cmp(&(&b.listed.export_id, b.order))
    });
    drafts.dedup_by(|later, earlier| {
        let is_same = later.listed.export_id == earlier.listed.export_id;
        if is_same {
            earlier.take_in(later);
        }
        is_same
    });
    drafts.sort_unstable_by(|a, b| {
        let rank = |draft: &Draft| (draft.listed.records.is_empty(), Reverse(draft.created_at));
        (rank(a), &a.listed.export_id).cmp(&(rank(b), &b.listed.export_id))
    });
}

/// Whether a record speaks of a time that has not come: nothing that it says can be compared with the bucket.
pub(super) fn is_of_future(record: &Record, now: DateTime<Utc>) -> bool {
    let mut times = [Some(record.created_at), record.submitted_at].into_iter();
    times.any(|time| time.is_some_and(|time| time.signed_duration_since(now) > SKEW))
}

/// Whether an export that nobody has seen end can not be running any more: its default timeout, and a day,
/// are over.
pub(super) fn is_overdue(record: &Record, now: DateTime<Utc>) -> bool {
    last_moment(record) < now
}

/// Takes away the names that no file of the export can have.
pub(super) fn keep_possible_names(record: &mut Record) {
    let identity = record.identity();
    let can_have = |key: &ObjectKey| Name::of(key).is_some_and(|name| may_be_of(&identity, &name));
    for file in &mut record.files {
        file.names.retain(|name| can_have(&name.key));
        file.object.take_if(|object| !can_have(&object.key));
    }
}

/// Whether a key with `name` may be written by the export `identity`, by its name alone.
fn may_be_of(identity: &Identity, name: &Name) -> bool {
    if name.prefix() != identity.prefix.as_ref() {
        return false;
    }
    match name {
        Name::Api {
            image_id, format, ..
        } => *image_id == identity.image_id && *format == identity.format,
        Name::Console { format, .. } => *format == identity.format,
        Name::Claim { image_id, .. } => *image_id == identity.image_id,
        Name::Lease { .. } => false,
    }
}

fn count_objects(record: &Record) -> usize {
    let objects = record.files.iter().filter(|file| file.object.is_some());
    objects.count()
}

/// What `record` says of the entries under the names of `file`, by their places in the order of the keys.
fn said(record: &Record, file: &RecordFile, entries: &Entries) -> Vec<(u32, Says)> {
    let keys: BTreeSet<&ObjectKey> = file
        .watched_keys()
        .chain(file.object.iter().map(|object| &object.key))
        .collect();
    let places = keys.into_iter().flat_map(|key| entries.of_key(key));
    let said = places.filter_map(|place| {
        let says = says_of(record, file, &entries.list[place])?;
        Some((u32::try_from(place).ok()?, says))
    });
    let mut said: Vec<(u32, Says)> = said.collect();
    if file.object.is_none() {
        // Nobody has seen its end, and it has one key, however many of its names are taken. They are in the order
        // of trust, the API's with its snapshot before the console's.
        let is_its_key = |key: &ObjectKey| {
            let mut its = said.iter().filter(|(_, says)| *says == Says::Its);
            its.any(|(place, _)| entries.list[*place as usize].key == *key)
        };
        if let Some(its) = file.watched_keys().find(|key| is_its_key(key)) {
            said.retain(|(place, says)| {
                *says != Says::Its || entries.list[*place as usize].key == *its
            });
        }
    }
    said
}

/// What `record` says of one object; `None` if nothing.
fn says_of(record: &Record, file: &RecordFile, entry: &Entry) -> Option<Says> {
    if let Some(recorded) = &file.object {
        if recorded.key != entry.key {
            return None;
        }
        let is_same = !entry.etag.is_empty()
            && entry.etag == recorded.etag
            && recorded.size_bytes == entry.size_bytes;
        let is_in_time = entry
            .last_modified
            .is_none_or(|time| is_during(record, time));
        if is_same && is_in_time {
            return Some(Says::Its);
        }
        // A version from before is another export's, of which this record says nothing.
        let second = |time: DateTime<Utc>| time.trunc_subsecs(0);
        let is_before = match (entry.last_modified, recorded.last_modified) {
            (Some(written), Some(recorded)) => second(written) < second(recorded),
            _ => false,
        };
        return (!is_before).then_some(Says::Not(Doubt::Another));
    }
    let name = file.names.iter().find(|name| name.key == entry.key)?;
    let submitted_at = record.submitted_at?;
    // Nobody has noted the object, so it must have come while the export can have run.
    let is_in_time = entry
        .last_modified
        .is_some_and(|written| is_since(written, submitted_at) && written <= last_moment(record));
    if !is_in_time || !is_new(&name.baseline, &entry.meta(), submitted_at) {
        return None;
    }
    Some(
        match is_plausible(record.format, file.size_gib, entry.size_bytes) {
            true => Says::Its,
            false => Says::Not(Doubt::Size),
        },
    )
}

/// Whether the objects that `record` names can have been written at `time`.
fn is_during(record: &Record, time: DateTime<Utc>) -> bool {
    let is_early = record
        .submitted_at
        .is_some_and(|submitted_at| submitted_at.signed_duration_since(time) > EARLY);
    let is_late = match record.completed_at {
        Some(completed_at) => time.signed_duration_since(completed_at) > LATE,
        None => time > last_moment(record),
    };
    !is_early && !is_late
}

/// Whether a file of so many bytes may hold a disk of `size_gib`. A raw one is as large as its disk; the
/// others are hardly larger.
pub(super) fn is_plausible(format: ImageFormat, size_gib: Option<u64>, size_bytes: u64) -> bool {
    let Some(size_gib) = size_gib else {
        return size_bytes > 0;
    };
    let bounds = file_bytes(format, size_gib.saturating_mul(1 << 30));
    size_bytes > 0 && (bounds.low..=bounds.high).contains(&size_bytes)
}

fn last_moment(record: &Record) -> DateTime<Utc> {
    let begun = record.submitted_at.unwrap_or(record.created_at);
    let timeout = TimeDelta::from_std(default_timeout(record)).unwrap_or(TimeDelta::MAX);
    begun
        .checked_add_signed(timeout)
        .and_then(|end| end.checked_add_signed(GRACE))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
