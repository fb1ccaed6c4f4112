//! How the exports of a run over several images stand, in numbers.

use cvm_export::export::{ExportOutcome, OutcomeState};
use serde::Serialize;

/// The exports of a run, counted by the state that each shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// All of them.
    images: usize,
    complete: usize,
    /// Those of the complete ones that were complete before the run.
    reused: usize,
    submitted: usize,
    running: usize,
    checked: usize,
    failed: usize,
    unknown: usize,
    /// The files of the complete ones.
    size_bytes: u64,
    /// The part of them that was there before the run.
    #[serde(skip)]
    reused_bytes: u64,
}

impl Totals {
    /// Counts an export whose files are not known.
    pub(crate) fn count(&mut self, state: OutcomeState) {
        self.images += 1;
        *match state {
            OutcomeState::Checked => &mut self.checked,
            OutcomeState::Submitted => &mut self.submitted,
            OutcomeState::Running => &mut self.running,
            OutcomeState::Complete => &mut self.complete,
            OutcomeState::Failed => &mut self.failed,
            OutcomeState::Unknown => &mut self.unknown,
        } += 1;
    }

    /// Counts an export.
    pub(crate) fn count_outcome(&mut self, outcome: &ExportOutcome) {
        self.count(outcome.state);
        if outcome.state != OutcomeState::Complete {
            return;
        }
        let bytes = complete_bytes(outcome);
        self.size_bytes = self.size_bytes.saturating_add(bytes);
        if outcome.reused {
            self.reused += 1;
            self.reused_bytes = self.reused_bytes.saturating_add(bytes);
        }
    }

    /// Exports that this run made, and their size.
    pub(crate) fn exported(&self) -> (usize, u64) {
        (
            self.complete - self.reused,
            self.size_bytes - self.reused_bytes,
        )
    }

    /// Exports that were complete before, and their size.
    pub(crate) fn reused(&self) -> (usize, u64) {
        (self.reused, self.reused_bytes)
    }
}

/// The size of the files of `outcome` that are complete.
pub(crate) fn complete_bytes(outcome: &ExportOutcome) -> u64 {
    let sizes = outcome.files.iter().filter_map(|file| file.size_bytes);
    sizes.fold(0, u64::saturating_add)
}
