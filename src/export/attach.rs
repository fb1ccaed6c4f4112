//! Finding the record of an export that was submitted before: in the journal, in the bucket, or from
//! what the person knows of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::cloud::Cloud;
use crate::error::{Error, ErrorKind};
use crate::export::claim;
use crate::export::journal::Journal;
use crate::export::lease::Row;
use crate::export::leases::{Body, CosLeases};
use crate::export::preflight::{Fact, disks, fetch_image};
use crate::export::record::{Baseline, Record, RecordFile, RecordState, is_since};
use crate::export::request::{
    DeviceNames, DiskRole, DiskScope, ExpectedFile, ExportRequest, Identity, claim_key,
};
use crate::model::{
    BucketName, ExportId, ImageFormat, ImageId, ObjectKey, Prefix, Region, RoleName,
};

/// What a person says of the export that is to be waited for.
#[derive(Clone, Debug)]
pub enum WaitTarget {
    /// The name that this tool gave it.
    Export(ExportId),
    /// Where its files go, and what they start with.
    Prefix {
        /// The region of image and bucket.
        region: Region,
        /// The bucket.
        bucket: BucketName,
        /// The start of the files' names.
        prefix: Option<Prefix>,
        /// The image, where the person names it.
        image_id: Option<ImageId>,
        /// The files' format.
        format: ImageFormat,
        /// How many files are expected under the console's names, where the person says so.
        expect: Option<usize>,
    },
    /// Its object keys.
    Keys {
        /// The region of the bucket.
        region: Region,
        /// The bucket.
        bucket: BucketName,
        /// The keys.
        keys: Vec<ObjectKey>,
        /// When the export was submitted, where the person says so: what was written earlier is not its.
        since: Option<DateTime<Utc>>,
    },
}

/// A record, and where it came from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) source: Source,
    /// Whether the record's image is the real one; a wait for bare keys does not know it.
    pub(crate) names_image: bool,
}

impl Found {
    pub(crate) fn new(record: Record, source: Source) -> Self {
        Self {
            record,
            source,
            names_image: true,
        }
    }
}

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// This machine's journal.
    Journal,
    /// The bucket.
    Claim,
    /// The files that stand in the bucket.
    Bucket,
    /// What the person said.
    CommandLine,
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Claim => "claim",
            Self::Bucket => "bucket",
            Self::CommandLine => "command line",
        }
    }
}

/// Finds the record of `target`.
pub(crate) async fn find(
    cloud: &Cloud,
    journal: &Journal,
    target: &WaitTarget,
) -> Result<Found, Error> {
    match target {
        WaitTarget::Export(export_id) => match journal.load(export_id)? {
            Some(record) => Ok(Found::new(record, Source::Journal)),
            None => Err(Error::new(
                ErrorKind::Usage,
                format!("this machine's journal knows no export `{export_id}`"),
            )
            .with_hint(
                "`cvm-export status` lists what it knows; on another machine use \
                 `cvm-export wait --bucket BUCKET --prefix PREFIX`",
            )),
        },
        WaitTarget::Keys {
            region,
            bucket,
            keys,
            since,
        } => by_keys(cloud, journal, region, bucket, keys, *since).await,
        WaitTarget::Prefix {
            region,
            bucket,
            prefix,
            image_id,
            format,
            expect,
        } => {
            let wanted = |record: &Record| {
                record.bucket == *bucket
                    && record.prefix == *prefix
                    && image_id
                        .as_ref()
                        .is_none_or(|image_id| record.image_id == *image_id)
            };
            if let Some(record) = newest_live(journal, wanted)? {
                return Ok(Found::new(record, Source::Journal));
            }
            let says_enough = image_id.is_some() || expect.is_some();
            match claim_under(
                cloud,
                region,
                bucket,
                prefix.as_ref(),
                image_id.as_ref(),
                *format,
            )
            .await
            {
                Ok(Some(record)) => return Ok(Found::new(record, Source::Claim)),
                // Who may not read the claim can still watch what was named.
                Err(error) if !says_enough || error.kind() == ErrorKind::Credentials => {
                    return Err(error);
                }
                Ok(None) | Err(_) => {}
            }
            let Some(image_id) = image_id else {
                let Some(expect) = expect else {
                    return Err(too_little(prefix.as_ref()));
                };
                return console_names(cloud, region, bucket, prefix.as_ref(), *format, *expect);
            };
            by_image(cloud, region, bucket, prefix.as_ref(), image_id, *format).await
        }
    }
}

