//! Searches the orders in which the calls of several machines can happen, for a second submit and for all else that the
//! rules exclude; and leaves rules out, to show that the search would find what they prevent.

#![expect(clippy::print_stdout, reason = "counts and traces")]

mod explorer;
mod graph;
mod machine;
mod scenario;

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Attempt, Kind, LeaseState, Number, Rule};
use explorer::Explorer;
use machine::{Body, End, IfExists, Job, Orders, Run, Without, World, name};
use scenario::{Budget, Export, Past, Scenario, Searched};

/// States of one scenario beyond which its bounds are wrong.
const LIMIT: usize = 3_000_000;

const IMAGE: Orders = Orders {
    job: Job::Image,
    if_exists: IfExists::Reuse,
    is_resubmit: false,
    does_queue: false,
    may_crash: true,
    after: &[],
};
const RESUBMIT: Orders = Orders {
    is_resubmit: true,
    ..IMAGE
};
const OVERWRITE: Orders = Orders {
    if_exists: IfExists::Overwrite,
    ..IMAGE
};
const FAIL: Orders = Orders {
    if_exists: IfExists::Fail,
    ..IMAGE
};
const QUEUE: Orders = Orders {
    does_queue: true,
    ..IMAGE
};
const REMOVAL: Orders = Orders {
    job: Job::Removal,
    ..IMAGE
};
const WATCH: Orders = Orders {
    job: Job::Watch,
    may_crash: false,
    ..IMAGE
};

impl Scenario {
    fn new(name: &'static str, machines: &[Orders]) -> Self {
        Self {
            name,
            machines: machines.to_vec(),
            budget: Budget::default(),
            world: World::default(),
            leases: Vec::new(),
            file: None,
            exports: Vec::new(),
            numbers: 4,
            past: None,
        }
    }

    /// Crashes, lost answers, refusals, steps of the clock, failed exports.
    fn with(mut self, [crashes, lost, refusals, ticks, failures]: [u8; 5]) -> Self {
        self.budget = Budget {
            crashes,
            lost,
            refusals,
            ticks,
            failures,
        };
        self
    }

    fn numbers(mut self, numbers: Number) -> Self {
        self.numbers = numbers;
        self
    }

    /// A first export of the past is complete, and its file exists.
    fn after_an_export(mut self) -> Self {
        let run = self.past_run();
        self.leases = vec![Some(lease(run, LeaseState::Complete, 0))];
        self.file = Some(run);
        self.exports = vec![(run, Export::Complete)];
        self
    }

    fn past_run(&self) -> Run {
        Run::try_from(self.machines.len()).expect("few machines")
    }

    fn without(mut self, without: Without) -> Self {
        self.world.without = Some(without);
        self
    }

    fn search(&self) -> Searched {
        Explorer::new(self).search(LIMIT)
    }
}

fn lease(run: Run, state: LeaseState, floor: Number) -> Attempt<Body> {
    Attempt {
        run: name(run),
        kind: Kind::Export,
        state,
        floor,
        puts: 1,
        host: String::new(),
        body: None,
    }
}

/// A watch of the first attempt, stopped between its read and its write, while a second has replaced it.
fn stale_watch() -> Scenario {
    let mut scenario = Scenario::new("stale-watch", &[OVERWRITE, IMAGE, WATCH, REMOVAL]);
    let second = Attempt {
        body: Some(5),
        ..lease(4, LeaseState::Complete, 1)
    };
    scenario.leases = vec![Some(lease(5, LeaseState::Complete, 0)), Some(second)];
    scenario.file = Some(4);
    scenario.exports = vec![(4, Export::Complete), (5, Export::Complete)];
    scenario.past = Some((
        2,
        vec![
            Past::Found(1, 5, LeaseState::Complete),
            Past::Lease(lease(5, LeaseState::Submitted, 0)),
        ],
    ));
    scenario
}

