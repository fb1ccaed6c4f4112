//! How many connections a transfer keeps: a pure function of what was seen.
//!
//! It starts with a few and doubles them while that makes the whole faster. When COS asks to slow down
//! it halves them, and from then on it feels its way: one more after each calm spell.

use std::time::Duration;

/// Connections at the start.
const FIRST_CONNECTIONS: usize = 2;
/// More connections must bring this much more for the number to be doubled again.
const WORTHWHILE: f64 = 1.1;
/// So long without a refusal, and one more connection is tried.
const CALM: Duration = Duration::from_secs(10);
/// Requests that were on their way when the number was halved may still be refused for this long; they
/// say nothing about the new number.
const ECHO: Duration = Duration::from_secs(1);

/// The number of connections, and what led to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    connections: usize,
    ceiling: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing was refused yet; the highest speed at which the number was doubled, in bytes a second.
    Doubling { best: f64 },
    /// COS has asked to slow down.
    Feeling {
        /// Since the number was halved.
        halved: Duration,
        /// Since the last refusal, or since the last connection that was added.
        calm: Duration,
    },
}

/// What was seen since the number was last thought about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observation {
    /// How long ago that was.
    pub(super) elapsed: Duration,
    /// How much came meanwhile.
    pub(super) bytes: u64,
    /// Whether COS has asked to slow down meanwhile.
    pub(super) is_throttled: bool,
}

impl Pace {
    /// The pace to start with.
    pub(super) fn new(ceiling: usize) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            connections: FIRST_CONNECTIONS.min(ceiling),
            ceiling,
            phase: Phase::Doubling { best: 0.0 },
        }
    }

    /// How many connections there should be.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// The pace after `seen`.
    #[must_use]
    pub(super) fn after(self, seen: &Observation) -> Self {
        let halved = Self {
            connections: (self.connections / 2).max(1),
            phase: Phase::Feeling {
                halved: Duration::ZERO,
                calm: Duration::ZERO,
            },
            ..self
        };
        match self.phase {
            Phase::Doubling { .. } if seen.is_throttled => halved,
            Phase::Doubling { best } => {
                let speed = seen.bytes as f64 / seen.elapsed.as_secs_f64().max(0.001);
                if self.connections == self.ceiling || speed <= best * WORTHWHILE {
                    return self;
                }
                Self {
                    connections: (self.connections * 2).min(self.ceiling),
                    phase: Phase::Doubling { best: speed },
                    ..self
                }
            }
            Phase::Feeling { halved: since, .. }
                if seen.is_throttled && since + seen.elapsed >= ECHO =>
            {
                halved
            }
            Phase::Feeling {
                halved: since,
                calm,
            } => {
                let calm = match seen.is_throttled {
                    true => Duration::ZERO,
                    false => calm + seen.elapsed,
                };
                let is_calm = calm >= CALM && self.connections < self.ceiling;
                Self {
                    connections: self.connections + usize::from(is_calm),
                    phase: Phase::Feeling {
                        halved: since + seen.elapsed,
                        calm: if is_calm { Duration::ZERO } else { calm },
                    },
                    ..self
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen in so many quarters of a second, each alike.
    fn quarters(count: usize, bytes: u64, is_throttled: bool) -> Vec<Observation> {
        let seen = Observation {
            elapsed: Duration::from_millis(250),
            bytes,
            is_throttled,
        };
        vec![seen; count]
    }

    #[test]
    fn the_number_follows_what_is_seen() {
        let refused = || quarters(1, 1000, true);
        let calm = |seconds: usize| quarters(seconds * 4, 1000, false);
        let faster = |steps: u32| -> Vec<Observation> {
            (0..steps)
                .flat_map(|step| quarters(1, 1000 * 2_u64.pow(step), false))
                .collect()
        };
        for (name, ceiling, steps, expected) in [
            ("the start", 8, vec![], 2),
            ("a low ceiling", 1, vec![], 1),
            ("it gets faster", 8, vec![faster(1)], 4),
            ("it gets faster up to the ceiling", 11, vec![faster(5)], 11),
            ("it gets no faster", 8, vec![faster(1), calm(60)], 4),
            ("nothing comes at all", 8, vec![quarters(8, 0, false)], 2),
            ("a refusal", 8, vec![faster(2), refused()], 4),
            (
                "its echo within a second",
                8,
                vec![faster(2), refused(), refused(), refused()],
                4,
            ),
            (
                "another one later",
                8,
                vec![faster(2), refused(), calm(1), refused()],
                2,
            ),
            (
                "never less than one",
                8,
                vec![faster(2), quarters(100, 0, true)],
                1,
            ),
            (
                "no doubling any more",
                8,
                vec![faster(2), refused(), faster(9)],
                4,
            ),
            (
                "not calm for long enough",
                8,
                vec![faster(2), refused(), quarters(39, 1000, false)],
                4,
            ),
            (
                "one more after a calm spell",
                8,
                vec![faster(2), refused(), calm(10)],
                5,
            ),
            (
                "and one more after the next",
                8,
                vec![faster(2), refused(), calm(20)],
                6,
            ),
            (
                "up to the ceiling",
                8,
                vec![faster(2), refused(), calm(600)],
                8,
            ),
            (
                "a refusal begins the spell anew",
                8,
                vec![faster(2), refused(), calm(9), refused(), calm(9)],
                2,
            ),
        ] {
            let pace = steps
                .iter()
                .flatten()
                .fold(Pace::new(ceiling), |pace, seen| pace.after(seen));
            assert_eq!(pace.connections(), expected, "{name}: {pace:?}");
        }
    }
}
