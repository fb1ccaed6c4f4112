//! The object storage: look-ups, small objects, listings, unfinished uploads.
//!
//! Errors arrive as XML, except on HEAD, which has no body: there the status alone tells. Names are
//! listed in percent-encoded form and decoded here, since XML cannot carry every byte of a key.

mod answers;
mod deletion;
mod error;
mod link;
mod range;
mod young;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::auth::cos::KeyTime;
use crate::auth::{self, Timestamp, percent_encode, percent_encode_path};
use crate::cloud::Network;
use crate::cloud::http::{
    Connection, HttpClient, Request, RequestError, Response, RetryPolicy, Signing, header_name,
    header_value, parse_http_date, secret_value,
};
use crate::model::{BucketName, ObjectKey, Region};

pub use answers::{
    BucketEntry, DeleteMarker, ObjectEntry, ObjectPage, Part, PartPage, Upload, UploadList,
    UploadMarker, VersionEntry, VersionMarker, VersionPage, Versioning,
};
pub use deletion::{Deletion, KeyDeletion};
pub use error::{CosError, CosErrorKind};
pub use link::{LinkEnd, ObjectLink};
pub(crate) use young::{Dated, YoungDelete, YoungPut};

use error::Problem;

/// How long a signature is good. It begins a minute early, as in Tencent's own SDK, for servers whose
/// clock is behind.
const SIGNATURE_SECONDS: i64 = 900;
const SIGNATURE_EARLY_SECONDS: i64 = 60;

/// Whether a put may replace what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It may.
    Allow,
    /// It may not, where COS honours `x-cos-forbid-overwrite` (not in versioned buckets).
    Forbid,
}

/// An object that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Whether the bucket keeps versions, so that [`Overwrite::Forbid`] had no effect.
    pub is_versioned: bool,
}

/// What HEAD says of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketHead {
    /// Its region.
    pub region: Option<Region>,
    /// Whether it keeps every object in several zones, which has storage classes and prices of its own.
    pub is_multi_az: bool,
}

/// What COS says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag without quotes; for an object uploaded in parts it is not an MD5.
    pub etag: String,
    /// Its CRC-64/XZ in decimal; older objects have none.
    pub crc64: Option<String>,
    /// Its storage class, `STANDARD` where COS names none.
    pub storage_class: String,
    /// When it was written.
    pub last_modified: Option<DateTime<Utc>>,
    /// Its version, in a versioned bucket.
    pub version_id: Option<String>,
}

impl ObjectMeta {
    fn of(key: &ObjectKey, response: &Response) -> Result<Self, Problem> {
        let size = response
            .header("content-length")
            .and_then(|size| size.parse().ok());
        let etag = response.header("etag");
        // Whatever answers in the place of COS, such as the page of a portal, has neither.
        if etag.is_none() && response.header("x-cos-request-id").is_none() {
            return Err(Problem::Lacking("ETag"));
        }
        let crc64 = response.header("x-cos-hash-crc64ecma");
        Ok(Self {
            key: key.clone(),
            size_bytes: size.ok_or(Problem::Lacking("Content-Length"))?,
            etag: etag
                .map(|etag| etag.trim_matches('"').to_owned())
                .unwrap_or_default(),
            crc64: crc64.filter(|crc64| crc64.parse::<u64>().is_ok()),
            storage_class: response
                .header("x-cos-storage-class")
                .unwrap_or_else(|| "STANDARD".to_owned()),
            last_modified: response
                .header("last-modified")
                .and_then(|date| parse_http_date(&date)),
            version_id: response.header("x-cos-version-id"),
        })
    }
}

/// Asks the object storage.
#[derive(Clone, Debug)]
pub struct CosClient {
    http: HttpClient,
}

/// One call, before it is signed.
#[derive(Clone, Debug)]
struct Call<'a> {
    /// Its name in messages.
    operation: &'static str,
    method: Method,
    host: String,
    key: Option<&'a ObjectKey>,
    /// Decoded; all of them are signed.
    parameters: Vec<(&'static str, String)>,
    /// All of them are signed.
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// The status of its success.
    success: StatusCode,
    /// How long its signature is good.
    signature_seconds: i64,
}

