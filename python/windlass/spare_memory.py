"""How much memory a process may still take, as Linux tells it: the system's, and each cgroup's.

A container sees all memory of the machine in `/proc/meminfo`, and is killed at the limit of its
cgroup.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CGROUPS = "/sys/fs/cgroup"


class _Version(NamedTuple):
    """What a version of cgroups calls its files, and where hierarchies of it may be mounted."""

    mounts: tuple[str, ...]
    limit: str
    usage: str
    reclaimable: str


_V1 = _Version(
    (f"{_CGROUPS}/memory",), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_V2 = _Version((_CGROUPS, f"{_CGROUPS}/unified"), "memory.max", "memory.current", "inactive_file")


def read_text(path: str) -> str | None:
    """Return the text of a file of the kernel; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def spare_bytes(read: Callable[[str], str | None] = read_text) -> int | None:
    """Return the least of what the system and each cgroup above this process can give.

    Args:
        read: gives the text of a file, or None.

    Returns:
        Bytes; None where nothing is known.
    """
    found = [available_bytes(read("/proc/meminfo")), *_rooms(read)]
    return min((room for room in found if room is not None), default=None)


def available_bytes(meminfo: str | None) -> int | None:
    """Take what the system estimates that it can give from the text of `/proc/meminfo`."""
    kibibytes = _fields(meminfo).get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def room_bytes(
    limit: str | None, usage: str | None, stat: str | None, reclaimable: str
) -> int | None:
    """Return what a cgroup can still take: pages of files that nobody uses give way.

    Args:
        limit: text of the file with the limit; `max` if there is none.
        usage: text of the file with what is taken.
        stat: text of `memory.stat`.
        reclaimable: the line in it that counts those pages.
    """
    most, taken = _number(limit), _number(usage)
    if most is None or taken is None:
        return None
    return max(0, most - taken + _fields(stat).get(reclaimable, 0))


def _rooms(read: Callable[[str], str | None]) -> Iterator[int | None]:
    for version, path in _memberships(read("/proc/self/cgroup") or ""):
        for mount in version.mounts:
            for folder in _up(mount, path):
                limit, usage, stat = (
                    read(f"{folder}/{name}")
                    for name in (version.limit, version.usage, "memory.stat")
                )
                yield room_bytes(limit, usage, stat, version.reclaimable)


def _memberships(cgroup: str) -> Iterator[tuple[_Version, str]]:
    """Yield the cgroups that may limit memory out of lines `hierarchy:controllers:path`."""
    for line in cgroup.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield _V2, path
        elif "memory" in controllers.split(","):
            yield _V1, path


def _up(mount: str, path: str) -> Iterator[str]:
    """Yield the folder of a cgroup and all above it, up to the mount."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:count])


def _fields(text: str | None) -> dict[str, int]:
    """Return the first number of each line by the word before it."""
    lines = (line.split() for line in (text or "").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None
