//! `files rm`: what must be kept, and what must not be in its own way: several runs at once, runs that were
//! killed, downloads that go on.

use cvm_export::simulator::{Disk, Effect, Fault, Image};

use super::BUCKET;
use crate::support::{TestEnv, fault, wait_until};

const DOWNLOAD: &str = "image --id img-small --bucket exports --prefix p --poll-interval 100ms --part-size 64KiB \
                        --download here --limit-rate 1MiB";
const ALL: &str = "files rm --bucket exports --older-than 0s --include-newest --yes";

impl TestEnv {
    /// Waits for a call that a fault may still hold, by its number since the faults were set.
    fn wait_until_begun(&self, operation: &str, count: u32) {
        let is_begun = || self.cloud.begun_calls(operation) >= count;
        wait_until(|| format!("{operation} for the {count}. time"), is_begun);
    }

    fn wait_for_keys_to_go(&self, ending: &str) {
        let is_there = || self.keys().iter().any(|key| key.ends_with(ending));
        wait_until(|| format!("{ending} to go"), || !is_there());
    }

    /// The keys of the bucket that belong to `prefix`.
    fn keys_of(&self, prefix: &str) -> Vec<String> {
        let mut keys = self.keys();
        keys.retain(|key| key.starts_with(&format!("{prefix}_")));
        keys
    }

    fn delete(&self, key: &str) {
        self.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            bucket.objects.remove(key).expect("an object");
        });
    }
}

#[test]
fn what_is_not_whole_pushes_no_export_out() {
    let mut env = TestEnv::new();
    env.export("img-multi002", "old", "");
    let old = env.keys_of("old");
    env.pass(3600);
    // Of the newer ones only the names tell: an empty disk, and two disks that are gone.
    env.export("img-multi002", "empty", "--no-claim");
    env.export("img-multi002", "part", "--no-claim");
    env.lose_home();
    let data = |prefix: &str| {
        let mut keys = env.keys_of(prefix);
        keys.retain(|key| key.contains("_data_"));
        keys
    };
    let hollow = &data("empty")[0];
    env.cloud
        .change(|world| world.put_object(BUCKET, hollow, ""));
    for key in data("part") {
        env.delete(&key);
    }
    env.line("files rm --bucket exports --keep-last 1 --group-by image --yes")
        .ends_with(0)
        .says("it is partial and newer than the newest complete export of its group")
        .says("nothing to delete");
    assert_eq!(env.keys_of("old"), old);
}

#[test]
fn what_a_record_says_of_its_end_makes_it_neither_younger_nor_older() {
    let env = TestEnv::new();
    env.export("img-linux001", "bad", "");
    env.pass(3600);
    env.export("img-linux001", "good", "");
    let mut other = TestEnv::new();
    other.borrow_cloud(&env);
    let claim = "bad_img-linux001.cvm-export.json";
    let genuine = env.record_at(claim);
    for (completed_at, line, is_deleted) in [
        (
            "2099-01-01T00:00:00Z",
            "--keep-last 1 --group-by image",
            true,
        ),
        ("2001-01-01T00:00:00Z", "--older-than 3650d", false),
    ] {
        let mut forged = genuine.clone();
        forged["completed_at"] = completed_at.into();
        env.cloud
            .change(|world| world.put_object(BUCKET, claim, forged.to_string()));
        let line = format!("files rm --bucket exports {line} --dry-run");
        let run = other.line(&line).ends_with(0);
        assert!(!run.stdout.contains("cos://exports-1250000000/good_"));
        let is_meant = run.stdout.contains("cos://exports-1250000000/bad_");
        assert_eq!(is_meant, is_deleted, "{}", run.stdout);
    }
}

#[test]
fn what_is_deleted_and_kept_as_a_version_pushes_no_export_out() {
    for is_lost in [false, true] {
        let mut env = TestEnv::new();
        env.cloud.change(|world| {
            world.bucket_mut(BUCKET).expect("the bucket").versioned = true;
        });
        env.export("img-linux001", "good", "");
        env.pass(3600);
        env.export("img-linux001", "bad", "");
        env.line("files rm --bucket exports --prefix bad --older-than 0s --include-newest --yes")
            .ends_with(0);
        let good = env.keys();
        assert_eq!(good, env.keys_of("good"));
        if is_lost {
            env.lose_home();
        }
        env.line("files rm --bucket exports --keep-last 1 --group-by image --all-versions --yes")
            .ends_with(0)
            .says("it is the newest complete export of its group");
        assert_eq!(env.keys(), good);
    }
}

#[test]
fn the_same_bytes_that_were_put_after_the_list_was_shown_stay() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    let keys = env.keys();
    env.cloud.set_faults(vec![fault(
        "HeadObject",
        Effect::DelayBefore { milliseconds: 2000 },
    )]);
    let running = env.start(&ALL.split(' ').collect::<Vec<_>>());
    env.wait_until_begun("HeadObject", 1);
    env.cloud.change(|world| {
        let now = world.server_time();
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        for object in bucket.objects.values_mut() {
            object.last_modified = now + chrono::TimeDelta::seconds(5);
        }
    });
    running
        .wait()
        .ends_with(10)
        .says("another object stands there");
    assert_eq!(env.keys(), keys);
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);
}

