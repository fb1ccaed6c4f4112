//! The COS XML API: hosts, operations, and the frame around every answer.

mod buckets;
mod listing;
mod objects;
mod range;
mod uploads;
mod versions;
mod xml;

use chrono::{DateTime, Utc};

use super::storage::{Bucket, KEY_LIMIT_BYTES};
use super::verify::{self, Gate, Refusal};
use super::wire::{Answer, Received, percent_decode, query_pairs, random_hex};
use super::world::World;
use xml::Xml;

/// Query parameters that select a sub-resource which is not simulated.
const NOT_SIMULATED: &[&str] = &[
    "accelerate",
    "acl",
    "append",
    "cors",
    "domain",
    "encryption",
    "intelligenttiering",
    "inventory",
    "lifecycle",
    "logging",
    "object-lock",
    "origin",
    "policy",
    "referer",
    "replication",
    "restore",
    "select",
    "tagging",
    "website",
];

/// Query parameters that COS knows; any other is a mistake of the client's.
const KNOWN_PARAMETERS: &[&str] = &[
    "create-time",
    "delete",
    "delimiter",
    "encoding-type",
    "key-marker",
    "marker",
    "max-keys",
    "max-parts",
    "max-uploads",
    "part-number-marker",
    "partNumber",
    "prefix",
    "range",
    "region",
    "tagkey",
    "tagvalue",
    "upload-id-marker",
    "uploadId",
    "uploads",
    "version-id-marker",
    "versionId",
    "versioning",
    "versions",
    "x-cos-security-token",
    "x-cos-traffic-limit",
];

/// An error of COS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CosError {
    status: u16,
    code: String,
    message: String,
    details: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
}

impl CosError {
    pub(super) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
        }
    }

    fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    fn access_denied() -> Self {
        Self::new(403, "AccessDenied", "Access Denied.")
    }
}

impl From<Refusal> for CosError {
    fn from(refusal: Refusal) -> Self {
        Self {
            details: refusal.details,
            ..Self::new(refusal.status, refusal.code, refusal.message)
        }
    }
}

/// What a request is about, from its host and its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The region that the host names; none for the host of the service.
    region: Option<String>,
    bucket: Option<String>,
    /// The decoded object key; none for the bucket itself.
    key: Option<String>,
}

impl Target {
    /// Reads `<bucket>.cos.<region>.myqcloud.com`, its newer suffix with the host of the internal
    /// network, the path style and the host of the service. `None` for hosts that are not COS's.
    pub(super) fn parse(host: &str, path: &str) -> Option<Self> {
        let newer = host.strip_suffix(".tencentcos.cn");
        let name = newer.or_else(|| host.strip_suffix(".myqcloud.com"))?;
        if name == "service.cos" {
            return Some(Self::default());
        }
        let labels: Vec<&str> = name.split('.').collect();
        let (bucket, place, region) = match labels[..] {
            [place, region] => (None, place, region),
            [bucket, place, region] => (Some(bucket.to_owned()), place, region),
            _ => return None,
        };
        // The internal network has names under the newer suffix alone.
        if place != "cos" && !(place == "cos-internal" && newer.is_some()) {
            return None;
        }
        // A path that cannot be decoded is refused by the signature check, before the key counts.
        let path = percent_decode(path).unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = match bucket {
            Some(bucket) => (Some(bucket), path),
            None => match path.split_once('/') {
                Some((bucket, key)) => (Some(bucket.to_owned()), key),
                None => (Some(path.to_owned()), ""),
            },
        };
        Some(Self {
            region: Some(region.to_owned()),
            bucket: bucket.filter(|bucket| !bucket.is_empty()),
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
        })
    }

    /// The decoded object key; none if the request is not about one object.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// What is done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    GetService,
    HeadBucket,
    PutBucket,
    ListObjects,
    GetBucketVersioning,
    GetBucketObjectVersions,
    ListMultipartUploads,
    DeleteMultipleObjects,
    HeadObject,
    GetObject,
    PutObject,
    DeleteObject,
    InitiateMultipartUpload,
    UploadPart,
    ListParts,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    NotSimulated,
}

