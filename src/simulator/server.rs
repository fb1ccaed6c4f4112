//! The server: connections, routing by host, faults, and the call log.
//!
//! ```text
//! accept ─► read the whole request ─► route ─► faults before ─► world ─► faults after ─► log ─► send
//! ```
//!
//! Processing runs on a task of its own: a client that hangs up does not undo what it asked for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::clock;

use super::api::{self, ApiHost, Rates};
use super::body::{self, Body, Broken, Pace};
use super::cos::{self, Target};
use super::fault::{Effect, Fault, FaultBook};
use super::holds::{HeldCall, Holds};
use super::log::Call;
use super::socket::{Signals, Socket};
use super::wire::{Answer, Content, Received, http_date};
use super::world::World;
use super::{admin, effects, metadata, verify};

/// The largest body that is taken in. The API allows 10 MB; parts of uploads are larger.
const BODY_LIMIT_BYTES: usize = 256 << 20;

/// The largest body that the call log shows as text.
const LOGGED_BODY_BYTES: usize = 8 << 10;

/// How many calls the log keeps, so that a simulator may run for weeks.
const CALLS_KEPT: usize = 100_000;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    world: Mutex<World>,
    rates: Mutex<Rates>,
    faults: Mutex<FaultBook>,
    holds: Holds,
    calls: Mutex<VecDeque<Call>>,
}

/// A knob that panics in a test leaves the world as it was at that moment, which is good enough for
/// the answers that the test still expects.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(world: World, faults: Vec<Fault>) -> Self {
        Self {
            world: Mutex::new(world),
            rates: Mutex::default(),
            faults: Mutex::new(FaultBook::new(faults)),
            holds: Holds::default(),
            calls: Mutex::default(),
        }
    }

    /// The world, brought to the present.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.world);
        world.settle();
        world
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        lock(&self.calls).iter().cloned().collect()
    }

    fn log(&self, call: Call) {
        let mut calls = lock(&self.calls);
        if calls.len() == CALLS_KEPT {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    pub(super) fn begun_calls(&self, operation: &str) -> u32 {
        lock(&self.faults).count(operation)
    }

    pub(super) fn clear_calls(&self) {
        lock(&self.calls).clear();
    }

    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        let mut book = lock(&self.faults);
        *book = FaultBook::new(faults);
        self.holds.forget_released();
    }

    pub(super) fn unmet_faults(&self) -> Vec<Fault> {
        lock(&self.faults).unmet()
    }

    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Whether a fault holds calls under this name, or a call waits under it.
    pub(super) fn has_hold(&self, name: &str) -> bool {
        lock(&self.faults).has_hold(name) || self.holds.held().iter().any(|call| call.name == name)
    }
}

/// Serves until it is dropped, and every connection with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, Arc::clone(&shared)));
                }
                // Out of file descriptors or the like: some connection has to end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // Small answers would wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let signals = Signals::default();
    let socket = TokioIo::new(Socket::new(stream, signals.clone()));
    let service = service_fn(|request| {
        let (shared, signals) = (Arc::clone(&shared), signals.clone());
        async move {
            let delivery = handle(request, peer, shared).await;
            match &delivery {
                Ok(_) => signals.expect_head(),
                Err(Broken) => signals.reset(),
            }
            delivery
        }
    });
    // How a connection ended is the client's business; the call log has what happened.
    let _ = http1::Builder::new()
        // The date is the simulated server's, and faults may take it away.
        .auto_date_header(false)
        .serve_connection(socket, service)
        .await;
}

