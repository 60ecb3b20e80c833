//! Parts of tensors, cut along dimensions, packed into memory: columns of a matrix for one rank.

use super::job::{Job, JobDest};
use super::rows::RowsDest;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::runs::{Footprint, View};
use crate::sys::dest::Dest;

/// Which elements of one dimension are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// From one to the next; at least 1.
    pub step: u64,
}

/// Part of a tensor, and the memory that takes it.
#[derive(Debug)]
pub struct CutJob<'a> {
    /// Position of the tensor in the checkpoint.
    pub tensor: usize,
    /// Dimensions that the cuts count in; their product divides the tensor's bytes into elements.
    pub shape: Vec<u64>,
    /// One for each dimension.
    pub cuts: Vec<Cut>,
    /// Memory to fill, in the order of the elements.
    pub dest: Dest<'a>,
}

impl Checkpoint {
    /// Resolves cuts to jobs for [`Checkpoint::read_into`], one for each; what is empty has none.
    ///
    /// A job reads its runs of bytes together with what lies between them where that is no more than
    /// [`PlanOptions::max_gap`](crate::plan::PlanOptions::max_gap), and so no byte twice. Two jobs
    /// that want columns of the same rows read what lies between them twice.
    ///
    /// # Errors
    /// [`Error::CutOutside`] when a cut leaves its dimension, or the address space;
    /// [`Error::DestinationSize`]; [`Error::DestinationsOverlap`].
    pub fn cut_jobs<'a>(&self, parts: Vec<CutJob<'a>>) -> Result<Vec<Job<'a>>> {
        let spans = parts.iter().map(|part| (part.dest.span(), part.tensor)).collect();
        self.refuse_overlap(spans)?;
        let jobs = parts.into_iter().map(|part| self.cut_job(part));
        jobs.filter_map(Result::transpose).collect()
    }

    fn cut_job<'a>(&self, part: CutJob<'a>) -> Result<Option<Job<'a>>> {
        let CutJob { tensor, shape, cuts, dest } = part;
        let (name, located) = self.tensor(tensor);
        let byte_len = located.file_range.end - located.file_range.start;
        let outside = |shape| Error::CutOutside { tensor: name.to_owned(), shape, byte_len };
        let Some(view) = cut_view(byte_len, &shape, &cuts) else { return Err(outside(shape)) };
        let expected = view.shape.iter().product::<u64>() * view.element_bytes;
        let found = dest.len() as u64;
        if expected != found {
            return Err(Error::DestinationSize { tensor: name.to_owned(), expected, found });
        }
        let Some(footprint) = Footprint::of(&view) else { return Ok(None) };
        // Runs are filled by address: the order of the elements, as the steps of a cut shrink from
        // dimension to dimension.
        let dest = if footprint.dims().is_empty() {
            dest.into()
        } else {
            JobDest::Rows(RowsDest::new(&footprint, dest).map_err(|_| outside(shape))?)
        };
        Ok(Some(Job { tensor, start: footprint.span().start, dest }))
    }
}

/// The wanted elements by their bytes within the tensor; `None` if they are not all within it.
fn cut_view(byte_len: u64, shape: &[u64], cuts: &[Cut]) -> Option<View> {
    if shape.len() != cuts.len() {
        return None;
    }
    let count = shape.iter().try_fold(1_u64, |product, &length| product.checked_mul(length))?;
    let element_bytes = byte_len.checked_div(count).unwrap_or(1);
    if count.checked_mul(element_bytes)? != byte_len {
        return None;
    }
    let (mut address, mut stride, mut strides) = (0, element_bytes, vec![0; cuts.len()]);
    for (dimension, (cut, &length)) in cuts.iter().zip(shape).enumerate().rev() {
        let last = cut.count.checked_sub(1).map(|steps| steps.checked_mul(cut.step));
        let end =
            last.map_or(Some(cut.first), |reach| reach?.checked_add(cut.first)?.checked_add(1));
        if cut.step == 0 || end? > length {
            return None;
        }
        // Too large only where there is no element, or a dimension is not walked.
        address = cut.first.saturating_mul(stride).saturating_add(address);
        strides[dimension] = stride.saturating_mul(cut.step);
        stride = stride.saturating_mul(length);
    }
    let shape = cuts.iter().map(|cut| cut.count).collect();
    Some(View { address, shape, strides, element_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(first: u64, count: u64, step: u64) -> Cut {
        Cut { first, count, step }
    }

    fn runs(shape: &[u64], cuts: &[Cut]) -> Option<(Vec<u64>, u64)> {
        let view = cut_view(2 * shape.iter().product::<u64>(), shape, cuts)?;
        Some(Footprint::of(&view).map_or((vec![], 0), |found| (found.starts(), found.run_bytes())))
    }

    #[test]
    fn rows_are_one_run_and_columns_one_for_each_row() {
        let all = |length| cut(0, length, 1);
        assert_eq!(runs(&[4, 5], &[cut(1, 2, 1), all(5)]), Some((vec![10], 20)));
        assert_eq!(runs(&[4, 5], &[all(4), cut(2, 3, 1)]), Some((vec![4, 14, 24, 34], 6)));
        assert_eq!(runs(&[4, 5], &[cut(1, 2, 2), all(5)]), Some((vec![10, 30], 10)));
        assert_eq!(runs(&[2, 2, 3], &[all(2), cut(1, 1, 1), all(3)]), Some((vec![6, 18], 6)));
        assert_eq!(runs(&[4], &[cut(0, 2, 3)]), Some((vec![0, 6], 2)));
        assert_eq!(runs(&[], &[]), Some((vec![0], 2)));
    }

    #[test]
    fn nothing_is_no_run() {
        assert_eq!(runs(&[4, 5], &[cut(4, 0, 1), cut(0, 5, 1)]), Some((vec![], 0)));
        assert_eq!(runs(&[0, 5], &[cut(0, 0, 1), cut(0, 5, 1)]), Some((vec![], 0)));
    }

    #[test]
    fn cuts_that_leave_their_dimension_are_refused() {
        for wrong in [cut(4, 1, 1), cut(0, 5, 1), cut(1, 2, 3), cut(0, 2, u64::MAX), cut(0, 1, 0)] {
            assert_eq!(runs(&[4], &[wrong]), None, "{wrong:?}");
        }
        assert_eq!(runs(&[4, 4], &[cut(0, 1, 1)]), None);
    }
}
