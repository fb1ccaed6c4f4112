//! Who may use whom: the architecture's rules, checked over the text of the sources.
//!
//! The compiler can't refuse a use that merely points upwards, so this does. It reads every file
//! under `src` as tokens (comments, strings and `#[cfg(test)]` items fall away), collects the paths
//! in them with use trees spelled out, and compares each path with the tables below. It is no
//! parser: a name that reaches a file through an alias or a macro of another crate escapes it.

mod source;

use std::fs;
use std::path::Path;

use source::{Follow, Found, Token, paths, tokens, without_tests};

/// The top modules of the library, and the other ones that each may use.
const LIBRARY: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    ("crc64", &[]),
    ("environment", &[]),
    ("crash", &["environment"]),
    ("durable", &["crash"]),
    ("error", &["model"]),
    ("event", &["model", "clock"]),
    ("auth", &["model"]),
    ("inspect", &["model", "error"]),
    ("estimate", &["model", "error"]),
    (
        "cloud",
        &["auth", "model", "event", "error", "clock", "environment"],
    ),
    (
        "download",
        &[
            "cloud", "model", "event", "error", "clock", "crc64", "crash",
        ],
    ),
    (
        "export",
        &[
            "download",
            "cloud",
            "auth",
            "estimate",
            "model",
            "event",
            "error",
            "clock",
            "durable",
            "crash",
            "environment",
        ],
    ),
    // Not `cloud`: the simulator decodes requests by itself, so that a misnamed field can't be wrong
    // on both sides and pass.
    ("simulator", &["auth", "model", "clock", "crc64"]),
];

/// The only files of the binary that may name the simulator.
const SIMULATOR_USERS: &[&str] = &["src/cli/rehearsal.rs", "src/cli/commands/simulate.rs"];

const CLOCK: &[&str] = &["src/clock.rs"];

const ENVIRONMENT: &[&str] = &["src/environment.rs"];

const INDICATIF: &[&str] = &["src/cli/progress.rs", "src/cli/printer.rs"];

/// A longer file has more than one subject.
const LINE_LIMIT: usize = 700;

/// A source file: its path from the package's folder, with slashes, and its text.
type Source = (String, String);

/// The modules that lead to `file`: `src/cloud/http.rs` is `cloud`, `http`.
fn module_of(file: &str) -> Vec<&str> {
    let inner = file.strip_prefix("src/").unwrap_or(file);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    let is_root = inner == "lib" || inner == "main";
    if is_root {
        Vec::new()
    } else {
        inner.split('/').collect()
    }
}

fn is_binary(file: &str) -> bool {
    file == "src/main.rs" || module_of(file).first() == Some(&"cli")
}

/// Every broken rule as `file:line: what is wrong`.
fn check(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for (file, text) in sources {
        let mut report = |line: usize, what: String| broken.push(format!("{file}:{line}: {what}"));
        let lines = text.lines().count();
        if lines > LINE_LIMIT {
            let what = format!("{lines} lines; a file is split at about {LINE_LIMIT}");
            report(LINE_LIMIT + 1, what);
        }
        let module = module_of(file);
        let row = LIBRARY
            .iter()
            .find(|(name, _)| module.first() == Some(name));
        if row.is_none() && !module.is_empty() && !is_binary(file) {
            report(1, format!("`{}` has no row in the table", module[0]));
        }
        for path in paths(&without_tests(tokens(text))) {
            if let Some(what) = words_broken(file, &path) {
                report(path.line, what);
            }
            let what = if is_binary(file) {
                binary_broken(file, &path)
            } else {
                row.and_then(|(own, allowed)| library_broken(own, allowed, &module, &path))
            };
            if let Some(what) = what {
                report(path.line, what);
            }
        }
    }
    broken.extend(declared_twice(sources));
    broken
}

/// Whether a file is compiled for tests alone; its parent says so, which its own text does not show.
fn is_of_tests(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/") || file.contains("/lease/search")
}

