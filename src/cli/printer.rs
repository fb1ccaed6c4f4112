//! Where text may go: data to stdout, everything else to stderr.
//!
//! The only module that writes to the terminal. A reader that has gone away (a closed pipe) ends the
//! writing silently and changes nothing else. Data that stdout does not take for another reason is
//! noted, and the run ends with exit 9 once it has done its work.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use cvm_export::cloud::Site;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::{ExportOutcome, OutcomeState};
use cvm_export::model::{Finding, Verdict, printable_json, shell_line};
use serde::Serialize;

use crate::cli::exit::{Exit, Signal};

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people and for loops of a shell.
    #[default]
    Text,
    /// One JSON object at the end.
    Json,
    /// A JSON line for each event, and the result as the last one.
    Ndjson,
}

/// How much people want to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loudness {
    /// Errors and what must not be missed.
    Quiet,
    /// Progress and results.
    Normal,
    /// Also where values came from.
    Verbose,
    /// Also every request.
    Debug,
}

/// Writes results, notes and errors.
#[derive(Clone, Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) loudness: Loudness,
    /// Whether escape sequences may be written to stderr.
    pub(crate) color: bool,
    /// Whether the cloud is a simulated one that ends with this command.
    is_rehearsal: bool,
    /// The flags by which this run found its account and hosts, as a shell reads them.
    account_flags: String,
    /// Those of them that tccli takes.
    tccli_flags: String,
    /// The first failure of stdout, until it is asked for.
    failure: Arc<Mutex<Option<io::Error>>>,
}

/// Writes JSON to stdout piece by piece, with what a terminal would act on escaped: that of a large bucket would
/// take more memory than all that is known of it.
struct JsonWriter<'a> {
    printer: &'a Printer,
    waiting: Vec<u8>,
}

impl JsonWriter<'_> {
    const PIECE_BYTES: usize = 64 * 1024;

    /// Writes what waits, up to its last whole character.
    fn pass_on(&mut self) {
        let end = match std::str::from_utf8(&self.waiting) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8_lossy(&self.waiting[..end]);
        self.printer.write_out(printable_json(&text).as_bytes());
        self.waiting.drain(..end);
    }
}

impl Write for JsonWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= Self::PIECE_BYTES {
            self.pass_on();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printer {
    pub(crate) fn new(output: Output, loudness: Loudness, color: bool) -> Self {
        Self {
            output,
            loudness,
            color,
            is_rehearsal: false,
            account_flags: String::new(),
            tccli_flags: String::new(),
            failure: Arc::default(),
        }
    }

    /// Writes `data` to stdout, unless something before it is missing there already.
    pub(crate) fn write_out(&self, data: &[u8]) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return;
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(data).and_then(|()| stdout.flush());
        *failure = written.err().filter(|error| !is_closed_pipe(error));
    }

