//! `resolve_overlaps`: views of shared memory, judged by the engine.

use pyo3::prelude::*;
use windlass_core::overlap::{Outcome, resolve};
use windlass_core::runs::View;

/// `(address, shape, strides in elements, bytes per element, present in the checkpoint)`.
type PyView = (u64, Vec<u64>, Vec<u64>, u64, bool);

#[pyfunction]
pub(crate) fn resolve_overlaps(
    py: Python<'_>,
    views: Vec<PyView>,
) -> Vec<(&'static str, Option<usize>)> {
    py.detach(|| {
        let views: Vec<_> = views.into_iter().map(view).collect();
        resolve(&views).into_iter().map(outcome).collect()
    })
}

fn view((address, shape, strides, element_bytes, present): PyView) -> (View, bool) {
    (View::counted_in_elements(address, shape, strides, element_bytes), present)
}

fn outcome(outcome: Outcome) -> (&'static str, Option<usize>) {
    match outcome {
        Outcome::Kept => ("kept", None),
        Outcome::PartlyOverwritten { by } => ("partly overwritten", Some(by)),
        Outcome::Overwritten { by } => ("overwritten", Some(by)),
        Outcome::Covered => ("covered", None),
        Outcome::Missing => ("missing", None),
    }
}
