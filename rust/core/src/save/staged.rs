//! [`Staged`]: a file that is being written under a name of its own.

use super::disk::{Disk, write_all};
use super::family::MAX_NAME_BYTES;
use super::lock::is_at;
use crate::error::{Error, FormatError, Result};
use crate::header::{Header, Metadata};
use crate::sys::source::Source;
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Permissions of a file that gets others when it is finished. Until then its owner has to be able
/// to open it again, whatever the old file's permissions.
const STAGED_MODE: u32 = 0o600;

/// Permissions of any other new file, of which the umask takes some away.
const NEW_MODE: u32 = 0o666;

/// What the name of a file of tensors ends with while it is being written.
const INCOMPLETE_ENDING: &str = ".incomplete";

/// Key of the metadata entry with the checksums: a JSON map of tensor name → CRC-32C of its bytes,
/// eight hexadecimal digits.
pub const CHECKSUM_KEY: &str = "windlass.crc32c";

/// What a new file will hold.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Tensors, which [`Save::write`](super::Save::write) brings.
    Tensors {
        /// Where each of them goes.
        header: Header,
        /// Whether the metadata is to get a checksum for each.
        checksums: bool,
    },
    /// About so many bytes that the caller writes to the staged path.
    Foreign {
        /// For the check of free space.
        len: u64,
    },
}

/// A file that is to be saved.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its name in the folder.
    pub name: String,
    /// What it will hold.
    pub contents: Contents,
}

impl NewFile {
    /// A file of tensors. With `checksums`, room is kept for one per tensor; without, those that
    /// the metadata brings along from another file are left out.
    ///
    /// # Errors
    /// [`FormatError::HeaderTooLarge`] when there is none.
    pub fn of_tensors(name: String, header: Header, checksums: bool) -> Result<Self, FormatError> {
        let header =
            if checksums { with_checksums(header, |_| 0)? } else { without_checksums(header)? };
        Ok(Self { name, contents: Contents::Tensors { header, checksums } })
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        match &self.contents {
            Contents::Tensors { header, .. } => header.data_start.saturating_add(header.data_len()),
            Contents::Foreign { len } => *len,
        }
    }
}

/// CRC-32C of part of a tensor.
#[derive(Clone, Copy, Debug)]
struct PartCrc {
    tensor: usize,
    start: u64,
    len: u64,
    crc: u32,
}

/// A file under its temporary name.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) path: PathBuf,
    /// Name beside it that it gets as soon as it is complete, unless it has it from the start.
    complete_path: Option<PathBuf>,
    /// Open, unless there are too many of them, or the caller writes them.
    kept: Option<Arc<File>>,
    pub(super) contents: Contents,
    /// Permissions that it gets when it is finished; without, the umask has decided.
    mode: Option<u32>,
    /// Ranges of the file that were written, in no order.
    written: Mutex<Vec<Range<u64>>>,
    crcs: Mutex<Vec<PartCrc>>,
}

impl Staged {
    /// Makes the file, with its final size. One of tensors has no name of a weights file until it
    /// is complete: whoever looks for such names takes what it finds for whole.
    ///
    /// `position`: that of the file among those of the save.
    pub(super) fn create(
        disk: &dyn Disk,
        complete_path: PathBuf,
        position: usize,
        new: NewFile,
        mode: Option<u32>,
    ) -> Result<Self> {
        let is_ours = matches!(new.contents, Contents::Tensors { .. });
        let path =
            if is_ours { incomplete(&complete_path, position) } else { complete_path.clone() };
        let failed = |error| Error::save(&path, None, "creating", error);
        let file = create(disk, &path, mode).map_err(failed)?;
        let staged = Self::of(disk, path, file, new, mode)?;
        Ok(Self { complete_path: is_ours.then_some(complete_path), ..staged })
    }

    /// Gives a file that was just made its final size.
    pub(super) fn of(
        disk: &dyn Disk,
        path: PathBuf,
        file: File,
        new: NewFile,
        mode: Option<u32>,
    ) -> Result<Self> {
        let len = new.len();
        let is_ours = matches!(new.contents, Contents::Tensors { .. });
        if is_ours && let Err(error) = disk.allocate(&file, len) {
            // The caller does not know this file yet: nobody else would remove it.
            let _ = disk.remove_file(&path);
            return Err(Error::save(&path, None, "reserving room", error));
        }
        let (written, crcs) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let kept = is_ours.then(|| Arc::new(file));
        let contents = new.contents;
        Ok(Self { path, complete_path: None, kept, contents, mode, written, crcs })
    }

