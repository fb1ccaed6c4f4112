//! Lists for people as aligned columns without borders, so that `grep` and `awk` read them as well.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use cvm_export::estimate::{
    Amount, Bounds, Cost, Item as CostItem, Line, PriceTable, PricedUnit, Quantities, Route, Unit,
    UnitPrice, size as at_most,
};
use cvm_export::export::{ExportOutcome, OutcomeState, Proof};
use cvm_export::model::{Finding, ImageId, ObjectKey, Verdict};

use crate::cli::commands::estimate::{Item, Subject, Sums};
use crate::cli::commands::files::Priced;
use crate::cli::commands::images::Listed;
use crate::cli::printer::{plural, size};

/// What the checks found about one image, or about a bucket alone.
pub(crate) fn findings(image_id: Option<&ImageId>, findings: &[Finding]) -> String {
    let header: &[&str] = match image_id {
        Some(_) => &["IMAGE", "CHECK", "VERDICT", "EVIDENCE"],
        None => &["CHECK", "VERDICT", "EVIDENCE"],
    };
    let mut table = plain(header);
    for finding in findings {
        let told = [
            finding.check.to_string(),
            finding.verdict.to_string(),
            finding.evidence.clone(),
        ];
        table.add_row(image_id.map(ToString::to_string).into_iter().chain(told));
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
            state(outcome).to_owned(),
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

/// What each part of each item costs, the total, what storage costs by day and month, and where the
/// prices come from.
pub(crate) fn estimates(items: &[Item], sums: &Sums, prices: &PriceTable, days: u32) -> String {
    let currency = prices.currency().to_string();
    let (low, high) = (format!("LOW {currency}"), format!("HIGH {currency}"));
    let header = ["PART", "CLASS", "QUANTITY", "PRICE", &low, &high];
    let mut rows = Vec::new();
    let mut headings = Vec::new();
    let mut rates = Vec::new();
    for item in items {
        let Quantities { region, route, .. } = &item.estimate.quantities;
        let subject = match &item.subject {
            Subject::Image(image_id) => image_id.to_string(),
            Subject::Object(bucket, key) => format!("cos://{bucket}/{key}"),
        };
        headings.push((rows.len(), format!("{subject} in {region}")));
        for line in &item.estimate.lines {
            let class = line.storage_class.as_ref();
            let class = class.map_or("-", |class| class.as_str());
            rows.push([
                format!("  {}", part(line.item, line.days, *route)),
                class.to_owned(),
                quantity(line),
                price(line, &currency),
                amount(line.cost.low),
                amount(line.cost.high),
            ]);
            if let (Some(day), Some(month)) = (&line.per_day, &line.per_month) {
                rates.push(format!(
                    "{subject}: a day {}, a month {} in {class} of {region}",
                    range(day, &currency),
                    range(month, &currency),
                ));
            }
        }
    }
    let total_row = |name: &str, cost: &Cost| {
        let [class, quantity, price] = ["", "", ""].map(str::to_owned);
        let name = format!("{name}, {currency}");
        [
            name,
            class,
            quantity,
            price,
            amount(cost.low),
            amount(cost.high),
        ]
    };
    headings.push((rows.len(), String::new()));
    let has_download = sums.without_download.is_some();
    if let Some(rest) = &sums.without_download {
        rows.push(total_row("without the download", rest));
    }
    rows.push(total_row("total", &sums.total));
    for column in [4, 5] {
        same_decimals(rows.iter_mut().map(|row| &mut row[column]));
    }
    let mut table = plain(&header);
    for column in [4, 5] {
        to_the_right(&mut table, column);
    }
    table.add_rows(rows);
    let mut lines: Vec<String> = text(&table).lines().map(str::to_owned).collect();
    // From the end, so that the places of the others stay; the first line is the header.
    for (row, heading) in headings.into_iter().rev() {
        lines.insert(row + 1, heading);
    }
    lines.push(String::new());
    lines.extend(rates);
    let total = &sums.total;
    if let Some(reason) = &total.reason {
        let remedy = match total.lacks_price {
            true => " (`--prices FILE` can say)",
            false => "",
        };
        lines.push(format!("unknown: {reason}{remedy}"));
    }
    if let Some(least) = total.known_part_at_least {
        lines.push(format!("the known part costs at least {least} {currency}"));
    }
    if has_download {
        lines.push(
            "the total has the files fetched once; `--download-over none` leaves that out, as `check`, and \
             `image` without `--download`, do"
                .to_owned(),
        );
    }
    let is_stored = |line: &&Line| line.item == CostItem::Storage;
    let mut stored = items
        .iter()
        .flat_map(|item| item.estimate.lines.iter().filter(is_stored));
    if stored.any(|line| line.quantity.low != line.quantity.high) {
        lines.push(
            "the size of such a file is not known beforehand: an empty disk leaves next to nothing, a full \
             one all of it and a little more"
                .to_owned(),
        );
    }
    lines.push(format!(
        "kept for {}; one clean run, without what is sent or fetched again; GiB are what COS calls GB",
        plural(days as usize, "day")
    ));
    lines.push(prices.provenance());
    let notes = prices
        .sheets()
        .iter()
        .filter_map(|sheet| sheet.note.as_ref());
    lines.extend(notes.map(ToString::to_string));
    lines.join("\n")
}

/// Gives all amounts of a column the decimals of the one that has most: none is rounded.
fn same_decimals<'a>(cells: impl Iterator<Item = &'a mut String>) {
    let mut cells: Vec<&mut String> = cells.collect();
    let decimals = |cell: &str| cell.split_once('.').map(|(_, decimals)| decimals.len());
    let most = cells.iter().filter_map(|cell| decimals(cell)).max();
    for cell in &mut cells {
        if let (Some(most), Some(own)) = (most, decimals(cell)) {
            cell.push_str(&"0".repeat(most - own));
        }
    }
}

fn to_the_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn part(item: CostItem, days: Option<u32>, route: Route) -> String {
    let name = match item {
        CostItem::Storage => match days {
            Some(days) => return format!("storage, {}", plural(days as usize, "day")),
            None => "storage",
        },
        CostItem::UploadTraffic => "upload traffic",
        CostItem::ExportRequests => "requests of the export",
        CostItem::CheckRequests => "requests of checks",
        CostItem::WatchRequests => "requests of the watch",
        CostItem::DownloadRequests => "requests of the download",
        // With the acceleration, too, the files leave over the public network, and that is paid for.
        CostItem::DownloadTraffic => match route {
            Route::Internal => "download traffic, internal",
            Route::Public | Route::Acceleration => "download traffic, public",
        },
        CostItem::AccelerationTraffic => "acceleration, on top",
        CostItem::Retrieval => "retrieval",
        CostItem::Restoration => "restoration",
    };
    name.to_owned()
}

fn quantity(line: &Line) -> String {
    let Bounds { low, high } = line.quantity;
    match line.unit {
        Unit::Bytes if low == high => at_most(low),
        Unit::Bytes => format!("{} to {}", at_most(low), at_most(high)),
        Unit::Requests if low == high => low.to_string(),
        Unit::Requests => format!("{low} to {high}"),
    }
}

fn price(line: &Line, currency: &str) -> String {
    let Some(UnitPrice { low, high, unit }) = line.price else {
        let is_free = line.cost.high.is_some();
        return if is_free { "free" } else { "unknown" }.to_owned();
    };
    let unit = match unit {
        PricedUnit::GibMonth => "GiB and month",
        PricedUnit::Gib => "GiB",
        PricedUnit::TenThousandRequests => "10,000 requests",
    };
    if low == high {
        format!("{low} {currency} per {unit}")
    } else {
        format!("{low} to {high} {currency} per {unit}")
    }
}

fn amount(amount: Option<Amount>) -> String {
    amount.map_or_else(|| "unknown".to_owned(), |amount| amount.to_string())
}

pub(crate) fn range(cost: &Cost, currency: &str) -> String {
    match (cost.low, cost.high) {
        (_, None) => match cost.known_part_at_least {
            Some(least) => {
                format!("an unknown amount (the known part at least {least} {currency})")
            }
            None => "an unknown amount".to_owned(),
        },
        (low, high) if low == high => format!("{} {currency}", amount(high)),
        (low, high) => format!("{} to {} {currency}", amount(low), amount(high)),
    }
}

/// Files in buckets, a row for each, and one for an export of which no file is there. `exports` is gone through
/// twice, to measure and to print: no row is kept.
pub(crate) fn files<'a, I: Iterator<Item = Priced<'a>>>(
    exports: impl Fn() -> I,
    currency: &str,
    mut print: impl FnMut(&str),
) {
    const MONTH: usize = 6;
    let month = format!("{currency}/MONTH");
    let header = [
        "EXPORT", "IMAGE", "STATE", "AGE", "SIZE", "CLASS", &month, "GROUP", "KEPT", "PROOF",
        "OBJECT",
    ];
    let mut widths = header.map(str::len);
    let mut decimals = 0;
    for row in exports().flat_map(rows) {
        decimals = decimals.max(decimals_of(&row[MONTH]));
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // Whatever the amounts have, they are shown with the decimals of the one that has most.
    let amounts = exports().flat_map(rows).map(|row| {
        let added = decimals.saturating_sub(decimals_of(&row[MONTH]));
        row[MONTH].len() + if row[MONTH].contains('.') { added } else { 0 }
    });
    widths[MONTH] = amounts.fold(widths[MONTH], usize::max);
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if place == MONTH {
                let _ = write!(line, "{cell:>width$}  ");
            } else {
                let _ = write!(line, "{cell:<width$}  ");
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    let mut text = line(&header.map(str::to_owned));
    for mut row in exports().flat_map(rows) {
        if row[MONTH].contains('.') {
            let added = decimals.saturating_sub(decimals_of(&row[MONTH]));
            row[MONTH].push_str(&"0".repeat(added));
        }
        if text.len() > 64 * 1024 {
            print(&std::mem::take(&mut text));
        } else {
            text.push('\n');
        }
        text.push_str(&line(&row));
    }
    print(&text);
}

fn decimals_of(amount: &str) -> usize {
    let decimals = amount.split_once('.').map(|(_, decimals)| decimals.len());
    decimals.unwrap_or(0)
}

/// The rows of one export in the table of files.
fn rows(priced: Priced<'_>) -> Vec<[String; 11]> {
    let Priced {
        export,
        files,
        number,
        kept,
        ..
    } = priced;
    let or_hyphen = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let start = [
        or_hyphen(export.export_id.as_ref().map(ToString::to_string)),
        or_hyphen(export.image_id.as_ref().map(ToString::to_string)),
        export.state.as_str().to_owned(),
        or_hyphen(export.age_seconds.map(age)),
    ];
    let address = |key: &ObjectKey, version_id: Option<&String>| {
        let version = version_id.map_or_else(String::new, |id| format!("?versionId={id}"));
        format!("cos://{}/{key}{version}", export.bucket)
    };
    let row = |held: [String; 3], proof: &str, object: String| {
        let [id, image, state, age] = start.clone();
        let [size, class, month] = held;
        let (group, kept) = ((number + 1).to_string(), kept.unwrap_or("-").to_owned());
        let proof = proof.to_owned();
        [
            id, image, state, age, size, class, month, group, kept, proof, object,
        ]
    };
    if export.files.is_empty() {
        let record = export.records.first();
        let record = record.map(|record| address(&record.key, record.version_id.as_ref()));
        let nothing = ["-"; 3].map(str::to_owned);
        return vec![row(nothing, "record", or_hyphen(record))];
    }
    let files = export.files.iter().zip(files).map(|(file, cost)| {
        let proof = match file.proof {
            Proof::Record => "record",
            Proof::Image => "image",
            Proof::None => "none",
        };
        let held = [
            size(file.size_bytes),
            file.storage_class.to_string(),
            amount(cost.high),
        ];
        row(held, proof, address(&file.key, file.version_id.as_ref()))
    });
    files.collect()
}

/// An age in its largest whole unit.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn state(outcome: &ExportOutcome) -> &'static str {
    match outcome.state {
        // It was complete once, and its files have been deleted since.
        OutcomeState::Failed if outcome.completed_at.is_some() => "gone",
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
