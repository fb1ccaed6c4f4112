//! `image --copy-to-bucket-region` and `--copy-shared`: copied once, exported once, deleted once, wherever
//! the run was killed.

mod doubt;
mod kills;

use cvm_export::simulator::{Effect, Image};
use serde_json::Value;

use crate::support::{TestEnv, fault, files_below, wait_until};

const ACROSS: &str = "image --id img-linux001 --bucket north --prefix p --poll-interval 100ms --copy-to-bucket-region";
const SHARED: &str =
    "image --id img-shared04 --bucket exports --prefix p --poll-interval 100ms --copy-shared";

/// The samples and a bucket in another region of the mainland; copies and exports are done at once.
fn world() -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.copy_seconds = Some(0.0);
        let region = "ap-beijing".parse().expect("a region");
        world.add_bucket("north-1250000000", region);
    });
    env
}

/// The copies that stand in the account, with their regions.
fn copies(env: &TestEnv) -> Vec<(String, String)> {
    env.cloud.change(|world| {
        let images = world.images.iter();
        let copies = images.filter(|image| image.name.starts_with("cvm-export-copy-"));
        copies
            .map(|image| (image.id.to_string(), image.region.to_string()))
            .collect()
    })
}

/// The records of copies in the journal.
fn records(env: &TestEnv) -> Vec<Value> {
    let files = files_below(&env.state_folder().join("copies"));
    let records = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "json"));
    records
        .filter_map(|(_, text)| serde_json::from_str(text).ok())
        .collect()
}

/// The states of the copies of the only record, after the one of the whole.
fn states(env: &TestEnv) -> Vec<String> {
    let Some(record) = records(env).pop() else {
        return Vec::new();
    };
    let steps = record["steps"].as_array().cloned().unwrap_or_default();
    let states = [record].into_iter().chain(steps);
    states
        .filter_map(|value| Some(value["state"].as_str()?.to_owned()))
        .collect()
}

fn wait_for_states(env: &TestEnv, expected: &[&str]) {
    wait_until(
        || format!("{expected:?}, {:?}", states(env)),
        || states(env) == expected,
    );
}

/// The calls that start or delete something, in their order.
fn changes(env: &TestEnv) -> Vec<String> {
    let calls = env.cloud.calls().into_iter().map(|call| call.operation);
    calls
        .filter(|call| {
            matches!(
                call.as_str(),
                "SyncImages" | "ExportImages" | "DeleteImages" | "PutBucket"
            )
        })
        .collect()
}

#[track_caller]
fn is_one_of_each(env: &TestEnv) {
    assert_eq!(
        changes(env),
        ["SyncImages", "ExportImages", "DeleteImages"],
        "what was started and deleted"
    );
    assert_eq!(copies(env), [], "copies that stand");
    assert_eq!(states(env), ["over", "removed"]);
    let (left, sources) = env.cloud.change(|world| {
        let sources = world.images.iter();
        let sources = sources.filter(|image| image.id.as_str() == "img-linux001");
        (world.snapshots_left.clone(), sources.count())
    });
    assert!(left.is_empty(), "snapshots that are paid for: {left:?}");
    assert_eq!(sources, 1, "the source is left alone");
}

