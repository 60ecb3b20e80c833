"""Sharded checkpoints from a dict and a shard assignment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import safetensors.torch
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SAFE_INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"

Shards = dict[str, dict[str, torch.Tensor]]


def plain_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy that shares memory with nothing."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def write_safe(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write one safetensors file as transformers does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copies = {name: plain_copy(tensor) for name, tensor in tensors.items()}
    safetensors.torch.save_file(copies, path, metadata={"format": "pt"})
    return path


def write_bin(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write one pickle file as transformers 4.46 does."""
    torch.save(dict(tensors), path)
    return path


def write_index(path: Path, weight_map: Mapping[str, str]) -> Path:
    """Write an index file in the given order."""
    path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}, indent=2))
    return path


def write_shards(
    folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]], **lies: str | None
) -> Path:
    """Write shards and an index; `lies` says which names it lists elsewhere (None: nowhere)."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    weight_map.update({name: file for name, file in lies.items() if file is not None})
    for name in [name for name, file in lies.items() if file is None]:
        del weight_map[name]
    for file, tensors in shards.items():
        write_safe(folder / file, tensors)
    write_index(folder / SAFE_INDEX, weight_map)
    return folder


def write_bin_shards(folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]]) -> Path:
    """Write `.bin` shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, tensors in shards.items():
        write_bin(folder / file, tensors)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    write_index(folder / BIN_INDEX, weight_map)
    return folder


def shard_name(number: int, count: int, suffix: str = "safetensors") -> str:
    """Return a shard's file name as transformers forms it."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    return f"{stem}-{number:05d}-of-{count:05d}.{suffix}"


def deal(
    tensors: Mapping[str, torch.Tensor], places: Sequence[int], suffix: str = "safetensors"
) -> Shards:
    """Deal tensors out to shards: `places` gives each tensor's shard number, and repeats."""
    count = max(places) + 1
    shards: Shards = {}
    for index, (name, tensor) in enumerate(tensors.items()):
        file = shard_name(places[index % len(places)] + 1, count, suffix)
        shards.setdefault(file, {})[name] = tensor
    return shards


def write_dealt(folder: Path, tensors: Mapping[str, torch.Tensor], places: Sequence[int]) -> Path:
    """Write tensors to the shards of `places`, and an index in the order of `tensors`."""
    shards = deal(tensors, places)
    write_shards(folder, shards)
    shard_of = {name: file for file, shard in shards.items() for name in shard}
    write_index(folder / SAFE_INDEX, {name: shard_of[name] for name in tensors})
    return folder


def write_model(folder: Path, tensors: Mapping[str, torch.Tensor], count: int = 2) -> Path:
    """Write tensors to `count` shards in turn."""
    return write_dealt(folder, tensors, range(count))
