//! API 3.0: one call, its envelope, and what its failure proves.
//!
//! Success and failure both arrive as `{"Response": {…, "RequestId": …}}` with HTTP status 200; any
//! other status comes from a gateway and may carry anything (facts of the Python SDK's
//! `abstract_client`).

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::{Timestamp, tc3};
use crate::cloud::http::{
    ANSWERED_BY_OTHERS, Again, Attempt, Connection, HttpClient, Request, RequestError, Response,
    Signing, header_name, header_value, secret_value,
};
use crate::error::{Error, ErrorKind};
use crate::model::{CloudText, Region};

const JSON: &str = "application/json; charset=utf-8";

/// Whether a call may be sent again when it is not known whether it was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It only looks, or its effect is the same twice.
    Safe,
    /// It starts something: it is sent over a new connection, and never again once it may have
    /// arrived.
    NeverOnceSent,
}

/// The static description of one action.
pub trait Action: Serialize {
    /// The product, which is the first label of its host and part of the signature.
    const SERVICE: &'static str;
    /// The version of the product's API.
    const VERSION: &'static str;
    /// The action.
    const NAME: &'static str;
    /// Whether it may be sent twice.
    const REPLAY: Replay = Replay::Safe;
    /// Whether it is signed; what proves the caller by a token of its own in the body is not.
    const IS_SIGNED: bool = true;
    /// Whether its answer holds keys, so that nothing of an unreadable one may be shown.
    const ANSWERS_KEYS: bool = false;
    /// What it answers with.
    type Response: DeserializeOwned;
}

/// The answer of an action, with the cloud's name for the request.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The cloud's name for the request.
    pub request_id: Option<String>,
}

/// Why a call did not bring its answer.
#[derive(Debug)]
pub struct ApiError {
    action: &'static str,
    replay: Replay,
    problem: Problem,
    request_id: Option<String>,
    blamed_clock: Option<DateTime<Utc>>,
    /// Whether the credentials were renewed after they were refused.
    has_newer_credentials: bool,
}

#[derive(Debug)]
enum Problem {
    /// No whole answer came.
    Request(RequestError),
    /// The envelope holds an error.
    Refused {
        code: CloudText,
        message: CloudText,
        /// Of the HTTP answer: the cloud itself answers with 200, a gateway may repeat an envelope in any other.
        status: StatusCode,
    },
    /// A gateway or something else answered in the cloud's place.
    Gateway {
        status: StatusCode,
        excerpt: CloudText,
        retry_after: Option<std::time::Duration>,
    },
    /// The answer has status 200 and is no envelope, or lacks something in it.
    Unreadable {
        excerpt: CloudText,
        source: serde_json::Error,
    },
}

impl Problem {
    /// Drops what is quoted of an answer, the parser's own words included.
    fn conceal(&mut self) {
        match self {
            Self::Gateway { excerpt, .. } => *excerpt = CloudText::default(),
            Self::Unreadable { excerpt, source } => {
                *excerpt = CloudText::default();
                let what = "a field is missing or has another form; its text may hold keys";
                *source = <serde_json::Error as serde::de::Error>::custom(what);
            }
            Self::Request(_) | Self::Refused { .. } => {}
        }
    }
}

/// The situations that callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The cloud does not accept the credentials, so no other call will succeed.
    Credentials,
    /// The credentials are good and may not do this.
    NotPermitted,
    /// The call was understood and refused.
    Refused,
    /// The cloud is asked too often.
    Throttled,
    /// There was no usable answer.
    NoAnswer,
}

impl ApiError {
    /// The situation.
    #[must_use]
    pub fn kind(&self) -> ApiErrorKind {
        let Problem::Refused { code, .. } = &self.problem else {
            return ApiErrorKind::NoAnswer;
        };
        match code.as_str() {
            // Listed under AuthFailure and about something else than the caller's keys.
            "AuthFailure.CamRoleNameAuthenticateFailed" => ApiErrorKind::Refused,
            code if is_of(code, "AuthFailure.UnauthorizedOperation")
                || is_of(code, "UnauthorizedOperation") =>
            {
                ApiErrorKind::NotPermitted
            }
            code if is_of(code, "AuthFailure") => ApiErrorKind::Credentials,
            code if is_of(code, "RequestLimitExceeded") => ApiErrorKind::Throttled,
            code if is_of(code, "InternalError") || is_of(code, "ServiceUnavailable") => {
                ApiErrorKind::NoAnswer
            }
            _ => ApiErrorKind::Refused,
        }
    }

