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
use crate::export::image_copy::{CopyRecord, id_start};
use crate::export::record::{Record, RecordError, RecordState};
use crate::export::request::Identity;
use crate::model::{BucketName, ExportId};

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
    /// There is no journal, and what was asked for must not be done without one.
    #[error("there is no journal in which a submit could be noted")]
    Absent,
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        let hint = match &error {
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

/// The folder of records and locks.
#[derive(Clone, Debug)]
pub struct Journal {
    records: PathBuf,
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
    /// It is dropped.
    Muted,
    /// It is dropped, unless it precedes a submit: that is refused. Nothing was ever kept.
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
            copies: folder.join("copies"),
            locks: folder.join("locks"),
            keeping: Keeping::Durably,
        };
        for path in [&journal.records, &journal.locks] {
            create_private_folder(path).map_err(disk("make the folder", path))?;
        }
        Ok(journal)
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
            copies: PathBuf::new(),
            locks: PathBuf::new(),
            keeping: Keeping::Absent,
        }
    }

    /// The same journal, which keeps nothing from now on.
    #[must_use]
    pub(crate) fn muted(&self) -> Self {
        Self {
            keeping: Keeping::Muted,
            ..self.clone()
        }
    }

    /// Writes `record` durably, in place of its earlier state.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; the earlier state is then still there. [`JournalError::Absent`] where
    /// there is no journal and `record` says that a submit is about to follow.
    pub fn save(&self, record: &Record) -> Result<(), JournalError> {
        match self.keeping {
            Keeping::Durably => {}
            Keeping::Absent
                if matches!(record.state, RecordState::Queued | RecordState::Intended) =>
            {
                return Err(JournalError::Absent);
            }
            Keeping::Muted | Keeping::Absent => return Ok(()),
        }
        write_durably(
            &self.records,
            &self.path_of(&record.export_id),
            &record.to_json(),
        )
    }

    /// Writes the record of copies durably, in place of its earlier state.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; the earlier state is then still there. [`JournalError::Absent`] where
    /// there is no journal: a copy is never made without one.
    pub(crate) fn save_copies(&self, record: &CopyRecord) -> Result<(), JournalError> {
        match self.keeping {
            Keeping::Durably => {}
            Keeping::Muted => return Ok(()),
            Keeping::Absent => return Err(JournalError::Absent),
        }
        create_private_folder(&self.copies).map_err(disk("make the folder", &self.copies))?;
        let path = self.copies.join(format!("{}.json", record.copy_id));
        write_durably(&self.copies, &path, &record.to_json())
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
        if self.keeping == Keeping::Absent {
            return Ok(Vec::new());
        }
        let names = names_in(&self.records, start)?.into_iter();
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}

/// The names of the records in `folder` that begin with `start`, without their ending.
fn names_in(folder: &Path, start: &str) -> Result<Vec<String>, JournalError> {
    let failed = || disk("list", folder);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
        names.extend(
            name.filter(|name| name.starts_with(start))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

/// Writes `text` to `path` in `folder`, so that after any crash there is the old file or the new one.
fn write_durably(folder: &Path, path: &Path, text: &[u8]) -> Result<(), JournalError> {
    let failed = || disk("write the record", path);
    // A temporary file of this crate is readable by its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
    file.write_all(text).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    sync_folder(folder).map_err(failed())
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
mod tests;
