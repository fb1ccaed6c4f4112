//! The simulator as a client sees it, byte by byte over a socket.
//!
//! The client is written here once more, on purpose: nothing of it is the client that this program
//! ships, except the signing of [`crate::auth`].

mod client;
mod faults;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Disk, DryRunAnswer, Image, Naming, Options, Simulator, SimulatorError};
use crate::auth::{Credentials, Secret};
use crate::clock;
use client::{Client, exchange};

const BUCKET: &str = "exports-1250000000";
const BUCKET_HOST: &str = "exports-1250000000.cos.ap-guangzhou.myqcloud.com";

async fn start(naming: Naming, speed: f64) -> Simulator {
    let options = Options {
        naming,
        speed,
        ..Options::default()
    };
    Simulator::start(options).await.expect("a simulator")
}

async fn instant() -> Simulator {
    start(Naming::Api, f64::INFINITY).await
}

fn error_code(response: &Value) -> &str {
    response["Error"]["Code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_export_by_the_apis_names_leaves_the_objects_that_it_told() {
    let simulator = instant().await;
    simulator.change(|world| {
        let id = "img-tiny0001".parse().expect("an image id");
        let region = "ap-guangzhou".parse().expect("a region");
        let content = Disk::from_bytes(b"123456789".as_slice().into());
        world.add_image(Image::linux(id, region, 1).with_system_disk(content));
    });
    let client = Client::new(&simulator);
    let images = client
        .cvm("DescribeImages", json!({"ImageIds": ["img-tiny0001"]}))
        .await;
    assert_eq!(images["TotalCount"], 1);
    let snapshot = images["ImageSet"][0]["SnapshotSet"][0]["SnapshotId"].clone();
    let snapshot = snapshot.as_str().expect("a snapshot");

    let export = client.export(json!({"ImageIds": ["img-tiny0001"]})).await;
    assert_eq!(export["TaskId"], 105_591_590);
    let key = format!("/p_img-tiny0001_system_{snapshot}.raw");
    assert_eq!(export["CosPaths"], json!([key]));

    let head = client.cos("HEAD", &key, &[], b"").await;
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.header("content-length"), Some("9"));
    // The check value of CRC-64/XZ, 0x995DC9BBDF1939FA, in decimal.
    assert_eq!(
        head.header("x-cos-hash-crc64ecma"),
        Some("11051210869376104954")
    );
    let etag = head.header("etag").expect("an ETag");
    assert!(etag.ends_with("-1\""), "{etag}");
    assert!(head.body.is_empty());
    let whole = client.get(&key).await;
    assert_eq!(whole.text(), "123456789");
    assert!(!whole.is_broken);
    let listing = client.get("/?prefix=p_").await;
    assert_eq!(listing.element("Key").as_deref(), Some(&key[1..]));
}

#[tokio::test]
async fn under_console_naming_the_told_names_never_appear() {
    let simulator = start(Naming::Console, f64::INFINITY).await;
    let client = Client::new(&simulator);
    let export = client.export(json!({"ImageIds": ["img-multi002"]})).await;
    let told = export["CosPaths"].as_array().expect("paths").clone();
    assert_eq!(told.len(), 3);
    let keys = simulator.change(|world| world.keys(BUCKET));
    assert_eq!(keys, ["p_xvda.raw", "p_xvdb.raw", "p_xvdc.raw"]);
    let told = told[0].as_str().expect("a path");
    assert_eq!(client.cos("HEAD", told, &[], b"").await.status, 404);
}

