//! Every precondition of an export: looked up once, judged by pure functions, reported whole.

mod account;
mod checks;
mod facts;
mod landing;

pub use account::{AccountQuestion, AccountReport, Keys, check_account, check_role};
pub use checks::check_image;
pub(crate) use checks::judge;
pub use facts::{AttachedPolicy, DryRun, Existing, Fact, Facts, disks, fetch_image};
pub(crate) use facts::{
    GatherOptions, RowFact, RowTrouble, fetch_attached, fetch_documents, find_elsewhere, gather,
    says_no_such_role,
};
pub use landing::LandingFacts;

use crate::error::{Error, ErrorKind};
use crate::export::record::Record;
use crate::model::{CheckName, Finding, ImageId, Verdict};

/// What was found about one image and its way to a bucket, or about the account.
#[derive(Clone, Debug)]
pub struct PreflightReport {
    /// What was looked up.
    pub facts: Facts,
    /// All findings, in table order.
    pub findings: Vec<Finding>,
}

/// Checks that stop the export when their answer cannot be seen: going on blindly would end in the
/// refusal, or the bill, that they are there to prevent.
const MUST_BE_KNOWN: &[CheckName] = &[
    CheckName::Platform,
    CheckName::DiskSize,
    CheckName::DiskCount,
    CheckName::ImageCopy,
    CheckName::BucketRegion,
    CheckName::Cost,
];

/// What an export may do about files that already have its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// Take them as the result if it is proven that they are this image's export; else refuse.
    #[default]
    Reuse,
    /// Refuse.
    Fail,
    /// Export over them.
    Overwrite,
}

impl PreflightReport {
    /// The image; `None` where the account was checked and no image.
    #[must_use]
    pub fn image_id(&self) -> Option<&ImageId> {
        match self.facts.image {
            Fact::NotAsked => None,
            _ => Some(&self.facts.request.image_id),
        }
    }

    /// Whether the export can go ahead: `None` where something that must be known is not, such as the
    /// image.
    #[must_use]
    pub fn exportable(&self, skipped: &[CheckName]) -> Option<bool> {
        match self.obstacle(skipped) {
            None if self.image_id().is_none() => None,
            None => Some(true),
            Some(Obstacle::Failed | Obstacle::CostsTooMuch) => Some(false),
            Some(Obstacle::NotKnown { .. }) => None,
        }
    }

    fn obstacle(&self, skipped: &[CheckName]) -> Option<Obstacle> {
        let counted = || {
            self.findings
                .iter()
                .filter(|finding| !skipped.contains(&finding.check))
        };
        let mut failed = counted().filter(|finding| finding.verdict == Verdict::Fail);
        if let Some(first) = failed.next() {
            let is_cost = |finding: &Finding| finding.check == CheckName::Cost;
            return Some(match is_cost(first) && failed.all(is_cost) {
                true => Obstacle::CostsTooMuch,
                false => Obstacle::Failed,
            });
        }
        let is_blind = |finding: &&Finding| {
            finding.verdict == Verdict::Unknown && MUST_BE_KNOWN.contains(&finding.check)
        };
        counted()
            .any(|finding| is_blind(&finding))
            .then_some(Obstacle::NotKnown {
                // A missing right and a missing answer are mended in different ways.
                may_not_look: matches!(self.facts.image, Fact::NotPermitted(_))
                    || matches!(self.facts.bucket, Fact::NotPermitted(_)),
            })
    }

    /// Stops an export whose checks do not allow it.
    ///
    /// # Errors
    /// [`ErrorKind::Precondition`] when a check failed, [`ErrorKind::Permission`] when one that must
    /// be known is not: it may not be looked at, or gave no usable answer.
    pub fn require(&self, skipped: &[CheckName]) -> Result<(), Error> {
        let (subject, refusal) = match self.image_id() {
            Some(image_id) => (format!("image `{image_id}`"), "cannot be exported as asked"),
            None if matches!(self.facts.bucket, Fact::NotAsked) => {
                ("the account".to_owned(), "cannot export images as it is")
            }
            None => (
                format!("bucket `{}`", self.facts.request.bucket),
                "cannot take an export as asked",
            ),
        };
        let (kind, message, hint) = match self.obstacle(skipped) {
            None => return Ok(()),
            Some(Obstacle::CostsTooMuch) => (
                ErrorKind::Precondition,
                format!("{subject} {refusal}; nothing was submitted"),
                "raise `--max-cost`, or leave it out; `cvm-export estimate` shows the parts",
            ),
            Some(Obstacle::Failed) => (
                ErrorKind::Precondition,
                format!("{subject} {refusal}; nothing was submitted"),
                "mend what is marked `fail` above; the same command with `--dry-run`, or `cvm-export check`, looks again without \
                 submitting",
            ),
            Some(Obstacle::NotKnown { may_not_look: true }) => (
                ErrorKind::Permission,
                format!(
                    "what must be known about {subject} may not be looked at; nothing was submitted"
                ),
                "`cvm-export check --print-policy` prints the rights that are needed; \
                 `--skip-check NAME` goes on without a check",
            ),
            Some(Obstacle::NotKnown {
                may_not_look: false,
            }) => (
                ErrorKind::Permission,
                format!(
                    "what must be known about {subject} got no usable answer; nothing was submitted"
                ),
                "try again; `--skip-check NAME` goes on without a check",
            ),
        };
        Err(Error::new(kind, message)
            .with_hint(hint)
            .with_findings(self.findings.clone()))
    }

