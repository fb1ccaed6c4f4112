//! The command line: arguments, signals, and the way from a command to an exit code.
//!
//! Part of the binary only; it uses the library's public interface like any other program.

mod commands;
mod consent;
mod exit;
mod partial;
mod printer;
mod progress;
#[cfg(feature = "simulator")]
mod rehearsal;
mod settings;
mod signals;
mod sites;
mod tables;
mod totals;
mod values;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cvm_export::environment::Environment;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::Events;

use exit::Exit;
use partial::Partials;
use printer::{Loudness, Output, Printer, is_closed_pipe, stdout_failed};
use settings::{GlobalArgs, JournalUse, Session};
use signals::Signals;

/// Takes a custom image out of Tencent Cloud safely, and proves that you have it.
#[derive(Debug, Parser)]
#[command(name = "cvm-export", version, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check, submit once, watch: an image becomes files in a bucket
    Image(commands::image::Args),
    /// Look at every precondition of an export; submit nothing
    Check(commands::check::Args),
    /// Let CVM write exports to a bucket: shows what would change, asks, does it; or takes it back
    Authorize(commands::authorize::Args),
    /// What an export costs, or what exported files do: quantities, then money, by a dated price table
    Estimate(commands::estimate::Args),
    /// Take up an export that was submitted before, and watch it to its end
    Wait(commands::wait::Args),
    /// Exported objects to files, or through a pipe: parallel, resumable, verified, with holes
    Download(commands::download::Args),
    /// Local files against a record, against the bucket, or for what they hold
    Verify(commands::verify::Args),
    /// Exported files in a bucket: what is there; `url` makes links, `rm` deletes
    Files(commands::files::Args),
    /// The exports that this machine's journal knows, and what COS shows of them now
    Status(commands::status::Args),
    /// The account's custom images, with what each would refuse
    Images(commands::images::Args),
    /// A small Tencent Cloud on loopback, for rehearsals and tests
    #[cfg(feature = "simulator")]
    Simulate(commands::simulate::Args),
    /// A completion script for a shell
    Completions(commands::packaging::CompletionsArgs),
    /// The manual page
    Man(commands::packaging::ManArgs),
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let environment = Environment::capture();
    let matches = Cli::command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let printer = cli.global.printer(&environment);
    start_logs(&printer);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(
                ErrorKind::Unexpected,
                "the program could not start its threads",
            )
            .with_source(error);
            printer.error(&error, None);
            return ExitCode::from(Exit::Unexpected.code());
        }
    };
    let exit = runtime.block_on(run(cli, &environment, &printer));
    // Nothing that still runs in the background may hold the end up.
    runtime.shutdown_background();
    ExitCode::from(exit.code())
}

/// What clap has to say; an error becomes an object where JSON was asked for.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    // An argument that is no Unicode is one of the errors that end here.
    let arguments: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let wants_json = arguments
        .iter()
        .any(|word| word == "--output=json" || word == "--output=ndjson")
        || arguments
            .windows(2)
            .any(|pair| pair[0] == "--output" && pair[1].ends_with("json"));
    if error.use_stderr() && wants_json {
        let message = error.to_string();
        let message = message
            .trim_start_matches("error: ")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let printer = Printer::new(Output::Json, Loudness::Normal, false);
        printer.error(&Error::new(ErrorKind::Usage, message), None);
    } else {
        let printed = error.print().and_then(|()| io::stdout().flush());
        // Help is data: it was asked for.
        if let Err(problem) = printed
            && !error.use_stderr()
            && !is_closed_pipe(&problem)
        {
            let printer = Printer::new(Output::Text, Loudness::Normal, false);
            printer.error(&stdout_failed(problem), None);
            return ExitCode::from(Exit::LocalDisk.code());
        }
    }
    ExitCode::from(if error.use_stderr() {
        Exit::Usage.code()
    } else {
        Exit::Done.code()
    })
}

