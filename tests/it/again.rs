//! The same export again: what earlier runs and other machines left, and what of it counts.

use std::time::Duration;

use cvm_export::simulator::{Effect, Fault, Options};

use crate::support::{TestEnv, fault, files_below, wait_until};

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";

fn world(export_seconds: f64) -> TestEnv {
    let env = TestEnv::with(Options::default());
    env.cloud
        .change(|world| world.export_seconds = Some(export_seconds));
    env
}

fn always(operation: &str, effect: Effect) -> Fault {
    Fault {
        key: None,
        occurrence: None,
        ..fault(operation, effect)
    }
}

fn tasks(env: &TestEnv) -> usize {
    env.cloud.change(|world| world.started_tasks().len())
}

#[test]
fn a_record_of_last_week_never_answers_for_the_export_of_today() {
    let mut env = world(0.0);
    env.line(LINE).ends_with(0);
    let first_home = env.home.path().display().to_string();
    std::thread::sleep(Duration::from_millis(2100));
    env.cloud.change(|world| world.export_seconds = Some(4.0));
    let old_home = std::mem::replace(&mut env.home, tempfile::tempdir().expect("a folder"));
    let second_home = env.home.path().display().to_string();
    env.set("HOME", &second_home);
    let run = env
        .line(&format!(
            "{LINE} --if-exists overwrite --yes --no-wait --output json"
        ))
        .ends_with(0);
    let reattach: Vec<String> =
        serde_json::from_value(run.json()["reattach"].clone()).expect("words");
    let export_id = run.json()["export_id"].clone();
    // Back on the first machine, whose journal knows the older export as complete.
    env.set("HOME", &first_home);
    let words: Vec<&str> = reattach[1..].iter().map(String::as_str).collect();
    let json = env
        .run(&[&words[..], &["--output", "json"]].concat())
        .ends_with(0)
        .json();
    assert_eq!(
        json["export_id"], export_id,
        "the older export was taken for the newer one"
    );
    let by_prefix = env
        .line("wait --bucket exports --prefix p --output json")
        .ends_with(0)
        .json();
    assert_eq!(by_prefix["export_id"], export_id);
    drop(old_home);
}

#[test]
fn leaving_at_once_never_says_submitted_of_an_export_that_nobody_started() {
    for loses_home in [false, true] {
        let mut env = world(1.0);
        env.cloud.set_faults(vec![fault(
            "ExportImages",
            Effect::DelayBefore { milliseconds: 3000 },
        )]);
        let running = env.start(&LINE.split(' ').collect::<Vec<_>>());
        env.wait_for_calls("PutObject", 1);
        std::thread::sleep(Duration::from_millis(400));
        running.signal("KILL");
        drop(running.wait());
        // The kill broke the connection before the cloud took the call in.
        if loses_home {
            env.lose_home();
        }
        env.cloud.set_faults(Vec::new());
        let run = env.line(&format!("{LINE} --no-wait --timeout 800ms --output json"));
        match tasks(&env) {
            0 => assert_eq!(
                (run.code, run.json()["state"].as_str()),
                (11, Some("unknown"))
            ),
            _ => assert_eq!(run.code, 0, "{}", run.stderr),
        }
        assert!(env.calls("ExportImages") <= 1);
    }
}

#[test]
fn an_export_that_nobody_saw_complete_is_not_taken_for_the_next_one() {
    for loses_home in [false, true] {
        let mut env = world(0.0);
        let line = format!("{LINE} --no-wait --if-exists overwrite --yes --output json");
        let mut ids = Vec::new();
        for _ in 0..3 {
            let json = env.line(&line).ends_with(0).json();
            ids.push(json["export_id"].as_str().expect("an id").to_owned());
            if loses_home {
                env.lose_home();
            }
        }
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), tasks(&env)), (3, 3), "loses home: {loses_home}");
    }
    // Without the wish to export over it, the finished one is the result.
    let env = world(0.0);
    env.line(&format!("{LINE} --no-wait")).ends_with(0);
    let run = env.line(LINE).ends_with(0);
    assert_eq!(run.stdout.lines().count(), 1);
    assert_eq!(tasks(&env), 1);
}

