//! STS 2018-08-13 and region 2022-06-27: who is calling, and where there is a cloud.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::auth::{Credentials, Secret};

use super::super::wire::{iso_date, random_hex};
use super::super::world::World;
use super::parameters::{Field, Kind, Parameters};
use super::{Action, ApiError, REGIONS, Scene};

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
    _: &Scene<'_>,
    _: &Parameters,
) -> Result<Value, ApiError> {
    let uin = &world.uin;
    Ok(json!({
        "Arn": format!("qcs::cam::uin/{uin}:uin/{uin}"),
        "AccountId": uin,
        "UserId": uin,
        "PrincipalId": uin,
        "Type": "RootAccount",
    }))
}

/// Hands out temporary keys for any existing role. Trust is not asked: which principals a document
/// of the account's own names is not what this tool is about.
fn assume_role(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let arn = parameters.text("RoleArn").unwrap_or_default();
    let start = format!("qcs::cam::uin/{}:roleName/", world.uin);
    let role = arn.strip_prefix(&start);
    if !world
        .roles
        .iter()
        .any(|known| Some(known.name.as_str()) == role)
    {
        return Err(ApiError::new(
            "ResourceNotFound.RoleNotFound",
            format!("The role `{arn}` does not exist."),
        ));
    }
    let seconds = parameters.unsigned("DurationSeconds").unwrap_or(7200);
    if !(1..=43_200).contains(&seconds) {
        return Err(ApiError::new(
            "InvalidParameter.ParamError",
            "`DurationSeconds` is at most 43200.",
        ));
    }
    let life = TimeDelta::try_seconds(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
    let ends = scene.now.checked_add_signed(life).unwrap_or(scene.now);
    let secret_id = format!("AKIDsimulated{}", random_hex(40));
    let (secret_key, token) = (random_hex(32), random_hex(96));
    world.accept(Credentials {
        secret_id: secret_id.clone(),
        secret_key: Secret::new(secret_key.clone()),
        token: Some(Secret::new(token.clone())),
        expires_at: Some(ends),
    });
    Ok(json!({
        "Credentials": {
            "Token": token,
            "TmpSecretId": secret_id,
            "TmpSecretKey": secret_key,
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
