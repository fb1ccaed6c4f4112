//! What the tests share: a world of their own for each test, and the binary run in it.

pub(crate) mod golden;
pub(crate) mod machine;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cvm_export::simulator::{Effect, Fault, HeldCall, Options, Simulator};
use serde_json::Value;
use tempfile::TempDir;

/// One runtime for the simulators of all tests.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// How long a run may take before the test says that it hangs. Nothing here takes more than seconds;
/// the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `future` on the runtime of the simulators.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// A simulated cloud, an empty home folder, and an environment that holds nothing else.
pub(crate) struct TestEnv {
    pub(crate) cloud: Simulator,
    pub(crate) home: TempDir,
    variables: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    /// The sample world, in which exports are done at once.
    pub(crate) fn new() -> Self {
        let env = Self::with(Options::default());
        env.cloud.change(|world| world.export_seconds = Some(0.0));
        env
    }

    /// A world of `options`.
    pub(crate) fn with(options: Options) -> Self {
        let cloud = block_on(Simulator::start(options)).expect("a simulator");
        let home = tempfile::tempdir().expect("a home folder");
        let credentials = cloud.credentials();
        let variables = [
            ("CVM_EXPORT_ENDPOINT_URL", cloud.endpoint_url()),
            ("TENCENTCLOUD_SECRET_ID", credentials.secret_id.clone()),
            (
                "TENCENTCLOUD_SECRET_KEY",
                credentials.secret_key.expose().to_owned(),
            ),
            ("HOME", home.path().display().to_string()),
            // Nothing on a developer's machine may be reached by mistake.
            ("HTTPS_PROXY", "http://127.0.0.1:9".to_owned()),
        ];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec();
        Self {
            cloud,
            home,
            variables,
        }
    }

    /// Sets a variable for the runs that follow.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.unset(name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable away.
    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// An empty home folder in place of the present one, as a fresh CI runner has it.
    pub(crate) fn lose_home(&mut self) {
        self.home = tempfile::tempdir().expect("a home folder");
        let home = self.home.path().display().to_string();
        self.set("HOME", &home);
    }

    /// Where this world's journal lies.
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.home.path().join(".local/state/cvm-export")
    }

    /// The binary with `arguments`, ready to start in this world.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.start(arguments).wait()
    }

    /// Runs a line of words separated by single blanks.
    pub(crate) fn line(&self, line: &str) -> Run {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// Starts the binary.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::spawn(&mut self.command(arguments), &arguments.join(" "))
    }

    /// Starts the binary by a shell that runs `setting` first, such as a limit.
    pub(crate) fn start_after(&self, setting: &str, arguments: &[&str]) -> Running {
        let binary = env!("CARGO_BIN_EXE_cvm-export");
        let script = format!("{setting}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &script, binary])
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = shell.spawn().expect("a shell starts");
        Running {
            child: Some(child),
            arguments: arguments.join(" "),
        }
    }

    /// How often `operation` was called, refusals included.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.cloud
            .calls()
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// Fails unless the cloud got exactly `count` submits.
    #[track_caller]
    pub(crate) fn assert_submits(&self, count: usize) {
        let log: Vec<String> = self
            .cloud
            .calls()
            .into_iter()
            .map(|call| call.operation)
            .collect();
        assert_eq!(
            self.calls("ExportImages"),
            count,
            "submits in the call log {log:?}"
        );
    }

    /// Waits until the hold `name` keeps a call.
    #[track_caller]
    pub(crate) fn wait_held(&self, name: &str) -> HeldCall {
        let waiting = async { tokio::time::timeout(PATIENCE, self.cloud.wait_held(name)).await };
        block_on(waiting).unwrap_or_else(|_| panic!("no call came to the hold `{name}`"))
    }

    /// Waits until `operation` has been called `count` times.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, operation: &str, count: usize) {
        let log = || {
            self.cloud
                .calls()
                .into_iter()
                .map(|call| call.operation)
                .collect::<Vec<_>>()
        };
        wait_until(
            || format!("{count} calls of {operation}, log {:?}", log()),
            || self.calls(operation) >= count,
        );
    }
}

