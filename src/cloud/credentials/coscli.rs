//! coscli's `~/.cos.yaml`, as far as it holds what is needed here.
//!
//! Of YAML this reads only what coscli writes: under `cos:` and `base:` one scalar a line, plain or in
//! quotes. Whatever else stands there (anchors, folded text, tabs, flow style, escapes) makes the file
//! one that is not configured here, said with its line: a reader that guesses would take another key
//! than coscli does. Lists and mappings beside `base:` are passed over.
//!
//! Names have no case, as in coscli's own reader (viper; coscli, `cmd/root.go`).
//!
//! coscli encrypts the keys with a key of its own unless `disableencryption` is `"true"` (coscli,
//! `util/config.go`), and then they are nobody else's to read.

use std::collections::BTreeMap;

use super::metadata::Meant;
use super::{Asked, Found, Link, assemble, broken, read_optional};
use crate::environment::Environment;

/// Asks coscli's file.
pub(super) fn ask(environment: &Environment) -> Asked {
    let Some(path) = environment.home().map(|home| home.join(".cos.yaml")) else {
        let place = "coscli's ~/.cos.yaml: there is no home folder";
        return Ok(Link::Absent(place.to_owned()));
    };
    let place = path.display().to_string();
    let absent = |why: &str| Ok(Link::Absent(format!("{place}: {why}")));
    let text = match read_optional(&path, &place, environment.home())? {
        Ok(text) => text,
        Err(why) => return absent(why),
    };
    let base = match base_of(&text) {
        Ok(base) => base,
        Err(Unreadable { line, what }) => {
            return absent(&format!("its line {line} is not understood ({what})"));
        }
    };
    let is_set = |value: &&str| !["", "~", "null"].contains(value);
    let value = |name: &str| base.get(name).map(String::as_str).filter(is_set);
    if value("mode") == Some("CvmRole") {
        return Ok(Link::Instance(match value("cvmrolename") {
            Some(name) => Meant::named(&place, name)?,
            None => Meant::any(&place),
        }));
    }
    let (id, key) = (value("secretid"), value("secretkey"));
    if id.is_none() && key.is_none() {
        return absent("it holds no keys");
    }
    if value("disableencryption") != Some("true") {
        return absent("its keys are encrypted, and only coscli can read them");
    }
    let (Some(id), Some(key)) = (id, key) else {
        return Err(broken(&place, "it lacks `secretid` or `secretkey`"));
    };
    let credentials = assemble(&place, id, key, value("sessiontoken"), None)?;
    Ok(Found::in_file(credentials, &place, &path).into())
}

/// A line that this reader does not know.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable {
    line: usize,
    what: &'static str,
}

/// Where a line stands, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Outside `cos:`.
    Elsewhere,
    /// Under `cos:` and not under `base:`.
    Cos,
    /// Under `cos:` and `base:`.
    Base,
}

/// The scalars under `cos:` and `base:`.
fn base_of(text: &str) -> Result<BTreeMap<String, String>, Unreadable> {
    let mut values = BTreeMap::new();
    let mut within = Within::Elsewhere;
    // How far the keys under `cos:` and under `base:` are indented; the first of each says it.
    let (mut cos_indent, mut base_indent) = (None, None);
    for (line, text) in (1..).zip(text.lines()) {
        let refuse = |what| Err(Unreadable { line, what });
        let content = text.trim_start_matches(' ');
        let indent = text.len() - content.len();
        if content.trim_end().is_empty() || content.starts_with('#') {
            continue;
        }
        if content.starts_with('\t') {
            return refuse("a tab");
        }
        if indent == 0 {
            if content.starts_with("---") && content.trim_end() != "---" {
                return refuse("a document marker");
            }
            within = match lower(without_comment(content)).as_str() {
                "cos:" => Within::Cos,
                text if text.starts_with("cos:") => return refuse("`cos` is no mapping of lines"),
                _ => Within::Elsewhere,
            };
            continue;
        }
        if within == Within::Elsewhere {
            continue;
        }
        let own = *cos_indent.get_or_insert(indent);
        if indent < own {
            return refuse("its indentation");
        }
        if indent == own {
            within = match lower(without_comment(content)).as_str() {
                "base:" if base_indent.is_some() => return refuse("`base` stands there twice"),
                "base:" => Within::Base,
                text if text.starts_with("base:") => {
                    return refuse("`base` is no mapping of lines");
                }
                _ => Within::Cos,
            };
            continue;
        }
        if within != Within::Base {
            continue;
        }
        if indent != *base_indent.get_or_insert(indent) {
            return refuse("its indentation");
        }
        let Some((name, value)) = content.split_once(':') else {
            return refuse("it is no `name: value`");
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return refuse("its name");
        }
        let Some(value) = scalar(value) else {
            return refuse("its value is no plain or quoted text");
        };
        if values.insert(lower(name), value).is_some() {
            return refuse("its name stands there twice");
        }
    }
    Ok(values)
}

fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn without_comment(text: &str) -> &str {
    let end = text.find(" #").unwrap_or(text.len());
    text[..end].trim_end()
}

/// What follows a colon, where it is a plain or quoted scalar.
fn scalar(text: &str) -> Option<String> {
    if !text.is_empty() && !text.starts_with(' ') {
        return None;
    }
    let text = text.trim_start_matches(' ').trim_end_matches(['\r', ' ']);
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        let text = if text.starts_with('#') {
            ""
        } else {
            without_comment(text)
        };
        let is_plain = !text.starts_with([
            '&', '*', '!', '|', '>', '%', '@', '`', '{', '}', '[', ']', ',', '?',
        ]);
        let is_whole = !text.contains(": ") && !text.ends_with(':') && !text.starts_with("- ");
        return (is_plain && is_whole && !text.contains('\t')).then(|| text.to_owned());
    };
    let (inside, after) = text[1..].split_once(quote)?;
    let is_end = after.is_empty() || after.starts_with(" #") || after.trim().is_empty();
    // An escape, or a doubled single quote, would be another character.
    let is_literal = quote == '\'' || !inside.contains('\\');
    (is_end && is_literal).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, usize> {
        let base = base_of(text).map_err(|unreadable| unreadable.line)?;
        Ok(base.into_iter().collect())
    }

    fn pairs(expected: &[(&str, &str)]) -> Result<Vec<(String, String)>, usize> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Ok(expected.iter().map(own).collect())
    }

    #[test]
    fn what_coscli_writes_is_read() {
        let text = "cos:\n  base:\n    secretid: AKIDx\n    secretkey: 'k#1'\n    sessiontoken: \"\"\n    \
                    mode: SecretKey # as ever\n    disableencryption: \"true\"\n    cvmrolename:\n  buckets:\n  \
                    - name: a-1250000000\n    alias: a\n    region: ap-x\n    ofs: false\n";
        let expected = [
            ("cvmrolename", ""),
            ("disableencryption", "true"),
            ("mode", "SecretKey"),
            ("secretid", "AKIDx"),
            ("secretkey", "k#1"),
            ("sessiontoken", ""),
        ];
        assert_eq!(read(text), pairs(&expected));
        // Deeper indentation, other order, comments, line ends of Windows, keys beside `cos`.
        let text = "---\r\n# mine\r\nother:\r\n  base:\r\n    secretid: no\r\ncos:\r\n    buckets:\r\n    \
                    - base: no\r\n    base:\r\n        secretid: AKIDx\r\n";
        assert_eq!(read(text), pairs(&[("secretid", "AKIDx")]));
    }

    #[test]
    fn what_holds_no_keys_has_none() {
        for text in [
            "",
            "\n",
            "cos:\n",
            "cos:\n  base:\n",
            "base:\n  secretid: x\n",
            "[]",
            "{}",
        ] {
            assert_eq!(read(text), pairs(&[]), "asked: {text:?}");
        }
    }

    #[test]
    fn what_is_beyond_this_reader_is_named_by_its_line() {
        let base = "cos:\n  base:\n";
        let cases = [
            "    secretid: &anchor x",
            "    secretid: *anchor",
            "    secretid: |",
            "    secretid: >-",
            "    secretid: !!str x",
            "    secretid: {a: b}",
            "    secretid: [a]",
            "    secretid: \"a\\tb\"",
            "    secretid: 'it''s'",
            "    secretid: \"open",
            "    secretid: 'a' b",
            "    secretid: a: b",
            "    secretid:x",
            "    secretid",
            "    - secretid: x",
            "    \"secretid\": x",
            "    ? secretid",
            "\tsecretid: x",
            "    <<: *base",
        ];
        for line in cases {
            assert_eq!(read(&format!("{base}{line}\n")), Err(3), "asked: {line}");
        }
        let nested = format!("{base}    secretid: x\n      deeper: y\n");
        assert_eq!(read(&nested), Err(4));
        let twice = format!("{base}    secretid: x\n    secretid: y\n");
        assert_eq!(read(&twice), Err(4));
        assert_eq!(read("cos: {base: {secretid: x}}\n"), Err(1));
        assert_eq!(read("cos:\n  base: {secretid: x}\n"), Err(2));
    }
}
