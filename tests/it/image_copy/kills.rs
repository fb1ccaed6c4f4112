//! Wherever a run is killed, the next one goes on: nothing is started or deleted twice.

use cvm_export::simulator::{Effect, Fault};

use super::{ACROSS, changes, is_one_of_each, start, states, wait_for_states, world};
use crate::support::{Run, TestEnv, fault, files_below, wait_until};

/// Call number `occurrence` of `operation` waits before it is processed.
fn held(operation: &str, occurrence: u64, milliseconds: u64) -> Fault {
    Fault {
        key: None,
        occurrence: Some(occurrence.try_into().expect("a small number")),
        ..fault(operation, Effect::DelayBefore { milliseconds })
    }
}

/// Waits until a call of `operation` has come, answered or not.
fn wait_until_begun(env: &TestEnv, operation: &str) {
    wait_until(
        || format!("a call of {operation}"),
        || env.cloud.begun_calls(operation) > 0,
    );
}

/// Kills the run of [`ACROSS`] once `is_there` holds under `faults`, runs it again without them, and
/// fails unless all was done once.
fn killed_and_run_again(
    what: &str,
    seconds: (f64, f64),
    faults: Vec<Fault>,
    is_there: impl Fn(&TestEnv),
    settle: impl Fn(&TestEnv),
) -> Run {
    let env = world();
    env.cloud.change(|world| {
        (world.copy_seconds, world.export_seconds) = (Some(seconds.0), Some(seconds.1));
    });
    env.cloud.set_faults(faults);
    let running = start(&env, ACROSS);
    is_there(&env);
    running.signal("KILL");
    running.wait().ends_with(137);
    settle(&env);
    env.cloud.set_faults(Vec::new());
    let run = env.line(ACROSS);
    assert_eq!(run.code, 0, "killed {what}:\n{}", run.stderr);
    is_one_of_each(&env);
    run
}

#[test]
fn a_kill_while_the_copy_is_on_its_way_makes_no_second_one() {
    killed_and_run_again(
        "before the cloud took the copy",
        (0.0, 0.0),
        vec![held("SyncImages", 1, 1000)],
        |env| {
            wait_until_begun(env, "SyncImages");
            wait_for_states(env, &["open", "intended"]);
        },
        |_| (),
    );
    let effect = Effect::DelayAfter { milliseconds: 1000 };
    killed_and_run_again(
        "before the answer came",
        (0.0, 0.0),
        vec![fault("SyncImages", effect)],
        |env| env.wait_for_calls("SyncImages", 1),
        |_| (),
    );
}

#[test]
fn a_kill_while_the_copy_is_made_or_ready_goes_on_with_it() {
    killed_and_run_again(
        "while the copy was made",
        (1.5, 0.0),
        Vec::new(),
        |env| wait_for_states(env, &["open", "copying"]),
        |_| (),
    );
    killed_and_run_again(
        "before the export",
        (0.0, 0.0),
        vec![held("DescribeSnapshots", 2, 20_000)],
        |env| wait_for_states(env, &["open", "ready"]),
        |_| (),
    );
}

#[test]
fn a_kill_during_the_export_goes_on_with_it_and_deletes_the_copy() {
    let run = killed_and_run_again(
        "while the export was on its way",
        (0.0, 0.5),
        vec![held("ExportImages", 1, 1000)],
        |env| {
            wait_for_states(env, &["open", "ready"]);
            let intended = || {
                let exports = files_below(&env.state_folder().join("exports"));
                exports
                    .iter()
                    .any(|(_, text)| text.contains("\"intended\""))
            };
            wait_until(|| "an intended export".to_owned(), intended);
            wait_until_begun(env, "ExportImages");
        },
        |_| (),
    );
    run.says("taking up exp-");
    killed_and_run_again(
        "while the export ran",
        (0.0, 1.5),
        Vec::new(),
        |env| {
            let submitted = || {
                let exports = files_below(&env.state_folder().join("exports"));
                exports
                    .iter()
                    .any(|(_, text)| text.contains("\"submitted\""))
            };
            wait_until(|| "a submitted export".to_owned(), submitted);
        },
        |_| (),
    );
}

#[test]
fn a_kill_around_the_deletion_deletes_once() {
    for effect in [
        Effect::DelayBefore { milliseconds: 1000 },
        Effect::DelayAfter { milliseconds: 1000 },
    ] {
        killed_and_run_again(
            "around the deletion",
            (0.0, 0.0),
            vec![fault("DeleteImages", effect)],
            |env| {
                wait_for_states(env, &["exported", "ready"]);
                wait_until_begun(env, "DeleteImages");
            },
            // The call is in the cloud's hands and will be carried out.
            |env| env.wait_for_calls("DeleteImages", 1),
        );
    }
}

#[test]
fn kills_at_many_moments_never_double_anything() {
    let in_no_time = || {
        let env = world();
        env.cloud.change(|world| {
            (world.copy_seconds, world.export_seconds) = (Some(0.1), Some(0.1));
        });
        env
    };
    let undisturbed = in_no_time();
    undisturbed.line(ACROSS).ends_with(0);
    let calls = undisturbed.cloud.calls().len();
    for step in 0..16 {
        let env = in_no_time();
        let running = start(&env, ACROSS);
        // How often it looks differs from run to run, so it may be done before that.
        wait_until(
            || format!("call {step}/16 of {calls}"),
            || env.cloud.calls().len() >= calls * step / 16 || states(&env) == ["over", "removed"],
        );
        running.signal("KILL");
        drop(running.wait());
        let sent = changes(&env);
        let run = env.line(&format!("{ACROSS} --timeout 5s --if-exists reuse"));
        // A call that may have been sent, and nothing that shows it: never sent once more.
        match run.code {
            0 => is_one_of_each(&env),
            11 => assert_eq!(changes(&env), sent, "kill number {step}: {}", run.stderr),
            code => panic!("kill number {step}: exit {code}\n{}", run.stderr),
        }
    }
}
