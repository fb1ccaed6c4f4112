//! `files url`: presigned links, and what leaks with them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cvm_export::cloud::cos::{LinkEnd, ObjectLink, ObjectMeta};
use cvm_export::error::{Error, ErrorKind};
use cvm_export::estimate::PriceTable;
use cvm_export::model::{BucketName, ObjectKey, StorageClass};
use serde::Serialize;

use super::objects::{self, Said};
use super::{Context, Exit, Names, values};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// An export id of this machine's journal, cos://BUCKET/KEY, or, with --bucket, object keys
    #[arg(value_name = "EXPORT_ID|COS_URL|KEY", required = true)]
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
    let said = Said::of(&args.targets, args.bucket.as_ref(), "files url")?;
    let names = Names {
        bucket: said.bucket(),
        ..Names::default()
    };
    let links = context
        .with_session(names, said.journal_use(), async |session| {
            let addresses = said.addresses(context, &session).await?;
            let cos = session.cloud.cos();
            let mut links = Vec::new();
            for address in addresses {
                let (bucket, region, key) = (&address.bucket, &address.region, &address.key);
                let mut size_bytes = None;
                if !args.no_check {
                    let looking = objects::look_up(&address, context, &session).await;
                    let found = looking.map_err(or_unchecked)?;
                    tell_archived(key, &found, context);
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

/// The same with the flag in its hint that does without the look.
fn or_unchecked(error: Error) -> Error {
    let all_the_same = "`--no-check` signs a link all the same";
    match error.hint().map(str::to_owned) {
        Some(hint) if error.kind() == ErrorKind::Precondition => {
            error.with_hint(format!("{hint}; {all_the_same}"))
        }
        _ => error,
    }
}

/// Warns of an object that cannot be read as it lies there.
fn tell_archived(key: &ObjectKey, found: &ObjectMeta, context: &Context<'_>) {
    let Ok(class) = found.storage_class.parse::<StorageClass>() else {
        return;
    };
    if PriceTable::default().wants_restoration(&class) {
        context.printer.warning(&format!(
            "`{key}` is archived ({class}): its link brings an error until it is restored"
        ));
    } else if class.as_str().ends_with("INTELLIGENT_TIERING") {
        context.printer.warning(&format!(
            "`{key}` is of class {class}, which moves what nobody reads to archive tiers where the bucket is set up \
             so: from there its link brings an error until it is restored"
        ));
    }
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
    let proxy = links.clone().find_map(|link| link.proxy.as_ref());
    // Where the cloud is played, no name server knows the link's host.
    let proxy = proxy.map_or_else(String::new, |proxy| format!("--proxy {proxy} "));
    printer.note(&format!(
        "it is signed for GET: `curl {proxy}--output FILE 'LINK'` fetches, `curl --head` is refused"
    ));
}

fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}
