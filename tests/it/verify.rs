//! `verify`: files of this machine against records, the bucket, and for what they hold.

use std::fs;

use cvm_export::simulator::{Disk, Image};

use crate::support::TestEnv;

/// A world in which a 5 MiB disk was exported and fetched into the home folder; the file's name.
fn fetched() -> (TestEnv, String, String) {
    let env = TestEnv::new();
    env.cloud.change(|world| {
        let id = "img-small".parse().expect("an id");
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 1);
        world.add_image(image.with_system_disk(Disk::sample(5 << 20, "seed", "system")));
    });
    let run = env
        .line("image --id img-small --bucket exports --prefix p --output json")
        .ends_with(0);
    fs::write(env.home.path().join("record.json"), &run.stdout).expect("a file");
    let json = run.json();
    let key = json["files"][0]["key"].as_str().expect("a key").to_owned();
    let id = json["export_id"].as_str().expect("an id").to_owned();
    env.run(&["download", &id]).ends_with(0);
    (env, key, id)
}

#[test]
fn a_file_is_verified_years_later_without_a_network() {
    let (mut env, name, id) = fetched();
    env.unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY")
        .unset("CVM_EXPORT_ENDPOINT_URL");
    let calls = env.cloud.calls().len();
    env.run(&["verify", &name, "--record", "record.json"])
        .ends_with(0)
        .prints(&format!("{name}: OK\n"));
    // The record of the journal, which is also the one in the bucket, serves as well.
    let journal = env
        .state_folder()
        .join("exports")
        .join(format!("{id}.json"));
    env.run(&["verify", &name, "--record", &journal.display().to_string()])
        .ends_with(0);
    let path = env.home.path().join(&name);
    let mut bytes = fs::read(&path).expect("the file");
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).expect("a file");
    let run = env
        .run(&[
            "verify",
            &name,
            "--record",
            "record.json",
            "--output",
            "json",
        ])
        .ends_with(8);
    assert_eq!(run.json()["items"][0]["verified"], false);
    assert_eq!(env.cloud.calls().len(), calls, "nothing was asked");
}

#[test]
fn a_file_is_compared_with_the_bucket() {
    let (env, name, _) = fetched();
    env.run(&["verify", &name, "--bucket", "exports"])
        .ends_with(0);
    fs::rename(
        env.home.path().join(&name),
        env.home.path().join("other.raw"),
    )
    .expect("renamed");
    env.line("verify other.raw --bucket exports")
        .ends_with(3)
        .says("--key KEY");
    env.run(&["verify", "other.raw", "--bucket", "exports", "--key", &name])
        .ends_with(0);
    fs::write(env.home.path().join("other.raw"), "short").expect("a file");
    let run = env
        .run(&["verify", "other.raw", "--bucket", "exports", "--key", &name])
        .ends_with(8);
    assert!(
        run.stdout.contains("FAILED (its size is 5"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_disk_says_what_it_holds_and_how_it_would_be_started() {
    let (env, name, _) = fetched();
    let run = env
        .run(&["verify", &name, "--record", "record.json", "--disk"])
        .ends_with(0);
    assert!(
        run.stdout.contains("virt-install") && run.stdout.contains(&name),
        "{}",
        run.stdout
    );
    let json = env
        .run(&["verify", &name, "--disk", "--output", "json"])
        .ends_with(0)
        .json();
    assert_eq!(json["items"][0]["disk"]["size_bytes"], 5 << 20);
    assert!(
        json["items"][0]["verified"].is_null(),
        "nothing was compared"
    );
}

#[test]
fn what_cannot_be_verified_says_why() {
    let (env, name, _) = fetched();
    env.run(&["verify", &name]).ends_with(2).says("--record");
    env.run(&["verify", &name, "--record", "none.json"])
        .ends_with(9);
    env.run(&["verify", "none.raw", "--record", "record.json"])
        .ends_with(9);
    fs::write(env.home.path().join("odd.json"), "{\"schema\":\"other\"}").expect("a file");
    env.run(&["verify", &name, "--record", "odd.json"])
        .ends_with(2)
        .says("is no record of an export");
}
