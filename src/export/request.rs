//! What a person asks for, and the pure prediction of the files that the exporter will write.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cloud::actions::cvm::ExportImages;
use crate::export::record::CopiedFrom;
use crate::model::{
    BucketName, CloudText, ImageFormat, ImageId, InvalidValue, ObjectKey, Prefix, Region, RoleName,
    SnapshotId,
};

/// One export, unchecked against the cloud.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The image.
    pub image_id: ImageId,
    /// The region of the image, and of the bucket.
    pub region: Region,
    /// The bucket, with its AppId.
    pub bucket: BucketName,
    /// The start of the files' names; `None` for names without one.
    pub prefix: Option<Prefix>,
    /// The prefix as it was written, with its placeholders.
    pub prefix_template: Option<CloudText>,
    /// The format of the files.
    pub format: ImageFormat,
    /// Which of the image's disks are exported.
    pub scope: DiskScope,
    /// The role that CVM takes on to write to the bucket.
    pub role: RoleName,
    /// The image that this one is a copy of, made for this export.
    pub copied_from: Option<CopiedFrom>,
}

/// Which disks of an image are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskScope {
    /// The system disk and every data disk.
    #[default]
    WholeMachine,
    /// The system disk alone.
    SystemDiskOnly,
}

/// What makes two requests the same export: they would write the same files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The bucket, with its AppId.
    pub bucket: BucketName,
    /// The image.
    pub image_id: ImageId,
    /// The start of the files' names.
    pub prefix: Option<Prefix>,
    /// The format of the files.
    pub format: ImageFormat,
}

impl Identity {
    /// A stable name of 32 hexadecimal digits, for lock files and export ids.
    #[must_use]
    pub fn hash(&self) -> String {
        let prefix = self.prefix.as_ref().map_or("", Prefix::as_str);
        // A prefix may hold anything but control characters, so a line break separates safely.
        let text = format!(
            "{}\n{}\n{prefix}\n{}",
            self.bucket, self.image_id, self.format
        );
        hex::encode(&Sha256::digest(text)[..16])
    }
}

impl ExportRequest {
    /// The image that the person asked for.
    #[must_use]
    pub fn asked_image(&self) -> &ImageId {
        match &self.copied_from {
            Some(source) => &source.image_id,
            None => &self.image_id,
        }
    }

    /// What makes this export the same as another one.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            bucket: self.bucket.clone(),
            image_id: self.image_id.clone(),
            prefix: self.prefix.clone(),
            format: self.format,
        }
    }

    /// The key of the record that is kept beside the exported files.
    ///
    /// # Errors
    /// The prefix may be too long to be followed by anything.
    pub fn claim_key(&self) -> Result<ObjectKey, InvalidValue> {
        claim_key(self.prefix.as_ref(), &self.image_id)
    }

    /// The files that the exporter writes for `disks`, under both naming rules.
    ///
    /// # Errors
    /// The prefix may be too long for the names to be valid keys.
    pub fn predict_files(&self, disks: &[Disk]) -> Result<Vec<ExpectedFile>, InvalidValue> {
        let wanted = disks
            .iter()
            .filter(|disk| self.scope == DiskScope::WholeMachine || disk.role == DiskRole::System);
        let mut devices = DeviceNames::default();
        wanted
            .map(|disk| {
                let device = devices.next(disk.role);
                let api = self.name(&format!(
                    "{}_{}_{}",
                    self.image_id, disk.role, disk.snapshot_id
                ));
                let console = self.name(&device);
                Ok(ExpectedFile {
                    disk: disk.role,
                    device,
                    snapshot_id: Some(disk.snapshot_id.clone()),
                    size_gib: Some(disk.size_gib),
                    names: vec![api.parse()?, console.parse()?],
                })
            })
            .collect()
    }

    /// The call that starts the export.
    #[must_use]
    pub fn to_call(&self) -> ExportImages {
        ExportImages {
            bucket_name: self.bucket.clone(),
            image_ids: vec![self.image_id.clone()],
            export_format: self.format.wire_name(),
            file_name_prefix_list: self.prefix.clone().map(|prefix| vec![prefix]),
            only_export_root_disk: self.scope == DiskScope::SystemDiskOnly,
            role_name: self.role.clone(),
        }
    }

    fn name(&self, stem: &str) -> String {
        join_prefix(
            self.prefix.as_ref(),
            &format!("{stem}.{}", self.format.extension()),
        )
    }
}

/// The key of the record that is kept beside the files of `image_id` under `prefix`.
///
/// # Errors
/// The prefix may be too long to be followed by anything.
pub(crate) fn claim_key(
    prefix: Option<&Prefix>,
    image_id: &ImageId,
) -> Result<ObjectKey, InvalidValue> {
    join_prefix(prefix, &format!("{image_id}{CLAIM_SUFFIX}")).parse()
}

