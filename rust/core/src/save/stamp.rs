//! [`Stamp`]: is a file still the one that was seen?

use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Size and time of modification. They survive a rename and a faithful copy of the folder; nobody
/// else's file has both by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp {
    len: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// The stamp of what is at `path`, be it a link; `None` when nothing can be seen there.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        Self { len: metadata.len(), seconds, nanoseconds }
    }
}
