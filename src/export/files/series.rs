//! Which names are of one series: the same job's prefixes and images, night after night. Pure.
//!
//! A name is cut only where its end is surely a moment or a serial: two hosts that are taken for one lose
//! exports, and one that is taken for two only keeps more.

use std::fmt::Write;
use std::ops::Range;

/// Digits of the longest serial.
const SERIAL_DIGITS: usize = 6;
/// Epoch seconds from 2001-09-09 to 2100-01-01.
const EPOCH_SECONDS: Range<u64> = 1_000_000_000..4_102_444_800;

/// The name of an image without a date, time or serial at its end; the whole name if nothing else is left.
///
/// - A date, with or without a time, or an epoch, goes: `web01-20261124`, `web01 2026.11.24`,
///   `web01-20261124T142255Z`, `web01-1764512575`. So does a serial behind one: `web01-20261124-2`.
/// - A number of at most six digits behind `-`, `_` or a blank goes if what it follows is a word with a
///   number of its own: `web01-1`, `web01_0007`. In `db-8`, `node-0001`, `ip-10-0-0-5` and `ubuntu22.04` the
///   number is part of the name, and so is one without a separator: `web01`.
pub(super) fn image_series(name: &str) -> &str {
    let mut rest = name.trim_end();
    loop {
        let unbracketed = rest.trim_end_matches([')', ']']);
        if let Some(before) = before_moment(unbracketed) {
            rest = before;
            continue;
        }
        let Some((before, _)) = split_serial(rest) else {
            break;
        };
        if before_moment(before).is_some() {
            rest = before;
            continue;
        }
        if has_own_number(before) {
            rest = before;
        }
        break;
    }
    match rest.chars().any(char::is_alphanumeric) {
        true => rest,
        false => name,
    }
}

/// `prefix` with `{date}` and `{time}` in the place of dates, times and epochs.
pub(super) fn prefix_series(prefix: &str) -> String {
    let mut series = String::with_capacity(prefix.len());
    let mut place = 0;
    while let Some(character) = prefix[place..].chars().next() {
        let found = moment_at(prefix, place).or_else(|| lone_time_at(prefix, place));
        let Some(moment) = found else {
            series.push(character);
            place += character.len_utf8();
            continue;
        };
        if moment.date.is_some() {
            series.push_str("{date}");
        }
        if let Some(time) = moment.time {
            let between = moment.date.map_or("", |end| &prefix[end..time.start]);
            let _ = write!(series, "{between}{{time}}");
        }
        place = moment.end;
    }
    series
}

/// A date, a time or an epoch in a text.
struct Moment {
    /// Where the date ends, if there is one.
    date: Option<usize>,
    /// The time; that of an epoch is all of it.
    time: Option<Range<usize>>,
    end: usize,
}

/// What stands before the moment at the end of `text`, without the separators between.
fn before_moment(text: &str) -> Option<&str> {
    let starts = text.char_indices().map(|(place, _)| place);
    let mut found =
        starts.filter(|place| moment_at(text, *place).is_some_and(|it| it.end == text.len()));
    let before = &text[..found.next()?];
    Some(before.trim_end_matches(|character: char| {
        character.is_whitespace() || "-_.@:#(+[".contains(character)
    }))
}

/// `text` before its last separator, and the number that follows it.
fn split_serial(text: &str) -> Option<(&str, &str)> {
    let (before, number) = text.rsplit_once(['-', '_', ' '])?;
    let is_serial = (1..=SERIAL_DIGITS).contains(&number.len()) && is_number(number);
    is_serial.then(|| (before.trim_end_matches(['-', '_', ' ']), number))
}

/// Whether `text` ends with a word such as `web01`: at least two letters, then digits.
fn has_own_number(text: &str) -> bool {
    let word = text
        .rsplit(['-', '_', ' ', '.', '/'])
        .next()
        .unwrap_or_default();
    let letters = word.trim_end_matches(|character: char| character.is_ascii_digit());
    letters.len() < word.len()
        && letters.chars().count() >= 2
        && letters.chars().all(char::is_alphabetic)
}

