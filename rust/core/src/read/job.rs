//! [`Job`]: which bytes of which tensor go where: as they are, cast and scattered, or some of them.

use super::rows::{FarRows, RowsDest};
use crate::checkpoint::{Checkpoint, Located};
use crate::convert::{Cast, StridedDest, cast, scatter};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::plan::Want;
use crate::sys::dest::Dest;
use crate::sys::source::Source;

/// One destination to be filled.
#[derive(Debug)]
pub struct Job<'a> {
    /// Position of the tensor in the checkpoint.
    pub tensor: usize,
    /// First byte wanted, counted from the start of the tensor.
    pub start: u64,
    /// Memory to fill; its length says how many bytes are read.
    pub dest: JobDest<'a>,
}

/// Memory that a job fills.
#[derive(Debug)]
pub enum JobDest<'a> {
    /// Takes bytes as they are in the file; they are read into place.
    Bytes(Dest<'a>),
    /// Takes elements, which are read into memory of the reading thread first.
    Elements(ElementsDest<'a>),
    /// Takes runs of bytes, which are gathered from memory of the reading thread.
    Rows(RowsDest<'a>),
}

/// A strided tensor, and how elements of the file become its own.
#[derive(Debug)]
pub struct ElementsDest<'a> {
    dest: StridedDest<'a>,
    cast: Cast,
}

impl<'a> From<Dest<'a>> for JobDest<'a> {
    fn from(dest: Dest<'a>) -> Self {
        Self::Bytes(dest)
    }
}

impl<'a> JobDest<'a> {
    /// Bytes of the file from the first that is wanted to the last.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(dest) => dest.len(),
            Self::Elements(ElementsDest { dest, cast }) => dest.range().len() * cast.from_bytes(),
            Self::Rows(rows) => rows.len(),
        }
    }

    /// How many of them are wanted.
    pub(super) fn delivered(&self) -> u64 {
        match self {
            Self::Rows(rows) => rows.delivered() as u64,
            _ => self.len() as u64,
        }
    }

    /// Whether there is nothing to fill.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of an element in the file, where elements do not stay together.
    pub(super) fn element_bytes(&self) -> Option<usize> {
        match self {
            Self::Bytes(_) => None,
            Self::Elements(elements) => Some(elements.cast.from_bytes()),
            Self::Rows(rows) => Some(rows.element_bytes()),
        }
    }

    /// The rows by themselves, if there are some that are more than `max_gap` bytes apart.
    pub(super) fn into_far(self, max_gap: u64) -> std::result::Result<FarRows<'a>, Self> {
        match self {
            Self::Rows(rows) => rows.into_far(max_gap).map_err(Self::Rows),
            other => Err(other),
        }
    }

    /// Splits off what the first `len` bytes of the file fill: whole elements.
    pub(super) fn split_off_front(&mut self, len: usize) -> Self {
        match self {
            Self::Bytes(dest) => Self::Bytes(dest.split_off_front(len)),
            Self::Elements(ElementsDest { dest, cast }) => {
                let dest = dest.split_off_front(len / cast.from_bytes());
                Self::Elements(ElementsDest { dest, cast: *cast })
            }
            Self::Rows(rows) => Self::Rows(rows.split_off_front(len)),
        }
    }

    /// Fills the memory from bytes that were read elsewhere.
    pub(super) fn fill(self, bytes: Source<'_>) {
        match self {
            Self::Bytes(mut dest) => dest.copy_from(bytes),
            Self::Elements(ElementsDest { dest, cast }) => scatter(bytes, &cast, dest),
            Self::Rows(rows) => rows.fill(bytes),
        }
    }

    /// First address and end of what is filled, if that is one run of bytes.
    pub(super) fn dense_span(&self) -> Option<(usize, usize)> {
        match self {
            Self::Bytes(dest) => Some(dest.span()),
            Self::Elements(elements) => elements.dest.dense_span(),
            Self::Rows(_) => None,
        }
    }

    /// First address and end of the memory.
    pub(super) fn span(&self) -> (usize, usize) {
        match self {
            Self::Bytes(dest) => dest.span(),
            Self::Elements(elements) => elements.dest.span(),
            Self::Rows(rows) => rows.span(),
        }
    }
}

