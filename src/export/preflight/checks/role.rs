//! The check of the role: it exists, CVM may take it on, and it may write to the bucket.

use super::{Judgement, fail, pass, unknown, unseen};
use crate::export::preflight::facts::{AttachedPolicy, Fact, Facts};
use crate::export::refusals;
use crate::export::role::{DEFAULT_ROLE, OWN_POLICIES, Target, allow_writing, trusts_cvm};
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
    let names = policies.iter().map(|policy| policy.name.as_str());
    let carried = match policies.len() {
        0 => "no policy".to_owned(),
        _ => names.collect::<Vec<_>>().join(", "),
    };
    let wide = policies.iter().find(|policy| policy.is_writing_preset());
    if wide.is_some() || custom_policies_allow(facts, policies) {
        return match (trust, wide) {
            (Some(_), Some(wide)) => pass(format!(
                "role `{name}` trusts CVM and carries {}",
                wide.name
            )),
            (Some(_), None) => pass(format!(
                "role `{name}` trusts CVM and may write to bucket `{}` by {carried}",
                facts.request.bucket
            )),
            (None, _) => unknown(
                format!(
                    "role `{name}` carries {carried}, and whether it trusts CVM is not certain"
                ),
                "look in the CAM console whether the role trusts the product service CVM (cvm)",
            ),
        };
    }
    let mut custom = policies
        .iter()
        .filter(|policy| !policy.is_preset)
        .peekable();
    if custom.peek().is_none() {
        return fail(
            format!("role `{name}` carries {carried}: nothing that allows writing to COS"),
            with_command(facts, refusals::ROLE_POLICY),
        );
    }
    if custom.all(|policy| policy.document.known().is_none()) {
        return unknown(
            format!("role `{name}` carries custom policies, whose names say nothing: {carried}"),
            "allow `cam:GetPolicy` to read them; `cvm-export check` asks the cloud itself by a dry run",
        );
    }
    let Some(bucket) = named_bucket(facts) else {
        return unknown(
            format!("role `{name}` carries custom policies: {carried}"),
            "`cvm-export check --bucket NAME` tells whether they allow writing to that bucket",
        );
    };
    if policies
        .iter()
        .all(|policy| is_about_another(policy, bucket))
    {
        return fail(
            format!(
                "role `{name}` carries {carried}: nothing that allows writing to bucket `{bucket}`"
            ),
            with_command(facts, refusals::ROLE_POLICY),
        );
    }
    unknown(
        format!(
            "role `{name}` carries {carried}, and it is not certain that they allow writing to bucket `{bucket}`{}",
            match &facts.request.prefix {
                Some(prefix) => format!(" under `{prefix}`"),
                None => String::new(),
            }
        ),
        with_command(facts, refusals::ROLE_POLICY),
    )
}

/// Whether `policy` is one that `authorize` made for another bucket than `bucket`, and that still speaks of
/// neither this one nor all of them.
fn is_about_another(policy: &AttachedPolicy, bucket: &BucketName) -> bool {
    let document = policy.document.known().map(CloudText::as_str);
    policy.name.as_str().starts_with(OWN_POLICIES)
        && document.is_some_and(|text| !text.contains(bucket.as_str()) && !text.contains("\"*\""))
}

/// Whether the custom policies, as far as they could be read, certainly allow what the export writes.
fn custom_policies_allow(facts: &Facts, policies: &[AttachedPolicy]) -> bool {
    let request = &facts.request;
    let documents = policies
        .iter()
        .filter(|policy| !policy.is_preset)
        .map(|policy| policy.document.known());
    // One that could not be read may deny.
    let Some(documents) = documents.collect::<Option<Vec<&CloudText>>>() else {
        return false;
    };
    let target = Target {
        bucket: &request.bucket,
        region: &request.region,
        start: request.prefix.as_ref().map_or("", Prefix::as_str),
    };
    allow_writing(documents.into_iter().map(CloudText::as_str), target)
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