#[tokio::test]
async fn a_running_export_shows_as_an_upload_that_grows() {
    let simulator = start(Naming::Api, 1.0).await;
    simulator.change(|world| world.export_seconds = Some(60.0));
    let client = Client::new(&simulator);
    let export = client.export(json!({})).await;
    let key = export["CosPaths"][0].as_str().expect("a path").to_owned();
    let uploads = client.get("/?uploads&prefix=p_").await;
    assert_eq!(uploads.element("Key").as_deref(), Some(&key[1..]));
    let id = uploads.element("UploadId").expect("an upload");
    let upload = format!("{key}?uploadId={id}");
    let mut seen = Vec::new();
    // 800 parts in a minute: one in 75 ms.
    while seen.last().is_none_or(|last| *last < 2) {
        let parts = client.get(&upload).await;
        assert_eq!(parts.status, 200, "{parts:?}");
        seen.push(parts.text().matches("<Part>").count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(client.cos("HEAD", &key, &[], b"").await.status, 404);
    simulator.change(super::World::finish_exports);
    assert_eq!(client.get(&upload).await.status, 404);
    let head = client.cos("HEAD", &key, &[], b"").await;
    assert_eq!(head.header("content-length"), Some("53687091200"));
    assert!(head.header("etag").expect("an ETag").ends_with("-800\""));
    let uploads = client.get("/?uploads").await;
    assert_eq!(uploads.element("Upload"), None);
}

#[tokio::test]
async fn a_changed_byte_breaks_either_signature() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let body = json!({"ImageIds": ["img-linux001"]});
    let good = client.api_request("cvm", "DescribeImages", "2017-03-12", &body);
    let changed = good.replace("img-linux001", "img-linux002");
    let reply = client.send(&changed).await;
    assert!(reply.text().contains("AuthFailure.SignatureFailure"));
    assert!(client.send(&good).await.text().contains("\"TotalCount\":1"));

    let good = client.cos_request("GET", BUCKET_HOST, "/?prefix=a", &[], b"");
    let changed = String::from_utf8(good)
        .expect("text")
        .replace("prefix=a", "prefix=b");
    let reply = client.send(&changed).await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.element("Code").as_deref(),
        Some("SignatureDoesNotMatch")
    );
    assert!(
        reply
            .element("FormatString")
            .expect("the text")
            .contains("prefix=b")
    );
    let call = simulator.calls().pop().expect("the call");
    assert_eq!((call.operation.as_str(), call.status), ("ListObjects", 403));
    assert_eq!(call.code.as_deref(), Some("SignatureDoesNotMatch"));
}

#[tokio::test]
async fn clocks_may_differ_by_five_minutes_at_the_api_and_fifteen_at_cos() {
    let simulator = instant().await;
    for (skew_seconds, expected) in [
        (240, ""),
        (-240, ""),
        (360, "AuthFailure.SignatureExpire"),
        (-360, "AuthFailure.SignatureExpire"),
    ] {
        let client = Client {
            skew_seconds,
            ..Client::new(&simulator)
        };
        let response = client.cvm("DescribeImages", json!({})).await;
        assert_eq!(
            error_code(&response),
            expected,
            "{skew_seconds}: {response}"
        );
    }
    for (skew_seconds, expected) in [
        (14 * 60, None),
        (16 * 60, Some("RequestTimeTooSkewed")),
        (-16 * 60, Some("AccessDenied")),
    ] {
        let client = Client {
            skew_seconds,
            ..Client::new(&simulator)
        };
        let reply = client.get("/").await;
        assert_eq!(reply.element("Code").as_deref(), expected, "{skew_seconds}");
    }
    simulator.change(|world| world.clock_offset_seconds = -1000);
    let reply = Client::new(&simulator).get("/").await;
    assert_eq!(
        reply.element("Code").as_deref(),
        Some("RequestTimeTooSkewed")
    );
    let date = reply.header("date").expect("a Date");
    let date = chrono::DateTime::parse_from_rfc2822(date).expect("an HTTP date");
    let behind = clock::now().timestamp() - date.timestamp();
    assert!((999..=1002).contains(&behind), "{behind}");
}

#[tokio::test]
async fn the_api_refuses_what_nobody_documented() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    for (body, expected) in [
        (json!({"imageIds": ["img-linux001"]}), "UnknownParameter"),
        (json!({"Limit": "20"}), "InvalidParameter"),
        (
            json!({"Limit": 101}),
            "InvalidParameterValue.InvalidParameterValueLimit",
        ),
        (json!({"ImageIds": ["ami-1"]}), "InvalidImageId.Malformed"),
        (
            json!({"ImageIds": ["img-faraway6"]}),
            "InvalidImageId.NotFound",
        ),
        (
            json!({"Filters": [{"Name": "colour", "Values": ["red"]}]}),
            "InvalidFilter",
        ),
        (
            json!({"ImageIds": ["img-linux001"], "Filters": [{"Name": "platform", "Values": ["U"]}]}),
            "InvalidParameter.InvalidParameterCoexistImageIdsFilters",
        ),
    ] {
        let response = client.cvm("DescribeImages", body.clone()).await;
        assert_eq!(error_code(&response), expected, "{body}");
    }
    let response = client.cvm("DescribeImage", json!({})).await;
    assert_eq!(error_code(&response), "InvalidAction");
    let response = client
        .api("cvm", "DescribeImages", "2020-01-01", json!({}))
        .await;
    assert_eq!(error_code(&response), "NoSuchVersion");
    let chinese = Client {
        language: None,
        ..Client::new(&simulator)
    };
    let response = chinese.cvm("DescribeImage", json!({})).await;
    assert_eq!(response["Error"]["Message"], "接口不存在。");
}

