//! From the bucket to this machine: the files of a complete export, and beside them what proves them.
//!
//! ```text
//! p_img-1_system_snap-1.raw     the disks, verified
//! p_img-1.cvm-export.json       the record: image, snapshots, task, keys, sizes, checksums
//! p_img-1.sha256                a list for `sha256sum --check`, where SHA-256 was asked for
//! ```
//!
//! The record has the name and the form of the one in the bucket, so that either serves `verify`.

use std::io;
use std::path::{Path, PathBuf};

use super::outcome::{ExportOutcome, OutcomeState};
use super::progress::{Step, Sums};
use super::record::Record;
use super::request::{CLAIM_SUFFIX, claim_key};
use super::tracked::Tracked;
use super::{Exporter, OutcomeFile};
use crate::download::{
    DownloadError, DownloadOptions, Downloaded, Downloader, local_names, make_folder, read_small,
};
use crate::durable::{self, Readers};
use crate::error::{Error, ErrorKind};
use crate::estimate::Budget;
use crate::event::EventKind;
use crate::model::{ImageFormat, ImageId, Prefix};

/// Where the files of an export go on this machine, and how.
#[derive(Clone, Debug)]
pub struct Landing {
    /// The folder, which is made where it is missing.
    pub folder: PathBuf,
    /// How they are fetched.
    pub options: DownloadOptions,
    /// What fetching them may cost.
    pub budget: Budget,
}

impl Exporter {
    /// Fetches the files of the complete export `outcome`, verified, and leaves its record beside them.
    /// What has arrived is noted in `outcome` file by file, also when a later one fails.
    ///
    /// # Errors
    /// [`ErrorKind::Precondition`] for an export that is not complete, and for a download that may cost
    /// more than it may; all of [`DownloadError`]. What has arrived is kept, and another call goes on with
    /// it.
    pub async fn fetch(&self, outcome: &mut ExportOutcome, landing: &Landing) -> Result<(), Error> {
        if outcome.state != OutcomeState::Complete {
            let message = "the export is not complete, so there is nothing to fetch";
            return Err(Error::new(ErrorKind::Precondition, message));
        }
        let this = match &outcome.image_id {
            Some(image_id) => self.about(image_id),
            None => self.clone(),
        };
        let Landing {
            folder, options, ..
        } = landing;
        let addresses = outcome.addresses();
        let names = local_names(addresses.iter().map(|address| &address.key))?;
        this.weigh_download(outcome, &names, landing)?;
        make_folder(folder)?;
        if let Some(record) = &outcome.record {
            keep_others(record, landing)?;
        }
        let downloader = Downloader::new(
            this.cloud.cos().clone(),
            this.events.clone(),
            this.cancel.clone(),
        );
        let sizes = outcome.files.iter().filter_map(|file| file.size_bytes);
        if outcome.format == ImageFormat::Raw {
            downloader.announce(sizes.fold(0, u64::saturating_add));
        }
        for ((file, address), name) in outcome.files.iter_mut().zip(&addresses).zip(names) {
            let place = folder.join(name);
            let done = downloader.fetch_to(address, &place, options).await?;
            note(file, done);
        }
        if let Some(record) = outcome.record.take() {
            let mut tracked = this.tracked(record);
            let sums = outcome.files.iter().filter_map(sums_of).collect();
            // Deleted or replaced meanwhile: what was fetched is right all the same.
            let _ = tracked.step(Step::Fetched(sums)).await;
            this.keep_beside(tracked.record(), &outcome.files, folder)?;
            outcome.record = Some(tracked.into_record());
        }
        this.tell_saving(outcome, landing);
        Ok(())
    }

    /// Writes the record of the export and the list of its files' SHA-256 into `folder`.
    fn keep_beside(
        &self,
        record: &Record,
        files: &[OutcomeFile],
        folder: &Path,
    ) -> Result<(), Error> {
        let [record_name, list_name] = companion_names(record.prefix.as_ref(), &record.image_id)
            .ok_or_else(|| {
                let message = "the record has no name that a file could have";
                Error::new(ErrorKind::Unexpected, message)
            })?;
        let path = folder.join(record_name);
        replace(&path, &record.published().to_json())
            .map_err(DownloadError::disk("write", &path))?;
        self.events.emit(EventKind::Settled {
            message: format!("the record of the export is in `{}`", path.display()),
        });
        let lines: Option<String> = files
            .iter()
            .map(|file| Some(checksum_line(file.sha256.as_ref()?, file.key.file_name())))
            .collect();
        if let Some(lines) = lines {
            let path = folder.join(list_name);
            replace(&path, lines.as_bytes()).map_err(DownloadError::disk("write", &path))?;
        }
        Ok(())
    }

