//! Two machines want the same export, and one of them is held at each of its calls in turn.
//!
//! Machine B starts first and is held at one call. Machine A then runs to its end, and B goes on. The calls are those
//! of a recorded run, from the first look to the end of the submit, so a new call adds its rows. The account takes one
//! task at a time here: a submit that comes while another export runs shows in the call log as refused.

use std::time::Duration;

use cvm_export::simulator::{Effect, Naming, Options};

use crate::support::TestEnv;
use crate::support::machine::{Machine, Place, Problems, all_right};

const LINE: &str =
    "image --id img-linux001 --bucket exports --prefix p --poll-interval 100ms --output json";
const STEM: &str = "p_img-linux001";
/// Longer than any run here takes that is not held.
const PATIENT: &str = "--timeout 30s";
/// How long A waits for signs of an export that B may have sent, and has not.
const SHORT: &str = "--timeout 700ms";
const EXPORT_SECONDS: f64 = 0.25;

/// What the two machines meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Fresh,
    /// A complete export under the same names.
    Complete,
    /// One that `files rm` has deleted.
    Removed,
    /// A machine was killed after its submit.
    DeadAfterSubmit,
    /// A machine was killed just before its submit, minutes ago.
    DeadBeforeSubmit,
    /// The same, longer ago than an attempt must be to be given up.
    LongDead,
    /// A machine was killed while it queued, so long ago that any run may give it up.
    LongQueued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Reuse,
    Fail,
    Overwrite,
    Resubmit,
}

impl Wish {
    fn flags(self) -> &'static str {
        match self {
            Self::Reuse => "--if-exists reuse",
            Self::Fail => "--if-exists fail",
            Self::Overwrite => "--if-exists overwrite --yes",
            Self::Resubmit => "--resubmit",
        }
    }
}

/// Where B is held.
#[derive(Clone, Debug)]
enum Held {
    Before(Place),
    /// The call is processed, and its answer waits: what B knows by it grows old.
    After(Place),
}

#[derive(Clone, Debug)]
struct Case {
    past: Past,
    wish: Wish,
    naming: Naming,
    held: Held,
}

fn world(naming: Naming, past: Past) -> TestEnv {
    let env = TestEnv::with(Options {
        naming,
        ..Options::default()
    });
    env.cloud.change(|world| {
        world.export_seconds = Some(EXPORT_SECONDS);
        world.task_limit = 1;
    });
    let earlier = Machine::new(&env);
    let pass = |seconds: i64| {
        env.cloud
            .change(|world| world.clock_offset_seconds += seconds);
    };
    match past {
        Past::Fresh => {}
        Past::Complete => drop(earlier.line(LINE).ends_with(0)),
        Past::Removed => {
            earlier.line(LINE).ends_with(0);
            earlier
                .line("files rm --bucket exports --older-than 0s --include-newest --yes -q")
                .ends_with(0);
        }
        Past::DeadAfterSubmit => {
            let number = point(naming, "after submit");
            earlier.crash(LINE, number).ends_with(137);
            // Its files are there when the two come, so that they make the same calls each time.
            std::thread::sleep(Duration::from_secs_f64(EXPORT_SECONDS + 0.05));
        }
        Past::DeadBeforeSubmit | Past::LongDead => {
            let number = point(naming, "before submit");
            earlier.crash(LINE, number).ends_with(137);
            pass(match past {
                Past::LongDead => 16 * 60,
                _ => 0,
            });
        }
        Past::LongQueued => {
            env.cloud.change(|world| world.task_limit = 0);
            let queued = earlier.start(LINE);
            crate::support::wait_until(
                || format!("a queued lease, {:?}", env.lease_states(STEM)),
                || env.lease_states(STEM) == ["queued"],
            );
            queued.signal("KILL");
            queued.wait().ends_with(137);
            env.cloud.change(|world| world.task_limit = 1);
            pass(16 * 60);
        }
    }
    env.cloud.clear_calls();
    env
}

/// The number of the crash point of this name in a plain run.
fn point(naming: Naming, name: &str) -> usize {
    let env = world(naming, Past::Fresh);
    let (_, points) = Machine::new(&env).points(LINE);
    let place = points.iter().position(|point| point == name);
    place.expect("the point") + 1
}

/// The calls of a run in this world, up to the end of its submit.
fn places(past: Past, wish: Wish, naming: Naming) -> Vec<Place> {
    let env = world(naming, past);
    drop(Machine::new(&env).line(&line(wish, SHORT)));
    let calls = env.cloud.calls();
    let submit = calls
        .iter()
        .rposition(|call| call.operation == "ExportImages");
    let places = Place::all(&calls);
    match submit {
        Some(last) => places[..=last].to_vec(),
        None => places,
    }
}

fn line(wish: Wish, timeout: &str) -> String {
    format!("{LINE} {} {timeout}", wish.flags())
}

/// How often the cloud has started an export of this world.
fn started(env: &TestEnv, before: usize) -> usize {
    env.tasks() - before
}

