//! ext2, ext3 and ext4: the superblock, and what lies in a few well-known files.
//!
//! `ext4-view` reads the files. It is asked only about superblocks whose numbers are within reason,
//! because it allocates by them, and its journal is kept from it, for the reasons that
//! [`without_journal`] gives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crc_fast::CrcAlgorithm;
use ext4_view::{Ext4, Ext4Error, Ext4Read};

use crate::model::CloudText;

use super::kinds;
use super::report::{FileSystem, FileSystemKind, size_text};
use super::source::{Window, field, has, u16_at, u32_at};
use super::{Look, os_release};

const SUPERBLOCK_OFFSET: u64 = 1024;

const SUPERBLOCK_BYTES: usize = 1024;

/// Blocks of 64 KiB: the largest that any kernel mounts.
const BLOCK_SIZE_LOG_LIMIT: u32 = 6;

/// 16 TiB in blocks of 4 KiB. `ext4-view` reads the descriptors of all groups first.
const GROUP_LIMIT: u64 = 128 * 1024;

/// How much of one file system is read. The descriptors of the largest one are 8 MiB.
const READ_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Descriptors are read one by one, 64 bytes each; this much is read at once in their place.
const READ_AHEAD_BYTES: usize = 32 * 1024;

/// How many entries of a directory are looked at.
const ENTRY_LIMIT: usize = 4096;

const HAS_JOURNAL: u32 = 0x4;

/// The journal holds changes that the file system itself does not.
const NEEDS_RECOVERY: u32 = 0x4;

/// What ext3 knows: directory types, recovery, groups of descriptors; sparse superblocks, large
/// files, indexed directories. A file system with anything else is an ext4.
const EXT3_INCOMPATIBLE: u32 = 0x16;
const EXT3_READ_ONLY: u32 = 0x7;

const METADATA_CHECKSUMS: u32 = 0x400;

/// The superblock, as far as it is needed here.
pub(super) struct Superblock {
    bytes: Vec<u8>,
}

impl Superblock {
    /// Recognises the file system in the first bytes of its partition.
    pub(super) fn find(start: &[u8]) -> Option<Self> {
        let offset = SUPERBLOCK_OFFSET as usize;
        let bytes = start.get(offset..offset + SUPERBLOCK_BYTES)?.to_vec();
        let superblock = Self { bytes };
        let is_superblock = has(&superblock.bytes, 0x38, &[0x53, 0xef])
            && superblock.block_size_log() <= BLOCK_SIZE_LOG_LIMIT
            && superblock.u32(0x20) != 0
            && superblock.u32(0x4c) <= 1;
        is_superblock.then_some(superblock)
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(&self.bytes, offset)
    }

    fn block_size_log(&self) -> u32 {
        self.u32(0x18)
    }

    fn block_bytes(&self) -> u64 {
        1024 << self.block_size_log()
    }

    fn block_count(&self) -> u64 {
        let has_64_bits = self.u32(0x60) & 0x80 != 0;
        let high = if has_64_bits { self.u32(0x150) } else { 0 };
        u64::from(high) << 32 | u64::from(self.u32(4))
    }

    fn size_bytes(&self) -> u64 {
        self.block_count().saturating_mul(self.block_bytes())
    }

    fn needs_recovery(&self) -> bool {
        self.u32(0x60) & NEEDS_RECOVERY != 0
    }

    fn kind(&self) -> FileSystemKind {
        let is_later =
            self.u32(0x60) & !EXT3_INCOMPATIBLE != 0 || self.u32(0x64) & !EXT3_READ_ONLY != 0;
        if is_later {
            FileSystemKind::Ext4
        } else if self.u32(0x5c) & HAS_JOURNAL != 0 {
            FileSystemKind::Ext3
        } else {
            FileSystemKind::Ext2
        }
    }

    /// What the superblock alone says.
    pub(super) fn describe(&self) -> FileSystem {
        let label = self.bytes.get(0x78..0x88).unwrap_or_default();
        let mut detail = format!(
            "{} in blocks of {}",
            size_text(self.size_bytes()),
            size_text(self.block_bytes())
        );
        if self.needs_recovery() {
            detail.push_str("; it was mounted when the disk was copied, and its journal will be replayed at the first mount");
        } else if u16_at(&self.bytes, 0x3a) & 1 == 0 {
            detail.push_str("; it was not unmounted cleanly");
        }
        FileSystem {
            kind: self.kind(),
            label: super::file_systems::label(label),
            uuid: Some(CloudText::new(&kinds::uuid(&field::<16>(
                &self.bytes,
                0x68,
            )))),
            detail: Some(detail),
            kernels: Vec::new(),
        }
    }

