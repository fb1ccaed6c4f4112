//! Many ranges of one object at once, each with its own retries.
//!
//! How many there are at once is [`Pace`]'s decision. A range that breaks off goes on where it stopped.
//! What happens to the bytes is the [`Sink`]'s business.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::DownloadError;
use super::pace::{Observation, Pace};
use crate::clock::Stopwatch;
use crate::cloud::cos::{CosClient, CosError, ObjectMeta};
use crate::cloud::{Again, Attempt, Signing};
use crate::crc64::Crc64;
use crate::event::{EventKind, Events};
use crate::model::{BucketName, Region};

/// How often the number of connections is thought about.
const THINK_EVERY: Duration = Duration::from_millis(250);
/// Failures in a row, without a byte between them, after which a range is given up.
const FAILURES: u32 = 8;
/// A network that is away is waited for longer: a router that starts anew must not end a job of hours.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// Pauses after failures: doubling from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Which object, from where.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) cos: CosClient,
    pub(super) bucket: BucketName,
    pub(super) region: Region,
    pub(super) object: ObjectMeta,
}

/// Takes in what arrives.
pub(super) trait Sink: Send + Sync {
    /// Takes bytes that stand at `position` of the object.
    fn write(&self, bytes: &Bytes, position: u64) -> Result<(), DownloadError>;
    /// Notes that a range has arrived whole.
    fn finish(&self, range: Range<u64>, crc: Crc64) -> Result<(), DownloadError>;
}

/// How a transfer goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) part_size_bytes: u64,
    pub(super) connections: usize,
    pub(super) bytes_per_second: Option<u64>,
}

/// A range that is being fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    start: u64,
    end: u64,
    /// How far it has arrived.
    position: u64,
    /// The checksum of what has arrived.
    pub(super) crc: Crc64,
}

impl Part {
    pub(super) fn new(range: Range<u64>) -> Self {
        Self {
            start: range.start,
            end: range.end,
            position: range.start,
            crc: Crc64::default(),
        }
    }
}

/// Fetches single ranges, with as many attempts as it takes while any of them brings something.
#[derive(Debug)]
pub(super) struct Fetcher {
    source: Source,
    events: Events,
    limiter: Option<Limiter>,
    received: AtomicU64,
    /// How often COS has asked to slow down.
    throttled: AtomicU64,
}

/// Many ranges over a changing number of connections.
#[derive(Debug)]
pub(super) struct Transfer<S> {
    fetcher: Fetcher,
    sink: Arc<S>,
    queue: Mutex<VecDeque<Range<u64>>>,
    part_size_bytes: u64,
    ceiling: usize,
    connections: watch::Sender<usize>,
}

