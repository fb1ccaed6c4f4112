//! Several images in one command: who goes when, what is told meanwhile, and the end.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use cvm_export::simulator::{Call, Disk, Effect, ExportFailure, Image, Options};
use serde_json::{Value, json};

use crate::support::{Run, TestEnv, fault, files_below, wait_until};

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

fn image(ids: &str, flags: &str) -> String {
    format!("image --id {ids} {flags}")
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

#[track_caller]
fn ends_with_lines(run: &Run, lines: &[&str]) {
    let said: Vec<&str> = run.stderr.lines().collect();
    assert!(said.ends_with(lines), "{lines:?}\n{}", run.stderr);
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
    let run = env.line(&image(&ids.join(","), LINE)).ends_with(0);
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
    ends_with_lines(&run, &["9 exported (416.00 GiB)"]);
    let told = |id: &str| {
        let lines = run.stderr.lines();
        lines.filter(|line| line.starts_with(id)).count()
    };
    for id in ids {
        assert_eq!(told(id), 2, "submitted and exported: {}", run.stderr);
    }
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
    let run = env.line(&image(&ids.join(","), &line)).ends_with(0);
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
    env.line(&image("img-c,img-a,img-b", &line)).ends_with(0);
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
        env.line(&image("img-a", &line))
            .ends_with(2)
            .says("it must be from 1 to 1000");
    }
}

#[test]
fn the_last_lines_count_and_give_each_failure_its_reason() {
    let images = [("img-a", 1), ("img-b", 2), ("img-market", 1)];
    let env = world(Options::default(), &images);
    env.cloud.change(|world| {
        world.export_seconds = Some(0.0);
        world.image_mut("img-market").expect("the image").refusal =
            Some("UnsupportedOperation.MarketImageExportUnsupported".to_owned());
    });
    let line = format!("{LINE} --output json");
    let all = "img-window03,img-a,img-market,img-b";
    let run = env.line(&image(all, &line)).ends_with(10);
    let json = run.json();
    assert_eq!(
        json["totals"],
        json!({
            "images": 4, "complete": 2, "reused": 0, "submitted": 0, "running": 0, "checked": 0,
            "failed": 2, "unknown": 0, "size_bytes": 3_u64 << 30,
        })
    );
    assert_eq!(
        states(&json),
        ["failed", "complete", "failed", "complete"],
        "in the order asked for"
    );
    assert!(json["items"][0]["error"]["findings"].is_array());
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [.., head, first, second] = lines.as_slice() else {
        panic!("{}", run.stderr);
    };
    assert_eq!(*head, "2 exported (3.00 GiB), 2 refused:");
    assert!(first.starts_with("  img-window03: platform: "), "{first}");
    assert!(
        second.starts_with("  img-market: the export of image `img-market` was refused"),
        "{second}"
    );

    // In text mode a failure is told in full when it happens, and in one line at the end.
    let run = env.line(&image("img-window03,img-market", &LINE.replace("x-", "y-")));
    let run = run.ends_with(10).prints("").says("hint: ");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[lines.len() - 3], "2 refused:");
    assert_eq!(run.stderr.matches("error: img-window03: ").count(), 1);
    assert!(!run.stderr.contains("cannot be exported as asked"));

    // What is there already and was taken is told apart.
    let line = format!("{LINE} --if-exists reuse");
    env.cloud.change(|world| {
        let id = "img-c".parse().expect("an id");
        let region = "ap-guangzhou".parse().expect("a region");
        world.add_image(Image::linux(id, region, 4));
    });
    let run = env.line(&image("img-a,img-c,img-b", &line)).ends_with(0);
    ends_with_lines(&run, &["1 exported (4.00 GiB), 2 reused (3.00 GiB)"]);
    let run = env.line(&image("img-a,img-b", &format!("{line} --output json")));
    assert_eq!(run.json()["totals"]["reused"], 2);
    env.line(&image(
        "img-a,img-b",
        &format!("{LINE} --dry-run --if-exists reuse"),
    ))
    .ends_with(0)
    .says("\n2 can be exported\n");
}

#[test]
fn the_accounts_limit_decides_and_each_image_that_queues_says_so_once() {
    let images = [("img-a", 1), ("img-b", 1), ("img-c", 1), ("img-d", 1)];
    let env = world(Options::default(), &images);
    env.cloud.change(|world| {
        world.task_limit = 2;
        // Each retry also reads and writes its lease.
        world.export_seconds = Some(3.0);
    });
    let run = env
        .line(&image("img-a,img-b,img-c,img-d", LINE))
        .ends_with(0);
    assert_eq!(env.cloud.change(|world| world.started_tasks().len()), 4);
    let refused = env.calls("ExportImages") - 4;
    assert!(refused > 2, "they were retried {refused} times");
    let said = run.stderr.matches("ExportImageTaskLimitExceeded").count();
    assert_eq!(said, 2, "{}", run.stderr);
    let line = LINE.replace("x-", "y-");
    env.line(&image("img-a,img-b", &format!("{line} --no-wait")))
        .ends_with(0)
        .says("\n2 submitted\n");
}

