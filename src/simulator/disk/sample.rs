//! The content of a made-up disk: partition tables, file systems and a few files, as blocks.

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gptman::{GPT, GPTPartitionEntry};
use sha2::{Digest, Sha256};

use super::Blocks;

const SECTOR_BYTES: u64 = 512;

const MIB: u64 = 1024 * 1024;

/// Where tables and partitions are aligned to, by the habit of every partitioning tool.
const ALIGNMENT_BYTES: u64 = MIB;

/// The smallest disk that holds both tables and two partitions of one alignment step each.
const PARTITIONED_FROM_BYTES: u64 = 4 * ALIGNMENT_BYTES;

/// The EFI partition of a disk that has room for it. At 512 bytes a cluster this is well above the
/// 65 525 clusters from which a file system counts as FAT32.
const EFI_BYTES: u64 = 64 * MIB;

/// Formatting writes the whole allocation table, which grows with the partition; this limit keeps
/// the work of a disk of many terabytes that of a disk of 64 GiB.
const ROOT_LIMIT_BYTES: u64 = 64 * 1024 * MIB;

/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B, "EFI System Partition", in the byte order of the table.
const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, "basic data", the type of a FAT partition.
const BASIC_DATA: [u8; 16] = [
    0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
];

/// The blocks of a made-up disk; [`Disk::sample`](super::Disk::sample) says what is on it.
pub(super) fn blocks(size_bytes: u64, seed: &str, label: &str) -> Blocks {
    let mut blocks = Blocks::default();
    let identity = Identity { seed, label };
    if size_bytes < PARTITIONED_FROM_BYTES {
        let text = readme(label, size_bytes);
        let room = usize::try_from(size_bytes).map_or(text.len(), |room| room.min(text.len()));
        blocks.write(0, &text.as_bytes()[..room]);
    } else {
        // Every stream in here is in memory, and the sizes are ours.
        partition(&mut blocks, size_bytes, identity).expect("two partitions fit the disk");
    }
    blocks
}

/// What tells one made-up disk from another.
#[derive(Clone, Copy)]
struct Identity<'a> {
    seed: &'a str,
    label: &'a str,
}

