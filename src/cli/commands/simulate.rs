//! `simulate`: a small Tencent Cloud on loopback, until a signal comes or a command ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::model::{BucketName, ImageId, InvalidValue, Region, shell_word};
use cvm_export::simulator::{DiskSource, Fault, Naming, Options, Simulator};

use super::exit::{Exit, Signal};
use super::printer::Output;
use super::{Context, values};

/// How long a command may take to end after a signal, longer than its own grace for a submit.
const GRACE: Duration = Duration::from_secs(15);

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The address to listen on; loopback only [default: a free port of 127.0.0.1]
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0",
        hide_default_value = true
    )]
    listen: SocketAddr,

    /// Serve this disk file, or a made-up disk of this size (500GiB), as an image of one disk; repeat the
    /// flag for several
    #[arg(long = "image", value_name = "IMAGE_ID=PATH|SIZE")]
    images: Vec<DiskImage>,

    /// Add an empty bucket in this region, such as the far end of a copy; repeat the flag for several
    #[arg(long = "bucket", value_name = "BUCKET=REGION")]
    buckets: Vec<BucketIn>,

    /// Begin with an account in which nobody has let CVM write exports
    #[arg(long)]
    no_role: bool,

    /// Begin with the role as the console makes it: the name of its policy is unknown, so its document
    /// must be read
    #[arg(long, conflicts_with = "no_role")]
    console_role: bool,

    /// The rule by which exported files are named
    #[arg(long, value_enum, default_value_t, value_name = "RULE")]
    naming: NamingFlag,

    /// How much faster than the real thing exports run
    #[arg(long, default_value_t = Options::default().speed, value_name = "N", value_parser = speed)]
    speed: f64,

    /// A file of faults: which call, which occurrence, what happens
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,

    /// Run this command against the simulated cloud, and end with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum NamingFlag {
    /// As the API page says: <prefix>_<image id>_system_<snapshot id>.raw
    #[default]
    Api,
    /// As the console's guide says: <prefix>_xvda.raw
    Console,
}

/// `ID=PATH`, or `ID=SIZE`.
#[derive(Clone, Debug)]
struct DiskImage {
    id: ImageId,
    source: DiskSource,
}

impl FromStr for DiskImage {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse =
            |problem| InvalidValue::new("image and its disk", text, problem, "img-web01=disk.raw");
        let (id, path) = text
            .split_once('=')
            .ok_or_else(|| refuse("it has no `=`"))?;
        if path.is_empty() {
            return Err(refuse("no path follows the `=`"));
        }
        Ok(Self {
            id: id.parse()?,
            // A file that is called like a size is named with its folder: `./500GiB`.
            source: match values::size(path) {
                Ok(bytes) => DiskSource::MadeUp(bytes),
                Err(_) => DiskSource::File(PathBuf::from(path)),
            },
        })
    }
}

/// `BUCKET=REGION`.
#[derive(Clone, Debug)]
struct BucketIn {
    name: BucketName,
    region: Region,
}

impl FromStr for BucketIn {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Some((name, region)) = text.split_once('=') else {
            let problem = "it has no `=`";
            let example = "north=ap-beijing";
            return Err(InvalidValue::new(
                "bucket and its region",
                text,
                problem,
                example,
            ));
        };
        Ok(Self {
            name: name.parse()?,
            region: region.parse()?,
        })
    }
}

