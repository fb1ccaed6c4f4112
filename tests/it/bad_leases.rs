//! Leases and records in the bucket that say nothing that can be relied on: never a submit, never a panic, and a
//! message that names the object and what to do.

use serde_json::{Value, json};

use crate::support::TestEnv;
use crate::support::machine::{Machine, Problems, all_right};

const BUCKET: &str = "exports-1250000000";
const LINE: &str =
    "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms --timeout 2s";
const LEASE: &str = "p_img-linux001.cvm-export.lease-raw-1.json";
const RECORD: &str = "p_img-linux001.cvm-export.json";

type Change = fn(&mut Value);

/// What is done to a good document.
#[derive(Clone, Copy, Debug)]
enum Damage {
    NotJson,
    Empty,
    HalfWritten,
    Huge,
    /// What is changed, for the report, and how.
    Changed(&'static str, Change),
}

impl Damage {
    fn title(self) -> String {
        match self {
            Self::Changed(what, _) => what.to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn of(self, good: &[u8]) -> Vec<u8> {
        match self {
            Self::NotJson => b"<html>not a document</html>".to_vec(),
            Self::Empty => Vec::new(),
            Self::HalfWritten => good[..good.len() / 2].to_vec(),
            Self::Huge => {
                let mut text = good.to_vec();
                text.resize(50 << 20, b' ');
                text
            }
            Self::Changed(_, change) => {
                let mut document = serde_json::from_slice(good).expect("JSON");
                change(&mut document);
                serde_json::to_vec_pretty(&document).expect("JSON")
            }
        }
    }
}

const ALIKE: [Damage; 4] = [
    Damage::NotJson,
    Damage::Empty,
    Damage::HalfWritten,
    Damage::Huge,
];

/// In a record, or in the record of a lease.
fn in_record(document: &mut Value, change: impl Fn(&mut Value)) {
    match document.get_mut("record") {
        Some(record) => change(record),
        None => change(document),
    }
}

const CHANGES: [Damage; 9] = [
    Damage::Changed("a later schema", |it| {
        let schema = it["schema"]
            .as_str()
            .unwrap_or_default()
            .replace("v1", "v9");
        it["schema"] = schema.into();
    }),
    Damage::Changed("no schema", |it| {
        drop(it.as_object_mut().map(|it| it.remove("schema")))
    }),
    Damage::Changed("another image", |it| it["image_id"] = json!("img-other001")),
    Damage::Changed("another prefix", |it| it["prefix"] = json!("q")),
    Damage::Changed("another bucket", |it| {
        it["bucket"] = json!("other-1250000000")
    }),
    Damage::Changed("another image in its record", |it| {
        in_record(it, |record| record["image_id"] = json!("img-other001"));
    }),
    Damage::Changed("a key elsewhere", |it| {
        in_record(it, |record| {
            record["files"][0]["names"][0]["key"] = json!("secret/other.raw");
        });
    }),
    Damage::Changed("an object elsewhere", |it| {
        in_record(it, |record| {
            record["files"][0]["object"]["key"] = json!("q_other.raw")
        });
    }),
    Damage::Changed("an unknown state", |it| it["state"] = json!("dancing")),
];

const LEASE_CHANGES: [Damage; 3] = [
    Damage::Changed("another number", |it| it["number"] = json!(7)),
    Damage::Changed("another run", |it| {
        it["run"] = json!("exp-0000000000000000")
    }),
    Damage::Changed("another format", |it| it["format"] = json!("qcow2")),
];

fn damaged((key, damage): &(&str, Damage)) -> Vec<String> {
    let mut problems = Problems::default();
    let env = TestEnv::new();
    Machine::new(&env).line(LINE).ends_with(0);
    let good = env.object_at(key).expect("the document");
    env.cloud.change(|world| {
        let objects = &mut world.buckets.get_mut(BUCKET).expect("the bucket").objects;
        // The record alone, as an earlier version has left it; its files are gone, so that they prove nothing.
        objects.clear();
        world.put_object(BUCKET, key, damage.of(&as_earlier(key, &good)));
    });
    let submits = env.calls("ExportImages");
    for flags in ["", " --if-exists overwrite --yes", " --resubmit"] {
        let run = Machine::new(&env).line(&format!("{LINE}{flags}"));
        problems.ends(&format!("a run with `{flags}`"), &run, 3);
        problems.expect(run.stderr.contains(key), || {
            format!("`{key}` is not named: {}", run.stderr)
        });
        problems.expect(run.stderr.contains("--prefix"), || {
            format!("what to do is not said: {}", run.stderr)
        });
        problems.expect(!run.stderr.contains("panicked"), || run.stderr.clone());
    }
    problems.equal("submits", env.calls("ExportImages"), submits);
    problems.0
}

/// A record of a version that had no leases.
fn as_earlier(key: &str, good: &[u8]) -> Vec<u8> {
    if key == LEASE {
        return good.to_vec();
    }
    let mut record: Value = serde_json::from_slice(good).expect("JSON");
    drop(record.as_object_mut().map(|it| it.remove("attempt")));
    serde_json::to_vec_pretty(&record).expect("JSON")
}

#[test]
fn documents_that_cannot_be_relied_on_stop_the_run_before_the_submit() {
    let mut cases = Vec::new();
    for key in [LEASE, RECORD] {
        cases.extend(ALIKE.iter().chain(&CHANGES).map(|damage| (key, *damage)));
    }
    cases.extend(LEASE_CHANGES.iter().map(|damage| (LEASE, *damage)));
    all_right(
        "bad documents",
        &cases,
        |(key, damage)| format!("{key}: {}", damage.title()),
        damaged,
    );
}

#[test]
fn a_record_of_another_format_is_of_another_export() {
    let env = TestEnv::new();
    Machine::new(&env)
        .line(&format!("{LINE} --format qcow2"))
        .ends_with(0);
    Machine::new(&env).line(LINE).ends_with(0);
    env.assert_submits(2);
}

#[test]
fn a_deleted_lease_stops_the_run_and_is_named() {
    for deleted in [1, 2] {
        for is_record_there in [true, false] {
            let env = TestEnv::new();
            for _ in 0..3 {
                Machine::new(&env)
                    .line(&format!("{LINE} --if-exists overwrite --yes"))
                    .ends_with(0);
            }
            env.cloud.change(|world| {
                let objects = &mut world.buckets.get_mut(BUCKET).expect("the bucket").objects;
                let key = LEASE.replace("-1.json", &format!("-{deleted}.json"));
                assert!(objects.remove(&key).is_some());
                if !is_record_there {
                    objects.remove(RECORD);
                }
            });
            for flags in ["", " --if-exists overwrite --yes", " --resubmit"] {
                let run = Machine::new(&env)
                    .line(&format!("{LINE}{flags}"))
                    .ends_with(3)
                    .says("nothing was submitted")
                    .says("missing")
                    .says("--prefix");
                let is_named = [
                    format!("attempt {deleted} is missing"),
                    format!("lease-raw-{deleted}.json"),
                ];
                let is_named = is_named.iter().any(|text| run.stderr.contains(text));
                assert!(is_named, "{}", run.stderr);
            }
            env.assert_submits(3);
        }
    }
}
