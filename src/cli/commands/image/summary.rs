//! The end of a run over several images: the results in the order asked for, and the last lines.

use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{ExportOutcome, OutcomeState};
use cvm_export::model::{Finding, ImageId, Verdict};
use serde::Serialize;

use super::{Context, Exit, Finished};
use crate::cli::partial::Partial;
use crate::cli::printer::{Loudness, Output, console_link, size};
use crate::cli::totals::Totals;

/// The results of several exports, in the order asked for.
#[derive(Serialize)]
struct Outcomes {
    schema: &'static str,
    totals: Totals,
    items: Vec<Item>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Outcome(Box<ExportOutcome>),
    /// One that came to no outcome.
    Failed(Box<Partial>),
}

/// What the last lines say.
#[derive(Default)]
struct Summary {
    totals: Totals,
    /// Those that can be exported, after a dry run.
    exportable: usize,
    running: usize,
    submitted: usize,
    not_started: usize,
    refused: usize,
    failed: usize,
    unknown: usize,
    not_downloaded: usize,
    /// Why what failed did, a line each.
    reasons: Vec<String>,
}

/// Prints the results and the last lines.
pub(super) fn show(
    images: &[ImageId],
    results: Vec<Result<Finished, Error>>,
    context: &Context<'_>,
) -> Exit {
    let signal = context.signals.received();
    let mut summary = Summary::default();
    let mut exits = Vec::new();
    let mut items = Vec::new();
    let mut console = None;
    for (image_id, result) in images.iter().zip(results) {
        match result {
            Ok(finished) => {
                exits.push(finished.exit(signal));
                show_one(&finished, context);
                summary.count(image_id, &finished);
                if finished.outcome.state == OutcomeState::Complete {
                    console.get_or_insert_with(|| {
                        let link = console_link(&finished.outcome, finished.site);
                        format!("bucket `{}`: {link}", finished.outcome.bucket)
                    });
                }
                items.push(Item::Outcome(Box::new(finished.outcome)));
            }
            Err(error) => {
                show_error(&error, context);
                let exit = Exit::of_error(error.kind(), signal);
                exits.push(exit);
                let printer = context.printer;
                let partial = context.partials.failed(image_id, &error, exit, printer);
                summary.count_error(image_id, &error, partial.state());
                items.push(Item::Failed(Box::new(partial)));
            }
        }
    }
    context.printer.json(&Outcomes {
        schema: "cvm-export.exports.v1",
        totals: summary.totals,
        items,
    });
    if let Some(line) = console {
        context.printer.note(&line);
    }
    summary.show(context);
    exit_of_all(&exits)
}

/// Prints what one export leaves to say at the end. What is over has been told when it ended.
fn show_one(finished: &Finished, context: &Context<'_>) {
    let (printer, outcome) = (context.printer, &finished.outcome);
    printer.keys(outcome);
    if matches!(outcome.state, OutcomeState::Running | OutcomeState::Unknown) {
        printer.outcome(outcome, finished.site);
    }
    if let Some(trouble) = &finished.trouble {
        show_error(trouble, context);
    }
}

/// Prints an error in full: as an object for scripts, and for people where it was not told when it happened.
fn show_error(error: &Error, context: &Context<'_>) {
    let printer = context.printer;
    if printer.output != Output::Text || printer.loudness == Loudness::Quiet {
        printer.error(error, context.signals.received());
    }
}

fn exit_of_all(exits: &[Exit]) -> Exit {
    match exits.iter().find(|exit| matches!(exit, Exit::Signal(_))) {
        Some(interrupted) => *interrupted,
        None if exits.iter().all(|exit| *exit == Exit::Done) => Exit::Done,
        // Nothing failed, something still runs: that is one and the same answer for all.
        None if exits
            .iter()
            .all(|exit| matches!(exit, Exit::Done | Exit::StillRunning)) =>
        {
            Exit::StillRunning
        }
        None => Exit::SomeFailed,
    }
}

impl Summary {
    fn count(&mut self, image_id: &ImageId, finished: &Finished) {
        let outcome = &finished.outcome;
        self.totals.count_outcome(outcome);
        let reason = outcome.reason.as_deref();
        match outcome.state {
            OutcomeState::Checked if outcome.interrupted => self.not_started += 1,
            OutcomeState::Checked => self.exportable += 1,
            OutcomeState::Submitted => self.submitted += 1,
            OutcomeState::Running => self.running += 1,
            OutcomeState::Complete => {}
            OutcomeState::Failed => {
                self.failed += 1;
                self.reasons.push(format!(
                    "{image_id}: {} (safe to run again)",
                    reason.unwrap_or("the export failed")
                ));
            }
            OutcomeState::Unknown => {
                self.unknown += 1;
                self.reasons.push(format!(
                    "{image_id}: {}",
                    reason.unwrap_or("the answer to the submit was lost")
                ));
            }
        }
        if let Some(trouble) = &finished.trouble {
            self.not_downloaded += 1;
            self.reasons
                .push(format!("{image_id}: download: {}", reason_of(trouble)));
        }
    }

