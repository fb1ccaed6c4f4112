//! Versions: whether a bucket keeps them, and which there are.

use super::super::storage::{Bucket, Object, Past};
use super::super::wire::{Answer, iso_date};
use super::super::world::World;
use super::listing::{Query, page};
use super::xml::Xml;
use super::{Call, CosError, bucket_of, listed_name};

/// `Enabled`, `Suspended`, or nothing where versions were never kept (product page 436/19888).
pub(super) fn get_versioning(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let bucket = bucket_of(world, call)?;
    let mut xml = Xml::new("VersioningConfiguration");
    match (bucket.versioned, bucket.suspended) {
        (true, false) => xml.field("Status", "Enabled"),
        (true, true) => xml.field("Status", "Suspended"),
        (false, _) => {}
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

/// One version or delete marker of a key.
struct Listed<'a> {
    key: &'a str,
    version_id: &'a str,
    is_latest: bool,
    what: Past,
}

/// Every version of every key, those of one key from the newest to the oldest (product page 436/31551).
pub(super) fn list(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let is_encoding = call.is_encoding()?;
    let limit = call.page_size("max-keys", 1000)?;
    let key_marker = call.parameter("key-marker").unwrap_or_default();
    let id_marker = call.parameter("version-id-marker").unwrap_or_default();
    if key_marker.is_empty() && !id_marker.is_empty() {
        return Err(CosError::invalid_argument(
            "version-id-marker needs key-marker",
        ));
    }
    let query = Query {
        prefix: call.parameter("prefix").unwrap_or_default(),
        delimiter: call.parameter("delimiter").unwrap_or_default(),
        limit,
    };
    let app_id = world.app_id.clone();
    let bucket = bucket_of(world, call)?;
    let all = all(bucket);
    let passed = all
        .iter()
        .position(|entry| entry.key == key_marker && entry.version_id == id_marker);
    let entries = all.iter().enumerate().filter(|(place, entry)| {
        match entry.key.cmp(key_marker) {
            std::cmp::Ordering::Less => false,
            // With an id the marker stands between versions of one key, without one behind them all.
            std::cmp::Ordering::Equal => passed.is_some_and(|passed| *place > passed),
            std::cmp::Ordering::Greater => true,
        }
    });
    let entries = entries.map(|(_, entry)| (entry.key.to_owned(), entry));
    let page = page(entries, key_marker, query);

    let name = |text: &str| listed_name(text, is_encoding);
    let mut xml = Xml::new("ListVersionsResult");
    if is_encoding {
        xml.field("EncodingType", "url");
    }
    xml.field("Name", call.bucket);
    xml.field("Prefix", name(query.prefix));
    xml.field("KeyMarker", name(key_marker));
    xml.field("VersionIdMarker", id_marker);
    xml.field("MaxKeys", limit);
    xml.field("IsTruncated", page.next.is_some());
    if let Some(next) = &page.next {
        xml.field("NextKeyMarker", name(next));
        let last = page.items.last().filter(|entry| entry.key == next);
        xml.field(
            "NextVersionIdMarker",
            last.map_or("", |entry| entry.version_id),
        );
    }
    for common in &page.common_prefixes {
        xml.open("CommonPrefixes");
        xml.field("Prefix", name(common));
        xml.close();
    }
    for entry in page.items {
        write(&mut xml, entry, &name(entry.key), bucket.versioned, &app_id);
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

fn write(xml: &mut Xml, entry: &Listed<'_>, key: &str, is_versioned: bool, app_id: &str) {
    let is_marker = matches!(entry.what, Past::Marker(_));
    xml.open(if is_marker { "DeleteMarker" } else { "Version" });
    xml.field("Key", key);
    // A bucket that never kept versions names none.
    xml.field(
        "VersionId",
        if is_versioned { entry.version_id } else { "" },
    );
    xml.field("IsLatest", entry.is_latest);
    match &entry.what {
        Past::Marker(marker) => xml.field("LastModified", iso_date(marker.last_modified)),
        Past::Version(object) => {
            xml.field("LastModified", iso_date(object.last_modified));
            xml.field("ETag", format!("\"{}\"", object.etag));
            xml.field("Size", object.content.size_bytes());
            xml.field("StorageClass", &object.storage_class);
        }
    }
    xml.open("Owner");
    xml.field("ID", app_id);
    xml.field("DisplayName", app_id);
    xml.close();
    xml.close();
}

/// Everything in the order of a listing.
fn all(bucket: &Bucket) -> Vec<Listed<'_>> {
    let current = bucket.objects.iter().map(|(key, object)| Listed {
        key,
        version_id: object.listed_version_id(),
        is_latest: true,
        what: Past::Version(Object::clone(object)),
    });
    // From the newest to the oldest, which a stable sort by keys keeps.
    let past = bucket.past.iter().rev().map(|(key, past)| Listed {
        key,
        version_id: past.version_id(),
        is_latest: false,
        what: past.clone(),
    });
    let mut all: Vec<Listed<'_>> = current.chain(past).collect();
    all.sort_by_key(|entry| entry.key);
    let mut before = None;
    for entry in &mut all {
        entry.is_latest = before != Some(entry.key);
        before = Some(entry.key);
    }
    all
}
