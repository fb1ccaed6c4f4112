//! Who may submit, between machines that share nothing but a bucket: the protocol of the leases.
//!
//! Attempt *n* of an identity is one object in the bucket, its lease, and all leases together are the row. The rules:
//!
//! 1. A lease is created once, with a header that forbids overwriting, and never deleted.
//! 2. What exists is the whole row, read 1, 2, 3, … until 404, and *then* the files. Open attempts count above the floor.
//! 3. A lease is written only by steps of its own attempt: sign, read, compare the run, put.
//! 4. A submitted attempt: attach. Another open one: wait. Nothing open: the files decide; create the next number.
//! 5. After winning, read the row again. It must be what was decided on, with the own lease on top.
//! 6. The request is signed before the last put of the own lease and sent after the reading that follows it.
//! 7. An attempt of unknown outcome is given up only on request, only when it is old, and by name.
//! 8. A removal is an attempt.
//! 9. Whether the header is honoured is tested.
//! 10. Only a missing right to put lets a run go on without a lease.
//!
//! Why this holds: an owner puts its lease and then reads the row; who gives it up creates the next lease and then reads the
//! row. One of them sees the other, or the owner's signature has expired: it is valid for five minutes, and a lease is
//! given up fifteen minutes after its last put. The tests search the orders in which the calls of several machines can
//! happen, with this same code.
//!
//! The values [`Opening`], [`Won`] and [`Cleared::Go`] are consumed one after the other, so that a send without its second
//! reading does not compile. A future of this module must not be dropped halfway: await it, then [`Lease::withdraw`].

mod row;
#[cfg(test)]
mod search;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use row::{Decision, Opening, Row, RowError, Wishes};
pub(crate) use state::{Attempt, Kind, LeaseState, Number};

/// How often a put that had no answer, or was refused for the moment, is tried again.
const RETRIES: u32 = 4;

/// A lease as one answer showed it.
#[derive(Clone, Debug)]
pub(crate) struct Seen<B> {
    pub(crate) attempt: Attempt<B>,
    pub(crate) etag: String,
    /// `Date` minus `Last-Modified` of this answer: no clock but the server's counts.
    pub(crate) age: Duration,
}

/// What creating a lease brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Created {
    New,
    /// 409: the object exists.
    Taken,
    /// The identity has no right to put. Nothing else counts as this: a skewed clock or an expired token is an error.
    NotPermitted,
}

/// Why the protocol pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Before the same put again; counts from 0.
    Retry(u32),
    /// The header is not honoured: longer than it takes all others that saw the same row to create their lease.
    Arbitration,
    /// Two runs have withdrawn because of each other. At random, so that they don't meet again.
    AfterClash,
}

/// The leases of one identity in a bucket.
///
/// Reads retry by themselves if they like; creates and puts are retried here.
pub(crate) trait Bucket {
    /// What a lease holds for others than this protocol.
    type Body: Clone;
    type Error: std::error::Error;
    /// A signed put of one lease, with any body.
    type Signature;

    async fn get(&self, number: Number) -> Result<Option<Seen<Self::Body>>, Self::Error>;

    /// The highest number that a listing shows; `None` if it shows none or fails.
    async fn highest_listed(&self) -> Option<Number>;

    /// Creates a lease with the header that forbids overwriting.
    async fn create(
        &self,
        number: Number,
        attempt: &Attempt<Self::Body>,
    ) -> Result<Created, Self::Error>;

    /// Whether a create in this bucket was answered with 409 during this run.
    fn has_seen_taken(&self) -> bool;

    /// Signs a put, valid for at most five minutes from now.
    async fn sign(&self, number: Number) -> Result<Self::Signature, Self::Error>;

    async fn put(
        &self,
        signature: Self::Signature,
        attempt: &Attempt<Self::Body>,
    ) -> Result<(), Self::Error>;

    /// Whether trying again can help: no answer, a refusal for the moment, an expired signature.
    fn may_pass(error: &Self::Error) -> bool;

    async fn pause(&self, why: Pause);

    /// All of them, but for tests that leave one out.
    #[cfg(test)]
    fn rules(&self) -> Rules {
        Rules::default()
    }
}

/// The rules, or parts of them, that a test can leave out, to show that each is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// 2: the floor below which nothing is open.
    Floor,
    /// 2: every attempt counts, not only the newest.
    WholeRow,
    /// 2: what is listed above the end of the walk stops the run.
    Listing,
    /// 3: every put of a lease has another body, so another ETag.
    CountedPuts,
    /// 4: attempts that only intend to submit are open.
    IntendedIsOpen,
    /// 4: 409 for a lease of one's own is won.
    OwnRun,
    /// 5
    SecondReading,
    /// 5: the second reading compares the attempts below as well.
    ReadBelow,
    /// 6: the row is read before a further send.
    ReadBeforeAgain,
    /// 7: the age of what is given up.
    Age,
}

