"""`load_file`: a safetensors file as a dict of tensors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from windlass.arrays import ArrayFile
from windlass.layout import CheckpointFile
from windlass.options import check_options, is_pread
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.reports import ReadReport
from windlass.torch.fill import Fill, ReadSettings, fill
from windlass.torch.lanes import has_lane
from windlass.torch.sources import SafeSource
from windlass.torch.tensors import ADAPTER, find_device
from windlass.verification import refuse_damaged

if TYPE_CHECKING:
    from windlass.types import Cache, Io, Memory, PathLike, Prefetch, Progress


def load_file(
    filename: PathLike,
    device: str | int | torch.device = "cpu",
    *,
    memory: Memory = "mapped",
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    prefetch: Prefetch = False,
    verify: bool = False,
    progress: Progress = None,
    strict_format: bool = False,
    backend: str = "mmap",
) -> dict[str, torch.Tensor]:
    """Load a safetensors file, as `safetensors.torch.load_file` does.

    Args:
        filename: the file.
        device: where the tensors go. To a GPU they are read at once, whatever `memory` says.
        memory: `"mapped"` (the default) returns at once: tensors look into a private map of the
            file, which is read when they are touched; writing to them leaves the file alone.
            `"owned"` reads everything now, on several threads, into memory of its own.
        threads: reader threads for `"owned"`, 16 by default: most of them wait for the disk.
        io: how `"owned"` bytes are fetched: `"auto"` (as suits file and machine), `"mapped"`,
            `"buffered"`, `"direct"`, past the page cache, or `"uring"`; see `windlass.types.Io`.
        cache: whether the page cache is to `"keep"` what is read for `"owned"`, or to `"drop"` all
            that was not in it before.
        prefetch: read what is mapped ahead, in the background, from the first byte on: `True` for
            as much as half of the available memory holds, or a size such as `"2GB"`. It ends when
            nobody looks into the map any more, and keeps no process alive.
        verify: check all of the file against its checksums first; see `windlass.verify`.
        progress: see `windlass.progress.track`.
        strict_format: also refuse what the format forbids and safetensors accepts.
        backend: safetensors' word for it: `"pread"` means `memory="owned"`, read and not mapped.

    Returns:
        Tensors by name, in the order of their bytes, each with a storage of its own.

    Raises:
        ShardNotFound: no such file.
        InvalidHeader: the file breaks the format.
        UnsupportedDtype: torch has no dtype for a tensor.
        ValueError: an option that is none, or `prefetch` without a map.
        ChecksumMismatch: with `verify`, bytes are not those that were saved.
        NotEnoughMemory: the system has none left for a tensor, or for a map.

    Example:
        >>> load_file(folder / "model.safetensors")["embed.weight"].shape
        torch.Size([100, 16])
    """
    if is_pread(backend):
        memory, io = "owned", "buffered"
    target = find_device(device)
    if has_lane(target):
        check_options(memory=memory, io=io, cache=cache, threads=threads)
        if prefetch:
            message = f"prefetch is for what stays mapped: tensors of {target} are read at once"
            raise ValueError(message)
        found = CheckpointFile(os.fspath(filename), is_index=False, is_safetensors=True)
        source = SafeSource(found, strict_format=strict_format)
        if verify:
            refuse_damaged(source.table, threads)
        return _load_to(target, source, ReadSettings(threads or 0, io, cache), progress)
    file = ArrayFile(
        filename,
        ADAPTER,
        memory=memory,
        strict_format=strict_format,
        threads=threads,
        io=io,
        cache=cache,
        prefetch=prefetch,
        verify=verify,
    )
    loaded = file.get_all(progress)
    if target.type == "cpu":
        return loaded
    return {name: tensor.to(target) for name, tensor in loaded.items()}


def _load_to(
    device: torch.device, source: SafeSource, settings: ReadSettings, progress: Progress
) -> dict[str, torch.Tensor]:
    """Read every tensor straight into memory of a device."""
    report = ReadReport()
    with paused_gc():
        layouts = ((name, source.layout(name)) for name in source.positions)
        loaded = {
            name: torch.empty(shape, dtype=dtype, device=device) for name, (dtype, shape) in layouts
        }
        fills = [Fill(name, tensor) for name, tensor in loaded.items()]
        with track(sum(map(source.nbytes, loaded)), progress) as tell:
            fill(source, fills, settings._replace(report=report, tell=tell))
    report.log(source.path)
    return loaded
