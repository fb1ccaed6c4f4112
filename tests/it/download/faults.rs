//! What goes wrong on the way is repeated, replaced or refused; a wrong file never has the final name.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::{Effect, Fault};
use serde_json::json;

use super::{BUCKET, Case, PART, noise, patchy};
use crate::support::{TestEnv, delayed, fault};

fn always(effect: Effect) -> Vec<Fault> {
    vec![Fault {
        key: None,
        occurrence: None,
        ..fault("GetObject", effect)
    }]
}

#[test]
fn trouble_on_the_way_is_got_over() {
    let third = |effect| {
        vec![Fault {
            key: None,
            occurrence: Some(3),
            ..fault("GetObject", effect)
        }]
    };
    for effect in [
        Effect::TruncatedBody { after_bytes: 1000 },
        Effect::ShortBodyAgreeing { bytes: 1000 },
        Effect::StalledBody { after_bytes: 1000 },
        Effect::ResetBefore,
        Effect::ProcessedThenReset,
        Effect::Status { status: 503 },
        Effect::CosError {
            status: 503,
            code: "SlowDown".to_owned(),
        },
        Effect::WrongContentRange,
        Effect::WholeForRange,
        Effect::Garbage,
        Effect::EmptyBody,
        Effect::FlippedByte { at: 100 },
        Effect::MissingField {
            name: "Content-Range".to_owned(),
        },
    ] {
        let case = Case::new(patchy(10 * PART));
        case.set(third(effect.clone()));
        let run = case.fetch("--stall-timeout 500ms");
        assert_eq!(run.code, 0, "{effect:?}\n{}", run.stderr);
        case.has_arrived();
    }
}

#[test]
fn a_body_that_breaks_off_is_gone_on_with_at_its_byte_and_one_that_is_no_part_is_asked_for_again() {
    let part = PART as u64;
    for (effect, resumed_at) in [
        (Effect::TruncatedBody { after_bytes: 1000 }, part + 1000),
        (Effect::StalledBody { after_bytes: 1000 }, part + 1000),
        (Effect::ShortBodyAgreeing { bytes: 1000 }, part),
        (Effect::WrongContentRange, part),
        (Effect::WholeForRange, part),
        (Effect::Status { status: 503 }, part),
    ] {
        let case = Case::new(patchy(3 * PART));
        case.set(vec![Fault {
            key: None,
            occurrence: Some(2),
            ..fault("GetObject", effect.clone())
        }]);
        case.fetch("--concurrency 1 --stall-timeout 500ms")
            .ends_with(0);
        case.has_arrived();
        let expected = [
            (0, part),
            (part, 2 * part),
            (resumed_at, 2 * part),
            (2 * part, 3 * part),
        ];
        assert_eq!(case.ranges(), expected, "{effect:?}");
    }
}

#[test]
fn a_slow_rate_that_was_asked_for_is_no_stall() {
    let case = Case::new(noise(4 * PART));
    // Each part takes more than twice the time that a body may pause.
    case.fetch("--limit-rate 96KiB --stall-timeout 250ms --concurrency 2")
        .ends_with(0);
    case.has_arrived();
    assert_eq!(case.env.calls("GetObject"), 4);
}

#[test]
fn a_storm_of_refusals_is_weathered() {
    let case = Case::new(patchy(20 * PART));
    let storm = (1..=60).step_by(3).map(|number| Fault {
        key: None,
        occurrence: Some(number),
        ..fault("GetObject", Effect::Status { status: 503 })
    });
    case.set(storm.collect());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_flipped_byte_is_found_and_replaced_and_a_second_mismatch_is_the_end() {
    let case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        key: None,
        occurrence: Some(4),
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    }]);
    case.fetch("")
        .ends_with(0)
        .says("every part is fetched once more")
        .says("is right now");
    case.has_arrived();
    let case = Case::new(noise(3 * PART));
    case.set(always(Effect::FlippedByte { at: 5 }));
    case.fetch("").ends_with(8).says("the bucket holds");
    assert!(!case.target().exists());
    case.set(Vec::new());
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_range_that_never_comes_right_ends_the_run_and_never_leaves_a_wrong_file() {
    for effect in [
        Effect::WholeForRange,
        Effect::WrongContentRange,
        Effect::EmptyBody,
    ] {
        let case = Case::new(noise(2 * PART));
        case.set(always(effect.clone()));
        let run = case.fetch("--request-timeout 2s");
        assert_eq!(run.code, 1, "{effect:?}\n{}", run.stderr);
        assert!(!case.target().exists(), "{effect:?}");
        case.set(Vec::new());
        case.fetch("").ends_with(0);
        case.has_arrived();
    }
}