    /// Why stdout lacks data, if it does.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map(stdout_failed)
    }

    /// The same printer, for a cloud that ends with the command where `is_rehearsal` says so.
    pub(crate) fn in_rehearsal(self, is_rehearsal: bool) -> Self {
        Self {
            is_rehearsal,
            ..self
        }
    }

    /// The same printer, for a run whose account follows from the flags in `account`, and whose hosts from
    /// those in `hosts`. tccli spells the former like we do.
    pub(crate) fn for_account(self, account: &[String], hosts: &[String]) -> Self {
        Self {
            account_flags: shell_line(&[account, hosts].concat()),
            tccli_flags: shell_line(account),
            ..self
        }
    }

    /// `advice` whose commands reach the account and the hosts of this run when they are pasted. Flags
    /// of all commands stand before the command's name, where a subcommand cannot part them.
    pub(crate) fn advice(&self, advice: &str) -> String {
        let advice = match self.account_flags.as_str() {
            "" => advice.to_owned(),
            flags => advice.replace("`cvm-export ", &format!("`cvm-export {flags} ")),
        };
        // tccli is shown with its flags behind the action.
        let mut pieces = advice.split("`tccli cam ");
        let mut advised = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (action, rest) = piece.split_once(' ').unwrap_or((piece, ""));
            let words = [action, &self.tccli_flags, rest];
            let words = words.iter().filter(|words| !words.is_empty());
            let words: Vec<&str> = words.copied().collect();
            advised = format!("{advised}`tccli cam {}", words.join(" "));
        }
        advised
    }

    /// `findings` with their remedies as [`Printer::advice`] words them.
    pub(crate) fn findings(&self, findings: &[Finding]) -> Vec<Finding> {
        let advised = findings.iter().map(|finding| Finding {
            remedy: finding.remedy.as_deref().map(|text| self.advice(text)),
            ..finding.clone()
        });
        advised.collect()
    }

    /// Whether data is text.
    pub(crate) fn is_text(&self) -> bool {
        self.output == Output::Text
    }

    /// A line of data, in text mode only.
    pub(crate) fn data(&self, line: &str) {
        if self.output == Output::Text {
            self.write_out(format!("{line}\n").as_bytes());
        }
    }

    /// The result as one JSON value, where JSON was asked for.
    pub(crate) fn json(&self, result: &impl Serialize) {
        let mut writer = JsonWriter {
            printer: self,
            waiting: Vec::new(),
        };
        let written = match self.output {
            Output::Text => return,
            Output::Json => serde_json::to_writer_pretty(&mut writer, result),
            Output::Ndjson => serde_json::to_writer(&mut writer, result),
        };
        written.expect("results hold only strings, numbers and lists, which JSON can show");
        writer.waiting.push(b'\n');
        writer.pass_on();
    }

    /// A note for people.
    pub(crate) fn note(&self, line: &str) {
        if self.loudness >= Loudness::Normal {
            self.stderr(line);
        }
    }

    /// A note on where something came from.
    pub(crate) fn detail(&self, line: &str) {
        if self.loudness >= Loudness::Verbose {
            self.stderr(line);
        }
    }

    /// A failure of one of several, with what to do next, while the others go on.
    pub(crate) fn failure(&self, line: &str, hint: Option<&str>) {
        if self.loudness < Loudness::Normal {
            return;
        }
        self.stderr(&format!("{} {line}", self.paint("31;1", "error:")));
        if let Some(hint) = hint {
            let hint = self.advice(hint);
            self.stderr(&format!("  {} {hint}", self.paint("36", "hint:")));
        }
    }

    /// A warning, which is written even when quiet was asked for.
    pub(crate) fn warning(&self, line: &str) {
        self.stderr(&format!("{} {line}", self.paint("33", "warning:")));
    }

    /// A line on stderr that must not be missed.
    pub(crate) fn stderr(&self, line: &str) {
        // There is no better place to complain to.
        drop(writeln!(io::stderr().lock(), "{line}"));
    }

    /// A question on stderr, whose answer follows on the same line.
    pub(crate) fn question(&self, text: &str) {
        drop(write!(io::stderr().lock(), "{text}"));
    }

    /// An error with its causes and what to do next; an object where JSON was asked for.
    pub(crate) fn error(&self, error: &Error, signal: Option<Signal>) {
        if self.output != Output::Text {
            let object = ErrorObject::new(error, Exit::of_error(error.kind(), signal), self);
            let text =
                serde_json::to_string(&object).expect("an error holds only strings and numbers");
            return self.stderr(&text);
        }
        // Notes have shown them already, unless these were turned off.
        if self.loudness == Loudness::Quiet {
            let is_shown = |finding: &&Finding| finding.verdict != Verdict::Pass;
            self.show_findings(error.findings().iter().filter(is_shown));
        }
        self.stderr(&format!("{} {error}", self.paint("31;1", "error:")));
        let causes = error.causes();
        for cause in &causes {
            self.stderr(&format!("  caused by: {cause}"));
        }
        // The cloud's own refusals name it already.
        if let Some(id) = error
            .request_id()
            .filter(|id| !causes.iter().any(|cause| cause.contains(id)))
        {
            self.stderr(&format!("  request id: {id}"));
        }
        if let Some(hint) = error.hint() {
            let hint = self.advice(hint);
            self.stderr(&format!("\n{} {hint}", self.paint("36", "hint:")));
        }
    }

    /// Findings with their remedies, on stderr; what several checks say in the same words is said once.
    pub(crate) fn show_findings<'f>(&self, findings: impl IntoIterator<Item = &'f Finding>) {
        let mut told: Vec<(String, &Finding)> = Vec::new();
        for finding in findings {
            let says_the_same = |other: &Finding| {
                (other.verdict, &other.evidence, &other.remedy)
                    == (finding.verdict, &finding.evidence, &finding.remedy)
            };
            match told.iter_mut().find(|(_, other)| says_the_same(other)) {
                Some((checks, _)) => {
                    checks.push_str(", ");
                    checks.push_str(finding.check.as_str());
                }
                None => told.push((finding.check.to_string(), finding)),
            }
        }
        for (checks, finding) in told {
            let color = match finding.verdict {
                Verdict::Pass => "32",
                Verdict::Warn | Verdict::Unknown => "33",
                Verdict::Fail => "31",
            };
            let verdict = self.paint(color, &format!("{:<7}", finding.verdict));
            self.stderr(&format!("  {verdict} {checks}: {}", finding.evidence));
            if let Some(remedy) = &finding.remedy {
                self.stderr(&format!("          {}", self.advice(remedy)));
            }
        }
    }

    /// The exported files on stdout, where the export is complete.
    pub(crate) fn keys(&self, outcome: &ExportOutcome) {
        if outcome.state == OutcomeState::Complete {
            for file in &outcome.files {
                self.data(&format!("cos://{}/{}", outcome.bucket, file.key));
            }
        }
    }

    /// What is said of an outcome on stderr when the run ends.
    pub(crate) fn outcome(&self, outcome: &ExportOutcome, site: Site) {
        let image = match (&outcome.image_id, &outcome.image_name) {
            (Some(id), Some(name)) if !name.as_str().is_empty() => format!("image `{id}` ({name})"),
            (Some(id), _) => format!("image `{id}`"),
            (None, _) => "an image that is not known here".to_owned(),
        };
        let count = plural(outcome.files.len(), "file");
        // Before its export an image may have to be copied.
        let what = match outcome.export_id {
            Some(_) => "export",
            None => "copy",
        };
        match outcome.state {
            OutcomeState::Checked if outcome.interrupted => {
                self.stderr("interrupted before the submit; nothing was started");
            }
            OutcomeState::Checked => {
                self.note(&format!("{image} can be exported; nothing was submitted"))
            }
            OutcomeState::Submitted => self.note(&format!(
                "{image} was submitted; its files are not waited for"
            )),
            OutcomeState::Complete => {
                let bytes: u64 = outcome
                    .files
                    .iter()
                    .filter_map(|file| file.size_bytes)
                    .sum();
                let size = indicatif::BinaryBytes(bytes);
                self.note(&format!(
                    "{image} is exported: {count}, {size} in bucket `{}`",
                    outcome.bucket
                ));
                self.note(&format!("  {}", console_link(outcome, site)));
            }
            OutcomeState::Running if outcome.export_id.is_none() => {
                self.stderr(outcome.reason.as_deref().unwrap_or_default());
            }
            OutcomeState::Running if outcome.interrupted => {
                self.stderr(&format!(
                    "interrupted; the export of {image} goes on in the cloud"
                ));
            }
            OutcomeState::Running => {
                self.stderr(&format!(
                    "{image} is still being exported; this run's time is over"
                ));
            }
            OutcomeState::Failed => {
                let reason = outcome
                    .reason
                    .as_deref()
                    .unwrap_or("it is known to have failed");
                self.stderr(&format!(
                    "{} the {what} of {image} failed: {reason}",
                    self.paint("31;1", "error:")
                ));
                self.stderr(&format!(
                    "\n{} it is safe to run the export again",
                    self.paint("36", "hint:")
                ));
            }
            OutcomeState::Unknown => {
                let reason = outcome
                    .reason
                    .as_deref()
                    .unwrap_or("the answer to the submit was lost");
                // A removal by another run that has not ended is no copy.
                let known = match reason.starts_with("attempt ") {
                    true => format!("the outcome of an earlier attempt for {image} is unknown"),
                    false => format!("it is unknown whether the {what} of {image} was started"),
                };
                self.stderr(&format!(
                    "{} {known}: {reason}",
                    self.paint("31;1", "error:")
                ));
                let place = match outcome.export_id {
                    Some(_) => "the bucket and the console",
                    None => "the console's list of images",
                };
                let resubmit = self.advice("`cvm-export image --resubmit`");
                self.stderr(&format!(
                    "\n{} look into {place} before you run it again; {resubmit} abandons this attempt and starts again",
                    self.paint("36", "hint:")
                ));
            }
        }
        if matches!(outcome.state, OutcomeState::Running | OutcomeState::Unknown)
            || outcome.interrupted
        {
            self.reattach(&outcome.reattach);
        }
    }

    /// The command that takes a watch up again. Here it has the flags of this run; `words`, which records
    /// and results hold, name bucket and files alone, as another machine has profiles of its own.
    pub(crate) fn reattach(&self, words: &[String]) {
        let Some((program, rest)) = words.split_first() else {
            return;
        };
        let flags = match self.account_flags.as_str() {
            "" => String::new(),
            flags => format!("{flags} "),
        };
        self.stderr(&match self.is_rehearsal {
            false => format!("  watch again: {program} {flags}{}", shell_line(rest)),
            // The command would look into the real cloud.
            true => {
                "  the simulated cloud ends with this command; a real export would go on".to_owned()
            }
        });
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// An error in the form that scripts rely on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorObject {
    schema: &'static str,
    kind: &'static str,
    exit_code: u8,
    message: String,
    cause: Vec<String>,
    hint: Option<String>,
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

impl ErrorObject {
    /// `error` as `printer` words its advice.
    pub(crate) fn new(error: &Error, exit: Exit, printer: &Printer) -> Self {
        Self {
            schema: "cvm-export.error.v1",
            kind: error.kind().as_str(),
            exit_code: exit.code(),
            message: error.to_string(),
            cause: error.causes(),
            hint: error.hint().map(|hint| printer.advice(hint)),
            request_id: error.request_id().map(str::to_owned),
            findings: printer.findings(error.findings()),
        }
    }
}

/// Where a console shows the bucket of `outcome`.
pub(crate) fn console_link(outcome: &ExportOutcome, site: Site) -> String {
    format!(
        "https://{}/cos/bucket?bucket={}&region={}",
        site.console(),
        outcome.bucket,
        outcome.region
    )
}

/// `1 file`, `2 files`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// A number of bytes as people read it.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Whether stderr may carry escape sequences, by what was asked for and by habit.
pub(crate) fn use_color(choice: clap::ColorChoice, no_color: bool, dumb_terminal: bool) -> bool {
    match choice {
        clap::ColorChoice::Always => true,
        clap::ColorChoice::Never => false,
        clap::ColorChoice::Auto => !no_color && !dumb_terminal && io::stderr().is_terminal(),
    }
}

/// Whether nobody reads any more, which is nobody's concern.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// What is said of a stdout that did not take its data.
pub(crate) fn stdout_failed(error: io::Error) -> Error {
    Error::new(
        ErrorKind::LocalDisk,
        "stdout did not take all that belongs there; what was done is done",
    )
    .with_hint("free some room where stdout goes to, and look with `cvm-export status`")
    .with_source(error)
}
