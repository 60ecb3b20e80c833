"""`save`, `save_file`, `save_model`: tensors into one safetensors file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from torch import nn

from windlass import _rust
from windlass.errors import InvalidName, NoMemoryToSave
from windlass.memory import memory_for
from windlass.names import check_metadata, check_name, named_values
from windlass.options import check_options
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.refusals import saving_to
from windlass.torch.dropped import record_dropped
from windlass.torch.dtypes import can_cast, check_cast
from windlass.torch.output import Placed, new_tensor, plain_tensor, write_tensors
from windlass.torch.shared import Keep, OnOverlap, check_keep, deduplicate, refuse_shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from windlass.types import PathLike, Progress


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    on_overlap: OnOverlap = "error",
    dtype: torch.dtype | None = None,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
) -> None:
    """Save tensors to a safetensors file, as `safetensors.torch.save_file` does.

    The file is replaced whole or not at all: it is written under a temporary name in the same
    folder, and renamed. Its bytes are those that safetensors writes; metadata is sorted by key.
    Tensors of any strides and device can be saved, without a copy of any size.

    Args:
        tensors: by name; the mapping is not changed.
        filename: the file. A link is followed; a file with several names is replaced under this
            one. Its permissions stay; those of a new file are the umask's.
        metadata: text to be stored beside the tensors.
        on_overlap: `"error"` refuses tensors that share memory, as safetensors does; `"store"`
            stores each of them in full.
        dtype: cast floating-point tensors on the way.
        durable: return only when the file and its name are on the disk.
        checksums: store a CRC-32C of every tensor in the metadata, for `windlass.verify`.
        threads: writer threads; by default 4, or 16 (and no more) past the page cache.
        progress: see `windlass.progress.track`.

    Raises:
        SharedTensors: tensors that share memory.
        UnsupportedTensor: a value without bytes: meta, sparse, quantized, no tensor at all.
        InvalidName: an empty name, one with a NUL, `__metadata__`, or metadata that is not text.
        SaveFailed: the system refused; what was there before is untouched, unless it is
            `TidyingFailed`: then the new file is in place.

    Example:
        >>> from windlass.torch import load_file
        >>> save_file({"weight": torch.zeros(2, 3)}, folder / "new.safetensors")
        >>> load_file(folder / "new.safetensors")["weight"].shape
        torch.Size([2, 3])
    """
    check_keep("hub", on_overlap)
    check_cast(dtype)
    check_options(threads=threads)
    with paused_gc(), saving_to(filename):
        plain = plain_tensors(named_values(tensors))
        if on_overlap == "error":
            refuse_shared(plain)
        placed = [
            Placed(0, name, tensor, file_dtype(tensor, dtype)) for name, tensor in plain.items()
        ]
        file = ("", list(map(new_tensor, placed)), check_metadata(metadata), checksums)
    with _rust.Save.file(filename, file, durable=durable) as saving:
        write_and_commit(saving, placed, threads=threads, progress=progress)


def save(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    on_overlap: OnOverlap = "error",
) -> bytes:
    """Return tensors as the bytes of a safetensors file, as `safetensors.torch.save` does.

    Arguments and errors are those of `save_file`.

    Example:
        >>> from windlass.torch import load
        >>> load(save({"weight": torch.ones(2)}))["weight"]
        tensor([1., 1.])
    """
    check_keep("hub", on_overlap)
    plain = plain_tensors(named_values(tensors))
    if on_overlap == "error":
        refuse_shared(plain)
    placed = {name: Placed(0, name, one, one.dtype) for name, one in plain.items()}
    new = list(map(new_tensor, placed.values()))
    header, order = _rust.encode_header(new, check_metadata(metadata))
    file = io.BytesIO(header)
    nbytes = sum(one.nbytes for one in placed.values())
    if nbytes:
        file.seek(len(header) + nbytes - 1)
        file.write(b"\0")  # Makes all of it.
        _copy_into(file, len(header), [placed[name] for name in order])
    return file.getvalue()


def _copy_into(file: io.BytesIO, start: int, placed: list[Placed]) -> None:
    """Copy tensors into a file in memory, one after another."""
    memory = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    for one in placed:
        values = one.tensor if (bits := one.as_bits()) is None else bits
        place = memory[start : start + one.nbytes].view(values.dtype).view(values.shape)
        place.copy_(values)
        start += one.nbytes


def save_model(
    model: nn.Module,
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,  # noqa: FBT001, FBT002  (the signature that it replaces)
    *,
    shared_tensors_to_discard: Iterable[str] | None = None,
    keep: Keep = "hub",
    on_overlap: OnOverlap = "store",
    dtype: torch.dtype | None = None,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
) -> None:
    """Save a model to a safetensors file, as `safetensors.torch.save_model` does.

    Tied weights are stored once; the metadata says which name stands for which, as safetensors does
    (see `windlass.torch.dropped`), and `load_model` gives every name its value again.

    Args:
        model: the model.
        filename: the file; see `save_file`.
        metadata: text to be stored beside the tensors.
        force_contiguous: has no effect: tensors of any strides are saved.
        shared_tensors_to_discard: names that `keep` would rather not store.
        keep: which of several tied names is stored; see `windlass.torch.shared.deduplicate`.
        on_overlap: names that share memory without being identical: `"store"` each in full, or
            `"error"`.
        dtype: cast floating-point tensors on the way.
        durable: see `save_file`.
        checksums: see `save_file`.
        threads: see `save_file`.
        progress: see `windlass.progress.track`.

    Raises:
        SharedTensors, UnsupportedTensor, InvalidName, SaveFailed: see `save_file`.

    Example:
        >>> from windlass.torch import load_model
        >>> save_model(model, folder / "whole.safetensors")
        >>> load_model(model, folder / "whole.safetensors")
        ([], [])
    """
    del force_contiguous
    if not isinstance(model, nn.Module):
        message = f"model should be a torch.nn.Module, found {type(model).__name__}"
        raise TypeError(message)
    check_keep(keep, on_overlap)
    with saving_to(filename):
        state = plain_tensors(without_texts(model.state_dict()))
        stored, dropped = deduplicate(
            state, keep=keep, discard=shared_tensors_to_discard or (), on_overlap=on_overlap
        )
        told = record_dropped(check_metadata(metadata) or {}, dropped, stored) or None
    save_file(
        stored,
        filename,
        told,
        on_overlap="store",
        dtype=dtype,
        durable=durable,
        checksums=checksums,
        threads=threads,
        progress=progress,
    )


def without_texts(state_dict: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Return the names and values of a state dict, less the texts that bitsandbytes has in it."""
    return (pair for pair in named_values(state_dict) if not isinstance(pair[1], str))


def plain_tensors(named: Iterable[tuple[str, object]]) -> dict[str, torch.Tensor]:
    """Return tensors by name, as plain ones.

    Raises:
        InvalidName: a name that is not text, or that stands twice.
        UnsupportedTensor: a value that cannot be saved.
    """
    plain: dict[str, torch.Tensor] = {}
    for name, value in named:
        check_name(name)
        if name in plain:
            message = f"tensor `{name}`: the name stands twice"
            raise InvalidName(message)
        plain[name] = plain_tensor(name, value)
    return plain


def file_dtype(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype that a tensor gets in the file."""
    return dtype if dtype is not None and can_cast(tensor.dtype) else tensor.dtype


def write_and_commit(
    saving: _rust.Save,
    placed: list[Placed],
    *,
    threads: int | None,
    progress: Progress,
    indexes: tuple[bytes, bytes] = (b"", b""),
) -> None:
    """Write every tensor, and make the files visible."""
    with (
        memory_for("the save", NoMemoryToSave),
        track(sum(one.nbytes for one in placed), progress, verb="writing") as tell,
    ):
        write_tensors(saving, placed, threads=threads or 0, tell=tell)
    saving.commit(*indexes)