    /// The cloud's code, where the cloud refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.problem {
            Problem::Refused { code, .. } => Some(code.as_str()),
            _ => None,
        }
    }

    /// The cloud's words, where the cloud refused.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match &self.problem {
            Problem::Refused { message, .. } => Some(message.as_str()),
            _ => None,
        }
    }

    /// The cloud's name for the request, where it told one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Whether it is certain that the call started nothing. This is the one rule for that: the request never left,
    /// or an envelope with HTTP status 200 refuses it by a code that only comes before anything is started.
    /// `InternalError`, `ServiceUnavailable`, codes of unknown families and envelopes with another status prove
    /// nothing.
    #[must_use]
    pub fn proves_nothing_happened(&self) -> bool {
        match &self.problem {
            Problem::Request(error) => error.never_left(),
            Problem::Refused { code, status, .. } => {
                *status == StatusCode::OK && is_refusal_before_start(code.as_str())
            }
            Problem::Gateway { .. } | Problem::Unreadable { .. } => false,
        }
    }

    /// What a new signature is made with that may be accepted, where the refusal is about the signature alone.
    pub(crate) fn sign_again(&self) -> Option<SignAgain> {
        match self.again() {
            Again::SignedAnew(clock) => Some(SignAgain { clock: Some(clock) }),
            Again::WithNewCredentials if self.has_newer_credentials => {
                Some(SignAgain { clock: None })
            }
            _ => None,
        }
    }
}

/// How a refused request is signed again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignAgain {
    /// The server's time, where the machine's was refused.
    pub(crate) clock: Option<DateTime<Utc>>,
}

/// Families of codes that say that a request was looked at and not carried out (pages "Error Codes" of API 3.0).
const FAMILIES_BEFORE_START: &[&str] = &[
    "AuthFailure",
    "InvalidImageId",
    "LimitExceeded",
    "MissingParameter",
    "RequestLimitExceeded",
    "ResourceNotFound",
    "UnauthorizedOperation",
    "UnknownParameter",
    // Single codes of other families, which the pages of the actions list as refusals.
    "AccountQualificationRestrictions",
    "FailedOperation.InvalidImageState",
    "ImageQuotaLimitExceeded",
    "InvalidRegion.NotFound",
    "InvalidRegion.Unavailable",
    "MutexOperation.TaskRunning",
    "OperationDenied.AccountNotSupported",
];
/// Families whose names have many endings, such as `InvalidParameterValue` and `UnsupportedOperation`.
const STARTS_BEFORE_START: &[&str] = &["InvalidParameter", "Unsupported"];

fn is_refusal_before_start(code: &str) -> bool {
    let of_family = |family: &&str| is_of(code, family);
    let starts = |start: &&str| code.starts_with(start);
    FAMILIES_BEFORE_START.iter().any(of_family) || STARTS_BEFORE_START.iter().any(starts)
}

#[cfg(test)]
impl ApiError {
    /// An envelope's refusal, for tests of what callers make of it.
    pub(crate) fn refused_in_test(action: &'static str, code: &str) -> Self {
        let problem = Problem::Refused {
            code: code.into(),
            message: "words of the cloud".into(),
            status: StatusCode::OK,
        };
        let request_id = Some("r-1".to_owned());
        Self {
            action,
            replay: Replay::NeverOnceSent,
            problem,
            request_id,
            blamed_clock: None,
            has_newer_credentials: false,
        }
    }
}

