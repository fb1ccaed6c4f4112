//! Never lost, never doubled: lost answers, killed runs, lost homes, two runs at once, signals.

use cvm_export::simulator::{Effect, Naming, Options};

use crate::support::{Run, TestEnv, fault, files_below, wait_until};

const LINE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";

fn words() -> Vec<&'static str> {
    LINE.split(' ').collect()
}

fn world(naming: Naming, export_seconds: f64) -> TestEnv {
    let env = TestEnv::with(Options {
        naming,
        ..Options::default()
    });
    env.cloud
        .change(|world| world.export_seconds = Some(export_seconds));
    env
}

/// The states of all records of this world's journal.
fn states(env: &TestEnv) -> Vec<String> {
    let records = files_below(&env.state_folder().join("exports"));
    let states = records
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "json"));
    states
        .filter_map(|(_, text)| {
            let record: serde_json::Value = serde_json::from_str(text).ok()?;
            Some(record["state"].as_str()?.to_owned())
        })
        .collect()
}

#[track_caller]
fn is_one_export(env: &TestEnv, run: &Run) {
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stderr);
    assert!(
        run.stdout.starts_with("cos://exports-1250000000/p_"),
        "{}",
        run.stdout
    );
    env.assert_submits(1);
}

#[test]
fn an_answer_that_was_lost_after_processing_is_looked_for_and_never_asked_for_again() {
    let effects = [
        Effect::ProcessedThenReset,
        Effect::StatusAfter { status: 502 },
        Effect::EmptyBody,
        Effect::Garbage,
        Effect::TruncatedBody { after_bytes: 20 },
    ];
    for naming in [Naming::Api, Naming::Console] {
        for effect in &effects {
            let env = world(naming, 0.5);
            env.cloud
                .set_faults(vec![fault("ExportImages", effect.clone())]);
            let run = env.line(LINE).ends_with(0);
            assert!(
                run.stderr.contains("the answer to the submit was lost"),
                "{effect:?}: {}",
                run.stderr
            );
            is_one_export(&env, &run);
            // And the next run knows that it is done.
            env.line(&format!("{LINE} --if-exists reuse")).ends_with(0);
            env.assert_submits(1);
        }
    }
}

#[test]
fn a_lost_answer_without_any_sign_ends_as_unknown_and_only_resubmit_starts_anew() {
    let env = world(Naming::Api, 0.0);
    env.cloud
        .set_faults(vec![fault("ExportImages", Effect::Status { status: 502 })]);
    let run = env
        .line(&format!("{LINE} --timeout 600ms --output json"))
        .ends_with(11);
    assert_eq!(run.json()["state"], "unknown");
    run.says("--resubmit");
    env.cloud.set_faults(Vec::new());
    env.line(&format!("{LINE} --timeout 600ms")).ends_with(11);
    env.assert_submits(1);
    env.line(&format!("{LINE} --resubmit")).ends_with(0);
    env.assert_submits(2);
}

#[test]
fn a_reset_in_place_of_an_answer_proves_nothing_and_nothing_is_sent_again() {
    let env = world(Naming::Api, 0.0);
    env.cloud
        .set_faults(vec![fault("ExportImages", Effect::ResetBefore)]);
    env.line(&format!("{LINE} --timeout 600ms")).ends_with(11);
    env.assert_submits(1);
}

#[test]
fn a_run_that_is_killed_while_the_cloud_thinks_is_attached_to_by_the_next() {
    for keeps_home in [true, false] {
        for naming in [Naming::Api, Naming::Console] {
            let mut env = world(naming, 1.0);
            env.cloud.set_faults(vec![fault(
                "ExportImages",
                Effect::DelayBefore { milliseconds: 1500 },
            )]);
            let running = env.start(&words());
            env.wait_for_calls("PutObject", 1);
            wait_until(
                || format!("intended, {:?}", states(&env)),
                || states(&env) == ["intended"],
            );
            // The submit is on its way, or about to be.
            std::thread::sleep(std::time::Duration::from_millis(300));
            running.signal("KILL");
            running.wait().ends_with(137);
            if !keeps_home {
                env.lose_home();
            }
            let run = env.line(LINE).ends_with(0).says("taking up exp-");
            is_one_export(&env, &run);
        }
    }
}

