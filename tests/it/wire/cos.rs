//! The operations of the object storage, one after the other.

use std::collections::BTreeSet;

use bytes::Bytes;
use cvm_export::auth::{self, Timestamp};
use cvm_export::cloud::Cloud;
use cvm_export::cloud::cos::{
    BucketEntry, CosError, CosErrorKind, ObjectMeta, ObjectPage, Overwrite, PartPage, UploadList,
};
use cvm_export::model::{BucketName, ObjectKey, Region};

use super::server::{Message, Server, credentials};
use super::writing::bears_other_xml;
use crate::support::block_on;

pub(super) fn golden(name: &str) -> Message {
    Message::golden(&format!("wire/cos/{name}"))
}

fn bucket() -> BucketName {
    "examplebucket-1250000000".parse().expect("a bucket")
}

fn region() -> Region {
    "ap-beijing".parse().expect("a region")
}

fn key(text: &str) -> ObjectKey {
    text.parse().expect("a key")
}

/// Makes `call` once for each answer; returns what was sent and what was made of it.
pub(super) fn each<T>(
    answers: Vec<Message>,
    token: Option<&str>,
    call: impl AsyncFn(&Cloud) -> T,
) -> Vec<(Message, T)> {
    let count = answers.len();
    let server = Server::answering(answers);
    let cloud = server.cloud(token);
    let once = |_| {
        let answer = block_on(call(&cloud));
        (server.received(), answer)
    };
    (0..count).map(once).collect()
}

/// What `call` makes of one answer.
pub(super) fn read<T>(answer: Message, call: impl AsyncFn(&Cloud) -> T) -> T {
    each(vec![answer], None, call).remove(0).1
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if character == '%' {
            bytes.push(u8::from_str_radix(&rest[1..3], 16).expect("two digits"));
            rest = &rest[3..];
        } else {
            bytes.extend(character.to_string().bytes());
            rest = &rest[character.len_utf8()..];
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The decoded path and parameters of a target.
fn target_parts(target: &str) -> (String, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name), percent_decode(value))
    });
    (percent_decode(path), pairs.collect())
}

/// Headers of the documents' requests that this client does without: the signature carries its own
/// time, and `Content-MD5` is optional.
const OMITTED_HEADERS: &[&str] = &["date", "content-md5", "connection"];

/// Makes `call` with and without temporary keys, and fails unless it sends the request of the example
/// `name`, but for the parameters that are added and omitted.
#[track_caller]
pub(super) fn is_sent_as_documented<T>(
    name: &str,
    answer: &str,
    added: &[(&str, &str)],
    omitted: &[(&str, &str)],
    call: impl AsyncFn(&Cloud) -> T,
) -> Message {
    let documented = golden(&format!("{name}.request"));
    let mut last = None;
    for token in [None, Some("a-session-token")] {
        let (sent, _) = each(vec![golden(answer)], token, &call).remove(0);
        let (method, target) = sent.request_line();
        let (path, parameters) = target_parts(target);
        let (expected_method, expected_target) = documented.request_line();
        let (expected_path, expected) = target_parts(expected_target);
        assert_eq!((method, &path), (expected_method, &expected_path), "{name}");

        let owned = |pairs: &[(&str, &str)]| -> BTreeSet<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let mut expected = BTreeSet::from_iter(expected);
        for pair in owned(omitted) {
            assert!(expected.remove(&pair), "the example {name} lacks {pair:?}");
        }
        for pair in owned(added) {
            assert!(expected.insert(pair.clone()), "{name} has {pair:?}");
        }
        assert_eq!(BTreeSet::from_iter(parameters.clone()), expected, "{name}");

        for (header, value) in &documented.headers {
            if header != "authorization" && !OMITTED_HEADERS.contains(&header.as_str()) {
                assert_eq!(sent.header(header), value, "{header} of {name}");
            }
        }
        for header in OMITTED_HEADERS {
            assert!(!sent.has(header), "{header} of {name}");
        }
        let found = sent
            .has("x-cos-security-token")
            .then(|| sent.header("x-cos-security-token"));
        assert_eq!(found, token, "{name}");
        assert_eq!(sent.body, documented.body, "{name}");
        is_signed(&sent, &path, &parameters);
        last = Some(sent);
    }
    last.expect("two requests")
}

