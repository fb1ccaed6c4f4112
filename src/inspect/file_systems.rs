//! Which file system, volume or container begins at a place, told by its magic bytes.

use std::io;

use crate::model::CloudText;

use super::fat::Fat;
use super::report::{FileSystem, FileSystemKind, size_text};
use super::source::{Window, field, has, u16_at, u32_at, u64_at};
use super::{Look, ext, kinds, os_release};

/// The first bytes of a partition: the last magic that is looked for is that of btrfs, at 64 KiB.
const START_BYTES: usize = 68 * 1024;

/// How many kernels are named.
const KERNEL_LIMIT: usize = 16;

/// What was found at a place, and what can still be looked into.
pub(super) struct Found {
    pub(super) file_system: FileSystem,
    pub(super) inside: Inside,
}

/// What is known of the files.
pub(super) enum Inside {
    /// This program does not read this kind.
    Closed,
    /// Files were looked into; names of the programs that UEFI firmware starts by itself.
    Fat { look: Look, loaders: Vec<String> },
    /// Files can be looked into, in the caller's time.
    Ext(ext::Superblock),
}

/// Recognises what begins at the start of `window`.
pub(super) fn find(window: &Window) -> io::Result<Option<Found>> {
    let start = window.read_up_to(0, START_BYTES)?;
    if let Some(file_system) = closed(&start) {
        return Ok(Some(Found {
            file_system,
            inside: Inside::Closed,
        }));
    }
    if let Some(superblock) = ext::Superblock::find(&start) {
        return Ok(Some(Found {
            file_system: superblock.describe(),
            inside: Inside::Ext(superblock),
        }));
    }
    match Fat::open(window, &start) {
        Some(fat) => read_fat(&fat).map(Some),
        None => Ok(None),
    }
}

fn read_fat(fat: &Fat) -> io::Result<Found> {
    let mut os = None;
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if os.is_none() {
            let bytes = fat.read(path, os_release::LIMIT_BYTES)?;
            os = bytes.and_then(|bytes| os_release::parse(&bytes));
        }
    }
    let names = fat.names("boot")?.unwrap_or_default();
    let loaders = fat.names("EFI/BOOT")?.unwrap_or_default();
    let is_loader = |name: &String| {
        let name = name.to_ascii_uppercase();
        name.starts_with("BOOT") && name.ends_with(".EFI")
    };
    Ok(Found {
        file_system: FileSystem {
            label: fat.label()?.and_then(|text| label(text.as_bytes())),
            uuid: fat.serial.as_deref().map(CloudText::new),
            detail: Some(fat.kind_name().to_owned()),
            ..FileSystem::of(FileSystemKind::Vfat)
        },
        inside: Inside::Fat {
            look: Look {
                os,
                kernels: kernels(names),
            },
            loaders: loaders.into_iter().filter(is_loader).collect(),
        },
    })
}

/// The names among `names` that are kernels, sorted.
pub(super) fn kernels(names: impl IntoIterator<Item = String>) -> Vec<CloudText> {
    let is_kernel = |name: &String| name.starts_with("vmlinuz") || name.starts_with("Image-");
    let mut kernels: Vec<CloudText> = names
        .into_iter()
        .filter(is_kernel)
        .take(KERNEL_LIMIT)
        .map(|name| CloudText::excerpt(&name, 100))
        .collect();
    kernels.sort();
    kernels
}

/// A label of fixed width, which ends at its first zero; `None` where it is empty.
pub(super) fn label(bytes: &[u8]) -> Option<CloudText> {
    let length = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(&bytes[..length.unwrap_or(bytes.len())]);
    let text = text.trim();
    (!text.is_empty()).then(|| CloudText::new(text))
}

fn label_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<CloudText> {
    label(&field::<N>(bytes, offset))
}

fn uuid_at(bytes: &[u8], offset: usize) -> Option<CloudText> {
    let uuid: [u8; 16] = field(bytes, offset);
    (uuid != [0; 16]).then(|| CloudText::new(&kinds::uuid(&uuid)))
}

/// What is named and not looked into.
fn closed(start: &[u8]) -> Option<FileSystem> {
    let found = [
        xfs, btrfs, luks, ntfs_like, lvm, raid, swap, squashfs, iso9660,
    ]
    .into_iter()
    .find_map(|known| known(start))?;
    let detail = match found.detail {
        Some(detail) => format!("{detail}; not looked into"),
        None => "not looked into".to_owned(),
    };
    Some(FileSystem {
        detail: Some(detail),
        ..found
    })
}

fn xfs(start: &[u8]) -> Option<FileSystem> {
    // The superblock of XFS is big-endian.
    let blocks = u64::from_be_bytes(field(start, 8));
    let block_bytes = u32::from_be_bytes(field(start, 4));
    has(start, 0, b"XFSB").then(|| FileSystem {
        label: label_at::<12>(start, 108),
        uuid: uuid_at(start, 32),
        detail: Some(size_text(blocks.saturating_mul(u64::from(block_bytes)))),
        ..FileSystem::of(FileSystemKind::Xfs)
    })
}

