"""Proves, outside the clock, that what an engine loaded or saved equals the files, every tensor."""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from checkpoints.files import INDEX_NAME
from checkpoints.naive_reader import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WORD_MASK = 2**64 - 1

#: How many columns of each tensor are read.
Columns = dict[str, int]


class ProofError(AssertionError):
    """An engine did not do the work that was timed."""


def verify_tensors(loaded: Mapping[str, torch.Tensor], folder: Path) -> dict[str, object]:
    """Compare every tensor with a naive reader's; return what to print, or raise `ProofError`.

    The files hold finite values without zeros, so equal values of one dtype are equal bytes.
    """
    seen, num_bytes, checksum = 0, 0, 0
    for path in sorted(folder.glob("*.safetensors")):
        for name, expected in read_tensors(path):
            if name not in loaded:
                message = f"tensor {name!r} of {path.name} was not loaded"
                raise ProofError(message)
            if not torch.equal(loaded[name].detach(), expected.to(loaded[name].dtype)):
                message = f"tensor {name!r} differs from {path.name}"
                raise ProofError(message)
            seen += 1
            num_bytes += expected.nbytes
            checksum = (checksum + sum_of_words([expected])) & WORD_MASK
    if seen != len(loaded):
        message = f"{len(loaded)} tensors in memory, {seen} in the files"
        raise ProofError(message)
    return {
        "bytes": num_bytes,
        "tensors": seen,
        "checksum": checksum,
        "proof": "every tensor equal",
    }


def verify_owned(loaded: Mapping[str, torch.Tensor]) -> None:
    """Raise `ProofError` for a tensor whose memory is a map of a file, perhaps not read yet."""
    maps = _file_maps()
    starts = [first for first, _, _ in maps]
    for name, tensor in loaded.items():
        at = bisect_right(starts, tensor.data_ptr()) - 1
        if at >= 0 and tensor.data_ptr() < maps[at][1]:
            message = f"tensor {name!r} is a map of {maps[at][2]}"
            raise ProofError(message)


def _file_maps() -> list[tuple[int, int, str]]:
    """Return first and last address and file of each map of a file in this process, in order."""
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, inode, *path = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        if inode != "0":
            maps.append((first, last, Path(*path).name))
    return maps


def verify_columns(
    loaded: Mapping[str, torch.Tensor], columns: Columns, folder: Path
) -> dict[str, object]:
    """Compare parts of tensors with a naive reader's; return what to print, or raise."""
    num_bytes = 0
    for path in sorted(folder.glob("*.safetensors")):
        for name, whole in read_tensors(path):
            if not torch.equal(loaded[name], whole[..., : columns[name]]):
                message = f"columns of tensor {name!r} differ from {path.name}"
                raise ProofError(message)
            num_bytes += loaded[name].nbytes
    if loaded.keys() != columns.keys():
        message = f"{len(loaded)} tensors in memory, {len(columns)} in the files"
        raise ProofError(message)
    return {"bytes": num_bytes, "tensors": len(loaded), "proof": "every part equal"}


def verify_names(names: Iterable[str], folder: Path) -> dict[str, object]:
    """Compare the names an engine found with the index; return what to print, or raise."""
    expected = set(json.loads((folder / INDEX_NAME).read_bytes())["weight_map"])
    found = set(names)
    if found != expected:
        message = f"{len(found ^ expected)} names differ from the index"
        raise ProofError(message)
    return {"tensors": len(found), "proof": "every name found"}


def verify_saved(
    state_dict: Mapping[str, torch.Tensor], folder: Path, suffix: str, dtype: torch.dtype | None
) -> dict[str, object]:
    """Compare every tensor of a state dict with what was saved; return what to print, or raise.

    An index, where there is one, must send each name to the file that has it. `dtype` is what
    the tensors were cast to.
    """
    homes: dict[str, str] = {}
    num_bytes = 0
    for path in sorted(folder.glob(f"*{suffix}")):
        for name, stored in _read_any(path):
            expected = state_dict[name].to(dtype or state_dict[name].dtype)
            if stored.dtype != expected.dtype or not torch.equal(stored, expected):
                message = f"tensor {name!r} of {path.name} differs from the state dict"
                raise ProofError(message)
            homes[name] = path.name
            num_bytes += stored.nbytes
    if homes.keys() != state_dict.keys():
        message = f"{len(state_dict)} tensors in memory, {len(homes)} in the files"
        raise ProofError(message)
    index = folder / INDEX_NAME
    if index.is_file() and json.loads(index.read_bytes())["weight_map"] != homes:
        message = "the index differs from the shards"
        raise ProofError(message)
    return {"bytes": num_bytes, "tensors": len(homes), "proof": "every tensor equal"}


def verify_copy(state_dict: Mapping[str, torch.Tensor], copies: Mapping[str, torch.Tensor]) -> None:
    """Compare copies in memory with their originals; raise `ProofError`."""
    for name, tensor in state_dict.items():
        if copies[name].data_ptr() == tensor.data_ptr() or not torch.equal(copies[name], tensor):
            message = f"tensor {name!r} was not copied"
            raise ProofError(message)


def _read_any(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if path.suffix == ".safetensors":
        yield from read_tensors(path)
    else:
        yield from torch.load(path, mmap=True, weights_only=True).items()


def sum_of_words(tensors: Iterable[torch.Tensor]) -> int:
    """Sum all bytes of contiguous tensors as 64-bit words, modulo 2**64: touches every byte.

    By numpy, in one thread: torch's threads wait for each other when another process has a core.
    """
    total = 0
    for tensor in tensors:
        words = tensor.detach().reshape(-1).view(torch.int64).numpy()
        total += int(words.sum())
    return total & WORD_MASK
