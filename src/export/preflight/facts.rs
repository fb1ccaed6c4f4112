//! Every look-up that the checks need, made once and concurrently.
//!
//! Nothing is judged here. What may not be seen, and what gave no usable answer, stays apart from
//! what is not there.

mod role;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::IfExists;
use super::landing::LandingFacts;
use crate::cloud::Cloud;
use crate::cloud::actions::cam::RoleInfo;
use crate::cloud::actions::cbs::{DescribeSnapshots, Snapshot};
use crate::cloud::actions::cvm::{DescribeImages, ExportImagesDryRun, Image};
use crate::cloud::actions::region::DescribeRegions;
use crate::cloud::api::{ApiError, ApiErrorKind};
use crate::cloud::cos::{
    BucketEntry, BucketHead, CosError, CosErrorKind, ObjectMeta, UploadList, Versioning,
};
use crate::error::{Error, ErrorKind, one_line};
use crate::export::claim::CLAIM_LIMIT_BYTES;
use crate::export::cost::CostFacts;
use crate::export::image_copy::{CopyFacts, CopyPlan};
use crate::export::landing::Landing;
use crate::export::lease::Row;
use crate::export::leases::{CosLeases, ExportRow};
use crate::export::record::Record;
use crate::export::request::{Disk, DiskRole, ExpectedFile, ExportRequest};
use crate::export::resolve::Destination;
use crate::model::{CloudText, ImageId, ObjectKey, Prefix, Region};
pub use role::AttachedPolicy;
pub(crate) use role::{fetch_attached, fetch_documents, says_no_such_role};
pub(super) use role::{fetch_policies, fetch_role};

/// How long a look at the account may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known about one thing.
#[derive(Clone, Debug)]
pub enum Fact<T> {
    /// It was looked up.
    Known(T),
    /// The caller may not look, with the cloud's words.
    NotPermitted(String),
    /// There was no usable answer, with the reason.
    NoAnswer(String),
    /// Nobody looked: it depends on something that is not known, or the command does not need it.
    NotAsked,
}

impl<T> Fact<T> {
    /// The same knowledge of something that follows from the value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(change(value)),
            Self::NotPermitted(reason) => Fact::NotPermitted(reason),
            Self::NoAnswer(reason) => Fact::NoAnswer(reason),
            Self::NotAsked => Fact::NotAsked,
        }
    }

    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }

    /// What a run ends with that needs the value where it is not known: only a missing right is one.
    pub fn error_kind(&self) -> ErrorKind {
        match self {
            Self::NotPermitted(_) => ErrorKind::Permission,
            Self::Known(_) | Self::NoAnswer(_) | Self::NotAsked => ErrorKind::Unexpected,
        }
    }

    /// Why the value is not known.
    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::NotPermitted(reason) | Self::NoAnswer(reason) => Some(reason),
            Self::NotAsked => Some("not looked up"),
        }
    }
}

/// What the cloud says to a dry run of the export.
#[derive(Clone, Debug)]
pub enum DryRun {
    /// The export would be accepted.
    Accepted,
    /// The export would be refused.
    Refused {
        /// The cloud's code.
        code: CloudText,
        /// The cloud's words.
        message: CloudText,
    },
}

/// Everything that was looked up for one export.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is to be exported.
    pub request: ExportRequest,
    /// What the names of all files start with, where it is the same for every image and at every time.
    pub fixed_prefix: Option<Prefix>,
    /// The image; `Known(None)` when this region has none of that id.
    pub image: Fact<Option<Image>>,
    /// Where an image that is not in this region was found.
    pub found_in: Vec<Region>,
    /// The snapshots of the disks that would be exported.
    pub snapshots: Fact<Vec<Snapshot>>,
    /// The account's buckets.
    pub buckets: Fact<Vec<BucketEntry>>,
    /// The bucket; `Known(None)` when the region's host does not find it.
    pub bucket: Fact<Option<BucketHead>>,
    /// The role; `Known(None)` when the account has none of that name.
    pub role: Fact<Option<RoleInfo>>,
    /// The policies that are attached to the role.
    pub policies: Fact<Vec<AttachedPolicy>>,
    /// The files that the export would write.
    pub files: Result<Vec<ExpectedFile>, String>,
    /// What stands in the bucket under each watched name.
    pub objects: BTreeMap<ObjectKey, Fact<Option<ObjectMeta>>>,
    /// Unfinished uploads whose names start like the watched ones.
    pub uploads: Fact<UploadList>,
    /// Whether the bucket keeps versions; asked by a check alone.
    pub versioning: Fact<Versioning>,
    /// The newest record that earlier runs left in the bucket.
    pub claim: Fact<Option<Record>>,
    /// The leases of the export.
    pub(crate) row: RowFact,
    /// What the files under its names are, as far as that was asked.
    pub existing: Existing,
    /// What the cloud says to a dry run.
    pub dry_run: Fact<DryRun>,
    /// Exports that this machine's journal believes to be running.
    pub running_exports: usize,
    /// Where the files are to be fetched to; `None` when they are not.
    pub landing: Option<LandingFacts>,
    /// The copies that are made first; `None` where the image is exported as it is.
    pub copy: Option<CopyFacts>,
    /// What it costs; `None` where nobody asked.
    pub cost: Option<CostFacts>,
}