/// Rules on single words, the same in the whole tree.
fn words_broken(file: &str, path: &Found) -> Option<String> {
    if is_of_tests(file) {
        return None;
    }
    let now = |name: &str| name == "now";
    let variable = |name: &str| name.starts_with("var") || name == "home_dir";
    let printing = ["print", "println", "eprint", "eprintln", "dbg"];
    let clocks = ["Utc", "Local", "SystemTime", "Instant"];
    let shown = path.segments.join("::");
    if path.follow == Follow::Call && printing.contains(&path.segments.last()?.as_str()) {
        return Some(format!("`{shown}!`; only the printer writes"));
    }
    let homes = if clocks.iter().any(|clock| path.has(clock, now)) {
        CLOCK
    } else if path.has("env", variable) {
        ENVIRONMENT
    } else if path.segments.iter().any(|name| name == "indicatif") {
        INDICATIF
    } else {
        return None;
    };
    (!homes.contains(&file)).then(|| format!("`{shown}` belongs in {} only", homes.join(", ")))
}

/// Rules on a path in the library's module `own`.
fn library_broken(own: &str, allowed: &[&str], module: &[&str], path: &Found) -> Option<String> {
    let target = match path.first() {
        "cvm_export" => return Some("the library names itself from outside".to_owned()),
        "crate" if path.follow == Follow::Rename && path.segments.len() == 1 => "*",
        "crate" => path.segments.get(1)?,
        "super" => {
            let supers = path.segments.iter().take_while(|name| *name == "super");
            let steps = supers.count();
            let target = path.segments.get(steps)?;
            let is_module = LIBRARY.iter().any(|(name, _)| name == target);
            // Fewer steps stay inside the module; so do names that are no top module.
            if steps < module.len() || !is_module {
                return None;
            }
            target
        }
        _ => return None,
    };
    let is_allowed = target == own || allowed.contains(&target);
    (!is_allowed).then(|| match target {
        "*" | "self" => "the whole crate at once hides what is used".to_owned(),
        _ => format!("`{own}` may not use `{target}`"),
    })
}

/// Rules on a path in the binary, which is an outside user of the library.
fn binary_broken(file: &str, path: &Found) -> Option<String> {
    let is_whole = path.follow == Follow::Rename && path.segments.len() == 1;
    let target = if is_whole { "*" } else { path.segments.get(1)? };
    match (path.first(), target) {
        ("crate" | "cvm_export", "*" | "self") => {
            Some("the whole crate at once hides what is used".to_owned())
        }
        ("crate", "cli") => None,
        ("crate", _) => Some(format!(
            "the binary holds `cli` alone; `{target}` belongs to `cvm_export`"
        )),
        ("cvm_export", "simulator") if !SIMULATOR_USERS.contains(&file) => {
            let users = SIMULATOR_USERS.join(", ");
            Some(format!("the simulator may be used in {users} only"))
        }
        _ => None,
    }
}

/// Two roots that declare the same module would compile it twice, as two different things.
fn declared_twice(sources: &[Source]) -> Vec<String> {
    let modules = |root: &str| -> Vec<(usize, String)> {
        let source = sources.iter().find(|(file, _)| file == root);
        let tokens = source.map(|(_, text)| tokens(text)).unwrap_or_default();
        tokens
            .windows(2)
            .filter_map(|pair| match pair {
                [(line, Token::Name(word)), (_, Token::Name(name))] if word == "mod" => {
                    Some((*line, name.clone()))
                }
                _ => None,
            })
            .collect()
    };
    let library = modules("src/lib.rs");
    let twice = modules("src/main.rs")
        .into_iter()
        .filter(|(_, name)| library.iter().any(|(_, other)| other == name));
    twice
        .map(|(line, name)| format!("src/main.rs:{line}: `mod {name}` stands in src/lib.rs too"))
        .collect()
}

/// Every Rust file under `folder`.
fn sources(folder: &Path) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a folder that can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let name = path.strip_prefix(root).expect("a file of this package");
            let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
            found.push((parts.join("/"), text));
        }
    }
    found.sort();
    found
}

