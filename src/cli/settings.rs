//! Values settled once, each with the place it came from: flags, environment, tccli profile, default.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ColorChoice};
use cvm_export::auth::Secret;
use cvm_export::cloud::credentials;
use cvm_export::cloud::{Cloud, CloudSettings, CredentialsInUse, Endpoints};
use cvm_export::environment::Environment;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::event::Events;
use cvm_export::export::{Journal, Keys, RegionSetting};
use cvm_export::model::{CloudText, Region};

use crate::cli::printer::{Loudness, Output, Printer};
use crate::cli::progress::Style;
use crate::cli::sites::{self, ENDPOINT_VARIABLE, SiteArgs};
use crate::cli::values;

const STATE_VARIABLE: &str = "CVM_EXPORT_STATE_DIR";
const REGION_VARIABLE: &str = "TENCENTCLOUD_REGION";
/// Every variable that decides what a command does or where its requests go, besides those of the
/// credentials. The network library reads the last ones.
const VARIABLES: &[&str] = &[
    ENDPOINT_VARIABLE,
    STATE_VARIABLE,
    REGION_VARIABLE,
    "XDG_STATE_HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// The flags that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The region of image and bucket, such as ap-guangzhou [default: the bucket's own]
    #[arg(long, global = true, value_name = "REGION")]
    pub(crate) region: Option<Region>,

    /// Use this tccli profile; the environment's credentials are then ignored
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// The SecretId (the environment is safer: TENCENTCLOUD_SECRET_ID)
    #[arg(long, global = true, value_name = "ID", alias = "secretId")]
    pub(crate) secret_id: Option<String>,

    /// The SecretKey (the environment is safer: TENCENTCLOUD_SECRET_KEY)
    #[arg(long, global = true, value_name = "KEY", alias = "secretKey", value_parser = secret)]
    pub(crate) secret_key: Option<Secret>,

    /// The session token of temporary keys (the environment is safer: TENCENTCLOUD_TOKEN)
    #[arg(long, global = true, value_name = "TOKEN", value_parser = secret)]
    pub(crate) token: Option<Secret>,

    /// Take this role on with whatever credentials are found [env: TENCENTCLOUD_ROLE_ARN]
    #[arg(long, global = true, value_name = "ARN", alias = "roleArn")]
    pub(crate) role_arn: Option<String>,

    /// What the audit trail calls the session of the role [default: cvm-export]
    #[arg(long, global = true, value_name = "NAME", alias = "roleSessionName")]
    pub(crate) role_session_name: Option<String>,

    /// Use the role that is bound to this CVM
    #[arg(long, global = true)]
    pub(crate) use_cvm_role: bool,

    #[command(flatten)]
    pub(crate) sites: SiteArgs,

    /// How long one attempt of a request may take, from the connection to the last byte
    #[arg(long, global = true, value_name = "DURATION", value_parser = values::timeout,
          default_value = "60s")]
    pub(crate) request_timeout: Duration,

    /// How long the body of a download may pause before its connection is replaced
    #[arg(long, global = true, value_name = "DURATION", value_parser = values::timeout,
          default_value = "20s")]
    pub(crate) stall_timeout: Duration,

    /// Run against a fresh simulated cloud inside this process: no account, no bill
    #[cfg(feature = "simulator")]
    #[arg(long, global = true)]
    pub(crate) simulate: bool,

    /// The form of what goes to stdout
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,

    /// Say only what must not be missed
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say where values came from; twice: every request
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// No bars and no repeated progress lines
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,

    /// Colours on stderr
    #[arg(long, global = true, default_value_t, value_name = "WHEN")]
    pub(crate) color: ColorChoice,

    /// Don't prompt; answer yes
    #[arg(long, global = true)]
    pub(crate) yes: bool,

    /// Never ask; what would be asked needs --yes then
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl GlobalArgs {
    pub(crate) fn loudness(&self) -> Loudness {
        match (self.quiet, self.verbose) {
            (true, _) => Loudness::Quiet,
            (false, 0) => Loudness::Normal,
            (false, 1) => Loudness::Verbose,
            (false, _) => Loudness::Debug,
        }
    }

    pub(crate) fn printer(&self, environment: &Environment) -> Printer {
        let no_color = environment.is_set("NO_COLOR");
        let is_dumb = environment.get("TERM") == Some("dumb");
        let color = crate::cli::printer::use_color(self.color, no_color, is_dumb);
        let printer = Printer::new(self.output, self.loudness(), color);
        let printer = printer.in_rehearsal(self.is_rehearsal());
        printer.for_account(&self.account_words(), &self.sites.words())
    }

    /// The flags of this run that decide which account it is about: a command that is recommended must not be
    /// about another. Keys are not among them, since secrets are not repeated.
    fn account_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (flag, value) in [
            ("--profile", &self.profile),
            ("--role-arn", &self.role_arn),
            ("--role-session-name", &self.role_session_name),
        ] {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.clone()]);
            }
        }
        if self.use_cvm_role {
            words.push("--use-cvm-role".to_owned());
        }
        words
    }

    /// A flag that says where credentials come from.
    #[cfg(feature = "simulator")]
    fn credentials_flag(&self) -> Option<&'static str> {
        let flags = [
            (self.profile.is_some(), "--profile"),
            (self.secret_id.is_some(), "--secret-id"),
            (self.secret_key.is_some(), "--secret-key"),
            (self.token.is_some(), "--token"),
            (self.role_arn.is_some(), "--role-arn"),
            (self.use_cvm_role, "--use-cvm-role"),
        ];
        let given = flags.into_iter().find(|(is_given, _)| *is_given);
        given.map(|(_, flag)| flag)
    }

    /// Whether the command runs against a simulated cloud of its own.
    #[cfg(feature = "simulator")]
    fn is_rehearsal(&self) -> bool {
        self.simulate
    }

    #[cfg(not(feature = "simulator"))]
    #[expect(clippy::unused_self, reason = "as its twin with the simulator")]
    fn is_rehearsal(&self) -> bool {
        false
    }

    pub(crate) fn progress_style(&self, environment: &Environment) -> Style {
        use std::io::IsTerminal;
        let is_dumb = environment.get("TERM") == Some("dumb");
        let is_ci = environment.is_set("CI");
        if self.quiet {
            Style::Silent
        } else if self.no_progress {
            Style::ChangesOnly
        } else if std::io::stderr().is_terminal() && !is_dumb && !is_ci {
            Style::Bars
        } else {
            Style::Lines
        }
    }
}

