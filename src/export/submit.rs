//! The submit: sent once, with its intent on disk before and its answer on disk after.
//!
//! `ExportImages` has no client token, so a lost answer is never answered by sending again. What
//! proves that nothing was started (a refusal in the envelope) may be followed by another try; all
//! else is left to the watch, which looks for signs of the export in the bucket.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Stopwatch;
use crate::cloud::Cloud;
use crate::cloud::actions::cvm::ExportImages;
use crate::cloud::api::{Answer, ApiError, ApiErrorKind};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};
use crate::export::claim::Claim;
use crate::export::grace::answer_within_grace;
use crate::export::journal::Journal;
use crate::export::preflight::IfExists;
use crate::export::record::{Baseline, Record, RecordFile, RecordState};
use crate::export::refusals::{Later, Refusal, with_command};
use crate::model::{CloudText, ObjectKey};

/// Pauses while the cloud says "later": exports run for minutes to hours.
const FIRST_QUEUE_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_QUEUE_PAUSE: Duration = Duration::from_secs(120);

/// Pauses while the account is asked too often, which counts by the second, or the network is away.
const FIRST_SHORT_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_SHORT_PAUSE: Duration = Duration::from_secs(5);
/// Attempts in all while the account is asked too often: about half a minute.
const SHORT_ATTEMPTS: u32 = 10;
/// Attempts in all while no connection is made.
const UNSENT_ATTEMPTS: u32 = 4;

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
pub(crate) enum Submitted {
    /// The cloud accepted it.
    Accepted,
    /// Its answer was lost: it may have been processed.
    Lost,
    /// A signal came; the record says what is known.
    Interrupted,
}

/// Everything that a submit needs.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) journal: &'a Journal,
    pub(crate) events: &'a Events,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) queueing: Queueing,
    /// Overrides the growing pauses of the queue.
    pub(crate) queue_pause: Option<Duration>,
    /// How long to go on trying.
    pub(crate) timeout: Duration,
    /// What to do about files that come under the export's names meanwhile.
    pub(crate) if_exists: IfExists,
}

/// Why a submit that started nothing is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// Other exports must finish first.
    WhenOthersFinish,
    /// The account is asked too often, by the second.
    SoonThrottled,
    /// No connection was made.
    SoonUnsent,
}

