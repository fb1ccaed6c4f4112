//! What an export and the download of its files take, and what that costs, before either begins.

use std::collections::BTreeMap;
use std::time::Duration;

use super::outcome::ExportOutcome;
use super::preflight::{Fact, disks, fetch_image};
use super::request::{DiskRole, DiskScope, ExportRequest};
use super::resume::default_timeout_of;
use super::watch::PollPolicy;
use super::{ExportOptions, Exporter, Known, Landing};
use crate::cloud::Network;
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::{BucketHead, ObjectMeta};
use crate::download::{Downloaded, bytes_to_come};
use crate::error::Error;
use crate::estimate::{
    Bounds, Budget, Cost, DEFAULT_DAYS, Estimate, ExportSize, OverBudget, Quantities, Route,
    StoredObject, saving,
};
use crate::event::{EventKind, Events};
use crate::model::{ImageFormat, ImageId, Region, StorageClass};

/// How an export is made and what becomes of its files, as far as it matters for the price.
#[derive(Clone, Debug)]
pub struct CostPlan {
    /// When the bucket is looked at.
    pub poll: PollPolicy,
    /// How long it is watched; by default it follows from the disks' sizes.
    pub timeout: Option<Duration>,
    /// Whether the record is kept in the bucket, too.
    pub keeps_record: bool,
    /// The storage class of the files: by all that is known the usual one, as the exporter takes none.
    pub class: StorageClass,
    /// How many days the files are kept.
    pub days: u32,
    /// How the files are fetched, and in parts of how many bytes; `None` where they are not.
    pub download: Option<(Route, u64)>,
}

impl Default for CostPlan {
    fn default() -> Self {
        Self {
            poll: PollPolicy::default(),
            timeout: None,
            keeps_record: true,
            class: StorageClass::standard(),
            days: DEFAULT_DAYS,
            download: None,
        }
    }
}

impl CostPlan {
    /// What `options` mean for the price in a bucket of which `head` is known, where files come over
    /// `network`.
    pub(crate) fn of(
        options: &ExportOptions,
        head: &Fact<Option<BucketHead>>,
        network: Network,
    ) -> Self {
        let landing = options.landing.as_ref();
        Self {
            class: usual_class(head.known().and_then(Option::as_ref)),
            poll: options.poll,
            timeout: options.timeout,
            keeps_record: options.keep_claim,
            download: landing.map(|landing| (route(network), landing.options.part_size_bytes)),
            ..Self::default()
        }
    }

    /// What the export of disks of these sizes in GiB to a bucket of `region` takes.
    #[must_use]
    pub fn quantities(
        &self,
        region: &Region,
        format: ImageFormat,
        disks_gib: &[u64],
    ) -> Quantities {
        let gib = disks_gib.iter().copied().fold(0, u64::saturating_add);
        let timeout = self.timeout.unwrap_or_else(|| default_timeout_of(gib));
        let size = ExportSize {
            format,
            disks_gib,
            looks: Bounds::between(1, self.poll.most_looks(timeout)),
            keeps_record: self.keeps_record,
        };
        let quantities = Quantities::none(region.clone())
            .with_export(&size, &self.class)
            .kept_for(self.days);
        match self.download {
            Some((route, part_size_bytes)) => quantities.with_download(route, part_size_bytes),
            None => quantities,
        }
    }
}

/// The class of what is written into a bucket without naming one.
#[must_use]
pub fn usual_class(bucket: Option<&BucketHead>) -> StorageClass {
    match bucket {
        Some(bucket) if bucket.is_multi_az => StorageClass::multi_az_standard(),
        _ => StorageClass::standard(),
    }
}

/// How files come over `network`.
#[must_use]
pub fn route(network: Network) -> Route {
    match network {
        Network::Internal => Route::Internal,
        Network::Public => Route::Public,
    }
}

/// The sizes in GiB of the disks of `image` that are exported.
///
/// # Errors
/// The cloud's description may not make sense; the text says how.
pub fn disk_sizes(image: &Image, scope: DiskScope) -> Result<Vec<u64>, String> {
    let disks = disks(image)?.into_iter();
    let wanted =
        disks.filter(|disk| scope == DiskScope::WholeMachine || disk.role == DiskRole::System);
    let sizes: Vec<u64> = wanted.map(|disk| disk.size_gib).collect();
    if sizes.is_empty() {
        return Err("the cloud's description of the image names no disk".to_owned());
    }
    Ok(sizes)
}

/// What an earlier run had brought of an object.
#[must_use]
pub fn saved(done: &Downloaded) -> StoredObject {
    StoredObject::seen(&done.object.storage_class, done.saved_bytes())
}

/// What is known of the price of an export, and what it may be.
#[derive(Clone, Debug)]
pub struct CostFacts {
    /// What it costs, or why that cannot be told.
    pub estimate: Result<Estimate, String>,
    /// What it may cost.
    pub budget: Budget,
}

impl CostFacts {
    pub(crate) fn of(
        request: &ExportRequest,
        image: &Fact<Option<Image>>,
        plan: &CostPlan,
        budget: &Budget,
    ) -> Self {
        let sizes = match image {
            Fact::Known(Some(image)) => disk_sizes(image, request.scope),
            Fact::Known(None) => Err("there is no such image in this region".to_owned()),
            other => Err(other.why_unknown().unwrap_or_default().to_owned()),
        };
        let estimate = sizes.map(|sizes| {
            let quantities = plan.quantities(&request.region, request.format, &sizes);
            Estimate::of(quantities, &budget.prices)
        });
        Self {
            estimate,
            budget: budget.clone(),
        }
    }

