//! The local names of objects: no two alike, none that leaves its folder, none that another one's
//! partial file or ledger needs.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind};
use crate::model::ObjectKey;

use super::target::SUFFIXES;

/// Keys that cannot be fetched into one folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNames {
    /// A key ends with a slash.
    #[error("the key `{0}` ends with a slash and names no file")]
    NoName(ObjectKey),
    /// The name means something else to this system than a file of the folder.
    #[error("the key `{key}` can name no file on this system: {problem}")]
    Impossible {
        /// The key.
        key: ObjectKey,
        /// What is wrong with its last segment.
        problem: &'static str,
    },
    /// Two names are one to this system.
    #[error("two objects would both be called `{0}`")]
    Doubled(String),
    /// The name of one is what another needs while it is fetched.
    #[error("`{name}` is what `{other}` is called, or noted in, while it is fetched")]
    Needed {
        /// The name.
        name: String,
        /// Whose partial file or ledger is called so.
        other: String,
    },
}

impl From<InvalidNames> for Error {
    fn from(invalid: InvalidNames) -> Self {
        let hint = match &invalid {
            InvalidNames::NoName(_) => None,
            InvalidNames::Impossible { .. } => Some("name a file with `--to`"),
            InvalidNames::Doubled(_) | InvalidNames::Needed { .. } => {
                Some("fetch them one by one into different folders")
            }
        };
        Self::new(ErrorKind::Usage, invalid.to_string()).with_optional_hint(hint.map(str::to_owned))
    }
}

/// What a system makes of names.
#[derive(Clone, Copy, Debug)]
struct System {
    /// Whether `A` and `a` are the same file, as they are by default on Windows and macOS.
    folds_case: bool,
    /// Whether names are read as Windows reads them.
    is_windows: bool,
}

const HERE: System = System {
    folds_case: cfg!(any(windows, target_os = "macos")),
    is_windows: cfg!(windows),
};

/// The names that the objects of `keys` get in one folder, in the same order: the last segments.
///
/// # Errors
/// [`InvalidNames`] where they cannot all stand there.
pub fn local_names<'a>(
    keys: impl IntoIterator<Item = &'a ObjectKey>,
) -> Result<Vec<&'a str>, InvalidNames> {
    names_on(HERE, keys)
}

fn names_on<'a>(
    system: System,
    keys: impl IntoIterator<Item = &'a ObjectKey>,
) -> Result<Vec<&'a str>, InvalidNames> {
    let fold = |name: &str| match system.folds_case {
        true => name.to_lowercase(),
        false => name.to_owned(),
    };
    let mut names = Vec::new();
    let mut taken = HashMap::new();
    for key in keys {
        let name = key.file_name();
        if name.is_empty() {
            return Err(InvalidNames::NoName(key.clone()));
        }
        if let Some(problem) = windows_problem(name).filter(|_| system.is_windows) {
            let key = key.clone();
            return Err(InvalidNames::Impossible { key, problem });
        }
        if taken.insert(fold(name), name).is_some() {
            return Err(InvalidNames::Doubled(name.to_owned()));
        }
        names.push(name);
    }
    for other in &names {
        for suffix in SUFFIXES {
            if let Some(name) = taken.get(&fold(&format!("{other}{suffix}"))) {
                return Err(InvalidNames::Needed {
                    name: (*name).to_owned(),
                    other: (*other).to_owned(),
                });
            }
        }
    }
    Ok(names)
}

/// Why `name` is no file of its folder to Windows.
fn windows_problem(name: &str) -> Option<&'static str> {
    const DEVICES: &[&str] = &["CON", "PRN", "AUX", "NUL"];
    if name.contains(['\\', '/', ':']) {
        return Some("`\\` and `:` lead elsewhere");
    }
    if name.contains(['<', '>', '"', '|', '?', '*']) || name.contains(char::is_control) {
        return Some("it holds a character that no name may hold");
    }
    if name.ends_with(['.', ' ']) {
        return Some("a dot or a blank at its end would be lost");
    }
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let stem = stem.to_uppercase();
    let has_number = |rest: &str| {
        let mut characters = rest.chars();
        matches!(
            (characters.next(), characters.next()),
            (Some('0'..='9' | '¹' | '²' | '³'), None)
        )
    };
    let is_port = ["COM", "LPT"]
        .iter()
        .any(|port| stem.strip_prefix(port).is_some_and(has_number));
    (is_port || DEVICES.contains(&stem.as_str())).then_some("it is the name of a device")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: System = System {
        folds_case: false,
        is_windows: false,
    };
    const MACOS: System = System {
        folds_case: true,
        is_windows: false,
    };
    const WINDOWS: System = System {
        folds_case: true,
        is_windows: true,
    };

    fn said(system: System, keys: &[&str]) -> String {
        let keys: Vec<ObjectKey> = keys.iter().map(|key| key.parse().expect("a key")).collect();
        match names_on(system, &keys) {
            Ok(names) => names.join(" "),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn the_last_segments_are_the_names_where_no_two_are_alike() {
        assert_eq!(said(LINUX, &["a/x.raw", "b/y.raw", "z"]), "x.raw y.raw z");
        assert_eq!(said(LINUX, &["X.raw", "x.raw"]), "X.raw x.raw");
        for system in [MACOS, WINDOWS] {
            assert_eq!(
                said(system, &["a/X.raw", "b/x.raw"]),
                "two objects would both be called `x.raw`"
            );
        }
        assert_eq!(
            said(LINUX, &["a/x.raw", "b/x.raw"]),
            "two objects would both be called `x.raw`"
        );
        assert_eq!(
            said(LINUX, &["folder/"]),
            "the key `folder/` ends with a slash and names no file"
        );
    }

    #[test]
    fn no_name_is_another_ones_partial_file_or_ledger() {
        for suffix in [".cvm-part", ".cvm-part.json", ".cvm-part.json.new"] {
            let needed = format!("x{suffix}");
            for keys in [[needed.as_str(), "x"], ["x", needed.as_str()]] {
                assert!(
                    said(LINUX, &keys).contains("while it is fetched"),
                    "{keys:?}"
                );
            }
            assert_eq!(said(LINUX, &[&needed]), needed, "alone it harms nobody");
        }
        assert_eq!(said(LINUX, &["X", "x.cvm-part"]), "X x.cvm-part");
        assert!(said(MACOS, &["X", "x.cvm-part"]).contains("while it is fetched"));
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused_on_windows_alone() {
        for name in [
            "..\\evil.raw",
            "C:evil.raw",
            "disk.raw:stream",
            "a*b",
            "what?",
            "end.",
            "end ",
            "nul",
            "NUL.raw",
            "com1.txt",
            "LPT9",
            "COM¹",
        ] {
            assert_eq!(said(LINUX, &[name]), name);
            let said = said(WINDOWS, &[name]);
            assert!(said.contains("can name no file on this system"), "{said}");
        }
        for name in [
            "disk.raw",
            "com.raw",
            "com12",
            "nullable",
            "腾讯云.raw",
            ".x",
        ] {
            assert_eq!(said(WINDOWS, &[name]), name);
        }
    }
}
