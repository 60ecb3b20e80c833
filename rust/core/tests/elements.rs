//! Elements that are cast, scattered and gathered between files and memory, against bytes that are
//! read and elements that are moved one at a time.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::faulty_disk::FaultyDisk;
use builders::saving::options;
use builders::strided::{Tensor, byte_size, gather_each, noise, pairs, run, scatter_each, tensors};
use builders::{file_bytes, naive_read};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use windlass_core::convert::{Layout, StridedDest, StridedSource, cast};
use windlass_core::plan::PlanOptions;
use windlass_core::save::{CHECKSUM_KEY, IndexTexts, NewFile, Part, PartSource};
use windlass_core::{Checkpoint, Control, Dest, Dtype, Error, Header, Io, JobDest, NewTensor};
use windlass_core::{ReadOptions, Save, Source, Strictness};

/// A tensor, its dtypes in the file and in memory, and whether its bytes are moved as they are.
#[derive(Clone, Debug)]
struct Case {
    tensor: Tensor,
    file_dtype: Dtype,
    dtype: Dtype,
    is_bytes: bool,
}

fn any_cases() -> impl Strategy<Value = Vec<Case>> {
    let tensor = prop_oneof![tensors(0..4, 0..7, 0.0), tensors(1..3, 1..40, 0.0)];
    let case =
        (tensor, pairs(), any::<bool>()).prop_map(|(tensor, (file_dtype, dtype), is_bytes)| Case {
            tensor,
            file_dtype,
            dtype,
            is_bytes,
        });
    vec(case, 0..12)
}

impl Case {
    fn file_len(&self) -> usize {
        self.tensor.len() * byte_size(self.file_dtype)
    }

    /// Memory before a read, as it is for a strided tensor too.
    fn memory(&self) -> Vec<u8> {
        let strided = self.tensor.memory * byte_size(self.dtype);
        vec![0xA5; if self.is_bytes { self.file_len() } else { strided }]
    }

    /// Memory after a read.
    fn filled(&self, bytes: &[u8]) -> Vec<u8> {
        if self.is_bytes {
            return bytes.to_vec();
        }
        let (mut memory, cast) = (self.memory(), cast(self.file_dtype, self.dtype).unwrap());
        scatter_each(&self.tensor, bytes, &cast, &mut memory, 0);
        memory
    }

    fn dest<'a>(&self, opened: &Checkpoint, name: &str, memory: &'a mut [u8]) -> JobDest<'a> {
        if self.is_bytes {
            return Dest::from_slice(memory).into();
        }
        let first = self.tensor.first * byte_size(self.dtype);
        let layout = self.tensor.layout(self.dtype);
        let dest = StridedDest::from_slice(memory, first, layout).unwrap();
        opened.elements(name, dest, self.dtype).unwrap()
    }
}

fn name(position: usize) -> String {
    format!("t{position}")
}

/// Writes a file whose data begins anywhere.
fn write(folder: &Path, cases: &[Case], padding: usize) -> PathBuf {
    let (mut header, mut end) = (Map::new(), 0);
    for (i, case) in cases.iter().enumerate() {
        let start = end;
        end += case.file_len();
        let (dtype, shape) = (case.file_dtype.name(), [case.tensor.len()]);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name(i), entry);
    }
    let text = format!("{}{:padding$}", Value::from(header), "");
    let path = folder.join("a.safetensors");
    fs::write(&path, file_bytes(text, &noise(end))).unwrap();
    path
}

