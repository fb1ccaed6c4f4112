//! What disks refuse: no room, no right to write, devices. Where this machine lends no mounts or loop
//! devices, the tests that need them say so on stderr.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Case, PART, noise, patchy};

const MIB: usize = 1 << 20;

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id starts");
    id.stdout == b"0\n"
}

/// Says on stderr, where no test harness hides it, that a test or a part of it was not run.
fn not_run(reason: &str) {
    drop(writeln!(std::io::stderr(), "not run: {reason}"));
}

/// Whether `command` works here; says on stderr where it does not.
fn works(mut command: Command) -> bool {
    let done = command.output();
    let works = done.as_ref().is_ok_and(|done| done.status.success());
    if !works {
        not_run(&format!("{command:?} does not work here ({done:?})"));
    }
    works
}

/// A shell script in a mount namespace of its own, which may mount; it gets the words of a run of the
/// binary as `"$@"`. `None` where there is no such namespace.
fn among_own_mounts(case: &Case, arguments: &[&str], script: &str) -> Option<Output> {
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "/bin/sh", "-c", script, "sh"]);
        command
    };
    if !works(shell("mount -t tmpfs -o size=1m none /mnt")) {
        return None;
    }
    let run = case.env.command(arguments);
    let mut command = shell(script);
    command
        .arg(run.get_program())
        .args(run.get_args())
        .env_clear()
        .current_dir(case.env.home.path());
    for (name, value) in run.get_envs() {
        command.env(name, value.expect("a set variable"));
    }
    Some(command.output().expect("an end"))
}

/// A run that does not fit, with the program's words; then more room, and a run that goes on.
#[track_caller]
fn stops_for_want_of_room_and_goes_on(
    case: &Case,
    mebibytes: usize,
    flags: &str,
) -> Option<String> {
    fs::create_dir(case.env.home.path().join("small")).expect("a folder");
    fs::write(case.env.home.path().join("expected"), &case.bytes).expect("a file");
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m none small || exit 99
        \"$@\" {flags}; echo \"first: $?\" >&2
        ls small >&2
        mount -o remount,size=400m small || exit 98
        \"$@\"; echo \"second: $?\" >&2
        cmp small/disk.raw expected >&2 && ls small >&2"
    );
    let words = "download cos://exports/folder/disk.raw --to small --part-size 1MiB";
    let words: Vec<_> = words.split(' ').collect();
    let done = among_own_mounts(case, &words, &script)?;
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    for text in [
        "first: 9\ndisk.raw.cvm-part\ndisk.raw.cvm-part.json\n",
        "what has arrived is kept",
        "going on with",
        "second: 0\ndisk.raw\n",
    ] {
        assert!(stderr.contains(text), "`{text}` is missing in\n{stderr}");
    }
    Some(stderr)
}

#[test]
fn a_run_stops_before_the_disk_is_full_and_goes_on_with_more_room() {
    let case = Case::new(noise(30 * MIB));
    // 64 MiB are left to others.
    if let Some(said) = stops_for_want_of_room_and_goes_on(&case, 80, "--limit-rate 12MiB") {
        assert!(said.contains("zeros take no room"), "no warning:\n{said}");
        assert!(said.contains("bytes are needed in `small`"), "{said}");
    }
}

#[test]
fn a_run_whose_room_is_set_aside_is_not_stopped_for_the_sake_of_others() {
    let case = Case::new(noise(30 * MIB));
    fs::create_dir(case.env.home.path().join("small")).expect("a folder");
    fs::write(case.env.home.path().join("expected"), &case.bytes).expect("a file");
    let script = "mount -t tmpfs -o size=80m none small || exit 99
        \"$@\" --limit-rate 12MiB; echo \"first: $?\" >&2
        fallocate --length 30MiB small/disk.raw.cvm-part || exit 98
        \"$@\"; echo \"second: $?\" >&2
        cmp small/disk.raw expected >&2 && ls small >&2";
    let words = "download cos://exports/folder/disk.raw --to small --part-size 1MiB";
    let words: Vec<_> = words.split(' ').collect();
    if let Some(done) = among_own_mounts(&case, &words, script) {
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("first: 9\n"), "{said}");
        assert!(said.ends_with("second: 0\ndisk.raw\n"), "{said}");
    }
}

