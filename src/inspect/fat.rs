//! FAT12, FAT16 and FAT32, read only: directories and small files.
//!
//! `fatfs`, which makes the simulated disks, wants to write and computes with whatever numbers it
//! finds, so a crafted disk makes it overflow. Here every number is checked against the partition
//! once, and every chain of clusters has a length at which it is cut.

use std::io;

use super::source::{Window, field, has, u16_at, u32_at};

/// How much of a directory is read: 8192 entries.
const DIRECTORY_LIMIT_BYTES: usize = 256 * 1024;

/// The size of a directory entry.
const ENTRY_BYTES: usize = 32;

/// An entry that holds a piece of a long name.
const LONG_NAME: u8 = 0x0f;

const VOLUME_LABEL: u8 = 0x08;

const DIRECTORY: u8 = 0x10;

/// A FAT file system whose numbers agree with each other.
pub(super) struct Fat {
    window: Window,
    kind: Kind,
    cluster_bytes: usize,
    table_offset: u64,
    data_offset: u64,
    cluster_count: u32,
    root: Root,
    /// The serial number of the volume, as `XXXX-XXXX`.
    pub(super) serial: Option<String>,
    /// The label in the boot sector.
    label: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the root directory lies: FAT32 keeps it among the files.
#[derive(Clone, Copy)]
enum Root {
    Fixed { offset: u64, length: usize },
    Cluster(u32),
}

/// A file, a directory or the volume's label.
struct Entry {
    name: String,
    attributes: u8,
    cluster: u32,
    size_bytes: u32,
}

impl Fat {
    /// Recognises the file system by its boot sector; `None` where the numbers make no sense.
    pub(super) fn open(window: &Window, boot: &[u8]) -> Option<Self> {
        let jump = boot.first()?;
        let sector_bytes = u64::from(u16_at(boot, 11));
        let [sectors_per_cluster, ..] = field::<1>(boot, 13);
        let reserved = u64::from(u16_at(boot, 14));
        let [table_count, ..] = field::<1>(boot, 16);
        let root_entries = usize::from(u16_at(boot, 17));
        let [media, ..] = field::<1>(boot, 21);
        let is_boot_sector = has(boot, 510, &[0x55, 0xaa])
            && matches!(jump, 0xeb | 0xe9)
            && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            && sectors_per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(table_count, 1 | 2)
            && (media == 0xf0 || media >= 0xf8);
        if !is_boot_sector {
            return None;
        }
        let either = |short: u16, long: u32| if short == 0 { long } else { u32::from(short) };
        let total = u64::from(either(u16_at(boot, 19), u32_at(boot, 32)));
        let short_table = u16_at(boot, 22);
        let table_sectors = u64::from(either(short_table, u32_at(boot, 36)));
        let is_fat32 = short_table == 0;
        // The largest of these products is far below what 64 bits hold.
        let root_offset = (reserved + u64::from(table_count) * table_sectors) * sector_bytes;
        let root_length = root_entries * ENTRY_BYTES;
        let root_sectors = (root_length as u64).div_ceil(sector_bytes);
        let data_offset = root_offset + root_sectors * sector_bytes;
        let data_bytes = (total * sector_bytes).checked_sub(data_offset)?;
        let cluster_bytes = u64::from(sectors_per_cluster) * sector_bytes;
        let cluster_count = u32::try_from(data_bytes / cluster_bytes).ok()?;
        if table_sectors == 0 || cluster_count == 0 || is_fat32 != (root_entries == 0) {
            return None;
        }
        let kind = match cluster_count {
            _ if is_fat32 => Kind::Fat32,
            ..4085 => Kind::Fat12,
            _ => Kind::Fat16,
        };
        let root = if is_fat32 {
            Root::Cluster(u32_at(boot, 44))
        } else {
            Root::Fixed {
                offset: root_offset,
                length: root_length,
            }
        };
        let extension = if is_fat32 { 64 } else { 36 };
        let has_serial = has(boot, extension + 2, &[0x29]);
        let serial = u32_at(boot, extension + 3);
        Some(Self {
            window: window.clone(),
            kind,
            cluster_bytes: usize::try_from(cluster_bytes).ok()?,
            table_offset: reserved * sector_bytes,
            data_offset,
            cluster_count,
            root,
            serial: has_serial.then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
            label: has_serial
                .then(|| text(&field::<11>(boot, extension + 7)))
                .filter(|label| !label.is_empty() && label != "NO NAME"),
        })
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    pub(super) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Fat12 => "FAT12",
            Kind::Fat16 => "FAT16",
            Kind::Fat32 => "FAT32",
        }
    }

