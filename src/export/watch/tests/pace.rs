//! When to look, how fast it goes, and what is said about it.

use super::*;
use crate::event::Event;

#[test]
fn the_first_pause_is_short_and_later_ones_grow_up_to_the_ceiling() {
    let policy = PollPolicy::default();
    let seconds = |look| policy.pause(look, 1.0).as_secs_f64();
    assert_eq!(policy.pause(0, 1.0), Duration::from_millis(20));
    for (look, expected) in [(1, 1.0), (2, 1.5), (3, 2.25), (4, 3.375)] {
        assert!(
            (seconds(look) - expected).abs() < 1e-6,
            "asked: look {look}; expected {expected}; seen {}",
            seconds(look)
        );
    }
    for look in [12, 60, 64, 65, 66, 1000, u32::MAX] {
        assert_eq!(
            policy.pause(look, 1.0),
            policy.ceiling,
            "asked: look {look}"
        );
    }
    assert_eq!(policy.ceiling, Duration::from_secs(60));
    assert!(!policy.is_fixed());
}

#[test]
fn jitter_spreads_growing_pauses_by_a_tenth_and_never_beyond_the_ceiling() {
    let policy = PollPolicy::default();
    for look in 1..200 {
        let whole = policy.pause(look, 1.0).as_secs_f64();
        for jitter in [-1.0, 0.0, 0.25, 0.5, 0.99, 1.0, 7.0] {
            let pause = policy.pause(look, jitter);
            assert!(
                pause <= policy.ceiling,
                "asked: look {look}, jitter {jitter}; seen {pause:?}"
            );
            let share = pause.as_secs_f64() / whole;
            assert!(
                (0.899_999..=1.000_001).contains(&share),
                "asked: look {look}, jitter {jitter}; seen {share}"
            );
        }
        let least = policy.pause(look, 0.0).as_secs_f64() / whole;
        assert!(
            (least - 0.9).abs() < 1e-6,
            "asked: look {look}; expected nine tenths; seen {least}"
        );
    }
    assert_eq!(
        policy.pause(0, 0.0),
        policy.pause(0, 1.0),
        "the first look comes at once"
    );
}

#[test]
fn the_most_looks_are_those_of_the_shortest_pauses() {
    let most = |policy: PollPolicy, seconds| policy.most_looks(Duration::from_secs(seconds));
    let fixed = PollPolicy::fixed(Duration::from_secs(10));
    // At 0.02, 10.02, 20.02, … and at the end.
    for (seconds, expected) in [(0, 1), (1, 2), (10, 2), (11, 3), (100, 11)] {
        assert_eq!(most(fixed, seconds), expected, "asked: {seconds} s");
    }
    let growing = PollPolicy::default();
    for timeout in [0, 1, 60, 3600, 12_345, 30 * 24 * 3600] {
        let limit = Duration::from_secs(timeout);
        let (mut looks, mut elapsed) = (1, growing.pause(0, 0.0));
        while elapsed < limit {
            elapsed += growing.pause(looks, 0.0);
            looks += 1;
        }
        assert_eq!(
            most(growing, timeout),
            u64::from(looks),
            "asked: {timeout} s"
        );
    }
    let often = PollPolicy::fixed(Duration::from_millis(1));
    assert_eq!(
        often.most_looks(Duration::MAX),
        u64::MAX,
        "counted, not made"
    );
}

#[test]
fn a_fixed_interval_is_kept_to_the_letter_after_the_first_look() {
    for interval in [
        Duration::from_millis(100),
        Duration::from_secs(30),
        Duration::from_secs(3600),
    ] {
        let policy = PollPolicy::fixed(interval);
        assert!(policy.is_fixed(), "{interval:?}");
        assert_eq!(
            policy.pause(0, 0.3),
            Duration::from_millis(20),
            "{interval:?}"
        );
        for (look, jitter) in [(1, 0.0), (2, 1.0), (50, 0.5), (u32::MAX, 0.0)] {
            assert_eq!(
                policy.pause(look, jitter),
                interval,
                "asked: look {look}, jitter {jitter}"
            );
        }
    }
}

