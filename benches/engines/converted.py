"""Rivals with a format of their own: one file, written once, outside the clock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checkpoints.naive_reader import read_tensors
from harness.conversion import CONVERT

from engines.protocol import emit, parse_arguments
from engines.tasks import run_fresh

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    Convert = Callable[[dict[str, torch.Tensor], Path], None]
    Read = Callable[[list[Path]], dict[str, torch.Tensor]]


def run_converted(convert: Convert, read: Read, suffix: str) -> None:
    """Convert if that is the variant asked for, else time `read([path])` of the converted file."""
    arguments = parse_arguments()
    if arguments.variant == CONVERT:
        _convert_once(convert, arguments.folder, suffix)
        emit(proof="converted")
    else:
        run_fresh(read, arguments, suffix)


def _convert_once(convert: Convert, folder: Path, suffix: str) -> None:
    """Write the file beside the shards, whole or not at all, unless it is there already."""
    path = folder / f"model{suffix}"
    if path.is_file():
        return
    tensors = {
        name: tensor
        for shard in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_tensors(shard)
    }
    staged = path.with_suffix(".staged")
    convert(tensors, staged)
    descriptor = os.open(staged, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    staged.rename(path)
