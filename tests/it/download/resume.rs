//! A run that ended early is gone on with, and what it left is believed only where it is right.

use std::fs;
use std::time::Duration;

use sha2::Digest;

use super::{BUCKET, Case, PART, noise, patchy};

#[test]
fn runs_that_are_killed_at_any_moment_are_gone_on_with_and_lose_only_what_was_on_its_way() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let case = Case::new(patchy(512 * PART));
    let connections = 4;
    let flags = format!("--concurrency {connections} --limit-rate 8MiB");
    let line = format!("download cos://exports/folder/disk.raw --part-size 64KiB {flags}");
    let words: Vec<_> = line.split(' ').collect();
    let mut kills = 0;
    while kills < 20 && !case.target().exists() {
        let running = case.env.start(&words);
        std::thread::sleep(Duration::from_millis(random.u64(1..200)));
        running.signal("KILL");
        drop(running.wait());
        kills += 1;
        // What has the final name is whole, whenever that was.
        if let Ok(seen) = fs::read(case.target()) {
            assert!(seen == case.bytes, "unverified (seed {seed}, kill {kills})");
        }
    }
    let run = case.fetch(&format!("--concurrency {connections}"));
    assert_eq!(run.code, 0, "seed {seed}, {kills} kills\n{}", run.stderr);
    case.has_arrived();
    let asked: u64 = case.ranges().iter().map(|(start, end)| end - start).sum();
    let lost = (kills * connections * PART) as u64;
    assert!(
        asked <= case.bytes.len() as u64 + lost,
        "{asked} bytes were asked for (seed {seed}, {kills} kills)"
    );
}

#[test]
fn what_an_earlier_run_left_is_only_used_where_it_is_right() {
    let part = |case: &Case| case.env.home.path().join("disk.raw.cvm-part");
    let ledger = |case: &Case| case.env.home.path().join("disk.raw.cvm-part.json");
    let interrupted = || {
        let case = Case::new(noise(64 * PART));
        let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 4MiB";
        let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
        case.env.wait_for_calls("GetObject", 12);
        running.signal("INT");
        running
            .wait()
            .ends_with(130)
            .says("what has arrived is kept");
        case
    };
    // With other settings.
    let case = interrupted();
    let calls = case.env.calls("GetObject");
    case.env
        .line("download cos://exports/folder/disk.raw --part-size 128KiB --concurrency 2")
        .ends_with(0)
        .says("going on with");
    assert!(
        case.env.calls("GetObject") - calls < 33,
        "less than all was fetched"
    );
    case.has_arrived();
    // A torn ledger, one of a later version, one of another object, a part file that has changed.
    let case = interrupted();
    fs::write(ledger(&case), "{\"schema\":\"cvm-exp").expect("a file");
    case.fetch("").ends_with(0).says("starting anew");
    case.has_arrived();
    let case = interrupted();
    fs::write(ledger(&case), "{\"schema\":\"cvm-export.ledger.v9\"}\n").expect("a file");
    case.fetch("").ends_with(9).says("later version");
    case.fetch("--force").ends_with(0);
    case.has_arrived();
    let mut case = interrupted();
    case.bytes.reverse();
    let bytes = case.bytes.clone();
    case.env
        .cloud
        .change(|world| world.put_object(BUCKET, "folder/disk.raw", bytes));
    case.fetch("")
        .ends_with(0)
        .says("of another object; starting anew");
    case.has_arrived();
    let case = interrupted();
    fs::write(part(&case), vec![9; 64 * PART]).expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
    let case = interrupted();
    fs::remove_file(part(&case)).expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn nothing_stays_of_a_run_that_was_killed_while_it_wrote_its_ledger_or_at_its_very_end() {
    let case = Case::new(noise(20 * PART));
    let beside = |suffix: &str| case.env.home.path().join(format!("disk.raw{suffix}"));
    fs::write(beside(".cvm-part.json.new"), "{\"schema\":\"cvm").expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
    // The file has its name, and the ledger was still to be taken away.
    fs::write(beside(".cvm-part.json"), "{\"schema\":\"cvm").expect("a file");
    fs::write(beside(".cvm-part.json.new"), "").expect("a file");
    case.fetch("").ends_with(0);
    case.has_arrived();
}

#[test]
fn a_byte_that_was_lost_at_the_end_of_what_was_synced_is_found_before_anything_is_fetched() {
    let case = Case::new(noise(64 * PART));
    let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 4MiB --concurrency 1";
    let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
    case.env.wait_for_calls("GetObject", 20);
    running.signal("INT");
    running.wait().ends_with(130);
    let path = case.env.home.path().join("disk.raw.cvm-part");
    let mut bytes = fs::read(&path).expect("the partial file");
    bytes[15 * PART + 7] ^= 1;
    fs::write(&path, bytes).expect("a file");
    case.fetch("")
        .ends_with(0)
        .says("has changed; starting anew");
    case.has_arrived();
}

#[test]
fn a_byte_that_was_lost_early_is_found_at_the_end_with_and_without_a_checksum_of_cos() {
    for (crc_missing, words) in [
        (false, "the bucket holds"),
        (true, "is not on the disk as it arrived"),
    ] {
        let case = Case::new(noise(200 * PART));
        case.env
            .cloud
            .change(|world| world.crc_missing = crc_missing);
        let line = "download cos://exports/folder/disk.raw --part-size 64KiB --limit-rate 8MiB --concurrency 1";
        let running = case.env.start(&line.split(' ').collect::<Vec<_>>());
        case.env.wait_for_calls("GetObject", 90);
        running.signal("INT");
        running.wait().ends_with(130);
        // More parts came after it than are looked at before a run goes on.
        let path = case.env.home.path().join("disk.raw.cvm-part");
        let mut bytes = fs::read(&path).expect("the partial file");
        bytes[7] ^= 1;
        fs::write(&path, bytes).expect("a file");
        let run = case
            .fetch("--sha256 --output json")
            .ends_with(0)
            .says(words);
        case.has_arrived();
        let sum = hex::encode(sha2::Sha256::digest(&case.bytes));
        assert_eq!(run.json()["items"][0]["sha256"], sum.as_str());
    }
}
