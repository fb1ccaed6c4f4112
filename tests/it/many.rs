//! Several images in one command: who goes when.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use cvm_export::simulator::{Call, Disk, Image, Options};
use serde_json::Value;

use crate::support::{TestEnv, files_below};

const BUCKET: &str = "exports-1250000000";
const LINE: &str = "--bucket exports --prefix x-{image_id} --poll-interval 100ms";

/// A world with an image for each name, of so many GiB.
fn world(options: Options, images: &[(&str, u64)]) -> TestEnv {
    let env = TestEnv::with(options);
    env.cloud.change(|world| {
        for (id, gib) in images {
            let id = id.parse().expect("an id");
            let region = "ap-guangzhou".parse().expect("a region");
            world.add_image(Image::linux(id, region, *gib));
        }
    });
    env
}

fn words<'a>(ids: &str, line: &'a str) -> Vec<&'a str> {
    let ids: &str = String::leak(ids.to_owned());
    let mut words = vec!["image", "--id", ids];
    words.extend(line.split(' '));
    words
}

/// The images that calls of `operation` speak of, by the prefix or the key, in the order of the calls.
fn images_of(calls: &[Call], operation: &str) -> Vec<(String, DateTime<Utc>)> {
    let calls = calls.iter().filter(|call| call.operation == operation);
    calls
        .filter_map(|call| {
            let text = format!("{}{}", call.target, call.body.as_deref().unwrap_or(""));
            let (_, rest) = text.split_once("x-img-")?;
            let end = rest.find(|sign: char| !sign.is_ascii_alphanumeric())?;
            Some((format!("img-{}", &rest[..end]), call.time))
        })
        .collect()
}

/// When the run saw the file of each image complete: the first answer to HEAD that is an object.
fn seen_complete(calls: &[Call]) -> BTreeMap<String, DateTime<Utc>> {
    let heads: Vec<Call> = calls
        .iter()
        .filter(|call| call.operation == "HeadObject" && call.status == 200)
        .cloned()
        .collect();
    let mut seen = BTreeMap::new();
    for (image, time) in images_of(&heads, "HeadObject") {
        seen.entry(image).or_insert(time);
    }
    seen
}

/// The calls in the order in which they came.
fn calls(env: &TestEnv) -> Vec<Call> {
    let mut calls = env.cloud.calls();
    calls.sort_by_key(|call| call.time);
    calls
}

fn states(json: &Value) -> Vec<&str> {
    let items = json["items"].as_array().expect("items").iter();
    items
        .map(|item| item["state"].as_str().expect("a state"))
        .collect()
}

#[test]
fn a_slow_image_in_front_holds_up_nobody() {
    let mut images = vec![("img-big001".to_owned(), 400)];
    images.extend((1..=8).map(|number| (format!("img-small00{number}"), 2)));
    let named: Vec<(&str, u64)> = images.iter().map(|(id, gib)| (id.as_str(), *gib)).collect();
    // 400 GiB last 21.6 s, 2 GiB 0.2 s.
    let options = Options {
        speed: 100.0,
        ..Options::default()
    };
    let env = world(options, &named);
    let ids: Vec<&str> = named.iter().map(|(id, _)| *id).collect();
    let run = env.run(&words(&ids.join(","), LINE)).ends_with(0);
    env.assert_submits(9);

    let calls = calls(&env);
    let submits = images_of(&calls, "ExportImages");
    let complete = seen_complete(&calls);
    let first: Vec<&str> = submits.iter().take(5).map(|(id, _)| id.as_str()).collect();
    assert!(first.contains(&"img-big001"), "{first:?}");
    let (_, last) = submits.last().expect("submits");
    assert!(*last < complete["img-big001"], "{submits:?} {complete:?}");

    // Five run at once; each further submit answers the next end, and not the second next.
    let mut ends: Vec<DateTime<Utc>> = complete.values().copied().collect();
    ends.sort();
    let look_ups = images_of(&calls, "DescribeImages").len();
    assert_eq!(look_ups, 0, "they name ids in lists");
    let begun = calls.first().expect("calls").time;
    // A busy machine is slow at all of it: the first submit says how slow.
    let slack = TimeDelta::seconds(1).max((submits[0].1 - begun) * 3);
    let mut waits = 0;
    for (submit, end) in submits.iter().skip(5).zip(&ends) {
        let wait = submit.1 - *end;
        assert!(wait >= TimeDelta::zero(), "six ran at once: {submits:?}");
        assert!(wait < slack, "{} waited {wait}", submit.0);
        waits += 1;
    }
    assert_eq!(waits, 4);

    let keys: Vec<&str> = run.stdout.lines().collect();
    for (key, id) in keys.iter().zip(&ids) {
        assert!(
            key.starts_with(&format!("cos://{BUCKET}/x-{id}_")),
            "{keys:?}"
        );
    }
    assert_eq!(keys.len(), 9, "in the order asked for");
}