    /// What the export costs.
    #[must_use]
    pub fn total(&self) -> Cost {
        match &self.estimate {
            Ok(estimate) => estimate.total.clone(),
            Err(reason) => Cost::unknown(format!("the disks' sizes are not known: {reason}")),
        }
    }

    /// What is said of it in one line, where there is something to say.
    #[must_use]
    pub fn line(&self, image_id: &ImageId) -> Option<String> {
        let estimate = self.estimate.as_ref().ok()?;
        let line = estimate.export_line(&self.budget.prices);
        Some(format!("{image_id}: {line}"))
    }
}

impl Exporter {
    /// What one export takes and costs. The image is looked up where it is not known, and known from then on.
    ///
    /// # Errors
    /// Only for credentials that the cloud does not accept.
    pub async fn price(
        &self,
        request: &ExportRequest,
        known: &mut Known,
        options: &ExportOptions,
    ) -> Result<CostFacts, Error> {
        if matches!(known.image, Fact::NotAsked) {
            known.image = fetch_image(&self.cloud, &request.region, &request.image_id).await?;
        }
        let cos = self.cloud.cos();
        // Where the bucket does not answer, the checks say so.
        let head = cos.head_bucket(&request.bucket, &request.region).await;
        let head = head.map_or(Fact::NotAsked, |head| Fact::Known(Some(head)));
        let plan = CostPlan::of(options, &head, cos.network());
        Ok(CostFacts::of(request, &known.image, &plan, &options.budget))
    }

    /// Says what the download of a complete export to files of these `names` has still to take, and refuses one that may cost too much.
    pub(super) fn weigh_download(
        &self,
        outcome: &ExportOutcome,
        names: &[&str],
        landing: &Landing,
    ) -> Result<(), Error> {
        let files = outcome.files.iter().zip(names);
        let objects = files.map(|(file, name)| {
            let class = file.storage_class.as_deref().unwrap_or("STANDARD");
            let object = ObjectMeta {
                key: file.key.clone(),
                size_bytes: file.size_bytes?,
                etag: file.etag.clone().unwrap_or_default(),
                last_modified: None,
                crc64: file.crc64.clone(),
                storage_class: class.to_owned(),
                version_id: None,
            };
            let path = landing.folder.join(name);
            let bytes = bytes_to_come(&object, &path, &landing.options);
            Some((&outcome.region, StoredObject::seen(class, bytes)))
        });
        match objects.collect::<Option<Vec<_>>>() {
            Some(objects) => self.scales(landing).weigh(&self.events, objects),
            None => {
                let cost = Cost::unknown("the size of a file is not known");
                Ok(landing.budget.require(&cost)?)
            }
        }
    }

    /// Says what the download of `outcome` did not have to fetch again.
    pub(super) fn tell_saving(&self, outcome: &ExportOutcome, landing: &Landing) {
        let arrived = outcome
            .files
            .iter()
            .filter_map(|file| file.downloaded.as_ref());
        let saved = arrived.map(|done| (&outcome.region, saved(done)));
        self.scales(landing).tell_saving(&self.events, saved);
    }

    fn scales<'a>(&self, landing: &'a Landing) -> Scales<'a> {
        Scales {
            route: route(self.cloud.cos().network()),
            part_size_bytes: landing.options.part_size_bytes,
            budget: &landing.budget,
        }
    }
}

/// Weighs downloads: says what they take and cost, and holds them to what they may.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a> {
    /// How they come.
    pub route: Route,
    /// In parts of how many bytes.
    pub part_size_bytes: u64,
    /// What all of them may cost together.
    pub budget: &'a Budget,
}

impl Scales<'_> {
    /// Says what fetching `objects`, each with its region, takes and costs.
    ///
    /// # Errors
    /// [`ErrorKind::Precondition`](crate::error::ErrorKind::Precondition) for what may cost too much.
    pub fn weigh<'r>(
        &self,
        events: &Events,
        objects: impl IntoIterator<Item = (&'r Region, StoredObject)>,
    ) -> Result<(), Error> {
        let mut costs = Vec::new();
        for (region, objects) in by_region(objects) {
            let none = Quantities::none(region.clone());
            let quantities = none.fetching(objects, self.route, self.part_size_bytes);
            let estimate = Estimate::of(quantities, &self.budget.prices);
            let message = estimate.download_line(&self.budget.prices);
            events.emit(EventKind::Settled { message });
            costs.push(estimate.total);
        }
        self.budget.require(&Cost::sum(&costs)).map_err(|over| {
            let evidence = format!("the download was not begun: {}", over.evidence);
            OverBudget { evidence, ..over }.into()
        })
    }

    /// Says how much of what was fetched was here already, `saved`, and what that would have cost.
    pub fn tell_saving<'r>(
        &self,
        events: &Events,
        saved: impl IntoIterator<Item = (&'r Region, StoredObject)>,
    ) {
        for (region, objects) in by_region(saved) {
            if let Some(message) = saving(&self.budget.prices, region, self.route, objects) {
                events.emit(EventKind::Settled { message });
            }
        }
    }
}

fn by_region<'r>(
    objects: impl IntoIterator<Item = (&'r Region, StoredObject)>,
) -> BTreeMap<&'r Region, Vec<StoredObject>> {
    let mut regions: BTreeMap<&Region, Vec<StoredObject>> = BTreeMap::new();
    for (region, object) in objects {
        regions.entry(region).or_default().push(object);
    }
    regions
}
