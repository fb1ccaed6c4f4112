//! The table of checks: pure verdicts over [`Facts`].
//!
//! To add one: a name in `model`, a function here, a row in [`CHECKS`], and a field of [`Facts`]
//! where something new must be looked up.

mod account;
mod image;
mod image_copy;
mod landing;
mod role;

use std::collections::BTreeSet;

use super::IfExists;
use super::facts::{DryRun, Existing, Fact, Facts};
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::{BucketEntry, Versioning};
use crate::export::record::{Record, RecordState};
use crate::export::refusals::{self, Later, Refusal};
use crate::export::request::DiskScope;
use crate::model::{CheckName, Finding, ImageFormat, Verdict};
pub(super) use account::judge_account;
use image::{
    disk_count, disk_size, encryption, image_state, image_type, license, of_image, platform,
};
use image_copy::of_copies;
use landing::{folder, of_landing, right, room};
use role::{role, with_command};

/// How COS says that it does not serve an account (product page 436/7730): by code, and by the status
/// alone where HEAD has no body.
const UNPAID: &[&str] = &[
    "PaymentRequired",
    "UnavailableForLegalReasons",
    "HTTP status 402",
    "HTTP status 451",
];

/// A verdict with its reasons; the row adds the name.
struct Judgement {
    verdict: Verdict,
    evidence: String,
    remedy: Option<String>,
}

fn pass(evidence: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Verdict::Pass,
        evidence: evidence.into(),
        remedy: None,
    }
}

fn warn(evidence: impl Into<String>, remedy: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Verdict::Warn,
        evidence: evidence.into(),
        remedy: Some(remedy.into()),
    }
}

fn fail(evidence: impl Into<String>, remedy: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Verdict::Fail,
        evidence: evidence.into(),
        remedy: Some(remedy.into()),
    }
}

fn unknown(evidence: impl Into<String>, remedy: impl Into<String>) -> Judgement {
    Judgement {
        verdict: Verdict::Unknown,
        evidence: evidence.into(),
        remedy: Some(remedy.into()),
    }
}

/// What could not be seen: `right` says which right is missing, unless no answer came at all.
fn unseen<T>(fact: &Fact<T>, right: &str) -> Judgement {
    let remedy = match fact {
        Fact::NoAnswer(_) => {
            "try again; the check `network`, or `cvm-export check` without an image, tells which hosts answer"
        }
        _ => right,
    };
    unknown(fact.why_unknown().unwrap_or_default(), remedy)
}

/// One row: what is checked, and how.
struct Check {
    name: CheckName,
    judge: fn(&Facts, IfExists) -> Judgement,
}

/// Every check, in the order in which findings are reported.
const CHECKS: &[Check] = &[
    Check {
        name: CheckName::ImageType,
        judge: |facts, _| match &facts.copy {
            Some(copy) if copy.plan.makes_custom() => {
                pass("shared by another account; the export takes a custom copy")
            }
            _ => of_image(facts, |_, image| image_type(image)),
        },
    },
    Check {
        name: CheckName::ImageState,
        judge: |facts, _| of_image(facts, |_, image| image_state(image)),
    },
    Check {
        name: CheckName::Platform,
        judge: |facts, _| of_image(facts, |_, image| platform(image)),
    },
    Check {
        name: CheckName::License,
        judge: |facts, _| of_image(facts, |_, image| license(image)),
    },
    Check {
        name: CheckName::DiskSize,
        judge: |facts, _| of_image(facts, |facts, image| disk_size(image, facts.request.scope)),
    },
    Check {
        name: CheckName::DiskCount,
        judge: |facts, _| of_image(facts, |facts, image| disk_count(image, facts.request.scope)),
    },
    Check {
        name: CheckName::Encryption,
        judge: |facts, _| encryption(facts),
    },
    Check {
        name: CheckName::Format,
        judge: |facts, _| format(facts.request.format),
    },
    Check {
        name: CheckName::ImageCopy,
        judge: |facts, _| of_copies(facts),
    },
    Check {
        name: CheckName::BucketRegion,
        judge: |facts, _| bucket_region(facts),
    },
    Check {
        name: CheckName::CosActive,
        judge: |facts, _| cos_active(facts),
    },
    Check {
        name: CheckName::Role,
        judge: |facts, _| role(facts),
    },
    Check {
        name: CheckName::Feature,
        judge: |facts, _| feature(facts),
    },
    Check {
        name: CheckName::Prefix,
        judge: |facts, _| prefix(facts),
    },
    Check {
        name: CheckName::NameCollision,
        judge: name_collision,
    },
    Check {
        name: CheckName::Quota,
        judge: |facts, _| quota(facts),
    },
    Check {
        name: CheckName::DownloadFolder,
        judge: |facts, if_exists| {
            of_landing(facts, |landing| folder(landing, facts.is_reused(if_exists)))
        },
    },
    Check {
        name: CheckName::DownloadRoom,
        judge: |facts, _| of_landing(facts, room),
    },
    Check {
        name: CheckName::DownloadRight,
        judge: |facts, _| of_landing(facts, right),
    },
    Check {
        name: CheckName::Cost,
        judge: |facts, _| cost(facts),
    },
    Check {
        name: CheckName::ServerDryRun,
        judge: |facts, _| server_dry_run(facts),
    },
];

