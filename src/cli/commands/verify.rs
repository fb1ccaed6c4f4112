//! `verify`: local files against a record, against the bucket, or for what they hold.

use std::path::{Path, PathBuf};

use cvm_export::crc64::Crc64;
use cvm_export::download::{DownloadError, Expected, Seen, read_small, verify_file};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::model::{BucketName, ObjectKey};
use serde::Serialize;

use super::exit::Exit;
use super::settings::JournalUse;
use super::{Context, Names};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Compare with this record: the JSON of an export, or the record beside its files; no network
    #[arg(long, value_name = "RECORD", conflicts_with = "bucket")]
    record: Option<PathBuf>,

    /// Compare with the objects of this bucket
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// With --bucket: the object of a single file, where it is not called like the file
    #[arg(long, requires = "bucket", value_name = "KEY")]
    key: Option<ObjectKey>,

    /// Say what a raw image holds, and how it would be started
    #[cfg(feature = "inspect")]
    #[arg(long)]
    disk: bool,
}

/// What was found about one file.
#[derive(Serialize)]
struct Item {
    file: String,
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[cfg(feature = "inspect")]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<cvm_export::inspect::DiskReport>,
}

#[derive(Serialize)]
struct Verified {
    schema: &'static str,
    items: Vec<Item>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let expectations = args.expectations(context).await?;
    let mut items = Vec::new();
    for (file, expected) in args.files.iter().zip(expectations) {
        let mut item = Item::new(file);
        if let Some(expected) = expected {
            let (path, wanted, cancel) = (file.clone(), expected, context.signals.cancel());
            let reading = tokio::task::spawn_blocking(move || verify_file(&path, &wanted, &cancel));
            let seen = context
                .until_signalled(async { read(file, join(reading.await)) })
                .await?;
            item.take(seen);
        }
        #[cfg(feature = "inspect")]
        if args.disk {
            item.disk = Some(cvm_export::inspect::inspect(file)?);
        }
        item.show(context);
        items.push(item);
    }
    let all_right = items.iter().all(|item| item.verified != Some(false));
    context.printer.json(&Verified {
        schema: "cvm-export.verify.v1",
        items,
    });
    Ok(if all_right {
        Exit::Done
    } else {
        Exit::Verification
    })
}

fn join<T>(done: Result<T, tokio::task::JoinError>) -> T {
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What was seen of `file`, or why it could not be read, in words that fit.
fn read(file: &Path, seen: Result<Seen, DownloadError>) -> Result<Seen, Error> {
    seen.map_err(|error| match error {
        DownloadError::Disk { .. } => {
            let message = format!("`{}` cannot be verified", file.display());
            Error::new(ErrorKind::LocalDisk, message)
                .with_hint("look whether the file is there and may be read")
                .with_source(error)
        }
        other => other.into(),
    })
}

impl Args {
    /// What each file should be; `None` where nothing was named to compare with.
    async fn expectations(&self, context: &Context<'_>) -> Result<Vec<Option<Expected>>, Error> {
        if let Some(record) = &self.record {
            let known = read_record(record)?;
            return self
                .files
                .iter()
                .map(|file| in_record(&known, file, record).map(Some))
                .collect();
        }
        if let Some(bucket) = &self.bucket {
            return self.in_bucket(bucket, context).await;
        }
        #[cfg(feature = "inspect")]
        if self.disk {
            return Ok(vec![None; self.files.len()]);
        }
        Err(
            Error::new(ErrorKind::Usage, "there is nothing to compare with").with_hint(
                "name `--record RECORD`, `--bucket BUCKET`, or look into the image with `--disk`",
            ),
        )
    }

    async fn in_bucket(
        &self,
        bucket: &BucketName,
        context: &Context<'_>,
    ) -> Result<Vec<Option<Expected>>, Error> {
        if self.key.is_some() && self.files.len() > 1 {
            return Err(Error::new(
                ErrorKind::Usage,
                "--key: it names the object of one file, not of several",
            ));
        }
        let keys = self.files.iter().map(|file| match &self.key {
            Some(key) => Ok(key.clone()),
            None => Ok(name_of(file)?.parse()?),
        });
        let keys = keys.collect::<Result<Vec<ObjectKey>, Error>>()?;
        let names = Names {
            bucket: Some(bucket),
            ..Names::default()
        };
        context
            .with_session(names, JournalUse::IfThere, async |session| {
                let place = super::resolve(context, &session, bucket).await?;
                let mut expectations = Vec::new();
                for key in &keys {
                    let looking = async {
                        let cos = session.cloud.cos();
                        Ok(cos
                            .head_object(&place.bucket, &place.region, key, None)
                            .await?)
                    };
                    let Some(object) = context.until_signalled(looking).await? else {
                        let message =
                            format!("there is no object `{key}` in bucket `{}`", place.bucket);
                        return Err(Error::new(ErrorKind::Precondition, message)
                            .with_hint("name the object with `--key KEY`"));
                    };
                    expectations.push(Some(Expected {
                        size_bytes: Some(object.size_bytes),
                        crc64: object.crc64.and_then(|crc64| crc64.parse().ok()).map(Crc64),
                        sha256: None,
                    }));
                }
                Ok(expectations)
            })
            .await
    }
}

fn name_of(file: &Path) -> Result<&str, Error> {
    file.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                format!("`{}` names no file", file.display()),
            )
        })
}