/// Answers one request; [`Broken`] asks for a reset.
async fn handle(
    request: Request<Incoming>,
    peer: SocketAddr,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Broken> {
    let time = clock::now();
    let is_head = request.method() == http::Method::HEAD;
    let (answer, pace) = match receive(request).await {
        Ok(request) => match admin::answer(&shared, peer, &request) {
            Some(answer) => (answer, Pace::default()),
            None => {
                // It is dropped with the connection, which ends what the call waits for.
                let (_open, hang_up) = oneshot::channel();
                let processing = tokio::spawn(process(shared, request, time, hang_up));
                processing.await.map_err(|_| Broken)?.ok_or(Broken)?
            }
        },
        Err(answer) => (answer, Pace::default()),
    };
    Ok(respond(answer, pace, is_head))
}

/// Reads a request whole; the answer where it cannot be read.
async fn receive(request: Request<Incoming>) -> Result<Received, Answer> {
    let (head, body) = request.into_parts();
    let host = head.headers.get(http::header::HOST);
    let host = host.map_or_else(String::new, |host| text_of(host.as_bytes()));
    // The proxy form names the host twice; a difference means that somebody is being fooled.
    let is_contradicting = head
        .uri
        .authority()
        .is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(&host));
    if is_contradicting {
        return Err(Answer::new(400, "text/plain", "Host and target differ.\n"));
    }
    let body = Limited::new(body, BODY_LIMIT_BYTES).collect().await;
    let body: Bytes = body
        .map_err(|_| Answer::new(413, "text/plain", "The body is broken or too large.\n"))?
        .to_bytes();
    let headers = head.headers.iter();
    Ok(Received {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        host,
        headers: headers
            .map(|(name, value)| (name.to_string(), text_of(value.as_bytes())))
            .collect(),
        body,
    })
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Which part of the cloud a host belongs to.
#[derive(Clone, Debug)]
enum Route {
    Api(ApiHost),
    Cos(Target),
    Metadata,
    Unknown,
}

impl Route {
    fn of(request: &Received) -> Self {
        let host = request.host_name();
        if let Some(target) = Target::parse(&host, &request.path) {
            return Self::Cos(target);
        }
        if host == metadata::HOST {
            return Self::Metadata;
        }
        match ApiHost::parse(&host) {
            Some(host) if api::SERVICES.contains(&host.service.as_str()) => Self::Api(host),
            _ => Self::Unknown,
        }
    }

    fn service(&self) -> &str {
        match self {
            Self::Api(host) => &host.service,
            Self::Cos(_) => "cos",
            Self::Metadata => "metadata",
            Self::Unknown => "unknown",
        }
    }

    /// The object key, if the request is about one object.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Cos(target) => target.key(),
            Self::Api(_) | Self::Metadata | Self::Unknown => None,
        }
    }

    fn operation(&self, request: &Received) -> String {
        match self {
            Self::Api(_) => api::operation(request),
            Self::Cos(target) => cos::operation(request, target),
            Self::Metadata => metadata::operation(request),
            Self::Unknown => "Unknown".to_owned(),
        }
    }
}

/// Runs one call through faults and world; `None` where the connection shall be reset.
async fn process(
    shared: Arc<Shared>,
    request: Received,
    time: DateTime<Utc>,
    mut hang_up: oneshot::Receiver<()>,
) -> Option<(Answer, Pace)> {
    let route = Route::of(&request);
    let operation = route.operation(&request);
    let key = route.key().map(str::to_owned);
    let faults = lock(&shared.faults).take(&operation, key.as_deref());
    let effects: Vec<Effect> = faults.iter().map(|fault| fault.effect.clone()).collect();
    let mut held = HeldCall {
        name: String::new(),
        operation: operation.clone(),
        key,
        processed: false,
    };
    let mut call = Call {
        time,
        service: route.service().to_owned(),
        operation,
        host: request.host.clone(),
        method: request.method.clone(),
        target: request.target(),
        secret_id: verify::signer(&request),
        status: 0,
        code: None,
        request_id: String::new(),
        body_bytes: request.body.len(),
        range: request.header("range").map(str::to_owned),
        body: Some(&request.body)
            .filter(|body| !body.is_empty() && body.len() <= LOGGED_BODY_BYTES)
            .map(|body| text_of(body)),
        processed: false,
    };
    pause(&effects, |effect| match effect {
        Effect::DelayBefore { milliseconds } => *milliseconds,
        _ => 0,
    })
    .await;
    let is_wanted = shared.hold(&faults, &held, &mut hang_up).await;
    if !is_wanted || effects.contains(&Effect::ResetBefore) {
        shared.log(call);
        return None;
    }
    let mut answer = match instead(&effects, &route, &request) {
        Some(answer) => answer,
        None => {
            call.processed = true;
            let (shared, effects) = (Arc::clone(&shared), effects.clone());
            let work = move || shared.answer(&route, &request, &effects);
            // A panic in here is a bug of the simulator; the client sees a broken connection.
            tokio::task::spawn_blocking(work).await.ok()?
        }
    };
    answer = answer.with_header("Date", http_date(shared.time(&effects)));
    let pace = effects::apply(&effects, &mut answer);
    let is_reset = effects.contains(&Effect::ProcessedThenReset);
    if !is_reset {
        call.status = answer.status;
    }
    call.code.clone_from(&answer.code);
    call.request_id.clone_from(&answer.request_id);
    shared.log(call);
    pause(&effects, |effect| match effect {
        Effect::DelayAfter { milliseconds } => *milliseconds,
        _ => 0,
    })
    .await;
    held.processed = true;
    let is_wanted = shared.hold(&faults, &held, &mut hang_up).await;
    (is_wanted && !is_reset).then_some((answer, pace))
}

