//! Buckets, objects and multipart uploads.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::model::Region;

use super::digest;
use super::disk::Disk;
use super::wire::random_hex;

/// The smallest part that the simulated exporter writes.
const EXPORT_PART_BYTES: u64 = 64 << 20;

/// COS accepts at most this many parts in one upload (product page 436/14518).
pub(super) const PART_LIMIT: u64 = 10_000;

/// An object key holds at most this many bytes (product page 436/13324).
pub(super) const KEY_LIMIT_BYTES: usize = 850;

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    /// The full name, AppId included.
    pub name: String,
    /// Where it is; hosts of other regions do not know it.
    pub region: Region,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Whether overwritten and deleted objects are kept as versions.
    pub versioned: bool,
    /// Whether a versioned bucket has stopped to keep versions: what comes then is version `null`, and
    /// replaces the one before it.
    pub suspended: bool,
    /// Whether it keeps its objects in several zones.
    pub multi_az: bool,
    /// The current objects by key.
    pub objects: BTreeMap<String, Object>,
    /// What was current before, in a versioned bucket, in the order in which it came.
    pub(super) past: Vec<(String, Past)>,
    /// The unfinished uploads by id.
    pub(super) uploads: BTreeMap<String, Upload>,
}

/// Something of a key that is not its current object.
#[derive(Clone, Debug)]
pub(super) enum Past {
    /// An object that was overwritten or deleted.
    Version(Object),
    /// The mark of a deletion. As the latest of its key it hides the versions before it.
    Marker(Marker),
}

/// The mark of a deletion.
#[derive(Clone, Debug)]
pub(super) struct Marker {
    pub(super) version_id: String,
    pub(super) last_modified: DateTime<Utc>,
}

impl Past {
    pub(super) fn version_id(&self) -> &str {
        match self {
            Self::Version(object) => object.listed_version_id(),
            Self::Marker(marker) => &marker.version_id,
        }
    }
}

/// What deleting one version took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    Version,
    Marker,
}

impl Bucket {
    pub(super) fn new(name: &str, region: Region, created: DateTime<Utc>) -> Self {
        Self {
            name: name.to_owned(),
            region,
            created,
            versioned: false,
            suspended: false,
            multi_az: false,
            objects: BTreeMap::new(),
            past: Vec::new(),
            uploads: BTreeMap::new(),
        }
    }

    /// Makes `object` the current one of `key`.
    pub(super) fn store(&mut self, key: &str, mut object: Object) {
        object.version_id = (self.versioned && !self.suspended).then(new_version_id);
        let before = self.objects.insert(key.to_owned(), object);
        self.keep(key, before);
        self.drop_null(key);
    }

    /// Takes the current object away; in a versioned bucket it stays as a version, behind a delete
    /// marker whose id is returned.
    pub(super) fn remove(&mut self, key: &str, now: DateTime<Utc>) -> Option<String> {
        let before = self.objects.remove(key);
        self.keep(key, before);
        if !self.versioned {
            return None;
        }
        self.drop_null(key);
        let version_id = match self.suspended {
            true => "null".to_owned(),
            false => new_version_id(),
        };
        let marker = Marker {
            version_id: version_id.clone(),
            last_modified: now,
        };
        self.past.push((key.to_owned(), Past::Marker(marker)));
        Some(version_id)
    }

    /// Deletes one version for good. What came before it is the latest then: an object that was hidden
    /// by a delete marker is seen again.
    pub(super) fn remove_version(&mut self, key: &str, version_id: &str) -> Taken {
        let is_it = |object: &Object| object.listed_version_id() == version_id;
        let taken = if self.objects.get(key).is_some_and(is_it) {
            self.objects.remove(key);
            Taken::Version
        } else {
            let mut past = self.past.iter();
            let place =
                past.position(|(known, past)| known == key && past.version_id() == version_id);
            match place.map(|place| self.past.remove(place).1) {
                None => return Taken::Nothing,
                Some(Past::Version(_)) => Taken::Version,
                Some(Past::Marker(_)) => Taken::Marker,
            }
        };
        let latest = self.past.iter().rposition(|(known, _)| known == key);
        if let Some(place) = latest
            && !self.objects.contains_key(key)
            && let (_, Past::Version(object)) = &self.past[place]
        {
            self.objects.insert(key.to_owned(), object.clone());
            self.past.remove(place);
        }
        taken
    }

    /// The key of every object it holds, once for each version, current or not; delete markers are none.
    #[must_use]
    pub fn stored_keys(&self) -> Vec<String> {
        let past = self.past.iter();
        let versions = past.filter(|(_, past)| matches!(past, Past::Version(_)));
        let versions = versions.map(|(key, _)| key);
        self.objects.keys().chain(versions).cloned().collect()
    }