    /// Follows the record of a complete export: in the journal, if that has it, and in its lease.
    fn tracked(&self, record: Record) -> Tracked<'_> {
        match self.journal.load(&record.export_id) {
            Ok(None) => Tracked::elsewhere(self, record),
            Ok(Some(_)) | Err(_) => Tracked::of(self, record, true),
        }
    }
}

/// Notes where a file is, and what was found out about it.
fn note(file: &mut OutcomeFile, done: Downloaded) {
    file.local_path = done.path.as_deref().map(|path| path.display().to_string());
    file.sha256.clone_from(&done.sha256);
    file.crc64 = done.crc64.map(|crc64| crc64.to_string());
    file.downloaded = Some(done);
}

/// The checksums of a file that was fetched.
fn sums_of(file: &OutcomeFile) -> Option<Sums> {
    Some(Sums {
        key: file.key.clone(),
        etag: file.etag.clone()?,
        crc64: file.crc64.clone(),
        sha256: file.sha256.clone(),
    })
}

/// The names of what is written beside the files: the record and the list of checksums.
pub(crate) fn companion_names(prefix: Option<&Prefix>, image_id: &ImageId) -> Option<[String; 2]> {
    let key = claim_key(prefix, image_id).ok()?;
    let name = key.file_name();
    let stem = name.strip_suffix(CLAIM_SUFFIX)?;
    Some([name.to_owned(), format!("{stem}.sha256")])
}

/// Refuses to go on where the record of another export would be replaced.
fn keep_others(record: &Record, landing: &Landing) -> Result<(), Error> {
    let Some(names) = companion_names(record.prefix.as_ref(), &record.image_id) else {
        return Ok(());
    };
    let [mut path, list] = names.map(|name| landing.folder.join(name));
    let difference = match read_small(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A list without its record is not ours.
            if list.symlink_metadata().is_err() {
                return Ok(());
            }
            path = list;
            "no record beside it says that it is of this export".to_owned()
        }
        Err(error) => return Err(DownloadError::disk("read", &path)(error).into()),
        Ok(text) => match Record::from_json(&text) {
            Ok(other)
                if other.export_id == record.export_id || is_of_same_files(&other, record) =>
            {
                return Ok(());
            }
            Ok(other) => format!("it is of the export `{}`", other.export_id),
            Err(_) => "it is no record of an export".to_owned(),
        },
    };
    if landing.options.force {
        return Ok(());
    }
    Err(DownloadError::InTheWay { path, difference }.into())
}

/// Whether two records speak of the very same objects, such as those that `--if-exists reuse` found without a record.
fn is_of_same_files(one: &Record, other: &Record) -> bool {
    let objects = |record: &Record| -> Option<Vec<_>> {
        let files = record.files.iter();
        files
            .map(|file| {
                let object = file.object.as_ref()?;
                Some((object.key.clone(), object.etag.clone()))
            })
            .collect()
    };
    objects(one).is_some_and(|objects_of_one| objects(other) == Some(objects_of_one))
}

/// Puts a file in place whole or not at all. It is for whoever may read the disks beside it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    durable::write(path, content, Readers::All)
}

/// A line as `sha256sum` writes it: a name with a backslash is escaped, and the line says so.
fn checksum_line(sha256: &str, name: &str) -> String {
    if name.contains('\\') {
        format!("\\{sha256}  {}\n", name.replace('\\', "\\\\"))
    } else {
        format!("{sha256}  {name}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_named_after_prefix_and_image_without_folders() {
        let id = "img-1".parse().expect("an id");
        let names = |prefix: Option<&str>| {
            let prefix = prefix.map(|prefix| prefix.parse().expect("a prefix"));
            companion_names(prefix.as_ref(), &id)
        };
        let pair = |stem: &str| Some([format!("{stem}.cvm-export.json"), format!("{stem}.sha256")]);
        assert_eq!(names(None), pair("img-1"));
        assert_eq!(names(Some("p")), pair("p_img-1"));
        assert_eq!(names(Some("backups/p")), pair("p_img-1"));
    }

    #[test]
    fn odd_names_are_escaped_as_sha256sum_does() {
        assert_eq!(checksum_line("00", "a b.raw"), "00  a b.raw\n");
        assert_eq!(checksum_line("00", "a\\b.raw"), "\\00  a\\\\b.raw\n");
    }
}
