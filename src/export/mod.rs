//! The domain: from a request to files in a bucket, and the record that proves them.
//!
//! ```text
//! request ─► facts ─► report ─► record "intended" ─► ExportImages ─► record "submitted" ─► watch ─► outcome
//! ```
//!
//! [`Exporter`] is the door. Everything that it does can be taken up again by another process: the
//! journal is written before each step, and read before any check.

mod attach;
mod claim;
mod earlier;
mod journal;
mod look;
mod outcome;
mod policy;
mod preflight;
mod record;
mod refusals;
mod request;
mod resolve;
#[cfg(test)]
mod samples;
mod submit;
mod watch;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use attach::WaitTarget;
pub use journal::{Journal, JournalError};
pub use outcome::{ExportOutcome, OutcomeFile, OutcomeState};
pub use policy::minimal_policy;
pub use preflight::{
    AttachedPolicy, DryRun, Fact, Facts, IfExists, PreflightReport, check_image, disks, fetch_image,
};
pub use record::{
    Baseline, FinishedObject, Record, RecordError, RecordFile, RecordState, WatchedName,
};
pub use refusals::{Later, REFUSALS, Refusal};
pub use request::{
    Disk, DiskRole, DiskScope, ExpectedFile, ExportRequest, Identity, PrefixTemplate,
};
pub use resolve::{Destination, RegionSetting, resolve};
pub use submit::Queueing;
pub use watch::PollPolicy;

use crate::cloud::Cloud;
use crate::cloud::actions::cvm::{DescribeImages, Image};
use crate::cloud::cos::{BucketEntry, Overwrite};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};
use crate::model::{CheckName, ExportId, ImageId, Region};
use attach::{Found, Source};
use claim::{Claim, Claimed};
use look::Observer;
use preflight::{GatherOptions, gather, judge};
use record::finish;
use submit::{Submission, Submitted};
use watch::{TaskState, WatchEnd, WatchOptions, Watched, watch};

/// How long to look for signs of an export of which nobody knows whether it was started.
const SIGN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// The part of the default timeout that every export gets.
const TIMEOUT_BASE: Duration = Duration::from_secs(3 * 3600);
/// What the default timeout adds for each TB of disk: 12 hours.
const TIMEOUT_SECONDS_PER_TB: u64 = 12 * 3600;
/// Longer than any disk takes that can be exported; a size that no disk has must not overflow dates.
const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether to watch an export after its submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until its end, or the timeout.
    Watch,
    /// Not at all.
    Detach,
}

/// How an export is made.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// What to do about files that already have the export's names.
    pub if_exists: IfExists,
    /// Whether to watch.
    pub waiting: Waiting,
    /// How long to wait; by default it follows from the disks' sizes.
    pub timeout: Option<Duration>,
    /// When to look.
    pub poll: PollPolicy,
    /// Whether to wait while the cloud says "later".
    pub queueing: Queueing,
    /// Whether to keep the record in the bucket, too.
    pub keep_claim: bool,
    /// Checks that do not count.
    pub skipped_checks: Vec<CheckName>,
    /// Whether to give up a record of which nobody knows what became of it, and start anew.
    pub resubmit: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            if_exists: IfExists::default(),
            waiting: Waiting::Watch,
            timeout: None,
            poll: PollPolicy::default(),
            queueing: Queueing::Wait,
            keep_claim: true,
            skipped_checks: Vec::new(),
            resubmit: false,
        }
    }
}

/// What is known about the destination and the image before the look-ups begin.
#[derive(Clone, Debug)]
pub struct Known {
    /// The account's buckets.
    pub buckets: Fact<Vec<BucketEntry>>,
    /// The image.
    pub image: Fact<Option<Image>>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            buckets: Fact::NotAsked,
            image: Fact::NotAsked,
        }
    }
}

/// Makes exports, and takes them up again.
#[derive(Clone, Debug)]
pub struct Exporter {
    cloud: Cloud,
    journal: Journal,
    events: Events,
    cancel: CancellationToken,
}

impl Exporter {
    /// An exporter that speaks on `events` and ends its waits when `cancel` says so.
    #[must_use]
    pub fn new(cloud: Cloud, journal: Journal, events: Events, cancel: CancellationToken) -> Self {
        Self {
            cloud,
            journal,
            events,
            cancel,
        }
    }

