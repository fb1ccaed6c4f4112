//! Both signatures against published vectors, our own cases and an independent implementation.
//!
//! A case is a folder of plain text under `tests/golden/tc3` or `tests/golden/cos`: `request` and
//! `context` go in, the other files are the stages that must come out. Stages are compared in order,
//! so that a failure names the first one that differs. Each file ends in one line break that is not
//! part of the stage.
//!
//! `request` holds the method and the target on its first line, then `?name: value` for each query
//! parameter, then `name: value` for each header, then an empty line and the body. Exactly one blank
//! follows a colon; further blanks belong to the value. For COS everything is written decoded, as
//! the algorithm takes it; for TC3 the target carries the query string as it is sent.

use cvm_export::auth::{
    Credentials, Secret, Timestamp, cos, percent_encode, percent_encode_path, tc3,
};
use proptest::prelude::*;
use reqsign_core::SignRequest;

use crate::support::golden;

/// What a vector's publisher says must come out, so that rewriting golden files can't bend it.
struct Published {
    /// The hash of the first stage.
    hash: &'static str,
    signature: &'static str,
}

/// A parsed `request` file.
#[derive(Debug, Default)]
struct Recorded {
    method: String,
    target: String,
    parameters: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: String,
}

impl Recorded {
    fn read(case: &str) -> Self {
        let text = golden::read(&format!("{case}/request"));
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (first, lines) = head.split_once('\n').unwrap_or((head, ""));
        let (method, target) = first
            .split_once(' ')
            .unwrap_or_else(|| panic!("{case}: `{first}` is not a method and a target"));
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            body: body.to_owned(),
            ..Self::default()
        };
        for line in lines.lines() {
            let (list, line) = match line.strip_prefix('?') {
                Some(parameter) => (&mut request.parameters, parameter),
                None => (&mut request.headers, line),
            };
            list.push(pair(case, line));
        }
        request
    }
}

