//! API 3.0: what a request must look like, and what an answer may look like.

use std::collections::BTreeSet;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use cvm_export::auth::{Timestamp, tc3};
use cvm_export::cloud::api::{Action, Answer, ApiError, ApiErrorKind};
use serde_json::{Value, json};

use super::server::{Message, Server, credentials};
use crate::support::{block_on, golden};

pub(super) const REGION: &str = "ap-guangzhou";

pub(super) fn example(name: &str) -> Value {
    let text = golden::read(&format!("wire/{name}.json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn answer(value: &Value) -> Message {
    Message::ok("application/json", value.to_string())
}

/// What was sent, and what was made of the answer.
type Exchange<A> = (Message, Result<Answer<<A as Action>::Response>, ApiError>);

/// Sends `action` once for each answer.
pub(super) fn call<A: Action>(
    action: &A,
    region: Option<&str>,
    token: Option<&str>,
    answers: &[Value],
) -> Vec<Exchange<A>> {
    let server = Server::answering(answers.iter().map(answer).collect());
    let cloud = server.cloud(token);
    let region = region.map(|region| region.parse().expect("a region"));
    let once = || {
        let answer = block_on(cloud.call(region.as_ref(), action));
        (server.received(), answer)
    };
    answers.iter().map(|_| once()).collect()
}

/// What `action` makes of each answer.
pub(super) fn read<A: Action>(action: &A, answers: &[Value]) -> Vec<Result<A::Response, ApiError>> {
    call(action, Some(REGION), None, answers)
        .into_iter()
        .map(|(_, answer)| answer.map(|answer| answer.value))
        .collect()
}

/// What `action` makes of `answer`, which it must understand.
#[track_caller]
pub(super) fn read_one<A: Action>(action: &A, answer: Value) -> A::Response {
    let mut answers = read(action, &[answer]);
    answers.remove(0).expect("an answer that is understood")
}

/// One action with the example of the documents.
pub(super) struct Example<'a, A> {
    pub(super) action: A,
    /// The host and the version of the documents, which the signature names as well.
    pub(super) host: &'static str,
    pub(super) version: &'static str,
    /// A region, where the documents or we want one.
    pub(super) region: Option<&'static str>,
    pub(super) request: Value,
    /// What our request has and the example has not.
    pub(super) added: &'a [(&'static str, Value)],
    /// What the example has and our request has not.
    pub(super) omitted: &'a [&'static str],
}

impl<A: Action> Example<'_, A> {
    /// Fails unless the client sends what the documents show, with and without temporary keys.
    #[track_caller]
    pub(super) fn is_sent_as_documented(&self) {
        for token in [None, Some("a-session-token")] {
            let response = json!({"Response": {"RequestId": "r"}});
            let (sent, _) = call(&self.action, self.region, token, &[response]).remove(0);
            self.has_documented_head(&sent, token);
            let mut expected = self.request.clone();
            let fields = expected.as_object_mut().expect("an object");
            for name in self.omitted {
                assert!(fields.remove(*name).is_some(), "the example lacks {name}");
            }
            for (name, value) in self.added {
                let known = fields.insert((*name).to_owned(), value.clone());
                assert_eq!(known, None, "the example has {name}");
            }
            let body: Value = serde_json::from_slice(&sent.body).expect("JSON");
            assert_eq!(body, expected, "the body of {}", A::NAME);
        }
    }

    #[track_caller]
    fn has_documented_head(&self, sent: &Message, token: Option<&str>) {
        assert_eq!(sent.request_line(), ("POST", "/"));
        let content_type = "application/json; charset=utf-8";
        for (name, value) in [
            ("host", self.host),
            ("content-type", content_type),
            ("x-tc-action", A::NAME),
            ("x-tc-version", self.version),
            ("x-tc-language", "en-US"),
        ] {
            assert_eq!(sent.header(name), value, "{name} of {}", A::NAME);
        }
        for (name, value) in [("x-tc-region", self.region), ("x-tc-token", token)] {
            let found = sent.has(name).then(|| sent.header(name));
            assert_eq!(found, value, "{name} of {}", A::NAME);
        }

        let seconds: i64 = sent.header("x-tc-timestamp").parse().expect("seconds");
        let now = Utc::now().timestamp();
        assert!((now - seconds).abs() < 120, "{seconds} is not about {now}");
        let date = DateTime::from_timestamp(seconds, 0).expect("a time");
        let (service, _) = self.host.split_once('.').expect("a host");
        let start = format!(
            "TC3-HMAC-SHA256 Credential=AKIDexample/{}/{service}/tc3_request, \
             SignedHeaders=content-type;host;x-tc-action, Signature=",
            date.format("%Y-%m-%d")
        );
        let authorization = sent.header("authorization");
        let signature = authorization.strip_prefix(&start);
        let signature = signature.unwrap_or_else(|| panic!("{authorization} is not {start}…"));
        let request = tc3::Request {
            method: "POST",
            path: "/",
            query: "",
            headers: &[
                ("content-type", content_type),
                ("host", self.host),
                ("x-tc-action", A::NAME),
            ],
            payload: &sent.body,
        };
        let expected =
            tc3::Authorization::new(&credentials(None), service, Timestamp(seconds), &request);
        assert_eq!(signature, expected.signature(), "{}", A::NAME);
    }
}