/// Judges `facts`; every check speaks, except those of what was not asked for: the cloud's own dry run,
/// a download, a copy of the image, and a limit on the price.
#[must_use]
pub(crate) fn judge(facts: &Facts, if_exists: IfExists) -> Vec<Finding> {
    let asked = |check: &&Check| match check.name {
        CheckName::ServerDryRun => !matches!(facts.dry_run, Fact::NotAsked),
        CheckName::DownloadFolder | CheckName::DownloadRoom | CheckName::DownloadRight => {
            facts.landing.is_some()
        }
        CheckName::ImageCopy => facts.copy.is_some(),
        CheckName::Cost => {
            let cost = facts.cost.as_ref();
            cost.is_some_and(|cost| cost.budget.limit.is_some())
        }
        _ => true,
    };
    let rows = CHECKS.iter().filter(asked);
    rows.map(|check| finding(check.name, (check.judge)(facts, if_exists)))
        .collect()
}

/// The checks that concern bucket, role and account, whatever the image.
const WITHOUT_IMAGE: &[CheckName] = &[
    CheckName::BucketRegion,
    CheckName::CosActive,
    CheckName::Role,
    CheckName::Quota,
];

/// Judges what is true of every export to a bucket, or of the account where none was named; no image was
/// looked up.
#[must_use]
pub(crate) fn judge_destination(facts: &Facts) -> Vec<Finding> {
    let rows = CHECKS
        .iter()
        .filter(|check| WITHOUT_IMAGE.contains(&check.name))
        .filter(|check| {
            let has_bucket = !matches!(facts.bucket, Fact::NotAsked);
            check.name != CheckName::BucketRegion || has_bucket
        });
    rows.map(|check| finding(check.name, (check.judge)(facts, IfExists::default())))
        .collect()
}

/// Judges the role alone.
#[must_use]
pub(super) fn judge_role(facts: &Facts) -> Finding {
    finding(CheckName::Role, role(facts))
}

/// Judges what an image alone tells, for lists of images.
#[must_use]
pub fn check_image(image: &Image, scope: DiskScope) -> Vec<Finding> {
    vec![
        finding(CheckName::ImageType, image_type(image)),
        finding(CheckName::ImageState, image_state(image)),
        finding(CheckName::Platform, platform(image)),
        finding(CheckName::License, license(image)),
        finding(CheckName::DiskSize, disk_size(image, scope)),
        finding(CheckName::DiskCount, disk_count(image, scope)),
    ]
}

fn finding(check: CheckName, judgement: Judgement) -> Finding {
    let Judgement {
        verdict,
        evidence,
        remedy,
    } = judgement;
    Finding {
        check,
        verdict,
        evidence,
        remedy,
    }
}

