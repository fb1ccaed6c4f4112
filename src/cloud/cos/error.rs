//! What COS refuses, and what a refusal means.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Deserialize;

use crate::cloud::http::{ANSWERED_BY_OTHERS, Again, Attempt, RequestError, Response};
use crate::error::{Error, ErrorKind};
use crate::model::CloudText;

/// Why COS did not bring its answer.
#[derive(Debug)]
pub struct CosError {
    operation: &'static str,
    problem: Problem,
    request_id: Option<String>,
}

#[derive(Debug)]
pub(super) enum Problem {
    /// No whole answer came.
    Request(RequestError),
    /// The status is no success; COS's code and words where the answer has a body of COS.
    Refused {
        status: StatusCode,
        code: Option<CloudText>,
        message: CloudText,
        retry_after: Option<Duration>,
        /// The server's time, where it explains the refusal.
        blamed_clock: Option<DateTime<Utc>>,
    },
    /// The body is no XML of the expected form.
    Unreadable(quick_xml::DeError),
    /// The answer lacks a header or an element that it must have.
    Lacking(&'static str),
    /// The page leads to itself or to one before it, by this element.
    LeadsBack(&'static str),
    /// The object is larger than asked for.
    Oversized { limit_bytes: usize },
    /// The answer to a range is not that range; what it is instead.
    WrongRange(String),
    /// Another object stands there now.
    Changed,
}

/// The body of a refusal (product page 436/7730).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    code: CloudText,
    #[serde(default)]
    message: CloudText,
}

impl Problem {
    /// Reads an answer that is no success to a request that was signed at `signed_at`.
    pub(super) fn of(response: &Response, signed_at: DateTime<Utc>) -> Self {
        let text = String::from_utf8_lossy(&response.body);
        let (code, message) = match quick_xml::de::from_str::<ErrorBody>(&text) {
            Ok(body) => (Some(body.code), body.message),
            Err(_) if response.status.is_redirection() => {
                let target = response.header("location").unwrap_or_default();
                (
                    None,
                    CloudText::excerpt(
                        &format!("a redirect to {target}, which is not followed"),
                        200,
                    ),
                )
            }
            Err(_) => (None, response.excerpt()),
        };
        Self::Refused {
            status: response.status,
            code,
            message,
            retry_after: response.retry_after(),
            blamed_clock: response.blamed_clock(signed_at),
        }
    }
}

/// The situations that callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CosErrorKind {
    /// COS does not accept the credentials, so no other call will succeed.
    Credentials,
    /// The credentials may not do this; on a look-up also: it may not be there.
    NotPermitted,
    /// There is no such bucket, object or upload.
    NotFound,
    /// Something stands there that must not be replaced, or a bucket of that name exists.
    AlreadyExists,
    /// The object is not the one that was asked for any more.
    Changed,
    /// COS is asked too often.
    Throttled,
    /// The call was understood and refused.
    Refused,
    /// There was no usable answer.
    NoAnswer,
}

/// Codes that speak of the credentials (product page 436/7730).
const CREDENTIALS_CODES: &[&str] = &[
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];

impl CosError {
    pub(super) fn without_answer(operation: &'static str, error: RequestError) -> Self {
        let request_id = error.request_id().map(str::to_owned);
        Self {
            operation,
            problem: Problem::Request(error),
            request_id,
        }
    }

    pub(super) fn of(operation: &'static str, problem: Problem, response: &Response) -> Self {
        let request_id = response.header("x-cos-request-id");
        Self {
            operation,
            problem,
            request_id,
        }
    }

