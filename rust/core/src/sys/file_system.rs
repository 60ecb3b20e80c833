//! What kind of file system a file is on.

use std::fmt;
use std::fs::File;

/// Kinds of file systems that want to be read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// On a disk of this machine: ext4, XFS, Btrfs.
    Local,
    /// Its files are memory: tmpfs, ramfs.
    Memory,
    /// Of another machine: NFS, SMB, Ceph, 9P, Lustre.
    Network,
    /// In the hands of another process.
    Fuse,
    /// Layers of others, as in a container.
    Overlay,
    /// Any other, or unknown.
    Other,
}

impl FileSystem {
    /// That of an open file.
    #[must_use]
    pub fn of(file: &File) -> Self {
        #[cfg(target_os = "linux")]
        return linux::magic(file).map_or(Self::Other, Self::of_magic);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = file;
            Self::Other
        }
    }

    /// Whether what is mapped of a file stays at hand as long as the file does: not where another
    /// machine or process gives its pages, for touching one that they do not give is SIGBUS.
    /// Whoever is unknown is not trusted.
    #[must_use]
    pub fn keeps_maps(self) -> bool {
        matches!(self, Self::Local | Self::Memory | Self::Overlay)
    }

    /// The kind that has this number in `linux/magic.h`, or in its own source.
    #[cfg(target_os = "linux")]
    fn of_magic(magic: u32) -> Self {
        match magic {
            0xEF53 | 0x5846_5342 | 0x9123_683E => Self::Local,
            0x0102_1994 | 0x8584_58F6 => Self::Memory,
            0x6969 | 0xFF53_4D42 | 0xFE53_4D42 | 0x00C3_6400 | 0x0102_1997 | 0x0BD0_0BD0 => {
                Self::Network
            }
            0x6573_5546 => Self::Fuse,
            0x794C_7630 => Self::Overlay,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "a local disk",
            Self::Memory => "a file system in memory",
            Self::Network => "a network file system",
            Self::Fuse => "FUSE",
            Self::Overlay => "an overlay",
            Self::Other => "an unknown file system",
        })
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    pub(super) fn magic(file: &File) -> Option<u32> {
        let mut facts = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: `facts` has room for what is written to it; the descriptor is open as long as
        // `file` lives.
        if unsafe { libc::fstatfs(file.as_raw_fd(), facts.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: the call succeeded, so it filled `facts`.
        let facts = unsafe { facts.assume_init() };
        #[expect(clippy::cast_possible_truncation, reason = "the numbers have 32 bits")]
        #[expect(clippy::cast_sign_loss, reason = "the numbers are unsigned")]
        Some(facts.f_type as u32)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_on_no_disk() {
        let file = File::open("/proc/self/status").unwrap();
        assert_eq!(FileSystem::of(&file), FileSystem::Other);
    }

    #[test]
    fn numbers_of_file_systems_are_known() {
        let rows = [
            (0xEF53, FileSystem::Local),
            (0x9123_683E, FileSystem::Local),
            (0x0102_1994, FileSystem::Memory),
            (0x6969, FileSystem::Network),
            (0x6573_5546, FileSystem::Fuse),
            (0x794C_7630, FileSystem::Overlay),
            (0, FileSystem::Other),
        ];
        for (magic, expected) in rows {
            assert_eq!(FileSystem::of_magic(magic), expected, "{magic:#x}");
        }
    }

    #[test]
    fn maps_last_where_no_other_machine_or_process_gives_the_pages() {
        let kept = [FileSystem::Local, FileSystem::Memory, FileSystem::Overlay];
        assert!(kept.into_iter().all(FileSystem::keeps_maps));
        let lost = [FileSystem::Network, FileSystem::Fuse, FileSystem::Other];
        assert!(!lost.into_iter().any(FileSystem::keeps_maps));
    }
}
