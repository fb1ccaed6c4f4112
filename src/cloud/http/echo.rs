//! Secrets that a server sends back: an answer that repeats its request must not show them.

use http::{HeaderMap, HeaderValue};

use super::Response;
use crate::auth::{Secret, percent_encode};

/// What stands where a secret stood.
const STAND_IN: &str = "[secret]";
/// Shorter texts are no secrets, and may well stand in an answer for reasons of their own.
const SHORTEST: usize = 8;

/// The secrets of a request: its sensitive headers, and `more` that its body holds.
pub(super) fn secrets_of(headers: &HeaderMap, more: &[Secret]) -> Vec<Secret> {
    let sensitive = headers.values().filter(|value| value.is_sensitive());
    sensitive
        .filter_map(|value| value.to_str().ok().map(Secret::new))
        .chain(more.iter().cloned())
        .filter(|secret| secret.expose().len() >= SHORTEST)
        .collect()
}

/// Puts a word in the place of every one of `secrets`, in body and headers.
pub(super) fn hide(response: &mut Response, secrets: &[Secret]) {
    for form in secrets.iter().flat_map(forms) {
        if let Some(body) = replaced(&response.body, form.as_bytes()) {
            response.body = body.into();
        }
        for value in response.headers.values_mut() {
            let hidden = replaced(value.as_bytes(), form.as_bytes());
            if let Some(hidden) = hidden.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
                *value = hidden;
            }
        }
    }
}

/// A secret as it was sent, as some writers of JSON escape it, and as addresses do.
fn forms(secret: &Secret) -> Vec<String> {
    let plain = secret.expose().to_owned();
    let mut forms = vec![
        plain.replace('/', "\\/"),
        percent_encode(&plain),
        plain.replace('"', "\\\""),
        plain,
    ];
    forms.sort();
    forms.dedup();
    forms
}

fn replaced(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text;
    let mut result = Vec::new();
    while let Some(at) = rest.windows(secret.len()).position(|part| part == secret) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(STAND_IN.as_bytes());
        rest = &rest[at + secret.len()..];
    }
    if result.is_empty() {
        return None;
    }
    result.extend_from_slice(rest);
    Some(result)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_an_answer_repeats_of_its_request_is_hidden_in_every_form() {
        let mut headers = HeaderMap::new();
        let mut token = HeaderValue::from_static("token/with+signs=");
        token.set_sensitive(true);
        headers.insert("x-tc-token", token);
        headers.insert("x-tc-action", HeaderValue::from_static("DescribeImages"));
        let secrets = secrets_of(&headers, &[Secret::new("web-identity"), Secret::new("")]);
        assert_eq!(secrets.len(), 2, "neither plain headers nor empty texts");
        let mut response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(
                b"DescribeImages token/with+signs= token\\/with+signs= token%2Fwith%2Bsigns%3D \
                  web-identity!",
            ),
        };
        let location = HeaderValue::from_static("https://elsewhere/?t=web-identity");
        response.headers.insert("location", location);
        hide(&mut response, &secrets);
        assert_eq!(
            response.body,
            "DescribeImages [secret] [secret] [secret] [secret]!"
        );
        assert_eq!(
            response.headers["location"],
            "https://elsewhere/?t=[secret]"
        );
    }
}
