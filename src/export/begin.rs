//! From a request to its export: what exists already is attached to or reused; else one lease, one submit, one watch.
//!
//! ```text
//! lock ─► journal ─► row, then files ─► decide ─┬─ attach, wait, reuse, refuse
//!              ▲                                └─ begin: record ─► lease ─► second reading ─► intent ─► submit
//!              └──────── another run was faster: nothing was sent ───────────────┘
//! ```
//!
//! The numbered rules are those of [`super::lease`].

mod others;
mod winning;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::attach::{Found, Source};
use super::journal::Lock;
use super::lease::{Decision, Kind, Opening, Row, Wishes};
use super::leases::{Body, CosLeases};
use super::preflight::{Existing, IfExists, PreflightReport, RowFact, RowTrouble};
use super::progress::Step;
use super::record::{Record, RecordState};
use super::request::{ExportRequest, Identity};
use super::resume::{covers, sign_window};
use super::tracked::Tracked;
use super::{CostLine, ExportOptions, ExportOutcome, Exporter, Known, Locked, LookUp};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::model::{CheckName, Region};
use others::record_of;

/// How often a run starts again because another one was faster. Each time that one has gone further.
const MOST_ROUNDS: usize = 20;

/// What one round brought.
enum Round<'a> {
    Ended(Box<ExportOutcome>),
    /// Another run was faster, or was waited for: start again with what exists now.
    Again,
    /// An export that runs, or is complete: it is attached to without the lock.
    Attach(Box<Found>),
    /// This run has submitted, or may have: watch within this time.
    Watch(Box<Tracked<'a>>, Duration),
}

/// What a run that has a decision still needs to know.
struct Turn<'a> {
    exporter: &'a Exporter,
    request: &'a ExportRequest,
    options: &'a ExportOptions,
    /// How long this run has taken so far.
    stopwatch: Stopwatch,
    /// When this run began to wait for another process of this machine, if it did.
    waited_since: Option<DateTime<Utc>>,
}

impl Exporter {
    /// Exports the image of `request` as it is.
    pub(super) async fn export_image(
        &self,
        request: &ExportRequest,
        mut known: Known,
        options: &ExportOptions,
        mut cost_line: CostLine,
    ) -> Result<ExportOutcome, Error> {
        let this = self.about(request.asked_image());
        let begun = this.cloud.now();
        let (lock, has_waited): (Lock, bool) = match this.lock(&request.identity(), options).await?
        {
            Locked::Held { lock, has_waited } => (lock, has_waited),
            Locked::Interrupted => return Ok(ExportOutcome::never_started(request)),
            Locked::TimedOut => return this.while_locked(request),
        };
        let turn = Turn {
            exporter: &this,
            request,
            options,
            stopwatch: Stopwatch::start(),
            waited_since: has_waited.then_some(begun),
        };
        for _ in 0..MOST_ROUNDS {
            match turn.round(&mut known, &mut cost_line).await? {
                Round::Ended(outcome) => return Ok(*outcome),
                Round::Again => {}
                Round::Attach(found) => {
                    drop(lock);
                    return this.finish_or_watch(*found, request.scope, options).await;
                }
                Round::Watch(mut tracked, timeout) => {
                    drop(lock);
                    let window = sign_window(tracked.record());
                    return this
                        .watch_to_end(&mut tracked, timeout, window, options)
                        .await;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Quota,
            "other runs begin the same export again and again; this one started nothing",
        )
        .with_hint("run the command again"))
    }

    /// The leases of an export.
    pub(super) fn leases(&self, region: &Region, identity: Identity) -> CosLeases<'_> {
        CosLeases::new(&self.cloud, region, identity, Arc::clone(&self.is_guarded))
    }
}

