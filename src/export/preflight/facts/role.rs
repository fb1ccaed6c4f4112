//! The role that CVM takes on, and what hangs on it.

use super::{Fact, api_fact};
use crate::cloud::Cloud;
use crate::cloud::actions::cam::{GetPolicy, GetRole, ListAttachedRolePolicies, RoleInfo};
use crate::cloud::api::ApiError;
use crate::error::Error;
use crate::export::request::ExportRequest;
use crate::export::role::is_writing_preset;
use crate::model::{CloudText, Region, RoleName};

/// The largest page of CAM's lists; a role cannot carry more policies than that.
const PAGE_LIMIT: u64 = 200;

/// A policy that is attached to the role.
#[derive(Clone, Debug)]
pub struct AttachedPolicy {
    /// Its name.
    pub name: CloudText,
    /// Its number, where the cloud tells it.
    pub id: Option<u64>,
    /// Whether Tencent Cloud made it; a custom policy's name says nothing about its content.
    pub is_preset: bool,
    /// What a custom policy allows, as JSON text; asked for where no preset allows enough.
    pub document: Fact<CloudText>,
}

impl AttachedPolicy {
    /// Whether it is a preset that allows writing to every bucket of the account.
    pub(crate) fn is_writing_preset(&self) -> bool {
        self.is_preset && is_writing_preset(self.name.as_str())
    }
}

pub(in crate::export::preflight) async fn fetch_role(
    cloud: &Cloud,
    request: &ExportRequest,
) -> Result<Fact<Option<RoleInfo>>, Error> {
    let call = GetRole {
        role_name: request.role.clone(),
    };
    match cloud.call(Some(&request.region), &call).await {
        Ok(answer) => Ok(Fact::Known(Some(answer.value.role_info))),
        Err(error) if says_no_such_role(&error) => Ok(Fact::Known(None)),
        Err(error) => api_fact(Err(error)),
    }
}

/// The policies of the role of `request`, with documents where presets do not settle the matter.
pub(in crate::export::preflight) async fn fetch_policies(
    cloud: &Cloud,
    request: &ExportRequest,
) -> Result<Fact<Vec<AttachedPolicy>>, Error> {
    let region = Some(&request.region);
    let mut policies = match fetch_attached(cloud, region, &request.role).await {
        Ok(policies) => policies,
        Err(error) => return api_fact(Err(error)),
    };
    if !policies.iter().any(AttachedPolicy::is_writing_preset) {
        fetch_documents(cloud, region, &mut policies).await?;
    }
    Ok(Fact::Known(policies))
}

/// Reads the documents of the custom policies among `policies`, as far as that is allowed.
pub(crate) async fn fetch_documents(
    cloud: &Cloud,
    region: Option<&Region>,
    policies: &mut [AttachedPolicy],
) -> Result<(), Error> {
    let reading = policies
        .iter_mut()
        .filter(|policy| !policy.is_preset)
        .map(|policy| read_document(cloud, region, policy));
    futures_util::future::try_join_all(reading).await.map(drop)
}

async fn read_document(
    cloud: &Cloud,
    region: Option<&Region>,
    policy: &mut AttachedPolicy,
) -> Result<(), Error> {
    let Some(policy_id) = policy.id else {
        return Ok(());
    };
    let answer = cloud.call(region, &GetPolicy { policy_id }).await;
    policy.document = api_fact(answer.map(|answer| answer.value.policy_document))?;
    Ok(())
}

/// The policies of a role, without their documents; none where there is no such role. CAM is one for all
/// regions, but finance regions reach it by hosts of their own.
pub(crate) async fn fetch_attached(
    cloud: &Cloud,
    region: Option<&Region>,
    role: &RoleName,
) -> Result<Vec<AttachedPolicy>, ApiError> {
    let call = ListAttachedRolePolicies {
        role_name: role.clone(),
        page: 1,
        rp: PAGE_LIMIT,
    };
    match cloud.call(region, &call).await {
        Ok(answer) => {
            let policies = answer.value.list.into_iter().map(|policy| AttachedPolicy {
                is_preset: policy.policy_type.is_some_and(|kind| kind == "QCS"),
                id: policy.policy_id,
                name: policy.policy_name,
                document: Fact::NotAsked,
            });
            Ok(policies.collect())
        }
        Err(error) if says_no_such_role(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether the cloud says that the account has no role of this name.
pub(crate) fn says_no_such_role(error: &ApiError) -> bool {
    error
        .code()
        .is_some_and(|code| code.contains("RoleNotExist") || code.starts_with("ResourceNotFound"))
}
