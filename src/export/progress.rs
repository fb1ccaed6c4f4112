//! How far an export is, and which step may follow which state. This table is the only place that says so.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::export::record::{FinishedObject, WatchedName};
use crate::model::{ObjectKey, TaskId};

/// How far an export is, as far as was written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Nothing was sent, or the cloud refused for now: nothing was started.
    Queued,
    /// The submit was about to be sent, and may have been: its outcome is unknown.
    Intended,
    /// The cloud accepted the export, or signs of it were seen.
    Submitted,
    /// Every file is in the bucket.
    Complete,
    /// The export failed, or its files were removed before anybody saw them complete.
    Failed,
    /// The cloud refused the submit: nothing was started.
    Refused,
    /// Abandoned by `--resubmit`, or before anything was sent.
    Abandoned,
}

/// A change of a record. Nothing else changes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The submit is about to be sent, under the lease of this number if there is one.
    Intend {
        at: DateTime<Utc>,
        attempt: Option<u32>,
    },
    /// The cloud proved that nothing was started; the submit is sent again later.
    Wait,
    /// The cloud proved that nothing was started, and will not start it.
    Refuse,
    /// The attempt is abandoned.
    GiveUp,
    /// What was under the watched names was looked at again, before a further send.
    Baseline {
        names: Vec<WatchedName>,
        earlier_uploads: Vec<String>,
    },
    /// The cloud accepted the submit.
    Accept(Accepted),
    /// Signs of the export were seen in the bucket: uploads or some of its files.
    Sign(Observed),
    /// Every file was seen in the bucket.
    AllThere { seen: Observed, at: DateTime<Utc> },
    /// An upload was seen and is gone, without a file.
    Vanish,
    /// The files are to be downloaded as well.
    Owe,
    /// All files were downloaded and verified.
    Fetched(Vec<Sums>),
    /// `files rm` deleted the files.
    Remove { at: DateTime<Utc> },
}

/// The cloud's answer to the submit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) task_id: Option<TaskId>,
    pub(crate) request_id: Option<String>,
    /// The keys that it announced, in its order.
    pub(crate) announced: Vec<ObjectKey>,
    /// How many announced paths are not object keys.
    pub(crate) unusable: usize,
    pub(crate) at: DateTime<Utc>,
}

/// What observations of the bucket showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) objects: Vec<FinishedObject>,
    pub(crate) warnings: Vec<String>,
}

/// The checksums of a downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) key: ObjectKey,
    pub(crate) etag: String,
    pub(crate) crc64: Option<String>,
    pub(crate) sha256: Option<String>,
}

/// A step that the table does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record that is {from} takes no step `{step}`")]
pub(crate) struct IllegalStep {
    pub(crate) from: RecordState,
    pub(crate) step: &'static str,
}

impl RecordState {
    /// Whether an export may be running under this record, so that a second submit could double it.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Intended | Self::Submitted)
    }

    /// Whether nothing more can happen to it by itself.
    #[must_use]
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Intended | Self::Submitted)
    }

    /// Of two copies of one record, the one of the higher rank is further.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Intended => 1,
            Self::Submitted => 2,
            Self::Refused | Self::Abandoned | Self::Failed => 3,
            Self::Complete => 4,
        }
    }

    /// The state after `step`.
    ///
    /// # Errors
    /// [`IllegalStep`] where the step may not follow.
    pub(crate) fn after(self, step: &Step) -> Result<Self, IllegalStep> {
        use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};
        Ok(match (self, step) {
            // What may have been sent is never sent again: `Intended` takes no `Intend`.
            (Queued, Step::Intend { .. }) => Intended,
            (Queued | Intended, Step::Wait) => Queued,
            (Queued, Step::Baseline { .. }) => Queued,
            (Intended, Step::Refuse) => Refused,
            (Queued | Intended, Step::GiveUp) => Abandoned,
            // A `wait` may have seen the files before the answer came.
            (Intended | Submitted, Step::Accept(_)) => Submitted,
            (Complete, Step::Accept(_)) => Complete,
            (Intended | Submitted, Step::Sign(_)) => Submitted,
            // A failed export whose files show after all is complete.
            (Intended | Submitted | Complete | Failed, Step::AllThere { .. }) => Complete,
            (Submitted, Step::Vanish) => Failed,
            (Queued | Intended | Submitted | Complete, Step::Owe) => self,
            (Complete, Step::Fetched(_)) => Complete,
            // Nobody will see the end of what was running.
            (Intended | Submitted, Step::Remove { .. }) => Failed,
            (Complete | Failed | Refused | Abandoned, Step::Remove { .. }) => self,
            _ => {
                return Err(IllegalStep {
                    from: self,
                    step: step.name(),
                });
            }
        })
    }
}

