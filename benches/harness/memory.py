"""Reads and resets this process's memory counters, and readies the machine's free memory."""

from __future__ import annotations

import mmap
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STATUS = Path("/proc/self/status")
SYSTEM = Path("/proc/meminfo")
CLEAR_REFERENCES = Path("/proc/self/clear_refs")
COUNTERS = Path("/proc/self/io")
RESET_PEAK = "5"
KIBIBYTE = 1024
MEMORY_SHARE = 0.4  # Of what is available: readying memory must not push files out of the cache.


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Resident memory of this process, in bytes; `peak` since the last reset."""

    resident: int
    anonymous: int
    peak: int
    peak_by_rusage: int


def read_memory() -> MemoryReading:
    """Take a reading now."""
    return MemoryReading(
        resident=_number(STATUS, "VmRSS") * KIBIBYTE,
        anonymous=_number(STATUS, "RssAnon") * KIBIBYTE,
        peak=_number(STATUS, "VmHWM") * KIBIBYTE,
        peak_by_rusage=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE,
    )


def reset_peak() -> bool:
    """Forget the peak of imports and set-up; False where the kernel does not allow it."""
    try:
        CLEAR_REFERENCES.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def bytes_from_storage() -> int:
    """Bytes this process has made the block device fetch so far."""
    return _number(COUNTERS, "read_bytes")


def unwritten_bytes() -> int:
    """Bytes of files, of this process or any other, that are not on their disks yet."""
    return (_number(SYSTEM, "Dirty") + _number(SYSTEM, "Writeback")) * KIBIBYTE


def touch_and_free(num_bytes: int) -> int:
    """Touch as much fresh memory and hand it back, so that the free pages are really there.

    A virtual machine may have given its free pages back to the host; whoever touches them first
    pays for it. Here everybody has paid before the clock starts. The memory is touched in huge
    pages, so that it is there in large blocks, which can be had as large or as small pages.
    Returns the bytes touched.
    """
    available = _number(SYSTEM, "MemAvailable") * KIBIBYTE
    num_bytes = min(num_bytes, int(available * MEMORY_SHARE))
    if num_bytes <= 0:
        return 0
    with mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(region, dtype=np.uint8)
        pages[:: mmap.PAGESIZE] = 1
        del pages  # The map closes only when nobody looks into it.
    return num_bytes


def _number(source: Path, field: str) -> int:
    """Return the number after `field:` in a file of `/proc`; zero if it is not there."""
    for line in source.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    return 0
