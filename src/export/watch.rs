//! Watching an export to its end by looking at the bucket, since nothing else tells.
//!
//! ```text
//!                 ┌────────── look: HEAD each name, list uploads ──────────┐
//!                 ▼                                                        │
//!   (lost) ──► no sign ──an upload or object shows──► waiting ──all there──► complete
//!                 │                                     │  │
//!                 └── window over ──► unknown           │  └── upload gone, five looks ──► failed
//!                                                       └── timeout ──► still running
//! ```
//!
//! [`Watched::step`] is the transition: pure, from one [`Look`]. [`watch`] makes the looks and keeps
//! time. A look that fails or is throttled never ends the watch.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;
use crate::cloud::Cloud;
use crate::cloud::cos::ObjectMeta;
use crate::error::Error;
use crate::event::{EventKind, Events, ProgressSource};
use crate::export::lease::LeaseState;
use crate::export::look::{Head, Look, Observer, Unfinished, UploadsSeen};
use crate::export::progress::{Observed, Step};
use crate::export::record::{Baseline, Record, RecordFile, RecordState, is_since};
use crate::export::tracked::{Overtaken, Tracked};
use crate::model::{ImageFormat, ObjectKey};

/// Looks in a row without upload and object after which an upload that was seen counts as vanished.
/// Listing is eventually consistent, so one look proves nothing.
const VANISHED_AFTER_LOOKS: u32 = 5;
/// Refusals in a row after which a missing right is said. One may be a passing trouble.
const FORBIDDEN_AFTER_LOOKS: u32 = 3;
/// How long a signal waits for what is still to be written to the bucket.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// Looks over which the speed is averaged.
const SPEED_WINDOW_LOOKS: usize = 8;

/// When to look.
#[derive(Clone, Copy, Debug)]
pub struct PollPolicy {
    /// The first look comes this soon after the submit.
    pub first: Duration,
    /// The next interval.
    pub base: Duration,
    /// Each interval is this much longer than the one before.
    pub growth: f64,
    /// No interval is longer.
    pub ceiling: Duration,
}

impl Default for PollPolicy {
    /// Soon, then from one second to one minute: an export takes minutes to hours, a look costs a
    /// handful of billed requests.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(20),
            base: Duration::from_secs(1),
            growth: 1.5,
            ceiling: Duration::from_secs(60),
        }
    }
}

impl PollPolicy {
    /// Equal intervals, as `--poll-interval` sets them.
    #[must_use]
    pub fn fixed(interval: Duration) -> Self {
        Self {
            first: Self::default().first,
            base: interval,
            growth: 1.0,
            ceiling: interval,
        }
    }

    /// Whether the intervals are equal, as a person asked for.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.growth <= 1.0
    }

    /// The most looks that are made within `timeout`, the last one at its end included: none takes time,
    /// and every pause is as short as jitter makes it.
    #[must_use]
    pub fn most_looks(&self, timeout: Duration) -> u64 {
        let mut elapsed = self.first;
        let mut looks: u32 = 1;
        while elapsed < timeout {
            let pause = self.pause(looks, 0.0);
            // From here on they are equal, or grow so slowly that counting them out is too long.
            if pause == self.pause(looks.saturating_add(1), 0.0) || looks > 10_000 {
                let rest = (timeout - elapsed)
                    .as_nanos()
                    .div_ceil(pause.as_nanos().max(1));
                return u64::try_from(rest)
                    .map_or(u64::MAX, |rest| rest.saturating_add(looks.into()));
            }
            elapsed = elapsed.saturating_add(pause);
            looks += 1;
        }
        looks.into()
    }

    /// The pause before look number `look`, counted from 0. `jitter` between 0 and 1 shortens growing
    /// intervals by up to a tenth, so that many runs started together do not stay together.
    #[must_use]
    pub fn pause(&self, look: u32, jitter: f64) -> Duration {
        let Some(step) = look.checked_sub(1) else {
            return self.first;
        };
        if self.is_fixed() {
            return self.base;
        }
        let exponent = i32::try_from(step).unwrap_or(i32::MAX).min(64);
        let grown = self.base.as_secs_f64() * self.growth.powi(exponent);
        let spread = 0.9 + 0.1 * jitter.clamp(0.0, 1.0);
        Duration::from_secs_f64(grown.min(self.ceiling.as_secs_f64()) * spread)
    }
}

/// How far the export is, after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Files are still to come.
    Waiting,
    /// Every file is there.
    Complete,
    /// The export vanished; the text says how.
    Failed(String),
}

