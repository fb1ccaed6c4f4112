//! Temporary keys: who hands them out, for how long, and to whom.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::auth::{Credentials, Secret};

use super::wire::random_hex;
use super::world::World;

/// A token of an identity provider that STS takes for a role.
#[derive(Clone, Debug)]
pub struct WebIdentity {
    /// The name of the provider.
    pub provider_id: String,
    /// The token.
    pub token: Secret,
    /// The name of the role that it may take on.
    pub role: String,
}

/// How temporary keys are handed out.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// How long they live, whatever the caller asks for.
    pub life_seconds: Option<u64>,
    /// The role that is bound to the instance whose metadata host is asked.
    pub instance_role: Option<String>,
    /// The tokens that `AssumeRoleWithWebIdentity` takes.
    pub web_identities: Vec<WebIdentity>,
    /// Bodies that are answered in the world's place, by the operation as the call log names it; for
    /// answers that were recorded, and for those that no good server gives.
    pub recorded: BTreeMap<String, String>,
    /// Who stands behind keys of roles that were handed out, by SecretId.
    pub(super) sessions: BTreeMap<String, Session>,
    /// What the metadata host answers now, with the end of its better half.
    pub(super) of_instance: Option<(Credentials, DateTime<Utc>)>,
}

/// Somebody who has taken a role on.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) role: String,
    pub(super) name: String,
}

impl World {
    /// Makes up keys that are good from now on, for `seconds` or for as long as the world says.
    pub(super) fn hand_out(&mut self, now: DateTime<Utc>, seconds: u64) -> Credentials {
        let seconds = self.keys.life_seconds.unwrap_or(seconds);
        let life = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
        let credentials = Credentials {
            secret_id: format!("AKIDsimulated{}", random_hex(40)),
            secret_key: Secret::new(random_hex(32)),
            token: Some(Secret::new(random_hex(96))),
            expires_at: now.checked_add_signed(life.unwrap_or_default()),
        };
        self.accept(credentials.clone());
        credentials
    }
}

/// The end of keys in whole seconds, as every answer tells it.
pub(super) fn end_of(credentials: &Credentials) -> DateTime<Utc> {
    credentials.expires_at.unwrap_or(DateTime::UNIX_EPOCH)
}
