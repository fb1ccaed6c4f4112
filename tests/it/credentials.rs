//! Where credentials come from, through the binary. The chain's cases are tested beside the chain.

use std::fs;

use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::{Role, World};

use crate::support::{TestEnv, wait_until};

/// A world that knows no keys but those of the test.
fn without_environment() -> (TestEnv, String, String) {
    let mut env = TestEnv::new();
    let Credentials {
        secret_id,
        secret_key,
        ..
    } = env.cloud.credentials();
    env.unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY");
    (env, secret_id, secret_key.expose().to_owned())
}

#[test]
fn without_any_every_place_is_named_and_the_code_is_4() {
    let (env, ..) = without_environment();
    let run = env.line("images --bucket exports").ends_with(4);
    for place in [
        "--secret-id",
        "TENCENTCLOUD_SECRET_ID",
        ".tccli/default.credential",
        ".tencentcloud/credentials",
        "--simulate",
    ] {
        assert!(
            run.stderr.contains(place),
            "`{place}` is missing in\n{}",
            run.stderr
        );
    }
    assert!(env.cloud.calls().is_empty());
}

#[test]
fn a_tccli_profile_brings_keys_and_region() {
    let (mut env, id, key) = without_environment();
    let folder = env.home.path().join(".tccli");
    fs::create_dir(&folder).expect("a folder");
    let credential = serde_json::json!({"secretId": id, "secretKey": key});
    fs::write(folder.join("work.credential"), credential.to_string()).expect("a file");
    fs::write(
        folder.join("work.configure"),
        r#"{"_sys_param": {"region": "ap-singapore", "output": "json"}}"#,
    )
    .expect("a file");
    let run = env.line("images --profile work -v").ends_with(0);
    assert!(run.stdout.contains("img-faraway6"), "{}", run.stdout);
    run.says("tccli profile `work`")
        .says("chmod 600")
        .says("region: ap-singapore (tccli profile `work`");
    env.set("TCCLI_PROFILE", "work");
    env.line("images").ends_with(0);
    // The bucket's own region wins over the profile's, with one line.
    let run = env.line("images --bucket exports").ends_with(0);
    assert!(run.stdout.contains("img-linux001"), "{}", run.stdout);
    run.says("not ap-singapore from tccli profile `work`");
    // With a profile named by a flag the environment is ignored, as in tccli.
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDother")
        .set("TENCENTCLOUD_SECRET_KEY", "other");
    env.line("images --profile work -v")
        .ends_with(0)
        .says("ignored, as --profile work is given");
    env.line("images --region ap-guangzhou").ends_with(4);
}

#[test]
fn the_sdks_file_is_read() {
    let (env, id, key) = without_environment();
    let folder = env.home.path().join(".tencentcloud");
    fs::create_dir(&folder).expect("a folder");
    fs::write(
        folder.join("credentials"),
        format!("[default]\nsecret_id = {id}\nsecret_key = {key}\n"),
    )
    .expect("a file");
    env.line("images --bucket exports -v")
        .ends_with(0)
        .says(".tencentcloud/credentials");
}

#[test]
fn a_place_that_is_broken_stops_and_names_itself() {
    let (mut env, ..) = without_environment();
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDalone");
    env.line("images --bucket exports")
        .ends_with(4)
        .says("TENCENTCLOUD_SECRET_KEY: it is not set");
    env.set("TENCENTCLOUD_SECRET_KEY", "blank at the end ");
    env.line("images --bucket exports")
        .ends_with(4)
        .says("a blank or a line break around it")
        .does_not_say("at the end");
    env.unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY");
    env.line("images --bucket exports --profile missing")
        .ends_with(4)
        .says("tccli profile `missing`");
    env.line("images --bucket exports --profile ../../etc/passwd")
        .ends_with(4)
        .says("--profile");
}

#[test]
fn temporary_keys_carry_their_token_under_both_names() {
    for name in ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"] {
        let mut env = TestEnv::new();
        env.cloud.change(|world| {
            world.accept(Credentials {
                secret_id: "AKIDtemporary".to_owned(),
                secret_key: Secret::new("temporary"),
                token: Some(Secret::new("the-token")),
                expires_at: None,
            });
        });
        env.set("TENCENTCLOUD_SECRET_ID", "AKIDtemporary")
            .set("TENCENTCLOUD_SECRET_KEY", "temporary");
        env.line("images --bucket exports").ends_with(4);
        env.set(name, "the-token");
        env.line("image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms")
            .ends_with(0);
    }
}