fn speed(text: &str) -> Result<f64, InvalidValue> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err(InvalidValue::new(
            "speed",
            text,
            "it must be a number above zero",
            "100",
        )),
    }
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Exit, Error> {
    let options = Options {
        listen: args.listen,
        images: args
            .images
            .iter()
            .map(|image| (image.id.clone(), image.source.clone()))
            .collect(),
        buckets: args
            .buckets
            .iter()
            .map(|bucket| (bucket.name.clone(), bucket.region.clone()))
            .collect(),
        has_export_role: !args.no_role,
        is_role_by_console: args.console_role,
        naming: match args.naming {
            NamingFlag::Api => Naming::Api,
            NamingFlag::Console => Naming::Console,
        },
        speed: args.speed,
        faults: args
            .faults
            .as_deref()
            .map(read_faults)
            .transpose()?
            .unwrap_or_default(),
        ..Options::default()
    };
    let simulator = Simulator::start(options).await.map_err(|error| {
        Error::new(ErrorKind::Usage, "the simulated cloud did not start").with_source(error)
    })?;
    let variables = variables(&simulator);
    if args.command.is_empty() {
        match context.printer.output {
            Output::Text => {
                for (name, value) in &variables {
                    context
                        .printer
                        .data(&format!("export {name}={}", shell_word(value)));
                }
            }
            Output::Json | Output::Ndjson => context.printer.json(&variables),
        }
        context.printer.note(&format!(
            "a simulated Tencent Cloud answers at {}; Ctrl-C ends it",
            simulator.endpoint_url()
        ));
        context.signals.cancel().cancelled().await;
        warn_of_unmet(&simulator, context);
        return Ok(Exit::Done);
    }
    let end = run_command(&args.command, &variables, context).await;
    warn_of_unmet(&simulator, context);
    end
}

/// Says which faults no call has met: what they were to rehearse was not rehearsed.
fn warn_of_unmet(simulator: &Simulator, context: &Context<'_>) {
    for fault in simulator.unmet_faults() {
        let fault = serde_json::to_string(&fault).expect("a fault holds only strings and numbers");
        let line = format!("no call met the fault {fault}");
        context.printer.warning(&line);
    }
}

/// What a program must know to reach `simulator`.
fn variables(simulator: &Simulator) -> BTreeMap<&'static str, String> {
    let credentials = simulator.credentials();
    BTreeMap::from([
        ("CVM_EXPORT_ENDPOINT_URL", simulator.endpoint_url()),
        ("TENCENTCLOUD_REGION", simulator.region().to_string()),
        ("TENCENTCLOUD_SECRET_ID", credentials.secret_id.clone()),
        (
            "TENCENTCLOUD_SECRET_KEY",
            credentials.secret_key.expose().to_owned(),
        ),
    ])
}

/// Runs `command` with a state folder of its own: the records of a cloud that goes away with the
/// command must not stand in the person's journal.
async fn run_command(
    command: &[String],
    variables: &BTreeMap<&'static str, String>,
    context: &Context<'_>,
) -> Result<Exit, Error> {
    let state = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::LocalDisk, "no temporary folder could be made").with_source(error)
    })?;
    let (program, arguments) = command.split_first().expect("the caller has seen a word");
    let mut process = tokio::process::Command::new(program);
    process
        .args(arguments)
        .env("CVM_EXPORT_STATE_DIR", state.path());
    // Of credentials the command should know nothing but what it is told here.
    for name in cvm_export::cloud::credentials::VARIABLES {
        process.env_remove(name);
    }
    process.envs(variables);
    let mut process = process.kill_on_drop(true).spawn().map_err(|error| {
        Error::new(
            ErrorKind::Usage,
            format!("`{program}` could not be started"),
        )
        .with_source(error)
    })?;
    let cancel = context.signals.cancel();
    let status = tokio::select! {
        status = process.wait() => status,
        // A signal from the keyboard reaches the command by itself; it has a moment to end in order.
        () = cancel.cancelled() => match tokio::time::timeout(GRACE, process.wait()).await {
            Ok(status) => status,
            Err(_) => return Ok(Exit::Signal(context.signals.received().unwrap_or(Signal::Interrupt))),
        },
    };
    let status = status.map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            format!("the end of `{program}` was not seen"),
        )
        .with_source(error)
    })?;
    Ok(Exit::Other(code(status)))
}

/// The code that a shell would report.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

fn read_faults(path: &Path) -> Result<Vec<Fault>, Error> {
    let refuse = |message: &str| {
        Error::new(
            ErrorKind::Usage,
            format!("--faults: {message} `{}`", path.display()),
        )
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| refuse("cannot read").with_source(error))?;
    Fault::parse_file(&text).map_err(|error| {
        refuse("there are no faults in")
            .with_source(error)
            .with_hint("docs/rehearse.md of the sources lists every kind, with an example")
    })
}
