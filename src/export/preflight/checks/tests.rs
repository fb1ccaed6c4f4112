//! Each check over a world in which all of them pass, with one thing changed.

mod account;
mod bucket;
mod cost;
mod image;
mod landing;

use std::fmt::Debug;

use super::*;
use crate::cloud::Network;
use crate::cloud::actions::cam::RoleInfo;
use crate::cloud::actions::cbs::Snapshot;
use crate::cloud::cos::{BucketEntry, BucketHead, Upload, UploadList};
use crate::download::FolderLook;
use crate::estimate::Budget;
use crate::export::cost::{CostFacts, CostPlan};
use crate::export::image_copy::{CopyFacts, CopyPlan};
use crate::export::preflight::{AttachedPolicy, LandingFacts, RowFact};
use crate::export::refusals::REFUSALS;
use crate::export::samples::{self, DISK_GIB, key, object};
use crate::model::Region;

const API_NAME: &str = "p_img-1_system_snap-0.raw";
const CONSOLE_NAME: &str = "p_xvda.raw";
const TRUST: &str = r#"{"version":"2.0","statement":[{"action":"name/sts:AssumeRole","effect":"allow",
    "principal":{"service":["cvm.qcloud.com"]}}]}"#;

fn denied<T>() -> Fact<T> {
    Fact::NotPermitted("denied by CAM".to_owned())
}

fn silent<T>() -> Fact<T> {
    Fact::NoAnswer("no answer came".to_owned())
}

fn region(text: &str) -> Region {
    text.parse().expect("region")
}

fn entry(name: &str, place: &str) -> BucketEntry {
    BucketEntry {
        name: name.parse().expect("bucket"),
        region: region(place),
    }
}

fn head(place: Option<&str>) -> Fact<Option<BucketHead>> {
    Fact::Known(Some(BucketHead {
        region: place.map(region),
        is_multi_az: false,
    }))
}

fn snapshot(id: &str, encrypt: Option<bool>) -> Snapshot {
    Snapshot {
        snapshot_id: id.into(),
        encrypt,
    }
}

fn uploads(keys: &[&str]) -> Fact<UploadList> {
    let uploads = keys.iter().map(|name| Upload {
        key: key(name),
        upload_id: format!("u-{name}"),
        initiated: None,
        storage_class: "STANDARD".into(),
    });
    Fact::Known(UploadList {
        uploads: uploads.collect(),
        is_truncated: false,
        next: None,
    })
}

fn policies(list: &[(&str, bool)]) -> Fact<Vec<AttachedPolicy>> {
    let list = list.iter().map(|(name, is_preset)| AttachedPolicy {
        name: (*name).into(),
        id: Some(1),
        is_preset: *is_preset,
        document: Fact::NotAsked,
    });
    Fact::Known(list.collect())
}

fn trust(document: &str) -> Fact<Option<RoleInfo>> {
    Fact::Known(Some(RoleInfo {
        role_name: "CVM_QcsRole".into(),
        description: "".into(),
        policy_document: document.into(),
    }))
}

fn refused(code: &str) -> Fact<DryRun> {
    Fact::Known(DryRun::Refused {
        code: code.into(),
        message: "words of the cloud".into(),
    })
}

/// A world in which every check passes.
/// What two disks cost, and may cost.
fn cost(limit: &str) -> CostFacts {
    let budget = Budget {
        limit: Some(limit.parse().expect("an amount")),
        ..Budget::default()
    };
    let image = Fact::Known(Some(samples::image(&[DISK_GIB, DISK_GIB])));
    CostFacts::of(&samples::request(), &image, &CostPlan::default(), &budget)
}

fn facts() -> Facts {
    let request = samples::request();
    let sizes = [DISK_GIB, DISK_GIB];
    let files = request
        .predict_files(&samples::disks(&sizes))
        .expect("names");
    let names = files.iter().flat_map(|file| file.names.clone());
    Facts {
        objects: names.map(|name| (name, Fact::Known(None))).collect(),
        files: Ok(files),
        image: Fact::Known(Some(samples::image(&sizes))),
        fixed_prefix: request.prefix.clone(),
        found_in: Vec::new(),
        copy: None,
        snapshots: Fact::Known(vec![
            snapshot("snap-0", Some(false)),
            snapshot("snap-1", None),
        ]),
        buckets: Fact::Known(vec![
            entry("a-1250000000", "ap-singapore"),
            entry("b-1250000000", "ap-guangzhou"),
        ]),
        bucket: head(Some("ap-guangzhou")),
        role: trust(TRUST),
        policies: policies(&[("QcloudCOSDataFullControl", true)]),
        uploads: uploads(&[]),
        versioning: Fact::NotAsked,
        claim: Fact::Known(None),
        row: RowFact::NotAsked,
        existing: Existing::Nothing,
        dry_run: Fact::Known(DryRun::Accepted),
        running_exports: 0,
        landing: Some(LandingFacts {
            folder: "disks".into(),
            replaces: false,
            look: Ok(FolderLook {
                free_bytes: Some(200 << 30),
                keeps_holes: true,
            }),
            in_the_way: Vec::new(),
            disk_bytes: Some((2 * DISK_GIB) << 30),
            is_raw: false,
            network: Network::Public,
            right: Fact::Known(()),
        }),
        cost: Some(cost("1000")),
        request,
    }
}