impl<S: Sink + 'static> Transfer<S> {
    pub(super) fn new(
        source: Source,
        sink: Arc<S>,
        events: Events,
        missing: Vec<Range<u64>>,
        limits: Limits,
    ) -> Arc<Self> {
        let ceiling = limits.connections.max(1);
        Arc::new(Self {
            fetcher: Fetcher::new(source, events, limits.bytes_per_second),
            sink,
            queue: Mutex::new(missing.into()),
            part_size_bytes: limits.part_size_bytes.max(1),
            ceiling,
            connections: watch::Sender::new(Pace::new(ceiling).connections()),
        })
    }

    /// How many bytes have come over the network.
    pub(super) fn received(&self) -> u64 {
        self.fetcher.received()
    }

    /// Fetches everything in the queue, until `stop` says so or one range cannot be fetched, which makes
    /// the others useless. What has arrived of the parts that were on their way is noted in any case.
    pub(super) async fn run(
        self: Arc<Self>,
        stop: &CancellationToken,
    ) -> Result<(), DownloadError> {
        let stop = stop.child_token();
        let mut workers = JoinSet::new();
        for number in 0..self.ceiling {
            let (transfer, stop) = (Arc::clone(&self), stop.clone());
            workers.spawn(async move { transfer.work(number, &stop).await });
        }
        let pace = self.keep_pace();
        tokio::pin!(pace);
        let mut ended = Ok(());
        // Every worker is waited for: none may still be writing when the file is opened again.
        loop {
            tokio::select! {
                () = &mut pace => {}
                done = workers.join_next() => match done {
                    None => return ended,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => {
                        stop.cancel();
                        // The first one is the cause; the others were stopped.
                        ended = ended.and(Err(error));
                    }
                    Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        }
    }

    /// Fetches parts as connection `number` until none is left.
    async fn work(&self, number: usize, stop: &CancellationToken) -> Result<(), DownloadError> {
        let mut connections = self.connections.subscribe();
        loop {
            while *connections.borrow_and_update() <= number {
                if self.is_done() {
                    return Ok(());
                }
                // The sender lives as long as this transfer.
                let changed = tokio::time::timeout(THINK_EVERY, connections.changed());
                tokio::select! {
                    () = stop.cancelled() => return Err(DownloadError::Interrupted),
                    _ = changed => {}
                }
            }
            let Some(range) = self.next_part() else {
                return Ok(());
            };
            let mut part = Part::new(range);
            let done = tokio::select! {
                () = stop.cancelled() => Err(DownloadError::Interrupted),
                done = self.fetcher.fetch(self.sink.as_ref(), &mut part) => done,
            };
            if part.start < part.position {
                self.sink.finish(part.start..part.position, part.crc)?;
            }
            done?;
        }
    }

    fn is_done(&self) -> bool {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Cuts the next part from the queue, at a multiple of the part size so that parts of another run
    /// and blocks of the file system fall together.
    fn next_part(&self) -> Option<Range<u64>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.front_mut()?;
        let border = (first.start / self.part_size_bytes + 1).saturating_mul(self.part_size_bytes);
        let part = first.start..border.min(first.end);
        first.start = part.end;
        if first.is_empty() {
            queue.pop_front();
        }
        Some(part)
    }

    /// Changes the number of connections by what is seen, as [`Pace`] says.
    async fn keep_pace(&self) {
        let mut pace = Pace::new(self.ceiling);
        let (mut bytes, mut refusals) = (self.received(), 0);
        let stopwatch = Stopwatch::start();
        let mut last = stopwatch.elapsed();
        loop {
            tokio::time::sleep(THINK_EVERY).await;
            let (now, received) = (stopwatch.elapsed(), self.received());
            let throttled = self.fetcher.throttled.load(Ordering::Relaxed);
            pace = pace.after(&Observation {
                elapsed: now - last,
                bytes: received - bytes,
                is_throttled: throttled > refusals,
            });
            (last, bytes, refusals) = (now, received, throttled);
            self.connections.send_replace(pace.connections());
        }
    }
}

impl Fetcher {
    pub(super) fn new(source: Source, events: Events, bytes_per_second: Option<u64>) -> Self {
        Self {
            source,
            events,
            limiter: bytes_per_second.map(Limiter::new),
            received: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
        }
    }

    /// How many bytes have come over the network.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Fetches the rest of `part` into `sink`. It may be dropped at any time: `part` says how far it came.
    pub(super) async fn fetch(
        &self,
        sink: &impl Sink,
        part: &mut Part,
    ) -> Result<(), DownloadError> {
        let mut failures = 0;
        let mut failing_since = None;
        let (mut has_signed_anew, mut has_renewed) = (false, false);
        let mut refusing_clock = None;
        while part.position < part.end {
            let before = part.position;
            let signing = self.source.cos.signing(refusing_clock.take()).await;
            let error = match self.attempt(sink, part, &signing).await? {
                Ok(()) => continue,
                Err(error) => error,
            };
            if part.position > before {
                (failures, has_signed_anew, has_renewed) = (0, false, false);
                failing_since = None;
            }
            failures += 1;
            let failing = failing_since.get_or_insert_with(Stopwatch::start);
            let delay = match error.again() {
                Again::SignedAnew(time) if !has_signed_anew => {
                    has_signed_anew = true;
                    refusing_clock = Some(time);
                    Duration::ZERO
                }
                Again::WithNewCredentials
                    if !has_renewed && self.source.cos.renew_credentials(&signing).await =>
                {
                    has_renewed = true;
                    Duration::ZERO
                }
                Again::Later
                    if failures < FAILURES
                        || (error.is_silence() && failing.elapsed() < SILENCE) =>
                {
                    pause(failures)
                }
                Again::Throttled(asked) if failures < FAILURES => {
                    self.throttled.fetch_add(1, Ordering::Relaxed);
                    asked.map_or_else(|| pause(failures), |asked| asked.min(LONGEST_PAUSE))
                }
                _ => return Err(DownloadError::cos(&self.source.object.key)(error)),
            };
            self.events.emit(EventKind::Retrying {
                call: "GET Object".to_owned(),
                attempt: failures,
                delay,
                reason: crate::error::one_line(&error),
                request_id: Attempt::request_id(&error).map(str::to_owned),
            });
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// One attempt from where `part` has come; the outer error ends the transfer, the inner one this attempt.
    async fn attempt(
        &self,
        sink: &impl Sink,
        part: &mut Part,
        signing: &Signing,
    ) -> Result<Result<(), CosError>, DownloadError> {
        let Source {
            cos,
            bucket,
            region,
            object,
        } = &self.source;
        let missing = part.position..part.end;
        let opening = cos.open_range(bucket, region, object, &missing, signing);
        let mut body = match opening.await {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let chunk = match body.next_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            // While the bytes are in the cache: checksum first, then the disk.
            let crc = part.crc.extend(&chunk);
            sink.write(&chunk, part.position)?;
            part.crc = crc;
            part.position += chunk.len() as u64;
            self.received
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if let Some(limiter) = &self.limiter {
                limiter.take(chunk.len() as u64).await;
            }
        }
    }
}

/// The pause after failure number `failure`, counted from 1.
fn pause(failure: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failure.saturating_sub(1)));
    longest
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + 0.5 * fastrand::f64())
}

/// Lets so many bytes through a second, over all connections.
#[derive(Debug)]
struct Limiter {
    bytes_per_second: f64,
    stopwatch: Stopwatch,
    /// When the bytes that were taken so far will have been paid for.
    paid: Mutex<Duration>,
}

impl Limiter {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1) as f64,
            stopwatch: Stopwatch::start(),
            paid: Mutex::new(Duration::ZERO),
        }
    }

    async fn take(&self, bytes: u64) {
        let now = self.stopwatch.elapsed();
        let wait = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid =
                (*paid).max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            paid.saturating_sub(now)
        };
        tokio::time::sleep(wait).await;
    }
}
