//! Every look-up behind an inventory.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt};

use super::grouping::{self, Entry, Gathered, Known};
use super::names::Name;
use super::{Inventory, Scope, StoredRecord, uploads};
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::{CosError, CosErrorKind, DeleteMarker, Upload, VersionEntry};
use crate::error::{Error, ErrorKind};
use crate::export::Exporter;
use crate::export::claim::{self, CLAIM_LIMIT_BYTES};
use crate::export::preflight::Fact;
use crate::export::record::{Record, RecordState};
use crate::export::request::claim_key;
use crate::model::{ImageId, ObjectKey, Prefix};

/// Records that are read at once.
const CONCURRENT_READS: usize = 16;
const OF_FUTURE: &str = "it speaks of a time that has not come";

pub(super) async fn inventory(exporter: &Exporter, scope: Scope) -> Result<Inventory, Error> {
    let (mut own, unreadable) = exporter.journal.all()?;
    for line in unreadable {
        exporter.events.warn(line);
    }
    own.retain(|record| is_wanted(&scope, record));
    // It may have been taken over from a bucket.
    own.iter_mut().for_each(keep_possible_names);
    let now = exporter.cloud.now();
    let is_of_future = |record: &mut Record| grouping::is_of_future(record, now);
    let of_future: Vec<Record> = own.extract_if(.., is_of_future).collect();

    let cos = exporter.cloud.cos();
    let versioning = cos.get_versioning(&scope.bucket, &scope.region);
    // Asked before the listing: an upload that is completed meanwhile is then seen at least once.
    let start = scope.prefix.keys_start();
    let listed = cos.all_uploads(&scope.bucket, &scope.region, &start);
    let (versioning, listed) = tokio::join!(versioning, listed);
    let versioning = fact(versioning)?;
    let listed = fact(listed)?;
    let listing = list(exporter, &scope).await?;
    let mut stored = read_records(exporter, &scope, &listing.entries).await?;
    for record in of_future {
        let export_id = &record.export_id;
        exporter.events.warn(format!(
            "export `{export_id}` of the journal is left alone: {OF_FUTURE}"
        ));
        if let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) {
            stored
                .unreadable
                .push((key, record.prefix, record.image_id));
        }
    }
    let uploads = listed.known().map_or(&[][..], Vec::as_slice);
    let images = images(exporter, &scope, &own, &stored, &listing.entries, uploads).await?;
    let seen_at = exporter.cloud.now();
    let gathered = Gathered {
        bucket: scope.bucket.clone(),
        region: scope.region.clone(),
        entries: listing.entries,
        markers: listing.markers,
        records: merge(own, stored.records),
        unreadable: stored.unreadable,
        uploads: listed.known().cloned().unwrap_or_default(),
        images,
        now: seen_at,
    };
    let (exports, others) = grouping::exports(&gathered)
        .into_iter()
        .partition(|export| scope.wants(export.image_id.as_ref(), export.copy.as_ref()));
    let uploads = match listed {
        Fact::Known(_) => Fact::Known(uploads::of_exports(&gathered, &scope)),
        Fact::NotPermitted(reason) => Fact::NotPermitted(reason),
        Fact::NoAnswer(reason) => Fact::NoAnswer(reason),
        Fact::NotAsked => Fact::NotAsked,
    };
    Ok(Inventory {
        exports,
        others,
        uploads,
        versioning,
        other_objects: listing.others,
        seen_at,
        markers: gathered.markers,
        scope,
    })
}

fn is_wanted(scope: &Scope, record: &Record) -> bool {
    record.bucket == scope.bucket && scope.prefix.covers(record.prefix.as_ref())
}

/// What could not be looked up, as a fact; keys that COS does not accept end the run.
fn fact<T>(answer: Result<T, CosError>) -> Result<Fact<T>, Error> {
    match answer {
        Ok(value) => Ok(Fact::Known(value)),
        Err(error) => match error.kind() {
            CosErrorKind::Credentials => Err(error.into()),
            CosErrorKind::NotPermitted => Ok(Fact::NotPermitted(error.to_string())),
            _ => Ok(Fact::NoAnswer(error.to_string())),
        },
    }
}

/// What the listing brought.
#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    markers: Vec<DeleteMarker>,
    others: u64,
}

