//! The exports of one command: whoever is ready goes, and downloads have a queue of their own.
//!
//! ```text
//! images ─► slot: check, submit, watch ─► queue ─► fetch, one image at a time ─► results, in the order asked for
//! ```
//!
//! A slot is free again as soon as its export has ended, however long its download waits or takes. How many
//! exports really run at once is up to the account's limit; one above it holds its slot and is tried again.

use cvm_export::error::Error;
use cvm_export::export::{
    ExportOptions, ExportOutcome, ExportRequest, Exporter, Known, OutcomeFile,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Asked, Finished};

/// How the exports of one command are made.
pub(super) struct Several<'a> {
    pub(super) exporter: &'a Exporter,
    pub(super) options: &'a ExportOptions,
    /// How many exports may run at once.
    pub(super) at_once: usize,
    pub(super) is_dry_run: bool,
}

impl Several<'_> {
    /// Makes the exports that `requests` ask for, and fetches their files where that is asked for. The
    /// results are in the same order.
    pub(super) async fn run(&self, requests: Vec<Asked>) -> Vec<Result<Finished, Error>> {
        let (ready, mut queue) = mpsc::unbounded_channel();
        let exporting = async move {
            let ready = &ready;
            futures_util::stream::iter(requests.into_iter().enumerate())
                .for_each_concurrent(self.at_once, |(place, request)| async move {
                    let exported = self.export(request).await;
                    // The queue is there until the last export has ended.
                    drop(ready.send((place, exported)));
                })
                .await;
        };
        let fetching = async {
            let mut results = Vec::new();
            while let Some((place, exported)) = queue.recv().await {
                let result = match exported {
                    Ok(outcome) => Ok(self.fetch(outcome).await),
                    Err(error) => Err(error),
                };
                results.push((place, result));
            }
            results
        };
        let ((), mut results) = tokio::join!(exporting, fetching);
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn export(&self, request: Asked) -> Result<ExportOutcome, Error> {
        let (request, known) = request?;
        if self.is_dry_run {
            return self.check(&request, known).await;
        }
        self.exporter.export(&request, known, self.options).await
    }

    async fn check(&self, request: &ExportRequest, known: Known) -> Result<ExportOutcome, Error> {
        let report = self.exporter.check(request, known, self.options).await?;
        report.require(&self.options.skipped_checks)?;
        let files = report.facts.files.iter().flatten();
        // The files of a copy are named after the copy, which is not there yet.
        let files = files.filter(|_| report.facts.copy.is_none());
        let files = files.filter_map(OutcomeFile::expected);
        Ok(ExportOutcome::checked(request, files.collect()))
    }

    async fn fetch(&self, outcome: ExportOutcome) -> Finished {
        Finished::fetching(outcome, self.exporter, self.options.landing.as_ref()).await
    }
}
