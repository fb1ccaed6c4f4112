//! The names of partition types.

/// What a partition is for, where that matters to booting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    EfiSystem,
    BiosBoot,
    /// Holds other partitions, and no file system.
    Extended,
    Other,
}

/// The type of the one entry that keeps old tools away from a GUID partition table.
pub(super) const PROTECTIVE: u8 = 0xee;

/// <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/> and
/// <https://en.wikipedia.org/wiki/GUID_Partition_Table#Partition_type_GUIDs>.
const GUIDS: &[(&str, &str, Role)] = &[
    (
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        "EFI system",
        Role::EfiSystem,
    ),
    (
        "21686148-6449-6e6f-744e-656564454649",
        "BIOS boot",
        Role::BiosBoot,
    ),
    (
        "0fc63daf-8483-4772-8e79-3d69d8477de4",
        "Linux filesystem",
        Role::Other,
    ),
    (
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        "Linux root (x86-64)",
        Role::Other,
    ),
    (
        "b921b045-1df0-41c3-af44-4c6f280d3fae",
        "Linux root (ARM64)",
        Role::Other,
    ),
    (
        "bc13c2ff-59e6-4262-a352-b275fd6f7172",
        "Linux extended boot",
        Role::Other,
    ),
    (
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915",
        "Linux home",
        Role::Other,
    ),
    (
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
        "Linux swap",
        Role::Other,
    ),
    (
        "e6d6d379-f507-44c2-a23c-238f2a3df928",
        "Linux LVM",
        Role::Other,
    ),
    (
        "a19d880f-05fc-4d3b-a006-743f0f84911e",
        "Linux RAID",
        Role::Other,
    ),
    (
        "ca7d7ccb-63ed-4c53-861c-1742536059cc",
        "Linux LUKS",
        Role::Other,
    ),
    (
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
        "Microsoft basic data",
        Role::Other,
    ),
    (
        "e3c9e316-0b5c-4db8-817d-f92df00215ae",
        "Microsoft reserved",
        Role::Other,
    ),
    (
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac",
        "Windows recovery",
        Role::Other,
    ),
];

/// A GUID in its usual spelling; the first three groups are stored the other way round.
pub(super) fn guid(bytes: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    uuid([d, c, b, a, f, e, h, g].iter().chain(&rest))
}

/// Sixteen bytes in the spelling of a UUID.
pub(super) fn uuid<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let mut text: String = bytes
        .into_iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for place in [20, 16, 12, 8] {
        if place < text.len() {
            text.insert(place, '-');
        }
    }
    text
}

/// The name and role of a type GUID.
pub(super) fn of_guid(bytes: [u8; 16]) -> (String, Role) {
    let text = guid(bytes);
    let known = GUIDS.iter().find(|(known, ..)| *known == text);
    match known {
        Some((_, name, role)) => ((*name).to_owned(), *role),
        None => (text, Role::Other),
    }
}

/// Whether partitions of this type hold a chain of others.
pub(super) fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// The name and role of a type in a master boot record.
pub(super) fn of_mbr(kind: u8) -> (String, Role) {
    let name = match kind {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x05 | 0x0f | 0x85 => return ("extended".to_owned(), Role::Extended),
        0x07 => "NTFS or exFAT",
        0x0b | 0x0c => "FAT32",
        0x27 => "Windows recovery",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        PROTECTIVE => "GPT protective",
        0xef => return ("EFI system".to_owned(), Role::EfiSystem),
        0xfd => "Linux RAID",
        _ => return (format!("type 0x{kind:02x}"), Role::Other),
    };
    (name.to_owned(), Role::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_spelt_as_people_know_them() {
        let bytes = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e,
            0xc9, 0x3b,
        ];
        assert_eq!(of_guid(bytes), ("EFI system".to_owned(), Role::EfiSystem));
        assert_eq!(
            of_guid([0x11; 16]).0,
            "11111111-1111-1111-1111-111111111111"
        );
        assert_eq!(of_mbr(0x42).0, "type 0x42");
    }
}
