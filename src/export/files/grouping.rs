//! From objects and records to exports: which object is whose, and what proves it. Pure.
//!
//! Three things can prove that an object is a file of an export:
//!
//! - a record names this very object, by key, ETag and size, and it was written while that export ran;
//! - a record of an export whose end nobody has seen names its key, it was written while that export
//!   can have run, and it has the size of its disk;
//! - its name is the API's, and the account has an image of that id with a disk of that snapshot.
//!
//! A record that names another object for the key disproves it, and so does one whose disk has another size.
//! The console's names prove nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::names::Name;
use super::{Blocked, ListedExport, ListedFile, ListedState, Proof, StoredRecord};
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::{DeleteMarker, ObjectEntry, ObjectMeta, Upload};
use crate::estimate::file_bytes;
use crate::export::outcome::ExportedCopy;
use crate::export::record::{Record, RecordFile, RecordState, is_since};
use crate::export::request::{DiskRole, Identity};
use crate::export::resume::default_timeout;
use crate::export::watch::is_new;
use crate::model::{BucketName, ImageFormat, ImageId, ObjectKey, Prefix, Region};

/// How long after its default timeout an export of which nothing is heard is still taken for one that
/// may run.
const GRACE: TimeDelta = TimeDelta::days(1);
/// How long a download that was begun with an export is waited for.
const DOWNLOAD_TIME: TimeDelta = TimeDelta::days(7);
/// How long before the submit, and after the end, that a record names its objects can have been written, by
/// clocks that do not agree.
const EARLY: TimeDelta = SKEW;
const LATE: TimeDelta = TimeDelta::hours(1);
/// How far a time may lie in the future, by clocks that do not agree.
const SKEW: TimeDelta = TimeDelta::minutes(15);

/// An object, or a version of one, whose name or record says that it may be of an export.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) object: ObjectEntry,
    pub(super) name: Option<Name>,
    /// Its version, where versions were listed.
    pub(super) version_id: Option<String>,
    pub(super) is_latest: bool,
}

/// A record, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) record: Record,
    /// The objects in the bucket that hold it; none where only the journal does.
    pub(super) stored: Vec<StoredRecord>,
}

/// What was looked up about one bucket.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) bucket: BucketName,
    pub(super) region: Region,
    pub(super) entries: Vec<Entry>,
    pub(super) markers: Vec<DeleteMarker>,
    /// Those of the bucket and those of the journal, each export once.
    pub(super) records: Vec<Known>,
    /// Where a record stands that cannot be read.
    pub(super) unreadable: Vec<(ObjectKey, Option<Prefix>, ImageId)>,
    pub(super) uploads: Vec<Upload>,
    pub(super) images: Vec<Image>,
    pub(super) now: DateTime<Utc>,
}

/// Whether an export that nobody has seen end can not be running any more: its default timeout, and a day,
/// are over.
pub(super) fn is_overdue(record: &Record, now: DateTime<Utc>) -> bool {
    last_moment(record) < now
}

