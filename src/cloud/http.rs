//! One attempt of a request, and the loop that repeats it: by what a failure proves, never by luck.
//!
//! | what happened                   | a call that may be repeated | a call that must not be doubled   |
//! | ---                             | ---                         | ---                               |
//! | no connection: it never left    | again after a pause         | told, with the proof              |
//! | it left, and no answer came     | again after a pause         | told as lost                      |
//! | refused for its time of signing | signed anew, once           | signed anew, once                 |
//! | the session token is over       | with newer ones, if any     | with newer ones, if any           |
//! | "too many requests"             | again after a longer pause  | told, with the proof              |
//! | "try again", a broken gateway   | again after a pause         | told as it is                     |
//!
//! Whoever sends a call that must not be doubled makes its own pauses, between which its record says
//! that nothing is on its way.
//!
//! The caller signs inside each attempt, with what [`HttpClient::repeat`] gives it: the present
//! credentials, and this machine's clock corrected by the `Date` of the last answer, or that of the
//! refusal itself.

mod echo;
mod error;

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::auth::{Credentials, Secret};
use crate::clock::{self, Stopwatch};
use crate::cloud::{CloudSettings, CredentialsInUse};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};
use crate::model::CloudText;

pub use error::RequestError;

/// The largest answer that is read. The largest useful one, a page of a thousand listed objects, has
/// about 1 MiB.
const ANSWER_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// An offset of the clocks that is worth a new signature (contract, section 7).
const CLOCK_TOLERANCE: chrono::Duration = chrono::Duration::seconds(60);
/// No clock is wrong by more than this: such a `Date` is a fault of whoever answered, and would overflow
/// what is computed from it.
const CLOCK_TRUST: chrono::Duration = chrono::Duration::days(366);
/// A `Date` has whole seconds, and an answer travels: smaller differences say nothing.
const CLOCK_NOISE_MILLISECONDS: u64 = 2_000;
/// A server that asks for more patience than this is asked again earlier.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What to do about an answer that cannot be the cloud's.
pub(crate) const ANSWERED_BY_OTHERS: &str = "something between here and the cloud may answer in its \
    place; run the command again, and look at the proxy if it repeats";

/// When and how often a failed call is repeated.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all where the answer did not come or was "try again".
    pub attempts: u32,
    /// Attempts in all where the answer was "too many requests".
    pub throttled_attempts: u32,
    /// The pause after the first failure; each one after it is twice as long.
    pub base: Duration,
    /// No pause is longer.
    pub ceiling: Duration,
}

impl Default for RetryPolicy {
    /// Limits of API 3.0 count by the second, so a throttled call gets half a minute; anything else
    /// gets about two seconds, after which a person wants to hear of it.
    fn default() -> Self {
        Self {
            attempts: 4,
            throttled_attempts: 10,
            base: Duration::from_millis(250),
            ceiling: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// No repetition, but for a refusal of the signature: for a call that its caller repeats by itself.
    pub(crate) const ONCE: Self = Self {
        attempts: 1,
        throttled_attempts: 1,
        base: Duration::ZERO,
        ceiling: Duration::ZERO,
    };

    /// The pause after failure number `failure`, counted from 1; `jitter` between 0 and 1 spreads it
    /// over its upper half.
    fn pause(&self, failure: u32, jitter: f64) -> Duration {
        let factor = 2_u32.saturating_pow(failure.saturating_sub(1));
        let longest = self.base.saturating_mul(factor).min(self.ceiling);
        longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// Whether and when a failed attempt may be followed by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would end the same way, or could do harm.
    No,
    /// The signature's time was refused: once more at once, signed with the time that the refusal
    /// tells. Other answers may correct the common clock meanwhile, by another server's.
    SignedAnew(DateTime<Utc>),
    /// The session token is over: once more at once, if there are newer credentials.
    WithNewCredentials,
    /// After a pause.
    Later,
    /// The server is asked too often; it may say how long to stay away.
    Throttled(Option<Duration>),
}

/// A failed attempt, as the loop needs to know it.
pub(crate) trait Attempt: std::error::Error {
    /// Whether and when to try again.
    fn again(&self) -> Again;
    /// The cloud's name for the failed request.
    fn request_id(&self) -> Option<&str>;
}

/// Which connection a request travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// One that is open already, where there is one.
    Reused,
    /// A new one: a kept one that has gone stale would look like a lost answer.
    Fresh,
    /// One for large bodies, which may take hours and may not pause for long.
    Data,
    /// A new one, plain and past every proxy, to the metadata host of a CVM: it is one hop away, or not
    /// there at all.
    Metadata,
}

/// What the metadata host may take for an answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// What one attempt is signed with.
#[derive(Clone, Debug)]
pub(crate) struct Signing {
    pub(crate) time: DateTime<Utc>,
    pub(crate) credentials: Arc<Credentials>,
}

/// One attempt, signed and ready.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) host: String,
    /// The encoded path and query.
    pub(crate) target: String,
    /// Without `host`; values that are secrets are marked as sensitive.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) connection: Connection,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response {
    /// A header's value, stripped of what must not be printed.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?.to_str().ok()?;
        Some(CloudText::new(value).to_string())
    }

