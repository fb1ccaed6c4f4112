//! The calls of an `image` run: how each is answered when all goes well, and which parts of the answer
//! the run needs.

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
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) when_missing: Need,
    pub(super) when_null: Need,
}

/// A kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// As the call log names it.
    pub(super) name: &'static str,
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
        is_cos: false,
        answer: Answer::Document,
        fields,
    }
}

const fn cos(name: &'static str, answer: Answer, fields: &'static [Field]) -> Operation {
    Operation {
        name,
        is_cos: true,
        answer,
        fields,
    }
}

use Need::{Misleads, Spare, Vital};

/// Every kind of call that a clean run makes, in the order of the first of each.
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
            field("PolicyName", Misleads(3), Misleads(3)),
            spare("PolicyType"),
        ],
    ),
    cos(
        "GetObject",
        Answer::Missing,
        &[spare("Code"), spare("Message")],
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
    cos("PutObject", Answer::Empty, &[spare("Date"), spare("ETag")]),
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

/// What every call has in common, as the first call of a run shows it.
pub(super) const ANY: Operation = Operation {
    name: "*",
    fields: &[spare("Date"), spare("RequestId")],
    ..OPERATIONS[0]
};

/// The description of the operation that the call log names `name`.
pub(super) fn operation(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}
