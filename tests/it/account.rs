//! `check` without an image: the account's own checks.

use cvm_export::model::CheckName;
use cvm_export::simulator::Effect;
use serde_json::Value;

use crate::support::{TestEnv, fault};

fn names(json: &Value) -> Vec<&str> {
    let findings = json["findings"].as_array().expect("findings");
    findings
        .iter()
        .map(|finding| finding["check"].as_str().expect("a name"))
        .collect()
}

/// The verdict and the evidence of `check`.
#[track_caller]
fn finding(json: &Value, check: CheckName) -> (String, String) {
    let findings = json["findings"].as_array().expect("findings");
    let found = findings
        .iter()
        .find(|finding| finding["check"] == check.as_str())
        .unwrap_or_else(|| panic!("{check} is missing in {json}"));
    let text = |name: &str| found[name].as_str().expect("a text").to_owned();
    (text("verdict"), text("evidence"))
}

#[track_caller]
fn assert_finding(json: &Value, check: CheckName, verdict: &str, words: &[&str]) {
    let (seen, evidence) = finding(json, check);
    assert_eq!(seen, verdict, "{check}: {evidence}");
    for word in words {
        assert!(evidence.contains(word), "`{word}` is not in {evidence}");
    }
}

#[test]
fn a_good_account_passes_every_check_with_its_evidence() {
    let env = TestEnv::new();
    let json = env.line("check --output json").ends_with(0).json();
    assert_eq!(json["schema"], "cvm-export.check.v1");
    assert!(json["image_id"].is_null() && json["exportable"].is_null());
    assert_eq!(
        names(&json),
        [
            "credentials",
            "identity",
            "clock",
            "network",
            "cos-active",
            "role",
            "quota"
        ]
    );
    let uin = env.cloud.change(|world| world.uin.clone());
    let id = env.cloud.credentials().secret_id;
    let ends = format!("{}****{} from environment", &id[..4], &id[id.len() - 4..]);
    assert_finding(
        &json,
        CheckName::Credentials,
        "pass",
        &[&ends, "passed over: --secret-id"],
    );
    let arn = format!("qcs::cam::uin/{uin}:uin/{uin}, account {uin}, type RootAccount");
    assert_finding(&json, CheckName::Identity, "pass", &[&arn]);
    assert_finding(&json, CheckName::Clock, "pass", &[]);
    assert_finding(
        &json,
        CheckName::Network,
        "pass",
        &[
            "cvm.tencentcloudapi.com answered in ",
            "service.cos.myqcloud.com answered in ",
            "(cvm.internal.tencentcloudapi.com answered in ",
        ],
    );
    assert_finding(
        &json,
        CheckName::CosActive,
        "pass",
        &[
            "exports-1250000000 (ap-guangzhou)",
            "far-1250000000 (ap-singapore)",
        ],
    );
    assert_finding(&json, CheckName::Role, "pass", &["CVM_QcsRole"]);
    let text = env.line("check").ends_with(0);
    text.says("7 checks passed")
        .says("nothing found keeps the account from exports; `--id` checks an image as well");
}

#[test]
fn a_bucket_that_is_named_is_judged_as_well_and_no_image_is_asked_for() {
    let env = TestEnv::new();
    let run = env
        .line("check --bucket exports --output json")
        .ends_with(0);
    let json = run.json();
    assert_eq!(
        names(&json),
        [
            "credentials",
            "identity",
            "clock",
            "network",
            "bucket-region",
            "cos-active",
            "role",
            "quota",
        ]
    );
    assert_finding(
        &json,
        CheckName::Network,
        "pass",
        &[
            "exports-1250000000.cos.ap-guangzhou.myqcloud.com answered in ",
            "exports-1250000000.cos-internal.ap-guangzhou.tencentcos.cn answered in ",
        ],
    );
    for call in [
        "DescribeImages",
        "ExportImages",
        "GetObject",
        "HeadObject",
        "PutObject",
    ] {
        assert_eq!(env.calls(call), 0, "{call} concerns an image");
    }
    env.line("check --bucket exports --print-policy")
        .ends_with(0);
}

