//! `authorize`, and `image --authorize`: what CVM needs is shown, asked about, made, and taken back.

mod by_image;
mod revocation;

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
    for quiet in [
        "authorize --bucket far --region ap-guangzhou --dry-run",
        "authorize --bucket exports --dry-run",
        "authorize --bucket nope --region ap-guangzhou --revoke --yes",
    ] {
        env.line(quiet).ends_with(0).does_not_say("warning");
    }
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
            key: None,
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
fn a_role_whose_trust_denies_cvm_is_left_to_whoever_denies_it() {
    let denies = json!({"effect": "deny", "action": "name/sts:AssumeRole",
        "principal": {"service": ["cvm.qcloud.com"]}});
    let allows = json!({"effect": "allow", "action": "name/sts:AssumeRole",
        "principal": {"service": ["cvm.qcloud.com"]}});
    for statements in [vec![denies.clone()], vec![allows, denies]] {
        let env = TestEnv::new();
        let trust = json!({"version": "2.0", "statement": statements}).to_string();
        env.cloud.change(|world| world.roles[0].trust = trust);
        env.line(AUTHORIZE)
            .ends_with(3)
            .says("somebody denies the service CVM");
        env.assert_changes(&[]);
    }
}

#[test]
fn calls_that_come_too_often_are_sent_again() {
    let env = fresh();
    let often = Effect::ApiError {
        code: "RequestLimitExceeded".to_owned(),
    };
    env.cloud.set_faults(
        ["CreateRole", "CreatePolicy", "AttachRolePolicy"]
            .map(|call| fault(call, often.clone()))
            .to_vec(),
    );
    env.line(AUTHORIZE).ends_with(0);
    env.assert_authorized();
}

#[test]
fn trust_under_a_condition_is_not_certain() {
    let env = TestEnv::new();
    let trust = json!({"version": "2.0", "statement": [{"effect": "allow",
        "action": "name/sts:AssumeRole", "principal": {"service": ["cvm.qcloud.com"]},
        "condition": {"ip_equal": {"qcs:ip": "10.0.0.0/8"}}}]});
    env.cloud
        .change(|world| world.roles[0].trust = trust.to_string());
    let run = env.line("check --bucket exports").ends_with(0);
    assert!(
        run.stdout.contains("whether it trusts CVM is not certain"),
        "{}",
        run.stdout
    );
}
