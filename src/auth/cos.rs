//! The signature of the COS XML API (`q-sign-algorithm=sha1`), as a header and as a URL.
//!
//! [`HttpString`] → [`StringToSign`] → [`Authorization`], after product page 436/7778. Three things
//! that the page leaves easy to miss: the path is signed decoded, the final key is the *hexadecimal
//! text* of the sign key, and the `q-*` pairs of a URL are not themselves signed.

use std::fmt;

use sha1::{Digest, Sha1};

use super::{Credentials, Timestamp, hmac_sha1, percent_encode};

/// The parts of a request that the signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method in any case.
    pub method: &'a str,
    /// The decoded path: a slash and the object key, or a slash alone.
    pub path: &'a str,
    /// The decoded query parameters to sign; one without a value has an empty one.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The headers to sign. `host` should be among them, or the signature fits other buckets too.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The time window in which a signature is good, in Unix seconds; it prints as `start;end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTime {
    /// The first second.
    pub start: Timestamp,
    /// The last second.
    pub end: Timestamp,
}

impl fmt::Display for KeyTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{};{}", self.start, self.end)
    }
}

/// The first stage: the request in the form that both sides hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpString {
    text: String,
    header_list: String,
    parameter_list: String,
}

impl HttpString {
    /// Lays out `request`: keys encoded and lower-cased, values encoded, both lists sorted.
    #[must_use]
    pub fn new(request: &Request<'_>) -> Self {
        let (parameter_list, parameters) = canonical_pairs(request.parameters);
        let (header_list, headers) = canonical_pairs(request.headers);
        let method = request.method.to_ascii_lowercase();
        let text = format!("{method}\n{}\n{parameters}\n{headers}\n", request.path);
        Self {
            text,
            header_list,
            parameter_list,
        }
    }
}

/// Joins `pairs` as the list of their keys and as `key=value` text.
fn canonical_pairs(pairs: &[(&str, &str)]) -> (String, String) {
    let mut encoded: Vec<(String, String)> = pairs
        .iter()
        .map(|(key, value)| {
            (
                percent_encode(key).to_ascii_lowercase(),
                percent_encode(value),
            )
        })
        .collect();
    encoded.sort();
    let keys: Vec<&str> = encoded.iter().map(|(key, _)| key.as_str()).collect();
    let text: Vec<String> = encoded
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (keys.join(";"), text.join("&"))
}

impl fmt::Display for HttpString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The second stage: the hashed request bound to its time window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringToSign(String);

impl StringToSign {
    /// Binds the hash of `http_string` to `key_time`.
    #[must_use]
    pub fn new(http_string: &HttpString, key_time: KeyTime) -> Self {
        Self(format!(
            "sha1\n{key_time}\n{}\n",
            hex::encode(Sha1::digest(&http_string.text))
        ))
    }

    /// The third stage: the lower-case hexadecimal signature.
    #[must_use]
    pub fn sign(&self, credentials: &Credentials, key_time: KeyTime) -> String {
        let sign_key = sign_key(credentials, key_time);
        hex::encode(hmac_sha1(sign_key.as_bytes(), &self.0))
    }
}

impl fmt::Display for StringToSign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The key for one time window, as the hexadecimal text that signs.
fn sign_key(credentials: &Credentials, key_time: KeyTime) -> String {
    hex::encode(hmac_sha1(
        credentials.secret_key.expose().as_bytes(),
        &key_time.to_string(),
    ))
}

/// A finished signature. It prints as the value of the `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    secret_id: String,
    key_time: KeyTime,
    header_list: String,
    parameter_list: String,
    signature: String,
}

impl Authorization {
    /// Signs `request` for the window `key_time`. The session token is not part of the signature; it
    /// travels as the header or parameter `x-cos-security-token`.
    #[must_use]
    pub fn new(credentials: &Credentials, key_time: KeyTime, request: &Request<'_>) -> Self {
        let http_string = HttpString::new(request);
        let signature = StringToSign::new(&http_string, key_time).sign(credentials, key_time);
        Self {
            secret_id: credentials.secret_id.clone(),
            key_time,
            header_list: http_string.header_list,
            parameter_list: http_string.parameter_list,
            signature,
        }
    }

    /// The signature alone, in lower-case hexadecimal.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// The seven pairs in the order in which the page lists them.
    fn pairs(&self) -> [(&'static str, String); 7] {
        let key_time = self.key_time.to_string();
        [
            ("q-sign-algorithm", "sha1".to_owned()),
            ("q-ak", self.secret_id.clone()),
            ("q-sign-time", key_time.clone()),
            ("q-key-time", key_time),
            ("q-header-list", self.header_list.clone()),
            ("q-url-param-list", self.parameter_list.clone()),
            ("q-signature", self.signature.clone()),
        ]
    }

    /// The URL form: the same pairs, percent-encoded, to be appended to the query string.
    #[must_use]
    pub fn to_query(&self) -> String {
        let pairs = self
            .pairs()
            .map(|(key, value)| format!("{key}={}", percent_encode(&value)));
        pairs.join("&")
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            &self
                .pairs()
                .map(|(key, value)| format!("{key}={value}"))
                .join("&"),
        )
    }
}
