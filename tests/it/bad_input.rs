//! What can't be right: refused before any call, with the flag's name, the problem and an example; and
//! odd answers of a server, which become errors with their cause.

use cvm_export::simulator::{Effect, Fault};

use crate::support::{TestEnv, fault};

#[test]
fn values_that_cannot_be_right_are_refused_before_any_call() {
    // The arguments after `image`, the flag, and a word of the problem.
    let long = "p".repeat(851);
    let cases: &[(&[&str], &str, &str)] = &[
        (
            &["--id", "ami-1", "--bucket", "b"],
            "--id",
            "must start with `img-`",
        ),
        (
            &["--id", "img-", "--bucket", "b"],
            "--id",
            "nothing follows",
        ),
        (
            &["--id", "img-UPPER", "--bucket", "b"],
            "--id",
            "lower-case",
        ),
        (
            &["--id", "img-1,", "--bucket", "b"],
            "--id",
            "must start with `img-`",
        ),
        (
            &["--id", "img-1", "--bucket", "B"],
            "--bucket",
            "lower-case",
        ),
        (&["--id", "img-1", "--bucket", "-b"], "--bucket", ""),
        (
            &["--id", "img-1", "--bucket", "cos://b"],
            "--bucket",
            "looks like an address",
        ),
        (&["--id", "img-1", "--bucket", ""], "--bucket", ""),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", "/p"],
            "--prefix",
            "slash",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", "a/../b"],
            "--prefix",
            "segment",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", "a\nb"],
            "--prefix",
            "control character",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", "a\u{202e}b"],
            "--prefix",
            "reorders or hides",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", ""],
            "--prefix",
            "",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", &long],
            "--prefix",
            "850 bytes",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--prefix", "{name}"],
            "--prefix",
            "braces",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--region", "guangzhou"],
            "--region",
            "hyphen",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--region", "AP-X"],
            "--region",
            "lower-case",
        ),
        (
            &[
                "--id",
                "img-1",
                "--bucket",
                "b",
                "--region",
                "ap-x.evil.example",
            ],
            "--region",
            "",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--format", "iso"],
            "--format",
            "qcow2",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--timeout", "6"],
            "--timeout",
            "unit",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--timeout", "0s"],
            "--timeout",
            "zero",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--timeout=-1s"],
            "--timeout",
            "whole number",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--poll-interval", "99ms"],
            "--poll-interval",
            "100ms",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--role-name", "no way"],
            "--role-name",
            "letters",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--if-exists", "maybe"],
            "--if-exists",
            "",
        ),
        (
            &["--id", "img-1", "--bucket", "b", "--skip-check", "all"],
            "--skip-check",
            "no check",
        ),
        (&["--bucket", "b"], "--id", ""),
        (&["--id", "img-1"], "--bucket", ""),
    ];
    let env = TestEnv::new();
    for (arguments, flag, problem) in cases {
        let words: Vec<&str> = ["image"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let run = env.run(&words).ends_with(2);
        assert_eq!(run.stdout, "");
        for text in [*flag, *problem] {
            assert!(
                run.stderr.contains(text),
                "{arguments:?}: `{text}` is missing in\n{}",
                run.stderr
            );
        }
        let json: Vec<&str> = words.iter().copied().chain(["--output", "json"]).collect();
        let run = env.run(&json).ends_with(2);
        let error = run.error_json();
        assert_eq!(
            (error["kind"].as_str(), error["exit_code"].as_u64()),
            (Some("usage"), Some(2))
        );
        assert_eq!(run.stdout, "");
    }
    assert_eq!(env.cloud.calls().len(), 0, "nothing was asked");
}

