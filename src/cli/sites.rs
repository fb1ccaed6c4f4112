//! Which hosts a command sends to: by flag, by tccli profile, by default.

use clap::{Args, ValueEnum};
use cvm_export::cloud::credentials;
use cvm_export::cloud::{
    ApiHost, ApiPlace, CosDomain, Endpoints, HostSettings, Network, PRODUCTS, Site,
};
use cvm_export::environment::Environment;
use cvm_export::error::{Error, ErrorKind};
use cvm_export::export::RegionSetting;
use cvm_export::model::{Region, shell_line};

use crate::cli::printer::Printer;
use crate::cli::settings::GlobalArgs;

pub(crate) const ENDPOINT_VARIABLE: &str = "CVM_EXPORT_ENDPOINT_URL";

/// The flags that say where requests go.
#[derive(Args, Clone, Debug)]
pub(crate) struct SiteArgs {
    /// The site of the account: cn (cloud.tencent.com) or intl (tencentcloud.com) [default: cn]
    #[arg(long, global = true, value_enum, value_name = "SITE")]
    site: Option<SiteName>,

    /// Reach API and bucket over Tencent's internal network, from a CVM in the bucket's region
    #[arg(long, global = true)]
    internal: bool,

    /// Address the API's hosts of the region (cvm.REGION.tencentcloudapi.com), not the nearest ones
    #[arg(long, global = true)]
    regional_api: bool,

    /// The domain of the buckets: myqcloud.com or the newer tencentcos.cn [default: myqcloud.com]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "DOMAIN",
        conflicts_with = "internal"
    )]
    cos_domain: Option<CosDomainName>,

    /// Send every request to this address (tests and rehearsals) [env: CVM_EXPORT_ENDPOINT_URL]
    #[arg(long, global = true, value_name = "URL")]
    endpoint_url: Option<String>,

    /// Allow an endpoint override that is not on this machine, and a profile's host that is not Tencent's
    #[arg(long, global = true)]
    allow_remote_endpoint: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SiteName {
    #[value(help = "cloud.tencent.com")]
    Cn,
    #[value(help = "www.tencentcloud.com")]
    Intl,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CosDomainName {
    #[value(name = "myqcloud.com")]
    Myqcloud,
    #[value(name = "tencentcos.cn")]
    Tencentcos,
}

impl SiteArgs {
    /// The hosts by flags alone.
    pub(crate) fn hosts(&self) -> HostSettings {
        HostSettings {
            site: match self.site {
                None | Some(SiteName::Cn) => Site::Mainland,
                Some(SiteName::Intl) => Site::International,
            },
            network: match self.internal {
                false => Network::Public,
                true => Network::Internal,
            },
            cos_domain: match self.cos_domain {
                None | Some(CosDomainName::Myqcloud) => CosDomain::Myqcloud,
                Some(CosDomainName::Tencentcos) => CosDomain::Tencentcos,
            },
            api_place: match self.regional_api {
                false => ApiPlace::Nearest,
                true => ApiPlace::Regional,
            },
            ..HostSettings::default()
        }
    }

    /// These flags as they were given.
    pub(crate) fn words(&self) -> Vec<String> {
        let site = self.site.as_ref().and_then(ValueEnum::to_possible_value);
        let cos_domain = self
            .cos_domain
            .as_ref()
            .and_then(ValueEnum::to_possible_value);
        let mut words = Vec::new();
        for (flag, value) in [("--site", site), ("--cos-domain", cos_domain)] {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.get_name().to_owned()]);
            }
        }
        // One with a password in it is refused, and must not be repeated before.
        if let Some(url) = self.endpoint_url.as_ref().filter(|url| !url.contains('@')) {
            words.extend(["--endpoint-url".to_owned(), url.clone()]);
        }
        for (is_given, flag) in [
            (self.internal, "--internal"),
            (self.regional_api, "--regional-api"),
            (self.allow_remote_endpoint, "--allow-remote-endpoint"),
        ] {
            if is_given {
                words.push(flag.to_owned());
            }
        }
        words
    }

    /// The flag that settles the hosts of the API, where there is one: the profile's are then no matter.
    fn api_flag(&self) -> Option<&'static str> {
        let flags = [
            (self.site.is_some(), "--site"),
            (self.internal, "--internal"),
            (self.regional_api, "--regional-api"),
        ];
        let given = flags.into_iter().find(|(is_given, _)| *is_given);
        given.map(|(_, flag)| flag)
    }
}