impl Listing {
    /// Takes an object in that may be of an export, or counts it.
    fn take(&mut self, scope: &Scope, found: VersionEntry) {
        let name = Name::of(&found.object.key);
        if matches!(name, Some(Name::Lease { .. })) {
            return;
        }
        let is_covered = name
            .as_ref()
            .is_some_and(|name| scope.prefix.covers(name.prefix()));
        if is_covered {
            self.entries.push(Entry {
                object: found.object,
                name,
                version_id: found.version_id,
                is_latest: found.is_latest,
            });
        } else {
            self.others += 1;
        }
    }
}

async fn list(exporter: &Exporter, scope: &Scope) -> Result<Listing, Error> {
    let cos = exporter.cloud.cos();
    let (bucket, region) = (&scope.bucket, &scope.region);
    let start = scope.prefix.keys_start();
    let mut listing = Listing::default();
    if scope.all_versions {
        // A page never leads to a key before it; among the versions of one key it might.
        let mut passed = HashSet::new();
        let mut marker = None;
        loop {
            let page = cos
                .list_versions(bucket, region, &start, marker.as_ref())
                .await?;
            listing.others += page.others as u64;
            for version in page.versions {
                listing.take(scope, version);
            }
            let markers = page.markers.into_iter();
            listing.markers.extend(markers.filter(|marker| {
                Name::of(&marker.key).is_some_and(|name| {
                    !matches!(name, Name::Lease { .. }) && scope.prefix.covers(name.prefix())
                })
            }));
            let Some(next) = page.next else {
                return Ok(listing);
            };
            if !passed.insert(next.clone()) {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "the list of versions leads back to a page that was read already",
                ));
            }
            marker = Some(next);
        }
    }
    let mut marker: Option<String> = None;
    loop {
        let page = cos
            .list_objects(bucket, region, &start, marker.as_deref())
            .await?;
        listing.others += page.others as u64;
        for object in page.objects {
            let current = VersionEntry {
                version_id: None,
                is_latest: true,
                object,
            };
            listing.take(scope, current);
        }
        if page.next_marker.is_none() {
            return Ok(listing);
        }
        marker = page.next_marker;
    }
}

/// The records that stand in the bucket.
#[derive(Default)]
struct Stored {
    records: Vec<Known>,
    unreadable: Vec<(ObjectKey, Option<Prefix>, ImageId)>,
}

async fn read_records(
    exporter: &Exporter,
    scope: &Scope,
    entries: &[Entry],
) -> Result<Stored, Error> {
    let claims = entries.iter().filter_map(|entry| match &entry.name {
        Some(Name::Claim { prefix, image_id }) => Some((entry, prefix, image_id)),
        _ => None,
    });
    let reads = claims.map(|(entry, prefix, image_id)| async move {
        let read = read_record(exporter, scope, entry, prefix.as_ref(), image_id).await?;
        Ok::<_, Error>((entry, prefix, image_id, read))
    });
    let reads = futures_util::stream::iter(reads).buffered(CONCURRENT_READS);
    let reads: Vec<_> = reads.try_collect().await?;
    let mut stored = Stored::default();
    for (entry, prefix, image_id, read) in reads {
        match read {
            Ok(None) => {}
            Ok(Some(record)) => stored.records.push(Known {
                record,
                stored: vec![StoredRecord {
                    key: entry.object.key.clone(),
                    version_id: entry.version_id.clone(),
                    is_latest: entry.is_latest,
                    size_bytes: entry.object.size_bytes,
                    etag: entry.object.etag.clone(),
                    last_modified: entry.object.last_modified,
                }],
            }),
            Err(problem) => {
                let key = &entry.object.key;
                exporter
                    .events
                    .warn(format!("`{key}` is left alone: {problem}"));
                let unreadable = (key.clone(), prefix.clone(), image_id.clone());
                stored.unreadable.push(unreadable);
            }
        }
    }
    Ok(stored)
}