/// Reads `name: value`.
fn pair(case: &str, line: &str) -> (String, String) {
    let (name, value) = line
        .split_once(':')
        .unwrap_or_else(|| panic!("{case}: `{line}` holds no colon"));
    let value = value.strip_prefix(' ').unwrap_or(value);
    (name.to_owned(), value.to_owned())
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// A parsed `context` file: who signs, for what, when.
struct Context(Vec<(String, String)>);

impl Context {
    fn read(case: &str) -> Self {
        let text = golden::read(&format!("{case}/context"));
        Self(text.lines().map(|line| pair(case, line)).collect())
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        &found
            .unwrap_or_else(|| panic!("the context lacks `{name}`"))
            .1
    }

    fn credentials(&self) -> Credentials {
        credentials(self.get("secret-id"), self.get("secret-key"))
    }
}

fn credentials(secret_id: &str, secret_key: &str) -> Credentials {
    Credentials {
        secret_id: secret_id.to_owned(),
        secret_key: Secret::new(secret_key),
        token: None,
        expires_at: None,
    }
}

fn timestamp(text: &str) -> Timestamp {
    Timestamp(
        text.parse()
            .unwrap_or_else(|_| panic!("`{text}` is not a timestamp")),
    )
}

fn key_time(text: &str) -> cos::KeyTime {
    let (start, end) = text
        .split_once(';')
        .unwrap_or_else(|| panic!("`{text}` is not a window"));
    cos::KeyTime {
        start: timestamp(start),
        end: timestamp(end),
    }
}

/// Compares one stage with its file.
#[track_caller]
fn stage(case: &str, name: &str, text: &impl ToString) {
    golden::assert_matches(
        &format!("{case}/{name}"),
        &format!("{}\n", text.to_string()),
    );
}

#[track_caller]
fn check_tc3(name: &str, published: Option<Published>) {
    let case = &format!("tc3/{name}");
    let recorded = Recorded::read(case);
    let context = Context::read(case);
    let (path, query) = recorded
        .target
        .split_once('?')
        .unwrap_or((&recorded.target, ""));
    let request = tc3::Request {
        method: &recorded.method,
        path,
        query,
        headers: &borrowed(&recorded.headers),
        payload: recorded.body.as_bytes(),
    };
    let (service, time) = (context.get("service"), timestamp(context.get("timestamp")));

    let canonical = tc3::CanonicalRequest::new(&request);
    stage(case, "canonical-request", &canonical);
    let scope = tc3::Scope::new(service, time);
    let string_to_sign = tc3::StringToSign::new(&canonical, &scope, time);
    stage(case, "string-to-sign", &string_to_sign);
    let authorization = tc3::Authorization::new(&context.credentials(), service, time, &request);
    stage(case, "authorization", &authorization);
    assert_eq!(
        string_to_sign.sign(&context.credentials(), &scope),
        authorization.signature(),
        "{case}: stage by stage and at once"
    );
    if let Some(published) = published {
        assert_eq!(canonical.hash(), published.hash, "{case}");
        assert_eq!(authorization.signature(), published.signature, "{case}");
    }
}

#[track_caller]
fn check_cos(name: &str, published: Option<Published>) -> cos::Authorization {
    let case = &format!("cos/{name}");
    let recorded = Recorded::read(case);
    let context = Context::read(case);
    let request = cos::Request {
        method: &recorded.method,
        path: &recorded.target,
        parameters: &borrowed(&recorded.parameters),
        headers: &borrowed(&recorded.headers),
    };
    let window = key_time(context.get("key-time"));

    let http_string = cos::HttpString::new(&request);
    stage(case, "http-string", &http_string);
    let string_to_sign = cos::StringToSign::new(&http_string, window);
    stage(case, "string-to-sign", &string_to_sign);
    let authorization = cos::Authorization::new(&context.credentials(), window, &request);
    stage(case, "authorization", &authorization);
    assert_eq!(
        string_to_sign.sign(&context.credentials(), window),
        authorization.signature(),
        "{case}: stage by stage and at once"
    );
    if let Some(published) = published {
        let expected = format!("sha1\n{window}\n{}\n", published.hash);
        assert_eq!(string_to_sign.to_string(), expected, "{case}");
        assert_eq!(authorization.signature(), published.signature, "{case}");
    }
    authorization
}

/// The hash of the canonical request in the two later revisions of the page "Signature v3".
const TC3_THREE_HEADERS: &str = "7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84";

/// The same in the two earlier revisions, which sign two headers.
const TC3_TWO_HEADERS: &str = "5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031";

#[test]
fn tc3_published_current() {
    let published = Published {
        hash: TC3_THREE_HEADERS,
        signature: "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
    };
    check_tc3("published-current", Some(published));
}

#[test]
fn tc3_published_earlier() {
    let published = Published {
        hash: TC3_THREE_HEADERS,
        signature: "be4f67d323c78ab9acb7395e43c0dbcf822a9cfac32fea2449a7bc7726b770a3",
    };
    check_tc3("published-earlier", Some(published));
}

#[test]
fn tc3_published_older() {
    let published = Published {
        hash: TC3_TWO_HEADERS,
        signature: "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
    };
    check_tc3("published-older", Some(published));
}

#[test]
fn tc3_published_oldest() {
    let published = Published {
        hash: TC3_TWO_HEADERS,
        signature: "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
    };
    check_tc3("published-oldest", Some(published));
}

#[test]
fn tc3_unicode_body() {
    check_tc3("unicode-body", None);
}

#[test]
fn tc3_empty_body() {
    check_tc3("empty-body", None);
}

#[test]
fn tc3_get_with_query() {
    check_tc3("get-with-query", None);
}

#[test]
fn tc3_blanks_and_upper_case() {
    check_tc3("blanks-and-upper-case", None);
}

#[test]
fn tc3_last_second_of_the_utc_day() {
    check_tc3("last-second-of-the-utc-day", None);
}

#[test]
fn cos_published_put() {
    let published = Published {
        hash: "8b2751e77f43a0995d6e9eb9477f4b685cca4172",
        signature: "3b8851a11a569213c17ba8fa7dcf2abec6935172",
    };
    check_cos("published-put", Some(published));
}

#[test]
fn cos_published_get() {
    let published = Published {
        hash: "54ecfe22f59d3514fdc764b87a32d8133ea611e6",
        signature: "01681b8c9d798a678e43b685a9f1bba0f6c0e012",
    };
    check_cos("published-get", Some(published));
}

/// The Go SDK publishes the signature alone.
#[test]
fn cos_published_go_sdk() {
    let authorization = check_cos("published-go-sdk", None);
    assert_eq!(
        authorization.signature(),
        "ce4ac0ecbcdb30538b3fee0a97cc6389694ce53a"
    );
}

#[test]
fn cos_reserved_characters() {
    check_cos("reserved-characters", None);
}

#[test]
fn cos_blanks_and_upper_case() {
    check_cos("blanks-and-upper-case", None);
}

#[test]
fn cos_empty_query_value() {
    check_cos("empty-query-value", None);
}

#[test]
fn cos_empty_path() {
    check_cos("empty-path", None);
}

#[test]
fn cos_no_headers() {
    check_cos("no-headers", None);
}

#[test]
fn cos_url_form() {
    let authorization = check_cos("url-form", None);
    stage("cos/url-form", "query", &authorization.to_query());
}

/// A request as both implementations take it: ours decoded, the other one on the wire.
#[derive(Debug)]
struct Generated {
    method: &'static str,
    path: String,
    parameters: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

fn generated() -> impl Strategy<Value = Generated> {
    let method = prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "DELETE"]);
    // No control characters: neither object keys nor header values of ours can hold any.
    let path = "/[a-zA-Z0-9 +&=?%#/;:@'é腾讯云🦀._~-]{0,40}";
    // The other implementation lower-cases names before it encodes them, ours (like the page and
    // the Go SDK) afterwards, which tells `%2B` from `%2b`. Names that need letters in their
    // encoding are pinned by golden cases instead.
    let parameter = ("[a-zA-Z0-9 ._~-]{1,12}", "[ -~é腾讯云🦀]{0,20}");
    let header = ("x-cos-[a-z0-9-]{1,12}", "[!-~]([ -~]{0,20}[!-~])?");
    (
        method,
        path,
        prop::collection::vec(parameter, 0..5),
        prop::collection::vec(header, 0..5),
    )
        .prop_map(|(method, path, parameters, headers)| Generated {
            method,
            path,
            parameters,
            headers,
        })
}