#[test]
fn the_sources_keep_to_the_architecture() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for root in ["src/lib.rs", "src/main.rs"] {
        assert!(
            sources.iter().any(|(file, _)| file == root),
            "{root} should be among the files"
        );
    }
    let broken = check(&sources);
    assert!(
        broken.is_empty(),
        "{} broken rules:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// What the rules say of one file.
fn check_one(file: &str, text: &str) -> Vec<String> {
    check(&[(file.to_owned(), text.to_owned())])
}

#[test]
fn seeded_violations_are_caught_with_their_line() {
    let cases = [
        (
            "src/model/text.rs",
            "use crate::error::Error;",
            "`model` may not use `error`",
        ),
        (
            "src/event.rs",
            "use crate::cloud::Cloud;",
            "`event` may not use `cloud`",
        ),
        (
            "src/auth/cos.rs",
            "fn f() { crate::clock::now(); }",
            "`auth` may not use `clock`",
        ),
        (
            "src/cloud/mod.rs",
            "pub(crate) use crate::export;",
            "`cloud` may not use `export`",
        ),
        (
            "src/cloud/http.rs",
            "use crate::{auth, export::Exporter};",
            "may not use `export`",
        ),
        (
            "src/cloud/actions/cvm.rs",
            "use super::super::super::export::Plan;",
            "`export`",
        ),
        (
            "src/cloud/mod.rs",
            "use super::{model, download::Part};",
            "may not use `download`",
        ),
        (
            "src/export/mod.rs",
            "use crate::simulator::Disk;",
            "may not use `simulator`",
        ),
        (
            "src/export/mod.rs",
            "type T = Vec<crate::cli::Exit>;",
            "may not use `cli`",
        ),
        (
            "src/download/mod.rs",
            "use crate::export::Plan;",
            "may not use `export`",
        ),
        (
            "src/simulator/api.rs",
            "use crate::cloud::api::Action;",
            "may not use `cloud`",
        ),
        (
            "src/simulator/mod.rs",
            "use crate::event::Events;",
            "may not use `event`",
        ),
        ("src/export/plan.rs", "use crate::*;", "whole crate"),
        (
            "src/export/plan.rs",
            "use crate as everything;",
            "whole crate",
        ),
        (
            "src/export/plan.rs",
            "use cvm_export::simulator;",
            "names itself",
        ),
        ("src/rogue.rs", "\n", "no row"),
        (
            "src/cli/mod.rs",
            "use crate::export::Exporter;",
            "belongs to `cvm_export`",
        ),
        (
            "src/cli/mod.rs",
            "use cvm_export::{error, simulator::Disk};",
            "the simulator may be",
        ),
        (
            "src/main.rs",
            "use cvm_export::simulator::Disk;",
            "the simulator may be",
        ),
        ("src/main.rs", "use cvm_export::*;", "whole crate"),
        (
            "src/event.rs",
            "fn f() { chrono::Utc::now(); }",
            "`chrono::Utc::now` belongs in",
        ),
        (
            "src/cloud/http.rs",
            "let f = SystemTime::now;",
            "src/clock.rs only",
        ),
        (
            "src/cli/mod.rs",
            "let t = std::time::Instant::now();",
            "src/clock.rs only",
        ),
        (
            "src/cli/mod.rs",
            "let v = std::env::var(\"A\");",
            "src/environment.rs only",
        ),
        (
            "src/cloud/mod.rs",
            "use std::env::{self, vars_os};",
            "src/environment.rs only",
        ),
        ("src/cli/mod.rs", "fn f() { println!(\"x\") }", "`println!`"),
        (
            "src/cli/printer.rs",
            "fn f() { std::eprint! { \"x\" } }",
            "`std::eprint!`",
        ),
        (
            "src/cli/mod.rs",
            "use indicatif::ProgressBar;",
            "src/cli/progress.rs",
        ),
        (
            "src/auth/mod.rs",
            "#[cfg(test)]\nuse crate::x::{y};\nuse crate::cloud;",
            "`cloud`",
        ),
        (
            "src/auth/mod.rs",
            "#[cfg(test)] mod t { fn f() {} }\nuse crate::cloud;",
            "`cloud`",
        ),
        (
            "src/auth/mod.rs",
            "const C: char = '\"'; use crate::cloud; //\"",
            "`cloud`",
        ),
        (
            "src/auth/mod.rs",
            "fn f<'a>(x: &'a str) {} use crate::cloud;",
            "`cloud`",
        ),
        (
            "src/auth/mod.rs",
            "const C: &str = r#\"\"\"#; use crate::cloud;",
            "`cloud`",
        ),
        (
            "src/auth/mod.rs",
            "/* /* */ */ use crate::cloud;",
            "`cloud`",
        ),
    ];
    for (file, seeded, expected) in cases {
        let text = format!("//! A module.\n\n{seeded}\n");
        let broken = check_one(file, &text);
        assert_eq!(broken.len(), 1, "{file}: {seeded}: {broken:?}");
        assert!(broken[0].contains(expected), "{seeded}: {broken:?}");
        let line = if expected == "no row" {
            1
        } else {
            3 + seeded.matches('\n').count()
        };
        let place = format!("{file}:{line}: ");
        assert!(broken[0].starts_with(&place), "{seeded}: {broken:?}");
    }
}

#[test]
fn what_is_allowed_passes() {
    let cases = [
        ("src/error.rs", "use crate::model::{CloudText, Finding};"),
        ("src/event.rs", "fn f() { crate::clock::now(); }"),
        (
            "src/cloud/http.rs",
            "use crate::{auth::{cos, tc3}, clock, environment::Environment};",
        ),
        (
            "src/cloud/actions/cvm.rs",
            "use super::super::http::send; use super::super::super::auth;",
        ),
        (
            "src/export/mod.rs",
            "use crate::export::plan; use super::event::Events;",
        ),
        (
            "src/simulator/mod.rs",
            "use crate::auth::cos; pub(in crate::simulator) fn f() {}",
        ),
        (
            "src/cli/rehearsal.rs",
            "use cvm_export::simulator::Simulator;",
        ),
        (
            "src/cli/commands/simulate.rs",
            "use cvm_export::simulator::{Disk, Simulator};",
        ),
        (
            "src/cli/mod.rs",
            "use crate::cli::exit::Exit; use cvm_export::clock::now;",
        ),
        ("src/cli/progress.rs", "use indicatif::ProgressBar;"),
        ("src/clock.rs", "fn f() { Utc::now(); Instant::now(); }"),
        ("src/environment.rs", "fn f() { std::env::vars_os(); }"),
        (
            "src/cli/mod.rs",
            "fn f() { std::env::args(); env!(\"X\"); print != 1; }",
        ),
        (
            "src/lib.rs",
            "pub use crate::export::Exporter; pub mod cloud;",
        ),
        (
            "src/model/mod.rs",
            "// use crate::cloud;\n/* println!() */\n/// `crate::export`",
        ),
        (
            "src/model/mod.rs",
            "const A: &str = \"crate::cloud::x println!() \\\" \";",
        ),
        (
            "src/model/mod.rs",
            "const A: &str = r#\"use crate::cloud; \" Utc::now()\"#;",
        ),
        (
            "src/model/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::cloud::X; fn f() { Utc::now(); } }",
        ),
        (
            "src/model/mod.rs",
            "#[cfg(test)]\nuse crate::{cloud, export};",
        ),
    ];
    for (file, text) in cases {
        let broken = check_one(file, text);
        assert!(broken.is_empty(), "{file}: {text}: {broken:?}");
    }
}

#[test]
fn long_files_and_shared_modules_are_caught() {
    assert!(check_one("src/error.rs", &"\n".repeat(700)).is_empty());
    let broken = check_one("src/error.rs", &"\n".repeat(701));
    assert!(
        broken[0].starts_with("src/error.rs:701: 701 lines"),
        "{broken:?}"
    );

    let roots = [
        (
            "src/lib.rs".to_owned(),
            "pub mod cloud;\npub mod cli;".to_owned(),
        ),
        ("src/main.rs".to_owned(), "//! Docs.\nmod cli;".to_owned()),
    ];
    assert_eq!(
        check(&roots),
        ["src/main.rs:2: `mod cli` stands in src/lib.rs too"]
    );
}
