//! Taking an export up again: an unfinished record, wherever it was found, is looked at and watched.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::attach::{Found, Source};
use super::lease::LeaseState;
use super::look::{Look, Observer};
use super::preflight::IfExists;
use super::progress::Step;
use super::record::{Record, RecordState};
use super::request::{DiskScope, ExportRequest};
use super::tracked::Tracked;
use super::watch::{TaskState, WatchEnd, WatchOptions, Watched, observed, watch};
use super::{ExportOptions, ExportOutcome, Exporter, OutcomeState, TIMEOUT_BASE, Waiting};
use crate::cloud::cos::CosErrorKind;
use crate::error::{Error, ErrorKind, one_line};
use crate::event::{EventKind, Events};

/// How long to look for signs of an export of which nobody knows whether it was started.
pub(super) const SIGN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// What the default timeout adds for each TB of disk: 12 hours.
const TIMEOUT_SECONDS_PER_TB: u64 = 12 * 3600;
/// Longer than any disk takes that can be exported; a size that no disk has must not overflow dates.
const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Exporter {
    /// Looks once whether an export that was submitted before has come to its end, of which nobody has
    /// taken notice yet. `None` when it has, and its files are to be exported over, or when nothing runs under it.
    pub(super) async fn still_running(
        &self,
        record: Record,
        source: Source,
        request: &ExportRequest,
        options: &ExportOptions,
        waited_since: Option<DateTime<Utc>>,
    ) -> Result<Option<Found>, Error> {
        covers(&record, request.scope, &self.events)?;
        let mut tracked = Tracked::of(self, record, options.keep_claim);
        tokio::select! {
            // Whoever is interrupted here attaches, and is interrupted there.
            () = self.cancel.cancelled() => {}
            looked = self.look_once(&mut tracked) => drop(looked?),
        }
        let record = tracked.into_record();
        if record.state() == RecordState::Complete {
            let is_own_twin = waited_since.is_some_and(|begun| record.ended_after(begun));
            // A download that is owed is this very command's, which was interrupted.
            let is_owed = record.owes_download && options.landing.is_some();
            if options.if_exists == IfExists::Overwrite && !is_own_twin && !is_owed {
                return Ok(None);
            }
        }
        let is_open = record.state().is_live() || record.state() == RecordState::Complete;
        Ok(is_open.then(|| Found::new(record, source)))
    }

    /// The outcome of an export that is complete, and whose files an earlier run was to fetch as this one
    /// is: they stand in the way of no one. `None` where there is no such thing.
    pub(super) async fn still_owed(
        &self,
        record: &Record,
        request: &ExportRequest,
        options: &ExportOptions,
    ) -> Result<Option<ExportOutcome>, Error> {
        let is_owed = record.state() == RecordState::Complete
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
            outcome.reused()
        }))
    }

    pub(super) fn tell_attached(&self, record: &Record, source: Source) {
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
        if found.record.state() != RecordState::Complete {
            return self.take_up(found, scope, options).await;
        }
        self.tell_attached(&found.record, found.source);
        Ok(self.take_up(found, scope, options).await?.reused())
    }

    /// Watches a record that was found.
    pub(super) async fn take_up(
        &self,
        found: Found,
        scope: DiskScope,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        let Found { record, source, .. } = found;
        match record.state() {
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
        if options.waiting == Waiting::Detach && record.state() == RecordState::Submitted {
            return Ok(ExportOutcome::of(&record).left_running());
        }
        let timeout = options.timeout.unwrap_or_else(|| default_timeout(&record));
        let sign_window = match record.state() {
            // A wait for what was named on the command line lasts as long as it says; there may be no start to look for.
            RecordState::Intended if source == Source::CommandLine => Some(timeout),
            _ => sign_window(&record),
        };
        let mut tracked = match source {
            // Synthetic; never saved.
            Source::CommandLine => Tracked::in_memory(self, record),
            Source::Journal | Source::Claim | Source::Bucket => {
                let record = self.adopt(record).await;
                Tracked::of(self, record, options.keep_claim)
            }
        };
        self.watch_to_end(&mut tracked, timeout, sign_window, options)
            .await
    }

    /// Merges a record that was found elsewhere into the journal; a full disk is only said.
    pub(super) async fn adopt(&self, record: Record) -> Record {
        match self.journal.adopt(&record).await {
            Ok(adopted) => adopted,
            Err(error) => {
                self.events.warn(one_line(&error));
                record
            }
        }
    }

    pub(super) async fn watch_to_end(
        &self,
        tracked: &mut Tracked<'_>,
        timeout: Duration,
        sign_window: Option<Duration>,
        how: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        match self.watch_end(tracked, timeout, sign_window, how).await? {
            WatchEnd::Overtaken => self.overtaken(tracked).await,
            end => Ok(ExportOutcome::after_watch(tracked.record(), end)),
        }
    }

    /// How a watch ends, whoever ended it.
    pub(super) async fn watch_end(
        &self,
        tracked: &mut Tracked<'_>,
        timeout: Duration,
        sign_window: Option<Duration>,
        how: &ExportOptions,
    ) -> Result<WatchEnd, Error> {
        if how.landing.is_some() {
            // An end that another process has seen meanwhile shows at the first look.
            let _ = tracked.step(Step::Owe).await;
        }
        let limit = sign_window.map_or(timeout, |window| window.min(timeout));
        self.events.emit(EventKind::Watching {
            files: tracked.record().files.len(),
            deadline: deadline(self.cloud.now(), limit),
        });
        let options = WatchOptions {
            poll: how.poll,
            timeout,
            sign_window,
            only_for_a_sign: how.waiting == Waiting::Detach,
            cancel: self.cancel.clone(),
        };
        watch(&self.cloud, &self.events, tracked, &options)
            .await
            .map_err(|error| {
                let line = record_line(tracked.record());
                error.with_hint(format!(
                    "the export goes on; mend the credentials, then run `{line}`"
                ))
            })
    }

    /// The outcome of a watch that another process or machine has overtaken.
    async fn overtaken(&self, tracked: &mut Tracked<'_>) -> Result<ExportOutcome, Error> {
        let record = tracked.record();
        match record.state() {
            RecordState::Complete => self.still_stands(record).await,
            RecordState::Intended | RecordState::Abandoned => {
                let mut outcome = ExportOutcome::of(record);
                outcome.set_unknown(match tracked.look_at_lease().await {
                    Some(LeaseState::Refused | LeaseState::Withdrawn | LeaseState::Queued) => {
                        "the run that was about to submit it has started nothing so far"
                    }
                    _ => "another run abandoned this attempt with `--resubmit`",
                });
                Ok(outcome)
            }
            _ => Ok(ExportOutcome::of(record)),
        }
    }

    /// Looks once at an export that may be running, and notes what has become of it.
    pub(super) async fn look_once(
        &self,
        tracked: &mut Tracked<'_>,
    ) -> Result<ExportOutcome, Error> {
        let look = Observer::default()
            .look(&self.cloud, tracked.record())
            .await?;
        // Another process may have brought the record further while COS was asked.
        if tracked.refresh() {
            return Ok(ExportOutcome::of(tracked.record()));
        }
        // What shows may be of the next attempt, if this one was abandoned.
        if tracked.record().state() == RecordState::Intended
            && let Some(state) = tracked.look_at_lease().await
            && !matches!(state, LeaseState::Intended | LeaseState::Submitted)
        {
            return Ok(ExportOutcome::of(tracked.record()));
        }
        let mut view = tracked.record().clone();
        let mut watched = Watched::new(view.files.len());
        let (state, news) = watched.step(&mut view, &look);
        let seen = observed(&view, &news);
        let step = match state {
            TaskState::Complete => Some(Step::AllThere {
                seen,
                at: self.cloud.now(),
            }),
            _ if watched.has_evidence(&view) => Some(Step::Sign(seen)),
            // Nothing has ever shown of it, and it would block the same export for ever.
            _ if is_long_overdue(&view, &look, self.cloud.now()) => Some(Step::Vanish),
            TaskState::Waiting | TaskState::Failed(_) => None,
        };
        if let Some(step) = step {
            // Overtaken: the record is the newest all the same.
            let _ = tracked.step(step).await;
        }
        Ok(ExportOutcome::of(tracked.record()))
    }
}

/// Whether a submitted export of which nothing shows was submitted more than three times its default timeout ago.
fn is_long_overdue(record: &Record, look: &Look, now: DateTime<Utc>) -> bool {
    let is_seen_missing = look.shows_nothing_of(record);
    let Some(submitted_at) = record.submitted_at else {
        return false;
    };
    let limit = default_timeout(record).saturating_mul(3);
    let age = now.signed_duration_since(submitted_at).to_std();
    record.state() == RecordState::Submitted && is_seen_missing && age.is_ok_and(|age| age > limit)
}

/// How long to look for signs that the export of `record` was started, where nobody knows.
pub(super) fn sign_window(record: &Record) -> Option<Duration> {
    (record.state() == RecordState::Intended).then_some(SIGN_WINDOW)
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
