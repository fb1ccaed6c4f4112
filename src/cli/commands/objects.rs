//! Objects that are named on the command line.

use cvm_export::download::ObjectAddress;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::Destination;
use cvm_export::model::{BucketName, CloudText, InvalidValue, ObjectKey};

use super::Context;
use super::settings::Session;

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
pub(super) fn named(
    target: &str,
    bucket: Option<&BucketName>,
) -> Result<(BucketName, ObjectKey), Error> {
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
pub(super) async fn addresses(
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