/// Whether a record speaks of a time that has not come: nothing that it says can be compared with the bucket.
pub(super) fn is_of_future(record: &Record, now: DateTime<Utc>) -> bool {
    let mut times = [Some(record.created_at), record.submitted_at].into_iter();
    times.any(|time| time.is_some_and(|time| time.signed_duration_since(now) > SKEW))
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
fn is_plausible(format: ImageFormat, size_gib: Option<u64>, size_bytes: u64) -> bool {
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

/// Whether a key with `name` may be written by the export `identity`, by its name alone.
pub(super) fn may_be_of(identity: &Identity, name: &Name) -> bool {
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

/// The exports of a bucket, the oldest first.
pub(super) fn exports(gathered: &Gathered) -> Vec<ListedExport> {
    let Gathered { entries, now, .. } = gathered;
    let places = Places::of(entries);
    let mut is_taken = vec![false; entries.len()];
    let mut doubts: Vec<Option<Doubt>> = vec![None; entries.len()];
    let mut exports = Vec::new();
    for known in &gathered.records {
        let record = &known.record;
        let has_begun = record.state.is_live()
            || matches!(record.state, RecordState::Complete | RecordState::Failed);
        let mut files = Vec::new();
        let mut found = BTreeSet::new();
        for (place, file) in record.files.iter().enumerate().filter(|_| has_begun) {
            let key = key_of(record, file, entries, &places);
            for position in places.of_file(file) {
                let entry = &entries[position];
                if is_taken[position] || matches!(entry.name, Some(Name::Claim { .. })) {
                    continue;
                }
                match says_of(record, file, entry) {
                    Says::Its if key.is_some_and(|key| *key != entry.object.key) => {}
                    Says::Nothing => {}
                    Says::Not(doubt) => doubts[position] = Some(doubt),
                    Says::Its => {
                        is_taken[position] = true;
                        // What a bucket keeps of a file that was deleted or overwritten is no file.
                        if entry.is_latest && record.removed_at.is_none() {
                            found.insert(place);
                        }
                        files.push(recorded_file(file, entry));
                    }
                }
            }
        }
        // A record of the journal alone, nothing of which is in the bucket, is for `status` to tell.
        let is_running = record.state.is_live() && !is_overdue(record, *now);
        if files.is_empty() && known.stored.is_empty() && !is_running {
            continue;
        }
        let state = match (found.len(), record.files.len()) {
            (found, all) if found == all && all > 0 => ListedState::Complete,
            _ if is_running => ListedState::Running,
            _ if record.state.is_live() => ListedState::Lost,
            (0, _) => ListedState::Gone,
            _ => ListedState::Partial,
        };
        exports.push(of_record(known, state, files));
    }
    exports.extend(unrecorded(gathered, &is_taken, &doubts));
    for export in &mut exports {
        export.bucket = gathered.bucket.clone();
        export.region = gathered.region.clone();
        export.size_bytes = export
            .files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
        let newest = export
            .files
            .iter()
            .filter_map(|file| file.last_modified)
            .max();
        export.exported_at = export.exported_at.or(newest);
        // COS writes times in whole seconds, and clocks differ: what has just come may seem to be of later.
        export.age_seconds = export.exported_at.map(|time| {
            let age = now.signed_duration_since(time).num_seconds();
            u64::try_from(age).unwrap_or_default()
        });
        export.blocked = blocked(export, gathered, &places);
        if matches!(export.blocked, Some(Blocked::Running { .. })) {
            export.state = ListedState::Running;
        }
    }
    exports.sort_by(|a, b| (a.exported_at, &a.export_id).cmp(&(b.exported_at, &b.export_id)));
    exports
}

/// The key under which the file of an export stands whose end nobody has seen: it has one, however many of
/// its names are taken. `None` where the record names the object, or none is there.
fn key_of<'a>(
    record: &Record,
    file: &'a RecordFile,
    entries: &[Entry],
    places: &Places<'_>,
) -> Option<&'a ObjectKey> {
    if file.object.is_some() {
        return None;
    }
    // The names stand in the order of trust, the API's with its snapshot before the console's.
    file.watched_keys().find(|key| {
        let mut positions = places.of_file(file).map(|position| &entries[position]);
        positions.any(|entry| {
            entry.object.key == **key && matches!(says_of(record, file, entry), Says::Its)
        })
    })
}

/// What a record says of an object.
enum Says {
    Nothing,
    Its,
    Not(Doubt),
}

/// Why an object is not the file that a record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// The record names another object.
    Another,
    /// Nobody has seen it complete, and its size is not that of the disk.
    Size,
}

impl Doubt {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Another => "another object than the one that its record names",
            Self::Size => "its size is not its disk's, and nobody has seen the end of that export",
        }
    }
}

