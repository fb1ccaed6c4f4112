//! The calls of STS that bring keys.

use cvm_export::auth::Secret;
use cvm_export::cloud::actions::sts;
use serde_json::{Value, json};

use super::api::{Example, REGION, call, example, read_one, with_unforeseen_fields};

#[track_caller]
fn are_keys(keys: &sts::AssumedRole, token: &str) {
    assert_eq!(keys.credentials.token.expose(), token);
    assert_eq!(keys.credentials.tmp_secret_id, "AKID***");
    assert_eq!(keys.credentials.tmp_secret_key.expose(), "q95K***");
    assert_eq!(keys.expired_time, 1_543_914_376);
    let shown = format!("{keys:?}");
    assert!(!shown.contains(token) && !shown.contains("q95K"), "{shown}");
}

#[test]
fn assume_role() {
    let action = sts::AssumeRole {
        role_arn: "qcs::cam::uin/100015158414:roleName/readOnlyRole".to_owned(),
        role_session_name: "cts".to_owned(),
        duration_seconds: None,
        external_id: None,
    };
    let documented = |action: &sts::AssumeRole, added: &[(&'static str, Value)]| {
        Example {
            action: action.clone(),
            host: "sts.tencentcloudapi.com",
            version: "2018-08-13",
            region: Some(REGION),
            request: example("AssumeRole.request"),
            added,
            omitted: &[],
        }
        .is_sent_as_documented();
    };
    documented(&action, &[]);
    let agreed = sts::AssumeRole {
        duration_seconds: Some(1800),
        external_id: Some("x".to_owned()),
        ..action.clone()
    };
    let added = [("DurationSeconds", json!(1800)), ("ExternalId", json!("x"))];
    documented(&agreed, &added);
    let response = example("AssumeRole.response");
    are_keys(&read_one(&action, response.clone()), "da1e***");
    are_keys(
        &read_one(&action, with_unforeseen_fields(&response)),
        "da1e***",
    );
}

#[test]
fn assume_role_with_web_identity() {
    let mut request = example("AssumeRoleWithWebIdentity.request");
    let action = sts::AssumeRoleWithWebIdentity {
        provider_id: "OIDC".to_owned(),
        web_identity_token: Secret::new("eyJraWQiOiJkT**********CNOQ"),
        role_arn: "qcs::cam::uin/7989***:roleName/OneLogin-Role".to_owned(),
        role_session_name: "test_OIDC".to_owned(),
    };
    let response = example("AssumeRoleWithWebIdentity.response");
    let (sent, answer) = call(&action, Some(REGION), None, &[response]).remove(0);
    are_keys(&answer.expect("keys").value, "1siMD***");
    // The server's own default holds.
    request
        .as_object_mut()
        .expect("an object")
        .remove("DurationSeconds");
    assert_eq!(
        serde_json::from_slice::<Value>(&sent.body).expect("JSON"),
        request
    );
    for (name, value) in [
        ("host", "sts.tencentcloudapi.com"),
        ("x-tc-action", "AssumeRoleWithWebIdentity"),
        ("x-tc-version", "2018-08-13"),
        ("x-tc-region", REGION),
        ("authorization", "SKIP"),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert!(!sent.has("x-tc-token"));
}
