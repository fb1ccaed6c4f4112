//! The actions that copy images and delete them.

use cvm_export::cloud::actions::cvm;
use cvm_export::model::ImageId;
use serde_json::json;

use super::api::{Example, REGION, bears_null_missing_and_new_fields, example, read_one};

fn image(id: &str) -> ImageId {
    id.parse().expect("an id")
}

#[test]
fn sync_images() {
    let region = "ap-guangzhou".parse().expect("a region");
    let action = cvm::SyncImages::one(image("img-o3ycss2p"), region, "a-name".to_owned());
    Example {
        action: action.clone(),
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: example("SyncImages.request"),
        added: &[("ImageName", json!("a-name"))],
        omitted: &[],
    }
    .is_sent_as_documented();

    let answer = read_one(&action, example("SyncImages.response"));
    let [copy] = answer.image_set.as_slice() else {
        panic!("one copy: {answer:?}");
    };
    assert_eq!(copy.image_id, "img-evhmf3fy");
    assert_eq!(copy.region, "ap-guangzhou");
    let without = read_one(&action, example("SyncImages.without-ids.response"));
    assert!(without.image_set.is_empty(), "{without:?}");
    let required = ["ImageSet[].ImageId", "ImageSet[].Region"];
    bears_null_missing_and_new_fields(&action, "SyncImages.response", &required);
}

#[test]
fn delete_images() {
    for with_snapshots in [true, false] {
        let action = cvm::DeleteImages {
            image_ids: vec![image("img-34vaef8fe")],
            delete_binded_snap: with_snapshots,
        };
        Example {
            action: action.clone(),
            host: "cvm.tencentcloudapi.com",
            version: "2017-03-12",
            region: Some(REGION),
            request: example("DeleteImages.request"),
            added: &[("DeleteBindedSnap", json!(with_snapshots))],
            omitted: &[],
        }
        .is_sent_as_documented();
        read_one(&action, example("DeleteImages.response"));
        bears_null_missing_and_new_fields(&action, "DeleteImages.response", &[]);
    }
}

#[test]
fn describe_image_quota() {
    let action = cvm::DescribeImageQuota {};
    Example {
        action,
        host: "cvm.tencentcloudapi.com",
        version: "2017-03-12",
        region: Some(REGION),
        request: example("DescribeImageQuota.request"),
        added: &[],
        omitted: &[],
    }
    .is_sent_as_documented();
    let answer = read_one(&action, example("DescribeImageQuota.response"));
    assert_eq!(answer.image_num_quota, Some(20));
    bears_null_missing_and_new_fields(&action, "DescribeImageQuota.response", &[]);
}

#[test]
fn custom_images_are_looked_for_by_name_and_counted() {
    let custom = json!({"Name": "image-type", "Values": ["PRIVATE_IMAGE"]});
    let named = json!({"Name": "image-name", "Values": ["a-name"]});
    for (action, filters, limit) in [
        (
            cvm::DescribeImages::custom_images_named("a-name"),
            json!([custom, named]),
            100,
        ),
        (
            cvm::DescribeImages::count_of_custom_images(),
            json!([custom]),
            1,
        ),
    ] {
        Example {
            action,
            host: "cvm.tencentcloudapi.com",
            version: "2017-03-12",
            region: Some(REGION),
            request: json!({}),
            added: &[("Filters", filters), ("Limit", json!(limit))],
            omitted: &[],
        }
        .is_sent_as_documented();
    }
}
