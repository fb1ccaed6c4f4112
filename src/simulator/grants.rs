//! What policies grant to the exporter, decided from their documents (syntax: page 598/10604).

use serde_json::Value;

use super::presets::Preset;
use super::world::{CustomPolicy, Policy, Role};

/// One object that somebody wants to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) region: &'a str,
    pub(super) app_id: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

impl Target<'_> {
    /// Its name in policies, where `uid` is the AppId.
    fn resource(&self) -> String {
        let (region, app_id) = (self.region, self.app_id);
        format!(
            "qcs::cos:{region}:uid/{app_id}:{}/{}",
            self.bucket, self.key
        )
    }
}

/// Whether `role` may write to `target`. A denial wins over everything that allows.
pub(super) fn may_write(
    role: &Role,
    policies: &[CustomPolicy],
    presets: &[Preset],
    target: Target<'_>,
) -> bool {
    let document_of = |attached: &Policy| {
        if attached.policy_type == "QCS" {
            let mut presets = presets.iter();
            let preset = presets.find(|preset| preset.name == attached.name);
            preset.map(|preset| preset.document.as_str())
        } else {
            let mut own = policies.iter();
            let own = own.find(|policy| policy.name == attached.name);
            own.map(|policy| policy.document.as_str())
        }
    };
    let documents: Vec<Value> = role
        .policies
        .iter()
        .filter_map(document_of)
        .filter_map(|document| serde_json::from_str(document).ok())
        .collect();
    let says = |effect: &str| {
        documents
            .iter()
            .any(|document| has_statement(document, effect, target))
    };
    let is_allowed = role.policies.iter().any(|policy| policy.writes) || says("allow");
    is_allowed && !says("deny")
}

fn has_statement(document: &Value, effect: &str, target: Target<'_>) -> bool {
    let resource = target.resource();
    one_or_more(&document["statement"])
        .into_iter()
        .filter(|statement| statement["effect"] == effect)
        .any(|statement| {
            let actions = one_or_more(&statement["action"]);
            let resources = one_or_more(&statement["resource"]);
            let names_it = |action: &Value| {
                let action = action.as_str().unwrap_or_default();
                // Action names of COS are case-sensitive, and the prefix `name/` may be left out.
                matches(action.trim_start_matches("name/"), "cos:PutObject")
            };
            let covers_it = |pattern: &Value| {
                let pattern = pattern.as_str().unwrap_or_default();
                matches(&in_region(pattern, target.region), &resource)
            };
            actions.into_iter().any(names_it) && resources.into_iter().any(covers_it)
        })
}

/// An empty region in a resource stands for all of them.
fn in_region(pattern: &str, region: &str) -> String {
    match pattern.strip_prefix("qcs::cos::") {
        Some(rest) => format!("qcs::cos:{region}:{rest}"),
        None => pattern.to_owned(),
    }
}

fn one_or_more(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Null => Vec::new(),
        single => vec![single],
    }
}

/// Whether `text` has the form of `pattern`, in which a star stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    text.char_indices()
        .map(|(place, _)| place)
        .chain([text.len()])
        .any(|place| matches(rest, &text[place..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(statements: &str, key: &str) -> bool {
        let mut role = Role::for_exports();
        role.policies = vec![Policy::custom("own")];
        let policy = CustomPolicy {
            name: "own".to_owned(),
            description: String::new(),
            document: format!(r#"{{"version":"2.0","statement":{statements}}}"#),
        };
        let target = Target {
            region: "ap-guangzhou",
            app_id: "1250000000",
            bucket: "exports-1250000000",
            key,
        };
        may_write(&role, &[policy], &[], target)
    }

    #[test]
    fn a_document_decides_by_effect_action_and_resource() {
        let statement = |effect: &str, action: &str, resource: &str| {
            format!(r#"{{"effect":"{effect}","action":["{action}"],"resource":["{resource}"]}}"#)
        };
        let bucket = "qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000";
        let allowed = |action: &str, resource: &str, key: &str| {
            grants(&format!("[{}]", statement("allow", action, resource)), key)
        };
        for (action, resource, key, expected) in [
            ("name/cos:PutObject", format!("{bucket}/*"), "a.raw", true),
            ("cos:PutObject", format!("{bucket}/*"), "a.raw", true),
            ("name/cos:*", "*".to_owned(), "a.raw", true),
            ("name/cos:Put*", format!("{bucket}/p*"), "p/a.raw", true),
            (
                "name/cos:PutObject",
                format!("{bucket}/p*"),
                "q/a.raw",
                false,
            ),
            ("name/cos:putobject", format!("{bucket}/*"), "a.raw", false),
            ("name/cos:GetObject", format!("{bucket}/*"), "a.raw", false),
            ("name/cos:PutObject", format!("{bucket}/"), "a.raw", false),
            (
                "name/cos:PutObject",
                "qcs::cos::uid/1250000000:exports-1250000000/*".to_owned(),
                "a.raw",
                true,
            ),
            (
                "name/cos:PutObject",
                "qcs::cos:ap-beijing:uid/1250000000:exports-1250000000/*".to_owned(),
                "a.raw",
                false,
            ),
            (
                "name/cos:PutObject",
                "qcs::cos:ap-guangzhou:uid/1250000000:other-1250000000/*".to_owned(),
                "a.raw",
                false,
            ),
        ] {
            let seen = allowed(action, &resource, key);
            assert_eq!(seen, expected, "{action} on {resource}, key {key}");
        }
        let both = [
            statement("allow", "name/cos:*", "*"),
            statement("deny", "name/cos:PutObject", &format!("{bucket}/secret*")),
        ]
        .join(",");
        assert!(grants(&format!("[{both}]"), "open.raw"));
        assert!(!grants(&format!("[{both}]"), "secret.raw"));
    }

    #[test]
    fn presets_grant_what_their_documents_say() {
        let presets = super::super::presets::all();
        for (name, expected) in [
            ("QcloudCOSDataFullControl", true),
            ("QcloudCOSFullAccess", true),
            ("QcloudCOSDataWriteOnly", true),
            (Preset::BY_CONSOLE, true),
            ("QcloudCOSReadOnlyAccess", false),
            ("QcloudCOSDataReadOnly", false),
            ("QcloudKMSAccessForCVMRole", false),
            ("NoSuchPreset", false),
        ] {
            let role = Role {
                policies: vec![Policy::preset(name)],
                ..Role::for_exports()
            };
            let target = Target {
                region: "ap-guangzhou",
                app_id: "1250000000",
                bucket: "exports-1250000000",
                key: "a.raw",
            };
            assert_eq!(may_write(&role, &[], &presets, target), expected, "{name}");
        }
    }
}