fn btrfs(start: &[u8]) -> Option<FileSystem> {
    const SUPERBLOCK: usize = 64 * 1024;
    has(start, SUPERBLOCK + 0x40, b"_BHRfS_M").then(|| FileSystem {
        label: label_at::<256>(start, SUPERBLOCK + 0x12b),
        uuid: uuid_at(start, SUPERBLOCK + 0x20),
        detail: Some(size_text(u64_at(start, SUPERBLOCK + 0x70))),
        ..FileSystem::of(FileSystemKind::Btrfs)
    })
}

fn luks(start: &[u8]) -> Option<FileSystem> {
    let version = u16::from_be_bytes(field(start, 6));
    let is_luks = has(start, 0, b"LUKS\xba\xbe") && matches!(version, 1 | 2);
    is_luks.then(|| FileSystem {
        label: (version == 2).then(|| label_at::<48>(start, 24)).flatten(),
        uuid: label_at::<40>(start, 168),
        detail: Some(format!("encrypted, LUKS{version}")),
        ..FileSystem::of(FileSystemKind::Luks)
    })
}

/// The file systems of Windows that put their name where the maker of a FAT puts his.
fn ntfs_like(start: &[u8]) -> Option<FileSystem> {
    let number = |offset, width: usize| {
        let serial = u64_at(start, offset) & (u64::MAX >> (64 - 4 * width));
        Some(CloudText::new(&format!("{serial:0width$X}")))
    };
    if has(start, 3, b"NTFS    ") {
        Some(FileSystem {
            uuid: number(0x48, 16),
            ..FileSystem::of(FileSystemKind::Ntfs)
        })
    } else if has(start, 3, b"EXFAT   ") {
        Some(FileSystem {
            uuid: number(0x64, 8),
            ..FileSystem::of(FileSystemKind::Exfat)
        })
    } else if has(start, 3, b"-FVE-FS-") {
        Some(FileSystem {
            detail: Some("encrypted".to_owned()),
            ..FileSystem::of(FileSystemKind::Bitlocker)
        })
    } else {
        None
    }
}

fn lvm(start: &[u8]) -> Option<FileSystem> {
    // The label is in one of the first four sectors.
    let sector = (0..4)
        .map(|sector| sector * 512)
        .find(|sector| has(start, *sector, b"LABELONE") && has(start, sector + 24, b"LVM2 001"))?;
    let header = u32_at(start, sector + 20) as usize;
    let uuid: [u8; 32] = field(start, sector + header.min(START_BYTES));
    let mut uuid = String::from_utf8_lossy(&uuid).into_owned();
    if uuid.is_ascii() {
        for place in [26, 22, 18, 14, 10, 6] {
            uuid.insert(place, '-');
        }
    }
    Some(FileSystem {
        uuid: Some(CloudText::new(&uuid)),
        detail: Some("physical volume of LVM".to_owned()),
        ..FileSystem::of(FileSystemKind::Lvm2)
    })
}

fn raid(start: &[u8]) -> Option<FileSystem> {
    let offset = [0, 4096]
        .into_iter()
        .find(|offset| u32_at(start, *offset) == 0xa92b_4efc && u32_at(start, offset + 4) == 1)?;
    Some(FileSystem {
        label: label_at::<32>(start, offset + 32),
        uuid: uuid_at(start, offset + 16),
        detail: Some("member of a Linux RAID".to_owned()),
        ..FileSystem::of(FileSystemKind::LinuxRaid)
    })
}

fn swap(start: &[u8]) -> Option<FileSystem> {
    // The magic ends the first page, whose size is the machine's.
    let page = [4096, 8192, 16_384, 65_536]
        .into_iter()
        .find(|page| has(start, page - 10, b"SWAPSPACE2"))?;
    let pages = u64::from(u32_at(start, 1024 + 4)).saturating_add(1);
    Some(FileSystem {
        label: label_at::<16>(start, 1024 + 28),
        uuid: uuid_at(start, 1024 + 12),
        detail: Some(size_text(pages.saturating_mul(page as u64))),
        ..FileSystem::of(FileSystemKind::Swap)
    })
}

fn squashfs(start: &[u8]) -> Option<FileSystem> {
    let is_squashfs = has(start, 0, b"hsqs") && u16_at(start, 28) == 4;
    is_squashfs.then(|| FileSystem::of(FileSystemKind::Squashfs))
}

fn iso9660(start: &[u8]) -> Option<FileSystem> {
    has(start, 32_769, b"CD001").then(|| FileSystem {
        label: label_at::<32>(start, 32_768 + 40),
        ..FileSystem::of(FileSystemKind::Iso9660)
    })
}

