//! Taking an export up again: an unfinished record, wherever it was found, is looked at and watched.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::attach::{Found, Source};
use super::claim::Claim;
use super::look::Observer;
use super::preflight::IfExists;
use super::record::{Record, RecordState, finish};
use super::request::{DiskScope, ExportRequest};
use super::watch::{TaskState, WatchEnd, WatchOptions, Watched, watch};
use super::{ExportOptions, ExportOutcome, Exporter, OutcomeState, TIMEOUT_BASE, Waiting};
use crate::cloud::cos::CosErrorKind;
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};

/// How long to look for signs of an export of which nobody knows whether it was started.
const SIGN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// What the default timeout adds for each TB of disk: 12 hours.
const TIMEOUT_SECONDS_PER_TB: u64 = 12 * 3600;
/// Longer than any disk takes that can be exported; a size that no disk has must not overflow dates.
const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Exporter {
    /// Looks once whether an export that was submitted before has come to its end, of which nobody has
    /// taken notice yet. `None` when it has, and its files are to be exported over.
    pub(super) async fn still_running(
        &self,
        mut record: Record,
        source: Source,
        request: &ExportRequest,
        options: &ExportOptions,
        waited_since: Option<DateTime<Utc>>,
    ) -> Result<Option<Found>, Error> {
        covers(&record, request.scope, &self.events)?;
        tokio::select! {
            // Whoever is interrupted here attaches, and is interrupted there.
            () = self.cancel.cancelled() => {}
            looked = self.look_once(&mut record) => drop(looked?),
        }
        if record.state == RecordState::Complete {
            let mut claim = Claim::new(options.keep_claim);
            claim.update(&self.cloud, &self.events, &record).await;
            let is_own_twin = waited_since.is_some_and(|begun| record.ended_after(begun));
            // A download that is owed is this very command's, which was interrupted.
            let is_owed = record.owes_download && options.landing.is_some();
            if options.if_exists == IfExists::Overwrite && !is_own_twin && !is_owed {
                return Ok(None);
            }
        }
        Ok(Some(Found::new(record, source)))
    }

    /// The outcome of an export that is complete, and whose files an earlier run was to fetch as this one
    /// is: they stand in the way of no one. `None` where there is no such thing.
    pub(super) async fn still_owed(
        &self,
        record: &Record,
        request: &ExportRequest,
        options: &ExportOptions,
    ) -> Result<Option<ExportOutcome>, Error> {
        let is_owed = record.state == RecordState::Complete
            && record.owes_download
            && options.landing.is_some();
        if !is_owed || options.resubmit {
            return Ok(None);
        }
        covers(record, request.scope, &self.events)?;
        let outcome = tokio::select! {
            () = self.cancel.cancelled() => return Ok(Some(ExportOutcome::never_started(request))),
            outcome = self.still_stands(record) => outcome?,
        };
        Ok((outcome.state == OutcomeState::Complete).then(|| {
            self.tell_attached(record, Source::Journal);
            outcome
        }))
    }

    fn tell_attached(&self, record: &Record, source: Source) {
        self.events.emit(EventKind::Attached {
            export_id: record.export_id.clone(),
            source: source.as_str(),
            reattach: record.reattach(),
        });
    }

    /// The outcome of an export that was complete when it was last looked at: its files may have been
    /// deleted or replaced since.
    pub(super) async fn still_stands(&self, record: &Record) -> Result<ExportOutcome, Error> {
        let cos = self.cloud.cos();
        let objects = record.files.iter().filter_map(|file| file.object.as_ref());
        let looks = objects.map(|object| async move {
            let found = cos
                .head_object(&record.bucket, &record.region, &object.key, None)
                .await;
            (object, found)
        });
        let mut outcome = ExportOutcome::of(record);
        for (object, found) in futures_util::future::join_all(looks).await {
            let key = &object.key;
            match found {
                Ok(Some(seen)) if seen.etag == object.etag => {}
                Ok(Some(_)) => outcome.warnings.push(format!(
                    "`{key}` has been replaced since this export was complete"
                )),
                Ok(None) => outcome.set_gone(match record.removed_at {
                    Some(time) => format!("`cvm-export files rm` deleted `{key}` at {time}"),
                    None => format!("`{key}` is no longer in the bucket"),
                }),
                Err(error) if error.kind() == CosErrorKind::Credentials => return Err(error.into()),
                Err(error) => outcome
                    .warnings
                    .push(format!("`{key}` could not be looked at now ({error})")),
            }
        }
        for warning in &outcome.warnings {
            self.events.warn(warning.clone());
        }
        Ok(outcome)
    }

    /// Tells the files of an export that is complete, or watches one that is not.
    pub(super) async fn finish_or_watch(
        &self,
        found: Found,
        scope: DiskScope,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        if found.record.state == RecordState::Complete {
            self.tell_attached(&found.record, found.source);
        }
        self.take_up(found, scope, options).await
    }

    /// Watches a record that was found.
    pub(super) async fn take_up(
        &self,
        found: Found,
        scope: DiskScope,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        let Found { record, source, .. } = found;
        match record.state {
            RecordState::Complete => return self.still_stands(&record).await,
            RecordState::Failed => return Ok(ExportOutcome::of(&record)),
            RecordState::Queued | RecordState::Refused | RecordState::Abandoned => {
                let message = format!("nothing was submitted under `{}`", record.export_id);
                return Err(Error::new(ErrorKind::Precondition, message)
                    .with_hint("start it with `cvm-export image`"));
            }
            RecordState::Intended | RecordState::Submitted => {}
        }
        covers(&record, scope, &self.events)?;
        self.tell_attached(&record, source);
        // Whether an "intended" export runs must be found out first, also by a run that will not wait.
        if options.waiting == Waiting::Detach && record.state == RecordState::Submitted {
            return Ok(ExportOutcome::of(&record).left_running());
        }
        let timeout = options.timeout.unwrap_or_else(|| default_timeout(&record));
        // What was made up for this wait is nobody's record.
        let is_kept = source != Source::CommandLine;
        let mut claim = Claim::new(is_kept && options.keep_claim);
        let this = if is_kept {
            self.clone()
        } else {
            Self {
                journal: self.journal.muted(),
                ..self.clone()
            }
        };
        let sign_window = match record.state {
            // A person waits for what he named as long as he said; there may be no start to look for.
            RecordState::Intended if source == Source::CommandLine => Some(timeout),
            _ => sign_window(&record),
        };
        this.watch_to_end(record, timeout, sign_window, options, &mut claim)
            .await
    }

    pub(super) async fn watch_to_end(
        &self,
        mut record: Record,
        timeout: Duration,
        sign_window: Option<Duration>,
        how: &ExportOptions,
        claim: &mut Claim,
    ) -> Result<ExportOutcome, Error> {
        record.owes_download |= how.landing.is_some();
        let limit = sign_window.map_or(timeout, |window| window.min(timeout));
        self.events.emit(EventKind::Watching {
            files: record.files.len(),
            deadline: deadline(self.cloud.now(), limit),
        });
        let options = WatchOptions {
            poll: how.poll,
            timeout,
            sign_window,
            only_for_a_sign: how.waiting == Waiting::Detach,
            cancel: self.cancel.clone(),
        };
        let end = watch(
            &self.cloud,
            &self.events,
            &mut record,
            &options,
            async |record| {
                self.keep(record);
            },
        )
        .await
        .map_err(|error| {
            let line = record_line(&record);
            error.with_hint(format!(
                "the export goes on; mend the credentials, then run `{line}`"
            ))
        })?;
        match &end {
            WatchEnd::Complete => finish(&mut record, self.cloud.now()),
            WatchEnd::Failed(_) => record.state = RecordState::Failed,
            WatchEnd::TimedOut | WatchEnd::Interrupted | WatchEnd::Unknown | WatchEnd::Started => {}
        }
        if matches!(end, WatchEnd::Complete | WatchEnd::Failed(_)) {
            self.keep(&record);
            claim.update(&self.cloud, &self.events, &record).await;
        }
        Ok(ExportOutcome::after_watch(&record, end))
    }

    /// Makes a changed record durable; the export does not depend on it any more, so a full disk is
    /// only said.
    fn keep(&self, record: &Record) {
        if let Err(error) = self.journal.save(record) {
            self.events.warn(error.to_string());
        }
    }

    pub(super) async fn look_once(&self, record: &mut Record) -> Result<ExportOutcome, Error> {
        let look = Observer::default().look(&self.cloud, record).await?;
        // Another process may have brought the record further while COS was asked.
        if let Some(current) = self
            .journal
            .load(&record.export_id)?
            .filter(|now| now.state != record.state)
        {
            *record = current;
            return Ok(ExportOutcome::of(record));
        }
        let mut watched = Watched::new(record.files.len());
        let (state, _) = watched.step(record, &look);
        match state {
            TaskState::Complete => {
                finish(record, self.cloud.now());
                self.keep(record);
            }
            _ if record.state == RecordState::Intended && watched.has_evidence(record) => {
                record.state = RecordState::Submitted;
                self.keep(record);
            }
            TaskState::Waiting | TaskState::Failed(_) => {}
        }
        Ok(ExportOutcome::of(record))
    }
}

