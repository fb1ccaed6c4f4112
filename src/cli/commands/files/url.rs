//! `files url`: presigned links, and what leaks with them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cvm_export::cloud::cos::{LinkEnd, ObjectLink};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::model::{BucketName, ObjectKey};
use serde::Serialize;

use super::{Context, Exit, JournalUse, Names, objects, values};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// cos://BUCKET/KEY, or, with --bucket, object keys
    #[arg(value_name = "COS_URL|KEY", required = true)]
    targets: Vec<String>,

    /// The bucket, in full or without its AppId
    #[arg(long, alias = "BucketName", value_name = "BUCKET")]
    bucket: Option<BucketName>,

    /// How long the links are good, up to 7d; temporary keys may end earlier, and the links with them
    #[arg(long, value_name = "DURATION", value_parser = values::link_lifetime, default_value = "1h")]
    expires: Duration,

    /// Do not look whether the objects are there
    #[arg(long)]
    no_check: bool,
}

#[derive(Serialize)]
struct Links {
    schema: &'static str,
    items: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    bucket: BucketName,
    key: ObjectKey,
    url: String,
    expires_at: DateTime<Utc>,
    size_bytes: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let named = args.targets.iter();
    let named = named.map(|target| objects::named(target, args.bucket.as_ref()));
    let named: Vec<(BucketName, ObjectKey)> = named.collect::<Result<_, _>>()?;
    let names = Names {
        bucket: named.first().map(|(bucket, _)| bucket),
        ..Names::default()
    };
    let links = context
        .with_session(names, JournalUse::IfThere, async |session| {
            let addresses = objects::addresses(&named, context, &session).await?;
            let cos = session.cloud.cos();
            let mut links = Vec::new();
            for address in addresses {
                let (bucket, region, key) = (&address.bucket, &address.region, &address.key);
                let mut size_bytes = None;
                if !args.no_check {
                    let looking = async { Ok(cos.head_object(bucket, region, key, None).await?) };
                    let Some(found) = context.until_signalled(looking).await? else {
                        return Err(missing(bucket, key));
                    };
                    if matches!(found.storage_class.as_str(), "ARCHIVE" | "DEEP_ARCHIVE") {
                        context.printer.warning(&format!(
                            "`{key}` is archived ({}): its link brings an error until it is restored",
                            found.storage_class
                        ));
                    }
                    size_bytes = Some(found.size_bytes);
                }
                let link = cos.sign_link(bucket, region, key, args.expires).await;
                links.push((address, size_bytes, link));
            }
            Ok(links)
        })
        .await?;
    let shown = links.iter().map(|(.., link)| link);
    warn(shown, context);
    for (.., link) in &links {
        context.printer.data(&link.url);
    }
    let items = links.into_iter().map(|(address, size_bytes, link)| Link {
        bucket: address.bucket,
        key: address.key,
        url: link.url,
        expires_at: link.expires_at,
        size_bytes,
    });
    context.printer.json(&Links {
        schema: "cvm-export.links.v1",
        items: items.collect(),
    });
    Ok(Exit::Done)
}

fn missing(bucket: &BucketName, key: &ObjectKey) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!("there is no object `{key}` in bucket `{bucket}`"),
    )
    .with_hint(format!(
        "`cvm-export files --bucket {bucket}` lists what is there; `--no-check` signs a link all the same"
    ))
}

/// Says what goes out of hand with the links.
fn warn<'a>(links: impl Iterator<Item = &'a ObjectLink> + Clone, context: &Context<'_>) {
    let printer = context.printer;
    let Some(end) = links.clone().map(|link| link.expires_at).max() else {
        return;
    };
    match links
        .clone()
        .map(|link| link.end)
        .find(|end| *end != LinkEnd::AsAsked)
    {
        Some(LinkEnd::WithKeys) => printer.warning(&format!(
            "the keys are temporary and end at {}, and the link with them: earlier than asked for",
            shown(end)
        )),
        Some(LinkEnd::NotKnown) => printer.warning(
            "the keys are temporary, and nobody told when they end: the link ends with them",
        ),
        Some(LinkEnd::AsAsked) | None => {}
    }
    printer.note(&format!(
        "whoever has the link can fetch the object until {}, without keys of his own; it cannot be taken back, \
         except by disabling the key that signed it",
        shown(end)
    ));
    let has_token = links
        .clone()
        .any(|link| link.url.contains("x-cos-security-token="));
    printer.note(&format!(
        "the SecretId{} can be read in it, and it stays in shell histories, chats, and logs of servers and \
         proxies that it passes",
        if has_token { " and the session token" } else { "" }
    ));
    printer.note(
        "it is signed for GET: `curl --output FILE 'LINK'` fetches, `curl --head` is refused",
    );
}

fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}
