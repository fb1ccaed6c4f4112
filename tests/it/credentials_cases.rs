//! The cases of the credential chain: a folder for each under `tests/cases/credentials`, one runner.
//!
//! `case.json` says what is set and what is expected; `home` becomes the home folder. Every secret in a
//! case holds the word [`MARK`], which no output may show, however loud. The world accepts
//! `AKID<owner>` with the key `dontshowme-<owner>` for each of [`OWNERS`]; those of the owner `temporary`
//! carry the token `dontshowme-token-temporary`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cvm_export::auth::{Credentials, Secret};
use cvm_export::simulator::{Call, Role, WebIdentity};
use serde::Deserialize;
use serde_json::Value;

use crate::support::TestEnv;

const MARK: &str = "dontshowme";
const OWNERS: &[&str] = &[
    "flags",
    "environment",
    "profile",
    "work",
    "sdk",
    "coscli",
    "temporary",
];

/// One `case.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is asked, as a sentence.
    asks: String,
    /// The environment; `{home}` stands for the home folder.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// Flags besides those of the command.
    #[serde(default)]
    flags: Vec<String>,
    /// The modes of files in the home folder, in octal; any other is 600.
    #[serde(default)]
    modes: BTreeMap<String, String>,
    /// The role that is bound to the instance.
    instance_role: Option<String>,
    /// Answers in the world's place, by operation.
    #[serde(default)]
    recorded: BTreeMap<String, Value>,
    /// Actions that the caller may not call.
    #[serde(default)]
    denied: Vec<String>,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    exit: i32,
    /// Words on stderr.
    #[serde(default)]
    says: Vec<String>,
    /// Who signed the command's own calls: an id, or `role` for keys that the world has handed out.
    signer: Option<String>,
    /// The calls that brought the keys: operation, and the parameters that it must have had.
    #[serde(default)]
    calls: Vec<(String, Value)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/credentials")
}

fn copy(from: &Path, to: &Path, root: &Path, modes: &BTreeMap<String, String>) {
    for entry in fs::read_dir(from).expect("a folder") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() {
            fs::create_dir(&to).expect("a folder");
            copy(&from, &to, root, modes);
            continue;
        }
        fs::copy(&from, &to).expect("a copy");
        let name = from
            .strip_prefix(root)
            .expect("below")
            .to_str()
            .expect("text");
        set_mode(&to, modes.get(name).map_or("600", String::as_str));
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = u32::from_str_radix(mode, 8).expect("a mode");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: &str) {}

fn world(case: &Case) -> TestEnv {
    let mut env = TestEnv::new();
    env.unset("TENCENTCLOUD_SECRET_ID")
        .unset("TENCENTCLOUD_SECRET_KEY");
    env.cloud.change(|world| {
        for owner in OWNERS {
            let token = (*owner == "temporary").then(|| format!("{MARK}-token-{owner}"));
            world.accept(Credentials {
                secret_id: format!("AKID{owner}"),
                secret_key: Secret::new(format!("{MARK}-{owner}")),
                token: token.map(Secret::new),
                expires_at: None,
            });
        }
        for name in ["ci", "pod"] {
            let role = Role::for_callers(name, &world.uin);
            world.roles.push(role);
        }
        world.keys.web_identities.push(WebIdentity {
            provider_id: "cls-pods".to_owned(),
            token: Secret::new(format!("{MARK}-token-of-the-pod")),
            role: "pod".to_owned(),
        });
        world.keys.instance_role.clone_from(&case.instance_role);
        let text = |body: &Value| {
            body.as_str()
                .map_or_else(|| body.to_string(), str::to_owned)
        };
        let recorded = case.recorded.iter();
        world.keys.recorded = recorded
            .map(|(name, body)| (name.clone(), text(body)))
            .collect();
        world.denied.extend(case.denied.iter().cloned());
    });
    env
}

/// What is wrong with the outcome of the case in `folder`.
fn problems(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("case.json")).expect("a case.json");
    let case: Case =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut env = world(&case);
    let home = folder.join("home");
    if home.is_dir() {
        copy(&home, env.home.path(), &home, &case.modes);
    }
    let home = env.home.path().display().to_string();
    for (name, value) in &case.variables {
        env.set(name, &value.replace("{home}", &home));
    }
    let mut arguments = vec!["images", "--bucket", "exports", "-vvv"];
    arguments.extend(case.flags.iter().map(String::as_str));
    let run = env.run(&arguments);

    let mut problems = Vec::new();
    let mut expect = |what: String, is_met: bool| {
        if !is_met {
            problems.push(what);
        }
    };
    expect(
        format!("exit {} and not {}", case.expect.exit, run.code),
        run.code == case.expect.exit,
    );
    for word in &case.expect.says {
        expect(format!("stderr says `{word}`"), run.stderr.contains(word));
    }
    let is_hidden = !run.stderr.contains(MARK) && !run.stdout.contains(MARK);
    expect("no secret is shown".to_owned(), is_hidden);
    let calls = env.cloud.calls();
    let is_for_keys = |call: &&Call| matches!(call.service.as_str(), "sts" | "metadata");
    let own = calls.iter().filter(|call| !is_for_keys(call));
    let signers: Vec<_> = own.map(|call| call.secret_id.clone()).collect();
    let is_signed = |signer: &Option<String>| match (case.expect.signer.as_deref(), signer) {
        (Some("role"), Some(id)) => id.starts_with("AKIDsimulated"),
        (expected, signer) => expected == signer.as_deref(),
    };
    expect(
        format!("calls by {:?} and not by {signers:?}", case.expect.signer),
        signers.iter().all(is_signed) && signers.is_empty() == case.expect.signer.is_none(),
    );
    let seen: Vec<_> = calls.iter().filter(is_for_keys).collect();
    let mut expected = case.expect.calls.iter();
    for call in &seen {
        let Some((operation, parameters)) = expected.next() else {
            expect(format!("no call of {}", call.operation), false);
            continue;
        };
        let body = call.body.as_deref().unwrap_or("{}");
        let mut body: Value = serde_json::from_str(body).expect("JSON");
        body["signer"] = call.secret_id.clone().into();
        let holds = parameters.as_object().is_some_and(|wanted| {
            wanted
                .iter()
                .all(|(name, value)| body.get(name).unwrap_or(&Value::Null) == value)
        });
        expect(
            format!(
                "{operation} with {parameters} and not {} with {body}",
                call.operation
            ),
            holds && call.operation == *operation,
        );
    }
    for (operation, _) in expected {
        expect(format!("a call of {operation}"), false);
    }
    if problems.is_empty() {
        return problems;
    }
    let name = folder.file_name().unwrap_or_default().display();
    let mut report = vec![format!("case `{name}` ({}):", case.asks)];
    report.extend(
        problems
            .iter()
            .map(|problem| format!("  expected: {problem}")),
    );
    report.push(format!("  stderr:\n{}", run.stderr));
    report
}

#[test]
fn every_case_of_the_chain_ends_as_its_folder_says() {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 45, "{} cases are left", folders.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let problems = std::sync::Mutex::new(Vec::new());
    // Most of a case is the start of a process.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(folder) =
                    folders.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let found = self::problems(folder);
                    problems.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let problems = problems.into_inner().expect("no panic");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
