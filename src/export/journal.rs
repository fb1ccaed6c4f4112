//! The journal: one file for each export, and one lock for each thing that could be exported twice.
//!
//! A record is written to a temporary file, synced, renamed, and its folder synced, so that after any
//! crash there is the old record or the new one. Locks are files that are never renamed nor deleted;
//! the operating system holds and releases them, also when a process is killed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::export::record::{Record, RecordError, RecordState};
use crate::export::request::Identity;
use crate::model::ExportId;

/// How often a held lock is tried again. A person notices no delay, and the disk is not busy.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Why the journal cannot keep its promise.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The state folder or a file in it cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record of the same export cannot be read, so nobody knows whether it is running.
    #[error("the record `{}` cannot be read", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        let hint = match &error {
            JournalError::Disk { .. } => {
                "the journal protects against a second submit and needs a durable place: free some room, \
                 or name another folder with CVM_EXPORT_STATE_DIR"
            }
            JournalError::Damaged { .. } => {
                "look in the bucket whether the export runs or is finished, then move the file away"
            }
        };
        Self::new(
            ErrorKind::LocalDisk,
            "the journal cannot be used; nothing was submitted",
        )
        .with_hint(hint)
        .with_source(error)
    }
}

/// The folder of records and locks.
#[derive(Clone, Debug)]
pub struct Journal {
    records: PathBuf,
    locks: PathBuf,
    is_muted: bool,
}

/// A held lock; it is released when dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Journal {
    /// Opens the journal in `folder`, making what is missing.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folders cannot be made.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let journal = Self {
            records: folder.join("exports"),
            locks: folder.join("locks"),
            is_muted: false,
        };
        for path in [&journal.records, &journal.locks] {
            create_private_folder(path).map_err(disk("make the folder", path))?;
        }
        Ok(journal)
    }

    /// The same journal, which keeps nothing from now on.
    #[must_use]
    pub(crate) fn muted(&self) -> Self {
        Self {
            is_muted: true,
            ..self.clone()
        }
    }

    /// Writes `record` durably, in place of its earlier state.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; the earlier state is then still there.
    pub fn save(&self, record: &Record) -> Result<(), JournalError> {
        if self.is_muted {
            return Ok(());
        }
        let path = self.path_of(&record.export_id);
        let failed = || disk("write the record", &path);
        // A temporary file of this crate is readable by its owner alone.
        let mut file = tempfile::NamedTempFile::new_in(&self.records).map_err(failed())?;
        file.write_all(&record.to_json()).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(&path).map_err(|error| failed()(error.error))?;
        sync_folder(&self.records).map_err(failed())
    }

    /// The record of `export_id`.
    ///
    /// # Errors
    /// [`JournalError`] when it is there and cannot be read.
    pub fn load(&self, export_id: &ExportId) -> Result<Option<Record>, JournalError> {
        let path = self.path_of(export_id);
        match std::fs::read(&path) {
            Ok(text) => match Record::from_json(&text) {
                Ok(record) => Ok(Some(record)),
                Err(source) => Err(JournalError::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(disk("read the record", &path)(source)),
        }
    }

    /// Every record, the oldest first, and a line for each that cannot be read.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folder cannot be listed.
    pub fn all(&self) -> Result<(Vec<Record>, Vec<String>), JournalError> {
        let mut records = Vec::new();
        let mut unreadable = Vec::new();
        for export_id in self.export_ids("exp-")? {
            match self.load(&export_id) {
                Ok(record) => records.extend(record),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    unreadable.push(format!("{error}: {}", cause.unwrap_or_default()));
                }
            }
        }
        records.sort_by(|a, b| (a.created_at, &a.export_id).cmp(&(b.created_at, &b.export_id)));
        Ok((records, unreadable))
    }

    /// The newest record of the export `identity`, a live one before any other.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when a record that may be of this export cannot be read: going on
    /// could submit it twice.
    pub fn find(&self, identity: &Identity) -> Result<Option<Record>, JournalError> {
        let mut newest: Option<Record> = None;
        for export_id in self.export_ids(&format!("exp-{}", &identity.hash()[..8]))? {
            let Some(record) = self.load(&export_id)? else {
                continue;
            };
            let rank = |record: &Record| (record.state.is_live(), record.created_at);
            let is_newer = newest
                .as_ref()
                .is_none_or(|newest| rank(newest) < rank(&record));
            if record.identity() == *identity && is_newer {
                newest = Some(record);
            }
        }
        Ok(newest)
    }

    /// How many exports this journal believes to be running.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folder cannot be listed.
    pub fn count_running(&self) -> Result<usize, JournalError> {
        let (records, _) = self.all()?;
        Ok(records
            .iter()
            .filter(|record| record.state == RecordState::Submitted)
            .count())
    }

    /// Takes the lock of the export `identity`, waiting while another process holds it; `on_wait` is
    /// called once if there is something to wait for. Dropping the future gives up.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the file system has no locks or the file cannot be opened.
    pub async fn lock(
        &self,
        identity: &Identity,
        on_wait: impl FnOnce(),
    ) -> Result<Lock, JournalError> {
        let path = self.locks.join(format!("{}.lock", identity.hash()));
        let failed = || disk("lock", &path);
        let file = open_lock(&path).map_err(failed())?;
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => {
                    if let Some(on_wait) = on_wait.take() {
                        on_wait();
                    }
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
        }
    }

    fn path_of(&self, export_id: &ExportId) -> PathBuf {
        self.records.join(format!("{export_id}.json"))
    }

    fn export_ids(&self, start: &str) -> Result<Vec<ExportId>, JournalError> {
        let failed = || disk("list", &self.records);
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.records).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(
                id.filter(|id| id.starts_with(start))
                    .and_then(|id| id.parse().ok()),
            );
        }
        Ok(ids)
    }
}

fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Disk {
        action,
        path,
        source,
    }
}

#[cfg(unix)]
fn create_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(not(unix))]
fn create_private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

#[cfg(unix)]
fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

/// Makes a rename durable. Other systems than Unix have no such call and need none that we know of.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::export::request::ExportRequest;
    use crate::export::samples::{self, DISK_GIB, at};

    fn journal() -> (tempfile::TempDir, Journal) {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(&folder.path().join("new/state")).expect("a journal");
        (folder, journal)
    }

    fn other_request() -> ExportRequest {
        ExportRequest {
            image_id: "img-2".parse().expect("image id"),
            ..samples::request()
        }
    }

    /// A record of `request` in `state`, begun at second `begun`.
    fn record(request: &ExportRequest, state: RecordState, begun: i64) -> Record {
        let mut record = samples::record(request, &[DISK_GIB]);
        record.state = state;
        record.created_at = at(begun);
        record
    }

    fn saved(journal: &Journal, state: RecordState, begun: i64) -> Record {
        let record = record(&samples::request(), state, begun);
        journal.save(&record).expect("saved");
        record
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }

    #[test]
    fn what_is_saved_is_loaded_and_a_later_state_takes_its_place() {
        let (_folder, journal) = journal();
        let mut record = saved(&journal, RecordState::Queued, 5);
        record.state = RecordState::Submitted;
        record.warnings.push("映".to_owned());
        journal.save(&record).expect("saved again");
        let loaded = journal
            .load(&record.export_id)
            .expect("readable")
            .expect("there");
        assert_eq!(loaded.to_json(), record.to_json());
        // No temporary file is left behind.
        assert_eq!(
            names(&journal.records),
            [format!("{}.json", record.export_id)]
        );
    }

    #[test]
    fn a_record_that_was_never_saved_is_none() {
        let (_folder, journal) = journal();
        let unsaved = record(&samples::request(), RecordState::Queued, 5);
        assert!(
            journal
                .load(&unsaved.export_id)
                .expect("readable")
                .is_none()
        );
        assert!(
            journal
                .find(&unsaved.identity())
                .expect("readable")
                .is_none()
        );
        let (records, unreadable) = journal.all().expect("readable");
        assert!(
            records.is_empty() && unreadable.is_empty(),
            "seen: {records:?}, {unreadable:?}"
        );
    }

    #[test]
    fn the_newest_live_record_of_an_export_is_found_else_the_newest() {
        use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};
        let cases: [(&[RecordState], usize); 9] = [
            (&[Complete], 0),
            (&[Complete, Failed], 1),
            (&[Submitted, Complete], 0),
            (&[Intended, Complete, Refused], 0),
            (&[Submitted, Intended, Abandoned], 1),
            (&[Intended, Submitted, Queued], 1),
            (&[Abandoned, Refused, Queued], 2),
            (&[Complete, Submitted], 1),
            (&[Failed, Complete, Abandoned], 2),
        ];
        for (states, expected) in cases {
            let (_folder, journal) = journal();
            let begun = states.iter().zip(0..);
            let records: Vec<Record> = begun
                .map(|(state, begun)| saved(&journal, *state, begun))
                .collect();
            journal
                .save(&record(&other_request(), Submitted, 99))
                .expect("saved");
            let found = journal
                .find(&samples::request().identity())
                .expect("readable")
                .expect("there");
            assert_eq!(
                found.export_id, records[expected].export_id,
                "asked: {states:?}; seen: {:?}",
                found.state
            );
        }
    }

    #[test]
    fn another_identity_is_not_found_even_under_the_same_eight_digits() {
        let (_folder, journal) = journal();
        let mut stranger = record(&other_request(), RecordState::Submitted, 5);
        stranger.export_id = record(&samples::request(), RecordState::Queued, 0).export_id;
        journal.save(&stranger).expect("saved");
        assert!(
            journal
                .find(&samples::request().identity())
                .expect("readable")
                .is_none()
        );
    }

    #[test]
    fn a_damaged_record_of_the_same_export_is_an_error_and_of_another_is_none() {
        let damages: [&[u8]; 4] = [
            b"",
            b"{\"schema\":\"cvm-export.rec",
            b"\xff\xfe",
            b"{\"schema\":\"cvm-export.record.v2\"}",
        ];
        for damage in damages {
            let (_folder, journal) = journal();
            let healthy = saved(&journal, RecordState::Submitted, 5);
            let damaged = record(&samples::request(), RecordState::Submitted, 6);
            let path = journal.path_of(&damaged.export_id);
            std::fs::write(&path, damage).expect("written");

            let same = journal.find(&samples::request().identity());
            assert!(
                matches!(&same, Err(JournalError::Damaged { path: named, .. }) if *named == path),
                "seen: {same:?}"
            );
            assert!(journal.load(&damaged.export_id).is_err());
            let other = journal.find(&other_request().identity());
            assert!(
                matches!(other, Ok(None)),
                "asked: another export; seen: {other:?}"
            );

            let (records, unreadable) = journal.all().expect("listed");
            let ids: Vec<&ExportId> = records.iter().map(|record| &record.export_id).collect();
            assert_eq!(ids, [&healthy.export_id], "the healthy one is still listed");
            assert_eq!(unreadable.len(), 1, "seen: {unreadable:?}");
            assert!(
                unreadable[0].contains(damaged.export_id.as_str()),
                "seen: {unreadable:?}"
            );
            assert!(
                !unreadable[0].ends_with(": "),
                "the reason is said: {unreadable:?}"
            );
        }
    }

    #[test]
    fn a_damaged_journal_ends_the_run_before_anything_is_submitted() {
        let (_folder, journal) = journal();
        let damaged = saved(&journal, RecordState::Submitted, 5);
        std::fs::write(journal.path_of(&damaged.export_id), "{").expect("written");
        let error = Error::from(journal.find(&damaged.identity()).expect_err("damaged"));
        assert_eq!(error.kind(), ErrorKind::LocalDisk);
        assert!(
            error.to_string().contains("nothing was submitted"),
            "{error}"
        );
        assert!(
            error
                .causes()
                .join(" ")
                .contains(damaged.export_id.as_str()),
            "{:?}",
            error.causes()
        );
    }

    #[test]
    fn all_records_come_the_oldest_first_and_other_files_are_passed_over() {
        let (_folder, journal) = journal();
        let begun = [30, 10, 20];
        let records = begun.map(|begun| saved(&journal, RecordState::Complete, begun));
        for name in [
            "notes.txt",
            "exp-1.json.tmp",
            ".tmpAbC",
            "exp-UPPER.json",
            "other.json",
        ] {
            std::fs::write(journal.records.join(name), "x").expect("written");
        }
        let (seen, unreadable) = journal.all().expect("listed");
        let ids: Vec<&ExportId> = seen.iter().map(|record| &record.export_id).collect();
        assert_eq!(
            ids,
            [
                &records[1].export_id,
                &records[2].export_id,
                &records[0].export_id
            ]
        );
        assert_eq!(unreadable, Vec::<String>::new());
    }

    #[test]
    fn only_submitted_exports_count_as_running() {
        use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};
        let (_folder, journal) = journal();
        for state in [Queued, Intended, Complete, Failed, Refused, Abandoned] {
            saved(&journal, state, 5);
        }
        assert_eq!(journal.count_running().expect("listed"), 0);
        saved(&journal, Submitted, 5);
        saved(&journal, Submitted, 6);
        assert_eq!(journal.count_running().expect("listed"), 2);
    }

    #[test]
    fn a_muted_journal_keeps_nothing_and_still_reads() {
        let (_folder, journal) = journal();
        let kept = saved(&journal, RecordState::Submitted, 5);
        let muted = journal.muted();
        let mut changed = kept.clone();
        changed.state = RecordState::Failed;
        muted.save(&changed).expect("nothing to fail");
        muted
            .save(&record(&other_request(), RecordState::Submitted, 6))
            .expect("nothing to fail");
        for seen in [&journal, &muted] {
            let (records, _) = seen.all().expect("listed");
            let states: Vec<_> = records
                .iter()
                .map(|record| (&record.export_id, record.state))
                .collect();
            assert_eq!(states, [(&kept.export_id, RecordState::Submitted)]);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_said_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = Journal::open(&file).expect_err("a file is no folder");
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(Error::from(error).kind(), ErrorKind::LocalDisk);
        // The folder vanishes while the program runs.
        let (folder, journal) = journal();
        drop(folder);
        let unsaved = record(&samples::request(), RecordState::Queued, 5);
        assert!(matches!(
            journal.save(&unsaved),
            Err(JournalError::Disk { .. })
        ));
        assert!(matches!(
            journal.find(&unsaved.identity()),
            Err(JournalError::Disk { .. })
        ));
    }

    #[tokio::test]
    async fn a_lock_keeps_a_second_holder_out_until_it_is_dropped() {
        let (_folder, journal) = journal();
        let identity = samples::request().identity();
        let waits = AtomicU32::new(0);
        let count = || {
            waits.fetch_add(1, Ordering::Relaxed);
        };
        let first = journal.lock(&identity, count).await.expect("a free lock");
        assert_eq!(
            waits.load(Ordering::Relaxed),
            0,
            "a free lock makes nobody wait"
        );

        let mut second = std::pin::pin!(journal.lock(&identity, count));
        assert!(
            second.as_mut().now_or_never().is_none(),
            "the second got in"
        );
        assert_eq!(waits.load(Ordering::Relaxed), 1, "the wait is told");
        let stranger = other_request().identity();
        let other = journal
            .lock(&stranger, || panic!("another export has another lock"))
            .await;
        drop(other.expect("a free lock"));

        drop(first);
        let second = second.await.expect("the first is gone");
        assert_eq!(waits.load(Ordering::Relaxed), 1, "the wait is told once");
        drop(second);
        journal
            .lock(&identity, || panic!("the second is gone, too"))
            .await
            .expect("a free lock");
    }

    #[tokio::test]
    async fn giving_up_the_wait_for_a_lock_leaves_it_to_its_holder() {
        let (_folder, journal) = journal();
        let identity = samples::request().identity();
        let first = journal.lock(&identity, || ()).await.expect("a free lock");
        assert!(
            journal.lock(&identity, || ()).now_or_never().is_none(),
            "the second got in"
        );
        assert!(
            journal.lock(&identity, || ()).now_or_never().is_none(),
            "giving up freed the lock"
        );
        drop(first);
        journal
            .lock(&identity, || panic!("nobody holds it"))
            .await
            .expect("a free lock");
        // The file stays: deleting it would let two processes lock two files of one name.
        assert_eq!(names(&journal.locks), [format!("{}.lock", identity.hash())]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn records_locks_and_folders_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, journal) = journal();
        let mut record = saved(&journal, RecordState::Queued, 5);
        record.state = RecordState::Submitted;
        journal.save(&record).expect("saved again");
        let identity = record.identity();
        let _lock = journal.lock(&identity, || ()).await.expect("a free lock");
        let paths = [
            (journal.records.clone(), 0o700),
            (journal.locks.clone(), 0o700),
            (journal.path_of(&record.export_id), 0o600),
            (
                journal.locks.join(format!("{}.lock", identity.hash())),
                0o600,
            ),
        ];
        for (path, expected) in paths {
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777;
            assert_eq!(mode, expected, "asked: {}; seen: {mode:o}", path.display());
        }
    }
}
