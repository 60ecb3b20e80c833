//! [`Checkpoint`]: one file, or an index and its shards, opened as one table name → place.

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::header::{self, Header, Metadata, Strictness};
use crate::index::Index;
use crate::names::ByName;
use crate::read::pool::{self, Control};
use crate::sys::dest::Dest;
use crate::sys::file::{FileIdentity, disable_read_ahead, is_still, open_regular, read_at, reopen};
use crate::sys::file_system::FileSystem;
use crate::sys::memory::{check_room, grow};
use crate::sys::mmap::Mapping;
use crate::tensor::TensorInfo;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Headers are read by this many threads at most: they are small, and wait for the disk.
const HEADER_THREADS: usize = 8;

/// Memory that a header and its table take, in lengths of its text, at most about.
const TABLE_SHARE: usize = 8;

/// How often a checkpoint is opened that is replaced each time meanwhile.
const MOST_TRIES: usize = 10;

/// One file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    /// Its name: as the index gives it, or the file name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it was when its header was read.
    pub identity: FileIdentity,
    /// Its `__metadata__`.
    pub metadata: Option<Metadata>,
}

/// One tensor's dtype, shape and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Position of the shard.
    pub shard: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Length of each dimension.
    pub shape: Vec<u64>,
    /// Byte range within the shard's file.
    pub file_range: Range<u64>,
}

/// A tensor that a shard holds and the index does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// Its name.
    pub tensor: String,
    /// Position of the shard.
    pub shard: usize,
}

/// An opened checkpoint: all headers read and checked, no tensor touched.
///
/// It holds no file open; a file that is replaced afterwards is noticed when it is read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: ByName<Located>,
    unlisted: Vec<Unlisted>,
    index_metadata: Option<String>,
}

impl Checkpoint {
    /// Opens a single safetensors file. Its tensors stand in the order of their bytes.
    ///
    /// # Errors
    /// Whatever opening meets, and [`Error::Format`].
    pub fn open_file(path: &Path, strictness: Strictness) -> Result<Self> {
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let (shard, header) = read_shard(name.into_owned(), path.to_owned(), strictness)?;
        let data_start = header.data_start;
        let locate = |(name, info)| (name, locate(0, data_start, info));
        Ok(Self {
            path: path.to_owned(),
            shards: vec![shard],
            tensors: header.tensors.into_iter().map(locate).collect(),
            unlisted: Vec::new(),
            index_metadata: None,
        })
    }

    /// Opens an index and the headers of all its shards. Tensors stand in index order.
    ///
    /// All of them belong together, also when somebody saves meanwhile: a save replaces the index
    /// before it gives a shard's name to another file, so if the index is still the same when all
    /// shards have been opened, and was not written to, none of them is of another save. If it is
    /// not, all are opened again.
    ///
    /// # Errors
    /// Whatever opening meets; [`Error::Index`] and [`Error::Format`]; and where index and headers
    /// disagree, [`Error::ListedButAbsent`] or [`Error::InTwoShards`].
    pub fn open_index(path: &Path, strictness: Strictness, control: &Control) -> Result<Self> {
        for _ in 0..MOST_TRIES {
            let (index, _held, identity) = Index::read_open(path)?;
            let opened = Self::open_shards(path, index, strictness, control);
            if matches!(opened, Err(Error::Cancelled)) || is_still(path, &identity) {
                return opened;
            }
        }
        let (expected, found) = ("one index".to_owned(), format!("{MOST_TRIES} in a row"));
        Err(Error::Replaced { path: path.to_owned(), expected, found })
    }

