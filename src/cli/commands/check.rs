//! `check`: every precondition with verdict, evidence and remedy; without an image, those of bucket,
//! role and account.

use cvm_export::error::Error;
use cvm_export::event::EventKind;
use cvm_export::export::{ExportOptions, Exporter, PreflightReport, minimal_policy};
use cvm_export::model::{CheckName, Finding, ImageId};
use serde::Serialize;

use super::exit::Exit;
use super::settings::JournalUse;
use super::{Context, RequestArgs};

#[derive(clap::Args, Debug)]
#[command(mut_arg("ids", |ids| ids.required(false).help(
    "The image; repeat the flag for several. Without one, bucket, role and account alone are judged"
)))]
pub(crate) struct Args {
    #[command(flatten)]
    request: RequestArgs,

    /// Print the CAM policy that the caller needs for this bucket, and check nothing
    #[arg(long)]
    print_policy: bool,
}

#[derive(Serialize)]
struct Check<'a> {
    schema: &'static str,
    image_id: Option<&'a ImageId>,
    exportable: Option<bool>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Checks<'a> {
    schema: &'static str,
    items: Vec<Check<'a>>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let images = args.request.images()?;
    let started = cvm_export::clock::now();
    let reports = context
        .with_session(args.request.names(), JournalUse::IfThere, async |session| {
            let destination = super::resolve(context, &session, &args.request.bucket).await?;
            if args.print_policy {
                return Ok(Err(minimal_policy(
                    &destination.bucket,
                    &destination.region,
                )));
            }
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            if images.is_empty() {
                session.events.emit(EventKind::CheckStarted {
                    bucket: destination.bucket.clone(),
                    region: destination.region.clone(),
                });
                let running = session.journal.count_running()?;
                let role = &args.request.role_name;
                let looking =
                    PreflightReport::of_destination(&session.cloud, &destination, role, running);
                let report = context.until_signalled(looking).await?;
                session.events.emit(EventKind::Checked {
                    findings: report.findings.clone(),
                });
                return Ok(Ok(vec![report]));
            }
            let mut reports = Vec::new();
            for image_id in &images {
                let (request, known) = args
                    .request
                    .request(context, &session.cloud, &destination, image_id, started)
                    .await?;
                reports.push(
                    exporter
                        .check(&request, known, &ExportOptions::default())
                        .await?,
                );
            }
            Ok(Ok(reports))
        })
        .await?;
    let reports = match reports {
        Ok(reports) => reports,
        Err(policy) => {
            let text = serde_json::to_string_pretty(&policy).unwrap_or_default();
            context.printer.data(&text);
            context.printer.json(&policy);
            return Ok(Exit::Done);
        }
    };
    let skipped = &args.request.skip_checks;
    print(&reports, skipped, context);
    let worst = reports
        .iter()
        .filter_map(|report| report.require(skipped).err());
    let exits: Vec<Exit> = worst
        .map(|error| Exit::of_error(error.kind(), None))
        .collect();
    Ok(match exits.as_slice() {
        [] => Exit::Done,
        _ if reports.len() > 1 => Exit::SomeFailed,
        [exit, ..] => *exit,
    })
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
            (None, Some(false)) => "no image can be exported there as asked".to_owned(),
            (None, _) => "no image was checked; name one with `--id`".to_owned(),
        };
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
            findings: &report.findings,
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
