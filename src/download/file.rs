//! The way to a file: what is there already, what is missing, and what to do when it is wrong.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::error::DownloadError;
use super::ledger::{self, Arrived, Found, Ledger, Stretch};
use super::reading::{self, Digests, Wanted};
use super::target::{self, Over, Standing, Target};
use super::transfer::{Sink, Source, Transfer};
use super::{DownloadOptions, Downloaded, Downloader, expected_checksum};
use crate::clock::Stopwatch;
use crate::cloud::cos::ObjectMeta;
use crate::crc64::Crc64;
use crate::event::{EventKind, Events};

/// How often what was written is put on the disk itself and promised by the ledger.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// A run stops, resumably, before the disk has less room than this: other programs need some.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) async fn fetch(
    downloader: &Downloader,
    source: Source,
    path: &Path,
    options: &DownloadOptions,
) -> Result<Downloaded, DownloadError> {
    let object = source.object.clone();
    let (partial, ledger_path) = target::partial_names(path);
    let is_device = match target::standing(path)? {
        Standing::Nothing => false,
        Standing::BrokenLink if options.force => false,
        Standing::BrokenLink => {
            return Err(DownloadError::InTheWay {
                path: path.to_owned(),
                difference: "it is a link that leads nowhere".to_owned(),
            });
        }
        Standing::BlockDevice if options.force => true,
        // A run that was allowed to overwrite it is gone on with.
        Standing::BlockDevice => match ledger::read(&ledger_path, &object) {
            Ok(Found::Arrived { .. }) => true,
            Ok(Found::LaterVersion) => {
                return Err(DownloadError::LaterLedger { path: ledger_path });
            }
            _ => {
                let path = path.to_owned();
                return Err(DownloadError::OverDevice { path });
            }
        },
        Standing::Other => {
            let path = path.to_owned();
            return Err(DownloadError::NoFile { path });
        }
        Standing::File { size_bytes } => {
            match compare(downloader, path, size_bytes, &object, options).await? {
                There::Same(seen) => {
                    // A run that was killed at its very end left it.
                    if !partial.exists() {
                        ledger::remove(&ledger_path);
                    }
                    return Ok(already_there(object, path, seen));
                }
                There::Other(_) if options.force => false,
                There::Other(difference) => {
                    return Err(DownloadError::InTheWay {
                        path: path.to_owned(),
                        difference,
                    });
                }
            }
        }
    };
    let target = if is_device {
        Target::open_device(path, object.size_bytes)?
    } else {
        Target::open_partial(&partial)?
    };
    let job = Job {
        downloader,
        source,
        options,
        path,
        ledger_path,
        is_device,
        target: Arc::new(target),
    };
    let taken_up = job.take_up().await?;
    job.look_at_room(&taken_up.arrived);
    let done = job.run(taken_up).await;
    if matches!(&done, Err(error) if error.is_change()) {
        job.discard();
    }
    done
}

/// What stands in the place of an object.
enum There {
    /// The object itself, or what is held for it.
    Same(Digests),
    /// Another file; what tells them apart.
    Other(String),
}

/// Compares the file at `path` with the object.
async fn compare(
    downloader: &Downloader,
    path: &Path,
    size_bytes: u64,
    object: &ObjectMeta,
    options: &DownloadOptions,
) -> Result<There, DownloadError> {
    if size_bytes != object.size_bytes {
        return Ok(There::Other(format!(
            "it has {size_bytes} bytes, the object {}",
            object.size_bytes
        )));
    }
    let Some(expected) = expected_checksum(object) else {
        let message = "COS names no checksum to compare it with";
        return Ok(There::Other(message.to_owned()));
    };
    reading::tell(&downloader.events, size_bytes, || {
        format!("comparing `{}` with the object", path.display())
    });
    let wanted = Wanted::sha256_if(options.sha256);
    let (path, cancel) = (path.to_owned(), downloader.cancel.clone());
    let seen = reading::off_thread(move || target::digest_of(&path, wanted, &cancel)).await?;
    if seen.crc64 == expected && seen.size_bytes == object.size_bytes {
        return Ok(There::Same(seen));
    }
    Ok(There::Other(format!(
        "its CRC-64 is {}, the object's {expected}",
        seen.crc64
    )))
}

