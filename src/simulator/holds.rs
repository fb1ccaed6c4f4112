//! Calls that wait until the test releases them.
//!
//! A delay makes a test guess how long something else takes; a hold lets it wait for the call to
//! arrive, do what it wants to do meanwhile, and let the call go on.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, oneshot};

/// A call that waits now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldCall {
    /// The name of the hold.
    pub name: String,
    /// The operation as the call log names it.
    pub operation: String,
    /// The object key, if the call is about one.
    pub key: Option<String>,
    /// Whether the call has been processed and only its answer waits.
    pub processed: bool,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    call: HeldCall,
    release: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Names that hold no more calls, except for faults with an occurrence.
    released: BTreeSet<String>,
    /// In the order of arrival.
    waiting: Vec<Waiting>,
    last_id: u64,
}

/// All holds of a simulator.
#[derive(Debug, Default)]
pub(super) struct Holds {
    state: Mutex<State>,
    arrival: Notify,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the hold is released: true; false if `hang_up` came first. A released name holds
    /// further calls only if `is_single`, that is, if the fault is about one call alone.
    pub(super) async fn wait(
        &self,
        call: HeldCall,
        is_single: bool,
        hang_up: &mut oneshot::Receiver<()>,
    ) -> bool {
        let (release, released) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            if !is_single && state.released.contains(&call.name) {
                return true;
            }
            state.last_id += 1;
            let id = state.last_id;
            state.waiting.push(Waiting { id, call, release });
            id
        };
        self.arrival.notify_waiters();
        let is_released = tokio::select! {
            biased;
            released = released => released.is_ok(),
            // The other end is never used: it goes with the connection.
            _ = hang_up => false,
        };
        self.lock().waiting.retain(|waiting| waiting.id != id);
        is_released
    }

    /// Lets the calls go on that the hold `name` keeps now, and returns their number.
    pub(super) fn release(&self, name: &str) -> usize {
        let mut state = self.lock();
        state.released.insert(name.to_owned());
        let (gone, kept) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| waiting.call.name == name);
        state.waiting = kept;
        // A call whose client hung up just now cannot be told any more.
        let told = gone
            .into_iter()
            .filter_map(|waiting| waiting.release.send(()).ok());
        told.count()
    }

    /// The calls that wait now, in the order of their arrival.
    pub(super) fn held(&self) -> Vec<HeldCall> {
        let state = self.lock();
        let calls = state.waiting.iter().map(|waiting| waiting.call.clone());
        calls.collect()
    }

    /// Waits until the hold `name` keeps a call.
    pub(super) async fn arrived(&self, name: &str) -> HeldCall {
        loop {
            // Before the look, so that no arrival is missed in between.
            let arrival = self.arrival.notified();
            if let Some(call) = self.held().into_iter().find(|call| call.name == name) {
                return call;
            }
            arrival.await;
        }
    }

    /// Forgets which names were released. Calls that wait go on waiting.
    pub(super) fn forget_released(&self) {
        self.lock().released.clear();
    }
}
