//! CBS 2017-03-12: the snapshots behind the images, which alone tell of encryption.

use serde_json::{Value, json};

use crate::model::SnapshotId;

use super::super::world::{Image, ImageDisk, World};
use super::parameters::{Field, Filter, Kind, Parameters};
use super::{Action, ApiError, Scene};

pub(super) const ACTIONS: &[Action] = &[Action {
    service: "cbs",
    name: "DescribeSnapshots",
    version: "2017-03-12",
    needs_region: true,
    rate: 0,
    fields: &[
        Field::optional("SnapshotIds", Kind::Texts),
        Field::optional("Filters", Kind::Filters),
        Field::optional("Offset", Kind::Unsigned),
        Field::optional("Limit", Kind::Unsigned),
        Field::optional("OrderField", Kind::Text),
        Field::optional("Order", Kind::Text),
    ],
    run: describe_snapshots,
}];

fn describe_snapshots(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let ids = parameters.texts("SnapshotIds").unwrap_or_default();
    let filters = parameters.filters();
    if !ids.is_empty() && !filters.is_empty() {
        return Err(ApiError::new(
            "InvalidParameter",
            "The parameters `SnapshotIds` and `Filters` cannot be given together.",
        ));
    }
    if let Some(id) = ids.iter().find(|id| id.parse::<SnapshotId>().is_err()) {
        return Err(ApiError::new(
            "InvalidSnapshotId.Malformed",
            format!("The format of the snapshot id `{id}` is invalid."),
        ));
    }
    check_filters(&filters)?;
    let (offset, limit) = parameters.page()?;
    let in_region = || {
        world
            .images
            .iter()
            .filter(|image| image.region.as_str() == scene.region)
            .flat_map(|image| image.disks.iter().map(move |disk| (image, disk)))
    };
    if let Some(id) = ids
        .iter()
        .find(|id| in_region().all(|(_, disk)| disk.snapshot_id.as_str() != **id))
    {
        return Err(ApiError::new(
            "InvalidSnapshot.NotFound",
            format!("The snapshot `{id}` is not found."),
        ));
    }
    let found: Vec<Value> = in_region()
        .filter(|(_, disk)| ids.is_empty() || ids.contains(&disk.snapshot_id.as_str()))
        .filter(|(image, disk)| filters.iter().all(|filter| matches(image, disk, filter)))
        .map(|(image, disk)| describe(image, disk))
        .collect();
    let total = found.len();
    let page: Vec<Value> = found.into_iter().skip(offset).take(limit).collect();
    Ok(json!({"TotalCount": total, "SnapshotSet": page}))
}

fn check_filters(filters: &[Filter]) -> Result<(), ApiError> {
    let known = [
        "snapshot-id",
        "snapshot-name",
        "snapshot-state",
        "disk-usage",
        "project-id",
        "disk-id",
        "encrypt",
        "snapshot-type",
    ];
    match filters
        .iter()
        .find(|filter| !known.contains(&filter.name.as_str()))
    {
        Some(filter) => Err(ApiError::new(
            "InvalidFilter",
            format!("The filter `{}` is not supported.", filter.name),
        )),
        None => Ok(()),
    }
}

fn matches(image: &Image, disk: &ImageDisk, filter: &Filter) -> bool {
    let described = describe(image, disk);
    let field = match filter.name.as_str() {
        "snapshot-id" => "SnapshotId",
        "snapshot-name" => "SnapshotName",
        "snapshot-state" => "SnapshotState",
        "disk-usage" => "DiskUsage",
        "disk-id" => "DiskId",
        "snapshot-type" => "SnapshotType",
        "encrypt" => {
            let wanted = if disk.encrypted { "TRUE" } else { "FALSE" };
            return filter
                .values
                .iter()
                .any(|value| value.eq_ignore_ascii_case(wanted));
        }
        _ => return false,
    };
    filter.values.iter().any(|value| described[field] == *value)
}

fn describe(image: &Image, disk: &ImageDisk) -> Value {
    let tail = disk.snapshot_id.as_str().trim_start_matches("snap-");
    json!({
        "SnapshotId": disk.snapshot_id,
        "SnapshotName": format!("{}-{}", image.name, disk.usage.file_word()),
        "SnapshotState": "NORMAL",
        "Percent": 100,
        "DiskUsage": disk.usage.wire_name(),
        "DiskSize": disk.size_gib,
        "DiskId": format!("disk-{tail}"),
        "Encrypt": disk.encrypted,
        "Images": [{"ImageId": image.id, "ImageName": image.name}],
        "ImageCount": 1,
        "IsPermanent": true,
        "DeadlineTime": null,
        "CreateTime": image.created.format("%Y-%m-%d %H:%M:%S").to_string(),
        "TimeStartShare": null,
        "Placement": {
            "Zone": format!("{}-3", image.region),
            "ProjectId": 0,
            "CageId": null,
            "CdcId": null,
            "CdcName": null,
            "HostIds": null,
        },
        "SnapshotType": "PRIVATE_SNAPSHOT",
        "CopyFromRemote": false,
        "CopyingToRegions": [],
        "ShareReference": 0,
        "Tags": [],
        "IsLocked": false,
        "SnapshotMode": "STANDARD_SNAPSHOT",
    })
}