#[test]
fn a_bucket_elsewhere_or_a_missing_role_fails_unless_it_is_skipped() {
    let env = TestEnv::new();
    let json = env
        .line("check --bucket far-1250000000 --region ap-guangzhou --output json")
        .ends_with(3)
        .json();
    assert_eq!(json["exportable"], false);
    let evidence = "is in ap-singapore, not in ap-guangzhou";
    assert_finding(&json, CheckName::BucketRegion, "fail", &[evidence]);
    for line in ["check --bucket exports", "check"] {
        env.line(&format!("{line} --role-name Nobody"))
            .ends_with(3)
            .says("the account is not ready for exports");
        env.line(&format!("{line} --role-name Nobody --skip-check role"))
            .ends_with(0);
    }
    env.cloud.change(|world| {
        world.denied.insert("HeadBucket".to_owned());
        world.denied.insert("GetService".to_owned());
    });
    env.line("check --bucket exports-1250000000 --region ap-guangzhou")
        .ends_with(4);
}

#[test]
fn an_image_and_the_policy_need_a_bucket() {
    let env = TestEnv::new();
    env.line("check --id img-linux001")
        .ends_with(2)
        .says("--bucket");
    env.line("check --print-policy")
        .ends_with(2)
        .says("--bucket");
    env.line("image --id img-linux001")
        .ends_with(2)
        .says("--bucket");
    assert_eq!(env.cloud.calls().len(), 0);
}

#[test]
fn what_may_not_be_looked_at_is_unknown_and_stops_nothing() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        for call in [
            "GetCallerIdentity",
            "GetService",
            "GetRole",
            "ListAttachedRolePolicies",
        ] {
            world.denied.insert(call.to_owned());
        }
    });
    let json = env.line("check --output json").ends_with(0).json();
    assert!(json["exportable"].is_null());
    assert_finding(
        &json,
        CheckName::Identity,
        "unknown",
        &["GetCallerIdentity"],
    );
    assert_finding(&json, CheckName::CosActive, "unknown", &[]);
    assert_finding(&json, CheckName::Role, "unknown", &[]);
}

#[test]
fn a_clock_that_is_wrong_is_told_by_how_much_and_that_it_is_corrected() {
    for offset in [120, -120, 4000, -4000] {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.clock_offset_seconds = offset);
        let json = env.line("check --output json").ends_with(0).json();
        let direction = if offset > 0 { "behind" } else { "ahead of" };
        assert_finding(
            &json,
            CheckName::Clock,
            "warn",
            &[direction, "dates its own requests by the server's clock"],
        );
        // All other look-ups were signed by the server's clock.
        assert_finding(&json, CheckName::Identity, "pass", &[]);
    }
}

#[test]
fn an_account_without_a_bucket_is_told_to_activate_the_storage() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.buckets.clear());
    let json = env.line("check --output json").ends_with(3).json();
    assert_finding(&json, CheckName::CosActive, "fail", &["no bucket at all"]);
    assert_finding(&json, CheckName::Identity, "pass", &[]);
}

#[test]
fn keys_that_the_cloud_refuses_are_named_with_their_place() {
    for line in [
        "check --output json",
        "check --bucket exports --output json",
    ] {
        let mut env = TestEnv::new();
        env.set("TENCENTCLOUD_SECRET_ID", "AKIDnobodyknowsthisone9999");
        let run = env.line(line).ends_with(4);
        let json = run.json();
        assert_eq!(
            names(&json),
            ["credentials", "identity", "clock", "network"],
            "asked: {line}"
        );
        assert_eq!(json["exportable"], false);
        assert_finding(
            &json,
            CheckName::Credentials,
            "fail",
            &[
                "AKID****9999 from environment variables",
                "does not accept them",
            ],
        );
        assert_finding(&json, CheckName::Clock, "pass", &[]);
        assert_finding(&json, CheckName::Network, "pass", &[]);
        assert_eq!(run.error_json()["exit_code"], 4);
    }
    let mut env = TestEnv::new();
    env.unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY");
    env.line("check")
        .ends_with(4)
        .says("there are no credentials");
}

