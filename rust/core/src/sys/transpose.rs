//! Copies of two-dimensional blocks between any two spacings.

#![expect(clippy::inline_always, reason = "squares are moved by the thousand")]

use super::elements::Bits;
use std::ptr;

/// How far it is to the next row and to the next column, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) row: isize,
    pub(super) col: isize,
}

impl Steps {
    fn transposed(self) -> Self {
        Self { row: self.col, col: self.row }
    }
}

/// Both ends of a copy, each with the address of its first element and its steps.
#[derive(Clone, Copy)]
struct Ends<T> {
    from: *const T,
    from_steps: Steps,
    to: *mut T,
    to_steps: Steps,
}

impl<T: Bits + Transpose> Ends<T> {
    /// The ends of the part that begins at a row and column. Nothing is said about what is there.
    #[inline(always)]
    fn at(self, row: usize, col: usize) -> Self {
        let (row, col) = (row.cast_signed(), col.cast_signed());
        let from = self.from.wrapping_offset(row.wrapping_mul(self.from_steps.row));
        let to = self.to.wrapping_offset(row.wrapping_mul(self.to_steps.row));
        Self {
            from: from.wrapping_offset(col.wrapping_mul(self.from_steps.col)),
            to: to.wrapping_offset(col.wrapping_mul(self.to_steps.col)),
            ..self
        }
    }

    fn transposed(self) -> Self {
        let (from_steps, to_steps) = (self.from_steps.transposed(), self.to_steps.transposed());
        Self { from_steps, to_steps, ..self }
    }

    /// # Safety
    /// As for [`copy_block`].
    unsafe fn copy_each(self, rows: usize, cols: usize) {
        for row in 0..rows {
            let Self { mut from, mut to, .. } = self.at(row, 0);
            for _ in 0..cols {
                // SAFETY: an element of the block: readable, initialised, and of any bits.
                let value = unsafe { from.read_unaligned() };
                // SAFETY: an element of the block: writable.
                unsafe { to.write_unaligned(value) };
                from = from.wrapping_offset(self.from_steps.col);
                to = to.wrapping_offset(self.to_steps.col);
            }
        }
    }

    /// # Safety
    /// As for [`copy_block`]; columns must be next to each other at both ends.
    unsafe fn copy_rows(self, rows: usize, cols: usize) {
        for row in 0..rows {
            let Self { from, to, .. } = self.at(row, 0);
            let bytes = cols * size_of::<T>();
            // SAFETY: a row of the block, contiguous at both ends.
            unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), bytes) };
        }
    }

    /// Copies squares of as many rows and columns as fit into a register, then what is left over.
    ///
    /// # Safety
    /// As for [`copy_block`]; columns must be next to each other where it is copied from, rows
    /// where it is copied to.
    unsafe fn copy_squares(self, rows: usize, cols: usize) {
        let side = size_of::<Register>() / size_of::<T>();
        let (whole_rows, whole_cols) = (rows / side * side, cols / side * side);
        let square = |row: usize, col: usize| {
            let Self { from, to, from_steps, to_steps } = self.at(row, col);
            // SAFETY: `side` rows and columns of the block.
            unsafe { T::transpose(from, from_steps.row, to, to_steps.col) };
        };
        let squares = |len: usize| (0..len).step_by(side);
        // Where lines are far apart, as many as `side` are begun, and ended before others are.
        if self.from_steps.row.unsigned_abs() > self.to_steps.col.unsigned_abs() {
            squares(whole_rows)
                .for_each(|row| squares(whole_cols).for_each(|col| square(row, col)));
        } else {
            squares(whole_cols)
                .for_each(|col| squares(whole_rows).for_each(|row| square(row, col)));
        }
        // SAFETY: the columns of the block after the squares.
        unsafe { self.at(0, whole_cols).copy_each(whole_rows, cols - whole_cols) };
        // SAFETY: the rows of the block after the squares.
        unsafe { self.at(whole_rows, 0).copy_each(rows - whole_rows, cols) };
    }
}

/// Copies `lens[0]` rows of `lens[1]` elements.
///
/// # Safety
/// All these elements must be readable and initialised at `from`, writable at `to`, each within one
/// allocation, and no memory be both. Addresses need no alignment.
pub(super) unsafe fn copy_block<T: Bits + Transpose>(
    from: *const T,
    from_steps: Steps,
    to: *mut T,
    to_steps: Steps,
    lens: [usize; 2],
) {
    let ends = Ends { from, from_steps, to, to_steps };
    let [rows, cols] = lens;
    let units = |steps: Steps| (steps.row == 1, steps.col == 1);
    match (units(from_steps), units(to_steps)) {
        // SAFETY: the caller's.
        ((_, true), (_, true)) if rows == 1 || cols * size_of::<T>() >= SHORT_ROW_BYTES => unsafe {
            ends.copy_rows(rows, cols);
        },
        // SAFETY: the caller's.
        ((_, true), (true, _)) => unsafe { ends.copy_squares(rows, cols) },
        // SAFETY: the caller's.
        ((true, _), (_, true)) => unsafe { ends.transposed().copy_squares(cols, rows) },
        // SAFETY: the caller's.
        _ if is_along_rows(from_steps, to_steps, lens) => unsafe {
            ends.transposed().copy_each(cols, rows);
        },
        // SAFETY: the caller's.
        _ => unsafe { ends.copy_each(rows, cols) },
    }
}

