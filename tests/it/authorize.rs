//! `authorize`, and `image --authorize`: what CVM needs is shown, asked about, made, and taken back.

use std::time::Duration;

use cvm_export::simulator::{CustomPolicy, Effect, Policy, Role};
use serde_json::{Value, json};

use crate::support::{TestEnv, delayed, fault};

const LINUX: &str = "--id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
const AUTHORIZE: &str = "authorize --bucket exports --yes";
const POLICY: &str = "cvm-export-exports-1250000000";
/// Every call of CAM that changes something.
const WRITES: &[&str] = &[
    "CreateRole",
    "UpdateAssumeRolePolicy",
    "DeleteRole",
    "CreatePolicy",
    "UpdatePolicy",
    "DeletePolicy",
    "AttachRolePolicy",
    "DetachRolePolicy",
];

/// An account in which nobody has ticked anything.
fn fresh() -> TestEnv {
    let env = TestEnv::new();
    env.cloud.change(|world| world.roles.clear());
    env
}

impl TestEnv {
    #[track_caller]
    fn assert_changes(&self, expected: &[&str]) {
        let calls = self.cloud.calls().into_iter().map(|call| call.operation);
        let changes: Vec<String> = calls
            .filter(|call| WRITES.contains(&call.as_str()))
            .collect();
        assert_eq!(changes, expected, "changes in the call log");
    }

    /// The names of roles with the policies on them, and of the account's own policies.
    fn access(&self) -> (Vec<(String, Vec<String>)>, Vec<String>) {
        self.cloud.change(|world| {
            let roles = world.roles.iter().map(|role| {
                let policies = role.policies.iter().map(|policy| policy.name.clone());
                (role.name.clone(), policies.collect())
            });
            let own = world.policies.iter().map(|policy| policy.name.clone());
            (roles.collect(), own.collect())
        })
    }

    #[track_caller]
    fn assert_authorized(&self) {
        let (roles, policies) = self.access();
        let expected = vec![("CVM_QcsRole".to_owned(), vec![POLICY.to_owned()])];
        assert_eq!((roles, policies), (expected, vec![POLICY.to_owned()]));
    }
}

#[test]
fn without_the_role_an_export_ends_with_the_command_that_mends_it() {
    let env = fresh();
    env.line(&format!("image {LINUX}")).ends_with(3).says(
        "`cvm-export authorize --bucket exports-1250000000 --prefix p` shows what is missing",
    );
    env.assert_submits(0);
    env.line(AUTHORIZE)
        .ends_with(0)
        .says("role `CVM_QcsRole` trusts CVM and may write to bucket `exports-1250000000`");
    env.assert_authorized();
    let exported = env.line(&format!("image {LINUX}")).ends_with(0);
    // The policy is read, so that nothing about the role is left in doubt.
    assert!(!exported.stderr.contains("role"), "{}", exported.stderr);
    env.line(AUTHORIZE).ends_with(0).says("nothing to change");
    env.assert_changes(&["CreateRole", "CreatePolicy", "AttachRolePolicy"]);
}

