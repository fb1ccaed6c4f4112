//! Records that somebody else has put into the bucket, and records that say odd things: neither may have a
//! stranger's object reported, fetched or deleted.

use cvm_export::simulator::Object;
use serde_json::{Value, json};

use super::{BUCKET, LEASE};
use crate::support::TestEnv;

const ALL: &str = "files rm --bucket exports --older-than 0s --include-newest --yes";
/// The record of what [`TestEnv::export`] made of `img-linux001` under the prefix `p`.
const CLAIM: &str = "p_img-linux001.cvm-export.json";

impl TestEnv {
    fn claim(&self) -> Value {
        self.record_at(CLAIM)
    }

    /// Takes all leases out of the bucket.
    fn take_leases(&self) -> Vec<(String, Object)> {
        self.cloud.change(|world| {
            let objects = &mut world.bucket_mut(BUCKET).expect("the bucket").objects;
            let leases: Vec<_> = objects
                .iter()
                .filter(|(key, _)| key.contains(LEASE))
                .map(|(key, object)| (key.clone(), object.clone()))
                .collect();
            objects.retain(|key, _| !key.contains(LEASE));
            leases
        })
    }

    fn put_claim(&self, record: &Value) {
        self.cloud
            .change(|world| world.put_object(BUCKET, CLAIM, record.to_string()));
    }
}

/// One more disk of a record, under a single name.
fn disk_at(key: &str) -> Value {
    json!({
        "disk": "data", "device": "xvdb", "snapshot_id": null, "size_gib": 1, "object": null,
        "names": [{"key": key, "baseline": "absent"}],
    })
}

#[test]
fn a_record_that_names_files_of_another_place_is_none() {
    const IMAGE: &str = "image --id img-linux001 --bucket exports --prefix p --timeout 5s";
    for stranger in [
        "other/backup.tar",
        "p/backup.tar",
        "p_x/backup.tar",
        "zz_xvda.raw",
        "q",
    ] {
        let env = TestEnv::new();
        env.export("img-linux001", "p", "--no-wait");
        env.cloud.change(|world| world.finish_exports());
        env.put(stranger);
        let mut forged = env.claim();
        forged["files"]
            .as_array_mut()
            .expect("files")
            .push(disk_at(stranger));
        env.put_claim(&forged);
        let before = env.keys();
        let words = "it names files of another place";
        let other = env.elsewhere();
        let run = other
            .line("wait --bucket exports --prefix p --timeout 2s")
            .says(words);
        assert_ne!(run.code, 0, "{stranger}");
        assert_eq!(run.stdout, "", "{stranger}");
        other.line(ALL).says(words);
        assert_eq!(env.keys(), before);

        // Where there is no lease, it may be of an earlier version, which had none.
        let leases = env.take_leases();
        assert_eq!(leases.len(), 1);
        let run = env.elsewhere().line(IMAGE).says("nothing was submitted");
        assert_ne!(run.code, 0, "{stranger}");
        assert_eq!(run.stdout, "", "{stranger}");
        assert_eq!(env.keys(), before);
        // With leases, no submit rests on it.
        env.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            bucket.objects.extend(leases);
        });
        let run = env.elsewhere().line(IMAGE).ends_with(0);
        let genuine = before.iter().find(|key| key.contains("_system_"));
        let genuine = genuine.expect("the file of the export");
        run.prints(&format!("cos://{BUCKET}/{genuine}\n"));
        env.assert_submits(1);
        assert_eq!(env.keys(), before);
    }
}

#[test]
fn a_lease_that_cannot_be_read_keeps_its_export() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.export("img-linux001", "q", "");
    env.put("p_img-linux001.cvm-export.lease-raw-1.json");
    let run = env
        .line(ALL)
        .ends_with(10)
        .says("its leases could not be read")
        .says("it is not a lease of cvm-export");
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let left = env.keys();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|key| key.starts_with("p_")), "{left:?}");
    // Somebody has deleted the first by hand, which the record tells.
    env.take_leases();
    env.line(ALL)
        .ends_with(10)
        .says("p_img-linux001.cvm-export.lease-raw-1.json")
        .says("it is missing, but");
    assert_eq!(env.keys(), left);
}

#[test]
fn names_that_the_export_cannot_have_prove_nothing_in_the_journal_either() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "--no-wait");
    env.cloud.change(|world| world.finish_exports());
    let mut forged = env.claim();
    // In its place, and nothing that an exporter writes.
    env.put("p_backup.tar");
    let files = forged["files"].as_array_mut().expect("files");
    files.push(disk_at("p_backup.tar"));
    env.put_claim(&forged);
    let other = env.elsewhere();
    other
        .line("wait --bucket exports --prefix p --timeout 5s")
        .ends_with(0);
    other.line(ALL);
    assert!(env.keys().iter().any(|key| key == "p_backup.tar"));
}

#[test]
fn a_claim_behind_a_thousand_names_is_found() {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env.cloud.change(|world| {
        for number in 0..1_500 {
            world.put_object(BUCKET, &format!("p_img-a{number}_data_snap-1.raw"), "bytes");
        }
    });
    let run = env.elsewhere().line("wait --bucket exports --prefix p");
    let run = run.ends_with(0);
    assert!(
        run.stdout.contains("p_img-linux001_system_"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_record_that_disproves_an_object_stays_whatever_image_is_named() {
    const NORTH: &str = "north-1250000000";
    let mut env = TestEnv::new();
    env.cloud.change(|world| {
        world.copy_seconds = Some(0.0);
        world.add_bucket(NORTH, "ap-beijing".parse().expect("a region"));
    });
    let run = env
        .line(
            "image --id img-linux001 --bucket north --prefix p --poll-interval 100ms --copy-to-bucket-region",
        )
        .ends_with(0);
    let key = run
        .stdout
        .trim()
        .rsplit('/')
        .next()
        .expect("a key")
        .to_owned();
    env.cloud
        .change(|world| world.put_object(NORTH, &key, "somebody else's"));
    env.lose_home();
    // By its name the object is of the copy, and the copy is not what is named.
    let run = env
        .line(
            "files rm --bucket north --id img-linux001 --older-than 0s --include-newest --dry-run",
        )
        .ends_with(0);
    let stays = format!("it tells that `{key}` is not this export's");
    assert!(run.stdout.contains(&stays), "{}", run.stdout);
}
