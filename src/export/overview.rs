//! What is there without an export being asked for: those that the journal knows, and custom images.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt};

use super::outcome::ExportOutcome;
use super::record::RecordState;
use super::tracked::Tracked;
use super::{CONCURRENT_LOOKS, Exporter};
use crate::cloud::actions::cvm::{DescribeImages, Image};
use crate::error::{Error, ErrorKind};
use crate::model::{ExportId, ImageId, Region};

impl Exporter {
    /// The exports that the journal knows, the oldest first, each with what COS shows of it now: a HEAD
    /// for each file.
    ///
    /// # Errors
    /// When the journal cannot be read, or COS does not accept the credentials.
    pub async fn status(&self, export_id: Option<&ExportId>) -> Result<Vec<ExportOutcome>, Error> {
        let (mut records, unreadable) = self.journal.all()?;
        for line in unreadable {
            self.events.warn(line);
        }
        if let Some(export_id) = export_id {
            records.retain(|record| record.export_id == *export_id);
            if records.is_empty() {
                let message = format!("this machine's journal knows no export `{export_id}`");
                return Err(Error::new(ErrorKind::Usage, message)
                    .with_hint("`cvm-export status` lists what it knows"));
            }
        }
        if export_id.is_none() {
            self.tell_copies().await?;
        }
        let looks = records.into_iter().map(|record| async move {
            match record.state() {
                RecordState::Complete => self.still_stands(&record).await,
                state if state.is_live() => {
                    self.look_once(&mut Tracked::of(self, record, true)).await
                }
                _ => Ok(ExportOutcome::of(&record)),
            }
        });
        let looks = futures_util::stream::iter(looks).buffered(CONCURRENT_LOOKS);
        let outcomes = looks.try_collect().await?;
        Ok(outcomes)
    }

    /// The custom images of `region`, or those of `image_ids`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn images(
        &self,
        region: &Region,
        image_ids: &[ImageId],
    ) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        let mut known = BTreeSet::new();
        let mut call = DescribeImages::custom_images(image_ids);
        loop {
            let page = self.cloud.call(Some(region), &call).await?.value;
            let received = page.image_set.len() as u64;
            let before = images.len();
            for image in page.image_set {
                if known.insert(image.image_id.clone()) {
                    images.push(image);
                }
            }
            // A server that repeats itself would otherwise be listened to for ever.
            if images.len() == before {
                return Ok(images);
            }
            let offset = call.offset.unwrap_or(0) + received;
            let is_complete = page.total_count.is_none_or(|total| offset >= total);
            if received == 0 || is_complete || !image_ids.is_empty() {
                return Ok(images);
            }
            call.offset = Some(offset);
        }
    }
}
