//! The credentials in use, and newer ones when they end in the middle of a job of hours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Duration, Utc};
use tokio::sync::Mutex;

use crate::auth::Credentials;
use crate::cloud::credentials::{Chain, Resolved};
use crate::error::one_line;
use crate::event::Events;

/// Temporary credentials are renewed so long before they end, which SDKs do as well (Python: 300 s).
const RENEWED_EARLY: Duration = Duration::minutes(5);
/// Those that live for a short time are renewed at this part of their life before they end.
const PART_OF_LIFE: i32 = 10;
/// After a renewal that failed, the next one waits so long, or a tenth of the time that is left.
const PAUSE: Duration = Duration::seconds(30);

/// What requests are signed with: fixed, or asked for anew at the place where they were found.
///
/// A file is written by whoever renews its keys (tccli, a CI system), so asking again is reading it
/// again; a role is taken on anew. Old credentials are kept for as long as nothing newer is there, and
/// no other place is asked: its keys may be another account's.
#[derive(Debug)]
pub struct CredentialsInUse {
    current: RwLock<Current>,
    source: Option<Source>,
    /// Held while newer ones are looked for, so that many requests that are refused at once look once.
    renewing: Mutex<Renewing>,
    /// How many looks have failed: who waited while one did takes its word.
    failures: AtomicU64,
}

#[derive(Clone, Debug)]
struct Current {
    credentials: Arc<Credentials>,
    /// When to look for newer ones, where these end.
    renewed_from: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Source {
    chain: Chain,
    origin: String,
}

/// What is known of the renewals so far.
#[derive(Debug, Default)]
struct Renewing {
    has_told: bool,
    not_before: Option<DateTime<Utc>>,
}

impl Current {
    fn new(credentials: Credentials, now: DateTime<Utc>) -> Self {
        let renewed_from = credentials.expires_at.map(|end| {
            if end <= now {
                // By this clock they are over already; asking before every request would not mend it.
                return now.checked_add_signed(PAUSE).unwrap_or(end);
            }
            let life = end.signed_duration_since(now).max(Duration::zero());
            // `end` may be any number that stood in a file.
            end.checked_sub_signed(RENEWED_EARLY.min(life / PART_OF_LIFE))
                .unwrap_or(end)
        });
        Self {
            credentials: Arc::new(credentials),
            renewed_from,
        }
    }

    fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.renewed_from.is_some_and(|from| from <= now)
    }

    fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.credentials.expires_at.is_some_and(|end| end <= now)
    }

    /// How long to leave the place alone that has just failed to renew these.
    fn pause(&self, now: DateTime<Utc>) -> Duration {
        let end = self.credentials.expires_at.unwrap_or(now);
        let left = end.signed_duration_since(now).max(Duration::zero());
        PAUSE.min(left / PART_OF_LIFE)
    }
}

impl From<Credentials> for CredentialsInUse {
    /// Credentials that nobody renews.
    fn from(credentials: Credentials) -> Self {
        Self {
            current: RwLock::new(Current {
                credentials: Arc::new(credentials),
                renewed_from: None,
            }),
            source: None,
            renewing: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }
}

impl CredentialsInUse {
    /// Credentials that `chain` has found at `now` and may find anew.
    #[must_use]
    pub fn renewed_by(chain: Chain, found: Resolved, now: DateTime<Utc>) -> Self {
        Self {
            current: RwLock::new(Current::new(found.credentials, now)),
            source: Some(Source {
                chain,
                origin: found.origin,
            }),
            renewing: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// The credentials for a request at `now`. Where newer ones are due and do not come, `events` is
    /// told once, and the old ones serve for as long as the cloud takes them.
    pub(crate) async fn current(&self, now: DateTime<Utc>, events: &Events) -> Arc<Credentials> {
        if self.read().is_due(now) {
            let failures = self.failures.load(Ordering::Relaxed);
            let mut renewing = match self.renewing.try_lock() {
                Ok(renewing) => renewing,
                // Another request sees to it, and what there is serves meanwhile.
                Err(_) if !self.read().is_over(now) => return self.read().credentials,
                Err(_) => self.renewing.lock().await,
            };
            // Another request has seen to it meanwhile, or has just failed to.
            let is_early = renewing.not_before.is_some_and(|time| now < time);
            if self.read().is_due(now) && !is_early && !self.has_failed_since(failures) {
                self.look(&mut renewing, now, events).await;
            }
        }
        self.read().credentials
    }

    /// Asks for newer credentials than `refused`, with which a request was signed in vain; says whether
    /// there are any.
    pub(crate) async fn renew(
        &self,
        refused: &Credentials,
        now: DateTime<Utc>,
        events: &Events,
    ) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut renewing = self.renewing.lock().await;
        // Another request was refused as well and has found newer ones meanwhile, or none.
        if !is_same(&self.read().credentials, refused) {
            return true;
        }
        if self.has_failed_since(failures) {
            return false;
        }
        self.look(&mut renewing, now, events).await
    }

    fn has_failed_since(&self, failures: u64) -> bool {
        self.failures.load(Ordering::Relaxed) != failures
    }

    /// Looks where the present credentials come from; says whether newer ones are there.
    async fn look(&self, renewing: &mut Renewing, now: DateTime<Utc>, events: &Events) -> bool {
        let Some(Source { chain, origin }) = &self.source else {
            return false;
        };
        let old = self.read();
        let problem = match chain.resolve_again(now).await {
            Err(error) => one_line(&error),
            Ok(found) if found.origin != *origin => {
                format!("{origin}: nothing is there any more")
            }
            Ok(found) if is_same(&old.credentials, &found.credentials) => {
                // A file that its owner renews later than we would: nothing to speak of, and no reason to
                // ask again before every request.
                renewing.not_before = now.checked_add_signed(old.pause(now));
                return false;
            }
            Ok(found) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Current::new(found.credentials, now);
                *renewing = Renewing::default();
                return true;
            }
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        renewing.not_before = now.checked_add_signed(old.pause(now));
        if !renewing.has_told && old.credentials.expires_at.is_some() {
            renewing.has_told = true;
            events.warn(format!(
                "the credentials could not be renewed; those in use serve until they end ({problem})"
            ));
        }
        false
    }

    fn read(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn is_same(one: &Credentials, other: &Credentials) -> bool {
    let token = |credentials: &Credentials| {
        credentials
            .token
            .as_ref()
            .map(|token| token.expose().to_owned())
    };
    one.secret_id == other.secret_id
        && one.secret_key.expose() == other.secret_key.expose()
        && token(one) == token(other)
}

#[cfg(test)]
mod tests;
