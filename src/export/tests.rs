//! The pure helpers of the door.

use super::*;
use crate::export::progress::{Observed, Step};
use crate::export::resume::default_timeout;
use crate::export::samples::{self, at, object};

#[test]
fn the_default_timeout_is_three_hours_and_twelve_for_each_tb_of_disk() {
    // 1 GiB is 1.073741824 GB, so it adds 46.385… seconds.
    let cases: [(&[u64], u64); 8] = [
        (&[], 0),
        (&[0], 0),
        (&[1], 46),
        (&[50], 2319),
        (&[50, 50], 4638),
        (&[500], 23_192),
        (&[500, 500, 500, 500, 500, 500], 139_156),
        (&[1000], 46_385),
    ];
    for (sizes, added) in cases {
        let seen = default_timeout(&samples::record(&samples::request(), sizes));
        assert_eq!(
            seen,
            Duration::from_secs(3 * 3600 + added),
            "asked: {sizes:?} GiB"
        );
    }
}

#[test]
fn a_disk_of_unknown_size_adds_nothing_to_the_timeout() {
    let mut record = samples::record(&samples::request(), &[50, 50]);
    record.files[1].size_gib = None;
    assert_eq!(
        default_timeout(&record),
        Duration::from_secs(3 * 3600 + 2319)
    );
}

#[test]
fn sizes_that_no_disk_has_overflow_neither_the_timeout_nor_its_deadline() {
    for sizes in [
        &[u64::MAX][..],
        &[u64::MAX, u64::MAX],
        &[u64::MAX >> 1, 1 << 63],
    ] {
        let timeout = default_timeout(&samples::record(&samples::request(), sizes));
        assert_eq!(
            timeout,
            Duration::from_secs(30 * 24 * 3600),
            "asked: {sizes:?} GiB"
        );
        assert!(at(1000) + timeout > at(1000));
    }
}

#[test]
fn a_finished_record_is_complete_when_its_last_file_was() {
    let written = |seconds| crate::cloud::cos::ObjectMeta {
        last_modified: seconds,
        ..object("p_xvda.raw")
    };
    let cases = [
        ([Some(at(1500)), Some(at(1700))], at(1700)),
        ([Some(at(1700)), Some(at(1500))], at(1700)),
        ([None, Some(at(1500))], at(1500)),
        ([None, None], at(9000)),
    ];
    for (times, expected) in cases {
        let mut record = samples::record(&samples::request(), &[50, 50]);
        for (file, time) in record.files.iter_mut().zip(times) {
            file.object = Some(written(time).into());
        }
        record = record.in_state(RecordState::Submitted);
        let seen = Observed::default();
        let step = Step::AllThere { seen, at: at(9000) };
        record
            .step(step)
            .expect("a submitted export may be complete");
        assert_eq!(record.state(), RecordState::Complete);
        assert_eq!(record.completed_at, Some(expected), "asked: {times:?}");
    }
}

#[test]
fn an_interruption_says_that_nothing_was_started() {
    let error = interrupted();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(error.to_string().contains("nothing was started"), "{error}");
}
