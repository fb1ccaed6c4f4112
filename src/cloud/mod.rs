//! Everything that crosses the network: the open clients and where they send.
//!
//! Nothing in here knows what an export is. Every attempt is signed anew; what may be repeated is
//! decided by what a failure proves.

pub mod actions;
pub mod api;
pub mod cos;
pub mod credentials;
mod endpoints;
mod http;
mod probe;
mod renewal;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::event::Events;
use crate::model::Region;

pub use endpoints::{
    ApiHost, ApiPlace, CosDomain, Endpoints, HostSettings, InvalidEndpoint, Network, PRODUCTS, Site,
};
pub(crate) use http::{Again, Attempt, Signing};
pub use http::{RequestError, RetryPolicy};
pub use probe::{Answered, Probe};
pub use renewal::CredentialsInUse;

use api::{Action, Answer, ApiClient, ApiError, Prepared, SignAgain};
use cos::CosClient;
use http::HttpClient;

/// How the clients behave.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Where requests go.
    pub endpoints: Endpoints,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one attempt of a call may take from its start to the last byte of its answer.
    pub answer_timeout: Duration,
    /// How long a body may pause before its connection is given up.
    pub stall_timeout: Duration,
    /// When and how often a failed call is repeated.
    pub retry: RetryPolicy,
}

impl CloudSettings {
    /// The usual behaviour towards `endpoints`.
    #[must_use]
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            endpoints,
            connect_timeout: Duration::from_secs(10),
            // What Tencent's own SDKs allow an answer to take.
            answer_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }
}

/// The open clients of one account. Cheap to clone; clones share connections and the clock offset.
#[derive(Clone, Debug)]
pub struct Cloud {
    api: ApiClient,
    cos: CosClient,
}

impl Cloud {
    /// Opens the clients; nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be set up, such as on a machine without root certificates.
    pub fn open(
        settings: CloudSettings,
        credentials: impl Into<CredentialsInUse>,
        events: Events,
    ) -> Result<Self, Error> {
        let http = HttpClient::open(settings, Arc::new(credentials.into()), events)?;
        Ok(Self {
            api: ApiClient::new(http.clone()),
            cos: CosClient::new(http),
        })
    }

    /// Calls an action of API 3.0. A region is needed by all but the account-wide services.
    ///
    /// # Errors
    /// [`ApiError`] says what the failure proves, and carries the request id.
    pub async fn call<A: Action>(
        &self,
        region: Option<&Region>,
        action: &A,
    ) -> Result<Answer<A::Response>, ApiError> {
        self.api.call(region, action).await
    }

    /// Signs a call now, to be sent by [`Self::send`].
    pub(crate) async fn prepare<A: Action>(
        &self,
        region: Option<&Region>,
        action: &A,
        again: Option<SignAgain>,
    ) -> Prepared<A> {
        self.api.prepare(region, action, again).await
    }

    /// Sends a prepared call once.
    pub(crate) async fn send<A: Action>(
        &self,
        prepared: Prepared<A>,
    ) -> Result<Answer<A::Response>, ApiError> {
        self.api.send(prepared).await
    }

    /// The client of the object storage.
    #[must_use]
    pub fn cos(&self) -> &CosClient {
        &self.cos
    }

    /// Where it sends.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.api.http().settings().endpoints
    }

    /// The time by the servers' clock, as far as an answer has told it.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.api.http().now()
    }

    /// The same clients, whose retries are told on `events`.
    #[must_use]
    pub fn with_events(&self, events: Events) -> Self {
        let http = self.api.http().with_events(events);
        Self {
            api: ApiClient::new(http.clone()),
            cos: CosClient::new(http),
        }
    }
}
