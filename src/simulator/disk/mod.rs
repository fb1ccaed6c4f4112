//! The disks that the simulated cloud exports: made up, given as bytes, or a file on this machine.
//!
//! A made-up disk has the size of a real one and the content of a small one. Only the blocks that
//! were written exist; the rest reads as zeros, and the checksum steps over it by arithmetic, so
//! that a disk of 50 GB costs sixty kilobytes and milliseconds. The module knows nothing of
//! images, buckets or requests.

mod sample;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::crc64::Crc64;

/// The unit in which a made-up disk keeps what was written.
const BLOCK_BYTES: usize = 4096;

/// A block that nobody wrote to.
const ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// How much of a file the checksum reads at a time.
const READ_BYTES: usize = 1024 * 1024;

/// The bytes of one disk: a few extents in a sea of zeros, or a file.
#[derive(Clone, Debug)]
pub struct Disk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size_bytes: u64,
    content: Content,
    crc64: OnceLock<u64>,
}

enum Content {
    Blocks(Blocks),
    Memory(Bytes),
    File { file: File, path: PathBuf },
}

/// Says what kind of content it is, and none of the bytes.
impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(blocks) => write!(formatter, "{} blocks", blocks.0.len()),
            Self::Memory(_) => formatter.write_str("memory"),
            Self::File { path, .. } => write!(formatter, "{path:?}"),
        }
    }
}

impl Disk {
    /// Makes up a disk: a GUID partition table in both its copies, an EFI partition and a root
    /// partition, each with a FAT file system and a few readable files.
    ///
    /// The same arguments give the same bytes: identifiers come from `seed` and `label`, times are
    /// fixed. `label` names the disk in its files. A disk of less than 4 MiB has no table; it begins
    /// with the same README that the others hold as a file, as far as there is room.
    #[must_use]
    pub fn sample(size_bytes: u64, seed: &str, label: &str) -> Self {
        let blocks = sample::blocks(size_bytes, seed, label);
        Self::new(size_bytes, Content::Blocks(blocks))
    }

