//! A role that is taken on with the keys that were found (STS, `AssumeRole`).

use chrono::DateTime;

use super::{CredentialsError, Flags, assemble, broken, client};
use crate::auth::Credentials;
use crate::cloud::CloudSettings;
use crate::cloud::actions::sts;
use crate::cloud::api::{ApiClient, ApiError};
use crate::environment::Environment;

/// tccli's name, and terraform's.
pub(super) const ROLE_ARNS: [&str; 2] = ["TENCENTCLOUD_ROLE_ARN", "TENCENTCLOUD_ASSUME_ROLE_ARN"];
/// tccli's name, and terraform's.
pub(super) const SESSION_NAMES: [&str; 2] = [
    "TENCENTCLOUD_ROLE_SESSION_NAME",
    "TENCENTCLOUD_ASSUME_ROLE_SESSION_NAME",
];
pub(super) const SESSION_DURATION: &str = "TENCENTCLOUD_ASSUME_ROLE_SESSION_DURATION";
pub(super) const EXTERNAL_ID: &str = "TENCENTCLOUD_ASSUME_ROLE_EXTERNAL_ID";
/// Terraform's name for whoever vouches for a web identity.
pub(super) const PROVIDER_ID: &str = "TENCENTCLOUD_ASSUME_ROLE_PROVIDER_ID";
/// What the audit trail calls our sessions, where nobody says otherwise.
const SESSION_NAME: &str = "cvm-export";
/// The longest life that STS gives (API page of `AssumeRole`).
const LONGEST_SECONDS: u64 = 43_200;

/// A role that somebody wants to be taken on.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    place: String,
    arn: String,
    session_name: String,
    seconds: Option<u64>,
    external_id: Option<String>,
}

impl Wanted {
    /// The role `arn`, as `place` says.
    pub(super) fn new(
        place: &str,
        arn: &str,
        session_name: Option<String>,
    ) -> Result<Self, CredentialsError> {
        let is_arn =
            arn.starts_with("qcs::cam::") && arn.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_arn {
            return Err(broken(
                place,
                "it is no resource name of a role (example: `qcs::cam::uin/100000000001:roleName/ci`)",
            ));
        }
        let wanted = Self {
            place: place.to_owned(),
            arn: arn.to_owned(),
            session_name: SESSION_NAME.to_owned(),
            seconds: None,
            external_id: None,
        };
        match session_name {
            None => Ok(wanted),
            Some(name) => wanted.called(place, &name),
        }
    }

    /// The same role with another name of the session.
    fn called(self, place: &str, name: &str) -> Result<Self, CredentialsError> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"=,.@_-".contains(&byte);
        if !(2..=128).contains(&name.len()) || !name.bytes().all(is_known) {
            return Err(broken(
                place,
                "the name of a session has 2 to 128 letters, digits and `=,.@_-`",
            ));
        }
        Ok(Self {
            session_name: name.to_owned(),
            ..self
        })
    }

    pub(super) fn place(&self) -> String {
        format!("role `{}` ({})", self.arn, self.place)
    }

    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    pub(super) fn session_name(&self) -> &str {
        &self.session_name
    }
}

/// The role to take on with keys whose own place wants `of_place`. A flag comes first, then the
/// environment, which a profile named by a flag switches off.
pub(super) fn wanted(
    environment: &Environment,
    flags: &Flags,
    of_place: Option<&Wanted>,
) -> Result<Option<Wanted>, CredentialsError> {
    let environment = Some(environment).filter(|_| flags.profile.is_none());
    let wanted = match &flags.role_arn {
        Some(arn) => Some(Wanted::new("--role-arn", arn, None)?),
        None => {
            let arn = one_of(environment, &ROLE_ARNS)?;
            arn.map(|(name, arn)| Wanted::new(name, arn, None))
                .transpose()?
        }
    };
    let wanted = match (wanted, environment) {
        (None, _) => of_place.cloned(),
        (Some(wanted), None) => Some(wanted),
        (Some(wanted), Some(environment)) => Some(with_settings(wanted, environment)?),
    };
    match (&flags.role_session_name, wanted) {
        (None, wanted) => Ok(wanted),
        (Some(name), Some(wanted)) => Ok(Some(wanted.called("--role-session-name", name)?)),
        (Some(_), None) => Err(broken(
            "--role-session-name",
            "there is no role to take on; `--role-arn` names one",
        )),
    }
}

fn with_settings(wanted: Wanted, environment: &Environment) -> Result<Wanted, CredentialsError> {
    if wanted.place == ROLE_ARNS[1] && environment.get(PROVIDER_ID).is_some() {
        return Err(broken(
            PROVIDER_ID,
            "terraform's web identity is not read here; TKE_PROVIDER_ID, TKE_WEB_IDENTITY_TOKEN_FILE, \
             TKE_ROLE_ARN and TKE_REGION say the same",
        ));
    }
    let mut wanted = match one_of(Some(environment), &SESSION_NAMES)? {
        Some((place, name)) => wanted.called(place, name)?,
        None => wanted,
    };
    if let Some(text) = environment.get(SESSION_DURATION) {
        let seconds = text.parse().ok();
        let seconds = seconds.filter(|seconds| (1..=LONGEST_SECONDS).contains(seconds));
        let problem = "it is no number of seconds from 1 to 43200";
        wanted.seconds = Some(seconds.ok_or_else(|| broken(SESSION_DURATION, problem))?);
    }
    wanted.external_id = environment.get(EXTERNAL_ID).map(str::to_owned);
    Ok(wanted)
}

/// The value of whichever of two variables is set.
pub(super) fn one_of<'a>(
    environment: Option<&'a Environment>,
    names: &[&'static str; 2],
) -> Result<Option<(&'static str, &'a str)>, CredentialsError> {
    let Some(environment) = environment else {
        return Ok(None);
    };
    match names.map(|name| environment.get(name)) {
        [Some(one), Some(other)] if one != other => {
            Err(broken(&names.join(" and "), "both are set and differ"))
        }
        [Some(one), _] => Ok(Some((names[0], one))),
        [None, other] => Ok(other.map(|other| (names[1], other))),
    }
}

/// Takes the role on with `keys`.
pub(super) async fn ask(
    settings: &CloudSettings,
    wanted: &Wanted,
    keys: Credentials,
) -> Result<Credentials, CredentialsError> {
    let place = wanted.place();
    // STS needs a region, and any will do.
    let region = settings.endpoints.any_region();
    let call = sts::AssumeRole {
        role_arn: wanted.arn.clone(),
        role_session_name: wanted.session_name.clone(),
        duration_seconds: wanted.seconds,
        external_id: wanted.external_id.clone(),
    };
    let http = client(settings, keys, &place)?;
    let answer = ApiClient::new(http).call(Some(&region), &call).await;
    keys_of(&place, answer.map(|answer| answer.value))
}

/// The keys that STS answers a request for a role with.
pub(super) fn keys_of(
    place: &str,
    answer: Result<sts::AssumedRole, ApiError>,
) -> Result<Credentials, CredentialsError> {
    let role = answer.map_err(|source| CredentialsError::Sts {
        place: place.to_owned(),
        source: Box::new(source),
    })?;
    let end = DateTime::from_timestamp(role.expired_time, 0)
        .ok_or_else(|| broken(place, "the end that STS names for its keys is no time"))?;
    assemble(
        place,
        &role.credentials.tmp_secret_id,
        role.credentials.tmp_secret_key.expose(),
        Some(role.credentials.token.expose()),
        Some(end),
    )
}