fn format(format: ImageFormat) -> Judgement {
    match format {
        ImageFormat::Raw => pass("raw: each file is as large as its disk"),
        ImageFormat::Qcow2 => pass("qcow2: the files' sizes are not known beforehand"),
        ImageFormat::Vhd | ImageFormat::Vmdk => warn(
            format!("{format}: which subtype the exporter writes is not documented"),
            "use `--format raw` where the reader is picky, and convert with `qemu-img convert`",
        ),
    }
}

fn bucket_region(facts: &Facts) -> Judgement {
    let (bucket, region) = (&facts.request.bucket, &facts.request.region);
    let listed = facts.buckets.known().and_then(|buckets| {
        buckets
            .iter()
            .find(|entry| entry.name == *bucket)
            .map(|entry| &entry.region)
    });
    let image = match facts.image {
        Fact::NotAsked => "not",
        _ => "the image",
    };
    let elsewhere = |actual: &crate::model::Region| {
        fail(
            format!("bucket `{bucket}` is in {actual}, {image} in {region}"),
            format!(
                "use a bucket of {region}, or an image of {actual} with `--region {actual}`; `--copy-to-bucket-region` \
                 exports a copy that is made in {actual}"
            ),
        )
    };
    if let (Fact::Known(None), [found, ..]) = (&facts.image, facts.found_in.as_slice()) {
        return fail(
            format!("bucket `{bucket}` is looked for in {region}, and the image is in {found}"),
            format!(
                "use a bucket of {found} with `--region {found}`; `--copy-to-bucket-region` exports a copy of the \
                 image"
            ),
        );
    }
    match (&facts.bucket, listed) {
        (_, Some(actual)) if actual != region => elsewhere(actual),
        (Fact::Known(Some(head)), _) => match &head.region {
            Some(actual) if actual != region => elsewhere(actual),
            _ => pass(format!("bucket `{bucket}` is in {region}")),
        },
        (_, Some(_)) => pass(format!("bucket `{bucket}` is listed in {region}")),
        (Fact::Known(None), None) => fail(
            format!("there is no bucket `{bucket}` in {region}"),
            refusals::BUCKET,
        ),
        (other, None) => unseen(
            other,
            "allow `name/cos:HeadBucket` on the bucket or `name/cos:GetService`",
        ),
    }
}

fn cos_active(facts: &Facts) -> Judgement {
    let refused = [facts.bucket.why_unknown(), facts.buckets.why_unknown()];
    let unpaid = refused
        .into_iter()
        .flatten()
        .find(|reason| UNPAID.iter().any(|sign| reason.contains(sign)));
    if let Some(reason) = unpaid {
        return fail(
            format!("COS does not serve the account: {reason}"),
            "settle the account's balance in the billing console, then look into the COS console",
        );
    }
    match (&facts.bucket, &facts.buckets) {
        (Fact::Known(Some(_)), _) => pass("COS answers for the bucket"),
        (_, Fact::Known(buckets)) if buckets.is_empty() => fail(
            "the account has no bucket at all",
            "activate COS in its console and create a bucket in the image's region",
        ),
        (Fact::NotAsked, Fact::Known(buckets)) => pass(format!("COS lists {}", listed(buckets))),
        (_, Fact::Known(buckets)) => pass(format!("COS lists {} buckets", buckets.len())),
        (_, other) => unseen(
            other,
            "allow `name/cos:HeadBucket` on the bucket or `name/cos:GetService`",
        ),
    }
}

/// Buckets with their regions, the first ones of many.
fn listed(buckets: &[BucketEntry]) -> String {
    /// As many fit on a few lines of a terminal.
    const SHOWN: usize = 10;
    let shown = buckets.iter().take(SHOWN);
    let mut names: Vec<String> = shown
        .map(|entry| format!("{} ({})", entry.name, entry.region))
        .collect();
    if buckets.len() > SHOWN {
        names.push(format!("and {} more", buckets.len() - SHOWN));
    }
    names.join(", ")
}

