use super::super::revoke::plan_revocation;
use super::*;

const BUCKET: &str = "exports-1250000000";

fn wanted(prefix: Option<&str>) -> Access {
    Access {
        role: "CVM_QcsRole".parse().expect("role"),
        grant: Grant::Bucket {
            bucket: BUCKET.parse().expect("bucket"),
            region: "ap-guangzhou".parse().expect("region"),
            prefix: prefix.map(|prefix| prefix.parse().expect("prefix")),
        },
        region: None,
    }
}

fn preset(preset: WritingPreset) -> Access {
    Access {
        grant: Grant::Preset(preset),
        ..wanted(None)
    }
}

fn found_role(trust: &str, description: &str) -> Option<FoundRole> {
    Some(FoundRole {
        name: "CVM_QCSRole".parse().expect("role"),
        description: description.into(),
        trust: trust.into(),
    })
}

fn attached(name: &str, is_preset: bool) -> AttachedPolicy {
    AttachedPolicy {
        name: name.into(),
        is_preset,
        id: Some(1),
        document: crate::export::Fact::NotAsked,
    }
}

fn own_policy(document: &str, description: &str, carriers: Option<u64>) -> Option<FoundPolicy> {
    Some(FoundPolicy {
        id: 7,
        description: description.into(),
        document: document.into(),
        carriers,
    })
}

fn calls(plan: &AccessPlan) -> Vec<&'static str> {
    plan.steps
        .iter()
        .map(|planned| planned.step.call())
        .collect()
}

/// What a run leaves behind that has made everything.
fn complete(wanted: &Access) -> Found {
    let document = policy_document(&wanted.grant)
        .expect("a document")
        .to_string();
    Found {
        role: found_role(&role::trust_document().to_string(), MARK),
        attached: vec![attached(&wanted.policy_name(), false)],
        policy: own_policy(&document, MARK, Some(1)),
    }
}

#[test]
fn an_empty_account_gets_role_policy_and_attachment() {
    let planned = plan(&Found::default(), &wanted(Some("p/"))).expect("a plan");
    assert_eq!(
        calls(&planned),
        ["CreateRole", "CreatePolicy", "AttachRolePolicy"]
    );
    let Step::CreatePolicy {
        policy,
        document,
        description,
    } = &planned.steps[1].step
    else {
        panic!("{planned:?}");
    };
    assert_eq!(policy, "cvm-export-exports-1250000000");
    assert_eq!(
        document["statement"][0]["resource"],
        json!([
            "qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000/",
            "qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000/p/*"
        ])
    );
    assert!(description.contains(MARK) && description.len() <= 300);
}

#[test]
fn what_is_there_is_not_made_again() {
    for prefix in [None, Some("p")] {
        let wanted = wanted(prefix);
        let planned = plan(&complete(&wanted), &wanted).expect("a plan");
        assert_eq!(planned.steps, [], "{prefix:?}");
        assert_eq!(planned.role.as_str(), "CVM_QCSRole");
    }
    // The cloud may write a document in its own way.
    let wanted = wanted(None);
    let mut found = complete(&wanted);
    let document = policy_document(&wanted.grant).expect("a document");
    let mut actions = document["statement"][0]["action"]
        .as_array()
        .expect("list")
        .clone();
    actions.reverse();
    let rewritten = json!({"version": "2.0", "statement": {"effect": "allow", "action": actions,
        "resource": document["statement"][0]["resource"]}});
    found.policy = own_policy(&rewritten.to_string(), MARK, Some(1));
    assert_eq!(plan(&found, &wanted).expect("a plan").steps, []);
}

#[test]
fn an_interrupted_run_is_completed() {
    let wanted = wanted(None);
    let mut found = complete(&wanted);
    found.attached.clear();
    assert_eq!(
        calls(&plan(&found, &wanted).expect("a plan")),
        ["AttachRolePolicy"]
    );
    found.policy = None;
    assert_eq!(
        calls(&plan(&found, &wanted).expect("a plan")),
        ["CreatePolicy", "AttachRolePolicy"]
    );
}

