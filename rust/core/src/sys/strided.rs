//! [`StridedSource`] and [`StridedDest`]: elements of a strided tensor that follow one another in C
//! order, read or written in two-dimensional blocks.
//!
//! A block is named by indices, which are checked once for all that it holds; so nothing but these
//! elements is ever read or written, whatever lies between them in memory.

use super::dest::Dest;
use super::elements::Bits;
use super::source::Source;
use super::transpose::{Steps, Transpose, copy_block};
use crate::convert::Layout;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// Elements of a strided tensor that are read.
///
/// The strided twin of [`Source`], with its promises.
#[derive(Clone, Debug)]
pub struct StridedSource<'a> {
    first: *const u8,
    layout: Arc<Layout>,
    range: Range<usize>,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: as for `Source`: no thread affinity, and the memory is only copied from.
unsafe impl Send for StridedSource<'_> {}

// SAFETY: as for `Send`; nothing is reached through a reference to it but numbers.
unsafe impl Sync for StridedSource<'_> {}

/// Elements of a strided tensor that are written.
///
/// The strided twin of [`Dest`], with its promises. What lies between the elements is left alone.
#[derive(Debug)]
pub struct StridedDest<'a> {
    first: *mut u8,
    layout: Arc<Layout>,
    range: Range<usize>,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: as for `Dest`: the only handle to its elements, without thread affinity.
unsafe impl Send for StridedDest<'_> {}

/// A two-dimensional part of a layout: `rows` elements from `index` on along the one dimension,
/// `cols` along the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'i> {
    pub(crate) index: &'i [usize],
    pub(crate) rows: Axis,
    pub(crate) cols: Axis,
}

/// A dimension, and how many elements of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) dim: usize,
    pub(crate) len: usize,
}

impl Block<'_> {
    fn len(&self) -> usize {
        self.rows.len * self.cols.len
    }

    /// Where the block begins, in bytes from the first element of the layout.
    ///
    /// # Panics
    /// When any of its elements is none of the layout's, or its position is not within `range`.
    fn offset(&self, layout: &Layout, range: &Range<usize>) -> isize {
        assert!(self.rows.dim != self.cols.dim, "a block has two dimensions");
        assert_eq!(self.index.len(), layout.dims().len(), "an index for each dimension");
        // Positions in C order grow with every index: those of the corners are the outermost.
        let (mut offset, mut first, mut last) = (0, 0, 0);
        for (i, (dim, &at)) in layout.dims().iter().zip(self.index).enumerate() {
            let axis = [self.rows, self.cols].into_iter().find(|axis| axis.dim == i);
            let len = axis.map_or(1, |axis| axis.len);
            assert!(
                0 < len && len <= dim.len && at <= dim.len - len,
                "a block is within its layout"
            );
            offset += at.cast_signed() * dim.stride;
            first = first * dim.len + at;
            last = last * dim.len + at + len - 1;
        }
        assert!(range.start <= first && last < range.end, "a block is within its range");
        offset * layout.element_bytes().cast_signed()
    }

    /// Its steps in the layout.
    fn steps(&self, layout: &Layout) -> Steps {
        let step = |axis: Axis| layout.dims()[axis.dim].stride;
        Steps { row: step(self.rows), col: step(self.cols) }
    }

    /// Its steps when its elements lie row by row without a gap.
    fn dense_steps(&self) -> Steps {
        Steps { row: self.cols.len.cast_signed(), col: 1 }
    }
}

impl<'a> StridedSource<'a> {
    /// A tensor within a slice, whose first element in C order begins at byte `first`; `None` when
    /// it is not within it.
    #[must_use]
    pub fn from_slice(slice: &'a [u8], first: usize, layout: Layout) -> Option<Self> {
        Self::within(Source::from_slice(slice), first, layout)
    }

    /// A tensor within memory, whose first element in C order begins at byte `first`; `None` when
    /// it is not within it.
    pub(crate) fn within(memory: Source<'a>, first: usize, layout: Layout) -> Option<Self> {
        is_within(memory.len(), first, &layout).then(|| {
            let first = memory.start().wrapping_add(first);
            // SAFETY: all elements are within the memory, as was just checked, which is readable
            // and initialised for `'a` (the contract of `Source::from_raw`).
            unsafe { Self::from_raw(first, layout) }
        })
    }

