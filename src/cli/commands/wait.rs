//! `wait`: take up an export that was submitted before, on this machine or any other.

use chrono::{DateTime, Utc};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{ExportOptions, Exporter, WaitTarget};
use cvm_export::model::{BucketName, ExportId, ImageFormat, ImageId, ObjectKey, Prefix};

use super::exit::Exit;
use super::partial::Partial;
use super::settings::JournalUse;
use super::{Context, CostArgs, Finished, LandingArgs, Names, WatchArgs, values};

#[derive(clap::Args, Debug)]
#[command(mut_arg("max_cost", |arg| arg.requires("download")), mut_arg("prices", |arg| arg.requires("download")))]
pub(crate) struct Args {
    /// An export id of this machine's journal; or, with --bucket, object keys
    #[arg(value_name = "EXPORT_ID|KEY")]
    targets: Vec<String>,

    /// The bucket, in full or without its AppId
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// The start of the files' names
    #[arg(long, requires = "bucket", value_name = "PREFIX")]
    prefix: Option<Prefix>,

    /// The image, where no record tells
    #[arg(long, requires = "bucket", value_name = "IMAGE_ID")]
    id: Option<ImageId>,

    /// How many files to wait for under the console's names, where no record tells
    #[arg(long, requires = "bucket", conflicts_with = "id", value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=26))]
    expect: Option<u8>,

    /// The format of the files, where no record tells
    #[arg(long, requires = "bucket", value_name = "FORMAT", default_value_t)]
    format: ImageFormat,

    /// With object keys: when the export was submitted; a file written earlier is not taken for its
    #[arg(long, requires = "bucket", value_name = "TIME", value_parser = values::time)]
    since: Option<DateTime<Utc>>,

    #[command(flatten)]
    watch: WatchArgs,

    #[command(flatten)]
    landing: LandingArgs,

    #[command(flatten)]
    cost: CostArgs,
}

/// What was said, before the bucket's full name and region are known.
enum Said<'a> {
    Export(ExportId),
    InBucket {
        bucket: &'a BucketName,
        keys: Vec<ObjectKey>,
    },
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let said = args.said()?;
    let budget = args.cost.budget(context.printer)?;
    let names = Names {
        bucket: args.bucket.as_ref(),
        ..Names::default()
    };
    let journal_use = match &said {
        Said::Export(_) => JournalUse::Needed,
        Said::InBucket { .. } => JournalUse::IfThere,
    };
    let partial = Partial::new(
        args.id.clone(),
        args.bucket.as_ref(),
        args.prefix.clone(),
        None,
    );
    context.partials.begin(vec![partial], false);
    let working = context
        .with_session(names, journal_use, async |session| {
            let target = match said {
                Said::Export(export_id) => WaitTarget::Export(export_id),
                Said::InBucket { bucket, keys } => {
                    let destination = super::resolve(context, &session, bucket).await?;
                    let (region, bucket) = (destination.region, destination.bucket);
                    if keys.is_empty() {
                        WaitTarget::Prefix {
                            region,
                            bucket,
                            prefix: args.prefix.clone(),
                            image_id: args.id.clone(),
                            format: args.format,
                            expect: args.expect.map(usize::from),
                        }
                    } else {
                        WaitTarget::Keys {
                            region,
                            bucket,
                            keys,
                            since: args.since,
                        }
                    }
                }
            };
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            let options = ExportOptions {
                timeout: args.watch.timeout,
                poll: args.watch.poll(),
                landing: args.landing.landing(&budget),
                ..ExportOptions::default()
            };
            let outcome = exporter.wait(&target, &options).await?;
            Ok(Finished::fetching(outcome, &exporter, options.landing.as_ref()).await)
        })
        .await;
    let finished = context.show_interrupted(working)?;
    let exit = finished.show(context);
    context.printer.json(&finished.outcome);
    Ok(exit)
}

impl Args {
    fn said(&self) -> Result<Said<'_>, Error> {
        let usage = |message: String| Err(Error::new(ErrorKind::Usage, message));
        match (&self.bucket, self.targets.as_slice()) {
            (Some(_), []) if self.since.is_some() => {
                usage("--since goes with object keys; leave it out or name the keys".to_owned())
            }
            (Some(bucket), []) => Ok(Said::InBucket {
                bucket,
                keys: Vec::new(),
            }),
            (Some(bucket), keys) => {
                if self.prefix.is_some() || self.id.is_some() || self.expect.is_some() {
                    return usage(
                        "object keys say all; leave --prefix, --id and --expect out".to_owned(),
                    );
                }
                let keys: Result<Vec<ObjectKey>, _> = keys.iter().map(|key| key.parse()).collect();
                Ok(Said::InBucket {
                    bucket,
                    keys: keys?,
                })
            }
            (None, [export_id]) => match export_id.parse() {
                Ok(export_id) => Ok(Said::Export(export_id)),
                Err(invalid) => usage(format!("EXPORT_ID: {invalid}; object keys need --bucket")),
            },
            (None, _) => usage(
                "name one export id, or --bucket with --prefix or object keys \
                 (example: `cvm-export wait --bucket exports-1250000000 --prefix backup`)"
                    .to_owned(),
            ),
        }
    }
}
