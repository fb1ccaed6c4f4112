//! Every look-up behind an inventory.

use std::collections::HashSet;

use futures_util::{StreamExt, TryStreamExt};

use super::draft::{self, Comparison, Draft};
use super::entries::{Entries, Entry, Shared};
use super::etag::Etag;
use super::grouping::{self, Gathered};
use super::index::{Images, Running, Unreadable};
use super::names::Name;
use super::{Inventory, Scope, StoredRecord, uploads};
use crate::cloud::cos::{CosError, CosErrorKind, DeleteMarker, Upload, VersionEntry};
use crate::error::{Error, ErrorKind};
use crate::export::Exporter;
use crate::export::claim::{self, CLAIM_LIMIT_BYTES};
use crate::export::preflight::Fact;
use crate::export::record::Record;
use crate::export::request::claim_key;

/// Records that are read at once.
const CONCURRENT_READS: usize = 16;
const OF_FUTURE: &str = "it speaks of a time that has not come";

pub(super) async fn inventory(exporter: &Exporter, scope: Scope) -> Result<Inventory, Error> {
    let cos = exporter.cloud.cos();
    let versioning = cos.get_versioning(&scope.bucket, &scope.region);
    // Asked before the listing: an upload that is completed meanwhile is then seen at least once.
    let start = scope.prefix.keys_start();
    let listed = cos.all_uploads(&scope.bucket, &scope.region, &start);
    let (versioning, listed) = tokio::join!(versioning, listed);
    let versioning = fact(versioning)?;
    let listed = fact(listed)?;
    let uploads = listed.known().map_or(&[][..], Vec::as_slice);
    let mut shared = Shared::default();
    let Listing {
        files,
        claims,
        markers,
        others: other_objects,
    } = list(exporter, &scope, &mut shared).await?;
    let entries = Entries::new(files);
    let mut records = Records {
        exporter,
        scope: &scope,
        comparison: Comparison::new(&entries, uploads, &scope.bucket, &scope.region),
        shared,
        drafts: Vec::new(),
        unreadable: Unreadable::default(),
    };
    records.read_own()?;
    for page in claims {
        records.read_stored(page).await?;
    }
    let Records {
        mut drafts,
        unreadable,
        ..
    } = records;
    draft::merge(&mut drafts);
    let images = images(exporter, &scope, &drafts, &entries, uploads).await?;
    let seen_at = exporter.cloud.now();
    let running = Running::of(&drafts, seen_at);
    let of_exports = uploads::of_exports(
        uploads,
        &uploads::Around {
            scope: &scope,
            drafts: &drafts,
            running: &running,
            unreadable: &unreadable,
            images: &images,
        },
    );
    let mut exports = grouping::exports(Gathered {
        bucket: &scope.bucket,
        region: &scope.region,
        entries,
        drafts,
        running: &running,
        unreadable: &unreadable,
        uploads,
        images: &images,
        now: seen_at,
    });
    let is_other = |export: &mut super::ListedExport| {
        !scope.wants(export.image_id.as_ref(), export.copy.as_deref())
    };
    let others = exports.extract_if(.., is_other).collect();
    let uploads = match listed {
        Fact::Known(_) => Fact::Known(of_exports),
        Fact::NotPermitted(reason) => Fact::NotPermitted(reason),
        Fact::NoAnswer(reason) => Fact::NoAnswer(reason),
        Fact::NotAsked => Fact::NotAsked,
    };
    Ok(Inventory {
        exports,
        others,
        uploads,
        versioning,
        other_objects,
        seen_at,
        markers,
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
    files: Vec<Entry>,
    /// Where records stand, page by page: each page is dropped when its records are read.
    claims: Vec<Vec<StoredRecord>>,
    markers: Vec<DeleteMarker>,
    others: u64,
}

impl Listing {
    /// Takes an object in that may be of an export, or counts it. Leases are neither.
    fn take(&mut self, scope: &Scope, found: VersionEntry, shared: &mut Shared) {
        let name = Name::of(&found.object.key);
        if matches!(name, Some(Name::Lease { .. })) {
            return;
        }
        let Some(name) = name.filter(|name| scope.prefix.covers(name.prefix())) else {
            self.others += 1;
            return;
        };
        match name {
            Name::Api { .. } | Name::Console { .. } => self.files.push(Entry::new(found, shared)),
            Name::Claim { .. } => {
                let record = StoredRecord {
                    key: found.object.key,
                    version_id: found.version_id,
                    is_latest: found.is_latest,
                    size_bytes: found.object.size_bytes,
                    etag: Etag::from(found.object.etag.as_str()),
                    last_modified: found.object.last_modified,
                };
                match self.claims.last_mut() {
                    Some(page) if page.len() < page.capacity() => page.push(record),
                    _ => {
                        let mut page = Vec::with_capacity(CLAIMS_A_PAGE);
                        page.push(record);
                        self.claims.push(page);
                    }
                }
            }
            Name::Lease { .. } => {}
        }
    }
}

/// Places of records that are dropped together.
const CLAIMS_A_PAGE: usize = 1000;

async fn list(exporter: &Exporter, scope: &Scope, shared: &mut Shared) -> Result<Listing, Error> {
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
                listing.take(scope, version, shared);
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
            listing.take(scope, current, shared);
        }
        if page.next_marker.is_none() {
            return Ok(listing);
        }
        marker = page.next_marker;
    }
}

