"""All workloads by name, their small twins, and their data."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from checkpoints.families import build_layout
from checkpoints.files import INDEX_NAME, ensure_checkpoint, ensure_pickle_twin
from checkpoints.safetensors_format import header_bytes
from harness.conversion import convert_for_rivals
from harness.page_cache import FileRange
from loading import LOADS
from pretrained import PRETRAINED
from saving import SAVES
from scaling import NAMES, scaling_workload

if TYPE_CHECKING:
    from pathlib import Path

    from definitions import Saving, Workload

NAMED = (*LOADS, *SAVES, *PRETRAINED)
GROUPS = {
    "all": tuple(workload.name for workload in (*LOADS, *SAVES)),
    "load": tuple(workload.name for workload in LOADS),
    "save": tuple(workload.name for workload in SAVES),
    "pretrained": tuple(workload.name for workload in PRETRAINED),
    "quick": (
        "tinyllama",
        "fresh",
        "first-forward",
        "llama70b-plan",
        "import",
        "call-overhead",
        "save-tinyllama",
        "split-50000",
    ),
    "scaling": tuple(name for names in NAMES.values() for name in names),
}
QUICK_FLAT_COUNT, QUICK_LAYOUT = 2_000, "bytes-40"
QUICK_SHARD_DIVISOR = 80  # Leaves a small twin with several shards.


@cache
def find_workload(name: str) -> Workload:
    """Return the workload `name`; the scaling ones exist for every N, `NAME-quick` for every name.

    Raises:
        KeyError: there is no such workload.
    """
    for workload in NAMED:
        if workload.name == name:
            return workload
    if name.endswith("-quick"):
        return _quick(find_workload(name.removesuffix("-quick")))
    if point := scaling_workload(name):
        return point
    raise KeyError(name)


def _quick(workload: Workload) -> Workload:
    """Return the small twin of a workload: the same programs over a few megabytes."""
    layout = workload.layout
    if layout.startswith("flat-"):
        layout = re.sub(r"\d+$", str(QUICK_FLAT_COUNT), layout)
    elif layout.startswith(("bytes-", "shards-")):
        layout = QUICK_LAYOUT
    elif layout != "one-kilobyte":
        layout = f"{layout}-quick"
    return replace(
        workload,
        name=f"{workload.name}-quick",
        title=f"Small twin of: {workload.title}",
        layout=layout,
        competitors=tuple(
            replace(competitor, states=None, max_rounds=None) for competitor in workload.competitors
        ),
        saving=_quick_saving(workload.saving),
    )


def _quick_saving(saving: Saving | None) -> Saving | None:
    if saving is None:
        return None
    return replace(saving, shard_bytes=saving.shard_bytes // QUICK_SHARD_DIVISOR)


def prepare(workload: Workload, work_folder: Path) -> Path:
    """Return the folder with the data of `workload`, built now if it is not there yet.

    A split looks at no bytes, so it has none on the disk.
    """
    layout = build_layout(workload.layout)
    if workload.task == "split":
        return work_folder / layout.name
    folder = ensure_checkpoint(layout, work_folder)
    loads_pickles = workload.saving is None
    if loads_pickles and any(competitor.suffix == ".bin" for competitor in workload.competitors):
        ensure_pickle_twin(layout, folder)
    convert_for_rivals(workload, folder)
    return folder


def files_read(workload: Workload, folder: Path, suffix: str) -> list[FileRange]:
    """Return the parts of files that one run reads: of sparse shards, the headers."""
    index_names = {".safetensors": INDEX_NAME, ".bin": "pytorch_model.bin.index.json"}
    paths = sorted(folder.glob(f"*{suffix}"))
    if index_name := index_names.get(suffix):
        paths.insert(0, folder / index_name)
    if workload.task == "plan":
        return [
            FileRange(path, header_bytes(path) if path.suffix == suffix else path.stat().st_size)
            for path in paths
        ]
    return [FileRange(path, path.stat().st_size) for path in paths]