#[tokio::test]
async fn exports_are_refused_with_the_clouds_codes() {
    let simulator = start(Naming::Api, 1.0).await;
    let client = Client::new(&simulator);
    let far = "far-1250000000";
    for (changes, expected) in [
        (
            json!({"ImageIds": []}),
            "InvalidParameter.ImageIdsSnapshotIdsMustOne",
        ),
        (json!({"SnapshotIds": ["snap-1"]}), "UnknownParameter"),
        (
            json!({"FileNamePrefixList": ["a", "b"]}),
            "InvalidParameterValue.InvalidFileNamePrefixList",
        ),
        (json!({"ExportFormat": "raw"}), "InvalidParameterValue"),
        (
            json!({"BucketName": "exports"}),
            "InvalidParameterValue.BucketNotFound",
        ),
        (
            json!({"BucketName": far}),
            "InvalidParameterValue.BucketNotFound",
        ),
        (
            json!({"RoleName": "Other"}),
            "AuthFailure.CamRoleNameAuthenticateFailed",
        ),
        (
            json!({"ImageIds": ["img-window03"]}),
            "UnsupportedOperation.WindowsImageExportUnsupported",
        ),
        (json!({"DryRun": true}), "DryRunOperation"),
    ] {
        let response = client.export(changes.clone()).await;
        assert_eq!(error_code(&response), expected, "{changes}");
    }
    assert!(simulator.change(|world| world.started_tasks()).is_empty());
    simulator.change(|world| world.dry_run_answer = DryRunAnswer::Accepted);
    let response = client.export(json!({"DryRun": true})).await;
    assert_eq!(response["TaskId"], 0);
    simulator.change(|world| world.task_limit = 1);
    assert_eq!(error_code(&client.export(json!({})).await), "");
    assert_eq!(
        error_code(&client.export(json!({})).await),
        "LimitExceeded.ExportImageTaskLimitExceeded"
    );
    simulator.change(|world| {
        let role = world.role_mut("CVM_QcsRole").expect("the role");
        role.policies.clear();
        world.denied.insert("DescribeImages".to_owned());
    });
    assert_eq!(
        error_code(&client.export(json!({})).await),
        "InvalidParameterValue.InvalidBucketPermissionForExport"
    );
    let response = client.cvm("DescribeImages", json!({})).await;
    assert_eq!(error_code(&response), "UnauthorizedOperation");
}

#[tokio::test]
async fn the_services_around_cvm_tell_role_account_and_snapshots() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let cam = "2019-01-16";
    let role = json!({"RoleName": "CVM_QcsRole"});
    let response = client.api("cam", "GetRole", cam, role).await;
    let trust = response["RoleInfo"]["PolicyDocument"]
        .as_str()
        .expect("JSON text");
    assert!(trust.contains("cvm.qcloud.com"), "{trust}");
    let response = client
        .api("cam", "GetRole", cam, json!({"RoleName": "None"}))
        .await;
    assert_eq!(error_code(&response), "InvalidParameter.RoleNotExist");
    let page = json!({"Page": 1, "Rp": 20, "RoleName": "CVM_QcsRole"});
    let response = client
        .api("cam", "ListAttachedRolePolicies", cam, page)
        .await;
    assert_eq!(
        response["List"][0]["PolicyName"],
        "QcloudCOSDataFullControl"
    );
    let response = client.api("cam", "GetUserAppId", cam, json!({})).await;
    assert_eq!(response["AppId"], 1_250_000_000);
    let response = client
        .api("sts", "GetCallerIdentity", "2018-08-13", json!({}))
        .await;
    assert_eq!(response["AccountId"], "100000000001");
    let product = json!({"Product": "cvm"});
    let response = client
        .api("region", "DescribeRegions", "2022-06-27", product)
        .await;
    assert_eq!(response["RegionSet"][0]["Region"], "ap-guangzhou");
    let response = client
        .api(
            "cbs",
            "DescribeSnapshots",
            "2017-03-12",
            json!({"Limit": 100}),
        )
        .await;
    assert_eq!(response["SnapshotSet"][0]["Encrypt"], false);
}