    /// Exports one image: finds what was submitted before, or checks and submits once; then watches.
    ///
    /// # Errors
    /// Everything that keeps the export from being submitted. What happens after the submit is part
    /// of the outcome, and so is a signal at any time.
    pub async fn export(
        &self,
        request: &ExportRequest,
        known: Known,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        let this = self.about(&request.image_id);
        let identity = request.identity();
        let waiting_for_lock = this
            .journal
            .lock(&identity, || this.events.emit(EventKind::LockWaiting));
        let lock = tokio::select! {
            () = this.cancel.cancelled() => return Ok(ExportOutcome::never_started(request)),
            lock = waiting_for_lock => lock?,
        };
        if let Some(mut record) = this
            .journal
            .find(&identity)?
            .filter(|record| record.state.is_live())
        {
            if !options.resubmit {
                drop(lock);
                return this
                    .take_up(Found::journal(record), request.scope, options)
                    .await;
            }
            record.state = RecordState::Abandoned;
            this.journal.save(&record)?;
        }
        let report = tokio::select! {
            () = this.cancel.cancelled() => return Ok(ExportOutcome::never_started(request)),
            report = this.look_up(request, known, options, LookUp::BeforeSubmit) => report?,
        };
        if let Some(claim) =
            earlier::live_claim(&this.journal, &report)?.filter(|_| !options.resubmit)
        {
            this.journal.save(&claim)?;
            drop(lock);
            return this
                .take_up(Found::claim(claim), request.scope, options)
                .await;
        }
        this.events.emit(EventKind::Checked {
            findings: report.findings.clone(),
        });
        report.require(&options.skipped_checks)?;
        if options.if_exists == IfExists::Skip
            && let Some(record) = earlier::settle(
                &this.journal,
                &report,
                this.begin(&report, options),
                this.cloud.now(),
            )?
        {
            this.journal.save(&record)?;
            drop(lock);
            if record.state == RecordState::Complete {
                return Ok(ExportOutcome::of(&record));
            }
            return this
                .take_up(Found::bucket(record), request.scope, options)
                .await;
        }
        let mut record = this.begin(&report, options);
        let timeout = options.timeout.unwrap_or_else(|| default_timeout(&record));
        let mut claim = Claim::new(options.keep_claim);
        let submission = Submission {
            cloud: &this.cloud,
            journal: &this.journal,
            events: &this.events,
            cancel: &this.cancel,
            queueing: options.queueing,
            queue_pause: options.poll.is_fixed().then_some(options.poll.base),
            timeout,
        };
        // On disk before the claim can be seen by others.
        this.journal.save(&record)?;
        record.state = RecordState::Intended;
        let overwrite = match report.facts.claim {
            Fact::Known(Some(_)) => Overwrite::Allow,
            _ => Overwrite::Forbid,
        };
        if let Claimed::ByAnother(other) = claim
            .stake(&this.cloud, &this.events, &record, overwrite)
            .await
        {
            record.state = RecordState::Abandoned;
            this.journal.save(&record)?;
            this.journal.save(&other)?;
            drop(lock);
            return this
                .take_up(Found::claim(*other), request.scope, options)
                .await;
        }
        if this.cancel.is_cancelled() {
            submission
                .close(&mut record, &mut claim, RecordState::Abandoned)
                .await;
            return Ok(ExportOutcome::never_started(request));
        }
        let submitted = submission
            .send(&mut record, &mut claim, &request.to_call())
            .await?;
        drop(lock);
        match submitted {
            Submitted::Accepted if options.waiting == Waiting::Detach => {
                Ok(ExportOutcome::of(&record).left_running())
            }
            Submitted::Accepted | Submitted::Lost => {
                this.watch_to_end(record, timeout, options.poll, &mut claim)
                    .await
            }
            Submitted::Interrupted if record.state == RecordState::Abandoned => {
                Ok(ExportOutcome::never_started(request))
            }
            Submitted::Interrupted => {
                Ok(ExportOutcome::after_watch(&record, WatchEnd::Interrupted))
            }
        }
    }

