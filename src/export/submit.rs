//! The submit: sent once, with its intent on disk before and its answer on disk after.
//!
//! `ExportImages` has no client token, so a lost answer is never answered by sending again. What proves that nothing
//! was started may be followed by another try, with a lease that was renewed for it; all else is left to the watch,
//! which looks for signs of the export in the bucket.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::cloud::actions::cvm::{ExportImages, ExportImagesResponse};
use crate::cloud::api::{Answer, ApiError, ApiErrorKind, Prepared, SignAgain};
use crate::cloud::cos::CosErrorKind;
use crate::crash;
use crate::error::{Error, ErrorKind, one_line};
use crate::event::EventKind;
use crate::export::Exporter;
use crate::export::grace::answer_within_grace;
use crate::export::lease::{Bucket as _, Cleared, Lease, LeaseState};
use crate::export::leases::LeaseError;
use crate::export::preflight::IfExists;
use crate::export::progress::{Accepted, Step};
use crate::export::record::{Baseline, Record, RecordFile};
use crate::export::refusals::{Later, Refusal, with_command};
use crate::export::tracked::Tracked;
use crate::model::{CloudText, ObjectKey};

/// Pauses while the cloud says "later": exports run for minutes to hours.
const FIRST_QUEUE_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_QUEUE_PAUSE: Duration = Duration::from_secs(120);

/// Pauses while the account is asked too often, which counts by the second, or the network is away.
const FIRST_SHORT_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_SHORT_PAUSE: Duration = Duration::from_secs(5);
/// Attempts in all while the account is asked too often: about half a minute.
const SHORT_ATTEMPTS: u32 = 10;
/// More files than any image has disks: a longer answer makes no sense, and is not worth the memory.
const MOST_PATHS: usize = 64;
/// Attempts in all while no connection is made.
const UNSENT_ATTEMPTS: u32 = 4;

/// How long a look at a lease may take that only decides what is said.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Whether to wait while the cloud says "later".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// Wait within the timeout.
    Wait,
    /// Take it as a refusal.
    Refuse,
}

/// What became of a submit.
#[derive(Debug)]
pub(super) enum Submitted {
    /// The cloud accepted it.
    Accepted,
    /// Its answer was lost: it may have been processed.
    Lost,
    /// A signal came while the answer was waited for.
    Interrupted,
    /// Nothing was sent, or what was sent started nothing, before a signal came.
    NeverStarted,
    /// Nothing was started, and another run has the right to begin now: start again with what exists.
    Overtaken,
}

/// A request that may be sent now: its intent is durable here and in the bucket, and both were read again since.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    pub(super) tracked: Tracked<'a>,
    /// `None` if only the journal knows of it.
    pub(super) lease: Option<Lease>,
    pub(super) signed: Prepared<ExportImages>,
}

/// How a submit is made.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    pub(super) exporter: &'a Exporter,
    pub(super) call: ExportImages,
    pub(super) queueing: Queueing,
    /// Overrides the growing pauses of the queue.
    pub(super) queue_pause: Option<Duration>,
    /// How long to go on trying.
    pub(super) timeout: Duration,
    /// What to do about files that come under the export's names meanwhile.
    pub(super) if_exists: IfExists,
}

/// Why a submit that started nothing is sent again.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// Other exports must finish first.
    WhenOthersFinish,
    /// The account is asked too often, by the second.
    SoonThrottled,
    /// No connection was made.
    SoonUnsent,
    /// The signature was refused, and another one may be accepted.
    Resigned(SignAgain),
}

