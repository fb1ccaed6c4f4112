//! Asking before something is changed or deleted.

use std::io::{BufRead, IsTerminal};

use cvm_export::error::{Error, ErrorKind};

use crate::cli::Context;

/// What is asked once the person has seen what would be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The question itself.
    pub(crate) text: &'static str,
    /// What holds after any answer but yes.
    pub(crate) unchanged: &'static str,
}

/// For changes in the account, which were shown.
const CHANGES: Question = Question {
    text: "make these changes?",
    unchanged: "nothing was changed",
};

/// What is to be done with changes that were worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
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
    pub(crate) fn asked_for(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Ask }
    }
}

impl Context<'_> {
    /// Writes a line about what would change, or has been found, to where `consent` wants it.
    pub(crate) fn show(&self, consent: Consent, line: &str) {
        match consent {
            Consent::Print => self.printer.data(line),
            // What is agreed to must have been seen, and what others will be able to do must not be missed,
            // whoever agreed to it and however quiet the run.
            Consent::Ask | Consent::Given => self.printer.stderr(line),
            Consent::ShowOnly => self.printer.note(line),
        }
    }

    /// Whether the changes that were shown are to be made; asks where that is due.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub(crate) async fn agree(&self, consent: Consent) -> Result<bool, Error> {
        match consent {
            Consent::Print | Consent::ShowOnly => {
                self.printer.note(CHANGES.unchanged);
                return Ok(false);
            }
            Consent::Ask => self.ask(&CHANGES).await?,
            Consent::Given => {}
        }
        Ok(true)
    }

    /// Asks on the terminal.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where nobody can be asked, [`ErrorKind::Precondition`] after any answer but yes.
    pub(crate) async fn ask(&self, question: &Question) -> Result<(), Error> {
        let Question { text, unchanged } = question;
        let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.global.no_input || !is_terminal {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("nobody can be asked; {unchanged}"),
            )
            .with_hint("look at it with `--dry-run`, and agree to it with `--yes`"));
        }
        self.printer.question(&format!("{text} [y/N] "));
        let reading = tokio::task::spawn_blocking(|| {
            let mut answer = Vec::new();
            let read = std::io::stdin().lock().read_until(b'\n', &mut answer);
            read.map(|_| String::from_utf8_lossy(&answer).into_owned())
        });
        let cancel = self.signals.cancel();
        let read = tokio::select! {
            () = cancel.cancelled() => {
                let message = format!("interrupted; {unchanged}");
                return Err(Error::new(ErrorKind::Interrupted, message));
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
                format!("it was not agreed to; {unchanged}"),
            )),
        }
    }
}