fn too_little(prefix: Option<&Prefix>) -> Error {
    let under = prefix.map_or_else(
        || "without a prefix".to_owned(),
        |prefix| format!("under `{prefix}`"),
    );
    Error::new(
        ErrorKind::Usage,
        format!(
            "no record of an export {under} was found, so how many files to wait for is not known"
        ),
    )
    .with_hint(
        "name the image with `--id`, the number of files with `--expect N`, or the object keys",
    )
}

/// The newest record of a running export that `wanted` accepts. One that is over says nothing about
/// what stands in the bucket today, so the bucket is asked instead.
fn newest_live(
    journal: &Journal,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<Record>, Error> {
    let records = journal.open_records()?.into_iter();
    let candidates = records.filter(|record| record.state().is_live() && wanted(record));
    Ok(candidates.max_by_key(|record| record.created_at))
}

async fn by_keys(
    cloud: &Cloud,
    journal: &Journal,
    region: &Region,
    bucket: &BucketName,
    keys: &[ObjectKey],
    since: Option<DateTime<Utc>>,
) -> Result<Found, Error> {
    let covers = |record: &Record| {
        let names = || record.files.iter().flat_map(|file| &file.names);
        let is_recent = since.is_none_or(|since| {
            // The command line has whole seconds.
            let submitted_at = record.submitted_at.unwrap_or(record.created_at);
            is_since(submitted_at, since)
        });
        is_recent
            && record.bucket == *bucket
            && keys.iter().all(|key| names().any(|name| name.key == *key))
    };
    if let Some(record) = newest_live(journal, covers)? {
        return Ok(Found::new(record, Source::Journal));
    }
    let parsed: Vec<_> = keys.iter().map(ApiName::parse).collect();
    if let Some(Some(name)) = parsed.first() {
        let (prefix, image_id) = (name.prefix.as_ref(), Some(&name.image_id));
        let format = name.format.parse().unwrap_or_default();
        // Not allowed to read, or not a record: the keys themselves still say what to wait for.
        if let Ok(Some(record)) = claim_under(cloud, region, bucket, prefix, image_id, format).await
            && covers(&record)
            && record.state().is_live()
        {
            return Ok(Found::new(record, Source::Claim));
        }
    }
    let mut devices = DeviceNames::default();
    let files = keys
        .iter()
        .zip(&parsed)
        .enumerate()
        .map(|(position, (key, name))| {
            let disk = match name {
                Some(name) => name.disk,
                None if position == 0 => DiskRole::System,
                None => DiskRole::Data,
            };
            let device = devices.next(disk);
            let mut names = vec![key.clone()];
            // The exporter may use the console's name instead; without a time, an old file could bear it.
            if let (Some(name), Some(_)) = (name, since) {
                names.extend(name.by_console(&device));
            }
            let expected = ExpectedFile {
                disk,
                device,
                snapshot_id: name.as_ref().and_then(|name| name.snapshot_id.parse().ok()),
                size_gib: None,
                names,
            };
            let baseline = if since.is_some() {
                Baseline::Unseen
            } else {
                Baseline::Absent
            };
            RecordFile::expect(&expected, |_| baseline.clone())
        });
    let files = files.collect();
    let first = parsed.into_iter().next().flatten();
    let format = keys
        .first()
        .and_then(|key| key.as_str().rsplit('.').next()?.parse().ok());
    let request = ad_hoc_request(
        region,
        bucket,
        first.as_ref().and_then(|name| name.prefix.as_ref()),
        first.as_ref().map(|name| &name.image_id),
        format.unwrap_or_default(),
    );
    let mut found = ad_hoc(cloud, &request, files);
    found.names_image = first.is_some();
    if since.is_some() {
        found.record = found.record.found_running(since);
    }
    Ok(found)
}

/// Waits for the files of an image whose export was started elsewhere, such as in the console.
async fn by_image(
    cloud: &Cloud,
    region: &Region,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
    image_id: &ImageId,
    format: ImageFormat,
) -> Result<Found, Error> {
    let image = match fetch_image(cloud, region, image_id).await? {
        Fact::Known(Some(image)) => image,
        Fact::Known(None) => {
            let message = format!("there is no image `{image_id}` in {region}");
            return Err(Error::new(ErrorKind::Precondition, message)
                .with_hint("look for the id with `cvm-export images --region REGION`"));
        }
        other => {
            let reason = other.why_unknown().unwrap_or_default().to_owned();
            return Err(Error::new(
                other.error_kind(),
                format!("image `{image_id}` could not be looked up: {reason}"),
            )
            .with_hint("name the object keys instead: `cvm-export wait --bucket BUCKET KEY…`"));
        }
    };
    let disks = disks(&image).map_err(|problem| Error::new(ErrorKind::Unexpected, problem))?;
    let request = ad_hoc_request(region, bucket, prefix, Some(image_id), format);
    let files = request.predict_files(&disks)?;
    let files = files
        .iter()
        .map(|file| RecordFile::expect(file, |_| Baseline::Absent))
        .collect();
    let mut found = ad_hoc(cloud, &request, files);
    found.record.image_name = Some(image.image_name);
    Ok(found)
}

/// Waits for the first `expect` files under the console's names.
fn console_names(
    cloud: &Cloud,
    region: &Region,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
    format: ImageFormat,
    expect: usize,
) -> Result<Found, Error> {
    let mut devices = DeviceNames::default();
    let files = (0..expect).map(|position| {
        let disk = if position == 0 {
            DiskRole::System
        } else {
            DiskRole::Data
        };
        let device = devices.next(disk);
        let name = format!("{device}.{}", format.extension());
        let key = match prefix {
            Some(prefix) => format!("{prefix}_{name}").parse()?,
            None => name.parse()?,
        };
        let expected = ExpectedFile {
            disk,
            device,
            snapshot_id: None,
            size_gib: None,
            names: vec![key],
        };
        Ok::<_, Error>(RecordFile::expect(&expected, |_| Baseline::Absent))
    });
    let files = files.collect::<Result<_, _>>()?;
    let request = ad_hoc_request(region, bucket, prefix, None, format);
    Ok(Found {
        names_image: false,
        ..ad_hoc(cloud, &request, files)
    })
}

/// The record of the only export under `prefix`, or of the one of `image_id`, by its leases and its copy.
async fn claim_under(
    cloud: &Cloud,
    region: &Region,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
    image_id: Option<&ImageId>,
    format: ImageFormat,
) -> Result<Option<Record>, Error> {
    let (keys, mut exports) = match image_id {
        Some(image_id) => {
            let exports = BTreeSet::from([(image_id.clone(), format)]);
            (vec![claim_key(prefix, image_id)?], exports)
        }
        None => {
            let claims = claim::keys_under(cloud, bucket, region, prefix).await?;
            if claims.is_cut_off {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!(
                        "bucket `{bucket}` has so many files under `{}…` that not all of them were looked through",
                        claims.start
                    ),
                )
                .with_hint("name the image with `--id`"));
            }
            (claims.keys, claims.leased)
        }
    };
    for key in &keys {
        if let Some(record) = claim::read(cloud, bucket, region, key).await? {
            // A copy of another bucket's record, or one under another name, is not about these files.
            let is_ours = record.bucket == *bucket
                && record.prefix.as_ref() == prefix
                && claim_key(prefix, &record.image_id).is_ok_and(|own| own == *key)
                && record.names_itself();
            if is_ours {
                exports.insert((record.image_id, record.format));
            }
        }
    }
    let (mut live, mut over) = (Vec::new(), Vec::new());
    for (image_id, format) in exports {
        let identity = Identity {
            bucket: bucket.clone(),
            image_id,
            prefix: prefix.cloned(),
            format,
        };
        let leases = CosLeases::new(cloud, region, identity, Arc::default());
        match newest(&Row::read(&leases).await?) {
            Some(record) if record.state().is_live() => live.push(record),
            Some(record) => over.push(record),
            None => {}
        }
    }
    // What runs is what a user waits for; what is over counts only when nothing runs.
    let mut candidates = if live.is_empty() { over } else { live };
    if candidates.len() > 1 {
        let ids: Vec<String> = candidates
            .iter()
            .map(|record| record.image_id.to_string())
            .collect();
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "several exports stand under this prefix: {}",
                ids.join(", ")
            ),
        )
        .with_hint("name the image with `--id`"));
    }
    Ok(candidates.pop())
}

