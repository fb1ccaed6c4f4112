//! What is known of a disk after it was looked at: data, and lines for people.

use std::path::Path;

use serde::Serialize;

use crate::model::CloudText;

/// What a disk holds. All text from the disk has lost its control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiskReport {
    /// The size of the file or device.
    pub size_bytes: u64,
    /// The partition table, where there is one.
    pub table: Option<PartitionTable>,
    /// The partitions in the table's order. A disk without a table whose first byte begins a file
    /// system has one, with the number 0.
    pub partitions: Vec<Partition>,
    /// How the disk would boot.
    pub boot: BootHint,
    /// What a person should know before trusting the rest.
    pub warnings: Vec<String>,
}

/// How a disk is divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PartitionTable {
    /// A GUID partition table.
    Gpt {
        /// The identifier of the disk.
        disk_guid: String,
        /// Whether the copy at the start is whole.
        primary_ok: bool,
        /// Whether the copy at the end is whole and says the same.
        backup_ok: bool,
        /// The unit in which the table counts.
        sector_bytes: u64,
    },
    /// A master boot record.
    Mbr {
        /// The signature of the disk, in hexadecimal digits.
        disk_id: String,
    },
}

/// A stretch of the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Partition {
    /// The number that Linux gives it; 0 is the whole disk.
    pub number: u32,
    /// Where it begins.
    pub start_bytes: u64,
    /// How long the table says it is.
    pub size_bytes: u64,
    /// What it is for: the name of its type.
    pub kind: String,
    /// The name in a GUID partition table.
    pub name: Option<CloudText>,
    /// Whether it carries the boot flag.
    pub is_bootable: bool,
    /// The file system, volume or container on it.
    pub file_system: Option<FileSystem>,
    /// The operating system installed on it.
    pub os: Option<OsRelease>,
}

/// A file system, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileSystem {
    /// Which one.
    pub kind: FileSystemKind,
    /// The name that a person gave it.
    pub label: Option<CloudText>,
    /// Its identifier, in the spelling of `blkid`.
    pub uuid: Option<CloudText>,
    /// Size, version, state.
    pub detail: Option<String>,
    /// The Linux kernels in `/boot`, or at the top of a boot partition.
    pub kernels: Vec<CloudText>,
}

impl FileSystem {
    /// A file system of which nothing else is known yet.
    pub(super) fn of(kind: FileSystemKind) -> Self {
        Self {
            kind,
            label: None,
            uuid: None,
            detail: None,
            kernels: Vec::new(),
        }
    }
}

/// What can begin at the start of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileSystemKind {
    Bitlocker,
    Btrfs,
    Exfat,
    Ext2,
    Ext3,
    Ext4,
    Iso9660,
    LinuxRaid,
    Luks,
    Lvm2,
    Ntfs,
    Squashfs,
    Swap,
    Vfat,
    Xfs,
}

impl FileSystemKind {
    /// The name in JSON and in lines for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bitlocker => "bitlocker",
            Self::Btrfs => "btrfs",
            Self::Exfat => "exfat",
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Iso9660 => "iso9660",
            Self::LinuxRaid => "linux_raid",
            Self::Luks => "luks",
            Self::Lvm2 => "lvm2",
            Self::Ntfs => "ntfs",
            Self::Squashfs => "squashfs",
            Self::Swap => "swap",
            Self::Vfat => "vfat",
            Self::Xfs => "xfs",
        }
    }
}

/// What a Linux system says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OsRelease {
    /// The name for people, such as `Ubuntu 22.04.4 LTS`.
    pub pretty_name: Option<CloudText>,
    /// The name for programs, such as `ubuntu`.
    pub id: Option<CloudText>,
    /// The version for programs, such as `22.04`.
    pub version_id: Option<CloudText>,
}

/// The signs that firmware would find something to start. A sign is no promise that it boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BootHint {
    /// A boot flag, or GRUB in the boot sector.
    pub bios: bool,
    /// An EFI system partition with a program that firmware starts by itself.
    pub uefi: bool,
    /// The architecture of that program in the words of `virt-install`, where its name tells.
    pub architecture: Option<String>,
    /// What was seen, a sentence each.
    pub evidence: Vec<String>,
}