impl Facts {
    /// What is known of `request` when nothing was looked up.
    pub(crate) fn not_asked(request: ExportRequest) -> Self {
        Self {
            request,
            fixed_prefix: None,
            image: Fact::NotAsked,
            found_in: Vec::new(),
            snapshots: Fact::NotAsked,
            buckets: Fact::NotAsked,
            bucket: Fact::NotAsked,
            role: Fact::NotAsked,
            policies: Fact::NotAsked,
            files: Ok(Vec::new()),
            objects: BTreeMap::new(),
            uploads: Fact::NotAsked,
            versioning: Fact::NotAsked,
            claim: Fact::NotAsked,
            row: RowFact::NotAsked,
            existing: Existing::Nothing,
            dry_run: Fact::NotAsked,
            running_exports: 0,
            landing: None,
            copy: None,
            cost: None,
        }
    }

    /// Whether files that exist already are the result.
    pub(crate) fn is_reused(&self, if_exists: IfExists) -> bool {
        if_exists == IfExists::Reuse && matches!(self.existing, Existing::Exported(_))
    }
}

/// The leases of an export, as a look-up found them.
#[derive(Clone, Debug)]
pub(crate) enum RowFact {
    /// They do not count, by `--no-claim`.
    NotAsked,
    /// All of them.
    Known(ExportRow),
    /// They could not be read, so nothing may be submitted.
    Unusable(RowTrouble),
}

/// Why the leases of an export could not be read.
#[derive(Clone, Debug)]
pub(crate) struct RowTrouble {
    kind: ErrorKind,
    message: String,
    cause: String,
    hint: Option<String>,
    request_id: Option<String>,
}

impl RowTrouble {
    fn of(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            cause: error.causes().join(": "),
            hint: error.hint().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
        }
    }

    /// The error that a submit ends with.
    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
            .with_optional_hint(self.hint.clone())
            .with_request_id(self.request_id.clone())
            .with_source(std::io::Error::other(self.cause.clone()))
    }

    fn evidence(&self) -> String {
        format!("{}: {}", self.message, self.cause)
    }
}

/// What the files under the names of an export are.
#[derive(Clone, Debug)]
pub enum Existing {
    /// There are none, or nobody asked.
    Nothing,
    /// The export that is asked for, complete or still running.
    Exported(Box<Record>),
    /// Files that are not proven to be this export; the text says what is wrong.
    Strange(String),
}

/// What is already known, and what else is wanted, when the look-ups begin.
#[derive(Clone, Debug)]
pub(crate) struct GatherOptions {
    /// The account's buckets, from finding the bucket's region.
    pub buckets: Fact<Vec<BucketEntry>>,
    /// The image, where the prefix had to know its name.
    pub image: Fact<Option<Image>>,
    /// What the names of all files start with, where that does not change.
    pub fixed_prefix: Option<Prefix>,
    /// Whether to ask the cloud for a dry run.
    pub server_dry_run: bool,
    /// Whether to ask whether the bucket keeps versions.
    pub versioning: bool,
    /// Whether to read the leases.
    pub claim: bool,
    /// Whether a bucket of this run has refused to replace a lease.
    pub is_guarded: Arc<AtomicBool>,
    /// Exports that this machine's journal believes to be running.
    pub running_exports: usize,
    /// Where the files are to be fetched to.
    pub landing: Option<Landing>,
    /// The copies that are made first, of an image that may be in another region.
    pub copy: Option<CopyPlan>,
}

