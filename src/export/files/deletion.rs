//! Carries a deletion out: looks once more, deletes, looks at what became of every key, and goes on until
//! each is settled.
//!
//! ```text
//! chunk of exports: lock ─► does one run? ─► HEAD of each object ─► delete the files ─► delete their records
//! ```
//!
//! The record goes last, so an interrupted run finds with it what is left. COS takes no condition on a
//! delete of many: what replaces an object between its HEAD and the call is deleted in its place. So the call
//! is never repeated without another HEAD, and not made where the HEADs before it took long: that is a second
//! or so, and up to about a minute where COS asks to slow down. An exporter that could do this would have shown
//! as an upload; one that begins on this machine meanwhile waits for the lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::StreamExt;

use super::attempts::{Attempts, Beginning};
use super::etag::Etag;
use super::index::Writers;
use super::removal::{DoomedExport, DoomedObject, Part, Removal, RemovalState};
use super::retention::Selection;
use super::{Files, Inventory, draft, removal};
use crate::clock::Stopwatch;
use crate::cloud::cos::{
    CosClient, CosError, CosErrorKind, Deletion, KeyDeletion, ObjectMeta, YoungDelete,
};
use crate::crash;
use crate::error::{Error, ErrorKind, one_line};
use crate::event::EventKind;
use crate::export::Exporter;
use crate::export::journal::{AdvanceError, JournalError, Lock};
use crate::export::progress::Step;
use crate::export::record::RecordState;
use crate::model::{BucketName, ExportId, Region};

/// Objects that are looked at and then deleted together. Far fewer than a call takes, so that the looks
/// before it are not old.
const CHUNK_OBJECTS: usize = 200;
/// Looks at once.
const CONCURRENT_LOOKS: usize = 16;
/// How often keys that COS could not delete just now are tried again, and the pauses between.
const ROUNDS: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause that COS may ask for.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(30);
/// Looks that took longer are made again before anything is deleted by them.
const OLDEST_LOOK: Duration = Duration::from_secs(60);
/// How long another process of this machine that is about to submit the same export is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Codes after which a key may be tried again (product page 436/7730).
const PASSING_CODES: &[&str] = &[
    "InternalError",
    "KmsFreqControl",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
];

impl Files {
    /// Chooses what `selection` means.
    ///
    /// # Errors
    /// As [`ErrorKind::Precondition`] when one that is meant runs or may run, or is not there; as
    /// [`ErrorKind::Permission`] when running ones could not be told.
    pub async fn select(
        &self,
        inventory: Inventory,
        selection: &Selection,
    ) -> Result<Removal, Error> {
        let mut vanished = Vec::new();
        let listed: HashSet<&ExportId> = match selection.ids() {
            [] => HashSet::new(),
            _ => inventory
                .exports
                .iter()
                .filter_map(|export| export.export_id.as_ref())
                .collect(),
        };
        for export_id in selection.ids() {
            let is_listed = listed.contains(export_id);
            if !is_listed && self.has_vanished(export_id).await? {
                vanished.push(export_id.clone());
            }
        }
        let own = |export_id: &ExportId| self.exporter.journal.load(export_id).ok().flatten();
        let is_removed = |export_id: &ExportId| {
            let is_noted = own(export_id).is_some_and(|record| record.removed_at.is_some());
            is_noted || vanished.contains(export_id)
        };
        let is_known = |export_id: &ExportId| own(export_id).is_some();
        let mut removal = removal::select(inventory, selection, is_removed, is_known)?;
        removal.vanished = vanished;
        Ok(removal)
    }

    /// Whether the journal knows an export as complete, and the bucket has none of its objects, as after a
    /// deletion that was killed before it could be noted.
    async fn has_vanished(&self, export_id: &ExportId) -> Result<bool, Error> {
        let Some(record) = self.exporter.journal.load(export_id)? else {
            return Ok(false);
        };
        if record.state() != RecordState::Complete {
            return Ok(false);
        }
        let (bucket, region) = (&record.bucket, &record.region);
        for object in record.files.iter().filter_map(|file| file.object.as_ref()) {
            let cos = self.exporter.cloud.cos();
            match cos.head_object(bucket, region, &object.key, None).await {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(false),
                Err(error) => return not_seen(error).map(|_| false),
            }
        }
        Ok(true)
    }

