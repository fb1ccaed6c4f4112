//! Multipart uploads: those of running exports, and those that clients make.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::super::digest;
use super::super::disk::Disk;
use super::super::storage::{Object, PART_LIMIT, Part, Upload, UploadSource};
use super::super::wire::{Answer, iso_date};
use super::super::world::World;
use super::buckets::write_owner;
use super::listing::{Query, page};
use super::objects::{check_md5, check_overwrite, kept_headers};
use super::xml::{self, Xml};
use super::{Call, CosError, bucket_of, listed_name};

/// Every part but the last has at least this size (product page 436/14518).
const SMALLEST_PART_BYTES: u64 = 1 << 20;

fn no_such_upload() -> CosError {
    CosError::new(
        404,
        "NoSuchUpload",
        "The specified multipart upload does not exist.",
    )
}

/// The upload that a call names, if it is one of the call's key and may be seen.
fn find<'w>(world: &'w mut World, call: &Call<'_>) -> Result<&'w mut Upload, CosError> {
    let are_exports_visible = world.uploads_visible;
    let id = call.parameter("uploadId").unwrap_or_default();
    let upload = bucket_of(world, call)?.uploads.get_mut(id);
    upload
        .filter(|upload| upload.key == call.key)
        .filter(|upload| are_exports_visible || !upload.is_export())
        .ok_or_else(no_such_upload)
}

