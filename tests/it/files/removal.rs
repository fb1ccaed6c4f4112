//! `files rm`: only what is proven goes, nothing that runs does, and what was begun is ended.

use std::collections::BTreeSet;

use cvm_export::simulator::{Effect, Fault};
use serde_json::Value;

use super::{BUCKET, LEASE};
use crate::support::{TestEnv, fault};

const ALL: &str = "files rm --bucket exports --older-than 0s --include-newest";

fn slow_down(status: u16) -> Effect {
    Effect::CosError {
        status,
        code: "SlowDown".to_owned(),
    }
}

fn every(call: &str, effect: Effect) -> Fault {
    Fault {
        key: None,
        occurrence: None,
        ..fault(call, effect)
    }
}

#[test]
fn of_ten_thousand_look_alikes_only_the_exports_go() {
    let mut env = TestEnv::new();
    env.export("img-linux001", "p", "--no-claim");
    let system = env.keys().remove(0);
    let snapshot = system
        .trim_start_matches("p_img-linux001_system_")
        .trim_end_matches(".raw")
        .to_owned();
    // No record of this one will be left: the account's image proves it.
    env.lose_home();
    env.export("img-multi002", "q", "");
    env.export("img-linux001", "d/r", "--no-claim");
    let exports: BTreeSet<String> = env.keys().into_iter().collect();
    assert_eq!(exports.len(), 1 + 4 + 1);

    let mut look_alikes = BTreeSet::new();
    for number in 0..500 {
        for name in [
            format!("{number}_img-linux001_system_{snapshot}.raw.bak"),
            format!("{number}_img-linux001_system_{snapshot}.RAW"),
            format!("{number}_img-linux001_system_{snapshot}.img"),
            format!("{number}_img-linux001_system_{snapshot}"),
            format!("{number}_img-linux001_System_{snapshot}.raw"),
            format!("{number}_IMG-linux001_system_{snapshot}.raw"),
            format!("{number}_img-linux001_data_{snapshot}.raw"),
            format!("{number}_img-linux001_system_snap-{number}.raw"),
            format!("{number}_img-multi002_system_{snapshot}.raw"),
            format!("{number}_img-none{number}_system_{snapshot}.raw"),
            format!("{number}_img-linux001_system_{snapshot}_copy.raw"),
            format!("{number}-img-linux001_system_{snapshot}.raw"),
            format!("{number}/img-linux001_system_{snapshot}.raw/notes"),
            format!("{number}_img-linux001.cvm-export.json.bak"),
            format!("{number}_img-linux001.cvm-export.yaml"),
            format!("{number}_xvda.raw"),
            format!("{number}_xvda.raw.old"),
            format!("{number}_xvd1.raw"),
            format!("q_img-multi002_system_snap-1.raw/{number}"),
            format!("q_xvda.raw&{number}"),
        ] {
            look_alikes.insert(name);
        }
    }
    assert_eq!(look_alikes.len(), 10_000);
    env.cloud.change(|world| {
        for key in &look_alikes {
            world.put_object(BUCKET, key, "bytes");
        }
    });
    env.line(&format!("{ALL} --yes -q")).ends_with(0);
    assert_eq!(env.keys().into_iter().collect::<BTreeSet<_>>(), look_alikes);
    assert_eq!(env.calls("GetBucketVersioning"), 1);
    let listings = env.calls_with("ListObjects", "") - env.calls_with("ListObjects", LEASE);
    assert_eq!(listings, 11, "pages of a thousand");
}

#[test]
fn nothing_goes_without_consent() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    let keys = env.keys();
    env.line(ALL)
        .ends_with(2)
        .says("will delete export")
        .says("p_img-linux001_system_")
        .says("nothing was deleted")
        .says("--yes");
    let run = env.line(&format!("{ALL} --dry-run")).ends_with(0);
    assert!(run.stdout.contains("will delete export"), "{}", run.stdout);
    let report = env.line(&format!("{ALL} --dry-run --output json")).json();
    assert_eq!(report["schema"], "cvm-export.removal.v1");
    assert_eq!(report["state"], "planned");
    assert_eq!(report["exports"][0]["objects"][0]["state"], "planned");
    for line in [
        "files rm --bucket exports --yes",
        "files rm --older-than 0s --yes",
        "files rm --bucket exports --export-id exp-1 --keep-last 1 --yes",
    ] {
        env.line(line).ends_with(2);
    }
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);
}

