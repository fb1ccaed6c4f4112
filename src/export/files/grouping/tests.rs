//! Which object is whose, case by case.

use super::*;
use crate::export::record::{Baseline, FinishedObject};
use crate::export::samples::{at, disks, image, key, request};

/// When the export of [`record`] was submitted.
const SUBMITTED: i64 = 1_000_000;
const SYSTEM: &str = "p_img-1_system_snap-0.raw";
const CONSOLE: &str = "p_xvda.raw";
const DAY: i64 = 86_400;

/// A record of one disk, submitted, with nothing under its names before.
fn record(state: RecordState) -> Record {
    let files = request().predict_files(&disks(&[50])).expect("names");
    let files = files
        .iter()
        .map(|file| RecordFile::expect(file, |_| Baseline::Absent));
    let mut record = Record::begin(&request(), files.collect(), at(SUBMITTED));
    record.state = state;
    record.submitted_at = Some(at(SUBMITTED));
    record
}

fn complete(name: &str, etag: &str, written: i64) -> Record {
    let mut record = record(RecordState::Complete);
    record.files[0].object = Some(FinishedObject {
        key: key(name),
        size_bytes: 1,
        etag: etag.to_owned(),
        crc64: None,
        storage_class: "STANDARD".to_owned(),
        last_modified: Some(at(written)),
        version_id: None,
        sha256: None,
    });
    record
}

fn entry(name: &str, etag: &str, written: i64) -> Entry {
    Entry {
        object: ObjectEntry {
            key: key(name),
            size_bytes: 1,
            etag: etag.to_owned(),
            last_modified: Some(at(written)),
            storage_class: "STANDARD".into(),
        },
        name: Name::of(&key(name)),
        version_id: None,
        is_latest: true,
    }
}

fn upload(name: &str) -> Upload {
    Upload {
        key: key(name),
        upload_id: "u".to_owned(),
        initiated: None,
        storage_class: "STANDARD".into(),
    }
}

fn gathered(records: Vec<Record>, entries: Vec<Entry>) -> Gathered {
    let known = records.into_iter().map(|record| Known {
        record,
        stored: Vec::new(),
    });
    Gathered {
        bucket: request().bucket,
        region: request().region,
        entries,
        markers: Vec::new(),
        records: known.collect(),
        unreadable: Vec::new(),
        uploads: Vec::new(),
        images: Vec::new(),
        now: at(SUBMITTED + 2 * 3600),
    }
}

/// State, proof of the first file, and whether something is in the way, for each export.
fn shown(gathered: &Gathered) -> Vec<(ListedState, Option<Proof>, bool)> {
    exports(gathered)
        .iter()
        .map(|export| {
            let proof = export.files.first().map(|file| file.proof);
            (export.state, proof, export.blocked.is_some())
        })
        .collect()
}

#[test]
fn a_record_proves_by_key_and_etag_and_disproves_what_came_later() {
    use ListedState::{Complete, Unknown};
    let of = |etag: &str, written| {
        let record = complete(CONSOLE, "e1", SUBMITTED + 60);
        shown(&gathered(vec![record], vec![entry(CONSOLE, etag, written)]))
    };
    assert_eq!(
        of("e1", SUBMITTED + 60),
        [(Complete, Some(Proof::Record), false)]
    );
    assert_eq!(
        of("e2", SUBMITTED + 61),
        [(Unknown, Some(Proof::None), false)]
    );

    // With the image known, the name proves an older version, and never a later object.
    let of = |written| {
        let record = complete(SYSTEM, "e1", SUBMITTED + 60);
        let mut gathered = gathered(vec![record], vec![entry(SYSTEM, "e2", written)]);
        gathered.images = vec![image(&[50])];
        shown(&gathered)
    };
    assert_eq!(of(SUBMITTED - DAY), [(Complete, Some(Proof::Image), false)]);
    assert_eq!(of(SUBMITTED + 61), [(Unknown, Some(Proof::None), false)]);
}

#[test]
fn without_an_end_an_object_counts_that_came_while_the_export_can_have_run() {
    let of = |written| {
        let record = record(RecordState::Submitted);
        let mut gathered = gathered(vec![record], vec![entry(CONSOLE, "e1", written)]);
        gathered.now = at(SUBMITTED + 400 * DAY);
        shown(&gathered)
    };
    let proven = [(ListedState::Complete, Some(Proof::Record), false)];
    assert_eq!(of(SUBMITTED + 60), proven);
    for written in [SUBMITTED - 60, SUBMITTED + 30 * DAY] {
        assert_ne!(of(written), proven, "{written}");
    }
}

#[test]
fn an_export_runs_until_its_end_is_seen_or_its_time_is_long_over() {
    for state in [RecordState::Intended, RecordState::Submitted] {
        let mut gathered = gathered(vec![record(state)], Vec::new());
        assert_eq!(shown(&gathered), [(ListedState::Running, None, true)]);
        gathered.now = at(SUBMITTED + 2 * DAY);
        assert!(
            shown(&gathered).is_empty(),
            "nothing of it is in the bucket"
        );
    }
    for state in [
        RecordState::Queued,
        RecordState::Refused,
        RecordState::Abandoned,
    ] {
        let entries = vec![entry(CONSOLE, "e1", SUBMITTED + 60)];
        let gathered = gathered(vec![record(state)], entries);
        let expected = [(ListedState::Unknown, Some(Proof::None), false)];
        assert_eq!(shown(&gathered), expected, "{state:?} proves nothing");
    }
}

#[test]
fn uploads_and_exports_of_the_same_names_are_in_the_way() {
    let base = || {
        let record = complete(SYSTEM, "e1", SUBMITTED + 60);
        gathered(vec![record], vec![entry(SYSTEM, "e1", SUBMITTED + 60)])
    };
    let is_blocked = |gathered: &Gathered| exports(gathered)[0].blocked.is_some();
    assert!(!is_blocked(&base()));
    for (name, expected) in [
        (SYSTEM, true),
        (CONSOLE, true),
        ("p_img-1_data_snap-9.raw", true),
        ("p_img-1_system_snap-0.qcow2", false),
        ("q_img-1_system_snap-0.raw", false),
        ("p_img-2_system_snap-0.raw", false),
        ("p_img-1_system_snap-0.raw.bak", false),
    ] {
        let mut gathered = base();
        gathered.uploads.push(upload(name));
        assert_eq!(is_blocked(&gathered), expected, "{name}");
    }
    let mut rival = record(RecordState::Submitted);
    rival.submitted_at = Some(at(SUBMITTED + 3600));
    let mut gathered = base();
    gathered.records.push(Known {
        record: rival,
        stored: Vec::new(),
    });
    assert!(is_blocked(&gathered));
    let mut gathered = base();
    let (prefix, image_id) = (request().prefix, request().image_id);
    let record = key("p_img-1.cvm-export.json");
    gathered.unreadable.push((record, prefix, image_id));
    assert!(is_blocked(&gathered));
}
