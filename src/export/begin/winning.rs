//! A new attempt: the record, the lease, the second reading, the intent, the submit.

use super::{Round, Turn};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind};
use crate::export::Waiting;
use crate::export::grace::answer_within_grace;
use crate::export::lease::{Cleared, Creating, Lease, Opening};
use crate::export::leases::{Body, LeaseError, host_name};
use crate::export::outcome::ExportOutcome;
use crate::export::preflight::PreflightReport;
use crate::export::progress::Step;
use crate::export::record::Record;
use crate::export::resume::default_timeout;
use crate::export::submit::{Ready, Submission, Submitted, no_lease};
use crate::export::tracked::Tracked;
use crate::export::watch::WatchEnd;

impl<'a> Turn<'a> {
    /// Submits, once.
    pub(super) async fn begin(
        &self,
        report: &PreflightReport,
        opening: Option<Opening<Body>>,
    ) -> Result<Round<'a>, Error> {
        let Self {
            exporter,
            request,
            options,
            ..
        } = self;
        let record = exporter.begin(report, options);
        let timeout = options.timeout.unwrap_or_else(|| default_timeout(&record));
        // The queue and the watch share it; look-ups have limits of their own.
        let stopwatch = Stopwatch::start();
        let remaining = || timeout.saturating_sub(stopwatch.elapsed());
        // On disk before the lease can be seen by others.
        exporter.journal.begin(&record)?;
        let tracked = Tracked::of(exporter, record, options.keep_claim);
        let submission = Submission {
            exporter,
            call: request.to_call(),
            queueing: options.queueing,
            queue_pause: options.poll.is_fixed().then_some(options.poll.base),
            timeout: remaining(),
            if_exists: options.if_exists,
        };
        let ready = match self.clear(tracked, opening, &submission).await? {
            Ok(ready) => ready,
            Err(round) => return Ok(round),
        };
        let (submitted, mut tracked) = submission.send(ready).await?;
        match submitted {
            Submitted::Accepted if options.waiting == Waiting::Detach => {
                tracked.catch_up().await;
                Self::ended(ExportOutcome::of(tracked.record()).left_running())
            }
            Submitted::Accepted | Submitted::Lost => {
                Ok(Round::Watch(Box::new(tracked), remaining()))
            }
            Submitted::Interrupted => {
                tracked.refresh();
                Self::ended(ExportOutcome::after_watch(
                    tracked.record(),
                    WatchEnd::Interrupted,
                ))
            }
            Submitted::NeverStarted => self.never_started(),
            Submitted::Overtaken => Ok(Round::Again),
        }
    }

    /// Rule 7 where the files are reused all the same: gives up what is dead, and submits nothing.
    pub(super) async fn only_give_up(
        &self,
        report: &PreflightReport,
        opening: Opening<Body>,
    ) -> Result<Round<'a>, Error> {
        let mut intended = self.exporter.begin(report, self.options);
        // A new record is queued, so the table allows it.
        let _ = intended.step(Step::Intend {
            at: self.exporter.cloud.now(),
            attempt: Some(opening.number()),
        });
        match self.win(opening, intended, async || ()).await.map_err(no_lease)? {
            Winning::Won { lease, .. } => {
                lease.withdraw(&self.leases()).await.map_err(no_lease)?;
                Ok(Round::Again)
            }
            Winning::Lost => Ok(Round::Again),
            Winning::Alone(()) => Err(Error::new(
                ErrorKind::Permission,
                "these credentials may not write leases to the bucket, so the dead attempt cannot be abandoned",
            )
            .with_hint("allow `name/cos:PutObject`; without `--resubmit` the run waits for it")),
        }
    }

    /// Rules 4 to 6: wins the lease, reads the row again, and makes the intent durable.
    pub(super) async fn clear(
        &self,
        mut tracked: Tracked<'a>,
        opening: Option<Opening<Body>>,
        submission: &Submission<'a>,
    ) -> Result<Result<Ready<'a>, Round<'a>>, Error> {
        let exporter = self.exporter;
        let at = exporter.cloud.now();
        let sign = async || {
            let region = Some(&self.request.region);
            exporter.cloud.prepare(region, &submission.call, None).await
        };
        let (signed, lease) = match opening {
            None => (sign().await, None),
            Some(opening) => {
                let mut intended = tracked.record().clone();
                // The record is queued, so the table allows it.
                let _ = intended.step(Step::Intend {
                    at,
                    attempt: Some(opening.number()),
                });
                // If a signal cuts it off, it may exist all the same.
                let cut_off = Lease::of(opening.number(), intended.export_id.to_string());
                let winning = self.win(opening, intended, sign);
                match answer_within_grace(&exporter.cancel, &exporter.events, winning).await {
                    Some(Ok(Winning::Alone(signed))) => (signed, None),
                    Some(Ok(Winning::Won { signed, lease })) => (signed, Some(lease)),
                    Some(Ok(Winning::Lost)) => {
                        exporter.take_back(&mut tracked, None).await;
                        return Ok(Err(Round::Again));
                    }
                    Some(Err(error)) => {
                        exporter.take_back(&mut tracked, None).await;
                        exporter.tell_if_open(&tracked, &cut_off).await;
                        return Err(no_lease(error));
                    }
                    None => {
                        exporter.take_back(&mut tracked, Some(&cut_off)).await;
                        return self.never_started().map(Err);
                    }
                }
            }
        };
        if exporter.cancel.is_cancelled() {
            exporter.take_back(&mut tracked, lease.as_ref()).await;
            return self.never_started().map(Err);
        }
        if self.options.resubmit {
            // One that has no lease.
            self.abandon_own().await?;
        }
        let intend = Step::Intend {
            at,
            attempt: lease.as_ref().map(Lease::number),
        };
        if let Err(error) = tracked.step_durably(intend).await {
            exporter.take_back(&mut tracked, lease.as_ref()).await;
            return Err(error.into());
        }
        Ok(Ok(Ready {
            tracked,
            lease,
            signed,
        }))
    }

    async fn win<S>(
        &self,
        opening: Opening<Body>,
        intended: Record,
        sign: impl AsyncFn() -> S,
    ) -> Result<Winning<S>, LeaseError> {
        let leases = self.leases();
        let events = &self.exporter.events;
        let run = intended.export_id.to_string();
        let creating = opening
            .create(&leases, run, host_name(), Some(intended), &sign)
            .await?;
        let won = match creating {
            Creating::Won(won) => won,
            Creating::Lost => return Ok(Winning::Lost),
            // Rule 10.
            Creating::NotPermitted => {
                events.warn(
                    "these credentials may not write a lease to the bucket, so only this machine's journal knows this \
                     export: other machines may submit it too (allow `name/cos:PutObject`, or use `--no-claim`)",
                );
                return Ok(Winning::Alone(sign().await));
            }
        };
        if !won.is_honoured() {
            events.warn(
                "the bucket does not honour `x-cos-forbid-overwrite`, or did not show that it does (as where versioning \
                 is or was on): two machines that start the same export in the same second may both submit it; use an \
                 unversioned bucket, or one machine",
            );
        }
        match won.second_reading(&leases).await? {
            Cleared::Go {
                signed,
                lease,
                gave_up,
            } => {
                for (number, attempt) in gave_up {
                    events.warn(format!(
                        "attempt {number} (run {} on {}) is abandoned; if it did start an export, both are paid for",
                        attempt.run, attempt.host
                    ));
                    self.abandon(&attempt.run).await;
                }
                Ok(Winning::Won { signed, lease })
            }
            Cleared::Withdrawn | Cleared::Overtaken(_) => Ok(Winning::Lost),
        }
    }

    /// Notes in this machine's journal that an attempt was given up, if it knows it.
    pub(super) async fn abandon(&self, run: &str) {
        let Ok(export_id) = run.parse() else {
            return;
        };
        // Unknown here, or further by now: nothing to note.
        let _ = self
            .exporter
            .journal
            .advance(&export_id, Step::GiveUp)
            .await;
    }
}

enum Winning<S> {
    Won {
        signed: S,
        lease: Lease,
    },
    /// Without a lease.
    Alone(S),
    Lost,
}
