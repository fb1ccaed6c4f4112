//! Exports: what is written where, how long it takes, and how it ends.
//!
//! ```text
//! started ──time──► multipart upload grows ──► object appears
//!                            │
//!                            └── export_failure, or somebody aborts the upload ──► nothing appears
//! ```
//!
//! The simulated exporter does not convert: whatever the format asked for, the object holds the
//! disk's raw bytes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::{ImageFormat, TaskId};

use super::Naming;
use super::disk::Disk;
use super::storage::{Object, PartLayout, Upload, UploadSource};
use super::world::{Image, ImageDisk, World};

/// As good as never, and far from where arithmetic on durations ends.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The export of one disk.
#[derive(Debug)]
pub(super) struct DiskExport {
    pub(super) task: TaskId,
    pub(super) is_running: bool,
    bucket: String,
    key: String,
    upload_id: String,
    content: Disk,
    started: Duration,
    lasts: Duration,
    /// When it vanishes instead of completing, counted from its start.
    vanishes_after: Option<Duration>,
}

impl DiskExport {
    fn ends_at(&self) -> Duration {
        self.started
            .saturating_add(self.vanishes_after.unwrap_or(self.lasts))
    }
}

/// One image of an `ExportImages` call.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExportItem<'a> {
    pub(super) image: &'a Image,
    pub(super) prefix: Option<&'a str>,
}

/// What all images of one call have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExportTarget<'a> {
    pub(super) bucket: &'a str,
    pub(super) format: ImageFormat,
    pub(super) is_root_disk_only: bool,
}

/// One file that an export will write.
#[derive(Clone, Debug)]
pub(super) struct PlannedFile {
    /// The key by the API's rule, which `CosPaths` tells.
    pub(super) told_key: String,
    /// The key that is really written.
    pub(super) real_key: String,
    content: Disk,
}

/// The files of one image, in the order of its disks.
pub(super) fn plan(
    item: ExportItem<'_>,
    target: ExportTarget<'_>,
    naming: Naming,
) -> Vec<PlannedFile> {
    let start = match item.prefix {
        Some(prefix) if !prefix.is_empty() => format!("{prefix}_"),
        _ => String::new(),
    };
    let extension = target.format.extension();
    exported_disks(item.image, target.is_root_disk_only)
        .zip(b'a'..=b'z')
        .map(|(disk, letter)| {
            let told_key = format!(
                "{start}{}_{}_{}.{extension}",
                item.image.id,
                disk.usage.file_word(),
                disk.snapshot_id
            );
            let real_key = match naming {
                Naming::Api => told_key.clone(),
                Naming::Console => format!("{start}xvd{}.{extension}", char::from(letter)),
            };
            PlannedFile {
                told_key,
                real_key,
                content: disk.content(),
            }
        })
        .collect()
}

/// The disks that an export covers.
pub(super) fn exported_disks(
    image: &Image,
    is_root_disk_only: bool,
) -> impl Iterator<Item = &ImageDisk> {
    let count = if is_root_disk_only { 1 } else { usize::MAX };
    image.disks.iter().take(count)
}

impl World {
    /// Starts one task that writes `files` into `bucket`, each disk beside the others.
    pub(super) fn start_task(&mut self, bucket: &str, files: Vec<PlannedFile>) -> TaskId {
        let task = TaskId(self.next_task);
        self.next_task += 1;
        let started = self.elapsed();
        let initiated = self.server_time();
        for file in files {
            let size_bytes = file.content.size_bytes();
            let lasts = self.export_duration(size_bytes);
            let vanishes_after = self
                .export_failure
                .map(|failure| lasts.mul_f64(failure.at_fraction.clamp(0.0, 1.0)));
            let upload_id = Upload::new_id();
            let upload = Upload {
                key: file.real_key.clone(),
                id: upload_id.clone(),
                initiated,
                storage_class: self.storage_class.clone(),
                content_type: None,
                headers: Vec::new(),
                source: UploadSource::Export {
                    started,
                    lasts,
                    size_bytes,
                },
            };
            if let Some(bucket) = self.buckets.get_mut(bucket) {
                bucket.uploads.insert(upload_id.clone(), upload);
            }
            self.exports.push(DiskExport {
                task,
                is_running: true,
                bucket: bucket.to_owned(),
                key: file.real_key,
                upload_id,
                content: file.content,
                started,
                lasts,
                vanishes_after,
            });
        }
        self.settle();
        task
    }