    /// The tensor whose first element in C order is at `first`.
    ///
    /// # Safety
    /// For the lifetime `'a`, all elements of the layout must be within one live allocation,
    /// initialised and readable. Those that another thread writes meanwhile are read in an
    /// unspecified state.
    #[must_use]
    pub unsafe fn from_raw(first: *const u8, layout: Layout) -> Self {
        Self { first, range: 0..layout.len(), layout: Arc::new(layout), memory: PhantomData }
    }

    /// How the tensor lies in memory.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which elements of the tensor these are, by their positions in C order.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Splits off the first `count` elements.
    ///
    /// # Panics
    /// When `count` is more than there are.
    #[must_use]
    pub fn split_off_front(&mut self, count: usize) -> Self {
        Self { range: split_off_front(&mut self.range, count), ..self.clone() }
    }

    /// A block of one row whose elements are contiguous.
    ///
    /// # Panics
    /// When they are not, or not among these elements.
    pub(crate) fn run(&self, block: &Block<'_>) -> Source<'_> {
        let start = self.start(block);
        let len = run_bytes(&self.layout, block);
        // SAFETY: elements of the tensor, and contiguous, as was just checked.
        unsafe { Source::from_raw(start, len) }
    }

    /// Copies a block to `dense`, row by row.
    ///
    /// # Panics
    /// When the block is not among these elements, or `dense` has another size.
    pub(crate) fn pack(&self, block: &Block<'_>, dense: &mut Dest<'_>) {
        let bytes = self.layout.element_bytes();
        assert_eq!(dense.len(), block.len() * bytes, "a block is packed whole");
        let (from, to) = (self.start(block), dense.start());
        let (from_steps, to_steps) = (block.steps(&self.layout), block.dense_steps());
        let lens = [block.rows.len, block.cols.len];
        // SAFETY: the elements of the block are within the tensor (checked by `start`); `dense` is
        // writable, has room for them, and overlaps no readable memory of another owner.
        unsafe { copy_elements(bytes, from, from_steps, to, to_steps, lens) };
    }

    fn start(&self, block: &Block<'_>) -> *const u8 {
        // SAFETY: an element of the tensor, which is within one allocation with the first.
        unsafe { self.first.offset(block.offset(&self.layout, &self.range)) }
    }
}

impl<'a> StridedDest<'a> {
    /// A tensor within a slice, whose first element in C order begins at byte `first`; `None` when
    /// it is not within it, or [`Layout::is_distinct`] does not hold.
    #[must_use]
    pub fn from_slice(slice: &'a mut [u8], first: usize, layout: Layout) -> Option<Self> {
        if !is_within(slice.len(), first, &layout) {
            return None;
        }
        // SAFETY: all elements are within the slice, as was just checked.
        unsafe { Self::from_raw(slice.as_mut_ptr().wrapping_add(first), layout) }
    }

    /// The tensor whose first element in C order is at `first`; `None` unless
    /// [`Layout::is_distinct`] holds, so that parts of it can be written at the same time.
    ///
    /// # Safety
    /// For the lifetime `'a`, all elements of the layout must be within one live allocation and
    /// writable, no other handle may cover any of them, and no Rust reference to them may be used.
    /// Contents may be uninitialised. What another thread that touches the memory meanwhile sees is
    /// unspecified bytes.
    #[must_use]
    pub unsafe fn from_raw(first: *mut u8, layout: Layout) -> Option<Self> {
        let (range, memory) = (0..layout.len(), PhantomData);
        layout.is_distinct().then(|| Self { first, layout: Arc::new(layout), range, memory })
    }

    /// How the tensor lies in memory.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which elements of the tensor these are, by their positions in C order.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// First address and end of the memory that the tensor reaches over, for telling destinations
    /// apart.
    pub(crate) fn span(&self) -> (usize, usize) {
        if self.layout.is_empty() {
            return (0, 0);
        }
        let bytes = self.layout.element_bytes().cast_signed();
        let at = |elements: isize| self.first.addr().wrapping_add_signed(elements * bytes);
        (at(self.layout.reach().start), at(self.layout.reach().end))
    }

