//! Identifiers that are parsed once: if you hold one, it is well formed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::CloudText;
use super::text::is_printable;

/// COS accepts object keys of 1 to 850 bytes (COS documentation, "Specifications and limits").
const OBJECT_KEY_LIMIT_BYTES: usize = 850;

/// A value that can't be right, with the reason and an example of one that can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is not {} {what}: {problem} (example: `{example}`)",
    article(what)
)]
pub struct InvalidValue {
    what: &'static str,
    value: CloudText,
    problem: String,
    example: &'static str,
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

impl InvalidValue {
    /// Describes a refused `value` of the kind `what`.
    pub fn new(
        what: &'static str,
        value: &str,
        problem: impl Into<String>,
        example: &'static str,
    ) -> Self {
        Self {
            what,
            value: CloudText::excerpt(value, 80),
            problem: problem.into(),
            example,
        }
    }
}

/// Declares a string newtype with `FromStr` by a check function, `Display`, and serde through both. Clones share
/// the text: a listing of a bucket holds the same names many times.
macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as it travels on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({:?})", stringify!($name), self.0)
            }
        }
    };
}

identifier! {
    /// A CVM image: `img-` and lower-case letters or digits. The length is not documented, so it is
    /// not enforced.
    ImageId, check_image_id
}

identifier! {
    /// A CBS snapshot: `snap-` and lower-case letters or digits.
    SnapshotId, check_snapshot_id
}

identifier! {
    /// A region code such as `ap-guangzhou`. The set is open: new codes appear, none is refused for
    /// being unknown.
    Region, check_region
}

identifier! {
    /// A COS bucket name, with or without its AppId: lower-case letters, digits and hyphens.
    BucketName, check_bucket
}

identifier! {
    /// An object key of 1 to 850 bytes without a leading slash, without anything that [`CloudText`]
    /// would strip, and without `.` and `..` segments, which clients and proxies fold.
    ObjectKey, check_object_key
}

identifier! {
    /// The start of the exported files' names.
    Prefix, check_prefix
}

identifier! {
    /// A CAM role name: 1 to 128 letters, digits and `+=,.@-_`.
    RoleName, check_role_name
}

identifier! {
    /// A storage class of COS such as `STANDARD_IA`, as `x-cos-storage-class` names it. The set is open.
    StorageClass, check_storage_class
}

identifier! {
    /// The name that this tool gives to one export: `exp-` and lower-case letters or digits.
    ExportId, check_export_id
}

impl StorageClass {
    /// The class of what is written without naming one (COS, PUT Object, `x-cos-storage-class`).
    #[must_use]
    pub fn standard() -> Self {
        Self("STANDARD".into())
    }

    /// The class of what is written into a bucket of several zones without naming one.
    #[must_use]
    pub fn multi_az_standard() -> Self {
        Self("MAZ_STANDARD".into())
    }

    /// The classes that the COS documentation names; the set is open, as new ones come.
    pub const DOCUMENTED: [&str; 8] = [
        "STANDARD",
        "STANDARD_IA",
        "INTELLIGENT_TIERING",
        "ARCHIVE",
        "DEEP_ARCHIVE",
        "MAZ_STANDARD",
        "MAZ_STANDARD_IA",
        "MAZ_INTELLIGENT_TIERING",
    ];

    /// Whether the COS documentation names it.
    #[must_use]
    pub fn is_documented(&self) -> bool {
        Self::DOCUMENTED.contains(&self.as_str())
    }

    /// In place of a name that no class can have.
    #[must_use]
    pub fn unknown() -> Self {
        Self("UNKNOWN".into())
    }
}

impl BucketName {
    /// The AppId at the name's end, if it has the form of one: exactly ten digits after a hyphen.
    #[must_use]
    pub fn app_id(&self) -> Option<&str> {
        let (name, tail) = self.0.rsplit_once('-')?;
        let is_app_id = tail.len() == 10 && tail.bytes().all(|byte| byte.is_ascii_digit());
        (is_app_id && !name.is_empty()).then_some(tail)
    }

    /// The name without its AppId, or the whole name where it has none.
    #[must_use]
    pub fn short_name(&self) -> &str {
        match self.app_id() {
            Some(app_id) => &self.0[..self.0.len() - app_id.len() - 1],
            None => &self.0,
        }
    }

    /// The same name followed by the account's AppId.
    ///
    /// # Errors
    /// The result may be no valid bucket name (too long, or an AppId that is no number).
    pub fn with_app_id(&self, app_id: &str) -> Result<Self, InvalidValue> {
        format!("{}-{app_id}", self.0).parse()
    }
}

