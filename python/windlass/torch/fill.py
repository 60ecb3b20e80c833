"""Bytes of safetensors into existing tensors, whatever their dtype, strides and device.

CPU tensors are filled by the engine: contiguous ones of the file's dtype directly, others cast and
scattered on the way. Tensors of GPUs are filled piece by piece through a ring of buffers, read and
copied at the same time (see `relay.py`). Tensors of other devices, casts that the engine does not
know, and tensors that lie in one another's gaps are filled through one staging buffer of fixed
size, from which torch's own `copy_` casts, scatters and moves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from windlass.torch.engine import cast_dtype, is_read
from windlass.torch.lanes import CudaLane, has_lane
from windlass.torch.pieces import Piece, batches, new_staging, place
from windlass.torch.relay import Relay
from windlass.torch.spans import find_spans
from windlass.torch.tensors import destination
from windlass.torch.touched import Touched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from windlass._rust import ReadStats, Ways
    from windlass.reports import ReadReport
    from windlass.torch.lanes import Lane
    from windlass.torch.relay import Tell
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
        fresh: whether all places were never touched: they may come in huge pages.
        prefetch: bytes of what is mapped, and not read, that are read in the background.
        report: is told what each read did.
        tell: called with the number of bytes delivered so far.
        ways: what was chosen for all reads together, if there are several.
        touched: is told which tensors have changed.
    """

    threads: int = 0
    io: Io = "auto"
    cache: Cache = "keep"
    fresh: bool = False
    prefetch: int = 0
    report: ReadReport | None = None
    tell: Callable[[int], object] | None = None
    ways: Ways | None = None
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
    if staged:  # They take many reads, which are judged as one.
        settings = settings._replace(ways=_look(source, fills, settings))
    relayed = [one for one in staged if has_lane(one.tensor.device)]
    others = [one for one in staged if not has_lane(one.tensor.device)]
    done = sum(source.nbytes(one.name) for one in ours)
    done_by_relay = done + sum(source.nbytes(one.name) for one in relayed)
    # Takes its buffer, and reads nothing yet.
    pieces = read_pieces(source, others, settings, done_by_relay)
    _fill_by_engine(source, ours, settings)
    # An empty tensor has no pieces, and `copy_` counts as a change all the same.
    torch.autograd.graph.increment_version([o.tensor for o in staged if not o.tensor.numel()])
    fill_by_relay(source, relayed, settings, CudaLane, done)
    touched = settings.touched or Touched()
    for piece, values in pieces:
        touched.add([piece.name], whole=False)
        with torch.no_grad():
            piece.target.copy_(values)
        touched.add([piece.name], whole=_is_last(source, piece))


def fill_by_relay(
    source: SafeSource,
    fills: list[Fill],
    settings: ReadSettings,
    new_lane: Callable[[torch.device], Lane],
    done: int = 0,
) -> None:
    """Fill tensors of devices to which `new_lane` makes lanes, in file order.

    `done` is how many bytes were delivered before, for progress.
    """
    if not fills:
        return
    touched = settings.touched or Touched()

    def read(
        batch: list[Piece], values: list[torch.Tensor], dtypes: list[str | None], tell: Tell
    ) -> ReadStats:
        names, starts = [piece.name for piece in batch], [piece.start for piece in batch]
        touched.add(names, whole=False)
        return _read(source, names, values, settings, tell, starts=starts, dtypes=dtypes)

    def arrived(batch: list[Piece], stats: ReadStats) -> None:
        nonlocal done
        touched.add((piece.name for piece in batch if _is_last(source, piece)), whole=True)
        done += sum(piece.nbytes for piece in batch)
        if settings.report:
            settings.report.add(stats)
        if settings.tell:
            settings.tell(done)

    in_order = sorted(fills, key=lambda one: source.place(one.name))
    Relay(read, new_lane).carry((_piece(source, one) for one in in_order), arrived)


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


def _look(source: SafeSource, fills: list[Fill], settings: ReadSettings) -> Ways:
    return source.table.look([one.name for one in fills], io=settings.io, cache=settings.cache)


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
        stats = _read(
            source,
            names,
            tensors,
            settings,
            settings.tell,
            dtypes=dtypes,
            fresh=settings.fresh,
            on_failure=settle,
        )
    except BaseException:
        changed = [one.tensor for one in fills if one.name in touched]
        torch.autograd.graph.increment_version(changed)
        raise
    if settings.report:
        settings.report.add(stats)
    touched.add(names, whole=True)
    torch.autograd.graph.increment_version(tensors)


def read_pieces(
    source: SafeSource, fills: Iterable[Fill], settings: ReadSettings, done: int = 0
) -> Iterator[tuple[Piece, torch.Tensor]]:
    """Read tensors through the staging buffer; yield pieces, each with its values.

    Values have the file's dtype and are gone at the next step.
    """
    wanted = [one for one in fills if one.tensor.numel()]
    if not wanted:
        return iter(())
    if settings.ways is None:
        settings = settings._replace(ways=_look(source, wanted, settings))
    return _read_through(new_staging(), source, wanted, settings, done)


def _read_through(
    staging: torch.Tensor, source: SafeSource, fills: list[Fill], settings: ReadSettings, done: int
) -> Iterator[tuple[Piece, torch.Tensor]]:
    for batch in batches(_piece(source, one) for one in fills):
        values = list(place(batch, staging))
        names, starts = [piece.name for piece in batch], [piece.start for piece in batch]
        tell = _shifted(settings.tell, done)
        stats = _read(source, names, values, settings, tell, starts=starts)
        if settings.report:
            settings.report.add(stats)
        done += sum(piece.nbytes for piece in batch)
        yield from zip(batch, values, strict=True)


def _read(
    source: SafeSource,
    names: list[str],
    tensors: list[torch.Tensor],
    settings: ReadSettings,
    tell: Tell | None,
    *,
    starts: list[int] | None = None,
    dtypes: list[str | None] | None = None,
    fresh: bool = False,
    on_failure: Callable[[list[tuple[int, bool]]], object] | None = None,
) -> ReadStats:
    """Have the engine fill tensors."""
    return source.table.read_into(
        source.stored(names),
        list(map(destination, tensors)),
        starts,
        dtypes,
        threads=settings.threads,
        io=settings.io,
        cache=settings.cache,
        fresh=fresh,
        ways=settings.ways,
        progress=tell,
        on_failure=on_failure,
    )


def _is_last(source: SafeSource, piece: Piece) -> bool:
    return piece.start + piece.nbytes == source.nbytes(piece.name)


def _shifted(tell: Tell | None, base: int) -> Tell | None:
    """Progress of one read of many: `base` bytes were delivered before it."""
    return None if tell is None else lambda count: tell(base + count)


def _piece(source: SafeSource, one: Fill) -> Piece:
    dtype, shape = source.layout(one.name)
    target = one.tensor.detach()  # Same memory, same version counter.
    return Piece(one.name, 0, shape, dtype, target if target.shape == shape else target.view(shape))
