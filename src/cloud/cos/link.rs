//! Presigned links: a request that is signed now and sent by anybody later.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{CosClient, SIGNATURE_EARLY_SECONDS};
use crate::auth::cos::{Authorization, KeyTime, Request};
use crate::auth::{Timestamp, percent_encode, percent_encode_path};
use crate::model::{BucketName, ObjectKey, Region};

/// A link by which anybody fetches one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLink {
    /// The link.
    pub url: String,
    /// The last moment of its signature, by the server's clock.
    pub expires_at: DateTime<Utc>,
    /// What else may end it.
    pub end: LinkEnd,
    /// The HTTP proxy behind which its host answers, where an endpoint override plays that.
    pub proxy: Option<String>,
}

/// What ends a link, besides somebody disabling its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// Its time, and nothing else.
    AsAsked,
    /// The temporary keys that signed it end before the time that was asked for, and the link with them.
    WithKeys,
    /// The keys that signed it are temporary, and nobody told when they end.
    NotKnown,
}

impl CosClient {
    /// Signs a GET of `key` that is good for `lifetime`, in the URL form of product page 436/7778. Nothing is
    /// sent; the host is signed, so the link fits this bucket alone. A session token travels in it, unsigned,
    /// as the page says.
    pub async fn sign_link(
        &self,
        bucket: &BucketName,
        region: &Region,
        key: &ObjectKey,
        lifetime: Duration,
    ) -> ObjectLink {
        let signing = self.http.signing(None).await;
        let credentials = &signing.credentials;
        let lifetime = chrono::TimeDelta::from_std(lifetime).unwrap_or(chrono::TimeDelta::MAX);
        let asked = signing.time.checked_add_signed(lifetime);
        let asked = asked.unwrap_or(DateTime::<Utc>::MAX_UTC);
        let (expires_at, end) = match (credentials.expires_at, &credentials.token) {
            (Some(over), _) if over < asked => (over, LinkEnd::WithKeys),
            (None, Some(_)) => (asked, LinkEnd::NotKnown),
            _ => (asked, LinkEnd::AsAsked),
        };
        let key_time = KeyTime {
            start: Timestamp(signing.time.timestamp() - SIGNATURE_EARLY_SECONDS),
            end: Timestamp::from(expires_at),
        };
        let host = self.host(bucket, region);
        let path = format!("/{key}");
        let request = Request {
            method: "GET",
            path: &path,
            parameters: &[],
            headers: &[("host", &host)],
        };
        let authorization = Authorization::new(credentials, key_time, &request);
        let scheme = self.http.settings().endpoints.scheme();
        let mut url = format!(
            "{scheme}://{host}{}?{}",
            percent_encode_path(&path),
            authorization.to_query()
        );
        if let Some(token) = &credentials.token {
            url.push_str("&x-cos-security-token=");
            url.push_str(&percent_encode(token.expose()));
        }
        ObjectLink {
            url,
            expires_at,
            end,
            proxy: self.http.settings().endpoints.played_by(),
        }
    }
}
