//! The same command again: an image never changes, so files that are proven to be its export are the result.

use cvm_export::simulator::{Disk, Image, Naming, Options};
use serde_json::Value;

use crate::support::{Run, TestEnv};

const BUCKET: &str = "exports-1250000000";
const LINUX: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
const MULTI: &str = "image --id img-multi002 --bucket exports --prefix p --poll-interval 100ms";

/// A world in which the cloud names files as the console does.
fn console_naming() -> TestEnv {
    let env = TestEnv::with(Options {
        naming: Naming::Console,
        ..Options::default()
    });
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    env
}

/// What `line` comes to as JSON, on a run that ends well.
#[track_caller]
fn result(env: &TestEnv, line: &str) -> Value {
    env.line(&format!("{line} --output json"))
        .ends_with(0)
        .json()
}

/// The keys of exported files in the bucket.
fn files(env: &TestEnv) -> Vec<String> {
    let mut keys = env.cloud.change(|world| world.keys(BUCKET));
    keys.retain(|key| !key.contains(".cvm-export."));
    keys
}

/// Takes the objects away for which `is_gone` holds.
fn remove(env: &TestEnv, is_gone: impl Fn(&str) -> bool) {
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the sample");
        bucket.objects.retain(|key, _| !is_gone(key));
    });
}

/// Neither this machine nor the bucket knows more than the files themselves.
fn lose_all_records(env: &mut TestEnv) {
    env.lose_home();
    remove(env, |key| key.contains(".cvm-export."));
}

/// `line` takes the files of `first` as they stand, and nothing is submitted or written for it.
#[track_caller]
fn assert_reused(env: &TestEnv, line: &str, first: &Value) {
    let (submits, keys) = (env.calls("ExportImages"), files(env));
    let again = result(env, line);
    assert_eq!(again["schema"], "cvm-export.export.v1");
    assert_eq!(again["state"], "complete");
    assert_eq!(again["reused"], true);
    assert_eq!(again["image_id"], first["image_id"]);
    assert_eq!(again["files"], first["files"]);
    env.assert_submits(submits);
    assert_eq!(files(env), keys);
}

/// `line` is refused by exit 3, and nothing is submitted.
#[track_caller]
fn assert_refused(env: &TestEnv, line: &str) -> Run {
    let submits = env.calls("ExportImages");
    let run = env.line(line).ends_with(3).prints("");
    env.assert_submits(submits);
    run.says("name-collision").says("nothing was submitted")
}

#[test]
fn the_same_command_after_success_is_a_success_on_every_machine() {
    for line in [LINUX, MULTI] {
        let mut env = TestEnv::new();
        let first = result(&env, line);
        assert_eq!(first["reused"], false);
        assert_reused(&env, line, &first);
        // A fresh runner, which has the bucket's record alone.
        env.lose_home();
        assert_reused(&env, line, &first);
        assert_reused(&env, line, &first);
        env.assert_submits(1);
        let text = env.line(line).ends_with(0).says("already exported");
        let keys = first["files"].as_array().expect("files").iter();
        let keys =
            keys.map(|file| format!("cos://{BUCKET}/{}\n", file["key"].as_str().expect("a key")));
        assert_eq!(text.stdout, keys.collect::<String>());
    }
}

#[test]
fn a_record_proves_files_under_the_names_of_the_console() {
    let mut env = console_naming();
    let first = result(&env, LINUX);
    assert_eq!(first["files"][0]["key"], "p_xvda.raw");
    assert_reused(&env, LINUX, &first);
    env.lose_home();
    assert_reused(&env, LINUX, &first);
    // Without one nothing says whose they are.
    lose_all_records(&mut env);
    drop(assert_refused(&env, LINUX).says("`p_xvda.raw` does not say which image it is of"));
}

#[test]
fn without_a_record_the_names_of_the_cloud_and_the_sizes_of_the_disks_prove_an_export() {
    for line in [LINUX, MULTI] {
        let mut env = TestEnv::new();
        let first = result(&env, line);
        lose_all_records(&mut env);
        assert_reused(&env, line, &first);
        env.assert_submits(1);
    }
    // The size of a compressed file is not the disk's, so its name must do.
    let mut env = TestEnv::new();
    let line = format!("{LINUX} --format qcow2");
    let first = result(&env, &line);
    lose_all_records(&mut env);
    assert_reused(&env, &line, &first);
}

#[test]
fn a_file_of_another_size_proves_nothing_and_both_sizes_are_named() {
    let mut env = TestEnv::new();
    env.line(LINUX).ends_with(0);
    let key = files(&env).remove(0);
    lose_all_records(&mut env);
    env.cloud
        .change(|world| world.put_object(BUCKET, &key, "hello"));
    let size = format!("`{key}` has 5 bytes, and its disk {}", 50_u64 << 30);
    drop(assert_refused(&env, LINUX).says(&size));
}

#[test]
fn another_file_in_place_of_a_recorded_one_is_not_the_result() {
    let mut env = TestEnv::new();
    let first = result(&env, LINUX);
    let (key, id) = (&first["files"][0]["key"], &first["export_id"]);
    let key = key.as_str().expect("a key");
    env.cloud
        .change(|world| world.put_object(BUCKET, key, "another"));
    let problem = format!(
        "other files than those that export `{}` recorded",
        id.as_str().expect("an id")
    );
    drop(assert_refused(&env, LINUX).says(&problem));
    env.lose_home();
    drop(assert_refused(&env, LINUX).says(&problem));
    // Where all of it is gone, there is nothing to reuse, and nothing in the way.
    remove(&env, |name| name == key);
    assert_eq!(result(&env, LINUX)["reused"], false);
    env.assert_submits(2);
}

