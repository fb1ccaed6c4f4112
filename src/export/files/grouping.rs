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

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::draft::{Doubt, Draft, DraftFile, Says, is_plausible};
use super::entries::{Entries, Entry};
use super::index::{Images, Running, Unreadable, Writers, Written};
use super::names::Name;
use super::{Blocked, ListedExport, ListedFile, ListedState, Proof};
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::Upload;
use crate::export::record::RecordState;
use crate::export::request::Identity;
use crate::model::{BucketName, ImageFormat, ImageId, Prefix, Region};

/// How long a download that was begun with an export is waited for.
const DOWNLOAD_TIME: TimeDelta = TimeDelta::days(7);

/// What was looked up about one bucket.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    pub(super) bucket: &'a BucketName,
    pub(super) region: &'a Region,
    pub(super) entries: Entries,
    /// The records of the bucket and of the journal, each export once, in the order in which they claim objects.
    pub(super) drafts: Vec<Draft>,
    pub(super) running: &'a Running,
    pub(super) unreadable: &'a Unreadable,
    pub(super) uploads: &'a [Upload],
    pub(super) images: &'a Images,
    pub(super) now: DateTime<Utc>,
}

/// The exports of a bucket, the oldest first.
pub(super) fn exports(gathered: Gathered<'_>) -> Vec<ListedExport> {
    let Gathered {
        bucket,
        region,
        mut entries,
        drafts,
        running,
        unreadable,
        uploads,
        images,
        now,
    } = gathered;
    let mut claims = Claims::new(&entries);
    let list = &mut entries.list;
    let recorded = drafts.into_iter();
    let mut exports: Vec<ListedExport> = recorded
        .filter_map(|draft| of_draft(draft, list, &mut claims, now))
        .collect();
    exports.extend(unrecorded(entries, &claims, images, (bucket, region)));
    exports.shrink_to_fit();
    drop(claims);
    let writers = Writers::of(uploads);
    for export in &mut exports {
        export.size_bytes = export
            .files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
        let newest = export
            .files
            .iter()
            .filter_map(|file| file.last_modified)
            .max();
        // What a record says of its end is no measure of what stands in the bucket.
        export.exported_at = newest.or(export.exported_at);
        // COS writes times in whole seconds, and clocks differ: what has just come may seem to be of later.
        export.age_seconds = export.exported_at.map(|time| {
            let age = now.signed_duration_since(time).num_seconds();
            u64::try_from(age).unwrap_or_default()
        });
        let blocked = blocked(export, &writers, running, unreadable, now);
        if matches!(blocked, Some(Blocked::Running { .. })) {
            export.state = ListedState::Running;
        }
        export.blocked = blocked.map(Box::new);
    }
    exports.sort_unstable_by(|a, b| {
        let rest = |export: &ListedExport| export.files.first().map(|file| file.key.clone());
        (a.exported_at, &a.export_id)
            .cmp(&(b.exported_at, &b.export_id))
            .then_with(|| rest(a).cmp(&rest(b)))
    });
    exports
}

/// Which entries are an export's already, and what records say of others.
struct Claims {
    is_taken: Vec<bool>,
    doubts: HashMap<usize, Doubt>,
}

impl Claims {
    fn new(entries: &Entries) -> Self {
        Self {
            is_taken: vec![false; entries.list.len()],
            doubts: HashMap::new(),
        }
    }
}

/// The export of a record, with those of its files that no earlier record has. A record of the journal alone,
/// nothing of which is in the bucket, is for `status` to tell.
fn of_draft(
    draft: Draft,
    entries: &mut [Entry],
    claims: &mut Claims,
    now: DateTime<Utc>,
) -> Option<ListedExport> {
    let is_running = draft.is_running(now);
    let has_begun = draft.has_begun();
    let mut export = draft.listed;
    let count = draft.files.iter().map(|file| file.said.len()).sum();
    let mut found = HashSet::new();
    export.files = Vec::with_capacity(count);
    for (place, file) in draft.files.iter().enumerate().filter(|_| has_begun) {
        for (position, says) in &file.said {
            let position = *position as usize;
            if claims.is_taken[position] {
                continue;
            }
            if let Says::Not(doubt) = says {
                claims.doubts.insert(position, *doubt);
                continue;
            }
            claims.is_taken[position] = true;
            let entry = &mut entries[position];
            // What a bucket keeps of a file that was deleted or overwritten is no file.
            if entry.is_latest && !draft.is_removed {
                found.insert(place);
            }
            export.files.push(recorded_file(file, entry));
        }
    }
    export.files.shrink_to_fit();
    if export.files.is_empty() && export.records.is_empty() && !is_running {
        return None;
    }
    export.state = match (found.len(), draft.files.len()) {
        (found, all) if found == all && all > 0 => ListedState::Complete,
        _ if is_running => ListedState::Running,
        _ if draft.state.is_live() => ListedState::Lost,
        (0, _) => ListedState::Gone,
        _ => ListedState::Partial,
    };
    export.owes_download &= !export.files.is_empty();
    export.is_record_alone = draft.state == RecordState::Complete && export.files.is_empty();
    Some(export)
}