/// Which rules hold. In production, all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    pub(crate) without: Option<Rule>,
}

impl Rules {
    #[cfg(test)]
    fn of<K: Bucket>(bucket: &K) -> Self {
        bucket.rules()
    }

    #[cfg(not(test))]
    fn of<K: Bucket>(_: &K) -> Self {
        Self {}
    }

    #[cfg(test)]
    fn hold(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests leave rules out")]
    const fn hold(self, _: Rule) -> bool {
        true
    }
}

/// What came of creating a lease.
#[derive(Debug)]
pub(crate) enum Creating<B, S> {
    Won(Won<B, S>),
    /// Another run has this number: throw away everything that was read and start at rule 2.
    Lost,
    /// Rule 10: one warning, the journal alone.
    NotPermitted,
}

/// The own lease exists, nothing may be sent yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Won<B, S> {
    opening: Opening<B>,
    lease: Lease,
    signed: S,
    is_honoured: bool,
}

/// What a reading before a send brought.
#[derive(Debug)]
#[must_use]
pub(crate) enum Cleared<B, S> {
    /// Send `signed` now, as it is: it must not be signed again.
    Go {
        signed: S,
        lease: Lease,
        /// Rule 7: to be named to the user.
        gave_up: Vec<(Number, Attempt<B>)>,
    },
    /// Others were faster, and the own lease says so: start at rule 2. Nothing was sent.
    Withdrawn,
    /// Another run has given this attempt up, or ended it: exit 11. `None` if somebody deleted the lease.
    Overtaken(Option<Attempt<B>>),
}

/// One lease, of one run; the right to step it.
#[derive(Debug)]
pub(crate) struct Lease {
    number: Number,
    run: String,
}

/// What a step of a lease brought.
#[derive(Debug)]
pub(crate) enum Stepped<B> {
    Written(Attempt<B>),
    /// The lease says so already, perhaps by a put whose answer was lost.
    Already(Attempt<B>),
    /// The lease is past this step, or of another run. Nothing was written.
    Overtaken(Attempt<B>),
    /// Somebody deleted the lease by hand. It is not created again.
    Gone,
}

impl<B: Clone> Opening<B> {
    /// Creates the next number. `sign` signs the dangerous request, which is sent only after the second reading.
    ///
    /// # Errors
    /// If the bucket does not take the lease, after some tries. What may exist of it is withdrawn.
    pub(crate) async fn create<K: Bucket<Body = B>, S>(
        self,
        bucket: &K,
        run: String,
        host: String,
        body: B,
        sign: impl AsyncFnOnce() -> S,
    ) -> Result<Creating<B, S>, K::Error> {
        let attempt = self.attempt(run, host, body);
        let lease = Lease::of(self.number(), attempt.run.clone());
        // Rule 6: before the put, so that the request is not younger than the lease.
        let signed = sign().await;
        let claimed = lease.claim(bucket, &attempt).await;
        let is_honoured = match claimed {
            Ok(Claimed::Ours { is_honoured }) => is_honoured,
            Ok(Claimed::ByAnother) => return Ok(Creating::Lost),
            Ok(Claimed::NotPermitted) => return Ok(Creating::NotPermitted),
            Err(error) => {
                // Rule 5: a create without an answer may have been processed.
                let _ = lease.withdraw(bucket).await;
                return Err(error);
            }
        };
        Ok(Creating::Won(Won {
            opening: self,
            lease,
            signed,
            is_honoured,
        }))
    }
}

/// Whose lease it is after a create.
enum Claimed {
    Ours { is_honoured: bool },
    ByAnother,
    NotPermitted,
}

impl<B: Clone, S> Won<B, S> {
    /// Rule 9: whether the bucket honours the header. If not, the user is warned; `second_reading` waits for the others.
    pub(crate) fn is_honoured(&self) -> bool {
        self.is_honoured
    }

