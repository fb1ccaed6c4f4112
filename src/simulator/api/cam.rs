//! CAM 2019-01-16: the role that the exporter assumes, its policies, and the account's numbers.

use serde_json::{Value, json};

use super::super::world::{CustomPolicy, Policy, Role, World};
use super::parameters::{Field, Kind, Parameters};
use super::{Action, ApiError, Scene};

const VERSION: &str = "2019-01-16";

/// The longest description (error `DescriptionLengthOverlimit` of the SDKs).
const DESCRIPTION_LIMIT_BYTES: usize = 300;

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
    action(
        "UpdateAssumeRolePolicy",
        &[
            Field::required("PolicyDocument", Kind::Text),
            Field::optional("RoleId", Kind::Text),
            Field::optional("RoleName", Kind::Text),
        ],
        update_assume_role_policy,
    ),
    action(
        "DeleteRole",
        &[
            Field::optional("RoleId", Kind::Text),
            Field::optional("RoleName", Kind::Text),
        ],
        delete_role,
    ),
    action(
        "CreatePolicy",
        &[
            Field::required("PolicyName", Kind::Text),
            Field::required("PolicyDocument", Kind::Text),
            Field::optional("Description", Kind::Text),
            Field::optional("Tags", Kind::Tags),
        ],
        create_policy,
    ),
    action(
        "GetPolicy",
        &[Field::required("PolicyId", Kind::Unsigned)],
        get_policy,
    ),
    action(
        "ListPolicies",
        &[
            Field::optional("Rp", Kind::Unsigned),
            Field::optional("Page", Kind::Unsigned),
            Field::optional("Scope", Kind::Text),
            Field::optional("Keyword", Kind::Text),
        ],
        list_policies,
    ),
    action(
        "UpdatePolicy",
        &[
            Field::optional("PolicyId", Kind::Unsigned),
            Field::optional("PolicyName", Kind::Text),
            Field::optional("Description", Kind::Text),
            Field::optional("PolicyDocument", Kind::Text),
        ],
        update_policy,
    ),
    action(
        "DeletePolicy",
        &[Field::required("PolicyId", Kind::UnsignedList)],
        delete_policy,
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

/// The place among `roles` of the one that either parameter names.
fn find(
    roles: &[Role],
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
    let place = roles.iter().position(|role| {
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
    let (roles, _) = world.access();
    let role = &roles[find(roles, parameters, "RoleId", "RoleName")?];
    Ok(json!({"RoleInfo": {
        "RoleId": role_id(role),
        "RoleName": role.name,
        "PolicyDocument": role.trust,
        "Description": role.description,
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
    let (roles, _) = world.access();
    let role = &roles[find(roles, parameters, "RoleId", "RoleName")?];
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
    page_of(found, parameters)
}

/// One page of a list, by `Page` from 1 and `Rp` for each.
fn page_of(found: Vec<Value>, parameters: &Parameters) -> Result<Value, ApiError> {
    let page = parameters.unsigned("Page").unwrap_or(1);
    let size = parameters.unsigned("Rp").unwrap_or(20);
    if page < 1 || !(1..=200).contains(&size) {
        return Err(ApiError::new(
            "InvalidParameter.ParamError",
            "`Page` starts at 1, and `Rp` is at most 200.",
        ));
    }
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
    let trust = document(parameters, "InvalidParameter.PrincipalError")?;
    let role = Role {
        name: name.to_owned(),
        description: description(parameters)?,
        trust,
        policies: Vec::new(),
    };
    let id = role_id(&role);
    world.before_access_change();
    world.roles.push(role);
    Ok(json!({"RoleId": id}))
}

fn update_assume_role_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(&world.roles, parameters, "RoleId", "RoleName")?;
    let trust = document(parameters, "InvalidParameter.PrincipalError")?;
    world.before_access_change();
    world.roles[place].trust = trust;
    Ok(json!({}))
}

fn delete_role(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(&world.roles, parameters, "RoleId", "RoleName")?;
    world.before_access_change();
    world.roles.remove(place);
    Ok(json!({}))
}

/// `PolicyDocument`, which must hold statements; `code` refuses anything else.
fn document(parameters: &Parameters, code: &str) -> Result<String, ApiError> {
    let text = parameters.text("PolicyDocument").unwrap_or_default();
    let document: Result<Value, _> = serde_json::from_str(text);
    if document.is_ok_and(|document| document["statement"].is_array()) {
        return Ok(text.to_owned());
    }
    Err(ApiError::new(code, "The policy document is not valid."))
}

fn description(parameters: &Parameters) -> Result<String, ApiError> {
    let text = parameters.text("Description").unwrap_or_default();
    if text.len() > DESCRIPTION_LIMIT_BYTES {
        return Err(ApiError::new(
            "InvalidParameter.DescriptionLengthOverlimit",
            format!("`Description` is longer than {DESCRIPTION_LIMIT_BYTES} bytes."),
        ));
    }
    Ok(text.to_owned())
}

fn create_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let name = parameters.text("PolicyName").unwrap_or_default();
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_sign) {
        return Err(ApiError::new(
            "InvalidParameter.PolicyNameError",
            "The policy name is not valid.",
        ));
    }
    let is_taken = world.policies.iter().any(|policy| policy.name == name);
    if is_taken || world.presets.iter().any(|preset| preset.name == name) {
        return Err(ApiError::new(
            "FailedOperation.PolicyNameInUse",
            "A policy of this name exists.",
        ));
    }
    let policy = CustomPolicy {
        name: name.to_owned(),
        description: description(parameters)?,
        document: document(parameters, "InvalidParameter.PolicyDocumentError")?,
    };
    let id = number_of(&policy.name);
    world.before_access_change();
    world.policies.push(policy);
    Ok(json!({"PolicyId": id}))
}

/// The place among `policies` of the one with this number or name.
fn find_policy(
    policies: &[CustomPolicy],
    id: Option<u64>,
    name: Option<&str>,
) -> Result<usize, ApiError> {
    let place = policies.iter().position(|policy| {
        Some(policy.name.as_str()) == name || Some(number_of(&policy.name)) == id
    });
    place.ok_or_else(|| {
        ApiError::new(
            "ResourceNotFound.PolicyIdNotFound",
            "The policy does not exist.",
        )
    })
}

fn get_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let id = parameters.unsigned("PolicyId");
    let mut presets = world.presets.iter();
    let preset = presets.find(|preset| Some(number_of(&preset.name)) == id);
    let (name, description, kind, document) = match preset {
        Some(preset) => (&preset.name, "", 2, &preset.document),
        None => {
            let (_, policies) = world.access();
            let policy = &policies[find_policy(policies, id, None)?];
            let description = policy.description.as_str();
            (&policy.name, description, 1, &policy.document)
        }
    };
    Ok(json!({
        "PolicyName": name,
        "Description": description,
        // 1 for the account's own, 2 for presets.
        "Type": kind,
        "AddTime": "2024-01-01 00:00:00",
        "UpdateTime": "2024-01-01 00:00:00",
        // The cloud escapes slashes, as its example shows.
        "PolicyDocument": document.replace('/', "\\/"),
        "PresetAlias": null,
        "IsServiceLinkedRolePolicy": 0,
    }))
}

fn list_policies(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let (roles, policies) = world.access();
    let scope = parameters.text("Scope").unwrap_or("All");
    if !matches!(scope, "All" | "QCS" | "Local") {
        return Err(ApiError::new(
            "InvalidParameter.ScopeError",
            "`Scope` is All, QCS or Local.",
        ));
    }
    let keyword = parameters.text("Keyword").unwrap_or_default();
    let own = policies.iter().filter(|_| scope != "QCS").map(|policy| {
        let (name, description) = (policy.name.as_str(), policy.description.as_str());
        (name, description, 1)
    });
    let presets = world.presets.iter().filter(|_| scope != "Local");
    let found = own
        .chain(presets.map(|preset| (preset.name.as_str(), "", 2)))
        .filter(|(name, ..)| name.contains(keyword))
        .map(|(name, description, kind)| {
            let carriers = roles.iter().filter(|role| {
                let mut attached = role.policies.iter();
                attached.any(|policy| policy.name == name)
            });
            json!({
                "PolicyId": number_of(name),
                "PolicyName": name,
                "AddTime": "2024-01-01 00:00:00",
                "UpdateTime": "2024-01-01 00:00:00",
                "Type": kind,
                "Description": description,
                "CreateMode": 2,
                "Attachments": 0,
                "ServiceType": null,
                "IsAttached": null,
                "Deactived": 0,
                "DeactivedDetail": null,
                "IsServiceLinkedPolicy": 0,
                "AttachEntityCount": carriers.count(),
                "AttachEntityBoundaryCount": 0,
            })
        })
        .collect();
    page_of(found, parameters)
}

fn update_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let (id, name) = (
        parameters.unsigned("PolicyId"),
        parameters.text("PolicyName"),
    );
    let place = find_policy(&world.policies, id, name)?;
    let document = match parameters.text("PolicyDocument") {
        None => None,
        Some(_) => Some(document(
            parameters,
            "InvalidParameter.PolicyDocumentError",
        )?),
    };
    let text = description(parameters)?;
    world.before_access_change();
    let policy = &mut world.policies[place];
    if let Some(document) = document {
        policy.document = document;
    }
    if parameters.text("Description").is_some() {
        policy.description = text;
    }
    Ok(json!({}))
}

/// Whether the cloud refuses to delete a policy that hangs somewhere is not published; here it is
/// taken off, so that a client that deletes too much is seen.
fn delete_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let mut names = Vec::new();
    for id in parameters.unsigned_list("PolicyId") {
        let place = find_policy(&world.policies, Some(id), None)?;
        names.push(world.policies[place].name.clone());
    }
    world.before_access_change();
    world
        .policies
        .retain(|policy| !names.contains(&policy.name));
    for role in &mut world.roles {
        role.policies
            .retain(|policy| policy.policy_type != "User" || !names.contains(&policy.name));
    }
    Ok(json!({}))
}

fn attach_role_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(&world.roles, parameters, "AttachRoleId", "AttachRoleName")?;
    let policy = attachable(world, parameters)?;
    world.before_access_change();
    let policies = &mut world.roles[place].policies;
    if policies.iter().all(|known| known.name != policy.name) {
        policies.push(policy);
    }
    Ok(json!({}))
}

