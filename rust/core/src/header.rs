//! Bytes ↔ [`Header`]: the one place that decides what a well-formed safetensors file is.
//!
//! Pure: no file is opened here. It accepts exactly what the reference parser (safetensors 0.8)
//! accepts, so that windlass is a drop-in; [`Strictness::Strict`] also refuses what the format's
//! text forbids and that parser lets through.

mod foreign;
mod layout;
mod raw;

pub use layout::NewTensor;

use crate::error::FormatError;
use crate::names::ByName;
use crate::tensor::{NoSize, TensorInfo, byte_len};
use raw::{Entry, Oddities, RawHeader};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::cmp::Ordering;
use std::ops::Range;

/// Bytes of the header length at the start of a file (little-endian `u64`).
pub const PREFIX_LEN: u64 = PREFIX_BYTES as u64;
const PREFIX_BYTES: usize = 8;

/// Largest header text the format allows, in bytes.
pub const MAX_TEXT_LEN: u64 = 100_000_000;

/// How much of the start of a file [`text_len`] wants to see.
pub const START_LEN: usize = GIT_LFS_PREFIX.len();

/// Writers pad the header so that the data section starts at a multiple of this.
const ALIGNMENT: usize = 8;

/// Key of the free-form text map.
const METADATA_KEY: &str = "__metadata__";

/// First bytes of a git-lfs pointer file.
const GIT_LFS_PREFIX: &[u8] = b"version https://git-lfs.github.com/spec/";

/// How much beyond the reference parser a header is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Accept what the reference parser accepts.
    #[default]
    Reference,
    /// Also refuse duplicate keys, a header not beginning with `{`, and unknown fields.
    Strict,
}

/// Text that a writer put into the file, in file order.
pub type Metadata = ByName<String>;

/// A validated header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Tensors by name, in the order of their bytes.
    pub tensors: ByName<TensorInfo>,
    /// The `__metadata__` map, if there is one.
    pub metadata: Option<Metadata>,
    /// Offset of the data section within the file.
    pub data_start: u64,
}

impl Header {
    /// Parses and validates the text of a header.
    ///
    /// `text` is what follows the 8-byte length; `file_len` is the size of the whole file.
    ///
    /// # Errors
    /// The [`FormatError`] of the first broken rule.
    ///
    /// ```
    /// use windlass_core::header::{Header, Strictness};
    /// let text = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    /// let file_len = 8 + text.len() as u64 + 8;
    /// let header = Header::parse(text, file_len, Strictness::Strict)?;
    /// assert_eq!(header.tensors["w"].shape, [2]);
    /// # Ok::<(), windlass_core::FormatError>(())
    /// ```
    pub fn parse(text: &[u8], file_len: u64, strictness: Strictness) -> Result<Self, FormatError> {
        let text = std::str::from_utf8(text)
            .map_err(|error| FormatError::NotUtf8 { offset: error.valid_up_to() })?;
        let mut raw = RawHeader::parse(text)?;
        if strictness == Strictness::Strict {
            refuse_oddities(text, &raw.oddities)?;
        }
        let data_start = PREFIX_LEN + text.len() as u64;
        validate(&mut raw.tensors, data_start, file_len)?;
        Ok(Self { tensors: raw.tensors, metadata: raw.metadata, data_start })
    }

    /// Writes the header as the format wants it: the 8-byte length, then JSON padded with spaces
    /// so that the data section starts at a multiple of 8.
    ///
    /// ```
    /// use windlass_core::header::{Header, Strictness};
    /// let text = br#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    /// let header = Header::parse(text, 8 + text.len() as u64 + 1, Strictness::Strict)?;
    /// let bytes = header.encode();
    /// assert_eq!(Header::parse(&bytes[8..], bytes.len() as u64 + 1, Strictness::Strict)?.tensors, header.tensors);
    /// # Ok::<(), windlass_core::FormatError>(())
    /// ```
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; PREFIX_BYTES];
        serde_json::to_writer(&mut bytes, self).expect("a map with text keys, written to memory");
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), b' ');
        let text_len = (bytes.len() - PREFIX_BYTES) as u64;
        bytes[..PREFIX_BYTES].copy_from_slice(&text_len.to_le_bytes());
        bytes
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(metadata) = &self.metadata {
            map.serialize_entry(METADATA_KEY, metadata)?;
        }
        for (name, info) in &self.tensors {
            map.serialize_entry(name, &Entry::of(info))?;
        }
        map.end()
    }
}

