//! [`Means`]: what one reads with. A queue of `io_uring` is there or not; everything else always is.

use super::choose::{NoUring, Reason};
use super::uring::Uring;
use super::{Backend, Io, ReadOptions, backend_leaving, direct};
use crate::plan::PlanOptions;

/// What was asked for, as far as the system gives it.
#[derive(Clone, Debug)]
pub(super) struct Means {
    /// [`Io::Auto`], where queues were asked for and refused.
    pub(super) io: Io,
    uring: Option<Uring>,
    refusal: Option<NoUring>,
}

impl Means {
    pub(super) fn of(options: &ReadOptions) -> Self {
        let start = || Uring::start(options);
        match (options.io == Io::Uring).then(start).transpose() {
            Ok(uring) => Self { io: options.io, uring, refusal: None },
            Err(refusal) => Self { io: Io::Auto, uring: None, refusal: Some(refusal) },
        }
    }

    /// Chunks that can be taken in one go.
    pub(super) fn fitting(&self, options: &ReadOptions) -> PlanOptions {
        match (&self.uring, self.io) {
            (Some(uring), _) => uring.fitting(options),
            (None, Io::Mapped | Io::Buffered) => options.plan,
            (None, _) => direct::fitting(&options.plan, options.reader_threads()),
        }
    }

    /// The backend for a way that was chosen.
    pub(super) fn backend(&self, io: Io, options: &ReadOptions) -> Box<dyn Backend + Send> {
        match &self.uring {
            Some(uring) => uring.backend(io, options),
            None => Box::new(backend_leaving(io, options.cache)),
        }
    }

    /// Why a way was chosen: that there are no queues comes first.
    pub(super) fn reason(&self, chosen: Reason) -> Reason {
        self.refusal.map_or(chosen, Reason::NoUring)
    }
}
