//! The files that a listing brought, in little room and found by their keys.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};

use super::etag::Etag;
use super::names::Name;
use crate::cloud::cos::{ObjectMeta, VersionEntry};
use crate::model::{CloudText, ObjectKey};

/// An object, or a version of one, whose name says that it may be a file of an export.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: ObjectKey,
    pub(super) size_bytes: u64,
    pub(super) etag: Etag,
    pub(super) last_modified: Option<DateTime<Utc>>,
    pub(super) storage_class: CloudText,
    /// Its version, if versions were listed.
    pub(super) version_id: Option<String>,
    pub(super) is_latest: bool,
}

impl Entry {
    pub(super) fn new(found: VersionEntry, shared: &mut Shared) -> Self {
        Self {
            key: found.object.key,
            size_bytes: found.object.size_bytes,
            etag: Etag::from(found.object.etag.as_str()),
            last_modified: found.object.last_modified,
            storage_class: shared.text(found.object.storage_class),
            version_id: found.version_id,
            is_latest: found.is_latest,
        }
    }

    /// What its key says; it is read again each time, as it would take more room than all the rest.
    pub(super) fn name(&self) -> Option<Name> {
        Name::of(&self.key)
    }

    /// As HEAD would tell it, so that both can be compared.
    pub(super) fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            key: self.key.clone(),
            size_bytes: self.size_bytes,
            etag: self.etag.to_string(),
            crc64: None,
            storage_class: self.storage_class.to_string(),
            last_modified: self.last_modified.map(|time| time.trunc_subsecs(0)),
            version_id: self.version_id.clone(),
        }
    }
}

/// Entries, which are known by their place.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    /// The places by key, and those of one key in the order of the listing.
    by_key: Vec<u32>,
}

impl Entries {
    pub(super) fn new(list: Vec<Entry>) -> Self {
        let count = u32::try_from(list.len()).expect("a listing of 2^32 objects fits no memory");
        let mut by_key: Vec<u32> = (0..count).collect();
        by_key
            .sort_unstable_by(|a, b| (&list[*a as usize].key, a).cmp(&(&list[*b as usize].key, b)));
        Self { list, by_key }
    }

    /// The places of the entries with this key.
    pub(super) fn of_key(&self, key: &ObjectKey) -> impl Iterator<Item = usize> {
        let key_at = |place: &u32| &self.list[*place as usize].key;
        let start = self.by_key.partition_point(|place| key_at(place) < key);
        let rest = self.by_key[start..].iter().copied();
        let places = rest.map(|place| place as usize);
        places.take_while(move |place| self.list[*place].key == *key)
    }
}

/// Texts of which there are few, each held once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashSet<CloudText>,
    words: HashSet<Arc<str>>,
}

impl Shared {
    /// More different ones than this are not worth a search.
    const MOST: usize = 1000;

    pub(super) fn text(&mut self, text: CloudText) -> CloudText {
        if let Some(known) = self.texts.get(&text) {
            return known.clone();
        }
        if self.texts.len() < Self::MOST {
            self.texts.insert(text.clone());
        }
        text
    }

    pub(super) fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        if self.words.len() < Self::MOST {
            self.words.insert(word.clone());
        }
        word
    }
}
