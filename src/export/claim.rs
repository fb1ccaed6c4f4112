//! The claim: the record of an export, kept in the bucket beside its files.
//!
//! A machine that loses its journal, as CI runners do, finds what it had submitted here; so does any
//! other machine. Without the right to put an object the journal stands alone.
//!
//! Of two machines that claim the same export at once one goes on. Where nothing stood before,
//! `x-cos-forbid-overwrite` decides. Where an old claim is replaced, or the bucket keeps versions, the
//! last one to write stands: each waits until every other that saw the old claim must have written,
//! and then looks whose claim it is.

use std::time::Duration;

use bytes::Bytes;

use crate::cloud::Cloud;
use crate::cloud::cos::{CosError, CosErrorKind, Overwrite, Put};
use crate::error::{Error, ErrorKind};
use crate::event::Events;
use crate::export::record::{Record, RecordError};
use crate::export::request::{CLAIM_SUFFIX, claim_key};
use crate::model::{BucketName, ImageId, ObjectKey, Prefix, Region};

/// A claim is a record of a few KiB; anything larger is not one of ours.
pub(crate) const CLAIM_LIMIT_BYTES: usize = 1024 * 1024;
/// Pages of names among which claims are looked for.
const PAGES: usize = 20;
/// Longer than the look-ups between reading an old claim and replacing it take.
const ARBITRATION: Duration = Duration::from_millis(1500);
/// How long bringing the claim up to date may hold a run up; the journal knows it already.
const UPDATE_LIMIT: Duration = Duration::from_secs(10);

/// Keeps the claim of one export, or nothing when it is turned off or not allowed.
#[derive(Debug)]
pub(crate) struct Claim {
    is_on: bool,
    has_warned: bool,
}

/// What putting a first claim brought.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It stands, or the journal stands alone.
    Yes,
    /// Another run has claimed the same export meanwhile.
    ByAnother(Box<Record>),
}

impl Claim {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            has_warned: false,
        }
    }

    /// Leaves what stands there to whoever put it.
    pub(crate) fn leave_alone(&mut self) {
        self.is_on = false;
    }

    /// Puts the claim of `record` before its submit. `overwrite` says whether an earlier claim, known
    /// to be over, may be replaced.
    ///
    /// # Errors
    /// When a claim stands there that cannot be read: an export may be running under it.
    pub(crate) async fn stake(
        &mut self,
        cloud: &Cloud,
        events: &Events,
        record: &Record,
        overwrite: Overwrite,
    ) -> Result<Claimed, Error> {
        if !self.is_on {
            return Ok(Claimed::Yes);
        }
        let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) else {
            return Ok(Claimed::Yes);
        };
        let must_arbitrate = match put(cloud, record, &key, overwrite).await {
            Ok(put) => put.is_versioned || overwrite == Overwrite::Allow,
            Err(error) if error.kind() == CosErrorKind::AlreadyExists => {
                if let Some(other) = self.rival(cloud, record, &key).await? {
                    return Ok(Claimed::ByAnother(Box::new(other)));
                }
                match put(cloud, record, &key, Overwrite::Allow).await {
                    Ok(_) => true,
                    Err(error) => return Ok(self.stand_alone(events, error)),
                }
            }
            Err(error) => return Ok(self.stand_alone(events, error)),
        };
        if must_arbitrate {
            tokio::time::sleep(ARBITRATION).await;
            if let Some(other) = self.rival(cloud, record, &key).await? {
                return Ok(Claimed::ByAnother(Box::new(other)));
            }
        }
        Ok(Claimed::Yes)
    }

    /// The live claim of another run that stands at `key`.
    async fn rival(
        &self,
        cloud: &Cloud,
        record: &Record,
        key: &ObjectKey,
    ) -> Result<Option<Record>, Error> {
        let standing = read(cloud, &record.bucket, &record.region, key).await;
        let standing = standing.map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::Unexpected => ErrorKind::Precondition,
                other => other,
            };
            Error::new(
                kind,
                format!("`{key}` in the bucket may be of an export that runs, and cannot be read; nothing was submitted"),
            )
            .with_hint(
                "allow `name/cos:GetObject`; if nothing of this image is being exported, delete that object, \
                 or use `--no-claim`",
            )
            .with_source(error)
        })?;
        Ok(standing.filter(|other| {
            other.state.is_live()
                && other.export_id != record.export_id
                && other.identity() == record.identity()
        }))
    }

    /// Brings the claim up to date after the submit, or after the end.
    pub(crate) async fn update(&mut self, cloud: &Cloud, events: &Events, record: &Record) {
        if !self.is_on {
            return;
        }
        let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) else {
            return;
        };
        let putting = put(cloud, record, &key, Overwrite::Allow);
        match tokio::time::timeout(UPDATE_LIMIT, putting).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                self.stand_alone(events, error);
            }
            Err(_) => self.warn(events, "COS did not answer in time"),
        }
    }

    /// Goes on with the journal alone. Only a missing right lasts; after any other failure the claim may
    /// stand all the same, so it is kept up to date.
    fn stand_alone(&mut self, events: &Events, error: CosError) -> Claimed {
        self.is_on = error.kind() != CosErrorKind::NotPermitted;
        self.warn(events, &crate::error::one_line(&error));
        Claimed::Yes
    }

    fn warn(&mut self, events: &Events, reason: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            events.warn(format!(
                "the record could not be kept in the bucket ({reason}); only this machine's journal knows \
                 this export (allow `name/cos:PutObject`, or use `--no-claim`)"
            ));
        }
    }
}