fn start_logs(printer: &Printer) {
    if printer.loudness == Loudness::Debug {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
}

async fn run(cli: Cli, environment: &Environment, printer: &Printer) -> Exit {
    let Cli { command, global } = cli;
    let partials = Partials::default();
    let context = Context {
        environment,
        printer,
        global: &global,
        signals: Signals::listen(printer.clone(), partials.clone()),
        partials,
    };
    let result = match command {
        Command::Image(args) => commands::image::run(args, &context).await,
        Command::Check(args) => commands::check::run(args, &context).await,
        Command::Authorize(args) => commands::authorize::run(args, &context).await,
        Command::Estimate(args) => commands::estimate::run(args, &context).await,
        Command::Wait(args) => commands::wait::run(args, &context).await,
        Command::Download(args) => commands::download::run(args, &context).await,
        Command::Verify(args) => commands::verify::run(args, &context).await,
        Command::Files(args) => commands::files::run(args, &context).await,
        Command::Status(args) => commands::status::run(args, &context).await,
        Command::Images(args) => commands::images::run(args, &context).await,
        #[cfg(feature = "simulator")]
        Command::Simulate(args) => commands::simulate::run(args, &context).await,
        Command::Completions(args) => Ok(commands::packaging::completions(&args, &context)),
        Command::Man(args) => commands::packaging::manual(&args, &context),
    };
    let exit = result.unwrap_or_else(|error| {
        printer.error(&error, context.signals.received());
        Exit::of_error(error.kind(), context.signals.received())
    });
    match printer.take_failure() {
        None => exit,
        Some(failure) => {
            printer.error(&failure, None);
            exit.without_stdout()
        }
    }
}

/// What every command works in.
struct Context<'a> {
    environment: &'a Environment,
    printer: &'a Printer,
    global: &'a GlobalArgs,
    signals: Signals,
    partials: Partials,
}

impl Context<'_> {
    /// Opens a session, runs `work` in it while its events are drawn, and returns once the last event
    /// has been drawn, so that a result never stands above the progress that led to it.
    async fn with_session<T>(
        &self,
        names: Names<'_>,
        journal_use: JournalUse,
        work: impl AsyncFnOnce(Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (events, receiver) = Events::channel();
        let style = self.global.progress_style(self.environment);
        let drawing = progress::draw(receiver, self.printer.clone(), style, self.partials.clone());
        // To open a session may ask the network for the keys of a role.
        let opening = self.until_signalled(self.open(names, journal_use, events));
        let result = match opening.await {
            Ok(session) => work(session).await,
            Err(error) => Err(error),
        };
        // The last sender went with the session; what is left is to draw what it said.
        let drawn = drawing.await;
        self.partials.conclude();
        if let Err(panic) = drawn {
            return Err(
                Error::new(ErrorKind::Unexpected, "the progress display broke").with_source(panic),
            );
        }
        result
    }

    /// Runs `work`, which starts nothing, and leaves it at the first signal.
    async fn until_signalled<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let cancel = self.signals.cancel();
        tokio::select! {
            () = cancel.cancelled() => {
                Err(Error::new(ErrorKind::Interrupted, "interrupted; nothing was started"))
            }
            result = work => result,
        }
    }

    /// Prints what is known of the exports where a signal ended the run before there was an outcome:
    /// scripts are promised an object.
    fn show_interrupted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::Interrupted {
                self.partials.print(self.printer);
            }
        })
    }

    async fn open(
        &self,
        names: Names<'_>,
        journal_use: JournalUse,
        events: Events,
    ) -> Result<Session, Error> {
        #[cfg(feature = "simulator")]
        if self.global.simulate {
            let rehearsal = rehearsal::Rehearsal::start(names.images, names.bucket).await?;
            return Session::rehearse(rehearsal, self.global, self.printer, events);
        }
        #[cfg(not(feature = "simulator"))]
        let Names { .. } = names;
        Session::open(
            self.global,
            self.environment,
            self.printer,
            events,
            journal_use,
        )
        .await
    }
}

/// What the command line names, so that a simulated cloud can hold it.
#[derive(Clone, Copy, Default)]
#[cfg_attr(
    not(feature = "simulator"),
    expect(dead_code, reason = "only a simulated cloud reads it")
)]
struct Names<'a> {
    images: &'a [cvm_export::model::ImageId],
    bucket: Option<&'a cvm_export::model::BucketName>,
}
