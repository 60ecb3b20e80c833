"""The workloads: which data, which task, which competitors, in which cache states."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from checkpoints.families import build_layout
from checkpoints.files import INDEX_NAME, ensure_checkpoint, ensure_pickle_twin
from checkpoints.safetensors_format import header_bytes
from harness.page_cache import FileRange

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoints.layout import Layout

Task = Literal["fill", "read", "plan", "import", "call"]

SCALING_COUNTS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
QUADRATIC_MAX_COUNT = 20_000  # Above it the references need minutes for one load of child modules.
UNCONTROLLED = "any"  # The cache state of workloads that no file of ours decides.


@dataclass(frozen=True)
class Competitor:
    """One engine program with one setting, as it takes part in one workload."""

    key: str
    title: str
    program: str
    variant: str = "default"
    suffix: str = ".safetensors"
    states: tuple[str, ...] | None = None  # None: all states of the workload.
    max_rounds: int | None = None


@dataclass(frozen=True)
class Workload:
    """One thing that is measured; `baseline` is the competitor that ratios are taken against."""

    name: str
    title: str
    task: Task
    layout: str
    competitors: tuple[Competitor, ...]
    baseline: str = "windlass"
    states: tuple[str, ...] = ("cold", "warm")
    model_dtype: str | None = None


WINDLASS = Competitor("windlass", "windlass", "windlass_loader")
RULE = Competitor("transformers-rule", "transformers 4.46 rule", "transformers_rule")
HUB = Competitor("hub", "huggingface_hub", "hub_loader")
PICKLE = Competitor("torch-load", "torch.load (.bin, mmap)", "torch_loader", suffix=".bin")
LIMIT = Competitor("raw-limit", "raw limit", "raw_limit")
MAPPED = Competitor("windlass-mapped", "windlass (mapped)", "windlass_loader", "mapped")
OWNED = Competitor("windlass-owned", "windlass (owned)", "windlass_loader", "owned")
SAFETENSORS = Competitor("safetensors", "safetensors", "safetensors_loader")
INDEX_AND_SAFE_OPEN = Competitor(
    "safetensors", "json index + safe_open + keys", "safetensors_loader"
)
IMPORTS = (
    Competitor("windlass", "import windlass", "import_time", "windlass"),
    Competitor("safetensors", "import safetensors", "import_time", "safetensors"),
)
# One process measures both, call by call in turn, and prints a line for each.
CALLS = (Competitor("windlass", "load_file, 1 KB", "call_overhead"),)

FILLERS = (WINDLASS, RULE, HUB, LIMIT)
FILE_READERS = (MAPPED, OWNED, SAFETENSORS)
PLANNERS = (WINDLASS, INDEX_AND_SAFE_OPEN)


def _minutes_long(competitor: Competitor) -> Competitor:
    """Limit a quadratic reference to one round, warm: there, no disk is what takes its time."""
    return replace(competitor, states=("warm",), max_rounds=1)


NAMED = (
    Workload(
        "tinyllama",
        "TinyLlama-1.1B, 2.2 GB bf16 in 5 shards",
        "fill",
        "tinyllama",
        (WINDLASS, RULE, HUB, PICKLE, LIMIT),
    ),
    Workload("mixtral", "Mixtral-like, 2 GB in 995 tensors", "fill", "mixtral", FILLERS),
    Workload(
        "flat-children-50000",
        "50,000 tensors of 1 KiB, 50,000 child modules",
        "fill",
        "flat-children-50000",
        (WINDLASS, _minutes_long(RULE), _minutes_long(HUB)),
    ),
    Workload(
        "flat-parameters-50000",
        "50,000 tensors of 1 KiB, parameters of one module",
        "fill",
        "flat-parameters-50000",
        (WINDLASS, RULE, HUB),
    ),
    Workload(
        "tiny-transformer",
        "6,000 tiny tensors in a transformer",
        "fill",
        "tiny-transformer",
        (WINDLASS, RULE, HUB),
    ),
    Workload(
        "tinyllama-float32",
        "TinyLlama-1.1B, bf16 file into float32 parameters",
        "fill",
        "tinyllama",
        FILLERS,
        model_dtype="float32",
    ),
    Workload(
        "tinyllama-dict",
        "TinyLlama-1.1B into a dict, every byte touched",
        "read",
        "tinyllama",
        FILE_READERS,
        baseline="windlass-mapped",
    ),
    Workload(
        "llama70b-plan",
        "Open and plan Llama-2-70B: 723 tensors, 30 sparse shards",
        "plan",
        "llama70b",
        PLANNERS,
    ),
    Workload(
        "million-plan",
        "Open and plan 1,000,000 tensors in 200 sparse shards",
        "plan",
        "million",
        PLANNERS,
    ),
    Workload(
        "import",
        "import, above a bare interpreter",
        "import",
        "one-kilobyte",
        IMPORTS,
        states=(UNCONTROLLED,),
    ),
    Workload(
        "call-overhead",
        "load_file of a 1 KB file, in a loop",
        "call",
        "one-kilobyte",
        CALLS,
        states=(UNCONTROLLED,),
    ),
)
SCALING = tuple(
    f"flat-{shape}-{count}" for shape in ("children", "parameters") for count in SCALING_COUNTS
)
GROUPS = {
    "all": tuple(workload.name for workload in NAMED),
    "quick": ("tinyllama", "llama70b-plan", "import", "call-overhead"),
    "scaling": SCALING,
}
QUICK_FLAT_COUNT = 2_000


@cache
def find_workload(name: str) -> Workload:
    """Return the workload `name`; `flat-…-N` exists for every N, `NAME-quick` for every name.

    Raises:
        KeyError: there is no such workload.
    """
    for workload in NAMED:
        if workload.name == name:
            return workload
    if name.endswith("-quick"):
        return _quick(find_workload(name.removesuffix("-quick")))
    if match := re.fullmatch(r"flat-(children|parameters)-(\d+)", name):
        return _flat(name, match[1], int(match[2]))
    raise KeyError(name)


def _flat(name: str, shape: str, count: int) -> Workload:
    """Return one point of the scaling plot; references that are quadratic leave early."""
    place = "child modules" if shape == "children" else "parameters of one module"
    with_references = shape == "parameters" or count <= QUADRATIC_MAX_COUNT
    return Workload(
        name,
        f"{count:,} tensors of 1 KiB, {place}",
        "fill",
        name,
        (WINDLASS, RULE, HUB) if with_references else (WINDLASS,),
        states=("warm",),
    )


def _quick(workload: Workload) -> Workload:
    """Return the small twin of a workload: the same programs over a few megabytes."""
    layout = workload.layout
    if layout.startswith("flat-"):
        layout = re.sub(r"\d+$", str(QUICK_FLAT_COUNT), layout)
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
    )


def prepare(workload: Workload, work_folder: Path) -> Path:
    """Return the folder with the data of `workload`, built now if it is not there yet."""
    layout: Layout = build_layout(workload.layout)
    folder = ensure_checkpoint(layout, work_folder)
    if any(competitor.suffix == ".bin" for competitor in workload.competitors):
        ensure_pickle_twin(layout, folder)
    return folder


def files_read(workload: Workload, folder: Path, suffix: str) -> list[FileRange]:
    """Return the parts of files that one run reads: of sparse shards, the headers."""
    index_name = INDEX_NAME if suffix == ".safetensors" else "pytorch_model.bin.index.json"
    paths = [folder / index_name, *sorted(folder.glob(f"*{suffix}"))]
    if workload.task == "plan":
        return [
            FileRange(path, header_bytes(path) if path.suffix == suffix else path.stat().st_size)
            for path in paths
        ]
    return [FileRange(path, path.stat().st_size) for path in paths]
