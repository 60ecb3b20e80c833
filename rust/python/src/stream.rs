//! `BlockReader`: blocks of tensors, one after another, while Python looks at those before.

use crate::buffer::PyMapping;
use crate::checkpoint::{parse_options, stats};
use crate::errors::to_python;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyDict;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use windlass_core::{BlockReader, Checkpoint, Place};

/// How often signals are looked at while a block is waited for.
const POLL: Duration = Duration::from_millis(20);

/// `None` once it is closed.
#[pyclass(frozen, name = "BlockReader", module = "windlass._rust")]
pub(crate) struct PyBlockReader(Mutex<Option<BlockReader>>);

impl PyBlockReader {
    pub(crate) fn start(
        py: Python<'_>,
        checkpoint: &Arc<Checkpoint>,
        names: &[PyBackedStr],
        most_bytes: u64,
        (threads, io, cache): (usize, &str, &str),
    ) -> PyResult<Self> {
        let options = parse_options(threads, io, cache)?;
        let tensors = names.iter().map(|name| checkpoint.position(name));
        let tensors = tensors.collect::<Result<Vec<_>, _>>();
        let tensors = tensors.map_err(|error| to_python(py, &error))?;
        let checkpoint = Arc::clone(checkpoint);
        let start = || BlockReader::start(checkpoint, &tensors, most_bytes, &options);
        Ok(Self(Mutex::new(Some(py.detach(start)))))
    }

    /// Never waits for the GIL while it is held.
    fn lock(&self) -> MutexGuard<'_, Option<BlockReader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyBlockReader {
    fn begin(
        &self,
        py: Python<'_>,
        names: Vec<PyBackedStr>,
        starts: Vec<usize>,
        nbytes: usize,
    ) -> PyResult<()> {
        let refused =
            |error| PyMemoryError::new_err(format!("no {nbytes} bytes of memory: {error}"));
        let memory = self.lock().as_ref().map(|reader| reader.memory(nbytes)).ok_or_else(closed)?;
        let memory = memory.map_err(refused)?;
        let begin = || {
            let reader = self.lock();
            let Some(reader) = reader.as_ref() else { return Ok(false) };
            let place = |(name, start): (&PyBackedStr, usize)| {
                Ok(Place { tensor: reader.checkpoint().position(name)?, start })
            };
            let places = names.iter().zip(starts).map(place).collect::<Result<Vec<_>, _>>()?;
            reader.begin(&places, memory);
            Ok(true)
        };
        match py.detach(begin) {
            Ok(true) => Ok(()),
            Ok(false) => Err(closed()),
            Err(error) => Err(to_python(py, &error)),
        }
    }

    fn take(&self, py: Python<'_>) -> PyResult<PyMapping> {
        loop {
            let take = |reader: &BlockReader| (reader.take(POLL), Arc::downgrade(reader.spare()));
            match py.detach(|| self.lock().as_ref().map(take)) {
                None => return Err(closed()),
                Some((Err(error), _)) => return Err(to_python(py, &error)),
                Some((Ok(Some(memory)), spare)) => return Ok(PyMapping::borrowed(memory, spare)),
                Some((Ok(None), _)) => py.check_signals()?,
            }
        }
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let done = py.detach(|| Some(self.lock().take()?.close())).ok_or_else(closed)?;
        stats(py, &done)
    }
}

fn closed() -> PyErr {
    PyRuntimeError::new_err("the reader is closed")
}