impl<'a> Turn<'a> {
    fn ended(outcome: ExportOutcome) -> Result<Round<'a>, Error> {
        Ok(Round::Ended(Box::new(outcome)))
    }

    fn never_started(&self) -> Result<Round<'a>, Error> {
        Self::ended(ExportOutcome::never_started(self.request))
    }

    fn leases(&self) -> CosLeases<'a> {
        self.exporter
            .leases(&self.request.region, self.request.identity())
    }

    async fn round(&self, known: &mut Known, cost_line: &mut CostLine) -> Result<Round<'a>, Error> {
        let Self {
            exporter,
            request,
            options,
            ..
        } = self;
        if let Some(round) = self.by_journal().await? {
            return Ok(round);
        }
        let looking = exporter.look_up(request, known.clone(), options, LookUp::BeforeSubmit, None);
        let report = tokio::select! {
            () = exporter.cancel.cancelled() => return self.never_started(),
            report = looking => report?,
        };
        // Another round need not ask for them again.
        known.image = report.facts.image.clone();
        known.buckets = report.facts.buckets.clone();
        let opening = match &report.facts.row {
            RowFact::NotAsked => {
                self.abandon_own().await?;
                None
            }
            RowFact::Unusable(error) => return Err(self.unusable(&report, error)),
            RowFact::Known(row) => match self.by_row(row).await? {
                Ok(opening) => Some(opening),
                Err(round) => return Ok(round),
            },
        };
        if !report.facts.is_reused(options.if_exists) || *cost_line == CostLine::Due {
            exporter.events.emit(EventKind::Checked {
                findings: report.findings.clone(),
            });
        }
        if let Existing::Exported(record) = &report.facts.existing
            && options.if_exists == IfExists::Reuse
        {
            // Rule 4: proven by their names alone, they may be of an attempt that has begun since the row was read.
            if record.attempt.is_none()
                && let Some(opening) = &opening
                && self.has_moved(opening).await?
            {
                return Ok(Round::Again);
            }
            if let Some(opening) = opening.filter(Opening::gives_up_any) {
                return self.only_give_up(&report, opening).await;
            }
            return self.reuse(&report, record).await;
        }
        if *cost_line == CostLine::Due {
            exporter.tell_cost(&report);
            *cost_line = CostLine::Said;
        }
        if matches!(report.facts.existing, Existing::Strange(_))
            && let Some(opening) = &opening
            && options.if_exists == IfExists::Reuse
            && self.has_moved(opening).await?
        {
            // Rule 4: files that nothing explains may be of an attempt that has ended meanwhile.
            return Ok(Round::Again);
        }
        report.require(&options.skipped_checks)?;
        self.begin(&report, opening).await
    }

    /// Why nothing can be submitted where the leases cannot be read: what the checks saw says more, but without the
    /// leases files cannot be judged.
    fn unusable(&self, report: &PreflightReport, trouble: &RowTrouble) -> Error {
        self.exporter.events.emit(EventKind::Checked {
            findings: report.findings.clone(),
        });
        let mut skipped = self.options.skipped_checks.clone();
        skipped.push(CheckName::NameCollision);
        let refused = report.require(&skipped).err();
        let failed = refused.filter(|error| error.kind() == ErrorKind::Precondition);
        failed.unwrap_or_else(|| trouble.error())
    }

    /// What this machine's journal alone decides.
    async fn by_journal(&self) -> Result<Option<Round<'a>>, Error> {
        let Self {
            exporter,
            request,
            options,
            ..
        } = self;
        self.end_dead_queues().await?;
        let Some(record) = exporter.journal.find(&request.identity())? else {
            return Ok(None);
        };
        let is_complete = record.state() == RecordState::Complete;
        // Whoever held the lock has made this very export meanwhile.
        let is_result = is_complete
            && self
                .waited_since
                .is_some_and(|begun| record.ended_after(begun))
            && !options.resubmit;
        if is_result {
            return Self::ended(ExportOutcome::of(&record).reused()).map(Some);
        }
        if let Some(outcome) = exporter.still_owed(&record, request, options).await? {
            return Self::ended(outcome).map(Some);
        }
        let is_attached = match record.state() {
            RecordState::Submitted => true,
            // What another machine began is decided by its lease.
            RecordState::Intended => !options.resubmit && !record.adopted,
            _ => false,
        };
        if !is_attached {
            return Ok(None);
        }
        let record = self.with_lease(record).await;
        if !record.state().is_live() {
            return Ok(None);
        }
        self.attach(record, Source::Journal).await.map(Some)
    }

    /// Ends what runs of this machine had begun that were killed before they sent anything, or while they queued: the
    /// lock is held here.
    async fn end_dead_queues(&self) -> Result<(), Error> {
        let journal = &self.exporter.journal;
        let records = journal.records_of(&self.request.identity())?.into_iter();
        let is_dead = |record: &Record| record.state() == RecordState::Queued && !record.adopted;
        for record in records.filter(is_dead) {
            let mut tracked = Tracked::of(self.exporter, record, false);
            // Its lease, if there is one, is withdrawn as soon as the row is read.
            self.exporter.take_back(&mut tracked, None).await;
        }
        Ok(())
    }

    /// The record of this machine with what its lease knows.
    async fn with_lease(&self, record: Record) -> Record {
        let mut tracked = Tracked::of(self.exporter, record, self.options.keep_claim);
        tokio::select! {
            () = self.exporter.cancel.cancelled() => {}
            _ = tracked.look_at_lease() => {}
        }
        tracked.into_record()
    }

    /// Attaches to an export that may be running.
    async fn attach(&self, record: Record, source: Source) -> Result<Round<'a>, Error> {
        let running = self.exporter.still_running(
            record,
            source,
            self.request,
            self.options,
            self.waited_since,
        );
        Ok(match running.await? {
            Some(found) => Round::Attach(Box::new(found)),
            // It is over; its files are judged as any.
            None => Round::Again,
        })
    }

    /// Without leases, `--resubmit` rests on the journal alone.
    async fn abandon_own(&self) -> Result<(), Error> {
        let journal = &self.exporter.journal;
        let own = journal.find(&self.request.identity())?;
        let own = own.filter(|own| own.state() == RecordState::Intended);
        if let Some(own) = own.filter(|_| self.options.resubmit) {
            let mut tracked = Tracked::of(self.exporter, own, false);
            tracked.step_durably(Step::GiveUp).await?;
        }
        Ok(())
    }

    /// Rule 4, as far as the row decides: the right to begin, or what this round brought.
    async fn by_row(&self, row: &Row<Body>) -> Result<Result<Opening<Body>, Round<'a>>, Error> {
        if self.repair(row).await? {
            return Ok(Err(Round::Again));
        }
        let wishes = Wishes {
            kind: Kind::Export,
            is_resubmit: self.options.resubmit,
        };
        // The lock of this machine is held here, so whoever has begun an attempt by this journal has ended.
        let journal = &self.exporter.journal;
        let is_dead = |run: &str| {
            let id = run.parse().ok();
            id.is_some_and(|id| matches!(journal.load(&id), Ok(Some(own)) if !own.adopted))
        };
        let round = match row.decide(wishes, is_dead) {
            Decision::Over(opening) => {
                if let Some(record) = self.shows(row, &opening).await? {
                    // What shows may be of an attempt that has begun since the row was read.
                    if self.has_moved(&opening).await? {
                        return Ok(Err(Round::Again));
                    }
                    let record = self.exporter.adopt(record).await;
                    return self.attach(record, Source::Claim).await.map(Err);
                }
                return Ok(Ok(opening));
            }
            Decision::Attach(number) => match record_of(row, number) {
                Some(record) => {
                    let record = self.exporter.adopt(record).await;
                    self.attach(record, Source::Claim).await?
                }
                None => Round::Again,
            },
            Decision::Wait(number) => self.wait_for(row, number).await?,
            Decision::TooYoung { number, wait } => {
                let left = self.left();
                if left < wait {
                    return self.unknown(row, number, Some(wait)).map(Err);
                }
                self.exporter.events.emit(EventKind::Settled {
                    message: format!(
                        "attempt {number} was written too recently: waiting {} s before it is abandoned",
                        wait.as_secs()
                    ),
                });
                self.watch_row(row, number, wait).await?;
                match self.exporter.cancel.is_cancelled() {
                    true => return self.never_started().map(Err),
                    false => Round::Again,
                }
            }
        };
        Ok(Err(round))
    }

    /// Whether the row is another one than `opening` was decided on.
    async fn has_moved(&self, opening: &Opening<Body>) -> Result<bool, Error> {
        let row = Row::read(&self.leases()).await?;
        Ok(!opening.is_of(&row))
    }

    /// Takes files that exist already as the result.
    async fn reuse(&self, report: &PreflightReport, record: &Record) -> Result<Round<'a>, Error> {
        let Self {
            exporter, options, ..
        } = self;
        covers(record, self.request.scope, &exporter.events)?;
        report.require_for_download(&options.skipped_checks)?;
        let mut record = exporter.adopt(record.clone()).await;
        if record.state() != RecordState::Complete {
            return self.attach(record, Source::Bucket).await;
        }
        if options.landing.is_some() {
            let mut tracked = Tracked::of(exporter, record, false);
            let _ = tracked.step(Step::Owe).await;
            record = tracked.into_record();
        }
        let age = record.completed_at.map(|time| exporter.cloud.now() - time);
        exporter.events.emit(EventKind::Reused {
            export_id: record.export_id.clone(),
            age: age.and_then(|age| age.to_std().ok()),
        });
        Self::ended(ExportOutcome::of(&record).reused())
    }
}
