//! Versions and deletes of the object storage, by the documents' examples.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cvm_export::cloud::cos::{CosErrorKind, Deletion, KeyDeletion, Versioning};
use cvm_export::model::{BucketName, ObjectKey, Region};
use md5::{Digest, Md5};

use super::cos::{each, golden, is_sent_as_documented, read};
use super::server::Message;

fn place() -> (BucketName, Region) {
    let bucket = "examplebucket-1250000000".parse().expect("a bucket");
    (bucket, "ap-beijing".parse().expect("a region"))
}

fn key(text: &str) -> ObjectKey {
    text.parse().expect("a key")
}

fn deletions() -> Vec<Deletion> {
    let versions = [
        None,
        Some("MTg0NDUxNzc2ODQ2NjQ1MjM5MTk"),
        Some("MTg0NDUxNzc2ODQ2NjQwMTIwMDI"),
        Some("MTg0NDUxNzc2ODQ2NjQ0NjI0MDQ"),
    ];
    let numbered = versions.iter().zip(1..);
    numbered
        .map(|(version_id, number)| Deletion {
            key: key(&format!("example-object-{number}.jpg")),
            version_id: version_id.map(str::to_owned),
        })
        .collect()
}

#[test]
fn delete_multiple_objects() {
    let (bucket, region) = place();
    let answer = golden("DELETE-Multiple-Objects.response");
    let (sent, results) = each(vec![answer], None, async |cloud| {
        let cos = cloud.cos();
        cos.delete_objects(&bucket, &region, &deletions()).await
    })
    .remove(0);
    let documented = golden("DELETE-Multiple-Objects.request");
    assert_eq!(sent.request_line(), documented.request_line());
    assert_eq!(
        sent.header("content-type"),
        documented.header("content-type")
    );
    // White space apart, the body is the documented one; its digest is of what was sent.
    let lines = String::from_utf8(documented.body).expect("text");
    let expected: String = lines.lines().map(str::trim).collect();
    assert_eq!(String::from_utf8_lossy(&sent.body), expected);
    let digest = BASE64_STANDARD.encode(Md5::digest(&sent.body));
    assert_eq!(sent.header("content-md5"), digest);
    // It is signed before it is known what it carries.
    assert!(!sent.header("authorization").contains("content-md5"));

    let refused = KeyDeletion::Refused {
        code: "PathConflict".into(),
        message: "Path conflict.".into(),
    };
    let deleted = |is_marker| KeyDeletion::Deleted { is_marker };
    assert_eq!(
        results.expect("results"),
        [deleted(true), deleted(false), deleted(true), refused]
    );
}

#[test]
fn a_key_that_the_answer_leaves_out_is_not_deleted() {
    let (bucket, region) = place();
    let delete = async |cloud: &cvm_export::cloud::Cloud| {
        let cos = cloud.cos();
        cos.delete_objects(&bucket, &region, &deletions()[..1])
            .await
    };
    for body in [
        "<DeleteResult/>",
        // Another version than the one that was named.
        "<DeleteResult><Deleted><Key>example-object-1.jpg</Key><VersionId>x</VersionId></Deleted></DeleteResult>",
        "<DeleteResult><Deleted><Key>other</Key></Deleted></DeleteResult>",
    ] {
        let results = read(Message::ok("application/xml", body), delete);
        assert_eq!(results.expect("results"), [KeyDeletion::NotTold], "{body}");
    }
    let error = read(Message::ok("text/html", "<html>hello</html>"), delete);
    assert_eq!(
        error.map_err(|it| it.kind()),
        Ok(vec![KeyDeletion::NotTold])
    );
    let error = read(Message::ok("text/plain", "hello"), delete);
    assert_eq!(error.map_err(|it| it.kind()), Err(CosErrorKind::NoAnswer));
}

#[test]
fn get_bucket_versioning() {
    let (bucket, region) = place();
    let ask =
        async |cloud: &cvm_export::cloud::Cloud| cloud.cos().get_versioning(&bucket, &region).await;
    let answer = golden("GET-Bucket-versioning.response");
    assert_eq!(
        read(answer.clone(), ask).expect("a state"),
        Versioning::Enabled
    );
    for (body, expected) in [
        ("<VersioningConfiguration/>", Versioning::Off),
        (
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
            Versioning::Suspended,
        ),
    ] {
        assert_eq!(
            read(answer.with_body(body), ask).expect("a state"),
            expected
        );
    }
}

#[test]
fn get_bucket_object_versions() {
    let (bucket, region) = place();
    let list = async |cloud: &cvm_export::cloud::Cloud| {
        let cos = cloud.cos();
        cos.list_versions(&bucket, &region, "", None).await
    };
    is_sent_as_documented(
        "GET-Bucket-Object-versions",
        "GET-Bucket-Object-versions.response",
        &[("prefix", "")],
        &[],
        list,
    );
    let page = read(golden("GET-Bucket-Object-versions.response"), list).expect("a page");
    let shown: Vec<_> = page
        .versions
        .iter()
        .map(|version| {
            let id = version.version_id.as_deref().unwrap_or_default();
            (version.object.key.as_str(), id, version.is_latest)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("Tencent Cloud.jpg", "MTg0NDUxMzY0OTc2NjcxNzE4NjA", true),
            (
                "照片/2020年/IMG0001.jpg",
                "MTg0NDUxMzY0OTc2NjcwNjMwMDQ",
                false
            ),
            ("腾讯云.jpg", "MTg0NDUxMzY0OTc2NTY5MDA4NzU", true),
            ("腾讯云.jpg", "MTg0NDUxMzY0OTc2NjcxNzA2ODg", false),
        ]
    );
    assert_eq!(
        page.versions[0].object.etag,
        "ee8de918d05640145b18f70f4c3aa602"
    );
    assert_eq!(page.markers[0].key.as_str(), "照片/2020年/IMG0001.jpg");
    assert_eq!(page.markers[0].version_id, "MTg0NDUxMzY0OTc2NTY5MDU3OTc");
    assert_eq!(page.next, None);

    let answer = golden("GET-Bucket-Object-versions.unversioned.response");
    let page = read(answer.clone(), list).expect("a page");
    assert!(page.versions.iter().all(|it| it.version_id.is_none()));
    assert_eq!(
        page.versions[1].object.storage_class.as_str(),
        "INTELLIGENT_TIERING"
    );

    // A page that is cut and does not say where is no page: what follows must not be forgotten.
    let text = String::from_utf8(answer.body.clone()).expect("text");
    let cut = text.replace("<IsTruncated>false", "<IsTruncated>true");
    let error = read(answer.with_body(cut), list).expect_err("a cut page");
    assert_eq!(error.kind(), CosErrorKind::NoAnswer);
}
