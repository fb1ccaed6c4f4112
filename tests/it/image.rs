//! `image` when all goes well: what it prints, what it asks, what it leaves.

use std::collections::BTreeMap;

use cvm_export::simulator::{DryRunAnswer, Image, Naming, Options};

use crate::support::{TestEnv, files_below};

/// The call that most tests make.
const LINUX: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
const MULTI: &str = "image --id img-multi002 --bucket exports --prefix p --poll-interval 100ms";

fn console_naming() -> TestEnv {
    let env = TestEnv::with(Options {
        naming: Naming::Console,
        ..Options::default()
    });
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    env
}

/// The sample's key by the API's rule.
fn linux_key(env: &TestEnv) -> String {
    let snapshot = env.cloud.change(|world| {
        world.image_mut("img-linux001").expect("the sample").disks[0]
            .snapshot_id
            .to_string()
    });
    format!("p_img-linux001_system_{snapshot}.raw")
}

#[test]
fn the_line_of_the_title_works_with_a_bare_bucket_and_no_region() {
    let env = TestEnv::new();
    let key = linux_key(&env);
    env.line(LINUX)
        .ends_with(0)
        .prints(&format!("cos://exports-1250000000/{key}\n"))
        .says("region ap-guangzhou: the one of bucket `exports-1250000000`")
        .says("watch again: cvm-export wait --region ap-guangzhou --bucket exports-1250000000")
        .says("console.cloud.tencent.com/cos/bucket?bucket=exports-1250000000&region=ap-guangzhou");
    env.assert_submits(1);
}

#[test]
fn the_readme_line_works_without_credentials_and_with_an_empty_home_and_twice() {
    let mut env = TestEnv::new();
    for name in [
        "CVM_EXPORT_ENDPOINT_URL",
        "TENCENTCLOUD_SECRET_ID",
        "TENCENTCLOUD_SECRET_KEY",
    ] {
        env.unset(name);
    }
    let line = "image --simulate --id img-xxx --bucket b --prefix p";
    let first = env.line(line).ends_with(0);
    assert!(
        first
            .stdout
            .starts_with("cos://b-1250000000/p_img-xxx_system_snap-"),
        "{}",
        first.stdout
    );
    assert_eq!(first.stdout.lines().count(), 1);
    let first = first
        .says("checks passed")
        .says("submitted as exp-")
        .says("complete: ");
    let second = env.line(line).ends_with(0);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(
        files_below(env.home.path()),
        [],
        "a rehearsal leaves nothing behind"
    );
}

#[test]
fn json_is_the_documented_object_and_nothing_else() {
    let env = TestEnv::new();
    let key = linux_key(&env);
    let run = env.line(&format!("{LINUX} --output json")).ends_with(0);
    let json = run.json();
    let names: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "bucket",
        "completed_at",
        "export_id",
        "files",
        "format",
        "image_id",
        "image_name",
        "prefix",
        "reattach",
        "region",
        "request_id",
        "reused",
        "schema",
        "state",
        "submitted_at",
        "task_id",
        "warnings",
    ];
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(json["schema"], "cvm-export.export.v1");
    assert_eq!(json["state"], "complete");
    assert_eq!(json["reused"], false);
    assert_eq!(json["image_id"], "img-linux001");
    assert_eq!(json["region"], "ap-guangzhou");
    assert_eq!(json["bucket"], "exports-1250000000");
    assert_eq!(json["format"], "raw");
    assert_eq!(json["prefix"], "p");
    assert!(json["task_id"].is_u64() && json["request_id"].is_string());
    let file = &json["files"][0];
    assert_eq!(file["key"], key.as_str());
    assert_eq!(file["disk"], "system");
    assert_eq!(file["device"], "xvda");
    assert_eq!(file["size_bytes"], 50_u64 << 30);
    assert_eq!(file["storage_class"], "STANDARD");
    assert!(
        file["crc64"]
            .as_str()
            .is_some_and(|crc64| crc64.parse::<u64>().is_ok())
    );
    assert!(file["local_path"].is_null() && file["sha256"].is_null());
    assert_eq!(json["reattach"][0], "cvm-export");
}

