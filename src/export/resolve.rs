//! Where an export goes: the bucket in full, and the region, from what was said and what COS knows.
//!
//! The rule: the region is the flag's; else the bucket's own, which COS lists; else the environment's
//! or the profile's. A bucket is matched as written first, then with the account's AppId appended.

use crate::cloud::Cloud;
use crate::cloud::actions::cam::GetUserAppId;
use crate::cloud::cos::{BucketEntry, CosErrorKind};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};
use crate::export::preflight::Fact;
use crate::model::{BucketName, Region};

/// The region that was said, and where.
#[derive(Clone, Debug, Default)]
pub struct RegionSetting {
    /// By a flag, which wins over the bucket's own region.
    pub flag: Option<Region>,
    /// By the environment or a profile, with the place; the bucket's own region wins over it.
    pub ambient: Option<(Region, String)>,
}

impl RegionSetting {
    /// The region that was said anywhere, the flag's first.
    #[must_use]
    pub fn said(&self) -> Option<&Region> {
        let ambient = self.ambient.as_ref().map(|(region, _)| region);
        self.flag.as_ref().or(ambient)
    }
}

/// A bucket and a region, with what was learnt on the way.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The bucket, with its AppId.
    pub bucket: BucketName,
    /// The region in which the image is looked for.
    pub region: Region,
    /// The account's buckets.
    pub buckets: Fact<Vec<BucketEntry>>,
}

impl Destination {
    /// The bucket as the account's list has it; `None` where it is not on the list, or there is none.
    #[must_use]
    pub fn listed(&self) -> Option<&BucketEntry> {
        let mut buckets = self.buckets.known().into_iter().flatten();
        buckets.find(|entry| entry.name == self.bucket)
    }

    /// The bucket's own region where that is known, else the one in which the image is looked for.
    #[must_use]
    pub fn bucket_region(&self) -> &Region {
        self.listed().map_or(&self.region, |entry| &entry.region)
    }
}

/// Settles bucket and region.
///
/// # Errors
/// [`ErrorKind::Usage`] when too little was said and COS may not be asked,
/// [`ErrorKind::Precondition`] when the account has no such bucket and no region was said, and
/// whatever keeps COS from answering at all.
pub async fn resolve(
    cloud: &Cloud,
    events: &Events,
    written: &BucketName,
    setting: &RegionSetting,
) -> Result<Destination, Error> {
    let buckets = match cloud.cos().list_buckets().await {
        Ok(buckets) => Fact::Known(buckets),
        Err(error) => match error.kind() {
            CosErrorKind::Credentials => return Err(error.into()),
            CosErrorKind::NotPermitted => Fact::NotPermitted(error.to_string()),
            // With both named in full the list is a convenience, and its failure no obstacle.
            _ if setting.flag.is_some() && written.app_id().is_some() => {
                Fact::NoAnswer(error.to_string())
            }
            _ => return Err(error.into()),
        },
    };
    let listed = buckets
        .known()
        .and_then(|buckets| match_bucket(buckets, written));
    let bucket = match listed {
        Some(entry) => entry.name.clone(),
        None => full_name(cloud, written, &buckets).await?,
    };
    let region = choose_region(events, &bucket, listed.map(|entry| &entry.region), setting)
        .ok_or_else(|| region_unknown(written, &buckets))?;
    Ok(Destination {
        bucket,
        region,
        buckets,
    })
}

/// The entry named as written, or as written with an AppId behind it.
fn match_bucket<'a>(buckets: &'a [BucketEntry], written: &BucketName) -> Option<&'a BucketEntry> {
    let exact = buckets.iter().find(|entry| entry.name == *written);
    exact.or_else(|| {
        buckets.iter().find(|entry| {
            entry.name.app_id().is_some() && entry.name.short_name() == written.as_str()
        })
    })
}

