//! Secrets that a server sends back: an answer that repeats its request must not show them.

use http::{HeaderMap, HeaderValue};

use super::Response;
use crate::auth::Secret;

/// What stands where a secret stood.
const STAND_IN: &str = "[secret]";
/// Shorter texts are no secrets, and may well stand in an answer for reasons of their own.
const SHORTEST: usize = 8;

/// The secrets of a request: its sensitive headers, and `more` that its body holds. A signature is one
/// by itself, for as long as it is valid.
pub(super) fn secrets_of(headers: &HeaderMap, more: &[Secret]) -> Vec<Secret> {
    let sensitive = headers.values().filter(|value| value.is_sensitive());
    sensitive
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| {
            let signature = value.rsplit_once("ignature=").map(|(_, rest)| rest);
            [Some(value), signature]
        })
        .flatten()
        .map(Secret::new)
        .chain(more.iter().cloned())
        .filter(|secret| secret.expose().len() >= SHORTEST)
        .collect()
}

/// Puts a word in the place of every one of `secrets`, in body and headers.
pub(super) fn hide(response: &mut Response, secrets: &[Secret]) {
    for secret in secrets {
        let secret = secret.expose().as_bytes();
        if let Some(body) = replaced(&response.body, secret) {
            response.body = body.into();
        }
        for value in response.headers.values_mut() {
            let hidden = replaced(value.as_bytes(), secret);
            if let Some(hidden) = hidden.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
                *value = hidden;
            }
        }
    }
}

fn replaced(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    let (mut kept, mut at) = (0, 0);
    while at < text.len() {
        let Some(length) = spelt(&text[at..], secret) else {
            at += 1;
            continue;
        };
        result.extend_from_slice(&text[kept..at]);
        result.extend_from_slice(STAND_IN.as_bytes());
        at += length;
        kept = at;
    }
    if kept == 0 {
        return None;
    }
    result.extend_from_slice(&text[kept..]);
    Some(result)
}

/// How many bytes at the start of `text` spell `secret`: as it was sent, in either case, or with
/// characters escaped as in JSON, XML and addresses.
fn spelt(text: &[u8], secret: &[u8]) -> Option<usize> {
    let plain = text.get(..secret.len());
    if plain.is_some_and(|plain| plain.eq_ignore_ascii_case(secret)) {
        return Some(secret.len());
    }
    let mut length = 0;
    for wanted in secret {
        let rest = &text[length..];
        let is_wanted = |byte: &u8| byte.eq_ignore_ascii_case(wanted);
        length += match unescaped(rest) {
            Some((byte, escape)) if is_wanted(&byte) => escape,
            _ if rest.first().is_some_and(is_wanted) => 1,
            _ => return None,
        };
    }
    Some(length)
}

/// The character that an escape at the start of `text` stands for, and the length of the escape.
fn unescaped(text: &[u8]) -> Option<(u8, usize)> {
    let number =
        |digits: &[u8], radix| u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    match text {
        [b'%', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 3)),
        [b'\\', b'u', b'0', b'0', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 6)),
        [b'\\', byte @ (b'/' | b'"' | b'\\'), ..] => Some((*byte, 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().take(6).position(|byte| *byte == b';')?;
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

    #[test]
    fn what_an_answer_repeats_of_its_request_is_hidden_in_every_form() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tc-token", sensitive("token/with+signs="));
        let authorization = "q-ak=AKIDx&q-signature=0123456789abcdef";
        headers.insert("authorization", sensitive(authorization));
        headers.insert("x-tc-action", HeaderValue::from_static("DescribeImages"));
        let secrets = secrets_of(&headers, &[Secret::new("web-identity"), Secret::new("")]);
        assert_eq!(secrets.len(), 4, "neither plain headers nor empty texts");
        for repeated in [
            "token/with+signs=",
            "TOKEN/WITH+SIGNS=",
            r"token\/with+signs=",
            r"token\u002fwith\u002Bsigns\u003d",
            "token%2Fwith%2Bsigns%3D",
            "token%2fwith+signs%3d",
            "token&#47;with&#x2b;signs&#x3D;",
            "web-identity",
            authorization,
            "q-ak=AKIDx&amp;q-signature=0123456789abcdef",
            r"q-ak=AKIDx\u0026q-signature=0123456789ABCDEF",
        ] {
            let mut response = Response {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: format!("DescribeImages {repeated} {repeated}!").into(),
            };
            let location = format!("https://elsewhere/?t={repeated}");
            let location = HeaderValue::try_from(location).expect("a header");
            response.headers.insert("location", location);
            hide(&mut response, &secrets);
            let body = String::from_utf8_lossy(&response.body).into_owned();
            let whole = "DescribeImages [secret] [secret]!";
            let is_hidden =
                body == whole || !body.to_ascii_lowercase().contains("0123456789abcdef");
            assert!(is_hidden && body.contains("[secret]"), "{repeated}: {body}");
            let location = response.headers["location"].to_str().expect("text");
            assert!(location.contains("[secret]"), "{repeated}: {location}");
        }
    }

    #[test]
    fn whatever_else_an_answer_holds_stays_as_it_is() {
        let secrets = [Secret::new("100%25&secret")];
        for (body, expected) in [
            ("100%25&secret", "[secret]"),
            ("100%2525%26secret", "[secret]"),
            ("100%25&secre", "100%25&secre"),
            ("%", "%"),
            ("%zz &; &#; &#999; \\u00 \\", "%zz &; &#; &#999; \\u00 \\"),
            ("", ""),
        ] {
            let mut response = Response {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
            };
            hide(&mut response, &secrets);
            assert_eq!(response.body, expected, "{body}");
        }
    }
}