/// Fails unless the signature covers the host, all parameters, and the headers that it lists.
#[track_caller]
fn is_signed(sent: &Message, path: &str, parameters: &[(String, String)]) {
    let authorization = sent.header("authorization");
    let fields: Vec<_> = authorization
        .split('&')
        .map(|pair| pair.split_once('=').expect("a pair"))
        .collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "q-sign-algorithm",
            "q-ak",
            "q-sign-time",
            "q-key-time",
            "q-header-list",
            "q-url-param-list",
            "q-signature"
        ]
    );
    let (start, end) = fields[3].1.split_once(';').expect("a window");
    let seconds = |text: &str| Timestamp(text.parse().expect("seconds"));
    let listed: Vec<_> = fields[4].1.split(';').collect();
    assert!(listed.contains(&"host"), "{authorization}");
    let must_be_listed = |name: &str| {
        name == "content-type" || (name.starts_with("x-cos-") && name != "x-cos-security-token")
    };
    for (name, _) in &sent.headers {
        let is_listed = listed.contains(&name.as_str());
        assert!(is_listed || !must_be_listed(name), "{name} is not signed");
    }
    let headers: Vec<_> = listed
        .iter()
        .map(|name| (*name, sent.header(name)))
        .collect();
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = auth::cos::Authorization::new(
        &credentials(None),
        auth::cos::KeyTime {
            start: seconds(start),
            end: seconds(end),
        },
        &auth::cos::Request {
            method: sent.request_line().0,
            path,
            parameters: &parameters,
            headers: &headers,
        },
    );
    assert_eq!(authorization, expected.to_string());
}

pub(super) async fn buckets(cloud: &Cloud) -> Result<Vec<BucketEntry>, CosError> {
    cloud.cos().list_buckets().await
}

pub(super) async fn objects(cloud: &Cloud) -> Result<ObjectPage, CosError> {
    let (bucket, region) = (bucket(), region());
    cloud.cos().list_objects(&bucket, &region, "", None).await
}

pub(super) async fn uploads(cloud: &Cloud) -> Result<UploadList, CosError> {
    cloud
        .cos()
        .list_uploads(&bucket(), &region(), "", None)
        .await
}

const UPLOAD_ID: &str =
    "14846420620b1f381e5d7b057692e131dd8d72dfa28f2633cfbbe4d0a9e8bd0719933545b0";

pub(super) async fn parts(cloud: &Cloud) -> Result<Option<PartPage>, CosError> {
    let (bucket, region, key) = (bucket(), region(), key("exampleobject"));
    let cos = cloud.cos();
    cos.list_parts(&bucket, &region, &key, UPLOAD_ID, 0).await
}

async fn head(cloud: &Cloud) -> Result<Option<ObjectMeta>, CosError> {
    let (bucket, region, key) = (bucket(), region(), key("exampleobject"));
    cloud.cos().head_object(&bucket, &region, &key, None).await
}

pub(super) async fn get(
    cloud: &Cloud,
    limit_bytes: usize,
) -> Result<Option<(ObjectMeta, Bytes)>, CosError> {
    let (bucket, region, key) = (bucket(), region(), key("exampleobject"));
    let cos = cloud.cos();
    cos.get_small_object(&bucket, &region, &key, None, limit_bytes)
        .await
}

async fn put(cloud: &Cloud, overwrite: Overwrite) -> Result<(), CosError> {
    let (bucket, region, key) = (bucket(), region(), key("exampleobject"));
    let body = Bytes::from_static(b"[Object Content]");
    let cos = cloud.cos();
    cos.put_object(&bucket, &region, &key, body, "image/jpeg", overwrite)
        .await
        .map(|_| ())
}

#[test]
fn get_service() {
    is_sent_as_documented("GET-Service", "GET-Service.response", &[], &[], buckets);
    let found = read(golden("GET-Service.response"), buckets).expect("buckets");
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.name.as_str(), entry.region.as_str()))
        .collect();
    let expected = [
        ("examplebucket1-1250000000", "ap-beijing"),
        ("examplebucket2-1250000000", "ap-beijing"),
        ("examplebucket3-1250000000", "eu-frankfurt"),
        ("examplebucket4-1250000000", "eu-frankfurt"),
    ];
    assert_eq!(found, expected);
    bears_other_xml(
        "GET-Service.response",
        buckets,
        &["Buckets", "Buckets.Bucket.Name", "Buckets.Bucket.Location"],
    );
}

