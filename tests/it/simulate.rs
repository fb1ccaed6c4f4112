//! `simulate` as people and scripts use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::TestEnv;

fn bare() -> TestEnv {
    let mut env = TestEnv::new();
    for name in [
        "CVM_EXPORT_ENDPOINT_URL",
        "TENCENTCLOUD_SECRET_ID",
        "TENCENTCLOUD_SECRET_KEY",
    ] {
        env.unset(name);
    }
    env
}

#[test]
fn it_prints_what_a_program_needs_and_serves_until_it_is_signalled() {
    let mut env = bare();
    let mut child = env
        .command(&["simulate", "--speed", "1000000"])
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut variables = Vec::new();
    for _ in 0..4 {
        let line = lines.next().expect("a line").expect("text");
        let (name, value) = line
            .strip_prefix("export ")
            .and_then(|rest| rest.split_once('='))
            .expect("an export line");
        variables.push((name.to_owned(), value.to_owned()));
    }
    let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "CVM_EXPORT_ENDPOINT_URL",
            "TENCENTCLOUD_REGION",
            "TENCENTCLOUD_SECRET_ID",
            "TENCENTCLOUD_SECRET_KEY"
        ]
    );
    for (name, value) in &variables {
        env.set(name, value);
    }
    env.line("image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms")
        .ends_with(0);
    let kill = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill starts").success());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn it_runs_a_command_and_ends_with_its_code() {
    let env = bare();
    let binary = env!("CARGO_BIN_EXE_cvm-export");
    let image = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
    let run = env
        .run(&[
            "simulate",
            "--speed",
            "1000000",
            "--",
            "sh",
            "-c",
            &format!("{binary} {image}"),
        ])
        .ends_with(0);
    assert!(
        run.stdout.starts_with("cos://exports-1250000000/"),
        "{}",
        run.stdout
    );
    let refused = format!("{binary} check --id img-window03 --bucket exports");
    env.run(&["simulate", "--", "sh", "-c", &refused])
        .ends_with(3);
    env.run(&["simulate", "--", "sh", "-c", "exit 42"])
        .ends_with(42);
    env.run(&["simulate", "--", "sh", "-c", "kill -9 $$"])
        .ends_with(137);
    env.run(&["simulate", "--", "/nowhere/program"])
        .ends_with(2)
        .says("could not be started");
    assert!(!env.state_folder().exists(), "a rehearsal leaves no record");
}

#[test]
fn json_mode_prints_one_object() {
    let env = bare();
    let mut child = env
        .command(&["simulate", "--output", "json"])
        .spawn()
        .expect("the binary starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut values = serde_json::Deserializer::from_reader(stdout).into_iter::<serde_json::Value>();
    let object = values.next().expect("an object").expect("JSON");
    assert!(
        object["CVM_EXPORT_ENDPOINT_URL"]
            .as_str()
            .is_some_and(|url| url.starts_with("http://127.0.0.1:"))
    );
    child.kill().expect("a signal");
    child.wait().expect("an end");
}

#[test]
fn faults_come_from_a_file() {
    let env = bare();
    let path = env.home.path().join("faults.json");
    std::fs::write(
        &path,
        r#"{"faults": [{"call": "DescribeImages", "effect": {"kind": "api-error", "code": "UnauthorizedOperation"}}]}"#,
    )
    .expect("a file");
    let command = format!(
        "{} images --bucket exports",
        env!("CARGO_BIN_EXE_cvm-export")
    );
    let faults = path.display().to_string();
    env.run(&["simulate", "--faults", &faults, "--", "sh", "-c", &command])
        .ends_with(4)
        .says("UnauthorizedOperation");
    std::fs::write(
        &path,
        r#"{"faults": [{"call": "*", "effect": {"kind": "explode"}}]}"#,
    )
    .expect("a file");
    env.run(&["simulate", "--faults", &faults, "--", "true"])
        .ends_with(2)
        .says("--faults")
        .says("line 1: there is no kind `explode`, but `reset-before`");
    std::fs::write(
        &path,
        r#"{"faults": [{"call": "DescribeImage", "effect": {"kind": "garbage"}}]}"#,
    )
    .expect("a file");
    env.run(&["simulate", "--faults", &faults, "--", "true"])
        .ends_with(2)
        .says("line 1: there is no call `DescribeImage`; the nearest is `DescribeImages`");
}

#[test]
fn faults_that_no_call_met_are_told_at_the_end() {
    let env = bare();
    let path = env.home.path().join("faults.json");
    let faults = r#"{"faults": [
        {"call": "DescribeImages", "effect": {"kind": "delay-before", "milliseconds": 1}},
        {"call": "DescribeImages", "occurrence": 900, "effect": {"kind": "garbage"}},
        {"call": "HeadObject", "key": "p_*", "effect": {"kind": "hold", "name": "a"}}
    ]}"#;
    std::fs::write(&path, faults).expect("a file");
    let command = format!(
        "{} images --bucket exports",
        env!("CARGO_BIN_EXE_cvm-export")
    );
    let path = path.display().to_string();
    let run = env
        .run(&["simulate", "--faults", &path, "--", "sh", "-c", &command])
        .ends_with(0);
    let lines = run.stderr.lines();
    let unmet: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("warning: no call met the fault "))
        .collect();
    assert_eq!(
        unmet,
        [
            r#"{"call":"DescribeImages","occurrence":900,"effect":{"kind":"garbage"}}"#,
            r#"{"call":"HeadObject","key":"p_*","effect":{"kind":"hold","name":"a"}}"#,
        ]
    );
}

