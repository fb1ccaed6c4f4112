//! Disks made by other people's programs, and what is said of them.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cvm_export::inspect::{DiskReport, FileSystemKind, PartitionTable, inspect};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Runs a program that makes disks, with `input` as what it reads.
fn tool(program: &str, arguments: &[&str], input: &str) {
    // Makers of file systems lie where only root looks by default.
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child
        .unwrap_or_else(|error| panic!("{program} is needed ({error}); `.ci/run` installs it"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("its input");
    drop(stdin);
    let run = child.wait_with_output().expect("its end");
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{program}: {stderr}");
}

/// A folder in which disks are made.
struct Workshop {
    folder: TempDir,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An empty file, all of it a hole.
    fn blank(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).expect("a file");
        file.set_len(size_bytes).expect("its size");
        path
    }

    /// A root file system as a distribution leaves it: `/etc/os-release` is a link, `/boot` has a kernel.
    fn root(&self) -> PathBuf {
        let root = self.path("root");
        for folder in ["etc", "usr/lib", "boot"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let release =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n";
        fs::write(root.join("usr/lib/os-release"), release).expect("a file");
        std::os::unix::fs::symlink("../usr/lib/os-release", root.join("etc/os-release"))
            .expect("a link");
        fs::write(root.join("boot/vmlinuz-6.1.0-1-amd64"), "kernel").expect("a file");
        root
    }

    /// A file system of the ext family with that root on it.
    fn ext(&self, kind: &str, size_bytes: u64) -> PathBuf {
        let path = self.blank(&format!("{kind}.img"), size_bytes);
        let root = self.root();
        let arguments = ["-q", "-L", "rootfs", "-U", UUID, "-d"];
        let arguments: Vec<_> = arguments
            .into_iter()
            .chain([root.to_str().expect("UTF-8"), path.to_str().expect("UTF-8")])
            .collect();
        tool(&format!("mkfs.{kind}"), &arguments, "");
        path
    }

    /// A disk divided by `sfdisk`, with a file at each place.
    fn disk(&self, size_bytes: u64, script: &str, parts: &[(u64, &Path)]) -> PathBuf {
        let disk = self.blank("disk.raw", size_bytes);
        tool(
            "sfdisk",
            &[
                "-q",
                "--no-reread",
                "--no-tell-kernel",
                disk.to_str().expect("UTF-8"),
            ],
            script,
        );
        let mut target = File::options().write(true).open(&disk).expect("the disk");
        for (place, part) in parts {
            target.seek(SeekFrom::Start(*place)).expect("the partition");
            let mut part = File::open(part).expect("a file system");
            std::io::copy(&mut part, &mut target).expect("a copy");
        }
        disk
    }
}

const UUID: &str = "b62021d2-70e5-4d2c-8a2d-50934f1baf77";

fn look(path: &Path) -> DiskReport {
    inspect(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Fails unless partition `index` holds the root of [`Workshop::root`].
#[track_caller]
fn assert_root(report: &DiskReport, index: usize, kind: FileSystemKind) {
    let partition = &report.partitions[index];
    let file_system = partition.file_system.as_ref().expect("a file system");
    assert_eq!(file_system.kind, kind);
    assert_eq!(file_system.label.as_ref().expect("a label"), &"rootfs");
    assert_eq!(file_system.uuid.as_ref().expect("a UUID"), &UUID);
    assert_eq!(file_system.kernels, ["vmlinuz-6.1.0-1-amd64"]);
    let os = partition.os.as_ref().expect("an operating system");
    assert_eq!(os.id.as_ref().expect("an id"), &"debian");
    assert_eq!(
        os.pretty_name.as_ref().expect("a name"),
        &"Debian GNU/Linux 12 (bookworm)"
    );
}

#[test]
fn a_boot_record_and_an_ext4_with_a_boot_flag() {
    let shop = Workshop::new();
    let root = shop.ext("ext4", 48 * MIB);
    let script = "label: dos\nlabel-id: 0x12345678\nstart=2048, size=98304, type=83, bootable\n";
    let disk = shop.disk(64 * MIB, script, &[(MIB, &root)]);
    let mut target = File::options().write(true).open(&disk).expect("the disk");
    target.write_all(b"\xeb\x63\x90GRUB \0").expect("boot code");
    let report = look(&disk);
    assert_eq!(report.warnings, Vec::<String>::new());
    let table = PartitionTable::Mbr {
        disk_id: "12345678".to_owned(),
    };
    assert_eq!(report.table, Some(table));
    let partition = &report.partitions[0];
    assert_eq!((partition.number, partition.is_bootable), (1, true));
    assert_eq!(
        (partition.start_bytes, partition.size_bytes),
        (MIB, 48 * MIB)
    );
    assert_root(&report, 0, FileSystemKind::Ext4);
    assert!(report.boot.bios && !report.boot.uefi, "{:?}", report.boot);
    assert!(
        !report
            .virt_install(&disk, "copy")
            .contains(&"uefi".to_owned())
    );
}

#[test]
fn a_guid_partition_table_with_an_efi_system() {
    let shop = Workshop::new();
    let efi = shop.blank("efi.img", 34 * MIB);
    tool(
        "mkfs.vfat",
        &[
            "-F",
            "32",
            "-n",
            "ESP",
            "-i",
            "deadbeef",
            efi.to_str().expect("UTF-8"),
        ],
        "",
    );
    let file_system = File::options().read(true).write(true).open(&efi);
    let file_system = fatfs::FileSystem::new(
        file_system.expect("the EFI system"),
        fatfs::FsOptions::new(),
    )
    .expect("a FAT");
    for folder in ["EFI", "EFI/BOOT"] {
        file_system.root_dir().create_dir(folder).expect("a folder");
    }
    let loader = file_system.root_dir().create_file("EFI/BOOT/BOOTX64.EFI");
    drop(loader.expect("a file"));
    file_system.unmount().expect("written");
    let root = shop.ext("ext4", 48 * MIB);
    let script = "label: gpt\nstart=2048, size=69632, type=uefi, name=\"EFI\"\nstart=71680, size=98304, type=linux, name=\"the root\"\n";
    let disk = shop.disk(96 * MIB, script, &[(MIB, &efi), (35 * MIB, &root)]);
    let report = look(&disk);
    assert_eq!(report.warnings, Vec::<String>::new());
    let kinds = report.partitions.iter().map(|it| it.kind.as_str());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        ["EFI system", "Linux filesystem"]
    );
    let efi = report.partitions[0].file_system.as_ref().expect("a FAT");
    assert_eq!(efi.label.as_ref().expect("a label"), &"ESP");
    assert_eq!(efi.uuid.as_ref().expect("a serial number"), &"DEAD-BEEF");
    assert_eq!(
        report.partitions[1].name.as_ref().expect("a name"),
        &"the root"
    );
    assert_root(&report, 1, FileSystemKind::Ext4);
    assert!(report.boot.uefi && !report.boot.bios, "{:?}", report.boot);
    assert_eq!(report.boot.architecture.as_deref(), Some("x86_64"));
    let words = report.virt_install(&disk, "copy");
    assert!(
        words.ends_with(&["--boot", "uefi"].map(str::to_owned)),
        "{words:?}"
    );

    // The same disk with a broken start is read by its backup.
    let mut target = File::options().write(true).open(&disk).expect("the disk");
    target.seek(SeekFrom::Start(512)).expect("the header");
    target.write_all(&[0; 512]).expect("damage");
    let report = look(&disk);
    assert!(
        report.warnings[0].contains("backup"),
        "{:?}",
        report.warnings
    );
    assert_root(&report, 1, FileSystemKind::Ext4);
}

#[test]
fn a_file_system_without_a_table() {
    for (name, kind) in [
        ("ext2", FileSystemKind::Ext2),
        ("ext3", FileSystemKind::Ext3),
        ("ext4", FileSystemKind::Ext4),
    ] {
        let shop = Workshop::new();
        let report = look(&shop.ext(name, 48 * MIB));
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(
            (report.table.as_ref(), report.partitions[0].number),
            (None, 0)
        );
        assert_root(&report, 0, kind);
    }
    let shop = Workshop::new();
    let fat = shop.blank("fat.img", 4 * MIB);
    tool(
        "mkfs.vfat",
        &["-n", "DATA", fat.to_str().expect("UTF-8")],
        "",
    );
    let report = look(&fat);
    assert_eq!(report.table, None);
    let file_system = report.partitions[0].file_system.as_ref().expect("a FAT");
    assert_eq!(file_system.kind, FileSystemKind::Vfat);
}

#[test]
fn a_file_system_that_was_mounted_is_read_and_said() {
    let shop = Workshop::new();
    let disk = shop.ext("ext4", 48 * MIB);
    let command = [
        "-w",
        "-R",
        "feature needs_recovery",
        disk.to_str().expect("UTF-8"),
    ];
    tool("debugfs", &command, "");
    let report = look(&disk);
    assert_root(&report, 0, FileSystemKind::Ext4);
    let file_system = report.partitions[0].file_system.as_ref().expect("an ext4");
    let detail = file_system.detail.as_deref().unwrap_or_default();
    assert!(detail.contains("was mounted"), "{detail}");
}

#[test]
fn a_converted_image_is_named_with_what_to_do() {
    let shop = Workshop::new();
    let raw = shop.ext("ext4", 48 * MIB);
    for format in ["qcow2", "vmdk", "vpc"] {
        let converted = shop.path(format);
        tool(
            "qemu-img",
            &[
                "convert",
                "-O",
                format,
                raw.to_str().expect("UTF-8"),
                converted.to_str().expect("UTF-8"),
            ],
            "",
        );
        let report = look(&converted);
        let warning = &report.warnings[0];
        assert!(warning.contains("qemu-img convert -O raw"), "{warning}");
    }
}

#[test]
fn damage_anywhere_in_a_file_system_is_survived() {
    let shop = Workshop::new();
    let disk = fs::read(shop.ext("ext4", 8 * MIB)).expect("the disk");
    // Every byte of the superblock and of what follows it, a few at a time.
    for step in (1024..40 * 1024).step_by(97) {
        let mut damaged = disk.clone();
        for place in (step..step + 97).step_by(13) {
            damaged[place] = !damaged[place];
        }
        let source = std::io::Cursor::new(damaged);
        let report = cvm_export::inspect::inspect_source(source).expect("readable");
        let warnings = report.warnings.join("; ");
        // What is said when the thread that looks inside panics, or never ends.
        for trouble in ["can't be followed", "too long"] {
            assert!(
                !warnings.contains(trouble),
                "from byte {step} on: {warnings}"
            );
        }
    }
    for length in [0, 1, 1023, 1025, 2048, 4096, 70_000, 1 << 20, 5 << 20] {
        let source = std::io::Cursor::new(disk[..length].to_vec());
        let report = cvm_export::inspect::inspect_source(source).expect("readable");
        assert!(!report.summary().is_empty(), "{length} bytes");
    }
}

#[test]
fn a_large_disk_of_holes_is_read_where_it_holds_something() {
    let shop = Workshop::new();
    let root = shop.ext("ext4", 48 * MIB);
    let script = "label: gpt\nstart=2048, size=98304, type=linux\n";
    let disk = shop.disk(500 << 30, script, &[(MIB, &root)]);
    let report = look(&disk);
    assert_eq!(report.size_bytes, 500 << 30);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_root(&report, 0, FileSystemKind::Ext4);
}
