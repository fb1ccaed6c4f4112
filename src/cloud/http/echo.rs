//! Secrets that a server sends back: an answer that repeats its request must not show them.

use std::collections::HashSet;
use std::ops::Range;

use http::{HeaderMap, HeaderValue};

use super::Response;
use crate::auth::Secret;

/// What stands where a secret stood.
const STAND_IN: &str = "[secret]";
/// Shorter texts are no secrets, and may well stand in an answer for reasons of their own.
const SHORTEST: usize = 8;
/// So many characters of a secret in a row are hidden wherever they stand: an answer may be cut, or hold
/// the parts of a token one by one. What chance brings is shorter.
const RUN: usize = 12;

/// The secrets of a request: its tokens, its signature, which is as good as a key for as long as it is
/// valid, and `more` that its body holds.
pub(super) fn secrets_of(headers: &HeaderMap, more: &[Secret]) -> Vec<Secret> {
    let sensitive = headers.values().filter(|value| value.is_sensitive());
    sensitive
        .filter_map(|value| value.to_str().ok())
        // The rest of a signed header names keys, times and headers, which errors may well speak of.
        // TC3 writes `Signature=`, COS `q-signature=`.
        .map(|value| match value.rsplit_once("ignature=") {
            Some((_, signature)) => signature,
            None => value,
        })
        .map(Secret::new)
        .chain(more.iter().cloned())
        .filter(|secret| secret.expose().len() >= SHORTEST)
        .collect()
}

/// Puts a word in the place of every one of `secrets`, in body and headers.
pub(super) fn hide(response: &mut Response, secrets: &[Secret]) {
    for secret in secrets.iter().map(Runs::of) {
        if let Some(body) = secret.hidden_in(&response.body) {
            response.body = body.into();
        }
        for value in response.headers.values_mut() {
            let hidden = secret.hidden_in(value.as_bytes());
            if let Some(hidden) = hidden.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
                *value = hidden;
            }
        }
    }
}

/// Every run of characters by which a secret is recognised, in lower case.
struct Runs {
    length: usize,
    runs: HashSet<Vec<u8>>,
    /// Which characters a run begins with.
    begins: [bool; 256],
}

impl Runs {
    fn of(secret: &Secret) -> Self {
        let secret = secret.expose().to_ascii_lowercase();
        let length = RUN.min(secret.len());
        let mut begins = [false; 256];
        let runs = secret.as_bytes().windows(length);
        let runs = runs.map(|run| {
            begins[usize::from(run[0])] = true;
            run.to_vec()
        });
        Self {
            length,
            runs: runs.collect(),
            begins,
        }
    }

    /// `text` without the secret; `None` where it is not there.
    fn hidden_in(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut hidden = self.places_in(text);
        // Most answers have no escape, and are then read once.
        if text.iter().any(|byte| ESCAPES.contains(byte)) {
            let (plain, starts) = unescaped(text);
            let places = self.places_in(&plain).into_iter();
            hidden.extend(places.map(|place| starts[place.start]..starts[place.end]));
        }
        hidden.sort_by_key(|range| range.start);
        let mut result = Vec::new();
        let mut kept = 0;
        for range in hidden {
            if range.start > kept || result.is_empty() {
                result.extend_from_slice(&text[kept..range.start]);
                result.extend_from_slice(STAND_IN.as_bytes());
            }
            kept = kept.max(range.end);
        }
        if result.is_empty() {
            return None;
        }
        result.extend_from_slice(&text[kept..]);
        Some(result)
    }

    /// Where runs stand in `text`.
    fn places_in(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut run = Vec::with_capacity(self.length);
        let mut places = Vec::new();
        for (start, characters) in text.windows(self.length).enumerate() {
            if !self.begins[usize::from(characters[0].to_ascii_lowercase())] {
                continue;
            }
            run.clear();
            run.extend(characters.iter().map(u8::to_ascii_lowercase));
            if self.runs.contains(&run) {
                places.push(start..start + self.length);
            }
        }
        places
    }
}

