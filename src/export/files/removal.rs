//! What is to be deleted, and why the rest stays. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::etag::Etag;
use super::index::{Writers, Written};
use super::retention::{Choice, Groups, Retention, Selection};
use super::{Blocked, Inventory, ListedExport, ListedState, Proof, Scope, StoredRecord};
use crate::cloud::cos::{DeleteMarker, Upload, Versioning};
use crate::error::{Error, ErrorKind};
use crate::export::outcome::ExportedCopy;
use crate::export::preflight::Fact;
use crate::export::request::{Identity, claim_key};
use crate::model::{
    BucketName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, shell_line,
};

/// What an object is to its export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A disk.
    File,
    /// The record beside the files.
    Record,
    /// A delete marker, which has no bytes.
    Marker,
}

/// How far the deletion of one object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalState {
    /// It stands.
    Planned,
    /// It is deleted.
    Deleted,
    /// A delete marker hides it; it is stored and paid for as before.
    Hidden,
    /// It was not there any more.
    Gone,
    /// Another object stands in its place, which was left alone.
    Changed,
    /// It could not be deleted.
    Failed,
}

/// One object that is to go.
#[derive(Clone, Debug, Serialize)]
pub struct DoomedObject {
    /// Its key.
    pub key: ObjectKey,
    /// The version that is to go for good.
    pub version_id: Option<String>,
    /// What it is.
    pub part: Part,
    /// Its size.
    pub size_bytes: u64,
    /// How far it is.
    pub state: RemovalState,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The storage class that a file is billed as.
    #[serde(skip)]
    pub storage_class: Option<CloudText>,
    /// The ETag of what was proven to be the export's.
    #[serde(skip)]
    pub(crate) etag: Etag,
    /// When that was written.
    #[serde(skip)]
    pub(crate) last_modified: Option<DateTime<Utc>>,
    /// Whether the last look showed a version of its own, which a delete without a version only hides.
    #[serde(skip)]
    pub(crate) is_version: bool,
}

/// One export that is to go.
#[derive(Clone, Debug, Serialize)]
pub struct DoomedExport {
    /// This tool's name for it, where a record tells it.
    pub export_id: Option<ExportId>,
    /// The image that was asked for.
    pub image_id: Option<ImageId>,
    /// The copy that was exported in place of the image, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<Box<ExportedCopy>>,
    /// The start of its files' names.
    pub prefix: Option<Prefix>,
    /// The files' format.
    pub format: ImageFormat,
    /// When its last file was completed.
    pub exported_at: Option<DateTime<Utc>>,
    /// Its age.
    pub age_seconds: Option<u64>,
    /// Its group, where a rule by age and number has chosen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<CloudText>,
    /// Why it goes.
    pub why: CloudText,
    /// Its objects, the records last.
    pub objects: Vec<DoomedObject>,
    /// Its bucket.
    #[serde(skip)]
    pub(crate) bucket: BucketName,
    /// The keys by the API's rule under which its record expects files.
    #[serde(skip)]
    pub(crate) watched: Box<[ObjectKey]>,
    /// Whether every file was there.
    #[serde(skip)]
    pub(crate) is_complete: bool,
    /// The key of its record, and the ETag of what stands there.
    #[serde(skip)]
    pub(crate) claim: Option<(ObjectKey, Option<Etag>)>,
}

/// What stays, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stay {
    /// An export or a key.
    pub what: String,
    /// The reason.
    pub why: CloudText,
    /// This tool's name for the export, if it is one as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_id: Option<ExportId>,
    /// Its group, where a rule by age and number has kept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<CloudText>,
}

impl Stay {
    pub(super) fn new(what: String, why: impl Into<CloudText>) -> Self {
        Self {
            what,
            why: why.into(),
            export_id: None,
            group: None,
        }
    }
}

/// What becomes of one group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupPlan {
    /// What its exports have in common.
    pub group: CloudText,
    /// How many exports go.
    pub goes: usize,
    /// How many stay.
    pub stays: usize,
}

