//! Where requests go: the real host of each service, and an override of the address alone.

use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, ErrorKind};
use crate::model::{BucketName, CloudText, Region};

/// A scheme and the real host for each service; with an override another dial address.
///
/// The override never changes the host that is signed and sent, so what is signed for a test is what
/// would be signed for the cloud.
#[derive(Clone, Debug)]
pub struct Endpoints {
    address: Option<Address>,
}

/// What an override dials instead of the real hosts.
#[derive(Clone, Debug)]
struct Address {
    scheme: &'static str,
    host: String,
    port: u16,
}

/// Why an address cannot stand in for the cloud.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` cannot be used as an endpoint: {problem} (example: `http://127.0.0.1:8080`)")]
pub struct InvalidEndpoint {
    url: CloudText,
    problem: String,
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
        Self { address: None }
    }

    /// Everything goes to `url`, `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] when it is no such address, or one beyond this machine without
    /// `allow_remote`.
    pub fn overridden(url: &str, allow_remote: bool) -> Result<Self, InvalidEndpoint> {
        let refuse = |problem: &str| {
            Err(InvalidEndpoint {
                url: CloudText::excerpt(url, 80),
                problem: problem.to_owned(),
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
        })
    }

    /// Whether an override is active.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        self.address.is_some()
    }

    /// `https`, unless an override says otherwise.
    pub(crate) fn scheme(&self) -> &'static str {
        self.address
            .as_ref()
            .map_or("https", |address| address.scheme)
    }

    /// The host of a service of API 3.0. Finance regions are isolated and have hosts of their own
    /// (API page 213/73474, "Request structure").
    #[expect(
        clippy::unused_self,
        reason = "sites and private networks will choose hosts by settings"
    )]
    pub(crate) fn api_host(&self, service: &str, region: Option<&Region>) -> String {
        match region.filter(|region| region.as_str().ends_with("-fsi")) {
            Some(region) => format!("{service}.{region}.tencentcloudapi.com"),
            None => format!("{service}.tencentcloudapi.com"),
        }
    }

    /// The host that lists an account's buckets.
    #[expect(
        clippy::unused_self,
        reason = "sites and private networks will choose hosts by settings"
    )]
    pub(crate) fn cos_service_host(&self) -> &'static str {
        "service.cos.myqcloud.com"
    }

    /// The host of one bucket.
    #[expect(
        clippy::unused_self,
        reason = "sites and private networks will choose hosts by settings"
    )]
    pub(crate) fn bucket_host(&self, bucket: &BucketName, region: &Region) -> String {
        format!("{bucket}.cos.{region}.myqcloud.com")
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
            "http://u:p@127.0.0.1",
            "http://127.0.0.1?x",
            "http://127.0.0.1.evil.example",
        ] {
            assert!(
                Endpoints::overridden(url, false).is_err(),
                "`{url}` should be refused"
            );
        }
    }

    #[test]
    fn finance_regions_have_hosts_of_their_own() {
        let endpoints = Endpoints::real();
        let region = |text: &str| text.parse::<Region>().expect("region");
        assert_eq!(
            endpoints.api_host("cvm", Some(&region("ap-shanghai-fsi"))),
            "cvm.ap-shanghai-fsi.tencentcloudapi.com"
        );
        assert_eq!(
            endpoints.api_host("cvm", Some(&region("ap-guangzhou"))),
            "cvm.tencentcloudapi.com"
        );
        assert_eq!(endpoints.api_host("cam", None), "cam.tencentcloudapi.com");
    }
}
