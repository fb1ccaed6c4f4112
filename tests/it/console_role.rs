//! Roles whose policies have names that no client knows, as the one that the console makes.

use cvm_export::simulator::{CustomPolicy, Effect, Fault, Policy, Preset, Role};
use serde_json::json;

use crate::support::TestEnv;

const CHECK: &str = "check --id img-linux001 --bucket exports --prefix p";
/// It makes no dry run, which the cloud would refuse.
const ACCOUNT: &str = "check --bucket exports";
const IMAGE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
const AUTHORIZE: &str = "authorize --bucket exports";

/// A world whose role is as the console's tick makes it.
fn by_console() -> TestEnv {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.roles[0] = Role::by_console());
    env
}

/// A world whose role carries `policies`.
fn carrying(policies: Vec<Policy>) -> TestEnv {
    let env = by_console();
    env.cloud.change(|world| world.roles[0].policies = policies);
    env
}

/// What `check` says of the role, the verdict first.
#[track_caller]
fn verdict(env: &TestEnv, line: &str, code: i32) -> (String, String) {
    let run = env.line(&format!("{line} --output json")).ends_with(code);
    let report = run.json();
    let findings = report["findings"].as_array().expect("findings");
    let role = findings.iter().find(|finding| finding["check"] == "role");
    let role = role.expect("the check of the role");
    let text = |name: &str| role[name].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("evidence") + " | " + &text("remedy"))
}

#[track_caller]
fn assert_verdict(env: &TestEnv, code: i32, verdict_expected: &str, words: &str) {
    let (seen, said) = verdict(env, CHECK, code);
    assert_eq!(seen, verdict_expected, "{said}");
    assert!(said.contains(words), "`{words}` is missing in: {said}");
}

#[test]
fn the_role_that_the_console_makes_passes() {
    let env = by_console();
    assert_verdict(&env, 0, "pass", "by QcloudCOSAccessForCVMRole");
    assert_eq!(env.calls("GetPolicy"), 1);
    env.line(IMAGE).ends_with(0).does_not_say("not known: role");
    // Neither does the account need a bucket to be named, nor is a role made that is there.
    let (seen, said) = verdict(&env, "check", 0);
    assert_eq!(seen, "pass", "{said}");
    env.line(&format!(
        "{IMAGE} --authorize --resubmit --if-exists overwrite --yes"
    ))
    .ends_with(0);
    assert_eq!(env.calls("CreatePolicy"), 0);
}

#[test]
fn simulate_can_begin_with_the_role_of_the_console() {
    let env = TestEnv::new();
    let binary = env!("CARGO_BIN_EXE_cvm-export");
    let run = env
        .line(&format!(
            "simulate --console-role -- {binary} check --bucket exports"
        ))
        .ends_with(0);
    assert!(
        run.stdout.contains("QcloudCOSAccessForCVMRole"),
        "{}",
        run.stdout
    );
    env.line("simulate --console-role --no-role -- true")
        .ends_with(2);
}

#[test]
fn a_preset_that_may_not_be_read_warns_and_the_export_goes_on() {
    let env = by_console();
    env.cloud
        .change(|world| world.denied.insert("GetPolicy".to_owned()));
    assert_verdict(&env, 0, "unknown", "allow `cam:GetPolicy`");
    env.line(IMAGE).ends_with(0).says("not known: role");

    let env = by_console();
    let failing = Effect::ApiError {
        code: "ResourceNotFound.PolicyIdNotFound".to_owned(),
    };
    env.cloud.set_faults(vec![Fault::new("GetPolicy", failing)]);
    assert_verdict(&env, 0, "unknown", "try again");
}

#[test]
fn a_preset_that_was_read_and_allows_no_writing_fails() {
    let env = carrying(vec![
        Policy::preset("QcloudKMSAccessForCVMRole"),
        Policy::preset("QcloudNewThing"),
    ]);
    env.cloud.change(|world| {
        world
            .presets
            .push(Preset::allowing("QcloudNewThing", &["cos:Get*", "kms:*"]));
    });
    assert_verdict(&env, 3, "fail", "nothing that allows writing to COS");
    // The one that is known by its name was not read.
    assert_eq!(env.calls("GetPolicy"), 1);
    env.line(IMAGE).ends_with(3).says("nothing was submitted");
    env.line(&format!("{IMAGE} --authorize --yes")).ends_with(0);
}