/// The entry as a file; what takes room of its own is moved, as an entry is one file's alone.
fn file_of(entry: &mut Entry, name: Option<Name>, proof: Proof) -> ListedFile {
    let (disk, device, snapshot_id) = match name {
        Some(Name::Api {
            disk, snapshot_id, ..
        }) => (Some(disk), None, Some(snapshot_id)),
        Some(Name::Console { device, .. }) => (None, Some(device.into()), None),
        _ => (None, None, None),
    };
    ListedFile {
        key: entry.key.clone(),
        version_id: entry.version_id.take(),
        is_latest: entry.is_latest,
        disk,
        device,
        snapshot_id,
        size_bytes: entry.size_bytes,
        etag: std::mem::take(&mut entry.etag),
        storage_class: entry.storage_class.clone(),
        last_modified: entry.last_modified,
        proof,
        doubt: None,
    }
}

fn recorded_file(file: &DraftFile, entry: &mut Entry) -> ListedFile {
    ListedFile {
        disk: Some(file.disk),
        device: Some(file.device.clone()),
        snapshot_id: file.snapshot_id.clone(),
        ..file_of(entry, None, Proof::Record)
    }
}

/// What no record names, by the names: those of the API of one image and prefix together, those of the
/// console of one prefix, and each object that a record disproves by itself.
fn unrecorded(
    entries: Entries,
    claims: &Claims,
    images: &Images,
    (bucket, region): (&BucketName, &Region),
) -> Vec<ListedExport> {
    type Group = (Option<Prefix>, Option<ImageId>, &'static str, Option<Doubt>);
    let mut groups: BTreeMap<Group, ListedExport> = BTreeMap::new();
    let free = entries.list.into_iter().enumerate();
    for (position, mut entry) in free.filter(|(position, _)| !claims.is_taken[*position]) {
        let Some(name) = entry.name() else {
            continue;
        };
        let (prefix, image_id, format) = match &name {
            Name::Api {
                prefix,
                image_id,
                format,
                ..
            } => (prefix.clone(), Some(image_id.clone()), *format),
            Name::Console { prefix, format, .. } => (prefix.clone(), None, *format),
            Name::Claim { .. } | Name::Lease { .. } => continue,
        };
        let image = images.of_name(&name);
        let doubt = claims.doubts.get(&position).copied();
        let (proof, why) = match (doubt, image, &image_id) {
            (Some(doubt), ..) => (Proof::None, Some(doubt.as_str())),
            (None, Some(_), _) => (Proof::Image, None),
            (None, None, Some(_)) => (
                Proof::None,
                Some("no record names it, and no image of this account and region has that disk"),
            ),
            (None, None, None) => (
                Proof::None,
                Some("no record names it, and the console's names say of no image"),
            ),
        };
        let file = ListedFile {
            doubt: why,
            ..file_of(&mut entry, Some(name), proof)
        };
        let group = (prefix, image_id, format.extension(), doubt);
        let (prefix, image_id) = (group.0.clone(), group.1.clone());
        let export = groups.entry(group).or_insert_with(|| ListedExport {
            image_id,
            image_name: image.map(|image| image.image_name.clone()),
            prefix,
            ..ListedExport::new(format, bucket, region)
        });
        export.files.push(file);
    }
    let mut exports: Vec<ListedExport> = groups.into_values().collect();
    for export in &mut exports {
        export.files.shrink_to_fit();
        let is_proven = export.files.iter().all(|file| file.proof == Proof::Image);
        let image = export.image_id.as_ref().and_then(|id| images.get(id));
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

/// Why nothing of `export` may be deleted, if there is a reason.
fn blocked(
    export: &ListedExport,
    writers: &Writers<'_>,
    running: &Running,
    unreadable: &Unreadable,
    now: DateTime<Utc>,
) -> Option<Blocked> {
    let identity = export.identity();
    let writer = writers.find(Written {
        files: export.files.iter().map(|file| &file.key),
        watched: &export.watched,
        identity: identity.clone(),
        is_complete: export.state == ListedState::Complete,
    });
    if let Some(upload) = writer {
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
        .map(|time| now.signed_duration_since(time));
    let is_recent = age.is_none_or(|age| age < DOWNLOAD_TIME);
    if export.owes_download && is_recent {
        return Some(Blocked::DownloadOwed {
            reason: "not all of its files have arrived".to_owned(),
        });
    }
    // One that runs under the same names would write over these files.
    let identity = identity?;
    let beside = running.beside(&identity, export.export_id.as_ref());
    if let Some(runner) = beside.filter(|runner| !runner.is_all_there) {
        let export_id = &runner.export_id;
        return Some(Blocked::Running {
            reason: format!("export `{export_id}` of the same names runs"),
        });
    }
    let key = unreadable.of(&identity)?;
    Some(Blocked::UnreadableRecord {
        reason: format!("the record `{key}` cannot be read, so it may be running"),
    })
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
            template: None,
            format,
            state: ListedState::Unknown,
            exported_at: None,
            age_seconds: None,
            size_bytes: 0,
            files: Vec::new(),
            records: Vec::new(),
            blocked: None,
            owes_download: false,
            is_record_alone: false,
            watched: Box::default(),
        }
    }

    /// What would make another export write the same files; `None` if nothing says which image it is of.
    pub(super) fn identity(&self) -> Option<Identity> {
        let copy = self.copy.as_ref().map(|copy| &copy.image_id);
        Some(Identity {
            bucket: self.bucket.clone(),
            image_id: copy.or(self.image_id.as_ref())?.clone(),
            prefix: self.prefix.clone(),
            format: self.format,
        })
    }
}

#[cfg(test)]
mod tests;
