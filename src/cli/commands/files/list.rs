//! The listing of `files`: what exports are in the buckets, in which groups, and what they cost.

use cvm_export::cloud::cos::Versioning;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{Cost, Currency, PriceTable, Sheet, StoredObject};
use cvm_export::export::{Fact, Group, GroupBy, Groups, Inventory, ListedExport, ListedUpload};
use cvm_export::model::{BucketName, CloudText, Region};
use serde::{Serialize, Serializer};

use super::{Context, Exit, JournalUse, Names, ScopeArgs, open, plural, size, tables, total, word};

/// One bucket, as it was found.
struct Found {
    inventory: Inventory,
    groups: Groups,
    /// Why the sizes of some uploads are not known.
    unweighed: Option<String>,
}

impl Found {
    /// Its exports with their prices, made one by one: together they would take more room than the exports.
    fn priced<'a>(&'a self, prices: &'a PriceTable) -> impl Iterator<Item = Priced<'a>> {
        let exports = self.inventory.exports.iter().enumerate();
        exports.map(|(place, export)| {
            let region = &self.inventory.scope.region;
            Priced::new((place, export), &self.groups, region, prices)
        })
    }
}

/// The exports of all buckets as a list.
struct Items<'a> {
    found: &'a [Found],
    prices: &'a PriceTable,
}

impl Items<'_> {
    fn iter(&self) -> impl Iterator<Item = Priced<'_>> {
        let found = self.found.iter();
        found.flat_map(|found| found.priced(self.prices))
    }
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    schema: &'static str,
    currency: &'a Currency,
    prices: &'a [Sheet],
    confirmed_today: Option<bool>,
    cost_per_month: Cost,
    group_by: GroupBy,
    buckets: Vec<Bucket<'a>>,
    items: Items<'a>,
}

/// An export, and what keeping its files costs a month.
#[derive(Serialize)]
pub(crate) struct Priced<'a> {
    #[serde(flatten)]
    pub(crate) export: &'a ListedExport,
    pub(crate) cost_per_month: Cost,
    /// What its group has in common.
    group: &'a CloudText,
    /// Why `files rm` keeps it whatever its rule says by age or number; nothing if the rule decides.
    why: Option<String>,
    /// The number of its group in its bucket, from 0.
    #[serde(skip)]
    pub(crate) number: usize,
    /// The reason in one word.
    #[serde(skip)]
    pub(crate) kept: Option<&'static str>,
    /// The costs file by file.
    #[serde(skip)]
    pub(crate) files: Vec<Cost>,
}

impl<'a> Priced<'a> {
    fn new(
        (place, export): (usize, &'a ListedExport),
        groups: &'a Groups,
        region: &Region,
        prices: &PriceTable,
    ) -> Self {
        let fate = groups.fate(place, export);
        let files = export.files.iter().map(|file| {
            let stored = StoredObject::seen(file.storage_class.as_str(), file.size_bytes);
            stored.cost_per_month(region, prices)
        });
        let files: Vec<Cost> = files.collect();
        Self {
            export,
            cost_per_month: Cost::sum(&files),
            group: &groups.group_of(place).group,
            number: groups.number_of(place),
            kept: fate.as_ref().map(|(word, _)| *word),
            why: fate.map(|(_, why)| why),
            files,
        }
    }
}

/// What else is known of a bucket.
#[derive(Serialize)]
struct Bucket<'a> {
    bucket: &'a BucketName,
    region: &'a Region,
    versioning: Option<&'static str>,
    all_versions: bool,
    other_objects: u64,
    groups: &'a [Group],
    unfinished_uploads: Option<Vec<PricedUpload<'a>>>,
}

/// An unfinished upload, and what keeping its parts costs a month.
#[derive(Serialize)]
struct PricedUpload<'a> {
    #[serde(flatten)]
    upload: &'a ListedUpload,
    cost_per_month: Cost,
}

impl<'a> PricedUpload<'a> {
    fn new(upload: &'a ListedUpload, region: &Region, prices: &PriceTable) -> Self {
        let stored = upload
            .size_bytes
            .map(|bytes| StoredObject::seen(upload.storage_class.as_str(), bytes));
        Self {
            upload,
            cost_per_month: match stored {
                Some(stored) => stored.cost_per_month(region, prices),
                None => Cost::unknown("the size of an unfinished upload is not known"),
            },
        }
    }
}