/// The records of this machine and of the bucket, each compared with the listing as soon as it is read.
struct Records<'a> {
    exporter: &'a Exporter,
    scope: &'a Scope,
    comparison: Comparison<'a>,
    shared: Shared,
    drafts: Vec<Draft>,
    unreadable: Unreadable,
}

impl Records<'_> {
    /// Those of this machine's journal. It is read after the listing, as the records in the bucket are: an object
    /// that has come meanwhile is another one than a record then names, and stays.
    fn read_own(&mut self) -> Result<(), Error> {
        let (records, unreadable) = self.exporter.journal.all()?;
        for line in unreadable {
            self.exporter.events.warn(line);
        }
        let now = self.exporter.cloud.now();
        for mut record in records {
            if !is_wanted(self.scope, &record) {
                continue;
            }
            if draft::is_of_future(&record, now) {
                let export_id = &record.export_id;
                self.exporter.events.warn(format!(
                    "export `{export_id}` of the journal is left alone: {OF_FUTURE}"
                ));
                if let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) {
                    self.unreadable.insert(key, record.prefix, record.image_id);
                }
                continue;
            }
            // It may have been taken over from a bucket.
            draft::keep_possible_names(&mut record);
            self.take(record, None);
        }
        Ok(())
    }

    /// Those that stand in the bucket.
    async fn read_stored(&mut self, page: Vec<StoredRecord>) -> Result<(), Error> {
        let (exporter, scope) = (self.exporter, self.scope);
        let reads = page.into_iter().map(|stored| async move {
            let read = read_record(exporter, scope, &stored).await?;
            Ok::<_, Error>((stored, read))
        });
        let mut reads = futures_util::stream::iter(reads).buffered(CONCURRENT_READS);
        while let Some((stored, read)) = reads.try_next().await? {
            match read {
                Ok(None) => {}
                Ok(Some(record)) => self.take(record, Some(stored)),
                Err(problem) => {
                    let key = stored.key;
                    let message = format!("`{key}` is left alone: {problem}");
                    exporter.events.warn(message);
                    if let Some(Name::Claim { prefix, image_id }) = Name::of(&key) {
                        self.unreadable.insert(key, prefix, image_id);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Record, stored: Option<StoredRecord>) {
        let draft = self.comparison.draft(record, stored, &mut self.shared);
        self.drafts.push(draft);
    }
}

/// One record, or why it is none that can be used. Anybody who may write to the bucket may have written it,
/// so it counts only where it speaks of its own place, and only for names that its export can have.
async fn read_record(
    exporter: &Exporter,
    scope: &Scope,
    stored: &StoredRecord,
) -> Result<Result<Option<Record>, String>, Error> {
    let (bucket, region) = (&scope.bucket, &scope.region);
    let (key, version_id) = (&stored.key, stored.version_id.as_deref());
    let reading =
        exporter
            .cloud
            .cos()
            .get_small_object(bucket, region, key, version_id, CLAIM_LIMIT_BYTES);
    if stored.size_bytes > CLAIM_LIMIT_BYTES as u64 {
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
    let is_in_place =
        claim_key(record.prefix.as_ref(), &record.image_id).is_ok_and(|own| own == *key);
    if !is_in_place || record.bucket != *bucket || !record.names_itself() {
        return Ok(Err("it is a copy of another place's record".to_owned()));
    }
    if draft::is_of_future(&record, exporter.cloud.now()) {
        return Ok(Err(OF_FUTURE.to_owned()));
    }
    draft::keep_possible_names(&mut record);
    Ok(Ok(Some(record)))
}

/// The account's images, where a name of the API stands that no record names, or is being written. Without the right to list
/// them such a name proves nothing.
async fn images(
    exporter: &Exporter,
    scope: &Scope,
    drafts: &[Draft],
    entries: &Entries,
    uploads: &[Upload],
) -> Result<Images, Error> {
    let mut is_recorded = vec![false; entries.list.len()];
    for place in drafts.iter().flat_map(Draft::its) {
        is_recorded[place] = true;
    }
    let mut open = entries.list.iter().zip(is_recorded);
    let has_open = open
        .any(|(entry, is_recorded)| !is_recorded && matches!(entry.name(), Some(Name::Api { .. })));
    let is_of_api = |upload: &Upload| matches!(Name::of(&upload.key), Some(Name::Api { .. }));
    if !has_open && !uploads.iter().any(is_of_api) {
        return Ok(Images::default());
    }
    match exporter.images(&scope.region, &[]).await {
        Ok(images) => Ok(Images::new(images)),
        Err(error) if error.kind() == ErrorKind::Credentials => Err(error),
        Err(error) => {
            exporter.events.warn(format!(
                "the account's images could not be listed ({error}), so names alone prove nothing; \
                 allow `cvm:DescribeImages`"
            ));
            Ok(Images::default())
        }
    }
}
