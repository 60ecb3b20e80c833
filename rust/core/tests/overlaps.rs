//! `overlap::resolve` against an oracle that paints single bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use windlass_core::overlap::{Outcome, resolve};
use windlass_core::runs::View;

/// Any strides: gaps, overlaps within the view, expanded dimensions (stride 0), no elements.
fn any_view() -> impl Strategy<Value = View> {
    let dims = vec((0..4_u64, 0..13_u64), 0..4);
    (0..40_u64, dims, 1..5_u64).prop_map(|(address, dims, element_bytes)| {
        let (shape, strides) = dims.into_iter().unzip();
        View { address, shape, strides, element_bytes }
    })
}

/// What models do: a matrix of 4 × 6 two-byte elements, or rows or columns of it, perhaps
/// transposed, flattened, or expanded.
fn view_of_a_matrix() -> impl Strategy<Value = View> {
    let element_bytes = 2;
    (0..3_u64, 1..5_u64, 0..4_u64, 1..7_u64, 0..4_u8).prop_map(
        move |(row, rows, column, columns, kind)| {
            let (rows, columns) = (rows.min(4 - row), columns.min(6 - column));
            let address = (row * 6 + column) * element_bytes;
            let (row_stride, column_stride) = (6 * element_bytes, element_bytes);
            let (shape, strides) = match kind {
                0 => (vec![rows, columns], vec![row_stride, column_stride]),
                1 => (vec![columns, rows], vec![column_stride, row_stride]),
                2 => (vec![3, rows, columns], vec![0, row_stride, column_stride]),
                _ => return View { address: 0, shape: vec![24], strides: vec![2], element_bytes },
            };
            View { address, shape, strides, element_bytes }
        },
    )
}

/// Every byte of a view, element by element.
fn bytes(view: &View) -> BTreeSet<u64> {
    let mut elements = vec![view.address];
    for (&length, &stride) in view.shape.iter().zip(&view.strides) {
        elements = elements
            .iter()
            .flat_map(|element| (0..length).map(move |i| element + i * stride))
            .collect();
    }
    elements.iter().flat_map(|&element| element..element + view.element_bytes).collect()
}

/// Present views write all their bytes in order; then each view looks at who wrote to it last.
fn naive_resolve(views: &[(View, bool)]) -> Vec<Outcome> {
    let mut writers = BTreeMap::new();
    for (i, (view, _)) in views.iter().enumerate().filter(|(_, (_, present))| *present) {
        writers.extend(bytes(view).into_iter().map(|byte| (byte, i)));
    }
    let outcome = |(i, (view, present)): (usize, &(View, bool))| {
        let found: BTreeSet<Option<&usize>> =
            bytes(view).iter().map(|byte| writers.get(byte)).collect();
        let others = found.iter().copied().flatten().filter(|&&writer| writer != i);
        match (present, others.max()) {
            (true, None) => Outcome::Kept,
            (true, Some(&by)) if found.contains(&Some(&i)) => Outcome::PartlyOverwritten { by },
            (true, Some(&by)) => Outcome::Overwritten { by },
            (false, _) if found.is_empty() || found.contains(&None) => Outcome::Missing,
            (false, _) => Outcome::Covered,
        }
    };
    views.iter().enumerate().map(outcome).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_views_resolve_as_painted_byte_by_byte(
        views in vec((any_view(), any::<bool>()), 0..7),
    ) {
        prop_assert_eq!(resolve(&views), naive_resolve(&views));
    }

    #[test]
    fn views_of_one_matrix_resolve_as_painted_byte_by_byte(
        views in vec((view_of_a_matrix(), any::<bool>()), 1..7),
    ) {
        prop_assert_eq!(resolve(&views), naive_resolve(&views));
    }

    #[test]
    fn a_view_alone_is_kept_or_missing(view in any_view(), present in any::<bool>()) {
        let expected = if present { Outcome::Kept } else { Outcome::Missing };
        prop_assert_eq!(resolve(&[(view, present)]), [expected]);
    }
}
