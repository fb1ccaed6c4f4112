//! Through a pipe: in order, with bounded memory, and the verdict at the end.

use std::io::Read;

use cvm_export::simulator::{Effect, Fault};

use super::{Case, PART, noise};
use crate::support::fault;

#[test]
fn a_pipe_gets_the_bytes_in_order_and_the_verdict_at_the_end() {
    let case = Case::new(noise(30 * PART));
    let mut command = case.env.command(&[
        "download",
        "cos://exports/folder/disk.raw",
        "--part-size",
        "64KiB",
        "--to",
        "-",
    ]);
    let done = command.output().expect("an end");
    assert_eq!(done.status.code(), Some(0));
    assert!(done.stdout == case.bytes, "the bytes differ");
    case.set(vec![Fault {
        key: None,
        occurrence: Some(2),
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    }]);
    let done = command.output().expect("an end");
    assert_eq!(
        done.status.code(),
        Some(8),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    case.fetch("--to - --output json")
        .ends_with(2)
        .says("--to -");
}

/// The words of a run through a pipe.
const THROUGH: &[&str] = &[
    "download",
    "cos://exports/folder/disk.raw",
    "--part-size",
    "64KiB",
    "--stall-timeout",
    "500ms",
    "--to",
    "-",
];

#[test]
fn trouble_on_the_way_to_a_pipe_is_got_over() {
    for effect in [
        Effect::TruncatedBody { after_bytes: 1000 },
        Effect::StalledBody { after_bytes: 1000 },
        Effect::ShortBodyAgreeing { bytes: 1000 },
        Effect::ResetBefore,
        Effect::Status { status: 503 },
        Effect::WrongContentRange,
        Effect::WholeForRange,
    ] {
        let case = Case::new(noise(10 * PART + 1));
        case.set(vec![Fault {
            key: None,
            occurrence: Some(3),
            ..fault("GetObject", effect.clone())
        }]);
        let done = case.env.command(THROUGH).output().expect("an end");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{effect:?}\n{said}");
        assert!(done.stdout == case.bytes, "{effect:?}: the bytes differ");
    }
    for length in [0, 1] {
        let case = Case::new(noise(length));
        let done = case.env.command(THROUGH).output().expect("an end");
        assert_eq!(done.status.code(), Some(0));
        assert!(done.stdout == case.bytes);
    }
}

#[test]
fn an_object_that_is_replaced_on_its_way_to_a_pipe_ends_it() {
    let case = Case::new(noise(10 * PART));
    case.set(vec![Fault {
        key: None,
        occurrence: Some(5),
        ..fault("GetObject", Effect::ChangedObject)
    }]);
    let done = case.env.command(THROUGH).output().expect("an end");
    let said = String::from_utf8_lossy(&done.stderr);
    // What went through cannot be taken back, so it is not begun anew.
    assert_eq!(done.status.code(), Some(8), "{said}");
    assert!(said.contains("not the one that was asked for"), "{said}");
}

#[test]
fn a_reader_that_leaves_ends_the_run_with_a_word() {
    let case = Case::new(noise(100 * PART));
    let mut running = case.env.command(THROUGH).spawn().expect("a start");
    let mut first = [0; 10];
    let mut stdout = running.stdout.take().expect("piped");
    stdout.read_exact(&mut first).expect("ten bytes");
    drop(stdout);
    let done = running.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(9), "{said}");
    assert!(said.contains("the pipe is closed"), "{said}");
    assert!(!said.contains("panic"), "{said}");
    assert_eq!(first, case.bytes[..10]);
}

#[test]
fn a_signal_ends_a_run_whose_reader_takes_nothing() {
    let case = Case::new(noise(100 * PART));
    let mut running = case.env.command(THROUGH).spawn().expect("a start");
    let mut first = [0; 10];
    let stdout = running.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut first).expect("ten bytes");
    let id = running.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(killed.expect("kill starts").success());
    // Nobody reads on until it has ended.
    assert_eq!(running.wait().expect("an end").code(), Some(130));
    let mut said = String::new();
    let mut stderr = running.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert!(said.contains("the pipe got only a part"), "{said}");
}
