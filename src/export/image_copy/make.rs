//! Making one copy: sent once, looked for when its answer is lost, waited for.

use std::time::Duration;

use super::record::{CopiesState, CopyRecord, CopyState, CopyStep, name_mark};
use crate::clock::Stopwatch;
use crate::cloud::actions::cvm::{DescribeImages, Image, SyncImages, SyncImagesResponse};
use crate::cloud::api::{Answer, ApiError, ApiErrorKind};
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::export::Exporter;
use crate::export::grace::answer_within_grace;
use crate::export::preflight::{Fact, fetch_image};
use crate::export::request::Identity;
use crate::export::watch::PollPolicy;
use crate::model::{CloudText, ImageId, Region};

/// How long to look for a copy of which nobody knows whether it was begun.
const SIGN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Looks in a row that must miss a copy that was seen, before it counts as gone.
const GONE_AFTER_LOOKS: u32 = 5;
/// How long after its call a copy that was never seen may stay unseen.
const UNSEEN_LIMIT: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// Attempts in all while the account is asked too often, or no connection is made.
const ATTEMPTS: u32 = 5;
const PAUSE_BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// How a copy stands when nothing more can be done about it now.
#[derive(Debug)]
pub(super) enum Made {
    /// It can be exported.
    Ready,
    /// It is being made; the time is over.
    TimedOut,
    /// A signal came.
    Interrupted,
    /// Nobody knows whether it was begun.
    Unknown,
    /// It came to nothing; the text says how.
    Failed(String),
}

/// How long to go on, and how often to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) stopwatch: Stopwatch,
    pub(super) timeout: Duration,
    pub(super) poll: PollPolicy,
}

impl Patience {
    pub(super) fn remaining(&self) -> Duration {
        self.timeout.saturating_sub(self.stopwatch.elapsed())
    }
}

impl Exporter {
    /// Brings the copy of step `place` of `record` to its end, from wherever it stands.
    pub(super) async fn make_copy(
        &self,
        record: &mut CopyRecord,
        place: usize,
        patience: &Patience,
    ) -> Result<Made, Error> {
        if record.steps[place].state == CopyState::Planned
            && let Some(end) = self.send_copy(record, place).await?
        {
            return Ok(end);
        }
        if record.steps[place].state == CopyState::Intended
            && let Some(end) = self.find_lost_copy(record, place, patience).await?
        {
            return Ok(end);
        }
        self.wait_for_copy(record, place, patience).await
    }

