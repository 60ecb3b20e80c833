//! The garbage collector, paused: entered and left without a step at which Ctrl-C could come.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pauses the collector, unless somebody else has.
#[pyclass(frozen, name = "PausedGc", module = "windlass._rust")]
pub(crate) struct PausedGc(AtomicBool);

#[pymethods]
impl PausedGc {
    #[new]
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        let collector = py.import("gc")?;
        if collector.call_method0("isenabled")?.is_truthy()? {
            collector.call_method0("disable")?;
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) -> PyResult<()> {
        if self.0.swap(false, Ordering::Relaxed) {
            py.import("gc")?.call_method0("enable")?;
        }
        Ok(())
    }
}