#[test]
fn an_export_of_unknown_files_is_never_complete() {
    let unknown_disks = always(
        "DescribeImages",
        Effect::NullField {
            name: "SnapshotSet".to_owned(),
        },
    );
    let line = format!("{LINE} --skip-check disk-size --skip-check disk-count --timeout 2s");
    for (effect, code) in [
        (Effect::ProcessedThenReset, 11),
        (
            Effect::NullField {
                name: "CosPaths".to_owned(),
            },
            6,
        ),
    ] {
        let env = world(0.0);
        env.cloud
            .set_faults(vec![unknown_disks.clone(), fault("ExportImages", effect)]);
        env.line(&line)
            .ends_with(code)
            .prints("")
            .says("names of the files are not known");
        env.assert_submits(1);
    }
}

#[test]
fn leases_that_cannot_be_read_stop_the_run() {
    let mut env = world(5.0);
    env.line(&format!("{LINE} --no-wait")).ends_with(0);
    env.lose_home();
    env.cloud.change(|world| {
        world
            .denied
            .extend(["GetObject", "ListMultipartUploads"].map(str::to_owned));
    });
    env.line(LINE)
        .ends_with(4)
        .says("the leases in the bucket could not be read; nothing was submitted")
        .says("name/cos:GetObject")
        .says("--no-claim");
    env.assert_submits(1);
    env.cloud.change(|world| world.denied.clear());
    env.cloud
        .set_faults(vec![always("GetObject", Effect::Status { status: 503 })]);
    let run = env.line(&format!("{LINE} --if-exists overwrite --yes"));
    assert!([1, 3].contains(&run.code), "{}", run.stderr);
    env.assert_submits(1);
    // A lease of a later version counts as one that may run, and so does a record where no lease is.
    env.cloud.set_faults(Vec::new());
    for (prefix, end, schema) in [
        ("q", "lease-raw-1.json", "cvm-export.lease.v2"),
        ("r", "json", "cvm-export.record.v2"),
    ] {
        env.cloud.change(|world| {
            let text = format!(r#"{{"schema":"{schema}","state":"submitted"}}"#);
            let key = format!("{prefix}_img-linux001.cvm-export.{end}");
            world.put_object("exports-1250000000", &key, text);
        });
        env.line(&LINE.replace("--prefix p", &format!("--prefix {prefix}")))
            .ends_with(3)
            .says("newer cvm-export")
            .says(end);
    }
    env.assert_submits(1);
}

#[test]
fn of_two_machines_that_replace_an_old_claim_one_submits() {
    for versioned in [false, true] {
        let env = world(0.0);
        env.cloud.change(|world| {
            world
                .bucket_mut("exports-1250000000")
                .expect("the sample")
                .versioned = versioned;
        });
        if !versioned {
            env.line(LINE).ends_with(0);
        }
        let before = tasks(&env);
        env.cloud.change(|world| world.export_seconds = Some(6.0));
        env.cloud.set_faults(vec![always(
            "PutObject",
            Effect::DelayAfter { milliseconds: 300 },
        )]);
        let line = format!("{LINE} --if-exists overwrite --yes");
        let homes = [
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        ];
        let children: Vec<_> = homes
            .iter()
            .map(|home| {
                let mut command = env.command(&line.split(' ').collect::<Vec<_>>());
                command
                    .env("HOME", home.path())
                    .spawn()
                    .expect("the binary starts")
            })
            .collect();
        for child in children {
            let done = child.wait_with_output().expect("an end");
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        assert_eq!(tasks(&env) - before, 1, "versioned: {versioned}");
    }
}

#[test]
fn runs_that_waited_for_the_lock_take_what_its_holder_made() {
    for flags in ["", " --if-exists overwrite --yes"] {
        let env = world(0.0);
        env.cloud.set_faults(vec![fault(
            "ExportImages",
            Effect::DelayAfter { milliseconds: 5000 },
        )]);
        let line = format!("{LINE}{flags}");
        let runs: Vec<_> = (0..4)
            .map(|_| env.start(&line.split(' ').collect::<Vec<_>>()))
            .collect();
        for running in runs {
            let run = running.wait().ends_with(0);
            assert_eq!(run.stdout.lines().count(), 1);
        }
        env.assert_submits(1);
    }
}

#[test]
fn a_claim_that_was_put_though_its_answer_was_lost_is_brought_up_to_date() {
    let env = world(0.0);
    env.cloud.set_faults(vec![fault(
        "PutObject",
        Effect::StatusAfter { status: 503 },
    )]);
    env.line(LINE).ends_with(0);
    let claim = env.cloud.change(|world| {
        let object = world
            .object("exports-1250000000", "p_img-linux001.cvm-export.json")
            .expect("a claim");
        let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).expect("small")];
        object.content.read_at(0, &mut bytes).expect("readable");
        String::from_utf8(bytes).expect("JSON")
    });
    assert!(claim.contains("\"state\": \"complete\""), "{claim}");
}

