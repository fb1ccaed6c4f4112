//! The journal on a real disk: what is kept, found, refused and locked.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;

use super::*;
use crate::cloud::cos::ObjectMeta;
use crate::export::progress::{Accepted, Observed, Sums};
use crate::export::record::{FinishedObject, RecordState};
use crate::export::request::ExportRequest;
use crate::export::samples::{self, DISK_GIB, at};

fn journal() -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(&folder.path().join("new/state")).expect("a journal");
    (folder, journal)
}

fn other_request() -> ExportRequest {
    ExportRequest {
        image_id: "img-2".parse().expect("image id"),
        ..samples::request()
    }
}

/// A record of `request` in `state`, begun at second `begun`.
fn record(request: &ExportRequest, state: RecordState, begun: i64) -> Record {
    let mut record = samples::record(request, &[DISK_GIB]);
    record = record.in_state(state);
    record.created_at = at(begun);
    record
}

fn saved(journal: &Journal, state: RecordState, begun: i64) -> Record {
    let record = record(&samples::request(), state, begun);
    journal.save(&record).expect("saved");
    record
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[test]
fn what_is_saved_is_loaded_and_a_later_state_takes_its_place() {
    let (_folder, journal) = journal();
    let mut record = saved(&journal, RecordState::Queued, 5);
    record = record.in_state(RecordState::Submitted);
    record.warnings.push("映".to_owned());
    journal.save(&record).expect("saved again");
    let loaded = journal
        .load(&record.export_id)
        .expect("readable")
        .expect("there");
    assert_eq!(loaded.to_json(), record.to_json());
    // No temporary file is left behind.
    assert_eq!(
        names(&journal.records),
        [format!("{}.json", record.export_id)]
    );
}

#[test]
fn a_record_that_was_never_saved_is_none() {
    let (_folder, journal) = journal();
    let unsaved = record(&samples::request(), RecordState::Queued, 5);
    assert!(
        journal
            .load(&unsaved.export_id)
            .expect("readable")
            .is_none()
    );
    assert!(
        journal
            .find(&unsaved.identity())
            .expect("readable")
            .is_none()
    );
    let (records, unreadable) = journal.all().expect("readable");
    assert!(
        records.is_empty() && unreadable.is_empty(),
        "seen: {records:?}, {unreadable:?}"
    );
}

#[test]
fn the_newest_live_record_of_an_export_is_found_else_the_newest() {
    use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};
    let cases: [(&[RecordState], usize); 9] = [
        (&[Complete], 0),
        (&[Complete, Failed], 1),
        (&[Submitted, Complete], 0),
        (&[Intended, Complete, Refused], 0),
        (&[Submitted, Intended, Abandoned], 1),
        (&[Intended, Submitted, Queued], 1),
        (&[Abandoned, Refused, Queued], 2),
        (&[Complete, Submitted], 1),
        (&[Failed, Complete, Abandoned], 2),
    ];
    for (states, expected) in cases {
        let (_folder, journal) = journal();
        let begun = states.iter().zip(0..);
        let records: Vec<Record> = begun
            .map(|(state, begun)| saved(&journal, *state, begun))
            .collect();
        journal
            .save(&record(&other_request(), Submitted, 99))
            .expect("saved");
        let found = journal
            .find(&samples::request().identity())
            .expect("readable")
            .expect("there");
        assert_eq!(
            found.export_id,
            records[expected].export_id,
            "asked: {states:?}; seen: {:?}",
            found.state()
        );
    }
}

#[test]
fn another_identity_is_not_found_even_under_the_same_eight_digits() {
    let (_folder, journal) = journal();
    let mut stranger = record(&other_request(), RecordState::Submitted, 5);
    stranger.export_id = record(&samples::request(), RecordState::Queued, 0).export_id;
    journal.save(&stranger).expect("saved");
    assert!(
        journal
            .find(&samples::request().identity())
            .expect("readable")
            .is_none()
    );
}

