//! The documented exit codes, and the one place that chooses among them.

use cvm_export::error::ErrorKind;
use cvm_export::export::{ExportOutcome, OutcomeState};

/// How the program ends. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: what was asked for is done.
    Done,
    /// 1: something that nobody planned for.
    Unexpected,
    /// 2: a value or a combination of flags that can't be right.
    Usage,
    /// 3: a precondition fails; nothing was submitted.
    Precondition,
    /// 4: credentials or permission.
    Credentials,
    /// 5: refused by the cloud, quota included.
    Refused,
    /// 6: still running when our timeout came; not a failure.
    StillRunning,
    /// 7: the export failed or vanished; safe to run again.
    ExportFailed,
    /// 8: verification failed.
    Verification,
    /// 9: the local disk is full or not writable.
    LocalDisk,
    /// 10: some items of several failed.
    SomeFailed,
    /// 11: the outcome is unknown; look before running again.
    Unknown,
    /// 130 or 143: a signal ended the run; a submitted export goes on.
    Signal(Signal),
    /// The code of a command that was run for the person.
    #[cfg(feature = "simulator")]
    Other(u8),
}

/// The signals that end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// From the keyboard.
    Interrupt,
    /// From a CI system, or because the terminal went away.
    Terminate,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Precondition => 3,
            Self::Credentials => 4,
            Self::Refused => 5,
            Self::StillRunning => 6,
            Self::ExportFailed => 7,
            Self::Verification => 8,
            Self::LocalDisk => 9,
            Self::SomeFailed => 10,
            Self::Unknown => 11,
            Self::Signal(Signal::Interrupt) => 130,
            Self::Signal(Signal::Terminate) => 143,
            #[cfg(feature = "simulator")]
            Self::Other(code) => code,
        }
    }

    /// The end for an error; `signal` is the one that came, if any.
    pub(crate) fn of_error(kind: ErrorKind, signal: Option<Signal>) -> Self {
        match kind {
            ErrorKind::Unexpected => Self::Unexpected,
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Precondition => Self::Precondition,
            ErrorKind::Credentials | ErrorKind::Permission => Self::Credentials,
            ErrorKind::Refused | ErrorKind::Quota => Self::Refused,
            ErrorKind::Verification => Self::Verification,
            ErrorKind::LocalDisk => Self::LocalDisk,
            ErrorKind::Interrupted => Self::Signal(signal.unwrap_or(Signal::Interrupt)),
        }
    }

    /// The end of a run whose data could not be written to stdout. A code that says why there is no
    /// data stays, and so does the one that answers a signal.
    pub(crate) fn without_stdout(self) -> Self {
        match self {
            Self::Done
            | Self::StillRunning
            | Self::ExportFailed
            | Self::Verification
            | Self::SomeFailed
            | Self::Unknown => Self::LocalDisk,
            Self::Unexpected
            | Self::Usage
            | Self::Precondition
            | Self::Credentials
            | Self::Refused
            | Self::LocalDisk
            | Self::Signal(_) => self,
            #[cfg(feature = "simulator")]
            Self::Other(_) => self,
        }
    }

    /// The end for the outcome of an export.
    pub(crate) fn of_outcome(outcome: &ExportOutcome, signal: Option<Signal>) -> Self {
        if outcome.interrupted {
            return Self::Signal(signal.unwrap_or(Signal::Interrupt));
        }
        match outcome.state {
            OutcomeState::Checked | OutcomeState::Submitted | OutcomeState::Complete => Self::Done,
            OutcomeState::Running => Self::StillRunning,
            OutcomeState::Failed => Self::ExportFailed,
            OutcomeState::Unknown => Self::Unknown,
        }
    }
}

/// The exit codes as `--help` shows them.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    unexpected
  2    usage: a value or a combination of flags that can't be right
  3    a precondition fails, nothing was submitted
  4    credentials or permission
  5    refused by the cloud, quota included
  6    still running when our timeout came (not a failure; see the re-attach line)
  7    the export failed or vanished (safe to run again)
  8    verification failed
  9    local disk (full, not writable)
  10   some items of several failed
  11   outcome unknown (look before you run again)
  130  interrupted by SIGINT; 143 by SIGTERM or SIGHUP (a submitted export goes on)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_once_in_the_help() {
        let all = [
            Exit::Done,
            Exit::Unexpected,
            Exit::Usage,
            Exit::Precondition,
            Exit::Credentials,
            Exit::Refused,
            Exit::StillRunning,
            Exit::ExportFailed,
            Exit::Verification,
            Exit::LocalDisk,
            Exit::SomeFailed,
            Exit::Unknown,
            Exit::Signal(Signal::Interrupt),
        ];
        for exit in all {
            let start = format!("  {:<4} ", exit.code());
            assert_eq!(HELP.matches(&start).count(), 1, "{exit:?}");
        }
    }
}
