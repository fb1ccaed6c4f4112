//! What a search begins with, and what it finds.

use super::machine::{Body, End, Orders, Run, World};
use crate::export::lease::{Attempt, LeaseState, Number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Export {
    None,
    Runs,
    Complete,
    Failed,
}

/// How often each of these may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) crashes: u8,
    pub(super) lost: u8,
    pub(super) refusals: u8,
    pub(super) ticks: u8,
    pub(super) failures: u8,
}

impl Budget {
    pub(super) fn after_a_loss(self) -> Option<Self> {
        let lost = self.lost.checked_sub(1)?;
        Some(Self { lost, ..self })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) machines: Vec<Orders>,
    pub(super) budget: Budget,
    pub(super) world: World,
    /// Leases of the past, put long ago.
    pub(super) leases: Vec<Option<Attempt<Body>>>,
    pub(super) file: Body,
    pub(super) exports: Vec<(Run, Export)>,
    /// Highest number that is created.
    pub(super) numbers: Number,
    /// Answers that a machine already had, to leases of an earlier time.
    pub(super) past: Option<(usize, Vec<Past>)>,
}

#[derive(Clone, Debug)]
pub(super) enum Past {
    Found(Number, Run, LeaseState),
    Lease(Attempt<Body>),
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) what: String,
    pub(super) trace: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Searched {
    pub(super) states: usize,
    pub(super) steps: usize,
    pub(super) histories: usize,
    pub(super) violation: Option<Found>,
    /// How the machines ended, in all ways.
    pub(super) ends: Vec<Vec<End>>,
}
