//! Why a request has no whole answer.

use std::time::Duration;

use super::{ANSWER_LIMIT_BYTES, Again};

/// Why no whole answer came.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection was made, so the request never left.
    #[error("no connection to {host} could be made")]
    NoConnection {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The request may have arrived; its answer did not.
    #[error("{host} did not answer")]
    NoAnswer {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("the answer of {host} broke off")]
    BrokenAnswer {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long, of an answer or of its body.
    #[error("{host} sent nothing for {} ms", limit.as_millis())]
    Stalled {
        /// The host.
        host: String,
        /// How long is too long.
        limit: Duration,
    },
    /// The answer is larger than any that makes sense.
    #[error("the answer of {host} is larger than {} MiB", ANSWER_LIMIT_BYTES / 1024 / 1024)]
    TooLarge {
        /// The host.
        host: String,
        /// The cloud's name for the request, where a header told it.
        request_id: Option<String>,
    },
    /// A value cannot stand in a header or an address.
    #[error("the request to {host} cannot be written: {problem}")]
    Unwritable {
        /// The host.
        host: String,
        /// What is wrong.
        problem: String,
    },
}

impl RequestError {
    /// Whether it is certain that the server saw nothing of the request.
    #[must_use]
    pub fn never_left(&self) -> bool {
        matches!(self, Self::NoConnection { .. } | Self::Unwritable { .. })
    }

    /// Whether the time for an answer ran out.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::NoConnection { source, .. }
            | Self::NoAnswer { source, .. }
            | Self::BrokenAnswer { source, .. } => source.is_timeout(),
            Self::Stalled { .. } => true,
            Self::TooLarge { .. } | Self::Unwritable { .. } => false,
        }
    }

    pub(crate) fn again(&self) -> Again {
        match self {
            Self::NoConnection { .. }
            | Self::NoAnswer { .. }
            | Self::BrokenAnswer { .. }
            | Self::Stalled { .. } => Again::Later,
            Self::TooLarge { .. } | Self::Unwritable { .. } => Again::No,
        }
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Self::TooLarge { request_id, .. } => request_id.as_deref(),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoConnection { .. } | Self::NoAnswer { .. } => Some(
                "look at the network, at HTTPS_PROXY and NO_PROXY, and run the command again"
                    .to_owned(),
            ),
            Self::BrokenAnswer { .. } | Self::Stalled { .. } => {
                Some("run the command again".to_owned())
            }
            Self::TooLarge { .. } => Some(
                "something between here and the cloud may answer in its place; look at the proxy"
                    .to_owned(),
            ),
            Self::Unwritable { .. } => None,
        }
    }
}
