//! How much memory can still be used: by the machine's account, and by the limits of the control
//! groups that this process is in.

use std::fs::read_to_string;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Bytes that this process may still use before the machine swaps or a limit is hit, page cache
/// counted as free. `None` where the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let rooms = least_room(&text_of("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    rooms.into_iter().chain(meminfo(&text_of("/proc/meminfo"), "MemAvailable:")).min()
}

/// Bytes that the limits of the control groups leave this process, free swap counted in: who touches
/// more is ended. `None` without a limit.
#[must_use]
pub fn memory_within_limits() -> Option<u64> {
    let room = least_room(&text_of("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))?;
    let swap = meminfo(&text_of("/proc/meminfo"), "SwapFree:").unwrap_or(0);
    Some(room.saturating_add(swap))
}

fn text_of(path: &str) -> String {
    read_to_string(path).unwrap_or_default()
}

/// Makes scratch memory at least this long. An allocation that fails elsewhere ends the process,
/// so this is the way for sizes that come from files.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`].
pub(crate) fn grow(scratch: &mut Vec<u8>, len: usize) -> io::Result<()> {
    if len > scratch.len() {
        scratch.try_reserve_exact(len - scratch.len()).map_err(|_| no_memory())?;
        scratch.resize(len, 0);
    }
    Ok(())
}

/// Makes sure that about as much memory can be had, for what is then allocated in small parts.
/// Nothing of it is touched.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`].
pub(crate) fn check_room(bytes: usize) -> io::Result<()> {
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| no_memory())
}

/// As the system says it.
fn no_memory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEM)
}

fn meminfo(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Version 1 says "no limit" by a number of about this size, version 2 by a word.
const UNLIMITED: u64 = 1 << 62;

/// The names of a group's files.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// Fields of `memory.stat` that say how much of the usage the kernel gives back when it is
    /// needed: page cache, and what it remembers of names and files. Usage holds the kernel's memory
    /// in both versions, but the first never says how much of it could be given back (admin-guide/
    /// cgroup-v1/memory.rst, 2.7 and 5.2): there all of it counts as used.
    reclaimable: &'static [&'static str],
}

const VERSION_1: &Version = &Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_active_file", "total_inactive_file"],
};

const VERSION_2: &Version = &Version {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: &["active_file", "inactive_file", "slab_reclaimable"],
};

/// Folders of all groups that limit this process: its own, and those around it. A container may
/// see its own group as the root, under whatever name; the root is always among them.
fn group_folders(groups: &str, root: &Path) -> Vec<(PathBuf, &'static Version)> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let Some((controllers, path)) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let below: PathBuf = Path::new(path).components().filter(normal).collect();
        let mut add = |root: &Path, version| {
            folders.extend(below.ancestors().map(|below| (root.join(below), version)));
        };
        if controllers.is_empty() {
            add(root, VERSION_2);
            add(&root.join("unified"), VERSION_2); // Where both versions are in use.
        } else if controllers.split(',').any(|name| name == "memory") {
            add(&root.join("memory"), VERSION_1);
        }
    }
    folders
}

/// What the tightest of all groups leaves; `groups` is as `/proc/self/cgroup` has them.
fn least_room(groups: &str, root: &Path) -> Option<u64> {
    let folders = group_folders(groups, root).into_iter();
    folders.filter_map(|(folder, version)| room_of(&folder, version)).min()
}

/// What a group's limit leaves, if it has one.
fn room_of(folder: &Path, version: &Version) -> Option<u64> {
    let read = |name| read_to_string(folder.join(name)).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let limit = read(version.limit).and_then(number)?;
    if limit >= UNLIMITED {
        return None;
    }
    let usage = read(version.usage).and_then(number)?;
    let reclaimable = read("memory.stat").map_or(0, |stat| reclaimable_of(&stat, version));
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
}

fn reclaimable_of(stat: &str, version: &Version) -> u64 {
    let fields = stat.lines().filter_map(|line| line.split_once(' '));
    let reclaimable = fields.filter(|(name, _)| version.reclaimable.contains(name));
    reclaimable.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_machine_says_what_is_available() {
        let text = "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   20 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(20 << 10));
        assert_eq!(meminfo(text, "SwapFree:"), None);
        assert_eq!(meminfo("MemAvailable: many kB\n", "MemAvailable:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn groups_of_both_versions_are_found_with_those_around_them() {
        let root = Path::new("/r");
        let found = group_folders("12:cpu:/x\n4:hugetlb,memory:/a/b\n0::/../c\nnonsense\n", root);
        let folders: Vec<_> = found.iter().map(|(folder, _)| folder.to_str().unwrap()).collect();
        let first = ["/r/memory/a/b", "/r/memory/a", "/r/memory/"];
        assert_eq!(folders[..3], first);
        assert_eq!(folders[3..], ["/r/c", "/r/", "/r/unified/c", "/r/unified/"]);
        assert!(found.iter().enumerate().all(|(i, (_, version))| {
            **version == *(if i < first.len() { VERSION_1 } else { VERSION_2 })
        }));
    }

    #[test]
    fn the_tightest_group_around_a_process_counts() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("slice/job");
        fs::create_dir_all(&inner).unwrap();
        let room = || least_room("0::/slice/job\n", top.path());
        assert_eq!(room(), None);
        let limit = |folder: &Path, max: &str, current: &str| {
            fs::write(folder.join("memory.max"), max).unwrap();
            fs::write(folder.join("memory.current"), current).unwrap();
        };
        limit(&inner, "max\n", "100\n");
        assert_eq!(room(), None);
        limit(inner.parent().unwrap(), "1000\n", "300\n");
        assert_eq!(room(), Some(700));
        limit(&inner, "500\n", "100\n");
        assert_eq!(room(), Some(400));
        limit(top.path(), "300\n", "299\n");
        assert_eq!(room(), Some(1));
    }

    #[test]
    fn the_page_cache_of_a_group_counts_as_room() {
        let folder = tempfile::tempdir().unwrap();
        let room = || room_of(folder.path(), VERSION_2);
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(room(), None, "no group");
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(room(), None, "no limit");
        write("memory.max", "9223372036854771712\n");
        assert_eq!(room(), None, "no limit, as version 1 says it");
        write("memory.max", "900\n");
        assert_eq!(room(), Some(300));
        write("memory.stat", "anon 100\nactive_file 150\ninactive_file 50\nfile 1\n");
        assert_eq!(room(), Some(500));
        write("memory.stat", "active_file 150\ninactive_file 50\nslab_reclaimable 7\nslab 9\n");
        assert_eq!(room(), Some(507));
        write("memory.current", "9999\n");
        assert_eq!(room(), Some(0));
    }

    #[test]
    fn of_version_1_the_page_cache_of_all_below_counts_as_room_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("memory.limit_in_bytes", "900\n");
        write("memory.usage_in_bytes", "600\n");
        write("memory.kmem.usage_in_bytes", "70\n"); // Stacks too, which nobody gives back.
        let own = "cache 90\nshmem 10\nactive_file 50\ninactive_file 30\n";
        let below = "total_cache 160\ntotal_shmem 10\ntotal_active_file 100\n";
        write("memory.stat", &format!("{own}{below}total_inactive_file 50\nslab_reclaimable 7\n"));
        assert_eq!(room_of(folder.path(), VERSION_1), Some(450));
    }
}
