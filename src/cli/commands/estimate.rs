//! `estimate`: what an export costs, or what exported files do. Submits nothing and fetches nothing.

use clap::ValueEnum;
use cvm_export::cloud::Network;
use cvm_export::cloud::actions::cvm::Image;
use cvm_export::download::{DEFAULT_PART_SIZE_BYTES, ObjectAddress};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::{
    Bounds, Cost, Currency, DEFAULT_DAYS, Estimate, Line, PriceTable, Quantities, Route, Sheet,
    StoredObject, parse_class,
};
use cvm_export::export::{CostPlan, DiskScope, Fact, disk_sizes, fetch_image, route, usual_class};
use cvm_export::model::{
    BucketName, CloudText, ExportId, ImageFormat, ImageId, ObjectKey, Region, StorageClass,
};
use serde::Serialize;

use super::exit::Exit;
use super::objects::Said;
use super::settings::{JournalUse, Session};
use super::{Context, Names, PriceArgs, objects, tables, values};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// An export id of this machine's journal, or exported files as cos://BUCKET/KEY
    #[arg(value_name = "EXPORT_ID|COS_URL", conflicts_with = "ids")]
    objects: Vec<String>,

    /// The image; repeat the flag or separate by commas for several
    #[arg(
        long = "id",
        alias = "ImageIds",
        value_name = "IMAGE_ID",
        value_delimiter = ','
    )]
    ids: Vec<ImageId>,

    /// The bucket that the export would go to; its region counts
    #[arg(
        long,
        alias = "BucketName",
        value_name = "BUCKET",
        conflicts_with = "objects"
    )]
    bucket: Option<BucketName>,

    /// The format of the files: raw, qcow2, vhd or vmdk
    #[arg(
        long,
        alias = "ExportFormat",
        value_name = "FORMAT",
        default_value_t,
        conflicts_with = "objects"
    )]
    format: ImageFormat,

    /// Export the system disk alone
    #[arg(long, conflicts_with = "objects")]
    system_disk_only: bool,

    /// The storage class that the files are kept in [default: STANDARD, or what each file has]
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    storage_class: Option<StorageClass>,

    /// How many days the files are kept
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = values::days)]
    days: u32,

    /// How many months of 30 days the files are kept
    #[arg(long, value_name = "N", conflicts_with = "days", value_parser = values::months)]
    months: Option<u32>,

    /// How the files are fetched afterwards, once [default: public, or internal with --internal]
    #[arg(long, value_enum, value_name = "WAY")]
    download_over: Option<Way>,

    /// The size of the ranges that are fetched
    #[arg(long, value_name = "SIZE", value_parser = values::part_size, default_value = "8MiB")]
    part_size: u64,

    #[command(flatten)]
    prices: PriceArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// They are not fetched
    None,
    /// Over the public network
    Public,
    /// Over Tencent's internal network, from a CVM in the bucket's region
    Internal,
    /// With the global acceleration of COS, as other tools can
    Acceleration,
}

/// What an estimate is about.
pub(crate) enum Subject {
    Image(ImageId),
    Object(BucketName, ObjectKey),
}

/// One image or one file.
pub(crate) struct Item {
    pub(crate) subject: Subject,
    pub(crate) estimate: Estimate,
}

#[derive(Serialize)]
struct Estimates<'a> {
    schema: &'static str,
    currency: &'a Currency,
    /// Where the prices come from; later ones win.
    prices: &'a [Sheet],
    /// Whether somebody has compared the prices with those of today, where all tables say.
    confirmed_today: Option<bool>,
    days: u32,
    items: Vec<Estimated<'a>>,
    /// The same without the download; `None` where nothing is fetched.
    total_without_download: Option<&'a Cost>,
    total: &'a Cost,
}

/// What all items cost together.
pub(crate) struct Sums {
    pub(crate) total: Cost,
    /// The same without the download; `None` where nothing is fetched.
    pub(crate) without_download: Option<Cost>,
}

#[derive(Serialize)]
struct Estimated<'a> {
    image_id: Option<&'a ImageId>,
    object: Option<String>,
    region: &'a Region,
    quantities: Figures,
    lines: &'a [Line],
    total: &'a Cost,
}

/// Quantities as scripts read them.
#[derive(Serialize)]
struct Figures {
    stored_bytes: Bounds,
    uploaded_bytes: Option<Bounds>,
    requests: Bounds,
    fetched_bytes: FetchedBytes,
}

