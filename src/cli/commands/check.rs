//! `check`: every precondition with verdict, evidence and remedy; without an image, those of the account:
//! keys, caller, clock, hosts, storage, role, and the bucket where one is named.

use std::time::Duration;

use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::EventKind;
use cvm_export::export::{
    AccountQuestion, AccountReport, BeyondExport, ExportOptions, Exporter, PrefixTemplate,
    PreflightReport, check_account, minimal_policy,
};
use cvm_export::model::{CheckName, Finding, ImageId, Verdict};
use serde::Serialize;

use super::exit::Exit;
use super::printer::Loudness;
use super::settings::{JournalUse, Session};
use super::{Context, RequestArgs};

/// How long a bucket may be looked for: whoever checks an account may do so because something hangs.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(clap::Args, Debug)]
#[command(
    mut_arg("ids", |ids| ids.required(false).requires("bucket").help(
        "The image; repeat the flag for several. Without one, the account alone is checked"
    )),
    mut_arg("bucket", |bucket| bucket.required(false).help(
        "The bucket, in full (name-1250000000) or without its AppId; needed with `--id`"
    )),
)]
pub(crate) struct Args {
    #[command(flatten)]
    request: RequestArgs,

    /// Print the CAM policy that the caller needs for this bucket, and check nothing
    #[arg(long, requires = "bucket")]
    print_policy: bool,

    /// With --print-policy: also the right that `image --create-bucket` needs
    #[arg(long, requires = "print_policy")]
    create_bucket: bool,
}

impl Args {
    /// What is to be allowed besides an export.
    fn beyond_export(&self) -> Vec<BeyondExport> {
        let copies = self.request.copies;
        let is_copied = copies.copy_shared || copies.copy_to_bucket_region;
        let create_bucket = self.create_bucket.then_some(BeyondExport::CreateBucket);
        let copy_image = is_copied.then_some(BeyondExport::CopyImage);
        [create_bucket, copy_image].into_iter().flatten().collect()
    }
}

#[derive(Serialize)]
struct Check<'a> {
    schema: &'static str,
    image_id: Option<&'a ImageId>,
    exportable: Option<bool>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Checks<'a> {
    schema: &'static str,
    items: Vec<Check<'a>>,
}

/// What a run brought.
enum Found {
    Policy(serde_json::Value),
    Images(Vec<PreflightReport>),
    /// With what kept the bucket from being found, where something did.
    Account(Box<AccountReport>, Option<Error>),
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let images = args.request.images()?;
    let started = cvm_export::clock::now();
    let found = context
        .with_session(args.request.names(), JournalUse::IfThere, async |session| {
            if images.is_empty() && !args.print_policy {
                let (account, trouble) = account(&args, context, &session).await?;
                return Ok(Found::Account(Box::new(account), trouble));
            }
            let destination = super::resolve(context, &session, args.request.bucket()?).await?;
            if args.print_policy {
                let beyond = args.beyond_export();
                let policy = minimal_policy(&destination.bucket, &destination.region, &beyond)?;
                return Ok(Found::Policy(policy));
            }
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            let mut reports = Vec::new();
            for image_id in &images {
                let (request, known) = args
                    .request
                    .request(context, &session, &destination, image_id, started)
                    .await?;
                let options = ExportOptions {
                    copies: args.request.copies.wishes(&session.region),
                    ..ExportOptions::default()
                };
                reports.push(exporter.check(&request, known, &options).await?);
            }
            Ok(Found::Images(reports))
        })
        .await?;
    let (reports, refusal, trouble) = match found {
        Found::Policy(policy) => {
            let text = serde_json::to_string_pretty(&policy).unwrap_or_default();
            context.printer.data(&text);
            context.printer.json(&policy);
            return Ok(Exit::Done);
        }
        Found::Images(reports) => (reports, None, None),
        Found::Account(account, trouble) => (vec![account.report], account.refusal, trouble),
    };
    let skipped = &args.request.skip_checks;
    print(&reports, skipped, context);
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let worst = reports
        .iter()
        .filter_map(|report| report.require(skipped).err());
    let exits: Vec<Exit> = worst
        .map(|error| Exit::of_error(error.kind(), None))
        .collect();
    Ok(match exits.as_slice() {
        [] => trouble.map_or(Ok(Exit::Done), Err)?,
        _ if reports.len() > 1 => Exit::SomeFailed,
        [exit, ..] => *exit,
    })
}

