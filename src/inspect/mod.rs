//! What a raw disk image holds: partition table, file systems, operating system, how it boots.
//!
//! It reads a file, a block device or any reader, needs no root, and never writes. Nothing on the
//! disk is trusted: numbers are compared with the disk before they are used, lists and reads have
//! limits, and what can't be read becomes a warning of the report and not an error. It knows
//! nothing of exports or of the cloud.
//!
//! ```text
//!   Source ─► table (GPT, MBR) ─► a Window for each partition ─► file_systems (by magic)
//!                                                                  ├─ fat   files, in place
//!                                                                  └─ ext   files, in a thread with a deadline
//! ```
//!
//! # Examples
//! ```
//! let mut disk = vec![0; 1 << 20];
//! disk[..4].copy_from_slice(b"XFSB");
//! let report = cvm_export::inspect::inspect_source(std::io::Cursor::new(disk))?;
//! assert_eq!(report.partitions[0].number, 0, "the whole disk");
//! for line in report.summary() {
//!     println!("{line}");
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod ext;
mod fat;
mod file_systems;
mod kinds;
mod os_release;
mod report;
mod source;
mod table;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::model::CloudText;

pub use report::{
    BootHint, DiskReport, FileSystem, FileSystemKind, OsRelease, Partition, PartitionTable,
};
pub use source::Source;

use file_systems::{Found, Inside};
use kinds::Role;
use source::{Window, has};
use table::Entry;

/// What is read first: the boot sector and the first headers.
const START_BYTES: usize = 4096;

/// How far an image is searched for its first byte that is not zero, before it counts as empty.
const EMPTY_BYTES: usize = 1024 * 1024;

/// In how many partitions a file system is looked for; a table may name a thousand.
const LOOK_LIMIT: usize = 64;

/// How long files on ext file systems may be looked for, all partitions together. An honest disk
/// takes milliseconds, on a busy spinning disk a second; one that was made to be slow never ends.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was found in files.
#[derive(Debug, Default)]
struct Look {
    os: Option<OsRelease>,
    kernels: Vec<CloudText>,
}

/// Why a disk could not be inspected at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no such file, or it may not be read.
    #[error("cannot read the disk image {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or the like.
    #[error("{path:?} is neither a file nor a block device")]
    NotADisk {
        /// What was named.
        path: PathBuf,
    },
}

impl InspectError {
    /// The situation, in the words of the whole library.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::Usage
            }
            Self::Unreadable { .. } => ErrorKind::LocalDisk,
            Self::NotADisk { .. } => ErrorKind::Usage,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("a disk image needs no root, only the right to read it".to_owned())
            }
            Self::Unreadable { .. } => None,
            Self::NotADisk { .. } => Some("name the raw image of one disk".to_owned()),
        }
    }
}

impl From<InspectError> for Error {
    fn from(error: InspectError) -> Self {
        Self::new(error.kind(), error.to_string())
            .with_optional_hint(error.hint())
            .with_source(error)
    }
}

