//! What policies, read as documents, say about writing to a bucket (syntax: product page 598/10604).

use serde_json::Value;

use super::{field, one_or_more};
use crate::model::{BucketName, Region};

/// What an upload by parts cannot do without.
const NEEDED_ACTIONS: &[&str] = &[
    "cos:PutObject",
    "cos:InitiateMultipartUpload",
    "cos:UploadPart",
    "cos:CompleteMultipartUpload",
];

/// The names that shall be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) bucket: &'a BucketName,
    pub(crate) region: &'a Region,
    /// How they all start; empty for every name of the bucket.
    pub(crate) start: &'a str,
}

/// Whether `documents` together certainly allow to write all names of `target`. `false` is no proof of
/// the contrary: conditions and other refinements of the syntax are not weighed.
pub(crate) fn allow_writing<'a>(
    documents: impl Iterator<Item = &'a str>,
    target: Target<'_>,
) -> bool {
    let documents: Vec<Value> = documents
        .filter_map(|document| serde_json::from_str(document).ok())
        .collect();
    let statements: Vec<&Value> = documents
        .iter()
        .filter_map(|document| field(document, "statement"))
        .flat_map(one_or_more)
        .collect();
    // Whatever a denial is about, and under whichever condition: it is for the cloud to say.
    let denies = |statement: &Value| {
        effect_is(statement, "deny")
            && (field(statement, "action").is_none()
                || NEEDED_ACTIONS.iter().any(|needed| names(statement, needed)))
    };
    if statements.iter().any(|statement| denies(statement)) {
        return false;
    }
    NEEDED_ACTIONS.iter().all(|needed| {
        statements.iter().any(|statement| {
            effect_is(statement, "allow")
                && field(statement, "condition").is_none()
                && names(statement, needed)
                && texts(statement, "resource").any(|resource| covers(resource, target))
        })
    })
}

/// Whether `document` may allow some part of the writing to `target`, or to any bucket if none is given.
/// `false` is certain: every statement was understood, and none is about it. What is written in a form
/// that is not known here may mean anything.
pub(crate) fn may_allow_writing(document: &str, target: Option<Target<'_>>) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(document) else {
        return true;
    };
    let Some(statements) = field(&document, "statement") else {
        return true;
    };
    let may_be_about = |resource: &Value| match (resource.as_str(), target) {
        (Some(resource), Some(target)) => may_overlap(resource, target),
        (Some(resource), None) => may_be_cos(resource),
        (None, _) => true,
    };
    one_or_more(statements).into_iter().any(|statement| {
        !effect_is(statement, "deny")
            && any_or_missing(statement, "action", may_name_needed)
            && any_or_missing(statement, "resource", may_be_about)
    })
}

/// Whether one of the values of a field is `meant`. A field that is not there may stand in another form.
fn any_or_missing(statement: &Value, name: &str, meant: impl Fn(&Value) -> bool) -> bool {
    field(statement, name).is_none_or(|values| one_or_more(values).into_iter().any(meant))
}

/// Whether the action of a statement may be one of those needed.
fn may_name_needed(action: &Value) -> bool {
    let Some(action) = action.as_str() else {
        return true;
    };
    let action = action.trim_start_matches("name/").to_ascii_lowercase();
    let is_known_form = action
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b":*_".contains(&byte))
        && action.contains([':', '*']);
    let matches_needed = |needed: &&str| matches(&action, &needed.to_ascii_lowercase());
    !is_known_form || NEEDED_ACTIONS.iter().any(matches_needed)
}

/// Whether a resource may be one of COS.
fn may_be_cos(resource: &str) -> bool {
    let mut parts = resource.splitn(6, ':');
    match (parts.next(), parts.nth(1)) {
        (Some("qcs"), Some(service)) => {
            !is_plain(service) || service.is_empty() || service.eq_ignore_ascii_case("cos")
        }
        _ => true,
    }
}