/// The date, with its time if one follows, or the epoch that begins at `start`.
fn moment_at(text: &str, start: usize) -> Option<Moment> {
    let digits = digits_from(text, start)?;
    let dated = |date: usize| {
        let time = time_behind(text, date);
        let end = time.as_ref().map_or(date, |time| time.end);
        let end = zone_behind(text, end);
        is_end(text, end).then_some(Moment {
            date: Some(date),
            time,
            end,
        })
    };
    match digits.len() {
        8 if is_date(digits) => dated(start + 8),
        12 | 14 if is_date(&digits[..8]) && is_time(&digits[8..]) => {
            let (middle, end) = (start + 8, start + digits.len());
            let close = zone_behind(text, end);
            is_end(text, close).then_some(Moment {
                date: Some(middle),
                time: Some(middle..end),
                end: close,
            })
        }
        // What follows a letter may be anything.
        10 | 13 if !text[..start].ends_with(char::is_alphabetic) => {
            let seconds = digits[..10].parse().ok()?;
            let end = start + digits.len();
            (EPOCH_SECONDS.contains(&seconds) && is_end(text, end)).then_some(Moment {
                date: None,
                time: Some(start..end),
                end,
            })
        }
        4 => dated(separated_date(text, start)?),
        _ => None,
    }
}

/// Six digits by themselves that are a time: in a prefix `{time}` may stand without a date.
fn lone_time_at(text: &str, start: usize) -> Option<Moment> {
    let digits = digits_from(text, start)?;
    let end = start + digits.len();
    let stands_alone = !text[..start].ends_with(char::is_alphabetic) && is_end(text, end);
    (digits.len() == 6 && is_time(digits) && stands_alone).then_some(Moment {
        date: None,
        time: Some(start..end),
        end,
    })
}

/// The end of `2026-11-24` at `start`, whichever separator it has.
fn separated_date(text: &str, start: usize) -> Option<usize> {
    let separator = text[start + 4..]
        .chars()
        .next()
        .filter(|it| "-_./".contains(*it))?;
    let month_at = start + 5;
    let month = digits_from(text, month_at).filter(|month| month.len() == 2)?;
    text[month_at + 2..].strip_prefix(separator)?;
    let day = digits_from(text, month_at + 3).filter(|day| day.len() == 2)?;
    let date = format!("{}{month}{day}", &text[start..start + 4]);
    is_date(&date).then_some(month_at + 5)
}

/// The time that follows a date which ends at `end`: `T142255`, `-142255`, `-1422`, `T14:22:55`, ` 14-22`.
fn time_behind(text: &str, end: usize) -> Option<Range<usize>> {
    let lead = text[end..]
        .chars()
        .next()
        .filter(|it| "Tt-_. ".contains(*it))?;
    let start = end + lead.len_utf8();
    let hours = digits_from(text, start)?;
    if matches!(hours.len(), 4 | 6) && is_time(hours) {
        return Some(start..start + hours.len());
    }
    if hours.len() != 2 {
        return None;
    }
    let separator = text[start + 2..]
        .chars()
        .next()
        .filter(|it| ":-_.".contains(*it))?;
    let minutes = digits_from(text, start + 3).filter(|digits| digits.len() == 2)?;
    if !is_time(&format!("{hours}{minutes}")) {
        return None;
    }
    let end = start + 5;
    let seconds = text[end..].strip_prefix(separator);
    let seconds = seconds.and_then(|_| digits_from(text, end + 1));
    let has_seconds =
        seconds.is_some_and(|it| it.len() == 2 && is_time(&format!("{hours}{minutes}{it}")));
    Some(start..if has_seconds { end + 3 } else { end })
}

/// Where a time zone ends that follows a time which ends at `end`: `Z`, `+0800` or `+08:00`.
fn zone_behind(text: &str, end: usize) -> usize {
    let rest = &text[end..];
    if rest.starts_with(['Z', 'z']) {
        return end + 1;
    }
    let Some(offset) = rest.strip_prefix('+') else {
        return end;
    };
    let offset: String = offset.chars().take(5).collect();
    let digits = offset.replace(':', "");
    match (offset.len(), is_number(&digits)) {
        (5, true) if digits.len() == 4 && offset.as_bytes()[2] == b':' => end + 6,
        (_, true) if digits.len() >= 4 && is_number(&offset[..4]) => end + 5,
        _ => end,
    }
}

/// The whole run of digits that begins at `start`, and not before it.
fn digits_from(text: &str, start: usize) -> Option<&str> {
    let is_inside = text[..start].ends_with(|character: char| character.is_ascii_digit());
    let rest = &text[start..];
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    (length > 0 && !is_inside).then(|| &rest[..length])
}

