//! The process around the commands: variables, streams, limits and folders that are not as usual.

use std::process::Command;

use crate::support::{TestEnv, files_below, wait_until};

/// How `command` ended, and what it said.
fn end_of(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_unicode_is_refused_by_its_name_and_never_taken_for_unset() {
    use std::os::unix::ffi::OsStrExt;
    let env = TestEnv::new();
    let odd = std::ffi::OsStr::from_bytes(b"/tmp/caf\xe9");
    for name in [
        "TENCENTCLOUD_REGION",
        "TENCENTCLOUD_SECRET_KEY",
        "TENCENTCLOUD_SECURITY_TOKEN",
        "TCCLI_PROFILE",
        "CVM_EXPORT_ENDPOINT_URL",
        "CVM_EXPORT_STATE_DIR",
        "HTTPS_PROXY",
    ] {
        let mut command = env.command(&["images", "--bucket", "exports"]);
        let (code, stderr) = end_of(command.env(name, odd));
        assert_eq!(code, Some(2), "{name}: {stderr}");
        assert!(
            stderr.contains(&format!("environment variable {name}")),
            "{stderr}"
        );
        assert!(!stderr.contains("caf"), "values may be secrets: {stderr}");
    }
    assert_eq!(env.cloud.calls().len(), 0, "nothing was asked");
    let mut command = env.command(&["images", "--bucket", "exports"]);
    let (code, stderr) = end_of(command.env("UNRELATED", odd).env("CI", odd));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_state_folder_that_depends_on_the_working_folder_is_refused() {
    let mut env = TestEnv::new();
    for folder in ["state", "./state", "../state"] {
        env.set("CVM_EXPORT_STATE_DIR", folder);
        env.line("image --id img-linux001 --bucket exports --prefix p")
            .ends_with(2)
            .says("CVM_EXPORT_STATE_DIR")
            .says("working folder");
        env.line("images --bucket exports").ends_with(2);
    }
    assert!(!env.home.path().join("state").exists());
    assert_eq!(env.cloud.calls().len(), 0, "nothing was asked");
}

#[test]
fn a_command_that_submits_nothing_needs_no_journal_and_one_that_submits_does() {
    let mut env = TestEnv::new();
    let file = env.home.path().join("occupied");
    std::fs::write(&file, "a file").expect("a file");
    env.set("CVM_EXPORT_STATE_DIR", &file.display().to_string());
    env.cloud
        .change(|world| world.put_object("exports-1250000000", "console_xvda.raw", "system"));
    let image = "image --id img-linux001 --bucket exports --prefix p";
    for line in [
        "check --id img-linux001 --bucket exports --prefix p",
        "check --id img-linux001 --bucket exports --print-policy",
        "images --bucket exports",
        &format!("{image} --dry-run"),
        "wait --bucket exports --prefix console --expect 1",
        "wait --bucket exports console_xvda.raw",
        "download cos://exports/console_xvda.raw --to fetched.raw --force",
    ] {
        env.line(line).ends_with(0).does_not_say("journal");
        env.line(&format!("{line} -v"))
            .ends_with(0)
            .says("journal: none, and this command needs none");
    }
    env.line("status").ends_with(9);
    env.line("wait exp-unknown1").ends_with(9);
    env.line(image).ends_with(9).says("nothing was submitted");
    assert_eq!(env.cloud.change(|world| world.started_tasks().len()), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn data_that_stdout_does_not_take_is_no_success() {
    let image = "image --id img-linux001 --bucket exports --poll-interval 100ms --prefix";
    for line in [
        &format!("{image} a --output json"),
        &format!("{image} b --output ndjson"),
        &format!("{image} c"),
        "check --id img-linux001 --bucket exports",
        "images --bucket exports --output json",
        "completions bash",
        "man image",
        "image --help",
        "--version",
    ] {
        let env = TestEnv::new();
        let full = || {
            let file = std::fs::File::options().write(true).open("/dev/full");
            file.expect("a device that is always full")
        };
        let words: Vec<&str> = line.split(' ').collect();
        let (code, stderr) = end_of(env.command(&words).stdout(full()));
        assert_eq!(code, Some(9), "{line}: {stderr}");
        assert!(stderr.contains("stdout did not take all"), "{stderr}");
        if line.starts_with(image) {
            // The export itself is not concerned, and its summary comes before the complaint.
            let summary = stderr.find("is exported: 1 file");
            assert!(summary < stderr.find("stdout did not"), "{stderr}");
            assert!(summary.is_some(), "{stderr}");
            env.assert_submits(1);
        }
        // What ended for a reason of its own keeps its code.
        let words = ["image", "--id", "img-window03", "--bucket", "exports"];
        let ndjson = ["--output", "ndjson"];
        let mut command = env.command(&words);
        let (code, stderr) = end_of(command.args(ndjson).stdout(full()));
        assert_eq!(code, Some(3), "{stderr}");
    }
}

/// Waits until the one record of this world's journal is `state`.
fn wait_for_state(env: &TestEnv, state: &str) {
    let needle = format!("\"state\": \"{state}\"");
    let records = || files_below(&env.state_folder().join("exports"));
    wait_until(
        || format!("{state}, {:?}", records()),
        || records().iter().any(|(_, text)| text.contains(&needle)),
    );
}

const IMAGE: &[&str] = &[
    "image",
    "--id",
    "img-linux001",
    "--bucket",
    "exports",
    "--prefix",
    "p",
    "--poll-interval",
    "100ms",
];

#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_run_was_started_to_ignore_stay_ignored() {
    let env = TestEnv::new();
    env.cloud.change(|world| world.export_seconds = Some(1.5));
    let running = env.start_after("trap '' HUP INT; trap - TERM", IMAGE);
    wait_for_state(&env, "submitted");
    running.signal("HUP");
    running.signal("INT");
    let run = running.wait().ends_with(0);
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stderr);
    // What is not ignored is still heard.
    env.cloud
        .change(|world| world.export_seconds = Some(1000.0));
    let other = [&IMAGE[..6], &["q"], &IMAGE[7..]].concat();
    let running = env.start_after("trap '' HUP; trap - TERM", &other);
    wait_for_state(&env, "submitted");
    running.signal("HUP");
    running.signal("TERM");
    running
        .wait()
        .ends_with(143)
        .says("watch again: cvm-export wait");
}

#[cfg(unix)]
#[test]
fn a_limit_on_file_sizes_is_an_error_of_the_disk_and_kills_nothing() {
    let env = TestEnv::new();
    env.start_after("ulimit -f 0", IMAGE)
        .wait()
        .ends_with(9)
        .says("nothing was submitted")
        .says("cannot write the record");
    env.assert_submits(0);
    // A result that goes to a file is not lost in silence either.
    env.start_after(
        "ulimit -f 0; exec >listing.txt",
        &["images", "--bucket", "exports"],
    )
    .wait()
    .ends_with(9)
    .says("stdout did not take all");
}
