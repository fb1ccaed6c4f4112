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