    /// Rule 5: reads the row again, then gives up what was decided to be given up.
    ///
    /// # Errors
    /// If the row cannot be read or written. The own lease is withdrawn then, if that can be written.
    pub(crate) async fn second_reading<K: Bucket<Body = B>>(
        self,
        bucket: &K,
    ) -> Result<Cleared<B, S>, K::Error> {
        if !self.is_honoured {
            bucket.pause(Pause::Arbitration).await;
        }
        if Rules::of(bucket).hold(Rule::SecondReading) {
            // The walk has to reach the own number, so a listing can't add to it.
            match row::walk(bucket, Vec::new()).await {
                Ok(row) if self.opening.is_unchanged(&row, &self.lease.run) => {}
                Ok(_) => return self.lease.step_back(bucket).await,
                Err(error) => return self.lease.fail(bucket, error).await,
            }
        }
        let mut gave_up = Vec::new();
        for (number, run) in self.opening.gives_up() {
            // Rule 7: only after the second reading, or a run that withdraws would have ended others.
            let given = Lease::of(number, run.to_owned());
            let stepped = given.step(bucket, LeaseState::Abandoned, keep).await;
            match stepped {
                Ok(Stepped::Written(attempt) | Stepped::Already(attempt)) => {
                    gave_up.push((number, attempt));
                }
                Ok(Stepped::Overtaken(attempt)) if attempt.sent_nothing() => {}
                // It was submitted after all.
                Ok(Stepped::Overtaken(_) | Stepped::Gone) => {
                    return self.lease.step_back(bucket).await;
                }
                Err(error) => return self.lease.fail(bucket, error).await,
            }
        }
        Ok(Cleared::Go {
            signed: self.signed,
            lease: self.lease,
            gave_up,
        })
    }
}

impl Lease {
    /// The lease of `run`, for those who watch its export.
    pub(crate) fn of(number: Number, run: String) -> Self {
        Self { number, run }
    }