/// The full name of a bucket that the list does not show: it may be another account's, or the list
/// may be closed to these credentials.
async fn full_name(
    cloud: &Cloud,
    written: &BucketName,
    buckets: &Fact<Vec<BucketEntry>>,
) -> Result<BucketName, Error> {
    if written.app_id().is_some() {
        return Ok(written.clone());
    }
    if let Some(app_id) = buckets
        .known()
        .and_then(|list| list.iter().find_map(|entry| entry.name.app_id()))
    {
        return Ok(written.with_app_id(app_id)?);
    }
    // No region: the call belongs to the account.
    match cloud.call(None, &GetUserAppId {}).await {
        Ok(answer) => Ok(written.with_app_id(&answer.value.app_id.to_string())?),
        Err(error) => Err(Error::new(
            ErrorKind::Usage,
            format!("the AppId behind bucket `{written}` could not be found out"),
        )
        .with_hint("name the bucket in full and its region: `--bucket NAME-APPID --region REGION`")
        .with_request_id(error.request_id().map(str::to_owned))
        .with_source(error)),
    }
}

fn choose_region(
    events: &Events,
    bucket: &BucketName,
    own: Option<&Region>,
    setting: &RegionSetting,
) -> Option<Region> {
    if let Some(flag) = &setting.flag {
        return Some(flag.clone());
    }
    let Some(own) = own else {
        return setting.ambient.as_ref().map(|(region, _)| region.clone());
    };
    let instead = match &setting.ambient {
        Some((region, origin)) if region != own => format!(", not {region} from {origin}"),
        _ => String::new(),
    };
    let message = format!("region {own}: the one of bucket `{bucket}`{instead}");
    events.emit(EventKind::Settled { message });
    Some(own.clone())
}

fn region_unknown(written: &BucketName, buckets: &Fact<Vec<BucketEntry>>) -> Error {
    match buckets {
        Fact::Known(buckets) => Error::new(
            ErrorKind::Precondition,
            format!(
                "the account has no bucket `{written}` (it has {} buckets), and no region was named; nothing was submitted",
                buckets.len()
            ),
        )
        .with_hint(
            "`cvm-export image --create-bucket --region REGION` makes it in the image's region; another \
             account's bucket needs `--region REGION`, too",
        ),
        other => Error::new(
            ErrorKind::Usage,
            format!("the region of bucket `{written}` could not be found out: {}", other.why_unknown().unwrap_or_default()),
        )
        .with_hint("name the bucket in full and its region: `--bucket NAME-APPID --region REGION`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, region: &str) -> BucketEntry {
        BucketEntry {
            name: name.parse().expect("bucket"),
            region: region.parse().expect("region"),
        }
    }

    fn name_of(buckets: &[BucketEntry], written: &str) -> Option<String> {
        match_bucket(buckets, &written.parse().expect("bucket")).map(|entry| entry.name.to_string())
    }

    #[test]
    fn a_bucket_is_matched_as_written_before_an_app_id_is_appended() {
        let buckets = [
            entry("b-1250000000", "ap-guangzhou"),
            entry("backup-2024-1250000000", "ap-tokyo"),
            entry("b-1250000000-1250000000", "ap-seoul"),
        ];
        assert_eq!(name_of(&buckets, "b").as_deref(), Some("b-1250000000"));
        assert_eq!(
            name_of(&buckets, "backup-2024").as_deref(),
            Some("backup-2024-1250000000")
        );
        assert_eq!(
            name_of(&buckets, "b-1250000000").as_deref(),
            Some("b-1250000000")
        );
        assert_eq!(name_of(&buckets, "backup"), None);
    }

    #[test]
    fn the_flag_wins_then_the_bucket_then_the_ambient_setting() {
        let region = |text: &str| text.parse::<Region>().expect("region");
        let bucket = "b-1250000000".parse().expect("bucket");
        let own = region("ap-tokyo");
        let ambient = Some((region("ap-seoul"), "TENCENTCLOUD_REGION".to_owned()));
        let choose = |own: Option<&Region>, flag: Option<&str>| {
            let setting = RegionSetting {
                flag: flag.map(region),
                ambient: ambient.clone(),
            };
            choose_region(&Events::discard(), &bucket, own, &setting)
                .map(|region| region.to_string())
        };
        assert_eq!(
            choose(Some(&own), Some("ap-beijing")).as_deref(),
            Some("ap-beijing")
        );
        assert_eq!(choose(Some(&own), None).as_deref(), Some("ap-tokyo"));
        assert_eq!(choose(None, None).as_deref(), Some("ap-seoul"));
        let nothing = RegionSetting::default();
        assert_eq!(
            choose_region(&Events::discard(), &bucket, None, &nothing),
            None
        );
    }
}