#[test]
fn a_dry_run_prints_the_documents_and_changes_nothing() {
    let env = fresh();
    let run = env
        .line("authorize --bucket exports --prefix p/ --dry-run")
        .ends_with(0);
    for text in [
        "create role `CVM_QcsRole`",
        "cvm.qcloud.com",
        "attach policy `cvm-export-exports-1250000000`",
        "qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000/p/*",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    let run = env
        .line("authorize --bucket exports --dry-run --output json")
        .ends_with(0);
    let report = run.json();
    assert_eq!(report["schema"], "cvm-export.authorize.v1");
    assert_eq!(report["state"], "planned");
    assert_eq!(report["steps"][0]["action"], "create-role");
    assert_eq!(report["steps"][0]["done"], false);
    env.line(&format!("image {LINUX} --authorize --dry-run"))
        .ends_with(3)
        .says("create role `CVM_QcsRole`");
    env.assert_changes(&[]);
}

#[test]
fn nobody_to_ask_and_no_yes_is_a_usage_error() {
    let env = fresh();
    for line in [
        "authorize --bucket exports",
        "authorize --bucket exports --no-input",
        "image --id img-linux001 --bucket exports --prefix p --authorize",
    ] {
        env.line(line)
            .ends_with(2)
            .says("create role `CVM_QcsRole`")
            .says("nothing was changed")
            .says("--yes");
    }
    // Where JSON is asked for, stdout holds no object beside an error.
    let run = env.line("authorize --bucket exports --output json");
    let run = run.ends_with(2).prints("");
    assert_eq!(run.error_json()["exit_code"], 2);
    env.line("authorize --bucket exports --preset QcloudCOSDataWriteOnly --yes")
        .ends_with(2)
        .says("--preset");
    env.line("authorize --bucket exports --prefix a* --yes")
        .ends_with(2)
        .says("a star");
    env.line("authorize --preset QcloudCOSReadOnlyAccess --yes")
        .ends_with(2)
        .says("QcloudCOSDataWriteOnly");
    env.assert_changes(&[]);
}

#[test]
fn a_preset_is_attached_only_where_it_is_named() {
    let env = fresh();
    env.line("authorize --preset QcloudCOSDataWriteOnly --yes")
        .ends_with(0)
        .says("every bucket of the account");
    env.assert_changes(&["CreateRole", "AttachRolePolicy"]);
    env.line(&format!("image {LINUX}")).ends_with(0);
    env.line(AUTHORIZE)
        .ends_with(0)
        .says("it allows writing to every bucket");
    env.line("authorize --preset QcloudCOSDataWriteOnly --revoke --yes")
        .ends_with(0);
    assert_eq!(env.access(), (vec![], vec![]));
}

#[test]
fn revoking_takes_its_own_back_and_leaves_what_others_made() {
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --bucket exports --revoke").ends_with(2);
    env.assert_authorized();
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("done: delete role `CVM_QcsRole`");
    assert_eq!(env.access(), (vec![], vec![]));
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("nothing to change");

    let policy = |name: &str| Policy {
        name: name.to_owned(),
        policy_type: "User".to_owned(),
        writes: false,
    };
    env.cloud.change(|world| {
        let mut role = Role::for_exports();
        role.policies = vec![policy("theirs")];
        world.roles = vec![role];
        world.policies = vec![CustomPolicy {
            name: "theirs".to_owned(),
            description: String::new(),
            document: json!({"version": "2.0", "statement": []}).to_string(),
        }];
    });
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("stays: role `CVM_QcsRole`, because it was not made by cvm-export");
    let expected = vec![("CVM_QcsRole".to_owned(), vec!["theirs".to_owned()])];
    assert_eq!(env.access(), (expected, vec!["theirs".to_owned()]));
}

#[test]
fn what_bears_no_mark_stays_and_is_named_with_the_command_that_takes_it_back() {
    const PRESET: &str = "authorize --preset QcloudCOSDataWriteOnly";
    // A preset on a role of others.
    let env = TestEnv::new();
    env.cloud.change(|world| world.roles[0].policies.clear());
    env.line(&format!("{PRESET} --yes")).ends_with(0);
    env.line(&format!("{PRESET} --revoke --yes"))
        .ends_with(0)
        .says("stays: policy `QcloudCOSDataWriteOnly` on role `CVM_QcsRole`")
        .says("`tccli cam DetachRolePolicy --DetachRoleName CVM_QcsRole --PolicyName QcloudCOSDataWriteOnly`")
        .says("role `CVM_QcsRole` may still write there, by QcloudCOSDataWriteOnly")
        .does_not_say("made by cvm-export lets");
    env.assert_changes(&["AttachRolePolicy"]);

    // A statement that was added to the trust of such a role.
    let env = TestEnv::new();
    let before = Role::trust_in("scf.qcloud.com");
    env.cloud.change(|world| {
        world.roles[0].trust = before.clone();
        world.roles[0].policies.clear();
    });
    env.line(AUTHORIZE).ends_with(0);
    let run = env
        .line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("stays: that CVM may take on role `CVM_QcsRole`")
        .says("nothing that is known to be made by cvm-export lets role `CVM_QcsRole` write");
    let command = "`tccli cam UpdateAssumeRolePolicy --RoleName CVM_QcsRole --PolicyDocument '";
    let (_, rest) = run.stderr.split_once(command).expect("a command");
    let (document, _) = rest.split_once("'`").expect("its end");
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(document), parse(&before));

    // A preset that is wider than the bucket whose policy goes, on a role of ours.
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --preset QcloudCOSFullAccess --yes")
        .ends_with(0);
    let run = env
        .line("authorize --bucket exports --revoke --yes --output json")
        .ends_with(0)
        .says("may still write there, by QcloudCOSFullAccess");
    let command = "cvm-export authorize --preset QcloudCOSFullAccess --revoke";
    let left = run.json()["left"].to_string();
    assert!(
        left.contains(&format!("`{command}` takes it off")),
        "{left}"
    );
    let line = command.trim_start_matches("cvm-export ");
    env.line(&format!("{line} --yes")).ends_with(0);
    assert_eq!(env.access(), (vec![], vec![]));
}

