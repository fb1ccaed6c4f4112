//! Partition tables: the GUID partition table in both its copies, and the master boot record.
//!
//! Nothing in a table is believed before it was compared with the disk. The master boot record is
//! read here and not by a crate: it is four entries of sixteen bytes, and the crate for it follows
//! a chain of extended records that overflows or never ends on a disk made to do so.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};

use gptman::{GPTHeader, GPTPartitionEntry};

use crate::model::CloudText;

use super::kinds::{self, PROTECTIVE, Role};
use super::report::PartitionTable;
use super::source::{Window, field, has, u32_at};

/// The unit of a master boot record, and of a GUID partition table on all but native 4K disks.
const SECTOR_BYTES: u64 = 512;

/// The units in which a GUID partition table may count.
const SECTOR_SIZES: [u64; 2] = [SECTOR_BYTES, 4096];

/// More entries than any tool makes (the habit is 128): a table that claims more is not read.
const ENTRY_LIMIT: u32 = 1024;

/// The only size of an entry in use, and the one that `gptman` reads.
const ENTRY_BYTES: u32 = 128;

/// How many partitions a chain of extended records may hold; Linux stops at 256, tools at 60.
const LOGICAL_LIMIT: usize = 128;

/// Attribute bit 2 of an entry: a legacy BIOS may boot from it.
const LEGACY_BOOT: u64 = 1 << 2;

/// A partition as the table describes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) start_bytes: u64,
    pub(super) size_bytes: u64,
    pub(super) kind: String,
    pub(super) role: Role,
    pub(super) name: Option<CloudText>,
    pub(super) is_bootable: bool,
}

/// Reads the table of `disk`, whose first bytes are `start`.
pub(super) fn read(
    disk: &Window,
    start: &[u8],
    warnings: &mut Vec<String>,
) -> io::Result<Option<(PartitionTable, Vec<Entry>)>> {
    if let Some(found) = read_gpt(disk, start, warnings)? {
        return Ok(Some(found));
    }
    read_mbr(disk, start, warnings)
}

/// One copy of a GUID partition table whose checksums are right.
struct Copy {
    header: GPTHeader,
    entries: Vec<GPTPartitionEntry>,
}

fn read_gpt(
    disk: &Window,
    start: &[u8],
    warnings: &mut Vec<String>,
) -> io::Result<Option<(PartitionTable, Vec<Entry>)>> {
    // Whoever divides a disk anew by a boot record may leave the old table's backup at the end.
    let used = slots(start).map(|slots| slots.map(|slot| slot.is_used().then_some(slot.kind)));
    let is_replaced = used.is_some_and(|kinds| {
        kinds.iter().any(Option::is_some) && !kinds.contains(&Some(PROTECTIVE))
    });
    for sector_bytes in SECTOR_SIZES {
        let last_lba = (disk.length() / sector_bytes).saturating_sub(1);
        let primary = read_copy(disk, 1, sector_bytes)?;
        let backup_lba = match &primary {
            Some(primary) => primary.header.backup_lba,
            None => last_lba,
        };
        let backup = read_copy(disk, backup_lba, sector_bytes)?;
        let Some(copy) = primary.as_ref().or(backup.as_ref()) else {
            continue;
        };
        if primary.is_none() && is_replaced {
            continue;
        }
        let is_same = |other: &Copy| {
            other.header.disk_guid == copy.header.disk_guid && other.entries == copy.entries
        };
        let backup_ok = backup.as_ref().is_some_and(is_same);
        if primary.is_none() {
            warnings.push("the primary partition table is broken; its backup was read".to_owned());
        } else if backup_lba > last_lba {
            warnings.push(
                "the partition table is that of a larger disk: the image was cut short".to_owned(),
            );
        } else if !backup_ok {
            warnings.push("the backup of the partition table is broken or differs".to_owned());
        } else if backup_lba != last_lba {
            warnings.push(
                "the backup of the partition table is not at the end: the disk was enlarged"
                    .to_owned(),
            );
        }
        let table = PartitionTable::Gpt {
            disk_guid: kinds::guid(copy.header.disk_guid),
            primary_ok: primary.is_some(),
            backup_ok,
            sector_bytes,
        };
        let entries = (1..).zip(&copy.entries);
        let used = entries.filter(|(_, entry)| entry.is_used());
        return Ok(Some((
            table,
            used.map(|(number, entry)| gpt_entry(number, entry, sector_bytes, warnings))
                .collect(),
        )));
    }
    Ok(None)
}

