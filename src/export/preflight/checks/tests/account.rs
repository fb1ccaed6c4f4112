//! What the account decides: its role, its right to export, its running exports.

use super::*;
use crate::export::role::trusts_cvm;
use crate::model::CloudText;

#[test]
fn a_role_passes_only_when_it_is_there_trusts_cvm_and_carries_a_preset_that_writes() {
    assert_cases(
        CheckName::Role,
        &[
            (
                "missing",
                |facts| facts.role = Fact::Known(None),
                Fail,
                &["there is no role `CVM_QcsRole`", "make a role"],
            ),
            (
                "denied",
                |facts| facts.role = denied(),
                Unknown,
                &["denied by CAM", "cam:GetRole"],
            ),
            (
                "silent",
                |facts| facts.role = silent(),
                Unknown,
                &["no answer came"],
            ),
            (
                "trusts another",
                |facts| facts.role = trust(&TRUST.replace("cvm.", "scf.")),
                Fail,
                &["does not trust"],
            ),
            (
                "policies denied",
                |facts| facts.policies = denied(),
                Unknown,
                &["cam:ListAttachedRolePolicies"],
            ),
            (
                "trusts another, policies denied",
                |facts| {
                    facts.role = trust(&TRUST.replace("cvm.", "scf."));
                    facts.policies = denied();
                },
                Fail,
                &["does not trust"],
            ),
            (
                "no policy",
                |facts| facts.policies = policies(&[]),
                Fail,
                &["no policy", "QcloudCOSDataFullControl"],
            ),
            (
                "presets that do not write",
                |facts| {
                    facts.policies = policies(&[
                        ("QcloudKMSAccessForCVMRole", true),
                        ("QcloudCOSReadOnlyAccess", true),
                    ]);
                },
                Fail,
                &[
                    "QcloudKMSAccessForCVMRole, QcloudCOSReadOnlyAccess",
                    "nothing that allows writing",
                ],
            ),
            (
                "custom alone",
                |facts| facts.policies = policies(&[("mine", false)]),
                Unknown,
                &["could not be read: mine"],
            ),
            (
                "custom and a reading preset",
                |facts| {
                    facts.policies =
                        policies(&[("QcloudCOSReadOnlyAccess", true), ("mine", false)]);
                },
                Unknown,
                &["could not be read: mine", "QcloudCOSReadOnlyAccess, mine"],
            ),
            (
                "custom that is named like a preset",
                |facts| {
                    facts.policies = policies(&[("QcloudCOSFullAccess", false)]);
                },
                Unknown,
                &["could not be read: QcloudCOSFullAccess"],
            ),
            (
                "custom and a writing preset",
                |facts| {
                    facts.policies = policies(&[("mine", false), ("QcloudCOSFullAccess", true)]);
                },
                Pass,
                &["carries QcloudCOSFullAccess"],
            ),
            (
                "unreadable trust",
                |facts| facts.role = trust("garbage"),
                Unknown,
                &["whether it trusts CVM is not certain"],
            ),
            (
                "unreadable trust, no policy",
                |facts| {
                    facts.role = trust("garbage");
                    facts.policies = policies(&[]);
                },
                Fail,
                &["no policy"],
            ),
        ],
    );
}

#[test]
fn custom_policies_pass_when_they_could_be_read_and_certainly_allow_what_is_written() {
    fn custom(document: Fact<CloudText>) -> Fact<Vec<AttachedPolicy>> {
        Fact::Known(vec![AttachedPolicy {
            name: "mine".into(),
            id: Some(7),
            is_preset: false,
            document,
        }])
    }
    fn allowing(resource: &str) -> Fact<CloudText> {
        Fact::Known(
            serde_json::json!({"version": "2.0", "statement": [
                {"effect": "allow", "action": ["name/cos:*"], "resource": [resource]}]})
            .to_string()
            .as_str()
            .into(),
        )
    }
    assert_cases(
        CheckName::Role,
        &[
            (
                "everything",
                |facts| facts.policies = custom(allowing("*")),
                Pass,
                &["trusts CVM and may write to bucket", "by mine"],
            ),
            (
                "another bucket",
                |facts| facts.policies = custom(allowing("qcs::cos:::other-1250000000/*")),
                Fail,
                &[
                    "nothing that allows writing to bucket `b-1250000000`",
                    "cvm-export authorize --bucket",
                ],
            ),
            (
                "no account bucket named",
                |facts| {
                    facts.bucket = Fact::NotAsked;
                    facts.policies = custom(allowing("qcs::cos:::other-1250000000/*"));
                },
                Unknown,
                &["carries mine", "check --bucket NAME"],
            ),
            (
                "one that may not be read",
                |facts| {
                    let (Fact::Known(mut both), Fact::Known(hidden)) = (
                        custom(allowing("*")),
                        custom(Fact::NotPermitted("no".to_owned())),
                    ) else {
                        return;
                    };
                    both.extend(hidden);
                    facts.policies = Fact::Known(both);
                },
                Pass,
                &["by mine"],
            ),
            (
                "allowed, with a trust that cannot be read",
                |facts| {
                    facts.role = trust("garbage");
                    facts.policies = custom(allowing("*"));
                },
                Unknown,
                &["whether it trusts CVM is not certain"],
            ),
        ],
    );
}

