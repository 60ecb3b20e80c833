//! [`RowsDest`]: runs of bytes at even distances in a file that fill memory one after another, as
//! some columns of a matrix do.
//!
//! Runs that are near to each other are read with what lies between them, and gathered from there.
//! Those that are far apart are [`FarRows`], of which each is found when its turn comes. Neither
//! takes memory for each run.

use super::job::JobDest;
use crate::convert::{Cast, Layout, LayoutError, StridedSource, cast, gather};
use crate::dtype::Dtype;
use crate::runs::Footprint;
use crate::sys::dest::Dest;
use crate::sys::source::Source;
use std::ops::Range;
use std::sync::Arc;

/// Memory, and the runs of bytes within a span of a file that fill it.
#[derive(Debug)]
pub struct RowsDest<'a> {
    rows: Arc<Layout>,
    /// Which part of the span this is, in elements of the layout.
    part: Range<usize>,
    dest: Dest<'a>,
}

impl<'a> RowsDest<'a> {
    /// # Errors
    /// [`LayoutError::TooLarge`] where addresses are too short for the span.
    pub(super) fn new(footprint: &Footprint, dest: Dest<'a>) -> Result<Self, LayoutError> {
        let rows = layout(footprint)?;
        let part = 0..rows.reach().end.cast_unsigned();
        Ok(Self { rows: Arc::new(rows), part, dest })
    }

    /// Bytes of the span.
    pub(super) fn len(&self) -> usize {
        self.part.len() * self.element_bytes()
    }

    /// Bytes of the span that fill the memory.
    pub(super) fn delivered(&self) -> usize {
        self.dest.len()
    }

    pub(super) fn element_bytes(&self) -> usize {
        self.rows.element_bytes()
    }

    /// First address and end of the memory.
    pub(super) fn span(&self) -> (usize, usize) {
        self.dest.span()
    }

    /// Splits off what the first `len` bytes of the span fill: whole elements.
    pub(super) fn split_off_front(&mut self, len: usize) -> Self {
        let end = self.part.start + len / self.element_bytes();
        let part = self.part.start..end;
        self.part.start = end;
        let bytes = elements(&self.rows, &part).len() * self.element_bytes();
        let dest = self.dest.split_off_front(bytes);
        Self { rows: Arc::clone(&self.rows), part, dest }
    }

    /// Gathers the runs from all bytes of the span.
    pub(super) fn fill(mut self, bytes: Source<'_>) {
        let (size, copy) = (self.element_bytes(), copy(self.element_bytes()));
        let strides: Vec<isize> = self.rows.dims().iter().map(|dim| dim.stride).collect();
        for region in self.rows.boxes(elements(&self.rows, &self.part)) {
            let first = offset(&region.start, &strides) - self.part.start;
            let layout = Layout::new(size, &region.lens, &strides).expect("part of a layout");
            let runs = StridedSource::within(bytes, first * size, layout);
            let dest = self.dest.split_off_front(region.len() * size);
            gather(&runs.expect("these elements were read"), &copy, dest);
        }
    }

    /// The rows by themselves, if any two of them are more than `max_gap` bytes apart.
    pub(super) fn into_far(self, max_gap: u64) -> Result<FarRows<'a>, Self> {
        let dims = self.rows.dims();
        let far = far_dims(&self.rows, max_gap);
        if far == 0 {
            return Err(self);
        }
        let part = |dims: &[_]| self.rows.of_dims(dims);
        let (steps, row) = (Arc::new(part(&dims[..far])), Arc::new(part(&dims[far..])));
        Ok(FarRows { numbers: 0..steps.len(), steps, row, dest: self.dest })
    }
}

/// Rows that are too far apart to be read together.
#[derive(Debug)]
pub(super) struct FarRows<'a> {
    /// Where each begins.
    steps: Arc<Layout>,
    /// What one is made of: near runs.
    row: Arc<Layout>,
    /// Which of them these are.
    numbers: Range<usize>,
    dest: Dest<'a>,
}

