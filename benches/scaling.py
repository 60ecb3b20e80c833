"""The workloads of the scaling plots: one amount grows, everything else stays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from definitions import WARM, Competitor, Workload
from loading import HUB, LIMIT, RULE, WINDLASS
from saving import SPLIT_COUNTS, split_workload

if TYPE_CHECKING:
    from collections.abc import Callable

FLAT_COUNTS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
QUADRATIC_MAX_COUNT = 20_000  # Above it the references need minutes for one load of child modules.
MEGABYTE_COUNTS = (250, 500, 1_000, 2_000, 4_000)
SHARD_COUNTS = (1, 4, 16, 64)
THREAD_COUNTS = (1, 2, 4, 8, 16, 32)


def flat_workload(shape: str, count: int) -> Workload:
    """Return a point of the tensors' plot; references that are quadratic leave early."""
    place = "child modules" if shape == "children" else "parameters of one module"
    with_references = shape == "parameters" or count <= QUADRATIC_MAX_COUNT
    return Workload(
        f"flat-{shape}-{count}",
        f"{count:,} tensors of 1 KiB, {place}",
        "fill",
        f"flat-{shape}-{count}",
        (WINDLASS, RULE, HUB) if with_references else (WINDLASS,),
        states=(WARM,),
    )


def bytes_workload(megabytes: int) -> Workload:
    """Return a point of the bytes' plot: a Llama layout of about so many megabytes, 4 shards."""
    name = f"bytes-{megabytes}"
    return Workload(
        name, f"{megabytes:,} MB bf16 in 4 shards", "fill", name, (WINDLASS, RULE, HUB, LIMIT)
    )


def shards_workload(count: int) -> Workload:
    """Return a point of the shards' plot: 1 GB in so many files."""
    name = f"shards-{count}"
    title = f"1 GB bf16 in {count} shards"
    return Workload(name, title, "fill", name, (WINDLASS, RULE, HUB, LIMIT))


def threads_workload(count: int) -> Workload:
    """Return a point of the threads' plot: 2.2 GB by so many threads."""
    variant = f"threads-{count}"
    return Workload(
        variant,
        f"TinyLlama-1.1B, 2.2 GB bf16, {count} threads",
        "fill",
        "tinyllama",
        (
            Competitor("windlass", "windlass", "windlass_loader", variant),
            Competitor("raw-limit", "raw limit", "raw_limit", variant),
        ),
    )


MAKERS: dict[str, Callable[[int], Workload]] = {
    "flat-children": lambda count: flat_workload("children", count),
    "flat-parameters": lambda count: flat_workload("parameters", count),
    "split": split_workload,
    "bytes": bytes_workload,
    "shards": shards_workload,
    "threads": threads_workload,
}
COUNTS = {
    "flat-children": FLAT_COUNTS,
    "flat-parameters": FLAT_COUNTS,
    "split": SPLIT_COUNTS,
    "bytes": MEGABYTE_COUNTS,
    "shards": SHARD_COUNTS,
    "threads": THREAD_COUNTS,
}
NAMES = {
    family: tuple(f"{family}-{count}" for count in counts) for family, counts in COUNTS.items()
}
NAME = re.compile(rf"({'|'.join(MAKERS)})-(\d+)")


def scaling_workload(name: str) -> Workload | None:
    """Return the point called `FAMILY-N`, which exists for every N; None for any other name."""
    match = NAME.fullmatch(name)
    return MAKERS[match[1]](int(match[2])) if match else None
