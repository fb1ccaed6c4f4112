//! The machines of the search: futures over a bucket whose every call suspends, and what they do with the protocol.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;

use crate::export::lease::{
    Attempt, Bucket, Cleared, Created, Creating, Decision, Kind, Lease, LeaseState, Number,
    Opening, Pause, Row, RowError, Rule, Rules, Seen, Stepped, Wishes,
};

/// A run, and the file that its export left: one for each machine, then those of the past.
pub(super) type Run = u8;
/// A lease's body: the file that existed when the attempt was decided.
pub(super) type Body = Option<Run>;
/// An attempt, by its place among all that were ever written.
pub(super) type AttemptId = u16;

/// How long one step of the clock is.
pub(super) const TICK: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfExists {
    Reuse,
    Fail,
    Overwrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Image,
    Removal,
    /// Reads and writes the lease of somebody's export once.
    Watch,
}

/// What one machine was told to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orders {
    pub(super) job: Job,
    pub(super) if_exists: IfExists,
    pub(super) is_resubmit: bool,
    pub(super) does_queue: bool,
    pub(super) may_crash: bool,
    /// Starts when these machines have ended.
    pub(super) after: &'static [usize],
}

/// What a test leaves out, beside the rules of the protocol itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Rule(Rule),
    /// 2: the files are looked at before the row.
    Order,
    /// 6: signatures never expire.
    Expiry,
    /// 7: `--resubmit` begins whatever files exist.
    FilesUnderResubmit,
    /// 8: a removal takes no number.
    RemovalIsAttempt,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct World {
    pub(super) without: Option<Without>,
    /// Listings are asked for, and are right.
    pub(super) does_list: bool,
    /// No 409 was seen yet.
    pub(super) does_test_header: bool,
}

/// A call that a machine has made, and which has not happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Get(Number),
    List,
    Create(Number, AttemptId),
    Put(Number, u8, AttemptId),
    Head,
    Send {
        token: u8,
        replaces: Body,
    },
    Delete {
        token: u8,
        listed: Run,
    },
    /// Until the row or the file is another than this.
    Wait {
        row: Vec<(AttemptId, u8)>,
        file: Body,
        waits_for: Run,
        is_for_age: bool,
    },
    /// Until an open export is behind what the cloud shows.
    Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Lease(Option<(AttemptId, u8)>),
    Listed(Option<Number>),
    Created(Created),
    File(Body),
    Found(Number, Run, LeaseState),
    Done,
    Accepted,
    Refused,
    Later,
    Changed,
    TimedOut,
    Lost,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Attached(Run),
    Reused,
    /// Exit 3.
    Exists,
    /// Exit 11.
    Unknown,
    Submitted,
    Refused,
    Failed,
    Removed,
    NothingToRemove,
    Watched,
    Crashed,
    OutOfNumbers,
}

/// Between two phases a machine remembers no more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Look,
    Send(Due),
    Again(Due),
    Settle(Number, LeaseState),
}

/// What is to be sent under a lease: an export, or the deletion of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Due {
    number: Number,
    /// What an overwriting export replaces.
    replaces: Body,
    /// What a removal deletes.
    listed: Body,
}

#[derive(Debug)]
pub(super) enum Next {
    Phase(Phase, Option<Token>),
    End(End),
}

#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("no answer")]
    Lost,
    #[error("the signature expired")]
    Expired,
}

/// Every attempt that was ever written; equal ones are one, as equal bodies have one ETag.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    all: Vec<Attempt<Body>>,
    ids: HashMap<Attempt<Body>, AttemptId>,
}

impl Attempts {
    pub(super) fn id(&mut self, attempt: &Attempt<Body>) -> AttemptId {
        if let Some(id) = self.ids.get(attempt) {
            return *id;
        }
        let id = AttemptId::try_from(self.all.len()).expect("few attempts");
        self.all.push(attempt.clone());
        self.ids.insert(attempt.clone(), id);
        id
    }

    pub(super) fn get(&self, id: AttemptId) -> &Attempt<Body> {
        &self.all[usize::from(id)]
    }
}

/// A signature: valid or not is known to the explorer alone.
#[derive(Debug)]
pub(super) struct Token {
    index: u8,
    /// Of the lease, if it is for one.
    number: Number,
    live: Rc<Cell<u16>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.live.set(self.live.get() & !(1 << self.index));
    }
}

impl Token {
    pub(super) fn index(&self) -> u8 {
        self.index
    }
}

/// One machine while its history is replayed.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) run: Run,
    orders: Orders,
    world: World,
    attempts: Rc<RefCell<Attempts>>,
    answers: RefCell<VecDeque<Answer>>,
    pending: RefCell<Option<Call>>,
    signed: Cell<u8>,
    /// Tokens that the machine still holds, and those that it signed since the last answer.
    live: Rc<Cell<u16>>,
    fresh: Cell<u16>,
}

