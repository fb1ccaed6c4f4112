//! The XML of successful answers, and what is kept of it.

use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use super::error::Problem;
use crate::cloud::http::Response;
use crate::model::{BucketName, CloudText, ObjectKey, Region};

/// One bucket of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEntry {
    /// Its name, with the AppId.
    pub name: BucketName,
    /// Its region.
    pub region: Region,
}

/// A page of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// The objects whose keys can be ours, in the order of their keys.
    pub objects: Vec<ObjectEntry>,
    /// How many others there were.
    pub others: usize,
    /// Where the next page begins, where there is one.
    pub next_marker: Option<String>,
}

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag without quotes; for an object uploaded in parts it is not an MD5.
    pub etag: String,
    /// When it was written.
    pub last_modified: Option<DateTime<Utc>>,
    /// Its storage class, `STANDARD` where COS names none.
    pub storage_class: CloudText,
}

/// Whether a bucket keeps what is overwritten and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// It never did.
    Off,
    /// It does.
    Enabled,
    /// It did, and holds the versions from then.
    Suspended,
}

/// A page of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionPage {
    /// The versions whose keys can be ours.
    pub versions: Vec<VersionEntry>,
    /// The delete markers of such keys.
    pub markers: Vec<DeleteMarker>,
    /// How many other versions there were.
    pub others: usize,
    /// Where the next page begins, where there is one.
    pub next: Option<VersionMarker>,
}

/// Where a page of versions begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionMarker {
    pub(super) key: String,
    pub(super) version_id: Option<String>,
}

/// The mark of a deletion, which has no bytes and hides the versions before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteMarker {
    /// The key that was deleted.
    pub key: ObjectKey,
    /// Its id.
    pub version_id: String,
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// Its id, `null` for one from before versions were kept; `None` where none ever were.
    pub version_id: Option<String>,
    /// Whether it is the latest of its key.
    pub is_latest: bool,
    /// The object.
    pub object: ObjectEntry,
}

/// Unfinished uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadList {
    /// The uploads whose keys can be ours.
    pub uploads: Vec<Upload>,
    /// Whether there are more than were listed.
    pub is_truncated: bool,
    /// Where the next page begins, where there are more.
    pub next: Option<UploadMarker>,
}

/// Where a page of uploads begins; they stand in the order of their keys, and those of one key in that of
/// their ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadMarker {
    pub(super) key: String,
    pub(super) upload_id: Option<String>,
}

/// One unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The key that the object will have.
    pub key: ObjectKey,
    /// COS's name for the upload.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Option<DateTime<Utc>>,
    /// The storage class that its parts are billed as; empty where COS does not say.
    pub storage_class: CloudText,
}

/// Parts of one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPage {
    /// The parts, by their numbers.
    pub parts: Vec<Part>,
    /// Whether there are more than were listed.
    pub is_truncated: bool,
}

/// One part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its size.
    pub size_bytes: u64,
    /// When it was written.
    pub last_modified: Option<DateTime<Utc>>,
}

pub(super) fn buckets(response: &Response) -> Result<Vec<BucketEntry>, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListAllMyBucketsResult {
        // The example of a filtered list comes in two pieces, with a blank after each name (product page
        // 436/8291, example 4).
        buckets: Vec<Buckets>,
    }
    #[derive(Deserialize)]
    struct Buckets {
        #[serde(rename = "Bucket", default)]
        list: Vec<Bucket>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Bucket {
        name: String,
        location: String,
    }
    let result: ListAllMyBucketsResult = read(response)?;
    // A bucket that no name of ours can mean is of no use here.
    let buckets = result.buckets.iter().flat_map(|piece| &piece.list);
    let entries = buckets.filter_map(|bucket| {
        Some(BucketEntry {
            name: bucket.name.trim().parse().ok()?,
            region: bucket.location.trim().parse().ok()?,
        })
    });
    Ok(entries.collect())
}

