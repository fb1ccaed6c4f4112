//! The actions of API 3.0, one after the other.

use cvm_export::cloud::actions::{cam, cbs, cvm, region, sts};
use cvm_export::cloud::api::ApiErrorKind;
use cvm_export::model::RoleName;
use serde_json::{Value, json};

use super::api::{
    Example, REGION, bears_null_missing_and_new_fields, example, read, read_one,
    with_unforeseen_fields,
};

fn role(name: &str) -> RoleName {
    name.parse().expect("a role")
}

#[test]
fn describe_images() {
    let action = cvm::DescribeImages::custom_images(&[]);
    Example {
        action: action.clone(),
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: example("DescribeImages.request"),
        added: &[("Limit", json!(100))],
        omitted: &[],
    }
    .is_sent_as_documented();

    let page = read_one(&action, example("DescribeImages.response"));
    assert_eq!(page.total_count, Some(408));
    let [image] = page.image_set.as_slice() else {
        panic!("one image: {page:?}");
    };
    assert_eq!(image.image_id, "img-qlzp4oea");
    assert_eq!(image.image_name, "test-image");
    assert_eq!(image.os_name, "CentOS 7.4 64位");
    assert_eq!(image.image_type, "PRIVATE_IMAGE");
    assert_eq!(image.image_state, "NORMAL");
    assert_eq!(image.platform, "CentOS");
    let created = image.created_time.map(|time| time.to_rfc3339());
    assert_eq!(created.as_deref(), Some("2020-09-22T00:00:00+00:00"));
    let [snapshot] = image.snapshot_set.as_slice() else {
        panic!("one snapshot: {image:?}");
    };
    assert_eq!(snapshot.snapshot_id, "snap-gqa37j2p");
    assert_eq!(snapshot.disk_usage, "SYSTEM_DISK");
    assert_eq!(snapshot.disk_size, 20);

    let required = [
        "ImageSet[].ImageId",
        "ImageSet[].SnapshotSet[].SnapshotId",
        "ImageSet[].SnapshotSet[].DiskUsage",
        "ImageSet[].SnapshotSet[].DiskSize",
    ];
    bears_null_missing_and_new_fields(&action, "DescribeImages.response", &required);
    let public = "DescribeImages.public.response";
    bears_null_missing_and_new_fields(&action, public, &required[..1]);
}

#[test]
fn describe_images_by_id_sends_ids_and_no_filters() {
    Example {
        action: cvm::DescribeImages::by_id("img-9qabwvbn".parse().expect("an id")),
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: json!({}),
        added: &[("ImageIds", json!(["img-9qabwvbn"])), ("Limit", json!(100))],
        omitted: &[],
    }
    .is_sent_as_documented();
}

/// An older revision of the page shows names that no answer has: they are unknown, nothing more.
#[test]
fn describe_images_in_an_earlier_revision() {
    let action = cvm::DescribeImages::custom_images(&[]);
    let page = read_one(&action, example("DescribeImages.earlier.response"));
    assert_eq!(page.image_set[0].image_id, "img-pmqg1cw7");
    assert_eq!(page.image_set[0].os_name, "");
    assert_eq!(page.image_set[0].image_state, "");
    assert_eq!(page.image_set[0].created_time, None);
    bears_null_missing_and_new_fields(
        &action,
        "DescribeImages.earlier.response",
        &["ImageSet[].ImageId"],
    );
}

/// Reads the documents' image with one field changed.
fn image_with(field: &str, value: Value) -> cvm::Image {
    let mut response = example("DescribeImages.response");
    response["Response"]["ImageSet"][0][field] = value;
    let action = cvm::DescribeImages::custom_images(&[]);
    read_one(&action, response).image_set.remove(0)
}