/// Where requests go: an override or the real cloud, with hosts by flags, else by the profile.
pub(crate) fn endpoints(
    global: &GlobalArgs,
    region: &RegionSetting,
    environment: &Environment,
    printer: &Printer,
) -> Result<Endpoints, Error> {
    let sites = &global.sites;
    let mut hosts = sites.hosts().in_region(region.said());
    set_by_profile(
        &mut hosts,
        sites,
        global.profile.as_deref(),
        environment,
        printer,
    )?;
    let (url, origin) = match (&sites.endpoint_url, environment.get(ENDPOINT_VARIABLE)) {
        (Some(url), _) => (url.as_str(), "--endpoint-url"),
        (None, Some(url)) => (url, ENDPOINT_VARIABLE),
        (None, None) => return Ok(Endpoints::real().with_hosts(hosts)),
    };
    let endpoints = Endpoints::overridden(url, sites.allow_remote_endpoint)
        .map_err(|invalid| Error::new(ErrorKind::Usage, format!("{origin}: {invalid}")))?;
    // Also with -q: whoever set it may have forgotten, and nothing real is done.
    printer.stderr(&format!("every request goes to {url} ({origin})"));
    Ok(endpoints.with_hosts(hosts))
}

/// Takes over the product hosts of the profile, unless a flag says otherwise.
fn set_by_profile(
    hosts: &mut HostSettings,
    sites: &SiteArgs,
    profile: Option<&str>,
    environment: &Environment,
    printer: &Printer,
) -> Result<(), Error> {
    let Some(set) = credentials::profile_endpoints(environment, profile)? else {
        return Ok(());
    };
    let place = set.place;
    for product in PRODUCTS {
        let Some(text) = set.hosts.get(*product) else {
            continue;
        };
        let mut mend = ["tccli", "configure", "set"].map(str::to_owned).to_vec();
        mend.push(format!("{product}.endpoint"));
        mend.push(format!("{product}.tencentcloudapi.com"));
        if let Some(profile) = profile {
            mend.extend(["--profile".to_owned(), profile.to_owned()]);
        }
        let host =
            ApiHost::parse(product, text, sites.allow_remote_endpoint).map_err(|invalid| {
                Error::new(
                    ErrorKind::Usage,
                    format!("{place}: `{product}.endpoint`: {invalid}"),
                )
                .with_hint(format!("mend it with `{}`", shell_line(&mend)))
            })?;
        if host.is_usual(product) {
            continue;
        }
        match sites.api_flag() {
            Some(flag) => printer.detail(&format!(
                "host of {product}: by {flag}, not {} ({place})",
                host.as_str()
            )),
            None => {
                printer.detail(&format!("host of {product}: {} ({place})", host.as_str()));
                // An account belongs to one site; tccli sets the products one by one.
                if host.is_international() {
                    hosts.site = Site::International;
                }
                hosts.api_hosts.insert((*product).to_owned(), host);
            }
        }
    }
    Ok(())
}

/// Says that a region is not known here, which may be this version's age or a slip of the pen.
pub(crate) fn warn_of_unknown(region: &Region, origin: &str, printer: &Printer) {
    if !region.is_known() {
        printer.warning(&format!(
            "region {region} ({origin}) is not among those that this version knows; it is used as it stands"
        ));
    }
}
