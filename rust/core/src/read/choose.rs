//! Facts about a shard → the way it is read, and why. Pure.

use super::{Cache, Io};
use crate::sys::file_system::FileSystem;
use std::fmt;
use std::io;

/// Parts shorter than this on average are left to the page cache, which fetches no more than the
/// pages they touch, and keeps those that the next one touches too.
const SMALL_READ_BYTES: u64 = 64 << 10;

/// What is known of a shard before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes to be read of this shard.
    pub read_bytes: u64,
    /// About how many of them are in the page cache.
    pub resident: u64,
    /// Parts of the shard that they are in, apart from each other; how these are cut into reads does
    /// not matter.
    pub parts: u64,
    /// Bytes that are to be read of all shards together and are not in the page cache.
    pub missing_of_all: u64,
    /// Memory that can still be used; `None`: unknown.
    pub available: Option<u64>,
    /// Where the shard is.
    pub file_system: FileSystem,
    /// What is to become of the page cache.
    pub cache: Cache,
}

/// Why a shard is read the way it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller said so.
    Asked,
    /// So little is wanted that looking would take longer.
    Little,
    /// The shard could not be looked at.
    Unknown,
    /// The file system gives nothing else, or is best read so.
    FileSystem(FileSystem),
    /// Most of it is in the page cache.
    Resident,
    /// Many short reads.
    SmallReads,
    /// It is not in the page cache, and is to be left out of it.
    LeavesNoTrace,
    /// Not in the page cache, which has room to keep it.
    Fits,
    /// Not in the page cache, and too large to keep there.
    TooLarge,
    /// The system refused to read past the page cache.
    Refused,
    /// Several reads at a time were asked for, and cannot be had.
    NoUring(NoUring),
}

/// Why there is no `io_uring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUring {
    /// It was left out when this library was built, or the system has none.
    NotBuilt,
    /// The system refused it, by this error number.
    Refused(i32),
}

impl fmt::Display for NoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str("io_uring is not in this build"),
            Self::Refused(code) => {
                write!(f, "io_uring was refused: {}", io::Error::from_raw_os_error(*code))
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked for",
            Self::Little => "too little to look first",
            Self::Unknown => "nothing is known about it",
            Self::FileSystem(kind) => return write!(f, "on {kind}"),
            Self::Resident => "in the page cache",
            Self::SmallReads => "many short reads",
            Self::LeavesNoTrace => "leaves no trace in the page cache",
            Self::Fits => "the page cache has room for it",
            Self::TooLarge => "the page cache has no room for it",
            Self::Refused => "direct reads were refused",
            Self::NoUring(refusal) => return refusal.fmt(f),
        })
    }
}

/// Chooses: through the page cache where that helps now or may help the next time, and past it
/// where it would only push out what others need.
///
/// "Room" is half of the available memory, for the destinations may be fresh and need as much.
#[must_use]
pub fn choose(facts: &Facts) -> (Io, Reason) {
    let short = facts.read_bytes / facts.parts.max(1) < SMALL_READ_BYTES;
    match (facts.file_system, facts.available) {
        (kind @ (FileSystem::Memory | FileSystem::Network | FileSystem::Fuse), _) => {
            (Io::Buffered, Reason::FileSystem(kind))
        }
        _ if facts.resident > facts.read_bytes / 2 => (Io::Buffered, Reason::Resident),
        _ if short => (Io::Buffered, Reason::SmallReads),
        _ if facts.cache == Cache::Drop => (Io::Direct, Reason::LeavesNoTrace),
        (_, None) => (Io::Buffered, Reason::Unknown),
        (_, Some(available)) if facts.missing_of_all <= available / 2 => {
            (Io::Buffered, Reason::Fits)
        }
        _ => (Io::Direct, Reason::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    /// A cold shard of one of 5 GB on a disk, with much memory.
    const COLD: Facts = Facts {
        read_bytes: 5 * GB,
        resident: 0,
        parts: 3,
        missing_of_all: 5 * GB,
        available: Some(24 * GB),
        file_system: FileSystem::Local,
        cache: Cache::Keep,
    };

    #[test]
    fn each_situation_has_its_way() {
        let full = Facts { available: Some(9 * GB), ..COLD };
        let drop = Facts { cache: Cache::Drop, ..COLD };
        let short = |facts| Facts { parts: 1 << 20, ..facts };
        let cached = |facts| Facts { resident: 3 * GB, ..facts };
        let on = |file_system| Facts { file_system, ..full };
        let rows = [
            ("cold", COLD, (Io::Buffered, Reason::Fits)),
            ("cached", cached(COLD), (Io::Buffered, Reason::Resident)),
            ("half cached", Facts { resident: GB, ..COLD }, (Io::Buffered, Reason::Fits)),
            ("no room", full, (Io::Direct, Reason::TooLarge)),
            ("no room, cached", cached(full), (Io::Buffered, Reason::Resident)),
            ("no room, short reads", short(full), (Io::Buffered, Reason::SmallReads)),
            (
                "no room for all shards",
                Facts { missing_of_all: 50 * GB, ..COLD },
                (Io::Direct, Reason::TooLarge),
            ),
            ("room unknown", Facts { available: None, ..full }, (Io::Buffered, Reason::Unknown)),
            ("no trace", drop, (Io::Direct, Reason::LeavesNoTrace)),
            ("no trace, cached", cached(drop), (Io::Buffered, Reason::Resident)),
            ("no trace, short reads", short(drop), (Io::Buffered, Reason::SmallReads)),
            ("overlay", on(FileSystem::Overlay), (Io::Direct, Reason::TooLarge)),
            ("unknown disk", on(FileSystem::Other), (Io::Direct, Reason::TooLarge)),
            (
                "tmpfs",
                on(FileSystem::Memory),
                (Io::Buffered, Reason::FileSystem(FileSystem::Memory)),
            ),
            (
                "NFS",
                on(FileSystem::Network),
                (Io::Buffered, Reason::FileSystem(FileSystem::Network)),
            ),
            (
                "FUSE, no trace",
                Facts { cache: Cache::Drop, ..on(FileSystem::Fuse) },
                (Io::Buffered, Reason::FileSystem(FileSystem::Fuse)),
            ),
        ];
        for (situation, facts, expected) in rows {
            assert_eq!(choose(&facts), expected, "{situation}");
        }
    }

    #[test]
    fn half_of_the_available_memory_is_room() {
        let with = |available| choose(&Facts { available: Some(available), ..COLD });
        assert_eq!(with(10 * GB), (Io::Buffered, Reason::Fits));
        assert_eq!(with(10 * GB - 2), (Io::Direct, Reason::TooLarge));
    }

    #[test]
    fn nothing_to_read_is_no_reason_to_divide_by_it() {
        let nothing = Facts { read_bytes: 0, parts: 0, missing_of_all: 0, ..COLD };
        assert_eq!(choose(&nothing), (Io::Buffered, Reason::SmallReads));
    }

    #[test]
    fn reasons_are_told_in_words() {
        assert_eq!(Reason::Fits.to_string(), "the page cache has room for it");
        assert_eq!(Reason::FileSystem(FileSystem::Fuse).to_string(), "on FUSE");
    }
}