/// What a further send found.
enum Renewed<'a> {
    Ready(Box<Ready<'a>>),
    Overtaken(Box<Tracked<'a>>),
}

impl<'a> Submission<'a> {
    /// Sends what is ready, and makes durable what is known after it. The tracked record comes back with the result.
    pub(super) async fn send(
        &self,
        mut ready: Ready<'a>,
    ) -> Result<(Submitted, Tracked<'a>), Error> {
        let stopwatch = Stopwatch::start();
        let mut queue_pause = self.queue_pause.unwrap_or(FIRST_QUEUE_PAUSE);
        let mut has_signed_again = false;
        for attempt in 1_u32.. {
            let Ready {
                mut tracked,
                lease,
                signed,
            } = ready;
            crash::point(crash::Before("submit"));
            let answer = self.exporter.cloud.send(signed);
            let Exporter { cancel, events, .. } = self.exporter;
            let answer = answer_within_grace(cancel, events, answer).await;
            crash::point(crash::After("submit"));
            let error = match answer {
                Some(Ok(answer)) => {
                    self.accept(&mut tracked, answer).await;
                    return Ok((Submitted::Accepted, tracked));
                }
                Some(Err(error)) => error,
                None => return Ok((Submitted::Interrupted, tracked)),
            };
            if !error.proves_nothing_happened() {
                self.exporter.events.warn(format!(
                    "the answer to the submit was lost ({error}); it is not sent again, the bucket is \
                     watched for signs of the export"
                ));
                return Ok((Submitted::Lost, tracked));
            }
            let remaining = self.timeout.saturating_sub(stopwatch.elapsed());
            let again = self.again(&error, attempt, has_signed_again);
            let Some(again) = again.filter(|_| !remaining.is_zero()) else {
                // Overtaken by nobody: only the holder of the lock takes this step.
                let _ = tracked.step(Step::Refuse).await;
                return Err(refusal(
                    &tracked.record().image_id.to_string(),
                    &self.call,
                    error,
                ));
            };
            let (pause, sign_again) = match again {
                Again::WhenOthersFinish => (queue_pause, None),
                Again::SoonThrottled | Again::SoonUnsent => {
                    let pause = FIRST_SHORT_PAUSE.saturating_mul(1 << attempt.min(4));
                    (pause.min(LONGEST_SHORT_PAUSE), None)
                }
                Again::Resigned(sign_again) => {
                    has_signed_again = true;
                    (Duration::ZERO, Some(sign_again))
                }
            };
            // Nothing is on its way now, and a run that is killed in the pause leaves that behind.
            if let Err(error) = tracked.step_durably(Step::Wait).await {
                self.close(&mut tracked, lease.as_ref()).await;
                return Err(error.into());
            }
            if !pause.is_zero() {
                self.rest(&tracked, lease.as_ref(), &error, pause.min(remaining))
                    .await;
            }
            if let Again::WhenOthersFinish = again {
                let longer = (queue_pause * 2).min(LONGEST_QUEUE_PAUSE);
                queue_pause = self.queue_pause.unwrap_or(longer);
            }
            if self.exporter.cancel.is_cancelled() {
                self.close(&mut tracked, lease.as_ref()).await;
                return Ok((Submitted::NeverStarted, tracked));
            }
            let is_long = matches!(again, Again::WhenOthersFinish);
            match self.renew(tracked, lease, is_long, sign_again).await? {
                Renewed::Ready(next) => ready = *next,
                Renewed::Overtaken(tracked) => return Ok((Submitted::Overtaken, *tracked)),
            }
        }
        unreachable!("the number of attempts ends with the timeout")
    }

    /// Says that the submit waits, in the lease too, and waits.
    async fn rest(
        &self,
        tracked: &Tracked<'a>,
        lease: Option<&Lease>,
        error: &ApiError,
        delay: Duration,
    ) {
        let code = error.code().unwrap_or("no connection").to_owned();
        self.exporter.events.emit(EventKind::Queued { code, delay });
        let resting = async {
            if let Some(lease) = lease {
                let (leases, record) = (tracked.leases(), tracked.record());
                let queued = lease.step(&leases, LeaseState::Queued, |_| Some(record.published()));
                if let Err(error) = queued.await {
                    tracing::debug!("the lease does not say `queued`: {}", one_line(&error));
                }
            }
            tokio::time::sleep(delay).await;
        };
        tokio::select! {
            () = self.exporter.cancel.cancelled() => {}
            () = resting => {}
        }
    }

    /// Rule 6 for a further send: looks at the files again after a long pause, signs, renews the lease, reads the row,
    /// and makes the intent durable.
    async fn renew(
        &self,
        mut tracked: Tracked<'a>,
        lease: Option<Lease>,
        is_long: bool,
        sign_again: Option<SignAgain>,
    ) -> Result<Renewed<'a>, Error> {
        let mut record = tracked.record().clone();
        if is_long && let Err(collision) = self.renew_baseline(&mut record).await {
            self.close(&mut tracked, lease.as_ref()).await;
            return Err(collision);
        }
        let intend = Step::Intend {
            at: self.exporter.cloud.now(),
            attempt: lease.as_ref().map(Lease::number),
        };
        let baseline = Step::Baseline {
            names: record
                .files
                .into_iter()
                .flat_map(|file| file.names)
                .collect(),
            earlier_uploads: record.earlier_uploads,
        };
        if is_long && let Err(error) = tracked.step_durably(baseline).await {
            self.close(&mut tracked, lease.as_ref()).await;
            return Err(error.into());
        }
        let sign = async || {
            let region = Some(&tracked.record().region);
            self.exporter
                .cloud
                .prepare(region, &self.call, sign_again)
                .await
        };
        let (signed, lease) = match lease {
            None => (sign().await, None),
            Some(lease) => {
                let mut intended = tracked.record().clone();
                // The record here is queued, so the table allows it.
                let _ = intended.step(intend.clone());
                let leases = tracked.leases();
                let own = Lease::of(lease.number(), lease.run().to_owned());
                let again = lease.again(&leases, sign, |_| Some(intended.clone()));
                match again.await {
                    Ok(Cleared::Go { signed, lease, .. }) => (signed, Some(lease)),
                    Ok(Cleared::Withdrawn | Cleared::Overtaken(_)) => {
                        self.close(&mut tracked, None).await;
                        return Ok(Renewed::Overtaken(Box::new(tracked)));
                    }
                    Err(error) => {
                        self.close(&mut tracked, None).await;
                        self.exporter.tell_if_open(&tracked, &own).await;
                        return Err(no_lease(error));
                    }
                }
            }
        };
        if let Err(error) = tracked.step_durably(intend).await {
            self.close(&mut tracked, lease.as_ref()).await;
            return Err(error.into());
        }
        Ok(Renewed::Ready(Box::new(Ready {
            tracked,
            lease,
            signed,
        })))
    }

    /// Whether a submit that certainly started nothing may be sent again.
    fn again(&self, error: &ApiError, attempt: u32, has_signed_again: bool) -> Option<Again> {
        if let Some(sign_again) = error.sign_again() {
            return (!has_signed_again).then_some(Again::Resigned(sign_again));
        }
        if error.kind() == ApiErrorKind::Throttled {
            return (attempt < SHORT_ATTEMPTS).then_some(Again::SoonThrottled);
        }
        if error.code().is_none() {
            return (attempt < UNSENT_ATTEMPTS).then_some(Again::SoonUnsent);
        }
        (is_later(error) && self.queueing == Queueing::Wait).then_some(Again::WhenOthersFinish)
    }

    async fn accept(&self, tracked: &mut Tracked<'a>, answer: Answer<ExportImagesResponse>) {
        let events = &self.exporter.events;
        let paths = &answer.value.cos_paths;
        let mut accepted = Accepted {
            task_id: answer.value.task_id,
            request_id: answer.request_id,
            at: self.exporter.cloud.now(),
            ..Accepted::default()
        };
        if paths.len() > MOST_PATHS {
            events.warn(format!(
                "the cloud announced {} files, and an image has at most {MOST_PATHS} disks; the rest is not looked at",
                paths.len()
            ));
        }
        for path in paths.iter().take(MOST_PATHS) {
            match ObjectKey::from_cos_path(path) {
                Ok(key) => accepted.announced.push(key),
                Err(invalid) => {
                    accepted.unusable += 1;
                    events.warn(format!(
                        "the cloud announced a path that is not an object key ({invalid}); the predicted names of \
                         that disk are watched"
                    ));
                }
            }
        }
        // The export runs; a full disk now must not make us forget to say where. The lease follows at once, by whoever
        // watches or leaves.
        let _ = tracked.step_here(Step::Accept(accepted)).await;
        let record = tracked.record();
        events.emit(EventKind::Submitted {
            export_id: record.export_id.clone(),
            task_id: record.task_id,
            keys: record.keys(),
            reattach: record.reattach(),
        });
    }

    /// Takes back what was made for a submit that started nothing.
    async fn close(&self, tracked: &mut Tracked<'a>, lease: Option<&Lease>) {
        self.exporter.take_back(tracked, lease).await;
    }

    /// Looks again at what stands under the watched names: a queue lasts for hours, and another
    /// export may have finished or begun meanwhile.
    ///
    /// # Errors
    /// When something new stands or grows there that must not be replaced.
    async fn renew_baseline(&self, record: &mut Record) -> Result<(), Error> {
        let (bucket, region) = (record.bucket.clone(), record.region.clone());
        let cos = self.exporter.cloud.cos();
        let keys: Vec<ObjectKey> = record
            .files
            .iter()
            .flat_map(RecordFile::watched_keys)
            .cloned()
            .collect();
        let prefix = record
            .prefix
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        let heads = keys
            .iter()
            .map(|key| cos.head_object(&bucket, &region, key, None));
        let (heads, uploads) = tokio::join!(
            futures_util::future::join_all(heads),
            cos.all_uploads(&bucket, &region, &prefix),
        );
        let mut new = Vec::new();
        let names = record.files.iter_mut().flat_map(|file| &mut file.names);
        for (name, head) in names.zip(heads) {
            let seen = match head {
                Ok(object) => Baseline::of(object.as_ref()),
                // What was seen before is still the best that is known.
                Err(_) => continue,
            };
            if matches!(seen, Baseline::Present { .. }) && seen != name.baseline {
                new.push(name.key.clone());
            }
            name.baseline = seen;
        }
        for upload in uploads.into_iter().flatten() {
            if keys.contains(&upload.key) && !record.earlier_uploads.contains(&upload.upload_id) {
                new.push(upload.key);
                record.earlier_uploads.push(upload.upload_id);
            }
        }
        match new.first() {
            Some(key) if self.if_exists != IfExists::Overwrite => Err(Error::new(
                ErrorKind::Precondition,
                format!("`{key}` has come into the bucket while this run waited its turn; nothing was submitted"),
            )
            .with_hint("choose another `--prefix`, or replace it with `--if-exists overwrite`")),
            _ => Ok(()),
        }
    }
}