fn says_of(record: &Record, file: &RecordFile, entry: &Entry) -> Says {
    let object = &entry.object;
    if let Some(recorded) = &file.object {
        if recorded.key != object.key {
            return Says::Nothing;
        }
        let is_same = !object.etag.is_empty()
            && recorded.etag == object.etag
            && recorded.size_bytes == object.size_bytes;
        let is_in_time = object
            .last_modified
            .is_none_or(|time| is_during(record, time));
        if is_same && is_in_time {
            return Says::Its;
        }
        // A version from before is another export's, of which this record says nothing.
        let second = |time: DateTime<Utc>| time.trunc_subsecs(0);
        let is_before = match (object.last_modified, recorded.last_modified) {
            (Some(written), Some(recorded)) => second(written) < second(recorded),
            _ => false,
        };
        return if is_before {
            Says::Nothing
        } else {
            Says::Not(Doubt::Another)
        };
    }
    let name = file.names.iter().find(|name| name.key == object.key);
    let (Some(name), Some(submitted_at)) = (name, record.submitted_at) else {
        return Says::Nothing;
    };
    // Nobody has noted the object, so it must have come while the export can have run.
    let is_in_time = object
        .last_modified
        .is_some_and(|written| is_since(written, submitted_at) && written <= last_moment(record));
    if !is_in_time || !is_new(&name.baseline, &meta_of(entry), submitted_at) {
        return Says::Nothing;
    }
    match is_plausible(record.format, file.size_gib, object.size_bytes) {
        true => Says::Its,
        false => Says::Not(Doubt::Size),
    }
}

/// A listed object as HEAD would tell it, so that both can be compared.
fn meta_of(entry: &Entry) -> ObjectMeta {
    let object = &entry.object;
    ObjectMeta {
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        etag: object.etag.clone(),
        crc64: None,
        storage_class: object.storage_class.to_string(),
        last_modified: object.last_modified.map(|time| time.trunc_subsecs(0)),
        version_id: entry.version_id.clone(),
    }
}

fn file_of(entry: &Entry, proof: Proof) -> ListedFile {
    let object = &entry.object;
    let (disk, device, snapshot_id) = match &entry.name {
        Some(Name::Api {
            disk, snapshot_id, ..
        }) => (Some(*disk), None, Some(snapshot_id.clone())),
        Some(Name::Console { device, .. }) => (None, Some(device.clone()), None),
        _ => (None, None, None),
    };
    ListedFile {
        key: object.key.clone(),
        version_id: entry.version_id.clone(),
        is_latest: entry.is_latest,
        disk,
        device,
        snapshot_id,
        size_bytes: object.size_bytes,
        etag: object.etag.clone(),
        storage_class: object.storage_class.clone(),
        last_modified: object.last_modified,
        proof,
        doubt: None,
    }
}

fn recorded_file(file: &RecordFile, entry: &Entry) -> ListedFile {
    ListedFile {
        disk: Some(file.disk),
        device: Some(file.device.clone()),
        snapshot_id: file.snapshot_id.clone(),
        ..file_of(entry, Proof::Record)
    }
}

fn of_record(known: &Known, state: ListedState, files: Vec<ListedFile>) -> ListedExport {
    let record = &known.record;
    let newest = files.iter().filter_map(|file| file.last_modified).max();
    // What the record says of its end is no measure of what stands in the bucket.
    let ended_at = newest.or(record.submitted_at);
    ListedExport {
        export_id: Some(record.export_id.clone()),
        image_id: Some(record.asked_image().clone()),
        copy: ExportedCopy::of(record),
        image_name: record.image_name.clone(),
        prefix: record.prefix.clone(),
        state,
        exported_at: Some(ended_at.unwrap_or(record.created_at)),
        owes_download: record.owes_download && !files.is_empty(),
        is_record_alone: record.state == RecordState::Complete && files.is_empty(),
        files,
        records: known.stored.clone(),
        identity: Some(record.identity()),
        watched: record
            .files
            .iter()
            .flat_map(RecordFile::watched_keys)
            .cloned()
            .collect(),
        ..ListedExport::new(record.format, &record.bucket, &record.region)
    }
}