/// A plain request to the simulator itself: status and body.
fn door(env: &TestEnv, method: &str, name: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(env.cloud.address()).expect("a connection");
    let request = format!(
        "{method} /_simulator/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a way there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

#[test]
fn faults_and_the_call_log_have_doors_of_their_own() {
    let env = TestEnv::new();
    let images = "images --bucket exports";
    let faults = r#"{"faults": [{"call": "DescribeImages", "occurrence": 1, "effect": {"kind": "api-error", "code": "UnauthorizedOperation"}}]}"#;
    assert_eq!(door(&env, "PUT", "faults", faults), (204, String::new()));
    env.line(images).ends_with(4).says("UnauthorizedOperation");
    // The first call alone.
    env.line(images).ends_with(0);
    let log = || {
        let (status, body) = door(&env, "GET", "calls", "");
        assert_eq!(status, 200, "{body}");
        let log: Value = serde_json::from_str(&body).expect("JSON");
        let calls = log["calls"].as_array().expect("a list").clone();
        calls
            .iter()
            .filter(|call| call["operation"] == "DescribeImages")
            .map(|call| (call["code"].clone(), call["processed"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        log(),
        [
            ("UnauthorizedOperation".into(), false.into()),
            (Value::Null, true.into())
        ]
    );
    assert_eq!(door(&env, "DELETE", "calls", ""), (204, String::new()));
    assert_eq!(log(), []);
    // Setting faults counts anew, and setting none takes them away.
    assert_eq!(door(&env, "PUT", "faults", faults).0, 204);
    env.line(images).ends_with(4);
    assert_eq!(door(&env, "PUT", "faults", faults).0, 204);
    assert_eq!(door(&env, "PUT", "faults", r#"{"faults": []}"#).0, 204);
    env.line(images).ends_with(0);
    let (status, why) = door(
        &env,
        "PUT",
        "faults",
        r#"{"faults": [{"call": "*", "effect": {"kind": "explode"}}]}"#,
    );
    assert_eq!(status, 400);
    assert!(why.contains("there is no kind `explode`"), "{why}");
    assert_eq!(door(&env, "POST", "faults", faults).0, 404);
}

#[test]
fn a_call_can_be_held_and_released_from_outside() {
    let env = TestEnv::new();
    let faults = r#"{"faults": [{"call": "PutObject", "key": "p_*.cvm-export*", "occurrence": 1, "effect": {"kind": "hold", "name": "record"}}]}"#;
    assert_eq!(door(&env, "PUT", "faults", faults).0, 204);
    let line = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
    let run = env.start(&line.split(' ').collect::<Vec<_>>());
    let call = env.wait_held("record");
    let (status, body) = door(&env, "GET", "held", "");
    let held: Value = serde_json::from_str(&body).expect("JSON");
    let expected = serde_json::json!({"held": [{
        "name": "record", "operation": "PutObject", "key": call.key, "processed": false,
    }]});
    assert_eq!((status, held), (200, expected));
    let (status, why) = door(&env, "POST", "release", r#"{"name": "rekord"}"#);
    assert_eq!(status, 404);
    assert!(why.contains("no fault has a hold `rekord`"), "{why}");
    assert_eq!(door(&env, "POST", "release", "{}").0, 400);
    assert_eq!(
        door(&env, "POST", "release", r#"{"name": "record"}"#),
        (200, r#"{"released":1}"#.to_owned())
    );
    run.wait().ends_with(0);
    assert_eq!(door(&env, "GET", "held", "").1, r#"{"held":[]}"#);
}

#[test]
fn a_rehearsal_can_begin_without_the_role_and_with_more_buckets() {
    let rehearse = |flags: &str, command: &str| {
        let env = crate::support::TestEnv::new();
        env.line(&format!(
            "simulate {flags} -- {} {command}",
            env!("CARGO_BIN_EXE_cvm-export")
        ))
    };
    rehearse("--no-role", "check --bucket exports")
        .ends_with(3)
        .says("there is no role `CVM_QcsRole`");
    let shows = |run: crate::support::Run, text: &str| {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    };
    let run = rehearse("--bucket north=ap-beijing", "check").ends_with(0);
    shows(run, "north-1250000000 (ap-beijing)");
    let copied = "image --id img-linux001 --bucket north --prefix p --copy-to-bucket-region --poll-interval 100ms";
    let run = rehearse("--bucket north=ap-beijing --speed 100000", copied).ends_with(0);
    shows(run, "cos://north-1250000000/p_");
    let arn = "qcs::cam::uin/100000000001:roleName/ExportOperator";
    let check = format!("check --role-arn {arn} --skip-check role");
    let run = rehearse("--no-role", &check).ends_with(0);
    shows(run, "assumed-role/ExportOperator");
    rehearse("--bucket north", "check")
        .ends_with(2)
        .says("north=ap-beijing");
}
