//! Where credentials come from: a chain of places that tells "not configured here" from "broken".
//!
//! 1. flags
//! 2. the environment (`TENCENTCLOUD_SECRET_ID`, `_KEY`, and `_TOKEN` or `_SECURITY_TOKEN`), unless a
//!    profile is named by a flag, as in tccli
//! 3. the tccli profile: `~/.tccli/<profile>.credential`
//! 4. the SDKs' file: `~/.tencentcloud/credentials`, or the one that `TENCENTCLOUD_CREDENTIALS_FILE` names
//!
//! A place that has nothing to say is passed over; one that is there and cannot be used stops the
//! chain with its name and the reason, since the keys of the next place may be another account's.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::auth::{Credentials, Secret};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::model::CloudText;

const SECRET_ID: &str = "TENCENTCLOUD_SECRET_ID";
const SECRET_KEY: &str = "TENCENTCLOUD_SECRET_KEY";
/// The session token has two names: tccli's and terraform's.
const TOKENS: [&str; 2] = ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];
const PROFILE: &str = "TCCLI_PROFILE";
const CREDENTIALS_FILE: &str = "TENCENTCLOUD_CREDENTIALS_FILE";

/// Every environment variable that the chain reads.
pub const VARIABLES: &[&str] = &[
    SECRET_ID,
    SECRET_KEY,
    TOKENS[0],
    TOKENS[1],
    PROFILE,
    CREDENTIALS_FILE,
];

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
            CredentialsError::Broken { .. } => (
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

/// What one place has to say.
enum Link {
    Found(Box<Found>),
    /// Not configured here; the text names the place and what it lacks.
    Absent(String),
}

struct Found {
    credentials: Credentials,
    origin: String,
    warnings: Vec<String>,
}

type Asked = Result<Link, CredentialsError>;

/// The places in their order, over a snapshot of the environment.
#[derive(Clone, Debug)]
pub struct Chain {
    environment: Environment,
    flags: Flags,
}

impl Chain {
    /// The documented order.
    #[must_use]
    pub fn standard(environment: &Environment, flags: Flags) -> Self {
        Self {
            environment: environment.clone(),
            flags,
        }
    }

    /// Asks each place in turn. `now` decides whether temporary credentials are over.
    ///
    /// # Errors
    /// [`CredentialsError::Broken`] for the first place that cannot be used,
    /// [`CredentialsError::Absent`] when none has anything to say.
    pub fn resolve(&self, now: DateTime<Utc>) -> Result<Resolved, CredentialsError> {
        let links: [&dyn Fn() -> Asked; 4] = [
            &|| self.ask_flags(),
            &|| self.ask_environment(),
            &|| self.ask_tccli_profile(now),
            &|| self.ask_sdk_file(),
        ];
        let mut passed_over = Vec::new();
        for ask in links {
            match ask()? {
                Link::Absent(place) => passed_over.push(place),
                Link::Found(found) => {
                    let Found {
                        credentials,
                        origin,
                        warnings,
                    } = *found;
                    return Ok(Resolved {
                        credentials,
                        origin,
                        passed_over,
                        warnings,
                    });
                }
            }
        }
        Err(CredentialsError::Absent {
            places: passed_over,
        })
    }

    fn ask_flags(&self) -> Asked {
        let Flags {
            secret_id,
            secret_key,
            token,
            ..
        } = &self.flags;
        let place = "--secret-id and --secret-key";
        match (secret_id, secret_key) {
            (Some(id), Some(key)) => {
                let token = token.as_ref().map(Secret::expose);
                let credentials = assemble(place, id, key.expose(), token, None)?;
                Ok(found(credentials, place, Vec::new()))
            }
            (None, None) if token.is_none() => Ok(Link::Absent(format!("{place}: not given"))),
            _ => Err(broken(
                place,
                "they go together, and --token goes with both",
            )),
        }
    }

    fn ask_environment(&self) -> Asked {
        let place = format!("environment variables {SECRET_ID} and {SECRET_KEY}");
        if let Some(profile) = &self.flags.profile {
            let profile = CloudText::excerpt(profile, 40);
            return Ok(Link::Absent(format!(
                "{place}: ignored, as --profile {profile} is given"
            )));
        }
        let token = match TOKENS.map(|name| self.environment.get(name)) {
            [Some(one), Some(other)] if one != other => {
                return Err(broken(&TOKENS.join(" and "), "both are set and differ"));
            }
            [one, other] => one.or(other),
        };
        match (
            self.environment.get(SECRET_ID),
            self.environment.get(SECRET_KEY),
        ) {
            (Some(id), Some(key)) => {
                let credentials = assemble(&place, id, key, token, None)?;
                Ok(found(credentials, &place, Vec::new()))
            }
            (None, None) => Ok(Link::Absent(format!("{place}: not set"))),
            (Some(_), None) => Err(broken(
                SECRET_KEY,
                format!("it is not set, and {SECRET_ID} is"),
            )),
            (None, Some(_)) => Err(broken(
                SECRET_ID,
                format!("it is not set, and {SECRET_KEY} is"),
            )),
        }
    }

    fn ask_tccli_profile(&self, now: DateTime<Utc>) -> Asked {
        let profile = profile_name(&self.environment, self.flags.profile.as_deref())?;
        let Some(path) = tccli_file(&self.environment, &profile, "credential") else {
            return Ok(Link::Absent(format!(
                "tccli profile `{profile}`: there is no home folder"
            )));
        };
        let place = format!("tccli profile `{profile}` ({})", path.display());
        let Some(text) = read_optional(&path, &place)? else {
            let is_named = self.flags.profile.is_some() || self.environment.get(PROFILE).is_some();
            if is_named {
                return Err(broken(&place, "there is no such file"));
            }
            return Ok(Link::Absent(format!("{place}: there is no such file")));
        };
        let file: TccliCredential = parse_json(&text, &place)?;
        if let Some(problem) = file.unsupported() {
            return Err(broken(&place, problem));
        }
        let (Some(id), Some(key)) = (&file.secret_id, &file.secret_key) else {
            return Err(broken(&place, "it lacks `secretId` or `secretKey`"));
        };
        let expires_at = file
            .expires_at
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        if expires_at.is_some_and(|end| end <= now) {
            return Err(broken(
                &place,
                "its temporary keys are over; run `tccli auth login`",
            ));
        }
        let token = file.token.as_deref().filter(|token| !token.is_empty());
        let credentials = assemble(&place, id, key, token, expires_at)?;
        Ok(found(credentials, &place, readable_by_others(&path)))
    }

    fn ask_sdk_file(&self) -> Asked {
        let named = self.environment.get(CREDENTIALS_FILE).map(PathBuf::from);
        let is_named = named.is_some();
        let usual = || {
            Some(
                self.environment
                    .home()?
                    .join(".tencentcloud")
                    .join("credentials"),
            )
        };
        let Some(path) = named.or_else(usual) else {
            return Ok(Link::Absent(
                "~/.tencentcloud/credentials: there is no home folder".to_owned(),
            ));
        };
        let place = path.display().to_string();
        let Some(text) = read_optional(&path, &place)? else {
            if is_named {
                return Err(broken(
                    &place,
                    format!("{CREDENTIALS_FILE} names it, and there is no such file"),
                ));
            }
            return Ok(Link::Absent(format!("{place}: there is no such file")));
        };
        let mut file = configparser::ini::Ini::new();
        // As in Tencent's SDKs a comment has a line of its own: a key is not cut at a `#` in it.
        file.set_inline_comment_symbols(Some(&[]));
        // The parser's own words could quote a line that holds a secret.
        if file.read(text).is_err() {
            return Err(broken(&place, "it is no INI file"));
        }
        let value = |key: &str| file.get("default", key).filter(|value| !value.is_empty());
        match (value("secret_id"), value("secret_key")) {
            (Some(id), Some(key)) => {
                let credentials = assemble(&place, &id, &key, None, None)?;
                Ok(found(credentials, &place, readable_by_others(&path)))
            }
            _ => Err(broken(
                &place,
                "its section `default` lacks `secret_id` or `secret_key`",
            )),
        }
    }
}

/// The region that the tccli profile sets, with its place for people.
///
/// # Errors
/// [`CredentialsError::Broken`] when the profile's file is there and cannot be read.
pub fn profile_region(
    environment: &Environment,
    profile: Option<&str>,
) -> Result<Option<(String, String)>, CredentialsError> {
    let profile = profile_name(environment, profile)?;
    let Some(path) = tccli_file(environment, &profile, "configure") else {
        return Ok(None);
    };
    let place = format!("tccli profile `{profile}` ({})", path.display());
    let Some(text) = read_optional(&path, &place)? else {
        return Ok(None);
    };
    let file: TccliConfigure = parse_json(&text, &place)?;
    // Older files have the region at the top; tccli moves it when it writes the file.
    let newer = file.parameters.and_then(|parameters| parameters.region);
    let region = [newer, file.region]
        .into_iter()
        .flatten()
        .find(|region| !region.is_empty());
    Ok(region.map(|region| (region, place)))
}

/// `~/.tccli/<profile>.credential`, as far as it is used here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TccliCredential {
    secret_id: Option<String>,
    secret_key: Option<String>,
    token: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    expires_at: Option<i64>,
    #[serde(rename = "role-arn")]
    role_arn: Option<String>,
    #[serde(rename = "use-cvm-role", default)]
    use_cvm_role: serde_json::Value,
}