    fn count_error(&mut self, image_id: &ImageId, error: &Error, state: OutcomeState) {
        self.totals.count(state);
        match (state, error.kind()) {
            (OutcomeState::Running, _) => self.running += 1,
            (_, ErrorKind::Interrupted) => {
                self.not_started += 1;
                return;
            }
            (
                _,
                ErrorKind::Precondition
                | ErrorKind::Refused
                | ErrorKind::Quota
                | ErrorKind::Permission
                | ErrorKind::Credentials,
            ) => self.refused += 1,
            _ => self.failed += 1,
        }
        self.reasons
            .push(format!("{image_id}: {}", reason_of(error)));
    }

    /// `39 exported (940.00 GiB), 2 refused`
    fn head(&self) -> String {
        let with_size = |(count, bytes): (usize, u64), word: &str| {
            (count > 0).then(|| format!("{count} {word} ({})", size(bytes)))
        };
        let plain = |count: usize, word: &str| (count > 0).then(|| format!("{count} {word}"));
        let parts = [
            with_size(self.totals.exported(), "exported"),
            with_size(self.totals.reused(), "reused"),
            plain(self.exportable, "can be exported"),
            plain(self.submitted, "submitted"),
            plain(self.running, "still running"),
            plain(self.not_started, "not started"),
            plain(self.refused, "refused"),
            plain(self.failed, "failed"),
            plain(self.unknown, "of unknown outcome"),
            plain(self.not_downloaded, "not downloaded"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }

    /// The last lines on stderr. Scripts that asked for quiet have them as `totals` and errors.
    fn show(&self, context: &Context<'_>) {
        let printer = context.printer;
        if self.reasons.is_empty() {
            return printer.note(&self.head());
        }
        if printer.loudness == Loudness::Quiet && printer.output != Output::Text {
            return;
        }
        printer.stderr(&format!("{}:", self.head()));
        for reason in &self.reasons {
            printer.stderr(&format!("  {reason}"));
        }
    }
}

/// Why an export came to nothing, in one line: the checks that failed with what was seen, or the error and
/// its causes.
pub(super) fn reason_of(error: &Error) -> String {
    let failed = checks_with(Verdict::Fail, error.findings());
    if !failed.is_empty() {
        return failed.join("; ");
    }
    let mut parts = vec![error.to_string()];
    let unknown = checks_with(Verdict::Unknown, error.findings());
    if !unknown.is_empty() {
        parts.push(unknown.join("; "));
    }
    parts.extend(error.causes());
    let mut line = parts.join(": ");
    if let Some(id) = error.request_id().filter(|id| !line.contains(id)) {
        line = format!("{line} (request id {id})");
    }
    line
}

/// What to do about `error`; the findings of checks have remedies of their own.
pub(super) fn hint_of(error: &Error) -> Option<String> {
    let hint = error.hint()?;
    checks_with(Verdict::Fail, error.findings())
        .is_empty()
        .then(|| hint.to_owned())
}

/// The findings of one verdict; those that say the same are said as one.
fn checks_with(verdict: Verdict, findings: &[Finding]) -> Vec<String> {
    let mut told: Vec<(String, &str)> = Vec::new();
    for finding in findings {
        if finding.verdict != verdict {
            continue;
        }
        match told
            .iter_mut()
            .find(|(_, evidence)| *evidence == finding.evidence)
        {
            Some((checks, _)) => {
                checks.push_str(", ");
                checks.push_str(finding.check.as_str());
            }
            None => told.push((finding.check.to_string(), &finding.evidence)),
        }
    }
    let lines = told.into_iter();
    lines
        .map(|(checks, evidence)| format!("{checks}: {evidence}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cvm_export::model::CheckName;

    fn finding(check: CheckName, verdict: Verdict, evidence: &str) -> Finding {
        Finding {
            check,
            verdict,
            evidence: evidence.to_owned(),
            remedy: None,
        }
    }

    #[test]
    fn a_reason_is_what_failed_and_what_two_checks_say_alike_is_said_once() {
        let error = Error::new(ErrorKind::Precondition, "cannot be exported").with_hint("look");
        assert_eq!(reason_of(&error), "cannot be exported");
        assert_eq!(hint_of(&error).as_deref(), Some("look"));
        let error = error.with_findings(vec![finding(CheckName::Role, Verdict::Unknown, "denied")]);
        assert_eq!(reason_of(&error), "cannot be exported: role: denied");
        assert_eq!(hint_of(&error).as_deref(), Some("look"));
        let error = error.with_findings(vec![
            finding(CheckName::Platform, Verdict::Fail, "Windows"),
            finding(CheckName::Role, Verdict::Unknown, "denied"),
            finding(CheckName::DiskSize, Verdict::Fail, "too large"),
            finding(CheckName::DiskCount, Verdict::Fail, "Windows"),
        ]);
        assert_eq!(
            reason_of(&error),
            "platform, disk-count: Windows; disk-size: too large"
        );
        assert_eq!(hint_of(&error), None, "the findings have remedies");
    }

    #[test]
    fn an_error_without_findings_is_told_with_its_cause_and_its_request() {
        let cause = std::io::Error::other("the cloud is busy");
        let error = Error::new(ErrorKind::Refused, "refused")
            .with_source(cause)
            .with_request_id(Some("r-1".to_owned()));
        assert_eq!(
            reason_of(&error),
            "refused: the cloud is busy (request id r-1)"
        );
    }
}
