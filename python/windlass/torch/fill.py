"""Bytes of safetensors into existing tensors, whatever their dtype, strides and device.

CPU tensors are filled by the engine: contiguous ones of the file's dtype directly, others cast and
scattered on the way. Tensors of other devices, casts that the engine does not know, and tensors
that lie in one another's gaps are filled piece by piece through one staging buffer of fixed size,
from which torch's own `copy_` casts, scatters and moves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from windlass.torch.engine import cast_dtype, is_read
from windlass.torch.pieces import Piece, batches, new_staging, place
from windlass.torch.spans import find_spans
from windlass.torch.tensors import destination
from windlass.torch.touched import Touched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from windlass.reports import ReadReport
    from windlass.torch.sources import SafeSource
    from windlass.types import Cache, Io


class Fill(NamedTuple):
    """A tensor of the checkpoint and the tensor that takes it."""

    name: str
    tensor: torch.Tensor


class ReadSettings(NamedTuple):
    """How the engine reads.

    Attributes:
        threads: reader threads; 0 leaves the number to the engine.
        io: see `windlass.types.Io`.
        cache: see `windlass.types.Cache`.
        report: is told what each read did.
        tell: called with the number of bytes delivered so far.
        touched: is told which tensors have changed.
    """

    threads: int = 0
    io: Io = "auto"
    cache: Cache = "keep"
    report: ReadReport | None = None
    tell: Callable[[int], object] | None = None
    touched: Touched | None = None


def fill(source: SafeSource, fills: list[Fill], settings: ReadSettings) -> None:
    """Fill tensors; those that share memory must not be in one call.

    Autograd sees what an in-place `copy_` without gradient would show: version counters go up.
    """
    ours: list[Fill] = []
    staged: list[Fill] = []
    for one in fills:
        (ours if is_read(one.tensor, source.layout(one.name).dtype) else staged).append(one)
    ours, entangled = _split_entangled(ours)
    staged += entangled
    done = sum(source.nbytes(one.name) for one in ours)
    pieces = read_pieces(source, staged, settings, done)  # Takes its buffer, and reads nothing yet.
    _fill_by_engine(source, ours, settings)
    # An empty tensor has no pieces, and `copy_` counts as a change all the same.
    torch.autograd.graph.increment_version([o.tensor for o in staged if not o.tensor.numel()])
    touched = settings.touched or Touched()
    for piece, values in pieces:
        touched.add([piece.name], whole=False)
        with torch.no_grad():
            piece.target.copy_(values)
        is_last = piece.start + piece.nbytes == source.nbytes(piece.name)
        touched.add([piece.name], whole=is_last)


def _split_entangled(fills: list[Fill]) -> tuple[list[Fill], list[Fill]]:
    """Set apart strided tensors that reach over memory of others, as interleaved ones do.

    The engine tells destinations apart by their first and last address.
    """
    if all(one.tensor.is_contiguous() for one in fills):
        return fills, []
    groups = find_spans(one.tensor for one in fills).find_touching()
    touching = {position for group in groups for position in group}
    alone: list[Fill] = []
    entangled: list[Fill] = []
    for position, one in enumerate(fills):
        is_apart = position not in touching or one.tensor.is_contiguous()
        (alone if is_apart else entangled).append(one)
    return alone, entangled


def _fill_by_engine(source: SafeSource, fills: list[Fill], settings: ReadSettings) -> None:
    if not fills:
        return
    tensors = [one.tensor for one in fills]
    dtypes = [cast_dtype(one.tensor, source.layout(one.name).dtype) for one in fills]
    names = [one.name for one in fills]
    touched = settings.touched or Touched()
    touched.add(names, whole=False)
    settle = partial(touched.settle, names)
    try:
        _read(source, names, tensors, settings, dtypes=dtypes, on_failure=settle)
    except BaseException:
        changed = [one.tensor for one in fills if one.name in touched]
        torch.autograd.graph.increment_version(changed)
        raise
    touched.add(names, whole=True)
    torch.autograd.graph.increment_version(tensors)


def read_pieces(
    source: SafeSource, fills: Iterable[Fill], settings: ReadSettings, done: int = 0
) -> Iterator[tuple[Piece, torch.Tensor]]:
    """Read tensors through the staging buffer; yield pieces, each with its values.

    Values have the file's dtype and are gone at the next step.
    """
    wanted = [one for one in fills if one.tensor.numel()]
    return _read_through(new_staging(), source, wanted, settings, done) if wanted else iter(())


def _read_through(
    staging: torch.Tensor, source: SafeSource, fills: list[Fill], settings: ReadSettings, done: int
) -> Iterator[tuple[Piece, torch.Tensor]]:
    for batch in batches(_piece(source, one) for one in fills):
        values = list(place(batch, staging))
        names, starts = [piece.name for piece in batch], [piece.start for piece in batch]
        shifted = settings._replace(tell=_shifted(settings.tell, done))
        _read(source, names, values, shifted, starts=starts)
        done += sum(piece.nbytes for piece in batch)
        yield from zip(batch, values, strict=True)


def _read(
    source: SafeSource,
    names: list[str],
    tensors: list[torch.Tensor],
    settings: ReadSettings,
    *,
    starts: list[int] | None = None,
    dtypes: list[str | None] | None = None,
    on_failure: Callable[[list[tuple[int, bool]]], object] | None = None,
) -> None:
    """Have the engine fill tensors, and report how."""
    stats = source.table.read_into(
        source.stored(names),
        list(map(destination, tensors)),
        starts,
        dtypes,
        threads=settings.threads,
        io=settings.io,
        cache=settings.cache,
        progress=settings.tell,
        on_failure=on_failure,
    )
    if settings.report:
        settings.report.add(stats)


def _shifted(tell: Callable[[int], object] | None, base: int) -> Callable[[int], object] | None:
    """Progress of one read of many: `base` bytes were delivered before it."""
    return None if tell is None else lambda count: tell(base + count)


def _piece(source: SafeSource, one: Fill) -> Piece:
    dtype, shape = source.layout(one.name)
    target = one.tensor.detach()  # Same memory, same version counter.
    return Piece(one.name, 0, shape, dtype, target if target.shape == shape else target.view(shape))