impl<'a> Bucket<'a> {
    fn new(found: &'a Found, prices: &PriceTable) -> Self {
        let inventory = &found.inventory;
        let region = &inventory.scope.region;
        let uploads = inventory.uploads.known().map(|uploads| {
            let uploads = uploads.iter();
            let priced = uploads.map(|upload| PricedUpload::new(upload, region, prices));
            priced.collect()
        });
        Self {
            bucket: &inventory.scope.bucket,
            region: &inventory.scope.region,
            versioning: inventory.versioning.known().copied().map(word),
            all_versions: inventory.scope.all_versions,
            other_objects: inventory.other_objects,
            groups: &found.groups.list,
            unfinished_uploads: uploads,
        }
    }

    /// What the unfinished uploads cost a month.
    fn uploads_cost(&self) -> Cost {
        match &self.unfinished_uploads {
            Some(uploads) => Cost::sum(uploads.iter().map(|upload| &upload.cost_per_month)),
            None => Cost::unknown("unfinished uploads could not be seen"),
        }
    }
}

pub(super) async fn run(
    args: &ScopeArgs,
    group_by: GroupBy,
    prices: &PriceTable,
    context: &Context<'_>,
) -> Result<Exit, Error> {
    let (found, has_failures) = find(args, group_by, context).await?;
    let items = Items {
        found: &found,
        prices,
    };
    let buckets = found.iter();
    let buckets: Vec<Bucket<'_>> = buckets.map(|found| Bucket::new(found, prices)).collect();
    let uploads: Vec<Cost> = buckets.iter().map(Bucket::uploads_cost).collect();
    let kept = items.iter().map(|item| item.cost_per_month);
    let cost_per_month = Cost::sum(kept.chain(uploads.iter().cloned()));
    let currency = prices.currency().to_string();
    let is_empty = items.iter().next().is_none();
    if !is_empty && context.printer.is_text() {
        tables::files(
            || items.iter(),
            &currency,
            |text| context.printer.data(text),
        );
    }
    let mut has_uploads = false;
    for ((found, bucket), cost) in found.iter().zip(&buckets).zip(&uploads) {
        sum_up(&found.inventory, context);
        tell_groups(found, group_by, context);
        let listed = bucket.unfinished_uploads.as_deref().unwrap_or_default();
        if !listed.is_empty() {
            has_uploads = true;
            let month = tables::range(cost, &currency);
            let unweighed = found.unweighed.as_ref();
            tell_uploads(bucket.bucket, listed, unweighed, &month, context);
        }
    }
    if !is_empty || has_uploads {
        let month = tables::range(&cost_per_month, &currency);
        let versions = match args.all_versions {
            true => "",
            false => ", older versions",
        };
        context.printer.note(&format!(
            "the listed files and unfinished uploads cost {month} a month to keep; not counted: records{versions} and \
             other objects; {}",
            prices.provenance()
        ));
    }
    context.printer.json(&Listing {
        schema: "cvm-export.files.v1",
        currency: prices.currency(),
        prices: prices.sheets(),
        confirmed_today: prices.is_confirmed(),
        cost_per_month,
        group_by,
        buckets,
        items,
    });
    Ok(if has_failures {
        Exit::SomeFailed
    } else {
        Exit::Done
    })
}