/// What follows the image id in the key of a lease, before the format.
pub(crate) const LEASE_INFIX: &str = ".cvm-export.lease-";

/// What follows the image id in the key of a claim.
pub(crate) const CLAIM_SUFFIX: &str = ".cvm-export.json";

fn join_prefix(prefix: Option<&Prefix>, rest: &str) -> String {
    match prefix {
        Some(prefix) => format!("{prefix}_{rest}"),
        None => rest.to_owned(),
    }
}

/// Whether a disk holds the system or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskRole {
    /// The disk that the machine boots from.
    System,
    /// Any other disk.
    Data,
}

impl fmt::Display for DiskRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::System => "system",
            Self::Data => "data",
        })
    }
}

/// A disk of an image, as its snapshot describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// System or data.
    pub role: DiskRole,
    /// The snapshot that holds the disk's content.
    pub snapshot_id: SnapshotId,
    /// The size of the disk in GiB.
    pub size_gib: u64,
}

/// A file that an export is expected to write, under whichever of its names it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedFile {
    /// System or data.
    pub disk: DiskRole,
    /// The disk's name by the console's rule: `xvda`, then `xvdb` and on for data disks.
    pub device: String,
    /// The snapshot, where the image's description is known.
    pub snapshot_id: Option<SnapshotId>,
    /// The size of the disk in GiB, where it is known.
    pub size_gib: Option<u64>,
    /// The names under which it may appear, the most trusted first: what `CosPaths` said or the
    /// API's rule (page 213/73474), then the console's rule (page 213/46841).
    pub names: Vec<ObjectKey>,
}

/// Hands out `xvda` to the system disk and `xvdb`, `xvdc`, … to data disks.
#[derive(Debug, Default)]
pub(crate) struct DeviceNames {
    data_disks: u32,
}

impl DeviceNames {
    pub(crate) fn next(&mut self, role: DiskRole) -> String {
        let position = match role {
            DiskRole::System => 0,
            DiskRole::Data => {
                self.data_disks += 1;
                self.data_disks
            }
        };
        // The guide shows letters only; past `xvdz` any name serves, as no such image is exported.
        match u8::try_from(position)
            .ok()
            .filter(|position| *position < 26)
        {
            Some(position) => format!("xvd{}", char::from(b'a' + position)),
            None => format!("xvd{position}"),
        }
    }
}

/// A prefix with placeholders: `{image_id}`, `{image_name}`, `{date}` and `{time}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixTemplate(String);

impl PrefixTemplate {
    /// The template as it was written, for the record.
    #[must_use]
    pub fn as_written(&self) -> CloudText {
        CloudText::new(&self.0)
    }

    /// Whether the image's name must be known to expand it.
    #[must_use]
    pub fn needs_image_name(&self) -> bool {
        self.0.contains("{image_name}")
    }

    /// Whether images of one run get different prefixes.
    #[must_use]
    pub fn differs_per_image(&self) -> bool {
        self.0.contains("{image_id}") || self.needs_image_name()
    }

    /// The prefix, where it is the same for every image and at every time.
    #[must_use]
    pub fn literal(&self) -> Option<Prefix> {
        (!self.0.contains('{')).then(|| self.0.parse().ok())?
    }

    /// Fills the placeholders in. `date` and `time` are UTC, as `20261124` and `142255`.
    ///
    /// # Errors
    /// The result may be no valid start of an object key.
    pub fn expand(
        &self,
        image_id: &ImageId,
        image_name: Option<&CloudText>,
        started: chrono::DateTime<chrono::Utc>,
    ) -> Result<Prefix, InvalidValue> {
        let image_name = image_name.map_or("", CloudText::as_str);
        // A slash in a name would make a folder, and a blank breaks `for f in $(…)`.
        let image_name = image_name.replace(|c: char| c == '/' || c.is_whitespace(), "-");
        self.0
            .replace("{image_id}", image_id.as_str())
            .replace("{date}", &started.format("%Y%m%d").to_string())
            .replace("{time}", &started.format("%H%M%S").to_string())
            .replace("{image_name}", &image_name)
            .parse()
    }
}

impl std::str::FromStr for PrefixTemplate {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse = |problem: &str| {
            Err(InvalidValue::new(
                "prefix",
                text,
                problem,
                "backup-{image_id}-{date}",
            ))
        };
        text.parse::<Prefix>()?;
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let placeholder = &rest[open..];
            let known = ["{image_id}", "{image_name}", "{date}", "{time}"];
            let Some(found) = known.iter().find(|known| placeholder.starts_with(**known)) else {
                return refuse("braces hold one of {image_id}, {image_name}, {date} and {time}");
            };
            rest = &placeholder[found.len()..];
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::export::record::Record;