#[test]
fn trust_is_added_to_and_an_unreadable_one_is_left_alone() {
    let wanted = wanted(None);
    let trust = r#"{"version":"2.0","statement":[{"effect":"allow","action":"name/sts:AssumeRole","principal":{"service":["scf.qcloud.com"]}}]}"#;
    let mut found = complete(&wanted);
    found.role = found_role(trust, "");
    let planned = plan(&found, &wanted).expect("a plan");
    let [
        PlannedStep {
            step: Step::UpdateTrust {
                before, document, ..
            },
            ..
        },
    ] = planned.steps.as_slice()
    else {
        panic!("{planned:?}");
    };
    assert_eq!(document["statement"][0], before["statement"][0]);
    assert_eq!(role::trusts_cvm(&document.to_string()), Some(true));

    found.role = found_role("no JSON", "");
    let error = plan(&found, &wanted).expect_err("unreadable");
    assert_eq!(error.kind(), ErrorKind::Precondition);
}

#[test]
fn a_policy_of_ours_is_replaced_and_one_of_others_never() {
    let narrow = wanted(Some("p"));
    let wide = wanted(None);
    let planned = plan(&complete(&narrow), &wide).expect("a plan");
    assert_eq!(calls(&planned), ["UpdatePolicy"]);

    let mut found = complete(&narrow);
    found.policy = own_policy(r#"{"version":"2.0","statement":[]}"#, "by hand", Some(1));
    let error = plan(&found, &wide).expect_err("a policy of others");
    assert!(error.to_string().contains("has not made"), "{error}");

    // One that says the very same may be used, whoever made it.
    let document = policy_document(&wide.grant)
        .expect("a document")
        .to_string();
    found.policy = own_policy(&document, "by hand", Some(1));
    found.attached.clear();
    assert_eq!(
        calls(&plan(&found, &wide).expect("a plan")),
        ["AttachRolePolicy"]
    );
}

#[test]
fn a_preset_is_attached_when_it_is_named_and_is_enough_for_a_bucket() {
    let full = preset(WritingPreset::DataFullControl);
    let planned = plan(&Found::default(), &full).expect("a plan");
    assert_eq!(calls(&planned), ["CreateRole", "AttachRolePolicy"]);

    let mut found = complete(&full);
    found.policy = None;
    found.attached = vec![attached("QcloudCOSDataFullControl", true)];
    assert_eq!(plan(&found, &full).expect("a plan").steps, []);
    let planned = plan(&found, &wanted(None)).expect("a plan");
    assert_eq!(planned.steps, []);
    assert_eq!(planned.left.len(), 1, "{planned:?}");
    // A custom policy that bears a preset's name is none.
    found.attached = vec![attached("QcloudCOSDataFullControl", false)];
    assert_eq!(
        calls(&plan(&found, &full).expect("a plan")),
        ["AttachRolePolicy"]
    );
}

#[test]
fn revoking_takes_back_what_bears_the_mark_alone() {
    let access = wanted(None);
    let policy = access.policy_name();
    let all = ["DetachRolePolicy", "DeletePolicy", "DeleteRole"];
    type Change = fn(&mut Found);
    let cases: &[(&str, Change, &[&str], usize)] = &[
        ("everything is ours", |_| (), &all, 0),
        (
            "nothing is there",
            |found| *found = Found::default(),
            &[],
            0,
        ),
        (
            "the role is of others",
            |found| found.role = found_role(&role::trust_document().to_string(), ""),
            &all[..2],
            2,
        ),
        (
            "another policy hangs on the role",
            |found| found.attached.push(attached("own", false)),
            &all[..2],
            1,
        ),
        (
            "others may take the role on",
            |found| {
                let trust = role::with_cvm(
                    r#"{"version":"2.0","statement":[{"effect":"allow","action":"name/sts:AssumeRole","principal":{"service":["scf.qcloud.com"]}}]}"#,
                );
                found.role = found_role(&trust.expect("trust").to_string(), MARK);
            },
            &all[..2],
            1,
        ),
        (
            "another role carries the policy",
            |found| {
                if let Some(policy) = &mut found.policy {
                    policy.carriers = Some(2);
                }
            },
            &["DetachRolePolicy", "DeleteRole"],
            1,
        ),
        (
            "nobody says who carries the policy",
            |found| {
                if let Some(policy) = &mut found.policy {
                    policy.carriers = None;
                }
            },
            &["DetachRolePolicy", "DeleteRole"],
            1,
        ),
        (
            "the policy is of others",
            |found| {
                if let Some(policy) = &mut found.policy {
                    policy.description = "by hand".into();
                }
            },
            &[],
            2,
        ),
    ];
    for (name, change, expected, left) in cases {
        let mut found = complete(&access);
        change(&mut found);
        let planned = plan_revocation(&found, &access);
        assert_eq!(calls(&planned), *expected, "{name}");
        assert_eq!(planned.left.len(), *left, "{name}: {:?}", planned.left);
    }
    assert_eq!(policy, "cvm-export-exports-1250000000");
}

#[test]
fn a_preset_is_taken_off_a_role_only_that_was_made_with_it() {
    let access = preset(WritingPreset::DataWriteOnly);
    let mut found = complete(&access);
    found.policy = None;
    found.attached = vec![attached("QcloudCOSDataWriteOnly", true)];
    let planned = plan_revocation(&found, &access);
    assert_eq!(planned.steps, [], "somebody may have attached it since");
    assert_eq!(planned.still, ["QcloudCOSDataWriteOnly"]);
    let made = plan(&Found::default(), &access).expect("a plan");
    let [Step::CreateRole { description, .. }, ..] =
        made.steps.iter().map(|it| &it.step).collect::<Vec<_>>()[..]
    else {
        panic!("a role is made: {made:?}");
    };
    found.role = found_role(&role::trust_document().to_string(), description);
    let planned = plan_revocation(&found, &access);
    assert_eq!(calls(&planned), ["DetachRolePolicy", "DeleteRole"]);
    found.role = found_role(&role::trust_document().to_string(), "the console's");
    let planned = plan_revocation(&found, &access);
    assert_eq!(planned.steps, []);
    assert_eq!(planned.left.len(), 3, "{planned:?}");
    assert_eq!(planned.still, ["QcloudCOSDataWriteOnly"]);
}

#[test]
fn a_new_look_never_adds_what_was_not_agreed_to() {
    let wanted = wanted(None);
    let mut agreed = plan(&Found::default(), &wanted).expect("a plan");
    let mut half = complete(&wanted);
    half.attached.clear();
    let now = plan(&half, &wanted).expect("a plan");
    // The role has another spelling by now, so that this attaches to something that was not shown.
    assert!(!agreed.catch_up(&now));
    half.role = half.role.map(|role| FoundRole {
        name: wanted.role.clone(),
        ..role
    });
    let now = plan(&half, &wanted).expect("a plan");
    assert!(agreed.catch_up(&now));
    let done: Vec<bool> = agreed.steps.iter().map(|planned| planned.done).collect();
    assert_eq!(done, [true, true, false]);
    assert!(!agreed.is_done());
}

#[test]
fn a_preset_that_was_read_to_allow_the_writing_is_enough() {
    let read = |document: &str| AttachedPolicy {
        document: crate::export::Fact::Known(document.into()),
        ..attached("QcloudCOSAccessForCVMRole", true)
    };
    const WRITES: &str =
        r#"{"version":"2.0","statement":[{"effect":"allow","action":"cos:*","resource":"*"}]}"#;
    const READS: &str =
        r#"{"version":"2.0","statement":[{"effect":"allow","action":"cos:Get*","resource":"*"}]}"#;
    let mut found = Found {
        attached: vec![read(READS), read(WRITES)],
        ..complete(&wanted(None))
    };
    found.policy = None;
    let planned = plan(&found, &wanted(None)).expect("a plan");
    assert_eq!(planned.steps, []);
    let [left] = planned.left.as_slice() else {
        panic!("{planned:?}");
    };
    assert!(left.what.contains("QcloudCOSAccessForCVMRole"), "{left:?}");
    assert!(left.why.contains("writing to this bucket"), "{left:?}");
    // Whoever revokes is told that it goes on to allow writing.
    let revoked = plan_revocation(&found, &wanted(None));
    assert_eq!(revoked.still, ["QcloudCOSAccessForCVMRole"]);
    // A preset that was asked for by name is another matter.
    let full = plan(&found, &preset(WritingPreset::FullAccess)).expect("a plan");
    assert_eq!(calls(&full), ["AttachRolePolicy"]);

    for others in [
        vec![],
        vec![read(READS)],
        vec![read("")],
        vec![attached("QcloudCOSAccessForCVMRole", true)],
    ] {
        found.attached = others;
        let planned = plan(&found, &wanted(None)).expect("a plan");
        assert_eq!(
            calls(&planned),
            ["CreatePolicy", "AttachRolePolicy"],
            "{:?}",
            found.attached
        );
    }
}

#[test]
fn a_prefix_that_a_policy_reads_as_a_pattern_is_refused() {
    for prefix in ["a*b", "what?"] {
        let error = wanted(Some(prefix)).grant.require_literal();
        assert_eq!(
            error.expect_err(prefix).kind(),
            ErrorKind::Usage,
            "{prefix}"
        );
    }
    assert!(wanted(Some("p/q-")).grant.require_literal().is_ok());
}
