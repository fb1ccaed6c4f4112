//! `check`, `wait`, `status`, `images`, `completions`, `man`, and the help of all.

use std::process::Stdio;

use cvm_export::simulator::Image;

use crate::support::{TestEnv, golden};

const LINUX: &str = "--id img-linux001 --bucket exports --prefix p";

#[test]
fn help_names_every_flag_and_exit_code() {
    let env = TestEnv::new();
    for command in [
        "",
        "image",
        "check",
        "authorize",
        "estimate",
        "wait",
        "files",
        "files url",
        "files rm",
        "status",
        "images",
        "simulate",
        "completions",
        "man",
    ] {
        let words: Vec<&str> = command
            .split(' ')
            .chain(["--help"])
            .filter(|word| !word.is_empty())
            .collect();
        let run = env.run(&words).ends_with(0);
        let name = if command.is_empty() {
            "program"
        } else {
            &command.replace(' ', "-")
        };
        golden::assert_matches(&format!("cli/help-{name}.txt"), &run.stdout);
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = env.run(&["completions", shell]).ends_with(0);
        assert!(
            run.stdout.contains("cvm-export") && run.stdout.contains("skip-check"),
            "{shell}"
        );
    }
    assert!(
        env.line("man")
            .ends_with(0)
            .stdout
            .contains(".TH cvm-export")
    );
    assert!(
        env.line("man image")
            .ends_with(0)
            .stdout
            .contains("if\\-exists")
    );
    env.line("man nothing")
        .ends_with(2)
        .says("cvm-export man image");
}

#[test]
fn bash_completes_flags_and_values_of_commands() {
    let env = TestEnv::new();
    let script = env.run(&["completions", "bash"]).ends_with(0).stdout;
    let complete = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _cvm__export cvm-export '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1,
            line.rsplit(' ').next().unwrap_or_default(),
            line.rsplit(' ').nth(1).unwrap_or_default(),
        );
        let run = std::process::Command::new("bash")
            .args(["-c", &ask])
            .output()
            .expect("bash");
        String::from_utf8(run.stdout).expect("text")
    };
    assert!(complete("cvm-export im").contains("images"));
    assert_eq!(complete("cvm-export image --form"), "--format\n");
    assert!(complete("cvm-export image --if-exists ").contains("overwrite"));
}

#[test]
fn check_shows_every_finding_and_submits_nothing() {
    let env = TestEnv::new();
    let run = env.line(&format!("check {LINUX}")).ends_with(0);
    for name in cvm_export::model::CheckName::ALL {
        // These are of a download, a copy or a limit, which are not asked for, or of the account without an
        // image.
        let is_of_more = name.as_str().starts_with("download-")
            || ["image-copy", "cost"].contains(&name.as_str());
        if is_of_more || name.is_of_account() {
            continue;
        }
        assert!(
            run.stdout.contains(name.as_str()),
            "{name} is missing in\n{}",
            run.stdout
        );
    }
    let submitted = env.cloud.calls().into_iter().any(|call| {
        call.operation == "ExportImages"
            && !call
                .body
                .as_deref()
                .unwrap_or_default()
                .contains("\"DryRun\":true")
    });
    assert!(!submitted);
    assert_eq!(env.calls("PutObject"), 0);
    let json = env.line("check --id img-linux001,img-window03 --bucket exports --prefix {image_id} --output json").ends_with(10).json();
    assert_eq!(json["schema"], "cvm-export.checks.v1");
    assert_eq!(json["items"][0]["exportable"], true);
    assert_eq!(json["items"][1]["exportable"], false);
}

#[test]
fn the_callers_policy_names_the_bucket_and_no_wildcard_of_buckets() {
    let env = TestEnv::new();
    let run = env
        .line(&format!("check {LINUX} --print-policy"))
        .ends_with(0);
    let policy = run.json();
    assert_eq!(policy["version"], "2.0");
    let text = run.stdout;
    assert!(
        text.contains("qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000/*"),
        "{text}"
    );
    for action in [
        "cvm:ExportImages",
        "name/cos:HeadObject",
        "name/cos:PutObject",
        "name/cos:GetService",
        "cam:GetRole",
    ] {
        assert!(text.contains(action), "{action}");
    }
    assert_eq!(env.calls("DescribeImages"), 0);
}