#[test]
fn ndjson_streams_events_and_ends_with_the_result() {
    let env = TestEnv::new();
    let run = env.line(&format!("{LINUX} --output ndjson")).ends_with(0);
    let lines: Vec<serde_json::Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    let (result, events) = lines.split_last().expect("a line");
    assert_eq!(result["schema"], "cvm-export.export.v1");
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| {
            assert_eq!(event["schema"], "cvm-export.event.v1");
            assert!(event["time"].is_string());
            event["event"].as_str().expect("a kind")
        })
        .collect();
    for kind in [
        "check-started",
        "checked",
        "submitted",
        "watching",
        "progress",
        "file-complete",
    ] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[test]
fn quiet_says_only_what_must_not_be_missed_and_prints_the_result() {
    let env = TestEnv::new();
    let run = env.line(&format!("{LINUX} -q")).ends_with(0);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [endpoint, reattach] = lines.as_slice() else {
        panic!("two lines, not {lines:?}");
    };
    assert!(
        endpoint.starts_with("every request goes to http://127.0.0.1:"),
        "{endpoint}"
    );
    assert!(
        reattach.starts_with(
            "  watch again: cvm-export wait --region ap-guangzhou --bucket exports-1250000000 "
        ),
        "{reattach}"
    );
    assert_eq!(run.stdout.lines().count(), 1);
}

#[test]
fn every_disk_is_waited_for_under_both_naming_rules() {
    for (env, names) in [
        (
            TestEnv::new(),
            ["_system_snap-", "_data_snap-", "_data_snap-"],
        ),
        (console_naming(), ["p_xvda.raw", "p_xvdb.raw", "p_xvdc.raw"]),
    ] {
        let run = env.line(MULTI).ends_with(0);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        for (line, name) in lines.iter().zip(names) {
            assert!(line.contains(name), "{line}");
        }
        env.assert_submits(1);
    }
}

#[test]
fn a_system_disk_alone_is_one_file() {
    let env = TestEnv::new();
    let run = env
        .line(&format!("{MULTI} --system-disk-only"))
        .ends_with(0);
    assert_eq!(run.stdout.lines().count(), 1);
}

#[test]
fn the_result_is_durable_and_the_claim_lies_beside_the_files() {
    let env = TestEnv::new();
    env.line(LINUX).ends_with(0);
    let records: Vec<_> = files_below(&env.state_folder().join("exports"));
    assert_eq!(records.len(), 1);
    assert!(
        records[0].1.contains("\"state\": \"complete\""),
        "{}",
        records[0].1
    );
    let status = env.line("status --output json").ends_with(0).json();
    assert_eq!(status["items"][0]["state"], "complete");
    let key = "p_img-linux001.cvm-export.json";
    assert!(
        env.cloud
            .change(|world| world.object("exports-1250000000", key).is_some())
    );
    let without = TestEnv::new();
    without.line(&format!("{LINUX} --no-claim")).ends_with(0);
    assert_eq!(without.calls("PutObject"), 0);
}

#[test]
fn before_the_submit_at_most_fourteen_calls_and_a_look_at_each_name_are_made() {
    let env = TestEnv::new();
    // An earlier attempt costs two more: its lease is read, and read again before the submit.
    for (flags, most) in [("", 14), (" --if-exists overwrite --yes", 16)] {
        let begun = env.cloud.calls().len();
        env.line(&format!("{MULTI}{flags}")).ends_with(0);
        let calls = &env.cloud.calls()[begun..];
        let submit = calls
            .iter()
            .position(|call| call.operation == "ExportImages")
            .expect("a submit");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for call in &calls[..submit] {
            *counts.entry(call.operation.as_str()).or_default() += 1;
        }
        // Three disks, two names each.
        assert_eq!(counts.remove("HeadObject"), Some(6), "{counts:?}");
        let others: usize = counts.values().sum();
        assert!(others <= most, "{others} calls: {counts:?}");
    }
}

