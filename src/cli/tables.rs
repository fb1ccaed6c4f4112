//! Lists for people as aligned columns without borders, so that `grep` and `awk` read them as well.

use comfy_table::{Table, presets};
use cvm_export::export::{ExportOutcome, OutcomeState};
use cvm_export::model::{Finding, ImageId, Verdict};

use crate::cli::commands::images::Listed;

/// What the checks found about one image, or about a bucket alone.
pub(crate) fn findings(image_id: Option<&ImageId>, findings: &[Finding]) -> String {
    let mut table = plain(&["IMAGE", "CHECK", "VERDICT", "EVIDENCE"]);
    for finding in findings {
        table.add_row([
            image_id.map_or_else(|| "-".to_owned(), ToString::to_string),
            finding.check.to_string(),
            finding.verdict.to_string(),
            finding.evidence.clone(),
        ]);
    }
    text(&table)
}

/// Exports, and how far each one is.
pub(crate) fn exports(outcomes: &[ExportOutcome]) -> String {
    let mut table = plain(&["EXPORT", "STATE", "IMAGE", "BUCKET", "FILES", "SUBMITTED"]);
    for outcome in outcomes {
        let done = outcome
            .files
            .iter()
            .filter(|file| file.size_bytes.is_some())
            .count();
        let submitted = outcome
            .submitted_at
            .map(|time| time.format("%Y-%m-%d %H:%M:%SZ").to_string());
        table.add_row([
            outcome
                .export_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            state(outcome.state).to_owned(),
            outcome
                .image_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            outcome.bucket.to_string(),
            format!("{done}/{}", outcome.files.len()),
            submitted.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text(&table)
}

/// Images, and what each would refuse.
pub(crate) fn images(items: &[Listed]) -> String {
    let mut table = plain(&[
        "IMAGE",
        "NAME",
        "SYSTEM",
        "STATE",
        "DISKS",
        "GB",
        "EXPORTABLE",
    ]);
    for item in items {
        let refused: Vec<&str> = item
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Fail)
            .map(|finding| finding.check.as_str())
            .collect();
        let exportable = match item.exportable {
            Some(true) => "yes".to_owned(),
            Some(false) => format!("no: {}", refused.join(", ")),
            None => "not known".to_owned(),
        };
        table.add_row([
            item.image_id.to_string(),
            item.image_name.to_string(),
            item.os_name.to_string(),
            item.state.to_string(),
            item.disks.to_string(),
            item.disk_gib.to_string(),
            exportable,
        ]);
    }
    text(&table)
}

fn state(state: OutcomeState) -> &'static str {
    match state {
        OutcomeState::Checked => "checked",
        OutcomeState::Submitted => "submitted",
        OutcomeState::Running => "running",
        OutcomeState::Complete => "complete",
        OutcomeState::Failed => "failed",
        OutcomeState::Unknown => "unknown",
    }
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn text(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}