/// A step into a JSON value.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item(usize),
}

/// Every field in `value`, at any depth: how to get there, and its path for people.
fn fields(value: &Value) -> Vec<(Vec<Step>, String)> {
    let mut found = Vec::new();
    let mut below = |step: Step, name: String, value: &Value| {
        for (mut steps, path) in fields(value) {
            steps.insert(0, step.clone());
            found.push((steps, format!("{name}{path}")));
        }
    };
    match value {
        Value::Object(object) => {
            let mut own = Vec::new();
            for (name, value) in object {
                own.push((vec![Step::Field(name.clone())], format!(".{name}")));
                below(Step::Field(name.clone()), format!(".{name}"), value);
            }
            found.extend(own);
        }
        Value::Array(items) => {
            for (position, value) in items.iter().enumerate() {
                below(Step::Item(position), "[]".to_owned(), value);
            }
        }
        _ => {}
    }
    found
}

/// The value of one field in `value`, or `None` to take it away.
fn changed(value: &Value, steps: &[Step], with: Option<Value>) -> Value {
    let mut value = value.clone();
    let (last, way) = steps.split_last().expect("a field");
    let mut place = &mut value;
    for step in way {
        place = match step {
            Step::Field(name) => &mut place[name],
            Step::Item(position) => &mut place[position],
        };
    }
    let Step::Field(name) = last else {
        panic!("{steps:?} is no field");
    };
    let object = place.as_object_mut().expect("an object");
    match with {
        Some(with) => object.insert(name.clone(), with),
        None => object.remove(name),
    };
    value
}

/// `value` with a field more in every object.
pub(super) fn with_unforeseen_fields(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let known = object
                .iter()
                .map(|(name, value)| (name.clone(), with_unforeseen_fields(value)));
            let unforeseen = json!({"Deep": [null, {"Deeper": 1}], "Text": "…"});
            known
                .chain([("Unforeseen".to_owned(), unforeseen)])
                .collect()
        }
        Value::Array(items) => items.iter().map(with_unforeseen_fields).collect(),
        other => other.clone(),
    }
}

/// Fails unless every field of the example `name` may be null or missing, but for the `required`
/// ones, whose absence is an error that names the request, and unless fields that nobody foresaw change
/// nothing.
#[track_caller]
pub(super) fn bears_null_missing_and_new_fields<A: Action>(
    action: &A,
    name: &str,
    required: &[&str],
) where
    A::Response: Debug,
{
    let example = example(name);
    let request_id = example["Response"]["RequestId"]
        .as_str()
        .expect("a request id");
    let whole = format!("{:?}", read_one(action, example.clone()));

    let places: Vec<_> = fields(&example)
        .into_iter()
        .filter(|(_, path)| path != ".Response")
        .collect();
    let variants: Vec<_> = places
        .iter()
        .flat_map(|(steps, _)| {
            [
                changed(&example, steps, Some(Value::Null)),
                changed(&example, steps, None),
            ]
        })
        .collect();
    let answers = read(action, &variants);
    let mut missed = BTreeSet::from_iter(required.iter().copied());
    for ((_, path), answers) in places.iter().zip(answers.chunks_exact(2)) {
        let path = path
            .strip_prefix(".Response.")
            .expect("inside the envelope");
        if required.contains(&path) {
            missed.remove(path);
            for answer in answers {
                let error = answer.as_ref().expect_err(path);
                assert_eq!(error.kind(), ApiErrorKind::NoAnswer, "{name}: {path}");
                assert_eq!(error.request_id(), Some(request_id), "{name}: {path}");
                assert!(error.to_string().contains(request_id), "{path}: {error}");
            }
        } else {
            let [null, missing] = answers else {
                unreachable!("chunks of two")
            };
            let shown = |answer: &Result<A::Response, ApiError>| match answer {
                Ok(value) => format!("{value:?}"),
                Err(error) => panic!("{name}: {path}: {error}: {:?}", error),
            };
            assert_eq!(shown(null), shown(missing), "{name}: {path}");
        }
    }
    assert_eq!(missed, BTreeSet::new(), "{name} lacks required fields");

    let mut more = example.clone();
    more["Response"]["Error"] = Value::Null;
    for answer in read(action, &[with_unforeseen_fields(&example), more]) {
        let value = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(format!("{value:?}"), whole, "{name}");
    }
    for answer in read(
        action,
        &[
            json!({}),
            json!({"Response": null}),
            json!({"Response": []}),
        ],
    ) {
        let error = answer.expect_err("no envelope");
        assert_eq!(error.kind(), ApiErrorKind::NoAnswer, "{name}");
    }
}