#[test]
fn what_exists_is_shown_with_what_it_allows() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.add_bucket("other-1250000000", "ap-guangzhou".parse().expect("region"));
        world.roles[0].policies[0].name = "QcloudKMSAccessForCVMRole".to_owned();
    });
    env.line("authorize --bucket other --yes").ends_with(0);
    let run = env
        .line("authorize --bucket exports --dry-run")
        .ends_with(0);
    for text in [
        "there is role `CVM_QcsRole`, not made by cvm-export: CVM may take it on",
        "preset policy `QcloudKMSAccessForCVMRole`, which allows no writing to COS",
        "custom policy `cvm-export-other-1250000000`, of which it is not certain",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    env.line(AUTHORIZE).ends_with(0);
    let run = env.line(&format!("{AUTHORIZE} --output json")).ends_with(0);
    let existing = &run.json()["existing"];
    let role = json!({"name": "CVM_QcsRole", "trusts_cvm": true, "is_own": false});
    assert_eq!(existing["role"], role);
    let allows = |place: usize| existing["policies"][place]["allows_writing"].clone();
    assert_eq!(
        [allows(0), allows(1), allows(2)],
        [json!(false), json!(null), json!(true)]
    );
    env.line("authorize --bucket exports --role-name Absent --dry-run")
        .ends_with(0)
        .stdout
        .starts_with("there is no role `Absent`\n")
        .then_some(())
        .expect("it is said");
}

#[test]
fn without_a_bucket_and_a_preset_it_shows_what_there_is_and_how_to_go_on() {
    let env = fresh();
    env.line("authorize")
        .ends_with(0)
        .prints("there is no role `CVM_QcsRole`\ncvm-export made no policy\n")
        .says("nothing was changed")
        .says("`cvm-export authorize --bucket NAME`");
    env.line(AUTHORIZE).ends_with(0);
    env.line("authorize --bucket exports --role-name Other --yes")
        .ends_with(0);
    env.assert_changes(&[
        "CreateRole",
        "CreatePolicy",
        "AttachRolePolicy",
        "CreateRole",
        "CreatePolicy",
        "AttachRolePolicy",
    ]);
    let shown = env.line("authorize --revoke --yes").ends_with(0);
    shown.says("`cvm-export authorize --revoke --bucket NAME`");
    let shown = env.line("authorize --revoke --output json").ends_with(0);
    let report = shown.json();
    assert_eq!(report["state"], "unchanged");
    assert_eq!(report["existing"]["role"]["is_own"], true);
    assert_eq!(report["own_policies"][1]["name"], format!("{POLICY}-other"));
    // What it prints takes everything back.
    let shown = env.line("authorize --revoke").ends_with(0).stdout;
    let commands: Vec<&str> = shown
        .split('`')
        .filter_map(|text| text.strip_prefix("cvm-export authorize "))
        .collect();
    assert_eq!(
        commands,
        [
            "--bucket exports-1250000000 --revoke",
            "--bucket exports-1250000000 --role-name Other --revoke",
        ]
    );
    for command in commands {
        env.line(&format!("authorize {command} --yes")).ends_with(0);
    }
    assert_eq!(env.access(), (vec![], vec![]));
    env.cloud.change(|world| {
        world.denied.insert("GetRole".to_owned());
    });
    env.line("authorize").ends_with(4).says("cam:GetRole");
}

#[test]
fn a_preset_is_asked_for_at_the_host_of_the_region_that_was_said() {
    let env = fresh();
    env.line("authorize --preset QcloudCOSDataWriteOnly --region ap-shanghai-fsi --yes")
        .ends_with(0);
    let calls = env.cloud.calls().into_iter().map(|call| call.host);
    let hosts: std::collections::BTreeSet<String> = calls.collect();
    assert_eq!(
        hosts.into_iter().collect::<Vec<_>>(),
        ["cam.ap-shanghai-fsi.tencentcloudapi.com"]
    );
}

