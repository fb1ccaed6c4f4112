//! No secret in any output, log, journal or claim: one test prints everything and searches.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::Effect;

use crate::support::{TestEnv, fault, files_below};

const KEY: &str = "key0must0never0be0seen0anywhere0";
const TOKEN: &str = "token0must0never0be0seen0either00";

#[test]
fn no_secret_is_in_any_output_log_journal_or_claim() {
    let mut env = TestEnv::new();
    env.cloud.change(|world| {
        world.accept(Credentials {
            secret_id: "AKIDsecrets".to_owned(),
            secret_key: Secret::new(KEY),
            token: Some(Secret::new(TOKEN)),
            expires_at: None,
        });
    });
    env.set("TENCENTCLOUD_SECRET_ID", "AKIDsecrets")
        .set("TENCENTCLOUD_SECRET_KEY", KEY)
        .set("TENCENTCLOUD_TOKEN", TOKEN);
    let mut seen = Vec::new();
    let mut look = |what: &str, text: String| seen.push((what.to_owned(), text));
    for verbosity in ["-q", "-v", "-vv", "-vvv"] {
        for form in ["text", "json", "ndjson"] {
            for line in [
                "check --id img-linux001 --bucket exports --prefix p",
                "images --bucket exports",
                "image --id img-linux001 --bucket exports --prefix p --if-exists overwrite --yes --poll-interval 100ms",
                "status",
                "image --id img-window03 --bucket exports --prefix p",
            ] {
                let line = format!("{line} {verbosity} --output {form}");
                let run = env.line(&line);
                look(&format!("stdout of `{line}`"), run.stdout);
                look(&format!("stderr of `{line}`"), run.stderr);
            }
        }
    }
    // By flags, with failures of every kind, and with a signature that is refused.
    for effect in [
        Effect::ApiError {
            code: "AuthFailure.SignatureFailure".to_owned(),
        },
        Effect::Status { status: 500 },
        Effect::Garbage,
        Effect::ResetBefore,
    ] {
        env.cloud.set_faults(vec![cvm_export::simulator::Fault {
            key: None,
            occurrence: None,
            ..fault("*", effect)
        }]);
        let line = format!(
            "images --bucket exports -vvv --secret-id AKIDsecrets --secret-key {KEY} --token {TOKEN}"
        );
        let run = env.line(&line);
        assert_ne!(run.code, 0);
        look("failures by flags", run.stderr);
    }
    env.cloud.set_faults(Vec::new());
    let run = env.line(&format!("images --bucket exports -vvv --secret-key {KEY}"));
    look("a key without its id", run.stderr);
    let run = env.line(&format!(
        "image --id img-1 --bucket exports --secret-key {KEY} --no-such-flag"
    ));
    look("a wrong flag", run.stderr);
    for (path, text) in files_below(env.home.path()) {
        look(&format!("file {}", path.display()), text);
    }
    let claims = env.cloud.change(|world| {
        let bucket = world.bucket_mut("exports-1250000000").expect("the sample");
        let claims = bucket
            .objects
            .iter()
            .filter(|(key, _)| key.ends_with(".json"));
        claims
            .map(|(_, object)| {
                let mut bytes =
                    vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
                object.content.read_at(0, &mut bytes).expect("the claim");
                String::from_utf8(bytes).expect("JSON")
            })
            .collect::<Vec<_>>()
    });
    assert!(!claims.is_empty());
    for claim in claims {
        look("a claim", claim);
    }
    assert!(seen.len() > 60, "{} texts were searched", seen.len());
    for (what, text) in &seen {
        for secret in [KEY, TOKEN] {
            assert!(!text.contains(secret), "a secret is in {what}:\n{text}");
        }
    }
}

/// Answers every request with all that was sent, in the place of an error's words.
fn repeat_every_request(
    listener: &TcpListener,
    status: &str,
    signatures: &Mutex<BTreeSet<String>>,
) {
    for connection in listener.incoming().flatten() {
        let mut reader = BufReader::new(connection);
        while let Some(request) = read_request(&mut reader) {
            signatures
                .lock()
                .expect("nobody panicked")
                .extend(signatures_in(&request));
            let body = if request.contains(".myqcloud.com") {
                let words = request.replace('&', "&amp;").replace('<', "&lt;");
                format!("<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>")
            } else {
                let error = serde_json::json!({"Code": "FailedOperation", "Message": request});
                serde_json::json!({"Response": {"Error": error, "RequestId": "r-1"}}).to_string()
            };
            let in_a_header = request.replace("\r\n", " ");
            let head = format!(
                "HTTP/1.1 {status}\r\nx-cos-request-id: {in_a_header}\r\nlocation: /{in_a_header}\r\n"
            );
            let body = if request.starts_with("HEAD") {
                ""
            } else {
                &body
            };
            let length = body.len();
            let answer = format!("{head}content-length: {length}\r\n\r\n{body}");
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
    }
}

/// One request as it came, without the body of an upload.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = &head[before..];
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(head.trim_end().to_owned())
}