#[test]
fn a_slow_download_delays_no_submit_and_downloads_go_one_after_the_other() {
    let ids: Vec<String> = (1..=7).map(|number| format!("img-s{number}")).collect();
    let env = TestEnv::with(Options::default());
    env.cloud.change(|world| {
        world.export_seconds = Some(0.3);
        for id in &ids {
            let id = id.parse().expect("an id");
            let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1);
            world.add_image(image.with_system_disk(Disk::from_bytes(vec![7_u8; 768 << 10].into())));
        }
    });
    // A second and more for each.
    let line = format!("{LINE} --download d --limit-rate 512KiB --part-size 64KiB --output json");
    let run = env.run(&words(&ids.join(","), &line)).ends_with(0);
    env.assert_submits(7);

    let calls = calls(&env);
    let disks: Vec<Call> = calls
        .iter()
        .filter(|call| call.target.contains(".raw"))
        .cloned()
        .collect();
    let ranges = images_of(&disks, "GetObject");
    let mut fetched: Vec<&str> = ranges.iter().map(|(image, _)| image.as_str()).collect();
    fetched.dedup();
    assert_eq!(fetched.len(), 7, "one at a time: {fetched:?}");
    let submits = images_of(&calls, "ExportImages");
    let (_, last_submit) = submits.last().expect("submits");
    let second_began = ranges.iter().find(|(image, _)| image == fetched[1]);
    let (_, second_began) = second_began.expect("it was fetched");
    assert!(
        last_submit < second_began,
        "the last submit waited for the first download: {submits:?}"
    );
    let json = run.json();
    assert_eq!(states(&json), ["complete"; 7]);
    let folder = env.home.path().join("d");
    let disks = files_below(&folder).into_iter();
    let disks = disks.filter(|(path, _)| path.extension().is_some_and(|ending| ending == "raw"));
    assert_eq!(disks.count(), 7);
}

#[test]
fn the_number_of_exports_at_once_is_that_of_the_flag() {
    let images = [("img-a", 1), ("img-b", 1), ("img-c", 1)];
    let env = world(Options::default(), &images);
    env.cloud.change(|world| world.export_seconds = Some(0.4));
    let line = format!("{LINE} --concurrent-exports 1");
    env.run(&words("img-c,img-a,img-b", &line)).ends_with(0);
    let calls = calls(&env);
    let submits = images_of(&calls, "ExportImages");
    let complete = seen_complete(&calls);
    let order: Vec<&str> = submits.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(order, ["img-c", "img-a", "img-b"]);
    for pair in submits.windows(2) {
        assert!(complete[&pair[0].0] < pair[1].1, "{submits:?} {complete:?}");
    }
    for wrong in ["0", "1001", "x"] {
        let line = format!("{LINE} --concurrent-exports {wrong}");
        env.run(&words("img-a", &line))
            .ends_with(2)
            .says("it must be from 1 to 1000");
    }
}
