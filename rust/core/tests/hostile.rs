//! Malformed files → the exact error. Every row is a file on disk, opened as users open it.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::file_bytes;
use std::fs;
use windlass_core::{Checkpoint, Dtype, Error, FormatError, Strictness};

/// Opens a file of these bytes; the error must be about its format and name it.
fn open(bytes: &[u8], strictness: Strictness) -> Result<Checkpoint, FormatError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostile.safetensors");
    fs::write(&file, bytes).unwrap();
    Checkpoint::open_file(&file, strictness).map_err(|error| match error {
        Error::Format { path, source } if path == file => source,
        other => panic!("{other}"),
    })
}

fn refused(bytes: &[u8]) -> FormatError {
    let error = open(bytes, Strictness::Reference).unwrap_err();
    assert_eq!(open(bytes, Strictness::Strict).unwrap_err(), error, "strict mode agrees");
    error
}

fn prefix(text_len: u64, rest: &[u8]) -> Vec<u8> {
    [&text_len.to_le_bytes(), rest].concat()
}

#[test]
fn files_that_are_no_safetensors_are_refused_before_their_header_is_read() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let limit = 100_000_000;
    let rows = [
        (vec![], FormatError::Empty),
        (pointer.to_vec(), FormatError::GitLfsPointer),
        (vec![1], FormatError::TooShort { found: 1 }),
        (vec![0; 7], FormatError::TooShort { found: 7 }),
        (prefix(100_000_001, b"{}"), FormatError::HeaderTooLarge { found: 100_000_001, limit }),
        (prefix(u64::MAX, b""), FormatError::HeaderTooLarge { found: u64::MAX, limit }),
        (prefix(u64::MAX - 7, b""), FormatError::HeaderTooLarge { found: u64::MAX - 7, limit }),
        (prefix(limit, b"{}"), FormatError::HeaderTruncated { expected: 100_000_008, found: 10 }),
        (prefix(3, b"{}"), FormatError::HeaderTruncated { expected: 11, found: 10 }),
        (prefix(1, b"\xff"), FormatError::NotUtf8 { offset: 0 }),
        (prefix(6, b"{\"\xc3\":1"), FormatError::NotUtf8 { offset: 2 }),
    ];
    for (bytes, expected) in rows {
        assert_eq!(refused(&bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn files_of_other_formats_are_told_by_their_first_bytes() {
    let rows: [(&[u8], &str); 14] = [
        (b"GGUF\x03\0\0\0\x23\x01\0\0\0\0\0\0", "GGUF"),
        (b"PK\x03\x04\0\0\x08\x08\0\0\0\0", "zip"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"\x80\x04\x95\x1d\0\0\0\0\0\0\0}", "pickle"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "HDF5"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "numpy"),
        (b"\x1f\x8b\x08\x08\xd2\x04\x1a\x67\0\x03", "gzip"),
        (b"\x28\xb5\x2f\xfd\x04\x58\x19\0", "zstd"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"\n<html lang=\"en\">", "web page"),
        (b"{\"metadata\": {}, \"weight_map\"", "index"),
        (b"{\n  \"hidden_size\": 768", "JSON"),
        (b"Entry not found", "text"),
        (b"Invalid credentials", "text"),
    ];
    for (bytes, word) in rows {
        let FormatError::OtherFormat { found, .. } = refused(bytes) else {
            panic!("{}", bytes.escape_ascii())
        };
        assert!(found.contains(word), "{}: {found}", bytes.escape_ascii());
    }
}

#[test]
fn a_header_length_decides_no_allocation_beyond_the_file() {
    use windlass_core::header::text_len;
    let honest = prefix(92, b"");
    assert_eq!(text_len(&honest, 100), Ok(92));
    for stated in [93, 1 << 20, 100_000_000, 100_000_001, 1 << 40, u64::MAX] {
        assert!(text_len(&prefix(stated, b""), 100).is_err(), "{stated}");
    }
}

#[test]
fn headers_of_another_form_are_refused_in_the_parsers_words() {
    let deep = format!(r#"{{"w":{{"x":{}1{}}}}}"#, "[".repeat(127), "]".repeat(127));
    let rows = [
        ("", "EOF while parsing a value"),
        ("{", "EOF while parsing an object"),
        ("null", "expected a map of tensor names"),
        ("[]", "expected a map of tensor names"),
        ("{}\0", "trailing characters"),
        ("\u{feff}{}", "expected value"),
        (r#"{"w":7}"#, "tensor `w`: invalid type: integer `7`, expected a map of dtype"),
        (r#"{"w":["U8",[]]}"#, "expected dtype, shape, data_offsets"),
        (r#"{"w":["U8",[],[0,1],0]}"#, "trailing characters"),
        (r#"{"w":{"shape":[],"data_offsets":[0,1]}}"#, "tensor `w`: missing field `dtype`"),
        (r#"{"w":{"dtype":"U8","data_offsets":[0,1]}}"#, "tensor `w`: missing field `shape`"),
        (r#"{"w":{"dtype":"U8","shape":[]}}"#, "tensor `w`: missing field `data_offsets`"),
        (r#"{"w":{"dtype":"f32"}}"#, "tensor `w`: unknown dtype `f32`"),
        (r#"{"w":{"dtype":1}}"#, "expected a dtype name"),
        (r#"{"w":{"dtype":{"U8":{}}}}"#, "expected unit"),
        (r#"{"w":{"shape":[-1]}}"#, "expected u64"),
        (r#"{"w":{"shape":[1.0]}}"#, "expected u64"),
        (r#"{"w":{"shape":[18446744073709551616]}}"#, "expected u64"),
        (r#"{"w":{"shape":[],"shape":[]}}"#, "duplicate field `shape`"),
        (r#"{"w":{"data_offsets":[0]}}"#, "expected a tuple of size 2"),
        (r#"{"w":{"data_offsets":[0,1,2]}}"#, "trailing characters"),
        (r#"{"__metadata__":{"k":1}}"#, "expected a string"),
        (r#"{"__metadata__":[]}"#, "expected `__metadata__` to be a map of text to text"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, "duplicate field `__metadata__`"),
        (r#"{"\ud800":{}}"#, "hex escape"),
        (&deep, "recursion limit exceeded"),
    ];
    for (header, expected) in rows {
        let error = refused(&file_bytes(header, b""));
        let FormatError::Json { message } = &error else { panic!("{header}: {error}") };
        assert!(message.contains(expected), "{header}: {message}");
        assert!(message.contains("at line 1 column "), "{header}: {message}");
    }
}

/// A header of tensors given as name, dtype, shape, offsets.
fn header(tensors: &[(&str, &str, &str, &str)]) -> String {
    let entry = |(name, dtype, shape, offsets): &(_, _, _, _)| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn tensors_must_fill_the_data_section_in_order() {
    let offset = |expected, found| FormatError::Offset { tensor: "b".to_owned(), expected, found };
    let a = ("a", "U8", "[4]", "[0,4]");
    let rows = [
        (vec![("b", "U8", "[4]", "[1,5]")], offset(0, 1)),
        (vec![a, ("b", "U8", "[4]", "[5,9]")], offset(4, 5)),
        (vec![a, ("b", "U8", "[4]", "[3,7]")], offset(4, 3)),
        (vec![a, ("b", "U8", "[0]", "[2,2]")], offset(4, 2)),
        (vec![a, ("b", "U8", "[1]", "[9,8]")], offset(4, 9)),
        (
            vec![a, ("b", "U8", "[1]", "[4,3]")],
            FormatError::Backwards { tensor: "b".to_owned(), start: 4, end: 3 },
        ),
    ];
    for (tensors, expected) in rows {
        assert_eq!(refused(&file_bytes(header(&tensors), &[0; 9])), expected, "{tensors:?}");
    }
}

#[test]
fn of_two_entries_for_a_tensor_only_the_later_fills_the_data_section() {
    let (early, late) = (("w", "U8", "[4]", "[0,4]"), ("w", "I8", "[2]", "[0,2]"));
    let text = header(&[early, late]);
    let opened = open(&file_bytes(&text, &[0; 2]), Strictness::Reference).unwrap();
    assert_eq!(opened.tensors()["w"].dtype, Dtype::I8);
    let error = open(&file_bytes(&text, &[0; 4]), Strictness::Reference).unwrap_err();
    assert!(matches!(error, FormatError::TrailingBytes { .. }), "{error}");
}

#[test]
fn offsets_must_agree_with_dtype_and_shape() {
    let tensor = || "w".to_owned();
    let size = |dtype, shape: &[u64], expected, found| FormatError::Size {
        tensor: tensor(),
        dtype,
        shape: shape.to_vec(),
        expected,
        found,
    };
    let overflow = |dtype, shape: &[u64]| FormatError::Overflow {
        tensor: tensor(),
        dtype,
        shape: shape.to_vec(),
    };
    let part = |dtype, shape: &[u64]| FormatError::PartOfAByte {
        tensor: tensor(),
        dtype,
        shape: shape.to_vec(),
    };
    let huge = 1 << 63;
    let rows = [
        ("F32", "[4,8]", "[0,120]", size(Dtype::F32, &[4, 8], 128, 120)),
        ("F32", "[]", "[0,0]", size(Dtype::F32, &[], 4, 0)),
        ("U8", "[0]", "[0,1]", size(Dtype::U8, &[0], 0, 1)),
        ("U8", "[9223372036854775808,2]", "[0,0]", overflow(Dtype::U8, &[huge, 2])),
        ("U8", "[9223372036854775808,2,0]", "[0,0]", overflow(Dtype::U8, &[huge, 2, 0])),
        ("U8", "[9223372036854775808]", "[0,0]", overflow(Dtype::U8, &[huge])),
        ("F64", "[288230376151711744]", "[0,0]", overflow(Dtype::F64, &[1 << 58])),
        ("F4", "[3]", "[0,1]", part(Dtype::F4, &[3])),
        ("F6_E2M3", "[2,1]", "[0,2]", part(Dtype::F6E2M3, &[2, 1])),
    ];
    for (dtype, shape, offsets, expected) in rows {
        let file = file_bytes(header(&[("w", dtype, shape, offsets)]), &[0; 120]);
        assert_eq!(refused(&file), expected, "{dtype} {shape} {offsets}");
    }
}

#[test]
fn the_file_must_end_with_its_last_tensor() {
    let text = header(&[("w", "U8", "[4]", "[0,4]")]);
    let expected = 8 + text.len() as u64 + 4;
    for data_len in 0..4 {
        let found = expected - 4 + data_len as u64;
        let error = refused(&file_bytes(&text, &[0; 4][..data_len]));
        assert_eq!(error, FormatError::Truncated { expected, found });
    }
    let error = refused(&file_bytes(&text, &[0; 5]));
    assert_eq!(error, FormatError::TrailingBytes { expected, found: expected + 1 });
    let error = refused(&file_bytes("{}", b"x"));
    assert_eq!(error, FormatError::TrailingBytes { expected: 10, found: 11 });
}

#[test]
fn an_end_of_file_beyond_64_bits_is_not_taken_for_a_small_one() {
    // The largest tensor has 2^61 - 1 bytes; eight of them end 8 bytes below 2^64.
    let len = (1_u64 << 61) - 1;
    let texts = (0..8).map(|i| [format!("t{i}"), format!("[{len}]"), offsets(i * len, len)]);
    let texts: Vec<[String; 3]> = texts.collect();
    let tensors: Vec<_> =
        texts.iter().map(|[name, shape, offsets]| (&**name, "U8", &**shape, &**offsets)).collect();
    let text = header(&tensors);
    let found = 8 + text.len() as u64;
    let error = refused(&file_bytes(text, b""));
    assert_eq!(error, FormatError::Truncated { expected: u64::MAX, found });
}

fn offsets(start: u64, len: u64) -> String {
    format!("[{start},{}]", start + len)
}

#[test]
fn only_strict_mode_refuses_what_the_reference_lets_through() {
    let duplicate = |key: &str| FormatError::StrictDuplicate { key: key.to_owned() };
    let unknown = FormatError::StrictUnknownField { tensor: "w".into(), field: "extra".into() };
    let w = r#""w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    let rows = [
        (format!(" {{{w}}}"), FormatError::StrictStart { found: ' ' }),
        (format!("\n{{{w}}}"), FormatError::StrictStart { found: '\n' }),
        (format!("{{{w},{w}}}"), duplicate("w")),
        (format!(r#"{{{w},"__metadata__":{{"k":"1","j":"","k":"2"}}}}"#), duplicate("k")),
        (format!("{{{}}}", w.replace("[4]", r#"[4],"extra":{"deep":[null]}"#)), unknown),
    ];
    for (text, expected) in rows {
        let file = file_bytes(&text, &[0; 4]);
        assert_eq!(open(&file, Strictness::Strict).unwrap_err(), expected, "{text}");
        let lenient = open(&file, Strictness::Reference).unwrap();
        assert_eq!(lenient.tensors()["w"].shape, [4], "{text}");
    }
}

#[test]
fn odd_but_allowed_headers_are_accepted_by_both_modes() {
    for text in ["{}", "{}   ", "{ }\n", r#"{"__metadata__":null}"#, r#"{"__metadata__":{}}"#] {
        assert!(open(&file_bytes(text, b""), Strictness::Strict).is_ok(), "{text}");
    }
    for (name, dtype, shape) in [("", "U8", "[4]"), (r"\u0000", "F32", "[]"), ("é", "F4", "[8]")] {
        let file = file_bytes(header(&[(name, dtype, shape, "[0,4]")]), &[0; 4]);
        assert!(open(&file, Strictness::Strict).is_ok(), "{name}");
    }
}