/// What no record names, by the names: those of the API of one image and prefix together, those of the
/// console of one prefix, and each object that a record disproves by itself.
fn unrecorded(
    gathered: &Gathered,
    is_taken: &[bool],
    doubts: &[Option<Doubt>],
) -> Vec<ListedExport> {
    type Group<'a> = (
        Option<&'a Prefix>,
        Option<&'a ImageId>,
        &'static str,
        Option<Doubt>,
    );
    let mut groups: BTreeMap<Group<'_>, ListedExport> = BTreeMap::new();
    for (position, entry) in gathered.entries.iter().enumerate() {
        let (prefix, image_id, format) = match &entry.name {
            _ if is_taken[position] => continue,
            Some(Name::Api {
                prefix,
                image_id,
                format,
                ..
            }) => (prefix, Some(image_id), *format),
            Some(Name::Console { prefix, format, .. }) => (prefix, None, *format),
            _ => continue,
        };
        let doubt = doubts[position];
        let name = entry.name.as_ref();
        let image = name.and_then(|name| image_of(&gathered.images, name));
        let file = match (doubt, image) {
            (Some(doubt), _) => ListedFile {
                doubt: Some(doubt.as_str()),
                ..file_of(entry, Proof::None)
            },
            (None, Some(_)) => file_of(entry, Proof::Image),
            (None, None) => ListedFile {
                doubt: Some(match image_id {
                    Some(_) => {
                        "no record names it, and no image of this account and region has that disk"
                    }
                    None => "no record names it, and the console's names say of no image",
                }),
                ..file_of(entry, Proof::None)
            },
        };
        let group = (prefix.as_ref(), image_id, format.extension(), doubt);
        let export = groups.entry(group).or_insert_with(|| {
            let identity = image_id.map(|image_id| Identity {
                bucket: gathered.bucket.clone(),
                image_id: image_id.clone(),
                prefix: prefix.clone(),
                format,
            });
            ListedExport {
                image_id: image_id.cloned(),
                image_name: image.map(|image| image.image_name.clone()),
                prefix: prefix.clone(),
                identity,
                ..ListedExport::new(format, &gathered.bucket, &gathered.region)
            }
        });
        export.files.push(file);
    }
    let mut exports: Vec<ListedExport> = groups.into_values().collect();
    for export in &mut exports {
        let is_proven = export.files.iter().all(|file| file.proof == Proof::Image);
        let image_id = export.image_id.as_ref();
        let image = image_id.and_then(|id| {
            gathered
                .images
                .iter()
                .find(|it| it.image_id == *id.as_str())
        });
        export.state = match image.filter(|_| is_proven) {
            None => ListedState::Unknown,
            Some(image) if has_all_disks(export, image) => ListedState::Complete,
            Some(_) => ListedState::Partial,
        };
    }
    exports
}

/// Whether each disk of `image` has a file that can be it.
fn has_all_disks(export: &ListedExport, image: &Image) -> bool {
    image.snapshot_set.iter().all(|snapshot| {
        let mut files = export.files.iter().filter(|file| file.is_latest);
        files.any(|file| {
            let snapshot_id = file.snapshot_id.as_ref();
            snapshot_id.is_some_and(|id| snapshot.snapshot_id == *id.as_str())
                && is_plausible(export.format, Some(snapshot.disk_size), file.size_bytes)
        })
    })
}

/// The image whose disk a file is by its name.
pub(super) fn image_of<'a>(images: &'a [Image], name: &Name) -> Option<&'a Image> {
    let Name::Api {
        image_id,
        disk,
        snapshot_id,
        ..
    } = name
    else {
        return None;
    };
    let usage = match disk {
        DiskRole::System => "SYSTEM_DISK",
        DiskRole::Data => "DATA_DISK",
    };
    images.iter().find(|image| {
        image.image_id == *image_id.as_str()
            && image.snapshot_set.iter().any(|snapshot| {
                snapshot.snapshot_id == *snapshot_id.as_str() && snapshot.disk_usage == *usage
            })
    })
}

