//! The way to the cloud: clocks, throttling, passing trouble, proxies.

use std::io::{Read, Write};
use std::net::TcpListener;

use cvm_export::simulator::{Call, Effect, Fault};

use crate::support::{TestEnv, fault, files_below, wait_until};

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";

fn is_refused_for_its_time(call: &Call) -> bool {
    call.code.as_deref() == Some("AuthFailure.SignatureExpire")
        || (call.service == "cos" && call.status == 403)
}

#[test]
fn a_wrong_clock_is_corrected_by_the_servers_date_and_each_call_is_sent_once_more_at_most() {
    for offset in [-400_000, -4000, 4000, 400_000] {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.clock_offset_seconds = offset);
        env.line(LINE).ends_with(0);
        let calls = env.cloud.calls();
        assert_eq!(
            env.cloud.change(|world| world.started_tasks().len()),
            1,
            "offset {offset}"
        );
        let refused = calls
            .iter()
            .filter(|call| is_refused_for_its_time(call))
            .count();
        assert!(
            refused >= 1 && refused * 2 <= calls.len(),
            "offset {offset}: {refused} of {}",
            calls.len()
        );
    }
}

#[test]
fn a_date_that_no_clock_shows_is_passed_over() {
    // The last one lies just inside what dates can be computed with, and beyond with any timeout added.
    for date in [
        "24 Nov 1926 12:00:00 GMT",
        "24 Nov 2126 12:00:00 GMT",
        "31 Dec 262142 12:00:00 GMT",
    ] {
        for call in ["ExportImages", "HeadObject", "GetService"] {
            let env = TestEnv::new();
            env.cloud.set_faults(vec![Fault {
                key: None,
                occurrence: None,
                ..fault(call, Effect::WrongDate { date: date.into() })
            }]);
            let run = env.line(&format!("{LINE} --output json")).ends_with(0);
            let json = run.json();
            for time in ["submitted_at", "completed_at"] {
                let year = json[time].as_str().and_then(|time| time.get(..4));
                assert_eq!(
                    year.map(str::to_owned),
                    Some(chrono::Utc::now().format("%Y").to_string()),
                    "{time} after {call} said {date}: {json}"
                );
            }
            env.assert_submits(1);
        }
    }
}

#[test]
fn six_minutes_are_too_far_for_the_api_alone() {
    for offset in [-360, 360] {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.clock_offset_seconds = offset);
        env.line("images --region ap-guangzhou").ends_with(0);
        let codes: Vec<_> = env
            .cloud
            .calls()
            .into_iter()
            .map(|call| call.code)
            .collect();
        assert_eq!(
            codes,
            [Some("AuthFailure.SignatureExpire".to_owned()), None],
            "offset {offset}"
        );
        // The storage allows for fifteen minutes, and its first answer tells the time.
        env.cloud.clear_calls();
        env.line(LINE).ends_with(0);
        assert!(
            !env.cloud.calls().iter().any(is_refused_for_its_time),
            "offset {offset}"
        );
    }
}

#[test]
fn a_clock_that_is_right_enough_is_left_alone() {
    for offset in [-40, 40] {
        let env = TestEnv::new();
        env.cloud
            .change(|world| world.clock_offset_seconds = offset);
        env.line(LINE).ends_with(0);
        assert!(
            !env.cloud.calls().iter().any(is_refused_for_its_time),
            "offset {offset}"
        );
    }
}

#[test]
fn a_refused_signature_is_no_matter_of_the_clock_and_ends_with_4() {
    let mut env = TestEnv::new();
    env.set(
        "TENCENTCLOUD_SECRET_KEY",
        "another0key0than0the0right0one00",
    );
    env.line(LINE)
        .ends_with(4)
        .says("does not accept the credentials")
        .says("request");
    env.assert_submits(0);
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDnobody");
    env.line(LINE).ends_with(4);
}

#[test]
fn trouble_that_passes_is_got_over() {
    let api = |code: &str| Effect::ApiError {
        code: code.to_owned(),
    };
    for (operation, effect) in [
        ("DescribeImages", api("RequestLimitExceeded")),
        ("DescribeImages", api("InternalError")),
        ("GetRole", Effect::ResetBefore),
        ("GetRole", Effect::Status { status: 503 }),
        (
            "GetService",
            Effect::CosError {
                status: 503,
                code: "SlowDown".to_owned(),
            },
        ),
        (
            "HeadBucket",
            Effect::CosError {
                status: 500,
                code: "InternalError".to_owned(),
            },
        ),
        ("HeadObject", Effect::Status { status: 503 }),
        ("PutObject", Effect::ResetBefore),
        ("ExportImages", api("RequestLimitExceeded.UinLimitExceeded")),
    ] {
        let env = TestEnv::new();
        env.cloud.set_faults(vec![fault(operation, effect.clone())]);
        let run = env.line(LINE);
        assert_eq!(run.code, 0, "{operation} {effect:?}\n{}", run.stderr);
        let tasks = env.cloud.change(|world| world.started_tasks().len());
        assert_eq!(tasks, 1, "{operation} {effect:?}");
    }
}