    /// A disk with exactly these bytes.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self::new(bytes.len() as u64, Content::Memory(bytes))
    }

    /// Opens a file or a block device of this machine, to be read where a reader asks and never
    /// loaded as a whole. Its size is the one that it has now.
    ///
    /// # Errors
    /// There is no such file, it is a directory, or it may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // The metadata of a block device say zero; its end does not.
        let size_bytes = file.seek(SeekFrom::End(0))?;
        let path = path.to_owned();
        Ok(Self::new(size_bytes, Content::File { file, path }))
    }

    fn new(size_bytes: u64, content: Content) -> Self {
        Self {
            shared: Arc::new(Shared {
                size_bytes,
                content,
                crc64: OnceLock::new(),
            }),
        }
    }

    /// The size of the disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The range reaches past the end of the disk, or a file can't be read any more.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes()) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} bytes from {offset} on reach past the end of a disk of {} bytes",
                    buffer.len(),
                    self.size_bytes()
                ),
            ));
        }
        match &self.shared.content {
            Content::Blocks(blocks) => blocks.read(offset, buffer),
            Content::Memory(bytes) => {
                // The range was checked against the length of these very bytes.
                let start = usize::try_from(offset).expect("an offset into memory");
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
            }
            Content::File { file, .. } => read_exact_at(file, offset, buffer)?,
        }
        Ok(())
    }

    /// The CRC-64/XZ of the whole disk, which COS calls `x-cos-hash-crc64ecma`. It is computed once.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn crc64(&self) -> io::Result<u64> {
        if let Some(crc) = self.shared.crc64.get() {
            return Ok(*crc);
        }
        // Two callers may both compute it; they get the same number.
        let crc = match &self.shared.content {
            Content::Blocks(blocks) => blocks.crc64(self.size_bytes()),
            Content::Memory(bytes) => Crc64::of(bytes).0,
            Content::File { .. } => self.crc64_by_reading()?,
        };
        Ok(*self.shared.crc64.get_or_init(|| crc))
    }

    fn crc64_by_reading(&self) -> io::Result<u64> {
        let mut buffer = vec![0; READ_BYTES];
        let mut crc = Crc64::default();
        let mut offset = 0;
        while offset < self.size_bytes() {
            let rest = self.size_bytes() - offset;
            let length = usize::try_from(rest).map_or(READ_BYTES, |rest| rest.min(READ_BYTES));
            self.read_at(offset, &mut buffer[..length])?;
            crc = crc.extend(&buffer[..length]);
            offset += length as u64;
        }
        Ok(crc.0)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The blocks that hold something, by their number. What is not here is zero.
#[derive(Debug, Default)]
struct Blocks(BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>);

impl Blocks {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (number, within, piece) in pieces(offset, buffer.len()) {
            let target = &mut buffer[piece];
            match self.0.get(&number) {
                Some(block) => target.copy_from_slice(&block[within..within + target.len()]),
                None => target.fill(0),
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, piece) in pieces(offset, bytes.len()) {
            let source = &bytes[piece];
            // Formatting writes megabytes of zeros over zeros; they must not become blocks.
            if source == &ZERO_BLOCK[..source.len()] && !self.0.contains_key(&number) {
                continue;
            }
            let block = self.0.entry(number).or_insert_with(|| Box::new(ZERO_BLOCK));
            block[within..within + source.len()].copy_from_slice(source);
        }
    }

    fn crc64(&self, size_bytes: u64) -> u64 {
        let mut crc = Crc64::default();
        let mut position = 0;
        for (number, block) in &self.0 {
            let start = number * BLOCK_BYTES as u64;
            let length = (size_bytes - start).min(BLOCK_BYTES as u64);
            crc = crc.extend_by_zeros(start - position);
            crc = crc.extend(&block[..length as usize]);
            position = start + length;
        }
        crc.extend_by_zeros(size_bytes - position).0
    }
}

/// Cuts a range at the borders of blocks: the block's number, the place in the block, and the part
/// of the range that lies there.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let within = (position % BLOCK_BYTES as u64) as usize;
        let start = done;
        done = length.min(start + BLOCK_BYTES - within);
        (start < length).then(|| (position / BLOCK_BYTES as u64, within, start..done))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// The whole disk in memory.
    fn read_all(disk: &Disk) -> Vec<u8> {
        let mut bytes = vec![0xaa; usize::try_from(disk.size_bytes()).expect("a small disk")];
        disk.read_at(0, &mut bytes).expect("readable");
        bytes
    }

    /// The CRC bit by bit, after the definition and nothing else.
    fn plain_crc(bytes: &[u8]) -> u64 {
        let mut register = u64::MAX;
        for byte in bytes {
            register ^= u64::from(*byte);
            for _ in 0..8 {
                let carry = register & 1;
                register = (register >> 1) ^ (carry * 0xC96C_5795_D787_0F42);
            }
        }
        !register
    }

    #[test]
    fn the_checksum_of_a_made_up_disk_is_that_of_its_bytes() {
        let block = BLOCK_BYTES as u64;
        let sizes = [
            0,
            1,
            2,
            511,
            block - 1,
            block,
            block + 1,
            MIB,
            4 * MIB - 1,
            4 * MIB,
            4 * MIB + 1,
            5 * MIB + 513,
        ];
        for size in sizes {
            let disk = Disk::sample(size, "seed", "a disk");
            let bytes = read_all(&disk);
            assert_eq!(bytes.len() as u64, size);
            assert_eq!(
                disk.crc64().expect("a checksum"),
                plain_crc(&bytes),
                "{size} bytes"
            );
            let copy = Disk::from_bytes(bytes.into());
            assert_eq!(disk.crc64().ok(), copy.crc64().ok(), "{size} bytes");
        }
    }

    #[test]
    fn the_last_block_is_cut_where_the_disk_ends() {
        let mut blocks = Blocks::default();
        blocks.write(4090, b"0123456789");
        blocks.write(20_000, b"tail");
        let disk = Disk::new(20_004, Content::Blocks(blocks));
        let bytes = read_all(&disk);
        assert_eq!(&bytes[4090..4100], b"0123456789");
        assert!(bytes[4100..20_000].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[20_000..], b"tail");
        assert_eq!(disk.crc64().expect("a checksum"), plain_crc(&bytes));
    }

    #[test]
    fn writing_zeros_over_nothing_leaves_nothing() {
        let mut blocks = Blocks::default();
        blocks.write(100, &[0; 10_000]);
        assert!(blocks.0.is_empty());
        blocks.write(0, b"x");
        blocks.write(0, &[0]);
        let mut byte = [7];
        blocks.read(0, &mut byte);
        assert_eq!(byte, [0], "a later zero should overwrite");
    }

    #[test]
    fn a_small_disk_is_text_as_far_as_it_goes() {
        let disk = Disk::sample(25, "seed", "a disk");
        assert_eq!(read_all(&disk), b"This is a simulated disk.");
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let disks = [
            Disk::sample(10, "seed", "a disk"),
            Disk::from_bytes(Bytes::from_static(b"0123456789")),
        ];
        for disk in disks {
            assert!(disk.read_at(0, &mut [0; 10]).is_ok(), "{disk:?}");
            assert!(disk.read_at(10, &mut []).is_ok(), "{disk:?}");
            for (offset, length) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 1)] {
                let error = disk
                    .read_at(offset, &mut vec![0; length])
                    .expect_err("past the end");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{disk:?}");
            }
        }
    }

    #[test]
    fn a_file_is_read_where_it_is_asked_for() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let bytes: Vec<u8> = (0..READ_BYTES + 3)
            .map(|number| (number % 251) as u8)
            .collect();
        file.write_all(&bytes).expect("written");
        let disk = Disk::open(file.path()).expect("an open disk");
        assert_eq!(disk.size_bytes(), bytes.len() as u64);
        assert_eq!(read_all(&disk), bytes);
        let mut middle = [0; 5];
        disk.read_at(1000, &mut middle).expect("readable");
        assert_eq!(middle, bytes[1000..1005]);
        assert_eq!(disk.crc64().expect("a checksum"), plain_crc(&bytes));
        assert!(disk.read_at(bytes.len() as u64, &mut [0]).is_err());

        file.as_file().set_len(10).expect("truncated");
        let error = disk.read_at(5, &mut [0; 10]).expect_err("a shrunken file");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn directories_and_missing_files_are_no_disks() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(Disk::open(directory.path()).is_err());
        assert!(Disk::open(&directory.path().join("missing")).is_err());
    }
}