/// A page of objects after `marker`. One that is cut off and does not lead on is none: what it leaves out
/// would count as not there.
pub(super) fn objects(response: &Response, marker: Option<&str>) -> Result<ObjectPage, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListBucketResult {
        #[serde(deserialize_with = "truth")]
        is_truncated: bool,
        #[serde(default, alias = "Encoding-Type", alias = "Encoding-type")]
        encoding_type: Option<String>,
        #[serde(default)]
        next_marker: Option<String>,
        #[serde(default)]
        contents: Vec<Contents>,
    }
    let result: ListBucketResult = read(response)?;
    let encoding = Encoding::of(result.encoding_type.as_deref());
    let next = result.next_marker.filter(|next| !next.is_empty());
    let next = next.or_else(|| result.contents.last().map(|last| last.key.clone()));
    let next = next.and_then(|next| encoding.decode(&next));
    let next_marker = follow(result.is_truncated, next, "NextMarker")?;
    if let (Some(next), Some(marker)) = (next_marker.as_deref(), marker)
        && next <= marker
    {
        return Err(Problem::LeadsBack("NextMarker"));
    }
    let objects = result.contents.iter();
    let objects = objects.filter_map(|entry| entry.read(encoding));
    let objects: Vec<ObjectEntry> = objects.collect();
    Ok(ObjectPage {
        others: result.contents.len() - objects.len(),
        objects,
        next_marker,
    })
}

/// The marker of the page after one that is cut off.
fn follow(
    is_truncated: bool,
    next: Option<String>,
    element: &'static str,
) -> Result<Option<String>, Problem> {
    match next.filter(|next| !next.is_empty()) {
        _ if !is_truncated => Ok(None),
        Some(next) => Ok(Some(next)),
        None => Err(Problem::Lacking(element)),
    }
}

/// One object or version in a listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: u64,
    #[serde(default, rename = "ETag")]
    etag: String,
    #[serde(default)]
    last_modified: String,
    #[serde(default)]
    storage_class: CloudText,
    #[serde(default)]
    version_id: Option<CloudText>,
    #[serde(default, deserialize_with = "truth")]
    is_latest: bool,
}

impl Contents {
    /// `None` where the key can be none of ours.
    fn read(&self, encoding: Encoding) -> Option<ObjectEntry> {
        let class = self.storage_class.as_str();
        Some(ObjectEntry {
            key: encoding.decode(&self.key)?.parse().ok()?,
            size_bytes: self.size,
            etag: self.etag.trim_matches('"').to_owned(),
            last_modified: time(&self.last_modified),
            storage_class: if class.is_empty() { "STANDARD" } else { class }.into(),
        })
    }
}

/// A page of versions after `marker`, as [`objects`].
pub(super) fn versions(
    response: &Response,
    marker: Option<&VersionMarker>,
) -> Result<VersionPage, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListVersionsResult {
        #[serde(deserialize_with = "truth")]
        is_truncated: bool,
        #[serde(default, alias = "Encoding-Type", alias = "Encoding-type")]
        encoding_type: Option<String>,
        #[serde(default)]
        next_key_marker: Option<String>,
        #[serde(default)]
        next_version_id_marker: Option<String>,
        #[serde(default)]
        version: Vec<Contents>,
        #[serde(default)]
        delete_marker: Vec<Marker>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Marker {
        key: String,
        version_id: CloudText,
    }
    let result: ListVersionsResult = read(response)?;
    let encoding = Encoding::of(result.encoding_type.as_deref());
    let versions = result.version.iter().filter_map(|entry| {
        let version_id = entry.version_id.as_ref().map(ToString::to_string);
        Some(VersionEntry {
            version_id: version_id.filter(|id| !id.is_empty()),
            is_latest: entry.is_latest,
            object: entry.read(encoding)?,
        })
    });
    let versions: Vec<VersionEntry> = versions.collect();
    let markers = result.delete_marker.iter().filter_map(|marker| {
        Some(DeleteMarker {
            key: encoding.decode(&marker.key)?.parse().ok()?,
            version_id: marker.version_id.to_string(),
        })
    });
    let next_key = result.next_key_marker.as_deref();
    let next_key = next_key.and_then(|key| encoding.decode(key));
    let next = follow(result.is_truncated, next_key, "NextKeyMarker")?;
    let next = next.map(|key| VersionMarker {
        key,
        version_id: result.next_version_id_marker.filter(|id| !id.is_empty()),
    });
    // The versions of one key stand in the order of time, which their ids do not tell.
    if let (Some(next), Some(marker)) = (&next, marker)
        && (next.key < marker.key || next == marker)
    {
        return Err(Problem::LeadsBack("NextKeyMarker"));
    }
    Ok(VersionPage {
        others: result.version.len() - versions.len(),
        versions,
        markers: markers.collect(),
        next,
    })
}

