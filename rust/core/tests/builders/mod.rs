//! Small checkpoints on disk, and a reader that is obviously right.

#![allow(dead_code, reason = "each test file uses a part of these")]

pub(crate) mod faulty_disk;
pub(crate) mod refusing_disk;
pub(crate) mod saving;
pub(crate) mod scenes;
pub(crate) mod seen;
pub(crate) mod strided;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use windlass_core::{Checkpoint, Control, Strictness};

/// Name and size in bytes of each tensor of a file, in the order of their bytes.
pub(crate) type Sizes = Vec<(String, usize)>;

/// A file: header length, header text, data.
pub(crate) fn file_bytes(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// `count` tensors `{prefix}0`, `{prefix}1`, … with these sizes, over and over.
pub(crate) fn sizes(prefix: &str, count: usize, sizes: &[usize]) -> Sizes {
    (0..count).map(|i| (format!("{prefix}{i}"), sizes[i % sizes.len()])).collect()
}

/// A file of U8 tensors, filled with bytes that differ from place to place.
pub(crate) fn shard_bytes(tensors: &[(String, usize)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, len) in tensors {
        let start = end;
        end += len;
        let entry = json!({"dtype": "U8", "shape": [len], "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let salt = tensors.first().map_or(0, |(name, _)| name.len());
    let byte = |i| u8::try_from((i + salt) * 167 / 13 % 251).unwrap();
    let data: Vec<u8> = (0..end).map(byte).collect();
    file_bytes(Value::from(header).to_string(), &data)
}

/// Writes shards, in subfolders where their names say so, and the index that lists all of them.
pub(crate) fn write_checkpoint(folder: &Path, shards: &[(&str, Sizes)]) -> PathBuf {
    let mut weight_map = serde_json::Map::new();
    for (shard, tensors) in shards {
        let path = folder.join(shard);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, shard_bytes(tensors)).unwrap();
        weight_map.extend(tensors.iter().map(|(name, _)| (name.clone(), json!(shard))));
    }
    write_index(folder, &weight_map.into())
}

/// A checkpoint of such shards, opened, in a folder that is removed with the first value.
pub(crate) fn open_new(shards: &[(&str, Sizes)]) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let index = write_checkpoint(folder.path(), shards);
    let opened = Checkpoint::open_index(&index, Strictness::Strict, &Control::default());
    (folder, opened.unwrap())
}

/// Writes an index with this `weight_map`.
pub(crate) fn write_index(folder: &Path, weight_map: &Value) -> PathBuf {
    let path = folder.join("model.safetensors.index.json");
    fs::write(&path, json!({"weight_map": weight_map}).to_string()).unwrap();
    path
}

/// The whole file, its header as plain JSON, slices: the twin of every fast path.
pub(crate) fn naive_read(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::read(path).unwrap();
    let text_len = usize::from_le_bytes(file[..8].try_into().unwrap());
    let (header, data) = file[8..].split_at(text_len);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let offset = |entry: &Value, i: usize| -> usize {
        serde_json::from_value(entry["data_offsets"][i].clone()).unwrap()
    };
    let slice = |entry: &Value| data[offset(entry, 0)..offset(entry, 1)].to_vec();
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    tensors.map(|(name, entry)| (name.clone(), slice(entry))).collect()
}
