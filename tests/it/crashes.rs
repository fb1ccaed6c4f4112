//! A run is killed at each place before and after a durable write or a dangerous call, and is run again.
//!
//! The places are those of a recorded run (`src/crash.rs`), so a new write adds its rows. Each is tried twice: with the
//! next run on the same machine, and on another one.

use std::path::Path;

use cvm_export::simulator::{DiskSource, Effect, Options};

use crate::support::machine::{Machine, Problems, all_right};
use crate::support::{TestEnv, fault};

const STEM: &str = "p_img-small01";
const IMAGE: &str =
    "image --id img-small01 --bucket exports --prefix p --poll-interval 100ms --output json";
const REMOVE: &str = "files rm --bucket exports --older-than 0s --include-newest --yes -q";
const EXPORT_SECONDS: f64 = 0.2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Fresh,
    /// Over an old export.
    Overwrite,
    /// The cloud says "later" first.
    Queue,
    Download,
    /// `files rm`
    Removal,
}

impl Job {
    fn line(self) -> String {
        match self {
            Self::Fresh | Self::Queue => IMAGE.to_owned(),
            Self::Overwrite => format!("{IMAGE} --if-exists overwrite --yes"),
            Self::Download => format!("{IMAGE} --download d --sha256 --part-size 64KiB"),
            Self::Removal => REMOVE.to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    job: Job,
    number: usize,
    /// What the process is killed before or after.
    name: String,
    is_on_another_machine: bool,
}

/// Bytes without an end that look like nothing.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 1
    })
    .take(300 * 1024)
    .collect()
}

/// A world with one small image on `disk`.
fn world(disk: &Path) -> TestEnv {
    let env = TestEnv::with(Options {
        images: vec![(
            "img-small01".parse().expect("an id"),
            DiskSource::File(disk.to_owned()),
        )],
        ..Options::default()
    });
    env.cloud.change(|world| {
        world.export_seconds = Some(EXPORT_SECONDS);
        world.task_limit = 1;
    });
    env
}

/// What a job finds.
fn prepare(env: &TestEnv, machine: &Machine<'_>, job: Job) {
    match job {
        Job::Fresh | Job::Download => {}
        Job::Overwrite => drop(Machine::new(env).line(IMAGE).ends_with(0)),
        Job::Removal => drop(machine.line(IMAGE).ends_with(0)),
        Job::Queue => env.cloud.set_faults(vec![fault(
            "ExportImages",
            Effect::ApiError {
                code: "LimitExceeded.ExportImageTaskLimitExceeded".to_owned(),
            },
        )]),
    }
    env.cloud.clear_calls();
}

fn cases(disk: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for job in [
        Job::Fresh,
        Job::Overwrite,
        Job::Queue,
        Job::Download,
        Job::Removal,
    ] {
        let env = world(disk);
        let machine = Machine::new(&env);
        prepare(&env, &machine, job);
        let (run, points) = machine.points(&job.line());
        run.ends_with(0);
        assert!(points.len() > 5, "{job:?}: {points:?}");
        // Between "after" one write and "before" the next nothing is written: the one is tried with the same machine, the
        // other with another. The first and the last are tried with both.
        let last = points.len();
        for (number, name) in (1..).zip(points) {
            for is_on_another_machine in [false, true] {
                let is_its_turn = (number % 2 == 0) == is_on_another_machine;
                if is_its_turn || number == 1 || number == last {
                    cases.push(Case {
                        job,
                        number,
                        name: name.clone(),
                        is_on_another_machine,
                    });
                }
            }
        }
    }
    cases
}

fn pass_minutes(env: &TestEnv, minutes: i64) {
    env.cloud
        .change(|world| world.clock_offset_seconds += minutes * 60);
}

fn killed(case: &Case, disk: &Path) -> Vec<String> {
    let mut problems = Problems::default();
    let env = world(disk);
    let machine = Machine::new(&env);
    prepare(&env, &machine, case.job);
    let before = env.tasks();
    let ended = machine.crash(&case.job.line(), case.number);
    problems.ends("the run that was to be killed", &ended, 137);
    env.cloud.set_faults(Vec::new());
    let another = Machine::new(&env);
    let next = match case.is_on_another_machine {
        true => &another,
        false => &machine,
    };
    match case.job {
        Job::Removal => removal_goes_on(case, &env, next, &mut problems),
        _ => export_goes_on(case, &env, &machine, next, before, &mut problems),
    }
    problems.0
}

