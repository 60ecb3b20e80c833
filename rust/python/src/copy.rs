//! Copies of memory.

use crate::buffer::{ReadBuf, WriteBuf};
use crate::detach::interruptible;
use crate::errors::destination_error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use windlass_core::{Dest, Source, copy};

/// See `windlass_core::copy`.
#[pyfunction]
pub(crate) fn copy_fresh(
    py: Python<'_>,
    sources: Vec<ReadBuf>,
    mut destinations: Vec<WriteBuf>,
) -> PyResult<()> {
    if sources.len() != destinations.len() {
        return Err(PyValueError::new_err("expected lists of equal length"));
    }
    let pairs = sources.iter().zip(&mut destinations);
    let pairs = pairs.map(|(source, dest)| pair(source, dest)).collect::<PyResult<_>>()?;
    interruptible(py, None, |control| copy::copy_fresh(pairs, control))
}

fn pair<'a>(source: &'a ReadBuf, dest: &'a mut WriteBuf) -> PyResult<(Source<'a>, Dest<'a>)> {
    let (source, dest) = (source.source()?, dest.dest()?);
    if source.len() != dest.len() {
        return Err(destination_error("expected a destination of the size of its source"));
    }
    Ok((source, dest))
}