#[test]
fn an_export_goes_by_its_id_and_the_journal_remembers() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    env.export("img-linux001", "q", "");
    let id = env.export_id("p");
    // The journal knows the bucket.
    let run = env
        .line(&format!("files rm --export-id {id} --yes --output json"))
        .ends_with(0);
    let report = run.json();
    assert_eq!(report["state"], "done");
    assert!(report["freed_bytes"].as_u64() >= Some(170 << 30));
    let left = env.keys();
    assert!(left.iter().all(|key| key.starts_with("q_")), "{left:?}");
    let status = env
        .line("status")
        .ends_with(0)
        .says("`cvm-export files rm` deleted `p_");
    let line = status.stdout.lines().find(|line| line.contains(&id));
    assert!(
        line.is_some_and(|line| line.contains(" gone ")),
        "{}",
        status.stdout
    );
    let status = env.line(&format!("status {id} --output json")).json();
    let reason = status["items"][0]["reason"].to_string();
    assert!(reason.contains("files rm"), "{reason}");
    assert!(status["items"][0]["removed_at"].is_string(), "{status:#}");
    env.line(&format!("files rm --export-id {id} --yes"))
        .ends_with(0)
        .says("it is deleted already");
    env.line("files rm --bucket exports --export-id exp-none1 --yes")
        .ends_with(3)
        .says("nothing of export `exp-none1`");
}

#[test]
fn an_export_that_runs_is_refused_whole() {
    let env = TestEnv::new();
    env.export("img-linux001", "done", "");
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.export("img-linux001", "p", "--no-wait");
    let id = env.export_id("p");
    let keys = env.keys();
    for line in [
        format!("files rm --bucket exports --export-id {id} --yes"),
        format!("{ALL} --yes"),
    ] {
        env.line(&line)
            .ends_with(3)
            .says("may be running")
            .says(&format!("cvm-export wait {id}"));
    }
    // A script's empty variable must not come to mean everything.
    env.line("files rm --bucket exports --keep-last 0 --yes")
        .ends_with(2);
    // One that is neither old enough nor among the older ones is not in the way.
    env.line("files rm --bucket exports --keep-last 1 --yes")
        .ends_with(0)
        .says("nothing to delete");
    env.line("files rm --bucket exports --prefix done --older-than 0s --include-newest --dry-run")
        .ends_with(0);
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);

    env.cloud.change(|world| world.finish_exports());
    env.line(&format!("{ALL} --yes")).ends_with(0);
    assert!(env.keys().is_empty());
}

#[test]
fn an_export_of_others_that_writes_over_these_files_is_seen_by_its_upload() {
    let mut env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.lose_home();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.export(
        "img-linux001",
        "p",
        "--no-wait --no-claim --if-exists overwrite --yes",
    );
    env.lose_home();
    let keys = env.keys();
    env.line(&format!("{ALL} --yes"))
        .ends_with(3)
        .says("is unfinished");
    assert_eq!(env.keys(), keys);
}

#[test]
fn a_list_of_uploads_that_is_cut_off_is_no_list() {
    let mut env = TestEnv::new();
    env.export("img-linux001", "zz", "--no-claim");
    env.cloud.change(|world| {
        world.export_seconds = Some(1e6);
        for number in 0..1000 {
            world.leave_upload(BUCKET, &format!("a{number:05}"), 1);
        }
    });
    env.export(
        "img-linux001",
        "zz",
        "--no-wait --no-claim --if-exists overwrite --yes",
    );
    // Only its upload tells of the export that runs.
    env.lose_home();
    let keys = env.keys();
    let lacking = Effect::MissingField {
        name: "NextKeyMarker".to_owned(),
    };
    env.cloud
        .set_faults(vec![every("ListMultipartUploads", lacking)]);
    env.line(&format!("{ALL} --yes"))
        .ends_with(1)
        .says("lacks `NextKeyMarker`")
        .says("nothing was deleted");
    env.cloud.set_faults(Vec::new());
    env.line(&format!("{ALL} --yes"))
        .ends_with(3)
        .says("is unfinished");
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);
}