/// Checks the stated header length against the file, before anything is allocated for it.
///
/// `start` is the beginning of the file: at least [`START_LEN`] bytes, or the whole of a shorter
/// file.
///
/// # Errors
/// The [`FormatError`] of the first broken rule.
pub fn text_len(start: &[u8], file_len: u64) -> Result<u64, FormatError> {
    check_start(start, file_len)?;
    let prefix = start.first_chunk().ok_or(FormatError::TooShort { found: file_len })?;
    let found = u64::from_le_bytes(*prefix);
    if found > MAX_TEXT_LEN {
        let too_large = FormatError::HeaderTooLarge { found, limit: MAX_TEXT_LEN };
        return Err(foreign::recognise(start).unwrap_or(too_large));
    }
    let expected = PREFIX_LEN + found;
    if expected > file_len {
        return Err(FormatError::HeaderTruncated { expected, found: file_len });
    }
    Ok(found)
}

/// Tells apart what is no weights file of any kind: nothing at all, or a git-lfs pointer.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::GitLfsPointer`].
pub fn check_start(start: &[u8], file_len: u64) -> Result<(), FormatError> {
    if file_len == 0 {
        return Err(FormatError::Empty);
    }
    if start.starts_with(GIT_LFS_PREFIX) {
        return Err(FormatError::GitLfsPointer);
    }
    Ok(())
}

/// Strict mode: refuses what the format forbids and the reference parser lets through.
fn refuse_oddities(text: &str, oddities: &Oddities) -> Result<(), FormatError> {
    if let Some(found) = text.chars().next().filter(|&first| first != '{') {
        return Err(FormatError::StrictStart { found });
    }
    if let Some(key) = &oddities.duplicate_key {
        return Err(FormatError::StrictDuplicate { key: key.clone() });
    }
    if let Some((tensor, field)) = &oddities.unknown_field {
        let (tensor, field) = (tensor.clone(), field.clone());
        return Err(FormatError::StrictUnknownField { tensor, field });
    }
    Ok(())
}

/// Sorts the tensors by their bytes, and checks that they fill the data section without hole or
/// overlap, each with the size that its dtype and shape need.
fn validate(
    tensors: &mut ByName<TensorInfo>,
    data_start: u64,
    file_len: u64,
) -> Result<(), FormatError> {
    let by_bytes = |a_name: &String, a: &TensorInfo, b_name: &String, b: &TensorInfo| {
        (a.range.start, a.range.end, a_name).cmp(&(b.range.start, b.range.end, b_name))
    };
    // Most writers have sorted them already; sorting again would rebuild the table.
    if !tensors.iter().is_sorted_by(|a, b| by_bytes(a.0, a.1, b.0, b.1).is_le()) {
        tensors.sort_by(by_bytes);
    }
    let mut end_of_data = 0;
    for (name, info) in tensors {
        validate_tensor(name, info, end_of_data)?;
        end_of_data = info.range.end;
    }
    check_file_len(data_start.saturating_add(end_of_data), file_len)
}

fn validate_tensor(name: &str, info: &TensorInfo, expected: u64) -> Result<(), FormatError> {
    let TensorInfo { dtype, ref shape, range: Range { start, end } } = *info;
    let (tensor, shape) = (|| name.to_owned(), || shape.clone());
    if start != expected {
        return Err(FormatError::Offset { tensor: tensor(), expected, found: start });
    }
    let Some(found) = end.checked_sub(start) else {
        return Err(FormatError::Backwards { tensor: tensor(), start, end });
    };
    match byte_len(dtype, &info.shape) {
        Ok(expected) if expected == found => Ok(()),
        Ok(expected) => {
            let (tensor, shape) = (tensor(), shape());
            Err(FormatError::Size { tensor, dtype, shape, expected, found })
        }
        Err(NoSize::Overflow) => {
            Err(FormatError::Overflow { tensor: tensor(), dtype, shape: shape() })
        }
        Err(NoSize::PartOfAByte) => {
            Err(FormatError::PartOfAByte { tensor: tensor(), dtype, shape: shape() })
        }
    }
}

fn check_file_len(expected: u64, found: u64) -> Result<(), FormatError> {
    match found.cmp(&expected) {
        Ordering::Less => Err(FormatError::Truncated { expected, found }),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(FormatError::TrailingBytes { expected, found }),
    }
}