#[test]
fn a_bucket_that_is_not_listed_is_warned_of() {
    let env = fresh();
    env.line("authorize --bucket nope --region ap-guangzhou --dry-run")
        .ends_with(0)
        .says("warning: the account lists no bucket `nope-1250000000`");
    env.line("authorize --bucket far --region ap-guangzhou --dry-run")
        .ends_with(0)
        .says("warning: bucket `far-1250000000` is in ap-singapore");
    for quiet in [
        "authorize --bucket exports --dry-run",
        "authorize --bucket nope --region ap-guangzhou --revoke --yes",
    ] {
        env.line(quiet).ends_with(0).does_not_say("warning");
    }
}

#[test]
fn a_role_that_another_run_takes_back_meanwhile_is_made_anew() {
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    env.cloud.change(|world| world.roles[0].policies.clear());
    env.cloud
        .set_faults(vec![delayed("AttachRolePolicy", 1000)]);
    const LOOKS: [&str; 3] = ["GetRole", "ListAttachedRolePolicies", "GetPolicy"];
    let before = LOOKS.map(|call| env.calls(call));
    let run = env.start(&AUTHORIZE.split(' ').collect::<Vec<_>>());
    // Once to show it and once before the change; the change itself takes its time.
    for (call, before) in LOOKS.into_iter().zip(before) {
        env.wait_for_calls(call, before + 2);
    }
    env.cloud.change(|world| world.roles.clear());
    run.wait()
        .ends_with(0)
        .says("somebody else has changed something meanwhile")
        .says("done: create role `CVM_QcsRole`");
    env.assert_authorized();
}

#[test]
fn a_policy_of_others_under_our_name_is_neither_changed_nor_deleted() {
    let env = TestEnv::new();
    let document = json!({"version": "2.0", "statement": []}).to_string();
    env.cloud.change(|world| {
        world.roles[0].policies.clear();
        world.policies = vec![CustomPolicy {
            name: POLICY.to_owned(),
            description: "by hand".to_owned(),
            document: document.clone(),
        }];
    });
    env.line(AUTHORIZE).ends_with(3).says("has not made");
    env.line("authorize --bucket exports --revoke --yes")
        .ends_with(0)
        .says("it was not made by cvm-export");
    env.assert_changes(&[]);
}

#[test]
fn cvm_is_added_to_those_who_may_take_the_role_on() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.roles[0].trust = Role::trust_in("scf.qcloud.com");
    });
    env.line(&format!("image {LINUX}")).ends_with(3);
    env.line(AUTHORIZE)
        .ends_with(0)
        .says("besides all that may do so already");
    env.assert_changes(&["UpdateAssumeRolePolicy"]);
    let trust = env.cloud.change(|world| world.roles[0].trust.clone());
    let trust: Value = serde_json::from_str(&trust).expect("JSON");
    let service = |place: usize| &trust["statement"][place]["principal"]["service"][0];
    assert_eq!(service(0), "scf.qcloud.com");
    assert_eq!(service(1), "cvm.qcloud.com");
    env.line(&format!("image {LINUX}")).ends_with(0);
}

#[test]
fn another_bucket_and_another_prefix_stay_closed() {
    let env = fresh();
    env.cloud.change(|world| {
        let region = "ap-guangzhou".parse().expect("region");
        world.add_bucket("other-1250000000", region);
    });
    env.line(AUTHORIZE).ends_with(0);
    env.line("image --id img-linux001 --bucket other --prefix p")
        .ends_with(5)
        .says("InvalidBucketPermissionForExport");
    env.line("authorize --bucket exports --prefix p --yes")
        .ends_with(0)
        .says("replace what policy");
    env.line("image --id img-linux001 --bucket exports --prefix q")
        .ends_with(5)
        .says("InvalidBucketPermissionForExport")
        .says("`cvm-export authorize --bucket exports-1250000000` shows");
    env.line(&format!("image {LINUX}")).ends_with(0);
}

