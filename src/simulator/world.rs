//! What exists in the simulated account, and the knobs that tests turn.
//!
//! The world has no clockwork. Whoever looks at it first calls [`World::settle`], which brings it to
//! the present: exports whose time has come are completed, in the order in which they ended. Between
//! two looks nothing moves, so what is seen depends on elapsed time only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::auth::Credentials;
use crate::clock::{self, Stopwatch};
use crate::model::{ImageId, Region, SnapshotId, TaskId};

use super::Naming;
use super::copies::ImageCopy;
use super::disk::Disk;
use super::export::DiskExport;
use super::keys::Keys;
use super::presets::{self, Preset};
use super::storage::{Bucket, Object, Upload};

/// Bytes in the unit in which the cloud counts disks.
pub(super) const GIB: u64 = 1 << 30;

/// Which place a disk has in its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskUsage {
    /// The disk that the machine starts from.
    System,
    /// Any other disk.
    Data,
}

impl DiskUsage {
    /// The value of `DiskUsage` in `SnapshotSet`.
    pub(super) const fn wire_name(self) -> &'static str {
        match self {
            Self::System => "SYSTEM_DISK",
            Self::Data => "DATA_DISK",
        }
    }

    /// The word in the names of exported files.
    pub(super) const fn file_word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Data => "data",
        }
    }
}

/// One disk of an image, which is a snapshot of the disk that it was made from.
#[derive(Clone, Debug)]
pub struct ImageDisk {
    /// Its place in the machine.
    pub usage: DiskUsage,
    /// Its snapshot.
    pub snapshot_id: SnapshotId,
    /// The size that the API tells.
    pub size_gib: u64,
    /// Whether the snapshot is encrypted; only `DescribeSnapshots` tells.
    pub encrypted: bool,
    content: std::sync::OnceLock<Disk>,
}

impl ImageDisk {
    /// A disk whose content is made up, with real partitions, when it is first needed.
    #[must_use]
    pub fn sample(usage: DiskUsage, snapshot_id: SnapshotId, size_gib: u64) -> Self {
        Self {
            usage,
            snapshot_id,
            size_gib,
            encrypted: false,
            content: std::sync::OnceLock::new(),
        }
    }

    /// A disk with this content, its size rounded up to whole GiB for the API.
    #[must_use]
    pub fn with_content(usage: DiskUsage, snapshot_id: SnapshotId, content: Disk) -> Self {
        let size_gib = content.size_bytes().div_ceil(GIB).max(1);
        Self {
            content: content.into(),
            ..Self::sample(usage, snapshot_id, size_gib)
        }
    }

    /// The same disk, with the same bytes, as another snapshot.
    pub(super) fn copied_as(&self, snapshot_id: SnapshotId) -> Self {
        Self {
            snapshot_id,
            content: self.content().into(),
            ..self.clone()
        }
    }

    /// The bytes that an export writes.
    #[must_use]
    pub fn content(&self) -> Disk {
        let make = || {
            Disk::sample(
                self.size_gib * GIB,
                self.snapshot_id.as_str(),
                self.usage.file_word(),
            )
        };
        self.content.get_or_init(make).clone()
    }
}

/// An image in one region.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// The region where it can be seen and exported.
    pub region: Region,
    /// `ImageName`.
    pub name: String,
    /// `ImageDescription`.
    pub description: String,
    /// `OsName`.
    pub os_name: String,
    /// `Platform`: `Ubuntu`, `Windows`, …
    pub platform: String,
    /// `Architecture`.
    pub architecture: String,
    /// `ImageType`: `PRIVATE_IMAGE`, `SHARED_IMAGE` or `PUBLIC_IMAGE`.
    pub image_type: String,
    /// `ImageState`: `NORMAL`, `CREATING`, …
    pub state: String,
    /// `LicenseType`.
    pub license_type: String,
    /// `CreatedTime`.
    pub created: DateTime<Utc>,
    /// `Tags`.
    pub tags: Vec<(String, String)>,
    /// The system disk and the data disks, in order.
    pub disks: Vec<ImageDisk>,
    /// A code that `ExportImages` answers for this image for reasons that no other call shows, such
    /// as `UnsupportedOperation.MarketImageExportUnsupported`.
    pub refusal: Option<String>,
}

