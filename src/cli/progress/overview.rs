//! How the exports of several images stand, in one line.

use std::collections::BTreeMap;

use cvm_export::event::{Ending, Event, EventKind};
use cvm_export::model::ImageId;

use crate::cli::printer::size;

/// All images of a run.
#[derive(Debug)]
pub(super) struct Overview {
    /// How many images there are.
    count: usize,
    /// Those of which something was told.
    images: BTreeMap<ImageId, Item>,
}

/// What was told of one image.
#[derive(Debug, Default)]
struct Item {
    stage: Stage,
    bytes_done: Option<u64>,
    bytes_total: Option<u64>,
    /// Whether the cloud said "later" before.
    was_queued: bool,
    download: Download,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Not submitted, or queued.
    #[default]
    Waiting,
    Running,
    Ended(Ending),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Download {
    #[default]
    None,
    Begun,
    Done,
    Failed,
}

impl Overview {
    /// Over `count` images; one alone needs none.
    pub(super) fn of(count: usize) -> Option<Self> {
        (count > 1).then(|| Self {
            count,
            images: BTreeMap::new(),
        })
    }

    /// Takes an event in, and tells whether it is news: an image that is told "later" again is not.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let Some(image_id) = &event.image_id else {
            return true;
        };
        let item = self.images.entry(image_id.clone()).or_default();
        match &event.kind {
            EventKind::Expected { size_bytes } => {
                item.bytes_total.get_or_insert(*size_bytes);
            }
            EventKind::Queued { .. } => return !std::mem::replace(&mut item.was_queued, true),
            EventKind::Submitted { .. } | EventKind::Attached { .. } => item.stage = Stage::Running,
            EventKind::Progress {
                bytes_done,
                bytes_total,
                ..
            } => {
                item.bytes_done = bytes_done.or(item.bytes_done);
                item.bytes_total = bytes_total.or(item.bytes_total);
            }
            EventKind::Ended {
                state, size_bytes, ..
            } => {
                item.stage = Stage::Ended(*state);
                if *state == Ending::Complete {
                    item.bytes_done = Some(*size_bytes);
                    item.bytes_total = Some(*size_bytes);
                }
            }
            EventKind::DownloadProgress { .. } => item.download = Download::Begun,
            EventKind::Landed { reason, .. } => {
                item.download = match reason {
                    None => Download::Done,
                    Some(_) => Download::Failed,
                };
            }
            _ => {}
        }
        true
    }

    /// `3 of 41 complete, 5 running, 33 waiting, 620.00 GiB of 2.10 TiB`
    pub(super) fn line(&self) -> String {
        let ended = |ending| self.staged(Stage::Ended(ending));
        // Of some nothing has been told yet.
        let untold = self.count.saturating_sub(self.images.len());
        let waiting = self.staged(Stage::Waiting) + untold;
        let mut parts = vec![format!(
            "{} of {} complete",
            ended(Ending::Complete),
            self.count
        )];
        for (count, word) in [
            (self.staged(Stage::Running), "running"),
            (waiting, "waiting"),
            (ended(Ending::Submitted), "submitted"),
            (ended(Ending::Checked), "checked"),
            (ended(Ending::Running), "left running"),
            (ended(Ending::Failed), "failed"),
            (ended(Ending::Unknown), "of unknown outcome"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        parts.extend(self.amount());
        let mut downloads = self.images.values().map(|item| item.download);
        if downloads.any(|download| download != Download::None) {
            let items = self.images.values();
            let landed = items.filter(|item| item.download == Download::Done);
            parts.push(format!("{} downloaded", landed.count()));
        }
        parts.join(", ")
    }

    fn staged(&self, stage: Stage) -> usize {
        let items = self.images.values();
        items.filter(|item| item.stage == stage).count()
    }

    /// What is in the bucket; of how much, where that is known of all that may still come.
    fn amount(&self) -> Option<String> {
        let is_of_use = |item: &&Item| {
            !matches!(
                item.stage,
                Stage::Ended(Ending::Failed | Ending::Unknown | Ending::Checked)
            )
        };
        let items = || self.images.values().filter(is_of_use);
        let done: u64 = items().filter_map(|item| item.bytes_done).sum();
        if done == 0 {
            return None;
        }
        let is_complete = self.images.len() >= self.count;
        let total = items().try_fold(0_u64, |sum, item| sum.checked_add(item.bytes_total?));
        Some(match total.filter(|_| is_complete) {
            Some(total) => format!("{} of {}", size(done), size(total)),
            None => size(done),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(overview: &mut Overview, image: usize, kind: EventKind) -> bool {
        overview.take(&Event {
            time: cvm_export::clock::now(),
            image_id: Some(format!("img-{image}").parse().expect("an image id")),
            kind,
        })
    }

    fn progress(bytes_done: u64) -> EventKind {
        EventKind::Progress {
            elapsed: std::time::Duration::ZERO,
            files_done: 0,
            files_total: 1,
            bytes_done: Some(bytes_done),
            bytes_total: None,
            bytes_per_second: None,
            remaining: None,
            source: cvm_export::event::ProgressSource::Upload,
        }
    }

    fn attached() -> EventKind {
        EventKind::Attached {
            export_id: "exp-00000000".parse().expect("an export id"),
            source: "journal",
            reattach: Vec::new(),
        }
    }

    fn ended(state: Ending, size_bytes: u64) -> EventKind {
        EventKind::Ended {
            state,
            reused: false,
            files: 1,
            size_bytes,
            reason: None,
            hint: None,
        }
    }

    #[test]
    fn one_image_has_no_overview() {
        assert!(Overview::of(0).is_none() && Overview::of(1).is_none());
    }

    #[test]
    fn the_line_counts_all_images_and_sums_what_is_known() {
        let mut overview = Overview::of(5).expect("several");
        assert_eq!(overview.line(), "0 of 5 complete, 5 waiting");
        tell(&mut overview, 1, attached());
        tell(&mut overview, 2, attached());
        tell(&mut overview, 1, progress(1 << 30));
        assert_eq!(
            overview.line(),
            "0 of 5 complete, 2 running, 3 waiting, 1.00 GiB"
        );
        for image in 1..=5 {
            let size_bytes = 2 << 30;
            tell(&mut overview, image, EventKind::Expected { size_bytes });
        }
        assert_eq!(
            overview.line(),
            "0 of 5 complete, 2 running, 3 waiting, 1.00 GiB of 10.00 GiB"
        );
        tell(&mut overview, 1, ended(Ending::Complete, 2 << 30));
        tell(&mut overview, 2, progress(1 << 29));
        // What will not come is not waited for.
        tell(&mut overview, 3, ended(Ending::Failed, 0));
        assert_eq!(
            overview.line(),
            "1 of 5 complete, 1 running, 2 waiting, 1 failed, 2.50 GiB of 8.00 GiB"
        );
        let landed = |reason: Option<&str>| EventKind::Landed {
            reason: reason.map(str::to_owned),
            hint: None,
        };
        tell(&mut overview, 1, landed(None));
        for image in [2, 4, 5] {
            tell(&mut overview, image, ended(Ending::Complete, 2 << 30));
        }
        tell(&mut overview, 2, landed(Some("the disk is full")));
        assert_eq!(
            overview.line(),
            "4 of 5 complete, 1 failed, 8.00 GiB of 8.00 GiB, 1 downloaded"
        );
    }

    #[test]
    fn later_is_news_once_for_each_image() {
        let mut overview = Overview::of(2).expect("several");
        let later = || EventKind::Queued {
            code: "LimitExceeded".to_owned(),
            delay: std::time::Duration::from_secs(15),
        };
        assert!(tell(&mut overview, 1, later()));
        assert!(!tell(&mut overview, 1, later()));
        assert!(tell(&mut overview, 2, later()));
    }
}