fn start(env: &TestEnv, line: &str) -> crate::support::Running {
    env.start(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn an_image_of_another_region_is_copied_exported_and_the_copy_deleted() {
    for region in ["", " --region ap-guangzhou"] {
        let env = world();
        let run = env
            .line(&format!("{ACROSS}{region} --output json"))
            .ends_with(0)
            .says("a copy is being made from ap-guangzhou")
            .says("is deleted");
        is_one_of_each(&env);
        let json = run.json();
        assert_eq!(json["state"], "complete");
        assert_eq!(json["image_id"], "img-linux001");
        assert_eq!(json["region"], "ap-beijing");
        assert_eq!(json["copy"]["copied_from_region"], "ap-guangzhou");
        let copy = json["copy"]["image_id"].as_str().expect("the copy");
        let key = json["files"][0]["key"].as_str().expect("a key");
        assert!(key.starts_with(&format!("p_{copy}_system_snap-")), "{key}");
        // The record beside the files names both.
        let record = env.cloud.change(|world| {
            let object = world.object("north-1250000000", &format!("p_{copy}.cvm-export.json"));
            object.map(|object| object.content.size_bytes())
        });
        assert!(record.is_some(), "the record in the bucket");
        let exports = files_below(&env.state_folder().join("exports"));
        let record: Value = serde_json::from_str(&exports[0].1).expect("a record");
        assert_eq!(record["image_id"], copy);
        assert_eq!(record["copied_from"]["image_id"], "img-linux001");
        assert_eq!(record["copied_from"]["region"], "ap-guangzhou");
        assert_eq!(record["image_name"], "sample-linux001");
    }
}

#[test]
fn a_shared_image_becomes_a_custom_one_for_its_export() {
    let env = world();
    env.line("image --id img-shared04 --bucket exports --prefix p")
        .ends_with(3)
        .says("--copy-shared");
    assert_eq!(changes(&env), [""; 0]);
    let run = env
        .line(SHARED)
        .ends_with(0)
        .says("a custom copy is being made");
    assert!(run.stdout.starts_with("cos://exports-1250000000/p_img-"));
    is_one_of_each(&env);
    let shared = env
        .cloud
        .change(|world| world.image_mut("img-shared04").is_some());
    assert!(shared, "the shared image is left alone");
}

#[test]
fn a_shared_image_of_another_region_is_copied_twice_and_both_copies_go() {
    let env = world();
    let line = "image --id img-shared04 --bucket north --prefix p --poll-interval 100ms";
    env.line(&format!("{line} --copy-to-bucket-region"))
        .ends_with(3)
        .says("--copy-shared");
    assert_eq!(changes(&env), [""; 0]);
    env.line(&format!("{line} --copy-to-bucket-region --copy-shared"))
        .ends_with(0);
    assert_eq!(
        changes(&env),
        [
            "SyncImages",
            "SyncImages",
            "ExportImages",
            "DeleteImages",
            "DeleteImages"
        ]
    );
    assert_eq!(copies(&env), []);
}

#[test]
fn where_no_copy_is_needed_none_is_made() {
    let env = world();
    for flags in ["--copy-to-bucket-region", "--copy-shared"] {
        env.line(&format!(
            "image --id img-linux001 --bucket exports --prefix p{flags} {flags}"
        ))
        .ends_with(0);
    }
    assert_eq!(changes(&env), ["ExportImages", "ExportImages"]);
}

#[test]
fn without_the_flags_the_checks_name_them() {
    let env = world();
    env.line("image --id img-linux001 --bucket north --prefix p --region ap-guangzhou")
        .ends_with(3)
        .says("--copy-to-bucket-region");
    env.line("image --id img-linux001 --bucket north --prefix p")
        .ends_with(3)
        .says("--copy-to-bucket-region");
    assert_eq!(changes(&env), [""; 0]);
}

#[test]
fn the_clouds_limits_on_copies_are_checked_before_anything_is_sent() {
    type Change = fn(&TestEnv);
    let cases: [(&str, &str, &str, Change); 6] = [
        ("img-linux001", "far", "mainland", |_| ()),
        ("img-multi002", "north", "2 data disks", |_| ()),
        ("img-linux001", "north", "500 custom images of 500", |env| {
            env.cloud.change(|world| {
                let region: cvm_export::model::Region = "ap-beijing".parse().expect("a region");
                for number in 0..500 {
                    let id = format!("img-full{number}").parse().expect("an id");
                    world.add_image(Image::linux(id, region.clone(), 10));
                }
            });
        }),
        ("img-linux001", "north", "SYNCING", |env| {
            env.cloud.change(|world| {
                let image = world.image_mut("img-linux001").expect("the sample");
                image.state = "SYNCING".to_owned();
            });
        }),
        ("img-window03", "north", "Windows", |_| ()),
        ("img-nowhere1", "north", "no region has an image", |_| ()),
    ];
    for (image, bucket, said, change) in cases {
        let env = world();
        change(&env);
        env.line(&format!(
            "image --id {image} --bucket {bucket} --prefix p --copy-to-bucket-region"
        ))
        .ends_with(3)
        .says(said)
        .says("nothing was submitted");
        assert_eq!(changes(&env), [""; 0], "{image} to {bucket}");
        assert_eq!(records(&env), [Value::Null; 0], "{image} to {bucket}");
    }
}

#[test]
fn a_region_that_is_not_known_stops_the_copy_unless_the_check_is_skipped() {
    let env = world();
    env.cloud.change(|world| {
        let region = "ap-newland".parse().expect("a region");
        world.add_bucket("new-1250000000", region);
    });
    let line = "image --id img-linux001 --bucket new --prefix p --copy-to-bucket-region";
    env.line(line)
        .ends_with(4)
        .says("image-copy")
        .says("ap-newland");
    assert_eq!(changes(&env), [""; 0]);
    env.line(&format!("{line} --skip-check image-copy"))
        .ends_with(5)
        .says("InvalidRegion.NotFound");
    assert_eq!(changes(&env), ["SyncImages"]);
    // What the cloud refused is not in the way of the next run.
    env.line(&format!("{line} --skip-check image-copy"))
        .ends_with(5);
}

#[test]
fn dry_runs_and_checks_change_nothing() {
    let env = world();
    env.line(&format!("{ACROSS} --dry-run"))
        .ends_with(0)
        .says("nothing was submitted");
    env.line(&format!("{SHARED} --dry-run")).ends_with(0);
    let run = env
        .line("check --id img-linux001 --bucket north --prefix p --copy-to-bucket-region")
        .ends_with(0);
    assert!(run.stdout.contains("image-copy"), "{}", run.stdout);
    env.line("check --id img-shared04 --bucket exports --copy-shared")
        .ends_with(0);
    env.line("check --id img-linux001 --bucket far --copy-to-bucket-region")
        .ends_with(3);
    assert_eq!(changes(&env), [""; 0]);
    assert_eq!(records(&env), [Value::Null; 0]);
}

#[test]
fn what_it_takes_is_said_once_and_before_the_copy_is_begun() {
    let line = "img-linux001: 50.00 GiB stored in STANDARD of ap-beijing";
    let env = world();
    let run = env.line(ACROSS).ends_with(0).says(line);
    let (said, copied) = (
        run.stderr.find(line),
        run.stderr.find("a copy is being made"),
    );
    assert!(said < copied, "{}", run.stderr);
    assert_eq!(
        run.stderr.matches(" stored in ").count(),
        1,
        "{}",
        run.stderr
    );

    let env = world();
    env.line(&format!("{ACROSS} --max-cost 0.01"))
        .ends_with(3)
        .says(line)
        .says("cost: it may cost 1.3");
    assert_eq!(changes(&env), [""; 0]);
}

#[test]
fn a_name_of_the_image_in_the_prefix_is_found_in_its_own_region() {
    let env = world();
    let line = ACROSS.replace("--prefix p", "--prefix {image_name}");
    let run = env.line(&line).ends_with(0);
    assert!(
        run.stdout.contains("/sample-linux001_img-"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_lost_answer_to_the_copy_is_found_by_its_name_and_never_sent_again() {
    for effect in [
        Effect::ProcessedThenReset,
        Effect::StatusAfter { status: 502 },
        Effect::MissingField {
            name: "ImageSet".to_owned(),
        },
    ] {
        let env = world();
        env.cloud.set_faults(vec![fault("SyncImages", effect)]);
        env.line(ACROSS).ends_with(0);
        is_one_of_each(&env);
    }
}

#[test]
fn a_copy_that_never_shows_ends_as_unknown_and_is_given_up_on_request_only() {
    let env = world();
    env.cloud
        .set_faults(vec![fault("SyncImages", Effect::ResetBefore)]);
    for _ in 0..2 {
        env.line(&format!("{ACROSS} --timeout 400ms"))
            .ends_with(11)
            .says("it is unknown whether the copy of image `img-linux001` was started");
        assert_eq!(changes(&env), ["SyncImages"]);
    }
    env.line(&format!("{ACROSS} --resubmit")).ends_with(0);
    assert_eq!(
        changes(&env),
        ["SyncImages", "SyncImages", "ExportImages", "DeleteImages"]
    );
    assert_eq!(copies(&env), []);
}

#[test]
fn a_copy_of_which_this_journal_knows_nothing_stops_the_run() {
    let mut env = world();
    env.cloud.change(|world| world.copy_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 300ms")).ends_with(6);
    env.lose_home();
    let (copy, _) = copies(&env).remove(0);
    env.line(ACROSS)
        .ends_with(3)
        .says(&copy)
        .says("tccli cvm DeleteImages --region ap-beijing");
    assert_eq!(changes(&env), ["SyncImages"]);
}

#[test]
fn a_timeout_and_a_signal_leave_the_copy_to_the_next_run() {
    let env = world();
    env.cloud.change(|world| world.copy_seconds = Some(1e6));
    let run = env
        .line(&format!("{ACROSS} --timeout 300ms --output json"))
        .ends_with(6)
        .says("the same command run again goes on");
    assert_eq!(run.json()["state"], "running");
    assert!(run.json()["export_id"].is_null());
    let looks = env.calls("DescribeImages");
    let running = start(&env, ACROSS);
    env.wait_for_calls("DescribeImages", looks + 2);
    running.signal("INT");
    running
        .wait()
        .ends_with(130)
        .says("the same command run again goes on")
        .says("the same command run again goes on with it");
    env.line("status")
        .ends_with(0)
        .says("is being made in ap-beijing");
    env.cloud.change(|world| {
        let mut images = world.images.iter_mut();
        let copy = images.find(|image| image.name.starts_with("cvm-export-copy-"));
        copy.expect("the copy").state = "NORMAL".to_owned();
    });
    env.line(ACROSS).ends_with(0);
    is_one_of_each(&env);
}

#[test]
fn a_copy_that_fails_in_the_cloud_is_a_failure_that_may_be_run_again() {
    let env = world();
    env.cloud.change(|world| world.copies_fail = true);
    env.line(ACROSS)
        .ends_with(7)
        .says("CREATEFAILED")
        .says("safe to run the export again")
        .says("tccli cvm DeleteImages");
    assert_eq!(changes(&env), ["SyncImages"]);
    env.cloud.change(|world| world.copies_fail = false);
    env.line(ACROSS).ends_with(0);
    assert_eq!(
        changes(&env),
        ["SyncImages", "SyncImages", "ExportImages", "DeleteImages"]
    );
    assert_eq!(copies(&env).len(), 1, "the failed one, which was named");
}

#[test]
fn the_copy_is_deleted_only_after_a_complete_export() {
    let env = world();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 1500ms"))
        .ends_with(6)
        .says("stands in ap-beijing");
    assert_eq!(copies(&env).len(), 1);
    assert_eq!(env.calls("DeleteImages"), 0);
    env.cloud.change(|world| {
        world.settle();
        world.finish_exports();
    });
    env.line(ACROSS).ends_with(0);
    is_one_of_each(&env);
}

#[test]
fn a_wait_that_sees_the_export_complete_deletes_the_copy() {
    let env = world();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 1500ms")).ends_with(6);
    env.cloud.change(|world| world.finish_exports());
    let exports = files_below(&env.state_folder().join("exports"));
    let record: Value = serde_json::from_str(&exports[0].1).expect("a record");
    let export_id = record["export_id"].as_str().expect("an id");
    env.line(&format!("wait {export_id}"))
        .ends_with(0)
        .says("is deleted");
    is_one_of_each(&env);
}

#[test]
fn a_deletion_that_is_refused_is_a_warning_with_its_command_and_tried_again() {
    let env = world();
    env.cloud
        .change(|world| world.denied.insert("DeleteImages".to_owned()));
    let run = env
        .line(&format!("{ACROSS} --output json"))
        .ends_with(0)
        .says("was not deleted")
        .says("tccli cvm DeleteImages --region ap-beijing --ImageIds");
    let warnings = run.json()["warnings"].to_string();
    assert!(warnings.contains("tccli cvm DeleteImages"), "{warnings}");
    // Every later run says it again, whether the export is its result or in its way.
    env.line(ACROSS).ends_with(0).says("was not deleted");
    env.line(&format!("{ACROSS} --if-exists fail"))
        .ends_with(3)
        .says("was not deleted")
        .says("was exported by a copy already");
    env.cloud.change(|world| world.denied.clear());
    env.line(ACROSS).ends_with(0);
    assert_eq!(copies(&env), []);
    env.assert_submits(1);
}

#[test]
fn an_image_that_is_not_proven_to_be_the_copy_is_never_deleted() {
    let env = world();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 1500ms")).ends_with(6);
    let (copy, _) = copies(&env).remove(0);
    env.cloud.change(|world| {
        world.finish_exports();
        let image = world.image_mut(&copy).expect("the copy");
        image.name = "somebody needs this".to_owned();
    });
    env.line(ACROSS)
        .ends_with(0)
        .says("it is called `somebody needs this` now");
    assert_eq!(env.calls("DeleteImages"), 0);
}

#[test]
fn an_export_by_a_copy_that_is_done_counts_for_if_exists() {
    let env = world();
    let first = env.line(ACROSS).ends_with(0);
    env.line(&format!("{ACROSS} --if-exists fail"))
        .ends_with(3)
        .says("was exported by a copy already")
        .says("--if-exists");
    env.line(ACROSS).ends_with(0).prints(&first.stdout);
    is_one_of_each(&env);
    let again = env
        .line(&format!("{ACROSS} --if-exists overwrite --yes"))
        .ends_with(0);
    assert_ne!(again.stdout, first.stdout);
    assert_eq!(env.calls("SyncImages"), 2);
    assert_eq!(copies(&env), []);
}

#[test]
fn a_damaged_record_of_the_same_copy_and_no_place_for_one_stop_the_run() {
    let mut env = world();
    env.cloud.change(|world| world.copy_seconds = Some(1e6));
    env.line(&format!("{ACROSS} --timeout 300ms")).ends_with(6);
    let records = files_below(&env.state_folder().join("copies"));
    std::fs::write(&records[0].0, "{ torn").expect("a file");
    env.line(ACROSS).ends_with(9).says("cannot be read");
    assert_eq!(changes(&env), ["SyncImages"]);

    env = world();
    std::fs::create_dir_all(env.state_folder()).expect("a folder");
    std::fs::write(env.state_folder().join("copies"), "a file").expect("a file");
    env.line(ACROSS).ends_with(9).says("nothing was submitted");
    assert_eq!(changes(&env), [""; 0]);
}

#[test]
fn two_runs_at_once_copy_and_export_once_and_both_get_the_files() {
    let env = world();
    env.cloud.change(|world| {
        (world.copy_seconds, world.export_seconds) = (Some(0.5), Some(0.5));
    });
    let runs: Vec<_> = (0..2).map(|_| start(&env, ACROSS)).collect();
    let outputs: Vec<String> = runs
        .into_iter()
        .map(|running| running.wait().ends_with(0).stdout)
        .collect();
    assert_eq!(outputs[0], outputs[1]);
    is_one_of_each(&env);
}

#[test]
fn the_files_of_a_copy_are_downloaded_like_any_others() {
    let env = world();
    env.cloud.change(|world| {
        let image = world.image_mut("img-linux001").expect("the sample");
        *image = Image::linux(image.id.clone(), image.region.clone(), 1);
    });
    env.line(&format!("{ACROSS} --download disks"))
        .ends_with(0)
        .says("verified");
    is_one_of_each(&env);
    let names: Vec<String> = files_below(&env.home.path().join("disks"))
        .into_iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(names.iter().any(|name| name.ends_with(".raw")), "{names:?}");
}

#[test]
fn the_flags_that_cannot_go_together_are_refused() {
    let env = world();
    for line in [
        format!("{ACROSS} --no-wait"),
        format!("{SHARED} --no-wait"),
        format!("{ACROSS} --create-bucket"),
    ] {
        env.line(&line).ends_with(2).says("cannot be used with");
    }
    let policy = |flags: &str| {
        let line = format!("check --bucket north --print-policy{flags}");
        env.line(&line).ends_with(0).stdout
    };
    let rights = [
        "cvm:SyncImages",
        "cvm:DeleteImages",
        "cvm:DescribeImageQuota",
    ];
    let plain = policy("");
    assert!(rights.iter().all(|right| !plain.contains(right)), "{plain}");
    for flag in [" --copy-shared", " --copy-to-bucket-region"] {
        let policy = policy(flag);
        assert!(
            rights.iter().all(|right| policy.contains(right)),
            "{policy}"
        );
    }
}

#[test]
fn a_rehearsal_copies_a_shared_image() {
    let env = TestEnv::new();
    env.line(
        "image --simulate --id img-shared04 --bucket b --prefix p --copy-shared --timeout 100s",
    )
    .ends_with(0)
    .says("is deleted");
}