impl Image {
    /// A custom Ubuntu image of one disk of `size_gib`.
    #[must_use]
    pub fn linux(id: ImageId, region: Region, size_gib: u64) -> Self {
        let disk = ImageDisk::sample(DiskUsage::System, derived_snapshot_id(&id, 0), size_gib);
        Self {
            name: format!("sample-{}", id.as_str().trim_start_matches("img-")),
            id,
            region,
            description: String::new(),
            os_name: "Ubuntu Server 22.04 LTS 64bit".to_owned(),
            platform: "Ubuntu".to_owned(),
            architecture: "x86_64".to_owned(),
            image_type: "PRIVATE_IMAGE".to_owned(),
            state: "NORMAL".to_owned(),
            license_type: "TencentCloud".to_owned(),
            created: DateTime::from_timestamp(1_735_689_600, 0).unwrap_or_default(),
            tags: Vec::new(),
            disks: vec![disk],
            refusal: None,
        }
    }

    /// Adds a data disk of `size_gib` with made-up content.
    #[must_use]
    pub fn with_data_disk(mut self, size_gib: u64) -> Self {
        let snapshot_id = derived_snapshot_id(&self.id, self.disks.len());
        let disk = ImageDisk::sample(DiskUsage::Data, snapshot_id, size_gib);
        self.disks.push(disk);
        self
    }

    /// Replaces the system disk by `content`.
    #[must_use]
    pub fn with_system_disk(mut self, content: Disk) -> Self {
        let snapshot_id = derived_snapshot_id(&self.id, 0);
        let disk = ImageDisk::with_content(DiskUsage::System, snapshot_id, content);
        match self.disks.first_mut() {
            Some(first) => *first = disk,
            None => self.disks.push(disk),
        }
        self
    }
}

/// A snapshot id that depends on nothing but the image and the disk's place in it.
#[must_use]
pub fn derived_snapshot_id(image_id: &ImageId, disk: usize) -> SnapshotId {
    // FNV-1a spreads short texts well enough and needs no state.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in format!("{image_id}/{disk}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut text = "snap-".to_owned();
    for _ in 0..8 {
        let digit = u32::try_from(hash % 36).unwrap_or_default();
        text.push(char::from_digit(digit, 36).unwrap_or('0'));
        hash /= 36;
    }
    text.parse()
        .expect("base 36 makes lower-case letters and digits")
}

/// A policy that hangs on a role.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `QCS` for presets, `User` for the account's own.
    pub policy_type: String,
    /// Whether it grants writing into every bucket, whatever its document says; the API does not show
    /// this.
    pub writes: bool,
}

impl Policy {
    /// A preset, which grants what its document in [`World::presets`] says.
    #[must_use]
    pub fn preset(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            policy_type: "QCS".to_owned(),
            writes: false,
        }
    }

    /// A policy of the account's own, which grants what its document in [`World::policies`] says.
    #[must_use]
    pub fn custom(name: &str) -> Self {
        Self {
            policy_type: "User".to_owned(),
            ..Self::preset(name)
        }
    }
}

/// A policy of the account's own, with what it says.
#[derive(Clone, Debug)]
pub struct CustomPolicy {
    /// Its name.
    pub name: String,
    /// What its maker wrote about it.
    pub description: String,
    /// What it allows and denies, as JSON text.
    pub document: String,
}

/// A CAM role.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What its maker wrote about it.
    pub description: String,
    /// The trust document as JSON text.
    pub trust: String,
    /// The policies that hang on it.
    pub policies: Vec<Policy>,
}

impl Role {
    /// The role for exports: trusts CVM, may write to every bucket.
    #[must_use]
    pub fn for_exports() -> Self {
        Self {
            name: "CVM_QcsRole".to_owned(),
            description: String::new(),
            trust: Self::trust_in("cvm.qcloud.com"),
            policies: vec![Policy {
                name: "QcloudCOSDataFullControl".to_owned(),
                policy_type: "QCS".to_owned(),
                writes: true,
            }],
        }
    }