/// What a look brought that people want to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The file at this position is complete.
    FileComplete(usize),
    /// Something to know.
    Warning(String),
}

/// What is remembered from look to look.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    files: Vec<WatchedFile>,
    forbidden: BTreeMap<ObjectKey, u32>,
    said_forbidden: bool,
}

#[derive(Clone, Debug, Default)]
struct WatchedFile {
    upload_seen: bool,
    upload_bytes: Option<u64>,
    gone_looks: u32,
}

impl Watched {
    /// Nothing seen yet of `files` files.
    #[must_use]
    pub(crate) fn new(files: usize) -> Self {
        Self {
            files: vec![WatchedFile::default(); files],
            forbidden: BTreeMap::new(),
            said_forbidden: false,
        }
    }

    /// Whether anything of the export has shown: an upload, or a finished file.
    #[must_use]
    pub(crate) fn has_evidence(&self, record: &Record) -> bool {
        self.files.iter().any(|file| file.upload_seen)
            || record.files.iter().any(|file| file.object.is_some())
    }

    /// Takes one look in: notes finished files in `record`, and says how far the export is.
    pub(crate) fn step(&mut self, record: &mut Record, look: &Look) -> (TaskState, Vec<News>) {
        let mut news = Vec::new();
        let mut failure = None;
        let (format, submitted_at) = (
            record.format,
            record.submitted_at.unwrap_or(record.created_at),
        );
        for (position, (file, watched)) in record.files.iter_mut().zip(&mut self.files).enumerate()
        {
            if file.object.is_some() {
                continue;
            }
            if let Some(object) = finished(file, look, submitted_at) {
                news.push(News::FileComplete(position));
                news.extend(size_surprise(file, &object, format).map(News::Warning));
                file.object = Some(object.into());
                continue;
            }
            watched.step(file, look, &record.earlier_uploads);
            if watched.gone_looks >= VANISHED_AFTER_LOOKS {
                failure.get_or_insert_with(|| {
                    format!(
                        "the upload of the {} disk ({}) is gone from the bucket and left no object",
                        file.disk, file.device
                    )
                });
            }
        }
        news.extend(self.note_forbidden(look).map(News::Warning));
        let state = match failure {
            Some(reason) => TaskState::Failed(reason),
            // An export of which no file is known can never be seen to be complete.
            None if !record.files.is_empty() && record.files.iter().all(is_there) => {
                TaskState::Complete
            }
            None => TaskState::Waiting,
        };
        (state, news)
    }

    /// Bytes in the bucket so far, where any file is finished or shows its upload's size.
    fn bytes_done(&self, record: &Record) -> Option<u64> {
        let mut is_known = false;
        let sizes = record.files.iter().zip(&self.files).map(|(file, watched)| {
            let bytes = file
                .object
                .as_ref()
                .map(|object| object.size_bytes)
                .or(watched.upload_bytes);
            is_known |= bytes.is_some();
            bytes.unwrap_or(0)
        });
        let sum = sizes.sum();
        is_known.then_some(sum)
    }

    /// Counts refusals, and words the first that lasts: every key refused is a missing right for the
    /// bucket; one among keys that answer is a missing right for that key, not a missing file.
    fn note_forbidden(&mut self, look: &Look) -> Option<String> {
        for (key, head) in &look.heads {
            match head {
                Head::Forbidden => *self.forbidden.entry(key.clone()).or_default() += 1,
                Head::Failed(_) => {}
                Head::Present(_) | Head::Missing => {
                    self.forbidden.remove(key);
                }
            }
        }
        let lasting = self
            .forbidden
            .iter()
            .find(|(_, count)| **count >= FORBIDDEN_AFTER_LOOKS)?
            .0;
        if std::mem::replace(&mut self.said_forbidden, true) {
            return None;
        }
        let all = look
            .heads
            .values()
            .all(|head| matches!(head, Head::Forbidden));
        let what = if all {
            "every file".to_owned()
        } else {
            format!("`{lasting}`")
        };
        Some(format!(
            "COS does not let these credentials look at {what} (403), so a finished file would not be \
             seen: allow `name/cos:HeadObject` and `name/cos:GetObject` on the bucket; the watch goes on"
        ))
    }
}