/// What JSON, XML and addresses begin an escape with.
const ESCAPES: [u8; 3] = *b"%\\&";

/// `text` with what is escaped in it in plain form, and where each character of that begins in `text`; the
/// last place is the end.
fn unescaped(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut plain = Vec::with_capacity(text.len());
    let mut starts = Vec::with_capacity(text.len() + 1);
    let mut at = 0;
    while at < text.len() {
        let (byte, length) = escape(&text[at..]).unwrap_or((text[at], 1));
        plain.push(byte);
        starts.push(at);
        at += length;
    }
    starts.push(text.len());
    (plain, starts)
}

/// The character that an escape at the start of `text` stands for, and the length of the escape.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    let number =
        |digits: &[u8], radix| u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    match text {
        [b'%', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 3)),
        [b'\\', b'u', b'0', b'0', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 6)),
        [b'\\', byte @ (b'/' | b'"' | b'\\'), ..] => Some((*byte, 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().take(7).position(|byte| *byte == b';')?;
            let byte = match &rest[..end] {
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
                [b'#', digits @ ..] => number(digits, 10)?,
                _ => return None,
            };
            Some((byte, end + 2))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    fn sensitive(value: &'static str) -> HeaderValue {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(true);
        value
    }

    fn after_hiding(text: &str, secrets: &[Secret]) -> (String, String) {
        let mut response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(text.as_bytes()),
        };
        let value = HeaderValue::try_from(text).expect("a header");
        response.headers.insert("location", value);
        hide(&mut response, secrets);
        let header = response.headers["location"].to_str().expect("text");
        (
            String::from_utf8(response.body.to_vec()).expect("text"),
            header.to_owned(),
        )
    }

    #[test]
    fn what_an_answer_repeats_of_its_request_is_hidden_in_every_form() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tc-token", sensitive("token/with+signs="));
        headers.insert(
            "authorization",
            sensitive("q-ak=AKIDx&q-header-list=host&q-signature=0123456789abcdef"),
        );
        headers.insert("x-tc-action", HeaderValue::from_static("DescribeImages"));
        let secrets = secrets_of(&headers, &[Secret::new("web-identity"), Secret::new("")]);
        assert_eq!(secrets.len(), 3, "neither plain headers nor empty texts");
        for repeated in [
            "token/with+signs=",
            "TOKEN/WITH+SIGNS=",
            r"token\/with+signs=",
            r"token\u002fwith\u002Bsigns\u003d",
            "token%2Fwith%2Bsigns%3D",
            "token%2fwith+signs%3d",
            "token&#47;with&#x2b;signs&#x3D;",
            "token/with+signs",
            "ken/with+signs=",
            "web-identity",
            "0123456789abcdef",
            "0123456789ABCDEF",
            "%30123456789abcdef",
        ] {
            let (body, header) = after_hiding(&format!("asked: {repeated}, {repeated}!"), &secrets);
            assert_eq!(body, "asked: [secret], [secret]!", "{repeated}");
            assert_eq!(header, body, "{repeated}");
        }
        let whole = "x q-ak=AKIDx&amp;q-header-list=host&amp;q-signature=0123456789abcdef x";
        let (body, _) = after_hiding(whole, &secrets);
        let expected = "x q-ak=AKIDx&amp;q-header-list=host&amp;q-signature=[secret] x";
        assert_eq!(body, expected, "what is no secret stays");
    }

    #[test]
    fn whatever_else_an_answer_holds_stays_as_it_is() {
        let secrets = [Secret::new("100%25&secret")];
        for (text, expected) in [
            ("100%25&secret", "[secret]"),
            ("100%2525%26secret", "[secret]"),
            ("100%25&se", "100%25&se"),
            ("%", "%"),
            ("%zz &; &#; &#999; \\u00 \\", "%zz &; &#; &#999; \\u00 \\"),
            ("", ""),
        ] {
            assert_eq!(after_hiding(text, &secrets).0, expected, "{text}");
        }
    }
}
