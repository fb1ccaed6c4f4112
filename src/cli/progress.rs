//! Draws what happens: bars on a terminal, plain lines in CI, JSON lines for scripts, or nothing.
//!
//! The sole user of indicatif, and the sole reader of the event channel.

use std::time::Duration;

use cvm_export::event::{Event, EventKind, ProgressSource};
use cvm_export::model::{Finding, ImageId, ObjectKey, Verdict, printable_json};
use indicatif::{BinaryBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::cli::partial::Partials;
use crate::cli::printer::{Loudness, Output, Printer, plural};

/// How often plain lines repeat where nothing changes.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// The form that progress takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bars that redraw themselves, on a terminal.
    Bars,
    /// A line at each change, and one every 30 seconds.
    Lines,
    /// A line at each change only.
    ChangesOnly,
    /// Warnings and re-attach lines only.
    Silent,
}

/// Draws events until every sender is gone.
pub(crate) fn draw(
    events: UnboundedReceiver<Event>,
    printer: Printer,
    style: Style,
    partials: Partials,
) -> JoinHandle<()> {
    let bars = MultiProgress::new();
    if style != Style::Bars {
        bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let drawing = Drawing {
        printer,
        style,
        bars,
        images: Vec::new(),
        partials,
    };
    tokio::spawn(drawing.run(events))
}

struct Drawing {
    printer: Printer,
    style: Style,
    bars: MultiProgress,
    images: Vec<Watch>,
    partials: Partials,
}

/// The watch over one image's files, or the download of one.
struct Watch {
    image_id: Option<ImageId>,
    /// The object that is fetched; `None` for the watch over an export.
    key: Option<ObjectKey>,
    bar: ProgressBar,
    line: String,
}

#[derive(Serialize)]
struct EventLine<'a> {
    schema: &'static str,
    #[serde(flatten)]
    event: &'a Event,
}

