//! Unfinished uploads of exports that are dead: parts that nobody will complete, stored and paid for, and in
//! no listing of objects.
//!
//! One is taken for dead when all of this holds: it is proven to be of an export, as files are; no export
//! whose record names it, or could by its names, runs; and neither its beginning nor its newest part is
//! younger than the longest time that an export is waited for by default. Just before it is given up its
//! parts are looked at again: if they have changed, it stays.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::draft::Draft;
use super::index::{Images, Running, Unreadable};
use super::names::Name;
use super::removal::{RemovalState, Stay, uploads_hint};
use super::{Files, Inventory, ListedUpload, Proof, Scope};
use crate::cloud::cos::{CosClient, CosError, CosErrorKind, Upload};
use crate::error::{Error, ErrorKind, one_line};
use crate::export::preflight::Fact;
use crate::model::ObjectKey;

/// Looks at once.
const CONCURRENT_LOOKS: usize = 8;
/// Uploads whose parts a listing looks at: each takes a request for every 1000 parts.
const MOST_WEIGHED: usize = 100;

/// An unfinished upload that is to be given up.
#[derive(Clone, Debug, Serialize)]
pub struct DoomedUpload {
    /// The upload.
    #[serde(flatten)]
    pub upload: ListedUpload,
    /// What its parts hold; the same stands in `upload`.
    #[serde(skip)]
    pub size_bytes: u64,
    /// How many parts there are.
    pub parts: usize,
    /// When it last grew, or began.
    pub idle_since: Option<DateTime<Utc>>,
    /// How far it is.
    pub state: RemovalState,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Uploads to be given up: first a plan, then what became of it.
#[derive(Clone, Debug)]
pub struct AbortPlan {
    /// Where.
    pub scope: Scope,
    /// The uploads that go, and those of which nobody could tell.
    pub uploads: Vec<DoomedUpload>,
    /// Those that stay.
    pub stays: Vec<Stay>,
}

/// What uploads are compared with.
pub(super) struct Around<'a> {
    pub(super) scope: &'a Scope,
    pub(super) drafts: &'a [Draft],
    pub(super) running: &'a Running,
    pub(super) unreadable: &'a Unreadable,
    pub(super) images: &'a Images,
}

/// The unfinished uploads that have to do with exports.
pub(super) fn of_exports(uploads: &[Upload], around: &Around<'_>) -> Vec<ListedUpload> {
    // What several records may have begun is the first one's.
    let mut beginners: Vec<Option<&Draft>> = vec![None; uploads.len()];
    for draft in around.drafts {
        for place in &draft.begun {
            beginners[*place as usize].get_or_insert(draft);
        }
    }
    let uploads = uploads.iter().zip(beginners);
    let uploads = uploads.filter_map(|(upload, draft)| of_export(upload, draft, around));
    uploads
        .filter(|upload| {
            let copy = upload.copy.as_ref();
            around.scope.wants(upload.image_id.as_ref(), copy)
        })
        .collect()
}

/// An upload that the export of `draft` may have begun.
fn of_export(upload: &Upload, draft: Option<&Draft>, around: &Around<'_>) -> Option<ListedUpload> {
    let prefix = &around.scope.prefix;
    let name = Name::of(&upload.key).filter(|name| prefix.covers(name.prefix()));
    if draft.is_none() && !matches!(name, Some(Name::Api { .. } | Name::Console { .. })) {
        return None;
    }
    let proof = match (draft, &name) {
        (Some(_), _) => Proof::Record,
        (None, Some(name)) if around.images.of_name(name).is_some() => Proof::Image,
        _ => Proof::None,
    };
    let listed = draft.map(|draft| &draft.listed);
    let image_id = listed.and_then(|export| export.image_id.as_ref());
    let running = name.as_ref().and_then(|name| {
        let export_id = around.running.writer_of(name);
        let runs = export_id.map(|export_id| format!("export `{export_id}` runs"));
        runs.or_else(|| may_run(name, around.unreadable))
    });
    Some(ListedUpload {
        key: upload.key.clone(),
        upload_id: upload.upload_id.clone(),
        initiated: upload.initiated,
        storage_class: upload.storage_class.clone(),
        size_bytes: None,
        export_id: listed.and_then(|export| export.export_id.clone()),
        copy: listed.and_then(|export| export.copy.as_deref().cloned()),
        image_id: image_id.or(name.as_ref().and_then(Name::image_id)).cloned(),
        proof,
        running,
    })
}