    /// The label of the volume: the root directory's, which tools change, before the boot sector's.
    pub(super) fn label(&self) -> io::Result<Option<String>> {
        let entries = self.entries(self.root)?;
        let entry = entries
            .into_iter()
            .find(|entry| entry.attributes & (VOLUME_LABEL | DIRECTORY) == VOLUME_LABEL);
        let label = entry.map(|entry| entry.name);
        Ok(label
            .filter(|label| !label.is_empty())
            .or_else(|| self.label.clone()))
    }

    /// The names in the directory at `path`, which is written with slashes; `None` where there is none.
    pub(super) fn names(&self, path: &str) -> io::Result<Option<Vec<String>>> {
        let Some(directory) = self.find(path, true)? else {
            return Ok(None);
        };
        let entries = self.entries(Root::Cluster(directory.cluster))?;
        Ok(Some(entries.into_iter().map(|entry| entry.name).collect()))
    }

    /// The first bytes of the file at `path`; `None` where there is none.
    pub(super) fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.find(path, false)? else {
            return Ok(None);
        };
        let length = usize::try_from(file.size_bytes).map_or(limit, |size| size.min(limit));
        self.chain(file.cluster, length).map(Some)
    }

    fn find(&self, path: &str, is_directory: bool) -> io::Result<Option<Entry>> {
        let mut directory = self.root;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let wants_directory = is_directory || names.peek().is_some();
            let found = self.entries(directory)?.into_iter().find(|entry| {
                entry.name.eq_ignore_ascii_case(name)
                    && entry.attributes & VOLUME_LABEL == 0
                    && (entry.attributes & DIRECTORY != 0) == wants_directory
            });
            match found {
                Some(entry) if names.peek().is_none() => return Ok(Some(entry)),
                Some(entry) => directory = Root::Cluster(entry.cluster),
                None => break,
            }
        }
        Ok(None)
    }

    fn entries(&self, directory: Root) -> io::Result<Vec<Entry>> {
        let bytes = match directory {
            Root::Fixed { offset, length } => self.window.read_up_to(offset, length)?,
            Root::Cluster(first) => self.chain(first, DIRECTORY_LIMIT_BYTES)?,
        };
        let mut entries = Vec::new();
        let mut long_name: Vec<u16> = Vec::new();
        for raw in bytes.chunks_exact(ENTRY_BYTES) {
            let attributes = raw[11];
            match raw[0] {
                0 => break,
                0xe5 => long_name.clear(),
                _ if attributes & 0x3f == LONG_NAME => {
                    if raw[0] & 0x40 != 0 {
                        long_name.clear();
                    }
                    // The pieces stand in the reverse order; a name has 255 units at most.
                    let mut piece: Vec<u16> = [1..11, 14..26, 28..32]
                        .into_iter()
                        .flat_map(|range| raw[range].chunks_exact(2))
                        .map(|unit| u16_at(unit, 0))
                        .collect();
                    piece.append(&mut long_name);
                    piece.truncate(255);
                    long_name = piece;
                }
                _ => {
                    let units = long_name.iter().copied().take_while(|unit| *unit != 0);
                    let long: String = char::decode_utf16(units)
                        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                        .collect();
                    long_name.clear();
                    let is_label = attributes & VOLUME_LABEL != 0;
                    let high = match self.kind {
                        Kind::Fat32 => u32::from(u16_at(raw, 20)),
                        Kind::Fat12 | Kind::Fat16 => 0,
                    };
                    entries.push(Entry {
                        name: match long {
                            long if !long.is_empty() => long,
                            _ if is_label => text(&raw[..11]),
                            _ => short_name(raw),
                        },
                        attributes,
                        cluster: high << 16 | u32::from(u16_at(raw, 26)),
                        size_bytes: u32_at(raw, 28),
                    });
                }
            }
        }
        Ok(entries)
    }

    /// The bytes of a chain of clusters, cut at `limit`, which also ends a chain that is a circle.
    fn chain(&self, first: u32, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        while bytes.len() < limit {
            let index = match cluster.checked_sub(2) {
                Some(index) if index < self.cluster_count => u64::from(index),
                _ => break,
            };
            let offset = self.data_offset + index * self.cluster_bytes as u64;
            let length = self.cluster_bytes.min(limit - bytes.len());
            let piece = self.window.read_up_to(offset, length)?;
            if piece.is_empty() {
                break;
            }
            bytes.extend(piece);
            cluster = self.next(cluster)?;
        }
        Ok(bytes)
    }

    /// What the table says after `cluster`; ends and damage lie beyond the last cluster.
    fn next(&self, cluster: u32) -> io::Result<u32> {
        let cluster = u64::from(cluster);
        let (offset, length) = match self.kind {
            Kind::Fat12 => (cluster * 3 / 2, 2),
            Kind::Fat16 => (cluster * 2, 2),
            Kind::Fat32 => (cluster * 4, 4),
        };
        let bytes = self.window.read_up_to(self.table_offset + offset, length)?;
        let short = u32::from(u16_at(&bytes, 0));
        Ok(match self.kind {
            Kind::Fat12 if cluster % 2 == 1 => short >> 4,
            Kind::Fat12 => short & 0x0fff,
            Kind::Fat16 => short,
            Kind::Fat32 => u32_at(&bytes, 0) & 0x0fff_ffff,
        })
    }
}