/// The files that a record speaks of, by their names: a result of `--output json`, or the record that
/// lies in the bucket beside them.
fn read_record(path: &Path) -> Result<Vec<(String, Expected)>, Error> {
    let shown = path.display();
    let text = read_small(path).map_err(|error| {
        Error::new(
            ErrorKind::LocalDisk,
            format!("the record `{shown}` cannot be read"),
        )
        .with_source(error)
    })?;
    let refuse = || {
        Error::new(
            ErrorKind::Usage,
            format!("`{shown}` is no record of an export"),
        )
    };
    let record: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| refuse().with_source(error))?;
    let schema = record["schema"].as_str().unwrap_or_default();
    if !["cvm-export.export.v1", "cvm-export.record.v1"].contains(&schema) {
        return Err(refuse().with_hint(
            "it is the object of `--output json`, or `….cvm-export.json` from the bucket",
        ));
    }
    let files = record["files"].as_array().ok_or_else(refuse)?;
    let read = |file: &serde_json::Value| {
        let object = file
            .get("object")
            .filter(|object| object.is_object())
            .unwrap_or(file);
        let key: ObjectKey = object["key"].as_str()?.parse().ok()?;
        let crc64 = object["crc64"]
            .as_str()
            .and_then(|crc64| crc64.parse().ok());
        let is_sha256 =
            |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let sha256 = match &object["sha256"] {
            serde_json::Value::String(text) => Some(Some(text.as_str()).filter(is_sha256)?),
            _ => None,
        };
        let expected = Expected {
            size_bytes: object["size_bytes"].as_u64(),
            crc64: crc64.map(Crc64),
            sha256: sha256.map(str::to_owned),
        };
        Some((key.file_name().to_owned(), expected))
    };
    Ok(files.iter().filter_map(read).collect())
}

fn in_record(known: &[(String, Expected)], file: &Path, record: &Path) -> Result<Expected, Error> {
    let name = name_of(file)?;
    let found = known
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, expected)| expected);
    match (found, known) {
        (Some(expected), _) => Ok(expected.clone()),
        // A single file may have been given another name.
        (None, [(_, expected)]) => Ok(expected.clone()),
        (None, _) => Err(Error::new(
            ErrorKind::Usage,
            format!("`{}` speaks of no file called `{name}`", record.display()),
        )),
    }
}

impl Item {
    fn new(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            verified: None,
            difference: None,
            size_bytes: None,
            crc64: None,
            sha256: None,
            #[cfg(feature = "inspect")]
            disk: None,
        }
    }

    fn take(&mut self, seen: Seen) {
        let unproven = "no checksum is known to compare it with";
        self.difference = match (seen.difference, seen.is_proven) {
            (None, false) => Some(unproven.to_owned()),
            (difference, _) => difference,
        };
        self.verified = Some(self.difference.is_none());
        self.size_bytes = Some(seen.size_bytes);
        self.crc64 = Some(seen.crc64.to_string());
        self.sha256 = seen.sha256;
    }

    fn show(&self, context: &Context<'_>) {
        let file = &self.file;
        match (self.verified, &self.difference) {
            (Some(true), _) => context.printer.data(&format!("{file}: OK")),
            (Some(false), difference) => {
                let difference = difference.as_deref().unwrap_or_default();
                context
                    .printer
                    .data(&format!("{file}: FAILED ({difference})"));
            }
            (None, _) => {}
        }
        #[cfg(feature = "inspect")]
        if let Some(disk) = &self.disk {
            let path = Path::new(&self.file);
            for line in disk.summary() {
                context.printer.data(&line);
            }
            // A line that cannot work is worse than none.
            if !disk.boots() {
                return;
            }
            context
                .printer
                .note("a machine writes to its disk; start a copy to keep what the record proves:");
            let name = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let words = disk.virt_install(path, &name.unwrap_or_else(|| "disk".to_owned()));
            context.printer.data(&cvm_export::model::shell_line(&words));
        }
    }
}
