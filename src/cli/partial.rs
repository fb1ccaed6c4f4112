//! What is known of this run's exports while it goes on: what a script gets of an export that has no
//! outcome, because it failed before the submit or because the run ends at once.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::{Event, EventKind};
use cvm_export::export::{Destination, ExportOutcome, OutcomeFile, OutcomeState};
use cvm_export::model::{BucketName, ExportId, ImageFormat, ImageId, Prefix, Region, TaskId};
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::printer::{ErrorObject, Printer};
use crate::cli::totals::Totals;

/// A documented field that only an outcome can fill: null.
type NotKnown = ();

/// The documented object of one export, with null for what is not known.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Partial {
    schema: &'static str,
    export_id: Option<ExportId>,
    state: OutcomeState,
    /// Only an outcome knows of files that are the result as they stand.
    reused: bool,
    image_id: Option<ImageId>,
    image_name: NotKnown,
    region: Option<Region>,
    bucket: Option<BucketName>,
    format: Option<ImageFormat>,
    prefix: Option<Prefix>,
    task_id: Option<TaskId>,
    request_id: NotKnown,
    submitted_at: NotKnown,
    completed_at: NotKnown,
    reattach: Vec<String>,
    files: Vec<OutcomeFile>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
    /// What it came to, while the run goes on with other exports.
    #[serde(skip)]
    outcome: Option<Box<ExportOutcome>>,
}

/// Several exports, as several outcomes are shown.
#[derive(Serialize)]
struct Items<'a> {
    schema: &'static str,
    totals: Totals,
    items: Vec<Shown<'a>>,
}

/// One export, as far as it is known.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Outcome(&'a ExportOutcome),
    Partial(&'a Partial),
}

impl Partial {
    /// An export of which the command line alone is known.
    pub(crate) fn new(
        image_id: Option<ImageId>,
        bucket: Option<&BucketName>,
        prefix: Option<Prefix>,
        format: Option<ImageFormat>,
    ) -> Self {
        Self {
            schema: "cvm-export.export.v1",
            export_id: None,
            state: OutcomeState::Checked,
            reused: false,
            image_id,
            image_name: (),
            region: None,
            // A name without its AppId is not the bucket's.
            bucket: bucket.filter(|name| name.app_id().is_some()).cloned(),
            format,
            prefix,
            task_id: None,
            request_id: (),
            submitted_at: (),
            completed_at: (),
            reattach: Vec::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            error: None,
            outcome: None,
        }
    }

    /// Events come later than what the run itself notes: an end stays.
    fn take(&mut self, kind: &EventKind, submits: bool) {
        let is_over = self.error.is_some() || self.outcome.is_some();
        match kind {
            // From here on a submit may be on its way.
            EventKind::Checked { .. } if submits && !is_over => self.state = OutcomeState::Unknown,
            EventKind::Submitted {
                export_id,
                task_id,
                reattach,
                ..
            } => {
                self.task_id = *task_id;
                self.run_as(export_id, reattach, is_over);
            }
            EventKind::Attached {
                export_id,
                reattach,
                ..
            } => self.run_as(export_id, reattach, is_over),
            _ => {}
        }
    }

    fn run_as(&mut self, export_id: &ExportId, reattach: &[String], is_over: bool) {
        if self.outcome.is_some() {
            return;
        }
        if !is_over {
            self.state = OutcomeState::Running;
        }
        self.export_id = Some(export_id.clone());
        self.reattach = reattach.to_vec();
    }

    /// Notes what the export came to.
    fn end(&mut self, outcome: &ExportOutcome) {
        self.state = outcome.state;
        self.reattach.clone_from(&outcome.reattach);
        self.outcome = Some(Box::new(outcome.clone()));
    }

    pub(crate) fn state(&self) -> OutcomeState {
        self.state
    }

    fn shown(&self) -> Shown<'_> {
        match &self.outcome {
            Some(outcome) => Shown::Outcome(outcome),
            None => Shown::Partial(self),
        }
    }

    fn counted_in(mut totals: Totals, item: &Self) -> Totals {
        match &item.outcome {
            Some(outcome) => totals.count_outcome(outcome),
            None => totals.count(item.state),
        }
        totals
    }

    /// The same export after `error`, which says that nothing more will be done about it. What was
    /// submitted goes on all the same.
    fn after(mut self, error: &Error, exit: Exit, printer: &Printer) -> Self {
        self.state = match error.kind() {
            _ if !self.reattach.is_empty() => OutcomeState::Running,
            ErrorKind::Interrupted => OutcomeState::Checked,
            _ => OutcomeState::Failed,
        };
        self.error = Some(ErrorObject::new(error, exit, printer));
        self
    }
}

