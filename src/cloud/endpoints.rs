//! Where requests go: the real host of each service, and an override of the address alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, CloudText, Region};

/// The products whose hosts a profile may set.
pub const PRODUCTS: &[&str] = &["cam", "cbs", "cvm", "region", "sts"];
/// The products that belong to a region; the others have one place for the whole account.
const REGIONAL: &[&str] = &["cbs", "cvm"];
/// See [`Endpoints::any_region`].
const ANY_REGION: &str = "ap-guangzhou";
/// What every host of API 3.0 ends in.
const API_DOMAIN: &str = "tencentcloudapi.com";

/// Which of Tencent Cloud's two sites the account belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Site {
    /// cloud.tencent.com.
    #[default]
    Mainland,
    /// www.tencentcloud.com, whose API has hosts of its own (SDKs with `-intl-` in their names). The
    /// storage is the same for both.
    International,
}

impl Site {
    /// The host of its console.
    #[must_use]
    pub fn console(self) -> &'static str {
        match self {
            Self::Mainland => "console.cloud.tencent.com",
            Self::International => "console.tencentcloud.com",
        }
    }
}

/// How the cloud is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// By names that resolve everywhere.
    #[default]
    Public,
    /// By names that answer inside Tencent's network alone, where traffic to COS costs nothing.
    Internal,
}

/// What the hosts of the storage end in. Both lead to the same buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CosDomain {
    /// `myqcloud.com`.
    #[default]
    Myqcloud,
    /// `tencentcos.cn`, since 2022 (COS, product page 436/6224).
    Tencentcos,
}

/// Which of its places answers for a regional product of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiPlace {
    /// The one nearest to the caller, which passes the call on.
    #[default]
    Nearest,
    /// The one of the call's region.
    Regional,
}

/// What decides on the hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// The account's site.
    pub site: Site,
    /// The network.
    pub network: Network,
    /// The domain of the storage; the internal network has one alone.
    pub cos_domain: CosDomain,
    /// Whose place answers.
    pub api_place: ApiPlace,
    /// Hosts for single products, which win over everything else.
    pub api_hosts: BTreeMap<String, ApiHost>,
    /// The region of a call that belongs to none, where the account lives in a finance region: those are
    /// isolated, so nothing of it is elsewhere.
    pub finance_region: Option<Region>,
}

impl HostSettings {
    /// The same for whoever works in `region`.
    #[must_use]
    pub fn in_region(self, region: Option<&Region>) -> Self {
        Self {
            finance_region: region.filter(|region| region.is_finance()).cloned(),
            ..self
        }
    }
}

/// The host of one product of API 3.0, as a person sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiHost(String);

impl ApiHost {
    /// Reads a host for `product`: a name without scheme, port, path and user. A host that is none of
    /// Tencent's needs `allow_remote`: what is sent to it is signed, and it can answer with anything.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] with what is wrong.
    pub fn parse(product: &str, text: &str, allow_remote: bool) -> Result<Self, InvalidEndpoint> {
        let refuse = |problem: String| {
            Err(InvalidEndpoint {
                url: CloudText::excerpt(text, 80),
                problem,
                example: format!("{product}.{API_DOMAIN}"),
            })
        };
        let host = text.to_ascii_lowercase();
        if host.len() > HOST_LIMIT_BYTES || !host.contains('.') || !host.split('.').all(is_label) {
            return refuse(
                "it is no host name; scheme, port and path do not belong here".to_owned(),
            );
        }
        let Some(labels) = host.strip_suffix(&format!(".{API_DOMAIN}")) else {
            if allow_remote {
                return Ok(Self(host));
            }
            return refuse(format!(
                "it is no host of {API_DOMAIN}; `--allow-remote-endpoint` allows it"
            ));
        };
        if labels.split('.').next() != Some(product) {
            return refuse(format!("it is the host of another product than {product}"));
        }
        Ok(Self(host))
    }

