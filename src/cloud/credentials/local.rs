//! Keys that stand in flags, in the environment or in the file of the SDKs.

use std::path::PathBuf;

use super::metadata::Meant;
use super::{
    Asked, CAM_ROLE_NAME, CREDENTIALS_FILE, Flags, Found, Link, SECRET_ID, SECRET_KEY, TOKENS,
    assemble, broken, read_optional,
};
use crate::auth::Secret;
use crate::environment::Environment;
use crate::model::CloudText;

/// `--secret-id` and its company, or the role of the instance by `--use-cvm-role`.
pub(super) fn flags(flags: &Flags) -> Asked {
    let Flags {
        secret_id,
        secret_key,
        token,
        ..
    } = flags;
    let place = "--secret-id and --secret-key";
    if flags.use_cvm_role {
        if secret_id.is_some() || secret_key.is_some() || token.is_some() || flags.profile.is_some()
        {
            let problem = "it goes with neither keys nor a profile: the instance has its own";
            return Err(broken("--use-cvm-role", problem));
        }
        return Ok(Link::Instance(Meant::any("--use-cvm-role")));
    }
    match (secret_id, secret_key) {
        (Some(id), Some(key)) => {
            let token = token.as_ref().map(Secret::expose);
            let credentials = assemble(place, id, key.expose(), token, None)?;
            Ok(Found::new(credentials, place).into())
        }
        (None, None) if token.is_none() => Ok(Link::Absent(format!("{place}: not given"))),
        _ => Err(broken(
            place,
            "they go together, and --token goes with both",
        )),
    }
}

/// The variables with keys, or else the name of the instance's role.
pub(super) fn variables(environment: &Environment, flags: &Flags) -> Asked {
    let place = format!("environment variables {SECRET_ID} and {SECRET_KEY}");
    if let Some(profile) = &flags.profile {
        let profile = CloudText::excerpt(profile, 40);
        return Ok(Link::Absent(format!(
            "{place}: ignored, as --profile {profile} is given"
        )));
    }
    let token = match TOKENS.map(|name| environment.get(name)) {
        [Some(one), Some(other)] if one != other => {
            return Err(broken(&TOKENS.join(" and "), "both are set and differ"));
        }
        [one, other] => one.or(other),
    };
    match (environment.get(SECRET_ID), environment.get(SECRET_KEY)) {
        (Some(id), Some(key)) => {
            let credentials = assemble(&place, id, key, token, None)?;
            Ok(Found::new(credentials, &place).into())
        }
        (None, None) => Ok(match environment.get(CAM_ROLE_NAME) {
            Some(name) => Link::Instance(Meant::named(CAM_ROLE_NAME, name)?),
            None => Link::Absent(format!("{place}: not set")),
        }),
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

/// The file of Tencent's SDKs.
pub(super) fn sdk_file(environment: &Environment) -> Asked {
    let named = environment.get(CREDENTIALS_FILE).map(PathBuf::from);
    let is_named = named.is_some();
    let usual = || {
        Some(
            environment
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
    let text = match read_optional(&path, &place, environment.home())? {
        Ok(text) => text,
        Err(why) if is_named => {
            return Err(broken(
                &place,
                format!("{CREDENTIALS_FILE} names it, and {why}"),
            ));
        }
        Err(why) => return Ok(Link::Absent(format!("{place}: {why}"))),
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
            Ok(Found::in_file(credentials, &place, &path).into())
        }
        _ => Err(broken(
            &place,
            "its section `default` lacks `secret_id` or `secret_key`",
        )),
    }
}