fn race(case: &Case) -> Vec<String> {
    let mut problems = Problems::default();
    let env = world(case.naming, case.past);
    let (before, leases) = (env.tasks(), env.leases(STEM).len());
    let hold = "b".to_owned();
    env.cloud.set_faults(vec![match &case.held {
        Held::Before(place) => place.fault(Effect::Hold { name: hold }),
        Held::After(place) => place.fault(Effect::HoldAfter { name: hold }),
    }]);
    let (a, b) = (Machine::new(&env), Machine::new(&env));
    // Only B has a reason to wait long.
    let patience = match case.past {
        Past::DeadBeforeSubmit => SHORT,
        _ => PATIENT,
    };
    let mut held = b.start(&line(case.wish, patience));
    if !env.is_held_before_end("b", &mut held) {
        let run = held.wait();
        return vec![format!(
            "B was never held, and ended with {}: {}",
            run.code, run.stderr
        )];
    }
    // Whether B is where its lease keeps A from beginning, and whether its export runs.
    let has_lease = env.leases(STEM).len() > leases;
    let has_started = started(&env, before) > 0;
    let is_unknown = case.past == Past::DeadBeforeSubmit;
    let is_blocked = (has_lease && !has_started) || is_unknown;
    let first = a.line(&line(case.wish, if is_blocked { SHORT } else { PATIENT }));
    let by_first = started(&env, before);
    env.cloud.release("b");
    let second = held.wait();

    // What the rules say of each.
    let had_files = matches!(case.past, Past::Complete | Past::DeadAfterSubmit);
    let is_begun = case.past == Past::DeadAfterSubmit;
    let (first_code, second_code, right) = match case.wish {
        _ if is_unknown => (11, 11, 0),
        Wish::Fail if case.past == Past::Complete => (3, 3, 0),
        Wish::Fail if is_blocked => (11, 0, 1),
        Wish::Fail if has_started => (0, 0, 1),
        Wish::Fail if is_begun => (0, 0, 0),
        Wish::Fail => (0, 3, 1),
        Wish::Overwrite if is_blocked => (11, 0, 1),
        Wish::Overwrite if has_started => (0, 0, 1),
        // B decides anew once A's files are complete, and was asked to export over them.
        Wish::Overwrite => (0, 0, 2),
        Wish::Reuse | Wish::Resubmit if had_files => (0, 0, 0),
        Wish::Reuse | Wish::Resubmit if is_blocked => (11, 0, 1),
        Wish::Reuse | Wish::Resubmit => (0, 0, 1),
    };
    problems.ends("A", &first, first_code);
    problems.ends("B", &second, second_code);
    problems.equal("exports that were started", started(&env, before), right);
    problems.equal(
        "submits that came while another export ran",
        env.overlapping_submits(),
        0,
    );
    problems.expect(by_first <= 1, || format!("A alone started {by_first}"));
    let is_twice = case.wish == Wish::Overwrite && right == 2;
    let runs = [("A", &first, &a), ("B", &second, &b)];
    for (who, run, machine) in runs.into_iter().filter(|(_, run, _)| run.code == 0) {
        problems.equal(
            &format!("state of {who}"),
            &run.json()["state"],
            &"complete".into(),
        );
        let states = machine.states();
        let is_over = |state: &String| !["queued", "intended", "submitted"].contains(&&**state);
        problems.expect(states.iter().all(is_over), || {
            format!("journal of {who}: {states:?}")
        });
    }
    if first.code == 0 && second.code == 0 {
        let (one, other) = (first.json(), second.json());
        let is_same = one["export_id"] == other["export_id"];
        problems.expect(is_same != is_twice, || {
            format!(
                "A has {} and B has {}",
                one["export_id"], other["export_id"]
            )
        });
    }
    let states = env.lease_states(STEM);
    let is_open = |state: &String| ["queued", "intended", "submitted"].contains(&&**state);
    let open = states.iter().filter(|state| is_open(state)).count();
    problems.expect(open == usize::from(is_unknown), || {
        format!("leases {states:?}")
    });
    if !is_unknown {
        // What a fresh machine makes of it.
        let third = Machine::new(&env).line(&line(Wish::Reuse, PATIENT));
        problems.ends("a third machine", &third, 0);
        if third.code == 0 {
            problems.equal("reused", &third.json()["reused"], &true.into());
        }
        problems.equal("exports in the end", started(&env, before), right);
    }
    problems.0
}

/// One row for each call, or for each second one, beginning with the call `first`.
fn rows(past: Past, wish: Wish, naming: Naming, first: usize, step: usize) -> Vec<Case> {
    let places = places(past, wish, naming);
    // A watch looks again and again, as often as there is time.
    let is_early = |place: &Place| place.occurrence <= 2;
    let places = places.into_iter().skip(first).step_by(step);
    let held = places.filter(is_early).map(Held::Before);
    held.map(|held| Case {
        past,
        wish,
        naming,
        held,
    })
    .collect()
}

#[test]
fn two_machines_submit_once_wherever_one_of_them_is_held() {
    let mut all = Vec::new();
    for (past, wish) in [
        (Past::Fresh, Wish::Reuse),
        (Past::Complete, Wish::Overwrite),
    ] {
        let api = rows(past, wish, Naming::Api, 0, 1);
        let after = api.iter().filter_map(|case| match &case.held {
            Held::Before(place) => Some(Case {
                held: Held::After(place.clone()),
                ..case.clone()
            }),
            Held::After(_) => None,
        });
        all.extend(after.collect::<Vec<_>>());
        all.extend(api);
        all.extend(rows(past, wish, Naming::Console, 0, 1));
    }
    for (past, wish) in [
        (Past::Fresh, Wish::Fail),
        (Past::Fresh, Wish::Overwrite),
        (Past::Complete, Wish::Reuse),
        (Past::Complete, Wish::Fail),
        (Past::Removed, Wish::Reuse),
        (Past::DeadAfterSubmit, Wish::Reuse),
        (Past::DeadBeforeSubmit, Wish::Reuse),
        (Past::LongDead, Wish::Resubmit),
        (Past::LongQueued, Wish::Reuse),
    ] {
        // The name of the files makes no difference to where a run is held.
        all.extend(rows(past, wish, Naming::Api, 0, 2));
        all.extend(rows(past, wish, Naming::Console, 1, 2));
    }
    let title = |case: &Case| format!("{case:?}");
    all_right("races", &all, title, race);
}
