//! Lets CVM write exports: what the console's tick "let CVM access my COS bucket" does, in the open.
//!
//! ```text
//! look ─► plan ─► (shown, agreed to) ─► carry out ─► look until it is seen
//! ```
//!
//! The plan is a pure function of what exists. Roles and policies are known by their names, so that a
//! run that was interrupted, or whose answer was lost, is completed by looking again: nothing is made
//! twice. Whoever calls this asks; nothing in here does.

mod existing;
mod plan;
mod revoke;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use existing::{Existing, ExistingPolicy, ExistingRole, OwnPolicy};
pub use plan::{Access, AccessPlan, Grant, Left, PlannedStep, Step};

use crate::clock::Stopwatch;
use crate::cloud::Cloud;
use crate::cloud::actions::cam::{
    AttachRolePolicy, CreatePolicy, CreateRole, DeletePolicy, DeleteRole, DetachRolePolicy,
    GetPolicy, GetRole, ListPolicies, ListedPolicy, UpdateAssumeRolePolicy, UpdatePolicy,
};
use crate::cloud::api::{ApiError, ApiErrorKind};
use crate::error::{Error, ErrorKind};
use crate::export::preflight::{
    AttachedPolicy, Fact, fetch_attached, fetch_documents, says_no_such_role,
};
use crate::export::role::OWN_POLICIES;
use crate::model::{CloudText, Region, RoleName};
use plan::{Found, FoundPolicy, FoundRole, plan};
use revoke::plan_revocation;

/// The largest page of CAM's lists, and the last one that can be asked for (page 598/34570).
const PAGE_LIMIT: u64 = 200;

/// How often the cloud is looked at anew after a lost answer before the run gives up. Each look repeats
/// its own requests as well.
const LOOKS_AFTER_LOSS: usize = 3;

/// How often it is looked at what somebody else seems to change: for about two seconds.
const LOOKS_AT_CHANGES: usize = 4;

/// How often it is looked for what has a name that is taken: about a minute, by the pauses below.
const TAKEN_LOOKS: usize = 22;

/// The pause between the first looks for an effect, and the longest one. CAM allows 20 calls a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How often a change is sent in all while CAM is asked too often (`CreateRole`: twice a second).
const ATTEMPTS: u32 = 8;

/// The rights that looking needs.
const RIGHTS_TO_LOOK: &[&str] = &[
    "GetRole",
    "ListAttachedRolePolicies",
    "ListPolicies",
    "GetPolicy",
];

/// Which way things are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The access is wanted.
    Authorize,
    /// The access is wanted no more.
    Revoke,
}

/// Whether what was changed is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The cloud shows it.
    Seen,
    /// The cloud has taken it and does not show it yet.
    NotYet,
}

/// Plans and makes changes of one access.
#[derive(Clone, Debug)]
pub struct Authorizer {
    cloud: Cloud,
    access: Access,
    intent: Intent,
    cancel: CancellationToken,
    /// The documents of presets by their numbers, as far as they have been asked for: no run changes them.
    presets: Arc<Mutex<BTreeMap<u64, Fact<CloudText>>>>,
}

impl Authorizer {
    /// An authorizer that stops between two steps when `cancel` says so.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a prefix that a policy would read as a pattern.
    pub fn new(
        cloud: Cloud,
        access: Access,
        intent: Intent,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        access.grant.require_literal()?;
        Ok(Self {
            cloud,
            access,
            intent,
            cancel,
            presets: Arc::default(),
        })
    }

    /// The access that this is about.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Which way things go.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// The command that does the same, for hints.
    #[must_use]
    pub fn command(&self) -> String {
        self.access.command(self.intent)
    }

    /// Looks at what exists and plans what has to change; changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] where the caller may not look, [`ErrorKind::Precondition`] where
    /// the change would touch what others made, and whatever keeps the cloud from answering.
    pub async fn plan(&self) -> Result<AccessPlan, Error> {
        self.plan_for(&self.find().await?)
    }

    /// As [`Authorizer::plan`], with what exists, whose policies are read as far as that is allowed.
    ///
    /// # Errors
    /// As [`Authorizer::plan`].
    pub async fn survey(&self) -> Result<(Existing, AccessPlan), Error> {
        let mut found = self.find().await?;
        let reading = fetch_documents(
            &self.cloud,
            self.access.region.as_ref(),
            &mut found.attached,
        );
        tokio::select! {
            () = self.cancel.cancelled() => return Err(self.interrupted()),
            read = reading => read?,
        }
        let existing = Existing::of(&found, Some(&self.access.grant));
        Ok((existing, self.plan_for(&found)?))
    }