#[test]
fn a_part_of_the_disks_is_not_the_image() {
    let mut env = TestEnv::new();
    env.line(MULTI).ends_with(0);
    let last = files(&env).pop().expect("three files");
    remove(&env, |name| name == last);
    drop(assert_refused(&env, MULTI).says("other files than those that export"));
    lose_all_records(&mut env);
    drop(assert_refused(&env, MULTI).says("2 of 3 files are there"));

    // An export of the system disk alone is not one of all disks; the other way round it is.
    let alone = format!("{MULTI} --system-disk-only");
    let env = TestEnv::new();
    env.line(&alone).ends_with(0);
    drop(assert_refused(&env, MULTI));
    let env = TestEnv::new();
    env.line(MULTI).ends_with(0);
    assert_eq!(result(&env, &alone)["reused"], true);
    env.assert_submits(1);
}

#[test]
fn a_download_that_is_missing_is_made() {
    const BYTES: u64 = 5 << 20;
    let mut env = TestEnv::new();
    env.cloud.change(|world| {
        let region = "ap-guangzhou".parse().expect("a region");
        let image = Image::linux("img-small".parse().expect("an id"), region, 1);
        world.add_image(image.with_system_disk(Disk::sample(BYTES, "seed", "system")));
    });
    let line = "image --id img-small --bucket exports --prefix p --poll-interval 100ms";
    env.line(line).ends_with(0);
    let download = format!("{line} --download here");
    // On this machine, again once the file was lost, and on a fresh one.
    for is_fresh in [false, false, true] {
        if is_fresh {
            env.lose_home();
        }
        let run = result(&env, &download);
        assert_eq!(run["reused"], true);
        let path = run["files"][0]["local_path"].as_str().expect("a path");
        let path = env.home.path().join(path);
        assert_eq!(std::fs::metadata(&path).expect("a file").len(), BYTES);
        // Once it is there, it is the result as well.
        env.line(&download).ends_with(0);
        std::fs::remove_file(&path).expect("removed");
    }
    env.assert_submits(1);
}

#[test]
fn without_leases_the_journal_or_the_names_prove_the_export() {
    let mut env = TestEnv::new();
    let line = format!("{LINUX} --no-claim");
    let first = result(&env, &line);
    assert_reused(&env, &line, &first);
    env.lose_home();
    assert_reused(&env, &line, &first);
    assert_eq!(env.calls("PutObject"), 0);
}

#[test]
fn what_has_gone_from_the_account_since_is_not_needed_for_files_that_are_there() {
    let mut env = TestEnv::new();
    let first = result(&env, LINUX);
    env.cloud.change(|world| world.roles.clear());
    assert_reused(&env, LINUX, &first);
    env.cloud.change(|world| {
        world
            .images
            .retain(|image| image.id.as_str() != "img-linux001");
    });
    assert_reused(&env, LINUX, &first);
    env.lose_home();
    assert_reused(&env, LINUX, &first);
    env.assert_submits(1);
    // For what is not there, they are.
    env.line(&LINUX.replace("--prefix p", "--prefix q"))
        .ends_with(3);
}

#[test]
fn a_check_passes_and_says_that_it_is_exported_already() {
    let mut env = TestEnv::new();
    env.line(LINUX).ends_with(0);
    for _ in 0..2 {
        let report = result(&env, "check --id img-linux001 --bucket exports --prefix p");
        let findings = report["findings"].as_array().expect("findings");
        let found = findings
            .iter()
            .find(|finding| finding["check"] == "name-collision")
            .expect("the check of the names");
        assert_eq!(found["verdict"], "pass", "{found}");
        let evidence = found["evidence"].as_str().expect("words");
        assert!(evidence.contains("already exported"), "{evidence}");
        assert_eq!(report["exportable"], true);
        env.lose_home();
    }
}

#[test]
fn a_dry_run_reuses_nothing() {
    let env = TestEnv::new();
    env.line(LINUX).ends_with(0);
    let run = result(&env, &format!("{LINUX} --dry-run"));
    assert_eq!(run["state"], "checked");
    assert_eq!(run["reused"], false);
    assert!(run["export_id"].is_null());
    assert!(env.cloud.change(|world| world.started_tasks().len() == 1));
}

#[test]
fn to_fail_and_to_overwrite_are_asked_for() {
    let env = TestEnv::new();
    env.line(LINUX).ends_with(0);
    drop(assert_refused(&env, &format!("{LINUX} --if-exists fail")));
    let line = format!("{LINUX} --if-exists overwrite");
    env.line(&line)
        .ends_with(2)
        .prints("")
        .says("nothing was submitted")
        .says("--yes");
    env.assert_submits(1);
    assert_eq!(result(&env, &format!("{line} --yes"))["reused"], false);
    env.assert_submits(2);
}

#[test]
fn several_images_count_what_was_there_before() {
    let env = TestEnv::new();
    let line = |ids: &str| format!("image --id {ids} --bucket exports --prefix x-{{image_id}}");
    env.line(&line("img-multi002")).ends_with(0);
    let run = result(&env, &line("img-linux001,img-multi002"));
    let reused = |place: usize| run["items"][place]["reused"].as_bool();
    assert_eq!((reused(0), reused(1)), (Some(false), Some(true)));
    assert_eq!(run["totals"]["complete"], 2);
    assert_eq!(run["totals"]["reused"], 1);
    let told = env.line(&line("img-linux001,img-multi002")).ends_with(0);
    drop(told.says("2 reused"));
    env.assert_submits(2);
}