impl CosClient {
    pub(crate) fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// The account's buckets in all regions (GET Service, product page 436/8291).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:GetService`, and any other [`CosError`].
    pub async fn list_buckets(&self) -> Result<Vec<BucketEntry>, CosError> {
        let host = self.http.settings().endpoints.cos_service_host().to_owned();
        let call = Call::get("GET Service", host);
        self.call(&call, answers::buckets).await
    }

    /// Looks at a bucket by the host of `region` (HEAD Bucket, product page 436/7735).
    ///
    /// # Errors
    /// [`CosErrorKind::NotFound`] when that region has no such bucket, and any other [`CosError`].
    pub async fn head_bucket(
        &self,
        bucket: &BucketName,
        region: &Region,
    ) -> Result<BucketHead, CosError> {
        let call = Call {
            method: Method::HEAD,
            ..Call::get("HEAD Bucket", self.host(bucket, region))
        };
        self.call(&call, |response| {
            let region = response.header("x-cos-bucket-region");
            Ok(BucketHead {
                region: region.and_then(|region| region.parse().ok()),
                is_multi_az: response.header("x-cos-bucket-az-type").as_deref() == Some("MAZ"),
            })
        })
        .await
    }

    /// Makes an empty private bucket (PUT Bucket, product page 436/7738). To make one that is there already
    /// changes nothing and is refused with [`CosErrorKind::AlreadyExists`], wherever it is.
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:PutBucket`, and any other [`CosError`].
    pub async fn put_bucket(&self, bucket: &BucketName, region: &Region) -> Result<(), CosError> {
        let call = Call {
            method: Method::PUT,
            headers: vec![("x-cos-acl", "private".to_owned())],
            ..Call::get("PUT Bucket", self.host(bucket, region))
        };
        self.call(&call, |_| Ok(())).await
    }

    /// Looks at an object, or a version of it; `None` when nothing or a delete marker stands there (HEAD
    /// Object, product page 436/7745).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] also where the right to look is missing and nothing may stand
    /// there, and any other [`CosError`].
    pub async fn head_object(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        version_id: Option<&str>,
    ) -> Result<Option<ObjectMeta>, CosError> {
        let mut call = Call {
            method: Method::HEAD,
            key: Some(key),
            ..Call::get("HEAD Object", self.host(bucket, region))
        };
        let version = version_id.map(|id| ("versionId", id.to_owned()));
        call.parameters.extend(version);
        let looked = self
            .call(&call, |response| ObjectMeta::of(key, response))
            .await;
        match looked {
            Err(error) if version_id.is_some() && error.is_not_allowed() => Ok(None),
            looked => absent_as_none(looked),
        }
    }

    /// Fetches an object of at most `limit_bytes`, or a version of it; `None` when nothing stands there (GET
    /// Object, product page 436/7753).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:GetObject`, and any other [`CosError`], such as
    /// for an object that is larger.
    pub async fn get_small_object(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        version_id: Option<&str>,
        limit_bytes: usize,
    ) -> Result<Option<(ObjectMeta, Bytes)>, CosError> {
        let mut call = Call {
            key: Some(key),
            ..Call::get("GET Object", self.host(bucket, region))
        };
        let version_id = version_id.map(|id| ("versionId", id.to_owned()));
        call.parameters.extend(version_id);
        let read = |response: &Response| {
            let meta = ObjectMeta::of(key, response)?;
            if response.body.len() > limit_bytes {
                return Err(Problem::Oversized { limit_bytes });
            }
            Ok((meta, response.body.clone()))
        };
        absent_as_none(self.call(&call, read).await)
    }

    /// Writes a small object (PUT Object).
    ///
    /// # Errors
    /// [`CosErrorKind::AlreadyExists`] where [`Overwrite::Forbid`] is honoured and something stands there,
    /// [`CosErrorKind::NotPermitted`] without `name/cos:PutObject`, and any other [`CosError`].
    pub async fn put_object(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        body: Bytes,
        content_type: &str,
        overwrite: Overwrite,
    ) -> Result<Put, CosError> {
        let mut headers = vec![("content-type", content_type.to_owned())];
        if overwrite == Overwrite::Forbid {
            headers.push(("x-cos-forbid-overwrite", "true".to_owned()));
        }
        let call = Call {
            method: Method::PUT,
            key: Some(key),
            headers,
            body,
            ..Call::get("PUT Object", self.host(bucket, region))
        };
        let read = |response: &Response| {
            let is_versioned = response.headers.contains_key("x-cos-version-id");
            Ok(Put { is_versioned })
        };
        self.call(&call, read).await
    }

