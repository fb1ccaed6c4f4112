//! The transition from look to look.

mod pace;

use super::*;
use crate::export::samples::{self, DISK_GIB, at, key, object, record};

const API_0: &str = "p_img-1_system_snap-0.raw";
const CONSOLE_0: &str = "p_xvda.raw";
const API_1: &str = "p_img-1_data_snap-1.raw";
const CONSOLE_1: &str = "p_xvdb.raw";

fn one_disk() -> Record {
    let mut record = record(&samples::request(), &[DISK_GIB]);
    record.submitted_at = Some(at(2000));
    record
}

fn two_disks() -> Record {
    let mut record = record(&samples::request(), &[DISK_GIB, DISK_GIB]);
    record.submitted_at = Some(at(2000));
    record
}

fn present(name: &str) -> Head {
    Head::Present(Box::new(object(name)))
}

fn listed(uploads: &[(&str, &str, Option<u64>)]) -> UploadsSeen {
    let unfinished = uploads.iter().map(|(name, upload_id, bytes)| Unfinished {
        key: key(name),
        upload_id: (*upload_id).to_owned(),
        bytes: *bytes,
    });
    UploadsSeen::Listed {
        unfinished: unfinished.collect(),
        is_truncated: false,
    }
}

/// A look at the unfinished files of `record`: HEAD finds nothing but what `heads` says.
fn look(record: &Record, heads: &[(&str, Head)], uploads: UploadsSeen) -> Look {
    let unfinished = record.files.iter().filter(|file| file.object.is_none());
    let names = unfinished.flat_map(|file| &file.names);
    let mut seen: BTreeMap<ObjectKey, Head> = names
        .map(|name| (name.key.clone(), Head::Missing))
        .collect();
    seen.extend(heads.iter().map(|(name, head)| (key(name), head.clone())));
    Look {
        heads: seen,
        uploads,
    }
}

/// Takes one look in and returns what it says.
fn step(
    watched: &mut Watched,
    record: &mut Record,
    heads: &[(&str, Head)],
    uploads: UploadsSeen,
) -> (TaskState, Vec<News>) {
    let look = look(record, heads, uploads);
    watched.step(record, &look)
}

fn warnings(news: &[News]) -> Vec<&str> {
    let texts = news.iter().filter_map(|item| match item {
        News::Warning(text) => Some(text.as_str()),
        News::FileComplete(_) => None,
    });
    texts.collect()
}

#[test]
fn an_object_under_either_name_completes_its_disk_and_no_other() {
    for (position, name) in [(0, API_0), (0, CONSOLE_0), (1, API_1), (1, CONSOLE_1)] {
        let (mut record, mut watched) = (two_disks(), Watched::new(2));
        let (state, news) = step(
            &mut watched,
            &mut record,
            &[(name, present(name))],
            listed(&[]),
        );
        assert_eq!(state, TaskState::Waiting, "asked: `{name}` alone");
        assert_eq!(news, [News::FileComplete(position)], "asked: `{name}`");
        let found = record.files[position].object.as_ref().expect("an object");
        assert_eq!(found.key, key(name), "asked: `{name}`");
        assert_eq!(found.crc64.as_deref(), Some("42"), "asked: `{name}`");
        assert!(
            record.files[1 - position].object.is_none(),
            "asked: `{name}`; the other disk is still to come"
        );
    }
}

#[test]
fn an_export_is_complete_when_every_disk_is_by_whatever_mix_of_names() {
    let (mut record, mut watched) = (two_disks(), Watched::new(2));
    let (state, _) = step(
        &mut watched,
        &mut record,
        &[(API_1, present(API_1))],
        listed(&[]),
    );
    assert_eq!(state, TaskState::Waiting);
    let heads = [(CONSOLE_0, present(CONSOLE_0))];
    let (state, news) = step(&mut watched, &mut record, &heads, listed(&[]));
    assert_eq!(
        (state, news),
        (TaskState::Complete, vec![News::FileComplete(0)])
    );
    // A look after the end says nothing new.
    let (state, news) = step(&mut watched, &mut record, &[], listed(&[]));
    assert_eq!((state, news), (TaskState::Complete, vec![]));
}