impl ObjectKey {
    /// Reads an entry of `CosPaths`, which carries one leading slash that is not part of the key
    /// (API page 213/73474, response example).
    ///
    /// # Errors
    /// What is left may be no valid key.
    pub fn from_cos_path(path: &str) -> Result<Self, InvalidValue> {
        path.strip_prefix('/').unwrap_or(path).parse()
    }

    /// The last segment: the local name of a downloaded file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// The number that `ExportImages` returns. A label for people: no public call takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The formats that the exporter writes (API page 213/73474, `ExportFormat`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The disk byte for byte.
    #[default]
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// Virtual PC's format.
    Vhd,
    /// VMware's format.
    Vmdk,
}

impl ImageFormat {
    /// Every format.
    pub const ALL: &[Self] = &[Self::Raw, Self::Qcow2, Self::Vhd, Self::Vmdk];

    /// The file name extension, which is also how people write the format.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
        }
    }

    /// The value of `ExportFormat`.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::Raw => "RAW",
            Self::Qcow2 => "QCOW2",
            Self::Vhd => "VHD",
            Self::Vmdk => "VMDK",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.extension())
    }
}

impl FromStr for ImageFormat {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .iter()
            .copied()
            .find(|format| format.extension() == lower)
            .ok_or_else(|| {
                InvalidValue::new(
                    "export format",
                    text,
                    "the exporter writes raw, qcow2, vhd and vmdk",
                    "raw",
                )
            })
    }
}

fn check_tagged(
    text: &str,
    what: &'static str,
    tag: &str,
    example: &'static str,
) -> Result<(), InvalidValue> {
    let refuse = |problem: String| Err(InvalidValue::new(what, text, problem, example));
    let Some(rest) = text.strip_prefix(tag) else {
        return refuse(format!("it must start with `{tag}`"));
    };
    if rest.is_empty() {
        return refuse(format!("nothing follows `{tag}`"));
    }
    if !rest
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return refuse(format!(
            "only lower-case letters and digits may follow `{tag}`"
        ));
    }
    if rest.len() > 64 {
        return refuse("it is too long".to_owned());
    }
    Ok(())
}

fn check_image_id(text: &str) -> Result<(), InvalidValue> {
    check_tagged(text, "image id", "img-", "img-72n9mi0y")
}

fn check_snapshot_id(text: &str) -> Result<(), InvalidValue> {
    check_tagged(text, "snapshot id", "snap-", "snap-fiux4bof")
}

fn check_export_id(text: &str) -> Result<(), InvalidValue> {
    check_tagged(text, "export id", "exp-", "exp-0v3k9c2m7q1x")
}

fn check_region(text: &str) -> Result<(), InvalidValue> {
    let refuse = |problem: &str| Err(InvalidValue::new("region", text, problem, "ap-guangzhou"));
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return refuse("a region code holds lower-case letters, digits and hyphens");
    }
    let well_joined = text.split('-').all(|part| !part.is_empty()) && text.contains('-');
    if !well_joined || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return refuse("a region code is an area and a place joined by a hyphen");
    }
    if text.len() > 40 {
        return refuse("it is too long");
    }
    Ok(())
}

fn check_storage_class(text: &str) -> Result<(), InvalidValue> {
    let is_class = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if text.is_empty() || text.len() > 40 || !text.bytes().all(is_class) {
        return Err(InvalidValue::new(
            "storage class",
            text,
            "it holds capital letters, digits and underscores",
            "STANDARD_IA",
        ));
    }
    Ok(())
}

fn check_bucket(text: &str) -> Result<(), InvalidValue> {
    let refuse = |problem: &str| {
        Err(InvalidValue::new(
            "bucket name",
            text,
            problem,
            "exports-1250000000",
        ))
    };
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.contains("://") {
        return refuse("it looks like an address; give the bucket's name alone");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return refuse("a bucket name holds lower-case letters, digits and hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return refuse("it starts or ends with a hyphen");
    }
    // A label of a host name ends at 63 bytes; COS is stricter, by a rule that counts the region.
    if text.len() > 63 {
        return refuse("it is longer than the 63 bytes of a host name's label");
    }
    Ok(())
}

fn key_problem(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > OBJECT_KEY_LIMIT_BYTES {
        Some("it is longer than the 850 bytes of an object key")
    } else if text.chars().any(char::is_control) {
        Some("it holds a control character")
    } else if !text.chars().all(is_printable) {
        Some("it holds a mark that reorders or hides text")
    } else if text.starts_with('/') {
        Some("it starts with a slash, which hides the object from most tools")
    } else if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        Some("it holds a `.` or `..` segment, which clients and proxies fold")
    } else {
        None
    }
}