impl WatchedFile {
    fn step(&mut self, file: &RecordFile, look: &Look, earlier_uploads: &[String]) {
        let UploadsSeen::Listed {
            unfinished,
            is_truncated,
        } = &look.uploads
        else {
            return;
        };
        let is_ours = |upload: &&Unfinished| {
            file.names.iter().any(|name| name.key == upload.key)
                && !earlier_uploads.contains(&upload.upload_id)
        };
        match unfinished.iter().find(is_ours) {
            Some(upload) => {
                self.upload_seen = true;
                self.upload_bytes = upload.bytes.or(self.upload_bytes);
                self.gone_looks = 0;
            }
            None if self.upload_seen && !is_truncated && is_surely_missing(file, look) => {
                self.gone_looks += 1;
            }
            None => {}
        }
    }
}

fn is_there(file: &RecordFile) -> bool {
    file.object.is_some()
}

/// Whether HEAD answered for every name of `file`, so that the absence of a new object is known.
fn is_surely_missing(file: &RecordFile, look: &Look) -> bool {
    file.names.iter().all(|name| {
        matches!(
            look.heads.get(&name.key),
            Some(Head::Missing | Head::Present(_))
        )
    })
}

/// The object that completes `file`: the first of its names under which something new stands.
fn finished(file: &RecordFile, look: &Look, submitted_at: DateTime<Utc>) -> Option<ObjectMeta> {
    file.names
        .iter()
        .find_map(|name| match look.heads.get(&name.key) {
            Some(Head::Present(object)) if is_new(&name.baseline, object, submitted_at) => {
                Some(object.as_ref().clone())
            }
            _ => None,
        })
}

/// Whether `object` was written after the submit: last week's export is not today's.
pub(super) fn is_new(
    baseline: &Baseline,
    object: &ObjectMeta,
    submitted_at: DateTime<Utc>,
) -> bool {
    match baseline {
        Baseline::Absent => true,
        Baseline::Present {
            etag,
            last_modified,
            version_id,
        } => {
            // What one answer tells and the other does not is no difference.
            object.etag != *etag
                || differ(object.last_modified.as_ref(), last_modified.as_ref())
                || differ(object.version_id.as_ref(), version_id.as_ref())
        }
        Baseline::Unseen => object
            .last_modified
            .is_some_and(|written| is_since(written, submitted_at)),
    }
}

fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// A raw file is as large as its disk, by all that is known; the rule is not documented.
fn size_surprise(file: &RecordFile, object: &ObjectMeta, format: ImageFormat) -> Option<String> {
    let disk_bytes = file.size_gib?.checked_mul(1 << 30)?;
    (format == ImageFormat::Raw && object.size_bytes != disk_bytes).then(|| {
        format!(
            "`{}` has {} bytes, its disk {disk_bytes}",
            object.key, object.size_bytes
        )
    })
}

/// How a watch is made.
#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    /// When to look.
    pub poll: PollPolicy,
    /// How long this run waits.
    pub timeout: Duration,
    /// For an export of which nobody knows whether it was started: how long to look for a sign.
    pub sign_window: Option<Duration>,
    /// Whether the watch ends with the first sign that the export was started.
    pub only_for_a_sign: bool,
    /// Ends the watch; the export goes on.
    pub cancel: CancellationToken,
}

/// How a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// Every file is in the bucket.
    Complete,
    /// The export vanished; the text says how.
    Failed(String),
    /// The export still runs, and our time is over.
    TimedOut,
    /// A signal ended the watch.
    Interrupted,
    /// Nothing of the export showed: nobody knows whether it was started.
    Unknown,
    /// The export was started, which was all that this watch was to find out.
    Started,
    /// Another process, or another machine, has brought the export to a state of its own: the record or its lease
    /// says which.
    Overtaken,
}

/// Watches the tracked record to its end. What is seen is noted as it comes.
///
/// # Errors
/// When the first look shows that COS does not accept the credentials: no later one would.
pub(super) async fn watch(
    cloud: &Cloud,
    events: &Events,
    tracked: &mut Tracked<'_>,
    options: &WatchOptions,
) -> Result<WatchEnd, Error> {
    let has_sign = options.sign_window.is_none();
    let names_nothing = |record: &Record| record.files.iter().all(|file| file.names.is_empty());
    if names_nothing(tracked.record()) {
        events.warn(
            "the names of the files are not known, so nothing can be watched; look into the bucket",
        );
        return Ok(if has_sign {
            WatchEnd::TimedOut
        } else {
            WatchEnd::Unknown
        });
    }
    let mut watching = Watching {
        cloud,
        events,
        options,
        stopwatch: Stopwatch::start(),
        observer: Observer::default(),
        watched: Watched::new(tracked.record().files.len()),
        speed: Speed::default(),
        trouble: Trouble::default(),
        has_sign,
    };
    for look_number in 0.. {
        if let Some(end) = watching.round(look_number, tracked).await? {
            return Ok(end);
        }
    }
    unreachable!("the numbers of looks do not end before the timeout")
}

