//! Stands in for `uring.rs` in a build that has no `io_uring`: it is always refused.

use super::choose::NoUring;
use super::{Backend, Io, ReadOptions};
use crate::plan::PlanOptions;

/// What there is none of.
#[derive(Clone, Debug)]
pub(super) enum Uring {}

impl Uring {
    pub(super) fn start(_options: &ReadOptions) -> Result<Self, NoUring> {
        Err(NoUring::NotBuilt)
    }

    pub(super) fn fitting(&self, _options: &ReadOptions) -> PlanOptions {
        match *self {}
    }

    pub(super) fn backend(&self, _io: Io, _options: &ReadOptions) -> Box<dyn Backend + Send> {
        match *self {}
    }
}

pub(super) fn lone() -> &'static dyn Backend {
    super::backend(Io::Auto)
}
