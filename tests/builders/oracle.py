"""The reference rules, written in the most obvious way: what windlass is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from builders.sharded import BIN_INDEX, SAFE_INDEX

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_weight_map(folder: Path) -> dict[str, str]:
    """Return the weight map of the safetensors index."""
    weight_map: dict[str, str] = json.loads((folder / SAFE_INDEX).read_text())["weight_map"]
    return weight_map


def merged(folder: Path) -> dict[str, torch.Tensor]:
    """Return all listed tensors of a safetensors checkpoint in one dict, in index order."""
    weight_map = read_weight_map(folder)
    files = {file: safetensors.torch.load_file(folder / file) for file in weight_map.values()}
    return {name: files[file][name] for name, file in weight_map.items()}


def load_merged(model: torch.nn.Module, folder: Path, **options: Any) -> Any:
    """Load by torch's own `load_state_dict` of the merged dict."""
    return model.load_state_dict(merged(folder), **options)


def load_446(
    model: torch.nn.Module, folder: Path, *, strict: bool = True, prefer_safe: bool = True
) -> tuple[list[str], list[str]]:
    """Load by the rule of transformers 4.46 (behaviour.md §2.6), shards in sorted order."""
    safe, pickled = Path(folder, SAFE_INDEX), Path(folder, BIN_INDEX)
    if not safe.is_file() and not pickled.is_file():
        message = f"Can't find a checkpoint index ({BIN_INDEX} or {SAFE_INDEX}) in {folder}."
        raise ValueError(message)
    use_safe = safe.is_file() and (prefer_safe or not pickled.is_file())
    weight_map = json.loads((safe if use_safe else pickled).read_text())["weight_map"]
    model_keys = model.state_dict().keys()
    missing = [name for name in model_keys if name not in weight_map]
    unexpected = [name for name in weight_map if name not in model_keys]
    if strict and (missing or unexpected):
        raise RuntimeError(f"Error(s) in loading state_dict for {type(model).__name__}")
    for file in sorted(set(weight_map.values())):
        model.load_state_dict(_read_shard(Path(folder, file), use_safe=use_safe), strict=False)
    return missing, unexpected


def _read_shard(path: Path, *, use_safe: bool) -> dict[str, torch.Tensor]:
    if use_safe:
        return safetensors.torch.load_file(path)
    shard: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return shard


def element_bytes(tensor: torch.Tensor) -> set[int]:
    """Return the address of every byte that belongs to an element of a tensor."""
    starts = torch.full(tuple(tensor.shape), tensor.data_ptr(), dtype=torch.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        steps = torch.arange(size, dtype=torch.int64) * stride * tensor.element_size()
        starts += steps.reshape([-1 if other == axis else 1 for other in range(tensor.dim())])
    firsts = starts.reshape(-1).tolist()
    return {first + byte for first in firsts for byte in range(tensor.element_size())}


def missing_names(state: Mapping[str, torch.Tensor], present: Mapping[str, object]) -> list[str]:
    """Return names not in `present` of which some byte is in no present name's memory."""
    covered: set[int] = set()
    for name in state.keys() & present.keys():
        covered |= element_bytes(state[name])
    absent = [name for name in state if name not in present]
    return [name for name in absent if not _is_covered(state[name], covered)]


def _is_covered(tensor: torch.Tensor, covered: set[int]) -> bool:
    """An empty tensor has no memory to share, so nothing else can stand for it."""
    return tensor.numel() > 0 and element_bytes(tensor) <= covered