fn feature(facts: &Facts) -> Judgement {
    match &facts.dry_run {
        Fact::Known(DryRun::Accepted) => pass("the cloud accepts a dry run"),
        Fact::Known(DryRun::Refused { code, .. }) => match Refusal::of(code.as_str()) {
            Some(refusal) if refusal.check == CheckName::Feature => {
                fail(format!("{} ({code})", refusal.meaning), refusal.remedy)
            }
            _ => pass("the cloud's dry run finds fault with something else"),
        },
        _ => unknown(
            "no call tells whether the account may export images",
            "`cvm-export check` asks the cloud by a dry run; accounts that are refused apply by a ticket",
        ),
    }
}

fn prefix(facts: &Facts) -> Judgement {
    if let Err(problem) = &facts.files {
        return fail(
            problem.clone(),
            "choose a shorter `--prefix`: a key has at most 850 bytes",
        );
    }
    match &facts.request.prefix {
        None => pass("no prefix: the files' names start with the image's id"),
        Some(prefix) if prefix.as_str().contains('/') => warn(
            format!(
                "`{prefix}` holds a slash, which makes a folder; whether the exporter takes it is not documented"
            ),
            "use a prefix without a slash if the cloud refuses this one",
        ),
        Some(prefix) => pass(format!("the files' names start with `{prefix}_`")),
    }
}

/// What is said of an export that exists already.
fn already_exported(record: &Record) -> String {
    match (record.state(), record.completed_at) {
        (RecordState::Complete, Some(time)) => format!(
            "already exported, complete since {}",
            time.format("%Y-%m-%d %H:%M UTC")
        ),
        (RecordState::Complete, None) => "already exported".to_owned(),
        _ => "an export of this image is running under these names".to_owned(),
    }
}

fn name_collision(facts: &Facts, if_exists: IfExists) -> Judgement {
    let watched: BTreeSet<_> = facts.objects.keys().collect();
    let standing: Vec<String> = facts
        .objects
        .iter()
        .filter(|(_, fact)| matches!(fact, Fact::Known(Some(_))))
        .map(|(key, _)| format!("`{key}`"))
        .collect();
    let growing: Vec<String> = facts
        .uploads
        .known()
        .into_iter()
        .flat_map(|list| &list.uploads)
        .filter(|upload| watched.contains(&upload.key))
        .map(|upload| format!("`{}` (being uploaded)", upload.key))
        .collect();
    let is_growing = !growing.is_empty();
    if if_exists == IfExists::Reuse {
        match &facts.existing {
            Existing::Exported(record) => return pass(already_exported(record)),
            Existing::Strange(problem) => {
                return fail(
                    format!(
                        "existing files are not proven to be a whole export of this image: {problem}"
                    ),
                    "choose another `--prefix`, or replace them with `--if-exists overwrite`",
                );
            }
            Existing::Nothing => {}
        }
    }
    if !standing.is_empty() || is_growing {
        let evidence = format!(
            "the bucket already holds {}",
            [standing, growing].concat().join(", ")
        );
        let proven = facts
            .claim
            .known()
            .and_then(Option::as_ref)
            .is_some_and(|claim| {
                matches!(
                    claim.state(),
                    RecordState::Submitted | RecordState::Complete
                )
            });
        return match if_exists {
            _ if is_growing => fail(
                evidence,
                "choose another `--prefix`; it may be an export that runs: wait for it with `cvm-export wait --bucket BUCKET KEY`, or \
                 take it with `--if-exists reuse`; an upload that nobody finishes is aborted in the console",
            ),
            IfExists::Overwrite => warn(
                evidence,
                "the export replaces it, as `--if-exists overwrite` says",
            ),
            IfExists::Fail | IfExists::Reuse if proven => fail(
                evidence,
                "it is an earlier export of this image: take it with `--if-exists reuse`, replace it with \
                 `--if-exists overwrite`, or choose another `--prefix`",
            ),
            IfExists::Fail | IfExists::Reuse => fail(
                evidence,
                "choose another `--prefix`, or replace it with `--if-exists overwrite`",
            ),
        };
    }
    let blind = facts.objects.values().find_map(Fact::why_unknown);
    match (facts.objects.is_empty(), blind) {
        (true, _) => unknown(
            "the files' names are not known, so nothing was looked for",
            "a file of the same name would be replaced",
        ),
        (false, Some(reason)) => unknown(
            reason,
            "allow `name/cos:HeadObject` and `name/cos:GetBucket`, or a file of the same name may be replaced unseen",
        ),
        (false, None) if matches!(facts.claim, Fact::NotPermitted(_) | Fact::NoAnswer(_)) => {
            unknown(
                format!(
                    "the record of an earlier run could not be read ({})",
                    facts.claim.why_unknown().unwrap_or_default()
                ),
                "allow `name/cos:GetObject`, or an export that another machine has started may be missed",
            )
        }
        (false, None) => free_names(facts),
    }
}

