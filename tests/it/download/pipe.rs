//! Through a pipe: in order, with bounded memory, and the verdict at the end.

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