/// Bytes by the way on which they come.
#[derive(Default, Serialize)]
struct FetchedBytes {
    internal: Bounds,
    public: Bounds,
    acceleration: Bounds,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    debug_assert_eq!(DEFAULT_PART_SIZE_BYTES, 8 << 20, "the help says so");
    let prices = args.prices.table(context.printer)?;
    if let Some(class) = args.storage_class.as_ref()
        && !class.is_documented()
        && !prices.classes().any(|known| known == class)
    {
        context.printer.warning(&format!(
            "--storage-class: the COS documentation knows no class {class}, but {}",
            StorageClass::DOCUMENTED.join(", ")
        ));
    }
    let said = args.said()?;
    let names = Names {
        images: &args.ids,
        bucket: match &said {
            Some(said) => said.bucket(),
            None => args.bucket.as_ref(),
        },
    };
    let journal_use = said.as_ref().map_or(JournalUse::IfThere, Said::journal_use);
    let items = context
        .with_session(names, journal_use, async |session| match &said {
            None => args.images(context, &session, &prices).await,
            Some(said) => {
                let addresses = said.addresses(context, &session).await?;
                args.objects(context, &session, addresses, &prices).await
            }
        })
        .await?;
    let sums = Sums::of(&items);
    context
        .printer
        .data(&tables::estimates(&items, &sums, &prices, args.days()));
    context.printer.json(&Estimates {
        schema: "cvm-export.estimate.v1",
        currency: prices.currency(),
        prices: prices.sheets(),
        confirmed_today: prices.is_confirmed(),
        days: args.days(),
        items: items.iter().map(Item::figures).collect(),
        total_without_download: sums.without_download.as_ref(),
        total: &sums.total,
    });
    Ok(Exit::Done)
}

impl Sums {
    fn of(items: &[Item]) -> Self {
        let estimates = || items.iter().map(|item| &item.estimate);
        let is_fetched = estimates().any(|estimate| !estimate.quantities.fetched.is_empty());
        let rests = estimates().map(Estimate::without_download);
        let rests: Vec<Cost> = rests.collect();
        Self {
            total: Cost::sum(estimates().map(|estimate| &estimate.total)),
            without_download: is_fetched.then(|| Cost::sum(&rests)),
        }
    }
}