/// A deletion: first a plan, then what became of it.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Where.
    pub scope: Scope,
    /// Whether the bucket keeps what is deleted; `None` where nobody could tell.
    pub versioning: Option<Versioning>,
    /// The rule by age and number, where exports were not named.
    pub rule: Option<Retention>,
    /// The groups that the rule was applied to.
    pub groups: Vec<GroupPlan>,
    /// The exports that go.
    pub exports: Vec<DoomedExport>,
    /// What stays.
    pub stays: Vec<Stay>,
    /// Those that were named and of which the journal does not know yet that nothing is left.
    pub(crate) vanished: Vec<ExportId>,
}

impl Removal {
    /// Every object of every export.
    pub fn objects(&self) -> impl Iterator<Item = &DoomedObject> {
        self.exports.iter().flat_map(|export| &export.objects)
    }

    /// Whether a plain delete frees nothing here.
    #[must_use]
    pub fn only_hides(&self) -> bool {
        !self.scope.all_versions && self.versioning == Some(Versioning::Enabled)
    }

    /// Whether a plain delete only hides what is from the time when the bucket kept versions; the rest goes for
    /// good.
    #[must_use]
    pub fn hides_some(&self) -> bool {
        !self.scope.all_versions && self.versioning == Some(Versioning::Suspended)
    }
}

impl DoomedExport {
    /// How people call it.
    #[must_use]
    pub fn title(&self) -> String {
        title(
            self.export_id.as_ref(),
            self.image_id.as_ref(),
            self.prefix.as_ref(),
        )
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

    /// The upload that writes one of its files, or may by its name.
    pub(super) fn writer<'u>(&self, writers: &Writers<'u>) -> Option<&'u Upload> {
        let files = self
            .objects
            .iter()
            .filter(|object| object.part == Part::File);
        writers.find(Written {
            files: files.map(|object| &object.key),
            watched: &self.watched,
            identity: self.identity(),
            is_complete: self.is_complete,
        })
    }
}

/// How people call an export: by its id, or by what is known of it.
fn title(
    export_id: Option<&ExportId>,
    image_id: Option<&ImageId>,
    prefix: Option<&Prefix>,
) -> String {
    match (export_id, image_id, prefix) {
        (Some(id), Some(image_id), _) => format!("export `{id}` of image `{image_id}`"),
        (_, Some(image_id), Some(prefix)) => {
            format!("the export of image `{image_id}` under prefix `{prefix}`")
        }
        (_, Some(image_id), None) => format!("the export of image `{image_id}` without prefix"),
        (_, None, Some(prefix)) => format!("the files under prefix `{prefix}`"),
        (_, None, None) => "the files without prefix".to_owned(),
    }
}

impl ListedExport {
    /// How people call it: by its id, or by what is known of it.
    #[must_use]
    pub fn title(&self) -> String {
        title(
            self.export_id.as_ref(),
            self.image_id.as_ref(),
            self.prefix.as_ref(),
        )
    }

    /// The command that watches it on this machine: by its id where the journal knows it, as `is_known` says.
    fn wait_command(&self, is_known: impl Fn(&ExportId) -> bool) -> String {
        let mut words = vec!["cvm-export".to_owned(), "wait".to_owned()];
        if let Some(id) = self.export_id.as_ref().filter(|id| is_known(id)) {
            words.push(id.to_string());
            return shell_line(&words);
        }
        let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        flag("--bucket", self.bucket.as_str());
        if let Some(prefix) = &self.prefix {
            flag("--prefix", prefix.as_str());
        }
        if let Some(identity) = self.identity() {
            flag("--id", identity.image_id.as_str());
        }
        shell_line(&words)
    }
}

