"""safetensors files written by hand, so that a test can also write what no writer would."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One tensor of a hand-written file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def write_raw(path: Path, header: bytes, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write header bytes and data bytes as they are; `length` lies about the header's length."""
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def write_header(path: Path, header: Mapping[str, Any], data: bytes = b"") -> Path:
    """Write a header given as data, padded as safetensors pads it."""
    text = json.dumps(header).encode()
    return write_raw(path, text + b" " * (-len(text) % 8), data)


def info(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, Any]:
    """Return a header's entry for one tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def write_entries(
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str] | None = None,
    *,
    misaligned: bool = False,
) -> Path:
    """Write a valid file; `misaligned` makes its data begin at an odd offset."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for entry in entries:
        end = position + len(entry.data)
        header[entry.name] = info(entry.dtype, entry.shape, position, end)
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + (1 if misaligned else 0))
    return write_raw(path, text, b"".join(entry.data for entry in entries))


def data_start(path: Path) -> int:
    """Return the absolute offset of a file's first data byte."""
    with path.open("rb") as file:
        return 8 + int(struct.unpack("<Q", file.read(8))[0])
