//! The place on this machine that an object is written to: a file with holes, or a block device.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::error::DownloadError;
use super::reading::{self, Digests, Wanted};
use crate::crash;

/// The unit in which zeros are left out: what file systems allocate.
const BLOCK_BYTES: usize = 4096;

/// What stands under the final name before a download.
#[derive(Debug)]
pub(super) enum Standing {
    Nothing,
    File {
        size_bytes: u64,
    },
    BlockDevice,
    /// A link that leads nowhere.
    BrokenLink,
    /// A folder, a pipe, a socket or a character device: nothing that could hold an object.
    Other,
}

/// Looks at what stands under `path`.
pub(super) fn standing(path: &Path) -> Result<Standing, DownloadError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match path.symlink_metadata() {
                Ok(_) => Standing::BrokenLink,
                Err(_) => Standing::Nothing,
            });
        }
        Err(error) => return Err(DownloadError::disk("look at", path)(error)),
    };
    Ok(if is_block_device(&metadata) {
        Standing::BlockDevice
    } else if metadata.is_file() {
        Standing::File {
            size_bytes: metadata.len(),
        }
    } else {
        Standing::Other
    })
}

#[cfg(unix)]
fn is_block_device(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_block_device(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// Reads the file `path` that is there already.
pub(super) fn digest_of(
    path: &Path,
    wanted: Wanted,
    cancel: &CancellationToken,
) -> Result<Digests, DownloadError> {
    let mut file = File::open(path).map_err(DownloadError::disk("read", path))?;
    reading::digest(path, wanted, cancel, |buffer, _| file.read(buffer))
}

/// A target that is open, locked, and as large as the object.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    path: PathBuf,
    /// Whether zeros must be written where nothing else is.
    is_dense: bool,
}

impl Target {
    /// Opens the partial file at `path`, keeping what is in it, and locks out other processes.
    pub(super) fn open_partial(path: &Path) -> Result<Self, DownloadError> {
        let failed = || DownloadError::disk("write", path);
        // A link, or a second name of another file, would have that one written over.
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !is_nobody_elses(&metadata) => {
                return Err(DownloadError::InTheWay {
                    path: path.to_owned(),
                    difference: "it is a link, or no file, or has a second name".to_owned(),
                });
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NOFOLLOW.bits().cast_signed(),
        );
        let open = options.open(path);
        let target = Self {
            file: open.map_err(failed())?,
            path: path.to_owned(),
            is_dense: false,
        };
        target.lock()?;
        // The process that held the lock may have finished: then this is its finished file, under
        // its final name.
        if !is_same_file(&target.file, path) {
            return Err(DownloadError::Busy {
                path: path.to_owned(),
            });
        }
        Ok(target)
    }

    /// Opens a block device, whose old content is everywhere. One that is mounted, or that another
    /// program has for itself, is refused by the system.
    pub(super) fn open_device(path: &Path, size_bytes: u64) -> Result<Self, DownloadError> {
        let failed = || DownloadError::disk("write", path);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Without O_CREAT it asks for the whole of a block device.
            options.custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed());
        }
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => DownloadError::DeviceInUse {
                path: path.to_owned(),
            },
            _ => failed()(error),
        })?;
        // The metadata of a block device say zero; its end does not.
        let room = file.seek(SeekFrom::End(0)).map_err(failed())?;
        if room < size_bytes {
            let folder = path.to_owned();
            return Err(DownloadError::NoRoom {
                folder,
                needed: size_bytes,
                free: room,
            });
        }
        let target = Self {
            file,
            path: path.to_owned(),
            is_dense: true,
        };
        target.lock()?;
        Ok(target)
    }

    fn lock(&self) -> Result<(), DownloadError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(DownloadError::Busy {
                path: self.path.clone(),
            }),
            // A file system without locks protects nothing, and is no reason to fetch nothing.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(error)) => Err(DownloadError::disk("lock", &self.path)(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds anything but a hole.
    pub(super) fn holds_something(&self) -> Result<bool, DownloadError> {
        let is_empty = self.size_bytes()? == 0 || allocated_bytes(&self.file) == Some(0);
        Ok(!is_empty)
    }

    pub(super) fn size_bytes(&self) -> Result<u64, DownloadError> {
        let metadata = self
            .file
            .metadata()
            .map_err(DownloadError::disk("look at", &self.path))?;
        Ok(metadata.len())
    }

    /// Makes it empty and then as large as the object, all of it a hole.
    pub(super) fn clear(&self, size_bytes: u64) -> Result<(), DownloadError> {
        let resize = self
            .file
            .set_len(0)
            .and_then(|()| self.file.set_len(size_bytes));
        resize.map_err(DownloadError::disk("make room in", &self.path))
    }

    /// Writes what arrived, leaving runs of zeros out. What stood there before is zero, or these very
    /// bytes, or must be overwritten: `over` says which.
    pub(super) fn write(&self, bytes: &[u8], position: u64, over: Over) -> io::Result<()> {
        if self.is_dense {
            return write_all_at(&self.file, bytes, position);
        }
        for (range, is_zero) in runs(bytes, position) {
            let at = position + range.start as u64;
            let run = &bytes[range];
            match (is_zero, over) {
                (false, _) => write_all_at(&self.file, run, at)?,
                (true, Over::Hole) => {}
                (true, Over::Unknown | Over::Compared) => self.write_zeros(run.len(), at)?,
            }
        }
        Ok(())
    }

    /// Makes `length` bytes zero, writing only blocks that are not.
    fn write_zeros(&self, length: usize, position: u64) -> io::Result<()> {
        let mut block = [0; BLOCK_BYTES];
        let mut done = 0;
        while done < length {
            let at = position + done as u64;
            let size = (length - done).min(BLOCK_BYTES);
            read_exact_at(&self.file, &mut block[..size], at)?;
            if !is_zero(&block[..size]) {
                write_all_at(&self.file, &[0; BLOCK_BYTES][..size], at)?;
            }
            done += size;
        }
        Ok(())
    }

    /// Whether `bytes` stand at `position`.
    pub(super) fn holds(&self, bytes: &[u8], position: u64) -> io::Result<bool> {
        let mut buffer = vec![0; bytes.len()];
        read_exact_at(&self.file, &mut buffer, position)?;
        Ok(buffer == bytes)
    }

    /// Reads what stands in `range`.
    pub(super) fn digest(
        &self,
        range: &Range<u64>,
        wanted: Wanted,
        cancel: &CancellationToken,
    ) -> Result<Digests, DownloadError> {
        reading::digest(&self.path, wanted, cancel, |buffer, done| {
            let length = reading::next_length(range, done, buffer.len());
            read_exact_at(&self.file, &mut buffer[..length], range.start + done)?;
            Ok(length)
        })
    }

    /// Puts what was written on the disk itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the finished file its final name, durably. What stands there is replaced where that is
    /// wanted; where it is not, something has appeared there meanwhile.
    pub(super) fn finish(&self, name: &Path, replaces: bool) -> Result<(), DownloadError> {
        let failed = || DownloadError::disk("put in place", name);
        self.file.sync_all().map_err(failed())?;
        crash::point(crash::Before("finished file"));
        let renamed = if replaces {
            std::fs::rename(&self.path, name)
        } else {
            rename_to_nothing(&self.path, name)
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => DownloadError::InTheWay {
                path: name.to_owned(),
                difference: "it appeared while the object was fetched".to_owned(),
            },
            _ => failed()(error),
        })?;
        sync_folder(name).map_err(failed())?;
        crash::point(crash::After("finished file"));
        Ok(())
    }

    /// Whether the file system has set all the room aside already, as those without holes do.
    pub(super) fn has_all_its_room(&self, size_bytes: u64) -> bool {
        allocated_bytes(&self.file).is_some_and(|allocated| allocated >= size_bytes)
    }
}