#[test]
fn the_speed_is_that_of_the_last_eight_looks() {
    let second = Duration::from_secs;
    let speed = |notes: &[(u64, u64)]| {
        let mut speed = Speed::default();
        for (time, bytes) in notes {
            speed.note(second(*time), *bytes);
        }
        speed.bytes_per_second()
    };
    assert_eq!(speed(&[]), None);
    assert_eq!(speed(&[(1, 100)]), None, "one look is no speed");
    assert_eq!(speed(&[(1, 100), (3, 500)]), Some(200));
    assert_eq!(speed(&[(1, 100), (3, 100)]), None, "nothing moved");
    assert_eq!(speed(&[(1, 100), (3, 50)]), None, "fewer bytes than before");
    assert_eq!(speed(&[(1, 100), (1, 500)]), None, "no time between");
    // A fast start falls out of the window: 1000 bytes at once, then 1 a second.
    let mut notes = vec![(0, 0), (1, 1000)];
    notes.extend((2..=7).map(|time| (time, 999 + time)));
    assert_eq!(
        speed(&notes),
        Some(143),
        "eight looks with the fast start: 1006 bytes in 7 s"
    );
    notes.push((8, 1007));
    assert_eq!(
        speed(&notes),
        Some(1),
        "the ninth look pushes the first out"
    );
}

fn messages(receiver: &mut tokio::sync::mpsc::UnboundedReceiver<Event>) -> Vec<String> {
    std::iter::from_fn(|| receiver.try_recv().ok())
        .filter_map(|event| match event.kind {
            EventKind::Warning { message } => Some(message),
            _ => None,
        })
        .collect()
}

#[test]
fn looks_without_any_answer_are_said_at_the_third_and_again_only_after_a_better_one() {
    let record = one_disk();
    let failed = |name| (name, Head::Failed("connection reset".to_owned()));
    let all = Ok(look(
        &record,
        &[failed(API_0), failed(CONSOLE_0)],
        UploadsSeen::NotSeen,
    ));
    let some = Ok(look(&record, &[failed(API_0)], UploadsSeen::NotSeen));
    let none: Result<Look, String> = Err("COS did not answer in time".to_owned());
    let (events, mut receiver) = Events::channel();
    let mut trouble = Trouble::default();
    let mut said = |looks: &[&Result<Look, String>]| {
        for look in looks {
            trouble.note(look, &events);
        }
        messages(&mut receiver)
    };
    assert_eq!(said(&[&all, &none]), Vec::<String>::new(), "two looks");
    let third = said(&[&all]);
    assert!(
        third.len() == 1 && third[0].contains("connection reset"),
        "seen: {third:?}"
    );
    assert_eq!(
        said(&[&all, &none, &none, &none]),
        Vec::<String>::new(),
        "it was said"
    );
    assert_eq!(
        said(&[&some, &none, &none]),
        Vec::<String>::new(),
        "a better look, then two"
    );
    let again = said(&[&none]);
    assert!(
        again.len() == 1 && again[0].contains("did not answer in time"),
        "seen: {again:?}"
    );
}

#[test]
fn progress_says_its_source_and_a_total_only_where_every_size_is_known() {
    let cases = [
        (ImageFormat::Raw, Some(DISK_GIB), Some(2 * (DISK_GIB << 30))),
        (ImageFormat::Raw, None, None),
        (ImageFormat::Qcow2, Some(DISK_GIB), None),
    ];
    for (format, size_gib, expected_total) in cases {
        for (uploads, expected_done, expected_source) in [
            (listed(&[]), None, ProgressSource::Elapsed),
            (
                listed(&[(API_0, "u-0", Some(10))]),
                Some(10),
                ProgressSource::Upload,
            ),
        ] {
            let (mut record, mut watched) = (two_disks(), Watched::new(2));
            record.format = format;
            record.files[1].size_gib = size_gib;
            step(&mut watched, &mut record, &[], uploads);
            let (events, mut receiver) = Events::channel();
            let stopwatch = Stopwatch::start();
            tell_progress(
                &events,
                &record,
                &watched,
                &mut Speed::default(),
                &stopwatch,
                at(2007),
            );
            let event = receiver.try_recv().expect("an event");
            let EventKind::Progress {
                elapsed,
                files_done,
                files_total,
                bytes_done,
                bytes_total,
                source,
                ..
            } = event.kind
            else {
                panic!("expected progress, seen {event:?}");
            };
            assert_eq!(elapsed, Duration::from_secs(7), "since the submit");
            assert_eq!((files_done, files_total), (0, 2));
            assert_eq!(
                (bytes_done, bytes_total, source),
                (expected_done, expected_total, expected_source),
                "asked: {format}, {size_gib:?}"
            );
        }
    }
}