    fn open_shards(
        path: &Path,
        index: Index,
        strictness: Strictness,
        control: &Control,
    ) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let opened =
            read_shards(folder, &index, strictness, control).map_err(|error| match error {
                Error::NotFound { path: shard, source, .. } => {
                    Error::NotFound { path: shard, index: Some(path.to_owned()), source }
                }
                other => other,
            })?;
        let (shards, mut headers): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let tensors = take_listed(index.weight_map, &shards, &mut headers)?;
        let unlisted = take_unlisted(&tensors, &shards, headers)?;
        Ok(Self {
            path: path.to_owned(),
            shards,
            tensors,
            unlisted,
            index_metadata: index.metadata,
        })
    }

    /// The file or index that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, in the order of their first mention.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// All tensors by name.
    #[must_use]
    pub fn tensors(&self) -> &ByName<Located> {
        &self.tensors
    }

    /// Tensors of the shards that the index does not list, by shard and offset.
    #[must_use]
    pub fn unlisted(&self) -> &[Unlisted] {
        &self.unlisted
    }

    /// The JSON text of the index's `metadata`.
    #[must_use]
    pub fn index_metadata(&self) -> Option<&str> {
        self.index_metadata.as_deref()
    }

    /// Position of a tensor.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`].
    pub fn position(&self, name: &str) -> Result<usize> {
        self.tensors.get_index_of(name).ok_or_else(|| Error::TensorNotFound {
            tensor: name.to_owned(),
            path: self.path.clone(),
        })
    }

    /// Name and place of the tensor at a position.
    ///
    /// # Panics
    /// When there is no such position.
    #[must_use]
    pub fn tensor(&self, position: usize) -> (&str, &Located) {
        let (name, tensor) = self.tensors.get_index(position).expect("a position of this table");
        (name, tensor)
    }

    /// Maps a shard, private and writable.
    ///
    /// # Errors
    /// Those of [`Mapping::open`].
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn map_shard(&self, shard: usize) -> Result<Mapping> {
        let shard = &self.shards[shard];
        Mapping::open(&shard.path, &shard.identity)
    }

    /// What kind of file system a shard is on.
    ///
    /// # Errors
    /// Those of opening, and [`Error::Replaced`] when it is no longer the same file.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn file_system(&self, shard: usize) -> Result<FileSystem> {
        let shard = &self.shards[shard];
        reopen(&shard.path, &shard.identity).map(|file| FileSystem::of(&file))
    }

    /// Says which tensor a failed read was about.
    pub(crate) fn read_error(&self, shard: usize, offset: u64, source: io::Error) -> Error {
        let path = self.shards[shard].path.clone();
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.shrunk(shard, path);
        }
        let hit = |tensor: &Located| tensor.file_range.contains(&offset);
        let tensor = self.find_in_shard(shard, hit).map(|(name, _)| name.to_owned());
        Error::Io { path, tensor, action: "reading", source }
    }

    /// Says which tensor a shard has lost part of.
    pub(crate) fn shrunk(&self, shard: usize, path: PathBuf) -> Error {
        let found = path.metadata().map_or(0, |metadata| metadata.len());
        let cut = self.find_in_shard(shard, |tensor| tensor.file_range.end > found);
        let (tensor, expected) = cut
            .map_or((String::new(), 0), |(name, tensor)| (name.to_owned(), tensor.file_range.end));
        Error::Shrunk { path, tensor, expected, found }
    }

    /// The first tensor of a shard, in the order of bytes, for which `hit` holds.
    fn find_in_shard(
        &self,
        shard: usize,
        hit: impl Fn(&Located) -> bool,
    ) -> Option<(&str, &Located)> {
        let hits = self.tensors.iter().filter(|(_, tensor)| tensor.shard == shard && hit(tensor));
        hits.min_by_key(|(_, tensor)| tensor.file_range.start).map(|(name, t)| (name.as_str(), t))
    }
}

fn locate(shard: usize, data_start: u64, info: TensorInfo) -> Located {
    let TensorInfo { dtype, shape, range } = info;
    Located { shard, dtype, shape, file_range: data_start + range.start..data_start + range.end }
}

