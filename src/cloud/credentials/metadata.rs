//! The role that is bound to a CVM, by the metadata host that only the machine itself can reach.
//!
//! `GET http://metadata.tencentyun.com/latest/meta-data/cam/security-credentials/` lists the role's
//! name; with the name appended it answers temporary keys as JSON; 404 where no role is bound (product
//! page 213/4934; SDK for Python, `CVMRoleCredential`). The host is plain HTTP, and never behind a proxy.
//!
//! It is asked where somebody wants it, and on a CVM. Elsewhere its name may resolve to anything, so
//! whether this is a CVM is read from what the firmware says of the machine, never found by trying.

use std::path::Path;

use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use super::{CredentialsError, Found, Heard, assemble, broken, client, nobody};
use crate::cloud::CloudSettings;
use crate::cloud::http::{Connection, HttpClient, Request, RequestError, Response};
use crate::error::one_line;
use crate::model::CloudText;

const HOST: &str = "metadata.tencentyun.com";
const PATH: &str = "/latest/meta-data/cam/security-credentials/";
/// The host is one hop away: where it is silent for a second it is not there, and asking again would only
/// keep the person waiting. What it refuses or breaks off is tried once more.
const ATTEMPTS: usize = 2;

/// Whose role is meant, and where that is said.
#[derive(Debug)]
pub(super) struct Meant {
    /// The flag, variable or file that wants it.
    pub(super) place: String,
    name: Option<String>,
}

impl Meant {
    /// The role that is bound, whatever its name.
    pub(super) fn any(place: &str) -> Self {
        let place = place.to_owned();
        Self { place, name: None }
    }

    /// The role of this name.
    pub(super) fn named(place: &str, name: &str) -> Result<Self, CredentialsError> {
        if !is_role_name(name) {
            return Err(broken(place, "it is no name of a role"));
        }
        Ok(Self {
            name: Some(name.to_owned()),
            ..Self::any(place)
        })
    }
}

/// 1 to 128 letters, digits and `+=,.@-_` (CAM, `CreateRole`).
fn is_role_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte))
}

/// Asks on a CVM, though nobody has asked to.
pub(super) async fn ask_on_a_cvm(settings: &CloudSettings, machine: &Path) -> Heard {
    let place = "the role of this CVM";
    if !is_cvm(machine) {
        return Ok(Err(format!("{place}: this machine is no CVM")));
    }
    let heard = ask(settings, &Meant::any(place)).await?;
    Ok(heard.map_err(|problem| format!("{place}: {problem}")))
}

/// Whether the firmware names Tencent Cloud as the machine's vendor, or in the name of the product.
fn is_cvm(machine: &Path) -> bool {
    let says = |file: &str, word: &str| {
        std::fs::read_to_string(machine.join(file)).is_ok_and(|text| text.contains(word))
    };
    says("sys_vendor", "Tencent Cloud") || says("product_name", "Tencent Cloud")
}

/// Asks for the keys of the role that is meant. That there is no host or no role is the inner error; an
/// answer that makes no sense is the outer one.
pub(super) async fn ask(settings: &CloudSettings, meant: &Meant) -> Heard {
    let place = format!("{} (instance role from {HOST})", meant.place);
    let http = client(settings, nobody(), &place)?;
    let name = match &meant.name {
        Some(name) => name.clone(),
        None => match text(&http, PATH, &place).await? {
            Err(problem) => return Ok(Err(problem)),
            Ok(list) => match list.lines().map(str::trim).find(|line| !line.is_empty()) {
                None => return Ok(Err("no role is bound to this instance".to_owned())),
                Some(name) if is_role_name(name) => name.to_owned(),
                Some(_) => return Err(broken(&place, "its list of roles holds no name of a role")),
            },
        },
    };
    let answer = match text(&http, &format!("{PATH}{name}"), &place).await? {
        Err(problem) => return Ok(Err(format!("{problem} (role `{name}`)"))),
        Ok(answer) => answer,
    };
    let keys: Keys = super::parse_json(&answer, &place)?;
    if keys.code.as_str() != "Success" {
        let code = CloudText::excerpt(keys.code.as_str(), 40);
        return Err(broken(&place, format!("its answer has the code `{code}`")));
    }
    let (Some(id), Some(key), Some(token)) =
        (&keys.tmp_secret_id, &keys.tmp_secret_key, &keys.token)
    else {
        return Err(broken(
            &place,
            "its answer lacks `TmpSecretId`, `TmpSecretKey` or `Token`",
        ));
    };
    let Some(end) = keys
        .expired_time
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
    else {
        return Err(broken(&place, "its answer lacks `ExpiredTime`"));
    };
    let credentials = assemble(&place, id, key, Some(token), Some(end))?;
    Ok(Ok(Found::new(
        credentials,
        &format!("role `{name}` of this instance ({})", meant.place),
    )))
}

/// The keys as the metadata host tells them. No `Debug`: they are secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    tmp_secret_id: Option<String>,
    tmp_secret_key: Option<String>,
    token: Option<String>,
    expired_time: Option<i64>,
    #[serde(default)]
    code: CloudText,
}

/// The text at `path`; the inner error is that there is nothing.
async fn text(
    http: &HttpClient,
    path: &str,
    place: &str,
) -> Result<Result<String, String>, CredentialsError> {
    let mut attempt = 1;
    let answer = loop {
        let answer = get(http, path).await;
        let is_lasting = match &answer {
            Ok(response) => !response.status.is_server_error(),
            Err(error) => error.is_timeout(),
        };
        if is_lasting || attempt == ATTEMPTS {
            break answer;
        }
        attempt += 1;
    };
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Ok(Err(one_line(&error))),
    };
    match response.status {
        StatusCode::OK => match String::from_utf8(response.body.to_vec()) {
            Ok(text) => Ok(Ok(text)),
            Err(_) => Err(broken(place, "its answer is no text")),
        },
        StatusCode::NOT_FOUND => Ok(Err("no role is bound to this instance".to_owned())),
        status => Ok(Err(format!("{HOST} answered with HTTP status {status}"))),
    }
}

async fn get(http: &HttpClient, path: &str) -> Result<Response, RequestError> {
    let request = Request {
        method: Method::GET,
        host: HOST.to_owned(),
        target: path.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        connection: Connection::Metadata,
    };
    http.send(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cvm_is_known_by_what_its_firmware_says() {
        let cases = [
            ("sys_vendor", "Tencent Cloud\n", true),
            ("product_name", "Tencent Cloud CVM\n", true),
            ("sys_vendor", "QEMU\n", false),
            ("product_name", "CVM\n", false),
            ("sys_vendor", "", false),
            ("board_name", "Tencent Cloud", false),
        ];
        for (file, text, expected) in cases {
            let machine = tempfile::tempdir().expect("a folder");
            std::fs::write(machine.path().join(file), text).expect("written");
            assert_eq!(is_cvm(machine.path()), expected, "asked: {file} {text:?}");
        }
        assert!(!is_cvm(Path::new("/nowhere")));
    }

    #[test]
    fn a_name_that_could_lead_elsewhere_is_no_name_of_a_role() {
        for name in ["a", "CVM_QcsRole", "a+=,.@-_9"] {
            assert!(Meant::named("x", name).is_ok(), "{name}");
        }
        for name in ["", "a/b", "a b", "a?b", "a#b", "<html>", "rôle", "a\n"] {
            assert!(Meant::named("x", name).is_err(), "{name}");
        }
        assert!(Meant::named("x", &"a".repeat(129)).is_err());
    }
}