fn detach_role_policy(
    world: &mut World,
    _: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let place = find(&world.roles, parameters, "DetachRoleId", "DetachRoleName")?;
    let (id, name) = (
        parameters.unsigned("PolicyId"),
        parameters.text("PolicyName"),
    );
    world.before_access_change();
    world.roles[place]
        .policies
        .retain(|policy| Some(policy.name.as_str()) != name && Some(number_of(&policy.name)) != id);
    Ok(json!({}))
}

/// The preset or the account's own policy that the parameters name.
fn attachable(world: &World, parameters: &Parameters) -> Result<Policy, ApiError> {
    let (id, name) = (
        parameters.unsigned("PolicyId"),
        parameters.text("PolicyName"),
    );
    let is_meant = |known: &str| Some(known) == name || Some(number_of(known)) == id;
    let mut presets = world.presets.iter();
    let preset = presets.find(|preset| is_meant(&preset.name));
    let own = world.policies.iter().find(|policy| is_meant(&policy.name));
    let (name, policy_type) = match (preset, own) {
        (Some(preset), _) => (&preset.name, "QCS"),
        (None, Some(own)) => (&own.name, "User"),
        (None, None) => {
            return Err(ApiError::new(
                "InvalidParameter.PolicyIdNotExist",
                "The policy does not exist.",
            ));
        }
    };
    Ok(Policy {
        name: name.clone(),
        policy_type: policy_type.to_owned(),
        // Its document says what it grants.
        writes: false,
    })
}