    /// One page of at most 1,000 objects whose keys start with `prefix`, after `marker` (GET Bucket,
    /// product page 436/30614). Eventually consistent: an object just written may be missing.
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:GetBucket`, and any other [`CosError`].
    pub async fn list_objects(
        &self,
        bucket: &BucketName,
        region: &Region,
        prefix: &str,
        marker: Option<&str>,
    ) -> Result<ObjectPage, CosError> {
        let mut call = Call::get("GET Bucket", self.host(bucket, region));
        call.parameters = vec![
            ("encoding-type", "url".to_owned()),
            ("prefix", prefix.to_owned()),
        ];
        call.parameters
            .extend(marker.map(|marker| ("marker", marker.to_owned())));
        self.call(&call, |response| answers::objects(response, marker))
            .await
    }

    /// One page of at most 1,000 versions and delete markers whose keys start with `prefix`, after `marker`
    /// (GET Bucket Object versions, product page 436/31551).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:GetBucketObjectVersions`, and any other
    /// [`CosError`].
    pub async fn list_versions(
        &self,
        bucket: &BucketName,
        region: &Region,
        prefix: &str,
        marker: Option<&VersionMarker>,
    ) -> Result<VersionPage, CosError> {
        let mut call = Call::get("GET Bucket Object versions", self.host(bucket, region));
        call.parameters = vec![
            ("encoding-type", "url".to_owned()),
            ("prefix", prefix.to_owned()),
            ("versions", String::new()),
        ];
        if let Some(marker) = marker {
            call.parameters.push(("key-marker", marker.key.clone()));
            let version_id = marker.version_id.clone();
            call.parameters
                .extend(version_id.map(|id| ("version-id-marker", id)));
        }
        self.call(&call, |response| answers::versions(response, marker))
            .await
    }

    /// Whether a bucket keeps what is overwritten and deleted (GET Bucket versioning, product page
    /// 436/19888).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:GetBucketVersioning`, and any other [`CosError`].
    pub async fn get_versioning(
        &self,
        bucket: &BucketName,
        region: &Region,
    ) -> Result<Versioning, CosError> {
        let mut call = Call::get("GET Bucket versioning", self.host(bucket, region));
        call.parameters = vec![("versioning", String::new())];
        self.call(&call, answers::versioning).await
    }

    /// One page of at most 1,000 unfinished uploads whose keys start with `prefix`, after `marker` (List
    /// Multipart Uploads, product page 436/7736).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:ListMultipartUploads`, and any other [`CosError`].
    pub async fn list_uploads(
        &self,
        bucket: &BucketName,
        region: &Region,
        prefix: &str,
        marker: Option<&UploadMarker>,
    ) -> Result<UploadList, CosError> {
        let mut call = Call::get("List Multipart Uploads", self.host(bucket, region));
        call.parameters = vec![
            ("encoding-type", "url".to_owned()),
            ("prefix", prefix.to_owned()),
            ("uploads", String::new()),
        ];
        if let Some(marker) = marker {
            call.parameters.push(("key-marker", marker.key.clone()));
            let upload_id = marker.upload_id.clone();
            call.parameters
                .extend(upload_id.map(|id| ("upload-id-marker", id)));
        }
        self.call(&call, |response| answers::uploads(response, marker))
            .await
    }

    /// Every unfinished upload whose key starts with `prefix`, page by page: what is not in this list is
    /// not being written.
    ///
    /// # Errors
    /// As [`CosClient::list_uploads`]; a list that is cut off is none.
    pub async fn all_uploads(
        &self,
        bucket: &BucketName,
        region: &Region,
        prefix: &str,
    ) -> Result<Vec<Upload>, CosError> {
        let mut uploads = Vec::new();
        let mut marker = None;
        loop {
            let page = self
                .list_uploads(bucket, region, prefix, marker.as_ref())
                .await?;
            uploads.extend(page.uploads);
            if page.next.is_none() {
                return Ok(uploads);
            }
            marker = page.next;
        }
    }

