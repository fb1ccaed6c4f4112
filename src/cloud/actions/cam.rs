//! CAM, version 2019-01-16. The calls belong to the account; a region is optional.
//!
//! Roles and policies are told apart by their names, which CAM keeps unique: a call that creates one
//! cannot make a second. It is still not repeated blindly, so that its caller learns whose it is.

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::cloud::api::{Action, Replay};
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
    /// Its name, as it was created.
    #[serde(default, deserialize_with = "null_as_default")]
    pub role_name: CloudText,
    /// What its maker wrote about it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub description: CloudText,
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
    /// Its number.
    #[serde(default)]
    pub policy_id: Option<u64>,
    /// `QCS` for a preset policy, `User` for a custom one.
    #[serde(default)]
    pub policy_type: Option<CloudText>,
}

/// Creates a role (SDK `cam/v20190116`; page 598/36225). A name that is taken is refused by
/// `InvalidParameter.RoleNameInUse`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRole {
    /// The name.
    pub role_name: RoleName,
    /// Who may take it on, as JSON text.
    pub policy_document: String,
    /// What it is for, at most 300 bytes.
    pub description: String,
}

impl Action for CreateRole {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "CreateRole";
    const REPLAY: Replay = Replay::NeverOnceSent;
    type Response = Done;
}

/// Replaces the trust document of a role (SDK `cam/v20190116`); twice is as good as once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateAssumeRolePolicy {
    /// The role.
    pub role_name: RoleName,
    /// Who may take it on, as JSON text.
    pub policy_document: String,
}

impl Action for UpdateAssumeRolePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "UpdateAssumeRolePolicy";
    type Response = Done;
}

/// Deletes a role (SDK `cam/v20190116`); the second time it is refused and nothing more.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteRole {
    /// The role.
    pub role_name: RoleName,
}

impl Action for DeleteRole {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "DeleteRole";
    type Response = Done;
}

/// Attaches a policy to a role (SDK `cam/v20190116`); one that is attached stays so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachRolePolicy {
    /// The policy.
    pub policy_name: String,
    /// The role.
    pub attach_role_name: RoleName,
}

impl Action for AttachRolePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "AttachRolePolicy";
    type Response = Done;
}

/// Detaches a policy from a role (SDK `cam/v20190116`); one that is not attached stays so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DetachRolePolicy {
    /// The policy.
    pub policy_name: String,
    /// The role.
    pub detach_role_name: RoleName,
}

impl Action for DetachRolePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "DetachRolePolicy";
    type Response = Done;
}

/// Creates a custom policy (SDK `cam/v20190116`). A name that is taken is refused by
/// `FailedOperation.PolicyNameInUse`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePolicy {
    /// The name.
    pub policy_name: String,
    /// What it allows, as JSON text.
    pub policy_document: String,
    /// What it is for, at most 300 bytes.
    pub description: String,
}

impl Action for CreatePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "CreatePolicy";
    const REPLAY: Replay = Replay::NeverOnceSent;
    type Response = Done;
}

/// Replaces what a custom policy allows (SDK `cam/v20190116`; page 598/45874); twice is as good as
/// once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdatePolicy {
    /// The policy's number.
    pub policy_id: u64,
    /// What it allows, as JSON text.
    pub policy_document: String,
}

impl Action for UpdatePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "UpdatePolicy";
    type Response = Done;
}

/// Deletes custom policies (SDK `cam/v20190116`; page 598/32247); the second time it is refused and
/// nothing more.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeletePolicy {
    /// The policies' numbers.
    pub policy_id: Vec<u64>,
}

impl Action for DeletePolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "DeletePolicy";
    type Response = Done;
}

/// The answer of a call that says no more than that it was done. `CreateRole` and `CreatePolicy` tell
/// a number as well; names are used here, which a lost answer does not lose.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Done {}

/// Lists policies (SDK `cam/v20190116`; page 598/34570).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPolicies {
    /// Policies a page, at most 200.
    pub rp: u64,
    /// The page, from 1 to 200.
    pub page: u64,
    /// `Local` for the account's own.
    pub scope: &'static str,
    /// A part of the names.
    pub keyword: String,
}

impl Action for ListPolicies {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "ListPolicies";
    type Response = ListPoliciesResponse;
}

/// A page of policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListPoliciesResponse {
    /// The policies.
    #[serde(default, deserialize_with = "null_as_default")]
    pub list: Vec<ListedPolicy>,
}

/// A policy of the account.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedPolicy {
    /// Its number.
    pub policy_id: u64,
    /// Its name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub policy_name: CloudText,
    /// What its maker wrote about it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub description: CloudText,
    /// How many users, groups and roles it is attached to.
    #[serde(default)]
    pub attach_entity_count: Option<u64>,
}

/// Reads a policy (SDK `cam/v20190116`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetPolicy {
    /// Its number.
    pub policy_id: u64,
}

impl Action for GetPolicy {
    const SERVICE: &'static str = "cam";
    const VERSION: &'static str = "2019-01-16";
    const NAME: &'static str = "GetPolicy";
    type Response = GetPolicyResponse;
}

/// A policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetPolicyResponse {
    /// What its maker wrote about it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub description: CloudText,
    /// What it allows, as JSON text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub policy_document: CloudText,
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
