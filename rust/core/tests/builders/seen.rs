//! What three readers find in a folder, judged by the values: did they see a mixture?

use super::naive_read;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Another name of the index, which some readers know and no save of ours writes.
pub(crate) const FOREIGN_INDEX: &str = "model.safetensors.index.foreign.json";

/// What one reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No checkpoint, or none that this reader could choose.
    Nothing,
    /// A checkpoint in which every byte of every tensor is this.
    Whole(u8),
    /// Anything else.
    Broken(String),
}

/// What each of the readers finds.
pub(crate) fn all_see(folder: &Path) -> [Seen; 3] {
    [transformers_sees(folder), hub_sees(folder), windlass_sees(folder)]
}

/// The single file, else the index.
fn transformers_sees(folder: &Path) -> Seen {
    if folder.join(SINGLE).exists() { single(folder, SINGLE) } else { indexed(folder, INDEX) }
}

/// What a reader finds that knows the index by its foreign name only: transformers, of a variant.
pub(crate) fn foreign_sees(folder: &Path) -> Seen {
    let has_single = folder.join(SINGLE).exists();
    if has_single { single(folder, SINGLE) } else { indexed(folder, FOREIGN_INDEX) }
}

/// The index, else the only weights file.
fn hub_sees(folder: &Path) -> Seen {
    if folder.join(INDEX).exists() {
        return indexed(folder, INDEX);
    }
    let weights: Vec<_> =
        list(folder).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    if let [only] = &*weights { single(folder, only) } else { Seen::Nothing }
}

/// The index by either name, else the single file.
fn windlass_sees(folder: &Path) -> Seen {
    let index = [INDEX, FOREIGN_INDEX].into_iter().find(|name| folder.join(name).exists());
    index.map_or_else(|| single(folder, SINGLE), |name| indexed(folder, name))
}

fn single(folder: &Path, name: &str) -> Seen {
    let path = folder.join(name);
    if path.exists() { judge(&naive_read(&path)) } else { Seen::Nothing }
}

fn indexed(folder: &Path, index: &str) -> Seen {
    let Some(weight_map) = weight_map_of(&folder.join(index)) else {
        return Seen::Nothing;
    };
    let mut tensors = BTreeMap::new();
    for (tensor, file) in weight_map {
        let path = folder.join(&file);
        if !path.exists() {
            return Seen::Broken(format!("the index names `{file}`, which is not there"));
        }
        let Some(bytes) = naive_read(&path).remove(&tensor) else {
            return Seen::Broken(format!("`{file}` has no `{tensor}`"));
        };
        tensors.insert(tensor, bytes);
    }
    judge(&tensors)
}

fn judge(tensors: &BTreeMap<String, Vec<u8>>) -> Seen {
    let values: BTreeSet<u8> = tensors.values().flatten().copied().collect();
    let names: Vec<_> = tensors.keys().collect();
    match Vec::from_iter(values)[..] {
        [value] if names == super::saving::NAMES => Seen::Whole(value),
        ref values => Seen::Broken(format!("{names:?} with the values {values:?}")),
    }
}

/// Tensor → file, as the index of a folder says.
pub(crate) fn weight_map(folder: &Path) -> Option<BTreeMap<String, String>> {
    weight_map_of(&folder.join(INDEX))
}

fn weight_map_of(index: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read(index).ok()?;
    let mut index: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(index["weight_map"].take()).unwrap()
}

/// Names in a folder, in order.
pub(crate) fn list(folder: &Path) -> BTreeSet<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect()
}
