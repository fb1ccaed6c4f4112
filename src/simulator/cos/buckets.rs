//! Buckets: which there are, where they are, what they hold.

use crate::model::{BucketName, Region};

use super::super::storage::Bucket;
use super::super::wire::{Answer, iso_date};
use super::super::world::World;
use super::listing::{Query, page};
use super::xml::Xml;
use super::{Call, CosError, listed_name};

pub(super) fn get_service(
    world: &World,
    call: &Call<'_>,
    host_region: Option<&str>,
) -> Result<Answer, CosError> {
    let region = call.parameter("region").or(host_region);
    let mut xml = Xml::new("ListAllMyBucketsResult");
    write_owner(&mut xml, "Owner", world);
    xml.open("Buckets");
    let is_wanted = |bucket: &&Bucket| region.is_none_or(|region| bucket.region.as_str() == region);
    for bucket in world.buckets.values().filter(is_wanted) {
        xml.open("Bucket");
        xml.field("Name", &bucket.name);
        xml.field("Location", &bucket.region);
        xml.field(
            "CreationDate",
            iso_date(bucket.created).replace(".000Z", "Z"),
        );
        xml.field("BucketType", "cos");
        xml.close();
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

pub(super) fn head_bucket(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let bucket = super::bucket_of(world, call)?;
    let answer = Answer::empty(200)
        .with_header("Content-Type", "application/xml")
        .with_header("x-cos-bucket-region", bucket.region.as_str());
    // The other kind has no such header.
    Ok(match bucket.multi_az {
        true => answer.with_header("x-cos-bucket-az-type", "MAZ"),
        false => answer,
    })
}

/// Makes an empty private bucket (product page 436/7738). Its settings are not simulated.
pub(super) fn put_bucket(
    world: &mut World,
    call: &Call<'_>,
    host_region: Option<&str>,
) -> Result<Answer, CosError> {
    if call.request.header("content-length").is_none() {
        let message = "The request must say the length of its body.";
        return Err(CosError::new(411, "MissingContentLength", message));
    }
    if !call.request.body.is_empty() {
        let message = "The simulator makes buckets of one zone only, which take no body.";
        return Err(CosError::new(501, "NotImplemented", message));
    }
    match call.request.header("x-cos-acl") {
        None | Some("private") => {}
        Some(acl) => {
            return Err(CosError::invalid_argument(format!(
                "The simulator makes private buckets only, and not `{acl}`."
            )));
        }
    }
    let name: BucketName = call
        .bucket
        .parse()
        .map_err(|_| CosError::new(400, "InvalidBucketName", "The bucket name is invalid."))?;
    if name.app_id() != Some(world.app_id.as_str()) {
        // Only the owner of the AppId makes buckets of it.
        return Err(CosError::access_denied());
    }
    let region = host_region.and_then(|region| region.parse().ok());
    let region = region.filter(Region::is_known);
    let region = region.ok_or_else(|| {
        CosError::new(400, "InvalidRegionName", "The region of the host is none.")
    })?;
    if world.buckets.contains_key(call.bucket) {
        let message =
            "Your previous request to create the named bucket succeeded and you already own it.";
        return Err(CosError::new(409, "BucketAlreadyOwnedByYou", message));
    }
    if world.buckets.len() >= world.bucket_limit {
        let message = "You have attempted to create more buckets than allowed.";
        return Err(CosError::new(400, "TooManyBuckets", message));
    }
    world.add_bucket(call.bucket, region);
    Ok(Answer::empty(200))
}

pub(super) fn list_objects(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let is_encoding = call.is_encoding()?;
    let limit = call.page_size("max-keys", 1000)?;
    let marker = call.parameter("marker").unwrap_or_default();
    let query = Query {
        prefix: call.parameter("prefix").unwrap_or_default(),
        delimiter: call.parameter("delimiter").unwrap_or_default(),
        limit,
    };
    let elapsed = world.elapsed();
    let delay = world.listing_delay.unwrap_or_default();
    let app_id = world.app_id.clone();
    let bucket = super::bucket_of(world, call)?;
    let entries = bucket
        .objects
        .iter()
        .filter(|(key, _)| key.as_str() > marker)
        .filter(|(_, object)| elapsed.saturating_sub(object.stored_at) >= delay)
        .map(|(key, object)| (key.clone(), (key, object)));
    let page = page(entries, marker, query);

    let name = |text: &str| listed_name(text, is_encoding);
    let mut xml = Xml::new("ListBucketResult");
    xml.field("Name", call.bucket);
    if is_encoding {
        xml.field("EncodingType", "url");
    }
    xml.field("Prefix", name(query.prefix));
    xml.field("Marker", name(marker));
    xml.field("MaxKeys", limit);
    if !query.delimiter.is_empty() {
        xml.field("Delimiter", name(query.delimiter));
    }
    xml.field("IsTruncated", page.next.is_some());
    if let Some(next) = &page.next {
        xml.field("NextMarker", name(next));
    }
    for common in &page.common_prefixes {
        xml.open("CommonPrefixes");
        xml.field("Prefix", name(common));
        xml.close();
    }
    for (key, object) in page.items {
        xml.open("Contents");
        xml.field("Key", name(key));
        xml.field("LastModified", iso_date(object.last_modified));
        xml.field("ETag", format!("\"{}\"", object.etag));
        xml.field("Size", object.content.size_bytes());
        xml.open("Owner");
        xml.field("ID", &app_id);
        xml.field("DisplayName", &app_id);
        xml.close();
        xml.field("StorageClass", &object.storage_class);
        xml.close();
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

/// Writes the account as the owner or initiator of something.
pub(super) fn write_owner(xml: &mut Xml, element: &'static str, world: &World) {
    let uin = &world.uin;
    xml.open(element);
    xml.field("ID", format!("qcs::cam::uin/{uin}:uin/{uin}"));
    xml.field("DisplayName", uin);
    xml.close();
}
