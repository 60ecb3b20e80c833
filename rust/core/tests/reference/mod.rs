//! The reference parser (crate `safetensors`) as an oracle for ours.
//!
//! Shared by `differential.rs` and the fuzz target `header`: whatever the bytes, both parsers
//! accept or both refuse, and what they accept they understand alike.

use safetensors::SafeTensors;
use std::collections::BTreeMap;
use windlass_core::header::text_len;
use windlass_core::{FormatError, Header, Strictness};

/// Dtype, shape and data offsets of a tensor.
pub(crate) type Entry = (String, Vec<u64>, (u64, u64));

/// What a parser understood of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Understood {
    /// All tensors by name.
    pub(crate) tensors: BTreeMap<String, Entry>,
    /// The `__metadata__` map.
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// Where the data section begins.
    pub(crate) data_start: u64,
}

/// Our reading of a whole file.
pub(crate) fn ours(bytes: &[u8], strictness: Strictness) -> Result<Understood, FormatError> {
    parse(bytes, strictness).map(understood)
}

/// The reference parser's reading of a whole file.
pub(crate) fn theirs(bytes: &[u8]) -> Result<Understood, String> {
    let (text_len, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let shape = info.shape.iter().map(|&length| length as u64).collect();
        let (start, end) = info.data_offsets;
        (name, (info.dtype.to_string(), shape, (start as u64, end as u64)))
    };
    Ok(Understood {
        tensors: header.tensors().into_iter().map(entry).collect(),
        metadata: header.metadata().clone().map(|metadata| metadata.into_iter().collect()),
        data_start: 8 + text_len as u64,
    })
}

/// Whether both parsers accept these bytes.
///
/// # Panics
/// When they disagree, in the decision or in what they understood; when strict mode changes more
/// than the decision; when what we accept does not survive being written.
pub(crate) fn agreed(bytes: &[u8]) -> bool {
    let ours_said = ours(bytes, Strictness::Reference);
    if let Err(FormatError::Truncated { expected: u64::MAX, .. }) = ours_said {
        // The end of such a file is beyond 64 bits. The reference adds it up unchecked: it panics
        // where overflow is checked, and refuses the file where not.
        return false;
    }
    match (ours_said, theirs(bytes)) {
        (Ok(ours_said), Ok(theirs_said)) => {
            assert_eq!(ours_said, theirs_said, "{}", shown(bytes));
            if let Ok(strict) = ours(bytes, Strictness::Strict) {
                assert_eq!(strict, ours_said, "{}", shown(bytes));
            }
            check_rewritten(bytes);
            true
        }
        (Err(_), Err(_)) => {
            assert!(ours(bytes, Strictness::Strict).is_err(), "{}", shown(bytes));
            false
        }
        (ours_said, theirs_said) => {
            panic!("ours: {ours_said:?}\ntheirs: {theirs_said:?}\n{}", shown(bytes))
        }
    }
}

fn parse(bytes: &[u8], strictness: Strictness) -> Result<Header, FormatError> {
    let file_len = bytes.len() as u64;
    let text_len = usize::try_from(text_len(bytes, file_len)?).expect("within the file");
    Header::parse(&bytes[8..8 + text_len], file_len, strictness)
}

fn understood(header: Header) -> Understood {
    let entry = |(name, info): (String, windlass_core::TensorInfo)| {
        (name, (info.dtype.name().to_owned(), info.shape, (info.range.start, info.range.end)))
    };
    Understood {
        tensors: header.tensors.into_iter().map(entry).collect(),
        metadata: header.metadata.map(|metadata| metadata.into_iter().collect()),
        data_start: header.data_start,
    }
}

/// What we write, both parsers read, and it is what was read before.
fn check_rewritten(bytes: &[u8]) {
    let header = parse(bytes, Strictness::Reference).expect("accepted before");
    let before = understood(header.clone());
    let mut rewritten = header.encode();
    let data_start = rewritten.len() as u64;
    let data_start_before = usize::try_from(before.data_start).expect("within the file");
    rewritten.extend_from_slice(&bytes[data_start_before..]);
    let expected = Understood { data_start, ..before };
    assert_eq!(ours(&rewritten, Strictness::Strict).as_ref(), Ok(&expected), "{}", shown(bytes));
    assert_eq!(theirs(&rewritten).as_ref(), Ok(&expected), "{}", shown(bytes));
}

fn shown(bytes: &[u8]) -> String {
    format!("{} bytes: {}", bytes.len(), bytes.escape_ascii())
}
