//! What the bucket decides, and the names in it.

use super::*;

#[test]
fn the_bucket_must_be_in_the_images_region_whichever_call_tells_it() {
    assert_cases(
        CheckName::BucketRegion,
        &[
            (
                "HEAD alone",
                |facts| facts.buckets = denied(),
                Pass,
                &["`b-1250000000` is in ap-guangzhou"],
            ),
            (
                "HEAD without region",
                |facts| {
                    facts.bucket = head(None);
                    facts.buckets = denied();
                },
                Pass,
                &["ap-guangzhou"],
            ),
            (
                "listing alone",
                |facts| facts.bucket = denied(),
                Pass,
                &["listed in ap-guangzhou"],
            ),
            (
                "HEAD says elsewhere",
                |facts| {
                    facts.bucket = head(Some("ap-tokyo"));
                    facts.buckets = silent();
                },
                Fail,
                &[
                    "`b-1250000000` is in ap-tokyo",
                    "the image in ap-guangzhou",
                    "--region ap-tokyo",
                ],
            ),
            (
                "listing says elsewhere",
                |facts| {
                    facts.bucket = Fact::Known(None);
                    facts.buckets = Fact::Known(vec![entry("b-1250000000", "ap-singapore")]);
                },
                Fail,
                &["is in ap-singapore", "--region ap-singapore"],
            ),
            (
                "listing against HEAD",
                |facts| {
                    facts.buckets = Fact::Known(vec![entry("b-1250000000", "ap-singapore")]);
                },
                Fail,
                &["is in ap-singapore"],
            ),
            (
                "another's entry",
                |facts| {
                    facts.bucket = Fact::Known(None);
                    facts.buckets = Fact::Known(vec![entry("a-1250000000", "ap-guangzhou")]);
                },
                Fail,
                &["there is no bucket `b-1250000000`", "--bucket NAME-APPID"],
            ),
            (
                "nowhere",
                |facts| {
                    facts.bucket = Fact::Known(None);
                    facts.buckets = denied();
                },
                Fail,
                &["there is no bucket"],
            ),
            (
                "denied and not listed",
                |facts| {
                    facts.bucket = denied();
                    facts.buckets = Fact::Known(Vec::new());
                },
                Unknown,
                &["denied by CAM", "name/cos:HeadBucket"],
            ),
            (
                "both silent",
                |facts| {
                    facts.bucket = silent();
                    facts.buckets = silent();
                },
                Unknown,
                &["no answer came"],
            ),
        ],
    );
}

#[test]
fn cos_is_active_when_it_answers_and_not_when_the_account_is_unpaid() {
    assert_cases(
        CheckName::CosActive,
        &[
            (
                "listing alone",
                |facts| facts.bucket = Fact::Known(None),
                Pass,
                &["lists 2 buckets"],
            ),
            (
                "HEAD alone",
                |facts| facts.buckets = denied(),
                Pass,
                &["answers for the bucket"],
            ),
            (
                "HEAD and an empty list",
                |facts| facts.buckets = Fact::Known(Vec::new()),
                Pass,
                &["answers"],
            ),
            (
                "no bucket at all",
                |facts| {
                    facts.bucket = Fact::Known(None);
                    facts.buckets = Fact::Known(Vec::new());
                },
                Fail,
                &["no bucket at all", "activate COS"],
            ),
            (
                "unpaid by code",
                |facts| {
                    facts.buckets = Fact::NoAnswer(
                        "COS refused GET Service (PaymentRequired, HTTP status 402)".to_owned(),
                    );
                },
                Fail,
                &["PaymentRequired", "balance"],
            ),
            (
                "blocked by code",
                |facts| {
                    facts.bucket =
                        Fact::NoAnswer("(UnavailableForLegalReasons, HTTP status 451)".to_owned());
                },
                Fail,
                &["UnavailableForLegalReasons"],
            ),
            (
                "blocked by the status of a HEAD",
                |facts| {
                    facts.bucket = Fact::NoAnswer(
                        "COS refused HEAD Bucket (HTTP status 451, request r)".to_owned(),
                    );
                },
                Fail,
                &["HTTP status 451"],
            ),
            (
                "unpaid by the status of a HEAD",
                |facts| {
                    facts.bucket = Fact::NoAnswer(
                        "COS refused HEAD Bucket (HTTP status 402, request r)".to_owned(),
                    );
                },
                Fail,
                &["HTTP status 402"],
            ),
            (
                "denied",
                |facts| {
                    facts.bucket = denied();
                    facts.buckets = denied();
                },
                Unknown,
                &["denied by CAM", "name/cos:GetService"],
            ),
        ],
    );
}

#[test]
fn prefixes_that_make_no_names_fail_and_folders_are_warned_of() {
    assert_cases(
        CheckName::Prefix,
        &[
            ("plain", |_| {}, Pass, &["`p_`"]),
            (
                "none",
                |facts| facts.request.prefix = None,
                Pass,
                &["image's id"],
            ),
            (
                "slash",
                |facts| facts.request.prefix = Some("a/b".parse().expect("prefix")),
                Warn,
                &["`a/b` holds a slash"],
            ),
            (
                "too long",
                |facts| facts.files = Err("it is longer than 850 bytes".to_owned()),
                Fail,
                &["longer than 850", "shorter `--prefix`"],
            ),
        ],
    );
}