/// Nothing has the names of the export; two machines at once are told apart where the bucket refuses to overwrite.
fn free_names(facts: &Facts) -> Judgement {
    let evidence = match facts.uploads.why_unknown() {
        None => "no existing object or upload has these names".to_owned(),
        Some(reason) => format!(
            "no existing object has these names; unfinished uploads could not be seen ({reason})"
        ),
    };
    match &facts.versioning {
        Fact::Known(Versioning::Enabled | Versioning::Suspended) => warn(
            format!(
                "{evidence}; versioning is or was on, so the bucket does not refuse to overwrite, and two machines that \
                 start the same export in the same second may both submit it"
            ),
            "use a bucket that never kept versions, or start each export on one machine",
        ),
        Fact::NotPermitted(_) | Fact::NoAnswer(_) => pass(format!(
            "{evidence}; whether versioning was ever on is unknown (allow `name/cos:GetBucketVersioning`)"
        )),
        Fact::Known(Versioning::Off) | Fact::NotAsked => pass(evidence),
    }
}

fn quota(facts: &Facts) -> Judgement {
    match facts.running_exports {
        0 => pass("no running export is known on this machine"),
        running => warn(
            format!(
                "exports that run as far as this machine knows: {running}; the account's limit is not published"
            ),
            "the submit waits when the limit is reached; `--no-queue` does not wait",
        ),
    }
}

fn cost(facts: &Facts) -> Judgement {
    let Some(cost) = &facts.cost else {
        return pass("no limit is set");
    };
    let total = cost.total();
    // That the image may not be seen is no verdict on its price.
    if cost.estimate.is_err() {
        return unknown(
            total.reason.unwrap_or_default(),
            "see the checks of the image, or leave `--max-cost` out",
        );
    }
    match cost.budget.require(&total) {
        // A limit holds what is known alone, so there is an upper end.
        Ok(()) => pass(format!(
            "it costs at most {} {}",
            total.high.unwrap_or_default(),
            cost.budget.prices.currency()
        )),
        Err(over) => fail(over.evidence, over.remedy),
    }
}

fn server_dry_run(facts: &Facts) -> Judgement {
    match &facts.dry_run {
        Fact::Known(DryRun::Accepted) => pass("the cloud would accept the export"),
        Fact::Known(DryRun::Refused { code, message }) => match Refusal::of(code.as_str()) {
            Some(refusal) if refusal.later == Later::WhenOthersFinish => warn(
                format!("{} ({code}: {message})", refusal.meaning),
                refusal.remedy,
            ),
            Some(refusal) => fail(
                format!("{} ({code}: {message})", refusal.meaning),
                with_command(facts, refusal.remedy),
            ),
            None => fail(
                format!("the cloud would refuse the export ({code}: {message})"),
                "look the code up on the ExportImages page of the CVM API documentation",
            ),
        },
        other => unseen(
            other,
            "allow `cvm:ExportImages`; nothing is started by a dry run",
        ),
    }
}

#[cfg(test)]
mod tests;