    /// The same role as the console's tick makes it: what it may do is in the document of a preset whose
    /// name no client knows.
    #[must_use]
    pub fn by_console() -> Self {
        Self {
            policies: vec![Policy::preset(Preset::BY_CONSOLE)],
            ..Self::for_exports()
        }
    }

    /// A role that everybody of the account `uin` may take on.
    #[must_use]
    pub fn for_callers(name: &str, uin: &str) -> Self {
        let trust = serde_json::json!({
            "version": "2.0",
            "statement": [{
                "action": "name/sts:AssumeRole",
                "effect": "allow",
                "principal": {"qcs": [format!("qcs::cam::uin/{uin}:root")]},
            }],
        });
        Self {
            name: name.to_owned(),
            description: String::new(),
            trust: trust.to_string(),
            policies: Vec::new(),
        }
    }

    /// A trust document for one service.
    #[must_use]
    pub fn trust_in(service: &str) -> String {
        serde_json::json!({
            "version": "2.0",
            "statement": [{
                "action": "name/sts:AssumeRole",
                "effect": "allow",
                "principal": {"service": [service]},
            }],
        })
        .to_string()
    }

    /// Whether the trust document lets CVM assume the role. Both spellings of CVM occur in Tencent's
    /// documents; which one the exporter checks is not published.
    pub(super) fn trusts_cvm(&self) -> bool {
        self.trusts("service", is_cvm)
    }

    /// Whether the trust document lets the caller of the account `uin` assume the role.
    pub(super) fn trusts_account(&self, uin: &str) -> bool {
        let root = format!("qcs::cam::uin/{uin}:root");
        self.trusts("qcs", |principal| principal == root)
    }

    fn trusts(&self, kind: &str, is_meant: impl Fn(&str) -> bool) -> bool {
        let Ok(document) = serde_json::from_str::<serde_json::Value>(&self.trust) else {
            return false;
        };
        let statements = document["statement"].as_array().into_iter().flatten();
        statements
            .filter(|statement| statement["effect"] == "allow")
            .any(|statement| match &statement["principal"][kind] {
                serde_json::Value::String(principal) => is_meant(principal),
                serde_json::Value::Array(principals) => principals
                    .iter()
                    .any(|principal| principal.as_str().is_some_and(&is_meant)),
                _ => false,
            })
    }
}

/// Roles and policies as they were before a change that has not taken effect yet.
#[derive(Debug)]
pub(super) struct EarlierAccess {
    /// The age of the world at which the change takes effect.
    until: Duration,
    roles: Vec<Role>,
    policies: Vec<CustomPolicy>,
}

fn is_cvm(service: &str) -> bool {
    matches!(service, "cvm.qcloud.com" | "cvm.cloud.tencent.com")
}

/// How a dry run that would succeed is answered; the documentation does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRunAnswer {
    /// An ordinary body, with the paths that an export would write and task 0.
    Accepted,
    /// The error `DryRunOperation`, as elsewhere on the platform.
    #[default]
    Error,
}

/// Exports that begin and then vanish without a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExportFailure {
    /// The part of its time after which the upload is aborted, from 0 to 1.
    pub at_fraction: f64,
}