/// A watch that goes on.
struct Watching<'a> {
    cloud: &'a Cloud,
    events: &'a Events,
    options: &'a WatchOptions,
    stopwatch: Stopwatch,
    observer: Observer,
    watched: Watched,
    speed: Speed,
    trouble: Trouble,
    /// Whether the export is known to have been started.
    has_sign: bool,
}

impl Watching<'_> {
    /// One pause and one look.
    async fn round(
        &mut self,
        look_number: u32,
        tracked: &mut Tracked<'_>,
    ) -> Result<Option<WatchEnd>, Error> {
        let options = self.options;
        let limit = match options.sign_window {
            Some(window) if !self.has_sign => window.min(options.timeout),
            _ => options.timeout,
        };
        let remaining = limit.saturating_sub(self.stopwatch.elapsed());
        let pause = options.poll.pause(look_number, fastrand::f64());
        let pause = pause.min(remaining);
        let is_last = pause == remaining;
        let look = async {
            // The lease of an export that was just accepted is written in the pause.
            tokio::join!(tracked.catch_up(), tokio::time::sleep(pause));
            self.observer.look(self.cloud, tracked.record()).await
        };
        // A look that hangs in retries must not hold the run much beyond its deadline.
        let patience = remaining + Duration::from_secs(10);
        let look = tokio::select! {
            () = options.cancel.cancelled() => {
                // What other machines should know is written if COS is quick.
                let _ = tokio::time::timeout(LAST_WRITE, tracked.catch_up()).await;
                return Ok(Some(WatchEnd::Interrupted));
            }
            look = tokio::time::timeout(patience, look) => look,
        };
        let look = match look {
            Ok(Ok(look)) => Ok(look),
            Ok(Err(error)) if look_number == 0 => return Err(error.into()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("COS did not answer in time".to_owned()),
        };
        self.trouble.note(&look, self.events);
        // Another process may have seen more meanwhile, or have ended it.
        if tracked.refresh() {
            return Ok(Some(WatchEnd::Overtaken));
        }
        let had_sign = self.has_sign;
        if !self.has_sign {
            // The lease of an attempt of unknown outcome may say by now what became of it. If it was abandoned, what the
            // look has shown may be of the next attempt, so this comes between the look and what is made of it.
            match tracked.look_at_lease().await {
                None | Some(LeaseState::Intended) => {}
                Some(LeaseState::Submitted) => self.has_sign = true,
                Some(_) => return Ok(Some(WatchEnd::Overtaken)),
            }
        }
        if let Ok(look) = look
            && let Some(end) = self.take_in(&look, tracked).await
        {
            return Ok(Some(end));
        }
        // The first sign in the last look of the window opens the whole timeout.
        Ok(
            (is_last && self.has_sign == had_sign).then_some(if self.has_sign {
                WatchEnd::TimedOut
            } else {
                WatchEnd::Unknown
            }),
        )
    }

    /// Notes what a look showed, and says whether it ends the watch.
    async fn take_in(&mut self, look: &Look, tracked: &mut Tracked<'_>) -> Option<WatchEnd> {
        let mut view = tracked.record().clone();
        let files = &mut self.watched.files;
        files.resize_with(view.files.len(), WatchedFile::default);
        let (state, news) = self.watched.step(&mut view, look);
        for item in &news {
            announce(self.events, &view, item);
        }
        let had_sign = self.has_sign;
        self.has_sign |= self.watched.has_evidence(&view);
        let step = match &state {
            TaskState::Complete => Some(Step::AllThere {
                seen: observed(&view, &news),
                at: self.cloud.now(),
            }),
            TaskState::Failed(_) => Some(Step::Vanish),
            TaskState::Waiting if self.has_sign && (!had_sign || !news.is_empty()) => {
                Some(Step::Sign(observed(&view, &news)))
            }
            TaskState::Waiting => None,
        };
        if let Some(step) = step
            && let Err(Overtaken) = tracked.step(step).await
        {
            return Some(WatchEnd::Overtaken);
        }
        let record = tracked.record();
        tell_progress(
            self.events,
            record,
            &self.watched,
            &mut self.speed,
            &self.stopwatch,
            self.cloud.now(),
        );
        match state {
            // The cloud's answer may have announced more files meanwhile.
            TaskState::Complete => {
                (record.state() == RecordState::Complete).then_some(WatchEnd::Complete)
            }
            TaskState::Failed(reason) => Some(WatchEnd::Failed(reason)),
            TaskState::Waiting => {
                (self.has_sign && self.options.only_for_a_sign).then_some(WatchEnd::Started)
            }
        }
    }
}

