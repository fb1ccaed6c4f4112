//! Every fault that the simulator knows at every call of a clean run, once and for ever: the run ends
//! in time, with the code that the contract has for it, and never with a second export.
//!
//! The calls are learnt from the call log of a clean run of an image of two disks. For each of them and
//! each effect that can apply to its kind, a run of the real binary meets the effect at that call alone;
//! for each kind of call, and for all calls together, another one meets it every time. What the run must
//! end with is in `oracle`; what holds for every run is here. When the faults are taken away, the export
//! must come to its end by the line that the failed run left behind.
//!
//! A refused connection is no effect on a call: `network` has it. Two minutes of two cores; the run says
//! `faults: N tried, N right`, and `FAULTS_ONLY=stalled-body` (any part of a fault as JSON) tries some.

mod effects;
mod operations;
mod oracle;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cvm_export::simulator::{Call, Effect, Fault, Image, Options};

use crate::support::{Run, TestEnv};
use operations::{ANY, OPERATIONS, operation};
use oracle::{Expected, expected};

const LINE: &str =
    "image --id img-pair008 --bucket exports --prefix p --poll-interval 200ms --timeout 6s";
const BUCKET: &str = "exports-1250000000";
/// Runs at once. They wait for most of their time.
const WORKERS: usize = 24;
/// A run whose calls are repeated by what they prove: attempts of a second, looks of four attempts.
const PATIENCE: Duration = Duration::from_secs(40);
/// A run that is told to come back later gives each call half a minute.
const THROTTLED_PATIENCE: Duration = Duration::from_secs(90);
/// Codes after which a submit may be sent again: its envelope proves that nothing was started.
const SENT_AGAIN_AFTER: &[&str] = &[
    "RequestLimitExceeded",
    "AuthFailure.SignatureExpire",
    "LimitExceeded.ExportImageTaskLimitExceeded",
];
/// No matrix is smaller than this one was made.
const FEWEST_CASES: usize = 1500;

/// One fault.
#[derive(Clone, Debug)]
struct Case {
    call: String,
    /// The call that meets it; every one where it is missing.
    occurrence: Option<u32>,
    /// Whether that call comes before the submit; of no meaning where all meet it.
    is_before_submit: bool,
    effect: Effect,
}

