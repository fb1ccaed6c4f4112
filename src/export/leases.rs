//! The leases of one export as objects in a bucket: their keys, their JSON, and how they are read and written.
//!
//! ```text
//! <prefix>_<imageId>.cvm-export.lease-<format>-<n>.json    the lease of attempt n; never deleted
//! <prefix>_<imageId>.cvm-export.json                       a copy of the newest record, for readers
//! ```
//!
//! What they mean is decided in [`super::lease`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::claim::{self, CLAIM_LIMIT_BYTES};
use super::lease::{
    Attempt, Bucket, Created, Kind, LeaseState, Number, Pause, Row, RowError, Seen,
};
use super::record::Record;
use super::request::{Identity, LEASE_INFIX, claim_key};
use crate::cloud::Cloud;
use crate::cloud::cos::{CosError, CosErrorKind, YoungPut};
use crate::crash;
use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, CloudText, ImageFormat, ImageId, ObjectKey, Prefix, Region};

const SCHEMA: &str = "cvm-export.lease.v1";
/// Longer than the calls between reading a row and creating a lease take.
const ARBITRATION: Duration = Duration::from_millis(1500);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_CLASH_PAUSE: Duration = Duration::from_secs(3);

/// What a lease holds: the record of its attempt. A removal has none.
pub(super) type Body = Option<Record>;

/// The row of one export.
pub(super) type ExportRow = Row<Body>;

/// The leases of one export in its bucket.
#[derive(Clone, Debug)]
pub(super) struct CosLeases<'a> {
    cloud: &'a Cloud,
    region: Region,
    identity: Identity,
    /// Whether COS has refused to replace an object in this run, which shows that it honours the header.
    is_guarded: Arc<AtomicBool>,
}

/// A lease as JSON.
#[derive(Serialize, Deserialize)]
struct Document {
    schema: CloudText,
    number: Number,
    kind: Kind,
    state: LeaseState,
    /// The export id, or the name of a removal.
    run: CloudText,
    host: CloudText,
    floor: Number,
    puts: u32,
    bucket: BucketName,
    image_id: ImageId,
    prefix: Option<Prefix>,
    format: ImageFormat,
    record: Option<serde_json::Value>,
}

/// Why a lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    /// COS did not do it.
    #[error(transparent)]
    Cos(#[from] CosError),
    /// The object exists, and says nothing that this version can rely on.
    #[error("`{key}` in the bucket cannot be used: {problem}")]
    Unusable { key: String, problem: String },
    /// The key of a lease would be too long.
    #[error("the prefix leaves no room for the key of a lease")]
    NoKey,
}

impl From<LeaseError> for Error {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Cos(error) => {
                let hint = "the lease in the bucket decides between machines: allow `name/cos:GetObject` and \
                            `name/cos:PutObject`, or use `--no-claim` if this is the only machine";
                let is_right = error.kind() == CosErrorKind::NotPermitted;
                let error = Self::from(error);
                match is_right {
                    true => Self::new(ErrorKind::Permission, "the leases in the bucket could not be read; nothing was submitted")
                        .with_hint(hint)
                        .with_source(error),
                    false => error,
                }
            }
            LeaseError::Unusable { .. } => Self::new(
                ErrorKind::Precondition,
                "an export of this image may be running; nothing was submitted",
            )
            .with_hint(
                "check whether an export of this image is running under this prefix; if none is, choose another \
                 `--prefix`, or use `--no-claim` on a single machine",
            )
            .with_source(error),
            LeaseError::NoKey => Self::new(ErrorKind::Usage, error.to_string())
                .with_hint("choose a shorter `--prefix`"),
        }
    }
}

impl From<RowError<LeaseError>> for Error {
    fn from(error: RowError<LeaseError>) -> Self {
        match error {
            RowError::Bucket(error) => error.into(),
            gap @ RowError::Gap { .. } => Self::new(
                ErrorKind::Precondition,
                "leases of this export were deleted from the bucket, so an export may be running; nothing was submitted",
            )
            .with_hint(
                "check whether an export of this image is running under this prefix; if none is, choose another \
                 `--prefix`, or use `--no-claim` on a single machine",
            )
            .with_source(gap),
        }
    }
}

impl<'a> CosLeases<'a> {
    pub(super) fn new(
        cloud: &'a Cloud,
        region: &Region,
        identity: Identity,
        is_guarded: Arc<AtomicBool>,
    ) -> Self {
        Self {
            cloud,
            region: region.clone(),
            identity,
            is_guarded,
        }
    }

    fn start(&self) -> String {
        let Identity {
            image_id,
            prefix,
            format,
            ..
        } = &self.identity;
        let stem = match prefix {
            Some(prefix) => format!("{prefix}_{image_id}"),
            None => image_id.to_string(),
        };
        format!("{stem}{LEASE_INFIX}{}-", format.extension())
    }

    pub(super) fn key(&self, number: Number) -> Result<ObjectKey, LeaseError> {
        let key = format!("{}{number}.json", self.start());
        key.parse().map_err(|_| LeaseError::NoKey)
    }

