"""The safetensors format by `struct` and `json` alone: an independent writer's and reader's half.

The benchmarks' data and its proof go through this file, so that neither depends on a competitor.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checkpoints.layout import ITEM_BYTES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LENGTH_BYTES = 8
ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its bytes begin in the file."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """The tensors of one file, where their data begins, and how much of it there is."""

    tensors: tuple[StoredTensor, ...]
    data_offset: int
    data_bytes: int


def file_order(tensors: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Order tensors as safetensors writes them: wide items first, then by name."""
    return sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))


def encode_header(ordered: Iterable[TensorSpec]) -> bytes:
    """Return length and JSON of a header for `ordered` tensors, padded to eight bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for tensor in ordered:
        end = begin + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def header_bytes(path: Path) -> int:
    """Bytes before the data of `path`."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(LENGTH_BYTES))
    return LENGTH_BYTES + int(length)


def read_header(path: Path) -> ShardHeader:
    """Read the header of `path`."""
    data_offset = header_bytes(path)
    with path.open("rb") as file:
        file.seek(LENGTH_BYTES)
        entries = json.loads(file.read(data_offset - LENGTH_BYTES))
    entries.pop("__metadata__", None)
    tensors = tuple(
        StoredTensor(
            TensorSpec(name, entry["dtype"], tuple(entry["shape"])),
            data_offset + entry["data_offsets"][0],
        )
        for name, entry in entries.items()
    )
    return ShardHeader(tensors, data_offset, path.stat().st_size - data_offset)