impl<'a> FarRows<'a> {
    /// How many there are.
    pub(super) fn row_count(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes that are read for each.
    pub(super) fn row_bytes(&self) -> usize {
        self.row.reach().end.cast_unsigned() * self.row.element_bytes()
    }

    /// Where the next one begins, in bytes from the first of all.
    pub(super) fn start(&self) -> u64 {
        let strides: Vec<isize> = self.steps.dims().iter().map(|dim| dim.stride).collect();
        let index = self.steps.index(self.numbers.start);
        (offset(&index, &strides) * self.row.element_bytes()) as u64
    }

    /// Splits off the first rows.
    pub(super) fn split_off_front(&mut self, count: usize) -> Self {
        let end = self.numbers.start + count.min(self.row_count());
        let numbers = self.numbers.start..end;
        self.numbers.start = end;
        let bytes = numbers.len() * self.row.len() * self.row.element_bytes();
        let dest = self.dest.split_off_front(bytes);
        Self { steps: Arc::clone(&self.steps), row: Arc::clone(&self.row), numbers, dest }
    }

    /// Splits off the first row: where it begins, and the memory that it fills.
    pub(super) fn take_row(&mut self) -> Option<(u64, JobDest<'a>)> {
        if self.numbers.is_empty() {
            return None;
        }
        let (start, row) = (self.start(), self.split_off_front(1));
        let (rows, part) = (row.row, 0..self.row.reach().end.cast_unsigned());
        let is_one_run = part.len() == rows.len();
        let dest = match row.dest {
            dest if is_one_run => dest.into(),
            dest => JobDest::Rows(RowsDest { rows, part, dest }),
        };
        Some((start, dest))
    }
}

/// The runs of a footprint as elements, the largest that fit.
fn layout(footprint: &Footprint) -> Result<Layout, LayoutError> {
    let steps = footprint.dims().iter().map(|&(_, step)| step);
    let bits = steps.fold(footprint.run_bytes(), |bits, step| bits | step);
    let size = 1_u64 << bits.trailing_zeros().min(3);
    let outer = footprint.dims().iter().rev().copied();
    let dims = outer.map(|(len, step)| (len, step / size));
    let dims: Vec<_> = dims.chain([(footprint.run_bytes() / size, 1)]).collect();
    let too_large = || LayoutError::TooLarge { shape: Vec::new(), strides: Vec::new() };
    let lens = dims.iter().map(|&(len, _)| usize::try_from(len));
    let steps = dims.iter().map(|&(_, step)| isize::try_from(step));
    let lens: Vec<_> = lens.collect::<Result<_, _>>().map_err(|_| too_large())?;
    let steps: Vec<_> = steps.collect::<Result<_, _>>().map_err(|_| too_large())?;
    Layout::new(1 << size.trailing_zeros(), &lens, &steps)
}

/// Which elements lie within part of the span.
fn elements(rows: &Layout, part: &Range<usize>) -> Range<usize> {
    elements_before(rows, part.start)..elements_before(rows, part.end)
}

/// How many elements lie before a position in the span. Each dimension steps over all that the inner
/// ones reach.
fn elements_before(rows: &Layout, mut position: usize) -> usize {
    let (mut before, mut each) = (0, rows.len());
    for dim in rows.dims().iter().filter(|dim| dim.len > 1) {
        each /= dim.len;
        let steps = position / dim.stride.unsigned_abs();
        if steps >= dim.len {
            return before + dim.len * each;
        }
        before += steps * each;
        position %= dim.stride.unsigned_abs();
    }
    before + position.min(each)
}

/// How many dimensions, from the outermost on, lead from row to row across more than `max_gap`.
fn far_dims(rows: &Layout, max_gap: u64) -> usize {
    let mut reach = 1;
    for (i, dim) in rows.dims().iter().enumerate().rev().filter(|(_, dim)| dim.len > 1) {
        let step = dim.stride.unsigned_abs();
        if ((step - reach) * rows.element_bytes()) as u64 > max_gap {
            return i + 1;
        }
        reach += (dim.len - 1) * step;
    }
    0
}

fn offset(index: &[usize], strides: &[isize]) -> usize {
    let steps = index.iter().zip(strides);
    steps.map(|(at, stride)| at * stride.unsigned_abs()).sum()
}

/// Moves elements of a size as they are.
fn copy(element_bytes: usize) -> Cast {
    let dtype = match element_bytes {
        1 => Dtype::U8,
        2 => Dtype::U16,
        4 => Dtype::U32,
        _ => Dtype::U64,
    };
    cast(dtype, dtype).expect("every dtype becomes itself")
}