/// Signs with `reqsign-tencent-cos`, which takes the time from the clock, and returns the header.
fn sign_elsewhere(request: &Generated, secret_id: &str, secret_key: &str) -> String {
    let query: Vec<String> = request
        .parameters
        .iter()
        .map(|(name, value)| format!("{}={}", percent_encode(name), percent_encode(value)))
        .collect();
    let uri = format!(
        "https://b-1250000000.cos.ap-guangzhou.myqcloud.com{}?{}",
        percent_encode_path(&request.path),
        query.join("&")
    );
    let mut builder = http::Request::builder().method(request.method).uri(uri);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let (mut parts, ()) = builder.body(()).expect("a valid request").into_parts();
    let credential = reqsign_tencent_cos::Credential {
        secret_id: secret_id.to_owned(),
        secret_key: secret_key.to_owned(),
        security_token: None,
        expires_in: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime
        .block_on(reqsign_tencent_cos::RequestSigner::new().sign_request(
            &reqsign_core::Context::new(),
            &mut parts,
            Some(&credential),
            None,
        ))
        .expect("a signature");
    let value = parts.headers[http::header::AUTHORIZATION].to_str();
    value.expect("an ASCII header").to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        // Failures are shrunk and printed; nothing is written beside the sources.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cos_agrees_with_an_independent_implementation(
        request in generated(),
        secret_id in "AKID[a-zA-Z0-9]{1,32}",
        secret_key in "[a-zA-Z0-9]{1,32}",
    ) {
        let theirs = sign_elsewhere(&request, &secret_id, &secret_key);
        let window = theirs
            .split('&')
            .find_map(|pair| pair.strip_prefix("q-key-time="))
            .expect("a window");
        let ours = cos::Authorization::new(
            &credentials(&secret_id, &secret_key),
            key_time(window),
            &cos::Request {
                method: request.method,
                path: &request.path,
                parameters: &borrowed(&request.parameters),
                headers: &borrowed(&request.headers),
            },
        );
        prop_assert_eq!(ours.to_string(), theirs);
    }
}
