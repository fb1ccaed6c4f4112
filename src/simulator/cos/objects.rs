//! Objects: read whole or in part, written, deleted.

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};

use super::super::digest;
use super::super::disk::Disk;
use super::super::storage::{Bucket, Object, Taken};
use super::super::wire::{Answer, Content, http_date, random_hex};
use super::super::world::World;
use super::range::{self, Range};
use super::xml::{self, Xml};
use super::{Call, CosError, bucket_of};

/// Objects up to this size are changed byte by byte; larger ones get the content of another disk.
const IN_MEMORY_BYTES: u64 = 64 << 20;

pub(super) fn head(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let object = find(world, call)?;
    let mut answer = describe(&object, call, 200);
    if let Some(early) = check_conditions(&object, call)? {
        return Ok(early);
    }
    answer.announced_length = Some(object.content.size_bytes());
    Ok(answer)
}

pub(super) fn get(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let object = find(world, call)?;
    if let Some(early) = check_conditions(&object, call)? {
        return Ok(early);
    }
    if matches!(object.storage_class.as_str(), "ARCHIVE" | "DEEP_ARCHIVE") {
        return Err(CosError::new(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's storage class.",
        ));
    }
    let size = object.content.size_bytes();
    let header = call.request.header("range");
    let range = if call.quirks.overlooks_range {
        Range::Whole
    } else {
        range::parse(header, size)
    };
    let (status, first, length) = match range {
        Range::Whole => (200, 0, size),
        Range::Part { first, last } => (206, first, last - first + 1),
        Range::Unsatisfiable => {
            let mut error = CosError::new(
                416,
                "InvalidRange",
                "The requested range is not satisfiable.",
            );
            error
                .headers
                .push(("Content-Range", format!("bytes */{size}")));
            return Err(error);
        }
    };
    let mut answer = describe(&object, call, status);
    if let Range::Part { first, last } = range {
        answer = answer.with_header("Content-Range", format!("bytes {first}-{last}/{size}"));
    }
    answer.content = Content::Disk {
        disk: object.content,
        offset: first,
        length,
    };
    Ok(answer)
}

fn find(world: &mut World, call: &Call<'_>) -> Result<Object, CosError> {
    if call.quirks.replaces_object {
        replace(world, call);
    }
    let crc_missing = world.crc_missing;
    let bucket = bucket_of(world, call)?;
    let version_id = call.parameter("versionId").filter(|id| !id.is_empty());
    match bucket.find(call.key, version_id) {
        Some(object) => Ok(Object {
            has_crc: object.has_crc && !crc_missing,
            ..object.clone()
        }),
        None if version_id.is_some() => Err(CosError::new(
            404,
            "NoSuchVersion",
            "The specified version does not exist.",
        )),
        None => Err(CosError::new(
            404,
            "NoSuchKey",
            "The specified key does not exist.",
        )),
    }
}

/// Puts another object of the same length in the place of the one asked for.
fn replace(world: &mut World, call: &Call<'_>) {
    let stored_at = world.elapsed();
    let Some(bucket) = world.buckets.get_mut(call.bucket) else {
        return;
    };
    let Some(object) = bucket.objects.get(call.key) else {
        return;
    };
    let size = object.content.size_bytes();
    let content = if size <= IN_MEMORY_BYTES {
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        // A disk that cannot be read leaves zeros, which are another content as well.
        let _ = object.content.read_at(0, &mut bytes);
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        Disk::from_bytes(bytes.into())
    } else {
        Disk::sample(size, &random_hex(8), "changed")
    };
    let changed = Object {
        content,
        etag: random_hex(32),
        last_modified: call.now,
        stored_at,
        ..object.clone()
    };
    bucket.store(call.key, changed);
}

