//! tccli's profiles: `~/.tccli/<profile>.credential` and `.configure`, both JSON.
//!
//! What stands in them is told by tccli's source (`tccli/credentials.py`, `tccli/configure.py`): keys,
//! keys with a token, keys with a role to take on, `cvm-role`, and the temporary keys of `oauth` and
//! `sso`, which tccli alone can renew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::assume_role::{Wanted, one_of};
use super::metadata::Meant;
use super::{
    Asked, CredentialsError, Flags, Found, Link, PROFILES, PROFILES_FOLDER, assemble, broken,
    parse_json, read_optional,
};
use crate::environment::Environment;
use crate::model::CloudText;

/// The profile that flag or variable name, else the default one.
pub(super) fn ask(environment: &Environment, flags: &Flags, now: DateTime<Utc>) -> Asked {
    let profile = profile_name(environment, flags.profile.as_deref())?;
    let Some(path) = tccli_file(environment, &profile, "credential") else {
        return Ok(Link::Absent(format!(
            "tccli profile `{profile}`: there is no home folder"
        )));
    };
    let place = format!("tccli profile `{profile}` ({})", path.display());
    let is_named = named(environment, flags.profile.as_deref())?.is_some();
    let text = match read_optional(&path, &place, environment.home())? {
        Ok(text) => text,
        Err(why) if is_named => {
            return Err(broken(&place, why));
        }
        Err(why) => return Ok(Link::Absent(format!("{place}: {why}"))),
    };
    let file: TccliCredential = parse_json(&text, &place)?;
    match file.kind.as_deref() {
        // What `tccli configure set use-cvm-role false` writes.
        Some("default") => {}
        None | Some("" | "oauth" | "sso") if !file.uses_cvm_role() => {}
        None | Some("" | "oauth" | "sso" | "cvm-role") => {
            return Ok(Link::Instance(Meant::any(&place)));
        }
        Some(other) => {
            let other = CloudText::excerpt(other, 40);
            return Err(broken(&place, format!("its type `{other}` is not known")));
        }
    }
    let (Some(id), Some(key)) = (&file.secret_id, &file.secret_key) else {
        return Err(broken(&place, "it lacks `secretId` or `secretKey`"));
    };
    // `tccli configure` writes empty keys where nothing is entered.
    if id.is_empty() && key.is_empty() && !is_named {
        return Ok(Link::Absent(format!("{place}: it holds no keys")));
    }
    let expires_at = match file.expires_at {
        None => None,
        Some(seconds) => Some(
            DateTime::from_timestamp(seconds, 0)
                .ok_or_else(|| broken(&place, "its `expiresAt` is no time"))?,
        ),
    };
    if expires_at.is_some_and(|end| end <= now) {
        let plugin = match file.kind.as_deref() {
            Some("sso") => "sso",
            _ => "auth",
        };
        let which = match profile.as_str() {
            "default" => String::new(),
            name => format!(" --profile {name}"),
        };
        let problem = format!("its temporary keys are over; run `tccli {plugin} login{which}`");
        return Err(broken(&place, problem));
    }
    let token = file.token.as_deref().filter(|token| !token.is_empty());
    let credentials = assemble(&place, id, key, token, expires_at)?;
    let mut found = Found::in_file(credentials, &place, &path);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(arn) = given(&file.role_arn) {
        let session = given(&file.role_session_name);
        found.role = Some(Wanted::new(
            &format!("`role-arn` of {place}"),
            &arn,
            session,
        )?);
    }
    Ok(found.into())
}

/// The region that the tccli profile sets, with its place for people.
///
/// # Errors
/// [`CredentialsError::Broken`] when the profile's file is there and cannot be read.
pub fn profile_region(
    environment: &Environment,
    profile: Option<&str>,
) -> Result<Option<(String, String)>, CredentialsError> {
    let Some((file, place)) = settings::<TccliConfigure>(environment, profile)? else {
        return Ok(None);
    };
    // Older files have the region at the top; tccli moves it when it writes the file.
    let newer = file.parameters.and_then(|parameters| parameters.region);
    let older = file
        .region
        .and_then(|region| region.as_str().map(str::to_owned));
    let region = [newer, older]
        .into_iter()
        .flatten()
        .find(|region| !region.is_empty());
    Ok(region.map(|region| (region, place)))
}

