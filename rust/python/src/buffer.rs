//! The only `unsafe` of the binding: memory that Python owns, and memory that Python is shown.
//!
//! Memory comes in as a DLPack capsule (what torch tensors give, without the side effect that
//! `Tensor.numpy()` has of making a storage non-resizable) or through the buffer protocol (numpy
//! arrays, bytearrays). Both say where they are, how large, and how laid out, so the engine never
//! takes a bare address on trust. Only tensors may be strided.

#![allow(unsafe_code)]

use crate::errors::{destination_error, layout_error};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyMemoryError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use std::ffi::{CStr, c_int, c_void};
use std::slice;
use std::sync::{Arc, Weak};
use windlass_core::convert::{Layout, StridedDest, StridedSource};
use windlass_core::{Dest, Mapping, Source, Spare};

/// Writable memory of the host, kept alive as long as this value.
pub(crate) struct WriteBuf(Memory);

/// Readable memory of the host, kept alive as long as this value.
pub(crate) struct ReadBuf(Memory);

/// Memory as its exporter describes it.
struct Memory {
    /// The first element.
    start: *mut u8,
    /// Size of an element in bytes.
    element_bytes: usize,
    /// Number of elements.
    count: usize,
    /// How they lie there; `None` when they are C-contiguous.
    layout: Option<Layout>,
    _owner: Owner,
}

/// What keeps the memory alive.
enum Owner {
    Capsule(#[expect(dead_code, reason = "held, not used")] Py<PyCapsule>),
    Buffer(#[expect(dead_code, reason = "held, not used")] PyBuffer<u8>),
}

impl WriteBuf {
    /// The memory, for as long as this value is borrowed.
    ///
    /// The caller (Python) owes what `read(2)` is owed: until the read is over, nobody else uses
    /// the memory, and nobody resizes the tensor's storage.
    pub(crate) fn dest(&mut self) -> PyResult<Dest<'_>> {
        let len = self.0.contiguous_bytes()?;
        // SAFETY: `start..start + len` was described as one writable allocation by its exporter,
        // which `_owner` keeps alive; `&mut self` makes this the only handle made of this value,
        // and `Checkpoint::jobs` refuses two values over the same memory before any is written.
        Ok(unsafe { Dest::from_raw(self.0.start, len) })
    }

    /// The elements, for as long as this value is borrowed; the caller owes what `dest` asks for.
    pub(crate) fn elements(&mut self) -> PyResult<StridedDest<'_>> {
        let layout = self.0.layout()?;
        // SAFETY: as for `dest`; the exporter describes all elements of the layout as lying in one
        // writable allocation.
        let dest = unsafe { StridedDest::from_raw(self.0.start, layout) };
        dest.ok_or_else(|| destination_error("several elements of a destination may be one"))
    }
}

impl ReadBuf {
    /// The memory, for as long as this value is borrowed.
    ///
    /// The caller (Python) owes what `write(2)` is owed: until the write is over, nobody resizes
    /// the tensor's storage.
    pub(crate) fn source(&self) -> PyResult<Source<'_>> {
        let len = self.0.contiguous_bytes()?;
        // SAFETY: `start..start + len` was described as one readable allocation by its exporter,
        // which `_owner` keeps alive.
        Ok(unsafe { Source::from_raw(self.0.start, len) })
    }

    /// The elements, for as long as this value is borrowed; the caller owes what `source` asks for.
    pub(crate) fn elements(&self) -> PyResult<StridedSource<'_>> {
        let layout = self.0.layout()?;
        // SAFETY: as for `source`; the exporter describes all elements of the layout as lying in
        // one readable allocation.
        Ok(unsafe { StridedSource::from_raw(self.0.start, layout) })
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for WriteBuf {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(capsule) = object.cast::<PyCapsule>() {
            return Memory::of_capsule(&capsule).map(Self);
        }
        let buffer = PyBuffer::get(&object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(destination_error("a destination must be writable and C-contiguous"));
        }
        Ok(Self(Memory::of_buffer(buffer)))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for ReadBuf {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(capsule) = object.cast::<PyCapsule>() {
            return Memory::of_capsule(&capsule).map(Self);
        }
        let buffer = PyBuffer::get(&object)?;
        if !buffer.is_c_contiguous() {
            return Err(destination_error("a source must be C-contiguous"));
        }
        Ok(Self(Memory::of_buffer(buffer)))
    }
}

impl Memory {
    fn of_capsule(capsule: &Bound<'_, PyCapsule>) -> PyResult<Self> {
        let tensor = capsule.pointer_checked(Some(DLPACK_NAME))?.cast::<DlTensor>();
        // SAFETY: the DLPack protocol: an unconsumed capsule of this name points to a
        // `DLManagedTensor`, which begins with a `DLTensor` and lives as long as the capsule.
        let tensor = unsafe { tensor.as_ref() };
        tensor.memory(Owner::Capsule(capsule.clone().unbind()))
    }

    /// The memory of a C-contiguous buffer.
    fn of_buffer(buffer: PyBuffer<u8>) -> Self {
        Self {
            start: buffer.buf_ptr().cast(),
            element_bytes: 1,
            count: buffer.len_bytes(),
            layout: None,
            _owner: Owner::Buffer(buffer),
        }
    }