fn already_there(object: ObjectMeta, path: &Path, seen: Digests) -> Downloaded {
    Downloaded {
        crc64: Some(seen.crc64),
        object,
        path: Some(path.to_owned()),
        is_verified: true,
        sha256: seen.sha256,
        fetched_bytes: 0,
    }
}

/// See [`super::bytes_to_come`].
pub(super) fn bytes_to_come(object: &ObjectMeta, path: &Path, options: &DownloadOptions) -> u64 {
    let all = object.size_bytes;
    let (partial, ledger_path) = target::partial_names(path);
    if let Ok(Standing::File { size_bytes }) = target::standing(path)
        && size_bytes == all
        && !options.force
    {
        return 0;
    }
    let is_whole = partial
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == all);
    match ledger::read(&ledger_path, object) {
        Ok(Found::Arrived {
            synced, written, ..
        }) if is_whole => {
            let unsynced: u64 = written.iter().map(Stretch::length).sum();
            all.saturating_sub(synced.bytes()).saturating_sub(unsynced)
        }
        _ => all,
    }
}

/// One object on its way to one file.
struct Job<'a> {
    downloader: &'a Downloader,
    source: Source,
    options: &'a DownloadOptions,
    path: &'a Path,
    ledger_path: PathBuf,
    is_device: bool,
    target: Arc<Target>,
}

/// What an earlier run left and can be trusted.
struct TakenUp {
    arrived: Arrived,
    /// The last parts of it.
    recent: Vec<Stretch>,
    /// What the missing parts go over.
    over: Over,
}

impl TakenUp {
    fn nothing(over: Over) -> Self {
        Self {
            arrived: Arrived::default(),
            recent: Vec::new(),
            over,
        }
    }
}