impl Identity<'_> {
    /// Bytes for one `purpose` on this disk.
    fn bytes(self, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [self.seed, self.label, purpose] {
            // Lengths keep `ab`, `c` and `a`, `bc` apart.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// A GUID in the table's byte order, of the form that random ones have.
    fn guid(self, purpose: &str) -> [u8; 16] {
        let mut guid = [0; 16];
        guid.copy_from_slice(&self.bytes(purpose)[..16]);
        guid[7] = guid[7] & 0x0f | 0x40;
        guid[8] = guid[8] & 0x3f | 0x80;
        guid
    }

    /// The serial number of a FAT volume.
    fn serial(self, purpose: &str) -> u32 {
        let [a, b, c, d, ..] = self.bytes(purpose);
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Lays out the whole disk: both tables, both partitions, their file systems.
fn partition(blocks: &mut Blocks, size_bytes: u64, identity: Identity<'_>) -> io::Result<()> {
    // One step each at the front and at the end is left to the tables.
    let steps = size_bytes / ALIGNMENT_BYTES - 2;
    let efi_bytes = (steps / 4).clamp(1, EFI_BYTES / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    let root_bytes = (steps * ALIGNMENT_BYTES - efi_bytes).min(ROOT_LIMIT_BYTES);
    let efi_start = ALIGNMENT_BYTES;
    let root_start = efi_start + efi_bytes;

    let entry =
        |kind, purpose, name: &str, start_bytes: u64, length_bytes: u64| GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: identity.guid(purpose),
            starting_lba: start_bytes / SECTOR_BYTES,
            ending_lba: (start_bytes + length_bytes) / SECTOR_BYTES - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    let mut disk = Window::new(blocks, 0, size_bytes);
    let mut table =
        GPT::new_from(&mut disk, SECTOR_BYTES, identity.guid("disk")).map_err(io::Error::other)?;
    table[1] = entry(
        EFI_SYSTEM,
        "efi",
        "EFI System Partition",
        efi_start,
        efi_bytes,
    );
    table[2] = entry(BASIC_DATA, "root", "simulated root", root_start, root_bytes);
    GPT::write_protective_mbr_into(&mut disk, SECTOR_BYTES).map_err(io::Error::other)?;
    table.write_into(&mut disk).map_err(io::Error::other)?;

    let readme = readme(identity.label, size_bytes);
    let efi = Volume {
        serial: identity.serial("efi volume"),
        label: b"SIM EFI    ",
        kind: (efi_bytes == EFI_BYTES).then_some(FatType::Fat32),
        files: &[
            ("README.TXT", &readme),
            (
                "EFI/BOOT/BOOTX64.EFI",
                "This is no program: a simulated disk does not boot.\r\n",
            ),
        ],
    };
    efi.write(Window::new(blocks, efi_start, efi_bytes))?;
    let root = Volume {
        serial: identity.serial("root volume"),
        label: b"SIM ROOT   ",
        kind: None,
        files: &[
            ("README.TXT", &readme),
            ("etc/hostname", "simulated\n"),
            (
                "etc/os-release",
                "ID=simulated\nNAME=\"Simulated disk\"\nPRETTY_NAME=\"A disk that was made up by the cvm-export simulator\"\n",
            ),
        ],
    };
    root.write(Window::new(blocks, root_start, root_bytes))
}

/// What a person who opens the disk should read first. Lines end as FAT's own tools expect.
fn readme(label: &str, size_bytes: u64) -> String {
    format!(
        "This is a simulated disk.\r\n\
         \r\n\
         The simulator of cvm-export made it up to rehearse an export. It never was\r\n\
         in Tencent Cloud, it does not boot, and nothing on it is worth keeping.\r\n\
         \r\n\
         Disk: {label}\r\n\
         Size: {size_bytes} bytes\r\n"
    )
}

/// A FAT file system to be made.
struct Volume<'a> {
    serial: u32,
    label: &'a [u8; 11],
    /// The width of the table, where it does not follow from the size.
    kind: Option<FatType>,
    files: &'a [(&'a str, &'a str)],
}

impl Volume<'_> {
    fn write(&self, mut window: Window<'_>) -> io::Result<()> {
        let mut options = FormatVolumeOptions::new()
            .volume_id(self.serial)
            .volume_label(*self.label);
        if let Some(kind) = self.kind {
            options = options.fat_type(kind);
        }
        fatfs::format_volume(&mut window, options)?;

        let options = FsOptions::new().time_provider(&FixedTime);
        let file_system = FileSystem::new(&mut window, options)?;
        for (path, text) in self.files {
            let root = file_system.root_dir();
            for (slash, _) in path.match_indices('/') {
                root.create_dir(&path[..slash])?;
            }
            root.create_file(path)?.write_all(text.as_bytes())?;
        }
        file_system.unmount()
    }
}

/// The time that every file of a made-up disk carries, so that the same disk has the same bytes.
#[derive(Debug)]
struct FixedTime;

impl fatfs::TimeProvider for FixedTime {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 2020,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// A stretch of the disk as the stream that the table and the file systems are written to.
struct Window<'a> {
    blocks: &'a mut Blocks,
    start_bytes: u64,
    length_bytes: u64,
    position: u64,
}

impl<'a> Window<'a> {
    fn new(blocks: &'a mut Blocks, start_bytes: u64, length_bytes: u64) -> Self {
        Self {
            blocks,
            start_bytes,
            length_bytes,
            position: 0,
        }
    }

    /// Moves on by at most `wanted` bytes and returns where the step began and how long it was.
    fn advance(&mut self, wanted: usize) -> (u64, usize) {
        let room = self.length_bytes.saturating_sub(self.position);
        let count = usize::try_from(room).map_or(wanted, |room| room.min(wanted));
        let offset = self.start_bytes + self.position;
        self.position += count as u64;
        (offset, count)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (offset, count) = self.advance(buffer.len());
        self.blocks.read(offset, &mut buffer[..count]);
        Ok(count)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (offset, count) = self.advance(bytes.len());
        self.blocks.write(offset, &bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(distance) => self.length_bytes.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BLOCK_BYTES, Content, Disk};
    use super::*;

    const GIB: u64 = 1024 * MIB;

    /// A copy of the blocks of a made-up disk, to be read through a window.
    fn blocks_of(disk: &Disk) -> Blocks {
        match &disk.shared.content {
            Content::Blocks(blocks) => Blocks(blocks.0.clone()),
            other => panic!("a made-up disk should consist of blocks, not of {other:?}"),
        }
    }

    fn partitions(disk: &Disk) -> Vec<(String, u64, u64)> {
        let mut blocks = blocks_of(disk);
        let mut window = Window::new(&mut blocks, 0, disk.size_bytes());
        let table = GPT::find_from(&mut window).expect("a partition table");
        table
            .iter()
            .filter(|(_, entry)| entry.is_used())
            .map(|(_, entry)| {
                let length = entry.size().expect("a positive size") * SECTOR_BYTES;
                let start = entry.starting_lba * SECTOR_BYTES;
                (entry.partition_name.to_string(), start, length)
            })
            .collect()
    }

    fn read_file(disk: &Disk, start: u64, length: u64, path: &str) -> (FatType, String) {
        let mut blocks = blocks_of(disk);
        let window = Window::new(&mut blocks, start, length);
        let file_system = FileSystem::new(window, FsOptions::new()).expect("a file system");
        let mut text = String::new();
        let mut file = file_system.root_dir().open_file(path).expect(path);
        file.read_to_string(&mut text).expect("readable text");
        (file_system.fat_type(), text)
    }

    #[test]
    fn the_partition_table_reads_back_from_either_end() {
        let disk = Disk::sample(50 * GIB, "img-1", "system disk");
        let found = partitions(&disk);
        assert_eq!(
            found,
            [
                ("EFI System Partition".to_owned(), MIB, 64 * MIB),
                ("simulated root".to_owned(), 65 * MIB, 50 * GIB - 66 * MIB),
            ]
        );

        let mut blocks = blocks_of(&disk);
        let mut window = Window::new(&mut blocks, 0, disk.size_bytes());
        let primary = GPT::read_from(&mut window, SECTOR_BYTES).expect("the primary table");
        assert!(primary.is_primary());
        blocks.write(SECTOR_BYTES, &[0; 512]);
        let mut window = Window::new(&mut blocks, 0, disk.size_bytes());
        let backup = GPT::read_from(&mut window, SECTOR_BYTES).expect("the backup table");
        assert!(backup.is_backup());
        assert_eq!(backup.header.disk_guid, primary.header.disk_guid);
        assert!(backup.iter().eq(primary.iter()));

        let mut signature = [0; 2];
        disk.read_at(510, &mut signature).expect("the first sector");
        assert_eq!(signature, [0x55, 0xaa]);
    }

    #[test]
    fn the_file_systems_read_back() {
        for size in [4 * MIB, 33 * MIB + 7, GIB, 50 * GIB] {
            let disk = Disk::sample(size, "img-1", "system disk of img-1");
            let [(_, efi, efi_length), (_, root, root_length)] = partitions(&disk)
                .try_into()
                .unwrap_or_else(|found| panic!("two partitions, not {found:?}"));
            let (kind, readme) = read_file(&disk, efi, efi_length, "README.TXT");
            assert!(readme.contains("This is a simulated disk"), "{readme}");
            assert!(
                readme.contains("Disk: system disk of img-1\r\n"),
                "{readme}"
            );
            assert!(readme.contains(&format!("Size: {size} bytes")), "{readme}");
            assert_eq!(kind == FatType::Fat32, size >= GIB, "{size} bytes");
            let (kind, release) = read_file(&disk, root, root_length, "etc/os-release");
            assert!(release.contains("ID=simulated\n"), "{release}");
            assert_eq!(kind == FatType::Fat32, size >= GIB, "{size} bytes");
        }
    }

    #[test]
    fn every_size_can_be_made() {
        let odd_sizes = (0..64).map(|step| step * 37 * MIB + step);
        let round_sizes = (4..80).map(|count| count * MIB);
        let large_sizes = [20 * GIB, 64 * GIB, 66 * GIB, 1024 * GIB, 32_000 * GIB];
        for size in odd_sizes.chain(round_sizes).chain(large_sizes) {
            let disk = Disk::sample(size, "seed", "a disk");
            assert_eq!(disk.size_bytes(), size);
            assert!(disk.crc64().is_ok(), "{size} bytes");
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_bytes() {
        let crc = |seed, label| Disk::sample(GIB, seed, label).crc64().expect("a checksum");
        let first = crc("img-1", "system");
        assert_eq!(first, crc("img-1", "system"));
        assert_ne!(first, crc("img-2", "system"));
        assert_ne!(first, crc("img-1", "data"));
        assert_ne!(crc("a", "bc"), crc("ab", "c"));
    }

    #[test]
    fn a_large_disk_takes_little_memory() {
        let disk = Disk::sample(50 * GIB, "seed", "a disk");
        let count = blocks_of(&disk).0.len();
        assert!(count < 100, "{count} blocks of {BLOCK_BYTES} bytes");
    }
}