impl Submission<'_> {
    /// Sends `call` for `record`, whose claim is staked, and makes durable what is known after it.
    pub(crate) async fn send(
        &self,
        record: &mut Record,
        claim: &mut Claim,
        call: &ExportImages,
    ) -> Result<Submitted, Error> {
        let stopwatch = Stopwatch::start();
        let mut queue_pause = self.queue_pause.unwrap_or(FIRST_QUEUE_PAUSE);
        for attempt in 1_u32.. {
            if self.cancel.is_cancelled() {
                self.close(record, claim, RecordState::Abandoned).await;
                return Ok(Submitted::Interrupted);
            }
            record.state = RecordState::Intended;
            record.submitted_at = Some(self.cloud.now());
            self.journal.save(record)?;
            let answer = self.cloud.call(Some(&record.region), call);
            let error = match answer_within_grace(self.cancel, answer).await {
                Some(Ok(answer)) => {
                    self.accept(record, answer);
                    claim.update(self.cloud, self.events, record).await;
                    return Ok(Submitted::Accepted);
                }
                Some(Err(error)) => error,
                None => return Ok(Submitted::Interrupted),
            };
            if !error.proves_nothing_happened() {
                self.events.warn(format!(
                    "the answer to the submit was lost ({error}); it is not sent again, the bucket is \
                     watched for signs of the export"
                ));
                return Ok(Submitted::Lost);
            }
            let remaining = self.timeout.saturating_sub(stopwatch.elapsed());
            let again = self.again(&error, attempt).filter(|_| !remaining.is_zero());
            let Some(again) = again else {
                return Err(self.refused(record, claim, call, error).await);
            };
            let pause = match again {
                Again::WhenOthersFinish => queue_pause,
                Again::SoonThrottled | Again::SoonUnsent => FIRST_SHORT_PAUSE
                    .saturating_mul(1 << attempt.min(4))
                    .min(LONGEST_SHORT_PAUSE),
            };
            // Nothing is on its way now, and a run that is killed in the pause leaves that behind.
            record.state = RecordState::Queued;
            record.submitted_at = None;
            self.journal.save(record)?;
            let code = error.code().unwrap_or("no connection").to_owned();
            let delay = pause.min(remaining);
            self.events.emit(EventKind::Queued { code, delay });
            tokio::select! {
                () = self.cancel.cancelled() => continue,
                () = tokio::time::sleep(delay) => {}
            }
            if again == Again::WhenOthersFinish {
                queue_pause = self
                    .queue_pause
                    .unwrap_or((queue_pause * 2).min(LONGEST_QUEUE_PAUSE));
                if let Err(collision) = self.renew_baseline(record).await {
                    self.close(record, claim, RecordState::Abandoned).await;
                    return Err(collision);
                }
            }
        }
        unreachable!("the number of attempts ends with the timeout")
    }

    /// Whether a submit that certainly started nothing may be sent again.
    fn again(&self, error: &ApiError, attempt: u32) -> Option<Again> {
        if error.kind() == ApiErrorKind::Throttled {
            return (attempt < SHORT_ATTEMPTS).then_some(Again::SoonThrottled);
        }
        if error.code().is_none() {
            return (attempt < UNSENT_ATTEMPTS).then_some(Again::SoonUnsent);
        }
        (is_later(error) && self.queueing == Queueing::Wait).then_some(Again::WhenOthersFinish)
    }

    fn accept(
        &self,
        record: &mut Record,
        answer: Answer<<ExportImages as crate::cloud::api::Action>::Response>,
    ) {
        let mut announced = Vec::new();
        for path in &answer.value.cos_paths {
            match ObjectKey::from_cos_path(path) {
                Ok(key) => announced.push(key),
                Err(invalid) => {
                    self.events.warn(format!(
                        "the cloud announced a file that can't be: {invalid}"
                    ));
                }
            }
        }
        record.accept(
            answer.value.task_id,
            answer.request_id,
            announced,
            self.cloud.now(),
        );
        // The export runs; a full disk now must not make us forget to say where.
        if let Err(error) = self.journal.save(record) {
            self.events.warn(format!(
                "the export was submitted, but {error}; note the command below to find it again"
            ));
        }
        self.events.emit(EventKind::Submitted {
            export_id: record.export_id.clone(),
            task_id: record.task_id,
            keys: record.keys(),
            reattach: record.reattach(),
        });
    }

    async fn refused(
        &self,
        record: &mut Record,
        claim: &mut Claim,
        call: &ExportImages,
        error: ApiError,
    ) -> Error {
        self.close(record, claim, RecordState::Refused).await;
        refusal(&record.image_id.to_string(), call, error)
    }

    /// Notes that nothing runs under `record`. It is told apart from a refusal by its state alone, so
    /// a disk that fails now costs the next run a look, not a second export.
    pub(crate) async fn close(&self, record: &mut Record, claim: &mut Claim, state: RecordState) {
        record.state = state;
        record.submitted_at = None;
        if let Err(error) = self.journal.save(record) {
            self.events.warn(format!(
                "{error}; the next run will look for an export that never began"
            ));
        }
        claim.update(self.cloud, self.events, record).await;
    }

    /// Looks again at what stands under the watched names: a queue lasts for hours, and another
    /// export may have finished or begun meanwhile.
    ///
    /// # Errors
    /// When something new stands or grows there that must not be replaced.
    async fn renew_baseline(&self, record: &mut Record) -> Result<(), Error> {
        let (bucket, region) = (record.bucket.clone(), record.region.clone());
        let cos = self.cloud.cos();
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