    pub(crate) fn number(&self) -> Number {
        self.number
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Rule 3: brings the lease to `state`, with what `body` makes of the body that it has.
    ///
    /// # Errors
    /// If the lease cannot be read or written, after some tries.
    pub(crate) async fn step<K: Bucket>(
        &self,
        bucket: &K,
        state: LeaseState,
        body: impl Fn(&Attempt<K::Body>) -> K::Body,
    ) -> Result<Stepped<K::Body>, K::Error> {
        self.write(bucket, |attempt| match attempt.state == state {
            true => Write::Nothing,
            false if attempt.may_become(state) => Write::Next(state, body(attempt)),
            false => Write::Never,
        })
        .await
    }

    /// Rule 3: changes the body of a lease whose attempt was submitted, or is over. Before that, only steps are written: a
    /// note of the owner could undo that it was given up.
    ///
    /// # Errors
    /// If the lease cannot be read or written, after some tries.
    pub(crate) async fn note<K: Bucket>(
        &self,
        bucket: &K,
        body: impl Fn(&Attempt<K::Body>) -> K::Body,
    ) -> Result<Stepped<K::Body>, K::Error> {
        self.write(bucket, |attempt| match attempt.state {
            LeaseState::Queued | LeaseState::Intended => Write::Never,
            state => Write::Next(state, body(attempt)),
        })
        .await
    }

    /// Rule 5: every way out before the send.
    ///
    /// # Errors
    /// If the lease cannot be read or written, after some tries.
    pub(crate) async fn withdraw<K: Bucket>(
        &self,
        bucket: &K,
    ) -> Result<Stepped<K::Body>, K::Error> {
        self.step(bucket, LeaseState::Withdrawn, keep).await
    }

    /// Rule 6, for each further send of an export that is queued or whose signature expired, and of a removal: signs the
    /// request again, renews the lease, reads the row.
    ///
    /// # Errors
    /// If the row cannot be read or written. The lease is withdrawn then, if that can be written.
    pub(crate) async fn again<K: Bucket, S>(
        self,
        bucket: &K,
        sign: impl AsyncFnOnce() -> S,
        body: impl Fn(&Attempt<K::Body>) -> K::Body,
    ) -> Result<Cleared<K::Body, S>, K::Error> {
        // Before the put, so that the request is not younger than the lease.
        let signed = sign().await;
        let renewed = self.write(bucket, |attempt| match attempt.state {
            LeaseState::Queued | LeaseState::Intended => {
                Write::Next(LeaseState::Intended, body(attempt))
            }
            _ => Write::Never,
        });
        match renewed.await {
            Ok(Stepped::Written(_) | Stepped::Already(_)) => {}
            Ok(Stepped::Overtaken(attempt)) => return Ok(Cleared::Overtaken(Some(attempt))),
            Ok(Stepped::Gone) => return Ok(Cleared::Overtaken(None)),
            Err(error) => return self.fail(bucket, error).await,
        }
        if Rules::of(bucket).hold(Rule::ReadBeforeAgain) {
            match row::walk(bucket, Vec::new()).await {
                Ok(row) if row.has_alone_on_top(self.number, &self.run) => {}
                Ok(_) => return self.step_back(bucket).await,
                Err(error) => return self.fail(bucket, error).await,
            }
        }
        Ok(Cleared::Go {
            signed,
            lease: self,
            gave_up: Vec::new(),
        })
    }

    /// Rule 4: creates the lease, or finds out whose it is.
    async fn claim<K: Bucket>(
        &self,
        bucket: &K,
        attempt: &Attempt<K::Body>,
    ) -> Result<Claimed, K::Error> {
        let had_seen_taken = bucket.has_seen_taken();
        let mut retries = 0;
        let mut has_lost_an_answer = false;
        let created = loop {
            match bucket.create(self.number, attempt).await {
                Ok(created) => break created,
                Err(error) if retries < RETRIES && K::may_pass(&error) => {
                    has_lost_an_answer = true;
                    bucket.pause(Pause::Retry(retries)).await;
                    retries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        match created {
            Created::New if had_seen_taken => Ok(Claimed::Ours { is_honoured: true }),
            // Rule 9: the own lease a second time.
            Created::New => Ok(Claimed::Ours {
                is_honoured: self.is_refused(bucket, attempt).await?,
            }),
            Created::NotPermitted if !has_lost_an_answer => Ok(Claimed::NotPermitted),
            Created::Taken | Created::NotPermitted => {
                let seen = bucket.get(self.number).await?;
                let is_compared = Rules::of(bucket).hold(Rule::OwnRun);
                Ok(match seen {
                    Some(seen) if seen.attempt.run == self.run && is_compared => Claimed::Ours {
                        is_honoured: created == Created::Taken,
                    },
                    None if created == Created::NotPermitted => Claimed::NotPermitted,
                    _ => Claimed::ByAnother,
                })
            }
        }
    }

    /// Whether the bucket refuses to create this lease because it exists. Another refusal does not show that.
    async fn is_refused<K: Bucket>(
        &self,
        bucket: &K,
        attempt: &Attempt<K::Body>,
    ) -> Result<bool, K::Error> {
        for retry in 0.. {
            match bucket.create(self.number, attempt).await {
                Ok(created) => return Ok(created == Created::Taken),
                Err(error) if retry < RETRIES && K::may_pass(&error) => {
                    bucket.pause(Pause::Retry(retry)).await;
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the retries are counted")
    }

    /// Rule 3: sign, read, compare, put; all of it once more where the put may not have been processed.
    async fn write<K: Bucket>(
        &self,
        bucket: &K,
        mut decide: impl FnMut(&Attempt<K::Body>) -> Write<K::Body>,
    ) -> Result<Stepped<K::Body>, K::Error> {
        for retry in 0.. {
            // Before the read: a process that is stopped after it cannot put what is no longer true minutes later.
            let signature = bucket.sign(self.number).await?;
            let Some(Seen { attempt, .. }) = bucket.get(self.number).await? else {
                return Ok(Stepped::Gone);
            };
            if attempt.run != self.run {
                return Ok(Stepped::Overtaken(attempt));
            }
            let next = match decide(&attempt) {
                Write::Nothing => return Ok(Stepped::Already(attempt)),
                Write::Never => return Ok(Stepped::Overtaken(attempt)),
                Write::Next(state, body) => attempt.next(state, body, Rules::of(bucket)),
            };
            match bucket.put(signature, &next).await {
                Ok(()) => return Ok(Stepped::Written(next)),
                Err(error) if retry < RETRIES && K::may_pass(&error) => {
                    bucket.pause(Pause::Retry(retry)).await;
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the retries are counted")
    }

    /// Rule 5: the row is not what was decided on.
    async fn step_back<K: Bucket, S>(self, bucket: &K) -> Result<Cleared<K::Body, S>, K::Error> {
        self.withdraw(bucket).await?;
        bucket.pause(Pause::AfterClash).await;
        Ok(Cleared::Withdrawn)
    }

    /// Rule 5: out because of `error`, which matters more than one of the withdrawal.
    async fn fail<K: Bucket, S>(
        self,
        bucket: &K,
        error: K::Error,
    ) -> Result<Cleared<K::Body, S>, K::Error> {
        let _ = self.withdraw(bucket).await;
        Err(error)
    }
}

/// What to write into a lease that was read.
enum Write<B> {
    Next(LeaseState, B),
    Nothing,
    Never,
}

fn keep<B: Clone>(attempt: &Attempt<B>) -> B {
    attempt.body.clone()
}