impl Exporter {
    /// Takes back what was made for a submit that has started nothing: the record is abandoned, the lease withdrawn.
    /// What cannot be written is only said: it costs the next run a wait, not a second export.
    pub(super) async fn take_back(&self, tracked: &mut Tracked<'_>, lease: Option<&Lease>) {
        if let Err(error) = tracked.step_durably(Step::GiveUp).await {
            self.events.warn(format!(
                "{}; the next run will look for an export that never began",
                one_line(&error)
            ));
        }
        if let Some(lease) = lease
            && let Err(error) = lease.withdraw(&tracked.leases()).await
        {
            self.warn_of_open(&one_line(&error));
        }
    }

    /// Says so if `lease`, which was to be withdrawn because nothing was sent, is open or cannot be seen.
    pub(super) async fn tell_if_open(&self, tracked: &Tracked<'_>, lease: &Lease) {
        let leases = tracked.leases();
        let looking = leases.get(lease.number());
        match tokio::time::timeout(LOOK_LIMIT, looking).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(seen))) => {
                if seen.attempt.run == lease.run() && seen.attempt.state.is_open() {
                    self.warn_of_open("COS did not take the step");
                }
            }
            Ok(Err(error)) => self.warn_of_open(&one_line(&error)),
            Err(_) => self.warn_of_open("COS did not answer in time"),
        }
    }

    fn warn_of_open(&self, reason: &str) {
        self.events.warn(format!(
            "the lease in the bucket could not be withdrawn ({reason}); other machines wait 15 minutes for an export \
             that never began"
        ));
    }
}

