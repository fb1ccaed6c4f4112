//! Values that people write on the command line and that no crate reads as the contract says.

use std::num::NonZeroUsize;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cvm_export::model::InvalidValue;

/// Looks more often than this cost requests and tell nothing.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A hundred years: longer is a slip of the keyboard, and would overflow dates.
const LONGEST_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What other clouds allow presigned links at most; COS tells no limit.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

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

/// Reads sizes such as `8MiB`, `1GB` and `512`, in bytes.
pub(crate) fn size(text: &str) -> Result<u64, InvalidValue> {
    let refuse = |problem: &str| Err(InvalidValue::new("size", text, problem, "8MiB"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return refuse("it begins with a whole number");
    };
    let bytes: u64 = match unit
        .strip_suffix("/s")
        .unwrap_or(unit)
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return refuse("units are KiB, MiB, GiB, TiB, and KB, MB, GB, TB"),
    };
    match number.checked_mul(bytes) {
        Some(0) => refuse("it is zero"),
        Some(size) => Ok(size),
        None => refuse("it is too large"),
    }
}

/// Reads the size of a part: requests for less cost more than they bring, and more than 1 GiB is lost
/// at once with a connection.
pub(crate) fn part_size(text: &str) -> Result<u64, InvalidValue> {
    match size(text)? {
        size @ 65_536..=1_073_741_824 => Ok(size),
        _ => Err(InvalidValue::new(
            "part size",
            text,
            "it must be from 64KiB to 1GiB",
            "8MiB",
        )),
    }
}

/// Reads a number of connections.
pub(crate) fn connections(text: &str) -> Result<usize, InvalidValue> {
    match text.parse() {
        Ok(connections @ 1..=128) => Ok(connections),
        _ => Err(InvalidValue::new(
            "number of connections",
            text,
            "it must be from 1 to 128",
            "8",
        )),
    }
}

/// Reads a number of exports that run at once.
pub(crate) fn slots(text: &str) -> Result<usize, InvalidValue> {
    match text.parse() {
        Ok(exports @ 1..=1000) => Ok(exports),
        _ => Err(InvalidValue::new(
            "number of exports",
            text,
            "it must be from 1 to 1000",
            "5",
        )),
    }
}

/// Reads a number of days that something is kept.
pub(crate) fn days(text: &str) -> Result<u32, InvalidValue> {
    whole(text, "number of days", 36_500, "30")
}

/// Reads a number of months of 30 days that something is kept.
pub(crate) fn months(text: &str) -> Result<u32, InvalidValue> {
    whole(text, "number of months", 1_200, "6")
}

/// Reads a number of exports that are kept.
pub(crate) fn exports(text: &str) -> Result<NonZeroUsize, InvalidValue> {
    text.parse().map_err(|_| {
        let problem = "it must be 1 or more".to_owned();
        InvalidValue::new("number of exports", text, problem, "3")
    })
}

/// Reads a whole number from 1 to `most`, which is a hundred years of what it counts, or more than there is.
fn whole(
    text: &str,
    what: &'static str,
    most: u32,
    example: &'static str,
) -> Result<u32, InvalidValue> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => {
            let problem = format!("it must be from 1 to {most}");
            Err(InvalidValue::new(what, text, problem, example))
        }
    }
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

/// Reads how long a link is good, from 1 s to 7 days: what leaks with it leaks for as long.
pub(crate) fn link_lifetime(text: &str) -> Result<Duration, InvalidValue> {
    let refuse = |problem: &str| Err(InvalidValue::new("lifetime", text, problem, "1h"));
    match duration(text)? {
        short if short < Duration::from_secs(1) => refuse("the shortest is 1s"),
        long if long > LONGEST_LINK => refuse("the longest is 7d"),
        lifetime => Ok(lifetime),
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
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512", 512),
            ("8MiB", 8 << 20),
            ("1GB", 1_000_000_000),
            ("2g", 2 << 30),
            ("20MiB/s", 20 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "MiB",
            "8 MiB",
            "-1",
            "1.5GB",
            "8XB",
            "99999999999999999999",
            "20000000TiB",
        ] {
            assert!(size(text).is_err(), "`{text}` should be refused");
        }
        assert!(
            part_size("1KiB").is_err() && part_size("2GiB").is_err() && part_size("64KiB").is_ok()
        );
        assert!(
            connections("0").is_err() && connections("129").is_err() && connections("16").is_ok()
        );
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
        assert!(link_lifetime("999ms").is_err() && link_lifetime("169h").is_err());
        assert!(link_lifetime("1s").is_ok() && link_lifetime("7d").is_ok());
        assert!(timeout("0s").is_err());
        assert!(poll_interval("99ms").is_err());
        assert!(poll_interval("100ms").is_ok());
    }
}
