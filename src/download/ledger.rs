//! What has arrived, beside the partial file: what makes a download resumable.
//!
//! ```text
//! {"schema":"cvm-export.ledger.v1","size_bytes":…,"etag":…,"version_id":…,
//!  "synced":[[from,to,crc],…],"recent":[[from,to,crc],…]}     in one line
//! {"part":[from,to,crc]}            a part that was written, and perhaps not synced yet
//! ```
//!
//! The first line is written after the data was synced, to a new file that replaces the old one. Each
//! finished part adds a line at once, so that a killed process loses nothing but the parts on their
//! way. These parts are read back and compared with their checksums before they are trusted: after a
//! power cut the line can be there and the data not. Neighbours are folded, so the ledger stays small.
//!
//! `recent` names the last parts, at most 64 MiB of them and at least one, that were synced and are
//! part of `synced` as well. They are read back too, for a disk that loses what it said it had synced
//! loses the last first. The folded checksums would only tell after everything had been read.
//!
//! The new file has one fixed name, so that what a killed run leaves of it is overwritten by the next;
//! the lock of the partial file keeps other processes away from it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::landing::read_small;
use super::target::sync_folder;
use crate::cloud::cos::ObjectMeta;
use crate::crash;
use crate::crc64::Crc64;

const SCHEMA: &str = "cvm-export.ledger.v1";
/// How much the parts in `recent` make up at most, the last one aside, and how many they are.
const RECENT_BYTES: u64 = 64 << 20;
const RECENT_PARTS: usize = 64;

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
    #[serde(default)]
    recent: Vec<Stretch>,
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
    /// What has arrived: what was synced, the last parts of that, and what may not have been synced.
    Arrived {
        synced: Arrived,
        recent: Vec<Stretch>,
        written: Vec<Stretch>,
    },
}

/// Reads the ledger at `path` for `object`.
pub(super) fn read(path: &Path, object: &ObjectMeta) -> io::Result<Found> {
    let text = match read_small(path) {
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
    // An object without an ETag cannot be told from another one.
    if object.etag.is_empty()
        || head.size_bytes != object.size_bytes
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
    let is_synced = |part: &Stretch| {
        let holds = |stretch: &Stretch| stretch.start <= part.start && part.end <= stretch.end;
        part.start < part.end && synced.stretches().iter().any(holds)
    };
    if !head.recent.iter().all(is_synced) {
        return Found::Nothing(Some("its stretches make no sense"));
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
    Found::Arrived {
        synced,
        recent: head.recent,
        written,
    }
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
    recent: Recent,
}

/// The last parts, each with its own checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Recent(VecDeque<Stretch>);

impl Recent {
    fn add(&mut self, part: Stretch) {
        self.0.push_back(part);
        let bytes = |parts: &VecDeque<Stretch>| parts.iter().map(Stretch::length).sum::<u64>();
        while self.0.len() > 1 && (self.0.len() > RECENT_PARTS || bytes(&self.0) > RECENT_BYTES) {
            self.0.pop_front();
        }
    }
}

impl Ledger {
    /// Begins a ledger at `path` with what is known to be on disk, of which `recent` came last.
    pub(super) fn begin(
        path: &Path,
        object: &ObjectMeta,
        arrived: Arrived,
        recent: Vec<Stretch>,
    ) -> io::Result<Self> {
        let mut known = Recent::default();
        recent.into_iter().for_each(|part| known.add(part));
        let recent = known;
        let file = write(path, object, &arrived, &recent, &[])?;
        Ok(Self {
            path: path.to_owned(),
            object: object.clone(),
            file,
            arrived,
            unsynced: Vec::new(),
            recent,
        })
    }

    /// Notes a part whose bytes have been written.
    pub(super) fn note(&mut self, part: Stretch) -> io::Result<()> {
        self.arrived.add(part);
        self.unsynced.push(part);
        self.recent.add(part);
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
            recent: self.recent.clone(),
            parts: self.unsynced.len(),
        }
    }

    /// Promises what `mark` holds, whose data has been synced meanwhile.
    pub(super) fn synced(&mut self, mark: &Mark) -> io::Result<()> {
        self.unsynced.drain(..mark.parts);
        self.file = write(
            &self.path,
            &self.object,
            &mark.arrived,
            &mark.recent,
            &self.unsynced,
        )?;
        Ok(())
    }
}

/// What had been written at one moment.
#[derive(Debug)]
pub(super) struct Mark {
    arrived: Arrived,
    recent: Recent,
    parts: usize,
}

/// Puts a ledger in place of the present one, whole or not at all.
fn write(
    path: &Path,
    object: &ObjectMeta,
    synced: &Arrived,
    recent: &Recent,
    parts: &[Stretch],
) -> io::Result<File> {
    let head = Head {
        schema: SCHEMA.to_owned(),
        size_bytes: object.size_bytes,
        etag: object.etag.clone(),
        version_id: object.version_id.clone(),
        synced: synced.stretches().to_vec(),
        recent: recent.0.iter().copied().collect(),
    };
    let mut text = serde_json::to_vec(&head)?;
    text.push(b'\n');
    for part in parts {
        serde_json::to_writer(&mut text, &Line { part: *part })?;
        text.push(b'\n');
    }
    crash::point(crash::Before("ledger"));
    let new = new_name(path);
    // Made anew: a link of this name must lead nothing else to be written over.
    drop(std::fs::remove_file(&new));
    let mut file = File::create_new(&new)?;
    let written = file
        .write_all(&text)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // A full disk leaves a piece of it, which is of no use to anybody.
        drop(std::fs::remove_file(&new));
    }
    written?;
    sync_folder(path)?;
    crash::point(crash::After("ledger"));
    OpenOptions::new().append(true).open(path)
}

