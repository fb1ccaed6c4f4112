//! The disks that the simulator makes up, and the same ones damaged.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use cvm_export::inspect::{FileSystemKind, PartitionTable, inspect_source};
use cvm_export::simulator::Disk;
use proptest::prelude::*;

/// A disk of the simulator as a stream.
#[derive(Debug)]
struct Stream {
    disk: Disk,
    position: u64,
    /// Where every bit is wrong.
    wrong: Range<u64>,
}

impl Stream {
    fn new(disk: Disk) -> Self {
        Self {
            disk,
            position: 0,
            wrong: 0..0,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.disk.size_bytes().saturating_sub(self.position);
        let length = usize::try_from(rest).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        self.disk.read_at(self.position, &mut buffer[..length])?;
        for (place, byte) in (self.position..).zip(&mut buffer[..length]) {
            if self.wrong.contains(&place) {
                *byte = !*byte;
            }
        }
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Stream {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(distance) => self.disk.size_bytes().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[test]
fn a_simulated_disk_says_what_it_is() {
    for size in [4 << 20, (33 << 20) + 7, 50 << 30, 500 << 30] {
        let disk = Disk::sample(size, "img-1", "system disk");
        let report = inspect_source(Stream::new(disk)).expect("readable");
        assert_eq!(report.warnings, Vec::<String>::new(), "{size} bytes");
        let table = report.table.as_ref().expect("a table");
        assert!(
            matches!(
                table,
                PartitionTable::Gpt {
                    primary_ok: true,
                    backup_ok: true,
                    ..
                }
            ),
            "{table:?}"
        );
        let [efi, root] = report.partitions.as_slice() else {
            panic!("two partitions, not {:?}", report.partitions)
        };
        assert_eq!((efi.number, efi.kind.as_str()), (1, "EFI system"));
        let labels = [efi, root].map(|it| {
            let file_system = it.file_system.as_ref().expect("a file system");
            assert_eq!(file_system.kind, FileSystemKind::Vfat);
            file_system.label.as_ref().expect("a label").to_string()
        });
        assert_eq!(labels, ["SIM EFI", "SIM ROOT"]);
        let os = root.os.as_ref().expect("an operating system");
        assert_eq!(os.id.as_ref().expect("an id"), &"simulated");
        assert!(report.boot.uefi && !report.boot.bios, "{:?}", report.boot);
        let words = report.virt_install(Path::new("disk.raw"), "copy");
        assert!(
            words.ends_with(&["--boot", "uefi"].map(str::to_owned)),
            "{words:?}"
        );
    }
}

#[test]
fn every_byte_of_the_first_sectors_may_be_wrong() {
    let disk = Disk::sample(4 << 20, "img-1", "system disk");
    let (first, file_system) = (0, 1 << 20);
    let headers = (first..first + 1536).chain(file_system..file_system + 600);
    // The entries of the table are all alike.
    let entries = (1536..4096).step_by(16).map(|place| place..place + 16);
    for wrong in headers.map(|place| place..place + 1).chain(entries) {
        let mut stream = Stream::new(disk.clone());
        stream.wrong = wrong.clone();
        let report = inspect_source(stream).expect("readable");
        assert!(!report.summary().is_empty(), "bytes {wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_that_was_cut_off_is_survived(length in 0..(4_usize << 20)) {
        let disk = Disk::sample(4 << 20, "img-1", "system disk");
        let mut bytes = vec![0; length];
        disk.read_at(0, &mut bytes).expect("readable");
        let report = inspect_source(Cursor::new(bytes)).expect("readable");
        drop(report.summary());
    }
}