fn check_object_key(text: &str) -> Result<(), InvalidValue> {
    match key_problem(text) {
        Some(problem) => Err(InvalidValue::new(
            "object key",
            text,
            problem,
            "p_img-72n9mi0y_system_snap-1.raw",
        )),
        None => Ok(()),
    }
}

fn check_prefix(text: &str) -> Result<(), InvalidValue> {
    match key_problem(text) {
        Some(problem) => Err(InvalidValue::new("prefix", text, problem, "backup-web01")),
        None => Ok(()),
    }
}

fn check_role_name(text: &str) -> Result<(), InvalidValue> {
    let refuse = |problem: &str| Err(InvalidValue::new("role name", text, problem, "CVM_QcsRole"));
    if text.is_empty() || text.len() > 128 {
        return refuse("it must have 1 to 128 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b))
    {
        return refuse("only letters, digits and `+=,.@-_` are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr>(values: &[&str]) {
        for value in values {
            assert!(value.parse::<T>().is_ok(), "`{value}` should be accepted");
        }
    }

    fn refuses<T: FromStr>(values: &[&str]) {
        for value in values {
            assert!(value.parse::<T>().is_err(), "`{value}` should be refused");
        }
    }

    #[test]
    fn image_ids_need_their_tag_and_lower_case() {
        accepts::<ImageId>(&[
            "img-72n9mi0y",
            "img-x",
            "img-linux001",
            "img-0123456789abcdef",
        ]);
        refuses::<ImageId>(&[
            "",
            "img-",
            "IMG-72n9mi0y",
            "img_72n9",
            "ami-1",
            "img-a b",
            "img-é",
            "img-a/b",
        ]);
    }

    #[test]
    fn regions_are_an_open_set_of_codes() {
        accepts::<Region>(&[
            "ap-guangzhou",
            "ap-shanghai-fsi",
            "ap-beijing-1",
            "xx-newplace",
        ]);
        refuses::<Region>(&[
            "",
            "guangzhou",
            "ap_guangzhou",
            "AP-guangzhou",
            "ap-",
            "-ap",
            "ap--x",
            "1-x",
            "ap-x.evil.example",
        ]);
    }

    #[test]
    fn bucket_names_know_an_app_id_by_its_ten_digits() {
        let app_id = |name: &str| {
            name.parse::<BucketName>()
                .expect(name)
                .app_id()
                .map(str::to_owned)
        };
        assert_eq!(app_id("b-1250000000").as_deref(), Some("1250000000"));
        assert_eq!(app_id("backup-20240101"), None);
        assert_eq!(app_id("backup-2024"), None);
        assert_eq!(app_id("1250000000"), None);
        accepts::<BucketName>(&["b", "b-1250000000", "0a"]);
        refuses::<BucketName>(&[
            "",
            "-b",
            "b-",
            "B",
            "b_c",
            "b.c",
            "cos://b",
            "b/c",
            &"b".repeat(64),
        ]);
    }

    #[test]
    fn keys_refuse_what_would_hide_or_fold() {
        accepts::<ObjectKey>(&["a", "a/b c/腾讯云.raw", "a//b", "...", &"k".repeat(850)]);
        refuses::<ObjectKey>(&[
            "",
            "/a",
            "a/../b",
            "..",
            "./a",
            "a\nb",
            "a\u{7f}",
            &"k".repeat(851),
        ]);
    }

    #[test]
    fn keys_and_prefixes_refuse_exactly_what_printing_would_strip() {
        for character in '\0'..=char::MAX {
            let text = format!("a{character}b");
            let is_kept = CloudText::new(&text) == *text;
            assert_eq!(text.parse::<ObjectKey>().is_ok(), is_kept, "{text:?}");
            assert_eq!(text.parse::<Prefix>().is_ok(), is_kept, "{text:?}");
        }
    }

    #[test]
    fn cos_paths_lose_exactly_one_leading_slash() {
        let key = ObjectKey::from_cos_path("/img-1_system_snap-1.raw").expect("valid path");
        assert_eq!(key.as_str(), "img-1_system_snap-1.raw");
        assert!(ObjectKey::from_cos_path("//a").is_err());
        assert!(ObjectKey::from_cos_path("/").is_err());
    }

    #[test]
    fn formats_are_read_in_either_case() {
        assert_eq!("QCOW2".parse(), Ok(ImageFormat::Qcow2));
        refuses::<ImageFormat>(&["", "iso", "raw "]);
    }

    #[test]
    fn a_refusal_names_the_value_the_problem_and_an_example() {
        let refusal = "ami-1".parse::<ImageId>().expect_err("an Amazon id");
        assert_eq!(
            refusal.to_string(),
            "`ami-1` is not an image id: it must start with `img-` (example: `img-72n9mi0y`)"
        );
    }
}
