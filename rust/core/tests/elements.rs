//! Elements that are cast, scattered and gathered between files and memory, against bytes that are
//! read and elements that are moved one at a time.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::strided::{Tensor, byte_size, noise, pairs, run, scatter_each, tensors};
use builders::{file_bytes, naive_read};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use windlass_core::convert::{Layout, StridedDest, cast};
use windlass_core::plan::PlanOptions;
use windlass_core::{
    Checkpoint, Control, Dest, Dtype, Error, Io, JobDest, ReadOptions, Strictness,
};

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
        io in select(&[Io::Auto, Io::Mapped, Io::Buffered][..]),
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
            opened.read_into(jobs, &ReadOptions { threads, io, plan }, &control).unwrap();
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