/// Checks the account, and the bucket where one is named. What keeps the bucket from being found is no
/// reason to say nothing of the rest: it may well be the reason for it.
async fn account(
    args: &Args,
    context: &Context<'_>,
    session: &Session,
) -> Result<(AccountReport, Option<Error>), Error> {
    let (mut destination, mut refusal, mut trouble) = (None, None, None);
    if let Some(bucket) = &args.request.bucket {
        let resolving = super::resolve(context, session, bucket);
        match tokio::time::timeout(PATIENCE, resolving).await {
            Ok(Ok(found)) => destination = Some(found),
            Err(_) => {
                trouble = Some(Error::new(
                    ErrorKind::Unexpected,
                    format!(
                        "bucket `{bucket}` was not found within {} s",
                        PATIENCE.as_secs()
                    ),
                ));
            }
            Ok(Err(error)) => match error.kind() {
                ErrorKind::Credentials => refusal = Some(error),
                ErrorKind::Interrupted => return Err(error),
                _ => trouble = Some(error),
            },
        }
    }
    session.events.emit(match &destination {
        Some(destination) => EventKind::CheckStarted {
            bucket: destination.bucket.clone(),
            region: destination.region.clone(),
        },
        None => EventKind::Settled {
            message: "checking the account".to_owned(),
        },
    });
    let question = AccountQuestion {
        keys: &session.keys,
        destination: destination.as_ref(),
        region: session.region.said(),
        role: &args.request.role_name,
        prefix: args
            .request
            .prefix
            .as_ref()
            .and_then(PrefixTemplate::literal),
        running_exports: session.journal.count_open()?,
        refusal,
    };
    let checking = check_account(&session.cloud, question);
    let account = context.until_signalled(checking).await?;
    session.events.emit(EventKind::Checked {
        findings: account.report.findings.clone(),
    });
    Ok((account, trouble))
}

fn print(reports: &[PreflightReport], skipped: &[CheckName], context: &Context<'_>) {
    for report in reports {
        let image_id = report.image_id();
        context
            .printer
            .data(&super::tables::findings(image_id, &report.findings));
        let line = match (image_id, report.exportable(skipped)) {
            (Some(image_id), Some(true)) => format!("image `{image_id}` can be exported"),
            (Some(image_id), Some(false)) => {
                format!("image `{image_id}` cannot be exported as asked")
            }
            (Some(image_id), None) => {
                format!("image `{image_id}` may be exportable, but what must be known is not")
            }
            (None, Some(false)) => "the account is not ready for exports".to_owned(),
            (None, _) => {
                "nothing found keeps the account from exports; `--id` checks an image as well"
                    .to_owned()
            }
        };
        // In a failure everything was shown; otherwise what could not be seen is only named so far.
        let has_failed = |finding: &Finding| finding.verdict == Verdict::Fail;
        if !report.findings.iter().any(has_failed) && context.printer.loudness == Loudness::Normal {
            let unknown = |finding: &&Finding| finding.verdict == Verdict::Unknown;
            context
                .printer
                .show_findings(report.findings.iter().filter(unknown));
        }
        context
            .printer
            .note(&format!("{line}; nothing was submitted"));
    }
    let item = |report| -> Check<'_> {
        let report: &PreflightReport = report;
        Check {
            schema: "cvm-export.check.v1",
            image_id: report.image_id(),
            exportable: report.exportable(skipped),
            findings: context.printer.findings(&report.findings),
        }
    };
    match reports {
        [report] => context.printer.json(&item(report)),
        _ => context.printer.json(&Checks {
            schema: "cvm-export.checks.v1",
            items: reports.iter().map(item).collect(),
        }),
    }
}