/// One record, or why it is none that can be used. Anybody who may write to the bucket may have written it,
/// so it counts only where it speaks of its own place, and only for names that its export can have.
async fn read_record(
    exporter: &Exporter,
    scope: &Scope,
    entry: &Entry,
    prefix: Option<&Prefix>,
    image_id: &ImageId,
) -> Result<Result<Option<Record>, String>, Error> {
    let (bucket, region) = (&scope.bucket, &scope.region);
    let (key, version_id) = (&entry.object.key, entry.version_id.as_deref());
    let reading =
        exporter
            .cloud
            .cos()
            .get_small_object(bucket, region, key, version_id, CLAIM_LIMIT_BYTES);
    if entry.object.size_bytes > CLAIM_LIMIT_BYTES as u64 {
        return Ok(Err("it is too large for a record".to_owned()));
    }
    let body = match reading.await {
        Ok(None) => return Ok(Ok(None)),
        Ok(Some((_, body))) => body,
        Err(error) if error.kind() == CosErrorKind::Credentials => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut record = match claim::parse(&body) {
        Ok(record) => record,
        Err(problem) => return Ok(Err(problem.to_string())),
    };
    let is_its_own = record.bucket == *bucket
        && record.prefix.as_ref() == prefix
        && record.image_id == *image_id
        && record.names_itself();
    if !is_its_own {
        return Ok(Err("it is a copy of another place's record".to_owned()));
    }
    if grouping::is_of_future(&record, exporter.cloud.now()) {
        return Ok(Err(OF_FUTURE.to_owned()));
    }
    keep_possible_names(&mut record);
    Ok(Ok(Some(record)))
}

/// Takes away the names that no file of the export can have.
fn keep_possible_names(record: &mut Record) {
    let identity = record.identity();
    let can_have =
        |key: &ObjectKey| Name::of(key).is_some_and(|name| grouping::may_be_of(&identity, &name));
    for file in &mut record.files {
        file.names.retain(|name| can_have(&name.key));
        file.object.take_if(|object| !can_have(&object.key));
    }
}

/// Every export once, those with a record in the bucket first, the newest first: what two records claim is
/// the newer one's.
fn merge(own: Vec<Record>, stored: Vec<Known>) -> Vec<Known> {
    let mut merged: BTreeMap<_, Known> = BTreeMap::new();
    let own = own.into_iter().map(|record| Known {
        record,
        stored: Vec::new(),
    });
    for mut known in own.chain(stored) {
        let export_id = known.record.export_id.clone();
        match merged.remove(&export_id) {
            None => {}
            Some(other) => {
                known.stored.extend(other.stored);
                // Whoever has noted the end of a download has seen it.
                let owes_download = known.record.owes_download && other.record.owes_download;
                if progress(&other.record) >= progress(&known.record) {
                    known.record = other.record;
                }
                known.record.owes_download = owes_download;
            }
        }
        merged.insert(export_id, known);
    }
    let mut merged: Vec<Known> = merged.into_values().collect();
    merged.sort_by_key(|known| {
        let created_at = known.record.created_at;
        (known.stored.is_empty(), std::cmp::Reverse(created_at))
    });
    merged
}

/// How much a record knows: one that has seen the end knows more.
fn progress(record: &Record) -> (u8, usize) {
    let stage = match record.state {
        RecordState::Queued => 0,
        RecordState::Intended => 1,
        RecordState::Submitted => 2,
        RecordState::Complete
        | RecordState::Failed
        | RecordState::Refused
        | RecordState::Abandoned => 3,
    };
    let objects = record.files.iter().filter(|file| file.object.is_some());
    (stage, objects.count())
}

/// The account's images, where a name of the API stands that no record names, or is being written. Without the right to list
/// them such a name proves nothing.
async fn images(
    exporter: &Exporter,
    scope: &Scope,
    own: &[Record],
    stored: &Stored,
    entries: &[Entry],
    uploads: &[Upload],
) -> Result<Vec<Image>, Error> {
    let records = own
        .iter()
        .chain(stored.records.iter().map(|known| &known.record));
    let recorded: BTreeSet<(&ObjectKey, &str)> = records
        .flat_map(|record| &record.files)
        .filter_map(|file| file.object.as_ref())
        .map(|object| (&object.key, object.etag.as_str()))
        .collect();
    let is_open = |entry: &Entry| {
        let object = (&entry.object.key, entry.object.etag.as_str());
        matches!(entry.name, Some(Name::Api { .. })) && !recorded.contains(&object)
    };
    let is_of_api = |upload: &Upload| matches!(Name::of(&upload.key), Some(Name::Api { .. }));
    if !entries.iter().any(is_open) && !uploads.iter().any(is_of_api) {
        return Ok(Vec::new());
    }
    match exporter.images(&scope.region, &[]).await {
        Ok(images) => Ok(images),
        Err(error) if error.kind() == ErrorKind::Credentials => Err(error),
        Err(error) => {
            exporter.events.warn(format!(
                "the account's images could not be listed ({error}), so names alone prove nothing; \
                 allow `cvm:DescribeImages`"
            ));
            Ok(Vec::new())
        }
    }
}
