//! A record that a run follows. Every step goes to the journal first, then to its lease, then to the copy for readers.
//!
//! Nothing is written from memory: the journal takes the step on the record as it is on disk, the lease on what is in
//! the bucket. After the submit the export does not depend on either, so what cannot be written is said once, and
//! tried again with the next step or observation.

use std::time::Duration;

use super::Exporter;
use super::claim;
use super::journal::{AdvanceError, JournalError};
use super::lease::{Bucket as _, Lease, LeaseState, Stepped};
use super::leases::{CosLeases, LeaseError, lease_state};
use super::progress::{IllegalStep, Step};
use super::record::{Record, RecordState};
use crate::error::one_line;

/// How long bringing the bucket up to date may hold a run up; the journal has it already.
const UPDATE_LIMIT: Duration = Duration::from_secs(10);

/// A record, where it is kept, and its lease.
#[derive(Debug)]
pub(super) struct Tracked<'a> {
    exporter: &'a Exporter,
    record: Record,
    place: Place,
    keeps_claim: bool,
    /// Whether the copy for readers is written with the lease.
    keeps_copy: bool,
    /// Whether the lease or the copy is behind the record.
    is_behind: bool,
    has_warned: bool,
}

/// Where a record is kept on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Journal,
    /// Synthetic, or there is no journal.
    Memory,
}

/// Another process has brought the record where the step may not follow. The record is the newest.
#[derive(Debug)]
pub(super) struct Overtaken;

impl<'a> Tracked<'a> {
    /// Follows a record that is in the journal; `keeps_claim` says whether its lease is written as well.
    pub(super) fn of(exporter: &'a Exporter, record: Record, keeps_claim: bool) -> Self {
        Self {
            exporter,
            record,
            place: Place::Journal,
            keeps_claim,
            keeps_copy: true,
            is_behind: false,
            has_warned: false,
        }
    }

    /// Follows a record that is kept nowhere.
    pub(super) fn in_memory(exporter: &'a Exporter, record: Record) -> Self {
        Self {
            place: Place::Memory,
            ..Self::of(exporter, record, false)
        }
    }

    /// Follows an export of another machine that is to be noted in its lease alone.
    pub(super) fn elsewhere(exporter: &'a Exporter, record: Record) -> Self {
        Self {
            keeps_claim: true,
            ..Self::in_memory(exporter, record)
        }
    }

    /// The same, but the copy for readers stays as it is: it is to be deleted, as it was listed.
    pub(super) fn without_copy(self) -> Self {
        Self {
            keeps_copy: false,
            ..self
        }
    }

    /// Notes that the export has failed: it was submitted so long ago that it can't be running.
    pub(super) async fn vanish(&mut self) {
        // Overtaken: it has ended in another way.
        let _ = self.step(Step::Vanish).await;
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    /// Its lease, if it has one and that is written.
    fn lease(&self) -> Option<Lease> {
        let number = self.record.attempt.filter(|_| self.keeps_claim)?;
        Some(Lease::of(number, self.record.export_id.to_string()))
    }

    pub(super) fn leases(&self) -> CosLeases<'a> {
        self.exporter
            .leases(&self.record.region, self.record.identity())
    }

    /// Takes a step of an export that was submitted, or whose submit may have been sent.
    ///
    /// # Errors
    /// [`Overtaken`].
    pub(super) async fn step(&mut self, step: Step) -> Result<(), Overtaken> {
        let taken = self.step_here(step).await;
        self.catch_up().await;
        taken
    }

    /// As [`Self::step`], and leaves the bucket to the next [`Self::catch_up`].
    ///
    /// # Errors
    /// [`Overtaken`].
    pub(super) async fn step_here(&mut self, step: Step) -> Result<(), Overtaken> {
        let before = self.record.clone();
        let taken = self.in_journal(step).await;
        if taken.is_ok() && self.record.to_json() != before.to_json() {
            self.is_behind = true;
        }
        taken.map_err(|_| Overtaken)
    }

    /// Takes a step that must be on disk before anything else happens.
    ///
    /// # Errors
    /// [`JournalError`]; nothing has changed then. A step that the table refuses is one as well.
    pub(super) async fn step_durably(&mut self, step: Step) -> Result<(), JournalError> {
        let id = &self.record.export_id;
        match self.exporter.journal.advance(id, step).await {
            Ok(record) => {
                self.record = record;
                Ok(())
            }
            Err(AdvanceError::Journal(error)) => Err(error),
            Err(AdvanceError::Overtaken(record, illegal)) => {
                self.record = *record;
                Err(JournalError::Overtaken(illegal.to_string()))
            }
            Err(AdvanceError::Missing(_)) => Err(JournalError::Absent),
        }
    }

