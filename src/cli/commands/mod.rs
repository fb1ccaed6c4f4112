//! One file for each command: its arguments, and a function that runs it.

pub(super) mod authorize;
pub(super) mod check;
mod create_bucket;
pub(super) mod download;
pub(super) mod estimate;
pub(super) mod files;
pub(super) mod image;
pub(super) mod images;
mod objects;
pub(super) mod packaging;
#[cfg(feature = "simulator")]
pub(super) mod simulate;
pub(super) mod status;
pub(super) mod verify;
pub(super) mod wait;

use std::path::PathBuf;
use std::time::Duration;

use cvm_export::cloud::Site;
use cvm_export::cloud::actions::cvm::Image;
use cvm_export::cloud::cos::{CosError, CosErrorKind};
use cvm_export::download::{DownloadError, read_small};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{Amount, Budget, PriceTable};
use cvm_export::export::{
    CopyWishes, Destination, DiskScope, ExportOutcome, ExportRequest, Exporter, Fact, Known,
    Landing, OutcomeState, PollPolicy, PrefixTemplate, RegionSetting, locate_image,
};
use cvm_export::model::{BucketName, CheckName, ImageFormat, ImageId, Region, RoleName};

use super::{Context, Names, consent, exit, partial, printer, settings, tables, values};

/// The flags that say what is exported and where to; `image` and `check` share them.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct RequestArgs {
    /// The image; repeat the flag or separate by commas for several
    #[arg(
        long = "id",
        alias = "ImageIds",
        value_name = "IMAGE_ID",
        value_delimiter = ',',
        required = true
    )]
    pub(super) ids: Vec<ImageId>,

    /// The bucket, in full (name-1250000000) or without its AppId
    #[arg(long, alias = "BucketName", value_name = "BUCKET", required = true)]
    pub(super) bucket: Option<BucketName>,

    /// The start of the files' names; may hold {image_id}, {image_name}, {date} and {time}
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<PrefixTemplate>,

    /// The format of the files: raw, qcow2, vhd or vmdk
    #[arg(long, alias = "ExportFormat", value_name = "FORMAT", default_value_t)]
    pub(super) format: ImageFormat,

    /// Export the system disk alone
    #[arg(long)]
    pub(super) system_disk_only: bool,

    /// The CAM role that CVM takes on to write to the bucket
    #[arg(
        long,
        alias = "RoleName",
        value_name = "ROLE",
        default_value = "CVM_QcsRole"
    )]
    pub(super) role_name: RoleName,

    /// Do not count this check; repeat the flag for several
    #[arg(long = "skip-check", value_name = "NAME")]
    pub(super) skip_checks: Vec<CheckName>,

    #[command(flatten)]
    pub(super) copies: CopyArgs,
}

/// The flags that have an image copied before its export; `image` and `check` share them.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct CopyArgs {
    /// Where image and bucket are in different regions: copy the image to the bucket's, export the copy,
    /// and delete it (needs cvm:SyncImages and cvm:DeleteImages)
    #[arg(long)]
    pub(super) copy_to_bucket_region: bool,

    /// Where the image is shared by another account: make a custom copy of it in its own region, export
    /// that, and delete it (needs cvm:SyncImages and cvm:DeleteImages)
    #[arg(long)]
    pub(super) copy_shared: bool,
}

impl CopyArgs {
    /// What may be copied, from where `region` says that the image is.
    pub(super) fn wishes(self, region: &RegionSetting) -> CopyWishes {
        CopyWishes {
            to_bucket_region: self.copy_to_bucket_region,
            of_shared: self.copy_shared,
            region: region.clone(),
        }
    }
}