/// Why an upload of this name may be of an export that runs although no record says so: there is one that
/// cannot be read.
fn may_run(name: &Name, unreadable: &Unreadable) -> Option<String> {
    let key = unreadable.of_name(name)?;
    Some(format!(
        "the record `{key}` cannot be read, so its export may run"
    ))
}

/// The parts of an upload, as far as growth is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    parts: usize,
    bytes: u64,
    newest: Option<DateTime<Utc>>,
}

impl Files {
    /// How long an upload must have rested: longer than any export within the documented limits is waited
    /// for by default (3 hours and 12 hours per TB, for six disks of 500 GB).
    pub const USUAL_IDLE: Duration = Duration::from_secs(48 * 3600);

    /// Notes what the unfinished uploads in `inventory` hold, of the first hundred. What is not known after
    /// that comes back with why it is not.
    ///
    /// # Errors
    /// Keys that COS does not accept.
    pub async fn weigh_uploads(&self, inventory: &mut Inventory) -> Result<Option<String>, Error> {
        let Fact::Known(uploads) = &mut inventory.uploads else {
            return Ok(None);
        };
        let scope = &inventory.scope;
        let refusal = std::cell::OnceCell::new();
        let looks = uploads.iter().take(MOST_WEIGHED).map(|upload| async {
            // Who may not look at one may look at none.
            if refusal.get().is_some() {
                return Ok::<_, Error>(None);
            }
            match self.growth(scope, &upload.key, &upload.upload_id).await {
                // One that is over holds nothing any more.
                Ok(growth) => Ok(Some(growth.unwrap_or_default().bytes)),
                Err(error) if error.kind() == CosErrorKind::Credentials => Err(error.into()),
                Err(error) => {
                    let _ = refusal.set(one_line(&error));
                    Ok(None)
                }
            }
        });
        let looks = futures_util::stream::iter(looks).buffered(CONCURRENT_LOOKS);
        let sizes: Vec<Option<u64>> = looks.try_collect().await?;
        for (upload, size_bytes) in uploads.iter_mut().zip(sizes) {
            upload.size_bytes = size_bytes;
        }
        let is_more = uploads.len() > MOST_WEIGHED;
        let too_many = || format!("only the first {MOST_WEIGHED} are looked at");
        Ok(refusal.into_inner().or_else(|| is_more.then(too_many)))
    }

    /// Which unfinished uploads in `inventory` are dead; `idle_for` is how long nothing may have come.
    ///
    /// # Errors
    /// When uploads could not be listed. One whose parts could not is in the plan as failed.
    pub async fn dead_uploads(
        &self,
        inventory: Inventory,
        idle_for: Duration,
    ) -> Result<AbortPlan, Error> {
        let Some(listed) = inventory.uploads.known() else {
            let reason = inventory.uploads.why_unknown().unwrap_or_default();
            return Err(Error::new(
                inventory.uploads.error_kind(),
                format!("unfinished uploads could not be listed: {reason}"),
            )
            .with_hint(uploads_hint(&inventory.uploads)));
        };
        let idle_for = TimeDelta::from_std(idle_for).unwrap_or(TimeDelta::MAX);
        let looks = listed.iter().map(|upload| async {
            let growth = match upload.proof {
                Proof::None => Ok(None),
                _ => {
                    let growing = self.growth(&inventory.scope, &upload.key, &upload.upload_id);
                    match growing.await {
                        Err(error) if error.kind() == CosErrorKind::Credentials => {
                            return Err(error.into());
                        }
                        growth => growth,
                    }
                }
            };
            Ok::<_, Error>((upload.clone(), growth))
        });
        let looks = futures_util::stream::iter(looks).buffered(CONCURRENT_LOOKS);
        let looked: Vec<_> = looks.try_collect().await?;
        let (mut uploads, mut stays) = (Vec::new(), Vec::new());
        for (upload, growth) in looked {
            let growth = match growth {
                Ok(growth) => growth,
                Err(error) => {
                    uploads.push(DoomedUpload {
                        idle_since: None,
                        size_bytes: 0,
                        parts: 0,
                        state: RemovalState::Failed,
                        error: Some(one_line(&error)),
                        upload,
                    });
                    continue;
                }
            };
            let idle_since = growth
                .and_then(|growth| growth.newest)
                .max(upload.initiated);
            let why = match (&upload.running, growth, idle_since) {
                _ if upload.proof == Proof::None => Some(
                    "nobody knows whose it is: nothing proves that it is an export's".to_owned(),
                ),
                (Some(why), ..) => Some(why.clone()),
                (None, None, _) => Some("it is over".to_owned()),
                (None, Some(_), None) => Some("COS does not say how old it is".to_owned()),
                (None, Some(_), Some(since)) if inventory.seen_at - since < idle_for => {
                    Some(format!(
                        "it began or grew at {}, and may be of an export that runs",
                        since.format("%Y-%m-%d %H:%M:%SZ")
                    ))
                }
                _ => None,
            };
            match why {
                Some(why) => stays.push(Stay::new(format!("the upload of `{}`", upload.key), why)),
                None => {
                    let growth = growth.unwrap_or_default();
                    let upload = ListedUpload {
                        size_bytes: Some(growth.bytes),
                        ..upload
                    };
                    uploads.push(DoomedUpload {
                        upload,
                        size_bytes: growth.bytes,
                        parts: growth.parts,
                        idle_since,
                        state: RemovalState::Planned,
                        error: None,
                    });
                }
            }
        }
        Ok(AbortPlan {
            scope: inventory.scope,
            uploads,
            stays,
        })
    }

