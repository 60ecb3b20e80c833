"""The tasks that several engines share: fill an existing model, read files into a dict, plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from checkpoints.families import build_layout
from checkpoints.forward import first_logits
from checkpoints.models import build_model
from checkpoints.naive_reader import read_tensors

from engines.proof import (
    WORD_MASK,
    ProofError,
    sum_of_words,
    verify_columns,
    verify_names,
    verify_owned,
    verify_tensors,
)
from engines.protocol import Arguments, emit, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import nn

    from engines.proof import Columns

#: One rank of eight.
COLUMNS_SHARE = 8


def run_fill(
    fill: Callable[[nn.Module, Path], object],
    arguments: Arguments,
    suffix: str = ".safetensors",
) -> None:
    """Time `fill(model, folder)` on a model whose memory is touched, and prove the result."""
    workload = arguments.workload
    dtype: torch.dtype | None = getattr(torch, workload.model_dtype or "", None)
    model = build_model(build_layout(workload.layout).tensors, dtype)
    _, measurement = measure(lambda: fill(model, arguments.folder), arguments, suffix)
    emit(measurement, **verify_tensors(dict(model.named_parameters()), arguments.folder))


def run_read(
    read: Callable[[Path], dict[str, torch.Tensor]], arguments: Arguments, memory: str
) -> None:
    """Time `read(path)` of every shard together with one pass over every byte of the result.

    Without that pass, a reader that maps the file is timed before it has read anything.
    """
    paths = sorted(arguments.folder.glob("*.safetensors"))

    def read_and_touch() -> tuple[dict[str, torch.Tensor], float, int]:
        start = time.perf_counter()
        loaded: dict[str, torch.Tensor] = {}
        for path in paths:
            loaded |= read(path)
        before_touch = time.perf_counter() - start
        return loaded, before_touch, sum_of_words(loaded.values())

    (loaded, before_touch, checksum), measurement = measure(read_and_touch, arguments)
    facts = verify_tensors(loaded, arguments.folder)
    if facts["checksum"] != checksum:
        message = "the pass under the clock saw other bytes"
        raise ProofError(message)
    emit(measurement, **facts, seconds_before_touch=before_touch, memory=memory)


def run_fresh(
    read: Callable[[list[Path]], dict[str, torch.Tensor]],
    arguments: Arguments,
    suffix: str = ".safetensors",
) -> None:
    """Time `read(paths)`, which returns every tensor of all files in memory of its own.

    No pass over the bytes is needed: memory that no file lies behind has been filled.
    """
    paths = sorted(arguments.folder.glob(f"*{suffix}"))
    loaded, measurement = measure(lambda: read(paths), arguments, suffix)
    verify_owned(loaded)
    emit(measurement, **verify_tensors(loaded, arguments.folder), memory="owned")


def run_forward(
    read: Callable[[list[Path]], dict[str, torch.Tensor]], arguments: Arguments
) -> None:
    """Time `read(paths)` together with a first forward pass over what it returned."""
    paths = sorted(arguments.folder.glob("*.safetensors"))

    def read_and_pass() -> tuple[dict[str, torch.Tensor], float, torch.Tensor]:
        start = time.perf_counter()
        loaded = read(paths)
        before_pass = time.perf_counter() - start
        return loaded, before_pass, first_logits(loaded)

    (loaded, before_pass, logits), measurement = measure(read_and_pass, arguments)
    expected = first_logits({name: tensor for path in paths for name, tensor in read_tensors(path)})
    if not logits.isfinite().all() or not torch.equal(logits, expected):
        message = "the pass under the clock came to other logits"
        raise ProofError(message)
    facts = verify_tensors(loaded, arguments.folder)
    emit(measurement, **facts, seconds_before_touch=before_pass)


def run_walk(
    walk: Callable[[Path], Iterable[tuple[str, torch.Tensor]]], arguments: Arguments
) -> None:
    """Time `walk(folder)`, with a pass over every byte of each tensor, which is then let go."""

    def walk_and_touch() -> tuple[int, int, int]:
        count, num_bytes, checksum = 0, 0, 0
        for _, tensor in walk(arguments.folder):
            count += 1
            num_bytes += tensor.nbytes
            checksum = (checksum + sum_of_words([tensor])) & WORD_MASK
        return count, num_bytes, checksum

    found, measurement = measure(walk_and_touch, arguments)
    paths = sorted(arguments.folder.glob("*.safetensors"))
    tensors = [tensor for path in paths for _, tensor in read_tensors(path)]
    num_bytes = sum(tensor.nbytes for tensor in tensors)
    if found != (len(tensors), num_bytes, sum_of_words(tensors)):
        message = "the walk saw other bytes"
        raise ProofError(message)
    emit(measurement, bytes=num_bytes, tensors=len(tensors), proof="checksum of all data equal")


def run_columns(
    read: Callable[[Path, Columns], dict[str, torch.Tensor]], arguments: Arguments
) -> None:
    """Time `read(folder, columns)`, which returns so many columns of each tensor.

    It is the first eighth of every matrix, and all of what has fewer dimensions.
    """
    columns = {
        spec.name: spec.shape[-1] // (COLUMNS_SHARE if len(spec.shape) > 1 else 1)
        for spec in build_layout(arguments.workload.layout).tensors
    }
    loaded, measurement = measure(lambda: read(arguments.folder, columns), arguments)
    emit(measurement, **verify_columns(loaded, columns, arguments.folder))


def run_plan(plan: Callable[[Path], Iterable[str]], arguments: Arguments) -> None:
    """Time `plan(folder)`, which opens everything and returns the names it found."""
    names, measurement = measure(lambda: plan(arguments.folder), arguments)
    emit(measurement, **verify_names(names, arguments.folder))
