//! Rate limits: how many calls of an action one second admits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The recent calls of every limited action.
#[derive(Debug, Default)]
pub(in crate::simulator) struct Rates {
    recent: BTreeMap<&'static str, VecDeque<Duration>>,
}

impl Rates {
    /// Whether one more call is within `limit` calls in the second before `now`; 0 admits all.
    pub(super) fn admit(&mut self, action: &'static str, limit: usize, now: Duration) -> bool {
        if limit == 0 {
            return true;
        }
        let recent = self.recent.entry(action).or_default();
        while recent
            .front()
            .is_some_and(|then| now.saturating_sub(*then) >= Duration::from_secs(1))
        {
            recent.pop_front();
        }
        let is_admitted = recent.len() < limit;
        if is_admitted {
            recent.push_back(now);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_admits_the_limit_and_the_next_one_again() {
        let mut rates = Rates::default();
        let mut admit = |milliseconds| rates.admit("A", 2, Duration::from_millis(milliseconds));
        let admitted = [admit(0), admit(500), admit(900), admit(1000), admit(1001)];
        assert_eq!(admitted, [true, true, false, true, false]);
    }
}
