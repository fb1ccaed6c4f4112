//! Machines that share nothing but a bucket: each has a home folder of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cvm_export::simulator::{Call, Effect, Fault};
use serde_json::Value;
use tempfile::TempDir;

use super::{Run, Running, TestEnv, wait_until};

const BUCKET: &str = "exports-1250000000";

/// A machine in the world of `env`.
pub(crate) struct Machine<'e> {
    env: &'e TestEnv,
    pub(crate) home: TempDir,
}

impl<'e> Machine<'e> {
    pub(crate) fn new(env: &'e TestEnv) -> Self {
        let home = tempfile::tempdir().expect("a home folder");
        Self { env, home }
    }

    /// The binary with the words of `line`, ready to start.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.env.command(&line.split(' ').collect::<Vec<_>>());
        command
            .env("HOME", self.home.path())
            .current_dir(self.home.path());
        command
    }

    pub(crate) fn start(&self, line: &str) -> Running {
        Running::spawn(&mut self.command(line), line)
    }

    pub(crate) fn line(&self, line: &str) -> Run {
        self.start(line).wait()
    }

    /// Runs a line that ends as by a kill at the crash point `number`.
    pub(crate) fn crash(&self, line: &str, number: usize) -> Run {
        let number = number.to_string();
        let mut command = self.command(line);
        Running::spawn(command.env("CVM_EXPORT_TEST_CRASH", number), line).wait()
    }

    /// Runs a line, and returns the crash points that it has passed as well.
    pub(crate) fn points(&self, line: &str) -> (Run, Vec<String>) {
        let list = self.home.path().join("points");
        let mut command = self.command(line);
        let run = Running::spawn(command.env("CVM_EXPORT_TEST_POINTS", &list), line).wait();
        let text = std::fs::read_to_string(&list).unwrap_or_default();
        (run, text.lines().map(str::to_owned).collect())
    }

    pub(crate) fn state_folder(&self) -> PathBuf {
        self.home.path().join(".local/state/cvm-export")
    }

    /// The records of this machine's journal, the oldest first.
    pub(crate) fn records(&self) -> Vec<Value> {
        let files = super::files_below(&self.state_folder().join("exports"));
        let names = files
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "json"));
        let mut records: Vec<Value> = names
            .filter_map(|(_, text)| serde_json::from_str(text).ok())
            .collect();
        records.sort_by_key(|record| record["created_at"].as_str().map(str::to_owned));
        records
    }

    /// The states of these records.
    pub(crate) fn states(&self) -> Vec<String> {
        let records = self.records();
        let state = |record: &Value| record["state"].as_str().map(str::to_owned);
        records.iter().filter_map(state).collect()
    }
}

impl TestEnv {
    /// The object under `key`, if there is one.
    pub(crate) fn object_at(&self, key: &str) -> Option<Vec<u8>> {
        self.cloud.change(|world| {
            let object = world.object(BUCKET, key)?;
            let mut bytes = vec![0; usize::try_from(object.content.size_bytes()).ok()?];
            object.content.read_at(0, &mut bytes).ok()?;
            Some(bytes)
        })
    }

    /// The leases of `stem` (`<prefix>_<imageId>`), from 1.
    pub(crate) fn leases(&self, stem: &str) -> Vec<Value> {
        let lease = |number: u32| {
            let key = format!("{stem}.cvm-export.lease-raw-{number}.json");
            serde_json::from_slice(&self.object_at(&key)?).ok()
        };
        (1..).map_while(lease).collect()
    }

    /// The states of these leases.
    pub(crate) fn lease_states(&self, stem: &str) -> Vec<String> {
        let state = |lease: &Value| lease["state"].as_str().unwrap_or_default().to_owned();
        self.leases(stem).iter().map(state).collect()
    }

    /// The exports that the cloud has ever started.
    pub(crate) fn tasks(&self) -> usize {
        self.cloud.change(|world| world.started_tasks().len())
    }