    /// Sends `SyncImages`, once: it has no client token. `None` when it may have been processed.
    async fn send_copy(
        &self,
        record: &mut CopyRecord,
        place: usize,
    ) -> Result<Option<Made>, Error> {
        let source = match place.checked_sub(1) {
            None => Some(record.image_id.clone()),
            Some(before) => record.steps[before].copy.clone(),
        };
        let source = source.ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "the copy before this one has no id")
        })?;
        let (from, to) = (
            record.steps[place].from.clone(),
            record.steps[place].to.clone(),
        );
        let name = record.steps[place].name.clone();
        let call = SyncImages::one(source, to, name);
        for attempt in 1..=ATTEMPTS {
            if self.cancel.is_cancelled() {
                return Ok(Some(Made::Interrupted));
            }
            let step = &mut record.steps[place];
            step.state = CopyState::Intended;
            step.sent_at = Some(self.cloud.now());
            self.journal.save_copies(record)?;
            let answer = self.cloud.call(Some(&from), &call);
            let error = match answer_within_grace(&self.cancel, &self.events, answer).await {
                Some(Ok(answer)) => {
                    self.accept_copy(record, place, answer);
                    return Ok(None);
                }
                Some(Err(error)) => error,
                None => return Ok(Some(Made::Interrupted)),
            };
            if !error.proves_nothing_happened() {
                self.events.warn(format!(
                    "the answer to the copy was lost ({error}); it is not sent again, the copy is looked for \
                     by its name"
                ));
                return Ok(None);
            }
            let step = &mut record.steps[place];
            step.state = CopyState::Planned;
            step.sent_at = None;
            let is_passing = error.kind() == ApiErrorKind::Throttled || error.code().is_none();
            if !is_passing || attempt == ATTEMPTS {
                if record.standing().next().is_none() {
                    record.steps[place].state = CopyState::Failed;
                    record.state = CopiesState::Abandoned;
                }
                self.journal.save_copies(record)?;
                return Err(refused(&record.image_id, error));
            }
            self.journal.save_copies(record)?;
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = tokio::time::sleep(PAUSE_BETWEEN_ATTEMPTS * attempt) => {}
            }
        }
        unreachable!("the last attempt ends the loop")
    }

    fn accept_copy(
        &self,
        record: &mut CopyRecord,
        place: usize,
        answer: Answer<SyncImagesResponse>,
    ) {
        let step = &mut record.steps[place];
        step.request_id = answer.request_id;
        let mut copies = answer.value.image_set.iter();
        let copy = copies.find(|copy| copy.region == *step.to.as_str());
        let copy = copy.and_then(|copy| copy.image_id.as_str().parse().ok());
        // Without an id of its own it is looked for by its name.
        if let Some(copy) = copy.filter(|copy| !record.is_source(copy)) {
            self.note_copy(record, place, copy);
        }
    }

    /// Notes that the copy is being made, and its id.
    fn note_copy(&self, record: &mut CopyRecord, place: usize, copy: ImageId) {
        let step = &mut record.steps[place];
        step.state = CopyState::Copying;
        step.copy = Some(copy.clone());
        let (from, region) = (step.from.clone(), step.to.clone());
        // The copy is under way; a full disk now must not make us forget it: its name is on disk.
        if let Err(error) = self.journal.save_copies(record) {
            self.events
                .warn(format!("{error}; the next run finds the copy by its name"));
        }
        self.events
            .emit(EventKind::CopyStarted { copy, from, region });
    }

    /// Looks for a copy of which nobody knows whether it was begun. `None` when it is found.
    async fn find_lost_copy(
        &self,
        record: &mut CopyRecord,
        place: usize,
        patience: &Patience,
    ) -> Result<Option<Made>, Error> {
        let window = Stopwatch::start();
        let limit = patience.remaining().min(SIGN_WINDOW);
        for look in 0.. {
            let is_found = tokio::select! {
                () = self.cancel.cancelled() => return Ok(Some(Made::Interrupted)),
                found = self.find_by_name(record, place) => found?,
            };
            if is_found {
                return Ok(None);
            }
            let left = limit.saturating_sub(window.elapsed());
            if left.is_zero() {
                return Ok(Some(Made::Unknown));
            }
            if self.pause(patience, look, left).await.is_break() {
                return Ok(Some(Made::Interrupted));
            }
        }
        unreachable!("the number of looks ends with the window")
    }

    /// Looks once for the copy by its name, and notes it where it is there.
    pub(super) async fn find_by_name(
        &self,
        record: &mut CopyRecord,
        place: usize,
    ) -> Result<bool, Error> {
        let step = &record.steps[place];
        let found = self.images_named(&step.to, &step.name).await?;
        let mut exact = found.iter().filter(|image| image.image_name == *step.name);
        let copy = exact.find_map(|image| image.image_id.as_str().parse().ok());
        let is_found = copy.is_some();
        if let Some(copy) = copy {
            self.note_copy(record, place, copy);
        }
        Ok(is_found)
    }

    /// Whether the cloud shows the copy of `step` now; also where it gives no usable answer.
    pub(super) async fn shows(&self, step: &CopyStep) -> Result<bool, Error> {
        let Some(copy) = &step.copy else {
            return Ok(false);
        };
        let image = fetch_image(&self.cloud, &step.to, copy).await?;
        Ok(!matches!(image, Fact::Known(None)))
    }

    /// Takes copies that are no longer there out of a record that was given up.
    pub(super) async fn forget_gone(&self, record: &mut CopyRecord) -> Result<(), Error> {
        for place in 0..record.steps.len() {
            let step = &record.steps[place];
            if step.copy.is_some() && step.state != CopyState::Removed && !self.shows(step).await? {
                record.steps[place].state = CopyState::Removed;
                self.keep_copies(record);
            }
        }
        Ok(())
    }

    /// The account's custom images of `region` whose names hold `text`; none when there was no usable
    /// answer, which is not for good.
    async fn images_named(&self, region: &Region, text: &str) -> Result<Vec<Image>, Error> {
        let call = DescribeImages::custom_images_named(text);
        match self.cloud.call(Some(region), &call).await {
            Ok(answer) => Ok(answer.value.image_set),
            Err(error) if error.kind() == ApiErrorKind::NoAnswer => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies for the export `identity` that stand in `region` and are not in this journal.
    pub(super) async fn strange_copies(
        &self,
        identity: &Identity,
        region: &Region,
    ) -> Result<Vec<ImageId>, Error> {
        let mark = name_mark(identity);
        let known = self.journal.copies_of(identity)?;
        let is_known = |name: &CloudText| {
            let mut steps = known.iter().flat_map(|record| &record.steps);
            steps.any(|step| *name == *step.name)
        };
        let images = self.images_named(region, &mark).await?.into_iter();
        let strange = images.filter(|image| {
            image.image_name.as_str().starts_with(&mark) && !is_known(&image.image_name)
        });
        Ok(strange
            .filter_map(|image| image.image_id.as_str().parse().ok())
            .collect())
    }

    /// Waits until the copy is `NORMAL`.
    async fn wait_for_copy(
        &self,
        record: &mut CopyRecord,
        place: usize,
        patience: &Patience,
    ) -> Result<Made, Error> {
        let step = &record.steps[place];
        let region = step.to.clone();
        let Some(copy) = step.copy.clone() else {
            return Ok(Made::Unknown);
        };
        // One that was just begun may take a moment to be seen; one that was seen must not vanish.
        let may_be_unseen_until = step
            .sent_at
            .and_then(|sent_at| sent_at.checked_add_signed(UNSEEN_LIMIT));
        let mut was_seen = step.state == CopyState::Ready;
        let mut gone_looks = 0;
        let mut told = None;
        for look in 0.. {
            let image = tokio::select! {
                () = self.cancel.cancelled() => return Ok(Made::Interrupted),
                image = fetch_image(&self.cloud, &region, &copy) => image?,
            };
            match image {
                Fact::Known(Some(image)) => {
                    (was_seen, gone_looks) = (true, 0);
                    match image.image_state.as_str() {
                        "NORMAL" if !record.is_own(&record.steps[place], &image) => {
                            return Err(not_the_copy(record, place, &image));
                        }
                        "NORMAL" => {
                            record.steps[place].state = CopyState::Ready;
                            self.keep_copies(record);
                            self.events.emit(EventKind::CopyReady { copy, region });
                            return Ok(Made::Ready);
                        }
                        state @ ("CREATEFAILED" | "IMPORTFAILED") => {
                            let reason = format!("the copy `{copy}` in {region} is {state}");
                            return self.give_up(record, place, reason);
                        }
                        state => {
                            let now = (state.to_owned(), image.sync_percent);
                            if told.as_ref() != Some(&now) {
                                self.events.emit(EventKind::CopyProgress {
                                    copy: copy.clone(),
                                    region: region.clone(),
                                    state: now.0.clone(),
                                    percent: now.1,
                                });
                                told = Some(now);
                            }
                        }
                    }
                }
                Fact::Known(None)
                    if was_seen || may_be_unseen_until.is_none_or(|end| end < self.cloud.now()) =>
                {
                    gone_looks += 1;
                    if gone_looks == GONE_AFTER_LOOKS {
                        // Its id may have been told wrong, or it was made anew by hand.
                        if !was_seen
                            && self.find_by_name(record, place).await?
                            && record.steps[place].copy.as_ref() != Some(&copy)
                        {
                            return Box::pin(self.wait_for_copy(record, place, patience)).await;
                        }
                        let reason = format!("the copy `{copy}` in {region} is gone");
                        return self.give_up(record, place, reason);
                    }
                }
                Fact::NotPermitted(reason) => {
                    let message =
                        format!("the copy `{copy}` in {region} may not be looked at: {reason}");
                    return Err(Error::new(ErrorKind::Permission, message).with_hint(
                        "allow `cvm:DescribeImages` in that region, and run the command again",
                    ));
                }
                Fact::Known(None) | Fact::NoAnswer(_) | Fact::NotAsked => {}
            }
            let left = patience.remaining();
            if left.is_zero() {
                return Ok(Made::TimedOut);
            }
            if self.pause(patience, look, left).await.is_break() {
                return Ok(Made::Interrupted);
            }
        }
        unreachable!("the number of looks ends with the timeout")
    }

    fn give_up(
        &self,
        record: &mut CopyRecord,
        place: usize,
        reason: String,
    ) -> Result<Made, Error> {
        record.steps[place].state = CopyState::Failed;
        record.state = CopiesState::Abandoned;
        self.keep_copies(record);
        Ok(Made::Failed(reason))
    }

    /// Waits before the look after number `look`; breaks off at a signal.
    async fn pause(
        &self,
        patience: &Patience,
        look: u32,
        left: Duration,
    ) -> std::ops::ControlFlow<()> {
        let pause = patience.poll.pause(look, fastrand::f64()).min(left);
        tokio::select! {
            () = self.cancel.cancelled() => std::ops::ControlFlow::Break(()),
            () = tokio::time::sleep(pause) => std::ops::ControlFlow::Continue(()),
        }
    }
}

/// The cloud has named an image as the copy that is none, or somebody has renamed the copy.
fn not_the_copy(record: &CopyRecord, place: usize, image: &Image) -> Error {
    let (id, seen, name) = (
        &image.image_id,
        &image.image_name,
        &record.steps[place].name,
    );
    let message = format!(
        "`{id}` is called `{seen}` and not `{name}`, so nothing proves that it is the copy; it was not exported"
    );
    Error::new(ErrorKind::Unexpected, message).with_hint(
        "if somebody has renamed the copy, give it its name again and run the command again",
    )
}

/// Words a refusal of the copy for people.
fn refused(image_id: &ImageId, error: ApiError) -> Error {
    let code = error.code().unwrap_or_default();
    let (meaning, hint) = match code {
        "InvalidImageId.IncorrectState"
        | "FailedOperation.InvalidImageState"
        | "InvalidParameterValue.InvalidImageState" => (
            "another operation holds the image",
            "run the command again when the image is NORMAL",
        ),
        "ImageQuotaLimitExceeded" => (
            "the region's quota of custom images is used up",
            "delete custom images of that region that nobody needs, or apply for a larger quota",
        ),
        "InvalidRegion.Unavailable" | "UnsupportedOperation.Region" => (
            "the cloud does not copy images between these regions",
            "use a bucket of the image's region, or apply for the copy by a ticket",
        ),
        _ => return Error::from(error),
    };
    let kind = match code {
        "ImageQuotaLimitExceeded" => ErrorKind::Quota,
        _ => ErrorKind::Refused,
    };
    let message =
        format!("the copy of image `{image_id}` was refused: {meaning}; nothing was started");
    Error::new(kind, message)
        .with_hint(hint)
        .with_request_id(error.request_id().map(str::to_owned))
        .with_source(error)
}
