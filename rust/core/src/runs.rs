//! A strided view → the contiguous pieces of its memory, exact within a budget. Pure.
//!
//! A [`View`] says how elements are addressed; its `Footprint` says which bytes they are, without
//! the order; its `Runs` are those bytes as sorted ranges. A view has up to as many runs as
//! elements, so the caller sets a budget: what would exceed it is taken as one piece from its first
//! to its last byte, and marked inexact.

use std::ops::Range;

/// Most contiguous pieces that views which are looked at together are followed into: about 100 MiB
/// of bookkeeping at the very most.
pub const MAX_RUNS: u64 = 1 << 20;

/// A strided view of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Address of the first element.
    pub address: u64,
    /// Length of each dimension.
    pub shape: Vec<u64>,
    /// Step of each dimension, in bytes.
    pub strides: Vec<u64>,
    /// Bytes of one element.
    pub element_bytes: u64,
}

impl View {
    /// Takes strides that count elements, as frameworks give them.
    ///
    /// ```
    /// # use windlass_core::runs::View;
    /// let column = View::counted_in_elements(64, vec![3], vec![5], 4);
    /// assert_eq!(column.strides, [20]);
    /// ```
    #[must_use]
    pub fn counted_in_elements(
        address: u64,
        shape: Vec<u64>,
        mut strides: Vec<u64>,
        element_bytes: u64,
    ) -> Self {
        for stride in &mut strides {
            // Only a dimension that is never walked (of one element) can have a step this large.
            *stride = stride.saturating_mul(element_bytes);
        }
        Self { address, shape, strides, element_bytes }
    }
}

/// The bytes of a view: a run of them, repeated along dimensions. Equal footprints are equal bytes;
/// the reverse holds for all that is contiguous, whatever its shape, and for permuted dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Footprint {
    address: u64,
    run_bytes: u64,
    /// Length (above 1) and step in bytes, by step.
    dims: Vec<(u64, u64)>,
}

impl Footprint {
    /// `None` if the view has no bytes.
    pub(crate) fn of(view: &View) -> Option<Self> {
        if view.element_bytes == 0 || view.shape.contains(&0) {
            return None;
        }
        let dims = view.shape.iter().copied().zip(view.strides.iter().copied());
        let mut dims: Vec<(u64, u64)> = dims.filter(|&(len, _)| len != 1).collect();
        dims.sort_unstable_by_key(|&(len, stride)| (stride, len));
        let run_bytes = take_contiguous(view.element_bytes, &mut dims);
        Some(Self { address: view.address, run_bytes, dims })
    }

    /// Length of each run.
    pub(crate) fn run_bytes(&self) -> u64 {
        self.run_bytes
    }

    /// Length (above 1) and step in bytes of each dimension along which the run is repeated, by step.
    pub(crate) fn dims(&self) -> &[(u64, u64)] {
        &self.dims
    }

    /// From the first byte to the last.
    pub(crate) fn span(&self) -> Range<u64> {
        let reach: u64 = self.dims.iter().map(|&(len, stride)| (len - 1) * stride).sum();
        self.address..self.address + reach + self.run_bytes
    }

    /// How many runs it takes, before those that meet are merged; `None` for very many.
    fn count(&self) -> Option<u64> {
        self.dims.iter().try_fold(1_u64, |count, &(len, _)| count.checked_mul(len))
    }

    /// First byte of each run, sorted.
    pub(crate) fn starts(&self) -> Vec<u64> {
        let mut starts = vec![self.address];
        for &(len, stride) in &self.dims {
            let step = |&start: &u64| (0..len).map(move |i| start + i * stride);
            starts = starts.iter().flat_map(step).collect();
        }
        starts.sort_unstable();
        starts
    }
}

/// Takes the dimensions that extend an element to one contiguous run off the front of `dims`
/// (sorted by stride); returns the length of the run in bytes.
fn take_contiguous(element_bytes: u64, dims: &mut Vec<(u64, u64)>) -> u64 {
    let mut run = element_bytes;
    while let Some(&(len, stride)) = dims.first() {
        if stride > run {
            break;
        }
        run += (len - 1) * stride;
        dims.remove(0);
    }
    run
}

/// Drops the outermost dimension while all footprints have the same one and a single step of it
/// has room for them all: then what they share in one step, they share in every step. Columns of a
/// matrix fold to parts of its first row, however many rows there are.
pub(crate) fn fold(footprints: &mut [Footprint]) {
    while is_foldable(footprints) {
        for footprint in &mut *footprints {
            footprint.dims.pop();
        }
    }
}

fn is_foldable(footprints: &[Footprint]) -> bool {
    let Some(&(len, stride)) = footprints.first().and_then(|first| first.dims.last()) else {
        return false;
    };
    let starts = footprints.iter().map(|footprint| footprint.address);
    let ends = footprints.iter().map(|footprint| footprint.span().end);
    let (Some(start), Some(end)) = (starts.min(), ends.max()) else { return false };
    footprints.iter().all(|footprint| footprint.dims.last() == Some(&(len, stride)))
        && end - start <= len * stride
}

