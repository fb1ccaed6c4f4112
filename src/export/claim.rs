//! The copy of an export's record that lies beside its files, for readers: `files`, `verify`, `wait`, people.
//!
//! No decision about a submit rests on it; those rest on the leases. It is of the newest attempt as far as whoever
//! writes it knows, and is never set back to an older one.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::cloud::Cloud;
use crate::cloud::cos::CosError;
use crate::crash;
use crate::error::{Error, ErrorKind};
use crate::export::record::{Record, RecordError};
use crate::export::request::{CLAIM_SUFFIX, LEASE_INFIX, claim_key};
use crate::model::{BucketName, ImageFormat, ImageId, ObjectKey, Prefix, Region};

/// A record takes a few KiB; anything larger is not one of ours.
pub(crate) const CLAIM_LIMIT_BYTES: usize = 1024 * 1024;
/// How often a put that had no answer, or was refused for the moment, is tried again.
const RETRIES: u32 = 4;
/// The pause before the first of these; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Pages of names among which records are looked for.
const PAGES: usize = 20;

/// Writes the copy of `record`, unless the bucket has that of a newer attempt, or of another export under the same
/// name that is not over. A refusal for the moment is tried again.
///
/// # Errors
/// Any [`CosError`]. What could not be read is not replaced.
pub(crate) async fn publish(cloud: &Cloud, record: &Record) -> Result<(), CosError> {
    let Ok(key) = claim_key(record.prefix.as_ref(), &record.image_id) else {
        return Ok(());
    };
    let (bucket, region) = (&record.bucket, &record.region);
    let cos = cloud.cos();
    for retry in 0.. {
        // Before the read: a process that is stopped after it writes nothing minutes later.
        let put = cos.sign_put(bucket, region, &key).await;
        let found = cos
            .get_small_object(bucket, region, &key, None, CLAIM_LIMIT_BYTES)
            .await?;
        let mut next = record.published();
        if let Some((_, body)) = found
            && let Ok(other) = parse(&body)
        {
            let is_same = other.export_id == record.export_id;
            let is_newer = (other.attempt, other.created_at) > (record.attempt, record.created_at);
            let is_foreign = other.identity() != record.identity();
            if is_foreign && !other.state().is_over() || !is_foreign && !is_same && is_newer {
                return Ok(());
            }
            if is_same {
                next.merge(&other);
            }
            if next.to_json() == body {
                return Ok(());
            }
        }
        crash::point(crash::Before("record"));
        let written = cos.put_signed(put, Bytes::from(next.to_json())).await;
        crash::point(crash::After("record"));
        match written {
            Err(error) if retry < RETRIES && error.may_pass() => {
                tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << retry)).await;
            }
            written => return written,
        }
    }
    unreachable!("the retries are counted")
}

/// The keys of the claims under a prefix.
#[derive(Debug)]
pub(crate) struct ClaimKeys {
    pub(crate) keys: Vec<ObjectKey>,
    /// The exports that have leases there, by image and format.
    pub(crate) leased: BTreeSet<(ImageId, ImageFormat)>,
    /// What the names start with among which they were looked for.
    pub(crate) start: String,
    /// Whether there are so many of these names that not all were looked through.
    pub(crate) is_cut_off: bool,
}

/// Looks for the claims of all images under `prefix`, which stand among the files that were exported there.
pub(crate) async fn keys_under(
    cloud: &Cloud,
    bucket: &BucketName,
    region: &Region,
    prefix: Option<&Prefix>,
) -> Result<ClaimKeys, CosError> {
    let before = prefix.map_or_else(String::new, |prefix| format!("{prefix}_"));
    let start = format!("{before}img-");
    let is_claim = |key: &ObjectKey| {
        let image_id = key.as_str().strip_suffix(CLAIM_SUFFIX);
        let image_id = image_id.and_then(|key| key.strip_prefix(&before));
        image_id.is_some_and(|image_id| image_id.parse::<ImageId>().is_ok())
    };
    let leased_by = |key: &ObjectKey| {
        let (stem, rest) = key.as_str().split_once(LEASE_INFIX)?;
        let (format, _) = rest.split_once('-')?;
        let image_id = stem.strip_prefix(&before)?.parse().ok()?;
        Some((image_id, format.parse().ok()?))
    };
    let (mut keys, mut leased, mut marker) = (Vec::new(), BTreeSet::new(), None);
    for _ in 0..PAGES {
        let listing = cloud
            .cos()
            .list_objects(bucket, region, &start, marker.as_deref());
        let page = listing.await?;
        leased.extend(
            page.objects
                .iter()
                .filter_map(|object| leased_by(&object.key)),
        );
        let names = page.objects.into_iter().map(|object| object.key);
        keys.extend(names.filter(is_claim));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    Ok(ClaimKeys {
        keys,
        leased,
        start,
        is_cut_off: marker.is_some(),
    })
}

/// Reads the claim at `key`.
///
/// # Errors
/// When it could not be looked at, or is no record.
pub(crate) async fn read(
    cloud: &Cloud,
    bucket: &BucketName,
    region: &Region,
    key: &ObjectKey,
) -> Result<Option<Record>, Error> {
    let found = cloud
        .cos()
        .get_small_object(bucket, region, key, None, CLAIM_LIMIT_BYTES)
        .await?;
    let Some((_, body)) = found else {
        return Ok(None);
    };
    parse(&body).map(Some).map_err(|problem| {
        Error::new(
            ErrorKind::Unexpected,
            format!("`{key}` in bucket `{bucket}` cannot be used as a record"),
        )
        .with_source(problem)
    })
}

/// Reads a record that stood in a bucket, where anybody who may write there can have put it: one that names keys
/// outside of its own place could have them fetched or deleted as files of an export.
///
/// # Errors
/// [`RecordError`] when it is none, or names a key that neither starts with its prefix and an underscore nor, where
/// it has none, lies outside of all folders.
pub(crate) fn parse(body: &[u8]) -> Result<Record, RecordError> {
    let mut record = Record::from_json(body)?;
    record.adopted = false;
    let start = match &record.prefix {
        Some(prefix) => format!("{prefix}_"),
        None => String::new(),
    };
    let is_in_place = |key: &ObjectKey| {
        let name = key.as_str().strip_prefix(&start);
        name.is_some_and(|name| !name.contains('/'))
    };
    let is_in_place = record.files.iter().all(|file| {
        let object = file.object.as_ref().map(|object| &object.key);
        file.watched_keys().chain(object).all(is_in_place)
    });
    match is_in_place {
        true => Ok(record),
        false => Err(RecordError::OfAnotherPlace),
    }
}
