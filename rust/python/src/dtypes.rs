//! The dtype table as Python data.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use windlass_core::Dtype;
use windlass_core::convert::cast;

/// Header name → bits per element, in the order of the format's own list.
pub(crate) fn table(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for dtype in Dtype::ALL {
        table.set_item(dtype.name(), dtype.bits())?;
    }
    Ok(table)
}

/// The dtype of that header name.
pub(crate) fn parse(name: &str) -> PyResult<Dtype> {
    let unknown = || PyValueError::new_err(format!("unknown dtype `{name}`"));
    Dtype::from_name(name).ok_or_else(unknown)
}

/// Whether the engine casts one dtype to the other.
#[pyfunction]
pub(crate) fn can_cast(found: &str, wanted: &str) -> PyResult<bool> {
    Ok(cast(parse(found)?, parse(wanted)?).is_some())
}
