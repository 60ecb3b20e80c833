//! Paths that cannot be opened, and folders whose index and shards disagree → the exact error.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{file_bytes, sizes, write_checkpoint, write_index};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::{TempDir, tempdir};
use windlass_core::{Checkpoint, Control, Error, FormatError, IndexError, Result, Strictness};

fn open_file(path: &Path) -> Result<Checkpoint> {
    Checkpoint::open_file(path, Strictness::Reference)
}

fn open_index(path: &Path) -> Result<Checkpoint> {
    Checkpoint::open_index(path, Strictness::Reference, &Control::default())
}

/// Both ways of opening.
const OPENERS: [fn(&Path) -> Result<Checkpoint>; 2] = [open_file, open_index];

#[test]
fn a_missing_file_is_not_found() {
    let folder = tempdir().unwrap();
    let (missing, dangling) = (folder.path().join("missing"), folder.path().join("dangling"));
    symlink(&missing, &dangling).unwrap();
    for open in OPENERS {
        for expected in [&missing, &dangling] {
            let error = open(expected).unwrap_err();
            assert!(
                matches!(error, Error::NotFound { path, index: None, .. } if path == *expected)
            );
        }
    }
}

#[test]
fn a_shard_that_is_missing_names_the_index_that_lists_it() {
    let folder = tempdir().unwrap();
    let expected = write_index(folder.path(), &json!({"w": "sub/gone.safetensors"}));
    let error = open_index(&expected).unwrap_err();
    let Error::NotFound { path, index: Some(index), .. } = error else { panic!("{error}") };
    assert_eq!(path, folder.path().join("sub/gone.safetensors"));
    assert_eq!(index, expected);
}

#[test]
fn an_index_of_another_form_is_refused() {
    let unsafe_name = |shard: &str, reason| IndexError::UnsafeShardName {
        tensor: "w".to_owned(),
        shard: shard.to_owned(),
        reason,
    };
    let reasons = [
        ("", "is empty"),
        ("/etc/passwd", "is absolute"),
        ("..", "leaves the folder by `..`"),
        ("../a", "leaves the folder by `..`"),
        ("sub/../../a", "leaves the folder by `..`"),
        ("sub/..", "leaves the folder by `..`"),
        ("C:a", "begins with a drive letter"),
        ("c:/a", "begins with a drive letter"),
        (r"..\a", "contains a backslash"),
        (r"\\server\share", "contains a backslash"),
        ("a\0", "contains a NUL byte"),
    ];
    for (shard, reason) in reasons {
        let text = json!({"weight_map": {"w": shard, "v": "fine"}}).to_string();
        assert_eq!(index_error(&text), unsafe_name(shard, reason));
    }
    let (tensor, first, second) = ("w".to_owned(), "a".to_owned(), "b".to_owned());
    let twice = IndexError::ListedTwice { tensor, first, second };
    assert_eq!(index_error(r#"{"weight_map":{"w":"a","v":"b","w":"b"}}"#), twice);
    for text in [" ", "[]", "{}", "[{}, null]", "{} {}", r#"{"weight_map":{},"weight_map":{}}"#] {
        assert!(matches!(index_error(text), IndexError::Json { .. }), "{text}");
    }
}

#[test]
fn an_index_that_is_empty_or_a_git_lfs_pointer_is_called_so() {
    let folder = tempdir().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (text, expected) in [("", FormatError::Empty), (pointer, FormatError::GitLfsPointer)] {
        fs::write(&index, text).unwrap();
        let error = open_index(&index).unwrap_err();
        assert!(matches!(&error, Error::Format { source, .. } if *source == expected), "{error}");
    }
}

fn index_error(text: &str) -> IndexError {
    let folder = tempdir().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, text).unwrap();
    match open_index(&index).unwrap_err() {
        Error::Index { path, source } if path == index => source,
        other => panic!("{other}"),
    }
}

/// Two shards, `a` with t0 to t3, `b` with u0 and u1, under an index with this `weight_map`.
fn two_shards(weight_map: &serde_json::Value) -> (TempDir, Result<Checkpoint>) {
    let folder = tempdir().unwrap();
    let shards = [("a", sizes("t", 4, &[4])), ("b", sizes("u", 2, &[4]))];
    write_checkpoint(folder.path(), &shards);
    let index = write_index(folder.path(), weight_map);
    let opened = open_index(&index);
    (folder, opened)
}

#[test]
fn a_tensor_that_its_shard_lacks_is_named_with_the_shard() {
    let (_folder, opened) = two_shards(&json!({"t0": "a", "u0": "a", "u1": "b"}));
    let Err(Error::ListedButAbsent { tensor, shard }) = opened else { panic!("{opened:?}") };
    assert_eq!((tensor.as_str(), shard.as_str()), ("u0", "a"));
}

#[test]
fn tensors_that_the_index_does_not_list_are_told_by_shard_and_offset() {
    let (_folder, opened) = two_shards(&json!({"u1": "b", "t0": "a"}));
    let checkpoint = opened.unwrap();
    let unlisted = checkpoint.unlisted().iter();
    let unlisted: Vec<_> =
        unlisted.map(|u| (u.tensor.as_str(), checkpoint.shards()[u.shard].name.as_str())).collect();
    assert_eq!(unlisted, [("t1", "a"), ("t2", "a"), ("t3", "a"), ("u0", "b")]);
    assert_eq!(checkpoint.tensors().len(), 2);
}

#[test]
fn a_tensor_in_two_shards_is_named_with_both() {
    let listed_and_not = json!({"x0": "a", "y0": "b", "y1": "b"});
    let listed_nowhere = json!({"y0": "b", "z0": "a"});
    for (weight_map, tensor) in [(listed_and_not, "x0"), (listed_nowhere, "x0")] {
        let folder = tempdir().unwrap();
        let (x, y, z) = (sizes("x", 1, &[4]), sizes("y", 2, &[4]), sizes("z", 1, &[4]));
        let shards = [("a", [x.clone(), z].concat()), ("b", [x, y].concat())];
        write_checkpoint(folder.path(), &shards);
        let error = open_index(&write_index(folder.path(), &weight_map)).unwrap_err();
        let Error::InTwoShards { tensor: found, mut first, mut second } = error else {
            panic!("{error}")
        };
        if first > second {
            std::mem::swap(&mut first, &mut second);
        }
        assert_eq!([found, first, second], [tensor, "a", "b"]);
    }
}

#[test]
fn a_broken_shard_is_named_and_not_its_index() {
    let folder = tempdir().unwrap();
    let index = write_checkpoint(folder.path(), &[("a", sizes("t", 1, &[4]))]);
    fs::write(folder.path().join("a"), file_bytes("{}", b"x")).unwrap();
    let error = open_index(&index).unwrap_err();
    let Error::Format { path, source } = error else { panic!("{error}") };
    assert_eq!(path, folder.path().join("a"));
    assert_eq!(source, FormatError::TrailingBytes { expected: 10, found: 11 });
}

#[test]
fn opening_can_be_cancelled() {
    let folder = tempdir().unwrap();
    let index = write_checkpoint(folder.path(), &[("a", sizes("t", 1, &[4]))]);
    let control = Control::default();
    control.cancel();
    let error = Checkpoint::open_index(&index, Strictness::Reference, &control).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
}

#[test]
fn an_index_without_tensors_is_an_empty_checkpoint() {
    let folder = tempdir().unwrap();
    let checkpoint = open_index(&write_index(folder.path(), &json!({}))).unwrap();
    assert!(checkpoint.tensors().is_empty() && checkpoint.shards().is_empty());
}