/// Reads the copy whose header is at `lba`; `None` where there is no whole one.
fn read_copy(disk: &Window, lba: u64, sector_bytes: u64) -> io::Result<Option<Copy>> {
    let Some(offset) = lba.checked_mul(sector_bytes) else {
        return Ok(None);
    };
    if offset >= disk.length() {
        return Ok(None);
    }
    let sector = disk.read_up_to(offset, SECTOR_BYTES as usize)?;
    let Ok(header) = GPTHeader::read_from(&mut Cursor::new(sector)) else {
        return Ok(None);
    };
    // `gptman` asserts what it has not checked; none of this may reach it.
    let count = header.number_of_partition_entries;
    if header.primary_lba != lba
        || header.size_of_partition_entry != ENTRY_BYTES
        || !(1..=ENTRY_LIMIT).contains(&count)
    {
        return Ok(None);
    }
    let length = count as usize * ENTRY_BYTES as usize;
    let offset = header.partition_entry_lba.checked_mul(sector_bytes);
    let array = match offset {
        Some(offset) if offset < disk.length() => disk.read_up_to(offset, length)?,
        _ => return Ok(None),
    };
    if array.len() < length {
        return Ok(None);
    }
    let entries: Result<Vec<_>, _> = array
        .chunks_exact(ENTRY_BYTES as usize)
        // It reads as many bytes as its own type has, which are more than an entry's.
        .map(|entry| GPTPartitionEntry::read_from(&mut entry.chain(io::repeat(0))))
        .collect();
    let Ok(entries) = entries else {
        return Ok(None);
    };
    let sum = header.generate_partition_entry_array_crc32(&entries);
    Ok((sum == header.partition_entry_array_crc32).then_some(Copy { header, entries }))
}

fn gpt_entry(
    number: u32,
    entry: &GPTPartitionEntry,
    sector_bytes: u64,
    warnings: &mut Vec<String>,
) -> Entry {
    let bytes = |sectors: u64| sectors.saturating_mul(sector_bytes);
    let size = entry.ending_lba.checked_sub(entry.starting_lba);
    if size.is_none() {
        warnings.push(format!("partition {number} ends before it begins"));
    }
    let (kind, role) = kinds::of_guid(entry.partition_type_guid);
    let name = CloudText::new(entry.partition_name.as_str());
    Entry {
        number,
        start_bytes: bytes(entry.starting_lba),
        size_bytes: size.map_or(0, |size| bytes(size.saturating_add(1))),
        kind,
        role,
        name: (!name.as_str().is_empty()).then_some(name),
        is_bootable: entry.attribute_bits & LEGACY_BOOT != 0,
    }
}

