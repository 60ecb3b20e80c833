//! Properties of saves on generated tensors: what is written is what safetensors would write and
//! what everybody reads, however it was split, and however few bytes the disk took at a time.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::faulty_disk::FaultyDisk;
use builders::saving::{family, file_names, options};
use builders::scenes::temporary_folder;
use builders::seen::INDEX;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use windlass_core::save::{CHECKSUM_KEY, IndexTexts, NewFile, Part};
use windlass_core::{Checkpoint, Control, Dest, Dtype, Header, Job, NewTensor, ReadOptions};
use windlass_core::{Save, SaveOptions, Source, Strictness, tensor::byte_len};

/// A tensor with its bytes, and where these are cut into parts.
#[derive(Clone, Debug)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
    cuts: Vec<Choice>,
}

type Tensors = BTreeMap<String, Tensor>;

/// How to save.
#[derive(Clone, Debug)]
struct How {
    threads: usize,
    durable: bool,
    checksums: bool,
    write_limit: usize,
    /// Length of blocks, as durable saves are told; `None`: those of the disk.
    block: Option<usize>,
    /// Which part comes first, and in how many calls all of them come.
    turn: Choice,
    calls: usize,
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let length = prop_oneof![0..4_u64, Just(1), 5..40_u64];
    let cuts = vec(any::<Choice>(), 0..4);
    let parts = (select(Dtype::ALL), vec(length, 0..3), cuts, any::<u8>());
    parts.prop_map(|(dtype, mut shape, cuts, salt)| {
        if dtype.bits() < 8 {
            shape.push(4); // Four elements of 4 or 6 bits fill whole bytes.
        }
        let len = usize::try_from(byte_len(dtype, &shape).unwrap()).unwrap();
        let byte = |i: usize| u8::try_from((i * 167 / 13 + usize::from(salt)) % 251).unwrap();
        Tensor { dtype, shape, bytes: (0..len).map(byte).collect(), cuts }
    })
}

fn any_tensors() -> impl Strategy<Value = Tensors> {
    let name = prop_oneof!["[a-z0-9.]{1,12}", r#"["\\/é😀]{1,6}"#];
    btree_map(name, any_tensor(), 0..8)
}

fn any_how() -> impl Strategy<Value = How> {
    let write_limit = prop_oneof![1..9_usize, Just(usize::MAX)];
    let block = prop_oneof![Just(None), (0..8_u32).prop_map(|bits| Some(1 << bits))];
    let order = (any::<Choice>(), 1..4_usize);
    let switches = (any::<bool>(), any::<bool>());
    (1..9_usize, switches, write_limit, block, order).prop_map(
        |(threads, (durable, checksums), write_limit, block, (turn, calls))| How {
            threads,
            durable,
            checksums,
            write_limit,
            block,
            turn,
            calls,
        },
    )
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

impl How {
    fn options(&self) -> SaveOptions {
        let mut disk = FaultyDisk::faultless(true);
        disk.write_limit = self.write_limit;
        disk.block = self.block;
        options(Arc::new(disk), self.durable)
    }

    fn new_file(&self, name: &str, tensors: &Tensors, metadata: &[(String, String)]) -> NewFile {
        let new = |(name, tensor): (&String, &Tensor)| {
            let (name, shape) = (name.clone(), tensor.shape.clone());
            NewTensor { name, dtype: tensor.dtype, shape }
        };
        let metadata = (!metadata.is_empty()).then(|| metadata.iter().cloned().collect());
        let header = Header::lay_out(tensors.iter().map(new).collect(), metadata).unwrap();
        NewFile::of_tensors(name.to_owned(), header, self.checksums).unwrap()
    }

    /// Writes the parts of all files in an order of its own, in several calls.
    fn write(&self, save: &Save, files: &[Tensors]) {
        let mut parts = Vec::new();
        for (file, tensors) in files.iter().enumerate() {
            for (name, tensor) in tensors {
                parts.extend(tensor.parts(file, save.position(file, name).unwrap()));
            }
        }
        if !parts.is_empty() {
            let first = self.turn.index(parts.len());
            parts.rotate_left(first);
        }
        let control = Control::default();
        let total = parts.iter().map(|part| part.source.len() as u64).sum::<u64>();
        for call in parts.chunks(parts.len().div_ceil(self.calls).max(1)) {
            save.write(call.to_vec(), self.threads, &control).unwrap();
        }
        assert_eq!(control.bytes(), total, "progress counts every byte once");
    }
}

impl Tensor {
    fn parts(&self, file: usize, tensor: usize) -> Vec<Part<'_>> {
        let mut cuts: Vec<_> =
            self.cuts.iter().map(|cut| cut.index(self.bytes.len() + 1)).collect();
        cuts.extend([0, self.bytes.len()]);
        cuts.sort_unstable();
        let part = |range: &[usize]| {
            let source = Source::from_slice(&self.bytes[range[0]..range[1]]);
            Part { file, tensor, start: range[0] as u64, source: source.into() }
        };
        cuts.windows(2).map(part).collect()
    }

    fn their_dtype(&self) -> safetensors::Dtype {
        serde_json::from_value(json!(self.dtype.name())).unwrap()
    }
}

/// What the reference writes.
fn their_bytes(tensors: &Tensors, metadata: &[(String, String)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        let shape = tensor.shape.iter().map(|&length| usize::try_from(length).unwrap()).collect();
        (name, TensorView::new(tensor.their_dtype(), shape, &tensor.bytes).unwrap())
    });
    let metadata: HashMap<_, _> = metadata.iter().cloned().collect();
    serialize(views, (!metadata.is_empty()).then_some(metadata)).unwrap()
}