/// Somebody deleted the first two leases; the third is of an export that runs.
fn cleaned() -> Scenario {
    let mut scenario = Scenario::new("cleaned", &[IMAGE]);
    scenario.leases = vec![None, None, Some(lease(1, LeaseState::Submitted, 2))];
    scenario.exports = vec![(1, Export::Runs)];
    scenario.world.does_list = true;
    scenario
}

fn last(orders: Orders) -> Orders {
    Orders {
        may_crash: false,
        ..orders
    }
}

/// Nobody knew of one another when they began, or they knew of an export that is complete.
fn exports() -> Vec<Scenario> {
    let mut tested = Scenario::new("header-test", &[IMAGE, IMAGE]).with([1, 1, 1, 0, 0]);
    tested.world.does_test_header = true;
    tested.world.does_list = true;
    vec![
        Scenario::new("fresh-2", &[IMAGE, IMAGE]).with([1, 2, 1, 1, 1]),
        Scenario::new("fresh-3", &[IMAGE, IMAGE, FAIL]).with([1, 1, 1, 0, 0]),
        Scenario::new("fresh-watch", &[IMAGE, IMAGE, WATCH]).with([1, 1, 1, 0, 1]),
        Scenario::new("overwrite", &[OVERWRITE, OVERWRITE, WATCH])
            .with([1, 1, 1, 1, 0])
            .after_an_export(),
        Scenario::new("overwrite-plain", &[OVERWRITE, IMAGE, WATCH])
            .with([1, 1, 1, 1, 1])
            .after_an_export(),
        Scenario::new("failed", &[IMAGE, IMAGE, WATCH, WATCH]).with([0, 0, 0, 0, 1]),
        tested,
        stale_watch(),
        cleaned(),
    ]
}

/// Attempts that wait, and attempts that are given up.
fn givings_up() -> Vec<Scenario> {
    vec![
        Scenario::new("resubmit", &[IMAGE, RESUBMIT]).with([1, 0, 1, 2, 0]),
        Scenario::new("resubmit-lost", &[IMAGE, RESUBMIT]).with([0, 1, 0, 1, 0]),
        resubmits(),
        Scenario::new("resubmit-watch", &[IMAGE, RESUBMIT, WATCH]).with([1, 0, 0, 1, 0]),
        Scenario::new("queue", &[QUEUE, RESUBMIT]).with([1, 0, 1, 1, 0]),
        Scenario::new("queue-2", &[QUEUE, QUEUE]).with([0, 0, 2, 1, 0]),
        Scenario::new("queue-lost", &[QUEUE, IMAGE]).with([0, 1, 1, 1, 0]),
        two_dead(),
    ]
}

/// Two users give up the same attempt, whose owner died after its send.
fn resubmits() -> Scenario {
    let scenario = Scenario::new("resubmit-2", &[RESUBMIT, RESUBMIT]);
    let mut scenario = scenario.with([1, 1, 1, 1, 0]);
    scenario.leases = vec![Some(lease(3, LeaseState::Intended, 0))];
    scenario.exports = vec![(3, Export::Runs)];
    scenario
}

fn two_dead() -> Scenario {
    let second = Orders {
        after: &[0],
        ..RESUBMIT
    };
    let third = Orders {
        after: &[0, 1],
        ..last(RESUBMIT)
    };
    Scenario::new("two-dead", &[IMAGE, second, third]).with([2, 0, 0, 3, 0])
}

fn removals() -> Vec<Scenario> {
    let then = Orders {
        after: &[0],
        ..last(IMAGE)
    };
    let again = Orders {
        is_resubmit: true,
        ..REMOVAL
    };
    vec![
        Scenario::new("removal-overwrite", &[OVERWRITE, REMOVAL, WATCH])
            .with([1, 1, 0, 1, 0])
            .after_an_export(),
        Scenario::new("removal-removal", &[REMOVAL, last(again), then])
            .with([1, 0, 0, 2, 0])
            .after_an_export(),
        Scenario::new("removal-resubmit", &[REMOVAL, RESUBMIT, WATCH])
            .with([1, 0, 0, 2, 0])
            .after_an_export(),
        Scenario::new("removal-queue", &[last(QUEUE), last(again), last(IMAGE)])
            .with([0, 0, 1, 1, 0])
            .numbers(3),
        late_submitted(),
    ]
}