/// What a write goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing: the file was cleared and nobody has written here.
    Hole,
    /// Something that an earlier run or a wrong answer may have left.
    Unknown,
    /// What is taken for these very bytes: whatever differs is counted.
    Compared,
}

/// Cuts `bytes`, which stand at `position` of the object, into runs of zero blocks and others.
fn runs(bytes: &[u8], position: u64) -> impl Iterator<Item = (Range<usize>, bool)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == bytes.len() {
            return None;
        }
        let first = block_end(bytes.len(), position, start);
        let kind = is_zero(&bytes[start..first]);
        let mut end = first;
        while end < bytes.len() {
            let next = block_end(bytes.len(), position, end);
            if is_zero(&bytes[end..next]) != kind {
                break;
            }
            end = next;
        }
        let run = start..end;
        start = end;
        Some((run, kind))
    })
}

/// Where the block of the object ends in which byte `start` of a buffer of `length` bytes lies.
fn block_end(length: usize, position: u64, start: usize) -> usize {
    let within = ((position + start as u64) % BLOCK_BYTES as u64) as usize;
    length.min(start + BLOCK_BYTES - within)
}

fn is_zero(bytes: &[u8]) -> bool {
    /// A comparison of memory uses the widest registers there are, also in a build for tests.
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes
        .chunks(BLOCK_BYTES)
        .all(|block| block == &ZEROS[..block.len()])
}

/// What the names of the partial file, its ledger, and a newer one of that end in.
pub(super) const SUFFIXES: [&str; 3] = [".cvm-part", ".cvm-part.json", ".cvm-part.json.new"];

/// Whether it is a file that no other name leads to.
#[cfg(unix)]
fn is_nobody_elses(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.is_file() && metadata.nlink() == 1
}

#[cfg(not(unix))]
fn is_nobody_elses(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file()
}

/// The names of the partial file and its ledger, which never end like the finished file.
pub(super) fn partial_names(path: &Path) -> (PathBuf, PathBuf) {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let [partial, ledger, _] = SUFFIXES;
    (with(partial), with(ledger))
}

/// The folder that `path` is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Bytes that are free for the person in the file system of `path`; `None` where it does not tell.
#[cfg(unix)]
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
pub(super) fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// Whether `path` still names the file that is open.
#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let named = std::fs::metadata(path).map(identity);
    named.is_ok_and(|named| {
        file.metadata()
            .is_ok_and(|metadata| identity(metadata) == named)
    })
}