    /// Stops a download of files that exist already and that could not be fetched.
    ///
    /// # Errors
    /// As [`Self::require`].
    pub(crate) fn require_for_download(&self, skipped: &[CheckName]) -> Result<(), Error> {
        let concerns_download = |check: &CheckName| {
            let of_download = [
                CheckName::DownloadFolder,
                CheckName::DownloadRoom,
                CheckName::DownloadRight,
            ];
            of_download.contains(check)
        };
        let others = CheckName::ALL
            .iter()
            .filter(|check| !concerns_download(check));
        self.require(&[skipped, &others.copied().collect::<Vec<_>>()].concat())
    }

    /// The claim, where it speaks of the same export.
    #[must_use]
    pub fn claim(&self) -> Option<&Record> {
        let claim = self.facts.claim.known()?.as_ref()?;
        (claim.identity() == self.facts.request.identity() && claim.names_itself()).then_some(claim)
    }
}

#[derive(Clone, Copy, Debug)]
enum Obstacle {
    Failed,
    /// Nothing else is in the way, and `check` does not look at that.
    CostsTooMuch,
    NotKnown {
        may_not_look: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::record::RecordState;
    use crate::export::samples;
    use crate::model::CheckName::{
        self, BucketRegion, Cost, DiskCount, DiskSize, ImageCopy, Platform, Quota, Role,
    };
    use Verdict::{Fail, Pass, Unknown, Warn};

    const BLOCKING: [CheckName; 6] = [Platform, DiskSize, DiskCount, ImageCopy, BucketRegion, Cost];

    /// A report in which every check passes, but those of `verdicts`.
    fn report(verdicts: &[(CheckName, Verdict)]) -> PreflightReport {
        let verdict = |check| {
            verdicts
                .iter()
                .find(|(name, _)| *name == check)
                .map_or(Pass, |(_, verdict)| *verdict)
        };
        let findings = CheckName::ALL.iter().map(|check| Finding {
            check: *check,
            verdict: verdict(*check),
            evidence: format!("evidence of {check}"),
            remedy: None,
        });
        let facts = Facts {
            image: Fact::Known(None),
            ..Facts::not_asked(samples::request())
        };
        PreflightReport {
            facts,
            findings: findings.collect(),
        }
    }

    fn kind(report: &PreflightReport, skipped: &[CheckName]) -> Option<ErrorKind> {
        report.require(skipped).err().map(|error| error.kind())
    }

    #[test]
    fn passes_and_warnings_let_the_export_go() {
        assert_eq!(
            (report(&[]).exportable(&[]), kind(&report(&[]), &[])),
            (Some(true), None)
        );
        for check in CheckName::ALL {
            let report = report(&[(*check, Warn)]);
            assert_eq!(
                (report.exportable(&[]), kind(&report, &[])),
                (Some(true), None),
                "asked: {check} warns"
            );
        }
    }

    #[test]
    fn any_failed_check_stops_the_export_unless_it_is_skipped_by_its_name() {
        for check in CheckName::ALL {
            let report = report(&[(*check, Fail)]);
            assert_eq!(report.exportable(&[]), Some(false), "asked: {check} fails");
            assert_eq!(
                kind(&report, &[]),
                Some(ErrorKind::Precondition),
                "asked: {check} fails"
            );
            let others: Vec<CheckName> = CheckName::ALL
                .iter()
                .copied()
                .filter(|name| name != check)
                .collect();
            assert_eq!(
                report.exportable(&others),
                Some(false),
                "asked: {check} fails, all others are skipped"
            );
            assert_eq!(
                report.exportable(&[*check]),
                Some(true),
                "asked: {check} fails and is skipped"
            );
            assert_eq!(
                kind(&report, &[*check]),
                None,
                "asked: {check} fails and is skipped"
            );
        }
    }

    #[test]
    fn what_is_not_known_stops_the_export_only_where_it_must_be_known() {
        for check in CheckName::ALL {
            let report = report(&[(*check, Unknown)]);
            let is_blocking = BLOCKING.contains(check);
            let expected = if is_blocking { None } else { Some(true) };
            assert_eq!(
                report.exportable(&[]),
                expected,
                "asked: {check} is unknown"
            );
            assert_eq!(
                kind(&report, &[]).is_some(),
                is_blocking,
                "asked: {check} is unknown"
            );
            assert_eq!(
                report.exportable(&[*check]),
                Some(true),
                "asked: {check} is unknown and skipped"
            );
            assert_eq!(
                kind(&report, &[*check]),
                None,
                "asked: {check} is unknown and skipped"
            );
        }
    }

    #[test]
    fn a_failure_weighs_more_than_what_is_not_known() {
        let report = report(&[(Platform, Unknown), (Quota, Fail), (Role, Unknown)]);
        assert_eq!(report.exportable(&[]), Some(false));
        assert_eq!(kind(&report, &[]), Some(ErrorKind::Precondition));
        assert_eq!(
            report.exportable(&[Quota]),
            None,
            "asked: the failure is skipped, the platform is still unknown"
        );
        assert_eq!(report.exportable(&[Quota, Platform]), Some(true));
    }

    #[test]
    fn a_missing_right_and_a_missing_answer_are_mended_in_different_ways() {
        type Case<'a> = (&'a str, fn(&mut Facts), &'a str);
        let cases: [Case<'_>; 4] = [
            (
                "image denied",
                |facts| facts.image = Fact::NotPermitted("no".to_owned()),
                "--print-policy",
            ),
            (
                "bucket denied",
                |facts| facts.bucket = Fact::NotPermitted("no".to_owned()),
                "--print-policy",
            ),
            (
                "image silent",
                |facts| facts.image = Fact::NoAnswer("reset".to_owned()),
                "try again",
            ),
            (
                "role denied",
                |facts| facts.role = Fact::NotPermitted("no".to_owned()),
                "try again",
            ),
        ];
        for (asked, change, expected) in cases {
            let mut report = report(&[(DiskSize, Unknown)]);
            change(&mut report.facts);
            let error = report.require(&[]).expect_err(asked);
            assert_eq!(error.kind(), ErrorKind::Permission, "asked: {asked}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(expected), "asked: {asked}, seen: {hint}");
        }
    }

    #[test]
    fn a_refusal_carries_every_finding_and_says_that_nothing_was_submitted() {
        for verdict in [Fail, Unknown] {
            let report = report(&[(DiskSize, verdict), (Role, Fail)]);
            let error = report.require(&[Role]).expect_err("the disk stops it");
            assert_eq!(error.findings(), report.findings, "skipped ones included");
            let text = error.to_string();
            assert!(
                text.contains("`img-1`") && text.contains("nothing was submitted"),
                "{text}"
            );
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| verdict == Fail || hint.contains("--skip-check")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_claim_counts_only_where_it_speaks_of_the_same_export() {
        let mut own = samples::record(&samples::request(), &[50]);
        own = own.in_state(RecordState::Submitted);
        let mut strangers = vec![own.clone(), own.clone(), own.clone(), own.clone()];
        strangers[0].image_id = "img-2".parse().expect("image id");
        strangers[1].bucket = "c-1250000000".parse().expect("bucket");
        strangers[2].prefix = None;
        strangers[3].format = crate::model::ImageFormat::Vhd;
        let claim = |fact| {
            let mut report = report(&[]);
            report.facts.claim = fact;
            report.claim().map(|claim| claim.export_id.clone())
        };
        assert_eq!(claim(Fact::Known(Some(own.clone()))), Some(own.export_id));
        for stranger in strangers {
            let identity = stranger.identity();
            assert_eq!(
                claim(Fact::Known(Some(stranger))),
                None,
                "asked: {identity:?}"
            );
        }
        assert_eq!(claim(Fact::Known(None)), None);
        assert_eq!(claim(Fact::NotAsked), None);
    }
}
