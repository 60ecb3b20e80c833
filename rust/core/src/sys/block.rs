//! [`Part`]: new memory that is being filled in parts, on several threads.

use super::dest::Dest;
use super::mmap::Mapping;
use std::ops::Range;
use std::sync::Arc;

/// Part of new memory that is being filled; no other part has any of its bytes.
///
/// All parts of a memory keep it alive, and nobody else reaches into it before the last of them is
/// gone.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Mapping>,
    range: Range<usize>,
}

impl Part {
    /// All of a memory.
    pub(crate) fn whole(memory: Mapping) -> Self {
        let range = 0..memory.len();
        Self { memory: Arc::new(memory), range }
    }

    /// The memory that this is part of; [`Filling::into_filled`] gives it when no part is left.
    pub(crate) fn memory(&self) -> Filling {
        Filling(Arc::clone(&self.memory))
    }

    /// Splits off the first `len` bytes.
    ///
    /// # Panics
    /// When `len` is more than there is.
    pub(crate) fn split_off_front(&mut self, len: usize) -> Self {
        assert!(len <= self.range.len(), "cannot split {len} bytes off {}", self.range.len());
        let range = self.range.start..self.range.start + len;
        self.range.start = range.end;
        Self { memory: Arc::clone(&self.memory), range }
    }

    /// The bytes, to be filled.
    pub(crate) fn dest(&mut self) -> Dest<'_> {
        // SAFETY: `range` is within the memory: it began as all of it, and was only ever split.
        let start = unsafe { self.memory.as_mut_ptr().add(self.range.start) };
        // SAFETY: the memory is writable, and lives as long as `self`. Parts are made by splitting
        // one that was whole, so no other one has these bytes, and `self` is borrowed; a `Filling`
        // gives the memory to nobody while `self` is there.
        unsafe { Dest::from_raw(start, self.range.len()) }
    }
}

/// Memory that is being filled.
#[derive(Debug)]
pub(crate) struct Filling(Arc<Mapping>);

impl Filling {
    /// The memory, if no part of it is left.
    pub(crate) fn into_filled(self) -> Option<Mapping> {
        Arc::into_inner(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::source::Source;

    #[test]
    fn memory_is_whole_again_when_no_part_is_left() {
        let mut rest = Part::whole(Mapping::anonymous(10).unwrap());
        let (memory, mut front) = (rest.memory(), rest.split_off_front(4));
        front.dest().copy_from(Source::from_slice(&[1, 2, 3, 4]));
        rest.dest().copy_from(Source::from_slice(&[5, 6]));
        drop((front, rest));
        let filled = memory.into_filled().unwrap();
        let expected = [1, 2, 3, 4, 5, 6, 0, 0, 0, 0];
        assert_eq!(filled.source().crc32c(), Source::from_slice(&expected).crc32c());
    }

    #[test]
    fn memory_stays_with_its_parts() {
        let part = Part::whole(Mapping::anonymous(10).unwrap());
        assert!(part.memory().into_filled().is_none());
    }
}
