//! `prefetch`: maps made present in the background.

use crate::buffer::PyMapping;
use pyo3::prelude::*;
use std::io;
use std::sync::Arc;
use windlass_core::{Ahead, Prefetch};

#[pyclass(frozen, name = "Prefetch", module = "windlass._rust")]
pub(crate) struct PyPrefetch(Prefetch);

#[pymethods]
impl PyPrefetch {
    fn stop(&self) {
        self.0.stop();
    }

    fn wait(&self, py: Python<'_>) {
        py.detach(|| self.0.wait());
    }

    fn nbytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// Makes parts of maps present, each given as `(map, start, end)`.
#[pyfunction]
pub(crate) fn prefetch(
    parts: Vec<(Py<PyMapping>, usize, usize)>,
    budget: u64,
    report: Py<PyAny>,
) -> PyPrefetch {
    let ahead =
        parts.iter().map(|(map, start, end)| Ahead { map: map.get().map(), range: *start..*end });
    let report = Arc::new(report);
    let report = move |error: &io::Error| tell(&report, error);
    PyPrefetch(Prefetch::start(&ahead.collect::<Vec<_>>(), budget, report))
}

/// Calls `report(message)`, unless the interpreter is about to end.
fn tell(report: &Py<PyAny>, error: &io::Error) {
    Python::try_attach(|py| {
        if let Err(error) = report.call1(py, (error.to_string(),)) {
            error.write_unraisable(py, Some(report.bind(py)));
        }
    });
}
