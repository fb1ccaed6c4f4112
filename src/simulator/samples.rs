//! The account that a fresh simulator holds.

use crate::model::{BucketName, ImageId, Region};

use super::disk::Disk;
use super::world::{Image, Role, World};
use super::{DiskSource, Options, SimulatorError};

const HOME: &str = "ap-guangzhou";
const ABROAD: &str = "ap-singapore";

/// The size of images that are made up because somebody named them.
const INVENTED_GIB: u64 = 10;

/// Fills a world by the design's list of samples and the wishes in `options`.
pub(super) fn world(options: &Options) -> Result<World, SimulatorError> {
    let mut world = World::empty(options.naming, options.speed);
    if options.has_export_role {
        world.roles.push(match options.is_role_by_console {
            true => Role::by_console(),
            false => Role::for_exports(),
        });
    }
    world
        .roles
        .push(Role::for_callers("ExportOperator", &world.uin));
    world.add_bucket("exports-1250000000", region(HOME));
    world.add_bucket("far-1250000000", region(ABROAD));
    for image in images() {
        world.add_image(image);
    }
    for id in &options.invented_images {
        if world.images.iter().all(|known| known.id != *id) {
            let image = Image::linux(id.clone(), options.region.clone(), INVENTED_GIB);
            world.add_image(image);
        }
    }
    for (id, source) in &options.images {
        let content = match source {
            DiskSource::MadeUp(bytes) => Disk::sample(*bytes, id.as_str(), "system disk"),
            DiskSource::File(path) => Disk::open(path).map_err(|source| SimulatorError::Disk {
                path: path.clone(),
                source,
            })?,
        };
        let image = Image::linux(id.clone(), options.region.clone(), 1).with_system_disk(content);
        world.add_image(image);
    }
    let invented = options.invented_buckets.iter();
    let invented = invented.map(|name| (name, &options.region));
    let named = options.buckets.iter().map(|(name, region)| (name, region));
    for (name, region) in named.chain(invented) {
        let full_name = full_bucket_name(name, &world.app_id);
        if !world.buckets.contains_key(&full_name) {
            world.add_bucket(&full_name, region.clone());
        }
    }
    Ok(world)
}

fn full_bucket_name(name: &BucketName, app_id: &str) -> String {
    match name.app_id() {
        Some(_) => name.to_string(),
        None => format!("{name}-{app_id}"),
    }
}

fn images() -> Vec<Image> {
    let linux = |name: &str, place: &str, gib| Image::linux(id(name), region(place), gib);
    let mut windows = linux("img-window03", HOME, 50);
    windows.os_name = "Windows Server 2022 DataCenter 64bit".to_owned();
    windows.platform = "Windows".to_owned();
    let mut shared = linux("img-shared04", HOME, 50);
    shared.image_type = "SHARED_IMAGE".to_owned();
    vec![
        linux("img-linux001", HOME, 50),
        linux("img-multi002", HOME, 50)
            .with_data_disk(20)
            .with_data_disk(100),
        windows,
        shared,
        linux("img-toobig05", HOME, 600),
        linux("img-faraway6", ABROAD, 20),
    ]
}

fn id(text: &str) -> ImageId {
    text.parse().expect("the samples have valid ids")
}

fn region(text: &str) -> Region {
    text.parse().expect("the samples are in valid regions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_is_made_up_unless_a_sample_has_the_name() {
        let bucket = |text: &str| text.parse::<BucketName>().expect("a bucket name");
        let options = Options {
            invented_images: vec![id("img-xxx"), id("img-window03")],
            invented_buckets: vec![bucket("b"), bucket("c-1250000000"), bucket("exports")],
            ..Options::default()
        };
        let mut world = world(&options).expect("no file is involved");
        assert!(world.image_mut("img-xxx").is_some());
        let windows = world.image_mut("img-window03").expect("the sample");
        assert_eq!(windows.platform, "Windows");
        let names: Vec<&str> = world.buckets.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "b-1250000000",
                "c-1250000000",
                "exports-1250000000",
                "far-1250000000"
            ]
        );
    }

    #[test]
    fn samples_have_distinct_snapshots() {
        let mut snapshots: Vec<_> = images()
            .iter()
            .flat_map(|image| image.disks.iter())
            .map(|disk| disk.snapshot_id.clone())
            .collect();
        let all = snapshots.len();
        snapshots.sort();
        snapshots.dedup();
        assert_eq!(snapshots.len(), all);
    }
}