#[test]
fn look_ups_are_made_side_by_side() {
    // Each look-up thinks for 300 ms; one after the other they would take 2.4 s and more.
    let env = TestEnv::new();
    let slow = [
        "DescribeImages",
        "GetRole",
        "ListAttachedRolePolicies",
        "HeadBucket",
        "ListMultipartUploads",
        "GetObject",
    ];
    env.cloud
        .set_faults(slow.map(|call| crate::support::delayed(call, 300)).to_vec());
    env.line(&format!("{LINUX} --timeout 60s")).ends_with(0);
    let calls = env.cloud.calls();
    let first = |operation: &str| {
        calls
            .iter()
            .find(|call| call.operation == operation)
            .map(|call| call.time)
            .expect(operation)
    };
    let times: Vec<_> = slow.iter().map(|call| first(call)).collect();
    let (earliest, latest) = (
        times.iter().min().expect("times"),
        times.iter().max().expect("times"),
    );
    assert!(
        (*latest - *earliest).num_milliseconds() < 300,
        "the look-ups did not begin together: {times:?}"
    );
}

#[test]
fn a_look_costs_one_head_a_missing_name_one_listing_and_one_list_parts_an_upload() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(1.5));
    env.line(MULTI).ends_with(0);
    let calls = env.cloud.calls();
    let submit = calls
        .iter()
        .position(|call| call.operation == "ExportImages")
        .expect("a submit");
    let after = &calls[submit + 1..];
    let count = |operation: &str| {
        after
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    };
    let looks = count("ListMultipartUploads");
    assert!(looks >= 3, "{looks} looks");
    assert!(
        count("HeadObject") <= 6 * looks,
        "{} HEADs in {looks} looks",
        count("HeadObject")
    );
    assert!(
        count("ListParts") <= 3 * looks,
        "{} List Parts in {looks} looks",
        count("ListParts")
    );
    assert!(count("ListParts") >= 3, "progress comes from the parts");
    // Twice, as submitted and as complete, lease and record are read and then written, however many looks there were.
    for operation in ["GetObject", "PutObject"] {
        assert_eq!(count(operation), 4, "{operation}");
    }
    let known = [
        "GetObject",
        "HeadObject",
        "ListMultipartUploads",
        "ListParts",
        "PutObject",
    ];
    let others: Vec<_> = after
        .iter()
        .filter(|call| !known.contains(&call.operation.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn progress_comes_from_the_parts_or_says_that_it_is_time_alone() {
    for (visible, source) in [(true, "upload"), (false, "elapsed")] {
        let env = TestEnv::new();
        env.cloud.change(|world| {
            world.export_seconds = Some(1.0);
            world.uploads_visible = visible;
        });
        let run = env.line(&format!("{LINUX} --output ndjson")).ends_with(0);
        let sources: Vec<String> = run
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|event| event["event"] == "progress" && event["files_done"] == 0)
            .map(|event| event["source"].as_str().expect("a source").to_owned())
            .collect();
        assert!(sources.contains(&source.to_owned()), "{sources:?}");
    }
}

#[test]
fn a_submit_without_waiting_is_waited_for_by_another_process_and_another_machine() {
    for naming in [Naming::Api, Naming::Console] {
        let mut env = TestEnv::with(Options {
            naming,
            ..Options::default()
        });
        env.cloud.change(|world| world.export_seconds = Some(1.0));
        let run = env
            .line(&format!("{LINUX} --no-wait --output json"))
            .ends_with(0);
        let json = run.json();
        assert_eq!(json["state"], "submitted");
        let reattach: Vec<String> =
            serde_json::from_value(json["reattach"].clone()).expect("words");
        let export_id = json["export_id"].as_str().expect("an id").to_owned();
        let by_id = env
            .run(&["wait", &export_id, "--poll-interval", "100ms"])
            .ends_with(0);
        env.lose_home();
        let words: Vec<&str> = reattach[1..].iter().map(String::as_str).collect();
        let by_line = env.run(&words).ends_with(0);
        let by_prefix = env.line("wait --bucket exports --prefix p").ends_with(0);
        assert!(
            by_id.stdout.starts_with("cos://exports-1250000000/p_"),
            "{}",
            by_id.stdout
        );
        assert_eq!(by_id.stdout, by_line.stdout);
        assert_eq!(by_id.stdout, by_prefix.stdout);
        env.assert_submits(1);
    }
}

#[test]
fn without_a_claim_another_machine_finds_the_console_names_by_the_line_alone() {
    let mut env = console_naming();
    let run = env
        .line(&format!("{MULTI} --no-claim --no-wait --output json"))
        .ends_with(0);
    let reattach: Vec<String> =
        serde_json::from_value(run.json()["reattach"].clone()).expect("words");
    env.lose_home();
    let words: Vec<&str> = reattach[1..].iter().map(String::as_str).collect();
    let run = env.run(&words).ends_with(0);
    assert!(run.stdout.ends_with(
        "/p_xvda.raw\ncos://exports-1250000000/p_xvdb.raw\ncos://exports-1250000000/p_xvdc.raw\n"
    ));
}

#[test]
fn several_images_need_prefixes_that_differ_and_come_back_in_order() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        for id in ["img-a", "img-b"] {
            let id = id.parse().expect("an id");
            world.add_image(Image::linux(
                id,
                "ap-guangzhou".parse().expect("a region"),
                1,
            ));
        }
    });
    env.line("image --id img-b,img-a --bucket exports --prefix p")
        .ends_with(2)
        .says("--prefix");
    let run = env
        .line("image --id img-b,img-a --bucket exports --prefix x-{image_id} --output json --poll-interval 100ms")
        .ends_with(0);
    let json = run.json();
    assert_eq!(json["schema"], "cvm-export.exports.v1");
    assert_eq!(json["items"][0]["image_id"], "img-b");
    assert_eq!(json["items"][1]["image_id"], "img-a");
    assert_eq!(json["items"][1]["prefix"], "x-img-a");
    // Names that look different and are not.
    env.cloud.change(|world| {
        for id in ["img-a", "img-b"] {
            world.image_mut(id).expect("it was added").name = "same".to_owned();
        }
    });
    env.line("image --id img-b,img-a --bucket exports --prefix {image_name}")
        .ends_with(2)
        .says("would both have `same`");
    // One of several that cannot be exported does not hide the other.
    let run = env
        .line("image --id img-window03 --id img-linux001 --bucket exports --prefix y-{image_id} --output json")
        .ends_with(10);
    let items = &run.json()["items"];
    assert_eq!(items[0]["state"], "failed");
    assert_eq!(items[0]["error"]["exit_code"], 3);
    assert_eq!(items[1]["state"], "complete");
    // It is the whole object all the same, with what is known of it.
    let keys = |item: &serde_json::Value| -> Vec<String> {
        item.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let mut failed = keys(&items[0]);
    failed.retain(|key| key != "error");
    assert_eq!(failed, keys(&items[1]));
    for (key, value) in [
        ("bucket", serde_json::json!("exports-1250000000")),
        ("region", serde_json::json!("ap-guangzhou")),
        ("prefix", serde_json::json!("y-img-window03")),
        ("format", serde_json::json!("raw")),
        ("reused", serde_json::json!(false)),
        ("export_id", serde_json::Value::Null),
        ("task_id", serde_json::Value::Null),
        ("submitted_at", serde_json::Value::Null),
        ("files", serde_json::json!([])),
        ("reattach", serde_json::json!([])),
        ("warnings", serde_json::json!([])),
    ] {
        assert_eq!(items[0][key], value, "{key}");
    }
}

