//! STS 2018-08-13 and region 2022-06-27: who is calling, and where there is a cloud.

use serde_json::{Value, json};

use crate::auth::Secret;

use super::super::keys::{Session, WebIdentity, end_of};
use super::super::wire::{Received, iso_date};
use super::super::world::{Role, World};
use super::parameters::{Field, Kind, Parameters};
use super::{Action, ApiError, ApiHost, REGIONS, Scene};

const WITH_WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";

/// Whether a call proves itself by a token in its body, in place of a signature.
pub(super) fn is_unsigned(host: &ApiHost, request: &Received) -> bool {
    host.service == "sts"
        && super::operation(request) == WITH_WEB_IDENTITY
        && request.header("authorization") == Some("SKIP")
}

pub(super) const ACTIONS: &[Action] = &[
    Action {
        service: "sts",
        name: "GetCallerIdentity",
        version: "2018-08-13",
        needs_region: true,
        rate: 0,
        fields: &[],
        run: get_caller_identity,
    },
    Action {
        service: "sts",
        name: "AssumeRole",
        version: "2018-08-13",
        needs_region: true,
        rate: 0,
        fields: &[
            Field::required("RoleArn", Kind::Text),
            Field::required("RoleSessionName", Kind::Text),
            Field::optional("DurationSeconds", Kind::Unsigned),
            Field::optional("Policy", Kind::Text),
            Field::optional("ExternalId", Kind::Text),
            Field::optional("Tags", Kind::Tags),
            Field::optional("SourceIdentity", Kind::Text),
            Field::optional("SerialNumber", Kind::Text),
            Field::optional("TokenCode", Kind::Text),
        ],
        run: assume_role,
    },
    Action {
        service: "sts",
        name: WITH_WEB_IDENTITY,
        version: "2018-08-13",
        needs_region: true,
        rate: 0,
        fields: &[
            Field::required("ProviderId", Kind::Text),
            Field::required("WebIdentityToken", Kind::Text),
            Field::required("RoleArn", Kind::Text),
            Field::required("RoleSessionName", Kind::Text),
            Field::optional("DurationSeconds", Kind::Unsigned),
        ],
        run: assume_role_with_web_identity,
    },
    Action {
        service: "region",
        name: "DescribeRegions",
        version: "2022-06-27",
        needs_region: false,
        rate: 50,
        fields: &[
            Field::required("Product", Kind::Text),
            Field::optional("Scene", Kind::Unsigned),
        ],
        run: describe_regions,
    },
];

fn get_caller_identity(
    world: &mut World,
    scene: &Scene<'_>,
    _: &Parameters,
) -> Result<Value, ApiError> {
    let uin = &world.uin;
    if let Some(session) = world.keys.sessions.get(scene.caller) {
        return Ok(json!({
            "Arn": format!("qcs::sts:{uin}:assumed-role/{}", session.role),
            "AccountId": uin,
            "UserId": format!("{}:{}", session.role, session.name),
            "PrincipalId": uin,
            "Type": "CAMRole",
        }));
    }
    Ok(json!({
        "Arn": format!("qcs::cam::uin/{uin}:uin/{uin}"),
        "AccountId": uin,
        "UserId": uin,
        "PrincipalId": uin,
        "Type": "RootAccount",
    }))
}

/// Hands out temporary keys for a role that trusts the account.
fn assume_role(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let role = existing_role(world, parameters)?;
    if !role.trusts_account(&world.uin) {
        return Err(ApiError::new(
            "UnauthorizedOperation",
            format!(
                "You are not authorized to perform operation (sts:AssumeRole)\nthe role `{}` does not trust the caller",
                role.name
            ),
        ));
    }
    let role = role.name.clone();
    keys_of_a_role(world, scene, parameters, role)
}

/// As [`assume_role`], for a token that the world knows.
fn assume_role_with_web_identity(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let role = existing_role(world, parameters)?.name.clone();
    let text = |name| parameters.text(name).unwrap_or_default();
    let is_of_provider = |known: &&WebIdentity| known.provider_id == text("ProviderId");
    let mut of_provider = world
        .keys
        .web_identities
        .iter()
        .filter(is_of_provider)
        .peekable();
    if of_provider.peek().is_none() {
        return Err(ApiError::new(
            "InvalidParameter.OIDCProviderNotFound",
            "The identity provider does not exist.",
        ));
    }
    let is_taken = |known: &WebIdentity| {
        known.token.expose() == text("WebIdentityToken") && known.role == role
    };
    if !of_provider.any(is_taken) {
        return Err(ApiError::new(
            "InvalidParameter.WebIdentityTokenError",
            "The web identity token is wrong, has expired, or is not meant for this role.",
        ));
    }
    keys_of_a_role(world, scene, parameters, role)
}

/// The role that `RoleArn` names.
fn existing_role<'a>(world: &'a World, parameters: &Parameters) -> Result<&'a Role, ApiError> {
    let arn = parameters.text("RoleArn").unwrap_or_default();
    let start = format!("qcs::cam::uin/{}:roleName/", world.uin);
    let named = arn.strip_prefix(&start);
    let role = world
        .roles
        .iter()
        .find(|known| Some(known.name.as_str()) == named);
    role.ok_or_else(|| {
        ApiError::new(
            "ResourceNotFound.RoleNotFound",
            format!("The role `{arn}` does not exist."),
        )
    })
}

fn keys_of_a_role(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
    role: String,
) -> Result<Value, ApiError> {
    let seconds = parameters.unsigned("DurationSeconds").unwrap_or(7200);
    if !(1..=43_200).contains(&seconds) {
        return Err(ApiError::new(
            "InvalidParameter.ParamError",
            "`DurationSeconds` is at most 43200.",
        ));
    }
    let keys = world.hand_out(scene.now, seconds);
    let name = parameters.text("RoleSessionName").unwrap_or_default();
    let session = Session {
        role,
        name: name.to_owned(),
    };
    world.keys.sessions.insert(keys.secret_id.clone(), session);
    let ends = end_of(&keys);
    Ok(json!({
        "Credentials": {
            "Token": keys.token.as_ref().map(Secret::expose),
            "TmpSecretId": keys.secret_id,
            "TmpSecretKey": keys.secret_key.expose(),
        },
        "ExpiredTime": ends.timestamp(),
        "Expiration": iso_date(ends).replace(".000Z", "Z"),
    }))
}

fn describe_regions(
    _: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let product = parameters.text("Product").unwrap_or_default();
    if product != "cvm" {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("The product `{product}` is not simulated."),
        ));
    }
    let regions: Vec<Value> = REGIONS
        .iter()
        .map(|(code, name)| {
            json!({
                "Region": code,
                "RegionName": name,
                "RegionState": "AVAILABLE",
                "RegionTypeMC": null,
                "LocationMC": null,
                "RegionNameMC": null,
                "RegionIdMC": null,
            })
        })
        .collect();
    Ok(json!({"TotalCount": regions.len(), "RegionSet": regions}))
}