    /// Whether it is the host that `product` has anyway. tccli writes that one into every profile, so
    /// it says nothing.
    #[must_use]
    pub fn is_usual(&self, product: &str) -> bool {
        self.0 == format!("{product}.{API_DOMAIN}")
    }

    /// Whether it is one of the international site.
    #[must_use]
    pub fn is_international(&self) -> bool {
        self.0.ends_with(&format!(".intl.{API_DOMAIN}"))
    }

    /// The host as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest name that DNS knows (RFC 1035, section 2.3.4).
const HOST_LIMIT_BYTES: usize = 253;

/// Whether `text` can stand between the dots of a host (RFC 1123, section 2.1).
fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A scheme and the real host for each service; with an override another dial address.
///
/// The override never changes the host that is signed and sent, so what is signed for a test is what
/// would be signed for the cloud.
#[derive(Clone, Debug)]
pub struct Endpoints {
    address: Option<Address>,
    hosts: HostSettings,
}

/// What an override dials instead of the real hosts.
#[derive(Clone, Debug)]
struct Address {
    scheme: &'static str,
    host: String,
    port: u16,
}

/// Why an address or a host cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` cannot be used as an endpoint: {problem} (example: `{example}`)")]
pub struct InvalidEndpoint {
    url: CloudText,
    problem: String,
    example: String,
}

impl From<InvalidEndpoint> for Error {
    fn from(invalid: InvalidEndpoint) -> Self {
        Self::new(ErrorKind::Usage, invalid.to_string())
    }
}

impl Endpoints {
    /// The real cloud, over https only.
    #[must_use]
    pub fn real() -> Self {
        Self {
            address: None,
            hosts: HostSettings::default(),
        }
    }

    /// The same address with hosts by `hosts`.
    #[must_use]
    pub fn with_hosts(self, hosts: HostSettings) -> Self {
        Self { hosts, ..self }
    }