#[test]
fn a_recommended_command_reaches_the_account_and_the_hosts_of_the_run() {
    let env = fresh();
    let keys = env.cloud.credentials();
    let folder = env.home.path().join(".tccli");
    std::fs::create_dir(&folder).expect("a folder");
    let credential =
        json!({"secretId": keys.secret_id, "secretKey": keys.secret_key.expose()}).to_string();
    std::fs::write(folder.join("my work.credential"), credential).expect("a file");
    let flags = [
        "--profile",
        "my work",
        "--site",
        "intl",
        "--cos-domain",
        "tencentcos.cn",
        "--regional-api",
    ];
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').chain(flags).collect();
        env.run(&words)
    };
    let program =
        "cvm-export --profile 'my work' --site intl --cos-domain tencentcos.cn --regional-api";
    let authorize = format!("`{program} authorize --bucket exports-1250000000 --prefix p`");
    let refused = run(&format!("image {LINUX}"))
        .ends_with(3)
        .says(&authorize)
        .says(&format!("`{program} check`"));
    let elsewhere = refused.stderr.replace(&format!("`{program} "), "");
    assert!(!elsewhere.contains("`cvm-export "), "{elsewhere}");
    let error = run(&format!("image {LINUX} --output json")).ends_with(3);
    let findings = error.error_json()["findings"].to_string();
    assert!(findings.contains(&authorize), "{findings}");
    let checked = run("check --id img-linux001 --bucket exports --prefix p --output json");
    let findings = checked.ends_with(3).json()["findings"].to_string();
    assert!(findings.contains(&authorize), "{findings}");
    // Keys are not repeated.
    let key = keys.secret_key.expose();
    let id = &keys.secret_id;
    env.line(&format!(
        "image {LINUX} --secret-id {id} --secret-key {key}"
    ))
    .ends_with(3)
    .says("`cvm-export authorize --bucket exports-1250000000 --prefix p`")
    .does_not_say(key);

    run("authorize --bucket exports --yes").ends_with(0);
    let left = run(&format!("image {LINUX} --no-wait --output json")).ends_with(0);
    let watch = format!("watch again: {program} wait --region ap-guangzhou");
    assert!(left.stderr.contains(&watch), "{}", left.stderr);
    // Another machine has no such profile, and finds the bucket without these hosts.
    let reattach = left.json()["reattach"].to_string();
    assert!(
        reattach.starts_with(r#"["cvm-export","wait","--region""#),
        "{reattach}"
    );
    let claim = env.cloud.change(|world| {
        let object = world.object("exports-1250000000", "p_img-linux001.cvm-export.json");
        let content = &object.expect("the record").content;
        let mut bytes = vec![0; usize::try_from(content.size_bytes()).expect("small")];
        content.read_at(0, &mut bytes).expect("readable");
        String::from_utf8(bytes).expect("JSON")
    });
    let journal = crate::support::files_below(&env.state_folder());
    let journal: Vec<String> = journal.into_iter().map(|(_, content)| content).collect();
    for record in [claim, journal.concat()] {
        assert!(record.contains("img-linux001"), "{record}");
        assert!(!record.contains("my work"), "{record}");
    }
}

#[test]
fn a_prefix_is_recommended_only_where_it_lasts() {
    let env = fresh();
    for (prefix, flag) in [
        ("team-a", " --prefix team-a`"),
        ("team-{date}", "`"),
        ("team-{image_id}", "`"),
        ("team*", "`"),
    ] {
        let command = format!("`cvm-export authorize --bucket exports-1250000000{flag}");
        for line in [
            format!("check --bucket exports --prefix {prefix}"),
            format!("check --id img-linux001 --bucket exports --prefix {prefix}"),
        ] {
            env.line(&line).ends_with(3).says(&command);
        }
    }
}

#[test]
fn missing_rights_are_named() {
    let env = fresh();
    env.cloud.change(|world| {
        world.denied.insert("CreatePolicy".to_owned());
    });
    let run = env.line(&format!("{AUTHORIZE} --output json"));
    let run = run.ends_with(4).prints("");
    let hint = run.error_json()["hint"].to_string();
    assert!(
        hint.contains("done before: create role `CVM_QcsRole`"),
        "{hint}"
    );
    for right in ["cam:CreateRole", "cam:CreatePolicy", "cam:AttachRolePolicy"] {
        assert!(hint.contains(right), "{right}: {hint}");
    }
    // Once the right is there, the same command completes it.
    env.cloud.change(|world| world.denied.clear());
    env.line(AUTHORIZE).ends_with(0);
    env.assert_authorized();

    env.cloud.change(|world| {
        world.denied.insert("GetRole".to_owned());
    });
    env.line(AUTHORIZE).ends_with(4).says("cam:ListPolicies");
}

