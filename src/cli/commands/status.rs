//! `status`: what this machine's journal knows, and what COS shows of it now.

use cvm_export::error::Error;
use cvm_export::export::{ExportOutcome, Exporter};
use cvm_export::model::ExportId;
use serde::Serialize;

use super::exit::Exit;
use super::settings::JournalUse;
use super::{Context, Names};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this export
    #[arg(value_name = "EXPORT_ID")]
    export_id: Option<ExportId>,
}

#[derive(Serialize)]
struct Status {
    schema: &'static str,
    items: Vec<ExportOutcome>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
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