pub(super) fn versioning(response: &Response) -> Result<Versioning, Problem> {
    #[derive(Deserialize)]
    struct VersioningConfiguration {
        #[serde(default, rename = "Status")]
        status: Option<String>,
    }
    let result: VersioningConfiguration = read(response)?;
    match result.status.as_deref().map(str::trim) {
        None | Some("") => Ok(Versioning::Off),
        Some("Enabled") => Ok(Versioning::Enabled),
        // Any other word means that there may be versions.
        Some(_) => Ok(Versioning::Suspended),
    }
}

/// A page of uploads after `marker`, as [`objects`].
pub(super) fn uploads(
    response: &Response,
    marker: Option<&UploadMarker>,
) -> Result<UploadList, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListMultipartUploadsResult {
        #[serde(deserialize_with = "truth")]
        is_truncated: bool,
        #[serde(default, alias = "Encoding-Type", alias = "Encoding-type")]
        encoding_type: Option<String>,
        #[serde(default)]
        next_key_marker: Option<String>,
        #[serde(default)]
        next_upload_id_marker: Option<String>,
        #[serde(default)]
        upload: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        key: String,
        upload_id: CloudText,
        #[serde(default)]
        initiated: String,
        #[serde(default)]
        storage_class: String,
    }
    let result: ListMultipartUploadsResult = read(response)?;
    let encoding = Encoding::of(result.encoding_type.as_deref());
    let uploads = result.upload.iter().filter_map(|entry| {
        let key = encoding.decode(&entry.key)?.parse().ok()?;
        Some(Upload {
            key,
            upload_id: entry.upload_id.to_string(),
            initiated: time(&entry.initiated),
            // The documentation spells it `Standard` here.
            storage_class: CloudText::new(&entry.storage_class.to_ascii_uppercase()),
        })
    });
    let next_key = result.next_key_marker.as_deref();
    let next_key = next_key.and_then(|key| encoding.decode(key));
    let next = follow(result.is_truncated, next_key, "NextKeyMarker")?;
    let next = next.map(|key| UploadMarker {
        key,
        upload_id: result.next_upload_id_marker.filter(|id| !id.is_empty()),
    });
    if next.is_some() && next.as_ref() <= marker {
        return Err(Problem::LeadsBack("NextKeyMarker"));
    }
    Ok(UploadList {
        uploads: uploads.collect(),
        is_truncated: result.is_truncated,
        next,
    })
}

/// A page of parts after number `after`, as [`objects`].
pub(super) fn parts(response: &Response, after: u32) -> Result<PartPage, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListPartsResult {
        #[serde(deserialize_with = "truth")]
        is_truncated: bool,
        #[serde(default)]
        part: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        part_number: u32,
        size: u64,
        #[serde(default)]
        last_modified: String,
    }
    let result: ListPartsResult = read(response)?;
    // The numbers lead on by themselves.
    let last = result.part.iter().map(|entry| entry.part_number).max();
    if result.is_truncated && last.is_none_or(|last| last <= after) {
        return Err(Problem::LeadsBack("PartNumber"));
    }
    let parts = result.part.iter().map(|entry| Part {
        number: entry.part_number,
        size_bytes: entry.size,
        last_modified: time(&entry.last_modified),
    });
    Ok(PartPage {
        parts: parts.collect(),
        is_truncated: result.is_truncated,
    })
}

/// A time such as `2019-05-24T10:56:40Z`; any other text is no time, not a failure.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text.trim()).ok()?;
    Some(time.to_utc())
}

pub(super) fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Problem> {
    quick_xml::de::from_str(&String::from_utf8_lossy(&response.body)).map_err(Problem::Unreadable)
}

/// Reads a truth in any case: product page 436/7736 says `TRUE` and shows `false`.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(D::Error::invalid_value(
            Unexpected::Str(&text),
            &"`true` or `false`",
        )),
    }
}