/// A lease that COS does not take for the moment ends the run: without it another machine could submit as well.
pub(super) fn no_lease(error: LeaseError) -> Error {
    match error {
        LeaseError::Cos(error) if error.kind() != CosErrorKind::Credentials => {
            let kind = match error.kind() {
                CosErrorKind::NotPermitted => ErrorKind::Permission,
                CosErrorKind::Throttled => ErrorKind::Quota,
                _ => ErrorKind::Unexpected,
            };
            Error::new(
                kind,
                "COS did not take the lease that keeps other machines from submitting too; nothing was submitted",
            )
            .with_hint("run the command again; on the only machine `--no-claim` goes on without a lease")
            .with_source(error)
        }
        other => other.into(),
    }
}

fn is_later(error: &ApiError) -> bool {
    error
        .code()
        .and_then(Refusal::of)
        .is_some_and(|refusal| refusal.later == Later::WhenOthersFinish)
}

/// Words a refusal of the submit for people.
fn refusal(image_id: &str, call: &ExportImages, error: ApiError) -> Error {
    let request_id = error.request_id().map(str::to_owned);
    let Some(known) = error.code().and_then(Refusal::of) else {
        return Error::from(error);
    };
    let kind = match known.later {
        Later::WhenOthersFinish => ErrorKind::Quota,
        Later::Never => ErrorKind::Refused,
    };
    let message = format!(
        "the export of image `{image_id}` was refused: {}; nothing was started",
        CloudText::new(known.meaning)
    );
    Error::new(kind, message)
        // Whether the prefix is the same next time is not known here.
        .with_hint(with_command(
            known.remedy,
            &call.role_name,
            &call.bucket_name,
            None,
        ))
        .with_request_id(request_id)
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::refusals::REFUSALS;
    use crate::export::samples;

    fn refused(code: &str) -> ApiError {
        ApiError::refused_in_test("ExportImages", code)
    }

    #[test]
    fn only_the_codes_that_pass_by_themselves_say_later() {
        let cases = [
            ("LimitExceeded.ExportImageTaskLimitExceeded", true),
            ("InvalidParameterValue.InvalidImageState", true),
            ("FailedOperation.InvalidImageState", true),
            ("MutexOperation.TaskRunning", true),
            ("InvalidParameterValue.LimitExceeded", false),
            ("UnsupportedOperation.WindowsImageExportUnsupported", false),
            ("RequestLimitExceeded", false),
            ("ResourceInUse", false),
            ("InternalError", false),
            ("Moon.Full", false),
        ];
        for (code, expected) in cases {
            assert_eq!(is_later(&refused(code)), expected, "asked: {code}");
        }
    }

    #[test]
    fn a_known_refusal_is_worded_with_its_meaning_remedy_and_request() {
        for known in REFUSALS {
            let error = refusal("img-1", &samples::request().to_call(), refused(known.code));
            let expected = match known.later {
                Later::WhenOthersFinish => ErrorKind::Quota,
                Later::Never => ErrorKind::Refused,
            };
            assert_eq!(error.kind(), expected, "asked: {}", known.code);
            assert_eq!(
                error.to_string(),
                format!(
                    "the export of image `img-1` was refused: {}; nothing was started",
                    known.meaning
                )
            );
            // Bucket and role are those of the request.
            let command = "authorize --bucket b-1250000000";
            let remedy = known.remedy.replace("authorize --bucket NAME", command);
            assert_eq!(error.hint(), Some(remedy.as_str()), "asked: {}", known.code);
            assert_eq!(error.request_id(), Some("r-1"), "asked: {}", known.code);
            let causes = error.causes().join(" ");
            assert!(
                causes.contains(known.code) && causes.contains("words of the cloud"),
                "seen: {causes}"
            );
        }
    }

    #[test]
    fn a_refusal_that_is_not_known_keeps_the_clouds_code_and_its_own_kind() {
        let cases = [
            ("Moon.Full", ErrorKind::Refused),
            (
                "UnauthorizedOperation.PermissionDenied",
                ErrorKind::Permission,
            ),
            ("AuthFailure.UnauthorizedOperation", ErrorKind::Permission),
            ("AuthFailure.TokenFailure", ErrorKind::Credentials),
            ("RequestLimitExceeded", ErrorKind::Quota),
        ];
        for (code, expected) in cases {
            let error = refusal("img-1", &samples::request().to_call(), refused(code));
            assert_eq!(error.kind(), expected, "asked: {code}; seen: {error}");
            assert_eq!(error.request_id(), Some("r-1"), "asked: {code}");
            let causes = error.causes().join(" ");
            assert!(causes.contains(code), "asked: {code}; seen: {causes}");
        }
    }

    #[test]
    fn every_known_refusal_proves_that_nothing_was_started() {
        use crate::cloud::api::ApiErrorKind;
        for known in REFUSALS {
            let error = refused(known.code);
            assert!(error.proves_nothing_happened(), "asked: {}", known.code);
            assert_eq!(error.kind(), ApiErrorKind::Refused, "asked: {}", known.code);
        }
    }
}