fn any_plan() -> impl Strategy<Value = PlanOptions> {
    (1..600_u64, 1..600_u64, 0..64_u64, 1..9_usize).prop_map(
        |(chunk_bytes, element_chunk_bytes, max_gap, max_pieces)| PlanOptions {
            chunk_bytes,
            element_chunk_bytes,
            max_gap,
            max_pieces,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements_are_read_as_bytes_that_are_cast_and_scattered_one_by_one(
        cases in any_cases(),
        padding in 0..9_usize,
        plan in prop_oneof![any_plan(), Just(PlanOptions::default())],
        io in select(&[Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring][..]),
        threads in 0..5_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &cases, padding);
        let opened = Checkpoint::open_file(&path, Strictness::Reference).unwrap();
        let naive = naive_read(&path);
        let expected = |(i, case): (usize, &Case)| case.filled(&naive[&name(i)]);
        let expected: Vec<_> = cases.iter().enumerate().map(expected).collect();

        let names: Vec<_> = (0..cases.len()).map(name).collect();
        let mut memory: Vec<_> = cases.iter().map(Case::memory).collect();
        let dest = |((case, name), memory): ((&Case, &String), _)| case.dest(&opened, name, memory);
        let dests = cases.iter().zip(&names).zip(memory.iter_mut().map(Vec::as_mut_slice));
        let jobs = opened.jobs(&names, dests.map(dest).collect(), None).unwrap();
        let control = Control::default();
        let stats =
            opened.read_into(jobs, &ReadOptions { threads, io, plan, ..ReadOptions::default() }, &control).unwrap();
        prop_assert_eq!(memory, expected);
        let bytes = cases.iter().map(Case::file_len).sum::<usize>() as u64;
        prop_assert_eq!((stats.bytes, control.bytes()), (bytes, bytes));
    }
}

/// A file with one tensor of twelve numbers.
fn twelve() -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let tensor = Tensor::new(&[(12, 0, false, false)], &[0]);
    let (file_dtype, dtype) = (Dtype::Bf16, Dtype::F32);
    let case = Case { tensor, file_dtype, dtype, is_bytes: false };
    let path = write(folder.path(), &[case], 0);
    let opened = Checkpoint::open_file(&path, Strictness::Reference).unwrap();
    (folder, opened)
}

fn strided(memory: &mut [u8], len: usize, stride: isize) -> StridedDest<'_> {
    let layout = Layout::new(4, &[len], &[stride]).unwrap();
    StridedDest::from_slice(memory, 0, layout).unwrap()
}

#[test]
fn part_of_a_tensor_is_read_from_an_element_on() {
    let (folder, opened) = twelve();
    let bytes = &naive_read(&folder.path().join("a.safetensors"))["t0"];
    let mut memory = vec![0; 20];
    let dest = opened.elements("t0", strided(&mut memory, 5, 1), Dtype::F32).unwrap();
    let jobs = opened.jobs(&["t0"], vec![dest], Some(&[6])).unwrap();
    opened.read_into(jobs, &ReadOptions::default(), &Control::default()).unwrap();
    assert_eq!(memory, run(&cast(Dtype::Bf16, Dtype::F32).unwrap(), &bytes[6..16]));
}

#[test]
fn destinations_of_elements_that_do_not_fit_are_refused() {
    let (_folder, opened) = twelve();
    let mut memory = vec![0; 200];
    let error = opened.elements("t0", strided(&mut memory, 12, 2), Dtype::C64).unwrap_err();
    assert_eq!(error.to_string(), "tensor `t0`: BF16 cannot be cast to C64 in memory of that kind");
    let error = opened.elements("t0", strided(&mut memory, 12, 2), Dtype::F64).unwrap_err();
    assert!(matches!(error, Error::NoCast { .. }), "of elements of another size");
    let dest = opened.elements("t0", strided(&mut memory, 11, 2), Dtype::F32).unwrap();
    let error = opened.jobs(&["t0"], vec![dest], None).unwrap_err();
    assert_eq!(error.to_string(), "tensor `t0`: destination should have 24 bytes, has 22");
}

/// A tensor to be saved, its dtypes in memory and in the file, whether its bytes are written as they
/// are, and where it is cut into parts.
#[derive(Clone, Debug)]
struct Saved {
    tensor: Tensor,
    dtype: Dtype,
    file_dtype: Dtype,
    is_bytes: bool,
    /// Twelfths of it in its first part.
    cut: usize,
}

fn any_saved() -> impl Strategy<Value = Vec<Saved>> {
    let tensor = prop_oneof![tensors(0..4, 0..7, 0.2), tensors(1..3, 1..40, 0.1)];
    let saved = (tensor, pairs(), any::<bool>(), 0..=12_usize).prop_map(
        |(tensor, (dtype, file_dtype), is_bytes, cut)| Saved {
            tensor,
            dtype,
            file_dtype,
            is_bytes,
            cut,
        },
    );
    vec(saved, 0..12)
}

impl Saved {
    fn memory(&self) -> Vec<u8> {
        let strided = self.tensor.memory * byte_size(self.dtype);
        let contiguous = self.tensor.len() * byte_size(self.file_dtype);
        noise(if self.is_bytes { contiguous } else { strided })
    }