#[test]
fn the_more_trusted_name_wins_when_both_are_there() {
    let (mut record, mut watched) = (one_disk(), Watched::new(1));
    let heads = [(CONSOLE_0, present(CONSOLE_0)), (API_0, present(API_0))];
    step(&mut watched, &mut record, &heads, listed(&[]));
    assert_eq!(
        record.files[0].object.as_ref().expect("an object").key,
        key(API_0)
    );
}

#[test]
fn only_what_changed_since_the_baseline_is_this_exports() {
    let (old, version) = (object(API_0), Some("v-1".to_owned()));
    let stood = Baseline::of(Some(&old));
    let versioned = ObjectMeta {
        version_id: version,
        ..old.clone()
    };
    let undated = ObjectMeta {
        last_modified: None,
        ..old.clone()
    };
    let written = |seconds| ObjectMeta {
        last_modified: Some(at(seconds)),
        ..object(API_0)
    };
    // The submit is at second 2000.
    let cases = [
        ("nothing stood there", Baseline::Absent, old.clone(), true),
        (
            "nothing stood there, and what does has no date",
            Baseline::Absent,
            undated.clone(),
            true,
        ),
        ("the same", stood.clone(), old.clone(), false),
        (
            "another ETag",
            stood.clone(),
            ObjectMeta {
                etag: "e-2".to_owned(),
                ..old.clone()
            },
            true,
        ),
        ("written later", stood.clone(), written(1001), true),
        (
            "no date any more, which is no difference",
            stood,
            undated.clone(),
            false,
        ),
        (
            "the same version",
            Baseline::of(Some(&versioned)),
            versioned.clone(),
            false,
        ),
        (
            "a version where none was told before, which is no difference",
            Baseline::of(Some(&old)),
            versioned.clone(),
            false,
        ),
        (
            "a new version",
            Baseline::of(Some(&versioned)),
            ObjectMeta {
                version_id: Some("v-2".to_owned()),
                ..old
            },
            true,
        ),
        (
            "unseen, written long before the submit",
            Baseline::Unseen,
            written(1000),
            false,
        ),
        (
            "unseen, written three seconds before",
            Baseline::Unseen,
            written(1997),
            false,
        ),
        (
            "unseen, within what clocks differ by",
            Baseline::Unseen,
            written(1998),
            true,
        ),
        (
            "unseen, written after the submit",
            Baseline::Unseen,
            written(2001),
            true,
        ),
        ("unseen, without a date", Baseline::Unseen, undated, false),
    ];
    for (asked, baseline, seen, is_new) in cases {
        let (mut record, mut watched) = (one_disk(), Watched::new(1));
        record.files[0].names[0].baseline = baseline;
        let head = Head::Present(Box::new(seen.clone()));
        let (state, _) = step(&mut watched, &mut record, &[(API_0, head)], listed(&[]));
        let expected = if is_new {
            TaskState::Complete
        } else {
            TaskState::Waiting
        };
        assert_eq!(state, expected, "asked: {asked}; seen: {seen:?}");
    }
}

#[test]
fn without_a_submit_time_the_records_own_time_counts() {
    // The object was written at second 1000.
    for (begun, expected) in [(1001, TaskState::Complete), (5000, TaskState::Waiting)] {
        let (mut record, mut watched) = (one_disk(), Watched::new(1));
        record.submitted_at = None;
        record.created_at = at(begun);
        record.files[0].names[0].baseline = Baseline::Unseen;
        let (state, _) = step(
            &mut watched,
            &mut record,
            &[(API_0, present(API_0))],
            listed(&[]),
        );
        assert_eq!(state, expected, "asked: a record of second {begun}");
    }
}

#[test]
fn last_weeks_file_under_one_name_does_not_hide_todays_under_the_other() {
    let (mut record, mut watched) = (one_disk(), Watched::new(1));
    record.files[0].names[0].baseline = Baseline::of(Some(&object(API_0)));
    let heads = [(API_0, present(API_0)), (CONSOLE_0, present(CONSOLE_0))];
    let (state, _) = step(&mut watched, &mut record, &heads, listed(&[]));
    assert_eq!(state, TaskState::Complete);
    assert_eq!(
        record.files[0].object.as_ref().expect("an object").key,
        key(CONSOLE_0)
    );
}

