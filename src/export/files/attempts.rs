//! Each removal is an attempt of its export, so that no machine exports over what is being deleted (rule 8 of the
//! leases), and a second removal waits for the first.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use crate::error::{Error, ErrorKind, one_line};
use crate::export::lease::{
    Cleared, Creating, Decision, Kind, Lease, LeaseState, Number, Opening, Row, RowError, Wishes,
};
use crate::export::leases::{Body, LeaseError, host_name};
use crate::export::record::RecordState;
use crate::export::request::Identity;
use crate::export::tracked::Tracked;
use crate::export::{Exporter, NO_PATIENCE};
use crate::model::Region;

use super::draft;

/// Removals that are begun or ended together.
const CONCURRENT: usize = 16;

/// The removals that a run holds, by the hash of their export's identity.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<String, Held>);

#[derive(Debug)]
struct Held {
    identity: Identity,
    /// `None` if these credentials may not write leases.
    lease: Option<Lease>,
}

/// How removals are begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning<'a> {
    pub(super) exporter: &'a Exporter,
    pub(super) region: &'a Region,
    /// Whether dead removals are given up.
    pub(super) resubmit: bool,
}

impl Beginning<'_> {
    /// Begins a removal of each of `identities`; what keeps one from beginning is the value of its hash.
    pub(super) async fn all(
        &self,
        identities: Vec<Identity>,
    ) -> Result<(Attempts, BTreeMap<String, String>), Error> {
        let begun = identities.into_iter().map(|identity| async {
            let begun = self.one(&identity).await;
            (identity, begun)
        });
        let begun: Vec<_> = futures_util::stream::iter(begun)
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        let (mut attempts, mut refused) = (Attempts::default(), BTreeMap::new());
        let (mut is_alone, mut failure) = (false, None);
        for (identity, begun) in begun {
            match begun {
                Ok(Ok(lease)) => {
                    is_alone |= lease.is_none();
                    attempts.0.insert(identity.hash(), Held { identity, lease });
                }
                Ok(Err(reason)) => {
                    refused.insert(identity.hash(), reason);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // Those that had begun by then would keep other machines from their exports.
        if let Some(error) = failure {
            attempts.end(self.exporter, self.region, |_| false).await;
            return Err(error);
        }
        if is_alone {
            self.exporter.events.warn(
                "these credentials may not write leases to the bucket, so an export that another machine begins now is \
                 not kept from being deleted (allow `name/cos:PutObject`)",
            );
        }
        Ok((attempts, refused))
    }

    async fn one(&self, identity: &Identity) -> Result<Result<Option<Lease>, String>, Error> {
        let mut has_looked = false;
        // Twice: what runs by its lease may have ended, and nobody has looked since.
        let opening = loop {
            let leases = self.exporter.leases(self.region, identity.clone());
            let row = match Row::read(&leases).await {
                Ok(row) => row,
                Err(error) => return not_read(error),
            };
            match self.decide(&row).await {
                Ok(opening) => break opening,
                Err(_) if !has_looked => {
                    has_looked = true;
                    self.look_at(identity, &row).await?;
                }
                Err(reason) => return Ok(Err(reason)),
            }
        };
        match self.win(identity, opening).await {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Cos(error)) => {
                Ok(Err(format!("its lease could not be written ({error})")))
            }
            Err(error) => Ok(Err(one_line(&error))),
        }
    }

    async fn decide(&self, row: &Row<Body>) -> Result<Opening<Body>, String> {
        let wishes = Wishes {
            kind: Kind::Removal,
            is_resubmit: self.resubmit,
        };
        // Removals of this machine: the lock of all removals from this bucket is held here.
        let is_dead = |run: &str| self.exporter.journal.has_begun_removal(run);
        let number = match row.decide(wishes, is_dead) {
            Decision::Over(opening) => return Ok(opening),
            Decision::Attach(number) | Decision::Wait(number) => number,
            Decision::TooYoung { number, .. } => number,
        };
        let who = row.get(number).map_or_else(String::new, |seen| {
            let attempt = &seen.attempt;
            format!(" (run {} on {})", attempt.run, attempt.host)
        });
        let kind = row.get(number).map(|seen| seen.attempt.kind);
        Err(match kind {
            Some(Kind::Removal) => format!(
                "attempt {number}{who} is deleting it; if that has ended, `--resubmit` takes over after 30 minutes"
            ),
            _ => format!("attempt {number}{who} may be exporting it"),
        })
    }

    /// Looks at what is open by its lease, and brings the leases up to what is there.
    async fn look_at(&self, identity: &Identity, row: &Row<Body>) -> Result<(), Error> {
        for number in row.open() {
            let Some(attempt) = row.get(number).map(|seen| &seen.attempt) else {
                continue;
            };
            if attempt.kind == Kind::Removal
                && self.exporter.journal.has_begun_removal(&attempt.run)
            {
                // Killed: this process holds the lock that it held.
                let run = attempt.run.clone();
                self.exporter
                    .end_removal(self.region, identity, number, run)
                    .await;
                continue;
            }
            let Some(record) = &attempt.body else {
                continue;
            };
            let tracked = match self.exporter.journal.load(&record.export_id)? {
                Some(own) => Tracked::of(self.exporter, own, true),
                None => Tracked::elsewhere(self.exporter, record.clone()),
            };
            // Another copy than the one that was listed would be left alone.
            let mut tracked = tracked.without_copy();
            self.exporter.look_once(&mut tracked).await?;
            let is_overdue = draft::is_overdue(tracked.record(), self.exporter.cloud.now());
            if tracked.record().state() == RecordState::Submitted && is_overdue {
                tracked.vanish().await;
            }
        }
        Ok(())
    }

    async fn win(
        &self,
        identity: &Identity,
        opening: Opening<Body>,
    ) -> Result<Result<Option<Lease>, String>, LeaseError> {
        let leases = self.exporter.leases(self.region, identity.clone());
        let run = format!("rm-{:016x}", fastrand::u64(..));
        // Before the lease can be seen: a later run of this machine knows it for its own.
        self.exporter.journal.begin_removal(&run);
        let creating = opening.create(&leases, run.clone(), host_name(), None, async || ());
        let begun = match creating.await {
            Ok(Creating::NotPermitted) => Ok(Ok(None)),
            Ok(Creating::Lost) => Ok(Err(BEGUN.to_owned())),
            Ok(Creating::Won(won)) => match won.second_reading(&leases).await {
                Ok(Cleared::Go { lease, .. }) => return Ok(Ok(Some(lease))),
                Ok(Cleared::Withdrawn | Cleared::Overtaken(_)) => Ok(Err(BEGUN.to_owned())),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.exporter.journal.end_removal(&run);
        begun
    }
}

/// Why a removal that has lost its number does not go on.
const BEGUN: &str = "another run has begun to export or delete it meanwhile";

/// What to do where a row can't be read: one export stays, or the run ends.
fn not_read<T>(error: RowError<LeaseError>) -> Result<Result<T, String>, Error> {
    let reason = one_line(&error);
    let error = Error::from(error);
    match error.kind() {
        ErrorKind::Credentials => Err(error),
        _ => Ok(Err(format!("its leases could not be read: {reason}"))),
    }
}

impl Attempts {
    /// Makes sure before a further delete that the removal of `hash` is still the only open attempt (rule 6).
    pub(super) async fn renew(
        &mut self,
        exporter: &Exporter,
        region: &Region,
        hash: &str,
    ) -> Result<(), String> {
        let Some(held) = self.0.get_mut(hash) else {
            return Err("its removal is over".to_owned());
        };
        let Some(lease) = held.lease.take() else {
            return Ok(());
        };
        let leases = exporter.leases(region, held.identity.clone());
        let run = lease.run().to_owned();
        match lease
            .again(&leases, async || (), |attempt| attempt.body.clone())
            .await
        {
            Ok(Cleared::Go { lease, .. }) => {
                held.lease = Some(lease);
                Ok(())
            }
            Ok(Cleared::Withdrawn | Cleared::Overtaken(_)) => {
                exporter.journal.end_removal(&run);
                Err(BEGUN.to_owned())
            }
            Err(error) => Err(format!(
                "its lease could not be renewed ({})",
                one_line(&error)
            )),
        }
    }

    /// Ends all removals: `has_begun` says of which something may have been deleted.
    pub(super) async fn end(
        self,
        exporter: &Exporter,
        region: &Region,
        has_begun: impl Fn(&str) -> bool,
    ) {
        let has_begun = &has_begun;
        let ending = self.0.into_iter().filter_map(|(hash, held)| {
            let lease = held.lease?;
            Some(async move {
                let leases = exporter.leases(region, held.identity);
                let state = match has_begun(&hash) {
                    true => LeaseState::Removed,
                    false => LeaseState::Withdrawn,
                };
                match lease.step(&leases, state, |_| None).await {
                    Ok(_) => exporter.journal.end_removal(lease.run()),
                    Err(error) => exporter.events.warn(format!(
                        "the end of a removal could not be noted in the bucket ({}); the next run on this machine notes \
                         it",
                        one_line(&error)
                    )),
                }
            })
        });
        let ending = futures_util::stream::iter(ending).buffer_unordered(CONCURRENT);
        ending.collect::<()>().await;
    }
}

impl Exporter {
    /// Ends the removals of an export that this machine began and whose processes were killed.
    pub(super) async fn end_dead_removals(&self, region: &Region, identity: &Identity) {
        // What can't be read now is ended by the next export or removal.
        let Ok(row) = Row::read(&self.leases(region, identity.clone())).await else {
            return;
        };
        for number in row.open() {
            let attempt = row.get(number).map(|seen| &seen.attempt);
            if let Some(removal) = attempt.filter(|attempt| attempt.kind == Kind::Removal) {
                self.end_dead_removal(region, identity, number, &removal.run)
                    .await;
            }
        }
    }

    /// Ends a removal if this machine began it and its process was killed. Whether it did.
    pub(in crate::export) async fn end_dead_removal(
        &self,
        region: &Region,
        identity: &Identity,
        number: Number,
        run: &str,
    ) -> bool {
        if !self.journal.has_begun_removal(run) {
            return false;
        }
        // Whoever deletes holds this lock.
        let locking = self.journal.lock_removals(&identity.bucket, || {});
        let Ok(Ok(_lock)) = tokio::time::timeout(NO_PATIENCE, locking).await else {
            return false;
        };
        self.end_removal(region, identity, number, run.to_owned())
            .await;
        true
    }

    /// Ends the lease of a removal of this machine that was killed. The lock of its removals is held.
    async fn end_removal(&self, region: &Region, identity: &Identity, number: Number, run: String) {
        let lease = Lease::of(number, run.clone());
        let leases = self.leases(region, identity.clone());
        if lease
            .step(&leases, LeaseState::Removed, |_| None)
            .await
            .is_ok()
        {
            self.journal.end_removal(&run);
        }
    }
}