/// The exports of this run; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partials(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    items: Vec<Partial>,
    submits: bool,
    /// Whether the run has come to its results, which are printed elsewhere.
    is_over: bool,
}

impl Partials {
    /// Says what the run is about; `submits` tells whether it may submit.
    pub(crate) fn begin(&self, items: Vec<Partial>, submits: bool) {
        let mut list = self.lock();
        list.items = items;
        list.submits = submits;
    }

    /// Notes where the exports go.
    pub(crate) fn settle(&self, destination: &Destination) {
        for item in &mut self.lock().items {
            item.region = Some(destination.region.clone());
            item.bucket = Some(destination.bucket.clone());
        }
    }

    /// Notes what the files of `image_id` start with.
    pub(crate) fn set_prefix(&self, image_id: &ImageId, prefix: &Prefix) {
        if let Some(item) = self.lock().find(Some(image_id)) {
            item.prefix = Some(prefix.clone());
        }
    }

    /// Notes what an event tells.
    pub(crate) fn take(&self, event: &Event) {
        let mut list = self.lock();
        let submits = list.submits;
        if let Some(item) = list.find(event.image_id.as_ref()) {
            item.take(&event.kind, submits);
        }
    }

    /// How many exports the run is about.
    pub(crate) fn count(&self) -> usize {
        self.lock().items.len()
    }

    /// Notes what the export of `image_id` came to.
    pub(crate) fn end(&self, image_id: &ImageId, outcome: &ExportOutcome) {
        if let Some(item) = self.lock().find(Some(image_id)) {
            item.end(outcome);
        }
    }

    /// Notes that nothing more will be done about the export of `image_id` after `error`, and tells what is
    /// known of it.
    pub(crate) fn failed(
        &self,
        image_id: &ImageId,
        error: &Error,
        exit: Exit,
        printer: &Printer,
    ) -> Partial {
        let mut list = self.lock();
        let known = list.find(Some(image_id));
        let failed = known
            .as_deref()
            .cloned()
            .unwrap_or_else(|| Partial::new(Some(image_id.clone()), None, None, None))
            .after(error, exit, printer);
        if let Some(known) = known {
            known.clone_from(&failed);
        }
        failed
    }

    /// Notes that the results are there: nothing must be printed beside them.
    pub(crate) fn conclude(&self) {
        self.lock().is_over = true;
    }

    /// The last words of a run that ends at once: where to go on, and the object of scripts.
    pub(crate) fn take_leave(&self, printer: &Printer) {
        // Held to the end, so that no result is printed at the same time.
        let list = self.lock();
        if list.is_over {
            return;
        }
        if std::io::stderr().is_terminal() {
            // Below the bars, or the `^C` of the terminal.
            printer.stderr("");
        }
        if list.items.is_empty() {
            let message = "interrupted again; this run ends at once";
            printer.error(&Error::new(ErrorKind::Interrupted, message), None);
            return;
        }
        printer.stderr("interrupted again; this run ends at once");
        for item in &list.items {
            let image = item
                .image_id
                .as_ref()
                .map_or_else(String::new, |id| format!(" of image `{id}`"));
            match item.state {
                OutcomeState::Running => {
                    printer.stderr(&format!("the export{image} goes on in the cloud"));
                    printer.reattach(&item.reattach);
                }
                OutcomeState::Unknown => printer.stderr(&format!(
                    "whether the export{image} was started is not known; \
                     the same command looks before it submits"
                )),
                _ => {}
            }
        }
        for outcome in list.items.iter().filter_map(|item| item.outcome.as_ref()) {
            printer.keys(outcome);
        }
        list.print(printer);
    }

    /// Prints what is known, as the outcomes would have been; nothing in text mode, and nothing where
    /// the command is not about exports.
    pub(crate) fn print(&self, printer: &Printer) {
        self.lock().print(printer);
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn print(&self, printer: &Printer) {
        match self.items.as_slice() {
            [] => {}
            [only] => printer.json(&only.shown()),
            items => printer.json(&Items {
                schema: "cvm-export.exports.v1",
                totals: items.iter().fold(Totals::default(), Partial::counted_in),
                items: items.iter().map(Partial::shown).collect(),
            }),
        }
    }

    /// The export of an image; the only one where there is only one, as a wait may not know its image.
    fn find(&mut self, image_id: Option<&ImageId>) -> Option<&mut Partial> {
        match self.items.as_mut_slice() {
            [only] => Some(only),
            items => items
                .iter_mut()
                .find(|item| item.image_id.is_some() && item.image_id.as_ref() == image_id),
        }
    }
}