impl Case {
    fn fault(&self) -> Fault {
        Fault {
            call: self.call.clone(),
            key: None,
            occurrence: self.occurrence,
            effect: self.effect.clone(),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(&self.fault()).expect("a fault is JSON")
    }

    /// The arguments of the run. Where calls hang, they are given up soon; else a busy machine shall not
    /// make up faults of its own.
    fn line(&self) -> String {
        if effects::is_hanging(&self.effect) {
            let limit = effects::ATTEMPT_MILLISECONDS;
            format!("{LINE} --request-timeout {limit}ms")
        } else {
            LINE.to_owned()
        }
    }

    fn is_throttled(&self) -> bool {
        match &self.effect {
            Effect::Status { status } | Effect::StatusAfter { status } => *status == 429,
            Effect::ApiError { code } => code == "RequestLimitExceeded",
            Effect::CosError { code, .. } => code == "SlowDown",
            _ => false,
        }
    }
}

/// A world with an image of two small disks, whose exports take long enough to be seen growing.
fn world() -> TestEnv {
    let env = TestEnv::with(Options::default());
    env.cloud.change(|world| {
        world.export_seconds = Some(0.25);
        let (id, region) = ("img-pair008".parse(), "ap-guangzhou".parse());
        let (id, region) = (id.expect("an id"), region.expect("a region"));
        world.add_image(Image::linux(id, region, 1).with_data_disk(2));
    });
    env
}

/// What a run prints that has all files.
fn lines(env: &TestEnv) -> String {
    keys(env)
        .iter()
        .map(|(key, _)| format!("cos://{BUCKET}/{key}\n"))
        .collect()
}

/// The keys of the export's files, and their sizes.
fn keys(env: &TestEnv) -> Vec<(String, u64)> {
    env.cloud.change(|world| {
        let image = world.image_mut("img-pair008").expect("the image");
        let names = ["system", "data"].iter().zip(&image.disks);
        names
            .map(|(usage, disk)| {
                let key = format!("p_img-pair008_{usage}_{}.raw", disk.snapshot_id);
                (key, disk.size_gib << 30)
            })
            .collect()
    })
}

/// The calls of a clean run, in the order in which they were answered.
fn clean_calls() -> Vec<Call> {
    let env = world();
    let run = env.line(LINE).ends_with(0);
    assert_eq!(run.stdout, lines(&env));
    env.cloud.calls()
}

/// Every case of the matrix.
fn cases(calls: &[Call]) -> Vec<Case> {
    let mut cases = Vec::new();
    let submit = calls
        .iter()
        .position(|call| call.operation == "ExportImages");
    let submit = submit.expect("a submit");
    for (position, call) in calls.iter().enumerate() {
        let earlier = calls[..position].iter();
        let earlier = earlier.filter(|other| other.operation == call.operation);
        let occurrence = u32::try_from(earlier.count()).expect("a small number") + 1;
        let operation = operation(&call.operation).unwrap_or_else(|| {
            panic!("{} is a call that the matrix does not know", call.operation);
        });
        cases.extend(effects::of(operation).into_iter().map(|effect| Case {
            call: call.operation.clone(),
            occurrence: Some(occurrence),
            is_before_submit: position < submit,
            effect,
        }));
    }
    for operation in OPERATIONS.iter().chain([&ANY]) {
        let mut effects = effects::of(operation);
        if operation.name == ANY.name {
            let codes = effects::general().into_iter();
            effects.extend(codes.filter(|effect| matches!(effect, Effect::ApiError { .. })));
        }
        cases.extend(effects.into_iter().map(|effect| Case {
            call: operation.name.to_owned(),
            occurrence: None,
            is_before_submit: true,
            effect,
        }));
    }
    // The longest first, so that the last ones to end are short.
    cases.sort_by_key(|case| (case.occurrence.is_some(), !case.is_throttled()));
    cases
}

/// How a case went.
enum Verdict {
    Right,
    /// The run was over before the call came: a busy machine makes fewer looks.
    NotMet,
    Wrong(String),
}

fn judge(case: &Case) -> Verdict {
    let env = world();
    env.cloud.set_faults(vec![case.fault()]);
    if case.call == "HeadObject" && case.occurrence.is_none() {
        // The uploads must be seen before they are missed.
        env.cloud.change(|world| world.export_seconds = Some(1.0));
    }
    let expected = expected(case);
    let line = case.line();
    let words: Vec<&str> = line.split(' ').collect();
    let patience = if case.is_throttled() {
        THROTTLED_PATIENCE
    } else {
        PATIENCE
    };
    let start = Instant::now();
    let run = match env.start(&words).end_within(patience) {
        Ok(run) => run,
        Err(stderr) => return Verdict::Wrong(report(case, &env, "hangs", None, &stderr)),
    };
    let elapsed = start.elapsed();
    let log = env.cloud.calls();
    let problems = [
        problem_of_any_run(&env, &run),
        problem_of_submits(&env, &log),
        problem_of_end(&env, &run, expected),
    ];
    let mut problem = problems.into_iter().flatten().next();
    if problem.is_none() && run.code != 0 {
        problem = problem_afterwards(&env, &run);
    }
    if let Some(problem) = problem {
        let problem = format!("{problem} (after {elapsed:?}; expected {expected:?})");
        return Verdict::Wrong(report(case, &env, &problem, Some(run.code), &run.stderr));
    }
    let met = log
        .iter()
        .filter(|call| call.operation == case.call)
        .count();
    match case.occurrence {
        Some(occurrence) if met < occurrence as usize => Verdict::NotMet,
        _ => Verdict::Right,
    }
}

/// What no run may do, whatever it meets.
fn problem_of_any_run(env: &TestEnv, run: &Run) -> Option<String> {
    if run.code == 101 || run.stderr.contains("panicked") {
        return Some("a panic".to_owned());
    }
    let is_control = |c: char| c.is_control() && c != '\n';
    if run.stdout.contains(is_control) || run.stderr.contains(is_control) {
        return Some("control characters on the terminal".to_owned());
    }
    let credentials = env.cloud.credentials();
    let secret = credentials.secret_key.expose();
    if run.stdout.contains(secret) || run.stderr.contains(secret) {
        return Some("the secret key on the terminal".to_owned());
    }
    if run.code == 0 && run.stdout != lines(env) {
        return Some(format!("wrong lines on stdout: {:?}", run.stdout));
    }
    if run.code != 0 && !run.stdout.is_empty() {
        return Some(format!("stdout of a failure: {:?}", run.stdout));
    }
    if run.code == 0 {
        let is_whole = |(key, size): (String, u64)| {
            env.cloud.change(|world| {
                let object = world.object(BUCKET, &key);
                object.is_some_and(|object| object.content.size_bytes() == size)
            })
        };
        if !keys(env).into_iter().all(is_whole) {
            return Some("success without the objects".to_owned());
        }
    }
    None
}

/// At most one export, and no submit after one that may have been processed.
fn problem_of_submits(env: &TestEnv, log: &[Call]) -> Option<String> {
    let tasks = env.cloud.change(|world| world.started_tasks().len());
    if tasks > 1 {
        return Some(format!("{tasks} exports were started"));
    }
    let submits: Vec<&Call> = log
        .iter()
        .filter(|call| call.operation == "ExportImages")
        .collect();
    let (_, before_the_last) = submits.split_last()?;
    let mut expired = 0;
    for call in before_the_last {
        let code = call.code.as_deref().unwrap_or_default();
        if !SENT_AGAIN_AFTER.contains(&code) || call.status != 200 {
            return Some(format!("sent again after status {} `{code}`", call.status));
        }
        expired += usize::from(code == "AuthFailure.SignatureExpire");
    }
    (expired > 1).then(|| format!("sent anew {expired} times for its time of signing"))
}

fn problem_of_end(env: &TestEnv, run: &Run, expected: Expected) -> Option<String> {
    if expected.exit != run.code {
        return Some(format!("exit {}", run.code));
    }
    let tasks = env.cloud.change(|world| world.started_tasks().len());
    if tasks != expected.tasks {
        return Some(format!("{tasks} exports were started"));
    }
    if let Some(text) = expected.says
        && !run.stderr.contains(text)
    {
        return Some(format!("`{text}` is not said"));
    }
    let is_error = (1..=5).contains(&run.code) || run.code == 7 || run.code == 11;
    if is_error && !run.stderr.contains("error: ") {
        return Some("no error is told".to_owned());
    }
    None
}

/// Takes the faults away: the export must come to its end, and still be one.
fn problem_afterwards(env: &TestEnv, run: &Run) -> Option<String> {
    env.cloud.set_faults(Vec::new());
    let tasks = || env.cloud.change(|world| world.started_tasks().len());
    let submits = || env.calls("ExportImages");
    let before = submits();
    let end = if tasks() == 1 {
        let line = run
            .stderr
            .lines()
            .rev()
            .find_map(|line| line.trim_start().strip_prefix("watch again: cvm-export "));
        let Some(line) = line else {
            return Some("an export runs, and no line takes it up again".to_owned());
        };
        env.line(&format!("{line} --poll-interval 100ms --timeout 20s"))
    } else if run.code == 11 {
        if !run.stderr.contains("watch again: cvm-export wait ") {
            return Some("no line to look again".to_owned());
        }
        let again = env.line(&LINE.replace("--timeout 6s", "--timeout 300ms"));
        if again.code != 11 || submits() != before {
            return Some(format!(
                "the next run ends with {} after {} submits\n{}",
                again.code,
                submits() - before,
                again.stderr
            ));
        }
        env.line(&format!("{LINE} --resubmit"))
    } else {
        env.line(LINE)
    };
    if end.code != 0 || end.stdout != lines(env) || tasks() != 1 {
        return Some(format!(
            "taken up without the fault: exit {}, {} exports, stdout {:?}\n{}",
            end.code,
            tasks(),
            end.stdout,
            end.stderr
        ));
    }
    None
}

/// What a person needs to see the wrong case again.
fn report(case: &Case, env: &TestEnv, problem: &str, exit: Option<i32>, stderr: &str) -> String {
    let fault = case.json();
    let calls = env.cloud.calls().into_iter();
    let calls: Vec<String> = calls
        .map(|call| format!("{}:{}", call.operation, call.status))
        .collect();
    let lines: Vec<&str> = stderr.lines().collect();
    let tail = lines[lines.len().saturating_sub(25)..].join("\n    ");
    let line = case.line();
    format!(
        "{fault}\n  exit {exit:?}: {problem}\n  cvm-export {line}\n  calls: {}\n    {tail}\n",
        calls.join(" ")
    )
}

#[test]
fn every_fault_at_every_call_ends_well() {
    let start = Instant::now();
    let only = std::env::var("FAULTS_ONLY").unwrap_or_default();
    let mut cases = cases(&clean_calls());
    cases.retain(|case| {
        serde_json::to_string(&case.fault())
            .expect("JSON")
            .contains(&only)
    });
    let next = AtomicUsize::new(0);
    let right = AtomicUsize::new(0);
    let not_met = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match judge(case) {
                        Verdict::Right => _ = right.fetch_add(1, Ordering::Relaxed),
                        Verdict::NotMet => _ = not_met.fetch_add(1, Ordering::Relaxed),
                        Verdict::Wrong(report) => wrong.lock().expect("no panic").push(report),
                    }
                }
            });
        }
    });
    let (right, not_met) = (right.into_inner(), not_met.into_inner());
    let wrong = wrong.into_inner().expect("no panic");
    let tried = right + wrong.len();
    // Past the harness, which shows only what failing tests print.
    let said = writeln!(
        std::io::stderr(),
        "faults: {tried} tried, {right} right ({not_met} calls never came; {:?})",
        start.elapsed()
    );
    said.expect("stderr");
    assert!(
        wrong.is_empty(),
        "{} of {tried} cases are wrong:\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        !only.is_empty() || tried >= FEWEST_CASES,
        "only {tried} cases were tried"
    );
}

#[test]
fn the_matrix_knows_every_effect_and_every_call() {
    // The simulator names its effects when it is asked for one that it does not know.
    let unknown = r#"{"faults": [{"call": "*", "effect": {"kind": "no-such-effect"}}]}"#;
    let error = Fault::parse_file(unknown).expect_err("no such effect");
    let error = error.to_string();
    // A hold that nobody releases is a long delay, which is tried.
    let known: BTreeSet<String> = error
        .split('`')
        .skip(3)
        .step_by(2)
        .filter(|kind| !kind.starts_with("hold"))
        .map(str::to_owned)
        .collect();
    assert!(known.len() >= 20, "{error}");
    let mut tried = BTreeSet::new();
    for operation in OPERATIONS {
        for effect in effects::of(operation) {
            let value = serde_json::to_value(&effect).expect("JSON");
            tried.insert(value["kind"].as_str().expect("a name").to_owned());
        }
    }
    assert_eq!(tried, known);
    let called: BTreeSet<String> = clean_calls()
        .into_iter()
        .map(|call| call.operation)
        .collect();
    let described = OPERATIONS.iter().map(|operation| operation.name.to_owned());
    assert_eq!(described.collect::<BTreeSet<_>>(), called);
}
