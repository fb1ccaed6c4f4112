//! The XML of successful answers, and what is kept of it.

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
}

/// Unfinished uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadList {
    /// The uploads whose keys can be ours.
    pub uploads: Vec<Upload>,
    /// Whether there are more than were listed.
    pub is_truncated: bool,
}

/// One unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The key that the object will have.
    pub key: ObjectKey,
    /// COS's name for the upload.
    pub upload_id: String,
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

pub(super) fn objects(response: &Response) -> Result<ObjectPage, Problem> {
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
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Contents {
        key: String,
        size: u64,
    }
    let result: ListBucketResult = read(response)?;
    let encoding = Encoding::of(result.encoding_type.as_deref());
    let next_marker = result
        .next_marker
        .or_else(|| result.contents.last().map(|last| last.key.clone()));
    let objects = result.contents.iter().filter_map(|entry| {
        Some(ObjectEntry {
            key: encoding.decode(&entry.key)?.parse().ok()?,
            size_bytes: entry.size,
        })
    });
    Ok(ObjectPage {
        objects: objects.collect(),
        next_marker: next_marker
            .filter(|_| result.is_truncated)
            .and_then(|marker| encoding.decode(&marker)),
    })
}

pub(super) fn uploads(response: &Response) -> Result<UploadList, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListMultipartUploadsResult {
        #[serde(deserialize_with = "truth")]
        is_truncated: bool,
        #[serde(default, alias = "Encoding-Type", alias = "Encoding-type")]
        encoding_type: Option<String>,
        #[serde(default)]
        upload: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        key: String,
        upload_id: CloudText,
    }
    let result: ListMultipartUploadsResult = read(response)?;
    let encoding = Encoding::of(result.encoding_type.as_deref());
    let uploads = result.upload.iter().filter_map(|entry| {
        let key = encoding.decode(&entry.key)?.parse().ok()?;
        Some(Upload {
            key,
            upload_id: entry.upload_id.to_string(),
        })
    });
    Ok(UploadList {
        uploads: uploads.collect(),
        is_truncated: result.is_truncated,
    })
}

pub(super) fn parts(response: &Response) -> Result<PartPage, Problem> {
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
    }
    let result: ListPartsResult = read(response)?;
    let parts = result.part.iter().map(|entry| Part {
        number: entry.part_number,
        size_bytes: entry.size,
    });
    Ok(PartPage {
        parts: parts.collect(),
        is_truncated: result.is_truncated,
    })
}

fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Problem> {
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
            let page = objects(&response(text)).expect("an answer");
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
    fn other_documents_are_refused() {
        for text in [
            "",
            "<html><body>hello</body></html>",
            "<ListPartsResult>",
            "{}",
            "<a>&unknown;</a>",
        ] {
            assert!(
                matches!(parts(&response(text)), Err(Problem::Unreadable(_))),
                "{text}"
            );
        }
    }
}