    /// Notes in this machine's journal which of the named exports turned out to be deleted already, and ends the
    /// removals that were killed before they noted it.
    pub async fn note_vanished(&self, removal: &Removal) {
        for export_id in &removal.vanished {
            note_removed(&self.exporter, export_id).await;
            if let Ok(Some(record)) = self.exporter.journal.load(export_id) {
                let identity = record.identity();
                self.exporter
                    .end_dead_removals(&record.region, &identity)
                    .await;
            }
        }
    }

    /// Deletes what `removal` says and notes in it what became of each object. A signal ends it between two
    /// calls; the same selection made again then goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`], and whatever keeps every further object from being deleted.
    pub async fn delete(&self, removal: &mut Removal, resubmit: bool) -> Result<(), Error> {
        let work = Work {
            exporter: &self.exporter,
            bucket: removal.scope.bucket.clone(),
            region: removal.scope.region.clone(),
            only_hides: removal.only_hides(),
            hides_some: removal.hides_some(),
            resubmit,
        };
        let _alone = work.alone().await?;
        let start = removal.scope.prefix.keys_start();
        let mut rest = removal.exports.as_mut_slice();
        while !rest.is_empty() {
            let mut count = 0;
            let size = rest.iter().take_while(|export| {
                let is_first = count == 0;
                count += export.objects.len();
                is_first || count <= CHUNK_OBJECTS
            });
            let (chunk, after) = rest.split_at_mut(size.count());
            rest = after;
            work.interrupted()?;
            let listing = work.cos().all_uploads(&work.bucket, &work.region, &start);
            let uploads = listing.await?;
            work.chunk(chunk, &Writers::of(&uploads)).await?;
        }
        Ok(())
    }
}

/// One deletion's surroundings.
struct Work<'a> {
    exporter: &'a Exporter,
    bucket: BucketName,
    region: Region,
    /// Whether a delete without a version leaves the object behind a delete marker.
    only_hides: bool,
    /// Whether it does so with those that have a version of their own.
    hides_some: bool,
    /// Whether removals that have died are given up.
    resubmit: bool,
}

