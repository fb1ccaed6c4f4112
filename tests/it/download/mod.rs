//! `download`: the object's bytes on this machine, whatever happens on the way.

#[cfg(target_os = "linux")]
mod disks;
mod faults;
mod pipe;
mod places;
mod resume;

use std::fs;
use std::path::PathBuf;

use cvm_export::simulator::Fault;

use crate::support::{Run, TestEnv};

const BUCKET: &str = "exports-1250000000";
const PART: usize = 64 * 1024;

/// Bytes that look like nothing, without a zero block.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 1
    })
    .take(length)
    .collect()
}

/// Blocks of data between blocks of zeros, as a disk has them.
fn patchy(length: usize) -> Vec<u8> {
    let mut bytes = noise(length);
    for (number, block) in bytes.chunks_mut(4096).enumerate() {
        if number % 3 != 0 {
            block.fill(0);
        }
    }
    bytes
}

struct Case {
    env: TestEnv,
    bytes: Vec<u8>,
}

impl Case {
    fn new(bytes: Vec<u8>) -> Self {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.put_object(BUCKET, "folder/disk.raw", bytes.clone()));
        Self { env, bytes }
    }

    fn target(&self) -> PathBuf {
        self.env.home.path().join("disk.raw")
    }

    /// Fetches the object with small parts.
    fn fetch(&self, flags: &str) -> Run {
        let line = format!("download cos://exports/folder/disk.raw --part-size 64KiB {flags}");
        self.env.line(line.trim_end())
    }

    #[track_caller]
    fn has_arrived(&self) {
        let seen = fs::read(self.target()).expect("the file");
        assert!(seen == self.bytes, "the file's bytes are not the object's");
        for entry in fs::read_dir(self.env.home.path()).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            assert!(
                !name.to_string_lossy().contains("cvm-part"),
                "{name:?} was left behind"
            );
        }
    }

    /// The ranges that were asked for, in order.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let calls = self.env.cloud.calls();
        let ranges = calls.iter().filter_map(|call| call.range.as_deref());
        ranges
            .map(|range| {
                let range = range.strip_prefix("bytes=").expect("a range of bytes");
                let (first, last) = range.split_once('-').expect("two ends");
                (
                    first.parse().expect("a number"),
                    last.parse::<u64>().expect("a number") + 1,
                )
            })
            .collect()
    }

    fn set(&self, faults: Vec<Fault>) {
        self.env.cloud.set_faults(faults);
    }
}

#[test]
fn every_size_arrives_byte_for_byte_and_verified() {
    for length in [0, 1, 4095, PART - 1, PART, PART + 1, 10 * PART + 17] {
        for bytes in [noise(length), vec![0; length], patchy(length)] {
            let case = Case::new(bytes);
            let json = case.fetch("--output json --sha256").ends_with(0).json();
            let item = &json["items"][0];
            assert_eq!(json["schema"], "cvm-export.downloads.v1");
            assert_eq!(item["verified"], true, "{length}");
            assert_eq!(item["size_bytes"], length);
            assert_eq!(
                item["crc64"],
                cvm_export::crc64::Crc64::of(&case.bytes).to_string()
            );
            let sha256 = std::process::Command::new("sha256sum")
                .arg(case.target())
                .output()
                .expect("sha256sum");
            let sha256 = String::from_utf8(sha256.stdout).expect("text");
            assert_eq!(sha256.split(' ').next(), item["sha256"].as_str());
            case.has_arrived();
        }
    }
}

#[test]
fn a_clean_run_asks_for_each_part_once() {
    let case = Case::new(patchy(10 * PART));
    case.fetch("").ends_with(0).prints("./disk.raw\n");
    // The list of buckets for the region, and one look.
    assert_eq!(case.env.calls("GetService"), 1);
    assert_eq!(case.env.calls("HeadObject"), 1);
    assert_eq!(case.env.calls("GetObject"), 10);
    assert_eq!(case.env.cloud.calls().len(), 12);
}

/// A sample disk of so many GiB in the bucket, almost all of it zeros; its address.
fn exported(env: &TestEnv, gib: u64) -> String {
    env.cloud.change(|world| {
        use cvm_export::simulator::{Disk, Image};
        let id = "img-large".parse().expect("an id");
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), gib);
        world.add_image(image.with_system_disk(Disk::sample(gib << 30, "seed", "system")));
    });
    let run = env
        .line("image --id img-large --bucket exports --prefix q -q --no-claim")
        .ends_with(0);
    run.stdout.trim().to_owned()
}

#[test]
#[cfg(unix)]
fn zeros_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let env = TestEnv::new();
    let eight = exported(&env, 8);
    env.run(&["download", &eight, "--to", "eight.raw"])
        .ends_with(0);
    let metadata = fs::metadata(env.home.path().join("eight.raw")).expect("the file");
    assert_eq!(metadata.len(), 8 << 30);
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "{} bytes are allocated",
        metadata.blocks() * 512
    );
}

#[test]
fn an_export_is_fetched_by_its_id() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        use cvm_export::simulator::{Disk, Image};
        let id = "img-small".parse().expect("an id");
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1);
        world.add_image(image.with_system_disk(Disk::from_bytes(noise(100_000).into())));
    });
    let json = env
        .line("image --id img-small --bucket exports --prefix p --output json")
        .ends_with(0)
        .json();
    let id = json["export_id"].as_str().expect("an id").to_owned();
    env.run(&["download", &id, "--to", "here/"]).ends_with(0);
    let name = json["files"][0]["key"].as_str().expect("a key").to_owned();
    assert!(fs::read(env.home.path().join("here").join(name)).expect("the file") == noise(100_000));
}
