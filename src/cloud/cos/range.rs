//! One range of an object, checked to be exactly that before a byte of it is handed out.
//!
//! `x-cos-hash-crc64ecma` of a partial answer is the whole object's (product page 436/7753), so it says
//! nothing about the range; what a range must be is said by its status, `Content-Range`, length and ETag.

use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, StatusCode};

use super::error::Problem;
use super::{Call, CosClient, CosError, ObjectMeta};
use crate::cloud::http::{Answering, Connection, Response, Signing};
use crate::model::{BucketName, Region};

const OPERATION: &str = "GET Object";

/// The bytes of one range, on their way.
#[derive(Debug)]
pub(crate) struct RangeBody {
    answer: Answering,
    /// How many bytes are still to come.
    remaining: u64,
}

impl CosClient {
    /// Asks for `range` of `object`, which must still be the same: one attempt,
    /// signed by `signing`.
    ///
    /// # Errors
    /// [`CosErrorKind::Changed`](super::CosErrorKind::Changed) when another object stands there, and any
    /// other [`CosError`].
    pub(crate) async fn open_range(
        &self,
        bucket: &BucketName,
        region: &Region,
        object: &ObjectMeta,
        range: &Range<u64>,
        signing: &Signing,
    ) -> Result<RangeBody, CosError> {
        let mut call = Call {
            method: Method::GET,
            key: Some(&object.key),
            ..Call::get(OPERATION, self.host(bucket, region))
        };
        let last = range.end.saturating_sub(1);
        call.headers
            .push(("range", format!("bytes={}-{last}", range.start)));
        if !object.etag.is_empty() {
            call.headers
                .push(("if-match", format!("\"{}\"", object.etag)));
        }
        if let Some(version_id) = &object.version_id {
            call.parameters.push(("versionId", version_id.clone()));
        }
        let lost = |error| CosError::without_answer(OPERATION, error);
        let mut request = self.request(&call, signing).map_err(lost)?;
        request.connection = Connection::Data;
        let answer = self.http.open_answer(request).await.map_err(lost)?;
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            return match check(answer.headers(), object, range) {
                Ok(()) => Ok(RangeBody {
                    answer,
                    remaining: range.end - range.start,
                }),
                Err(problem) => Err(CosError::of(OPERATION, problem, &head_of(&answer))),
            };
        }
        if answer.status() == StatusCode::OK {
            let problem = Problem::WrongRange("the whole object (200 instead of 206)".to_owned());
            return Err(CosError::of(OPERATION, problem, &head_of(&answer)));
        }
        // A refusal is short, or no refusal of COS; either way it gets no more time than any answer.
        let limit = self.http.settings().answer_timeout;
        let head = head_of(&answer);
        let response = match tokio::time::timeout(limit, answer.read_whole()).await {
            Ok(response) => response.map_err(lost)?,
            Err(_) => head,
        };
        let problem = Problem::of(&response, signing.time);
        Err(CosError::of(OPERATION, problem, &response))
    }

    /// What a range is signed with: the present credentials, and the time now or that of the refusal
    /// before it.
    pub(crate) async fn signing(&self, refusing_clock: Option<DateTime<Utc>>) -> Signing {
        self.http.signing(refusing_clock).await
    }

    /// Asks for newer credentials after those of an attempt were refused; says whether there are any.
    pub(crate) async fn renew_credentials(&self, refused: &Signing) -> bool {
        self.http.renew_credentials(refused).await
    }
}

impl RangeBody {
    /// The next bytes, never more than were asked for; `None` after the last.
    ///
    /// # Errors
    /// [`CosError`] when the body breaks off, stalls, or is longer or shorter than the range.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, CosError> {
        let chunk = self.answer.next_chunk().await;
        let chunk = chunk.map_err(|error| CosError::without_answer(OPERATION, error))?;
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let problem = match (&chunk, self.remaining.checked_sub(length)) {
            (None, _) if self.remaining > 0 => "fewer bytes than were asked for",
            (_, None) => "more bytes than were asked for",
            (_, Some(remaining)) => {
                self.remaining = remaining;
                return Ok(chunk);
            }
        };
        let problem = Problem::WrongRange(problem.to_owned());
        Err(CosError::of(OPERATION, problem, &head_of(&self.answer)))
    }
}

/// Whether a partial answer is `range` of `object`.
fn check(headers: &HeaderMap, object: &ObjectMeta, range: &Range<u64>) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text("etag").map(|etag| etag.trim_matches('"'));
    if etag.is_some_and(|etag| etag != object.etag) {
        return Err(Problem::Changed);
    }
    let wanted = format!(
        "bytes {}-{}/{}",
        range.start,
        range.end.saturating_sub(1),
        object.size_bytes
    );
    let seen = text("content-range").unwrap_or_default();
    if seen != wanted {
        let seen = crate::model::CloudText::excerpt(seen, 60);
        return Err(Problem::WrongRange(format!(
            "`Content-Range: {seen}` instead of `{wanted}`"
        )));
    }
    let length = text("content-length").map(str::parse::<u64>);
    if length.is_some_and(|length| length != Ok(range.end - range.start)) {
        return Err(Problem::WrongRange("another length".to_owned()));
    }
    Ok(())
}

/// The head of an answer, for messages that need its request id.
fn head_of(answer: &Answering) -> Response {
    Response {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: Bytes::new(),
    }
}
