//! `files rm --abort-uploads`: uploads of dead exports go, those that may be alive stay.

use cvm_export::simulator::{Effect, Fault, derived_snapshot_id};

use super::BUCKET;
use crate::support::{TestEnv, fault};

const ABORT: &str = "files rm --bucket exports --abort-uploads";
const DAY: i64 = 86_400;

/// The API's name of the system disk of `img-linux001`.
fn system_disk(prefix: &str) -> String {
    let image_id = "img-linux001".parse().expect("an id");
    let snapshot_id = derived_snapshot_id(&image_id, 0);
    format!("{prefix}_img-linux001_system_{snapshot_id}.raw")
}

impl TestEnv {
    fn leave(&self, key: &str) {
        self.cloud
            .change(|world| world.leave_upload(BUCKET, key, 1 << 30));
    }

    fn uploads(&self) -> Vec<String> {
        self.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            bucket.upload_keys()
        })
    }
}

#[test]
fn an_upload_that_rests_for_days_and_is_an_exports_goes() {
    let env = TestEnv::new();
    env.leave(&system_disk("p"));
    env.leave("q_xvda.raw");
    env.leave("holiday.iso");
    env.leave("p_img-linux001_system_snap-other.raw");
    env.line(&format!("{ABORT} --yes"))
        .ends_with(0)
        .says("may be of an export that runs")
        .says("nothing to delete");
    env.pass(3 * DAY);
    env.line(ABORT)
        .ends_with(2)
        .says("will abort the upload of")
        .says("1.00 GiB");
    let run = env.line(&format!("{ABORT} --dry-run")).ends_with(0);
    assert!(
        run.stdout.contains("nothing proves that it is an export's"),
        "{}",
        run.stdout
    );
    assert_eq!(env.uploads().len(), 4);
    let report = env
        .line(&format!("{ABORT} --yes --output json"))
        .ends_with(0)
        .json();
    assert_eq!(report["schema"], "cvm-export.aborted-uploads.v1");
    assert_eq!(report["freed_bytes"], 1_u64 << 30);
    assert_eq!(report["uploads"][0]["state"], "deleted");
    let mut left = [
        "holiday.iso",
        "p_img-linux001_system_snap-other.raw",
        "q_xvda.raw",
    ];
    left.sort_unstable();
    assert_eq!(env.uploads(), left);
}

#[test]
fn what_uploads_hold_and_cost_is_told_and_is_in_the_sum() {
    const LIST: &str = "files --bucket exports";
    let env = TestEnv::new();
    env.leave(&system_disk("p"));
    env.leave("q_xvda.raw");
    env.leave("holiday.iso");
    // 2 × 1 GiB × 0.024; what is nobody's export is none of this.
    let run = env
        .line(LIST)
        .ends_with(0)
        .says("2 unfinished uploads under names of exports (2.00 GiB)")
        .says("with 0.048 USD a month")
        .says("cost 0.048 USD a month to keep; not counted: records, older versions and other objects");
    assert_eq!(run.stdout, "");
    let json = env
        .line(&format!("{LIST} --output json"))
        .ends_with(0)
        .json();
    let upload = &json["buckets"][0]["unfinished_uploads"][0];
    assert_eq!(upload["size_bytes"], 1_u64 << 30);
    assert_eq!(upload["storage_class"], "STANDARD");
    assert_eq!(upload["cost_per_month"]["high"], "0.024");
    assert_eq!(json["cost_per_month"]["high"], "0.048");

    env.export("img-linux001", "r", "");
    env.cloud.change(|world| {
        world.denied.insert("ListParts".to_owned());
    });
    let run = env
        .line(LIST)
        .ends_with(0)
        .says("(size unknown: ")
        .says("the known part at least 1.20 USD");
    assert!(!run.stderr.contains("0.00 USD"), "{}", run.stderr);
    let json = env
        .line(&format!("{LIST} --output json"))
        .ends_with(0)
        .json();
    let upload = &json["buckets"][0]["unfinished_uploads"][0];
    assert_eq!(upload["size_bytes"], serde_json::Value::Null);
    assert_eq!(json["cost_per_month"]["high"], serde_json::Value::Null);
    assert_eq!(json["cost_per_month"]["known_part_at_least"], "1.20");
}

#[test]
fn no_more_than_a_hundred_uploads_are_weighed() {
    let env = TestEnv::new();
    for number in 0..101 {
        env.leave(&format!("p{number:03}_xvda.raw"));
    }
    env.line("files --bucket exports")
        .ends_with(0)
        .says("101 unfinished uploads")
        .says("(100.00 GiB, and 1 of unknown size: only the first 100 are looked at)");
    assert_eq!(env.calls("ListParts"), 100);
}

#[test]
fn an_upload_of_a_running_export_is_never_touched() {
    let mut env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(1e6));
    env.export("img-linux001", "p", "--no-wait");
    // Long, and not so long that the export can not be running.
    env.pass(25 * 3600);
    env.line(&format!("{ABORT} --older-than 1h --yes"))
        .ends_with(0)
        .says("runs");
    env.lose_home();
    env.line(&format!("{ABORT} --older-than 1h --yes"))
        .ends_with(0)
        .says("runs");
    env.line(&format!("{ABORT} --older-than 1m --yes"))
        .ends_with(2)
        .says("the least is 1h");
    env.line("files rm --bucket exports --keep-last 0 --yes")
        .ends_with(2)
        .says("`0` is not a number of exports: it must be 1 or more");
    assert_eq!(env.uploads().len(), 1);
    // By now it would have ended, or been given up by whoever waited.
    env.pass(10 * DAY);
    env.line(&format!("{ABORT} --yes")).ends_with(0);
    assert!(env.uploads().is_empty());
}