impl Operation {
    const ALL: &[Self] = &[
        Self::GetService,
        Self::HeadBucket,
        Self::PutBucket,
        Self::ListObjects,
        Self::GetBucketVersioning,
        Self::GetBucketObjectVersions,
        Self::ListMultipartUploads,
        Self::DeleteMultipleObjects,
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::DeleteObject,
        Self::InitiateMultipartUpload,
        Self::UploadPart,
        Self::ListParts,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::NotSimulated,
    ];

    fn of(request: &Received, target: &Target) -> Self {
        let parameters = query_pairs(&request.query).unwrap_or_default();
        let has = |name: &str| parameters.iter().any(|(known, _)| known == name);
        if NOT_SIMULATED.iter().any(|name| has(name))
            || request.header("x-cos-copy-source").is_some()
        {
            return Self::NotSimulated;
        }
        let method = request.method.as_str();
        if target.bucket.is_none() {
            return match method {
                "GET" => Self::GetService,
                _ => Self::NotSimulated,
            };
        }
        if target.key.is_none() {
            return match method {
                "HEAD" => Self::HeadBucket,
                // Its settings are put to sub-resources of the bucket.
                "PUT" if parameters.is_empty() => Self::PutBucket,
                "GET" if has("uploads") => Self::ListMultipartUploads,
                "GET" if has("versioning") => Self::GetBucketVersioning,
                "GET" if has("versions") => Self::GetBucketObjectVersions,
                "GET" => Self::ListObjects,
                "POST" if has("delete") => Self::DeleteMultipleObjects,
                _ => Self::NotSimulated,
            };
        }
        if has("versioning") || has("versions") {
            return Self::NotSimulated;
        }
        match method {
            "HEAD" => Self::HeadObject,
            "GET" if has("uploadId") => Self::ListParts,
            "GET" => Self::GetObject,
            "PUT" if has("uploadId") => Self::UploadPart,
            "PUT" => Self::PutObject,
            "POST" if has("uploads") => Self::InitiateMultipartUpload,
            "POST" if has("uploadId") => Self::CompleteMultipartUpload,
            "DELETE" if has("uploadId") => Self::AbortMultipartUpload,
            "DELETE" => Self::DeleteObject,
            _ => Self::NotSimulated,
        }
    }
}

/// The names of all operations.
pub(super) fn operations() -> impl Iterator<Item = String> {
    let operations = Operation::ALL.iter();
    operations.map(|operation| format!("{operation:?}"))
}

/// The name of the operation, for log and faults.
pub(super) fn operation(request: &Received, target: &Target) -> String {
    format!("{:?}", Operation::of(request, target))
}

/// What faults change about the server during one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    pub(super) has_expired_tokens: bool,
    pub(super) overlooks_range: bool,
    pub(super) replaces_object: bool,
    /// How many keys of a multi-delete are refused, and with which code.
    pub(super) refused_keys: Option<(usize, String)>,
}

/// One request with everything decoded that operations look at.
#[derive(Debug)]
struct Call<'a> {
    request: &'a Received,
    bucket: &'a str,
    key: &'a str,
    parameters: Vec<(String, String)>,
    now: DateTime<Utc>,
    quirks: Quirks,
}

impl Call<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A number between 1 and `limit`; `limit` where the parameter is missing.
    fn page_size(&self, name: &str, limit: u64) -> Result<u64, CosError> {
        let Some(text) = self.parameter(name) else {
            return Ok(limit);
        };
        match text.parse::<u64>() {
            Ok(number) => Ok(number.min(limit)),
            Err(_) => Err(CosError::invalid_argument(format!(
                "{name} is not a number"
            ))),
        }
    }

    /// Whether names shall be percent-encoded in the answer.
    fn is_encoding(&self) -> Result<bool, CosError> {
        match self.parameter("encoding-type") {
            None => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(CosError::invalid_argument("encoding-type must be url")),
        }
    }
}

/// Answers a request to COS.
pub(super) fn answer(
    world: &mut World,
    target: &Target,
    request: &Received,
    now: DateTime<Utc>,
    quirks: Quirks,
) -> Answer {
    let gate = Gate {
        accepted: &world.accepted.clone(),
        now,
        has_expired_tokens: quirks.has_expired_tokens,
    };
    let result = verify::cos(&gate, request)
        .map_err(CosError::from)
        .and_then(|()| run(world, target, request, now, quirks));
    frame(result, request)
}