#[test]
fn an_export_that_begins_after_the_listing_keeps_its_files() {
    // Another machine puts its record in the place of the old one.
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    let keys = env.keys();
    env.cloud.set_faults(vec![
        fault("HeadObject", Effect::ChangedObject).with_key("*.cvm-export.json"),
    ]);
    env.line(&format!("{ALL} --yes"))
        .ends_with(10)
        .says("an export may have begun");
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);
    // Its upload is not there yet when the bucket is listed.
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.change(|world| {
        world.leave_upload(BUCKET, &keys[1], 1 << 30);
    });
    env.cloud.set_faults(vec![fault(
        "ListMultipartUploads",
        Effect::MissingField {
            name: "Upload".to_owned(),
        },
    )]);
    env.line(&format!("{ALL} --yes"))
        .ends_with(10)
        .says("has begun");
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);
}

#[test]
fn a_replaced_object_is_left_alone() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    let key = env.keys().remove(1);
    assert!(key.contains("_data_"), "{key}");
    env.put(&key);
    env.line(&format!("{ALL} --yes"))
        .ends_with(0)
        .says("another object than the one that its record names");
    // Without its record the name alone would prove the object on any other machine.
    let left = [key.as_str(), "p_img-multi002.cvm-export.json"];
    let mut sorted = env.keys();
    sorted.sort();
    assert_eq!(sorted.len(), 2, "{sorted:?}");
    assert!(left.iter().all(|key| sorted.iter().any(|it| it == key)));
    let mut other = TestEnv::new();
    other.borrow_cloud(&env);
    for _ in 0..2 {
        other
            .line(&format!("{ALL} --yes"))
            .ends_with(0)
            .says("is not this export's");
        assert_eq!(env.keys().len(), 2);
    }

    // An export that nobody watched has one file a disk, whatever stands under the disk's other name.
    let env = TestEnv::new();
    env.export("img-linux001", "p", "--no-wait");
    env.cloud.change(|world| world.finish_exports());
    env.put("p_xvda.raw");
    env.line(&format!("{ALL} --yes")).ends_with(0);
    assert_eq!(env.keys(), ["p_xvda.raw"]);

    // Between the listing and the deletion.
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.set_faults(vec![
        fault("HeadObject", Effect::ChangedObject).with_key("*.raw"),
    ]);
    let run = env
        .line(&format!("{ALL} --yes --output json"))
        .ends_with(10);
    let report = run.json();
    assert_eq!(report["state"], "incomplete");
    assert_eq!(report["exports"][0]["objects"][0]["state"], "changed");
    assert_eq!(env.keys().len(), 2, "the record stays, too");
}

#[test]
fn the_last_of_each_image_are_kept() {
    let env = TestEnv::new();
    for (prefix, image_id) in [
        ("a", "img-linux001"),
        ("b", "img-linux001"),
        ("c", "img-multi002"),
        ("d", "img-linux001"),
    ] {
        env.export(image_id, prefix, "");
        env.pass(86_400);
    }
    // A newer one that is not whole must not push out one that is.
    env.export("img-multi002", "e", "");
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        bucket
            .objects
            .retain(|key, _| !key.starts_with("e_img-multi002_system"));
    });
    let report = env
        .line("files rm --bucket exports --keep-last 2 --group-by image --yes --output json")
        .ends_with(0)
        .json();
    let prefixes = |report: &Value| -> Vec<String> {
        let exports = report["exports"].as_array().expect("exports");
        let prefixes = exports
            .iter()
            .map(|it| it["prefix"].as_str().expect("a prefix"));
        prefixes.map(str::to_owned).collect()
    };
    assert_eq!(prefixes(&report), ["a"]);
    let report = env
        .line("files rm --bucket exports --keep-last 1 --group-by image --older-than 36h --yes --output json")
        .ends_with(0)
        .json();
    assert_eq!(prefixes(&report), ["b"]);
    let left = env.keys();
    let starts: BTreeSet<&str> = left.iter().map(|key| &key[..1]).collect();
    assert_eq!(starts, BTreeSet::from(["c", "d", "e"]));
    let text = env
        .line("files rm --bucket exports --keep-last 1 --group-by image --dry-run")
        .ends_with(0);
    assert!(
        text.stdout
            .contains("it is the newest complete export of its group"),
        "{}",
        text.stdout
    );
    assert!(
        text.stdout.contains("it is partial and newer"),
        "{}",
        text.stdout
    );
}

