//! The preset policies that Tencent Cloud has made for every account.

use serde_json::{Value, json};

/// A preset policy.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// What it allows and denies, as JSON text.
    pub document: String,
}

impl Preset {
    /// The preset that the console's tick attaches to the role for exports. The real one's name is not
    /// published; this one follows those of other products (`QcloudCOSAccessForCLSRole`).
    pub const BY_CONSOLE: &str = "QcloudCOSAccessForCVMRole";

    /// A preset that allows `actions` on everything.
    #[must_use]
    pub fn allowing(name: &str, actions: &[&str]) -> Self {
        let statement: Value = json!({"effect": "allow", "action": actions, "resource": "*"});
        Self {
            name: name.to_owned(),
            document: json!({"version": "2.0", "statement": [statement]}).to_string(),
        }
    }
}

/// Those of the documentation that are about COS or CVM's role, and the one of the console's tick.
pub(super) fn all() -> Vec<Preset> {
    let writing = &[
        "cos:PutObject",
        "cos:PostObject",
        "cos:InitiateMultipartUpload",
        "cos:UploadPart",
        "cos:CompleteMultipartUpload",
        "cos:AbortMultipartUpload",
        "cos:ListParts",
    ];
    let by_console = [
        "cos:HeadBucket",
        "cos:GetBucket",
        "cos:PutObject",
        "cos:InitiateMultipartUpload",
        "cos:UploadPart",
        "cos:CompleteMultipartUpload",
        "cos:AbortMultipartUpload",
    ];
    let presets: [(&str, &[&str]); 9] = [
        (
            "QcloudCOSDataFullControl",
            &[
                "cos:*Object",
                "cos:*Multipart*",
                "cos:UploadPart",
                "cos:List*",
            ],
        ),
        ("QcloudCOSFullAccess", &["cos:*"]),
        ("QcloudCOSDataWriteOnly", writing),
        (
            "QcloudCOSReadOnlyAccess",
            &["cos:Get*", "cos:Head*", "cos:List*"],
        ),
        (
            "QcloudCOSDataReadOnly",
            &["cos:GetObject", "cos:HeadObject", "cos:List*"],
        ),
        (
            "QcloudCOSBucketConfigRead",
            &["cos:GetBucket*", "cos:HeadBucket"],
        ),
        ("QcloudCOSGetServiceAccess", &["cos:GetService"]),
        ("QcloudKMSAccessForCVMRole", &["kms:*"]),
        (Preset::BY_CONSOLE, &by_console),
    ];
    let presets = presets.into_iter();
    presets
        .map(|(name, actions)| Preset::allowing(name, actions))
        .collect()
}