    /// Whether no answer came at all, as when the network is away.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self.problem, Problem::Request(_))
    }

    /// Whether what is named has no such method: on a look at a version, it is a delete marker.
    pub(super) fn is_not_allowed(&self) -> bool {
        let not_allowed = StatusCode::METHOD_NOT_ALLOWED;
        matches!(&self.problem, Problem::Refused { status, .. } if *status == not_allowed)
    }

    /// Whether the object is larger than what is read of one.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(
            self.problem,
            Problem::Oversized { .. } | Problem::Request(RequestError::TooLarge { .. })
        )
    }

    /// Whether COS itself says that a right is missing: not a gateway, and not for the time of the signature.
    pub(crate) fn is_missing_right(&self) -> bool {
        matches!(
            &self.problem,
            Problem::Refused {
                blamed_clock: None,
                ..
            }
        ) && self.code() == Some("AccessDenied")
            && !self.is_expired_signature()
    }

    /// Whether the signature was too old when it arrived (facts of the Node.js SDK: `AccessDenied` with this message).
    pub(crate) fn is_expired_signature(&self) -> bool {
        match &self.problem {
            Problem::Refused {
                code: Some(code),
                message,
                ..
            } => {
                code.as_str() == "RequestTimeTooSkewed"
                    || message.as_str().contains("Request has expired")
            }
            _ => false,
        }
    }

    /// Whether the same write may be taken later: no answer, a refusal for the moment, an expired signature.
    pub(crate) fn may_pass(&self) -> bool {
        match self.kind() {
            CosErrorKind::NotPermitted | CosErrorKind::Credentials => self.is_expired_signature(),
            CosErrorKind::Changed | CosErrorKind::AlreadyExists => false,
            CosErrorKind::NoAnswer
            | CosErrorKind::Throttled
            | CosErrorKind::Refused
            | CosErrorKind::NotFound => true,
        }
    }

    /// The situation.
    #[must_use]
    pub fn kind(&self) -> CosErrorKind {
        let (status, code) = match &self.problem {
            Problem::Refused { status, code, .. } => (status, code),
            Problem::Changed => return CosErrorKind::Changed,
            _ => return CosErrorKind::NoAnswer,
        };
        if let Some(code) = code {
            match code.as_str() {
                code if CREDENTIALS_CODES.contains(&code) => return CosErrorKind::Credentials,
                "FileAlreadyExists" | "BucketAlreadyExists" | "BucketAlreadyOwnedByYou" => {
                    return CosErrorKind::AlreadyExists;
                }
                "SlowDown" => return CosErrorKind::Throttled,
                _ => {}
            }
        }
        match status.as_u16() {
            403 => CosErrorKind::NotPermitted,
            404 => CosErrorKind::NotFound,
            429 => CosErrorKind::Throttled,
            412 => CosErrorKind::Changed,
            401 | 402 | 409 | 411 | 416 | 451 | 501 => CosErrorKind::Refused,
            400 if code.is_some() => CosErrorKind::Refused,
            _ => CosErrorKind::NoAnswer,
        }
    }

    /// How long COS asks to be left alone, where it does.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match &self.problem {
            Problem::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// COS's code, where the answer has one; HEAD has none.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.problem {
            Problem::Refused {
                code: Some(code), ..
            } => Some(code.as_str()),
            _ => None,
        }
    }

    /// COS's name for the request, where it told one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

