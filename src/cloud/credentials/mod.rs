//! Where credentials come from: a chain of places that tells "not configured here" from "broken".
//!
//! 1. flags: `--secret-id` and `--secret-key`, or `--use-cvm-role`
//! 2. the environment (`TENCENTCLOUD_SECRET_ID`, `_KEY`, and `_TOKEN` or `_SECURITY_TOKEN`; without keys
//!    the role of `TENCENTCLOUD_CAM_ROLE_NAME`), unless a profile is named by a flag, as in tccli
//! 3. the tccli profile: `~/.tccli/<profile>.credential`, in all its types
//! 4. the SDKs' file: `~/.tencentcloud/credentials`, or the one that `TENCENTCLOUD_CREDENTIALS_FILE` names
//! 5. coscli's file, `~/.cos.yaml`, where its keys are not encrypted
//! 6. the identity of a pod of TKE: `TKE_REGION`, `TKE_PROVIDER_ID`, `TKE_WEB_IDENTITY_TOKEN_FILE` and
//!    `TKE_ROLE_ARN`
//! 7. on a CVM, the role that is bound to it
//!
//! A place that has nothing to say is passed over; one that is there and cannot be used stops the
//! chain with its name and the reason, since the keys of the next place may be another account's.
//!
//! With what was found a role may be taken on: that of `--role-arn`, else of `TENCENTCLOUD_ROLE_ARN`
//! (tccli) or `TENCENTCLOUD_ASSUME_ROLE_ARN` (terraform), else of the profile that had the keys.

mod assume_role;
mod coscli;
mod local;
mod metadata;
mod profile;
mod web_identity;

use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::auth::{Credentials, Secret};
use crate::cloud::api::{ApiError, ApiErrorKind};
use crate::cloud::http::HttpClient;
use crate::cloud::{CloudSettings, CredentialsInUse};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::event::Events;
use crate::model::shell_word;

pub use profile::{ProfileEndpoints, profile_endpoints, profile_region};

use assume_role::Wanted;

const SECRET_ID: &str = "TENCENTCLOUD_SECRET_ID";
const SECRET_KEY: &str = "TENCENTCLOUD_SECRET_KEY";
/// The session token has two names: tccli's and terraform's.
const TOKENS: [&str; 2] = ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];
/// Terraform's name for the role of the instance.
const CAM_ROLE_NAME: &str = "TENCENTCLOUD_CAM_ROLE_NAME";
/// The profile has two names as well.
const PROFILES: [&str; 2] = ["TCCLI_PROFILE", "TENCENTCLOUD_PROFILE"];
/// Terraform's name for the folder of tccli's profiles.
const PROFILES_FOLDER: &str = "TENCENTCLOUD_SHARED_CREDENTIALS_DIR";
const CREDENTIALS_FILE: &str = "TENCENTCLOUD_CREDENTIALS_FILE";

/// Every environment variable that the chain reads.
pub const VARIABLES: &[&str] = &[
    SECRET_ID,
    SECRET_KEY,
    TOKENS[0],
    TOKENS[1],
    CAM_ROLE_NAME,
    PROFILES[0],
    PROFILES[1],
    PROFILES_FOLDER,
    CREDENTIALS_FILE,
    web_identity::REGION,
    web_identity::PROVIDER_ID,
    web_identity::TOKEN_FILE,
    web_identity::ROLE_ARN,
    assume_role::ROLE_ARNS[0],
    assume_role::ROLE_ARNS[1],
    assume_role::SESSION_NAMES[0],
    assume_role::SESSION_NAMES[1],
    assume_role::SESSION_DURATION,
    assume_role::EXTERNAL_ID,
    assume_role::PROVIDER_ID,
];

/// More than this is no file of keys.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Where Linux says what machine it runs on (kernel documentation, `sysfs-class-dmi`).
const MACHINE: &str = "/sys/class/dmi/id";