/// What a look has added to `view`.
pub(super) fn observed(view: &Record, news: &[News]) -> Observed {
    let objects = view.files.iter().filter_map(|file| file.object.clone());
    let warnings = news.iter().filter_map(|item| match item {
        News::Warning(text) => Some(text.clone()),
        News::FileComplete(_) => None,
    });
    Observed {
        objects: objects.collect(),
        warnings: warnings.collect(),
    }
}

fn announce(events: &Events, record: &Record, item: &News) {
    match item {
        News::Warning(text) => events.warn(text.clone()),
        News::FileComplete(position) => {
            if let Some(object) = record
                .files
                .get(*position)
                .and_then(|file| file.object.as_ref())
            {
                events.emit(EventKind::FileComplete {
                    key: object.key.clone(),
                    size_bytes: object.size_bytes,
                    crc64: object.crc64.clone(),
                });
            }
        }
    }
}

fn tell_progress(
    events: &Events,
    record: &Record,
    watched: &Watched,
    speed: &mut Speed,
    stopwatch: &Stopwatch,
    now: DateTime<Utc>,
) {
    let bytes_done = watched.bytes_done(record);
    let bytes_total = match record.format {
        ImageFormat::Raw => record.files.iter().try_fold(0_u64, |sum, file| {
            sum.checked_add(file.size_gib?.checked_mul(1 << 30)?)
        }),
        _ => None,
    };
    if let Some(bytes) = bytes_done {
        speed.note(stopwatch.elapsed(), bytes);
    }
    let bytes_per_second = speed.bytes_per_second();
    let remaining = bytes_total.zip(bytes_done).zip(bytes_per_second).map(
        |((total, done), speed): ((u64, u64), u64)| {
            Duration::from_secs(total.saturating_sub(done) / speed.max(1))
        },
    );
    let since = record.submitted_at.unwrap_or(record.created_at);
    events.emit(EventKind::Progress {
        elapsed: (now - since).to_std().unwrap_or_default(),
        files_done: record
            .files
            .iter()
            .filter(|file| file.object.is_some())
            .count(),
        files_total: record.files.len(),
        bytes_done,
        bytes_total,
        bytes_per_second,
        remaining,
        source: if bytes_done.is_some() {
            ProgressSource::Upload
        } else {
            ProgressSource::Elapsed
        },
    });
}

/// Looks in a row without any usable answer: said at the third, and again only after a better one.
#[derive(Debug, Default)]
struct Trouble(u32);

impl Trouble {
    fn note(&mut self, look: &Result<Look, String>, events: &Events) {
        let reason = match look {
            Err(reason) => Some(reason),
            Ok(look) => {
                let mut failures = look.heads.values().map(|head| match head {
                    Head::Failed(reason) => Some(reason),
                    _ => None,
                });
                let first = failures.next().flatten();
                first.filter(|_| failures.all(|failure| failure.is_some()))
            }
        };
        let Some(reason) = reason else {
            self.0 = 0;
            return;
        };
        self.0 += 1;
        if self.0 == FORBIDDEN_AFTER_LOOKS {
            events.warn(format!(
                "three looks in a row got no usable answer ({reason}); the watch goes on"
            ));
        }
    }
}

/// The speed over the last looks.
#[derive(Debug, Default)]
struct Speed(VecDeque<(Duration, u64)>);

impl Speed {
    fn note(&mut self, time: Duration, bytes: u64) {
        if self.0.len() == SPEED_WINDOW_LOOKS {
            self.0.pop_front();
        }
        self.0.push_back((time, bytes));
    }

    fn bytes_per_second(&self) -> Option<u64> {
        let ((first_time, first), (last_time, last)) = (self.0.front()?, self.0.back()?);
        let seconds = last_time.saturating_sub(*first_time).as_secs_f64();
        let bytes = last.checked_sub(*first).filter(|bytes| *bytes > 0)?;
        // A float holds any real speed exactly enough; the cast saturates.
        (seconds > 0.0).then(|| (bytes as f64 / seconds) as u64)
    }
}

#[cfg(test)]
mod tests;
