//! Every message says what, where, expected and found: the words that users see, in one table.

use std::io;
use std::path::PathBuf;
use windlass_core::{Dtype, Error, FormatError, IndexError};

fn path() -> PathBuf {
    PathBuf::from("m/a.safetensors")
}

fn name() -> String {
    "h.3.w".to_owned()
}

fn source() -> io::Error {
    io::Error::other("the system's words")
}

#[test]
fn errors_of_the_format_give_tensor_expected_and_found() {
    let (dtype, shape) = (Dtype::F32, vec![4, 8]);
    let rows = [
        (FormatError::Empty, "the file is empty (0 bytes)"),
        (FormatError::GitLfsPointer, "git-lfs pointer, not the weights; run `git lfs pull`"),
        (
            FormatError::OtherFormat { found: "GGUF", advice: "convert it" },
            "this is no safetensors file: it begins as GGUF does; convert it",
        ),
        (FormatError::TooShort { found: 3 }, "at least 8 bytes for the header length, found 3"),
        (
            FormatError::HeaderTooLarge { found: 100_000_001, limit: 100_000_000 },
            "header length 100000001 is over the format's limit of 100000000 bytes",
        ),
        (
            FormatError::HeaderTruncated { expected: 11, found: 10 },
            "the header should end at byte 11, the file has 10 bytes",
        ),
        (FormatError::NotUtf8 { offset: 2 }, "not UTF-8 (first bad byte at 2)"),
        (FormatError::Json { message: "its words".into() }, "the header is not valid: its words"),
        (
            FormatError::Offset { tensor: name(), expected: 4, found: 5 },
            "tensor `h.3.w`: data should start at offset 4, header gives 5",
        ),
        (
            FormatError::Backwards { tensor: name(), start: 4, end: 3 },
            "tensor `h.3.w`: data offsets [4, 3] run backwards",
        ),
        (
            FormatError::Size { tensor: name(), dtype, shape, expected: 128, found: 120 },
            "tensor `h.3.w`: F32 [4, 8] needs 128 bytes, header gives 120",
        ),
        (
            FormatError::Overflow { tensor: name(), dtype, shape: vec![u64::MAX] },
            "tensor `h.3.w`: the size of F32 [18446744073709551615] overflows 64 bits",
        ),
        (
            FormatError::PartOfAByte { tensor: name(), dtype: Dtype::F4, shape: vec![3] },
            "tensor `h.3.w`: F4 [3] does not fill whole bytes",
        ),
        (
            FormatError::Truncated { expected: 9, found: 8 },
            "truncated: the header describes 9 bytes, the file has 8",
        ),
        (
            FormatError::TrailingBytes { expected: 8, found: 9 },
            "bytes after the last tensor: the header describes 8, the file has 9",
        ),
        (FormatError::StrictStart { found: '\n' }, r"should begin with `{`, found '\n'"),
        (FormatError::StrictDuplicate { key: name() }, "key `h.3.w` stands twice"),
        (
            FormatError::StrictUnknownField { tensor: name(), field: "extra".into() },
            "tensor `h.3.w` has an unknown field `extra`",
        ),
    ];
    for (error, expected) in rows {
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
        let in_file = Error::Format { path: path(), source: error };
        assert_eq!(in_file.to_string(), format!("`m/a.safetensors`: {message}"));
    }
}

#[test]
fn errors_of_the_index_give_tensor_and_shards() {
    let rows = [
        (IndexError::Json { message: "its words".into() }, "not a checkpoint index: its words"),
        (
            IndexError::UnsafeShardName {
                tensor: name(),
                shard: "/a".into(),
                reason: "is absolute",
            },
            "tensor `h.3.w`: shard name `/a` is absolute",
        ),
        (
            IndexError::ListedTwice { tensor: name(), first: "1".into(), second: "2".into() },
            "tensor `h.3.w` is listed twice, in `1` and in `2`",
        ),
    ];
    for (error, expected) in rows {
        assert_eq!(error.to_string(), expected);
        let in_file = Error::Index { path: path(), source: error };
        assert_eq!(in_file.to_string(), format!("`m/a.safetensors`: {expected}"));
    }
}

