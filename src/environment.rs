//! The process environment as a value, captured once and handed to whoever needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// A snapshot of the environment variables and the home folder. An empty variable counts as unset.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The names of variables whose values are no Unicode.
    undecodable: BTreeSet<String>,
    home: Option<PathBuf>,
}

/// One variable of this process, for what no caller can hand in. An empty one counts as unset.
#[cfg(any(debug_assertions, not(unix)))]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Environment {
    /// Captures the environment of this process. Of a variable whose value is no Unicode the name is
    /// kept; see [`Environment::undecodable`].
    #[must_use]
    pub fn capture() -> Self {
        let mut variables = BTreeMap::new();
        let mut undecodable = BTreeSet::new();
        for (name, value) in std::env::vars_os() {
            // Nobody asks for a name that is no Unicode.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) => drop(undecodable.insert(name)),
            }
        }
        Self {
            variables,
            undecodable,
            home: std::env::home_dir().filter(|home| home.is_absolute()),
        }
    }

    /// An environment made of `variables` and `home` alone.
    #[must_use]
    pub fn new<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
        home: Option<PathBuf>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            variables: variables.collect(),
            undecodable: BTreeSet::new(),
            home,
        }
    }

    /// The first of `names` that is set to something that is no Unicode: [`Environment::get`] cannot
    /// tell it, and to take it for unset would be a guess.
    #[must_use]
    pub fn undecodable<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        names
            .into_iter()
            .find(|name| self.undecodable.contains(*name))
    }

    /// Whether `name` is set to anything but nothing.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some() || self.undecodable.contains(name)
    }

    /// The value of `name`, unless it is unset, empty or no Unicode.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The home folder.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

/// Shows the names alone: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("undecodable", &self.undecodable)
            .field("home", &self.home)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset_and_a_blank_one_does_not() {
        let environment = Environment::new([("A", "x"), ("EMPTY", ""), ("BLANK", " ")], None);
        let cases = [
            ("A", Some("x")),
            ("EMPTY", None),
            ("BLANK", Some(" ")),
            ("a", None),
            ("ABSENT", None),
        ];
        for (name, expected) in cases {
            assert_eq!(environment.get(name), expected, "asked: {name}");
        }
    }

    #[test]
    fn the_last_of_two_values_counts_and_the_home_is_as_given() {
        let environment = Environment::new([("A", "x"), ("A", "y")], Some(PathBuf::from("/h")));
        assert_eq!(environment.get("A"), Some("y"));
        assert_eq!(environment.home(), Some(Path::new("/h")));
        assert_eq!(Environment::default().home(), None);
    }

    #[test]
    fn a_value_that_is_no_unicode_is_known_by_its_name_alone() {
        let environment = Environment {
            undecodable: BTreeSet::from(["B".to_owned(), "C".to_owned()]),
            ..Environment::new([("A", "x"), ("EMPTY", "")], None)
        };
        assert_eq!(environment.get("B"), None);
        assert_eq!(environment.undecodable(["A", "C", "B"]), Some("C"));
        assert_eq!(environment.undecodable(["A", "D"]), None);
        let is_set = ["A", "B", "EMPTY", "D"].map(|name| environment.is_set(name));
        assert_eq!(is_set, [true, true, false, false]);
    }

    #[test]
    fn debug_output_shows_names_and_never_values() {
        let environment = Environment::new([("TENCENTCLOUD_SECRET_KEY", "do-not-show")], None);
        for shown in [format!("{environment:?}"), format!("{environment:#?}")] {
            assert!(shown.contains("TENCENTCLOUD_SECRET_KEY"), "{shown}");
            assert!(!shown.contains("do-not-show"), "{shown}");
        }
    }

    #[test]
    fn this_process_has_the_environment_that_its_tests_were_started_with() {
        let environment = Environment::capture();
        // Cargo and every system set it; the value is whatever it is.
        let expected = std::env::var("PATH").ok();
        assert_eq!(
            environment.get("PATH"),
            expected.as_deref().filter(|path| !path.is_empty())
        );
        assert!(environment.home().is_none_or(Path::is_absolute));
    }
}