fn standing(facts: &mut Facts, name: &str) {
    facts
        .objects
        .insert(key(name), Fact::Known(Some(object(name))));
}

fn claim(state: RecordState) -> Fact<Option<crate::export::record::Record>> {
    let mut record = samples::record(&samples::request(), &[DISK_GIB]);
    record = record.in_state(state);
    Fact::Known(Some(record))
}

#[test]
fn what_has_the_exports_names_is_refused_taken_or_replaced_as_asked() {
    type Occupied<'a> = (&'a str, fn(&mut Facts), &'a str);
    let occupied: [Occupied<'_>; 4] = [
        (
            "API name",
            |facts| standing(facts, API_NAME),
            "`p_img-1_system_snap-0.raw`",
        ),
        (
            "console name",
            |facts| standing(facts, CONSOLE_NAME),
            "`p_xvda.raw`",
        ),
        (
            "growing",
            |facts| facts.uploads = uploads(&[CONSOLE_NAME]),
            "`p_xvda.raw` (being uploaded)",
        ),
        (
            "both",
            |facts| {
                standing(facts, API_NAME);
                facts.uploads = uploads(&["p_xvdb.raw"]);
            },
            "`p_img-1_system_snap-0.raw`, `p_xvdb.raw` (being uploaded)",
        ),
    ];
    for (asked, change, evidence) in occupied {
        let mut facts = facts();
        change(&mut facts);
        let said = |facts: &Facts, if_exists, verdict, remedy: &str| {
            let finding = find(facts, if_exists, CheckName::NameCollision);
            assert_finding(&(asked, if_exists), &finding, verdict, &[evidence, remedy]);
            finding
        };
        let mut proven = samples::record(&samples::request(), &[DISK_GIB]);
        proven = proven.in_state(RecordState::Complete);
        facts.existing = Existing::Exported(Box::new(proven));
        let finding = find(&facts, IfExists::Reuse, CheckName::NameCollision);
        assert_finding(&asked, &finding, Pass, &["already exported"]);
        facts.existing = Existing::Strange("it has 5 bytes".to_owned());
        let finding = find(&facts, IfExists::Reuse, CheckName::NameCollision);
        assert_finding(
            &asked,
            &finding,
            Fail,
            &["5 bytes", "--if-exists overwrite"],
        );
        if evidence.contains("being uploaded") {
            // Whatever grows may be an export that runs, which nothing may write over.
            said(&facts, IfExists::Fail, Fail, "cvm-export wait");
            said(&facts, IfExists::Overwrite, Fail, "cvm-export wait");
            continue;
        }
        let unproven = said(&facts, IfExists::Fail, Fail, "--if-exists overwrite");
        let remedy = unproven.remedy.expect("a remedy");
        assert!(
            !remedy.contains("--if-exists reuse"),
            "asked: {asked}; it is not proven: {remedy}"
        );
        said(&facts, IfExists::Overwrite, Warn, "replaces it");
        for (state, is_proven) in [
            (RecordState::Submitted, true),
            (RecordState::Complete, true),
            (RecordState::Intended, false),
            (RecordState::Queued, false),
            (RecordState::Failed, false),
            (RecordState::Refused, false),
            (RecordState::Abandoned, false),
        ] {
            facts.claim = claim(state);
            let finding = said(&facts, IfExists::Fail, Fail, "--if-exists overwrite");
            let offers_reuse = finding
                .remedy
                .as_deref()
                .is_some_and(|text| text.contains("--if-exists reuse"));
            assert_eq!(
                offers_reuse, is_proven,
                "asked: {asked}, claim {state:?}; seen: {finding:?}"
            );
        }
    }
}

#[test]
fn names_that_are_free_or_not_seen_are_told_apart() {
    assert_cases(
        CheckName::NameCollision,
        &[
            ("free", |_| {}, Pass, &["no existing object or upload"]),
            (
                "another's upload",
                |facts| facts.uploads = uploads(&["p_other.raw"]),
                Pass,
                &["no existing object or upload"],
            ),
            (
                "uploads denied",
                |facts| facts.uploads = denied(),
                Pass,
                &[
                    "no existing object",
                    "uploads could not be seen (denied by CAM)",
                ],
            ),
            (
                "one name denied",
                |facts| {
                    facts.objects.insert(key(CONSOLE_NAME), denied());
                },
                Unknown,
                &["denied by CAM", "name/cos:HeadObject"],
            ),
            (
                "one denied, one standing",
                |facts| {
                    facts.objects.insert(key(CONSOLE_NAME), denied());
                    standing(facts, API_NAME);
                },
                Fail,
                &["already holds"],
            ),
            (
                "one silent",
                |facts| {
                    facts.objects.insert(key(API_NAME), silent());
                },
                Unknown,
                &["no answer came"],
            ),
            (
                "no names",
                |facts| facts.objects.clear(),
                Unknown,
                &["names are not known"],
            ),
        ],
    );
}