#[test]
fn keys_by_flags_win_and_are_warned_about_once() {
    let (mut env, id, key) = without_environment();
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDother")
        .set("TENCENTCLOUD_SECRET_KEY", "other");
    let run = env
        .line(&format!(
            "images --bucket exports --secret-id {id} --secretKey {key}"
        ))
        .ends_with(0);
    assert_eq!(run.stderr.matches("warning:").count(), 1, "{}", run.stderr);
}

/// An environment with keys that may take on the role `ci`, whose own keys live for two seconds.
fn with_short_lives() -> TestEnv {
    let mut env = TestEnv::new();
    let arn = env.cloud.change(|world| {
        world.keys.life_seconds = Some(2);
        let role = Role::for_callers("ci", &world.uin);
        world.roles.push(role);
        format!("qcs::cam::uin/{}:roleName/ci", world.uin)
    });
    env.set("TENCENTCLOUD_ROLE_ARN", &arn);
    env
}

/// Who signed the calls of `operation` that were answered well.
fn signers(env: &TestEnv, operation: &str) -> Vec<String> {
    let calls = env.cloud.calls().into_iter();
    let done = calls.filter(|call| call.operation == operation && call.status / 100 == 2);
    let mut signers: Vec<_> = done.filter_map(|call| call.secret_id).collect();
    signers.dedup();
    signers
}

#[test]
fn keys_that_end_in_the_middle_of_an_export_are_renewed_and_it_is_submitted_once() {
    let env = with_short_lives();
    env.cloud.change(|world| world.export_seconds = Some(5.0));
    env.line("image --id img-linux001 --bucket exports --prefix p --poll-interval 200ms -vvv")
        .ends_with(0)
        .does_not_say("could not be renewed");
    env.assert_submits(1);
    assert!(env.calls("AssumeRole") >= 3, "{}", env.calls("AssumeRole"));
    assert!(signers(&env, "ListMultipartUploads").len() >= 2);
}

#[test]
fn keys_that_end_in_the_middle_of_a_download_are_renewed_and_no_byte_is_lost() {
    let env = with_short_lives();
    let content: Vec<u8> = (0..6_u32 << 20).map(|n| ((n * 31) >> 7) as u8).collect();
    env.cloud.change(|world| {
        world.put_object("exports-1250000000", "p/disk.raw", content.clone());
    });
    env.line("download cos://exports-1250000000/p/disk.raw --to disk.raw --limit-rate 1MiB --part-size 1MiB --concurrency 1 -vvv")
        .ends_with(0);
    let fetched = fs::read(env.home.path().join("disk.raw")).expect("the file");
    assert!(fetched == content, "the file differs");
    assert!(env.calls("AssumeRole") >= 3, "{}", env.calls("AssumeRole"));
    assert!(signers(&env, "GetObject").len() >= 2);
}

#[test]
fn a_role_that_is_lost_for_a_while_is_told_once_and_the_export_goes_on() {
    let env = with_short_lives();
    env.cloud.change(|world| world.export_seconds = Some(6.0));
    let line = "image --id img-linux001 --bucket exports --prefix p --poll-interval 200ms";
    let running = env.start(&line.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("ExportImages", 1);
    let deny = |world: &mut World| world.denied.insert("AssumeRole".to_owned());
    assert!(env.cloud.change(deny), "it was allowed until now");
    let refusals = || {
        let calls = env.cloud.calls().into_iter();
        calls
            .filter(|call| call.code.as_deref() == Some("UnauthorizedOperation"))
            .count()
    };
    wait_until(|| "refused renewals".to_owned(), || refusals() >= 3);
    env.cloud.change(|world| world.denied.clear());
    let run = running.wait().ends_with(0);
    let told = run.stderr.matches("could not be renewed").count();
    assert_eq!(told, 1, "{}", run.stderr);
    env.assert_submits(1);
}