impl Job<'_> {
    fn events(&self) -> &Events {
        &self.downloader.events
    }

    fn size_bytes(&self) -> u64 {
        self.source.object.size_bytes
    }

    /// Looks at what an earlier run left.
    async fn take_up(&self) -> Result<TakenUp, DownloadError> {
        let failed = || DownloadError::disk("read", &self.ledger_path);
        let found = ledger::read(&self.ledger_path, &self.source.object).map_err(failed())?;
        let name = self.path.display();
        let (synced, recent, written) = match found {
            Found::LaterVersion if !self.options.force => {
                return Err(DownloadError::LaterLedger {
                    path: self.ledger_path.clone(),
                });
            }
            Found::Arrived {
                synced,
                recent,
                written,
            } if self.is_device || self.target.size_bytes()? == self.size_bytes() => {
                (synced, recent, written)
            }
            Found::OtherObject => {
                self.events().warn(format!(
                    "what an earlier run left of `{name}` is of another object; starting anew"
                ));
                return self.start_anew();
            }
            Found::Nothing(Some(problem)) => {
                self.events().warn(format!(
                    "the ledger of what an earlier run left of `{name}` is of no use ({problem}); starting anew"
                ));
                return self.start_anew();
            }
            // Nobody knows whose it is.
            Found::Nothing(None)
                if !self.is_device && !self.options.force && self.target.holds_something()? =>
            {
                return Err(DownloadError::InTheWay {
                    path: self.target.path().to_owned(),
                    difference: "no ledger beside it says that an earlier run left it".to_owned(),
                });
            }
            Found::Nothing(None) | Found::LaterVersion | Found::Arrived { .. } => {
                return self.start_anew();
            }
        };
        let to_read = recent.iter().chain(&written).map(Stretch::length).sum();
        reading::tell(self.events(), to_read, || {
            format!("looking at what an earlier run left of `{name}`")
        });
        // The last of what was synced stands for the rest: a disk that lies is found out here.
        for part in &recent {
            if self.checksum(part).await? != part.crc {
                self.events().warn(format!(
                    "what an earlier run left of `{name}` has changed; starting anew"
                ));
                return self.start_anew();
            }
        }
        let (mut arrived, mut recent) = (synced, recent);
        let mut lost = 0;
        // What was written and perhaps not synced is believed when it is there.
        for part in written {
            if self.checksum(&part).await? == part.crc {
                arrived.add(part);
                recent.push(part);
            } else {
                lost += part.length();
            }
        }
        let message = match lost {
            0 => format!(
                "going on with `{name}`: {} of {} bytes are there",
                arrived.bytes(),
                self.size_bytes()
            ),
            lost => format!(
                "going on with `{name}`: {} of {} bytes are there, {lost} were lost and are fetched again",
                arrived.bytes(),
                self.size_bytes()
            ),
        };
        self.events().emit(EventKind::Settled { message });
        Ok(TakenUp {
            arrived,
            recent,
            over: Over::Unknown,
        })
    }

    /// The checksum of what stands in the file where `stretch` should.
    async fn checksum(&self, stretch: &Stretch) -> Result<Crc64, DownloadError> {
        let range = stretch.start..stretch.end;
        Ok(self.digest(range, Wanted::Crc64).await?.crc64)
    }

    /// Reads what stands in `range` of the file.
    async fn digest(&self, range: Range<u64>, wanted: Wanted) -> Result<Digests, DownloadError> {
        let (target, cancel) = (Arc::clone(&self.target), self.downloader.cancel.clone());
        reading::off_thread(move || target.digest(&range, wanted, &cancel)).await
    }

    fn start_anew(&self) -> Result<TakenUp, DownloadError> {
        if !self.is_device {
            self.target.clear(self.size_bytes()).inspect_err(|_| {
                // Half of the room is of no use to anybody.
                drop(std::fs::remove_file(self.target.path()));
            })?;
        }
        Ok(TakenUp::nothing(Over::Hole))
    }

    /// Looks whether what is missing has room. With holes it may need much less than its size, so too
    /// little room is only worth a warning. A file system without holes has set the room aside when the
    /// file got its size, or refused that.
    fn look_at_room(&self, arrived: &Arrived) {
        let Some(free) = self.watched_room() else {
            return;
        };
        let needed = self.size_bytes() - arrived.bytes();
        if free < needed.saturating_add(RESERVE_BYTES) {
            self.events().warn(format!(
                "`{}` has {free} bytes free, the object {needed} to come, and the last {RESERVE_BYTES} stay \
                 free; zeros take no room, and the run stops resumably when the room ends",
                self.folder().display()
            ));
        }
    }

    /// The room that is left, where more of it will be needed and the system tells it.
    fn watched_room(&self) -> Option<u64> {
        let needs_more = !self.is_device && !self.target.has_all_its_room(self.size_bytes());
        needs_more.then(|| target::free_bytes(self.folder()))?
    }

    fn folder(&self) -> &Path {
        target::folder_of(self.path)
    }

    async fn run(&self, taken_up: TakenUp) -> Result<Downloaded, DownloadError> {
        let goes_on = taken_up.arrived.bytes() > 0;
        let (sink, mut fetched_bytes) = self.bring(taken_up).await?;
        let folded = sink.ledger().arrived().whole(self.size_bytes());
        let expected = expected_checksum(&self.source.object);
        let mut sha256 = None;
        let seen = if goes_on {
            // What the ledger says of an earlier run's parts may not be what is on the disk any more.
            let seen = self.read_back().await?;
            sha256 = seen.sha256;
            Some(seen.crc64)
        } else {
            folded
        };
        let mut crc = seen;
        if let (Some(seen), Some(right)) = (seen, expected.or(folded))
            && seen != right
        {
            let (repaired, more) = self.repair(seen, expected).await?;
            crc = Some(repaired);
            sha256 = None;
            fetched_bytes += more;
        }
        if self.options.sha256 && sha256.is_none() {
            sha256 = self.sha256().await?;
        }
        if self.is_device {
            let failed = DownloadError::disk("write", self.path);
            self.target.sync().map_err(failed)?;
        } else {
            let (target, path) = (Arc::clone(&self.target), self.path.to_owned());
            let replaces = self.options.force;
            reading::off_thread(move || target.finish(&path, replaces)).await?;
        }
        // The file is there; a ledger that stays is taken away by the next run.
        ledger::remove(&self.ledger_path);
        Ok(Downloaded {
            object: self.source.object.clone(),
            path: Some(self.path.to_owned()),
            crc64: crc,
            is_verified: expected.is_some(),
            sha256,
            fetched_bytes,
        })
    }

    /// The checksums of the whole file, as it is read from the disk.
    async fn read_back(&self) -> Result<Digests, DownloadError> {
        let size_bytes = self.size_bytes();
        reading::tell(self.events(), size_bytes, || {
            let name = self.path.display();
            format!("reading `{name}` back, as an earlier run fetched a part of it")
        });
        let wanted = Wanted::sha256_if(self.options.sha256);
        self.digest(0..size_bytes, wanted).await
    }

    /// Fetches what has not arrived over what stands there, and keeps a ledger of it; answers with how
    /// much came.
    async fn bring(&self, taken_up: TakenUp) -> Result<(Arc<FileSink>, u64), DownloadError> {
        let TakenUp {
            arrived,
            recent,
            over,
        } = taken_up;
        let missing = arrived.missing(self.size_bytes());
        let failed = DownloadError::disk("write", &self.ledger_path);
        let ledger = Ledger::begin(&self.ledger_path, &self.source.object, arrived, recent)
            .map_err(failed)?;
        let sink = Arc::new(FileSink {
            target: Arc::clone(&self.target),
            ledger: Mutex::new(ledger),
            ledger_path: self.ledger_path.clone(),
            over,
            replaced_bytes: AtomicU64::new(0),
            promising: Mutex::default(),
        });
        let transfer = Transfer::new(
            self.source.clone(),
            Arc::clone(&sink),
            self.events().clone(),
            missing,
            self.options.limits(),
        );
        let stop = self.downloader.cancel.child_token();
        let running = Arc::clone(&transfer).run(&stop);
        tokio::pin!(running);
        let there = sink.ledger().arrived().bytes();
        let ended = tokio::select! {
            ended = &mut running => ended,
            error = self.keep_house(&sink, there, || transfer.received()) => {
                stop.cancel();
                drop(running.await);
                Err(error)
            }
        };
        // Whatever the end is, what has arrived is promised.
        let promised = sink.promise().await;
        ended?;
        promised?;
        Ok((sink, transfer.received()))
    }

    /// Syncs, tells progress beyond what was `there` at the start, and watches the room until the transfer ends; ends itself only when the
    /// room does.
    async fn keep_house(
        &self,
        sink: &Arc<FileSink>,
        there: u64,
        received: impl Fn() -> u64,
    ) -> DownloadError {
        let stopwatch = Stopwatch::start();
        let mut synced = Duration::ZERO;
        let (mut before, mut last) = (0, Duration::ZERO);
        let mut speed = 0.0;
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let now = stopwatch.elapsed();
            let bytes = received();
            let current = (bytes - before) as f64 / (now - last).as_secs_f64().max(0.001);
            // A moving average that follows a change within some seconds.
            speed = if last.is_zero() {
                current
            } else {
                0.8 * speed + 0.2 * current
            };
            (before, last) = (bytes, now);
            let done = there + bytes;
            self.tell(now, done, speed);
            if let Some(free) = self.watched_room().filter(|free| *free < RESERVE_BYTES) {
                let needed = self.size_bytes().saturating_sub(done);
                return DownloadError::NoRoom {
                    folder: self.folder().to_owned(),
                    needed,
                    free,
                };
            }
            if now - synced >= SYNC_EVERY {
                if let Err(error) = sink.promise().await {
                    return error;
                }
                synced = stopwatch.elapsed();
            }
        }
    }

    fn tell(&self, elapsed: Duration, done: u64, speed: f64) {
        let left = self.size_bytes().saturating_sub(done) as f64 / speed.max(1.0);
        self.events().emit(EventKind::DownloadProgress {
            key: self.source.object.key.clone(),
            elapsed,
            bytes_done: done,
            bytes_total: self.size_bytes(),
            bytes_per_second: speed as u64,
            remaining: (speed >= 1.0).then(|| Duration::from_secs_f64(left.min(1e9))),
        });
    }

    /// Fetches every part once more, and replaces those that differ from what stands in the file. The
    /// ledger begins anew, as what it promised is not true; where this is interrupted, the next run goes
    /// on behind the parts that were compared. Where the bucket names no checksum, what comes the second
    /// time is believed.
    async fn repair(
        &self,
        seen: Crc64,
        expected: Option<Crc64>,
    ) -> Result<(Crc64, u64), DownloadError> {
        let key = &self.source.object.key;
        let difference = match expected {
            Some(expected) => {
                format!("arrived with the CRC-64 {seen}, the bucket holds {expected}")
            }
            None => "is not on the disk as it arrived".to_owned(),
        };
        self.events().warn(format!(
            "`{key}` {difference}; every part is fetched once more"
        ));
        let (sink, fetched_bytes) = self.bring(TakenUp::nothing(Over::Compared)).await?;
        let received = sink.ledger().arrived().whole(self.size_bytes());
        let received = received.unwrap_or_default();
        if let Some(expected) = expected
            && received != expected
        {
            self.discard();
            return Err(DownloadError::Mismatch {
                key: key.clone(),
                received,
                expected,
            });
        }
        self.events().warn(format!(
            "`{key}` is right now; {} bytes were replaced",
            sink.replaced_bytes.load(Ordering::Relaxed)
        ));
        Ok((received, fetched_bytes))
    }

    async fn sha256(&self) -> Result<Option<String>, DownloadError> {
        reading::tell(self.events(), self.size_bytes(), || {
            format!("computing the SHA-256 of `{}`", self.path.display())
        });
        Ok(self
            .digest(0..self.size_bytes(), Wanted::Sha256)
            .await?
            .sha256)
    }

    /// Throws away what is wrong or of another object.
    fn discard(&self) {
        ledger::remove(&self.ledger_path);
        if !self.is_device {
            drop(std::fs::remove_file(self.target.path()));
        }
    }
}