#[test]
fn a_run_that_is_killed_after_the_cloud_answered_is_attached_to_by_the_next() {
    for keeps_home in [true, false] {
        let mut env = world(Naming::Api, 2.0);
        env.cloud.set_faults(vec![fault(
            "ExportImages",
            Effect::DelayAfter { milliseconds: 400 },
        )]);
        let running = env.start(&words());
        env.wait_for_calls("ExportImages", 1);
        running.signal("KILL");
        running.wait().ends_with(137);
        if !keeps_home {
            env.lose_home();
        }
        let run = env.line(LINE).ends_with(0);
        is_one_export(&env, &run);
    }
}

#[test]
fn a_run_that_is_killed_while_watching_is_attached_to_by_the_next() {
    for keeps_home in [true, false] {
        let mut env = world(Naming::Console, 2.0);
        let running = env.start(&words());
        wait_until(
            || format!("submitted, {:?}", states(&env)),
            || states(&env) == ["submitted"],
        );
        // The claim is completed after the submit.
        env.wait_for_calls("PutObject", 2);
        running.signal("KILL");
        running.wait().ends_with(137);
        if !keeps_home {
            env.lose_home();
        }
        let run = env.line(LINE).ends_with(0).says(if keeps_home {
            "known from the journal"
        } else {
            "known from the claim"
        });
        is_one_export(&env, &run);
    }
}

#[test]
fn kills_at_twenty_moments_never_lead_to_a_second_submit() {
    for step in 0..20_u64 {
        let mut env = world(
            if step % 2 == 0 {
                Naming::Api
            } else {
                Naming::Console
            },
            0.3,
        );
        let running = env.start(&words());
        std::thread::sleep(std::time::Duration::from_millis(step * 8));
        running.signal("KILL");
        drop(running.wait());
        if step % 3 == 0 {
            env.lose_home();
        }
        let submits = env.calls("ExportImages");
        let run = env.line(&format!("{LINE} --timeout 10s --if-exists reuse"));
        // Nothing known about the submit and nothing in the bucket ends as 11, never in another submit.
        match run.code {
            0 => is_one_export(&env, &run),
            11 => env.assert_submits(submits),
            code => panic!("kill after {} ms: exit {code}\n{}", step * 8, run.stderr),
        }
    }
}

#[test]
fn two_runs_at_once_with_a_slow_cloud_submit_once_and_both_get_the_files() {
    let env = world(Naming::Api, 0.5);
    env.cloud.set_faults(vec![fault(
        "ExportImages",
        Effect::DelayBefore { milliseconds: 800 },
    )]);
    let runs: Vec<_> = (0..3).map(|_| env.start(&words())).collect();
    for running in runs {
        let run = running.wait().ends_with(0);
        is_one_export(&env, &run);
    }
}

#[test]
fn two_machines_at_once_submit_once_where_the_claim_is_honoured() {
    let env = world(Naming::Api, 1.0);
    let other_home = tempfile::tempdir().expect("a folder");
    env.cloud.set_faults(vec![fault(
        "ExportImages",
        Effect::DelayBefore { milliseconds: 800 },
    )]);
    let first = env.start(&words());
    env.wait_for_calls("PutObject", 1);
    let mut second = env.command(&words());
    second.env("HOME", other_home.path());
    let second = second.spawn().expect("the binary starts");
    let first = first.wait().ends_with(0);
    is_one_export(&env, &first);
    let second = second.wait_with_output().expect("an end");
    assert!(
        second.status.success(),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&second.stdout), first.stdout);
    env.assert_submits(1);
}

#[test]
fn signals_end_the_watch_in_order_and_the_export_goes_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        let env = world(Naming::Api, 1.5);
        let mut arguments = words();
        arguments.extend(["--output", "json"]);
        let running = env.start(&arguments);
        wait_until(
            || format!("submitted, {:?}", states(&env)),
            || states(&env) == ["submitted"],
        );
        running.signal(signal);
        let run = running
            .wait()
            .ends_with(code)
            .says("watch again: cvm-export wait");
        assert_eq!(run.json()["state"], "running");
        let run = env.line(LINE).ends_with(0);
        is_one_export(&env, &run);
    }
}

#[test]
fn a_signal_during_the_submit_waits_for_its_answer() {
    let env = world(Naming::Api, 0.2);
    env.cloud.set_faults(vec![fault(
        "ExportImages",
        Effect::DelayBefore { milliseconds: 700 },
    )]);
    let running = env.start(&words());
    wait_until(
        || format!("intended, {:?}", states(&env)),
        || states(&env) == ["intended"],
    );
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.signal("INT");
    running
        .wait()
        .ends_with(130)
        .says("watch again: cvm-export wait");
    assert_eq!(states(&env), ["submitted"]);
    env.assert_submits(1);
}