    fn claim_key(&self) -> Result<ObjectKey, LeaseError> {
        let Identity {
            image_id, prefix, ..
        } = &self.identity;
        claim_key(prefix.as_ref(), image_id).map_err(|_| LeaseError::NoKey)
    }

    async fn object(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<crate::cloud::cos::Dated>, LeaseError> {
        let (bucket, region) = (&self.identity.bucket, &self.region);
        let cos = self.cloud.cos();
        match cos.get_dated(bucket, region, key, CLAIM_LIMIT_BYTES).await {
            Ok(found) => Ok(found),
            Err(error) if error.is_too_large() => {
                Err(unusable(key, "it is too large for one of ours"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The lease that stands under `key`.
    fn seen(
        &self,
        number: Number,
        key: &ObjectKey,
        found: crate::cloud::cos::Dated,
    ) -> Result<Seen<Body>, LeaseError> {
        let attempt = self
            .parse(number, &found.body)
            .map_err(|problem| unusable(key, problem))?;
        Ok(Seen {
            attempt,
            age: age(&found),
            etag: found.meta.etag,
        })
    }

    /// The record that an earlier version has left where the first lease would be: it counts as attempt 1. One of
    /// another format is of another export.
    async fn earlier_claim(&self) -> Result<Option<Seen<Body>>, LeaseError> {
        let key = self.claim_key()?;
        let Some(found) = self.object(&key).await? else {
            return Ok(None);
        };
        let record = claim::parse(&found.body).map_err(|problem| unusable(&key, problem))?;
        let is_of_another_format = Identity {
            format: self.identity.format,
            ..record.identity()
        } == self.identity;
        if is_of_another_format && record.identity() != self.identity {
            return Ok(None);
        }
        if record.identity() != self.identity || !record.names_itself() {
            return Err(unusable(&key, "it is of another export than its key"));
        }
        if let Some(attempt) = record.attempt {
            // It was written after leases were: the first has come meanwhile, or was deleted.
            let first = self.key(1)?;
            return match self.object(&first).await? {
                Some(found) => self.seen(1, &first, found).map(Some),
                None => {
                    let problem = format!("it is missing, but `{key}` is of attempt {attempt}");
                    Err(unusable(&first, problem))
                }
            };
        }
        let age = age(&found);
        let attempt = Attempt {
            run: record.export_id.to_string(),
            kind: Kind::Export,
            state: lease_state(&record),
            floor: 0,
            puts: 0,
            host: "an earlier version".to_owned(),
            body: Some(record),
        };
        Ok(Some(Seen {
            attempt,
            etag: found.meta.etag,
            age,
        }))
    }

    fn document(&self, number: Number, attempt: &Attempt<Body>) -> Bytes {
        let identity = &self.identity;
        let record = attempt.body.as_ref().map(|record| {
            serde_json::to_value(record)
                .expect("a record holds only strings, numbers and lists, which JSON can show")
        });
        let document = Document {
            schema: SCHEMA.into(),
            number,
            kind: attempt.kind,
            state: attempt.state,
            run: CloudText::new(&attempt.run),
            host: CloudText::new(&attempt.host),
            floor: attempt.floor,
            puts: attempt.puts,
            bucket: identity.bucket.clone(),
            image_id: identity.image_id.clone(),
            prefix: identity.prefix.clone(),
            format: identity.format,
            record,
        };
        let mut text = serde_json::to_vec_pretty(&document)
            .expect("a lease holds only strings, numbers and lists, which JSON can show");
        text.push(b'\n');
        text.into()
    }

    /// Reads a lease, which anybody who may write to the bucket can have written.
    fn parse(&self, number: Number, text: &[u8]) -> Result<Attempt<Body>, String> {
        #[derive(Deserialize)]
        struct Schema {
            schema: CloudText,
        }
        let malformed = |_| "it is not a lease of cvm-export".to_owned();
        let Schema { schema } = serde_json::from_slice(text).map_err(malformed)?;
        if schema != *SCHEMA {
            return Err(format!(
                "it has the schema `{schema}`, which this version does not know; use a newer cvm-export"
            ));
        }
        let document: Document = serde_json::from_slice(text).map_err(malformed)?;
        let identity = Identity {
            bucket: document.bucket,
            image_id: document.image_id,
            prefix: document.prefix,
            format: document.format,
        };
        if identity != self.identity || document.number != number {
            return Err("it is of another export or attempt than its key".to_owned());
        }
        let record = document
            .record
            .map(|record| claim::parse(record.to_string().as_bytes()));
        let record = record.transpose().map_err(|problem| problem.to_string())?;
        let run = document.run.to_string();
        let is_consistent = match (document.kind, &record) {
            (Kind::Removal, record) => record.is_none(),
            (Kind::Export, None) => false,
            (Kind::Export, Some(record)) => {
                record.identity() == self.identity
                    && record.names_itself()
                    && record.export_id.as_str() == run
            }
        };
        if !is_consistent {
            return Err("its record is of another export".to_owned());
        }
        Ok(Attempt {
            run,
            kind: document.kind,
            state: document.state,
            floor: document.floor,
            puts: document.puts,
            host: document.host.to_string(),
            body: record,
        })
    }
}

fn unusable(key: &ObjectKey, problem: impl ToString) -> LeaseError {
    LeaseError::Unusable {
        key: key.to_string(),
        problem: problem.to_string(),
    }
}

/// How long ago an object was written, by the server's clock alone. One that does not say counts as new.
fn age(found: &crate::cloud::cos::Dated) -> Duration {
    let age = found.date.zip(found.meta.last_modified);
    let age = age.and_then(|(date, written)| date.signed_duration_since(written).to_std().ok());
    age.unwrap_or_default()
}

/// The state of the lease of an attempt that is as far as `record`.
pub(super) fn lease_state(record: &Record) -> LeaseState {
    use super::record::RecordState;
    match record.state() {
        RecordState::Queued => LeaseState::Queued,
        RecordState::Intended => LeaseState::Intended,
        RecordState::Submitted => LeaseState::Submitted,
        RecordState::Complete => LeaseState::Complete,
        RecordState::Failed => LeaseState::Failed,
        RecordState::Refused => LeaseState::Refused,
        RecordState::Abandoned => LeaseState::Abandoned,
    }
}

impl Bucket for CosLeases<'_> {
    type Body = Body;
    type Error = LeaseError;
    type Signature = (Number, ObjectKey, YoungPut);

    async fn get(&self, number: Number) -> Result<Option<Seen<Body>>, LeaseError> {
        let key = self.key(number)?;
        let Some(found) = self.object(&key).await? else {
            return match number {
                1 => self.earlier_claim().await,
                _ => Ok(None),
            };
        };
        self.seen(number, &key, found).map(Some)
    }

    async fn highest_listed(&self) -> Option<Number> {
        let start = self.start();
        let (bucket, region) = (&self.identity.bucket, &self.region);
        let page = self
            .cloud
            .cos()
            .list_objects(bucket, region, &start, None)
            .await
            .ok()?;
        let numbers = page.objects.iter().filter_map(|object| {
            let number = object
                .key
                .as_str()
                .strip_prefix(&start)?
                .strip_suffix(".json")?;
            number.parse().ok()
        });
        numbers.max()
    }

    async fn create(&self, number: Number, attempt: &Attempt<Body>) -> Result<Created, LeaseError> {
        let key = self.key(number)?;
        let body = self.document(number, attempt);
        let (bucket, region) = (&self.identity.bucket, &self.region);
        crash::point(crash::Before("lease"));
        let created = self
            .cloud
            .cos()
            .create_object(bucket, region, &key, body)
            .await;
        crash::point(crash::After("lease"));
        match created {
            Ok(()) => Ok(Created::New),
            Err(error) if error.kind() == CosErrorKind::AlreadyExists => {
                self.is_guarded.store(true, Ordering::Relaxed);
                Ok(Created::Taken)
            }
            Err(error) if error.is_missing_right() => Ok(Created::NotPermitted),
            Err(error) => Err(error.into()),
        }
    }

    fn has_seen_taken(&self) -> bool {
        self.is_guarded.load(Ordering::Relaxed)
    }

    async fn sign(&self, number: Number) -> Result<Self::Signature, LeaseError> {
        let key = self.key(number)?;
        let (bucket, region) = (&self.identity.bucket, &self.region);
        let put = self.cloud.cos().sign_put(bucket, region, &key).await;
        Ok((number, key, put))
    }

    async fn put(
        &self,
        (number, _, put): Self::Signature,
        attempt: &Attempt<Body>,
    ) -> Result<(), LeaseError> {
        let body = self.document(number, attempt);
        crash::point(crash::Before("lease"));
        let written = self.cloud.cos().put_signed(put, body).await;
        crash::point(crash::After("lease"));
        Ok(written?)
    }

    fn may_pass(error: &LeaseError) -> bool {
        match error {
            LeaseError::Cos(error) => error.may_pass(),
            LeaseError::Unusable { .. } | LeaseError::NoKey => false,
        }
    }

    async fn pause(&self, why: Pause) {
        let pause = match why {
            Pause::Retry(number) => FIRST_PAUSE.saturating_mul(1 << number.min(4)),
            Pause::Arbitration => ARBITRATION,
            Pause::AfterClash => LONGEST_CLASH_PAUSE.mul_f64(fastrand::f64()),
        };
        tokio::time::sleep(pause).await;
    }

    #[cfg(test)]
    fn rules(&self) -> super::lease::Rules {
        super::lease::Rules::default()
    }
}

/// The name of this machine, for whoever reads a lease.
pub(super) fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = crate::environment::variable("COMPUTERNAME").unwrap_or_default();
    CloudText::excerpt(&name, 64).to_string()
}
