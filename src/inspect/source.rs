//! The bytes under inspection, read where they are asked for and never past their end.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

/// What can be inspected: a file, a block device, or bytes in memory.
///
/// The bounds are those of a reader that may be handed to another thread, where file systems are
/// looked into under a deadline.
pub trait Source: Read + Seek + Send + 'static {}

impl<T: Read + Seek + Send + 'static> Source for T {}

/// A stretch of the source: the whole disk, or one partition. Clones read the same source.
#[derive(Clone)]
pub(super) struct Window {
    source: Arc<Mutex<dyn Source>>,
    start: u64,
    length: u64,
}

impl Window {
    /// The whole of `source`. Its size is the one that it has now.
    pub(super) fn whole(mut source: impl Source) -> io::Result<Self> {
        // The metadata of a block device say zero; its end does not.
        let length = source.seek(SeekFrom::End(0))?;
        Ok(Self {
            source: Arc::new(Mutex::new(source)),
            start: 0,
            length,
        })
    }

    /// The stretch of `length` bytes from `start` on, as far as it exists.
    pub(super) fn part(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        Self {
            source: Arc::clone(&self.source),
            start: self.start + start,
            length: length.min(self.length - start),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A reader that panicked left a position behind, and every read sets its own.
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.seek(SeekFrom::Start(self.start + offset))?;
        source.read_exact(buffer)
    }

    /// At most `length` bytes from `offset` on; fewer where the stretch ends.
    pub(super) fn read_up_to(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let room = self.length.saturating_sub(offset);
        let length = usize::try_from(room).map_or(length, |room| room.min(length));
        let mut bytes = vec![0; length];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// `N` bytes at `offset`, or zeros where there are none: a field of a structure that is too short is
/// as good as a field of zeros, which no check lets through.
pub(super) fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}

/// Whether `magic` stands at `offset`.
pub(super) fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes
        .get(offset..)
        .is_some_and(|rest| rest.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_window_never_reads_past_its_end() {
        let disk = Window::whole(Cursor::new((0..100).collect::<Vec<u8>>())).expect("a disk");
        let part = disk.part(90, 50);
        assert_eq!(part.length(), 10);
        assert_eq!(part.read_up_to(8, 50).expect("two bytes"), [98, 99]);
        assert!(part.read_up_to(10, 5).expect("the end").is_empty());
        assert!(part.read_up_to(11, 5).is_err());
        assert!(part.read_at(5, &mut [0; 6]).is_err());
        assert!(part.read_at(u64::MAX, &mut [0; 1]).is_err());
        assert_eq!(disk.part(u64::MAX, u64::MAX).length(), 0);
        assert_eq!(part.part(5, u64::MAX).length(), 5);
    }

    #[test]
    fn a_field_that_is_cut_off_is_zero() {
        assert_eq!(u32_at(&[1, 2, 3], 0), 0);
        assert_eq!(u16_at(&[1, 2, 3], 1), 0x0302);
        assert_eq!(u64_at(&[], usize::MAX), 0);
        assert!(!has(&[1, 2], 1, &[2, 3]));
        assert!(has(&[1, 2], 1, &[2]));
    }
}
