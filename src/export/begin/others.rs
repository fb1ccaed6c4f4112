//! What other runs and machines have begun: repaired, waited for, or named to the user.

use std::time::Duration;

use super::{Round, Turn};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::export::TIMEOUT_BASE;
use crate::export::attach::Source;
use crate::export::lease::{
    Attempt, Bucket as _, Kind, Lease, LeaseState, Number, Opening, Row, Seen,
};
use crate::export::leases::{Body, lease_state};
use crate::export::outcome::ExportOutcome;
use crate::export::record::{Record, RecordState};
use crate::export::resume::{SIGN_WINDOW, covers, sign_window};
use crate::export::submit::no_lease;
use crate::export::tracked::Tracked;
use crate::export::watch::WatchEnd;

/// How often the lease of another run is read while it is waited for.
const LEASE_POLL: Duration = Duration::from_secs(2);

impl<'a> Turn<'a> {
    /// Brings leases up to what this machine's journal knows of their attempts. Whether any was changed.
    pub(super) async fn repair(&self, row: &Row<Body>) -> Result<bool, Error> {
        let mut has_changed = false;
        for number in row.open() {
            let Some(seen) = row.get(number) else {
                continue;
            };
            if seen.attempt.kind == Kind::Removal {
                let (region, identity) = (&self.request.region, self.request.identity());
                let run = &seen.attempt.run;
                has_changed |= self
                    .exporter
                    .end_dead_removal(region, &identity, number, run)
                    .await;
                continue;
            }
            let Ok(export_id) = seen.attempt.run.parse() else {
                continue;
            };
            let own = self.exporter.journal.load(&export_id)?;
            let Some(own) = own.filter(|own| !own.adopted) else {
                continue;
            };
            let lease = Lease::of(number, seen.attempt.run.clone());
            let mut tracked = Tracked::of(self.exporter, own, false);
            let state = match tracked.record().state() {
                // Killed before the intent was on disk: nothing was sent.
                RecordState::Queued => {
                    self.exporter.take_back(&mut tracked, Some(&lease)).await;
                    has_changed = true;
                    continue;
                }
                RecordState::Intended => continue,
                // Abandoned here before it was sent.
                RecordState::Abandoned => LeaseState::Withdrawn,
                _ => lease_state(tracked.record()),
            };
            if seen.attempt.may_become(state) {
                let record = tracked.record();
                let stepped = lease
                    .step(&self.leases(), state, |_| Some(record.published()))
                    .await;
                stepped.map_err(no_lease)?;
                has_changed = true;
            }
        }
        Ok(has_changed)
    }