#[test]
fn each_policy_is_read_once_and_none_beside_a_preset_that_is_known_to_write() {
    let names = ["QcloudA", "QcloudB", "QcloudC"];
    let policies = || names.map(Policy::preset).to_vec();
    let env = carrying(policies());
    let add = |env: &TestEnv| {
        env.cloud.change(|world| {
            world.presets.push(Preset::allowing("QcloudA", &["cvm:*"]));
            world.presets.push(Preset::allowing("QcloudB", &["cos:*"]));
            world
                .presets
                .push(Preset::allowing("QcloudC", &["cos:Get*"]));
        });
    };
    add(&env);
    assert_verdict(&env, 0, "pass", "by QcloudB");
    assert_eq!(env.calls("GetPolicy"), 3);
    env.cloud.change(|world| {
        let known = Policy::preset("QcloudCOSDataFullControl");
        world.roles[0].policies.push(known);
    });
    env.cloud.clear_calls();
    assert_verdict(&env, 0, "pass", "carries QcloudCOSDataFullControl");
    assert_eq!(env.calls("GetPolicy"), 0);
    // What the account wrote itself is judged the same way.
    let env = carrying(vec![Policy::custom("mine"), Policy::preset("QcloudC")]);
    add(&env);
    let statement = |bucket: &str| {
        json!({"version": "2.0", "statement": [{"effect": "allow", "action": "name/cos:*",
            "resource": format!("qcs::cos:ap-guangzhou:uid/1250000000:{bucket}/*")}]})
        .to_string()
    };
    for (bucket, code, verdict, words) in [
        ("exports-1250000000", 0, "pass", "by mine"),
        (
            "other-1250000000",
            3,
            "fail",
            "writing to bucket `exports-1250000000`",
        ),
    ] {
        env.cloud.change(|world| {
            world.policies = vec![CustomPolicy {
                name: "mine".to_owned(),
                description: String::new(),
                document: statement(bucket),
            }];
        });
        assert_verdict(&env, code, verdict, words);
    }
}

#[test]
fn an_odd_document_is_for_the_cloud_to_weigh() {
    let huge = format!("{}{{}}", " ".repeat(20 << 20));
    for document in [
        "",
        "<html>",
        "{}",
        "[]",
        "null",
        r#"{"statement": 7}"#,
        &huge,
    ] {
        let env = by_console();
        env.cloud.change(|world| {
            world.presets = vec![Preset {
                name: Preset::BY_CONSOLE.to_owned(),
                document: document.to_owned(),
            }];
        });
        let (seen, said) = verdict(&env, ACCOUNT, 0);
        assert_eq!(seen, "unknown", "{} bytes: {said}", document.len());
    }
}

#[test]
fn a_kind_of_policy_or_principal_that_is_not_known_is_no_failure() {
    let env = by_console();
    env.cloud.change(|world| {
        world.roles[0].policies[0].policy_type = "Novel".to_owned();
    });
    let (seen, said) = verdict(&env, ACCOUNT, 0);
    let words = "by QcloudCOSAccessForCVMRole";
    assert!(seen == "pass" && said.contains(words), "{seen}: {said}");

    let env = by_console();
    env.cloud.change(|world| {
        world.roles[0].trust = json!({"version": "2.0", "statement": [{"effect": "allow",
            "action": "name/sts:AssumeRole", "principal": {"product": ["cvm"]}}]})
        .to_string();
    });
    let (seen, said) = verdict(&env, ACCOUNT, 0);
    let words = "whether it trusts CVM is not certain";
    assert!(seen == "unknown" && said.contains(words), "{seen}: {said}");
}

#[test]
fn authorize_adds_nothing_beside_a_preset_that_allows() {
    let env = by_console();
    let run = env.line(&format!("{AUTHORIZE} --dry-run")).ends_with(0);
    let text =
        "preset policy `QcloudCOSAccessForCVMRole`, which allows the writing that is asked for";
    assert!(run.stdout.contains(text), "{}", run.stdout);
    env.cloud.clear_calls();
    env.line(&format!("{AUTHORIZE} --yes"))
        .ends_with(0)
        .says("this bucket, which needs no policy of its own");
    let changes = ["CreatePolicy", "AttachRolePolicy", "UpdateAssumeRolePolicy"];
    assert_eq!(changes.map(|call| env.calls(call)), [0, 0, 0]);
    assert_eq!(env.calls("GetPolicy"), 1);

    // What else is missing is made, with the document read once.
    let env = by_console();
    env.cloud
        .change(|world| world.roles[0].trust = Role::trust_in("scf.qcloud.com"));
    env.line(&format!("{AUTHORIZE} --yes")).ends_with(0);
    assert_eq!(changes.map(|call| env.calls(call)), [0, 0, 1]);
    assert_eq!(env.calls("GetPolicy"), 1);
    env.line(&format!("{AUTHORIZE} --revoke --yes"))
        .ends_with(0)
        .says("may still write there, by QcloudCOSAccessForCVMRole");

    // One that may not be read is no reason to do nothing.
    let env = by_console();
    env.cloud.set_faults(vec![
        Fault::new(
            "GetPolicy",
            Effect::ApiError {
                code: "ResourceNotFound.PolicyIdNotFound".to_owned(),
            },
        )
        .with_occurrence(1),
    ]);
    env.line(&format!("{AUTHORIZE} --dry-run"))
        .ends_with(0)
        .says("nothing was changed");
}
