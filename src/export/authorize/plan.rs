//! What has to change so that CVM can write exports, decided from what exists. Pure.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::Intent;
use crate::error::{Error, ErrorKind};
use crate::export::preflight::AttachedPolicy;
use crate::export::role::{self, Target, WritingPreset};
use crate::model::{BucketName, CloudText, Prefix, Region, RoleName, shell_line};

/// What descriptions hold by which a later run knows its own roles and policies. CAM has no such place for
/// what is attached to a role, nor for a statement in its trust document.
pub(super) const MARK: &str = "(made by cvm-export authorize)";

/// The parts of the description of a policy for a bucket; the bucket stands between them, the role behind.
const POLICY_OF: &str = "Lets CVM write exported images to ";
const AS_ROLE: &str = " as ";

/// The length of a policy's name (console of CAM; names are of ASCII here).
const POLICY_NAME_LIMIT: usize = 128;

/// What the role is to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Writing into one bucket, by a policy of its own.
    Bucket {
        /// The bucket, with its AppId.
        bucket: BucketName,
        /// Its region.
        region: Region,
        /// The start of the names that may be written; everything where there is none.
        prefix: Option<Prefix>,
    },
    /// Writing into every bucket of the account, by a policy of Tencent Cloud.
    Preset(WritingPreset),
}

impl Grant {
    /// What is to be written; `None` for a preset, which is about everything.
    pub(super) fn target(&self) -> Option<Target<'_>> {
        match self {
            Self::Bucket {
                bucket,
                region,
                prefix,
            } => Some(Target {
                bucket,
                region,
                start: prefix.as_ref().map_or("", Prefix::as_str),
            }),
            Self::Preset(_) => None,
        }
    }

    /// Refuses a prefix that would stand for more than itself.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a prefix with a wildcard of CAM's resources in it.
    pub(super) fn require_literal(&self) -> Result<(), Error> {
        match self {
            Self::Bucket {
                prefix: Some(prefix),
                ..
            } if prefix.as_str().contains(['*', '?']) => Err(Error::new(
                ErrorKind::Usage,
                format!("--prefix: `{prefix}` holds a star or a question mark, which a policy would read as any text"),
            )
            .with_hint("leave `--prefix` out, or name a start without them")),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket {
                bucket,
                prefix: None,
                ..
            } => write!(formatter, "write to bucket `{bucket}`"),
            Self::Bucket {
                bucket,
                prefix: Some(prefix),
                ..
            } => write!(
                formatter,
                "write to bucket `{bucket}` under names that start with `{prefix}`"
            ),
            Self::Preset(preset) => write!(
                formatter,
                "write to every bucket of the account (preset policy `{preset}`)"
            ),
        }
    }
}

/// The role and its right that are wanted, or wanted no more.
#[derive(Clone, Debug)]
pub struct Access {
    /// The role that CVM takes on.
    pub role: RoleName,
    /// What it may do.
    pub grant: Grant,
    /// The region by whose hosts CAM is asked, where one is known; finance regions have their own.
    pub region: Option<Region>,
}

impl Access {
    /// The name of the policy. The one for a bucket follows from bucket and role, so that a later run
    /// finds it, and that no two roles share one.
    #[must_use]
    pub fn policy_name(&self) -> String {
        let bucket = match &self.grant {
            Grant::Preset(preset) => return preset.name().to_owned(),
            Grant::Bucket { bucket, .. } => bucket,
        };
        // CAM finds a role in whatever case it is written.
        let role = self.role.as_str().to_ascii_lowercase();
        if role == role::DEFAULT_ROLE.to_ascii_lowercase() {
            return format!("cvm-export-{bucket}");
        }
        // Roles of very long names may come to share one, which is then not changed: others carry it.
        let mut name = format!("cvm-export-{bucket}-{role}");
        name.truncate(POLICY_NAME_LIMIT);
        name
    }

    /// The command that takes a policy back whose description says what it is `about`.
    pub(super) fn revocation_of(about: &str) -> Option<String> {
        let (bucket, role) = about.strip_prefix(POLICY_OF)?.split_once(AS_ROLE)?;
        let (bucket, role) = (bucket.parse().ok()?, role.parse().ok()?);
        let mut words = role::authorize_words(&role, &bucket, None);
        words.push("--revoke".to_owned());
        Some(shell_line(&words))
    }

    /// The command that is about this access, for hints.
    pub(super) fn command(&self, intent: Intent) -> String {
        let mut words = match &self.grant {
            Grant::Preset(preset) => {
                let mut words = ["cvm-export", "authorize", "--preset", preset.name()]
                    .map(str::to_owned)
                    .to_vec();
                if self.role.as_str() != role::DEFAULT_ROLE {
                    words.extend(["--role-name".to_owned(), self.role.to_string()]);
                }
                words
            }
            Grant::Bucket { bucket, prefix, .. } => {
                let prefix = prefix.as_ref().filter(|_| intent == Intent::Authorize);
                role::authorize_words(&self.role, bucket, prefix)
            }
        };
        if intent == Intent::Revoke {
            words.push("--revoke".to_owned());
        }
        shell_line(&words)
    }
}