#[test]
fn a_damaged_record_of_the_same_export_is_an_error_and_of_another_is_none() {
    let damages: [&[u8]; 4] = [
        b"",
        b"{\"schema\":\"cvm-export.rec",
        b"\xff\xfe",
        b"{\"schema\":\"cvm-export.record.v2\"}",
    ];
    for damage in damages {
        let (_folder, journal) = journal();
        let healthy = saved(&journal, RecordState::Submitted, 5);
        let damaged = record(&samples::request(), RecordState::Submitted, 6);
        let path = journal.path_of(&damaged.export_id);
        std::fs::write(&path, damage).expect("written");

        let same = journal.find(&samples::request().identity());
        assert!(
            matches!(&same, Err(JournalError::Damaged { path: named, .. }) if *named == path),
            "seen: {same:?}"
        );
        assert!(journal.load(&damaged.export_id).is_err());
        let other = journal.find(&other_request().identity());
        assert!(
            matches!(other, Ok(None)),
            "asked: another export; seen: {other:?}"
        );

        let (records, unreadable) = journal.all().expect("listed");
        let ids: Vec<&ExportId> = records.iter().map(|record| &record.export_id).collect();
        assert_eq!(ids, [&healthy.export_id], "the healthy one is still listed");
        assert_eq!(unreadable.len(), 1, "seen: {unreadable:?}");
        assert!(
            unreadable[0].contains(damaged.export_id.as_str()),
            "seen: {unreadable:?}"
        );
        assert!(
            !unreadable[0].ends_with(": "),
            "the reason is said: {unreadable:?}"
        );
    }
}

#[test]
fn a_damaged_journal_ends_the_run_before_anything_is_submitted() {
    let (_folder, journal) = journal();
    let damaged = saved(&journal, RecordState::Submitted, 5);
    std::fs::write(journal.path_of(&damaged.export_id), "{").expect("written");
    let error = Error::from(journal.find(&damaged.identity()).expect_err("damaged"));
    assert_eq!(error.kind(), ErrorKind::LocalDisk);
    assert!(
        error.to_string().contains("nothing was submitted"),
        "{error}"
    );
    assert!(
        error
            .causes()
            .join(" ")
            .contains(damaged.export_id.as_str()),
        "{:?}",
        error.causes()
    );
}

#[test]
fn all_records_come_the_oldest_first_and_other_files_are_passed_over() {
    let (_folder, journal) = journal();
    let begun = [30, 10, 20];
    let records = begun.map(|begun| saved(&journal, RecordState::Complete, begun));
    for name in [
        "notes.txt",
        "exp-1.json.tmp",
        ".tmpAbC",
        "exp-UPPER.json",
        "other.json",
    ] {
        std::fs::write(journal.records.join(name), "x").expect("written");
    }
    let (seen, unreadable) = journal.all().expect("listed");
    let ids: Vec<&ExportId> = seen.iter().map(|record| &record.export_id).collect();
    assert_eq!(
        ids,
        [
            &records[1].export_id,
            &records[2].export_id,
            &records[0].export_id
        ]
    );
    assert_eq!(unreadable, Vec::<String>::new());
}

#[test]
fn records_that_are_not_over_are_counted_and_found_without_reading_others() {
    use RecordState::{Abandoned, Complete, Failed, Intended, Queued, Refused, Submitted};
    let (folder, journal) = journal();
    for state in [Complete, Failed, Refused, Abandoned] {
        saved(&journal, state, 5);
    }
    assert_eq!(journal.count_open().expect("listed"), 0);
    let mut open = [Queued, Intended, Submitted].map(|state| saved(&journal, state, 6));
    assert_eq!(journal.count_open().expect("listed"), 3);
    // A record that is damaged and over by its mark is not even opened.
    let over = saved(&journal, Complete, 7);
    std::fs::write(journal.path_of(&over.export_id), "half a rec").expect("written");
    let mut found = journal.open_records().expect("listed");
    let by_id = |record: &Record| record.export_id.clone();
    found.sort_by_key(by_id);
    open.sort_by_key(by_id);
    assert_eq!(
        found.iter().map(by_id).collect::<Vec<_>>(),
        open.each_ref().map(by_id)
    );
    // A folder of an earlier version has no marks: they are made once, and a damaged record may be open.
    std::fs::remove_dir_all(&journal.open).expect("removed");
    let journal = Journal::open(&folder.path().join("new/state")).expect("a journal");
    assert_eq!(journal.count_open().expect("listed"), 4);
    assert_eq!(journal.open_records().expect("listed").len(), 3);
}

