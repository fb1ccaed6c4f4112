//! `images`: the account's custom images, with what each would refuse.

use cvm_export::cloud::actions::cvm::Image;
use cvm_export::error::Error;
use cvm_export::export::{DiskScope, Exporter, check_image, disks};
use cvm_export::model::{BucketName, CloudText, Finding, ImageId, Region, Verdict};
use serde::Serialize;

use super::exit::Exit;
use super::settings::JournalUse;
use super::{Context, Names};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these images
    #[arg(
        long = "id",
        alias = "ImageIds",
        value_name = "IMAGE_ID",
        value_delimiter = ','
    )]
    ids: Vec<ImageId>,

    /// Look in the region of this bucket
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// Judge the system disk alone
    #[arg(long)]
    system_disk_only: bool,
}

#[derive(Serialize)]
pub(crate) struct Listed {
    pub(crate) image_id: CloudText,
    pub(crate) image_name: CloudText,
    pub(crate) os_name: CloudText,
    pub(crate) state: CloudText,
    pub(crate) created_at: Option<chrono::DateTime<chrono::Utc>>,
    pub(crate) disks: usize,
    pub(crate) disk_gib: u64,
    pub(crate) exportable: Option<bool>,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Listing<'a> {
    schema: &'static str,
    region: &'a Region,
    items: Vec<Listed>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let names = Names {
        images: &args.ids,
        bucket: args.bucket.as_ref(),
    };
    let (region, images) = context
        .with_session(names, JournalUse::IfThere, async |session| {
            let region = super::region(context, &session, args.bucket.as_ref()).await?;
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            let listing = exporter.images(&region, &args.ids);
            let images = context.until_signalled(listing).await?;
            Ok((region, images))
        })
        .await?;
    let scope = if args.system_disk_only {
        DiskScope::SystemDiskOnly
    } else {
        DiskScope::WholeMachine
    };
    let items: Vec<Listed> = images
        .iter()
        .map(|image| Listed::new(image, scope))
        .collect();
    if items.is_empty() {
        context
            .printer
            .note(&format!("there is no custom image in {region}"));
    } else {
        context.printer.data(&super::tables::images(&items));
    }
    context.printer.json(&Listing {
        schema: "cvm-export.images.v1",
        region: &region,
        items,
    });
    Ok(Exit::Done)
}

impl Listed {
    fn new(image: &Image, scope: DiskScope) -> Self {
        let findings = check_image(image, scope);
        let has = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
        let disks = disks(image).unwrap_or_default();
        Self {
            image_id: image.image_id.clone(),
            image_name: image.image_name.clone(),
            os_name: image.os_name.clone(),
            state: image.image_state.clone(),
            created_at: image.created_time,
            disks: disks.len(),
            disk_gib: disks.iter().map(|disk| disk.size_gib).sum(),
            exportable: match (has(Verdict::Fail), has(Verdict::Unknown)) {
                (true, _) => Some(false),
                (false, true) => None,
                (false, false) => Some(true),
            },
            findings,
        }
    }
}
