//! How steps change a record. Which may be taken is said by [`RecordState::after`].

use chrono::{DateTime, Utc};

use super::{Record, RecordFile, RecordState};
use crate::export::progress::{Accepted, IllegalStep, Observed, Step, Sums};
use crate::export::request::DeviceNames;

impl Record {
    /// Takes a step. Nothing else changes the state of a record.
    ///
    /// # Errors
    /// [`IllegalStep`] where the table of [`RecordState::after`] does not allow it; the record is unchanged.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), IllegalStep> {
        let before = self.state;
        self.state = before.after(&step)?;
        match step {
            Step::Intend { at, attempt } => {
                self.submitted_at = Some(at);
                self.attempt = attempt;
            }
            Step::Wait | Step::Refuse | Step::GiveUp => self.submitted_at = None,
            Step::Baseline {
                names,
                earlier_uploads,
            } => {
                let all = self.files.iter_mut().flat_map(|file| &mut file.names);
                for name in all {
                    if let Some(seen) = names.iter().find(|seen| seen.key == name.key) {
                        name.baseline = seen.baseline.clone();
                    }
                }
                self.earlier_uploads = earlier_uploads;
            }
            Step::Accept(accepted) => self.accept(accepted),
            Step::Sign(seen) => self.note(seen),
            Step::AllThere { seen, at } => {
                self.note(seen);
                self.finish(before, at);
            }
            Step::Vanish => {}
            Step::Owe => self.owes_download = true,
            Step::Fetched(sums) => {
                self.owes_download = false;
                sums.into_iter().for_each(|sums| self.note_sums(sums));
            }
            Step::Remove { at } => {
                self.removed_at = Some(at);
                self.owes_download = false;
            }
        }
        Ok(())
    }

    /// Merges the cloud's answer. What it announces wins over what was predicted: an announced name is put
    /// first in its file's list of names.
    pub(super) fn accept(&mut self, accepted: Accepted) {
        let Accepted {
            task_id,
            request_id,
            announced,
            unusable,
            at,
        } = accepted;
        self.submitted_at = Some(at);
        self.task_id = task_id;
        self.request_id = request_id;
        if announced.is_empty() && unusable == 0 {
            return;
        }
        let mut predicted = std::mem::take(&mut self.files);
        let mut devices = DeviceNames::default();
        for key in announced {
            let position = predicted
                .iter()
                .position(|file| file.is_named(&key))
                .or_else(|| predicted.iter().position(|file| file.speaks_of(&key)));
            let mut file = match position {
                Some(position) => predicted.remove(position),
                None => RecordFile::announced_only(&key, &mut devices, self.files.len()),
            };
            file.prefer(key);
            self.files.push(file);
        }
        let kept = unusable.min(predicted.len());
        // Any of these may be the disk of a path that is not a key: all of them are watched.
        if kept > 0 {
            self.files.append(&mut predicted);
        }
        // Nothing is known of where such a disk goes, so the export can never be seen complete.
        for _ in kept..unusable {
            let position = self.files.len();
            self.files.push(RecordFile::unknown(position));
        }
        // A disk that was predicted and not announced is not expected: the cloud knows better.
        for file in predicted {
            self.warnings.push(format!(
                "the cloud announced no file for the {} disk {}",
                file.disk, file.device
            ));
        }
        if self.state == RecordState::Complete && !self.is_all_there() {
            // The answer announces a disk that a `wait` did not know of.
            self.state = RecordState::Submitted;
            self.completed_at = None;
        }
    }

    /// Notes finished files under whichever of their names they were seen.
    fn note(&mut self, seen: Observed) {
        for object in seen.objects {
            let mut open = self.files.iter_mut().filter(|file| file.object.is_none());
            if let Some(file) = open.find(|file| file.is_named(&object.key)) {
                file.object = Some(object);
            }
        }
        for warning in seen.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    fn note_sums(&mut self, sums: Sums) {
        let objects = self
            .files
            .iter_mut()
            .filter_map(|file| file.object.as_mut());
        let mut same = objects.filter(|it| it.key == sums.key && it.etag == sums.etag);
        if let Some(object) = same.next() {
            // What an earlier download computed is still true of the same object.
            object.sha256 = sums.sha256.or_else(|| object.sha256.take());
            object.crc64 = sums.crc64.or_else(|| object.crc64.take());
        }
    }

    /// Closes a record whose files are all there, as far as it names them.
    fn finish(&mut self, before: RecordState, now: DateTime<Utc>) {
        if !self.is_all_there() {
            // The cloud's answer has announced other files meanwhile.
            self.state = match before {
                RecordState::Intended => RecordState::Submitted,
                before => before,
            };
            return;
        }
        if before == RecordState::Failed {
            self.warnings
                .push("the export was taken for failed; its files showed after all".to_owned());
        }
        if before != RecordState::Complete {
            let objects = self.files.iter().filter_map(|file| file.object.as_ref());
            let newest = objects.filter_map(|object| object.last_modified).max();
            self.completed_at = newest.or(Some(now));
        }
    }

    /// Whether every file is in the bucket. An export whose files are not known is never complete.
    pub(crate) fn is_all_there(&self) -> bool {
        !self.files.is_empty() && self.files.iter().all(|file| file.object.is_some())
    }

    /// Merges what another copy of the same record knows: the lease's, or another machine's. The one that is
    /// further decides the state; no finished file and no checksum is lost.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (is_behind, adopted) = (self.state.rank() < other.state.rank(), self.adopted);
        let (first, second) = match is_behind {
            true => (other.clone(), std::mem::replace(self, other.clone())),
            false => (self.clone(), other.clone()),
        };
        *self = first;
        self.adopted = adopted;
        self.owes_download |= second.owes_download && self.state != RecordState::Complete;
        self.removed_at = self.removed_at.or(second.removed_at);
        self.task_id = self.task_id.or(second.task_id);
        self.request_id = self.request_id.take().or(second.request_id);
        self.attempt = self.attempt.or(second.attempt);
        for object in second.files.into_iter().filter_map(|file| file.object) {
            let sums = Sums {
                key: object.key.clone(),
                etag: object.etag.clone(),
                crc64: object.crc64.clone(),
                sha256: object.sha256.clone(),
            };
            self.note(Observed {
                objects: vec![object],
                warnings: Vec::new(),
            });
            self.note_sums(sums);
        }
    }
}