/// Looks into every bucket that is meant; the second value says whether one of several could not be listed.
async fn find(
    args: &ScopeArgs,
    group_by: GroupBy,
    context: &Context<'_>,
) -> Result<(Vec<Found>, bool), Error> {
    let names = Names {
        bucket: args.bucket.as_ref(),
        ..Names::default()
    };
    context
        .with_session(names, JournalUse::IfThere, async |session| {
            let scopes = args.scopes(context, &session).await?;
            let is_single = scopes.len() == 1;
            let files = open(context, &session);
            let (mut found, mut has_failures) = (Vec::new(), false);
            for scope in scopes {
                let looking = async {
                    let mut inventory = files.list(scope).await?;
                    let unweighed = files.weigh_uploads(&mut inventory).await?;
                    if let (true, Some(prefix)) = (inventory.exports.is_empty(), &args.prefix)
                        && files.has_longer_prefixes(&inventory.scope).await
                    {
                        context.printer.note(&format!(
                            "no export was made with exactly the prefix `{prefix}`, and some with longer ones: \
                             `--prefix '{prefix}*'` lists them"
                        ));
                    }
                    Ok((inventory, unweighed))
                };
                match context.until_signalled(looking).await {
                    Ok((inventory, unweighed)) => found.push(Found {
                        groups: Groups::of(&inventory.exports, group_by),
                        inventory,
                        unweighed,
                    }),
                    Err(error) if is_single || error.kind() == ErrorKind::Interrupted => {
                        return Err(error);
                    }
                    // One bucket that is closed hides no other.
                    Err(error) => {
                        context.printer.error(&error, None);
                        has_failures = true;
                    }
                }
            }
            Ok((found, has_failures))
        })
        .await
}

/// What the numbers of the groups in the table mean.
fn tell_groups(found: &Found, group_by: GroupBy, context: &Context<'_>) {
    let groups = &found.groups.list;
    if groups.is_empty() {
        return;
    }
    context.printer.note(&format!(
        "  {} by {}; `files rm --keep-last N` counts in each, and keeps the newest complete export:",
        plural(groups.len(), "group"),
        group_by.as_str()
    ));
    for (number, group) in (1..).zip(groups) {
        context.printer.note(&format!(
            "    {number}: {}: {}, {} complete",
            group.group,
            plural(group.exports, "export"),
            group.complete
        ));
    }
}

/// What is said of unfinished uploads; `unweighed` is why the size of some is not known.
fn tell_uploads(
    bucket: &BucketName,
    uploads: &[PricedUpload<'_>],
    unweighed: Option<&String>,
    month: &str,
    context: &Context<'_>,
) {
    let sizes: Vec<u64> = uploads
        .iter()
        .filter_map(|priced| priced.upload.size_bytes)
        .collect();
    let known = size(sizes.iter().copied().fold(0, u64::saturating_add));
    let reason = unweighed.map_or("", String::as_str);
    let held = match (sizes.len(), uploads.len() - sizes.len()) {
        (_, 0) => known,
        (0, _) => format!("size unknown: {reason}"),
        (_, rest) => format!("{known}, and {rest} of unknown size: {reason}"),
    };
    context.printer.note(&format!(
        "  {} under names of exports ({held}), in no list of objects and paid for all the same, with {month} a month; \
         `cvm-export files rm --abort-uploads --bucket {bucket}` clears those that are dead",
        plural(uploads.len(), "unfinished upload"),
    ));
}

/// What is said of a bucket beside the table.
fn sum_up(inventory: &Inventory, context: &Context<'_>) {
    let printer = context.printer;
    let bucket = &inventory.scope.bucket;
    let exports = &inventory.exports;
    let files: usize = exports.iter().map(|export| export.files.len()).sum();
    let bytes = total(exports.iter().map(|export| export.size_bytes));
    printer.note(&format!(
        "bucket `{bucket}`: {}, {}, {}; {} left out",
        plural(exports.len(), "export"),
        plural(files, "file"),
        size(bytes),
        plural(
            usize::try_from(inventory.other_objects).unwrap_or(usize::MAX),
            "other object"
        ),
    ));
    match &inventory.versioning {
        Fact::Known(Versioning::Off) => {}
        Fact::Known(_) if inventory.scope.all_versions => {}
        Fact::Known(_) => printer.note(
            "  the bucket keeps versions: what was overwritten or deleted goes on costing; \
             `--all-versions` shows it",
        ),
        unknown => printer.warning(&format!(
            "whether the bucket keeps versions could not be seen: {}",
            unknown.why_unknown().unwrap_or_default()
        )),
    }
    match &inventory.uploads {
        Fact::Known(_) => {}
        unknown => printer.warning(&format!(
            "unfinished uploads could not be seen, so what runs may look as if it did not: {}",
            unknown.why_unknown().unwrap_or_default()
        )),
    }
}