#[test]
fn of_two_runs_at_once_the_second_waits_and_finds_all_gone() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.set_faults(vec![fault(
        "DeleteMultipleObjects",
        Effect::DelayBefore { milliseconds: 4000 },
    )]);
    let words: Vec<&str> = ALL.split(' ').collect();
    let first = env.start(&words);
    env.wait_until_begun("DeleteMultipleObjects", 1);
    let second = env.start(&words);
    let (first, second) = (first.wait(), second.wait());
    first.ends_with(0);
    second.ends_with(0).says("waiting for its end");
    assert!(env.keys().is_empty());
    assert_eq!(
        env.attempt_states().last().map(String::as_str),
        Some("removal removed")
    );
}

#[test]
fn a_run_that_was_killed_before_it_noted_anything_is_ended_by_the_next() {
    // Killed after the files are deleted, and after the record is, too.
    for (claim, deletes) in [("", 1), ("", 2), ("--no-claim", 1)] {
        let env = TestEnv::new();
        env.export("img-linux001", "p", claim);
        let id = env.export_id("p");
        env.cloud.set_faults(vec![Fault {
            key: None,
            occurrence: Some(deletes),
            ..fault(
                "DeleteMultipleObjects",
                Effect::DelayAfter {
                    milliseconds: 30_000,
                },
            )
        }]);
        let running = env.start(&["files", "rm", "--export-id", &id, "--yes"]);
        env.wait_until_begun("DeleteMultipleObjects", deletes);
        env.wait_for_keys_to_go("raw");
        if deletes == 2 {
            env.wait_for_keys_to_go("json");
        }
        running.signal("KILL");
        running.wait();
        env.cloud.set_faults(Vec::new());
        let line = format!("files rm --export-id {id} --yes");
        env.line(&format!("files rm --export-id {id} --dry-run"))
            .ends_with(0);
        let run = env.line(&line).ends_with(0);
        if deletes == 2 || !claim.is_empty() {
            run.says("it is deleted already");
        }
        assert!(env.keys().is_empty());
        let leases = env.attempt_states();
        let is_ended = |lease: &String| lease == "removal removed" || lease == "export complete";
        assert!(leases.iter().all(is_ended), "{leases:?}");
        assert!(
            leases.iter().any(|lease| lease == "removal removed"),
            "{leases:?}"
        );
        let status = env.line(&format!("status {id} --output json")).json();
        assert!(status["items"][0]["removed_at"].is_string(), "{status:#}");
    }
}

#[test]
fn a_record_whose_files_are_all_gone_goes_by_number_as_well() {
    let env = TestEnv::new();
    for prefix in ["p", "q"] {
        env.export("img-linux001", prefix, "");
        env.pass(3600);
    }
    let file = env
        .keys_of("q")
        .into_iter()
        .find(|key| key.ends_with("raw"));
    env.delete(&file.expect("a file"));
    env.line("files rm --bucket exports --keep-last 1 --yes")
        .ends_with(0);
    assert_eq!(env.keys(), env.keys_of("p"));
    assert_eq!(env.keys().len(), 2);
}

/// An export of a small disk whose download was killed in the middle.
fn half_fetched() -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let region = "ap-guangzhou".parse().expect("a region");
        let image = Image::linux("img-small".parse().expect("an id"), region, 1);
        world.add_image(image.with_system_disk(Disk::sample(5 << 20, "seed", "system")));
    });
    let running = env.start(&DOWNLOAD.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("GetObject", 12);
    running.signal("KILL");
    running.wait();
    env
}

#[test]
fn what_is_still_to_be_fetched_stays_for_a_week() {
    let env = half_fetched();
    let keys = env.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let mut other = TestEnv::new();
    other.borrow_cloud(&env);
    let wait = format!("wait {} --download", env.export_id("p"));
    env.line(ALL)
        .ends_with(3)
        .says("is still to be fetched: not all of its files have arrived")
        .says(&format!("`cvm-export {wait} DIR`"));
    let elsewhere = "wait --bucket exports-1250000000 --prefix p --id img-small --download";
    other
        .line(ALL)
        .ends_with(3)
        .says(&format!("`cvm-export {elsewhere} DIR`"));
    assert_eq!(env.keys(), keys);
    env.pass(8 * 86_400);
    other.line(&format!("{ALL} --dry-run")).ends_with(0);

    // Each machine ends the download by what it was told, and then all of them know.
    let env = half_fetched();
    other.borrow_cloud(&env);
    other.line(&format!("{elsewhere} d")).ends_with(0);
    other.line(&format!("{ALL} --dry-run")).ends_with(0);
    let env = half_fetched();
    env.line(&format!("wait {} --download d", env.export_id("p")))
        .ends_with(0);
    other.borrow_cloud(&env);
    other.line(ALL).ends_with(0);
    assert!(env.keys().is_empty());
}

#[test]
fn files_that_are_deleted_while_they_are_fetched_are_told_as_such() {
    let env = half_fetched();
    env.cloud.set_faults(vec![Fault {
        key: None,
        occurrence: None,
        ..fault("GetObject", Effect::DelayBefore { milliseconds: 300 })
    }]);
    let before = env.calls("GetObject");
    let running = env.start(&DOWNLOAD.split(' ').collect::<Vec<_>>());
    // The record is read first, and then the file.
    env.wait_for_calls("GetObject", before + 3);
    for key in env.keys() {
        env.delete(&key);
    }
    running
        .wait()
        .ends_with(8)
        .says("deleted or replaced while they were fetched");
}
