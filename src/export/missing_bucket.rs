//! A bucket that is not there yet: where it belongs, and making it.
//!
//! The exporter writes to a bucket of the image's region only, so that is where it is made, and it is made
//! only where the image is.

use tokio_util::sync::CancellationToken;

use super::grace::answer_within_grace;
use super::preflight::{Fact, fetch_image, find_elsewhere};
use super::resolve::{Destination, RegionSetting};
use crate::cloud::Cloud;
use crate::cloud::cos::{BucketEntry, CosErrorKind};
use crate::error::{Error, ErrorKind};
use crate::event::Events;
use crate::model::{BucketName, ImageId, Region};

/// A bucket that is named and does not exist, with the region that it belongs in.
#[derive(Clone, Debug)]
pub struct MissingBucket {
    /// Its name, with its AppId.
    pub bucket: BucketName,
    /// The region of the image.
    pub region: Region,
}

/// Looks whether the bucket of `destination` is missing in the region of `image_id`; `None` when it is
/// there.
///
/// # Errors
/// [`ErrorKind::Precondition`] when it is there in another region than the image's, or the image is not
/// where the bucket would be made, and whatever keeps either from being looked at.
pub async fn find_missing_bucket(
    cloud: &Cloud,
    destination: &Destination,
    setting: &RegionSetting,
    image_id: &ImageId,
) -> Result<Option<MissingBucket>, Error> {
    let (bucket, region) = (&destination.bucket, &destination.region);
    let mut listed = destination.buckets.known().into_iter().flatten();
    if let Some(entry) = listed.find(|entry| entry.name == *bucket) {
        refuse_elsewhere(cloud, entry, setting, image_id).await?;
        return Ok(None);
    }
    match cloud.cos().head_bucket(bucket, region).await {
        Ok(_) => return Ok(None),
        Err(error) => match error.kind() {
            CosErrorKind::NotFound => {}
            // Something is there, and what may be done with it is for the checks to say.
            CosErrorKind::NotPermitted => return Ok(None),
            _ => return Err(error.into()),
        },
    }
    match fetch_image(cloud, region, image_id).await? {
        Fact::Known(Some(_)) => Ok(Some(MissingBucket {
            bucket: bucket.clone(),
            region: region.clone(),
        })),
        Fact::Known(None) => {
            let found = find_elsewhere(cloud, region, image_id).await?;
            let hint = match found.first() {
                Some(found) => format!("it was found in {found}: use `--region {found}`"),
                None => "look for the id with `cvm-export images --region REGION`".to_owned(),
            };
            let message = format!(
                "there is no image `{image_id}` in {region}, so no bucket is made there; nothing was submitted"
            );
            Err(Error::new(ErrorKind::Precondition, message).with_hint(hint))
        }
        other => {
            let reason = other.why_unknown().unwrap_or_default();
            let message = format!(
                "the bucket belongs in the region of image `{image_id}`, which could not be looked at: {reason}"
            );
            Err(Error::new(ErrorKind::Permission, message)
                .with_hint("allow `cvm:DescribeImages`, or create the bucket in the COS console"))
        }
    }
}

/// Refuses a bucket that stands in another region than the image, where that is known.
async fn refuse_elsewhere(
    cloud: &Cloud,
    entry: &BucketEntry,
    setting: &RegionSetting,
    image_id: &ImageId,
) -> Result<(), Error> {
    let said = match (&setting.flag, &setting.ambient) {
        (Some(flag), _) => flag,
        // Where nothing else is known, the image is looked for in the bucket's own region.
        (None, Some((ambient, _))) if *ambient != entry.region => {
            match fetch_image(cloud, ambient, image_id).await? {
                Fact::Known(Some(_)) => ambient,
                _ => return Ok(()),
            }
        }
        (None, _) => return Ok(()),
    };
    if *said == entry.region {
        return Ok(());
    }
    Err(in_another_region(&entry.name, &entry.region, said))
}

fn in_another_region(bucket: &BucketName, actual: &Region, wanted: &Region) -> Error {
    let message = format!(
        "bucket `{bucket}` exists already, in {actual}, and the image is in {wanted}; nothing was submitted"
    );
    Error::new(ErrorKind::Precondition, message).with_hint(
        "name another `--bucket` for `--create-bucket`, or let the image be copied to the bucket with \
         `--copy-to-bucket-region`",
    )
}

impl MissingBucket {
    /// Makes it, private and empty, and notes it in `destination`.
    ///
    /// # Errors
    /// [`ErrorKind::Precondition`] when the name is taken elsewhere, [`ErrorKind::Interrupted`] when `cancel`
    /// comes and no answer follows, and whatever COS refuses.
    pub async fn create(
        &self,
        cloud: &Cloud,
        destination: &mut Destination,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let (bucket, region) = (&self.bucket, &self.region);
        let making = cloud.cos().put_bucket(bucket, region);
        let Some(made) = answer_within_grace(cancel, &Events::discard(), making).await else {
            let message = format!(
                "interrupted while bucket `{bucket}` was being made: it may stand in {region} now; no export was started"
            );
            return Err(Error::new(ErrorKind::Interrupted, message)
                .with_hint("the same command run again looks for it and goes on"));
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == CosErrorKind::AlreadyExists => {
                // An answer may have been lost, or another run was faster; or it stands in another region.
                if cloud.cos().head_bucket(bucket, region).await.is_err() {
                    let message = format!(
                        "the name of bucket `{bucket}` is taken, and not in {region}; nothing was submitted"
                    );
                    return Err(Error::new(ErrorKind::Precondition, message)
                        .with_hint(
                            "name another `--bucket`; the COS console shows where this one is",
                        )
                        .with_source(error));
                }
            }
            Err(error) => return Err(error.into()),
        }
        if let Fact::Known(buckets) = &mut destination.buckets {
            buckets.push(BucketEntry {
                name: bucket.clone(),
                region: region.clone(),
            });
        }
        Ok(())
    }
}
