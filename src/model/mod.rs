//! The words of the field as types: identifiers, formats, findings, cloud text.
//!
//! A leaf: data and parsing only. Whoever holds one of these holds something well formed; what the
//! cloud thinks of it is decided elsewhere.

mod finding;
mod identifiers;
mod regions;
mod text;

pub use finding::{CheckName, Finding, Verdict};
pub use identifiers::{
    BucketName, ExportId, ImageFormat, ImageId, InvalidValue, ObjectKey, Prefix, Region, RoleName,
    SnapshotId, StorageClass, TaskId,
};
pub use text::{CloudText, printable_json, shell_line, shell_word};