    /// Closes the file until it is written to: a process may have about 1000 open.
    pub(super) fn close(&mut self) {
        self.kept = None;
    }

    /// The open file.
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
        self.kept.clone().map_or_else(|| self.open(), Ok)
    }

    /// Opens it again, what the caller has written only to be read: its permissions are the caller's.
    fn open(&self) -> io::Result<Arc<File>> {
        let is_ours = matches!(self.contents, Contents::Tensors { .. });
        OpenOptions::new().read(true).write(is_ours).open(&self.path).map(Arc::new)
    }

    /// Closes what [`Staged::file`] has opened.
    pub(super) fn give_back(&self, disk: &dyn Disk, file: Arc<File>) -> io::Result<()> {
        match &self.kept {
            Some(_) => Ok(()),
            None => close(disk, file),
        }
    }

    /// The header of a file of tensors.
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.contents {
            Contents::Tensors { header, .. } => Some(header),
            Contents::Foreign { .. } => None,
        }
    }

    /// Takes note of a range that is in the file.
    pub(super) fn note_range(&self, start: u64, len: u64) {
        let range = start..start.saturating_add(len);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(range);
    }

    /// Takes note of part of a tensor that is in the file.
    pub(super) fn note_part(&self, tensor: usize, start: u64, source: &Source<'_>) {
        if let Contents::Tensors { checksums: true, .. } = self.contents {
            let part = PartCrc { tensor, start, len: source.len() as u64, crc: source.crc32c() };
            self.crcs.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        }
    }

    /// Writes the header, sets the permissions, waits for the disk if asked, closes the file, and
    /// gives it the name of a complete one.
    pub(super) fn finish(&mut self, disk: &dyn Disk, durable: bool) -> Result<()> {
        let kept = self.kept.take();
        if let Contents::Tensors { header, .. } = &self.contents {
            self.check_complete(header.data_len())?;
        }
        let file = kept.map_or_else(|| self.open(), Ok).map_err(|error| self.not_found(error))?;
        if !is_at(&file, &self.path) {
            return Err(self.gone());
        }
        if let Contents::Tensors { header, checksums } = &self.contents {
            let bytes = if *checksums { self.checked(header)?.encode() } else { header.encode() };
            let source = Source::from_slice(&bytes);
            let written = write_all(disk, &file, 0, vec![source]);
            written.map_err(|e| Error::save(&self.path, None, "writing the header", e))?;
        }
        finish(disk, &self.path, file, self.mode, durable)?;
        if let Some(complete) = self.complete_path.take() {
            let renamed = disk.rename(&self.path, &complete);
            renamed.map_err(|error| Error::save(&complete, None, "renaming to", error))?;
            self.path = complete;
        }
        Ok(())
    }

    /// Makes sure that the finished file is still there: to be left by its index to nothing is worse
    /// for a checkpoint than not to be replaced.
    pub(super) fn check_there(&self) -> Result<()> {
        let metadata = fs::symlink_metadata(&self.path).map_err(|error| self.not_found(error))?;
        let has_len = match &self.contents {
            Contents::Tensors { header, .. } => {
                metadata.len() == header.data_start + header.data_len()
            }
            Contents::Foreign { .. } => true,
        };
        if metadata.is_file() && has_len { Ok(()) } else { Err(self.gone()) }
    }

    fn not_found(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => self.gone(),
            _ => Error::save(&self.path, None, "opening", error),
        }
    }

    fn gone(&self) -> Error {
        let reason = io::Error::other("somebody has removed, changed or replaced it");
        Error::save(&self.path, None, "finding the staged file", reason)
    }

    /// Every byte has to be written once: of a range that is written twice, nobody could say what
    /// is in it, nor give its checksum.
    fn check_complete(&self, expected: u64) -> Result<()> {
        let mut ranges = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ranges.sort_unstable_by_key(|range| range.start);
        let (mut found, mut repeated, mut end) = (0, 0, 0);
        for range in ranges {
            found += range.end - range.start;
            repeated += range.end.min(end).saturating_sub(range.start);
            end = range.end.max(end);
        }
        if found == expected && repeated == 0 {
            return Ok(());
        }
        let found = if found > expected { found } else { found - repeated };
        Err(Error::Incomplete { path: self.path.clone(), expected, found })
    }

    /// The header with the checksums of what was written.
    fn checked(&self, header: &Header) -> Result<Header> {
        let crcs = self.tensor_crcs(header.tensors.len());
        with_checksums(header.clone(), |tensor| crcs[tensor])
            .map_err(|source| Error::Format { path: self.path.clone(), source })
    }

    /// Joins the checksums of the parts to those of whole tensors.
    fn tensor_crcs(&self, count: usize) -> Vec<u32> {
        let mut parts = self.crcs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.sort_unstable_by_key(|part| (part.tensor, part.start));
        let mut crcs = vec![0; count];
        for part in parts {
            let len = usize::try_from(part.len).expect("a length of memory");
            crcs[part.tensor] = crc32c::crc32c_combine(crcs[part.tensor], part.crc, len);
        }
        crcs
    }
}

