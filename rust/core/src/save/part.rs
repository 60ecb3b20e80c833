//! [`Part`]: which bytes of which tensor are written from where, as they are or gathered and cast.

use super::Save;
use crate::convert::{Cast, StridedSource, cast, gather};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::sys::dest::Dest;
use crate::sys::source::Source;
use std::io;

/// Part of a tensor, and where its bytes are.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Position of the file among those of the save.
    pub file: usize,
    /// Position of the tensor in the file's header.
    pub tensor: usize,
    /// First byte within the tensor.
    pub start: u64,
    /// The bytes.
    pub source: PartSource<'a>,
}

/// Memory that a part is written from.
#[derive(Clone, Debug)]
pub enum PartSource<'a> {
    /// Holds bytes as they are to be in the file; they are written from where they are.
    Bytes(Source<'a>),
    /// Holds elements, which are gathered in memory of the writing thread first.
    Elements(ElementsSource<'a>),
}

/// A strided tensor, and how its elements become those of the file.
#[derive(Clone, Debug)]
pub struct ElementsSource<'a> {
    source: StridedSource<'a>,
    cast: Cast,
}

impl<'a> From<Source<'a>> for PartSource<'a> {
    fn from(source: Source<'a>) -> Self {
        Self::Bytes(source)
    }
}

impl PartSource<'_> {
    /// Bytes that are written.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(source) => source.len(),
            Self::Elements(elements) => elements.len(),
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are gathered before they are written.
    pub(super) fn gathered_len(&self) -> usize {
        match self {
            Self::Bytes(_) => 0,
            Self::Elements(elements) => elements.len(),
        }
    }

    /// Size of what cannot be split.
    pub(super) fn unit(&self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Elements(elements) => elements.cast.to_bytes(),
        }
    }

    /// Splits off what becomes the first `len` bytes: whole elements.
    pub(super) fn split_off_front(&mut self, len: usize) -> Self {
        match self {
            Self::Bytes(source) => Self::Bytes(source.split_off_front(len)),
            Self::Elements(ElementsSource { source, cast }) => {
                let source = source.split_off_front(len / cast.to_bytes());
                Self::Elements(ElementsSource { source, cast: *cast })
            }
        }
    }
}

impl ElementsSource<'_> {
    fn len(&self) -> usize {
        self.source.range().len() * self.cast.to_bytes()
    }

    fn gather_to(&self, dest: Dest<'_>) {
        gather(&self.source, &self.cast, dest);
    }
}

/// The bytes of all parts: where they are, or gathered into `scratch`, which has just the room.
pub(super) fn bytes_of<'s>(parts: &[Part<'s>], scratch: &'s mut [u8]) -> Vec<Source<'s>> {
    let mut rest = Dest::from_slice(scratch);
    for part in parts {
        if let PartSource::Elements(elements) = &part.source {
            elements.gather_to(rest.split_off_front(elements.len()));
        }
    }
    let mut rest = Source::from_slice(scratch);
    let place = |part: &Part<'s>| match &part.source {
        PartSource::Bytes(source) => *source,
        PartSource::Elements(elements) => rest.split_off_front(elements.len()),
    };
    parts.iter().map(place).collect()
}

/// The bytes of all parts, one after another in `memory`, which begins with just the room.
///
/// # Errors
/// What the system says of bytes that are to be copied and cannot be had.
pub(super) fn copies_of<'m>(parts: &[Part<'_>], memory: &'m mut [u8]) -> io::Result<Source<'m>> {
    let mut rest = Dest::from_slice(memory);
    for part in parts {
        let mut dest = rest.split_off_front(part.source.len());
        match &part.source {
            PartSource::Bytes(source) => {
                source.populate()?;
                dest.copy_from(*source);
            }
            PartSource::Elements(elements) => elements.gather_to(dest),
        }
    }
    Ok(Source::from_slice(memory))
}

impl Save {
    /// A source of elements of one dtype for a tensor that may have another in the file.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`], or [`Error::NoCast`] when there is no such cast, or the source
    /// has elements of another size.
    pub fn elements<'a>(
        &self,
        file: usize,
        name: &str,
        source: StridedSource<'a>,
        dtype: Dtype,
    ) -> Result<PartSource<'a>> {
        let position = self.position(file, name)?;
        let header = self.files[file].header();
        let to = header.map_or(dtype, |header| header.tensors[position].dtype);
        let bytes = source.layout().element_bytes();
        let no_cast = || Error::NoCast { tensor: name.to_owned(), from: dtype, to };
        let cast = cast(dtype, to).filter(|cast| cast.from_bytes() == bytes).ok_or_else(no_cast)?;
        Ok(PartSource::Elements(ElementsSource { source, cast }))
    }
}
