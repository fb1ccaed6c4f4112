//! What earlier runs and other machines left for the same export: a claim that may still run, and
//! files that stand or grow under its names.

use chrono::{DateTime, Utc};

use crate::cloud::cos::ObjectMeta;
use crate::error::{Error, ErrorKind};
use crate::export::journal::Journal;
use crate::export::preflight::PreflightReport;
use crate::export::record::{Record, RecordState, finish};

/// The claim of an export that may be running, unless this machine's journal knows its end.
pub(crate) fn live_claim(
    journal: &Journal,
    report: &PreflightReport,
) -> Result<Option<Record>, Error> {
    let Some(claim) = report.claim().filter(|claim| claim.state.is_live()) else {
        return Ok(None);
    };
    let own = journal.load(&claim.export_id)?;
    Ok(own
        .is_none_or(|own| own.state.is_live())
        .then(|| claim.clone()))
}

/// For `--if-exists skip`: the record of files that stand or grow in the bucket and are proven to be
/// this image's, by their record or by the API's name; `None` when there is nothing.
///
/// `record` is the one that a new export would begin with.
pub(crate) fn settle(
    journal: &Journal,
    report: &PreflightReport,
    mut record: Record,
    now: DateTime<Utc>,
) -> Result<Option<Record>, Error> {
    let facts = &report.facts;
    let earlier = match report.claim() {
        Some(claim) => Some(claim.clone()),
        None => journal.find(&facts.request.identity())?,
    };
    let earlier = earlier.filter(|record| record.state == RecordState::Complete);
    let is_recorded = |object: &ObjectMeta| {
        let objects = earlier.iter().flat_map(|record| &record.files);
        objects
            .filter_map(|file| file.object.as_ref())
            .any(|recorded| recorded.key == object.key && recorded.etag == object.etag)
    };
    record.earlier_uploads.clear();
    let growing: Vec<_> = facts
        .uploads
        .known()
        .into_iter()
        .flat_map(|list| &list.uploads)
        .map(|upload| &upload.key)
        .collect();
    let (mut complete, mut running, mut unproven) = (0, 0, Vec::new());
    for file in &mut record.files {
        let api_name = file.names.first().map(|name| name.key.clone());
        let objects = file
            .names
            .iter()
            .filter_map(|name| facts.objects.get(&name.key)?.known()?.as_ref());
        let (proven, other): (Vec<_>, Vec<_>) = objects
            .partition(|object| Some(&object.key) == api_name.as_ref() || is_recorded(object));
        unproven.extend(other.iter().map(|object| object.key.clone()));
        if let Some(object) = proven.first() {
            file.object = Some((*object).clone().into());
            complete += 1;
        } else if api_name.is_some_and(|name| growing.contains(&&name)) {
            running += 1;
        }
    }
    if complete == 0 && running == 0 && unproven.is_empty() {
        return Ok(None);
    }
    if complete + running < record.files.len() || !unproven.is_empty() {
        let image_id = &facts.request.image_id;
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("what stands in the bucket is not proven to be a whole export of image `{image_id}`; nothing was submitted"),
        )
        .with_hint("choose another `--prefix`, or replace what is there with `--if-exists overwrite`")
        .with_findings(report.findings.clone()));
    }
    record.state = RecordState::Submitted;
    if running == 0 {
        finish(&mut record, now);
    }
    Ok(Some(record))
}
