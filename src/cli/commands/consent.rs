//! Asking the person before something in the account is changed.

use std::io::{BufRead, IsTerminal};

use cvm_export::error::{Error, ErrorKind};

use super::Context;

/// What is to be done with changes that were worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// They are the result: they go to stdout, and nothing is changed.
    Print,
    /// They are shown, and nothing is changed.
    ShowOnly,
    /// The person is asked.
    Ask,
    /// The person has agreed beforehand.
    Given,
}

impl Consent {
    /// Whether to ask.
    pub(super) fn asked_for(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Ask }
    }
}

/// Asks on the terminal.
///
/// # Errors
/// [`ErrorKind::Usage`] where nobody can be asked, [`ErrorKind::Precondition`] after any answer but yes.
pub(super) async fn ask(context: &Context<'_>) -> Result<(), Error> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if context.global.no_input || !is_terminal {
        return Err(Error::new(
            ErrorKind::Usage,
            "nobody can be asked whether to make these changes; nothing was changed",
        )
        .with_hint("look at them with `--dry-run`, and agree to them with `--yes`"));
    }
    context.printer.question("make these changes? [y/N] ");
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = Vec::new();
        let read = std::io::stdin().lock().read_until(b'\n', &mut answer);
        read.map(|_| String::from_utf8_lossy(&answer).into_owned())
    });
    let cancel = context.signals.cancel();
    let read = tokio::select! {
        () = cancel.cancelled() => {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted; nothing was changed"));
        }
        read = reading => read.map_err(std::io::Error::other).flatten(),
    };
    let answer = read.map_err(|problem| {
        Error::new(ErrorKind::Unexpected, "the answer could not be read").with_source(problem)
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Precondition,
            "the changes were not agreed to; nothing was changed",
        )),
    }
}
