//! The domain: from a request to files in a bucket, and the record that proves them.
//!
//! ```text
//! request ─► facts ─► report ─► record "intended" ─► ExportImages ─► record "submitted" ─► watch ─► outcome
//! ```
//!
//! [`Exporter`] is the door. Everything that it does can be taken up again by another process: the
//! journal is written before each step, and read before any check.

mod attach;
mod authorize;
mod begin;
mod claim;
mod cost;
mod files;
mod grace;
mod image_copy;
mod journal;
mod landing;
mod lease;
mod leases;
mod look;
mod missing_bucket;
mod outcome;
mod overview;
mod policy;
mod preflight;
mod progress;
mod record;
mod refusals;
mod request;
mod resolve;
mod resume;
mod reuse;
mod role;
#[cfg(test)]
mod samples;
mod submit;
mod tracked;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use attach::WaitTarget;
pub use authorize::{
    Access, AccessPlan, Authorizer, Effect, Existing, ExistingPolicy, ExistingRole, Grant, Intent,
    Left, OwnPolicy, PlannedStep, Step, look_around,
};
pub use cost::{CostFacts, CostPlan, Scales, disk_sizes, route, saved, usual_class};
pub use files::{
    AbortPlan, Blocked, DoomedExport, DoomedObject, DoomedUpload, Etag, Files, Group, GroupBy,
    GroupPlan, Groups, Inventory, ListedExport, ListedFile, ListedState, ListedUpload, Part,
    PrefixFilter, Proof, Removal, RemovalState, Retention, Scope, Selection, Stay, StoredRecord,
};
pub use image_copy::{CopyFacts, CopyPlan, CopyWishes, ImageRoom, locate_image};
pub use journal::{Journal, JournalError};
pub use landing::Landing;
pub use missing_bucket::{MissingBucket, find_missing_bucket};
pub use outcome::{ExportOutcome, ExportedCopy, OutcomeFile, OutcomeState};
pub use policy::{BeyondExport, minimal_policy};
pub use preflight::{
    AccountQuestion, AccountReport, AttachedPolicy, DryRun, Existing as ExistingFiles, Fact, Facts,
    IfExists, Keys, LandingFacts, PreflightReport, check_account, check_image, check_role, disks,
    fetch_image,
};
pub use record::{
    Baseline, CopiedFrom, FinishedObject, Record, RecordError, RecordFile, RecordState, WatchedName,
};
pub use refusals::{Later, REFUSALS, Refusal};
pub use request::{
    Disk, DiskRole, DiskScope, ExpectedFile, ExportRequest, Identity, PrefixTemplate,
};
pub use resolve::{Destination, RegionSetting, resolve};
pub use role::WritingPreset;
pub use submit::Queueing;
pub use watch::PollPolicy;

use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::BucketEntry;
use crate::cloud::{Cloud, Site};
use crate::error::{Error, ErrorKind};
use crate::estimate::Budget;
use crate::event::{EventKind, Events};
use crate::model::{CheckName, ImageId, Prefix};
use journal::Lock;
use preflight::{GatherOptions, gather, judge};
use watch::WatchEnd;

/// The part of the default timeout that every export gets.
const TIMEOUT_BASE: Duration = Duration::from_secs(3 * 3600);

/// How long a run that will not queue waits for another process of this machine.
const NO_PATIENCE: Duration = Duration::from_millis(200);