/// What the command line says about credentials.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--secret-id`.
    pub secret_id: Option<String>,
    /// `--secret-key`.
    pub secret_key: Option<Secret>,
    /// `--token`.
    pub token: Option<Secret>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--use-cvm-role`.
    pub use_cvm_role: bool,
    /// `--role-arn`.
    pub role_arn: Option<String>,
    /// `--role-session-name`.
    pub role_session_name: Option<String>,
}

/// Credentials, with the place that had them and those that were asked before it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The credentials.
    pub credentials: Credentials,
    /// Where they come from, for people.
    pub origin: String,
    /// The places before it, each with what it lacks.
    pub passed_over: Vec<String>,
    /// What the person should know, such as a file that others can read.
    pub warnings: Vec<String>,
}

/// Why there are no usable credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A place is configured and cannot be used.
    #[error("{place}: {problem}")]
    Broken {
        /// The flag, variable or file.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A place is configured and asks for a role, which could not be taken on.
    #[error("{place}: the role could not be taken on")]
    Sts {
        /// The flag, variable or file.
        place: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// The clients that ask for a role cannot be set up.
    #[error("{place}: it cannot be asked")]
    Client {
        /// The flag, variable or file.
        place: String,
        /// Why.
        source: Box<Error>,
    },
    /// No place has anything to say.
    #[error("no credentials were found; looked at {}", places.join("; "))]
    Absent {
        /// Every place that was looked at, with what it lacks.
        places: Vec<String>,
    },
}

impl From<CredentialsError> for Error {
    fn from(error: CredentialsError) -> Self {
        let (message, hint) = match &error {
            CredentialsError::Sts { source, .. } => return refused_by_sts(source.kind(), error),
            CredentialsError::Broken { .. } | CredentialsError::Client { .. } => (
                "the configured credentials cannot be used",
                "mend or remove what is named above; nothing else is tried in its place",
            ),
            CredentialsError::Absent { .. } => (
                "there are no credentials",
                "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or run `tccli configure`; \
                 `--simulate` needs no account at all",
            ),
        };
        Self::new(ErrorKind::Credentials, message)
            .with_hint(hint)
            .with_source(error)
    }
}

fn refused_by_sts(why: ApiErrorKind, error: CredentialsError) -> Error {
    let (kind, hint) = match why {
        ApiErrorKind::Credentials | ApiErrorKind::Refused => (
            ErrorKind::Credentials,
            "mend or remove what is named above; nothing else is tried in its place",
        ),
        ApiErrorKind::NotPermitted => (
            ErrorKind::Permission,
            "the role must trust whoever takes it on, and the caller needs `sts:AssumeRole`",
        ),
        ApiErrorKind::Throttled => (ErrorKind::Quota, "run the command again later"),
        ApiErrorKind::NoAnswer => (
            ErrorKind::Unexpected,
            "look at the network, at HTTPS_PROXY and NO_PROXY, and run the command again",
        ),
    };
    let request_id = match &error {
        CredentialsError::Sts { source, .. } => source.request_id().map(str::to_owned),
        _ => None,
    };
    Error::new(kind, "the configured role could not be taken on")
        .with_hint(hint)
        .with_request_id(request_id)
        .with_source(error)
}

/// What one place has to say.
enum Link {
    Found(Box<Found>),
    /// The role of the instance is meant, which the metadata host knows.
    Instance(metadata::Meant),
    /// Not configured here; the text names the place and what it lacks.
    Absent(String),
}

struct Found {
    credentials: Credentials,
    origin: String,
    warnings: Vec<String>,
    /// The role that this place wants to be taken on with its keys.
    role: Option<Wanted>,
}

impl Found {
    fn new(credentials: Credentials, origin: &str) -> Self {
        Self {
            credentials,
            origin: origin.to_owned(),
            warnings: Vec::new(),
            role: None,
        }
    }

    /// Keys that a file holds, which others may be able to read.
    fn in_file(credentials: Credentials, origin: &str, path: &Path) -> Self {
        Self {
            warnings: readable_by_others(path),
            ..Self::new(credentials, origin)
        }
    }
}

impl From<Found> for Link {
    fn from(found: Found) -> Self {
        Self::Found(Box::new(found))
    }
}

type Asked = Result<Link, CredentialsError>;

/// What a place beyond this machine has to say; the inner error is that it has nothing.
type Heard = Result<Result<Found, String>, CredentialsError>;

/// The places in their order, over a snapshot of the environment.
#[derive(Clone, Debug)]
pub struct Chain {
    environment: Environment,
    flags: Flags,
    /// How roles are asked for.
    settings: CloudSettings,
    machine: PathBuf,
}

impl Chain {
    /// The documented order. Requests that a place needs are sent as `settings` say.
    #[must_use]
    pub fn standard(environment: &Environment, flags: Flags, settings: CloudSettings) -> Self {
        Self {
            environment: environment.clone(),
            flags,
            settings,
            machine: PathBuf::from(MACHINE),
        }
    }

    /// Asks each place in turn. `now` decides whether temporary credentials are over.
    ///
    /// # Errors
    /// [`CredentialsError::Broken`] for the first place that cannot be used,
    /// [`CredentialsError::Sts`] where a role could not be taken on,
    /// [`CredentialsError::Absent`] when none has anything to say.
    pub async fn resolve(&self, now: DateTime<Utc>) -> Result<Resolved, CredentialsError> {
        let mut passed_over = Vec::new();
        let found = self.first(now, &mut passed_over).await?;
        let wanted = assume_role::wanted(&self.environment, &self.flags, found.role.as_ref())?;
        let Found {
            credentials,
            origin,
            warnings,
            ..
        } = found;
        let (credentials, origin) = match wanted {
            None => (credentials, origin),
            Some(wanted) => {
                let keys = assume_role::ask(&self.settings, &wanted, credentials).await?;
                (keys, format!("{}, taken on with {origin}", wanted.place()))
            }
        };
        Ok(Resolved {
            credentials,
            origin,
            passed_over,
            warnings,
        })
    }

    /// As [`Chain::resolve`]. The clients that ask for roles hold credentials that could be renewed, so
    /// the type of this future must not depend on theirs.
    pub(crate) fn resolve_again(
        &self,
        now: DateTime<Utc>,
    ) -> Pin<Box<dyn Future<Output = Result<Resolved, CredentialsError>> + Send + '_>> {
        Box::pin(self.resolve(now))
    }

    /// The first place that has something to say.
    async fn first(
        &self,
        now: DateTime<Utc>,
        passed_over: &mut Vec<String>,
    ) -> Result<Found, CredentialsError> {
        type Ask<'a> = &'a (dyn Fn() -> Asked + Sync);
        let links: [Ask<'_>; 5] = [
            &|| local::flags(&self.flags),
            &|| local::variables(&self.environment, &self.flags),
            &|| profile::ask(&self.environment, &self.flags, now),
            &|| local::sdk_file(&self.environment),
            &|| coscli::ask(&self.environment),
        ];
        for ask in links {
            match ask()? {
                Link::Absent(place) => passed_over.push(place),
                Link::Found(found) => return Ok(*found),
                Link::Instance(meant) => {
                    let heard = metadata::ask(&self.settings, &meant).await?;
                    return heard.map_err(|problem| broken(&meant.place, problem));
                }
            }
        }
        match web_identity::ask(&self.settings, &self.environment).await? {
            Ok(found) => return Ok(found),
            Err(place) => passed_over.push(place),
        }
        match metadata::ask_on_a_cvm(&self.settings, &self.machine).await? {
            Ok(found) => return Ok(found),
            Err(place) => passed_over.push(place),
        }
        Err(CredentialsError::Absent {
            places: std::mem::take(passed_over),
        })
    }
}

/// A client for the calls that bring keys to `place`.
fn client(
    settings: &CloudSettings,
    credentials: Credentials,
    place: &str,
) -> Result<HttpClient, CredentialsError> {
    let credentials = Arc::new(CredentialsInUse::from(credentials));
    HttpClient::open(settings.clone(), credentials, Events::discard()).map_err(|source| {
        CredentialsError::Client {
            place: place.to_owned(),
            source: Box::new(source),
        }
    })
}

/// Credentials for requests that are not signed.
fn nobody() -> Credentials {
    Credentials {
        secret_id: String::new(),
        secret_key: Secret::new(""),
        token: None,
        expires_at: None,
    }
}

/// What stands in a file that need not be there; the inner error says why nothing does.
fn read_optional(
    path: &Path,
    place: &str,
    home: Option<&Path>,
) -> Result<Result<String, &'static str>, CredentialsError> {
    let cannot = |error| broken(place, format!("it cannot be read ({error})"));
    match std::fs::metadata(path) {
        // A pipe or a device could keep the run waiting for ever.
        Ok(metadata) if !metadata.is_file() => return Err(broken(place, "it is no regular file")),
        Ok(_) => {}
        Err(_) if std::fs::symlink_metadata(path).is_ok() => {
            return Err(broken(place, "it is a link that leads nowhere"));
        }
        Err(error) => {
            let folder = path.parent().filter(|folder| Some(*folder) != home);
            let has_folder = folder.is_some_and(|folder| std::fs::metadata(folder).is_ok());
            return why_absent(error.kind(), has_folder)
                .map(Err)
                .ok_or_else(|| cannot(error));
        }
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut limited = file.take(FILE_LIMIT_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(broken(
            place,
            format!("it has more than {FILE_LIMIT_BYTES} bytes, which no file of keys has"),
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| broken(place, "it cannot be read (it is no Unicode text)"))?;
    // Editors of Windows begin a file with a mark that would hide its first line.
    Ok(Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }))
}

/// Why a file that cannot be looked at counts as absent, where it does. A home folder may be another
/// person's, as in containers, and then it holds nothing for this one; a closed folder of a tool inside
/// of it (`has_folder`) may well hold the keys that are meant.
fn why_absent(error: io::ErrorKind, has_folder: bool) -> Option<&'static str> {
    match error {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some("there is no such file"),
        io::ErrorKind::PermissionDenied if !has_folder => {
            Some("the home folder is closed to this user")
        }
        _ => None,
    }
}

fn parse_json<T: serde::de::DeserializeOwned>(
    text: &str,
    place: &str,
) -> Result<T, CredentialsError> {
    // The parser's own words could quote a secret; its place in the file is enough.
    serde_json::from_str(text).map_err(|error| {
        broken(
            place,
            format!(
                "it is no JSON of the expected form (line {}, column {})",
                error.line(),
                error.column()
            ),
        )
    })
}

/// Puts credentials together. A blank around a value is a slip of copying that ends in a signature
/// nobody can explain, so it is refused here.
fn assemble(
    place: &str,
    id: &str,
    key: &str,
    token: Option<&str>,
    expires_at: Option<DateTime<Utc>>,
) -> Result<Credentials, CredentialsError> {
    let values = [
        ("the SecretId", Some(id)),
        ("the SecretKey", Some(key)),
        ("the token", token),
    ];
    for (name, value) in values {
        let Some(value) = value else { continue };
        if value.is_empty() {
            return Err(broken(place, format!("{name} is empty")));
        }
        if value.trim() != value {
            return Err(broken(
                place,
                format!("{name} has a blank or a line break around it"),
            ));
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'".contains(&byte);
        if !value.bytes().all(is_plain) {
            return Err(broken(
                place,
                format!("{name} holds characters that no key has, such as quotes"),
            ));
        }
    }
    Ok(Credentials {
        secret_id: id.to_owned(),
        secret_key: Secret::new(key),
        token: token.map(Secret::new),
        expires_at,
    })
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 == 0 {
        return Vec::new();
    }
    let path = path.display().to_string();
    let word = shell_word(&path);
    vec![format!(
        "other users of this machine have rights on {path}; `chmod 600 {word}` keeps its keys yours"
    )]
}

#[cfg(not(unix))]
fn readable_by_others(_path: &Path) -> Vec<String> {
    Vec::new()
}

fn broken(place: &str, problem: impl Into<String>) -> CredentialsError {
    CredentialsError::Broken {
        place: place.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
