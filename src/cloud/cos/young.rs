//! Requests that are signed before it is decided what they carry, and are sent within five minutes or not at all.
//!
//! COS judges the age of a signature by its own clock. So a process that was stopped between the signature and the
//! request writes nothing late. The signature covers method, path, parameters and the headers that are known by
//! then; the body is not part of it (product page 436/7778).

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};

use super::error::{CosError, Problem};
use super::{Call, CosClient, ObjectMeta, absent_as_none};
use crate::cloud::http::{
    Request, RequestError, Response, RetryPolicy, Signing, header_name, header_value,
};
use crate::model::{BucketName, ObjectKey, Region};

/// How long a young signature is good.
const YOUNG_SECONDS: i64 = 300;

/// A PUT of a small JSON object, signed and without its body.
#[derive(Debug)]
pub(crate) struct YoungPut(Young);

/// A Delete Multiple Objects call, signed and without its list of keys.
#[derive(Debug)]
pub(crate) struct YoungDelete(pub(super) Young);

#[derive(Debug)]
pub(super) struct Young {
    operation: &'static str,
    request: Result<Request, RequestError>,
    signing: Signing,
}

/// A small object, with the times of one and the same answer.
#[derive(Clone, Debug)]
pub(crate) struct Dated {
    pub(crate) meta: ObjectMeta,
    pub(crate) body: Bytes,
    /// When the server answered.
    pub(crate) date: Option<DateTime<Utc>>,
}

impl CosClient {
    /// Creates a small JSON object where there is none, by `x-cos-forbid-overwrite`. Sent once: whoever repeats it
    /// can find out whether the object that exists is its own.
    ///
    /// # Errors
    /// [`CosErrorKind::AlreadyExists`](super::CosErrorKind::AlreadyExists) if there is an object and the bucket
    /// honours the header, and any other [`CosError`].
    pub(crate) async fn create_object(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        body: Bytes,
    ) -> Result<(), CosError> {
        let call = Call {
            method: Method::PUT,
            key: Some(key),
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("x-cos-forbid-overwrite", "true".to_owned()),
            ],
            body,
            ..Call::get("PUT Object", self.host(bucket, region))
        };
        self.call_by(&RetryPolicy::ONCE, &call, |_| Ok(())).await
    }

    /// Signs a PUT of the object `key`, which may replace what is there.
    pub(crate) async fn sign_put(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
    ) -> YoungPut {
        let call = Call {
            method: Method::PUT,
            key: Some(key),
            headers: vec![("content-type", "application/json".to_owned())],
            ..Call::get("PUT Object", self.host(bucket, region))
        };
        YoungPut(self.sign_young(call).await)
    }

    /// Sends a signed PUT with `body`, once.
    ///
    /// # Errors
    /// Any [`CosError`]. The object may have been written if there was no usable answer.
    pub(crate) async fn put_signed(&self, put: YoungPut, body: Bytes) -> Result<(), CosError> {
        self.send_young(put.0, body, None, |_| Ok(())).await
    }

    pub(super) async fn sign_young(&self, call: Call<'_>) -> Young {
        let call = Call {
            signature_seconds: YOUNG_SECONDS,
            ..call
        };
        let signing = self.http.signing(None).await;
        Young {
            operation: call.operation,
            request: self.request(&call, &signing),
            signing,
        }
    }

    /// Sends what was signed with `body` and one more header, once.
    pub(super) async fn send_young<T>(
        &self,
        young: Young,
        body: Bytes,
        header: Option<(&'static str, String)>,
        read: impl FnOnce(&Response) -> Result<T, Problem>,
    ) -> Result<T, CosError> {
        let Young {
            operation,
            request,
            signing,
        } = young;
        let request = request.and_then(|mut request| {
            request.body = body;
            request.headers.remove(CONTENT_LENGTH);
            if let Some((name, value)) = header {
                let value = header_value(&request.host, name, &value)?;
                request.headers.insert(header_name(name), value);
            }
            Ok(request)
        });
        let response = match request {
            Ok(request) => self.http.send(request).await,
            Err(error) => Err(error),
        };
        let response = response.map_err(|error| CosError::without_answer(operation, error))?;
        let read = match response.status {
            StatusCode::OK => read(&response),
            _ => Err(Problem::of(&response, signing.time)),
        };
        read.map_err(|problem| CosError::of(operation, problem, &response))
    }

    /// Fetches an object of at most `limit_bytes` with the time of the answer; `None` if there is none (GET Object,
    /// product page 436/7753).
    ///
    /// # Errors
    /// As [`CosClient::get_small_object`].
    pub(crate) async fn get_dated(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        limit_bytes: usize,
    ) -> Result<Option<Dated>, CosError> {
        let call = Call {
            key: Some(key),
            ..Call::get("GET Object", self.host(bucket, region))
        };
        let read = |response: &Response| {
            let meta = ObjectMeta::of(key, response)?;
            if response.body.len() > limit_bytes {
                return Err(Problem::Oversized { limit_bytes });
            }
            let body = response.body.clone();
            let date = response.date();
            Ok(Dated { meta, body, date })
        };
        absent_as_none(self.call(&call, read).await)
    }
}