#[test]
fn an_effect_that_comes_late_is_waited_for() {
    let env = fresh();
    env.cloud.change(|world| {
        world.access_delay = Some(Duration::from_millis(400));
    });
    env.line(AUTHORIZE).ends_with(0);
    env.line(&format!("image {LINUX}")).ends_with(0);

    let env = fresh();
    env.cloud.change(|world| {
        world.access_delay = Some(Duration::from_secs(3600));
    });
    let run = env
        .line(&format!("{AUTHORIZE} --timeout 300ms --output json"))
        .ends_with(6)
        .says("does not show it yet");
    assert_eq!(run.json()["state"], "not-seen-yet");
}

#[test]
fn lost_answers_end_complete_and_nothing_is_doubled() {
    for call in ["CreateRole", "CreatePolicy", "AttachRolePolicy"] {
        for effect in [Effect::ProcessedThenReset, Effect::ResetBefore] {
            let env = fresh();
            env.cloud.set_faults(vec![fault(call, effect.clone())]);
            env.line(AUTHORIZE).ends_with(0);
            env.assert_authorized();
            let is_creation = call.starts_with("Create");
            if is_creation && matches!(effect, Effect::ProcessedThenReset) {
                assert_eq!(env.calls(call), 1, "{call} was looked up, not repeated");
            }
        }
    }
}

#[test]
fn a_lost_answer_whose_effect_comes_late_is_complete_as_well() {
    let env = fresh();
    env.cloud.change(|world| {
        world.access_delay = Some(Duration::from_millis(300));
    });
    env.cloud
        .set_faults(vec![fault("CreateRole", Effect::ProcessedThenReset)]);
    env.line(AUTHORIZE).ends_with(0);
    env.assert_authorized();
}

#[test]
fn image_makes_the_role_when_and_only_when_its_check_fails() {
    let env = TestEnv::new();
    env.line(&format!("image {LINUX} --authorize --yes"))
        .ends_with(0);
    env.assert_changes(&[]);

    let env = fresh();
    env.line(&format!("image {LINUX} --authorize --yes"))
        .ends_with(0)
        .says("done: create role `CVM_QcsRole`");
    env.assert_changes(&["CreateRole", "CreatePolicy", "AttachRolePolicy"]);
    env.assert_submits(1);
    env.assert_authorized();
}

#[test]
fn image_makes_no_role_for_an_export_that_is_refused_anyway() {
    let env = fresh();
    for (line, reason) in [
        (
            "image --id img-window03 --bucket exports --prefix p",
            "Windows",
        ),
        ("image --id img-toobig05 --bucket exports --prefix p", "500"),
        (
            "image --id img-nowhere1 --bucket exports --prefix p",
            "no image",
        ),
        (
            &format!("image {LINUX} --max-cost 0.01"),
            "`--max-cost` allows",
        ),
    ] {
        for consent in ["--yes", "--dry-run"] {
            env.line(&format!("{line} --authorize {consent}"))
                .ends_with(3)
                .says("is refused anyway, so no role is made for it")
                .says(reason)
                .does_not_say("create role");
        }
    }
    let two = "image --id img-linux001,img-faraway6 --prefix {image_id}";
    env.line(&format!(
        "{two} --bucket exports --max-cost 0.01 --authorize --yes"
    ))
    .ends_with(3);
    env.assert_changes(&[]);
    // The calls in the log are the cloud's own dry runs.
    assert!(env.cloud.change(|world| world.started_tasks().is_empty()));
    // One that can be exported is enough, and so is the price that is allowed.
    env.line("image --id img-window03,img-linux001 --bucket exports --prefix {image_id} --authorize --yes --max-cost 1000")
        .ends_with(10);
    env.assert_authorized();
    // A copy is judged as the copy, and a check that is skipped does not count.
    for line in [
        "image --id img-linux001 --bucket north --prefix c --copy-to-bucket-region --authorize --yes",
        "image --id img-window03 --bucket north --prefix w --copy-to-bucket-region --skip-check platform --authorize --yes",
    ] {
        let env = fresh();
        env.cloud.change(|world| {
            world.copy_seconds = Some(0.0);
            world.add_bucket("north-1250000000", "ap-beijing".parse().expect("region"));
        });
        drop(env.line(line));
        let (_, policies) = env.access();
        assert_eq!(policies, ["cvm-export-north-1250000000"], "{line}");
    }
}

