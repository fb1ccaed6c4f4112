//! `os-release`, the file in which a Linux system says what it is.
//!
//! The format is that of <https://www.freedesktop.org/software/systemd/man/os-release.html>.

use crate::model::CloudText;

use super::report::OsRelease;

/// The longest file that is read; real ones have some hundred bytes.
pub(super) const LIMIT_BYTES: usize = 64 * 1024;

/// What is shown of one value.
const VALUE_CHARACTERS: usize = 200;

/// Parses the file; `None` where it names no system.
pub(super) fn parse(bytes: &[u8]) -> Option<OsRelease> {
    let text = String::from_utf8_lossy(bytes);
    let value = |key: &str| {
        let assigned = text.lines().rev().find_map(|line| {
            let (name, value) = line.trim().split_once('=')?;
            (name == key).then(|| unquoted(value))
        });
        assigned
            .filter(|value| !value.is_empty())
            .map(|value| CloudText::excerpt(&value, VALUE_CHARACTERS))
    };
    let id = value("ID");
    let pretty_name = value("PRETTY_NAME").or_else(|| value("NAME"));
    if id.is_none() && pretty_name.is_none() {
        return None;
    }
    Some(OsRelease {
        pretty_name,
        id,
        version_id: value("VERSION_ID"),
    })
}

/// A value as a shell would assign it.
fn unquoted(raw: &str) -> String {
    let raw = raw.trim();
    let quote = raw
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let Some(quote) = quote else {
        return raw.to_owned();
    };
    let mut value = String::new();
    let mut characters = raw.chars().skip(1);
    while let Some(character) = characters.next() {
        match character {
            c if c == quote => break,
            '\\' if quote == '"' => value.extend(characters.next()),
            c => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let text = b"# comment\nID=ubuntu\nNAME=Ubuntu\nPRETTY_NAME=\"A \\\"quoted\\\" name\" # x\nVERSION_ID='22.04'\n";
        let release = parse(text).expect("a release");
        assert_eq!(release.id.expect("an id"), "ubuntu");
        assert_eq!(release.pretty_name.expect("a name"), "A \"quoted\" name");
        assert_eq!(release.version_id.expect("a version"), "22.04");
    }

    #[test]
    fn what_names_nothing_is_nothing() {
        for text in ["", "\0\0\0", "ID=\nNAME=\"\"\n", "=x\n", "VERSION_ID=1\n"] {
            assert!(parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn control_characters_and_endless_values_are_cut() {
        let text = format!("ID=\u{1b}[31m{}\n", "x".repeat(10_000));
        let id = parse(text.as_bytes())
            .expect("a release")
            .id
            .expect("an id");
        assert!(!id.as_str().contains('\u{1b}'));
        assert_eq!(id.as_str().chars().count(), VALUE_CHARACTERS + 1);
    }
}