    fn contiguous_bytes(&self) -> PyResult<usize> {
        if self.layout.is_some() {
            return Err(destination_error("expected C-contiguous memory"));
        }
        Ok(self.count * self.element_bytes)
    }

    fn layout(&self) -> PyResult<Layout> {
        let contiguous = || Layout::new(self.element_bytes, &[self.count], &[1]);
        self.layout.clone().map_or_else(contiguous, Ok).map_err(|error| layout_error(&error))
    }
}

/// Name of an unconsumed DLPack capsule.
const DLPACK_NAME: &CStr = c"dltensor";

/// DLPack device types whose memory the host can write: `kDLCPU` and `kDLCUDAHost`.
const HOST_DEVICES: [i32; 2] = [1, 3];

/// `DLTensor` of the DLPack ABI (dlpack.h, version 0.x and 1.x alike).
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    type_code: u8,
    type_bits: u8,
    type_lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

impl DlTensor {
    /// The memory, if it is the host's.
    fn memory(&self, owner: Owner) -> PyResult<Memory> {
        if !HOST_DEVICES.contains(&self.device_type) {
            return Err(destination_error("expected memory of the host"));
        }
        let shape = self.dimensions(self.shape);
        let overflow = || destination_error("the size overflows");
        let count = count(shape).ok_or_else(overflow)?;
        let element_bytes = self.element_bytes()?;
        count.checked_mul(element_bytes).ok_or_else(overflow)?;
        let strides = (!self.strides.is_null()).then(|| self.dimensions(self.strides));
        let strides = strides.filter(|strides| !is_c_contiguous(shape, strides));
        let layout = strides.map(|strides| layout(element_bytes, shape, strides)).transpose()?;
        let start = self.data.cast::<u8>().wrapping_add(usize::try_from(self.byte_offset)?);
        Ok(Memory { start, element_bytes, count, layout, _owner: owner })
    }

    fn dimensions(&self, array: *const i64) -> &[i64] {
        match usize::try_from(self.ndim) {
            // SAFETY: the DLPack protocol: `shape`, and `strides` where not null, point to `ndim`
            // numbers that live as long as the tensor.
            Ok(ndim) if ndim > 0 => unsafe { slice::from_raw_parts(array, ndim) },
            _ => &[],
        }
    }

    fn element_bytes(&self) -> PyResult<usize> {
        let bits = usize::from(self.type_bits) * usize::from(self.type_lanes);
        if !bits.is_multiple_of(8) {
            return Err(destination_error("expected elements of whole bytes"));
        }
        Ok(bits / 8)
    }
}

fn count(shape: &[i64]) -> Option<usize> {
    let mut lengths = shape.iter().map(|&length| usize::try_from(length).ok());
    lengths.try_fold(1_usize, |product, length| product.checked_mul(length?))
}

/// How elements lie that are not contiguous.
fn layout(element_bytes: usize, shape: &[i64], strides: &[i64]) -> PyResult<Layout> {
    let shape: Vec<usize> = shape.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>()?;
    let strides: Vec<isize> =
        strides.iter().map(|&n| isize::try_from(n)).collect::<Result<_, _>>()?;
    Layout::new(element_bytes, &shape, &strides).map_err(|error| layout_error(&error))
}

fn is_c_contiguous(shape: &[i64], strides: &[i64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = Some(1_i64);
    shape.iter().zip(strides).rev().all(|(&length, &stride)| {
        let fits = length == 1 || Some(stride) == expected;
        expected = expected.and_then(|expected| expected.checked_mul(length));
        fits
    })
}

/// A shard file in memory, private, writable, zero-copy; or memory of no file. Exports the buffer
/// protocol.
///
/// The map lives until the last object that looks into it is gone; there is no way to close it
/// earlier, so no tensor can be left without its memory.
#[pyclass(frozen, weakref, name = "Mapping", module = "windlass._rust")]
pub(crate) struct PyMapping {
    map: Arc<Mapping>,
    /// Where it is given back to.
    spare: Weak<Spare>,
}

impl From<Mapping> for PyMapping {
    fn from(mapping: Mapping) -> Self {
        Self { map: Arc::new(mapping), spare: Weak::new() }
    }
}

impl Drop for PyMapping {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.upgrade() {
            spare.give_back(&self.map);
        }
    }
}

impl PyMapping {
    /// The map itself.
    pub(crate) fn map(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// Memory that is given back when nobody looks into it any more.
    pub(crate) fn borrowed(memory: Mapping, spare: Weak<Spare>) -> Self {
        Self { map: Arc::new(memory), spare }
    }
}

#[pymethods]
impl PyMapping {
    #[staticmethod]
    fn anonymous(nbytes: usize) -> PyResult<Self> {
        let refused =
            |error| PyMemoryError::new_err(format!("no {nbytes} bytes of memory: {error}"));
        Mapping::anonymous(nbytes).map(Self::from).map_err(refused)
    }

    fn __len__(&self) -> usize {
        self.map.len()
    }

    /// # Safety
    /// Called by the interpreter with a `Py_buffer` to fill, as the buffer protocol says.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let mapping = &slf.get().map;
        let len =
            isize::try_from(mapping.len()).map_err(|_| PyBufferError::new_err("too large"))?;
        let start = mapping.as_mut_ptr().cast();
        // SAFETY: `view` is the interpreter's; the memory lives as long as `slf`, to which the
        // filled view holds a reference; the map is private and writable, so 0 for `readonly`.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
