//! CAM 2019-01-16: the role that the exporter assumes, its policies, and the account's numbers.

use serde_json::{Value, json};

use super::super::world::{Policy, Role, World};
use super::parameters::{Field, Kind, Parameters};
use super::{Action, ApiError, Scene};

const VERSION: &str = "2019-01-16";

/// The presets of the documentation and whether each grants writing into buckets.
const PRESETS: &[(&str, bool)] = &[
    ("QcloudCOSDataFullControl", true),
    ("QcloudCOSFullAccess", true),
    ("QcloudCOSDataWriteOnly", true),
    ("QcloudCOSReadOnlyAccess", false),
    ("QcloudCOSDataReadOnly", false),
    ("QcloudCOSBucketConfigRead", false),
    ("QcloudCOSGetServiceAccess", false),
    ("QcloudKMSAccessForCVMRole", false),
];

pub(super) const ACTIONS: &[Action] = &[
    action(
        "GetRole",
        &[
            Field::optional("RoleId", Kind::Text),
            Field::optional("RoleName", Kind::Text),
        ],
        get_role,
    ),
    action(
        "ListAttachedRolePolicies",
        &[
            Field::required("Page", Kind::Unsigned),
            Field::required("Rp", Kind::Unsigned),
            Field::optional("RoleId", Kind::Text),
            Field::optional("RoleName", Kind::Text),
            Field::optional("PolicyType", Kind::Text),
            Field::optional("Keyword", Kind::Text),
        ],
        list_attached_role_policies,
    ),
    action("GetUserAppId", &[], get_user_app_id),
    action(
        "CreateRole",
        &[
            Field::required("RoleName", Kind::Text),
            Field::required("PolicyDocument", Kind::Text),
            Field::optional("Description", Kind::Text),
            Field::optional("ConsoleLogin", Kind::Unsigned),
            Field::optional("SessionDuration", Kind::Unsigned),
            Field::optional("Tags", Kind::Tags),
        ],
        create_role,
    ),
    action(
        "AttachRolePolicy",
        &[
            Field::optional("PolicyId", Kind::Unsigned),
            Field::optional("PolicyName", Kind::Text),
            Field::optional("AttachRoleId", Kind::Text),
            Field::optional("AttachRoleName", Kind::Text),
        ],
        attach_role_policy,
    ),
    action(
        "DetachRolePolicy",
        &[
            Field::optional("PolicyId", Kind::Unsigned),
            Field::optional("PolicyName", Kind::Text),
            Field::optional("DetachRoleId", Kind::Text),
            Field::optional("DetachRoleName", Kind::Text),
        ],
        detach_role_policy,
    ),
];

const fn action(
    name: &'static str,
    fields: &'static [Field],
    run: fn(&mut World, &Scene<'_>, &Parameters) -> Result<Value, ApiError>,
) -> Action {
    Action {
        service: "cam",
        name,
        version: VERSION,
        needs_region: false,
        rate: 20,
        fields,
        run,
    }
}

/// The place of the role that either parameter names.
fn find(
    world: &World,
    parameters: &Parameters,
    id_field: &str,
    name_field: &str,
) -> Result<usize, ApiError> {
    let (id, name) = (parameters.text(id_field), parameters.text(name_field));
    if id.is_none() && name.is_none() {
        return Err(ApiError::new(
            "InvalidParameter.ParamError",
            format!("One of `{id_field}` and `{name_field}` must be given."),
        ));
    }
    let place = world.roles.iter().position(|role| {
        id.is_none_or(|id| role_id(role) == id) && name.is_none_or(|name| role.name == name)
    });
    place.ok_or_else(|| ApiError::new("InvalidParameter.RoleNotExist", "The role does not exist."))
}

/// A number that depends on the name alone.
fn number_of(name: &str) -> u64 {
    let bytes = name.bytes();
    bytes.fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_000_007)
}

fn role_id(role: &Role) -> String {
    format!("46116860184{:09}", number_of(&role.name))
}

fn get_role(world: &mut World, _: &Scene<'_>, parameters: &Parameters) -> Result<Value, ApiError> {
    let role = &world.roles[find(world, parameters, "RoleId", "RoleName")?];
    Ok(json!({"RoleInfo": {
        "RoleId": role_id(role),
        "RoleName": role.name,
        "PolicyDocument": role.trust,
        "Description": "",
        "AddTime": "2024-01-01 00:00:00",
        "UpdateTime": "2024-01-01 00:00:00",
        "ConsoleLogin": 0,
        "RoleType": "user",
        "SessionDuration": 0,
        "DeletionTaskId": null,
        "Tags": null,
        "RoleArn": format!("qcs::cam::uin/{}:roleName/{}", world.uin, role.name),
    }}))
}

