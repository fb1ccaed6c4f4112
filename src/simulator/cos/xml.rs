//! Documents of COS: written by hand, read strictly.

use quick_xml::escape::escape;
use serde::Deserialize;

/// An XML document that is being written.
#[derive(Debug)]
pub(super) struct Xml {
    text: String,
    open: Vec<&'static str>,
}

impl Xml {
    /// Opens a document.
    pub(super) fn new(root: &'static str) -> Self {
        let mut xml = Self {
            text: "<?xml version='1.0' encoding='utf-8' ?>\n".to_owned(),
            open: Vec::new(),
        };
        xml.open(root);
        xml
    }

    /// Opens an element.
    pub(super) fn open(&mut self, name: &'static str) {
        self.text.push_str(&format!("<{name}>"));
        self.open.push(name);
    }

    /// Closes the innermost open element.
    pub(super) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.text.push_str(&format!("</{name}>"));
        }
    }

    /// Writes an element with text.
    pub(super) fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        let value = escape(value.as_str());
        self.text.push_str(&format!("<{name}>{value}</{name}>"));
    }

    /// Closes everything.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }
}

/// The body of `POST ?delete`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    #[serde(rename = "Quiet", default)]
    pub(super) is_quiet: bool,
    #[serde(rename = "Object", default)]
    pub(super) objects: Vec<DeletedObject>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeletedObject {
    #[serde(rename = "Key")]
    pub(super) key: String,
    #[serde(rename = "VersionId")]
    pub(super) version_id: Option<String>,
}

/// The body of `POST ?uploadId`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    #[serde(rename = "Part", default)]
    pub(super) parts: Vec<CompletedPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompletedPart {
    #[serde(rename = "PartNumber")]
    pub(super) number: u64,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

/// Reads a document; `None` where it is no XML or holds what nobody asked for.
pub(super) fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_elements_are_closed() {
        let mut xml = Xml::new("A");
        xml.open("B");
        xml.field("Key", "a<&>\"'");
        let text = xml.finish();
        assert!(
            text.ends_with("<A><B><Key>a&lt;&amp;&gt;&quot;&apos;</Key></B></A>"),
            "{text}"
        );
    }

    #[test]
    fn unknown_elements_are_refused() {
        let read_delete = |text: &str| read::<Delete>(text.as_bytes()).map(|d| d.objects.len());
        assert_eq!(
            read_delete("<Delete><Quiet>true</Quiet><Object><Key>k</Key></Object></Delete>"),
            Some(1)
        );
        assert_eq!(
            read_delete("<Delete><Object><Name>k</Name></Object></Delete>"),
            None
        );
        assert_eq!(read_delete("{}"), None);
    }
}
