"""Brings the page cache to a known state, and proves it.

`cachestat(2)` (Linux 6.5) or else `mincore(2)` says how many pages of a range are resident.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.memory import unwritten_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLD_MAX_RESIDENT = 0.01
WARM_MIN_RESIDENT = 0.99
UNWRITTEN_MAX_BYTES = 32 << 20  # Others may write a little.
ATTEMPTS = 5
PAUSE_SECONDS = 0.2
READ_BLOCK_BYTES = 4 << 20
CACHESTAT_SYSCALL = 451  # The same number on every architecture.
PAGE_BYTES = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


class CacheStateError(RuntimeError):
    """The page cache could not be brought to the state that was asked for."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """The part of a file, from its beginning, that a workload reads."""

    path: Path
    num_bytes: int


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def bring_to(state: str, ranges: Sequence[FileRange]) -> float:
    """Make `ranges` `cold` or `warm` and return the resident fraction then measured.

    Raises:
        CacheStateError: the state was not reached in five attempts.
    """
    change = {"cold": _drop, "warm": _read_through}[state]
    for _ in range(ATTEMPTS):
        for part in ranges:
            change(part)
        fraction = resident_fraction(ranges)
        if _is_in_state(state, fraction):
            return fraction
        time.sleep(PAUSE_SECONDS)
    message = f"{fraction:.1%} of the files is resident: not {state} after {ATTEMPTS} attempts"
    raise CacheStateError(message)


def write_back() -> None:
    """Write every file of the machine to its disk.

    Raises:
        CacheStateError: in five attempts, others have written as fast.
    """
    for _ in range(ATTEMPTS):
        os.sync()
        left = unwritten_bytes()
        if left <= UNWRITTEN_MAX_BYTES:
            return
        time.sleep(PAUSE_SECONDS)
    message = f"{left} bytes of files are not on the disk after {ATTEMPTS} attempts"
    raise CacheStateError(message)


def resident_fraction(ranges: Sequence[FileRange]) -> float:
    """Resident pages of all `ranges` divided by all their pages."""
    pages = sum(-(-part.num_bytes // PAGE_BYTES) for part in ranges)
    return sum(_resident_pages(part) for part in ranges) / pages if pages else 1.0


def _is_in_state(state: str, fraction: float) -> bool:
    return fraction <= COLD_MAX_RESIDENT if state == "cold" else fraction >= WARM_MIN_RESIDENT


def _drop(part: FileRange) -> None:
    """Drop the whole file: advice about a part keeps the page at its ragged end."""
    descriptor = os.open(part.path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read_through(part: FileRange) -> None:
    buffer = memoryview(bytearray(min(READ_BLOCK_BYTES, max(part.num_bytes, 1))))
    left = part.num_bytes
    with part.path.open("rb", buffering=0) as file:
        while left > 0 and (count := file.readinto(buffer[: min(left, len(buffer))])):
            left -= count


def _resident_pages(part: FileRange) -> int:
    if part.num_bytes == 0:
        return 0
    descriptor = os.open(part.path, os.O_RDONLY)
    try:
        return _by_cachestat(descriptor, part.num_bytes)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP}:
            raise
        return _by_mincore(descriptor, part.num_bytes)
    finally:
        os.close(descriptor)


def _by_cachestat(descriptor: int, num_bytes: int) -> int:
    asked, answer = _Range(0, num_bytes), _CacheStat()
    result = _libc.syscall(
        CACHESTAT_SYSCALL, descriptor, ctypes.byref(asked), ctypes.byref(answer), 0
    )
    if result != 0:
        raise OSError(ctypes.get_errno(), "cachestat")
    return int(answer.cached)


def _by_mincore(descriptor: int, num_bytes: int) -> int:
    address = _libc.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        pages = ctypes.create_string_buffer(-(-num_bytes // PAGE_BYTES))
        if _libc.mincore(address, num_bytes, pages) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(byte & 1 for byte in pages.raw)
    finally:
        _libc.munmap(address, num_bytes)