/// The simulated account.
#[derive(Debug)]
pub struct World {
    /// The account's AppId, the tail of its bucket names.
    pub app_id: String,
    /// The account's number.
    pub uin: String,
    /// The images of all regions.
    pub images: Vec<Image>,
    /// The roles.
    pub roles: Vec<Role>,
    /// The account's own policies.
    pub policies: Vec<CustomPolicy>,
    /// The presets that can be attached and read.
    pub presets: Vec<Preset>,
    /// How long after a call of CAM its change is seen, by other calls and by the exporter.
    pub access_delay: Option<Duration>,
    /// The buckets by full name.
    pub buckets: BTreeMap<String, Bucket>,
    /// How many exports may run at the same time.
    pub task_limit: usize,
    /// Exports of others in the same account, which count against the limit and never end.
    pub other_tasks: usize,
    /// The rule by which exported files are really named.
    pub naming: Naming,
    /// How much faster than the cloud's time runs for exports that start from now on.
    pub speed: f64,
    /// The duration in real seconds of exports that start from now on, whatever their size and the
    /// speed.
    pub export_seconds: Option<f64>,
    /// The duration in real seconds of copies of images that are started from now on, whatever their size
    /// and the speed.
    pub copy_seconds: Option<f64>,
    /// Lets copies of images that are started from now on end as `CREATEFAILED`.
    pub copies_fail: bool,
    /// How many custom images there may be in each region.
    pub image_quota: usize,
    /// How many buckets there may be.
    pub bucket_limit: usize,
    /// Snapshots whose image was deleted without them.
    pub snapshots_left: Vec<SnapshotId>,
    /// Lets exports vanish that are started from now on.
    pub export_failure: Option<ExportFailure>,
    /// API actions and COS operations, as the call log names them, that the caller has no right to.
    pub denied: BTreeSet<String>,
    /// The answer to a dry run that would succeed.
    pub dry_run_answer: DryRunAnswer,
    /// Whether the account may export images at all.
    pub feature_enabled: bool,
    /// How long after its creation an object is missing from listings.
    pub listing_delay: Option<Duration>,
    /// Whether running exports show as multipart uploads.
    pub uploads_visible: bool,
    /// Whether `x-cos-forbid-overwrite` is obeyed.
    pub forbid_overwrite_honoured: bool,
    /// How far the server's clock is ahead of this machine's.
    pub clock_offset_seconds: i64,
    /// Whether objects lack their CRC-64, like those from before the feature.
    pub crc_missing: bool,
    /// The storage class of objects that exports create.
    pub storage_class: String,
    /// Whether the documented rate limits of the API are kept.
    pub rate_limits_kept: bool,
    /// How temporary keys are handed out.
    pub keys: Keys,
    /// What is still seen of roles and policies, the earliest first.
    pub(super) earlier_access: Vec<EarlierAccess>,
    /// Every pair of keys that is good; the first is the caller's own.
    pub(super) accepted: Vec<Credentials>,
    /// The copies of images that are being made.
    pub(super) copies: Vec<ImageCopy>,
    /// The exports that were ever started, in order.
    pub(super) exports: Vec<DiskExport>,
    pub(super) next_task: u64,
    running_since: Stopwatch,
}

impl World {
    /// An empty account whose exports run `speed` times as fast as real ones.
    #[must_use]
    pub fn empty(naming: Naming, speed: f64) -> Self {
        Self {
            app_id: "1250000000".to_owned(),
            uin: "100000000001".to_owned(),
            images: Vec::new(),
            roles: Vec::new(),
            policies: Vec::new(),
            presets: presets::all(),
            access_delay: None,
            buckets: BTreeMap::new(),
            task_limit: 5,
            other_tasks: 0,
            naming,
            speed,
            export_seconds: None,
            copy_seconds: None,
            copies_fail: false,
            // The number on the page of SyncImages (213/15711).
            image_quota: 500,
            // Product page 436/14518.
            bucket_limit: 200,
            snapshots_left: Vec::new(),
            export_failure: None,
            denied: BTreeSet::new(),
            dry_run_answer: DryRunAnswer::default(),
            feature_enabled: true,
            listing_delay: None,
            uploads_visible: true,
            forbid_overwrite_honoured: true,
            clock_offset_seconds: 0,
            crc_missing: false,
            storage_class: "STANDARD".to_owned(),
            rate_limits_kept: true,
            keys: Keys::default(),
            earlier_access: Vec::new(),
            accepted: Vec::new(),
            copies: Vec::new(),
            exports: Vec::new(),
            // The number in the documentation's example.
            next_task: 105_591_590,
            running_since: Stopwatch::start(),
        }
    }

    /// Lets requests in that are signed with `credentials`, in place of those of the same id. Where they
    /// carry a token or an end, both are checked.
    pub fn accept(&mut self, credentials: Credentials) {
        self.accepted
            .retain(|known| known.secret_id != credentials.secret_id);
        self.accepted.push(credentials);
    }