/// Reads the headers of all shards, several at a time.
fn read_shards(
    folder: &Path,
    index: &Index,
    strictness: Strictness,
    control: &Control,
) -> Result<Vec<(Shard, Header)>> {
    let slots: Vec<_> = index.shards.iter().map(|_| Mutex::new(None)).collect();
    let tasks: Vec<_> = index.shards.iter().zip(&slots).collect();
    let work = |(): &mut (), (name, slot): (&String, &Mutex<_>), _: &Control| {
        let opened = read_shard(name.clone(), folder.join(name), strictness)?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    };
    pool::run(HEADER_THREADS, pool::singly(tasks), control, || (), work)?;
    let opened = slots
        .into_iter()
        .filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(opened.collect())
}

fn read_shard(name: String, path: PathBuf, strictness: Strictness) -> Result<(Shard, Header)> {
    let (file, identity) = open_regular(&path)?;
    disable_read_ahead(&file); // What lies behind the header may never be wanted.
    let header = read_header(&file, &path, identity.len, strictness)?;
    let metadata = header.metadata.clone();
    Ok((Shard { name, path, identity, metadata }, header))
}

/// Reads no more than the header, and allocates no more than the file has.
fn read_header(file: &File, path: &Path, file_len: u64, strictness: Strictness) -> Result<Header> {
    let format = |source| Error::Format { path: path.to_owned(), source };
    let mut start = vec![0; header::START_LEN.min(usize::try_from(file_len).unwrap_or(usize::MAX))];
    read_exact_at(file, path, 0, &mut start)?;
    let text_len = header::text_len(&start, file_len).map_err(format)?;
    let text_len = usize::try_from(text_len).expect("checked against a limit");
    let no_memory = |error| Error::io(path, "making room for the header", error);
    check_room(text_len.saturating_mul(TABLE_SHARE)).map_err(no_memory)?;
    let mut text = Vec::new();
    grow(&mut text, text_len).map_err(no_memory)?;
    read_exact_at(file, path, header::PREFIX_LEN, &mut text)?;
    Header::parse(&text, file_len, strictness).map_err(format)
}

fn read_exact_at(file: &File, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<()> {
    read_at(file, offset, &mut [Dest::from_slice(buffer)])
        .map_err(|error| Error::io(path, "reading the header", error))
}

/// Moves every listed tensor out of the header of its shard, in index order.
fn take_listed(
    weight_map: ByName<usize>,
    shards: &[Shard],
    headers: &mut [Header],
) -> Result<ByName<Located>> {
    let mut tensors = ByName::default();
    tensors.reserve(weight_map.len());
    for (tensor, shard) in weight_map {
        let header = &mut headers[shard];
        let Some(info) = header.tensors.swap_remove(&tensor) else {
            let shard = shards[shard].name.clone();
            return Err(Error::ListedButAbsent { tensor, shard });
        };
        tensors.insert(tensor, locate(shard, header.data_start, info));
    }
    Ok(tensors)
}

/// What is left in the headers: tensors that the index does not list. None of them may have the
/// name of another tensor.
fn take_unlisted(
    listed: &ByName<Located>,
    shards: &[Shard],
    headers: Vec<Header>,
) -> Result<Vec<Unlisted>> {
    let mut places = ByName::default();
    for (shard, header) in headers.into_iter().enumerate() {
        let mut left: Vec<_> = header.tensors.into_iter().collect();
        left.sort_by_key(|(_, info)| info.range.start);
        for (tensor, _) in left {
            let elsewhere = listed.get(&tensor).map(|place| place.shard);
            if let Some(first) = elsewhere.or_else(|| places.get(&tensor).copied()) {
                let (first, second) = (shards[first].name.clone(), shards[shard].name.clone());
                return Err(Error::InTwoShards { tensor, first, second });
            }
            places.insert(tensor, shard);
        }
    }
    Ok(places.into_iter().map(|(tensor, shard)| Unlisted { tensor, shard }).collect())
}