/// The owner writes "submitted" after a watch has seen its file and a removal has deleted it.
fn late_submitted() -> Scenario {
    let after = Orders {
        after: &[2],
        ..last(IMAGE)
    };
    let machines = [last(IMAGE), WATCH, last(REMOVAL), after];
    Scenario::new("late-submitted", &machines)
}

/// The same with more of everything: some minutes.
fn deep() -> Vec<Scenario> {
    let again = Orders {
        is_resubmit: true,
        ..REMOVAL
    };
    vec![
        Scenario::new("resubmit", &[IMAGE, RESUBMIT]).with([1, 1, 1, 2, 0]),
        Scenario::new("resubmit-2", &[IMAGE, RESUBMIT, RESUBMIT]).with([1, 0, 0, 1, 0]),
        Scenario::new("resubmit-watch", &[IMAGE, RESUBMIT, WATCH]).with([1, 0, 0, 2, 0]),
        Scenario::new("queue", &[QUEUE, RESUBMIT]).with([1, 0, 1, 2, 0]),
        Scenario::new("queue-2", &[QUEUE, QUEUE]).with([1, 0, 2, 2, 0]),
        Scenario::new("removal-removal", &[REMOVAL, again, IMAGE])
            .with([1, 0, 0, 2, 0])
            .after_an_export(),
        Scenario::new("removal-queue", &[QUEUE, again, RESUBMIT]).with([0, 0, 1, 1, 0]),
        Scenario::new("all", &[OVERWRITE, IMAGE, REMOVAL, WATCH])
            .with([1, 0, 0, 0, 0])
            .after_an_export(),
    ]
}

