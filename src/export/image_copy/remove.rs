//! Deleting copies: after a complete export, and only what is proven to be ours.

use std::time::Duration;

use super::record::{CopiesState, CopyRecord, CopyState, CopyStep};
use crate::cloud::actions::cvm::{DeleteImages, Image};
use crate::cloud::cos::CosErrorKind;
use crate::error::one_line;
use crate::event::EventKind;
use crate::export::Exporter;
use crate::export::preflight::{Fact, fetch_image};
use crate::export::record::RecordFile;
use crate::model::{ImageId, ObjectKey, Prefix, Region};

/// How often a copy that is to be deleted may be missed before it counts as gone.
const LOOKS_UNTIL_GONE: u32 = 3;
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_millis(500);

impl Exporter {
    /// Deletes the copies of `record`, whose export is complete; what could not be deleted is said with the
    /// command that does it, and kept in mind for the next run. The lines are returned as well.
    pub(super) async fn remove_copies(&self, record: &mut CopyRecord) -> Vec<String> {
        let mut troubles = Vec::new();
        if let Some(reason) = self.is_still_written(record).await {
            let line =
                format!("the copy is kept: {reason}; the same command run again looks again");
            self.events.warn(line.clone());
            return vec![line];
        }
        for place in (0..record.steps.len()).rev() {
            let step = &record.steps[place];
            let (Some(copy), false) = (step.copy.clone(), step.state == CopyState::Removed) else {
                continue;
            };
            let region = step.to.clone();
            match self.remove_copy(record, step, &copy).await {
                Ok(()) => {
                    record.steps[place].state = CopyState::Removed;
                    self.keep_copies(record);
                    self.events.emit(EventKind::CopyRemoved { copy, region });
                }
                Err(reason) => {
                    let line = format!(
                        "the copy `{copy}` in {region} was not deleted ({reason}); once nobody needs it: {}",
                        delete_command(&copy, &region)
                    );
                    self.events.warn(line.clone());
                    troubles.push(line);
                }
            }
        }
        if troubles.is_empty() {
            record.state = CopiesState::Over;
            self.keep_copies(record);
        }
        troubles
    }

    /// Deletes one copy; the error says why it stands.
    async fn remove_copy(
        &self,
        record: &CopyRecord,
        step: &CopyStep,
        copy: &ImageId,
    ) -> Result<(), String> {
        let mut looks = 0;
        let image = loop {
            let seen = fetch_image(&self.cloud, &step.to, copy).await;
            match seen.map_err(|error| error.to_string())? {
                Fact::Known(Some(image)) => break image,
                Fact::Known(None) if looks == LOOKS_UNTIL_GONE => return Ok(()),
                Fact::Known(None) => {
                    looks += 1;
                    tokio::time::sleep(PAUSE_BETWEEN_LOOKS).await;
                }
                other => return Err(other.why_unknown().unwrap_or_default().to_owned()),
            }
        };
        if !record.is_own(step, &image) {
            return Err(format!(
                "it is called `{}` now, so nothing proves that it is ours",
                image.image_name
            ));
        }
        let call = DeleteImages {
            image_ids: vec![copy.clone()],
            delete_binded_snap: has_own_snapshots(record, &image),
        };
        match self.cloud.call(Some(&step.to), &call).await {
            Ok(_) => Ok(()),
            // The answer to an earlier call was lost.
            Err(error) if error.code() == Some("InvalidImageId.NotFound") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What makes it look as if the export of the last copy still ran, although its files are there: a
    /// stranger's file may have one of their names.
    async fn is_still_written(&self, record: &CopyRecord) -> Option<String> {
        let export_id = record.export_id.as_ref()?;
        let export = match self.journal.load(export_id) {
            Ok(export) => export?,
            Err(error) => return Some(error.to_string()),
        };
        let start = export.prefix.as_ref().map_or("", Prefix::as_str);
        let cos = self.cloud.cos();
        let listing = cos.all_uploads(&export.bucket, &export.region, start);
        let uploads = match listing.await {
            Ok(uploads) => uploads,
            // Without the right to look, what the watch has seen is all there is.
            Err(error) if error.kind() == CosErrorKind::NotPermitted => return None,
            Err(error) => {
                return Some(format!(
                    "whether an upload is still open in the bucket could not be seen ({})",
                    one_line(&error)
                ));
            }
        };
        let named = |key: &ObjectKey| {
            export
                .files
                .iter()
                .flat_map(RecordFile::watched_keys)
                .any(|name| name == key)
        };
        let mut open = uploads.iter().filter(|upload| named(&upload.key));
        open.next()
            .map(|upload| format!("an upload of `{}` is still open in the bucket", upload.key))
    }

    /// Makes a changed record durable; what it promises is done already, so a full disk is only said.
    pub(super) fn keep_copies(&self, record: &CopyRecord) {
        if let Err(error) = self.journal.save_copies(record) {
            self.events.warn(error.to_string());
        }
    }

    /// Says which copies of `record` stand, for a run that ends without having deleted them.
    pub(super) fn tell_standing(&self, record: &CopyRecord) {
        for (copy, step) in record.standing() {
            let region = &step.to;
            let line = match record.state {
                // Nothing has proven yet that it is the copy, so no command that deletes it is named.
                CopiesState::Open if step.state == CopyState::Copying => format!(
                    "the copy `{copy}` is being made in {region}: the same command run again goes on with it"
                ),
                CopiesState::Open | CopiesState::Exported => format!(
                    "the copy `{copy}` stands in {region}: the same command run again goes on with it, and deletes \
                     it in the end; to give it up instead: {}",
                    delete_command(copy, region)
                ),
                CopiesState::Over | CopiesState::Abandoned => format!(
                    "the copy `{copy}` stands in {region} and is not used any more; to delete it: {}",
                    delete_command(copy, region)
                ),
            };
            self.events.warn(line);
        }
    }
}

/// Whether the snapshots of `image` are its own, so that they may go with it: a copy within one region
/// may share those of its source, which are another account's.
fn has_own_snapshots(record: &CopyRecord, image: &Image) -> bool {
    // An empty list proves nothing.
    let is_known = !record.snapshots.is_empty() && !image.snapshot_set.is_empty();
    let mut snapshots = image.snapshot_set.iter();
    is_known && snapshots.all(|snapshot| !record.snapshots.contains(&snapshot.snapshot_id))
}

/// The command by which a person deletes an image.
pub(super) fn delete_command(image_id: &ImageId, region: &Region) -> String {
    format!("tccli cvm DeleteImages --region {region} --ImageIds '[\"{image_id}\"]'")
}
