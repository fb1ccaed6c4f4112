//! A real disk, made by other people's programs, through the binary and back.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use cvm_export::simulator::{DiskSource, Naming, Options};

use crate::support::TestEnv;

fn tool(program: &str, arguments: &[&str]) {
    // `mkfs.ext4` lies where only root looks by default.
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let run = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output();
    let run =
        run.unwrap_or_else(|error| panic!("{program} is needed ({error}); `.ci/run` installs it"));
    assert!(
        run.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// A 64 MiB disk with an MBR and one ext4 partition that holds a file, written by `qemu-img` and
/// `mkfs.ext4`, and a size that is no whole number of GiB.
fn make_disk(folder: &Path) -> std::path::PathBuf {
    let disk = folder.join("disk.raw");
    let file_system = folder.join("ext4.img");
    let content = folder.join("content");
    std::fs::create_dir(&content).expect("a folder");
    std::fs::write(
        content.join("hello.txt"),
        "hello from a real file system\n".repeat(1000),
    )
    .expect("a file");
    tool(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "raw",
            &disk.display().to_string(),
            "64M",
        ],
    );
    tool(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "raw",
            &file_system.display().to_string(),
            "63M",
        ],
    );
    tool(
        "mkfs.ext4",
        &[
            "-q",
            "-d",
            &content.display().to_string(),
            &file_system.display().to_string(),
        ],
    );
    let mut target = File::options().write(true).open(&disk).expect("the disk");
    let mut table = [0_u8; 512];
    // One bootable Linux partition from sector 2048 on, 63 MiB long.
    table[446] = 0x80;
    table[446 + 4] = 0x83;
    table[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&(63 * 2048_u32).to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    target.write_all(&table).expect("a partition table");
    target
        .seek(SeekFrom::Start(1 << 20))
        .expect("the partition");
    std::io::copy(
        &mut File::open(&file_system).expect("the file system"),
        &mut target,
    )
    .expect("a copy");
    disk
}

/// CRC-64/XZ bit by bit: slow, and nobody else's code.
fn crc64_xz(bytes: &[u8]) -> u64 {
    let mut table = [0_u64; 256];
    for (index, entry) in (0_u64..).zip(&mut table) {
        *entry = (0..8).fold(index, |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xc96c_5795_d787_0f42
            } else {
                crc >> 1
            }
        });
    }
    let crc = bytes.iter().fold(u64::MAX, |crc, byte| {
        table[usize::from(u8::try_from(crc & 0xff).expect("a byte") ^ byte)] ^ (crc >> 8)
    });
    crc ^ u64::MAX
}

#[test]
fn a_disk_made_by_others_arrives_byte_for_byte_with_its_checksum() {
    assert_eq!(crc64_xz(b"123456789"), 0x995d_c9bb_df19_39fa);
    let folder = tempfile::tempdir().expect("a folder");
    let path = make_disk(folder.path());
    let mut disk = Vec::new();
    File::open(&path)
        .expect("the disk")
        .read_to_end(&mut disk)
        .expect("its bytes");
    for naming in [Naming::Api, Naming::Console] {
        let env = TestEnv::with(Options {
            images: vec![(
                "img-real01".parse().expect("an id"),
                DiskSource::File(path.clone()),
            )],
            naming,
            ..Options::default()
        });
        env.cloud.change(|world| world.export_seconds = Some(0.3));
        let run = env
            .line("image --id img-real01 --bucket exports --prefix p --poll-interval 100ms --output json")
            .ends_with(0);
        let file = run.json()["files"][0].clone();
        assert_eq!(file["size_bytes"].as_u64(), Some(disk.len() as u64));
        assert_eq!(
            file["crc64"].as_str(),
            Some(crc64_xz(&disk).to_string().as_str())
        );
        let key = file["key"].as_str().expect("a key").to_owned();
        let exported = env.cloud.change(|world| {
            let bucket = world.bucket_mut("exports-1250000000").expect("the sample");
            bucket
                .objects
                .get(&key)
                .map(|object| object.content.clone())
                .expect("the object")
        });
        let mut bytes = vec![0; disk.len()];
        exported.read_at(0, &mut bytes).expect("the object's bytes");
        assert!(bytes == disk, "the object's bytes are not the disk's");
    }
}