/// An error that nothing in the world caused.
pub(super) fn error_answer(request: &Received, status: u16, code: &str) -> Answer {
    let error = CosError::new(status, code, "The call was refused.");
    frame(Err(error), request)
}

/// Turns errors into XML and adds what every answer carries.
fn frame(result: Result<Answer, CosError>, request: &Received) -> Answer {
    let request_id = format!("NjUw{}", random_hex(28));
    let mut answer = result.unwrap_or_else(|error| {
        let trace_id = format!("OGVm{}", random_hex(40));
        let mut xml = Xml::new("Error");
        xml.field("Code", &error.code);
        xml.field("Message", &error.message);
        for (name, value) in &error.details {
            xml.field(name, value);
        }
        let host = request.host_name();
        xml.field("Resource", format!("{host}{}", request.path));
        xml.field("RequestId", &request_id);
        xml.field("TraceId", &trace_id);
        let mut answer = Answer::new(error.status, "application/xml", xml.finish())
            .with_header("x-cos-trace-id", trace_id);
        for (name, value) in error.headers {
            answer = answer.with_header(name, value);
        }
        answer.code = Some(error.code);
        answer
    });
    if request.method == "HEAD" || answer.status == 304 {
        answer.content = super::wire::Content::Bytes(bytes::Bytes::new());
    }
    answer.request_id.clone_from(&request_id);
    answer
        .with_header("Server", "tencent-cos")
        .with_header("x-cos-request-id", request_id)
}

fn run(
    world: &mut World,
    target: &Target,
    request: &Received,
    now: DateTime<Utc>,
    quirks: Quirks,
) -> Result<Answer, CosError> {
    let parameters = query_pairs(&request.query).unwrap_or_default();
    let operation = Operation::of(request, target);
    check_parameters(&parameters)?;
    let call = Call {
        request,
        bucket: target.bucket.as_deref().unwrap_or_default(),
        key: target.key.as_deref().unwrap_or_default(),
        parameters,
        now,
        quirks,
    };
    if operation == Operation::NotSimulated {
        return Err(CosError::new(
            501,
            "NotImplemented",
            "The simulator does not implement this operation.",
        ));
    }
    if !matches!(operation, Operation::GetService | Operation::PutBucket) {
        find_bucket(world, target)?;
    }
    if world.denied.contains(&format!("{operation:?}")) {
        return Err(CosError::access_denied());
    }
    if call.key.len() > KEY_LIMIT_BYTES {
        return Err(CosError::new(
            400,
            "KeyTooLong",
            "The key is longer than 850 bytes.",
        ));
    }
    match operation {
        Operation::GetService => buckets::get_service(world, &call, target.region.as_deref()),
        Operation::HeadBucket => buckets::head_bucket(world, &call),
        Operation::PutBucket => buckets::put_bucket(world, &call, target.region.as_deref()),
        Operation::ListObjects => buckets::list_objects(world, &call),
        Operation::GetBucketVersioning => versions::get_versioning(world, &call),
        Operation::GetBucketObjectVersions => versions::list(world, &call),
        Operation::DeleteMultipleObjects => objects::delete_multiple(world, &call),
        Operation::HeadObject => objects::head(world, &call),
        Operation::GetObject => objects::get(world, &call),
        Operation::PutObject => objects::put(world, &call),
        Operation::DeleteObject => objects::delete(world, &call),
        Operation::ListMultipartUploads => uploads::list(world, &call),
        Operation::InitiateMultipartUpload => uploads::initiate(world, &call),
        Operation::UploadPart => uploads::upload_part(world, &call),
        Operation::ListParts => uploads::list_parts(world, &call),
        Operation::CompleteMultipartUpload => uploads::complete(world, &call),
        Operation::AbortMultipartUpload => uploads::abort(world, &call),
        Operation::NotSimulated => unreachable!("refused above"),
    }
}

fn check_parameters(parameters: &[(String, String)]) -> Result<(), CosError> {
    let is_known = |name: &str| {
        KNOWN_PARAMETERS.contains(&name)
            || NOT_SIMULATED.contains(&name)
            || name.starts_with("response-")
            || verify::is_signature_parameter(name)
    };
    match parameters.iter().find(|(name, _)| !is_known(name)) {
        Some((name, _)) => Err(CosError::invalid_argument(format!(
            "The query parameter `{name}` is not known."
        ))),
        None => Ok(()),
    }
}