/// How names are written in a listing; the answer says it, whatever was asked for. Pages spell the
/// element `EncodingType` (436/30614), `Encoding-Type` (436/7736) and `Encoding-type` (436/7747).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    fn of(encoding_type: Option<&str>) -> Self {
        if encoding_type == Some("url") {
            Self::Url
        } else {
            Self::Plain
        }
    }

    /// The name itself; `None` when it is not well formed, so that it can be none of ours.
    fn decode(self, name: &str) -> Option<String> {
        match self {
            Self::Plain => Some(name.to_owned()),
            Self::Url => percent_decode(name),
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            decoded.extend(hex::decode(digits).ok()?);
            rest = after;
        } else {
            decoded.push(*first);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn response(body: &str) -> Response {
        Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn an_account_without_buckets_is_no_error() {
        let empty =
            "<ListAllMyBucketsResult><Owner><ID>x</ID></Owner><Buckets/></ListAllMyBucketsResult>";
        assert_eq!(buckets(&response(empty)).expect("an answer"), []);
    }

    #[test]
    fn names_are_decoded_only_where_the_answer_says_so() {
        let page = |encoding: &str| {
            format!(
                "<ListBucketResult>{encoding}<IsTruncated>true</IsTruncated><NextMarker>a%20b</NextMarker>\
                 <Contents><Key>a%20b</Key><Size>1</Size></Contents>\
                 <Unforeseen><Deep/></Unforeseen>\
                 <Contents><Key>%2Fabsolute</Key><Size>1</Size></Contents></ListBucketResult>"
            )
        };
        let keys = |text: &str| -> Vec<String> {
            let page = objects(&response(text), None).expect("an answer");
            assert!(page.next_marker.is_some());
            page.objects
                .iter()
                .map(|object| object.key.to_string())
                .collect()
        };
        // A key that begins with a slash can be none of ours.
        assert_eq!(keys(&page("<EncodingType>url</EncodingType>")), ["a b"]);
        assert_eq!(keys(&page("")), ["a%20b", "%2Fabsolute"]);
    }

    #[test]
    fn malformed_encodings_are_none_of_our_names() {
        for text in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decode(text), None, "{text}");
        }
        assert_eq!(percent_decode("%E6%98%A0+x").as_deref(), Some("映+x"));
    }

    #[test]
    fn a_page_that_is_cut_off_must_lead_on() {
        let marker = |key: &str, id: Option<&str>| UploadMarker {
            key: key.to_owned(),
            upload_id: id.map(str::to_owned),
        };
        let next = |key: &str, id: &str| {
            let body = format!(
                "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
                 <EncodingType>url</EncodingType><NextKeyMarker>{key}</NextKeyMarker>\
                 <NextUploadIdMarker>{id}</NextUploadIdMarker></ListMultipartUploadsResult>"
            );
            response(&body)
        };
        let page = |key, id, before: Option<&UploadMarker>| uploads(&next(key, id), before);
        let b2 = marker("b", Some("2"));
        for (key, id) in [("b", "3"), ("c", ""), ("c", "1")] {
            let page = page(key, id, Some(&b2)).expect("an answer");
            assert_eq!(
                page.next,
                Some(marker(key, Some(id).filter(|id| !id.is_empty())))
            );
        }
        for (key, id) in [("b", "2"), ("b", "1"), ("b", ""), ("a", "9")] {
            let page = page(key, id, Some(&b2));
            assert!(
                matches!(page, Err(Problem::LeadsBack(_))),
                "{key} {id}: {page:?}"
            );
        }
        for key in ["", "%zz"] {
            let page = page(key, "1", None);
            assert!(matches!(page, Err(Problem::Lacking(_))), "{key}: {page:?}");
        }

        let objects_after = |next: &str, before| {
            let body = format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated>{next}</ListBucketResult>"
            );
            objects(&response(&body), before)
        };
        let to_b = "<NextMarker>b</NextMarker>";
        assert!(objects_after(to_b, Some("a")).is_ok());
        for before in ["b", "c"] {
            let page = objects_after(to_b, Some(before));
            assert!(
                matches!(page, Err(Problem::LeadsBack(_))),
                "{before}: {page:?}"
            );
        }
        for next in ["", "<NextMarker/>"] {
            let page = objects_after(next, None);
            assert!(matches!(page, Err(Problem::Lacking(_))), "{next}: {page:?}");
        }

        let cut = response("<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>");
        assert!(matches!(parts(&cut, 0), Err(Problem::LeadsBack(_))));
    }

    #[test]
    fn other_documents_are_refused() {
        for text in [
            "",
            "<html><body>hello</body></html>",
            "<ListPartsResult>",
            "{}",
            "<a>&unknown;</a>",
        ] {
            assert!(
                matches!(parts(&response(text), 0), Err(Problem::Unreadable(_))),
                "{text}"
            );
        }
    }
}