/// What a command wants of this machine's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalUse {
    /// It submits, or speaks of what the journal knows: without one it must not go on.
    Needed,
    /// It submits nothing, and looks into the journal where there is one.
    IfThere,
}

/// What a command works with: the open clients, the journal, and where the region came from.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) cloud: Cloud,
    pub(crate) journal: Journal,
    pub(crate) region: RegionSetting,
    /// The keys in use, without their secrets.
    pub(crate) keys: Keys,
    pub(crate) events: Events,
    /// What must live as long as the session: the simulator and its temporary state.
    #[cfg(feature = "simulator")]
    _rehearsal: Option<crate::cli::rehearsal::Rehearsal>,
}

impl Session {
    /// Opens a session for a real account, or for whatever an endpoint override leads to.
    pub(crate) async fn open(
        global: &GlobalArgs,
        environment: &Environment,
        printer: &Printer,
        events: Events,
        journal_use: JournalUse,
    ) -> Result<Self, Error> {
        refuse_undecodable(environment)?;
        let region = region_setting(global, environment, printer)?;
        let endpoints = sites::endpoints(global, &region, environment, printer)?;
        if global.secret_key.is_some() || global.token.is_some() {
            printer.warning(
                "secrets on the command line are seen by every user of this machine; \
                 TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY in the environment are safer",
            );
        }
        let chain = credentials::Chain::standard(
            environment,
            credentials::Flags {
                secret_id: global.secret_id.clone(),
                secret_key: global.secret_key.clone(),
                token: global.token.clone(),
                profile: global.profile.clone(),
                use_cvm_role: global.use_cvm_role,
                role_arn: global.role_arn.clone(),
                role_session_name: global.role_session_name.clone(),
            },
            cloud_settings(endpoints.clone(), global),
        );
        let now = cvm_export::clock::now();
        let resolved = chain.resolve(now).await?;
        printer.detail(&format!("credentials: {}", resolved.origin));
        for passed_over in &resolved.passed_over {
            printer.detail(&format!("  passed over: {passed_over}"));
        }
        for warning in &resolved.warnings {
            printer.warning(warning);
        }
        let keys = Keys::from(&resolved);
        let in_use = CredentialsInUse::renewed_by(chain, resolved, now);
        let cloud = open_cloud(endpoints, global, in_use, events.clone())?;
        let journal = open_journal(environment, printer, journal_use)?;
        Ok(Self {
            cloud,
            journal,
            region,
            keys,
            events,
            #[cfg(feature = "simulator")]
            _rehearsal: None,
        })
    }

    /// Opens a session against a simulated cloud of its own.
    #[cfg(feature = "simulator")]
    pub(crate) fn rehearse(
        rehearsal: crate::cli::rehearsal::Rehearsal,
        global: &GlobalArgs,
        printer: &Printer,
        events: Events,
    ) -> Result<Self, Error> {
        if let Some(flag) = global.credentials_flag() {
            printer.warning(&format!(
                "{flag} is ignored: with --simulate the keys are the simulator's; `cvm-export simulate` is one that takes flags"
            ));
        }
        let endpoints = Endpoints::overridden(&rehearsal.endpoint_url(), false)?
            .with_hosts(global.sites.hosts());
        let credentials = rehearsal.credentials();
        let keys = Keys::new(&credentials, "the simulator");
        let cloud = open_cloud(endpoints, global, credentials, events.clone())?;
        let journal = Journal::open(rehearsal.state_folder())?;
        let ambient = Some((rehearsal.region(), "the simulator".to_owned()));
        let region = RegionSetting {
            flag: global.region.clone(),
            ambient,
        };
        Ok(Self {
            cloud,
            journal,
            region,
            keys,
            events,
            _rehearsal: Some(rehearsal),
        })
    }
}

