//! The identity of a pod of TKE: a token that the cluster renews in a file, for the keys of a role.
//!
//! Four variables say where it is (SDK for Go, `common/oidc_role_arn_provider.go`); the call to STS is
//! not signed, since the token proves who calls. The file is read anew each time.

use std::path::Path;

use super::assume_role::{self, Wanted};
use super::{Found, Heard, broken, client, nobody, read_optional};
use crate::auth::Secret;
use crate::cloud::CloudSettings;
use crate::cloud::actions::sts;
use crate::cloud::api::ApiClient;
use crate::environment::Environment;
use crate::model::Region;

pub(super) const REGION: &str = "TKE_REGION";
pub(super) const PROVIDER_ID: &str = "TKE_PROVIDER_ID";
pub(super) const TOKEN_FILE: &str = "TKE_WEB_IDENTITY_TOKEN_FILE";
pub(super) const ROLE_ARN: &str = "TKE_ROLE_ARN";

/// Asks STS for the keys of the pod's role, where this is a pod with one.
pub(super) async fn ask(settings: &CloudSettings, environment: &Environment) -> Heard {
    let names = [PROVIDER_ID, TOKEN_FILE, ROLE_ARN, REGION];
    let values = names.map(|name| environment.get(name));
    let [Some(provider_id), Some(file), Some(arn), Some(region)] = values else {
        // A region alone says nothing of an identity.
        if values[..3].iter().all(Option::is_none) {
            let names = names.join(", ");
            return Ok(Err(format!("identity of a TKE pod ({names}): not set")));
        }
        let missing = names.iter().zip(values).find(|(_, value)| value.is_none());
        let missing = missing.map_or(REGION, |(name, _)| *name);
        let problem = "it is not set, and other variables of the identity of a TKE pod are";
        return Err(broken(missing, problem));
    };
    let region: Region = region
        .parse()
        .map_err(|_| broken(REGION, "it is no region code (example: `ap-guangzhou`)"))?;
    let role = Wanted::new(ROLE_ARN, arn, None)?;
    let token = token_in(file)?;
    let place = format!("identity of a TKE pod ({TOKEN_FILE}, {ROLE_ARN})");
    let call = sts::AssumeRoleWithWebIdentity {
        provider_id: provider_id.to_owned(),
        web_identity_token: token.clone(),
        role_arn: role.arn().to_owned(),
        role_session_name: role.session_name().to_owned(),
    };
    let http = client(settings, nobody(), &place)?.hiding(token);
    let answer = ApiClient::new(http).call(Some(&region), &call).await;
    let credentials = assume_role::keys_of(&place, answer.map(|answer| answer.value))?;
    Ok(Ok(Found::new(credentials, &place)))
}

fn token_in(file: &str) -> Result<Secret, super::CredentialsError> {
    let place = format!("{TOKEN_FILE} ({file})");
    let text = read_optional(Path::new(file), &place, None)?.map_err(|why| broken(&place, why))?;
    // Whoever writes the file may end its line.
    match text.trim() {
        "" => Err(broken(&place, "it is empty")),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(token)),
        _ => Err(broken(&place, "it holds characters that no token has")),
    }
}