    /// The submits that came while another export ran, in a world whose task limit is 1.
    pub(crate) fn overlapping_submits(&self) -> usize {
        let calls = self.cloud.calls().into_iter();
        let is_one = |call: &Call| {
            call.operation == "ExportImages"
                && call.processed
                && call
                    .code
                    .as_deref()
                    .is_some_and(|code| code.contains("LimitExceeded"))
        };
        calls.filter(is_one).count()
    }

    /// Waits until the hold `name` keeps a call: true; or until `running` has ended: false.
    pub(crate) fn is_held_before_end(&self, name: &str, running: &mut Running) -> bool {
        let is_held = || self.cloud.held().iter().any(|call| call.name == name);
        let ended = std::cell::RefCell::new(running);
        wait_until(
            || format!("a call at the hold `{name}`"),
            || is_held() || ended.borrow_mut().has_ended(),
        );
        is_held()
    }
}

/// One call of a run, told from the others like it by its place among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) operation: String,
    pub(crate) key: Option<String>,
    pub(crate) occurrence: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_deref().unwrap_or("-");
        write!(f, "{} {key} {}", self.operation, self.occurrence)
    }
}

impl Place {
    /// The places of `calls`, in their order.
    pub(crate) fn all(calls: &[Call]) -> Vec<Self> {
        let mut places: Vec<Self> = Vec::new();
        for call in calls {
            let path = call.target.split('?').next().unwrap_or_default();
            let key = path.trim_start_matches('/');
            let operation = &call.operation;
            let key = (!key.is_empty()).then(|| key.to_owned());
            let is_like = |place: &&Self| place.operation == *operation && place.key == key;
            let before = places.iter().filter(is_like).count();
            places.push(Self {
                operation: operation.clone(),
                key,
                occurrence: u32::try_from(before).expect("few calls") + 1,
            });
        }
        places
    }

    /// The fault that this call alone meets.
    pub(crate) fn fault(&self, effect: Effect) -> Fault {
        let fault = Fault::new(&*self.operation, effect).with_occurrence(self.occurrence);
        match &self.key {
            Some(key) => fault.with_key(&**key),
            None => fault,
        }
    }
}

/// Does `work` with each of `cases` on some threads, and returns what was wrong.
pub(crate) fn each<T: Sync>(cases: &[T], work: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    const THREADS: usize = 6;
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = work(case);
                    problems.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    problems.into_inner().expect("no panic")
}

/// Tells how many cases were tried and how many were right, on stdout and in the file that `CVM_EXPORT_COUNTS` names.
#[expect(clippy::print_stdout, reason = "counts")]
pub(crate) fn count(what: &str, tried: usize, right: usize) {
    use std::io::Write;

    let line = format!("{what}: {tried} tried, {right} right");
    println!("{line}");
    if let Some(path) = std::env::var_os("CVM_EXPORT_COUNTS") {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("the counts can be written");
    }
}

/// Does `work` with each of `cases`, counts those that were right, and fails if any was not.
#[track_caller]
pub(crate) fn all_right<T: Sync>(
    what: &str,
    cases: &[T],
    title: impl Fn(&T) -> String + Sync,
    work: impl Fn(&T) -> Vec<String> + Sync,
) {
    let wrong = each(cases, |case| {
        let problems = work(case);
        match problems.is_empty() {
            true => Vec::new(),
            false => vec![format!("{}:\n    {}", title(case), problems.join("\n    "))],
        }
    });
    count(what, cases.len(), cases.len() - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong, as a list.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<String>);

impl Problems {
    pub(crate) fn expect(&mut self, is_right: bool, problem: impl FnOnce() -> String) {
        if !is_right {
            self.0.push(problem());
        }
    }

    /// Expects that `who` has ended with `code`.
    pub(crate) fn ends(&mut self, who: &str, run: &Run, code: i32) {
        self.expect(run.code == code, || {
            let tail: Vec<&str> = run.stderr.lines().rev().take(4).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!(
                "{who} ended with {} in place of {code}: {}",
                run.code,
                tail.join(" | ")
            )
        });
    }

    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, seen: T, right: T) {
        self.expect(seen == right, || {
            format!("{what}: {seen:?} in place of {right:?}")
        });
    }
}