#[test]
fn prefixes_may_hold_the_images_name_and_the_date() {
    let env = TestEnv::new();
    let run = env
        .line("image --id img-linux001 --bucket exports --prefix {image_name}-{date}-{time} --output json")
        .ends_with(0);
    let prefix = run.json()["prefix"].as_str().expect("a prefix").to_owned();
    let tail: Vec<&str> = prefix.rsplit('-').take(2).collect();
    assert!(prefix.starts_with("sample-linux001-"), "{prefix}");
    assert!(tail[0].len() == 6 && tail[1].len() == 8, "{prefix}");
}

#[test]
fn a_dry_run_submits_nothing_under_either_form_of_the_answer() {
    for answer in [DryRunAnswer::Accepted, DryRunAnswer::Error] {
        let env = TestEnv::new();
        env.cloud.change(|world| world.dry_run_answer = answer);
        let run = env
            .line(&format!("{LINUX} --dry-run --output json"))
            .ends_with(0);
        assert_eq!(run.json()["state"], "checked");
        assert!(run.json()["export_id"].is_null());
        assert_eq!(env.calls("PutObject"), 0);
        let tasks = env.cloud.calls().into_iter().filter(|call| {
            call.operation == "ExportImages"
                && !call
                    .body
                    .as_deref()
                    .unwrap_or_default()
                    .contains("\"DryRun\":true")
        });
        assert_eq!(tasks.count(), 0, "only dry runs were sent");
    }
}

