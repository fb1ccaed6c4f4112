//! `image --download` and its kin: from the image to verified files and the record that proves them.

use std::fs;
use std::path::PathBuf;

use cvm_export::simulator::{Disk, Effect, Fault, Image};
use serde_json::Value;

use crate::support::{Run, TestEnv, fault, wait_until};

const DISK_BYTES: u64 = 5 << 20;
const LINE: &str = "image --id img-small --bucket exports --prefix p --poll-interval 100ms --part-size 64KiB \
                    --download here";

/// A world with the image `img-small`, whose disk is small.
fn world() -> TestEnv {
    let env = TestEnv::new();
    add_image(&env, "img-small", DISK_BYTES);
    env
}

fn add_image(env: &TestEnv, id: &str, disk_bytes: u64) {
    env.cloud.change(|world| {
        let id = id.parse().expect("an id");
        let gib = disk_bytes.div_ceil(1 << 30);
        let image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), gib);
        world.add_image(image.with_system_disk(Disk::sample(disk_bytes, "seed", "system")));
        world.export_seconds = Some(0.0);
    });
}

fn folder(env: &TestEnv) -> PathBuf {
    env.home.path().join("here")
}

/// What is in the folder, in order.
fn names(env: &TestEnv) -> Vec<String> {
    let entries = fs::read_dir(folder(env)).expect("the folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("text")
        })
        .collect();
    names.sort();
    names
}

/// How often bytes of exported files were asked for; leases and records are not counted.
fn fetches(env: &TestEnv) -> usize {
    let calls = env.cloud.calls();
    let fetches = calls
        .iter()
        .filter(|call| call.operation == "GetObject" && !call.target.contains(".cvm-export."));
    fetches.count()
}

/// Waits until bytes of exported files have been asked for so often.
#[track_caller]
fn wait_for_fetches(env: &TestEnv, count: usize) {
    wait_until(
        || format!("{count} fetches, {} so far", fetches(env)),
        || fetches(env) >= count,
    );
}

/// The object that the run says to have exported, byte for byte.
fn object(env: &TestEnv, key: &str) -> Vec<u8> {
    env.cloud.change(|world| {
        let object = world.object("exports-1250000000", key).expect("the object");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        bytes
    })
}

/// The run's only file, after a look that it has arrived whole.
#[track_caller]
fn arrived(env: &TestEnv, run: &Run) -> Value {
    let file = run.json()["files"][0].clone();
    let key = file["key"].as_str().expect("a key");
    assert_eq!(file["local_path"], format!("here/{key}"));
    let seen = fs::read(folder(env).join(key)).expect("the file");
    assert!(seen == object(env, key), "the bytes differ");
    file
}

fn record(env: &TestEnv) -> Value {
    let text = fs::read(folder(env).join("p_img-small.cvm-export.json")).expect("the record");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn one_command_brings_the_disk_its_record_and_its_checksums() {
    let mut env = world();
    let run = env
        .line(&format!("{LINE} --sha256 --output json"))
        .ends_with(0);
    let file = arrived(&env, &run);
    let key = file["key"].as_str().expect("a key");
    assert_eq!(
        names(&env),
        ["p_img-small.cvm-export.json", "p_img-small.sha256", key]
    );
    let record = record(&env);
    let outcome = run.json();
    for name in [
        "image_id",
        "os_name",
        "task_id",
        "request_id",
        "tool_version",
    ] {
        assert!(!record[name].is_null(), "{name} is missing: {record}");
    }
    assert_eq!(record["task_id"], outcome["task_id"]);
    assert_eq!(record["files"][0]["snapshot_id"], file["snapshot_id"]);
    let kept = &record["files"][0]["object"];
    for name in ["key", "size_bytes", "crc64", "sha256"] {
        assert_eq!(kept[name], file[name], "{name}");
    }
    let check = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "p_img-small.sha256"])
        .current_dir(folder(&env))
        .output()
        .expect("sha256sum");
    assert!(check.status.success(), "{check:?}");
    // Years later, without network or account.
    for name in [
        "CVM_EXPORT_ENDPOINT_URL",
        "TENCENTCLOUD_SECRET_ID",
        "TENCENTCLOUD_SECRET_KEY",
    ] {
        env.unset(name);
    }
    let path = format!("here/{key}");
    env.run(&[
        "verify",
        &path,
        "--record",
        "here/p_img-small.cvm-export.json",
    ])
    .ends_with(0)
    .prints(&format!("{path}: OK\n"));
}

