//! Reading what is on this machine already: where it holds nothing else up, and no longer than until a
//! signal comes.

use std::io;
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::DownloadError;
use crate::crc64::Crc64;
use crate::event::{EventKind, Events};

/// How much is read at a time; between two reads a signal is heard.
const READ_BYTES: usize = 1024 * 1024;
/// Whoever has to wait for more than this to be read is told what for.
const WORTH_TELLING_BYTES: u64 = 1 << 30;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) size_bytes: u64,
    pub(super) crc64: Crc64,
    /// In hexadecimal, where it was asked for.
    pub(super) sha256: Option<String>,
}

/// Which digests are wanted beside the CRC-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Crc64,
    Sha256,
}

impl Wanted {
    pub(super) fn sha256_if(is_wanted: bool) -> Self {
        if is_wanted { Self::Sha256 } else { Self::Crc64 }
    }
}

/// Reads the file `path` by `read`, which fills a buffer from a position on and says how far it came,
/// with 0 at the end.
///
/// # Errors
/// [`DownloadError::Interrupted`] as soon as `cancel` says so; [`DownloadError::Disk`] where reading
/// fails.
pub(super) fn digest(
    path: &Path,
    wanted: Wanted,
    cancel: &CancellationToken,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<Digests, DownloadError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut sha256 = (wanted == Wanted::Sha256).then(Sha256::new);
    let (mut size_bytes, mut crc64) = (0, Crc64::default());
    loop {
        if cancel.is_cancelled() {
            return Err(DownloadError::Interrupted);
        }
        let length = match read(&mut buffer, size_bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DownloadError::disk("read", path)(error)),
        };
        crc64 = crc64.extend(&buffer[..length]);
        if let Some(digest) = &mut sha256 {
            digest.update(&buffer[..length]);
        }
        size_bytes += length as u64;
    }
    Ok(Digests {
        size_bytes,
        crc64,
        sha256: sha256.map(|digest| hex::encode(digest.finalize())),
    })
}

/// How much of a buffer of `length` bytes the next read may fill, `done` bytes into `range`.
pub(super) fn next_length(range: &Range<u64>, done: u64, length: usize) -> usize {
    let rest = (range.end - range.start).saturating_sub(done);
    usize::try_from(rest).map_or(length, |rest| rest.min(length))
}

/// Runs `work`, which waits for the disk, where that holds nothing else up.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Says what is done where `bytes` are to be read for it and that takes a while.
pub(super) fn tell(events: &Events, bytes: u64, message: impl FnOnce() -> String) {
    if bytes > WORTH_TELLING_BYTES {
        let message = message();
        events.emit(EventKind::Settled { message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ends_at_the_first_signal() {
        let cancel = CancellationToken::new();
        let mut reads = 0;
        let endless = |buffer: &mut [u8], _| {
            reads += 1;
            if reads == 3 {
                cancel.cancel();
            }
            Ok(buffer.len())
        };
        let ended = digest(Path::new("disk.raw"), Wanted::Crc64, &cancel, endless);
        assert!(
            matches!(ended, Err(DownloadError::Interrupted)),
            "{ended:?}"
        );
        assert_eq!(reads, 3);
    }
}
