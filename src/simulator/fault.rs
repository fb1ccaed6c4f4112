//! Trouble as data: which call, which occurrence, what happens.
//!
//! ```json
//! {"faults": [
//!   {"call": "ExportImages", "occurrence": 1, "effect": {"kind": "processed-then-reset"}},
//!   {"call": "GetObject", "effect": {"kind": "truncated-body", "after_bytes": 1000}},
//!   {"call": "PutObject", "key": "p_*.lease-*", "effect": {"kind": "hold", "name": "a"}}
//! ]}
//! ```
//!
//! An effect before the processing keeps the world as it was; one after it does not. Where several
//! faults meet in one call, all of them apply, in the order given.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{api, cos, metadata};

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation as the call log names it, or `*` for every one. A file that names an operation
    /// that the simulator does not know is refused.
    #[serde(deserialize_with = "known_call")]
    pub call: String,
    /// The object key that the call must be about, `*` in it standing for any characters. Calls that are
    /// not about one object never match. If it is missing, every call matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Which of the calls that match, counted from 1 since the faults were set; every one where it is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// What a fault does to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// The connection is reset; the call is not processed.
    ResetBefore,
    /// The call is processed, then the connection is reset instead of an answer.
    ProcessedThenReset,
    /// The server thinks before it processes.
    DelayBefore {
        /// How long.
        milliseconds: u64,
    },
    /// The call is processed at once and answered late.
    DelayAfter {
        /// How long.
        milliseconds: u64,
    },
    /// The call waits, before it is processed, until [`Simulator::release`](super::Simulator::release)
    /// names its hold. If the client hangs up meanwhile, it is never processed.
    Hold {
        /// The name of the hold.
        name: String,
    },
    /// The call is processed at once, and its answer waits until it is released.
    HoldAfter {
        /// The name of the hold.
        name: String,
    },
    /// The body trickles.
    SlowBody {
        /// How fast.
        bytes_per_second: u64,
    },
    /// The body stops and the connection stays open.
    StalledBody {
        /// How many bytes come before that.
        after_bytes: u64,
    },
    /// The connection closes in the middle of the body; `Content-Length` had promised more.
    TruncatedBody {
        /// How many bytes come before that.
        after_bytes: u64,
    },
    /// The body is short and `Content-Length` agrees with it, as behind a broken proxy.
    ShortBodyAgreeing {
        /// How many bytes come.
        bytes: u64,
    },
    /// A gateway's HTML page with this status; the call is not processed.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// A gateway's HTML page with this status, although the call was processed.
    StatusAfter {
        /// The HTTP status.
        status: u16,
    },
    /// An API error; the call is not processed.
    ApiError {
        /// `Error.Code`.
        code: String,
    },
    /// A COS error; the call is not processed.
    CosError {
        /// The HTTP status.
        status: u16,
        /// `Code`.
        code: String,
    },
    /// A multi-delete is processed, but for its first keys: they get a COS error of their own.
    RefusedKeys {
        /// How many keys.
        keys: usize,
        /// `Code`.
        code: String,
    },
    /// The right status over a body that is neither JSON nor XML.
    Garbage,
    /// The right status over no body.
    EmptyBody,
    /// The right document before this many bytes of blanks, which JSON and XML both skip.
    HugeBody {
        /// The number of blanks.
        bytes: usize,
    },
    /// A field is missing: of the JSON at any depth, an XML element, or a header.
    MissingField {
        /// Its name.
        name: String,
    },
    /// A field is there and says nothing: JSON `null`, an empty XML element, an empty header.
    NullField {
        /// Its name.
        name: String,
    },
    /// A field that nobody documented.
    ExtraField {
        /// Its name.
        name: String,
    },
    /// The server's clock is ahead by this much for the call, in its check and in its `Date`.
    ClockOffset {
        /// How much; negative for behind.
        seconds: i64,
    },
    /// The answer bears this `Date`, which is not the server's time.
    WrongDate {
        /// The header's value.
        date: String,
    },
    /// The session token counts as expired.
    ExpiredToken,
    /// The object is replaced by another of the same length just before the answer.
    ChangedObject,
    /// One byte of the body is not the one that the cloud holds.
    FlippedByte {
        /// Its place in the body.
        at: u64,
    },
    /// `Content-Range` tells of another range than the body's.
    WrongContentRange,
    /// `Range` is overlooked: the whole object comes, with status 200.
    WholeForRange,
    /// A redirect (307) to elsewhere; the call is not processed.
    Redirect {
        /// The `Location`.
        location: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultFile {
    faults: Vec<Fault>,
}

/// What is wrong with a fault file, and in which line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidFaults {
    line: usize,
    problem: String,
}