/// The documents' example of a filtered list holds two lists, and blanks after the names.
#[test]
fn get_service_with_two_lists() {
    let found = read(golden("GET-Service.by-tag.response"), buckets).expect("buckets");
    let found: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        found,
        ["examplebucket-1250000000", "examplebucket1-1250000000"]
    );
}

#[test]
fn head_bucket() {
    let call = async |cloud: &Cloud| cloud.cos().head_bucket(&bucket(), &region()).await;
    is_sent_as_documented("HEAD-Bucket", "HEAD-Bucket.response", &[], &[], call);
    for name in ["HEAD-Bucket.response", "HEAD-Bucket.multi-az.response"] {
        let head = read(golden(name), call).expect("a bucket");
        assert_eq!(head.region, Some(region()), "{name}");
        assert_eq!(head.is_multi_az, name.contains("multi-az"), "{name}");
    }
    let silent = golden("HEAD-Bucket.response").without("x-cos-bucket-region");
    assert_eq!(read(silent, call).expect("a bucket").region, None);
}

#[test]
fn put_bucket() {
    let call = async |cloud: &Cloud| cloud.cos().put_bucket(&bucket(), &region()).await;
    let sent = is_sent_as_documented("PUT-Bucket", "PUT-Bucket.response", &[], &[], call);
    assert_eq!(sent.header("x-cos-acl"), "private");
    read(golden("PUT-Bucket.response"), call).expect("an answer");
}

#[test]
fn head_object() {
    is_sent_as_documented("HEAD-Object", "HEAD-Object.response", &[], &[], head);
    let meta = |name: &str| {
        let meta = read(golden(name), head).expect("an answer");
        meta.expect("an object")
    };
    let expected = ObjectMeta {
        key: key("exampleobject"),
        size_bytes: 16,
        etag: "ee8de918d05640145b18f70f4c3aa602".to_owned(),
        crc64: Some("16749565679157681890".to_owned()),
        storage_class: "STANDARD".to_owned(),
        last_modified: Some("2020-04-10T18:17:25Z".parse().expect("a time")),
        version_id: None,
    };
    assert_eq!(meta("HEAD-Object.response"), expected);
    let versioned = meta("HEAD-Object.versioned.response");
    assert_eq!(
        versioned.version_id.as_deref(),
        Some("MTg0NDUxNTc1MzA5NjQ2ODI5MTg")
    );
    let archived = meta("HEAD-Object.archived.response");
    assert_eq!(archived.storage_class, "ARCHIVE");
    assert_eq!(archived.crc64, None);

    let whole = golden("HEAD-Object.response");
    for (name, _) in &whole.headers {
        let answer = read(whole.without(name), head);
        if name == "content-length" {
            let error = answer.expect_err("no size").to_string();
            assert!(error.contains(whole.header("x-cos-request-id")), "{error}");
        } else {
            let meta = answer.expect("an answer").expect("an object");
            assert_eq!(meta.size_bytes, 16, "without {name}");
        }
    }

    let error = read(golden("HEAD-Object.refused.response"), head).expect_err("a refusal");
    assert_eq!(error.kind(), CosErrorKind::Changed);
    assert_eq!(error.code(), None);
    let request_id = error.request_id().expect("a request id");
    assert!(request_id.starts_with("NWYyMTFjODZf"), "{request_id}");
}

#[test]
fn get_object() {
    let call = async |cloud: &Cloud| get(cloud, 16).await;
    is_sent_as_documented("GET-Object", "GET-Object.response", &[], &[], call);
    let answer = read(golden("GET-Object.response"), call).expect("an answer");
    let (meta, body) = answer.expect("an object");
    assert_eq!(body, "[Object Content]");
    assert_eq!(meta.size_bytes, 16);
    assert_eq!(meta.crc64.as_deref(), Some("16749565679157681890"));

    let call = async |cloud: &Cloud| get(cloud, 15).await;
    let error = read(golden("GET-Object.response"), call).expect_err("too large");
    assert!(error.request_id().is_some(), "{error}");
}

