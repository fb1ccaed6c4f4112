//! The call log: what was asked and how it was answered.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// One request that arrived, refused ones included.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When it had been received, by this machine's clock.
    pub time: DateTime<Utc>,
    /// `cvm`, `cam`, `cbs`, `sts`, `region`, `cos`, `metadata`, or `unknown`.
    pub service: String,
    /// The API action as named in `X-TC-Action`, or the COS operation.
    pub operation: String,
    /// The `Host` header.
    pub host: String,
    /// The HTTP method.
    pub method: String,
    /// Path and query as received.
    pub target: String,
    /// The SecretId that the request names as its signer, whether that is true or not.
    pub secret_id: Option<String>,
    /// The HTTP status of the answer; 0 when none was sent.
    pub status: u16,
    /// The error code of the API or of COS, where the answer is an error.
    pub code: Option<String>,
    /// The request id of the answer.
    pub request_id: String,
    /// The number of bytes in the request's body.
    pub body_bytes: usize,
    /// The `Range` header.
    pub range: Option<String>,
    /// The request's body as text, where it is short: the parameters of an API action.
    pub body: Option<String>,
    /// Whether the request reached the world, which may have refused it, and not only a fault.
    pub processed: bool,
}