    /// The keys of its unfinished uploads, in order.
    #[must_use]
    pub fn upload_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.uploads.values().map(|it| it.key.clone()).collect();
        keys.sort();
        keys
    }

    /// Takes the version `null` of before away, which a new one replaces.
    fn drop_null(&mut self, key: &str) {
        if self.suspended {
            self.past
                .retain(|(known, past)| known != key || past.version_id() != "null");
        }
    }

    fn keep(&mut self, key: &str, object: Option<Object>) {
        if let Some(object) = object.filter(|_| self.versioned) {
            self.past.push((key.to_owned(), Past::Version(object)));
        }
    }

    /// The object of this key: the current one, or the version asked for.
    pub(super) fn find(&self, key: &str, version_id: Option<&str>) -> Option<&Object> {
        let current = self.objects.get(key);
        let Some(version_id) = version_id else {
            return current;
        };
        let past = self.past.iter().filter(|(known, _)| known == key);
        let past = past.filter_map(|(_, past)| match past {
            Past::Version(object) => Some(object),
            Past::Marker(_) => None,
        });
        current
            .into_iter()
            .chain(past)
            .find(|object| object.listed_version_id() == version_id)
    }
}

fn new_version_id() -> String {
    format!("MTg0NDUx{}", random_hex(24))
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub content: Disk,
    /// Its `ETag` without quotes.
    pub etag: String,
    /// Its `Last-Modified`.
    pub last_modified: DateTime<Utc>,
    /// Its `Content-Type`.
    pub content_type: String,
    /// Its storage class.
    pub storage_class: String,
    /// Its version, in a versioned bucket.
    pub version_id: Option<String>,
    /// Whether it carries a CRC-64.
    pub has_crc: bool,
    /// Headers of the upload that come back with the object (`x-cos-meta-*` and the like).
    pub headers: Vec<(String, String)>,
    /// When it came, on the world's stopwatch.
    pub(super) stored_at: Duration,
}

impl Object {
    /// Its version as COS names it: `null` for one from before versions were kept (product page
    /// 436/31551).
    pub(super) fn listed_version_id(&self) -> &str {
        self.version_id.as_deref().unwrap_or("null")
    }

    /// An object as a simple upload leaves it: its `ETag` is the MD5 of its bytes.
    pub(super) fn uploaded(content: Bytes, now: DateTime<Utc>, stored_at: Duration) -> Self {
        Self {
            etag: digest::md5_hex(&content),
            content: Disk::from_bytes(content),
            last_modified: now,
            content_type: "application/octet-stream".to_owned(),
            storage_class: "STANDARD".to_owned(),
            version_id: None,
            has_crc: true,
            headers: Vec::new(),
            stored_at,
        }
    }

    /// An object as a multipart upload leaves it.
    pub(super) fn assembled(
        content: Disk,
        parts: u64,
        now: DateTime<Utc>,
        stored_at: Duration,
    ) -> Self {
        Self {
            content,
            etag: format!("{}-{parts}", random_hex(32)),
            ..Self::uploaded(Bytes::new(), now, stored_at)
        }
    }
}

/// An unfinished multipart upload.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) initiated: DateTime<Utc>,
    pub(super) storage_class: String,
    pub(super) content_type: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) source: UploadSource,
}

/// Where the parts of an upload come from.
#[derive(Clone, Debug)]
pub(super) enum UploadSource {
    /// A client sends them.
    Client(BTreeMap<u64, Part>),
    /// An export writes them; how many there are follows from the time.
    Export {
        started: Duration,
        lasts: Duration,
        size_bytes: u64,
    },
}

/// One part of an upload.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) size_bytes: u64,
    pub(super) etag: String,
    pub(super) last_modified: DateTime<Utc>,
    /// The bytes, where a client sent them.
    pub(super) content: Bytes,
}

impl Upload {
    pub(super) fn new_id() -> String {
        // Tencent's ids are a time and a hash, both in hexadecimal.
        format!("{}{}", clock_digits(), random_hex(54))
    }

    /// An upload that got one part of `size_bytes`, and then no more.
    pub(super) fn left(key: &str, size_bytes: u64, now: DateTime<Utc>) -> Self {
        let part = Part {
            number: 1,
            size_bytes,
            etag: random_hex(32),
            last_modified: now,
            content: Bytes::new(),
        };
        Self {
            key: key.to_owned(),
            id: Self::new_id(),
            initiated: now,
            storage_class: "STANDARD".to_owned(),
            content_type: None,
            headers: Vec::new(),
            source: UploadSource::Client(BTreeMap::from([(1, part)])),
        }
    }

    pub(super) fn is_export(&self) -> bool {
        matches!(self.source, UploadSource::Export { .. })
    }

