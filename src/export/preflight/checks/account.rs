//! The checks of the account itself.

use chrono::TimeDelta;

use super::{Judgement, fail, finding, pass, unknown, warn};
use crate::cloud::{Network, Probe, Site};
use crate::export::preflight::account::{AccountFacts, Hosts};
use crate::export::preflight::facts::Fact;
use crate::model::{CheckName, Finding};

/// An offset of the clock that is worth a word; the tool itself corrects what is more (contract,
/// section 7).
const CLOCK_WARNING: TimeDelta = TimeDelta::seconds(60);
/// The API refuses a signature whose time is further away (API page 213/30654: five minutes).
const CLOCK_LIMIT: TimeDelta = TimeDelta::seconds(300);

/// Judges the account itself, in the order in which findings are reported.
#[must_use]
pub(in crate::export::preflight) fn judge_account(facts: &AccountFacts) -> Vec<Finding> {
    vec![
        finding(CheckName::Credentials, credentials(facts)),
        finding(CheckName::Identity, identity(facts)),
        finding(CheckName::Clock, clock(facts.clock_offset)),
        finding(CheckName::Network, network(&facts.hosts, facts.network)),
    ]
}

fn credentials(facts: &AccountFacts) -> Judgement {
    let keys = &facts.keys;
    let mut evidence = format!("{} from {}", keys.masked_id, keys.origin);
    match keys.expires_at {
        Some(end) => evidence.push_str(&format!(
            "; temporary until {}",
            end.format("%Y-%m-%d %H:%M:%SZ")
        )),
        None if keys.is_temporary => evidence.push_str("; temporary, until when is not known"),
        None => {}
    }
    if !keys.passed_over.is_empty() {
        evidence.push_str(&format!("; passed over: {}", keys.passed_over.join("; ")));
    }
    if let Some((reason, hint)) = &facts.refusal {
        let site = match facts.site {
            Site::Mainland => "an account of tencentcloud.com needs `--site intl`",
            Site::International => "an account of cloud.tencent.com is not of `--site intl`",
        };
        let hint = hint
            .as_deref()
            .map_or_else(String::new, |hint| format!("{hint}; "));
        return fail(
            format!("{evidence}; the cloud does not accept them: {reason}"),
            format!(
                "{hint}the console lists keys ({}/cam/capi); {site}",
                facts.site.console()
            ),
        );
    }
    if matches!(facts.identity, Fact::NoAnswer(_)) {
        return unknown(
            format!("{evidence}; nobody could verify them"),
            "see the check `network`",
        );
    }
    if keys.warnings.is_empty() {
        pass(evidence)
    } else {
        warn(evidence, keys.warnings.join("; "))
    }
}

fn identity(facts: &AccountFacts) -> Judgement {
    match facts.identity.known() {
        Some(caller) => {
            let named = [("account", &caller.account_id), ("type", &caller.kind)];
            let named = named
                .into_iter()
                .filter(|(_, value)| !value.as_str().is_empty())
                .map(|(name, value)| format!(", {name} {value}"));
            pass(format!("{}{}", caller.arn, named.collect::<String>()))
        }
        None if facts.refusal.is_some() => unknown(
            "not looked up, as the keys are not accepted",
            "see the check `credentials`",
        ),
        None if matches!(facts.identity, Fact::NoAnswer(_)) => unknown(
            facts.identity.why_unknown().unwrap_or_default(),
            "see the check `network`",
        ),
        None => unknown(
            facts.identity.why_unknown().unwrap_or_default(),
            "allow `sts:GetCallerIdentity` to see it; no export needs it",
        ),
    }
}

fn clock(offset: Option<TimeDelta>) -> Judgement {
    let Some(offset) = offset else {
        return unknown(
            "no answer told the time",
            "see the check `network`; a proxy may also take the header `Date` away",
        );
    };
    let seconds = offset.num_seconds();
    let direction = if seconds > 0 { "behind" } else { "ahead of" };
    let evidence = match seconds {
        0 => "this machine's clock is the server's".to_owned(),
        _ => format!(
            "this machine's clock is {} s {direction} the server's",
            seconds.unsigned_abs()
        ),
    };
    let remedy = "set this machine's clock, by NTP for instance";
    if offset.abs() < CLOCK_WARNING {
        return pass(evidence);
    }
    let corrected = "this tool dates its own requests by the server's clock";
    if offset.abs() < CLOCK_LIMIT {
        return warn(format!("{evidence}; {corrected}"), remedy);
    }
    warn(
        format!("{evidence}, and the API allows 300 s; {corrected}, others are refused"),
        remedy,
    )
}

fn network(hosts: &Hosts, network: Network) -> Judgement {
    let in_use = [
        Some(&hosts.api),
        Some(&hosts.service),
        hosts.bucket.as_ref(),
    ];
    let in_use: Vec<&Probe> = in_use.into_iter().flatten().collect();
    let mut evidence: Vec<String> = in_use.iter().map(|probe| told(probe)).collect();
    evidence.extend(inside(&hosts.internal));
    let evidence = evidence.join("; ");
    let is_silent = |probe: &Probe| probe.answer.is_err();
    if !in_use.iter().any(|probe| is_silent(probe)) {
        return pass(evidence);
    }
    let remedy = match network {
        Network::Public => {
            "look at the firewall, the name service and the proxy (HTTPS_PROXY) of this machine"
        }
        Network::Internal => "leave `--internal` out on a machine outside of Tencent Cloud",
    };
    // Without the list of buckets an export goes on where bucket and region are named in full.
    let is_bearable =
        !is_silent(&hosts.api) && hosts.bucket.as_ref().is_some_and(|probe| !is_silent(probe));
    if is_bearable {
        warn(evidence, remedy)
    } else {
        fail(evidence, remedy)
    }
}

/// What is said of the hosts that `--internal` would use: it needs all of them.
fn inside(hosts: &[Probe]) -> Option<String> {
    let silent = hosts.iter().find(|probe| probe.answer.is_err());
    match (silent, hosts) {
        (_, []) => None,
        (None, _) => {
            let told: Vec<String> = hosts.iter().map(told).collect();
            Some(format!(
                "the internal network answers as well ({}), so `--internal` can be used",
                told.join(", ")
            ))
        }
        (Some(silent), _) => Some(format!(
            "the internal network is not reached from here ({}), as outside of Tencent Cloud",
            silent.host
        )),
    }
}

fn told(probe: &Probe) -> String {
    match &probe.answer {
        Ok(answered) => format!(
            "{} answered in {} ms",
            probe.host,
            answered.after.as_millis()
        ),
        Err(reason) => format!("{} did not answer ({reason})", probe.host),
    }
}

#[cfg(test)]
mod tests;
