//! The dtype table as Python data.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use windlass_core::Dtype;

/// Header name → bits per element, in the order of the format's own list.
pub(crate) fn table(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for dtype in Dtype::ALL {
        table.set_item(dtype.name(), dtype.bits())?;
    }
    Ok(table)
}
