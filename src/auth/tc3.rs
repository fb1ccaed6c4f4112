//! TC3-HMAC-SHA256, the signature of API 3.0.
//!
//! [`CanonicalRequest`] → [`StringToSign`] → [`Authorization`], as the page "Signature v3"
//! (product page 213/33281) names them. The session token and the region travel in headers that are
//! not signed, as in Tencent's own SDKs.

use std::fmt;

use chrono::DateTime;
use sha2::{Digest, Sha256};

use super::{Credentials, Timestamp, hmac_sha256};

const ALGORITHM: &str = "TC3-HMAC-SHA256";

/// The parts of a request that the signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `POST` or `GET`.
    pub method: &'a str,
    /// Always `/` in API 3.0.
    pub path: &'a str,
    /// The encoded query string without its question mark; empty for `POST`.
    pub query: &'a str,
    /// The headers to sign; `content-type` and `host` are mandatory. Names in any case, any order.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub payload: &'a [u8],
}

/// The first stage: the request in the form that both sides hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalRequest {
    text: String,
    signed_headers: String,
}

impl CanonicalRequest {
    /// Lays out `request`: names and values lower-cased and trimmed, sorted by name.
    #[must_use]
    pub fn new(request: &Request<'_>) -> Self {
        let mut headers: Vec<(String, String)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_lowercase()))
            .collect();
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let signed_headers = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let text = format!(
            "{}\n{}\n{}\n{lines}\n{signed_headers}\n{}",
            request.method,
            request.path,
            request.query,
            hex::encode(Sha256::digest(request.payload)),
        );
        Self {
            text,
            signed_headers,
        }
    }

    /// The names of the signed headers, joined by semicolons.
    #[must_use]
    pub fn signed_headers(&self) -> &str {
        &self.signed_headers
    }

    /// The lower-case hexadecimal SHA-256 of the text.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(&self.text))
    }
}

impl fmt::Display for CanonicalRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Date, service and terminator: what the derived key is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    date: String,
    service: String,
}

impl Scope {
    /// The scope of `service` on the UTC day of `timestamp`.
    ///
    /// A timestamp outside the years that the calendar can show yields the day zero; the cloud then
    /// refuses the signature, which is the right end for such a clock.
    #[must_use]
    pub fn new(service: &str, timestamp: Timestamp) -> Self {
        let day = DateTime::from_timestamp(timestamp.0, 0).unwrap_or_default();
        Self {
            date: day.format("%Y-%m-%d").to_string(),
            service: service.to_owned(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/tc3_request", self.date, self.service)
    }
}

/// The second stage: what the derived key signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringToSign(String);

impl StringToSign {
    /// Binds the hashed request to a time and a scope.
    #[must_use]
    pub fn new(canonical: &CanonicalRequest, scope: &Scope, timestamp: Timestamp) -> Self {
        Self(format!(
            "{ALGORITHM}\n{timestamp}\n{scope}\n{}",
            canonical.hash()
        ))
    }

    /// The third stage: the lower-case hexadecimal signature by the key derived from `credentials`.
    #[must_use]
    pub fn sign(&self, credentials: &Credentials, scope: &Scope) -> String {
        let root = format!("TC3{}", credentials.secret_key.expose());
        let date_key = hmac_sha256(root.as_bytes(), &scope.date);
        let service_key = hmac_sha256(&date_key, &scope.service);
        let signing_key = hmac_sha256(&service_key, "tc3_request");
        hex::encode(hmac_sha256(&signing_key, &self.0))
    }
}

impl fmt::Display for StringToSign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The value of the `Authorization` header; it prints as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    secret_id: String,
    scope: Scope,
    signed_headers: String,
    signature: String,
}

impl Authorization {
    /// Signs `request` for `service` (the host's first label) at `timestamp`, which must also be
    /// sent as `X-TC-Timestamp`. More than five minutes off is refused by the cloud.
    #[must_use]
    pub fn new(
        credentials: &Credentials,
        service: &str,
        timestamp: Timestamp,
        request: &Request<'_>,
    ) -> Self {
        let canonical = CanonicalRequest::new(request);
        let scope = Scope::new(service, timestamp);
        let signature = StringToSign::new(&canonical, &scope, timestamp).sign(credentials, &scope);
        Self {
            secret_id: credentials.secret_id.clone(),
            scope,
            signed_headers: canonical.signed_headers,
            signature,
        }
    }

    /// The signature alone, in lower-case hexadecimal.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            self.secret_id, self.scope, self.signed_headers, self.signature
        )
    }
}