/// The binary. Where the tests themselves were started to ignore signals, in the background of a plain
/// shell or by `nohup`, the binary would ignore them as well; there `env` sets them back.
fn program() -> Command {
    const BINARY: &str = env!("CARGO_BIN_EXE_cvm-export");
    static IGNORES_SIGNALS: LazyLock<bool> = LazyLock::new(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // HUP, INT and TERM.
        mask.is_some_and(|mask| mask & (1 | 1 << 1 | 1 << 14) != 0)
    });
    if !*IGNORES_SIGNALS {
        return Command::new(BINARY);
    }
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP,INT,TERM", BINARY]);
    command
}

/// The first call of `operation` meets `effect`.
pub(crate) fn fault(operation: &str, effect: Effect) -> Fault {
    Fault::new(operation, effect).with_occurrence(1)
}

/// Every call of `operation` thinks this long before it is processed.
pub(crate) fn delayed(operation: &str, milliseconds: u64) -> Fault {
    Fault::new(operation, Effect::DelayBefore { milliseconds })
}

/// Waits until `is_true`, checking often; fails with `what` when it takes too long.
#[track_caller]
pub(crate) fn wait_until(what: impl Fn() -> String, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "never came: {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run that goes on.
pub(crate) struct Running {
    child: Option<Child>,
    arguments: String,
}

impl Running {
    /// Starts `command`, whose arguments are told as `arguments`.
    pub(crate) fn spawn(command: &mut Command, arguments: &str) -> Self {
        let child = command.spawn().expect("the binary starts");
        Self {
            child: Some(child),
            arguments: arguments.to_owned(),
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("still running");
        child.try_wait().expect("the state of a child").is_some()
    }

    /// Waits until the run would hear a SIGTERM; earlier, it would end by it.
    pub(crate) fn wait_for_ears(&self) {
        let id = self.child.as_ref().expect("still running").id();
        let caught = || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & (1 << 14) != 0)
        };
        wait_until(|| "handlers of signals".to_owned(), caught);
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("still running").id().to_string();
        let status = Command::new("kill")
            .args([format!("-{name}"), id])
            .status()
            .expect("kill starts");
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(self) -> Run {
        let arguments = self.arguments.clone();
        self.end_within(PATIENCE).unwrap_or_else(|stderr| {
            panic!("`{arguments}` hangs; stderr so far:\n{stderr}");
        })
    }

    /// Waits for the end; a run that takes longer than `limit` is killed, and what it had written to
    /// stderr is the error.
    pub(crate) fn end_within(mut self, limit: Duration) -> Result<Run, String> {
        let mut child = self.child.take().expect("still running");
        // Pipes are drained while waiting, or a talkative run would stop.
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("the state of a child") {
                break status;
            }
            if start.elapsed() > limit {
                drop(child.kill());
                drop(child.wait());
                return Err(stderr.join().expect("a reader"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ok(Run {
            code: code(status),
            stdout: stdout.join().expect("a reader"),
            stderr: stderr.join().expect("a reader"),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn drain(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        drop(pipe.read_to_end(&mut text));
        String::from_utf8(text).expect("output is UTF-8")
    })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().expect("ended by a code or a signal"))
}

impl Run {
    /// Fails unless the run ended with `code`.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code\n-- stdout\n{}\n-- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless stderr holds `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{text}` is not on stderr:\n{}",
            self.stderr
        );
        self
    }

    /// Fails if stderr holds `text`.
    #[track_caller]
    pub(crate) fn does_not_say(self, text: &str) -> Self {
        assert!(
            !self.stderr.contains(text),
            "`{text}` is on stderr:\n{}",
            self.stderr
        );
        self
    }

    /// Fails unless stdout is exactly `text`.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "stdout\n-- stderr\n{}", self.stderr);
        self
    }

    /// Stdout as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "stdout is no JSON ({error}):\n{}\n-- stderr\n{}",
                self.stdout, self.stderr
            )
        })
    }

    /// The last line of stderr as one JSON value: the error object of a JSON run.
    #[track_caller]
    pub(crate) fn error_json(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("no error object ({error}):\n{}", self.stderr))
    }
}

/// Every file below `folder`, with its content as text.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return files;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            // A program that runs may have renamed it meanwhile.
            let content = match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                content => content.expect("a readable file"),
            };
            files.push((path, String::from_utf8_lossy(&content).into_owned()));
        }
    }
    files
}
