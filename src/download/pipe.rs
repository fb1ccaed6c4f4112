//! The way through a pipe: parallel ranges, written in order, with bounded memory.

use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::error::DownloadError;
use super::reading;
use super::transfer::{Fetcher, Part, Sink, Source};
use super::{DownloadOptions, Downloaded, Downloader, expected_checksum};
use crate::clock::Stopwatch;
use crate::crc64::Crc64;
use crate::event::EventKind;

/// The largest part in memory; with eight connections a pipe takes 32 MiB.
const LARGEST_PART_BYTES: u64 = 4 * 1024 * 1024;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn fetch(
    downloader: &Downloader,
    source: Source,
    mut output: impl Write + Send + 'static,
    options: &DownloadOptions,
) -> Result<Downloaded, DownloadError> {
    let object = source.object.clone();
    let size_bytes = object.size_bytes;
    let part_size = options.part_size_bytes.clamp(1, LARGEST_PART_BYTES);
    let events = &downloader.events;
    let fetcher = Arc::new(Fetcher::new(
        source,
        events.clone(),
        options.bytes_per_second,
    ));
    let parts = (0..size_bytes.div_ceil(part_size))
        .map(|number| number * part_size..((number + 1) * part_size).min(size_bytes));
    let fetching = parts.map(|range| {
        let fetcher = Arc::clone(&fetcher);
        // A task of its own, so that the parts arrive side by side.
        let part = AbortOnDrop(tokio::spawn(async move {
            let sink = Memory::new(&range);
            let mut part = Part::new(range);
            fetcher.fetch(&sink, &mut part).await?;
            Ok::<_, DownloadError>((sink.into_bytes(), part.crc))
        }));
        async move { part.join().await }
    });
    let mut parts = futures_util::stream::iter(fetching).buffered(options.connections.max(1));
    let stopwatch = Stopwatch::start();
    let (mut written, mut told) = (0, Duration::ZERO);
    let mut crc = Crc64::default();
    let mut sha256 = options.sha256.then(<sha2::Sha256 as sha2::Digest>::new);
    loop {
        let part = tokio::select! {
            () = downloader.cancel.cancelled() => return Err(DownloadError::PipeInterrupted),
            part = parts.next() => part,
        };
        let Some(part) = part else { break };
        let (bytes, part_crc) = part?;
        let length = bytes.len() as u64;
        if let Some(digest) = &mut sha256 {
            sha2::Digest::update(digest, &bytes);
        }
        // A reader that takes nothing must not hold a signal up; what is being written is left to it.
        output = tokio::select! {
            () = downloader.cancel.cancelled() => return Err(DownloadError::PipeInterrupted),
            written = write(output, bytes) => written?,
        };
        crc = crc.followed_by(part_crc, length);
        written += length;
        let now = stopwatch.elapsed();
        if now - told >= TELL_EVERY {
            told = now;
            let speed = written as f64 / now.as_secs_f64();
            events.emit(EventKind::DownloadProgress {
                key: object.key.clone(),
                elapsed: now,
                bytes_done: written,
                bytes_total: size_bytes,
                bytes_per_second: speed as u64,
                remaining: Some(Duration::from_secs_f64(
                    (size_bytes - written) as f64 / speed.max(1.0),
                )),
            });
        }
    }
    let expected = expected_checksum(&object);
    if let Some(expected) = expected.filter(|expected| *expected != crc) {
        return Err(DownloadError::Mismatch {
            key: object.key,
            received: crc,
            expected,
        });
    }
    Ok(Downloaded {
        object,
        path: None,
        crc64: Some(crc),
        is_verified: expected.is_some(),
        sha256: sha256.map(|digest| hex::encode(sha2::Digest::finalize(digest))),
        fetched_bytes: fetcher.received(),
    })
}

/// Writes `bytes` where waiting for a slow reader holds nothing else up.
async fn write<W: Write + Send + 'static>(
    mut output: W,
    bytes: Vec<u8>,
) -> Result<W, DownloadError> {
    let written = reading::off_thread(move || {
        output
            .write_all(&bytes)
            .and_then(|()| output.flush())
            .map(|()| output)
    });
    written
        .await
        .map_err(|source| DownloadError::Pipe { source })
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    async fn join(mut self) -> T {
        let done = (&mut self.0).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One part in memory.
struct Memory {
    start: u64,
    bytes: Mutex<Vec<u8>>,
}

impl Memory {
    fn new(range: &Range<u64>) -> Self {
        let capacity = usize::try_from(range.end - range.start).unwrap_or_default();
        Self {
            start: range.start,
            bytes: Mutex::new(Vec::with_capacity(capacity)),
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        self.bytes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Memory {
    fn write(&self, bytes: &Bytes, position: u64) -> Result<(), DownloadError> {
        let mut known = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert_eq!(
            position,
            self.start + known.len() as u64,
            "a range arrives in order"
        );
        known.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&self, _range: Range<u64>, _crc: Crc64) -> Result<(), DownloadError> {
        Ok(())
    }
}