impl RequestArgs {
    pub(super) fn names(&self) -> Names<'_> {
        Names {
            images: &self.ids,
            bucket: self.bucket.as_ref(),
        }
    }

    /// The bucket, which every command but a check of the account needs.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when none is named.
    pub(super) fn bucket(&self) -> Result<&BucketName, Error> {
        self.bucket.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Usage, "--bucket: no bucket is named")
                .with_hint("name the bucket that the export goes to with `--bucket NAME`")
        })
    }

    pub(super) fn scope(&self) -> DiskScope {
        if self.system_disk_only {
            DiskScope::SystemDiskOnly
        } else {
            DiskScope::WholeMachine
        }
    }

    /// The images, each once, in the order in which they were named.
    ///
    /// # Errors
    /// Several images need a prefix that differs for each, or their files would have the same names.
    pub(super) fn images(&self) -> Result<Vec<ImageId>, Error> {
        let mut images: Vec<ImageId> = Vec::new();
        for id in &self.ids {
            if !images.contains(id) {
                images.push(id.clone());
            }
        }
        let differs = self
            .prefix
            .as_ref()
            .is_some_and(PrefixTemplate::differs_per_image);
        if images.len() > 1 && !differs {
            return Err(Error::new(
                ErrorKind::Usage,
                "--prefix: several images need a prefix that differs for each (example: `backup-{image_id}`)",
            ));
        }
        Ok(images)
    }

    /// The request for one image, and what had to be looked up to word it.
    pub(super) async fn request(
        &self,
        context: &Context<'_>,
        session: &settings::Session,
        destination: &Destination,
        image_id: &ImageId,
        started: chrono::DateTime<chrono::Utc>,
    ) -> Result<(ExportRequest, Known), Error> {
        let mut known = Known {
            buckets: destination.buckets.clone(),
            fixed_prefix: self.prefix.as_ref().and_then(PrefixTemplate::literal),
            ..Known::default()
        };
        let prefix = match &self.prefix {
            None => None,
            Some(template) => {
                if template.needs_image_name() {
                    let fetching = self.fetch_image(session, destination, image_id);
                    known.image = context.until_signalled(fetching).await?;
                }
                let name = known
                    .image
                    .known()
                    .and_then(Option::as_ref)
                    .map(|image| &image.image_name);
                if template.needs_image_name() && name.is_none() {
                    return Err(name_unknown(image_id, &known.image));
                }
                let prefix = template.expand(image_id, name, started);
                Some(prefix.map_err(|invalid| {
                    Error::new(ErrorKind::Usage, format!("--prefix: {invalid}"))
                })?)
            }
        };
        if let Some(prefix) = &prefix {
            context.partials.set_prefix(image_id, prefix);
        }
        let request = ExportRequest {
            image_id: image_id.clone(),
            region: destination.region.clone(),
            bucket: destination.bucket.clone(),
            prefix,
            prefix_template: self.prefix.as_ref().map(PrefixTemplate::as_written),
            format: self.format,
            scope: self.scope(),
            role: self.role_name.clone(),
            copied_from: None,
        };
        Ok((request, known))
    }

    /// The image, wherever it may be.
    async fn fetch_image(
        &self,
        session: &settings::Session,
        destination: &Destination,
        image_id: &ImageId,
    ) -> Result<Fact<Option<Image>>, Error> {
        let (cloud, region) = (&session.cloud, &destination.region);
        if !self.copies.copy_to_bucket_region {
            return cvm_export::export::fetch_image(cloud, region, image_id).await;
        }
        let (_, image) = locate_image(cloud, &session.region, region, image_id).await?;
        Ok(Fact::Known(Some(image)))
    }
}

fn name_unknown<T>(image_id: &ImageId, image: &Fact<T>) -> Error {
    let reason = image
        .why_unknown()
        .unwrap_or("there is no such image in this region");
    Error::new(
        ErrorKind::Precondition,
        format!("the prefix wants the name of image `{image_id}`, which is not known: {reason}"),
    )
    .with_hint("use `{image_id}` in `--prefix`, or look the image up with `cvm-export images`")
}

