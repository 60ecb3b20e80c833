"""`load_model`, `load_torch_model`, `load_state_dict_from_file`: the other side of the saves.

A save stores tied tensors once, and its metadata says which name stands for which. Here every
dropped name gets its value again, also where the names are not tied any more.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from windlass import _rust
from windlass.arrays import ArrayFile
from windlass.errors import CheckpointNotFound, InvalidPickle
from windlass.layout import CheckpointFile, find_by_pattern
from windlass.opening import open_found
from windlass.options import is_pread
from windlass.torch.dropped import read_dropped
from windlass.torch.dtypes import torch_layout
from windlass.torch.load_sharded import NO_CHECKSUMS, fill_model
from windlass.torch.sources import SafeSource, open_source
from windlass.torch.tensors import ADAPTER, find_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn.modules.module import _IncompatibleKeys

    from windlass.torch.sources import Source
    from windlass.types import Cache, Io, PathLike, Progress

logger = logging.getLogger(__name__)


def load_model(
    model: nn.Module,
    filename: PathLike,
    strict: bool = True,  # noqa: FBT001, FBT002  (the signature that it replaces)
    device: str | int | torch.device = "cpu",
    *,
    verify: bool = False,
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    progress: Progress = None,
    backend: str = "mmap",
) -> tuple[list[str], list[str]]:
    """Fill a model from a safetensors file, as `safetensors.torch.load_model` does.

    Args:
        model: the model. Until everything has been checked it is not touched.
        filename: the file.
        strict: refuse missing and unexpected names.
        device: has no effect: weights go to where the parameters are.
        verify: check the file against its checksums first; see `windlass.verify`.
        threads: reader threads, 16 by default.
        io: how bytes are fetched: `"auto"` (as suits file and machine), `"mapped"`, `"buffered"`,
            `"direct"`, past the page cache, or `"uring"`; see `windlass.types.Io`.
        cache: whether the page cache is to `"keep"` what is read, or to `"drop"` all that was not
            in it before.
        progress: see `windlass.progress.track`.
        backend: safetensors' word for `io`: `"pread"` means `"buffered"`.

    Returns:
        Names missing in the file, and names that the model does not have.

    Raises:
        ShardNotFound, InvalidHeader: there is no such file, or it breaks the format.
        IncompatibleKeys: names (with `strict`) or shapes (always) do not fit the model.
        ChecksumMismatch: with `verify`, bytes are not those that were saved.
    """
    del device
    io = "buffered" if is_pread(backend) else io
    file = CheckpointFile(os.fspath(filename), is_index=False, is_safetensors=True)
    source = _source_for(model, file)
    loaded = fill_model(
        model,
        source,
        strict=strict,
        verify=verify,
        threads=threads,
        io=io,
        cache=cache,
        progress=progress,
    )
    return list(loaded.missing_keys), list(loaded.unexpected_keys)


def load_torch_model(
    model: nn.Module,
    checkpoint_path: PathLike,
    *,
    strict: bool = False,
    safe: bool = True,
    weights_only: bool = True,
    map_location: str | torch.device | None = None,
    mmap: bool = False,
    filename_pattern: str | None = None,
    verify: bool = False,
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    progress: Progress = None,
) -> _IncompatibleKeys:
    """Fill a model from a file or folder, as the hub's function of this name does.

    Args:
        model: the model. Until everything has been checked it is not touched.
        checkpoint_path: a weights file, an index, or a folder with an index or one weights file.
        strict: refuse missing and unexpected names.
        safe: take safetensors only; `False` also takes pickles of torch.
        weights_only: has no effect on safetensors; pickles that run code are not loaded.
        map_location: has no effect: weights go to where the parameters are.
        mmap: has no effect: pickles are always mapped.
        filename_pattern: file name with `{suffix}`; by default `model{suffix}.safetensors`, and
            with `safe=False` then `pytorch_model{suffix}.bin`.
        verify: check files against their checksums first; see `windlass.verify`.
        threads: reader threads, 16 by default.
        io: how bytes are fetched: `"auto"` (as suits file and machine), `"mapped"`, `"buffered"`,
            `"direct"`, past the page cache, or `"uring"`; see `windlass.types.Io`.
        cache: whether the page cache is to `"keep"` what is read, or to `"drop"` all that was not
            in it before.
        progress: see `windlass.progress.track`.

    Returns:
        `missing_keys`, in model order, and `unexpected_keys`.

    Raises:
        CheckpointNotFound: there is nothing to load.
        ValueError: only a pickle is there, and `safe=True`.
        IncompatibleKeys: names (with `strict`) or shapes (always) do not fit the model.
        ChecksumMismatch: with `verify`, bytes are not those that were saved.
    """
    del map_location, mmap

    def open_checked(file: CheckpointFile) -> Source:
        if not weights_only and not file.is_safetensors:
            message = f"`{file.path}`: weights_only=False would run code from a pickle"
            raise InvalidPickle(message)
        return _source_for(model, file)

    source = open_found(
        lambda: find_by_pattern(checkpoint_path, filename_pattern, safe=safe), open_checked
    )
    return fill_model(
        model,
        source,
        strict=strict,
        verify=verify,
        threads=threads,
        io=io,
        cache=cache,
        progress=progress,
    )


def load_state_dict_from_file(
    checkpoint_file: PathLike,
    map_location: str | torch.device | None = None,
    weights_only: bool = True,  # noqa: FBT001, FBT002  (the signature that it replaces)
    mmap: bool = False,  # noqa: FBT001, FBT002
    *,
    safe: bool = True,
    verify: bool = False,
) -> dict[str, torch.Tensor] | Any:  # noqa: ANN401  (whatever a pickle holds)
    """Load a weights file as a state dict, as the hub's function of this name does.

    A name that the save dropped because it was tied is there again: the same tensor under both.

    Args:
        checkpoint_file: a safetensors file, or with `safe=False` a pickle of torch.
        map_location: device for the tensors; `"meta"` means the CPU, as for the hub.
        weights_only: `False` lets a pickle run the code in it; has no effect on safetensors.
        mmap: map a pickle instead of reading it; safetensors are always mapped.
        safe: take the file for safetensors, whatever its name.
        verify: check the file against its checksums first; see `windlass.verify`.

    Raises:
        CheckpointNotFound: there is no such file.
        ValueError: the file is not safetensors, and `safe=True` or `verify`.
        ChecksumMismatch: with `verify`, bytes are not those that were saved.

    Example:
        >>> sorted(load_state_dict_from_file(folder / "model.safetensors"))[0]
        'embed.weight'
    """
    path = os.fspath(checkpoint_file)
    if not os.path.isfile(path):
        message = f"`{path}`: no such checkpoint file"
        raise CheckpointNotFound(message)
    if not safe and not path.lower().endswith(".safetensors"):
        if verify:
            raise ValueError(NO_CHECKSUMS.format(path))
        return torch.load(path, map_location=map_location, weights_only=weights_only, mmap=mmap)
    file, device = ArrayFile(path, ADAPTER, verify=verify), _find_place(map_location)
    state = {name: tensor.to(device) for name, tensor in file.get_all().items()}
    dropped = read_dropped(file.table.shard_metadata(0) or {}, state)
    return {**state, **{name: state[kept] for name, kept in dropped.items()}}


def _find_place(map_location: str | torch.device | None) -> torch.device:
    device = find_device("cpu" if map_location is None else map_location)
    if device.type != "meta":
        return device
    logger.warning("tensors of safetensors are not loaded to the meta device, but to the CPU")
    return torch.device("cpu")


def load(data: bytes) -> dict[str, torch.Tensor]:
    """Load tensors from the bytes of a safetensors file, as `safetensors.torch.load` does.

    Each tensor has memory of its own.

    Raises:
        InvalidHeader: the bytes break the format.
        UnsupportedDtype: torch has no dtype for a tensor.
    """
    view = memoryview(data).cast("B")
    loaded = {}
    for name, dtype_name, file_shape, start, end in _rust.parse_header(bytes(data)):
        dtype, shape = torch_layout(name, dtype_name, file_shape)
        if start == end:
            loaded[name] = torch.empty(shape, dtype=dtype, device="cpu")
            continue
        flat = torch.frombuffer(bytearray(view[start:end]), dtype=torch.uint8)
        loaded[name] = flat.view(dtype).view(shape)
    return loaded


def _source_for(model: nn.Module, file: CheckpointFile) -> Source:
    """Open a checkpoint, with dropped names that the model keeps apart given their values."""
    source = open_source(file, strict_format=False)
    if isinstance(source, SafeSource):
        metadata = _metadata(source, is_index=file.is_index)
        dropped = read_dropped(metadata, source.positions)
        if dropped:
            state = model.state_dict(keep_vars=True)
            source.give(
                {
                    name: kept
                    for name, kept in dropped.items()
                    if name in state
                    and _can_take(state[name], source.layout(kept).shape)
                    and not _is_tied(state[name], state.get(kept))
                }
            )
    return source


def _metadata(source: SafeSource, *, is_index: bool) -> Mapping[str, Any]:
    if not is_index:
        return source.table.shard_metadata(0) or {}
    metadata = json.loads(source.table.index_metadata() or "{}")
    return metadata if isinstance(metadata, dict) else {}


def _can_take(value: object, shape: tuple[int, ...]) -> bool:
    """Whether a name has the shape of what stands for it: a slice of it is tied, or missing."""
    return isinstance(value, torch.Tensor) and tuple(value.shape) == shape


def _is_tied(one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    if one is other or one.is_meta or other.is_meta:
        return one is other
    same_view = (one.shape, one.stride()) == (other.shape, other.stride())
    return same_view and one.data_ptr() == other.data_ptr()
