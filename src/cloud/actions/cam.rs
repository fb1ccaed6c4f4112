//! CAM, version 2019-01-16. The calls belong to the account; a region is optional.

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::cloud::api::Action;
use crate::model::{CloudText, RoleName};

/// Looks a role up (SDK `cam/v20190116`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetRole {
    /// The role.
    pub role_name: RoleName,
}

impl Action for GetRole {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "GetRole";
    type Response = GetRoleResponse;
}

/// A role that exists.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetRoleResponse {
    /// The role.
    pub role_info: RoleInfo,
}

/// A role.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RoleInfo {
    /// Who may take the role on, as JSON text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub policy_document: CloudText,
}

/// Lists the policies of a role (SDK `cam/v20190116`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAttachedRolePolicies {
    /// The role.
    pub role_name: RoleName,
    /// The page, from 1.
    pub page: u64,
    /// Policies a page, at most 200.
    pub rp: u64,
}

impl Action for ListAttachedRolePolicies {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "ListAttachedRolePolicies";
    type Response = ListAttachedRolePoliciesResponse;
}

/// A page of policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAttachedRolePoliciesResponse {
    /// The policies.
    #[serde(default, deserialize_with = "null_as_default")]
    pub list: Vec<PolicyEntry>,
}

/// A policy that is attached to a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyEntry {
    /// Its name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub policy_name: CloudText,
    /// `QCS` for a preset policy, `User` for a custom one.
    #[serde(default)]
    pub policy_type: Option<CloudText>,
}

/// Asks for the numbers of the account (SDK `cam/v20190116`).
#[derive(Clone, Debug, Serialize)]
pub struct GetUserAppId {}

impl Action for GetUserAppId {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "GetUserAppId";
    type Response = GetUserAppIdResponse;
}

/// The numbers of the account.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetUserAppIdResponse {
    /// The number at the end of the account's bucket names.
    pub app_id: u64,
}
