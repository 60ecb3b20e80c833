"""Builds the state dicts that are saved: torch's own memory, every page touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from checkpoints.naive_reader import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoints.layout import Layout

# Every item of a widened tensor needs rounding when it is narrowed again.
FACTOR = 1 + 2**-10


def read_state_dict(
    layout: Layout, folder: Path, dtype: torch.dtype | None, *, strided: bool
) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint in model order, of `dtype` if it is given.

    `strided`: each matrix is a transposed view.
    """
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, stored in read_tensors(path):
            value = stored.clone() if dtype is None else stored.to(dtype).mul_(FACTOR)
            found[name] = value.t() if strided else value
    return {spec.name: found[spec.name] for spec in layout.tensors}


def blank_state_dict(layout: Layout) -> dict[str, torch.Tensor]:
    """Return a state dict with the names and shapes of a layout, for what looks at no bytes."""
    return {spec.name: torch.ones(spec.shape) for spec in layout.tensors}