/// The flags that say how long and how often to look; `image` and `wait` share them.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct WatchArgs {
    /// How long to wait, such as 6h [default: 3h and 12h for each TB of disk]
    #[arg(long, value_name = "DURATION", value_parser = values::timeout)]
    pub(super) timeout: Option<Duration>,

    /// Look at equal intervals, such as 30s [default: growing from 1s to 1m]
    #[arg(long, value_name = "DURATION", value_parser = values::poll_interval)]
    pub(super) poll_interval: Option<Duration>,
}

impl WatchArgs {
    pub(super) fn poll(&self) -> PollPolicy {
        self.poll_interval
            .map_or_else(PollPolicy::default, PollPolicy::fixed)
    }
}

/// The flags that fetch the files of an export; `image` and `wait` share them.
#[derive(clap::Args, Clone, Debug)]
#[command(mut_group("TransferArgs", |group| group.requires("download")))]
pub(super) struct LandingArgs {
    /// Fetch the files into this folder as well, verified, with the export's record beside them
    #[arg(long, value_name = "DIR")]
    pub(super) download: Option<PathBuf>,

    #[command(flatten)]
    transfer: download::TransferArgs,
}

impl LandingArgs {
    pub(super) fn landing(&self, budget: &Budget) -> Option<Landing> {
        self.download.clone().map(|folder| Landing {
            folder,
            options: self.transfer.options(),
            budget: budget.clone(),
        })
    }
}

/// The flag that says what things cost.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct PriceArgs {
    /// Prices that correct those of this version; in another currency they replace them
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

impl PriceArgs {
    pub(super) fn is_given(&self) -> bool {
        self.prices.is_some()
    }

    /// The prices that hold.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a file that cannot be read or can't be right.
    pub(super) fn table(&self, printer: &printer::Printer) -> Result<PriceTable, Error> {
        let table = PriceTable::default();
        let Some(path) = &self.prices else {
            return Ok(table);
        };
        let refused = |problem: &str| {
            let message = format!("--prices: `{}` {problem}", path.display());
            Error::new(ErrorKind::Usage, message)
        };
        let text =
            read_small(path).map_err(|error| refused("cannot be read").with_source(error))?;
        let text =
            String::from_utf8(text).map_err(|error| refused("is no text").with_source(error))?;
        let today = cvm_export::clock::now().date_naive();
        let file = PriceTable::parse(&text, today).map_err(|invalid| {
            refused("can't be right").with_source(invalid).with_hint(
                "docs/prices.md of the sources says what stands in such a file, with an example",
            )
        })?;
        // A slip of the pen would correct nothing, and look as if it did.
        for region in file.regions().filter(|region| !region.is_known()) {
            printer.warning(&format!(
                "--prices: region {region} is not among those that this version knows; its prices hold for that name alone"
            ));
        }
        Ok(table.corrected_by(file))
    }
}

/// The flags that limit what a command may cost; `image`, `wait` and `download` share them.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct CostArgs {
    /// Go no further where it may cost more than this, in the currency of the prices (USD unless --prices
    /// says otherwise): all requests, a month of storage and the download, as far as the command makes them
    #[arg(long, value_name = "AMOUNT")]
    pub(super) max_cost: Option<Amount>,

    #[command(flatten)]
    prices: PriceArgs,
}

impl CostArgs {
    /// What the command may cost, and by which prices.
    ///
    /// # Errors
    /// As [`PriceArgs::table`].
    pub(super) fn budget(&self, printer: &printer::Printer) -> Result<Budget, Error> {
        Ok(Budget {
            prices: self.prices.table(printer)?,
            limit: self.max_cost,
        })
    }
}

