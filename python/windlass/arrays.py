"""One safetensors file → arrays of a framework: mapped views, or memory of their own.

A framework is an `Adapter` of four functions (`windlass.torch.tensors`, `windlass.numpy`);
everything else is the same for all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from windlass import _rust
from windlass.checkpoint import TensorInfo
from windlass.options import check_options
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.reports import ReadReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer, CapsuleType

    from windlass.types import Cache, Io, Memory, PathLike, Progress

Array = TypeVar("Array")


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
    ) -> None:
        check_options(memory=memory, io=io, cache=cache, threads=threads)
        self.path = os.fspath(path)
        self.table = _rust.Checkpoint.open_file(path, strict_format)
        self._adapter = adapter
        self._threads, self._io, self._cache = threads or 0, io, cache
        self._owned = memory == "owned"
        self._mapping = None if self._owned else self.table.map_shard(0)

    def info(self, name: str) -> TensorInfo:
        """Return what the header says about a tensor."""
        return _tensor_info(self.table.info(name))

    def get(self, name: str) -> Array:
        """Return one tensor."""
        return self.get_many([name])[name]

    def part(self, name: str, cut: Callable[[Array], Array]) -> Array:
        """Return part of a tensor, of which no more is read than `cut` takes."""
        mapping = self._mapping or self.table.map_shard(0)
        part = cut(self._adapter.view(name, self.info(name), mapping))
        return self._adapter.copy(part) if self._owned else part

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
        arrays = {name: self._adapter.empty(name, info) for name, info in infos.items()}
        destinations = list(map(self._adapter.destination, arrays.values()))
        total = sum(info.nbytes for info in infos.values())
        with track(total, progress) as tell:
            stats = self.table.read_into(
                list(arrays),
                destinations,
                threads=self._threads,
                io=self._io,
                cache=self._cache,
                progress=tell,
            )
        report = ReadReport()
        report.add(stats)
        report.log(self.path)
        return arrays


def _tensor_info(raw: tuple[str, tuple[int, ...], int, int, int]) -> TensorInfo:
    dtype, shape, _, start, end = raw
    return TensorInfo(dtype, shape, "", (start, end))