#[test]
fn a_run_that_the_full_disk_ends_goes_on_with_more_room() {
    let case = Case::new(noise(24 * MIB));
    stops_for_want_of_room_and_goes_on(&case, 8, "");
}

#[test]
fn a_limit_on_the_size_of_files_is_the_disks_refusal() {
    let case = Case::new(noise(3 * MIB));
    let words = "download cos://exports/folder/disk.raw";
    let words: Vec<_> = words.split(' ').collect();
    let run = case.env.start_after("ulimit -f 1024", &words).wait();
    run.ends_with(9).says("make room");
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_file_system_without_holes_refuses_before_the_first_byte_or_never() {
    if !is_root() {
        not_run("only root mounts a FAT file system");
        return;
    }
    let mut case = Case::new(noise(60 * MIB));
    let image = case.env.home.path().join("fat.img");
    fs::create_dir(case.env.home.path().join("fat")).expect("a folder");
    fs::File::create(&image)
        .and_then(|file| file.set_len(40 << 20))
        .expect("an image");
    let mut making = Command::new("mkfs.vfat");
    making.arg(&image);
    if !works(making) {
        return;
    }
    let script = "mount -o loop fat.img fat || exit 99
        \"$@\"; echo \"code: $?\" >&2
        ls fat >&2
        [ ! -e fat/disk.raw ] || cmp fat/disk.raw expected >&2 || exit 98";
    let words = "download cos://exports/folder/disk.raw --to fat --part-size 1MiB";
    let words: Vec<_> = words.split(' ').collect();
    let run = |case: &Case| {
        fs::write(case.env.home.path().join("expected"), &case.bytes).expect("a file");
        let done = among_own_mounts(case, &words, script)?;
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        match done.status.code() {
            Some(99) => {
                not_run(&format!("no loop mounts here ({stderr})"));
                None
            }
            code => {
                assert_eq!(code, Some(0), "{stderr}");
                Some(stderr)
            }
        }
    };
    let Some(said) = run(&case) else { return };
    assert!(said.ends_with("code: 9\n"), "something was left:\n{said}");
    assert!(said.contains("make room"), "{said}");
    assert_eq!(case.env.calls("GetObject"), 0);
    // It fits, although less is left then than others are usually left: the room is set aside.
    case.bytes.truncate(25 * MIB);
    let bytes = case.bytes.clone();
    case.env
        .cloud
        .change(|world| world.put_object(super::BUCKET, "folder/disk.raw", bytes));
    let said = run(&case).expect("it worked just now");
    assert!(said.ends_with("code: 0\ndisk.raw\n"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let case = Case::new(noise(PART));
    let home = case.env.home.path();
    fs::write(home.join("file"), "").expect("a file");
    for to in ["file/disk.raw", "file/"] {
        case.fetch(&format!("--to {to}"))
            .ends_with(9)
            .says("`file/");
    }
    fs::create_dir(home.join("fixed")).expect("a folder");
    let script = "mount -t tmpfs -o ro none fixed || exit 99
        \"$@\"; echo \"code: $?\" >&2";
    let words = ["download", "cos://exports/folder/disk.raw", "--to", "fixed"];
    if let Some(done) = among_own_mounts(&case, &words, script) {
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.ends_with("code: 9\n"), "{said}");
        assert!(said.contains("cannot write `fixed/disk.raw"), "{said}");
    }
    assert_eq!(case.env.calls("GetObject"), 0);
}

#[test]
fn what_can_hold_no_object_is_left_alone_whatever_is_said() {
    let case = Case::new(noise(PART));
    let home = case.env.home.path();
    let made = Command::new("mkfifo").arg(home.join("fifo")).status();
    assert!(made.expect("mkfifo starts").success());
    let _socket = std::os::unix::net::UnixListener::bind(home.join("socket")).expect("a socket");
    std::os::unix::fs::symlink("/dev/null", home.join("null")).expect("a link");
    for to in ["/dev/null", "fifo", "socket", "null"] {
        for force in ["", " --force"] {
            case.fetch(&format!("--to {to}{force}"))
                .ends_with(2)
                .says("is neither a file nor a block device")
                .says("`--to -` writes to a pipe");
        }
    }
    let kind = |path: &Path| fs::symlink_metadata(path).expect("still there").file_type();
    assert!(kind(&home.join("fifo")).is_fifo());
    assert!(kind(&home.join("socket")).is_socket());
    assert!(kind(Path::new("/dev/null")).is_char_device());
    assert!(!Path::new("/dev/null.cvm-part").exists());
    assert_eq!(case.env.calls("GetObject"), 0);
}

/// A loop device over a file of bytes that are all 255.
struct Device {
    path: PathBuf,
    file: PathBuf,
}

impl Device {
    /// `None` where there are none, which stderr then says.
    fn new(case: &Case, length: usize) -> Option<Self> {
        let file = case.env.home.path().join(format!("device-{length}"));
        fs::write(&file, vec![255; length]).expect("a file");
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(&file);
        let done = losetup.output();
        match done {
            Ok(done) if done.status.success() => {
                let path = String::from_utf8(done.stdout).expect("text");
                let path = PathBuf::from(path.trim());
                Some(Self { path, file })
            }
            done => {
                not_run(&format!("{losetup:?} does not work here ({done:?})"));
                None
            }
        }
    }

    fn name(&self) -> &str {
        self.path.to_str().expect("text")
    }

    fn ledger(&self) -> PathBuf {
        PathBuf::from(format!("{}.cvm-part.json", self.name()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let done = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
        assert!(done.expect("losetup starts").success());
        drop(fs::remove_file(self.ledger()));
    }
}

#[test]
fn a_block_device_is_overwritten_where_that_is_said_and_nothing_else_is() {
    let case = Case::new(patchy(64 * PART));
    let Some(device) = Device::new(&case, 64 * PART + 4096) else {
        return;
    };
    let to = format!("--to {}", device.name());
    case.fetch(&to)
        .ends_with(9)
        .says("is a block device; what it holds would be overwritten")
        .says("--force");
    assert_eq!(case.env.calls("GetObject"), 0);
    // What was begun with --force is gone on with without it.
    let line = format!(
        "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 3MiB --force {to}"
    );
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 20);
    running.signal("INT");
    running.wait().ends_with(130);
    case.fetch(&to)
        .ends_with(0)
        .says("going on with")
        .does_not_say("starting anew");
    assert!(case.env.calls("GetObject") < 64 + 16);
    let seen = fs::read(&device.path).expect("the device");
    assert!(seen[..case.bytes.len()] == case.bytes, "the bytes differ");
    assert_eq!(seen[case.bytes.len()..], [255; 4096], "behind the object");
    assert_eq!(fs::read(&device.file).expect("its file"), seen);
    let kind = fs::metadata(&device.path).expect("still there").file_type();
    assert!(kind.is_block_device());
    assert!(!device.ledger().exists());
    // Done is done: what it holds now is somebody's.
    case.fetch(&to).ends_with(9);
}

#[test]
fn a_block_device_that_is_too_small_or_in_use_is_refused() {
    let case = Case::new(noise(64 * PART));
    let Some(small) = Device::new(&case, 32 * PART) else {
        return;
    };
    case.fetch(&format!("--force --to {}", small.name()))
        .ends_with(9)
        .says("bytes are needed");
    let Some(device) = Device::new(&case, 64 * PART) else {
        return;
    };
    let made = Command::new("mkfs.ext4")
        .args(["-q", device.name()])
        .status();
    assert!(made.expect("mkfs.ext4 starts").success());
    let mounted = case.env.home.path().join("mounted");
    fs::create_dir(&mounted).expect("a folder");
    let script = format!(
        "mount {} mounted || exit 99; \"$@\"; echo \"code: $?\" >&2",
        device.name()
    );
    let words = [
        "download",
        "cos://exports/folder/disk.raw",
        "--force",
        "--to",
        device.name(),
    ];
    if let Some(done) = among_own_mounts(&case, &words, &script) {
        let said = String::from_utf8_lossy(&done.stderr);
        if done.status.code() == Some(99) {
            not_run(&format!("no mounts of loop devices here ({said})"));
            return;
        }
        assert!(said.ends_with("code: 9\n"), "{said}");
        assert!(said.contains("is in use"), "{said}");
    }
    assert_eq!(case.env.calls("GetObject"), 0);
}