#[test]
fn text_mode_prints_the_exported_objects_alone() {
    let env = world();
    let run = env
        .line(LINE)
        .ends_with(0)
        .says("fetched: p_img-small_system_");
    assert!(
        run.stdout
            .starts_with("cos://exports-1250000000/p_img-small_system_")
    );
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    assert!(
        !names(&env).contains(&"p_img-small.sha256".to_owned()),
        "nobody asked for SHA-256"
    );
}

#[test]
fn wait_and_download_by_export_id_leave_the_same() {
    let env = world();
    let run = env
        .line("image --id img-small --bucket exports --prefix p --no-wait --output json")
        .ends_with(0);
    let id = run.json()["export_id"].as_str().expect("an id").to_owned();
    let run = env
        .line(&format!(
            "wait {id} --poll-interval 100ms --download here --output json"
        ))
        .ends_with(0);
    arrived(&env, &run);
    let first = record(&env);
    assert_eq!(first["export_id"], id);
    fs::remove_dir_all(folder(&env)).expect("removed");
    env.line(&format!("download {id} --to here/ --sha256"))
        .ends_with(0);
    let second = record(&env);
    assert_eq!(second["export_id"], id);
    assert!(second["files"][0]["object"]["sha256"].is_string());
    // Without a journal, on another machine.
    fs::remove_dir_all(folder(&env)).expect("removed");
    fs::remove_dir_all(env.state_folder()).expect("removed");
    let run = env
        .line("wait --bucket exports --prefix p --id img-small --poll-interval 100ms --download here --output json")
        .ends_with(0);
    arrived(&env, &run);
    assert_eq!(record(&env)["export_id"], id, "the claim knew it");
}

#[test]
fn what_would_keep_the_files_from_this_machine_is_found_before_the_submit() {
    let env = world();
    let home = env.home.path().to_owned();
    let refused = |line: &str, check: &str| {
        let run = env.line(&format!("{line} --output json")).ends_with(3);
        let findings = run.error_json()["findings"].clone();
        let failed: Vec<&str> = findings
            .as_array()
            .expect("findings")
            .iter()
            .filter(|finding| finding["verdict"] == "fail")
            .map(|finding| finding["check"].as_str().expect("a name"))
            .collect();
        assert_eq!(failed, [check], "{line}");
        env.assert_submits(0);
    };
    fs::write(home.join("file"), "").expect("a file");
    refused(&LINE.replace("here", "file"), "download-folder");
    refused(&LINE.replace("here", "file/below"), "download-folder");
    let snapshot = env.cloud.change(|world| {
        let image = world.image_mut("img-small").expect("the image");
        image.disks[0].snapshot_id.to_string()
    });
    for name in [
        format!("p_img-small_system_{snapshot}.raw"),
        "p_img-small.cvm-export.json".to_owned(),
    ] {
        fs::create_dir_all(folder(&env)).expect("a folder");
        fs::write(folder(&env).join(&name), "mine").expect("a file");
        refused(LINE, "download-folder");
        assert_eq!(
            fs::read(folder(&env).join(&name)).expect("the file"),
            b"mine"
        );
        fs::remove_dir_all(folder(&env)).expect("removed");
    }
    env.cloud
        .change(|world| world.denied.insert("GetObject".to_owned()));
    // The leases are read with the same right, and the failed check is told first.
    env.line(LINE)
        .ends_with(3)
        .says("the leases in the bucket could not be read");
    refused(&format!("{LINE} --no-claim"), "download-right");
    assert!(!folder(&env).exists(), "checks make no folder");
    env.cloud.change(|world| world.denied.clear());
    // A look without a submit says the same.
    env.line(&format!("{LINE} --dry-run")).ends_with(0);
    assert!(!folder(&env).exists(), "checks make no folder");
}

