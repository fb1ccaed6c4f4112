use std::time::Duration;

use chrono::DateTime;

use super::*;
use crate::cloud::Answered;
use crate::cloud::actions::sts::GetCallerIdentityResponse;
use crate::export::preflight::{Fact, Keys};
use crate::model::Verdict::{self, Fail, Pass, Unknown, Warn};

fn answering(host: &str) -> Probe {
    let answered = Answered {
        after: Duration::from_millis(7),
        clock_offset: None,
    };
    Probe {
        host: host.to_owned(),
        answer: Ok(answered),
    }
}

fn silent(host: &str) -> Probe {
    Probe {
        host: host.to_owned(),
        answer: Err("no connection".to_owned()),
    }
}

/// An account about which there is nothing to say.
fn facts() -> AccountFacts {
    AccountFacts {
        keys: Keys {
            masked_id: "AKID****abcd".to_owned(),
            origin: "the environment".to_owned(),
            is_temporary: false,
            expires_at: None,
            passed_over: vec!["--secret-id: not given".to_owned()],
            warnings: Vec::new(),
        },
        refusal: None,
        identity: Fact::Known(GetCallerIdentityResponse {
            arn: "qcs::cam::uin/1:uin/1".into(),
            account_id: "1".into(),
            kind: "CAMUser".into(),
        }),
        clock_offset: Some(TimeDelta::zero()),
        hosts: Hosts {
            api: answering("api"),
            service: answering("service"),
            bucket: Some(answering("bucket")),
            internal: vec![answering("inside"), answering("bucket.inside")],
        },
        network: Network::Public,
        site: Site::Mainland,
    }
}

#[track_caller]
fn assert_judged(
    asked: &str,
    facts: &AccountFacts,
    check: CheckName,
    verdict: Verdict,
    words: &[&str],
) {
    let findings = judge_account(facts);
    let finding = findings
        .iter()
        .find(|finding| finding.check == check)
        .expect("every check speaks");
    assert_eq!(
        finding.verdict, verdict,
        "asked: {asked}, seen: {finding:?}"
    );
    let has_remedy = finding.remedy.is_some();
    assert_eq!(
        has_remedy,
        verdict != Pass,
        "asked: {asked}, seen: {finding:?}"
    );
    for word in words {
        assert!(
            finding.evidence.contains(word),
            "asked: {asked}, seen: {finding:?}"
        );
    }
}

#[test]
fn in_a_good_world_every_check_of_the_account_passes() {
    let findings = judge_account(&facts());
    assert!(
        findings.iter().all(|finding| finding.verdict == Pass),
        "{findings:?}"
    );
    let of_account = CheckName::ALL.iter().filter(|name| name.is_of_account());
    assert!(findings.iter().map(|finding| &finding.check).eq(of_account));
}

#[test]
fn the_keys_are_told_with_their_place_their_end_and_what_was_passed_over() {
    let check = CheckName::Credentials;
    let mut seen = facts();
    let words = [
        "AKID****abcd from the environment",
        "passed over: --secret-id: not given",
    ];
    assert_judged("good", &seen, check, Pass, &words);
    seen.keys.is_temporary = true;
    assert_judged("no end", &seen, check, Pass, &["until when is not known"]);
    seen.keys.expires_at = DateTime::from_timestamp(1_700_000_000, 0);
    assert_judged(
        "an end",
        &seen,
        check,
        Pass,
        &["until 2023-11-14 22:13:20Z"],
    );
    seen.keys.warnings = vec!["others can read it".to_owned()];
    assert_judged("a warning", &seen, check, Warn, &[]);
    seen.refusal = Some(("SecretIdNotFound".to_owned(), None));
    assert_judged("refused", &seen, check, Fail, &["SecretIdNotFound"]);
}

#[test]
fn the_caller_is_known_or_not_and_that_fails_nothing() {
    let check = CheckName::Identity;
    let mut seen = facts();
    let words = ["qcs::cam::uin/1:uin/1, account 1, type CAMUser"];
    assert_judged("good", &seen, check, Pass, &words);
    seen.identity = Fact::NotPermitted("denied".to_owned());
    assert_judged("denied", &seen, check, Unknown, &["denied"]);
    seen.identity = Fact::NoAnswer("reset".to_owned());
    assert_judged("silent", &seen, check, Unknown, &["reset"]);
    seen.identity = Fact::NotAsked;
    seen.refusal = Some(("SecretIdNotFound".to_owned(), None));
    assert_judged("refused", &seen, check, Unknown, &["keys are not accepted"]);
}

#[test]
fn a_clock_is_warned_of_from_a_minute_on() {
    let cases = [
        (Some(0), Pass, "is the server's"),
        (Some(59), Pass, "59 s behind"),
        (Some(-59), Pass, "59 s ahead of"),
        (Some(60), Warn, "dates its own requests"),
        (Some(-299), Warn, "299 s ahead of"),
        (Some(300), Warn, "the API allows 300 s"),
        (Some(-4000), Warn, "4000 s ahead of"),
        (None, Unknown, "no answer told the time"),
    ];
    for (seconds, verdict, word) in cases {
        let seen = AccountFacts {
            clock_offset: seconds.map(TimeDelta::seconds),
            ..facts()
        };
        let asked = format!("{seconds:?}");
        assert_judged(&asked, &seen, CheckName::Clock, verdict, &[word]);
    }
}

#[test]
fn a_host_that_is_in_use_must_answer_and_the_internal_network_need_not() {
    type Case<'a> = (&'a str, fn(&mut AccountFacts), Verdict, &'a str);
    let cases: [Case<'_>; 7] = [
        ("all answer", |_| {}, Pass, "`--internal` can be used"),
        (
            "outside",
            |facts| facts.hosts.internal[1] = silent("bucket.inside"),
            Pass,
            "not reached from here (bucket.inside)",
        ),
        (
            "inside already",
            |facts| {
                facts.hosts.internal.clear();
                facts.network = Network::Internal;
            },
            Pass,
            "api answered in 7 ms",
        ),
        (
            "no API",
            |facts| facts.hosts.api = silent("api"),
            Fail,
            "api did not answer (no connection)",
        ),
        (
            "no bucket",
            |facts| facts.hosts.bucket = Some(silent("bucket")),
            Fail,
            "bucket did not answer",
        ),
        (
            "no list of buckets",
            |facts| facts.hosts.service = silent("service"),
            Warn,
            "service did not answer",
        ),
        (
            "no list, and no bucket named",
            |facts| {
                facts.hosts.service = silent("service");
                facts.hosts.bucket = None;
            },
            Fail,
            "service did not answer",
        ),
    ];
    for (asked, change, verdict, word) in cases {
        let mut seen = facts();
        change(&mut seen);
        assert_judged(asked, &seen, CheckName::Network, verdict, &[word]);
    }
}