/// Whether some name of `target` may be in the resource `pattern`.
fn may_overlap(pattern: &str, target: Target<'_>) -> bool {
    let parts: Vec<&str> = pattern.splitn(6, ':').collect();
    let ["qcs", _, _, region, account, resource] = parts[..] else {
        return true;
    };
    let is_other = |pattern: &str, value: &str| {
        is_plain(pattern) && !pattern.is_empty() && !pattern.eq_ignore_ascii_case(value)
    };
    let app_id = target.bucket.app_id().unwrap_or_default();
    // Whoever owns a resource may also be told by the number of the account.
    let is_other_account =
        account.starts_with("uid/") && is_other(account, &format!("uid/{app_id}"));
    if !may_be_cos(pattern) || is_other(region, target.region.as_str()) || is_other_account {
        return false;
    }
    let bucket = format!("{}/", target.bucket);
    let start = format!("{bucket}{}", target.start);
    if resource == target.bucket.as_str() {
        // It is written without the slash, so that it may be all of it.
        return true;
    }
    // Other forms than `BUCKET-APPID/NAME` exist, such as `prefix//APPID/BUCKET/NAME`.
    let (name, _) = resource.split_once('/').unwrap_or((resource, ""));
    let is_bucket = name.rsplit_once('-').is_some_and(|(_, tail)| {
        !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_digit())
    });
    if is_plain(name) && !is_bucket {
        return true;
    }
    match resource.find(|sign: char| WILD.contains(&sign)) {
        None => resource.starts_with(&start) && resource.len() > bucket.len(),
        Some(place) => {
            let head = &resource[..place];
            head.starts_with(&start) || start.starts_with(head)
        }
    }
}

/// Signs that may stand for more than themselves: wildcards and variables.
const WILD: &[char] = &['*', '?', '$', '{'];

/// Whether `text` stands for nothing but itself.
fn is_plain(text: &str) -> bool {
    !text.contains(WILD)
}

/// Whether `action` is among those of the statement, which may leave the prefix `name/` out.
fn names(statement: &Value, action: &str) -> bool {
    texts(statement, "action").any(|pattern| matches(pattern.trim_start_matches("name/"), action))
}

fn effect_is(statement: &Value, effect: &str) -> bool {
    let found = field(statement, "effect").and_then(Value::as_str);
    found.is_some_and(|found| found.eq_ignore_ascii_case(effect))
}

/// The texts of a field that is one text or a list of them.
fn texts<'a>(statement: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    let values = field(statement, name).map(one_or_more).unwrap_or_default();
    values.into_iter().filter_map(Value::as_str)
}

/// Whether the resource `pattern` has every name of `target` in it.
fn covers(pattern: &str, target: Target<'_>) -> bool {
    if pattern == "*" {
        return true;
    }
    // qcs:PROJECT:SERVICE:REGION:ACCOUNT:RESOURCE; what is left empty stands for all.
    let parts: Vec<&str> = pattern.splitn(6, ':').collect();
    let [scheme, _, service, region, account, resource] = parts[..] else {
        return false;
    };
    let is_here = |pattern: &str, value: &str| pattern.is_empty() || matches(pattern, value);
    let app_id = target.bucket.app_id().unwrap_or_default();
    scheme == "qcs"
        && matches(service, "cos")
        && is_here(region, target.region.as_str())
        && is_here(account, &format!("uid/{app_id}"))
        // A pattern that ends with a star, and takes the start in, takes every name in.
        && resource.ends_with('*')
        && matches(resource, &format!("{}/{}", target.bucket, target.start))
}