/// Plays looks, a letter each, at an export of one disk.
fn play(looks: &str) -> TaskState {
    let (mut record, mut watched) = (one_disk(), Watched::new(1));
    record.earlier_uploads = vec!["u-old".to_owned()];
    record.files[0].names[0].baseline = Baseline::of(Some(&object(API_0)));
    let mut state = TaskState::Waiting;
    let ours = || listed(&[(CONSOLE_0, "u-1", None)]);
    let cut = || UploadsSeen::Listed {
        unfinished: Vec::new(),
        is_truncated: true,
    };
    let failed = || Head::Failed("reset".to_owned());
    for letter in looks.chars() {
        (state, _) = match letter {
            // The upload grows; it is gone; last week's upload is there; another key's is.
            'U' => step(&mut watched, &mut record, &[], ours()),
            'G' => step(&mut watched, &mut record, &[], listed(&[])),
            'E' => step(
                &mut watched,
                &mut record,
                &[],
                listed(&[(API_0, "u-old", None)]),
            ),
            'K' => step(
                &mut watched,
                &mut record,
                &[],
                listed(&[("p_xvdb.raw", "u-2", None)]),
            ),
            // Gone, beside last week's object.
            'P' => step(
                &mut watched,
                &mut record,
                &[(API_0, present(API_0))],
                listed(&[]),
            ),
            // Gone by a listing that was cut, and by none at all.
            'T' => step(&mut watched, &mut record, &[], cut()),
            'N' => step(&mut watched, &mut record, &[], UploadsSeen::NotSeen),
            // Gone, while HEAD of one name or of both tells nothing.
            'f' => step(
                &mut watched,
                &mut record,
                &[(CONSOLE_0, failed())],
                listed(&[]),
            ),
            'F' => step(
                &mut watched,
                &mut record,
                &[(CONSOLE_0, failed()), (API_0, failed())],
                listed(&[]),
            ),
            'D' => step(
                &mut watched,
                &mut record,
                &[(API_0, Head::Forbidden)],
                listed(&[]),
            ),
            // The object is there.
            'O' => step(
                &mut watched,
                &mut record,
                &[(CONSOLE_0, present(CONSOLE_0))],
                listed(&[]),
            ),
            other => panic!("there is no look `{other}`"),
        };
    }
    state
}

#[test]
fn an_upload_that_is_surely_gone_for_five_looks_is_a_failure_and_nothing_less_is() {
    let gone = TaskState::Failed(
        "the upload of the system disk (xvda) is gone from the bucket and left no object"
            .to_owned(),
    );
    let cases = [
        ("UGGGG", TaskState::Waiting),
        ("UGGGGG", gone.clone()),
        ("UPPPPP", gone.clone()),
        ("UEEEEE", gone.clone()),
        ("UKKKKK", gone.clone()),
        ("GGGGGGGGG", TaskState::Waiting),
        ("EEEGGGGGG", TaskState::Waiting),
        ("KGGGGGG", TaskState::Waiting),
        ("UTTTTTTTT", TaskState::Waiting),
        ("UNNNNNNNN", TaskState::Waiting),
        ("UffffffffF", TaskState::Waiting),
        ("UFFFFFFFF", TaskState::Waiting),
        ("UDDDDDDDD", TaskState::Waiting),
        ("UGGGGUGGGG", TaskState::Waiting),
        ("UGGGGUGGGGG", gone.clone()),
        // Looks that tell nothing are passed over.
        ("UGGTNFDfGG", TaskState::Waiting),
        ("UGGTNFDfGGG", gone),
        ("UGGGGO", TaskState::Complete),
        ("UO", TaskState::Complete),
        ("O", TaskState::Complete),
    ];
    for (looks, expected) in cases {
        assert_eq!(play(looks), expected, "asked: {looks}");
    }
}

