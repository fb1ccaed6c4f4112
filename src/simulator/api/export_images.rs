//! `ExportImages` (API page 213/73474): what it refuses, in which order, and what it starts.

use serde_json::{Value, json};

use crate::model::ImageFormat;

use super::super::export::{ExportItem, ExportTarget, PlannedFile, exported_disks, plan};
use super::super::grants::{self, Target};
use super::super::storage::KEY_LIMIT_BYTES;
use super::super::world::{DiskUsage, DryRunAnswer, Image, Role, World};
use super::parameters::Parameters;
use super::{ApiError, Scene, cvm};

/// The seed document's limit for each disk. Whether it means GB or GiB is not defined; the API tells
/// sizes in GiB, so this does.
const DISK_LIMIT_GIB: u64 = 500;

/// The seed document's limit for a whole machine.
const DATA_DISK_LIMIT: usize = 5;

const DEFAULT_ROLE: &str = "CVM_QcsRole";

pub(super) fn export_images(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let ids = parameters.texts("ImageIds").ok_or_else(|| {
        ApiError::new(
            "InvalidParameter.ImageIdsSnapshotIdsMustOne",
            "Exactly one of `ImageIds` and `SnapshotIds` must be given.",
        )
    })?;
    let prefixes = parameters.texts("FileNamePrefixList").unwrap_or_default();
    if !prefixes.is_empty() && prefixes.len() != ids.len() {
        return Err(ApiError::new(
            "InvalidParameterValue.InvalidFileNamePrefixList",
            "The length of `FileNamePrefixList` must be that of `ImageIds`.",
        ));
    }
    let target = ExportTarget {
        bucket: parameters.text("BucketName").unwrap_or_default(),
        format: read_format(parameters.text("ExportFormat").unwrap_or("RAW"))?,
        is_root_disk_only: parameters.flag("OnlyExportRootDisk"),
    };
    if !world.feature_enabled {
        return Err(ApiError::new(
            "OperationDenied.AccountNotSupported",
            "The account is not allowed to export images; apply for it by a ticket.",
        ));
    }
    let images = cvm::find_all(world, scene.region, &ids)?;
    for image in &images {
        check_image(image, target.is_root_disk_only)?;
    }
    let role_name = parameters.text("RoleName").unwrap_or(DEFAULT_ROLE);
    let role = find_role(world, role_name)?;
    check_bucket(world, scene.region, target.bucket)?;
    let mut prefixes = prefixes.into_iter();
    let files: Vec<PlannedFile> = images
        .into_iter()
        .flat_map(|image| {
            let prefix = prefixes.next();
            plan(ExportItem { image, prefix }, target, world.naming)
        })
        .collect();
    let (_, policies) = world.access();
    let may_write = |file: &PlannedFile| {
        let key = &file.real_key;
        let (region, bucket) = (scene.region, target.bucket);
        let app_id = &world.app_id;
        grants::may_write(
            role,
            policies,
            &world.presets,
            Target {
                region,
                app_id,
                bucket,
                key,
            },
        )
    };
    if !files.iter().all(may_write) {
        return Err(ApiError::new(
            "InvalidParameterValue.InvalidBucketPermissionForExport",
            format!(
                "The role `{role_name}` may not write to the bucket `{}`.",
                target.bucket
            ),
        ));
    }
    if let Some(file) = files
        .iter()
        .find(|file| file.told_key.len() > KEY_LIMIT_BYTES)
    {
        return Err(ApiError::new(
            "InvalidParameterValue.TooLarge",
            format!(
                "The name `{}` is longer than {KEY_LIMIT_BYTES} bytes.",
                file.told_key
            ),
        ));
    }
    let paths: Vec<String> = files
        .iter()
        .map(|file| format!("/{}", file.told_key))
        .collect();
    if parameters.flag("DryRun") {
        return match world.dry_run_answer {
            DryRunAnswer::Accepted => Ok(json!({"TaskId": 0, "CosPaths": paths})),
            DryRunAnswer::Error => Err(ApiError::new(
                "DryRunOperation",
                "The request would have succeeded, but the DryRun parameter was used.",
            )),
        };
    }
    if world.running_tasks() >= world.task_limit {
        return Err(ApiError::new(
            "LimitExceeded.ExportImageTaskLimitExceeded",
            "The number of running export tasks has reached the upper limit; wait for them to end \
             and try again.",
        ));
    }
    let task = world.start_task(target.bucket, files);
    Ok(json!({"TaskId": task, "CosPaths": paths}))
}

fn read_format(text: &str) -> Result<ImageFormat, ApiError> {
    let formats = ImageFormat::ALL.iter().copied();
    // The wire knows capitals only.
    let mut named = formats.filter(|format| format.wire_name() == text);
    named.next().ok_or_else(|| {
        ApiError::new(
            "InvalidParameterValue",
            format!("The value `{text}` of `ExportFormat` is not RAW, QCOW2, VHD or VMDK."),
        )
    })
}