    /// Checks every precondition of one export, the cloud's own dry run included; submits nothing.
    ///
    /// # Errors
    /// When the look-ups could not be made at all, such as for bad credentials.
    pub async fn check(
        &self,
        request: &ExportRequest,
        known: Known,
        options: &ExportOptions,
    ) -> Result<PreflightReport, Error> {
        let this = self.about(&request.image_id);
        let report = tokio::select! {
            () = this.cancel.cancelled() => return Err(interrupted()),
            report = this.look_up(request, known, options, LookUp::CheckOnly) => report?,
        };
        this.events.emit(EventKind::Checked {
            findings: report.findings.clone(),
        });
        Ok(report)
    }

    /// Takes up an export that was submitted before, and watches it.
    ///
    /// # Errors
    /// When nothing is known of such an export.
    pub async fn wait(
        &self,
        target: &WaitTarget,
        timeout: Option<Duration>,
        poll: PollPolicy,
    ) -> Result<ExportOutcome, Error> {
        let found = tokio::select! {
            () = self.cancel.cancelled() => return Err(interrupted()),
            found = attach::find(&self.cloud, &self.journal, target) => found?,
        };
        let this = if found.names_image {
            self.about(&found.record.image_id)
        } else {
            self.clone()
        };
        let options = ExportOptions {
            timeout,
            poll,
            ..ExportOptions::default()
        };
        let (names_image, scope) = (found.names_image, found.record.scope);
        let mut outcome = this.take_up(found, scope, &options).await?;
        if !names_image {
            outcome.image_id = None;
        }
        Ok(outcome)
    }

    /// The exports that the journal knows, the oldest first, each with what COS shows of it now.
    ///
    /// # Errors
    /// When the journal cannot be read, or COS does not accept the credentials.
    pub async fn status(&self, export_id: Option<&ExportId>) -> Result<Vec<ExportOutcome>, Error> {
        let (mut records, unreadable) = self.journal.all()?;
        for line in unreadable {
            self.events.warn(line);
        }
        if let Some(export_id) = export_id {
            records.retain(|record| record.export_id == *export_id);
            if records.is_empty() {
                let message = format!("this machine's journal knows no export `{export_id}`");
                return Err(Error::new(ErrorKind::Usage, message)
                    .with_hint("`cvm-export status` lists what it knows"));
            }
        }
        let mut outcomes = Vec::new();
        for mut record in records {
            outcomes.push(if record.state.is_live() {
                self.look_once(&mut record).await?
            } else {
                ExportOutcome::of(&record)
            });
        }
        Ok(outcomes)
    }