#[tokio::test]
async fn assumed_roles_need_their_token() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let body = json!({
        "RoleArn": "qcs::cam::uin/100000000001:roleName/ExportOperator",
        "RoleSessionName": "test",
    });
    let response = client.api("sts", "AssumeRole", "2018-08-13", body).await;
    let secret = |name: &str| {
        let value = response["Credentials"][name].as_str();
        value.expect("a credential").to_owned()
    };
    let mut assumed = Client {
        credentials: Credentials {
            secret_id: secret("TmpSecretId"),
            secret_key: Secret::new(secret("TmpSecretKey")),
            token: Some(Secret::new(secret("Token"))),
            expires_at: None,
        },
        ..Client::new(&simulator)
    };
    let images = assumed.cvm("DescribeImages", json!({})).await;
    assert_eq!(images["TotalCount"], 5);
    assert_eq!(assumed.get("/").await.status, 200);
    assumed.credentials.token = Some(Secret::new("other"));
    let refused = assumed.cvm("DescribeImages", json!({})).await;
    assert_eq!(error_code(&refused), "AuthFailure.TokenFailure");
    let refused = assumed.get("/").await;
    assert_eq!(
        refused.element("Code").as_deref(),
        Some("InvalidAccessKeyId")
    );
    let expiry = response["ExpiredTime"].as_i64().expect("a time");
    assert!(expiry > clock::now().timestamp() + 7000);
}

#[tokio::test]
async fn rate_limits_hold_for_each_second() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    // At once, so that a slow machine fits them into one second as well.
    let calls = (0..30).map(|_| client.cvm("DescribeImageQuota", json!({})));
    let responses = futures_util::future::join_all(calls).await;
    let admitted = responses
        .iter()
        .filter(|response| error_code(response).is_empty())
        .count();
    assert!((10..30).contains(&admitted), "{admitted}");
    let refused = responses
        .iter()
        .find(|response| !error_code(response).is_empty());
    let code = error_code(refused.expect("a refusal"));
    assert_eq!(code, "RequestLimitExceeded");
}