    /// Why the files are not looked into, where they are not.
    fn objection(&self) -> Option<&'static str> {
        let groups = self.block_count() / u64::from(self.u32(0x20)).max(1);
        let inode_bytes = u16_at(&self.bytes, 0x58);
        if groups > GROUP_LIMIT {
            Some("it claims too many block groups")
        } else if self.u32(0x4c) == 1 && !inode_bytes.is_power_of_two() {
            Some("its inodes have an impossible size")
        } else {
            None
        }
    }
}

/// The first sectors as a file system without anything to recover.
///
/// A journal is not replayed: it can be a gigabyte, a crafted one makes the reader collect without
/// end, and `ext4-view` refuses whole file systems over journals without checksums. The blocks in
/// place are whole, each in an older version, and the files that are read here change with an
/// upgrade at most.
fn without_journal(superblock: &Superblock) -> Vec<u8> {
    let mut bytes = superblock.bytes.clone();
    // ext4 leaves out the final inversion of CRC-32C.
    let sum =
        |bytes: &[u8]| !(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..0x3fc]) as u32);
    let is_right = sum(&bytes) == u32_at(&bytes, 0x3fc);
    let features = superblock.u32(0x60) & !NEEDS_RECOVERY;
    bytes[0x60..0x64].copy_from_slice(&features.to_le_bytes());
    if superblock.u32(0x64) & METADATA_CHECKSUMS != 0 && is_right {
        let sum = sum(&bytes);
        bytes[0x3fc..].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Looks into the files. It may take long on a disk made to make it so: the caller waits with a
/// limit, and sets `is_cancelled` when it has waited enough.
pub(super) fn look(
    window: &Window,
    superblock: &Superblock,
    is_cancelled: &Arc<AtomicBool>,
) -> Result<Look, String> {
    if let Some(objection) = superblock.objection() {
        return Err(objection.to_owned());
    }
    let reader = Reader {
        window: window.clone(),
        superblock: without_journal(superblock),
        ahead: (0, Vec::new()),
        left_bytes: READ_LIMIT_BYTES,
        is_cancelled: Arc::clone(is_cancelled),
    };
    let file_system = Ext4::load(Box::new(reader)).map_err(|error| error.to_string())?;
    let mut release = None;
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        match read_file(&file_system, path) {
            Ok(bytes) => release = os_release::parse(&bytes),
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => {}
            Err(error) => return Err(format!("{path}: {error}")),
        }
        if release.is_some() {
            break;
        }
    }
    let mut kernels = kernels(&file_system, "/boot");
    if kernels.is_empty() {
        // `/boot` on a partition of its own.
        kernels = self::kernels(&file_system, "/");
    }
    Ok(Look {
        os: release,
        kernels,
    })
}

fn read_file(file_system: &Ext4, path: &str) -> Result<Vec<u8>, Ext4Error> {
    let mut file = file_system.open(path)?;
    let mut bytes = vec![0; os_release::LIMIT_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_bytes(&mut bytes[length..])? {
            0 => break,
            count => length += count,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The kernels in a directory; none where it can't be read.
fn kernels(file_system: &Ext4, path: &str) -> Vec<CloudText> {
    let Ok(entries) = file_system.read_dir(path) else {
        return Vec::new();
    };
    let names = entries
        .take(ENTRY_LIMIT)
        .map_while(Result::ok)
        .map(|entry| String::from_utf8_lossy(entry.file_name().as_ref()).into_owned());
    super::file_systems::kernels(names)
}

/// The partition as `ext4-view` sees it, with a limit on what it may read.
struct Reader {
    window: Window,
    superblock: Vec<u8>,
    /// What was read ahead, and where it begins.
    ahead: (u64, Vec<u8>),
    left_bytes: u64,
    is_cancelled: Arc<AtomicBool>,
}

impl Reader {
    fn fetch(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = self.left_bytes.checked_sub(length as u64);
        self.left_bytes =
            left.ok_or_else(|| io::Error::other("more would have to be read than is sensible"))?;
        self.window.read_up_to(offset, length)
    }

    fn serve(&mut self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if offset == SUPERBLOCK_OFFSET && target.len() == SUPERBLOCK_BYTES {
            target.copy_from_slice(&self.superblock);
            return Ok(());
        }
        let cached = |(start, bytes): &(u64, Vec<u8>)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            let to = from.checked_add(target.len())?;
            (to <= bytes.len()).then_some(from..to)
        };
        if let Some(range) = cached(&self.ahead) {
            target.copy_from_slice(&self.ahead.1[range]);
            return Ok(());
        }
        let bytes = self.fetch(offset, target.len().max(READ_AHEAD_BYTES))?;
        let wanted = bytes.get(..target.len());
        target.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.ahead = (offset, bytes);
        Ok(())
    }
}

impl Ext4Read for Reader {
    fn read(
        &mut self,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.serve(offset, target)?)
    }
}
