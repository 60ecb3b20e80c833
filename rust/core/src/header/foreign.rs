//! Which other format a file seems to be of, by its first bytes. Pure.

use crate::error::FormatError;

/// How a format begins, what it is called, and what its user can do.
struct Format {
    magic: &'static [u8],
    found: &'static str,
    advice: &'static str,
}

/// What people hand over instead of safetensors.
const FORMATS: [Format; 9] = [
    Format { magic: b"GGUF", found: "GGUF (llama.cpp)", advice: CONVERT },
    Format {
        magic: b"PK\x03\x04",
        found: "a zip archive, such as torch.save writes",
        advice: PICKLE,
    },
    Format {
        magic: b"\x80\x02",
        found: "a pickle, such as torch.save used to write",
        advice: PICKLE,
    },
    Format { magic: b"\x80\x04\x95", found: "a pickle of Python", advice: PICKLE },
    Format { magic: b"\x80\x05\x95", found: "a pickle of Python", advice: PICKLE },
    Format { magic: b"\x89HDF\r\n\x1a\n", found: "HDF5 (Keras, TensorFlow)", advice: CONVERT },
    Format { magic: b"\x93NUMPY", found: "an array of numpy (.npy)", advice: CONVERT },
    Format { magic: b"\x1f\x8b", found: "gzip", advice: UNPACK },
    Format { magic: b"\x28\xb5\x2f\xfd", found: "zstd", advice: UNPACK },
];

/// Files that are text, by the first character that is no space.
const TEXTS: [Format; 3] = [
    Format { magic: b"{", found: "JSON, such as an index", advice: INDEX },
    Format { magic: b"<", found: "a web page", advice: DOWNLOAD },
    Format { magic: b"", found: "text", advice: DOWNLOAD },
];

const CONVERT: &str = "convert it to safetensors with the software that it is for";
const PICKLE: &str =
    "load it with `load_torch_model(..., safe=False)` or torch.load, and save it again";
const UNPACK: &str = "unpack it first";
const DOWNLOAD: &str =
    "the download brought an error or a login page instead of the weights: repeat it";
const INDEX: &str = "to load a sharded checkpoint give its folder, or the index by its full name";

/// Says what a file seems to be whose first bytes are the length of no header: they are asked
/// only then, so that no weights file is mistaken for something else.
pub(super) fn recognise(start: &[u8]) -> Option<FormatError> {
    let is_text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let text = || find(&TEXTS, start.trim_ascii_start()).filter(|_| is_text);
    let format = find(&FORMATS, start).or_else(text)?;
    Some(FormatError::OtherFormat { found: format.found, advice: format.advice })
}

fn find<'f>(formats: &'f [Format], start: &[u8]) -> Option<&'f Format> {
    formats.iter().find(|format| start.starts_with(format.magic))
}
