"""`load_sharded_checkpoint`: a checkpoint into an existing model.

Everything that can be known before the first byte is found first: files, headers, index, names,
shapes, memory. Only then does the model change.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from windlass.layout import find_checkpoint
from windlass.memory import memory_for
from windlass.opening import open_found
from windlass.options import check_options
from windlass.prefetch import prefetch_budget
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.reports import ReadReport
from windlass.torch.fill import ReadSettings
from windlass.torch.plan import plan_load
from windlass.torch.sources import SafeSource, open_source
from windlass.verification import refuse_damaged

if TYPE_CHECKING:
    from windlass.torch.sources import Source
    from windlass.types import Cache, Io, Memory, PathLike, Prefetch, Progress

#: What is said where pickles are to be verified.
NO_CHECKSUMS = (
    "`{}`: verify=True is for safetensors: pickles have no checksums, save safetensors with "
    "checksums=True"
)


def load_sharded_checkpoint(
    model: nn.Module,
    folder: PathLike,
    strict: bool = True,  # noqa: FBT001, FBT002  (the signature that it replaces)
    prefer_safe: bool = True,  # noqa: FBT001, FBT002
    *,
    assign: bool = False,
    memory: Memory = "mapped",
    prefetch: Prefetch = False,
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    verify: bool = False,
    progress: Progress = None,
    strict_format: bool = False,
) -> _IncompatibleKeys:
    """Fill a model from a folder, as transformers' function of this name does, faster and safer.

    Weights go straight into the existing parameters and persistent buffers, cast to their dtype.
    Until everything has been checked the model is not touched: an error about files, names or
    shapes leaves it as it was. Ties are understood: a name whose memory other names fill is not
    missing; if the checkpoint gives two tied names different values, the later in the model wins
    and a warning names both.

    Args:
        model: the model. Its parameters may be of any dtype, strides and device but meta.
        folder: holds an index and its shards (`model.safetensors.index.json`,
            `pytorch_model.bin.index.json`) or a single `model.safetensors` or
            `pytorch_model.bin`. A path to one of these files works too.
        strict: refuse missing and unexpected names, and tensors that the index does not list.
        prefer_safe: take safetensors where both kinds are there.
        assign: replace parameters and buffers by the loaded tensors instead of filling them; what
            a model on the meta device needs. Dtypes and device are then the checkpoint's.
        memory: with `assign`, where loaded tensors live; see `windlass.load_file`.
        prefetch: with `assign` and mapped safetensors, read them ahead in the background; see
            `windlass.load_file`.
        threads: reader threads, 16 by default: most of them wait for the disk.
        io: how bytes are fetched: `"auto"` (as suits file and machine), `"mapped"`, `"buffered"`,
            `"direct"`, past the page cache, or `"uring"`; see `windlass.types.Io`.
        cache: whether the page cache is to `"keep"` what is read, or to `"drop"` all that was not
            in it before.
        verify: check all of it against its checksums first; see `windlass.verify`. Refused for
            pickles, which have none.
        progress: see `windlass.progress.track`.
        strict_format: also refuse what the format forbids and safetensors accepts.

    Returns:
        `missing_keys`, in model order, and `unexpected_keys`, in index order (those that the
        index does not list come last).

    Raises:
        ValueError: an option that is none, `prefetch` without a map, or `verify` for pickles.
        CheckpointNotFound: the folder has none of these files.
        ShardNotFound: the index names a file that is not there.
        InvalidHeader, InvalidPickle: a file breaks its format.
        InvalidIndex: the index is not one, or names a file outside the folder.
        IndexMismatch: index and shards disagree.
        ChecksumMismatch: with `verify`, bytes are not those that were saved.
        IncompatibleKeys: names (with `strict`) or shapes (always) do not fit the model.
        MetaParameter, UnsupportedParameter: a parameter that cannot be filled.
        FileChanged, ReadFailed: reading failed half way; a note says which tensors have changed.
        NotEnoughMemory: the system has none left, not even for buffers.

    Example:
        >>> load_sharded_checkpoint(model, folder)
        <All keys matched successfully>
    """
    if not isinstance(model, nn.Module):
        message = f"model should be a torch.nn.Module, found {type(model).__name__}"
        raise TypeError(message)
    check_options(memory=memory, io=io, cache=cache, threads=threads)
    budget = prefetch_budget(prefetch, memory)
    if budget and not assign:
        message = "prefetch is for what is mapped: without assign=True all is read at once"
        raise ValueError(message)
    with paused_gc():
        source = open_found(
            lambda: find_checkpoint(folder, prefer_safe=prefer_safe),
            lambda file: open_source(file, strict_format=strict_format),
        )
    return fill_model(
        model,
        source,
        strict=strict,
        assign=assign,
        memory=memory,
        prefetch=budget,
        verify=verify,
        threads=threads,
        io=io,
        cache=cache,
        progress=progress,
    )


def fill_model(
    model: nn.Module,
    source: Source,
    *,
    strict: bool,
    assign: bool = False,
    memory: Memory = "mapped",
    prefetch: int = 0,
    verify: bool = False,
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    progress: Progress = None,
) -> _IncompatibleKeys:
    """Fill a model from an opened checkpoint; see `load_sharded_checkpoint`."""
    with paused_gc(), memory_for(f"`{source.path}`"):
        if verify:
            _refuse_damaged(source, threads)
        if not strict:
            warn_unlisted(source.unlisted)
        plan = plan_load(model, source, strict=strict, assign=assign, memory=memory)
        report = ReadReport()
        settings = ReadSettings(threads or 0, io, cache, prefetch=prefetch, report=report)
        with track(plan.nbytes, progress) as tell:
            plan.carry_out(settings._replace(tell=tell))
        report.log(source.path)
        conflicts = list(plan.conflicts(settings))
    for earlier, later in conflicts:
        _warn_caller(
            f"`{earlier}` and `{later}` share memory in the model, but the checkpoint gives them "
            f"different values; those of `{later}`, the later in the model, were loaded"
        )
    return _IncompatibleKeys(plan.missing, plan.unexpected)


def _refuse_damaged(source: Source, threads: int | None) -> None:
    if not isinstance(source, SafeSource):
        raise ValueError(NO_CHECKSUMS.format(source.path))  # noqa: TRY004
    refuse_damaged(source.table, threads)


def warn_unlisted(unlisted: list[tuple[str, str]]) -> None:
    """Say which tensors shards hold and the index does not list."""
    if unlisted:
        places = ", ".join(f"`{name}` in `{shard}`" for name, shard in unlisted)
        _warn_caller(f"not in the index, and not loaded: {places}", stacklevel=5)


def _warn_caller(message: str, stacklevel: int = 4) -> None:
    warnings.warn(message, UserWarning, stacklevel=stacklevel)
