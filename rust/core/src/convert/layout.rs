//! How the elements of a strided tensor lie in memory, and a range of them as boxes. Pure.

use std::ops::Range;
use thiserror::Error;

/// Why shape and strides are no layout.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The size of an element is none that a dtype has.
    #[error("elements of {0} bytes: expected 1, 2, 4 or 8")]
    ElementBytes(usize),
    /// There is not one stride for each dimension.
    #[error("{dims} dimensions with {strides} strides")]
    Rank {
        /// Number of dimensions.
        dims: usize,
        /// Number of strides.
        strides: usize,
    },
    /// The elements do not fit into an address space.
    #[error("shape {shape:?} with strides {strides:?} exceeds the address space")]
    TooLarge {
        /// Length of each dimension.
        shape: Vec<usize>,
        /// Step of each dimension, in elements.
        strides: Vec<isize>,
    },
}

/// A dimension: its length, and the step between its elements, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dim {
    pub(crate) len: usize,
    pub(crate) stride: isize,
}

/// Shape and strides, reduced to the dimensions that matter: of each that continues its neighbour,
/// both are one. There are always two at least, of length 1 if need be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    element_bytes: usize,
    len: usize,
    dims: Vec<Dim>,
    /// First element and end, counted from the first element in C order.
    reach: Range<isize>,
}

impl Layout {
    /// Takes strides that count elements; they may be negative, or 0.
    ///
    /// # Errors
    /// [`LayoutError`] when the numbers do not fit together.
    pub fn new(
        element_bytes: usize,
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self, LayoutError> {
        if !matches!(element_bytes, 1 | 2 | 4 | 8) {
            return Err(LayoutError::ElementBytes(element_bytes));
        }
        if shape.len() != strides.len() {
            return Err(LayoutError::Rank { dims: shape.len(), strides: strides.len() });
        }
        let too_large =
            || LayoutError::TooLarge { shape: shape.to_vec(), strides: strides.to_vec() };
        let len = if shape.contains(&0) { Some(0) } else { product(shape) };
        let len = len.ok_or_else(too_large)?;
        let dims = if len == 0 { vec![Dim { len: 0, stride: 1 }] } else { merge(shape, strides) };
        let reach = reach(&dims).ok_or_else(too_large)?;
        let bytes = (reach.end - reach.start).checked_mul(element_bytes.cast_signed());
        bytes.ok_or_else(too_large)?;
        Ok(Self { element_bytes, len, dims: pad(dims), reach })
    }

    /// Some neighbouring dimensions of this one by themselves.
    pub(crate) fn of_dims(&self, dims: &[Dim]) -> Self {
        Self {
            element_bytes: self.element_bytes,
            len: dims.iter().map(|dim| dim.len).product(),
            dims: pad(dims.to_vec()),
            reach: reach(dims).expect("no more than that of all dimensions"),
        }
    }

    /// Size of an element.
    #[must_use]
    pub fn element_bytes(&self) -> usize {
        self.element_bytes
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no two indices are the same element, as far as can be seen by looking at dimensions
    /// one by one: each step has to lead over all that the smaller steps reach. An expanded tensor
    /// is not distinct; one that is permuted, cut out or turned around is.
    #[must_use]
    pub fn is_distinct(&self) -> bool {
        let mut dims: Vec<_> = self.dims.iter().filter(|dim| dim.len > 1).collect();
        dims.sort_unstable_by_key(|dim| dim.stride.unsigned_abs());
        let mut reached = 1;
        dims.iter().all(|dim| {
            let is_beyond = dim.stride.unsigned_abs() >= reached;
            reached += dim.stride.unsigned_abs() * (dim.len - 1);
            is_beyond
        })
    }

    /// Whether the elements follow one another in C order.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.len == 1 || self.dims.iter().any(|dim| dim.len == self.len && dim.stride == 1)
    }

    /// The lowest element and the end of the highest, counted from the first in C order.
    pub(crate) fn reach(&self) -> &Range<isize> {
        &self.reach
    }

    pub(crate) fn dims(&self) -> &[Dim] {
        &self.dims
    }

    /// The boxes that make up a range of elements in C order, in that order.
    pub(crate) fn boxes(&self, range: Range<usize>) -> impl Iterator<Item = Region> + '_ {
        let Range { start: mut position, end } = range;
        std::iter::from_fn(move || {
            let region = (position < end).then(|| self.largest_box(position, end))?;
            position += region.len();
            Some(region)
        })
    }

    /// The largest box that starts at a position in C order and ends at `end` or before it.
    fn largest_box(&self, position: usize, end: usize) -> Region {
        let mut region = Region { start: self.index(position), lens: vec![1; self.dims.len()] };
        let mut inner = 1;
        for (i, dim) in self.dims.iter().enumerate().rev() {
            region.lens[i] = ((end - position) / inner).min(dim.len - region.start[i]);
            let is_whole = region.lens[i] == dim.len;
            let fits_more = (end - position) / inner / dim.len > 0;
            if !(is_whole && fits_more) {
                break;
            }
            inner *= dim.len;
        }
        region
    }

    /// The index of the element at a position in C order.
    pub(crate) fn index(&self, mut position: usize) -> Vec<usize> {
        let mut index = vec![0; self.dims.len()];
        for (at, dim) in index.iter_mut().zip(&self.dims).rev() {
            (*at, position) = (position % dim.len, position / dim.len);
        }
        index
    }
}

/// A box of elements: from `start` on, `lens` of them in each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: Vec<usize>,
    pub(crate) lens: Vec<usize>,
}

impl Region {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.lens.iter().product()
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &len| product.checked_mul(len))
}

