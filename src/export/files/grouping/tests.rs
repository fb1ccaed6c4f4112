//! Which object is whose, case by case.

use super::super::draft::{Comparison, is_of_future, merge};
use super::super::entries::Shared;
use super::super::etag::Etag;
use super::*;
use crate::export::record::{Baseline, FinishedObject, Record, RecordFile};
use crate::export::samples::{at, disks, image, key, request};
use crate::model::ObjectKey;

/// When the export of [`record`] was submitted.
const SUBMITTED: i64 = 1_000_000;
const SYSTEM: &str = "p_img-1_system_snap-0.raw";
const CONSOLE: &str = "p_xvda.raw";
const DAY: i64 = 86_400;
const DISK_BYTES: u64 = 50 << 30;

/// A record of one disk, submitted, with nothing under its names before.
fn record(state: RecordState) -> Record {
    let files = request().predict_files(&disks(&[50])).expect("names");
    let files = files
        .iter()
        .map(|file| RecordFile::expect(file, |_| Baseline::Absent));
    let mut record = Record::begin(&request(), files.collect(), at(SUBMITTED));
    record = record.in_state(state);
    record.submitted_at = Some(at(SUBMITTED));
    record
}

fn complete(name: &str, etag: &str, written: i64) -> Record {
    let mut record = record(RecordState::Complete);
    record.files[0].object = Some(FinishedObject {
        key: key(name),
        size_bytes: DISK_BYTES,
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
        key: key(name),
        size_bytes: DISK_BYTES,
        etag: Etag::from(etag),
        last_modified: Some(at(written)),
        storage_class: "STANDARD".into(),
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

/// What a bucket and a journal hold.
struct World {
    entries: Vec<Entry>,
    records: Vec<Record>,
    unreadable: Vec<(ObjectKey, Option<Prefix>, ImageId)>,
    uploads: Vec<Upload>,
    images: Vec<Image>,
    now: DateTime<Utc>,
}

fn gathered(records: Vec<Record>, entries: Vec<Entry>) -> World {
    World {
        entries,
        records,
        unreadable: Vec::new(),
        uploads: Vec::new(),
        images: Vec::new(),
        now: at(SUBMITTED + 2 * 3600),
    }
}

fn exports(world: &World) -> Vec<ListedExport> {
    let request = request();
    let entries = Entries::new(world.entries.clone());
    let uploads = &world.uploads;
    let mut comparison = Comparison::new(&entries, uploads, &request.bucket, &request.region);
    let records = world.records.iter().cloned();
    let mut drafts = records
        .map(|record| comparison.draft(record, None, &mut Shared::default()))
        .collect();
    merge(&mut drafts);
    let mut unreadable = Unreadable::default();
    for (key, prefix, image_id) in world.unreadable.iter().cloned() {
        unreadable.insert(key, prefix, image_id);
    }
    super::exports(Gathered {
        bucket: &request.bucket,
        region: &request.region,
        entries,
        running: &Running::of(&drafts, world.now),
        drafts,
        unreadable: &unreadable,
        uploads,
        images: &Images::new(world.images.clone()),
        now: world.now,
    })
}

/// State, proof of the first file, and whether something is in the way, for each export.
fn shown(gathered: &World) -> Vec<(ListedState, Option<Proof>, bool)> {
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
fn the_same_bytes_of_another_time_or_size_are_another_object() {
    let of = |written: i64, completed: i64, size_bytes: u64| {
        let mut record = complete(CONSOLE, "e1", SUBMITTED + 60);
        record.completed_at = Some(at(completed));
        let mut entry = entry(CONSOLE, "e1", written);
        entry.size_bytes = size_bytes;
        exports(&gathered(vec![record], vec![entry])).remove(0)
    };
    let end = SUBMITTED + 60;
    for written in [SUBMITTED - 900, SUBMITTED, end, end + 3600] {
        let export = of(written, end, DISK_BYTES);
        assert_eq!(export.files[0].proof, Proof::Record, "{written}");
    }
    for (written, size_bytes) in [
        (SUBMITTED - 901, DISK_BYTES),
        (end + 3601, DISK_BYTES),
        (end, DISK_BYTES - 1),
    ] {
        let export = of(written, end, size_bytes);
        assert_eq!(export.files[0].proof, Proof::None, "{written}");
    }
    // A record that claims another end does not make its files younger or older.
    for completed in [SUBMITTED - 400 * DAY, SUBMITTED + 400 * DAY] {
        let export = of(end, completed, DISK_BYTES);
        assert_eq!(export.exported_at, Some(at(end)), "{completed}");
    }
}

#[test]
fn what_nobody_has_seen_complete_has_the_size_of_its_disk() {
    let megabyte = 1 << 20;
    for (format, size_bytes, expected) in [
        (ImageFormat::Raw, DISK_BYTES, Proof::Record),
        (ImageFormat::Raw, DISK_BYTES + 1, Proof::None),
        (ImageFormat::Raw, 44, Proof::None),
        (ImageFormat::Qcow2, 44, Proof::Record),
        (ImageFormat::Qcow2, 0, Proof::None),
        (
            ImageFormat::Qcow2,
            DISK_BYTES + DISK_BYTES / 32 + 4 * megabyte,
            Proof::Record,
        ),
        (
            ImageFormat::Qcow2,
            DISK_BYTES + DISK_BYTES / 32 + 4 * megabyte + 1,
            Proof::None,
        ),
    ] {
        for name in ["p_xvda", "p_img-1_system_snap-0"] {
            let name = format!("{name}.{}", format.extension());
            let mut record = record(RecordState::Submitted);
            record.format = format;
            record.files[0].names[0].key = key(&name);
            let mut entry = entry(&name, "e1", SUBMITTED + 60);
            entry.size_bytes = size_bytes;
            let mut gathered = gathered(vec![record], vec![entry]);
            gathered.images = vec![image(&[50])];
            gathered.now = at(SUBMITTED + 400 * DAY);
            let mut files = exports(&gathered).into_iter().flat_map(|it| it.files);
            let file = files.next().expect("a file");
            assert_eq!(file.proof, expected, "{name} of {size_bytes} bytes");
            assert_eq!(file.doubt.is_some(), expected == Proof::None);
        }
    }
}

#[test]
fn without_a_record_all_disks_of_the_image_make_an_export() {
    let of = |sizes: &[(&str, u64)]| {
        let entries = sizes.iter().map(|(disk, size_bytes)| {
            let name = format!("p_img-1_{disk}.raw");
            let mut entry = entry(&name, "e1", SUBMITTED);
            entry.size_bytes = *size_bytes;
            entry
        });
        let mut gathered = gathered(Vec::new(), entries.collect());
        gathered.images = vec![image(&[50, 50])];
        exports(&gathered).remove(0).state
    };
    let (system, data) = ("system_snap-0", "data_snap-1");
    assert_eq!(
        of(&[(system, DISK_BYTES), (data, DISK_BYTES)]),
        ListedState::Complete
    );
    assert_eq!(of(&[(system, DISK_BYTES)]), ListedState::Partial);
    assert_eq!(of(&[(data, DISK_BYTES)]), ListedState::Partial);
    assert_eq!(of(&[(system, DISK_BYTES), (data, 0)]), ListedState::Partial);
}

#[test]
fn what_is_hidden_or_known_to_be_deleted_is_not_whole() {
    let base = || {
        let record = complete(SYSTEM, "e1", SUBMITTED + 60);
        gathered(vec![record], vec![entry(SYSTEM, "e1", SUBMITTED + 60)])
    };
    assert_eq!(exports(&base())[0].state, ListedState::Complete);
    let mut hidden = base();
    hidden.entries[0].is_latest = false;
    let mut removed = base();
    removed.records[0].removed_at = Some(at(SUBMITTED + 3600));
    for gathered in [hidden, removed] {
        let export = exports(&gathered).remove(0);
        assert_eq!(export.state, ListedState::Gone);
        assert_eq!(export.files[0].proof, Proof::Record);
    }
}

#[test]
fn times_that_have_not_come_are_told() {
    let now = at(SUBMITTED);
    assert!(!is_of_future(&record(RecordState::Submitted), now));
    for (created, submitted, expected) in [
        (0, 899, false),
        (0, 901, true),
        (901, 0, true),
        (-DAY, -DAY, false),
    ] {
        let mut record = record(RecordState::Submitted);
        record.created_at = at(SUBMITTED + created);
        record.submitted_at = Some(at(SUBMITTED + submitted));
        assert_eq!(
            is_of_future(&record, now),
            expected,
            "{created} {submitted}"
        );
    }
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
    let is_blocked = |gathered: &World| exports(gathered)[0].blocked.is_some();
    assert!(!is_blocked(&base()));
    for (name, expected) in [
        (SYSTEM, true),
        (CONSOLE, false),
        ("p_xvdb.raw", false),
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
    gathered.records.push(rival);
    assert!(is_blocked(&gathered));
    let mut gathered = base();
    let (prefix, image_id) = (request().prefix, request().image_id);
    let record = key("p_img-1.cvm-export.json");
    gathered.unreadable.push((record, prefix, image_id));
    assert!(is_blocked(&gathered));
}
