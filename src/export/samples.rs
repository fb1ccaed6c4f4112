//! Ready-made values for the tests of this module.

use chrono::{DateTime, Utc};

use crate::cloud::actions::cvm::{Image, ImageSnapshot};
use crate::cloud::cos::ObjectMeta;
use crate::export::record::{Baseline, Record, RecordFile};
use crate::export::request::{Disk, DiskRole, DiskScope, ExportRequest};
use crate::model::{ImageFormat, ObjectKey};

/// A size of disk that nothing is wrong with.
pub(super) const DISK_GIB: u64 = 50;

pub(super) fn key(text: &str) -> ObjectKey {
    text.parse().expect("key")
}

pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("time")
}

/// `img-1` of ap-guangzhou with the prefix `p`, as raw files.
pub(super) fn request() -> ExportRequest {
    ExportRequest {
        image_id: "img-1".parse().expect("image id"),
        region: "ap-guangzhou".parse().expect("region"),
        bucket: "b-1250000000".parse().expect("bucket"),
        prefix: Some("p".parse().expect("prefix")),
        format: ImageFormat::Raw,
        scope: DiskScope::WholeMachine,
        role: "CVM_QcsRole".parse().expect("role"),
        prefix_template: None,
        copied_from: None,
    }
}

/// A system disk `snap-0`, then data disks `snap-1`, `snap-2`, …, of these sizes.
pub(super) fn disks(sizes_gib: &[u64]) -> Vec<Disk> {
    let disks = sizes_gib
        .iter()
        .enumerate()
        .map(|(position, size_gib)| Disk {
            role: if position == 0 {
                DiskRole::System
            } else {
                DiskRole::Data
            },
            snapshot_id: format!("snap-{position}").parse().expect("snapshot id"),
            size_gib: *size_gib,
        });
    disks.collect()
}

/// A custom Ubuntu image with the disks of [`disks`].
pub(super) fn image(sizes_gib: &[u64]) -> Image {
    let snapshots = disks(sizes_gib).into_iter().map(|disk| ImageSnapshot {
        snapshot_id: disk.snapshot_id.as_str().into(),
        disk_usage: if disk.role == DiskRole::System {
            "SYSTEM_DISK"
        } else {
            "DATA_DISK"
        }
        .into(),
        disk_size: disk.size_gib,
    });
    Image {
        image_id: "img-1".into(),
        image_name: "web".into(),
        os_name: "Ubuntu Server 22.04 LTS 64bit".into(),
        image_type: "PRIVATE_IMAGE".into(),
        image_state: "NORMAL".into(),
        sync_percent: None,
        platform: "Ubuntu".into(),
        created_time: None,
        snapshot_set: snapshots.collect(),
    }
}

/// An object of a disk's size, last written at second 1000.
pub(super) fn object(name: &str) -> ObjectMeta {
    ObjectMeta {
        key: key(name),
        size_bytes: DISK_GIB << 30,
        etag: "e-1".to_owned(),
        crc64: Some("42".to_owned()),
        storage_class: "STANDARD".to_owned(),
        last_modified: Some(at(1000)),
        version_id: None,
    }
}

/// The record of `request` with its disks' predicted files, none of whose names stands in the bucket.
pub(super) fn record(request: &ExportRequest, sizes_gib: &[u64]) -> Record {
    let files = request.predict_files(&disks(sizes_gib)).expect("names");
    let files = files
        .iter()
        .map(|file| RecordFile::expect(file, |_| Baseline::Absent));
    Record::begin(request, files.collect(), at(1000))
}