/// A value that cannot be read must not count as unset: another account, region or journal would be used.
fn refuse_undecodable(environment: &Environment) -> Result<(), Error> {
    let names = VARIABLES.iter().chain(credentials::VARIABLES).copied();
    match environment.undecodable(names) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Usage,
            format!("environment variable {name}: its value is no Unicode text"),
        )
        .with_hint(format!("set {name} anew, or unset it"))),
    }
}

fn open_cloud(
    endpoints: Endpoints,
    global: &GlobalArgs,
    credentials: impl Into<CredentialsInUse>,
    events: Events,
) -> Result<Cloud, Error> {
    Cloud::open(cloud_settings(endpoints, global), credentials, events)
}

fn cloud_settings(endpoints: Endpoints, global: &GlobalArgs) -> CloudSettings {
    CloudSettings {
        answer_timeout: global.request_timeout,
        stall_timeout: global.stall_timeout,
        ..CloudSettings::new(endpoints)
    }
}

/// The region: a flag, else the environment (which a profile named by a flag switches off, as in
/// tccli), else the profile.
fn region_setting(
    global: &GlobalArgs,
    environment: &Environment,
    printer: &Printer,
) -> Result<RegionSetting, Error> {
    let from_environment = environment
        .get(REGION_VARIABLE)
        .filter(|_| global.profile.is_none())
        .map(|region| {
            (
                region.to_owned(),
                format!("environment variable {REGION_VARIABLE}"),
            )
        });
    let found = match from_environment {
        Some(found) => Some(found),
        None => credentials::profile_region(environment, global.profile.as_deref())?,
    };
    let ambient = match found {
        None => None,
        Some((text, origin)) => {
            let region: Region = text
                .parse()
                .map_err(|invalid| Error::new(ErrorKind::Usage, format!("{origin}: {invalid}")))?;
            Some((region, origin))
        }
    };
    match (&global.region, &ambient) {
        (Some(flag), _) => {
            printer.detail(&format!("region: {flag} (--region)"));
            sites::warn_of_unknown(flag, "--region", printer);
        }
        (None, Some((region, origin))) => {
            printer.detail(&format!("region: {region} ({origin})"));
            sites::warn_of_unknown(region, origin, printer);
        }
        (None, None) => {}
    }
    Ok(RegionSetting {
        flag: global.region.clone(),
        ambient,
    })
}

fn open_journal(
    environment: &Environment,
    printer: &Printer,
    journal_use: JournalUse,
) -> Result<Journal, Error> {
    let folder = state_folder(environment);
    if journal_use == JournalUse::Needed {
        return Ok(Journal::open(&folder?)?);
    }
    let (journal, problem) = match folder {
        Ok(folder) => {
            let (journal, problem) = Journal::open_or_absent(&folder);
            (journal, problem.map(Error::from))
        }
        Err(error) if error.kind() == ErrorKind::LocalDisk => (Journal::absent(), Some(error)),
        Err(error) => return Err(error),
    };
    if let Some(problem) = problem {
        let lines = [vec![problem.to_string()], problem.causes()].concat();
        printer.detail(&format!(
            "journal: none, and this command needs none ({})",
            lines.join(": ")
        ));
    }
    Ok(journal)
}

/// The folder for records and locks.
fn state_folder(environment: &Environment) -> Result<PathBuf, Error> {
    let absolute = |name| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(folder) = environment.get(STATE_VARIABLE) {
        let path = PathBuf::from(folder);
        if path.is_relative() {
            // Run from another folder, it would be another journal, which knows of no export.
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "{STATE_VARIABLE}: `{}` depends on the working folder (example: `/var/lib/cvm-export`)",
                    CloudText::excerpt(folder, 80)
                ),
            ));
        }
        return Ok(path);
    }
    // The XDG specification says to ignore a relative path.
    if let Some(folder) = absolute("XDG_STATE_HOME") {
        return Ok(folder.join("cvm-export"));
    }
    if cfg!(windows)
        && let Some(folder) = absolute("LOCALAPPDATA")
    {
        return Ok(folder.join("cvm-export"));
    }
    let Some(home) = environment.home() else {
        return Err(Error::new(
            ErrorKind::LocalDisk,
            "there is no home folder for the journal; nothing was submitted",
        )
        .with_hint(format!("name a folder that lasts with {STATE_VARIABLE}")));
    };
    let place = if cfg!(target_os = "macos") {
        "Library/Application Support"
    } else {
        ".local/state"
    };
    Ok(home.join(place).join("cvm-export"))
}