    /// Adds an image, in place of one with the same id in the same region.
    pub fn add_image(&mut self, image: Image) {
        self.images
            .retain(|known| known.id != image.id || known.region != image.region);
        self.images.push(image);
    }

    /// The image of this id, in whichever region it is.
    pub fn image_mut(&mut self, id: &str) -> Option<&mut Image> {
        self.images.iter_mut().find(|image| image.id.as_str() == id)
    }

    pub(super) fn image_in(&self, region: &str, id: &str) -> Option<&Image> {
        self.images
            .iter()
            .find(|image| image.region.as_str() == region && image.id.as_str() == id)
    }

    /// The role of this name.
    pub fn role_mut(&mut self, name: &str) -> Option<&mut Role> {
        self.roles.iter_mut().find(|role| role.name == name)
    }

    /// Notes what roles and policies look like before a call changes them.
    pub(super) fn before_access_change(&mut self) {
        let now = self.elapsed();
        self.earlier_access.retain(|earlier| earlier.until > now);
        if let Some(delay) = self.access_delay {
            self.earlier_access.push(EarlierAccess {
                until: now.saturating_add(delay),
                roles: self.roles.clone(),
                policies: self.policies.clone(),
            });
        }
    }

    /// Roles and policies as they are seen now: without the changes that have not taken effect.
    pub(super) fn access(&self) -> (&[Role], &[CustomPolicy]) {
        let now = self.elapsed();
        let earlier = self.earlier_access.iter().find(|known| known.until > now);
        match earlier {
            Some(earlier) => (&earlier.roles, &earlier.policies),
            None => (&self.roles, &self.policies),
        }
    }

    /// Adds an empty bucket of this full name, in place of one of the same name.
    pub fn add_bucket(&mut self, name: &str, region: Region) {
        let bucket = Bucket::new(name, region, self.server_time());
        self.buckets.insert(name.to_owned(), bucket);
    }

    /// The bucket of this full name.
    pub fn bucket_mut(&mut self, name: &str) -> Option<&mut Bucket> {
        self.buckets.get_mut(name)
    }

    /// Puts an object into a bucket as if somebody had uploaded it just now; does nothing where the
    /// bucket does not exist.
    pub fn put_object(&mut self, bucket: &str, key: &str, content: impl Into<Bytes>) {
        let now = self.server_time();
        let object = Object::uploaded(content.into(), now, self.elapsed());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.store(key, object);
        }
    }

    /// Leaves an upload of one part in a bucket, as an exporter does that stops in the middle; does
    /// nothing where the bucket does not exist.
    pub fn leave_upload(&mut self, bucket: &str, key: &str, size_bytes: u64) {
        let upload = Upload::left(key, size_bytes, self.server_time());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.uploads.insert(upload.id.clone(), upload);
        }
    }

    /// The current object of this key.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<&Object> {
        self.buckets.get(bucket)?.objects.get(key)
    }

    /// The keys of a bucket, in order.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let bucket = self.buckets.get(bucket);
        bucket.map_or_else(Vec::new, |bucket| bucket.objects.keys().cloned().collect())
    }

    /// The tasks that `ExportImages` ever started, in order.
    #[must_use]
    pub fn started_tasks(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self.exports.iter().map(|export| export.task).collect();
        tasks.dedup();
        tasks
    }

    /// How many exports count against the limit now.
    #[must_use]
    pub fn running_tasks(&self) -> usize {
        let running: BTreeSet<u64> = self
            .exports
            .iter()
            .filter(|export| export.is_running)
            .map(|export| export.task.0)
            .collect();
        running.len() + self.other_tasks
    }

    /// The time by the server's clock.
    #[must_use]
    pub fn server_time(&self) -> DateTime<Utc> {
        let offset = TimeDelta::try_seconds(self.clock_offset_seconds).unwrap_or_default();
        let now = clock::now();
        now.checked_add_signed(offset).unwrap_or(now)
    }

    /// The real time since the world began, unmoved by clock corrections.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.running_since.elapsed()
    }
}