    /// When the server says that it answered.
    pub(crate) fn date(&self) -> Option<DateTime<Utc>> {
        date_of(&self.headers)
    }

    /// How far the server's clock is ahead of this machine's, where the answer has just come and tells
    /// it.
    pub(crate) fn clock_offset(&self) -> Option<chrono::TimeDelta> {
        let offset = offset_of(self.date()?, clock::now())?;
        // A `Date` is cut to its second; its middle is the better guess.
        offset.checked_add(&chrono::TimeDelta::milliseconds(500))
    }

    /// How long the server asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self
            .headers
            .get(http::header::RETRY_AFTER)?
            .to_str()
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The first characters of the body, for a message about an answer that makes no sense.
    pub(crate) fn excerpt(&self) -> CloudText {
        CloudText::excerpt(String::from_utf8_lossy(&self.body).trim(), 120)
    }

    /// The server's time, where a refusal can be explained by it: it is far from the one that was
    /// signed with. Calls that run at once may all meet this, each for itself.
    pub(crate) fn blamed_clock(&self, signed_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.date().filter(|date| {
            offset_of(*date, signed_at).is_some_and(|offset| offset.abs() > CLOCK_TOLERANCE)
        })
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answering {
    host: String,
    answer: reqwest::Response,
    /// How long the body may pause while it is waited for. The timeout of the HTTP library would count
    /// the time that the reader takes as well, for a slow disk or a rate that was asked for.
    stall_timeout: Option<Duration>,
    /// What was sent and must not be shown, should the answer repeat it.
    hidden: Vec<Secret>,
}

impl Answering {
    pub(crate) fn status(&self) -> StatusCode {
        self.answer.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        let host = || self.host.clone();
        let chunk = unless_stalled(self.stall_timeout, host, self.answer.chunk()).await?;
        chunk.map_err(|source| RequestError::BrokenAnswer {
            host: self.host.clone(),
            source: source.without_url(),
        })
    }

    /// Reads the rest of an answer that is not large.
    pub(crate) async fn read_whole(mut self) -> Result<Response, RequestError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            if body.len() + chunk.len() > ANSWER_LIMIT_BYTES {
                let request_id = self.headers().get("x-cos-request-id");
                let request_id = request_id
                    .and_then(|id| id.to_str().ok())
                    .map(str::to_owned);
                return Err(RequestError::TooLarge {
                    host: self.host,
                    request_id,
                });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response {
            status: self.answer.status(),
            headers: std::mem::take(self.answer.headers_mut()),
            body: body.freeze(),
        };
        echo::hide(&mut response, &self.hidden);
        Ok(response)
    }
}

/// Waits for `work` as long as a server may pause.
async fn unless_stalled<T>(
    limit: Option<Duration>,
    host: impl FnOnce() -> String,
    work: impl Future<Output = T>,
) -> Result<T, RequestError> {
    let Some(limit) = limit else {
        return Ok(work.await);
    };
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| RequestError::Stalled {
            host: host(),
            limit,
        })
}

fn date_of(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    parse_http_date(headers.get(http::header::DATE)?.to_str().ok()?)
}

/// How far `date` is from `clock`, where a clock can be that wrong.
fn offset_of(date: DateTime<Utc>, clock: DateTime<Utc>) -> Option<chrono::TimeDelta> {
    let offset = date.signed_duration_since(clock);
    (offset.abs() <= CLOCK_TRUST).then_some(offset)
}

/// Reads the date of an HTTP header.
pub(crate) fn parse_http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text)
        .ok()
        .map(|date| date.to_utc())
}

