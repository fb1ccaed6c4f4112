//! The role that CVM takes on, and what hangs on it.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Fact, api_fact};
use crate::cloud::Cloud;
use crate::cloud::actions::cam::{GetPolicy, GetRole, ListAttachedRolePolicies, RoleInfo};
use crate::cloud::api::ApiError;
use crate::error::Error;
use crate::export::request::ExportRequest;
use crate::export::role::{Target, allow_writing, preset_writes};
use crate::model::{CloudText, Region, RoleName};

/// The largest page of CAM's lists; a role cannot carry more policies than that.
const PAGE_LIMIT: u64 = 200;

/// How many policies are read at the same time; CAM allows 20 calls a second.
const READ_AT_ONCE: usize = 8;

/// A policy that is attached to the role.
#[derive(Clone, Debug)]
pub struct AttachedPolicy {
    /// Its name.
    pub name: CloudText,
    /// Its number, where the cloud tells it.
    pub id: Option<u64>,
    /// Whether Tencent Cloud made it; a custom policy's name says nothing about its content.
    pub is_preset: bool,
    /// What it allows, as JSON text. It is not asked for if it is a preset that is known by name, or if
    /// another one settles the matter.
    pub document: Fact<CloudText>,
}

impl AttachedPolicy {
    /// Whether it is a preset that allows writing to every bucket of the account.
    pub(crate) fn is_writing_preset(&self) -> bool {
        self.known_by_name() == Some(true)
    }

    /// Whether it allows writing, if its name tells: it is a preset that is known. All others have to be
    /// read.
    pub(crate) fn known_by_name(&self) -> Option<bool> {
        let name = self.is_preset.then_some(self.name.as_str());
        name.and_then(preset_writes)
    }

    /// Whether its document was read, and certainly allows writing to `target`.
    pub(crate) fn is_read_to_allow(&self, target: Target<'_>) -> bool {
        let document = self.document.known().map(CloudText::as_str);
        document.is_some_and(|document| allow_writing([document].into_iter(), target))
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

/// The policies of the role of `request`, with documents if no known preset settles the matter.
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

/// Reads the documents of those `policies` whose names do not tell what they allow, as far as that is
/// permitted; none is read twice.
pub(crate) async fn fetch_documents(
    cloud: &Cloud,
    region: Option<&Region>,
    policies: impl IntoIterator<Item = &mut AttachedPolicy>,
) -> Result<(), Error> {
    let reading = policies
        .into_iter()
        .filter(|policy| policy.known_by_name().is_none())
        .filter(|policy| matches!(policy.document, Fact::NotAsked))
        .map(|policy| read_document(cloud, region, policy));
    stream::iter(reading)
        .buffer_unordered(READ_AT_ONCE)
        .try_collect()
        .await
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
