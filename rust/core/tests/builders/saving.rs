//! Small checkpoints, saved by windlass: six tensors, all bytes of which are one value.

use super::faulty_disk::FaultyDisk;
use super::seen::{FOREIGN_INDEX, INDEX, SINGLE};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use windlass_core::save::{IndexTexts, NewFile, Part};
use windlass_core::{Control, Dtype, Family, Header, NewTensor, Result, Save, SaveOptions, Source};

/// Names of the tensors.
pub(crate) const NAMES: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];

/// Bytes of each tensor.
pub(crate) const TENSOR_LEN: usize = 3;

pub(crate) fn family() -> Family {
    let (prefix, suffix) = ("model".to_owned(), ".safetensors".to_owned());
    let (index, foreign_index) = (INDEX.to_owned(), Some(FOREIGN_INDEX.to_owned()));
    Family { prefix, suffix, index, foreign_index }
}

pub(crate) fn options(disk: Arc<FaultyDisk>, durable: bool) -> SaveOptions {
    SaveOptions { disk, durable, lock_timeout: Duration::from_secs(60), ..SaveOptions::default() }
}

/// Names of the files of a checkpoint of `count` files.
pub(crate) fn file_names(count: usize) -> Vec<String> {
    let shard = |number| format!("model-{number:05}-of-{count:05}.safetensors");
    if count == 1 { vec![SINGLE.to_owned()] } else { (1..=count).map(shard).collect() }
}

/// Saves the tensors, dealt out to `count` files.
pub(crate) fn save(folder: &Path, count: usize, value: u8, options: SaveOptions) -> Result<()> {
    let names = file_names(count);
    let files = names.iter().enumerate().map(|(i, name)| {
        let tensors = NAMES.iter().skip(i).step_by(count);
        new_file(name, tensors.map(|tensor| new_tensor(tensor, TENSOR_LEN as u64)).collect())
    });
    let control = Control::default();
    let save = Save::folder(folder, family(), files.collect(), options, &control)?;
    let bytes = [value; TENSOR_LEN];
    let part = |(i, name): (usize, &&str)| {
        let file = i % count;
        let tensor = save.position(file, name).unwrap();
        Part { file, tensor, start: 0, source: Source::from_slice(&bytes).into() }
    };
    save.write(NAMES.iter().enumerate().map(part).collect(), 1, &control)?;
    let work = save.work_name().unwrap();
    let interim = index(&names, |name| format!("{work}/{name}"));
    let last = index(&names, str::to_owned);
    save.commit(&IndexTexts { interim, last }, &control)
}

pub(crate) fn new_tensor(name: &str, len: u64) -> NewTensor {
    NewTensor { name: name.to_owned(), dtype: Dtype::U8, shape: vec![len] }
}

pub(crate) fn new_file(name: &str, tensors: Vec<NewTensor>) -> NewFile {
    let header = Header::lay_out(tensors, None).unwrap();
    NewFile::of_tensors(name.to_owned(), header, false).unwrap()
}

/// The text of an index, in which `called` says what the files are called.
pub(crate) fn index(names: &[String], called: impl Fn(&str) -> String) -> Vec<u8> {
    let file = |(i, tensor): (usize, &&str)| {
        ((*tensor).to_owned(), Value::from(called(&names[i % names.len()])))
    };
    let weight_map: Map<String, Value> = NAMES.iter().enumerate().map(file).collect();
    json!({"metadata": {"total_size": 18}, "weight_map": weight_map}).to_string().into_bytes()
}

/// Saves the tensors to one file, whatever else is in its folder.
pub(crate) fn save_file(path: &Path, value: u8, options: SaveOptions) -> Result<()> {
    let tensors = NAMES.iter().map(|name| new_tensor(name, TENSOR_LEN as u64)).collect();
    let save = Save::file(path, new_file("", tensors), options)?;
    let bytes = [value; TENSOR_LEN];
    let part =
        |tensor| Part { file: 0, tensor, start: 0, source: Source::from_slice(&bytes).into() };
    save.write((0..NAMES.len()).map(part).collect(), 1, &Control::default())?;
    save.commit(&IndexTexts::default(), &Control::default())
}