/// The signatures of a request, which are as good as a key for as long as they are valid.
fn signatures_in(request: &str) -> Vec<String> {
    let starts = ["Signature=", "q-signature="].into_iter();
    starts
        .filter_map(|start| request.split_once(start))
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_hexdigit).collect())
        .collect()
}

#[test]
fn a_server_that_repeats_its_request_brings_no_secret_to_light() {
    let statuses = ["403 Forbidden", "200 OK", "301 Moved", "400 Bad Request"];
    std::thread::scope(|scope| {
        for status in statuses {
            scope.spawn(|| assert_nothing_comes_to_light(status));
        }
    });
}

#[track_caller]
fn assert_nothing_comes_to_light(status: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let signatures = Arc::new(Mutex::new(BTreeSet::new()));
    let seen_there = Arc::clone(&signatures);
    std::thread::spawn(move || {
        let listener = Arc::new(listener);
        // More connections than a command opens at once.
        for _ in 0..16 {
            let (listener, signatures) = (Arc::clone(&listener), Arc::clone(&seen_there));
            std::thread::spawn(move || repeat_every_request(&listener, status, &signatures));
        }
    });
    let mut env = TestEnv::new();
    env.set("CVM_EXPORT_ENDPOINT_URL", &url)
        .set("TENCENTCLOUD_SECRET_ID", "AKIDsecrets")
        .set("TENCENTCLOUD_SECRET_KEY", KEY)
        .set("TENCENTCLOUD_TOKEN", TOKEN);
    let bucket = "--bucket exports-1250000000 --region ap-guangzhou";
    for line in [
        "check".to_owned(),
        format!("check --id img-linux001 {bucket} --prefix p"),
        format!("authorize {bucket} --yes"),
        "images --region ap-guangzhou".to_owned(),
        format!("image --id img-linux001 {bucket} --prefix p --skip-check image-state"),
        format!("wait {bucket} k.raw --timeout 1s"),
        format!("download {bucket} k.raw"),
    ] {
        for form in ["text", "json", "ndjson"] {
            let line = format!("{line} -vvv --output {form}");
            signatures.lock().expect("nobody panicked").clear();
            let run = env.line(&line);
            let signatures = signatures.lock().expect("nobody panicked").clone();
            assert!(!signatures.is_empty(), "nothing was signed for `{line}`");
            for secret in signatures.iter().map(String::as_str).chain([KEY, TOKEN]) {
                for text in [&run.stdout, &run.stderr] {
                    assert!(
                        !text.contains(secret),
                        "`{line}`, {status}: {secret}\n{text}"
                    );
                }
            }
        }
    }
    for (path, text) in files_below(env.home.path()) {
        for secret in [KEY, TOKEN] {
            assert!(!text.contains(secret), "{}: {text}", path.display());
        }
    }
}

#[test]
fn debug_forms_show_no_secret() {
    let credentials = Credentials {
        secret_id: "AKIDsecrets".to_owned(),
        secret_key: Secret::new(KEY),
        token: Some(Secret::new(TOKEN)),
        expires_at: None,
    };
    let environment =
        cvm_export::environment::Environment::new([("TENCENTCLOUD_SECRET_KEY", KEY)], None);
    let cloud = cvm_export::cloud::Cloud::open(
        cvm_export::cloud::CloudSettings::new(
            cvm_export::cloud::Endpoints::overridden("http://127.0.0.1:9", false)
                .expect("an endpoint"),
        ),
        credentials.clone(),
        cvm_export::event::Events::discard(),
    )
    .expect("a cloud");
    let flags = cvm_export::cloud::credentials::Flags {
        secret_key: Some(Secret::new(KEY)),
        token: Some(Secret::new(TOKEN)),
        ..Default::default()
    };
    let shown =
        format!("{credentials:?} {credentials:#?} {environment:?} {cloud:?} {cloud:#?} {flags:?}");
    assert!(shown.contains("AKIDsecrets"));
    for secret in [KEY, TOKEN] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