#[test]
fn a_download_that_fails_is_told_apart_from_its_export() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.crc_missing = true;
        for id in ["img-a", "img-b"] {
            let id = id.parse().expect("an id");
            let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1);
            world.add_image(image.with_system_disk(Disk::from_bytes(vec![7_u8; 1024].into())));
        }
    });
    let line = format!("{LINE} --download d --require-checksum");
    let run = env.line(&image("img-a,img-b", &line)).ends_with(10);
    assert_eq!(run.stdout.lines().count(), 2, "the exports are complete");
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [.., head, first, _] = lines.as_slice() else {
        panic!("{}", run.stderr);
    };
    assert_eq!(*head, "2 exported (2.00 KiB), 2 not downloaded:");
    assert!(first.starts_with("  img-a: download: "), "{first}");
    let told = run.stderr.matches("error: img-a: download: ").count();
    assert_eq!(told, 1, "when it happens: {}", run.stderr);
}

#[test]
fn quiet_says_what_failed_and_nothing_of_what_did_not() {
    let env = world(Options::default(), &[("img-a", 1), ("img-b", 1)]);
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    let quiet = format!("{LINE} -q");
    let run = env.line(&image("img-a,img-b", &quiet)).ends_with(0);
    let others = run.stderr.lines().skip(1);
    let others: Vec<&str> = others
        .filter(|line| !line.starts_with("  watch again: "))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let run = env.line(&image("img-window03,img-faraway6", &quiet));
    let run = run.ends_with(10);
    assert!(
        run.stderr
            .contains("\n2 refused:\n  img-window03: platform: ")
    );
    let json = format!("{quiet} --output json");
    let run = env.line(&image("img-window03,img-faraway6", &json));
    for line in run.stderr.lines().skip(1) {
        let error: Value = serde_json::from_str(line).expect("scripts that want quiet get objects");
        assert_eq!(error["exit_code"], 3);
    }
}

#[test]
fn a_signal_tells_all_states_apart_and_a_second_one_loses_none() {
    let images = [
        ("img-done", 1),
        ("img-run1", 400),
        ("img-run2", 400),
        ("img-wait", 1),
    ];
    for is_second in [false, true] {
        // 1 GiB lasts 0.8 s, 400 GiB 108 s.
        let options = Options {
            speed: 20.0,
            ..Options::default()
        };
        let env = world(options, &images);
        if is_second {
            // The update of the third lease after its submit holds the end of the run up.
            let slow = Effect::DelayBefore {
                milliseconds: 30_000,
            };
            env.cloud.set_faults(vec![
                fault("PutObject", slow)
                    .with_key("x-img-run2_*.lease-*")
                    .with_occurrence(2),
            ]);
        }
        let line = format!("{LINE} --concurrent-exports 2 --output json");
        let all = "img-window03,img-done,img-run1,img-run2,img-wait";
        let running = env.start(&image(all, &line).split(' ').collect::<Vec<_>>());
        let submitted = || {
            let records = files_below(&env.state_folder().join("exports"));
            let is_submitted = |text: &str| text.contains("\"state\": \"submitted\"");
            records
                .iter()
                .filter(|(_, text)| is_submitted(text))
                .count()
        };
        wait_until(
            || "two that run, after one that is complete".to_owned(),
            || env.calls("ExportImages") == 3 && submitted() == 2,
        );
        if is_second {
            std::thread::sleep(std::time::Duration::from_millis(300));
            running.signal("INT");
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        running.signal("INT");
        let run = running.wait().ends_with(130);
        let json = run.json();
        let expected = ["failed", "complete", "running", "running", "checked"];
        assert_eq!(states(&json), expected, "{}", run.stderr);
        assert_eq!(
            json["totals"],
            json!({
                "images": 5, "complete": 1, "reused": 0, "submitted": 0, "running": 2, "checked": 1,
                "failed": 1, "unknown": 0, "size_bytes": 1_u64 << 30,
            })
        );
        let items = &json["items"];
        assert_eq!(items[0]["error"]["exit_code"], 3);
        assert_eq!(items[1]["files"][0]["size_bytes"], 1_u64 << 30);
        for item in [&items[2], &items[3]] {
            assert!(item["reattach"].is_array() && item["export_id"].is_string());
        }
        // After each submit, and again at the end.
        assert_eq!(run.stderr.matches("watch again: ").count(), 3 + 2);
        if !is_second {
            drop(run.says(
                "1 exported (1.00 GiB), 2 still running, 1 not started, 1 refused:\n  img-window03: platform: ",
            ));
        }
        env.assert_submits(3);
    }
}

#[test]
fn an_export_that_vanishes_is_counted_as_failed() {
    let env = world(Options::default(), &[("img-a", 1), ("img-b", 1)]);
    env.cloud.change(|world| {
        world.export_seconds = Some(1.0);
        world.export_failure = Some(ExportFailure { at_fraction: 0.5 });
    });
    let run = env.line(&image("img-a,img-b", LINE)).ends_with(10);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [.., head, first, _] = lines.as_slice() else {
        panic!("{}", run.stderr);
    };
    assert_eq!(*head, "2 failed:");
    assert!(
        first.starts_with("  img-a: the upload of the system disk"),
        "{first}"
    );
    assert!(first.ends_with("(safe to run again)"), "{first}");
}