impl fmt::Display for RecordState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Queued => "queued",
            Self::Intended => "intended",
            Self::Submitted => "submitted",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        })
    }
}

impl Step {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Intend { .. } => "intend",
            Self::Wait => "wait",
            Self::Refuse => "refuse",
            Self::GiveUp => "give up",
            Self::Baseline { .. } => "baseline",
            Self::Accept(_) => "accept",
            Self::Sign(_) => "sign",
            Self::AllThere { .. } => "all there",
            Self::Vanish => "vanish",
            Self::Owe => "owe",
            Self::Fetched(_) => "fetched",
            Self::Remove { .. } => "remove",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};

    const STATES: [RecordState; 7] = [
        Queued, Intended, Submitted, Complete, Failed, Refused, Abandoned,
    ];

    fn steps() -> [Step; 12] {
        let at = DateTime::UNIX_EPOCH;
        let seen = Observed::default;
        [
            Step::Intend { at, attempt: None },
            Step::Wait,
            Step::Refuse,
            Step::GiveUp,
            Step::Baseline {
                names: Vec::new(),
                earlier_uploads: Vec::new(),
            },
            Step::Accept(Accepted::default()),
            Step::Sign(seen()),
            Step::AllThere { seen: seen(), at },
            Step::Vanish,
            Step::Owe,
            Step::Fetched(Vec::new()),
            Step::Remove { at },
        ]
    }

    /// Every pair of state and step, written out: a changed row of the table fails here.
    #[test]
    fn every_step_follows_only_the_states_that_the_contract_names() {
        const NO: Option<RecordState> = None;
        let rows: [(RecordState, [Option<RecordState>; 12]); 7] = [
            // Intend, Wait, Refuse, GiveUp, Baseline, Accept, Sign, AllThere, Vanish, Owe, Fetched, Remove
            (
                Queued,
                [
                    Some(Intended),
                    Some(Queued),
                    NO,
                    Some(Abandoned),
                    Some(Queued),
                    NO,
                    NO,
                    NO,
                    NO,
                    Some(Queued),
                    NO,
                    NO,
                ],
            ),
            (
                Intended,
                [
                    NO,
                    Some(Queued),
                    Some(Refused),
                    Some(Abandoned),
                    NO,
                    Some(Submitted),
                    Some(Submitted),
                    Some(Complete),
                    NO,
                    Some(Intended),
                    NO,
                    Some(Failed),
                ],
            ),
            (
                Submitted,
                [
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    Some(Submitted),
                    Some(Submitted),
                    Some(Complete),
                    Some(Failed),
                    Some(Submitted),
                    NO,
                    Some(Failed),
                ],
            ),
            (
                Complete,
                [
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    Some(Complete),
                    NO,
                    Some(Complete),
                    NO,
                    Some(Complete),
                    Some(Complete),
                    Some(Complete),
                ],
            ),
            (
                Failed,
                [
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    NO,
                    Some(Complete),
                    NO,
                    NO,
                    NO,
                    Some(Failed),
                ],
            ),
            (
                Refused,
                [NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, Some(Refused)],
            ),
            (
                Abandoned,
                [NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, Some(Abandoned)],
            ),
        ];
        assert_eq!(rows.map(|(state, _)| state), STATES);
        for (state, row) in rows {
            for (step, expected) in steps().iter().zip(row) {
                assert_eq!(state.after(step).ok(), expected, "{state} and {step:?}");
            }
        }
    }

    #[test]
    fn a_refused_step_names_itself_and_the_state() {
        let illegal = Intended.after(&Step::Intend {
            at: DateTime::UNIX_EPOCH,
            attempt: None,
        });
        let text = illegal.expect_err("sent once").to_string();
        assert_eq!(text, "a record that is intended takes no step `intend`");
    }
}