/// What an image file is that is no raw disk.
pub(super) fn container(start: &[u8]) -> Option<&'static str> {
    let is_vdi = has(start, 0x40, &[0x7f, 0x10, 0xda, 0xbe]);
    let known: [(&[u8], &str); 10] = [
        (b"QFI\xfb", "a qcow2 image"),
        (b"conectix", "a dynamic VHD image"),
        (b"vhdxfile", "a VHDX image"),
        (b"KDMV", "a VMDK image"),
        (b"# Disk DescriptorFile", "the descriptor of a VMDK image"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"BZh", "compressed with bzip2"),
        (b"PK\x03\x04", "a zip archive"),
    ];
    let named = known
        .into_iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|(_, name)| name);
    named.or(is_vdi.then_some("a VDI image"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn found_in(parts: &[(usize, &[u8])]) -> Option<FileSystem> {
        let mut bytes = vec![0; START_BYTES];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        let window = Window::whole(Cursor::new(bytes)).expect("a disk");
        find(&window)
            .expect("readable")
            .map(|found| found.file_system)
    }

    #[test]
    fn magic_bytes_name_what_is_not_looked_into() {
        let uuid: Vec<u8> = (1..=16).collect();
        let uuid_text = "01020304-0506-0708-090a-0b0c0d0e0f10";
        let lvm_uuid = b"abcdefABCDEFGHIJKLMNOPQRSTUVWXYZ";
        type Case<'a> = (FileSystemKind, &'a [(usize, &'a [u8])], &'a str, &'a str);
        let cases: &[Case<'_>] = &[
            (
                FileSystemKind::Xfs,
                &[(0, b"XFSB"), (32, &uuid), (108, b"data\0")],
                "data",
                uuid_text,
            ),
            (
                FileSystemKind::Btrfs,
                &[
                    (0x10040, b"_BHRfS_M"),
                    (0x10020, &uuid),
                    (0x1012b, b"pool\0"),
                ],
                "pool",
                uuid_text,
            ),
            (
                FileSystemKind::Luks,
                &[
                    (0, b"LUKS\xba\xbe\0\x02"),
                    (24, b"secret"),
                    (168, uuid_text.as_bytes()),
                ],
                "secret",
                uuid_text,
            ),
            (
                FileSystemKind::Ntfs,
                &[(3, b"NTFS    "), (0x48, &[8, 7, 6, 5, 4, 3, 2, 1])],
                "",
                "0102030405060708",
            ),
            (
                FileSystemKind::Exfat,
                &[(3, b"EXFAT   "), (0x64, &[4, 3, 2, 1, 9])],
                "",
                "01020304",
            ),
            (
                FileSystemKind::Lvm2,
                &[
                    (512, b"LABELONE"),
                    (532, &[32]),
                    (536, b"LVM2 001"),
                    (544, lvm_uuid),
                ],
                "",
                "abcdef-ABCD-EFGH-IJKL-MNOP-QRST-UVWXYZ",
            ),
            (
                FileSystemKind::LinuxRaid,
                &[
                    (4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1]),
                    (4112, &uuid),
                    (4128, b"host:0"),
                ],
                "host:0",
                uuid_text,
            ),
            (
                FileSystemKind::Swap,
                &[(4086, b"SWAPSPACE2"), (1036, &uuid), (1052, b"swap0")],
                "swap0",
                uuid_text,
            ),
            (
                FileSystemKind::Iso9660,
                &[(32_769, b"CD001"), (32_808, b"INSTALL ")],
                "INSTALL",
                "",
            ),
        ];
        for (kind, parts, label, uuid) in cases {
            let found = found_in(parts).unwrap_or_else(|| panic!("{kind:?} should be found"));
            let text = |text: &Option<CloudText>| text.clone().unwrap_or_default().to_string();
            assert_eq!(found.kind, *kind);
            assert_eq!(text(&found.label), *label, "{kind:?}");
            assert_eq!(text(&found.uuid), *uuid, "{kind:?}");
            assert!(
                found.detail.expect("a detail").ends_with("not looked into"),
                "{kind:?}"
            );
        }
        assert!(found_in(&[]).is_none());
    }

    #[test]
    fn labels_lose_control_characters_and_what_follows_a_zero() {
        let found = found_in(&[(0, b"XFSB"), (108, b"a\x1b[1m\0left")]).expect("XFS");
        assert_eq!(found.label.expect("a label"), "a [1m");
    }

    #[test]
    fn image_formats_that_are_not_raw_are_named() {
        for (start, name) in [
            (b"QFI\xfb\0\0\0\x03".as_slice(), "qcow2"),
            (b"KDMV", "VMDK"),
            (b"conectix", "VHD"),
            (b"\x1f\x8b\x08", "gzip"),
        ] {
            assert!(container(start).expect("known").contains(name), "{name}");
        }
        assert_eq!(container(&[0; 512]), None);
        assert_eq!(container(&[]), None);
    }
}
