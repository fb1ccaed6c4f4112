//! `files`: what exports lie in a bucket; `files url` makes links to them, `files rm` deletes them.

mod list;
mod rm;
mod url;

use std::collections::BTreeMap;

use cvm_export::cloud::cos::Versioning;
use cvm_export::error::{Error, ErrorKind};

use cvm_export::export::{Exporter, Files, GroupBy, PrefixFilter, Scope};
use cvm_export::model::{BucketName, ImageId, Region};

pub(crate) use list::Priced;

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
    grouping: GroupingArgs,
    #[command(flatten)]
    prices: PriceArgs,
}

/// The flag that says which exports replace each other.
#[derive(clap::Args, Clone, Copy, Debug)]
struct GroupingArgs {
    /// Which exports replace each other: retention keeps the newest of each group [default: template]
    #[arg(long, value_name = "WHAT")]
    group_by: Option<Grouping>,
}

impl GroupingArgs {
    fn group_by(self) -> GroupBy {
        match self.group_by {
            None | Some(Grouping::Template) => GroupBy::Template,
            Some(Grouping::ImageName) => GroupBy::ImageName,
            Some(Grouping::Image) => GroupBy::Image,
            Some(Grouping::Prefix) => GroupBy::Prefix,
            Some(Grouping::None) => GroupBy::None,
        }
    }
}

/// As [`GroupBy`].
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Grouping {
    /// Same prefix as written (`nightly/{image_name}-{date}`), and same image name without date or serial
    Template,
    /// Same image name without date or serial
    ImageName,
    /// Same image ID
    Image,
    /// Same prefix
    Prefix,
    /// All exports are one group
    None,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Links by which anybody can fetch a file for a while
    Url(url::Args),
    /// Delete exports or leftover uploads, after listing them and asking
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
        grouping,
        prices,
    } = args;
    match command {
        Some(_) if scope.is_given() || prices.is_given() || grouping.group_by.is_some() => {
            Err(Error::new(
                ErrorKind::Usage,
                "flags that say which files are meant belong behind `url` or `rm`",
            ))
        }
        Some(Command::Url(args)) => url::run(args, context).await,
        Some(Command::Rm(args)) => rm::run(args, context).await,
        None => {
            let prices = prices.table(context.printer)?;
            list::run(&scope, grouping.group_by(), &prices, context).await
        }
    }
}

/// The sum of sizes that somebody else has told.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}
