//! Tensors → the header of a new file: order, offsets, and what may not be written.

use super::{Header, MAX_TEXT_LEN, METADATA_KEY, Metadata, PREFIX_LEN};
use crate::dtype::Dtype;
use crate::error::FormatError;
use crate::names::ByName;
use crate::tensor::{NoSize, TensorInfo, byte_len};

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Length of each dimension.
    pub shape: Vec<u64>,
}

impl Header {
    /// Lays tensors out as safetensors 0.8 does: by descending row of the dtype table, then by
    /// name. Metadata is sorted by key, so that the same content always gives the same bytes.
    ///
    /// # Errors
    /// [`FormatError::Name`] for a name that is empty, stands twice, holds a NUL or is that of the
    /// metadata; [`FormatError::Overflow`] or [`FormatError::PartOfAByte`] for a shape;
    /// [`FormatError::HeaderTooLarge`].
    ///
    /// ```
    /// use windlass_core::header::{Header, NewTensor};
    /// use windlass_core::Dtype;
    /// let new = |name: &str, dtype| NewTensor { name: name.to_owned(), dtype, shape: vec![2] };
    /// let header = Header::lay_out(vec![new("a", Dtype::U8), new("b", Dtype::F32)], None)?;
    /// assert_eq!(header.tensors["b"].range, 0..8);
    /// assert_eq!(header.tensors["a"].range, 8..10);
    /// # Ok::<(), windlass_core::FormatError>(())
    /// ```
    pub fn lay_out(
        mut tensors: Vec<NewTensor>,
        metadata: Option<Metadata>,
    ) -> Result<Self, FormatError> {
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let mut placed = ByName::default();
        placed.reserve(tensors.len());
        let mut end = 0_u64;
        for tensor in tensors {
            check_name(&tensor.name)?;
            let start = end;
            end = end_of(&tensor, start)?;
            let NewTensor { name, dtype, shape } = tensor;
            let info = TensorInfo { dtype, shape, range: start..end };
            if let (position, Some(_)) = placed.insert_full(name, info) {
                let name = placed.get_index(position).map(|(name, _)| name.clone());
                return Err(name_error(name.unwrap_or_default(), "stands twice"));
            }
        }
        let metadata = metadata.map(|mut metadata| {
            metadata.sort_keys();
            metadata
        });
        Self { tensors: placed, metadata, data_start: 0 }.with_data_start()
    }

    /// Size of the data section in bytes.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.tensors.last().map_or(0, |(_, info)| info.range.end)
    }

    pub(crate) fn with_data_start(mut self) -> Result<Self, FormatError> {
        self.data_start = self.encode().len() as u64;
        let found = self.data_start - PREFIX_LEN;
        if found > MAX_TEXT_LEN {
            return Err(FormatError::HeaderTooLarge { found, limit: MAX_TEXT_LEN });
        }
        Ok(self)
    }
}

fn check_name(name: &str) -> Result<(), FormatError> {
    let reason = match name {
        "" => "is empty",
        METADATA_KEY => "is the name of the metadata",
        _ if name.contains('\0') => "holds a NUL",
        _ => return Ok(()),
    };
    Err(name_error(name.to_owned(), reason))
}

fn name_error(tensor: String, reason: &'static str) -> FormatError {
    FormatError::Name { tensor, reason }
}

fn end_of(tensor: &NewTensor, start: u64) -> Result<u64, FormatError> {
    let NewTensor { name, dtype, shape } = tensor;
    let (tensor, dtype, shape) = (|| name.clone(), *dtype, || shape.clone());
    match byte_len(dtype, &shape()) {
        Ok(len) => start.checked_add(len).ok_or_else(|| FormatError::Overflow {
            tensor: tensor(),
            dtype,
            shape: shape(),
        }),
        Err(NoSize::Overflow) => {
            Err(FormatError::Overflow { tensor: tensor(), dtype, shape: shape() })
        }
        Err(NoSize::PartOfAByte) => {
            Err(FormatError::PartOfAByte { tensor: tensor(), dtype, shape: shape() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay_out(names: &[&str]) -> Result<Header, FormatError> {
        let new = |name: &&str| {
            let (name, shape) = ((*name).to_owned(), vec![1]);
            NewTensor { name, dtype: Dtype::U8, shape }
        };
        Header::lay_out(names.iter().map(new).collect(), None)
    }

    #[test]
    fn names_that_no_reader_could_ask_for_are_refused() {
        for (names, reason) in [
            (&["a", ""][..], "is empty"),
            (&["__metadata__"], "is the name of the metadata"),
            (&["a\0b"], "holds a NUL"),
            (&["a", "a"], "stands twice"),
        ] {
            let FormatError::Name { reason: found, .. } = lay_out(names).unwrap_err() else {
                panic!("{names:?}");
            };
            assert_eq!(found, reason);
        }
    }

    #[test]
    fn nothing_at_all_is_a_file_too() {
        let header = lay_out(&[]).unwrap();
        assert_eq!(
            (header.encode().as_slice(), header.data_len()),
            (&b"\x08\0\0\0\0\0\0\0{}      "[..], 0)
        );
    }
}
