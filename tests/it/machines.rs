//! Many machines at once, and many commands about one record at once: one submit each time, and nothing that was noted
//! is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cvm_export::simulator::{DiskSource, Effect, Fault, Options};
use serde_json::Value;

use crate::support::machine::{Machine, Problems, all_right};
use crate::support::{Run, TestEnv, delayed, fault, files_below};

const STEM: &str = "p_img-small01";
const IMAGE: &str =
    "image --id img-small01 --bucket exports --prefix p --poll-interval 100ms --output json";

fn world(export_seconds: f64) -> (TestEnv, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.raw");
    std::fs::write(&disk, [7; 5000]).expect("a disk");
    let env = TestEnv::with(Options {
        images: vec![(
            "img-small01".parse().expect("an id"),
            DiskSource::File(disk),
        )],
        ..Options::default()
    });
    env.cloud.change(|world| {
        world.export_seconds = Some(export_seconds);
        world.task_limit = 1;
    });
    (env, folder)
}

#[test]
fn eight_machines_at_once_submit_once() {
    // Exports that are shorter and longer than the look-ups of a machine.
    let rounds: Vec<(usize, f64)> = (0..10)
        .map(|round| (round, if round % 2 == 0 { 0.0 } else { 1.5 }))
        .collect();
    let mut wrong = Vec::new();
    for &(round, seconds) in &rounds {
        let mut problems = Problems::default();
        let (env, _folder) = world(seconds);
        // The machines are not equally fast.
        env.cloud.set_faults(vec![
            delayed("GetRole", 400).with_occurrence(3),
            delayed("DescribeImages", 700).with_occurrence(5),
            delayed("HeadObject", 300).with_occurrence(4),
            delayed("PutObject", 300).with_occurrence(2),
        ]);
        let machines: Vec<_> = (0..8).map(|_| Machine::new(&env)).collect();
        let running: Vec<_> = machines
            .iter()
            .map(|machine| machine.start(&format!("{IMAGE} --timeout 60s")))
            .collect();
        let runs: Vec<Run> = running.into_iter().map(|it| it.wait()).collect();
        for (number, run) in runs.iter().enumerate() {
            problems.ends(&format!("machine {number}"), run, 0);
        }
        problems.equal("submits", env.calls("ExportImages"), 1);
        let mut ids: Vec<Value> = runs
            .iter()
            .filter(|run| run.code == 0)
            .map(|run| run.json()["export_id"].clone())
            .collect();
        ids.dedup();
        problems.equal("exports that they tell of", ids.len(), 1);
        if !problems.0.is_empty() {
            wrong.push(format!("round {round}: {}", problems.0.join("\n  ")));
        }
    }
    crate::support::machine::count("rounds of eight machines", 10, 10 - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is done with one export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Wait,
    Status,
    Download,
    Remove,
    Resubmit,
}

impl Deed {
    const ALL: [Self; 5] = [
        Self::Wait,
        Self::Status,
        Self::Download,
        Self::Remove,
        Self::Resubmit,
    ];

    fn line(self, id: &str) -> String {
        match self {
            Self::Wait => format!("wait {id} --poll-interval 100ms --timeout 3s"),
            Self::Status => format!("status {id}"),
            Self::Download => {
                format!("wait {id} --poll-interval 100ms --timeout 3s --download d --sha256")
            }
            Self::Remove => format!("files rm --bucket exports --export-id {id} --yes"),
            Self::Resubmit => format!("{IMAGE} --timeout 5s --resubmit"),
        }
    }
}

/// How far the export is when the slow one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Submitted, and the files are there: nobody has looked since.
    Submitted,
    /// The answer to its submit was lost, and nothing was started.
    Intended,
}

fn rank(state: &str) -> usize {
    let order = ["queued", "intended", "submitted"];
    let place = order.iter().position(|it| *it == state);
    place.unwrap_or(order.len())
}

/// Reads the record again and again until `is_over`; tells of every step back.
fn steps_back(machine: &Machine<'_>, id: &str, is_over: &AtomicBool) -> Vec<String> {
    let mut found = Vec::new();
    let mut last: Option<Value> = None;
    while !is_over.load(Ordering::Relaxed) {
        let now = record(machine, id);
        if let (Some(last), Some(now)) = (&last, &now) {
            let state = |it: &Value| it["state"].as_str().unwrap_or_default().to_owned();
            let (then, is) = (state(last), state(now));
            let is_end = rank(&then) == 3;
            if rank(&is) < rank(&then) || is_end && is != then {
                found.push(format!("the state went from {then} to {is}"));
            }
            for field in ["/files/0/object/sha256", "/removed_at"] {
                let value = |it: &Value| it.pointer(field).filter(|it| !it.is_null()).cloned();
                if value(last).is_some() && value(now).is_none() {
                    found.push(format!("{field} was noted and is gone"));
                }
            }
            if last["owes_download"] == false && now["owes_download"] == true && is_end {
                found.push("a download is owed again".to_owned());
            }
        }
        last = now.or(last);
        std::thread::sleep(Duration::from_millis(2));
    }
    found
}

fn record(machine: &Machine<'_>, id: &str) -> Option<Value> {
    let records = machine.records();
    records.into_iter().find(|record| record["export_id"] == id)
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    stage: Stage,
    slow: Deed,
    fast: Deed,
}