#[test]
fn a_signal_between_attempts_starts_nothing_and_leaves_that_behind() {
    let env = world(0.0);
    let throttled = Effect::ApiError {
        code: "RequestLimitExceeded".to_owned(),
    };
    env.cloud
        .set_faults(vec![always("ExportImages", throttled)]);
    let running = env.start(&LINE.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("ExportImages", 3);
    running.signal("TERM");
    let run = running.wait().ends_with(143).says("nothing was started");
    drop(run);
    let submits = env.calls("ExportImages");
    let records = files_below(&env.state_folder().join("exports"));
    assert!(
        records[0].1.contains("\"state\": \"abandoned\""),
        "{}",
        records[0].1
    );
    env.cloud.set_faults(Vec::new());
    env.line(LINE).ends_with(0);
    assert_eq!(env.calls("ExportImages"), submits + 1);
}

#[test]
fn a_file_that_comes_while_a_run_queues_is_not_replaced_unasked() {
    let env = world(0.0);
    env.cloud.change(|world| world.other_tasks = 5);
    let line = format!("{LINE} --no-claim");
    let running = env.start(&line.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("ExportImages", 2);
    env.cloud.change(|world| {
        world.put_object("exports-1250000000", "p_xvda.raw", "somebody else's");
        world.other_tasks = 0;
    });
    let run = running.wait();
    // The file may have come just after a look and just before a submit; then nothing could be known.
    if tasks(&env) == 0 {
        run.ends_with(3).says("while this run waited its turn");
    }
}

#[test]
fn a_running_export_of_the_system_disk_is_not_the_whole_machine() {
    let env = world(1000.0);
    let line = "image --id img-multi002 --bucket exports --prefix p --no-wait";
    env.line(&format!("{line} --system-disk-only")).ends_with(0);
    env.line(line)
        .ends_with(3)
        .says("takes the system disk alone");
    env.line(&format!("{line} --system-disk-only")).ends_with(0);
    env.assert_submits(1);
}

#[test]
fn waiting_for_another_process_ends_with_the_timeout() {
    let env = world(0.0);
    env.cloud.change(|world| world.other_tasks = 5);
    let first = env.start(&LINE.split(' ').collect::<Vec<_>>());
    // Before it has heard that it must queue, its export may be running.
    let is_queued = || {
        let records = files_below(&env.state_folder().join("exports"));
        records.iter().any(|(_, text)| text.contains("\"queued\""))
    };
    wait_until(|| "a queued export".to_owned(), is_queued);
    env.line(&format!("{LINE} --no-queue"))
        .ends_with(5)
        .says("started nothing");
    env.line(&format!("{LINE} --timeout 500ms"))
        .ends_with(5)
        .says("started nothing");
    first.signal("TERM");
    drop(first.wait());
}

#[test]
fn writing_the_claim_does_not_hold_a_signal_up() {
    let env = world(0.0);
    env.cloud.set_faults(vec![fault(
        "PutObject",
        Effect::DelayBefore {
            milliseconds: 30_000,
        },
    )]);
    let running = env.start(&LINE.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("DescribeSnapshots", 1);
    std::thread::sleep(Duration::from_millis(500));
    let start = std::time::Instant::now();
    running.signal("TERM");
    running.wait().ends_with(143).says("nothing was started");
    assert!(start.elapsed() < Duration::from_secs(20));
    env.assert_submits(0);
}

#[test]
fn a_head_answer_that_is_no_object_completes_nothing() {
    let env = world(1000.0);
    // A portal that answers everything with a page: no ETag, no object.
    env.cloud.set_faults(vec![Fault {
        key: None,
        occurrence: Some(3),
        ..fault("HeadObject", Effect::Status { status: 200 })
    }]);
    env.line(&format!("{LINE} --timeout 1500ms")).ends_with(6);
}
