//! All attempts of an identity, and what they say about beginning another.

use std::time::Duration;

use thiserror::Error;

use super::state::{Attempt, Kind, LeaseState, Number};
use super::{Bucket, Rule, Rules, Seen};

/// Rule 7: three times as long as a signed request is accepted.
const OLD: Duration = Duration::from_secs(15 * 60);
/// COS accepts signatures that are fifteen minutes off, and a removal deletes there.
const OLD_REMOVAL: Duration = Duration::from_secs(30 * 60);

/// All attempts, from 1.
#[derive(Clone, Debug)]
pub(crate) struct Row<B> {
    pub(super) seen: Vec<Seen<B>>,
    pub(super) rules: Rules,
}

#[derive(Debug, Error)]
pub(crate) enum RowError<E: std::error::Error> {
    #[error(transparent)]
    Bucket(E),
    /// Somebody deleted leases by hand: what ran under them is unknown.
    #[error("attempt {missing} is missing, but attempt {listed} exists")]
    Gap { missing: Number, listed: Number },
}

/// What the user asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    /// A removal needs everything over: of exports, it gives up only queued ones.
    pub(crate) kind: Kind,
    /// Rule 7: attempts of unknown outcome may be given up.
    pub(crate) is_resubmit: bool,
}

/// Rule 4, as far as the row alone decides. An open export whose file shows is attached to before all but `Attach`; that
/// includes those that [`Opening::gives_up`] names.
#[derive(Debug)]
pub(crate) enum Decision<B> {
    /// The highest that was submitted.
    Attach(Number),
    /// The highest whose outcome is unknown; a queued one may still be sent.
    Wait(Number),
    /// What has to be given up was put too recently. `wait` is the longest that any of them needs.
    TooYoung { number: Number, wait: Duration },
    /// Nothing is open, or what is open may be given up: the files decide whether to begin.
    Over(Opening<B>),
}

/// The right to create the next number, and what that was decided on.
#[derive(Debug)]
#[must_use]
pub(crate) struct Opening<B> {
    row: Row<B>,
    kind: Kind,
    floor: Number,
    gives_up: Vec<Number>,
}

/// What one open attempt says to a run that wants to begin.
enum Obstacle {
    Submitted,
    Unknown,
    Young(Duration),
    None,
}

/// Reads on where `row` ends, until 404.
pub(super) async fn walk<K: Bucket>(
    bucket: &K,
    mut seen: Vec<Seen<K::Body>>,
) -> Result<Row<K::Body>, K::Error> {
    while let Some(next) = bucket.get(height(&seen).saturating_add(1)).await? {
        seen.push(next);
    }
    let rules = Rules::of(bucket);
    Ok(Row { seen, rules })
}

fn height<B>(seen: &[Seen<B>]) -> Number {
    Number::try_from(seen.len()).unwrap_or(Number::MAX)
}

impl<B: Clone> Row<B> {
    /// Rule 2: the whole row. Files are looked at after this, never before.
    ///
    /// # Errors
    /// If a lease cannot be read, or one is missing.
    pub(crate) async fn read<K: Bucket<Body = B>>(bucket: &K) -> Result<Self, RowError<K::Error>> {
        let mut row = walk(bucket, Vec::new()).await.map_err(RowError::Bucket)?;
        // A listing may lag, so it can only raise the number.
        let listed = bucket.highest_listed().await.unwrap_or(0);
        if listed > row.highest() && row.rules.hold(Rule::Listing) {
            row = walk(bucket, row.seen).await.map_err(RowError::Bucket)?;
            if listed > row.highest() {
                let missing = row.highest() + 1;
                return Err(RowError::Gap { missing, listed });
            }
        }
        Ok(row)
    }

