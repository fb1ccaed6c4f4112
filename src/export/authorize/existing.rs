//! What is there already, as people and scripts are shown it.

use serde::Serialize;

use super::plan::{Access, Found, Grant, MARK};
use crate::export::role::{self, is_writing_preset, may_allow_writing};
use crate::model::{CloudText, RoleName};

/// The role and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Existing {
    /// The role; `None` where the account has none of that name.
    pub role: Option<ExistingRole>,
    /// What hangs on it.
    pub policies: Vec<ExistingPolicy>,
}

/// A role that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExistingRole {
    /// Its name, as CAM spells it.
    pub name: RoleName,
    /// Whether CVM may take it on; `None` where its trust document does not tell.
    pub trusts_cvm: Option<bool>,
    /// Whether an earlier run made it.
    pub is_own: bool,
}

/// A policy that hangs on the role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExistingPolicy {
    /// Its name.
    pub name: CloudText,
    /// Whether Tencent Cloud made it.
    pub is_preset: bool,
    /// Whether it allows what was asked about, or anything at all where nothing was; `None` where that is
    /// not certain.
    pub allows_writing: Option<bool>,
}

impl Existing {
    /// What was `found`, by what it means for `grant`.
    pub(super) fn of(found: &Found, grant: Option<&Grant>) -> Self {
        let target = grant.and_then(Grant::target);
        let policies = found.attached.iter().map(|policy| ExistingPolicy {
            name: policy.name.clone(),
            is_preset: policy.is_preset,
            allows_writing: match (policy.known_by_name(), policy.document.known()) {
                (Some(writes), _) => Some(writes),
                (None, Some(document)) if !may_allow_writing(document.as_str(), None) => {
                    Some(false)
                }
                // What it does not certainly allow, another statement or policy may.
                (None, _) => target
                    .is_some_and(|target| policy.is_read_to_allow(target))
                    .then_some(true),
            },
        });
        Self {
            role: found.role.as_ref().map(|role| ExistingRole {
                name: role.name.clone(),
                trusts_cvm: role::trusts_cvm(role.trust.as_str()),
                is_own: role.description.as_str().contains(MARK),
            }),
            policies: policies.collect(),
        }
    }

    /// The same for people, a line each; `asked` is the name of the role that was looked for.
    #[must_use]
    pub fn lines(&self, asked: &RoleName) -> Vec<String> {
        let Some(role) = &self.role else {
            return vec![format!("there is no role `{asked}`")];
        };
        let maker = match role.is_own {
            true => "made by cvm-export",
            false => "not made by cvm-export",
        };
        let trust = match role.trusts_cvm {
            Some(true) => "CVM may take it on",
            Some(false) => "CVM may not take it on",
            None => "its trust document does not tell whether CVM may take it on",
        };
        let mut lines = vec![format!("there is role `{}`, {maker}: {trust}", role.name)];
        if self.policies.is_empty() {
            lines.push("  it carries no policy".to_owned());
        }
        lines.extend(self.policies.iter().map(|policy| {
            let kind = match policy.is_preset {
                true => "preset",
                false => "custom",
            };
            let is_known = policy.is_preset && is_writing_preset(policy.name.as_str());
            let meaning = match (policy.allows_writing, is_known) {
                (Some(true), true) => "which allows writing to every bucket",
                (Some(true), false) => "which allows the writing that is asked for",
                (Some(false), _) => "which allows no writing to COS",
                (None, _) => "of which it is not certain what it allows here",
            };
            format!("  it carries {kind} policy `{}`, {meaning}", policy.name)
        }));
        lines
    }
}

/// A policy that an earlier run made for a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnPolicy {
    /// Its name.
    pub name: CloudText,
    /// How many users, groups and roles carry it, where the cloud tells.
    pub carriers: Option<u64>,
    /// The command that takes it back.
    #[serde(skip)]
    pub revocation: Option<String>,
}

impl OwnPolicy {
    /// A policy by name and description; `None` where it bears no mark.
    pub(super) fn of(
        name: &CloudText,
        description: &CloudText,
        carriers: Option<u64>,
    ) -> Option<Self> {
        let about = description.as_str().strip_suffix(MARK)?;
        Some(Self {
            name: name.clone(),
            carriers,
            revocation: Access::revocation_of(about.trim_end()),
        })
    }
}