#[test]
fn put_object() {
    let allow = async |cloud: &Cloud| put(cloud, Overwrite::Allow).await;
    let forbid = async |cloud: &Cloud| put(cloud, Overwrite::Forbid).await;
    let sent = is_sent_as_documented("PUT-Object", "PUT-Object.response", &[], &[], allow);
    assert!(!sent.has("x-cos-forbid-overwrite"));
    let sent = is_sent_as_documented("PUT-Object", "PUT-Object.response", &[], &[], forbid);
    assert_eq!(sent.header("x-cos-forbid-overwrite"), "true");
    read(golden("PUT-Object.response"), allow).expect("an answer");
}

#[test]
fn get_bucket() {
    // Names are asked for in their encoded form, and always those of one prefix.
    let added = [("encoding-type", "url"), ("prefix", "")];
    is_sent_as_documented("GET-Bucket", "GET-Bucket.response", &added, &[], objects);
    let next = async |cloud: &Cloud| {
        let marker = Some("example-object-1000.jpg");
        let (bucket, region) = (bucket(), region());
        cloud.cos().list_objects(&bucket, &region, "", marker).await
    };
    let answer = "GET-Bucket.next-page.response";
    is_sent_as_documented("GET-Bucket.next-page", answer, &added, &[], next);

    for (name, expected, marker) in [
        (
            "GET-Bucket.response",
            [
                ("example-folder-1/example-object-1.jpg", 37),
                ("example-folder-1/sub-folder-1/example-object-1.jpg", 50),
                ("example-object-1.jpg", 20),
                ("example-object-2.jpg", 20),
            ]
            .as_slice(),
            None,
        ),
        (
            "GET-Bucket.delimiter.response",
            &[("example-object-1.jpg", 20), ("example-object-2.jpg", 20)],
            None,
        ),
        (
            "GET-Bucket.first-page.response",
            &[
                ("example-object-0001.jpg", 23),
                ("example-object-0002.jpg", 23),
                ("example-object-1000.jpg", 23),
            ],
            Some("example-object-1000.jpg"),
        ),
        (
            "GET-Bucket.next-page.response",
            &[
                ("example-object-1001.jpg", 23),
                ("example-object-1002.jpg", 23),
                ("example-object-1005.jpg", 23),
            ],
            None,
        ),
    ] {
        let page = read(golden(name), objects).expect("a page");
        let found: Vec<_> = page
            .objects
            .iter()
            .map(|entry| (entry.key.as_str(), entry.size_bytes))
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(page.next_marker.as_deref(), marker, "{name}");
        let required = ["IsTruncated", "Contents.Key", "Contents.Size"];
        bears_other_xml(name, objects, &required);
    }
}

#[test]
fn list_multipart_uploads() {
    let added = [("encoding-type", "url"), ("prefix", "")];
    let answer = "List-Multipart-Uploads.response";
    is_sent_as_documented("List-Multipart-Uploads", answer, &added, &[], uploads);
    let list = read(golden(answer), uploads).expect("a list");
    assert!(!list.is_truncated);
    let found: Vec<_> = list
        .uploads
        .iter()
        .map(|upload| (upload.key.as_str(), &upload.upload_id[..10]))
        .collect();
    let expected = [
        ("Object", "1484726657"),
        ("Object", "1484727158"),
        ("exampleobject", "1484727270"),
    ];
    assert_eq!(found, expected);
    let required = ["IsTruncated", "Upload.Key", "Upload.UploadId"];
    bears_other_xml(answer, uploads, &required);
}

#[test]
fn list_parts() {
    let answer = "List-Parts.response";
    let omitted = [("max-parts", "1")];
    is_sent_as_documented("List-Parts", answer, &[], &omitted, parts);
    let page = read(golden(answer), parts).expect("an answer");
    let page = page.expect("an upload");
    assert!(page.is_truncated);
    let found: Vec<_> = page
        .parts
        .iter()
        .map(|part| (part.number, part.size_bytes))
        .collect();
    assert_eq!(found, [(1, 5_242_880)]);
    // It says that there are more parts, and only its own tell from where.
    let required = ["IsTruncated", "Part", "Part.PartNumber", "Part.Size"];
    bears_other_xml(answer, parts, &required);
}
