//! `download`: exported objects to files of this machine, or through a pipe.

use std::path::{Path, PathBuf};

use cvm_export::download::{
    DEFAULT_CONNECTIONS, DEFAULT_PART_SIZE_BYTES, DownloadError, DownloadOptions, Downloaded,
    Downloader, Found, ObjectAddress, bytes_to_come, local_names, make_folder,
};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::StoredObject;
use cvm_export::export::{Exporter, Landing, Scales, route, saved};
use cvm_export::model::{BucketName, ObjectKey};
use futures_util::StreamExt;
use serde::Serialize;

use super::exit::Exit;
use super::objects::Said;
use super::printer::{ErrorObject, Output, Printer};
use super::{Context, CostArgs, Names, objects, values};

/// Objects that are looked up together.
const CONCURRENT_LOOKS: usize = 16;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// An export id of this machine's journal, cos://BUCKET/KEY, or, with --bucket, object keys
    #[arg(value_name = "EXPORT_ID|COS_URL|KEY", required = true)]
    targets: Vec<String>,

    /// The bucket, in full or without its AppId
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// A folder (there already, or ending with a slash), a file, or with --force a block device; `-` writes
    /// to stdout, in order
    #[arg(long, value_name = "PATH", default_value = ".")]
    to: PathBuf,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    cost: CostArgs,
}

/// The flags that say how files are fetched; `image` and `wait` share them.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TransferArgs {
    /// The size of the ranges that are fetched
    #[arg(long, value_name = "SIZE", value_parser = values::part_size, default_value = "8MiB")]
    part_size: u64,

    /// The most ranges at once; fewer are used where more bring nothing
    #[arg(long, value_name = "N", alias = "thread-num", default_value_t = DEFAULT_CONNECTIONS,
          value_parser = values::connections)]
    concurrency: usize,

    /// The most bytes a second, such as 20MiB
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    limit_rate: Option<u64>,

    /// Compute the SHA-256 of each file as well
    #[arg(long)]
    sha256: bool,

    /// Refuse an object of which COS names no checksum
    #[arg(long)]
    require_checksum: bool,

    /// Replace a file that stands in the way
    #[arg(long)]
    force: bool,
}

impl TransferArgs {
    pub(crate) fn options(&self) -> DownloadOptions {
        debug_assert_eq!(DEFAULT_PART_SIZE_BYTES, 8 << 20, "the help says so");
        DownloadOptions {
            part_size_bytes: self.part_size,
            connections: self.concurrency,
            bytes_per_second: self.limit_rate,
            sha256: self.sha256,
            require_checksum: self.require_checksum,
            force: self.force,
        }
    }
}

#[derive(Serialize)]
struct Downloads {
    schema: &'static str,
    items: Vec<Listed>,
}

/// One object of a run.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Arrived(Box<Item>),
    Failed {
        bucket: BucketName,
        key: ObjectKey,
        error: Box<ErrorObject>,
    },
}