/// Name of a file while it is being written: without its own where that leaves no room for the ending.
/// A name that no file system takes is kept, so that it is refused now.
fn incomplete(path: &Path, position: usize) -> PathBuf {
    let len = path.file_name().map_or(0, OsStr::len);
    if (MAX_NAME_BYTES - INCOMPLETE_ENDING.len() + 1..=MAX_NAME_BYTES).contains(&len) {
        return path.with_file_name(format!("{position}{INCOMPLETE_ENDING}"));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(INCOMPLETE_ENDING);
    name.into()
}

/// Makes a file that will get these permissions when it is finished.
pub(super) fn create(disk: &dyn Disk, path: &Path, mode: Option<u32>) -> io::Result<File> {
    disk.create_file(path, mode.map_or(NEW_MODE, |_| STAGED_MODE))
}

/// Gives a written file its permissions, waits for the disk if asked, and closes it.
pub(super) fn finish(
    disk: &dyn Disk,
    path: &Path,
    file: Arc<File>,
    mode: Option<u32>,
    durable: bool,
) -> Result<()> {
    let failed = |action| move |source| Error::save(path, None, action, source);
    if let Some(mode) = mode {
        set_mode(disk, &file, mode).map_err(failed("setting permissions of"))?;
    }
    if durable {
        disk.sync(&file).map_err(failed("syncing"))?;
    }
    close(disk, file).map_err(failed("closing"))
}

/// Sets permissions, unless the file has them: file systems that keep none (FAT, CIFS and some of
/// FUSE) give all files the same, and refuse to change them.
fn set_mode(disk: &dyn Disk, file: &File, mode: u32) -> io::Result<()> {
    match file.metadata()?.permissions().mode() & 0o7777 {
        found if found == mode => Ok(()),
        _ => disk.set_mode(file, mode),
    }
}

/// Closes a file that nobody else uses any more.
fn close(disk: &dyn Disk, file: Arc<File>) -> io::Result<()> {
    Arc::into_inner(file).map_or(Ok(()), |file| disk.close(file))
}

/// The header without the checksums that its metadata brings along from another file.
///
/// # Errors
/// [`FormatError::HeaderTooLarge`] never, as it gets smaller.
pub fn without_checksums(mut header: Header) -> Result<Header, FormatError> {
    let found = header.metadata.as_mut().and_then(|metadata| metadata.shift_remove(CHECKSUM_KEY));
    if found.is_some() { header.with_data_start() } else { Ok(header) }
}

/// The header with a checksum for every tensor; its length does not depend on their values.
fn with_checksums(mut header: Header, crc: impl Fn(usize) -> u32) -> Result<Header, FormatError> {
    let entry = |(i, name): (usize, &String)| (name.clone(), format!("{:08x}", crc(i)).into());
    let checksums: Map<String, Value> = header.tensors.keys().enumerate().map(entry).collect();
    let mut metadata: Metadata = header.metadata.take().unwrap_or_default();
    metadata.insert(CHECKSUM_KEY.to_owned(), Value::Object(checksums).to_string());
    metadata.sort_keys();
    header.metadata = Some(metadata);
    header.with_data_start()
}

/// Last part of a path, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