impl Machine {
    pub(super) fn new(
        run: Run,
        orders: Orders,
        world: World,
        attempts: Rc<RefCell<Attempts>>,
        answers: Vec<Answer>,
    ) -> Self {
        Self {
            run,
            orders,
            world,
            attempts,
            answers: RefCell::new(answers.into()),
            pending: RefCell::default(),
            signed: Cell::new(0),
            live: Rc::default(),
            fresh: Cell::new(0),
        }
    }

    pub(super) fn pending(&self) -> Option<Call> {
        self.pending.borrow_mut().take()
    }

    pub(super) fn live(&self) -> u16 {
        self.live.get()
    }

    pub(super) fn fresh(&self) -> u16 {
        self.fresh.get() & self.live.get()
    }

    pub(super) fn token(&self) -> Token {
        let index = self.signed.get();
        assert!(index < 16, "few signatures");
        self.signed.set(index + 1);
        self.live.set(self.live.get() | 1 << index);
        self.fresh.set(self.fresh.get() | 1 << index);
        Token {
            index,
            number: 0,
            live: Rc::clone(&self.live),
        }
    }

    /// A token of the phase before.
    pub(super) fn carried(&self) -> Token {
        let token = self.token();
        self.fresh.set(0);
        token
    }

    async fn call(&self, call: Call) -> Answer {
        poll_fn(|_| {
            if let Some(answer) = self.answers.borrow_mut().pop_front() {
                self.fresh.set(0);
                return Poll::Ready(answer);
            }
            *self.pending.borrow_mut() = Some(call.clone());
            Poll::Pending
        })
        .await
    }

    fn is_without(&self, without: Without) -> bool {
        self.world.without == Some(without)
    }

    pub(super) async fn proceed(&self, phase: Phase, token: Option<Token>) -> Next {
        let done = match (phase, token) {
            (Phase::Look, _) => match self.orders.job {
                Job::Image => self.image().await,
                Job::Removal => self.removal().await,
                Job::Watch => self.watch().await,
            },
            (Phase::Send(due), Some(token)) => match (self.orders.job, due.listed) {
                (Job::Removal, Some(listed)) => self.delete(due, token, listed).await,
                (Job::Removal, None) => Ok(settle(due.number, LeaseState::Removed)),
                _ => self.send(due, token).await,
            },
            (Phase::Send(_), None) => unreachable!("a send has its signature"),
            (Phase::Again(due), _) => {
                let lease = self.lease(due.number);
                let again = lease.again(self, async || self.token(), keep).await;
                again.map(|cleared| cleared_for(cleared, due))
            }
            (Phase::Settle(number, state), _) => self.settle(number, state).await,
        };
        done.unwrap_or(Next::End(End::Failed))
    }

    fn lease(&self, number: Number) -> Lease {
        Lease::of(number, name(self.run))
    }

    /// Rule 2: the row, then the files.
    async fn look(&self) -> Result<(Row<Body>, Body), RowError<Trouble>> {
        if self.is_without(Without::Order) {
            let file = self.file().await;
            return Ok((Row::read(self).await?, file));
        }
        let row = Row::read(self).await?;
        let file = self.file().await;
        Ok((row, file))
    }

    async fn file(&self) -> Body {
        match self.call(Call::Head).await {
            Answer::File(file) => file,
            other => unreachable!("{other:?}"),
        }
    }

    fn decide(&self, row: &Row<Body>, kind: Kind) -> Decision<Body> {
        let is_resubmit = self.orders.is_resubmit;
        row.decide(Wishes { kind, is_resubmit }, |_| false)
    }

