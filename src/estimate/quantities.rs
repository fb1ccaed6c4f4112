//! What is stored, asked for and moved: the figures that prices are multiplied with.

use serde::Serialize;

use crate::model::{ImageFormat, Region, StorageClass};

/// A simple upload takes 5 GB at most, and so does a part of another one, of which there are 10 000 at
/// most and which have 1 MB at least (COS, "Specifications and limits"; its units are 1024-based).
const LARGEST_PART_BYTES: u64 = 5 << 30;
const SMALLEST_PART_BYTES: u64 = 1 << 20;
const MOST_PARTS: u64 = 10_000;

/// A figure that lies between two others, or on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// It is not less.
    pub low: u64,
    /// It is not more.
    pub high: u64,
}

impl Bounds {
    /// A figure that is known.
    #[must_use]
    pub const fn exact(value: u64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    /// A figure between `low` and `high`.
    #[must_use]
    pub const fn between(low: u64, high: u64) -> Self {
        let high = if high < low { low } else { high };
        Self { low, high }
    }

    /// The sum of two figures.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            high: self.high.saturating_add(other.high),
        }
    }

    fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self::between(change(self.low), change(self.high))
    }
}

impl std::iter::Sum for Bounds {
    fn sum<I: Iterator<Item = Self>>(figures: I) -> Self {
        figures.fold(Self::default(), Self::plus)
    }
}

/// An object, or one that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its storage class.
    pub class: StorageClass,
    /// Its size in bytes.
    pub bytes: Bounds,
}

impl StoredObject {
    /// An object of `bytes`, of the class that COS names. One that no class can be called is unknown like
    /// any other that has no price.
    #[must_use]
    pub fn seen(class: &str, bytes: u64) -> Self {
        let class = class.parse().unwrap_or_else(|_| StorageClass::unknown());
        let bytes = Bounds::exact(bytes);
        Self { class, bytes }
    }
}

/// How a download comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Inside Tencent's network, from a CVM in the bucket's region: free.
    Internal,
    /// Over the public network.
    Public,
    /// Over the public network with the global acceleration, which this tool does not use and others do.
    Acceleration,
}

/// What requests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// CVM writes the files.
    Export,
    /// This tool checks, and keeps its record in the bucket.
    Checks,
    /// This tool watches the bucket until the files are there.
    Watch,
    /// This tool fetches the files.
    Download,
}

/// Requests of one purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// What they are for.
    pub purpose: Purpose,
    /// The class of the objects that they concern.
    pub class: StorageClass,
    /// How many there are.
    pub count: Bounds,
}

/// An export, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct ExportSize<'a> {
    /// The format of the files.
    pub format: ImageFormat,
    /// The sizes of the disks in GiB.
    pub disks_gib: &'a [u64],
    /// How often the bucket is looked at until the files are there.
    pub looks: Bounds,
    /// Whether the record is kept in the bucket, too.
    pub keeps_record: bool,
}

/// What one export, or one download, takes. One clean run is counted: what is sent or fetched again
/// because it failed comes on top, and so does another run that takes the same thing up.
#[derive(Clone, Debug)]
pub struct Quantities {
    /// The region of the bucket.
    pub region: Region,
    /// What is kept in the bucket, and for how many days. The record beside the files has some KiB,
    /// which are no millionth of a currency a month and not counted.
    pub stored: Vec<StoredObject>,
    /// How long it is kept.
    pub days: u32,
    /// What CVM uploads, where it does.
    pub uploaded_bytes: Option<Bounds>,
    /// Requests to COS; calls of other products cost nothing.
    pub requests: Vec<Requests>,
    /// What is fetched, and how.
    pub fetched: Vec<StoredObject>,
    /// How it is fetched.
    pub route: Route,
}

impl Quantities {
    /// Nothing so far, in `region`.
    #[must_use]
    pub fn none(region: Region) -> Self {
        Self {
            region,
            stored: Vec::new(),
            days: 0,
            uploaded_bytes: None,
            requests: Vec::new(),
            fetched: Vec::new(),
            route: Route::Public,
        }
    }

