//! `find_touching` and `find_aliases`: which tensors are the same memory, judged by the engine.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use windlass_core::alias::{self, Group, Relation, Tensor};
use windlass_core::runs::View;
use windlass_core::spans::{self, Span};

/// `(space, address, shape, strides in elements, bytes per element, kind)`.
type PyTensor = (u64, u64, Vec<u64>, Vec<u64>, u64, u64);

#[pyfunction]
pub(crate) fn find_touching(
    py: Python<'_>,
    spaces: Vec<u64>,
    starts: Vec<u64>,
    ends: Vec<u64>,
) -> PyResult<Vec<Vec<usize>>> {
    if spaces.len() != starts.len() || starts.len() != ends.len() {
        let counts = (spaces.len(), starts.len(), ends.len());
        return Err(PyValueError::new_err(format!(
            "spaces, starts and ends must be of one length, found {counts:?}"
        )));
    }
    Ok(py.detach(|| {
        let bytes = starts.into_iter().zip(ends).map(|(start, end)| start..end);
        let spans = spaces.into_iter().zip(bytes).map(|(space, bytes)| Span { space, bytes });
        spans::find_touching(&spans.collect::<Vec<_>>())
    }))
}

#[pyfunction]
pub(crate) fn find_aliases(
    py: Python<'_>,
    tensors: Vec<PyTensor>,
) -> Vec<(Vec<usize>, &'static str)> {
    py.detach(|| {
        let tensors: Vec<_> = tensors.into_iter().map(tensor).collect();
        alias::find_aliases(&tensors).groups.into_iter().map(group).collect()
    })
}

fn tensor((space, address, shape, strides, element_bytes, kind): PyTensor) -> Tensor {
    let view = View::counted_in_elements(address, shape, strides, element_bytes);
    // Groups, which are all that Python asks for, do not depend on storages.
    Tensor { device: Some(space), storage: 0..0, view, kind }
}

fn group(group: Group) -> (Vec<usize>, &'static str) {
    let relation = match group.relation {
        Relation::Identical => "identical",
        Relation::SameBytes => "same_bytes",
        Relation::Nested => "nested",
        Relation::Overlapping => "overlapping",
    };
    (group.members, relation)
}