/// The headers of an object.
fn describe(object: &Object, call: &Call<'_>, status: u16) -> Answer {
    let mut answer = Answer::empty(status)
        .with_header("Content-Type", object.content_type.clone())
        .with_header("Accept-Ranges", "bytes")
        .with_header("ETag", format!("\"{}\"", object.etag))
        .with_header("Last-Modified", http_date(object.last_modified));
    answer.checksum_of = object.has_crc.then(|| object.content.clone());
    // The header is missing for the ordinary class (product page 436/7745).
    if object.storage_class != "STANDARD" {
        answer = answer.with_header("x-cos-storage-class", object.storage_class.clone());
    }
    if let Some(version_id) = &object.version_id {
        answer = answer.with_header("x-cos-version-id", version_id.clone());
    }
    for (name, value) in &object.headers {
        answer = answer.with_header(name, value.clone());
    }
    for (parameter, header) in [
        ("response-content-type", "Content-Type"),
        ("response-content-language", "Content-Language"),
        ("response-expires", "Expires"),
        ("response-cache-control", "Cache-Control"),
        ("response-content-disposition", "Content-Disposition"),
        ("response-content-encoding", "Content-Encoding"),
    ] {
        if let Some(value) = call.parameter(parameter) {
            answer.remove_header(header);
            answer = answer.with_header(header, value);
        }
    }
    answer
}

/// Obeys the conditional headers: an answer without content, an error, or nothing.
fn check_conditions(object: &Object, call: &Call<'_>) -> Result<Option<Answer>, CosError> {
    let names_etag = |list: &str| {
        list.split(',')
            .map(|etag| etag.trim().trim_matches('"'))
            .any(|etag| etag == "*" || etag == object.etag)
    };
    let header = |name| call.request.header(name);
    let time = |name| header(name).and_then(parse_http_date);
    let modified = object.last_modified.trunc_subsecs(0);
    let is_failed = match header("if-match") {
        Some(list) => !names_etag(list),
        None => time("if-unmodified-since").is_some_and(|since| modified > since),
    };
    if is_failed {
        return Err(CosError::new(
            412,
            "PreconditionFailed",
            "Precondition Failed",
        ));
    }
    let is_unchanged = match header("if-none-match") {
        Some(list) => names_etag(list),
        None => time("if-modified-since").is_some_and(|since| modified <= since),
    };
    Ok(is_unchanged.then(|| {
        let mut answer = describe(object, call, 304);
        answer.remove_header("Content-Type");
        answer
    }))
}

fn parse_http_date(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc2822(text).ok()?;
    Some(time.with_timezone(&Utc))
}

/// Refuses where an object of the key exists and the request forbids to overwrite it. On versioned
/// buckets the header has no effect.
pub(super) fn check_overwrite(world: &World, call: &Call<'_>) -> Result<(), CosError> {
    let forbids = call.request.header("x-cos-forbid-overwrite") == Some("true");
    let bucket = world.buckets.get(call.bucket);
    let would_overwrite =
        bucket.is_some_and(|bucket| !bucket.versioned && bucket.objects.contains_key(call.key));
    if forbids && world.forbid_overwrite_honoured && would_overwrite {
        return Err(CosError::new(
            409,
            "FileAlreadyExists",
            "The object you specified already exists and can not be overwritten.",
        ));
    }
    Ok(())
}

/// Compares the body with `Content-MD5`, where the request carries it.
pub(super) fn check_md5(call: &Call<'_>) -> Result<(), CosError> {
    let Some(promised) = call.request.header("content-md5") else {
        return Ok(());
    };
    if digest::md5_base64(&call.request.body) == promised {
        return Ok(());
    }
    Err(CosError::new(
        400,
        "BadDigest",
        "The Content-MD5 you specified did not match what we received.",
    ))
}

/// Headers of an upload that come back with the object.
pub(super) fn kept_headers(call: &Call<'_>) -> Vec<(String, String)> {
    let kept = [
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
    ];
    let headers = call.request.headers.iter();
    headers
        .filter(|(name, _)| kept.contains(&name.as_str()) || name.starts_with("x-cos-meta-"))
        .cloned()
        .collect()
}

