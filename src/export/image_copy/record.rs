//! The durable record of the copies that are made of one image for one export: what the journal keeps
//! beside the export's own record, written before and after each step.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::plan::CopyPlan;
use crate::cloud::actions::cvm::{Image, SyncImages};
use crate::export::record::RecordError;
use crate::export::request::{ExportRequest, Identity};
use crate::model::{BucketName, CloudText, ExportId, ImageFormat, ImageId, Prefix, Region};

const SCHEMA: &str = "cvm-export.copy.v1";

/// What every name of a copy starts with.
const MARK: &str = "cvm-export-copy-";

/// How far the whole of it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CopiesState {
    /// Copies are to be made or exported.
    Open,
    /// The export of the last one is complete, so that they may be deleted.
    Exported,
    /// None of them is left.
    Over,
    /// Nothing will be done with them any more: one failed, or `--resubmit` gave them up.
    Abandoned,
}

/// How far one copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CopyState {
    /// Nothing was sent.
    Planned,
    /// `SyncImages` was about to be sent, and may have been: nobody knows what became of it.
    Intended,
    /// The cloud is at it, and its id is known.
    Copying,
    /// It is `NORMAL`.
    Ready,
    /// It is deleted.
    Removed,
    /// The cloud refused it, could not make it, or it is gone.
    Failed,
}

/// One copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyStep {
    /// How far it has come.
    pub(crate) state: CopyState,
    /// Where the source of this step is.
    pub(crate) from: Region,
    /// Where the copy is; the same for a shared image.
    pub(crate) to: Region,
    /// The copy's name, which no other image has: by it the copy is found when an answer is lost, and
    /// proven to be ours before it is deleted.
    pub(crate) name: String,
    /// When `SyncImages` was sent.
    pub(crate) sent_at: Option<DateTime<Utc>>,
    /// The cloud's name for the call.
    pub(crate) request_id: Option<String>,
    /// The copy.
    pub(crate) copy: Option<ImageId>,
}

/// The copies that are made of one image for one export, in the order in which they are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyRecord {
    schema: String,
    /// This tool's name for it.
    pub(crate) copy_id: String,
    /// How far it has come.
    pub(crate) state: CopiesState,
    /// The version of the program that wrote it last.
    tool_version: String,
    /// The image that was asked for.
    pub(crate) image_id: ImageId,
    /// Its name.
    pub(crate) image_name: CloudText,
    /// Its region.
    pub(crate) region: Region,
    /// Its snapshots, which are not the copies'.
    pub(crate) snapshots: Vec<CloudText>,
    /// The bucket of the export.
    bucket: BucketName,
    /// The start of the files' names.
    prefix: Option<Prefix>,
    /// The files' format.
    format: ImageFormat,
    /// When it was begun, by the server's clock.
    pub(crate) created_at: DateTime<Utc>,
    /// The copies.
    pub(crate) steps: Vec<CopyStep>,
    /// The export of the last copy, once it is complete.
    pub(crate) export_id: Option<ExportId>,
    /// What a later version wrote.
    #[serde(flatten)]
    unknown_fields: serde_json::Map<String, serde_json::Value>,
}

impl CopyRecord {
    /// Begins the record of the copies of `plan` for the export that `request` asks for.
    pub(super) fn begin(
        request: &ExportRequest,
        plan: &CopyPlan,
        created_at: DateTime<Utc>,
    ) -> Self {
        let identity = request.identity();
        let mut from = plan.region.clone();
        let steps = plan.destinations.iter().map(|to| CopyStep {
            state: CopyState::Planned,
            from: std::mem::replace(&mut from, to.clone()),
            to: to.clone(),
            name: format!("{}-{:08x}", name_mark(&identity), fastrand::u32(..)),
            sent_at: None,
            request_id: None,
            copy: None,
        });
        let steps: Vec<CopyStep> = steps.collect();
        debug_assert!(
            steps
                .iter()
                .all(|step| step.name.len() <= SyncImages::NAME_LIMIT)
        );
        let snapshots = plan.image.snapshot_set.iter();
        Self {
            schema: SCHEMA.to_owned(),
            copy_id: format!("{}{:08x}", id_start(&identity), fastrand::u32(..)),
            state: CopiesState::Open,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            image_id: request.image_id.clone(),
            image_name: plan.image.image_name.clone(),
            region: plan.region.clone(),
            snapshots: snapshots
                .map(|snapshot| snapshot.snapshot_id.clone())
                .collect(),
            bucket: request.bucket.clone(),
            prefix: request.prefix.clone(),
            format: request.format,
            created_at,
            steps,
            export_id: None,
            unknown_fields: serde_json::Map::new(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`] when the text is none, or one of a later schema.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, RecordError> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(RecordError::Malformed)?;
        if let Some(schema) = value["schema"].as_str().filter(|schema| *schema != SCHEMA) {
            return Err(RecordError::UnknownSchema(schema.into()));
        }
        serde_json::from_value(value).map_err(RecordError::Malformed)
    }

    /// The record as indented JSON with a final line break.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self)
            .expect("a record holds only strings, numbers and lists, which JSON can show");
        text.push(b'\n');
        text
    }

    /// What makes the export that was asked for the same as another one.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            bucket: self.bucket.clone(),
            image_id: self.image_id.clone(),
            prefix: self.prefix.clone(),
            format: self.format,
        }
    }

    /// Whether something is left to be done.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self.state, CopiesState::Open | CopiesState::Exported)
    }

    /// The copy that is exported, once it has an id, and its region.
    pub(super) fn exported_copy(&self) -> Option<(&ImageId, &Region)> {
        let last = self.steps.last()?;
        Some((last.copy.as_ref()?, &last.to))
    }

    /// The copies that stand in the account as far as is known, the last one first.
    pub(crate) fn standing(&self) -> impl Iterator<Item = (&ImageId, &CopyStep)> {
        let standing = self.steps.iter().rev();
        let standing = standing.filter(|step| step.state != CopyState::Removed);
        standing.filter_map(|step| Some((step.copy.as_ref()?, step)))
    }

    /// Whether `image_id` is an image that is copied, and no copy.
    pub(super) fn is_source(&self, image_id: &ImageId) -> bool {
        *image_id == self.image_id
    }

    /// Whether `image` is proven to be the copy of `step`.
    pub(super) fn is_own(&self, step: &CopyStep, image: &Image) -> bool {
        let is_the_copy = step
            .copy
            .as_ref()
            .is_some_and(|copy| image.image_id == *copy.as_str());
        is_the_copy
            && image.image_id != *self.image_id.as_str()
            && image.image_name == *step.name
            && image.image_type == "PRIVATE_IMAGE"
    }
}

/// What the names of all copies for an export start with.
pub(super) fn name_mark(identity: &Identity) -> String {
    format!("{MARK}{}", &identity.hash()[..12])
}

/// What the ids of all records for an export start with.
pub(crate) fn id_start(identity: &Identity) -> String {
    format!("copy-{}", &identity.hash()[..8])
}