/// Says what the raw disk image, or the block device, at `path` holds. It is opened for reading only.
///
/// # Errors
/// There is no such file, it is neither a file nor a block device, or its first bytes can't be read.
/// Whatever is wrong further inside is a warning of the report.
pub fn inspect(path: &Path) -> Result<DiskReport, InspectError> {
    let unreadable = |source| InspectError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Opening a pipe would wait for a writer.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !is_disk(&metadata.file_type()) {
        return Err(InspectError::NotADisk {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(unreadable)?;
    inspect_source(file).map_err(unreadable)
}

#[cfg(unix)]
fn is_disk(kind: &fs::FileType) -> bool {
    kind.is_file() || std::os::unix::fs::FileTypeExt::is_block_device(kind)
}

#[cfg(not(unix))]
fn is_disk(kind: &fs::FileType) -> bool {
    kind.is_file()
}

/// Says what the raw disk in `source` holds.
///
/// # Errors
/// The first bytes can't be read.
pub fn inspect_source(source: impl Source) -> io::Result<DiskReport> {
    let disk = Window::whole(source)?;
    let start = disk.read_up_to(0, START_BYTES)?;
    let mut inspection = Inspection::default();
    let table = inspection.divide(&disk, &start);
    inspection.look_inside();
    inspection.find_boot(&start, table.as_ref());
    Ok(DiskReport {
        size_bytes: disk.length(),
        table,
        partitions: inspection.partitions,
        boot: inspection.boot,
        warnings: inspection.warnings,
    })
}

/// A report in the making.
#[derive(Default)]
struct Inspection {
    partitions: Vec<Partition>,
    /// What the partitions are for, in their order.
    roles: Vec<Role>,
    /// The programs for UEFI firmware, by the place of their partition.
    loaders: BTreeMap<usize, Vec<String>>,
    /// The file systems whose files are still to be looked into, by the place of their partition.
    open: Vec<(usize, Window, ext::Superblock)>,
    boot: BootHint,
    warnings: Vec<String>,
}

impl Inspection {
    /// Reads the table, and what begins in each partition.
    fn divide(&mut self, disk: &Window, start: &[u8]) -> Option<PartitionTable> {
        let whole = Entry {
            number: 0,
            start_bytes: 0,
            size_bytes: disk.length(),
            kind: "whole disk".to_owned(),
            role: Role::Other,
            name: None,
            is_bootable: false,
        };
        if let Some(container) = file_systems::container(start) {
            let remedy = if container.starts_with("compressed") || container.contains("archive") {
                "unpack it first"
            } else {
                "convert it first with `qemu-img convert -O raw`"
            };
            self.warnings
                .push(format!("this is no raw disk but {container}; {remedy}"));
            return None;
        }
        self.warn_of_vhd(disk);
        // The boot sector of a FAT could pass for a table; its own numbers can't pass by accident.
        let is_fat = fat::Fat::open(disk, start).is_some();
        let found = if is_fat {
            None
        } else {
            table::read(disk, start, &mut self.warnings).unwrap_or_else(|error| {
                self.warnings
                    .push(format!("the partition table can't be read: {error}"));
                None
            })
        };
        let Some((table, entries)) = found else {
            self.add(disk, whole);
            if self.partitions.iter().all(|it| it.file_system.is_none()) {
                self.partitions.clear();
                self.roles.clear();
                self.warnings.push(emptiness(disk).to_owned());
            }
            return None;
        };
        if entries.is_empty() {
            self.warnings
                .push("the partition table names no partition".to_owned());
        }
        for entry in entries {
            self.add(disk, entry);
        }
        self.warn_of_overlaps();
        if self.partitions.len() > LOOK_LIMIT {
            self.warnings
                .push(format!("only {LOOK_LIMIT} partitions were looked into"));
        }
        Some(table)
    }

    /// A fixed VHD is a raw disk with a footer behind it.
    fn warn_of_vhd(&mut self, disk: &Window) {
        let footer = disk.read_up_to(disk.length().saturating_sub(512), 512);
        if footer.is_ok_and(|footer| has(&footer, 0, b"conectix")) {
            self.warnings.push(
                "this is a VHD image, whose last 512 bytes are no part of the disk; convert it first with `qemu-img convert -O raw`"
                    .to_owned(),
            );
        }
    }

    /// Takes a partition into the report, with what begins in it.
    fn add(&mut self, disk: &Window, entry: Entry) {
        let place = self.partitions.len();
        let number = entry.number;
        let end = entry.start_bytes.saturating_add(entry.size_bytes);
        if end > disk.length() {
            self.warnings.push(format!(
                "partition {number} reaches {} past the end of the disk",
                report::size_text(end - disk.length())
            ));
        }
        let mut partition = Partition {
            number,
            start_bytes: entry.start_bytes,
            size_bytes: entry.size_bytes,
            kind: entry.kind,
            name: entry.name,
            is_bootable: entry.is_bootable,
            file_system: None,
            os: None,
        };
        if entry.role != Role::Extended && place < LOOK_LIMIT {
            let window = disk.part(entry.start_bytes, entry.size_bytes);
            match file_systems::find(&window) {
                Ok(Some(found)) => self.take(place, found, window, &mut partition),
                Ok(None) => {}
                Err(error) => self
                    .warnings
                    .push(format!("partition {number} can't be read: {error}")),
            }
        }
        self.partitions.push(partition);
        self.roles.push(entry.role);
    }

    fn take(&mut self, place: usize, found: Found, window: Window, partition: &mut Partition) {
        let mut file_system = found.file_system;
        match found.inside {
            Inside::Closed => {}
            Inside::Fat { look, loaders } => {
                partition.os = look.os;
                file_system.kernels = look.kernels;
                self.loaders.insert(place, loaders);
            }
            Inside::Ext(superblock) => self.open.push((place, window, superblock)),
        }
        partition.file_system = Some(file_system);
    }

    fn warn_of_overlaps(&mut self) {
        let mut stretches: Vec<_> = self
            .partitions
            .iter()
            .zip(&self.roles)
            .filter(|(partition, role)| **role != Role::Extended && partition.size_bytes > 0)
            .map(|(partition, _)| {
                (
                    partition.start_bytes,
                    partition.size_bytes,
                    partition.number,
                )
            })
            .collect();
        stretches.sort_unstable();
        let overlap = stretches.windows(2).find_map(|pair| {
            let [(start, size, number), (next, _, other)] = pair else {
                return None;
            };
            (start.saturating_add(*size) > *next).then_some((*number, *other))
        });
        if let Some((number, other)) = overlap {
            self.warnings
                .push(format!("partitions {number} and {other} overlap"));
        }
    }

    /// Looks into the ext file systems, in a thread of its own: a directory on a disk made for it
    /// can take years to search without one byte being read, and nothing else can end that.
    fn look_inside(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            return;
        }
        let places: Vec<usize> = open.iter().map(|(place, ..)| *place).collect();
        let looks = Arc::new(Mutex::new(BTreeMap::new()));
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let (done, wait) = mpsc::channel::<()>();
        let worker = thread::Builder::new().name("inspect".to_owned()).spawn({
            let (looks, is_cancelled) = (Arc::clone(&looks), Arc::clone(&is_cancelled));
            move || {
                // Dropped when the thread ends, be it by a panic.
                let _done = done;
                for (place, window, superblock) in open {
                    let look = ext::look(&window, &superblock, &is_cancelled);
                    let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
                    looks.insert(place, look);
                }
            }
        });
        let is_over =
            worker.is_err() || wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        is_cancelled.store(true, Ordering::Relaxed);
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            let unfinished = if is_over {
                "it takes too long to read"
            } else {
                "its structure can't be followed"
            };
            let partition = &mut self.partitions[place];
            match looks.remove(&place).unwrap_or(Err(unfinished.to_owned())) {
                Ok(look) => {
                    partition.os = look.os;
                    if let Some(file_system) = &mut partition.file_system {
                        file_system.kernels = look.kernels;
                    }
                }
                Err(reason) => self.warnings.push(format!(
                    "the file system on {} was not looked into: {}",
                    place_name(partition.number),
                    CloudText::excerpt(&reason, 200)
                )),
            }
        }
    }

    /// Collects the signs that firmware would find something to start.
    fn find_boot(&mut self, start: &[u8], table: Option<&PartitionTable>) {
        let code = start.get(..440).unwrap_or_default();
        let has_code = code.iter().any(|byte| *byte != 0);
        let has_grub = code.windows(4).any(|word| word == b"GRUB");
        if has_grub {
            self.boot.bios = true;
            self.boot
                .evidence
                .push("GRUB in the boot sector".to_owned());
        }
        for (place, partition) in self.partitions.iter().enumerate() {
            let number = partition.number;
            if partition.is_bootable {
                self.boot.bios = true;
                let evidence = format!("partition {number} carries the boot flag");
                self.boot.evidence.push(evidence);
            }
            let is_efi = self.roles[place] == Role::EfiSystem || number == 0;
            let loaders = self.loaders.get(&place).filter(|_| is_efi);
            let Some(loaders) = loaders else {
                continue;
            };
            if let Some(loader) = loaders.first() {
                self.boot.uefi = true;
                let loader = CloudText::excerpt(loader, 40);
                let evidence = format!("EFI/BOOT/{loader} on {}", place_name(number));
                self.boot.evidence.push(evidence);
                self.boot.architecture = self
                    .boot
                    .architecture
                    .take()
                    .or(architecture(loader.as_str()));
            } else if number != 0 {
                self.warnings.push(format!(
                    "the EFI system on partition {number} has no EFI/BOOT/BOOT*.EFI; firmware that does not know the disk will not start it"
                ));
            }
        }
        let has_flag = self.partitions.iter().any(|it| it.is_bootable);
        if matches!(table, Some(PartitionTable::Mbr { .. })) && has_flag && !has_code {
            self.warnings.push(
                "a partition carries the boot flag, and the boot sector holds no code to start it"
                    .to_owned(),
            );
        }
        if self.roles.contains(&Role::BiosBoot) && has_grub {
            let evidence = "a BIOS boot partition".to_owned();
            self.boot.evidence.push(evidence);
        }
    }
}

/// How warnings call a partition.
fn place_name(number: u32) -> String {
    match number {
        0 => "the whole disk".to_owned(),
        number => format!("partition {number}"),
    }
}

/// What the name of a program for UEFI firmware says of the processor, in the words of libvirt.
fn architecture(loader: &str) -> Option<String> {
    let name = match loader.to_ascii_uppercase().as_str() {
        "BOOTX64.EFI" => "x86_64",
        "BOOTAA64.EFI" => "aarch64",
        "BOOTIA32.EFI" => "i686",
        "BOOTRISCV64.EFI" => "riscv64",
        _ => return None,
    };
    Some(name.to_owned())
}

/// What to say of a disk on which nothing was found.
fn emptiness(disk: &Window) -> &'static str {
    match disk.read_up_to(0, EMPTY_BYTES) {
        Ok(bytes) if bytes.is_empty() => "the file is empty",
        Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => {
            "the disk is empty as far as it was looked at: its first MiB is zeros; a data disk that was never formatted looks like this"
        }
        _ => "neither a partition table nor a file system was recognised",
    }
}

#[cfg(test)]
mod tests;