/// Everything that windlass reads in a checkpoint.
fn read(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<u8>> {
    let place = |(name, tensor): (&String, &windlass_core::Located)| {
        let len = tensor.file_range.end - tensor.file_range.start;
        (name.clone(), vec![0; usize::try_from(len).unwrap()])
    };
    let mut memory: Vec<_> = checkpoint.tensors().iter().map(place).collect();
    let dests = memory.iter_mut().map(|(_, bytes)| Dest::from_slice(bytes)).enumerate();
    let jobs = dests.map(|(tensor, dest)| Job { tensor, start: 0, dest: dest.into() }).collect();
    checkpoint.read_into(jobs, &ReadOptions::default(), &Control::default()).unwrap();
    memory.into_iter().collect()
}

fn bytes_of(tensors: &Tensors) -> BTreeMap<String, Vec<u8>> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.bytes.clone())).collect()
}

/// CRC-32C bit by bit.
fn naive_crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !crc
}

fn check_checksums(path: &Path, tensors: &Tensors) {
    let checkpoint = Checkpoint::open_file(path, Strictness::Strict).unwrap();
    let text = &checkpoint.shards()[0].metadata.as_ref().unwrap()[CHECKSUM_KEY];
    let found: Map<String, Value> = serde_json::from_str(text).unwrap();
    let crc = |(name, tensor): (&String, &Tensor)| {
        (name.clone(), format!("{:08x}", naive_crc32c(&tensor.bytes)).into())
    };
    assert_eq!(found, tensors.iter().map(crc).collect::<Map<String, Value>>());
}

#[test]
fn the_naive_checksum_is_that_of_the_standard() {
    assert_eq!(naive_crc32c(b"123456789"), 0xE306_9283);
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_file_holds_what_was_written_and_equals_the_references(
        tensors in any_tensors(),
        metadata in vec(("[a-z]{1,8}", "[a-z\"é]{0,8}"), 0..2),
        how in any_how(),
    ) {
        let temporary = temporary_folder();
        let path = temporary.path().join("a.safetensors");
        let save = Save::file(&path, how.new_file("", &tensors, &metadata), how.options()).unwrap();
        how.write(&save, std::slice::from_ref(&tensors));
        save.commit(&IndexTexts::default(), &Control::default()).unwrap();

        let bytes = fs::read(&path).unwrap();
        let checkpoint = Checkpoint::open_file(&path, Strictness::Strict).unwrap();
        prop_assert_eq!(read(&checkpoint), bytes_of(&tensors));
        if how.checksums {
            check_checksums(&path, &tensors);
        } else {
            prop_assert_eq!(&bytes, &their_bytes(&tensors, &metadata));
        }
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in &tensors {
            let view = theirs.tensor(name).unwrap();
            prop_assert_eq!((view.dtype(), view.data()), (tensor.their_dtype(), &*tensor.bytes));
        }
        let start: [u8; 8] = bytes[..8].try_into().unwrap();
        prop_assert_eq!(u64::from_le_bytes(start) % 8, 0);
    }

    #[test]
    fn a_checkpoint_of_several_files_holds_what_was_written(
        tensors in any_tensors(),
        count in 1..4_usize,
        how in any_how(),
    ) {
        let temporary = temporary_folder();
        let folder = temporary.path();
        let mut files = vec![Tensors::new(); count];
        for (i, (name, tensor)) in tensors.iter().enumerate() {
            files[i % count].insert(name.clone(), tensor.clone());
        }
        let names = file_names(count);
        let new = names.iter().zip(&files).map(|(name, tensors)| how.new_file(name, tensors, &[]));
        let control = Control::default();
        let save = Save::folder(folder, family(), new.collect(), how.options(), &control).unwrap();
        how.write(&save, &files);
        let interim = index_text(&save.work_name().unwrap(), &names, &tensors);
        let last = index_text(".", &names, &tensors);
        save.commit(&IndexTexts { interim, last }, &control).unwrap();

        let checkpoint = if count == 1 {
            Checkpoint::open_file(&folder.join(&names[0]), Strictness::Strict)
        } else {
            Checkpoint::open_index(&folder.join(INDEX), Strictness::Strict, &control)
        };
        prop_assert_eq!(read(&checkpoint.unwrap()), bytes_of(&tensors));
        for (name, tensors) in names.iter().zip(&files) {
            if how.checksums {
                check_checksums(&folder.join(name), tensors);
            } else {
                prop_assert_eq!(fs::read(folder.join(name)).unwrap(), their_bytes(tensors, &[]));
            }
        }
    }
}

fn index_text(folder: &str, names: &[String], tensors: &Tensors) -> Vec<u8> {
    let file = |(i, name): (usize, &String)| {
        (name.clone(), Value::from(format!("{folder}/{}", names[i % names.len()])))
    };
    let weight_map: Map<String, Value> = tensors.keys().enumerate().map(file).collect();
    json!({"metadata": {}, "weight_map": weight_map}).to_string().into_bytes()
}