#[tokio::test]
async fn ranges_and_conditions_are_obeyed() {
    let simulator = instant().await;
    simulator.change(|world| world.put_object(BUCKET, "a b/腾.raw", &b"0123456789"[..]));
    let client = Client::new(&simulator);
    let key = "/a b/腾.raw";
    let get = async |headers: &[(&str, &str)]| client.cos("GET", key, headers, b"").await;
    let part = get(&[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let whole = get(&[]).await;
    assert_eq!(whole.status, 200);
    assert_eq!(
        part.header("x-cos-hash-crc64ecma"),
        whole.header("x-cos-hash-crc64ecma")
    );
    let beyond = get(&[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.element("Code").as_deref(), Some("InvalidRange"));
    let etag = whole.header("etag").expect("an ETag");
    assert_eq!(get(&[("if-match", etag)]).await.status, 200);
    assert_eq!(get(&[("if-match", "\"other\"")]).await.status, 412);
    let same = get(&[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
}

#[tokio::test]
async fn buckets_answer_in_their_own_region_only() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let ask = async |method: &str, host: &str, target: &str| {
        let request = client.cos_request(method, host, target, &[], b"");
        exchange(simulator.address(), &request).await
    };
    let head = client.cos("HEAD", "/", &[], b"").await;
    assert_eq!(head.header("x-cos-bucket-region"), Some("ap-guangzhou"));
    let wrong = format!("{BUCKET}.cos.ap-singapore.myqcloud.com");
    assert_eq!(ask("HEAD", &wrong, "/").await.status, 404);
    let reply = ask("GET", &wrong, "/").await;
    assert_eq!(reply.element("Code").as_deref(), Some("NoSuchBucket"));
    let service = ask("GET", "service.cos.myqcloud.com", "/").await;
    assert_eq!(service.text().matches("<Bucket>").count(), 2);
    let path_style = format!("/{BUCKET}/");
    let reply = ask("GET", "cos.ap-guangzhou.myqcloud.com", &path_style).await;
    assert_eq!(reply.element("Name").as_deref(), Some(BUCKET));
    simulator.change(|world| world.denied.insert("HeadObject".to_owned()));
    let reply = client.cos("HEAD", "/k", &[], b"").await;
    assert_eq!((reply.status, reply.body.len()), (403, 0));
    let reply = client.get("/?colour=red").await;
    assert_eq!(
        (reply.status, reply.element("Code").as_deref()),
        (400, Some("InvalidArgument"))
    );
}

#[tokio::test]
async fn clients_can_write_list_and_delete() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let put = client
        .cos("PUT", "/a", &[("x-cos-forbid-overwrite", "true")], b"one")
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(
        put.header("etag"),
        Some("\"f97c5d29941bfb1b2fdab0874906ab82\"")
    );
    let again = client
        .cos("PUT", "/a", &[("x-cos-forbid-overwrite", "true")], b"two")
        .await;
    assert_eq!(again.status, 409);
    assert_eq!(again.element("Code").as_deref(), Some("FileAlreadyExists"));
    let bad = client
        .cos("PUT", "/a", &[("content-md5", "AAAA")], b"two")
        .await;
    assert_eq!(bad.element("Code").as_deref(), Some("BadDigest"));
    for key in ["/b/1", "/b/2", "/c"] {
        assert_eq!(client.cos("PUT", key, &[], b"x").await.status, 200);
    }
    let page = client
        .get("/?delimiter=%2F&max-keys=2&encoding-type=url")
        .await;
    assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
    assert_eq!(page.element("NextMarker").as_deref(), Some("b%2F"));
    let page = client.get("/?delimiter=%2F&max-keys=2&marker=b%2F").await;
    assert_eq!(page.element("Key").as_deref(), Some("c"));
    assert_eq!(client.cos("DELETE", "/a", &[], b"").await.status, 204);
    assert_eq!(client.cos("DELETE", "/a", &[], b"").await.status, 204);
    let body = b"<Delete><Object><Key>b/1</Key></Object><Object><Key>c</Key></Object></Delete>";
    let md5 = super::digest::md5_base64(body);
    let deleted = client
        .cos("POST", "/?delete", &[("content-md5", &md5)], body)
        .await;
    assert_eq!(
        deleted.text().matches("<Deleted>").count(),
        2,
        "{deleted:?}"
    );
    assert_eq!(simulator.change(|world| world.keys(BUCKET)), ["b/2"]);
}

#[tokio::test]
async fn clients_can_upload_in_parts() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let started = client.cos("POST", "/big?uploads", &[], b"").await;
    let id = started.element("UploadId").expect("an upload");
    let first = vec![7_u8; 1 << 20];
    let mut etags = Vec::new();
    for (number, body) in [(1, first.as_slice()), (2, b"end")] {
        let target = format!("/big?partNumber={number}&uploadId={id}");
        let part = client.cos("PUT", &target, &[], body).await;
        etags.push(part.header("etag").expect("an ETag").to_owned());
    }
    let list = client.get(&format!("/big?uploadId={id}&max-parts=1")).await;
    assert_eq!(list.element("NextPartNumberMarker").as_deref(), Some("1"));
    let part = |number: usize| {
        let etag = &etags[number - 1];
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    };
    let target = format!("/big?uploadId={id}");
    let wrong = format!(
        "<CompleteMultipartUpload>{}{}</CompleteMultipartUpload>",
        part(2),
        part(1)
    );
    let reply = client.cos("POST", &target, &[], wrong.as_bytes()).await;
    assert_eq!(reply.element("Code").as_deref(), Some("InvalidPartOrder"));
    let right = format!(
        "<CompleteMultipartUpload>{}{}</CompleteMultipartUpload>",
        part(1),
        part(2)
    );
    let reply = client.cos("POST", &target, &[], right.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let whole = client.get("/big").await;
    assert_eq!(whole.body.len(), (1 << 20) + 3);
    assert!(whole.header("etag").expect("an ETag").ends_with("-2\""));
    assert_eq!(client.get(&target).await.status, 404);
}

#[tokio::test]
async fn a_connection_serves_several_calls() {
    let simulator = instant().await;
    simulator.change(|world| world.put_object(BUCKET, "k", vec![5; 1000]));
    let client = Client::new(&simulator);
    let head = client.cos_request("HEAD", BUCKET_HOST, "/k", &[], b"");
    let mut requests = String::from_utf8(head)
        .expect("text")
        .replace("Connection: close\r\n", "")
        .into_bytes();
    requests.extend(client.cos_request("GET", BUCKET_HOST, "/k", &[], b""));
    let reply = exchange(simulator.address(), &requests).await;
    assert_eq!(reply.header("content-length"), Some("1000"));
    assert!(
        reply.body.starts_with(b"HTTP/1.1 200 OK"),
        "{}",
        reply.text()
    );
    assert!(reply.body.ends_with(&[5; 1000]));
    assert_eq!(simulator.calls().len(), 2);
}

#[tokio::test]
async fn proxies_and_the_simulators_own_doors_are_served() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let request = client.api_request("cvm", "DescribeImages", "2017-03-12", &json!({}));
    let proxied = request.replacen("POST /", "POST http://cvm.tencentcloudapi.com/", 1);
    assert_eq!(client.send(&proxied).await.status, 200);
    let fooled = request.replacen("POST /", "POST http://cam.tencentcloudapi.com/", 1);
    assert_eq!(client.send(&fooled).await.status, 400);
    let door = async |method: &str, door: &str, body: &str| {
        let request = format!(
            "{method} /_simulator/{door} HTTP/1.1\r\nHost: any\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        client.send(&request).await
    };
    let calls = door("GET", "calls", "").await;
    let calls: Value = serde_json::from_slice(&calls.body).expect("JSON");
    assert_eq!(calls["calls"].as_array().map(Vec::len), Some(1));
    assert_eq!(calls["calls"][0]["operation"], "DescribeImages");
    assert_eq!(door("DELETE", "calls", "").await.status, 204);
    assert!(simulator.calls().is_empty());
    let faults = r#"{"faults":[{"call":"*","effect":{"kind":"status","status":503}}]}"#;
    assert_eq!(door("PUT", "faults", faults).await.status, 204);
    assert_eq!(client.send(&request).await.status, 503);
    assert_eq!(door("PUT", "faults", "{}").await.status, 400);
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_ends_when_dropped() {
    let options = Options {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..Options::default()
    };
    let refused = Simulator::start(options).await;
    assert!(matches!(refused, Err(SimulatorError::NotLoopback(_))));
    let simulator = instant().await;
    let address = simulator.address();
    drop(simulator);
    tokio::task::yield_now().await;
    let mut attempts = 0;
    while TcpStream::connect(address).await.is_ok() {
        attempts += 1;
        assert!(attempts < 100, "the port is still open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_role_is_taken_on_by_those_whom_it_trusts() {
    let simulator = instant().await;
    let client = Client::new(&simulator);
    let asked = |name: &str| {
        let role = format!("qcs::cam::uin/100000000001:roleName/{name}");
        json!({"RoleArn": role, "RoleSessionName": "test"})
    };
    let body = asked("CVM_QcsRole");
    let refused = client.api("sts", "AssumeRole", "2018-08-13", body).await;
    assert_eq!(error_code(&refused), "UnauthorizedOperation");
    let body = asked("ExportOperator");
    let keys = client.api("sts", "AssumeRole", "2018-08-13", body).await;
    let secret = |name: &str| keys["Credentials"][name].as_str().expect("a key");
    let assumed = Client {
        credentials: Credentials {
            secret_id: secret("TmpSecretId").to_owned(),
            secret_key: Secret::new(secret("TmpSecretKey")),
            token: Some(Secret::new(secret("Token"))),
            expires_at: None,
        },
        ..Client::new(&simulator)
    };
    let caller = assumed
        .api("sts", "GetCallerIdentity", "2018-08-13", json!({}))
        .await;
    assert_eq!(caller["Type"], "CAMRole");
    let arn = caller["Arn"].as_str().expect("an ARN");
    assert!(arn.ends_with("assumed-role/ExportOperator"), "{arn}");
}