    /// Everything goes to `url`, `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] when it is no such address, or one beyond this machine without
    /// `allow_remote`.
    pub fn overridden(url: &str, allow_remote: bool) -> Result<Self, InvalidEndpoint> {
        let refuse = |problem: &str| {
            // What stands before an `@` may be a password.
            let shown = match url.rsplit_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => url.to_owned(),
            };
            Err(InvalidEndpoint {
                url: CloudText::excerpt(&shown, 80),
                problem: problem.to_owned(),
                example: "http://127.0.0.1:8080".to_owned(),
            })
        };
        let Ok(uri) = url.trim_end_matches('/').parse::<::http::Uri>() else {
            return refuse("it is no address");
        };
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return refuse("it must start with http:// or https://"),
        };
        let Some(authority) = uri.authority() else {
            return refuse("it names no host");
        };
        if authority.as_str().contains('@') {
            return refuse("it must hold no user name and no password");
        }
        if uri.path().len() > 1 || uri.query().is_some() {
            return refuse("it must end after the port");
        }
        // The parser passes over a port that it cannot read.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none() {
            return refuse("its port is no number up to 65535");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !is_loopback && !allow_remote {
            return refuse("it is not on this machine; `--allow-remote-endpoint` allows it");
        }
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self {
            address: Some(Address { scheme, host, port }),
            hosts: HostSettings::default(),
        })
    }

    /// Whether an override is active.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        self.address.is_some()
    }

    /// The address of an override by HTTP, which a stock client reaches as its proxy.
    pub(crate) fn played_by(&self) -> Option<String> {
        let Address { scheme, host, port } = self.address.as_ref()?;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        (*scheme == "http").then(|| format!("http://{host}:{port}"))
    }

    /// `https`, unless an override says otherwise.
    pub(crate) fn scheme(&self) -> &'static str {
        self.address
            .as_ref()
            .map_or("https", |address| address.scheme)
    }

    /// The region of calls that need one and belong to none: that of Tencent's SDKs, or the finance region
    /// that the account lives in.
    ///
    /// # Panics
    /// Never: the region code is well formed.
    #[must_use]
    pub fn any_region(&self) -> Region {
        let usual = || ANY_REGION.parse().expect("a region code");
        self.hosts.finance_region.clone().unwrap_or_else(usual)
    }

    /// The same, over the internal network and by no profile.
    pub(crate) fn inside(&self) -> Self {
        self.clone().with_hosts(HostSettings {
            network: Network::Internal,
            api_hosts: BTreeMap::new(),
            ..self.hosts.clone()
        })
    }

    /// The site of the account.
    #[must_use]
    pub fn site(&self) -> Site {
        self.hosts.site
    }

    /// How the cloud is reached.
    pub(crate) fn network(&self) -> Network {
        self.hosts.network
    }

    /// The host of a product of API 3.0.
    ///
    /// Finance regions are isolated and have hosts of their own, on either site (API page 213/73474,
    /// "Request structure"). The internal network has the form that `tccli configure set-root-domain
    /// internal.tencentcloudapi.com` writes; with a region in it, the form that Tencent's SDKs for Java
    /// and Node.js know. Of the international site neither form is published, nor is a host of one
    /// region, so both sites share those.
    pub(crate) fn api_host(&self, product: &str, region: Option<&Region>) -> String {
        if let Some(host) = self.hosts.api_hosts.get(product) {
            return host.0.clone();
        }
        let region = region.or(self.hosts.finance_region.as_ref());
        if let Some(region) = region.filter(|region| region.is_finance()) {
            return format!("{product}.{region}.{API_DOMAIN}");
        }
        let is_pinned = self.hosts.api_place == ApiPlace::Regional && REGIONAL.contains(&product);
        match (
            self.hosts.network,
            region.filter(|_| is_pinned),
            self.hosts.site,
        ) {
            (Network::Internal, Some(region), _) => {
                format!("{product}.internal.{region}.{API_DOMAIN}")
            }
            (Network::Internal, None, _) => format!("{product}.internal.{API_DOMAIN}"),
            (Network::Public, Some(region), _) => format!("{product}.{region}.{API_DOMAIN}"),
            (Network::Public, None, Site::International) => format!("{product}.intl.{API_DOMAIN}"),
            (Network::Public, None, Site::Mainland) => format!("{product}.{API_DOMAIN}"),
        }
    }

    /// The host that lists an account's buckets. The internal network has none of its own (the demo of
    /// the Python SDK `cos-python-sdk-v5` says so), so the public one answers there, too.
    pub(crate) fn cos_service_host(&self) -> &'static str {
        match (self.hosts.network, self.hosts.cos_domain) {
            (Network::Public, CosDomain::Myqcloud) => "service.cos.myqcloud.com",
            (Network::Public, CosDomain::Tencentcos) | (Network::Internal, _) => {
                "service.cos.tencentcos.cn"
            }
        }
    }

    /// The host of one bucket (COS, product page 436/6224).
    pub(crate) fn bucket_host(&self, bucket: &BucketName, region: &Region) -> String {
        match (self.hosts.network, self.hosts.cos_domain) {
            (Network::Public, CosDomain::Myqcloud) => {
                format!("{bucket}.cos.{region}.myqcloud.com")
            }
            (Network::Public, CosDomain::Tencentcos) => {
                format!("{bucket}.cos.{region}.tencentcos.cn")
            }
            (Network::Internal, _) => format!("{bucket}.cos-internal.{region}.tencentcos.cn"),
        }
    }

    /// A resolver that leads every name to the override.
    pub(crate) fn resolver(&self) -> Option<OverrideResolver> {
        self.address.clone().map(OverrideResolver)
    }
}

/// Answers every name with the address of the override.
#[derive(Clone, Debug)]
pub(crate) struct OverrideResolver(Address);