/// Why nothing of `export` may be deleted, if there is a reason.
fn blocked(export: &ListedExport, gathered: &Gathered, places: &Places<'_>) -> Option<Blocked> {
    if let Some(upload) = gathered
        .uploads
        .iter()
        .find(|upload| export.is_written_by(upload))
    {
        return Some(Blocked::Running {
            reason: format!("an upload of `{}` is unfinished", upload.key),
        });
    }
    if export.state == ListedState::Running {
        return Some(Blocked::Running {
            reason: "it was submitted, and nobody has seen its end".to_owned(),
        });
    }
    let age = export
        .exported_at
        .map(|time| gathered.now.signed_duration_since(time));
    let is_recent = age.is_none_or(|age| age < DOWNLOAD_TIME);
    if export.owes_download && is_recent {
        return Some(Blocked::DownloadOwed {
            reason: "not all of its files have arrived".to_owned(),
        });
    }
    // One that runs under the same names would write over these files.
    let identity = export.identity.as_ref()?;
    let running = gathered.records.iter().find(|known| {
        let record = &known.record;
        let is_running = record.state.is_live() && !is_overdue(record, gathered.now);
        is_running
            && record.identity() == *identity
            && Some(&record.export_id) != export.export_id.as_ref()
    });
    if let Some(known) = running.filter(|known| !is_all_there(known, gathered, places)) {
        return Some(Blocked::Running {
            reason: format!("export `{}` of the same names runs", known.record.export_id),
        });
    }
    let (key, ..) = gathered.unreadable.iter().find(|(_, prefix, image_id)| {
        *prefix == identity.prefix && *image_id == identity.image_id
    })?;
    Some(Blocked::UnreadableRecord {
        reason: format!("the record `{key}` cannot be read, so it may be running"),
    })
}

/// Whether a file of a record stands in the bucket, under whichever name.
pub(super) fn stands(record: &Record, file: &RecordFile, entries: &[Entry]) -> bool {
    let mut entries = entries.iter();
    file.object.is_some() || entries.any(|entry| matches!(says_of(record, file, entry), Says::Its))
}

/// Whether every file of a record stands in the bucket.
fn is_all_there(known: &Known, gathered: &Gathered, places: &Places<'_>) -> bool {
    let record = &known.record;
    record.files.iter().all(|file| {
        let mut entries = places.of_file(file).map(|place| &gathered.entries[place]);
        entries.any(|entry| matches!(says_of(record, file, entry), Says::Its))
    })
}

/// Where the entries of each key are.
struct Places<'a>(HashMap<&'a ObjectKey, Vec<usize>>);

impl<'a> Places<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut places: HashMap<&ObjectKey, Vec<usize>> = HashMap::new();
        for (place, entry) in entries.iter().enumerate() {
            places.entry(&entry.object.key).or_default().push(place);
        }
        Self(places)
    }

    /// Those under the names of `file`.
    fn of_file(&self, file: &RecordFile) -> impl Iterator<Item = usize> {
        let keys: BTreeSet<&ObjectKey> = file
            .watched_keys()
            .chain(file.object.iter().map(|object| &object.key))
            .collect();
        let places = keys.into_iter().filter_map(|key| self.0.get(key));
        places.flatten().copied()
    }
}

impl ListedExport {
    pub(super) fn new(format: ImageFormat, bucket: &BucketName, region: &Region) -> Self {
        Self {
            export_id: None,
            bucket: bucket.clone(),
            region: region.clone(),
            image_id: None,
            copy: None,
            image_name: None,
            prefix: None,
            format,
            state: ListedState::Unknown,
            exported_at: None,
            age_seconds: None,
            size_bytes: 0,
            files: Vec::new(),
            records: Vec::new(),
            blocked: None,
            identity: None,
            owes_download: false,
            is_record_alone: false,
            watched: BTreeSet::new(),
        }
    }

    /// Whether an unfinished upload writes one of its files, or may by its name.
    pub(super) fn is_written_by(&self, upload: &Upload) -> bool {
        if self.files.iter().any(|file| file.key == upload.key) {
            return true;
        }
        let is_watched = self.watched.contains(&upload.key);
        let name = Name::of(&upload.key);
        let may_be_its = name.as_ref().is_some_and(|name| {
            let identity = self.identity.as_ref();
            identity.is_some_and(|identity| may_be_of(identity, name))
        });
        match self.state {
            // A file that is complete has no upload under its other name, and the console's say of no image.
            ListedState::Complete => {
                may_be_its && !is_watched && matches!(name, Some(Name::Api { .. }))
            }
            _ => is_watched || may_be_its,
        }
    }
}

#[cfg(test)]
mod tests;