/// Makes sure that the bucket exists where the host says that it is.
fn find_bucket(world: &World, target: &Target) -> Result<(), CosError> {
    let name = target.bucket.as_deref().unwrap_or_default();
    let bucket = world.buckets.get(name);
    if bucket.is_some_and(|bucket| Some(bucket.region.as_str()) == target.region.as_deref()) {
        return Ok(());
    }
    let mut error = CosError::new(404, "NoSuchBucket", "The specified bucket does not exist.");
    error.details.push(("BucketName", name.to_owned()));
    Err(error)
}

/// The bucket of a call, which [`find_bucket`] has seen.
fn bucket_of<'w>(world: &'w mut World, call: &Call<'_>) -> Result<&'w mut Bucket, CosError> {
    world
        .buckets
        .get_mut(call.bucket)
        .ok_or_else(|| CosError::new(404, "NoSuchBucket", "The specified bucket does not exist."))
}

/// A name as it stands in a listing.
fn listed_name(name: &str, is_encoding: bool) -> String {
    if is_encoding {
        crate::auth::percent_encode(name)
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_tell_bucket_and_key() {
        let target = |host: &str, path: &str| {
            Target::parse(host, path).map(|target| {
                [target.region, target.bucket, target.key]
                    .map(Option::unwrap_or_default)
                    .join("|")
            })
        };
        for (host, path, expected) in [
            ("service.cos.myqcloud.com", "/", Some("||")),
            ("b-1.cos.ap-x.myqcloud.com", "/", Some("ap-x|b-1|")),
            (
                "b-1.cos.ap-x.tencentcos.cn",
                "/a%20b/c",
                Some("ap-x|b-1|a b/c"),
            ),
            (
                "b-1.cos-internal.ap-x.tencentcos.cn",
                "/k",
                Some("ap-x|b-1|k"),
            ),
            ("cos.ap-x.myqcloud.com", "/", Some("ap-x||")),
            ("cos.ap-x.myqcloud.com", "/b-1/k/l", Some("ap-x|b-1|k/l")),
            ("cos.ap-x.myqcloud.com", "/b-1", Some("ap-x|b-1|")),
            ("b-1.s3.ap-x.myqcloud.com", "/", None),
            ("b-1.cos.ap-x.example.com", "/", None),
        ] {
            assert_eq!(target(host, path).as_deref(), expected, "{host}{path}");
        }
    }

    #[test]
    fn operations_follow_from_method_target_and_query() {
        for (method, path, query, expected) in [
            ("GET", "/", "", "ListObjects"),
            ("GET", "/", "uploads&prefix=p", "ListMultipartUploads"),
            ("HEAD", "/", "", "HeadBucket"),
            ("GET", "/", "versioning", "GetBucketVersioning"),
            ("PUT", "/", "versioning", "NotSimulated"),
            ("GET", "/", "versions&prefix=p", "GetBucketObjectVersions"),
            ("GET", "/k", "versions", "NotSimulated"),
            ("POST", "/", "delete", "DeleteMultipleObjects"),
            ("PUT", "/", "", "PutBucket"),
            ("DELETE", "/", "", "NotSimulated"),
            ("GET", "/k", "acl", "NotSimulated"),
            ("GET", "/k", "uploadId=u", "ListParts"),
            ("GET", "/k", "", "GetObject"),
            ("PUT", "/k", "partNumber=1&uploadId=u", "UploadPart"),
            ("POST", "/k", "uploads", "InitiateMultipartUpload"),
            ("POST", "/k", "uploadId=u", "CompleteMultipartUpload"),
            ("DELETE", "/k", "uploadId=u", "AbortMultipartUpload"),
            ("DELETE", "/k", "", "DeleteObject"),
        ] {
            let host = "b-1.cos.ap-x.myqcloud.com";
            let request = Received {
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                host: host.to_owned(),
                headers: Vec::new(),
                body: bytes::Bytes::new(),
            };
            let target = Target::parse(host, path).expect("a COS host");
            assert_eq!(
                operation(&request, &target),
                expected,
                "{method} {path}?{query}"
            );
        }
    }
}
