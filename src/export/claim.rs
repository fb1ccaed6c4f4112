//! The claim: the record of an export, kept in the bucket beside its files.
//!
//! A machine that loses its journal, as CI runners do, finds what it had submitted here; so does any
//! other machine. Without the right to put an object the journal stands alone.

use bytes::Bytes;

use crate::cloud::Cloud;
use crate::cloud::cos::{CosErrorKind, Overwrite};
use crate::error::Error;
use crate::event::Events;
use crate::export::record::Record;
use crate::export::request::claim_key;
use crate::model::{BucketName, ObjectKey, Region};

/// A claim is a record of a few KiB; anything larger is not one of ours.
pub(crate) const CLAIM_LIMIT_BYTES: usize = 1024 * 1024;

/// Keeps the claim of one export, or nothing when it is turned off or not allowed.
#[derive(Debug)]
pub(crate) struct Claim {
    is_on: bool,
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
        Self { is_on }
    }

    /// Puts the claim of `record` before its submit. `overwrite` says whether an earlier claim, known
    /// to be over, may be replaced.
    pub(crate) async fn stake(
        &mut self,
        cloud: &Cloud,
        events: &Events,
        record: &Record,
        overwrite: Overwrite,
    ) -> Claimed {
        if !self.is_on {
            return Claimed::Yes;
        }
        let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) else {
            return Claimed::Yes;
        };
        let put = self.put(cloud, record, &key, overwrite).await;
        let Err(error) = put else { return Claimed::Yes };
        if error.kind() == CosErrorKind::AlreadyExists {
            match read(cloud, &record.bucket, &record.region, &key).await {
                Ok(Some(other)) if other.state.is_live() && other.export_id != record.export_id => {
                    return Claimed::ByAnother(Box::new(other));
                }
                // Over already, or not readable: this run's own record is the better one.
                Ok(_) | Err(_) => match self.put(cloud, record, &key, Overwrite::Allow).await {
                    Ok(()) => return Claimed::Yes,
                    Err(error) => self.give_up(events, &error.into()),
                },
            }
        } else {
            self.give_up(events, &error.into());
        }
        Claimed::Yes
    }

    /// Brings the claim up to date after the submit, or after the end.
    pub(crate) async fn update(&mut self, cloud: &Cloud, events: &Events, record: &Record) {
        if !self.is_on {
            return;
        }
        let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) else {
            return;
        };
        if let Err(error) = self.put(cloud, record, &key, Overwrite::Allow).await {
            self.give_up(events, &error.into());
        }
    }

    async fn put(
        &self,
        cloud: &Cloud,
        record: &Record,
        key: &ObjectKey,
        overwrite: Overwrite,
    ) -> Result<(), crate::cloud::cos::CosError> {
        let body = Bytes::from(record.to_json());
        let cos = cloud.cos();
        cos.put_object(
            &record.bucket,
            &record.region,
            key,
            body,
            "application/json",
            overwrite,
        )
        .await
        .map(|_| ())
    }

    fn give_up(&mut self, events: &Events, error: &Error) {
        self.is_on = false;
        let cause = error.causes().into_iter().next();
        let reason = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        events.warn(format!(
            "the record could not be kept in the bucket ({reason}); only this machine's journal knows \
             this export (allow `name/cos:PutObject`, or use `--no-claim`)"
        ));
    }
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
        .get_small_object(bucket, region, key, CLAIM_LIMIT_BYTES)
        .await?;
    let Some((_, body)) = found else {
        return Ok(None);
    };
    Record::from_json(&body).map(Some).map_err(|problem| {
        Error::new(
            crate::error::ErrorKind::Unexpected,
            format!("`{key}` in bucket `{bucket}` cannot be used as a record"),
        )
        .with_source(problem)
    })
}
