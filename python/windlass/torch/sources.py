"""Where weights come from: safetensors through the engine, or `.bin` files through torch.

Both say what they hold before anything is read, in the same words.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from windlass import _rust
from windlass.errors import InvalidPickle
from windlass.prefetch import start_prefetch
from windlass.tensor_info import TensorInfo
from windlass.torch import tensors
from windlass.torch.dtypes import torch_layout
from windlass.torch.fill import fill as fill_from_table
from windlass.torch.fill import read_pieces
from windlass.torch.pickles import PickleShards
from windlass.torch.touched import Touched

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from windlass.layout import CheckpointFile
    from windlass.torch.fill import Fill, ReadSettings


class Layout(NamedTuple):
    """A tensor's dtype and shape as torch has them."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Source(Protocol):
    """A checkpoint that has been opened and checked, with no tensor read."""

    @property
    def path(self) -> str:
        """The file or index that was opened."""

    @property
    def positions(self) -> dict[str, int]:
        """Names of all listed tensors, each with its position in index order."""

    @property
    def unlisted(self) -> list[tuple[str, str]]:
        """`(tensor, file)` of tensors that a file holds and the index does not list."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Version numbers of modules, as `state_dict()._metadata` has them."""

    def layout(self, name: str) -> Layout:
        """Return dtype and shape of a tensor."""

    def nbytes(self, name: str) -> int:
        """Return the size of a tensor in the file."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor without copying it; it is read as it is touched."""

    def unmap(self) -> None:
        """Let go of the maps that no tensor looks into."""

    def is_mappable(self, name: str) -> bool:
        """Whether `tensor` returns a private view of a file, which nobody else has."""

    def file_systems(self, names: Iterable[str]) -> dict[str, bool]:
        """Return the kinds of file systems that tensors are on: do they keep what is mapped?"""

    def prefetch(self, names: Iterable[str], budget: int) -> None:
        """Begin to read so many bytes of tensors in the background, before they are touched."""

    def fill(self, fills: list[Fill], settings: ReadSettings) -> None:
        """Fill tensors that share no memory; version counters go up."""

    def pieces(
        self, fills: list[Fill], settings: ReadSettings
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Read tensors; yield `(name, part of the tensor, values in the file's dtype)`."""

    def is_same(self, one: str, other: str) -> bool:
        """Whether two names are known to be the same bytes, without reading them."""

    def fills_once(self, but: Collection[str]) -> None:
        """Promise that names are filled once and then not asked for, but for these."""


class SafeSource:
    """Safetensors: one file, or an index and its shards."""

    def __init__(self, file: CheckpointFile, *, strict_format: bool) -> None:
        opener = _rust.Checkpoint.open_index if file.is_index else _rust.Checkpoint.open_file
        self.table = opener(file.path, strict_format)
        self.path = file.path
        names = self.table.names()
        self.positions = dict(zip(names, range(len(names)), strict=True))
        self.unlisted = self.table.unlisted()
        self.metadata: dict[str, Any] = {}
        self._stored: dict[str, str] = {}
        self._mappings: dict[int, _rust.Mapping] = {}
        self._layouts: dict[str, Layout] = {}

    @cached_property
    def _infos(self) -> list[tuple[str, tuple[int, ...], int, int, int]]:
        return self.table.infos()

    def layout(self, name: str) -> Layout:
        layout = self._layouts.get(name)
        if layout is None:
            dtype, shape, *_ = self._infos[self.positions[name]]
            layout = self._layouts[name] = Layout(*torch_layout(name, dtype, shape))
        return layout

    def nbytes(self, name: str) -> int:
        """Return the size of a tensor in the file."""
        *_, start, end = self._infos[self.positions[name]]
        return end - start

    def place(self, name: str) -> tuple[int, int]:
        """Return the position of a tensor's shard, and its first byte there."""
        _, _, shard, start, _ = self._infos[self.positions[name]]
        return shard, start

    def tensor(self, name: str) -> torch.Tensor:
        dtype, shape, shard, start, end = self._infos[self.positions[name]]
        if shard not in self._mappings:
            self._mappings[shard] = self.table.map_shard(shard)
        return tensors.view(name, TensorInfo(dtype, shape, "", (start, end)), self._mappings[shard])

    def unmap(self) -> None:
        self._mappings.clear()

    def is_mappable(self, name: str) -> bool:
        return tensors.is_aligned(self.layout(name).dtype, self.place(name)[1])

    def file_systems(self, names: Iterable[str]) -> dict[str, bool]:
        return dict(map(self.table.file_system, sorted({self.place(name)[0] for name in names})))

    def prefetch(self, names: Iterable[str], budget: int) -> None:
        places = sorted(self._infos[self.positions[name]][2:] for name in names)
        parts = [(self._mappings[shard], start, end) for shard, start, end in places]
        start_prefetch(parts, budget, self.path)

    def give(self, others: dict[str, str]) -> None:
        """Let names that are not stored have the values of names that are."""
        self._stored.update(others)
        self.positions.update((name, self.positions[kept]) for name, kept in others.items())

    def stored(self, names: list[str]) -> list[str]:
        """Return the names that the files have for these."""
        return [self._stored.get(name, name) for name in names] if self._stored else names

    def fill(self, fills: list[Fill], settings: ReadSettings) -> None:
        fill_from_table(self, fills, settings)

    def pieces(
        self, fills: list[Fill], settings: ReadSettings
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        pieces = read_pieces(self, fills, settings._replace(tell=None))
        return ((piece.name, piece.target, values) for piece, values in pieces)

    def is_same(self, one: str, other: str) -> bool:
        return self.stored([one]) == self.stored([other])

    def fills_once(self, but: Collection[str]) -> None:
        """Do nothing: what has been read is not kept."""


class DictSource:
    """Tensors that somebody holds already.

    Args:
        entries: tensors by name.
        path: where they come from, for messages.
        unlisted: see `Source`.
        metadata: see `Source`.
    """

    def __init__(
        self,
        entries: dict[str, torch.Tensor],
        path: str,
        unlisted: list[tuple[str, str]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self._entries = entries
        self.positions = {name: position for position, name in enumerate(entries)}
        self.unlisted = unlisted or []
        self.metadata = metadata or {}
        self._kept: Collection[str] | None = None

    def layout(self, name: str) -> Layout:
        tensor = self._entries[name]
        if not isinstance(tensor, torch.Tensor):
            message = f"`{name}`: expected a tensor, found {type(tensor).__name__}"
            raise InvalidPickle(message)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            kind = "quantized" if tensor.is_quantized else tensor.layout
            kind = "meta" if tensor.is_meta else kind
            message = f"`{name}`: expected a plain strided tensor, found a {kind} one"
            raise InvalidPickle(message)
        return Layout(tensor.dtype, tuple(tensor.shape))

    def nbytes(self, name: str) -> int:
        return self._entries[name].nbytes

    def tensor(self, name: str) -> torch.Tensor:
        return self._entries[name]

    def unmap(self) -> None:
        """Do nothing: it has no maps of its own."""

    def is_mappable(self, name: str) -> bool:
        """Return `False`: somebody else has them, or torch maps them."""
        del name
        return False

    def file_systems(self, names: Iterable[str]) -> dict[str, bool]:
        """Return none: nothing of it is mapped by the engine."""
        del names
        return {}

    def prefetch(self, names: Iterable[str], budget: int) -> None:
        """Do nothing: it is torch that maps them."""

    def fill(self, fills: list[Fill], settings: ReadSettings) -> None:
        done, touched = 0, settings.touched or Touched()
        for name, part, values in self.pieces(fills, settings):
            touched.add([name], whole=False)
            with torch.no_grad():
                part.copy_(values)
            touched.add([name], whole=True)
            done += values.nbytes
            if settings.tell is not None:
                settings.tell(done)
            self._let_go(name, values.nbytes)

    def _let_go(self, name: str, nbytes: int) -> None:
        """Forget a tensor that has been copied, unless it is asked for again."""
        del nbytes
        if self._kept is not None and name not in self._kept:
            del self._entries[name]  # With the last one of a file, its map goes.

    def pieces(
        self, fills: list[Fill], settings: ReadSettings
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        del settings
        for one in fills:
            values = self._entries[one.name]
            yield one.name, one.tensor.detach(), values.view(one.tensor.shape)

    def is_same(self, one: str, other: str) -> bool:
        first, second = self._entries[one], self._entries[other]
        return first.dtype == second.dtype and first.is_set_to(second)

    def fills_once(self, but: Collection[str]) -> None:
        """Let go of tensors as they are copied, which ends the maps of files."""
        self._kept = but


class PickleSource(DictSource):
    """`.bin` files of torch: one file, or an index and its shards; mapped, not read."""

    def __init__(self, file: CheckpointFile, *, weights_only: bool = True) -> None:
        self._shards = PickleShards(file, weights_only=weights_only)
        listed, unlisted = self._shards.listed, self._shards.unlisted
        super().__init__(listed, file.path, unlisted, self._shards.metadata)
        self._copied: dict[str, int] = {}

    def _let_go(self, name: str, nbytes: int) -> None:
        """Forget a tensor, and give back the pages of its file that were touched, by a new map."""
        super()._let_go(name, nbytes)
        if self._kept is None:
            return
        path = self._shards.homes[name]
        self._copied[path] = self._copied.get(path, 0) + nbytes
        if self._copied[path] >= self._shards.stretch(path):
            self._copied[path] = 0
            self._entries.update(self._shards.map_again(path, self._entries))


class NameRanges:
    """Names below a prefix, found without looking at all the others."""

    def __init__(self, positions: dict[str, int]) -> None:
        self._positions = positions

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._positions)

    def below(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix` (empty, or ending in a dot), in index order."""
        if not prefix:
            return list(self._positions)
        end = prefix[:-1] + chr(ord(".") + 1)
        names = self._sorted[bisect_left(self._sorted, prefix) : bisect_left(self._sorted, end)]
        return sorted(names, key=self._positions.__getitem__)


def open_source(file: CheckpointFile, *, strict_format: bool, weights_only: bool = True) -> Source:
    """Open a checkpoint and check it, without reading a tensor.

    With `weights_only=False` a pickle may run whatever code is in it.
    """
    if file.is_safetensors:
        return SafeSource(file, strict_format=strict_format)
    return PickleSource(file, weights_only=weights_only)