fn export_goes_on(
    case: &Case,
    env: &TestEnv,
    killed: &Machine<'_>,
    next: &Machine<'_>,
    before: usize,
    problems: &mut Problems,
) {
    let line = case.job.line();
    let is_accepted = env.tasks() > before;
    let leases = env.lease_states(STEM);
    let lease = match case.job {
        // The first is the old export's.
        Job::Overwrite => leases.get(1),
        _ => leases.first(),
    };
    let noted = killed.states().pop();
    // Nobody may know, only where the call may have been sent as far as is known there.
    let is_unknown = !is_accepted
        && match case.is_on_another_machine {
            true => lease.is_some_and(|state| state == "intended"),
            false => noted.as_deref() == Some("intended"),
        };
    // Another machine cannot know that the one that queues is dead; it has sent nothing.
    let is_queued = case.is_on_another_machine && lease.is_some_and(|state| state == "queued");
    let (code, timeout) = match (is_unknown, is_queued) {
        (true, _) => (11, "700ms"),
        (_, true) => (5, "700ms"),
        _ => (0, "30s"),
    };
    let run = next.line(&format!("{line} --timeout {timeout}"));
    problems.ends("the next run", &run, code);
    let started = env.tasks() - before;
    match (code != 0, case.job) {
        (true, _) => problems.equal("exports", started, 0),
        // Once the first is complete, the same command asks to export over it.
        (false, Job::Overwrite) if is_accepted => {
            problems.expect([1, 2].contains(&started), || format!("{started} exports"));
        }
        (false, _) => problems.equal("exports", started, 1),
    }
    if is_unknown {
        pass_minutes(env, 16);
        let run = next.line(&format!("{line} --resubmit --timeout 30s"));
        problems.ends("--resubmit", &run, 0);
        problems.equal("exports after --resubmit", env.tasks() - before, 1);
    }
    if is_queued {
        pass_minutes(env, 16);
        let run = next.line(&format!("{line} --timeout 30s"));
        problems.ends("the next run after 16 minutes", &run, 0);
        problems.equal("exports after 16 minutes", env.tasks() - before, 1);
    }
    problems.equal(
        "submits over a running export",
        env.overlapping_submits(),
        0,
    );
    if case.job == Job::Download {
        has_arrived(next, &run.stdout, is_unknown, problems);
    }
    let states = next.states();
    let is_over = |state: &String| !["queued", "intended", "submitted"].contains(&&**state);
    problems.expect(states.iter().all(is_over), || {
        format!("journal: {states:?}")
    });
    let states = env.lease_states(STEM);
    problems.expect(states.iter().all(is_over), || format!("leases: {states:?}"));
    let in_the_end = env.tasks();
    let third = Machine::new(env).line(&format!("{IMAGE} --timeout 30s"));
    problems.ends("a third machine", &third, 0);
    problems.equal("exports after the third", env.tasks(), in_the_end);
}

/// The file is there, whole and alone, and the journal knows that.
fn has_arrived(machine: &Machine<'_>, stdout: &str, was_unknown: bool, problems: &mut Problems) {
    let files = crate::support::files_below(&machine.home.path().join("d"));
    let end = |path: &Path| {
        path.extension()
            .map(|end| end.to_string_lossy().into_owned())
    };
    let mut ends: Vec<_> = files.iter().filter_map(|(path, _)| end(path)).collect();
    ends.sort();
    // The disk, its record, and its checksum; nothing that was begun.
    problems.equal(
        "in the folder",
        ends.join(" "),
        "json raw sha256".to_owned(),
    );
    let disk = files
        .iter()
        .find(|(path, _)| end(path).as_deref() == Some("raw"));
    let is_whole = disk.is_some_and(|(path, _)| std::fs::read(path).is_ok_and(|it| it == noise()));
    problems.expect(is_whole, || "the file is not the disk".to_owned());
    let owes = |record: &serde_json::Value| {
        record["state"] == "complete" && record["owes_download"] == true
    };
    problems.expect(!machine.records().iter().any(owes), || {
        "a download is still owed".to_owned()
    });
    if !was_unknown {
        let said: serde_json::Value = serde_json::from_str(stdout).unwrap_or_default();
        problems.expect(said["files"][0]["sha256"].is_string(), || {
            format!("no SHA-256 in {said}")
        });
    }
}

fn removal_goes_on(case: &Case, env: &TestEnv, next: &Machine<'_>, problems: &mut Problems) {
    let leases = env.lease_states(STEM);
    let is_open = leases.last().is_some_and(|state| state == "intended");
    let is_there = || {
        let keys = env.cloud.change(|world| world.keys("exports-1250000000"));
        keys.iter().any(|key| !key.contains(".lease-"))
    };
    let was_there = is_there();
    let run = next.line(REMOVE);
    if case.is_on_another_machine && is_open {
        problems.expect(was_there == (run.code != 0), || {
            format!("the next run ended with {}: {}", run.code, run.stderr)
        });
        problems.expect(is_there() == was_there, || {
            "it was deleted while another removal may run".to_owned()
        });
        // Whoever wants to export waits for it, too.
        let image = next.line(&format!("{IMAGE} --timeout 300ms"));
        problems.ends("an export meanwhile", &image, 11);
        pass_minutes(env, 31);
        let image = next.line(&format!(
            "{IMAGE} --if-exists overwrite --yes --resubmit --timeout 30s"
        ));
        problems.ends("an export with --resubmit", &image, 0);
        problems.equal("exports", env.tasks(), 2);
        return;
    }
    problems.ends("the next run", &run, 0);
    problems.expect(!is_there(), || "not everything is deleted".to_owned());
    if !case.is_on_another_machine {
        // Where nothing is left, no rule finds it any more: its name does.
        for record in next.records() {
            let id = record["export_id"].as_str().unwrap_or_default();
            let named = next.line(&format!(
                "files rm --bucket exports --export-id {id} --yes -q"
            ));
            problems.ends("a removal by its name", &named, 0);
        }
        let is_noted = |record: &serde_json::Value| record["removed_at"].is_string();
        problems.expect(next.records().iter().all(is_noted), || {
            "the journal does not know that it is deleted".to_owned()
        });
    }
    let image = next.line(&format!("{IMAGE} --timeout 30s"));
    problems.ends("an export after it", &image, 0);
    problems.equal("exports", env.tasks(), 2);
    let states = env.lease_states(STEM);
    let is_over = |state: &String| !["queued", "intended", "submitted"].contains(&&**state);
    problems.expect(states.iter().all(is_over), || format!("leases: {states:?}"));
}

#[test]
fn a_run_that_is_killed_anywhere_is_taken_up_and_nothing_is_started_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.raw");
    std::fs::write(&disk, noise()).expect("a disk");
    let cases = cases(&disk);
    let title = |case: &Case| format!("{} ({case:?})", case.name);
    all_right("crash points", &cases, title, |case| killed(case, &disk));
}