/// Looks everything up for `request`.
///
/// # Errors
/// Credentials that the cloud does not accept end the gathering, as every other look-up would say
/// the same. Everything else becomes a fact.
pub(crate) async fn gather(
    cloud: &Cloud,
    request: &ExportRequest,
    options: GatherOptions,
) -> Result<Facts, Error> {
    let cos = cloud.cos();
    let (bucket, region) = (&request.bucket, &request.region);
    let image_region = match &options.copy {
        Some(plan) => &plan.region,
        None => region,
    };
    let image = async {
        Ok(match (&options.copy, options.image) {
            (Some(plan), _) => Fact::Known(Some(plan.image.clone())),
            (None, Fact::NotAsked) => fetch_image(cloud, region, &request.image_id).await?,
            (None, known) => known,
        })
    };
    let image_and_after = async {
        // Rule 2 of the leases: the row, and then the files.
        let row = read_row(cloud, request, &options.is_guarded, options.claim);
        let (row, image): (RowFact, Fact<Option<Image>>) = tokio::try_join!(row, image)?;
        let (files, disks) = predict(request, &image);
        let snapshot_ids: Vec<_> = disks.iter().map(|disk| disk.snapshot_id.clone()).collect();
        let names: Vec<ObjectKey> = files
            .iter()
            .flatten()
            .flat_map(|file| file.names.clone())
            .collect();
        let (snapshots, objects, found_in) = tokio::try_join!(
            async {
                if snapshot_ids.is_empty() {
                    return Ok(Fact::NotAsked);
                }
                let limit = Some(100);
                let call = DescribeSnapshots {
                    snapshot_ids,
                    limit,
                };
                let answer = cloud.call(Some(image_region), &call).await;
                api_fact(answer.map(|answer| answer.value.snapshot_set))
            },
            async {
                let looks = names.into_iter().map(|name| async {
                    let fact = cos_fact(cos.head_object(bucket, region, &name, None).await)?;
                    Ok::<_, Error>((name, fact))
                });
                Ok(futures_util::future::try_join_all(looks)
                    .await?
                    .into_iter()
                    .collect())
            },
            async {
                match image {
                    Fact::Known(None) => find_elsewhere(cloud, region, &request.image_id).await,
                    _ => Ok(Vec::new()),
                }
            },
        )?;
        Ok::<_, Error>((row, image, files, snapshots, objects, found_in))
    };
    let buckets = async {
        match options.buckets {
            Fact::NotAsked => cos_fact(cos.list_buckets().await),
            known => Ok(known),
        }
    };
    let upload_prefix = request
        .prefix
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let needs_right = !options.claim && options.landing.is_some();
    let versioning = async {
        if options.versioning {
            cos_fact(cos.get_versioning(bucket, region).await)
        } else {
            Ok(Fact::NotAsked)
        }
    };
    let dry_run = async {
        if options.server_dry_run {
            ask_for_dry_run(cloud, request).await
        } else {
            Ok(Fact::NotAsked)
        }
    };
    let copy = async {
        Ok(match &options.copy {
            Some(plan) => Some(CopyFacts::gather(cloud, plan.clone()).await),
            None => None,
        })
    };
    let (
        buckets,
        (row, image, files, snapshots, objects, found_in),
        bucket_head,
        uploads,
        role,
        policies,
        right,
        versioning,
        dry_run,
        copy,
    ) = tokio::try_join!(
        buckets,
        image_and_after,
        async { existing(cos.head_bucket(bucket, region).await) },
        async { cos_fact(cos.list_uploads(bucket, region, &upload_prefix, None).await) },
        fetch_role(cloud, request),
        fetch_policies(cloud, request),
        read_right(cloud, request, needs_right),
        versioning,
        dry_run,
        copy,
    )?;
    let claim = newest_record(&row);
    let right = match &row {
        RowFact::NotAsked => right,
        _ => claim.clone().map(drop),
    };
    let landing = options
        .landing
        .map(|landing| LandingFacts::gather(landing, request, &files, right, cos.network()));
    Ok(Facts {
        request: request.clone(),
        fixed_prefix: options.fixed_prefix,
        image,
        found_in,
        snapshots,
        buckets,
        bucket: bucket_head,
        role,
        policies,
        files,
        objects,
        uploads,
        versioning,
        claim,
        row,
        existing: Existing::Nothing,
        dry_run,
        running_exports: options.running_exports,
        landing,
        copy,
        cost: None,
    })
}

