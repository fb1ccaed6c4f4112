//! Requests as they were received and answers as they will be sent.
//!
//! Everything is decoded here by hand from what stood on the wire. Nothing is shared with the
//! client, so a misnamed field or a doubly encoded path cannot be wrong on both sides and pass.

use bytes::Bytes;

use super::disk::Disk;

/// One request, complete and undecoded.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// The method as written.
    pub(super) method: String,
    /// The path as written, still percent-encoded.
    pub(super) path: String,
    /// The query as written, without its question mark.
    pub(super) query: String,
    /// The `Host` header as written; empty where there was none.
    pub(super) host: String,
    /// Every header in order: the name in lower case, the value as written.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Bytes,
}

impl Received {
    /// The first header of this lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Path and query, for the call log.
    pub(super) fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }

    /// The host without a port, in lower case.
    pub(super) fn host_name(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
            _ => host,
        }
    }
}

/// Decodes `%XX`; `None` for a broken escape or bytes that are no UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return None;
            };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(*high)? * 16 + digit(*low)?;
            decoded.push(u8::try_from(value).ok()?);
            rest = tail;
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok()
}

/// The decoded pairs of a query in the order received; `None` where one cannot be decoded.
///
/// A plus sign is a blank, as in forms: Tencent's Python SDK writes presigned URLs that way
/// (`cos-python-sdk-v5`, `get_presigned_url`). In a path it is a plus sign.
pub(super) fn query_pairs(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// What an answer carries.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stretch of a disk, read as it is sent.
    Disk {
        /// The disk.
        disk: Disk,
        /// Where the stretch begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

impl Content {
    /// The number of bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Disk { length, .. } => *length,
        }
    }
}

/// One answer before faults are applied to it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Headers other than `Content-Length`, which follows from the content.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) content: Content,
    /// For `HEAD`: the length to announce for a body that is not sent.
    pub(super) announced_length: Option<u64>,
    /// Whether the length is told at all; without it the body is sent in chunks.
    pub(super) tells_length: bool,
    /// The disk whose CRC-64 the answer shall tell. It is computed when nobody waits for the world.
    pub(super) checksum_of: Option<Disk>,
    /// The error code in the answer, for the call log.
    pub(super) code: Option<String>,
    /// The request id, for the call log.
    pub(super) request_id: String,
}

impl Answer {
    /// An answer of `status` with `body`.
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            content: Content::Bytes(body.into()),
            announced_length: None,
            tells_length: true,
            checksum_of: None,
            code: None,
            request_id: String::new(),
        }
    }

    /// An answer without body.
    pub(super) fn empty(status: u16) -> Self {
        let mut answer = Self::new(status, "", Bytes::new());
        answer.headers.clear();
        answer
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Removes every header of this name.
    pub(super) fn remove_header(&mut self, name: &str) {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// The first header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A time as HTTP writes it.
pub(super) fn http_date(time: chrono::DateTime<chrono::Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A time as COS writes it into XML, with milliseconds that are always zero.
pub(super) fn iso_date(time: chrono::DateTime<chrono::Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// A random UUID of version 4, the form of API request ids.
pub(super) fn uuid() -> String {
    let bits = fastrand::u128(..);
    let text = format!("{bits:032x}");
    let variant = ["8", "9", "a", "b"][fastrand::usize(..4)];
    format!(
        "{}-{}-4{}-{variant}{}-{}",
        &text[..8],
        &text[8..12],
        &text[13..16],
        &text[17..20],
        &text[20..]
    )
}

/// A random lower-case hexadecimal text.
pub(super) fn random_hex(length: usize) -> String {
    (0..length)
        .map(|_| char::from_digit(fastrand::u32(..16), 16).unwrap_or('0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_plus_signs_are_blanks_in_queries() {
        assert_eq!(percent_decode("a%2Fb%25c+d").as_deref(), Some("a/b%c+d"));
        for broken in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decode(broken), None, "`{broken}`");
        }
        let pairs = query_pairs("uploads&prefix=a%20b+c%2B&x=").expect("valid query");
        let shown: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["uploads=", "prefix=a b c+", "x="]);
    }

    #[test]
    fn request_ids_have_the_form_of_a_uuid() {
        let id = uuid();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    }
}