fn image_of(facts: &mut Facts) -> &mut Image {
    match &mut facts.image {
        Fact::Known(Some(image)) => image,
        other => panic!("the sample world has an image, not {other:?}"),
    }
}

fn landing_of(facts: &mut Facts) -> &mut LandingFacts {
    facts
        .landing
        .as_mut()
        .expect("the sample world has a landing")
}

fn find(facts: &Facts, if_exists: IfExists, check: CheckName) -> Finding {
    let mut findings = judge(facts, if_exists);
    findings.retain(|finding| finding.check == check);
    assert_eq!(
        findings.len(),
        1,
        "`{check}` should speak once: {findings:?}"
    );
    findings.remove(0)
}

/// Asserts the verdict, that evidence and remedy hold `words`, and that exactly a pass needs no remedy.
fn assert_finding(asked: &dyn Debug, finding: &Finding, verdict: Verdict, words: &[&str]) {
    assert_eq!(
        finding.verdict, verdict,
        "asked: {asked:?}; seen: {finding:?}"
    );
    let text = format!(
        "{} | {}",
        finding.evidence,
        finding.remedy.as_deref().unwrap_or_default()
    );
    for word in words {
        assert!(
            text.contains(word),
            "asked: {asked:?}; expected: `{word}`; seen: {text}"
        );
    }
    assert!(
        !finding.evidence.is_empty(),
        "asked: {asked:?}; no evidence"
    );
    assert_eq!(
        finding.remedy.is_none(),
        verdict == Verdict::Pass,
        "asked: {asked:?}; seen: {finding:?}"
    );
}

/// What is changed in the good world, what the check then says, and words that it says it with.
type Case<'a> = (&'a str, fn(&mut Facts), Verdict, &'a [&'a str]);

fn assert_cases(check: CheckName, cases: &[Case<'_>]) {
    for (asked, change, verdict, words) in cases {
        let mut facts = facts();
        change(&mut facts);
        assert_finding(
            &(check, asked),
            &find(&facts, IfExists::Fail, check),
            *verdict,
            words,
        );
    }
}

use Verdict::{Fail, Pass, Unknown, Warn};

#[test]
fn in_a_good_world_every_check_passes_in_table_order() {
    let region: crate::model::Region = "ap-guangzhou".parse().expect("region");
    let plan = CopyPlan {
        image: samples::image(&[DISK_GIB]),
        region: region.clone(),
        destinations: vec![region],
    };
    let copy = Some(CopyFacts {
        plan,
        rooms: Vec::new(),
    });
    let facts = Facts { copy, ..facts() };
    let findings = judge(&facts, IfExists::Fail);
    let names: Vec<CheckName> = findings.iter().map(|finding| finding.check).collect();
    let of_exports = CheckName::ALL.iter().filter(|name| !name.is_of_account());
    assert_eq!(names, of_exports.copied().collect::<Vec<_>>());
    for finding in &findings {
        assert_finding(&"the good world", finding, Pass, &[]);
    }
}

#[test]
fn only_what_was_not_asked_for_is_silent() {
    let facts = Facts {
        dry_run: Fact::NotAsked,
        landing: None,
        cost: None,
        ..facts()
    };
    let names: Vec<CheckName> = judge(&facts, IfExists::Fail)
        .iter()
        .map(|finding| finding.check)
        .collect();
    let expected: Vec<CheckName> = CheckName::ALL
        .iter()
        .copied()
        .filter(|name| {
            let is_of_download = name.as_str().starts_with("download-");
            let of_more = [
                CheckName::ServerDryRun,
                CheckName::ImageCopy,
                CheckName::Cost,
            ];
            !of_more.contains(name) && !is_of_download && !name.is_of_account()
        })
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn in_a_world_that_may_not_be_seen_nothing_passes_by_accident_and_nothing_fails() {
    let mut facts = Facts {
        image: denied(),
        snapshots: Fact::NotAsked,
        buckets: denied(),
        bucket: denied(),
        role: denied(),
        policies: denied(),
        files: Ok(Vec::new()),
        uploads: denied(),
        claim: denied(),
        dry_run: denied(),
        ..facts()
    };
    landing_of(&mut facts).right = silent();
    landing_of(&mut facts).disk_bytes = None;
    let budget = cost("1000").budget;
    facts.cost = Some(CostFacts::of(
        &facts.request,
        &facts.image,
        &CostPlan::default(),
        &budget,
    ));
    facts.objects.clear();
    // What needs no look-up still passes.
    let own = [
        CheckName::Format,
        CheckName::Prefix,
        CheckName::Quota,
        CheckName::DownloadFolder,
    ];
    for finding in judge(&facts, IfExists::Fail) {
        let expected = if own.contains(&finding.check) {
            Pass
        } else {
            Unknown
        };
        assert_finding(&"a blind world", &finding, expected, &[]);
    }
}