#[test]
fn exports_by_copies_count_for_the_image_that_was_asked_for() {
    const NORTH: &str = "north-1250000000";
    let mut env = TestEnv::new();
    env.cloud.change(|world| {
        world.copy_seconds = Some(0.0);
        let region = "ap-beijing".parse().expect("a region");
        world.add_bucket(NORTH, region);
    });
    let keys = |env: &TestEnv| {
        let mut keys = env.cloud.change(|world| world.keys(NORTH));
        keys.retain(|key| !key.contains(LEASE));
        keys
    };
    for _ in 0..3 {
        env.line(
            "image --id img-linux001 --bucket north --prefix p --poll-interval 100ms \
             --copy-to-bucket-region --if-exists overwrite --yes",
        )
        .ends_with(0);
        env.pass(86_400);
    }
    assert_eq!(keys(&env).len(), 6);
    // The records in the bucket tell as much as the journal.
    env.lose_home();
    let listing = |flags: &str| {
        let line = format!("files --bucket north --output json{flags}");
        env.line(&line).ends_with(0).json()["items"].clone()
    };
    let items = listing(" --id img-linux001");
    assert_eq!(items.as_array().map(Vec::len), Some(3), "{items:#}");
    assert_eq!(items[0]["image_id"], "img-linux001");
    assert_eq!(items[0]["copy"]["copied_from_region"], "ap-guangzhou");
    let copy = items[2]["copy"]["image_id"].as_str().expect("a copy");
    let by_copy = listing(&format!(" --id {copy}"));
    assert_eq!(by_copy[0]["export_id"], items[2]["export_id"]);
    assert_eq!(by_copy.as_array().map(Vec::len), Some(1));
    let run = env.line("files --bucket north").ends_with(0);
    assert_eq!(
        run.stdout.matches(" img-linux001 ").count(),
        3,
        "{}",
        run.stdout
    );

    let rm = "files rm --bucket north --keep-last 1 --yes --output json";
    let report = env.line(rm).ends_with(0).json();
    assert_eq!(report["exports"].as_array().map(Vec::len), Some(2));
    let left = keys(&env);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|key| key.contains(copy)), "{left:?}");
}

#[test]
fn throttled_deletes_end_complete() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    env.export("img-linux001", "q", "");
    env.put("r_xvda.raw");
    let refused = Effect::RefusedKeys {
        keys: 2,
        code: "SlowDown".to_owned(),
    };
    env.cloud.set_faults(vec![
        fault("DeleteMultipleObjects", slow_down(503)),
        Fault {
            key: None,
            occurrence: Some(2),
            ..fault("DeleteMultipleObjects", refused.clone())
        },
        Fault {
            key: None,
            occurrence: Some(3),
            ..fault("DeleteMultipleObjects", Effect::ProcessedThenReset)
        },
        Fault {
            key: None,
            occurrence: Some(4),
            ..fault("DeleteMultipleObjects", refused)
        },
    ]);
    env.line(&format!("{ALL} --yes")).ends_with(0);
    assert_eq!(env.keys(), ["r_xvda.raw"]);
}

#[test]
fn a_throttled_delete_is_not_repeated_without_another_look() {
    for effect in [slow_down(503), slow_down(429), Effect::ResetBefore] {
        let env = TestEnv::new();
        env.export("img-linux001", "p", "");
        env.cloud.set_faults(vec![
            fault("DeleteMultipleObjects", effect),
            // The file, and the file again.
            Fault::new("HeadObject", Effect::ChangedObject)
                .with_key("*.raw")
                .with_occurrence(2),
        ]);
        let run = env.line(&format!("{ALL} --yes --output json"));
        let report = run.ends_with(10).json();
        assert_eq!(report["exports"][0]["objects"][0]["state"], "changed");
        assert_eq!(env.keys().len(), 2);
        assert_eq!(env.calls("DeleteMultipleObjects"), 1);
    }
}