impl reqwest::dns::Resolve for OverrideResolver {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let Address { host, port, .. } = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port))
                .await?
                .collect();
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_on_this_machine_is_taken() {
        for url in [
            "http://127.0.0.1:8080",
            "http://localhost",
            "https://[::1]:9/",
            "http://127.9.9.9:1",
        ] {
            assert!(Endpoints::overridden(url, false).is_ok(), "{url}");
        }
        assert!(Endpoints::overridden("http://cloud.example:80", true).is_ok());
    }

    #[test]
    fn what_can_be_no_override_is_refused() {
        for url in [
            "",
            "127.0.0.1:80",
            "ftp://127.0.0.1",
            "http://",
            "http://10.0.0.1:80",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:80/path",
            "http://u:dontshowme@127.0.0.1",
            "http://127.0.0.1?x",
            "http://127.0.0.1.evil.example",
        ] {
            let refused = Endpoints::overridden(url, false);
            let message = refused.expect_err(url).to_string();
            assert!(!message.contains("dontshowme"), "{message}");
        }
    }

    fn region(text: &str) -> Region {
        text.parse().expect("a region")
    }

    #[test]
    fn finance_regions_have_hosts_of_their_own_whatever_else_is_set() {
        let regional = HostSettings {
            api_place: ApiPlace::Regional,
            ..HostSettings::default()
        };
        let international = HostSettings {
            site: Site::International,
            network: Network::Internal,
            ..HostSettings::default()
        };
        for hosts in [HostSettings::default(), regional, international] {
            let endpoints = Endpoints::real().with_hosts(hosts.clone());
            assert_eq!(
                endpoints.api_host("cvm", Some(&region("ap-shanghai-fsi"))),
                "cvm.ap-shanghai-fsi.tencentcloudapi.com",
                "asked: {hosts:?}"
            );
        }
    }

    #[test]
    fn what_belongs_to_no_region_stays_in_the_finance_region_of_the_account() {
        let at_home = |home: &str| {
            let hosts = HostSettings::default().in_region(Some(&region(home)));
            Endpoints::real().with_hosts(hosts)
        };
        let finance = at_home("ap-shanghai-fsi");
        assert_eq!(finance.any_region(), region("ap-shanghai-fsi"));
        assert_eq!(
            finance.api_host("cam", None),
            "cam.ap-shanghai-fsi.tencentcloudapi.com"
        );
        assert_eq!(
            finance.api_host("cvm", Some(&region("ap-tokyo"))),
            "cvm.tencentcloudapi.com"
        );
        let usual = at_home("ap-tokyo");
        assert_eq!(usual.any_region(), region("ap-guangzhou"));
        assert_eq!(usual.api_host("cam", None), "cam.tencentcloudapi.com");
    }

    #[test]
    fn site_network_and_place_make_the_hosts_of_the_api() {
        use ApiPlace::{Nearest, Regional};
        use Network::{Internal, Public};
        use Site::{International, Mainland};
        let cases = [
            (Mainland, Public, Nearest, "cvm", "cam"),
            (International, Public, Nearest, "cvm.intl", "cam.intl"),
            (Mainland, Internal, Nearest, "cvm.internal", "cam.internal"),
            (
                International,
                Internal,
                Nearest,
                "cvm.internal",
                "cam.internal",
            ),
            (Mainland, Public, Regional, "cvm.ap-tokyo", "cam"),
            (International, Public, Regional, "cvm.ap-tokyo", "cam.intl"),
            (
                Mainland,
                Internal,
                Regional,
                "cvm.internal.ap-tokyo",
                "cam.internal",
            ),
        ];
        for (site, network, api_place, cvm, cam) in cases {
            let hosts = HostSettings {
                site,
                network,
                api_place,
                ..HostSettings::default()
            };
            let endpoints = Endpoints::real().with_hosts(hosts.clone());
            let host = |product| endpoints.api_host(product, Some(&region("ap-tokyo")));
            assert_eq!(
                (host("cvm"), host("cam")),
                (
                    format!("{cvm}.tencentcloudapi.com"),
                    format!("{cam}.tencentcloudapi.com")
                ),
                "asked: {hosts:?}"
            );
            assert_eq!(
                endpoints.api_host("cam", None),
                format!("{cam}.tencentcloudapi.com"),
                "asked: {hosts:?}"
            );
        }
    }

    #[test]
    fn network_and_domain_make_the_hosts_of_the_storage() {
        let bucket = "b-1250000000".parse().expect("a bucket");
        let cases = [
            (
                Network::Public,
                CosDomain::Myqcloud,
                "cos.myqcloud.com",
                "cos.ap-tokyo.myqcloud.com",
            ),
            (
                Network::Public,
                CosDomain::Tencentcos,
                "cos.tencentcos.cn",
                "cos.ap-tokyo.tencentcos.cn",
            ),
            (
                Network::Internal,
                CosDomain::Myqcloud,
                "cos.tencentcos.cn",
                "cos-internal.ap-tokyo.tencentcos.cn",
            ),
        ];
        for (network, cos_domain, service, of_bucket) in cases {
            let hosts = HostSettings {
                network,
                cos_domain,
                ..HostSettings::default()
            };
            let endpoints = Endpoints::real().with_hosts(hosts.clone());
            assert_eq!(
                (
                    endpoints.cos_service_host().to_owned(),
                    endpoints.bucket_host(&bucket, &region("ap-tokyo")),
                ),
                (
                    format!("service.{service}"),
                    format!("b-1250000000.{of_bucket}")
                ),
                "asked: {hosts:?}"
            );
        }
    }

    #[test]
    fn a_product_with_a_host_of_its_own_is_sent_there_alone() {
        let host =
            ApiHost::parse("cvm", "CVM.ap-tokyo.tencentcloudapi.com", false).expect("a host");
        let hosts = HostSettings {
            site: Site::International,
            api_hosts: BTreeMap::from([("cvm".to_owned(), host)]),
            ..HostSettings::default()
        };
        let endpoints = Endpoints::real().with_hosts(hosts);
        assert_eq!(
            endpoints.api_host("cvm", None),
            "cvm.ap-tokyo.tencentcloudapi.com"
        );
        assert_eq!(
            endpoints.api_host("cam", None),
            "cam.intl.tencentcloudapi.com"
        );
    }

    #[test]
    fn what_can_be_no_host_of_a_product_is_refused() {
        for text in [
            "",
            "cvm",
            "https://cvm.tencentcloudapi.com",
            "cvm.tencentcloudapi.com:443",
            "cvm.tencentcloudapi.com/",
            "u@cvm.tencentcloudapi.com",
            "cvm.tencentcloudapi.com.",
            "cvm..tencentcloudapi.com",
            "-cvm.tencentcloudapi.com",
            "cvm.tencentcloudapi.com\r\nx: y",
            "tencentcloudapi.com",
            "cam.tencentcloudapi.com",
            "cvm.evil-tencentcloudapi.com",
            "cvm.tencentcloudapi.com.evil.example",
            "b-1250000000.cos.ap-tokyo.myqcloud.com",
            "127.0.0.1",
        ] {
            assert!(
                ApiHost::parse("cvm", text, false).is_err(),
                "`{text}` should be refused"
            );
        }
        let host = ApiHost::parse("cvm", "cvm.cloud.example", true).expect("allowed");
        assert_eq!(host.as_str(), "cvm.cloud.example");
        assert!(ApiHost::parse("cvm", "cam.tencentcloudapi.com", true).is_err());
        assert!(ApiHost::parse("cvm", "cvm.cloud.example/x", true).is_err());
    }

    #[test]
    fn the_host_that_a_product_has_anyway_says_nothing() {
        let is_usual = |text| {
            let host = ApiHost::parse("cvm", text, false).expect("a host");
            host.is_usual("cvm")
        };
        assert!(is_usual("cvm.tencentcloudapi.com"));
        assert!(!is_usual("cvm.intl.tencentcloudapi.com"));
    }
}
