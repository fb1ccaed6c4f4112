//! Copies of images: how long they take, what they look like meanwhile, and how they end.
//!
//! ```text
//! SYNCING ──time──► NORMAL
//!     └── copies_fail ──► CREATEFAILED
//! ```
//!
//! The source is busy as well until its copy is done. Whether that is so in the real cloud is not
//! documented; a client must bear it.

use std::time::Duration;

use crate::model::{ImageId, Region};

use super::world::{Image, World, derived_snapshot_id};

/// The shortest time of a copy, in seconds (product page 213/4943: 10 to 30 minutes).
const SHORTEST_SECONDS: f64 = 600.0;
/// What each GiB of disk adds: 100 GiB make it the longest.
const SECONDS_PER_GIB: f64 = 12.0;
const LONGEST_SECONDS: f64 = 1800.0;

/// A copy that is being made.
#[derive(Debug)]
pub(super) struct ImageCopy {
    source: (Region, ImageId),
    region: Region,
    image_id: ImageId,
    started: Duration,
    lasts: Duration,
    fails: bool,
}

impl ImageCopy {
    fn is(&self, image: &Image) -> bool {
        self.region == image.region && self.image_id == image.id
    }

    fn is_from(&self, image: &Image) -> bool {
        self.source.0 == image.region && self.source.1 == image.id
    }
}

impl World {
    /// Starts to copy `source` to `region` under the name `name`, and returns the copy's id.
    pub(super) fn start_copy(&mut self, source: &Image, region: Region, name: &str) -> ImageId {
        let image_id = self.new_image_id();
        let disks = source.disks.iter().enumerate();
        let disks =
            disks.map(|(place, disk)| disk.copied_as(derived_snapshot_id(&image_id, place)));
        let copy = Image {
            id: image_id.clone(),
            region: region.clone(),
            name: name.to_owned(),
            image_type: "PRIVATE_IMAGE".to_owned(),
            state: "SYNCING".to_owned(),
            created: self.server_time(),
            tags: Vec::new(),
            disks: disks.collect(),
            ..source.clone()
        };
        self.copies.push(ImageCopy {
            source: (source.region.clone(), source.id.clone()),
            region,
            image_id: image_id.clone(),
            started: self.elapsed(),
            lasts: self.copy_duration(source),
            fails: self.copies_fail,
        });
        self.add_image(copy);
        self.set_state(&source.region.clone(), &source.id.clone(), "SYNCING");
        let elapsed = self.elapsed();
        self.settle_copies(elapsed);
        image_id
    }

    /// The real time that a copy of `image` takes.
    fn copy_duration(&self, image: &Image) -> Duration {
        let seconds = self.copy_seconds.unwrap_or_else(|| {
            let gib: u64 = image.disks.iter().map(|disk| disk.size_gib).sum();
            let gib = f64::from(u32::try_from(gib).unwrap_or(u32::MAX));
            let seconds = (SHORTEST_SECONDS + gib * SECONDS_PER_GIB).min(LONGEST_SECONDS);
            seconds / self.speed
        });
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Ends the copies whose time has come.
    pub(super) fn settle_copies(&mut self, elapsed: Duration) {
        let copies = std::mem::take(&mut self.copies);
        let (done, running): (Vec<_>, Vec<_>) = copies
            .into_iter()
            .partition(|copy| elapsed.saturating_sub(copy.started) >= copy.lasts);
        self.copies = running;
        for copy in done {
            let state = if copy.fails { "CREATEFAILED" } else { "NORMAL" };
            self.set_state(&copy.region, &copy.image_id, state);
            let (region, image_id) = &copy.source;
            let is_busy = self.copies.iter().any(|other| other.source == copy.source);
            if !is_busy {
                self.set_state(region, image_id, "NORMAL");
            }
        }
    }

    /// How much of a copy is there, in percent; of its source, the same.
    pub(super) fn sync_percent(&self, image: &Image) -> Option<u64> {
        let mut copies = self.copies.iter();
        let copy = copies.find(|copy| copy.is(image) || copy.is_from(image))?;
        let elapsed = self.elapsed().saturating_sub(copy.started);
        let percent = elapsed.as_millis() * 100 / copy.lasts.as_millis().max(1);
        Some(u64::try_from(percent).unwrap_or(100).min(99))
    }

    /// Takes an image away; without its snapshots, these stay.
    pub(super) fn delete_image(&mut self, region: &str, id: &str, with_snapshots: bool) {
        let is_it = |image: &Image| image.region.as_str() == region && image.id.as_str() == id;
        if !with_snapshots {
            let images = self.images.iter().filter(|image| is_it(image));
            let disks = images.flat_map(|image| &image.disks);
            let left = disks.map(|disk| disk.snapshot_id.clone());
            self.snapshots_left.extend(left);
        }
        self.images.retain(|image| !is_it(image));
    }

    fn set_state(&mut self, region: &Region, id: &ImageId, state: &str) {
        let mut images = self.images.iter_mut();
        if let Some(image) = images.find(|image| image.region == *region && image.id == *id) {
            state.clone_into(&mut image.state);
        }
    }

    fn new_image_id(&self) -> ImageId {
        loop {
            let tail: String = (0..8).map(|_| fastrand::char('a'..='z')).collect();
            let id: ImageId = format!("img-{tail}")
                .parse()
                .expect("lower-case letters make an image id");
            if self.images.iter().all(|image| image.id != id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ImageDisk, Naming};
    use super::*;

    fn world(speed: f64) -> (World, Image) {
        let mut world = World::empty(Naming::Api, speed);
        let region: Region = "ap-guangzhou".parse().expect("a region");
        let id = "img-multi002".parse().expect("an image id");
        let image = Image::linux(id, region, 50).with_data_disk(20);
        world.add_image(image.clone());
        (world, image)
    }

    fn states(world: &World) -> Vec<&str> {
        let images = world.images.iter();
        images.map(|image| image.state.as_str()).collect()
    }

    #[test]
    fn a_copy_takes_its_documented_time_by_the_speed() {
        for (speed, gib_seconds) in [(1.0, 1440), (100.0, 14)] {
            let (mut world, image) = world(speed);
            let to: Region = "ap-beijing".parse().expect("a region");
            world.start_copy(&image, to, "copy");
            assert_eq!(states(&world), ["SYNCING", "SYNCING"]);
            let copy = world.images[1].clone();
            assert_eq!(world.sync_percent(&copy), Some(0));
            let at = |seconds| world.elapsed() + Duration::from_secs(seconds);
            let (early, late) = (at(gib_seconds - 2), at(gib_seconds + 2));
            world.settle_copies(early);
            assert_eq!(states(&world), ["SYNCING", "SYNCING"]);
            world.settle_copies(late);
            assert_eq!(states(&world), ["NORMAL", "NORMAL"]);
            assert_eq!(world.sync_percent(&copy), None);
        }
    }

    #[test]
    fn a_copy_has_the_disks_bytes_under_snapshots_of_its_own() {
        let (mut world, image) = world(f64::INFINITY);
        let to = image.region.clone();
        world.start_copy(&image, to, "copy");
        let copy = &world.images[1];
        for (disk, source) in copy.disks.iter().zip(&image.disks) {
            assert_ne!(disk.snapshot_id, source.snapshot_id);
            assert_eq!(disk.size_gib, source.size_gib);
            let size = |disk: &ImageDisk| disk.content().size_bytes();
            assert_eq!(size(disk), size(source));
        }
        assert_eq!((copy.name.as_str(), copy.disks.len()), ("copy", 2));
    }
}
