//! The check of the role: it exists, CVM may take it on, and it may write to the bucket.
//!
//! It fails only on what was seen: a policy that could not be read, or whose document has a form that is
//! not known, may allow anything.

use super::{Judgement, fail, pass, unknown, unseen};
use crate::export::preflight::facts::{AttachedPolicy, Fact, Facts};
use crate::export::refusals;
use crate::export::role::{DEFAULT_ROLE, Target, allow_writing, may_allow_writing, trusts_cvm};
use crate::model::{BucketName, CloudText, Prefix, shell_word};

pub(super) fn role(facts: &Facts) -> Judgement {
    let name = &facts.request.role;
    let role = match &facts.role {
        Fact::Known(Some(role)) => role,
        Fact::Known(None) => {
            return fail(
                format!("there is no role `{name}`"),
                with_command(facts, refusals::ROLE_SETUP),
            );
        }
        other => {
            return unseen(
                other,
                "allow `cam:GetRole`; the cloud checks the role itself",
            );
        }
    };
    let trust = trusts_cvm(role.policy_document.as_str());
    if trust == Some(false) {
        return fail(
            format!("role `{name}` does not trust the service CVM"),
            with_command(facts, refusals::ROLE_SETUP),
        );
    }
    let policies = match &facts.policies {
        Fact::Known(policies) => policies,
        other => {
            return unseen(
                other,
                "allow `cam:ListAttachedRolePolicies`; the cloud checks the role itself",
            );
        }
    };
    let (verdict, carried) = (writing(facts, policies), names(policies));
    match (verdict, trust) {
        (Writing::ByPreset(preset), Some(_)) => {
            pass(format!("role `{name}` trusts CVM and carries {preset}"))
        }
        (Writing::ByDocuments(by), Some(_)) => pass(format!(
            "role `{name}` trusts CVM and may write to bucket `{}` by {by}",
            facts.request.bucket
        )),
        (Writing::ByPreset(_) | Writing::ByDocuments(_), None) => unknown(
            format!("role `{name}` carries {carried}, and whether it trusts CVM is not certain"),
            "look in the CAM console whether the role trusts the product service CVM (cvm)",
        ),
        (Writing::Nowhere, _) => fail(
            format!("role `{name}` carries {carried}: nothing that allows writing to COS"),
            with_command(facts, refusals::ROLE_POLICY),
        ),
        (Writing::Elsewhere(bucket), _) => fail(
            format!(
                "role `{name}` carries {carried}: nothing that allows writing to bucket `{bucket}`{}",
                under_prefix(facts)
            ),
            with_command(facts, refusals::ROLE_POLICY),
        ),
        (Writing::Unread(unread, why), _) => {
            let evidence = format!(
                "role `{name}` carries {carried}; what these policies allow could not be read: {unread}"
            );
            let remedy = "allow `cam:GetPolicy` to read them; `cvm-export check` asks the cloud itself by a dry run";
            unknown(evidence, unseen(why, remedy).remedy.unwrap_or_default())
        }
        (Writing::Unclear, _) => unclear(facts, &carried),
    }
}

/// What the policies of a role say about writing.
enum Writing<'a> {
    /// A preset that is known by its name allows it everywhere.
    ByPreset(&'a CloudText),
    /// The policies of these names certainly allow what the export writes.
    ByDocuments(String),
    /// Every policy is known, and none allows writing anywhere.
    Nowhere,
    /// Every policy is known, and none allows writing to the bucket.
    Elsewhere(&'a BucketName),
    /// The policies of these names could not be read, and the others do not certainly allow it.
    Unread(String, &'a Fact<CloudText>),
    /// Every policy is known, and whether they allow it is for the cloud to weigh.
    Unclear,
}

fn writing<'a>(facts: &'a Facts, policies: &'a [AttachedPolicy]) -> Writing<'a> {
    if let Some(wide) = policies.iter().find(|policy| policy.is_writing_preset()) {
        return Writing::ByPreset(&wide.name);
    }
    let request = &facts.request;
    let target = Target {
        bucket: &request.bucket,
        region: &request.region,
        start: request.prefix.as_ref().map_or("", Prefix::as_str),
    };
    // Presets that are known by name allow no writing here.
    let telling = policies
        .iter()
        .filter(|policy| policy.known_by_name().is_none());
    let (read, unread): (Vec<&AttachedPolicy>, Vec<&AttachedPolicy>) =
        telling.partition(|policy| policy.document.known().is_some());
    let documents = || {
        let documents = read.iter().filter_map(|policy| policy.document.known());
        documents.map(CloudText::as_str)
    };
    if allow_writing(documents(), target) {
        let alone = read.iter().filter(|policy| policy.is_read_to_allow(target));
        let alone: Vec<&str> = alone.map(|policy| policy.name.as_str()).collect();
        return Writing::ByDocuments(match alone.is_empty() {
            true => names(read.iter().copied()),
            false => alone.join(", "),
        });
    }
    if let Some(first) = unread.first() {
        let denied = unread
            .iter()
            .find(|policy| matches!(policy.document, Fact::NotPermitted(_)));
        let why = &denied.unwrap_or(first).document;
        return Writing::Unread(names(unread.iter().copied()), why);
    }
    let may_write = |target| documents().any(|document| may_allow_writing(document, target));
    match named_bucket(facts) {
        _ if !may_write(None) => Writing::Nowhere,
        Some(bucket) if !may_write(Some(target)) => Writing::Elsewhere(bucket),
        _ => Writing::Unclear,
    }
}

fn unclear(facts: &Facts, carried: &str) -> Judgement {
    let name = &facts.request.role;
    let Some(bucket) = named_bucket(facts) else {
        return unknown(
            format!("role `{name}` carries {carried}, and what they allow depends on the bucket"),
            "`cvm-export check --bucket NAME` tells whether they allow writing to that bucket",
        );
    };
    unknown(
        format!(
            "role `{name}` carries {carried}, and it is not certain that they allow writing to bucket `{bucket}`{}",
            under_prefix(facts)
        ),
        with_command(facts, refusals::ROLE_POLICY),
    )
}

fn under_prefix(facts: &Facts) -> String {
    let prefix = facts.request.prefix.as_ref();
    prefix.map_or_else(String::new, |prefix| format!(" under `{prefix}`"))
}

/// The names of `policies`, for people.
fn names<'a>(policies: impl IntoIterator<Item = &'a AttachedPolicy>) -> String {
    let names = policies.into_iter().map(|policy| policy.name.as_str());
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => "no policy".to_owned(),
        names => names.join(", "),
    }
}

/// The bucket; `None` where the account alone is checked.
fn named_bucket(facts: &Facts) -> Option<&BucketName> {
    (!matches!(facts.bucket, Fact::NotAsked)).then_some(&facts.request.bucket)
}

/// The remedy with the command that mends this very role, for this very bucket where one is named.
pub(super) fn with_command(facts: &Facts, remedy: &str) -> String {
    let role = &facts.request.role;
    match named_bucket(facts) {
        // A star in it would be read as a pattern, so that `authorize` takes none.
        Some(bucket) => {
            let prefix = facts.fixed_prefix.as_ref();
            let prefix = prefix.filter(|prefix| !prefix.as_str().contains(['*', '?']));
            refusals::with_command(remedy, role, bucket, prefix)
        }
        None if role.as_str() == DEFAULT_ROLE => remedy.to_owned(),
        None => remedy.replacen(
            "--bucket NAME",
            &format!("--bucket NAME --role-name {}", shell_word(role.as_str())),
            1,
        ),
    }
}
