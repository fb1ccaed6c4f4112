//! Objects that are named on the command line.

use cvm_export::cloud::cos::ObjectMeta;
use cvm_export::download::ObjectAddress;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{Destination, ExportOutcome, OutcomeState};
use cvm_export::model::{BucketName, CloudText, ExportId, InvalidValue, ObjectKey, Region};

use super::Context;
use super::settings::{JournalUse, Session};

/// What was said, before buckets have their full names and regions.
pub(super) enum Said {
    /// All files of an export.
    Export(ExportId),
    /// These objects.
    Objects(Vec<(BucketName, ObjectKey)>),
}

impl Said {
    /// Reads an export id of this machine's journal, or objects as [`named`] does. `command` is the one
    /// that takes an export alone.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for what is neither, and for an export among others.
    pub(super) fn of(
        targets: &[String],
        bucket: Option<&BucketName>,
        command: &str,
    ) -> Result<Self, Error> {
        if let (None, [single]) = (bucket, targets)
            && !single.contains("://")
        {
            return match single.parse() {
                Ok(export_id) => Ok(Self::Export(export_id)),
                Err(invalid) => Err(Error::new(
                    ErrorKind::Usage,
                    format!("EXPORT_ID: {invalid}; object keys need --bucket"),
                )),
            };
        }
        let mut ids = targets.iter();
        if bucket.is_none()
            && let Some(id) = ids.find(|target| target.parse::<ExportId>().is_ok())
        {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("an export is named alone: run `cvm-export {command} {id}`"),
            ));
        }
        let objects = targets.iter().map(|target| named(target, bucket));
        Ok(Self::Objects(objects.collect::<Result<_, Error>>()?))
    }

    /// The bucket that is named, where one is.
    pub(super) fn bucket(&self) -> Option<&BucketName> {
        match self {
            Self::Export(_) => None,
            Self::Objects(objects) => objects.first().map(|(bucket, _)| bucket),
        }
    }

    /// An export is known by the journal alone.
    pub(super) fn journal_use(&self) -> JournalUse {
        match self {
            Self::Export(_) => JournalUse::Needed,
            Self::Objects(_) => JournalUse::IfThere,
        }
    }

    /// The objects, with their buckets in full and their regions.
    pub(super) async fn addresses(
        &self,
        context: &Context<'_>,
        session: &Session,
    ) -> Result<Vec<ObjectAddress>, Error> {
        match self {
            Self::Export(export_id) => Ok(exported(export_id, session)?.addresses()),
            Self::Objects(objects) => addresses(objects, context, session).await,
        }
    }
}

/// An export that this machine's journal knows to be complete.
///
/// # Errors
/// [`ErrorKind::Usage`] for one that it does not know, [`ErrorKind::Precondition`] for one that is not
/// complete.
pub(super) fn exported(export_id: &ExportId, session: &Session) -> Result<ExportOutcome, Error> {
    let Some(record) = session.journal.load(export_id)? else {
        let message = format!("this machine's journal knows no export `{export_id}`");
        return Err(Error::new(ErrorKind::Usage, message).with_hint(
            "`cvm-export status` lists what it knows; elsewhere name the files as cos://BUCKET/KEY",
        ));
    };
    let outcome = ExportOutcome::of(&record);
    if outcome.state != OutcomeState::Complete {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("the export `{export_id}` is not complete"),
        )
        .with_hint(format!("wait for it with `cvm-export wait {export_id}`")));
    }
    Ok(outcome)
}

/// Looks an object up by HEAD.
///
/// # Errors
/// [`ErrorKind::Precondition`] where it, or its bucket, is not there, or another one has taken its place.
pub(super) async fn look_up(
    address: &ObjectAddress,
    context: &Context<'_>,
    session: &Session,
) -> Result<ObjectMeta, Error> {
    let ObjectAddress {
        bucket,
        region,
        key,
        etag,
    } = address;
    let cos = session.cloud.cos();
    let looking = async { Ok(cos.head_object(bucket, region, key, None).await?) };
    let Some(found) = context.until_signalled(looking).await? else {
        return Err(missing(bucket, region, key, context, session).await);
    };
    if etag.as_ref().is_some_and(|etag| *etag != found.etag) {
        let message =
            format!("`{key}` in bucket `{bucket}` was replaced by another object since its export");
        return Err(
            Error::new(ErrorKind::Precondition, message).with_hint(format!(
                "name what stands there now as `cos://{bucket}/{key}`"
            )),
        );
    }
    Ok(found)
}

/// COS answers alike to HEAD of an object, whether that or its whole bucket is missing.
async fn missing(
    bucket: &BucketName,
    region: &Region,
    key: &ObjectKey,
    context: &Context<'_>,
    session: &Session,
) -> Error {
    let cos = session.cloud.cos();
    let looking = async { Ok(cos.head_bucket(bucket, region).await?) };
    match context.until_signalled(looking).await {
        Err(error) if error.kind() == ErrorKind::Precondition => {
            let message = format!("there is no bucket `{bucket}` in {region}");
            return Error::new(ErrorKind::Precondition, message)
                .with_hint("look at the bucket's name and region with `cvm-export check`")
                .with_source(error);
        }
        Err(_) | Ok(_) => {}
    }
    let message = format!("there is no object `{key}` in bucket `{bucket}`");
    let hint = format!("`cvm-export files --bucket {bucket}` lists what is there");
    Error::new(ErrorKind::Precondition, message).with_hint(hint)
}

/// Reads `cos://BUCKET/KEY`; `None` for what has another form.
pub(super) fn cos_url(text: &str) -> Option<Result<(BucketName, ObjectKey), InvalidValue>> {
    let rest = text.strip_prefix("cos://")?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    Some(bucket.parse().and_then(|bucket| Ok((bucket, key.parse()?))))
}

/// Reads `cos://BUCKET/KEY`, or a key of `bucket`.
///
/// # Errors
/// [`ErrorKind::Usage`] where it is neither, or no bucket is named.
fn named(target: &str, bucket: Option<&BucketName>) -> Result<(BucketName, ObjectKey), Error> {
    match (cos_url(target), bucket) {
        (Some(address), _) => Ok(address?),
        (None, Some(bucket)) => Ok((bucket.clone(), target.parse()?)),
        (None, None) => Err(Error::new(
            ErrorKind::Usage,
            format!(
                "`{}` needs --bucket, or the form cos://BUCKET/KEY",
                CloudText::excerpt(target, 80)
            ),
        )),
    }
}

/// The objects, each once, with their buckets in full and their regions.
async fn addresses(
    objects: &[(BucketName, ObjectKey)],
    context: &Context<'_>,
    session: &Session,
) -> Result<Vec<ObjectAddress>, Error> {
    let mut addresses: Vec<ObjectAddress> = Vec::new();
    let mut known: Vec<(&BucketName, Destination)> = Vec::new();
    for (bucket, key) in objects {
        if !known.iter().any(|(name, _)| *name == bucket) {
            known.push((bucket, super::resolve(context, session, bucket).await?));
        }
        let destination = known
            .iter()
            .find(|(name, _)| *name == bucket)
            .map(|(_, place)| place);
        let destination = destination.expect("it was resolved just now");
        let address = ObjectAddress {
            bucket: destination.bucket.clone(),
            region: destination.region.clone(),
            key: key.clone(),
            etag: None,
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}
