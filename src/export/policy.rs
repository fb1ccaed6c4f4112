//! The caller's own minimal CAM policy, for `check --print-policy`.

use serde_json::{Value, json};

use super::role::app_id;
use crate::error::Error;
use crate::model::{BucketName, Region};

/// What a caller does beyond an export, each with rights of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeyondExport {
    /// Making the bucket.
    CreateBucket,
    /// Copying the image, and deleting the copy.
    CopyImage,
}

impl BeyondExport {
    fn statement(self, bucket_resource: &str) -> Value {
        let (actions, resources) = match self {
            Self::CreateBucket => (
                json!(["name/cos:PutBucket"]),
                json!([
                    format!("{bucket_resource}/"),
                    format!("{bucket_resource}/*")
                ]),
            ),
            // Whether CAM knows a finer resource for a copy that is not there yet is not documented.
            Self::CopyImage => (
                json!([
                    "cvm:DeleteImages",
                    "cvm:DescribeImageQuota",
                    "cvm:SyncImages",
                ]),
                json!(["*"]),
            ),
        };
        json!({"effect": "allow", "action": actions, "resource": resources})
    }
}

/// The rights that one person or robot needs to export images to `bucket`, and for what is done `beyond`,
/// as a CAM policy document.
///
/// `ExportImages` is allowed on every resource: whether CAM knows a finer one for it is not
/// documented. In COS resources `uid` is the AppId.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for a bucket without its AppId.
pub fn minimal_policy(
    bucket: &BucketName,
    region: &Region,
    beyond: &[BeyondExport],
) -> Result<Value, Error> {
    let app_id = app_id(bucket)?;
    let bucket_resource = format!("qcs::cos:{region}:uid/{app_id}:{bucket}");
    let mut policy = json!({
        "version": "2.0",
        "statement": [
            {
                "effect": "allow",
                "action": [
                    "cvm:DescribeImages",
                    "cvm:DescribeSnapshots",
                    "cvm:ExportImages",
                    "cam:GetPolicy",
                    "cam:GetRole",
                    "cam:GetUserAppId",
                    "cam:ListAttachedRolePolicies",
                    "cam:PassRole",
                    "name/cos:GetService",
                    "sts:GetCallerIdentity",
                ],
                "resource": ["*"],
            },
            {
                "effect": "allow",
                "action": [
                    "name/cos:HeadBucket",
                    "name/cos:GetBucket",
                    "name/cos:GetBucketVersioning",
                    "name/cos:ListMultipartUploads",
                ],
                "resource": [format!("{bucket_resource}/"), format!("{bucket_resource}/*")],
            },
            {
                "effect": "allow",
                "action": [
                    "name/cos:HeadObject",
                    "name/cos:GetObject",
                    "name/cos:ListParts",
                    "name/cos:PutObject",
                ],
                "resource": [format!("{bucket_resource}/*")],
            },
        ],
    });
    if let Some(statements) = policy["statement"].as_array_mut() {
        let added = beyond.iter().map(|what| what.statement(&bucket_resource));
        statements.extend(added);
    }
    Ok(policy)
}