#[test]
fn an_upload_under_the_other_name_of_a_complete_file_is_nobodys() {
    let env = TestEnv::new();
    for (prefix, flags) in [("p", ""), ("q", "--no-wait")] {
        env.export("img-linux001", prefix, flags);
        env.cloud.change(|world| world.finish_exports());
        env.pass(60);
        env.leave(&format!("{prefix}_xvda.raw"));
    }
    env.pass(30 * DAY);
    env.line(&format!("{ABORT} --yes"))
        .ends_with(0)
        .says("nobody knows whose it is")
        .says("nothing to delete");
    assert_eq!(env.uploads().len(), 2);
    // It says nothing of the export, whose files it does not write.
    let rm = "files rm --bucket exports --older-than 0s --include-newest --yes";
    env.line(rm).ends_with(0);
    assert!(env.keys().is_empty());

    env.export("img-linux001", "r", "");
    let keys = env.keys();
    env.leave(&system_disk("r"));
    env.line(rm).ends_with(3).says("is unfinished");
    assert_eq!(env.keys(), keys);
}

#[test]
fn an_upload_that_grows_meanwhile_stays() {
    let env = TestEnv::new();
    env.leave(&system_disk("p"));
    env.pass(3 * DAY);
    // What the second look shows has other parts than the first one.
    env.cloud.set_faults(vec![fault(
        "ListParts",
        Effect::MissingField {
            name: "Part".to_owned(),
        },
    )]);
    env.line(&format!("{ABORT} --yes"))
        .ends_with(10)
        .says("it has grown meanwhile");
    assert_eq!(env.uploads().len(), 1);
}

#[test]
fn a_lost_answer_and_a_missing_right_are_survived() {
    let env = TestEnv::new();
    env.leave(&system_disk("p"));
    env.pass(3 * DAY);
    env.cloud.change(|world| {
        world.denied.insert("AbortMultipartUpload".to_owned());
    });
    env.line(&format!("{ABORT} --yes"))
        .ends_with(10)
        .says("stays");
    env.cloud.change(|world| world.denied.clear());
    env.cloud.set_faults(vec![fault(
        "AbortMultipartUpload",
        Effect::ProcessedThenReset,
    )]);
    env.line(&format!("{ABORT} --yes")).ends_with(0);
    assert!(env.uploads().is_empty());
}

#[test]
fn one_upload_whose_parts_cannot_be_listed_keeps_no_other() {
    for occurrence in [1, 3] {
        let env = TestEnv::new();
        env.leave(&system_disk("p"));
        env.leave(&system_disk("q"));
        env.pass(3 * DAY);
        // Each is looked at twice: for the plan, and just before it is given up.
        env.cloud.set_faults(vec![Fault {
            key: None,
            occurrence: Some(occurrence),
            ..fault(
                "ListParts",
                Effect::CosError {
                    status: 403,
                    code: "AccessDenied".to_owned(),
                },
            )
        }]);
        let run = env
            .line(&format!("{ABORT} --yes --output json"))
            .ends_with(10)
            .says("stays: COS refused List Parts (AccessDenied");
        let report = run.json();
        assert_eq!(report["state"], "incomplete");
        let uploads = report["uploads"].as_array().expect("uploads");
        let mut states: Vec<_> = uploads.iter().map(|it| it["state"].as_str()).collect();
        states.sort_unstable();
        assert_eq!(states, [Some("deleted"), Some("failed")]);
        assert_eq!(env.uploads().len(), 1);
        env.cloud.set_faults(Vec::new());
        env.line(&format!("{ABORT} --yes")).ends_with(0);
        assert!(env.uploads().is_empty());
    }
}

#[test]
fn a_list_of_uploads_that_does_not_come_is_no_missing_right() {
    let env = TestEnv::new();
    let all = "files rm --bucket exports --older-than 0s --include-newest --yes";
    let abort = format!("{ABORT} --yes");
    env.cloud.set_faults(vec![Fault {
        key: None,
        occurrence: None,
        ..fault("ListMultipartUploads", Effect::ResetBefore)
    }]);
    for line in [all, &abort] {
        env.line(line)
            .ends_with(1)
            .says("could not be")
            .does_not_say("allow `name/cos");
    }
    env.cloud.set_faults(Vec::new());
    env.cloud.change(|world| {
        world.denied.insert("ListMultipartUploads".to_owned());
    });
    for line in [all, &abort] {
        env.line(line)
            .ends_with(4)
            .says("allow `name/cos:ListMultipartUploads`");
    }
}

#[test]
fn where_a_record_cannot_be_read_its_upload_stays() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(1e9));
    env.export("img-linux001", "p", "--no-wait");
    let mut other = TestEnv::new();
    other.borrow_cloud(&env);
    let hour = format!("{ABORT} --older-than 1h --yes");
    // One that a newer version has written, and one that may not be read.
    let claim = "p_img-linux001.cvm-export.json";
    env.cloud.change(|world| {
        world.put_object(BUCKET, claim, r#"{"schema":"cvm-export.export.v9"}"#);
    });
    env.pass(2 * 3_600);
    for _ in 0..2 {
        other
            .line(&hour)
            .ends_with(0)
            .says("cannot be read, so its export may run");
        assert_eq!(env.uploads().len(), 1);
        env.cloud
            .change(|world| world.denied.insert("GetObject".to_owned()));
    }
}
