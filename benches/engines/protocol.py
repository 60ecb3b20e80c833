"""What every engine does around its one timed call: arguments, cache state, clock, memory, line."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from definitions import STATES, UNCONTROLLED, UNTOUCHED, Workload
from harness.machine import package_versions
from harness.memory import (
    bytes_from_storage,
    read_memory,
    reset_peak,
    touch_and_free,
    unwritten_bytes,
)
from harness.page_cache import bring_to, write_back
from workloads import files_read, find_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.page_cache import FileRange

T = TypeVar("T")

PLAN_FRESH_BYTES = 1 << 30  # Ample for a million tensors' names.
# Tasks that end with tensors in fresh memory: for those, and for what some competitors hold beside
# them, or for pages of files that were not cached.
FRESH_TASKS, FRESH_SHARE = {"fresh", "forward"}, 2
LEFT_ALONE_SECONDS = 5.0  # Linux reports free pages to the host after two.


@dataclass(frozen=True)
class Arguments:
    """The command line of an engine, understood."""

    workload: Workload
    folder: Path
    cache: str
    variant: str
    threads: int


@dataclass(frozen=True)
class Measurement:
    """What the clock and the kernel's counters say of one call."""

    seconds: float
    resident_fraction: float | None
    read_from_storage_bytes: int
    unwritten_bytes_before: int  # Of all files on the machine.
    unwritten_bytes_after: int
    touched_and_freed_bytes: int
    peak_was_reset: bool
    resident_bytes_before: int
    anonymous_bytes_before: int
    anonymous_bytes_after: int
    peak_bytes: int
    peak_bytes_by_rusage: int
    extra_peak_bytes: int
    user_seconds: float
    system_seconds: float
    load_average: float


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Read the arguments that all engines share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True, type=find_workload)
    parser.add_argument("--folder", required=True, type=Path, help="folder of the checkpoint")
    parser.add_argument("--cache", choices=STATES, default=UNCONTROLLED)
    parser.add_argument("--variant", default="default", help="setting of this engine")
    parser.add_argument("--threads", type=int, default=4, help="threads of the raw limit")
    return Arguments(**vars(parser.parse_args(argv)))


def measure(
    call: Callable[[], T], arguments: Arguments, suffix: str = ".safetensors"
) -> tuple[T, Measurement]:
    """Ready memory and cache, run `call` once under the clock, read the kernel's counters.

    Raises:
        CacheStateError: the files could not be brought to the asked state.
    """
    files = files_read(arguments.workload, arguments.folder, suffix)
    gc.collect()
    fraction, touched = ready_machine(arguments, files)
    return run_clock(call, touched, fraction)


def run_clock(
    call: Callable[[], T], touched_bytes: int, resident_fraction: float | None = None
) -> tuple[T, Measurement]:
    """Run `call` once under the clock and read the kernel's counters; the machine is ready."""
    was_reset, unwritten_before = reset_peak(), unwritten_bytes()
    before, storage_before, times_before = read_memory(), bytes_from_storage(), os.times()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    after, times_after, unwritten_after = read_memory(), os.times(), unwritten_bytes()
    return result, Measurement(
        seconds=seconds,
        resident_fraction=resident_fraction,
        read_from_storage_bytes=bytes_from_storage() - storage_before,
        unwritten_bytes_before=unwritten_before,
        unwritten_bytes_after=unwritten_after,
        touched_and_freed_bytes=touched_bytes,
        peak_was_reset=was_reset,
        resident_bytes_before=before.resident,
        anonymous_bytes_before=before.anonymous,
        anonymous_bytes_after=after.anonymous,
        peak_bytes=after.peak,
        peak_bytes_by_rusage=after.peak_by_rusage,
        extra_peak_bytes=after.peak - before.resident,
        user_seconds=times_after.user - times_before.user,
        system_seconds=times_after.system - times_before.system,
        load_average=os.getloadavg()[0],
    )


def ready_machine(arguments: Arguments, files: Sequence[FileRange]) -> tuple[float | None, int]:
    """Touch and free memory, then bring the files to their cache state, the last thing of all.

    In that order, because touching memory can push files out of the cache.
    """
    if arguments.cache == UNCONTROLLED:
        return None, 0
    touched = touch_and_free(_bytes_to_touch(arguments.workload.task, files))
    return bring_to(arguments.cache, files), touched


def _bytes_to_touch(task: str, files: Sequence[FileRange]) -> int:
    if task == "plan":
        return PLAN_FRESH_BYTES
    return sum(part.num_bytes for part in files) * (FRESH_SHARE if task in FRESH_TASKS else 1)


def ready_to_write(arguments: Arguments, num_bytes: int) -> int:
    """Write back all files of the machine, and touch and free memory, unless it is left alone.

    Returns the bytes touched.

    Raises:
        CacheStateError: others write all the time.
    """
    write_back()
    if arguments.cache == UNTOUCHED:
        time.sleep(LEFT_ALONE_SECONDS)
        touched = 0
    else:
        touched = touch_and_free(num_bytes)
    write_back()
    return touched


def emit(measurement: Measurement | None = None, /, **facts: object) -> None:
    """Print the JSON line of one measurement."""
    measured = asdict(measurement) if measurement else {}
    line = measured | facts | {"versions": package_versions()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
