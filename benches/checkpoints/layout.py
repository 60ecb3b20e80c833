"""What a checkpoint holds and how it is cut into shards. Pure: no file is opened here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a checkpoint, in safetensors' own words."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor in the file."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole checkpoint: tensors in model order, cut into shards.

    A sparse layout has real headers and a real index; its data is a hole that takes no disk.
    """

    name: str
    shards: tuple[tuple[TensorSpec, ...], ...]
    sparse: bool = False

    @property
    def tensors(self) -> list[TensorSpec]:
        """Every tensor, in model order."""
        return [tensor for shard in self.shards for tensor in shard]

    def shard_file_name(self, number: int, suffix: str = ".safetensors") -> str:
        """Name of shard `number` (from 0) as transformers and the hub spell it."""
        stem = "model" if suffix == ".safetensors" else "pytorch_model"
        return f"{stem}-{number + 1:05d}-of-{len(self.shards):05d}{suffix}"


def resplit(layout: Layout, max_shard_bytes: int) -> Layout:
    """Return the layout cut into shards of another size."""
    return replace(layout, shards=split_by_bytes(layout.tensors, max_shard_bytes))


def split_by_bytes(
    tensors: list[TensorSpec], max_shard_bytes: int
) -> tuple[tuple[TensorSpec, ...], ...]:
    """Cut greedily in model order, as the hub's splitter does."""
    shards: list[list[TensorSpec]] = [[]]
    used_bytes = 0
    for tensor in tensors:
        if shards[-1] and used_bytes + tensor.num_bytes > max_shard_bytes:
            shards.append([])
            used_bytes = 0
        shards[-1].append(tensor)
        used_bytes += tensor.num_bytes
    return tuple(tuple(shard) for shard in shards)


def split_by_count(
    tensors: list[TensorSpec], shard_count: int
) -> tuple[tuple[TensorSpec, ...], ...]:
    """Cut into `shard_count` runs of (nearly) equally many tensors."""
    edges = [len(tensors) * number // shard_count for number in range(shard_count + 1)]
    return tuple(tuple(tensors[begin:end]) for begin, end in pairwise(edges))
