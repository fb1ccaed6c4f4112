//! Values that people write on the command line and that no crate reads as the contract says.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cvm_export::model::InvalidValue;

/// Looks more often than this cost requests and tell nothing.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A hundred years: longer is a slip of the keyboard, and would overflow dates.
const LONGEST_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads durations such as `500ms`, `30s`, `6h` and `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, InvalidValue> {
    let refuse = |problem: &str| Err(InvalidValue::new("duration", text, problem, "1h30m"));
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return refuse("it is empty");
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let Ok(number) = number.parse::<u64>() else {
            return refuse("each unit follows a whole number");
        };
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return refuse("a number lacks its unit: ms, s, m, h or d"),
            _ => return refuse("units are ms, s, m, h and d"),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        match part.and_then(|part| total.checked_add(part)) {
            Some(sum) if sum <= LONGEST_DURATION => total = sum,
            _ => return refuse("it is longer than a hundred years"),
        }
        rest = after;
    }
    Ok(total)
}

/// Reads a time such as `2026-11-24T14:22:55Z`.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, InvalidValue> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.to_utc()),
        Err(_) => Err(InvalidValue::new(
            "time",
            text,
            "a date, a time of day and a zone are needed",
            "2026-11-24T14:22:55Z",
        )),
    }
}

/// Reads a duration that is not zero.
pub(crate) fn timeout(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text)? {
        Duration::ZERO => Err(InvalidValue::new("timeout", text, "it is zero", "6h")),
        timeout => Ok(timeout),
    }
}

/// Reads a duration of at least 100 ms.
pub(crate) fn poll_interval(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text)? {
        short if short < SHORTEST_POLL_INTERVAL => Err(InvalidValue::new(
            "poll interval",
            text,
            "the shortest is 100ms",
            "30s",
        )),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let milliseconds = |text| duration(text).expect(text).as_millis();
        assert_eq!(milliseconds("500ms"), 500);
        assert_eq!(milliseconds("30s"), 30_000);
        assert_eq!(milliseconds("1h30m"), 5_400_000);
        assert_eq!(milliseconds("2d"), 172_800_000);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "h",
            "1.5h",
            "-1s",
            "1 h",
            "1w",
            "1h30",
            "99999999999999999999s",
            "200000d",
            "１s",
        ] {
            assert!(duration(text).is_err(), "`{text}` should be refused");
        }
        assert!(timeout("0s").is_err());
        assert!(poll_interval("99ms").is_err());
        assert!(poll_interval("100ms").is_ok());
    }
}
