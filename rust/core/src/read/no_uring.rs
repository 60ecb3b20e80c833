//! Stands in for `uring.rs` in a build that has no `io_uring`: it is always refused.

use super::choose::NoUring;
use super::{Backend, Cache, Io};
use crate::plan::PlanOptions;

pub(super) fn fitting(options: &PlanOptions, _threads: usize) -> PlanOptions {
    *options
}

/// What there is none of.
pub(super) enum Uring {}

impl Uring {
    pub(super) fn start(_threads: usize, _cache: Cache) -> Result<Self, NoUring> {
        Err(NoUring::NotBuilt)
    }

    pub(super) fn backend(&self, _io: Io) -> &dyn Backend {
        match *self {}
    }
}

pub(super) fn lone() -> &'static dyn Backend {
    super::backend(Io::Auto)
}
