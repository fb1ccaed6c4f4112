//! ETags of many objects in little room.

use std::fmt;

use serde::{Serialize, Serializer};

/// An ETag as COS writes it, held as the bytes of its digest if it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Etag(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// 32 lower-case hexadecimal digits.
    Digest([u8; 16]),
    /// The same with the number of parts behind a hyphen.
    Parts([u8; 16], u32),
    Other(Box<str>),
}

impl Etag {
    /// Whether COS told none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Other(text) if text.is_empty())
    }
}

impl Default for Etag {
    fn default() -> Self {
        Self(Form::Other(Box::default()))
    }
}

impl From<&str> for Etag {
    fn from(text: &str) -> Self {
        let (digest, parts) = match text.split_once('-') {
            Some((digest, parts)) => (digest, Some(parts)),
            None => (text, None),
        };
        let mut bytes = [0; 16];
        let is_digest = hex::decode_to_slice(digest, &mut bytes).is_ok();
        let form = match parts {
            None => Form::Digest(bytes),
            Some(parts) => Form::Parts(bytes, parts.parse().unwrap_or(0)),
        };
        // Other spellings of the same digest are other ETags.
        let etag = Self(form);
        if is_digest && etag.to_string() == text {
            return etag;
        }
        Self(Form::Other(text.into()))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Digest(digest) => formatter.write_str(&hex::encode(digest)),
            Form::Parts(digest, parts) => write!(formatter, "{}-{parts}", hex::encode(digest)),
            Form::Other(text) => formatter.write_str(text),
        }
    }
}

impl fmt::Debug for Etag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Etag({self})")
    }
}

impl PartialEq<str> for Etag {
    fn eq(&self, other: &str) -> bool {
        let other = Self::from(other);
        *self == other
    }
}

impl PartialEq<String> for Etag {
    fn eq(&self, other: &String) -> bool {
        *self == **other
    }
}

impl Serialize for Etag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_as_it_was() {
        let digest = "0123456789abcdef0123456789abcdef";
        for text in [
            digest.to_owned(),
            format!("{digest}-1"),
            format!("{digest}-10000"),
            format!("{digest}-4294967295"),
            format!("{digest}-4294967296"),
            format!("{digest}-01"),
            format!("{digest}-0"),
            format!("{digest}-"),
            format!("{digest}-1-2"),
            format!("{digest}-+1"),
            format!("{digest}0"),
            digest.to_uppercase(),
            digest[1..].to_owned(),
            "e1".to_owned(),
            "-".to_owned(),
            "é".to_owned(),
            String::new(),
        ] {
            let etag = Etag::from(text.as_str());
            assert_eq!(etag.to_string(), text);
            assert_eq!(etag, text);
            assert_eq!(etag.is_empty(), text.is_empty());
            assert!(etag != format!("{text}0"), "{text}");
        }
        assert!(size_of::<Etag>() <= 24);
    }
}