impl TccliCredential {
    /// What this profile asks for and this version cannot do. Using its bare keys instead could act
    /// for another identity than the person means.
    fn unsupported(&self) -> Option<String> {
        let uses_cvm_role = match &self.use_cvm_role {
            serde_json::Value::Bool(on) => *on,
            serde_json::Value::String(text) => text.eq_ignore_ascii_case("true"),
            _ => false,
        };
        if uses_cvm_role || self.kind.as_deref() == Some("cvm-role") {
            return Some(
                "it asks for the role of the CVM instance, which this version does not support yet"
                    .to_owned(),
            );
        }
        if self.role_arn.as_deref().is_some_and(|arn| !arn.is_empty()) {
            return Some(
                "it asks to assume a role (`role-arn`), which this version does not support yet"
                    .to_owned(),
            );
        }
        match self.kind.as_deref() {
            None | Some("" | "oauth" | "sso") => None,
            Some(other) => Some(format!(
                "its type `{}` is not known",
                CloudText::excerpt(other, 40)
            )),
        }
    }
}

/// `~/.tccli/<profile>.configure`, as far as it is used here.
#[derive(Deserialize)]
struct TccliConfigure {
    #[serde(rename = "_sys_param")]
    parameters: Option<TccliParameters>,
    region: Option<String>,
}