async fn pause(effects: &[Effect], milliseconds: impl Fn(&Effect) -> u64) {
    let total = effects.iter().map(milliseconds).sum();
    if total > 0 {
        tokio::time::sleep(Duration::from_millis(total)).await;
    }
}

/// The answer of a fault that keeps the call from being processed.
fn instead(effects: &[Effect], route: &Route, request: &Received) -> Option<Answer> {
    effects.iter().find_map(|effect| match effect {
        Effect::Status { status } => Some(effects::html(*status)),
        Effect::Redirect { location } => Some(effects::redirect(location)),
        Effect::ApiError { code } => match route {
            Route::Api(host) => Some(api::error_answer(host, request, code)),
            _ => None,
        },
        Effect::CosError { status, code } => match route {
            Route::Cos(_) => Some(cos::error_answer(request, *status, code)),
            _ => None,
        },
        _ => None,
    })
}

impl Shared {
    /// Waits until every hold of `faults` is released, before the processing or after it as `call` says;
    /// false if the client hung up first.
    async fn hold(
        &self,
        faults: &[Fault],
        call: &HeldCall,
        hang_up: &mut oneshot::Receiver<()>,
    ) -> bool {
        for fault in faults {
            let name = match &fault.effect {
                Effect::Hold { name } if !call.processed => name.clone(),
                Effect::HoldAfter { name } if call.processed => name.clone(),
                _ => continue,
            };
            let call = HeldCall {
                name,
                ..call.clone()
            };
            let is_single = fault.occurrence.is_some();
            if !self.holds.wait(call, is_single, hang_up).await {
                return false;
            }
        }
        true
    }

    /// The server's time for one call.
    fn time(&self, effects: &[Effect]) -> DateTime<Utc> {
        let offset = TimeDelta::try_seconds(effects::clock_offset(effects)).unwrap_or_default();
        let now = lock(&self.world).server_time();
        now.checked_add_signed(offset).unwrap_or(now)
    }

    /// Lets the world answer. Blocks: a checksum may read a whole disk.
    fn answer(&self, route: &Route, request: &Received, effects: &[Effect]) -> Answer {
        let quirks = effects::quirks(effects);
        let now = self.time(effects);
        let answer = {
            let mut world = self.world();
            let recorded = world.keys.recorded.get(&route.operation(request));
            if let Some(body) = recorded {
                return Answer::new(200, "application/json", body.clone());
            }
            match route {
                Route::Api(host) => {
                    let mut rates = lock(&self.rates);
                    let is_expired = quirks.has_expired_tokens;
                    api::answer(&mut world, &mut rates, host, request, now, is_expired)
                }
                Route::Cos(target) => cos::answer(&mut world, target, request, now, quirks),
                Route::Metadata => metadata::answer(&mut world, request, now),
                Route::Unknown => Answer::new(404, "text/plain", "No such host here.\n"),
            }
        };
        add_checksum(answer)
    }
}

/// Adds the CRC-64 that the answer shall tell, of the whole object also where a range is answered.
fn add_checksum(mut answer: Answer) -> Answer {
    let Some(disk) = answer.checksum_of.take() else {
        return answer;
    };
    match disk.crc64() {
        Ok(crc64) => answer.with_header("x-cos-hash-crc64ecma", crc64.to_string()),
        Err(_) => effects::html(500),
    }
}

/// Puts an answer into HTTP's form.
fn respond(answer: Answer, pace: Pace, is_head: bool) -> Response<Body> {
    let length = answer
        .announced_length
        .unwrap_or_else(|| answer.content.length());
    let content = if is_head {
        Content::Bytes(Bytes::new())
    } else {
        answer.content
    };
    let mut response = Response::new(body::body(content, pace));
    *response.status_mut() = http::StatusCode::from_u16(answer.status)
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        // Faults may name headers that HTTP cannot carry; those are left out.
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    if answer.tells_length && !matches!(answer.status, 204 | 304) {
        let length = HeaderValue::from(length);
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, length);
    }
    response
}
