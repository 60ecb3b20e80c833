"""`Checkpoint`: what is in a file or folder, seen without a framework; and its tensors, in one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from windlass import _rust
from windlass.layout import find_safetensors
from windlass.memory import half_of_memory
from windlass.opening import open_found
from windlass.options import check_options, check_word
from windlass.quiet import paused_gc
from windlass.sizes import parse_size
from windlass.tensor_info import TensorInfo

if TYPE_CHECKING:
    from windlass.layout import CheckpointFile
    from windlass.types import Cache, Io, PathLike, Progress


class ReadPlan(NamedTuple):
    """How all tensors would be read.

    Attributes:
        reads: number of reads, after merging neighbours and cutting into chunks.
        nbytes: bytes that they deliver.
    """

    reads: int
    nbytes: int


class Checkpoint(Mapping[str, TensorInfo]):
    """A read-only mapping from tensor name to `TensorInfo`, over one file or many shards.

    Opening reads and checks every header, several at a time, and holds no file open. Iteration is
    in index order; for a single file, in the order of its bytes.

    Args:
        path: a safetensors file, an index file (`*.json`), or a folder with either.
        strict_format: also refuse duplicate keys, headers that do not begin with `{`, and unknown
            fields, which safetensors accepts.

    Raises:
        CheckpointNotFound: nothing to read there.
        ShardNotFound: a file does not exist.
        InvalidHeader: a file breaks the format.
        InvalidIndex: the index is not one, or names a file outside its folder.
        IndexMismatch: index and headers disagree.

    Example:
        >>> checkpoint = Checkpoint(folder)
        >>> checkpoint["embed.weight"].shape
        (100, 16)
    """

    def __init__(self, path: PathLike, *, strict_format: bool = False) -> None:
        def open_table(file: CheckpointFile) -> tuple[_rust.Checkpoint, str]:
            opener = _rust.Checkpoint.open_index if file.is_index else _rust.Checkpoint.open_file
            return opener(file.path, strict_format), file.path

        self._table, self.path = open_found(lambda: find_safetensors(path), open_table)
        self._shards = self._table.shard_names()

    def __getitem__(self, name: str) -> TensorInfo:
        dtype, shape, shard, start, end = self._table.info(name)
        return TensorInfo(dtype, shape, self._shards[shard], (start, end))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names())

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._table

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}: {len(self)} tensors in {len(self._shards)} files)"

    @property
    def shards(self) -> list[str]:
        """File names, in the order of their first mention."""
        return list(self._shards)

    @property
    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of all files together; the last file wins."""
        merged: dict[str, str] = {}
        for shard in range(len(self._shards)):
            merged.update(self._table.shard_metadata(shard) or {})
        return merged

    @property
    def index_metadata(self) -> dict[str, Any]:
        """The `metadata` of the index; empty for a single file."""
        metadata = json.loads(self._table.index_metadata() or "{}")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def unlisted(self) -> dict[str, str]:
        """Tensors that a file holds and the index does not list: name → file."""
        return dict(self._table.unlisted())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return self.plan().nbytes

    def plan(self) -> ReadPlan:
        """Plan reading every tensor, without reading any."""
        return ReadPlan(*self._table.plan())

    def load(
        self,
        names: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        framework: str = "torch",
        threads: int | None = None,
        io: Io = "auto",
        cache: Cache = "keep",
        progress: Progress = None,
    ) -> dict[str, Any]:
        """Read tensors of all files at once, or parts of them, each into memory of its own.

        Args:
            names: which, and in which order; by default all, in that of the checkpoint. A mapping
                says which part of each: name → index of integers, slices and `...`, by the rules of
                numpy. No byte is read twice, and none that is not needed, unless it lies between
                two that are at most 64 KiB apart.
            framework: `"torch"` or `"numpy"`, or what `windlass.safe_open` calls them.
            threads: reader threads, 16 by default.
            io: how bytes are fetched; see `windlass.types.Io`.
            cache: `"drop"` leaves the page cache as it was: for what is read once, or does not fit.
            progress: see `windlass.progress.track`.

        Raises:
            TensorNotFound: no tensor of that name.
            InvalidSlice: an index that the tensor does not have, or with a negative step.
            FileChanged, ReadFailed: a file is not what it was when it was opened.

        Example:
            >>> checkpoint = Checkpoint(folder)
            >>> checkpoint.load(["embed.weight"])["embed.weight"].shape
            torch.Size([100, 16])
            >>> checkpoint.load({"embed.weight": (..., slice(4, 8))})["embed.weight"].shape
            torch.Size([100, 4])
        """
        if isinstance(names, str):
            message = f"names should be several, found the text {names!r}; `read` takes one"
            raise TypeError(message)
        from windlass.arrays import ReadSettings, read_owned, read_parts  # A table needs none.
        from windlass.frameworks import find_framework

        check_options(io=io, cache=cache, threads=threads)
        found = find_framework(framework, "cpu")
        settings = ReadSettings(threads=threads or 0, io=io, cache=cache)
        with paused_gc():
            if isinstance(names, Mapping):
                return read_parts(
                    self._table, self, names, framework=found, settings=settings, progress=progress
                )
            infos = self._ordered("index" if names is None else names)
            return read_owned(self._table, infos, found.adapter, settings, progress)

    def read(
        self,
        name: str,
        index: Any = ...,  # noqa: ANN401  (what indexes an array)
        *,
        framework: str = "torch",
        threads: int | None = None,
        io: Io = "auto",
        cache: Cache = "keep",
    ) -> Any:  # noqa: ANN401  (an array of the framework)
        """Read one tensor, or part of it; arguments and errors are those of `load`.

        Example:
            >>> Checkpoint(folder).read("embed.weight", slice(2)).shape
            torch.Size([2, 16])
        """
        part = self.load({name: index}, framework=framework, threads=threads, io=io, cache=cache)
        return part[name]

    def stream(
        self,
        order: Literal["file", "index"] | Iterable[str] = "file",
        *,
        budget: int | str = "4GB",
        framework: str = "torch",
        threads: int | None = None,
        io: Io = "auto",
        cache: Cache | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Read one tensor after the other, of a checkpoint that may be larger than memory.

        What comes next is read ahead, as far as the budget allows. What has been given counts as
        long as anything looks into it: delete tensors, or let the loop replace them. Small tensors
        are read in blocks (an eighth of the budget, 64 MiB at most), each of which counts until all
        its tensors are gone: what is to stay, clone.

        Args:
            order: `"file"`, as the bytes lie, shard by shard; `"index"`; or names.
            budget: most memory for tensors at any time, in bytes or as text such as `"4GB"`. More
                than twice the largest tensor keeps reading and work apart.
            framework: `"torch"` or `"numpy"`, or what `windlass.safe_open` calls them.
            threads: reader threads, 16 by default.
            io: how bytes are fetched; see `windlass.types.Io`.
            cache: `"keep"`, or `"drop"` to leave the page cache as it was; by default the latter if
                all of it would take more than half of the memory that is available.

        Returns:
            An iterator of `(name, tensor)`. It may be left at any time.

        Raises:
            BudgetExceeded: a tensor is larger than the budget (at once), or for five seconds
                tensors that are still in use leave no room for the next (while iterating).
            TensorNotFound: no tensor of that name.
            ValueError: a name that stands twice, or a budget that is no size.
            FileChanged, ReadFailed: while iterating: a file is not what it was.

        Example:
            >>> for name, tensor in Checkpoint(folder).stream(budget="1MB"):
            ...     print(name, tuple(tensor.shape))
            ...     break
            embed.weight (100, 16)
        """
        from windlass.arrays import ReadSettings
        from windlass.frameworks import find_framework
        from windlass.streaming import stream

        check_options(io=io, cache=cache or "keep", threads=threads)
        adapter = find_framework(framework, "cpu").adapter
        infos = self._ordered(order)
        cache = cache or _cache_for(sum(info.nbytes for info in infos.values()))
        settings = ReadSettings(threads=threads or 0, io=io, cache=cache)
        return stream(self._table, infos, adapter, parse_size(budget), settings)

    def _ordered(self, order: str | Iterable[str]) -> dict[str, TensorInfo]:
        """Return tensors in an order."""
        if not isinstance(order, str):
            names = list(order)
            infos = {name: self[name] for name in names}
            if len(infos) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                message = f"tensor `{twice}`: the name stands twice"
                raise ValueError(message)
            return infos
        check_word("order", order, ("file", "index"))
        raw = list(zip(self._table.names(), self._table.infos(), strict=True))
        if order == "file":
            raw.sort(key=lambda entry: entry[1][2:])  # Shard and range.
        return {
            name: TensorInfo(dtype, shape, self._shards[shard], (start, end))
            for name, (dtype, shape, shard, start, end) in raw
        }


def _cache_for(nbytes: int) -> Cache:
    """Keep what fits beside all else; the rest would push out what others need, and itself."""
    return "drop" if nbytes > half_of_memory() else "keep"
