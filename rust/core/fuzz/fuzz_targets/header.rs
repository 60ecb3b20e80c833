//! Whatever the bytes, our parser and the reference parser agree.

#![no_main]

#[path = "../../tests/reference/mod.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use windlass_core::{FormatError, Strictness};

/// Files made around a header hold no more data than this.
const MAX_DATA: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    reference::agreed(bytes);
    reference::agreed(&file_around(bytes));
});

/// A file with this header text, of the size that the header asks for. Otherwise nearly every
/// mutation would end at a wrong length.
fn file_around(text: &[u8]) -> Vec<u8> {
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text);
    if let Err(FormatError::Truncated { expected, found }) =
        reference::ours(&file, Strictness::Reference)
        && expected - found <= MAX_DATA
    {
        file.resize(file.len() + (expected - found) as usize, 0);
    }
    file
}
