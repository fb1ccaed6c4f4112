//! What concerns the account, whatever it exports: the keys in use, who they belong to, the clock, and
//! which hosts answer. Nothing in here changes anything.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::PreflightReport;
use super::checks::{judge_account, judge_destination, judge_role};
use super::facts::{
    Fact, Facts, api_fact, fetch_policies, fetch_role, gather_destination, in_time,
};
use crate::auth::Credentials;
use crate::cloud::actions::sts::{GetCallerIdentity, GetCallerIdentityResponse};
use crate::cloud::credentials::Resolved;
use crate::cloud::{Cloud, Network, Probe, Site};
use crate::error::Error;
use crate::export::request::{DiskScope, ExportRequest};
use crate::export::resolve::Destination;
use crate::model::{Finding, ImageFormat, Prefix, Region, RoleName};

/// How long a host that is in use may take to answer: a connection over half the world, and a proxy.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the internal network, which is near or not there at all.
const PATIENCE_INSIDE: Duration = Duration::from_secs(3);
/// As many characters of a SecretId are shown at either end; one that is not much longer is hidden.
const SHOWN_CHARACTERS: usize = 4;

/// The keys in use as they may be shown: no secret is in here.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The SecretId, all but its ends hidden.
    pub masked_id: String,
    /// Where they come from.
    pub origin: String,
    /// Whether a token belongs to them.
    pub is_temporary: bool,
    /// When they end, where that is known.
    pub expires_at: Option<DateTime<Utc>>,
    /// The places that were asked before, each with what it lacks.
    pub passed_over: Vec<String>,
    /// What the person should know about the place.
    pub warnings: Vec<String>,
}

