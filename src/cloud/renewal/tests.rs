//! Renewal of what stands in a file, read anew.

use super::*;
use crate::cloud::credentials::Flags;
use crate::cloud::{CloudSettings, Endpoints};
use crate::environment::Environment;
use crate::event::EventKind;

fn write(home: &std::path::Path, token: &str, expires_at: i64) {
    let text = serde_json::json!({
        "type": "oauth", "secretId": "AKID1", "secretKey": "k", "token": token, "expiresAt": expires_at,
    });
    std::fs::create_dir_all(home.join(".tccli")).expect("a folder");
    std::fs::write(home.join(".tccli/default.credential"), text.to_string()).expect("a file");
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

async fn found_in(home: &std::path::Path) -> (CredentialsInUse, Credentials) {
    let environment = Environment::new([("X", "y")], Some(home.to_owned()));
    let settings = CloudSettings::new(Endpoints::real());
    let chain = Chain::standard(&environment, Flags::default(), settings);
    let found = chain.resolve(at(0)).await.expect("credentials");
    let credentials = found.credentials.clone();
    let in_use = CredentialsInUse::renewed_by(chain, found, at(0));
    (in_use, credentials)
}

async fn token_at(in_use: &CredentialsInUse, seconds: i64, events: &Events) -> String {
    let credentials = in_use.current(at(seconds), events).await;
    let token = credentials.token.as_ref().expect("a token");
    token.expose().to_owned()
}

#[tokio::test]
async fn credentials_are_read_anew_before_they_end_and_when_they_are_refused() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 10_000);
    let (in_use, _) = found_in(home.path()).await;
    let events = Events::discard();
    assert_eq!(token_at(&in_use, 0, &events).await, "first");
    // Nothing newer is there: the old ones are kept, also when they end soon.
    assert_eq!(token_at(&in_use, 9_900, &events).await, "first");
    let refused = in_use.read().credentials;
    assert!(!in_use.renew(&refused, at(9_900), &events).await);
    write(home.path(), "second", 20_000);
    let seen = token_at(&in_use, 100, &events).await;
    assert_eq!(seen, "first", "still good");
    let seen = token_at(&in_use, 9_901, &events).await;
    assert_eq!(seen, "first", "the place was asked a second ago");
    let seen = token_at(&in_use, 9_911, &events).await;
    assert_eq!(seen, "second", "the first ones end within five minutes");
    write(home.path(), "third", 30_000);
    let second = in_use.read().credentials;
    let is_renewed = in_use.renew(&second, at(10_000), &events).await;
    assert!(is_renewed, "refused by the cloud");
    assert_eq!(token_at(&in_use, 10_000, &events).await, "third");
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_once_and_the_old_ones_serve_on() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 10_000);
    let (in_use, first) = found_in(home.path()).await;
    std::fs::remove_file(home.path().join(".tccli/default.credential")).expect("removed");
    // Another place has keys now; they may be another account's.
    let sdk = home.path().join(".tencentcloud");
    std::fs::create_dir(&sdk).expect("a folder");
    std::fs::write(
        sdk.join("credentials"),
        "[default]\nsecret_id = AKID2\nsecret_key = other\n",
    )
    .expect("a file");
    let (events, mut told) = Events::channel();
    for seconds in [9_800, 9_801, 9_900, 9_999, 10_001] {
        assert_eq!(token_at(&in_use, seconds, &events).await, "first");
    }
    assert!(!in_use.renew(&first, at(10_002), &events).await);
    drop(events);
    let mut warnings = Vec::new();
    while let Some(event) = told.recv().await {
        if let EventKind::Warning { message } = event.kind {
            warnings.push(message);
        }
    }
    let [warning] = warnings.as_slice() else {
        panic!("one warning: {warnings:?}");
    };
    assert!(warning.contains("nothing is there any more"), "{warning}");
    write(home.path(), "second", 20_000);
    let seen = token_at(&in_use, 10_100, &Events::discard()).await;
    assert_eq!(seen, "second", "the place has keys again");
}

#[tokio::test]
async fn short_lives_are_renewed_at_their_last_tenth() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 100);
    let (in_use, _) = found_in(home.path()).await;
    write(home.path(), "second", 20_000);
    let events = Events::discard();
    assert_eq!(token_at(&in_use, 89, &events).await, "first");
    assert_eq!(token_at(&in_use, 90, &events).await, "second");
}

#[tokio::test]
async fn requests_that_are_refused_side_by_side_all_find_what_one_of_them_found() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 10_000);
    let (in_use, first) = found_in(home.path()).await;
    write(home.path(), "second", 20_000);
    let events = Events::discard();
    let requests = (0..8).map(|_| in_use.renew(&first, at(0), &events));
    let renewed = futures_util::future::join_all(requests).await;
    assert_eq!(renewed, [true; 8]);
    let second = in_use.read().credentials;
    assert!(!is_same(&second, &first));
    assert!(
        !in_use.renew(&second, at(0), &events).await,
        "the newer ones are refused as well, and nothing newer is there"
    );
}

#[tokio::test]
async fn requests_that_waited_for_a_look_that_failed_do_not_look_themselves() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 100);
    let (in_use, first) = found_in(home.path()).await;
    std::fs::remove_dir_all(home.path().join(".tccli")).expect("it was written");
    let events = Events::discard();
    let look = in_use.renewing.lock().await;
    let refused = (0..8).map(|_| in_use.renew(&first, at(0), &events));
    let mut refused = std::pin::pin!(futures_util::future::join_all(refused));
    let due = (0..8).map(|_| in_use.current(at(100), &events));
    let mut due = std::pin::pin!(futures_util::future::join_all(due));
    // All of them wait by now.
    let both_wait = std::future::poll_fn(|context| {
        let refused = refused.as_mut().poll(context).is_pending();
        let due = due.as_mut().poll(context).is_pending();
        std::task::Poll::Ready(refused && due)
    });
    assert!(both_wait.await);
    drop(look);
    assert_eq!(refused.await, [false; 8]);
    assert_eq!(due.await.len(), 8, "the old ones serve on");
    assert_eq!(in_use.failures.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn those_that_are_over_when_they_come_are_not_asked_for_before_every_request() {
    let home = tempfile::tempdir().expect("a folder");
    write(home.path(), "first", 100);
    let (in_use, _) = found_in(home.path()).await;
    write(home.path(), "second", 150);
    let events = Events::discard();
    assert_eq!(token_at(&in_use, 95, &events).await, "second");
    write(home.path(), "third", 10_000);
    assert_eq!(token_at(&in_use, 160, &events).await, "third");
}