    /// One page of at most 1,000 parts of an upload, from the one after number `after`; `None` when the
    /// upload is over (List Parts).
    ///
    /// # Errors
    /// [`CosErrorKind::NotPermitted`] without `name/cos:ListParts`, and any other [`CosError`].
    pub async fn list_parts(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        upload_id: &str,
        after: u32,
    ) -> Result<Option<PartPage>, CosError> {
        let mut call = Call {
            key: Some(key),
            ..Call::get("List Parts", self.host(bucket, region))
        };
        call.parameters = vec![("uploadId", upload_id.to_owned())];
        if after > 0 {
            call.parameters
                .push(("part-number-marker", after.to_string()));
        }
        let read = |response: &Response| answers::parts(response, after);
        absent_as_none(self.call(&call, read).await)
    }

    /// The network that its hosts belong to.
    #[must_use]
    pub fn network(&self) -> Network {
        self.http.settings().endpoints.network()
    }

    fn host(&self, bucket: &BucketName, region: &Region) -> String {
        self.http.settings().endpoints.bucket_host(bucket, region)
    }

    /// Makes `call`, repeating what may be repeated, and has `read` take the answer in.
    async fn call<T>(
        &self,
        call: &Call<'_>,
        read: impl Fn(&Response) -> Result<T, Problem>,
    ) -> Result<T, CosError> {
        let policy = &self.http.settings().retry;
        self.call_by(policy, call, read).await
    }

    /// As [`Self::call`], repeated as often as `policy` says.
    async fn call_by<T>(
        &self,
        policy: &RetryPolicy,
        call: &Call<'_>,
        read: impl Fn(&Response) -> Result<T, Problem>,
    ) -> Result<T, CosError> {
        let read = &read;
        self.http
            .repeat_by(policy, call.operation, |signing| async move {
                let response = match self.request(call, &signing) {
                    Ok(request) => self.http.send(request).await,
                    Err(error) => Err(error),
                };
                let response =
                    response.map_err(|error| CosError::without_answer(call.operation, error))?;
                let read = if response.status == call.success {
                    read(&response)
                } else {
                    Err(Problem::of(&response, signing.time))
                };
                read.map_err(|problem| CosError::of(call.operation, problem, &response))
            })
            .await
    }

    /// Signs `call` by `signing`: the host, all its headers and all its parameters.
    fn request(&self, call: &Call<'_>, signing: &Signing) -> Result<Request, RequestError> {
        let host = &call.host;
        let path = call
            .key
            .map_or_else(|| "/".to_owned(), |key| format!("/{key}"));
        let credentials = &signing.credentials;
        let now = Timestamp::from(signing.time);
        let parameters: Vec<(&str, &str)> = call
            .parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let mut signed: Vec<(&str, &str)> = vec![("host", host)];
        signed.extend(
            call.headers
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        let key_time = KeyTime {
            start: Timestamp(now.0 - SIGNATURE_EARLY_SECONDS),
            end: Timestamp(now.0 + call.signature_seconds),
        };
        let authorization = auth::cos::Authorization::new(
            credentials,
            key_time,
            &auth::cos::Request {
                method: call.method.as_str(),
                path: &path,
                parameters: &parameters,
                headers: &signed,
            },
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            AUTHORIZATION,
            secret_value(host, "authorization", &authorization.to_string())?,
        );
        if let Some(token) = &credentials.token {
            let name = "x-cos-security-token";
            headers.insert(header_name(name), secret_value(host, name, token.expose())?);
        }
        for (name, value) in &call.headers {
            headers.insert(
                HeaderName::from_static(name),
                header_value(host, name, value)?,
            );
        }
        if call.body.is_empty() && call.method == Method::PUT {
            // The network library leaves it out, and COS refuses that (`MissingContentLength`).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if !call.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
        }
        let mut target = percent_encode_path(&path);
        for (position, (name, value)) in call.parameters.iter().enumerate() {
            target.push(if position == 0 { '?' } else { '&' });
            target.push_str(&percent_encode(name));
            if !value.is_empty() {
                target.push('=');
                target.push_str(&percent_encode(value));
            }
        }
        Ok(Request {
            method: call.method.clone(),
            host: host.clone(),
            target,
            headers,
            body: call.body.clone(),
            connection: Connection::Reused,
        })
    }
}

impl Call<'_> {
    fn get(operation: &'static str, host: String) -> Self {
        Self {
            operation,
            method: Method::GET,
            host,
            key: None,
            parameters: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            success: StatusCode::OK,
            signature_seconds: SIGNATURE_SECONDS,
        }
    }
}

fn absent_as_none<T>(answer: Result<T, CosError>) -> Result<Option<T>, CosError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == CosErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