#[test]
fn created_time_is_read_in_both_forms_and_anything_else_is_no_time() {
    for (text, expected) in [
        ("2020-09-22T00:00:00+00:00", Some(1_600_732_800)),
        ("2020-09-22T00:00:00Z", Some(1_600_732_800)),
        ("2020-09-22T08:00:00+08:00", Some(1_600_732_800)),
        ("2020-09-22T00:00:00.250Z", Some(1_600_732_800)),
        ("2020-09-22 00:00:00", None),
        ("2020-09-22T00:00:00", None),
        ("2020-13-22T00:00:00Z", None),
        ("0000-00-00T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        let image = image_with("CreatedTime", json!(text));
        let seconds = image.created_time.map(|time| time.timestamp());
        assert_eq!(seconds, expected, "`{text}`");
    }
}

#[test]
fn names_in_any_language_arrive_and_nothing_in_them_moves_the_cursor() {
    for (name, shown) in [
        ("CentOS 7.6 64位", "CentOS 7.6 64位"),
        (
            "本番サーバーのイメージ（２０２６年）",
            "本番サーバーのイメージ（２０２６年）",
        ),
        ("образ 🦀 é", "образ 🦀 é"),
        ("a\u{1b}[31mred\u{7}\r\nb\tc\u{0}", "a [31mred   b c "),
        ("safe\u{202e}exe.gpj\u{200b}\u{feff}", "safeexe.gpj"),
    ] {
        for field in ["OsName", "ImageName", "Platform", "ImageState"] {
            let image = image_with(field, json!(name));
            let text = match field {
                "OsName" => image.os_name,
                "ImageName" => image.image_name,
                "Platform" => image.platform,
                _ => image.image_state,
            };
            assert_eq!(text, shown, "{field}");
        }
    }
}

fn export_images(format: &'static str) -> cvm::ExportImages {
    cvm::ExportImages {
        bucket_name: "test-bucket-1250000000".parse().expect("a bucket"),
        image_ids: vec!["img-72n9mi0y".parse().expect("an id")],
        export_format: format,
        file_name_prefix_list: None,
        only_export_root_disk: false,
        role_name: role("CVM_QcsRole"),
    }
}

/// The documents' request, whose bucket ends in a word in place of the account's number.
fn export_request(name: &str) -> Value {
    let mut request = example(name);
    let bucket = request["BucketName"].as_str().expect("a bucket");
    request["BucketName"] = json!(bucket.replace("AppId", "1250000000"));
    request
}

#[test]
fn export_images_is_sent_as_documented() {
    // What is added are the documented defaults, said aloud.
    Example {
        action: export_images("RAW"),
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: export_request("ExportImages.request"),
        added: &[
            ("ExportFormat", json!("RAW")),
            ("OnlyExportRootDisk", json!(false)),
            ("RoleName", json!("CVM_QcsRole")),
        ],
        omitted: &[],
    }
    .is_sent_as_documented();

    // The example values of the page's parameter table.
    Example {
        action: cvm::ExportImages {
            file_name_prefix_list: Some(vec!["testfilename".parse().expect("a prefix")]),
            only_export_root_disk: true,
            ..export_images("RAW")
        },
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: export_request("ExportImages.request"),
        added: &[
            ("ExportFormat", json!("RAW")),
            ("FileNamePrefixList", json!(["testfilename"])),
            ("OnlyExportRootDisk", json!(true)),
            ("RoleName", json!("CVM_QcsRole")),
        ],
        omitted: &[],
    }
    .is_sent_as_documented();
}

#[test]
fn export_images_is_understood() {
    let action = export_images("RAW");
    let accepted = read_one(&action, example("ExportImages.response"));
    assert_eq!(accepted.task_id.map(|task| task.0), Some(105_591_590));
    assert_eq!(
        accepted.cos_paths,
        ["/img-pq5pau1w_system_snap-fiux4bof.raw"]
    );
    let accepted = read_one(&action, example("ExportImages.earlier.response"));
    assert_eq!(accepted.task_id.map(|task| task.0), Some(105_591_590));
    assert!(accepted.cos_paths.is_empty());
    for name in ["ExportImages.response", "ExportImages.earlier.response"] {
        bears_null_missing_and_new_fields(&action, name, &[]);
    }
}

#[test]
fn a_dry_run_asks_the_same_and_both_answers_are_understood() {
    let action = cvm::ExportImagesDryRun(export_images("RAW"));
    Example {
        action: action.clone(),
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: export_request("ExportImages.dry-run.request"),
        added: &[
            ("ExportFormat", json!("RAW")),
            ("OnlyExportRootDisk", json!(false)),
            ("RoleName", json!("CVM_QcsRole")),
        ],
        omitted: &[],
    }
    .is_sent_as_documented();

    let [refused, accepted] = [
        example("ExportImages.dry-run.response"),
        example("ExportImages.response"),
    ]
    .map(|answer| read(&action, &[answer]).remove(0));
    let error = refused.expect_err("an error");
    assert_eq!(error.code(), Some("DryRunOperation"));
    // Of a dry run nobody asks; as an answer to a submit it would be no known refusal.
    assert!(!error.proves_nothing_happened());
    assert_eq!(accepted.expect("an answer").cos_paths.len(), 1);
    bears_null_missing_and_new_fields(&action, "ExportImages.response", &[]);
}

#[test]
fn describe_snapshots() {
    // The documents filter by state and zone; this tool names the snapshots.
    let ids = ["snap-0jfkjwl1", "snap-obgelzpb"];
    let action = cbs::DescribeSnapshots {
        snapshot_ids: ids.map(|id| id.parse().expect("an id")).to_vec(),
        limit: Some(100),
    };
    Example {
        action: action.clone(),
        host: "cbs.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: example("DescribeSnapshots.request"),
        added: &[("SnapshotIds", json!(ids)), ("Limit", json!(100))],
        omitted: &["Filters"],
    }
    .is_sent_as_documented();

    let page = read_one(&action, example("DescribeSnapshots.response"));
    let found: Vec<_> = page
        .snapshot_set
        .iter()
        .map(|snapshot| (snapshot.snapshot_id.as_str(), snapshot.encrypt))
        .collect();
    assert_eq!(found, ids.map(|id| (id, Some(false))));
    bears_null_missing_and_new_fields(
        &action,
        "DescribeSnapshots.response",
        &["SnapshotSet[].SnapshotId"],
    );
}

#[test]
fn get_role() {
    // The documents take either the id or the name of a role.
    let action = cam::GetRole {
        role_name: role("CVM_QcsRole"),
    };
    for region in [None, Some(REGION)] {
        Example {
            action: action.clone(),
            host: "cam.tencentcloudapi.com",
            version: "2019-01-16",
            region,
            request: example("GetRole.request"),
            added: &[("RoleName", json!("CVM_QcsRole"))],
            omitted: &["RoleId"],
        }
        .is_sent_as_documented();
    }

    let answer = read_one(&action, example("GetRole.response"));
    let document: Value = serde_json::from_str(answer.role_info.policy_document.as_str())
        .expect("a policy document is JSON in a text");
    assert_eq!(
        document["statement"][0]["principal"]["service"][1],
        "cls.cloud.tencent.com"
    );
    bears_null_missing_and_new_fields(&action, "GetRole.response", &["RoleInfo"]);
}

#[test]
fn list_attached_role_policies() {
    let action = cam::ListAttachedRolePolicies {
        role_name: role("CVM_QcsRole"),
        page: 1,
        rp: 10,
    };
    Example {
        action: action.clone(),
        host: "cam.tencentcloudapi.com",
        version: "2019-01-16",
        region: Some(REGION),
        request: example("ListAttachedRolePolicies.request"),
        added: &[("RoleName", json!("CVM_QcsRole"))],
        omitted: &["RoleId"],
    }
    .is_sent_as_documented();

    let answer = read_one(&action, example("ListAttachedRolePolicies.response"));
    let [policy] = answer.list.as_slice() else {
        panic!("one policy: {answer:?}");
    };
    assert_eq!(policy.policy_name, "QcloudAccessForASRole");
    assert_eq!(policy.policy_type, Some("QCS".into()));
    bears_null_missing_and_new_fields(&action, "ListAttachedRolePolicies.response", &[]);
}

#[test]
fn get_user_app_id() {
    let action = cam::GetUserAppId {};
    Example {
        action: action.clone(),
        host: "cam.tencentcloudapi.com",
        version: "2019-01-16",
        region: None,
        request: example("GetUserAppId.request"),
        added: &[],
        omitted: &[],
    }
    .is_sent_as_documented();

    let answer = read_one(&action, example("GetUserAppId.response"));
    assert_eq!(answer.app_id, 1_250_000_000);
    bears_null_missing_and_new_fields(&action, "GetUserAppId.response", &["AppId"]);
}

#[test]
fn get_caller_identity() {
    let action = sts::GetCallerIdentity {};
    Example {
        action: action.clone(),
        host: "sts.tencentcloudapi.com",
        version: "2018-08-13",
        region: Some(REGION),
        request: example("GetCallerIdentity.request"),
        added: &[],
        omitted: &[],
    }
    .is_sent_as_documented();

    for (name, arn, kind) in [
        (
            "GetCallerIdentity.response",
            "qcs::sts:1000262***:assumed-role/461168601842741***",
            "CAMRole",
        ),
        (
            "GetCallerIdentity.user.response",
            "qcs::cam:1000262***:uin/1000261***",
            "CAMUser",
        ),
    ] {
        let caller = read_one(&action, example(name));
        assert_eq!(caller.arn, arn);
        assert_eq!(caller.account_id, "1000262***");
        assert_eq!(caller.kind, kind);
        bears_null_missing_and_new_fields(&action, name, &["Arn"]);
    }
}

#[test]
fn describe_regions() {
    // `Scene` asks about allow lists, which are of no interest here.
    let action = region::DescribeRegions::of_cvm();
    Example {
        action: action.clone(),
        host: "region.tencentcloudapi.com",
        version: "2022-06-27",
        region: Some(REGION),
        request: example("DescribeRegions.request"),
        added: &[],
        omitted: &["Scene"],
    }
    .is_sent_as_documented();

    let answer = read_one(&action, example("DescribeRegions.response"));
    let codes: Vec<_> = answer
        .region_set
        .iter()
        .map(|entry| &entry.region)
        .collect();
    assert_eq!(codes.len(), 19);
    assert_eq!(*codes[0], "ap-guangzhou");
    assert_eq!(*codes[18], "sa-saopaulo");
    bears_null_missing_and_new_fields(&action, "DescribeRegions.response", &["RegionSet[].Region"]);
}

#[test]
fn finance_regions_are_asked_at_their_own_host() {
    Example {
        action: cvm::DescribeImages::custom_images(&[]),
        host: "cvm.ap-shanghai-fsi.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some("ap-shanghai-fsi"),
        request: example("DescribeImages.request"),
        added: &[("Limit", json!(100))],
        omitted: &[],
    }
    .is_sent_as_documented();
}

#[test]
fn a_refusal_is_understood_whatever_else_it_holds() {
    let refusal = example("Error.response");
    let response = |error: Value| json!({"Response": {"Error": error, "RequestId": "r-1"}});
    let code = "AuthFailure.SignatureFailure";
    let action = cam::GetUserAppId {};
    let answers = [
        refusal.clone(),
        with_unforeseen_fields(&refusal),
        response(json!({"Code": code})),
        response(json!({"Code": code, "Message": null})),
        response(json!({"Code": code, "Message": "签名错误\u{1b}[2J"})),
    ];
    let mut messages = Vec::new();
    for answer in read(&action, &answers) {
        let error = answer.expect_err("a refusal");
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.kind(), ApiErrorKind::Credentials);
        assert!(error.proves_nothing_happened());
        assert!(error.request_id().is_some());
        messages.push(error.message().expect("words").to_owned());
    }
    assert!(messages[0].ends_with("ensure your signature is correct."));
    assert_eq!(messages[0], messages[1]);
    assert_eq!(&messages[2..], ["", "", "签名错误 [2J"]);

    for error in [json!({}), json!({"Code": null}), json!([]), json!("text")] {
        let answer = read(&action, &[response(error.clone())]).remove(0);
        let problem = answer.expect_err("no refusal that can be read");
        assert_eq!(problem.kind(), ApiErrorKind::NoAnswer, "{error}");
        assert_eq!(problem.request_id(), Some("r-1"), "{error}");
        assert!(!problem.proves_nothing_happened(), "{error}");
    }
}