#[test]
fn errors_of_files_give_path_tensor_expected_and_found() {
    let (path, source) = (path(), source());
    let rows: [(Error, &str); 7] = [
        (
            Error::NotFound { path: path.clone(), index: None, source: io::Error::other("") },
            "`m/a.safetensors`: no such file",
        ),
        (
            Error::NotFound {
                path: path.clone(),
                index: Some("m/index.json".into()),
                source: io::Error::other(""),
            },
            "`m/a.safetensors`: no such file (listed in `m/index.json`)",
        ),
        (
            Error::PermissionDenied { path: path.clone(), source: io::Error::other("") },
            "`m/a.safetensors`: permission denied",
        ),
        (
            Error::NotAFile { path: path.clone(), kind: "FIFO" },
            "`m/a.safetensors`: expected a regular file, found a FIFO",
        ),
        (
            Error::Io { path: path.clone(), tensor: Some(name()), action: "reading", source },
            "`m/a.safetensors`, tensor `h.3.w`: reading failed: the system's words",
        ),
        (
            Error::Replaced {
                path: path.clone(),
                expected: "8 bytes".into(),
                found: "9 bytes".into(),
            },
            "`m/a.safetensors`: the file was replaced or changed, or its time set, \
             since it was opened: expected 8 bytes, found 9 bytes",
        ),
        (
            Error::Shrunk { path, tensor: name(), expected: 9, found: 8 },
            "`m/a.safetensors`: the file shrank while it was read: \
             tensor `h.3.w` should end at byte 9, the file has 8",
        ),
    ];
    for (error, expected) in rows {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn errors_of_requests_give_tensor_expected_and_found() {
    let rows = [
        (
            Error::ListedButAbsent { tensor: name(), shard: "a".into() },
            "tensor `h.3.w` is listed in the index as part of `a`, which does not hold it",
        ),
        (
            Error::InTwoShards { tensor: name(), first: "a".into(), second: "b".into() },
            "tensor `h.3.w` is in two shards, `a` and `b`",
        ),
        (
            Error::TensorNotFound { tensor: name(), path: path() },
            "no tensor `h.3.w` in `m/a.safetensors`",
        ),
        (
            Error::DestinationSize { tensor: name(), expected: 8, found: 9 },
            "tensor `h.3.w`: destination should have 8 bytes, has 9",
        ),
        (
            Error::CutOutside { tensor: name(), shape: vec![2, 3], byte_len: 24 },
            "tensor `h.3.w`: a cut leaves the shape [2, 3] of 24 bytes",
        ),
        (
            Error::NoCast { tensor: name(), from: Dtype::F32, to: Dtype::C64 },
            "tensor `h.3.w`: F32 cannot be cast to C64 in memory of that kind",
        ),
        (
            Error::RangeOutside { tensor: name(), start: 1, end: 9, byte_len: 8 },
            "tensor `h.3.w`: bytes 1..9 are outside its 8 bytes",
        ),
        (
            Error::UnequalLists { names: 3, dests: 2, starts: Some(1) },
            "expected as many destinations (and starts) as names: \
             3 names, 2 destinations, 1 starts",
        ),
        (Error::Cancelled, "cancelled"),
        (
            Error::Panicked { message: "its words".into() },
            "a worker thread panicked (this is a bug in windlass): its words",
        ),
    ];
    for (error, expected) in rows {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_systems_error_is_kept_as_the_source() {
    use std::error::Error as _;
    let errors = [
        Error::NotFound { path: path(), index: None, source: source() },
        Error::PermissionDenied { path: path(), source: source() },
        Error::Io { path: path(), tensor: None, action: "opening", source: source() },
    ];
    for error in errors {
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the system's words"));
    }
}
