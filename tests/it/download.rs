//! `download`: the object's bytes on this machine, whatever happens on the way.

use std::fs;
use std::path::PathBuf;

use cvm_export::simulator::{Effect, Fault};

use crate::support::{Run, TestEnv, fault, wait_until};

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
        for name in ["disk.raw.cvm-part", "disk.raw.cvm-part.json"] {
            assert!(
                !self.env.home.path().join(name).exists(),
                "{name} was left behind"
            );
        }
    }

    fn set(&self, faults: Vec<Fault>) {
        self.env.cloud.set_faults(faults);
    }
}

fn always(effect: Effect) -> Vec<Fault> {
    vec![Fault {
        occurrence: None,
        ..fault("GetObject", effect)
    }]
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

#[test]
#[cfg(unix)]
fn zeros_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let env = TestEnv::new();
    env.cloud.change(|world| {
        use cvm_export::simulator::{Disk, Image};
        let id = "img-eight".parse().expect("an id");
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 8);
        world.add_image(image.with_system_disk(Disk::sample(8 << 30, "seed", "system")));
    });
    let run = env
        .line("image --id img-eight --bucket exports --prefix q -q --no-claim")
        .ends_with(0);
    let eight = run.stdout.trim().to_owned();
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
fn trouble_on_the_way_is_got_over() {
    let third = |effect| {
        vec![Fault {
            occurrence: Some(3),
            ..fault("GetObject", effect)
        }]
    };
    for effect in [
        Effect::TruncatedBody { after_bytes: 1000 },
        Effect::ShortBodyAgreeing { bytes: 1000 },
        Effect::StalledBody { after_bytes: 1000 },
        Effect::ResetBefore,
        Effect::ProcessedThenReset,
        Effect::Status { status: 503 },
        Effect::CosError {
            status: 503,
            code: "SlowDown".to_owned(),
        },
        Effect::WrongContentRange,
        Effect::WholeForRange,
        Effect::Garbage,
        Effect::EmptyBody,
        Effect::FlippedByte { at: 100 },
        Effect::MissingField {
            name: "Content-Range".to_owned(),
        },
    ] {
        let case = Case::new(patchy(10 * PART));
        case.set(third(effect.clone()));
        let run = case.fetch("--stall-timeout 500ms");
        assert_eq!(run.code, 0, "{effect:?}\n{}", run.stderr);
        case.has_arrived();
    }
}

#[test]
fn a_storm_of_refusals_is_weathered() {
    let case = Case::new(patchy(20 * PART));
    let storm = (1..=60).step_by(3).map(|number| Fault {
        occurrence: Some(number),
        ..fault("GetObject", Effect::Status { status: 503 })
    });
    case.set(storm.collect());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_flipped_byte_is_found_and_replaced_and_a_second_mismatch_is_the_end() {
    let case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        occurrence: Some(4),
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    }]);
    case.fetch("")
        .ends_with(0)
        .says("every part is fetched once more")
        .says("is right now");
    case.has_arrived();
    let case = Case::new(noise(3 * PART));
    case.set(always(Effect::FlippedByte { at: 5 }));
    case.fetch("").ends_with(8).says("the bucket holds");
    assert!(!case.target().exists());
    case.set(Vec::new());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_range_that_never_comes_right_ends_the_run_and_never_leaves_a_wrong_file() {
    for effect in [
        Effect::WholeForRange,
        Effect::WrongContentRange,
        Effect::EmptyBody,
    ] {
        let case = Case::new(noise(2 * PART));
        case.set(always(effect.clone()));
        let run = case.fetch("--request-timeout 2s");
        assert_eq!(run.code, 1, "{effect:?}\n{}", run.stderr);
        assert!(!case.target().exists(), "{effect:?}");
        case.set(Vec::new());
        case.fetch("").ends_with(0);
        case.has_arrived();
    }
}

#[test]
fn an_object_that_is_replaced_midway_is_fetched_anew() {
    let mut case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        occurrence: Some(5),
        ..fault("GetObject", Effect::ChangedObject)
    }]);
    case.fetch("")
        .ends_with(0)
        .says("was replaced by another object while it was fetched; starting anew");
    case.bytes = case.env.cloud.change(|world| {
        let object = world.object(BUCKET, "folder/disk.raw").expect("the object");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        bytes
    });
    case.has_arrived();
}

#[test]
fn killed_runs_are_gone_on_with_and_lose_only_what_was_on_its_way() {
    let case = Case::new(patchy(128 * PART));
    let (kills, connections) = (8, 4);
    for number in 0..kills {
        let arguments = "download cos://exports/folder/disk.raw --part-size 64KiB --concurrency 4 --limit-rate 8MiB";
        let running = case.env.start(&arguments.split(' ').collect::<Vec<_>>());
        let before = case.env.calls("GetObject");
        wait_until(
            || "some parts".to_owned(),
            || case.env.calls("GetObject") >= before + 5 + number,
        );
        running.signal("KILL");
        drop(running.wait());
        assert!(
            !case.target().exists(),
            "an unverified file has the final name"
        );
    }
    let run = case
        .fetch("--concurrency 4")
        .ends_with(0)
        .says("going on with");
    drop(run);
    case.has_arrived();
    let calls = case.env.calls("GetObject");
    assert!(
        calls <= 128 + kills * connections,
        "{calls} parts were asked for"
    );
}