    /// Gives the uploads of `plan` up and notes in it what became of each. A signal ends it between two.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`], and keys that COS does not accept.
    pub async fn abort(&self, plan: &mut AbortPlan) -> Result<(), Error> {
        let scope = &plan.scope;
        let planned = plan.uploads.iter_mut();
        for doomed in planned.filter(|doomed| doomed.state == RemovalState::Planned) {
            if self.exporter.cancel.is_cancelled() {
                return Err(Error::new(
                    ErrorKind::Interrupted,
                    "interrupted; what was given up is given up",
                )
                .with_hint("the same command run again goes on with what is left"));
            }
            let (key, upload_id) = (&doomed.upload.key, &doomed.upload.upload_id);
            let before = (doomed.parts, doomed.size_bytes);
            match self.growth(scope, key, upload_id).await {
                Err(error) if error.kind() == CosErrorKind::Credentials => {
                    return Err(error.into());
                }
                Err(error) => {
                    doomed.state = RemovalState::Failed;
                    doomed.error = Some(one_line(&error));
                }
                Ok(None) => doomed.state = RemovalState::Gone,
                Ok(Some(now))
                    if (now.parts, now.bytes) != before || now.newest > doomed.idle_since =>
                {
                    doomed.state = RemovalState::Changed;
                    doomed.error = Some("it has grown meanwhile".to_owned());
                }
                Ok(Some(_)) => {
                    let aborting =
                        self.cos()
                            .abort_upload(&scope.bucket, &scope.region, key, upload_id);
                    match aborting.await {
                        Ok(true) => doomed.state = RemovalState::Deleted,
                        Ok(false) => doomed.state = RemovalState::Gone,
                        Err(error) if error.kind() == CosErrorKind::Credentials => {
                            return Err(error.into());
                        }
                        Err(error) => {
                            doomed.state = RemovalState::Failed;
                            doomed.error = Some(error.to_string());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the parts of an upload are now; `None` when it is over.
    async fn growth(
        &self,
        scope: &Scope,
        key: &ObjectKey,
        upload_id: &str,
    ) -> Result<Option<Growth>, CosError> {
        let mut growth = Growth::default();
        let mut after = 0;
        loop {
            let listing =
                self.cos()
                    .list_parts(&scope.bucket, &scope.region, key, upload_id, after);
            let Some(page) = listing.await? else {
                return Ok(None);
            };
            growth.parts += page.parts.len();
            let sizes = page.parts.iter().map(|part| part.size_bytes);
            growth.bytes = sizes.fold(growth.bytes, u64::saturating_add);
            let newest = page
                .parts
                .iter()
                .filter_map(|part| part.last_modified)
                .max();
            growth.newest = growth.newest.max(newest);
            let last = page.parts.iter().map(|part| part.number).max();
            match last.filter(|_| page.is_truncated) {
                Some(last) => after = last,
                None => return Ok(Some(growth)),
            }
        }
    }

    fn cos(&self) -> &CosClient {
        self.exporter.cloud.cos()
    }
}