/// The region of `bucket`; without one, that of the flag, the environment or the profile.
pub(super) async fn region(
    context: &Context<'_>,
    session: &settings::Session,
    bucket: Option<&BucketName>,
) -> Result<Region, Error> {
    if let Some(bucket) = bucket {
        return Ok(resolve(context, session, bucket).await?.region);
    }
    session.region.said().cloned().ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            "--region: no region is known (example: `--region ap-guangzhou`)",
        )
        .with_hint(
            "name one by `--region`, TENCENTCLOUD_REGION, a tccli profile, or `--bucket BUCKET`",
        )
    })
}

/// A run that came to an outcome, and what went wrong after the export was complete.
pub(super) struct Finished {
    pub(super) outcome: ExportOutcome,
    pub(super) trouble: Option<Error>,
    /// Whose console shows the bucket.
    pub(super) site: Site,
}

impl Finished {
    /// Fetches the files of an export that is complete, where that was asked for.
    pub(super) async fn fetching(
        mut outcome: ExportOutcome,
        exporter: &Exporter,
        landing: Option<&Landing>,
    ) -> Self {
        let trouble = match landing {
            Some(landing) if outcome.state == OutcomeState::Complete => {
                let trouble = exporter.fetch(&mut outcome, landing).await.err();
                trouble.map(|trouble| match is_gone(&trouble) {
                    false => trouble,
                    true => taken_away(trouble),
                })
            }
            _ => None,
        };
        Self {
            trouble,
            ..Self::without_trouble(outcome, exporter)
        }
    }

    /// An outcome of `exporter` with which all is well.
    pub(super) fn without_trouble(outcome: ExportOutcome, exporter: &Exporter) -> Self {
        Self {
            outcome,
            trouble: None,
            site: exporter.site(),
        }
    }

    /// Prints the outcome, which stands whatever became of the files on this machine.
    pub(super) fn show(&self, context: &Context<'_>) -> exit::Exit {
        let signal = context.signals.received();
        context.printer.keys(&self.outcome);
        context.printer.outcome(&self.outcome, self.site);
        if let Some(trouble) = &self.trouble {
            context.printer.error(trouble, signal);
        }
        self.exit(signal)
    }

    /// The end of a run over this export alone; `signal` is the one that came, if any.
    pub(super) fn exit(&self, signal: Option<exit::Signal>) -> exit::Exit {
        match &self.trouble {
            None => exit::Exit::of_outcome(&self.outcome, signal),
            Some(trouble) => exit::Exit::of_error(trouble.kind(), signal),
        }
    }
}

/// Whether an object that was to be fetched is there no more, or is another one.
fn is_gone(error: &Error) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(error), |it| it.source());
    causes.any(|cause| {
        let of_download = cause.downcast_ref::<DownloadError>();
        let of_cos = cause.downcast_ref::<CosError>().map(CosError::kind);
        matches!(
            of_download,
            Some(DownloadError::Missing { .. } | DownloadError::Replaced { .. })
        ) || matches!(of_cos, Some(CosErrorKind::NotFound | CosErrorKind::Changed))
    })
}

/// The end of a run whose export was complete, and then deleted or replaced before all of it had arrived.
fn taken_away(trouble: Error) -> Error {
    Error::new(
        ErrorKind::Verification,
        "the export was complete, and files of it were deleted or replaced while they were fetched",
    )
    .with_hint("what has arrived is kept; export the image anew with `cvm-export image`")
    .with_source(trouble)
}

/// Settles bucket and region for a command.
pub(super) async fn resolve(
    context: &Context<'_>,
    session: &settings::Session,
    bucket: &BucketName,
) -> Result<Destination, Error> {
    resolve_by(context, session, bucket, &session.region).await
}

/// As [`resolve`], where `setting` is said of the region.
async fn resolve_by(
    context: &Context<'_>,
    session: &settings::Session,
    bucket: &BucketName,
    setting: &RegionSetting,
) -> Result<Destination, Error> {
    let resolving = cvm_export::export::resolve(&session.cloud, &session.events, bucket, setting);
    let destination = context.until_signalled(resolving).await?;
    context.partials.settle(&destination);
    Ok(destination)
}