    /// The custom images of `region`, or those of `image_ids`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn images(
        &self,
        region: &Region,
        image_ids: &[ImageId],
    ) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        let mut call = DescribeImages::custom_images(image_ids);
        loop {
            let page = self.cloud.call(Some(region), &call).await?.value;
            let received = page.image_set.len() as u64;
            images.extend(page.image_set);
            let offset = call.offset.unwrap_or(0) + received;
            let is_complete = page.total_count.is_none_or(|total| offset >= total);
            if received == 0 || is_complete || !image_ids.is_empty() {
                return Ok(images);
            }
            call.offset = Some(offset);
        }
    }

    fn about(&self, image_id: &ImageId) -> Self {
        let events = self.events.about(image_id);
        Self {
            cloud: self.cloud.with_events(events.clone()),
            events,
            ..self.clone()
        }
    }

    async fn look_up(
        &self,
        request: &ExportRequest,
        known: Known,
        options: &ExportOptions,
        purpose: LookUp,
    ) -> Result<PreflightReport, Error> {
        self.events.emit(EventKind::CheckStarted {
            bucket: request.bucket.clone(),
            region: request.region.clone(),
        });
        let gathering = GatherOptions {
            buckets: known.buckets,
            image: known.image,
            server_dry_run: purpose == LookUp::CheckOnly,
            claim: options.keep_claim || purpose == LookUp::CheckOnly,
            running_exports: self.journal.count_running()?,
        };
        let facts = gather(&self.cloud, request, gathering).await?;
        let findings = judge(&facts, options.if_exists);
        Ok(PreflightReport { facts, findings })
    }

    /// The record of a new export, with what stands under its names noted.
    fn begin(&self, report: &PreflightReport, options: &ExportOptions) -> Record {
        let facts = &report.facts;
        let baseline = |key: &crate::model::ObjectKey| match facts.objects.get(key) {
            Some(Fact::Known(object)) => Baseline::of(object.as_ref()),
            _ => Baseline::Unseen,
        };
        let files = facts.files.iter().flatten();
        let files = files
            .map(|file| RecordFile::expect(file, baseline))
            .collect();
        let mut record = Record::begin(&facts.request, files, self.cloud.now());
        if let Some(image) = facts.image.known().and_then(Option::as_ref) {
            record.image_name = Some(image.image_name.clone());
            record.os_name = Some(image.os_name.clone());
        }
        let uploads = facts
            .uploads
            .known()
            .into_iter()
            .flat_map(|list| &list.uploads);
        record.earlier_uploads = uploads.map(|upload| upload.upload_id.clone()).collect();
        record.skipped_checks = options.skipped_checks.clone();
        record
    }

    /// Watches a record that was found.
    async fn take_up(
        &self,
        found: Found,
        scope: DiskScope,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        let Found { record, source, .. } = found;
        match record.state {
            RecordState::Complete | RecordState::Failed => return Ok(ExportOutcome::of(&record)),
            RecordState::Queued | RecordState::Refused | RecordState::Abandoned => {
                let message = format!("nothing was submitted under `{}`", record.export_id);
                return Err(Error::new(ErrorKind::Precondition, message)
                    .with_hint("start it with `cvm-export image`"));
            }
            RecordState::Intended | RecordState::Submitted => {}
        }
        if record.scope != scope {
            self.events
                .warn("the export that is already running takes other disks than asked for now");
        }
        self.events.emit(EventKind::Attached {
            export_id: record.export_id.clone(),
            source: source.as_str(),
            reattach: record.reattach(),
        });
        if options.waiting == Waiting::Detach {
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
        this.watch_to_end(record, timeout, options.poll, &mut claim)
            .await
    }

    async fn watch_to_end(
        &self,
        mut record: Record,
        timeout: Duration,
        poll: PollPolicy,
        claim: &mut Claim,
    ) -> Result<ExportOutcome, Error> {
        let sign_window = (record.state == RecordState::Intended).then_some(SIGN_WINDOW);
        let limit = sign_window.map_or(timeout, |window| window.min(timeout));
        self.events.emit(EventKind::Watching {
            files: record.files.len(),
            deadline: self.cloud.now() + limit,
        });
        let options = WatchOptions {
            poll,
            timeout,
            sign_window,
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
            WatchEnd::TimedOut | WatchEnd::Interrupted | WatchEnd::Unknown => {}
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

    async fn look_once(&self, record: &mut Record) -> Result<ExportOutcome, Error> {
        let look = Observer::default().look(&self.cloud, record).await?;
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

impl Found {
    fn journal(record: Record) -> Self {
        Self {
            record,
            source: Source::Journal,
            names_image: true,
        }
    }

    fn claim(record: Record) -> Self {
        Self {
            record,
            source: Source::Claim,
            names_image: true,
        }
    }

    fn bucket(record: Record) -> Self {
        Self {
            record,
            source: Source::Bucket,
            names_image: true,
        }
    }
}

/// What the look-ups are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookUp {
    BeforeSubmit,
    CheckOnly,
}

fn record_line(record: &Record) -> String {
    record.reattach().join(" ")
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Interrupted,
        "interrupted before the submit; nothing was started",
    )
}

/// 3 hours and 12 hours for each TB of disk.
fn default_timeout(record: &Record) -> Duration {
    let sizes = record.files.iter().filter_map(|file| file.size_gib);
    let gib = sizes.fold(0, u64::saturating_add);
    let bytes = u128::from(gib) << 30;
    let seconds = bytes * u128::from(TIMEOUT_SECONDS_PER_TB) / 1_000_000_000_000;
    let added = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
    TIMEOUT_BASE
        .saturating_add(added)
        .min(LONGEST_DEFAULT_TIMEOUT)
}

#[cfg(test)]
mod tests;
