//! Presigned links, fetched by clients that know nothing of this program.

use std::process::{Command, Output};

use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::Role;

use super::BUCKET;
use crate::support::TestEnv;

const KEY: &str = "p/ü b_xvda.raw";

/// Fetches `url` with Python's standard library: status and body.
fn python(env: &TestEnv, method: &str, url: &str) -> (String, String) {
    const SCRIPT: &str = "\
import sys, urllib.error, urllib.request
proxy, method, url = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({'http': proxy}))
try:
    answer = opener.open(urllib.request.Request(url, method=method), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status)
print(answer.read().decode(), end='')
";
    let proxy = env.cloud.endpoint_url();
    told(
        Command::new("python3").args(["-c", SCRIPT, &proxy, method, url]),
        "python3",
    )
}

/// Fetches `url` with curl, where it is installed.
fn curl(env: &TestEnv, url: &str) -> Option<(String, String)> {
    Command::new("curl").arg("--version").output().ok()?;
    let proxy = env.cloud.endpoint_url();
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--proxy",
        &proxy,
        "--write-out",
        "%{stderr}%{http_code}",
        url,
    ]);
    let Output { stdout, stderr, .. } = command.output().expect("curl starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Some((text(stderr), text(stdout)))
}

fn told(command: &mut Command, name: &str) -> (String, String) {
    let output = command.output().unwrap_or_else(|_| panic!("{name} starts"));
    let text = String::from_utf8(output.stdout).expect("text");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let (status, body) = text
        .split_once('\n')
        .unwrap_or_else(|| panic!("{name}: {error}"));
    (status.to_owned(), body.to_owned())
}

fn link(env: &TestEnv, flags: &[&str]) -> String {
    let words = [&["files", "url", KEY, "--bucket", "exports"], flags].concat();
    let run = env.run(&words).ends_with(0);
    run.stdout.trim_end().to_owned()
}

#[test]
fn others_fetch_by_a_link_until_its_end() {
    let env = TestEnv::new();
    env.put(KEY);
    let url = link(&env, &["--expires", "10m"]);
    let host = format!("http://{BUCKET}.cos.ap-guangzhou.myqcloud.com/p/%C3%BC%20b_xvda.raw?");
    assert!(url.starts_with(&host), "{url}");
    let good = ("200".to_owned(), "bytes".to_owned());
    assert_eq!(python(&env, "GET", &url), good);
    if let Some((status, body)) = curl(&env, &url) {
        assert_eq!((status, body), good);
    }
    assert_eq!(python(&env, "HEAD", &url).0, "403", "signed for GET alone");
    let other = url.replace("_xvda.raw?", "_xvdb.raw?");
    assert_eq!(
        python(&env, "GET", &other).0,
        "403",
        "signed for one object"
    );

    env.pass(601);
    let (status, body) = python(&env, "GET", &url);
    assert_eq!(status, "403");
    assert!(body.contains("<Code>AccessDenied</Code>"), "{body}");
    assert!(body.contains("Request has expired"), "{body}");
    if let Some((status, body)) = curl(&env, &url) {
        assert_eq!(status, "403");
        assert!(body.contains("Request has expired"), "{body}");
    }
}

#[test]
fn what_leaks_with_a_link_is_said_and_stdout_is_links_alone() {
    let env = TestEnv::new();
    env.put("a_xvda.raw");
    env.put("b_xvda.raw");
    let run = env
        .line("files url cos://exports/a_xvda.raw cos://exports/b_xvda.raw --expires 1h30m")
        .ends_with(0)
        .says("it cannot be taken back")
        .says("the SecretId can be read in it")
        .says(&format!(
            "`curl --proxy {} --output FILE 'LINK'` fetches",
            env.cloud.endpoint_url()
        ))
        .does_not_say("session token");
    assert_eq!(run.stdout.lines().count(), 2);
    assert!(run.stdout.lines().all(|line| line.starts_with("http://")));
    let json = env
        .line("files url a_xvda.raw --bucket exports --output json")
        .ends_with(0)
        .json();
    assert_eq!(json["schema"], "cvm-export.links.v1");
    assert_eq!(json["items"][0]["size_bytes"], 5);
    assert!(json["items"][0]["expires_at"].is_string());
}