impl Attempt for CosError {
    /// Every call of this client may be repeated: it looks, or writes the same once more.
    fn again(&self) -> Again {
        let (status, code, retry_after, blamed_clock) = match &self.problem {
            Problem::Request(error) => return error.again(),
            Problem::Unreadable(_)
            | Problem::Lacking(_)
            | Problem::LeadsBack(_)
            | Problem::WrongRange(_) => {
                return Again::Later;
            }
            Problem::Oversized { .. } | Problem::Changed => return Again::No,
            Problem::Refused {
                status,
                code,
                retry_after,
                blamed_clock,
                ..
            } => (status, code, retry_after, blamed_clock),
        };
        if let (StatusCode::FORBIDDEN, Some(time)) = (*status, blamed_clock) {
            return Again::SignedAnew(*time);
        }
        match (status.as_u16(), code.as_ref().map(CloudText::as_str)) {
            // The answer to a HEAD has no body that could tell the code.
            (_, Some("ExpiredToken")) | (400, None) => Again::WithNewCredentials,
            (429, _) | (_, Some("SlowDown")) => Again::Throttled(*retry_after),
            (408, _) | (_, Some("RequestTimeout")) => Again::Later,
            (500..=599, _) if *status != StatusCode::NOT_IMPLEMENTED => Again::Later,
            _ => Again::No,
        }
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

impl fmt::Display for CosError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation;
        let request = match &self.request_id {
            Some(request_id) => format!("request {request_id}"),
            None => "without a request id".to_owned(),
        };
        match &self.problem {
            Problem::Request(_) => write!(formatter, "COS gave no answer to {operation}"),
            Problem::Refused {
                status,
                code,
                message,
                ..
            } => {
                let code = code
                    .as_ref()
                    .map_or_else(String::new, |code| format!("{code}, "));
                write!(
                    formatter,
                    "COS refused {operation} ({code}HTTP status {}, {request})",
                    status.as_u16()
                )?;
                match message.as_str() {
                    "" => Ok(()),
                    message => write!(formatter, ": {message}"),
                }
            }
            Problem::Unreadable(_) => {
                write!(
                    formatter,
                    "the answer of COS to {operation} cannot be read ({request})"
                )
            }
            Problem::Lacking(header) => {
                write!(
                    formatter,
                    "the answer of COS to {operation} lacks `{header}` ({request})"
                )
            }
            Problem::LeadsBack(element) => {
                write!(
                    formatter,
                    "the answer of COS to {operation} is cut off, and its `{element}` leads back ({request})"
                )
            }
            Problem::WrongRange(what) => {
                write!(formatter, "COS answered a range with {what} ({request})")
            }
            Problem::Changed => write!(
                formatter,
                "the object has been replaced by another one ({request})"
            ),
            Problem::Oversized { limit_bytes } => {
                write!(
                    formatter,
                    "the object is larger than {limit_bytes} bytes ({request})"
                )
            }
        }
    }
}

impl std::error::Error for CosError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Request(error) => Some(error),
            Problem::Unreadable(error) => Some(error),
            Problem::Refused { .. }
            | Problem::Lacking(_)
            | Problem::LeadsBack(_)
            | Problem::Oversized { .. }
            | Problem::WrongRange(_)
            | Problem::Changed => None,
        }
    }
}

/// The right that an operation needs which no export makes, so that its policy does not name it.
fn right_to_clean_up(operation: &str) -> Option<&'static str> {
    match operation {
        "DELETE Multiple Objects" => Some("name/cos:DeleteMultipleObjects"),
        "Abort Multipart Upload" => Some("name/cos:AbortMultipartUpload"),
        "GET Bucket versioning" => Some("name/cos:GetBucketVersioning"),
        "GET Bucket Object versions" => Some("name/cos:GetBucketObjectVersions"),
        _ => None,
    }
}

