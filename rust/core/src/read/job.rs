//! [`Job`]: which bytes of which tensor go where, as they are or cast and scattered.

use crate::checkpoint::Checkpoint;
use crate::convert::{Cast, StridedDest, cast, scatter};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::sys::dest::Dest;
use crate::sys::source::Source;

/// One destination to be filled.
#[derive(Debug)]
pub struct Job<'a> {
    /// Position of the tensor in the checkpoint.
    pub tensor: usize,
    /// First byte wanted, counted from the start of the tensor.
    pub start: u64,
    /// Memory to fill; its length says how many bytes are wanted.
    pub dest: JobDest<'a>,
}

/// Memory that a job fills.
#[derive(Debug)]
pub enum JobDest<'a> {
    /// Takes bytes as they are in the file; they are read into place.
    Bytes(Dest<'a>),
    /// Takes elements, which are read into memory of the reading thread first.
    Elements(ElementsDest<'a>),
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

impl JobDest<'_> {
    /// Bytes of the file that fill the memory.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(dest) => dest.len(),
            Self::Elements(ElementsDest { dest, cast }) => dest.range().len() * cast.from_bytes(),
        }
    }

    /// Whether there is nothing to fill.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of an element in the file, where elements are converted.
    pub(super) fn element_bytes(&self) -> Option<usize> {
        match self {
            Self::Bytes(_) => None,
            Self::Elements(elements) => Some(elements.cast.from_bytes()),
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
        }
    }

    /// First address and end of the memory.
    pub(super) fn span(&self) -> (usize, usize) {
        match self {
            Self::Bytes(dest) => dest.span(),
            Self::Elements(elements) => elements.dest.span(),
        }
    }
}

impl ElementsDest<'_> {
    /// Casts and scatters what was read.
    pub(super) fn fill(self, bytes: Source<'_>) {
        scatter(bytes, &self.cast, self.dest);
    }
}

impl Checkpoint {
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
}