/// Chooses from `inventory` what `selection` means. `is_removed` says of an export that is not there whether
/// it is known to be deleted already, and `is_known` of any whether this machine's journal has it.
///
/// # Errors
/// [`ErrorKind::Precondition`] when one that is meant runs or may run, or is not there, and
/// [`ErrorKind::Permission`] when running ones could not be told.
pub(super) fn select(
    inventory: Inventory,
    selection: &Selection,
    is_removed: impl Fn(&ExportId) -> bool,
    is_known: impl Fn(&ExportId) -> bool,
) -> Result<Removal, Error> {
    if let Some(reason) = inventory.uploads.why_unknown() {
        return Err(unseen_uploads(&inventory.uploads, reason));
    }
    let mut stays = Vec::new();
    let (choices, groups) = selection.choices(&inventory, is_removed, &mut stays)?;
    refuse_running(&inventory.exports, &choices, selection, is_known)?;
    let lookup = Lookup::of(&inventory);
    let standing = standing(&inventory);
    let mut plans = GroupPlans::of(groups);
    let mut exports = Vec::new();
    let mut left = Vec::new();
    let chosen = inventory.exports.into_iter().zip(choices);
    for (place, (export, choice)) in chosen.enumerate() {
        let (goes, why) = match (choice, &export.blocked) {
            (Choice::NotMeant, _) => continue,
            (Choice::Keep(why), _) => (false, why),
            (Choice::Remove(_), Some(blocked)) => (false, blocked.reason().into()),
            (Choice::Remove(why), None) => (true, why),
        };
        let group = plans.group_of(place);
        if goes {
            let doomed = doom(export, (group, why), &lookup, &mut left);
            plans.count(place, doomed.is_some());
            exports.extend(doomed);
            continue;
        }
        plans.count(place, false);
        stays.push(Stay {
            what: export.title(),
            why,
            export_id: export.export_id,
            group,
        });
    }
    stays.append(&mut left);
    add_markers(&mut exports, standing, inventory.markers);
    Ok(Removal {
        versioning: inventory.versioning.known().copied(),
        scope: inventory.scope,
        rule: selection.retention().copied(),
        groups: plans.list,
        exports,
        stays,
        vanished: Vec::new(),
    })
}

/// What becomes of the groups, while the exports are gone through.
struct GroupPlans {
    groups: Option<Groups>,
    list: Vec<GroupPlan>,
}

impl GroupPlans {
    fn of(groups: Option<Groups>) -> Self {
        let listed = groups.iter().flat_map(|groups| &groups.list);
        let list = listed.map(|group| GroupPlan {
            group: group.group.clone(),
            goes: 0,
            stays: 0,
        });
        Self {
            list: list.collect(),
            groups,
        }
    }

    fn group_of(&self, place: usize) -> Option<CloudText> {
        let groups = self.groups.as_ref()?;
        Some(groups.group_of(place).group.clone())
    }

    fn count(&mut self, place: usize, goes: bool) {
        let Some(groups) = &self.groups else {
            return;
        };
        let plan = &mut self.list[groups.number_of(place)];
        match goes {
            true => plan.goes += 1,
            false => plan.stays += 1,
        }
    }
}

/// Refuses the whole deletion where something that is meant runs: whoever meant it should know. One with a
/// record that cannot be read stays, unless it was named.
fn refuse_running(
    exports: &[ListedExport],
    choices: &[Choice],
    selection: &Selection,
    is_known: impl Fn(&ExportId) -> bool,
) -> Result<(), Error> {
    let mut meant = exports
        .iter()
        .zip(choices)
        .filter(|(_, choice)| matches!(choice, Choice::Remove(_)));
    let in_the_way = meant.find_map(|(export, _)| match export.blocked.as_deref() {
        Some(Blocked::UnreadableRecord { .. }) if !selection.is_named() => None,
        Some(blocked) => Some((export, blocked)),
        None => None,
    });
    let Some((export, blocked)) = in_the_way else {
        return Ok(());
    };
    let wait = export.wait_command(is_known);
    let (what, hint) = match blocked {
        Blocked::Running { .. } => (
            "may be running",
            format!(
                "wait for its end with `{wait}`; an upload that nobody writes any more is cleared by \
                 `cvm-export files rm --abort-uploads`"
            ),
        ),
        Blocked::UnreadableRecord { .. } => (
            "may be running",
            "once it is known that nothing of this image is being exported there, delete that object, such as in \
             the console, and run the command again"
                .to_owned(),
        ),
        Blocked::DownloadOwed { .. } => (
            "is still to be fetched",
            format!(
                "finish the download with `{wait} --download DIR`; seven days after the export it is not waited \
                 for any more"
            ),
        ),
    };
    let title = export.title();
    let reason = blocked.reason();
    let message = format!("{title} {what}: {reason}; nothing was deleted");
    Err(Error::new(ErrorKind::Precondition, message).with_hint(hint))
}