#[test]
fn a_file_of_that_name_stops_is_the_result_or_is_replaced_as_asked() {
    let env = TestEnv::new();
    let first = env.line(LINUX).ends_with(0);
    env.line(&format!("{LINUX} --if-exists fail"))
        .ends_with(3)
        .says("name-collision")
        .says("--if-exists");
    env.assert_submits(1);
    // The last is an old name of the second.
    for flags in ["", " --if-exists reuse", " --if-exists skip"] {
        env.line(&format!("{LINUX}{flags}"))
            .ends_with(0)
            .prints(&first.stdout);
    }
    env.assert_submits(1);
    // Last week's file is not taken for today's.
    env.cloud.change(|world| world.export_seconds = Some(0.8));
    let old = env.cloud.change(|world| {
        let bucket = world.bucket_mut("exports-1250000000").expect("the sample");
        bucket
            .objects
            .iter()
            .find(|(key, _)| key.ends_with(".raw"))
            .map(|(_, object)| object.etag.clone())
    });
    let run = env
        .line(&format!(
            "{LINUX} --if-exists overwrite --yes --output json"
        ))
        .ends_with(0);
    env.assert_submits(2);
    assert_ne!(
        run.json()["files"][0]["etag"].as_str().map(str::to_owned),
        old.map(|etag| etag.trim_matches('"').to_owned())
    );
}

#[test]
fn a_foreign_file_under_the_console_name_is_never_taken_for_the_images() {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.put_object("exports-1250000000", "p_xvda.raw", "someone else's"));
    env.line(&format!("{LINUX} --if-exists reuse"))
        .ends_with(3)
        .says("not proven");
    env.assert_submits(0);
}

#[test]
fn time_out_and_vanishing_have_codes_of_their_own() {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.export_seconds = Some(1000.0));
    let run = env
        .line(&format!("{LINUX} --timeout 700ms --output json"))
        .ends_with(6);
    assert_eq!(run.json()["state"], "running");
    assert!(run.json()["files"][0]["size_bytes"].is_null());
    let run = run.says("watch again: cvm-export wait");
    drop(run);
    env.assert_submits(1);

    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.export_seconds = Some(2.0);
        world.export_failure = Some(cvm_export::simulator::ExportFailure { at_fraction: 0.5 });
    });
    let run = env.line(&format!("{LINUX} --output json")).ends_with(7);
    assert_eq!(run.json()["state"], "failed");
    run.says("gone from the bucket");
    // It is safe to run again.
    env.cloud.change(|world| {
        world.export_failure = None;
        world.export_seconds = Some(0.0);
    });
    env.line(LINUX).ends_with(0);
    env.assert_submits(2);
}

#[test]
fn the_accounts_task_limit_is_waited_for_and_no_queue_does_not_wait() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.other_tasks = 5);
    env.line(&format!("{LINUX} --no-queue"))
        .ends_with(5)
        .says("ExportImageTaskLimitExceeded");
    let running = env.start(&LINUX.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("ExportImages", 3);
    env.cloud.change(|world| world.other_tasks = 0);
    running.wait().ends_with(0).says("the cloud says \"later\"");
}

#[test]
fn a_size_that_is_not_the_disks_is_a_warning_in_the_result() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let disk = cvm_export::simulator::Disk::from_bytes(vec![1_u8; 4096].into());
        let id = "img-odd".parse().expect("an id");
        let image =
            Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1).with_system_disk(disk);
        world.add_image(image);
    });
    let run = env
        .line("image --id img-odd --bucket exports --prefix p --output json")
        .ends_with(0);
    let warnings = run.json()["warnings"].to_string();
    assert!(warnings.contains("4096 bytes"), "{warnings}");
}
