//! What stands in the way of exports, found by their names instead of by a search through all of it. Pure.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::draft::Draft;
use super::names::Name;
use crate::cloud::actions::cvm::Image;
use crate::cloud::cos::Upload;
use crate::export::request::{DiskRole, Identity};
use crate::model::{ExportId, ImageFormat, ImageId, ObjectKey, Prefix};

type OfImage = (Option<Prefix>, ImageId);
type OfPrefix = (Option<Prefix>, ImageFormat);
type OfExport = (Option<Prefix>, ImageId, ImageFormat);

fn of_export(identity: &Identity) -> OfExport {
    let Identity {
        prefix,
        image_id,
        format,
        ..
    } = identity;
    (prefix.clone(), image_id.clone(), *format)
}

/// Unfinished uploads, by what they may write. Of several, the first of the list is told.
#[derive(Debug)]
pub(super) struct Writers<'a> {
    uploads: &'a [Upload],
    of_key: HashMap<&'a ObjectKey, usize>,
    of_export: HashMap<OfExport, Vec<usize>>,
    of_prefix: HashMap<OfPrefix, usize>,
    of_image: HashMap<OfImage, usize>,
}

/// What of an export an upload may write.
#[derive(Debug)]
pub(super) struct Written<'a, K> {
    /// The keys of its files that are there.
    pub(super) files: K,
    /// The keys by the API's rule under which its record expects files.
    pub(super) watched: &'a [ObjectKey],
    pub(super) identity: Option<Identity>,
    pub(super) is_complete: bool,
}

impl<'a> Writers<'a> {
    pub(super) fn of(uploads: &'a [Upload]) -> Self {
        let mut writers = Self {
            uploads,
            of_key: HashMap::new(),
            of_export: HashMap::new(),
            of_prefix: HashMap::new(),
            of_image: HashMap::new(),
        };
        for (place, upload) in uploads.iter().enumerate() {
            writers.of_key.entry(&upload.key).or_insert(place);
            match Name::of(&upload.key) {
                Some(Name::Api {
                    prefix,
                    image_id,
                    format,
                    ..
                }) => {
                    let places = writers.of_export.entry((prefix, image_id, format));
                    places.or_default().push(place);
                }
                Some(Name::Console { prefix, format, .. }) => {
                    writers.of_prefix.entry((prefix, format)).or_insert(place);
                }
                Some(Name::Claim { prefix, image_id }) => {
                    writers.of_image.entry((prefix, image_id)).or_insert(place);
                }
                Some(Name::Lease { .. }) | None => {}
            }
        }
        writers
    }

    /// The upload that writes one of the files of an export, or may by its name.
    pub(super) fn find<'k>(
        &self,
        export: Written<'_, impl Iterator<Item = &'k ObjectKey>>,
    ) -> Option<&'a Upload> {
        if self.uploads.is_empty() {
            return None;
        }
        let mut places: Vec<usize> = export
            .files
            .filter_map(|key| self.of_key.get(key).copied())
            .collect();
        if let Some(identity) = &export.identity {
            let of_api = self.of_export.get(&of_export(identity));
            let mut of_api = of_api.into_iter().flatten().copied();
            if export.is_complete {
                // A file that is complete has no upload under its other name, and the console's say of no image.
                places.extend(of_api.find(|place| {
                    let key = &self.uploads[*place].key;
                    !export.watched.contains(key)
                }));
            } else {
                let Identity {
                    prefix,
                    image_id,
                    format,
                    ..
                } = identity;
                places.extend(of_api.next());
                places.extend(self.of_prefix.get(&(prefix.clone(), *format)));
                places.extend(self.of_image.get(&(prefix.clone(), image_id.clone())));
            }
        }
        Some(&self.uploads[places.into_iter().min()?])
    }
}

/// An export that may be running.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) export_id: ExportId,
    /// Whether its files are all in the bucket, so that only nobody has looked since.
    pub(super) is_all_there: bool,
}

/// The exports that may be running, by what they may write, in the order of their records.
#[derive(Debug, Default)]
pub(super) struct Running {
    of_export: HashMap<OfExport, Vec<Runner>>,
    of_prefix: HashMap<OfPrefix, ExportId>,
    of_image: HashMap<OfImage, ExportId>,
}