/// Sends requests. Clones share connections and the clock offset.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    settings: Arc<CloudSettings>,
    credentials: Arc<CredentialsInUse>,
    pooled: reqwest::Client,
    data: Arc<OnceLock<reqwest::Client>>,
    clock_offset_milliseconds: Arc<AtomicI64>,
    /// Secrets that stand in bodies.
    hidden: Arc<[Secret]>,
    events: Events,
}

impl HttpClient {
    pub(crate) fn open(
        settings: CloudSettings,
        credentials: Arc<CredentialsInUse>,
        events: Events,
    ) -> Result<Self, Error> {
        let pooled = build(&settings, Connection::Reused).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                "the network client could not be set up",
            )
            .with_hint("install the system's root certificates (Debian: `ca-certificates`)")
            .with_source(error)
        })?;
        Ok(Self {
            settings: Arc::new(settings),
            credentials,
            pooled,
            data: Arc::default(),
            clock_offset_milliseconds: Arc::new(AtomicI64::new(0)),
            hidden: Arc::from([]),
            events,
        })
    }

    pub(crate) fn settings(&self) -> &CloudSettings {
        &self.settings
    }

    /// What an attempt is signed with: the present credentials, and the time now or that of the refusal
    /// before it.
    pub(crate) async fn signing(&self, refusing_clock: Option<DateTime<Utc>>) -> Signing {
        let credentials = self.credentials.current(self.now(), &self.events).await;
        Signing {
            // Newer credentials may have taken a while to come.
            time: refusing_clock.unwrap_or_else(|| self.now()),
            credentials,
        }
    }

    /// Asks for newer credentials after those of an attempt were refused; says whether there are any.
    pub(crate) async fn renew_credentials(&self, refused: &Signing) -> bool {
        let refused = &refused.credentials;
        self.credentials
            .renew(refused, self.now(), &self.events)
            .await
    }

    /// The same client, which shows no `secret` that an answer repeats. Tokens in headers are hidden in
    /// any case; this is for one in a body.
    pub(crate) fn hiding(self, secret: Secret) -> Self {
        Self {
            hidden: Arc::from([secret]),
            ..self
        }
    }

    pub(crate) fn with_events(&self, events: Events) -> Self {
        Self {
            events,
            ..self.clone()
        }
    }

    /// The time by the servers' clock, as far as an answer has told it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let offset = self.clock_offset_milliseconds.load(Ordering::Relaxed);
        let now = clock::now();
        let offset = chrono::TimeDelta::try_milliseconds(offset);
        offset
            .and_then(|offset| now.checked_add_signed(offset))
            .unwrap_or(now)
    }

    /// Repeats `attempt`, which signs with what it is given, by what its failures prove.
    /// `call` names it for people.
    pub(crate) async fn repeat<T, E: Attempt + 'static, F: Future<Output = Result<T, E>>>(
        &self,
        call: &str,
        attempt: impl FnMut(Signing) -> F,
    ) -> Result<T, E> {
        self.repeat_by(&self.settings.retry, call, attempt).await
    }

    /// As [`Self::repeat`], as often as `policy` says.
    pub(crate) async fn repeat_by<T, E: Attempt + 'static, F: Future<Output = Result<T, E>>>(
        &self,
        policy: &RetryPolicy,
        call: &str,
        mut attempt: impl FnMut(Signing) -> F,
    ) -> Result<T, E> {
        let mut has_signed_anew = false;
        let mut has_renewed = false;
        let mut refusing_clock = None;
        for number in 1.. {
            let signing = self.signing(refusing_clock.take()).await;
            let error = match attempt(signing.clone()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let usual_pause = policy.pause(number, fastrand::f64());
            let delay = match error.again() {
                Again::SignedAnew(time) if !has_signed_anew => {
                    has_signed_anew = true;
                    refusing_clock = Some(time);
                    Duration::ZERO
                }
                Again::WithNewCredentials
                    if !has_renewed && self.renew_credentials(&signing).await =>
                {
                    has_renewed = true;
                    Duration::ZERO
                }
                Again::Later if number < policy.attempts => usual_pause,
                Again::Throttled(asked) if number < policy.throttled_attempts => {
                    asked.map_or(usual_pause, |asked| asked.min(LONGEST_RETRY_AFTER))
                }
                Again::No
                | Again::SignedAnew(_)
                | Again::WithNewCredentials
                | Again::Later
                | Again::Throttled(_) => {
                    return Err(error);
                }
            };
            self.events.emit(EventKind::Retrying {
                call: call.to_owned(),
                attempt: number,
                delay,
                reason: crate::error::one_line(&error),
                request_id: error.request_id().map(str::to_owned),
            });
            tokio::time::sleep(delay).await;
        }
        unreachable!("the number of attempts is limited")
    }

    /// Sends `request` once and reads its answer whole. Any status is an answer.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, RequestError> {
        let stopwatch = Stopwatch::start();
        let call = format!("{} {}", request.method, request.host);
        let response = match self.open_answer(request).await {
            Ok(answer) => answer.read_whole().await,
            Err(error) => Err(error),
        };
        match &response {
            Ok(response) => tracing::debug!(
                call,
                status = response.status.as_u16(),
                bytes = response.body.len(),
                milliseconds = stopwatch.elapsed().as_millis(),
                "answered"
            ),
            Err(error) => tracing::debug!(call, "{}", crate::error::one_line(error)),
        }
        response
    }

    /// Sends `request` once and leaves the body of its answer to be read.
    pub(crate) async fn open_answer(&self, request: Request) -> Result<Answering, RequestError> {
        let Request {
            method,
            host,
            target,
            headers,
            body,
            connection,
        } = request;
        let scheme = scheme(&self.settings, connection);
        let url = format!("{scheme}://{host}{target}");
        let hidden = echo::secrets_of(&headers, &self.hidden);
        let client = self
            .client(connection)
            .map_err(|source| RequestError::NoConnection {
                host: host.clone(),
                source,
            })?;
        let sending = client
            .request(method, &url)
            .headers(headers)
            .body(body)
            .send();
        let is_data = connection == Connection::Data;
        let stall_timeout = is_data.then_some(self.settings.stall_timeout);
        let sent = unless_stalled(stall_timeout, || host.clone(), sending).await?;
        let answer = match sent.map_err(reqwest::Error::without_url) {
            Ok(answer) => answer,
            Err(source) if source.is_builder() => {
                let problem = source.to_string();
                return Err(RequestError::Unwritable { host, problem });
            }
            Err(source) if source.is_connect() => {
                return Err(RequestError::NoConnection { host, source });
            }
            Err(source) => return Err(RequestError::NoAnswer { host, source }),
        };
        self.note_clock(answer.headers());
        Ok(Answering {
            host,
            answer,
            stall_timeout,
            hidden,
        })
    }

    fn client(&self, connection: Connection) -> reqwest::Result<reqwest::Client> {
        match connection {
            Connection::Reused => Ok(self.pooled.clone()),
            Connection::Fresh | Connection::Metadata => build(&self.settings, connection),
            Connection::Data => match self.data.get() {
                Some(client) => Ok(client.clone()),
                None => {
                    let client = build(&self.settings, connection)?;
                    Ok(self.data.get_or_init(|| client).clone())
                }
            },
        }
    }

    /// Keeps how far the server's clock is from this machine's.
    fn note_clock(&self, headers: &HeaderMap) {
        let Some(offset) = date_of(headers).and_then(|date| offset_of(date, clock::now())) else {
            return;
        };
        // A `Date` is cut to its second; its middle is the better guess.
        let offset = offset.num_milliseconds() + 500;
        let known = self.clock_offset_milliseconds.load(Ordering::Relaxed);
        if offset.abs_diff(known) > CLOCK_NOISE_MILLISECONDS {
            self.clock_offset_milliseconds
                .store(offset, Ordering::Relaxed);
        }
    }
}

