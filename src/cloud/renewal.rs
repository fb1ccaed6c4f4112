//! The credentials in use, and newer ones when they end in the middle of a job of hours.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};

use crate::auth::Credentials;
use crate::cloud::credentials::Chain;

/// Temporary credentials that end sooner than this are renewed before they are used.
const RENEWED_EARLY: chrono::Duration = chrono::Duration::minutes(5);

/// What requests are signed with: fixed, or asked for anew at the place where they were found.
///
/// A file is written by whoever renews its keys (tccli, a CI system), so asking again is reading it
/// again. Old credentials are kept for as long as nothing newer is there.
#[derive(Debug)]
pub struct CredentialsInUse {
    current: RwLock<Arc<Credentials>>,
    chain: Option<Chain>,
    /// Held while newer ones are looked for, so that many requests that are refused at once look once.
    renewing: Mutex<()>,
}

impl From<Credentials> for CredentialsInUse {
    /// Credentials that nobody renews.
    fn from(credentials: Credentials) -> Self {
        Self {
            current: RwLock::new(Arc::new(credentials)),
            chain: None,
            renewing: Mutex::default(),
        }
    }
}

impl CredentialsInUse {
    /// Credentials that `chain` has found and may find anew.
    #[must_use]
    pub fn renewed_by(chain: Chain, found: Credentials) -> Self {
        Self {
            chain: Some(chain),
            ..Self::from(found)
        }
    }

    /// The credentials for a request at `now`.
    pub(crate) fn current(&self, now: DateTime<Utc>) -> Arc<Credentials> {
        let current = self.read();
        let ends_soon = current
            .expires_at
            .is_some_and(|end| end - RENEWED_EARLY <= now);
        if ends_soon && self.renew(&current, now) {
            return self.read();
        }
        current
    }

    /// Asks for newer credentials than `refused`, with which a request was signed in vain; says whether
    /// there are any.
    pub(crate) fn renew(&self, refused: &Credentials, now: DateTime<Utc>) -> bool {
        let _turn = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request was refused as well and has found newer ones meanwhile.
        if !is_same(&self.read(), refused) {
            return true;
        }
        let Some(chain) = &self.chain else {
            return false;
        };
        // Broken or absent now: what we have may still be good, and if not, its refusal is the news.
        let Ok(found) = chain.resolve(now) else {
            return false;
        };
        let is_newer = !is_same(refused, &found.credentials);
        if is_newer {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(found.credentials);
        }
        is_newer
    }

    fn read(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
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
mod tests {
    use super::*;
    use crate::cloud::credentials::Flags;
    use crate::environment::Environment;

    fn write(home: &std::path::Path, token: &str, expires_at: i64) {
        let text = serde_json::json!({
            "type": "oauth", "secretId": "AKID1", "secretKey": "k", "token": token, "expiresAt": expires_at,
        });
        std::fs::create_dir_all(home.join(".tccli")).expect("a folder");
        std::fs::write(home.join(".tccli/default.credential"), text.to_string()).expect("a file");
    }

    #[test]
    fn credentials_are_read_anew_before_they_end_and_when_they_are_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
        write(home.path(), "first", 10_000);
        let environment = Environment::new([("X", "y")], Some(home.path().to_owned()));
        let chain = Chain::standard(&environment, Flags::default());
        let found = chain.resolve(at(0)).expect("credentials").credentials;
        let in_use = CredentialsInUse::renewed_by(chain, found);
        let token = |now| {
            in_use
                .current(at(now))
                .token
                .as_ref()
                .map(|token| token.expose().to_owned())
        };
        assert_eq!(token(0).as_deref(), Some("first"));
        // Nothing newer is there: the old ones are kept, also when they end soon.
        assert_eq!(token(9_900).as_deref(), Some("first"));
        assert!(!in_use.renew(&in_use.read(), at(9_900)));
        write(home.path(), "second", 20_000);
        assert_eq!(token(100).as_deref(), Some("first"), "still good");
        assert_eq!(
            token(9_900).as_deref(),
            Some("second"),
            "ends within five minutes"
        );
        write(home.path(), "third", 30_000);
        let second = in_use.read();
        assert!(in_use.renew(&second, at(10_000)), "refused by the cloud");
        assert_eq!(token(10_000).as_deref(), Some("third"));
        std::fs::remove_file(home.path().join(".tccli/default.credential")).expect("removed");
        assert!(!in_use.renew(&in_use.read(), at(10_000)));
        assert_eq!(token(10_000).as_deref(), Some("third"));
    }

    #[test]
    fn requests_that_are_refused_side_by_side_all_find_what_one_of_them_found() {
        let home = tempfile::tempdir().expect("a folder");
        let now = DateTime::from_timestamp(0, 0).expect("a time");
        write(home.path(), "first", 10_000);
        let environment = Environment::new([("X", "y")], Some(home.path().to_owned()));
        let chain = Chain::standard(&environment, Flags::default());
        let first = chain.resolve(now).expect("credentials").credentials;
        let in_use = CredentialsInUse::renewed_by(chain, first.clone());
        write(home.path(), "second", 20_000);
        std::thread::scope(|scope| {
            let requests: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| in_use.renew(&first, now)))
                .collect();
            for request in requests {
                assert!(request.join().expect("no panic"));
            }
        });
        let second = in_use.read();
        assert!(!is_same(&second, &first));
        assert!(
            !in_use.renew(&second, now),
            "the newer ones are refused as well, and nothing newer is there"
        );
    }
}