/// The record of the highest attempt that runs, or else of the highest that is complete.
fn newest(row: &Row<Body>) -> Option<Record> {
    let open = row.open();
    let record = |number| row.get(number)?.attempt.body.clone();
    let running = open.into_iter().rev().filter_map(record);
    let mut running = running.filter(|record| record.state().is_live());
    running.next().or_else(|| {
        let records = row
            .attempts()
            .filter_map(|(_, seen)| seen.attempt.body.clone());
        records
            .filter(|record| record.state() == RecordState::Complete)
            .last()
    })
}

fn ad_hoc_request(
    region: &Region,
    bucket: &BucketName,
    prefix: Option<&Prefix>,
    image_id: Option<&ImageId>,
    format: ImageFormat,
) -> ExportRequest {
    let unknown = || {
        "img-unknown"
            .parse::<ImageId>()
            .expect("letters after `img-` make an id")
    };
    let role = || {
        "CVM_QcsRole"
            .parse::<RoleName>()
            .expect("letters make a role name")
    };
    ExportRequest {
        image_id: image_id.cloned().unwrap_or_else(unknown),
        region: region.clone(),
        bucket: bucket.clone(),
        prefix: prefix.cloned(),
        format,
        scope: DiskScope::WholeMachine,
        role: role(),
        prefix_template: None,
        copied_from: None,
    }
}

