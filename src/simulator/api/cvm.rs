//! CVM 2017-03-12: images and their quota. `ExportImages` and copies have files of their own.

use serde_json::{Value, json};

use crate::model::ImageId;

use super::super::world::{Image, World};
use super::parameters::{Field, Filter, Kind, Parameters};
use super::{Action, ApiError, Scene, export_images};

const VERSION: &str = "2017-03-12";

pub(super) const ACTIONS: &[Action] = &[
    Action {
        service: "cvm",
        name: "DescribeImages",
        version: VERSION,
        needs_region: true,
        rate: 40,
        fields: &[
            Field::optional("ImageIds", Kind::Texts),
            Field::optional("Filters", Kind::Filters),
            Field::optional("Offset", Kind::Unsigned),
            Field::optional("Limit", Kind::Unsigned),
            Field::optional("InstanceType", Kind::Text),
        ],
        run: describe_images,
    },
    Action {
        service: "cvm",
        name: "DescribeImageQuota",
        version: VERSION,
        needs_region: true,
        rate: 10,
        fields: &[],
        run: |world, _, _| Ok(json!({"ImageNumQuota": world.image_quota})),
    },
    Action {
        service: "cvm",
        name: "ExportImages",
        version: VERSION,
        needs_region: true,
        rate: 20,
        fields: &[
            Field::required("BucketName", Kind::Text),
            Field::optional("ImageIds", Kind::Texts),
            Field::optional("ExportFormat", Kind::Text),
            Field::optional("FileNamePrefixList", Kind::Texts),
            Field::optional("OnlyExportRootDisk", Kind::Flag),
            Field::optional("DryRun", Kind::Flag),
            Field::optional("RoleName", Kind::Text),
        ],
        run: export_images::export_images,
    },
];

fn describe_images(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let ids = parameters.texts("ImageIds");
    let filters = parameters.filters();
    if ids.is_some() && !filters.is_empty() {
        return Err(ApiError::new(
            "InvalidParameter.InvalidParameterCoexistImageIdsFilters",
            "The parameters `ImageIds` and `Filters` cannot be given together.",
        ));
    }
    check_filters(&filters)?;
    let (offset, limit) = parameters.page()?;
    let found: Vec<&Image> = match ids {
        Some(ids) => find_all(world, scene.region, &ids)?,
        None => world
            .images
            .iter()
            .filter(|image| image.region.as_str() == scene.region)
            .filter(|image| filters.iter().all(|filter| matches(image, filter)))
            .collect(),
    };
    let page: Vec<Value> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|image| describe(world, image))
        .collect();
    Ok(json!({"TotalCount": found.len(), "ImageSet": page}))
}

/// The images of these ids in the region, or the error for the first that is not one.
pub(super) fn find_all<'w>(
    world: &'w World,
    region: &str,
    ids: &[&str],
) -> Result<Vec<&'w Image>, ApiError> {
    if ids.len() > 100 {
        return Err(ApiError::new(
            "InvalidParameterValue.LimitExceeded",
            "The number of `ImageIds` exceeds the limit of 100.",
        ));
    }
    for id in ids {
        check_id(id)?;
    }
    ids.iter()
        .map(|id| {
            world.image_in(region, id).ok_or_else(|| {
                ApiError::new(
                    "InvalidImageId.NotFound",
                    format!("The image `{id}` is not found in `{region}`."),
                )
            })
        })
        .collect()
}

fn check_id(id: &str) -> Result<(), ApiError> {
    id.parse::<ImageId>().map(drop).map_err(|_| {
        ApiError::new(
            "InvalidImageId.Malformed",
            format!("The format of the image id `{id}` is invalid."),
        )
    })
}

fn check_filters(filters: &[Filter]) -> Result<(), ApiError> {
    if filters.len() > 10 || filters.iter().any(|filter| filter.values.len() > 5) {
        return Err(ApiError::new(
            "InvalidFilterValue.LimitExceeded",
            "There may be 10 filters with 5 values each.",
        ));
    }
    for filter in filters {
        match filter.name.as_str() {
            "image-id" => filter.values.iter().try_for_each(|id| check_id(id))?,
            "image-type" | "image-name" | "platform" | "tag-key" | "tag-value" => {}
            name if name.starts_with("tag:") => {}
            name => {
                return Err(ApiError::new(
                    "InvalidFilter",
                    format!("The filter `{name}` is not supported."),
                ));
            }
        }
    }
    Ok(())
}

/// Whether any value of `filter` fits; names and platforms fit in part.
fn matches(image: &Image, filter: &Filter) -> bool {
    filter.values.iter().any(|value| {
        let has_tag =
            |fits: &dyn Fn(&str, &str) -> bool| image.tags.iter().any(|(key, tag)| fits(key, tag));
        match filter.name.as_str() {
            "image-id" => image.id.as_str() == value,
            "image-type" => image.image_type == *value,
            "image-name" => image.name.contains(value.as_str()),
            "platform" => image.platform.contains(value.as_str()),
            "tag-key" => has_tag(&|key, _| key == value),
            "tag-value" => has_tag(&|_, tag| tag == value),
            name => has_tag(&|key, tag| name.strip_prefix("tag:") == Some(key) && tag == value),
        }
    })
}

fn describe(world: &World, image: &Image) -> Value {
    let snapshots: Vec<Value> = image
        .disks
        .iter()
        .map(|disk| {
            json!({
                "SnapshotId": disk.snapshot_id,
                "DiskUsage": disk.usage.wire_name(),
                "DiskSize": disk.size_gib,
            })
        })
        .collect();
    let tags: Vec<Value> = image
        .tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    json!({
        "ImageId": image.id,
        "OsName": image.os_name,
        "ImageType": image.image_type,
        "CreatedTime": image.created.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "ImageName": image.name,
        "ImageDescription": image.description,
        "ImageSize": image.disks.first().map_or(0, |disk| disk.size_gib),
        "Architecture": image.architecture,
        "ImageState": image.state,
        "Platform": image.platform,
        "ImageCreator": world.uin,
        "ImageSource": "CREATE_IMAGE",
        "SyncPercent": world.sync_percent(image),
        "IsSupportCloudinit": true,
        "SnapshotSet": snapshots,
        "Tags": tags,
        "LicenseType": image.license_type,
        "ImageFamily": "",
        "ImageDeprecated": false,
        "CdcCacheStatus": null,
    })
}