/// Text of fixed width without its padding.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// A name of eight and three characters.
fn short_name(raw: &[u8]) -> String {
    let (base, extension) = (text(&raw[..8]), text(&raw[8..11]));
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn open(bytes: Vec<u8>) -> Option<Fat> {
        let boot = bytes[..bytes.len().min(512)].to_vec();
        let window = Window::whole(Cursor::new(bytes)).expect("a disk");
        Fat::open(&window, &boot)
    }

    /// A FAT12 file system of 64 clusters with `etc/os-release` under its long name.
    fn volume() -> Vec<u8> {
        let mut bytes = vec![0; 70 * 512];
        bytes[0] = 0xeb;
        bytes[11..13].copy_from_slice(&512_u16.to_le_bytes());
        bytes[13..17].copy_from_slice(&[1, 1, 0, 1]);
        bytes[17] = 16;
        bytes[19] = 67;
        bytes[21] = 0xf8;
        bytes[22] = 1;
        bytes[38] = 0x29;
        bytes[39..43].copy_from_slice(&[0xef, 0xbe, 0xad, 0xde]);
        bytes[43..54].copy_from_slice(b"THE LABEL  ");
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        // Cluster 2 is `etc`, 3 and 4 the file, all of them ended but 3.
        bytes[512..518].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x4f, 0x00]);
        bytes[518..520].copy_from_slice(&[0xff, 0x0f]);
        let mut entry = |offset: usize, name: &[u8; 11], attributes: u8, cluster: u8, size: u16| {
            bytes[offset..offset + 11].copy_from_slice(name);
            bytes[offset + 11] = attributes;
            bytes[offset + 26] = cluster;
            bytes[offset + 28..offset + 30].copy_from_slice(&size.to_le_bytes());
        };
        entry(1024, b"ETC        ", DIRECTORY, 2, 0);
        entry(1536 + 32, b"OS-REL~1   ", 0x20, 3, 600);
        bytes[1536] = 0x41;
        bytes[1536 + 11] = LONG_NAME;
        let units: Vec<u8> = "os-release\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        bytes[1537..1547].copy_from_slice(&units[..10]);
        bytes[1550..1562].copy_from_slice(&units[10..22]);
        bytes[2048..2648].fill(b'x');
        bytes
    }

    #[test]
    fn files_are_found_by_their_long_names() {
        let fat = open(volume()).expect("a file system");
        assert_eq!(fat.kind_name(), "FAT12");
        assert_eq!(fat.serial.as_deref(), Some("DEAD-BEEF"));
        assert_eq!(fat.label().expect("readable").as_deref(), Some("THE LABEL"));
        let bytes = fat.read("etc/os-release", 1000).expect("readable");
        assert_eq!(bytes, Some(vec![b'x'; 600]));
        assert_eq!(
            fat.names("ETC").expect("readable"),
            Some(vec!["os-release".to_owned()])
        );
        assert_eq!(fat.read("etc", 1000).expect("readable"), None);
        assert_eq!(fat.read("etc/none", 1000).expect("readable"), None);
        assert_eq!(fat.names("none").expect("readable"), None);
    }

    #[test]
    fn a_chain_that_is_a_circle_ends() {
        let mut bytes = volume();
        // Cluster 2 follows itself.
        bytes[515] = 0x02;
        bytes[516] = 0xf0;
        let fat = open(bytes).expect("a file system");
        let names = fat.names("etc").expect("readable").expect("a directory");
        assert!(names.len() <= DIRECTORY_LIMIT_BYTES / ENTRY_BYTES);
        assert!(fat.read("etc/none", 10).expect("readable").is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn damage_is_survived(
            changes in prop::collection::vec((0..2048_usize, any::<u8>()), 1..12),
            length in 512..70 * 512_usize,
        ) {
            let mut bytes = volume();
            for (place, value) in changes {
                bytes[place] = value;
            }
            bytes.truncate(length);
            if let Some(fat) = open(bytes) {
                drop(fat.label());
                drop(fat.names("etc"));
                drop(fat.read("etc/os-release", 1000));
            }
        }
    }
}
