//! The journal: one file for each export, and one lock for each thing that could be exported twice.
//!
//! ```text
//! exports/exp-….json    the records; after any crash there is the old one or the new one
//! open/exp-…            an empty file for each record that is not over, so that no search reads all of them
//! copies/copy-….json    the records of image copies
//! locks/…               never renamed nor deleted; held by the operating system, released when a process ends
//! ```
//!
//! A record is begun once, and from then on changes only by [`Journal::advance`]: under a lock of its own, from
//! the record as it is on disk now. Two processes that follow one export never undo what the other has noted.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::crash;
use crate::durable::{self, Readers};
use crate::error::{Error, ErrorKind};
use crate::export::image_copy::{CopyRecord, id_start};
use crate::export::progress::{IllegalStep, Step};
use crate::export::record::{Record, RecordError};
use crate::export::request::Identity;
use crate::model::{BucketName, ExportId};

/// How often a held lock is tried again. Users notice no delay, and the disk is not busy.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// How often the lock of a record is tried again: it is held for the time of one write.
const RECORD_LOCK_RETRY: Duration = Duration::from_millis(5);

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
    /// Another process has changed the record in the meantime.
    #[error("{0}")]
    Overtaken(String),
    /// There is no journal, and what was asked for must not be done without one.
    #[error("there is no journal in which a submit could be noted")]
    Absent,
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        let hint = match &error {
            JournalError::Overtaken(_) => {
                "another process works on the same export; run the command again"
            }
            JournalError::Disk { .. } | JournalError::Absent => {
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

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdvanceError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another process has brought the record to a state that the step may not follow: this one.
    #[error("{1}")]
    Overtaken(Box<Record>, IllegalStep),
    /// There is no such record.
    #[error("the journal has no record of `{0}`")]
    Missing(ExportId),
}

/// The folder of records and locks.
#[derive(Clone, Debug)]
pub struct Journal {
    records: PathBuf,
    open: PathBuf,
    /// Made when the first copy is.
    copies: PathBuf,
    locks: PathBuf,
    keeping: Keeping,
}

/// What becomes of that which is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// It is kept durably.
    Durably,
    /// Nothing is kept, and no submit may begin.
    Absent,
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
            open: folder.join("open"),
            copies: folder.join("copies"),
            locks: folder.join("locks"),
            keeping: Keeping::Durably,
        };
        for path in [&journal.records, &journal.locks] {
            create_private_folder(path).map_err(disk("make the folder", path))?;
        }
        journal.index()?;
        Ok(journal)
    }

    /// Makes the folder of open records where an earlier version has left none, from all records, once.
    fn index(&self) -> Result<(), JournalError> {
        if self.open.is_dir() {
            return Ok(());
        }
        let new = self.open.with_extension("new");
        create_private_folder(&new).map_err(disk("make the folder", &new))?;
        for export_id in self.export_ids("exp-")? {
            // One that cannot be read may be open.
            let is_over =
                matches!(self.load(&export_id), Ok(Some(record)) if record.state().is_over());
            if !is_over {
                let path = new.join(export_id.as_str());
                File::create(&path).map_err(disk("write the record", &path))?;
            }
        }
        match std::fs::rename(&new, &self.open) {
            // Another process was faster.
            Err(_) if self.open.is_dir() => Ok(()),
            renamed => renamed.map_err(disk("make the folder", &self.open)),
        }
    }

    /// Opens the journal in `folder` for a command that submits nothing. One that cannot be used
    /// counts as empty, and the reason comes beside it.
    #[must_use]
    pub fn open_or_absent(folder: &Path) -> (Self, Option<JournalError>) {
        let opened = Self::open(folder).and_then(|journal| {
            // Folders that are there may still be closed.
            journal.export_ids("exp-").map(|_| journal)
        });
        match opened {
            Ok(journal) => (journal, None),
            Err(error) => (Self::absent(), Some(error)),
        }
    }

    /// No journal: it holds nothing, and refuses what would precede a submit.
    #[must_use]
    pub fn absent() -> Self {
        Self {
            records: PathBuf::new(),
            open: PathBuf::new(),
            copies: PathBuf::new(),
            locks: PathBuf::new(),
            keeping: Keeping::Absent,
        }
    }

    /// Writes a record that is not in the journal yet.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; [`JournalError::Absent`] if there is no journal, since a submit is about to follow.
    pub(crate) fn begin(&self, record: &Record) -> Result<(), JournalError> {
        match self.keeping {
            Keeping::Durably => self.write(record),
            Keeping::Absent => Err(JournalError::Absent),
        }
    }

    /// Takes `step` on the record of `export_id` as it is on disk now, and returns it.
    ///
    /// # Errors
    /// [`AdvanceError`]; the record on disk is then unchanged.
    pub(crate) async fn advance(
        &self,
        export_id: &ExportId,
        step: Step,
    ) -> Result<Record, AdvanceError> {
        self.change(export_id, |record| record.step(step)).await
    }

    /// Merges what a copy of a record that was found elsewhere knows, and returns the result. A record that is
    /// not in the journal yet is added.
    ///
    /// # Errors
    /// [`AdvanceError::Journal`].
    pub(crate) async fn adopt(&self, found: &Record) -> Result<Record, AdvanceError> {
        if self.keeping == Keeping::Absent {
            return Ok(found.clone());
        }
        let merging = |record: &mut Record| {
            record.merge(found);
            Ok(())
        };
        match self.change(&found.export_id, merging).await {
            Err(AdvanceError::Missing(export_id)) => {
                let _lock = self.hold_record(&export_id).await?;
                // Whoever adopts it at the same time writes the same.
                let mut record = found.clone();
                record.adopted = true;
                self.write(&record)?;
                Ok(record)
            }
            changed => changed,
        }
    }

    async fn change(
        &self,
        export_id: &ExportId,
        change: impl FnOnce(&mut Record) -> Result<(), IllegalStep>,
    ) -> Result<Record, AdvanceError> {
        let missing = || AdvanceError::Missing(export_id.clone());
        if self.keeping == Keeping::Absent {
            return Err(missing());
        }
        let _lock = self.hold_record(export_id).await?;
        let mut record = self.load(export_id)?.ok_or_else(missing)?;
        let before = record.to_json();
        if let Err(illegal) = change(&mut record) {
            return Err(AdvanceError::Overtaken(Box::new(record), illegal));
        }
        if record.to_json() != before {
            self.write(&record)?;
        }
        Ok(record)
    }

    /// The lock under which one record is read, changed and written. A few files serve all records.
    async fn hold_record(&self, export_id: &ExportId) -> Result<Lock, JournalError> {
        let id = export_id.as_str();
        let end = id.len().saturating_sub(2);
        let name = format!("record-{}", id.get(end..).unwrap_or("00"));
        self.hold_by(&name, RECORD_LOCK_RETRY, || {}).await
    }

    fn write(&self, record: &Record) -> Result<(), JournalError> {
        let path = self.path_of(&record.export_id);
        let mark = self.open.join(record.export_id.as_str());
        let failed = || disk("write the record", &path);
        let is_over = record.state().is_over();
        // The mark comes before the record and goes after it: a crash leaves one too many.
        if !is_over && !mark.exists() {
            File::create(&mark).map_err(failed())?;
            durable::sync_folder(&self.open).map_err(failed())?;
        }
        durable::write(&path, &record.to_json(), Readers::Owner).map_err(failed())?;
        if is_over {
            // One that stays is only read once more.
            let _ = std::fs::remove_file(&mark);
        }
        Ok(())
    }

    /// Writes `record` whatever its state.
    #[cfg(test)]
    pub(crate) fn save(&self, record: &Record) -> Result<(), JournalError> {
        self.write(record)
    }

    /// The records that are not over. Reads no others.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folder cannot be listed.
    pub(crate) fn open_records(&self) -> Result<Vec<Record>, JournalError> {
        let loaded = self.open_ids()?.into_iter().map(|id| self.load(&id));
        let records = loaded.filter_map(|record| record.ok().flatten());
        Ok(records.filter(|record| !record.state().is_over()).collect())
    }

    /// Notes that a removal of this machine has begun. What can't be noted costs a later run a wait.
    pub(crate) fn begin_removal(&self, run: &str) {
        if let Some(path) = self.removal_mark(run) {
            crash::point(crash::Before("mark of a removal"));
            let _ = File::create(path).and_then(|_| durable::sync_folder(&self.open));
            crash::point(crash::After("mark of a removal"));
        }
    }

    /// Notes that a removal of this machine has ended.
    pub(crate) fn end_removal(&self, run: &str) {
        if let Some(path) = self.removal_mark(run) {
            crash::point(crash::Before("end of a removal"));
            let _ = std::fs::remove_file(path);
            crash::point(crash::After("end of a removal"));
        }
    }

    /// Whether a removal of this machine has begun and not ended, as far as this journal knows.
    pub(crate) fn has_begun_removal(&self, run: &str) -> bool {
        self.removal_mark(run).is_some_and(|path| path.exists())
    }

    fn removal_mark(&self, run: &str) -> Option<PathBuf> {
        // It may come out of a bucket.
        let digits = run.strip_prefix("rm-")?;
        let is_ours = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_ours && self.keeping == Keeping::Durably).then(|| self.open.join(run))
    }

    fn open_ids(&self) -> Result<Vec<ExportId>, JournalError> {
        if self.keeping == Keeping::Absent {
            return Ok(Vec::new());
        }
        let names = file_names(&self.open)?.into_iter();
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// Removes records that are over and were begun before `before`, save those whose download is still owed;
    /// returns the ids of the removed ones.
    ///
    /// # Errors
    /// [`JournalError::Disk`].
    pub fn prune(&self, before: DateTime<Utc>) -> Result<Vec<ExportId>, JournalError> {
        let open: BTreeSet<ExportId> = self.open_ids()?.into_iter().collect();
        let mut removed = Vec::new();
        for export_id in self.export_ids("exp-")? {
            let Ok(Some(record)) = self.load(&export_id) else {
                continue;
            };
            let is_wanted = open.contains(&export_id)
                || !record.state().is_over()
                || record.owes_download
                || record
                    .created_at
                    .max(record.completed_at.unwrap_or(record.created_at))
                    >= before;
            if !is_wanted {
                let path = self.path_of(&export_id);
                std::fs::remove_file(&path).map_err(disk("remove the record", &path))?;
                removed.push(export_id);
            }
        }
        Ok(removed)
    }

    /// Writes the record of copies durably, in place of its earlier state.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; the earlier state is then still there. [`JournalError::Absent`] where
    /// there is no journal: a copy is never made without one.
    pub(crate) fn save_copies(&self, record: &CopyRecord) -> Result<(), JournalError> {
        match self.keeping {
            Keeping::Durably => {}
            Keeping::Absent => return Err(JournalError::Absent),
        }
        create_private_folder(&self.copies).map_err(disk("make the folder", &self.copies))?;
        let path = self.copies.join(format!("{}.json", record.copy_id));
        let written = durable::write(&path, &record.to_json(), Readers::Owner);
        written.map_err(disk("write the record", &path))
    }

    /// The newest record of copies for the export `identity`, an unfinished one before any other.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when a record that may be of this export cannot be read: going on
    /// could copy twice.
    pub(crate) fn find_copies(
        &self,
        identity: &Identity,
    ) -> Result<Option<CopyRecord>, JournalError> {
        let records = self.copies_of(identity)?.into_iter();
        Ok(records.max_by_key(|record| (record.is_unfinished(), record.created_at)))
    }

    /// Every record of copies for the export `identity`.
    ///
    /// # Errors
    /// As [`Self::find_copies`].
    pub(crate) fn copies_of(&self, identity: &Identity) -> Result<Vec<CopyRecord>, JournalError> {
        let mut records = self.load_copies(&id_start(identity))?;
        records.retain(|record| record.identity() == *identity);
        Ok(records)
    }

    /// Every record of copies, and what keeps others from being read.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folder cannot be read.
    pub(crate) fn all_copies(&self) -> Result<(Vec<CopyRecord>, Vec<JournalError>), JournalError> {
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        for read in self.read_copies("copy-")? {
            match read {
                Ok(record) => records.push(record),
                Err(problem) => problems.push(problem),
            }
        }
        Ok((records, problems))
    }

    fn load_copies(&self, start: &str) -> Result<Vec<CopyRecord>, JournalError> {
        self.read_copies(start)?.into_iter().collect()
    }

    fn read_copies(
        &self,
        start: &str,
    ) -> Result<Vec<Result<CopyRecord, JournalError>>, JournalError> {
        if self.keeping == Keeping::Absent || !self.copies.exists() {
            return Ok(Vec::new());
        }
        let read = |name: String| {
            let path = self.copies.join(format!("{name}.json"));
            let text = std::fs::read(&path).map_err(disk("read the record", &path))?;
            let record = CopyRecord::from_json(&text);
            record.map_err(|source| JournalError::Damaged { path, source })
        };
        Ok(names_in(&self.copies, start)?
            .into_iter()
            .map(read)
            .collect())
    }

    /// The record of `export_id`.
    ///
    /// # Errors
    /// [`JournalError`] when it is there and cannot be read.
    pub fn load(&self, export_id: &ExportId) -> Result<Option<Record>, JournalError> {
        if self.keeping == Keeping::Absent {
            return Ok(None);
        }
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

    /// Every record of the export `identity`.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) fn records_of(&self, identity: &Identity) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        for export_id in self.export_ids(&format!("exp-{}", &identity.hash()[..8]))? {
            records.extend(self.load(&export_id)?);
        }
        records.retain(|record| record.identity() == *identity);
        Ok(records)
    }

    /// The newest record of the export `identity`, a live one before any other.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when a record that may be of this export cannot be read: going on
    /// could submit it twice.
    pub fn find(&self, identity: &Identity) -> Result<Option<Record>, JournalError> {
        let records = self.records_of(identity)?.into_iter();
        Ok(records.max_by_key(|record| (record.state().is_live(), record.created_at)))
    }

    /// How many exports of this journal are not over, as far as it knows. Reads no record.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the folder cannot be listed.
    pub fn count_open(&self) -> Result<usize, JournalError> {
        Ok(self.open_ids()?.len())
    }

    /// Takes the lock of the export `identity`, waiting while another process holds it; `on_wait` is
    /// called once if there is something to wait for. Dropping the future gives up.
    ///
    /// # Errors
    /// [`JournalError::Disk`] when the file system has no locks or the file cannot be opened,
    /// [`JournalError::Absent`] where there is no journal: a lock is taken to submit.
    pub async fn lock(
        &self,
        identity: &Identity,
        on_wait: impl FnOnce(),
    ) -> Result<Lock, JournalError> {
        self.hold(&identity.hash(), on_wait).await
    }

    /// Takes the lock of whoever deletes exports from `bucket`, waiting while another process holds it, as
    /// [`Self::lock`] does.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub(crate) async fn lock_removals(
        &self,
        bucket: &BucketName,
        on_wait: impl FnOnce(),
    ) -> Result<Lock, JournalError> {
        self.hold(&format!("removals-{bucket}"), on_wait).await
    }

    async fn hold(&self, name: &str, on_wait: impl FnOnce()) -> Result<Lock, JournalError> {
        self.hold_by(name, LOCK_RETRY, on_wait).await
    }

    async fn hold_by(
        &self,
        name: &str,
        retry: Duration,
        on_wait: impl FnOnce(),
    ) -> Result<Lock, JournalError> {
        if self.keeping == Keeping::Absent {
            return Err(JournalError::Absent);
        }
        let path = self.locks.join(format!("{name}.lock"));
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
                    tokio::time::sleep(retry).await;
                }
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
        }
    }

    fn path_of(&self, export_id: &ExportId) -> PathBuf {
        self.records.join(format!("{export_id}.json"))
    }

    fn export_ids(&self, start: &str) -> Result<Vec<ExportId>, JournalError> {
        if self.keeping == Keeping::Absent {
            return Ok(Vec::new());
        }
        let names = names_in(&self.records, start)?.into_iter();
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}

/// The names of the records in `folder` that begin with `start`, without their ending.
fn names_in(folder: &Path, start: &str) -> Result<Vec<String>, JournalError> {
    let names = file_names(folder)?.into_iter();
    let stems = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    Ok(stems.filter(|name| name.starts_with(start)).collect())
}

fn file_names(folder: &Path) -> Result<Vec<String>, JournalError> {
    let failed = || disk("list", folder);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
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

#[cfg(test)]
mod tests;