/// What to do about uploads that could not be listed.
pub(super) fn uploads_hint<T>(uploads: &Fact<T>) -> &'static str {
    match uploads {
        Fact::NotPermitted(_) => "allow `name/cos:ListMultipartUploads`",
        _ => "run the command again",
    }
}

fn unseen_uploads<T>(uploads: &Fact<T>, reason: &str) -> Error {
    Error::new(
        uploads.error_kind(),
        format!("whether an export runs there could not be seen ({reason}); nothing was deleted"),
    )
    .with_hint(uploads_hint(uploads))
}

/// What of the inventory is looked up for each export that goes.
struct Lookup {
    /// Objects that took the place of a file.
    foreign: HashSet<ObjectKey>,
    /// What stands under the keys of records that are not where their export is.
    standing: HashMap<ObjectKey, Etag>,
}

impl Lookup {
    fn of(inventory: &Inventory) -> Self {
        let all = || inventory.exports.iter().chain(&inventory.others);
        let files = all().flat_map(|export| &export.files);
        let foreign = files
            .filter(|file| file.proof == Proof::None && file.snapshot_id.is_some())
            .map(|file| file.key.clone())
            .collect();
        let stray = all().filter(|export| own_record(export).is_none());
        let stray: HashSet<ObjectKey> = stray.filter_map(record_key).collect();
        let records = all().flat_map(|export| &export.records);
        let standing = records
            .filter(|record| record.is_latest && stray.contains(&record.key))
            .map(|record| (record.key.clone(), record.etag.clone()))
            .collect();
        Self { foreign, standing }
    }

    /// Where the record of an export of these names stands, and which object that is now, whoever's it is.
    fn claim_of(&self, export: &ListedExport) -> Option<(ObjectKey, Option<Etag>)> {
        if let Some(record) = own_record(export) {
            return Some((record.key.clone(), Some(record.etag.clone())));
        }
        let key = record_key(export)?;
        let etag = self.standing.get(&key).cloned();
        Some((key, etag))
    }
}

/// Where the record of an export of these names stands.
fn record_key(export: &ListedExport) -> Option<ObjectKey> {
    let identity = export.identity()?;
    claim_key(identity.prefix.as_ref(), &identity.image_id).ok()
}

/// The record of an export that a GET brings; it stands in its own place.
fn own_record(export: &ListedExport) -> Option<&StoredRecord> {
    export.records.iter().find(|record| record.is_latest)
}