const WRITES: &str = r#"{"version":"2.0","statement":[
    {"effect":"allow","action":["cos:PutObject","cos:*MultipartUpload","cos:UploadPart"],"resource":"*"}]}"#;
const READS: &str =
    r#"{"version":"2.0","statement":{"effect":"allow","action":"cos:Get*","resource":"*"}}"#;

/// Judges a role that carries presets of unknown names, `preset0` and so on, with these documents.
#[track_caller]
fn assert_documents(documents: Vec<Fact<CloudText>>, verdict: Verdict, words: &str) {
    let what = format!("{documents:.200?}");
    let attached = documents
        .into_iter()
        .enumerate()
        .map(|(place, document)| AttachedPolicy {
            name: format!("preset{place}").as_str().into(),
            id: Some(7),
            is_preset: true,
            document,
        });
    let facts = Facts {
        policies: Fact::Known(attached.collect()),
        ..facts()
    };
    let finding = find(&facts, IfExists::Fail, CheckName::Role);
    assert_finding(&what, &finding, verdict, &[words]);
}

fn text(document: &str) -> Fact<CloudText> {
    Fact::Known(document.into())
}

#[test]
fn a_preset_of_an_unknown_name_is_judged_by_its_document() {
    let (secret, lost) = (denied::<CloudText>, silent::<CloudText>);
    let (writes, reads) = (|| text(WRITES), || text(READS));
    for (documents, verdict, words) in [
        (vec![writes()], Pass, "by preset0"),
        (vec![reads()], Fail, "nothing that allows writing to COS"),
        (vec![secret()], Unknown, "cam:GetPolicy"),
        (vec![lost()], Unknown, "try again"),
        // It has no number.
        (vec![Fact::NotAsked], Unknown, "not be read: preset0"),
        (vec![reads(), secret()], Unknown, "not be read: preset1"),
        (vec![reads(), lost(), secret()], Unknown, "cam:GetPolicy"),
        (vec![writes(), secret()], Pass, "by preset0"),
        (vec![reads(), writes()], Pass, "by preset1"),
        (vec![reads(), reads()], Fail, "preset0, preset1"),
        (vec![text(""), writes()], Pass, "by preset1"),
    ] {
        assert_documents(documents, verdict, words);
    }
}

#[test]
fn only_a_document_that_is_understood_can_fail() {
    let tail = " ".repeat(1 << 20);
    for (document, verdict, words) in [
        ("", Unknown, "not certain"),
        ("<html>", Unknown, "not certain"),
        ("{}", Unknown, "not certain"),
        (r#"{"statement":["x"]}"#, Unknown, "not certain"),
        (r#"{"statement":[]}"#, Fail, "nothing that allows"),
        (&format!("{WRITES}{tail}"), Pass, "by preset0"),
        (&format!("{READS}{tail}"), Fail, "nothing that allows"),
    ] {
        assert_documents(vec![text(document)], verdict, words);
    }
}

#[test]
fn every_preset_that_writes_passes() {
    for name in [
        "AdministratorAccess",
        "QcloudCOSDataFullControl",
        "QcloudCOSDataWriteOnly",
        "QcloudCOSFullAccess",
    ] {
        let facts = Facts {
            policies: policies(&[("QcloudKMSFullAccess", true), (name, true)]),
            ..facts()
        };
        assert_finding(
            &name,
            &find(&facts, IfExists::Fail, CheckName::Role),
            Pass,
            &[name, "trusts CVM"],
        );
    }
}

#[test]
fn trust_documents_are_read_in_every_shape_that_occurs() {
    let cases = [
        (TRUST, Some(true)),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":"cvm.qcloud.com"}}]}"#,
            Some(true),
        ),
        (
            r#"{"statement":{"effect":"allow","principal":{"service":["cvm.cloud.tencent.com"]}}}"#,
            Some(true),
        ),
        (
            r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":["cvm.qcloud.com"]}}]}"#,
            Some(true),
        ),
        (
            r#"{"statement":[{"principal":{"service":["cvm.qcloud.com"]}}]}"#,
            Some(true),
        ),
        (
            r#"{"statement":[{"principal":{"service":["scf.qcloud.com","cvm.qcloud.com"]}}]}"#,
            Some(true),
        ),
        (
            r#"{"statement":[{"principal":{"qcs":["x"]}},{"principal":{"service":"cvm.qcloud.com"}}]}"#,
            Some(true),
        ),
        (
            r#"{"statement":[{"effect":"deny","principal":{"service":["cvm.qcloud.com"]}}]}"#,
            Some(false),
        ),
        (
            r#"{"Statement":[{"Effect":"Deny","Principal":{"Service":["cvm.qcloud.com"]}}]}"#,
            Some(false),
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":["cvmx.qcloud.com"]}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"qcs":["cvm.qcloud.com"]}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":[7,null]}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":"cvm.qcloud.com"}},
                {"effect":"deny","principal":{"service":["cvm.qcloud.com"]}}]}"#,
            None,
        ),
        (r#"{"statement":[]}"#, Some(false)),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":["scf.qcloud.com"],
                "qcs":["qcs::cam::uin/1:root"],"federated":["qcs::cam::uin/1:saml-provider/x"]}}]}"#,
            Some(false),
        ),
        (
            r#"{"statement":[{"effect":"permit","principal":{"service":"cvm.qcloud.com"}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"service":"*"}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":"*"}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":{"product":["cvm"]}}]}"#,
            None,
        ),
        (
            r#"{"statement":[{"effect":"deny","principal":"*"},
                {"effect":"allow","principal":{"service":"scf.qcloud.com"}}]}"#,
            Some(false),
        ),
        (
            r#"{"statement":[{"effect":"allow","principal":"*"},
                {"effect":"allow","principal":{"service":"cvm.qcloud.com"}}]}"#,
            Some(true),
        ),
        (r#"{"statement":["text"]}"#, None),
        ("{}", None),
        ("[]", None),
        ("null", None),
        ("", None),
        ("garbage", None),
        ("%7B%22statement%22%3A%5B%5D%7D", None),
    ];
    for (document, expected) in cases {
        assert_eq!(trusts_cvm(document), expected, "asked: {document}");
    }
}

