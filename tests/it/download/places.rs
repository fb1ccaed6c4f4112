//! Where an object may go, and what is refused before anything is written.

use std::fs;
use std::io::{BufRead, BufReader};

use super::{Case, PART, exported, noise};
use crate::support::TestEnv;

#[test]
fn files_that_stand_in_the_way_are_left_alone() {
    let case = Case::new(noise(3 * PART));
    fs::write(case.target(), "something else").expect("a file");
    case.fetch("").ends_with(9).says("is not this object");
    assert_eq!(
        fs::read(case.target()).expect("the file"),
        b"something else"
    );
    assert_eq!(case.env.calls("GetObject"), 0);
    case.fetch("--force").ends_with(0);
    case.has_arrived();
    // One that is the object already is done.
    case.env.cloud.clear_calls();
    case.fetch("").ends_with(0);
    assert_eq!(case.env.calls("GetObject"), 0);
    // A link that leads nowhere is somebody's as well.
    let link = case.env.home.path().join("link.raw");
    std::os::unix::fs::symlink("nowhere", &link).expect("a link");
    case.fetch("--to link.raw")
        .ends_with(9)
        .says("leads nowhere");
    assert_eq!(case.env.calls("GetObject"), 0);
    case.fetch("--to link.raw --force").ends_with(0);
    assert!(fs::read(&link).expect("the file") == case.bytes);
    // A second process is kept out.
    let case = Case::new(noise(64 * PART));
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 2MiB";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 3);
    case.fetch("").ends_with(9).says("another process");
    running.signal("KILL");
    drop(running.wait());
}

#[test]
fn what_can_be_no_download_is_refused() {
    let case = Case::new(noise(10));
    let env = &case.env;
    env.line("download folder/disk.raw")
        .ends_with(2)
        .says("--bucket");
    env.line("download cos://exports/../x")
        .ends_with(2)
        .says("segment");
    env.line("download cos://exports").ends_with(2);
    env.line("download cos://exports/folder/disk.raw cos://exports/disk.raw")
        .ends_with(2)
        .says("both be called");
    env.line("download cos://exports/a/x.cvm-part cos://exports/x --to new/")
        .ends_with(2)
        .says("while it is fetched");
    assert!(!env.home.path().join("new").exists());
    env.line("download cos://exports/folder/disk.raw --part-size 1KiB")
        .ends_with(2)
        .says("64KiB");
    env.line("download cos://exports/folder/disk.raw --concurrency 0")
        .ends_with(2);
    env.line("download exp-unknown1")
        .ends_with(2)
        .says("knows no export");
    env.line("download cos://exports/nothing.raw")
        .ends_with(3)
        .says("there is no object");
    env.cloud
        .change(|world| world.denied.insert("GetObject".to_owned()));
    case.fetch("").ends_with(4);
    env.cloud.change(|world| {
        world.denied.clear();
        world.crc_missing = true;
    });
    case.fetch("--require-checksum")
        .ends_with(8)
        .says("names no CRC-64");
    let run = case.fetch("--output json").ends_with(0);
    assert_eq!(run.json()["items"][0]["verified"], false);
}

#[test]
#[cfg(target_os = "linux")]
fn a_name_that_is_no_unicode_breaks_no_result() {
    use std::os::unix::ffi::OsStrExt;
    let case = Case::new(noise(10));
    let name = std::ffi::OsStr::from_bytes(b"odd-\xff.raw");
    for form in ["text", "json", "ndjson"] {
        let words = [
            "download",
            "cos://exports/folder/disk.raw",
            "--output",
            form,
            "--to",
        ];
        let done = case.env.command(&words).arg(name).output().expect("an end");
        assert_eq!(
            done.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let words = [
            "verify",
            "--bucket",
            "exports",
            "--key",
            "folder/disk.raw",
            "--output",
            form,
        ];
        let done = case.env.command(&words).arg(name).output().expect("an end");
        assert_eq!(
            done.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
fn a_signal_ends_the_reading_of_a_file_that_stands_there() {
    let env = TestEnv::new();
    let address = exported(&env, 400);
    // It takes minutes to read, whatever the machine is.
    let file = fs::File::create(env.home.path().join("large.raw")).expect("a file");
    file.set_len(400 << 30).expect("a hole");
    let words = ["download", &address, "--to", "large.raw"];
    let mut comparing = env.command(&words).spawn().expect("a start");
    let stderr = BufReader::new(comparing.stderr.take().expect("piped"));
    let mut lines = stderr.lines().map(|line| line.expect("text"));
    assert!(
        lines.any(|line| line.contains("comparing `large.raw` with the object")),
        "nothing was told before the reading"
    );
    interrupt(&comparing);
    assert_eq!(comparing.wait().expect("an end").code(), Some(130));
    // The same for `verify`, which is at it once it has looked.
    let key = address.rsplit('/').next().expect("a key");
    let words = ["verify", "large.raw", "--bucket", "exports", "--key", key];
    let looks = env.calls("HeadObject");
    let mut verifying = env.command(&words).spawn().expect("a start");
    env.wait_for_calls("HeadObject", looks + 1);
    interrupt(&verifying);
    assert_eq!(verifying.wait().expect("an end").code(), Some(130));
}

fn interrupt(child: &std::process::Child) {
    let id = child.id().to_string();
    let status = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(status.expect("kill starts").success());
}