#[test]
fn a_failing_or_forbidden_look_never_ends_the_watch() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(2.5));
    let running = env.start(&LINE.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("ExportImages", 1);
    env.cloud.change(|world| {
        world
            .denied
            .extend(["HeadObject", "ListMultipartUploads"].map(str::to_owned));
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    env.cloud.change(|world| world.denied.clear());
    running
        .wait()
        .ends_with(0)
        .says("(403)")
        .says("the watch goes on");
    env.assert_submits(1);
}

/// An address that refuses connections.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn a_refused_connection_ends_before_anything_is_sent_and_says_where_to_look() {
    let mut env = TestEnv::new();
    env.set("CVM_EXPORT_ENDPOINT_URL", &nobody());
    env.line(LINE)
        .ends_with(1)
        .prints("")
        .says("caused by: no connection to service.cos.myqcloud.com could be made")
        .says("Connection refused")
        .says("hint: look at the network");
    assert!(env.cloud.calls().is_empty());
}

#[test]
fn a_cloud_that_is_gone_at_the_submit_has_started_nothing_and_the_run_knows() {
    // With a lease, its bucket is looked at before each submit.
    for (flag, host) in [
        ("", "exports-1250000000.cos.ap-guangzhou.myqcloud.com"),
        (" --no-claim", "cvm.tencentcloudapi.com"),
    ] {
        let mut env = TestEnv::new();
        env.cloud.set_faults(vec![Fault {
            call: "ExportImages".to_owned(),
            key: None,
            occurrence: None,
            effect: Effect::ApiError {
                code: "LimitExceeded.ExportImageTaskLimitExceeded".to_owned(),
            },
        }]);
        let line = LINE.replace("--poll-interval 100ms", "--poll-interval 2s --timeout 5s") + flag;
        let running = env.start(&line.split(' ').collect::<Vec<_>>());
        env.wait_for_calls("ExportImages", 1);
        // The answer has arrived when the record says so; the next submit comes two seconds later.
        let is_queued = || {
            let records = files_below(&env.state_folder().join("exports"));
            records
                .iter()
                .any(|(_, text)| text.contains(r#""state": "queued""#))
        };
        wait_until(|| "a queued record".to_owned(), is_queued);
        let next = TestEnv::new();
        env.cloud = next.cloud;
        running
            .wait()
            .ends_with(1)
            .prints("")
            .says(&format!("no connection to {host} could be made"))
            .does_not_say("was lost");
        // The journal knows, too: the next run submits.
        env.set("CVM_EXPORT_ENDPOINT_URL", &env.cloud.endpoint_url());
        let credentials = env.cloud.credentials();
        env.set("TENCENTCLOUD_SECRET_ID", &credentials.secret_id)
            .set("TENCENTCLOUD_SECRET_KEY", credentials.secret_key.expose());
        env.line(&format!("{LINE}{flag}")).ends_with(0);
        env.assert_submits(1);
    }
}

/// A proxy that notes the first request and refuses it.
fn proxy() -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let heard = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n")
            && connection.read(&mut byte).is_ok_and(|read| read == 1)
        {
            request.push(byte[0]);
        }
        drop(connection.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"));
        drop(listener);
        String::from_utf8_lossy(&request).into_owned()
    });
    (address, heard)
}

#[test]
fn https_proxy_is_honoured_and_sees_nothing_but_the_host() {
    let mut env = TestEnv::new();
    env.unset("CVM_EXPORT_ENDPOINT_URL");
    let (address, heard) = proxy();
    env.set("HTTPS_PROXY", &format!("http://{address}"));
    env.line("images --region ap-guangzhou")
        .ends_with(1)
        .says("HTTPS_PROXY");
    let request = heard.join().expect("the proxy");
    assert!(
        request.starts_with("CONNECT cvm.tencentcloudapi.com:443 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(!request.to_lowercase().contains("tc3-hmac"), "{request}");
}

#[test]
fn no_proxy_is_honoured() {
    let mut env = TestEnv::new();
    env.unset("CVM_EXPORT_ENDPOINT_URL");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let address = listener.local_addr().expect("an address");
    env.set("HTTPS_PROXY", &format!("http://{address}"))
        .set("NO_PROXY", "*");
    // Nothing answers beyond this machine; what counts is that the proxy hears nothing.
    let running = env.start(&["images", "--region", "ap-guangzhou"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    drop(running);
    assert!(listener.accept().is_err(), "the proxy was asked");
}

#[test]
fn an_override_never_uses_a_proxy() {
    let mut env = TestEnv::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        env.set(name, &address);
    }
    env.line(LINE)
        .ends_with(0)
        .says("every request goes to http://127.0.0.1:");
    assert!(listener.accept().is_err(), "the proxy was asked");
}

#[test]
fn messages_of_the_cloud_come_in_english() {
    let env = TestEnv::new();
    env.cloud
        .change(|world| world.denied.insert("DescribeImages".to_owned()));
    let run = env.line("images --bucket exports").ends_with(4);
    assert!(
        run.stderr.is_ascii()
            || !run
                .stderr
                .chars()
                .any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c)),
        "{}",
        run.stderr
    );
}