/// Searches all, on two threads.
fn search_all(scenarios: &[Scenario]) {
    let (next, states, steps) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let violations = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                let begun = std::time::Instant::now();
                let found = scenario.search();
                states.fetch_add(found.states, Ordering::Relaxed);
                steps.fetch_add(found.steps, Ordering::Relaxed);
                println!(
                    "{}: {} states, {} steps, {} histories, {:.1?}",
                    scenario.name,
                    found.states,
                    found.steps,
                    found.histories,
                    begun.elapsed()
                );
                if let Some(violation) = found.violation {
                    let trace = violation.trace.join("\n  ");
                    let text = format!("{}: {}\n  {trace}", scenario.name, violation.what);
                    violations.lock().expect("no panic").push(text);
                }
            }
        };
        scope.spawn(work);
        scope.spawn(work);
    });
    let violations = violations.into_inner().expect("no panic");
    let (states, steps) = (states.into_inner(), steps.into_inner());
    let line = format!(
        "interleavings: {states} searched, {} violations",
        violations.len()
    );
    println!("{line} (distinct states, by {steps} steps)");
    if let Some(path) = std::env::var_os("CVM_EXPORT_COUNTS") {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("the counts can be written");
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn no_order_of_calls_submits_twice() {
    search_all(&[givings_up(), exports(), removals()].concat());
}

#[test]
#[ignore = "takes minutes"]
fn no_order_of_many_calls_submits_twice() {
    search_all(&deep());
}

/// A user gets past two owners that died.
#[test]
fn a_resubmit_gets_past_two_dead_owners() {
    let ends = two_dead().search().ends;
    let expected = [End::Crashed, End::Crashed, End::Submitted];
    assert!(ends.iter().any(|end| end[..] == expected), "{ends:?}");
}

/// Leaves a rule out of a scenario that is right with it.
#[track_caller]
fn is_needed(without: Without, scenario: Scenario, prevents: &[&str]) {
    let whole = scenario.search();
    assert!(whole.violation.is_none(), "with it: {:?}", whole.violation);
    let found = scenario.without(without).search().violation;
    let found = found.unwrap_or_else(|| panic!("nothing happens without {without:?}"));
    let trace = found.trace.join("\n  ");
    let steps = found.trace.len();
    println!(
        "without {without:?}: {} after {steps} steps\n  {trace}",
        found.what
    );
    let is_expected = prevents.iter().any(|kind| found.what.starts_with(kind));
    assert!(is_expected, "{}, not {prevents:?}", found.what);
}

fn resubmit(budget: [u8; 5]) -> Scenario {
    Scenario::new("resubmit", &[IMAGE, RESUBMIT]).with(budget)
}

#[test]
fn rule_2_row_before_files() {
    let scenario = Scenario::new("files", &[IMAGE, IMAGE, WATCH]);
    is_needed(Without::Order, scenario, &["S1"]);
}

#[test]
fn rule_2_floor() {
    is_needed(Without::Rule(Rule::Floor), late_submitted(), &["S2"]);
}

#[test]
fn rule_2_all_attempts_count() {
    let second = Orders {
        after: &[1],
        ..RESUBMIT
    };
    let scenario = Scenario::new("top", &[IMAGE, RESUBMIT, second]).with([1, 0, 0, 2, 0]);
    is_needed(Without::Rule(Rule::WholeRow), scenario, &["S1"]);
}

#[test]
fn rule_2_listing() {
    is_needed(Without::Rule(Rule::Listing), cleaned(), &["S1"]);
}

#[test]
fn rule_3_every_put_has_another_etag() {
    let rule = Without::Rule(Rule::CountedPuts);
    is_needed(rule, resubmit([0, 0, 0, 2, 0]), &["SR"]);
}

#[test]
fn rule_4_intended_is_open() {
    let scenario = Scenario::new("fresh", &[IMAGE, IMAGE]);
    is_needed(Without::Rule(Rule::IntendedIsOpen), scenario, &["S1"]);
}

#[test]
fn rule_4_own_lease_behind_409() {
    let scenario = Scenario::new("lost", &[IMAGE]).with([0, 1, 0, 0, 0]);
    is_needed(Without::Rule(Rule::OwnRun), scenario, &["11"]);
}

#[test]
fn rule_5_second_reading() {
    let rule = Without::Rule(Rule::SecondReading);
    is_needed(rule, resubmit([0, 0, 0, 2, 0]), &["S1", "SR"]);
}

#[test]
fn rule_5_second_reading_of_those_below() {
    let rule = Without::Rule(Rule::ReadBelow);
    is_needed(rule, resubmit([0, 0, 0, 2, 0]), &["S1", "SR"]);
}

#[test]
fn rule_6_signatures_expire() {
    is_needed(Without::Expiry, resubmit([0, 0, 0, 1, 0]), &["SR"]);
}

#[test]
fn rule_6_reading_before_a_further_send() {
    let scenario = Scenario::new("queue", &[QUEUE, RESUBMIT]).with([0, 0, 1, 1, 0]);
    is_needed(
        Without::Rule(Rule::ReadBeforeAgain),
        scenario,
        &["S1", "SR"],
    );
}

#[test]
fn rule_7_age() {
    let rule = Without::Rule(Rule::Age);
    is_needed(rule, resubmit([0, 0, 0, 1, 0]), &["S1", "SR"]);
}

#[test]
fn rule_7_files_are_judged_as_always() {
    let scenario = Scenario::new("files", &[REMOVAL, RESUBMIT]);
    let scenario = scenario.with([1, 0, 0, 2, 0]).after_an_export();
    is_needed(Without::FilesUnderResubmit, scenario, &["S1"]);
}

#[test]
fn rule_8_a_removal_is_an_attempt() {
    let scenario = Scenario::new("removal", &[OVERWRITE, REMOVAL]).after_an_export();
    is_needed(Without::RemovalIsAttempt, scenario, &["S3"]);
}
