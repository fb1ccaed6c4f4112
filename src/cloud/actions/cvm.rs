//! CVM, version 2017-03-12.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use super::null_as_default;
use crate::cloud::api::{Action, Replay};
use crate::model::{BucketName, CloudText, ImageId, Prefix, Region, RoleName, TaskId};

/// Lists images (SDK `cvm/v20170312`). Either ids or filters, never both.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeImages {
    /// The images; an id that is not there is refused with `InvalidImageId.NotFound`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_ids: Vec<ImageId>,
    /// What the images must match, all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How many to pass over; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many to answer with; 20 by default and 100 at most.
    pub limit: u64,
}

/// One condition of a listing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Filter {
    /// What is compared.
    pub name: &'static str,
    /// The values, any of which will do.
    pub values: Vec<String>,
}

impl DescribeImages {
    /// The largest page.
    const PAGE: u64 = 100;

    /// One image, of whatever type.
    #[must_use]
    pub fn by_id(image_id: ImageId) -> Self {
        Self {
            image_ids: vec![image_id],
            filters: Vec::new(),
            offset: None,
            limit: Self::PAGE,
        }
    }

    /// The account's custom images, or those of `image_ids`.
    #[must_use]
    pub fn custom_images(image_ids: &[ImageId]) -> Self {
        let custom = Filter {
            name: "image-type",
            values: vec!["PRIVATE_IMAGE".to_owned()],
        };
        Self {
            image_ids: image_ids.to_vec(),
            filters: if image_ids.is_empty() {
                vec![custom]
            } else {
                Vec::new()
            },
            offset: None,
            limit: Self::PAGE,
        }
    }

    /// The account's custom images whose names hold `text`: the cloud compares in part.
    #[must_use]
    pub fn custom_images_named(text: &str) -> Self {
        let mut call = Self::custom_images(&[]);
        call.filters.push(Filter {
            name: "image-name",
            values: vec![text.to_owned()],
        });
        call
    }

    /// How many custom images the account has: the total of a page of one.
    #[must_use]
    pub fn count_of_custom_images() -> Self {
        Self {
            limit: 1,
            ..Self::custom_images(&[])
        }
    }
}

impl Action for DescribeImages {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "DescribeImages";
    type Response = DescribeImagesResponse;
}

/// A page of images.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeImagesResponse {
    /// The images.
    #[serde(default, deserialize_with = "null_as_default")]
    pub image_set: Vec<Image>,
    /// How many there are in all.
    #[serde(default)]
    pub total_count: Option<u64>,
}

/// An image, as far as an export is concerned (API data type `Image`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// Its id.
    pub image_id: CloudText,
    /// Its name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub image_name: CloudText,
    /// The system in it, by a display name that may be localised.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os_name: CloudText,
    /// `PRIVATE_IMAGE`, `PUBLIC_IMAGE`, `SHARED_IMAGE`; an open set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub image_type: CloudText,
    /// `NORMAL` when no operation holds it; an open set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub image_state: CloudText,
    /// How much of it is copied, in percent; means something only while it is `SYNCING`.
    #[serde(default)]
    pub sync_percent: Option<u64>,
    /// The family of its system, such as `Ubuntu`; an open set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub platform: CloudText,
    /// When it was made; the documents show both `…Z` and `…+00:00`.
    #[serde(default, deserialize_with = "lenient_time")]
    pub created_time: Option<DateTime<Utc>>,
    /// The snapshots of its disks.
    #[serde(default, deserialize_with = "null_as_default")]
    pub snapshot_set: Vec<ImageSnapshot>,
}

/// One disk of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageSnapshot {
    /// The snapshot that holds the disk's content.
    pub snapshot_id: CloudText,
    /// `SYSTEM_DISK` or `DATA_DISK`.
    pub disk_usage: CloudText,
    /// The size of the disk, in GiB.
    pub disk_size: u64,
}

/// Reads a time in either documented form; any other text is no time, not a failure.
fn lenient_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let time = text.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    Ok(time.map(|time| time.to_utc()))
}