/// How long to look for signs that the export of `record` was started, where nobody knows.
pub(super) fn sign_window(record: &Record) -> Option<Duration> {
    (record.state == RecordState::Intended).then_some(SIGN_WINDOW)
}

/// Refuses an export that runs and takes fewer disks than asked for: the others will never come.
pub(super) fn covers(record: &Record, scope: DiskScope, events: &Events) -> Result<(), Error> {
    match (record.scope, scope) {
        (DiskScope::SystemDiskOnly, DiskScope::WholeMachine) => Err(Error::new(
            ErrorKind::Precondition,
            format!("the export `{}` is running and takes the system disk alone", record.export_id),
        )
        .with_hint(
            "wait for it with `--system-disk-only`, or export the whole machine under another `--prefix`",
        )),
        (DiskScope::WholeMachine, DiskScope::SystemDiskOnly) => {
            events.warn("the export that is already running takes the data disks, too");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// When `wait` from now is over; the end of the calendar for one that never is.
fn deadline(now: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    let wait = chrono::Duration::from_std(wait).unwrap_or(chrono::Duration::MAX);
    now.checked_add_signed(wait)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn record_line(record: &Record) -> String {
    record.reattach().join(" ")
}

/// The default timeout of an export, by its disks.
pub(super) fn default_timeout(record: &Record) -> Duration {
    let sizes = record.files.iter().filter_map(|file| file.size_gib);
    default_timeout_of(sizes.fold(0, u64::saturating_add))
}

/// 3 hours and 12 hours for each TB of `gib` of disk.
pub(super) fn default_timeout_of(gib: u64) -> Duration {
    let bytes = u128::from(gib) << 30;
    let seconds = bytes * u128::from(TIMEOUT_SECONDS_PER_TB) / 1_000_000_000_000;
    let added = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
    TIMEOUT_BASE
        .saturating_add(added)
        .min(LONGEST_DEFAULT_TIMEOUT)
}
