//! Draws what happens: bars on a terminal, plain lines in CI, JSON lines for scripts, or nothing.
//!
//! The sole user of indicatif, and the sole reader of the event channel. Of several images one line tells
//! how all of them stand, and each is told when something happens to it.

mod overview;

use std::time::Duration;

use cvm_export::event::{Ending, Event, EventKind, ProgressSource};
use cvm_export::model::{CheckName, Finding, ImageId, ObjectKey, Verdict, printable_json};
use indicatif::{BinaryBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::cli::partial::Partials;
use crate::cli::printer::{Loudness, Output, Printer, plural};
use overview::Overview;

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
        overview: Overview::of(partials.count()),
        partials,
    };
    tokio::spawn(drawing.run(events))
}

struct Drawing {
    printer: Printer,
    style: Style,
    bars: MultiProgress,
    images: Vec<Watch>,
    /// How all images stand, where there are several.
    overview: Option<Overview>,
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
        if self.style != Style::Lines {
            return;
        }
        let overview = self.overview.as_ref().map(Overview::line);
        let watches = self.images.iter().map(|watch| watch.line.clone());
        for line in overview.into_iter().chain(watches) {
            if !line.is_empty() {
                self.say(&line);
            }
        }
    }

    /// Writes a line above the bars.
    fn say(&self, line: &str) {
        self.bars.suspend(|| self.printer.note(line));
    }

    /// Writes a line on how one image gets on. Of several it takes `-v`: what happens to each would be lost
    /// among such lines.
    fn mention(&self, line: &str) {
        match self.overview {
            None => self.say(line),
            Some(_) => self.bars.suspend(|| self.printer.detail(line)),
        }
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
        let is_news = match &mut self.overview {
            Some(overview) => overview.take(event),
            None => true,
        };
        match &event.kind {
            EventKind::Progress { .. } if self.overview.is_none() => {
                self.show_progress(event, &about);
            }
            // The overview has them.
            EventKind::Progress { .. } | EventKind::Expected { .. } => {}
            EventKind::DownloadProgress { .. } => self.show_download(&event.kind, event),
            EventKind::Downloaded { key, .. } => {
                self.show_downloaded(&event.kind, &about);
                self.forget(|watch| watch.key.as_ref() == Some(key));
            }
            EventKind::Ended { .. } => self.show_end(event, &about),
            EventKind::Landed { reason, hint } => {
                if let Some(reason) = reason {
                    self.show_failure(&format!("{about}download: {reason}"), hint.as_deref());
                }
                let image_id = event.image_id.as_ref();
                self.forget(|watch| watch.key.is_some() && watch.image_id.as_ref() == image_id);
            }
            EventKind::Warning { message } => {
                self.bars
                    .suspend(|| self.printer.warning(&format!("{about}{message}")));
            }
            EventKind::CopyStarted { .. }
            | EventKind::CopyProgress { .. }
            | EventKind::CopyReady { .. }
            | EventKind::CopyRemoved { .. } => self.show_copy(&event.kind, &about),
            _ => self.show_step(&event.kind, &about, is_news),
        }
        self.show_overview();
    }

    /// Tells of a step on the way to the files.
    fn show_step(&self, kind: &EventKind, about: &str, is_news: bool) {
        match kind {
            EventKind::Settled { message } if about.is_empty() => self.say(message),
            EventKind::Settled { message } => self.mention(message),
            EventKind::CheckStarted { bucket, region } => {
                self.mention(&format!(
                    "{about}checking the way to bucket `{bucket}` in {region}"
                ));
            }
            EventKind::Checked { findings } => self.show_findings(about, findings),
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
                let line = format!(
                    "{about}the cloud says \"later\" ({code}); next try in {}",
                    HumanDuration(*delay)
                );
                match is_news {
                    true => self.say(&line),
                    false => self.mention(&line),
                }
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
            EventKind::AwaitingAnswer { limit } => self.say(&format!(
                "{about}waiting up to {} s for an answer that is on its way; interrupt again to leave without knowing it",
                limit.as_secs()
            )),
            EventKind::Reused { export_id, age } => {
                let age = age.map_or_else(String::new, |age| {
                    format!(" {} ago", super::tables::age(age.as_secs()))
                });
                self.say(&format!("{about}already exported{age} as {export_id}"));
            }
            EventKind::Watching { files, deadline } => {
                self.mention(&format!(
                    "{about}waiting for {} until {} UTC",
                    plural(*files, "file"),
                    deadline.format("%Y-%m-%d %H:%M:%S")
                ));
            }
            EventKind::FileComplete {
                key,
                size_bytes,
                crc64,
            } => {
                let crc64 = crc64
                    .as_ref()
                    .map_or_else(String::new, |crc64| format!(", crc64 {crc64}"));
                self.mention(&format!(
                    "{about}complete: {key} ({}{crc64})",
                    BinaryBytes(*size_bytes)
                ));
            }
            _ => {}
        }
    }

    fn show_copy(&self, kind: &EventKind, about: &str) {
        match kind {
            EventKind::CopyStarted { copy, from, region } if from == region => {
                self.say(&format!(
                    "{about}a custom copy is being made: {copy} in {region}"
                ));
            }
            EventKind::CopyStarted { copy, from, region } => {
                self.say(&format!(
                    "{about}a copy is being made from {from}: {copy} in {region}"
                ));
            }
            EventKind::CopyProgress {
                copy,
                state,
                percent,
                ..
            } => {
                let percent = percent.map_or_else(String::new, |percent| format!(", {percent} %"));
                self.mention(&format!("{about}the copy {copy} is {state}{percent}"));
            }
            EventKind::CopyReady { copy, region } => {
                self.say(&format!("{about}the copy {copy} in {region} is ready"));
            }
            EventKind::CopyRemoved { copy, region } => {
                self.say(&format!("{about}the copy {copy} in {region} is deleted"));
            }
            _ => {}
        }
    }

    fn show_downloaded(&self, kind: &EventKind, about: &str) {
        let EventKind::Downloaded {
            key,
            path,
            size_bytes,
            is_verified,
            fetched_bytes,
            sha256,
        } = kind
        else {
            return;
        };
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
    }

    /// Tells once how an export of several ended; it is not told of again.
    fn show_end(&self, event: &Event, about: &str) {
        let EventKind::Ended {
            state,
            reused,
            files,
            size_bytes,
            reason,
            hint,
        } = &event.kind
        else {
            return;
        };
        match state {
            Ending::Checked => self.say(&format!("{about}can be exported")),
            // It has been told with the line that watches it again.
            Ending::Submitted => {}
            Ending::Running => self.say(&format!("{about}still running; this run's time is over")),
            Ending::Complete => {
                let word = match reused {
                    true => "already exported",
                    false => "exported",
                };
                self.say(&format!(
                    "{about}{word}, {}, {}",
                    plural(*files, "file"),
                    BinaryBytes(*size_bytes)
                ));
            }
            Ending::Failed | Ending::Unknown => {
                let reason = reason.as_deref().unwrap_or("the export failed");
                self.show_failure(&format!("{about}{reason}"), hint.as_deref());
            }
        }
    }

    /// A failure is told for people when it happens; scripts get an object at the end.
    fn show_failure(&self, line: &str, hint: Option<&str>) {
        self.bars.suspend(|| self.printer.failure(line, hint));
    }

    /// The bar that stands for all images together.
    fn show_overview(&mut self) {
        if let (Style::Bars, Some(overview)) = (self.style, &self.overview) {
            let line = overview.line();
            let (watch, _) = self.watch_of(None);
            watch.bar.set_style(spinner_style());
            watch.bar.set_message(line);
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
        // Among several it is mostly the others of the same run that the quota warns of.
        let is_own_quota = |finding: &Finding| {
            self.overview.is_some()
                && self.printer.loudness < Loudness::Verbose
                && (finding.check, finding.verdict) == (CheckName::Quota, Verdict::Warn)
        };
        let needs_attention = |finding: &Finding| {
            matches!(finding.verdict, Verdict::Warn | Verdict::Fail) && !is_own_quota(finding)
        };
        if findings.iter().any(needs_attention) {
            self.say(&summary);
        } else {
            self.mention(&summary);
        }
        let is_shown = |finding: &&Finding| match finding.verdict {
            Verdict::Pass => false,
            Verdict::Warn if is_own_quota(finding) => false,
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