impl Running {
    pub(super) fn of(drafts: &[Draft], now: DateTime<Utc>) -> Self {
        let mut running = Self::default();
        for draft in drafts.iter().filter(|draft| draft.is_running(now)) {
            let (Some(identity), Some(export_id)) =
                (draft.listed.identity(), &draft.listed.export_id)
            else {
                continue;
            };
            let key = of_export(&identity);
            running.of_export.entry(key).or_default().push(Runner {
                export_id: export_id.clone(),
                is_all_there: draft.is_all_there(),
            });
            let Identity {
                prefix,
                image_id,
                format,
                ..
            } = identity;
            let of_prefix = running.of_prefix.entry((prefix.clone(), format));
            of_prefix.or_insert_with(|| export_id.clone());
            let of_image = running.of_image.entry((prefix, image_id));
            of_image.or_insert_with(|| export_id.clone());
        }
        running
    }

    /// Another export than `export_id` that writes the files of `identity`.
    pub(super) fn beside(
        &self,
        identity: &Identity,
        export_id: Option<&ExportId>,
    ) -> Option<&Runner> {
        let mut runners = self.of_export.get(&of_export(identity))?.iter();
        runners.find(|runner| Some(&runner.export_id) != export_id)
    }

    /// The export that may write a key of this name.
    pub(super) fn writer_of(&self, name: &Name) -> Option<&ExportId> {
        match name {
            Name::Api {
                prefix,
                image_id,
                format,
                ..
            } => {
                let key = (prefix.clone(), image_id.clone(), *format);
                Some(&self.of_export.get(&key)?.first()?.export_id)
            }
            Name::Console { prefix, format, .. } => self.of_prefix.get(&(prefix.clone(), *format)),
            Name::Claim { prefix, image_id } => {
                self.of_image.get(&(prefix.clone(), image_id.clone()))
            }
            Name::Lease { .. } => None,
        }
    }
}

/// Where records stand that cannot be read, by what they are of.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    of_image: HashMap<OfImage, ObjectKey>,
    of_prefix: HashMap<Option<Prefix>, ObjectKey>,
}

impl Unreadable {
    pub(super) fn insert(&mut self, key: ObjectKey, prefix: Option<Prefix>, image_id: ImageId) {
        let of_prefix = self.of_prefix.entry(prefix.clone());
        of_prefix.or_insert_with(|| key.clone());
        self.of_image.entry((prefix, image_id)).or_insert(key);
    }

    /// The one in the place of the record of `identity`.
    pub(super) fn of(&self, identity: &Identity) -> Option<&ObjectKey> {
        let key = (identity.prefix.clone(), identity.image_id.clone());
        self.of_image.get(&key)
    }

    /// One whose export may write a key of this name.
    pub(super) fn of_name(&self, name: &Name) -> Option<&ObjectKey> {
        let prefix = name.prefix().cloned();
        match name.image_id() {
            Some(image_id) => self.of_image.get(&(prefix, image_id.clone())),
            None => self.of_prefix.get(&prefix),
        }
    }
}

/// The account's images by their ids.
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<String, Vec<Image>>);

impl Images {
    pub(super) fn new(list: Vec<Image>) -> Self {
        let mut images: HashMap<String, Vec<Image>> = HashMap::new();
        for image in list {
            let id = image.image_id.to_string();
            images.entry(id).or_default().push(image);
        }
        Self(images)
    }

    pub(super) fn get(&self, image_id: &ImageId) -> Option<&Image> {
        self.0.get(image_id.as_str())?.first()
    }

    /// The image whose disk a file is by its name.
    pub(super) fn of_name(&self, name: &Name) -> Option<&Image> {
        let Name::Api {
            image_id,
            disk,
            snapshot_id,
            ..
        } = name
        else {
            return None;
        };
        let usage = match disk {
            DiskRole::System => "SYSTEM_DISK",
            DiskRole::Data => "DATA_DISK",
        };
        let mut images = self.0.get(image_id.as_str())?.iter();
        images.find(|image| {
            image.snapshot_set.iter().any(|snapshot| {
                snapshot.snapshot_id == *snapshot_id.as_str() && snapshot.disk_usage == *usage
            })
        })
    }
}