#[test]
fn force_replaces_what_stands_in_the_way() {
    let env = world();
    fs::create_dir_all(folder(&env)).expect("a folder");
    fs::write(folder(&env).join("p_img-small.cvm-export.json"), "mine").expect("a file");
    let run = env
        .line(&format!("{LINE} --force --output json"))
        .ends_with(0);
    arrived(&env, &run);
    assert_eq!(record(&env)["image_id"], "img-small");
}

#[test]
fn the_record_of_another_export_is_left_alone() {
    let env = world();
    let run = env
        .line("image --id img-small --bucket exports --prefix p --output json")
        .ends_with(0);
    let id = run.json()["export_id"].as_str().expect("an id").to_owned();
    fs::create_dir_all(folder(&env)).expect("a folder");
    let path = folder(&env).join("p_img-small.cvm-export.json");
    fs::write(&path, "mine").expect("a file");
    env.line(&format!("download {id} --to here"))
        .ends_with(9)
        .says("it is no record of an export");
    assert_eq!(fs::read(&path).expect("the file"), b"mine");
    assert_eq!(fetches(&env), 0, "records alone were read");
}

#[test]
fn an_interrupted_download_is_gone_on_with_by_the_same_command() {
    let env = world();
    let line = format!("{LINE} --limit-rate 1MiB --output json");
    let running = env.start(&line.split_whitespace().collect::<Vec<_>>());
    wait_for_fetches(&env, 12);
    running.signal("INT");
    let run = running
        .wait()
        .ends_with(130)
        .says("what has arrived is kept");
    assert_eq!(run.json()["state"], "complete", "the export itself is done");
    assert!(run.json()["files"][0]["local_path"].is_null());
    let before = fetches(&env);
    let run = env
        .line(&format!("{LINE} --output json"))
        .ends_with(0)
        .says("going on with");
    arrived(&env, &run);
    env.assert_submits(1);
    let again = fetches(&env) - before;
    assert!(again < 80, "{again} of 80: less than all is to be fetched");
    // Once it has all arrived, the files are an earlier export's, as ever.
    let before = fetches(&env);
    env.line(&format!("{LINE} --if-exists fail"))
        .ends_with(3)
        .says("name-collision");
    env.line(LINE).ends_with(0);
    assert_eq!(fetches(&env), before, "all of it is here");
    env.assert_submits(1);
}

