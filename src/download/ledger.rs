//! What has arrived, beside the partial file: what makes a download resumable.
//!
//! ```text
//! {"schema":"cvm-export.ledger.v1","size_bytes":…,"etag":…,"version_id":…,"synced":[[from,to,crc],…]}
//! {"part":[from,to,crc]}            a part that was written, and perhaps not synced yet
//! ```
//!
//! The first line is written after the data was synced, to a new file that replaces the old one. Each
//! finished part adds a line at once, so that a killed process loses nothing but the parts on their
//! way. These parts are read back and compared with their checksums before they are trusted: after a
//! power cut the line can be there and the data not. Neighbours are folded, so the ledger stays small.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cloud::cos::ObjectMeta;
use crate::crc64::Crc64;

const SCHEMA: &str = "cvm-export.ledger.v1";

/// A stretch of the object that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u64, u64, Crc64)", from = "(u64, u64, Crc64)")]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) crc: Crc64,
}

impl From<Stretch> for (u64, u64, Crc64) {
    fn from(stretch: Stretch) -> Self {
        (stretch.start, stretch.end, stretch.crc)
    }
}

impl From<(u64, u64, Crc64)> for Stretch {
    fn from((start, end, crc): (u64, u64, Crc64)) -> Self {
        Self { start, end, crc }
    }
}

impl Stretch {
    pub(super) fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// Stretches in order, neighbours folded into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived(Vec<Stretch>);

impl Arrived {
    /// Adds a stretch that overlaps none of those that are there.
    pub(super) fn add(&mut self, stretch: Stretch) {
        let position = self.0.partition_point(|known| known.end <= stretch.start);
        self.0.insert(position, stretch);
        if position + 1 < self.0.len() {
            self.fold(position);
        }
        if position > 0 {
            self.fold(position - 1);
        }
    }

    /// Folds the stretch at `position` and the one after it, where they touch.
    fn fold(&mut self, position: usize) {
        let (left, right) = (self.0[position], self.0[position + 1]);
        if left.end == right.start {
            let crc = left.crc.followed_by(right.crc, right.length());
            self.0[position] = Stretch {
                start: left.start,
                end: right.end,
                crc,
            };
            self.0.remove(position + 1);
        }
    }

    /// The stretches, in order.
    pub(super) fn stretches(&self) -> &[Stretch] {
        &self.0
    }

    /// How much has arrived.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(Stretch::length).sum()
    }

    /// What of an object of `size_bytes` is still missing, in order.
    pub(super) fn missing(&self, size_bytes: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut position = 0;
        for stretch in &self.0 {
            if position < stretch.start {
                missing.push(position..stretch.start);
            }
            position = stretch.end;
        }
        if position < size_bytes {
            missing.push(position..size_bytes);
        }
        missing
    }

    /// The checksum of the whole, once all of it has arrived.
    pub(super) fn whole(&self, size_bytes: u64) -> Option<Crc64> {
        match self.0.as_slice() {
            [] if size_bytes == 0 => Some(Crc64::default()),
            [all] if all.start == 0 && all.end == size_bytes => Some(all.crc),
            _ => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    schema: String,
    size_bytes: u64,
    etag: String,
    version_id: Option<String>,
    synced: Vec<Stretch>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    part: Stretch,
}

/// What a ledger file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none, or one that makes no sense; the text says what is wrong with it.
    Nothing(Option<&'static str>),
    /// It is of another object, or of another version of it.
    OtherObject,
    /// A later version of this program wrote it.
    LaterVersion,
    /// What has arrived: what was synced, and what may not have been.
    Arrived {
        synced: Arrived,
        written: Vec<Stretch>,
    },
}

/// Reads the ledger at `path` for `object`.
pub(super) fn read(path: &Path, object: &ObjectMeta) -> io::Result<Found> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing(None)),
        Err(error) => return Err(error),
    };
    Ok(parse(&text, object))
}