impl From<CosError> for Error {
    fn from(error: CosError) -> Self {
        let operation = error.operation;
        let print_policy = "`cvm-export check --print-policy` prints the rights that are needed";
        let (kind, message, hint) = match error.kind() {
            CosErrorKind::Credentials => {
                let hint = match error.code() {
                    Some("RequestTimeTooSkewed") => {
                        "set this machine's clock: it is more than 15 minutes off"
                    }
                    Some("ExpiredToken") => {
                        "the session token is no longer valid; get new temporary credentials"
                    }
                    _ => "`-v` says where the credentials came from",
                };
                (
                    ErrorKind::Credentials,
                    "COS does not accept the credentials".to_owned(),
                    Some(hint.to_owned()),
                )
            }
            CosErrorKind::NotPermitted => (
                ErrorKind::Permission,
                format!("these credentials may not do {operation}"),
                Some(match right_to_clean_up(operation) {
                    Some(right) => format!("allow `{right}`"),
                    None => print_policy.to_owned(),
                }),
            ),
            CosErrorKind::NotFound => (
                ErrorKind::Precondition,
                "there is no such bucket or object".to_owned(),
                Some("look at the bucket's name and region with `cvm-export check`".to_owned()),
            ),
            CosErrorKind::Changed => (
                ErrorKind::Verification,
                "the object is not the one that was asked for any more".to_owned(),
                Some("run the command again to take the new one".to_owned()),
            ),
            CosErrorKind::AlreadyExists | CosErrorKind::Refused => {
                (ErrorKind::Refused, format!("COS refused {operation}"), None)
            }
            CosErrorKind::Throttled => (
                ErrorKind::Quota,
                "COS is asked too often".to_owned(),
                Some("other programs use the same bucket; run the command again later".to_owned()),
            ),
            CosErrorKind::NoAnswer => (
                ErrorKind::Unexpected,
                format!("{operation} brought no usable answer"),
                match &error.problem {
                    Problem::Request(problem) => problem.hint(),
                    // Nobody else words a refusal as COS does.
                    Problem::Refused { code: Some(_), .. } => {
                        Some("COS itself is at fault; run the command again later".to_owned())
                    }
                    _ => Some(ANSWERED_BY_OTHERS.to_owned()),
                },
            ),
        };
        let request_id = error.request_id.clone();
        Error::new(kind, message)
            .with_optional_hint(hint)
            .with_request_id(request_id)
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answered(status: u16, body: &str) -> CosError {
        let response = Response {
            status: StatusCode::from_u16(status).expect("status"),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let problem = Problem::of(&response, DateTime::UNIX_EPOCH);
        CosError::of("HEAD Object", problem, &response)
    }

    fn coded(status: u16, code: &str) -> CosError {
        answered(
            status,
            &format!("<Error><Code>{code}</Code><Message>words</Message></Error>"),
        )
    }

    #[test]
    fn a_status_without_a_body_is_judged_by_itself() {
        let cases = [
            (403, CosErrorKind::NotPermitted, Again::No),
            (404, CosErrorKind::NotFound, Again::No),
            (400, CosErrorKind::NoAnswer, Again::WithNewCredentials),
            (429, CosErrorKind::Throttled, Again::Throttled(None)),
            (500, CosErrorKind::NoAnswer, Again::Later),
            (501, CosErrorKind::Refused, Again::No),
            (503, CosErrorKind::NoAnswer, Again::Later),
            (301, CosErrorKind::NoAnswer, Again::No),
        ];
        for (status, kind, again) in cases {
            let error = answered(status, "");
            assert_eq!((error.kind(), error.again()), (kind, again), "{status}");
        }
    }

    #[test]
    fn a_refusal_by_a_clock_far_away_is_signed_anew_with_the_time_of_that_clock() {
        let date = http::HeaderValue::from_static("Tue, 24 Nov 2026 12:00:00 GMT");
        let response = Response {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::from_iter([(http::header::DATE, date)]),
            body: Bytes::new(),
        };
        let time = response.date().expect("a date");
        let again = |signed_at| {
            let problem = Problem::of(&response, signed_at);
            CosError::of("HEAD Object", problem, &response).again()
        };
        let hour = chrono::Duration::hours(1);
        assert_eq!(again(time - hour), Again::SignedAnew(time));
        assert_eq!(again(time), Again::No);
    }

    #[test]
    fn codes_say_more_than_the_status() {
        assert_eq!(
            coded(403, "SignatureDoesNotMatch").kind(),
            CosErrorKind::Credentials
        );
        assert_eq!(
            coded(403, "AccessDenied").kind(),
            CosErrorKind::NotPermitted
        );
        assert_eq!(
            coded(409, "FileAlreadyExists").kind(),
            CosErrorKind::AlreadyExists
        );
        assert_eq!(coded(503, "SlowDown").again(), Again::Throttled(None));
        assert_eq!(coded(400, "InvalidArgument").kind(), CosErrorKind::Refused);
        assert_eq!(coded(404, "NoSuchBucket").code(), Some("NoSuchBucket"));
    }

    #[test]
    fn a_page_in_the_place_of_xml_is_shown_stripped_and_cut() {
        let error = answered(502, "<html>\u{1b}[31mBad Gateway</html>");
        assert_eq!(
            error.to_string(),
            "COS refused HEAD Object (HTTP status 502, without a request id): <html> [31mBad Gateway</html>"
        );
    }
}