/// Looks `image_id` up in `region`; `Known(None)` when that region has no such image.
///
/// # Errors
/// Only for credentials that the cloud does not accept.
pub async fn fetch_image(
    cloud: &Cloud,
    region: &Region,
    image_id: &ImageId,
) -> Result<Fact<Option<Image>>, Error> {
    let call = DescribeImages::by_id(image_id.clone());
    match cloud.call(Some(region), &call).await {
        Ok(answer) => {
            let mut images = answer.value.image_set.into_iter();
            Ok(Fact::Known(
                images.find(|image| image.image_id == *image_id.as_str()),
            ))
        }
        Err(error) if error.code() == Some("InvalidImageId.NotFound") => Ok(Fact::Known(None)),
        Err(error) => api_fact(Err(error)),
    }
}

/// Looks up what concerns every export of the account, and every one to `destination` where there is
/// one. `request` names the role; its image is not asked for.
///
/// # Errors
/// As [`gather`].
pub(crate) async fn gather_destination(
    cloud: &Cloud,
    request: &ExportRequest,
    destination: Option<&Destination>,
    running_exports: usize,
) -> Result<Facts, Error> {
    let cos = cloud.cos();
    let (buckets, bucket, role, policies) = tokio::try_join!(
        in_time(async {
            match destination.map(|destination| &destination.buckets) {
                None | Some(Fact::NotAsked) => cos_fact(cos.list_buckets().await),
                Some(known) => Ok(known.clone()),
            }
        }),
        in_time(async {
            match destination {
                None => Ok(Fact::NotAsked),
                Some(Destination { bucket, region, .. }) => {
                    existing(cos.head_bucket(bucket, region).await)
                }
            }
        }),
        in_time(fetch_role(cloud, request)),
        in_time(fetch_policies(cloud, request)),
    )?;
    Ok(Facts {
        buckets,
        bucket,
        role,
        policies,
        running_exports,
        fixed_prefix: request.prefix.clone(),
        ..Facts::not_asked(request.clone())
    })
}

/// What `looking` finds within [`PATIENCE`]: who asks about the account may well do so because something
/// hangs, and wants to hear of the rest.
pub(super) async fn in_time<T>(
    looking: impl Future<Output = Result<Fact<T>, Error>>,
) -> Result<Fact<T>, Error> {
    let limit = PATIENCE.as_secs();
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| Ok(Fact::NoAnswer(format!("nothing came within {limit} s"))))
}

/// The files that the export of `image` would write, and the disks behind them.
fn predict(
    request: &ExportRequest,
    image: &Fact<Option<Image>>,
) -> (Result<Vec<ExpectedFile>, String>, Vec<Disk>) {
    let disks = match image {
        Fact::Known(Some(image)) => match disks(image) {
            Ok(disks) => disks,
            Err(problem) => return (Err(problem), Vec::new()),
        },
        _ => Vec::new(),
    };
    let files = request
        .predict_files(&disks)
        .map_err(|invalid| invalid.to_string());
    (files, disks)
}

/// The disks of `image`, in the order in which its snapshots are listed.
///
/// # Errors
/// The cloud's description may not make sense; the text says how.
pub fn disks(image: &Image) -> Result<Vec<Disk>, String> {
    let snapshots = image.snapshot_set.iter();
    snapshots
        .map(|snapshot| {
            let role = match snapshot.disk_usage.as_str() {
                "SYSTEM_DISK" => DiskRole::System,
                _ => DiskRole::Data,
            };
            let snapshot_id = snapshot.snapshot_id.as_str().parse().map_err(|invalid| {
                format!("the cloud's description of the image can't be right: {invalid}")
            })?;
            Ok(Disk {
                role,
                snapshot_id,
                size_gib: snapshot.disk_size,
            })
        })
        .collect()
}

/// Asks every region that CVM has for an image that is not in `region`.
pub(crate) async fn find_elsewhere(
    cloud: &Cloud,
    region: &Region,
    image_id: &ImageId,
) -> Result<Vec<Region>, Error> {
    let Ok(regions) = cloud.call(Some(region), &DescribeRegions::of_cvm()).await else {
        return Ok(Vec::new());
    };
    let others = regions.value.region_set.into_iter().filter_map(|entry| {
        let other: Region = entry.region.as_str().parse().ok()?;
        (other != *region).then_some(other)
    });
    let looks = others.map(|other| async {
        let found = matches!(
            fetch_image(cloud, &other, image_id).await,
            Ok(Fact::Known(Some(_)))
        );
        found.then_some(other)
    });
    Ok(futures_util::future::join_all(looks)
        .await
        .into_iter()
        .flatten()
        .collect())
}