#[test]
fn one_vanished_disk_fails_the_export_though_the_other_grows_or_is_done() {
    let (mut record, mut watched) = (two_disks(), Watched::new(2));
    let both = [(API_0, "u-0", None), (API_1, "u-1", None)];
    step(&mut watched, &mut record, &[], listed(&both));
    let heads = [(API_0, present(API_0))];
    for number in 1..=4 {
        let (state, _) = step(&mut watched, &mut record, &heads, listed(&[]));
        assert_eq!(
            state,
            TaskState::Waiting,
            "look {number} without the upload"
        );
    }
    let (state, _) = step(&mut watched, &mut record, &heads, listed(&[]));
    let TaskState::Failed(reason) = state else {
        panic!("expected a failure, seen {state:?}")
    };
    assert!(reason.contains("data disk (xvdb)"), "{reason}");
    assert!(
        record.files[0].object.is_some(),
        "what is there is still noted"
    );
}

/// Plays looks of which each says by `heads` what HEAD said; returns the warnings of each.
fn refusals(looks: &[&[(&str, Head)]]) -> Vec<Vec<String>> {
    let (mut record, mut watched) = (two_disks(), Watched::new(2));
    let said = looks.iter().map(|heads| {
        let (state, news) = step(&mut watched, &mut record, heads, UploadsSeen::NotSeen);
        assert_eq!(
            state,
            TaskState::Waiting,
            "a missing right never ends the watch"
        );
        warnings(&news).into_iter().map(str::to_owned).collect()
    });
    said.collect()
}

#[test]
fn a_missing_right_is_said_once_at_the_third_look() {
    let all = [
        (API_0, Head::Forbidden),
        (CONSOLE_0, Head::Forbidden),
        (API_1, Head::Forbidden),
        (CONSOLE_1, Head::Forbidden),
    ];
    let one = [(CONSOLE_0, Head::Forbidden)];
    for (heads, words, not) in [
        (&all[..], "every file", "p_xvda"),
        (&one[..], "`p_xvda.raw`", "every file"),
    ] {
        let said = refusals(&[heads; 12]);
        let counts: Vec<usize> = said.iter().map(Vec::len).collect();
        assert_eq!(
            counts,
            [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "asked: {words}; seen: {said:?}"
        );
        let text = &said[2][0];
        assert!(
            text.contains(words) && text.contains("name/cos:HeadObject") && !text.contains(not),
            "{text}"
        );
    }
}

#[test]
fn refusals_count_in_a_row_and_looks_that_tell_nothing_do_not_count() {
    let (forbidden, missing) = ([(API_1, Head::Forbidden)], [(API_1, Head::Missing)]);
    let stood = [
        (API_1, Head::Forbidden),
        (API_0, Head::Failed("reset".to_owned())),
    ];
    let failed = [(API_1, Head::Failed("reset".to_owned()))];
    let count = |looks: &[&[(&str, Head)]]| refusals(looks).iter().map(Vec::len).sum::<usize>();
    assert_eq!(
        count(&[&forbidden, &forbidden, &missing, &forbidden, &forbidden]),
        0,
        "a better look between"
    );
    assert_eq!(
        count(&[&forbidden, &failed, &forbidden]),
        0,
        "two refusals and no answer"
    );
    assert_eq!(
        count(&[&forbidden, &failed, &stood, &forbidden]),
        1,
        "three refusals and no answer"
    );
    assert_eq!(count(&[&failed[..]; 10]), 0, "no refusal at all");
    // Two looks at one key and two at another are not three at one.
    let other = [(API_0, Head::Forbidden)];
    assert_eq!(
        count(&[&forbidden, &forbidden, &other, &other]),
        0,
        "two keys in turn"
    );
}

#[test]
fn a_raw_file_of_another_size_than_its_disk_is_warned_of_and_complete() {
    let disk = DISK_GIB << 30;
    let cases = [
        (ImageFormat::Raw, Some(DISK_GIB), disk, false),
        (ImageFormat::Raw, Some(DISK_GIB), disk - 1, true),
        (ImageFormat::Raw, Some(DISK_GIB), disk + 1, true),
        (ImageFormat::Raw, Some(DISK_GIB), 0, true),
        (ImageFormat::Raw, None, 7, false),
        (ImageFormat::Raw, Some(u64::MAX), 7, false),
        (ImageFormat::Qcow2, Some(DISK_GIB), 7, false),
        (ImageFormat::Vhd, Some(DISK_GIB), 7, false),
        (ImageFormat::Vmdk, Some(DISK_GIB), 7, false),
    ];
    for (format, size_gib, size_bytes, is_surprise) in cases {
        let (mut record, mut watched) = (one_disk(), Watched::new(1));
        record.format = format;
        record.files[0].size_gib = size_gib;
        let head = Head::Present(Box::new(ObjectMeta {
            size_bytes,
            ..object(API_0)
        }));
        let (state, news) = step(&mut watched, &mut record, &[(API_0, head)], listed(&[]));
        assert_eq!(
            state,
            TaskState::Complete,
            "asked: {format} of {size_bytes} bytes"
        );
        let expected = format!("`{API_0}` has {size_bytes} bytes, its disk {disk}");
        let expected: Vec<&str> = if is_surprise {
            vec![&expected]
        } else {
            Vec::new()
        };
        assert_eq!(
            warnings(&news),
            expected,
            "asked: {format} of {size_bytes} bytes, disk {size_gib:?}"
        );
        assert_eq!(
            news[0],
            News::FileComplete(0),
            "the file comes before what is odd about it"
        );
    }
}

#[test]
fn an_upload_or_a_finished_file_is_a_sign_of_the_export_and_an_earlier_upload_is_none() {
    type Signs<'a> = (&'a str, &'a [(&'a str, Head)], UploadsSeen, bool);
    let done = [(CONSOLE_0, present(CONSOLE_0))];
    let cases: [Signs<'_>; 6] = [
        ("nothing", &[], listed(&[]), false),
        ("no listing", &[], UploadsSeen::NotSeen, false),
        ("our upload", &[], listed(&[(API_0, "u-1", None)]), true),
        (
            "an earlier upload",
            &[],
            listed(&[(API_0, "u-old", None)]),
            false,
        ),
        (
            "another key's upload",
            &[],
            listed(&[("p_xvdb.raw", "u-1", None)]),
            false,
        ),
        ("an object", &done, UploadsSeen::NotSeen, true),
    ];
    for (asked, heads, uploads, expected) in cases {
        let (mut record, mut watched) = (one_disk(), Watched::new(1));
        record.earlier_uploads = vec!["u-old".to_owned()];
        step(&mut watched, &mut record, heads, uploads);
        assert_eq!(watched.has_evidence(&record), expected, "asked: {asked}");
    }
}

