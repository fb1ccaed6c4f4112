//! `status`: what this machine's journal knows, and what COS shows of it now.

use cvm_export::error::Error;
use cvm_export::export::{ExportOutcome, Exporter};
use cvm_export::model::ExportId;
use serde::Serialize;

use super::exit::Exit;
use super::settings::JournalUse;
use super::{Context, Names, values};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this export
    #[arg(value_name = "EXPORT_ID")]
    export_id: Option<ExportId>,

    /// Remove records of exports that are over and older than --older-than from this machine's journal
    #[arg(long, conflicts_with = "export_id")]
    prune: bool,

    /// How old a record must be for --prune, such as 90d
    #[arg(long, requires = "prune", default_value = "90d", value_name = "DURATION", value_parser = values::duration)]
    older_than: std::time::Duration,
}

#[derive(Serialize)]
struct Pruned {
    schema: &'static str,
    removed: Vec<ExportId>,
}

#[derive(Serialize)]
struct Status {
    schema: &'static str,
    items: Vec<ExportOutcome>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    if args.prune {
        return prune(&args, context).await;
    }
    let items = context
        .with_session(Names::default(), JournalUse::Needed, async |session| {
            let exporter = Exporter::new(
                session.cloud.clone(),
                session.journal.clone(),
                session.events.clone(),
                context.signals.cancel(),
            );
            context
                .until_signalled(exporter.status(args.export_id.as_ref()))
                .await
        })
        .await?;
    if items.is_empty() {
        context
            .printer
            .note("this machine's journal knows no export");
    } else {
        context.printer.data(&super::tables::exports(&items));
        for item in &items {
            if let (Some(export_id), Some(reason)) = (&item.export_id, &item.reason) {
                context.printer.note(&format!("{export_id}: {reason}"));
            }
        }
    }
    context.printer.json(&Status {
        schema: "cvm-export.status.v1",
        items,
    });
    Ok(Exit::Done)
}

async fn prune(args: &Args, context: &Context<'_>) -> Result<Exit, Error> {
    let age = chrono::TimeDelta::from_std(args.older_than).unwrap_or(chrono::TimeDelta::MAX);
    let before = cvm_export::clock::now()
        .checked_sub_signed(age)
        .unwrap_or(chrono::DateTime::<chrono::Utc>::MIN_UTC);
    let removed = context
        .with_session(Names::default(), JournalUse::Needed, async |session| {
            Ok(session.journal.prune(before)?)
        })
        .await?;
    for export_id in &removed {
        context.printer.data(&export_id.to_string());
    }
    context.printer.note(&format!(
        "{} removed from this machine's journal; their files in the bucket are unchanged",
        crate::cli::printer::plural(removed.len(), "record")
    ));
    context.printer.json(&Pruned {
        schema: "cvm-export.pruned.v1",
        removed,
    });
    Ok(Exit::Done)
}