#[test]
fn an_object_that_is_replaced_midway_is_fetched_anew() {
    let mut case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        key: None,
        occurrence: Some(5),
        ..fault("GetObject", Effect::ChangedObject)
    }]);
    case.fetch("")
        .ends_with(0)
        .says("was replaced by another object while it was fetched; starting anew");
    case.bytes = case.env.cloud.change(|world| {
        let object = world.object(BUCKET, "folder/disk.raw").expect("the object");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        bytes
    });
    case.has_arrived();
}

/// Writes a tccli profile as `tccli auth login` leaves it.
fn log_in(env: &TestEnv, credentials: &Credentials) {
    let token = credentials.token.as_ref().map(Secret::expose);
    let end = credentials.expires_at.map(|end| end.timestamp());
    let text = json!({
        "type": "oauth",
        "secretId": credentials.secret_id,
        "secretKey": credentials.secret_key.expose(),
        "token": token,
        "expiresAt": end,
    });
    let folder = env.home.path().join(".tccli");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("new"), text.to_string()).expect("a file");
    fs::rename(folder.join("new"), folder.join("default.credential")).expect("renamed");
}

fn temporary(name: &str, end: DateTime<Utc>) -> Credentials {
    Credentials {
        secret_id: format!("AKID{name}"),
        secret_key: Secret::new(format!("key-{name}")),
        token: Some(Secret::new(format!("token-{name}"))),
        expires_at: Some(end),
    }
}

#[test]
fn keys_that_end_midway_are_renewed_on_every_connection() {
    let mut case = Case::new(patchy(120 * PART));
    case.env
        .unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY");
    let now = case.env.cloud.change(|world| world.server_time());
    let later = now + TimeDelta::hours(2);
    let (first, second) = (temporary("first", later), temporary("second", later));
    case.env.cloud.change(|world| world.accept(first.clone()));
    log_in(&case.env, &first);
    // Several requests are on their way whenever the keys end.
    case.set(vec![delayed("GetObject", 100)]);
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB -v";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 40);
    log_in(&case.env, &second);
    case.env.cloud.change(|world| {
        world.accept(second);
        world.accept(Credentials {
            expires_at: Some(now),
            ..first
        });
    });
    running.wait().ends_with(0);
    case.has_arrived();
    let calls = case.env.cloud.calls();
    let refused = calls
        .iter()
        .filter(|call| call.code.as_deref() == Some("ExpiredToken"))
        .count();
    assert!(
        refused >= 2,
        "{refused} refusals: nothing happened side by side"
    );
}

#[test]
fn keys_that_end_midway_and_are_not_renewed_end_the_run_resumably() {
    let mut case = Case::new(noise(60 * PART));
    let key = case.env.cloud.credentials();
    let now = case.env.cloud.change(|world| world.server_time());
    let first = temporary("first", now + TimeDelta::hours(2));
    case.env.cloud.change(|world| world.accept(first.clone()));
    case.env
        .set("TENCENTCLOUD_SECRET_ID", &first.secret_id)
        .set("TENCENTCLOUD_SECRET_KEY", first.secret_key.expose())
        .set("TENCENTCLOUD_TOKEN", "token-first");
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 2MiB";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 12);
    case.env.cloud.change(|world| {
        world.accept(Credentials {
            expires_at: Some(now),
            ..first
        });
    });
    running.wait().ends_with(4).says("ExpiredToken");
    case.env
        .unset("TENCENTCLOUD_TOKEN")
        .set("TENCENTCLOUD_SECRET_ID", &key.secret_id)
        .set("TENCENTCLOUD_SECRET_KEY", key.secret_key.expose());
    case.fetch("").ends_with(0).says("going on with");
    case.has_arrived();
}

#[test]
fn a_repair_tells_its_progress_and_is_gone_on_with() {
    let flipped = || {
        let case = Case::new(noise(64 * PART));
        case.set(vec![Fault {
            key: None,
            occurrence: Some(4),
            ..fault("GetObject", Effect::FlippedByte { at: 5 })
        }]);
        case
    };
    let case = flipped();
    let run = case.fetch("--limit-rate 3MiB --output ndjson").ends_with(0);
    let mut told = run
        .stdout
        .lines()
        .skip_while(|line| !line.contains("every part is fetched once more"))
        .skip(1)
        .filter(|line| line.contains("\"download-progress\""));
    assert!(told.next().is_some(), "no progress:\n{}", run.stdout);
    case.has_arrived();
    let case = flipped();
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 3MiB";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 64 + 32);
    running.signal("INT");
    running.wait().ends_with(130);
    case.fetch("").ends_with(0).says("going on with");
    case.has_arrived();
    let calls = case.env.calls("GetObject");
    assert!(calls < 64 + 64 + 16, "{calls} parts were asked for");
}