/// Notes in the claim of `record`, where it stands, that the files have been fetched. Where that fails other
/// machines only wait for the download longer than they would have to.
pub(crate) async fn settle_download(cloud: &Cloud, record: &Record) {
    let settling = async {
        let key = claim_key(record.prefix.as_ref(), &record.image_id).ok()?;
        let (bucket, region) = (&record.bucket, &record.region);
        let mut standing = read(cloud, bucket, region, &key).await.ok()??;
        if standing.export_id != record.export_id || !standing.owes_download {
            return None;
        }
        standing.owes_download = false;
        put(cloud, &standing, &key, Overwrite::Allow).await.ok()
    };
    // Either way there is nothing to do about it.
    let _ = tokio::time::timeout(UPDATE_LIMIT, settling).await;
}

/// The keys of the claims under a prefix.
#[derive(Debug)]
pub(crate) struct ClaimKeys {
    pub(crate) keys: Vec<ObjectKey>,
    /// What the names start with among which they were looked for.
    pub(crate) start: String,
    /// Whether there are so many of these names that not all were looked through.
    pub(crate) is_cut_off: bool,
}

/// Looks for the claims of all images under `prefix`, which stand among the files that were exported there.
pub(crate) async fn keys_under(
    cloud: &Cloud,
    bucket: &BucketName,
    region: &Region,
    prefix: Option<&Prefix>,
) -> Result<ClaimKeys, CosError> {
    let before = prefix.map_or_else(String::new, |prefix| format!("{prefix}_"));
    let start = format!("{before}img-");
    let is_claim = |key: &ObjectKey| {
        let image_id = key.as_str().strip_suffix(CLAIM_SUFFIX);
        let image_id = image_id.and_then(|key| key.strip_prefix(&before));
        image_id.is_some_and(|image_id| image_id.parse::<ImageId>().is_ok())
    };
    let (mut keys, mut marker) = (Vec::new(), None);
    for _ in 0..PAGES {
        let listing = cloud
            .cos()
            .list_objects(bucket, region, &start, marker.as_deref());
        let page = listing.await?;
        let names = page.objects.into_iter().map(|object| object.key);
        keys.extend(names.filter(is_claim));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    Ok(ClaimKeys {
        keys,
        start,
        is_cut_off: marker.is_some(),
    })
}

async fn put(
    cloud: &Cloud,
    record: &Record,
    key: &ObjectKey,
    overwrite: Overwrite,
) -> Result<Put, CosError> {
    let body = Bytes::from(record.to_json());
    let (bucket, region) = (&record.bucket, &record.region);
    let cos = cloud.cos();
    cos.put_object(bucket, region, key, body, "application/json", overwrite)
        .await
}

/// Reads the claim at `key`.
///
/// # Errors
/// When it could not be looked at, or is no record.
pub(crate) async fn read(
    cloud: &Cloud,
    bucket: &BucketName,
    region: &Region,
    key: &ObjectKey,
) -> Result<Option<Record>, Error> {
    let found = cloud
        .cos()
        .get_small_object(bucket, region, key, None, CLAIM_LIMIT_BYTES)
        .await?;
    let Some((_, body)) = found else {
        return Ok(None);
    };
    parse(&body).map(Some).map_err(|problem| {
        Error::new(
            ErrorKind::Unexpected,
            format!("`{key}` in bucket `{bucket}` cannot be used as a record"),
        )
        .with_source(problem)
    })
}

/// Reads a record that stood in a bucket, where anybody who may write there can have put it: one that names keys
/// outside of its own place could have them fetched or deleted as files of an export.
///
/// # Errors
/// [`RecordError`] when it is none, or names a key that neither starts with its prefix and an underscore nor, where
/// it has none, lies outside of all folders.
pub(crate) fn parse(body: &[u8]) -> Result<Record, RecordError> {
    let record = Record::from_json(body)?;
    let start = match &record.prefix {
        Some(prefix) => format!("{prefix}_"),
        None => String::new(),
    };
    let is_in_place = |key: &ObjectKey| {
        let name = key.as_str().strip_prefix(&start);
        name.is_some_and(|name| !name.contains('/'))
    };
    let is_in_place = record.files.iter().all(|file| {
        let object = file.object.as_ref().map(|object| &object.key);
        file.watched_keys().chain(object).all(is_in_place)
    });
    match is_in_place {
        true => Ok(record),
        false => Err(RecordError::OfAnotherPlace),
    }
}