fn two_at_once(pair: &Pair) -> Vec<String> {
    let (env, _folder) = world(0.0);
    let machine = Machine::new(&env);
    let begun = match pair.stage {
        Stage::Submitted => machine.line(&format!("{IMAGE} --no-wait")).ends_with(0),
        Stage::Intended => {
            env.cloud
                .set_faults(vec![fault("ExportImages", Effect::Status { status: 502 })]);
            machine
                .line(&format!("{IMAGE} --timeout 200ms"))
                .ends_with(11)
        }
    };
    let id = begun.json()["export_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if pair.slow == Deed::Remove || pair.fast == Deed::Remove {
        // It must be known as complete before it can be deleted.
        drop(machine.line(&format!("status {id}")));
    }
    let hold = Effect::Hold {
        name: "slow".to_owned(),
    };
    env.cloud.set_faults(vec![
        Fault::new("HeadObject", hold)
            .with_key("p_*")
            .with_occurrence(1),
    ]);
    let is_over = AtomicBool::new(false);
    let mut problems = Problems::default();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| steps_back(&machine, &id, &is_over));
        let mut slow = machine.start(&pair.slow.line(&id));
        let is_held = env.is_held_before_end("slow", &mut slow);
        let mut fast = machine.start(&pair.fast.line(&id));
        // A lock may keep the fast one from its end until the slow one goes on.
        let start = std::time::Instant::now();
        while !fast.has_ended() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let noted = record(&machine, &id).unwrap_or_default();
        env.cloud.release("slow");
        let (slow, fast) = (slow.wait(), fast.wait());
        is_over.store(true, Ordering::Relaxed);
        problems.0.extend(watching.join().expect("no panic"));
        problems.expect(is_held, || format!("{:?} makes no look", pair.slow));
        judge(
            &env,
            &machine,
            pair,
            &id,
            &noted,
            [&slow, &fast],
            &mut problems,
        );
    });
    problems.0
}

fn judge(
    env: &TestEnv,
    machine: &Machine<'_>,
    pair: &Pair,
    id: &str,
    noted: &Value,
    [slow, fast]: [&Run; 2],
    problems: &mut Problems,
) {
    let now = record(machine, id).unwrap_or_default();
    let runs = format!(
        "slow ended with {}: {}; fast with {}: {}",
        slow.code,
        slow.stderr.lines().last().unwrap_or_default(),
        fast.code,
        fast.stderr.lines().last().unwrap_or_default()
    );
    let panics = [slow, fast]
        .iter()
        .any(|run| run.stderr.contains("panicked"));
    problems.expect(!panics, || runs.clone());
    let sha256 = |record: &Value| record.pointer("/files/0/object/sha256").cloned();
    if let Some(Value::String(known)) = sha256(noted) {
        problems.equal("the noted SHA-256", sha256(&now), Some(known.into()));
    }
    if noted["removed_at"].is_string() {
        problems.equal("removed_at", &now["removed_at"], &noted["removed_at"]);
    }
    let deeds = [(pair.slow, slow), (pair.fast, fast)];
    for (_, run) in deeds
        .iter()
        .filter(|(deed, run)| *deed == Deed::Download && run.code == 0)
    {
        let is_fetched = sha256(&now).is_some_and(|it| it.is_string());
        problems.expect(is_fetched, || format!("no SHA-256: {now}; {}", run.stderr));
        problems.expect(now["owes_download"] != true, || {
            format!("a download is still owed; {runs}")
        });
        let files = files_below(&machine.home.path().join("d"));
        let is_there = files.iter().any(|(_, text)| text.len() == 5000);
        problems.expect(is_there, || "the file is not there".to_owned());
    }
    for (_, run) in deeds
        .iter()
        .filter(|(deed, run)| *deed == Deed::Remove && run.code == 0)
    {
        problems.expect(
            now["removed_at"].is_string() || pair.stage == Stage::Intended,
            || format!("not noted as removed, {now}; {}", run.stderr),
        );
    }
    let state = now["state"].as_str().unwrap_or_default();
    let is_resubmitted = pair.slow == Deed::Resubmit || pair.fast == Deed::Resubmit;
    match (pair.stage, is_resubmitted) {
        (Stage::Submitted, _) => problems.expect(state == "complete", || {
            format!("its state is {state}; {runs}")
        }),
        (Stage::Intended, true) => {
            problems.expect(state == "abandoned", || {
                format!("its state is {state}; {runs}")
            });
            problems.equal("exports", env.tasks(), 1);
            let owners = machine.records().into_iter();
            let owners = owners
                .filter(|record| record["state"] == "complete")
                .count();
            problems.equal("records that own the file", owners, 1);
        }
        (Stage::Intended, false) => {
            problems.expect(state == "intended", || {
                format!("its state is {state}; {runs}")
            });
            problems.equal("exports", env.tasks(), 0);
        }
    }
    problems.expect(env.overlapping_submits() == 0, || {
        "two exports at once".to_owned()
    });
    let leases = env.lease_states(STEM);
    let is_gone = now["removed_at"].is_string();
    if is_gone && pair.slow != Deed::Resubmit && pair.fast != Deed::Resubmit {
        let copy = env.object_at("p_img-small01.cvm-export.json");
        problems.expect(copy.is_none(), || {
            format!("the record is back in the bucket; leases {leases:?}")
        });
    }
}

#[test]
fn commands_about_one_record_at_once_keep_what_each_has_noted() {
    let mut pairs = Vec::new();
    for slow in Deed::ALL {
        for fast in Deed::ALL {
            pairs.push(Pair {
                stage: Stage::Submitted,
                slow,
                fast,
            });
            if slow != Deed::Remove && fast != Deed::Remove {
                pairs.push(Pair {
                    stage: Stage::Intended,
                    slow,
                    fast,
                });
            }
        }
    }
    let title = |pair: &Pair| format!("{pair:?}");
    all_right("pairs of commands", &pairs, title, two_at_once);
}