    async fn image(&self) -> Result<Next, Trouble> {
        let (row, file) = match self.look().await {
            Ok(seen) => seen,
            Err(RowError::Gap { .. }) => return Ok(Next::End(End::Exists)),
            Err(RowError::Bucket(error)) => return Err(error),
        };
        let decision = self.decide(&row, Kind::Export);
        if let Decision::Attach(number) = decision {
            return Ok(Next::End(End::Attached(run_of(&row, number))));
        }
        let shows = |number: &Number| {
            let attempt = row.get(*number).map(|seen| &seen.attempt);
            attempt.is_some_and(|attempt| {
                attempt.kind == Kind::Export && file.is_some() && file != attempt.body
            })
        };
        if row.open().iter().any(shows) {
            return Ok(Next::End(End::Attached(file.unwrap_or_default())));
        }
        let opening = match decision {
            Decision::Over(opening) => opening,
            Decision::Wait(number) => return Ok(self.wait(&row, file, number, false).await),
            Decision::TooYoung { number, .. } => {
                return Ok(self.wait(&row, file, number, true).await);
            }
            Decision::Attach(_) => unreachable!("returned above"),
        };
        let is_blind =
            self.is_without(Without::FilesUnderResubmit) && opening.gives_up().count() > 0;
        let is_of_attempt = |(_, seen): (Number, &Seen<Body>)| {
            let is_there = matches!(
                seen.attempt.state,
                LeaseState::Complete | LeaseState::Submitted
            );
            seen.attempt.kind == Kind::Export
                && is_there
                && Some(name(file.unwrap_or(99))) == Some(seen.attempt.run.clone())
        };
        let replaces = match (file, self.orders.if_exists) {
            (None, _) => None,
            (Some(_), IfExists::Overwrite) => file,
            (Some(_), _) if is_blind => None,
            (Some(_), IfExists::Fail) => return Ok(Next::End(End::Exists)),
            (Some(_), IfExists::Reuse) if row.attempts().any(is_of_attempt) => {
                return Ok(Next::End(End::Reused));
            }
            // Rule 4: files that nothing explains.
            (Some(_), IfExists::Reuse) => {
                let again = match Row::read(self).await {
                    Ok(again) => again,
                    Err(RowError::Gap { .. }) => return Ok(Next::End(End::Exists)),
                    Err(RowError::Bucket(error)) => return Err(error),
                };
                return Ok(match snapshot(&again) == snapshot(&row) {
                    true => Next::End(End::Exists),
                    false => Next::Phase(Phase::Look, None),
                });
            }
        };
        self.begin(opening, file, replaces, None).await
    }

    async fn removal(&self) -> Result<Next, Trouble> {
        let (row, file) = match self.look().await {
            Ok(seen) => seen,
            Err(RowError::Gap { .. }) => return Ok(Next::End(End::Exists)),
            Err(RowError::Bucket(error)) => return Err(error),
        };
        let opening = match self.decide(&row, Kind::Removal) {
            Decision::Over(opening) => opening,
            Decision::TooYoung { number, .. } => {
                return Ok(self.wait(&row, file, number, true).await);
            }
            Decision::Attach(_) | Decision::Wait(_) => {
                return Ok(Next::End(End::NothingToRemove));
            }
        };
        let has_export = row
            .attempts()
            .any(|(_, seen)| seen.attempt.kind == Kind::Export);
        let listed = file.filter(|_| has_export);
        if listed.is_none() && opening.gives_up().next().is_none() {
            return Ok(Next::End(End::NothingToRemove));
        }
        if let (true, Some(listed)) = (self.is_without(Without::RemovalIsAttempt), listed) {
            if self.file().await == Some(listed) {
                let token = self.token();
                let delete = Call::Delete {
                    token: token.index,
                    listed,
                };
                self.call(delete).await;
            }
            return Ok(Next::End(End::Removed));
        }
        self.begin(opening, file, None, listed).await
    }

    async fn begin(
        &self,
        opening: Opening<Body>,
        baseline: Body,
        replaces: Body,
        listed: Body,
    ) -> Result<Next, Trouble> {
        let sign = async || self.token();
        let creating = opening.create(self, name(self.run), String::new(), baseline, sign);
        let won = match creating.await? {
            Creating::Won(won) => won,
            Creating::Lost => return Ok(Next::Phase(Phase::Look, None)),
            Creating::NotPermitted => unreachable!("everybody may put"),
        };
        let due = Due {
            number: won.lease.number(),
            replaces,
            listed,
        };
        let cleared = won.second_reading(self).await?;
        Ok(cleared_for(cleared, due))
    }

    async fn send(&self, due: Due, token: Token) -> Result<Next, Trouble> {
        let send = Call::Send {
            token: token.index,
            replaces: due.replaces,
        };
        Ok(match self.call(send).await {
            Answer::Accepted => settle(due.number, LeaseState::Submitted),
            Answer::Refused => settle(due.number, LeaseState::Refused),
            Answer::Later => settle(due.number, LeaseState::Queued),
            Answer::Expired => Next::Phase(Phase::Again(due), None),
            other => unreachable!("{other:?}"),
        })
    }

    /// Rule 8: looks at the file again, then deletes it.
    async fn delete(&self, due: Due, token: Token, listed: Run) -> Result<Next, Trouble> {
        if self.file().await != Some(listed) {
            return Ok(settle(due.number, LeaseState::Removed));
        }
        let delete = Call::Delete {
            token: token.index,
            listed,
        };
        Ok(match self.call(delete).await {
            Answer::Done => settle(due.number, LeaseState::Removed),
            Answer::Expired => Next::Phase(Phase::Again(due), None),
            other => unreachable!("{other:?}"),
        })
    }