/// The metadata host of a CVM speaks plain HTTP only (product page 213/4934, "Instance Metadata").
fn scheme(settings: &CloudSettings, connection: Connection) -> &'static str {
    if connection == Connection::Metadata && !settings.endpoints.is_overridden() {
        "http"
    } else {
        settings.endpoints.scheme()
    }
}

/// A client that does nothing on its own: no redirects, no retries, no cookies, no compression.
fn build(settings: &CloudSettings, connection: Connection) -> reqwest::Result<reqwest::Client> {
    // The first caller wins; a provider that is there already serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("cvm-export/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only();
    builder = match connection {
        Connection::Reused => builder.timeout(settings.answer_timeout),
        Connection::Fresh => builder
            .timeout(settings.answer_timeout)
            .pool_max_idle_per_host(0),
        Connection::Data => builder,
        Connection::Metadata => builder
            .timeout(METADATA_TIMEOUT)
            .pool_max_idle_per_host(0)
            .no_proxy(),
    };
    builder = match settings.endpoints.resolver() {
        None if connection == Connection::Metadata => builder.tls_certs_only([]),
        None => builder.https_only(true),
        // A proxy could not reach an address of this machine; certificates are needed for https alone.
        Some(resolver) if settings.endpoints.scheme() == "http" => {
            builder.no_proxy().dns_resolver(resolver).tls_certs_only([])
        }
        Some(resolver) => builder.no_proxy().dns_resolver(resolver),
    };
    builder.build()
}