/// Starts an export (API page 213/73474). There is no client token: a second one is a second export.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExportImages {
    /// The bucket, with its AppId.
    pub bucket_name: BucketName,
    /// The images; this tool names one a call.
    pub image_ids: Vec<ImageId>,
    /// `RAW`, `QCOW2`, `VHD` or `VMDK`.
    pub export_format: &'static str,
    /// As many prefixes as there are images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name_prefix_list: Option<Vec<Prefix>>,
    /// Whether data disks stay behind.
    pub only_export_root_disk: bool,
    /// The role that CVM takes on to write to the bucket.
    pub role_name: RoleName,
}

impl Action for ExportImages {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "ExportImages";
    const REPLAY: Replay = Replay::NeverOnceSent;
    type Response = ExportImagesResponse;
}

/// An accepted export.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExportImagesResponse {
    /// A number for people: no public call takes it back.
    #[serde(default)]
    pub task_id: Option<TaskId>,
    /// The object keys of the files, each with a leading slash.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cos_paths: Vec<String>,
}

/// Asks whether an export would be accepted; starts nothing, so it may be repeated. What a passing
/// dry run answers is not documented: a normal body or the error `DryRunOperation`.
#[derive(Clone, Debug)]
pub struct ExportImagesDryRun(pub ExportImages);

impl Serialize for ExportImagesDryRun {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct WithDryRun<'a> {
            #[serde(flatten)]
            call: &'a ExportImages,
            dry_run: bool,
        }
        WithDryRun {
            call: &self.0,
            dry_run: true,
        }
        .serialize(serializer)
    }
}

impl Action for ExportImagesDryRun {
    const SERVICE: &'static str = ExportImages::SERVICE;
    const VERSION: &'static str = ExportImages::VERSION;
    const NAME: &'static str = ExportImages::NAME;
    type Response = ExportImagesResponse;
}

/// Copies an image (API page 213/15711): a custom one to other regions, a shared one within its own,
/// which makes it a custom one. There is no client token: a second call makes a second copy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SyncImages {
    /// The image; the API takes one a call, in the state `NORMAL`.
    pub image_ids: Vec<ImageId>,
    /// Where to.
    pub destination_regions: Vec<Region>,
    /// What the copy is called, in at most 60 characters; the source's name by default.
    pub image_name: String,
    /// Whether to answer with the copy's id.
    pub image_set_required: bool,
}

impl SyncImages {
    /// The longest `ImageName`, in characters.
    pub const NAME_LIMIT: usize = 60;

    /// Copies `image_id` to `destination` under the name `image_name`, and asks for the copy's id.
    #[must_use]
    pub fn one(image_id: ImageId, destination: Region, image_name: String) -> Self {
        Self {
            image_ids: vec![image_id],
            destination_regions: vec![destination],
            image_name,
            image_set_required: true,
        }
    }
}

impl Action for SyncImages {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "SyncImages";
    const REPLAY: Replay = Replay::NeverOnceSent;
    type Response = SyncImagesResponse;
}

/// A copy that was begun.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SyncImagesResponse {
    /// The copies, where they were asked for.
    #[serde(default, deserialize_with = "null_as_default")]
    pub image_set: Vec<SyncedImage>,
}

/// A copy in one region (API data type `SyncImage`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SyncedImage {
    /// The copy's id.
    pub image_id: CloudText,
    /// Its region.
    pub region: CloudText,
}

/// Deletes images (API page 213/15716). To delete what is gone already is refused with
/// `InvalidImageId.NotFound`, so it may be repeated.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteImages {
    /// The images; none of them may be in the making or shared with others.
    pub image_ids: Vec<ImageId>,
    /// Whether their snapshots go, too; they stay by default, and are paid for.
    pub delete_binded_snap: bool,
}

impl Action for DeleteImages {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "DeleteImages";
    type Response = DeleteImagesResponse;
}

/// The images are deleted.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct DeleteImagesResponse {}

/// Asks how many custom images the account may have in the region.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DescribeImageQuota {}

impl Action for DescribeImageQuota {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const NAME: &'static str = "DescribeImageQuota";
    type Response = DescribeImageQuotaResponse;
}

/// The quota.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeImageQuotaResponse {
    /// How many custom images there may be.
    #[serde(default)]
    pub image_num_quota: Option<u64>,
}
