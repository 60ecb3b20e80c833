//! Strided tensors, and their elements moved one at a time.

use proptest::prelude::*;
use std::ops::Range;
use windlass_core::convert::{Cast, Layout};
use windlass_core::{Dest, Dtype, Source};

/// A number of `SplitMix64`.
pub(crate) fn random_bits(seed: u64, position: u64) -> u64 {
    let state = seed.wrapping_add((position + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

pub(crate) fn byte_size(dtype: Dtype) -> usize {
    usize::try_from(dtype.bits() / 8).unwrap()
}

pub(crate) fn run(cast: &Cast, elements: &[u8]) -> Vec<u8> {
    let mut result = vec![0xEE; elements.len() / cast.from_bytes() * cast.to_bytes()];
    cast.run(Source::from_slice(elements), Dest::from_slice(&mut result));
    result
}

/// A strided tensor within a slice.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<isize>,
    /// Element of the slice that is the first in C order.
    pub(crate) first: usize,
    /// Elements of the slice.
    pub(crate) memory: usize,
}

/// A dimension: its length, what is left free after each of its elements, whether it runs
/// backwards, and whether it is expanded.
pub(crate) type Dimension = (usize, usize, bool, bool);

impl Tensor {
    /// Lays dimensions out, the first of `order` innermost.
    pub(crate) fn new(dimensions: &[Dimension], order: &[usize]) -> Self {
        let shape: Vec<_> = dimensions.iter().map(|&(len, ..)| len).collect();
        let mut strides = vec![0; shape.len()];
        let (mut step, mut first) = (1_usize, 0);
        for &dim in order {
            let (len, gap, is_backwards, is_expanded) = dimensions[dim];
            if is_expanded {
                continue;
            }
            strides[dim] = if is_backwards { -step.cast_signed() } else { step.cast_signed() };
            first += if is_backwards { step * len.saturating_sub(1) } else { 0 };
            step *= len.max(1) + gap;
        }
        Self { shape, strides, first, memory: step }
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn layout(&self, dtype: Dtype) -> Layout {
        Layout::new(byte_size(dtype), &self.shape, &self.strides).unwrap()
    }

    /// Element of the slice at a position in C order.
    fn element(&self, mut position: usize) -> usize {
        let mut element = self.first.cast_signed();
        for (&len, stride) in self.shape.iter().zip(&self.strides).rev() {
            element += (position % len).cast_signed() * stride;
            position /= len;
        }
        element.cast_unsigned()
    }
}

pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| random_bits(1, i).to_le_bytes()[0]).collect()
}

/// What `gather` writes, one element at a time.
pub(crate) fn gather_each(
    tensor: &Tensor,
    memory: &[u8],
    range: Range<usize>,
    cast: &Cast,
) -> Vec<u8> {
    let size = cast.from_bytes();
    let one = |position| run(cast, &memory[tensor.element(position) * size..][..size]);
    range.flat_map(one).collect()
}

/// What `scatter` leaves, one element at a time.
pub(crate) fn scatter_each(
    tensor: &Tensor,
    elements: &[u8],
    cast: &Cast,
    memory: &mut [u8],
    first: usize,
) {
    let size = cast.to_bytes();
    for (i, element) in elements.chunks_exact(cast.from_bytes()).enumerate() {
        let start = tensor.element(first + i) * size;
        memory[start..start + size].copy_from_slice(&run(cast, element));
    }
}

/// Pairs that differ in the size of their elements in every way, and some that are only copied.
pub(crate) const PAIRS: [(Dtype, Dtype); 8] = [
    (Dtype::U8, Dtype::U8),
    (Dtype::Bf16, Dtype::Bf16),
    (Dtype::F32, Dtype::F32),
    (Dtype::I64, Dtype::U64),
    (Dtype::Bf16, Dtype::F32),
    (Dtype::F32, Dtype::F16),
    (Dtype::F8E4M3, Dtype::F64),
    (Dtype::I64, Dtype::I8),
];

pub(crate) fn pairs() -> impl Strategy<Value = (Dtype, Dtype)> {
    prop::sample::select(PAIRS.to_vec())
}

pub(crate) fn tensors(
    ranks: Range<usize>,
    lens: Range<usize>,
    expand: f64,
) -> impl Strategy<Value = Tensor> {
    let gap = prop_oneof![3 => Just(0_usize), 1 => 1..3_usize];
    let dimension = (lens, gap, any::<bool>(), prop::bool::weighted(expand));
    prop::collection::vec(dimension, ranks).prop_flat_map(|dimensions| {
        let order = Just((0..dimensions.len()).collect::<Vec<_>>()).prop_shuffle();
        order.prop_map(move |order| Tensor::new(&dimensions, &order))
    })
}