#[test]
fn a_role_that_is_not_seen_yet_by_the_next_step_is_waited_for() {
    let env = fresh();
    let unseen = |code: &str| {
        let effect = Effect::ApiError {
            code: code.to_owned(),
        };
        fault("AttachRolePolicy", effect)
    };
    env.cloud.set_faults(vec![
        unseen("InvalidParameter.RoleNotExist"),
        cvm_export::simulator::Fault {
            occurrence: Some(2),
            ..unseen("ResourceNotFound.PolicyIdNotExist")
        },
    ]);
    env.line(AUTHORIZE).ends_with(0);
    env.assert_authorized();
    let attach = "AttachRolePolicy";
    env.assert_changes(&["CreateRole", "CreatePolicy", attach, attach, attach]);
}

/// Runs `line` on a terminal of its own, where `typed` is typed once the question is there and
/// `meanwhile` has happened; everything that is shown comes back.
#[cfg(target_os = "linux")]
fn at_a_terminal(
    env: &TestEnv,
    line: &str,
    meanwhile: impl FnOnce(),
    typed: &str,
) -> (Option<i32>, String) {
    use std::io::{Read, Write};
    let plain = env.command(&[]);
    let command = format!("{} {line}", plain.get_program().to_str().expect("a path"));
    let variables = plain
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    // Part of util-linux, whose package every Debian has.
    let mut terminal = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env_clear()
        .envs(variables)
        .current_dir(env.home.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("`script` starts");
    let mut keyboard = terminal.stdin.take().expect("it is piped");
    let mut screen = terminal.stdout.take().expect("it is piped");
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(b"[y/N] ") && screen.read(&mut byte).expect("a screen") > 0 {
        shown.push(byte[0]);
    }
    meanwhile();
    keyboard.write_all(typed.as_bytes()).expect("it listens");
    screen.read_to_end(&mut shown).expect("a screen");
    let code = terminal.wait().expect("an end").code();
    drop(keyboard);
    (code, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
#[cfg(target_os = "linux")]
fn at_a_terminal_only_yes_is_yes() {
    let line = "authorize --bucket exports";
    for typed in ["n\n", "\n", "yes please\n", "\u{4}", "\u{3}"] {
        let env = fresh();
        let (code, shown) = at_a_terminal(&env, line, || (), typed);
        let expected = if typed == "\u{3}" { 130 } else { 3 };
        assert_eq!(code, Some(expected), "{typed:?}: {shown}");
        assert!(shown.contains("create role `CVM_QcsRole`"), "{shown}");
        assert!(shown.contains("nothing was changed"), "{shown}");
        env.assert_changes(&[]);
    }
    for typed in ["y\n", " YES \n"] {
        let env = fresh();
        let (code, shown) = at_a_terminal(&env, line, || (), typed);
        assert_eq!(code, Some(0), "{typed:?}: {shown}");
        env.assert_authorized();
    }
    let env = fresh();
    let line = format!("image {LINUX} --authorize");
    let (code, shown) = at_a_terminal(&env, &line, || (), "y\n");
    assert_eq!(code, Some(0), "{shown}");
    env.assert_submits(1);
}

#[test]
#[cfg(target_os = "linux")]
fn what_was_agreed_to_is_not_done_once_others_have_changed_it() {
    const CHANGED: &str = "no longer what was shown";
    // A role that carries more by the time of the answer is not deleted.
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    let revoke = "authorize --bucket exports --revoke";
    let others = || {
        env.line("authorize --preset QcloudCOSFullAccess --yes")
            .ends_with(0);
    };
    let (code, shown) = at_a_terminal(&env, revoke, others, "y\n");
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains(CHANGED), "{shown}");
    assert!(shown.contains("cvm-export authorize --bucket exports-1250000000 --revoke"));
    let (roles, policies) = env.access();
    assert_eq!(roles[0].1.len(), 2, "{roles:?}");
    assert_eq!(policies, [POLICY]);

    // Whoever was taken off the trust meanwhile does not come back.
    let env = TestEnv::new();
    let trust_of = |service: &str| {
        let trust = Role::trust_in(service);
        env.cloud
            .change(|world| world.roles[0].trust = trust.clone());
        trust
    };
    trust_of("scf.qcloud.com");
    let line = "authorize --bucket exports";
    let (code, shown) = at_a_terminal(&env, line, || drop(trust_of("ims.qcloud.com")), "y\n");
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains(CHANGED), "{shown}");
    env.assert_changes(&[]);

    // A policy that was changed by hand meanwhile is not replaced.
    let env = fresh();
    env.line(AUTHORIZE).ends_with(0);
    let denied = json!({"version": "2.0", "statement": [{"effect": "deny", "action": "*", "resource": "*"}]});
    let by_hand = || {
        env.cloud
            .change(|world| world.policies[0].document = denied.to_string());
    };
    let line = "authorize --bucket exports --prefix p/";
    let (code, shown) = at_a_terminal(&env, line, by_hand, "y\n");
    assert_eq!(code, Some(3), "{shown}");
    let document = env.cloud.change(|world| world.policies[0].document.clone());
    assert_eq!(document, denied.to_string());
}

#[test]
#[cfg(target_os = "linux")]
fn a_document_does_not_decide_what_the_person_sees() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.roles[0].trust = json!({"version": "2.0", "statement": [
            {"effect": "allow", "action": "name/sts:AssumeRole",
             "principal": {"service": ["a\u{9b}2J\u{202e}\u{2066}b"]}}]})
        .to_string()
        .replace('\u{9b}', "\\u009b")
        .replace('\u{202e}', "\\u202e")
        .replace('\u{2066}', "\\u2066");
    });
    let (_, shown) = at_a_terminal(&env, "authorize --bucket exports", || (), "n\n");
    assert!(shown.contains(r"a\u009b2J\u202e\u2066b"), "{shown}");
    for form in ["text", "json", "ndjson"] {
        let run = env.line(&format!(
            "authorize --bucket exports --dry-run --output {form}"
        ));
        for text in [&shown, &run.stdout, &run.stderr] {
            let acts = |c: char| "\u{9b}\u{202e}\u{2066}".contains(c);
            assert!(!text.contains(acts), "{form}: {text}");
        }
    }
}