impl Drawing {
    async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        let mut ticks = tokio::time::interval(LINE_INTERVAL);
        ticks.reset();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => break,
                },
                _ = ticks.tick() => self.repeat_lines(),
            }
        }
        for watch in &self.images {
            watch.bar.finish_and_clear();
        }
    }

    fn repeat_lines(&self) {
        if self.style == Style::Lines {
            for watch in &self.images {
                if !watch.line.is_empty() {
                    self.say(&watch.line);
                }
            }
        }
    }

    /// Writes a line above the bars.
    fn say(&self, line: &str) {
        self.bars.suspend(|| self.printer.note(line));
    }

    fn take(&mut self, event: &Event) {
        self.partials.take(event);
        if self.printer.output == Output::Ndjson {
            self.write_json(event);
        }
        let about = event
            .image_id
            .as_ref()
            .map_or_else(String::new, |id| format!("{id}: "));
        match &event.kind {
            EventKind::Settled { message } => self.say(message),
            EventKind::CheckStarted { bucket, region } => {
                self.say(&format!(
                    "{about}checking the way to bucket `{bucket}` in {region}"
                ));
            }
            EventKind::Checked { findings } => self.show_findings(&about, findings),
            EventKind::Retrying {
                call,
                attempt,
                delay,
                reason,
                ..
            } => {
                let when = match delay.is_zero() {
                    true => "at once".to_owned(),
                    false => format!("in {delay:.1?}"),
                };
                let line =
                    format!("{about}{call}: attempt {attempt} failed ({reason}), again {when}");
                self.bars.suspend(|| self.printer.detail(&line));
            }
            EventKind::LockWaiting => {
                self.say(&format!(
                    "{about}another process is submitting the same export; waiting for it"
                ));
            }
            EventKind::Queued { code, delay } => {
                self.say(&format!(
                    "{about}the cloud says \"later\" ({code}); next try in {}",
                    HumanDuration(*delay)
                ));
            }
            EventKind::CopyStarted { copy, from, region } => {
                self.say(&if from == region {
                    format!("{about}a custom copy is being made: {copy} in {region}")
                } else {
                    format!("{about}a copy is being made from {from}: {copy} in {region}")
                });
            }
            EventKind::CopyProgress {
                copy,
                state,
                percent,
                ..
            } => {
                let percent = percent.map_or_else(String::new, |percent| format!(", {percent} %"));
                self.say(&format!("{about}the copy {copy} is {state}{percent}"));
            }
            EventKind::CopyReady { copy, region } => {
                self.say(&format!("{about}the copy {copy} in {region} is ready"));
            }
            EventKind::CopyRemoved { copy, region } => {
                self.say(&format!("{about}the copy {copy} in {region} is deleted"));
            }
            EventKind::Submitted {
                export_id,
                task_id,
                reattach,
                ..
            } => {
                let task = task_id.map_or_else(String::new, |task_id| format!(", task {task_id}"));
                self.say(&format!("{about}submitted as {export_id}{task}"));
                self.show_reattach(reattach);
            }
            EventKind::Attached {
                export_id,
                source,
                reattach,
            } => {
                self.say(&format!(
                    "{about}taking up {export_id}, known from the {source}"
                ));
                self.show_reattach(reattach);
            }
            EventKind::Watching { files, deadline } => {
                self.say(&format!(
                    "{about}waiting for {} until {} UTC",
                    plural(*files, "file"),
                    deadline.format("%Y-%m-%d %H:%M:%S")
                ));
            }
            EventKind::Progress { .. } => self.show_progress(event, &about),
            EventKind::FileComplete {
                key,
                size_bytes,
                crc64,
            } => {
                let crc64 = crc64
                    .as_ref()
                    .map_or_else(String::new, |crc64| format!(", crc64 {crc64}"));
                self.say(&format!(
                    "{about}complete: {key} ({}{crc64})",
                    BinaryBytes(*size_bytes)
                ));
            }
            EventKind::DownloadProgress { .. } => self.show_download(&event.kind, event),
            EventKind::Downloaded {
                key,
                path,
                size_bytes,
                is_verified,
                fetched_bytes,
                sha256,
            } => {
                let place = path.as_ref().map_or("the pipe", String::as_str);
                let verified = if *is_verified {
                    "verified"
                } else {
                    "not verified"
                };
                let word = if *fetched_bytes == 0 && *size_bytes > 0 {
                    "already there"
                } else {
                    "fetched"
                };
                let sha256 = sha256
                    .as_ref()
                    .map_or_else(String::new, |sha256| format!(", sha256 {sha256}"));
                self.say(&format!(
                    "{about}{word}: {key} to {place} ({}, {verified}{sha256})",
                    BinaryBytes(*size_bytes)
                ));
                self.forget(|watch| watch.key.as_ref() == Some(key));
            }
            EventKind::Warning { message } => {
                self.bars
                    .suspend(|| self.printer.warning(&format!("{about}{message}")));
            }
        }
    }

    fn write_json(&self, event: &Event) {
        let mut event = event.clone();
        if let EventKind::Checked { findings } = &mut event.kind {
            *findings = self.printer.findings(findings);
        }
        let line = EventLine {
            schema: "cvm-export.event.v1",
            event: &event,
        };
        let text = serde_json::to_string(&line).expect("events hold only strings and numbers");
        self.printer
            .write_out(format!("{}\n", printable_json(&text)).as_bytes());
    }

    /// Also with `-q`: a run that is killed says nothing more, and another machine has no journal.
    fn show_reattach(&self, words: &[String]) {
        self.bars.suspend(|| self.printer.reattach(words));
    }

    /// Shows what needs attention, each with its remedy, and names what could not be seen.
    fn show_findings(&self, about: &str, findings: &[Finding]) {
        if self.printer.loudness < Loudness::Normal {
            return;
        }
        let count = |verdict| {
            findings
                .iter()
                .filter(|finding| finding.verdict == verdict)
                .count()
        };
        let not_known = count(Verdict::Unknown);
        let mut summary = format!("{about}{} passed", plural(count(Verdict::Pass), "check"));
        for (verdict, word) in [(Verdict::Warn, "warn"), (Verdict::Fail, "failed")] {
            if count(verdict) > 0 {
                summary = format!("{summary}, {} {word}", count(verdict));
            }
        }
        if not_known > 0 {
            let names: Vec<&str> = findings
                .iter()
                .filter(|finding| finding.verdict == Verdict::Unknown)
                .map(|finding| finding.check.as_str())
                .collect();
            summary = format!("{summary}, not known: {}", names.join(", "));
        }
        self.say(&summary);
        let is_shown = |finding: &&Finding| match finding.verdict {
            Verdict::Pass => false,
            // One line names them; `-v` and `check` say why. In a failure everything is shown.
            Verdict::Unknown => {
                self.printer.loudness >= Loudness::Verbose || count(Verdict::Fail) > 0
            }
            Verdict::Warn | Verdict::Fail => true,
        };
        let shown = findings.iter().filter(is_shown);
        self.bars.suspend(|| self.printer.show_findings(shown));
    }

    fn show_progress(&mut self, event: &Event, about: &str) {
        let EventKind::Progress {
            elapsed,
            files_done,
            files_total,
            bytes_done,
            bytes_total,
            bytes_per_second,
            remaining,
            source,
        } = &event.kind
        else {
            return;
        };
        let files = format!("{files_done} of {}", plural(*files_total, "file"));
        let speed = bytes_per_second.map(|speed| format!("{}/s", BinaryBytes(speed)));
        let left = remaining.map(|remaining| format!("{} left", HumanDuration(remaining)));
        let amount = match (bytes_done, bytes_total) {
            (Some(done), Some(total)) => {
                Some(format!("{} of {}", BinaryBytes(*done), BinaryBytes(*total)))
            }
            (Some(done), None) => Some(BinaryBytes(*done).to_string()),
            (None, _) => Some(match source {
                ProgressSource::Elapsed => {
                    "no upload to be seen yet, time alone is known".to_owned()
                }
                ProgressSource::Upload => "uploading".to_owned(),
            }),
        };
        let seconds = Duration::from_secs(elapsed.as_secs());
        let elapsed = format!("{} since the submit", HumanDuration(seconds));
        let parts = [
            Some(files),
            amount,
            speed.clone(),
            left.clone(),
            Some(elapsed),
        ];
        let line = format!(
            "{about}{}",
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        );
        let style = self.style;
        let (watch, is_new) = self.watch_of(event.image_id.as_ref());
        watch.line.clone_from(&line);
        match (bytes_done, bytes_total) {
            (Some(done), Some(total)) => {
                watch.bar.set_style(bytes_style());
                watch.bar.set_length(*total);
                watch.bar.set_position(*done);
                let details = [speed, left]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(", ");
                watch.bar.set_message(details);
            }
            _ => {
                watch.bar.set_style(spinner_style());
                watch.bar.set_message(line.clone());
            }
        }
        if is_new && style != Style::Bars {
            self.say(&line);
        }
    }

    fn show_download(&mut self, kind: &EventKind, event: &Event) {
        let EventKind::DownloadProgress {
            key,
            bytes_done,
            bytes_total,
            bytes_per_second,
            remaining,
            ..
        } = kind
        else {
            return;
        };
        let speed = format!("{}/s", BinaryBytes(*bytes_per_second));
        let left = remaining.map_or_else(String::new, |left| {
            format!(", {} left", HumanDuration(left))
        });
        let (done, total) = (BinaryBytes(*bytes_done), BinaryBytes(*bytes_total));
        let line = format!("fetching {key}: {done} of {total}, {speed}{left}");
        let style = self.style;
        let image_id = event.image_id.as_ref();
        // An export whose files are fetched is complete; its own line would only be repeated.
        self.forget(|watch| watch.key.is_none() && watch.image_id.as_ref() == image_id);
        let (watch, is_new) = self.watch_named(image_id, Some(key));
        watch.line.clone_from(&line);
        watch.bar.set_style(bytes_style());
        watch.bar.set_length(*bytes_total);
        watch.bar.set_position(*bytes_done);
        watch.bar.set_message(format!("{speed}{left}"));
        if is_new && style != Style::Bars {
            self.say(&line);
        }
    }

    /// Takes the bar of something that is over away.
    fn forget(&mut self, is_over: impl Fn(&Watch) -> bool) {
        if let Some(position) = self.images.iter().position(is_over) {
            let watch = self.images.remove(position);
            watch.bar.finish_and_clear();
        }
    }

    fn watch_of(&mut self, image_id: Option<&ImageId>) -> (&mut Watch, bool) {
        self.watch_named(image_id, None)
    }

    fn watch_named(
        &mut self,
        image_id: Option<&ImageId>,
        key: Option<&ObjectKey>,
    ) -> (&mut Watch, bool) {
        let is_it =
            |watch: &Watch| watch.image_id.as_ref() == image_id && watch.key.as_ref() == key;
        let position = self.images.iter().position(is_it);
        let is_new = position.is_none();
        let position = position.unwrap_or_else(|| {
            let bar = self.bars.add(ProgressBar::no_length());
            bar.enable_steady_tick(Duration::from_millis(200));
            let name = key
                .map(ToString::to_string)
                .or_else(|| image_id.map(ToString::to_string));
            bar.set_prefix(name.unwrap_or_default());
            self.images.push(Watch {
                image_id: image_id.cloned(),
                key: key.cloned(),
                bar,
                line: String::new(),
            });
            self.images.len() - 1
        });
        (&mut self.images[position], is_new)
    }
}

fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:32}] {binary_bytes} of {binary_total_bytes} {msg}")
        .expect("the template is a constant that the tests draw")
        .progress_chars("=> ")
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}")
        .expect("the template is a constant that the tests draw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        drop((bytes_style(), spinner_style()));
    }
}
