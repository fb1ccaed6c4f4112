//! Whole disks, made up by chance. Those that others make are in `tests/it/inspect`.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn inspect_bytes(bytes: Vec<u8>) -> DiskReport {
    inspect_source(Cursor::new(bytes)).expect("bytes in memory can be read")
}

#[test]
fn a_disk_without_anything_is_said_to_be_empty() {
    for (length, text) in [
        (0, "empty"),
        (1, "empty"),
        (100, "zeros"),
        (4 << 20, "zeros"),
    ] {
        let report = inspect_bytes(vec![0; length]);
        assert!(report.warnings[0].contains(text), "{length}: {report:?}");
        assert_eq!(report.size_bytes, length as u64);
        assert!(report.partitions.is_empty());
    }
    let report = inspect_bytes(vec![b'x'; 10_000]);
    assert!(report.warnings[0].contains("recognised"), "{report:?}");
}

#[test]
fn other_formats_are_named_with_what_to_do() {
    let mut bytes = vec![0; 8192];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    let report = inspect_bytes(bytes);
    assert!(report.warnings[0].contains("qcow2"), "{report:?}");
    assert!(
        report.warnings[0].contains("qemu-img convert -O raw"),
        "{report:?}"
    );

    let mut bytes = vec![0; 8192];
    bytes[7680..7688].copy_from_slice(b"conectix");
    let report = inspect_bytes(bytes);
    assert!(report.warnings[0].contains("VHD"), "{report:?}");
}

#[test]
fn only_files_and_block_devices_are_disks() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = inspect(folder.path()).expect_err("a folder");
    assert!(matches!(error, InspectError::NotADisk { .. }), "{error}");
    let error = inspect(&folder.path().join("missing")).expect_err("nothing");
    assert_eq!(Error::from(error).kind(), ErrorKind::Usage);
    #[cfg(unix)]
    {
        let error = inspect(Path::new("/dev/zero")).expect_err("no end");
        assert!(matches!(error, InspectError::NotADisk { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn chance_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..8192), seed in 0..8_u8) {
        let mut bytes = bytes;
        // Chance alone never finds a magic; some of it gets one.
        let magics: [(usize, &[u8]); 7] = [
            (510, &[0x55, 0xaa]),
            (512, b"EFI PART"),
            (1080, &[0x53, 0xef]),
            (0, b"XFSB"),
            (512, b"LABELONE"),
            (4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
            (0, b"LUKS\xba\xbe\0\x02"),
        ];
        if let Some((offset, magic)) = magics.get(usize::from(seed)) {
            let end = offset + magic.len();
            if end <= bytes.len() {
                bytes[*offset..end].copy_from_slice(magic);
            }
        }
        let report = inspect_bytes(bytes);
        drop(report.summary());
        drop(serde_json::to_string(&report).expect("JSON"));
    }
}