#[test]
fn no_secret_is_shown_whatever_is_asked() {
    let mut env = TestEnv::new();
    let (id, key) = (
        "AKIDtemporary0123456789wxyz",
        "secretkeysecretkeysecretkey12345",
    );
    env.cloud.change(|world| {
        world.accept(cvm_export::auth::Credentials {
            secret_id: id.to_owned(),
            secret_key: cvm_export::auth::Secret::new(key),
            token: Some(cvm_export::auth::Secret::new("tokentokentokentoken")),
            expires_at: None,
        });
    });
    env.set("TENCENTCLOUD_SECRET_ID", id)
        .set("TENCENTCLOUD_SECRET_KEY", key)
        .set("TENCENTCLOUD_TOKEN", "tokentokentokentoken");
    for line in [
        "check",
        "check -vv",
        "check --output json",
        "check --output ndjson",
    ] {
        let run = env.line(line).ends_with(0);
        for secret in [key, "tokentokentokentoken"] {
            assert!(
                !run.stdout.contains(secret) && !run.stderr.contains(secret),
                "asked: {line}"
            );
        }
        assert!(!run.stdout.contains(id), "asked: {line}\n{}", run.stdout);
        assert!(
            run.stdout.contains("AKID****wxyz"),
            "asked: {line}\n{}",
            run.stdout
        );
        assert!(
            run.stdout.contains("until when is not known"),
            "asked: {line}"
        );
    }
}

#[test]
fn inside_the_hosts_of_the_internal_network_are_the_ones_that_must_answer() {
    let env = TestEnv::new();
    let run = env.line("check --output json --internal").ends_with(0);
    let (_, evidence) = finding(&run.json(), CheckName::Network);
    assert!(
        evidence.starts_with("cvm.internal.tencentcloudapi.com answered in "),
        "{evidence}"
    );
    assert!(!evidence.contains("--internal"), "{evidence}");
}

#[test]
fn a_host_that_gives_no_answer_is_named() {
    let mut unreachable = TestEnv::new();
    unreachable.set("CVM_EXPORT_ENDPOINT_URL", "http://127.0.0.1:9");
    let json = unreachable.line("check --output json").ends_with(3).json();
    assert_finding(
        &json,
        CheckName::Network,
        "fail",
        &[
            "cvm.tencentcloudapi.com did not answer",
            "the internal network is not reached",
        ],
    );
    assert_finding(&json, CheckName::Clock, "unknown", &[]);
    assert_finding(&json, CheckName::Identity, "unknown", &[]);
    // What keeps the bucket from being found is what the report is to tell.
    let run = unreachable.line("check --bucket exports --output json");
    let json = run.ends_with(3).json();
    assert_finding(&json, CheckName::Network, "fail", &["did not answer"]);
    assert!(!names(&json).contains(&"bucket-region"), "{json}");
}

#[test]
fn a_bucket_that_cannot_be_placed_leaves_the_rest_of_the_table() {
    let env = TestEnv::new();
    let run = env
        .line("check --bucket nowhere --output json")
        .ends_with(3)
        .says("nowhere");
    assert_finding(&run.json(), CheckName::Identity, "pass", &[]);
    let denied = Effect::CosError {
        status: 403,
        code: "AccessDenied".to_owned(),
    };
    env.cloud.set_faults(vec![fault("GetService", denied)]);
    let run = env.line("check --bucket exports").ends_with(2);
    assert!(run.stdout.contains("credentials"), "{}", run.stdout);
}
