//! The calls of an `image` run: how each is answered when all goes well, and which parts of the answer
//! the run needs.
//!
//! Calls about the leases and about the copy of the record have one name and many purposes; which one a call has
//! follows from its place in the clean run.

use cvm_export::simulator::Call;

/// What the answer to a call is in a clean run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// JSON or XML that is read.
    Document,
    /// "Not there", with a document that is not needed to understand it.
    Missing,
    /// Status and headers.
    Head,
    /// Success, and nothing that is read.
    Empty,
}

/// What becomes of an answer without some part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It does as well.
    Spare,
    /// It cannot be read, so it is asked for again.
    Vital,
    /// It can be read, and says less than the truth: the run ends with this code before the submit.
    Misleads(i32),
}

/// A part of an answer: a JSON field, an XML element, or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) when_missing: Need,
    pub(super) when_null: Need,
}

/// What a run makes a call for, as far as that decides how it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// None of the leases.
    Other,
    /// The first reading of the row: a lease, or the copy of the record that would count as the first, is not there.
    Row,
    /// The listing that could show a higher lease.
    Listing,
    /// The lease is created.
    Create,
    /// The same again, which has to be refused.
    Test,
    /// The second reading: the own lease.
    OwnLease,
    /// The second reading: nothing above it.
    NothingAbove,
    /// After the submit: the lease is read before it is written.
    LaterRead,
    /// After the submit: the copy of the record is read before it is written.
    LaterCopy,
    /// After the submit: lease or copy are written.
    LaterPut,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// As the call log names it.
    pub(super) name: &'static str,
    pub(super) purpose: Purpose,
    pub(super) is_cos: bool,
    pub(super) answer: Answer,
    pub(super) fields: &'static [Field],
}

const fn field(name: &'static str, when_missing: Need, when_null: Need) -> Field {
    Field {
        name,
        when_missing,
        when_null,
    }
}

const fn spare(name: &'static str) -> Field {
    field(name, Need::Spare, Need::Spare)
}

const fn vital(name: &'static str) -> Field {
    field(name, Need::Vital, Need::Vital)
}

const fn api(name: &'static str, fields: &'static [Field]) -> Operation {
    Operation {
        name,
        purpose: Purpose::Other,
        is_cos: false,
        answer: Answer::Document,
        fields,
    }
}

const fn cos(name: &'static str, answer: Answer, fields: &'static [Field]) -> Operation {
    Operation {
        name,
        purpose: Purpose::Other,
        is_cos: true,
        answer,
        fields,
    }
}

const fn lease(
    name: &'static str,
    purpose: Purpose,
    answer: Answer,
    fields: &'static [Field],
) -> Operation {
    Operation {
        purpose,
        ..cos(name, answer, fields)
    }
}

/// A part of a lease, without which it is none.
const fn of_lease(name: &'static str) -> Field {
    field(name, Misleads(3), Misleads(3))
}

use Need::{Misleads, Spare, Vital};

/// Every kind of call of a clean run that is not about the leases, in the order of the first of each.
pub(super) const OPERATIONS: &[Operation] = &[
    cos(
        "GetService",
        Answer::Document,
        &[
            spare("Date"),
            spare("Owner"),
            // An account without buckets is an answer, too, and then the bucket is not there.
            field("Buckets", Vital, Misleads(3)),
            field("Bucket", Misleads(3), Vital),
            field("Name", Vital, Misleads(3)),
            field("Location", Vital, Misleads(3)),
        ],
    ),
    api(
        "DescribeImages",
        &[
            vital("Response"),
            spare("RequestId"),
            spare("TotalCount"),
            // No image at all.
            field("ImageSet", Misleads(3), Misleads(3)),
            vital("ImageId"),
            spare("ImageName"),
            spare("ImageState"),
            spare("ImageType"),
            spare("Platform"),
            spare("OsName"),
            spare("CreatedTime"),
            // Without its disks, what must be known about the image is not.
            field("SnapshotSet", Misleads(4), Misleads(4)),
            vital("SnapshotId"),
            vital("DiskUsage"),
            vital("DiskSize"),
        ],
    ),
    cos(
        "HeadBucket",
        Answer::Head,
        &[spare("x-cos-bucket-region"), spare("x-cos-request-id")],
    ),
    cos(
        "ListMultipartUploads",
        Answer::Document,
        &[
            vital("IsTruncated"),
            spare("EncodingType"),
            spare("Upload"),
            vital("Key"),
            vital("UploadId"),
        ],
    ),
    api("GetRole", &[vital("RoleInfo"), spare("PolicyDocument")]),
    api(
        "ListAttachedRolePolicies",
        &[
            // A role without a policy that writes.
            field("List", Misleads(3), Misleads(3)),
            // What a policy without a name allows is said by its document.
            spare("PolicyName"),
            spare("PolicyType"),
        ],
    ),
    api(
        "DescribeSnapshots",
        &[spare("SnapshotSet"), vital("SnapshotId"), spare("Encrypt")],
    ),
    cos(
        "HeadObject",
        Answer::Head,
        &[
            spare("Date"),
            spare("ETag"),
            spare("Last-Modified"),
            spare("x-cos-hash-crc64ecma"),
            // There is no empty length.
            field("Content-Length", Vital, Spare),
        ],
    ),
    api(
        "ExportImages",
        &[
            // Whatever the answer lacks, the export runs.
            vital("Response"),
            spare("RequestId"),
            spare("TaskId"),
            spare("CosPaths"),
        ],
    ),
    cos(
        "ListParts",
        Answer::Document,
        &[
            vital("IsTruncated"),
            spare("Part"),
            vital("PartNumber"),
            vital("Size"),
        ],
    ),
];

