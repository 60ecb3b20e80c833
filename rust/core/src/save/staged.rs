//! [`Staged`]: a file that is being written under a name of its own.

use super::disk::{Disk, write_all};
use crate::error::{Error, FormatError, Result};
use crate::header::{Header, Metadata};
use crate::sys::source::Source;
use serde_json::{Map, Value};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Key of the metadata entry with the checksums: a JSON map of tensor name → CRC-32C of its bytes,
/// eight hexadecimal digits.
pub const CHECKSUM_KEY: &str = "windlass.crc32c";

/// What a new file will hold.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Tensors, which [`Save::write`](super::Save::write) brings.
    Tensors(Header),
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
    /// A file of tensors. With `checksums`, room is kept for one per tensor; without, those of
    /// another file are not taken over from its metadata.
    ///
    /// # Errors
    /// [`FormatError::HeaderTooLarge`] when there is none.
    pub fn of_tensors(name: String, header: Header, checksums: bool) -> Result<Self, FormatError> {
        let header =
            if checksums { with_checksums(header, |_| 0)? } else { without_checksums(header)? };
        Ok(Self { name, contents: Contents::Tensors(header) })
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        match &self.contents {
            Contents::Tensors(header) => header.data_start.saturating_add(header.data_len()),
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
    pub(super) file: File,
    pub(super) contents: Contents,
    checksums: bool,
    written: AtomicU64,
    crcs: Mutex<Vec<PartCrc>>,
}

impl Staged {
    /// Makes the file, with its final size.
    pub(super) fn create(
        disk: &dyn Disk,
        path: PathBuf,
        new: NewFile,
        mode: Option<u32>,
    ) -> Result<Self> {
        let failed = |action| {
            let path = path.clone();
            move |source| Error::save(&path, None, action, source)
        };
        let file = disk.create_file(&path, mode).map_err(failed("creating"))?;
        let checksums = match &new.contents {
            Contents::Tensors(header) => {
                let len = new.len();
                // The caller does not know this file yet: nobody else would remove it.
                if let Err(error) = disk.allocate(&file, len) {
                    let _ = disk.remove_file(&path);
                    return Err(failed("reserving room")(error));
                }
                let metadata = header.metadata.as_ref();
                metadata.is_some_and(|metadata| metadata.contains_key(CHECKSUM_KEY))
            }
            Contents::Foreign { .. } => false,
        };
        let (written, crcs) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        Ok(Self { path, file, contents: new.contents, checksums, written, crcs })
    }

    /// The header of a file of tensors.
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.contents {
            Contents::Tensors(header) => Some(header),
            Contents::Foreign { .. } => None,
        }
    }

    /// Takes note of bytes that are in the file.
    pub(super) fn note(&self, tensor: usize, start: u64, source: &Source<'_>) {
        let len = source.len() as u64;
        self.written.fetch_add(len, Ordering::Relaxed);
        if self.checksums {
            let part = PartCrc { tensor, start, len, crc: source.crc32c() };
            self.crcs.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        }
    }

    /// Writes the header, and waits for the disk if asked.
    pub(super) fn finish(&self, disk: &dyn Disk, durable: bool) -> Result<()> {
        let failed = |action| move |source| Error::save(&self.path, None, action, source);
        if let Contents::Tensors(header) = &self.contents {
            let (expected, found) = (header.data_len(), self.written.load(Ordering::Relaxed));
            if expected != found {
                return Err(Error::Incomplete { path: self.path.clone(), expected, found });
            }
            let bytes = self.final_header(header)?.encode();
            let source = Source::from_slice(&bytes);
            write_all(disk, &self.file, 0, vec![source]).map_err(failed("writing the header"))?;
        }
        if durable {
            disk.sync(&self.file).map_err(failed("syncing"))?;
        }
        Ok(())
    }

    fn final_header(&self, header: &Header) -> Result<Header> {
        if !self.checksums {
            return Ok(header.clone());
        }
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

fn without_checksums(mut header: Header) -> Result<Header, FormatError> {
    let stale = header.metadata.as_mut().and_then(|metadata| metadata.shift_remove(CHECKSUM_KEY));
    if stale.is_some() { header.with_data_start() } else { Ok(header) }
}

/// Last part of a path, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