impl Args {
    /// The exported files that are meant; `None` for images.
    fn said(&self) -> Result<Option<Said>, Error> {
        match (self.objects.is_empty(), self.ids.is_empty()) {
            (true, false) => return Ok(None),
            (true, true) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "nothing says what is to be estimated: name images with --id, or what is exported as EXPORT_ID \
                     or COS_URL",
                )
                .with_hint("`cvm-export images` and `cvm-export files` list what is there"));
            }
            (false, _) => {}
        }
        let is_known = |text: &&String| text.contains("://") || text.parse::<ExportId>().is_ok();
        if let Some(other) = self.objects.iter().find(|text| !is_known(text)) {
            let shown = CloudText::excerpt(other, 80);
            return Err(Error::new(
                ErrorKind::Usage,
                format!("`{shown}` is neither an export id nor cos://BUCKET/KEY"),
            )
            .with_hint(
                "name images with `--id`, and exported files as `cvm-export files` lists them; manifests of many \
                 images are not there yet",
            ));
        }
        Said::of(&self.objects, None, "estimate").map(Some)
    }

    fn days(&self) -> u32 {
        self.months
            .map_or(self.days, |months| months * DEFAULT_DAYS)
    }

    /// How the files are fetched; `None` where they are not.
    fn route(&self, network: Network) -> Option<Route> {
        match self.download_over {
            None => Some(route(network)),
            Some(Way::None) => None,
            Some(Way::Public) => Some(Route::Public),
            Some(Way::Internal) => Some(Route::Internal),
            Some(Way::Acceleration) => Some(Route::Acceleration),
        }
    }

    /// The region that counts, and the class that files get there.
    async fn place(
        &self,
        context: &Context<'_>,
        session: &Session,
    ) -> Result<(Region, StorageClass), Error> {
        let Some(bucket) = &self.bucket else {
            return Ok((
                super::region(context, session, None).await?,
                usual_class(None),
            ));
        };
        let place = super::resolve(context, session, bucket).await?;
        let cos = session.cloud.cos();
        let looking = async { Ok(cos.head_bucket(&place.bucket, &place.region).await?) };
        let head = context.until_signalled(looking).await?;
        Ok((place.region, usual_class(Some(&head))))
    }

    async fn images(
        &self,
        context: &Context<'_>,
        session: &Session,
        prices: &PriceTable,
    ) -> Result<Vec<Item>, Error> {
        let (region, usual) = self.place(context, session).await?;
        let route = self.route(session.cloud.cos().network());
        let plan = CostPlan {
            class: self.storage_class.clone().unwrap_or(usual),
            days: self.days(),
            download: route.map(|route| (route, self.part_size)),
            ..CostPlan::default()
        };
        let scope = match self.system_disk_only {
            true => DiskScope::SystemDiskOnly,
            false => DiskScope::WholeMachine,
        };
        let mut items: Vec<Item> = Vec::new();
        for image_id in &self.ids {
            let is_known =
                |item: &Item| matches!(&item.subject, Subject::Image(known) if known == image_id);
            if items.iter().any(is_known) {
                continue;
            }
            let fetching = fetch_image(&session.cloud, &region, image_id);
            let image = context.until_signalled(fetching).await?;
            let image = there(image_id, &region, &image)?;
            let sizes = disk_sizes(image, scope).map_err(|problem| {
                let message = format!("the disks of image `{image_id}` are not known: {problem}");
                Error::new(ErrorKind::Unexpected, message)
            })?;
            let quantities = plan.quantities(&region, self.format, &sizes);
            items.push(Item {
                subject: Subject::Image(image_id.clone()),
                estimate: Estimate::of(quantities, prices),
            });
        }
        Ok(items)
    }

    async fn objects(
        &self,
        context: &Context<'_>,
        session: &Session,
        addresses: Vec<ObjectAddress>,
        prices: &PriceTable,
    ) -> Result<Vec<Item>, Error> {
        let cos = session.cloud.cos();
        let mut items = Vec::new();
        for address in addresses {
            let object = objects::look_up(&address, context, session).await?;
            let ObjectAddress {
                bucket,
                region,
                key,
                ..
            } = address;
            let mut stored = StoredObject::seen(&object.storage_class, object.size_bytes);
            if let Some(class) = &self.storage_class {
                stored.class = class.clone();
            }
            let quantities = Quantities::none(region)
                .with_objects([stored])
                .kept_for(self.days());
            let quantities = match self.route(cos.network()) {
                Some(route) => quantities.with_download(route, self.part_size),
                None => quantities,
            };
            items.push(Item {
                subject: Subject::Object(bucket, key),
                estimate: Estimate::of(quantities, prices),
            });
        }
        Ok(items)
    }
}

/// The image, or why there is nothing to estimate.
fn there<'a>(
    image_id: &ImageId,
    region: &Region,
    image: &'a Fact<Option<Image>>,
) -> Result<&'a Image, Error> {
    match image {
        Fact::Known(Some(image)) => return Ok(image),
        Fact::Known(None) => {
            let message = format!("there is no image `{image_id}` in {region}");
            return Err(Error::new(ErrorKind::Precondition, message).with_hint(
                "`cvm-export images` lists what is there; `--region` names another region",
            ));
        }
        Fact::NotPermitted(_) | Fact::NoAnswer(_) | Fact::NotAsked => {}
    }
    let problem = image.why_unknown().unwrap_or_default();
    let message = format!("image `{image_id}` could not be looked up: {problem}");
    let error = Error::new(image.error_kind(), message);
    Err(match image {
        Fact::NotPermitted(_) => {
            error.with_hint("`cvm-export check --print-policy` prints the rights that are needed")
        }
        _ => error.with_hint("run the command again"),
    })
}

impl Item {
    fn figures(&self) -> Estimated<'_> {
        let quantities = &self.estimate.quantities;
        let fetched = quantities.fetched_bytes();
        let mut by_way = FetchedBytes::default();
        match quantities.route {
            Route::Internal => by_way.internal = fetched,
            Route::Public => by_way.public = fetched,
            Route::Acceleration => by_way.acceleration = fetched,
        }
        Estimated {
            image_id: match &self.subject {
                Subject::Image(image_id) => Some(image_id),
                Subject::Object(..) => None,
            },
            object: match &self.subject {
                Subject::Image(_) => None,
                Subject::Object(bucket, key) => Some(format!("cos://{bucket}/{key}")),
            },
            region: &quantities.region,
            quantities: Figures {
                stored_bytes: quantities.stored_bytes(),
                uploaded_bytes: quantities.uploaded_bytes,
                requests: quantities.request_count(),
                fetched_bytes: by_way,
            },
            lines: &self.estimate.lines,
            total: &self.estimate.total,
        }
    }
}
