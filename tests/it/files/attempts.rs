//! `files rm` as an attempt between machines: nothing is deleted while another machine may export it, nothing is exported
//! over what another machine deletes, and a removal that died blocks nobody for ever.

use cvm_export::simulator::{Effect, Fault};

use crate::support::{Run, Running, TestEnv, fault, wait_until};

const RM: &str = "files rm --bucket exports --older-than 0s --include-newest --yes";
const IMAGE: &str = "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms";
/// The leases of that export end with a number.
const LEASE_2: &str = "p_img-linux001.cvm-export.lease-raw-2.json";

fn hold(name: &str) -> Effect {
    Effect::Hold {
        name: name.to_owned(),
    }
}

fn hold_after(name: &str) -> Effect {
    Effect::HoldAfter {
        name: name.to_owned(),
    }
}

fn begin(env: &TestEnv, line: &str) -> Running {
    env.start(&line.split(' ').collect::<Vec<_>>())
}

/// A world with one export, made by its machine.
fn exported() -> TestEnv {
    let env = TestEnv::new();
    env.export("img-linux001", "p", "");
    env
}

/// A removal of its machine that was killed while its first delete was under way.
fn killed(delete: Effect) -> TestEnv {
    let env = exported();
    env.cloud
        .set_faults(vec![fault("DeleteMultipleObjects", delete)]);
    let running = begin(&env, RM);
    env.wait_held("delete");
    running.signal("KILL");
    running.wait().ends_with(137);
    assert_eq!(
        env.attempt_states(),
        ["export complete", "removal intended"]
    );
    env
}

#[test]
fn what_another_machine_may_be_exporting_stays() {
    for is_listed_before in [false, true] {
        let env = exported();
        let keys = env.keys();
        let other = env.elsewhere();
        // Without an occurrence, a hold that is released keeps no further call.
        env.cloud.set_faults(vec![
            Fault::new("ExportImages", hold("submit")),
            Fault::new("HeadObject", hold("listed")).with_key("*.cvm-export.json"),
        ]);
        let removing = is_listed_before.then(|| {
            let removing = begin(&other, RM);
            env.wait_held("listed");
            removing
        });
        let exporting = begin(&env, &format!("{IMAGE} --if-exists overwrite --yes"));
        env.wait_held("submit");
        // Neither a record nor an upload shows it.
        assert_eq!(env.attempt_states(), ["export complete", "export intended"]);
        env.cloud.release("listed");
        let refused = |run: Run| {
            let run = run
                .ends_with(10)
                .says("attempt 2 (run exp-")
                .says("may be exporting it");
            assert_eq!(run.stdout, "");
        };
        match removing {
            Some(removing) => refused(removing.wait()),
            None => refused(other.line(RM)),
        }
        // That is for removals that died.
        refused(other.line(&format!("{RM} --resubmit")));
        assert_eq!(env.keys(), keys);
        assert_eq!(env.calls("DeleteMultipleObjects"), 0);
        assert_eq!(env.attempt_states(), ["export complete", "export intended"]);

        env.cloud.release("submit");
        exporting.wait().ends_with(0);
        env.assert_submits(2);
        other.line(RM).ends_with(0);
        assert!(env.keys().is_empty());
    }
}

#[test]
fn an_export_waits_for_the_end_of_a_removal_of_another_machine() {
    let env = exported();
    env.cloud
        .set_faults(vec![Fault::new("DeleteMultipleObjects", hold("delete"))]);
    let removing = begin(&env, RM);
    env.wait_held("delete");
    assert_eq!(
        env.attempt_states(),
        ["export complete", "removal intended"]
    );
    let other = env.elsewhere();
    // The files are still there, and not the result.
    for flags in ["", " --if-exists overwrite --yes"] {
        let line = format!("{IMAGE} --timeout 1s --output json{flags}");
        let run = other.line(&line).ends_with(11);
        assert_eq!(run.json()["state"], "unknown");
        run.says("deletes the files of this export, and has not ended");
    }
    let before = env.calls_with("GetObject", LEASE_2);
    let exporting = begin(&other, IMAGE);
    wait_until(
        || "looks at the removal".to_owned(),
        || env.calls_with("GetObject", LEASE_2) >= before + 4,
    );
    env.assert_submits(1);
    env.cloud.release("delete");
    removing.wait().ends_with(0);
    exporting.wait().ends_with(0).says("waiting for it");
    env.assert_submits(2);
    assert_eq!(env.keys().len(), 2, "{:?}", env.keys());
    let leases = ["export complete", "removal removed", "export complete"];
    assert_eq!(env.attempt_states(), leases);
}

