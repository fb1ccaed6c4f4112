//! Which copies an export needs, and what the cloud's own limits say about them.

use crate::cloud::Cloud;
use crate::cloud::actions::cvm::{DescribeImageQuota, DescribeImages, Image};
use crate::cloud::api::ApiError;
use crate::error::{Error, ErrorKind};
use crate::export::Known;
use crate::export::preflight::{Fact, fetch_image, find_elsewhere};
use crate::export::request::ExportRequest;
use crate::export::resolve::RegionSetting;
use crate::model::{ImageId, Region};

/// Which copies may be made of an image that cannot be exported where or as it is.
#[derive(Clone, Debug, Default)]
pub struct CopyWishes {
    /// Whether it may be copied to the region of the bucket.
    pub to_bucket_region: bool,
    /// Whether a custom copy may be made of an image that another account shares.
    pub of_shared: bool,
    /// Where the image is, as far as that was said.
    pub region: RegionSetting,
}

impl CopyWishes {
    /// Whether any copy may be made.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.to_bucket_region || self.of_shared
    }
}

/// The copies that an export needs.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    /// The image that was asked for.
    pub image: Image,
    /// Its region.
    pub region: Region,
    /// Where it is copied to, one after the other: to its own region first where it is shared.
    pub destinations: Vec<Region>,
}

impl CopyPlan {
    /// Whether a custom copy is made of a shared image first.
    #[must_use]
    pub fn makes_custom(&self) -> bool {
        self.destinations.first() == Some(&self.region)
    }

    /// The region that it ends in, where that is another one.
    #[must_use]
    pub fn other_region(&self) -> Option<&Region> {
        let last = self.destinations.last();
        last.filter(|last| **last != self.region)
    }
}

/// How many custom images a region holds, and how many it may hold.
#[derive(Clone, Debug)]
pub struct ImageRoom {
    /// The region.
    pub region: Region,
    /// The number that is there.
    pub used: u64,
    /// The quota.
    pub quota: u64,
}

/// What is known of the copies before they are made.
#[derive(Clone, Debug)]
pub struct CopyFacts {
    /// The copies.
    pub plan: CopyPlan,
    /// The room for them, where the account may look.
    pub rooms: Vec<Fact<ImageRoom>>,
}

impl CopyFacts {
    /// Looks up what else the limits need.
    pub(crate) async fn gather(cloud: &Cloud, plan: CopyPlan) -> Self {
        let rooms = plan.destinations.iter().map(|region| room(cloud, region));
        let rooms = futures_util::future::join_all(rooms).await;
        Self { plan, rooms }
    }
}

async fn room(cloud: &Cloud, region: &Region) -> Fact<ImageRoom> {
    let count = DescribeImages::count_of_custom_images();
    let (quota, count) = tokio::join!(
        cloud.call(Some(region), &DescribeImageQuota {}),
        cloud.call(Some(region), &count),
    );
    let unknown = |error: &ApiError| Fact::NoAnswer(error.to_string());
    match (quota, count) {
        (Ok(quota), Ok(count)) => match (quota.value.image_num_quota, count.value.total_count) {
            (Some(quota), Some(used)) => Fact::Known(ImageRoom {
                region: region.clone(),
                used,
                quota,
            }),
            _ => Fact::NoAnswer("the cloud names no number".to_owned()),
        },
        (Err(error), _) | (_, Err(error)) => unknown(&error),
    }
}