#[test]
fn no_role_gets_or_loses_a_right_because_of_another() {
    let env = fresh();
    let run = |line: &str, code: i32| env.line(line).ends_with(code);
    run(
        "authorize --bucket exports --role-name A --prefix team-a/ --yes",
        0,
    );
    let document = |env: &TestEnv| env.cloud.change(|world| world.policies[0].document.clone());
    let of_a = document(&env);
    run(
        "authorize --bucket exports --role-name B --prefix team-b/ --yes",
        0,
    );
    let others = format!("image {LINUX} --role-name C --authorize --yes --no-wait -q");
    // What is done to rights is said however quiet the run.
    run(&others, 0).says("create role `C`");
    assert_eq!(document(&env), of_a);
    let own = |role: &str| format!("{POLICY}-{role}");
    let (roles, policies) = env.access();
    assert_eq!(policies, [own("a"), own("b"), own("c")]);
    assert_eq!(roles[0], ("A".to_owned(), vec![own("a")]));

    // A policy that somebody has given to others as well is not changed any more.
    env.cloud.change(|world| {
        let policy = world.roles[0].policies[0].clone();
        world.roles[1].policies.push(policy);
    });
    run("authorize --bucket exports --role-name A --yes", 3).says("carry it as well");
    assert_eq!(document(&env), of_a);

    // `image --authorize` replaces no policy, whatever was agreed to.
    run("authorize --bucket exports --prefix q/ --yes", 0);
    env.cloud.change(|world| {
        let ours = world
            .roles
            .iter_mut()
            .find(|role| role.name == "CVM_QcsRole");
        ours.expect("it was made").policies.clear();
    });
    let another = "image --id img-linux001 --bucket exports --prefix r --authorize --yes";
    run(another, 3)
        .says("replaces none")
        .says("`cvm-export authorize --bucket exports-1250000000`");
    env.line("authorize --bucket exports --prefix p --revoke --yes")
        .ends_with(2)
        .says("--revoke");
}
