//! An image that cannot be exported where or as it is: copied, the copy exported and deleted.
//!
//! ```text
//! plan ─► record ─► SyncImages ─► NORMAL ─► (once more) ─► export of the copy ─► DeleteImages
//!            └── written before and after each step: the same command goes on wherever it was killed
//! ```
//!
//! A custom image is copied to the bucket's region; a shared one within its own region, which makes it a
//! custom one (API page 213/15711). Like an export, a copy has no client token: `SyncImages` is sent once,
//! and a copy whose answer is lost is found by its name. The lock of the export that was asked for is held
//! from the plan to the deletion.

mod claims;
mod make;
mod plan;
mod record;
mod remove;

use std::time::Duration;

use super::outcome::{ExportOutcome, OutcomeState};
use super::preflight::{IfExists, PreflightReport};
use super::record::{CopiedFrom, Record, RecordState};
use super::request::ExportRequest;
use super::resume::covers;
use super::{CostLine, ExportOptions, Exporter, Known, Locked, LookUp};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, one_line};
use crate::event::EventKind;
use crate::model::{ImageId, Region};
use make::{Made, Patience};
use plan::plan_copies;
pub use plan::{CopyFacts, CopyPlan, CopyWishes, ImageRoom, locate_image};
use record::{CopiesState, CopyState};
pub(crate) use record::{CopyRecord, id_start};
use remove::delete_command;

/// How long a copy is waited for by default; it takes 10 to 30 minutes (product page 213/4943).
const COPY_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// What the journal says about the copies of an export.
enum Earlier {
    /// They are unfinished: this run goes on with them.
    Unfinished(Box<CopyRecord>),
    /// They are done with, and so is the export: this is what came of it.
    Done(Box<ExportOutcome>),
    /// There is nothing to go on with.
    Nothing,
}

impl Exporter {
    /// Exports a copy of the image that `request` asks for, where one is needed and wished for; `None` where
    /// none is needed.
    pub(super) async fn export_copy(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
    ) -> Result<Option<ExportOutcome>, Error> {
        let this = self.about(&request.image_id);
        let begun = this.cloud.now();
        let (_lock, waited_since) = match this.lock(&request.identity(), options).await? {
            Locked::Held { lock, has_waited } => (lock, has_waited.then_some(begun)),
            Locked::Interrupted => return Ok(Some(ExportOutcome::never_started(request))),
            Locked::TimedOut => {
                return Err(Error::new(
                    ErrorKind::Quota,
                    "another process of this machine is at a copy for the same export; this one started nothing",
                )
                .with_hint("`cvm-export status` shows how far it is"));
            }
        };
        let earlier = this.earlier_copies(request, options, waited_since).await?;
        let (mut record, cost_line) = match earlier {
            Earlier::Unfinished(record) => (*record, CostLine::Due),
            Earlier::Done(outcome) => return Ok(Some(*outcome)),
            Earlier::Nothing => {
                let planning = plan_copies(&this.cloud, request, known, &options.copies);
                let plan = tokio::select! {
                    () = this.cancel.cancelled() => return Ok(Some(ExportOutcome::never_started(request))),
                    plan = planning => plan?,
                };
                let Some(plan) = plan else {
                    return Ok(None);
                };
                if options.keep_claim
                    && let Some(claimed) = this
                        .claimed_by_a_copy(request, known, options.resubmit)
                        .await?
                    && let Earlier::Done(outcome) =
                        this.judge_claimed(&claimed, request, options).await?
                {
                    return Ok(Some(*outcome));
                }
                match this.begin_copies(request, known, options, plan).await? {
                    Some(record) => (record, CostLine::Said),
                    None => return Ok(Some(ExportOutcome::never_started(request))),
                }
            }
        };
        let going_on = this.go_on(&mut record, request, known, options, cost_line);
        let ended = going_on.await;
        let is_over = record.state == CopiesState::Over || record.state == CopiesState::Exported;
        if !is_over {
            this.tell_standing(&record);
        }
        ended.map(Some)
    }

