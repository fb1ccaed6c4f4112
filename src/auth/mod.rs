//! Signing: pure functions of a request, credentials and a time.
//!
//! No I/O, no clock and no environment in here: whoever calls says what time it is, so signatures
//! can be compared with published vectors, and a retried request can be signed anew. Each algorithm
//! works in stages, and each stage prints as the text that its specification shows, so that a
//! failing comparison names the first stage that differs.

pub mod cos;
pub mod tc3;

use std::fmt;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};

/// A secret: a key or a session token. Nothing prints, serialises or compares it by accident.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Shows the secret, to be signed with or sent in a header marked as sensitive.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// What a request is signed with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The public half, `AKID…`. It stands in every signed request and is not a secret.
    pub secret_id: String,
    /// The private half.
    pub secret_key: Secret,
    /// The session token that temporary credentials carry.
    pub token: Option<Secret>,
    /// When temporary credentials end, where that is known.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Seconds since 1970-01-01T00:00:00Z, the unit in which both algorithms tell time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Percent-encodes everything except letters, digits and `-_.~`, with upper-case hexadecimal digits.
///
/// This is RFC 3986's unreserved set, which COS prescribes for query strings and signed headers
/// (product page 436/7778).
#[must_use]
pub fn percent_encode(text: &str) -> String {
    encode_except(text, b"-_.~")
}

/// Percent-encodes an object key or path for a request line: as [`percent_encode`], slashes kept.
#[must_use]
pub fn percent_encode_path(path: &str) -> String {
    encode_except(path, b"-_.~/")
}

fn encode_except(text: &str, kept: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

fn hmac_sha256(key: &[u8], message: &str) -> [u8; 32] {
    keyed::<Hmac<sha2::Sha256>>(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

fn hmac_sha1(key: &[u8], message: &str) -> [u8; 20] {
    keyed::<Hmac<sha1::Sha1>>(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> M {
    <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let credentials = Credentials {
            secret_id: "AKIDexample".to_owned(),
            secret_key: Secret::new("do-not-show-key"),
            token: Some(Secret::new("do-not-show-token")),
            expires_at: None,
        };
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("AKIDexample"));
        assert!(!shown.contains("do-not-show"), "{shown}");
    }

    #[test]
    fn percent_encoding_keeps_only_the_unreserved_set() {
        assert_eq!(percent_encode("aZ09-_.~"), "aZ09-_.~");
        assert_eq!(percent_encode("a b/c+d*é"), "a%20b%2Fc%2Bd%2A%C3%A9");
        assert_eq!(percent_encode_path("a b/c"), "a%20b/c");
    }
}