fn check_image(image: &Image, is_root_disk_only: bool) -> Result<(), ApiError> {
    let disks = || exported_disks(image, is_root_disk_only);
    let data_disks = disks().filter(|disk| disk.usage == DiskUsage::Data).count();
    let is_red_hat = [&image.platform, &image.os_name]
        .iter()
        .any(|name| name.contains("Red Hat") || name.contains("RedHat"));
    let code = if image.image_type == "PUBLIC_IMAGE" {
        "UnsupportedOperation.PublicImageExportUnsupported"
    } else if image.image_type == "SHARED_IMAGE" {
        "UnsupportedOperation.SharedImageExportUnsupported"
    } else if let Some(code) = &image.refusal {
        code
    } else if image.platform == "Windows" {
        "UnsupportedOperation.WindowsImageExportUnsupported"
    } else if is_red_hat {
        "UnsupportedOperation.RedHatImageExportUnsupported"
    } else if disks().any(|disk| disk.encrypted) {
        "UnsupportedOperation.EncryptedImagesNotSupported"
    } else if disks().any(|disk| disk.size_gib > DISK_LIMIT_GIB) {
        "UnsupportedOperation.ImageTooLargeExportUnsupported"
    } else if data_disks > DATA_DISK_LIMIT {
        // No code of the list speaks of the number of disks; this is the nearest.
        "InvalidParameterValue.TooLarge"
    } else if image.state != "NORMAL" {
        "InvalidParameterValue.InvalidImageState"
    } else {
        return Ok(());
    };
    Err(ApiError::new(
        code,
        format!("The image `{}` cannot be exported.", image.id),
    ))
}

fn find_role<'w>(world: &'w World, name: &str) -> Result<&'w Role, ApiError> {
    let (roles, _) = world.access();
    let role = roles.iter().find(|role| role.name == name);
    role.filter(|role| role.trusts_cvm()).ok_or_else(|| {
        ApiError::new(
            "AuthFailure.CamRoleNameAuthenticateFailed",
            format!("The CAM role name `{name}` could not be authenticated."),
        )
    })
}

/// The exporter looks in the image's region only, and knows buckets by their full name only.
fn check_bucket(world: &World, region: &str, name: &str) -> Result<(), ApiError> {
    let bucket = world.buckets.get(name);
    if bucket.is_some_and(|bucket| bucket.region.as_str() == region) {
        return Ok(());
    }
    Err(ApiError::new(
        "InvalidParameterValue.BucketNotFound",
        format!("Please check whether the bucket `{name}` exists in `{region}`."),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::super::world::{ImageDisk, derived_snapshot_id};
    use super::*;

    fn image() -> Image {
        let id = "img-test0001".parse().expect("an image id");
        Image::linux(id, "ap-guangzhou".parse().expect("a region"), 50)
    }

    fn code(image: &Image, is_root_disk_only: bool) -> String {
        check_image(image, is_root_disk_only).map_or_else(|error| error.code, |()| String::new())
    }

    #[test]
    fn every_visible_obstacle_has_its_code() {
        type Change = fn(&mut Image);
        let cases: &[(Change, &str)] = &[
            (|_| (), ""),
            (
                |image| image.image_type = "SHARED_IMAGE".to_owned(),
                "UnsupportedOperation.SharedImageExportUnsupported",
            ),
            (
                |image| image.image_type = "PUBLIC_IMAGE".to_owned(),
                "UnsupportedOperation.PublicImageExportUnsupported",
            ),
            (
                |image| image.platform = "Windows".to_owned(),
                "UnsupportedOperation.WindowsImageExportUnsupported",
            ),
            (
                |image| image.os_name = "Red Hat Enterprise Linux 9".to_owned(),
                "UnsupportedOperation.RedHatImageExportUnsupported",
            ),
            (
                |image| image.disks[0].encrypted = true,
                "UnsupportedOperation.EncryptedImagesNotSupported",
            ),
            (
                |image| image.disks[0].size_gib = 501,
                "UnsupportedOperation.ImageTooLargeExportUnsupported",
            ),
            (
                |image| image.state = "SYNCING".to_owned(),
                "InvalidParameterValue.InvalidImageState",
            ),
            (
                |image| {
                    image.refusal =
                        Some("UnsupportedOperation.MarketImageExportUnsupported".to_owned());
                },
                "UnsupportedOperation.MarketImageExportUnsupported",
            ),
        ];
        for (change, expected) in cases {
            let mut image = image();
            change(&mut image);
            assert_eq!(code(&image, false), *expected);
        }
    }

    #[test]
    fn data_disks_do_not_matter_when_only_the_system_disk_is_exported() {
        let mut image = image();
        for place in 1..=6 {
            let snapshot_id = derived_snapshot_id(&image.id, place);
            let disk = ImageDisk::sample(DiskUsage::Data, snapshot_id, 10);
            image.disks.push(disk);
        }
        assert_eq!(code(&image, false), "InvalidParameterValue.TooLarge");
        image.disks[3].size_gib = 700;
        assert_eq!(code(&image, true), "");
    }
}
