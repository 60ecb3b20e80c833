"""A checkpoint seen under the names of a model: what it lacks, or is not wanted, is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import torch

    from windlass.torch.fill import Fill, ReadSettings
    from windlass.torch.sources import Layout, Source


class RenamedSource:
    """A source of which each tensor has another name, as the protocol `Source` has it.

    Args:
        source: the checkpoint.
        stored: name of the model → name in the checkpoint.
        metadata: version numbers of modules, by the names of the model.
    """

    def __init__(self, source: Source, stored: dict[str, str], metadata: dict[str, Any]) -> None:
        self._source = source
        self._stored = stored
        self.path = source.path
        self.positions = {name: source.positions[kept] for name, kept in stored.items()}
        self.unlisted: list[tuple[str, str]] = []
        self.metadata = metadata

    def layout(self, name: str) -> Layout:
        """Return dtype and shape of a tensor."""
        return self._source.layout(self._stored[name])

    def nbytes(self, name: str) -> int:
        """Return the size of a tensor in the file."""
        return self._source.nbytes(self._stored[name])

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor without copying it."""
        return self._source.tensor(self._stored[name])

    def unmap(self) -> None:
        """Let go of the maps that no tensor looks into."""
        self._source.unmap()

    def is_mappable(self, name: str) -> bool:
        """Whether `tensor` returns a private view of a file, which nobody else has."""
        return self._source.is_mappable(self._stored[name])

    def file_systems(self, names: Iterable[str]) -> dict[str, bool]:
        """Return the kinds of file systems that tensors are on: do they keep what is mapped?"""
        return self._source.file_systems(self._stored[name] for name in names)

    def fill(self, fills: list[Fill], settings: ReadSettings) -> None:
        """Fill tensors that share no memory."""
        self._source.fill(self._as_stored(fills), settings)

    def pieces(
        self, fills: list[Fill], settings: ReadSettings
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Read tensors; yield `(name, part of the tensor, values in the file's dtype)`."""
        named = {self._stored[one.name]: one.name for one in fills}
        pieces = self._source.pieces(self._as_stored(fills), settings)
        return ((named[stored], part, values) for stored, part, values in pieces)

    def is_same(self, one: str, other: str) -> bool:
        """Whether two names are known to be the same bytes."""
        return self._source.is_same(self._stored[one], self._stored[other])

    def fills_once(self, but: Collection[str]) -> None:
        """Promise that names are filled once and then not asked for, but for these."""
        self._source.fills_once({self._stored[name] for name in but if name in self._stored})

    def prefetch(self, names: Iterable[str], budget: int) -> None:
        """Begin to read so many bytes of tensors in the background, before they are touched."""
        self._source.prefetch([self._stored[name] for name in names], budget)

    def _as_stored(self, fills: list[Fill]) -> list[Fill]:
        return [one._replace(name=self._stored[one.name]) for one in fills]