/// What exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) role: Option<FoundRole>,
    /// What hangs on the role.
    pub(super) attached: Vec<AttachedPolicy>,
    /// The account's own policy that has the name of the one for the bucket.
    pub(super) policy: Option<FoundPolicy>,
}

impl Found {
    /// The attached presets that allow what `grant` is about: by their names, or by their documents.
    pub(super) fn presets_that_allow(
        &self,
        grant: &Grant,
    ) -> impl Iterator<Item = &AttachedPolicy> {
        let target = grant.target();
        let presets = self.attached.iter().filter(|policy| policy.is_preset);
        presets.filter(move |policy| {
            policy.is_writing_preset()
                || target.is_some_and(|target| policy.is_read_to_allow(target))
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct FoundRole {
    /// As CAM spells it.
    pub(super) name: RoleName,
    pub(super) description: CloudText,
    pub(super) trust: CloudText,
}

#[derive(Clone, Debug)]
pub(super) struct FoundPolicy {
    pub(super) id: u64,
    pub(super) description: CloudText,
    pub(super) document: CloudText,
    /// How many users, groups and roles carry it, where the cloud tells.
    pub(super) carriers: Option<u64>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Step {
    /// A role is created.
    CreateRole {
        /// The role.
        role: RoleName,
        /// Who may take it on.
        document: Value,
        /// What it says about itself.
        description: String,
    },
    /// CVM is added to those who may take the role on.
    UpdateTrust {
        /// The role.
        role: RoleName,
        /// Who may take it on so far.
        before: Value,
        /// Who may take it on afterwards.
        document: Value,
    },
    /// A policy is created.
    CreatePolicy {
        /// The policy.
        policy: String,
        /// What it allows.
        document: Value,
        /// What it says about itself.
        description: String,
    },
    /// A policy that an earlier run made is replaced.
    UpdatePolicy {
        /// The policy.
        policy: String,
        /// Its number.
        policy_id: u64,
        /// What it allows so far.
        before: Value,
        /// What it allows afterwards.
        document: Value,
    },
    /// A policy is attached to the role.
    AttachPolicy {
        /// The role.
        role: RoleName,
        /// The policy.
        policy: String,
    },
    /// A policy is taken off the role.
    DetachPolicy {
        /// The role.
        role: RoleName,
        /// The policy.
        policy: String,
    },
    /// A policy is deleted.
    DeletePolicy {
        /// The policy.
        policy: String,
        /// Its number.
        policy_id: u64,
    },
    /// A role is deleted.
    DeleteRole {
        /// The role.
        role: RoleName,
    },
}

impl Step {
    /// The call that does it.
    #[must_use]
    pub const fn call(&self) -> &'static str {
        match self {
            Self::CreateRole { .. } => "CreateRole",
            Self::UpdateTrust { .. } => "UpdateAssumeRolePolicy",
            Self::CreatePolicy { .. } => "CreatePolicy",
            Self::UpdatePolicy { .. } => "UpdatePolicy",
            Self::AttachPolicy { .. } => "AttachRolePolicy",
            Self::DetachPolicy { .. } => "DetachRolePolicy",
            Self::DeletePolicy { .. } => "DeletePolicy",
            Self::DeleteRole { .. } => "DeleteRole",
        }
    }

    /// The documents that belong to it, each with a word for what it is.
    #[must_use]
    pub fn documents(&self) -> Vec<(&'static str, &Value)> {
        match self {
            Self::CreateRole { document, .. } => vec![("trust", document)],
            Self::CreatePolicy { document, .. } => vec![("policy", document)],
            Self::UpdateTrust {
                before, document, ..
            }
            | Self::UpdatePolicy {
                before, document, ..
            } => vec![("before", before), ("after", document)],
            Self::AttachPolicy { .. }
            | Self::DetachPolicy { .. }
            | Self::DeletePolicy { .. }
            | Self::DeleteRole { .. } => Vec::new(),
        }
    }

    /// Whether it undoes what stands there, so that it must still be what was shown.
    pub(super) const fn is_destructive(&self) -> bool {
        self.is_removal() || matches!(self, Self::UpdateTrust { .. } | Self::UpdatePolicy { .. })
    }

    /// Whether it takes something away, so that it is done where there is nothing.
    pub(super) const fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::DetachPolicy { .. } | Self::DeletePolicy { .. } | Self::DeleteRole { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateRole { role, .. } => {
                write!(
                    formatter,
                    "create role `{role}`, which the service CVM may take on"
                )
            }
            Self::UpdateTrust { role, .. } => write!(
                formatter,
                "let the service CVM take on role `{role}`, besides all that may do so already"
            ),
            Self::CreatePolicy { policy, .. } => write!(formatter, "create policy `{policy}`"),
            Self::UpdatePolicy { policy, .. } => {
                write!(formatter, "replace what policy `{policy}` allows")
            }
            Self::AttachPolicy { role, policy } => {
                write!(formatter, "attach policy `{policy}` to role `{role}`")
            }
            Self::DetachPolicy { role, policy } => {
                write!(formatter, "detach policy `{policy}` from role `{role}`")
            }
            Self::DeletePolicy { policy, .. } => write!(formatter, "delete policy `{policy}`"),
            Self::DeleteRole { role } => write!(formatter, "delete role `{role}`"),
        }
    }
}

/// A change, and whether it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// The change.
    #[serde(flatten)]
    pub step: Step,
    /// Whether it is made.
    pub done: bool,
}

/// Something that stays as it is although one might expect otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// What stays.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What has to change, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPlan {
    /// The role, as CAM spells it.
    pub role: RoleName,
    /// The changes.
    pub steps: Vec<PlannedStep>,
    /// What stays.
    pub left: Vec<Left>,
    /// What goes on to allow writing after a revocation.
    pub still: Vec<String>,
}

impl AccessPlan {
    /// Nothing to do about `role`.
    #[must_use]
    pub fn empty(role: &RoleName) -> Self {
        Self {
            role: role.clone(),
            steps: Vec::new(),
            left: Vec::new(),
            still: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, step: Step) {
        let done = false;
        self.steps.push(PlannedStep { step, done });
    }

    pub(super) fn leave(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.left.push(Left { what, why });
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|planned| planned.done)
    }