#[tokio::test]
async fn two_writers_of_one_record_keep_what_both_noted() {
    let (_folder, journal) = journal();
    let record = saved(&journal, RecordState::Intended, 5);
    let id = &record.export_id;
    let key = record.files[0].names[0].key.clone();
    let object = FinishedObject::from(ObjectMeta {
        key: key.clone(),
        ..samples::object(key.as_str())
    });
    let seen = || Observed {
        objects: vec![object.clone()],
        warnings: Vec::new(),
    };
    let all_there = Step::AllThere {
        seen: seen(),
        at: at(9),
    };
    let accepted = Step::Accept(Accepted {
        request_id: Some("r-1".to_owned()),
        ..Accepted::default()
    });
    // A `wait` sees the files before the answer to the submit is written.
    journal.advance(id, all_there).await.expect("complete");
    journal.advance(id, accepted).await.expect("merged");
    let sums = Sums {
        key,
        etag: object.etag.clone(),
        crc64: None,
        sha256: Some("5a".to_owned()),
    };
    journal.advance(id, Step::Owe).await.expect("owed");
    journal
        .advance(id, Step::Fetched(vec![sums]))
        .await
        .expect("fetched");
    // The slow one sees the end again.
    let again = Step::AllThere {
        seen: seen(),
        at: at(99),
    };
    journal.advance(id, again).await.expect("complete already");
    let now = journal.load(id).expect("readable").expect("there");
    assert_eq!(now.state(), RecordState::Complete);
    assert_eq!(now.request_id.as_deref(), Some("r-1"));
    assert!(!now.owes_download);
    let object = now.files[0].object.as_ref().expect("finished");
    assert_eq!(object.sha256.as_deref(), Some("5a"));
    // Deleted: nobody sees it vanish afterwards.
    journal
        .advance(id, Step::Remove { at: at(100) })
        .await
        .expect("removed");
    let error = journal
        .advance(id, Step::Vanish)
        .await
        .expect_err("it is complete");
    let AdvanceError::Overtaken(newest, _) = error else {
        panic!("seen: {error:?}");
    };
    assert_eq!(newest.removed_at, Some(at(100)));
}

#[tokio::test]
async fn a_record_of_another_machine_is_adopted_and_marked_as_such() {
    let (_folder, journal) = journal();
    let mut found = record(&samples::request(), RecordState::Intended, 5);
    let adopted = journal.adopt(&found).await.expect("written");
    assert!(adopted.adopted);
    found = found.in_state(RecordState::Complete);
    let adopted = journal.adopt(&found).await.expect("merged");
    assert_eq!(
        (adopted.state(), adopted.adopted),
        (RecordState::Complete, true)
    );
    assert!(!adopted.published().adopted);
    // One's own is never marked.
    let own = saved(&journal, RecordState::Intended, 6);
    let merged = journal
        .adopt(&own.clone().in_state(RecordState::Failed))
        .await
        .expect("merged");
    assert_eq!(
        (merged.state(), merged.adopted),
        (RecordState::Failed, false)
    );
}

#[test]
fn only_what_is_over_old_and_not_owed_is_pruned() {
    use RecordState::{Complete, Failed, Submitted};
    let (_folder, journal) = journal();
    let old = saved(&journal, Failed, 5);
    saved(&journal, Submitted, 5);
    let mut owed = record(&samples::request(), Complete, 5);
    owed.owes_download = true;
    journal.save(&owed).expect("saved");
    let mut late = record(&samples::request(), Complete, 5);
    late.completed_at = Some(at(500));
    journal.save(&late).expect("saved");
    assert_eq!(journal.prune(at(100)).expect("listed"), [old.export_id]);
    assert_eq!(journal.all().expect("listed").0.len(), 3);
}

/// Records of every state as the first version wrote them.
#[test]
fn records_of_the_first_version_are_read_and_written_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records");
    let (state, journal) = journal();
    let mut states = BTreeSet::new();
    for name in names(&folder) {
        let text = std::fs::read(folder.join(&name)).expect("readable");
        let record = Record::from_json(&text).expect("a record");
        assert_eq!(
            String::from_utf8_lossy(&record.to_json()),
            String::from_utf8_lossy(&text),
            "{name}"
        );
        std::fs::write(journal.path_of(&record.export_id), &text).expect("written");
        states.insert(record.state().to_string());
    }
    assert_eq!(states.len(), 7, "{states:?}");
    // As a state folder of that version: it is opened, found in, and its open records are known.
    std::fs::remove_dir_all(&journal.open).expect("removed");
    let journal = Journal::open(&state.path().join("new/state")).expect("a journal");
    let (records, unreadable) = journal.all().expect("listed");
    assert_eq!((records.len(), unreadable.len()), (9, 0));
    let open = records.iter().filter(|record| !record.state().is_over());
    assert_eq!(open.clone().count(), 3);
    assert_eq!(journal.count_open().expect("listed"), 3);
    for record in &records {
        let found = journal
            .find(&record.identity())
            .expect("listed")
            .expect("there");
        assert_eq!(found.identity(), record.identity());
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_said_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = Journal::open(&file).expect_err("a file is no folder");
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(Error::from(error).kind(), ErrorKind::LocalDisk);
    // The folder vanishes while the program runs.
    let (folder, journal) = journal();
    drop(folder);
    let unsaved = record(&samples::request(), RecordState::Queued, 5);
    assert!(matches!(
        journal.save(&unsaved),
        Err(JournalError::Disk { .. })
    ));
    assert!(matches!(
        journal.find(&unsaved.identity()),
        Err(JournalError::Disk { .. })
    ));
}