    /// Its bytes in the file.
    fn expected(&self) -> Vec<u8> {
        if self.is_bytes {
            return self.memory();
        }
        let cast = cast(self.dtype, self.file_dtype).unwrap();
        gather_each(&self.tensor, &self.memory(), 0..self.tensor.len(), &cast)
    }

    /// Its two parts, of whole elements.
    fn parts<'a>(&self, save: &Save, tensor: usize, name: &str, memory: &'a [u8]) -> [Part<'a>; 2] {
        let first = self.tensor.len() * self.cut / 12;
        let file_bytes = byte_size(self.file_dtype);
        let sources = if self.is_bytes {
            let (front, back) = memory.split_at(first * file_bytes);
            [front, back].map(|bytes| PartSource::from(Source::from_slice(bytes)))
        } else {
            let layout = self.tensor.layout(self.dtype);
            let start = self.tensor.first * byte_size(self.dtype);
            let mut source = StridedSource::from_slice(memory, start, layout).unwrap();
            let front = source.split_off_front(first);
            [front, source].map(|part| save.elements(0, name, part, self.dtype).unwrap())
        };
        let starts = [0, (first * file_bytes) as u64];
        let mut starts = starts.into_iter();
        sources.map(|source| Part { file: 0, tensor, start: starts.next().unwrap(), source })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements_are_written_as_bytes_that_are_gathered_and_cast_one_by_one(
        all in any_saved(),
        threads in 0..5_usize,
        checksums in any::<bool>(),
        write_limit in prop_oneof![1..9_usize, Just(usize::MAX)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let new = |(i, one): (usize, &Saved)| {
            NewTensor { name: name(i), dtype: one.file_dtype, shape: vec![one.tensor.len() as u64] }
        };
        let header = Header::lay_out(all.iter().enumerate().map(new).collect(), None).unwrap();
        let new = NewFile::of_tensors(String::new(), header, checksums).unwrap();
        let mut disk = FaultyDisk::faultless(true);
        disk.write_limit = write_limit;
        let save = Save::file(&path, new, options(Arc::new(disk), false)).unwrap();
        let memory: Vec<_> = all.iter().map(Saved::memory).collect();
        let mut parts = Vec::new();
        for (i, (one, memory)) in all.iter().zip(&memory).enumerate() {
            let tensor = save.position(0, &name(i)).unwrap();
            parts.extend(one.parts(&save, tensor, &name(i), memory));
        }
        let control = Control::default();
        save.write(parts, threads, &control).unwrap();
        save.commit(&IndexTexts::default(), &control).unwrap();

        let found = naive_read(&path);
        let expected = |(i, one): (usize, &Saved)| (name(i), one.expected());
        prop_assert_eq!(&found, &all.iter().enumerate().map(expected).collect());
        prop_assert_eq!(control.bytes(), found.values().map(Vec::len).sum::<usize>() as u64);
        if checksums {
            let opened = Checkpoint::open_file(&path, Strictness::Strict).unwrap();
            let text = &opened.shards()[0].metadata.as_ref().unwrap()[CHECKSUM_KEY];
            let sums: Map<String, Value> = serde_json::from_str(text).unwrap();
            for (name, bytes) in &found {
                let sum = Source::from_slice(bytes).crc32c();
                prop_assert_eq!(&sums[name], &Value::from(format!("{sum:08x}")));
            }
        }
    }
}

#[test]
fn tensors_larger_than_what_is_gathered_at_once_are_written_whole() {
    let tensor = Tensor::new(&[(1501, 0, false, false), (2003, 1, false, false)], &[0, 1]);
    let (dtype, file_dtype) = (Dtype::F32, Dtype::F32);
    let one = Saved { tensor, dtype, file_dtype, is_bytes: false, cut: 5 };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let shape = vec![one.tensor.len() as u64];
    let tensors = vec![NewTensor { name: name(0), dtype: file_dtype, shape }];
    let header = Header::lay_out(tensors, None).unwrap();
    let new = NewFile::of_tensors(String::new(), header, true).unwrap();
    let save = Save::file(&path, new, options(Arc::new(FaultyDisk::faultless(true)), false));
    let (save, memory, control) = (save.unwrap(), one.memory(), Control::default());
    save.write(one.parts(&save, 0, &name(0), &memory).into(), 3, &control).unwrap();
    save.commit(&IndexTexts::default(), &control).unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(file[file.len() - one.expected().len()..], one.expected());
}