impl Keys {
    /// Keys from `origin`, the only place that was asked.
    #[must_use]
    pub fn new(credentials: &Credentials, origin: impl Into<String>) -> Self {
        Self {
            masked_id: masked(&credentials.secret_id),
            origin: origin.into(),
            is_temporary: credentials.token.is_some(),
            expires_at: credentials.expires_at,
            passed_over: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl From<&Resolved> for Keys {
    fn from(resolved: &Resolved) -> Self {
        Self {
            passed_over: resolved.passed_over.clone(),
            warnings: resolved.warnings.clone(),
            ..Self::new(&resolved.credentials, resolved.origin.clone())
        }
    }
}

fn masked(id: &str) -> String {
    let characters: Vec<char> = id.chars().collect();
    if characters.len() < 4 * SHOWN_CHARACTERS {
        return "****".to_owned();
    }
    let start: String = characters[..SHOWN_CHARACTERS].iter().collect();
    let end: String = characters[characters.len() - SHOWN_CHARACTERS..]
        .iter()
        .collect();
    format!("{start}****{end}")
}

/// What is asked about an account.
#[derive(Debug)]
pub struct AccountQuestion<'a> {
    /// The keys in use.
    pub keys: &'a Keys,
    /// The bucket, where one is named.
    pub destination: Option<&'a Destination>,
    /// The region that was said, where no bucket settles it.
    pub region: Option<&'a Region>,
    /// The role that CVM shall take on.
    pub role: &'a RoleName,
    /// What the names of files shall start with, where that is known.
    pub prefix: Option<Prefix>,
    /// Exports that this machine's journal believes to be running.
    pub running_exports: usize,
    /// The answer that has refused the keys already; then nothing that is signed is sent.
    pub refusal: Option<Error>,
}

/// What was found about an account.
#[derive(Debug)]
pub struct AccountReport {
    /// The findings, and whether an export could go ahead by them.
    pub report: PreflightReport,
    /// The answer that refuses the keys, where one did: nothing else could be looked up then.
    pub refusal: Option<Error>,
}

/// Everything that was looked up about the account itself.
#[derive(Clone, Debug)]
pub(super) struct AccountFacts {
    pub(super) keys: Keys,
    /// Why the cloud does not accept the keys, and what may be done about it.
    pub(super) refusal: Option<(String, Option<String>)>,
    pub(super) identity: Fact<GetCallerIdentityResponse>,
    /// How far the servers' clock is ahead of this machine's.
    pub(super) clock_offset: Option<TimeDelta>,
    pub(super) hosts: Hosts,
    pub(super) network: Network,
    pub(super) site: Site,
}

/// Which hosts answer.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) api: Probe,
    /// The one that lists buckets.
    pub(super) service: Probe,
    pub(super) bucket: Option<Probe>,
    /// Every host that `--internal` would use in their place; none where it is in use anyway, or would
    /// change nothing.
    pub(super) internal: Vec<Probe>,
}

impl Hosts {
    /// How far the servers' clock is ahead of this machine's, by the first answer that tells it.
    fn clock_offset(&self) -> Option<TimeDelta> {
        let told = [Some(&self.api), Some(&self.service), self.bucket.as_ref()];
        let answers = told.into_iter().flatten().map(|probe| &probe.answer);
        answers.flatten().find_map(|answered| answered.clock_offset)
    }
}

/// Looks at the account by `question`, everything side by side.
///
/// # Errors
/// None of the cloud's: keys that it does not accept are part of the report.
pub async fn check_account(
    cloud: &Cloud,
    question: AccountQuestion<'_>,
) -> Result<AccountReport, Error> {
    let AccountQuestion {
        keys,
        destination,
        region,
        role,
        prefix,
        running_exports,
        refusal,
    } = question;
    let region = match destination
        .map(|destination| &destination.region)
        .or(region)
    {
        Some(region) => region.clone(),
        None => cloud.endpoints().any_region(),
    };
    let request = ExportRequest {
        prefix,
        ..stand_in(destination, &region, role)?
    };
    let signed = async {
        if let Some(refusal) = refusal {
            return (Err(refusal), Fact::NotAsked);
        }
        let (facts, identity) = tokio::join!(
            gather_destination(cloud, &request, destination, running_exports),
            in_time(async {
                let answer = cloud.call(Some(&region), &GetCallerIdentity {}).await;
                api_fact(answer.map(|answer| answer.value))
            }),
        );
        match (facts, identity) {
            (facts, Ok(identity)) => (facts, identity),
            (_, Err(refusal)) => (Err(refusal), Fact::NotAsked),
        }
    };
    let ((facts, identity), hosts) = tokio::join!(signed, knock(cloud, destination, &region));
    let (facts, refusal) = match facts {
        Ok(facts) => (Some(facts), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let account = AccountFacts {
        keys: keys.clone(),
        refusal: refusal.as_ref().map(|error| {
            let causes = error.causes();
            let reason = match causes.as_slice() {
                [] => error.to_string(),
                causes => causes.join(": "),
            };
            (reason, error.hint().map(str::to_owned))
        }),
        identity,
        clock_offset: hosts.clock_offset(),
        hosts,
        network: cloud.endpoints().network(),
        site: cloud.endpoints().site(),
    };
    let mut findings = judge_account(&account);
    let facts = match facts {
        Some(facts) => {
            findings.extend(judge_destination(&facts));
            facts
        }
        None => Facts::not_asked(request),
    };
    Ok(AccountReport {
        report: PreflightReport { facts, findings },
        refusal,
    })
}

/// Checks the role of `request` alone.
///
/// # Errors
/// Credentials that the cloud does not accept.
pub async fn check_role(cloud: &Cloud, request: &ExportRequest) -> Result<Finding, Error> {
    let (role, policies) =
        tokio::try_join!(fetch_role(cloud, request), fetch_policies(cloud, request))?;
    Ok(judge_role(&Facts {
        role,
        policies,
        // It is named, and it does not matter here whether it is there yet.
        bucket: Fact::Known(None),
        ..Facts::not_asked(request.clone())
    }))
}

/// A request that names what is known; nothing asks for the rest.
fn stand_in(
    destination: Option<&Destination>,
    region: &Region,
    role: &RoleName,
) -> Result<ExportRequest, Error> {
    Ok(ExportRequest {
        image_id: "img-none".parse()?,
        region: region.clone(),
        bucket: match destination {
            Some(destination) => destination.bucket.clone(),
            None => "none-0000000000".parse()?,
        },
        prefix: None,
        format: ImageFormat::default(),
        scope: DiskScope::default(),
        role: role.clone(),
        prefix_template: None,
        copied_from: None,
    })
}

async fn knock(cloud: &Cloud, destination: Option<&Destination>, region: &Region) -> Hosts {
    let endpoints = cloud.endpoints();
    let bucket = |endpoints: &crate::cloud::Endpoints| {
        let destination = destination?;
        Some(endpoints.bucket_host(&destination.bucket, &destination.region))
    };
    let api = endpoints.api_host("cvm", Some(region));
    let inside = endpoints.inside();
    let internal: Vec<String> = [Some(inside.api_host("cvm", Some(region))), bucket(&inside)]
        .into_iter()
        .flatten()
        // Finance regions have one host for both networks.
        .filter(|host| endpoints.network() == Network::Public && *host != api)
        .collect();
    let internal = internal
        .into_iter()
        .map(|host| cloud.probe(host, PATIENCE_INSIDE));
    let probe = async |host: Option<String>, limit| match host {
        Some(host) => Some(cloud.probe(host, limit).await),
        None => None,
    };
    let (api, service, bucket, internal) = tokio::join!(
        cloud.probe(api, PATIENCE),
        cloud.probe(endpoints.cos_service_host().to_owned(), PATIENCE),
        probe(bucket(endpoints), PATIENCE),
        futures_util::future::join_all(internal),
    );
    Hosts {
        api,
        service,
        bucket,
        internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_secret_id_only_the_ends_are_shown_and_of_a_short_one_nothing() {
        assert_eq!(masked("AKIDz8krbsJ5yKBZQpn74WFkmLPx3abc1"), "AKID****abc1");
        for short in ["", "AKID", "AKIDabc", "AKIDabcdefghijk"] {
            assert_eq!(masked(short), "****", "{short}");
        }
    }
}