/// Exports that `status` looks at together.
const CONCURRENT_LOOKS: usize = 16;

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
    /// Whether leases in the bucket decide between machines, and the record is kept there, too.
    pub keep_claim: bool,
    /// Checks that do not count.
    pub skipped_checks: Vec<CheckName>,
    /// Whether to give up a record of which nobody knows what became of it, and start anew.
    pub resubmit: bool,
    /// Which copies may be made of an image that cannot be exported where or as it is.
    pub copies: CopyWishes,
    /// Where the files are to be fetched to afterwards, with [`Exporter::fetch`]: it is looked at before
    /// the submit.
    pub landing: Option<Landing>,
    /// What the export may cost, with a month of storage and the download where one is asked for.
    pub budget: Budget,
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
            copies: CopyWishes::default(),
            landing: None,
            budget: Budget::default(),
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
    /// What the names of all files start with, where it is the same for every image and at every time.
    pub fixed_prefix: Option<Prefix>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            buckets: Fact::NotAsked,
            image: Fact::NotAsked,
            fixed_prefix: None,
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
    /// Whether a bucket of this run has refused to replace a lease.
    is_guarded: Arc<AtomicBool>,
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
            is_guarded: Arc::default(),
        }
    }

    /// Exports one image: finds what was submitted before, or checks and submits once; then watches. A copy
    /// is made, exported and deleted where one is needed and `options` wish for it.
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
        if options.copies.is_any() {
            // The state of a copy is a large future, and few exports have one.
            let by_copy = Box::pin(self.export_copy(request, &known, options));
            if let Some(outcome) = by_copy.await? {
                return Ok(outcome);
            }
        }
        self.export_image(request, known, options, CostLine::Due)
            .await
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
        let checking = async {
            match this.check_by_copy(request, &known, options).await? {
                Some(report) => Ok(report),
                None => {
                    this.look_up(request, known, options, LookUp::CheckOnly, None)
                        .await
                }
            }
        };
        let report = tokio::select! {
            () = this.cancel.cancelled() => return Err(interrupted()),
            report = checking => report?,
        };
        this.events.emit(EventKind::Checked {
            findings: report.findings.clone(),
        });
        this.tell_cost(&report);
        Ok(report)
    }

    /// Whether the export of `request` is refused even once the checks `mended` pass, so that nothing should
    /// be changed for it. Why it is, the export itself says; nothing is said here.
    pub async fn is_refused_anyway(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
        mended: &[CheckName],
    ) -> bool {
        let this = self.about(&request.image_id);
        let looking = async {
            if options.copies.is_any()
                && let Some(report) = this.foresee_copies(request, known, options).await?
            {
                return Ok(report);
            }
            this.look_up(request, known.clone(), options, LookUp::Foresight, None)
                .await
        };
        let passed_over = [options.skipped_checks.as_slice(), mended].concat();
        let report: Result<PreflightReport, Error> = looking.await;
        report
            .and_then(|report| report.require(&passed_over))
            .is_err()
    }

    /// Takes up an export that was submitted before, and watches it. Of `options` count the timeout, the
    /// looks and the landing.
    ///
    /// # Errors
    /// When nothing is known of such an export, or nothing could be fetched to where it should be.
    pub async fn wait(
        &self,
        target: &WaitTarget,
        options: &ExportOptions,
    ) -> Result<ExportOutcome, Error> {
        if let Some(landing) = &options.landing {
            crate::download::look_at_folder(&landing.folder)?;
        }
        let found = tokio::select! {
            () = self.cancel.cancelled() => return Err(interrupted()),
            found = attach::find(&self.cloud, &self.journal, target) => found?,
        };
        let this = if found.names_image {
            self.about(&found.record.image_id)
        } else {
            self.clone()
        };
        let (names_image, scope) = (found.names_image, found.record.scope);
        let mut outcome = this.take_up(found, scope, options).await?;
        if let (OutcomeState::Complete, Some(record)) = (outcome.state, &outcome.record) {
            let troubles = this.remove_copies_after(record).await?;
            outcome.warnings.extend(troubles);
        }
        if !names_image {
            outcome.image_id = None;
            outcome.record = None;
        }
        Ok(outcome)
    }

    /// The site of the account that exports.
    #[must_use]
    pub fn site(&self) -> Site {
        self.cloud.endpoints().site()
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
        copy: Option<CopyPlan>,
    ) -> Result<PreflightReport, Error> {
        if purpose != LookUp::Foresight {
            self.events.emit(EventKind::CheckStarted {
                bucket: request.bucket.clone(),
                region: request.region.clone(),
            });
        }
        let gathering = GatherOptions {
            buckets: known.buckets,
            image: known.image,
            fixed_prefix: known.fixed_prefix,
            // The copy that would be exported is not there yet.
            server_dry_run: purpose == LookUp::CheckOnly && copy.is_none(),
            copy,
            versioning: purpose == LookUp::CheckOnly && options.keep_claim,
            claim: options.keep_claim || purpose == LookUp::CheckOnly,
            running_exports: self.journal.count_open()?,
            landing: options.landing.clone(),
            is_guarded: Arc::clone(&self.is_guarded),
        };
        let mut facts = gather(&self.cloud, request, gathering).await?;
        if options.if_exists == IfExists::Reuse {
            facts.existing = self.existing(&facts).await?;
        }
        let plan = CostPlan::of(options, &facts.bucket, self.cloud.cos().network());
        let cost = CostFacts::of(request, &facts.image, &plan, &options.budget);
        facts.cost = Some(cost);
        let findings = judge(&facts, options.if_exists);
        Ok(PreflightReport { facts, findings })
    }

    /// Says in one line what an export takes and costs.
    fn tell_cost(&self, report: &PreflightReport) {
        let Facts { request, cost, .. } = &report.facts;
        let line = cost
            .as_ref()
            .and_then(|cost| cost.line(request.asked_image()));
        if let Some(message) = line {
            self.events.emit(EventKind::Settled { message });
        }
    }

    /// The record of a new export, with what is under its names noted.
    fn begin(&self, report: &PreflightReport, options: &ExportOptions) -> Record {
        let mut record = self.begin_record(&report.facts);
        record.skipped_checks = options.skipped_checks.clone();
        record.owes_download = options.landing.is_some();
        record
    }

    fn begin_record(&self, facts: &Facts) -> Record {
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
            record.image_name = Some(match &facts.request.copied_from {
                Some(source) => source.image_name.clone(),
                None => image.image_name.clone(),
            });
            record.os_name = Some(image.os_name.clone());
        }
        let uploads = facts
            .uploads
            .known()
            .into_iter()
            .flat_map(|list| &list.uploads);
        record.earlier_uploads = uploads.map(|upload| upload.upload_id.clone()).collect();
        record
    }

    /// Takes the lock of an export, for as long as this run may wait.
    async fn lock(&self, identity: &Identity, options: &ExportOptions) -> Result<Locked, Error> {
        let mut has_waited = false;
        let locking = self.journal.lock(identity, || {
            has_waited = true;
            self.events.emit(EventKind::LockWaiting);
        });
        let patience = match options.queueing {
            Queueing::Refuse => NO_PATIENCE,
            Queueing::Wait => options.timeout.unwrap_or(TIMEOUT_BASE),
        };
        let lock = tokio::select! {
            () = self.cancel.cancelled() => return Ok(Locked::Interrupted),
            lock = tokio::time::timeout(patience, locking) => lock,
        };
        match lock {
            Ok(lock) => Ok(Locked::Held {
                lock: lock?,
                has_waited,
            }),
            Err(_) => Ok(Locked::TimedOut),
        }
    }

    /// What can be said while another process of this machine is at the same export.
    fn while_locked(&self, request: &ExportRequest) -> Result<ExportOutcome, Error> {
        match self.journal.find(&request.identity())? {
            Some(record) if record.state().is_live() => {
                Ok(ExportOutcome::after_watch(&record, WatchEnd::TimedOut))
            }
            _ => Err(Error::new(
                ErrorKind::Quota,
                "another process of this machine is about to submit the same export; this one started nothing",
            )
            .with_hint("`cvm-export status` shows how far it is")),
        }
    }
}

/// What the look-ups are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookUp {
    BeforeSubmit,
    CheckOnly,
    /// Before something is changed that the export needs.
    Foresight,
}

/// Whether the line that says what an export takes is still to be said in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CostLine {
    Due,
    /// Before the copy was begun that the export is of.
    Said,
}

/// What waiting for the lock of an export brought.
enum Locked {
    Held { lock: Lock, has_waited: bool },
    Interrupted,
    TimedOut,
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Interrupted,
        "interrupted before the submit; nothing was started",
    )
}

#[cfg(test)]
mod tests;