#[test]
fn a_removal_that_was_killed_is_ended_by_the_next_of_its_machine() {
    for delete in [hold("delete"), hold_after("delete")] {
        let env = killed(delete);
        env.line(RM).ends_with(0);
        assert!(env.keys().is_empty());
        let leases = ["export complete", "removal removed", "removal removed"];
        assert_eq!(env.attempt_states(), leases);
    }
}

#[test]
fn a_removal_that_was_killed_is_ended_by_the_next_export_of_its_machine() {
    for (delete, is_deleted) in [(hold("delete"), false), (hold_after("delete"), true)] {
        let env = killed(delete);
        let run = env.line(&format!("{IMAGE} --output json")).ends_with(0);
        let outcome = run.json();
        assert_eq!(outcome["state"], "complete");
        assert_eq!(outcome["reused"], !is_deleted);
        env.assert_submits(1 + usize::from(is_deleted));
        assert_eq!(env.keys().len(), 2, "{:?}", env.keys());
        assert_eq!(env.attempt_states()[1], "removal removed");
    }
}

#[test]
fn another_machine_takes_over_from_a_dead_removal_after_half_an_hour() {
    for by_image in [false, true] {
        let env = killed(hold("delete"));
        let other = env.elsewhere();
        let refused = |flags: &str, hint: &str| {
            other
                .line(&format!("{RM}{flags}"))
                .ends_with(10)
                .says("attempt 2 (run rm-")
                .says("is deleting it")
                .says("`--resubmit` takes over after 30 minutes");
            other
                .line(&format!(
                    "{IMAGE} --if-exists overwrite --yes --timeout 1s{flags}"
                ))
                .ends_with(11)
                .says("deletes the files of this export")
                .says(hint);
        };
        let (dead, soon) = ("if it is dead, `--resubmit` abandons it", "minutes");
        refused("", dead);
        refused(" --resubmit", soon);
        env.pass(29 * 60);
        refused("", dead);
        refused(" --resubmit", "in 1 minutes");
        env.pass(2 * 60);
        refused("", dead);
        assert_eq!(
            env.attempt_states(),
            ["export complete", "removal intended"]
        );
        assert_eq!(env.keys().len(), 2);
        match by_image {
            false => {
                other.line(&format!("{RM} --resubmit")).ends_with(0);
                assert!(env.keys().is_empty());
                env.assert_submits(1);
                assert_eq!(
                    env.attempt_states()[1..],
                    ["removal abandoned", "removal removed"]
                );
            }
            true => {
                let line = format!("{IMAGE} --resubmit --if-exists overwrite --yes");
                other
                    .line(&line)
                    .ends_with(0)
                    .says("attempt 2 (run rm-")
                    .says("is abandoned");
                env.assert_submits(2);
                assert_eq!(
                    env.attempt_states()[1..],
                    ["removal abandoned", "export complete"]
                );
            }
        }
        // The machine of the dead one has nothing to end any more.
        env.line(RM).ends_with(0);
        assert!(env.keys().is_empty());
    }
}

#[test]
fn a_delete_is_sent_again_only_while_its_removal_is_not_given_up() {
    let env = exported();
    let refused = Effect::CosError {
        status: 503,
        code: "SlowDown".to_owned(),
    };
    env.cloud.set_faults(vec![
        fault("DeleteMultipleObjects", refused),
        // It is created, and created again, which is refused.
        Fault::new("PutObject", hold("renewal"))
            .with_key(LEASE_2)
            .with_occurrence(3),
    ]);
    let removing = begin(&env, RM);
    env.wait_held("renewal");
    assert_eq!(env.calls("DeleteMultipleObjects"), 1);
    env.pass(31 * 60);
    let other = env.elsewhere();
    other.line(&format!("{RM} --resubmit")).ends_with(0);
    other.line(IMAGE).ends_with(0);
    let keys = env.keys();
    let deletes = env.calls("DeleteMultipleObjects");
    env.cloud.release("renewal");
    removing
        .wait()
        .ends_with(10)
        .says("another run has begun to export or delete it meanwhile");
    assert_eq!(env.calls("DeleteMultipleObjects"), deletes);
    assert_eq!(env.keys(), keys);
    assert_eq!(
        env.attempt_states()[1..],
        ["removal abandoned", "removal removed", "export complete"]
    );
}