/// Other systems do not rename a file that is open elsewhere.
#[cfg(not(unix))]
fn is_same_file(_file: &File, _path: &Path) -> bool {
    true
}

/// Renames `from` to `to`, where nothing may stand.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // An old kernel, or a file system that cannot tell.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            renamed => return renamed.map_err(io::Error::from),
        }
    }
    // A moment is left between the look and the rename; it was hours without the look.
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)
}

#[cfg(unix)]
pub(super) fn allocated_bytes(file: &File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    // The unit is 512 bytes, whatever the file system's own is.
    Some(file.metadata().ok()?.blocks().saturating_mul(512))
}

#[cfg(not(unix))]
pub(super) fn allocated_bytes(_file: &File) -> Option<u64> {
    None
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, position)
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, position)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, position)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        position += written as u64;
    }
    Ok(())
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        let read = file.seek_read(buffer, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        position += read as u64;
    }
    Ok(())
}

/// Makes a rename to `name` durable. Other systems than Unix have no such call and need none that we know of.
#[cfg(unix)]
pub(super) fn sync_folder(name: &Path) -> io::Result<()> {
    File::open(folder_of(name))?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_name: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_blocks_of_the_object_and_cover_every_byte() {
        let mut bytes = vec![0; 5 * BLOCK_BYTES];
        bytes[BLOCK_BYTES + 7] = 1;
        bytes[3 * BLOCK_BYTES] = 1;
        let seen: Vec<_> = runs(&bytes, 0).collect();
        let block = BLOCK_BYTES;
        assert_eq!(
            seen,
            [
                (0..block, true),
                (block..2 * block, false),
                (2 * block..3 * block, true),
                (3 * block..4 * block, false),
                (4 * block..5 * block, true),
            ]
        );
        for position in [0, 1, 511, 4095, 4096, 1 << 40] {
            let mut end = 0;
            for (range, is_zero) in runs(&bytes, position) {
                assert_eq!(range.start, end);
                assert_eq!(is_zero, bytes[range.clone()].iter().all(|byte| *byte == 0));
                end = range.end;
            }
            assert_eq!(end, bytes.len());
        }
        assert_eq!(runs(&[], 5).count(), 0);
    }

    #[test]
    fn zeros_leave_holes_and_wipe_what_should_not_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = Target::open_partial(&folder.path().join("disk.cvm-part")).expect("a file");
        target.clear(1 << 20).expect("room");
        let mut bytes = vec![0; 64 * 1024];
        bytes[5000] = 9;
        target.write(&bytes, 4096, Over::Hole).expect("written");
        assert!(target.holds(&bytes, 4096).expect("readable"));
        assert!(!target.has_all_its_room(1 << 20));
        assert!(allocated_bytes(&target.file).expect("known") <= 4096 * 2);
        // A wrong answer left something that the right one has not.
        target
            .write(&[7; 100], 20_000, Over::Unknown)
            .expect("written");
        assert!(!target.holds(&bytes, 4096).expect("readable"));
        target.write(&bytes, 4096, Over::Unknown).expect("written");
        assert!(target.holds(&bytes, 4096).expect("readable"));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.cvm-part");
        let first = Target::open_partial(&path).expect("a file");
        assert!(matches!(
            Target::open_partial(&path),
            Err(DownloadError::Busy { .. })
        ));
        drop(first);
        assert!(Target::open_partial(&path).is_ok());
    }

    #[test]
    fn what_appears_under_the_final_name_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.cvm-part");
        let name = folder.path().join("disk");
        let target = Target::open_partial(&path).expect("a file");
        std::fs::write(&name, "somebody else's").expect("a file");
        let ended = target.finish(&name, false);
        assert!(matches!(ended, Err(DownloadError::InTheWay { .. })));
        assert!(path.exists());
        assert!(is_same_file(&target.file, &path));
        target.finish(&name, true).expect("replaced");
        assert!(!is_same_file(&target.file, &path));
        assert_eq!(std::fs::read(&name).expect("the file"), b"");
    }

    #[test]
    fn a_device_is_written_densely_where_it_is_and_must_be_large_enough() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device");
        std::fs::write(&path, vec![7; 3 * BLOCK_BYTES]).expect("a file");
        let size_bytes = 2 * BLOCK_BYTES as u64;
        assert!(matches!(
            Target::open_device(&path, 4 * size_bytes),
            Err(DownloadError::NoRoom { .. })
        ));
        let target = Target::open_device(&path, size_bytes).expect("a device");
        let mut bytes = vec![0; 2 * BLOCK_BYTES];
        bytes[5] = 1;
        target.write(&bytes, 0, Over::Hole).expect("written");
        let seen = std::fs::read(&path).expect("the file");
        assert_eq!(seen[..bytes.len()], bytes, "zeros are written as well");
        assert_eq!(seen[bytes.len()..], [7; BLOCK_BYTES], "nothing behind it");
    }
}
