//! One attempt, and which step may follow which.

use serde::{Deserialize, Serialize};

use super::{Rule, Rules};

/// The number of an attempt, from 1.
pub(crate) type Number = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Export,
    Removal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LeaseState {
    /// The cloud said "later", so nothing was started; its owner will try again.
    Queued,
    /// May have been sent.
    Intended,
    Submitted,
    Complete,
    Failed,
    Refused,
    /// Given up by another run.
    Abandoned,
    /// Given up by its owner, before anything was sent.
    Withdrawn,
    Removed,
}

impl LeaseState {
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Intended | Self::Submitted)
    }

    /// Whether only a run that has passed the second reading gets here.
    pub(crate) fn is_decided(self) -> bool {
        matches!(
            self,
            Self::Submitted | Self::Complete | Self::Failed | Self::Refused | Self::Removed
        )
    }

    /// The table of steps. Whatever is over stays as it is, but for one: a run that was given up while its export was
    /// accepted says so, for that is true.
    ///
    /// `Queued` may become what follows a send because a put that had no answer can still be processed after the next one;
    /// who watches then repairs the lease.
    pub(crate) fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => next != self && next != Self::Removed,
            Self::Intended => next != self,
            Self::Submitted => matches!(next, Self::Complete | Self::Failed),
            Self::Abandoned => next == Self::Submitted,
            Self::Complete | Self::Failed | Self::Refused | Self::Withdrawn | Self::Removed => {
                false
            }
        }
    }
}

/// The body of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt<B> {
    pub(crate) run: String,
    pub(crate) kind: Kind,
    pub(crate) state: LeaseState,
    /// The number up to which everything was over when this attempt was decided.
    pub(crate) floor: Number,
    /// How often this lease was written. The ETag is a digest of the body, so without this a lease that was renewed, or is
    /// queued again, would look untouched to the second reading of another run.
    pub(crate) puts: u32,
    pub(crate) host: String,
    /// What this protocol does not read.
    pub(crate) body: B,
}

impl<B> Attempt<B> {
    pub(crate) fn may_become(&self, next: LeaseState) -> bool {
        let is_of_kind = match self.kind {
            Kind::Export => next != LeaseState::Removed,
            Kind::Removal => matches!(
                next,
                LeaseState::Abandoned | LeaseState::Withdrawn | LeaseState::Removed
            ),
        };
        is_of_kind && self.state.may_become(next)
    }

    /// Rule 2: a floor that another run decided counts once its second reading has confirmed it. A removal may have
    /// deleted files at any time after, and says so only at its end.
    pub(super) fn floor_holds(&self) -> bool {
        self.state.is_decided() || self.kind == Kind::Removal && self.state != LeaseState::Withdrawn
    }

    /// Whether it ended without anything sent.
    pub(super) fn sent_nothing(&self) -> bool {
        matches!(self.state, LeaseState::Withdrawn | LeaseState::Refused)
    }

    pub(super) fn next(self, state: LeaseState, body: B, rules: Rules) -> Self {
        let step = u32::from(rules.hold(Rule::CountedPuts));
        Self {
            state,
            body,
            puts: self.puts.saturating_add(step),
            ..self
        }
    }
}