#[derive(Deserialize)]
struct TccliParameters {
    region: Option<String>,
}

fn profile_name(environment: &Environment, flag: Option<&str>) -> Result<String, CredentialsError> {
    let (name, place) = match (flag, environment.get(PROFILE)) {
        (Some(name), _) => (name, "--profile"),
        (None, Some(name)) => (name, PROFILE),
        (None, None) => ("default", "the default profile"),
    };
    let is_plain = |c: char| !c.is_control() && c != '/' && c != '\\';
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(broken(place, "a profile is a file name without folders"));
    }
    Ok(name.to_owned())
}

fn tccli_file(environment: &Environment, profile: &str, extension: &str) -> Option<PathBuf> {
    Some(
        environment
            .home()?
            .join(".tccli")
            .join(format!("{profile}.{extension}")),
    )
}

fn read_optional(path: &Path, place: &str) -> Result<Option<String>, CredentialsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken(place, format!("it cannot be read ({error})"))),
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
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(broken(
                place,
                format!("{name} holds characters that no key has"),
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
    let path = path.display();
    vec![format!(
        "other users of this machine can read {path}; `chmod 600 {path}` keeps its keys yours"
    )]
}

#[cfg(not(unix))]
fn readable_by_others(_path: &Path) -> Vec<String> {
    Vec::new()
}

fn found(credentials: Credentials, origin: &str, warnings: Vec<String>) -> Link {
    Link::Found(Box::new(Found {
        credentials,
        origin: origin.to_owned(),
        warnings,
    }))
}

fn broken(place: &str, problem: impl Into<String>) -> CredentialsError {
    CredentialsError::Broken {
        place: place.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
