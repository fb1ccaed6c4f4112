//! The exports of one command: whoever is ready goes, and downloads have a queue of their own.
//!
//! ```text
//! images ─► slot: check, submit, watch ─► queue ─► fetch, one image at a time ─► results, in the order asked for
//! ```
//!
//! A slot is free again as soon as its export has ended, however long its download waits or takes. How many
//! exports really run at once is up to the account's limit; one above it holds its slot and is tried again.

use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::{Ending, EventKind, Events};
use cvm_export::export::{
    DiskScope, ExportOptions, ExportOutcome, ExportRequest, Exporter, Known, OutcomeFile,
    OutcomeState, Waiting, disk_sizes,
};
use cvm_export::model::{ImageFormat, ImageId, Region};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::summary::{hint_of, reason_of};
use super::{Asked, Context, Exit, Finished};
use crate::cli::totals::complete_bytes;

/// Images that are described by one call.
const DESCRIBED_AT_ONCE: usize = 100;

/// How the exports of one command are made.
pub(super) struct Several<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) exporter: &'a Exporter,
    pub(super) events: &'a Events,
    /// The images, in the order asked for.
    pub(super) images: &'a [ImageId],
    pub(super) options: &'a ExportOptions,
    pub(super) scope: DiskScope,
    /// How many exports may run at once.
    pub(super) at_once: usize,
    pub(super) is_dry_run: bool,
}

impl Several<'_> {
    /// Makes the exports that `requests` ask for, one for each image, and fetches their files where that is
    /// asked for. The results are in the order of the images.
    pub(super) async fn run(&self, requests: Vec<Asked>) -> Vec<Result<Finished, Error>> {
        let to_measure = self.to_measure(&requests);
        let (ready, mut queue) = mpsc::unbounded_channel();
        let exporting = async move {
            let ready = &ready;
            futures_util::stream::iter(self.images.iter().zip(requests).enumerate())
                .for_each_concurrent(self.at_once, |(place, (image_id, request))| async move {
                    let exported = self.export(request).await;
                    self.note_end(image_id, &exported);
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
        let working = async { tokio::join!(exporting, fetching).1 };
        let measuring = async {
            self.measure(to_measure).await;
            std::future::pending::<()>().await
        };
        let mut results = tokio::select! {
            results = working => results,
            () = measuring => unreachable!("it is pending for ever"),
        };
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
        let landing = self.options.landing.as_ref();
        let finished = Finished::fetching(outcome, self.exporter, landing).await;
        if landing.is_none() || finished.outcome.state != OutcomeState::Complete {
            return finished;
        }
        let Some(image_id) = &finished.outcome.image_id else {
            return finished;
        };
        self.context.partials.end(image_id, &finished.outcome);
        let trouble = finished.trouble.as_ref();
        if self.is_told() && !trouble.is_some_and(is_interruption) {
            self.events.about(image_id).emit(EventKind::Landed {
                reason: trouble.map(reason_of),
                hint: trouble.and_then(hint_of),
            });
        }
        finished
    }

    /// Whether ends are told while the run goes on. One alone is told when the run ends.
    fn is_told(&self) -> bool {
        self.images.len() > 1
    }

    /// Notes that an export has ended, for whoever watches and for a run that is ended at once.
    fn note_end(&self, image_id: &ImageId, exported: &Result<ExportOutcome, Error>) {
        let partials = &self.context.partials;
        let end = match exported {
            Ok(outcome) => {
                partials.end(image_id, outcome);
                (!outcome.interrupted).then(|| ending_of(outcome))
            }
            // The run's own end tells of the only one.
            Err(_) if !self.is_told() => None,
            Err(error) => {
                let exit = Exit::of_error(error.kind(), self.context.signals.received());
                let known = partials.failed(image_id, error, exit, self.context.printer);
                (!is_interruption(error)).then(|| EventKind::Ended {
                    state: ending(known.state()),
                    reused: false,
                    files: 0,
                    size_bytes: 0,
                    reason: Some(reason_of(error)),
                    hint: hint_of(error),
                })
            }
        };
        if let Some(end) = end.filter(|_| self.is_told()) {
            self.events.about(image_id).emit(end);
        }
    }

    /// The images whose size tells how large their files will be, and where they are.
    fn to_measure(&self, requests: &[Asked]) -> Option<(Region, Vec<ImageId>)> {
        let (first, _) = requests.iter().flatten().next()?;
        let is_worth_it = self.is_told()
            && !self.is_dry_run
            && self.options.waiting == Waiting::Watch
            && !self.options.copies.is_any()
            && first.format == ImageFormat::Raw;
        let asked = requests.iter().flatten();
        let images = asked.map(|(request, _)| request.image_id.clone()).collect();
        is_worth_it.then(|| (first.region.clone(), images))
    }

    /// Tells how large the exports will be, for the sums that are shown meanwhile; nothing depends on it.
    async fn measure(&self, images: Option<(Region, Vec<ImageId>)>) {
        let Some((region, images)) = images else {
            return;
        };
        for some in images.chunks(DESCRIBED_AT_ONCE) {
            let described = self.exporter.images(&region, some).await;
            for image in described.iter().flatten() {
                let Some(image_id) = some.iter().find(|id| image.image_id == *id.as_str()) else {
                    continue;
                };
                let sizes = disk_sizes(image, self.scope).unwrap_or_default();
                let gib = sizes.into_iter().fold(0, u64::saturating_add);
                if let Some(size_bytes) = gib.checked_mul(1 << 30).filter(|bytes| *bytes > 0) {
                    let events = self.events.about(image_id);
                    events.emit(EventKind::Expected { size_bytes });
                }
            }
        }
    }
}

/// Whether `error` is the signal that ends the run, of which the run's own end tells.
fn is_interruption(error: &Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

fn ending_of(outcome: &ExportOutcome) -> EventKind {
    EventKind::Ended {
        state: ending(outcome.state),
        reused: outcome.reused,
        files: outcome.files.len(),
        size_bytes: complete_bytes(outcome),
        reason: outcome.reason.clone(),
        hint: None,
    }
}

fn ending(state: OutcomeState) -> Ending {
    match state {
        OutcomeState::Checked => Ending::Checked,
        OutcomeState::Submitted => Ending::Submitted,
        OutcomeState::Running => Ending::Running,
        OutcomeState::Complete => Ending::Complete,
        OutcomeState::Failed => Ending::Failed,
        OutcomeState::Unknown => Ending::Unknown,
    }
}
