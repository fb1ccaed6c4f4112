//! `files rm` where the bucket keeps versions, or has kept them.

use cvm_export::simulator::Effect;
use serde_json::Value;

use super::{BUCKET, LEASE};
use crate::support::{TestEnv, fault};

const ALL: &str = "files rm --bucket exports --older-than 0s --include-newest";

impl TestEnv {
    /// The key of each object and version that is stored, but for leases, which nobody deletes.
    fn stored(&self) -> Vec<String> {
        let mut keys = self.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            bucket.stored_keys()
        });
        keys.retain(|key| !key.contains(LEASE));
        keys.sort();
        keys
    }
}

#[test]
fn in_a_versioned_bucket_hidden_and_deleted_are_told_apart() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        world.bucket_mut(BUCKET).expect("the bucket").versioned = true;
    });
    env.export("img-multi002", "p", "");
    env.put("notes.txt");
    let stored = env.stored();
    let run = env
        .line(&format!("{ALL} --yes --output json"))
        .ends_with(0)
        .says("they go on costing");
    let report = run.json();
    assert_eq!(report["versioning"], "enabled");
    assert_eq!(report["freed_bytes"], 0);
    assert_eq!(report["exports"][0]["objects"][0]["state"], "hidden");
    assert_eq!(env.keys(), ["notes.txt"]);
    assert_eq!(env.stored(), stored);

    let run = env
        .line("files --bucket exports --output json")
        .ends_with(0)
        .says("the bucket keeps versions");
    assert_eq!(run.json()["items"], Value::Array(vec![]));
    let run = env
        .line("files --bucket exports --all-versions --output json")
        .ends_with(0);
    assert_eq!(run.json()["items"][0]["files"][0]["proof"], "record");
    let report = env
        .line(&format!("{ALL} --all-versions --yes --output json"))
        .ends_with(0)
        .json();
    assert!(
        report["freed_bytes"].as_u64() >= Some(170 << 30),
        "{report:#}"
    );
    assert_eq!(env.stored(), ["notes.txt"]);
    assert_eq!(env.keys(), ["notes.txt"]);
}

#[test]
fn where_versions_are_kept_no_more_only_those_of_before_are_hidden() {
    let env = TestEnv::new();
    let set = |versioned: bool, suspended: bool| {
        env.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            (bucket.versioned, bucket.suspended) = (versioned, suspended);
        });
    };
    set(true, false);
    env.export("img-linux001", "p", "--no-claim");
    set(true, true);
    env.export("img-linux001", "q", "--no-claim");
    for prefix in ["p", "q"] {
        // Of one delete the answer is lost, so that only a look tells what became of it.
        let lost = fault("DeleteMultipleObjects", Effect::ProcessedThenReset);
        env.cloud
            .set_faults(Vec::from_iter((prefix == "q").then_some(lost)));
        let line = format!("{ALL} --prefix {prefix} --yes --output json");
        let report = env
            .line(&line)
            .ends_with(0)
            .says("has stopped to keep versions")
            .json();
        let (state, freed) = match prefix {
            "p" => ("hidden", 0),
            _ => ("deleted", 50_u64 << 30),
        };
        assert_eq!(report["exports"][0]["objects"][0]["state"], state);
        assert_eq!(report["freed_bytes"], freed);
    }
    let stored = env.stored();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(stored[0].starts_with("p_"), "{stored:?}");
}

#[test]
fn a_version_called_null_is_looked_at_before_it_goes() {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        (bucket.versioned, bucket.suspended) = (true, true);
    });
    env.export("img-linux001", "p", "");
    let rm = format!("{ALL} --all-versions --yes --output json");
    env.cloud.set_faults(vec![
        fault("HeadObject", Effect::ChangedObject).with_key("*.raw"),
    ]);
    let report = env.line(&rm).ends_with(10).json();
    assert_eq!(report["versioning"], "suspended");
    assert_eq!(report["exports"][0]["objects"][0]["version_id"], "null");
    assert_eq!(report["exports"][0]["objects"][0]["state"], "changed");
    assert_eq!(env.keys().len(), 2, "the record stays, too");
    assert_eq!(env.calls("DeleteMultipleObjects"), 0);

    // A delete without a version leaves a marker of that name, in whose place the next export comes.
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        (bucket.versioned, bucket.suspended) = (true, true);
    });
    for _ in 0..2 {
        env.export("img-linux001", "p", "");
        env.line(&format!("{ALL} --yes")).ends_with(0);
    }
    env.export("img-linux001", "p", "");
    let report = env.line(&rm).ends_with(0).json();
    assert!(
        report["freed_bytes"].as_u64() >= Some(50 << 30),
        "{report:#}"
    );
    assert!(env.keys().is_empty());
}