    async fn find(&self) -> Result<Found, Error> {
        let looking = async {
            let found = self.look().await;
            let mut found = found.map_err(|error| self.not_allowed(error, RIGHTS_TO_LOOK))?;
            self.read_presets(&mut found).await?;
            Ok(found)
        };
        tokio::select! {
            () = self.cancel.cancelled() => Err(self.interrupted()),
            found = looking => found,
        }
    }

    /// Reads what the attached presets of unknown names allow, as far as that is permitted, unless one
    /// of a known name is enough.
    async fn read_presets(&self, found: &mut Found) -> Result<(), Error> {
        let is_enough = found.attached.iter().any(AttachedPolicy::is_writing_preset);
        if is_enough || self.access.grant.target().is_none() {
            return Ok(());
        }
        let lock = || self.presets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut presets: Vec<&mut AttachedPolicy> = found
            .attached
            .iter_mut()
            .filter(|policy| policy.is_preset)
            .collect();
        for policy in &mut presets {
            let known = policy.id.and_then(|id| lock().get(&id).cloned());
            policy.document = known.unwrap_or(Fact::NotAsked);
        }
        let region = self.access.region.as_ref();
        fetch_documents(
            &self.cloud,
            region,
            presets.iter_mut().map(|policy| &mut **policy),
        )
        .await?;
        for policy in presets {
            // No answer this time may be one the next time.
            let is_settled = matches!(policy.document, Fact::Known(_) | Fact::NotPermitted(_));
            if let Some(id) = policy.id.filter(|_| is_settled) {
                lock().insert(id, policy.document.clone());
            }
        }
        Ok(())
    }

    fn plan_for(&self, found: &Found) -> Result<AccessPlan, Error> {
        match self.intent {
            Intent::Authorize => plan(found, &self.access),
            Intent::Revoke => Ok(plan_revocation(found, &self.access)),
        }
    }