/// One of the four entries of a boot record.
#[derive(Clone, Copy)]
struct Slot {
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Slot {
    fn is_used(self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    fn entry(self, number: u32, start_sector: u64) -> Entry {
        let (kind, role) = kinds::of_mbr(self.kind);
        Entry {
            number,
            start_bytes: start_sector * SECTOR_BYTES,
            size_bytes: u64::from(self.sectors) * SECTOR_BYTES,
            kind,
            role,
            name: None,
            is_bootable: self.status == 0x80,
        }
    }
}

/// The entries of the boot record in `sector`, where it is one.
fn slots(sector: &[u8]) -> Option<[Slot; 4]> {
    let slots = [446, 462, 478, 494].map(|offset| {
        let entry: [u8; 16] = field(sector, offset);
        Slot {
            status: entry[0],
            kind: entry[4],
            start: u32_at(&entry, 8),
            sectors: u32_at(&entry, 12),
        }
    });
    // The signature ends the boot sector of a file system as well; then code stands in the entries.
    let is_record =
        has(sector, 510, &[0x55, 0xaa]) && slots.iter().all(|slot| matches!(slot.status, 0 | 0x80));
    is_record.then_some(slots)
}

fn read_mbr(
    disk: &Window,
    start: &[u8],
    warnings: &mut Vec<String>,
) -> io::Result<Option<(PartitionTable, Vec<Entry>)>> {
    let Some(slots) = slots(start).filter(|slots| slots.iter().any(|slot| slot.is_used())) else {
        return Ok(None);
    };
    let mut entries = Vec::new();
    let mut extended = None;
    for (number, slot) in (1..).zip(slots) {
        if !slot.is_used() {
            continue;
        }
        if slot.kind == PROTECTIVE {
            warnings.push(
                "a GUID partition table is announced, and neither of its copies can be read"
                    .to_owned(),
            );
        }
        if kinds::is_extended(slot.kind) && extended.is_none() {
            extended = Some(slot);
        }
        entries.push(slot.entry(number, u64::from(slot.start)));
    }
    if let Some(extended) = extended {
        entries.extend(read_logical(disk, extended, warnings)?);
    }
    let table = PartitionTable::Mbr {
        disk_id: format!("{:08x}", u32_at(start, 440)),
    };
    Ok(Some((table, entries)))
}

/// Follows the chain of boot records in an extended partition, each of which holds one partition
/// and points at the next.
fn read_logical(
    disk: &Window,
    extended: Slot,
    warnings: &mut Vec<String>,
) -> io::Result<Vec<Entry>> {
    let base = u64::from(extended.start);
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    let mut next = base;
    loop {
        let offset = next * SECTOR_BYTES;
        if !seen.insert(next) || seen.len() > LOGICAL_LIMIT {
            warnings.push("the chain of logical partitions does not end".to_owned());
            break;
        }
        if offset >= disk.length() {
            warnings.push("the chain of logical partitions leaves the disk".to_owned());
            break;
        }
        let sector = disk.read_up_to(offset, SECTOR_BYTES as usize)?;
        let Some([partition, link, ..]) = slots(&sector) else {
            // An extended partition without any record is an empty one.
            if next != base {
                warnings.push("the chain of logical partitions is broken".to_owned());
            }
            break;
        };
        if partition.is_used() {
            let number = 5 + u32::try_from(entries.len()).unwrap_or(u32::MAX - 5);
            entries.push(partition.entry(number, next + u64::from(partition.start)));
        }
        if !kinds::is_extended(link.kind) || link.sectors == 0 {
            break;
        }
        next = base + u64::from(link.start);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use gptman::GPT;

    use super::*;

    const DISK_BYTES: usize = 1 << 20;

    type Found = Option<(PartitionTable, Vec<Entry>)>;

    fn read_all(bytes: Vec<u8>) -> (Found, Vec<String>) {
        let start = bytes[..bytes.len().min(512)].to_vec();
        let disk = Window::whole(Cursor::new(bytes)).expect("a disk");
        let mut warnings = Vec::new();
        let found = read(&disk, &start, &mut warnings).expect("readable");
        (found, warnings)
    }

    fn write_slot(bytes: &mut [u8], sector: usize, index: usize, slot: Slot) {
        let offset = sector * 512 + 446 + 16 * index;
        bytes[offset] = slot.status;
        bytes[offset + 4] = slot.kind;
        bytes[offset + 8..offset + 12].copy_from_slice(&slot.start.to_le_bytes());
        bytes[offset + 12..offset + 16].copy_from_slice(&slot.sectors.to_le_bytes());
        bytes[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn slot(kind: u8, start: u32, sectors: u32) -> Slot {
        Slot {
            status: 0,
            kind,
            start,
            sectors,
        }
    }

    fn gpt_disk() -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; DISK_BYTES]);
        let mut table = GPT::new_from(&mut disk, 512, [7; 16]).expect("a table");
        table[3] = GPTPartitionEntry {
            partition_type_guid: [9; 16],
            unique_partition_guid: [8; 16],
            starting_lba: 100,
            ending_lba: 199,
            attribute_bits: 4,
            partition_name: "a\u{1b}[31mb".into(),
        };
        table.write_into(&mut disk).expect("written");
        disk.into_inner()
    }

    #[test]
    fn a_guid_partition_table_is_read_with_both_its_copies() {
        let (found, warnings) = read_all(gpt_disk());
        let (table, entries) = found.expect("a table");
        assert!(
            matches!(
                table,
                PartitionTable::Gpt {
                    primary_ok: true,
                    backup_ok: true,
                    sector_bytes: 512,
                    ..
                }
            ),
            "{table:?}"
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        let [entry] = entries.as_slice() else {
            panic!("one partition, not {entries:?}")
        };
        assert_eq!((entry.number, entry.is_bootable), (3, true));
        assert_eq!((entry.start_bytes, entry.size_bytes), (51_200, 51_200));
        assert_eq!(entry.name.as_ref().expect("a name"), &"a [31mb");
    }

    #[test]
    fn a_broken_copy_is_replaced_by_the_other_and_said() {
        let mut bytes = gpt_disk();
        bytes[600] ^= 1;
        let (found, warnings) = read_all(bytes);
        let (table, entries) = found.expect("the backup");
        assert!(matches!(
            table,
            PartitionTable::Gpt {
                primary_ok: false,
                backup_ok: true,
                ..
            }
        ));
        assert_eq!(entries.len(), 1);
        assert!(warnings[0].contains("primary"), "{warnings:?}");

        let mut bytes = gpt_disk();
        bytes[600] ^= 1;
        write_slot(&mut bytes, 0, 0, slot(0x83, 10, 20));
        let (found, _) = read_all(bytes);
        let (table, _) = found.expect("the boot record");
        assert!(matches!(table, PartitionTable::Mbr { .. }), "{table:?}");

        let mut bytes = gpt_disk();
        bytes.truncate(DISK_BYTES / 2);
        let (found, warnings) = read_all(bytes);
        assert!(found.is_some());
        assert!(warnings[0].contains("cut short"), "{warnings:?}");

        let mut bytes = gpt_disk();
        bytes.resize(2 * DISK_BYTES, 0);
        let (_, warnings) = read_all(bytes);
        assert!(warnings[0].contains("enlarged"), "{warnings:?}");
    }

    #[test]
    fn numbers_that_can_not_be_right_are_survived() {
        // Headers whose checksum is right and whose numbers would make `gptman` panic.
        type Damage = fn(&mut GPTHeader);
        let damages: [Damage; 5] = [
            |header| header.number_of_partition_entries = u32::MAX,
            |header| header.number_of_partition_entries = 0,
            |header| header.size_of_partition_entry = 1,
            |header| header.size_of_partition_entry = u32::MAX,
            |header| header.partition_entry_lba = u64::MAX,
        ];
        for damage in damages {
            let (found, _) = read_all(damaged(damage));
            let (table, _) = found.expect("the backup");
            assert!(matches!(
                table,
                PartitionTable::Gpt {
                    primary_ok: false,
                    ..
                }
            ));
        }
        let (found, warnings) = read_all(damaged(|header| header.backup_lba = u64::MAX));
        assert!(found.is_some());
        assert!(warnings[0].contains("cut short"), "{warnings:?}");

        let entry = GPTPartitionEntry {
            starting_lba: u64::MAX,
            ..GPTPartitionEntry::empty()
        };
        let entry = gpt_entry(1, &entry, 4096, &mut Vec::new());
        assert_eq!((entry.start_bytes, entry.size_bytes), (u64::MAX, 0));
    }

    /// A disk whose primary header was changed, with a checksum that is right.
    fn damaged(damage: impl Fn(&mut GPTHeader)) -> Vec<u8> {
        let mut bytes = gpt_disk();
        let mut header =
            GPTHeader::read_from(&mut Cursor::new(&bytes[512..1024])).expect("the primary header");
        damage(&mut header);
        header.update_crc32_checksum();
        let fields: [(usize, &[u8]); 5] = [
            (16, &header.crc32_checksum.to_le_bytes()),
            (32, &header.backup_lba.to_le_bytes()),
            (72, &header.partition_entry_lba.to_le_bytes()),
            (80, &header.number_of_partition_entries.to_le_bytes()),
            (84, &header.size_of_partition_entry.to_le_bytes()),
        ];
        for (offset, value) in fields {
            bytes[512 + offset..512 + offset + value.len()].copy_from_slice(value);
        }
        GPTHeader::read_from(&mut Cursor::new(&bytes[512..1024]))
            .expect("a header with a right checksum");
        bytes
    }

    #[test]
    fn logical_partitions_are_numbered_from_five() {
        let mut bytes = vec![0; DISK_BYTES];
        write_slot(&mut bytes, 0, 0, slot(0x83, 10, 20));
        write_slot(&mut bytes, 0, 3, slot(0x05, 100, 1000));
        write_slot(&mut bytes, 100, 0, slot(0x83, 1, 10));
        write_slot(&mut bytes, 100, 1, slot(0x05, 50, 100));
        write_slot(&mut bytes, 150, 0, slot(0x82, 2, 10));
        let (found, warnings) = read_all(bytes);
        let entries: Vec<_> = found
            .expect("a table")
            .1
            .iter()
            .map(|entry| (entry.number, entry.start_bytes / 512))
            .collect();
        assert_eq!(entries, [(1, 10), (4, 100), (5, 101), (6, 152)]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_chain_of_logical_partitions_that_does_not_end_is_cut() {
        let mut bytes = vec![0; DISK_BYTES];
        write_slot(&mut bytes, 0, 0, slot(0x0f, 100, 1000));
        write_slot(&mut bytes, 100, 0, slot(0x83, u32::MAX, u32::MAX));
        write_slot(&mut bytes, 100, 1, slot(0x05, 50, 100));
        write_slot(&mut bytes, 150, 1, slot(0x05, 0, 100));
        let (_, warnings) = read_all(bytes.clone());
        assert!(warnings[0].contains("does not end"), "{warnings:?}");
        write_slot(&mut bytes, 150, 1, slot(0x05, u32::MAX, 100));
        let (_, warnings) = read_all(bytes);
        assert!(warnings[0].contains("leaves the disk"), "{warnings:?}");
    }

    #[test]
    fn a_boot_sector_of_a_file_system_is_no_table() {
        let mut bytes = vec![0; DISK_BYTES];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(read_all(bytes.clone()).0.is_none());
        bytes[446..510].fill(b'x');
        assert!(read_all(bytes).0.is_none());
        assert!(read_all(vec![0x55]).0.is_none());
        assert!(read_all(Vec::new()).0.is_none());
    }
}