#[test]
#[cfg(unix)]
fn what_has_arrived_of_a_part_is_kept_too() {
    use std::os::unix::fs::MetadataExt;
    let env = world();
    env.cloud.change(|world| {
        let bytes: Vec<u8> = (0..4_u32 << 20).map(|n| (n % 251) as u8 | 1).collect();
        world.put_object("exports-1250000000", "one-part.raw", bytes);
    });
    let line = "download cos://exports/one-part.raw --to here/";
    let running = env.start(
        &format!("{line} --limit-rate 1MiB")
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let part = folder(&env).join("one-part.raw.cvm-part");
    crate::support::wait_until(
        || "some bytes of the only part".to_owned(),
        || fs::metadata(&part).is_ok_and(|metadata| metadata.blocks() > 512),
    );
    running.signal("INT");
    running.wait().ends_with(130);
    let run = env.line(line).ends_with(0).says("going on with");
    assert!(
        !run.stderr.contains(": 0 of 4194304 bytes are there"),
        "{}",
        run.stderr
    );
    assert!(
        fs::read(folder(&env).join("one-part.raw")).expect("the file")
            == object(&env, "one-part.raw")
    );
}

#[test]
fn a_download_that_fails_takes_nothing_from_the_export() {
    let env = world();
    let wrong = Fault {
        key: None,
        occurrence: None,
        ..fault("GetObject", Effect::FlippedByte { at: 5 })
    };
    env.cloud.set_faults(vec![wrong]);
    let run = env
        .line(&format!("{LINE} --no-claim --output json"))
        .ends_with(8)
        .says("the bucket holds");
    assert_eq!(run.json()["state"], "complete");
    assert!(run.json()["files"][0]["local_path"].is_null());
    assert!(names(&env).is_empty(), "{:?}", names(&env));
    env.cloud.set_faults(Vec::new());
    let run = env
        .line(&format!("{LINE} --no-claim --output json"))
        .ends_with(0);
    arrived(&env, &run);
    env.assert_submits(1);
}

#[test]
fn an_object_that_was_replaced_since_is_not_taken_for_the_export() {
    let env = world();
    let run = env
        .line("image --id img-small --bucket exports --prefix p --output json")
        .ends_with(0);
    let key = run.json()["files"][0]["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    let id = run.json()["export_id"].as_str().expect("an id").to_owned();
    env.cloud
        .change(|world| world.put_object("exports-1250000000", &key, b"another".to_vec()));
    env.line(&format!("download {id} --to here/"))
        .ends_with(3)
        .says("has been replaced by another object");
    env.run(&["download", &format!("cos://exports/{key}"), "--to", "here/"])
        .ends_with(0);
}

#[test]
fn several_images_arrive_in_one_folder() {
    let env = world();
    add_image(&env, "img-other", DISK_BYTES);
    let line = LINE.replace("--id img-small", "--id img-small,img-other");
    env.line(&line).ends_with(2);
    env.line(&line.replace("--prefix p", "--prefix {image_id}/p"))
        .ends_with(2)
        .says("both");
    env.assert_submits(0);
    let run = env
        .line(&format!(
            "{} --output json",
            line.replace("--prefix p", "--prefix p-{image_id}")
        ))
        .ends_with(0);
    for item in run.json()["items"].as_array().expect("items") {
        let key = item["files"][0]["key"].as_str().expect("a key");
        let seen = fs::read(folder(&env).join(key)).expect("the file");
        assert!(seen == object(&env, key), "the bytes of {key} differ");
    }
    assert_eq!(names(&env).len(), 4);
}

#[test]
fn more_than_100_gb_of_raw_disk_are_worth_a_word_before_they_are_fetched() {
    let env = world();
    add_image(&env, "img-large", 120 << 30);
    let line = LINE.replace("img-small", "img-large");
    env.line(&format!("{line} --dry-run"))
        .ends_with(0)
        .says("--format qcow2");
    env.line(&format!("{line} --dry-run --format qcow2"))
        .ends_with(0)
        .does_not_say("GB of raw disk");
    let running = env.start(&line.split_whitespace().collect::<Vec<_>>());
    wait_for_fetches(&env, 1);
    running.signal("INT");
    running
        .wait()
        .ends_with(130)
        .says("128 GB of raw disk to fetch");
}

#[test]
fn flags_of_a_download_want_one() {
    let env = world();
    for flag in [
        "--sha256",
        "--force",
        "--part-size 8MiB",
        "--limit-rate 1MiB",
    ] {
        env.line(&format!("image --id img-small --bucket exports {flag}"))
            .ends_with(2)
            .says("--download");
    }
    env.line(&format!("{LINE} --no-wait"))
        .ends_with(2)
        .says("--no-wait");
    env.assert_submits(0);
}

#[test]
fn one_object_that_fails_hides_none_of_the_others() {
    let env = world();
    env.cloud.change(|world| {
        for key in ["first.raw", "last.raw"] {
            world.put_object("exports-1250000000", key, key.as_bytes().to_vec());
        }
    });
    let run = env
        .line("download cos://exports/first.raw cos://exports/none.raw cos://exports/last.raw --to here/ --output json")
        .ends_with(10)
        .says("there is no object `none.raw`");
    let items = run.json()["items"].clone();
    assert_eq!(items[0]["local_path"], "here/first.raw");
    assert_eq!(items[1]["key"], "none.raw");
    assert_eq!(items[1]["error"]["exit_code"], 3);
    assert_eq!(items[2]["local_path"], "here/last.raw");
    assert_eq!(names(&env), ["first.raw", "last.raw"]);
}

#[test]
fn a_download_that_is_owed_is_not_exported_over() {
    let env = world();
    let line = format!("{LINE} --if-exists overwrite --yes");
    let running = env.start(
        &format!("{line} --limit-rate 1MiB")
            .split_whitespace()
            .collect::<Vec<_>>(),
    );
    wait_for_fetches(&env, 12);
    running.signal("KILL");
    drop(running.wait());
    let run = env.line(&format!("{line} --output json")).ends_with(0);
    arrived(&env, &run);
    env.assert_submits(1);
    // Once it has arrived, the same words ask for a new export.
    env.line(&format!("{line} --force")).ends_with(0);
    env.assert_submits(2);
}

#[test]
fn a_list_of_checksums_that_is_not_ours_is_left_alone() {
    let env = world();
    let run = env
        .line("image --id img-small --bucket exports --prefix p --output json")
        .ends_with(0);
    let id = run.json()["export_id"].as_str().expect("an id").to_owned();
    fs::create_dir_all(folder(&env)).expect("a folder");
    let path = folder(&env).join("p_img-small.sha256");
    fs::write(&path, "mine").expect("a file");
    env.line(&format!("download {id} --to here --sha256"))
        .ends_with(9)
        .says("p_img-small.sha256");
    assert_eq!(fs::read(&path).expect("the file"), b"mine");
}

/// A download that was killed midway: the environment and the partial file.
fn killed() -> (TestEnv, PathBuf) {
    let env = world();
    let running = env.start(
        &"image --id img-small --bucket exports --prefix p --poll-interval 100ms --part-size 64KiB --download here --limit-rate 1MiB"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    env.wait_for_calls("GetObject", 20);
    running.signal("KILL");
    drop(running.wait());
    let name = names(&env)
        .into_iter()
        .find(|name| name.ends_with(".cvm-part"))
        .expect("a partial file");
    let path = folder(&env).join(name);
    (env, path)
}

#[test]
fn damage_anywhere_in_what_an_earlier_run_left_is_found_and_mended() {
    let (env, part) = killed();
    // Behind everything that is looked at before the download goes on.
    let ledger = part.with_extension("cvm-part.json");
    let text = fs::read_to_string(&ledger).expect("the ledger");
    let mut head: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let bytes = object(
        &env,
        part.file_stem()
            .and_then(|name| name.to_str())
            .expect("a name"),
    );
    let crc = |range: std::ops::Range<usize>| cvm_export::crc64::Crc64::of(&bytes[range]).0;
    head["synced"] = serde_json::json!([[0, 131_072, crc(0..131_072)]]);
    head["recent"] = serde_json::json!([[65_536, 131_072, crc(65_536..131_072)]]);
    fs::write(&ledger, format!("{head}\n")).expect("a ledger");
    let mut damaged = bytes[..131_072].to_vec();
    damaged[1000] ^= 1;
    damaged.resize(bytes.len(), 0);
    fs::write(&part, damaged).expect("a partial file");
    let run = env
        .line(&format!("{LINE} --output json"))
        .ends_with(0)
        .says("every part is fetched once more");
    arrived(&env, &run);
}

#[test]
#[cfg(unix)]
fn links_in_the_place_of_partial_files_lead_nowhere() {
    let (env, part) = killed();
    let precious = env.home.path().join("precious");
    fs::write(&precious, "mine").expect("a file");
    fs::remove_file(&part).expect("removed");
    std::os::unix::fs::symlink(&precious, &part).expect("a link");
    env.line(LINE).ends_with(9).says("it is a link");
    fs::remove_file(&part).expect("removed");
    fs::hard_link(&precious, &part).expect("a link");
    env.line(LINE).ends_with(9).says("a second name");
    fs::remove_file(&part).expect("removed");
    let mut new = part.clone().into_os_string();
    new.push(".json.new");
    std::os::unix::fs::symlink(&precious, &new).expect("a link");
    env.line(LINE).ends_with(0);
    assert_eq!(fs::read(&precious).expect("the file"), b"mine");
    // A file that only looks like a partial one.
    let other = folder(&env).join("other.raw.cvm-part");
    fs::write(&other, "mine").expect("a file");
    env.cloud
        .change(|world| world.put_object("exports-1250000000", "other.raw", b"theirs".to_vec()));
    env.line("download cos://exports/other.raw --to here")
        .ends_with(9)
        .says("no ledger beside it");
    assert_eq!(fs::read(&other).expect("the file"), b"mine");
}
