//! Files that exist already, and whether they are proven to be the export that is asked for.
//!
//! An image never changes, so its exported files are the result of any later request for the same. Proof is a complete
//! record, of this machine's journal or of the bucket, whose objects are unchanged. Without a record, proof is the
//! API's own name of every disk and, for raw files, the size of the disk. Anything else proves nothing.

use futures_util::future::join_all;

use super::Exporter;
use super::lease::Kind;
use super::preflight::{Existing, Fact, Facts, RowFact};
use super::progress::{Observed, Step};
use super::record::{FinishedObject, Record, RecordFile, RecordState};
use super::request::DiskScope;
use crate::cloud::cos::ObjectMeta;
use crate::error::Error;
use crate::model::{ImageFormat, ObjectKey};

/// What the objects of a record are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Objects {
    /// Each is the one that was recorded.
    Unchanged,
    /// At least one is another object, or is missing while others are there.
    Changed,
    /// None is there.
    Gone,
    /// They could not be looked at.
    Unseen,
}

impl Exporter {
    /// What the files under the names of the export `facts` are, if there are any.
    pub(super) async fn existing(&self, facts: &Facts) -> Result<Existing, Error> {
        let mut changed = None;
        for record in self.complete_records(facts)? {
            match self.objects_of(&record, facts).await {
                Objects::Unchanged => return Ok(Existing::Exported(Box::new(record))),
                Objects::Changed => changed = changed.or(Some(record)),
                Objects::Gone | Objects::Unseen => {}
            }
        }
        if let Some(record) = changed {
            return Ok(Existing::Strange(format!(
                "the bucket holds other files than those that export `{}` recorded",
                record.export_id
            )));
        }
        Ok(by_names(facts, self.begin_record(facts), self.cloud.now()))
    }

    /// The complete exports of these names that cover the disks asked for, the newest first.
    fn complete_records(&self, facts: &Facts) -> Result<Vec<Record>, Error> {
        let mut records = self.journal.records_of(&facts.request.identity())?;
        if let RowFact::Known(row) = &facts.row {
            let exports = row.attempts().map(|(_, seen)| &seen.attempt);
            let exports = exports.filter(|attempt| attempt.kind == Kind::Export);
            for record in exports.filter_map(|attempt| attempt.body.as_ref()) {
                match records
                    .iter_mut()
                    .find(|own| own.export_id == record.export_id)
                {
                    Some(own) => own.merge(record),
                    None => records.push(record.clone()),
                }
            }
        }
        records.retain(|record| {
            let covers =
                record.scope == facts.request.scope || record.scope == DiskScope::WholeMachine;
            covers && record.state() == RecordState::Complete && record.removed_at.is_none()
        });
        records.sort_by_key(|record| std::cmp::Reverse((record.attempt, record.created_at)));
        Ok(records)
    }

    async fn objects_of(&self, record: &Record, facts: &Facts) -> Objects {
        let cos = self.cloud.cos();
        let objects = record.files.iter().filter_map(|file| file.object.as_ref());
        let looks = objects.map(|object| async move {
            let seen = match facts.objects.get(&object.key) {
                Some(Fact::Known(seen)) => seen.clone(),
                // A name that was not predicted.
                _ => cos
                    .head_object(&record.bucket, &record.region, &object.key, None)
                    .await
                    .ok()?,
            };
            Some(seen.map(|seen| is_same(object, &seen)))
        });
        let seen: Option<Vec<Option<bool>>> = join_all(looks).await.into_iter().collect();
        match seen {
            None => Objects::Unseen,
            Some(seen) if seen.iter().all(Option::is_none) => Objects::Gone,
            Some(seen) if seen.iter().all(|same| *same == Some(true)) => Objects::Unchanged,
            Some(_) => Objects::Changed,
        }
    }
}

fn is_same(recorded: &FinishedObject, seen: &ObjectMeta) -> bool {
    recorded.etag == seen.etag && recorded.size_bytes == seen.size_bytes
}

/// What the names and sizes alone prove. `record` is the one that a new export would begin with.
fn by_names(facts: &Facts, record: Record, now: chrono::DateTime<chrono::Utc>) -> Existing {
    let uploads = facts
        .uploads
        .known()
        .into_iter()
        .flat_map(|list| &list.uploads);
    let growing: Vec<&ObjectKey> = uploads.map(|upload| &upload.key).collect();
    let is_growing = |key: &ObjectKey| growing.contains(&key);
    let object = |key: &ObjectKey| facts.objects.get(key)?.known()?.as_ref();
    let (mut found, mut running, mut strange) = (Vec::new(), 0, Vec::new());
    for file in &record.files {
        let Some((api, others)) = file.names.split_first() else {
            continue;
        };
        match object(&api.key) {
            Some(object) => match size_problem(file, object, record.format) {
                Some(problem) => strange.push(problem),
                None => found.push(FinishedObject::from(object.clone())),
            },
            None if is_growing(&api.key) => running += 1,
            None => {}
        }
        for name in others {
            if object(&name.key).is_some() || is_growing(&name.key) {
                strange.push(format!("`{}` does not say which image it is of", name.key));
            }
        }
    }
    if found.is_empty() && running == 0 && strange.is_empty() {
        return Existing::Nothing;
    }
    let all = record.files.len();
    if found.len() + running < all {
        strange.push(format!(
            "{} of {all} files are there",
            found.len() + running
        ));
    }
    if !strange.is_empty() {
        return Existing::Strange(strange.join(", "));
    }
    let mut record = record.found_running(None);
    record.earlier_uploads.clear();
    let seen = Observed {
        objects: found,
        warnings: Vec::new(),
    };
    let step = match running {
        0 => Step::AllThere { seen, at: now },
        _ => Step::Sign(seen),
    };
    // A record that runs takes either.
    let _ = record.step(step);
    Existing::Exported(Box::new(record))
}

/// Why an object is not the whole disk, as far as its size tells.
fn size_problem(file: &RecordFile, object: &ObjectMeta, format: ImageFormat) -> Option<String> {
    let disk_bytes = file.size_gib?.checked_mul(1 << 30)?;
    (format == ImageFormat::Raw && object.size_bytes != disk_bytes).then(|| {
        format!(
            "`{}` has {} bytes, and its disk {disk_bytes}",
            object.key, object.size_bytes
        )
    })
}