pub(super) fn list(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let is_encoding = call.is_encoding()?;
    let limit = call.page_size("max-uploads", 1000)?;
    let key_marker = call.parameter("key-marker").unwrap_or_default();
    let id_marker = call.parameter("upload-id-marker").unwrap_or_default();
    let query = Query {
        prefix: call.parameter("prefix").unwrap_or_default(),
        delimiter: call.parameter("delimiter").unwrap_or_default(),
        limit,
    };
    let bucket = world.buckets.get(call.bucket);
    let mut uploads: Vec<&Upload> = bucket
        .into_iter()
        .flat_map(|bucket| bucket.uploads.values())
        .filter(|upload| world.uploads_visible || !upload.is_export())
        .filter(|upload| match upload.key.as_str().cmp(key_marker) {
            std::cmp::Ordering::Less => false,
            // With an id the marker points between uploads of one key, without one behind them all.
            std::cmp::Ordering::Equal => !id_marker.is_empty() && upload.id.as_str() > id_marker,
            std::cmp::Ordering::Greater => true,
        })
        .collect();
    uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
    let entries = uploads
        .into_iter()
        .map(|upload| (upload.key.clone(), upload));
    let page = page(entries, key_marker, query);

    let name = |text: &str| listed_name(text, is_encoding);
    let mut xml = Xml::new("ListMultipartUploadsResult");
    xml.field("Bucket", call.bucket);
    if is_encoding {
        xml.field("Encoding-Type", "url");
    }
    xml.field("KeyMarker", name(key_marker));
    xml.field("UploadIdMarker", id_marker);
    xml.field("MaxUploads", limit);
    xml.field("Prefix", name(query.prefix));
    if !query.delimiter.is_empty() {
        xml.field("Delimiter", name(query.delimiter));
    }
    xml.field("IsTruncated", page.next.is_some());
    if let Some(next) = &page.next {
        xml.field("NextKeyMarker", name(next));
        let last = page.items.last().filter(|upload| upload.key == *next);
        xml.field("NextUploadIdMarker", last.map_or("", |upload| &upload.id));
    }
    for common in &page.common_prefixes {
        xml.open("CommonPrefixes");
        xml.field("Prefix", name(common));
        xml.close();
    }
    for upload in page.items {
        xml.open("Upload");
        xml.field("Key", name(&upload.key));
        xml.field("UploadId", &upload.id);
        xml.field("StorageClass", &upload.storage_class);
        write_owner(&mut xml, "Initiator", world);
        write_owner(&mut xml, "Owner", world);
        xml.field("Initiated", iso_date(upload.initiated));
        xml.close();
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

pub(super) fn list_parts(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let is_encoding = call.is_encoding()?;
    let limit = call.page_size("max-parts", 1000)?;
    let marker_text = call.parameter("part-number-marker").unwrap_or("0");
    let marker: u64 = marker_text
        .parse()
        .map_err(|_| CosError::invalid_argument("part-number-marker is not a number"))?;
    let elapsed = world.elapsed();
    let upload = find(world, call)?.clone();
    let parts: Vec<Part> = upload
        .parts(elapsed)
        .into_iter()
        .filter(|part| part.number > marker)
        .collect();
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_truncated = parts.len() > count;

    let mut xml = Xml::new("ListPartsResult");
    xml.field("Bucket", call.bucket);
    if is_encoding {
        xml.field("Encoding-type", "url");
    }
    xml.field("Key", listed_name(call.key, is_encoding));
    xml.field("UploadId", &upload.id);
    write_owner(&mut xml, "Owner", world);
    write_owner(&mut xml, "Initiator", world);
    xml.field("StorageClass", &upload.storage_class);
    xml.field("PartNumberMarker", marker);
    xml.field("MaxParts", limit);
    xml.field("IsTruncated", is_truncated);
    let shown = &parts[..parts.len().min(count)];
    if let Some(last) = shown.last().filter(|_| is_truncated) {
        xml.field("NextPartNumberMarker", last.number);
    }
    for part in shown {
        xml.open("Part");
        xml.field("PartNumber", part.number);
        xml.field("LastModified", iso_date(part.last_modified));
        xml.field("ETag", format!("\"{}\"", part.etag));
        xml.field("Size", part.size_bytes);
        xml.close();
    }
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

pub(super) fn initiate(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let header = |name: &str| call.request.header(name).map(str::to_owned);
    let id = Upload::new_id();
    let upload = Upload {
        key: call.key.to_owned(),
        id: id.clone(),
        initiated: call.now,
        storage_class: header("x-cos-storage-class").unwrap_or_else(|| "STANDARD".to_owned()),
        content_type: header("content-type"),
        headers: kept_headers(call),
        source: UploadSource::Client(BTreeMap::new()),
    };
    bucket_of(world, call)?.uploads.insert(id.clone(), upload);
    let mut xml = Xml::new("InitiateMultipartUploadResult");
    xml.field("Bucket", call.bucket);
    xml.field("Key", call.key);
    xml.field("UploadId", id);
    Ok(Answer::new(200, "application/xml", xml.finish()))
}

pub(super) fn upload_part(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    check_md5(call)?;
    let number: u64 = call
        .parameter("partNumber")
        .and_then(|text| text.parse().ok())
        .filter(|number| (1..=PART_LIMIT).contains(number))
        .ok_or_else(|| CosError::invalid_argument("partNumber must be between 1 and 10000"))?;
    let upload = find(world, call)?;
    let UploadSource::Client(parts) = &mut upload.source else {
        return Err(CosError::access_denied());
    };
    let content = call.request.body.clone();
    let etag = digest::md5_hex(&content);
    let mut answer = Answer::empty(200).with_header("ETag", format!("\"{etag}\""));
    answer.checksum_of = Some(Disk::from_bytes(content.clone()));
    let part = Part {
        number,
        size_bytes: content.len() as u64,
        etag,
        last_modified: call.now,
        content,
    };
    parts.insert(number, part);
    Ok(answer)
}

pub(super) fn complete(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let body: Option<xml::Complete> = xml::read(&call.request.body);
    let wanted = body
        .filter(|body| !body.parts.is_empty())
        .ok_or_else(|| CosError::new(400, "MalformedXML", "The XML you provided was not valid."))?;
    let upload = find(world, call)?.clone();
    check_overwrite(world, call)?;
    let UploadSource::Client(parts) = &upload.source else {
        return Err(CosError::access_denied());
    };
    let content = assemble(parts, &wanted.parts)?;
    let elapsed = world.elapsed();
    let count = wanted.parts.len() as u64;
    let mut object = Object::assembled(Disk::from_bytes(content), count, call.now, elapsed);
    object.storage_class.clone_from(&upload.storage_class);
    object.headers.clone_from(&upload.headers);
    if let Some(content_type) = &upload.content_type {
        object.content_type.clone_from(content_type);
    }
    let (etag, content) = (object.etag.clone(), object.content.clone());
    let host = call.request.host_name();
    let bucket = bucket_of(world, call)?;
    bucket.uploads.remove(&upload.id);
    bucket.store(call.key, object);
    let mut xml = Xml::new("CompleteMultipartUploadResult");
    let path = crate::auth::percent_encode_path(call.key);
    xml.field("Location", format!("http://{host}/{path}"));
    xml.field("Bucket", call.bucket);
    xml.field("Key", call.key);
    xml.field("ETag", format!("\"{etag}\""));
    let mut answer = Answer::new(200, "application/xml", xml.finish());
    answer.checksum_of = Some(content);
    Ok(answer)
}

/// Joins the parts that the request lists, by COS's rules about order, identity and size.
fn assemble(parts: &BTreeMap<u64, Part>, wanted: &[xml::CompletedPart]) -> Result<Bytes, CosError> {
    if wanted
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(CosError::new(
            400,
            "InvalidPartOrder",
            "The list of parts was not in ascending order.",
        ));
    }
    let mut content = BytesMut::new();
    for (index, wanted_part) in wanted.iter().enumerate() {
        let part = parts
            .get(&wanted_part.number)
            .filter(|part| part.etag == wanted_part.etag.trim_matches('"'))
            .ok_or_else(|| {
                CosError::new(
                    400,
                    "InvalidPart",
                    "One or more of the specified parts could not be found.",
                )
            })?;
        if part.size_bytes < SMALLEST_PART_BYTES && index + 1 < wanted.len() {
            return Err(CosError::new(
                400,
                "EntityTooSmall",
                "A part other than the last is smaller than 1 MB.",
            ));
        }
        content.extend_from_slice(&part.content);
    }
    Ok(content.freeze())
}

pub(super) fn abort(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let id = find(world, call)?.id.clone();
    bucket_of(world, call)?.uploads.remove(&id);
    Ok(Answer::empty(204))
}
