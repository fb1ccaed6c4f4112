//! Bodies as they leave: in chunks read on the way, and with whatever a fault does to them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::wire::Content;

/// How much is read and sent at once; what a connection holds in memory.
const CHUNK_BYTES: u64 = 256 << 10;

/// How long the server waits between the last byte of a truncated body and the close, so that the
/// byte is on its way.
const LAST_BYTES_PAUSE: Duration = Duration::from_millis(20);

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the simulated server broke the connection")]
pub(super) struct Broken;

/// The type of every body.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// What happens to a body on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) bytes_per_second: Option<u64>,
    pub(super) stall_after: Option<u64>,
    pub(super) truncate_after: Option<u64>,
    pub(super) flip_at: Option<u64>,
}

/// Sends `content` at `pace`.
pub(super) fn body(content: Content, pace: Pace) -> Body {
    let sender = Sender {
        content,
        pace,
        position: 0,
    };
    let frames = stream::unfold(Some(sender), |sender| async {
        let mut sender = sender?;
        match sender.next().await? {
            Ok(bytes) => Some((Ok(Frame::data(bytes)), Some(sender))),
            Err(broken) => Some((Err(broken), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Sender {
    content: Content,
    pace: Pace,
    position: u64,
}

impl Sender {
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let left = self.content.length() - self.position;
        if left == 0 {
            return None;
        }
        let before = |limit: Option<u64>| limit.map(|limit| limit.saturating_sub(self.position));
        let to_stall = before(self.pace.stall_after);
        let to_truncation = before(self.pace.truncate_after);
        if to_truncation == Some(0) {
            tokio::time::sleep(LAST_BYTES_PAUSE).await;
            return Some(Err(Broken));
        }
        if to_stall == Some(0) {
            return std::future::pending().await;
        }
        let mut length = left.min(CHUNK_BYTES);
        for limit in [to_stall, to_truncation].into_iter().flatten() {
            length = length.min(limit);
        }
        if let Some(rate) = self.pace.bytes_per_second {
            // A tenth of a second at a time is smooth enough for any progress bar.
            length = length.min((rate / 10).max(1));
            let milliseconds = length.saturating_mul(1000) / rate.max(1);
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let chunk = self.read(length).await;
        self.position += length;
        Some(chunk)
    }

    async fn read(&self, length: u64) -> Result<Bytes, Broken> {
        let count = usize::try_from(length).map_err(|_| Broken)?;
        let bytes = match &self.content {
            Content::Bytes(bytes) => {
                let start = usize::try_from(self.position).map_err(|_| Broken)?;
                bytes.slice(start..start + count)
            }
            Content::Disk { disk, offset, .. } => {
                let (disk, offset) = (disk.clone(), offset + self.position);
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; count];
                    disk.read_at(offset, &mut buffer).map(|()| buffer)
                });
                read.await.map_err(|_| Broken)?.map_err(|_| Broken)?.into()
            }
        };
        let flipped = self
            .pace
            .flip_at
            .and_then(|at| usize::try_from(at.checked_sub(self.position)?).ok());
        Ok(match flipped {
            Some(place) if place < count => {
                let mut changed = bytes.to_vec();
                changed[place] ^= 1;
                changed.into()
            }
            _ => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;

    async fn collect(content: Content, pace: Pace) -> (Vec<u8>, bool) {
        let mut body = body(content, pace);
        let mut received = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => received.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(Broken) => return (received, true),
            }
        }
        (received, false)
    }

    fn disk(offset: u64, length: u64) -> Content {
        let bytes: Vec<u8> = (0..=255).cycle().take(600_000).collect();
        Content::Disk {
            disk: Disk::from_bytes(bytes.into()),
            offset,
            length,
        }
    }

    #[tokio::test]
    async fn a_stretch_of_a_disk_arrives_whole() {
        let (received, is_broken) = collect(disk(300, 500_000), Pace::default()).await;
        assert_eq!(received.len(), 500_000);
        assert_eq!(
            (received[0], received[499_999]),
            (44, ((300 + 499_999) % 256) as u8)
        );
        assert!(!is_broken);
    }

    #[tokio::test]
    async fn a_truncated_body_ends_at_its_byte_with_an_error() {
        let pace = Pace {
            truncate_after: Some(300_000),
            flip_at: Some(299_999),
            ..Pace::default()
        };
        let (received, is_broken) = collect(disk(0, 500_000), pace).await;
        assert_eq!(received.len(), 300_000);
        assert_eq!(received[299_999], ((299_999 % 256) as u8) ^ 1);
        assert!(is_broken);
    }
}