    fn request(prefix: Option<&str>) -> ExportRequest {
        ExportRequest {
            image_id: "img-1".parse().expect("image id"),
            region: "ap-guangzhou".parse().expect("region"),
            bucket: "b-1250000000".parse().expect("bucket"),
            prefix: prefix.map(|prefix| prefix.parse().expect("prefix")),
            format: ImageFormat::Raw,
            scope: DiskScope::WholeMachine,
            role: "CVM_QcsRole".parse().expect("role"),
            prefix_template: None,
            copied_from: None,
        }
    }

    fn disks() -> Vec<Disk> {
        [
            (DiskRole::System, "snap-s"),
            (DiskRole::Data, "snap-d1"),
            (DiskRole::Data, "snap-d2"),
        ]
        .into_iter()
        .map(|(role, snapshot)| Disk {
            role,
            snapshot_id: snapshot.parse().expect("snapshot id"),
            size_gib: 50,
        })
        .collect()
    }

    fn names(request: &ExportRequest) -> Vec<String> {
        let files = request.predict_files(&disks()).expect("valid names");
        files
            .iter()
            .flat_map(|file| file.names.iter().map(ToString::to_string))
            .collect()
    }

    #[test]
    fn files_are_predicted_under_both_naming_rules() {
        assert_eq!(
            names(&request(Some("p"))),
            [
                "p_img-1_system_snap-s.raw",
                "p_xvda.raw",
                "p_img-1_data_snap-d1.raw",
                "p_xvdb.raw",
                "p_img-1_data_snap-d2.raw",
                "p_xvdc.raw",
            ]
        );
        assert_eq!(
            names(&request(None))[..2],
            ["img-1_system_snap-s.raw", "xvda.raw"]
        );
    }

    #[test]
    fn a_system_disk_export_expects_one_file() {
        let request = ExportRequest {
            scope: DiskScope::SystemDiskOnly,
            ..request(Some("p"))
        };
        assert_eq!(names(&request), ["p_img-1_system_snap-s.raw", "p_xvda.raw"]);
    }

    #[test]
    fn a_prefix_that_leaves_no_room_for_the_names_is_refused() {
        let request = request(Some(&"p".repeat(840)));
        assert!(request.predict_files(&disks()).is_err());
    }

    #[test]
    fn a_record_keeps_the_prefix_as_it_was_written() {
        let template: PrefixTemplate = "nightly/{image_name}-{date}".parse().expect("a template");
        let request = ExportRequest {
            prefix_template: Some(template.as_written()),
            ..request(Some("nightly/web01-20261124"))
        };
        let record = Record::begin(&request, Vec::new(), DateTime::UNIX_EPOCH);
        let read = Record::from_json(&record.to_json()).expect("a record");
        let written = read.prefix_template.as_ref().map(CloudText::as_str);
        assert_eq!(written, Some("nightly/{image_name}-{date}"));

        // One of an earlier version has none.
        let mut earlier: serde_json::Value =
            serde_json::from_slice(&record.to_json()).expect("JSON");
        let fields = earlier.as_object_mut().expect("an object");
        fields.remove("prefix_template").expect("it was there");
        let earlier = Record::from_json(earlier.to_string().as_bytes()).expect("a record");
        assert_eq!(earlier.prefix_template, None);
        assert!(!String::from_utf8_lossy(&earlier.to_json()).contains("prefix_template"));
    }

    #[test]
    fn templates_expand_and_unknown_placeholders_are_refused() {
        let started = chrono::DateTime::from_timestamp(1_795_530_175, 0).expect("a time");
        let template: PrefixTemplate = "x/{image_name}-{image_id}-{date}-{time}"
            .parse()
            .expect("template");
        let image_id = "img-1".parse().expect("image id");
        let prefix = template.expand(&image_id, Some(&"web 01/a {date}".into()), started);
        assert_eq!(
            prefix.expect("prefix").as_str(),
            "x/web-01-a-{date}-img-1-20261124-142255"
        );
        for bad in ["{name}", "a}", "{", "{{image_id}}", "", "/p", "a/../b"] {
            assert!(
                bad.parse::<PrefixTemplate>().is_err(),
                "`{bad}` should be refused"
            );
        }
    }

    #[test]
    fn identities_differ_when_any_part_differs() {
        let first = request(Some("p")).identity();
        assert_eq!(first.hash(), request(Some("p")).identity().hash());
        assert_ne!(first.hash(), request(Some("q")).identity().hash());
        assert_ne!(first.hash(), request(None).identity().hash());
        assert_eq!(first.hash().len(), 32);
    }
}