/// What goes of one export: its files that are proven, and its records where no file stays.
fn doom(
    export: ListedExport,
    (group, why): (Option<CloudText>, CloudText),
    lookup: &Lookup,
    stays: &mut Vec<Stay>,
) -> Option<DoomedExport> {
    let claim = lookup.claim_of(&export);
    let is_complete = export.state == ListedState::Complete;
    let mut objects = Vec::with_capacity(export.files.len() + export.records.len());
    let mut is_whole = true;
    for file in export.files {
        if file.proof == Proof::None {
            is_whole = false;
            let doubt = file.doubt.unwrap_or("nothing proves whose it is");
            stays.push(Stay::new(format!("`{}`", file.key), doubt));
            continue;
        }
        objects.push(DoomedObject {
            key: file.key,
            version_id: file.version_id,
            part: Part::File,
            size_bytes: file.size_bytes,
            state: RemovalState::Planned,
            error: None,
            storage_class: Some(file.storage_class),
            etag: file.etag,
            last_modified: file.last_modified,
            is_version: false,
        });
    }
    // The record alone says of an object that took the place of a file that it is another: without it the
    // object's name would prove that it is this export's.
    let mut watched = export.watched.iter();
    let replaced = watched.find(|key| lookup.foreign.contains(*key));
    if let (Some(key), Some(record)) = (replaced, export.records.first()) {
        let why = format!("it tells that `{key}` is not this export's");
        stays.push(Stay::new(format!("`{}`", record.key), why));
    }
    if is_whole && replaced.is_none() {
        objects.extend(export.records.into_iter().map(|record| DoomedObject {
            key: record.key,
            version_id: record.version_id,
            part: Part::Record,
            size_bytes: record.size_bytes,
            state: RemovalState::Planned,
            error: None,
            storage_class: None,
            etag: record.etag,
            last_modified: record.last_modified,
            is_version: false,
        }));
    }
    if objects.is_empty() {
        return None;
    }
    Some(DoomedExport {
        export_id: export.export_id,
        image_id: export.image_id,
        copy: export.copy,
        prefix: export.prefix,
        format: export.format,
        exported_at: export.exported_at,
        age_seconds: export.age_seconds,
        group,
        why,
        objects,
        bucket: export.bucket,
        watched: export.watched,
        is_complete,
        claim,
    })
}

/// Delete markers go before the versions of their keys, and only where all of these go: without the marker
/// a version that stays would be seen again.
fn add_markers(
    exports: &mut [DoomedExport],
    mut standing: HashMap<ObjectKey, usize>,
    markers: Vec<DeleteMarker>,
) {
    if markers.is_empty() {
        return;
    }
    let mut owners: HashMap<ObjectKey, (usize, Part)> = HashMap::new();
    for (place, export) in exports.iter().enumerate() {
        for object in &export.objects {
            if let Some(count) = standing.get_mut(&object.key) {
                *count -= 1;
                let key = object.key.clone();
                owners.entry(key).or_insert((place, object.part));
            }
        }
    }
    let mut of_export: BTreeMap<usize, (Vec<DoomedObject>, Vec<DoomedObject>)> = BTreeMap::new();
    for marker in markers {
        let (0, Some((place, part))) = (
            standing.get(&marker.key).copied().unwrap_or(1),
            owners.get(&marker.key),
        ) else {
            continue;
        };
        let marker = DoomedObject {
            key: marker.key,
            version_id: Some(marker.version_id),
            part: Part::Marker,
            size_bytes: 0,
            state: RemovalState::Planned,
            error: None,
            storage_class: None,
            etag: Etag::default(),
            last_modified: None,
            is_version: false,
        };
        let (of_files, of_records) = of_export.entry(*place).or_default();
        // Those of records are left to the end, with the records.
        match part {
            Part::File | Part::Marker => of_files.push(marker),
            Part::Record => of_records.push(marker),
        }
    }
    for (place, (of_files, of_records)) in of_export {
        let objects = &mut exports[place].objects;
        let records = objects.partition_point(|it| it.part != Part::Record);
        objects.splice(records..records, of_records);
        objects.splice(0..0, of_files);
    }
}

/// How many objects stand under each key that has a delete marker.
fn standing(inventory: &Inventory) -> HashMap<ObjectKey, usize> {
    let markers = inventory.markers.iter();
    let mut standing: HashMap<ObjectKey, usize> =
        markers.map(|marker| (marker.key.clone(), 0)).collect();
    if standing.is_empty() {
        return standing;
    }
    for export in inventory.exports.iter().chain(&inventory.others) {
        let files = export.files.iter().map(|file| &file.key);
        for key in files.chain(export.records.iter().map(|record| &record.key)) {
            if let Some(count) = standing.get_mut(key) {
                *count += 1;
            }
        }
    }
    standing
}