/// Writes parts into the file and notes them in the ledger.
#[derive(Debug)]
struct FileSink {
    target: Arc<Target>,
    ledger: Mutex<Ledger>,
    ledger_path: PathBuf,
    over: Over,
    /// How much of what stood there was found to be wrong, where that is compared.
    replaced_bytes: AtomicU64,
    /// Held from a mark to its promise: one that was begun when the transfer ended must be over before
    /// the last one, or before another ledger takes the place of this one.
    promising: Mutex<()>,
}

impl FileSink {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs what has been written so far, and has the ledger promise it.
    async fn promise(self: &Arc<Self>) -> Result<(), DownloadError> {
        let sink = Arc::clone(self);
        reading::off_thread(move || {
            let turn = sink.promising.lock();
            let _turn = turn.unwrap_or_else(PoisonError::into_inner);
            let mark = sink.ledger().mark();
            sink.target
                .sync()
                .map_err(DownloadError::disk("write", sink.target.path()))?;
            let promised = sink.ledger().synced(&mark);
            promised.map_err(DownloadError::disk("write", &sink.ledger_path))
        })
        .await
    }
}

impl Sink for FileSink {
    fn write(&self, bytes: &Bytes, position: u64) -> Result<(), DownloadError> {
        let failed = || DownloadError::disk("write", self.target.path());
        if self.over == Over::Compared {
            if self.target.holds(bytes, position).map_err(failed())? {
                return Ok(());
            }
            self.replaced_bytes
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        let written = self.target.write(bytes, position, self.over);
        written.map_err(failed())
    }

    fn finish(&self, range: Range<u64>, crc: Crc64) -> Result<(), DownloadError> {
        let noted = self.ledger().note(Stretch {
            start: range.start,
            end: range.end,
            crc,
        });
        noted.map_err(DownloadError::disk("write", &self.ledger_path))
    }
}