/// Where a ledger stands before it takes the place of the one at `path`.
pub(super) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Takes the ledger at `path` away, with what a killed run may have left of a newer one.
pub(super) fn remove(path: &Path) {
    drop(std::fs::remove_file(path));
    drop(std::fs::remove_file(new_name(path)));
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
        let mut ledger =
            Ledger::begin(&path, &object(100), Arrived::default(), Vec::new()).expect("a ledger");
        ledger.note(stretch(&bytes, 0..10)).expect("noted");
        let mark = ledger.mark();
        ledger.note(stretch(&bytes, 20..30)).expect("noted");
        ledger.synced(&mark).expect("synced");
        ledger.note(stretch(&bytes, 30..40)).expect("noted");
        let Found::Arrived {
            synced,
            recent,
            written,
        } = read(&path, &object(100)).expect("readable")
        else {
            panic!("nothing found");
        };
        assert_eq!(synced.stretches(), [stretch(&bytes, 0..10)]);
        assert_eq!(recent, [stretch(&bytes, 0..10)]);
        assert_eq!(written, [stretch(&bytes, 20..30), stretch(&bytes, 30..40)]);
    }

    #[test]
    fn a_torn_end_costs_its_part_and_a_torn_head_costs_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let bytes = [7; 100];
        let mut ledger =
            Ledger::begin(&path, &object(100), Arrived::default(), Vec::new()).expect("a ledger");
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
        Ledger::begin(&path, &object(100), Arrived::default(), Vec::new()).expect("a ledger");
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
    fn the_last_parts_keep_their_own_checksums_however_much_is_folded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let part = |number: u64, length: u64| Stretch {
            start: number * length,
            end: (number + 1) * length,
            crc: Crc64(number),
        };
        let mib = 1 << 20;
        for (length, kept) in [(64 << 10, 64), (8 * mib, 8), (30 * mib, 2), (3 << 30, 1)] {
            let size_bytes = 1000 * length;
            let mut ledger =
                Ledger::begin(&path, &object(size_bytes), Arrived::default(), Vec::new())
                    .expect("a ledger");
            for number in 0..500 {
                ledger.note(part(number, length)).expect("noted");
            }
            let mark = ledger.mark();
            ledger.note(part(500, length)).expect("noted");
            ledger.synced(&mark).expect("synced");
            let Found::Arrived { synced, recent, .. } =
                read(&path, &object(size_bytes)).expect("readable")
            else {
                panic!("nothing found");
            };
            assert_eq!(synced.stretches().len(), 1);
            let expected: Vec<_> = (500 - kept..500)
                .map(|number| part(number, length))
                .collect();
            assert_eq!(recent, expected, "parts of {length} bytes");
            let size = std::fs::metadata(&path).expect("a file").len();
            assert!(size < 4096, "the ledger has {size} bytes");
        }
    }

    #[test]
    fn what_a_killed_run_left_of_a_ledger_is_overwritten_and_taken_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        std::fs::write(new_name(&path), "half a led").expect("a file");
        Ledger::begin(&path, &object(100), Arrived::default(), Vec::new()).expect("a ledger");
        assert!(!new_name(&path).exists());
        std::fs::write(new_name(&path), "half a led").expect("a file");
        remove(&path);
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 0);
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
            "[[0,10,1]],\"recent\":[[5,20,1]]",
            "[[0,10,1]],\"recent\":[[5,5,1]]",
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