/// A header value from text of ours or of the person.
pub(crate) fn header_value(
    host: &str,
    name: &str,
    value: &str,
) -> Result<HeaderValue, RequestError> {
    HeaderValue::from_str(value).map_err(|_| RequestError::Unwritable {
        host: host.to_owned(),
        problem: format!("the value of `{name}` holds characters that no header may hold"),
    })
}

/// As [`header_value`], marked so that nothing shows it.
pub(crate) fn secret_value(
    host: &str,
    name: &str,
    value: &str,
) -> Result<HeaderValue, RequestError> {
    let mut value = header_value(host, name, value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The names of headers that this crate sends and the library does not know.
pub(crate) const fn header_name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_ceiling_and_are_spread_over_their_upper_half() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(1, 1.0), Duration::from_millis(250));
        assert_eq!(policy.pause(1, 0.0), Duration::from_millis(125));
        assert_eq!(policy.pause(3, 1.0), Duration::from_secs(1));
        assert_eq!(policy.pause(40, 1.0), policy.ceiling);
    }

    #[test]
    fn a_refusal_blames_the_clock_only_when_the_server_is_far_away() {
        let date = parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").expect("a date");
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::DATE,
            HeaderValue::from_static("Tue, 24 Nov 2026 12:00:00 GMT"),
        );
        let response = Response {
            status: StatusCode::FORBIDDEN,
            headers,
            body: Bytes::new(),
        };
        let blamed = |seconds| response.blamed_clock(date + chrono::Duration::seconds(seconds));
        assert_eq!([60, 61, -61].map(blamed), [None, Some(date), Some(date)]);
        // No clock is that wrong, so signing anew would change nothing.
        assert_eq!(
            response.blamed_clock(date - chrono::Duration::days(367)),
            None
        );
        assert_eq!(response.blamed_clock(DateTime::<Utc>::MIN_UTC), None);
    }

    #[test]
    fn a_date_that_no_clock_shows_is_no_offset() {
        let now = parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").expect("a date");
        for days in [-366, -1, 0, 1, 366] {
            let offset = chrono::Duration::days(days);
            assert_eq!(offset_of(now + offset, now), Some(offset));
        }
        for date in [
            now + chrono::Duration::days(367),
            now - chrono::Duration::days(367),
            DateTime::<Utc>::MAX_UTC,
            DateTime::<Utc>::MIN_UTC,
        ] {
            assert_eq!(offset_of(date, now), None, "{date}");
        }
        for (date, clock) in [
            (DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC),
            (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC),
        ] {
            assert_eq!(offset_of(date, clock), None, "the widest span there is");
        }
    }
}