    /// All attempts with their numbers, oldest first.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (Number, &Seen<B>)> {
        (1..).zip(&self.seen)
    }

    pub(crate) fn get(&self, number: Number) -> Option<&Seen<B>> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.seen.get(index)
    }

    pub(crate) fn highest(&self) -> Number {
        height(&self.seen)
    }

    /// Rule 2: the numbers of the open attempts above the highest floor, lowest first.
    pub(crate) fn open(&self) -> Vec<Number> {
        self.open_below(self.highest()).collect()
    }

    fn open_below(&self, highest: Number) -> impl Iterator<Item = Number> {
        let floors = self.attempts().map(|(_, seen)| &seen.attempt);
        let floors = floors.filter(|attempt| attempt.floor_holds());
        let mut floor = floors.map(|attempt| attempt.floor).max().unwrap_or(0);
        if !self.rules.hold(Rule::Floor) {
            floor = 0;
        }
        if !self.rules.hold(Rule::WholeRow) {
            floor = floor.max(highest.saturating_sub(1));
        }
        let is_open = move |(number, seen): &(Number, &Seen<B>)| {
            *number > floor && *number <= highest && seen.attempt.state.is_open()
        };
        self.attempts().filter(is_open).map(|(number, _)| number)
    }

    /// Rule 4. `is_dead` says of a run that this machine itself knows that it has ended, which makes age unnecessary.
    pub(crate) fn decide(&self, wishes: Wishes, is_dead: impl Fn(&str) -> bool) -> Decision<B> {
        let (mut attach, mut wait, mut young) = (None, None, None::<(Duration, Number)>);
        let mut gives_up = Vec::new();
        for number in self.open() {
            let Some(seen) = self.get(number) else {
                continue;
            };
            match self.obstacle(seen, wishes, &is_dead) {
                Obstacle::Submitted => attach = Some(number),
                Obstacle::Unknown => wait = Some(number),
                Obstacle::Young(needed) => young = young.max(Some((needed, number))),
                Obstacle::None => gives_up.push(number),
            }
        }
        match (attach, wait, young) {
            (Some(number), _, _) => Decision::Attach(number),
            (None, Some(number), _) => Decision::Wait(number),
            (None, None, Some((wait, number))) => Decision::TooYoung { number, wait },
            (None, None, None) => Decision::Over(Opening {
                floor: gives_up.first().map_or(self.highest(), |lowest| lowest - 1),
                row: self.clone(),
                kind: wishes.kind,
                gives_up,
            }),
        }
    }

    fn obstacle(&self, seen: &Seen<B>, wishes: Wishes, is_dead: impl Fn(&str) -> bool) -> Obstacle {
        let attempt = &seen.attempt;
        let old = match attempt.kind {
            Kind::Export => OLD,
            Kind::Removal => OLD_REMOVAL,
        };
        let is_over = is_dead(&attempt.run) || !self.rules.hold(Rule::Age);
        let needed = match is_over {
            true => Duration::ZERO,
            false => old.saturating_sub(seen.age),
        };
        let may_be_given_up = match attempt.state {
            LeaseState::Submitted => return Obstacle::Submitted,
            // Nothing was sent, so nothing is asked of the user.
            LeaseState::Queued => wishes.is_resubmit || needed.is_zero(),
            // A removal does not pay for what may still be exported.
            _ => {
                wishes.is_resubmit && (wishes.kind == Kind::Export || attempt.kind == Kind::Removal)
            }
        };
        match (may_be_given_up, needed.is_zero()) {
            (true, true) => Obstacle::None,
            (true, false) => Obstacle::Young(needed),
            (false, _) if !self.rules.hold(Rule::IntendedIsOpen) => Obstacle::None,
            (false, _) => Obstacle::Unknown,
        }
    }

    /// Rule 6: whether the row ends with the lease of `run`, still intended, and nothing else is open.
    pub(super) fn has_alone_on_top(&self, number: Number, run: &str) -> bool {
        self.has_on_top(number, run) && self.open_below(number - 1).next().is_none()
    }

    fn has_on_top(&self, number: Number, run: &str) -> bool {
        let own = self.get(number).map(|seen| &seen.attempt);
        self.highest() == number
            && own.is_some_and(|own| own.run == run && own.state == LeaseState::Intended)
    }
}

impl<B: Clone> Opening<B> {
    /// The number that is created.
    pub(crate) fn number(&self) -> Number {
        self.row.highest() + 1
    }

    /// Whether attempts are given up.
    pub(crate) fn gives_up_any(&self) -> bool {
        !self.gives_up.is_empty()
    }

    /// Whether `row` shows what this was decided on.
    pub(crate) fn is_of(&self, row: &Row<B>) -> bool {
        let etags = |row: &Row<B>| {
            row.seen
                .iter()
                .map(|seen| seen.etag.clone())
                .collect::<Vec<_>>()
        };
        etags(&self.row) == etags(row)
    }

    /// The open attempts that are given up, with their runs.
    pub(crate) fn gives_up(&self) -> impl Iterator<Item = (Number, &str)> {
        self.gives_up.iter().filter_map(|&number| {
            let seen = self.row.get(number)?;
            Some((number, seen.attempt.run.as_str()))
        })
    }

    pub(super) fn attempt(&self, run: String, host: String, body: B) -> Attempt<B> {
        Attempt {
            run,
            kind: self.kind,
            state: LeaseState::Intended,
            floor: self.floor,
            puts: 1,
            host,
            body,
        }
    }

    /// Rule 5: whether `row` is what was decided on, with the lease of `run` on top.
    pub(super) fn is_unchanged(&self, row: &Row<B>, run: &str) -> bool {
        let is_below = row.rules.hold(Rule::ReadBelow);
        let is_same = |(then, now): (&Seen<B>, &Seen<B>)| {
            then.attempt.run == now.attempt.run
                && then.attempt.state == now.attempt.state
                && (then.etag == now.etag || !then.attempt.state.is_open())
        };
        row.has_on_top(self.number(), run)
            && (!is_below || self.row.seen.iter().zip(&row.seen).all(is_same))
    }
}
