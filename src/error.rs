//! What callers branch on and people read when something fails.
//!
//! Every module has its own error type and turns it into this one beside its own enum; this leaf
//! names no upper layer.

use std::error::Error as StdError;
use std::fmt;

use crate::model::{CloudText, Finding};

/// The situations in which an export ends without its result. The command line maps each to one
/// documented exit code by an exhaustive match, so a new situation cannot forget its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Something that nobody planned for: no usable answer, a broken local invariant.
    Unexpected,
    /// A value that can't be right, or flags that contradict each other.
    Usage,
    /// A check failed; nothing was submitted.
    Precondition,
    /// No credentials, broken ones, or ones that the cloud does not accept.
    Credentials,
    /// The credentials are good and the right to do this is missing.
    Permission,
    /// The cloud refused the call itself.
    Refused,
    /// An account limit or a rate limit stands in the way.
    Quota,
    /// What was received is not what the cloud holds.
    Verification,
    /// The local disk: full, not writable, not there.
    LocalDisk,
    /// A signal ended the run before anything was submitted.
    Interrupted,
}

impl ErrorKind {
    /// The name of the kind in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::Precondition => "precondition",
            Self::Credentials => "credentials",
            Self::Permission => "permission",
            Self::Refused => "refused",
            Self::Quota => "quota",
            Self::Verification => "verification",
            Self::LocalDisk => "local-disk",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A failure with everything that a person needs: what failed, why, the request id, what to do next.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    request_id: Option<String>,
    findings: Vec<Finding>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure described by `message`, a lower-case fragment without a final period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            request_id: None,
            findings: Vec::new(),
            source: None,
        }
    }

    /// Adds what to do next; a command in it is named in full.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do next where there is something to do.
    #[must_use]
    pub fn with_optional_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Adds the cloud's name for the failed request.
    #[must_use]
    pub fn with_request_id(mut self, request_id: Option<String>) -> Self {
        self.request_id = request_id.or(self.request_id);
        self
    }

    /// Adds what the checks found.
    #[must_use]
    pub fn with_findings(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The situation.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The cloud's name for the failed request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// What the checks found, in table order.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The causes, outermost first, each as one line; repetitions of the line above are left out.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = lines(self);
        causes.remove(0);
        causes
    }
}

/// An error and its causes as one line, for notes that have no room for more.
pub(crate) fn one_line(error: &(dyn StdError + 'static)) -> String {
    lines(error).join(": ")
}

/// An error and its causes, a line each; a cause that only repeats the line above it is left out.
fn lines(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let line = CloudText::new(&cause.to_string()).to_string();
        if lines.last().is_none_or(|above| !above.contains(&line)) {
            lines.push(line);
        }
        next = cause.source();
    }
    lines
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<crate::model::InvalidValue> for Error {
    fn from(invalid: crate::model::InvalidValue) -> Self {
        Self::new(ErrorKind::Usage, invalid.to_string())
    }
}
