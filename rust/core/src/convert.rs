//! Elements from one dtype, order and spacing to another, on the way between a file and memory.
//!
//! [`cast`] gives the conversion between two dtypes for contiguous elements. [`gather`] reads a
//! strided tensor in C order and writes contiguous elements, [`scatter`] does the reverse; both
//! cast on the way, and use 128 KiB of their own at most. To convert a part of a tensor, or parts on
//! several threads, split the handle of the strided side.
//!
//! Results are those of torch's `copy_` (2.13, on x86 with AVX2) bit for bit. Earlier versions make
//! NaN of what is too large for `F8_E4M3`, which 2.13 makes the largest number. The exceptions:
//!
//! - A float that has no value in an integer dtype is undefined there. Here it is truncated, then
//!   wraps; what is beyond 64 bits (32 for `I8`, `I16` and `I32`) saturates first, and NaN is 0.
//! - NaN as `BF16` is `0xFFFF` where torch works on blocks of `F32` or `F64`, and `0x7FC0` where it
//!   works one by one, which depends on sizes and strides. Here it is the former for these two, and
//!   the latter for the rest.
//! - A dtype becomes itself by moving bytes, those of a `BOOL` that are neither 0 nor 1 included.

mod cast;
mod layout;
mod small_floats;
mod walk;

pub use crate::sys::strided::{StridedDest, StridedSource};
pub use cast::{Cast, cast};
pub use layout::{Layout, LayoutError};
pub use walk::{gather, scatter};