#[test]
fn bytes_are_counted_from_uploads_and_finished_files_and_never_from_an_earlier_upload() {
    let (mut record, mut watched) = (two_disks(), Watched::new(2));
    record.earlier_uploads = vec!["u-old".to_owned()];
    type Step<'a> = (&'a str, &'a [(&'a str, Head)], UploadsSeen, Option<u64>);
    let steps: [Step<'_>; 7] = [
        ("nothing", &[], listed(&[]), None),
        (
            "an earlier upload",
            &[],
            listed(&[(API_0, "u-old", Some(999))]),
            None,
        ),
        (
            "an upload without a size",
            &[],
            listed(&[(API_0, "u-0", None)]),
            None,
        ),
        ("a size", &[], listed(&[(API_0, "u-0", Some(10))]), Some(10)),
        (
            "the size is not seen now",
            &[],
            listed(&[(API_0, "u-0", None)]),
            Some(10),
        ),
        (
            "two uploads",
            &[],
            listed(&[(API_0, "u-0", Some(20)), (CONSOLE_1, "u-1", Some(3))]),
            Some(23),
        ),
        (
            "one is finished",
            &[(API_0, present(API_0))],
            listed(&[(CONSOLE_1, "u-1", Some(4))]),
            Some((DISK_GIB << 30) + 4),
        ),
    ];
    for (asked, heads, uploads, expected) in steps {
        step(&mut watched, &mut record, heads, uploads);
        assert_eq!(watched.bytes_done(&record), expected, "asked: {asked}");
    }
}