impl Work<'_> {
    /// Waits until no other run of this machine deletes from the bucket: what it holds is locked as if an export
    /// were about to be submitted. `None` where there is no journal that could tell.
    async fn alone(&self) -> Result<Option<Lock>, Error> {
        let events = &self.exporter.events;
        let on_wait = || {
            events.emit(EventKind::Settled {
                message: format!(
                    "another run deletes exports from bucket `{}`: waiting for its end",
                    self.bucket
                ),
            });
        };
        let locking = self.exporter.journal.lock_removals(&self.bucket, on_wait);
        tokio::select! {
            () = self.exporter.cancel.cancelled() => Err(interrupted()),
            lock = locking => match lock {
                Ok(lock) => Ok(Some(lock)),
                Err(JournalError::Absent) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn chunk(&self, chunk: &mut [DoomedExport], writers: &Writers<'_>) -> Result<(), Error> {
        // Rule 6 of the leases: signed before they are created, and sent after the reading that follows.
        let young = self.cos().sign_delete(&self.bucket, &self.region).await;
        // By what each is of: a lock that this process holds already would be waited for in vain.
        let mut locks = BTreeMap::new();
        let mut identities = BTreeMap::new();
        for export in chunk.iter_mut() {
            match self.hold(export, writers, &mut locks).await? {
                Ok(()) => {
                    let identity = export.identity();
                    identities.extend(identity.map(|identity| (identity.hash(), identity)));
                }
                Err(reason) => fail(export.objects.iter_mut(), &reason),
            }
        }
        let beginning = Beginning {
            exporter: self.exporter,
            region: &self.region,
            resubmit: self.resubmit,
        };
        let (mut attempts, refused) = beginning.all(identities.into_values().collect()).await?;
        for export in chunk.iter_mut() {
            let hash = export.identity().map(|identity| identity.hash());
            if let Some(reason) = hash.and_then(|hash| refused.get(&hash)) {
                fail(export.objects.iter_mut(), reason);
            }
        }
        let deleted = self.chunk_held(chunk, &mut attempts, young).await;
        let has_begun = |hash: &str| {
            chunk.iter().any(|export| {
                let is_it = export
                    .identity()
                    .is_some_and(|identity| identity.hash() == hash);
                is_it
                    && export
                        .objects
                        .iter()
                        .any(|object| object.state != RemovalState::Planned)
            })
        };
        attempts.end(self.exporter, &self.region, has_begun).await;
        deleted
    }

    /// Deletes a chunk whose removals are begun.
    async fn chunk_held(
        &self,
        chunk: &mut [DoomedExport],
        attempts: &mut Attempts,
        young: YoungDelete,
    ) -> Result<(), Error> {
        let files = chunk.iter_mut().flat_map(|export| {
            let hash = export
                .identity()
                .map(|identity| identity.hash())
                .unwrap_or_default();
            export
                .split()
                .0
                .iter_mut()
                .map(move |object| (hash.clone(), object))
        });
        self.delete_files(files.collect(), attempts, young).await?;
        self.interrupted()?;
        let mut records = Vec::new();
        for export in chunk.iter_mut() {
            let (files, last) = export.split();
            if files.iter().all(|file| file.is_settled()) {
                records.extend(last);
            } else {
                let left = last
                    .iter_mut()
                    .filter(|it| it.state == RemovalState::Planned);
                fail(left, "not all of the files it names are deleted");
            }
        }
        self.delete(records).await?;
        for export in chunk.iter() {
            self.note(export).await;
        }
        Ok(())
    }

    /// Makes sure once more that no export writes under these names: by this machine's journal, whose lock
    /// is held from here on, by the uploads, and by the record in the bucket. The reason where one does.
    async fn hold(
        &self,
        export: &DoomedExport,
        writers: &Writers<'_>,
        locks: &mut BTreeMap<String, Lock>,
    ) -> Result<Result<(), String>, Error> {
        let Some(identity) = &export.identity() else {
            return Ok(Err("nothing says which image it is of".to_owned()));
        };
        if let Some(upload) = export.writer(writers) {
            return Ok(Err(format!("an upload of `{}` has begun", upload.key)));
        }
        let journal = &self.exporter.journal;
        if let Entry::Vacant(place) = locks.entry(identity.hash()) {
            let locking = tokio::time::timeout(LOCK_PATIENCE, journal.lock(identity, || {}));
            match locking.await {
                Ok(Ok(lock)) => {
                    place.insert(lock);
                }
                Ok(Err(JournalError::Absent)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    let reason =
                        "another process of this machine is about to export under these names";
                    return Ok(Err(reason.to_owned()));
                }
            }
        }
        let now = self.exporter.cloud.now();
        let running = journal.find(identity)?.filter(|record| {
            let is_this = Some(&record.export_id) == export.export_id.as_ref();
            record.state().is_live() && !is_this && !draft::is_overdue(record, now)
        });
        // An export whose files are all there has only not been looked at since.
        if let Some(record) = running
            && record.submitted_at > export.exported_at
        {
            return Ok(Err(format!("export `{}` has begun", record.export_id)));
        }
        if let Some((key, etag)) = &export.claim {
            let looking = self
                .cos()
                .head_object(&self.bucket, &self.region, key, None);
            let standing = match looking.await {
                Ok(standing) => standing.map(|object| Etag::from(object.etag.as_str())),
                Err(error) => return Ok(Err(not_seen(error)?)),
            };
            // Where it is gone the export may be, too: the looks at its objects will tell.
            if standing.is_some() && standing != *etag {
                return Ok(Err(format!(
                    "the record `{key}` has changed: an export may have begun"
                )));
            }
        }
        Ok(Ok(()))
    }

    /// Deletes files that are still planned. A call that is sent again is signed again, and each removal renewed for it.
    async fn delete_files(
        &self,
        mut files: Vec<(String, &mut DoomedObject)>,
        attempts: &mut Attempts,
        young: YoungDelete,
    ) -> Result<(), Error> {
        let mut young = Some(young);
        for round in 1..=ROUNDS {
            files.retain(|(_, file)| file.state == RemovalState::Planned);
            if files.is_empty() {
                return Ok(());
            }
            let signed = match young.take() {
                Some(signed) => signed,
                None => {
                    let signed = self.cos().sign_delete(&self.bucket, &self.region).await;
                    let mut reasons = BTreeMap::new();
                    for (hash, file) in &mut files {
                        let renewed: &mut Result<(), String> = match reasons.entry(hash.clone()) {
                            Entry::Occupied(place) => place.into_mut(),
                            Entry::Vacant(place) => place
                                .insert(attempts.renew(self.exporter, &self.region, hash).await),
                        };
                        if let Err(reason) = renewed {
                            file.fail(reason);
                        }
                    }
                    signed
                }
            };
            let objects = files.iter_mut().map(|(_, file)| &mut **file).collect();
            let pause = self.delete_round(objects, round, Some(signed)).await?;
            let Some(pause) = pause else {
                return Ok(());
            };
            self.rest(pause).await;
        }
        Ok(())
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.exporter.cancel.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Deletes records that are still planned. No submit rests on them.
    async fn delete(&self, mut objects: Vec<&mut DoomedObject>) -> Result<(), Error> {
        for round in 1..=ROUNDS {
            let planned = objects.iter_mut().map(|object| &mut **object).collect();
            let Some(pause) = self.delete_round(planned, round, None).await? else {
                return Ok(());
            };
            self.rest(pause).await;
        }
        Ok(())
    }

    /// Looks at the objects that are still planned, and sends one delete for them. How long to pause before the next
    /// round; `None` if there is nothing left to do.
    async fn delete_round(
        &self,
        mut objects: Vec<&mut DoomedObject>,
        round: u32,
        signed: Option<YoungDelete>,
    ) -> Result<Option<Duration>, Error> {
        objects.retain(|object| object.state == RemovalState::Planned);
        let looking = Stopwatch::start();
        self.look(&mut objects, round > 1).await?;
        objects.retain(|object| object.state == RemovalState::Planned);
        if objects.is_empty() {
            return Ok(None);
        }
        if round > 1 {
            self.interrupted()?;
        }
        let mut asked = Duration::ZERO;
        if looking.elapsed() <= OLDEST_LOOK {
            // A chunk fits one call, unless one export has thousands of versions.
            let mut signed = signed;
            for batch in objects.chunks_mut(CosClient::DELETE_LIMIT) {
                let signed = match signed.take() {
                    Some(signed) => signed,
                    None => self.cos().sign_delete(&self.bucket, &self.region).await,
                };
                asked = asked.max(self.send(batch, round == ROUNDS, signed).await?);
            }
        } else if round == ROUNDS {
            let slow = "COS is so slow that it may be another object by now";
            objects.iter_mut().for_each(|object| object.fail(slow));
        }
        objects.retain(|object| object.state == RemovalState::Planned);
        if objects.is_empty() {
            return Ok(None);
        }
        let factor = 2_u32.saturating_pow(round - 1);
        let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        Ok(Some(pause.max(asked.min(LONGEST_ASKED_PAUSE))))
    }

    /// Looks whether each object is still the one that was proven to be the export's. A version with an id of
    /// its own is never another one, so it needs no look.
    async fn look(&self, objects: &mut [&mut DoomedObject], was_sent: bool) -> Result<(), Error> {
        let looks = objects.iter_mut().filter(|object| object.may_be_replaced());
        let looks = looks.map(|object| async move {
            let (key, version_id) = (&object.key, object.version_id.as_deref());
            let looking = self
                .cos()
                .head_object(&self.bucket, &self.region, key, version_id);
            match looking.await {
                // A marker shows as nothing does.
                Ok(None) if object.part == Part::Marker => {}
                Ok(None) if was_sent && self.hides(object) => {
                    object.state = RemovalState::Hidden;
                }
                Ok(None) if was_sent => object.state = RemovalState::Deleted,
                Ok(None) => object.state = RemovalState::Gone,
                Ok(Some(found)) if object.is_still(&found) => {
                    let version_id = found.version_id.as_deref();
                    object.is_version = version_id.is_some_and(|id| id != "null");
                }
                Ok(Some(_)) => object.state = RemovalState::Changed,
                Err(error) => object.fail(&not_seen(error)?),
            }
            Ok::<_, Error>(())
        });
        let looks = futures_util::stream::iter(looks).buffer_unordered(CONCURRENT_LOOKS);
        let looked: Vec<Result<(), Error>> = looks.collect().await;
        looked.into_iter().collect()
    }

    /// Whether a delete without a version leaves `object` stored.
    fn hides(&self, object: &DoomedObject) -> bool {
        self.only_hides || (self.hides_some && object.is_version)
    }

    /// Sends one call, and returns how long COS asks to be left alone after it.
    async fn send(
        &self,
        batch: &mut [&mut DoomedObject],
        is_last: bool,
        signed: YoungDelete,
    ) -> Result<Duration, Error> {
        let deletions: Vec<Deletion> = batch
            .iter()
            .map(|object| Deletion {
                key: object.key.clone(),
                version_id: object.version_id.clone(),
            })
            .collect();
        crash::point(crash::Before("deletion"));
        let sent = self.cos().delete_signed(signed, &deletions).await;
        crash::point(crash::After("deletion"));
        let results = match sent {
            Ok(results) => results,
            // It may have been processed: the next round's looks will tell.
            Err(error) if may_pass(&error) && !is_last => {
                return Ok(error.retry_after().unwrap_or_default());
            }
            Err(error) => {
                for object in batch {
                    object.fail(&error.to_string());
                }
                return Err(error.into());
            }
        };
        for (object, result) in batch.iter_mut().zip(results) {
            match result {
                KeyDeletion::Deleted { is_marker } => {
                    // Where versions are kept no more, a marker comes even where nothing is left behind it.
                    let is_gone = self.hides_some && !object.is_version;
                    let is_hidden = is_marker && object.version_id.is_none() && !is_gone;
                    object.state = match is_hidden {
                        true => RemovalState::Hidden,
                        false => RemovalState::Deleted,
                    };
                }
                KeyDeletion::Refused { code, .. }
                    if PASSING_CODES.contains(&code.as_str()) && !is_last => {}
                KeyDeletion::Refused { code, message } => {
                    object.fail(&format!("COS refused it ({code}): {message}"));
                }
                KeyDeletion::NotTold if !is_last => {}
                KeyDeletion::NotTold => object.fail("COS does not say what became of it"),
            }
        }
        Ok(Duration::ZERO)
    }

    /// Notes in this machine's journal that the files of an export are deleted. The record itself stays.
    async fn note(&self, export: &DoomedExport) {
        let is_over = export.objects.iter().all(|object| object.is_settled());
        let Some(export_id) = export.export_id.as_ref().filter(|_| is_over) else {
            return;
        };
        note_removed(self.exporter, export_id).await;
    }

    fn cos(&self) -> &CosClient {
        self.exporter.cloud.cos()
    }

    fn interrupted(&self) -> Result<(), Error> {
        match self.exporter.cancel.is_cancelled() {
            false => Ok(()),
            true => Err(interrupted()),
        }
    }
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Interrupted,
        "interrupted; what was deleted is deleted",
    )
    .with_hint("the same command run again goes on with what is left")
}

/// Notes in this machine's journal that the files of an export are deleted. The record itself stays.
async fn note_removed(exporter: &Exporter, export_id: &ExportId) {
    let at = exporter.cloud.now();
    match exporter
        .journal
        .advance(export_id, Step::Remove { at })
        .await
    {
        Ok(_) | Err(AdvanceError::Missing(_)) => {}
        Err(error) => exporter.events.warn(one_line(&error)),
    }
}

impl DoomedExport {
    /// The files with their delete markers, and what goes after them.
    fn split(&mut self) -> (&mut [DoomedObject], &mut [DoomedObject]) {
        let objects = &mut self.objects;
        let records = objects.iter().filter(|object| object.part == Part::Record);
        let keys: Vec<_> = records.map(|object| object.key.clone()).collect();
        let place = objects.iter().position(|object| keys.contains(&object.key));
        let place = place.unwrap_or(objects.len());
        objects.split_at_mut(place)
    }
}

impl DoomedObject {
    /// Whether nothing is left of it that would be the export's.
    fn is_settled(&self) -> bool {
        matches!(
            self.state,
            RemovalState::Deleted | RemovalState::Hidden | RemovalState::Gone
        )
    }

    /// Whether what stands there now is what was listed; the same bytes may have been written anew.
    fn is_still(&self, found: &ObjectMeta) -> bool {
        // The time of a HEAD has whole seconds.
        let second = |time: DateTime<Utc>| time.trunc_subsecs(0);
        let is_same_time = match (self.last_modified, found.last_modified) {
            (Some(listed), Some(found)) => second(listed) == second(found),
            _ => true,
        };
        self.etag == found.etag && self.size_bytes == found.size_bytes && is_same_time
    }

    /// Whether its name may come to mean another object: every write to a bucket that has stopped to keep
    /// versions replaces the one called `null`.
    fn may_be_replaced(&self) -> bool {
        self.version_id.as_deref().is_none_or(|id| id == "null")
    }

    fn fail(&mut self, error: &str) {
        self.state = RemovalState::Failed;
        self.error = Some(error.to_owned());
    }
}

fn fail<'a>(objects: impl Iterator<Item = &'a mut DoomedObject>, error: &str) {
    objects.for_each(|object| object.fail(error));
}

/// Whether a delete that failed as a whole may succeed by itself later.
fn may_pass(error: &CosError) -> bool {
    matches!(
        error.kind(),
        CosErrorKind::NoAnswer | CosErrorKind::Throttled
    )
}

/// The reason of a look that brought nothing; keys that COS does not accept end the run.
fn not_seen(error: CosError) -> Result<String, Error> {
    match error.kind() {
        CosErrorKind::Credentials => Err(error.into()),
        _ => Ok(error.to_string()),
    }
}
