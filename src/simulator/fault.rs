//! Trouble as data: which call, which occurrence, what happens.
//!
//! ```json
//! {"faults": [
//!   {"call": "ExportImages", "occurrence": 1, "effect": {"kind": "processed-then-reset"}},
//!   {"call": "GetObject", "effect": {"kind": "truncated-body", "after_bytes": 1000}}
//! ]}
//! ```
//!
//! An effect before the processing keeps the world as it was; one after it does not. Where several
//! faults meet in one call, all of them apply, in the order given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation as the call log names it, or `*` for every one.
    pub call: String,
    /// Which call of that operation, counted from 1 since the faults were set; every one where it is
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
    /// Reads a fault file: `{"faults": […]}`.
    ///
    /// # Errors
    /// The text is no such JSON, or a name in it is unknown.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, InvalidFaults> {
        let file: FaultFile = serde_json::from_str(text)?;
        Ok(file.faults)
    }
}

/// The faults in force and how often each operation was called since they were set.
#[derive(Debug, Default)]
pub(super) struct FaultBook {
    faults: Vec<Fault>,
    counts: BTreeMap<String, u32>,
}

impl FaultBook {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self {
            faults,
            counts: BTreeMap::new(),
        }
    }

    /// How many calls of `operation` were counted.
    pub(super) fn count(&self, operation: &str) -> u32 {
        self.counts.get(operation).copied().unwrap_or_default()
    }

    /// Counts one call of `operation` and returns what shall happen to it.
    pub(super) fn take(&mut self, operation: &str) -> Vec<Effect> {
        let mut count = |name: &str| {
            let count = self.counts.entry(name.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let (of_all, of_this) = (count("*"), count(operation));
        self.faults
            .iter()
            .filter(|fault| {
                let occurrence = match fault.call.as_str() {
                    "*" => of_all,
                    call if call == operation => of_this,
                    _ => return false,
                };
                fault.occurrence.is_none_or(|wanted| wanted == occurrence)
            })
            .map(|fault| fault.effect.clone())
            .collect()
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
        let fault = |call: &str, occurrence| Fault {
            call: call.to_owned(),
            occurrence,
            effect: Effect::Garbage,
        };
        let mut book = FaultBook::new(vec![fault("GetObject", Some(2)), fault("*", Some(4))]);
        let hits: Vec<usize> = [
            "GetObject",
            "HeadObject",
            "GetObject",
            "GetRole",
            "GetObject",
        ]
        .iter()
        .map(|operation| book.take(operation).len())
        .collect();
        assert_eq!(hits, [0, 0, 1, 1, 0]);
    }
}