/// The leases of the export, if they count.
async fn read_row(
    cloud: &Cloud,
    request: &ExportRequest,
    is_guarded: &Arc<AtomicBool>,
    counts: bool,
) -> Result<RowFact, Error> {
    if !counts {
        return Ok(RowFact::NotAsked);
    }
    let identity = request.identity();
    let leases = CosLeases::new(cloud, &request.region, identity, Arc::clone(is_guarded));
    match Row::read(&leases).await.map_err(Error::from) {
        Ok(row) => Ok(RowFact::Known(row)),
        Err(error) if error.kind() == ErrorKind::Credentials => Err(error),
        Err(error) => Ok(RowFact::Unusable(RowTrouble::of(&error))),
    }
}

/// Whether the caller may read what lies beside the record, where no lease was read that proves it.
async fn read_right(
    cloud: &Cloud,
    request: &ExportRequest,
    is_needed: bool,
) -> Result<Fact<()>, Error> {
    let Ok(key) = request.claim_key() else {
        return Ok(Fact::NotAsked);
    };
    if !is_needed {
        return Ok(Fact::NotAsked);
    }
    let (bucket, region) = (&request.bucket, &request.region);
    let found = cloud
        .cos()
        .get_small_object(bucket, region, &key, None, CLAIM_LIMIT_BYTES);
    existing(found.await.map(drop)).map(|fact| fact.map(drop))
}

/// The record of the newest export that the row tells of.
fn newest_record(row: &RowFact) -> Fact<Option<Record>> {
    match row {
        RowFact::NotAsked => Fact::NotAsked,
        RowFact::Unusable(trouble) if trouble.kind == ErrorKind::Permission => {
            Fact::NotPermitted(trouble.evidence())
        }
        RowFact::Unusable(trouble) => Fact::NoAnswer(trouble.evidence()),
        RowFact::Known(row) => {
            let records = row
                .attempts()
                .filter_map(|(_, seen)| seen.attempt.body.clone());
            Fact::Known(records.last())
        }
    }
}

async fn ask_for_dry_run(cloud: &Cloud, request: &ExportRequest) -> Result<Fact<DryRun>, Error> {
    let call = ExportImagesDryRun(request.to_call());
    match cloud.call(Some(&request.region), &call).await {
        Ok(_) => Ok(Fact::Known(DryRun::Accepted)),
        // Platform-wide this code means that the real call would have succeeded.
        Err(error) if error.code() == Some("DryRunOperation") => Ok(Fact::Known(DryRun::Accepted)),
        Err(error) => match (error.kind(), error.code()) {
            (ApiErrorKind::Refused, Some(code)) => Ok(Fact::Known(DryRun::Refused {
                code: code.into(),
                message: error.message().map(CloudText::new).unwrap_or_default(),
            })),
            _ => api_fact(Err(error)),
        },
    }
}

pub(super) fn api_fact<T>(answer: Result<T, ApiError>) -> Result<Fact<T>, Error> {
    match answer {
        Ok(value) => Ok(Fact::Known(value)),
        Err(error) => match error.kind() {
            ApiErrorKind::Credentials => Err(error.into()),
            ApiErrorKind::NotPermitted => Ok(Fact::NotPermitted(error.to_string())),
            _ => Ok(Fact::NoAnswer(one_line(&error))),
        },
    }
}

fn cos_fact<T>(answer: Result<T, CosError>) -> Result<Fact<T>, Error> {
    match answer {
        Ok(value) => Ok(Fact::Known(value)),
        Err(error) => match error.kind() {
            CosErrorKind::Credentials => Err(error.into()),
            CosErrorKind::NotPermitted => Ok(Fact::NotPermitted(error.to_string())),
            _ => Ok(Fact::NoAnswer(one_line(&error))),
        },
    }
}

/// As [`cos_fact`], with "there is no such bucket" as knowledge.
fn existing<T>(answer: Result<T, CosError>) -> Result<Fact<Option<T>>, Error> {
    match answer {
        Err(error) if error.kind() == CosErrorKind::NotFound => Ok(Fact::Known(None)),
        other => cos_fact(other.map(Some)),
    }
}
