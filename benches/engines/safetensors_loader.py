"""safetensors: `load_file`, `load(bytes)`, or the index and every header by `safe_open`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from checkpoints.files import INDEX_NAME
from safetensors import safe_open
from safetensors.torch import load, load_file

from engines.protocol import parse_arguments
from engines.tasks import run_columns, run_forward, run_fresh, run_plan, run_read, run_walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from engines.proof import Columns


def open_all(folder: Path) -> list[str]:
    """Do what transformers does before it loads: the index, each shard opened, its keys."""
    weight_map: dict[str, str] = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    names: list[str] = []
    for shard in sorted(set(weight_map.values())):
        with safe_open(folder / shard, framework="pt") as file:
            names += file.keys()
    return names


def get_columns(folder: Path, columns: Columns) -> dict[str, torch.Tensor]:
    """Take the first columns of each tensor, shard by shard."""
    loaded: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                part = file.get_slice(name)[..., : columns[name]]
                loaded[name] = part.contiguous()
    return loaded


def walk(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Give each tensor of each shard."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                yield name, file.get_tensor(name)


def map_files(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Map each file, as `load_file` does by default."""
    loaded: dict[str, torch.Tensor] = {}
    for path in paths:
        loaded |= load_file(path)
    return loaded


def read_by_pread(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read each file by the backend `"pread"`, which gives each tensor memory of its own."""
    loaded: dict[str, torch.Tensor] = {}
    for path in paths:
        loaded |= load_file(path, backend="pread")
    return loaded


def read_from_bytes(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read each file as bytes and load from those."""
    loaded: dict[str, torch.Tensor] = {}
    for path in paths:
        loaded |= load(path.read_bytes())
    return loaded


def main() -> None:
    """Run the task that the workload names."""
    arguments = parse_arguments()
    if arguments.workload.task == "plan":
        run_plan(open_all, arguments)
    elif arguments.workload.task == "walk":
        run_walk(walk, arguments)
    elif arguments.workload.task == "columns":
        run_columns(get_columns, arguments)
    elif arguments.workload.task == "fresh":
        run_fresh(read_by_pread if arguments.variant == "pread" else read_from_bytes, arguments)
    elif arguments.workload.task == "forward":
        run_forward(map_files, arguments)
    else:
        run_read(load_file, arguments, "mapped")


if __name__ == "__main__":
    main()