    /// Makes the changes of `plan`, in order, and marks each that is made. A change whose answer is lost
    /// is looked for before it is made again. Before the first change, and before each that undoes
    /// something, it is looked whether what was agreed to is still what has to be done.
    ///
    /// # Errors
    /// [`ErrorKind::Precondition`] where somebody else has changed something meanwhile,
    /// [`ErrorKind::Permission`] with the rights that are missing, [`ErrorKind::Interrupted`] after a
    /// signal, and the cloud's refusals. Marked steps stand; the same command completes the rest.
    pub async fn carry_out(&self, plan: &mut AccessPlan) -> Result<(), Error> {
        let mut losses = 0;
        let mut lost: Option<usize> = None;
        let (mut misses, mut pause) = (0, FIRST_PAUSE);
        let mut attempt = 1;
        let mut looked_at = None;
        while let Some(place) = plan.steps.iter().position(|planned| !planned.done) {
            if self.cancel.is_cancelled() {
                return Err(self.interrupted());
            }
            let step = plan.steps[place].step.clone();
            if looked_at.is_none() || step.is_destructive() && looked_at != Some(place) {
                looked_at = Some(place);
                self.catch_up(plan).await?;
                continue;
            }
            let Err(error) = self.take(&step).await else {
                plan.steps[place].done = true;
                attempt = 1;
                continue;
            };
            if error.kind() == ApiErrorKind::Throttled && attempt < ATTEMPTS {
                self.rest(FIRST_PAUSE * attempt).await?;
                attempt += 1;
                continue;
            }
            if step.is_removal() && says_gone(&error) || lost == Some(place) && says_taken(&error) {
                plan.steps[place].done = true;
            } else if says_gone(&error) && plan.has_made_what(place) && misses < TAKEN_LOOKS {
                // CAM's copies learn of a new role or policy one after the other.
                misses += 1;
                self.rest(pause).await?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else if says_gone(&error) && losses < LOOKS_AFTER_LOSS {
                // Somebody takes back what this makes: what is left to do may be more than was shown.
                losses += 1;
                self.catch_up(plan).await?;
            } else if says_taken(&error) {
                // Somebody was faster, or an earlier run's change is only seen now.
                self.look_until_seen(plan, place).await?;
            } else if error.proves_nothing_happened() || losses == LOOKS_AFTER_LOSS {
                let rights: Vec<&str> = plan.steps.iter().map(|owed| owed.step.call()).collect();
                return Err(self.not_allowed(error, &rights));
            } else {
                losses += 1;
                lost = Some(place);
                self.catch_up(plan).await?;
            }
        }
        Ok(())
    }

    /// Looks until the cloud shows everything that was planned, for at most `patience`.
    ///
    /// # Errors
    /// As [`Authorizer::plan`].
    pub async fn await_effect(&self, patience: Duration) -> Result<Effect, Error> {
        let stopwatch = Stopwatch::start();
        let mut pause = FIRST_PAUSE;
        loop {
            if self.plan().await?.steps.is_empty() {
                return Ok(Effect::Seen);
            }
            let remaining = patience.saturating_sub(stopwatch.elapsed());
            if remaining.is_zero() {
                return Ok(Effect::NotYet);
            }
            self.rest(pause.min(remaining)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn rest(&self, pause: Duration) -> Result<(), Error> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(self.interrupted()),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    async fn catch_up(&self, plan: &mut AccessPlan) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..LOOKS_AT_CHANGES {
            if plan.catch_up(&self.plan().await?) {
                return Ok(());
            }
            // One call of CAM may show a change of ours that another does not show yet.
            self.rest(pause).await?;
            pause *= 2;
        }
        Err(Error::new(
            ErrorKind::Precondition,
            "somebody else is changing the role or its policies, and what is left to do is no longer what was shown",
        )
        .with_hint(format!("`{}` run again shows what is left now", self.command())))
    }

    /// Looks until the thing that the step at `place` would make is there to be seen.
    async fn look_until_seen(&self, plan: &mut AccessPlan, place: usize) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..TAKEN_LOOKS {
            self.catch_up(plan).await?;
            if plan.steps[place].done {
                return Ok(());
            }
            self.rest(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let step = &plan.steps[place].step;
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the cloud would not {step}, since the name is taken, and does not show what has it"
            ),
        )
        .with_hint(format!(
            "run `{}` again in a minute: it goes on where this run ended",
            self.command()
        )))
    }

    async fn look(&self) -> Result<Found, ApiError> {
        let (cloud, region) = (&self.cloud, self.access.region.as_ref());
        let (role, attached, policy) = tokio::try_join!(
            fetch_role(cloud, region, &self.access.role),
            fetch_attached(cloud, region, &self.access.role),
            async {
                match &self.access.grant {
                    Grant::Bucket { .. } => {
                        fetch_policy(cloud, region, &self.access.policy_name()).await
                    }
                    Grant::Preset(_) => Ok(None),
                }
            },
        )?;
        Ok(Found {
            role,
            attached,
            policy,
        })
    }

    async fn take(&self, step: &Step) -> Result<(), ApiError> {
        let (cloud, region) = (&self.cloud, self.access.region.as_ref());
        match step.clone() {
            Step::CreateRole {
                role: role_name,
                document,
                description,
            } => {
                let policy_document = document.to_string();
                let call = CreateRole {
                    role_name,
                    policy_document,
                    description,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::UpdateTrust {
                role: role_name,
                document,
                ..
            } => {
                let policy_document = document.to_string();
                let call = UpdateAssumeRolePolicy {
                    role_name,
                    policy_document,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::CreatePolicy {
                policy: policy_name,
                document,
                description,
            } => {
                let policy_document = document.to_string();
                let call = CreatePolicy {
                    policy_name,
                    policy_document,
                    description,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::UpdatePolicy {
                policy_id,
                document,
                ..
            } => {
                let policy_document = document.to_string();
                let call = UpdatePolicy {
                    policy_id,
                    policy_document,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::AttachPolicy {
                role: attach_role_name,
                policy: policy_name,
            } => {
                let call = AttachRolePolicy {
                    policy_name,
                    attach_role_name,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::DetachPolicy {
                role: detach_role_name,
                policy: policy_name,
            } => {
                let call = DetachRolePolicy {
                    policy_name,
                    detach_role_name,
                };
                cloud.call(region, &call).await.map(drop)
            }
            Step::DeletePolicy { policy_id, .. } => {
                let policy_id = vec![policy_id];
                cloud
                    .call(region, &DeletePolicy { policy_id })
                    .await
                    .map(drop)
            }
            Step::DeleteRole { role: role_name } => cloud
                .call(region, &DeleteRole { role_name })
                .await
                .map(drop),
        }
    }

    fn not_allowed(&self, error: ApiError, rights: &[&str]) -> Error {
        not_allowed(error, rights, &self.command())
    }

    fn interrupted(&self) -> Error {
        Error::new(
            ErrorKind::Interrupted,
            "interrupted; what was changed before stands",
        )
        .with_hint(format!("`{}` run again completes it", self.command()))
    }
}

/// The error of a call, with the rights that the whole `command` needs where one is missing.
fn not_allowed(error: ApiError, rights: &[&str], command: &str) -> Error {
    let is_denied = error.kind() == ApiErrorKind::NotPermitted;
    let error = Error::from(error);
    if !is_denied {
        return error;
    }
    let rights: Vec<String> = rights
        .iter()
        .map(|right| format!("`cam:{right}`"))
        .collect();
    error.with_hint(format!(
        "allow {} to these credentials, or have somebody run `{command}` who may; what was done before stands",
        rights.join(", ")
    ))
}

/// The role `name` with what hangs on it, and every policy of the account that an earlier run made.
///
/// # Errors
/// [`ErrorKind::Permission`] where the caller may not look, and whatever keeps the cloud from answering.
pub async fn look_around(
    cloud: &Cloud,
    region: Option<&Region>,
    name: &RoleName,
) -> Result<(Existing, Vec<OwnPolicy>), Error> {
    let looking = async {
        tokio::try_join!(
            fetch_role(cloud, region, name),
            fetch_attached(cloud, region, name),
            list_policies(cloud, region, OWN_POLICIES, |entry| {
                OwnPolicy::of(
                    &entry.policy_name,
                    &entry.description,
                    entry.attach_entity_count,
                )
            }),
        )
    };
    let (role, attached, own) = looking
        .await
        .map_err(|error| not_allowed(error, RIGHTS_TO_LOOK, "cvm-export authorize"))?;
    let found = Found {
        role,
        attached,
        policy: None,
    };
    Ok((Existing::of(&found, None), own))
}

/// What `pick` takes of the account's own policies that have `keyword` in their names.
async fn list_policies<T>(
    cloud: &Cloud,
    region: Option<&Region>,
    keyword: &str,
    mut pick: impl FnMut(ListedPolicy) -> Option<T>,
) -> Result<Vec<T>, ApiError> {
    let mut picked = Vec::new();
    for page in 1..=PAGE_LIMIT {
        let call = ListPolicies {
            rp: PAGE_LIMIT,
            page,
            scope: "Local",
            keyword: keyword.to_owned(),
        };
        let list = cloud.call(region, &call).await?.value.list;
        let is_last = (list.len() as u64) < PAGE_LIMIT;
        picked.extend(list.into_iter().filter_map(&mut pick));
        if is_last {
            break;
        }
    }
    Ok(picked)
}

async fn fetch_role(
    cloud: &Cloud,
    region: Option<&Region>,
    name: &RoleName,
) -> Result<Option<FoundRole>, ApiError> {
    let role_name = name.clone();
    match cloud.call(region, &GetRole { role_name }).await {
        Ok(answer) => {
            let role = answer.value.role_info;
            Ok(Some(FoundRole {
                // Documents spell the usual role in two ways; which one exists is CAM's to say.
                name: role.role_name.as_str().parse().unwrap_or(name.clone()),
                description: role.description,
                trust: role.policy_document,
            }))
        }
        Err(error) if says_no_such_role(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The account's own policy of this very name; the keyword of the list finds longer ones as well.
async fn fetch_policy(
    cloud: &Cloud,
    region: Option<&Region>,
    name: &str,
) -> Result<Option<FoundPolicy>, ApiError> {
    let named = |entry: ListedPolicy| (entry.policy_name == *name).then_some(entry);
    let found = list_policies(cloud, region, name, named).await?;
    let Some(entry) = found.into_iter().next() else {
        return Ok(None);
    };
    let policy_id = entry.policy_id;
    match cloud.call(region, &GetPolicy { policy_id }).await {
        Ok(answer) => Ok(Some(FoundPolicy {
            id: policy_id,
            description: answer.value.description,
            document: answer.value.policy_document,
            carriers: entry.attach_entity_count,
        })),
        // Deleted between the two looks.
        Err(error) if says_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a name that was to be used is taken (error lists of the SDKs, `cam/v20190116`).
fn says_taken(error: &ApiError) -> bool {
    error
        .code()
        .is_some_and(|code| code.ends_with("RoleNameInUse") || code.ends_with("PolicyNameInUse"))
}

/// Whether what was to be taken away is not there (the same lists).
fn says_gone(error: &ApiError) -> bool {
    says_no_such_role(error)
        || error
            .code()
            .is_some_and(|code| code.ends_with("PolicyIdNotExist"))
}