/// Rows of fewer bytes are not worth a call each.
const SHORT_ROW_BYTES: usize = 32;

/// Whether to copy column by column: where a row is one element, or short and contiguous at both ends;
/// and where rows are closer to each other than columns at the end where both are further apart.
fn is_along_rows(from: Steps, to: Steps, [rows, cols]: [usize; 2]) -> bool {
    if rows == 1 || cols == 1 || (from.col == 1 && to.col == 1) {
        return rows > 1;
    }
    let strided = if to.col == 1 { from } else { to };
    strided.row.unsigned_abs() < strided.col.unsigned_abs()
}

/// Elements of which a small square can be transposed in registers.
pub(super) trait Transpose: Sized {
    /// Copies a square of as many rows and columns as fit into a [`Register`]; its rows become
    /// columns.
    ///
    /// # Safety
    /// These elements must be readable and initialised in rows that are `from_row` apart, and
    /// writable in rows that are `to_row` apart.
    unsafe fn transpose(from: *const Self, from_row: isize, to: *mut Self, to_row: isize);
}

#[cfg(target_arch = "x86_64")]
use sse2::Register;

#[cfg(not(target_arch = "x86_64"))]
type Register = [u8; 16];

#[cfg(not(target_arch = "x86_64"))]
impl<T: Bits> Transpose for T {
    unsafe fn transpose(from: *const Self, from_row: isize, to: *mut Self, to_row: isize) {
        let from_steps = Steps { row: from_row, col: 1 };
        let to_steps = Steps { row: 1, col: to_row };
        let side = size_of::<Register>() / size_of::<T>();
        // SAFETY: the caller's.
        unsafe { Ends { from, from_steps, to, to_steps }.copy_each(side, side) };
    }
}

/// The registers that every x86-64 processor has.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::Transpose;
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpackhi_epi16,
        _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi8, _mm_unpacklo_epi16,
        _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    };
    use std::array;

    pub(super) type Register = __m128i;

    /// Shuffles rows that are `N` elements long like two halves of a pack of cards, elements and
    /// all, `low` and `high` being the two halves of a shuffle of two rows. Doing so as often as
    /// `N` can be halved makes rows of the columns.
    #[inline(always)]
    fn shuffle<const N: usize>(
        rows: [Register; N],
        low: impl Fn(Register, Register) -> Register,
        high: impl Fn(Register, Register) -> Register,
    ) -> [Register; N] {
        array::from_fn(|i| {
            let (first, second) = (rows[i / 2], rows[i / 2 + N / 2]);
            if i % 2 == 0 { low(first, second) } else { high(first, second) }
        })
    }

    macro_rules! transpose {
        ($element:ty, $side:literal, $halvings:literal, $low:ident, $high:ident) => {
            impl Transpose for $element {
                #[inline(always)]
                unsafe fn transpose(
                    from: *const Self,
                    from_row: isize,
                    to: *mut Self,
                    to_row: isize,
                ) {
                    let mut rows: [Register; $side] = array::from_fn(|i| {
                        let row = from.wrapping_offset(from_row.wrapping_mul(i.cast_signed()));
                        // SAFETY: a row of the square, readable whatever its alignment.
                        unsafe { _mm_loadu_si128(row.cast()) }
                    });
                    // SAFETY: every x86-64 processor has SSE2.
                    let low = |a, b| unsafe { $low(a, b) };
                    // SAFETY: every x86-64 processor has SSE2.
                    let high = |a, b| unsafe { $high(a, b) };
                    for _ in 0..$halvings {
                        rows = shuffle(rows, low, high);
                    }
                    for (i, row) in rows.into_iter().enumerate() {
                        let to = to.wrapping_offset(to_row.wrapping_mul(i.cast_signed()));
                        // SAFETY: a row of the square, writable whatever its alignment.
                        unsafe { _mm_storeu_si128(to.cast(), row) };
                    }
                }
            }
        };
    }

    transpose!(u8, 16, 4, _mm_unpacklo_epi8, _mm_unpackhi_epi8);
    transpose!(u16, 8, 3, _mm_unpacklo_epi16, _mm_unpackhi_epi16);
    transpose!(u32, 4, 2, _mm_unpacklo_epi32, _mm_unpackhi_epi32);
    transpose!(u64, 2, 1, _mm_unpacklo_epi64, _mm_unpackhi_epi64);
}
