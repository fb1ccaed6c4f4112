//! STS, version 2018-08-13. A region is needed, and any will do.

use serde::{Deserialize, Serialize};

use super::null_as_default;
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