fn list_attached_role_policies(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let role = &world.roles[find(world, parameters, "RoleId", "RoleName")?];
    let page = parameters.unsigned("Page").unwrap_or(1);
    let size = parameters.unsigned("Rp").unwrap_or(20);
    if page < 1 || !(1..=200).contains(&size) {
        return Err(ApiError::new(
            "InvalidParameter.ParamError",
            "`Page` starts at 1, and `Rp` is at most 200.",
        ));
    }
    let found: Vec<Value> = role
        .policies
        .iter()
        .filter(|policy| {
            let wanted = parameters.text("PolicyType");
            wanted.is_none_or(|wanted| policy.policy_type == wanted)
        })
        .filter(|policy| {
            let keyword = parameters.text("Keyword").unwrap_or_default();
            policy.name.contains(keyword)
        })
        .map(describe_policy)
        .collect();
    let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
    let before = number(page - 1).saturating_mul(number(size));
    let total = found.len();
    let list: Vec<Value> = found.into_iter().skip(before).take(number(size)).collect();
    Ok(json!({"List": list, "TotalNum": total}))
}

fn describe_policy(policy: &Policy) -> Value {
    json!({
        "PolicyId": number_of(&policy.name),
        "PolicyName": policy.name,
        "AddTime": "2024-01-01 00:00:00",
        "PolicyType": policy.policy_type,
        "CreateMode": 2,
        "Deactived": 0,
        "DeactivedDetail": [],
        "Description": "",
    })
}

fn get_user_app_id(world: &mut World, _: &Scene<'_>, _: &Parameters) -> Result<Value, ApiError> {
    let app_id: u64 = world
        .app_id
        .parse()
        .map_err(|_| ApiError::new("InternalError.SystemError", "The account has no AppId."))?;
    Ok(json!({"Uin": world.uin, "OwnerUin": world.uin, "AppId": app_id}))
}

fn create_role(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let name = parameters.text("RoleName").unwrap_or_default();
    if name.parse::<crate::model::RoleName>().is_err() {
        return Err(ApiError::new(
            "InvalidParameter.RoleNameError",
            "The role name is not valid.",
        ));
    }
    if world.roles.iter().any(|role| role.name == name) {
        return Err(ApiError::new(
            "InvalidParameter.RoleNameInUse",
            "A role of this name exists.",
        ));
    }
    let trust = parameters.text("PolicyDocument").unwrap_or_default();
    let document: Result<Value, _> = serde_json::from_str(trust);
    if !document.is_ok_and(|document| document["statement"].is_array()) {
        return Err(ApiError::new(
            "InvalidParameter.PrincipalError",
            "The policy document is not valid.",
        ));
    }
    let role = Role {
        name: name.to_owned(),
        trust: trust.to_owned(),
        policies: Vec::new(),
    };
    let id = role_id(&role);
    world.roles.push(role);
    Ok(json!({"RoleId": id}))
}

fn attach_role_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(world, parameters, "AttachRoleId", "AttachRoleName")?;
    let (name, writes) = preset(parameters)?;
    let policies = &mut world.roles[place].policies;
    if policies.iter().all(|policy| policy.name != name) {
        policies.push(Policy {
            name: name.to_owned(),
            policy_type: "QCS".to_owned(),
            writes,
        });
    }
    Ok(json!({}))
}

fn detach_role_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(world, parameters, "DetachRoleId", "DetachRoleName")?;
    let (id, name) = (
        parameters.unsigned("PolicyId"),
        parameters.text("PolicyName"),
    );
    world.roles[place]
        .policies
        .retain(|policy| Some(policy.name.as_str()) != name && Some(number_of(&policy.name)) != id);
    Ok(json!({}))
}

/// The preset that the parameters name.
fn preset(parameters: &Parameters) -> Result<(&'static str, bool), ApiError> {
    let (id, name) = (
        parameters.unsigned("PolicyId"),
        parameters.text("PolicyName"),
    );
    let found = PRESETS
        .iter()
        .find(|(known, _)| Some(*known) == name || Some(number_of(known)) == id);
    found.copied().ok_or_else(|| {
        ApiError::new(
            "InvalidParameter.PolicyIdNotExist",
            "The policy does not exist.",
        )
    })
}