    async fn settle(&self, number: Number, state: LeaseState) -> Result<Next, Trouble> {
        let stepped = self.lease(number).step(self, state, keep).await?;
        Ok(match (state, stepped) {
            (LeaseState::Queued, Stepped::Written(now) | Stepped::Already(now)) => {
                // Who overwrites replaces what was there when it decided.
                let is_overwrite = self.orders.if_exists == IfExists::Overwrite;
                let due = Due {
                    number,
                    replaces: now.body.filter(|_| is_overwrite),
                    listed: None,
                };
                Next::Phase(Phase::Again(due), None)
            }
            (LeaseState::Queued, _) => Next::End(End::Unknown),
            (LeaseState::Submitted, _) => Next::End(End::Submitted),
            (LeaseState::Refused, _) => Next::End(End::Refused),
            _ => Next::End(End::Removed),
        })
    }

    async fn watch(&self) -> Result<Next, Trouble> {
        let (number, run, state) = match self.call(Call::Watch).await {
            Answer::Found(number, run, state) => (number, run, state),
            other => unreachable!("{other:?}"),
        };
        Lease::of(number, name(run)).step(self, state, keep).await?;
        Ok(Next::End(End::Watched))
    }

    async fn wait(&self, row: &Row<Body>, file: Body, number: Number, is_for_age: bool) -> Next {
        let (row, waits_for) = (snapshot(row), run_of(row, number));
        let wait = Call::Wait {
            row,
            file,
            waits_for,
            is_for_age,
        };
        match self.call(wait).await {
            Answer::Changed => Next::Phase(Phase::Look, None),
            Answer::TimedOut => Next::End(End::Unknown),
            other => unreachable!("{other:?}"),
        }
    }
}

impl Bucket for Machine {
    type Body = Body;
    type Error = Trouble;
    type Signature = Token;

    async fn get(&self, number: Number) -> Result<Option<Seen<Body>>, Trouble> {
        let Answer::Lease(lease) = self.call(Call::Get(number)).await else {
            unreachable!("a get is answered by a lease");
        };
        Ok(lease.map(|(id, age)| Seen {
            attempt: self.attempts.borrow().get(id).clone(),
            etag: id.to_string(),
            age: TICK * u32::from(age),
        }))
    }

    async fn highest_listed(&self) -> Option<Number> {
        if !self.world.does_list {
            return None;
        }
        match self.call(Call::List).await {
            Answer::Listed(number) => number,
            other => unreachable!("{other:?}"),
        }
    }

    async fn create(&self, number: Number, attempt: &Attempt<Body>) -> Result<Created, Trouble> {
        let id = self.attempts.borrow_mut().id(attempt);
        match self.call(Call::Create(number, id)).await {
            Answer::Created(created) => Ok(created),
            _ => Err(Trouble::Lost),
        }
    }

    fn has_seen_taken(&self) -> bool {
        !self.world.does_test_header
    }

    async fn sign(&self, number: Number) -> Result<Token, Trouble> {
        let mut token = self.token();
        token.number = number;
        Ok(token)
    }

    async fn put(&self, signature: Token, attempt: &Attempt<Body>) -> Result<(), Trouble> {
        let id = self.attempts.borrow_mut().id(attempt);
        let put = Call::Put(signature.number, signature.index, id);
        match self.call(put).await {
            Answer::Done => Ok(()),
            Answer::Expired => Err(Trouble::Expired),
            _ => Err(Trouble::Lost),
        }
    }

    fn may_pass(_: &Trouble) -> bool {
        true
    }

    async fn pause(&self, _: Pause) {}

    fn rules(&self) -> Rules {
        let without = match self.world.without {
            Some(Without::Rule(rule)) => Some(rule),
            _ => None,
        };
        Rules { without }
    }
}

pub(super) fn name(run: Run) -> String {
    run.to_string()
}

pub(super) fn run_named(name: &str) -> Run {
    name.parse().expect("runs are numbers here")
}

fn run_of(row: &Row<Body>, number: Number) -> Run {
    row.get(number)
        .map_or(0, |seen| run_named(&seen.attempt.run))
}

fn snapshot(row: &Row<Body>) -> Vec<(AttemptId, u8)> {
    let ids = row.attempts().map(|(_, seen)| {
        let age = seen.age.as_secs() / TICK.as_secs();
        let id = seen.etag.parse().expect("an ETag is an id here");
        (id, u8::try_from(age).unwrap_or(u8::MAX))
    });
    ids.collect()
}

fn keep(attempt: &Attempt<Body>) -> Body {
    attempt.body
}

fn settle(number: Number, state: LeaseState) -> Next {
    Next::Phase(Phase::Settle(number, state), None)
}

fn cleared_for(cleared: Cleared<Body, Token>, due: Due) -> Next {
    match cleared {
        Cleared::Go { signed, .. } => Next::Phase(Phase::Send(due), Some(signed)),
        Cleared::Withdrawn => Next::Phase(Phase::Look, None),
        Cleared::Overtaken(_) => Next::End(End::Unknown),
    }
}