    async fn in_journal(&mut self, step: Step) -> Result<(), IllegalStep> {
        if self.place == Place::Memory {
            return self.record.step(step);
        }
        let advancing = self
            .exporter
            .journal
            .advance(&self.record.export_id, step.clone());
        match advancing.await {
            Ok(record) => {
                self.record = record;
                Ok(())
            }
            Err(AdvanceError::Overtaken(record, illegal)) => {
                self.record = *record;
                Err(illegal)
            }
            // Pruned meanwhile.
            Err(AdvanceError::Missing(_)) => self.record.step(step),
            Err(AdvanceError::Journal(error)) => {
                self.exporter.events.warn(one_line(&error));
                self.record.step(step)
            }
        }
    }

    /// Reads the record as another process may have left it. Whether it is over by now, and was not.
    pub(super) fn refresh(&mut self) -> bool {
        if self.place == Place::Memory {
            return false;
        }
        let current = self
            .exporter
            .journal
            .load(&self.record.export_id)
            .ok()
            .flatten();
        let Some(current) = current else {
            return false;
        };
        let was_over = self.record.state().is_over();
        self.record = current;
        !was_over && self.record.state().is_over()
    }

    /// Rule 3: brings lease and copy up to what the record says, if they are behind.
    pub(super) async fn catch_up(&mut self) {
        if !self.is_behind || self.lease().is_none() {
            return;
        }
        let updating = self.update();
        match tokio::time::timeout(UPDATE_LIMIT, updating).await {
            Ok(Ok(())) => self.is_behind = false,
            Ok(Err(error)) => self.warn(&one_line(&error)),
            Err(_) => self.warn("COS did not answer in time"),
        }
    }

    async fn update(&self) -> Result<(), LeaseError> {
        let Some(lease) = self.lease() else {
            return Ok(());
        };
        let leases = self.leases();
        let merged = |body: &Option<Record>| {
            let mut record = self.record.published();
            if let Some(other) = body {
                record.merge(other);
            }
            Some(record)
        };
        let state = lease_state(&self.record);
        let leasing = async {
            let stepped = lease
                .step(&leases, state, |attempt| merged(&attempt.body))
                .await?;
            if let Stepped::Already(attempt) = stepped
                && !matches!(attempt.state, LeaseState::Queued | LeaseState::Intended)
                && self.knows_more_than(attempt.body.as_ref())
            {
                // The state is the same, and files, checksums or the download have been noted since.
                lease.note(&leases, |attempt| merged(&attempt.body)).await?;
            }
            Ok(())
        };
        let is_shown =
            self.record.state() == RecordState::Submitted || self.record.state().is_over();
        // What `files rm` has deleted does not come back.
        if !is_shown || !self.keeps_copy || self.record.removed_at.is_some() {
            return leasing.await;
        }
        let publishing = claim::publish(&self.exporter.cloud, &self.record);
        let (leased, published) = tokio::join!(leasing, publishing);
        leased?;
        Ok(published?)
    }

    fn knows_more_than(&self, body: Option<&Record>) -> bool {
        body.is_none_or(|body| body.to_json() != self.record.published().to_json())
    }

    /// Reads the lease, and merges what it knows of an export that was submitted or is over. Its state, if it could be
    /// read.
    pub(super) async fn look_at_lease(&mut self) -> Option<LeaseState> {
        let lease = self.lease()?;
        let attempt = self.leases().get(lease.number()).await.ok()??.attempt;
        if attempt.run != lease.run() {
            return None;
        }
        if attempt.state.is_decided()
            && let Some(record) = attempt.body
        {
            self.record = match self.place {
                Place::Journal => self.exporter.adopt(record).await,
                Place::Memory => record,
            };
        }
        Some(attempt.state)
    }

    fn warn(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            self.exporter.events.warn(format!(
                "the lease of this export could not be written to the bucket ({reason}), so other machines do not see \
                 how far it is; it is tried again (allow `name/cos:PutObject` and `name/cos:GetObject`)"
            ));
        }
    }
}