impl From<serde_json::Error> for InvalidFaults {
    fn from(error: serde_json::Error) -> Self {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&place).unwrap_or(&text);
        let problem = if error.is_data() {
            // The words of the parser for values of an enum and fields of a structure.
            text.replace("unknown variant", "there is no kind")
                .replace("unknown field", "there is no field")
                .replace("missing field", "there must be a field")
                .replace("expected one of", "but")
                .replace("invalid type:", "not as it should be:")
        } else {
            "what stands there is no JSON".to_owned()
        };
        Self {
            line: error.line(),
            problem,
        }
    }
}

impl Fault {
    /// Every call of the operation `call` meets `effect`.
    pub fn new(call: impl Into<String>, effect: Effect) -> Self {
        Self {
            call: call.into(),
            key: None,
            occurrence: None,
            effect,
        }
    }

    /// The same, for calls about object keys that match `key` alone.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        let key = Some(key.into());
        Self { key, ..self }
    }

    /// The same, for one call alone: the one of this number, from 1.
    #[must_use]
    pub fn with_occurrence(self, occurrence: u32) -> Self {
        let occurrence = Some(occurrence);
        Self { occurrence, ..self }
    }

    /// Reads a fault file: `{"faults": […]}`.
    ///
    /// # Errors
    /// The text is no such JSON, or a name in it is unknown.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, InvalidFaults> {
        let file: FaultFile = serde_json::from_str(text)?;
        Ok(file.faults)
    }

    /// The name of the hold, if the effect is one.
    pub(super) fn hold(&self) -> Option<&str> {
        match &self.effect {
            Effect::Hold { name } | Effect::HoldAfter { name } => Some(name),
            _ => None,
        }
    }

    fn matches(&self, operation: &str, key: Option<&str>) -> bool {
        let is_call = self.call == "*" || self.call == operation;
        let is_key = match (&self.key, key) {
            (None, _) => true,
            (Some(pattern), Some(key)) => matches_pattern(pattern, key),
            (Some(_), None) => false,
        };
        is_call && is_key
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any number of characters.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    // The earliest place of each piece leaves the most room to the pieces behind it.
    for piece in pieces {
        match text.split_once(piece) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Every name that a fault may give a call, in the order of the alphabet.
fn known_calls() -> Vec<String> {
    let api = api::operations().map(str::to_owned);
    let metadata = metadata::OPERATIONS.map(str::to_owned);
    let mut calls: Vec<String> = api.chain(cos::operations()).chain(metadata).collect();
    calls.sort_unstable();
    calls
}

fn known_call<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let call = String::deserialize(deserializer)?;
    let known = known_calls();
    if call == "*" || known.contains(&call) {
        return Ok(call);
    }
    let nearest = known.iter().min_by_key(|known| distance(known, &call));
    Err(D::Error::custom(format!(
        "there is no call `{call}`; the nearest is `{}`, and `*` is every one",
        nearest.map_or("*", String::as_str)
    )))
}

/// How many characters must be added, removed or replaced to make one name of the other; upper and lower
/// case are the same.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// A fault in force.
#[derive(Debug)]
struct Entry {
    fault: Fault,
    /// How many calls matched it.
    matched: u32,
    /// Whether one of them met it.
    is_met: bool,
}

/// The faults in force and how often each operation was called since they were set.
#[derive(Debug, Default)]
pub(super) struct FaultBook {
    entries: Vec<Entry>,
    counts: BTreeMap<String, u32>,
}

impl FaultBook {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        let entry = |fault| Entry {
            fault,
            matched: 0,
            is_met: false,
        };
        Self {
            entries: faults.into_iter().map(entry).collect(),
            counts: BTreeMap::new(),
        }
    }

    /// How many calls of `operation` were counted.
    pub(super) fn count(&self, operation: &str) -> u32 {
        self.counts.get(operation).copied().unwrap_or_default()
    }

    /// Whether a fault holds calls under this name.
    pub(super) fn has_hold(&self, name: &str) -> bool {
        let mut holds = self.entries.iter().filter_map(|entry| entry.fault.hold());
        holds.any(|hold| hold == name)
    }

    /// The faults that no call has met, in the order given.
    pub(super) fn unmet(&self) -> Vec<Fault> {
        let unmet = self.entries.iter().filter(|entry| !entry.is_met);
        unmet.map(|entry| entry.fault.clone()).collect()
    }

    /// Counts one call of `operation`, about the object `key` if it is about one, and returns the
    /// faults that it meets.
    pub(super) fn take(&mut self, operation: &str, key: Option<&str>) -> Vec<Fault> {
        let count = self.counts.entry(operation.to_owned()).or_default();
        *count = count.saturating_add(1);
        let mut met = Vec::new();
        for entry in &mut self.entries {
            if !entry.fault.matches(operation, key) {
                continue;
            }
            entry.matched = entry.matched.saturating_add(1);
            let wanted = entry.fault.occurrence;
            if wanted.is_none_or(|wanted| wanted == entry.matched) {
                entry.is_met = true;
                met.push(entry.fault.clone());
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_file_is_read_strictly() {
        let text = r#"{"faults": [
            {"call": "ExportImages", "occurrence": 1, "effect": {"kind": "processed-then-reset"}},
            {"call": "*", "effect": {"kind": "slow-body", "bytes_per_second": 10}}
        ]}"#;
        let faults = Fault::parse_file(text).expect("a valid file");
        assert_eq!(faults[0].effect, Effect::ProcessedThenReset);
        assert_eq!(faults[1].occurrence, None);
        for broken in [
            "[]",
            r#"{"faults": [{"call": "*", "effect": {"kind": "explode"}}]}"#,
            r#"{"faults": [{"call": "*", "when": 1, "effect": {"kind": "garbage"}}]}"#,
            r#"{"faults": [{"call": "*", "effect": {"kind": "status", "status": 500, "x": 1}}]}"#,
        ] {
            assert!(Fault::parse_file(broken).is_err(), "{broken}");
        }
        for (broken, said) in [
            ("{\n\"faults\":,\n", "line 2: what stands there is no JSON"),
            (
                "{\"faults\": [\n{\"call\": \"*\", \"effect\": {\"kind\": \"explode\"}}\n]}",
                "line 2: there is no kind `explode`, but `reset-before`",
            ),
            (
                "{\"faults\": [\n{\"call\": \"getobjekt\"}]}",
                "line 2: there is no call `getobjekt`; the nearest is `GetObject`",
            ),
            (
                "{\"faults\": [\n\n{\"call\": \"*\"}]}",
                "line 3: there must be a field `effect`",
            ),
        ] {
            let error = Fault::parse_file(broken).expect_err(broken).to_string();
            assert!(error.starts_with(said), "asked: {broken}, seen: {error}");
        }
    }

    #[test]
    fn occurrences_are_counted_for_each_operation_from_one() {
        let fault =
            |call: &str, occurrence| Fault::new(call, Effect::Garbage).with_occurrence(occurrence);
        let mut book = FaultBook::new(vec![fault("GetObject", 2), fault("*", 4)]);
        let hits: Vec<usize> = [
            "GetObject",
            "HeadObject",
            "GetObject",
            "GetRole",
            "GetObject",
        ]
        .iter()
        .map(|operation| book.take(operation, None).len())
        .collect();
        assert_eq!(hits, [0, 0, 1, 1, 0]);
        assert_eq!((book.count("GetObject"), book.count("GetRole")), (3, 1));
        assert_eq!(book.unmet(), []);
    }

    #[test]
    fn with_a_key_the_calls_about_it_are_counted_alone() {
        let lease = Fault::new("PutObject", Effect::Garbage).with_key("p_*.lease-*");
        let second = lease.clone().with_occurrence(2);
        let never = Fault::new("*", Effect::Garbage).with_key("other");
        let mut book = FaultBook::new(vec![lease, second, never.clone()]);
        let calls = [
            ("PutObject", Some("p_img-1.lease-1")),
            ("PutObject", Some("p_img-1.record")),
            ("HeadObject", Some("p_img-1.lease-1")),
            ("PutObject", Some("p_img-2.lease-1")),
            ("ExportImages", None),
        ];
        let hits = calls.map(|(operation, key)| book.take(operation, key).len());
        assert_eq!(hits, [1, 0, 0, 2, 0]);
        assert_eq!(book.unmet(), [never]);
    }

    #[test]
    fn a_star_in_a_key_is_any_number_of_characters() {
        for (pattern, key, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("", "", true),
            ("*", "", true),
            ("*", "a/b", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*.lease-*", "p_img-1.cvm-export.lease-7", true),
            ("*.lease-*", "p_img-1.cvm-export.lease", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("**x", "x", true),
            ("日*本", "日x本", true),
        ] {
            assert_eq!(matches_pattern(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn a_wrong_name_of_a_call_is_answered_with_the_nearest() {
        for (wrong, nearest) in [
            ("ExportImage", "ExportImages"),
            ("exportimages", "ExportImages"),
            ("HeadObjects", "HeadObject"),
            ("DescribeImage", "DescribeImages"),
        ] {
            let text = format!(
                r#"{{"faults": [{{"call": "{wrong}", "effect": {{"kind": "garbage"}}}}]}}"#
            );
            let error = Fault::parse_file(&text).expect_err(wrong).to_string();
            let expected = format!("the nearest is `{nearest}`");
            assert!(error.contains(&expected), "{error}");
        }
        let known = known_calls();
        for call in ["ExportImages", "GetObject", "GetInstanceRole", "GetPolicy"] {
            assert!(known.iter().any(|known| known == call), "{call}");
        }
    }

    #[test]
    fn the_documentation_lists_every_call() {
        let text = include_str!("../../docs/rehearse.md");
        let mut missing = known_calls();
        missing.retain(|call| !text.contains(&format!("`{call}`")));
        assert!(missing.is_empty(), "not in docs/rehearse.md: {missing:?}");
    }
}