fn parse(text: &[u8], object: &ObjectMeta) -> Found {
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    match serde_json::from_slice::<Schema>(first) {
        Ok(Schema { schema }) if schema == SCHEMA => {}
        Ok(Schema { schema }) if schema.starts_with("cvm-export.ledger.") => {
            return Found::LaterVersion;
        }
        _ => return Found::Nothing(Some("it is torn")),
    }
    let Ok(head) = serde_json::from_slice::<Head>(first) else {
        return Found::Nothing(Some("it is torn"));
    };
    if head.size_bytes != object.size_bytes
        || head.etag != object.etag
        || head.version_id != object.version_id
    {
        return Found::OtherObject;
    }
    let mut synced = Arrived::default();
    let mut end = 0;
    for stretch in head.synced {
        if stretch.start < end || stretch.end <= stretch.start || stretch.end > object.size_bytes {
            return Found::Nothing(Some("its stretches make no sense"));
        }
        end = stretch.end;
        synced.add(stretch);
    }
    // The last line may be torn; what it speaks of is fetched again.
    let whole = lines.take_while(|line| line.ends_with(b"\n"));
    let parts = whole.map_while(|line| Some(serde_json::from_slice::<Line>(line).ok()?.part));
    let missing = synced.missing(object.size_bytes);
    let is_missing = |part: &Stretch| {
        part.start < part.end
            && missing
                .iter()
                .any(|range| range.start <= part.start && part.end <= range.end)
    };
    let mut written: Vec<Stretch> = parts.filter(is_missing).collect();
    written.sort_by_key(|part| part.start);
    written.dedup_by(|next, known| next.start < known.end);
    Found::Arrived { synced, written }
}

/// The ledger of a download that runs.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    object: ObjectMeta,
    file: File,
    arrived: Arrived,
    /// The parts since the last sync, of which the file has a line each.
    unsynced: Vec<Stretch>,
}

impl Ledger {
    /// Begins a ledger at `path` with what is known to be on disk.
    pub(super) fn begin(path: &Path, object: &ObjectMeta, arrived: Arrived) -> io::Result<Self> {
        let file = write(path, object, &arrived, &[])?;
        Ok(Self {
            path: path.to_owned(),
            object: object.clone(),
            file,
            arrived,
            unsynced: Vec::new(),
        })
    }

    /// Notes a part whose bytes have been written.
    pub(super) fn note(&mut self, part: Stretch) -> io::Result<()> {
        self.arrived.add(part);
        self.unsynced.push(part);
        let mut line = serde_json::to_vec(&Line { part })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    pub(super) fn arrived(&self) -> &Arrived {
        &self.arrived
    }

    /// What [`Ledger::synced`] may promise once the data written so far has been synced.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            arrived: self.arrived.clone(),
            parts: self.unsynced.len(),
        }
    }

    /// Promises what `mark` holds, whose data has been synced meanwhile.
    pub(super) fn synced(&mut self, mark: &Mark) -> io::Result<()> {
        self.unsynced.drain(..mark.parts);
        self.file = write(&self.path, &self.object, &mark.arrived, &self.unsynced)?;
        Ok(())
    }
}

/// What had been written at one moment.
#[derive(Debug)]
pub(super) struct Mark {
    arrived: Arrived,
    parts: usize,
}