/// Whether `code` is `family` or one of its members (`family.…`).
fn is_of(code: &str, family: &str) -> bool {
    code.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Attempt for ApiError {
    fn again(&self) -> Again {
        let when_safe = |again| {
            if self.replay == Replay::Safe {
                again
            } else {
                Again::No
            }
        };
        match &self.problem {
            Problem::Request(error) => when_safe(error.again()),
            Problem::Gateway {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after,
                ..
            } => when_safe(Again::Throttled(*retry_after)),
            Problem::Gateway { status, .. } if status.is_redirection() => Again::No,
            Problem::Gateway { .. } | Problem::Unreadable { .. } => when_safe(Again::Later),
            Problem::Refused { code, .. } => match code.as_str() {
                "AuthFailure.SignatureExpire" => {
                    self.blamed_clock.map_or(Again::No, Again::SignedAnew)
                }
                "AuthFailure.TokenFailure" => Again::WithNewCredentials,
                code if is_of(code, "RequestLimitExceeded") => when_safe(Again::Throttled(None)),
                code if RETRIED_READS.iter().any(|family| is_of(code, family)) => {
                    when_safe(Again::Later)
                }
                _ => Again::No,
            },
        }
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

/// Codes that a call that only looks can get over by asking again (pages "Error Codes" of API 3.0).
const RETRIED_READS: &[&str] = &[
    "InternalError",
    "ResourceInUse",
    "ResourceInsufficient",
    "ResourceUnavailable",
    "ServiceUnavailable",
];

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action;
        match &self.problem {
            Problem::Request(_) => write!(formatter, "{action} got no answer")?,
            Problem::Refused { code, .. } => write!(formatter, "{action} was refused ({code}")?,
            Problem::Gateway { status, .. } => {
                write!(
                    formatter,
                    "{action} was answered with HTTP status {status} ("
                )?;
            }
            Problem::Unreadable { .. } => write!(
                formatter,
                "{action} got an answer that is no envelope of the cloud ("
            )?,
        }
        if matches!(self.problem, Problem::Request(_)) {
            return Ok(());
        }
        let separator = if matches!(self.problem, Problem::Refused { .. }) {
            ", "
        } else {
            ""
        };
        match &self.request_id {
            Some(request_id) => write!(formatter, "{separator}request {request_id})")?,
            None => write!(formatter, "{separator}without a request id)")?,
        }
        match &self.problem {
            Problem::Refused { message, .. } if !message.as_str().is_empty() => {
                write!(formatter, ": {message}")
            }
            Problem::Gateway { excerpt, .. } | Problem::Unreadable { excerpt, .. }
                if !excerpt.as_str().is_empty() =>
            {
                write!(formatter, ": `{excerpt}`")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Request(error) => Some(error),
            Problem::Unreadable { source, .. } => Some(source),
            Problem::Refused { .. } | Problem::Gateway { .. } => None,
        }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        let action = error.action;
        let hint = |text: &str| Some(text.to_owned());
        let (kind, message, hint) = match error.kind() {
            ApiErrorKind::Credentials => (
                ErrorKind::Credentials,
                "Tencent Cloud does not accept the credentials".to_owned(),
                Some(credentials_hint(error.code().unwrap_or_default())),
            ),
            ApiErrorKind::NotPermitted => (
                ErrorKind::Permission,
                format!("these credentials may not call {action}"),
                hint("`cvm-export check --print-policy` prints the rights that are needed"),
            ),
            ApiErrorKind::Refused => (
                ErrorKind::Refused,
                format!("the cloud refused {action}"),
                hint(&format!(
                    "the page of {action} in the API documentation explains the code"
                )),
            ),
            ApiErrorKind::Throttled => (
                ErrorKind::Quota,
                format!("{action} is called too often"),
                hint("other programs use the same account; run the command again later"),
            ),
            ApiErrorKind::NoAnswer => (
                ErrorKind::Unexpected,
                format!("{action} brought no usable answer"),
                match &error.problem {
                    Problem::Request(problem) => problem.hint(),
                    _ => hint(ANSWERED_BY_OTHERS),
                },
            ),
        };
        let request_id = error.request_id.clone();
        Error::new(kind, message)
            .with_optional_hint(hint)
            .with_request_id(request_id)
            .with_source(error)
    }
}

fn credentials_hint(code: &str) -> String {
    match code {
        "AuthFailure.SignatureExpire" => {
            "set this machine's clock: it is more than five minutes off"
        }
        "AuthFailure.TokenFailure" => {
            "the session token is no longer valid; get new temporary credentials"
        }
        "AuthFailure.SecretIdNotFound" | "AuthFailure.InvalidSecretId" => {
            "the SecretId does not exist or is disabled; `-v` says where it came from"
        }
        "AuthFailure.SignatureFailure" => {
            "the SecretKey does not belong to the SecretId; `-v` says where they came from"
        }
        _ => "`-v` says where the credentials came from",
    }
    .to_owned()
}

/// A call that is signed and not sent yet.
#[derive(Debug)]
pub(crate) struct Prepared<A> {
    request: Result<Request, RequestError>,
    signing: Signing,
    action: PhantomData<A>,
}

/// Calls actions.
#[derive(Clone, Debug)]
pub(crate) struct ApiClient {
    http: HttpClient,
}

impl ApiClient {
    pub(crate) fn new(http: HttpClient) -> Self {
        Self { http }
    }

    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Calls `action`, repeating what may be repeated.
    pub(crate) async fn call<A: Action>(
        &self,
        region: Option<&Region>,
        action: &A,
    ) -> Result<Answer<A::Response>, ApiError> {
        let body = serde_json::to_vec(action)
            .expect("a request holds only strings, numbers and lists, which JSON can show");
        let body = Bytes::from(body);
        self.http
            .repeat(A::NAME, |signing| async {
                let request = self.request::<A>(region, body.clone(), &signing);
                self.attempt::<A>(request, signing).await
            })
            .await
    }

    /// Signs `action` now, to be sent later by [`Self::send`]: the cloud refuses a request that was signed more
    /// than five minutes before it arrives.
    pub(crate) async fn prepare<A: Action>(
        &self,
        region: Option<&Region>,
        action: &A,
        again: Option<SignAgain>,
    ) -> Prepared<A> {
        let body = serde_json::to_vec(action)
            .expect("a request holds only strings, numbers and lists, which JSON can show");
        let signing = self.http.signing(again.and_then(|it| it.clock)).await;
        Prepared {
            request: self.request::<A>(region, Bytes::from(body), &signing),
            signing,
            action: PhantomData,
        }
    }

    /// Sends a prepared call once, as it was signed.
    pub(crate) async fn send<A: Action>(
        &self,
        prepared: Prepared<A>,
    ) -> Result<Answer<A::Response>, ApiError> {
        let Prepared {
            request, signing, ..
        } = prepared;
        let mut sent = self.attempt::<A>(request, signing.clone()).await;
        if let Err(error) = &mut sent
            && matches!(error.again(), Again::WithNewCredentials)
        {
            error.has_newer_credentials = self.http.renew_credentials(&signing).await;
        }
        sent
    }

    async fn attempt<A: Action>(
        &self,
        request: Result<Request, RequestError>,
        signing: Signing,
    ) -> Result<Answer<A::Response>, ApiError> {
        let failed = |problem, request_id, blamed_clock| ApiError {
            action: A::NAME,
            replay: A::REPLAY,
            problem,
            request_id,
            blamed_clock,
            has_newer_credentials: false,
        };
        let response = match request {
            Ok(request) => self.http.send(request).await,
            Err(error) => Err(error),
        };
        let response = response.map_err(|error| {
            let request_id = error.request_id().map(str::to_owned);
            failed(Problem::Request(error), request_id, None)
        })?;
        read_envelope(&response).map_err(|(mut problem, request_id)| {
            if A::ANSWERS_KEYS {
                problem.conceal();
            }
            failed(problem, request_id, response.blamed_clock(signing.time))
        })
    }

    fn request<A: Action>(
        &self,
        region: Option<&Region>,
        body: Bytes,
        signing: &Signing,
    ) -> Result<Request, RequestError> {
        let host = self.http.settings().endpoints.api_host(A::SERVICE, region);
        let (credentials, timestamp) = (&signing.credentials, Timestamp::from(signing.time));
        let signed = tc3::Request {
            method: "POST",
            path: "/",
            query: "",
            headers: &[
                ("content-type", JSON),
                ("host", &host),
                ("x-tc-action", A::NAME),
            ],
            payload: &body,
        };
        let authorization = if A::IS_SIGNED {
            tc3::Authorization::new(credentials, A::SERVICE, timestamp, &signed).to_string()
        } else {
            // Tencent's SDKs send this word in place of a signature (Go: `SkipSign`, `SKIP`).
            "SKIP".to_owned()
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(
            AUTHORIZATION,
            secret_value(&host, "authorization", &authorization)?,
        );
        headers.insert(
            header_name("x-tc-action"),
            HeaderValue::from_static(A::NAME),
        );
        headers.insert(
            header_name("x-tc-version"),
            HeaderValue::from_static(A::VERSION),
        );
        headers.insert(
            header_name("x-tc-timestamp"),
            header_value(&host, "x-tc-timestamp", &timestamp.to_string())?,
        );
        // Without it the mainland hosts answer in Chinese.
        headers.insert(
            header_name("x-tc-language"),
            HeaderValue::from_static("en-US"),
        );
        headers.insert(
            header_name("x-tc-requestclient"),
            HeaderValue::from_static(concat!("cvm-export_", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(region) = region {
            headers.insert(
                header_name("x-tc-region"),
                header_value(&host, "x-tc-region", region.as_str())?,
            );
        }
        if let Some(token) = credentials.token.as_ref().filter(|_| A::IS_SIGNED) {
            headers.insert(
                header_name("x-tc-token"),
                secret_value(&host, "x-tc-token", token.expose())?,
            );
        }
        let connection = match A::REPLAY {
            Replay::Safe => Connection::Reused,
            Replay::NeverOnceSent => Connection::Fresh,
        };
        Ok(Request {
            method: Method::POST,
            host,
            target: "/".to_owned(),
            headers,
            body,
            connection,
        })
    }
}

/// The part of an envelope that is the same for every action.
#[derive(serde::Deserialize)]
struct Envelope {
    #[serde(rename = "Response")]
    response: serde_json::Map<String, serde_json::Value>,
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(rename = "Code")]
    code: CloudText,
    #[serde(rename = "Message", default)]
    message: Option<CloudText>,
}

fn read_envelope<T: DeserializeOwned>(
    response: &Response,
) -> Result<Answer<T>, (Problem, Option<String>)> {
    let envelope: Result<Envelope, _> = serde_json::from_slice(&response.body);
    let mut envelope = match envelope {
        Ok(envelope) => envelope.response,
        Err(source) => {
            let excerpt = response.excerpt();
            let problem = if response.status == StatusCode::OK {
                Problem::Unreadable { excerpt, source }
            } else {
                Problem::Gateway {
                    status: response.status,
                    excerpt: redirect_target(response).unwrap_or(excerpt),
                    retry_after: response.retry_after(),
                }
            };
            return Err((problem, response.header("x-tc-requestid")));
        }
    };
    let request_id = envelope
        .get("RequestId")
        .and_then(serde_json::Value::as_str);
    let request_id = request_id.map(|id| CloudText::new(id).to_string());
    let unreadable = |source, request_id| {
        (
            Problem::Unreadable {
                excerpt: response.excerpt(),
                source,
            },
            request_id,
        )
    };
    match envelope.remove("Error") {
        None | Some(serde_json::Value::Null) => {}
        Some(refusal) => {
            return Err(match serde_json::from_value::<Refusal>(refusal) {
                Ok(Refusal { code, message }) => {
                    let message = message.unwrap_or_default();
                    let status = response.status;
                    let problem = Problem::Refused {
                        code,
                        message,
                        status,
                    };
                    (problem, request_id)
                }
                Err(source) => unreadable(source, request_id),
            });
        }
    }
    match serde_json::from_value(serde_json::Value::Object(envelope)) {
        Ok(value) => Ok(Answer { value, request_id }),
        Err(source) => Err(unreadable(source, request_id)),
    }
}

/// Where a redirect leads; it is not followed, since it would carry a signature to another host.
fn redirect_target(response: &Response) -> Option<CloudText> {
    let target = response
        .status
        .is_redirection()
        .then(|| response.header("location"))
        .flatten()?;
    Some(CloudText::excerpt(
        &format!("a redirect to {target}, which is not followed"),
        200,
    ))
}

#[cfg(test)]
mod tests;