#[test]
fn a_signal_before_the_submit_starts_nothing_and_is_heard_at_once() {
    for (slow, before) in [
        ("GetRole", "DescribeImages"),
        ("HeadBucket", "DescribeImages"),
    ] {
        let env = world(Naming::Api, 0.0);
        env.cloud.set_faults(vec![fault(
            slow,
            Effect::DelayBefore {
                milliseconds: 30_000,
            },
        )]);
        let running = env.start(&words());
        env.wait_for_calls(before, 1);
        let start = std::time::Instant::now();
        running.signal("TERM");
        running
            .wait()
            .ends_with(143)
            .prints("")
            .says("nothing was started");
        assert!(start.elapsed().as_secs() < 20, "{slow} held the run up");
        env.assert_submits(0);
        env.cloud.set_faults(Vec::new());
        env.line(LINE).ends_with(0);
        env.assert_submits(1);
    }
}

#[test]
fn a_signal_before_the_submit_is_an_object_for_scripts() {
    let env = world(Naming::Api, 0.0);
    env.cloud.set_faults(vec![fault(
        "GetRole",
        Effect::DelayBefore {
            milliseconds: 30_000,
        },
    )]);
    let mut arguments = words();
    arguments.extend(["--output", "json"]);
    let running = env.start(&arguments);
    env.wait_for_calls("DescribeImages", 1);
    running.signal("INT");
    let json = running.wait().ends_with(130).json();
    assert_eq!(json["state"], "checked");
    assert!(json["export_id"].is_null());
    assert_eq!(json["reattach"], serde_json::json!([]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_before_the_export_begins_is_an_object_for_scripts_too() {
    let env = world(Naming::Api, 0.0);
    let documented: Vec<String> = {
        let json = env.line(&format!("{LINE} --output json")).ends_with(0);
        let json = json.json();
        json.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let image = "image --id img-linux001 --bucket exports --prefix";
    let cases = [
        (format!("{image} q"), "GetService", None),
        (
            format!("{image} {{image_name}}"),
            "DescribeImages",
            Some("exports-1250000000"),
        ),
        (
            format!("{image} q --dry-run"),
            "GetRole",
            Some("exports-1250000000"),
        ),
        (
            "wait --bucket exports --prefix q".to_owned(),
            "GetService",
            None,
        ),
        (
            "wait --bucket exports --prefix q".to_owned(),
            "ListObjects",
            Some("exports-1250000000"),
        ),
    ];
    for (line, slow, bucket) in cases {
        let before = env.calls(slow);
        env.cloud
            .set_faults(vec![crate::support::delayed(slow, 30_000)]);
        let line = format!("{line} --output json");
        let running = env.start(&line.split(' ').collect::<Vec<_>>());
        running.wait_for_ears();
        if slow != "GetService" {
            env.wait_for_calls("GetService", before + 1);
        }
        // A call is in the log only after the delay; by now it is on its way.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let start = std::time::Instant::now();
        running.signal("TERM");
        let run = running.wait().ends_with(143);
        assert!(start.elapsed().as_secs() < 20, "{line}: {slow} held it up");
        let json = run.json();
        let keys: Vec<String> = json
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        assert_eq!(keys, documented, "{line}");
        assert_eq!(json["state"], "checked", "{line}");
        assert!(json["export_id"].is_null(), "{line}");
        assert_eq!(json["bucket"].as_str(), bucket, "{line}");
        assert_eq!(json["region"].is_null(), bucket.is_none(), "{line}");
        assert_eq!(run.error_json()["kind"], "interrupted", "{line}");
    }
    let line = format!("{image} {{image_name}}-{{image_id}} --id img-multi002 --output json");
    env.cloud
        .set_faults(vec![crate::support::delayed("DescribeImages", 30_000)]);
    let before = env.calls("GetService");
    let running = env.start(&line.split(' ').collect::<Vec<_>>());
    env.wait_for_calls("GetService", before + 1);
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.signal("INT");
    let json = running.wait().ends_with(130).json();
    assert_eq!(json["schema"], "cvm-export.exports.v1");
    for item in json["items"].as_array().expect("items") {
        assert_eq!(item["state"], "checked");
        assert_eq!(item["error"]["kind"], "interrupted");
    }
    let tasks = env.cloud.change(|world| world.started_tasks().len());
    assert_eq!(tasks, 1, "the first run's alone");
}

#[test]
fn a_second_signal_ends_at_once_and_says_where_to_go_on() {
    // The lease's update after the submit is slow, and the run waits for it: it is the third put, after the
    // one that creates the lease and the one that must be refused.
    let env = world(Naming::Api, 1000.0);
    let slow = Effect::DelayBefore {
        milliseconds: 30_000,
    };
    env.cloud.set_faults(vec![
        fault("PutObject", slow)
            .with_key("p_*.lease-*")
            .with_occurrence(3),
    ]);
    let mut arguments = words();
    arguments.extend(["--output", "json"]);
    let running = env.start(&arguments);
    wait_until(
        || format!("submitted, {:?}", states(&env)),
        || states(&env) == ["submitted"],
    );
    let start = std::time::Instant::now();
    twice(&running);
    let run = running
        .wait()
        .says("goes on in the cloud")
        .says("watch again: cvm-export wait --region ap-guangzhou");
    // The first signal leaves the lease a second at most; the run may have ended before the second one comes.
    assert!([130, 143].contains(&run.code), "{}", run.code);
    assert!(start.elapsed().as_secs() < 15, "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["state"], "running");
    assert!(json["export_id"].is_string() && json["task_id"].is_u64());
    assert_eq!(json["bucket"], "exports-1250000000");
    assert_eq!(json["prefix"], "p");
    let reattach: Vec<String> = serde_json::from_value(json["reattach"].clone()).expect("words");
    env.cloud.set_faults(Vec::new());
    env.cloud.change(|world| world.export_seconds = Some(0.0));
    let words: Vec<&str> = reattach[1..].iter().map(String::as_str).collect();
    let words = [&words[..], &["--timeout", "500ms"]].concat();
    env.run(&words).ends_with(6);
    env.assert_submits(1);
}

#[test]
fn a_second_signal_while_the_submit_is_on_its_way_does_not_claim_that_nothing_was_started() {
    let env = world(Naming::Api, 0.2);
    env.cloud
        .set_faults(vec![crate::support::delayed("ExportImages", 8_000)]);
    let mut arguments = words();
    arguments.extend(["--output", "json"]);
    let running = env.start(&arguments);
    wait_until(
        || format!("intended, {:?}", states(&env)),
        || states(&env) == ["intended"],
    );
    std::thread::sleep(std::time::Duration::from_millis(200));
    twice(&running);
    let run = running.wait().ends_with(143).says("is not known");
    let json = run.json();
    assert_eq!(json["state"], "unknown");
    assert_eq!(json["reattach"], serde_json::json!([]));
    // What it says is true: the same command looks.
    let run = env.line(LINE).ends_with(0);
    is_one_export(&env, &run);
}

/// SIGINT, and SIGTERM once that has been heard: two of one kind could become one.
fn twice(running: &crate::support::Running) {
    running.signal("INT");
    std::thread::sleep(std::time::Duration::from_millis(400));
    running.signal("TERM");
}

#[test]
fn no_durable_place_for_the_journal_means_no_submit() {
    let mut env = world(Naming::Api, 0.0);
    let file = env.home.path().join("occupied");
    std::fs::write(&file, "a file").expect("a file");
    env.set("CVM_EXPORT_STATE_DIR", &file.display().to_string());
    env.line(LINE).ends_with(9).says("nothing was submitted");
    env.assert_submits(0);
}

#[test]
fn a_damaged_record_of_the_same_export_stops_the_run() {
    let env = world(Naming::Api, 30.0);
    env.line(&format!("{LINE} --no-wait")).ends_with(0);
    let records = files_below(&env.state_folder().join("exports"));
    std::fs::write(&records[0].0, "{ torn").expect("a file");
    env.line(LINE).ends_with(9).says("cannot be read");
    env.assert_submits(1);
}

#[test]
fn without_the_right_to_put_the_journal_stands_alone_and_says_so() {
    let env = world(Naming::Api, 0.0);
    env.cloud
        .change(|world| world.denied.insert("PutObject".to_owned()));
    let run = env
        .line(LINE)
        .ends_with(0)
        .says("only this machine's journal knows");
    is_one_export(&env, &run);
}
