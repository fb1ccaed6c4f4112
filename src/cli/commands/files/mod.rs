//! `files`: what exports lie in a bucket; `files url` makes links to them, `files rm` deletes them.

mod rm;
mod url;

use std::collections::BTreeMap;

use cvm_export::cloud::cos::Versioning;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{Cost, Currency, PriceTable, Sheet, StoredObject};
use cvm_export::export::{
    Exporter, Fact, Files, Inventory, ListedExport, ListedUpload, PrefixFilter, Scope,
};
use cvm_export::model::{BucketName, ImageId, Region};
use serde::Serialize;

use super::consent::Question;
use super::exit::Exit;
use super::printer::{plural, size};
use super::settings::{JournalUse, Session};
use super::{Context, Names, PriceArgs, objects, tables, values};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    prices: PriceArgs,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Links by which anybody can fetch a file for a while
    Url(url::Args),
    /// Delete exports, or uploads that dead ones left: lists what would go, asks, does it
    Rm(rm::Args),
}

/// The flags that say which exports are meant.
#[derive(clap::Args, Clone, Debug)]
struct ScopeArgs {
    /// The bucket, in full or without its AppId [default: by this machine's journal]
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// Exports that were made with this prefix; PREFIX* for those whose prefix starts like this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<PrefixFilter>,

    /// Exports of these images
    #[arg(
        long = "id",
        alias = "ImageIds",
        value_name = "IMAGE_ID",
        value_delimiter = ','
    )]
    ids: Vec<ImageId>,

    /// In a bucket that keeps versions, those that were overwritten or deleted as well
    #[arg(long)]
    all_versions: bool,
}

impl ScopeArgs {
    fn is_given(&self) -> bool {
        self.bucket.is_some() || self.prefix.is_some() || !self.ids.is_empty() || self.all_versions
    }

    fn within(&self, bucket: BucketName, region: Region) -> Scope {
        Scope {
            bucket,
            region,
            prefix: self.prefix.clone().unwrap_or_default(),
            images: self.ids.clone(),
            all_versions: self.all_versions,
        }
    }

    /// The bucket that was named, or every bucket in which this machine has made exports.
    async fn scopes(&self, context: &Context<'_>, session: &Session) -> Result<Vec<Scope>, Error> {
        if let Some(bucket) = &self.bucket {
            let destination = super::resolve(context, session, bucket).await?;
            return Ok(vec![self.within(destination.bucket, destination.region)]);
        }
        let (records, _) = session.journal.all()?;
        let known: BTreeMap<BucketName, Region> = records
            .into_iter()
            .map(|record| (record.bucket, record.region))
            .collect();
        if known.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                "--bucket: no bucket is named, and this machine's journal knows none",
            )
            .with_hint("name one with `--bucket NAME`"));
        }
        let scopes = known.into_iter();
        Ok(scopes
            .map(|(bucket, region)| self.within(bucket, region))
            .collect())
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    schema: &'static str,
    currency: &'a Currency,
    prices: &'a [Sheet],
    confirmed_today: Option<bool>,
    cost_per_month: Cost,
    buckets: Vec<Bucket<'a>>,
    items: Vec<Priced<'a>>,
}

/// An export, and what keeping its files costs a month.
#[derive(Serialize)]
pub(crate) struct Priced<'a> {
    #[serde(flatten)]
    pub(crate) export: &'a ListedExport,
    pub(crate) cost_per_month: Cost,
    /// The same file by file.
    #[serde(skip)]
    pub(crate) files: Vec<Cost>,
}

impl<'a> Priced<'a> {
    fn new(export: &'a ListedExport, region: &Region, prices: &PriceTable) -> Self {
        let files = export.files.iter().map(|file| {
            let stored = StoredObject::seen(file.storage_class.as_str(), file.size_bytes);
            stored.cost_per_month(region, prices)
        });
        let files: Vec<Cost> = files.collect();
        Self {
            export,
            cost_per_month: Cost::sum(&files),
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
    fn new(inventory: &'a Inventory, prices: &PriceTable) -> Self {
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

fn word(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Off => "off",
        Versioning::Enabled => "enabled",
        Versioning::Suspended => "suspended",
    }
}

fn open(context: &Context<'_>, session: &Session) -> Files {
    Files::new(Exporter::new(
        session.cloud.clone(),
        session.journal.clone(),
        session.events.clone(),
        context.signals.cancel(),
    ))
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let Args {
        command,
        scope,
        prices,
    } = args;
    match command {
        Some(_) if scope.is_given() || prices.is_given() => Err(Error::new(
            ErrorKind::Usage,
            "flags that say which files are meant belong behind `url` or `rm`",
        )),
        Some(Command::Url(args)) => url::run(args, context).await,
        Some(Command::Rm(args)) => rm::run(args, context).await,
        None => list(&scope, &prices.table(context.printer)?, context).await,
    }
}

async fn list(args: &ScopeArgs, prices: &PriceTable, context: &Context<'_>) -> Result<Exit, Error> {
    let names = Names {
        bucket: args.bucket.as_ref(),
        ..Names::default()
    };
    let (inventories, has_failures) = context
        .with_session(names, JournalUse::IfThere, async |session| {
            let scopes = args.scopes(context, &session).await?;
            let is_single = scopes.len() == 1;
            let files = open(context, &session);
            let (mut inventories, mut has_failures) = (Vec::new(), false);
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
                    Ok(found) => inventories.push(found),
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
            Ok((inventories, has_failures))
        })
        .await?;
    let priced = inventories.iter().flat_map(|(inventory, _)| {
        let region = &inventory.scope.region;
        let exports = inventory.exports.iter();
        exports.map(|export| Priced::new(export, region, prices))
    });
    let items: Vec<Priced<'_>> = priced.collect();
    let buckets = inventories.iter();
    let buckets: Vec<Bucket<'_>> = buckets
        .map(|(inventory, _)| Bucket::new(inventory, prices))
        .collect();
    let uploads: Vec<Cost> = buckets.iter().map(Bucket::uploads_cost).collect();
    let kept = items.iter().map(|item| &item.cost_per_month);
    let cost_per_month = Cost::sum(kept.chain(&uploads));
    if !items.is_empty() {
        let currency = prices.currency().to_string();
        context.printer.data(&tables::files(&items, &currency));
    }
    let currency = prices.currency().to_string();
    let mut has_uploads = false;
    let counted = inventories.iter().zip(&buckets).zip(&uploads);
    for (((inventory, unweighed), bucket), cost) in counted {
        sum_up(inventory, context);
        let listed = bucket.unfinished_uploads.as_deref().unwrap_or_default();
        if !listed.is_empty() {
            has_uploads = true;
            let month = tables::range(cost, &currency);
            tell_uploads(bucket.bucket, listed, unweighed.as_ref(), &month, context);
        }
    }
    if !items.is_empty() || has_uploads {
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
        buckets,
        items,
    });
    Ok(if has_failures {
        Exit::SomeFailed
    } else {
        Exit::Done
    })
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

/// The sum of sizes that somebody else has told.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
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