/// Whether a moment can end at `end`: no letter or digit follows.
fn is_end(text: &str, end: usize) -> bool {
    !text[end..].starts_with(char::is_alphanumeric)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date(digits: &str) -> bool {
    let year = digits[..4].parse().unwrap_or(0);
    let (month, day) = (pair(&digits[4..]), pair(&digits[6..]));
    (1990..2100).contains(&year)
        && chrono::NaiveDate::from_ymd_opt(year, u32::from(month), u32::from(day)).is_some()
}

/// Whether four or six digits are a time of the day.
fn is_time(digits: &str) -> bool {
    let seconds = if digits.len() == 6 {
        pair(&digits[4..])
    } else {
        0
    };
    pair(digits) < 24 && pair(&digits[2..]) < 60 && seconds < 61
}

fn pair(digits: &str) -> u8 {
    digits[..2].parse().unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_times_and_serials_are_cut_from_an_images_name() {
        for name in [
            "web01",
            "web01-20261124",
            "web01_20261124",
            "web01.20261124",
            "web01 20261124",
            "web01-2026-11-24",
            "web01-2026-11-25",
            "web01 2026.11.24",
            "web01_2026_11_24",
            "web01 2026/11/24",
            "web01 (2026-11-24)",
            "web01 [20261124]",
            "web01@2026-11-24",
            "web01-20261124142255",
            "web01-202611241422",
            "web01-20261124-142255",
            "web01-20261124_1422",
            "web01-20261124T142255Z",
            "web01-20261124t142255z",
            "web01-20261124142255Z",
            "web01-2026-11-24T14:22:55Z",
            "web01-2026-11-24T14:22:55+08:00",
            "web01-2026-11-24T142255+0800",
            "web01-2026-11-24 14:22",
            "web01-2026-11-24-14-22-55",
            "web01-2026-11-24_14.22.55",
            "web01-1764512575",
            "web01-1764512575123",
            "web01-1",
            "web01_0007",
            "web01 12",
            "web01-142255",
            "web01-202611",
            "web01-20261124-2",
            "web01-2026-11-24_003",
            "web01-20261124-142255-2",
            "web01-1-20261124",
            "web01 - 20261124 ",
        ] {
            assert_eq!(image_series(name), "web01", "{name}");
        }
        for (name, expected) in [
            ("web20261124", "web"),
            ("db-8-20261124", "db-8"),
            ("ip-10-0-0-5-20261124", "ip-10-0-0-5"),
            ("数据库01-20261124", "数据库01"),
            ("数据库-20261124", "数据库"),
            ("web01-20261124-prod", "web01-20261124-prod"),
            ("my web server 20261124", "my web server"),
        ] {
            assert_eq!(image_series(name), expected, "{name}");
        }
    }

    #[test]
    fn distinct_hosts_and_versions_keep_their_names() {
        for name in [
            "web02",
            "db-8",
            "db-9",
            "db_8",
            "node-0001",
            "node-0002",
            "vm-12345",
            "host-100123",
            "ip-10-0-0-5",
            "ip-10-0-0-6",
            "k8s-1",
            "k8s-2",
            "app-v2-3",
            "web-2-3",
            "ubuntu22.04",
            "ubuntu22.10",
            "app-1.2.3",
            "x86-64",
            "web01-1234567",
            "web01-20261399",
            "web01-20261324",
            "web0120261124x",
            "web0120261124",
            "web-2026-13-01",
            "web-2026-11",
            "acct-12345678",
            "acct-99999999",
            "web-0123456789",
            "web-20261124abc",
            "20261124-web01",
            "20261124",
            "2026-11-24",
            "1",
            "-",
            "",
            " ",
            "web-",
            "é",
            "web01-é",
        ] {
            assert_eq!(image_series(name), name, "{name}");
        }
    }

    #[test]
    fn dates_and_times_in_a_prefix_are_placeholders() {
        for (prefix, expected) in [
            ("golden", "golden"),
            ("nightly/{image_name}-{date}", "nightly/{image_name}-{date}"),
            ("nightly/web01-20261124", "nightly/web01-{date}"),
            ("nightly-2026-11-24/web01", "nightly-{date}/web01"),
            ("2026/11/24/web01", "{date}/web01"),
            ("p-20261124-142255", "p-{date}-{time}"),
            ("p-20261124142255", "p-{date}{time}"),
            ("p-20261124T142255Z", "p-{date}T{time}"),
            ("p-20261124-1422", "p-{date}-{time}"),
            ("p-142255", "p-{time}"),
            ("p-142255-20261124", "p-{time}-{date}"),
            ("p-1764512575", "p-{time}"),
            ("p-1764512575123/x", "p-{time}/x"),
            ("build20261124", "build{date}"),
            ("rel142255", "rel142255"),
            ("p-995959", "p-995959"),
            ("host-10-0-0-5", "host-10-0-0-5"),
            ("web01", "web01"),
            ("p-0020261124", "p-0020261124"),
            ("p-20261124abc", "p-20261124abc"),
            ("数据-20261124-é", "数据-{date}-é"),
            ("", ""),
        ] {
            assert_eq!(prefix_series(prefix), expected, "{prefix}");
            // What was cut is not cut again.
            assert_eq!(prefix_series(expected), expected);
        }
    }
}