#[test]
fn objects_must_be_there_and_lifetimes_sensible() {
    let env = TestEnv::new();
    env.line("files url a_xvda.raw --bucket exports")
        .ends_with(3)
        .says("there is no object `a_xvda.raw`")
        .prints("");
    env.line("files url a_xvda.raw --bucket exports --no-check")
        .ends_with(0);
    env.line("files url a_xvda.raw")
        .ends_with(2)
        .says("--bucket");
    for expires in ["8d", "0s", "900ms"] {
        env.line(&format!(
            "files url a_xvda.raw --bucket exports --expires {expires}"
        ))
        .ends_with(2)
        .says("lifetime");
    }
    env.put("c_xvda.raw");
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        let object = bucket.objects.get_mut("c_xvda.raw").expect("put");
        object.storage_class = "ARCHIVE".to_owned();
    });
    env.line("files url c_xvda.raw --bucket exports")
        .ends_with(0)
        .says("until it is restored");
    for (class, said) in [
        ("MAZ_ARCHIVE", "is archived (MAZ_ARCHIVE)"),
        ("MAZ_INTELLIGENT_TIERING", "to archive tiers"),
    ] {
        env.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            let object = bucket.objects.get_mut("c_xvda.raw").expect("put");
            object.storage_class = class.to_owned();
        });
        env.line("files url c_xvda.raw --bucket exports")
            .ends_with(0)
            .says(said);
    }
}

#[test]
fn an_export_of_the_journal_has_a_link_for_each_file() {
    let env = TestEnv::new();
    env.export("img-multi002", "p", "");
    let id = env.export_id("p");
    let run = env.line(&format!("files url {id}")).ends_with(0);
    let names: Vec<bool> = run
        .stdout
        .lines()
        .map(|line| line.contains("/p_img-multi002_"))
        .collect();
    assert_eq!(names, [true; 3], "{}", run.stdout);
    env.line("files url exp-nothing")
        .ends_with(2)
        .says("knows no export");
}

#[test]
fn links_of_temporary_keys_carry_the_token_and_end_with_the_keys() {
    let mut env = TestEnv::new();
    env.put(KEY);
    env.cloud.change(|world| {
        world.accept(Credentials {
            secret_id: "AKIDtemporary".to_owned(),
            secret_key: Secret::new("a-key"),
            token: Some(Secret::new("a+token/=")),
            expires_at: None,
        });
    });
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDtemporary")
        .set("TENCENTCLOUD_SECRET_KEY", "a-key")
        .set("TENCENTCLOUD_TOKEN", "a+token/=");
    let url = link(&env, &[]);
    assert!(
        url.contains("x-cos-security-token=a%2Btoken%2F%3D"),
        "{url}"
    );
    assert_eq!(python(&env, "GET", &url).0, "200");
    env.run(&["files", "url", KEY, "--bucket", "exports"])
        .says("nobody told when they end")
        .says("and the session token");

    let env = TestEnv::new();
    env.put(KEY);
    env.cloud.change(|world| {
        let mut role = Role::for_exports();
        role.name = "ci".to_owned();
        role.trust = serde_json::json!({
            "version": "2.0",
            "statement": [{
                "action": "name/sts:AssumeRole",
                "effect": "allow",
                "principal": {"qcs": [format!("qcs::cam::uin/{0}:root", world.uin)]},
            }],
        })
        .to_string();
        world.roles.push(role);
    });
    let role = "qcs::cam::uin/100000000001:roleName/ci";
    let words = [
        "files",
        "url",
        KEY,
        "--bucket",
        "exports",
        "--role-arn",
        role,
    ];
    env.run(&[&words[..], &["--expires", "1h"]].concat())
        .ends_with(0)
        .does_not_say("earlier than asked for");
    let run = env
        .run(&[&words[..], &["--expires", "7d"]].concat())
        .ends_with(0)
        .says("earlier than asked for");
    assert_eq!(python(&env, "GET", run.stdout.trim_end()).0, "200");
}