    /// Of the attempts that are to be given up, the one of which something shows in the bucket after all.
    pub(super) async fn shows(
        &self,
        row: &Row<Body>,
        opening: &Opening<Body>,
    ) -> Result<Option<Record>, Error> {
        for (number, _) in opening.gives_up() {
            let Some(record) =
                record_of(row, number).filter(|it| it.state() == RecordState::Intended)
            else {
                continue;
            };
            // Noted nowhere yet: the row is read again first.
            let mut tracked = Tracked::in_memory(self.exporter, record.clone());
            self.exporter.look_once(&mut tracked).await?;
            if tracked.record().state() != RecordState::Intended {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Waits for an attempt of unknown outcome of another run.
    pub(super) async fn wait_for(
        &self,
        row: &Row<Body>,
        number: Number,
    ) -> Result<Round<'a>, Error> {
        let Some(seen) = row.get(number) else {
            return Ok(Round::Again);
        };
        let is_sent = seen.attempt.state == LeaseState::Intended;
        let Some(record) = record_of(row, number).filter(|_| is_sent) else {
            self.exporter.events.emit(EventKind::Settled {
                message: format!(
                    "attempt {number} (run {} on {}) has not ended: waiting for it",
                    seen.attempt.run, seen.attempt.host
                ),
            });
            let limit = self.left().min(SIGN_WINDOW);
            let has_changed = self.watch_row(row, number, limit).await?;
            return match has_changed {
                _ if self.exporter.cancel.is_cancelled() => self.never_started(),
                true => Ok(Round::Again),
                false if seen.attempt.state == LeaseState::Queued => {
                    Err(waits_its_turn(number, &seen.attempt))
                }
                false => self.unknown(row, number, None),
            };
        };
        covers(&record, self.request.scope, &self.exporter.events)?;
        let record = self.exporter.adopt(record).await;
        self.exporter.tell_attached(&record, Source::Claim);
        let mut tracked = Tracked::of(self.exporter, record, self.options.keep_claim);
        let timeout = self.left();
        let window = sign_window(tracked.record());
        let watching = self
            .exporter
            .watch_end(&mut tracked, timeout, window, self.options);
        match watching.await? {
            WatchEnd::Overtaken => Ok(Round::Again),
            WatchEnd::Unknown => self.unknown(row, number, None),
            end => Self::ended(ExportOutcome::after_watch(tracked.record(), end)),
        }
    }

    /// Reads one lease again and again until it changes, `limit` is over, or a signal comes. Whether it has changed.
    pub(super) async fn watch_row(
        &self,
        row: &Row<Body>,
        number: Number,
        limit: Duration,
    ) -> Result<bool, Error> {
        let leases = self.leases();
        let stopwatch = Stopwatch::start();
        let etag = |seen: Option<&Seen<Body>>| seen.map(|seen| seen.etag.clone());
        let before = etag(row.get(number));
        loop {
            let left = limit.saturating_sub(stopwatch.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let pause = match self.options.poll.is_fixed() {
                true => self.options.poll.base,
                false => LEASE_POLL,
            };
            tokio::select! {
                () = self.exporter.cancel.cancelled() => return Ok(false),
                () = tokio::time::sleep(pause.min(left)) => {}
            }
            // An answer that does not come says nothing new.
            if let Ok(now) = leases.get(number).await
                && etag(now.as_ref()) != before
            {
                return Ok(true);
            }
        }
    }

    /// Exit 11: who may have started an export, and what leads on.
    pub(super) fn unknown(
        &self,
        row: &Row<Body>,
        number: Number,
        wait: Option<Duration>,
    ) -> Result<Round<'a>, Error> {
        let Some(seen) = row.get(number) else {
            return Ok(Round::Again);
        };
        let attempt = &seen.attempt;
        let time = attempt.body.as_ref().and_then(|record| record.submitted_at);
        let time = time.map_or_else(String::new, |time| {
            format!(", {}", time.format("%Y-%m-%d %H:%M UTC"))
        });
        let who = format!(
            "attempt {number} (run {} on {}{time})",
            attempt.run, attempt.host
        );
        let reason = match (attempt.kind, wait) {
            (Kind::Removal, Some(wait)) => format!(
                "{who} deletes the files of this export, and has not ended; it can be abandoned with `--resubmit` in \
                 {} minutes",
                wait.as_secs().div_ceil(60)
            ),
            (Kind::Removal, None) => format!(
                "{who} deletes the files of this export, and has not ended; if it is dead, `--resubmit` abandons it 30 \
                 minutes after its last step"
            ),
            (Kind::Export, Some(wait)) => format!(
                "{who} may have started an export; it can be abandoned with `--resubmit` in {} minutes",
                wait.as_secs().div_ceil(60)
            ),
            (Kind::Export, None) => format!(
                "{who} may have started an export; nothing in the bucket shows one. `--resubmit` abandons it. If it \
                 did start, both exports are paid for and write the same names: the later one stays"
            ),
        };
        let mut outcome = match &attempt.body {
            Some(record) => ExportOutcome::of(record),
            None => ExportOutcome::never_started(self.request),
        };
        outcome.interrupted = false;
        outcome.set_unknown(reason);
        Self::ended(outcome)
    }

    /// How long this run may still take.
    pub(super) fn left(&self) -> Duration {
        let timeout = self.options.timeout.unwrap_or(TIMEOUT_BASE);
        timeout.saturating_sub(self.stopwatch.elapsed())
    }
}

/// Another machine had sent nothing, and did not go on while this run waited for it.
fn waits_its_turn(number: Number, attempt: &Attempt<Body>) -> Error {
    Error::new(
        ErrorKind::Quota,
        format!(
            "attempt {number} (run {} on {}) waits for its turn to submit the same export; this run started nothing",
            attempt.run, attempt.host
        ),
    )
    .with_hint(
        "run the command again; an attempt that does not go on for 15 minutes is abandoned by the next run",
    )
}

/// The record of an attempt, in the state of its lease.
pub(super) fn record_of(row: &Row<Body>, number: Number) -> Option<Record> {
    let seen = row.get(number)?;
    seen.attempt.body.clone()
}