const ABSENCE: &[Field] = &[spare("Code"), spare("Message")];
const STORED: &[Field] = &[spare("Date"), spare("ETag")];
const LEASE: &[Field] = &[
    spare("Date"),
    spare("ETag"),
    spare("Last-Modified"),
    field("Content-Length", Vital, Spare),
    of_lease("schema"),
    of_lease("number"),
    of_lease("kind"),
    of_lease("state"),
    of_lease("run"),
    of_lease("host"),
    of_lease("floor"),
    of_lease("puts"),
    of_lease("bucket"),
    of_lease("image_id"),
    of_lease("prefix"),
    of_lease("format"),
    of_lease("record"),
];
/// Without its code, a refusal says nothing.
const REFUSAL: &[Field] = &[vital("Code"), spare("Message")];

/// Every kind of call that is about the leases, in the order of the first of each.
pub(super) const LEASES: &[Operation] = &[
    lease("GetObject", Purpose::Row, Answer::Missing, ABSENCE),
    lease(
        "ListObjects",
        Purpose::Listing,
        Answer::Document,
        &[spare("IsTruncated"), spare("EncodingType"), spare("Name")],
    ),
    lease("PutObject", Purpose::Create, Answer::Empty, STORED),
    lease("PutObject", Purpose::Test, Answer::Document, REFUSAL),
    lease("GetObject", Purpose::OwnLease, Answer::Document, LEASE),
    lease("GetObject", Purpose::NothingAbove, Answer::Missing, ABSENCE),
    lease(
        "GetObject",
        Purpose::LaterRead,
        Answer::Document,
        &[
            spare("ETag"),
            field("Content-Length", Vital, Spare),
            of_lease("run"),
        ],
    ),
    lease("PutObject", Purpose::LaterPut, Answer::Empty, STORED),
    // The first one is not there.
    lease("GetObject", Purpose::LaterCopy, Answer::Missing, ABSENCE),
    lease(
        "GetObject",
        Purpose::LaterCopy,
        Answer::Document,
        &[
            spare("state"),
            spare("ETag"),
            field("Content-Length", Vital, Spare),
        ],
    ),
];

/// What every call has in common, as the first call of a run shows it.
pub(super) const ANY: Operation = Operation {
    name: "*",
    fields: &[spare("Date"), spare("RequestId")],
    ..OPERATIONS[0]
};

/// The description of the operation that the call log names `name`, where it is not about the leases.
pub(super) fn operation(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// The key of the object that a call about the leases is about.
pub(super) fn lease_key(call: &Call) -> Option<&str> {
    let path = call.target.split('?').next()?.strip_prefix('/')?;
    let is_about_leases = matches!(call.operation.as_str(), "GetObject" | "PutObject");
    (is_about_leases && path.contains(".cvm-export.")).then_some(path)
}

/// What each call of a clean run is.
pub(super) fn describe(calls: &[Call]) -> Vec<&'static Operation> {
    let mut puts = 0;
    let mut is_submitted = false;
    let described = calls.iter().map(|call| {
        let is_copy = !lease_key(call).unwrap_or_default().contains(".lease-");
        let purpose = match call.operation.as_str() {
            "ListObjects" => Purpose::Listing,
            "PutObject" => {
                puts += 1;
                match puts {
                    1 => Purpose::Create,
                    2 => Purpose::Test,
                    _ => Purpose::LaterPut,
                }
            }
            "GetObject" if is_submitted && is_copy => Purpose::LaterCopy,
            "GetObject" if is_submitted => Purpose::LaterRead,
            "GetObject" if puts == 0 => Purpose::Row,
            "GetObject" if call.status == 200 => Purpose::OwnLease,
            "GetObject" => Purpose::NothingAbove,
            _ => Purpose::Other,
        };
        is_submitted |= call.operation == "ExportImages";
        let is_missing = call.status == 404;
        let found = OPERATIONS.iter().chain(LEASES).find(|operation| {
            operation.name == call.operation
                && operation.purpose == purpose
                && (purpose != Purpose::LaterCopy
                    || is_missing == (operation.answer == Answer::Missing))
        });
        found.unwrap_or_else(|| {
            panic!(
                "{} {} is a call that the matrix does not know",
                call.operation, call.target
            )
        })
    });
    described.collect()
}
