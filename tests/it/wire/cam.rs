//! The calls of CAM that make, read and take back roles and policies.

use cvm_export::cloud::actions::cam;
use cvm_export::cloud::api::Action;
use cvm_export::model::RoleName;
use serde_json::{Value, json};

use super::api::{
    Example, bears_null_missing_and_new_fields, example, read_one, with_unforeseen_fields,
};

fn role(name: &str) -> RoleName {
    name.parse().expect("a role")
}

/// A field of an example as text.
fn text(request: &Value, field: &str) -> String {
    request[field].as_str().expect("a text").to_owned()
}

/// Holds `action` against its example. The documents take the id or the name of a role or a policy, and
/// their examples have ids; these calls go by names where a lost answer may have held the id.
#[track_caller]
fn is_as_documented<A>(action: A, added: &[(&'static str, Value)], omitted: &[&'static str])
where
    A: Action<Response = cam::Done> + Clone,
{
    Example {
        action: action.clone(),
        host: "cam.tencentcloudapi.com",
        version: "2019-01-16",
        region: None,
        request: example(&format!("{}.request", A::NAME)),
        added,
        omitted,
    }
    .is_sent_as_documented();
    let response = example(&format!("{}.response", A::NAME));
    let cam::Done {} = read_one(&action, response.clone());
    let cam::Done {} = read_one(&action, with_unforeseen_fields(&response));
}

#[test]
fn roles_are_made_changed_and_deleted() {
    let request = example("CreateRole.request");
    let create = cam::CreateRole {
        role_name: role("test_1234544"),
        policy_document: text(&request, "PolicyDocument"),
        description: text(&request, "Description"),
    };
    is_as_documented(create, &[], &[]);
    let named = [("RoleName", json!("CVM_QcsRole"))];
    let request = example("UpdateAssumeRolePolicy.request");
    let update = cam::UpdateAssumeRolePolicy {
        role_name: role("CVM_QcsRole"),
        policy_document: text(&request, "PolicyDocument"),
    };
    is_as_documented(update, &named, &["RoleId"]);
    let delete = cam::DeleteRole {
        role_name: role("CVM_QcsRole"),
    };
    is_as_documented(delete, &named, &["RoleId"]);
}

#[test]
fn policies_are_attached_and_detached() {
    let attach = cam::AttachRolePolicy {
        policy_name: "own".to_owned(),
        attach_role_name: role("CVM_QcsRole"),
    };
    let added = [
        ("PolicyName", json!("own")),
        ("AttachRoleName", json!("CVM_QcsRole")),
    ];
    is_as_documented(attach, &added, &["PolicyId", "AttachRoleId"]);
    let detach = cam::DetachRolePolicy {
        policy_name: "own".to_owned(),
        detach_role_name: role("CVM_QcsRole"),
    };
    let added = [
        ("PolicyName", json!("own")),
        ("DetachRoleName", json!("CVM_QcsRole")),
    ];
    is_as_documented(detach, &added, &["PolicyId", "DetachRoleId"]);
}

#[test]
fn policies_are_made_changed_and_deleted() {
    let request = example("CreatePolicy.request");
    let create = cam::CreatePolicy {
        policy_name: text(&request, "PolicyName"),
        policy_document: text(&request, "PolicyDocument"),
        description: text(&request, "Description"),
    };
    is_as_documented(create, &[], &[]);
    let request = example("UpdatePolicy.request");
    let update = cam::UpdatePolicy {
        policy_id: 17_698_703,
        policy_document: text(&request, "PolicyDocument"),
    };
    is_as_documented(update, &[], &[]);
    let delete = cam::DeletePolicy {
        policy_id: vec![524_497],
    };
    is_as_documented(delete, &[], &[]);
}

#[test]
fn get_policy() {
    let action = cam::GetPolicy {
        policy_id: 17_698_703,
    };
    Example {
        action: action.clone(),
        host: "cam.tencentcloudapi.com",
        version: "2019-01-16",
        region: None,
        request: example("GetPolicy.request"),
        added: &[],
        omitted: &[],
    }
    .is_sent_as_documented();
    let answer = read_one(&action, example("GetPolicy.response"));
    assert_eq!(answer.description, "测试策略");
    let document: Value = serde_json::from_str(answer.policy_document.as_str())
        .expect("a policy document is JSON in a text");
    assert_eq!(document["statement"][0]["action"][0], "name/cos:*");
    bears_null_missing_and_new_fields(&action, "GetPolicy.response", &[]);
}

#[test]
fn list_policies() {
    let action = cam::ListPolicies {
        rp: 1,
        page: 10,
        scope: "Local",
        keyword: "cvm-export".to_owned(),
    };
    Example {
        action: action.clone(),
        host: "cam.tencentcloudapi.com",
        version: "2019-01-16",
        region: None,
        request: example("ListPolicies.request"),
        added: &[("Scope", json!("Local")), ("Keyword", json!("cvm-export"))],
        omitted: &[],
    }
    .is_sent_as_documented();
    let answer = read_one(&action, example("ListPolicies.response"));
    let [policy] = answer.list.as_slice() else {
        panic!("one policy: {answer:?}");
    };
    assert_eq!(policy.policy_id, 16_313_162);
    assert_eq!(policy.policy_name, "QcloudAccessForCDNRole");
    assert_eq!(policy.attach_entity_count, Some(0));
    bears_null_missing_and_new_fields(&action, "ListPolicies.response", &["List[].PolicyId"]);
}