/// The hosts that a tccli profile sets.
#[derive(Clone, Debug)]
pub struct ProfileEndpoints {
    /// By product, as they stand in the file.
    pub hosts: BTreeMap<String, String>,
    /// The profile, for people.
    pub place: String,
}

/// What the tccli profile says about the hosts of products. tccli writes the usual host of every product
/// into each profile.
///
/// # Errors
/// [`CredentialsError::Broken`] when the profile's file is there and cannot be read.
pub fn profile_endpoints(
    environment: &Environment,
    profile: Option<&str>,
) -> Result<Option<ProfileEndpoints>, CredentialsError> {
    type Products = BTreeMap<String, serde_json::Value>;
    let Some((products, place)) = settings::<Products>(environment, profile)? else {
        return Ok(None);
    };
    let mut hosts = BTreeMap::new();
    for (product, settings) in products {
        match settings.get("endpoint") {
            None | Some(serde_json::Value::Null) => {}
            Some(serde_json::Value::String(host)) if host.is_empty() => {}
            Some(serde_json::Value::String(host)) => {
                hosts.insert(product, host.clone());
            }
            Some(_) => {
                let product = CloudText::excerpt(&product, 40);
                return Err(broken(&place, format!("`{product}.endpoint` is no text")));
            }
        }
    }
    Ok(Some(ProfileEndpoints { hosts, place }))
}

/// What stands in `~/.tccli/<profile>.configure` where it is there, with its place for people.
fn settings<T: DeserializeOwned>(
    environment: &Environment,
    profile: Option<&str>,
) -> Result<Option<(T, String)>, CredentialsError> {
    let profile = profile_name(environment, profile)?;
    let Some(path) = tccli_file(environment, &profile, "configure") else {
        return Ok(None);
    };
    let place = format!("tccli profile `{profile}` ({})", path.display());
    let Ok(text) = read_optional(&path, &place, environment.home())? else {
        return Ok(None);
    };
    Ok(Some((parse_json(&text, &place)?, place)))
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
    #[serde(rename = "role-session-name")]
    role_session_name: Option<String>,
    #[serde(rename = "use-cvm-role", default)]
    use_cvm_role: serde_json::Value,
}

impl TccliCredential {
    /// tccli's own writers differ in how they spell a truth value.
    fn uses_cvm_role(&self) -> bool {
        match &self.use_cvm_role {
            serde_json::Value::Bool(on) => *on,
            serde_json::Value::String(text) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }
}

/// `~/.tccli/<profile>.configure`, as far as it is used here.
#[derive(Deserialize)]
struct TccliConfigure {
    #[serde(rename = "_sys_param")]
    parameters: Option<TccliParameters>,
    /// A text in older files; in newer ones the product of that name, with its endpoint.
    region: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct TccliParameters {
    region: Option<String>,
}

fn profile_name(environment: &Environment, flag: Option<&str>) -> Result<String, CredentialsError> {
    let (place, name) = named(environment, flag)?.unwrap_or(("the default profile", "default"));
    let is_plain = |c: char| !c.is_control() && c != '/' && c != '\\';
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(broken(place, "a profile is a file name without folders"));
    }
    Ok(name.to_owned())
}

/// The profile that flag or variable name, and which of them does.
fn named<'a>(
    environment: &'a Environment,
    flag: Option<&'a str>,
) -> Result<Option<(&'static str, &'a str)>, CredentialsError> {
    match flag {
        Some(name) => Ok(Some(("--profile", name))),
        None => one_of(Some(environment), &PROFILES),
    }
}

fn tccli_file(environment: &Environment, profile: &str, extension: &str) -> Option<PathBuf> {
    let folder = match environment.get(PROFILES_FOLDER) {
        Some(folder) => PathBuf::from(folder),
        None => environment.home()?.join(".tccli"),
    };
    Some(folder.join(format!("{profile}.{extension}")))
}
