//! What `files` and `files rm` take for a bucket with many exports.
//!
//!     cargo build --release && cargo bench --bench files -- [--binary PATH] [--flags FLAGS] [COUNT…]
//!
//! Each count of exports is put into a simulated bucket, one file and one record each, every one of another image
//! under one prefix, the images of a thousand hosts in turn. Shown are wall time, processor time and peak memory of the program (Linux), for a listing and for
//! the plan of a deletion. FLAGS are added to `files rm`.

#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use cvm_export::export::{
    Baseline, DiskRole, DiskScope, ExpectedFile, ExportRequest, FinishedObject, Record, RecordFile,
};
use cvm_export::simulator::{Options, Simulator, World};

const BUCKET: &str = "exports-1250000000";
const CONTENT: &str = "bytes";

fn main() {
    let (mut binary, mut flags, mut counts) = (
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/cvm-export").to_owned(),
        String::new(),
        Vec::new(),
    );
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--binary" => binary = arguments.next().expect("a path"),
            "--flags" => flags = arguments.next().expect("flags"),
            "--bench" => {}
            count => counts.push(count.parse().expect("a count of exports")),
        }
    }
    if counts.is_empty() {
        counts = vec![10_000, 40_000, 100_000];
    }
    println!("| exports | command | wall s | CPU s | peak MiB | KiB an export |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for count in counts {
        let cloud = runtime
            .block_on(Simulator::start(Options::default()))
            .expect("a simulator");
        cloud.change(|world| fill(world, count));
        let plan = format!("files rm --bucket exports --older-than 0s --dry-run {flags}");
        for line in [
            "files --bucket exports",
            "files --bucket exports --output json",
            plan.trim_end(),
        ] {
            let taken = run(&binary, line, &cloud);
            println!(
                "| {count} | `{line}` | {:.1} | {:.1} | {} | {:.2} |",
                taken.wall.as_secs_f64(),
                taken.processor.as_secs_f64(),
                taken.peak_kib / 1024,
                taken.peak_kib as f64 / count as f64,
            );
        }
    }
}

/// Puts `count` exports into the bucket, a minute apart.
fn fill(world: &mut World, count: u32) {
    for number in 0..count {
        world.clock_offset_seconds = -60 * i64::from(count - number);
        let now = world.server_time();
        let image = format!("img-{number:08x}");
        let request = ExportRequest {
            image_id: image.parse().expect("an id"),
            region: "ap-guangzhou".parse().expect("a region"),
            bucket: BUCKET.parse().expect("a bucket"),
            prefix: Some("nightly/fleet".parse().expect("a prefix")),
            prefix_template: Some("nightly/fleet".into()),
            format: "raw".parse().expect("a format"),
            scope: DiskScope::WholeMachine,
            role: "CVM_QcsRole".parse().expect("a role"),
            copied_from: None,
        };
        let snapshot = format!("snap-{number:08x}");
        let name = format!("nightly/fleet_{image}_system_{snapshot}.raw");
        let names = [name.as_str(), "nightly/fleet_xvda.raw"];
        let expected = ExpectedFile {
            disk: DiskRole::System,
            device: "xvda".to_owned(),
            snapshot_id: Some(snapshot.parse().expect("an id")),
            size_gib: Some(50),
            names: names.map(|name| name.parse().expect("a key")).to_vec(),
        };
        world.put_object(BUCKET, &name, CONTENT);
        let object = world.object(BUCKET, &name).expect("it was put");
        let mut file = RecordFile::expect(&expected, |_| Baseline::Absent);
        file.object = Some(FinishedObject {
            key: name.parse().expect("a key"),
            size_bytes: CONTENT.len() as u64,
            etag: object.etag.clone(),
            crc64: Some("1234567890123456789".to_owned()),
            storage_class: "STANDARD".to_owned(),
            last_modified: Some(now),
            version_id: None,
            sha256: None,
        });
        let mut record = Record::begin(&request, vec![file], now - TimeDelta::seconds(30));
        record.image_name = Some(format!("host{:04}-20261124", number % 1000).as_str().into());
        record.submitted_at = Some(record.created_at);
        record.completed_at = Some(now);
        let claim = format!("nightly/fleet_{image}.cvm-export.json");
        let mut json: serde_json::Value =
            serde_json::from_slice(&record.to_json()).expect("a record is JSON");
        json["state"] = "complete".into();
        world.put_object(BUCKET, &claim, json.to_string());
    }
    world.clock_offset_seconds = 0;
}

struct Taken {
    wall: Duration,
    processor: Duration,
    peak_kib: u64,
}

/// Runs the program with an empty home folder, and reads what it takes while it runs.
fn run(binary: &str, line: &str, cloud: &Simulator) -> Taken {
    let home = tempfile::tempdir().expect("a home folder");
    let credentials = cloud.credentials();
    let begin = Instant::now();
    let mut child = Command::new(binary)
        .args(line.split(' '))
        .env_clear()
        .env("CVM_EXPORT_ENDPOINT_URL", cloud.endpoint_url())
        .env("TENCENTCLOUD_SECRET_ID", &credentials.secret_id)
        .env("TENCENTCLOUD_SECRET_KEY", credentials.secret_key.expose())
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let folder = format!("/proc/{}", child.id());
    let (mut processor, mut peak_kib) = (Duration::ZERO, 0);
    let status = loop {
        let read =
            |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak.unwrap_or(0).max(peak_kib);
        // User and system time are the 14th and 15th fields, in hundredths of a second.
        let stat = read("stat");
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let times = fields.split(' ').skip(11).take(2);
        let ticks: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
        processor = processor.max(Duration::from_millis(10 * ticks));
        if let Some(status) = child.try_wait().expect("the program is waited for") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{line} ended with {status}");
    Taken {
        wall: begin.elapsed(),
        processor,
        peak_kib,
    }
}