/// Puts a ledger in place of the present one, whole or not at all.
fn write(
    path: &Path,
    object: &ObjectMeta,
    synced: &Arrived,
    parts: &[Stretch],
) -> io::Result<File> {
    let head = Head {
        schema: SCHEMA.to_owned(),
        size_bytes: object.size_bytes,
        etag: object.etag.clone(),
        version_id: object.version_id.clone(),
        synced: synced.stretches().to_vec(),
    };
    let mut text = serde_json::to_vec(&head)?;
    text.push(b'\n');
    for part in parts {
        serde_json::to_writer(&mut text, &Line { part: *part })?;
        text.push(b'\n');
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&text)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size_bytes: u64) -> ObjectMeta {
        ObjectMeta {
            key: "p_xvda.raw".parse().expect("a key"),
            size_bytes,
            etag: "abc-3".to_owned(),
            crc64: None,
            storage_class: "STANDARD".to_owned(),
            last_modified: None,
            version_id: None,
        }
    }

    fn stretch(bytes: &[u8], range: Range<usize>) -> Stretch {
        Stretch {
            start: range.start as u64,
            end: range.end as u64,
            crc: Crc64::of(&bytes[range]),
        }
    }

    #[test]
    fn neighbours_fold_in_whatever_order_they_arrive() {
        let bytes: Vec<u8> = (0..100).collect();
        let parts = [0..10, 10..25, 25..26, 26..70, 70..100];
        for rotation in 0..parts.len() {
            for step in [1, 2, 3] {
                let mut arrived = Arrived::default();
                for number in 0..parts.len() {
                    let position = (rotation + number * step) % parts.len();
                    arrived.add(stretch(&bytes, parts[position].clone()));
                    assert!(arrived.stretches().len() <= 3);
                }
                assert_eq!(arrived.whole(100), Some(Crc64::of(&bytes)));
                assert_eq!(arrived.missing(100), []);
            }
        }
    }

    #[test]
    fn what_is_missing_is_told_in_order() {
        let bytes = [0; 100];
        let mut arrived = Arrived::default();
        assert_eq!(
            arrived.missing(100),
            std::iter::once(0..100).collect::<Vec<_>>()
        );
        assert_eq!(arrived.missing(0), []);
        arrived.add(stretch(&bytes, 40..50));
        arrived.add(stretch(&bytes, 10..20));
        assert_eq!(arrived.missing(100), [0..10, 20..40, 50..100]);
        assert_eq!((arrived.bytes(), arrived.whole(100)), (20, None));
    }

    #[test]
    fn a_ledger_tells_what_was_synced_from_what_was_only_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let bytes = [7; 100];
        let mut ledger = Ledger::begin(&path, &object(100), Arrived::default()).expect("a ledger");
        ledger.note(stretch(&bytes, 0..10)).expect("noted");
        let mark = ledger.mark();
        ledger.note(stretch(&bytes, 20..30)).expect("noted");
        ledger.synced(&mark).expect("synced");
        ledger.note(stretch(&bytes, 30..40)).expect("noted");
        let Found::Arrived { synced, written } = read(&path, &object(100)).expect("readable")
        else {
            panic!("nothing found");
        };
        assert_eq!(synced.stretches(), [stretch(&bytes, 0..10)]);
        assert_eq!(written, [stretch(&bytes, 20..30), stretch(&bytes, 30..40)]);
    }

    #[test]
    fn a_torn_end_costs_its_part_and_a_torn_head_costs_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let bytes = [7; 100];
        let mut ledger = Ledger::begin(&path, &object(100), Arrived::default()).expect("a ledger");
        ledger.note(stretch(&bytes, 0..10)).expect("noted");
        ledger.note(stretch(&bytes, 10..20)).expect("noted");
        let text = std::fs::read(&path).expect("readable");
        let head = text.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for cut in 0..text.len() {
            match parse(&text[..cut], &object(100)) {
                Found::Nothing(_) => assert!(cut < head, "cut at {cut}"),
                Found::Arrived { written, .. } => {
                    assert!(cut + 1 >= head && written.len() < 2, "cut at {cut}")
                }
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_objects_and_later_versions_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        Ledger::begin(&path, &object(100), Arrived::default()).expect("a ledger");
        assert_eq!(
            read(&path, &object(101)).expect("readable"),
            Found::OtherObject
        );
        let other = ObjectMeta {
            etag: "def-3".to_owned(),
            ..object(100)
        };
        assert_eq!(read(&path, &other).expect("readable"), Found::OtherObject);
        let later = br#"{"schema":"cvm-export.ledger.v2","anything":1}"#;
        assert_eq!(parse(later, &object(100)), Found::LaterVersion);
        assert_eq!(
            parse(b"{}\n", &object(100)),
            Found::Nothing(Some("it is torn"))
        );
        assert_eq!(
            read(&folder.path().join("none"), &object(1)).expect("readable"),
            Found::Nothing(None)
        );
    }

    #[test]
    fn nonsense_in_a_ledger_is_never_believed() {
        let text = |synced: &str, parts: &str| {
            format!(
                "{{\"schema\":\"{SCHEMA}\",\"size_bytes\":100,\"etag\":\"abc-3\",\"version_id\":null,\"synced\":{synced}}}\n{parts}"
            )
        };
        for synced in [
            "[[0,101,1]]",
            "[[5,5,1]]",
            "[[9,3,1]]",
            "[[0,10,1],[5,20,1]]",
        ] {
            let found = parse(text(synced, "").as_bytes(), &object(100));
            assert_eq!(
                found,
                Found::Nothing(Some("its stretches make no sense")),
                "{synced}"
            );
        }
        let parts = "{\"part\":[0,10,1]}\n{\"part\":[5,15,1]}\n{\"part\":[90,200,1]}\n{\"part\":[50,40,1]}\n";
        let Found::Arrived { written, .. } = parse(text("[]", parts).as_bytes(), &object(100))
        else {
            panic!("nothing found");
        };
        assert_eq!(
            written,
            [Stretch {
                start: 0,
                end: 10,
                crc: Crc64(1)
            }]
        );
    }
}
