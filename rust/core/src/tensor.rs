//! One tensor's entry: dtype, shape, and where its bytes lie.

use crate::dtype::Dtype;
use std::ops::Range;

/// What a header says about one tensor, after validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Length of each dimension; empty for a scalar.
    pub shape: Vec<u64>,
    /// Byte range within the data section (not within the file).
    pub range: Range<u64>,
}

impl TensorInfo {
    /// Number of bytes of the tensor.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Why a dtype and a shape have no size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSize {
    /// The product leaves 64 bits.
    Overflow,
    /// Packed elements do not fill whole bytes.
    PartOfAByte,
}

/// Size in bytes of a tensor.
///
/// # Errors
/// [`NoSize`] when the product overflows or packed elements end within a byte.
///
/// ```
/// use windlass_core::{Dtype, tensor::byte_len};
/// assert_eq!(byte_len(Dtype::F32, &[4, 8]), Ok(128));
/// assert_eq!(byte_len(Dtype::F4, &[2, 8]), Ok(8));
/// ```
pub fn byte_len(dtype: Dtype, shape: &[u64]) -> Result<u64, NoSize> {
    let bits = shape
        .iter()
        .try_fold(1_u64, |product, &length| product.checked_mul(length))
        .and_then(|elements| elements.checked_mul(dtype.bits()))
        .ok_or(NoSize::Overflow)?;
    if bits.is_multiple_of(8) { Ok(bits / 8) } else { Err(NoSize::PartOfAByte) }
}