/// A record that is made for this wait alone: it is not kept.
fn ad_hoc(cloud: &Cloud, request: &ExportRequest, files: Vec<RecordFile>) -> Found {
    // Nobody has said that it was started; the bucket will show it, or not.
    let record = Record::begin(request, files, cloud.now()).assumed();
    Found::new(record, Source::CommandLine)
}

/// An object key taken apart by the API's naming rule (page 213/73474).
#[derive(Debug, PartialEq, Eq)]
struct ApiName {
    prefix: Option<Prefix>,
    image_id: ImageId,
    disk: DiskRole,
    snapshot_id: String,
    format: String,
}

impl ApiName {
    /// The name that the console's rule gives to the same disk.
    fn by_console(&self, device: &str) -> Option<ObjectKey> {
        let name = format!("{device}.{}", self.format);
        match &self.prefix {
            Some(prefix) => format!("{prefix}_{name}").parse().ok(),
            None => name.parse().ok(),
        }
    }

    fn parse(key: &ObjectKey) -> Option<Self> {
        let (stem, format) = key.as_str().rsplit_once('.')?;
        let (rest, snapshot_id) = stem.rsplit_once('_')?;
        let (rest, disk) = rest.rsplit_once('_')?;
        let disk = match disk {
            "system" => DiskRole::System,
            "data" => DiskRole::Data,
            _ => return None,
        };
        let (prefix, image_id) = match rest.rsplit_once('_') {
            Some((prefix, image_id)) => (Some(prefix.parse().ok()?), image_id),
            None => (None, rest),
        };
        Some(Self {
            prefix,
            image_id: image_id.parse().ok()?,
            disk,
            snapshot_id: snapshot_id.to_owned(),
            format: format.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_api_rule_are_taken_apart() {
        let parse = |key: &str| ApiName::parse(&key.parse().expect("key"));
        let name = parse("my_pre_img-1_data_snap-9.qcow2").expect("a name by the rule");
        assert_eq!(name.prefix.as_ref().map(Prefix::as_str), Some("my_pre"));
        assert_eq!(
            (name.image_id.as_str(), name.disk),
            ("img-1", DiskRole::Data)
        );
        assert_eq!(name.snapshot_id, "snap-9");
        let console = name.by_console("xvdb").expect("a key");
        assert_eq!(console.as_str(), "my_pre_xvdb.qcow2");
        assert_eq!(
            parse("img-1_system_snap-9.raw").expect("no prefix").prefix,
            None
        );
        for other in [
            "p_xvda.raw",
            "img-1_other_snap-9.raw",
            "raw",
            "a.b",
            "_system_x.raw",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