#[test]
fn keys_that_are_refused_for_good_are_told_and_the_rest_goes() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    env.cloud.set_faults(vec![every(
        "DeleteMultipleObjects",
        Effect::RefusedKeys {
            keys: 1,
            code: "AccessDenied".to_owned(),
        },
    )]);
    let run = env
        .line(&format!("{ALL} --yes"))
        .ends_with(10)
        .says("COS refused it (AccessDenied)");
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    assert_eq!(
        env.keys().len(),
        2,
        "one file, and the record that names it"
    );
    env.cloud.set_faults(Vec::new());
    env.line(&format!("{ALL} --yes")).ends_with(0);
    assert!(env.keys().is_empty());

    env.export("img-linux001", "p", "");
    env.cloud.change(|world| {
        world.denied.insert("DeleteMultipleObjects".to_owned());
    });
    let run = env.line(&format!("{ALL} --yes --output json")).ends_with(4);
    assert_eq!(run.stdout, "", "nothing was deleted, so there is no report");
    assert_eq!(run.error_json()["kind"], "permission");
    env.cloud.change(|world| world.denied.clear());

    // The files are deleted, and the right is gone when their record is to go.
    env.cloud.set_faults(vec![Fault {
        key: None,
        occurrence: Some(2),
        ..fault(
            "DeleteMultipleObjects",
            Effect::CosError {
                status: 403,
                code: "AccessDenied".to_owned(),
            },
        )
    }]);
    let run = env
        .line(&format!("{ALL} --yes --output json"))
        .ends_with(10);
    let report = run.json();
    assert_eq!(report["state"], "incomplete");
    let objects = &report["exports"][0]["objects"];
    assert_eq!(objects[0]["state"], "deleted");
    assert_eq!(objects[1]["state"], "failed");
    assert_eq!(run.error_json()["kind"], "permission");
}

#[test]
fn an_answer_that_leaves_a_key_out_is_no_success() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.set_faults(vec![fault(
        "DeleteMultipleObjects",
        Effect::MissingField {
            name: "Deleted".to_owned(),
        },
    )]);
    env.line(&format!("{ALL} --yes")).ends_with(0);
    assert!(env.keys().is_empty());
}

#[test]
fn interrupted_and_run_again_ends_complete() {
    for (signal, milliseconds) in [("INT", 1500), ("KILL", 30_000)] {
        let mut env = TestEnv::new();
        env.export("img-multi002", "p", "");
        // No journal: the record in the bucket alone tells what is left.
        env.lose_home();
        env.cloud.set_faults(vec![fault(
            "DeleteMultipleObjects",
            Effect::DelayAfter { milliseconds },
        )]);
        let words: Vec<&str> = ALL.split(' ').chain(["--yes"]).collect();
        let running = env.start(&words);
        // The files are deleted, and the run waits to hear of it.
        env.wait_for_calls("DeleteMultipleObjects", 1);
        running.signal(signal);
        let run = running.wait();
        if signal == "INT" {
            let run = run.ends_with(130).says("run again goes on");
            assert_eq!(run.stdout.lines().count(), 3, "{}", run.stdout);
        }
        assert_eq!(env.keys(), ["p_img-multi002.cvm-export.json"], "{signal}");
        let listing = env.line("files --bucket exports --output json").json();
        assert_eq!(listing["items"][0]["state"], "gone");
        env.line(&format!("{ALL} --yes")).ends_with(0);
        assert!(env.keys().is_empty(), "{signal}");
    }
}

#[test]
fn what_goes_altogether_and_what_that_saves_is_said_in_one_line() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    env.export("img-linux001", "q", "");
    let line = "files rm --bucket exports --older-than 0s --include-newest";
    // 170 × 0.024 and 50 × 0.024.
    let run = env.line(&format!("{line} --dry-run")).ends_with(0);
    let sum = "2 exports, 4 files, 220.00 GiB; saves 5.28 USD a month; prices of 2023-07-10";
    assert!(run.stdout.contains(sum), "{}", run.stdout);
    env.line(line).ends_with(2).says(sum);
    env.cloud.change(|world| {
        world.denied.insert("GetBucketVersioning".to_owned());
    });
    let run = env.line(&format!("{line} --dry-run")).ends_with(0);
    let sum = "saves 5.28 USD a month, or nothing if the bucket keeps versions";
    assert!(run.stdout.contains(sum), "{}", run.stdout);
}
