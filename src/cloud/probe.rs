//! Whether a host answers at all, whatever it says: nothing is signed, and nothing is started.

use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use http::{HeaderMap, Method};

use super::Cloud;
use super::http::{Connection, Request};
use crate::clock::Stopwatch;
use crate::error::one_line;

/// What a knock at one host brought.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The host.
    pub host: String,
    /// Its answer, or why there was none.
    pub answer: Result<Answered, String>,
}

/// A host's answer, of whatever status.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// How long it took, a new connection included.
    pub after: Duration,
    /// How far the server's clock is ahead of this machine's; its `Date` has whole seconds.
    pub clock_offset: Option<TimeDelta>,
}

impl Cloud {
    /// Sends `HEAD /` to `host`, unsigned, and waits for any answer as long as `limit`.
    pub(crate) async fn probe(&self, host: String, limit: Duration) -> Probe {
        let request = Request {
            method: Method::HEAD,
            host: host.clone(),
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            connection: Connection::Reused,
        };
        let stopwatch = Stopwatch::start();
        let answer = match tokio::time::timeout(limit, self.api.http().send(request)).await {
            Ok(Ok(response)) => Ok(Answered {
                after: stopwatch.elapsed(),
                clock_offset: response.clock_offset(),
            }),
            Ok(Err(error)) => Err(one_line(&error)),
            Err(_) => Err(format!("nothing came within {} s", limit.as_secs())),
        };
        Probe { host, answer }
    }
}
