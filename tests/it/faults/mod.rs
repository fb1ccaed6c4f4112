//! Every fault that the simulator knows at every call of a clean run, once and for ever: the run ends
//! in time, with the code that the contract has for it, and never with a second export.
//!
//! The calls are learnt from the call log of a clean run of an image of two disks. For each of them and
//! each effect that can apply to its kind, a run of the real binary meets the effect at that call alone;
//! for each kind of call, and for all calls together, another one meets it every time from there on. Calls about
//! leases are told apart by their object and by what they are made for. What the run must end with is in `oracle`;
//! what holds for every run is here. When the faults are taken away, the export must come to its end by the line that
//! the failed run left behind; where nothing was submitted, by the same command, on the same machine and on another.
//!
//! A refused connection is no effect on a call: `network` has it. Minutes of two cores; the run says
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
use operations::{ANY, LEASES, OPERATIONS, Operation, Purpose, describe, lease_key};
use oracle::{Expected, LEASE_IS_BEHIND, expected};

const LINE: &str =
    "image --id img-pair008 --bucket exports --prefix p --poll-interval 200ms --timeout 6s";
const BUCKET: &str = "exports-1250000000";
/// Long enough for uploads to be seen growing, where the machine is not busy.
const EXPORT_SECONDS: f64 = 0.3;
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

/// How many calls from one on meet a fault that begins there. No run makes more of one kind about one object.
const FROM_THERE_ON: u32 = 200;

/// After the submit, how many calls of a kind meet a fault each for itself: those of two looks at four names.
const CALLS_OF_FIRST_LOOKS: usize = 8;

/// Which of the calls of a kind meet a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// This one alone, counted from 1.
    Once(u32),
    /// This one and all that follow.
    From(u32),
}

/// One fault.
#[derive(Clone, Debug)]
struct Case {
    call: String,
    /// The object that the call is about, where that tells calls of one kind apart.
    key: Option<String>,
    when: When,
    /// Whether the first call that meets it comes before the submit.
    is_before_submit: bool,
    /// What the calls that meet it are in a clean run, in their order.
    meets: Vec<&'static Operation>,
    effect: Effect,
}

impl Case {
    fn is_for_ever(&self) -> bool {
        matches!(self.when, When::From(_))
    }

