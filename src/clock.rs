//! The machine's clock, read in one place so that everything else takes time as a value.

use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, Utc};

/// The current time by this machine's clock, which may be wrong and may jump; in whole milliseconds,
/// which is all that events and records can use.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// Measures how long something takes, unmoved by corrections of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