    /// The real time that the export of a disk takes: 10 simulated seconds and one more for each
    /// 200 MB. The cloud publishes no figure; this one makes 50 GB last five minutes at speed 1.
    fn export_duration(&self, size_bytes: u64) -> Duration {
        let seconds = self.export_seconds.unwrap_or_else(|| {
            let megabytes = u32::try_from(size_bytes / 1_000_000).unwrap_or(u32::MAX);
            (10.0 + f64::from(megabytes) / 200.0) / self.speed
        });
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST);
        duration.min(LONGEST)
    }

    /// Brings the world to the present: exports whose time has come are completed, in the order in
    /// which they ended, and so are copies of images. Every look from outside does this first.
    pub fn settle(&mut self) {
        let (elapsed, now) = (self.elapsed(), self.server_time());
        self.settle_copies(elapsed);
        self.settle_at(elapsed, now);
    }

    /// Completes every running export now, whatever time it would still need.
    pub fn finish_exports(&mut self) {
        let elapsed = self.elapsed();
        for export in self.exports.iter_mut().filter(|export| export.is_running) {
            export.lasts = elapsed.saturating_sub(export.started);
            export.vanishes_after = export.vanishes_after.map(|_| export.lasts);
        }
        self.settle_at(elapsed, self.server_time());
    }

    fn settle_at(&mut self, elapsed: Duration, now: DateTime<Utc>) {
        let mut exports = std::mem::take(&mut self.exports);
        let mut due: Vec<&mut DiskExport> = exports
            .iter_mut()
            .filter(|export| export.is_running && export.ends_at() <= elapsed)
            .collect();
        due.sort_by_key(|export| export.ends_at());
        for export in due {
            export.is_running = false;
            let ago = TimeDelta::from_std(elapsed - export.ends_at()).unwrap_or_default();
            self.finish(export, now.checked_sub_signed(ago).unwrap_or(now));
        }
        self.exports = exports;
    }

    fn finish(&mut self, export: &DiskExport, ended: DateTime<Utc>) {
        let Some(bucket) = self.buckets.get_mut(&export.bucket) else {
            return;
        };
        // An upload that somebody aborted has nothing left to complete.
        let Some(upload) = bucket.uploads.remove(&export.upload_id) else {
            return;
        };
        if export.vanishes_after.is_some() {
            return;
        }
        let parts = PartLayout::of(export.content.size_bytes()).count;
        let mut object = Object::assembled(export.content.clone(), parts, ended, export.ends_at());
        object.storage_class = upload.storage_class;
        bucket.store(&export.key, object);
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::Image;
    use super::*;

    fn world() -> World {
        let mut world = World::empty(Naming::Api, 1.0);
        let region: crate::model::Region = "ap-guangzhou".parse().expect("a region");
        world.add_bucket("b-1250000000", region.clone());
        let id = "img-multi002".parse().expect("an image id");
        world.add_image(Image::linux(id, region, 1).with_data_disk(2));
        world
    }

    fn start(world: &mut World, naming: Naming) -> Vec<PlannedFile> {
        let target = ExportTarget {
            bucket: "b-1250000000",
            format: ImageFormat::Raw,
            is_root_disk_only: false,
        };
        let item = ExportItem {
            image: &world.images[0],
            prefix: Some("p"),
        };
        let files = plan(item, target, naming);
        world.start_task("b-1250000000", files.clone());
        files
    }

    fn later(world: &World, seconds: u64) -> Duration {
        world.elapsed() + Duration::from_secs(seconds)
    }

    #[test]
    fn objects_appear_when_their_time_has_come_and_not_before() {
        let mut world = world();
        let files = start(&mut world, Naming::Api);
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        // 1 GiB takes 10 s and 1074 / 200 s, 2 GiB twice the latter.
        world.settle_at(later(&world, 14), now);
        assert!(world.keys("b-1250000000").is_empty());
        assert_eq!(world.running_tasks(), 1);
        world.settle_at(later(&world, 17), now);
        assert_eq!(world.keys("b-1250000000"), [files[0].real_key.clone()]);
        world.settle_at(later(&world, 100), now);
        assert_eq!(world.keys("b-1250000000").len(), 2);
        assert_eq!(world.running_tasks(), 0);
        let object = world
            .object("b-1250000000", &files[1].real_key)
            .expect("the data disk");
        let age = now - object.last_modified;
        assert!((70..90).contains(&age.num_seconds()), "{age}");
        assert!(object.etag.ends_with("-32"), "{}", object.etag);
    }

    #[test]
    fn under_console_naming_the_files_differ_from_what_is_told() {
        let mut world = world();
        let files = start(&mut world, Naming::Console);
        let real: Vec<&str> = files.iter().map(|file| file.real_key.as_str()).collect();
        assert_eq!(real, ["p_xvda.raw", "p_xvdb.raw"]);
        assert!(files[0].told_key.starts_with("p_img-multi002_system_snap-"));
        assert!(files[1].told_key.starts_with("p_img-multi002_data_snap-"));
    }

    #[test]
    fn a_failing_export_leaves_neither_upload_nor_object() {
        let mut world = world();
        world.export_failure = Some(super::super::world::ExportFailure { at_fraction: 0.5 });
        start(&mut world, Naming::Api);
        let now = world.server_time();
        assert_eq!(world.buckets["b-1250000000"].uploads.len(), 2);
        world.settle_at(later(&world, 60), now);
        assert!(world.buckets["b-1250000000"].uploads.is_empty());
        assert!(world.keys("b-1250000000").is_empty());
        assert_eq!(world.running_tasks(), 0);
    }

    #[test]
    fn exports_can_be_finished_by_hand() {
        let mut world = world();
        world.export_seconds = Some(1e9);
        start(&mut world, Naming::Api);
        world.settle();
        assert_eq!(world.running_tasks(), 1);
        world.finish_exports();
        assert_eq!(world.running_tasks(), 0);
        assert_eq!(world.keys("b-1250000000").len(), 2);
    }

    #[test]
    fn an_aborted_upload_ends_its_export_without_an_object() {
        let mut world = world();
        start(&mut world, Naming::Api);
        let bucket = world.bucket_mut("b-1250000000").expect("the bucket");
        bucket.uploads.clear();
        let now = world.server_time();
        world.settle_at(later(&world, 60), now);
        assert!(world.keys("b-1250000000").is_empty());
    }
}
