//! The only `unsafe` of the binding: memory that Python owns, and memory that Python is shown.
//!
//! Memory comes in as a DLPack capsule (what torch tensors give, without the side effect that
//! `Tensor.numpy()` has of making a storage non-resizable) or through the buffer protocol (numpy
//! arrays, bytearrays). Both say where they are, how large, and how laid out, so the engine never
//! takes a bare address on trust.

#![allow(unsafe_code)]

use crate::errors::destination_error;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyMemoryError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use std::ffi::{CStr, c_int, c_void};
use std::slice;
use windlass_core::{Dest, Mapping, Source};

/// Writable, C-contiguous memory of the host, kept alive as long as this value.
pub(crate) struct WriteBuf {
    start: *mut u8,
    len: usize,
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
    pub(crate) fn dest(&mut self) -> Dest<'_> {
        // SAFETY: `start..start + len` was described as one writable allocation by its exporter,
        // which `_owner` keeps alive; `&mut self` makes this the only `Dest` made of this value,
        // and `Checkpoint::jobs` refuses two values over the same memory before any is written.
        unsafe { Dest::from_raw(self.start, self.len) }
    }

    fn from_capsule(capsule: &Bound<'_, PyCapsule>) -> PyResult<Self> {
        let (start, len) = capsule_memory(capsule)?;
        Ok(Self { start, len, _owner: Owner::Capsule(capsule.clone().unbind()) })
    }

    fn from_buffer(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(destination_error("a destination must be writable and C-contiguous"));
        }
        let (start, len) = (buffer.buf_ptr().cast(), buffer.len_bytes());
        Ok(Self { start, len, _owner: Owner::Buffer(buffer) })
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for WriteBuf {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyCapsule>() {
            Ok(capsule) => Self::from_capsule(&capsule),
            Err(_) => Self::from_buffer(&object),
        }
    }
}

/// Readable, C-contiguous memory of the host, kept alive as long as this value.
pub(crate) struct ReadBuf {
    start: *const u8,
    len: usize,
    _owner: Owner,
}

impl ReadBuf {
    /// The memory, for as long as this value is borrowed.
    ///
    /// The caller (Python) owes what `write(2)` is owed: until the write is over, nobody resizes
    /// the tensor's storage.
    pub(crate) fn source(&self) -> Source<'_> {
        // SAFETY: `start..start + len` was described as one readable allocation by its exporter,
        // which `_owner` keeps alive.
        unsafe { Source::from_raw(self.start, self.len) }
    }

    fn from_capsule(capsule: &Bound<'_, PyCapsule>) -> PyResult<Self> {
        let (start, len) = capsule_memory(capsule)?;
        Ok(Self { start, len, _owner: Owner::Capsule(capsule.clone().unbind()) })
    }

    fn from_buffer(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(destination_error("a source must be C-contiguous"));
        }
        let (start, len) = (buffer.buf_ptr().cast_const().cast(), buffer.len_bytes());
        Ok(Self { start, len, _owner: Owner::Buffer(buffer) })
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for ReadBuf {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyCapsule>() {
            Ok(capsule) => Self::from_capsule(&capsule),
            Err(_) => Self::from_buffer(&object),
        }
    }
}

/// Start and length in bytes of what a DLPack capsule describes.
fn capsule_memory(capsule: &Bound<'_, PyCapsule>) -> PyResult<(*mut u8, usize)> {
    let tensor = capsule.pointer_checked(Some(DLPACK_NAME))?.cast::<DlTensor>();
    // SAFETY: the DLPack protocol: an unconsumed capsule of this name points to a
    // `DLManagedTensor`, which begins with a `DLTensor` and lives as long as the capsule.
    let tensor = unsafe { tensor.as_ref() };
    tensor.memory()
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
    /// Start and length in bytes, if the tensor is C-contiguous memory of the host.
    fn memory(&self) -> PyResult<(*mut u8, usize)> {
        if !HOST_DEVICES.contains(&self.device_type) {
            return Err(destination_error("expected memory of the host"));
        }
        let shape = self.dimensions(self.shape);
        if !self.strides.is_null() && !is_c_contiguous(shape, self.dimensions(self.strides)) {
            return Err(destination_error("expected C-contiguous memory"));
        }
        let len = self.byte_len(shape).ok_or_else(|| destination_error("the size overflows"))?;
        let offset = usize::try_from(self.byte_offset)?;
        Ok((self.data.cast::<u8>().wrapping_add(offset), len))
    }

    fn dimensions(&self, array: *const i64) -> &[i64] {
        match usize::try_from(self.ndim) {
            // SAFETY: the DLPack protocol: `shape`, and `strides` where not null, point to `ndim`
            // numbers that live as long as the tensor.
            Ok(ndim) if ndim > 0 => unsafe { slice::from_raw_parts(array, ndim) },
            _ => &[],
        }
    }

    fn byte_len(&self, shape: &[i64]) -> Option<usize> {
        let bits = usize::from(self.type_bits) * usize::from(self.type_lanes);
        let mut lengths = shape.iter().map(|&length| usize::try_from(length).ok());
        let elements = lengths.try_fold(1_usize, |product, length| product.checked_mul(length?))?;
        Some(elements.checked_mul(bits)?.div_ceil(8))
    }
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
pub(crate) struct PyMapping(Mapping);

impl From<Mapping> for PyMapping {
    fn from(mapping: Mapping) -> Self {
        Self(mapping)
    }
}

#[pymethods]
impl PyMapping {
    #[staticmethod]
    fn anonymous(nbytes: usize) -> PyResult<Self> {
        let refused =
            |error| PyMemoryError::new_err(format!("no {nbytes} bytes of memory: {error}"));
        Mapping::anonymous(nbytes).map(Self).map_err(refused)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// # Safety
    /// Called by the interpreter with a `Py_buffer` to fill, as the buffer protocol says.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let mapping = &slf.get().0;
        let len =
            isize::try_from(mapping.len()).map_err(|_| PyBufferError::new_err("too large"))?;
        let start = mapping.as_mut_ptr().cast();
        // SAFETY: `view` is the interpreter's; the memory lives as long as `slf`, to which the
        // filled view holds a reference; the map is private and writable, so 0 for `readonly`.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
