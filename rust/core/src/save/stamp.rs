//! [`Stamp`]: is a file still the one that was seen?

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io;
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
    /// The stamp of what is at `path`, be it a link; `None` when nothing is there.
    pub(super) fn at(path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::save(path, None, "looking at", error)),
        }
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        Self { len: metadata.len(), seconds, nanoseconds }
    }
}