    /// The parts that have arrived when the world's stopwatch shows `elapsed`.
    pub(super) fn parts(&self, elapsed: Duration) -> Vec<Part> {
        match &self.source {
            UploadSource::Client(parts) => parts.values().cloned().collect(),
            UploadSource::Export {
                started,
                lasts,
                size_bytes,
            } => {
                let since = elapsed.saturating_sub(*started);
                let layout = PartLayout::of(*size_bytes);
                let present = layout.present(since, *lasts);
                (1..=present)
                    .map(|number| self.export_part(number, &layout, *lasts))
                    .collect()
            }
        }
    }

    fn export_part(&self, number: u64, layout: &PartLayout, lasts: Duration) -> Part {
        let label = format!("{}/{number}", self.id);
        let share = number.saturating_mul(1000) / layout.count.max(1);
        let after = lasts.mul_f64(f64::from(u32::try_from(share).unwrap_or(1000)) / 1000.0);
        let after = chrono::TimeDelta::from_std(after).unwrap_or_default();
        Part {
            number,
            size_bytes: layout.size_of(number),
            etag: digest::md5_hex(label.as_bytes()),
            last_modified: self
                .initiated
                .checked_add_signed(after)
                .unwrap_or(self.initiated),
            content: Bytes::new(),
        }
    }
}

fn clock_digits() -> String {
    format!("{:010}", crate::clock::now().timestamp().max(0))
}

/// How the exporter cuts a disk into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartLayout {
    pub(super) count: u64,
    part_bytes: u64,
    size_bytes: u64,
}

impl PartLayout {
    pub(super) fn of(size_bytes: u64) -> Self {
        let mebibyte = 1 << 20;
        let needed = size_bytes.div_ceil(PART_LIMIT).div_ceil(mebibyte) * mebibyte;
        let part_bytes = needed.max(EXPORT_PART_BYTES);
        Self {
            count: size_bytes.div_ceil(part_bytes).max(1),
            part_bytes,
            size_bytes,
        }
    }

    fn size_of(&self, number: u64) -> u64 {
        let before = self.part_bytes.saturating_mul(number.saturating_sub(1));
        self.size_bytes.saturating_sub(before).min(self.part_bytes)
    }

    /// How many parts have arrived after `since` of `lasts`; the last one completes the upload.
    fn present(&self, since: Duration, lasts: Duration) -> u64 {
        let whole = lasts.as_nanos().max(1);
        let share = u128::from(self.count) * since.as_nanos() / whole;
        u64::try_from(share).unwrap_or(self.count).min(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disk_needs_more_parts_than_cos_accepts() {
        for gib in [1, 50, 500, 600, 2000, 48_000] {
            let size = gib << 30;
            let layout = PartLayout::of(size);
            assert!(layout.count <= PART_LIMIT, "{gib} GiB: {layout:?}");
            let total: u64 = (1..=layout.count).map(|n| layout.size_of(n)).sum();
            assert_eq!(total, size, "{gib} GiB: {layout:?}");
        }
    }

    #[test]
    fn parts_arrive_in_step_with_time() {
        let layout = PartLayout::of(50 << 30);
        let present =
            |seconds| layout.present(Duration::from_secs(seconds), Duration::from_secs(80));
        assert_eq!((present(0), present(8), present(40)), (0, 80, 400));
        assert_eq!(present(1000), layout.count);
    }

    #[test]
    fn a_versioned_bucket_keeps_what_is_overwritten_and_deleted() {
        let region = "ap-guangzhou".parse().expect("a region");
        let time = DateTime::from_timestamp(0, 0).expect("a time");
        let mut bucket = Bucket::new("b-1250000000", region, time);
        bucket.versioned = true;
        let object = |text: &'static str| {
            Object::uploaded(Bytes::from_static(text.as_bytes()), time, Duration::ZERO)
        };
        bucket.store("k", object("one"));
        let first = bucket.objects["k"].version_id.clone();
        bucket.store("k", object("two"));
        let marker = bucket.remove("k", time).expect("a marker");
        assert!(bucket.find("k", None).is_none());
        let kept = bucket
            .find("k", first.as_deref())
            .expect("the first version");
        assert_eq!(kept.content.size_bytes(), 3);
        // Without its marker the object is seen again, and without that the one before it.
        assert_eq!(bucket.remove_version("k", &marker), Taken::Marker);
        let second = bucket.objects["k"].listed_version_id().to_owned();
        assert_ne!(Some(&second), first.as_ref());
        assert_eq!(bucket.remove_version("k", &second), Taken::Version);
        assert_eq!(bucket.objects["k"].version_id, first);
        assert_eq!(bucket.remove_version("k", "other"), Taken::Nothing);
    }
}