impl DiskReport {
    /// The report as lines for people.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.extend(self.partitions.iter().flat_map(Partition::lines));
        let ways = match (self.boot.bios, self.boot.uefi) {
            (true, true) => "BIOS and UEFI",
            (true, false) => "BIOS",
            (false, true) => "UEFI",
            (false, false) => "nothing that firmware would start was found",
        };
        let evidence = self.boot.evidence.join(", ");
        lines.push(if evidence.is_empty() {
            format!("boot: {ways}")
        } else {
            format!("boot: {ways} ({evidence})")
        });
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning: {warning}")),
        );
        lines
    }

    fn headline(&self) -> String {
        let size = format!("{} ({} bytes)", size_text(self.size_bytes), self.size_bytes);
        let table = match &self.table {
            None => "no partition table".to_owned(),
            Some(PartitionTable::Mbr { disk_id }) => format!("master boot record, disk {disk_id}"),
            Some(PartitionTable::Gpt {
                disk_guid,
                primary_ok,
                backup_ok,
                ..
            }) => {
                let copies = match (primary_ok, backup_ok) {
                    (true, true) => "both copies agree",
                    (true, false) => "without a good backup",
                    (false, _) => "read from its backup",
                };
                format!("GUID partition table, disk {disk_guid}, {copies}")
            }
        };
        format!("disk: {size}, {table}")
    }

    /// Whether firmware would find something to start.
    #[must_use]
    pub fn boots(&self) -> bool {
        self.boot.bios || self.boot.uefi
    }

    /// The words of a `virt-install` command that would boot the disk as a virtual machine `name`.
    ///
    /// A disk that shows both ways to boot is booted by BIOS, which needs no firmware package. The
    /// operating system is left to `detect`: a name that the local database does not know would
    /// make the command fail.
    #[must_use]
    pub fn virt_install(&self, image: &Path, name: &str) -> Vec<String> {
        // A comma in a path would begin the next property; doubled, it stands for itself.
        let path = image.to_string_lossy().replace(',', ",,");
        let disk = format!("path={path},format=raw,bus=virtio");
        let mut words = vec![
            "virt-install",
            "--name",
            name,
            "--memory",
            "2048",
            "--vcpus",
            "2",
            "--import",
            "--disk",
            &disk,
            "--osinfo",
            "detect=on,require=off",
            "--network",
            "network=default,model=virtio",
            "--graphics",
            "none",
        ];
        let is_uefi = self.boot.uefi && !self.boot.bios;
        if let Some(architecture) = self.boot.architecture.as_deref().filter(|_| is_uefi) {
            words.extend(["--arch", architecture]);
        }
        if is_uefi {
            words.extend(["--boot", "uefi"]);
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Partition {
    fn lines(&self) -> Vec<String> {
        let mut line = match self.number {
            0 => "  whole disk:".to_owned(),
            number => format!(
                "  {number}: {} at {}, {}",
                size_text(self.size_bytes),
                size_text(self.start_bytes),
                self.kind
            ),
        };
        if let Some(name) = &self.name {
            line.push_str(&format!(" \"{name}\""));
        }
        if self.is_bootable {
            line.push_str(", boot flag");
        }
        let Some(file_system) = &self.file_system else {
            return vec![line];
        };
        let separator = if self.number == 0 { " " } else { ": " };
        line.push_str(&format!("{separator}{}", file_system.kind.as_str()));
        if let Some(label) = &file_system.label {
            line.push_str(&format!(" \"{label}\""));
        }
        if let Some(uuid) = &file_system.uuid {
            line.push_str(&format!(" {uuid}"));
        }
        if let Some(detail) = &file_system.detail {
            line.push_str(&format!(" ({detail})"));
        }
        let mut lines = vec![line];
        if let Some(os) = &self.os {
            lines.push(format!("     holds {}", os.line()));
        }
        if !file_system.kernels.is_empty() {
            let names: Vec<_> = file_system.kernels.iter().map(CloudText::as_str).collect();
            lines.push(format!("     kernels: {}", names.join(", ")));
        }
        lines
    }
}

impl OsRelease {
    fn line(&self) -> String {
        let name = self.pretty_name.as_ref().map(CloudText::as_str);
        let id = match (&self.id, &self.version_id) {
            (Some(id), Some(version)) => Some(format!("{id} {version}")),
            (Some(id), None) => Some(id.to_string()),
            (None, _) => None,
        };
        match (name, id) {
            (Some(name), Some(id)) => format!("{name} ({id})"),
            (Some(name), None) => name.to_owned(),
            (None, id) => id.unwrap_or_default(),
        }
    }
}

/// A size in binary units, with one decimal where it is no whole number.
pub(super) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(unit) = UNITS
        .iter()
        .zip(1_u32..)
        .take_while(|(_, power)| bytes >> (10 * power) > 0)
        .last()
    else {
        return format!("{bytes} bytes");
    };
    let (name, power) = unit;
    let whole = bytes >> (10 * power);
    // The next smaller unit, in tenths.
    let tenth = ((bytes >> (10 * (power - 1))) & 1023) * 10 / 1024;
    if tenth == 0 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenth} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(boot: BootHint) -> DiskReport {
        DiskReport {
            size_bytes: 50 << 30,
            table: Some(PartitionTable::Mbr {
                disk_id: "deadbeef".to_owned(),
            }),
            partitions: vec![Partition {
                number: 1,
                start_bytes: 1 << 20,
                size_bytes: 49 << 30,
                kind: "Linux".to_owned(),
                name: None,
                is_bootable: true,
                file_system: Some(FileSystem {
                    label: Some("root".into()),
                    kernels: vec!["vmlinuz-6.1".into()],
                    ..FileSystem::of(FileSystemKind::Ext4)
                }),
                os: Some(OsRelease {
                    pretty_name: Some("Debian GNU/Linux 12".into()),
                    id: Some("debian".into()),
                    version_id: Some("12".into()),
                }),
            }],
            boot,
            warnings: vec!["something".to_owned()],
        }
    }

    #[test]
    fn sizes_are_rounded_down_to_one_decimal() {
        let cases = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (50 << 30, "50 GiB"),
            ((64 << 20) - 1, "63.9 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size_text(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn the_summary_says_what_a_person_looks_for() {
        let boot = BootHint {
            bios: true,
            evidence: vec!["partition 1 carries the boot flag".to_owned()],
            ..BootHint::default()
        };
        assert_eq!(
            report(boot).summary(),
            [
                "disk: 50 GiB (53687091200 bytes), master boot record, disk deadbeef",
                "  1: 49 GiB at 1 MiB, Linux, boot flag: ext4 \"root\"",
                "     holds Debian GNU/Linux 12 (debian 12)",
                "     kernels: vmlinuz-6.1",
                "boot: BIOS (partition 1 carries the boot flag)",
                "warning: something",
            ]
        );
    }

    #[test]
    fn the_command_boots_the_way_that_the_disk_does() {
        let words = |bios, uefi| {
            let boot = BootHint {
                bios,
                uefi,
                architecture: Some("aarch64".to_owned()),
                evidence: Vec::new(),
            };
            report(boot).virt_install(Path::new("/disks/a,b.raw"), "copy")
        };
        let bios = words(true, true);
        assert!(bios.contains(&"path=/disks/a,,b.raw,format=raw,bus=virtio".to_owned()));
        assert_eq!(bios[..3], ["virt-install", "--name", "copy"]);
        assert!(!bios.contains(&"uefi".to_owned()));
        let uefi = words(false, true);
        assert!(uefi.ends_with(&["--arch", "aarch64", "--boot", "uefi"].map(str::to_owned)));
        assert!(!words(false, false).contains(&"--boot".to_owned()));
    }

    #[test]
    fn names_in_json_are_those_for_people() {
        for kind in [FileSystemKind::LinuxRaid, FileSystemKind::Iso9660] {
            let json = serde_json::to_value(kind).expect("JSON");
            assert_eq!(json, kind.as_str());
        }
        let json = serde_json::to_value(report(BootHint::default())).expect("JSON");
        assert_eq!(json["table"]["kind"], "mbr");
        assert_eq!(json["partitions"][0]["file_system"]["kind"], "ext4");
        assert_eq!(json["partitions"][0]["os"]["version_id"], "12");
    }
}