    /// What an earlier run left.
    async fn earlier_copies(
        &self,
        request: &ExportRequest,
        options: &ExportOptions,
        waited_since: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Result<Earlier, Error> {
        let Some(mut record) = self.journal.find_copies(&request.identity())? else {
            return Ok(Earlier::Nothing);
        };
        if record.state == CopiesState::Open && options.resubmit {
            self.find_or_give_up(&mut record).await?;
        }
        let finished = self.finished_export(&record, request)?;
        let was_cut_short = record.is_unfinished() && finished.is_some();
        if record.is_unfinished() && !was_cut_short {
            return Ok(Earlier::Unfinished(Box::new(record)));
        }
        let Some(export) = finished else {
            return Ok(Earlier::Nothing);
        };
        if was_cut_short {
            record.state = CopiesState::Exported;
            record.export_id = Some(export.export_id.clone());
            self.keep_copies(&record);
            let is_over = self.remove_copies(&mut record).await.is_empty();
            // What a killed run has left to do is this command's own work; what stays in the way of the
            // deletion must not make an old export the result of every later run.
            let is_wanted = !options.resubmit && options.if_exists != IfExists::Overwrite;
            if is_over && is_wanted {
                let outcome = self.still_stands(&export).await?;
                if outcome.state == OutcomeState::Complete {
                    return Ok(Earlier::Done(Box::new(outcome)));
                }
            }
        }
        if waited_since.is_some_and(|begun| export.ended_after(begun)) {
            return Ok(Earlier::Done(Box::new(ExportOutcome::of(&export))));
        }
        if let Some(outcome) = self.still_owed(&export, request, options).await? {
            return Ok(Earlier::Done(Box::new(outcome)));
        }
        self.judge_earlier(&export, request, options).await
    }

    /// The export of the last copy of `record`, where it is complete.
    fn finished_export(
        &self,
        record: &CopyRecord,
        request: &ExportRequest,
    ) -> Result<Option<Record>, Error> {
        let export = match &record.export_id {
            Some(export_id) => self.journal.load(export_id)?,
            None => self.export_of(record, request)?,
        };
        Ok(export.filter(|export| export.state() == RecordState::Complete))
    }

    /// Looks once for copies of which nobody knows whether they were begun. Where one does not show, the
    /// whole record is given up, and what is known to stand is named.
    async fn find_or_give_up(&self, record: &mut CopyRecord) -> Result<(), Error> {
        for place in 0..record.steps.len() {
            let step = &record.steps[place];
            let is_lost = match step.state {
                CopyState::Intended => true,
                CopyState::Copying => !self.shows(step).await?,
                _ => false,
            };
            if is_lost && !self.find_by_name(record, place).await? {
                record.state = CopiesState::Abandoned;
                self.journal.save_copies(record)?;
                self.tell_standing(record);
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the record of another machine in the bucket means for this run, whose journal knows nothing.
    async fn judge_claimed(
        &self,
        claimed: &Record,
        request: &ExportRequest,
        options: &ExportOptions,
    ) -> Result<Earlier, Error> {
        if claimed.state().is_live() && !options.resubmit {
            return Err(claims::runs_elsewhere(claimed));
        }
        // One that this journal knows was judged by it.
        let is_known = self.journal.load(&claimed.export_id)?.is_some();
        if is_known || claimed.state() != RecordState::Complete {
            return Ok(Earlier::Nothing);
        }
        self.judge_earlier(claimed, request, options).await
    }

    /// What an export that is complete means for this run. The copies' names differ from run to run, so the
    /// bucket would not show that it is the same.
    async fn judge_earlier(
        &self,
        export: &Record,
        request: &ExportRequest,
        options: &ExportOptions,
    ) -> Result<Earlier, Error> {
        let outcome = self.still_stands(export).await?;
        if outcome.state != OutcomeState::Complete {
            return Ok(Earlier::Nothing);
        }
        let (image_id, export_id) = (&request.image_id, &export.export_id);
        match options.if_exists {
            IfExists::Reuse => {
                covers(export, request.scope, &self.events)?;
                Ok(Earlier::Done(Box::new(outcome)))
            }
            IfExists::Overwrite => {
                self.events.warn(format!(
                    "the files of `{export_id}` stay where they are: those of another copy have other names"
                ));
                Ok(Earlier::Nothing)
            }
            IfExists::Fail => {
                let message = format!(
                    "image `{image_id}` was exported by a copy already, as `{export_id}`; nothing was submitted"
                );
                Err(Error::new(ErrorKind::Precondition, message).with_hint(
                    "take it with `--if-exists reuse`, make another one with `--if-exists overwrite`, or choose \
                     another `--prefix`",
                ))
            }
        }
    }

    /// Checks the way to the bucket with the copies of `plan` in it, and begins their record; `None` when a
    /// signal came.
    async fn begin_copies(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
        plan: CopyPlan,
    ) -> Result<Option<CopyRecord>, Error> {
        let identity = request.identity();
        let looking = async {
            for region in &plan.destinations {
                let strange = self.strange_copies(&identity, region).await?;
                for copy in strange {
                    self.judge_strange(&copy, region, options)?;
                }
            }
            let checking = self.check_copies(request, known, options, &plan, LookUp::BeforeSubmit);
            let report = checking.await?;
            self.events.emit(EventKind::Checked {
                findings: report.findings.clone(),
            });
            self.tell_cost(&report);
            report.require(&options.skipped_checks)
        };
        tokio::select! {
            () = self.cancel.cancelled() => return Ok(None),
            looked = looking => looked?,
        }
        let record = CopyRecord::begin(request, &plan, self.cloud.now());
        self.journal.save_copies(&record)?;
        Ok(Some(record))
    }

    /// Refuses to make a second copy beside one that another machine, or a lost journal, has made for the
    /// same export; with `--resubmit` it is only said.
    fn judge_strange(
        &self,
        copy: &ImageId,
        region: &Region,
        options: &ExportOptions,
    ) -> Result<(), Error> {
        let command = delete_command(copy, region);
        let message = format!(
            "`{copy}` in {region} is a copy for this very export that this machine's journal does not know"
        );
        if options.resubmit {
            self.events
                .warn(format!("{message}; once nobody needs it: {command}"));
            return Ok(());
        }
        let message = format!("{message}; nothing was submitted");
        Err(Error::new(ErrorKind::Precondition, message).with_hint(format!(
            "another machine may be at it: run the command there; if none is, delete it ({command}), or make \
             another one with `--resubmit`"
        )))
    }

    /// Every finding about an export by the copies of `plan`.
    async fn check_copies(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
        plan: &CopyPlan,
        purpose: LookUp,
    ) -> Result<PreflightReport, Error> {
        let mut request = request.clone();
        if let Some(region) = plan.destinations.last() {
            request.region = region.clone();
        }
        self.look_up(
            &request,
            known.clone(),
            options,
            purpose,
            Some(plan.clone()),
        )
        .await
    }

    /// Every finding before the submit, where a copy is needed and wished for.
    pub(super) async fn foresee_copies(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
    ) -> Result<Option<PreflightReport>, Error> {
        match plan_copies(&self.cloud, request, known, &options.copies).await? {
            Some(plan) => {
                let checking = self.check_copies(request, known, options, &plan, LookUp::Foresight);
                checking.await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// The findings of [`Self::check`] where a copy is needed and wished for.
    pub(super) async fn check_by_copy(
        &self,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
    ) -> Result<Option<PreflightReport>, Error> {
        if !options.copies.is_any() {
            return Ok(None);
        }
        let plan = plan_copies(&self.cloud, request, known, &options.copies).await?;
        match plan {
            None => Ok(None),
            Some(plan) => {
                let purpose = LookUp::CheckOnly;
                let report = self
                    .check_copies(request, known, options, &plan, purpose)
                    .await?;
                Ok(Some(report))
            }
        }
    }

    /// Takes the copies of `record` to their end, from wherever they stand.
    async fn go_on(
        &self,
        record: &mut CopyRecord,
        request: &ExportRequest,
        known: &Known,
        options: &ExportOptions,
        cost_line: CostLine,
    ) -> Result<ExportOutcome, Error> {
        let patience = Patience {
            stopwatch: Stopwatch::start(),
            timeout: options.timeout.unwrap_or(COPY_TIMEOUT),
            poll: options.poll,
        };
        let export = self.export_of(record, request)?;
        // Once the export was submitted, what becomes of the copy does not matter to it.
        if export
            .as_ref()
            .is_none_or(|export| export.state() == RecordState::Failed)
        {
            for place in 0..record.steps.len() {
                let made = self.make_copy(record, place, &patience).await?;
                if let Some(outcome) = unfinished(record, request, place, made) {
                    return Ok(outcome);
                }
            }
        }
        let Some(copy_request) = of_copy(record, request) else {
            let message = "the record of the copies names no copy to export";
            return Err(Error::new(ErrorKind::Unexpected, message));
        };
        // Its files may have been taken away since.
        let is_complete = export
            .as_ref()
            .is_some_and(|export| export.state() == RecordState::Complete);
        let mut outcome = match export {
            Some(export) if is_complete => self.still_stands(&export).await?,
            export => {
                let mut options = options.clone();
                options.timeout = options.timeout.map(|_| patience.remaining());
                // An export of this copy that runs is this very command's: it is never made anew.
                if export.is_some_and(|export| export.state().is_live()) {
                    options.if_exists = IfExists::Fail;
                }
                let known = Known {
                    buckets: known.buckets.clone(),
                    fixed_prefix: known.fixed_prefix.clone(),
                    ..Known::default()
                };
                self.export_image(&copy_request, known, &options, cost_line)
                    .await?
            }
        };
        if is_complete || outcome.state == OutcomeState::Complete {
            record.state = CopiesState::Exported;
            record.export_id = outcome.export_id.clone();
            // The export is done, whatever the disk says to its record.
            self.keep_copies(record);
            let troubles = self.remove_copies(record).await;
            outcome.warnings.extend(troubles);
        }
        Ok(outcome)
    }

    /// What the journal knows of the export of the last copy.
    fn export_of(
        &self,
        record: &CopyRecord,
        request: &ExportRequest,
    ) -> Result<Option<Record>, Error> {
        let Some(request) = of_copy(record, request) else {
            return Ok(None);
        };
        let export = self.journal.find(&request.identity())?;
        Ok(export.filter(|export| {
            export.state().is_live()
                || matches!(export.state(), RecordState::Complete | RecordState::Failed)
        }))
    }

    /// Deletes the copies behind the export `record`, which a `wait` has seen complete, unless another
    /// process of this machine is at it.
    pub(super) async fn remove_copies_after(&self, export: &Record) -> Result<Vec<String>, Error> {
        if export.copied_from.is_none() {
            return Ok(Vec::new());
        }
        let is_it = |copy: &CopyRecord| {
            let copy_id = copy.exported_copy().map(|(copy_id, _)| copy_id);
            copy_id == Some(&export.image_id) && copy.is_unfinished()
        };
        let Some(found) = self.all_copies()?.into_iter().find(is_it) else {
            return Ok(Vec::new());
        };
        let identity = found.identity();
        let locking = self.journal.lock(&identity, || {});
        let Ok(lock) = tokio::time::timeout(super::NO_PATIENCE, locking).await else {
            return Ok(Vec::new());
        };
        let _lock = lock?;
        let Some(mut record) = self.journal.find_copies(&identity)?.filter(is_it) else {
            return Ok(Vec::new());
        };
        record.state = CopiesState::Exported;
        record.export_id = Some(export.export_id.clone());
        self.keep_copies(&record);
        Ok(self.remove_copies(&mut record).await)
    }

    /// Says which copies stand in the account as far as the journal knows.
    pub(super) async fn tell_copies(&self) -> Result<(), Error> {
        for mut record in self.all_copies()? {
            let this = self.about(&record.image_id);
            if record.state == CopiesState::Abandoned {
                this.forget_gone(&mut record).await?;
            }
            if record.state != CopiesState::Over {
                this.tell_standing(&record);
            }
        }
        Ok(())
    }

    /// Every record of copies that can be read; another is said, and is of no concern to this run.
    fn all_copies(&self) -> Result<Vec<CopyRecord>, Error> {
        let (records, damaged) = self.journal.all_copies()?;
        for problem in damaged {
            self.events.warn(one_line(&problem));
        }
        Ok(records)
    }
}

/// The request for the copy that is exported in place of the image that `request` asks for.
fn of_copy(record: &CopyRecord, request: &ExportRequest) -> Option<ExportRequest> {
    let (copy, region) = record.exported_copy()?;
    Some(ExportRequest {
        image_id: copy.clone(),
        region: region.clone(),
        copied_from: Some(CopiedFrom {
            image_id: record.image_id.clone(),
            image_name: record.image_name.clone(),
            region: record.region.clone(),
        }),
        ..request.clone()
    })
}

/// The outcome of a run that ends before the copy could be exported.
fn unfinished(
    record: &CopyRecord,
    request: &ExportRequest,
    place: usize,
    made: Made,
) -> Option<ExportOutcome> {
    let step = &record.steps[place];
    let copy = |id: &Option<ImageId>| match id {
        Some(id) => format!("the copy `{id}`"),
        None => format!("the copy `{}`", step.name),
    };
    let (copy, region) = (copy(&step.copy), &step.to);
    let again = "the same command run again goes on";
    let (state, reason, interrupted) = match made {
        Made::Ready => return None,
        Made::TimedOut => (
            OutcomeState::Running,
            format!("{copy} is still being made in {region}, and this run's time is over; {again}"),
            false,
        ),
        Made::Interrupted if step.state == CopyState::Planned => (
            OutcomeState::Checked,
            "interrupted before the copy; nothing was started".to_owned(),
            true,
        ),
        Made::Interrupted => (
            OutcomeState::Running,
            format!("interrupted; {copy} goes on in {region}; {again}"),
            true,
        ),
        Made::Unknown => (
            OutcomeState::Unknown,
            format!("{copy} did not show in {region}"),
            false,
        ),
        Made::Failed(reason) => (OutcomeState::Failed, reason, false),
    };
    Some(ExportOutcome::before_export(
        request,
        state,
        reason,
        interrupted,
    ))
}