#[tokio::test]
async fn a_lock_keeps_a_second_holder_out_until_it_is_dropped() {
    let (_folder, journal) = journal();
    let identity = samples::request().identity();
    let waits = AtomicU32::new(0);
    let count = || {
        waits.fetch_add(1, Ordering::Relaxed);
    };
    let first = journal.lock(&identity, count).await.expect("a free lock");
    assert_eq!(
        waits.load(Ordering::Relaxed),
        0,
        "a free lock makes nobody wait"
    );

    let mut second = std::pin::pin!(journal.lock(&identity, count));
    assert!(
        second.as_mut().now_or_never().is_none(),
        "the second got in"
    );
    assert_eq!(waits.load(Ordering::Relaxed), 1, "the wait is told");
    let stranger = other_request().identity();
    let other = journal
        .lock(&stranger, || panic!("another export has another lock"))
        .await;
    drop(other.expect("a free lock"));

    drop(first);
    let second = second.await.expect("the first is gone");
    assert_eq!(waits.load(Ordering::Relaxed), 1, "the wait is told once");
    drop(second);
    journal
        .lock(&identity, || panic!("the second is gone, too"))
        .await
        .expect("a free lock");
}

#[tokio::test]
async fn giving_up_the_wait_for_a_lock_leaves_it_to_its_holder() {
    let (_folder, journal) = journal();
    let identity = samples::request().identity();
    let first = journal.lock(&identity, || ()).await.expect("a free lock");
    assert!(
        journal.lock(&identity, || ()).now_or_never().is_none(),
        "the second got in"
    );
    assert!(
        journal.lock(&identity, || ()).now_or_never().is_none(),
        "giving up freed the lock"
    );
    drop(first);
    journal
        .lock(&identity, || panic!("nobody holds it"))
        .await
        .expect("a free lock");
    // The file stays: deleting it would let two processes lock two files of one name.
    assert_eq!(names(&journal.locks), [format!("{}.lock", identity.hash())]);
}

#[cfg(unix)]
#[tokio::test]
async fn records_locks_and_folders_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, journal) = journal();
    let mut record = saved(&journal, RecordState::Queued, 5);
    record = record.in_state(RecordState::Submitted);
    journal.save(&record).expect("saved again");
    let identity = record.identity();
    let _lock = journal.lock(&identity, || ()).await.expect("a free lock");
    let paths = [
        (journal.records.clone(), 0o700),
        (journal.locks.clone(), 0o700),
        (journal.path_of(&record.export_id), 0o600),
        (
            journal.locks.join(format!("{}.lock", identity.hash())),
            0o600,
        ),
    ];
    for (path, expected) in paths {
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, expected, "asked: {}; seen: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_an_empty_journal_that_refuses_a_submit() {
    let folder = tempfile::tempdir().expect("a folder");
    let occupied = folder.path().join("occupied");
    std::fs::write(&occupied, "a file").expect("a file");
    let (journal, problem) = Journal::open_or_absent(&occupied);
    assert!(matches!(problem, Some(JournalError::Disk { .. })));
    let identity = samples::request().identity();
    for state in [
        RecordState::Queued,
        RecordState::Intended,
        RecordState::Submitted,
        RecordState::Complete,
        RecordState::Failed,
        RecordState::Refused,
        RecordState::Abandoned,
    ] {
        let record = record(&samples::request(), state, 5);
        assert!(
            matches!(journal.begin(&record), Err(JournalError::Absent)),
            "{state:?}"
        );
        assert!(journal.load(&record.export_id).expect("empty").is_none());
    }
    assert!(journal.find(&identity).expect("empty").is_none());
    assert_eq!(journal.count_open().expect("empty"), 0);
    let lock = journal.lock(&identity, || {}).await;
    assert!(matches!(lock, Err(JournalError::Absent)), "{lock:?}");
    assert_eq!(names(folder.path()), ["occupied"]);
}

#[test]
fn a_folder_that_can_be_used_is_opened_as_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, problem) = Journal::open_or_absent(&folder.path().join("new/state"));
    assert!(problem.is_none(), "{problem:?}");
    let record = saved(&journal, RecordState::Submitted, 5);
    assert!(journal.load(&record.export_id).expect("readable").is_some());
    assert_eq!(journal.count_open().expect("readable"), 1);
}