    /// Whether a step before the one at `place` made what that one attaches, or attaches to.
    pub(super) fn has_made_what(&self, place: usize) -> bool {
        let attaches = matches!(self.steps[place].step, Step::AttachPolicy { .. });
        let makes =
            |step: &Step| matches!(step, Step::CreateRole { .. } | Step::CreatePolicy { .. });
        attaches
            && self.steps[..place]
                .iter()
                .any(|planned| makes(&planned.step))
    }

    /// Whether a policy that stands there would be replaced.
    #[must_use]
    pub fn replaces_a_policy(&self) -> bool {
        let replaces = |planned: &PlannedStep| matches!(planned.step, Step::UpdatePolicy { .. });
        self.steps.iter().any(replaces)
    }

    /// Takes over what a new look says: steps that it does not ask for any more are done. `false` where
    /// it asks for something that nobody has agreed to, or leaves what was to go.
    pub(super) fn catch_up(&mut self, now: &Self) -> bool {
        let agreed = |step: &Step| self.steps.iter().any(|planned| planned.step == *step);
        if !now.steps.iter().all(|planned| agreed(&planned.step))
            || !now.left.iter().all(|left| self.left.contains(left))
        {
            return false;
        }
        for planned in &mut self.steps {
            let is_owed = now.steps.iter().any(|owed| owed.step == planned.step);
            planned.done = planned.done || !is_owed;
        }
        true
    }
}

/// The way from what is `found` to the `wanted` access.
///
/// # Errors
/// [`ErrorKind::Precondition`] where that would touch what is not ours, or what cannot be read.
pub(super) fn plan(found: &Found, wanted: &Access) -> Result<AccessPlan, Error> {
    let name = found.role.as_ref().map_or(&wanted.role, |role| &role.name);
    let mut plan = AccessPlan::empty(name);
    match &found.role {
        None => plan.push(Step::CreateRole {
            role: name.clone(),
            document: role::trust_document(),
            description: role_description(&wanted.grant),
        }),
        Some(existing) => {
            let trust = existing.trust.as_str();
            if role::denies_cvm(trust) {
                return Err(trust_denies(name));
            }
            if role::trusts_cvm(trust) != Some(true) {
                let read = || Some((serde_json::from_str(trust).ok()?, role::with_cvm(trust)?));
                let (before, document) = read().ok_or_else(|| trust_unreadable(name))?;
                let role = name.clone();
                plan.push(Step::UpdateTrust {
                    role,
                    before,
                    document,
                });
            }
        }
    }
    let policy = wanted.policy_name();
    let is_preset = match &wanted.grant {
        Grant::Preset(_) => true,
        Grant::Bucket { bucket, .. } => {
            if let Some(enough) = found.presets_that_allow(&wanted.grant).next() {
                let why = match enough.is_writing_preset() {
                    true => {
                        "it allows writing to every bucket, so that this one needs no policy of its own"
                    }
                    false => "it allows writing to this bucket, which needs no policy of its own",
                };
                plan.leave(format!("policy `{}` on role `{name}`", enough.name), why);
                return Ok(plan);
            }
            let document = policy_document(&wanted.grant)?;
            match &found.policy {
                None => plan.push(Step::CreatePolicy {
                    policy: policy.clone(),
                    document,
                    description: format!("{POLICY_OF}{bucket}{AS_ROLE}{name} {MARK}"),
                }),
                Some(existing) => {
                    let before = serde_json::from_str(existing.document.as_str());
                    let before = before.unwrap_or_else(|_| json!(existing.document.as_str()));
                    if normal(&before) != normal(&document) {
                        if !existing.description.as_str().contains(MARK) {
                            return Err(policy_of_others(&policy));
                        }
                        let own = u64::from(carries(found, &policy, false));
                        if existing.carriers.is_some_and(|count| count > own) {
                            return Err(carried_by_others(&policy));
                        }
                        plan.push(Step::UpdatePolicy {
                            policy: policy.clone(),
                            policy_id: existing.id,
                            before,
                            document,
                        });
                    }
                }
            }
            false
        }
    };
    if !carries(found, &policy, is_preset) {
        let role = name.clone();
        plan.push(Step::AttachPolicy { role, policy });
    }
    Ok(plan)
}

/// What a role that is made says about itself. A preset that is attached with it is named, as nothing else
/// would tell a later run who attached it.
fn role_description(grant: &Grant) -> String {
    match grant {
        Grant::Bucket { .. } => format!("Lets CVM export images to COS {MARK}"),
        Grant::Preset(preset) => format!("{}{}", of_preset(preset.name()), MARK),
    }
}

/// What the description of a role begins with that was made with the preset policy `name`.
pub(super) fn of_preset(name: &str) -> String {
    format!("Lets CVM export images to COS by {name} ")
}

pub(super) fn carries(found: &Found, policy: &str, is_preset: bool) -> bool {
    found
        .attached
        .iter()
        .any(|attached| attached.name == *policy && attached.is_preset == is_preset)
}

/// What the policy for a bucket allows: what an upload by parts needs, and looking (actions: product
/// page 436/31923; in resources of COS `uid` is the AppId). A preset has no document of ours.
///
/// # Errors
/// [`ErrorKind::Usage`] for a bucket without its AppId.
fn policy_document(grant: &Grant) -> Result<Value, Error> {
    let Grant::Bucket {
        bucket,
        region,
        prefix,
    } = grant
    else {
        return Ok(Value::Null);
    };
    let app_id = role::app_id(bucket)?;
    let start = prefix.as_ref().map_or("", Prefix::as_str);
    let whole = format!("qcs::cos:{region}:uid/{app_id}:{bucket}/");
    Ok(json!({
        "version": "2.0",
        "statement": [{
            "effect": "allow",
            "action": [
                "name/cos:PutObject",
                "name/cos:PostObject",
                "name/cos:InitiateMultipartUpload",
                "name/cos:UploadPart",
                "name/cos:CompleteMultipartUpload",
                "name/cos:AbortMultipartUpload",
                "name/cos:ListMultipartUploads",
                "name/cos:ListParts",
                "name/cos:HeadBucket",
                "name/cos:HeadObject",
                "name/cos:GetBucket",
            ],
            "resource": [whole, format!("{whole}{start}*")],
        }],
    }))
}

/// A document with what does not matter taken out: whether a single value stands in a list, and the
/// order of lists.
fn normal(document: &Value) -> Value {
    match document {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let value = match normal(value) {
                    single @ (Value::String(_) | Value::Object(_)) if key != "principal" => {
                        json!([single])
                    }
                    value => value,
                };
                (key.to_ascii_lowercase(), value)
            });
            Value::Object(fields.collect())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(normal).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        single => single.clone(),
    }
}

fn trust_denies(role: &RoleName) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "somebody denies the service CVM in the trust document of role `{role}`, which no addition undoes; nothing was changed"
        ),
    )
    .with_hint("take that out in the CAM console, or name another role with `cvm-export authorize --role-name ROLE`")
}

fn trust_unreadable(role: &RoleName) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "the trust document of role `{role}` cannot be read, so that CVM cannot be added to it; nothing was changed"
        ),
    )
    .with_hint("mend the role in the CAM console, or name another with `cvm-export authorize --role-name ROLE`")
}

fn policy_of_others(policy: &str) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "there is a policy `{policy}` that cvm-export has not made and that allows something else; nothing was changed"
        ),
    )
    .with_hint("rename or delete that policy in the CAM console, or attach a preset policy with `cvm-export authorize --preset NAME`")
}

fn carried_by_others(policy: &str) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "policy `{policy}` would have to change, and other users, groups or roles carry it as well; nothing was changed"
        ),
    )
    .with_hint("take it off them in the CAM console first: each role has a policy of its own here")
}

#[cfg(test)]
mod tests;
