//! Text that came from the network, made safe to print where it enters the program.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Text received from the cloud, stripped of everything that could move a cursor or hide a character.
///
/// Control characters (C0, C1, DEL, line breaks and tabs included) become one space each; the marks
/// that reorder or hide text (bidirectional overrides, zero-width characters, the byte order mark)
/// are removed. There is no other way to construct one, so printing a `CloudText` is always safe. Clones
/// share the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloudText(Arc<str>);

impl CloudText {
    /// Strips `raw` and keeps what can be shown.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        let shown: String = raw.chars().filter_map(printable).collect();
        Self(shown.into())
    }

    /// Strips `raw` and keeps its first `limit` characters, with an ellipsis where more was cut.
    #[must_use]
    pub fn excerpt(raw: &str, limit: usize) -> Self {
        let mut shown: String = raw.chars().filter_map(printable).take(limit + 1).collect();
        if let Some((cut, _)) = shown.char_indices().nth(limit) {
            shown.truncate(cut);
            shown.push('…');
        }
        Self(shown.into())
    }

    /// The text as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `json` with escapes in the place of what a terminal would act on. Its meaning is the same.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || is_printable(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    }
    shown
}

/// The words as one line that a POSIX shell reads back.
#[must_use]
pub fn shell_line(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    quoted.join(" ")
}

/// One word as a POSIX shell reads it back.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether `character` reaches a terminal as it is.
pub(super) fn is_printable(character: char) -> bool {
    printable(character) == Some(character)
}

fn printable(character: char) -> Option<char> {
    match character {
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => None,
        c if c.is_control() => Some(' '),
        c => Some(c),
    }
}

impl fmt::Display for CloudText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl From<&str> for CloudText {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for CloudText {
    fn from(raw: String) -> Self {
        Self::new(&raw)
    }
}

impl PartialEq<str> for CloudText {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for CloudText {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl Serialize for CloudText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CloudText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_reordering_marks_never_survive() {
        let raw = "a\u{1b}[31mred\r\nnext\u{202e}drow\u{200b}\u{7f}\u{9b}z";
        assert_eq!(CloudText::new(raw), "a [31mred  nextdrow  z");
    }

    #[test]
    fn an_excerpt_says_that_it_was_cut() {
        assert_eq!(CloudText::excerpt("映像文件", 2), "映像…");
        assert_eq!(CloudText::excerpt("映像", 2), "映像");
    }

    #[test]
    fn text_is_stripped_while_it_is_deserialised() {
        let text: CloudText = serde_json::from_str(r#""a\u001b]0;x\u0007b""#).expect("JSON");
        assert_eq!(text, "a ]0;x b");
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["cvm-export", "wait", "a b", "it's", "映像", ""].map(str::to_owned);
        assert_eq!(
            shell_line(&words),
            r"cvm-export wait 'a b' 'it'\''s' '映像' ''"
        );
    }

    #[test]
    fn json_says_the_same_without_what_a_terminal_acts_on() {
        let value = "a\u{9b}2J\u{202e}\u{2066}映\n";
        let json = serde_json::to_string_pretty(&[value]).expect("JSON");
        let shown = printable_json(&json);
        assert_eq!(shown, "[\n  \"a\\u009b2J\\u202e\\u2066映\\n\"\n]");
        assert_eq!(
            serde_json::from_str::<[String; 1]>(&shown).expect("JSON"),
            [value]
        );
    }
}