/// Whether `text` has the form of `pattern`, in which a star stands for anything. The time is at most
/// the product of both lengths, whoever wrote the pattern.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|start| text.strip_prefix(start)) else {
        return false;
    };
    let Some(end) = pieces.next_back() else {
        return rest.is_empty();
    };
    // The earliest place of each piece leaves the most for those after it.
    for piece in pieces {
        let Some(place) = rest.find(piece) else {
            return false;
        };
        rest = &rest[place + piece.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BUCKET: &str = "qcs::cos:ap-guangzhou:uid/1250000000:exports-1250000000";

    fn allows(document: &Value, start: &str) -> bool {
        let bucket = "exports-1250000000".parse().expect("a bucket");
        let region = "ap-guangzhou".parse().expect("a region");
        let target = Target {
            bucket: &bucket,
            region: &region,
            start,
        };
        allow_writing([document.to_string().as_str()].into_iter(), target)
    }

    fn on(resource: &str) -> Value {
        json!({"version": "2.0", "statement": [
            {"effect": "allow", "action": ["name/cos:*"], "resource": [resource]}]})
    }

    #[test]
    fn resources_are_told_by_region_account_bucket_and_name() {
        let bucket = |rest: &str| format!("{BUCKET}{rest}");
        for (resource, start, expected) in [
            ("*".to_owned(), "p", true),
            (bucket("/*"), "p", true),
            (bucket("/*"), "", true),
            (bucket("/p*"), "p", true),
            (bucket("/p*"), "p/of/mine", true),
            (bucket("/p*"), "", false),
            (bucket("/q*"), "p", false),
            (bucket("/p"), "p", false),
            (bucket("/"), "p", false),
            (bucket("/"), "", false),
            (bucket("/*.raw"), "p", false),
            (
                "qcs::cos::uid/1250000000:exports-1250000000/*".to_owned(),
                "p",
                true,
            ),
            ("qcs::cos:*:uid/*:exports-*".to_owned(), "p", true),
            ("qcs::cos:::exports-1250000000/*".to_owned(), "p", true),
            (
                "qcs::cos:ap-beijing:uid/1250000000:exports-1250000000/*".to_owned(),
                "p",
                false,
            ),
            (
                "qcs::cos:ap-guangzhou:uid/1:exports-1250000000/*".to_owned(),
                "p",
                false,
            ),
            (
                "qcs::cos:ap-guangzhou:uid/1250000000:other-1250000000/*".to_owned(),
                "p",
                false,
            ),
            (
                "qcs::cvm:ap-guangzhou:uid/1250000000:*".to_owned(),
                "p",
                false,
            ),
            ("exports-1250000000/*".to_owned(), "p", false),
        ] {
            assert_eq!(
                allows(&on(&resource), start),
                expected,
                "{resource} {start}"
            );
        }
    }

    #[test]
    fn what_is_denied_conditional_or_incomplete_is_not_certain() {
        let statement = |effect: &str, action: Value| json!({"effect": effect, "action": action, "resource": "*"});
        let document = |statements: Value| json!({"version": "2.0", "statement": statements});
        let all = statement("allow", json!("name/cos:*"));
        assert!(
            allows(&document(json!(all)), "p"),
            "one statement, one action"
        );
        let by_name = NEEDED_ACTIONS
            .iter()
            .map(|action| statement("Allow", json!(action)));
        assert!(
            allows(&document(by_name.collect()), "p"),
            "actions one by one"
        );
        let conditional = json!({"effect": "allow", "action": "*", "resource": "*",
            "condition": {"ip_equal": {"qcs:ip": "10.0.0.0/8"}}});
        for statements in [
            json!([]),
            json!([statement("allow", json!("name/cos:PutObject"))]),
            json!([statement("allow", json!("name/cvm:*"))]),
            json!([conditional]),
            json!([all, statement("deny", json!("name/cos:Put*"))]),
            json!([all, statement("deny", json!(["*"]))]),
            json!([all, {"effect": "deny", "action": "cos:*", "resource": "qcs::cos:::x/*"}]),
            json!([all, {"effect": "deny", "not_action": "cos:*", "resource": "*"}]),
            json!("none"),
        ] {
            assert!(!allows(&document(statements.clone()), "p"), "{statements}");
        }
        let unrelated = json!([all, statement("deny", json!("name/cvm:RunInstances"))]);
        assert!(allows(&document(unrelated), "p"));
    }

    fn may(document: &str, start: Option<&str>) -> bool {
        let bucket = "exports-1250000000".parse().expect("a bucket");
        let region = "ap-guangzhou".parse().expect("a region");
        let target = start.map(|start| Target {
            bucket: &bucket,
            region: &region,
            start,
        });
        may_allow_writing(document, target)
    }

    fn one(statement: &Value) -> String {
        json!({"version": "2.0", "statement": [statement]}).to_string()
    }

    fn allowing(action: &Value, resource: &str) -> String {
        one(&json!({"effect": "allow", "action": action, "resource": [resource]}))
    }

    #[test]
    fn a_resource_that_is_not_certainly_another_may_be_meant() {
        // Whether it may be about names of the bucket that start with `p`, and about any bucket.
        let resource = |rest: &str| format!("{BUCKET}{rest}");
        for (resource, here, anywhere) in [
            ("*".to_owned(), true, true),
            (resource("/*"), true, true),
            (resource("/p/deeper/*"), true, true),
            (resource("/p.raw"), true, true),
            (resource("/?.raw"), true, true),
            (resource("/q*"), false, true),
            (resource("/"), false, true),
            (BUCKET.to_owned(), true, true),
            ("qcs::cos:::other-1250000000/*".to_owned(), false, true),
            ("qcs::cos:::other-*".to_owned(), false, true),
            ("qcs::cos:::exp*/p*".to_owned(), true, true),
            (
                "qcs::cos::uid/1:exports-1250000000/*".to_owned(),
                false,
                true,
            ),
            (
                "qcs::cos::uin/1:exports-1250000000/*".to_owned(),
                true,
                true,
            ),
            (
                "qcs::cos:ap-beijing::exports-1250000000/*".to_owned(),
                false,
                true,
            ),
            ("qcs::cos:ap-*::exports-1250000000/*".to_owned(), true, true),
            (
                "qcs::cos:::prefix//1250000000/exports/*".to_owned(),
                true,
                true,
            ),
            ("qcs::kms:::*".to_owned(), false, false),
            ("qcs::c*:::*".to_owned(), true, true),
            ("something else".to_owned(), true, true),
        ] {
            let document = allowing(&json!("cos:PutObject"), &resource);
            assert_eq!(may(&document, Some("p")), here, "{resource}");
            assert_eq!(may(&document, None), anywhere, "{resource}");
        }
    }

    #[test]
    fn an_action_that_is_not_certainly_another_may_be_meant() {
        for (action, expected) in [
            (json!("name/cos:PutObject"), true),
            (json!("name/cos:putobject"), true),
            (json!(["cos:GetObject", "cos:Upload*"]), true),
            (json!("*"), true),
            (json!("name/*"), true),
            (json!("permid/280655"), true),
            (json!("PutObject"), true),
            (json!("cos:Pu?Object"), true),
            (json!(7), true),
            (json!(null), true),
            (json!("cos:GetObject"), false),
            (json!(["cos:Get*", "kms:*"]), false),
            (json!([]), false),
        ] {
            let document = allowing(&action, "*");
            assert_eq!(may(&document, Some("p")), expected, "{action}");
            assert_eq!(may(&document, None), expected, "{action}");
        }
    }

    #[test]
    fn what_is_not_understood_may_allow() {
        let conditional = json!({"effect": "allow", "action": "cos:*", "resource": "*",
            "condition": {"ip_equal": {"qcs:ip": "10.0.0.0/8"}}});
        for (document, expected) in [
            (String::new(), true),
            ("no JSON".to_owned(), true),
            ("{}".to_owned(), true),
            ("[]".to_owned(), true),
            (one(&json!("text")), true),
            (
                one(&json!({"effect": "permit", "action": "cos:*", "resource": "*"})),
                true,
            ),
            (
                one(&json!({"effect": "allow", "not_action": "cos:*", "resource": "*"})),
                true,
            ),
            (
                one(&json!({"effect": "allow", "action": "cos:*", "not_resource": "x"})),
                true,
            ),
            (one(&conditional), true),
            (
                one(&json!({"effect": "deny", "action": "*", "resource": "*"})),
                false,
            ),
            (r#"{"version": "2.0", "statement": []}"#.to_owned(), false),
        ] {
            assert_eq!(may(&document, Some("p")), expected, "{document}");
            assert_eq!(may(&document, None), expected, "{document}");
        }
    }

    #[test]
    fn a_star_stands_for_anything_also_for_nothing() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("a*a", "a", false),
            ("*b*b*", "abab", true),
            ("*b*b*", "aba", false),
            ("**", "x", true),
            ("a*bc", "abcbc", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
