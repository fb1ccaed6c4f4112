//! STS, version 2018-08-13. A region is needed, and any will do.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::null_as_default;
use crate::auth::Secret;
use crate::cloud::api::Action;
use crate::model::CloudText;

/// Asks who the caller is (SDK `sts/v20180813`).
#[derive(Clone, Debug, Serialize)]
pub struct GetCallerIdentity {}

impl Action for GetCallerIdentity {
    const SERVICE: &'static str = "sts";
    const VERSION: &'static str = "2018-08-13";
    const NAME: &'static str = "GetCallerIdentity";
    type Response = GetCallerIdentityResponse;
}

/// The caller.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetCallerIdentityResponse {
    /// The caller's resource name, `qcs::cam::uin/…:uin/…` or one of a role session.
    pub arn: CloudText,
    /// The number of the account.
    #[serde(default, deserialize_with = "null_as_default")]
    pub account_id: CloudText,
    /// `CAMUser`, `CAMRole` and others.
    #[serde(rename = "Type", default, deserialize_with = "null_as_default")]
    pub kind: CloudText,
}

/// Takes on a role with the keys that the call is signed with (SDK `sts/v20180813`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRole {
    /// `qcs::cam::uin/<uin>:roleName/<name>` or one of its other forms.
    pub role_arn: String,
    /// What the audit trail calls the session.
    pub role_session_name: String,
    /// How long the keys shall live; the server's default is 7200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// What the owner of the role has agreed on with whoever takes it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl Action for AssumeRole {
    const SERVICE: &'static str = "sts";
    const VERSION: &'static str = "2018-08-13";
    const NAME: &'static str = "AssumeRole";
    const ANSWERS_KEYS: bool = true;
    type Response = AssumedRole;
}

/// Takes on a role with a token that an identity provider has signed; the call itself is not signed (SDK
/// for Go, `common/oidc_role_arn_provider.go`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleWithWebIdentity {
    /// The name of the identity provider.
    pub provider_id: String,
    /// What the provider has signed.
    #[serde(serialize_with = "exposed")]
    pub web_identity_token: Secret,
    /// The role.
    pub role_arn: String,
    /// What the audit trail calls the session.
    pub role_session_name: String,
}

impl Action for AssumeRoleWithWebIdentity {
    const SERVICE: &'static str = "sts";
    const VERSION: &'static str = "2018-08-13";
    const NAME: &'static str = "AssumeRoleWithWebIdentity";
    const IS_SIGNED: bool = false;
    const ANSWERS_KEYS: bool = true;
    type Response = AssumedRole;
}

/// The keys of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumedRole {
    /// The keys.
    pub credentials: RoleKeys,
    /// When they end, in seconds since 1970.
    pub expired_time: i64,
}

/// Temporary keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoleKeys {
    /// The session token.
    #[serde(deserialize_with = "secret")]
    pub token: Secret,
    /// The public half.
    pub tmp_secret_id: String,
    /// The private half.
    #[serde(deserialize_with = "secret")]
    pub tmp_secret_key: Secret,
}

fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    secret.expose().serialize(serializer)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}