#[test]
fn the_feature_is_judged_by_the_clouds_answer_to_a_dry_run() {
    assert_cases(
        CheckName::Feature,
        &[
            ("accepted", |_| {}, Pass, &["accepts a dry run"]),
            (
                "not asked",
                |facts| facts.dry_run = Fact::NotAsked,
                Unknown,
                &["ticket"],
            ),
            (
                "denied",
                |facts| facts.dry_run = denied(),
                Unknown,
                &["dry run"],
            ),
            ("silent", |facts| facts.dry_run = silent(), Unknown, &[]),
            (
                "not on the list",
                |facts| {
                    facts.dry_run = refused("InvalidParameter.SpecialParameterForSpecialAccount");
                },
                Fail,
                &[
                    "(InvalidParameter.SpecialParameterForSpecialAccount)",
                    "ticket",
                    "uin",
                    "region",
                    "bucket",
                ],
            ),
            (
                "something else",
                |facts| {
                    facts.dry_run = refused("InvalidParameterValue.BucketNotFound");
                },
                Pass,
                &["something else"],
            ),
            (
                "for a new reason",
                |facts| facts.dry_run = refused("Moon.Full"),
                Pass,
                &["something else"],
            ),
        ],
    );
}

#[test]
fn every_known_refusal_of_a_dry_run_is_said_with_its_remedy() {
    for refusal in REFUSALS {
        let facts = Facts {
            dry_run: refused(refusal.code),
            ..facts()
        };
        let later = refusal.later == Later::WhenOthersFinish;
        // The command that mends it names this very bucket and prefix.
        let command = format!("authorize --bucket {} --prefix p", facts.request.bucket);
        let remedy = refusal
            .remedy
            .replacen("authorize --bucket NAME", &command, 1);
        let words = [refusal.meaning, refusal.code, "words of the cloud", &remedy];
        let finding = find(&facts, IfExists::Fail, CheckName::ServerDryRun);
        assert_finding(
            &refusal.code,
            &finding,
            if later { Warn } else { Fail },
            &words,
        );
        let is_feature = refusal.check == CheckName::Feature;
        let finding = find(&facts, IfExists::Fail, CheckName::Feature);
        assert_eq!(
            finding.verdict == Fail,
            is_feature,
            "asked: {}; seen: {finding:?}",
            refusal.code
        );
    }
}

#[test]
fn a_dry_run_without_a_known_answer_is_a_failure_or_unknown() {
    assert_cases(
        CheckName::ServerDryRun,
        &[
            ("accepted", |_| {}, Pass, &["would accept"]),
            (
                "new code",
                |facts| facts.dry_run = refused("Moon.Full"),
                Fail,
                &["Moon.Full: words of the cloud", "documentation"],
            ),
            (
                "denied",
                |facts| facts.dry_run = denied(),
                Unknown,
                &["denied by CAM", "cvm:ExportImages"],
            ),
            (
                "silent",
                |facts| facts.dry_run = silent(),
                Unknown,
                &["no answer came"],
            ),
        ],
    );
}

#[test]
fn running_exports_are_warned_of_with_their_number() {
    assert_cases(
        CheckName::Quota,
        &[
            ("none", |_| {}, Pass, &["no running export"]),
            (
                "one",
                |facts| facts.running_exports = 1,
                Warn,
                &[
                    "exports that run as far as this machine knows: 1",
                    "--no-queue",
                ],
            ),
        ],
    );
}