#[test]
fn what_an_earlier_run_left_is_only_used_where_it_is_right() {
    let part = |case: &Case| case.env.home.path().join("disk.raw.cvm-part");
    let ledger = |case: &Case| case.env.home.path().join("disk.raw.cvm-part.json");
    let interrupted = || {
        let case = Case::new(noise(64 * PART));
        let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 4MiB";
        let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
        case.env.wait_for_calls("GetObject", 12);
        running.signal("INT");
        running
            .wait()
            .ends_with(130)
            .says("what has arrived is kept");
        case
    };
    // With other settings.
    let case = interrupted();
    let calls = case.env.calls("GetObject");
    case.env
        .line("download cos://exports/folder/disk.raw --part-size 128KiB --concurrency 2")
        .ends_with(0)
        .says("going on with");
    assert!(
        case.env.calls("GetObject") - calls < 33,
        "less than all was fetched"
    );
    case.has_arrived();
    // A torn ledger, one of a later version, one of another object, a part file that has changed.
    let case = interrupted();
    fs::write(ledger(&case), "{\"schema\":\"cvm-exp").expect("a file");
    case.fetch("").ends_with(0).says("starting anew");
    case.has_arrived();
    let case = interrupted();
    fs::write(ledger(&case), "{\"schema\":\"cvm-export.ledger.v9\"}\n").expect("a file");
    case.fetch("").ends_with(9).says("later version");
    case.fetch("--force").ends_with(0);
    case.has_arrived();
    let mut case = interrupted();
    case.bytes.reverse();
    let bytes = case.bytes.clone();
    case.env
        .cloud
        .change(|world| world.put_object(BUCKET, "folder/disk.raw", bytes));
    case.fetch("")
        .ends_with(0)
        .says("of another object; starting anew");
    case.has_arrived();
    let case = interrupted();
    fs::write(part(&case), vec![9; 64 * PART]).expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
    let case = interrupted();
    fs::remove_file(part(&case)).expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn files_that_stand_in_the_way_are_left_alone() {
    let case = Case::new(noise(3 * PART));
    fs::write(case.target(), "something else").expect("a file");
    case.fetch("").ends_with(9).says("is not this object");
    assert_eq!(
        fs::read(case.target()).expect("the file"),
        b"something else"
    );
    assert_eq!(case.env.calls("GetObject"), 0);
    case.fetch("--force").ends_with(0);
    case.has_arrived();
    // One that is the object already is done.
    case.env.cloud.clear_calls();
    case.fetch("").ends_with(0);
    assert_eq!(case.env.calls("GetObject"), 0);
    // A second process is kept out.
    let case = Case::new(noise(64 * PART));
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 2MiB";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 3);
    case.fetch("").ends_with(9).says("another process");
    running.signal("KILL");
    drop(running.wait());
}

#[test]
fn a_pipe_gets_the_bytes_in_order_and_the_verdict_at_the_end() {
    let case = Case::new(noise(30 * PART));
    let mut command = case.env.command(&[
        "download",
        "cos://exports/folder/disk.raw",
        "--part-size",
        "64KiB",
        "--to",
        "-",
    ]);
    let done = command.output().expect("an end");
    assert_eq!(done.status.code(), Some(0));
    assert!(done.stdout == case.bytes, "the bytes differ");
    case.set(vec![Fault {
        occurrence: Some(2),
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    }]);
    let done = command.output().expect("an end");
    assert_eq!(
        done.status.code(),
        Some(8),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    case.fetch("--to - --output json")
        .ends_with(2)
        .says("--to -");
}

#[test]
fn what_can_be_no_download_is_refused() {
    let case = Case::new(noise(10));
    let env = &case.env;
    env.line("download folder/disk.raw")
        .ends_with(2)
        .says("--bucket");
    env.line("download cos://exports/../x")
        .ends_with(2)
        .says("segment");
    env.line("download cos://exports").ends_with(2);
    env.line("download cos://exports/folder/disk.raw cos://exports/disk.raw")
        .ends_with(2)
        .says("both be called");
    env.line("download cos://exports/folder/disk.raw --part-size 1KiB")
        .ends_with(2)
        .says("64KiB");
    env.line("download cos://exports/folder/disk.raw --concurrency 0")
        .ends_with(2);
    env.line("download exp-unknown1")
        .ends_with(2)
        .says("knows no export");
    env.line("download cos://exports/nothing.raw")
        .ends_with(3)
        .says("there is no object");
    env.cloud
        .change(|world| world.denied.insert("GetObject".to_owned()));
    case.fetch("").ends_with(4);
    env.cloud.change(|world| {
        world.denied.clear();
        world.crc_missing = true;
    });
    case.fetch("--require-checksum")
        .ends_with(8)
        .says("names no CRC-64");
    let run = case.fetch("--output json").ends_with(0);
    assert_eq!(run.json()["items"][0]["verified"], false);
}

#[test]
#[cfg(target_os = "linux")]
fn a_name_that_is_no_unicode_breaks_no_result() {
    use std::os::unix::ffi::OsStrExt;
    let case = Case::new(noise(10));
    let name = std::ffi::OsStr::from_bytes(b"odd-\xff.raw");
    for form in ["text", "json", "ndjson"] {
        let words = [
            "download",
            "cos://exports/folder/disk.raw",
            "--output",
            form,
            "--to",
        ];
        let done = case.env.command(&words).arg(name).output().expect("an end");
        assert_eq!(
            done.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let words = [
            "verify",
            "--bucket",
            "exports",
            "--key",
            "folder/disk.raw",
            "--output",
            form,
        ];
        let done = case.env.command(&words).arg(name).output().expect("an end");
        assert_eq!(
            done.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
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