impl Checkpoint {
    /// Pairs names with destinations. Without `starts`, every destination takes its whole tensor
    /// and must have that size; with them, each takes its own length from that byte on.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`], [`Error::DestinationSize`], [`Error::UnequalLists`], or
    /// [`Error::DestinationsOverlap`].
    pub fn jobs<'a>(
        &self,
        names: &[impl AsRef<str>],
        dests: Vec<impl Into<JobDest<'a>>>,
        starts: Option<&[u64]>,
    ) -> Result<Vec<Job<'a>>> {
        if names.len() != dests.len() || starts.is_some_and(|starts| starts.len() != names.len()) {
            let starts = starts.map(<[u64]>::len);
            return Err(Error::UnequalLists { names: names.len(), dests: dests.len(), starts });
        }
        let pair = |(i, (name, dest)): (usize, (_, _))| {
            let (name, dest): (&str, JobDest<'a>) = (AsRef::as_ref(name), Into::into(dest));
            let tensor = self.position(name)?;
            if starts.is_none() {
                check_whole(name, self.tensor(tensor).1, &dest)?;
            }
            Ok(Job { tensor, start: starts.map_or(0, |starts| starts[i]), dest })
        };
        let jobs: Vec<_> = names.iter().zip(dests).enumerate().map(pair).collect::<Result<_>>()?;
        self.refuse_overlap(jobs.iter().map(|job| (job.dest.span(), job.tensor)).collect())?;
        Ok(jobs)
    }

    /// Several threads fill the destinations, so no two may share memory: `spans` are first address
    /// and end of each, with the tensor. Strided tensors that lie in one another's gaps are refused
    /// as well; whoever has such fills them in turn.
    pub(super) fn refuse_overlap(&self, mut spans: Vec<((usize, usize), usize)>) -> Result<()> {
        spans.retain(|((start, end), _)| start < end);
        spans.sort_unstable();
        let name = |tensor| self.tensor(tensor).0.to_owned();
        match spans.windows(2).find(|pair| pair[1].0.0 < pair[0].0.1) {
            None => Ok(()),
            Some(pair) => {
                Err(Error::DestinationsOverlap { first: name(pair[0].1), second: name(pair[1].1) })
            }
        }
    }

    /// A destination for elements of a tensor that become `dtype` on their way.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`], or [`Error::NoCast`] when there is no such cast, or the
    /// destination has elements of another size.
    pub fn elements<'a>(
        &self,
        name: &str,
        dest: StridedDest<'a>,
        dtype: Dtype,
    ) -> Result<JobDest<'a>> {
        let from = self.tensor(self.position(name)?).1.dtype;
        let found =
            cast(from, dtype).filter(|cast| cast.to_bytes() == dest.layout().element_bytes());
        let no_cast = || Error::NoCast { tensor: name.to_owned(), from, to: dtype };
        let cast = found.ok_or_else(no_cast)?;
        Ok(JobDest::Elements(ElementsDest { dest, cast }))
    }

    /// The bytes of the file that a job is about.
    ///
    /// # Errors
    /// [`Error::RangeOutside`] when it wants more than its tensor has.
    pub(super) fn want(&self, job: &Job<'_>) -> Result<Want> {
        let (name, tensor) = self.tensor(job.tensor);
        let byte_len = tensor.file_range.end - tensor.file_range.start;
        let end = job.start.saturating_add(job.dest.len() as u64);
        if end > byte_len {
            let (tensor, start) = (name.to_owned(), job.start);
            return Err(Error::RangeOutside { tensor, start, end, byte_len });
        }
        let start = tensor.file_range.start;
        let range = start + job.start..start + end;
        let element_bytes = job.dest.element_bytes().map(|bytes| bytes as u64);
        Ok(Want { shard: tensor.shard, range, element_bytes })
    }
}

fn check_whole(name: &str, tensor: &Located, dest: &JobDest<'_>) -> Result<()> {
    let expected = tensor.file_range.end - tensor.file_range.start;
    let found = dest.len() as u64;
    if expected == found {
        return Ok(());
    }
    Err(Error::DestinationSize { tensor: name.to_owned(), expected, found })
}