    /// First address and end of these elements, if all of the tensor is C-contiguous.
    pub(crate) fn dense_span(&self) -> Option<(usize, usize)> {
        let at = |element: usize| self.first.addr() + element * self.layout.element_bytes();
        let is_dense = self.layout.is_contiguous();
        is_dense.then(|| (at(self.range.start), at(self.range.end)))
    }

    /// Splits off the first `count` elements.
    ///
    /// # Panics
    /// When `count` is more than there are.
    #[must_use]
    pub fn split_off_front(&mut self, count: usize) -> Self {
        let range = split_off_front(&mut self.range, count);
        Self { first: self.first, layout: Arc::clone(&self.layout), range, memory: PhantomData }
    }

    /// A block of one row whose elements are contiguous.
    ///
    /// # Panics
    /// When they are not, or not among these elements.
    pub(crate) fn run(&mut self, block: &Block<'_>) -> Dest<'_> {
        let start = self.start(block);
        let len = run_bytes(&self.layout, block);
        // SAFETY: elements of the tensor, and contiguous, as was just checked. No other handle has
        // them, and this one is borrowed.
        unsafe { Dest::from_raw(start, len) }
    }

    /// Fills a block from `dense`, row by row.
    ///
    /// # Panics
    /// When the block is not among these elements, or `dense` has another size.
    pub(crate) fn unpack(&mut self, block: &Block<'_>, dense: &[u8]) {
        let bytes = self.layout.element_bytes();
        assert_eq!(dense.len(), block.len() * bytes, "a block is unpacked whole");
        let (from, to) = (dense.as_ptr(), self.start(block));
        let (from_steps, to_steps) = (block.dense_steps(), block.steps(&self.layout));
        let lens = [block.rows.len, block.cols.len];
        // SAFETY: the elements of the block are within the tensor (checked by `start`), those of
        // `dense` within the slice, which cannot overlap memory that only this handle covers.
        unsafe { copy_elements(bytes, from, from_steps, to, to_steps, lens) };
    }

    fn start(&self, block: &Block<'_>) -> *mut u8 {
        // SAFETY: an element of the tensor, which is within one allocation with the first.
        unsafe { self.first.offset(block.offset(&self.layout, &self.range)) }
    }
}

fn is_within(bytes: usize, first: usize, layout: &Layout) -> bool {
    if layout.is_empty() {
        return first <= bytes;
    }
    let Ok(first) = isize::try_from(first) else { return false };
    let size = layout.element_bytes().cast_signed();
    let start = layout.reach().start.checked_mul(size).and_then(|start| start.checked_add(first));
    let end = layout.reach().end.checked_mul(size).and_then(|end| end.checked_add(first));
    start.is_some_and(|start| start >= 0) && end.is_some_and(|end| end.cast_unsigned() <= bytes)
}

fn split_off_front(range: &mut Range<usize>, count: usize) -> Range<usize> {
    assert!(count <= range.len(), "cannot split {count} elements off {}", range.len());
    let front = range.start..range.start + count;
    range.start = front.end;
    front
}

/// Size of a block of one row whose elements are contiguous.
fn run_bytes(layout: &Layout, block: &Block<'_>) -> usize {
    assert_eq!(block.rows.len, 1, "a run has one row");
    assert_eq!(layout.dims()[block.cols.dim].stride, 1, "a run is contiguous");
    block.cols.len * layout.element_bytes()
}

/// [`copy_block`] for elements of a size that a layout has.
///
/// # Safety
/// As for [`copy_block`].
unsafe fn copy_elements(
    element_bytes: usize,
    from: *const u8,
    from_steps: Steps,
    to: *mut u8,
    to_steps: Steps,
    lens: [usize; 2],
) {
    unsafe fn copy<T: Bits + Transpose>(
        from: *const u8,
        from_steps: Steps,
        to: *mut u8,
        to_steps: Steps,
        lens: [usize; 2],
    ) {
        // SAFETY: the caller's.
        unsafe { copy_block::<T>(from.cast(), from_steps, to.cast(), to_steps, lens) };
    }
    let copy = match element_bytes {
        1 => copy::<u8>,
        2 => copy::<u16>,
        4 => copy::<u32>,
        _ => copy::<u64>,
    };
    // SAFETY: the caller's.
    unsafe { copy(from, from_steps, to, to_steps, lens) };
}