/// Says which copies the export needs that `request` asks for; `None` when it needs none, or when the
/// image is not there, which is for the checks to tell.
///
/// # Errors
/// When image or bucket can't be placed, so that nobody knows whether they are in one region.
pub(super) async fn plan_copies(
    cloud: &Cloud,
    request: &ExportRequest,
    known: &Known,
    wishes: &CopyWishes,
) -> Result<Option<CopyPlan>, Error> {
    let (region, image, bucket_region) = if wishes.to_bucket_region {
        let bucket_region = bucket_region(cloud, request, known).await?;
        let (region, image) =
            locate_image(cloud, &wishes.region, &bucket_region, &request.image_id).await?;
        (region, image, bucket_region)
    } else {
        let image = match &known.image {
            Fact::NotAsked => fetch_image(cloud, &request.region, &request.image_id).await?,
            known => known.clone(),
        };
        let Fact::Known(Some(image)) = image else {
            return Ok(None);
        };
        (request.region.clone(), image, request.region.clone())
    };
    let mut destinations = Vec::new();
    if wishes.of_shared && image.image_type == "SHARED_IMAGE" {
        destinations.push(region.clone());
    }
    if region != bucket_region {
        destinations.push(bucket_region);
    }
    Ok((!destinations.is_empty()).then_some(CopyPlan {
        image,
        region,
        destinations,
    }))
}

pub(super) async fn bucket_region(
    cloud: &Cloud,
    request: &ExportRequest,
    known: &Known,
) -> Result<Region, Error> {
    let bucket = &request.bucket;
    let mut listed = known.buckets.known().into_iter().flatten();
    if let Some(entry) = listed.find(|entry| entry.name == *bucket) {
        return Ok(entry.region.clone());
    }
    match cloud.cos().head_bucket(bucket, &request.region).await {
        Ok(head) => Ok(head.region.unwrap_or_else(|| request.region.clone())),
        Err(error) => Err(Error::new(
            ErrorKind::Precondition,
            format!("the region of bucket `{bucket}` is not known, so no image is copied to it; nothing was submitted"),
        )
        .with_hint("allow `name/cos:GetService`, which lists the account's buckets with their regions")
        .with_source(error)),
    }
}

/// Finds the image: where the flag says, else where environment or profile say, else in the region of the
/// bucket, else in any other region of CVM.
///
/// # Errors
/// [`ErrorKind::Precondition`] when it is not there, [`ErrorKind::Permission`] when it may not be seen, and
/// [`ErrorKind::Unexpected`] when there was no usable answer.
pub async fn locate_image(
    cloud: &Cloud,
    setting: &RegionSetting,
    bucket_region: &Region,
    image_id: &ImageId,
) -> Result<(Region, Image), Error> {
    let ambient = setting.ambient.as_ref().map(|(region, _)| region);
    let candidates = match &setting.flag {
        Some(flag) => vec![flag],
        None => [ambient, Some(bucket_region)]
            .into_iter()
            .flatten()
            .collect(),
    };
    let mut unknown = None;
    for region in &candidates {
        match fetch_image(cloud, region, image_id).await? {
            Fact::Known(Some(image)) => return Ok(((*region).clone(), image)),
            Fact::Known(None) => {}
            not_seen => unknown = Some(not_seen),
        }
    }
    if let Some(unknown) = unknown {
        let reason = unknown.why_unknown().unwrap_or_default();
        let message =
            format!("image `{image_id}` could not be looked for: {reason}; nothing was submitted");
        return Err(
            Error::new(unknown.error_kind(), message).with_hint(match unknown {
                Fact::NotPermitted(_) => {
                    "allow `cvm:DescribeImages`, or name the image's region with `--region`"
                }
                _ => "run the command again",
            }),
        );
    }
    let looked_at = setting.flag.as_ref().unwrap_or(bucket_region);
    let found = find_elsewhere(cloud, looked_at, image_id).await?;
    match (&setting.flag, found.first()) {
        (None, Some(region)) => {
            if let Fact::Known(Some(image)) = fetch_image(cloud, region, image_id).await? {
                return Ok((region.clone(), image));
            }
        }
        (Some(flag), Some(found)) => {
            let message =
                format!("there is no image `{image_id}` in {flag}; nothing was submitted");
            return Err(Error::new(ErrorKind::Precondition, message)
                .with_hint(format!("it was found in {found}: use `--region {found}`")));
        }
        (_, None) => {}
    }
    let message = format!("no region has an image `{image_id}`; nothing was submitted");
    Err(Error::new(ErrorKind::Precondition, message)
        .with_hint("look for the id with `cvm-export images --region REGION`"))
}