/// One file that has arrived.
#[derive(Serialize)]
struct Item {
    bucket: BucketName,
    key: ObjectKey,
    size_bytes: u64,
    crc64: Option<String>,
    etag: String,
    storage_class: String,
    local_path: Option<String>,
    sha256: Option<String>,
    /// Whether the checksum was compared with the one that COS names.
    verified: bool,
    fetched_bytes: u64,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let said = Said::of(&args.targets, args.bucket.as_ref(), "download")?;
    let budget = args.cost.budget(context.printer)?;
    let is_pipe = args.to == Path::new("-");
    if is_pipe && context.printer.output != Output::Text {
        return Err(Error::new(
            ErrorKind::Usage,
            "--to -: the data goes to stdout, so --output must be text",
        ));
    }
    let names = Names {
        bucket: said.bucket(),
        ..Names::default()
    };
    let (items, trouble) = context
        .with_session(names, said.journal_use(), async |session| {
            let options = args.transfer.options();
            if let Said::Export(export_id) = &said
                && is_folder(&args.to)
            {
                let mut outcome = objects::exported(export_id, &session)?;
                let exporter = Exporter::new(
                    session.cloud.clone(),
                    session.journal.clone(),
                    session.events.clone(),
                    context.signals.cancel(),
                );
                let landing = Landing {
                    folder: args.to.clone(),
                    options,
                    budget,
                };
                let done = exporter.fetch(&mut outcome, &landing).await;
                let fetched = outcome.files.into_iter().filter_map(|file| file.downloaded);
                let items = fetched.map(|done| Listed::arrived(&outcome.bucket, done));
                return Ok((items.collect(), done.err()));
            }
            let addresses = said.addresses(context, &session).await?;
            let places = places(&args.to, &addresses)?;
            let downloader = Downloader::new(
                session.cloud.cos().clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            let looks = addresses
                .iter()
                .map(|address| downloader.look(address, &options));
            let looks = futures_util::stream::iter(looks).buffered(CONCURRENT_LOOKS);
            let looks: Vec<Result<Found, DownloadError>> = looks.collect().await;
            let found = addresses.iter().zip(&places).zip(&looks);
            let found = found.filter_map(|((address, place), look)| {
                let object = look.as_ref().ok()?.object();
                let bytes = match place {
                    Some(path) => bytes_to_come(object, path, &options),
                    None => object.size_bytes,
                };
                let object = StoredObject::seen(&object.storage_class, bytes);
                Some((&address.region, object))
            });
            let scales = Scales {
                route: route(session.cloud.cos().network()),
                part_size_bytes: options.part_size_bytes,
                budget: &budget,
            };
            scales.weigh(&session.events, found)?;
            let (mut items, mut already_here) = (Vec::new(), Vec::new());
            for ((address, place), found) in addresses.iter().zip(places).zip(looks) {
                let fetched = match (found, &place) {
                    (Err(error), _) => Err(error),
                    (Ok(found), None) => {
                        let stdout = std::io::stdout();
                        downloader.fetch_through(found, stdout, &options).await
                    }
                    (Ok(found), Some(path)) => {
                        downloader.fetch_found(address, found, path, &options).await
                    }
                };
                let error = match fetched {
                    Ok(done) => {
                        already_here.push((&address.region, saved(&done)));
                        items.push(Listed::arrived(&address.bucket, done));
                        continue;
                    }
                    Err(error) => Error::from(error),
                };
                if addresses.len() == 1 || error.kind() == ErrorKind::Interrupted {
                    return Ok((items, Some(error)));
                }
                // One failure never hides the other results.
                context.printer.error(&error, None);
                items.push(Listed::failed(address, &error, context.printer));
            }
            scales.tell_saving(&session.events, already_here);
            Ok((items, None))
        })
        .await?;
    let arrived = items.iter().filter_map(Listed::local_path);
    for path in arrived {
        context.printer.data(path);
    }
    let has_failures = items
        .iter()
        .any(|item| matches!(item, Listed::Failed { .. }));
    let is_promised = trouble.as_ref().is_none_or(|trouble: &Error| {
        matches!(
            trouble.kind(),
            ErrorKind::Verification | ErrorKind::LocalDisk | ErrorKind::Interrupted
        )
    });
    if is_promised {
        context.printer.json(&Downloads {
            schema: "cvm-export.downloads.v1",
            items,
        });
    }
    match trouble {
        Some(trouble) => Err(trouble),
        None if has_failures => Ok(Exit::SomeFailed),
        None => Ok(Exit::Done),
    }
}

impl Listed {
    fn arrived(bucket: &BucketName, done: Downloaded) -> Self {
        Self::Arrived(Box::new(Item::new(bucket, done)))
    }

    fn failed(address: &ObjectAddress, error: &Error, printer: &Printer) -> Self {
        let exit = Exit::of_error(error.kind(), None);
        Self::Failed {
            bucket: address.bucket.clone(),
            key: address.key.clone(),
            error: Box::new(ErrorObject::new(error, exit, printer)),
        }
    }

    fn local_path(&self) -> Option<&String> {
        match self {
            Self::Arrived(item) => item.local_path.as_ref(),
            Self::Failed { .. } => None,
        }
    }
}

/// A path as text: JSON has no other, and a name that is no Unicode must not break the result.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl Item {
    fn new(bucket: &BucketName, done: Downloaded) -> Self {
        Self {
            bucket: bucket.clone(),
            key: done.object.key,
            size_bytes: done.object.size_bytes,
            crc64: done.crc64.map(|crc64| crc64.to_string()),
            etag: done.object.etag,
            storage_class: done.object.storage_class,
            local_path: done.path.as_deref().map(shown),
            sha256: done.sha256,
            verified: done.is_verified,
            fetched_bytes: done.fetched_bytes,
        }
    }
}

/// Where each object goes; `None` is stdout.
fn places(to: &Path, addresses: &[ObjectAddress]) -> Result<Vec<Option<PathBuf>>, Error> {
    let usage = |message: String| Err(Error::new(ErrorKind::Usage, message));
    if to == Path::new("-") {
        return match addresses {
            [_] => Ok(vec![None]),
            _ => usage(format!(
                "--to -: only one object goes through a pipe, not {}",
                addresses.len()
            )),
        };
    }
    if is_folder(to) {
        let names = local_names(addresses.iter().map(|address| &address.key))?;
        make_folder(to)?;
        return Ok(names.into_iter().map(|name| Some(to.join(name))).collect());
    }
    match addresses {
        [_] => Ok(vec![Some(to.to_owned())]),
        _ => usage(format!(
            "--to: {} objects need a folder, and `{}` is none; end it with a slash to make it one",
            addresses.len(),
            to.display()
        )),
    }
}

/// Whether `--to` names a folder: one that is there, or one that is written like one.
fn is_folder(to: &Path) -> bool {
    let ends_like_one = to
        .as_os_str()
        .to_string_lossy()
        .ends_with(std::path::MAIN_SEPARATOR);
    to.is_dir() || ends_like_one
}
