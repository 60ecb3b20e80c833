"""One safetensors file → arrays of a framework: mapped views, or memory of their own.

A framework is an `Adapter` of four functions (`windlass.torch.tensors`, `windlass.numpy`);
everything else is the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from windlass import _rust
from windlass.cuts import cut
from windlass.errors import InvalidSlice
from windlass.memory import refuse_beyond_limit
from windlass.options import check_options
from windlass.prefetch import prefetch_budget, start_prefetch
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.reports import log_read
from windlass.tensor_info import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Buffer, CapsuleType

    from windlass.cuts import Cuts
    from windlass.frameworks import Framework
    from windlass.types import Cache, Io, Memory, PathLike, Prefetch, Progress

Array = TypeVar("Array")


class ReadSettings(TypedDict):
    """How the engine reads: threads (0 leaves the number to it), the way, and what it leaves."""

    threads: int
    io: Io
    cache: Cache


@dataclass(frozen=True)
class Adapter(Generic[Array]):
    """What a framework must say about its arrays.

    Attributes:
        view: `(name, info, mapping)` → an array over the tensor's bytes in the mapping, with a
            storage of its own.
        empty: `(name, info)` → an uninitialised, C-contiguous array of that dtype and shape.
        destination: `(array)` → its memory, for the engine to write to.
        copy: `(array)` → the same values in memory of their own.
    """

    view: Callable[[str, TensorInfo, _rust.Mapping], Array]
    empty: Callable[[str, TensorInfo], Array]
    destination: Callable[[Array], Buffer | CapsuleType]
    copy: Callable[[Array], Array]


class ArrayFile(Generic[Array]):
    """An open safetensors file that gives arrays of one framework.

    Args:
        path: the file.
        adapter: the framework.
        memory: `"mapped"` arrays look into a private map of the file: nothing is read until it is
            touched, and writing changes memory only. `"owned"` arrays are read at once, in
            parallel, and do not depend on the file any more.
        strict_format: see `windlass.Checkpoint`.
        threads: reader threads for `"owned"`; `None` leaves the number to the engine.
        io: how `"owned"` bytes are fetched.
        cache: what becomes of the page cache by that.
        prefetch: how much of `"mapped"` arrays is read ahead in the background.
        verify: check all of the file against its checksums first; see `windlass.verify`.
    """

    def __init__(
        self,
        path: PathLike,
        adapter: Adapter[Array],
        *,
        memory: Memory = "mapped",
        strict_format: bool = False,
        threads: int | None = None,
        io: Io = "auto",
        cache: Cache = "keep",
        prefetch: Prefetch = False,
        verify: bool = False,
    ) -> None:
        check_options(memory=memory, io=io, cache=cache, threads=threads)
        budget = prefetch_budget(prefetch, memory)
        self.table = _rust.Checkpoint.open_file(path, strict_format)
        self._adapter = adapter
        self._settings = ReadSettings(threads=threads or 0, io=io, cache=cache)
        self._owned = memory == "owned"
        self._mapping = None if self._owned else self.table.map_shard(0)
        if verify:
            from windlass.verification import refuse_damaged

            refuse_damaged(self.table, threads)
        self._prefetch = self._start_prefetch(budget)

    def stop_prefetch(self) -> None:
        """End what is read in the background; arrays stay what they are."""
        if self._prefetch:
            self._prefetch.stop()

    def wait_for_prefetch(self) -> int:
        """Wait until all is read that will be; return how many bytes."""
        if not self._prefetch:
            return 0
        self._prefetch.wait()
        return self._prefetch.nbytes()

    def _start_prefetch(self, budget: int) -> _rust.Prefetch | None:
        if self._mapping is None or not budget:
            return None
        ranges = [(start, end) for *_, start, end in self.table.infos()]
        parts = [(self._mapping, start, end) for start, end in sorted(ranges)]
        return start_prefetch(parts, budget, str(self.table.path()))

    def info(self, name: str) -> TensorInfo:
        """Return what the header says about a tensor."""
        return _tensor_info(self.table.info(name))

    def get(self, name: str) -> Array:
        """Return one tensor."""
        return self.get_many([name])[name]

    def part(self, name: str, index: Any, take: Callable[[Array, Any], Array]) -> Array:  # noqa: ANN401
        """Return part of a tensor, of which no more is read than `take(array, index)` takes."""
        info = self.info(name)
        cuts = self._engine_cuts(name, info, index) if self._owned else None
        if cuts is not None:
            return _read_cuts(
                self.table,
                {name: info},
                {name: cuts},
                self._adapter,
                settings=self._settings,
                progress=False,
            )[name]
        mapping = self._mapping or self.table.map_shard(0)
        part = take(self._adapter.view(name, info, mapping), index)
        return self._adapter.copy(part) if self._owned else part

    def _engine_cuts(self, name: str, info: TensorInfo, index: Any) -> Cuts | None:  # noqa: ANN401
        """Resolve an index as the engine reads it; `None` for what only the framework knows."""
        if _rust.DTYPES[info.dtype] % 8:
            return None
        try:
            return cut(name, info.shape, index)
        except InvalidSlice:
            return None

    def get_many(self, names: Iterable[str]) -> dict[str, Array]:
        """Return the named tensors, in that order."""
        return self._load({name: self.info(name) for name in names}, progress=False)

    def get_all(self, progress: Progress = None) -> dict[str, Array]:
        """Return every tensor, in the order of their bytes."""
        with paused_gc():
            infos = map(_tensor_info, self.table.infos())
            return self._load(dict(zip(self.table.names(), infos, strict=True)), progress=progress)

    def _load(self, infos: dict[str, TensorInfo], *, progress: Progress) -> dict[str, Array]:
        if self._mapping is not None:
            view, mapping = self._adapter.view, self._mapping
            return {name: view(name, info, mapping) for name, info in infos.items()}
        return read_owned(self.table, infos, self._adapter, self._settings, progress)


def read_owned(
    table: _rust.Checkpoint,
    infos: Mapping[str, TensorInfo],
    adapter: Adapter[Array],
    settings: ReadSettings,
    progress: Progress,
) -> dict[str, Array]:
    """Read tensors into new memory of their own.

    Raises:
        NotEnoughMemory: before anything is read, if it is clear that there is not enough.
    """
    refuse_beyond_limit(sum(info.nbytes for info in infos.values()), f"`{table.path()}`")
    arrays = {name: adapter.empty(name, info) for name, info in infos.items()}
    destinations = list(map(adapter.destination, arrays.values()))
    with track(sum(info.nbytes for info in infos.values()), progress) as tell:
        stats = table.read_into(list(arrays), destinations, fresh=True, **settings, progress=tell)
    log_read(table, stats)
    return arrays


def read_parts(
    table: _rust.Checkpoint,
    infos: Mapping[str, TensorInfo],
    indexes: Mapping[str, Any],
    *,
    framework: Framework,
    settings: ReadSettings,
    progress: Progress,
) -> dict[str, Any]:
    """Read parts of tensors, each into new memory of its own."""
    chosen = {name: infos[name] for name in indexes}
    packed = {name: info for name, info in chosen.items() if _rust.DTYPES[info.dtype] % 8}
    found = read_owned(table, packed, framework.adapter, settings, progress=False)
    for name, whole in found.items():  # No byte begins with an element: cut in memory.
        cut(name, tuple(whole.shape), indexes[name])  # Refuses what is no index of it.
        found[name] = framework.adapter.copy(framework.part(whole, indexes[name]))
    cuts = {
        name: cut(name, info.shape, indexes[name])
        for name, info in chosen.items()
        if name not in packed
    }
    found |= _read_cuts(
        table, chosen, cuts, framework.adapter, settings=settings, progress=progress
    )
    return {name: found[name] for name in indexes}


def _read_cuts(
    table: _rust.Checkpoint,
    infos: Mapping[str, TensorInfo],
    cuts: Mapping[str, Cuts],
    adapter: Adapter[Array],
    *,
    settings: ReadSettings,
    progress: Progress,
) -> dict[str, Array]:
    sizes = [math.prod(cut.shape) * _rust.DTYPES[infos[name].dtype] for name, cut in cuts.items()]
    refuse_beyond_limit(sum(sizes) // 8, f"`{table.path()}`")
    parts = {
        name: adapter.empty(name, infos[name]._replace(shape=cut.shape))
        for name, cut in cuts.items()
    }
    with track(sum(sizes) // 8, progress) as tell:
        stats = table.read_cuts(
            list(cuts),
            [infos[name].shape for name in cuts],
            [cut.cuts for cut in cuts.values()],
            list(map(adapter.destination, parts.values())),
            fresh=True,
            **settings,
            progress=tell,
        )
    log_read(table, stats)
    return parts


def _tensor_info(raw: tuple[str, tuple[int, ...], int, int, int]) -> TensorInfo:
    dtype, shape, _, start, end = raw
    return TensorInfo(dtype, shape, "", (start, end))