/// The contiguous pieces of a view, sorted and merged.
pub(crate) struct Runs {
    pub(crate) ranges: Vec<Range<u64>>,
    /// Whether `ranges` is exactly the view's memory.
    pub(crate) exact: bool,
}

impl Runs {
    /// Takes what it needs from `budget`; a footprint that needs more is inexact, unless it is one
    /// piece, which is free.
    pub(crate) fn of(footprint: &Footprint, budget: &mut u64) -> Self {
        let is_one_piece = footprint.dims.is_empty();
        let left = footprint.count().and_then(|count| budget.checked_sub(count));
        match left {
            Some(left) if !is_one_piece => *budget = left,
            _ => return Self { ranges: vec![footprint.span()], exact: is_one_piece },
        }
        Self { ranges: merge(&footprint.starts(), footprint.run_bytes), exact: true }
    }

    /// The runs of a view that may be empty.
    pub(crate) fn of_view(view: &View, budget: &mut u64) -> Self {
        let none = Self { ranges: Vec::new(), exact: true };
        Footprint::of(view).map_or(none, |footprint| Self::of(&footprint, budget))
    }

    /// Bytes of all ranges.
    pub(crate) fn byte_count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether every byte of `part` is surely one of these.
    pub(crate) fn cover(&self, part: &Self) -> bool {
        self.exact
            && part.ranges.iter().all(|range| {
                let after = self.ranges.partition_point(|own| own.start <= range.start);
                after.checked_sub(1).is_some_and(|i| range.end <= self.ranges[i].end)
            })
    }
}

/// Joins runs that overlap or meet; `starts` are sorted.
fn merge(starts: &[u64], run_bytes: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for &start in starts {
        match ranges.last_mut() {
            Some(last) if start <= last.end => last.end = start + run_bytes,
            _ => ranges.push(start..start + run_bytes),
        }
    }
    ranges
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one piece is what is meant")]
mod tests {
    use super::*;

    fn view(address: u64, dims: &[(u64, u64)]) -> View {
        let (shape, strides) = dims.iter().copied().unzip();
        View { address, shape, strides, element_bytes: 1 }
    }

    fn folded(views: &[View]) -> Vec<Footprint> {
        let mut footprints: Vec<_> = views.iter().filter_map(Footprint::of).collect();
        fold(&mut footprints);
        footprints
    }

    #[test]
    fn a_transposed_matrix_has_the_footprint_of_the_matrix() {
        let (matrix, transposed) = (view(8, &[(5, 9), (3, 1)]), view(8, &[(3, 1), (5, 9)]));
        assert_eq!(Footprint::of(&matrix), Footprint::of(&transposed));
    }

    #[test]
    fn what_is_contiguous_has_one_footprint_whatever_its_shape() {
        let shapes = [view(8, &[(15, 1)]), view(8, &[(3, 5), (5, 1)]), view(8, &[(7, 2), (3, 1)])];
        let footprints: Vec<_> = shapes.iter().map(Footprint::of).collect();
        assert!(footprints.iter().all(|footprint| *footprint == footprints[0]));
    }

    #[test]
    fn an_expanded_dimension_adds_no_bytes() {
        let expanded = view(8, &[(u64::MAX, 0), (4, 1)]);
        assert_eq!(Footprint::of(&expanded), Footprint::of(&view(8, &[(4, 1)])));
    }

    #[test]
    fn a_view_without_elements_has_no_footprint() {
        assert_eq!(Footprint::of(&view(8, &[(3, 1), (0, 1)])), None);
    }

    #[test]
    fn a_step_that_is_never_walked_may_be_of_any_size() {
        let single = View::counted_in_elements(8, vec![1, 2], vec![1 << 63, 1], 8);
        assert_eq!(Footprint::of(&single), Footprint::of(&view(8, &[(16, 1)])));
    }

    #[test]
    fn columns_of_a_matrix_fold_to_parts_of_its_first_row() {
        let folded = folded(&[view(0, &[(1 << 40, 9), (3, 1)]), view(3, &[(1 << 40, 9), (6, 1)])]);
        let spans: Vec<_> = folded.iter().map(Footprint::span).collect();
        assert_eq!(spans, [0..3, 3..9]);
    }

    #[test]
    fn columns_that_start_in_different_rows_do_not_fold() {
        let folded = folded(&[view(0, &[(4, 9), (3, 1)]), view(12, &[(4, 9), (6, 1)])]);
        assert!(folded.iter().all(|footprint| footprint.dims == [(4, 9)]));
    }

    #[test]
    fn one_piece_is_exact_on_an_empty_budget() {
        let runs = Runs::of_view(&view(8, &[(15, 1)]), &mut 0);
        assert_eq!((runs.exact, runs.ranges), (true, vec![8..23]));
    }

    #[test]
    fn too_many_pieces_are_taken_as_one_and_leave_the_budget() {
        let mut budget = 3;
        let runs = Runs::of_view(&view(8, &[(4, 2)]), &mut budget);
        assert_eq!((runs.exact, runs.ranges, budget), (false, vec![8..15], 3));
    }
}