#[test]
fn refused_values_come_with_an_example() {
    let env = TestEnv::new();
    env.line("image --id ami-1 --bucket b")
        .ends_with(2)
        .says("(example: `img-72n9mi0y`)");
    env.line("image --id img-1 --bucket b --timeout 6")
        .ends_with(2)
        .says("(example: `1h30m`)");
    env.line("wait --bucket exports")
        .ends_with(2)
        .says("--expect N");
    env.line("wait")
        .ends_with(2)
        .says("cvm-export wait --bucket");
    env.line("wait exp-1 exp-2").ends_with(2);
    env.line("wait nonsense")
        .ends_with(2)
        .says("object keys need --bucket");
    env.line("wait --bucket exports ../x")
        .ends_with(2)
        .says("segment");
    env.line("status exp-unknown1")
        .ends_with(2)
        .says("knows no export");
    env.line("simulate --listen 10.0.0.1:0").ends_with(2);
    env.line("simulate --image img-x")
        .ends_with(2)
        .says("img-web01=disk.raw");
    env.line("simulate --image img-x=/nowhere/disk.raw")
        .ends_with(2)
        .says("/nowhere/disk.raw");
    env.line("simulate --speed 0")
        .ends_with(2)
        .says("above zero");
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_unicode_are_refused_and_never_a_panic() {
    use std::os::unix::ffi::OsStrExt;
    let env = TestEnv::new();
    let odd = std::ffi::OsStr::from_bytes(b"img-\xff");
    for (before, after) in [
        (&["image", "--id"][..], &["--bucket", "b"][..]),
        (&[], &[]),
        (&["wait"], &["--output", "json"]),
    ] {
        let mut command = env.command(before);
        let output = command.arg(odd).args(after).output().expect("an end");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{before:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{before:?}: {stderr}");
        assert_eq!(
            stderr.contains("\"exit_code\":2"),
            !after.is_empty() && before == ["wait"]
        );
    }
    assert_eq!(env.cloud.calls().len(), 0, "nothing was asked");
}

#[test]
fn endpoints_that_are_not_on_this_machine_need_a_flag() {
    let mut env = TestEnv::new();
    for url in [
        "http://10.0.0.1:80",
        "http://cloud.example",
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "http://127.0.0.1:1/x",
    ] {
        env.set("CVM_EXPORT_ENDPOINT_URL", url);
        env.line("images --region ap-guangzhou")
            .ends_with(2)
            .says("CVM_EXPORT_ENDPOINT_URL");
    }
    env.unset("CVM_EXPORT_ENDPOINT_URL");
    env.line("images --region ap-guangzhou --endpoint-url http://10.0.0.1:80")
        .ends_with(2)
        .says("--allow-remote-endpoint");
}

/// Every call of `operation` meets `effect`.
fn always(operation: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault {
        key: None,
        occurrence: None,
        ..fault(operation, effect)
    }]
}

#[test]
fn odd_answers_are_errors_with_their_cause_and_never_a_panic() {
    let odd = || {
        [
            Effect::Status { status: 502 },
            Effect::Garbage,
            Effect::EmptyBody,
            Effect::HugeBody { bytes: 50 << 20 },
            Effect::TruncatedBody { after_bytes: 10 },
            Effect::ResetBefore,
            Effect::Redirect {
                location: "http://127.0.0.1:9/elsewhere".to_owned(),
            },
        ]
    };
    for operation in ["DescribeImages", "GetService"] {
        for effect in odd() {
            let env = TestEnv::new();
            env.cloud.set_faults(always(operation, effect.clone()));
            let run = env.line("images --bucket exports").ends_with(1);
            assert!(
                run.stderr.contains("caused by: "),
                "{operation} {effect:?}\n{}",
                run.stderr
            );
            assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
            assert_eq!(run.stdout, "");
        }
    }
}

#[test]
fn a_look_up_that_stays_odd_becomes_unknown_and_one_that_passes_is_repeated() {
    for operation in ["DescribeSnapshots", "GetRole", "ListMultipartUploads"] {
        let env = TestEnv::new();
        env.cloud.set_faults(always(operation, Effect::Garbage));
        let line = "check --id img-linux001 --bucket exports --prefix p --output json";
        let json = env.line(line).json();
        let unknown = json["findings"]
            .as_array()
            .expect("findings")
            .iter()
            .any(|finding| finding["verdict"] == "unknown");
        assert!(
            unknown || operation == "ListMultipartUploads",
            "{operation}: {json}"
        );
        let env = TestEnv::new();
        env.cloud
            .set_faults(vec![fault(operation, Effect::Garbage)]);
        env.line(line).ends_with(0);
    }
}

#[test]
fn a_redirect_is_not_followed_and_carries_nothing_elsewhere() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("a mode");
    let location = format!("http://{}/", elsewhere.local_addr().expect("an address"));
    for operation in ["GetService", "DescribeImages", "HeadBucket"] {
        let env = TestEnv::new();
        env.cloud.set_faults(always(
            operation,
            Effect::Redirect {
                location: location.clone(),
            },
        ));
        let run =
            env.line("check --id img-linux001 --bucket exports-1250000000 --region ap-guangzhou");
        assert_ne!(run.code, 101, "{}", run.stderr);
        assert!(
            elsewhere.accept().is_err(),
            "{operation}: the redirect was followed"
        );
    }
}

#[test]
fn text_from_the_network_is_stripped_before_it_is_printed() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let image = world.image_mut("img-linux001").expect("the sample");
        image.name = "a\u{1b}[31mred\u{7}\r\nnext\u{202e}".to_owned();
        image.os_name = "Ubuntu\u{1b}]0;title\u{7}".to_owned();
    });
    for line in [
        "images --bucket exports",
        "check --id img-linux001 --bucket exports --prefix p",
        "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms",
    ] {
        let run = env.line(line);
        for (name, text) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
            let bad = text
                .chars()
                .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(bad, None, "{name} of `{line}`:\n{text:?}");
        }
        assert!(run.stdout.contains("img-linux001"), "{}", run.stderr);
    }
}