    /// Adds an export into objects of `class`: CVM's requests and ours.
    #[must_use]
    pub fn with_export(mut self, export: &ExportSize<'_>, class: &StorageClass) -> Self {
        let sizes = export.disks_gib.iter();
        let sizes: Vec<Bounds> = sizes
            .map(|gib| file_bytes(export.format, gib.saturating_mul(1 << 30)))
            .collect();
        let disks = sizes.len() as u64;
        let writes = sizes.iter().copied().map(write_requests).sum();
        // GET Service, HEAD Bucket, List Multipart Uploads, and HEAD of each disk's two names; HEAD Bucket
        // once more where several exports are weighed together.
        let look_ups = Bounds::between(3 + 2 * disks, 4 + 2 * disks);
        // GET; PUT before and after the submit and at the end. Where another run's record stands there,
        // it is read, replaced, and read once more.
        let record = match export.keeps_record {
            true => Bounds::between(4, 7),
            false => Bounds::default(),
        };
        // A look is a HEAD of each disk's two names and one listing, and one of the parts of each upload.
        let looks = Bounds::between(
            export.looks.low.saturating_mul(2 * disks + 1),
            export.looks.high.saturating_mul(3 * disks + 1),
        );
        self.ask(Purpose::Export, class, writes);
        self.ask(Purpose::Checks, class, look_ups.plus(record));
        self.ask(Purpose::Watch, class, looks);
        self.uploaded_bytes = Some(sizes.iter().copied().sum());
        self.stored
            .extend(sizes.into_iter().map(|bytes| StoredObject {
                class: class.clone(),
                bytes,
            }));
        self
    }

    /// Adds objects that stand in the bucket.
    #[must_use]
    pub fn with_objects(mut self, objects: impl IntoIterator<Item = StoredObject>) -> Self {
        self.stored.extend(objects);
        self
    }

    /// Keeps what is stored for `days`.
    #[must_use]
    pub fn kept_for(mut self, days: u32) -> Self {
        self.days = days;
        self
    }

    /// Adds a download of everything that is stored, over `route`, in parts of `part_size_bytes`.
    #[must_use]
    pub fn with_download(self, route: Route, part_size_bytes: u64) -> Self {
        let objects = self.stored.clone();
        self.fetching(objects, route, part_size_bytes)
    }

    /// Adds a download of `objects` over `route`, in parts of `part_size_bytes`.
    #[must_use]
    pub fn fetching(
        mut self,
        objects: Vec<StoredObject>,
        route: Route,
        part_size_bytes: u64,
    ) -> Self {
        for StoredObject { class, bytes } in &objects {
            // A HEAD for each object and a GET for each part. GET Service, by which the bucket is found,
            // belongs to no bucket, and is counted where it may count.
            let parts = bytes.map(|bytes| bytes.div_ceil(part_size_bytes.max(1)));
            let count = parts.plus(Bounds::between(1, 2));
            self.ask(Purpose::Download, class, count);
        }
        self.fetched = objects;
        self.route = route;
        self
    }

    /// What is stored, in bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> Bounds {
        self.stored.iter().map(|object| object.bytes).sum()
    }

    /// What is fetched, in bytes.
    #[must_use]
    pub fn fetched_bytes(&self) -> Bounds {
        self.fetched.iter().map(|object| object.bytes).sum()
    }

    /// All requests together.
    #[must_use]
    pub fn request_count(&self) -> Bounds {
        self.requests.iter().map(|requests| requests.count).sum()
    }

    fn ask(&mut self, purpose: Purpose, class: &StorageClass, count: Bounds) {
        let mut known = self.requests.iter_mut();
        match known.find(|other| other.purpose == purpose && other.class == *class) {
            Some(requests) => requests.count = requests.count.plus(count),
            None => self.requests.push(Requests {
                purpose,
                class: class.clone(),
                count,
            }),
        }
    }
}

/// The size of the file that a disk of `disk_bytes` becomes.
///
/// A raw file is the disk, by all that is known; COS tells the truth once it is there. The others leave
/// out what holds no data, which may be all of it. What they add to a disk that is full of data is less
/// than a 32nd and 4 MiB: QCOW2 has at most 8 and 2 bytes of tables for each cluster, which has 512
/// bytes at least; VMDK pads each 64 KiB that it compresses to whole sectors and keeps its tables twice;
/// VHD has a sector of bitmap for each 2 MiB, and rounds up to its block and to a cylinder.
#[must_use]
pub fn file_bytes(format: ImageFormat, disk_bytes: u64) -> Bounds {
    match format {
        ImageFormat::Raw => Bounds::exact(disk_bytes),
        ImageFormat::Qcow2 | ImageFormat::Vhd | ImageFormat::Vmdk => {
            let overhead = (disk_bytes / 32).saturating_add(4 << 20);
            Bounds::between(0, disk_bytes.saturating_add(overhead))
        }
    }
}

/// The requests by which an object of `bytes` is written. How the exporter cuts it is not documented: the
/// fewest are one simple upload or the largest parts, the most are the smallest parts, each with the
/// request that begins and the one that completes the upload.
fn write_requests(bytes: Bounds) -> Bounds {
    let fewest = match bytes.low {
        simple if simple <= LARGEST_PART_BYTES => 1,
        large => large.div_ceil(LARGEST_PART_BYTES).saturating_add(2),
    };
    let most = bytes
        .high
        .div_ceil(SMALLEST_PART_BYTES)
        .clamp(1, MOST_PARTS);
    Bounds::between(fewest, most + 2)
}