/// Leaves out dimensions of one element, and joins an outer dimension whose step is the whole of
/// the next inner one with it.
fn merge(shape: &[usize], strides: &[isize]) -> Vec<Dim> {
    let mut dims: Vec<Dim> = Vec::new();
    let all = shape.iter().zip(strides).map(|(&len, &stride)| Dim { len, stride });
    for dim in all.filter(|dim| dim.len != 1) {
        match dims.last_mut() {
            Some(outer) if continues(*outer, dim) => {
                *outer = Dim { len: outer.len * dim.len, stride: dim.stride };
            }
            _ => dims.push(dim),
        }
    }
    dims
}

fn continues(outer: Dim, inner: Dim) -> bool {
    let len = isize::try_from(inner.len).ok();
    len.and_then(|len| inner.stride.checked_mul(len)) == Some(outer.stride)
}

fn reach(dims: &[Dim]) -> Option<Range<isize>> {
    let mut reach: Range<isize> = 0..1;
    for dim in dims.iter().filter(|dim| dim.len > 0) {
        let far = isize::try_from(dim.len - 1).ok()?.checked_mul(dim.stride)?;
        let end = if far < 0 { &mut reach.start } else { &mut reach.end };
        *end = end.checked_add(far)?;
    }
    reach.end.checked_sub(reach.start)?;
    Some(reach)
}

fn pad(mut dims: Vec<Dim>) -> Vec<Dim> {
    while dims.len() < 2 {
        dims.insert(0, Dim { len: 1, stride: 0 });
    }
    dims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[usize], strides: &[isize]) -> Layout {
        Layout::new(4, shape, strides).unwrap()
    }

    fn dims(shape: &[usize], strides: &[isize]) -> Vec<(usize, isize)> {
        layout(shape, strides).dims().iter().map(|dim| (dim.len, dim.stride)).collect()
    }

    fn boxes(range: Range<usize>) -> Vec<(Vec<usize>, Vec<usize>)> {
        let layout = layout(&[4, 3, 5], &[100, 10, 1]);
        layout.boxes(range).map(|region| (region.start, region.lens)).collect()
    }

    #[test]
    fn a_contiguous_tensor_has_one_dimension() {
        assert_eq!(dims(&[4, 3, 1, 5], &[15, 5, 7, 1]), [(1, 0), (60, 1)]);
    }

    #[test]
    fn only_what_has_no_gaps_and_runs_forward_is_contiguous() {
        assert!(layout(&[2, 3, 4], &[12, 4, 1]).is_contiguous());
        assert!(layout(&[1], &[7]).is_contiguous());
        assert!(!layout(&[2, 3], &[4, 1]).is_contiguous(), "gaps");
        assert!(!layout(&[2, 3], &[1, 2]).is_contiguous(), "transposed");
        assert!(!layout(&[6], &[-1]).is_contiguous(), "backward");
    }

    #[test]
    fn neighbours_are_joined_whichever_way_they_run() {
        assert_eq!(dims(&[4, 3, 5], &[-15, -5, -1]), [(1, 0), (60, -1)]);
        assert_eq!(dims(&[4, 3, 5], &[0, 0, 1]), [(12, 0), (5, 1)]);
        assert_eq!(dims(&[4, 3, 5], &[1, 20, 4]), [(4, 1), (15, 4)]);
    }

    #[test]
    fn a_scalar_is_one_element() {
        assert_eq!((layout(&[], &[]).len(), dims(&[], &[])), (1, vec![(1, 0), (1, 0)]));
    }

    #[test]
    fn a_tensor_without_elements_has_no_boxes() {
        let empty = layout(&[usize::MAX, 0, usize::MAX], &[isize::MAX, isize::MIN, 1]);
        assert_eq!((empty.len(), empty.boxes(0..0).count()), (0, 0));
    }

    #[test]
    fn all_elements_are_one_box() {
        assert_eq!(boxes(0..60), [(vec![0, 0, 0], vec![4, 3, 5])]);
    }

    #[test]
    fn a_range_begins_and_ends_with_smaller_boxes() {
        let expected = [
            (vec![0, 1, 3], vec![1, 1, 2]),
            (vec![0, 2, 0], vec![1, 1, 5]),
            (vec![1, 0, 0], vec![2, 3, 5]),
            (vec![3, 0, 0], vec![1, 1, 5]),
            (vec![3, 1, 0], vec![1, 1, 1]),
        ];
        assert_eq!(boxes(8..51), expected);
    }

    #[test]
    fn layouts_are_distinct_unless_a_step_is_too_short() {
        assert!(layout(&[3, 4], &[4, 1]).is_distinct());
        assert!(layout(&[3, 4], &[-1, 3]).is_distinct());
        assert!(layout(&[3, 1], &[1, 0]).is_distinct());
        assert!(!layout(&[3, 4], &[0, 1]).is_distinct());
        assert!(!layout(&[3, 4], &[3, 1]).is_distinct());
        assert!(!layout(&[3, 4], &[-3, 1]).is_distinct());
    }

    #[test]
    fn what_is_no_layout_says_why() {
        let message = |bytes, shape: &[_], strides: &[_]| {
            Layout::new(bytes, shape, strides).unwrap_err().to_string()
        };
        assert_eq!(message(3, &[], &[]), "elements of 3 bytes: expected 1, 2, 4 or 8");
        assert_eq!(message(4, &[2, 3], &[1]), "2 dimensions with 1 strides");
        let expected = "shape [2] with strides [9223372036854775807] exceeds the address space";
        assert_eq!(message(4, &[2], &[isize::MAX]), expected);
        assert!(Layout::new(1, &[usize::MAX, 2], &[0, 0]).is_err());
        assert!(Layout::new(1, &[2, 2], &[isize::MAX - 1, isize::MIN + 1]).is_err());
    }
}
