"""Reads safetensors files one tensor at a time: slow, plain, and the judge of every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from checkpoints.safetensors_format import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TORCH_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each name and tensor of `path`, each tensor with memory of its own."""
    with path.open("rb") as file:
        for stored in read_header(path).tensors:
            file.seek(stored.offset)
            data = bytearray(file.read(stored.spec.num_bytes))
            tensor = torch.frombuffer(data, dtype=TORCH_DTYPES[stored.spec.dtype])
            yield stored.spec.name, tensor.reshape(stored.spec.shape)