    fn fault(&self, occurrence: Option<u32>) -> Fault {
        Fault {
            call: self.call.clone(),
            key: self.key.clone(),
            occurrence,
            effect: self.effect.clone(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self.when {
            When::Once(number) => vec![self.fault(Some(number))],
            When::From(1) => vec![self.fault(None)],
            When::From(first) => {
                let numbers = first..first + FROM_THERE_ON;
                numbers.map(|number| self.fault(Some(number))).collect()
            }
        }
    }

    /// Whether the own lease has vanished for the run, so that it can neither step it nor say more about it.
    fn hides_leases(&self) -> bool {
        let is_hidden =
            matches!(&self.effect, Effect::CosError { code, .. } if code == "NoSuchBucket");
        is_hidden && self.call == "GetObject"
    }

    /// The first of its faults, and whether it goes on.
    fn json(&self) -> String {
        let fault = serde_json::to_string(&self.faults()[0]).expect("a fault is JSON");
        match self.when {
            When::From(first) if first > 1 => format!("{fault} and all calls that follow"),
            _ => fault,
        }
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
        world.export_seconds = Some(EXPORT_SECONDS);
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

/// The calls of a clean run, in the order in which they were answered. On a busy machine exports take longer, so that
/// they are seen to grow.
fn clean_calls() -> Vec<Call> {
    for factor in 1..=10 {
        let env = world();
        let seconds = EXPORT_SECONDS * f64::from(factor);
        env.cloud
            .change(|world| world.export_seconds = Some(seconds));
        let run = env.line(LINE).ends_with(0);
        assert_eq!(run.stdout, lines(&env));
        if env.calls("ListParts") > 0 {
            return env.cloud.calls();
        }
    }
    panic!("no part of an upload was ever seen");
}

/// Every case of the matrix.
fn cases(calls: &[Call]) -> Vec<Case> {
    let mut cases = Vec::new();
    let submit = calls
        .iter()
        .position(|call| call.operation == "ExportImages");
    let submit = submit.expect("a submit");
    let described = describe(calls);
    let is_like = |one: &Call, other: &Call| {
        one.operation == other.operation && lease_key(one) == lease_key(other)
    };
    for (position, call) in calls.iter().enumerate() {
        let earlier = calls[..position].iter();
        let earlier = earlier.filter(|other| is_like(other, call));
        let occurrence = u32::try_from(earlier.count()).expect("a small number") + 1;
        let operation = described[position];
        let case = |when, meets: &[&'static Operation], effect| Case {
            call: call.operation.clone(),
            key: lease_key(call).map(str::to_owned),
            when,
            is_before_submit: position < submit,
            meets: meets.to_vec(),
            effect,
        };
        // What the steps after the submit do with a lease is the same at each: the first and the last stand for all.
        // The looks of the watch are as many as the machine has time for: the first ones stand for all.
        let is_alike = |(other, it): &(&Call, &&Operation)| {
            is_like(other, call) && it.purpose == operation.purpose
        };
        let all = || calls.iter().zip(&described);
        let is_spared = match operation.purpose {
            Purpose::Other => {
                let earlier = all().take(position).skip(submit).filter(is_alike);
                earlier.count() >= CALLS_OF_FIRST_LOOKS
            }
            _ => {
                all().take(position).any(|it| is_alike(&it))
                    && all().skip(position + 1).any(|it| is_alike(&it))
            }
        };
        if !is_spared {
            let once = effects::of(operation).into_iter();
            cases.extend(once.map(|effect| case(When::Once(occurrence), &[operation], effect)));
        }
        // For ever, from the first of each kind on.
        let first = all().position(|(other, it)| is_like(other, call) && *it == operation);
        if first != Some(position) {
            continue;
        }
        let mut meets = vec![operation];
        for (_, other) in calls[position..]
            .iter()
            .zip(&described[position..])
            .filter(|(other, _)| is_like(other, call))
        {
            if !meets.contains(other) {
                meets.push(other);
            }
        }
        let ever = effects::of(operation).into_iter();
        cases.extend(ever.map(|effect| case(When::From(occurrence), &meets, effect)));
    }
    let codes = effects::general().into_iter();
    let codes = codes.filter(|effect| matches!(effect, Effect::ApiError { .. }));
    cases.extend(
        effects::of(&ANY)
            .into_iter()
            .chain(codes)
            .map(|effect| Case {
                call: ANY.name.to_owned(),
                key: None,
                when: When::From(1),
                is_before_submit: true,
                meets: vec![&ANY],
                effect,
            }),
    );
    // The longest first, so that the last ones to end are short.
    cases.sort_by_key(|case| (!case.is_for_ever(), !case.is_throttled()));
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
    let mut env = world();
    env.cloud.set_faults(case.faults());
    if case.call == "HeadObject" && case.is_for_ever() {
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
    let first = &case.faults()[0];
    let is_met = !env.cloud.unmet_faults().contains(first);
    let expected = match is_met {
        true => expected,
        false => Expected::exit(0),
    };
    let problems = [
        problem_of_any_run(&env, &run),
        problem_of_submits(&env, &log),
        problem_of_end(case, &env, &run, expected),
        problem_of_leases(&env, &run, case, expected),
    ];
    let mut problem = problems.into_iter().flatten().next();
    if problem.is_none() && run.code != 0 {
        problem = problem_afterwards(&mut env, &run, case);
    }
    match problem {
        Some(problem) => {
            let problem = format!("{problem} (after {elapsed:?}; expected {expected:?})");
            Verdict::Wrong(report(case, &env, &problem, Some(run.code), &run.stderr))
        }
        None if is_met => Verdict::Right,
        None => Verdict::NotMet,
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
    if run.stderr.matches(LEASE_IS_BEHIND).count() > 1 {
        return Some(format!("`{LEASE_IS_BEHIND}` is said twice"));
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

fn problem_of_end(case: &Case, env: &TestEnv, run: &Run, expected: Expected) -> Option<String> {
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
    // A lease that is gone beside the copy of its record is worth a warning.
    let may_warn = expected.says.is_some() || case.hides_leases();
    if !may_warn && run.stderr.contains(LEASE_IS_BEHIND) {
        return Some(format!("`{LEASE_IS_BEHIND}` is said"));
    }
    let is_error = (1..=5).contains(&run.code) || run.code == 7 || run.code == 11;
    if is_error && !run.stderr.contains("error: ") {
        return Some("no error is told".to_owned());
    }
    None
}

/// The states that the leases in the bucket are in, oldest first, and that of the copy; empty for what is none.
fn states(env: &TestEnv) -> (Vec<String>, Option<String>) {
    env.cloud.change(|world| {
        let state = |key: &String| {
            let object = world.object(BUCKET, key).expect("a listed object");
            let size = usize::try_from(object.content.size_bytes()).expect("a small object");
            let mut text = vec![0; size];
            object.content.read_at(0, &mut text).expect("an object");
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            value["state"].as_str().unwrap_or_default().to_owned()
        };
        let keys = world.keys(BUCKET);
        let leases = keys.iter().filter(|key| key.contains(".cvm-export.lease-"));
        let copy = keys.iter().find(|key| key.ends_with(".cvm-export.json"));
        (leases.map(state).collect(), copy.map(state))
    })
}

/// What the run leaves in the bucket: after a success without a word, all is up to date; a run that ends before its
/// submit leaves no lease that others would wait for.
fn problem_of_leases(env: &TestEnv, run: &Run, case: &Case, expected: Expected) -> Option<String> {
    let (leases, copy) = states(env);
    let is_open = |state: &String| matches!(state.as_str(), "queued" | "intended" | "submitted");
    let (last, earlier) = match leases.split_last() {
        Some((last, earlier)) => (last.as_str(), earlier),
        None => ("", &[][..]),
    };
    let problem = match run.code {
        0 if expected.says.is_some() || case.hides_leases() => false,
        0 => {
            last != "complete" || copy.as_deref() != Some("complete") || earlier.iter().any(is_open)
        }
        1..=5 if case.hides_leases() || run.stderr.contains("could not be withdrawn") => false,
        1..=5 => leases.iter().any(is_open),
        _ => false,
    };
    problem.then(|| format!("the leases are {leases:?}, the copy is {copy:?}"))
}

/// Takes the faults away: the export must come to its end, and still be one.
fn problem_afterwards(env: &mut TestEnv, run: &Run, case: &Case) -> Option<String> {
    env.cloud.set_faults(Vec::new());
    let tasks = started(env);
    let before = env.calls("ExportImages");
    if tasks == 1 {
        let line = run
            .stderr
            .lines()
            .rev()
            .find_map(|line| line.trim_start().strip_prefix("watch again: cvm-export "));
        let Some(line) = line else {
            return Some("an export runs, and no line takes it up again".to_owned());
        };
        let end = env.line(&format!("{line} --poll-interval 100ms --timeout 20s"));
        return problem_of_success(env, &end, 1);
    }
    if run.code == 11 {
        if !run.stderr.contains("watch again: cvm-export wait ") {
            return Some("no line to look again".to_owned());
        }
        let again = env.line(&LINE.replace("--timeout 6s", "--timeout 300ms"));
        if again.code != 11 || env.calls("ExportImages") != before {
            return Some(format!(
                "the next run ends with {} after {} submits\n{}",
                again.code,
                env.calls("ExportImages") - before,
                again.stderr
            ));
        }
        let end = env.line(&format!("{LINE} --resubmit"));
        return problem_of_success(env, &end, 1);
    }
    // Nothing was submitted: the next run does it, whether on a machine that knows nothing or on this one.
    // The fault that changes an object has put something else in the place of the lease; a second time undoes it.
    let is_spoilt = states(env).0.iter().any(String::is_empty);
    let is_left_open = run.stderr.contains("could not be withdrawn") || case.hides_leases();
    let objects = |env: &TestEnv| {
        env.cloud.change(|world| {
            let bucket = world.bucket_mut(BUCKET).expect("the bucket");
            bucket.objects.clone()
        })
    };
    let kept = objects(env);
    let fresh = tempfile::tempdir().expect("a home folder");
    let home = std::mem::replace(&mut env.home, fresh);
    env.set("HOME", &env.home.path().display().to_string());
    let elsewhere = env.line(LINE);
    let problem = match is_spoilt {
        true => problem_of_stop(env, &elsewhere, 3, 0),
        // Nobody there can know that nothing was sent.
        false if is_left_open && elsewhere.code != 0 => problem_of_stop(env, &elsewhere, 11, 0),
        false => problem_of_success(env, &elsewhere, 1),
    };
    if let Some(problem) = problem {
        return Some(format!("on another machine: {problem}"));
    }
    let tasks = started(env);
    env.cloud.change(|world| {
        let bucket = world.bucket_mut(BUCKET).expect("the bucket");
        bucket.objects = kept;
    });
    env.home = home;
    env.set("HOME", &env.home.path().display().to_string());
    let here = env.line(LINE);
    let problem = match is_spoilt {
        true => problem_of_stop(env, &here, 3, tasks),
        false => problem_of_success(env, &here, tasks + 1),
    };
    problem.map(|problem| format!("on the same machine: {problem}"))
}

fn started(env: &TestEnv) -> usize {
    env.cloud.change(|world| world.started_tasks().len())
}

fn problem_of_success(env: &TestEnv, end: &Run, tasks: usize) -> Option<String> {
    let is_right = end.code == 0 && end.stdout == lines(env) && started(env) == tasks;
    (!is_right).then(|| {
        format!(
            "taken up without the fault: exit {}, {} exports instead of {tasks}, stdout {:?}\n{}",
            end.code,
            started(env),
            end.stdout,
            end.stderr
        )
    })
}

fn problem_of_stop(env: &TestEnv, end: &Run, exit: i32, tasks: usize) -> Option<String> {
    let is_right = end.code == exit && started(env) == tasks;
    (!is_right).then(|| {
        format!(
            "without the fault: exit {} instead of {exit}, {} exports\n{}",
            end.code,
            started(env),
            end.stderr
        )
    })
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
    cases.retain(|case| case.json().contains(&only));
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
    for operation in OPERATIONS.iter().chain(LEASES) {
        for effect in effects::of(operation) {
            let value = serde_json::to_value(&effect).expect("JSON");
            tried.insert(value["kind"].as_str().expect("a name").to_owned());
        }
    }
    assert_eq!(tried, known);
    let calls = clean_calls();
    let called = describe(&calls);
    for operation in OPERATIONS.iter().chain(LEASES) {
        assert!(called.contains(&operation), "never called: {operation:?}");
    }
}