#[test]
fn images_lists_what_each_would_refuse_over_all_pages() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        for number in 0..150 {
            let id = format!("img-many{number:03}").parse().expect("an id");
            world.add_image(Image::linux(
                id,
                "ap-guangzhou".parse().expect("a region"),
                1,
            ));
        }
    });
    let json = env
        .line("images --region ap-guangzhou --output json")
        .ends_with(0)
        .json();
    let items = json["items"].as_array().expect("items");
    assert_eq!(
        items.len(),
        150 + 4,
        "shared images are not the account's own"
    );
    assert_eq!(env.calls("DescribeImages"), 2);
    let windows = items
        .iter()
        .find(|item| item["image_id"] == "img-window03")
        .expect("the sample");
    assert_eq!(windows["exportable"], false);
    let text = env.line("images --region ap-guangzhou").ends_with(0).stdout;
    assert!(
        text.contains("no: platform") && text.contains("no: disk-size"),
        "{text}"
    );
    env.line("images").ends_with(2).says("--region");
    let shared = env
        .line("images --bucket exports --id img-shared04 --output json")
        .ends_with(0)
        .json();
    assert_eq!(shared["items"][0]["exportable"], false);
}

#[test]
fn wait_needs_to_know_how_many_files_there_will_be() {
    let env = TestEnv::new();
    env.line("wait --bucket exports --prefix console")
        .ends_with(2)
        .says("--expect N");
    env.cloud.change(|world| {
        for (key, text) in [("console_xvda.raw", "system"), ("console_xvdb.raw", "data")] {
            world.put_object("exports-1250000000", key, text);
        }
    });
    let run = env
        .line("wait --bucket exports --prefix console --expect 2")
        .ends_with(0);
    assert_eq!(
        run.stdout,
        "cos://exports-1250000000/console_xvda.raw\ncos://exports-1250000000/console_xvdb.raw\n"
    );
    env.line("wait --bucket exports --prefix console --expect 3 --timeout 500ms")
        .ends_with(6);
    let run = env
        .line("wait --bucket exports console_xvdb.raw --output json")
        .ends_with(0);
    assert!(run.json()["image_id"].is_null());
    env.line("wait --bucket exports not-there.raw --timeout 500ms")
        .ends_with(11);
    env.line("wait exp-unknown1")
        .ends_with(2)
        .says("knows no export");
    // Named by its image, both rules are watched.
    let run = env
        .line("wait --bucket exports --prefix console --id img-linux001")
        .ends_with(0);
    assert_eq!(run.stdout, "cos://exports-1250000000/console_xvda.raw\n");
    env.assert_submits(0);
}

#[test]
fn an_export_started_in_the_console_can_be_waited_for() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(0.8));
    env.line("image --id img-multi002 --bucket exports --prefix q --no-claim --no-wait")
        .ends_with(0);
    let mut elsewhere = TestEnv::new();
    // Another machine, which knows neither journal nor claim.
    for name in [
        "CVM_EXPORT_ENDPOINT_URL",
        "TENCENTCLOUD_SECRET_ID",
        "TENCENTCLOUD_SECRET_KEY",
    ] {
        elsewhere.unset(name);
    }
    let credentials = env.cloud.credentials();
    elsewhere
        .set("CVM_EXPORT_ENDPOINT_URL", &env.cloud.endpoint_url())
        .set("TENCENTCLOUD_SECRET_ID", &credentials.secret_id)
        .set("TENCENTCLOUD_SECRET_KEY", credentials.secret_key.expose());
    let run = elsewhere
        .line("wait --bucket exports --prefix q --id img-multi002 --poll-interval 100ms")
        .ends_with(0);
    assert_eq!(run.stdout.lines().count(), 3);
}

#[test]
fn status_tells_what_runs_and_what_is_done() {
    let env = TestEnv::new();
    env.line("status")
        .ends_with(0)
        .says("knows no export")
        .prints("");
    env.cloud
        .change(|world| world.export_seconds = Some(1000.0));
    env.line(&format!("image {LINUX} --no-wait")).ends_with(0);
    let json = env.line("status --output json").ends_with(0).json();
    assert_eq!(json["items"][0]["state"], "running");
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    env.line("image --id img-multi002 --bucket exports --prefix p --poll-interval 100ms")
        .ends_with(0);
    let text = env.line("status").ends_with(0).stdout;
    assert!(
        text.contains("running") && text.contains("complete") && text.contains("3/3"),
        "{text}"
    );
}

#[test]
fn a_reader_that_goes_away_changes_nothing() {
    let env = TestEnv::new();
    let mut command = env.command(&[
        "image",
        "--id",
        "img-linux001",
        "--bucket",
        "exports",
        "--prefix",
        "p",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    env.assert_submits(1);
}