pub(super) fn put(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    check_md5(call)?;
    check_overwrite(world, call)?;
    let elapsed = world.elapsed();
    let mut object = Object::uploaded(call.request.body.clone(), call.now, elapsed);
    if let Some(content_type) = call.request.header("content-type") {
        content_type.clone_into(&mut object.content_type);
    }
    if let Some(storage_class) = call.request.header("x-cos-storage-class") {
        storage_class.clone_into(&mut object.storage_class);
    }
    object.headers = kept_headers(call);
    let (etag, content) = (object.etag.clone(), object.content.clone());
    let bucket = bucket_of(world, call)?;
    bucket.store(call.key, object);
    let version_id = bucket.objects[call.key].version_id.clone();
    let mut answer = Answer::empty(200).with_header("ETag", format!("\"{etag}\""));
    if let Some(version_id) = version_id {
        answer = answer.with_header("x-cos-version-id", version_id);
    }
    answer.checksum_of = Some(content);
    Ok(answer)
}

pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    let version_id = call.parameter("versionId").map(str::to_owned);
    let bucket = bucket_of(world, call)?;
    let answer = Answer::empty(204);
    if let Some(version_id) = version_id {
        let taken = bucket.remove_version(call.key, &version_id);
        let answer = answer.with_header("x-cos-version-id", version_id);
        return Ok(match taken {
            Taken::Marker => answer.with_header("x-cos-delete-marker", "true"),
            Taken::Version | Taken::Nothing => answer,
        });
    }
    Ok(match bucket.remove(call.key, call.now) {
        Some(marker) => answer
            .with_header("x-cos-delete-marker", "true")
            .with_header("x-cos-version-id", marker),
        None => answer,
    })
}

pub(super) fn delete_multiple(world: &mut World, call: &Call<'_>) -> Result<Answer, CosError> {
    if call.request.header("content-md5").is_none() {
        return Err(CosError::new(
            400,
            "InvalidRequest",
            "Missing required header for this request: Content-MD5",
        ));
    }
    check_md5(call)?;
    let body: Option<xml::Delete> = xml::read(&call.request.body);
    let delete = body
        .filter(|delete| (1..=1000).contains(&delete.objects.len()))
        .ok_or_else(|| CosError::new(400, "MalformedXML", "The XML you provided was not valid."))?;
    let refused = call.quirks.refused_keys.clone();
    let bucket = bucket_of(world, call)?;
    let mut xml = Xml::new("DeleteResult");
    for (place, object) in delete.objects.iter().enumerate() {
        if let Some((_, code)) = refused.as_ref().filter(|(keys, _)| place < *keys) {
            xml.open("Error");
            xml.field("Key", &object.key);
            if let Some(version_id) = &object.version_id {
                xml.field("VersionId", version_id);
            }
            xml.field("Code", code);
            xml.field("Message", "The object was not deleted.");
            xml.close();
            continue;
        }
        let version_id = object.version_id.as_deref();
        let marker = delete_one(bucket, &object.key, version_id, call.now);
        if delete.is_quiet {
            continue;
        }
        xml.open("Deleted");
        xml.field("Key", &object.key);
        if let Some(marker) = marker {
            xml.field("DeleteMarker", "true");
            xml.field("DeleteMarkerVersionId", marker);
        }
        if let Some(version_id) = version_id {
            xml.field("VersionId", version_id);
        }
        xml.close();
    }
    Ok(Answer::new(
        200,
        "application/xml",
        Bytes::from(xml.finish()),
    ))
}

/// Deletes an object or one version; the id of the delete marker that this made or took away.
fn delete_one(
    bucket: &mut Bucket,
    key: &str,
    version_id: Option<&str>,
    now: DateTime<Utc>,
) -> Option<String> {
    match version_id {
        None => bucket.remove(key, now),
        Some(version_id) => match bucket.remove_version(key, version_id) {
            Taken::Marker => Some(version_id.to_owned()),
            Taken::Version | Taken::Nothing => None,
        },
    }
}
