//! How records are read, written and changed.

use super::*;
use crate::export::progress::Accepted;

fn key(text: &str) -> ObjectKey {
    text.parse().expect("key")
}

fn record(names: &[(&str, DiskRole, &[&str])]) -> Record {
    let request = ExportRequest {
        image_id: "img-1".parse().expect("image id"),
        region: "ap-guangzhou".parse().expect("region"),
        bucket: "b-1250000000".parse().expect("bucket"),
        prefix: Some("p".parse().expect("prefix")),
        format: ImageFormat::Raw,
        scope: DiskScope::WholeMachine,
        role: "CVM_QcsRole".parse().expect("role"),
        prefix_template: None,
        copied_from: None,
    };
    let files = names.iter().map(|(snapshot, disk, names)| {
        let expected = ExpectedFile {
            disk: *disk,
            device: "xvda".to_owned(),
            snapshot_id: Some(snapshot.parse().expect("snapshot id")),
            size_gib: Some(50),
            names: names.iter().map(|name| key(name)).collect(),
        };
        RecordFile::expect(&expected, |_| Baseline::Absent)
    });
    Record::begin(&request, files.collect(), DateTime::UNIX_EPOCH)
}

fn two_disks() -> Record {
    record(&[
        (
            "snap-s",
            DiskRole::System,
            &["p_img-1_system_snap-s.raw", "p_xvda.raw"],
        ),
        (
            "snap-d",
            DiskRole::Data,
            &["p_img-1_data_snap-d.raw", "p_xvdb.raw"],
        ),
    ])
}

#[test]
fn announced_names_win_and_set_the_order() {
    let mut record = two_disks();
    let announced = vec![key("p_xvdb.raw"), key("q_snap-s.raw")];
    record.accept(Accepted {
        task_id: Some(TaskId(7)),
        announced,
        ..Accepted::default()
    });
    let names: Vec<Vec<&str>> = record
        .files
        .iter()
        .map(|file| file.names.iter().map(|name| name.key.as_str()).collect())
        .collect();
    assert_eq!(
        names,
        [
            vec!["p_xvdb.raw", "p_img-1_data_snap-d.raw"],
            vec!["q_snap-s.raw", "p_img-1_system_snap-s.raw", "p_xvda.raw"],
        ]
    );
    assert_eq!(
        record.files[0].snapshot_id.as_ref().map(SnapshotId::as_str),
        Some("snap-d")
    );
    assert!(record.warnings.is_empty());
}

#[test]
fn a_disk_that_is_not_announced_is_dropped_with_a_warning() {
    let mut record = two_disks();
    record.accept(Accepted {
        announced: vec![key("p_img-1_system_snap-s.raw")],
        ..Accepted::default()
    });
    assert_eq!(record.files.len(), 1);
    assert_eq!(record.warnings.len(), 1);
}

#[test]
fn a_path_that_is_no_key_keeps_the_predicted_names_of_its_disk() {
    let mut record = two_disks();
    record.accept(Accepted {
        announced: vec![key("p_img-1_system_snap-s.raw")],
        unusable: 1,
        ..Accepted::default()
    });
    let keys: Vec<String> = record.keys().iter().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        ["p_img-1_system_snap-s.raw", "p_img-1_data_snap-d.raw"]
    );
    // Of a disk that nobody predicted nothing is known, so the export can't be seen complete.
    let mut record = two_disks();
    record.accept(Accepted {
        announced: record.keys(),
        unusable: 1,
        ..Accepted::default()
    });
    assert_eq!((record.files.len(), record.keys().len()), (3, 2));
    assert!(!record.is_all_there());
}

#[test]
fn an_answer_without_paths_keeps_the_prediction() {
    let mut record = two_disks();
    record.accept(Accepted::default());
    assert_eq!(record.files.len(), 2);
}

#[test]
fn fields_of_a_later_version_survive_a_rewrite() {
    let mut json: serde_json::Value = serde_json::from_slice(&two_disks().to_json()).expect("JSON");
    json["from_the_future"] = serde_json::json!({"a": 1});
    let read = Record::from_json(json.to_string().as_bytes()).expect("a record");
    let again: serde_json::Value = serde_json::from_slice(&read.to_json()).expect("JSON");
    assert_eq!(again, json);
}

#[test]
fn times_at_the_ends_of_the_calendar_are_compared() {
    let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
    let start = DateTime::UNIX_EPOCH;
    let cases = [
        (start, first, true),
        (first, first, true),
        (first, last, false),
        (last, first, true),
        (start, start + TimeDelta::seconds(2), true),
        (start, start + TimeDelta::seconds(3), false),
    ];
    for (time, start, expected) in cases {
        assert_eq!(is_since(time, start), expected, "{time} since {start}");
    }
}

#[test]
fn other_schemas_and_other_texts_are_refused() {
    let other = br#"{"schema":"cvm-export.record.v2"}"#;
    assert!(matches!(
        Record::from_json(other),
        Err(RecordError::UnknownSchema(_))
    ));
    for text in [
        &b""[..],
        b"{}",
        b"<html>",
        br#"{"schema":"cvm-export.record.v1"}"#,
    ] {
        assert!(matches!(
            Record::from_json(text),
            Err(RecordError::Malformed(_))
        ));
    }
}

#[test]
fn the_reattach_line_names_region_bucket_time_and_keys() {
    let mut record = two_disks();
    record.submitted_at = Some(DateTime::UNIX_EPOCH);
    assert_eq!(
        record.reattach().join(" "),
        "cvm-export wait --region ap-guangzhou --bucket b-1250000000 --since 1970-01-01T00:00:00Z \
         p_img-1_system_snap-s.raw p_img-1_data_snap-d.raw"
    );
}
